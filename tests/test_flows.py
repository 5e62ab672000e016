"""inference/posteriors/flow.py: planar normalizing flows, alone and as the posterior of a VAE (E14)."""

import importlib
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from conftest import relative, rows
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, Adagrad, evaluate, fit, load_model, oracle
from scratchvae.backend import move
from scratchvae.gradcheck import check_layer, check_model
from scratchvae.inference.marginal import appendix_d, importance, quadrature
from scratchvae.inference.objectives.sgvb import sgvb_a
from scratchvae.inference.posteriors.flow import Planar
from scratchvae.inference.posteriors.gaussian import Gaussian


def maps(n_maps=4, n_latent=3, m=7, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return Planar(n_maps, n_latent), scale * generator.standard_normal((m, n_maps * (2 * n_latent + 1)))


def test_log_det_equals_slogdet_of_the_jacobian_at_a_thousand_points_e14():
    flow, parameters = maps(5, 4, m=1000)
    z = np.random.default_rng(1).standard_normal((1000, 4))
    z_K, log_det = flow.forward(z[None], parameters)
    rows_of_jacobian = [
        elementwise_grad(lambda z, j=j: anp.sum(oracle.flow(parameters, z, 5)[0][:, j]))(z) for j in range(4)
    ]
    sign, expected = np.linalg.slogdet(np.stack(rows_of_jacobian, axis=1))
    assert (sign == 1).all()  # each map can be inverted
    assert_allclose(z_K[0], oracle.flow(parameters, z, 5)[0], rtol=1e-10, atol=1e-12)
    assert relative(log_det[0], expected) < 1e-10 and np.abs(log_det[0] - expected).max() < 1e-10


@pytest.mark.parametrize("m", [1, 4])  # one row of parameters for all, or one for each
def test_backward_equals_autograd_array_by_array(m):
    flow, parameters = maps(3, 3, m)
    z = np.random.default_rng(2).standard_normal((2, 4, 3))

    def witness(arrays, z, parameters):
        parameters = anp.concatenate([parameters] * (4 // m))
        pairs = [oracle.flow(parameters, one, 3) for one in z]
        return tuple(anp.stack(part) for part in zip(*pairs, strict=True))

    checks = check_layer(flow, z, parameters, oracle=witness)
    assert len(checks) == 3 and checks


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1.0, 1e2])
def test_the_constraint_holds_for_w_of_any_size_and_the_correction_vanishes_with_w_e14(scale):
    generator = np.random.default_rng(3)
    u, w = 5 * generator.standard_normal((2, 200, 4))
    w *= scale
    flow = Planar(1, 4)
    z, log_det = flow.forward(np.zeros((1, 200, 4)), np.concatenate([u, w, np.ones((200, 1))], axis=1))
    u_hat, a = z[0] / np.tanh(1.0), (w * u).sum(axis=1)
    assert np.isfinite(log_det).all()
    expected = np.where(a >= 0, a, a / (1 - np.minimum(a, 0)))
    assert (expected >= -1).all()
    assert_allclose((w * u_hat).sum(axis=1), expected, rtol=1e-9, atol=1e-12 * scale)
    assert_allclose(u_hat[a >= 0], u[a >= 0], rtol=1e-12)  # nothing to correct
    assert np.abs(u_hat - u).max() <= (u**2).sum(axis=1).max() * np.linalg.norm(w, axis=1).max() + 1e-12


def test_the_map_is_continuous_and_its_gradient_bounded_at_w_of_zero_a_translation_e14():
    """As w → 0 from any side; the printed m = log(1 + eᵃ) - 1 has û of the order of 1/‖w‖ there."""
    u, b, flow = np.array([[1.0, -2.0]]), np.array([[0.7]]), Planar(1, 2)
    found = []
    for w in ([0.0, 0.0], [1e-14, 0], [0, 1e-14], [-1e-9, 1e-9], [1e-6, -1e-6]):
        z, log_det = flow.forward(np.ones((1, 1, 2)), np.concatenate([u, [w], b], axis=1))
        assert_allclose(z[0], 1 + u * np.tanh(0.7), atol=1e-5)
        assert_allclose(log_det, 0, atol=1e-5)
        found.append(np.concatenate([part.ravel() for part in flow.backward(np.array([[[0.3, -1.1]]]), 2.0)]))
        assert_allclose(found[-1][2:4], np.array([0.3, -1.1]) * np.tanh(0.7), atol=1e-5)  # ∂/∂u
    s = 1 - np.tanh(0.7) ** 2
    assert_allclose(found[0][4:6], (0.3 + 2.2) * s + 2 * s * u[0], rtol=1e-12)  # ∂/∂w: u·dz s z, and 2 s u of log det
    for other in found[1:]:
        assert_allclose(other[[0, 1, 2, 3, 6]], found[0][[0, 1, 2, 3, 6]], atol=1e-4)
        assert np.abs(other[4:6] - found[0][4:6]).max() < 5 * 1.2  # ‖u‖² ‖dz‖ at most: m'' jumps at 0


@pytest.mark.parametrize("length", [1e-3, 1e-14, 1e-16, 1e-18, 1e-100])
def test_a_tiny_w_beside_a_huge_u_is_corrected_and_is_no_translation_e14(length):
    """w·u = -1e4 at any length of w: û must have w·û = m > -1, and z must move by it, however small ‖w‖² is."""
    flow = Planar(1, 1)
    parameters = np.array([[-1e4 / length, length, 0.3]])
    z, log_det = flow.forward(np.zeros((1, 1, 1)), parameters)
    m = -1e4 / (1 + 1e4)
    t = np.tanh(0.3)
    assert_allclose(z.item() * length, m * t, rtol=1e-10)
    assert_allclose(log_det.item(), np.log(1 + (1 - t * t) * m), rtol=1e-10)
    assert_allclose(flow.inverse(z, parameters) * length, 0, atol=1e-10)
    assert np.isfinite(flow.backward(np.ones((1, 1, 1)), 1.0)[1]).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
def test_the_log_determinant_is_exact_where_the_map_all_but_folds(dtype, tolerance):
    """w·û near -1 and tanh near 0: 1 + s m cancels to nothing if it is taken as it stands."""
    mpmath = pytest.importorskip("mpmath")
    for wu in (-5.0, -100.0, -1e4, -1e6):
        for x in (0.0, 1e-5, 1e-4, 0.3):
            parameters = np.array([[wu, 1.0, x]], dtype)  # J = 1, w = 1, z = 0
            flow = Planar(1, 1)
            log_det = flow.forward(np.zeros((1, 1, 1), dtype), parameters)[1]
            with mpmath.workdps(60):
                t = mpmath.tanh(mpmath.mpf(float(parameters[0, 2])))
                expected = float(mpmath.log(1 + (1 - t**2) * mpmath.mpf(wu) / (1 - wu)))
            assert_allclose(log_det[0, 0], expected, rtol=tolerance, atol=tolerance)
            assert np.isfinite(flow.backward(np.ones((1, 1, 1), dtype), 1.0)[1]).all()


def test_density_integrates_to_one_after_numerical_inversion_e14():
    """q_K(z') = q_0(z) / |det|, with z found from z' map by map: α + m tanh(α + b) = w·z' by bisection, α = w·z."""
    flow, parameters = maps(3, 2, m=1, seed=5)
    axis = np.linspace(-9, 9, 451)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    z = grid
    for one in np.split(parameters, 3, axis=1)[::-1]:
        u, w, b = one[0, :2], one[0, 2:4], one[0, 4]
        m = max(w @ u, 0) + min(w @ u, 0) / (1 - min(w @ u, 0))
        u = u + (m - w @ u) * w / (w @ w)
        low, high = z @ w - abs(m) - 1, z @ w + abs(m) + 1
        for _ in range(50):
            middle = (low + high) / 2
            above = middle + m * np.tanh(middle + b) > z @ w
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        z = z - u * np.tanh(low + b)[:, None]
    again, log_det = flow.forward(z[None], parameters)
    assert_allclose(again[0], grid, atol=1e-9)
    q = np.exp(-0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) - log_det[0])
    assert_allclose(q.sum() * (axis[1] - axis[0]) ** 2, 1, atol=1e-6)
    assert abs((q * np.exp(log_det[0])).sum() * (axis[1] - axis[0]) ** 2 - 1) > 0.1  # without the log-determinant: not


