"""Exercises on log densities with their partials: binary pixels, the Gaussian, the prior, and the KL."""

import numpy as np

from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.inference.distributions import gaussian_neg_kl, log_bernoulli, log_gaussian, log_standard_gaussian

BY_THE_VARIANCE = "this is the derivative by σ², and the one by log σ² is asked for: it is σ² times as much"
READ_AS_LOG_SIGMA = "log_var is read as log σ, and it is log σ²"


def naive_gaussian(x, mu, log_var):
    """Return log N(x; μ, σ² I) (M,) as the logarithm of a product of densities."""
    density = np.exp(-((x - mu) ** 2) / (2 * np.exp(log_var))) / np.sqrt(2 * np.pi * np.exp(log_var))
    return np.log(density.prod(axis=-1))


# Binary pixels


def bernoulli(x, logits):
    """Return (log_p, dlogits): log p(x) (M,) in nats, and its derivative by the logits (M, D).

    x        holds the pixels, (M, D), each 0 or 1 or in between.
    logits   are the a in y = 1/(1 + e⁻ᵃ), (M, D), where y is the probability of a 1.
    """
    raise NotImplementedError


def _bernoulli_arguments(generator):
    return {"x": generator.random((5, 3)).round(1), "logits": generator.standard_normal((5, 3))}


def _naive_bernoulli(x, logits):
    y = 1 / (1 + np.exp(-logits))
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


BERNOULLI = Exercise(
    bernoulli,
    title="binary pixels, from logits (11)",
    statement="""
        The decoder gives for each pixel a number a, its logit, and the probability of a 1 is y = σ(a) = 1/(1 + e⁻ᵃ).
        Return the log density of each row, which is a sum over its D pixels, and its derivative with respect to a:

            log p(x) = Σ_i (x_i log y_i + (1 - x_i) log(1 - y_i))                                     (11)

        Take the logarithms of y and 1 - y by hand first. What is left is finite at every a, and its derivative is
        short: one subtraction.
        """,
    results=("log_p", "dlogits"),
    arguments=_bernoulli_arguments,
    naive=_naive_bernoulli,
    library=log_bernoulli,
    exact_case="at a logit of 0 a pixel costs ln 2, and at ±800 it costs 0 where it is right and 800 where it is wrong",
    exact=lambda answer: (
        answer(x=np.array([[1.0], [1], [0], [0], [1]]), logits=np.array([[0.0], [800], [-800], [800], [-800]]))[0],
        [-np.log(2), 0, 0, -800, -800],
    ),
    hint="With s = log(1 + eᵃ): log y = a - s and log(1 - y) = -s. What is x (a - s) - (1 - x) s?",
    reading="networks.html#eq-11",
    mistakes={
        "this is the derivative by y, and the one by a is asked for: σ' = y (1 - y) is missing": lambda x, logits: (
            None,
            (x - 1 / (1 + np.exp(-logits))) * (1 + np.exp(-logits)) * (1 + np.exp(logits)),
        ),
        "averaged over the D pixels, where log p(x) is their sum": lambda x, logits: (
            _naive_bernoulli(x, logits) / x.shape[1],
            log_bernoulli(x, logits)[1] / x.shape[1],
        ),
        "σ is left out of y: this is x - a": lambda x, logits: (None, x - logits),
    },
    sizes={"D": 3, "M": 5},
)


# The Gaussian


def gaussian(x, mu, log_var):
    """Return (log_p, dmu, dlog_var): log N(x; μ, σ² I) (M,) in nats, and its partials (M, D).

    x         holds the datapoints, (M, D).
    mu        is μ, the mean of each entry, (M, D).
    log_var   is log σ², the logarithm of the variance of each entry, (M, D).
    """
    raise NotImplementedError


def _gaussian_of_log_sigma(x, mu, log_var):
    log_p, dmu, dlog_sigma2 = log_gaussian(x, mu, 2 * log_var)
    return log_p, dmu, 2 * dlog_sigma2


GAUSSIAN = Exercise(
    gaussian,
    title="the Gaussian log density (9), (12)",
    statement="""
        Return the log density of each row under independent Gaussians, and its partial derivatives with respect to μ
        and to log σ², entry by entry:

            log N(x; μ, σ² I) = -½ Σ_i (log 2π + log σ_i² + (x_i - μ_i)²/σ_i²)

        The network gives log σ², which may be any number. σ² is its exponential, so that ∂σ²/∂log σ² = σ².
        """,
    results=("log_p", "dmu", "dlog_var"),
    arguments=gaussians(x=(5, 3), mu=(5, 3), log_var=(5, 3)),
    naive=naive_gaussian,
    library=log_gaussian,
    exact_case="at x = μ and σ = 1 it is -½ D ln 2π, and ∂/∂log σ² is -½ in every entry",
    exact=lambda answer: (
        [np.sum(one) for one in answer(x=np.ones((1, 560)), mu=np.ones((1, 560)), log_var=np.zeros((1, 560)))],
        [-514.6055785946166, 0, -280],
    ),
    hint="Call v = log σ². Then -½ (v + d² e⁻ᵛ) has the derivative -½ (1 - d² e⁻ᵛ) by v. What is d's by μ?",
    reading="vae.html#eq-9",
    mistakes={
        READ_AS_LOG_SIGMA: _gaussian_of_log_sigma,
        "the ½ is missing: this is twice the right one": lambda x, mu, log_var: tuple(
            2 * one for one in log_gaussian(x, mu, log_var)
        ),
        BY_THE_VARIANCE: lambda x, mu, log_var: (
            None,
            None,
            log_gaussian(x, mu, log_var)[2] * np.exp(-log_var),
        ),
        "this is ∂/∂x, which has the other sign": lambda x, mu, log_var: (
            None,
            -log_gaussian(x, mu, log_var)[1],
            None,
        ),
        "log 2π is missing: a constant, which no gradient shows": lambda x, mu, log_var: (
            log_gaussian(x, mu, log_var)[0] + 0.5 * x.shape[1] * np.log(2 * np.pi),
            None,
            None,
        ),
    },
    sizes={"D": 3, "M": 5},
)


