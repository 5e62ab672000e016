"""inference/likelihoods: the continuous Bernoulli in full (E26), Laplace, and samples that match densities (E23).

Statistical tests are two-sided at a false-alarm rate of 1e-6, |z| < 4.89. With n = 93/δ² draws they see a shift of δ
standard deviations with a power of 1 - 1e-6, and each has a control with such a shift, or a larger one, that must fail.
"""

import itertools
import json

import mpmath
import numpy as np
import pytest
from conftest import rows, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from scratchvae import VAE, evaluate, fit
from scratchvae.cli import main
from scratchvae.cli.shared import DEFAULTS
from scratchvae.gradcheck import check_density
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.likelihoods.bernoulli import Bernoulli
from scratchvae.inference.likelihoods.continuous_bernoulli import ContinuousBernoulli
from scratchvae.inference.likelihoods.gaussian import Gaussian
from scratchvae.inference.likelihoods.laplace import Laplace
from scratchvae.nets.layers import sigmoid

Z_LIMIT = 4.89  # two-sided, 1e-6
N_DRAWS = 93 * 400  # δ = 1/20
LOGITS = [0.0, *(sign * size for size in (1e-8, 1e-3, 0.29, 0.31, 1.0, 20.0, 800.0) for sign in (1, -1))]
EPS = {dtype: np.finfo(dtype).eps for dtype in ("float32", "float64")}


def grid(low=0.0, high=1.0, pieces=44, order=24):
    """Nodes and weights of Gauss & Legendre on [low, high], in pieces that halve towards both ends and the middle."""
    towards = 2.0 ** -np.arange(1, pieces)
    half = np.concatenate([[0], towards[::-1] / 2, [0.5 - t / 2 for t in towards[1:]], [0.5]])
    ends = low + (high - low) * np.unique(np.concatenate([half, 1 - half]))
    nodes, weights = np.polynomial.legendre.leggauss(order)
    a, b = ends[:-1, None], ends[1:, None]
    return ((a + b) / 2 + (b - a) / 2 * nodes).ravel(), ((b - a) / 2 * weights).ravel()


def log_p(likelihood, x, *outputs):
    """log p of each number of x (n,) by itself, at outputs that are numbers."""
    x = np.asarray(x)[:, None]
    return likelihood.log_prob(x, *(np.full((1, *x.shape), y, x.dtype) for y in outputs), gradient=False)[0][0]


# The continuous Bernoulli (E26)


def exact(a):
    """λ, 1 - λ, log C(λ) and the mean at the logit a by the formulas of E26, with digits to spare."""
    a = mpmath.mpf(float(a))
    p, q = 1 / (1 + mpmath.exp(-a)), 1 / (1 + mpmath.exp(a))
    if a == 0:
        return p, q, mpmath.log(2), mpmath.mpf(1) / 2
    artanh = (mpmath.log(2 * q) - mpmath.log(2 * p)) / 2  # artanh(1 - 2λ) = ½ log (2 - 2λ)/2λ
    return p, q, mpmath.log(2 * artanh / (q - p)), p / (p - q) + 1 / (2 * artanh)


@pytest.mark.parametrize("logit", LOGITS)
def test_the_density_integrates_to_one_over_the_unit_interval_and_has_the_mean_that_is_told_e26(logit):
    x, weights = grid()
    density = np.exp(log_p(ContinuousBernoulli(), x, logit))
    assert_allclose(weights @ density, 1, rtol=0, atol=1e-12)
    assert_allclose(weights @ (density * x), ContinuousBernoulli().mean(np.array([logit]))[0], rtol=1e-12, atol=1e-12)


def test_without_its_constant_it_does_not_control_of_e26():
    x, weights = grid()
    assert_allclose(weights @ np.exp(log_p(Bernoulli(), x, 0.0)), 0.5, rtol=1e-12)
    for logit in (1.0, -20.0, 800.0):
        assert weights @ np.exp(log_p(Bernoulli(), x, logit)) < 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", LOGITS)
