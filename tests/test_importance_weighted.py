"""inference/objectives/importance_weighted.py: the bound L_K of Burda et al. 2016 (E12), value and gradient."""

import numpy as np
import pytest
from conftest import LIKELIHOODS, check_model, host, relative, rows, small
from numpy.testing import assert_allclose
from test_exact import linear_vae, sigma_points

from scratchvae.inference.distributions import gaussian_neg_kl

pytestmark = pytest.mark.usefixtures("backend")

Z_LIMIT = 4.89  # two-sided z-test, false alarms 1e-6


def gradient_of(model, x, eps, n_data):
    bound = model.bound(x, eps, n_data, gradient=True)
    return bound, host(model.params.grad.copy())


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize("k", [1, 4])
def test_bound_and_every_gradient_array_equal_the_oracle(likelihood, mean, k):
    checks = check_model(small(likelihood, mean, "iwae", k), rows(), n_data=40)
    assert checks[0].name == "value" and checks, checks


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_one_draw_is_the_estimator_l_a_e12(likelihood, mean):
    ours, theirs = small(likelihood, mean, "iwae"), small(likelihood, mean, "A")
    x, eps = rows(), ours.noise(np.random.default_rng(0), 7)
    (bound, gradient), (expected, expected_gradient) = (gradient_of(model, x, eps, 40) for model in (ours, theirs))
    assert_allclose(bound, expected, rtol=1e-13)
    assert relative(gradient, expected_gradient) < 1e-13


def test_the_bound_is_the_evidence_at_every_draw_where_q_is_the_posterior():
    model, evidence, _ = linear_vae("iwae", 3, orthogonal=True)
    for seed in range(10):
        bound = model.bound(rows(), model.noise(np.random.default_rng(seed), 7), 7)
        assert_allclose(bound, evidence.logpdf(rows()).sum(), rtol=1e-12)


def test_the_bound_never_falls_with_k_and_stays_below_the_evidence_e12():
    x, draws, bounds = np.repeat(rows(1), 10, axis=0), {}, [1, 2, 4, 8]  # ten times the same datapoint
    for k in bounds:
        model, law, _ = linear_vae("iwae", k, orthogonal=False)
        model.params.named(model.params.value)["encoder.log_var.b"][...] += (
            1.0  # q too wide, so that the weights differ
        )
        draws[k] = [model.bound(x, model.noise(np.random.default_rng([k, s]), 10), 1) for s in range(500)]
    means = [np.mean(draws[k]) for k in bounds]
    errors = [np.std(draws[k]) / np.sqrt(500) for k in bounds]
    for a, b in zip(range(3), range(1, 4), strict=True):
        assert means[b] - means[a] > Z_LIMIT * np.hypot(errors[a], errors[b])
    assert law.logpdf(x[0]) - means[-1] > Z_LIMIT * errors[-1]


def test_with_evidence_one_the_expected_bound_of_one_draw_is_minus_kl_e12():
    model = small(estimator="iwae")
    windows = model.params.named(model.params.value)
    windows["decoder.logits.W"][...] = windows["decoder.logits.b"][...] = 0  # p(x|z) = 2⁻⁶ whatever x and z
    x, points = rows(), sigma_points(7)
    mean = np.mean([model.bound(x, eps[None], 7) for eps in points])
    neg_kl = gaussian_neg_kl(*model.encode(x))[0].sum()
    assert neg_kl < -1
    assert_allclose(mean, neg_kl - 7 * 6 * np.log(2), rtol=1e-12)


def test_every_draw_twice_changes_neither_value_nor_gradient():
    once, twice = small(estimator="iwae", n_samples=3), small(estimator="iwae", n_samples=6)
    x, eps = rows(), once.noise(np.random.default_rng(0), 7)
    bound, gradient = gradient_of(once, x, eps, 40)
    doubled, doubled_gradient = gradient_of(twice, x, np.concatenate([eps, eps[::-1]]), 40)
    assert_allclose(doubled, bound, rtol=1e-13)
    assert relative(doubled_gradient, gradient) < 1e-13


def test_weights_that_differ_by_a_thousand_nats_neither_overflow_nor_vanish():
    model = small(estimator="iwae", n_samples=2, dtype="float32")
    windows = model.params.named(model.params.value)
    windows["decoder.logits.W"][...] *= 500
    bound, gradient = gradient_of(model, rows().astype("f4"), model.noise(np.random.default_rng(0), 7), 7)
    assert np.isfinite(bound) and np.isfinite(gradient).all() and (gradient != 0).any()
    assert bound.dtype == np.float32
