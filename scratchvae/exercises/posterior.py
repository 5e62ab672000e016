"""Exercises on the posterior: the draw z = g(ε, x), the way back through it, and log q at the draw."""

import numpy as np

from scratchvae.exercises.densities import READ_AS_LOG_SIGMA, naive_gaussian
from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.inference.distributions import log_gaussian
from scratchvae.inference.posteriors.full import FullGaussian
from scratchvae.inference.posteriors.gaussian import Gaussian

SIZES = {"L": 3, "M": 5}


def backward(mu, log_var, eps, dz, dlog_q=0.0, dneg_kl=0.0):
    """Return ∂bound/∂μ and ∂bound/∂log σ² by the library's Gaussian posterior."""
    q = Gaussian()
    q.draw(eps, mu, log_var)
    return q.backward(dz, dlog_q, dneg_kl)


# The draw


def draw(mu, log_var, eps):
    """Return z (L, M, J), L draws from N(μ, σ² I) for each of M datapoints.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε, drawn from N(0, I), (L, M, J).
    """
    raise NotImplementedError


DRAW = Exercise(
    draw,
    title="a draw z = μ + σ ⊙ ε, from log σ²",
    statement="""
        The noise ε comes from outside, and the draw is a function of it and of what the encoder gives (4), (10):

            z = μ + σ ⊙ ε

        The encoder gives log σ². Take care that σ is the standard deviation, and not the variance.
        """,
    results=("z",),
    arguments=gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4)),
    naive=lambda mu, log_var, eps: np.stack([mu + np.sqrt(np.exp(log_var)) * one for one in eps]),
    library=lambda mu, log_var, eps: (Gaussian().draw(eps, mu, log_var)[0],),
    exact_case="with μ = 1, σ² = 4 and ε = 3, z is 7",
    exact=lambda answer: (
        answer(mu=np.ones((1, 1)), log_var=np.full((1, 1), np.log(4)), eps=np.full((1, 1, 1), 3.0)),
        7,
    ),
    hint="σ = √σ² = exp(½ log σ²). NumPy broadcasts (M, J) against (L, M, J).",
    reading="vae.html#eq-9",
    mistakes={
        "it draws from another posterior: σ is taken as exp(log σ²), which is the variance": lambda mu, log_var, eps: (
            mu + np.exp(log_var) * eps,
        ),
        "σ is taken as log σ² itself, without the exponential": lambda mu, log_var, eps: (mu + log_var * eps,),
        "σ is divided by, and should be multiplied by": lambda mu, log_var, eps: (mu + np.exp(-0.5 * log_var) * eps,),
    },
)


def draw_backward(mu, log_var, eps, dz):
    """Return (dmu, dlog_var) (M, J), the gradients of the bound through the draws z = μ + σ ⊙ ε.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε, (L, M, J).
    dz        is the gradient of the bound with respect to z, (L, M, J).
    """
    raise NotImplementedError