def test_value_log_c_derivative_and_mean_equal_mpmath_e26(logit, dtype):
    x = np.array([0, 0.25, 0.5, 0.875, 1], dtype)[None]
    a = np.full((1, 1, 1), logit, dtype)
    eps = EPS[dtype]
    with mpmath.workdps(800):
        p, q, log_c, mean = exact(a.item())
        values = [float(log_c + float(t) * mpmath.log(p) + (1 - float(t)) * mpmath.log(q)) for t in x[0]]
        partials = [float(float(t) - mean) for t in x[0]]
        log_c, mean = float(log_c), float(mean)
    ours = [ContinuousBernoulli().log_prob(x[:, [k]], a) for k in range(5)]
    assert all(value.dtype == partial.dtype == dtype for value, partial in ours)
    # a x - A(a) is a difference of terms of the size of a
    tolerance = 1e-12 if dtype == "float64" else 4 * eps * max(1, abs(logit))
    assert_allclose([value.item() for value, _ in ours], values, rtol=0, atol=tolerance)
    assert_allclose([partial.item() for _, partial in ours], partials, rtol=4 * eps, atol=4 * eps)
    assert_allclose(ContinuousBernoulli().mean(a).item(), mean, rtol=max(4 * eps, 1e-12), atol=0)
    bernoulli = [Bernoulli().log_prob(x[:, [k]], a)[0].item() for k in range(5)]
    found = np.array([value.item() for value, _ in ours]) - bernoulli
    assert_allclose(found, log_c, rtol=0, atol=2 * tolerance)


def test_at_a_half_log_c_is_log_2_with_zero_slope_and_the_mean_a_half_e26():
    density, a = ContinuousBernoulli(), np.zeros((1, 1, 1))
    for x in (0.0, 0.3, 1.0):  # the uniform density: log C + log ½ = 0
        value, partial = density.log_prob(np.array([[x]]), a)
        assert value.item() == 0
        assert_allclose(partial.item(), x - 0.5, rtol=0, atol=1e-16)
    assert density.mean(np.zeros(1)).item() == 0.5
    for logit in (0.0, 1e-9, -1e-9):  # d log C/da = σ(a) - E x, and that is -a/12 + σ'(0) a = a/6 near 0
        a = np.array([logit])
        assert_allclose(sigmoid(a) - density.mean(a), a / 6, rtol=0, atol=1e-16)


def test_values_and_derivatives_join_where_the_series_of_the_mean_ends_e26():
    a = np.linspace(0.29, 0.31, 2001)
    mean = ContinuousBernoulli().mean(a)
    with mpmath.workdps(40):
        expected = [float(exact(logit)[3]) for logit in a[::50]]
    assert_allclose(mean[::50], expected, rtol=1e-14)
    assert (np.diff(mean) > 0).all()  # no step backwards at 0.3
    assert_allclose(ContinuousBernoulli().mean(-a), 1 - mean, rtol=1e-15)


def distribution(x, a):
    """F(x) = (exp(a x) - 1)/(exp(a) - 1) in float64, for a of either sign without overflow."""
    x = np.asarray(x, float)
    if a == 0:
        return x
    return np.expm1(a * x) / np.expm1(a) if a < 0 else 1 - np.expm1(-a * (1 - x)) / np.expm1(-a)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", LOGITS)
def test_a_draw_is_the_inverse_of_the_distribution_function_e26(logit, dtype):
    u = np.random.default_rng(0).random((1000, 1), dtype)
    x = ContinuousBernoulli().draw(u, np.full_like(u, logit))
    assert x.dtype == dtype and (x >= 0).all() and (x <= 1).all()
    found = distribution(x, float(np.dtype(dtype).type(logit)))
    assert np.abs(found - u).max() < 8 * EPS[dtype] * max(1, abs(logit))  # x is rounded, and F has a slope up to |a|


