"""inference/posteriors: full covariance (E25), densities, samples, ∇_z log q, the noise of a given z, planar maps.

Statistical tests are two-sided at a false-alarm rate of 1e-6, |z| < 4.89. With n = 93/δ² draws they see a shift of δ
standard deviations with a power of 1 - 1e-6, and each has a control with such a shift, or a larger one, that must fail.
"""

import time
import tracemalloc

import numpy as np
import pytest
from conftest import device, host, relative, rows, vae
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from scratchvae import VAE, backend
from scratchvae.backend import host_memory
from scratchvae.doors import posterior_of
from scratchvae.inference.posteriors import flow
from scratchvae.inference.posteriors.flow import Planar, root

pytestmark = pytest.mark.usefixtures("backend")

VAR = 0.3  # σ² of the decoder
Z_LIMIT = 4.89  # two-sided, 1e-6
LAWS = [("gaussian", 0), ("full", 0), ("gaussian", 2), ("full", 2)]  # the posterior, and how many maps follow it
CLOSED = LAWS[:2]


# The linear VAE: probabilistic PCA, whose posterior is Gaussian and known


def linear_vae(posterior="full", estimator="A", n_samples=1, J=3):
    """The VAE without hidden layers at the best q(z|x) of its family, the evidence p(x), and Λ = I + W Wᵀ/σ².

    x = z W + m + σ ε. The columns of the paper's W, our rows, are not orthogonal, so that Λ is no diagonal matrix. With
    M = W Wᵀ + σ² I the posterior is N((x - m) Wᵀ M⁻¹, σ² M⁻¹), and σ² M⁻¹ = Λ⁻¹.
    """
    generator = np.random.default_rng(3)
    W = generator.standard_normal((J, 6))
    m = generator.standard_normal(6)
    model = vae(6, (), J, "isotropic", "free", estimator, n_samples, dtype="float64", prior=False, posterior=posterior)
    M = W @ W.T + VAR * np.eye(J)
    to_mean = np.linalg.solve(M, W).T
    L = np.linalg.cholesky(VAR * np.linalg.inv(M))
    values = {
        "encoder.mu.W": to_mean,
        "encoder.mu.b": -m @ to_mean,
        "encoder.log_var.b": 2 * np.log(np.diag(L)) if posterior == "full" else -np.log(np.diag(M / VAR)),
        "decoder.mu.W": W,
        "decoder.mu.b": m,
        "decoder.log_var.b": np.full(1, np.log(VAR)),
    }
    if posterior == "full":
        values["encoder.lower.b"] = L[np.tril_indices(J, -1)]
    model.params.value[...] = 0
    for name, value in values.items():
        model.params.named(model.params.value)[name][...] = device(value)
    return model, multivariate_normal(m, W.T @ W + VAR * np.eye(6)), M / VAR


def sigma_points(m, J=3):
    """ε = ±√J e_j for each of m datapoints: their mean is the expectation of any polynomial of degree 3."""
    points = np.sqrt(J) * np.concatenate([np.eye(J), -np.eye(J)])
    return np.repeat(points[:, None], m, axis=1)


@pytest.mark.parametrize("J", [1, 2, 3, 5])
def test_the_bound_of_the_linear_vae_with_full_covariance_is_the_ppca_evidence_in_every_draw_e25(J):
    x = rows()
    a, evidence, precision = linear_vae("full", "A", J=J)
    b, _, _ = linear_vae("full", "B", J=J)
    assert J == 1 or np.abs(precision - np.diag(np.diag(precision))).max() > 0.5
    noise = [a.noise(np.random.default_rng(seed), 7) for seed in range(30)]
    bounds_a, bounds_b = (np.array([model.bound(x, eps, 7) for eps in noise]) for model in (a, b))
    assert_allclose(bounds_a, evidence.logpdf(x).sum(), rtol=1e-12)
    assert bounds_b.std() > 0.1  # L^B has a spread of its own, and none beside it:
    assert_allclose(b.bound(x, sigma_points(7, J), 7), evidence.logpdf(x).sum(), rtol=1e-12)
    for eps, bound in zip(noise[:5], bounds_b, strict=False):  # L^B - L^A is what log p(z) - log q(z|x) is off its mean
        z, log_qz = b.encoder.draw(*device((x, eps)))
        log_pz = -0.5 * (np.log(2 * np.pi) + host(z) ** 2).sum(axis=-1)
        spread = host(b.encoder.neg_kl()) - (log_pz - host(log_qz))[0]
        assert_allclose(bound - spread.sum(), evidence.logpdf(x).sum(), rtol=1e-12)


