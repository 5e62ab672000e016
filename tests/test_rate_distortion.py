"""examples/rate_distortion.py: reverse water-filling (E29), the optimum of the linear VAE in closed form, a run."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from scratchvae.gradcheck import check_model
from scratchvae.inference.information import information

EXAMPLES = Path(__file__).parent.parent / "examples"
BETAS = (0.1, 1.0, 10.0)


@pytest.fixture
def study(monkeypatch):
    """examples/rate_distortion.py as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("rate_distortion")


def test_water_filling_is_the_least_rate_at_its_distortion_e29(study):
    variances = np.array([3.0, 1.0, 0.2])
    for theta in (0.05, 0.5, 1.5):
        rate, distortion = study.water_filling(variances, theta)
        # each axis may have a distortion of its own, d ≤ λ, at ½ ln(λ/d) nats
        found = minimize(
            lambda d: 0.5 * np.log(variances / d).sum(),
            variances * distortion / variances.sum(),
            bounds=[(1e-6, v) for v in variances],
            constraints={"type": "eq", "fun": lambda d, D=distortion: d.sum() - D},
        )
        assert found.success and found.fun == pytest.approx(rate, abs=1e-5)
        assert study.rate_of(variances, distortion) == pytest.approx(rate, abs=1e-9)
    assert study.water_filling(variances, 3.0) == (0.0, pytest.approx(4.2))
    assert study.rate_of(variances, 4.2) == 0.0


@pytest.mark.parametrize("beta", BETAS)
def test_the_optimum_in_closed_form_lies_on_the_curve_and_no_step_from_it_is_better_e29(study, beta):
    x, variances, _, _ = study.linear_data()
    model = study.optimum(beta)
    rate, distortion = study.water_filling(variances, beta * study.VARIANCE)
    use = information(model, x)
    assert_allclose(use.rate, rate, rtol=1e-9)
    z = model.encode_samples(x, 50)
    found = ((x - model.decode(z.reshape(-1, 6)).reshape(z.shape)) ** 2).sum(axis=-1).mean()
    assert_allclose(found, distortion, rtol=0.01)
    assert use.active == (variances > beta * study.VARIANCE * 1.02).sum()
    many = np.repeat(x, 5, axis=0)
    model.bound(many, model.noise(np.random.default_rng(0), len(many)), len(many), gradient=True)
    per_row = model.params.named(model.params.grad / len(many))
    for name, gradient in per_row.items():  # the mean over 15,000 draws; far from the optimum it is of order 1
        assert np.abs(gradient).max() < 0.3 / beta**0.5, name


def test_the_likelihood_with_a_fixed_variance_has_its_gradient(study):
    assert check_model(study.linear_model(0.5), study.linear_data()[0][:5], entries=3, points=1)


def test_the_study_runs_on_a_small_scale(run_example, tmp_path, capsys):
    words = "--data digits --scale 0.01 --results results --runs runs --beta 0.1 1 10"
    run_example("rate_distortion", *words.split())
    with open(tmp_path / "results" / "rate_distortion.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = [row for row in rows if row["data"] == "digits"]
    linear = [row for row in rows if row["data"] == "linear"]
    assert len(images) == len(linear) == 3
    rates = [float(row["rate"]) for row in images]
    assert rates[0] > 2 * rates[1] > 4 * rates[2]
    for row in images:
        assert float(row["bound"]) == pytest.approx(-float(row["rate"]) - float(row["distortion"]), abs=0.002)
    assert all(float(row["above the curve"]) > -0.02 for row in linear)  # nothing lies below it, but for the draws
    assert [int(row["optimum active"]) for row in linear] == [6, 4, 1]
    assert "nats above" in capsys.readouterr().out
    assert is_drawn(tmp_path / "results" / "rate_distortion.png")
