"""scratchvae/sklearn: the models as estimators of scikit-learn, by its own checks and by what its users do."""

import contextlib
import copy
import io
import json
import pickle
import signal
import threading
from contextlib import redirect_stdout

import joblib
import numpy as np
import pandas
import polars
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from sklearn import decomposition
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import BayesianGaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import scratchvae
from scratchvae import Adam, load_model
from scratchvae.inference.likelihoods import Isotropic
from scratchvae.models import autoencoder, factor_analysis
from scratchvae.sklearn import PCA, PPCA, VAE, FactorAnalysis, LinearAutoencoder, MixtureOfGaussians
from scratchvae.sklearn import vae as estimator_file
from scratchvae.sklearn.run import Run
from scratchvae.sklearn.vae import SCORING, paired
from scratchvae.training.loop import fit, stream
from scratchvae.training.optim import Adagrad, Continued

OURS = (VAE, PPCA, FactorAnalysis, PCA, LinearAutoencoder, MixtureOfGaussians)
OTHERS = (VAE(early_stopping=True, max_iter=20), VAE(full_vb=True, n_importance=30, max_iter=5))
HEYWOOD = "ignore:the noise of columns? .* has the least variance allowed:UserWarning"  # true words on noise as data
WIDE = "ignore:the rank of x is .* and .* latents explain it to the last:UserWarning"
FEW = "ignore:X has .* rows, by which the columns are standardised:UserWarning"
SHORT = "ignore:not converged after max_iter"

WINE = load_wine().data


def quick(**settings):
    """A VAE that trains for some passes, of which the last is no better than those before, so that it does not warn."""
    return VAE(**{"max_iter": 3, "n_iter_no_change": 1, "tol": 1e9, "random_state": 0} | settings)


@pytest.mark.filterwarnings(HEYWOOD, WIDE, FEW, SHORT, "ignore:k_hat is above")
@parametrize_with_checks([*(estimator() for estimator in OURS), *OTHERS])
def test_scikit_learns_own_checks_pass_without_an_exception(estimator, check):
    check(estimator)


# What all of them do


def fitted(estimator, X):
    """The estimator, fitted to X in well under a second."""
    if estimator is VAE:
        return quick().fit(X)
    return estimator(2, **({} if estimator is PCA else {"random_state": 0})).fit(X)


def answers(estimator, X):
    """What each of its methods says of rows X, by the name of the method."""
    said = {}
    for name in ("transform", "score_samples", "reconstruct", "predict_proba"):
        if hasattr(estimator, name):
            said[name] = getattr(estimator, name)(X)
    if hasattr(estimator, "inverse_transform"):
        said["inverse_transform"] = estimator.inverse_transform(said["transform"])
    return said


@pytest.mark.parametrize("estimator", OURS)
def test_the_precision_that_comes_in_goes_out(estimator):
    for dtype in (np.float32, np.float64):
        X = WINE.astype(dtype)
        model = fitted(estimator, X)
        said = answers(model, X)
        assert said
        assert {name: value.dtype for name, value in said.items()} == dict.fromkeys(said, np.dtype(dtype))
        if hasattr(model, "sample"):
            drawn = model.sample(3, random_state=1)
            assert (drawn[0] if isinstance(drawn, tuple) else drawn).dtype == dtype
    assert fitted(VAE, WINE.astype(np.float32)).model_.dtype == np.float32


@pytest.mark.parametrize("estimator", OURS)
def test_a_copy_by_pickle_by_joblib_and_by_deepcopy_answers_alike(estimator, tmp_path):
    model = fitted(estimator, WINE)
    said = answers(model, WINE)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    copies.append(joblib.load(tmp_path / "model.joblib", mmap_mode="r"))
    for other in copies:
        for name, value in answers(other, WINE).items():
            assert_array_equal(value, said[name])


@pytest.mark.parametrize("estimator", OURS)
def test_before_fit_each_method_says_that_it_comes_too_early(estimator):
    methods = {"transform", "inverse_transform", "reconstruct", "score_samples", "score", "predict", "predict_proba"}
    for name in methods & set(dir(estimator)):
        with pytest.raises(NotFittedError, match=f"This {estimator.__name__} instance is not fitted yet"):
            getattr(estimator(), name)(WINE)
    if hasattr(estimator, "sample"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            estimator().sample()


@pytest.mark.parametrize("estimator", [VAE, PPCA, FactorAnalysis, PCA, LinearAutoencoder])
def test_data_frames_of_pandas_and_polars_come_out_with_named_columns(estimator):
    names = [f"c{i}" for i in range(WINE.shape[1])]
    for frame, kind in (
        (pandas.DataFrame(WINE, columns=names), "pandas"),
        (polars.DataFrame(WINE, schema=names), "polars"),
    ):
        model = fitted(estimator, frame).set_output(transform=kind)
        out = model.transform(frame)
        stem = estimator.__name__.lower()
        assert type(out) is type(frame) and list(out.columns) == [f"{stem}0", f"{stem}1"]
        assert list(model.get_feature_names_out()) == [f"{stem}0", f"{stem}1"]
        assert_allclose(out.to_numpy(), fitted(estimator, WINE).transform(WINE), rtol=1e-9, atol=1e-9)
        theirs = decomposition.PCA(2).fit(frame)  # which does not see the names of polars 2 in scikit-learn 1.6
        assert list(getattr(model, "feature_names_in_", [])) == list(getattr(theirs, "feature_names_in_", []))
        if kind == "pandas":
            assert list(model.feature_names_in_) == names
            with pytest.raises(ValueError, match="feature names"):
                model.transform(frame[names[::-1]])


@pytest.mark.filterwarnings(SHORT)
def test_a_pipeline_is_searched_over_components_and_likelihoods():
    X, y = load_digits(return_X_y=True)
    pipe = Pipeline(
        [
            ("scale", MinMaxScaler(clip=True)),
            ("vae", VAE(max_iter=10, n_hidden=30, random_state=0)),
            ("classify", LogisticRegression(max_iter=500)),
        ]
    )
    grid = {"vae__n_components": [2, 8], "vae__likelihood": ["isotropic", "bernoulli"]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X[:600], y[:600])
    assert search.best_params_["vae__n_components"] == 8 and search.best_score_ > 0.5
    scores = (
        GridSearchCV(VAE(max_iter=10, random_state=0), {"n_components": [1, 8]}, cv=2).fit(X[:300] / 16).cv_results_
    )
    assert np.isfinite(scores["mean_test_score"]).all()  # by the bound of the rows that are left out


# The linear models


def test_the_linear_estimators_are_the_models_of_the_package():
    X = WINE / WINE.std(axis=0)
    pairs = [
        (PCA(2), autoencoder.PCA(2)),
        (PPCA(3), factor_analysis.PPCA(3)),
        (FactorAnalysis(3, tol=1e-7, n_init=3, random_state=5), factor_analysis.FactorAnalysis(3, 1e-7, n_starts=3)),
    ]
    for ours, model in pairs:
        ours.fit(X, np.arange(len(X)))  # y is ignored
        settings = {"seed": np.random.RandomState(5).randint(2**31 - 1)} if isinstance(ours, FactorAnalysis) else {}
        model.fit(X, **settings)
        assert_array_equal(ours.transform(X), model.transform(X))
        assert_array_equal(ours.score_samples(X), model.score_samples(X))
        assert ours.score(X) == model.score(X)
        z = model.transform(X)
        assert_array_equal(ours.inverse_transform(z), model.inverse_transform(z))
    code = LinearAutoencoder(2, tied=True, random_state=0).fit(X)
    assert_allclose(code.score(X), PCA(2).fit(X).score(X), rtol=1e-9)
    assert_allclose(code.components_, code.encoder_.T)
    assert code.n_iter_ == len(code.model_.score_)


def test_pca_has_scikit_learns_variances():
    ours, theirs = PCA(4).fit(WINE), decomposition.PCA(4, svd_solver="full").fit(WINE)
    assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-9)
    assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-9)
    assert_allclose(np.abs(ours.transform(WINE)), np.abs(theirs.transform(WINE)), rtol=1e-7, atol=1e-7)
    assert_allclose(ours.inverse_transform(ours.transform(WINE)), theirs.inverse_transform(theirs.transform(WINE)))