def test_the_best_diagonal_posterior_misses_the_evidence_by_the_stated_gap_control_of_e25():
    x = rows()
    for estimator in ("A", "B"):
        model, evidence, precision = linear_vae("gaussian", estimator)
        gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
        assert gap > 0.1
        assert_allclose(model.bound(x, sigma_points(7), 7), (evidence.logpdf(x) - gap).sum(), rtol=1e-12)


@pytest.mark.parametrize("what", ["mu", "log_var", "lower"])
def test_away_from_the_posterior_the_bound_is_lower_and_has_a_spread_control_of_e25(what):
    x = rows()
    model, evidence, _ = linear_vae("full", "A")
    window = model.params.named(model.params.value)[f"encoder.{what}.b"]
    window += 0.01
    draws = [model.bound(x, model.noise(np.random.default_rng(seed), 7), 7) for seed in range(30)]
    assert np.std(draws) > 1e-3
    assert model.bound(x, sigma_points(7), 7) < evidence.logpdf(x).sum() - 1e-5


def test_a_full_covariance_starts_as_the_diagonal_posterior_of_its_seed_and_departs_from_it():
    settings = {"init_biases": True, "init": 0.4, "dtype": "float64", "seed": 5}
    full, plain = (vae(6, 5, 3, posterior=posterior, **settings) for posterior in ("full", "gaussian"))
    for name, window in plain.params.named(plain.params.value).items():
        assert_array_equal(host(full.params.window(name, full.params.value)), host(window))
    x, eps = rows(), full.noise(np.random.default_rng(0), 7)
    assert full.bound(x, eps, 40, gradient=True) == plain.bound(x, eps, 40, gradient=True)
    lower = full.params.named(full.params.grad)
    assert (np.abs(host(lower["encoder.lower.W"])).max(axis=0) > 1e-3).all()  # each entry of L below the diagonal moves
    assert (host(full.params.named(full.params.value)["encoder.lower.b"]) == 0).all()


# A law by itself, at outputs that are given


def law(name, n_maps, J, m=4, seed=0, dtype=np.float64, scale=0.7):
    """The posterior and outputs of order one for m datapoints, on the backend of the test at hand."""
    posterior, _ = posterior_of(name, n_maps, J)
    generator = np.random.default_rng(seed)
    outputs = [scale * generator.standard_normal((m, n)) for n in posterior.outputs(J).values()]
    return posterior, device([output.astype(dtype) for output in outputs])


def covariance(outputs):
    """L Lᵀ (M, J, J) of the outputs of a Gaussian, written out in the order of the docstring: row by row."""
    _, log_var, *lower = host(outputs)
    L = np.zeros((*log_var.shape, log_var.shape[1]))
    for row in range(len(log_var)):
        entries = iter(lower[0][row] if lower else ())
        for i in range(log_var.shape[1]):
            L[row, i, i] = np.exp(0.5 * log_var[row, i])
            if lower:
                L[row, i, :i] = [next(entries) for _ in range(i)]
    return L @ L.swapaxes(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("J", [1, 2, 3, 6])
@pytest.mark.parametrize(("name", "n_maps"), CLOSED)
def test_log_q_is_scipys_multivariate_normal_at_the_draw(name, n_maps, J, dtype, tolerance):
    posterior, outputs = law(name, n_maps, J, dtype=dtype)
    eps = np.random.default_rng(1).standard_normal((5, 4, J)).astype(dtype)
    z, log_q = host(posterior.draw(device(eps), *outputs))
    assert z.dtype == dtype and z.shape == (5, 4, J) and log_q.dtype == dtype
    for row, (mu, sigma) in enumerate(zip(host(outputs[0]), covariance(outputs), strict=True)):
        expected = multivariate_normal(mu, sigma).logpdf(z[:, row])
        assert_allclose(log_q[:, row], expected, rtol=tolerance, atol=10 * tolerance)


def moment_scores(z, mu, sigma):
    """z-values of all first moments and all second ones of samples z (n, J) of N(mu, sigma)."""
    d = z - mu
    first = d.mean(axis=0) / np.sqrt(np.diag(sigma) / len(z))
    variance = np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2  # of d_i d_j, for Gaussian d
    second = ((d[:, :, None] * d[:, None, :]).mean(axis=0) - sigma) / np.sqrt(variance / len(z))
    return np.concatenate([first, second[np.tril_indices(len(mu))]])


@pytest.mark.parametrize(("name", "n_maps"), CLOSED)
def test_samples_have_the_mean_and_the_covariance_of_the_density_e23(name, n_maps):
    n = 93 * 400  # δ = 1/20
    posterior, outputs = law(name, n_maps, 3, m=2)
    z = host(posterior.draw(device(np.random.default_rng(2).standard_normal((n, 2, 3))), *outputs)[0])
    for row, (mu, sigma) in enumerate(zip(host(outputs[0]), covariance(outputs), strict=True)):
        assert np.abs(moment_scores(z[:, row], mu, sigma)).max() < Z_LIMIT
        shifted = mu + np.sqrt(np.diag(sigma)) / 20
        assert np.abs(moment_scores(z[:, row], shifted, sigma)[:3]).min() > 3  # each mean; of power 1 - 1e-6 at 4.89
        assert np.abs(moment_scores(z[:, row], shifted, sigma)).max() > Z_LIMIT
        L = np.linalg.cholesky(sigma)
        other = L.T @ L if name == "full" else 1.1 * sigma  # L transposed, or a variance off by a tenth
        assert np.abs(moment_scores(z[:, row], mu, other)).max() > Z_LIMIT


@pytest.mark.parametrize("J", [1, 2, 3, 6])
@pytest.mark.parametrize(("name", "n_maps"), CLOSED)
def test_neg_kl_is_the_closed_form_of_two_gaussians_app_b(name, n_maps, J):
    posterior, outputs = law(name, n_maps, J)
    posterior.draw(device(np.zeros((1, 4, J))), *outputs)
    mu, sigma = host(outputs[0]), covariance(outputs)
    trace = np.trace(sigma, axis1=1, axis2=2)
    expected = -0.5 * (trace + (mu * mu).sum(axis=1) - J - np.linalg.slogdet(sigma)[1])
    assert_allclose(host(posterior.neg_kl()), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "n_maps"), CLOSED)
