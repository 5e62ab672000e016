"""inference/objectives/wake_sleep.py: each phase moves its own parameters, the right way (E20)."""

import numpy as np
import pytest
from conftest import LIKELIHOODS, check_model, device, host, relative, rows, small
from numpy.testing import assert_allclose, assert_array_equal
from test_exact import linear_vae

from scratchvae import VAE, Adam, FullVB, evaluate, fit, oracle
from scratchvae.inference.objectives.wake_sleep import sleep, wake

pytestmark = pytest.mark.usefixtures("backend")


def untouched(model):
    """The model, its gradient filled with NaN: what stays NaN was never written."""
    model.params.grad[...] = np.nan
    return model


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize("n_samples", [1, 3])
def test_both_phases_equal_the_oracle(likelihood, mean, n_samples):
    model = small(likelihood, mean, "wake-sleep", n_samples)
    checks = check_model(model, rows(), n_data=40)
    assert [check.name for check in checks].count("value") == 1  # of the sum; that of each phase follows
    assert len(checks) == 2 + len(small(likelihood).params.windows)  # the bound, the surrogate, and every array
    assert checks, checks
    x, (eps, z, u) = rows(), model.noise(np.random.default_rng(0), 7)
    arrays = host(model.params.named(model.params.value))
    expected = oracle.bound(arrays, x, eps, 40, "B", likelihood, mean)
    assert_allclose(model.bound(x, (eps, z, u), 40), expected, rtol=1e-10)
    dreams = host(model.decoder.draw(*device((z, u))))
    value = sleep(model.encoder, model.decoder, *device((z, u)), 40 / 7)
    assert_allclose(host(value), 40 / 7 * oracle.log_q(arrays, dreams, z).sum(), rtol=1e-10)


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_wake_leaves_the_gradient_of_phi_exactly_zero_and_that_of_theta_is_the_bounds_e20(likelihood, mean):
    model, joint = untouched(small(likelihood, mean, n_samples=3)), small(likelihood, mean, n_samples=3)
    x, eps = rows(), joint.noise(np.random.default_rng(0), 7)
    bound = host(wake(model.encoder, model.decoder, *device((x, eps)), 40 / 7))
    assert_allclose(bound, joint.bound(x, eps, 40, gradient=True), rtol=1e-14)
    ours, theirs = host((model.params.grad, joint.params.grad))
    assert (ours[model.phi] == 0).all() and (theirs[model.phi] != 0).any()
    assert_allclose(ours[model.theta], theirs[model.theta], rtol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_the_sleep_gradient_averages_to_zero_at_the_exact_posterior_e20(exact):
    model, _, _ = linear_vae("wake-sleep", 1, orthogonal=True)
    if not exact:  # control: a wrong q
        model.params.named(model.params.value)["encoder.mu.W"][...] *= 1.01
    untouched(model)
    # ±√8 e_j in the eight dimensions of (z, noise of x): their mean is the expectation of any polynomial of degree 3,
    # and no entry of the gradient has a higher one
    points = np.sqrt(8) * np.concatenate([np.eye(8), -np.eye(8)])
    sleep(model.encoder, model.decoder, *device((points[:, :2].copy(), points[:, 2:].copy())), 1 / 16)
    gradient = host(model.params.grad)
    assert (np.abs(gradient[model.phi]).max() < 1e-12) == exact
    assert np.isnan(gradient[model.theta]).all()  # sleep leaves θ alone


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_noise_of_dreams_is_standard_and_of_its_own(likelihood):
    model = small(likelihood, estimator="wake-sleep")
    eps, z, u = model.noise(np.random.default_rng(0), 20_000)
    for part in (eps, z, u if likelihood == "gaussian" else np.sqrt(12) * (u - 0.5)):
        part = part.reshape(-1)
        assert abs(part.mean()) < 4.89 / np.sqrt(part.size)
        assert abs(part.var() - 1) < 4.89 * np.sqrt(2 / part.size)
    assert likelihood == "gaussian" or (u.min() >= 0 and u.max() < 1)
    assert abs((eps[0] * z).mean()) < 4.89 / np.sqrt(z.size)  # z of the dreams is not the wake phase's ε
    assert abs((u[:, :2] * z).mean()) < 4.89 / np.sqrt(z.size)


def test_a_dream_is_drawn_from_the_decoder_at_its_z():
    model = small(estimator="wake-sleep")
    _, z, u = model.noise(np.random.default_rng(1), 20_000)
    p = host(model.decoder.mean(device(z)))
    dreams = host(model.decoder.draw(*device((z, u))))
    assert set(np.unique(dreams)) == {0.0, 1.0}
    off = (dreams - p).mean(axis=0) / np.sqrt((p * (1 - p)).mean(axis=0) / len(z))
    assert np.abs(off).max() < 4.89
    assert np.abs(((dreams - p) * z[:, :1]).mean(axis=0)).max() < 4.89 * 0.5 / np.sqrt(len(z))


def test_dreams_follow_the_model_and_not_the_data():
    model = small(estimator="wake-sleep")
    noise = model.noise(np.random.default_rng(0), 7)
    gradients = []
    for x in (rows(seed=1), rows(seed=2)):
        model.bound(x, noise, 40, gradient=True)
        gradients.append(host(model.params.grad.copy()))
    assert_array_equal(gradients[0][model.phi], gradients[1][model.phi])
    assert relative(gradients[0][model.theta], gradients[1][model.theta]) > 0.1


def test_scaled_minibatches_average_to_the_full_gradient_8_e9():
    model = small(estimator="wake-sleep", n_samples=2)
    x, (eps, z, u) = rows(9), model.noise(np.random.default_rng(0), 9)
    full = model.bound(x, (eps, z, u), 9, gradient=True)
    full_gradient = host(model.params.grad.copy())
    value, gradient = 0.0, 0.0
    for part in (slice(0, 4), slice(4, 6), slice(6, 9)):
        share = (part.stop - part.start) / 9
        value += share * model.bound(x[part], (eps[:, part], z[part], u[part]), 9, gradient=True)
        gradient = gradient + share * host(model.params.grad)
    assert_allclose(value, full, rtol=1e-13)
    assert relative(gradient, full_gradient) < 1e-13


def test_value_without_gradient_is_the_same_and_dreams_nothing():
    model = small(estimator="wake-sleep")
    x, noise = rows(), model.noise(np.random.default_rng(0), 7)
    bound = model.bound(x, noise, 40, gradient=True)
    untouched(model)
    assert model.bound(x, noise, 40) == bound
    assert np.isnan(host(model.params.grad)).all()


def test_float32_stays_float32():
    model = small(estimator="wake-sleep", dtype="float32")
    noise = model.noise(np.random.default_rng(0), 7)
    assert all(part.dtype == np.float32 for part in noise)
    assert model.bound(rows().astype("f4"), noise, 40, gradient=True).dtype == np.float32


def test_wake_sleep_learns_and_resumes_to_the_bit(digits, tmp_path):
    def model():
        return VAE(64, 30, 5, estimator="wake-sleep", init="glorot")

    whole, parts = model(), model()
    settings = {"optimizer": Adam(0.002), "seed": 3}
    fit(whole, digits.train, digits.valid, samples=30_000, **settings)
    for samples in (13_000, 30_000):
        fit(
            parts,
            digits.train,
            digits.valid,
            samples=samples,
            out=tmp_path / "run",
            resume=samples > 13_000,
            **settings,
        )
    assert_array_equal(whole.params.value, parts.params.value)
    start, end = (evaluate(m, digits.test)["bound"] for m in (model(), whole))
    assert end > start + 10


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.zeros((1, 7, 2)), "noise is ndarray; expected the 3 arrays (eps, z, u) of `noise`"),
        (np.zeros((3, 7, 2)), "noise is ndarray; expected the 3 arrays (eps, z, u) of `noise`"),  # of 3 draws
        (("eps", np.zeros((7, 2))), "noise is tuple; expected the 3 arrays (eps, z, u) of `noise`"),
        (("eps", *np.zeros((3, 7, 2))), "noise is tuple; expected the 3 arrays (eps, z, u) of `noise`"),
        (("eps", np.zeros((7, 3)), np.zeros((7, 6))), "z of the noise has shape (7, 3); expected (M, 2)"),
        (("eps", np.zeros((7, 2)), np.zeros((7, 5))), "u of the noise has shape (7, 5); expected (M, 6)"),
        (("eps", np.zeros((7, 2)), np.zeros((8, 6))), "z and u of the noise have 7 and 8 rows"),
        (("eps", np.zeros((0, 2)), np.zeros((0, 6))), "z and u of the noise have 0 and 0 rows"),
    ],
)
def test_noise_that_does_not_fit_is_refused(noise, message):
    if isinstance(noise, tuple):
        noise = tuple(np.zeros((1, 7, 2)) if isinstance(part, str) else part for part in noise)
    with pytest.raises(ValueError) as error:
        small(estimator="wake-sleep").bound(rows(), noise, 7)
    assert message in str(error.value)


def test_there_is_no_wake_sleep_over_theta():
    with pytest.raises(ValueError, match="estimator is 'wake-sleep', which has no bound over θ"):
        FullVB(6, 5, 2, estimator="wake-sleep")
