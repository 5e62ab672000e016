"""inference/posterior_sgvb.py, training/posterior.py, models/regression.py: q(θ) in exact regressions, and autograd."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.scipy.stats import norm
from conftest import is_drawn
from numpy.testing import assert_allclose
from scipy import stats
from test_reparameterise import LAWS, close

from scratchvae import SGD, Adagrad, Adam
from scratchvae.inference.posterior_sgvb import sgvb_1, sgvb_2
from scratchvae.inference.reparameterise import gaussian, laplace
from scratchvae.models.regression import LinearRegression, LogisticRegression
from scratchvae.training.posterior import fit_posterior

both = pytest.mark.parametrize("estimator", [sgvb_1, sgvb_2])


def linear(orthogonal=False, n=20, p=3):
    """A linear regression; with an orthogonal design its posterior is a diagonal Gaussian."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, p)) @ (np.eye(p) + 0.5)
    x = 3 * np.linalg.qr(x)[0] if orthogonal else x
    y = x @ generator.standard_normal(p) + 0.7 * generator.standard_normal(n)
    return LinearRegression(x, y, noise=0.7, alpha=1.3)


def logistic_regression(n=20, p=3):
    generator = np.random.default_rng(1)
    x = generator.standard_normal((n, p))
    return LogisticRegression(x, generator.random(n) < 1 / (1 + np.exp(-2 * x[:, 0])), alpha=1.3)


def best(model):
    """φ of the best diagonal Gaussian, of variances 1/Λ_ii, and its gap ½ (Σ ln Λ_ii - ln|Λ|)."""
    m, precision = model.posterior()
    diagonal = np.diag(precision)
    return np.stack([m, -0.5 * np.log(diagonal)]), 0.5 * (np.log(diagonal).sum() - np.linalg.slogdet(precision)[1])


def sigma_points(p):
    """ε (2p, p) of mean 0 and covariance I: the mean over them of anything quadratic is its expectation."""
    return np.sqrt(p) * np.concatenate([np.eye(p), -np.eye(p)])


def each(estimator, model, q, phi, n, seed=0):
    """The bounds (n,) and the gradients (n, K, P) of n estimates with L = 1."""
    eps = np.random.default_rng(seed).standard_normal((n, 1, model.n_parameters))
    bounds, gradients = zip(*(estimator(model, q, phi, one) for one in eps), strict=True)
    return np.array(bounds), np.array(gradients)


def naive_log_likelihood(model, theta, rows):
    f, y = theta @ model.x[rows].T, model.y[rows]
    if isinstance(model, LinearRegression):
        return anp.sum(norm.logpdf(y, f, model.noise), axis=1)
    return anp.sum(y * f - anp.log(1 + anp.exp(f)), axis=1)


@pytest.mark.parametrize("rows", [slice(None), np.array([3, 0, 11, 7, 7])], ids=["all rows", "minibatch"])
@pytest.mark.parametrize("model", [linear(), logistic_regression()], ids=["linear", "logistic"])
@pytest.mark.parametrize("name", LAWS)
def test_l1_and_its_gradient_equal_autograd_of_the_objective_written_out(name, model, rows):
    q, g, log_q, _ = LAWS[name]
    generator = np.random.default_rng(2)
    phi, eps = 0.3 * generator.standard_normal((len(q.parameters), 3)) - 0.4, q.noise(generator, (4, 3))
    M = len(model.y[rows])

    def objective(phi):
        theta = g(eps, *phi)
        log_prior = anp.sum(norm.logpdf(theta, 0, model.alpha), axis=1)
        log_lik = 20 / M * naive_log_likelihood(model, theta, rows)
        return anp.mean(log_lik + log_prior - anp.sum(log_q(theta, *phi), axis=1))

    bound, dphi = sgvb_1(model, q, phi, eps, rows)
    assert_allclose(bound, objective(phi), rtol=1e-12)
    close(dphi, grad(objective)(phi))
    assert sgvb_1(model, q, phi, eps, rows, gradient=False) == (bound, None)


@pytest.mark.parametrize("rows", [slice(None), np.array([3, 0, 11, 7, 7])], ids=["all rows", "minibatch"])
@pytest.mark.parametrize("model", [linear(), logistic_regression()], ids=["linear", "logistic"])
def test_l2_and_its_gradient_equal_autograd_of_the_objective_written_out(model, rows):
    generator = np.random.default_rng(2)
    phi, eps, M = 0.4 * generator.standard_normal((2, 3)), generator.standard_normal((4, 3)), len(model.y[rows])

    def objective(phi):
        mu, var = phi[0], anp.exp(2 * phi[1])
        kl = 0.5 * anp.sum((var + mu**2) / model.alpha**2 - 1 - anp.log(var / model.alpha**2))
        return 20 / M * anp.mean(naive_log_likelihood(model, mu + anp.sqrt(var) * eps, rows)) - kl

    bound, dphi = sgvb_2(model, gaussian, phi, eps, rows)
    assert_allclose(bound, objective(phi), rtol=1e-12)
    close(dphi, grad(objective)(phi))
    assert sgvb_2(model, gaussian, phi, eps, rows, gradient=False) == (bound, None)