def test_neg_kl_is_the_mean_of_log_p_minus_log_q_over_the_draws(name, n_maps):
    n = 93 * 400
    posterior, outputs = law(name, n_maps, 3, m=2)
    z, log_q = host(posterior.draw(device(np.random.default_rng(3).standard_normal((n, 2, 3))), *outputs))
    ratio = -0.5 * (np.log(2 * np.pi) + z * z).sum(axis=-1) - log_q
    error = ratio.std(axis=0) / np.sqrt(n)
    off = (ratio.mean(axis=0) - host(posterior.neg_kl())) / error
    assert np.abs(off).max() < Z_LIMIT
    mu, log_var = host(outputs[:2])
    without = 0.5 * (1 + log_var - mu * mu - np.exp(log_var)).sum(axis=1)  # as if nothing stood below the diagonal
    wrong = without if name == "full" else host(posterior.neg_kl()) + ratio.std(axis=0) / 20
    assert np.abs((ratio.mean(axis=0) - wrong) / error).min() > Z_LIMIT


@pytest.mark.parametrize("J", [1, 3])
@pytest.mark.parametrize(("name", "n_maps"), LAWS)
def test_grad_z_is_the_derivative_of_log_q_at_a_given_z_with_the_outputs_held(name, n_maps, J):
    posterior, outputs = law(name, n_maps, J)
    z = host(posterior.draw(device(np.random.default_rng(4).standard_normal((2, 4, J))), *outputs)[0])
    ours = host(posterior.grad_z())

    def log_q(z):
        return host(posterior.draw(posterior.noise_of(device(z), *outputs), *outputs)[1])

    differences = np.empty_like(z)
    for j in range(J):
        step = 1e-5 * np.eye(J)[j]
        differences[..., j] = (log_q(z + step) - log_q(z - step)) / 2e-5
    assert relative(ours, differences) < 1e-8
    assert np.abs(ours - differences).max() < 1e-7 * np.abs(differences).max()


@pytest.mark.parametrize("J", [1, 2, 5])
@pytest.mark.parametrize(("name", "n_maps"), LAWS)
def test_noise_of_a_draw_is_its_noise_and_log_q_there_that_of_the_draw(name, n_maps, J):
    posterior, outputs = law(name, n_maps, J, m=50)
    eps = np.random.default_rng(5).standard_normal((3, 50, J))
    z, log_q = posterior.draw(device(eps), *outputs)
    again = posterior.noise_of(z, *outputs)
    assert np.abs(host(again) - eps).max() < 1e-12 * np.abs(eps).max()
    assert_allclose(host(posterior.draw(again, *outputs)[1]), host(log_q), rtol=1e-12)


