"""Exercises on steps: an update of Adagrad, a leapfrog step, and who is accepted."""

import numpy as np

from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.inference.hmc import leapfrog as library_leapfrog
from scratchvae.inference.hmc import transition
from scratchvae.nets.layers import Constant
from scratchvae.nets.params import Params
from scratchvae.training.optim import Adagrad

# Adagrad


def adagrad(theta, h, g, lr, eps):
    """Return (new_theta, new_h) (P,), the parameters and the sum of squares after one step uphill.

    theta   holds the parameters, (P,), and h (P,) the sum of the squares of all gradients before this one.
    g       is the gradient of the bound, which is maximised, (P,).
    lr      is the stepsize, and eps a small number that stands outside the root.
    """
    raise NotImplementedError


def _library_adagrad(theta, h, g, lr, eps):
    params = Params([Constant("theta", len(theta))], np.float64)
    params.value[...] = theta
    params.grad[...] = g
    optimizer = Adagrad(lr, eps)
    optimizer.start(params)
    optimizer.state["h"][...] = h
    optimizer.ascend(params, 1)
    return params.value, optimizer.state["h"]


def _a_hundred_steps(answer):
    """Return how far 100 steps lead along a constant gradient, without eps."""
    theta = np.zeros(1)
    h = np.zeros(1)
    for _ in range(100):
        theta, h = answer(theta=theta, h=h, g=np.full(1, 5.0), lr=0.1, eps=0.0)
    return theta, 1.85896038247841


ADAGRAD = Exercise(
    adagrad,
    title="a step of Adagrad",
    statement="""
        Adagrad gives every parameter a stepsize of its own, which falls with the gradients that it has seen:

            h ← h + g²        θ ← θ + lr g / (√h + eps)

        Return both, and leave the arguments as they are. The bound is maximised, so the step leads uphill.
        """,
    results=("new_theta", "new_h"),
    arguments=lambda generator: {
        "theta": generator.standard_normal(6),
        "h": generator.random(6),
        "g": generator.standard_normal(6),
        "lr": 0.3,
        "eps": 0.01,
    },
    naive=lambda theta, h, g, lr, eps: (
        np.array([t + lr * d / ((s + d**2) ** 0.5 + eps) for t, s, d in zip(theta, h, g, strict=True)]),
        np.array([s + d**2 for s, d in zip(h, g, strict=True)]),
    ),
    library=_library_adagrad,
    exact_case="100 steps of lr = 0.1 along a constant gradient lead 0.1 Σ k^-½ = 1.85896038247841 far",
    exact=_a_hundred_steps,
    hint="First the new h, then the step, which uses it.",
    reading="experiments.html#adagrad",
    mistakes={
        "the step leads downhill: the bound is maximised": lambda theta, h, g, lr, eps: (
            theta - lr * g / (np.sqrt(h + g * g) + eps),
            None,
        ),
        "the step uses h from before, without g²": lambda theta, h, g, lr, eps: (
            theta + lr * g / (np.sqrt(h) + eps),
            None,
        ),
        "eps stands inside the root": lambda theta, h, g, lr, eps: (theta + lr * g / np.sqrt(h + g * g + eps), None),
        "the root is missing": lambda theta, h, g, lr, eps: (theta + lr * g / (h + g * g + eps), None),
        "h is replaced by g², and should be added to": lambda theta, h, g, lr, eps: (
            theta + lr * g / (np.abs(g) + eps),
            g * g,
        ),
        "g is added to h, and not its square": lambda theta, h, g, lr, eps: (None, h + g),
    },
)


# Leapfrog


def leapfrog(z, p, grad, stepsize):
    """Return (new_z, new_p) (C, J) after one leapfrog step of C chains.

    z          holds the positions, (C, J), and p (C, J) the momenta.
    grad       is a function of z that returns ∇_z log p(x, z), (C, J).
    stepsize   is a number.
    """
    raise NotImplementedError


def _quartic(z):
    """Return the gradient of -¼ Σ z⁴."""
    return -(z**3)


def _library_leapfrog(z, p, grad, stepsize):
    return library_leapfrog(lambda at: (0.0, grad(at)), z, p, grad(z), stepsize, 1)[:2]


def _naive_leapfrog(z, p, grad, stepsize):
    halfway = p + stepsize / 2 * grad(z)
    moved = z + stepsize * halfway
    return moved, halfway + stepsize / 2 * grad(moved)


def _on_the_oscillator(answer):
    """Return p² + q² (1 - ε²/4) before and after ten steps on a harmonic oscillator."""
    z = np.array([[1.0, 0.2]])
    p = np.array([[0.3, -1.1]])
    before = p * p + z * z * (1 - 0.2**2 / 4)
    for _ in range(10):
        z, p = answer(z=z, p=p, grad=np.negative, stepsize=0.2)
    return p * p + z * z * (1 - 0.2**2 / 4), before