def test_evidence_and_posterior_of_linear_regression_are_those_of_the_joint_gaussian():
    model = linear()
    covariance = model.noise**2 * np.eye(20) + model.alpha**2 * model.x @ model.x.T
    assert_allclose(model.log_evidence(), stats.multivariate_normal(np.zeros(20), covariance).logpdf(model.y))
    mean, precision = model.posterior()
    gain = model.alpha**2 * model.x.T @ np.linalg.inv(covariance)
    assert_allclose(mean, gain @ model.y)
    assert_allclose(np.linalg.inv(precision), model.alpha**2 * (np.eye(3) - gain @ model.x))


@both
def test_the_best_diagonal_q_of_a_linear_regression_has_the_stated_gap_and_is_stationary_e10(estimator):
    model = linear()
    phi, gap = best(model)
    assert gap > 0.1
    bound, dphi = estimator(model, gaussian, phi, sigma_points(3))
    assert_allclose(bound, model.log_evidence() - gap, rtol=1e-12)
    assert np.abs(dphi).max() < 1e-10
    for off in (np.array([[0.1], [0]]), np.array([[0], [0.1]])):  # controls: another mean, another variance
        bound, dphi = estimator(model, gaussian, phi + off, sigma_points(3))
        assert bound < model.log_evidence() - gap - 1e-3 and np.abs(dphi).max() > 0.1


def test_where_q_is_the_posterior_l1_is_the_evidence_at_every_draw_and_l2_in_the_mean_e4():
    model, n = linear(orthogonal=True), 2000
    phi, gap = best(model)
    assert abs(gap) < 1e-12
    bounds, gradients = each(sgvb_1, model, gaussian, phi, n)
    assert_allclose(bounds, model.log_evidence(), rtol=1e-10)
    assert np.abs(gradients.mean(axis=0) / (gradients.std(axis=0) + 1e-9) * np.sqrt(n)).max() < 4.89
    bounds, _ = each(sgvb_2, model, gaussian, phi, n)
    assert abs(bounds.mean() - model.log_evidence()) < 4.89 * bounds.std() / np.sqrt(n) and bounds.std() > 0.5
    bounds, _ = each(sgvb_1, model, gaussian, phi + 0.1, n)  # control
    assert bounds.std() > 0.1 and bounds.max() - model.log_evidence() > -1 > bounds.min() - model.log_evidence()


def test_l1_less_l2_has_mean_zero_in_value_and_gradient_as_e6():
    model, n = logistic_regression(), 5000
    phi = np.array([[0.6, -0.3, 0.2], [-0.5, -0.9, -0.2]])
    (one, d_one), (two, d_two) = (each(estimator, model, gaussian, phi, n) for estimator in (sgvb_1, sgvb_2))

    def z(difference):
        return np.abs(difference.mean(axis=0) / difference.std(axis=0)).max() * np.sqrt(n)

    assert z(one - two) < 4.89 and z(d_one - d_two) < 4.89
    assert z(one - two + 0.5) > 4.89  # control: a constant of half a nat
    assert z(d_one - d_two + np.array([[0], [1]])) > 4.89  # control: the 1 that ∂-log q/∂log σ is


@both
def test_minibatches_of_a_partition_average_to_all_the_data_e9(estimator):
    model, eps = logistic_regression(), np.random.default_rng(3).standard_normal((2, 3))
    phi, order = np.array([[0.6, -0.3, 0.2], [-0.5, -0.9, -0.2]]), np.random.default_rng(4).permutation(20)
    parts = [order[:8], order[8:16], order[16:]]  # a short last one
    found = [estimator(model, gaussian, phi, eps, rows) for rows in parts]
    bound, dphi = estimator(model, gaussian, phi, eps)
    assert_allclose(sum(len(r) / 20 * b for r, (b, _) in zip(parts, found, strict=True)), bound, rtol=1e-12)
    assert_allclose(sum(len(r) / 20 * d for r, (_, d) in zip(parts, found, strict=True)), dphi, rtol=1e-11)


