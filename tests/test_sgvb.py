"""inference/objectives/sgvb.py: both estimators, (6), (7), (8), value and gradient."""

import numpy as np
import pytest
from conftest import LIKELIHOODS, check_model, host, relative, rows, small, vae
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import oracle
from scratchvae.backend import kind

pytestmark = pytest.mark.usefixtures("backend")

Z_LIMIT = 4.89  # two-sided z-test, false alarms 1e-6


def gradient_of(model, x, eps, n_data):
    model.params.grad[...] = np.nan  # whatever stays NaN was never written
    bound = model.bound(x, eps, n_data, gradient=True)
    return bound, host(model.params.grad.copy())


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize("estimator", ["A", "B"])
def test_bound_and_every_gradient_array_equal_the_oracle_6_7_8(estimator, likelihood, mean, n_samples, prior):
    checks = check_model(small(likelihood, mean, estimator, n_samples, prior=prior), rows(), n_data=40)
    assert checks[0].name == "value" and len(checks) == 1 + len(small(likelihood).params.windows)
    assert checks, checks


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "sigmoid"])
def test_gradients_equal_the_oracle_at_any_depth_and_activation(activation):
    model = small(n_hidden=(5, 4, 3), activation=activation, n_samples=2)
    assert check_model(model, rows())


def test_zero_weights_give_minus_d_ln_2_for_bernoulli_e1():
    model = vae(784, 3, 2, dtype="float64")
    model.params.value[...] = 0
    for estimator in ("A", "B"):
        model.estimator = vae(2, 2, 2, estimator=estimator).estimator
        bound = model.bound(rows(3, 784), np.zeros((1, 3, 2)), 6)
        assert_allclose(bound / 6, -543.4273895589971, rtol=0, atol=1e-12 * 784)


def test_zero_weights_and_x_at_the_mean_give_half_d_ln_2_pi_for_gaussian_e1():
    for mean, x in [("sigmoid", 0.5), ("free", 0.0)]:
        model = vae(560, 3, 2, likelihood="gaussian", mean=mean, dtype="float64")
        model.params.value[...] = 0
        bound = model.bound(np.full((1, 560), x), np.ones((1, 1, 2)), 1)
        assert_allclose(bound, -514.6055785946166, rtol=0, atol=1e-12 * 560)


def test_a_equals_b_draw_by_draw_where_q_is_the_prior_e5():
    a, b = small(estimator="A", n_samples=4), small(estimator="B", n_samples=4)
    for model in (a, b):
        for name, window in model.params.named(model.params.value).items():
            if name.startswith(("encoder.mu", "encoder.log_var")):
                window[...] = 0
    for seed in range(20):
        eps = a.noise(np.random.default_rng(seed), 7)
        assert_allclose(a.bound(rows(), eps, 40), b.bound(rows(), eps, 40), rtol=1e-14)


def test_a_minus_b_has_mean_zero_and_the_stated_variance_e6():
    a, b = small(estimator="A"), small(estimator="B")
    for model in (a, b):  # σ² away from 1, so that both terms of the variance count
        model.params.named(model.params.value)["encoder.log_var.b"][...] = 1
    x = rows(50)
    mu, log_var = a.encode(x)
    var = np.exp(log_var)
    expected = (mu**2 * var + (1 - var) ** 2 / 2).sum()  # of the sum over the 50 datapoints
    draws = 2000  # times 50 datapoints: 1e5 draws of ε
    differences = np.empty(draws)
    for seed in range(draws):
        eps = a.noise(np.random.default_rng([6, seed]), 50)
        differences[seed] = a.bound(x, eps, 50) - b.bound(x, eps, 50)
    assert abs(differences.mean()) / np.sqrt(expected / draws) < Z_LIMIT
    # a sum of 100 terms has excess kurtosis ≤ 12/100, so that its variance is known to √(2.12/draws), 3.3 %
    assert abs(differences.var() / expected - 1) / np.sqrt(2.12 / draws) < Z_LIMIT
    wrong = (mu**2 * var + (1 - var) ** 2).sum()  # control: the ½ dropped
    assert abs(differences.var() / wrong - 1) / np.sqrt(2.12 / draws) > Z_LIMIT


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    n_samples=st.integers(1, 3),
    likelihood=st.sampled_from(LIKELIHOODS),
)
def test_scaled_minibatches_of_any_partition_average_to_the_full_value_and_gradient_8_e9(sizes, n_samples, likelihood):
    n = sum(sizes)
    for estimator in ("A", "B"):
        model = small(*likelihood, estimator=estimator, n_samples=n_samples)
        x, eps = rows(n), model.noise(np.random.default_rng(0), n)
        full, full_gradient = gradient_of(model, x, eps, n)
        value, gradient, start = 0.0, 0.0, 0
        for size in sizes:
            batch = slice(start, start + size)
            bound, g = gradient_of(model, x[batch], eps[:, batch], n)
            value, gradient, start = value + bound * size / n, gradient + g * size / n, start + size
        assert_allclose(value, full, rtol=1e-12)
        assert relative(gradient, full_gradient) < 1e-12


