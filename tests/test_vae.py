"""models/vae.py: encode, decode, reconstruct, sample, and what they refuse (section 3)."""

import functools

import numpy as np
import pytest
from conftest import LIKELIHOODS, device, host, rows, small, vae
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, oracle
from scratchvae.inference.objectives.sgvb import sgvb_a, sgvb_b

pytestmark = pytest.mark.usefixtures("backend")

Z_LIMIT = 4.89
ESTIMATORS = "A, B, stl, iwae, dreg, wake-sleep, black-box, autoencoder"


def test_encode_gives_mu_and_log_var_of_q_9():
    model = small()
    arrays = host(model.params.named(model.params.value))
    mu, log_var = model.encode(rows())
    assert_allclose(mu, oracle.encode(arrays, rows())[0], rtol=1e-14)
    assert_allclose(log_var, oracle.encode(arrays, rows())[1], rtol=1e-14)
    assert_array_equal(model.encode_mean(rows()), mu)


def test_uint8_pixels_are_read_as_fractions_of_255():
    model = small()
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6), dtype=np.uint8)
    assert_array_equal(model.encode_mean(pixels), model.encode_mean(pixels / 255))
    assert vae(6, 5, 2).pixels(pixels).dtype == np.float32
    assert vae(6, 5, 2).pixels(pixels).max() <= 1


def test_encoder_samples_have_the_mean_and_variance_that_encode_names_e23():
    model, x, n = small(), rows(2), 40_000
    mu, log_var = model.encode(x)
    z = model.encode_samples(x, n, seed=1)
    assert z.shape == (n, 2, 2)
    scaled = (z - mu) * np.exp(-0.5 * log_var)
    assert (np.abs(scaled.mean(axis=0)) * np.sqrt(n) < Z_LIMIT).all()
    assert (np.abs(scaled.var(axis=0) - 1) * np.sqrt(n / 2) < Z_LIMIT).all()
    wrong = (z - mu) * np.exp(-log_var)  # control: exp(log σ²) taken for σ
    assert (np.abs(wrong.var(axis=0) - 1) * np.sqrt(n / 2) > Z_LIMIT).any()


def test_every_row_has_noise_of_its_own():
    model = small()
    mu, log_var = model.encode(rows())
    eps = (model.encode_samples(rows(), 1, seed=1)[0] - mu) * np.exp(-0.5 * log_var)
    assert len(np.unique(eps.round(9))) == 14
    assert len(np.unique(model.noise(np.random.default_rng(0), 7))) == 14


def test_bernoulli_draws_have_mean_sigmoid_of_the_logits_e23():
    model, n = small(), 40_000
    z = np.random.default_rng(2).standard_normal((1, 2))
    mean = model.decode(z)
    (logits,) = host(model.decoder.forward(device(z)))
    assert_allclose(mean, oracle.sigmoid(logits), rtol=1e-14)
    draws = model.draw(np.repeat(z, n, axis=0), seed=3)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert (np.abs(draws.mean(axis=0) - mean) / np.sqrt(mean * (1 - mean) / n) < Z_LIMIT).all()
    wrong = mean**2  # control
    assert (np.abs(draws.mean(axis=0) - wrong) / np.sqrt(wrong * (1 - wrong) / n) > Z_LIMIT).all()


@pytest.mark.parametrize("mean", ["sigmoid", "free"])
def test_gaussian_draws_have_the_mean_and_variance_that_are_scored_e23(mean):
    model, n = small("gaussian", mean), 40_000
    z = np.random.default_rng(2).standard_normal((1, 2))
    mu, log_var = host(model.decoder.forward(device(z)))
    assert_array_equal(model.decode(z), mu)
    assert ((mu > 0) & (mu < 1)).all() == (mean == "sigmoid")
    draws = model.draw(np.repeat(z, n, axis=0), seed=3)
    scaled = (draws - mu) * np.exp(-0.5 * log_var)
    assert (np.abs(scaled.mean(axis=0)) * np.sqrt(n) < Z_LIMIT).all()
    assert (np.abs(scaled.var(axis=0) - 1) * np.sqrt(n / 2) < Z_LIMIT).all()
    wrong = (draws - mu) * np.exp(-log_var)  # control: exp(log σ²) taken for σ
    assert (np.abs(wrong.var(axis=0) - 1) * np.sqrt(n / 2) > Z_LIMIT).any()


def test_reconstruction_is_decoded_at_the_posterior_mean_and_its_samples_around_it():
    model, x = small(), rows()
    assert_array_equal(model.reconstruct(x), model.decode(model.encode_mean(x)))
    draws = model.reconstruct_samples(x, 5, seed=4)
    assert draws.shape == (5, 7, 6)
    assert_allclose(draws[3], model.decode(model.encode_samples(x, 5, seed=4)[3]), rtol=1e-14)
    windows = model.params.named(model.params.value)
    windows["encoder.log_var.W"][...] = 0
    windows["encoder.log_var.b"][...] = -60
    assert_allclose(model.reconstruct_samples(x, 5).std(axis=0), 0, atol=1e-10)  # q is sure: nothing left open


def test_samples_are_decoded_from_the_standard_normal_prior():
    model = small()
    assert_array_equal(model.sample(9, seed=5), model.decode(np.random.default_rng(5).standard_normal((9, 2))))
    assert not np.array_equal(model.sample(9, seed=5), model.sample(9, seed=6))


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_terms_add_up_to_estimator_b_7(likelihood, mean):
    model = small(likelihood, mean, n_samples=3)
    eps = model.noise(np.random.default_rng(0), 7)
    neg_kl, log_px = model.terms(rows(), eps)
    assert neg_kl.shape == log_px.shape == (7,)
    assert_allclose((neg_kl + log_px).sum(), model.bound(rows(), eps, 7), rtol=1e-14)


