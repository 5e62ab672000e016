"""Hamiltonian Monte Carlo (Neal 2011, "MCMC using Hamiltonian dynamics"): samples from p(z|x).

Every datapoint has a chain of its own, and all chains move in one batch. Beside z there is a momentum p ~ N(0, I), and
the energy of both is H(z, p) = -log p(x, z) + ½ p·p. A leapfrog step with stepsize ε is

    p ← p + ½ ε ∇_z log p(x, z)          z ← z + ε p          p ← p + ½ ε ∇_z log p(x, z)

Leapfrog steps keep volume, they can be walked back, and they keep H up to O(ε²). The end of a trajectory is accepted
with probability min(1, exp(H_before - H_after)), which makes up for the error in H exactly. A chain that does not
accept stays where it is, and its state counts once more.

A target is a function that takes z (C, J), the states of C chains, and returns the log density of each up to a constant
(C,), in nats, and the gradient of that (C, J).
"""

import warnings
from dataclasses import dataclass

import numpy as np

from scratchvae.arguments import positive, whole
from scratchvae.backend import BACKENDS, kind, move, own
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.noise import standard_normal
from scratchvae.ranks import fingerprint, ranks_of

DIVERGENT = 1000  # nats: a trajectory whose energy error is larger, or not finite, has lost the track


def log_likelihood(decoder, x):
    """Return the target z ↦ log p(x|z) for the rows x (M, D), with K chains a row; k M + i is one of row i.

    Its gradient comes from the decoder's own backward pass. While the target is evaluated the decoder's layers are
    frozen: the gradient of θ, nearly half of the work, is not computed, and its windows stay as they are. The target
    therefore serves one thread, and while it is evaluated no other thread may use the decoder or its model: a gradient
    that is taken then would leave θ out. Nothing here guards against that; `appendix_d`, `annealed` and `fit_mcem` hold
    the model while they run.
    """
    x = x.astype(decoder.layers[0].W.dtype, copy=False)
    maps = [layer for layer in decoder.layers if layer.shapes]

    def target(z):
        for layer in maps:
            layer.frozen = True
        try:
            log_px = decoder.log_prob(x, z.reshape(-1, *x.shape[:1], *z.shape[1:]))
            dz = decoder.backward(1.0)  # ∂/∂z log p(x|z)
        finally:
            for layer in maps:
                layer.frozen = False
        return log_px.reshape(len(z)), dz.reshape(z.shape)

    return target


def tempered(likelihood, beta):
    """Return the target z ↦ β log p(x|z) + log p(z), where `likelihood` is that of `log_likelihood` and beta is β.

    With β = 0 it is the prior, and with β = 1 the posterior p(z|x) up to a constant.
    """

    def target(z):
        log_px, dz = likelihood(z)
        log_pz, dlog_pz = log_standard_gaussian(z)
        return beta * log_px + log_pz, beta * dz + dlog_pz  # the gradient of a sum is the sum of the gradients

    return target


def log_joint(decoder, x):
    """Return the target z ↦ log p(x, z) = log p(x|z) + log p(z) for the rows x (C, D), one chain for each row."""
    return tempered(log_likelihood(decoder, x), 1.0)


def leapfrog(target, z, p, gradient, stepsize, steps):
    """Walk `steps` leapfrog steps from z (C, J) with the momentum p (C, J), and return where they end.

    gradient (C, J) is the target's at z. stepsize is a number, or (C, 1) with one for each chain. The result is
    (z, p, log density, gradient), all of them at the end.
    """
    p = p + 0.5 * stepsize * gradient
    for step in range(steps):
        z = z + stepsize * p
        value, gradient = target(z)
        p = p + (1.0 if step < steps - 1 else 0.5) * stepsize * gradient  # two halves are one whole between steps
    return z, p, value, gradient