# The prior


def prior(z):
    """Return (log_p, dz): log N(z; 0, I) (M,) in nats, and its gradient with respect to z (M, J).

    z   holds the latents, (M, J).
    """
    raise NotImplementedError


def _integral(answer):
    z = np.linspace(-10, 10, 401)[:, None]
    return np.exp(answer(z=z)[0]).sum() * 0.05, 1


PRIOR = Exercise(
    prior,
    title="the standard Gaussian prior",
    statement="""
        The prior of the latents is p(z) = N(0, I). Return log p(z) for each row, a sum over its J latents, and the
        gradient with respect to z: how much further up the hill of the prior z can go.

            log N(z; 0, I) = -½ Σ_j (log 2π + z_j²)
        """,
    results=("log_p", "dz"),
    arguments=gaussians(z=(5, 3)),
    naive=lambda z: np.log((np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)).prod(axis=1)),
    library=log_standard_gaussian,
    exact_case="the density of one latent integrates to 1, by the trapezoid rule from -10 to 10",
    exact=_integral,
    hint="Only z_j² depends on z_j, and the density is largest at 0: the gradient leads there.",
    reading="sgvb.html#eq-6",
    mistakes={
        "the ½ is missing: this is twice the right one": lambda z: tuple(2 * one for one in log_standard_gaussian(z)),
        "log 2π is missing: a constant, which no gradient shows": lambda z: (-0.5 * (z * z).sum(axis=1), None),
        "log 2π counts once, and should count J times": lambda z: (
            -0.5 * (np.log(2 * np.pi) + (z * z).sum(axis=1)),
            None,
        ),
        "the sign: this leads away from 0, where the density is largest": lambda z: (None, z),
    },
    sizes={"J": 3, "M": 5},
)


# The KL


def neg_kl(mu, log_var):
    """Return (value, dmu, dlog_var): -KL(N(μ, σ² I) ‖ N(0, I)) (M,) in nats, and its partials (M, J).

    mu        is μ, (M, J).
    log_var   is log σ², (M, J).
    """
    raise NotImplementedError


def _kl_of_log_sigma(mu, log_var):
    value, dmu, dlog_sigma2 = gaussian_neg_kl(mu, 2 * log_var)
    return value, dmu, 2 * dlog_sigma2


KL = Exercise(
    neg_kl,
    title="-KL of two Gaussians (appendix B)",
    statement="""
        Return minus the Kullback-Leibler divergence of the posterior from the prior, for each row, and its partial
        derivatives with respect to μ and to log σ². Appendix B takes the two integrals:

            E_q log p(z) = -½ Σ_j (log 2π + μ_j² + σ_j²)      E_q log q(z) = -½ Σ_j (log 2π + log σ_j² + 1)

        and -KL is the first less the second. It is never above 0.
        """,
    results=("value", "dmu", "dlog_var"),
    arguments=gaussians(mu=(5, 3), log_var=(5, 3)),
    naive=lambda mu, log_var: (
        -sum(
            np.log(1 / np.exp(log_var[:, j]) ** 0.5) + (np.exp(log_var[:, j]) + mu[:, j] ** 2) / 2 - 1 / 2
            for j in range(mu.shape[1])
        )
    ),
    library=gaussian_neg_kl,
    exact_case="for (μ, σ²) = (0, 1), (1, 1), (0, e) it is 0, -½ and -½ (e - 2)",
    exact=lambda answer: (
        answer(mu=np.array([[0.0], [1], [0]]), log_var=np.array([[0.0], [0], [1]]))[0],
        [0, -0.5, -0.5 * (np.e - 2)],
    ),
    hint="The two log 2π cancel: ½ Σ_j (1 + log σ_j² - μ_j² - σ_j²). Now σ² = exp(log σ²) is its own derivative.",
    reading="kl.html#app-b",
    mistakes={
        READ_AS_LOG_SIGMA: _kl_of_log_sigma,
        "the sign: this is KL, a loss that is minimised, and -KL is maximised": lambda mu, log_var: tuple(
            -one for one in gaussian_neg_kl(mu, log_var)
        ),
        "the ½ is missing: this is twice the right one": lambda mu, log_var: tuple(
            2 * one for one in gaussian_neg_kl(mu, log_var)
        ),
        BY_THE_VARIANCE: lambda mu, log_var: (
            None,
            None,
            gaussian_neg_kl(mu, log_var)[2] * np.exp(-log_var),
        ),
        "averaged over the J latents, where the KL is their sum": lambda mu, log_var: tuple(
            one / mu.shape[1] for one in gaussian_neg_kl(mu, log_var)
        ),
    },
    sizes={"J": 3, "M": 5},
)
