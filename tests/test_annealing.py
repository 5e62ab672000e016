"""inference/annealing.py on models whose evidence is known: the linear VAE, two modes, and the identities of E30."""

import json

import numpy as np
import pytest
from conftest import rows
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from test_exact import linear_vae
from test_marginal import two_modes

from scratchvae import VAE
from scratchvae.cli import main
from scratchvae.cli.evaluate import _log_likelihood_in_words
from scratchvae.inference import annealing
from scratchvae.inference.annealing import Noise, annealed, betas_of, sandwich, walk
from scratchvae.inference.hmc import log_likelihood
from scratchvae.inference.marginal import log_p_xz, quadrature


def linear(var):
    """Return the linear VAE of `test_exact` with another σ², its evidence and its posterior's precision."""
    model, law, _ = linear_vae("B", 1, False)
    arrays = model.params.named(model.params.value)
    arrays["decoder.log_var.b"][...] = np.log(var)
    W = arrays["decoder.mu.W"]
    return model, multivariate_normal(law.mean, W.T @ W + var * np.eye(6)), W @ W.T / var + np.eye(2)


def posterior_draws(model, precision, x, K, seed=3):
    """Return exact draws of p(z|x) under a linear VAE, (K, N, 2)."""
    arrays = model.params.named(model.params.value)
    var = np.exp(arrays["decoder.log_var.b"][0])
    mean = np.linalg.solve(precision, arrays["decoder.mu.W"] @ (x - arrays["decoder.mu.b"]).T / var).T
    root = np.linalg.cholesky(np.linalg.inv(precision))
    return mean + np.random.default_rng(seed).standard_normal((K, len(x), 2)) @ root.T


def log_weights(model, x, T, K, backwards_from=None, stepsize=0.3):
    """Return log w of K walks, or log 1/w of walks backwards from z (K, N, 2), for each row of x, (K, N)."""
    noise = Noise(model, K, [7], range(len(x)))
    betas = betas_of(T)
    z = noise.normal()
    if backwards_from is not None:
        betas = betas[::-1]
        z = backwards_from.reshape(-1, 2)
    stepsizes = np.full((max(T - 1, 1), len(x)), stepsize)
    return walk(log_likelihood(model.decoder, x), z, betas, stepsizes, noise, 2).reshape(K, -1)


def test_temperatures_rise_from_the_prior_to_the_posterior_as_a_sigmoid_does():
    assert_allclose(betas_of(1), [0, 1])
    s = 1 / (1 + np.exp(-4 * np.array([-1, -0.5, 0, 0.5, 1])))
    assert_allclose(betas_of(4), (s - s[0]) / (s[-1] - s[0]), rtol=1e-12)
    assert betas_of(1000)[0] == 0 and betas_of(1000)[-1] == 1 and (np.diff(betas_of(1000)) > 0).all()


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_with_one_temperature_it_is_importance_sampling_from_the_prior_e30():
    model, _, _ = linear_vae("B", 1, False)
    estimate = annealed(model, rows(), 300, 1)
    z = Noise(model, 300, [0, annealing.FORWARDS, 0], range(7)).normal().reshape(300, 7, 2)
    log_px = log_p_xz(model, rows(), z) - (-0.5 * (z**2).sum(axis=2) - np.log(2 * np.pi))
    assert_allclose(estimate.log_p, logsumexp(log_px, axis=0) - np.log(300), rtol=1e-12)
    assert estimate.n_terms == 300


@pytest.mark.parametrize("T", [1, 2, 5, 20])
@pytest.mark.parametrize("stepsize", [0.1, 0.8, 1.5])
def test_weights_average_to_the_evidence_whatever_the_temperatures_and_the_stepsize_e30(T, stepsize):
    model, law, precision = linear(40.0)  # so wide that w and 1/w both have a variance
    x = law.rvs(400, random_state=1)
    w = np.exp(log_weights(model, x, T, 40, stepsize=stepsize) - law.logpdf(x))
    inverse = np.exp(log_weights(model, x, T, 40, posterior_draws(model, precision, x, 40), stepsize) + law.logpdf(x))
    for ratio in (w, inverse):  # each ratio has the mean 1
        of_row = ratio.mean(axis=0)
        error = of_row.std(ddof=1) / np.sqrt(len(x))
        assert abs(of_row.mean() - 1) < 4.89 * error and error < 0.02


