"""models/factor_analysis.py: probabilistic PCA in closed form and factor analysis by EM (E19)."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from scratchvae import load_data
from scratchvae.models import factor_analysis
from scratchvae.models.factor_analysis import FLOOR, PPCA, FactorAnalysis, _sweep
from scratchvae.models.moments import centred, principal


def data(n=400, d=6, j=2, seed=0, noise=0.3):
    """Rows of a factor model."""
    generator = np.random.default_rng(seed)
    W, psi = generator.standard_normal((j, d)), noise * generator.uniform(0.5, 2, d)
    return generator.standard_normal((n, j)) @ W + 3 + generator.standard_normal((n, d)) * np.sqrt(psi)


@pytest.fixture(scope="module")
def pixels():
    x = load_data("digits").train / 255
    return x[:, x.std(axis=0) > 0.05]


def test_ppca_has_the_mean_discarded_eigenvalue_and_the_likelihood_in_closed_form_e19():
    x, (N, D), q = data(), (400, 6), 2
    model = PPCA(q).fit(x)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    assert_allclose(model.var_, values[q:].mean())
    log_likelihood = (
        -N / 2 * (D * np.log(2 * np.pi) + np.log(values[:q]).sum() + (D - q) * np.log(values[q:].mean()) + D)
    )
    assert_allclose(N * model.score(x), log_likelihood, rtol=1e-12)
    for step in (0.99, 1.01):  # a maximum: nothing near it is better
        for name in ("W_", "var_"):
            other = PPCA(q).fit(x)
            setattr(other, name, step * getattr(other, name))
            assert other.score(x) < model.score(x)


@pytest.mark.parametrize("model", [PPCA(2), FactorAnalysis(2)])
def test_density_and_posterior_are_those_of_the_joint_gaussian(model):
    x = data()
    model.fit(x)
    W, psi, m = model.W_, np.diag(model.var_), model.mean_
    law = multivariate_normal(m, W.T @ W + psi)
    assert_allclose(model.score_samples(x), law.logpdf(x), rtol=1e-10)
    mean, G = model.posterior(x[:5])
    gain = W @ np.linalg.inv(W.T @ W + psi)  # of the joint Gaussian of z and x
    assert_allclose(mean, (x[:5] - m) @ gain.T, rtol=1e-9)
    assert_allclose(G, np.eye(2) - gain @ W.T, atol=1e-12)
    assert_allclose(model.transform(x[:5]), mean)
    assert_allclose(model.inverse_transform(mean), mean @ W + m)


@pytest.mark.parametrize("model", [PPCA(2), FactorAnalysis(2)])
def test_samples_have_the_moments_of_the_density_e23(model):
    model.fit(data())
    n = 200_000
    x = model.sample(n, seed=1)
    assert_allclose(x, model.sample(n, seed=1))
    covariance = model.W_.T @ model.W_ + np.diag(model.var_)
    assert (np.abs(x.mean(axis=0) - model.mean_) < 4.89 * np.sqrt(np.diag(covariance) / n)).all()
    spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / n)  # of a covariance entry
    assert (np.abs(np.cov(x.T) - covariance) < 4.89 * spread).all()


def test_em_never_lowers_the_likelihood_and_ends_where_scikit_learn_does_e19(pixels):
    from sklearn.decomposition import FactorAnalysis as Theirs

    ours = FactorAnalysis(5, tol=1e-10, max_iter=5000).fit(pixels)
    history = ours.log_likelihood_
    assert len(history) > 20 and np.diff(history).min() >= -1e-9 * abs(history[-1])
    theirs = Theirs(5, svd_method="lapack", tol=1e-8, max_iter=5000).fit(pixels)
    assert abs(ours.score(pixels) - theirs.score(pixels)) < 1e-6
    assert_allclose(ours.score(pixels), history[-1], rtol=1e-12)
    covariance = ours.W_.T @ ours.W_ + np.diag(ours.var_)  # W itself is known up to a rotation
    assert np.abs(covariance - theirs.get_covariance()).max() < 1e-4
    assert ours.score(pixels) > PPCA(5).fit(pixels).score(pixels) + 1  # a variance for every pixel is worth it


def test_one_em_step_is_the_slides_update():
    x, J = data(), 2
    once = FactorAnalysis(J, max_iter=1)
    with pytest.warns(UserWarning, match="EM has not converged to tol = 1e-06 in 1 iterations"):
        once.fit(x)
    d, sd = x - x.mean(axis=0), x.std(axis=0)
    start = PPCA(J).fit(d / sd)
    W, psi = start.W_ * sd, start.var_ * sd**2
    G = np.linalg.inv(np.eye(J) + W / psi @ W.T)
    z = [G @ (W / psi) @ row for row in d]
    xz = sum(np.outer(row, one) for row, one in zip(d, z, strict=True))
    zz = sum(G + np.outer(one, one) for one in z)
    W_new = (xz @ np.linalg.inv(zz)).T
    assert_allclose(once.W_, W_new, rtol=1e-9)
    assert_allclose(once.var_, np.diag(d.T @ d - W_new.T @ xz.T) / len(x), rtol=1e-9)


def test_the_units_of_the_columns_do_not_matter_to_factor_analysis():
    x, units = data(), np.array([1, 10, 100, 0.1, 0.01, 1])
    one, other = FactorAnalysis(2).fit(x), FactorAnalysis(2).fit(x * units)
    assert_allclose(one.score(x), other.score(x * units) + np.log(units).sum(), rtol=1e-9)
    assert_allclose(np.abs(one.transform(x)), np.abs(other.transform(x * units)), rtol=1e-5, atol=1e-8)


def test_whole_numbers_are_taken_as_the_numbers_they_are():
    x = load_data("digits").train
    x = x[:, x.std(axis=0) > 13]
    for dtype in (np.uint8, np.int16, np.int64):
        assert PPCA(3).fit(x.astype(dtype)).score(x) == PPCA(3).fit(x.astype(float)).score(x.astype(float))


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda: PPCA(6), data(), "n_latent is 6; expected fewer than the 6 columns of x"),
        (lambda: PPCA(0), data(), "n_latent is 0; expected a whole number ≥ 1"),
        (lambda: PPCA(2), data(1), "x has 1 row; expected two or more"),
        (lambda: PPCA(2), data(noise=0), "x varies in no more than 2 directions"),
        (lambda: PPCA(2), data()[0], r"x has shape (6,); expected (N, D)"),
        (lambda: PPCA(2), data() * np.nan, "x has values that are not finite"),
        (lambda: FactorAnalysis(2), data() * [1, 1, 0, 1, 0, 1], "2 of the 6 columns of x never vary"),
        (lambda: FactorAnalysis(2, max_iter=0), data(), "max_iter is 0; expected a whole number ≥ 1"),
        (lambda: FactorAnalysis(2, tol=-1), data(), "tol is -1; expected a number > 0"),
    ],
)
def test_what_has_no_maximum_of_the_likelihood_is_refused(make, x, message):
    with pytest.raises(ValueError) as error:
        make().fit(x)
    assert message in str(error.value)


@pytest.mark.parametrize("model", [PPCA(2), FactorAnalysis(2)])
def test_a_fit_that_is_refused_leaves_the_one_before(model):
    x = data()
    score = model.fit(x).score(x)
    refused = "x varies in no more than 2" if type(model) is PPCA else "1 of the 6 columns of x never vary"
    for bad, message in [
        (np.outer(np.arange(5), [1, 1, 0, 1, 1, 1]), refused),
        (x * np.nan, "x has values that are not finite"),
        (x[:, :2], "n_latent is 2; expected fewer than the 2 columns of x"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(bad)
        assert model.score(x) == score


def test_a_column_that_the_factors_explain_to_the_last_loses_its_noise_and_nothing_breaks():
    """A Heywood case: the likelihood grows without bound as the variance of that column's noise goes to 0."""
    generator = np.random.default_rng(0)
    z = generator.standard_normal((300, 1))
    noise = generator.standard_normal((300, 4))
    noise -= 0.6 * noise.mean(axis=1, keepdims=True)  # so that the others have less in common than each has with z
    x = np.concatenate([z, z + 0.5 * noise], axis=1)
    with pytest.warns(UserWarning, match="the noise of column 0 has the least variance allowed, 1e-06 of the column's"):
        model = FactorAnalysis(1, n_starts=1).fit(x)
    assert np.isfinite(model.log_likelihood_).all() and model.heywood_ == ["0"]
    assert_allclose(model.var_[0], FLOOR * x[:, 0].var(), rtol=1e-9)
    d = x - x.mean(axis=0)
    rest = d - d[:, :1] * (d[:, 0] @ d / (d[:, 0] @ d[:, 0]))  # the factor is column 0, and the others' noise is this
    assert_allclose(model.var_[1:], (rest**2).mean(axis=0)[1:], rtol=1e-5)