def transition(target, state, p, u, stepsize, steps):
    """Make one transition of all chains and return (state, probability of acceptance (C,), energy error (C,)).

    state is (z, log density, gradient). p (C, J) is the fresh momentum, drawn from N(0, I). u (C,), uniform on [0, 1),
    decides who accepts: those chains for which u is below the probability. stepsize and steps are those of `leapfrog`.
    The energy error is H_after - H_before in nats, and ∞ where H_after is not finite, so that such an end is refused.
    It is ∞ as well where H_before is NaN: such a chain stays where it is, with probability 0 of acceptance, and the
    rates of the others say nothing else than they would without it.
    """
    z, value, gradient = state
    end_z, end_p, end_value, end_gradient = leapfrog(target, z, p, gradient, stepsize, steps)
    before = -value + 0.5 * (p * p).sum(axis=-1)
    after = -end_value + 0.5 * (end_p * end_p).sum(axis=-1)
    error = np.where(np.isfinite(after) & (before == before), after - before, np.inf)  # NaN ≠ NaN
    probability = np.exp(np.minimum(0, -error))  # min(1, exp(-error)), without an overflow
    accepted = u < probability
    moved = accepted[:, None]
    state = np.where(moved, end_z, z), np.where(accepted, end_value, value), np.where(moved, end_gradient, gradient)
    return state, probability, error


class DualAveraging:
    """Tune stepsizes until the chains accept at the rate that is aimed at.

    This is dual averaging as Hoffman & Gelman 2014 have it ("The No-U-Turn Sampler", section 3.2, algorithm 5). After
    transition m = 1, 2, …, which was accepted with probability α, and with δ for the aim,

        H̄ ← H̄ + (δ - α - H̄)/(m + t0)                   by how much the rate has been too low on average, 0 at first
        log ε ← μ - √m/γ H̄                             the stepsize of the next transition
        log ε̄ ← log ε̄ + m^-κ (log ε - log ε̄)           an average of these, in which the late ones weigh most

    ε moves for as long as it is tuned, while ε̄ settles.

    stepsize (C, 1) is the first ε, one for each chain. aim is δ, a rate between 0 and 1. gamma is γ: the smaller it is,
    the further a single rate moves log ε. lean is a factor: the search leans to μ = log(lean · stepsize), and a factor
    above 1 favours long steps. After each `update` the attribute stepsize is ε and the attribute average is ε̄. No value
    is read, so arrays on the device make nobody wait.
    """

    T0 = 10  # the paper's: H̄ starts as if so many transitions had met the aim, which steadies the first stepsizes
    KAPPA = 0.75  # the paper's: with 1 the average would be a plain mean, and the less it is, the faster it forgets

    def __init__(self, stepsize, aim, gamma, lean):
        self.stepsize = self.average = stepsize
        self.aim = float(aim)
        self.gamma = gamma
        self.mu = np.log(lean * stepsize)
        self.too_low = self.log_average = self.m = 0  # H̄, log ε̄, and the number of transitions so far

    def update(self, rate):
        """Take in the rate of one more transition: (C, 1) tunes each chain by itself, one number tunes all alike."""
        self.m += 1
        self.too_low = self.too_low + (self.aim - rate - self.too_low) / (self.m + self.T0)
        log_stepsize = self.mu - self.m**0.5 / self.gamma * self.too_low
        self.log_average = self.log_average + (log_stepsize - self.log_average) * self.m**-self.KAPPA
        self.stepsize = np.exp(log_stepsize)
        self.average = np.exp(self.log_average)


@dataclass(frozen=True)
class Samples:
    """The samples that `sample` returns, and how the chains came to them. All arrays are in host memory.

    z (S, C, J) holds the state of every chain after each of the S transitions that follow the burn-in. acceptance (C,)
    is the mean probability of acceptance of each chain, and energy_error (S, C) the energy errors in nats. stepsize
    (C, 1) is what the burn-in has tuned. divergences is the number of transitions after the burn-in whose energy error
    is above `DIVERGENT` or not finite.
    """

    z: np.ndarray
    acceptance: np.ndarray
    energy_error: np.ndarray
    stepsize: np.ndarray
    divergences: int