DRAW_BACKWARD = Exercise(
    draw_backward,
    title="back through the draw",
    statement="""
        The decoder has returned dz = ∂bound/∂z for each of the L draws z = μ + σ ⊙ ε of a datapoint. Return the
        gradients with respect to μ and to log σ². The noise is held.

        All L draws of a datapoint read the same μ and the same log σ². Each of them moves the bound.
        """,
    results=("dmu", "dlog_var"),
    arguments=gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4), dz=(3, 5, 4)),
    naive=lambda mu, log_var, eps, dz: sum(
        one * (mu + np.sqrt(np.exp(log_var)) * e) for one, e in zip(dz, eps, strict=True)
    ),
    library=lambda mu, log_var, eps, dz: backward(mu, log_var, eps, dz),
    exact_case="with one draw, σ = 1, ε = 1 and dz = 1, dmu is 1 and dlog_var is ½",
    exact=lambda answer: (
        answer(mu=np.zeros((1, 1)), log_var=np.zeros((1, 1)), eps=np.ones((1, 1, 1)), dz=np.ones((1, 1, 1))),
        [[[1]], [[0.5]]],
    ),
    hint="∂σ/∂log σ² = ½ σ, since σ = exp(½ log σ²). A number that is read L times has a sum of L terms.",
    reading="vae.html#draw-back",
    mistakes={
        "averaged over the L draws, each of which moves the bound: sum them": lambda mu, log_var, eps, dz: tuple(
            one / len(eps) for one in backward(mu, log_var, eps, dz)
        ),
        "right gradient of another function: the one with respect to log σ, which is twice that of log σ²": (
            lambda mu, log_var, eps, dz: (None, 2 * backward(mu, log_var, eps, dz)[1])
        ),
        "σ² stands where σ should: σ = exp(½ log σ²)": lambda mu, log_var, eps, dz: (
            None,
            0.5 * (dz * eps).sum(axis=0) * np.exp(log_var),
        ),
        "ε is missing: ∂z/∂σ = ε": lambda mu, log_var, eps, dz: (None, 0.5 * dz.sum(axis=0) * np.exp(0.5 * log_var)),
    },
    sizes=SIZES,
)


# log q at the draw


def log_q_backward(mu, log_var, eps):
    """Return (log_q, dmu, dlog_var): log q(z|x) (L, M) in nats at the draws, and its total derivatives (M, J).

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε behind the draws z = μ + σ ⊙ ε, (L, M, J).
    """
    raise NotImplementedError


def _library_log_q(mu, log_var, eps):
    q = Gaussian()
    _, log_q = q.draw(eps, mu, log_var)
    return log_q, *q.backward(np.zeros_like(eps), 1.0, 0.0)


def _partial_log_q(mu, log_var, eps):
    _, dmu, dlog_var = log_gaussian(mu + np.exp(0.5 * log_var) * eps, mu, log_var)
    return None, dmu.sum(axis=0), dlog_var.sum(axis=0)


LOG_Q = Exercise(
    log_q_backward,
    title="log q at the draw, and its total derivative",
    statement="""
        L^A (6) needs log q(z|x) at its own draws z = μ + σ ⊙ ε. Return it for each draw and datapoint, and the
        derivatives of the sum of all of them with respect to μ and to log σ², while ε is held.

        log q depends on μ in two ways: directly, and through z. The total derivative has both. Put z = μ + σ ⊙ ε into
        the density first, and see what is left of μ.
        """,
    results=("log_q", "dmu", "dlog_var"),
    arguments=gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4)),
    naive=lambda mu, log_var, eps: naive_gaussian(mu + np.sqrt(np.exp(log_var)) * eps, mu, log_var),
    library=_library_log_q,
    exact_case="with σ = 1, ε = 0 and one latent, log q is -½ ln 2π; the derivatives are 0 and -½ at any ε",
    exact=lambda answer: (
        [
            answer(mu=np.ones((1, 1)), log_var=np.zeros((1, 1)), eps=np.zeros((1, 1, 1)))[0].item(),
            *map(np.sum, answer(mu=np.ones((1, 1)), log_var=np.ones((1, 1)), eps=np.full((1, 1, 1), 3.0))[1:]),
        ],
        [-0.5 * np.log(2 * np.pi), 0, -0.5],
    ),
    hint="(z - μ)²/σ² = ε², which depends on nothing that is learned.",
    reading="vae.html#draw-back",
    mistakes={
        "this is the partial derivative, with z held: the total one counts the way through z as well": _partial_log_q,
        "averaged over the L draws: the sum is asked for": lambda mu, log_var, eps: (
            None,
            None,
            np.full_like(mu, -0.5),
        ),
        READ_AS_LOG_SIGMA: lambda mu, log_var, eps: (
            _library_log_q(mu, 2 * log_var, eps)[0],
            None,
            np.full_like(mu, -1.0 * len(eps)),
        ),
        "the sign: this is -log q, an entropy": lambda mu, log_var, eps: tuple(
            -one for one in _library_log_q(mu, log_var, eps)
        ),
    },
    sizes=SIZES,
)