def test_a_model_that_is_not_fitted_says_so():
    for call in (lambda m: m.sample(3), lambda m: m.inverse_transform(np.zeros((1, 2))), lambda m: m.score(data())):
        with pytest.raises(ValueError, match="this FactorAnalysis is not fitted yet"):
            call(FactorAnalysis(2))
    with pytest.raises(ValueError, match=r"x has shape \(3, 4\); expected \(N, 2\)"):
        PPCA(2).fit(data()).inverse_transform(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"this PPCA is not fitted yet: call fit\(x\) first"):
        PPCA(2).transform(data())
    model = PPCA(2).fit(data())
    with pytest.raises(ValueError, match=r"x has shape \(3, 5\); expected \(N, 6\)"):
        model.score(np.zeros((3, 5)))


def test_each_iteration_and_each_score_inverts_one_matrix_of_j_by_j(monkeypatch):
    shapes, inv = [], np.linalg.inv

    def counted(matrix):
        shapes.append(matrix.shape)
        return inv(matrix)

    monkeypatch.setattr(np.linalg, "inv", counted)
    model = FactorAnalysis(2, n_starts=1).fit(data())
    assert shapes == [(2, 2)] * (len(model.log_likelihood_) + 1)  # the last sweep begins where EM has ended
    shapes.clear()
    model.score(data())
    assert shapes == [(2, 2)]