def sample(
    target,
    z,
    generator,
    n_samples,
    burn_in=100,
    steps=10,
    acceptance=0.9,
    stepsize=0.1,
    shared=False,
    jitter=0.5,
    comm=None,
):
    """Run the chains that start at z (C, J), and return their next `n_samples` states after the burn-in as `Samples`.

    target is described at the top of this file.
    z, float32 or float64, may lie on the device: the chains run where it lies, and their states come to the host.
    generator is NumPy's on both, and all noise comes from it.
    n_samples is the number S of states that are kept of each chain.
    burn_in is the number of transitions, 100 by default, that come before and tune the stepsize by `DualAveraging`.
        Then the stepsize is frozen, because a chain that goes on being tuned does not sample p(z|x). Take more where a
        warning says that the tuning has not arrived, and 0 to keep `stepsize` as it is.
    steps is the number of leapfrog steps of a trajectory, 10 by default. Longer trajectories cost more and lead to
        states that depend less on the one before.
    acceptance is the rate that is aimed at, 0.9 as in appendix E.
    stepsize is where the tuning begins, 0.1 by default. The right one is found from starts that are wrong by factors
        of a hundred or more.
    shared says whether all chains take one stepsize, tuned by their mean rate, or each its own, as is the default. One
        stepsize is less noisy, and fits where the chains have the same target.
    jitter, 0.5 by default, is how far a single transition may fall below the stepsize: it takes one from
        U((1 - jitter) ε, ε), each chain its own. Without jitter a trajectory that nearly closes, as in a Gaussian of
        the right scale, comes back to the same energy again and again: the mean of such a chain is found at once, and
        its spread hardly at all (Neal 2011, section 3.2). The rate that is tuned is the rate under jitter.
    comm is a `scratchvae.ranks.Ranks`, of the communicator whose ranks share the chains; None, the default, is this
        process alone. z and the result are those of all chains on every rank, while target is that of the rank's own
        part of them, which are comm.share(len(z)).rows.

    Raises ValueError where there is no chain, where numbers do not fit, where z has masked entries, where the target's
    shapes are not (C,) and (C, J), and where the log density or its gradient is not finite at the start of a chain.
    Warnings tell of a mean rate that misses the aim, of chains that accept less than half of it, and of trajectories
    that diverged: see `_report`.
    """
    with ranks_of(comm) as ranks:
        _checked(z, generator, n_samples, burn_in, steps, acceptance, stepsize, jitter)
        z = own("z", z, kind(z))
        if ranks.size > len(z):
            raise ValueError(
                f"there are {ranks.size} ranks and {len(z)} chains: start no more ranks than those (mpiexec -n)"
            )
        if ranks.size > 1:
            counts = {"n_samples": n_samples, "burn_in": burn_in, "steps": steps, "shared": shared}
            numbers = {"acceptance": acceptance, "stepsize": stepsize, "jitter": jitter}
            noise = repr(generator.bit_generator.state)
            ranks.agree(counts | numbers | {"z": fingerprint(move(z, "numpy")), "generator": noise})
        mine = ranks.share(len(z)).rows
        state = _begun(target, z[mine])

        def advance(state, stepsize):
            p = standard_normal(generator, z.shape, z.dtype, kind(z))[mine]
            u, v = move(generator.random((2, len(z)), z.dtype)[:, mine], kind(z))
            ranks.meet()
            with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that diverges is told in the report
                return transition(target, state, p, u, stepsize * (1 - z.dtype.type(jitter) * v[:, None]), steps)

        def rate_of(rate):
            if not shared:
                return rate[:, None]
            return rate.mean() if ranks.size == 1 else ranks.total([float(rate.sum())])[0] / len(z)

        state, tuned = _tuned(advance, state, np.full_like(z[mine, :1], stepsize), acceptance, burn_in, rate_of)
        samples = _drawn(advance, state, tuned, n_samples, ranks, len(z))
    _report(samples, acceptance, burn_in)
    return samples


def _begun(target, z):
    """Return the state (z, log density, gradient) of chains that start at z.

    A ValueError is raised where a shape does not fit, and where a number is not finite.
    """
    value, gradient = target(z)
    if np.shape(value) != z.shape[:1] or np.shape(gradient) != z.shape:
        raise ValueError(
            f"target returns a log density of shape {np.shape(value)} and a gradient of shape {np.shape(gradient)} at "
            f"z of shape {z.shape}; expected {z.shape[:1]}, a number for each chain, and {z.shape}"
        )
    if bad := np.flatnonzero(~move(np.isfinite(value) & np.isfinite(gradient).all(axis=1), "numpy")).tolist():
        raise ValueError(
            f"z starts {len(bad):,} of {len(z):,} chains where the log density or its gradient is not finite (numbers "
            f"{', '.join(map(str, bad[:5]))}{', …' * (len(bad) > 5)}, counted from 0); expected both finite: move them"
        )
    return z, value, gradient


