"""The Gaussian decoders, (12) in C.2 of Kingma & Welling, "Auto-Encoding Variational Bayes"."""

import numpy as np

from scratchvae.inference.distributions import log_gaussian
from scratchvae.nets.layers import Sigmoid


class Gaussian:
    """p(x|z) = N(μ, σ² I) with μ and log σ² for each pixel   (12).

    mean is "sigmoid", unless given, or "free". With "sigmoid" μ goes through a sigmoid, since pixels lie in [0, 1];
    this is the decoder of section 5 for Frey Face. With "free" μ is what the network gives, for data that are any
    numbers. What the methods take and return is said in inference/likelihoods/__init__.py.
    """

    name = "gaussian"
    outputs = ("mu", "log_var")
    means = ("sigmoid", "free")
    unbounded = True
    pixels = True
    temporaries = -2  # of the 8 that are counted for the outputs six are there at once

    def __init__(self, mean="sigmoid"):
        self.links = {"mu": Sigmoid} if mean == "sigmoid" else {}
        self.support = (0, 1) if mean == "sigmoid" else (-np.inf, np.inf)

    def log_prob(self, x, mu, log_var, gradient=True):
        """Return log p(x|z)   (12), with ∂/∂μ and ∂/∂log σ²."""
        return log_gaussian(x, mu, log_var, gradient)

    def mean(self, mu, log_var):
        """Return μ, the mean of each pixel."""
        return mu

    def noise(self, generator, shape, dtype):
        """Return standard normal numbers."""
        return generator.standard_normal(shape, dtype=dtype)

    def draw(self, eps, mu, log_var):
        """Return x = μ + σ ⊙ ε."""
        return mu + np.exp(0.5 * log_var) * eps


class Isotropic(Gaussian):
    """p(x|z) = N(μ(z), σ² I) with one learned σ² for all pixels and all z, as in probabilistic PCA.

    Without hidden layers it makes the decoder of a linear VAE (Lucas et al. 2019, "Don't Blame the ELBO!"). mean is
    that of `Gaussian`.
    """

    name = "isotropic"
    outputs = ("mu",)
    shared = {"log_var": 1}  # noqa: RUF012  a constant
    unbounded = False
