"""inference/reparameterise.py: draws and densities of section 2.4 against autograd, SciPy, mpmath and each other."""

import autograd.numpy as anp
import mpmath
import numpy as np
import pytest
from autograd import elementwise_grad
from autograd.scipy.special import gammaln
from numpy.testing import assert_allclose
from scipy import stats

from scratchvae.inference.reparameterise import (
    cauchy,
    exponential,
    gaussian,
    gumbel,
    laplace,
    log_normal,
    logistic,
    student_t,
    uniform,
    weibull,
)

NU = 5


def spread(log_standard):
    """The naive log density of location and log scale."""
    return lambda z, a, b: log_standard((z - a) / anp.exp(b)) - b


def log_student(s):
    constant = gammaln((NU + 1) / 2) - gammaln(NU / 2) - anp.log(NU * np.pi) / 2
    return constant - (NU + 1) / 2 * anp.log(1 + s**2 / NU)


def log_normal_naive(z, a, b):
    return -anp.log(z) - b - anp.log(2 * np.pi) / 2 - (anp.log(z) - a) ** 2 / (2 * anp.exp(2 * b))


# q, z = g(ε, φ) and log q(z; φ) as a textbook has them, SciPy's law of the same φ
LAWS = {
    "gaussian": (
        gaussian,
        lambda e, a, b: a + anp.exp(b) * e,
        spread(lambda s: -anp.log(2 * np.pi) / 2 - s**2 / 2),
        lambda a, b: stats.norm(a, np.exp(b)),
    ),
    "laplace": (
        laplace,
        lambda u, a, b: a - anp.exp(b) * anp.sign(u - 0.5) * anp.log(1 - 2 * anp.abs(u - 0.5)),
        spread(lambda s: -anp.abs(s) - anp.log(2)),
        lambda a, b: stats.laplace(a, np.exp(b)),
    ),
    "logistic": (
        logistic,
        lambda u, a, b: a + anp.exp(b) * anp.log(u / (1 - u)),
        spread(lambda s: -s - 2 * anp.log(1 + anp.exp(-s))),
        lambda a, b: stats.logistic(a, np.exp(b)),
    ),
    "gumbel": (
        gumbel,
        lambda u, a, b: a - anp.exp(b) * anp.log(-anp.log(u)),
        spread(lambda s: -s - anp.exp(-s)),
        lambda a, b: stats.gumbel_r(a, np.exp(b)),
    ),
    "cauchy": (
        cauchy,
        lambda u, a, b: a + anp.exp(b) * anp.tan(np.pi * (u - 0.5)),
        spread(lambda s: -anp.log(np.pi * (1 + s**2))),
        lambda a, b: stats.cauchy(a, np.exp(b)),
    ),
    "student_t": (
        student_t(NU),
        lambda e, a, b: a + anp.exp(b) * e[0] / anp.sqrt(e[1] / NU),
        spread(log_student),
        lambda a, b: stats.t(NU, a, np.exp(b)),
    ),
    "exponential": (
        exponential,
        lambda u, b: -anp.exp(b) * anp.log(u),
        lambda z, b: -b - z / anp.exp(b),
        lambda b: stats.expon(0, np.exp(b)),
    ),
    "weibull": (
        weibull,
        lambda u, b, c: anp.exp(b) * (-anp.log(u)) ** (1 / anp.exp(c)),
        lambda z, b, c: c - b + (anp.exp(c) - 1) * (anp.log(z) - b) - (z / anp.exp(b)) ** anp.exp(c),
        lambda b, c: stats.weibull_min(np.exp(c), 0, np.exp(b)),
    ),
    "log_normal": (
        log_normal,
        lambda e, a, b: anp.exp(a + anp.exp(b) * e),
        log_normal_naive,
        lambda a, b: stats.lognorm(np.exp(b), 0, np.exp(a)),
    ),
}
every_law = pytest.mark.parametrize(("q", "g", "log_q", "law"), LAWS.values(), ids=LAWS)


def parameters(q, shape=()):
    """φ (K, …): no two coordinates alike."""
    return 0.4 + 0.2 * np.random.default_rng(3).standard_normal((len(q.parameters), *shape))


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 1e-10 * np.linalg.norm(theirs)


@every_law
def test_draw_and_density_and_all_their_partials_equal_autograd_of_the_textbooks_formula(q, g, log_q, law):
    phi, shape = parameters(q, (3,)), (7, 3)
    eps = q.noise(np.random.default_rng(0), shape)
    rows = np.broadcast_to(phi[:, None], (len(phi), *shape))  # φ for each draw, so that its partials are elementwise
    z, dz_dphi = q.draw(eps, phi)
    close(z, g(eps, *phi))
    log_p, dz, dphi = q.log_density(z, phi)
    close(log_p, log_q(z, *phi))
    close(dz, elementwise_grad(log_q, 0)(z, *rows))
    assert dz_dphi.shape == dphi.shape == rows.shape
    for k in range(len(phi)):
        close(dz_dphi[k], elementwise_grad(g, 1 + k)(eps, *rows))
        close(dphi[k], elementwise_grad(log_q, 1 + k)(z, *rows))


