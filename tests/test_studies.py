"""The studies of gradient noise, posteriors, missing pixels and anomalies run small, and measure what they say."""

import csv
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from scratchvae import VAE, load_data
from scratchvae import sklearn as estimators
from scratchvae.inference.imputation import impute
from scratchvae.models.factor_analysis import PPCA

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def noise(monkeypatch):
    """examples/gradient_noise.py as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("gradient_noise")


@pytest.fixture
def posteriors(monkeypatch):
    """examples/posteriors.py as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("posteriors")


@pytest.fixture
def run(run_example, tmp_path, capsys):
    """A function that gives (rows of the table, what was printed) of a study on digits."""

    def run(script, *arguments):
        run_example(script, "--data", "digits", "--results", "results", "--runs", "runs", *arguments)
        assert is_drawn(tmp_path / "results" / f"{script}.png")
        with open(tmp_path / "results" / f"{script}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert all(row["seed"] and row["commit"] for row in rows)
        assert not [row for row in rows if "nan" in row.values()]
        return rows, capsys.readouterr().out

    return run


def models_of(folder):
    """{name of the folder: the model in config.json} of every run."""
    configs = folder.glob("runs/*/*/config.json")
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["run"]["model"] for path in configs}


def test_the_study_of_gradient_noise_runs_on_a_small_scale(run, tmp_path):
    rows, shown = run("gradient_noise", "--scale", "0.01")
    assert len(rows) == 2 * 4 * 4 * 2 and shown.count("K=64: ") == 2 * 6
    assert {(row["method"], row["K"]) for row in rows} == {
        (method, K) for method in ("IWAE", "DReG", "L^A", "STL") for K in ("1", "4", "16", "64")
    }
    assert all(0 < float(row["lower quartile"]) < float(row["upper quartile"]) for row in rows)
    models = models_of(tmp_path)
    assert (models["IWAE-0"]["estimator"], models["IWAE-0"]["n_samples"]) == ("iwae", 64)
    assert (models["-A-0"]["estimator"], models["-A-0"]["n_samples"]) == ("A", 1)


def test_a_ratio_is_mean_over_sd_of_the_parameters_that_vary(noise):
    gradients = np.random.default_rng(0).normal([3, -2, 0], [1, 4, 1], (50, 3))
    gradients = np.column_stack([gradients, np.zeros(50), np.full(50, 7.0)])  # the last two never vary
    ratios = noise.ratios(gradients.mean(axis=0), (gradients**2).mean(axis=0), 50)
    assert_allclose(ratios, np.abs(gradients.mean(axis=0)[:3] / gradients.std(axis=0, ddof=1)[:3]), rtol=1e-9)


def test_the_gradients_are_those_of_the_models_bound_at_one_minibatch(noise):
    trained = VAE(64, 10, 2, init="glorot", estimator="A")
    x = load_data("digits").train[:5]
    found = noise.signal_to_noise(trained, "DReG", 4, x, 6)
    model = VAE(64, 10, 2, init="glorot", estimator="dreg", n_samples=4)
    gradients = []
    for k in range(6):
        model.bound(x, model.noise(np.random.default_rng([2, k]), 5), 5, gradient=True)
        gradients.append(model.params.grad.astype(float))
    for key, part in [("φ", model.phi), ("θ", model.theta)]:
        theirs = np.array(gradients)[:, part]
        theirs = theirs[:, theirs.std(axis=0) > 0]
        expected = np.abs(theirs.mean(axis=0)) / theirs.std(axis=0, ddof=1)
        assert np.median(found[key]) == pytest.approx(np.median(expected), rel=1e-3)


def test_with_one_draw_the_two_of_a_pair_are_one_and_theta_has_the_same_ratio_with_any(noise):
    trained = VAE(64, 10, 2, init="glorot")
    x = load_data("digits").train[:5]
    one = {method: noise.signal_to_noise(trained, method, 1, x, 8) for method in noise.METHODS}
    for a, b in [("IWAE", "L^A"), ("DReG", "STL")]:
        for part in ("φ", "θ"):
            assert_allclose(one[a][part], one[b][part], rtol=1e-3)
    assert np.median(one["DReG"]["φ"]) > 1.2 * np.median(one["IWAE"]["φ"])
    four = {method: noise.signal_to_noise(trained, method, 4, x, 8) for method in noise.METHODS}
    for a, b in [("IWAE", "DReG"), ("L^A", "STL")]:
        assert_array_equal(four[a]["θ"], four[b]["θ"])