def joereskog(x, J, starts=12):
    """The highest log-likelihood per datapoint over ψ with the best W put in, by L-BFGS from several starts."""
    d = (x - x.mean(axis=0)) / x.std(axis=0)
    R, D = d.T @ d / len(d), x.shape[1]

    def minus(log_psi):
        root = np.exp(-0.5 * log_psi)
        values, vectors = np.linalg.eigh(R * np.outer(root, root))
        kept, left = np.maximum(values[-J:], 1), values[:-J]
        inside = np.minimum(values[-J:], 1)
        value = 0.5 * (D * np.log(2 * np.pi) + log_psi.sum() + np.log(kept).sum() + inside.sum() + left.sum())
        return value, 0.5 * (1 - vectors[:, -J:] ** 2 @ inside - vectors[:, :-J] ** 2 @ left)

    found = []
    for seed in range(starts):
        start = np.log(np.random.default_rng(seed).uniform(0.05, 1, D))
        options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9}
        end = minimize(minus, start, jac=True, method="L-BFGS-B", bounds=[(np.log(1e-6), 5)] * D, options=options)
        found.append(-end.fun - np.log(x.std(axis=0)).sum())
    return max(found)


def test_several_starts_find_the_highest_maximum_known_on_digits():
    from sklearn.datasets import load_digits

    x = load_digits().data
    x = x[:, x.std(axis=0) > 1]
    best = joereskog(x, 8)
    assert_allclose(best, -128.5045, atol=1e-4)
    model = FactorAnalysis(8).fit(x)
    assert abs(model.score(x) - best) < 1e-4
    assert len(model.starts_) == 10 and model.starts_.max() - model.starts_[0] > 0.2  # PPCA's start is not enough
    assert abs(FactorAnalysis(8).fit(x, seed=5).score(x) - best) < 0.005
    one = FactorAnalysis(8, n_starts=1).fit(x)
    assert_allclose(one.score(x), -128.7493, atol=1e-3)  # control
    assert_array_equal(FactorAnalysis(8).fit(x).W_, model.W_)