def test_walks_forwards_fall_short_of_the_evidence_and_walks_backwards_exceed_it_e30():
    model, law, precision = linear(1.0)
    x = law.rvs(300, random_state=1)
    short = []
    for T in (3, 30):
        below = log_weights(model, x, T, 1)[0] - law.logpdf(x)
        above = -log_weights(model, x, T, 1, posterior_draws(model, precision, x, 1))[0] - law.logpdf(x)
        mean = np.array([below.mean(), above.mean()])
        error = np.array([below.std(), above.std()]) / np.sqrt(300)
        assert mean[0] + 4 * error[0] < 0 < mean[1] - 4 * error[1]
        short.append(np.abs(mean))
    assert (short[1] < 0.5 * short[0]).all()  # the more temperatures, the less


def test_sandwich_holds_the_evidence_of_the_linear_vae_within_a_hundredth_of_a_nat_e30():
    model, law, _ = linear(4.0)
    found = sandwich(model, 60, 64, 150, seed=3)
    truth = law.logpdf(model.simulate(60, 3)[1])  # of the same data
    for estimate in (found.lower, found.upper):
        off = estimate.log_p - truth
        error = off.std(ddof=1) / np.sqrt(60)
        assert abs(off.mean()) < 0.01 and error < 0.01
    gap, error = found.gap()
    assert_allclose(gap, (found.upper.log_p - found.lower.log_p).mean(), rtol=1e-9)
    assert abs(gap) < 4 * error and 0 < error < 0.02


def test_annealing_finds_both_modes_where_q_knows_of_one():
    model, x = two_modes()
    assert_allclose(annealed(model, x[:4], 200, 100).log_p, quadrature(model, x[:1])[0], atol=0.1)