def test_beside_a_gaussian_posterior_the_ratio_of_iwae_falls_and_that_of_dreg_grows(noise):
    generator = np.random.default_rng(0)
    W = 1.5 * np.linalg.qr(generator.standard_normal((6, 2)))[0].T
    M = 1.5**2 + 1  # WᵀW + σ² I is M I: the posterior is N(Wx/M, I/M)
    trained = VAE(6, (), 2, likelihood="isotropic", mean="free", prior=False)
    arrays = trained.params.named(trained.params.value)
    trained.params.value[...] = 0  # σ² = 1 among them
    arrays["decoder.mu.W"][...] = W
    arrays["encoder.mu.W"][...] = W.T / M + 0.1 * generator.standard_normal((6, 2))  # a little beside it
    arrays["encoder.log_var.b"][...] = 0.5 - np.log(M)  # and wider, so that no weight is far above the mean
    x = (generator.standard_normal((5, 2)) @ W + generator.standard_normal((5, 6))).astype("float32")
    found = {
        (method, K): np.median(noise.signal_to_noise(trained, method, K, x, 600)["φ"])
        for method in ("IWAE", "DReG", "STL")
        for K in (4, 64)
    }
    assert found["IWAE", 64] < 0.6 * found["IWAE", 4]  # K^-½ would be 0.25 of it; 600 gradients show no less than 0.03
    assert found["DReG", 64] == pytest.approx(4 * found["DReG", 4], rel=0.25)  # K^½
    assert found["STL", 64] == pytest.approx(4 * found["STL", 4], rel=0.15)


def test_the_study_of_posteriors_runs_on_a_small_scale(run, tmp_path):
    rows, shown = run("posteriors", "--scale", "0.002", "--seeds", "2")
    assert [(row["posterior"], row["seed"]) for row in rows] == [
        (name, seed) for seed in "01" for name in ("diagonal", "full covariance", "planar flow")
    ]
    assert shown.count("test_bound") == 6
    for row in rows:
        assert float(row["gap"]) == pytest.approx(float(row["log_p"]) - float(row["bound"]), abs=2e-3)
        assert 0 <= float(row["untrusted"]) <= 1
    models = models_of(tmp_path)
    assert {name: (m["estimator"], m.get("posterior"), m.get("flow"), m["seed"]) for name, m in models.items()} == {
        "diagonal-A-0": ("A", None, None, 0),
        "diagonal-A-1": ("A", None, None, 1),
        "full-covariance-A-0": ("A", "full", None, 0),
        "full-covariance-A-1": ("A", "full", None, 1),
        "planar-flow-A-0": ("A", None, 10, 0),
        "planar-flow-A-1": ("A", None, 10, 1),
    }


def test_the_posterior_in_the_picture_is_that_of_a_linear_model(posteriors):
    model = VAE(6, (), 2, likelihood="isotropic", mean="free", init=1.0, prior=False, dtype="float64")
    arrays = model.params.named(model.params.value)
    W = arrays["decoder.mu.W"]
    (log_variance,) = (array for name, array in arrays.items() if name.startswith("decoder.log_var"))
    variance = np.exp(log_variance)
    x = np.random.default_rng(0).standard_normal((1, 6))
    M = W @ W.T + variance * np.eye(2)
    mean = np.linalg.solve(M, W @ (x[0] - arrays["decoder.mu.b"]))
    covariance = variance * np.linalg.inv(M)
    (across, _), z = posteriors.square(mean, 6 * np.sqrt(covariance.max()))
    p = posteriors.posterior_on(model, x, z)
    assert p.sum() == pytest.approx(1) and across[0] < mean[0] < across[-1]
    assert_allclose(p @ z[:, 0], mean, atol=1e-6)
    d = z[:, 0] - mean
    assert_allclose((p[:, None] * d).T @ d, covariance, rtol=1e-4, atol=1e-8)


