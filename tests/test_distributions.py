"""inference/distributions.py: values against SciPy, mpmath, closed forms; partials against the oracle (App. B, C)."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from scratchvae import oracle
from scratchvae.gradcheck import check_density
from scratchvae.inference.distributions import gaussian_neg_kl, log_bernoulli, log_gaussian, log_standard_gaussian

rng = np.random.default_rng(0)
X, MU, LOG_VAR = (rng.standard_normal((4, 5)) for _ in range(3))
GREY = rng.random((4, 5))


@pytest.mark.parametrize(
    ("density", "arguments", "witness", "skip"),
    [
        (log_bernoulli, (GREY, 3 * MU), oracle.log_bernoulli, 1),
        (log_gaussian, (X, MU, LOG_VAR), oracle.log_normal, 1),
        (log_standard_gaussian, (X,), lambda z: oracle.log_normal(z, 0 * z, 0 * z), 0),
        (gaussian_neg_kl, (MU, LOG_VAR), lambda mu, log_var: -oracle.kl(mu, log_var), 0),
    ],
)
def test_value_and_partials_equal_the_oracle_and_central_differences(density, arguments, witness, skip):
    checks = check_density(density, *arguments, oracle=witness, skip=skip)
    assert len(checks) == 1 + len(arguments) - skip
    assert checks


def test_log_gaussian_equals_scipy_12():
    assert_allclose(log_gaussian(X, MU, LOG_VAR)[0], stats.norm.logpdf(X, MU, np.exp(LOG_VAR / 2)).sum(1), rtol=1e-13)
    assert_allclose(log_standard_gaussian(X)[0], stats.norm.logpdf(X).sum(1), rtol=1e-13)


def test_log_bernoulli_equals_scipy_on_binary_pixels_11():
    binary = (GREY > 0.5).astype(float)
    assert_allclose(log_bernoulli(binary, MU)[0], stats.bernoulli.logpmf(binary, oracle.sigmoid(MU)).sum(1), rtol=1e-13)


@pytest.mark.parametrize(("mu", "var", "kl"), [(0, 1, 0), (1, 1, 0.5), (0, np.e, (np.e - 2) / 2)])
def test_kl_has_its_closed_values_e2(mu, var, kl):
    assert_allclose(-gaussian_neg_kl(np.array([[mu]]), np.log([[var]]))[0], [kl], rtol=0, atol=1e-15)


def test_kl_equals_its_integral_by_mpmath_e2():
    for mu, log_var in [(0.3, -0.7), (-1.2, 0.4)]:
        sigma = mpmath.exp(mpmath.mpf(log_var) / 2)

        def integrand(z, mu=mu, sigma=sigma):
            return mpmath.npdf(z, mu, sigma) * mpmath.log(mpmath.npdf(z, mu, sigma) / mpmath.npdf(z))

        exact = float(mpmath.quad(integrand, mpmath.linspace(mu - 12 * sigma, mu + 12 * sigma, 25)))
        assert_allclose(-gaussian_neg_kl(np.array([[mu]]), np.array([[log_var]]))[0], [exact], rtol=1e-13)


@pytest.mark.parametrize("logit", [0, 1, -1, 50, -50, 800, -800])
@pytest.mark.parametrize("x", [0.0, 1.0, 0.25])
def test_bernoulli_at_the_edges_equals_mpmath_value_and_gradient_e8(logit, x):
    with mpmath.workdps(400):
        a = mpmath.mpf(logit)
        value = x * a - mpmath.log1p(mpmath.exp(a))
        derivative = x - 1 / (1 + mpmath.exp(-a))
    for dtype, tolerance in [(np.float64, 1e-14), (np.float32, 1e-6)]:
        log_p, dlogits = log_bernoulli(np.array([[x]], dtype), np.array([[logit]], dtype))
        limits = np.finfo(dtype)  # log p is exact down to denormal numbers; x - σ(a) to the rounding of σ(a) near 1
        assert_allclose(log_p, [float(value)], rtol=tolerance, atol=limits.tiny)
        assert_allclose(dlogits, [[float(derivative)]], rtol=tolerance, atol=limits.epsneg)


@pytest.mark.parametrize("log_var", [30.0, -30.0])
def test_gaussian_and_kl_at_the_edges_equal_mpmath_value_and_gradient_e8(log_var):
    x, mu = 0.5, 0.25
    with mpmath.workdps(50):
        v = mpmath.exp(mpmath.mpf(log_var))
        value = -(mpmath.log(2 * mpmath.pi) + log_var + mpmath.mpf(x - mu) ** 2 / v) / 2
        dmu, dlog_var = (x - mu) / v, (mpmath.mpf(x - mu) ** 2 / v - 1) / 2
        neg_kl = (1 + log_var - mpmath.mpf(mu) ** 2 - v) / 2
    ours = log_gaussian(*(np.array([[number]]) for number in (x, mu, log_var)))
    for mine, exact in zip(ours, (value, dmu, dlog_var), strict=True):
        assert_allclose(np.ravel(mine), [float(exact)], rtol=1e-14)
    ours = gaussian_neg_kl(np.array([[mu]]), np.array([[log_var]]))
    for mine, exact in zip(ours, (neg_kl, -mu, (1 - v) / 2), strict=True):
        assert_allclose(np.ravel(mine), [float(exact)], rtol=1e-14)


def test_densities_broadcast_one_minibatch_against_l_samples():
    logits = rng.standard_normal((3, 4, 5))
    log_p, dlogits = log_bernoulli(GREY, logits)
    for sample in range(3):
        one, done = log_bernoulli(GREY, logits[sample])
        assert_array_equal(log_p[sample], one)
        assert_array_equal(dlogits[sample], done)


def test_values_alone_are_the_same_values():
    for density, arguments in [
        (log_bernoulli, (GREY, MU)),
        (log_gaussian, (X, MU, LOG_VAR)),
        (log_standard_gaussian, (X,)),
        (gaussian_neg_kl, (MU, LOG_VAR)),
    ]:
        value, *partials = density(*arguments, gradient=False)
        assert_array_equal(value, density(*arguments)[0])
        assert all(partial is None for partial in partials)