@pytest.mark.parametrize("estimator", [PPCA, FactorAnalysis])
def test_the_density_of_a_linear_gaussian_is_that_of_its_covariance(estimator):
    from scipy.stats import multivariate_normal

    X = WINE / WINE.std(axis=0)
    model = estimator(3).fit(X)
    expected = multivariate_normal(model.mean_, model.get_covariance()).logpdf(X)
    assert_allclose(model.score_samples(X), expected, rtol=1e-9)
    assert_allclose(model.get_precision() @ model.get_covariance(), np.eye(13), atol=1e-9)
    drawn = model.sample(20_000, random_state=1)
    spread = np.sqrt(np.diag(model.get_covariance()) / 20_000)
    assert (np.abs(drawn.mean(axis=0) - model.mean_) < 5 * spread).all()
    assert_array_equal(drawn, model.sample(20_000, random_state=1))
    twice = estimator(3, random_state=4).fit(X)
    assert_array_equal(twice.sample(5), twice.sample(5))


def test_as_many_latents_as_columns_give_the_gaussian_of_the_data_itself():
    from scipy.stats import multivariate_normal

    X = WINE / WINE.std(axis=0)
    expected = multivariate_normal(X.mean(axis=0), np.cov(X.T, bias=True)).logpdf(X)
    for model in (PPCA(), PPCA(12), FactorAnalysis(tol=1e-12)):
        assert_allclose(model.fit(X).score(X), expected.mean(), atol=1e-8)
    assert PPCA().fit(X).components_.shape == (13, 13)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_data_of_lower_rank_have_the_least_noise_that_is_allowed_and_finite_scores(n):
    z = np.random.default_rng(0).standard_normal((50, 1))
    X = z @ [[1.0, 2.0, 3.0]] + [5, 6, 7]
    scores = []
    with pytest.warns(UserWarning, match="has the least variance allowed") if n else contextlib.nullcontext():
        scores.append(FactorAnalysis(n).fit(X).score(X))
    if n:
        with pytest.warns(UserWarning, match=f"the rank of x is 1, and {n} latents explain it to the last"):
            model = PPCA(n).fit(X)
        assert_allclose(model.noise_variance_, 1e-6 * X.var(axis=0).mean())
        scores.append(model.score(X))
        assert_allclose(model.inverse_transform(model.transform(X)), X, atol=1e-4)
        assert_allclose(PCA(n).fit(X).score(X), 0, atol=1e-20)
        assert_allclose(LinearAutoencoder(n, random_state=0).fit(X).score(X), 0, atol=1e-10)
    assert np.isfinite(scores).all()


def test_columns_that_never_vary_have_a_noise_of_their_own_and_a_warning_names_them():
    X = WINE[:, [0, 1, 3, 5, 6]].copy()
    X[:, 2] = 7.5
    frame = pandas.DataFrame(X, columns=["alcohol", "acid", "still", "phenols", "flavonoids"])
    with pytest.warns(
        UserWarning, match="x never varies in column still: a noise of variance 1e-12 there adds 12.9 nats"
    ):
        model = FactorAnalysis(1).fit(frame)
    assert_array_equal(model.components_[:, 2], 0)
    rest = FactorAnalysis(1).fit(X[:, [0, 1, 3, 4]])
    alone = -0.5 * np.log(2 * np.pi * 1e-12)
    assert_allclose(model.score_samples(frame), rest.score_samples(X[:, [0, 1, 3, 4]]) + alone, rtol=1e-9)
    assert_allclose(model.loglike_[-1], model.score_samples(frame).sum())
    assert len(model.loglike_) == model.n_iter_ + 1
    ones = np.ones((5, 3))
    with pytest.warns(UserWarning, match="the rank of x is 0, and 2 latents"):
        assert PPCA(2).fit(ones).noise_variance_ == 1e-12
    assert_array_equal(PCA(2).fit(ones).transform(ones), 0)
    assert_array_equal(PCA(2).fit(ones).explained_variance_ratio_, 0)
    assert_array_equal(LinearAutoencoder(2).fit(ones).transform(ones), 0)


def test_an_em_and_an_ascent_that_are_cut_short_warn_in_scikit_learns_way():
    with pytest.warns(ConvergenceWarning, match="EM has not converged"):
        FactorAnalysis(2, max_iter=1).fit(WINE)
    with pytest.warns(ConvergenceWarning, match="the gradient is not below tol"):
        LinearAutoencoder(2, max_iter=2, random_state=0).fit(WINE / WINE.std(axis=0))
    with pytest.warns(ConvergenceWarning, match="mean field has not converged"):
        model = MixtureOfGaussians(3, max_iter=1, random_state=0).fit(WINE)
    assert not model.converged_ and model.n_iter_ == 1
    with pytest.warns(ConvergenceWarning, match="not converged after max_iter = 2 passes"):
        assert VAE(max_iter=2, random_state=0).fit(WINE).n_iter_ == 2


# The mixture