def test_the_bound_of_each_image_is_that_of_all_of_them(posteriors):
    model = VAE(64, 10, 2, init="glorot", estimator="A")
    x = load_data("digits").test[:120]
    each = posteriors.bound_of_each(model, x)
    model.n_samples = 100
    eps = model.eps(np.random.default_rng(5), 120)
    assert each.shape == (120,)
    assert_allclose(each, sum(model.terms(x, eps)), atol=6 * 0.5)  # other draws: an sd of some nats over √100
    assert each.mean() == pytest.approx(sum(model.terms(x, eps)).mean(), abs=0.1)


# Missing pixels


@pytest.fixture
def imputation(monkeypatch):
    """examples/imputation.py as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("imputation")


def test_the_study_of_missing_pixels_runs_on_a_small_scale(run, tmp_path):
    rows, shown = run("imputation", "--scale", "0.01", "--images", "20")
    methods = ["mean", "PPCA", "iterative", "pseudo-Gibbs", "5 times as long", "10 chains"]
    holes = ["30 % at random", "60 % at random", "80 % at random", "left half", "upper half"]
    assert [(row["missing"], row["method"]) for row in rows] == [(what, name) for what in holes for name in methods]
    assert all(0 < float(row["standard_error"]) < float(row["squared_error"]) < 0.5 for row in rows)
    assert [row["latents"] for row in rows if row["method"] != "PPCA"] == [""] * 25
    assert {row["latents"] for row in rows if row["method"] == "PPCA"} <= {"20", "50"}  # the digits have 64 pixels
    assert shown.count(" ± ") == 30
    (config,) = tmp_path.glob("runs/*/*/config.json")
    assert json.loads(config.read_text(encoding="utf-8"))["run"]["model"]["n_latent"] == 20


def test_the_holes_are_a_share_of_the_pixels_and_the_halves_that_they_are_called(imputation):
    holes = imputation.holes_of(2000, (4, 6), 0)
    for share in (30, 60, 80):
        assert holes[f"{share} % at random"].mean() == pytest.approx(share / 100, abs=0.01)  # its sd is 0.002
    for missing in (holes["left half"], holes["upper half"]):
        assert missing.shape == (2000, 24) and (missing == missing[0]).all()
    assert_array_equal(holes["left half"][0].reshape(4, 6), [[True] * 3 + [False] * 3] * 4)
    assert_array_equal(holes["upper half"][0].reshape(4, 6), [[True] * 6] * 2 + [[False] * 6] * 2)


def test_ppca_fills_holes_with_the_conditional_mean_of_its_gaussian(imputation):
    x = load_data("digits").train[:300] / 255
    x = x[:, x.std(axis=0) > 0.05]
    ppca = PPCA(5).fit(x)
    missing = np.random.default_rng(0).random(x.shape) < 0.5
    missing[0] = True
    missing[1] = False
    C = ppca.W_.T @ ppca.W_ + ppca.var_[0] * np.eye(x.shape[1])
    filled = imputation.by_ppca(ppca, np.where(missing, np.nan, x), missing)
    for row, full, holes in zip(filled[:20], x, missing, strict=False):
        gain = np.linalg.solve(C[np.ix_(~holes, ~holes)], C[np.ix_(~holes, holes)])
        assert_allclose(row[holes], ppca.mean_[holes] + (full - ppca.mean_)[~holes] @ gain, atol=1e-10)
        assert_array_equal(row[~holes], full[~holes])
    models = [PPCA(1).fit(x), ppca]
    assert imputation.best_ppca(models, x, missing) is ppca


def test_the_chains_of_an_image_are_averaged_and_those_of_others_are_not(imputation):
    x = load_data("digits").test[:3] / 255
    missing = np.random.default_rng(0).random(x.shape) < 0.5
    model = VAE(64, 10, 2, init="glorot")
    found = imputation.by_chains(model, 4, 5, x, missing)
    each = impute(model, np.repeat(x, 4, axis=0).astype("float32"), np.repeat(missing, 4, axis=0), steps=5, burn_in=5)
    assert_allclose(found, [each[4 * i : 4 * i + 4].mean(axis=0) for i in range(3)], rtol=1e-6)


def test_the_error_is_the_mean_over_missing_pixels_and_its_standard_error_that_of_images(imputation):
    generator = np.random.default_rng(0)
    x = generator.random((400, 30))
    sd = generator.uniform(0.1, 0.5, (400, 1))  # all pixels of an image are filled as well or as badly
    missing = generator.random(x.shape) < generator.uniform(0.2, 0.8, (400, 1))
    filled = x + np.where(missing, sd * generator.standard_normal(x.shape), 9.0)  # what is known does not count
    error, standard_error = imputation.error_of(filled, x, missing)
    assert error == pytest.approx(((filled - x)[missing] ** 2).mean())
    chosen = generator.integers(400, size=(1000, 400))  # the bootstrap over images
    again = [imputation.error_of(filled[rows], x[rows], missing[rows])[0] for rows in chosen]
    assert standard_error == pytest.approx(np.std(again), rel=0.1)  # 1,000 resamples: to 2 %


# Anomalies


@pytest.fixture
def anomalies(monkeypatch):
    """examples/anomalies.py as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("anomalies")