@pytest.mark.parametrize(("name", "n_maps"), LAWS)
def test_moments_are_those_of_each_latent_before_the_maps(name, n_maps):
    posterior, outputs = law(name, n_maps, 3)
    mean, log_var = host(posterior.moments(*outputs))
    sigma = covariance(outputs[:-1] if n_maps else outputs)
    assert_array_equal(mean, host(outputs[0]))
    assert_allclose(np.exp(log_var), np.diagonal(sigma, axis1=1, axis2=2), rtol=1e-13)


def test_encode_gives_the_marginal_moments_of_a_full_covariance():
    model, _, precision = linear_vae("full")
    x = rows()
    mean, log_var = model.encode(x)
    assert_allclose(np.exp(log_var), np.repeat(np.diag(np.linalg.inv(precision))[None], 7, axis=0), rtol=1e-12)
    assert_allclose(mean, model.encode_mean(x), rtol=1e-12)


@pytest.mark.parametrize("n_maps", [0, 2])
def test_with_one_latent_full_is_the_diagonal_posterior(n_maps):
    settings = {"flow": n_maps, "init": 0.5, "init_biases": True, "dtype": "float64", "seed": 2, "n_samples": 3}
    full, plain = (vae(6, 5, 1, posterior=posterior, **settings) for posterior in ("full", "gaussian"))
    assert full.params.value.size == plain.params.value.size  # nothing stands below the diagonal
    x, eps = rows(), plain.noise(np.random.default_rng(0), 7)
    assert_allclose(full.bound(x, eps, 40, gradient=True), plain.bound(x, eps, 40, gradient=True), rtol=1e-14)
    assert_allclose(host(full.params.grad), host(plain.params.grad), rtol=1e-13)
    assert_allclose(full.encode(x), plain.encode(x), rtol=1e-13)


# Planar maps, walked back


def nasty():
    """(c, m, 1 + m): roots for w·u from -1e6 to 1e6 and any right side up to 1e6, the saturated tanh among them."""
    size = np.concatenate([[0.0], 10 ** np.linspace(-16, 6, 111)])
    a = np.concatenate([-size, size])
    below = np.minimum(a, 0)
    m = np.maximum(a, 0) + below / (1 - below)
    c = np.concatenate([[0.0], 10 ** np.linspace(-18, 6, 121)])
    near = 10 ** np.linspace(-16, 0, 33)
    saturated = np.maximum(m[:, None], 0) * (1 + np.concatenate([-near, near]))  # c all but m, where tanh is all but 1
    c = np.concatenate([np.repeat([c], len(m), axis=0), saturated], axis=1)
    c[:, ::2] *= -1
    return c, m[:, None], (np.maximum(a, 0) + 1 / (1 - below))[:, None]


def residual(x, c, m):
    return np.abs(x + m * np.tanh(x) - c) / np.maximum(1, np.abs(c))


def test_the_root_of_a_planar_map_is_exact_wherever_it_lies():
    c, m, slope = nasty()
    x = host(root(*device((c, m, slope))))
    assert np.isfinite(x).all()
    assert residual(x, c, m).max() < 1e-12
    assert (x * c >= 0)[np.abs(x) > 1e-6].all()


def test_twenty_newton_steps_come_to_the_root_and_ten_do_not(monkeypatch):
    """The worst case takes 20: there m is all but -1, c is 0, and Newton's steps come down a cubic."""
    c, m, slope = nasty()
    found = {}
    for steps in (10, 20, 22, 100):
        monkeypatch.setattr(flow, "NEWTON_STEPS", steps)
        found[steps] = host(root(*device((c, m, slope))))
    # the root is known to a rounding of the terms x, m tanh x and c, over the slope of the left side there
    x, t = found[100], np.tanh(found[100])
    terms = np.abs(c) + np.abs(x) + np.abs(m * t)
    known = np.finfo(float).eps * (1 + terms / (t * t + (1 - t * t) * slope))
    assert (np.abs(found[22] - x) < 8 * known).all()
    assert residual(found[20], c, m).max() < 1e-12
    assert residual(found[10], c, m).max() > 1e-5
    monkeypatch.undo()
    assert flow.NEWTON_STEPS >= 22 + 8


def test_a_root_stays_finite_where_the_map_all_but_folds_and_m_is_minus_one_to_the_last_digit():
    below = -(10 ** np.linspace(0, 30, 61, dtype="float32"))[:, None]
    m, slope = below / (1 - below), 1 / (1 - below)
    assert (m == -1).any()
    c = np.array([[0, 1e-30, -1e-9, 1e-3, 10]], "float32")
    x = host(root(*device((c, m, slope))))
    assert x.dtype == np.float32 and np.isfinite(x).all()
    assert residual(x, c, m).max() < 1e-6