def test_the_mixture_has_scikit_learns_numbers_where_both_are_at_one_optimum():
    X = np.concatenate([np.random.default_rng(k).normal(9 * k, 1 + k / 2, (60, 2)) for k in range(3)])
    priors = {"weight_concentration_prior": 0.4, "mean_precision_prior": 0.5, "degrees_of_freedom_prior": 4}
    priors["mean_prior"] = [1, 2]
    kind = {"weight_concentration_prior_type": "dirichlet_distribution", "reg_covar": 0, "tol": 1e-13}
    theirs = BayesianGaussianMixture(n_components=3, **priors, **kind, max_iter=5000, random_state=0).fit(X)
    ours = MixtureOfGaussians(3, **priors, tol=1e-10, n_init=5, random_state=0).fit(X)
    assert_allclose(ours.score(X), theirs.score(X), atol=1e-6)
    assert_allclose(ours.covariance_prior_, theirs.covariance_prior_)
    a, b = np.argsort(ours.means_[:, 0]), np.argsort(theirs.means_[:, 0])
    for name in ("weights_", "means_", "covariances_", "precisions_", "weight_concentration_", "mean_precision_"):
        assert_allclose(getattr(ours, name)[a], getattr(theirs, name)[b], rtol=1e-3, atol=1e-5)
    assert_allclose(ours.degrees_of_freedom_[a], theirs.degrees_of_freedom_[b], rtol=1e-4)
    assert_array_equal(a.argsort()[ours.predict(X)], b.argsort()[theirs.predict(X)])
    assert_allclose(ours.predict_proba(X)[:, a], theirs.predict_proba(X)[:, b], atol=1e-5)


def test_the_predictive_density_of_the_mixture_integrates_to_one_and_lies_above_its_score():
    x = np.random.default_rng(0).normal([[0.0], [6.0]], 1, (2, 20)).reshape(-1, 1)
    q = MixtureOfGaussians(2, random_state=0).fit(x)
    one = [quad(lambda t, f=f: np.exp(f(np.array([[t]])))[0], -200, 200, limit=500, points=[0, 6])[0] for f in (
        q.model_.log_predictive, q.score_samples)]  # fmt: skip
    assert_allclose(one[0], 1, atol=1e-3)
    assert one[1] < 0.99  # control: the score is a bound, and no density
    assert (q.model_.log_predictive(x) > q.score_samples(x)).all()


def test_the_predictive_density_is_the_mean_of_gaussians_over_draws_of_their_parameters():
    from scipy.stats import multivariate_normal, wishart

    q = MixtureOfGaussians(2, random_state=0).fit(WINE[:, [0, 6]])
    generator = np.random.default_rng(1)
    at = np.array([[13.0, 2.0], [12.0, 4.0]])
    n = 4000
    densities = np.zeros((n, 2))
    weights = generator.dirichlet(q.weight_concentration_, n)
    for k in range(2):
        precision = wishart(q.degrees_of_freedom_[k], np.linalg.inv(q.model_.scatters_[k])).rvs(n, generator)
        for i in range(n):
            cov = np.linalg.inv(precision[i])
            mean = generator.multivariate_normal(q.means_[k], cov / q.mean_precision_[k])
            densities[i] += weights[i, k] * multivariate_normal(mean, cov).pdf(at)
    error = densities.std(axis=0) / np.sqrt(n)
    assert (np.abs(densities.mean(axis=0) - np.exp(q.model_.log_predictive(at))) < 4 * error).all()
    assert (error < 0.02 * densities.mean(axis=0)).all()


def test_draws_of_the_mixture_have_its_weights_means_and_covariances():
    q = MixtureOfGaussians(3, random_state=0).fit(WINE[:, [0, 6]])
    X, k = q.sample(60_000, random_state=2)
    for j in range(3):
        rows = X[k == j]
        assert abs(len(rows) / 60_000 - q.weights_[j]) < 0.01
        if len(rows) > 1000:
            assert_allclose(rows.mean(axis=0), q.means_[j], atol=0.05)
            assert_allclose(np.cov(rows.T), q.covariances_[j], atol=0.05)
    assert_array_equal(q.sample(5)[0], q.sample(5)[0])
    assert_array_equal(q.fit_predict(WINE[:, [0, 6]]), q.predict(WINE[:, [0, 6]]))


@pytest.mark.filterwarnings("ignore:mean field has not converged")
def test_a_mixture_goes_on_from_the_fit_before():
    X = WINE[:, [0, 6]]
    whole = MixtureOfGaussians(3, tol=1e-9, random_state=0).fit(X)
    steps = MixtureOfGaussians(3, tol=1e-9, max_iter=2, warm_start=True, random_state=0)
    bounds = [steps.fit(X).lower_bound_ for _ in range(400)]
    assert np.diff(bounds).min() > -1e-9
    assert_allclose(bounds[-1], whole.lower_bound_, atol=1e-6)
    best = [MixtureOfGaussians(4, random_state=np.random.RandomState(s)).fit(X).lower_bound_ for s in range(4)]
    assert MixtureOfGaussians(4, n_init=8, random_state=0).fit(X).lower_bound_ >= min(best)


def test_a_mixture_takes_columns_that_depend_on_each_other_and_rows_that_repeat():
    X = np.repeat(np.outer(np.arange(3.0), [1, 2, 0]), 5, axis=0)
    with pytest.warns(UserWarning, match="the prior of the covariances is singular: 1e-06 of each variance is added"):
        q = MixtureOfGaussians(5, random_state=0).fit(X)
    assert np.isfinite(q.score_samples(X)).all() and np.isfinite(q.means_).all()
    assert len(set(q.predict(X))) > 1


# The VAE


def linear(X, J, **settings):
    """A VAE without hidden layers that has been given the parameters of PPCA, and PPCA, both of standardised rows.

    W of PPCA has orthogonal rows, so that its posterior has independent latents (E3).
    """
    model = quick(n_components=J, n_hidden=(), prior=False, **settings).fit(X)
    rows = (X - X.mean(axis=0)) / X.std(axis=0)
    ppca = factor_analysis.PPCA(J).fit(rows)
    arrays = model.model_.params.named(model.model_.params.value)
    G = np.linalg.inv(np.eye(J) + ppca.W_ @ ppca.W_.T / ppca.var_[0])
    arrays["encoder.mu.W"][...] = ppca.W_.T @ G / ppca.var_[0]
    arrays["encoder.mu.b"][...] = -ppca.mean_ @ ppca.W_.T @ G / ppca.var_[0]
    arrays["encoder.log_var.W"][...] = 0
    arrays["encoder.log_var.b"][...] = np.log(np.diag(G))
    arrays["decoder.mu.W"][...] = ppca.W_
    arrays["decoder.mu.b"][...] = ppca.mean_
    arrays["decoder.log_var.b" if "decoder.log_var.b" in arrays else "decoder.log_var"][...] = np.log(ppca.var_[0])
    return model, ppca, rows