METHODS = ["bound", "log p(x)", "PPCA", "IsolationForest", "ink"]


def test_the_study_of_anomalies_runs_on_a_small_scale_and_keeps_each_class(run):
    words = ("--scale", "0.1", "--train", "100", "--hidden", "10", "--jobs", "1")
    rows, shown = run("anomalies", *words)
    assert [(row["left_out"], row["method"]) for row in rows] == [(str(y), name) for y in range(10) for name in METHODS]
    assert all(0 <= float(row["auroc"]) <= 1 for row in rows)
    labels = load_data("digits").test_labels
    assert [int(row["anomalies"]) for row in rows[::5]] == np.bincount(labels).tolist()
    assert shown.count("; mean ") == 5
    assert run("anomalies", *words)[0] == rows  # nothing is fitted again: the same seconds


def test_a_score_that_is_lower_for_the_class_left_out_has_an_auroc_of_one(anomalies, monkeypatch, tmp_path):
    data = load_data("digits")
    seen = []

    def planted(train, test, *settings):
        seen.append((train, settings))
        for method, score in [("right", data.test_labels != 3), ("wrong", data.test_labels == 3)]:
            yield method, score.astype(float), 0.0
        yield "none", np.zeros(len(test)), 0.0

    monkeypatch.setattr(anomalies, "scores_of", planted)
    settings = SimpleNamespace(data="digits", scale=0.5, runs=tmp_path, train=50, hidden=7, passes=8, draws=40)
    rows = anomalies.leave_out(settings, 3, "none")
    assert {row["method"]: float(row["auroc"]) for row in rows} == {"right": 1.0, "wrong": 0.0, "none": 0.5}
    ((train, passed),) = seen
    assert_array_equal(train, (data.train[data.train_labels != 3][:50] / 255).astype("float32"))
    assert passed == (7, 4, 20)
    table = anomalies.table_of(rows + anomalies.leave_out(settings, 3, "none"))
    assert_array_equal(table["right"], [1, 1])


def test_the_scores_are_those_of_the_estimators_and_a_brighter_image_is_an_anomaly_by_its_ink(anomalies):
    data = load_data("digits")
    train, test = (data.train[:100] / 255).astype("float32"), (data.test[:20] / 255).astype("float32")
    found = {name: score for name, score, _ in anomalies.scores_of(train, test, 10, 2, 30)}
    assert list(found) == METHODS
    with pytest.warns(ConvergenceWarning):
        vae = estimators.VAE(20, likelihood="bernoulli", n_hidden=10, max_iter=2, random_state=0).fit(train)
    assert_array_equal(found["bound"], vae.score_samples(test))
    assert (found["log p(x)"] > found["bound"]).mean() > 0.9  # the bound lies below it
    assert_array_equal(found["PPCA"], estimators.PPCA(20).fit(train).score_samples(test))
    assert_array_equal(np.argsort(found["ink"]), np.argsort(-test.sum(axis=1)))
