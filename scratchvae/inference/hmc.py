"""Hamiltonian Monte Carlo (Neal 2011): samples from p(z|x), a chain for every datapoint, all of them in one batch.

With a momentum p ~ N(0, I) beside z, H(z, p) = -log p(x, z) + ½ p·p, the leapfrog steps

    p ← p + ½ ε ∇_z log p(x, z)          z ← z + ε p          p ← p + ½ ε ∇_z log p(x, z)

keep volume and can be walked back, and keep H up to O(ε²). Accepting the end of a trajectory with probability
min(1, exp(H_before - H_after)) makes up for that error exactly; else the chain stays, and its state counts once more.

A target is a function z (C, J) → log density up to a constant (C,) and its gradient (C, J), for C chains.
"""

import contextlib
import warnings
from dataclasses import dataclass

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import BACKENDS, kind, move
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.noise import standard_normal

DIVERGENT = 1000  # an energy error of so many nats, or one that is not finite, says that the stepsize lost the track


def log_joint(decoder, x):
    """The target z ↦ log p(x, z) = log p(x|z) + log p(z) and ∂/∂z, by the decoder's own backward pass."""
    x = x.astype(decoder.layers[0].W.dtype, copy=False)

    def target(z):
        with _of_input_alone(decoder):
            log_px = decoder.log_prob(x, z[None])[0]
            dz = decoder.backward(1.0)[0]
        log_pz, dlog_pz = log_standard_gaussian(z)
        return log_px + log_pz, dz + dlog_pz

    return target


@contextlib.contextmanager
def _of_input_alone(decoder):
    """While this lasts, backward passes give the gradient of z and leave that of θ, nearly half of the work, alone."""
    maps = [layer for layer in decoder.layers if layer.shapes]
    for layer in maps:
        layer.frozen = True
    try:
        yield
    finally:
        for layer in maps:
            layer.frozen = False


def leapfrog(target, z, p, gradient, stepsize, steps):
    """(z, p, log density, gradient) after so many steps from z with momentum p; gradient is that at z."""
    p = p + 0.5 * stepsize * gradient
    for step in range(steps):
        z = z + stepsize * p
        value, gradient = target(z)
        p = p + (1.0 if step < steps - 1 else 0.5) * stepsize * gradient  # two halves are one whole between steps
    return z, p, value, gradient


def transition(target, state, p, u, stepsize, steps):
    """One transition of all chains: (state, probability of acceptance (C,), energy error (C,)).

    state is (z, log density, gradient); p (C, J) is the fresh momentum, u (C,) uniform on [0, 1).
    """
    z, value, gradient = state
    end = leapfrog(target, z, p, gradient, stepsize, steps)
    before, after = -value + 0.5 * (p * p).sum(axis=-1), -end[2] + 0.5 * (end[1] * end[1]).sum(axis=-1)
    error = np.where(np.isfinite(after), after - before, np.inf)
    probability = np.exp(np.minimum(0, -error))
    accepted = u < probability
    state = (
        np.where(accepted[:, None], end[0], z),
        np.where(accepted, end[2], value),
        np.where(accepted[:, None], end[3], gradient),
    )
    return state, probability, error


@dataclass(frozen=True)
class Samples:
    """What `sample` returns: z (S, C, J) after the burn-in, and how the chains went there."""

    z: np.ndarray
    acceptance: np.ndarray  # (C,), the mean probability of acceptance
    energy_error: np.ndarray  # (S, C)
    stepsize: np.ndarray  # (C, 1), frozen when the burn-in ended
    divergences: int  # transitions after the burn-in whose energy error was above DIVERGENT or not finite


