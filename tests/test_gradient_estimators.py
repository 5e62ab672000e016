"""inference/objectives: estimators that differ in their noise alone (E27, E20), and E9 for every objective.

Statistical tests are two-sided t-tests of all entries of a gradient at once, at a false-alarm rate of 1e-6 for the lot.
Each has a control, an estimator with a known bias, that must fail. Its bias is asserted to be 5 standard errors or more
beyond the limit, so that such a bias is missed with a probability of less than 1e-6.
"""

import functools

import numpy as np
import pytest
from conftest import device, host, relative, rows, small
from numpy.testing import assert_allclose
from scipy import stats
from test_posteriors import linear_vae

from scratchvae import FullVB
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.inference.objectives.wake_sleep import sleep, wake
from scratchvae.inference.posteriors.gaussian import Gaussian

POSTERIORS = [{}, {"posterior": "full"}, {"flow": 2}, {"posterior": "full", "flow": 2}]
both = pytest.mark.usefixtures("backend")


def model_of(estimator, posterior, n_samples=1, **settings):
    """A float64 VAE 6-5-2 with every parameter of order one, those of the maps too."""
    model = small(estimator=estimator, n_samples=n_samples, **posterior, **settings)
    values = 0.6 * np.random.default_rng(11).standard_normal(model.params.value.size)
    model.params.value[...] = device(values)
    return model


def gradients(model, x, noise, n_data=None):
    """(value, gradient of φ, gradient of θ) of the model's objective."""
    model.params.grad[...] = np.nan
    value = model.bound(x, noise, len(x) if n_data is None else n_data, gradient=True)
    gradient = host(model.params.grad)
    return value, gradient[model.phi].copy(), gradient[model.theta].copy()


# At the exact posterior


@both
@pytest.mark.parametrize("J", [1, 3])
def test_sticking_the_landing_has_no_gradient_of_phi_in_any_draw_where_q_is_the_posterior_e27(J):
    x = rows()
    for n_samples in (1, 4):
        model, evidence, _ = linear_vae("full", "stl", n_samples, J)
        plain, _, _ = linear_vae("full", "A", n_samples, J)
        for seed in range(20):
            eps = model.noise(np.random.default_rng(seed), 7)
            value, dphi, _ = gradients(model, x, eps)
            assert_allclose(value, evidence.logpdf(x).sum(), rtol=1e-12)
            assert np.abs(dphi).max() < 1e-10
            assert np.abs(gradients(plain, x, eps)[1]).max() > 0.1  # control: L^A's gradient has a spread


@both
@pytest.mark.parametrize("K", [1, 5, 20])
def test_dreg_has_no_gradient_of_phi_in_any_draw_for_any_k_where_q_is_the_posterior_e27(K):
    x = rows()
    model, evidence, _ = linear_vae("full", "dreg", K)
    plain, _, _ = linear_vae("full", "iwae", K)
    for seed in range(10):
        eps = model.noise(np.random.default_rng(seed), 7)
        value, dphi, _ = gradients(model, x, eps)
        assert_allclose(value, evidence.logpdf(x).sum(), rtol=1e-12)
        assert np.abs(dphi).max() < 1e-10
        assert np.abs(gradients(plain, x, eps)[1]).max() > 0.1  # control


@both
@pytest.mark.parametrize(("what", "estimator"), [("mu", "stl"), ("log_var", "stl"), ("lower", "dreg"), ("mu", "dreg")])
def test_off_the_posterior_these_gradients_are_there_control_of_e27(what, estimator):
    model, _, _ = linear_vae("full", estimator, 5)
    window = model.params.named(model.params.value)[f"encoder.{what}.b"]
    window += 0.01
    _, dphi, _ = gradients(model, rows(), model.noise(np.random.default_rng(0), 7))
    assert np.abs(dphi).max() > 1e-3


# Elsewhere: to rounding