@pytest.mark.parametrize(("name", "J", "lost"), [("iris", 1, ["2"]), ("iris", 2, ["1", "2"]), ("wine", 3, [])])
def test_a_noise_that_vanishes_is_followed_to_its_floor_and_named(name, J, lost):
    from sklearn import datasets

    x = getattr(datasets, f"load_{name}")().data
    if lost:
        with pytest.warns(UserWarning, match=f"the noise of columns? {', '.join(lost)} has the least variance allowed"):
            model = FactorAnalysis(J).fit(x)
    else:
        model = FactorAnalysis(J).fit(x)
    assert model.heywood_ == lost
    assert abs(model.score(x) - joereskog(x, J)) < 1e-4
    assert_allclose(model.var_[[int(i) for i in lost]], 1e-6 * x.var(axis=0)[[int(i) for i in lost]])
    assert np.diff(model.log_likelihood_).min() > -1e-9


def test_the_columns_of_a_data_frame_are_called_by_their_names():
    from sklearn.datasets import load_iris

    class Frame:
        """What is asked of a data frame."""

        columns = load_iris().feature_names

        def __array__(self, dtype=None, copy=None):
            return load_iris().data

    frame = Frame()
    with pytest.warns(UserWarning, match=r"the noise of column petal length \(cm\) has"):
        assert FactorAnalysis(1).fit(frame).heywood_ == ["petal length (cm)"]


def test_the_second_em_step_is_that_of_an_independent_computation():
    """At the first step from PPCA the new W is nearly the old one; at the second the order of the updates shows."""
    x, J = data(), 2
    with pytest.warns(UserWarning, match="EM has not converged to tol = 1e-06 in 2 iterations"):
        twice = FactorAnalysis(J, max_iter=2, n_starts=1).fit(x)
    d, sd = x - x.mean(axis=0), x.std(axis=0)
    start = PPCA(J).fit(d / sd)
    W, psi = start.W_ * sd, start.var_ * sd**2

    def step(W, psi, old_for_noise=False):
        C = W.T @ W + np.diag(psi)
        gain = W @ np.linalg.inv(C)  # E z = (x - m) gainᵀ, cov(z|x) = I - gain Wᵀ, of the joint Gaussian
        S = d.T @ d / len(d)
        xz, zz = S @ gain.T, np.eye(J) - gain @ W.T + gain @ S @ gain.T
        new = np.linalg.solve(zz, xz.T)
        by = W if old_for_noise else new
        return new, np.diag(S - 2 * xz @ by + by.T @ zz @ by)

    once = step(W, psi)
    expected = step(*once)
    assert_allclose(twice.W_, expected[0], rtol=1e-9)
    assert_allclose(twice.var_, expected[1], rtol=1e-9)
    assert np.abs(step(*once, old_for_noise=True)[1] / expected[1] - 1).max() > 1e-5  # control: the order


def test_a_sweep_puts_each_variance_at_its_maximum_with_all_else_held():
    x = data()
    d = (x - x.mean(axis=0)) / x.std(axis=0)
    R = d.T @ d / len(d)
    generator = np.random.default_rng(3)
    W, var = _sweep(R, generator.standard_normal((2, 6)), generator.uniform(0.2, 1, 6))

    def evidence(var):
        C = W.T @ W + np.diag(var)
        return -0.5 * (np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, R)))

    for factor in (0.99, 1.01):  # the last one is at its maximum, none was moved after it
        assert evidence(var * np.where(np.arange(6) == 5, factor, 1)) < evidence(var) - 1e-7
    fixed = var
    for _ in range(200):
        W, fixed = _sweep(R, W, fixed)
    for i in range(6):
        for factor in (0.99, 1.01):
            assert evidence(fixed * np.where(np.arange(6) == i, factor, 1)) < evidence(fixed)


