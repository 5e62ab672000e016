"""inference/information.py: rate, KL of each latent, active units, I_q(x; z) and KL(q(z) ‖ p(z)) (E28).

Statistical tests are two-sided at a false-alarm rate of 1e-6, |z| < 4.89, and each has a control that must fail.
"""

import math

import numpy as np
import pytest
from conftest import Here, device, host, rows
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from scratchvae import VAE, fit
from scratchvae.cli.shared import DEFAULTS, use_in_words
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.information import Information, information
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.training.loop import evaluate

pytestmark = pytest.mark.usefixtures("backend")

Z_LIMIT = 4.89  # two-sided, 1e-6


def vae(*arguments, **settings):
    """A VAE on the backend of the test at hand."""
    return VAE(*arguments, backend=Here.backend, **settings)


# A small data set: everything by quadrature over z


def small(J, posterior="gaussian"):
    """A model with a wide spread of codes, and five rows."""
    model = vae(6, (), J, init=1.2, init_biases=True, dtype="float64", posterior=posterior)
    if posterior == "full":
        generator = np.random.default_rng(4)
        for name, window in model.params.named(model.params.value).items():
            if name.startswith("encoder.lower"):
                window[...] = device(0.4 * generator.standard_normal(window.shape))
    return model, rows(m=5)


def by_quadrature(model, x, points=601, limit=9.0):
    """Return R, I and KL(q(z) ‖ p(z)) of a model with one or two latents by the trapezoid rule."""
    J = model.n_latent
    axis = np.linspace(-limit, limit, points)
    grid = np.stack(np.meshgrid(*[axis] * J, indexing="ij"), axis=-1).reshape(-1, 1, J)
    z = np.repeat(grid, len(x), axis=1)
    log_q = host(model.encoder.log_prob(*device((x, z))))  # (points^J, N)
    log_mean = logsumexp(log_q, axis=1) - math.log(len(x))
    log_p = log_standard_gaussian(grid[:, 0], gradient=False)[0]
    cell = (axis[1] - axis[0]) ** J
    q = np.exp(log_q)
    rate = (q * (log_q - log_p[:, None])).sum() * cell / len(x)
    mutual = (q * (log_q - log_mean[:, None])).sum() * cell / len(x)
    marginal = (np.exp(log_mean) * (log_mean - log_p)).sum() * cell
    return rate, mutual, marginal


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("J", [1, 2])
def test_rate_is_information_plus_marginal_kl_and_the_closed_rate_is_that_of_quadrature_e28(J, posterior):
    model, x = small(J, posterior)
    rate, mutual, marginal = by_quadrature(model, x)
    assert abs(rate - mutual - marginal) < 1e-9
    assert 0.1 < mutual < math.log(5) and marginal > 0.01
    use = information(model, x)
    assert_allclose(use.rate, rate, rtol=0, atol=1e-9)
    assert use.rate == pytest.approx(evaluate(model, x)["kl"], abs=1e-12)
    assert use.marginal_kl == use.rate - use.mutual_information


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("J", [1, 2])
def test_estimate_of_information_is_that_of_quadrature_within_its_error_e28(J, posterior):
    model, x = small(J, posterior)
    mutual = by_quadrature(model, x)[1]
    many = np.repeat(x, 800, axis=0)  # the same q(z), and 800 draws of each datapoint
    use = information(model, many, seed=3)
    assert abs(use.mutual_information - mutual) < Z_LIMIT * use.error < 0.2
    assert abs(use.mutual_information - 1.1 * mutual) > use.error  # a control: the error is small enough to tell