def test_more_rows_than_a_batch_come_back_in_order():
    model, x = small(), rows(2300)
    mu, log_var = model.encode(x)
    assert mu.shape == log_var.shape == (2300, 2)
    assert_array_equal(mu[1500:1510], model.encode_mean(x[1500:1510]))
    assert_array_equal(model.decode(mu)[2290:], model.decode(mu[2290:]))
    assert model.encode_mean(x[:0]).shape == (0, 2)


def test_estimator_may_be_the_papers_letter_or_a_function():
    assert vae(6, estimator="A").estimator is vae(6, estimator=sgvb_a).estimator is sgvb_a
    assert vae(6).estimator is sgvb_b
    assert vae(6, estimator=sgvb_a).config["estimator"] == "A"

    def mine(*arguments):
        return sgvb_b(*arguments)

    for own, name in [(mine, "mine"), (functools.partial(mine), "partial mine()")]:
        model = vae(6, 5, 2, estimator=own)
        assert getattr(model.estimator, "func", model.estimator) is mine and model.config["estimator"] == name


def test_noise_is_l_by_m_by_j_in_the_models_precision():
    eps = vae(6, n_latent=4, n_samples=3).noise(np.random.default_rng(0), 11)
    assert eps.shape == (3, 11, 4) and eps.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_visible": 0}, "n_visible is 0; expected a whole number ≥ 1"),
        ({"n_latent": 0}, "n_latent is 0; expected a whole number ≥ 1"),
        ({"n_hidden": 0}, "n_hidden is 0; expected a whole number ≥ 1"),
        ({"n_hidden": (5, -1)}, "n_hidden is -1; expected a whole number ≥ 1"),
        ({"n_samples": 0}, "n_samples is 0; expected a whole number ≥ 1"),
        ({"n_latent": 2.5}, "n_latent is 2.5; expected a whole number ≥ 1"),
        (
            {"likelihood": "poisson"},
            "likelihood is 'poisson'; expected one of bernoulli, gaussian, isotropic, continuous-bernoulli, laplace, "
            "or an object of your own",
        ),
        (
            {"mean": "tanh"},
            "mean is 'tanh'; expected 'sigmoid' or, for a likelihood among gaussian, isotropic, laplace, 'free'",
        ),
        (
            {"mean": "free"},
            "mean is 'free'; expected 'sigmoid' or, for a likelihood among gaussian, isotropic, laplace, 'free'",
        ),
        ({"n_hidden": 5.0}, "n_hidden is 5.0; expected a whole number ≥ 1"),
        ({"n_hidden": True}, "n_hidden is True; expected a whole number ≥ 1"),
        (
            {"estimator": ["B"]},
            f"estimator is ['B']; expected one of {ESTIMATORS}, or your own function",
        ),
        ({"dtype": None}, "dtype is None; expected float32 or float64"),
        ({"init": "glorot", "init_biases": True}, "biases are drawn with a standard deviation"),
        ({"estimator": "C"}, f"estimator is 'C'; expected one of {ESTIMATORS}, or your own function"),
        ({"activation": "gelu"}, "activation is 'gelu'; expected one of tanh"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected float32 or float64"),
        ({"seed": -1}, "seed is -1; expected a whole number ≥ 0"),
    ],
)
def test_bad_arguments_are_named_with_what_came_and_what_was_expected(settings, message):
    with pytest.raises(ValueError) as error:
        vae(**{"n_visible": 6} | settings)
    assert message in str(error.value)


def test_bound_and_terms_read_uint8_as_pixels_and_keep_the_models_precision(digits):
    model = vae(64, 20, 5)
    eps = model.noise(np.random.default_rng(0), 10)
    grey = digits.test[:10] / 255
    bound = model.bound(digits.test[:10], eps, np.int64(10))
    assert bound == model.bound(grey, eps.astype(float), 10) < 0
    assert bound.dtype == np.float32
    assert all(term.dtype == np.float32 for term in model.terms(grey, eps.astype(float)))
    assert_allclose(np.sum(model.terms(digits.test[:10], eps)), bound, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 2), (7, 2), (1, 7, 3), (0, 7, 2), (1, 8, 2)])
def test_noise_that_does_not_fit_the_minibatch_is_refused_and_never_broadcast(shape):
    for ask in (lambda eps: small().bound(rows(), eps, 7), lambda eps: small().terms(rows(), eps)):
        with pytest.raises(ValueError, match=r"noise has shape .*; expected \(L, 7, 2\) with L ≥ 1"):
            ask(np.zeros(shape))


def test_whole_numbers_that_are_no_pixels_are_refused():
    with pytest.raises(ValueError, match="x holds int64; expected uint8 pixels, which are read as x/255, or floats"):
        small().encode(np.ones((7, 6), int))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(7, 5\); expected \(M, 6\)"):
        small().encode(rows(7, 5))
    with pytest.raises(ValueError, match=r"z has shape \(7, 3\); expected \(M, 2\)"):
        small().decode(np.zeros((7, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(6,\)"):
        small().encode(np.zeros(6))


@pytest.mark.parametrize("n_samples", [1, 3])
def test_rows_at_once_is_a_whole_number_whatever_the_number_of_draws(n_samples):
    model = VAE(40_000, 4, 2, n_samples=n_samples)  # so wide that fewer than a thousand rows are taken at a time
    assert type(model.rows_at_once()) is int
    assert 0 < model.rows_at_once() < 1000
