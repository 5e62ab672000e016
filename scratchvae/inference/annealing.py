"""Annealed importance sampling (Neal 2001, "Annealed importance sampling"): log p(x) by a walk from prior to posterior.

Draws of the prior could be weighted by p(x|z) at once, but of a million draws perhaps one lies where the posterior is.
So the way is divided into T steps, by T + 1 densities from the prior to p(x, z):

    f_t(z) = p(z) p(x|z)^β_t,     0 = β_0 < β_1 < … < β_T = 1

A draw z_0 ~ p(z) = f_0 is weighted by f_1(z_0)/f_0(z_0). A transition of Hamiltonian Monte Carlo (`inference.hmc`) that
leaves f_1 as it is moves it to z_1, which is weighted by f_2(z_1)/f_1(z_1), and so on. Since f_t/f_{t-1} is a power of
the likelihood, the weight of the whole walk is

    log w = Σ_{t=1}^T (β_t - β_{t-1}) log p(x|z_{t-1})

and E w = p(x), whatever T and the stepsizes are. With T = 1 nothing moves, and this is importance sampling from the
prior. The more steps, the less w varies. The log of a mean of K weights is on average too low.

The same walk backwards bounds from above (Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal likelihood using
bidirectional Monte Carlo"). It starts at a draw of the posterior and goes through the transitions in the opposite
order; then E 1/w = 1/p(x). Such a draw is at hand where the model has made the data itself: z ~ p(z), x ~ p(x|z), and
this z is a draw of p(z|x). `sandwich` walks both ways on such data, and the distance between the two says what the
estimate is worth under this model. Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis of
Decoder-Based Generative Models", apply both to decoders; the temperatures are theirs.

Below, M is the number of datapoints that walk together and K the number of chains for each of them, C = K M in all.
Chain k M + i belongs to datapoint i.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from scratchvae.arguments import rows_of, whole
from scratchvae.backend import move
from scratchvae.diagnostics import pareto_k
from scratchvae.guard import guard_of
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.estimate import NOT_FINITE, Estimate, log_mean, warn, warn_of_k_hat
from scratchvae.inference.hmc import log_likelihood, tempered, transition
from scratchvae.ranks import ranks_of

AT_ONCE = 512  # how many chains walk together: this number bounds the memory
STEEP = 4.0  # δ of the temperatures, as Wu et al. have it
PILOT = 100  # how many temperatures the walk has that tunes the stepsizes, unless the one that counts has fewer
AIM = 0.8  # the rate of acceptance that is tuned for
GAIN = 0.5  # by how much log ε follows the rate of one transition
FIRST = 0.5  # the stepsize with which the tuning begins: half a standard deviation of the prior
JITTER = 0.5  # how far the stepsize of one chain and transition may fall below the tuned one: see `hmc.sample`
TUNING = 0  # this and the next two tell apart what noise is for
FORWARDS = 1
BACKWARDS = 2


def betas_of(T):
    """Return β_0 = 0 < β_1 < … < β_T = 1, (T + 1,).

        β_t = (s_t - s_0)/(s_T - s_0),     s_t = σ(δ (2t/T - 1)) = 1/(1 + exp(-δ (2t/T - 1)))

    They lie close together at both ends. Near the prior log p(x|z) varies by thousands of nats, so that small steps are
    needed, and near the posterior the density is narrow.
    """
    s = np.tanh(STEEP / 2 * np.linspace(-1, 1, T + 1))  # σ(a) = ½ + ½ tanh(a/2), and both constants drop out
    return (s - s[0]) / (s[-1] - s[0])


class Noise:
    """The random numbers of K chains for each of M datapoints, in the dtype and on the backend of `model`.

    Datapoint i of `numbers` has a generator of its own, which is a function of i and `seed`, a list of whole numbers.
    So what it gets does not depend on which others walk beside it.
    """

    def __init__(self, model, K, seed, numbers):
        self.generators = [np.random.default_rng([*seed, i]) for i in numbers]
        self.K = K
        self.model = model

    def normal(self):
        """Return standard normal numbers, (C, J): a z ~ p(z) of each chain, or its momentum."""
        shape = self.K, self.model.n_latent
        drawn = [generator.standard_normal(shape, self.model.dtype) for generator in self.generators]
        return move(np.stack(drawn, axis=1).reshape(-1, self.model.n_latent), self.model.backend)

    def uniform(self):
        """Return two numbers for each chain that are uniform on [0, 1), (2, C)."""
        drawn = [generator.random((2, self.K), self.model.dtype) for generator in self.generators]
        return move(np.stack(drawn, axis=2).reshape(2, -1), self.model.backend)


def walk(likelihood, z, betas, stepsizes, noise, steps, rated=None, met=None):
    """Walk chains from z (C, J) through the densities f_t, and return log w of each, (C,) float64.

    betas are β_0, …, β_T, and z are draws of f_0. For a walk backwards they are β_T, …, β_0, z are draws of f_T, and
    what is returned is log 1/w.

    likelihood is that of `hmc.log_likelihood`. stepsizes[t - 1], (M,), has the stepsize of each datapoint in transition
    t of T - 1, and steps is the number of its leapfrog steps. noise is a `Noise`. rated is called after each transition
    with the mean rates of the datapoints, (M,), and met without arguments after each of the T steps; None for no calls.
    """
    log_w = 0.0
    T = len(betas) - 1
    for t in range(1, T + 1):
        log_px, dlog_px = likelihood(z)
        log_w = log_w + float(betas[t] - betas[t - 1]) * log_px.astype(float)
        if t < T:
            beta = float(betas[t])
            log_pz, dlog_pz = log_standard_gaussian(z)
            state = z, beta * log_px + log_pz, beta * dlog_px + dlog_pz
            p = noise.normal()
            u, v = noise.uniform()
            stepsize = (np.concatenate([stepsizes[t - 1]] * noise.K) * (1 - JITTER * v))[:, None].astype(z.dtype)
            with np.errstate(over="ignore", invalid="ignore"):  # the end of a trajectory that diverges is refused
                state, rate, _ = transition(tempered(likelihood, beta), state, p, u, stepsize, steps)
            z = state[0]
            if rated is not None:
                rated(rate.reshape(noise.K, -1).mean(axis=0))
        if met is not None:
            met()
    return log_w


def tuned(likelihood, T, noise, steps):
    """Return the stepsizes of the T - 1 transitions of a walk, (T - 1, M), from one with at most `PILOT` temperatures.

    After each transition log ε moves by GAIN times the difference of the datapoint's mean rate and AIM, and so ε is
    found for the next. Where the walk that counts has more temperatures, log ε is interpolated between them.
    """
    P = min(T, PILOT)
    z = noise.normal()
    found = [np.full_like(z, FIRST, shape=len(noise.generators))]

    def rated(rate):
        found.append(found[-1] * np.exp(GAIN * (rate - AIM)))

    walk(likelihood, z, betas_of(P), found, noise, steps, rated)
    logs = np.log(np.stack([move(stepsize, "numpy") for stepsize in found]))  # at t/P for t = 1, …, P
    along = np.arange(1, T) / T
    log_stepsizes = [np.interp(along, np.arange(1, P + 1) / P, log) for log in logs.T]
    return move(np.exp(np.stack(log_stepsizes, axis=1)), noise.model.backend)


@dataclass(frozen=True)
class Sandwich:
    """Two estimates of log p(x) for N datapoints that the model has made itself: see `sandwich`.

    lower and upper are an `Estimate` each. In the mean over the noise the one is below log p(x), and the other above.
    The error, ess and k_hat of upper are NaN: its walks begin at one z, so that their spread says little of them. What
    is known of it is how it differs from lower over the datapoints, as `gap` tells.
    """

    lower: Estimate
    upper: Estimate

    def gap(self):
        """Return the mean over the datapoints of upper - lower, and its standard error, two numbers in nats.

        The mean estimate of such data is at most so far from log p(x), up to the standard error.
        """
        apart = self.upper.log_p - self.lower.log_p
        return float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else np.nan


def annealed(model, x, n_samples=16, temperatures=1000, steps=2, seed=0, progress=None, comm=None):
    """Estimate log p(x) by annealed importance sampling from the prior and return an `Estimate`.

    model          is a `VAE`, or another model with its decoder. Its q(z|x) is not asked.
    x              holds the datapoints, (N, D), in host memory.
    n_samples      is K, the number of walks for each datapoint, 16 unless given. More of them lower the error.
    temperatures   is T, the number of steps of a walk, 1000 unless given. More of them lower the error too, and the
                   bias, and do so where more walks of few temperatures would not.
    steps          is the number of leapfrog steps of each of the T - 1 transitions, 2 unless given. At the same cost
                   more temperatures gain more than longer trajectories.
    seed           selects the draws. Those for row i are a function of (seed, i) alone.
    progress       is called with the number of steps that walks have finished, N K T in all; None for no calls.
    comm           is a communicator of mpi4py, whose ranks share the rows and all return the whole estimate; None, the
                   default, is this process alone.

    The stepsizes are tuned for each datapoint and temperature by a first walk of at most `PILOT` temperatures, whose
    noise is another, and then they are frozen: stepsizes that came of the noise of the walk itself would bias it. k_hat
    is NaN with fewer than 21 walks. `sandwich` says how good the estimate is under the same model. A number that is not
    whole, or rows that do not fit the model, raise a ValueError.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        x = rows_of("x", x, model)
        settings = _checked(n_samples, temperatures, steps, seed)
        ranks.require_same(model, x, **settings)
        estimate = Estimate(*_estimates(model, x, None, ranks, progress, **settings), n_samples)
    warn_of_k_hat(estimate)
    warn(~np.isfinite(estimate.log_p), NOT_FINITE)
    return estimate