def sample(
    target, z, generator, n_samples, burn_in=100, steps=10, acceptance=0.9, stepsize=0.1, shared=False, jitter=0.5
):
    """`n_samples` transitions of the chains that start at z (C, J), after `burn_in` that tune the stepsize.

    acceptance   the rate that is aimed at, 0.9 in appendix E. In the burn-in log ε moves by t^-½ (rate - aim) at its
                 transition t, for each chain by itself or, shared, by the mean of all: Robbins & Monro's (1951)
                 idea, in steps that fall more slowly than theirs. Then ε is frozen at its mean over the second half:
                 a chain that goes on being tuned is none of p(z|x)
    jitter       a transition takes its stepsize from U((1 - jitter) ε, ε), each chain by itself. With one length for
                 all of them a trajectory that nearly closes, as in a Gaussian of the right scale, comes back to one
                 energy again and again: its mean is found at once, its spread hardly at all (Neal 2011, section 3.2)
    z may lie on the device: the chains run there, their states come to the host. generator is NumPy's on both.
    ValueError: no chain, or numbers that do not fit. Warnings say so where the mean rate missed the aim by more than
    0.1, how many chains accept less than half of it, and how many trajectories diverged.
    """
    C, J = _checked(z, n_samples, burn_in, steps, acceptance, stepsize, jitter)
    backend, log_stepsize, settled = kind(z), np.full_like(z[:, :1], np.log(stepsize)), []
    state, divergences = (z, *target(z)), 0
    draws, errors, rates = np.empty((n_samples, C, J), z.dtype), np.empty((n_samples, C), z.dtype), np.zeros(C)
    for t in range(-burn_in, n_samples):
        if t == 0 and settled:
            log_stepsize = np.stack(settled).mean(axis=0)
        p = standard_normal(generator, (C, J), z.dtype, backend)
        u, v = move(generator.random((2, C), z.dtype), backend)
        length = np.exp(log_stepsize) * (1 - z.dtype.type(jitter) * v[:, None])
        with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that diverges is counted below
            state, rate, error = transition(target, state, p, u, length, steps)
        divergences += int((error > DIVERGENT).sum()) if t >= 0 else 0
        if t < 0:
            missed = (rate.mean() if shared else rate[:, None]) - acceptance
            log_stepsize = log_stepsize + z.dtype.type((t + burn_in + 1) ** -0.5) * missed
            settled += [log_stepsize] if t >= -burn_in // 2 else []
        else:
            draws[t], errors[t] = move(state[0], "numpy"), move(error, "numpy")
            rates += move(rate, "numpy") / n_samples
    if burn_in and abs(rates.mean() - acceptance) > 0.1:
        warnings.warn(
            f"the chains accept {rates.mean():.0%} of their transitions, {acceptance:.0%} were asked for: "
            "a longer burn_in tunes the stepsize further",
            stacklevel=2,
        )
    if stuck := int((rates < acceptance / 2).sum()):
        warnings.warn(
            f"{stuck:,} of {C:,} chains accept less than half of the {acceptance:.0%} asked for: "
            "a longer burn_in tunes the stepsize further",
            stacklevel=2,
        )
    if divergences:
        warnings.warn(
            f"{divergences:,} of {n_samples * C:,} trajectories diverged: a longer burn_in tunes the stepsize further",
            stacklevel=2,
        )
    return Samples(draws, rates, errors, move(np.exp(log_stepsize), "numpy"), divergences)


# Diagnostics


def split_r_hat(draws):
    """R̂ of draws (S, K, …) of K chains of one target, each cut in half: √(V/W), 1 where the chains agree.

    W is the mean variance within the halves, V = (n-1)/n W + B/n with B/n the variance of their means (Gelman et al.
    2013, section 11.4). ValueError for fewer than 4 draws.
    """
    halves = _halves(draws)
    n, within = len(halves), halves.var(axis=0, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # ∞ where no chain moves, NaN where all stand at one place
        return np.sqrt((n - 1) / n + halves.mean(axis=0).var(axis=0, ddof=1) / within)


def effective_sample_size(draws):
    """How many independent draws tell as much about the mean as draws (S, K, …) of K chains.

    S K / (1 + 2 Σ_t ρ_t), with the autocorrelation ρ_t of all half chains together, summed in pairs ρ_2t + ρ_2t+1 that
    must be positive and must not rise (Geyer 1992; Gelman et al. 2013, section 11.5). ValueError as above.
    """
    halves = _halves(draws)
    n, m = halves.shape[:2]
    centred = halves - halves.mean(axis=0)
    spectrum = np.fft.rfft(centred, 2 * n, axis=0)
    autocovariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n].mean(axis=1) / n  # (n, …), the mean over halves
    within = halves.var(axis=0, ddof=1).mean(axis=0)
    total = (n - 1) / n * within + halves.mean(axis=0).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore"):  # NaN where all stand at one place
        rho = 1 - (within - autocovariance * n / (n - 1)) / total
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, *rho.shape[1:]).sum(axis=1)
    positive = np.logical_and.accumulate(pairs > 0, axis=0)  # the first pair is 1 + ρ_1 > 0
    tau = -1 + 2 * (np.minimum.accumulate(pairs, axis=0) * positive).sum(axis=0)
    return n * m / np.maximum(tau, 1 / np.log10(n * m))


def _halves(draws):
    """(S/2, 2K, …)"""
    draws = np.asarray(draws, float)
    if draws.ndim < 2 or len(draws) < 4:
        raise ValueError(f"draws have shape {draws.shape}; expected (S, K, …), S ≥ 4 draws of K chains")
    n = len(draws) // 2
    return np.concatenate([draws[:n], draws[-n:]], axis=1)


def _checked(z, n_samples, burn_in, steps, acceptance, stepsize, jitter):
    if kind(z) not in BACKENDS or z.dtype not in (np.float32, np.float64):
        raise ValueError(f"z is {getattr(z, 'dtype', kind(z))}; expected an array of float32 or float64")
    if z.ndim != 2 or len(z) == 0:
        raise ValueError(f"z has shape {z.shape}; expected (C, J), the starts of C ≥ 1 chains")
    for name, value, least in [("n_samples", n_samples, 1), ("burn_in", burn_in, 0), ("steps", steps, 1)]:
        whole(name, value, least)
    if not 0 < acceptance < 1:
        raise ValueError(f"acceptance is {acceptance!r}; expected a rate between 0 and 1, such as 0.9")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter is {jitter!r}; expected a share of the stepsize from 0 to below 1")
    if not isinstance(stepsize, int | float | np.number) or not 0 < stepsize < np.inf:
        raise ValueError(f"stepsize is {stepsize!r}; expected a number > 0")
    return z.shape