@both
@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_dreg_with_one_draw_is_sticking_the_landing_and_both_are_l_a_but_for_phi_e27(posterior):
    x = rows()
    a, stl, dreg, iwae = (model_of(name, posterior) for name in ("A", "stl", "dreg", "iwae"))
    eps = a.noise(np.random.default_rng(0), 7)
    value, dphi, dtheta = gradients(a, x, eps, 40)
    found = [gradients(model, x, eps, 40) for model in (stl, dreg, iwae)]
    for other, _, dtheta_other in found:
        assert_allclose(other, value, rtol=1e-13)
        assert relative(dtheta_other, dtheta) < 1e-13
    assert relative(found[1][1], found[0][1]) < 1e-13
    assert relative(found[2][1], dphi) < 1e-13
    assert relative(found[0][1], dphi) > 0.01


@both
@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_values_and_gradients_of_theta_are_those_of_l_a_and_of_the_importance_weighted_bound(posterior):
    x = rows()
    for plain, other in (("A", "stl"), ("A", "black-box"), ("iwae", "dreg")):
        one, two = (model_of(name, posterior, n_samples=5) for name in (plain, other))
        eps = one.noise(np.random.default_rng(1), 7)
        value, dphi, dtheta = gradients(one, x, eps, 40)
        found = gradients(two, x, eps, 40)
        assert_allclose(found[0], value, rtol=1e-13)
        assert relative(found[2], dtheta) < 1e-13
        assert relative(found[1], dphi) > 0.01


# Elsewhere: in the mean


REPEATS = 60


def scores(one, two, m=150, seed=0):
    """t-values of φ's gradient under two objectives, the same noise for both: means over m draws of a row, repeated."""
    x = np.repeat(rows(1), m, axis=0)
    differences = []
    for k in range(REPEATS):
        eps = one.noise(np.random.default_rng([seed, k]), m)
        gradient = gradients(two, x, eps, 1)[1]
        differences.append(gradients(one, x, eps, 1)[1] - gradient)
    return t_values(np.array(differences), 1e-13 * np.abs(gradient).max())


def t_values(found, rounding=0.0):
    """The mean over its standard error; where nothing but rounding is there, 0 or very large."""
    return found.mean(axis=0) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)) + rounding)


def limit(t):
    """What the largest of so many t-values exceeds once in 1e6 at random."""
    return stats.t.isf(0.5e-6 / len(t), REPEATS - 1)


def without_the_score_of_q(q, p, x, eps, scale, gradient=True):
    """L^A with log q held altogether, a bias: the entropy of q has no say."""
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z)
    log_pz, dlog_pz = log_standard_gaussian(z)
    if gradient:
        q.backward(p.backward(scale / len(eps)) + scale / len(eps) * dlog_pz)
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def landing_inside_the_bound(q, p, x, eps, scale, gradient=True):
    """The importance-weighted bound with the score left out, as `stl` does for one draw: a bias for more."""
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z)
    log_pz, dlog_pz = log_standard_gaussian(z)
    log_w = log_px + log_pz - log_qz
    w = np.exp(log_w - log_w.max(axis=0))
    weight = scale * w / w.sum(axis=0)
    if gradient:
        q.backward(p.backward(weight) + weight[..., None] * (dlog_pz - q.grad_z()))
    return scale * (np.log(w.mean(axis=0)) + log_w.max(axis=0)).sum()


def score_that_moves_with_z(q, p, x, eps, scale, gradient=True):
    """Black-box inference that takes ∂log q/∂φ along the draw in the place of the score at z held: a bias."""
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z)
    f = log_px + log_standard_gaussian(z)[0] - log_qz
    if gradient:
        p.backward(scale / len(eps))
        q.backward(0 * z, scale / len(eps) * f)
    return scale * f.mean(axis=0).sum()


@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_the_mean_of_sticking_the_landing_is_that_of_l_a_e27(posterior):
    a = model_of("A", posterior, n_samples=4)
    t = scores(model_of("stl", posterior, n_samples=4), a)
    assert np.abs(t).max() < limit(t)
    control = scores(model_of(without_the_score_of_q, posterior, n_samples=4), a)
    assert np.abs(control).max() > limit(control) + 5


