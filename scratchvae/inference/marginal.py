"""The marginal likelihood p(x) = ∫ p(x|z) p(z) dz of each datapoint, by importance, by appendix D, and by quadrature.

All take a VAE and rows x (N, D), and return log p(x) (N,) in nats; the two that draw, with how far to trust it.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal

from scratchvae.arguments import whole
from scratchvae.backend import move
from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian
from scratchvae.inference.hmc import effective_sample_size, log_joint, sample
from scratchvae.noise import standard_normal

AT_ONCE = 8000  # latents that are decoded together: what bounds the memory


@dataclass(frozen=True)
class Estimate:
    """log p(x) (N,) in nats, its standard error, and effective sample size and k̂ of the terms behind each."""

    log_p: np.ndarray
    error: np.ndarray
    ess: np.ndarray
    k_hat: np.ndarray

    def mean(self):
        """The mean over datapoints and its standard error from the estimation alone, not from the choice of them."""
        return float(self.log_p.mean()), float(np.sqrt((self.error**2).sum()) / len(self.error))


def importance(model, x, n_samples=5000, seed=0, progress=None):
    """log p(x) ≃ log 1/K Σ_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x) with z_k ~ q(z|x), for K = n_samples.

    E w = p(x), and so the log of the mean is too low on average, by about var(w) / 2 K p(x)². The standard error is
    sd(w) / (√K mean(w)), which holds as long as w has a variance: k̂ ≤ 0.5, and says little from 0.7 on (Vehtari,
    Simpson, Gelman, Yao & Gabry 2024): a warning counts those. ess = (Σ w)² / Σ w². progress is called with the number
    of rows done, each time. Memory is bounded by `AT_ONCE`; the draws of row i are a function of (seed, i) alone.
    ValueError for n_samples < 1.
    """
    whole("n_samples", n_samples)
    log_p, error, ess, k_hat = np.empty((4, len(x)))
    K, rows = n_samples, max(1, min(len(x), AT_ONCE // n_samples))
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        shape, indices = (K, model.n_latent), range(len(x))[block]
        eps = [np.random.default_rng([seed, i]).standard_normal(shape, model.dtype) for i in indices]
        log_w = log_weights(model, x[block], np.stack(eps, axis=1)).astype(float)
        total = logsumexp(log_w, axis=0)
        log_p[block] = total - math.log(K)
        w = np.exp(log_w - total)  # Σ w = 1
        ess[block] = 1 / (w * w).sum(axis=0)
        error[block] = np.sqrt(np.maximum((w * w).sum(axis=0) - 1 / K, 0))
        k_hat[block] = pareto_k(log_w)
        if progress is not None:
            progress(log_w.shape[1])
    if (n_bad := int((k_hat > 0.7).sum())) > 0:
        warnings.warn(f"k_hat is above 0.7 for {n_bad:,} of {len(x):,} datapoints: do not trust those", stacklevel=2)
    return Estimate(log_p, error, ess, k_hat)


def log_weights(model, x, eps):
    """log p(x|z) + log p(z) - log q(z|x) at z = μ + σ ε for eps (K, N, J) in host memory; (K, N) there."""
    x = model.pixels(x)
    mu, log_var = model.encoder.forward(x)
    z = mu + np.exp(0.5 * log_var) * move(eps, model.backend)
    return log_p_xz(model, x, z) - move(log_gaussian(z, mu, log_var, gradient=False)[0], "numpy")


def log_p_xz(model, x, z):
    """log p(x, z) (L, N) on the host, of rows x (N, D) at z (L, N, J), not too many of them at once."""
    size, parts = max(1, AT_ONCE // len(x)), []
    for start in range(0, len(z), size):
        part = z[start : start + size]
        log_px, log_pz = model.decoder.log_prob(x, part, gradient=False), log_standard_gaussian(part, gradient=False)[0]
        parts.append(move(log_px + log_pz, "numpy"))
    return np.concatenate(parts)


def pareto_k(log_w):
    """k̂ of weights (K, N), each column's: the shape of a generalised Pareto law fitted to its largest weights.

    The moments of w up to 1/k exist. Fitted to the largest min(K/5, 3√K) weights (Vehtari et al. 2024) by the method of
    Zhang & Stephens 2009, with their paper's prior that pulls k̂ to ½ as ten more weights would. NaN for fewer than five
    weights in the tail, and -∞ where the tail is one point: weights that are all the same have every moment.
    """
    K, N = log_w.shape
    n = int(min(K / 5, 3 * math.sqrt(K)))
    if n < 5:
        return np.full(N, np.nan)
    ordered = np.exp(np.sort(log_w, axis=0)[-n - 1 :] - log_w.max(axis=0))
    y = ordered[1:] - ordered[0]  # the excesses over the largest weight that is not in the tail
    flat = y[-1] < 1e-12
    y = np.where(flat, 1.0, y)
    j = np.arange(1, 31 + int(math.sqrt(n)))[:, None]
    b = 1 / y[-1] + (1 - np.sqrt(len(j) / (j - 0.5))) / (3 * y[int(n / 4 + 0.5) - 1])
    k = np.log1p(-b[:, None] * y).mean(axis=1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weight = np.exp(log_likelihood - logsumexp(log_likelihood, axis=0))
    k = np.log1p(-(b * weight).sum(axis=0) * y).mean(axis=0)
    return np.where(flat, -np.inf, (n * k + 5) / (n + 10))


def appendix_d(model, x, n_samples=50, fit="gaussian", seed=0, burn_in=200, steps=4, thin=5):
    """log p(x) ≃ -log 1/L Σ_l q(z_l) / p(x, z_l), z_l from the posterior by HMC, q fitted to other such draws.

    E_p(z|x)[q(z)/p(x, z)] = ∫ q(z)/p(x) dz = 1/p(x) for any density q: the closer q is to the posterior, the less the
    terms vary. fit: "gaussian", the moments of L draws, or "kernel", a Gaussian at each of them, as wide as Scott's
    rule says. L = n_samples in each of the two sets, `thin` transitions apart. The paper: "fewer than 5 latent
    dimensions", and a warning says so for more. ess and k_hat are those of the terms.
    """
    if fit not in ("gaussian", "kernel"):
        raise ValueError(f"fit is {fit!r}; expected 'gaussian' or 'kernel'")
    if n_samples < 2 * model.n_latent + 2:
        raise ValueError(f"n_samples is {n_samples}; expected {2 * model.n_latent + 2} or more, to fit a density to")
    if model.n_latent >= 5:
        warnings.warn(
            f"appendix D is for fewer than 5 latent dimensions; here are {model.n_latent}: take importance",
            stacklevel=2,
        )
    generator = np.random.default_rng(seed)
    x = model.pixels(x)
    mu, log_var = model.encoder.forward(x)
    start = mu + np.exp(0.5 * log_var) * standard_normal(generator, mu.shape, model.dtype, model.backend)
    found = sample(log_joint(model.decoder, x), start, generator, 2 * n_samples * thin, burn_in, steps)
    first, fresh = np.split(found.z[thin - 1 :: thin], 2)
    log_q = np.stack([_fitted(fit, first[:, i].astype(float))(fresh[:, i]) for i in range(len(x))], axis=1)
    terms = log_q - log_p_xz(model, x, move(fresh, model.backend))
    estimate = harmonic(terms)
    share = effective_sample_size(np.exp(terms - terms.max(axis=0))[:, None]) / n_samples  # terms of a chain correlate
    return replace(estimate, error=estimate.error / np.sqrt(np.minimum(share, 1)))


def harmonic(log_terms):
    """The Estimate from log q(z_l) - log p(x, z_l), (L, N), whose exponentials have the mean 1/p(x)."""
    L = len(log_terms)
    total = logsumexp(log_terms, axis=0)
    w = np.exp(log_terms - total)
    square = (w * w).sum(axis=0)
    error = np.sqrt(np.maximum(square - 1 / L, 0))
    return Estimate(math.log(L) - total, error, 1 / square, pareto_k(log_terms))


def _fitted(fit, draws):
    """log q of a density fitted to draws (L, J)."""
    if fit == "kernel":
        return lambda z: gaussian_kde(draws.T).logpdf(z.T)
    return multivariate_normal(draws.mean(axis=0), np.cov(draws.T)).logpdf


def quadrature(model, x, points=401, limit=10.0):
    """log p(x) of one or two latent dimensions, by the trapezoid rule with so many points from -limit to limit each.

    ∫ p(x|z) p(z) dz; the integrand falls to nothing at both ends, where the rule gains digits exponentially fast.
    """
    if model.n_latent > 2:
        raise ValueError(
            f"quadrature is for 1 or 2 latent dimensions; this model has {model.n_latent}: take importance"
        )
    axis = np.linspace(-limit, limit, points)
    grid = np.stack(np.meshgrid(*[axis] * model.n_latent, indexing="ij"), axis=-1).reshape(-1, 1, model.n_latent)
    grid = move(grid.astype(model.dtype), model.backend)
    log_step, log_p, x = model.n_latent * math.log(axis[1] - axis[0]), [], model.pixels(x)
    for row in x:
        log_p.append(logsumexp(log_p_xz(model, row[None], grid).astype(float)) + log_step)
    return np.array(log_p)
