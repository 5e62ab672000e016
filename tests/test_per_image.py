"""training/per_image.py: the gap taken apart, on linear models whose best q of each family is known."""

import csv

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_allclose, assert_array_equal
from test_annealing import linear

from scratchvae import VAE
from scratchvae.inference.objectives import sgvb
from scratchvae.training import per_image
from scratchvae.training.per_image import Gap, gap


def model_and_data(n=12):
    """A linear VAE whose encoder is wrong, n rows that come from it, their log p(x), and the posterior's precision."""
    model, law, precision = linear(1.0)
    x = law.rvs(n, random_state=1)
    return model, x, law.logpdf(x), precision


def kl_to_posterior(model, x, precision):
    """KL(q(z|x) ‖ p(z|x)) of the encoder's q, a diagonal Gaussian, in closed form, (N,)."""
    arrays = model.params.named(model.params.value)
    var = np.exp(arrays["decoder.log_var.b"][0])
    mean = np.linalg.solve(precision, arrays["decoder.mu.W"] @ (x - arrays["decoder.mu.b"]).T / var).T
    mu, log_var = model.encode(x)
    d = mu - mean
    spread = np.exp(log_var) @ np.diag(precision) + ((d @ precision) * d).sum(axis=1)
    return 0.5 * (spread - 2 - np.linalg.slogdet(precision)[1] - log_var.sum(axis=1))


def test_approximation_gap_of_diagonal_gaussians_is_that_of_the_closed_form():
    model, x, log_p, precision = model_and_data()
    found = gap(model, x, log_p, draws=4000)
    exact = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])  # q* has 1/Λ_jj for variances
    assert exact > 0.05
    assert (np.abs(found.approximation() - exact) < 5 * found.optimal_error + 1e-3).all()
    assert abs(found.approximation().mean() - exact) < 0.01


def test_with_full_covariance_nothing_is_left_but_what_the_encoder_costs():
    model, x, log_p, precision = model_and_data()
    found = gap(model, x, log_p, posterior="full", draws=4000)
    assert np.abs(found.approximation()).max() < 1e-6
    exact = kl_to_posterior(model, x, precision)
    assert (np.abs(found.amortisation() - exact) < 5 * found.amortised_error).all()
    assert exact.mean() > 0.1


def test_flow_is_between_its_base_and_the_posterior():
    model, x, log_p, precision = model_and_data(6)
    exact = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    found = gap(model, x, log_p, posterior="gaussian", flow=4, draws=2000)
    assert -0.005 < found.approximation().mean() < 0.5 * exact


def test_maps_of_an_encoder_at_which_no_gradient_moves_them_do_not_hold_the_best_q_back():
    gaussian, x, log_p, precision = model_and_data(6)
    model = VAE(x.shape[1], (), 2, "gaussian", "free", flow=4, dtype="float64")
    model.params.value[...] = 0  # all maps are the identity, with u = w = 0
    arrays = gaussian.params.named(gaussian.params.value)
    for name, array in model.params.named(model.params.value).items():
        array[...] = arrays.get(name, 0)
    exact = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    done = []
    found = gap(model, x, log_p, steps=700, draws=2000, progress=done.append)
    assert -0.005 < found.approximation().mean() < 0.5 * exact
    assert sum(done) == 2 * 700 * 6


@pytest.mark.parametrize(
    "settings", [{}, {"posterior": "full"}, {"flow": 2}, {"posterior": "full", "flow": 1}], ids=str
)
def test_ascent_begins_at_the_encoders_own_q(settings):
    model = VAE(6, 5, 2, init=0.5, dtype="float64", estimator="A", **settings)
    x = np.random.default_rng(0).random((4, 6))
    found = gap(model, x, np.zeros(4), steps=1, lr=1e-12, draws=50)
    assert_allclose(found.optimal, found.amortised, rtol=1e-9)


@pytest.mark.parametrize("family", [{"posterior": "full"}, {"flow": 3}, {"posterior": "gaussian", "flow": 0}], ids=str)
def test_another_family_begins_at_the_moments_of_the_encoders_q(family):
    model = VAE(6, 5, 2, init=0.5, dtype="float64", estimator="A")
    x = np.random.default_rng(0).random((4, 6))
    found = gap(model, x, np.zeros(4), steps=1, lr=1e-12, draws=50, **family)
    assert_allclose(found.optimal, found.amortised, rtol=1e-9)  # the same draws: maps are the identity, Σ is diagonal