@pytest.mark.parametrize("logit", [0.0, 1e-3, -1e-3, 2.0, -2.0, 800.0, -800.0])
def test_draws_follow_the_distribution_function_by_kolmogorov_and_smirnov_e23_e26(logit):
    """The limit is 2.7/√n, at false alarms of 1e-6; a law at twice that distance or more is missed as rarely."""
    n = 40_000
    limit = stats.kstwo(n).isf(1e-6)
    likelihood = ContinuousBernoulli()
    u = likelihood.noise(np.random.default_rng(1), (n, 1), np.float64)
    x = likelihood.draw(u, np.full_like(u, logit))[:, 0]
    other = 0.6 * logit + (1.5 if logit >= 0 else -1.5)
    assert stats.kstest(x, lambda x: distribution(x, logit)).statistic < limit
    assert stats.kstest(x, lambda x: distribution(x, other)).statistic > 2 * limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_at_the_ends_of_the_noise_are_finite_and_inside_without_a_warning_e26(dtype):
    near_one = 1 - EPS[dtype] / 2  # the largest that `noise` can give
    u = np.array([0, np.finfo(dtype).tiny, EPS[dtype], 0.5, 1 - EPS[dtype], near_one], dtype)
    for logit in [*LOGITS, 88.0, -88.0, 1e-30, -1e-30, 1e5, -1e5]:
        with np.errstate(all="raise", under="ignore"):  # e⁻ʳ may go to nothing
            x = ContinuousBernoulli().draw(u, np.full_like(u, logit))
            mean = ContinuousBernoulli().mean(np.full_like(u, logit))
            value, partial = ContinuousBernoulli().log_prob(x[None], np.full_like(u, logit)[None, None])
        assert x.dtype == dtype and (x >= 0).all() and (x <= 1).all() and (np.diff(x) >= 0).all()
        assert (mean >= 0).all() and (mean <= 1).all()
        assert np.isfinite(value).all() and np.isfinite(partial).all()
        if logit < 0:
            assert x[0] == 0
        if abs(logit) < 1e-20:
            assert_allclose(x, u, rtol=0, atol=EPS[dtype])


# Laplace


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_the_laplace_density_integrates_to_one_and_is_scipys(scale):
    mu, likelihood = 0.37, Laplace("free")
    x, weights = grid(mu - 60 * scale, mu + 60 * scale)  # the tails beyond are e⁻⁶⁰
    ours = log_p(likelihood, x, mu, np.log(scale))
    assert_allclose(weights @ np.exp(ours), 1, rtol=0, atol=1e-12)
    assert_allclose(ours, stats.laplace(mu, scale).logpdf(x), rtol=1e-12, atol=1e-12)


