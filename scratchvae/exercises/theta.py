"""Exercises on full variational Bayes: θ as a distribution with log σ, its KL, the bound (24), and local noise."""

import numpy as np

from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.exercises.layers import linears
from scratchvae.inference.full_vb import Posterior, theta_neg_kl
from scratchvae.nets.layers import Constant, LocalLinear
from scratchvae.nets.params import Params

OTHER = "right gradient of another function"
READ_AS_LOG_VAR = "log_sigma is read as log σ², and it is log σ"


# The draw of θ


def theta_backward(mu, log_sigma, zeta, dtheta):
    """Return (dmu, dlog_sigma) (P,), the gradients of the bound through θ = μ + σ ⊙ ζ.

    mu          is μ, the mean of the parameters, (P,).
    log_sigma   is log σ, and not log σ², (P,).
    zeta        is the noise ζ, (P,).
    dtheta      is the gradient of the bound with respect to the draw θ, (P,).
    """
    raise NotImplementedError


def posterior(mu, log_sigma):
    """Return the library's q(θ) with these μ and log σ, and α = 1."""
    q = Posterior(Params([Constant(name, len(mu)) for name in ("decoder", "log_sigma")], np.float64), None)
    q.mu[...] = mu
    q.log_sigma[...] = log_sigma
    return q


def _library_theta(mu, log_sigma, zeta, dtheta):
    q = posterior(mu, log_sigma)
    q.draw_backward(zeta, dtheta)
    return q.dmu, q.dlog_sigma


def _as_log_var(mu, log_sigma, zeta, dtheta):
    return None, 0.5 * dtheta * np.exp(0.5 * log_sigma) * zeta


THETA = Exercise(
    theta_backward,
    title="back through θ = μ + σ ⊙ ζ, with log σ (19), (23)",
    statement="""
        In appendix F the parameters of the decoder are a distribution too. A draw is θ = μ + σ ⊙ ζ. For z the encoder
        gives log σ²; for θ this library learns log σ. Return the gradients with respect to μ and to log σ, from
        dtheta = ∂bound/∂θ.
        """,
    results=("dmu", "dlog_sigma"),
    arguments=gaussians(mu=(7,), log_sigma=(7,), zeta=(7,), dtheta=(7,)),
    naive=lambda mu, log_sigma, zeta, dtheta: dtheta * (mu + np.exp(log_sigma) * zeta),
    library=_library_theta,
    exact_case="with σ = 2, ζ = 3 and dtheta = 1 they are 1 and 6",
    exact=lambda answer: (
        answer(mu=np.zeros(1), log_sigma=np.log([2.0]), zeta=np.full(1, 3.0), dtheta=np.ones(1)),
        [[1], [6]],
    ),
    hint="σ = exp(log σ) is its own derivative with respect to log σ. There is no ½ here.",
    reading="full-vb.html#eq-23",
    mistakes={
        f"{OTHER}: {READ_AS_LOG_VAR}": _as_log_var,
        "half of it: the ½ belongs to log σ², and log_sigma is log σ": lambda mu, log_sigma, zeta, dtheta: (
            None,
            0.5 * dtheta * np.exp(log_sigma) * zeta,
        ),
        "σ is missing: this is the derivative by σ, and the one by log σ is asked for": (
            lambda mu, log_sigma, zeta, dtheta: (None, dtheta * zeta)
        ),
        "ζ is missing: ∂θ/∂σ = ζ": lambda mu, log_sigma, zeta, dtheta: (None, dtheta * np.exp(log_sigma)),
    },
)


# Its KL


def theta_kl(mu, log_sigma, alpha):
    """Return (value, dmu, dlog_sigma): -KL(N(μ, σ²) ‖ N(0, α²)) in nats, one number, and its partials (P,).

    mu          is μ, (P,).
    log_sigma   is log σ, and not log σ², (P,).
    alpha       is α, the standard deviation of the prior, a number.
    """
    raise NotImplementedError


