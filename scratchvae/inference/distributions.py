"""Log densities with their partial derivatives, in nats, summed over the last axis: pure functions.

The appendices and equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes". Each function returns
(value, partial, …), and None in place of each partial if `gradient` is False; it is True unless given. Leading axes
broadcast, so that one minibatch x (M, D) is scored against L samples of the parameters, (L, M, D), without being
copied. A value then has the shape (L, M) and a partial (L, M, D). A part that is `fused` can become one kernel on the
device (see `backend.fused`).
"""

import math

import numpy as np

from scratchvae.backend import fused

LOG_2PI = math.log(2 * math.pi)


def per_row(weight):
    """Return the weights (L, M) of rows as (L, M, 1), which broadcasts against the rows; one number stays as it is."""
    return weight if isinstance(weight, float | int | np.generic) else weight[..., None]


def sum_of_draws(weight, L):
    """Return the sum over L draws of their weights, which are one number or an array (L, M).

    For one number the sum is one number, and for an array it is (M, 1), which broadcasts against rows.
    """
    return L * weight if isinstance(weight, float | int | np.generic) else weight.sum(axis=0)[:, None]


def is_zero(weight):
    """Say whether a weight is the number 0. An array is none, and nobody waits for a device to look into it."""
    return isinstance(weight, float | int | np.generic) and weight == 0


def log_bernoulli(x, logits, gradient=True):
    """Return log p(x) = Σ_i x_i log y_i + (1 - x_i) log(1 - y_i), where y = σ(logits)   (11), with ∂/∂logits.

    With a = logits and s = log(1 + eᵃ), log y = a - s and log(1 - y) = -s, hence log p = Σ x a - s. With e = e^-|a|,
    which never exceeds 1, s = max(a, 0) + log(1 + e), and y = 1/(1 + e) where a > 0 and e/(1 + e) elsewhere: all digits
    are right at any a. x may be grey, anywhere in [0, 1]; then this is the cross entropy that section 5 trains on.
    """
    terms, e = _bernoulli_terms(x, logits)
    log_p = terms.sum(axis=-1)
    del terms  # so that the slope can take its memory
    return log_p, _bernoulli_slope(x, logits, e) if gradient else None


@fused
def _bernoulli_terms(x, a):
    """Return the terms x a - s of (11) and the e of `log_bernoulli`, for each pixel."""
    e = np.exp(-np.abs(a))
    return x * a - np.maximum(a, 0) - np.log1p(e), e


@fused
def _bernoulli_slope(x, a, e):
    """Return ∂log p/∂a for each pixel. The array e is overwritten, so that one array less is in the cache."""
    y = np.maximum(e, a > 0)  # 1 where a > 0, and e elsewhere
    e += 1
    y /= e  # 1/(1 + e) or e/(1 + e)
    return x - y  # ∂s/∂a = σ(a) = y


def log_gaussian(x, mu, log_var, gradient=True):
    """Return log N(x; μ, σ² I) = -½ Σ_i log 2π + log σ_i² + (x_i - μ_i)²/σ_i²   (9), (12), with ∂/∂μ and ∂/∂log σ².

    ∂/∂x is not returned: it is -∂/∂μ.
    """
    dmu, ratio = _gaussian_parts(x, mu, log_var)
    log_p = _gaussian_sum(log_var, ratio)
    if not gradient:
        return log_p, None, None
    return log_p, dmu, _gaussian_slope(ratio)


@fused
def _gaussian_parts(x, mu, log_var):
    """Return ∂log N/∂μ and the ratio (x - μ)²/σ² of (12), for each pixel."""
    precision = np.exp(-log_var)
    d = x - mu
    return d * precision, d * d * precision  # ∂/∂μ = (x - μ)/σ²


@fused
def _gaussian_sum(log_var, ratio):
    """Return log N(x; μ, σ² I)   (9), (12) from log σ² and the ratio."""
    return -0.5 * np.sum(LOG_2PI + log_var + ratio, axis=-1)


@fused
def _gaussian_slope(ratio):
    """Return ∂log N/∂log σ² for each pixel, from the ratio."""
    return 0.5 * (ratio - 1)  # ∂/∂log σ² = -½ (1 - (x - μ)²/σ²), since dσ⁻²/dlog σ² = -σ⁻²


def log_standard_gaussian(z, gradient=True):
    """Return log N(z; 0, I) = -½ Σ_j log 2π + z_j², with ∂/∂z = -z. The priors p(z) and p(θ) are such densities."""
    return _standard_gaussian_sum(z), -z if gradient else None


@fused
def _standard_gaussian_sum(z):
    """Return log N(z; 0, I)."""
    return -0.5 * np.sum(LOG_2PI + z * z, axis=-1)


def gaussian_neg_kl(mu, log_var, gradient=True):
    """Return -KL(N(μ, σ² I) ‖ N(0, I)) = ½ Σ_j 1 + log σ_j² - μ_j² - σ_j² (appendix B), with ∂/∂μ and ∂/∂log σ².

    E_q log p(z) = -½ Σ log 2π + μ² + σ², since E z² = μ² + σ². E_q log q(z) = -½ Σ log 2π + log σ² + 1, since E (z -
    μ)²/σ² = 1. -KL is the first less the second.
    """
    neg_kl = _neg_kl_sum(mu, log_var)
    if not gradient:
        return neg_kl, None, None
    return neg_kl, -mu, _neg_kl_slope(log_var)  # ∂/∂μ = -μ


@fused
def _neg_kl_sum(mu, log_var):
    """Return -KL(N(μ, σ² I) ‖ N(0, I)) (appendix B)."""
    return 0.5 * np.sum(1 + log_var - mu * mu - np.exp(log_var), axis=-1)


def _neg_kl_slope(log_var):
    """Return ∂(-KL)/∂log σ² for each latent (appendix B)."""
    return 0.5 * (1 - np.exp(log_var))  # ∂/∂log σ² = ½ (1 - σ²), since dσ²/dlog σ² = σ²


def gaussian_kl_of_each(mu, log_var):
    """Return KL(N(μ_j, σ_j²) ‖ N(0, 1)) = ½ (μ_j² + σ_j² - 1 - log σ_j²) of each latent by itself (appendix B)."""
    return 0.5 * (mu * mu + np.exp(log_var) - 1 - log_var)