LEAPFROG = Exercise(
    leapfrog,
    title="a leapfrog step",
    statement="""
        Hybrid Monte Carlo moves z like a ball with the momentum p over the hills of log p(x, z). A leapfrog step is

            half a step of p along the gradient, a whole step of z along p, half a step of p along the new gradient

        Return z and p after one such step. grad(z) is ∇_z log p(x, z).
        """,
    results=("new_z", "new_p"),
    arguments=lambda generator: gaussians(z=(4, 3), p=(4, 3))(generator) | {"grad": _quartic, "stepsize": 0.3},
    naive=_naive_leapfrog,
    library=_library_leapfrog,
    exact_case="on a harmonic oscillator p² + z² (1 - ε²/4) stays what it is, to rounding",
    exact=_on_the_oscillator,
    hint="p ← p + ½ ε grad(z), then z ← z + ε p, then p ← p + ½ ε grad(z), each with the newest of the others.",
    reading="hmc.html#leapfrog",
    mistakes={
        "the steps of p are whole ones, and should be halves": lambda z, p, grad, stepsize: (
            moved := z + stepsize * (p + stepsize * grad(z)),
            p + stepsize * grad(z) + stepsize * grad(moved),
        ),
        "this is a step of Euler: all of it uses where the step began": lambda z, p, grad, stepsize: (
            z + stepsize * p,
            p + stepsize * grad(z),
        ),
        "the second half step uses the old gradient": lambda z, p, grad, stepsize: (None, p + stepsize * grad(z)),
        "the sign: p falls where log p(x, z) rises": lambda z, p, grad, stepsize: _naive_leapfrog(
            z, p, lambda at: -grad(at), stepsize
        ),
        "z moves with the old momentum, without its half step": lambda z, p, grad, stepsize: (z + stepsize * p, None),
    },
)


# Who is accepted


def acceptance(log_p, p, new_log_p, new_p):
    """Return probability (C,), with which each of C chains goes where its leapfrog steps have led.

    log_p        is log p(x, z) where the chain began, (C,), and p (C, J) its momentum there.
    new_log_p    is log p(x, z) where it ended, (C,), and may be NaN or infinite; new_p (C, J) is the momentum there.
    """
    raise NotImplementedError


def _library_acceptance(log_p, p, new_log_p, new_p):
    z = np.zeros_like(p)
    velocity = new_p - p  # one step of size 0 leaves z, and the target's gradients make p what it is to become

    def target(_):
        return new_log_p, 2 * velocity

    state = z, log_p, np.zeros_like(p)
    return (transition(target, state, p, np.zeros(len(p)), 1.0, 1)[1],)


def _energies(log_p, p, new_log_p, new_p):
    """Return how much the energy H = -log p(x, z) + ½ ‖p‖² rises."""
    return -new_log_p + 0.5 * (new_p**2).sum(axis=1) + log_p - 0.5 * (p**2).sum(axis=1)


ACCEPTANCE = Exercise(
    acceptance,
    title="who is accepted, in hybrid Monte Carlo",
    statement="""
        Exact motion would keep the energy H = -log p(x, z) + ½ ‖p‖². Leapfrog steps keep it nearly, and a chain goes
        where they lead with the probability

            min(1, exp(H_before - H_after))

        Return it for each chain. Where log p(x, z) is NaN or -∞ at the end, the chain has fallen off the world: its
        probability is 0. Nothing may overflow, and nothing may be NaN.
        """,
    results=("probability",),
    arguments=gaussians(log_p=(8,), p=(8, 3), new_log_p=(8,), new_p=(8, 3)),
    naive=lambda log_p, p, new_log_p, new_p: np.array(
        [
            min(1.0, np.exp(after - 0.5 * q @ q) / np.exp(before - 0.5 * k @ k))
            for before, k, after, q in zip(log_p, p, new_log_p, new_p, strict=True)
        ]
    ),
    library=_library_acceptance,
    exact_case="energies that rise by 0, ln 4 and -2000 give 1, ¼ and 1, and NaN and -∞ give 0",
    exact=lambda answer: (
        answer(
            log_p=np.zeros(5),
            p=np.zeros((5, 2)),
            new_log_p=np.array([0, -np.log(4), 2000, np.nan, -np.inf]),
            new_p=np.zeros((5, 2)),
        ),
        [1, 0.25, 1, 0, 0],
    ),
    hint="np.exp(np.minimum(0, …)) never overflows. NaN is not < 0, and not > 0 either: look for it with np.isfinite.",
    reading="hmc.html#hmc",
    mistakes={
        "the sign of the energy is wrong: an end with less of it has to be accepted": lambda *given, **arguments: (
            np.exp(np.minimum(0, _energies(**arguments))),
        ),
        "the momenta are missing: H holds ½ ‖p‖² too": lambda log_p, p, new_log_p, new_p: (
            np.exp(np.minimum(0, new_log_p - log_p)),
        ),
        "the ½ of ½ ‖p‖² is missing": lambda log_p, p, new_log_p, new_p: (
            np.exp(np.minimum(0, new_log_p - log_p + (p**2).sum(axis=1) - (new_p**2).sum(axis=1))),
        ),
        "the probability is not cut at 1": lambda **arguments: (np.exp(-_energies(**arguments)),),
    },
)