def flow_vae(**settings):
    sizes = {"n_visible": 6, "n_hidden": 5, "n_latent": 2, "flow": 3, "init": 0.5, "dtype": "float64"}
    model = VAE(**sizes | settings)
    model.params.value[...] = 0.7 * np.random.default_rng(4).standard_normal(model.params.value.size)
    return model


def mapped(model, z, x):
    """z_K and the log-determinants of the model's maps at x from z_0."""
    return model.encoder.posterior.planar.forward(z, model.encoder.forward(x)[2])


@pytest.mark.parametrize("settings", [{"init": "glorot"}, {"init": 0.5, "init_biases": True}])
def test_it_begins_as_the_plain_vae_of_its_seed_whose_bound_it_has_draw_by_draw_e14(settings):
    model = VAE(6, 5, 2, flow=3, dtype="float64", n_samples=3, seed=4, **settings)
    vae = VAE(6, 5, 2, dtype="float64", n_samples=3, seed=4, estimator="A", **settings)
    for name, window in vae.params.named(vae.params.value).items():
        assert_array_equal(model.params.window(name, model.params.value), window)
    eps = model.noise(np.random.default_rng(0), 7)

    class Plain:
        draw = staticmethod(lambda x, eps: Gaussian().draw(eps, *model.encoder.forward(x)[:2]))

    plain = sgvb_a(Plain, model.decoder, rows(), eps, 1.0, gradient=False)
    assert_allclose(model.bound(rows(), eps, 7), plain, rtol=1e-14)
    assert_allclose(vae.bound(rows(), eps, 7), plain, rtol=1e-14)
    kl, log_px = model.terms(rows(), eps)  # the parts, each in its place
    assert_allclose(log_px, vae.terms(rows(), eps)[1], rtol=1e-12)
    assert_allclose(7 * (kl + log_px).mean(), plain, rtol=1e-12)
    model.params.value[...] += 0.1
    assert abs(model.bound(rows(), eps, 7) - sgvb_a(Plain, model.decoder, rows(), eps, 1.0, gradient=False)) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"likelihood": "gaussian", "n_samples": 2},
        {"likelihood": "isotropic"},
        {"estimator": "iwae", "n_samples": 3},
        {"estimator": "wake-sleep"},
    ],
)
def test_bound_and_every_gradient_equal_the_oracle_9_10_11(settings):
    checks = check_model(flow_vae(**settings), rows())
    assert checks
    assert {"encoder.maps.W", "encoder.maps.b"} <= {check.name for check in checks}