# Full covariance


def full_draw(mu, factor, eps):
    """Return (z, log_q): draws from N(μ, F Fᵀ) (L, M, J), and log q(z|x) (L, M) in nats.

    mu       is μ, (M, J).
    factor   holds for each datapoint the Cholesky factor F, a lower triangle with a positive diagonal, (M, J, J).
    eps      is the noise ε, (L, M, J).
    """
    raise NotImplementedError


def _full_arguments(generator):
    factor = np.tril(generator.standard_normal((5, 4, 4)), -1) + np.eye(4) * (0.5 + generator.random((5, 4, 1)))
    return {"mu": generator.standard_normal((5, 4)), "factor": factor, "eps": generator.standard_normal((3, 5, 4))}


def _naive_full(mu, factor, eps):
    z = np.empty(eps.shape)
    log_q = np.empty(eps.shape[:2])
    for draw, row in np.ndindex(log_q.shape):
        covariance = factor[row] @ factor[row].T
        d = factor[row] @ eps[draw, row]
        z[draw, row] = mu[row] + d
        square = d @ np.linalg.inv(covariance) @ d
        log_q[draw, row] = -0.5 * (np.log(np.linalg.det(2 * np.pi * covariance)) + square)
    return z, log_q


def _library_full(mu, factor, eps):
    J = mu.shape[1]
    q = FullGaussian()
    q.outputs(J)
    lower = np.concatenate([factor[:, i, :i] for i in range(J)], axis=1)
    return q.draw(eps, mu, 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)), lower)


def _full_off(mu, factor, eps, count):
    """Return log q with log|F| counted `count` times."""
    log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    return None, _library_full(mu, factor, eps)[1] + (1 - count) * log_det


FULL = Exercise(
    full_draw,
    title="a posterior with full covariance",
    statement="""
        The covariance of q(z|x) need not be diagonal. With its Cholesky factor F, F Fᵀ being the covariance, a draw is

            z = μ + F ε

        Return the draws and log N(z; μ, F Fᵀ) at them. Nothing has to be inverted: ε = F⁻¹ (z - μ) is there already,
        and the determinant of a triangle is the product of its diagonal.
        """,
    results=("z", "log_q"),
    arguments=_full_arguments,
    naive=_naive_full,
    library=_library_full,
    exact_case="with one latent, F = 2, μ = 1 and ε = 3, z is 7 and log q is -½ ln 2π - ln 2 - 9/2",
    exact=lambda answer: (
        [one.item() for one in answer(mu=np.ones((1, 1)), factor=np.full((1, 1, 1), 2.0), eps=np.full((1, 1, 1), 3.0))],
        [7, -0.5 * np.log(2 * np.pi) - np.log(2) - 4.5],
    ),
    hint="log|F Fᵀ| = 2 log|F|, and the 2 meets a ½. For z: (factor @ eps[..., None])[..., 0].",
    reading="reparameterise.html#location-scale",
    mistakes={
        "Fᵀ stands where F should": lambda mu, factor, eps: (
            mu + (factor.swapaxes(1, 2) @ eps[..., None])[..., 0],
            None,
        ),
        "the log-determinant is missing": lambda mu, factor, eps: _full_off(mu, factor, eps, 0),
        "log|F| counts twice: ½ log|F Fᵀ| is log|F|": lambda mu, factor, eps: _full_off(mu, factor, eps, 2),
        "log|F| counts half: ½ log|F Fᵀ| is log|F|": lambda mu, factor, eps: _full_off(mu, factor, eps, 0.5),
        "the sign of the log-determinant": lambda mu, factor, eps: _full_off(mu, factor, eps, -1),
    },
    sizes=SIZES,
)