def test_information_is_the_mean_over_the_datapoints_of_what_the_formula_says():
    model, x = small(2)
    use = information(model, x, seed=7)
    eps = np.random.default_rng([7, 3, 0]).standard_normal((5, 2))
    mu, log_var = model.encode(device(x))
    mu, log_var = host(mu), host(log_var)
    z = mu + np.exp(0.5 * log_var) * eps
    log_q = -0.5 * (math.log(2 * math.pi) + log_var + (z[:, None] - mu) ** 2 / np.exp(log_var)).sum(axis=2)
    own = np.diag(log_q)
    low = own - logsumexp(log_q, axis=1) + math.log(5)
    others = [logsumexp(np.delete(log_q[n], n)) - math.log(4) for n in range(5)]
    assert_allclose(use.mutual_information, low.mean(), rtol=1e-12)
    assert_allclose(use.error, low.std(ddof=1) / math.sqrt(5), rtol=1e-12)
    assert_allclose(use.most, (own - others).mean(), rtol=1e-12)
    assert_allclose(use.kl, (0.5 * (mu**2 + np.exp(log_var) - 1 - log_var)).mean(axis=0), rtol=1e-12)
    assert_allclose(use.variance, mu.var(axis=0), rtol=1e-12)


# A population: where data come from the linear VAE itself and q is its posterior, q(z) is the prior


def linear(J, each, N, seed=0):
    """The linear VAE with I(x; z) = J `each` and q its posterior, and N rows that come from it.

    Orthogonal rows w of W have ½ ln(1 + ‖w‖²/σ²) each, with σ² = 1.
    """
    D = J + 2
    generator = np.random.default_rng(seed)
    W = np.linalg.qr(generator.standard_normal((D, J)))[0].T * math.sqrt(math.expm1(2 * each))
    model = vae(D, (), J, "isotropic", "free", dtype="float64", prior=False)
    M = W @ W.T + np.eye(J)
    values = {
        "encoder.mu.W": np.linalg.solve(M, W).T,
        "encoder.log_var.b": -np.log(np.diag(M)),
        "decoder.mu.W": W,
    }
    model.params.value[...] = 0
    for name, value in values.items():
        model.params.named(model.params.value)[name][...] = device(value)
    z = generator.standard_normal((N, J))
    return model, z @ W + generator.standard_normal((N, D))


@pytest.mark.parametrize(("J", "each"), [(1, 1.0), (2, 1.5), (3, 2.0)], ids=["1 nat", "3 nats", "6 nats"])
def test_estimates_enclose_the_information_of_a_linear_model_e28(J, each):
    model, x = linear(J, each, 4000)
    use = information(model, x, seed=1)
    assert abs(use.rate - J * each) < 0.2  # its mean over rows, of which there are many
    assert use.mutual_information - Z_LIMIT * use.error < J * each < use.most + Z_LIMIT * use.error
    assert use.most - use.mutual_information < 0.6 and use.error < 0.05
    assert not use.saturated
    assert use.active == J


def test_ten_nats_cannot_be_seen_with_a_thousand_rows_e28():
    model, x = linear(2, 5.0, 1000)
    use = information(model, x)
    assert use.mutual_information <= math.log(1000) + 1e-12
    assert use.saturated and use.log_n == math.log(1000)
    assert use.most > use.log_n  # and the other estimate says so


@pytest.mark.parametrize("n", [1, 2, 7])
def test_no_data_set_tells_more_than_ln_n(n):
    model, _ = small(2)
    use = information(model, rows(m=n))
    assert use.mutual_information <= math.log(n) + 1e-12
    assert math.isnan(use.error) == math.isnan(use.most) == (n == 1)


# What a posterior cannot give is said


def test_with_full_covariance_the_kls_of_the_latents_do_not_add_up_to_the_rate():
    model, x = small(2, "full")
    use = information(model, x)
    assert use.kl.sum() < use.rate - 0.01
    model, x = small(2)
    use = information(model, x)
    assert_allclose(use.kl.sum(), use.rate, rtol=1e-12)


@pytest.mark.parametrize("base", POSTERIORS)
def test_a_flow_has_a_rate_by_draws_and_no_mutual_information(base):
    model = vae(6, (), 2, init=0.6, init_biases=True, flow=2, dtype="float64", posterior=base)
    use = information(model, rows(m=40), seed=2)
    eps = np.random.default_rng([2, 3, 0]).standard_normal((1, 40, 2))
    z, log_qz = host(model.latents(*device((rows(m=40), eps))))
    assert_allclose(use.rate, (log_qz - log_standard_gaussian(z)[0]).mean(), rtol=1e-12)
    assert use.kl is None and use.active is None
    assert math.isnan(use.mutual_information) and math.isnan(use.marginal_kl)
    assert set(use.missing) == {"kl", "active", "mutual_information"}
    assert "N² inversions" in use.missing["mutual_information"]