def test_model_stays_as_it_is_and_blocks_do_not_matter_much(monkeypatch):
    model, x, log_p, _ = model_and_data(5)
    before = model.params.value.copy(), model.params.grad.copy()
    done = []
    whole = gap(model, x, log_p, steps=300, draws=2000, progress=done.append)
    assert sum(done) == 5 * 300
    assert_array_equal(model.params.value, before[0])
    assert_array_equal(model.params.grad, before[1])
    assert not any(layer.frozen for layer in model.decoder.layers if layer.shapes)
    monkeypatch.setattr(per_image, "AT_ONCE", 2)
    parts = gap(model, x, log_p, steps=300, draws=2000)
    assert (np.abs(parts.optimal - whole.optimal) < 5 * np.hypot(parts.optimal_error, whole.optimal_error)).all()


def test_draws_samples_and_steps_arrive(monkeypatch):
    model, x, log_p, _ = model_and_data(3)
    seen = []
    original = sgvb.stl
    monkeypatch.setattr(
        sgvb, "stl", lambda q, p, x, eps, scale: seen.append(eps.shape) or original(q, p, x, eps, scale)
    )
    found = gap(model, x, log_p, steps=7, n_samples=3, draws=11)
    assert seen == [(3, 3, 2)] * 7
    more = gap(model, x, log_p, steps=7, n_samples=3, draws=1100)
    assert_allclose(more.optimal_error, found.optimal_error / 10, rtol=0.9)
    other = gap(model, x, log_p, steps=7, n_samples=3, draws=11, seed=1)
    assert np.abs(other.optimal - found.optimal).min() > 1e-6


def test_the_bounds_are_taken_with_other_noise_than_the_ascent(monkeypatch):
    model, x, log_p, _ = model_and_data(3)
    seen = []
    original = per_image.standard_normal

    def noted(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(per_image, "standard_normal", noted)
    gap(model, x, log_p, steps=1, n_samples=8, draws=8)
    ascent, optimal, amortised = seen
    assert_array_equal(optimal, amortised)
    assert not np.isin(optimal, ascent).any()


def test_parts_add_up_to_the_gap():
    a, b, c = np.random.default_rng(0).random((3, 4))
    found = Gap(a, b, c, b, c)
    assert_allclose(found.approximation() + found.amortisation(), a - c)


def test_rows_of_a_conditional_model_are_taken_apart_too():
    model = VAE(6, 5, 2, n_classes=3, init=0.5)
    x = model.labelled(np.random.default_rng(0).random((4, 6)), [0, 1, 2, 0])
    found = gap(model, x, np.zeros(4), steps=200, draws=200)
    assert (found.amortisation() > -5 * found.optimal_error).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"log_p": np.zeros(2)}, r"log_p has shape \(2,\); expected \(3,\)"),
        ({"steps": 0}, "steps is 0"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"draws": 1}, "draws is 1; expected a whole number ≥ 2"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"posterior": "round"}, "posterior is 'round'"),
        ({"model": VAE(6, 5, 2, estimator="autoencoder")}, "an autoencoder has no bound"),
        ({"x": np.zeros((3, 5))}, r"x has shape \(3, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(given, told):
    usual = {"model": VAE(6, 5, 2), "x": np.tile([0.0, 1.0], (3, 3)), "log_p": np.zeros(3)}
    with pytest.raises(ValueError, match=told):
        gap(**usual | given)


def test_the_study_runs_on_a_small_scale(run_example, tmp_path, capsys):
    words = "--data digits --latent 2 --images 4 --scale 0.02 --samples 100000 --results results --runs runs"
    run_example("gap", *words.split())
    with open(tmp_path / "results" / "gap.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["own"]) for row in rows[:3]] == [("VAE", "yes"), ("VAE", "no"), ("VAE", "no")]
    assert len(rows) == 12 and sum(row["own"] == "yes" for row in rows) == 4
    for row in rows:
        parts = float(row["approximation gap"]) + float(row["amortisation gap"])
        assert float(row["log_p"]) - float(row["bound"]) == pytest.approx(parts, abs=0.003)
    assert "amortisation" in capsys.readouterr().out
    assert is_drawn(tmp_path / "results" / "gap.png")
