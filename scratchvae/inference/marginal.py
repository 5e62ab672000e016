"""The marginal likelihood p(x) = ∫ p(x|z) p(z) dz of each datapoint, by importance, by appendix D, and by quadrature.

All take a VAE and rows x (N, D) in host memory, and return log p(x) (N,) in nats; the two that draw, with how far to
trust it.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal

from scratchvae.arguments import rows_of, whole
from scratchvae.backend import move
from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian
from scratchvae.inference.hmc import effective_sample_size, log_joint, sample, split_r_hat
from scratchvae.noise import standard_normal

AT_ONCE = 8000  # latents that are decoded together: what bounds the memory


@dataclass(frozen=True)
class Estimate:
    """log p(x) (N,) in nats, its standard error, and effective sample size and k̂ of the n_terms behind each.

    From appendix D, r_hat (N, J) too, split R̂ of the chains.
    """

    log_p: np.ndarray
    error: np.ndarray
    ess: np.ndarray
    k_hat: np.ndarray
    n_terms: int
    r_hat: np.ndarray | None = None

    def mean(self):
        """The mean over datapoints and its standard error from the estimation alone, not from the choice of them.

        The log of a mean is biased, by about error²/2 for each datapoint, to low values where the mean estimates p(x)
        and to high ones where it estimates 1/p(x); over many datapoints that may be more than the error: `bias`.
        """
        return float(self.log_p.mean()), float(np.sqrt((self.error**2).sum()) / len(self.error))

    def bias(self):
        """The size of the bias of `mean` to first order, Σ error²/2 over N; no bound on it where k̂ is large."""
        return float((self.error**2).mean() / 2)

    def threshold(self):
        """The k̂ above which n terms are too few: min(1 - 1/log₁₀ n, 0.7) (Vehtari et al. 2024, section 3.2.4)."""
        return min(1 - 1 / math.log10(self.n_terms), 0.7) if self.n_terms > 10 else 0.0

    def untrusted(self):
        """Which estimates k̂ says not to trust, (N,). Of too few terms for a k̂, none."""
        return self.k_hat > self.threshold()


def importance(model, x, n_samples=5000, seed=0, progress=None):
    """log p(x) ≃ log 1/K Σ_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x) with z_k ~ q(z|x), for K = n_samples.

    E w = p(x), and so the log of the mean is too low on average, by about var(w) / 2 K p(x)². The standard error is
    sd(w) / (√K mean(w)), which holds as long as w has a variance: k̂ ≤ 0.5. A warning counts the datapoints whose k̂
    says not to trust either. ess = (Σ w)² / Σ w². With K = 1 the error is NaN, with few draws k̂ is. progress is called
    with the number of rows done, each time. Memory is bounded: `AT_ONCE` z at a time. The draws of row i are a function
    of (seed, i) alone. ValueError: numbers or rows that do not fit.
    """
    x, K = rows_of("x", x, model), whole("n_samples", n_samples)
    seed, N = whole("seed", seed, least=0), len(x)
    log_p, error, ess, k_hat = np.empty((4, N))
    rows = max(1, min(N, AT_ONCE // K))
    for start in range(0, N, rows):
        block = slice(start, start + rows)
        generators = [np.random.default_rng([seed, i]) for i in range(N)[block]]
        parts = []
        for begun in range(0, K, AT_ONCE):
            shape = min(AT_ONCE, K - begun), model.n_latent
            eps = np.stack([generator.standard_normal(shape, model.dtype) for generator in generators], axis=1)
            parts.append(log_weights(model, move(x[block], model.backend), eps).astype(float))
        log_w = np.concatenate(parts)
        log_p[block], error[block], ess[block] = _log_mean(log_w)
        k_hat[block] = pareto_k(log_w)
        if progress is not None:
            progress(log_w.shape[1])
    return _warned(Estimate(log_p, error, ess, k_hat, K))


def _log_mean(log_terms):
    """log of the mean of terms (K, N), its standard error √(var / K) / mean, and (Σ w)² / Σ w², (N,) each."""
    K, total = len(log_terms), logsumexp(log_terms, axis=0)
    square = (np.exp(log_terms - total) ** 2).sum(axis=0)  # Σ w² of w that add up to 1
    error = np.sqrt(np.maximum(square - 1 / K, 0) * (K / (K - 1))) if K > 1 else np.full(total.shape, np.nan)
    return total - math.log(K), error, 1 / square


def _warned(estimate):
    if (n_bad := int(estimate.untrusted().sum())) > 0:
        warnings.warn(
            f"k_hat is above {estimate.threshold():.2g} for {n_bad:,} of {len(estimate.k_hat):,} datapoints: "
            "do not trust those",
            stacklevel=3,
        )
    return estimate


def log_weights(model, x, eps):
    """log p(x|z) + log p(z) - log q(z|x) at the z ~ q(z|x) of eps (K, N, J) in host memory; (K, N) there."""
    x = model.pixels(x)
    z, log_qz = model.latents(x, move(eps, model.backend))
    return log_p_xz(model, x, z) - move(log_qz, "numpy")


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
    weights in the tail, -∞ where the tail is one point (weights that are all the same have every moment), and ∞ where
    so few weights are all that most of the tail is nothing beside them.
    """
    K, N = log_w.shape
    n = int(min(K / 5, 3 * math.sqrt(K)))
    if n < 5:
        return np.full(N, np.nan)
    ordered = np.exp(np.sort(log_w, axis=0)[-n - 1 :] - log_w.max(axis=0))
    y = ordered[1:] - ordered[0]  # the excesses over the largest weight that is not in the tail
    flat, quartile = y[-1] < 1e-12, int(n / 4 + 0.5) - 1
    alone = ~flat & (y[quartile] < 1e-300)
    y = np.where(flat | alone, 1.0, y)
    j = np.arange(1, 31 + int(math.sqrt(n)))[:, None]
    b = 1 / y[-1] + (1 - np.sqrt(len(j) / (j - 0.5))) / (3 * y[quartile])
    k = np.log1p(-b[:, None] * y).mean(axis=1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weight = np.exp(log_likelihood - logsumexp(log_likelihood, axis=0))
    k = np.log1p(-(b * weight).sum(axis=0) * y).mean(axis=0)
    return np.where(flat, -np.inf, np.where(alone, np.inf, (n * k + 5) / (n + 10)))


def appendix_d(model, x, n_samples=200, fit="gaussian", seed=0, burn_in=100, steps=4, thin=3, chains=5):
    """log p(x) ≃ -log 1/L Σ_l q(z_l) / p(x, z_l), z_l from the posterior by HMC, q fitted to other such draws.

    E_p(z|x)[q(z)/p(x, z)] = ∫ q(z)/p(x) dz = 1/p(x) for any density q: the closer q is to the posterior, the less the
    terms vary. fit: "gaussian", the moments of L draws, or "kernel", a Gaussian at each of them, as wide as Scott's
    rule says. L = n_samples in each of the two sets, from `chains` chains, `thin` transitions apart. The paper: "fewer
    than 5 latent dimensions", and a warning says so for more. ess, k_hat and r_hat are those of terms and chains.

    A chain does not leave the mode of p(z|x) in which it starts, and neither error nor k_hat can tell; so the chains
    start at draws that are nearly of p(z|x), see `starts`. The log of the mean is too high on average, by error²/2.
    log_p is NaN, with a warning, where the draws are too much alike for a density. ValueError: numbers that do not fit.
    """
    x, L = rows_of("x", x, model), whole("n_samples", n_samples)
    chains, thin, seed = whole("chains", chains), whole("thin", thin), whole("seed", seed, least=0)
    if fit not in ("gaussian", "kernel"):
        raise ValueError(f"fit is {fit!r}; expected 'gaussian' or 'kernel'")
    if 2 * model.n_latent + 2 > L or L % chains or 4 * chains > L:
        least = max(2 * model.n_latent + 2, 4 * chains)
        raise ValueError(f"n_samples is {L}; expected {least} or more, a multiple of the {chains} chains")
    if model.n_latent >= 5:
        warnings.warn(
            f"appendix D is for fewer than 5 latent dimensions; here are {model.n_latent}: take importance",
            stacklevel=2,
        )
    parts, size = [], max(1, AT_ONCE // chains)
    for begun in range(0, len(x), size):
        rows, generator = move(x[begun : begun + size], model.backend), np.random.default_rng([seed, begun])
        parts.append(_appendix_d(model, model.pixels(rows), L, fit, generator, burn_in, steps, thin, chains))
    names = ("log_p", "error", "ess", "k_hat", "r_hat")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    estimate = _warned(Estimate(**joined, n_terms=L))
    if (unfit := int(np.isnan(estimate.log_p).sum())) > 0:
        warnings.warn(
            f"the draws of {unfit:,} of {len(x):,} datapoints are too much alike for a density: a longer burn_in or "
            "another seed may free their chains",
            stacklevel=2,
        )
    return estimate


def _appendix_d(model, x, L, fit, generator, burn_in, steps, thin, chains):
    """The Estimate for rows x where the model lies."""
    N, J = len(x), model.n_latent
    z, each = starts(model, x, chains, generator), L // chains
    target = log_joint(model.decoder, np.concatenate([x] * chains))
    found = sample(target, z.reshape(-1, J), generator, 2 * each * thin, burn_in, steps)
    draws = found.z[thin - 1 :: thin].reshape(2 * each, chains, N, J)
    first, fresh = (half.reshape(L, N, J) for half in np.split(draws, 2))
    log_q = np.stack([_fitted(fit, first[:, i].astype(float))(fresh[:, i]) for i in range(N)], axis=1)
    terms = log_q - log_p_xz(model, x, move(fresh, model.backend))
    estimate = harmonic(terms)
    scaled = np.exp(terms - terms.max(axis=0)).reshape(each, chains, N)
    share = effective_sample_size(scaled) / L  # the terms of a chain hang together
    error = estimate.error / np.sqrt(np.minimum(np.maximum(share, 1 / L), 1))
    return replace(estimate, error=error, r_hat=split_r_hat(draws))


def starts(model, x, chains, generator, candidates=500):
    """z (chains, N, J) nearly from p(z|x): resampled by weight from candidates of the prior and as many of q(z|x).

    They are draws of the mixture ½ p(z) + ½ q(z|x), each of weight p(x, z) over its density. Drawn in this way the
    chains are shared out among the modes of p(z|x), also where q knows of one mode only, or of none.
    """
    mu, log_var = model.encode(x)
    eps = standard_normal(generator, (2 * candidates, *mu.shape), model.dtype, model.backend)
    z = np.concatenate([eps[:candidates], mu + np.exp(0.5 * log_var) * eps[candidates:]])
    log_pz, log_qz = log_standard_gaussian(z, gradient=False)[0], log_gaussian(z, mu, log_var, gradient=False)[0]
    mixture = np.logaddexp(*(move(part, "numpy").astype(float) for part in (log_pz, log_qz)))
    log_w = log_p_xz(model, x, z) - mixture
    # the largest of log w + Gumbel noise is a draw in proportion to w
    chosen = np.array([(log_w + generator.gumbel(size=log_w.shape)).argmax(axis=0) for _ in range(chains)])
    return move(move(z, "numpy")[chosen, np.arange(len(x))], model.backend)


def harmonic(log_terms):
    """The Estimate from log q(z_l) - log p(x, z_l), (L, N), whose exponentials have the mean 1/p(x)."""
    log_mean, error, ess = _log_mean(log_terms)
    return Estimate(-log_mean, error, ess, pareto_k(log_terms), len(log_terms))


def _fitted(fit, draws):
    """log q of a density fitted to draws (L, J); NaN where they do not span a volume."""
    try:
        if fit == "kernel":
            kernel = gaussian_kde(draws.T)
            return lambda z: kernel.logpdf(z.T)
        return multivariate_normal(draws.mean(axis=0), np.cov(draws.T)).logpdf
    except np.linalg.LinAlgError:
        return lambda z: np.full(len(z), np.nan)


def quadrature(model, x, points=401, limit=10.0):
    """log p(x) of one or two latent dimensions, by the trapezoid rule with so many points from -limit to limit each.

    ∫ p(x|z) p(z) dz; the integrand falls to nothing at both ends, where the rule gains digits exponentially fast. A
    warning counts the datapoints for which half as many points say something else by 0.01 nat or more.
    """
    if model.n_latent > 2:
        raise ValueError(
            f"quadrature is for 1 or 2 latent dimensions; this model has {model.n_latent}: take importance"
        )
    points, x = whole("points", points, least=3), move(rows_of("x", x, model), model.backend)
    if not 0 < limit < math.inf:
        raise ValueError(f"limit is {limit!r}; expected a number > 0, where p(z) is nothing any more")
    axis = np.linspace(-limit, limit, points)
    grid = np.stack(np.meshgrid(*[axis] * model.n_latent, indexing="ij"), axis=-1).reshape(-1, 1, model.n_latent)
    grid = move(grid.astype(model.dtype), model.backend)
    coarse = (slice(None, None, 2),) * model.n_latent
    log_step, log_p, x = model.n_latent * math.log(axis[1] - axis[0]), [], model.pixels(x)
    for i in range(len(x)):
        log_joint = log_p_xz(model, x[i : i + 1], grid).astype(float).reshape((points,) * model.n_latent)
        log_p.append([logsumexp(log_joint), logsumexp(log_joint[coarse]) + model.n_latent * math.log(2)])
    fine, half = np.array(log_p).T + log_step
    if (open_ := int((np.abs(fine - half) > 0.01).sum())) > 0:
        warnings.warn(f"{open_:,} of {len(x):,} integrals are not settled by {points} points: take more", stacklevel=2)
    return fine
