"""inference/mcem.py and training/em.py: Monte Carlo EM (appendix E) where both steps are known in closed form (E20)."""

import itertools
import signal

import numpy as np
import pytest
from conftest import LIKELIHOODS, relative, rows, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from test_exact import linear_vae

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, oracle
from scratchvae.gradcheck import check_gradients
from scratchvae.inference.marginal import quadrature
from scratchvae.inference.mcem import complete_data, e_step
from scratchvae.training.checkpoint import CheckpointError
from scratchvae.training.em import fit_mcem
from scratchvae.training.loop import HELD_OUT, ORDER, STEP, stream
from scratchvae.training.run import load_model

Z_LIMIT = 4.89  # two-sided z-test, false alarms 1e-6


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_the_m_step_gradient_equals_the_oracle_and_leaves_phi_alone(likelihood, mean):
    model, x, z = small(likelihood, mean), rows(), np.random.default_rng(0).standard_normal((7, 2))
    model.params.grad[...] = np.nan
    complete_data(model.decoder, x, z, 40)
    assert np.isnan(model.params.grad[model.phi]).all()
    theta, gradients = (
        {name: w for name, w in model.params.named(vector).items() if name.startswith("decoder.")}
        for vector in (model.params.value, model.params.grad.copy())
    )

    def expected(arrays):
        log_px = oracle.log_likelihood(arrays, x, z, likelihood, mean)
        return 40 / 7 * (log_px + oracle.log_normal(z, 0 * z, 0 * z)).sum()

    def loss():
        return complete_data(model.decoder, x, z, 40, gradient=False)

    report = check_gradients(loss, theta, gradients, oracle=expected)
    assert report and report["value"].passed, report


def test_e_steps_sample_the_posterior_in_closed_form_e20():
    model, _, precision = linear_vae("B", 1, orthogonal=False)
    chains, generator, log_stepsize = 3000, np.random.default_rng(0), np.log(0.1)
    x = np.repeat(rows(3), chains, axis=0)
    z = generator.standard_normal((len(x), 2))
    for _ in range(100):
        z, log_stepsize, rate = e_step(model.decoder, x, z, generator, log_stepsize)
    assert abs(rate - 0.9) < 0.02  # tuned on the way
    covariance = np.linalg.inv(precision)
    for mean, draws in zip(model.encode_mean(rows(3)), z.reshape(3, chains, 2), strict=True):
        white = (draws - mean) @ np.linalg.cholesky(precision)  # N(0, I)
        assert (np.abs(white.mean(axis=0)) < Z_LIMIT / np.sqrt(chains)).all()  # E z
        second = white.T @ white / chains  # E zzᵀ: entries of variance 2/n, and 1/n beside the diagonal
        assert (np.abs(second - np.eye(2)) < Z_LIMIT * np.sqrt((1 + np.eye(2)) / chains)).all()
    wrong = (draws - mean) @ np.linalg.cholesky(np.linalg.inv(covariance * 1.3))  # control: another covariance
    assert np.abs(wrong.var(axis=0) - 1).max() > Z_LIMIT * np.sqrt(2 / chains)


@pytest.mark.parametrize("exact", [True, False])
def test_the_m_step_stands_still_at_its_closed_form_e20(exact):
    model, _, precision = linear_vae("B", 1, orthogonal=False)
    x = rows(40)
    # four points a datapoint with the posterior's first and second moments, all that log p(x, z) asks for
    half = np.linalg.cholesky(np.linalg.inv(precision)).T * np.sqrt(2)
    z = np.concatenate([model.encode_mean(x) + sign * step for step in half for sign in (1, -1)])
    x = np.tile(x, (4, 1))
    design = np.column_stack([z, np.ones(len(z))])
    solution = np.linalg.lstsq(design, x, rcond=None)[0]  # W and b: the regression of x on z
    windows = model.params.named(model.params.value)
    windows["decoder.mu.W"][...], windows["decoder.mu.b"][...] = solution[:2], solution[2]
    windows["decoder.log_var.b"][...] = np.log(((x - design @ solution) ** 2).mean(axis=0))
    if not exact:
        windows["decoder.log_var.b"][...] += 0.01
    complete_data(model.decoder, x, z, len(x))
    gradient = model.params.named(model.params.grad)
    largest = max(
        np.abs(gradient[name]).max() for name in ("decoder.mu.W", "decoder.mu.b", "decoder.log_var.b")
    )  # decoder.log_var.W, which the linear model holds at zero, may want to move
    assert (largest < 1e-10) == exact


