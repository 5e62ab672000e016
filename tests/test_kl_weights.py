"""β, free bits and the warm-up of the KL: gradients, values that stay the bound, exact limits, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
from conftest import check_model, host, rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, FullVB, fit, load_model
from scratchvae.shares import Share
from scratchvae.training.warmup import kl_weight

pytestmark = pytest.mark.usefixtures("backend")

WEIGHTED = ["A", "B", "stl", "black-box"]
X = rows(5)


def gradient(model, seed=0, x=X, share=None, noise=None):
    noise = model.noise(np.random.default_rng(seed), len(x)) if noise is None else noise
    model.bound(x, noise, 3 * len(x), gradient=True, share=share)
    return host(model.params.grad).copy()


# β


@pytest.mark.parametrize("beta", [0.0, 0.3, 4.0])
@pytest.mark.parametrize("estimator", WEIGHTED)
def test_gradients_with_beta_are_those_of_the_oracle_and_of_differences(estimator, beta):
    for settings in ({}, {"posterior": "full"}, {"flow": 2}):
        if estimator == "B" and "flow" in settings:
            continue
        model = small(estimator=estimator, n_samples=2, beta=beta, **settings)
        report = check_model(model, X, entries=3, points=1)
        assert report and all(row.oracle is not None for row in report), report
        assert max(row.oracle for row in report) < 1e-10


@pytest.mark.parametrize("theta_noise", ["minibatch", "antithetic", "datapoint", "local"])
@pytest.mark.parametrize("estimator", ["A", "B", "stl"])
def test_beta_goes_with_a_distribution_over_theta(estimator, theta_noise):
    if (estimator, theta_noise) == ("A", "local"):
        return  # L^A scores θ at its draw, and there is none
    model = FullVB(6, 4, 2, estimator=estimator, beta=2.5, theta_noise=theta_noise, dtype="float64")
    assert check_model(model, X, entries=2, points=1)


@pytest.mark.parametrize("estimator", WEIGHTED)
def test_value_with_beta_is_the_bound_and_its_gradient_is_linear_in_beta(estimator):
    models = {beta: small(estimator=estimator, n_samples=2, beta=beta) for beta in (0.0, 1.0, 3.0)}
    noise = models[1.0].noise(np.random.default_rng(0), len(X))
    values = {beta: float(model.bound(X, noise, 15)) for beta, model in models.items()}
    assert values[0.0] == values[1.0] == values[3.0]
    g = {beta: gradient(model, noise=noise) for beta, model in models.items()}
    if estimator != "black-box":  # whose control variate depends on what is weighted
        assert_allclose(g[3.0], 3 * g[1.0] - 2 * g[0.0], rtol=1e-9, atol=1e-9)
    assert np.abs(g[3.0] - g[1.0]).max() > 0.1
    theta = models[1.0].theta
    assert_allclose(g[3.0][theta], g[1.0][theta], rtol=1e-12)  # the KL does not depend on θ


def test_beta_0_of_b_is_the_gradient_of_the_reconstruction_alone():
    model = small(beta=0.0)
    noise = model.noise(np.random.default_rng(0), len(X))
    plain = small()
    mu, log_var = map(host, plain.encode(X))
    of_kl = gradient(plain, noise=noise) - gradient(model, noise=noise)
    arrays = model.params.named(of_kl)
    assert_allclose(arrays["encoder.mu.b"], -3 * mu.sum(axis=0), rtol=1e-9)  # ∂(-KL)/∂μ = -μ, times N/M = 3
    assert_allclose(arrays["encoder.log_var.b"], 1.5 * (1 - np.exp(log_var)).sum(axis=0), rtol=1e-9)


def test_beta_1_and_no_free_bits_are_the_objective_itself():
    assert small(beta=1.0, free_bits=0.0).estimator is small().estimator
    assert "beta" not in small(beta=1.0).config and small(beta=2).config["beta"] == 2.0


# Free bits


def kl_of(model, x=X):
    mu, log_var = map(host, model.encode(x))
    return 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_gradients_with_free_bits_are_those_of_the_oracle_and_of_differences(beta):
    found = set()
    for free_bits in (0.05, 0.3, 1.0, 3.0):
        model = small(free_bits=free_bits, beta=beta, n_samples=2)
        report = check_model(model, X, entries=3, points=2)
        assert report and max(row.oracle for row in report) < 1e-10, report
        found |= set((kl_of(model).mean(axis=0) > free_bits).tolist())
    assert found == {True, False}  # latents on both sides of the floor were seen


def test_a_latent_below_the_floor_costs_nothing_and_one_above_costs_all():
    model = small()
    mean = kl_of(model).mean(axis=0)
    assert abs(mean[0] - mean[1]) > 0.01
    lower, upper = np.argsort(mean)
    with_kl = gradient(model)
    without = gradient(small(beta=0.0))
    floor = gradient(small(free_bits=float(mean.mean())))
    for name, array in model.params.named(floor).items():
        if name.startswith(("encoder.mu", "encoder.log_var")):
            theirs = [model.params.named(g)[name] for g in (with_kl, without)]
            assert_allclose(array[..., upper], theirs[0][..., upper], rtol=1e-12)
            assert_allclose(array[..., lower], theirs[1][..., lower], rtol=1e-12)
    assert_array_equal(gradient(small(free_bits=1e6)), without)
    assert_array_equal(gradient(small(free_bits=1e-9)), with_kl)


def test_the_floor_is_under_the_mean_of_the_whole_minibatch_also_where_ranks_share_it():
    model = small()
    each = kl_of(model)
    mean = each.mean(axis=0)
    halves = [Share(0, 2, 5, 0, 2), Share(2, 5, 5, 1, 2)]
    floors = np.linspace(each.min(), each.max(), 7)[1:-1]
    told = 0
    for floor in floors:
        model = small(free_bits=float(floor))
        noise = model.noise(np.random.default_rng(0), len(X))
        whole = gradient(model, noise=noise)

        shares = [Share(s.start, s.stop, s.of, s.rank, s.size, lambda numbers: 5 * mean) for s in halves]
        parts = [gradient(model, x=X[s.rows], share=s, noise=noise[:, s.rows]) for s in shares]
        scale = [3 * 2 / 5, 3 * 3 / 5]  # `gradient` takes N = 3 M of its own rows, and the minibatch has N = 15
        assert_allclose(parts[0] / scale[0] * 3 + parts[1] / scale[1] * 3, whole, rtol=1e-9, atol=1e-9)
        told += any((each[s.rows].mean(axis=0) > floor).tolist() != (mean > floor).tolist() for s in halves)
    assert told  # with the mean of a half alone some of them would be wrong


def test_an_empty_share_takes_part_in_the_sum():
    model = small(free_bits=0.1)
    asked = []

    def total(numbers):
        asked.append(np.array(numbers))
        return numbers

    x = X[:0]
    noise = model.noise(np.random.default_rng(0), 5)[:, :0]
    model.bound(x, noise, 5, gradient=True, share=Share(0, 0, 5, 0, 2, total))
    assert_array_equal(asked, [[0.0, 0.0]])
    assert not host(model.params.grad).any()


# Copies, runs


def test_copies_pickles_and_runs_keep_beta_and_free_bits(tmp_path):
    model = VAE(6, 5, 2, beta=2.0, free_bits=0.2, dtype="float64")
    want = gradient(model)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("numpy")):
        assert_array_equal(gradient(again), want)
    fit(model, rows(40), rows(20), samples=1000, batch_size=10, out=tmp_path / "run", progress=False)
    again = load_model(tmp_path / "run")
    assert again.config["beta"] == 2.0 and again.config["free_bits"] == 0.2
    assert_array_equal(gradient(again), gradient(model))


def test_beta_trades_rate_for_distortion():
    train = np.random.default_rng(0).random((300, 6)) ** 3
    found = {}
    for beta in (0.1, 1.0, 5.0):
        model = VAE(6, 8, 2, likelihood="gaussian", beta=beta, dtype="float64", init="glorot")
        found[beta] = fit(model, train, train, samples=20_000, batch_size=50, progress=False)[-1]
    rates = [found[beta]["rate"] for beta in (0.1, 1.0, 5.0)]
    assert rates[0] > rates[1] > rates[2]
    assert found[0.1]["distortion"] < found[5.0]["distortion"]


# The warm-up


@pytest.mark.parametrize(
    ("samples", "cycles", "weight"),
    [
        *[(0, 1, 0.0), (25, 1, 0.25), (100, 1, 1.0), (199, 1, 1.0), (200, 1, 1.0), (10**9, 1, 1.0)],
        *[(200, 2, 0.0), (250, 2, 0.5), (399, 2, 1.0), (400, 2, 1.0), (450, 2, 1.0)],
    ],
)
def test_weight_of_the_kl_rises_in_straight_lines_and_stays(samples, cycles, weight):
    assert kl_weight(samples, 100, cycles) == weight


def test_each_step_of_a_warm_up_has_its_weight_and_the_last_is_the_models_own(monkeypatch):
    seen = []
    plain = VAE.weigh_kl

    def noting(self, weight):
        seen.append(weight)
        plain(self, weight)

    monkeypatch.setattr(VAE, "weigh_kl", noting)
    model = VAE(6, 5, 2, beta=4.0)
    seen.clear()
    fit(model, rows(40), samples=100, batch_size=10, kl_warmup=40, progress=False)
    assert seen == [0.0, 0.25, 0.5, 0.75, *[1.0] * 6, 1.0]
    assert model.estimator.keywords == {"beta": 4.0}


def test_a_step_with_weight_0_is_one_without_the_kl():
    once = {"samples": 10, "batch_size": 10, "progress": False}
    warm = VAE(6, 5, 2, beta=1.0, dtype="float64")
    fit(warm, X[:10], kl_warmup=1000, **once | {"batch_size": 5, "samples": 5})
    free = VAE(6, 5, 2, beta=0.0, dtype="float64")
    fit(free, X[:10], **once | {"batch_size": 5, "samples": 5})
    assert_array_equal(warm.params.value, free.params.value)
    plain = VAE(6, 5, 2, dtype="float64")
    fit(plain, X[:10], **once | {"batch_size": 5, "samples": 5})
    assert np.abs(plain.params.value - free.params.value).max() > 1e-4


def test_a_run_that_stops_within_its_warm_up_goes_on_to_the_bit(tmp_path):
    settings = {"batch_size": 10, "kl_warmup": 600, "kl_cycles": 2, "seed": 3, "progress": False}
    whole = VAE(6, 5, 2, dtype="float64")
    fit(whole, rows(40), samples=2000, **settings)
    parts = VAE(6, 5, 2, dtype="float64")
    fit(parts, rows(40), samples=900, out=tmp_path / "run", **settings)
    parts = VAE(6, 5, 2, dtype="float64")
    fit(parts, rows(40), samples=2000, out=tmp_path / "run", resume=True, **settings)
    assert_array_equal(parts.params.value, whole.params.value)


def test_an_error_leaves_the_model_with_its_own_weight(monkeypatch):
    model = VAE(6, 5, 2, beta=2.0)
    train = rows(40).astype(np.float32)
    model.params.value[0] = np.nan
    with pytest.raises(FloatingPointError):
        fit(model, train, samples=100, batch_size=10, kl_warmup=1000, progress=False)
    assert model.estimator.keywords == {"beta": 2.0}


# Refusals


@pytest.mark.parametrize("estimator", ["iwae", "dreg", "wake-sleep", "autoencoder"])
def test_objectives_without_a_kl_of_its_own_weight_refuse_all_three(estimator):
    words = "has no KL that could count more or less: take one of A, B, stl, black-box"
    for settings, what in (({"beta": 2.0}, "beta"), ({"free_bits": 0.1}, "free_bits")):
        with pytest.raises(ValueError, match=rf"{what} is given, and the estimator '{estimator}' {words}"):
            VAE(6, 5, 2, estimator=estimator, n_samples=2, **settings)
    with pytest.raises(ValueError, match=rf"kl_warmup is given, and the estimator '{estimator}' {words}"):
        fit(VAE(6, 5, 2, estimator=estimator, n_samples=2), X, kl_warmup=100, batch_size=5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": -0.1}, r"beta is -0.1; expected a number ≥ 0"),
        ({"beta": np.nan}, r"beta is nan; expected a number ≥ 0"),
        ({"beta": True}, r"beta is True; expected a number ≥ 0"),
        ({"free_bits": "1"}, r"free_bits is '1'; expected a number ≥ 0"),
        ({"free_bits": 0.1, "estimator": "A"}, r"free_bits is 0.1, for the estimator 'B' .* it is 'A'"),
        ({"free_bits": 0.1, "posterior": "full"}, r"the posterior 'full' they do not: leave it out"),
    ],
)
def test_weights_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        VAE(6, 5, 2, **settings)


def test_free_bits_do_not_go_with_a_distribution_over_theta():
    with pytest.raises(ValueError, match="free_bits is for a VAE: the draws of θ divide the minibatch"):
        FullVB(6, 5, 2, free_bits=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kl_warmup": 0}, r"kl_warmup is 0; expected a whole number ≥ 1"),
        ({"kl_warmup": 10, "kl_cycles": 0}, r"kl_cycles is 0; expected a whole number ≥ 1"),
        ({"kl_cycles": 2}, r"kl_cycles is 2, which repeats a warm-up of the KL: give kl_warmup too"),
    ],
)
def test_warm_ups_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        fit(VAE(6, 5, 2), X, batch_size=5, **settings)
