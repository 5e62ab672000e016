"""Exercises on gradient estimators: scores, a control variate, weights, sticking the landing, and DReG."""

import numpy as np

from scratchvae.exercises.densities import naive_gaussian
from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.exercises.posterior import SIZES, backward
from scratchvae.inference.distributions import LOG_2PI
from scratchvae.inference.objectives.importance_weighted import importance_weighted
from scratchvae.inference.posteriors.gaussian import Gaussian
from scratchvae.inference.score_function import control_coefficient, factors, score_weighted

WEIGHTS = {"K": 3, "M": 5}


# The score function


def score_gradient(f, z, mu, log_var):
    """Return (dmu, dlog_var) (J,), the score-function estimate of the gradient of E_q f(z).

    f         holds f(z) at each of S draws, (S,).
    z         holds the draws from q(z) = N(μ, σ² I), (S, J).
    mu        is μ, (J,), and log_var is log σ², (J,).
    """
    raise NotImplementedError


def _library_score(f, z, mu, log_var):
    _, _, *scores = factors(mu, log_var, (z - mu) * np.exp(-0.5 * log_var))
    return tuple(score_weighted(f[:, None], score) for score in scores)


def _of_two_draws(answer):
    """Return the gradient of E z, from ε = ±1, and what it is."""
    mu = np.array([0.7])
    log_var = np.array([np.log(4)])
    z = mu + 2 * np.array([[1.0], [-1.0]])
    return answer(f=z[:, 0], z=z, mu=mu, log_var=log_var), [[1], [0]]


SCORE = Exercise(
    score_gradient,
    title="the score-function gradient",
    statement="""
        Before (4) the paper names the naive gradient, which needs no derivative of f:

            ∇ E_q f(z) = E_q[f(z) ∇ log q(z)]

        Here q(z) = N(z; μ, σ² I). Return its estimate from S draws: the mean over the draws of f(z) times the score,
        which is the derivative of log q with respect to μ and to log σ², with z held.
        """,
    results=("dmu", "dlog_var"),
    arguments=gaussians(f=(6,), z=(6, 3), mu=(3,), log_var=(3,)),
    naive=lambda f, z, mu, log_var: f * naive_gaussian(z, mu, log_var) / len(f),
    library=_library_score,
    exact_case="for f(z) = z and the two draws with ε = ±1 it is 1 with respect to μ, and 0 with respect to log σ²",
    exact=_of_two_draws,
    hint="The partials of log q are those of the Gaussian log density: (z - μ)/σ², and ½ ((z - μ)²/σ² - 1).",
    reading="bound.html#score",
    mistakes={
        "summed over the S draws, where the estimate is their mean": lambda f, z, mu, log_var: tuple(
            len(f) * one for one in _library_score(f, z, mu, log_var)
        ),
        "the sign of the score with respect to μ: it is that of z - μ": lambda f, z, mu, log_var: (
            -_library_score(f, z, mu, log_var)[0],
            None,
        ),
        "this is the total derivative of log q: z is to be held": lambda f, z, mu, log_var: (
            0 * mu,
            np.full_like(mu, -0.5 * f.mean()),
        ),
        "right gradient of another function: the one with respect to log σ, which is twice that of log σ²": (
            lambda f, z, mu, log_var: (None, 2 * _library_score(f, z, mu, log_var)[1])
        ),
        "f is missing: the mean of the score alone is 0 on average": lambda f, z, mu, log_var: _library_score(
            np.ones_like(f), z, mu, log_var
        ),
    },
    sizes={"S": 6, "J": 3},
)


# A control variate


def control_variate(f, score, other_f, other_score):
    """Return (a, gradient) (J,): the coefficient of a control variate, and the estimate that it corrects.

    f             holds f(z) at S draws, (S,), and score (S, J) holds h = ∇ log q(z) there.
    other_f       holds f(z) at S other draws, (S,), and other_score (S, J) holds h there.
    """
    raise NotImplementedError


def _library_variate(f, score, other_f, other_score):
    a = control_coefficient(other_f[:, None], other_score)
    return a, score_weighted(f[:, None] - a, score)


