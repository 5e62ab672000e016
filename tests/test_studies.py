"""The studies of gradient noise and of posteriors run on a small scale, and measure what they say."""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, load_data

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