def test_monte_carlo_em_finds_the_evidence_of_the_model_that_made_the_data_e20():
    generator = np.random.default_rng(0)
    W, m = 1.5 * generator.standard_normal((2, 6)), generator.standard_normal(6)
    x = generator.standard_normal((400, 2)) @ W + m + 0.5 * generator.standard_normal((400, 6))
    model = VAE(6, (), 2, "gaussian", "free", prior=False, dtype="float64", init=0.1)
    history = fit_mcem(model, x, optimizer=Adagrad(0.1), samples=1_500_000, seed=1)
    assert history["samples"][-1] >= 1_500_000 and np.isnan(history["valid_bound"]).all()
    learned = quadrature(model, x[:100], 201).mean()
    truth = multivariate_normal(m, W.T @ W + 0.25 * np.eye(6)).logpdf(x[:100]).mean()
    assert abs(learned - truth) < 0.1, (learned, truth)
    apart = multivariate_normal(x.mean(axis=0), np.diag(x.var(axis=0))).logpdf(x[:100]).mean()
    assert truth - apart > 1  # control: the best that independent pixels can do


def test_a_datapoint_counts_once_for_each_evaluation_of_log_p_x_z(monkeypatch):
    from scratchvae.inference import hmc, mcem

    calls = []
    model, x = small(dtype="float32"), rows(20).astype("f4")
    log_prob = model.decoder.log_prob

    def counted(x, z, gradient=True):
        calls.append(len(x))
        return log_prob(x, z, gradient)

    monkeypatch.setattr(model.decoder, "log_prob", counted)
    history = fit_mcem(model, x, samples=1500, batch_size=8, steps=3, updates=2)
    assert sum(calls) == history["samples"][-1] and calls[0] == 8
    assert history["samples"][-1] >= 1500 > history["samples"][-1] - 6 * 8
    assert hmc.transition is mcem.transition


@pytest.mark.parametrize("make", [lambda: SGD(0.005), lambda: Adam(0.01)])
@pytest.mark.filterwarnings("ignore:the chains accept")  # six E-steps do not tune them
def test_fit_mcem_takes_the_steps_of_the_written_out_appendix_e(make):
    x, n, settings = rows(10), 10, {"steps": 4, "acceptance": 0.7}
    model, by_hand = small(), small()
    history = fit_mcem(
        model, x, optimizer=make(), samples=2 * n * 7, batch_size=4, seed=4, updates=2, log_every=10**6, **settings
    )
    theta, decoder, optimizer = by_hand.params.value[by_hand.theta], by_hand.decoder, make()
    optimizer.start(by_hand.params)
    z, values = stream(4, HELD_OUT, 0).standard_normal((n, 2)), []
    log_stepsize, step = np.log(0.1), 0
    for epoch in range(2):
        for batch in np.split(stream(4, ORDER, epoch).permutation(n), [4, 8]):  # the last has two rows
            z[batch], log_stepsize, _ = e_step(
                decoder, x[batch], z[batch], stream(4, STEP, step), log_stepsize, **settings
            )
            for update in range(2):
                value = complete_data(decoder, x[batch], z[batch], n)
                by_hand.params.grad[by_hand.theta] -= theta  # the prior p(θ) = N(0, I), once
                optimizer.ascend(by_hand.params, 2 * step + update + 1, by_hand.theta)
            step += 1
            values.append((value / n, len(batch)))
    assert_allclose(model.params.value, by_hand.params.value, rtol=1e-12)
    assert len(history) == 1 and history["samples"][0] == 140 and history["step"][0] == 6
    assert_allclose(history["train_bound"], np.average(*np.transpose(values)[:1], weights=[4, 4, 2] * 2))


def test_ctrl_c_saves_and_the_run_goes_on_from_there(tmp_path, monkeypatch):
    x, settings = rows(30).astype("f4"), {"batch_size": 8, "seed": 2, "steps": 3, "samples": 8000}
    whole, stopped = small(dtype="float32"), small(dtype="float32")
    fit_mcem(whole, x, **settings)
    for number, stop in [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]:
        calls, add = itertools.count(), stopped.add_log_prior_gradient

        def press(number=number, calls=calls, add=add):
            add()
            if next(calls) == 77:
                signal.raise_signal(number)

        monkeypatch.setattr(stopped, "add_log_prior_gradient", press)
        with pytest.raises(stop):
            fit_mcem(stopped, x, out=tmp_path / "run", resume=(tmp_path / "run").exists(), **settings)
        monkeypatch.undo()
    fit_mcem(stopped, x, out=tmp_path / "run", resume=True, **settings)
    assert_array_equal(stopped.params.value, whole.params.value)


def test_a_full_vb_is_refused():
    with pytest.raises(ValueError, match="Monte Carlo EM trains a VAE, a point θ"):
        fit_mcem(FullVB(6, 5, 2), rows())