@both
def test_log_evidence_less_the_bound_of_a_logistic_regression_is_the_kl_by_quadrature_e7(estimator):
    model, phi = logistic_regression(p=2), np.array([[0.8, -0.3], [-0.6, -0.4]])

    def grid(points):
        return np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2), (points[1] - points[0]) ** 2

    theta, cell = grid(np.linspace(-8, 8, 161))
    log_p = model.log_likelihood(theta, gradient=False)[0] + model.log_prior(theta, gradient=False)[0]
    log_evidence = np.log(cell * np.exp(log_p).sum())
    log_q = stats.norm.logpdf(theta, phi[0], np.exp(phi[1])).sum(axis=1)
    kl = cell * (np.exp(log_q) * (log_q - log_p + log_evidence)).sum()
    eps, cell = grid(np.linspace(-8, 8, 41))
    draws = np.array([estimator(model, gaussian, phi, one[None], gradient=False)[0] for one in eps])
    bound = cell * (stats.norm.pdf(eps).prod(axis=1) * draws).sum()
    assert kl > 0.01
    assert_allclose(log_evidence - bound, kl, rtol=1e-9)


@both
def test_sgvb_reaches_the_best_diagonal_q_of_a_linear_regression(estimator):
    model = linear()
    phi, gap = best(model)
    found, bounds = fit_posterior(model, estimator=estimator, steps=4000, n_samples=2, batch_size=10)
    sd = np.exp(phi[1])
    assert np.abs(found[0] - phi[0]).max() < 0.2 * sd.min()
    assert np.abs(found[1] - phi[1]).max() < 0.15
    reached = sgvb_2(model, gaussian, found, sigma_points(3))[0]  # exact, the model being quadratic
    assert model.log_evidence() - gap - 0.05 < reached < model.log_evidence() - gap
    assert bounds.shape == (4000,) and bounds[:10].mean() < bounds[-500:].mean() - 10


def test_adagrad_and_a_laplace_q_climb_too_and_a_fit_is_a_function_of_its_seed():
    model = logistic_regression()
    fits = [fit_posterior(model, laplace, optimizer=Adagrad(0.2), steps=300, seed=seed) for seed in (0, 0, 1)]
    (phi, bounds), (again, _), (other, _) = fits
    assert_allclose(phi, again, rtol=0)
    assert np.abs(phi - other).max() > 1e-3
    assert bounds[:20].mean() < bounds[-100:].mean() - 2