def _naive_variate(f, score, other_f, other_score):
    a = np.array([(h * h * other_f).sum() / (h * h).sum() for h in other_score.T])
    return a, np.array([(h * (f - a[j])).sum() / len(f) for j, h in enumerate(score.T)])


VARIATE = Exercise(
    control_variate,
    title="a control variate for the score",
    statement="""
        The score h has the mean 0, so that h f and h (f - a) have the same mean for any number a that does not depend
        on the draw. The variance of each component is least at

            a = Cov(h f, h) / Var h = E[h² f] / E[h²]

        Estimate a for each component from the other draws, with h for the mean of which 0 is known. Return it, and the
        mean of h (f - a) over your own draws.
        """,
    results=("a", "gradient"),
    arguments=gaussians(f=(6,), score=(6, 3), other_f=(6,), other_score=(6, 3)),
    naive=_naive_variate,
    library=_library_variate,
    exact_case="where f is 7 at the other draws a is 7, and for an f of 7 or 8 the estimate is 0 or the mean of h",
    exact=lambda answer: (
        [
            answer(f=np.full(4, f), score=np.eye(4) + 1, other_f=np.full(4, 7.0), other_score=np.eye(4) + 2)
            for f in (7.0, 8.0)
        ],
        [[[7] * 4, [0] * 4], [[7] * 4, [1.25] * 4]],
    ),
    hint="weight = other_score², and a is the mean of other_f with these weights, column by column.",
    reading="black-box.html#black-box",
    mistakes={
        "a comes from the draws that it corrects: then it depends on them, and the mean changes": (
            lambda f, score, other_f, other_score: _library_variate(f, score, f, score)
        ),
        "a is the mean of f: that is the best baseline only where h² and f are independent": (
            lambda f, score, other_f, other_score: (
                np.full(score.shape[1], other_f.mean()),
                (score * (f - other_f.mean())[:, None]).mean(axis=0),
            )
        ),
        "the sign of the correction": lambda f, score, other_f, other_score: (
            None,
            score_weighted(f[:, None] + _library_variate(f, score, other_f, other_score)[0], score),
        ),
        "summed over the S draws, where the estimate is their mean": lambda f, score, other_f, other_score: (
            None,
            len(f) * _library_variate(f, score, other_f, other_score)[1],
        ),
        "the score is not squared in a": lambda f, score, other_f, other_score: (
            (other_score * other_f[:, None]).sum(axis=0) / other_score.sum(axis=0),
            None,
        ),
    },
    sizes={"S": 6},
)


# The importance-weighted bound


def log_mean_weights(log_w):
    """Return (bound, dlog_w): log 1/K Σ_k w_k (M,), and its derivative by each log w_k (K, M).

    log_w   holds log w_k = log p(x, z_k) - log q(z_k|x) for K draws of each datapoint, (K, M). It may be ±1000.
    """
    raise NotImplementedError


class _Given:
    """Stands for the encoder and the decoder of one datapoint whose log weights (K, 1) are given."""

    def __init__(self, log_w):
        self.log_w = log_w

    def draw(self, x, eps):
        """Return z = 0 and the log q at which the log weights are those that are given."""
        return np.zeros((*self.log_w.shape, 1)), -0.5 * LOG_2PI - self.log_w

    def log_prob(self, x, z, gradient=True):
        """Return log p(x|z) = 0."""
        return np.zeros(self.log_w.shape)

    def backward(self, dz_or_weight, dlog_q=None):
        """Keep what the decoder gets, ∂bound/∂log w; the encoder, which gets ∂bound/∂log q too, keeps nothing."""
        if dlog_q is None:
            self.dlog_w = dz_or_weight
        return np.zeros((*self.log_w.shape, 1))


def _library_weights(log_w):
    rows = [_Given(one[:, None]) for one in log_w.T]
    bound = [importance_weighted(row, row, None, None, 1.0) for row in rows]
    return np.array(bound), np.concatenate([row.dlog_w for row in rows], axis=1)