def test_a_resumed_run_is_the_unbroken_one_to_the_bit(tmp_path):
    x, settings = rows(30).astype("f4"), {"batch_size": 8, "seed": 2, "steps": 3}
    whole = small(dtype="float32")
    history = fit_mcem(whole, x, samples=8000, out=tmp_path / "whole", **settings)
    for samples in (1000, 5000, 8000):
        parts = small(dtype="float32")
        after = fit_mcem(parts, x, samples=samples, out=tmp_path / "parts", resume=samples > 1000, **settings)
    assert_array_equal(parts.params.value, whole.params.value)
    assert_array_equal(after[["step", "samples", "train_bound"]], history[["step", "samples", "train_bound"]])
    assert_array_equal(load_model(tmp_path / "parts").params.value, whole.params.value)
    assert relative(whole.params.value[whole.theta], small().params.value[whole.theta]) > 0.01
    assert_array_equal(whole.params.value[whole.phi], small(dtype="float32").params.value[whole.phi])
    with pytest.raises(CheckpointError, match=r"it has mcem.steps 3, this run asks for 4"):
        fit_mcem(small(dtype="float32"), x, out=tmp_path / "parts", resume=True, **settings | {"steps": 4})


def test_a_stepsize_that_is_not_tuned_yet_is_said():
    with pytest.warns(UserWarning, match="the chains accept (9[0-9]|100)% of their transitions, 60% were asked for"):
        fit_mcem(small(), rows(), samples=500, batch_size=7, acceptance=0.6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number ≥ 1"),
        ({"updates": 0}, "updates is 0; expected a whole number ≥ 1"),
        ({"samples": 0}, "samples is 0; expected a whole number ≥ 1"),
        ({"acceptance": 1.5}, "acceptance is 1.5; expected a rate between 0 and 1"),
        ({"log_every": 0}, "log_every is 0; expected a whole number ≥ 1"),
        ({"seed": -1}, "seed is -1; expected a whole number ≥ 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"resume": True}, "resume=True needs out"),
        ({"optimizer": Adam}, "expected one such as Adagrad(0.01)"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    model, before = small(), small().params.value.copy()
    with pytest.raises(ValueError) as error:
        fit_mcem(model, rows(), **settings)
    assert message in str(error.value)
    assert_array_equal(model.params.value, before)


@pytest.mark.parametrize("jitter", [0.5, 0.2])
def test_an_e_step_is_one_transition_with_jitter_at_the_stepsize_of_before_which_it_then_tunes(jitter):
    from scratchvae.inference.hmc import log_joint, transition

    model, x = small(), rows(8)
    z = np.random.default_rng(1).standard_normal((8, 2))
    given = {} if jitter == 0.5 else {"jitter": jitter}  # 0.5 is the default
    found, log_stepsize, rate = e_step(model.decoder, x, z, np.random.default_rng(2), np.log(0.4), 3, 0.8, **given)
    generator, target = np.random.default_rng(2), log_joint(model.decoder, x)
    p = generator.standard_normal((8, 2))
    u, v = generator.random((2, 8))
    steps = np.array([0.4 * (1 - jitter * one) for one in v])  # U((1 - jitter) ε, ε), each chain its own
    assert np.ptp(steps) > 0.2 * jitter
    (expected, _, _), probability, _ = transition(target, (z, *target(z)), p, u, steps[:, None], 3)
    assert_allclose(found, expected, rtol=1e-12)
    assert_allclose(rate, probability.mean(), rtol=1e-12)
    assert_allclose(log_stepsize, np.log(0.4) + 0.5 * (probability.mean() - 0.8), rtol=1e-12)
    for wrong in (np.full(8, 0.4), np.exp(log_stepsize) * steps / 0.4):  # controls: no jitter, the stepsize of after
        assert relative(transition(target, (z, *target(z)), p, u, wrong[:, None], 3)[0][0], expected) > 1e-3


@pytest.mark.filterwarnings("ignore:the chains accept")  # so few E-steps do not tune them
def test_training_hands_each_e_step_the_stepsize_that_the_one_before_has_tuned(monkeypatch):
    from scratchvae.training import em

    handed, tuned, settings = [], [], []

    def watched(decoder, x, z, generator, log_stepsize, *rest, comm):
        handed.append(log_stepsize)
        settings.append(rest)
        found = e_step(decoder, x, z, generator, log_stepsize, *rest, comm=comm)
        tuned.append(found[1])
        return found

    monkeypatch.setattr(em, "e_step", watched)
    em.fit_mcem(small(), rows(10), samples=1500, batch_size=4, steps=4, acceptance=0.6)
    assert len(handed) > 5 and handed[0] == np.log(0.1)
    assert handed[1:] == tuned[:-1] and len(set(handed)) == len(handed)
    assert set(settings) == {(4, 0.6)}  # jitter is left at its default


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_chain_without_a_finite_density_is_an_error_and_does_not_spoil_the_stepsize(bad):
    model, x = small(), rows(8)
    z = np.zeros((8, 2))
    z[3] = bad
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="not finite for 1 of 8 chains: try a smaller"),
    ):
        e_step(model.decoder, x, z, np.random.default_rng(0), -2.0)