def test_log_p_minus_the_bound_is_a_divergence_and_importance_through_the_flow_gives_log_p_e7():
    model = flow_vae(n_samples=4000)
    x = rows(3)
    log_p = quadrature(model, x)
    bounds = sum(model.terms(x, model.eps(np.random.default_rng(1), 3)))
    assert (bounds < log_p).all()
    estimate = importance(model, x, 4000)
    assert (np.abs(estimate.log_p - log_p) < 4.89 * estimate.error).all() and estimate.error.max() < 0.1


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_appendix_d_samples_the_posterior_of_a_model_with_a_flow_e13():
    model = flow_vae(likelihood="isotropic")
    model.params.value[...] *= 0.7
    x = rows(3)
    estimate = appendix_d(model, x, 400, burn_in=50)
    assert (np.abs(estimate.log_p - quadrature(model, x)) < 4.89 * estimate.error).all() and estimate.error.max() < 0.2


def test_draws_have_the_density_that_is_scored_e23():
    """E_q[N(z; 0, I)/q(z)] = 1: of draws whose log q lacks the log-determinant it is not."""
    model, n = flow_vae(), 40_000
    model.params.value[...] *= 0.6
    eps = model.eps(np.random.default_rng(2), 5)[0]
    eps = np.random.default_rng(2).standard_normal((n, *eps.shape))
    z, log_q = model.latents(rows(5), eps)
    log_det = mapped(model, model.encode(rows(5))[0] + 0 * eps, rows(5))[1]

    def z_score(log_q):
        w = np.exp(-0.5 * (z**2).sum(axis=-1) - np.log(2 * np.pi) - log_q)
        return (w.mean(axis=0) - 1) / (w.std(axis=0) / np.sqrt(n))

    assert (np.abs(z_score(log_q)) < 4.89).all()
    assert np.abs(z_score(log_q + log_det)).max() > 4.89