@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_the_mean_of_dreg_is_that_of_the_importance_weighted_gradient_e27(posterior):
    for K in (2, 10):
        plain = model_of("iwae", posterior, n_samples=K)
        t = scores(model_of("dreg", posterior, n_samples=K), plain)
        assert np.abs(t).max() < limit(t)
        control = scores(model_of(landing_inside_the_bound, posterior, n_samples=K), plain)
        assert np.abs(control).max() > limit(control) + 5


def test_the_control_is_sticking_the_landing_where_there_is_one_draw_and_has_no_bias_there():
    one, stl = (model_of(name, {"posterior": "full"}) for name in (landing_inside_the_bound, "stl"))
    eps = one.noise(np.random.default_rng(0), 7)
    assert relative(gradients(one, rows(), eps)[1], gradients(stl, rows(), eps)[1]) < 1e-13


@pytest.mark.parametrize(
    "options",
    [{}, {"control_variate": False}, {"rao_blackwell": False}, {"rao_blackwell": False, "control_variate": False}],
    ids=str,
)
@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_the_mean_of_black_box_gradients_is_that_of_l_a_for_every_posterior(posterior, options):
    a = model_of("A", posterior, n_samples=4)
    # naive, a score is weighted by the sum over the minibatch: then a minibatch is a row, and the draws are L
    m, n_samples = (100, 4) if options.get("rao_blackwell", True) else (2, 200)
    a.n_samples = n_samples
    box = model_of(functools.partial(black_box, **options), posterior, n_samples=n_samples)
    t = scores(box, a, m=m)
    assert np.abs(t).max() < limit(t)
    control = scores(model_of(score_that_moves_with_z, posterior, n_samples=n_samples), a, m=m)
    assert np.abs(control).max() > limit(control) + 5


def test_the_signal_of_dreg_rises_above_its_noise_as_the_root_of_k_and_that_of_the_other_drowns_e27():
    """‖mean‖ over ‖spread‖ of one estimate, for a q somewhat wider than the posterior, so that weights have a variance.

    Rainforth et al. 2018 and Tucker et al. 2019: as K^-½ and as K^½. From K = 4 to K = 64 that is 1/4 and 4.
    """
    ratio = {}
    for name in ("iwae", "dreg"):
        found = {}
        for K in (4, 64):
            model, _, _ = linear_vae("full", name, K)
            windows = model.params.named(model.params.value)
            windows["encoder.log_var.b"] += 0.5
            windows["encoder.mu.b"] += 0.1
            x = np.repeat(rows(1), 100, axis=0)
            means = [gradients(model, x, model.noise(np.random.default_rng([2, k]), 100), 1)[1] for k in range(50)]
            found[K] = np.linalg.norm(np.mean(means, axis=0)) / (10 * np.linalg.norm(np.std(means, axis=0)))
        ratio[name] = found[64] / found[4]
    assert 2.5 < ratio["dreg"] < 6
    assert 1 / 6 < ratio["iwae"] < 1 / 2.5


# Wake-sleep with every posterior


@both
@pytest.mark.parametrize("posterior", POSTERIORS, ids=str)
def test_wake_leaves_the_gradient_of_phi_exactly_zero_and_theta_that_of_the_bound_e20(posterior):
    model = model_of("wake-sleep", posterior, n_samples=3)
    x, (eps, _, _) = rows(), model.noise(np.random.default_rng(0), 7)
    model.params.grad[...] = np.nan
    wake(model.encoder, model.decoder, *device((x, eps)), 40 / 7)
    gradient = host(model.params.grad)
    assert (gradient[model.phi] == 0).all()
    _, _, dtheta = gradients(model_of("A", posterior, n_samples=3), x, eps, 40)
    assert relative(gradient[model.theta], dtheta) < 1e-13


@both
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("flow", [0, 1])
def test_the_sleep_gradient_averages_to_zero_at_the_exact_posterior_with_full_covariance_e20(exact, flow):
    """At ±√9 e_j in the nine dimensions of (z, noise of x): the expectation of any polynomial of degree 3.

    No entry of the gradient is of a higher degree: of a map with u = 0 and w = 0 the one of u is linear in z.
    """
    model = with_maps(linear_vae("full", "wake-sleep")[0], flow, w=0.0)
    if not exact:
        window = model.params.named(model.params.value)["encoder.mu.W"]
        window *= 1.01
    points = 3 * np.concatenate([np.eye(9), -np.eye(9)])
    model.params.grad[...] = np.nan
    sleep(model.encoder, model.decoder, *device((points[:, :3].copy(), points[:, 3:].copy())), 1.0)
    gradient = host(model.params.grad)
    assert (np.abs(gradient[model.phi]).max() < 1e-12) == exact
    assert np.isnan(gradient[model.theta]).all()  # sleep leaves θ alone