def test_an_autoencoder_has_none_of_it():
    use = information(vae(6, (), 2, estimator="autoencoder"), rows(m=4))
    assert math.isnan(use.rate) and use.kl is None and use.active is None
    assert use.missing["rate"] == "a plain autoencoder learns no q(z|x)"


class Lossy(POSTERIORS["gaussian"]):
    """A posterior whose densities of all pairs are off by a hundredth of a nat."""

    name = "lossy"

    def pairwise_log_q(self, z, mu, log_var):
        return super().pairwise_log_q(z, mu, log_var) + 0.01


class Bare:
    """A Gaussian posterior with the methods that every posterior has, and no others."""

    name = "bare"

    def __init__(self):
        self.inner = POSTERIORS["gaussian"]()

    def outputs(self, n_latent):
        return self.inner.outputs(n_latent)

    def draw(self, eps, mu, log_var):
        return self.inner.draw(eps, mu, log_var)

    def backward(self, dz, dlog_q, dneg_kl):
        return self.inner.backward(dz, dlog_q, dneg_kl)


def test_densities_of_pairs_that_differ_from_those_of_the_draws_are_told():
    use = information(vae(6, (), 2, posterior=Lossy()), rows(m=4))
    assert math.isnan(use.mutual_information)
    assert "those of the draws differ by 0.01" in use.missing["mutual_information"]


def test_a_posterior_of_your_own_is_asked_for_no_more_than_it_has():
    model = vae(6, (), 2, posterior=Bare(), estimator="A")
    use = information(model, rows(m=4))
    assert math.isfinite(use.rate) and use.kl is None and math.isnan(use.mutual_information)
    assert list(use.missing.values()) == ["bare has no latent_kl", "bare has no moments", "bare has no pairwise_log_q"]
    history = fit(model, rows(m=30), rows(m=20), samples=1000, batch_size=10, progress=False)
    assert np.isfinite(history["rate"]).all() and np.isnan(history["kl"]).all() and np.isnan(history["active"]).all()


def test_narrow_posteriors_say_when_their_digits_are_lost():
    model, x = small(2)
    model.params.named(model.params.value)["encoder.log_var.b"][...] = -60.0
    use = information(model, x)
    assert "lost their digits" in use.missing["mutual_information"] and use.kl is not None


@pytest.mark.parametrize("log_var", [np.inf, 800.0])
def test_a_kl_that_is_not_finite_is_told_in_words(log_var):
    model, x = small(2)
    model.params.named(model.params.value)["encoder.log_var.b"][...] = log_var
    use = information(model, x)
    assert not math.isfinite(use.rate) and math.isnan(use.mutual_information)
    assert "not known" in use_in_words(use, DEFAULTS)
    assert "the KL is not finite for all images" in use_in_words(Information(3, 2, math.nan), DEFAULTS)


# How it is computed


def test_blocks_of_pairs_change_nothing(monkeypatch):
    model, x = linear(2, 1.0, 60)
    whole = information(model, x)
    monkeypatch.setattr("scratchvae.inference.information.HEIGHT", 11)
    monkeypatch.setattr("scratchvae.inference.information.WIDTH", 7)
    parts = information(model, x)
    for name in ("mutual_information", "error", "most"):
        assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)


def test_progress_is_told_of_every_datapoint_once(monkeypatch):
    monkeypatch.setattr("scratchvae.inference.information.WIDTH", 7)
    model, x = linear(2, 1.0, 30)
    told = []
    information(model, x, progress=told.append)
    assert told == [7, 7, 7, 7, 2]


def test_seed_selects_the_draws_and_nothing_else():
    model, x = small(2)
    a, b, c = (information(model, x, seed=seed) for seed in (0, 0, 1))
    assert (a.mutual_information, a.rate) == (b.mutual_information, b.rate)
    assert a.mutual_information != c.mutual_information and a.rate == c.rate
    assert_array_equal(a.kl, c.kl)


