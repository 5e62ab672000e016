"""Exercises on the bound: the gradients of L^B and L^A for the encoder's outputs, and N/M with the prior."""

import numpy as np

from scratchvae.exercises.densities import naive_gaussian
from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.exercises.posterior import SIZES, backward
from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian

POSTERIOR = gaussians(mu=(5, 4), log_var=(5, 4), eps=(3, 5, 4), dz=(3, 5, 4))


# L^B


def bound_b_backward(mu, log_var, eps, dz):
    """Return (dmu, dlog_var) (M, J), the gradients of L^B, summed over the M datapoints.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε behind the draws z = μ + σ ⊙ ε, (L, M, J).
    dz        is ∂log p(x|z)/∂z at each draw, (L, M, J).
    """
    raise NotImplementedError


def _library_b(mu, log_var, eps, dz):
    return backward(mu, log_var, eps, dz / len(eps), 0.0, 1.0)


def _naive_b(mu, log_var, eps, dz):
    neg_kl = 0.5 * np.sum(1 + log_var - mu**2 - np.exp(log_var))
    z = mu + np.sqrt(np.exp(log_var)) * eps
    return neg_kl + np.sum(dz * z) / len(eps)  # a decoder whose log p(x|z) is linear in z


BOUND_B = Exercise(
    bound_b_backward,
    title="the gradient of L^B (7), (10)",
    statement="""
        The bound with the KL in closed form and L draws for each datapoint is

            L^B = ½ Σ_j (1 + log σ_j² - μ_j² - σ_j²) + 1/L Σ_l log p(x|z⁽ˡ⁾),    z⁽ˡ⁾ = μ + σ ⊙ ε⁽ˡ⁾

        The decoder has returned dz = ∂log p(x|z⁽ˡ⁾)/∂z⁽ˡ⁾, with no factor. Return the gradients of L^B with respect to
        μ and to log σ². Each has two parts: one through the KL, one through the draws. Where does the 1/L belong?
        """,
    results=("dmu", "dlog_var"),
    arguments=POSTERIOR,
    naive=_naive_b,
    library=_library_b,
    exact_case="with μ = 1, σ² = e and dz = 0 the KL is left, -1 and ½ (1 - e); draws with dz = 2, 4 add 3 and 3/2 √e",
    exact=lambda answer: (
        [
            answer(mu=np.ones((1, 1)), log_var=np.ones((1, 1)), eps=np.ones((2, 1, 1)), dz=dz)
            for dz in (np.zeros((2, 1, 1)), np.array([[[2.0]], [[4.0]]]))
        ],
        [[[[-1]], [[0.5 * (1 - np.e)]]], [[[2]], [[0.5 * (1 - np.e) + 1.5 * np.e**0.5]]]],
    ),
    hint="Through the KL: -μ and ½ (1 - σ²), once. Through the draws: as in `back through the draw`, with dz/L.",
    reading="vae.html#eq-10",
    mistakes={
        "1/L is missing: the reconstruction is a mean of L draws": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz, 0.0, 1.0
        ),
        "the KL is divided by L too: it stands outside the sum over draws": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz / len(eps), 0.0, 1 / len(eps)
        ),
        "the sign of the KL's part: the bound holds -KL": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz / len(eps), 0.0, -1.0
        ),
        "the KL's part is missing": lambda mu, log_var, eps, dz: backward(mu, log_var, eps, dz / len(eps)),
        "the ½ of ½ σ ε is missing, in the part through the draws": lambda mu, log_var, eps, dz: (
            None,
            2 * backward(mu, log_var, eps, dz / len(eps))[1] + 0.5 * (1 - np.exp(log_var)),
        ),
    },
    sizes=SIZES,
)


# L^A


def bound_a_backward(mu, log_var, eps, dz):
    """Return (dmu, dlog_var) (M, J), the gradients of L^A, summed over the M datapoints.

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    eps       is the noise ε behind the draws z = μ + σ ⊙ ε, (L, M, J).
    dz        is ∂log p(x, z)/∂z at each draw, through likelihood and prior, (L, M, J).
    """
    raise NotImplementedError


def _library_a(mu, log_var, eps, dz):
    return backward(mu, log_var, eps, dz / len(eps), -1 / len(eps))


def _naive_a(mu, log_var, eps, dz):
    z = mu + np.sqrt(np.exp(log_var)) * eps
    return np.mean(np.sum(dz * z, axis=-1) - naive_gaussian(z, mu, log_var), axis=0)  # log p(x, z) is linear in z here


def _with_partial(mu, log_var, eps, dz):
    """Return the gradient that adds the partial derivative of -log q to what comes through z by log p alone."""
    z = mu + np.exp(0.5 * log_var) * eps
    _, dmu, dlog_var = log_gaussian(z, mu, log_var)
    through_z = backward(mu, log_var, eps, dz / len(eps))
    return through_z[0] - dmu.mean(axis=0), through_z[1] - dlog_var.mean(axis=0)