def _naive_theta_kl(mu, log_sigma, alpha):
    sigma = np.exp(log_sigma)
    return -sum(np.log(alpha / s) + (s**2 + m**2) / (2 * alpha**2) - 1 / 2 for m, s in zip(mu, sigma, strict=True))


def _kl_as_log_var(mu, log_sigma, alpha):
    value, dmu, dlog_sigma = theta_neg_kl(mu, 0.5 * log_sigma, alpha**2)
    return value, dmu, 0.5 * dlog_sigma


THETA_KL = Exercise(
    theta_kl,
    title="-KL of the parameters from their prior, with α (24)",
    statement="""
        The prior of the parameters is p(θ) = N(0, α²), and q(θ) = N(μ, σ²). Return -KL(q ‖ p), summed over all P
        parameters, and its partial derivatives with respect to μ and to log σ:

            -KL = ½ Σ_k (1 + log(σ_k²/α²) - (μ_k² + σ_k²)/α²)

        Mind that log σ² = 2 log σ.
        """,
    results=("value", "dmu", "dlog_sigma"),
    arguments=lambda generator: gaussians(mu=(7,), log_sigma=(7,))(generator) | {"alpha": 1.7},
    naive=_naive_theta_kl,
    library=lambda mu, log_sigma, alpha: theta_neg_kl(mu, log_sigma, alpha**2),
    exact_case="where q is the prior, μ = 0 and σ = α, all three are 0",
    exact=lambda answer: (
        np.concatenate(
            [np.atleast_1d(one) for one in answer(mu=np.zeros(2), log_sigma=np.full(2, np.log(3.0)), alpha=3.0)]
        ),
        np.zeros(5),
    ),
    hint="dσ²/dlog σ = 2 σ², and d log σ²/dlog σ = 2: the ½ before the sum cancels both.",
    reading="full-vb.html#eq-24",
    mistakes={
        READ_AS_LOG_VAR: _kl_as_log_var,
        "α is read as α²: the prior's variance is α²": lambda mu, log_sigma, alpha: theta_neg_kl(mu, log_sigma, alpha),
        "log α² is missing: a constant, which no gradient shows": lambda mu, log_sigma, alpha: (
            theta_neg_kl(mu, log_sigma, alpha**2)[0] + len(mu) * np.log(alpha),
            None,
            None,
        ),
        "half of it: d σ²/d log σ is 2 σ²": lambda mu, log_sigma, alpha: (
            None,
            None,
            0.5 * theta_neg_kl(mu, log_sigma, alpha**2)[2],
        ),
        "the sign: this is KL, and -KL is maximised": lambda mu, log_sigma, alpha: tuple(
            -one for one in theta_neg_kl(mu, log_sigma, alpha**2)
        ),
        "the mean over the P parameters, where the KL is their sum": lambda mu, log_sigma, alpha: tuple(
            one / len(mu) for one in theta_neg_kl(mu, log_sigma, alpha**2)
        ),
    },
    sizes={"P": 7},
)


# The bound of full variational Bayes


def full_vb_backward(mu, log_sigma, zeta, g, n_data):
    """Return (dmu, dlog_sigma) (P,), the gradients of the bound (24) from a minibatch, with α = 1.

    mu          is μ, (P,).
    log_sigma   is log σ, (P,).
    zeta        is the noise ζ behind the draw θ = μ + σ ⊙ ζ that all datapoints share, (P,).
    g           holds the gradient of each datapoint's bound with respect to θ, (M, P).
    n_data      is N, the number of datapoints.
    """
    raise NotImplementedError


def _full_vb(of_data, of_kl):
    """Return a function of the arguments that gives the data and the KL factors of their own, functions of M and N."""

    def gradient(mu, log_sigma, zeta, g, n_data):
        scale = of_data(len(g), n_data)
        share = of_kl(len(g), n_data)
        _, dmu, dlog_sigma = theta_neg_kl(mu, log_sigma, 1.0)
        total = scale * g.sum(axis=0)
        return total + share * dmu, total * np.exp(log_sigma) * zeta + share * dlog_sigma

    return gradient