def test_parameters_and_gradients_stay_as_they_are():
    model, x = small(2)
    model.params.grad[...] = 1.0
    before = host(model.params.value).copy()
    information(model, x)
    assert_array_equal(host(model.params.value), before)
    assert (host(model.params.grad) == 1.0).all()


def test_active_latents_are_those_with_a_variance_above_a_hundredth():
    use = Information(9, 3, 1.0, variance=np.array([0.0101, 0.0099, 4.0]))
    assert use.active == 2
    assert_array_equal(use.is_active, [True, False, True])


@pytest.mark.parametrize("x", [rows(m=3)[:, :4], np.empty((0, 6)), np.full((3, 6), np.nan)])
def test_rows_that_do_not_fit_are_refused(x):
    with pytest.raises(ValueError, match="x "):
        information(small(2)[0], x)
    with pytest.raises(ValueError, match="seed is -1"):
        information(small(2)[0], rows(m=3), seed=-1)


# The history of a run


def test_history_has_what_the_latents_carry_beside_the_bound():
    train = np.random.default_rng(0).random((200, 6))
    valid = np.random.default_rng(1).random((120, 6))
    model = VAE(6, 5, 3, dtype="float64")
    history = fit(model, train, valid, samples=1500, seed=4, progress=False)
    last = history[-1]
    assert_allclose(history["valid_bound"], -(history["rate"] + history["distortion"]), rtol=1e-12)
    use = information(model, valid, seed=4)
    assert (last["active"], last["mutual_information"]) == (use.active, use.mutual_information)
    assert last["marginal_kl"] == use.marginal_kl
    assert_array_equal(last["kl"], use.kl)
    assert history["kl"].shape == (len(history), 3)


def test_history_looks_at_the_first_thousand_validation_rows(monkeypatch):
    monkeypatch.setattr("scratchvae.training.loop.LOOKED_AT", 10)
    valid = np.random.default_rng(1).random((12, 6))
    model = VAE(6, 5, 3, dtype="float64")
    last = fit(model, valid, valid, samples=1000, batch_size=10, progress=False)[-1]
    assert last["mutual_information"] == information(model, valid[:10]).mutual_information
    assert_allclose(last["rate"], information(model, valid).rate, rtol=1e-12)


def test_history_without_validation_rows_or_with_an_autoencoder_does_not_know():
    train = np.random.default_rng(0).random((50, 6))
    history = fit(VAE(6, 5, 3), train, samples=1000, batch_size=10, progress=False)
    assert all(np.isnan(history[name]).all() for name in ("rate", "distortion", "active", "kl"))
    history = fit(VAE(6, 5, 3, estimator="autoencoder"), train, train, samples=1000, batch_size=10, progress=False)
    assert np.isnan(history["rate"]).all() and np.isnan(history["mutual_information"]).all()
    assert_array_equal(history["distortion"], -history["valid_bound"])


def test_what_is_said_of_the_latents_is_possible_and_names_no_remedy_that_the_run_has():
    use = Information(20, 2, 0.02, np.array([0.01, 0.01]), np.array([0.0, 0.0]), 0.1, 0.03, 0.12)
    assert use.active == 0 and use.marginal_kl < 0
    words = use_in_words(use, DEFAULTS | {"init": "glorot", "beta": 4.0})
    assert "makes nothing of z: the KL counts 4 times, so try a smaller --beta; what has helped is a smaller" in words
    assert "of the rate of 0.02 nats 0.02 to 0.02 (± 0.03) is mutual information I(x; z), and up to 0.00 is" in words
    assert "what has helped is weights from --init glorot, and a smaller --lr (" in use_in_words(use, DEFAULTS)
    one = Information(1, 2, 19.0, np.array([9.0, 10.0]), np.array([0.0, 0.0]))
    assert use_in_words(one, DEFAULTS).startswith(
        "1 image is too few to say which latents are active: take 10 or more; "
    )
