"""models/factor_analysis.py: probabilistic PCA in closed form and factor analysis by EM (E19)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from scratchvae import load_data
from scratchvae.models.factor_analysis import PPCA, FactorAnalysis


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
    for bad in (np.ones((5, 6)) * np.arange(5)[:, None], x * np.nan, x[:, :2]):
        with pytest.raises(ValueError):
            model.fit(bad * [1] if bad.shape[1] == 2 else bad * [1, 1, 0, 1, 1, 1])
        assert model.score(x) == score


def test_a_column_that_the_factors_explain_to_the_last_loses_its_noise_and_nothing_breaks():
    """A Heywood case: the likelihood grows without bound as the variance of that column's noise goes to 0."""
    generator = np.random.default_rng(0)
    z = generator.standard_normal((300, 1))
    x = np.concatenate([z, z + 0.5 * generator.standard_normal((300, 4))], axis=1)
    model = FactorAnalysis(1, tol=1e-4, max_iter=3000).fit(x)
    assert np.isfinite(model.log_likelihood_).all() and (model.var_ > 0).all()
    assert model.var_[0] < 0.05 * model.var_[1:].min()


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
    model = FactorAnalysis(2).fit(data())
    assert shapes == [(2, 2)] * len(model.log_likelihood_)
    shapes.clear()
    model.score(data())
    assert shapes == [(2, 2)]
