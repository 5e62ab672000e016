"""Exercises on what is known exactly or nearly so: the posterior of probabilistic PCA, and appendix D's log p(x)."""

import numpy as np

from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.models.factor_analysis import PPCA

# Probabilistic PCA


def ppca_posterior(x, W, mean, var):
    """Return (z_mean, covariance): E[z|x] (M, J), and Cov[z|x] (J, J), which is the same for every x.

    x      holds the datapoints, (M, D).
    W      maps a row z to z W, (J, D), and mean (D,) is added.
    var    is σ², the variance of the noise, a number.
    """
    raise NotImplementedError


def _library_ppca(x, W, mean, var):
    model = PPCA(len(W))
    model.mean_ = mean
    model.W_ = W
    model.var_ = np.full(len(mean), float(var))
    return model.posterior(x)


def _naive_ppca(x, W, mean, var):
    """Return the posterior by conditioning the joint Gaussian of x and z."""
    inverse = np.linalg.inv(W.T @ W + var * np.eye(len(mean)))
    return np.array([W @ inverse @ (row - mean) for row in x]), np.eye(len(W)) - W @ inverse @ W.T


PPCA_POSTERIOR = Exercise(
    ppca_posterior,
    title="the exact posterior of probabilistic PCA",
    statement="""
        If the decoder is linear, p(x|z) = N(x; z W + m, σ² I) with p(z) = N(0, I), the posterior is a Gaussian and
        known. Return its mean for every row, and its covariance. Our rows are datapoints, so W is (J, D), and with

            Λ = I + W Wᵀ/σ²

        the covariance is Λ⁻¹. Complete the square in log p(z) + log p(x|z) for the mean.
        """,
    results=("z_mean", "covariance"),
    arguments=lambda generator: gaussians(x=(5, 4), W=(2, 4), mean=(4,))(generator) | {"var": 0.7},
    naive=_naive_ppca,
    library=_library_ppca,
    exact_case="with W = 1, σ² = 1, m = 1 and x = 3 the mean is 1 and the variance ½",
    exact=lambda answer: (
        [one.item() for one in answer(x=np.full((1, 1), 3.0), W=np.ones((1, 1)), mean=np.ones(1), var=1.0)],
        [1, 0.5],
    ),
    hint="The terms linear in z are z·W(x - m)/σ². The mean is Λ⁻¹ times what stands beside z.",
    reading="ladder.html#ppca",
    mistakes={
        "m is not subtracted from x": lambda x, W, mean, var: (_library_ppca(x, W, 0 * mean, var)[0], None),
        "1/σ² is missing in the mean": lambda x, W, mean, var: (var * _library_ppca(x, W, mean, var)[0], None),
        "σ is taken for σ²": lambda x, W, mean, var: _library_ppca(x, W, mean, var**0.5),
        "this is the precision: the covariance is its inverse": lambda x, W, mean, var: (
            None,
            np.eye(len(W)) + W @ W.T / var,
        ),
        "the I of the prior is missing": lambda x, W, mean, var: (
            (x - mean) @ np.linalg.pinv(W),
            np.linalg.inv(W @ W.T / var),
        ),
        "σ² is missing: this is (σ² I + W Wᵀ)⁻¹": lambda x, W, mean, var: (
            None,
            np.linalg.inv(var * np.eye(len(W)) + W @ W.T),
        ),
    },
)


# Appendix D


def appendix_d(log_q, log_p_z, log_p_x):
    """Return log_p (M,), the estimate of log p(x) in nats of appendix D.

    log_q     is log q(z) at L draws from the posterior of each datapoint, (L, M), q being fitted to other draws.
    log_p_z   is log p(z) at them, (L, M), and log_p_x is log p(x|z), (L, M). These may be ±1000.
    """
    raise NotImplementedError


def _naive_appendix_d(log_q, log_p_z, log_p_x):
    terms = np.exp(log_q) / (np.exp(log_p_z) * np.exp(log_p_x))
    return np.log(1 / (terms.sum(axis=0) / len(terms)))


def _library_appendix_d(log_q, log_p_z, log_p_x):
    from scratchvae.inference.marginal import harmonic  # which loads scipy.stats: a list of titles need not wait for it

    return (harmonic(log_q - log_p_z - log_p_x).log_p,)


APPENDIX_D = Exercise(
    appendix_d,
    title="the marginal likelihood of appendix D",
    statement="""
        Appendix D estimates p(x) from L draws z⁽ˡ⁾ of the posterior, and a density q that was fitted to other draws:

            p(x) ≃ (1/L Σ_l q(z⁽ˡ⁾) / (p(z⁽ˡ⁾) p(x|z⁽ˡ⁾)))⁻¹

        Return its logarithm for each datapoint. p(x|z) of an image is of the size of e⁻¹⁰⁰⁰: compute with logarithms.
        """,
    results=("log_p",),
    arguments=gaussians(log_q=(6, 5), log_p_z=(6, 5), log_p_x=(6, 5)),
    naive=_naive_appendix_d,
    library=_library_appendix_d,
    exact_case=(
        "where q is the posterior, every term is 1/p(x), which gives log p(x) = -1000 or 1000; for the terms e⁻¹⁰⁰⁰, "
        "e⁻¹⁰⁰⁰ and e¹⁰⁰⁰ it is ln 3 - 1000"
    ),
    exact=lambda answer: (
        answer(
            log_q=np.array([[-1.0, -1, 0], [2, 2, 0], [0.5, 0.5, 0]]),
            log_p_z=np.array([[-3.0, -3, 0], [-1, -1, 0], [-2, -2, 0]]),
            log_p_x=np.array([[-998.0, 1002, 1000], [-997, 1003, 1000], [-997.5, 1002.5, -1000]]),
        ),
        [-1000, 1000, -1000 + np.log(3)],
    ),
    hint="The log of a mean of exponentials, with the largest taken out, and then a minus.",
    reading="marginal.html#app-d",
    mistakes={
        "the sign: this is log 1/p(x)": lambda **given: (-_naive_appendix_d(**given),),
        "the quotient is the other way round: that estimates p(x) from draws of q, and these are of the posterior": (
            lambda log_q, log_p_z, log_p_x: (np.log(np.exp(log_p_z + log_p_x - log_q).mean(axis=0)),)
        ),
        "log and mean are exchanged": lambda log_q, log_p_z, log_p_x: ((log_p_z + log_p_x - log_q).mean(axis=0),),
        "1/L is missing": lambda log_q, log_p_z, log_p_x: (
            _naive_appendix_d(log_q, log_p_z, log_p_x) - np.log(len(log_q)),
        ),
        "the prior is missing: the joint density is p(z) p(x|z)": lambda log_q, log_p_z, log_p_x: (
            _naive_appendix_d(log_q, 0 * log_p_z, log_p_x),
        ),
    },
    sizes={"L": 6},
)