def test_a_fall_of_the_likelihood_is_an_error_and_no_convergence(monkeypatch):
    ordinary = factor_analysis._em

    def worse(R, W, var, *latents):
        W, var = ordinary(R, W, var, *latents)
        return W, 1.5 * var if var.mean() < 0.4 else var

    x = data(noise=0.1)
    FactorAnalysis(2).fit(x)
    monkeypatch.setattr(factor_analysis, "_em", worse)
    model = FactorAnalysis(2)
    with pytest.raises(FloatingPointError, match=r"the log-likelihood fell by .* nats per datapoint in iteration"):
        model.fit(x)
    assert not hasattr(model, "W_")


UNITS = np.array([1e5, 1e-3, 1, 1e9, 1e-9, 1])


@pytest.mark.parametrize("units", [UNITS, 1e9, 1e-9, 1e100])
def test_columns_of_any_size_are_told_from_columns_that_never_vary(units):
    x = data()
    units = units * np.ones(6)
    one, other = FactorAnalysis(2).fit(x), FactorAnalysis(2).fit(x * units)
    assert_allclose(one.score(x), other.score(x * units) + np.log(units).sum(), rtol=1e-9, atol=1e-7)
    assert_allclose(one.log_likelihood_[-1], other.log_likelihood_[-1] + np.log(units).sum(), rtol=1e-9, atol=1e-7)


def test_ppca_takes_columns_whose_covariance_has_lost_the_digits_of_the_small_ones():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 4)) * [1e5, 1e-3, 1e-3, 1e-3]
    turn = np.linalg.qr(generator.standard_normal((4, 4)))[0]
    model = PPCA(1).fit(x @ turn)  # no column of these is small, and one direction of the four is large
    d = x - x.mean(axis=0)
    # the three small columns, less what the large one says of them
    rest = d[:, 1:] - np.outer(d[:, 0], d[:, 0] @ d[:, 1:]) / (d[:, 0] @ d[:, 0])
    assert_allclose(model.var_[0], (rest**2).mean(), rtol=1e-5)


def columns(*names):
    """Columns of a factor model beside sums of them: "01" is the sum of columns 0 and 1, "0" is a copy."""
    x = data()
    return np.column_stack([x, *[x[:, [int(c) for c in name]].sum(axis=1) for name in names]])


@pytest.mark.parametrize(
    ("x", "J", "message"),
    [
        (columns("0"), 1, "columns 0, 6 of x depend on each other linearly"),
        (7 - 3e5 * columns("2"), 2, "columns 2, 6 of x depend on each other linearly"),
        (columns("01"), 2, "columns 0, 1, 6 of x depend on each other linearly"),
        (columns("34").astype(np.float32), 2, "columns 3, 4, 6 of x depend on each other linearly"),
        (columns("0", "2", "2"), 2, "leave one of them out; 2 other columns equal an earlier one up to a factor"),
        (columns("345", "0"), 2, "columns 0, 7 of x depend on each other linearly"),
        (columns("12")[:5], 2, "of x depend on each other linearly"),  # fewer rows than columns
        (data()[:2], 2, "x varies in no more than 2 directions (it has 2 rows and rank 1)"),
        (data()[:3], 2, "x varies in no more than 2 directions (it has 3 rows and rank 2)"),
        (np.repeat(data()[:3], 50, axis=0), 2, "x varies in no more than 2 directions (it has 150 rows and rank 2)"),
        (np.column_stack([data(), np.full(400, 0.1)]), 2, "1 of the 7 columns of x never vary"),
        (np.column_stack([data(), np.where(np.arange(400) % 2, 0.3, 0.1 + 0.2)]), 2, "1 of the 7 columns"),
        (data() * 1e200, 2, "whose squares are not finite"),
        (data() * 1e-200, 2, "whose squares are 0"),
    ],
)
def test_what_lets_the_likelihood_grow_without_bound_is_refused_by_name(x, J, message):
    with pytest.raises(ValueError) as error:
        FactorAnalysis(J).fit(x)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:the noise of column")  # few rows
@pytest.mark.parametrize(("x", "J"), [(columns("0123"), 2), (columns("01"), 1), (data()[:4], 2), (data()[:5], 2)])
def test_dependent_columns_that_are_more_than_the_factors_explain_are_fitted(x, J):
    model = FactorAnalysis(J).fit(x)
    assert abs(model.score(x) - joereskog(x, J)) < 1e-4
    assert np.isfinite(model.score(data(seed=1)[:, [0] * x.shape[1]]))


