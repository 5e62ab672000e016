"""Real training on real data, short: the main job keeps working, and learns as fast as the reference curves say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import is_drawn

from scratchvae import VAE, Adagrad, Adam, fit, load_data, load_model
from scratchvae.training.loop import stream

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_mnist_reaches_the_reference_bound_at_30_000_samples(mnist):
    model = VAE(784, 500, 20, seed=0)
    history = fit(model, mnist.train, mnist.valid[:2000], optimizer=Adagrad(0.01), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > -195  # seeds 0 to 3: -179.8 to -190.0; the start is at -543


def test_mnist_with_adam_and_glorot_learns_faster_still(mnist):
    model = VAE(784, 500, 20, init="glorot", seed=0)
    history = fit(model, mnist.train, mnist.valid[:2000], optimizer=Adam(0.001), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > -145  # seeds 0 to 3: -138.8 to -140.6


def test_frey_face_learns_through_the_gaussian_decoder(frey):
    model = VAE(560, 200, 2, likelihood="gaussian", seed=0)
    history = fit(model, frey.train, frey.valid, optimizer=Adagrad(0.01), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > 600  # seeds 0 to 2: 615.9 to 624.8; the mean face with its variances has 588.5


@pytest.mark.parametrize("script", ["reconstructions", "samples", "manifold", "random_walk", "loss_curve"])
def test_every_example_runs_on_a_small_scale(script, tmp_path):
    settings = ["--scale", "0.0002", "--data", "digits", "--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    command = [sys.executable, EXAMPLES / f"{script}.py", *settings]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert list((tmp_path / "results").glob("*.png")) and list((tmp_path / "results").glob("*.csv"))


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("full_vb", ["--scale", "0.0005", "--sizes", "50", "100", "--seeds", "2", "--jobs", "2", "--runs", "runs"]),
        ("full_vb_variance", ["--scale", "0.01"]),
    ],
)
def test_the_studies_of_full_vb_run_on_a_small_scale_and_go_on_where_they_stopped(script, settings, tmp_path):
    command = [sys.executable, EXAMPLES / f"{script}.py", *settings, "--data", "digits", "--results", "results"]
    for _ in range(2 if script == "full_vb" else 1):
        subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=tmp_path)
    table = (tmp_path / "results" / f"{script}.csv").read_text().splitlines()
    assert len(table) == 1 + {"full_vb": 2 * 2 * 5, "full_vb_variance": 4 * 4 * 14}[script]
    assert not [row for row in table if "nan" in row and ",minibatch," not in row]  # z of plain against itself
    if script == "full_vb":
        assert is_drawn(tmp_path / "results" / "full_vb.png")
        assert is_drawn(tmp_path / "results" / "full_vb_uncertainty.png")


STUDIES = {  # arguments beside --scale, and the rows of the tables
    "figure2": (["--data", "digits", "--latent", "3"], {"figure2": 2 * 6}),
    "figure3": (["--data", "digits", "--sizes", "100", "--images", "10"], {"figure3": 3 * 3}),
    "figure4": (["--data", "digits"], {"figure4": 1}),
    "figure5": (["--data", "digits", "--latent", "2", "3"], {"figure5": 2}),
    "estimators": (
        ["--data", "digits", "--seeds", "1"],
        {"estimators": 2 * 8 + 3 + 4 + 2 * 4, "estimators_variance": 2 * 2 * 4 * 4 * 11},
    ),
    "marginal": (["--data", "digits", "--images", "5"], {"marginal": 5}),
    "iwae": (["--data", "digits", "--stages", "2", "--k", "1", "3", "--images", "20", "--draws", "50"], {"iwae": 3}),
    "ladder": ([], {"ladder": 7}),
    "em": (["--data", "digits", "--seeds", "1"], {"em": 4}),
    "flow": (["--data", "digits", "--seeds", "1", "--maps", "2"], {"flow": 4}),
    "conv": (["--data", "digits"], {"conv": 2}),
    "energies": (["--maps", "2", "3", "--seeds", "1"], {"energies": 8}),
}


@pytest.mark.parametrize("script", STUDIES)
def test_the_papers_figures_run_on_a_small_scale_and_go_on_where_they_stopped(script, tmp_path):
    arguments, tables = STUDIES[script]
    scale = {"figure3": "0.001", "estimators": "0.002", "iwae": "0.05", "conv": "0.02"}.get(script, "0.0003")
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *arguments, "--scale", scale, "--results", "results"]
    written = []
    for _ in range(2 if script in ("figure2", "figure3") else 1):
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
        written.append({path: path.read_bytes() for path in tmp_path.glob("results/*.csv")})
    assert written[0] == written[-1]  # what was trained is not trained again: the same seconds
    for name, count in tables.items():
        table = (tmp_path / "results" / f"{name}.csv").read_text().splitlines()
        assert len(table) == 1 + count, name
        assert name in ("estimators", "marginal", "ladder") or "nan" not in "".join(
            table
        )  # no bound of an autoencoder, no k_hat of 20
    assert is_drawn(tmp_path / "results" / f"{script}.png")
    for config in tmp_path.glob("runs/examples/*/*/config.json"):  # what a folder is called is what was trained in it
        run = json.loads(config.read_text())["run"]
        assert run["model"]["estimator"] == trained_by(config.parent.name), config
        assert run.get("schedule") == (
            "alternating" if "alternating" in config.parent.name else run.get("schedule") and "joint"
        )
        assert run["model"].get("flow", 0) == (
            int(config.parent.name[0]) if config.parent.parent.name.startswith("flow") else 0
        )
        assert ("mcem" in run) == ("MCEM" in config.parent.name)


def trained_by(name):
    """The estimator that a run of an example has, by the name of its folder."""
    for word, estimator in {
        "wake-sleep": "wake-sleep",
        "IWAE": "iwae",
        "VAE-": "A",
        "autoencoder": "autoencoder",
        "2-0-": "A",  # a flow of two maps
    }.items():
        if word in name:
            return estimator
    return "A" if "-A-" in name else "B"


def test_the_variances_of_the_estimators_study_are_those_of_its_gradients(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    estimators = importlib.import_module("estimators")
    run = estimators.run_of(SimpleNamespace(data="digits", scale=0.001, runs=tmp_path))
    run.train("none")
    rows = estimators.variances(run, "trained", "A", 2, 20, 6, "none")
    model, train = VAE(64, 200, 10, estimator="A", n_samples=2), load_data("digits").train
    model.params.value[...] = load_model(run.folder).params.value
    gradients = []
    for k in range(6):
        generator = stream(0, 1, k)
        x = model.pixels(train[generator.integers(len(train), size=20)])
        model.bound(x, model.noise(generator, 20), 1, gradient=True)
        gradients.append(model.params.grad.astype(float))
    assert rows[-1]["array"] == "all"
    assert float(rows[-1]["variance over ε and minibatch"]) == pytest.approx(
        np.var(gradients, axis=0, ddof=1).sum(), rel=1e-3
    )
    assert 0 < float(rows[-1]["variance over ε"]) < float(rows[-1]["variance over ε and minibatch"])
    parts = sum(float(row["variance over ε"]) for row in rows[:-1])
    assert parts == pytest.approx(float(rows[-1]["variance over ε"]), rel=1e-2)


def test_after_a_call_that_failed_no_other_begins(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    study = importlib.import_module("study")
    touched = [tmp_path / name for name in "ab"]
    with pytest.raises(ValueError, match="invalid literal"):
        study.in_parallel([(int, "x"), *((Path.touch, path) for path in touched)], 1)
    assert not any(path.exists() for path in touched)
    assert study.in_parallel([(int, "3"), (int, "4"), (int, "5")], 2) == [3, 4, 5]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("figure2", ["--latent", "0"], "argument --latent: 0; expected a whole number ≥ 1"),
        ("figure3", ["--data", "mnits", "--scale", "0.001"], "error: there is no data set 'mnits'"),
        ("figure4", ["--scale", "2"], "--scale is 2; expected a fraction above 0, at most 1"),
    ],
)
def test_what_the_examples_cannot_do_is_one_line(script, arguments, message, tmp_path):
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert message in done.stderr
