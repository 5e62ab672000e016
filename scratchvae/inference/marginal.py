"""Estimates of the marginal likelihood p(x) = ∫ p(x|z) p(z) dz of each datapoint under a trained VAE.

`importance` draws z from the encoder's q(z|x), with any number of latents. `appendix_d` is the estimator that Kingma
& Welling give in appendix D of "Auto-Encoding Variational Bayes" (2014), for fewer than 5 latents. `annealed` walks
from the prior to the posterior in many small steps: it costs the most, and needs no q(z|x) at all. `quadrature` sums
over a grid of one or two latents, and is the reference for the others.

Each of them takes a `VAE` and rows x (N, D) in host memory, one datapoint per row: uint8 pixels, which are read as
x/255, or floats. Each gives log p(x) (N,) in nats, in host memory. Those that draw give it as an `Estimate`, which also
says how far to trust it. Below, J is the number of latents, and K or L the number of draws for each datapoint.
"""

import math
import warnings
from dataclasses import replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal

from scratchvae.arguments import positive, rows_of, whole
from scratchvae.backend import move
from scratchvae.diagnostics import effective_sample_size, pareto_k, split_r_hat
from scratchvae.guard import guard_of
from scratchvae.inference.annealing import annealed, sandwich  # noqa: F401  these are two more of the estimates
from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian
from scratchvae.inference.estimate import NOT_FINITE, Estimate, log_mean, warn, warn_of_k_hat
from scratchvae.inference.hmc import log_joint, sample
from scratchvae.noise import standard_normal
from scratchvae.ranks import ranks_of

AT_ONCE = 8000  # how many latents are decoded together: this number bounds the memory