def _tuned(advance, state, stepsize, aim, burn_in, rate_of):
    """Make the transitions of the burn-in, which tune the stepsize, and return the state and the stepsize after them.

    The first half finds the order of magnitude with the paper's γ = 0.05 and μ = log(10 ε_0), which leans to long steps
    because short ones cost the most time. For a chain that is tuned by itself this γ leaves the stepsize too short: the
    rate of one transition is noisy, so ε falls far at each refusal and climbs back in small steps. In a normal
    distribution of two dimensions such chains accept 0.92 where 0.8 was the aim, after 100 transitions. So the second
    half starts again from the average ε̄ of the first, with ten times this γ and μ = log ε̄.

    rate_of turns the rates of the chains of a transition, (C,), into what the tuning takes in: see `DualAveraging`.
    """
    for half, gamma, lean in ((burn_in + 1) // 2, 0.05, 10), (burn_in // 2, 0.5, 1):
        tuner = DualAveraging(stepsize, aim, gamma, lean)
        for _ in range(half):
            state, rate, _ = advance(state, tuner.stepsize)
            tuner.update(rate_of(rate))
        stepsize = tuner.average
    return state, stepsize


def _drawn(advance, state, stepsize, n_samples, ranks, n_chains):
    """Make `n_samples` transitions with a stepsize that stays, and return those of all chains as `Samples`."""
    draws = np.empty((n_samples, *state[0].shape), state[0].dtype)
    errors = np.empty(draws.shape[:2], draws.dtype)
    for t in range(n_samples):
        state, _, error = advance(state, stepsize)
        draws[t] = move(state[0], "numpy")
        errors[t] = move(error, "numpy")
    draws = ranks.gathered(draws.swapaxes(0, 1), n_chains).swapaxes(0, 1)
    errors = ranks.gathered(errors.T, n_chains).T
    stepsize = ranks.gathered(move(stepsize, "numpy"), n_chains)
    rates = np.exp(np.minimum(0, -errors)).mean(axis=0, dtype=float)  # the probabilities of `transition`
    return Samples(draws, rates, errors, stepsize, int((errors > DIVERGENT).sum()))


def _report(samples, acceptance, burn_in):
    """Warn of three troubles: a mean rate that misses the aim, chains that hardly move, trajectories that diverged.

    The mean rate is too low where it is below the aim by more than 0.1. It is too high where it is above by more than
    0.1, or where the chains refuse less than a quarter of what was asked for: at an aim of 0.9 that is a rate above
    0.975. Nothing is said of the mean rate without a burn-in, for then the stepsize is what the caller asked for.
    """
    rate = samples.acceptance.mean()
    missed = burn_in and not -0.1 <= rate - acceptance <= min(0.1, 0.75 * (1 - acceptance))
    stuck = int((samples.acceptance < acceptance / 2).sum())
    for there, trouble in [
        (missed, f"the chains accept {rate:.0%} of their transitions, {acceptance:.0%} were asked for"),
        (stuck, f"{stuck:,} of {len(samples.z[0]):,} chains accept less than half of the {acceptance:.0%} asked for"),
        (samples.divergences, f"{samples.divergences:,} of {samples.energy_error.size:,} trajectories diverged"),
    ]:
        if there:
            warnings.warn(f"{trouble}: a longer burn_in tunes the stepsize further", stacklevel=3)


def _checked(z, generator, n_samples, burn_in, steps, acceptance, stepsize, jitter):
    """Raise a ValueError where an argument of `sample` does not fit."""
    if kind(z) not in BACKENDS or z.dtype not in (np.float32, np.float64):
        raise ValueError(f"z is {getattr(z, 'dtype', kind(z))}; expected an array of float32 or float64")
    if z.ndim != 2 or len(z) == 0:
        raise ValueError(f"z has shape {z.shape}; expected (C, J), the starts of C ≥ 1 chains")
    if not isinstance(generator, np.random.Generator):
        raise ValueError(f"generator is {generator!r}; expected NumPy's, such as np.random.default_rng(0)")
    for name, value, least in [("n_samples", n_samples, 1), ("burn_in", burn_in, 0), ("steps", steps, 1)]:
        whole(name, value, least)
    if not 0 < acceptance < 1:
        raise ValueError(f"acceptance is {acceptance!r}; expected a rate between 0 and 1, such as 0.9")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter is {jitter!r}; expected a share of the stepsize from 0 to below 1")
    positive("stepsize", stepsize)