@both
@pytest.mark.parametrize("flow", [0, 1])
def test_the_sleep_gradient_leads_back_to_the_posterior_by_its_precision_e20(flow):
    """Where μ(x) is off by δ, E ∂log q(z|x)/∂μ = E (L Lᵀ)⁻¹ (z - μ(x)) = -Λ δ, at the same points."""
    model, _, precision = linear_vae("full", "wake-sleep")
    model = with_maps(model, flow, w=0.0)
    off = np.array([0.1, -0.2, 0.3])
    window = model.params.named(model.params.value)["encoder.mu.b"]
    window += device(off)
    points = 3 * np.concatenate([np.eye(9), -np.eye(9)])
    sleep(model.encoder, model.decoder, *device((points[:, :3].copy(), points[:, 3:].copy())), 1 / 18)
    assert_allclose(host(model.params.named(model.params.grad)["encoder.mu.b"]), -precision @ off, rtol=1e-12)


def with_maps(model, n_maps, w):
    """The same law q(z|x) behind so many planar maps that are the identity: u = 0, any w, b = 0.4."""
    if not n_maps:
        return model
    other = type(model)(**model.config | {"flow": n_maps, "backend": model.backend})
    theirs = other.params.named(other.params.value)
    for name, window in model.params.named(model.params.value).items():
        theirs[name][...] = window
    theirs["encoder.maps.W"][...] = 0.0
    J = model.n_latent
    maps = np.tile(np.concatenate([np.zeros(J), w * np.arange(1, J + 1), [0.4]]), n_maps)
    theirs["encoder.maps.b"][...] = device(maps)
    return other


def test_the_sleep_gradient_of_a_flow_averages_to_zero_at_the_exact_posterior_e20():
    def t_of(model, m=150):
        found = []
        for k in range(REPEATS):
            _, z, u = model.noise(np.random.default_rng([3, k]), m)
            sleep(model.encoder, model.decoder, z, u, 1 / m)
            found.append(model.params.grad[model.phi].copy())
        return t_values(np.array(found), 1e-13)

    model = with_maps(linear_vae("full", "wake-sleep")[0], 2, w=0.5)
    maps = model.params.part("encoder.maps.")
    t = t_of(model)
    assert np.abs(t).max() < limit(t)
    model.params.value[maps.start : maps.stop] += 0.05  # control: maps that bend a little
    control = t_of(model)
    assert np.abs(control).max() > limit(control) + 5


# What an objective needs of a posterior


class Bare:
    """The diagonal posterior with no more than it must have."""

    name = "bare"

    def __init__(self):
        gaussian = Gaussian()
        self.outputs, self.draw, self.backward = gaussian.outputs, gaussian.draw, gaussian.backward


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_is_refused_where_the_posterior_lacks_what_it_takes_and_runs_where_it_does_not(objective):
    lacks = {"B": "neg_kl", "stl": "grad_z", "dreg": "grad_z", "wake-sleep": "noise_of", "black-box": "grad_z"}
    settings = {"estimator": objective, "posterior": Bare(), "n_samples": 2}
    if objective in lacks:
        with pytest.raises(ValueError, match=f"the posterior 'bare' has no {lacks[objective]}: take another estimator"):
            small(**settings)
    else:
        model = small(**settings)
        eps = model.noise(np.random.default_rng(0), 7)
        plain = small(estimator=objective, n_samples=2)
        assert gradients(model, rows(), eps)[0] == gradients(plain, rows(), eps)[0]


# The partition identity, E9