def test_scores_are_densities_of_the_rows_as_they_came_in_e3():
    model, ppca, rows = linear(WINE, 2)
    expected = ppca.score_samples(rows) - np.log(WINE.std(axis=0)).sum()
    model.set_params(n_importance=20)  # too few for k_hat, which tells nothing of weights that are all alike
    assert_allclose(model.score_samples(WINE), expected, rtol=1e-9)  # the weights are all p(x), whatever z
    model.set_params(n_importance=None)
    bound = model.score_samples(WINE)
    assert abs((bound - expected).mean()) < 0.3  # 64 draws that all rows share; q is the posterior, and the bound tight
    assert_allclose(model.transform(WINE), ppca.transform(rows), rtol=1e-9)
    back = ppca.inverse_transform(ppca.transform(rows)) * WINE.std(axis=0) + WINE.mean(axis=0)
    assert_allclose(model.reconstruct(WINE), back, rtol=1e-9)


def test_draws_have_the_mean_and_the_covariance_of_the_model_in_the_units_of_the_rows_e3():
    model, ppca, _ = linear(WINE, 2)
    X = model.sample(40_000, random_state=3)
    covariance = (ppca.W_.T @ ppca.W_ + ppca.var_[0] * np.eye(13)) * np.outer(WINE.std(axis=0), WINE.std(axis=0))
    assert_allclose(X.mean(axis=0), WINE.mean(axis=0), atol=0.03 * WINE.std(axis=0).max(), rtol=0.02)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((np.cov(X.T) - covariance) / scale).max() < 0.03
    assert_array_equal(X, model.sample(40_000, random_state=3))
    assert (model.sample(5, random_state=4) != X[:5]).any()


def test_the_bound_of_a_row_is_the_mean_over_draws_that_all_rows_share():
    model = quick(n_components=3).fit(WINE)
    eps = paired(stream(model._run.seed, SCORING, 0), 3)
    rows = (WINE - WINE.mean(axis=0)) / WINE.std(axis=0)
    expected = [sum(model.model_.terms(rows[i : i + 1], eps))[0] for i in range(5)]
    assert_allclose(model.score_samples(WINE)[:5], np.array(expected) - np.log(WINE.std(axis=0)).sum(), rtol=1e-9)


@pytest.mark.parametrize("settings", [{"n_importance": 20}, {"flow": 2, "objective": "A"}, {"posterior": "full"}])
def test_a_score_depends_neither_on_the_order_nor_on_the_rows_beside_it(settings):
    model = quick(**settings).fit(WINE)
    scores = model.score_samples(WINE)
    assert_allclose(model.score_samples(WINE[::-1])[::-1], scores, rtol=1e-9)
    assert_allclose(np.concatenate([model.score_samples(row[None]) for row in WINE[:20]]), scores[:20], rtol=1e-9)


def test_a_fit_is_algorithm_1_on_the_standardised_rows():
    ours = quick(n_components=3, n_hidden=(20, 10), batch_size=50, learning_rate=0.01, max_iter=2).fit(WINE)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    arguments = {"likelihood": "isotropic", "mean": "free", "init": "glorot", "dtype": "float64", "seed": seed}
    model = scratchvae.VAE(13, (20, 10), 3, **arguments)
    rows = ours._run.scaled(WINE)
    optimizer = Continued(Adam(0.01))
    bounds = []
    for k in range(2):
        history = fit(model, rows, optimizer=optimizer, batch_size=50, epochs=1, seed=seed + k)
        bounds.append(np.average(history["train_bound"], weights=np.diff(history["samples"], prepend=0)))
    assert_array_equal(ours.model_.params.value, model.params.value)
    assert_allclose(ours.bounds_, np.array(bounds) - np.log(WINE.std(axis=0)).sum(), rtol=1e-9)


def test_training_goes_on_where_it_was_by_warm_start_and_by_partial_fit():
    never = {"tol": 0, "n_iter_no_change": 1000}
    with pytest.warns(ConvergenceWarning):
        whole = VAE(max_iter=6, random_state=0, prior=False, **never).fit(WINE)
    with pytest.warns(ConvergenceWarning):
        halves = VAE(max_iter=3, random_state=0, prior=False, warm_start=True, **never).fit(WINE)
    first = halves.model_.params.value.copy()
    with pytest.warns(ConvergenceWarning):
        halves.fit(WINE)
    assert (halves.model_.params.value != first).any()
    parts = VAE(random_state=0, prior=False)
    for _ in range(6):
        parts.partial_fit(WINE)
    for other in (halves, parts):
        assert_array_equal(other.model_.params.value, whole.model_.params.value)
        assert_array_equal(other.bounds_, whole.bounds_)
        assert other.n_iter_ == 6
    assert parts.n_samples_seen_ == 6 * len(WINE) and whole.n_samples_seen_ == len(WINE)
    with pytest.warns(ConvergenceWarning):
        cold = VAE(max_iter=3, random_state=0, prior=False, **never).fit(WINE).fit(WINE)
    assert cold.n_iter_ == 3  # control: without warm_start each fit begins anew


def test_in_parts_the_prior_of_the_weights_counts_once_for_all_rows_that_there_are():
    """Adam's first step has the size of the stepsize, so the gradient is looked at by SGD with a step that is small."""
    N = 1234
    settings = {"solver": "sgd", "learning_rate": 1e-9, "n_hidden": (), "batch_size": 1000, "random_state": 0}
    settings["total_samples"] = N
    moved = {}
    for prior in (True, False):
        model = VAE(prior=prior, **settings).partial_fit(WINE)
        start = model.model_.params.value.copy()
        moved[prior] = model.partial_fit(WINE[:50]).model_.params.value - start
        theta = start[model.model_.theta]
    alone = VAE(**settings | {"total_samples": None}).partial_fit(WINE)
    assert_allclose(model.bounds_[0], alone.bounds_[0], rtol=1e-9)  # nats per row, whatever N is
    difference = (moved[True] - moved[False])[model.model_.theta] / 1e-9
    assert_allclose(difference, -theta, rtol=1e-3, atol=1e-4)
    data = moved[False] / 1e-9
    rows = (WINE[:50] - WINE.mean(axis=0)) / WINE.std(axis=0)
    probe = copy.deepcopy(model.model_)
    probe.params.value[...] = start
    seed = model._run.seed + 1
    generator = np.random.default_rng(np.array([seed, 1, 0], np.uint32))
    order = np.random.default_rng(np.array([seed, 0, 0], np.uint32)).permutation(50)
    probe.bound(rows[order], probe.noise(generator, 50), N, gradient=True)
    assert_allclose(data, probe.params.grad, rtol=1e-3, atol=1e-2)  # 50 rows stand for all N