def test_the_laplace_density_sums_over_pixels_and_keeps_its_draws_apart():
    generator = np.random.default_rng(2)
    x, mu, log_scale = generator.random((4, 5)), generator.random((3, 4, 5)), generator.standard_normal((3, 4, 5))
    value, dmu, dlog_scale = Laplace().log_prob(x, mu, log_scale)
    assert_allclose(value, stats.laplace(mu, np.exp(log_scale)).logpdf(x[None]).sum(axis=-1), rtol=1e-12)
    b = np.exp(log_scale)
    assert_allclose(dmu, np.where(x > mu, 1, -1) / b, rtol=1e-12)
    assert_allclose(dlog_scale, np.abs(x - mu) / b - 1, rtol=1e-12)
    at_the_kink = Laplace().log_prob(mu[0], mu[:1], log_scale[:1])
    assert (at_the_kink[1] == 0).all() and (at_the_kink[2] == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_laplace_noise_is_standard_and_draws_have_mean_mu_variance_2_b2_and_mean_distance_b(dtype):
    likelihood = Laplace()
    s = likelihood.noise(np.random.default_rng(3), (N_DRAWS, 1), np.dtype(dtype))
    assert s.dtype == dtype
    assert stats.kstest(s[:, 0], "laplace").statistic < stats.kstwo(N_DRAWS).isf(1e-6)
    mu, b = 0.3, 0.2
    x = likelihood.draw(s, np.full_like(s, mu), np.full_like(s, np.log(b))).astype(float)[:, 0]
    d = x - mu
    # kurtosis of a Laplace law: E d⁴ = 24 b⁴, Var d² = 20 b⁴, Var |d| = b²
    moments = {"mean": (d, 0, np.sqrt(2) * b), "square": (d**2, 2 * b**2, np.sqrt(20) * b**2), "size": (abs(d), b, b)}
    for values, expected, sd in moments.values():
        assert abs(values.mean() - expected) < Z_LIMIT * sd / np.sqrt(N_DRAWS)
        assert abs(values.mean() - (expected + sd / 10)) > Z_LIMIT * sd / np.sqrt(N_DRAWS)


# All five


def test_a_draw_is_the_written_out_function_of_its_noise_and_not_another_one_of_the_same_law():
    """A symmetric law looks the same with the noise turned around; the seed then selects other images."""
    generator = np.random.default_rng(0)
    mu, spread, eps = generator.standard_normal((3, 4, 5))
    u = generator.random((4, 5))
    assert_allclose(Gaussian("free").draw(eps, mu, spread), mu + np.exp(0.5 * spread) * eps, rtol=1e-12)
    assert_allclose(
        LIKELIHOODS["isotropic"]("free").draw(eps, mu, spread[0, :1]), mu + np.exp(0.5 * spread[0, 0]) * eps
    )
    assert_allclose(Laplace().draw(eps, mu, spread), mu + np.exp(spread) * eps, rtol=1e-12)
    assert_array_equal(Bernoulli().draw(u, mu), u < 1 / (1 + np.exp(-mu)))
    x = ContinuousBernoulli().draw(u, mu)
    assert_allclose(np.expm1(mu * x) / np.expm1(mu), u, rtol=1e-9)  # its distribution function


CASES = [
    *(("bernoulli", "sigmoid", (logit,)) for logit in (-2.0, 0.0, 0.5)),
    *(("continuous-bernoulli", "sigmoid", (logit,)) for logit in (-8.0, 0.0, 1.0, 30.0)),
    *(("gaussian", "free", outputs) for outputs in ((0.3, -2.0), (-4.0, 1.0))),
    ("isotropic", "free", (1.2, -0.5)),
    *(("laplace", "free", outputs) for outputs in ((0.3, -1.5), (-2.0, 0.7))),
]


def of(name, mean):
    cls = LIKELIHOODS[name]
    return cls(mean) if len(cls.means) > 1 else cls()


def moments_of_the_density(likelihood, outputs):
    """E x, E x², E x⁴ by summing or integrating x times the density that is scored."""
    if likelihood.name == "bernoulli":
        x, weights = np.array([0.0, 1.0]), np.ones(2)
    elif likelihood.name == "continuous-bernoulli":
        x, weights = grid()
    else:
        reach = 60 * np.exp(outputs[1] if likelihood.name == "laplace" else outputs[1] / 2)
        x, weights = grid(outputs[0] - reach, outputs[0] + reach)
    density = weights * np.exp(log_p(likelihood, x, *outputs))
    assert_allclose(density.sum(), 1, rtol=0, atol=1e-12)
    return [density @ x**k for k in (1, 2, 4)]


@pytest.mark.parametrize(("name", "mean", "outputs"), CASES)
def test_moments_of_what_is_drawn_are_those_of_the_density_that_is_scored_e23(name, mean, outputs):
    likelihood = of(name, mean)
    noise = likelihood.noise(np.random.default_rng(4), (N_DRAWS, 1), np.float64)
    x = likelihood.draw(noise, *(np.full_like(noise, y) for y in outputs))[:, 0]
    first, second, fourth = moments_of_the_density(likelihood, outputs)
    told = likelihood.mean(*(np.full((1, 1), y) for y in outputs)).item()
    assert_allclose(told, first, rtol=1e-12, atol=1e-12)
    sd = np.sqrt(second - first**2)
    for power, expected, spread in ((x, first, sd), (x**2, second, np.sqrt(fourth - second**2))):
        assert abs(power.mean() - expected) < Z_LIMIT * spread / np.sqrt(N_DRAWS)
        assert abs(power.mean() - (expected + spread / 10)) > Z_LIMIT * spread / np.sqrt(N_DRAWS)


@pytest.mark.parametrize(("name", "mean", "outputs"), CASES)
def test_the_partials_at_what_is_drawn_average_to_zero_e23(name, mean, outputs):
    """E ∂log p(x)/∂output = 0 for x ~ p: the score of a density at its own draws, and at no others."""
    likelihood = of(name, mean)
    noise = likelihood.noise(np.random.default_rng(5), (N_DRAWS, 1), np.float64)
    x = likelihood.draw(noise, *(np.full_like(noise, y) for y in outputs))

    def off(shift):
        at = (np.full((1, *x.shape), y + d) for y, d in zip(outputs, shift, strict=True))
        _, *partials = likelihood.log_prob(x, *at)
        return [partial.mean() / (partial.std() / np.sqrt(N_DRAWS)) for partial in partials]

    assert np.abs(off(np.zeros(len(outputs)))).max() < Z_LIMIT
    for k in range(len(outputs)):
        shift = 0.5 * np.eye(len(outputs))[k] * (10 if outputs[0] == 30 else 1)
        assert abs(off(shift)[k]) > Z_LIMIT


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("bernoulli", "sigmoid"),
        *itertools.product(["gaussian", "laplace"], ["sigmoid", "free"]),
        ("isotropic", "sigmoid"),
        ("continuous-bernoulli", "sigmoid"),
    ],
)
def test_images_that_a_model_draws_have_the_mean_that_it_decodes_e23(name, mean):
    model = small(name, mean)
    z = np.random.default_rng(6).standard_normal((2, 2))
    expected = model.decode(z)
    x = np.stack([model.draw(np.repeat(z, N_DRAWS // 2, axis=0), seed=seed) for seed in (0, 1)], axis=1)
    x = x.reshape(2, -1, 6)
    error = x.std(axis=1) / np.sqrt(x.shape[1])
    assert np.abs((x.mean(axis=1) - expected) / error).max() < Z_LIMIT
    assert np.abs((x.mean(axis=1) - model.decode(1.5 * z + 0.5)) / error).max() > Z_LIMIT
    far = model.decode(1e3 * z)
    assert (far.min() < 0 and far.max() > 1) if mean == "free" else (far.min() >= 0 and far.max() <= 1)
    if name == "continuous-bernoulli":  # the mean is not σ(logits)
        assert (np.abs(expected - 0.5) < np.abs(sigmoid(model.decoder.forward(z)[0]) - 0.5)).all()


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "isotropic"])
def test_partials_are_the_derivatives_of_the_value(name):
    likelihood = of(name, "sigmoid")
    generator = np.random.default_rng(7)
    outputs = [generator.standard_normal((4, 5)) for _ in likelihood.outputs]
    checks = check_density(likelihood.log_prob, generator.random((4, 5)), *outputs, skip=1)
    assert len(checks) == len(likelihood.outputs)
    assert all(check.differences < 1e-7 for check in checks)
    value, *none = likelihood.log_prob(rows(4, 5), *outputs, gradient=False)
    assert_array_equal(value, likelihood.log_prob(rows(4, 5), *outputs)[0])
    assert none == [None] * len(outputs)


# What users see


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("bernoulli", "sigmoid"),
        ("continuous-bernoulli", "sigmoid"),
        *itertools.product(["gaussian", "isotropic", "laplace"], ["sigmoid", "free"]),
    ],
)
def test_data_outside_the_support_are_refused_with_their_range(name, mean):
    model = VAE(6, 3, 2, likelihood=name, mean=mean)
    x = rows(9)
    wild = x.copy()
    wild[2, 3], wild[4, 1] = -0.25, 1.5
    before = model.params.value.copy()
    asks = [
        ("train", lambda: fit(model, wild, samples=20, batch_size=5)),
        ("valid", lambda: fit(model, x, wild, samples=20, batch_size=5)),
        ("x", lambda: evaluate(model, wild)),
    ]
    for argument, ask in asks:
        if mean == "free":
            ask()
            continue
        with pytest.raises(ValueError) as error:
            ask()
        assert str(error.value).startswith(f"{argument} has values from -0.25 to 1.5; expected [0, 1]")
        assert "\n" not in str(error.value)
        assert_array_equal(model.params.value, before)
    fit(model, (255 * x).astype("uint8"), samples=20, batch_size=5)
    assert np.isfinite(model.params.value).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_data_that_are_not_finite_are_refused_whatever_the_likelihood(name, bad):
    x = rows(9)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="train has values that are not finite"):
        fit(VAE(6, 3, 2, likelihood=name), x, samples=20)


def test_evaluate_says_that_densities_and_cross_entropies_cannot_be_compared(digits, tmp_path, capsys):
    for name in ("bernoulli", "continuous-bernoulli"):
        options = DEFAULTS | {"likelihood": name, "hidden": [5], "latent": 2}
        fit(
            VAE(64, 5, 2, likelihood=name),
            digits.train[:50],
            samples=50,
            batch_size=50,
            out=tmp_path / name,
            options=options,
        )
    note = ContinuousBernoulli.note
    assert "densities" in note and "cross entropies" in note
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "continuous-bernoulli"), "--changed-data"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == note
    assert main(["evaluate", str(tmp_path / "continuous-bernoulli"), "--changed-data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == note
    assert main(["evaluate", str(tmp_path / "bernoulli"), "--changed-data"]) == 0
    assert "densities" not in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "bernoulli"), "--changed-data", "--json"]) == 0
    assert "note" not in json.loads(capsys.readouterr().out)