def test_the_density_keeps_its_digits_where_a_noise_is_small():
    """x_1 = z + a noise of variance 2^-30, and x_2 = z + ε: the determinant and the inverse are written out."""
    model = FactorAnalysis(1)
    tiny = 2.0**-30
    model.mean_, model.W_, model.var_ = np.zeros(2), np.ones((1, 2)), np.array([tiny, 1.0])
    x = np.array([[1.0, 0.5], [3, -2], [1000, 1001]])
    det = (1 + tiny) * 2 - 1
    square = (2 * x[:, 0] ** 2 - 2 * x[:, 0] * x[:, 1] + (1 + tiny) * x[:, 1] ** 2) / det
    assert_allclose(model.score_samples(x), -np.log(2 * np.pi) - 0.5 * (np.log(det) + square), rtol=1e-12)


@pytest.mark.parametrize("model", [PPCA(2), FactorAnalysis(2)])
@pytest.mark.parametrize("seed", [-1, 1.5, None, "0", True, [1, 2], np.float64(3)])
def test_a_seed_is_a_whole_number_and_what_follows_x_has_a_name(model, seed):
    x = data()
    model.fit(x)
    with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
        model.sample(3, seed)
    with pytest.raises(TypeError, match="positional"):
        model.fit(x, np.zeros(len(x)))
    if isinstance(model, FactorAnalysis):
        with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
            model.fit(x, seed=seed)
        with pytest.raises(ValueError, match=r"n_starts is 0; expected a whole number ≥ 1"):
            FactorAnalysis(2, n_starts=0)


def test_the_start_that_ends_highest_is_the_one_that_goes_on(monkeypatch):
    """Where a run has been before it ended does not count, nor how it began, nor how long it took."""
    runs = iter([[-9.0, -2.0, -1.5], [-8.0, -7.0, -1.0], [-1.2, -1.2], [-30.0, -20.0, -10.0, -1.3]])
    fitted = []

    def climb(model, step, R, W, var, tol):
        if step is factor_analysis._sweep:
            fitted.append(W)
            return W, var, [-1.0, -0.5], True
        return W, var, next(runs), True

    starts = []
    plain = FactorAnalysis._starts

    def noting(model, *arguments):
        for start in plain(model, *arguments):
            starts.append(start[0])
            yield start

    monkeypatch.setattr(FactorAnalysis, "_climb", climb)
    monkeypatch.setattr(FactorAnalysis, "_starts", noting)
    model = FactorAnalysis(2, n_starts=4).fit(data())
    assert_array_equal(fitted[0], starts[1])
    assert_allclose(model.starts_ - model.starts_.max(), [-0.5, 0, -0.2, -0.3], atol=1e-12)
    assert_allclose(np.diff(model.log_likelihood_), [1, 6, 0.5], atol=1e-12)  # its own history, and what came after