def importance(model, x, n_samples=5000, seed=0, progress=None, comm=None, numbers=None):
    """Estimate log p(x) by importance sampling from q(z|x) and return an `Estimate`.

        log p(x) ≃ log 1/K Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    E w = p(x), so the log of the mean is on average too low, by about var(w) / 2 K p(x)². The standard error is
    sd(w) / (√K mean(w)), and the effective sample size is (Σ w)² / Σ w². Both hold as long as w has a variance, which
    k̂ ≤ 0.5 tells. A warning counts the datapoints whose k̂ says that their estimates should not be trusted, and those
    that can be trusted while their errors are too small: see `Estimate.unsure`.

    model       is a `VAE`, or another model with its methods.
    x           holds the datapoints, (N, D), in host memory.
    n_samples   is K, 5000 unless given; more of them lower the bias and the error. With K = 1 the error is NaN, and
                with fewer than 21 k̂ is NaN.
    seed        selects the draws. Those for row i are a function of (seed, i) alone.
    progress    is called with the number of rows that were finished, once for each block of rows; None for no calls.
    comm        is a communicator of mpi4py, whose ranks share the rows and all return the whole estimate; None, the
                default, is this process alone.
    numbers     lists i for each row, (N,), whole numbers ≥ 0; 0 to N - 1 unless given. Rows with the same number have
                the same draws ε.

    At most `AT_ONCE` latents are decoded at a time. A number that is not whole, or rows that do not fit the model,
    raise a ValueError.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        x = rows_of("x", x, model)
        N = len(x)
        K = whole("n_samples", n_samples)
        seed = whole("seed", seed, least=0)
        numbers = None if numbers is None else [whole("numbers", i, least=0) for i in numbers]
        ranks.require_same(model, x, n_samples=K, seed=seed, numbers=numbers)
        numbers = range(N) if numbers is None else numbers
        if len(numbers) != N:
            raise ValueError(f"numbers has {len(numbers)} entries; expected {N}, one for each row")
        mine = ranks.share(N)
        found = np.empty((len(mine), 4))  # log_p, error, ess and k_hat
        size = max(1, AT_ONCE // K)
        for begun in range(0, -(-N // ranks.size), size):  # as many blocks on every rank
            block = slice(begun, min(begun + size, len(mine)))
            of_block = numbers[mine.start : mine.stop][block]
            if of_block:
                log_w = _log_weights(model, x[mine.rows][block], of_block, K, seed)
                with np.errstate(invalid="ignore"):  # of weights that are all 0: a warning below counts such datapoints
                    found[block] = np.stack((*log_mean(log_w), pareto_k(log_w)), axis=1)
            done = ranks.meet(len(of_block))[0]
            if progress is not None:
                progress(int(done))
        found = ranks.gathered(found, N)
    estimate = Estimate(*np.ascontiguousarray(found.T), K)
    warn_of_k_hat(estimate)
    warn(~np.isfinite(estimate.log_p), NOT_FINITE)
    return estimate


def _log_weights(model, x, numbers, K, seed):
    """Return log w_k = log p(x, z_k) - log q(z_k|x) of K draws for rows x (M, D), (K, M).

    numbers lists the numbers of the rows in the data set, of which the draws are a function.
    """
    rows = model.pixels(move(x, model.backend))
    generators = [np.random.default_rng([seed, i]) for i in numbers]
    parts = []
    for begun in range(0, K, AT_ONCE):
        shape = (min(AT_ONCE, K - begun), model.n_latent)
        eps = np.stack([generator.standard_normal(shape, model.dtype) for generator in generators], axis=1)
        z, log_qz = model.latents(rows, move(eps, model.backend))
        parts.append((log_p_xz(model, rows, z) - move(log_qz, "numpy")).astype(float))
    return np.concatenate(parts)


def log_p_xz(model, x, z):
    """Return log p(x, z) = log p(x|z) + log p(z), (L, N) in host memory, for rows x (N, D) at z (L, N, J).

    x and z lie where the model does. So many z are decoded together that there are at most `AT_ONCE` latents.
    """
    size = max(1, AT_ONCE // max(1, len(x)))
    parts = []
    for start in range(0, len(z), size):
        part = z[start : start + size]
        log_px = model.decoder.log_prob(x, part, gradient=False)
        log_pz = log_standard_gaussian(part, gradient=False)[0]
        parts.append(move(log_px + log_pz, "numpy"))
    return np.concatenate(parts)


def appendix_d(model, x, n_samples=200, fit="gaussian", seed=0, burn_in=100, steps=4, thin=3, chains=5, comm=None):
    """Estimate log p(x) from draws of the posterior p(z|x), as in appendix D, and return an `Estimate`.

        log p(x) ≃ -log 1/L Σ_l q(z_l) / p(x, z_l),   z_l ~ p(z|x)

    since E_p(z|x)[q(z)/p(x, z)] = ∫ q(z)/p(x) dz = 1/p(x) for any density q. The closer q is to the posterior, the less
    the terms vary. Hamiltonian Monte Carlo (`inference.hmc`) makes the draws: one set of L, to which q is fitted, and a
    second set of L, at which the terms are taken. `ess` and `k_hat` describe the terms, and `r_hat` the chains.

    model       is a `VAE`. The paper gives the estimator for fewer than 5 latents; a warning says so if there are more.
    x           holds the datapoints, (N, D), in host memory.
    n_samples   is L, 200 unless given, a multiple of `chains`. With more of them the error is smaller.
    fit         says what q is: "gaussian", a Gaussian with the moments of its L draws, or "kernel", an equal mixture of
                Gaussians at these draws, as wide as Scott's rule says. "kernel" suits a posterior with several modes.
                Its errors are too small: where the posterior is a Gaussian, 95 % intervals cover the truth in 90 to
                91 % of 1,000 repeats with 100 or 200 draws and in 92 to 93 % with 500 to 2,000, and in 88 to 93 % of
                those that k_hat trusts. Most of the others are too high. Those of "gaussian" cover 94 to 95 %.
    seed        selects the random numbers.
    burn_in     is the number of transitions that each chain makes before its first draw, which tune the stepsize.
    steps       is the number of leapfrog steps in a transition.
    thin        is the number of transitions from one draw of a chain to the next; more make the draws less alike.
    chains      is the number of chains for each datapoint.
    comm        is a communicator of mpi4py, whose ranks share chains and rows and all return the whole estimate; None,
                the default, is this process alone.

    A chain does not leave the mode of p(z|x) in which it starts, and neither `error` nor `k_hat` can tell. The chains
    therefore start at draws that are nearly from p(z|x): see `starts`. The log of the mean is on average too high, by
    about error²/2. Where the draws of a datapoint are too much alike to fit a density, a warning says so and its log_p
    is NaN. Numbers or rows that do not fit raise a ValueError.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        x = rows_of("x", x, model)
        L = whole("n_samples", n_samples)
        J = model.n_latent
        chains = whole("chains", chains)
        thin = whole("thin", thin)
        seed = whole("seed", seed, least=0)
        if fit not in ("gaussian", "kernel"):
            raise ValueError(f"fit is {fit!r}; expected 'gaussian' or 'kernel'")
        least = max(2 * J + 2, 4 * chains)
        if least > L or L % chains:
            raise ValueError(f"n_samples is {L}; expected {least} or more, a multiple of the {chains} chains")
        if J >= 5:
            warnings.warn(
                f"appendix D is for fewer than 5 latent dimensions; here are {J}: take importance", stacklevel=2
            )
        settings = {"n_samples": L, "fit": fit, "burn_in": burn_in, "steps": steps, "thin": thin, "chains": chains}
        ranks.require_same(model, x, seed=seed, **settings)
        size = max(1, AT_ONCE // chains)
        parts = []
        for begun in range(0, len(x), size):
            rows = model.pixels(move(x[begun : begun + size], model.backend))
            generator = np.random.default_rng([seed, begun])
            parts.append(_appendix_d(model, rows, L, fit, generator, burn_in, steps, thin, chains, ranks))
    names = ("log_p", "error", "ess", "k_hat", "r_hat")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    estimate = Estimate(**joined, n_terms=L)
    warn_of_k_hat(estimate)
    warn(np.isinf(estimate.log_p), NOT_FINITE)
    warn(np.isnan(estimate.log_p), "the draws of {} datapoints are too much alike for a density: vary burn_in or seed")
    return estimate


def _appendix_d(model, x, L, fit, generator, burn_in, steps, thin, chains, ranks):
    """Return the Estimate for rows x (N, D), which lie where the model does."""
    N = len(x)
    each = L // chains  # draws of one chain in each of the two sets
    z = starts(model, x, chains, generator, ranks=ranks)
    target = log_joint(model.decoder, np.concatenate([x] * chains)[ranks.share(chains * N).rows])
    found = sample(target, z.reshape(chains * N, -1), generator, 2 * each * thin, burn_in, steps, comm=ranks)
    draws = found.z[thin - 1 :: thin].reshape(2 * each, chains, N, -1)
    mine = ranks.share(N).rows
    first, fresh = draws[:, :, mine].reshape(2, L, -1, model.n_latent)
    log_q = [_log_q(fit, first[:, i].astype(float), fresh[:, i]) for i in range(first.shape[1])]
    terms = (
        np.stack(log_q, axis=1) - log_p_xz(model, x[mine], move(fresh, model.backend)) if log_q else np.empty((L, 0))
    )
    terms = ranks.gathered(terms.T, N).T
    estimate = harmonic(terms)
    scaled = np.exp(terms - terms.max(axis=0)).reshape(each, chains, N)
    share = effective_sample_size(scaled) / L  # below 1, since the terms of one chain are correlated
    error = estimate.error / np.sqrt(np.minimum(np.maximum(share, 1 / L), 1))
    return replace(estimate, error=error, r_hat=split_r_hat(draws))


def starts(model, x, chains, generator, candidates=500, ranks=None):
    """Return starting points z (chains, N, J) that are nearly draws from p(z|x), where the model lies.

    They are resampled from `candidates` draws of the prior p(z) and as many of q(z|x). Together these are draws of the
    mixture ½ p(z) + ½ q(z|x), and each is taken with a probability in proportion to p(x, z) over the density of that
    mixture. The chains are thus shared out among the modes of p(z|x), even where q knows of one mode only, or of none.

    x (N, D) lies where the model does, and generator is NumPy's. candidates is 500 unless given; more of them matter
    where the posterior is much narrower than both the prior and q. ranks share the rows; None is this process alone.
    """
    ranks = ranks_of(ranks)
    N = len(x)
    mine = ranks.share(N).rows
    eps = standard_normal(generator, (2 * candidates, N, model.n_latent), model.dtype, model.backend)[:, mine]
    x = x[mine]
    mu, log_var = model.encode(x)
    z = np.concatenate([eps[:candidates], mu + np.exp(0.5 * log_var) * eps[candidates:]])
    log_pz = move(log_standard_gaussian(z, gradient=False)[0], "numpy").astype(float)
    log_qz = move(log_gaussian(z, mu, log_var, gradient=False)[0], "numpy").astype(float)
    log_w = log_p_xz(model, x, z) - np.logaddexp(log_pz, log_qz)
    # With Gumbel noise g added, the largest log w + g is a draw with probabilities in proportion to w.
    noise = (generator.gumbel(size=(2 * candidates, N))[:, mine] for _ in range(chains))
    chosen = np.array([(log_w + g).argmax(axis=0) for g in noise])
    found = move(z, "numpy")[chosen, np.arange(len(x))]
    return move(ranks.gathered(found.swapaxes(0, 1), N).swapaxes(0, 1), model.backend)


def harmonic(log_terms):
    """Return the `Estimate` from terms whose mean is 1/p(x), given as log q(z_l) - log p(x, z_l), (L, N)."""
    log_one_over_p, error, ess = log_mean(log_terms)
    return Estimate(-log_one_over_p, error, ess, pareto_k(log_terms), len(log_terms))


def _log_q(fit, draws, z):
    """Return log q at z (L, J), (L,), for the q that is fitted to draws (L, J); NaN if these do not span a volume."""
    try:
        if fit == "kernel":
            return gaussian_kde(draws.T).logpdf(z.T)
        return multivariate_normal(draws.mean(axis=0), np.cov(draws.T)).logpdf(z)
    except np.linalg.LinAlgError:
        return np.full(len(z), np.nan)


def quadrature(model, x, points=401, limit=10.0):
    """Return log p(x) = log ∫ p(x|z) p(z) dz, (N,) in nats, by the trapezoid rule over one or two latents.

    The integrand vanishes at both ends, where the rule gains digits exponentially fast with the number of points.

    model    is a `VAE` with one or two latents.
    x        holds the datapoints, (N, D), in host memory.
    points   is the number of points on each axis, 401 unless given. A warning counts the datapoints for which half as
             many points give a log p(x) that differs by more than 0.01 nat: then take more.
    limit    says that the axes run from -limit to limit, in standard deviations of the prior, beyond which p(z) must be
             negligible.

    More latents, and numbers or rows that do not fit, raise a ValueError.
    """
    with guard_of(model):
        J = model.n_latent
        if J > 2:
            raise ValueError(f"quadrature is for 1 or 2 latent dimensions; this model has {J}: take importance")
        points = whole("points", points, least=3)
        limit = positive("limit", limit)
        x = model.pixels(move(rows_of("x", x, model), model.backend))
        axis = np.linspace(-limit, limit, points)
        grid = np.stack(np.meshgrid(*[axis] * J, indexing="ij"), axis=-1).reshape(-1, 1, J)
        grid = move(grid.astype(model.dtype), model.backend)
        coarse = (slice(None, None, 2),) * J  # every other point of each axis
        sums = []
        for i in range(len(x)):
            log_pxz = log_p_xz(model, x[i : i + 1], grid).astype(float).reshape((points,) * J)
            sums.append([logsumexp(log_pxz), logsumexp(log_pxz[coarse]) + J * math.log(2)])
        fine, half = np.array(sums).T + J * math.log(axis[1] - axis[0])
        there = np.isfinite(fine)
        settled = np.abs(fine - np.where(there, half, 0)) <= 0.01
        warn(~there, NOT_FINITE)
        warn(there & ~settled, f"{{}} integrals are not settled by {points} points: take more")
        return fine