def test_stepsizes_are_tuned_to_the_aim_by_noise_of_their_own_and_are_the_datapoints_own():
    model, _, _ = linear_vae("B", 1, False)
    x = rows()
    likelihood = log_likelihood(model.decoder, x)
    for T in (60, 250):  # fewer than the tuning has at most, and more
        stepsizes = annealing.tuned(likelihood, T, Noise(model, 30, [1], range(7)), 2)
        assert stepsizes.shape == (T - 1, 7)
        rates = []
        noise = Noise(model, 30, [2], range(7))
        walk(likelihood, noise.normal(), betas_of(T), stepsizes, noise, 2, rates.append)
        assert len(rates) == T - 1
        late = np.array(rates[T // 3 :])
        assert abs(late.mean() - annealing.AIM) < 0.1 and np.abs(late.mean(axis=0) - annealing.AIM).max() < 0.15
    assert stepsizes[-1].std() > 0


def test_walk_backwards_takes_the_same_temperatures_and_stepsizes_in_the_opposite_order(monkeypatch):
    model, _, _ = linear_vae("B", 1, False)
    seen = []
    original = annealing.walk

    def noted(likelihood, z, betas, stepsizes, *rest, **more):
        seen.append((betas, np.array(stepsizes)))
        return original(likelihood, z, betas, stepsizes, *rest, **more)

    monkeypatch.setattr(annealing, "walk", noted)
    sandwich(model, 3, 5, 150)
    (betas, forwards), (betas_back, backwards) = seen[1], seen[3]  # each follows the walk that tunes
    assert_array_equal(betas, betas_of(150))
    assert_array_equal(betas_back, betas[::-1])
    assert_array_equal(backwards, forwards[::-1])
    assert forwards[0].mean() > 2 * forwards[-1].mean()  # long steps near the prior


def test_the_estimate_of_a_row_does_not_depend_on_the_rows_beside_it():
    model, _, _ = linear_vae("B", 1, False)
    x = rows()
    whole = annealed(model, x, 16, 40, seed=2)
    assert_allclose(annealed(model, x[:3], 16, 40, seed=2).log_p, whole.log_p[:3], rtol=1e-7)
    assert np.abs(annealed(model, x, 16, 40, seed=3).log_p - whole.log_p).min() > 1e-4


def test_many_walks_are_taken_in_parts_with_other_noise_in_each(monkeypatch):
    model, _, _ = linear_vae("B", 1, False)
    monkeypatch.setattr(annealing, "AT_ONCE", 4)
    seen = []
    original = annealing.log_mean
    monkeypatch.setattr(annealing, "log_mean", lambda log_w: seen.append(log_w) or original(log_w))
    done = []
    estimate = annealed(model, rows(), 10, 3, progress=done.append)
    assert [log_w.shape for log_w in seen] == [(10, 1)] * 7
    assert len(np.unique(np.round(seen[0], 12))) == 10
    assert sum(done) == 7 * 10 * 3 and estimate.n_terms == 10


def test_steps_and_temperatures_are_what_is_walked(monkeypatch):
    model, _, _ = linear_vae("B", 1, False)
    seen = []
    original = annealing.transition

    def transition(target, state, p, u, stepsize, steps):
        seen.append(steps)
        return original(target, state, p, u, stepsize, steps)

    monkeypatch.setattr(annealing, "transition", transition)
    annealed(model, rows(), 2, 7, steps=3)
    assert seen == [3] * (2 * 6)  # of the tuning and of the walk
    seen.clear()
    sandwich(model, 5, 2, 7, steps=3)
    assert seen == [3] * (4 * 6)


def test_data_of_the_models_own_may_lie_where_no_pixel_does():
    found = sandwich(VAE(6, 5, 2, "gaussian", init=0.5), 5, 8, 20)
    assert np.isfinite(found.gap()).all()
    assert np.isnan(sandwich(VAE(6, 5, 2), 1, 8, 20).gap()[1])  # one datapoint has no standard error


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ({"n_samples": 0}, "n_samples is 0"),
        ({"temperatures": 0}, "temperatures is 0"),
        ({"temperatures": 2.5}, "temperatures is 2.5"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(given, came):
    for estimate in (
        lambda **given: annealed(VAE(6, 5, 2), rows(), **given),
        lambda **given: sandwich(VAE(6, 5, 2), **given),
    ):
        with pytest.raises(ValueError, match=came):
            estimate(**given)


def test_rows_that_do_not_fit_and_no_data_of_its_own_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(7, 5\); expected \(N, 6\)"):
        annealed(VAE(6, 5, 2), rows()[:, :5])
    with pytest.raises(ValueError, match="n is 0"):
        sandwich(VAE(6, 5, 2), 0)


def test_an_estimate_that_is_not_finite_is_told():
    model = VAE(6, 5, 2)
    model.params.value[model.theta] = np.nan
    with pytest.warns(UserWarning, match="log p\\(x\\) of 2 of 2 datapoints is not finite"):
        annealed(model, np.full((2, 6), 0.5, np.float32), 4, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on the digits."""
    folder = tmp_path_factory.mktemp("annealing") / "run"
    words = "train --latent 2 --hidden 5 --samples 500 --quiet --out"
    assert main([*words.split(), str(folder)]) == 0
    return str(folder)


def test_evaluate_anneals_as_many_walks_of_as_many_temperatures_on_as_many_images_as_asked(run, capsys):
    capsys.readouterr()
    assert main(["evaluate", run, "--log-likelihood", "3", "--annealed", "20", "--first", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    from scratchvae import load_data, load_model
    from scratchvae.training.loop import evaluate

    model = load_model(run)
    x = load_data("digits").test[:4]
    estimate = annealed(model, x, 3, 20)
    assert_allclose(found["log_likelihood"], estimate.log_p.mean(), rtol=1e-9)
    assert found["log_likelihood_by"] == "annealing" and found["temperatures"] == 20
    assert found["log_likelihood_samples"] == 3 and found["n"] == 4 and found["simulated"] == 4
    assert_allclose(found["bound"], evaluate(model, x)["bound"])
    simulated = sandwich(model, 4, 3, 20)
    assert_allclose([found["simulated_gap"], found["simulated_gap_error"]], simulated.gap())
    assert_allclose(found["simulated_lower"], simulated.lower.log_p.mean())
    assert_allclose(found["simulated_upper"], simulated.upper.log_p.mean())
    assert main(["evaluate", run, "--annealed", "20", "--first", "4"]) == 0
    assert "by 16 annealed walks of 20 temperatures" in capsys.readouterr().out
    shown = found | {"simulated_gap": 0.5, "simulated_gap_error": 0.1, "temperatures": 1}
    words = _log_likelihood_in_words(shown)
    assert "by 3 annealed walks of 1 temperature," in words
    assert words.endswith("0.5 ± 0.1 apart: too far to be trusted, take more temperatures")
    assert _log_likelihood_in_words(shown | {"simulated_gap": 0.29}).endswith("0.29 ± 0.1 apart")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--annealed 0", "--annealed is 0; expected a whole number ≥ 1"),
        ("--annealed 5 --log-likelihood 0", "--log-likelihood is 0; expected a whole number ≥ 1"),
        ("--first 0", "--first is 0; expected a whole number from 1 to 180"),
        ("--first 181", "--first is 181; expected a whole number from 1 to 180"),
    ],
)
def test_evaluate_refuses_numbers_that_do_not_fit(run, words, told, capsys):
    assert main(["evaluate", run, *words.split()]) == 2
    assert told in capsys.readouterr().err