WEIGHTED = Exercise(
    log_mean_weights,
    title="the importance-weighted bound and its weights",
    statement="""
        The importance-weighted bound takes log p(x) from K draws at once:

            L_K = log 1/K Σ_k w_k,    log w_k = log p(x, z_k) - log q(z_k|x)

        Return it for each datapoint, and its derivative with respect to each log w_k. These derivatives say how much
        each draw counts in the gradient. log w is of the size of -1000 for an image: nothing may overflow, and not
        every w may become 0.
        """,
    results=("bound", "dlog_w"),
    arguments=gaussians(log_w=(3, 5)),
    naive=lambda log_w: np.log(sum(np.exp(one) for one in log_w) / len(log_w)),
    library=_library_weights,
    exact_case="where all K = 4 log w are -1000, or all 1000, each counts ¼; where only the last is 1000, it counts 1",
    exact=lambda answer: (
        np.vstack(answer(log_w=np.array([[-1000.0, 1000, -1000]] * 3 + [[-1000, 1000, 1000]]))),
        [[-1000, 1000, 1000 - np.log(4)], *[[0.25, 0.25, 0]] * 3, [0.25, 0.25, 1]],
    ),
    hint="Take the largest log w out of the sum first. The derivative is w_k / Σ w: the weights sum to 1.",
    reading="importance.html#iwae",
    mistakes={
        "log and mean are exchanged: this is the mean of log w, the bound (2)": lambda log_w: (
            log_w.mean(axis=0),
            np.full_like(log_w, 1 / len(log_w)),
        ),
        "1/K is missing: this is the log of the sum": lambda log_w: (
            _library_weights(log_w)[0] + np.log(len(log_w)),
            None,
        ),
        "the weights are not divided by their sum": lambda log_w: (None, np.exp(log_w)),
        "the weights sum to K, and not to 1": lambda log_w: (None, len(log_w) * _library_weights(log_w)[1]),
        "the mean is over the datapoints, and should be over the draws": lambda log_w: (
            None,
            _library_weights(log_w.T)[1].T,
        ),
    },
    sizes=WEIGHTS,
)


# Sticking the landing


def stl_backward(mu, log_var, eps, dz):
    """Return (dmu, dlog_var) (M, J), the gradients of L^A that go through z alone.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε behind the draws z = μ + σ ⊙ ε, (L, M, J).
    dz        is ∂log p(x, z)/∂z at each draw, (L, M, J). -log q(z|x) is not in it.
    """
    raise NotImplementedError


def _library_stl(mu, log_var, eps, dz):
    q = Gaussian()
    q.draw(eps, mu, log_var)
    return q.backward((dz - q.grad_z()) / len(eps), 0.0, 0.0)


def _naive_stl(mu, log_var, eps, dz, held):
    z = mu + np.sqrt(np.exp(log_var)) * eps
    return (np.sum(dz * z, axis=-1) - naive_gaussian(z, held["mu"], held["log_var"])) / len(eps)


def _at_the_posterior(answer):
    eps = np.array([[[1.5, -0.5]], [[0.3, 2.0]]])
    log_var = np.array([[0.0, 1.0]])
    at_it = answer(mu=np.ones((1, 2)), log_var=log_var, eps=eps, dz=-eps * np.exp(-0.5 * log_var))
    beside = answer(mu=np.ones((1, 2)), log_var=log_var, eps=eps, dz=(1 - eps) * np.exp(-0.5 * log_var))
    sigma = np.exp(0.5 * log_var)
    return [at_it, beside], [np.zeros((2, 1, 2)), [1 / sigma, 0.5 * eps.mean(axis=0)]]