def sandwich(model, n=100, n_samples=16, temperatures=1000, steps=2, seed=0, progress=None, comm=None):
    """Estimate log p(x) of n datapoints that the model makes itself from below and from above, and return a `Sandwich`.

    Each of them is drawn as z ~ p(z) and x ~ p(x|z), as `model.simulate` does. The estimate from below is that of
    `annealed`, and the one from above is -log 1/K Σ_k 1/w_k over K walks backwards that all begin at this z, which is a
    draw of p(z|x).

    n is the number of datapoints, 100 unless given. progress is called with numbers whose sum is 2 n K T. The others
    are those of `annealed`, and what is raised is too. The data are the model's, not yours: on images that it finds
    odd the estimate may be worse than on its own.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        settings = _checked(n_samples, temperatures, steps, seed)
        n = whole("n", n)
        z, x = (move(part, "numpy") for part in model.simulate(n, settings["seed"]))
        ranks.require_same(model, x, **settings)
        lower = Estimate(*_estimates(model, x, None, ranks, progress, **settings), n_samples)
        below = _estimates(model, x, z, ranks, progress, **settings)[0]
        unknown = np.full(n, np.nan)
        upper = Estimate(-below, unknown, unknown, unknown, n_samples)
    return Sandwich(lower, upper)


def _checked(n_samples, temperatures, steps, seed):
    """Return the numbers of a walk by name, or raise a ValueError."""
    return {
        "n_samples": whole("n_samples", n_samples),
        "temperatures": whole("temperatures", temperatures),
        "steps": whole("steps", steps),
        "seed": whole("seed", seed, least=0),
    }


def _estimates(model, x, z, ranks, progress, n_samples, temperatures, steps, seed):
    """Return the log of the mean weight of each row of x (N, D), its error, ess and k_hat, (N,) each.

    Without z the walks go forwards. Otherwise z (N, J) holds draws of p(z|x), where walks backwards begin, and the mean
    is that of 1/w.
    """
    betas = betas_of(temperatures)
    way = slice(None) if z is None else slice(None, None, -1)
    purpose = FORWARDS if z is None else BACKWARDS
    mine = ranks.share(len(x))
    size = max(1, AT_ONCE // n_samples)
    parts = [min(AT_ONCE, n_samples - begun) for begun in range(0, n_samples, AT_ONCE)]  # of the walks of a datapoint
    found = np.empty((len(mine), 4))  # log_p, error, ess and k_hat

    def met(chains):
        done = ranks.meet(chains)[0]
        if progress is not None:
            progress(int(done))

    for begun in range(0, -(-len(x) // ranks.size), size):  # as many blocks on every rank
        block = slice(begun, min(begun + size, len(mine)))
        numbers = range(mine.start, mine.stop)[block]
        if not numbers:  # the other ranks walk, and meet after each step
            for _ in range(temperatures * len(parts)):
                met(0)
            continue
        with model.guard.looked_at():  # the rows were looked at, or are the model's own, of any values
            rows = model.pixels(move(x[mine.rows][block], model.backend))
        likelihood = log_likelihood(model.decoder, rows)
        stepsizes = tuned(likelihood, temperatures, Noise(model, parts[0], [seed, TUNING], numbers), steps)
        log_w = []
        for part, K in enumerate(parts):
            noise = Noise(model, K, [seed, purpose, part], numbers)
            start = noise.normal() if z is None else move(np.tile(z[mine.rows][block], (K, 1)), model.backend)
            met_here = partial(met, K * len(numbers))
            weights = walk(likelihood, start, betas[way], stepsizes[way], noise, steps, met=met_here)
            log_w.append(move(weights, "numpy").reshape(K, -1))
        log_w = np.concatenate(log_w)
        with np.errstate(invalid="ignore"):  # of weights that are all 0: a warning counts such datapoints
            found[block] = np.stack((*log_mean(log_w), pareto_k(log_w)), axis=1)
    return np.ascontiguousarray(ranks.gathered(found, len(x)).T)