BOUND_A = Exercise(
    bound_a_backward,
    title="the total derivative of L^A (6)",
    statement="""
        The bound with every term at the draws is

            L^A = 1/L Σ_l (log p(x, z⁽ˡ⁾) - log q(z⁽ˡ⁾|x)),    z⁽ˡ⁾ = μ + σ ⊙ ε⁽ˡ⁾

        The decoder and the prior have returned dz = ∂log p(x, z⁽ˡ⁾)/∂z⁽ˡ⁾, with no factor; -log q is not in it. Return
        the gradients of L^A with respect to μ and to log σ², with ε held.
        """,
    results=("dmu", "dlog_var"),
    arguments=POSTERIOR,
    naive=_naive_a,
    library=_library_a,
    exact_case="with dz = 0 the entropy is left, 0 and ½, whatever μ, σ and ε; with σ = ε = 1, dz = 2, 4 add 3 and 3/2",
    exact=lambda answer: (
        [
            answer(mu=np.ones((1, 1)), log_var=np.ones((1, 1)), eps=np.full((2, 1, 1), 3.0), dz=np.zeros((2, 1, 1))),
            answer(
                mu=np.ones((1, 1)), log_var=np.zeros((1, 1)), eps=np.ones((2, 1, 1)), dz=np.array([[[2.0]], [[4.0]]])
            ),
        ],
        [[[[0]], [[0.5]]], [[[3]], [[2]]]],
    ),
    hint="At a held ε, log q = -½ Σ (log 2π + log σ² + ε²). How does that depend on μ, and how on log σ²?",
    reading="vae.html#draw-back",
    mistakes={
        "log q has its partial derivative, with z held: without the way through z it is no total one": _with_partial,
        "the part through -log q is missing": lambda mu, log_var, eps, dz: backward(mu, log_var, eps, dz / len(eps)),
        "the sign of the part through log q: the bound holds -log q": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz / len(eps), 1 / len(eps)
        ),
        "1/L is missing: the bound is a mean of L draws": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz, -1.0
        ),
        "1/L is missing in the part through z": lambda mu, log_var, eps, dz: backward(
            mu, log_var, eps, dz, -1 / len(eps)
        ),
    },
    sizes=SIZES,
)


# N/M, and the prior of θ


def map_objective(theta, g, n_data):
    """Return (value, dtheta): the objective of all N datapoints from a minibatch, and its gradient (P,).

    theta    holds the parameters of the decoder, (P,).
    g        holds ∂L(x_i)/∂θ for each of the M datapoints of the minibatch, (M, P). L(x_i) is g_i·θ here.
    n_data   is N, the number of datapoints.
    """
    raise NotImplementedError


def _library_map(theta, g, n_data):
    log_prior, dlog_prior = log_standard_gaussian(theta)
    scale = n_data / len(g)
    return scale * (g @ theta).sum() + log_prior, scale * g.sum(axis=0) + dlog_prior


def _naive_map(theta, g, n_data):
    total = sum(row @ theta for row in g) * n_data / len(g)
    return total + np.log(np.prod(np.exp(-(theta**2) / 2) / np.sqrt(2 * np.pi)))


def _scaled(of_data, of_prior):
    """Return a function of the arguments that gives both parts of the objective factors of their own."""

    def wrong(theta, g, n_data):
        scale, prior = of_data(len(g), n_data), of_prior(len(g), n_data)
        value, dtheta = log_standard_gaussian(theta)
        return scale * (g @ theta).sum() + prior * value, scale * g.sum(axis=0) + prior * dtheta

    return wrong


def _over_a_partition(answer):
    """Return the mean over the minibatches of a partition, and the value for all data."""
    generator = np.random.default_rng(1)
    theta = generator.standard_normal(2)
    g = generator.standard_normal((6, 2))
    parts = [answer(theta=theta, g=g[rows], n_data=6) for rows in (slice(0, 2), slice(2, 4), slice(4, 6))]
    whole = answer(theta=theta, g=g, n_data=6)
    mean = np.concatenate([np.mean([np.atleast_1d(part[k]) for part in parts], axis=0) for k in range(2)])
    right = _library_map(theta, g, 6)
    return [mean, np.concatenate([np.atleast_1d(one) for one in whole])], [np.concatenate([[right[0]], right[1]])] * 2


MAP = Exercise(
    map_objective,
    title="N/M, and a prior that counts once (8)",
    statement="""
        A minibatch of M datapoints stands for all N: the sum of its bounds is scaled by N/M (8). The parameters θ of
        the decoder have the prior N(0, I), which section 5 adds to the bound. There is one θ and not N of them.

        To keep the rest short, the bound of datapoint i is g_i·θ here, so that g_i is its gradient. Return

            N/M Σ_i g_i·θ + log N(θ; 0, I)

        with log 2π, and its gradient with respect to θ.
        """,
    results=("value", "dtheta"),
    arguments=lambda generator: {
        "theta": generator.standard_normal(4),
        "g": generator.standard_normal((5, 4)),
        "n_data": 35,
    },
    naive=_naive_map,
    library=_library_map,
    exact_case="the mean over the minibatches of a partition is what all data at once give",
    exact=_over_a_partition,
    hint="Differentiate both terms by themselves. Only one of them has the factor N/M.",
    reading="experiments.html#prior",
    mistakes={
        "N/M is missing: M datapoints stand for N": _scaled(lambda M, N: 1, lambda M, N: 1),
        "the prior is counted N/M times, and not once": _scaled(lambda M, N: N / M, lambda M, N: N / M),
        "the prior is missing": _scaled(lambda M, N: N / M, lambda M, N: 0),
        "the sign of the prior": _scaled(lambda M, N: N / M, lambda M, N: -1),
        "this is the objective of one datapoint: N times too little": _scaled(lambda M, N: 1 / M, lambda M, N: 1 / N),
        "the bounds are averaged over M, and N is missing": _scaled(lambda M, N: 1 / M, lambda M, N: 1),
        "M/N stands where N/M should": _scaled(lambda M, N: M / N, lambda M, N: 1),
    },
    sizes={"N": 35, "M": 5},
)