@every_law
def test_log_density_equals_scipy(q, g, log_q, law):
    phi = parameters(q)
    z = law(*phi).ppf([1e-12, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-9])
    assert_allclose(q.log_density(z, phi)[0], law(*phi).logpdf(z), rtol=1e-12, atol=1e-13)


@every_law
def test_draws_have_the_density_by_kolmogorov_and_smirnov_e23(q, g, log_q, law):
    phi = parameters(q)
    z = np.sort(q.draw(q.noise(np.random.default_rng(1), 100_000), phi)[0])

    def p_value(z, phi):
        distance = np.abs(law(*phi).cdf(z) - (np.arange(100_000) + 0.5) / 100_000).max()
        return 2 * np.exp(-2 * 100_000 * distance**2)  # at most (Dvoretzky, Kiefer & Wolfowitz; Massart)

    assert p_value(z, phi) > 1e-6  # the false alarm rate
    assert p_value(1.1 * z, phi) < 1e-6  # control: all 10 % larger
    for off in 0.1 * np.eye(len(phi)):  # controls: each parameter off by 0.1
        assert p_value(z, phi + off) < 1e-6


@every_law
def test_pathwise_gradient_of_an_expectation_equals_quadrature_4_5(q, g, log_q, law):
    phi, n = parameters(q), 100_000
    f, df = np.tanh, lambda z: 1 / np.cosh(z) ** 2
    with np.errstate(over="ignore"):  # 1/cosh² of a far draw is 0
        z, dz_dphi = q.draw(q.noise(np.random.default_rng(2), n), phi)
        draws = df(z) * dz_dphi
    u = (np.arange(10_000) + 0.5) / 10_000

    def expectation(phi):
        return f(law(*phi).ppf(u)).mean()  # ∫ f(F⁻¹(u)) du by SciPy's quantiles

    for k, d in enumerate(1e-3 * np.eye(len(phi))):
        exact = (expectation(phi + d) - expectation(phi - d)) / 2e-3
        error = draws[k].std() / np.sqrt(n)
        assert abs(draws[k].mean() - exact) < 4.89 * error
        assert abs(1.1 * draws[k].mean() - exact) > 4.89 * error  # control: a partial 10 % too large


TAILS = [1e-300, 1e-17, 2.0**-53, 0.3, 0.5, 0.7, 1 - 2.0**-53]
QUANTILES = {
    "laplace": (laplace, lambda u: mpmath.log(2 * u) if u < 0.5 else -mpmath.log(2 * (1 - u))),
    "logistic": (logistic, lambda u: mpmath.log(u / (1 - u))),
    "gumbel": (gumbel, lambda u: -mpmath.log(-mpmath.log(u))),
    "cauchy": (cauchy, lambda u: -mpmath.cot(mpmath.pi * u)),
    "exponential": (exponential, lambda u: -mpmath.log(u)),
    "weibull": (weibull, lambda u: -mpmath.log(u)),
}


@pytest.mark.parametrize(("q", "quantile"), QUANTILES.values(), ids=QUANTILES)
def test_draws_by_inverse_cdf_are_exact_at_any_u_e8(q, quantile):
    z = q.draw(np.array(TAILS), np.zeros((len(q.parameters), 1)))[0]
    with mpmath.workdps(340):
        exact = [float(quantile(mpmath.mpf(u))) for u in TAILS]
    assert_allclose(z, exact, rtol=1e-14, atol=1e-15)
    for values in q.log_density(z, np.zeros((len(q.parameters), 1))):
        assert np.isfinite(values).all()


@pytest.mark.parametrize("q", [gaussian, laplace, logistic, cauchy, student_t(NU)], ids=lambda q: q.name)
def test_log_densities_are_finite_and_symmetric_far_out_e8(q):
    z = np.array([0, 50, 800, 1e150])
    phi = np.zeros((2, 1))
    one, other = q.log_density(z, phi), q.log_density(-z, phi)
    assert_allclose(one[0], other[0], rtol=0)
    assert_allclose(one[1], -other[1], rtol=0)
    assert all(np.isfinite(values).all() for values in one)


def test_the_cauchy_is_student_t_of_one_degree_of_freedom():
    z, phi = np.linspace(-5, 5, 11), np.array([0.3, 0.2])
    for ours, theirs in zip(cauchy.log_density(z, phi), student_t(1).log_density(z, phi), strict=True):
        assert_allclose(ours, theirs)


def test_uniform_noise_is_never_0_or_1_and_as_often_near_one_as_near_the_other():
    class Extremes:
        def integers(self, high, size):
            return np.array([0, high - 1])

    assert_allclose(uniform(Extremes(), 2), [2.0**-53, 1 - 2.0**-53], rtol=0)


@pytest.mark.parametrize("nu", [0, -1, float("inf"), "5"])
def test_degrees_of_freedom_that_do_not_fit_are_refused(nu):
    with pytest.raises(ValueError, match=r"nu is .*; expected degrees of freedom > 0"):
        student_t(nu)