def test_q_is_calibrated_where_the_model_is_conjugate_e17():
    # ranks of θ ~ p(θ) among draws of the best q given y ~ p(y|θ): uniform where q is the posterior
    design, generator, n, L = linear(orthogonal=True), np.random.default_rng(5), 2000, 99

    def p_value(off):
        ranks = []
        for _ in range(n):
            theta = design.alpha * generator.standard_normal(3)
            y = design.x @ theta + design.noise * generator.standard_normal(20)
            phi, _ = best(LinearRegression(design.x, y, design.noise, design.alpha))
            draws, _ = gaussian.draw(gaussian.noise(generator, (L, 3)), phi + off)
            ranks.append((draws < theta).sum(axis=0))
        counts = [np.bincount(np.array(ranks)[:, j] // 5, minlength=20) for j in range(3)]
        return min(stats.chisquare(count).pvalue for count in counts)

    assert p_value(0) > 1e-6 / 3  # the false alarm rate
    assert p_value(np.array([[0], [0.2]])) < 1e-6  # controls: σ too large by 22 %, μ off by a quarter of its σ
    assert p_value(np.array([[0.25 * np.exp(best(design)[0][1, 0])], [0]])) < 1e-6


def test_a_fit_leaves_the_optimiser_that_it_was_given_as_it_was():
    optimizer = Adam(0.03)
    fit_posterior(linear(), optimizer=optimizer, steps=3)
    assert vars(optimizer) == vars(Adam(0.03))


def test_a_bound_that_is_not_finite_is_told_with_its_step():
    with pytest.raises(
        FloatingPointError, match=r"the bound is nan at step 2; not finite is the gradient of q\.location: try"
    ):
        fit_posterior(linear(), optimizer=Adam(1000.0), steps=10)


@pytest.mark.parametrize(
    ("model", "optimizer", "state"),
    [
        (LinearRegression(1e100 * linear().x, np.zeros(20)), Adam(0.05), "v"),
        (LinearRegression(linear().x, linear().y, noise=1e-80), Adagrad(0.05), "h"),
    ],
    ids=["large inputs", "small noise"],
)
def test_a_phi_that_cannot_move_since_squares_of_the_gradient_overflow_is_told(model, optimizer, state):
    words = rf"^{state}, the optimiser's state, is not finite after step {{}}: bring the data nearer to 1$"
    with pytest.raises(FloatingPointError, match=words.format(50)):
        fit_posterior(model, optimizer=optimizer, steps=50)
    with pytest.raises(FloatingPointError, match=words.format(100)):  # and long before the end
        fit_posterior(model, optimizer=optimizer, steps=10_000)


def test_the_last_update_is_looked_at():
    with pytest.raises(FloatingPointError, match=r"^q\.location is not finite after step 1: try a smaller step size$"):
        fit_posterior(linear(), optimizer=SGD(1e308), steps=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sgvb_2(linear(), laplace, np.zeros((2, 3)), np.full((1, 3), 0.5)),
            "L^2 needs KL(q ‖ p(θ)) in closed form: a gaussian q and a model with alpha, p(θ) = N(0, alpha² I); "
            "these are laplace and LinearRegression: take L^1, sgvb_1",
        ),
        (
            lambda: sgvb_1(linear(), gaussian, np.zeros((2, 3)), np.zeros((1, 3)), rows=[]),
            "rows picks none of the 20 datapoints; expected a minibatch of one or more",
        ),
        (lambda: fit_posterior(linear(), batch_size=21), "batch_size is 21; expected no more than the 20 datapoints"),
        (lambda: fit_posterior(linear(), steps=0), "steps is 0; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), steps=2.5), "steps is 2.5; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), n_samples=0), "n_samples is 0; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), n_samples=2.5), "n_samples is 2.5; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), batch_size=0), "batch_size is 0; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), batch_size=2.5), "batch_size is 2.5; expected a whole number ≥ 1"),
        (lambda: fit_posterior(linear(), seed=-1), "seed is -1; expected a whole number ≥ 0"),
        (
            lambda: fit_posterior(linear(), "laplace"),
            "q 'laplace'; expected one such as LinearRegression, and a law of",
        ),
        (lambda: fit_posterior(laplace), "model is LocationScale and q"),
        (lambda: fit_posterior(linear(), start=np.zeros(3)), "start has shape (3,); expected (2, 3)"),
        (lambda: fit_posterior(linear(), start=np.ma.masked_less(np.zeros((2, 3)), 1)), "start has masked entries"),
        (lambda: fit_posterior(linear(), start=np.full((2, 3), "1")), "start holds texts"),
        (lambda: fit_posterior(linear(), start=np.full((2, 3), 1j)), "start holds complex numbers"),
        (lambda: fit_posterior(linear(), start=np.full((2, 3), np.inf)), "start has values that are not finite"),
        (
            lambda: fit_posterior(linear(), optimizer=Adagrad),
            "optimizer is <class 'scratchvae.training.optim.Ada",
        ),
        (lambda: fit_posterior(linear(), optimizer=3), "optimizer is 3; expected one such as Adagrad(0.01)"),
        (lambda: fit_posterior(linear(), optimizer=0), "optimizer is 0; expected one such as Adagrad(0.01)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_the_regression_study_runs_on_a_small_scale(run_example, tmp_path):
    run_example("regression", "--scale", "0.01", "--jobs", "2", "--results", "results")
    table = (tmp_path / "results" / "regression.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 5 + 3
    assert is_drawn(tmp_path / "results" / "regression.png")


@pytest.mark.parametrize("size", [1, 1e6, 1e9])
def test_linear_regression_keeps_its_prior_where_columns_are_large_and_alike(size):
    """By symmetry both θ are aᵀy s/(1/α² + 2 s² aᵀa), and y ~ N(0, I + 2 α² s² a aᵀ), with s the size."""
    a = np.array([1.0, 2, -1, 0.5])
    y = np.array([3.0, 1, 0.5, -2])
    model = LinearRegression(size * np.column_stack([a, a]), y, alpha=0.5)
    weight = 2 * 0.25 * size**2
    m, exact = model.posterior()[0], size * a @ y / (4 + 2 * size**2 * a @ a)
    assert_allclose(m.sum(), 2 * exact, rtol=1e-5)
    assert np.abs(m - exact).max() < 1e-6  # the difference of the two has the prior's standard deviation, 0.5
    square = y @ y - weight * (a @ y) ** 2 / (1 + weight * a @ a)
    expected = -0.5 * (4 * np.log(2 * np.pi) + np.log1p(weight * a @ a) + square)
    assert_allclose(model.log_evidence(), expected, rtol=1e-6)


def test_numbers_that_float64_cannot_square_are_refused():
    for x, y in [(1e200, 1.0), (1.0, 1e200)]:
        with pytest.raises(ValueError, match="x or y has values whose squares are not finite: scale them"):
            LinearRegression([[x]], [y])