def test_map_prior_counts_once_and_not_n_over_m_times_section_5():
    model = small()
    x, eps = rows(), model.noise(np.random.default_rng(0), 7)
    _, plain = gradient_of(model, x, eps, 700)
    model.add_log_prior_gradient()
    value, grad = host((model.params.value, model.params.grad))
    assert_allclose(grad[model.theta] - plain[model.theta], -value[model.theta], rtol=1e-10)
    assert_array_equal(grad[model.phi], plain[model.phi])
    theta = {k: v for k, v in model.params.named(value).items() if k.startswith("decoder.")}
    assert_allclose(model.log_prior(), oracle.log_prior(theta), rtol=1e-14)
    free = small(prior=False)
    gradient_of(free, x, eps, 700)
    free.add_log_prior_gradient()
    assert free.log_prior() == 0
    assert_array_equal(host(free.params.grad), plain)


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_value_without_gradient_is_the_same_and_leaves_the_gradient_alone(estimator):
    model = small(estimator=estimator, n_samples=2)
    x, eps = rows(), model.noise(np.random.default_rng(0), 7)
    bound, gradient = gradient_of(model, x, eps, 7)
    model.params.grad[...] = 5
    assert model.bound(x, eps, 7) == bound
    assert (model.params.grad == 5).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_one_call_with_l_samples_is_the_mean_of_l_calls_6_7(estimator):
    many, one = small(estimator=estimator, n_samples=5), small(estimator=estimator)
    x, eps = rows(), many.noise(np.random.default_rng(0), 7)
    bound, gradient = gradient_of(many, x, eps, 40)
    singles = [gradient_of(one, x, eps[l : l + 1], 40) for l in range(5)]  # noqa: E741  the paper's l
    assert_allclose(bound, np.mean([b for b, _ in singles]), rtol=1e-13)
    assert relative(gradient, np.mean([g for _, g in singles], axis=0)) < 1e-13


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_variance_of_the_estimate_falls_as_one_over_l_e22(estimator):
    x, draws, variances = rows(3), 4000, {}
    for n_samples in (1, 4):
        model = small(estimator=estimator, n_samples=n_samples)
        variances[n_samples] = np.var(
            [model.bound(x, model.noise(np.random.default_rng([22, n_samples, k]), 3), 3) for k in range(draws)]
        )
    # log of a variance of n draws, kurtosis below 6: sd ≤ √(5/n); two of them
    assert abs(np.log(variances[1] / (4 * variances[4]))) < Z_LIMIT * np.sqrt(2 * 5 / draws)
    assert abs(np.log(variances[1] / (2 * variances[4]))) > Z_LIMIT * np.sqrt(2 * 5 / draws)  # control: 1/√L


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_permuting_the_minibatch_changes_nothing_e22(likelihood, mean):
    model = small(likelihood, mean, n_samples=2)
    x, eps = rows(), model.noise(np.random.default_rng(0), 7)
    order = np.random.default_rng(1).permutation(7)
    bound, gradient = gradient_of(model, x, eps, 40)
    permuted, permuted_gradient = gradient_of(model, x[order], eps[:, order], 40)
    assert_allclose(permuted, bound, rtol=1e-13)
    assert relative(permuted_gradient, gradient) < 1e-13


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_flipping_a_latents_sign_with_its_weights_changes_nothing_e22(estimator):
    model = small(estimator=estimator)
    x, eps = rows(), model.noise(np.random.default_rng(0), 7)
    before = model.bound(x, eps, 40)
    windows = model.params.named(model.params.value)
    windows["encoder.mu.W"][:, 1] *= -1
    windows["encoder.mu.b"][1] *= -1
    windows["decoder.hidden.W"][1] *= -1
    eps[..., 1] *= -1
    assert_allclose(model.bound(x, eps, 40), before, rtol=1e-14)


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize("estimator", ["A", "B"])
def test_float32_agrees_with_float64_and_never_becomes_it_e22(estimator, likelihood, mean):
    single, double = (
        vae(64, (50, 40), 5, likelihood, mean, estimator, 2, init=0.1, dtype=dtype) for dtype in ("float32", "float64")
    )
    double.params.value[...] = single.params.value
    x, eps = rows(20, 64).astype(np.float32), single.noise(np.random.default_rng(0), 20)
    ours, theirs = (
        gradient_of(single, x, eps, 1000),
        gradient_of(double, x.astype(float), eps.astype(float), 1000),
    )
    assert abs(ours[0] - theirs[0]) / abs(theirs[0]) < 1e-5
    for name, window in single.params.named(ours[1]).items():
        assert relative(window, double.params.window(name, theirs[1])) < 1e-5, name
    assert ours[0].dtype == np.float32
    keepers = [*single.encoder.layers, *single.decoder.layers, single.encoder.posterior]
    kept = [value for keeper in keepers for value in vars(keeper).values()] + single.decoder.partials
    arrays = [value for value in kept if kind(value) == single.backend]
    assert len(arrays) > 6 + 2 * len(single.params.windows)  # the windows, and what is kept for the backward pass
    assert all(array.dtype == np.float32 for array in arrays)