def test_a_flow_finds_a_posterior_that_no_gaussian_has():
    """One datapoint, p(z|x) with two modes: the gap between log p(x) and the bound shrinks to less than half."""
    generator = np.random.default_rng(0)
    x = (generator.random((1, 6)) < 0.5).astype(float)
    gaps = []
    for settings in ({"estimator": "A"}, {"flow": 8}):
        model = VAE(6, 5, 2, n_samples=10, dtype="float64", init=0.5, prior=False, seed=1, **settings)
        theta = 2.5 * np.random.default_rng(3).standard_normal(model.theta.stop - model.theta.start)
        optimizer = Adagrad(0.1)
        optimizer.start(model.params)
        model.params.value[model.theta] = theta
        for step in range(1, 601):
            model.bound(x, model.noise(np.random.default_rng(step), 1), 1, gradient=True)
            optimizer.ascend(model.params, step, model.phi)
        model.n_samples = 4000
        bound = sum(model.terms(x, model.eps(np.random.default_rng(0), 1)))
        gaps.append(float(quadrature(model, x)[0] - bound[0]))
    assert 0 < gaps[1] < 0.5 * gaps[0]


def test_a_run_trains_resumes_and_is_loaded_and_float32_stays_float32(tmp_path):
    x = rows(40).astype("float32")
    settings = {"samples": 400, "batch_size": 10, "log_every": 100}
    whole = VAE(6, 5, 2, flow=3, init="glorot")
    history = fit(whole, x, x, **settings)
    half = VAE(6, 5, 2, flow=3, init="glorot")
    fit(half, x, x, out=tmp_path, **settings | {"samples": 200})
    half = VAE(6, 5, 2, flow=3, init="glorot")
    fit(half, x, x, out=tmp_path, resume=True, **settings)
    assert_array_equal(half.params.value, whole.params.value)
    loaded = load_model(tmp_path)
    assert loaded.encoder.posterior.n_maps == 3 and evaluate(loaded, x) == evaluate(whole, x)
    assert history["valid_bound"][-1] > history["valid_bound"][0]
    assert whole.bound(x, whole.noise(np.random.default_rng(0), 40), 40, gradient=True).dtype == np.float32
    assert whole.encoder.posterior.planar.backward(np.ones((1, 40, 2), "float32"), 2.0)[1].dtype == np.float32
    assert whole.encode_samples(x, 3).dtype == np.float32


def test_the_mean_code_is_the_mean_of_q_0_sent_through_the_maps():
    model = flow_vae()
    mu, _ = model.encode(rows())
    assert_allclose(model.encode_mean(rows()), mapped(model, mu[None], rows())[0][0])
    draws = model.encode_samples(rows(), 5, seed=1)
    assert draws.shape == (5, 7, 2) and not np.allclose(draws[0], draws[1])