def test_early_stopping_keeps_the_best_model_by_rows_that_are_set_aside(monkeypatch):
    X = load_digits().data[:120] / 16
    model = VAE(
        8, n_hidden=200, learning_rate=0.01, early_stopping=True, validation_fraction=0.25, n_iter_no_change=15,
        max_iter=300, random_state=0,
    ).fit(X)  # fmt: skip
    held = model.validation_bounds_
    best = held.argmax()
    assert len(held) == best + 16 and model.n_iter_ == len(held) < 300
    assert model.bounds_[-1] > model.bounds_[best] + 1  # control: the training rows would have gone on
    again = clone(model).set_params(max_iter=int(best) + 1)
    with pytest.warns(ConvergenceWarning):
        again.fit(X)
    assert_array_equal(again.model_.params.value, model.model_.params.value)
    assert quick().fit(X).validation_bounds_ is None
    seen = []
    monkeypatch.setattr(Run, "judge_by", lambda self, rows: seen.append(rows))
    monkeypatch.setattr(Run, "judged", lambda self: {"reconstruction": 0.0, "kl": 0.0, "bound": 0.0})
    monkeypatch.setattr(
        VAE, "_pass", lambda self, run, *_: run.bounds.append(0.0) or run.validation_bounds.append(0.0) or 0.0
    )
    going = quick(early_stopping=True, warm_start=True).fit(X)
    going.fit(X)
    assert_array_equal(seen[-1], seen[0])  # no row that was set aside is trained on as the fit goes on
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
        model.partial_fit(X)


def test_tol_ends_the_training_after_passes_that_are_no_better():
    for patience in (1, 4):
        model = VAE(tol=1e9, n_iter_no_change=patience, random_state=0).fit(WINE)
        assert model.n_iter_ == patience + 1


def test_bernoulli_takes_numbers_between_0_and_1_and_says_how_others_become_so():
    X = load_digits().data[:100] / 16
    model = quick(likelihood="bernoulli").fit(X)
    assert_array_equal(model.scale_, 1)
    assert_array_equal(model.mean_, 0)
    assert model.inverse_transform(model.transform(X)).min() >= 0
    assert set(np.unique(model.sample(5))) == {0.0, 1.0}
    hint = (
        "expected \\[0, 1\\] for likelihood 'bernoulli': put MinMaxScaler\\(clip=True\\) before it, or take 'isotropic'"
    )
    for ask in (quick(likelihood="bernoulli").fit, model.transform, model.score_samples, model.partial_fit):
        with pytest.raises(ValueError, match=f"X has values from 0 to 16; {hint}"):
            ask(load_digits().data[:100])
    over = X.copy()
    over[0, 5] = 1 + 4e-16  # what a scaler leaves by rounding
    under = X.copy()
    under[0, 5] = 1
    assert_allclose(model.transform(over), model.transform(under), atol=1e-9)
    pipe = make_pipeline(MinMaxScaler(clip=True), quick(likelihood="continuous-bernoulli")).fit(WINE[:100])
    assert np.isfinite(pipe.score(WINE[100:]))


def test_columns_are_standardised_only_where_the_mean_is_free():
    X = load_digits().data[:60] / 16
    assert (quick().fit(X).scale_ != 1).any()
    for settings in ({"standardize": False}, {"mean": "sigmoid"}, {"likelihood": Isotropic("sigmoid")}):
        model = quick(**settings).fit(X)
        assert_array_equal(model.scale_, 1)
        assert_array_equal(model.mean_, 0)
    still = quick().fit(X)
    assert (still.scale_[X.std(axis=0) == 0] == 1).all() and np.isfinite(still.score(X))