@pytest.mark.parametrize("J", [1, 3])
def test_inverse_leads_back_to_z_for_random_maps_and_for_nasty_ones(J):
    generator = np.random.default_rng(6)
    m = 2000
    z = 10 ** generator.uniform(-3, 3, (2, m, 1)) * generator.standard_normal((2, m, J))
    w = generator.standard_normal((m, J))
    size = 10 ** generator.uniform(-14, 3, (m, 1))
    w *= size / np.linalg.norm(w, axis=1, keepdims=True)
    a = generator.choice([-1, 1], (m, 1)) * 10 ** generator.uniform(-6, 6, (m, 1))  # w·u
    across = generator.standard_normal((m, J))
    across -= w * (across * w).sum(axis=1, keepdims=True) / size**2
    parameters = np.concatenate([a * w / size**2 + across, w, generator.standard_normal((m, 1))], axis=1)
    planar = Planar(1, J)
    (found,) = host([planar.inverse(*device((z, parameters)))])
    again = host(planar.forward(*device((found, parameters)))[0])
    reach = np.linalg.norm(parameters[:, :J], axis=1) + 1 / size[:, 0]  # no smaller than ‖û‖
    # w·z is known to a rounding of its terms, and û tanh(w·z + b) to û times that
    rounding = reach * (1 + size[:, 0] * (np.linalg.norm(found, axis=-1) + np.linalg.norm(z, axis=-1)))
    error = np.linalg.norm(again - z, axis=-1)
    assert (error < 64 * np.finfo(float).eps * (rounding + np.linalg.norm(z, axis=-1))).all()
    benign = np.random.default_rng(7).standard_normal((m, 3 * (2 * J + 1)))
    z = np.random.default_rng(8).standard_normal((2, m, J))
    there = Planar(3, J).inverse(*device((z, benign)))
    assert np.abs(host(Planar(3, J).forward(there, device(benign))[0]) - z).max() < 1e-12


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e-16])
def test_a_map_whose_w_is_all_but_zero_is_a_translation_there_and_back(size):
    u = np.array([[1.0, -2.0]])
    parameters = np.concatenate([u, size * np.array([[0.6, 0.8]]), [[0.7]]], axis=1)
    z = np.array([[[3.0, 1.0]]])
    assert_allclose(host(Planar(1, 2).forward(*device((z, parameters)))[0]), z + u * np.tanh(0.7), rtol=1e-14)
    assert_allclose(host(Planar(1, 2).inverse(*device((z, parameters)))), z - u * np.tanh(0.7), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_of_stays_finite_and_in_its_dtype_for_maps_of_any_size(dtype):
    for scale in (1e-3, 1.0, 30.0):
        posterior, outputs = law("full", 3, 2, m=200, dtype=dtype, scale=scale)
        outputs[1] = outputs[1] / (1 + scale)
        z = device(np.random.default_rng(9).standard_normal((2, 200, 2)).astype(dtype))
        eps = host(posterior.noise_of(z, *outputs))
        assert eps.dtype == dtype and np.isfinite(eps).all()


# Too large a head


def test_a_full_covariance_of_too_many_latents_is_refused_at_once_with_how_much_it_takes(monkeypatch):
    monkeypatch.setattr(backend, "host_memory", lambda: 16 * 2**30)
    tracemalloc.start()
    try:
        begun = time.perf_counter()
        with pytest.raises(MemoryError) as error:
            VAE(64, 500, n_latent=20_000, posterior="full")
        seconds = time.perf_counter() - begun
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1 and peak < 2**20
    J = 20_000
    below = J * (J - 1) // 2
    n_parameters = 500 * (64 + 1) + 501 * (2 * J + below) + 500 * (J + 1) + 64 * (500 + 1)
    assert str(error.value) == (
        f"{n_parameters:,} parameters, the largest array being encoder.lower.W (500, {below}), needs about "
        f"{(8 * n_parameters + 16 * 500 * below) / 2**20:,.0f} MiB of memory and this machine has 16,384 MiB: "
        "take a smaller model"
    )


def test_the_memory_of_the_machine_is_what_the_system_says():
    meminfo = "/proc/meminfo"
    try:
        with open(meminfo, encoding="utf-8") as file:
            kilobytes = int(file.readline().split()[1])  # MemTotal
    except OSError:
        pytest.skip(f"there is no {meminfo}")
    assert_allclose(host_memory(), 1024 * kilobytes, rtol=1e-3)
