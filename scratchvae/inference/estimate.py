"""An estimate of log p(x) for each datapoint, with what its terms say about how far to trust it."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

NOT_FINITE = (
    "log p(x) of {} datapoints is not finite: see whether they are on the scale of the training rows, and whether all "
    "parameters are finite"
)


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x) for N datapoints, with what is known about its error.

    log_p     is the estimate of log p(x), (N,), in nats.
    error     is its standard error, (N,), in nats. It means something only where k_hat is small: above ½ the terms have
              no variance, and the error is too small (see `unsure`). From `appendix_d` with fit="kernel" it is too
              small as well: its 95 % intervals cover 88 to 93 % (see there).
    ess       is the effective sample size, (N,): how many equal terms would tell as much as the ones averaged here.
    k_hat     is the tail shape of the terms, (N,), as `diagnostics.pareto_k` fits it.
    n_terms   is the number of terms that were averaged for each datapoint.
    r_hat     is the split R̂ of the chains, (N, J), from `appendix_d`; None from `importance`, which has no chains.
    """

    log_p: np.ndarray
    error: np.ndarray
    ess: np.ndarray
    k_hat: np.ndarray
    n_terms: int
    r_hat: np.ndarray | None = None

    def mean(self):
        """Return the mean of log p(x) over the datapoints and its standard error, two numbers in nats.

        The standard error covers the estimation of each log p(x) and not the choice of the datapoints. It does not
        cover the bias: the log of a mean is biased by about error²/2 for each datapoint, downwards where the mean
        estimates p(x) and upwards where it estimates 1/p(x). Over many datapoints that may exceed the standard error;
        `bias` gives its size.
        """
        return float(self.log_p.mean()), float(np.sqrt((self.error**2).sum()) / len(self.error))

    def bias(self):
        """Return the size of the bias of `mean` to first order, Σ error²/2 over N, in nats.

        It is no upper limit on the bias where k_hat is large.
        """
        return float((self.error**2).mean() / 2)

    def threshold(self):
        """Return the largest k̂ that can be trusted with n terms.

        It is min(1 - 1/log₁₀ n, 0.7) (Vehtari et al. 2024, named in full at `diagnostics.pareto_k`, section 3.2.4).
        """
        return min(1 - 1 / math.log10(self.n_terms), 0.7) if self.n_terms > 10 else 0.0

    def untrusted(self):
        """Return which of the estimates should not be trusted, (N,) of bool: those whose k_hat exceeds `threshold`.

        Those that are not finite are never trusted. With fewer than 21 terms k_hat is NaN, and says nothing against an
        estimate. With more, a k_hat that is NaN comes of terms that are not finite, and the estimate counts as
        untrusted.
        """
        unknown = np.isnan(self.k_hat) & (self.n_terms > 20)
        return (self.k_hat > self.threshold()) | unknown | ~np.isfinite(self.log_p)

    def unsure(self):
        """Return which of the estimates have an error that is too small, (N,) of bool, though they can be trusted.

        These are the ones with a k_hat above ½ and up to `threshold`. The mean of their terms settles slowly, and its
        spread hardly at all, since the terms have no variance. Under a linear model whose evidence is known, and with a
        q so narrow that k is 0.5 or 0.63, 95 % intervals covered the truth for 46 to 81 % of such estimates.
        """
        return (self.k_hat > 0.5) & (self.k_hat <= self.threshold())


def log_mean(log_terms):
    """Return the log of the mean of terms (K, N), its standard error and the effective sample size, (N,) each.

    With terms w that is log 1/K Σ w, √(var(w) / K) / mean(w), and (Σ w)² / Σ w².
    """
    K = len(log_terms)
    total = logsumexp(log_terms, axis=0)
    square = (np.exp(log_terms - total) ** 2).sum(axis=0)  # Σ w² of the terms, scaled so that they sum to 1
    error = np.sqrt(np.maximum(square - 1 / K, 0) * (K / (K - 1))) if K > 1 else np.full(total.shape, np.nan)
    return total - math.log(K), error, 1 / square


def warn(bad, text):
    """Warn with `text`, in which {} becomes "n of N", if n > 0 of the N entries of `bad` are true."""
    if bad.any():
        warnings.warn(text.format(f"{bad.sum():,} of {len(bad):,}"), stacklevel=3)


def warn_of_k_hat(estimate):
    """Warn of the estimates that should not be trusted, and of those whose errors are too small.

    One warning counts both. Estimates that are not finite are not counted, since there is another warning for them.
    """
    known = np.isfinite(estimate.log_p)
    text = f"k_hat is above {estimate.threshold():.2g} for {{}} datapoints: do not trust those"
    untrusted = estimate.untrusted() & known
    unsure = estimate.unsure() & known
    if unsure.any():
        small = f"{unsure.sum():,} of {len(unsure):,}"
        too_small = "no variance is left to their terms, and their errors are too small"
        if untrusted.any():
            text += f"; it is above 0.5 for {small} more: {too_small}"
        else:
            text = f"k_hat is above 0.5 for {small} datapoints: {too_small}"
    bad = untrusted if untrusted.any() else unsure
    if bad.any():
        warnings.warn(text.format(f"{bad.sum():,} of {len(bad):,}"), stacklevel=3)