def _library_full_vb(mu, log_sigma, zeta, g, n_data):
    q = posterior(mu, log_sigma)
    q.draw_backward(zeta, n_data / len(g) * g.sum(axis=0))
    q.neg_kl(gradient=True)
    return q.dmu, q.dlog_sigma


def _naive_full_vb(mu, log_sigma, zeta, g, n_data):
    theta = mu + np.exp(log_sigma) * zeta
    return n_data / len(g) * (g @ theta).sum() + _naive_theta_kl(mu, log_sigma, 1.0)


FULL_VB = Exercise(
    full_vb_backward,
    title="full variational Bayes: the gradient of (24)",
    statement="""
        The bound over the parameters, from a minibatch of M of the N datapoints that share one draw θ = μ + σ ⊙ ζ, is

            N/M Σ_i L(x_i; θ) + ½ Σ_k (1 + log σ_k² - μ_k² - σ_k²)                                    (24)

        The decoder has returned g_i = ∂L(x_i; θ)/∂θ for each datapoint. Return the gradients with respect to μ and to
        log σ. How often does the last sum count? In print, (24) has a stray (l) on it.
        """,
    results=("dmu", "dlog_sigma"),
    arguments=lambda generator: gaussians(mu=(4,), log_sigma=(4,), zeta=(4,), g=(5, 4))(generator) | {"n_data": 35},
    naive=_naive_full_vb,
    library=_library_full_vb,
    exact_case=(
        "with g = 0, μ = 1 and σ = 2 only the KL is left, once: -1 and -3; with ζ = 1 and N = 100 the two datapoints "
        "g = 1 and 3 add 200 and 400"
    ),
    exact=lambda answer: (
        [
            answer(mu=np.ones(1), log_sigma=np.log([2.0]), zeta=np.ones(1), g=g, n_data=100)
            for g in (np.zeros((2, 1)), np.array([[1.0], [3.0]]))
        ],
        [[[-1], [-3]], [[199], [397]]],
    ),
    hint="Let G = N/M Σ g_i. Then G - μ, and G ⊙ σ ⊙ ζ + 1 - σ².",
    reading="full-vb.html#eq-24",
    mistakes={
        "the KL of θ is counted N/M times, and not once": _full_vb(lambda M, N: N / M, lambda M, N: N / M),
        "N/M is missing: M datapoints stand for N": _full_vb(lambda M, N: 1, lambda M, N: 1),
        "the KL of θ is missing": _full_vb(lambda M, N: N / M, lambda M, N: 0),
        "the sign of the KL's part": _full_vb(lambda M, N: N / M, lambda M, N: -1),
        "the bounds are averaged over M, and N is missing": _full_vb(lambda M, N: 1 / M, lambda M, N: 1),
        "the KL's part is that of log σ²: with respect to log σ it is 1 - σ², without a ½": (
            lambda mu, log_sigma, zeta, g, n_data: (
                None,
                _full_vb(lambda M, N: N / M, lambda M, N: 0.5)(mu, log_sigma, zeta, g, n_data)[1],
            )
        ),
        "the ½ belongs to log σ²: ∂θ/∂log σ = σ ζ": lambda mu, log_sigma, zeta, g, n_data: (
            None,
            _full_vb(lambda M, N: 0.5 * N / M, lambda M, N: 1)(mu, log_sigma, zeta, g, n_data)[1],
        ),
    },
    sizes={"N": 35, "M": 5},
)


# Local reparameterisation