STL = Exercise(
    stl_backward,
    title="sticking the landing",
    statement="""
        The gradient of L^A has a part that is 0 on average: what comes from log q(z|x) where z is held. Sticking the
        landing leaves it out. The gradient then goes through z alone, with φ held inside log q:

            1/L Σ_l ∇_z (log p(x, z) - log q(z|x)) · ∂z/∂φ

        Return it with respect to μ and to log σ². You have to add ∇_z of -log q to dz yourself.
        """,
    results=("dmu", "dlog_var"),
    arguments=gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4), dz=(3, 5, 4)),
    naive=_naive_stl,
    library=_library_stl,
    exact_case=(
        "where q is the posterior, dz is ∇_z log q = -ε/σ, and the gradient is 0 in every draw; with 1/σ added to dz "
        "it is 1/σ, and half the mean of ε"
    ),
    exact=_at_the_posterior,
    hint="∇_z log q = -(z - μ)/σ² = -ε/σ. Add its negative to dz, and go back through the draw.",
    reading="importance.html#stl",
    mistakes={
        "right gradient of another function: the score of log q is left in, as in L^A": (
            lambda mu, log_var, eps, dz: backward(mu, log_var, eps, dz / len(eps), -1 / len(eps))
        ),
        "-log q is missing altogether: leave out its score, and keep what it adds through z": (
            lambda mu, log_var, eps, dz: backward(mu, log_var, eps, dz / len(eps))
        ),
        "the sign of ∇_z log q": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, (dz - eps * np.exp(-0.5 * log_var)) / len(eps)
        ),
        "∇_z log q is taken as -ε/σ²: (z - μ)/σ² is ε/σ": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, (dz + eps * np.exp(-log_var)) / len(eps)
        ),
        "1/L is missing: the bound is a mean of L draws": lambda mu, log_var, eps, dz: tuple(
            len(eps) * one for one in _library_stl(mu, log_var, eps, dz)
        ),
    },
    sizes=SIZES,
)


# DReG


def dreg_backward(mu, log_var, eps, log_w, dz):
    """Return (dmu, dlog_var) (M, J), the doubly reparameterised gradients of L_K.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε behind the draws z = μ + σ ⊙ ε, (K, M, J).
    log_w     holds the log weights of the draws, (K, M).
    dz        is ∂log w/∂z at each draw, with φ held in log q, (K, M, J).
    """
    raise NotImplementedError


def _dreg(weight):
    """Return a function of the arguments that goes back through the draws with a weight (K, M) made of w̃."""

    def gradient(mu, log_var, eps, log_w, dz):
        share = _library_weights(log_w)[1]
        return backward(mu, log_var, eps, weight(share)[..., None] * dz)

    return gradient


def _naive_dreg(mu, log_var, eps, log_w, dz):
    share = np.exp(log_w) / np.exp(log_w).sum(axis=0)
    return share**2 * np.sum(dz * (mu + np.sqrt(np.exp(log_var)) * eps), axis=-1)


DREG = Exercise(
    dreg_backward,
    title="DReG, the doubly reparameterised gradient",
    statement="""
        The gradient of the importance-weighted bound L_K for φ drowns in noise as K grows. If its score is
        reparameterised once more, what is left goes through z alone:

            ∇_φ L_K = Σ_k w̃_k² ∂log w_k/∂z_k · ∂z_k/∂φ,    w̃_k = w_k / Σ w

        Return it with respect to μ and to log σ², summed over the datapoints. dz = ∂log w_k/∂z_k is given.
        """,
    results=("dmu", "dlog_var"),
    arguments=gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4), log_w=(3, 5), dz=(3, 5, 4)),
    naive=_naive_dreg,
    library=_dreg(lambda share: share * share),
    exact_case="with K = 2 weights of e⁻⁹⁰⁰ or of e⁹⁰⁰ and dz = ε = σ = 1, dmu is 2 · ¼ and dlog_var is half of that",
    exact=lambda answer: (
        answer(
            mu=np.zeros((2, 1)),
            log_var=np.zeros((2, 1)),
            eps=np.ones((2, 2, 1)),
            log_w=np.array([[-900.0, 900.0]] * 2),
            dz=np.ones((2, 2, 1)),
        ),
        [[[0.5]] * 2, [[0.25]] * 2],
    ),
    hint="Compute w̃ safely, square it, multiply dz by it, and go back through the draw with a sum over K.",
    reading="importance.html#dreg",
    mistakes={
        "the weights are not squared: one w̃ is from L_K, the other from its score": _dreg(lambda share: share),
        "the weights are missing: each draw counts 1/K": _dreg(lambda share: np.full_like(share, 1 / len(share))),
        "the squares are divided by their sum, and should not be": _dreg(
            lambda share: share**2 / (share**2).sum(axis=0)
        ),
        "averaged over the K draws too: the weights sum to 1 already": _dreg(lambda share: share**2 / len(share)),
        "the weight is w̃ (1 - w̃), which belongs to the score": _dreg(lambda share: share * (1 - share)),
    },
    sizes=WEIGHTS,
)
