"""Which class an image belongs to, under a conditional VAE, by Bayes' rule.

A conditional VAE has p(x|y) = ∫ p(x|z, y) p(z) dz for each class y. With the probabilities p(y) of the classes,

    p(y|x) = p(x|y) p(y) / Σ_y' p(x|y') p(y')

and the sum below is p(x). The model was never trained to tell the classes apart. It does so as far as its densities are
right: this is a generative classifier.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from scratchvae.arguments import finite_array, whole
from scratchvae.backend import move
from scratchvae.guard import guard_of
from scratchvae.inference.marginal import importance


@dataclass(frozen=True)
class Classes:
    """What a conditional VAE says of the class of each of N datapoints.

    log_px_y (N, C) holds the estimates of log p(x|y) in nats, and error (N, C) their standard errors. prior (C,) holds
    p(y). untrusted (N, C) says which of the estimates should not be trusted: see `Estimate.untrusted`.
    """

    log_px_y: np.ndarray
    error: np.ndarray
    prior: np.ndarray
    untrusted: np.ndarray

    def log_px(self):
        """Return log p(x) = log Σ_y p(x|y) p(y), (N,) in nats."""
        return logsumexp(self._joint(), axis=1)

    def log_posterior(self):
        """Return log p(y|x), (N, C)."""
        return self._joint() - self.log_px()[:, None]

    def predicted(self):
        """Return the most probable class of each datapoint, (N,)."""
        return self._joint().argmax(axis=1)

    def accuracy(self, y):
        """Return the share of the datapoints whose most probable class is their label y (N,)."""
        return float((self.predicted() == y).mean())

    def _joint(self):
        """Return log p(x|y) + log p(y), (N, C)."""
        with np.errstate(divide="ignore"):  # a class with p(y) = 0 is never predicted
            return self.log_px_y + np.log(self.prior)


def classes(model, x, n_samples=20, prior=None, seed=0, progress=None, comm=None):
    """Estimate log p(x|y) of every class by importance sampling from q(z|x, y), and return `Classes`.

    model       is a conditional `VAE`: one with n_classes.
    x           holds the pixels, (N, D), in host memory, or rows (N, D + C), whose own labels are not read.
    n_samples   is K, the number of draws for each datapoint and class, 20 unless given. More of them lower the errors;
                what matters for p(y|x) are those of the classes that are near to each other.
    prior       holds p(y), (C,), numbers that sum to 1: take the frequencies of the classes where new data come from.
                Unless given, all classes are equally probable.
    seed        selects the draws, which are those of `importance`, the same for all classes.
    progress    is called with the number of rows that were finished, N C in all; None for no calls.
    comm        is a communicator of mpi4py, whose ranks share the rows; None, the default, is this process alone.

    Most estimates for wrong classes have large errors, and nobody is warned of them here: see `Classes.untrusted`. A
    model without classes, and arguments that do not fit, raise a ValueError.
    """
    with guard_of(model):
        C = model.n_classes
        if not C:
            raise ValueError("the model has no classes: train a conditional one, with n_classes (--labels)")
        prior = np.full(C, 1 / C) if prior is None else finite_array("prior", prior, (C,))
        if prior.min() < 0 or abs(prior.sum() - 1) > 1e-6:
            raise ValueError(f"prior is {prior.tolist()}; expected the probabilities of the classes, with the sum 1")
        whole("n_samples", n_samples)
        x = np.asarray(x)
        x = x[:, : model.n_visible] if x.ndim == 2 and x.shape[1] == model.n_columns else x
        found = []
        for y in range(C):
            rows = move(model.labelled(move(x, model.backend), np.full(len(x), y)), "numpy")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "k_hat is above")
                found.append(importance(model, rows, n_samples, seed, progress, comm))
    log_px_y, error, untrusted = (
        np.stack(part, axis=1) for part in zip(*((one.log_p, one.error, one.untrusted()) for one in found), strict=True)
    )
    return Classes(log_px_y, error, prior, untrusted)