@pytest.mark.parametrize(
    "settings",
    [
        {"posterior": "full"},
        {"objective": "iwae", "n_draws": 3},
        {"objective": "wake-sleep"},
        {"objective": "autoencoder"},
        {"flow": 2},
        {"full_vb": True},
        {"channels": (3,), "n_hidden": 10, "likelihood": "bernoulli"},
        {"beta": 2.0},
        {"free_bits": 3.0},
        {"prior": False},
        {"activation": "relu"},
        {"likelihood": "laplace"},
        {"solver": "adagrad", "learning_rate": 0.05},
    ],
    ids=str,
)
def test_the_choices_of_the_package_arrive(settings):
    X = load_digits().data[:80] / 16
    names = {"objective": "estimator", "n_draws": "n_samples"}
    model = quick(**settings).fit(X)
    config = model.model_.config
    for name, value in settings.items():
        if name in ("full_vb", "solver", "learning_rate"):
            continue
        came = config[names.get(name, name)]
        assert came == (list(value) if isinstance(value, tuple) else [value] if name == "n_hidden" else value)
    assert isinstance(model.model_, scratchvae.FullVB) == settings.get("full_vb", False)
    inner = model._run.optimizer.optimizer
    assert (type(inner).__name__.lower(), inner.lr) == (
        settings.get("solver", "adam"),
        settings.get("learning_rate", 0.002),
    )
    plain = quick().fit(X)
    assert np.isfinite(model.score(X)) and model.score(X) != plain.score(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, "n_components is 0; expected a whole number ≥ 1"),
        ({"n_components": 2.0}, "n_components is 2.0; expected a whole number ≥ 1"),
        ({"objective": "elbo"}, "objective is 'elbo'; expected one of A, B"),
        ({"objective": "black-box"}, "objective is 'black-box', which needs 2 draws or more, and n_draws is 1"),
        ({"n_draws": 0}, "n_draws is 0; expected a whole number ≥ 1"),
        ({"likelihood": "poisson"}, "likelihood is 'poisson'; expected one of"),
        ({"likelihood": "bernoulli", "mean": "free"}, "mean is 'free'; expected 'sigmoid'"),
        ({"posterior": "vmf"}, "posterior is 'vmf'; expected one of"),
        ({"n_hidden": (10, 0)}, "n_hidden is 0; expected a whole number ≥ 1"),
        ({"activation": "gelu"}, "activation is 'gelu'; expected one of"),
        ({"channels": (4,)}, "the number of columns is 13; expected a square number for channels"),
        ({"mean": "sigmoid"}, "X has values from 0.13 to 1680; expected [0, 1] for likelihood 'isotropic' with mean"),
        ({"beta": -1}, "beta is -1; expected a number ≥ 0"),
        ({"solver": "lbfgs"}, "solver is 'lbfgs'; expected one of sgd, adagrad, adam"),
        ({"learning_rate": 0}, "learning_rate is 0; expected a number > 0"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number ≥ 1"),
        ({"max_iter": 0}, "max_iter is 0; expected a whole number ≥ 1"),
        ({"tol": -1}, "tol is -1; expected a number ≥ 0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change is 0; expected a whole number ≥ 1"),
        ({"early_stopping": 1}, "early_stopping is 1; expected True or False"),
        ({"validation_fraction": 2}, "validation_fraction is 2; expected"),
        (
            {"early_stopping": True, "objective": "iwae", "n_draws": 2},
            "early_stopping is True, by the bound of one draw",
        ),
        ({"n_importance": 0}, "n_importance is 0; expected a whole number ≥ 1"),
        ({"warm_start": "yes"}, "warm_start is 'yes'; expected True or False"),
        ({"verbose": -1}, "verbose is -1; expected a whole number ≥ 0"),
        ({"standardize": None}, "standardize is None; expected True or False"),
        ({"full_vb": 1}, "full_vb is 1; expected True or False"),
        ({"prior": 1}, "prior is 1; expected True or False"),
    ],
)
def test_an_argument_that_does_not_fit_is_named_in_fit_by_its_own_name(settings, message):
    model = quick(**settings)
    with pytest.raises(ValueError) as error:
        model.fit(WINE)
    assert str(error.value).startswith(message)
    assert not hasattr(model, "model_")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PCA(14), "n_components is 14; expected None or a whole number from 1 to min(N, D) = 13"),
        (PPCA(0), "n_components is 0; expected None or a whole number from 1"),
        (PPCA(2.5), "n_components is 2.5; expected"),
        (FactorAnalysis(14), "n_components is 14; expected None or a whole number from 0 to the 13 columns of X"),
        (FactorAnalysis(n_init=0), "n_init is 0; expected a whole number ≥ 1"),
        (FactorAnalysis(tol=0), "tol is 0; expected a number > 0"),
        (LinearAutoencoder(tied=1), "tied is 1; expected True or False"),
        (LinearAutoencoder(max_iter=-1), "max_iter is -1; expected a whole number ≥ 1"),
        (PPCA(random_state="a"), "'a' cannot be used to seed"),
        (MixtureOfGaussians(0), "n_components is 0; expected a whole number ≥ 1"),
        (MixtureOfGaussians(500), "n_components is 500; expected no more than the 178 rows of X"),
        (MixtureOfGaussians(weight_concentration_prior=0), "weight_concentration_prior is 0; expected a number > 0"),
        (MixtureOfGaussians(mean_precision_prior=-1), "mean_precision_prior is -1; expected a number > 0"),
        (MixtureOfGaussians(mean_prior=[1]), "mean_prior has shape (1,); expected (13,)"),
        (
            MixtureOfGaussians(degrees_of_freedom_prior=3),
            "degrees_of_freedom_prior is 3; expected more than D - 1 = 12",
        ),
        (MixtureOfGaussians(covariance_prior=[[1]]), "covariance_prior has shape (1, 1); expected (13, 13)"),
        (MixtureOfGaussians(covariance_prior=-np.eye(13)), "covariance_prior is not symmetric and positive definite"),
        (MixtureOfGaussians(n_init=0), "n_init is 0; expected a whole number ≥ 1"),
        (MixtureOfGaussians(warm_start=1), "warm_start is 1; expected True or False"),
    ],
)
def test_an_argument_of_the_others_that_does_not_fit_is_named_in_fit(model, message):
    with pytest.raises(ValueError) as error:
        model.fit(WINE)
    assert str(error.value).startswith(message)


def test_codes_of_another_width_are_refused():
    for estimator in (VAE, PPCA, FactorAnalysis, PCA, LinearAutoencoder):
        with pytest.raises(ValueError, match="X has 3 columns; expected 2, as transform returns them"):
            fitted(estimator, WINE).inverse_transform(np.zeros((4, 3)))


def test_a_fit_that_fails_leaves_the_one_before():
    model = quick().fit(WINE)
    score = model.score(WINE)
    for change in ({"learning_rate": 1e30, "solver": "sgd"}, {"beta": -1}):
        broken = clone(model).fit(WINE).set_params(**change)
        with pytest.raises((FloatingPointError, ValueError)), np.errstate(all="ignore"):
            broken.fit(WINE)
        assert broken.score(WINE) == score


def test_a_fit_that_goes_on_and_fails_leaves_the_one_before(monkeypatch):
    plain = VAE._pass

    def failing(self, run, *arguments):
        plain(self, run, *arguments)
        raise FloatingPointError("the bound is nan")

    going = quick(warm_start=True).fit(WINE)
    part = quick().partial_fit(WINE)
    before = [model.score_samples(WINE) for model in (going, part)]
    monkeypatch.setattr(VAE, "_pass", failing)
    for train in (going.fit, part.partial_fit):
        with pytest.raises(FloatingPointError):
            train(WINE)
    for model, scores in zip((going, part), before, strict=True):
        assert_array_equal(model.score_samples(WINE), scores)
        assert len(model.bounds_) == len(model._run.bounds)


def test_a_warm_start_refuses_what_the_model_cannot_become():
    model = quick(warm_start=True).fit(WINE).set_params(n_hidden=7, beta=2.0)
    with pytest.raises(
        ValueError, match="n_hidden, beta changed since the fit that this one goes on from: take a clone"
    ):
        model.fit(WINE)
    own = Isotropic("free")
    kept = quick(warm_start=True, likelihood=own).fit(WINE)
    assert kept.fit(WINE).n_iter_ == 4
    assert pickle.loads(pickle.dumps(kept)).fit(WINE).n_iter_ == 6
    with pytest.raises(ValueError, match="X has 12 features, but VAE is expecting 13 features"):
        kept.fit(WINE[:, :12])


