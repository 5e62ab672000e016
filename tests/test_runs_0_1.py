"""Run folders of version 0.1.0: this version reads them, scores them and goes on from them as that one did.

The folders in runs_0_1 were written before posteriors, likelihoods and objectives had files of their own: three by
`scratchvae train`, on 200 of the digits, and one by `fit` with black-box inference, which was a function to be passed.
expected.json says what that version got from each: its bounds, the rows of its history and two projections of its
parameters, and rows and projections once more after it had resumed the run for as long again. All are in float64.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, Adagrad, FullVB, evaluate, fit, load_model
from scratchvae.cli import main
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.training.run import read_history

RUNS = Path(__file__).with_name("runs_0_1")
EXPECTED = json.loads((RUNS / "expected.json").read_text(encoding="utf-8"))
TRAINED = ["vae", "flow", "full_vb"]  # by the command line
GREY = np.random.default_rng(7).integers(0, 256, (60, 9), dtype=np.uint8)  # what the fourth saw
SAME = 1e-10  # kernels of BLAS differ from machine to machine


@pytest.fixture
def run(request, tmp_path):
    """A copy of a run folder, so that the one in the repository stays as it is."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def everywhere(names):
    return pytest.mark.parametrize("run", names, indirect=True)


def assert_same(run, expected, estimator=None):
    """Rows of the history and parameters are those of before."""
    theta = load_model(run, estimator).params.value
    assert_allclose([theta @ np.cos(np.arange(theta.size)), theta @ theta], expected["parameters"], rtol=SAME)
    history = read_history(run / "metrics.csv")
    found = np.array([list(row)[:5] for row in history.tolist()])  # the bound, without the seconds
    assert_allclose(found, expected["rows"], rtol=SAME)


@everywhere(EXPECTED)
def test_a_run_of_before_is_loaded_with_its_parameters_to_the_bit(run):
    model = load_model(run)
    with np.load(run / "checkpoint.npz", allow_pickle=False) as file:
        stored = {name.removeprefix("params/"): file[name] for name in file.files if name.startswith("params/")}
    found = model.params.named(model.params.value)
    assert found.keys() == stored.keys()
    for name, array in stored.items():
        assert_array_equal(found[name], array)
    assert type(model) is (FullVB if run.name == "full_vb" else VAE)
    assert model.config.get("flow", 0) == (2 if run.name == "flow" else 0)
    assert model.config["estimator"] == {"flow": "A", "black_box": "black-box"}.get(run.name, "B")
    assert_same(run, EXPECTED[run.name]["begun"])


@everywhere(TRAINED)
def test_evaluate_prints_the_numbers_of_before(run, capsys):
    more = ["--n-theta", "3"] if run.name == "full_vb" else []
    assert main(["evaluate", str(run), "--split", "valid", "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = EXPECTED[run.name]["evaluated"]
    assert_allclose([found[key] for key in expected], list(expected.values()), rtol=SAME)


@everywhere(TRAINED)
def test_a_run_is_resumed_from_the_command_line_as_before(run):
    begun = len(read_history(run / "metrics.csv"))
    assert main(["train", "--quiet", "--resume", str(run), "--samples", "2000"]) == 0
    assert_same(run, EXPECTED[run.name]["resumed"])
    rates = read_history(run / "metrics.csv")["rate"]  # which an older run has not kept
    assert len(rates) > begun and np.isnan(rates[: begun - 1]).all() and np.isfinite(rates[begun:]).all()


@everywhere(["black_box"])
def test_black_box_inference_is_known_by_its_name_now_and_may_be_passed_as_before(run):
    expected = EXPECTED["black_box"]["evaluated"]
    for model in (load_model(run), load_model(run, black_box)):
        assert model.estimator is black_box
        found = evaluate(model, GREY)
        assert_allclose([found[key] for key in expected], list(expected.values()), rtol=SAME)


@everywhere(["black_box"])
@pytest.mark.parametrize("estimator", ["black-box", black_box], ids=["by name", "the function"])
def test_a_run_of_fit_is_resumed_in_python_as_before(run, estimator):
    model = VAE(9, 2, 2, estimator=estimator, n_samples=4, dtype="float64", init=0.1)
    settings = {"optimizer": Adagrad(0.05), "batch_size": 20, "log_every": 100, "out": run, "resume": True}
    fit(model, GREY, GREY[:20], samples=400, **settings)
    assert_same(run, EXPECTED["black_box"]["resumed"])