def test_columns_that_equal_an_earlier_one_are_counted_each_once():
    """Columns 1 and 2 are within the limit of column 0, and not of each other."""
    near, far = 1 - 0.5e-12, 1 - 2e-12
    R = np.array([[1, near, near, 0], [near, 1, far, 0], [near, far, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match=r"columns 0, 1 of x depend .*; 1 other columns equal an earlier one"):
        factor_analysis._check_related(R, np.ones(4), np.eye(4), 1, list("0123"))
    alone = np.array([[1, near, 0], [near, 1, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"columns 0, 1 of x depend .* leave one of them out$"):
        factor_analysis._check_related(alone, np.ones(3), np.eye(3), 1, list("012"))


@pytest.mark.parametrize(
    ("values", "met", "settled", "error"),
    [
        ([-4, -3, -2.75, -2.625], 4, True, None),  # a rise of tol itself goes on, and a lesser one ends
        ([-4, -3.875], 2, True, None),
        ([-4, -4.125], 2, True, None),  # no more than rounding
        ([-4, -4.25], 2, None, "the log-likelihood fell by 0.25 nats per datapoint in iteration 1"),
        ([-4, -3, -3.5], 3, None, "the log-likelihood fell by 0.5 nats per datapoint in iteration 2"),
        ([-4, -3, -2, -1, 0, 1], 4, False, None),  # three iterations are allowed, after the start
    ],
)
def test_a_climb_ends_where_the_rise_is_less_than_tol_or_after_max_iter_steps(values, met, settled, error, monkeypatch):
    coming = iter(values)
    steps = []

    def step(R, W, var, *latents):
        steps.append(var)
        return W, var + 1

    monkeypatch.setattr(factor_analysis, "_evidence", lambda R, W, var: (next(coming), 0.125, ()))
    model = FactorAnalysis(2, tol=0.25, max_iter=3)
    if error:
        with pytest.raises(FloatingPointError, match=error):
            model._climb(step, None, None, 0, model.tol)
    else:
        assert model._climb(step, None, None, 0, model.tol) == (None, met - 1, values[:met], settled)
    assert steps == list(range(met - 1))  # the result is where the last value was met


def test_fewer_rows_than_columns_need_no_matrix_of_columns_by_columns():
    x = np.random.default_rng(0).standard_normal((12, 3000))
    mean, d = centred(x)
    values, vectors, rank = principal(mean, d)
    assert vectors.shape == (3000, 12) and values.shape == (3000,) and rank == 11
    S = d[:, :40].T @ d[:, :40] / 12
    small = principal(mean[:40], d[:, :40])
    assert_allclose(small[0], np.linalg.eigvalsh(S), atol=1e-12)
    assert_allclose(small[1] * small[0][-12:] @ small[1].T, S, atol=1e-12)
    model = PPCA(4).fit(x)
    direct = -0.5 * (3000 * np.log(2 * np.pi) + np.log(values[-4:]).sum() + 2996 * np.log(model.var_[0]) + 3000)
    assert_allclose(model.score(x), direct, rtol=1e-9)


@pytest.mark.parametrize("allow", [False, True])
def test_where_the_likelihood_has_no_maximum_it_is_refused_or_bounded_by_the_least_noise(allow):
    x = np.random.default_rng(0).standard_normal((30, 2)) @ np.random.default_rng(1).standard_normal((2, 5))
    for make in (PPCA, FactorAnalysis):
        for J in (2, 3, 5):
            model = make(J, allow_singular=allow)
            if not allow:
                with pytest.raises(ValueError, match=r"varies in no more than|expected fewer than the 5 columns"):
                    model.fit(x)
                continue
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "the noise of columns|the rank of x is 2")
                model.fit(x)
            least = FLOOR * (x.var(axis=0).mean() if make is PPCA else x.var(axis=0))
            assert (model.var_ >= least * (1 - 1e-9)).all() and np.isfinite(model.score_samples(x)).all()
            assert_allclose(model.inverse_transform(model.transform(x)), x, atol=0.02)
    for J in (0, 6):
        with pytest.raises(ValueError, match=r"n_latent is 6; expected no more than the 5 columns|whole number ≥ 1"):
            PPCA(J, allow_singular=J > 0).fit(x)
    with pytest.raises(ValueError, match="n_latent is 4; expected no more than the 3 rows of x"):
        PPCA(4, allow_singular=True).fit(x[:3])
    assert_allclose(FactorAnalysis(0, allow_singular=True).fit(x).var_, x.var(axis=0))
    with pytest.raises(ValueError, match="allow_singular is 1; expected True or False"):
        PPCA(2, allow_singular=1)


def test_em_ends_at_its_own_tolerance_and_the_sweeps_at_the_one_that_was_asked_for():
    x = data()
    rough, fine = (FactorAnalysis(2, tol=tol, n_starts=1).fit(x) for tol in (1e-6, 1e-12))
    assert fine.score(x) >= rough.score(x)
    assert np.diff(fine.log_likelihood_)[-1] < 1e-12 and len(fine.log_likelihood_) < len(rough.log_likelihood_) + 200
    assert_array_equal(rough.starts_, fine.starts_)
    assert rough.converged_
