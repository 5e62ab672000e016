"""Auto-Encoding Variational Bayes from scratch: NumPy, every gradient by hand, every gradient checked."""

from scratchvae.data import load_data
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.training.em import fit_mcem
from scratchvae.training.loop import evaluate, fit
from scratchvae.training.optim import SGD, Adagrad, Adam
from scratchvae.training.run import load_model

__all__ = [
    "SGD",
    "VAE",
    "Adagrad",
    "Adam",
    "FullVB",
    "evaluate",
    "fit",
    "fit_mcem",
    "load_data",
    "load_model",
]
__version__ = "0.2.0"