def part_of(noise, rows):
    """The noise of these rows: ε is (L, M, J), that of dreams (M, …)."""
    if isinstance(noise, tuple):
        return tuple(part_of(part, rows) for part in noise)
    return noise[:, rows] if noise.ndim == 3 else noise[rows]


PARTITION = (slice(0, 4), slice(4, 5), slice(5, 9))
CELLS = [  # but L^B with a flow, which has no KL in closed form
    (objective, posterior)
    for objective in OBJECTIVES
    for posterior in POSTERIORS
    if objective != "B" or "flow" not in posterior
]


@both
@pytest.mark.parametrize(("objective", "posterior"), CELLS, ids=str)
def test_scaled_minibatches_average_to_the_value_and_gradient_of_all_data_8_e9(objective, posterior):
    model = model_of(objective, posterior, n_samples=3)
    x, noise = rows(9), model.noise(np.random.default_rng(0), 9)
    value, *gradient = gradients(model, x, noise, 9)
    parts = [gradients(model, x[part], part_of(noise, part), 9) for part in PARTITION]
    shares = np.array([part.stop - part.start for part in PARTITION]) / 9
    assert_allclose(shares @ [part[0] for part in parts], value, rtol=1e-12)
    for k in (1, 2):
        found = sum(share * part[k] for share, part in zip(shares, parts, strict=True))
        assert relative(found, gradient[k - 1]) < 1e-12
    unscaled = [gradients(model, x[part], part_of(noise, part))[0] for part in PARTITION]
    assert abs(shares @ unscaled - value) > 0.1 * abs(value)  # control: N/M that does not arrive


@both
@pytest.mark.parametrize(("objective", "posterior"), CELLS, ids=str)
def test_parts_of_a_minibatch_add_up_whatever_each_row_stands_for_e9(objective, posterior):
    """An objective knows `scale` and neither N nor M: the parts with one scale add up to the whole."""
    model = model_of(objective, posterior, n_samples=3)
    x, noise = device(rows(9)), device(model.noise(np.random.default_rng(0), 9))

    def ask(part, scale):
        model.params.grad[...] = np.nan
        value = float(OBJECTIVES[objective](model.encoder, model.decoder, x[part], part_of(noise, part), scale))
        return np.append(host(model.params.grad).copy(), value)

    whole = ask(slice(0, 9), 2.5)
    assert relative(sum(ask(part, 2.5) for part in PARTITION), whole) < 1e-12
    assert relative(2.5 * ask(slice(0, 9), 1.0), whole) < 1e-12
    assert relative(sum(ask(part, 1.0) for part in PARTITION), whole) > 0.1


@pytest.mark.parametrize(
    ("objective", "theta_noise"),
    [
        (objective, noise)
        for objective in ("A", "B", "stl", "iwae", "dreg", "black-box")
        for noise in ("minibatch", "datapoint", "local")
        if (objective, noise) != ("A", "local")  # which draws no θ at which L^A could score it
    ],
)
def test_over_theta_too_and_the_kl_of_theta_counts_once_24_e9(objective, theta_noise):
    model = FullVB(
        6, 5, 2, estimator=objective, theta_noise=theta_noise, n_samples=2, dtype="float64", log_sigma=-1.5, init=0.5
    )
    x, (eps, zeta) = rows(9), model.noise(np.random.default_rng(0), 9)

    def ask(part, n_data=9):
        """The gradient, and behind it the value, of these rows with their noise."""
        of_rows = zeta[part] if theta_noise == "datapoint" else zeta
        if theta_noise == "local":
            of_rows = zeta.reshape(2, 9, -1)[:, part].reshape(-1, zeta.shape[1])
        value = model.bound(x[part], (eps[:, part], of_rows), n_data, gradient=True)
        return np.append(model.params.grad, value)

    whole = ask(slice(0, 9))
    shares = [(part.stop - part.start) / 9 for part in PARTITION]
    assert relative(sum(share * ask(part) for share, part in zip(shares, PARTITION, strict=True)), whole) < 1e-12
    if objective != "A":  # of twice as many datapoints all terms count twice, but that of θ
        assert_allclose(ask(slice(0, 9), 18)[-1], 2 * whole[-1] + model.theta_kl(), rtol=1e-12)
