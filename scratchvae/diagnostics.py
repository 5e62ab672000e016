"""Says how far draws and weights can be trusted, by split R̂ and effective sample size, and by k̂ for weights.

Chains are arrays (S, K, …), which hold S draws of each of K chains. Weights come as their logs, (K, N), with a column
for each of N datapoints.
"""

import math

import numpy as np
from scipy.special import logsumexp


def split_r_hat(draws):
    """Return R̂ = √(V/W) of draws (S, K, …) of K chains of one target: 1 where the chains agree, more where not.

    Each chain is cut in half. W is the mean variance within the halves, and V = (n-1)/n W + B/n, where n is the length
    of a half and B/n the variance of the halves' means (Gelman et al. 2013, "Bayesian Data Analysis", section 11.4).
    The result has the shape of a draw, (…). It is ∞ where no chain moves, and NaN where all of them stand at one place.
    Fewer than 4 draws raise a ValueError.
    """
    halves = _halves(draws)
    n = len(halves)
    within = halves.var(axis=0, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # ∞ and NaN are the answers that the docstring promises
        return np.sqrt((n - 1) / n + halves.mean(axis=0).var(axis=0, ddof=1) / within)


def effective_sample_size(draws):
    """Return how many independent draws tell as much about the mean as the draws (S, K, …) of K chains do.

    This is S K / (1 + 2 Σ_t ρ_t), where ρ_t is the autocorrelation at lag t of all half chains together. The sum runs
    over pairs ρ_2t + ρ_2t+1, which are positive and never rise if the chain is reversible: it ends at the first pair
    that is not positive, and a pair that rises counts as the one before it (Geyer 1992, "Practical Markov Chain Monte
    Carlo"; Gelman et al. 2013, section 11.5). The result has the shape of a draw, (…), and is NaN where all chains
    stand at one place. Fewer than 4 draws raise a ValueError.
    """
    halves = _halves(draws)
    n, m = halves.shape[:2]
    spectrum = np.fft.rfft(halves - halves.mean(axis=0), 2 * n, axis=0)
    autocovariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n].mean(axis=1) / n  # (n, …), the mean over halves
    within = halves.var(axis=0, ddof=1).mean(axis=0)
    total = (n - 1) / n * within + halves.mean(axis=0).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore"):  # it is NaN where all chains stand at one place
        rho = 1 - (within - autocovariance * n / (n - 1)) / total
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, *rho.shape[1:]).sum(axis=1)
    # No pair counts for more than one before it, and none from the first that is not positive. Pair 0 is 1 + ρ_1 > 0.
    tau = -1 + 2 * (np.minimum.accumulate(pairs, axis=0) * np.logical_and.accumulate(pairs > 0, axis=0)).sum(axis=0)
    return n * m / np.maximum(tau, 1 / np.log10(n * m))


def _halves(draws):
    """Return the halves of K chains, (S/2, 2K, …), side by side; fewer than 4 draws raise a ValueError."""
    draws = np.asarray(draws, float)
    if draws.ndim < 2 or len(draws) < 4:
        raise ValueError(f"draws have shape {draws.shape}; expected (S, K, …), S ≥ 4 draws of K chains")
    n = len(draws) // 2
    return np.concatenate([draws[:n], draws[-n:]], axis=1)


def pareto_k(log_w):
    """Return k̂ for each column of weights, (N,), from their logs log_w (K, N): how heavy the tail of the weights is.

    k̂ is the shape of the generalised Pareto law that fits the largest weights. The weights have moments up to 1/k, so
    that above ½ they have no variance. The fit takes the largest ⌈min(K/5, 3√K)⌉ weights (Vehtari, Simpson, Gelman, Yao
    & Gabry 2024, "Pareto smoothed importance sampling"). It follows Zhang & Stephens 2009, "A new and efficient
    estimation method for the generalized Pareto distribution", with the prior of Vehtari et al., which pulls k̂ towards
    ½ as ten more weights would.

    k̂ is NaN where fewer than five weights are in the tail (K < 21). It is -∞ where the tail is a single point, since
    equal weights have every moment, and ∞ where so few weights make up the sum that most of the tail is negligible.
    """
    K, N = log_w.shape
    n = math.ceil(min(K / 5, 3 * math.sqrt(K)))
    if n < 5:
        return np.full(N, np.nan)
    ordered = np.exp(np.sort(log_w, axis=0)[-n - 1 :] - log_w.max(axis=0))
    y = ordered[1:] - ordered[0]  # how far the tail exceeds the largest weight that is not in it
    quartile = int(n / 4 + 0.5) - 1
    flat = y[-1] < 1e-12
    alone = ~flat & (y[quartile] < 1e-300)
    y = np.where(flat | alone, 1.0, y)
    j = np.arange(1, 31 + int(math.sqrt(n)))[:, None]
    b = 1 / y[-1] + (1 - np.sqrt(len(j) / (j - 0.5))) / (3 * y[quartile])
    k = np.log1p(-b[:, None] * y).mean(axis=1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weight = np.exp(log_likelihood - logsumexp(log_likelihood, axis=0))
    k = np.log1p(-(b * weight).sum(axis=0) * y).mean(axis=0)
    return np.where(flat, -np.inf, np.where(alone, np.inf, (n * k + 5) / (n + 10)))