def test_it_trains_alike_on_both_backends(waits):
    x = rows(23)
    models = [VAE(6, 5, 2, flow=2, backend=backend) for backend in ("numpy", "cupy")]
    for model in models:
        fit(model, x, x, samples=300, batch_size=10, log_every=70)
    assert_array_equal(models[1].params.value.get(), models[0].params.value)
    on_device = move(x.astype("float32"), "cupy")
    for call in (lambda model, x: model.encode_mean(x), lambda model, x: model.encode_samples(x, 3, seed=1)):
        z = call(models[0], x)
        assert z.dtype == np.float32
        assert_array_equal(call(models[1], on_device).get(), z)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": -1}, "flow is -1; expected a whole number ≥ 0"),
        ({"flow": True}, "flow is True; expected a whole number ≥ 0"),
        (
            {"estimator": "B"},
            "estimator is 'B', which needs KL(q(z|x) ‖ p(z)) in closed form, and the posterior 'flow over gaussian' "
            "has no neg_kl: take another estimator, such as 'A', or leave flow out",
        ),
        ({"n_latent": 0}, "n_latent is 0; expected a whole number ≥ 1"),
    ],
)
def test_what_a_flow_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        VAE(6, 5, **{"flow": 3} | settings)
    assert message in str(error.value)


def test_shapes_that_do_not_fit_a_flow_are_refused():
    flow = Planar(2, 3)
    for z, parameters in [((1, 4, 3), (1, 21)), ((1, 4, 3), (14,)), ((1, 4, 2), (1, 14))]:
        with pytest.raises(ValueError, match=r"expected \(L, M, 3\) and \(M or 1, 14\)"):
            flow.forward(np.zeros(z), np.zeros(parameters))


def test_latents_reads_uint8_pixels_as_encode_does():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    for model in (flow_vae(), VAE(6, 5, 2, init=0.5, dtype="float64")):
        assert_allclose(model.latents(pixels, np.zeros((1, 4, 2)))[0][0], model.encode_mean(pixels), rtol=1e-12)


# The energies of the example


def test_the_examples_fit_brings_a_flow_near_its_energy(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    energies = importlib.import_module("energies")
    row, counts = energies.result("1", 3, 1200, 0, "none")
    assert 0 < row["kl"] < 0.35 and counts.sum() > 900_000


def naive_energies(z):
    """Rezende & Mohamed 2015, table 1, as printed, with a wall beyond |z_1| = 4 for the last three."""
    x, y = z[:, 0], z[:, 1]
    w1, w2 = anp.sin(2 * anp.pi * x / 4), 3 * anp.exp(-0.5 * ((x - 1) / 0.6) ** 2)
    w3 = 3 / (1 + anp.exp(-(x - 1) / 0.3))
    two = anp.exp(-0.5 * ((x - 2) / 0.6) ** 2) + anp.exp(-0.5 * ((x + 2) / 0.6) ** 2)
    wall = 0.5 * (anp.where(anp.abs(x) > 4, anp.abs(x) - 4, 0) / 0.2) ** 2

    def branches(shift, width):
        return -anp.log(anp.exp(-0.5 * ((y - w1) / width) ** 2) + anp.exp(-0.5 * ((y - w1 + shift) / 0.35) ** 2))

    return {
        "1": 0.5 * ((anp.sqrt(x**2 + y**2) - 2) / 0.4) ** 2 - anp.log(two),
        "2": 0.5 * ((y - w1) / 0.4) ** 2 + wall,
        "3": branches(w2, 0.35) + wall,
        "4": branches(w3, 0.4) + wall,
    }


@pytest.mark.parametrize("name", "1234")
def test_the_energies_of_the_example_and_their_gradients_are_those_of_the_paper(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    energies = importlib.import_module("energies")
    z = np.random.default_rng(0).uniform(-5, 5, (200, 2))
    value, gradient = energies.ENERGIES[name](z)
    assert_allclose(value, -naive_energies(z)[name], rtol=1e-10, atol=1e-10)
    assert relative(gradient, elementwise_grad(lambda z: -anp.sum(naive_energies(z)[name]))(z)) < 1e-10