def test_ctrl_c_keeps_what_was_learned(monkeypatch):
    plain = VAE._pass
    passes = []

    def struck(self, *arguments):
        if len(passes) == 3:
            raise KeyboardInterrupt
        passes.append(plain(self, *arguments))
        return passes[-1]

    monkeypatch.setattr(VAE, "_pass", struck)
    model = VAE(random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(WINE)
    assert model.n_iter_ == 3 and np.isfinite(model.score(WINE))
    monkeypatch.setattr(VAE, "_pass", lambda *_: signal.raise_signal(signal.SIGINT))
    early = VAE(random_state=0)
    with pytest.raises(KeyboardInterrupt):
        early.fit(WINE)
    assert not hasattr(early, "model_")  # nothing was learned


def test_verbose_prints_a_line_after_each_pass():
    for early in (True, False):
        out = io.StringIO()
        with redirect_stdout(out):
            model = quick(verbose=True, early_stopping=early).fit(WINE)
        lines = out.getvalue().splitlines()
        assert len(lines) == model.n_iter_ == 2
        assert f"pass 2: the bound of the training rows is {model.bounds_[1]:.3f} nats per row" in lines[1]
        assert ("of the rows set aside" in lines[1]) == early
    with redirect_stdout(io.StringIO()) as out:
        quick().fit(WINE)
    assert out.getvalue() == ""


def test_a_run_folder_is_read_by_the_package(tmp_path):
    model = quick(n_components=3).fit(WINE)
    model.save(tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    assert_array_equal(loaded.params.value, model.model_.params.value)
    options = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["options"]
    assert_array_equal(options["mean"], model.mean_)
    assert_array_equal(options["scale"], model.scale_)
    rows = (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + model.n_iter_
    samples = [int(row.split(",")[1]) for row in rows[1:]]
    assert samples == [len(WINE) * (k + 1) for k in range(model.n_iter_)]
    with pytest.raises(ValueError, match="holds a run"):
        model.save(tmp_path / "run")
    with pytest.raises(NotFittedError):
        VAE().save(tmp_path / "other")


def test_another_thread_may_use_a_fitted_estimator_at_the_same_time():
    model = quick().fit(WINE)
    expected = model.transform(WINE)
    found = []
    with model.model_.guard:
        thread = threading.Thread(target=lambda: found.append(model.transform(WINE)))
        thread.start()
        thread.join()
    assert_array_equal(found[0], expected)


def test_an_optimiser_that_is_continued_makes_the_steps_of_one_that_never_stopped():
    rows = np.random.default_rng(0).random((200, 9)).astype(np.float32)
    for optimizer in (Adam(0.01), Adagrad(0.1)):
        one, other = (scratchvae.VAE(9, 5, 2) for _ in range(2))
        fit(one, rows, optimizer=copy.deepcopy(optimizer), epochs=1, seed=0)
        going = Continued(optimizer)
        fit(other, rows, optimizer=going, epochs=1, seed=0)
        assert_array_equal(one.params.value, other.params.value)
        assert going.step == 2
        before = {name: vector.copy() for name, vector in going.state.items()}
        fit(other, rows, optimizer=going, epochs=1, seed=1, schedule="alternating")
        assert going.step == 4  # two steps, of which each has two parts
        assert all((going.state[name] != before[name]).any() for name in before)
        fit(one, rows, optimizer=optimizer, epochs=1, seed=1, schedule="alternating")
        assert (one.params.value != other.params.value).any()  # control: it begins anew


@pytest.mark.filterwarnings("ignore:mean field has not converged")
def test_a_mixture_that_is_fitted_sweep_by_sweep_converges_where_one_long_fit_does():
    X = np.random.default_rng(0).standard_normal((90, 2)) + 3.5 * np.eye(3, 2)[np.arange(90) % 3]
    whole = MixtureOfGaussians(3, tol=1e-9, random_state=0).fit(X)
    steps = MixtureOfGaussians(3, tol=1e-9, max_iter=1, warm_start=True, random_state=0)
    bounds = []
    while len(bounds) < 2 * whole.n_iter_ and not (bounds and steps.converged_):
        bounds.append(steps.fit(X).lower_bound_)
    assert steps.converged_ and (np.diff(bounds) > -1e-9).all()
    assert bounds[-1] == pytest.approx(whole.lower_bound_, abs=1e-6)
    assert not MixtureOfGaussians(3, max_iter=1, random_state=0).fit(X).converged_


# What users run into


def test_the_draws_of_a_score_have_the_mean_and_the_covariance_of_the_prior_exactly():
    for J in (1, 5, 40):
        eps = paired(np.random.default_rng(J), J)[:, 0]
        assert len(eps) == 2 * max(32, J)
        assert_allclose(eps.mean(axis=0), 0, atol=1e-14)
        assert_allclose(eps.T @ eps / len(eps), np.eye(J), atol=1e-12)
    scores = []
    model = quick(n_components=5, max_iter=20).fit(WINE)
    for seed in range(8):
        model._run.seed = seed
        scores.append(model.score(WINE))
    assert np.std(scores) < 0.03  # 64 independent draws that all rows share have 0.2


def test_a_column_that_varies_by_rounding_alone_never_varies_for_the_mixture_too():
    scores = []
    for value in (5.0, 0.1, 1e-9, 1e9 + 0.1):
        X = WINE[:, :6].copy()
        X[:, 3] = value
        with pytest.warns(UserWarning, match="the prior of the covariances is singular"):
            model = MixtureOfGaussians(2, random_state=0).fit(X)
        assert model.covariance_prior_[3, 3] == 0
        scores.append(model.score(X))
    assert_allclose(scores, scores[0], rtol=1e-6)


def test_a_likelihood_of_the_package_as_an_object_is_standardised_like_its_name():
    named, given = quick(likelihood="isotropic").fit(WINE), quick(likelihood=Isotropic("free")).fit(WINE)
    assert_array_equal(named.scale_, given.scale_)
    assert_array_equal(named.score_samples(WINE), given.score_samples(WINE))


def test_a_linear_autoencoder_warns_where_its_last_direction_is_lost_beside_the_first():
    X = WINE.copy()
    X[:, 0] *= 1e12
    with pytest.warns(UserWarning, match="the ascent may end before it has found the last"):
        LinearAutoencoder(2, random_state=0).fit(X)


def test_components_are_in_the_order_of_their_variances_with_a_sign_that_is_fixed():
    theirs = decomposition.PCA(4).fit(WINE)
    ours, ppca = PCA(4).fit(WINE), PPCA(4).fit(WINE)
    assert_allclose(ours.components_, theirs.components_, atol=1e-9)
    assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-9)
    lengths = np.linalg.norm(ppca.components_, axis=1)
    assert (np.diff(lengths) < 0).all()
    assert_allclose(ppca.components_ / lengths[:, None], theirs.components_, atol=1e-9)
    assert (ours.n_components_, ppca.n_components_, FactorAnalysis(3).fit(WINE).n_components_) == (4, 4, 3)


@pytest.mark.filterwarnings(HEYWOOD)
def test_factor_analysis_with_nearly_as_many_factors_as_columns_starts_once():
    X = WINE / WINE.std(axis=0)
    for J, starts in ((13, 1), (12, 1), (11, 10)):
        assert len(FactorAnalysis(J, tol=1e-4).fit(X[:, :13]).model_.starts_) == starts


@pytest.mark.parametrize("estimator", OURS)
def test_a_fit_that_fails_leaves_the_columns_of_the_one_before_too(estimator):
    model = fitted(estimator, pandas.DataFrame(WINE, columns=[f"c{i}" for i in range(13)]))
    before = dict(vars(model))
    model.set_params(n_components=-1)
    with pytest.raises(ValueError, match="n_components is -1"):
        model.fit(WINE[:, :5])
    model.set_params(n_components=before["n_components"])
    assert vars(model).keys() == before.keys() and all(vars(model)[name] is before[name] for name in before)


def test_parts_by_which_columns_cannot_be_standardised_are_warned_of():
    with pytest.warns(UserWarning, match="X has 10 rows, by which the columns are standardised from now on"):
        VAE(random_state=0).partial_fit(WINE[:10])
    X = np.random.default_rng(0).standard_normal((80, 3))
    model = VAE(random_state=0).partial_fit(X * [1, 1e-3, 0] + 1)
    with pytest.warns(
        UserWarning, match="X has rows far from those of the first call, .* in columns 1, 2, counted from 0"
    ):
        model.partial_fit(X * [1, 1, 100] + 1)
    VAE(random_state=0, standardize=False).partial_fit(WINE[:10])
    with pytest.raises(ValueError, match="total_samples is 5, and X has 178 rows; expected no fewer than those"):
        VAE(total_samples=5).partial_fit(WINE)


def test_a_training_that_runs_away_says_that_the_bound_has_fallen():
    with pytest.warns(ConvergenceWarning, match=r"the bound has fallen from .* nats per row: lower learning_rate"):
        VAE(2, learning_rate=1.0, random_state=0, n_iter_no_change=3).fit(WINE)
    with pytest.raises(FloatingPointError, match="try a smaller learning_rate") as error, np.errstate(all="ignore"):
        VAE(2, learning_rate=10.0, solver="sgd", random_state=0).fit(WINE)
    assert "folder" not in str(error.value)


def test_holes_are_filled_in_the_units_of_the_columns():
    model, ppca, rows = linear(WINE, 2)
    missing = np.random.default_rng(0).random(WINE.shape) < 0.2
    holes = np.where(missing, np.nan, WINE)
    filled = model.impute(holes, chains=40, steps=40, burn_in=40)
    assert_array_equal(filled[~missing], WINE[~missing])
    C = ppca.W_.T @ ppca.W_ + ppca.var_[0] * np.eye(13)  # the exact conditional mean of the Gaussian, row by row
    exact = WINE.copy()
    for i, gone in enumerate(missing):
        known = ~gone
        mean = C[np.ix_(gone, known)] @ np.linalg.solve(C[np.ix_(known, known)], rows[i, known])
        exact[i, gone] = mean * WINE.std(axis=0)[gone] + WINE.mean(axis=0)[gone]
    error = (filled - exact) / WINE.std(axis=0)
    assert np.abs(error[missing]).max() < 0.25 and np.sqrt((error[missing] ** 2).mean()) < 0.05
    assert_array_equal(model.impute(WINE), WINE)
    grey = quick(likelihood="bernoulli").fit(load_digits().data[:90] / 16)
    pixels = grey.impute(np.where(np.arange(64) < 20, np.nan, load_digits().data[:5] / 16))
    assert pixels.min() >= 0 and pixels.max() <= 1
    with pytest.raises(ValueError, match="model is an estimator of scikit-learn; expected its model_, whose rows are"):
        scratchvae.evaluate(model, rows)


def test_the_learning_rate_may_change_as_a_fit_goes_on():
    model = quick(warm_start=True).fit(WINE).set_params(learning_rate=0.0005)
    assert model.fit(WINE)._run.optimizer.optimizer.lr == 0.0005
    mixture = MixtureOfGaussians(2, warm_start=True, random_state=0).fit(WINE[:, :3]).set_params(n_components=3)
    with pytest.raises(ValueError, match="n_components is 3, and the fit that this one goes on from had 2"):
        mixture.fit(WINE[:, :3])


def test_widths_may_be_an_array_and_the_minibatch_follows_the_number_of_rows():
    assert quick(n_hidden=np.array([7, 5])).fit(WINE).model_.config["n_hidden"] == [7, 5]
    for n, steps in ((100, 5), (1000, 20), (4000, 40)):
        model = quick(max_iter=2).fit(np.random.default_rng(0).standard_normal((n, 3)))
        assert model._run.optimizer.step == 2 * steps
    assert quick(verbose=0).fit(WINE).n_iter_ == 2


def test_passes_are_judged_by_a_bound_whose_noise_is_the_same_each_time():
    model = quick().fit(WINE)
    run = model._run
    assert run.judging is None  # a pickle of the estimator holds no rows
    run.judge_by(run.scaled(WINE))
    assert run.judged() == run.judged()
    assert len(run.judging) == 5 * 178
    run.judge_by(np.zeros((9000, 13)))
    assert len(run.judging) == 1000
    twice = quick(beta=2.0).fit(WINE)._run
    twice.judge_by(twice.scaled(WINE))
    found = twice.judged()
    assert twice.value_of(found) == found["reconstruction"] - 2 * found["kl"]
    assert twice.value_of(found) < found["bound"] - 1e-3


def test_the_size_of_the_part_that_is_set_aside_and_the_numbers_of_impute_arrive(monkeypatch):
    seen = []
    plain = Run.judge_by
    monkeypatch.setattr(Run, "judge_by", lambda self, rows: seen.append(rows) or plain(self, rows))
    for fraction in (0.1, 0.5):
        quick(early_stopping=True, validation_fraction=fraction).fit(WINE)
    assert [len(rows) for rows in seen if rows is not None] == [18, 89]
    noted = []

    def noting(model, x, missing, steps, burn_in, seed):
        noted.append((len(x), steps, burn_in))
        return x

    monkeypatch.setattr(estimator_file, "impute", noting)
    quick().fit(WINE).impute(WINE[:7], chains=3, steps=4, burn_in=5)
    assert noted == [(21, 4, 5)]


def test_a_folder_that_is_taken_is_refused_without_options_of_the_command_line(tmp_path):
    model = quick().fit(WINE)
    model.save(tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run") as error:
        model.save(tmp_path / "run")
    assert "--" not in str(error.value) and "resume=" not in str(error.value)