def local_backward(x, W_mu, W_log_sigma, zeta, dy):
    """Return (dx, dW_mu, dW_log_sigma), back through y = x W_μ + √(x² σ_W²) ⊙ ζ.

    x             holds a datapoint in each row, (M, n).
    W_mu          is the mean of the weights, (n, o), and W_log_sigma (n, o) is their log σ.
    zeta          is the noise ζ, one number for each datapoint and output, (M, o).
    dy            is the gradient of the bound with respect to y, (M, o).
    """
    raise NotImplementedError


def _library_local(x, W_mu, W_log_sigma, zeta, dy):
    mean, log_sigma = linears(W_mu, W_log_sigma)
    log_sigma.b[...] = -np.inf  # σ_b = 0: the exercise has no bias
    layer = LocalLinear(mean, log_sigma)
    layer.zeta = zeta
    layer.forward(x)
    return layer.backward(dy), mean.dW, log_sigma.dW


def _naive_local(x, W_mu, W_log_sigma, zeta, dy):
    y = np.array([[row @ W_mu[:, o] for o in range(W_mu.shape[1])] for row in x])
    sd = np.array([[np.sqrt(row**2 @ np.exp(W_log_sigma[:, o]) ** 2) for o in range(W_mu.shape[1])] for row in x])
    return dy * (y + sd * zeta)


def _local_off(x, W_mu, W_log_sigma, zeta, dy):
    """Return what ∂√v/∂v = ½/√v without its ½ gives."""
    dx, _, dW_log_sigma = _library_local(x, W_mu, W_log_sigma, zeta, dy)
    return 2 * dx - dy @ W_mu.T, None, 2 * dW_log_sigma


LOCAL = Exercise(
    local_backward,
    title="back through local noise",
    statement="""
        If every weight is Gaussian, a sum of products with them is Gaussian too. One may then draw the sum in place of
        the weights (Kingma, Salimans & Welling 2015, section 2.3), with new noise for every datapoint:

            y = x W_μ + √v ⊙ ζ,    v = x² σ_W²,    σ_W = exp(W_log_sigma)

        where x² and σ_W² are squares of each entry, and between them stands a product of matrices. Return the
        gradients with respect to x, W_μ and W_log_sigma.
        """,
    results=("dx", "dW_mu", "dW_log_sigma"),
    arguments=gaussians(x=(5, 4), W_mu=(4, 3), W_log_sigma=(4, 3), zeta=(5, 3), dy=(5, 3)),
    naive=_naive_local,
    library=_library_local,
    exact_case="with x = 1, μ = 5, σ = 2, ζ = 3 and dy = 1 they are 5 + 6, 1 and 6",
    exact=lambda answer: (
        answer(
            x=np.ones((1, 1)),
            W_mu=np.full((1, 1), 5.0),
            W_log_sigma=np.full((1, 1), np.log(2)),
            zeta=np.full((1, 1), 3.0),
            dy=np.ones((1, 1)),
        ),
        [[[11]], [[1]], [[6]]],
    ),
    hint="First dv = dy ⊙ ζ / (2 √v). Then v = x² σ² is an affine map of x² and σ²: ∂x²/∂x = 2x, ∂σ²/∂log σ = 2σ².",
    reading="local.html#local",
    mistakes={
        "the ½ of ∂√v/∂v = 1/(2 √v) is missing": _local_off,
        "what comes through v is missing: x moves the spread of y too": lambda x, W_mu, W_log_sigma, zeta, dy: (
            dy @ W_mu.T,
            None,
            None,
        ),
        "all weights of an output have the same noise: this is for y = x μ + (x σ) ⊙ ζ": (
            lambda x, W_mu, W_log_sigma, zeta, dy: (None, None, (x.T @ (dy * zeta)) * np.exp(W_log_sigma))
        ),
        "half of it: dσ²/dlog σ is 2 σ²": lambda x, W_mu, W_log_sigma, zeta, dy: (
            None,
            None,
            0.5 * _library_local(x, W_mu, W_log_sigma, zeta, dy)[2],
        ),
    },
    sizes={"M": 5},
)
