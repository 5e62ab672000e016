"""inference/score_function.py, objectives/black_box.py: black-box variational inference (E11), any log p and a VAE."""

import importlib
from functools import partial
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from conftest import LIKELIHOODS, device, host, is_drawn, relative, rows, small, vae
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, Adam, fit, load_data
from scratchvae.inference.objectives import black_box
from scratchvae.inference.score_function import (
    control_coefficient,
    factors,
    path_gradient,
    score_gradient,
    score_weighted,
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "black_box.py"
Z_LIMIT = 4.89  # two-sided z-test, false alarms 1e-6
KINDS = [(False, False), (True, False), (False, True), (True, True)]  # rao_blackwell, control_variate


def z_of(values, expected=0.0):
    """How many standard errors the mean of `values` (n, …) is off, component by component."""
    return np.abs(values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def z_of_variance(values, expected):
    """The same for the variance of `values` (n,)."""
    return z_of((values - values.mean()) ** 2, expected)


# E11: f = -½ λ z², one factor; `n` equal factors are n independent draws of the gradient

LAMBDA, MU, VAR = 1.7, 0.6, 0.5
SCORE_VARIANCE = LAMBDA**2 / (4 * VAR) * (MU**4 + 18 * MU**2 * VAR + 15 * VAR**2) - LAMBDA**2 * MU**2
RHO_2 = LAMBDA**2 / (4 * VAR) * (MU**2 + 3 * VAR) ** 2 / SCORE_VARIANCE  # Cov(h f, h)² / (Var h f  Var h), Var h = 1/σ²


def e11(s, n, seed=0):
    """f, the score ∂log q/∂μ and z, (s, n) each."""
    eps = np.random.default_rng([11, seed]).standard_normal((s, n))
    z, _, score, _ = factors(np.full(n, MU), np.full(n, np.log(VAR)), eps)
    return -0.5 * LAMBDA * z**2, score, z


def test_score_and_path_have_mean_and_variances_of_e11():
    n = 400_000
    f, score, z = e11(1, n)
    by_score, by_path = score_weighted(f, score), -LAMBDA * z[0]
    for gradient, variance in [(by_score, SCORE_VARIANCE), (by_path, LAMBDA**2 * VAR)]:
        assert z_of(gradient, -LAMBDA * MU) < Z_LIMIT
        assert z_of_variance(gradient, variance) < Z_LIMIT
    wrong = LAMBDA**2 / (4 * VAR) * (MU**4 + 18 * MU**2 * VAR + 15 * VAR**2)  # control: the squared mean left in
    assert z_of_variance(by_score, wrong) > Z_LIMIT
    assert z_of(2 * by_score, -LAMBDA * MU) > Z_LIMIT  # control: the score without its ½, 1/σ for 1/σ², and the like


def test_optimal_control_variate_keeps_the_mean_and_multiplies_the_variance_by_1_minus_rho_2_e11():
    optimum = -LAMBDA / 2 * (MU**2 + 3 * VAR)  # Cov(h f, h) / Var h
    f, score, _ = e11(200_000, 1)
    assert z_of(score**2 * (f - optimum)) < Z_LIMIT
    assert abs(control_coefficient(f, score) - optimum) < 0.05
    n, s = 4000, 500
    f, score, _ = e11(s, n)
    gradient = score_weighted(f, score, control_variate=True)
    assert z_of(gradient, -LAMBDA * MU) < Z_LIMIT
    assert z_of_variance(np.sqrt(s) * gradient, SCORE_VARIANCE * (1 - RHO_2)) < Z_LIMIT
    assert z_of_variance(np.sqrt(s) * score_weighted(f, score), SCORE_VARIANCE * (1 - RHO_2)) > Z_LIMIT  # control


@pytest.mark.parametrize("s", [2, 5, 8])
def test_a_coefficient_from_the_samples_that_it_corrects_is_biased_and_that_from_the_others_is_not_e11(s):
    f, score, _ = e11(s, 100_000)
    assert z_of(score_weighted(f, score, control_variate=True), -LAMBDA * MU) < Z_LIMIT
    same = (score * (f - control_coefficient(f, score))).mean(axis=0)
    assert z_of(same, -LAMBDA * MU) > Z_LIMIT
    assert z_of((score * (f - f.mean(axis=0))).mean(axis=0), -LAMBDA * MU) > Z_LIMIT  # nor does their plain mean serve


def test_coefficient_moves_with_a_constant_in_f_so_that_the_gradient_does_not():
    f, score, _ = e11(6, 50)
    assert_allclose(control_coefficient(f + 1000, score), control_coefficient(f, score) + 1000, rtol=1e-12)
    before, after = (score_weighted(f + constant, score, control_variate=True) for constant in (0, 1000))
    assert_allclose(after, before, atol=1e-9)
    assert_allclose(control_coefficient(f, 0 * score), f.mean(axis=0))  # and a score of zeros is not 0/0


def test_scores_are_autograds_partial_derivatives_of_log_q():
    generator = np.random.default_rng(0)
    mu, log_var, eps = generator.standard_normal(3), generator.standard_normal(3), generator.standard_normal((4, 3))
    z, log_q, dmu, dlog_var = factors(mu, log_var, eps)
    assert_allclose(z, mu + np.exp(log_var / 2) * eps)

    def density(m, v):
        return -0.5 * (anp.log(2 * np.pi) + v + (z - m) ** 2 / anp.exp(v))

    at = np.broadcast_to(mu, z.shape).copy(), np.broadcast_to(log_var, z.shape).copy()
    assert_allclose(log_q, density(*at), rtol=1e-12)
    assert relative(dmu, elementwise_grad(density, 0)(*at)) < 1e-10
    assert relative(dlog_var, elementwise_grad(density, 1)(*at)) < 1e-10


# Any log p: a correlated Gaussian target of which the gradient is known


J = 5
M = np.linspace(-1, 1, J)
PRECISION = 1.5 * np.eye(J) + 0.3
Q = np.linspace(0.5, -0.5, J), np.linspace(-1, 0.3, J)  # μ, log σ²
EXACT = np.concatenate([-PRECISION @ (Q[0] - M), 0.5 * (1 - np.diag(PRECISION) * np.exp(Q[1]))])


def log_target(z):
    """log p(x, z), its constant not 0."""
    return -0.5 * ((z - M) @ PRECISION * (z - M)).sum(axis=1) - 5


def markov_blankets(z):
    """For each z_j the terms of log_target with z_j in them, and the constant."""
    d, diagonal = z - M, np.diag(PRECISION)
    return -0.5 * diagonal * d**2 - d * (d @ PRECISION - diagonal * d) - 5


def gradients(kind, n=3000, s=20):
    """n draws of the gradient (∂/∂μ, ∂/∂log σ²), (n, 2 J)."""
    generator = np.random.default_rng(2)
    draws = (generator.standard_normal((s, J)) for _ in range(n))
    if kind == "path":
        return np.array([np.concatenate(path_gradient(lambda z: (M - z) @ PRECISION, *Q, eps)) for eps in draws])
    log_p = markov_blankets if kind[0] else log_target
    return np.array([np.concatenate(score_gradient(log_p, *Q, eps, kind[1])) for eps in draws])


def test_all_gradients_of_the_bound_are_unbiased_and_each_device_lowers_the_variance():
    found = {kind: gradients(kind) for kind in [*KINDS, "path"]}
    for kind, values in found.items():
        assert (z_of(values, EXACT) < Z_LIMIT).all(), kind
    entropy = np.concatenate([np.zeros(J), np.full(J, 0.5)])
    assert all((z_of(values, EXACT - entropy) > Z_LIMIT).any() for values in found.values())  # control: without -log q
    total = {kind: values.var(axis=0).sum() for kind, values in found.items()}
    naive, blackwell, control, both = (total[kind] for kind in KINDS)
    assert both < 0.8 * min(blackwell, control) and max(blackwell, control) < 0.8 * naive  # ratios are known to ~ 5 %
    assert total["path"] < 0.5 * both


def test_terms_outside_the_markov_blanket_change_the_naive_gradient_and_not_the_rao_blackwellised():
    eps = np.random.default_rng(0).standard_normal((6, J))
    more = np.random.default_rng(1).standard_normal((6, 1))  # a factor k of its own, drawn beside the others
    for log_p, same in [(markov_blankets, True), (log_target, False)]:

        def with_another(z, log_p=log_p):
            own = -2 * z[:, -1:] ** 2
            part = log_p(z[:, :-1])
            return np.hstack([part, own]) if part.ndim == 2 else part + own[:, 0]

        wide = score_gradient(with_another, *(np.append(p, 0.2) for p in Q), np.hstack([eps, more]), True)
        narrow = score_gradient(log_p, *Q, eps, True)
        assert np.allclose(np.array(wide)[:, :-1], np.array(narrow)) == same


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: score_gradient(log_target, *Q, e[:1], True), "there is 1 draw; a control variate takes 2 or more"),
        (lambda e: score_gradient(log_target, *Q, e[0]), r"and (5,); expected (J,), (J,) and (S, J) with S ≥ 1"),
        (lambda e: score_gradient(log_target, *Q, e[:0]), "and (0, 5); expected (J,), (J,) and (S, J) with S ≥ 1"),
        (lambda e: path_gradient(log_target, Q[0], Q[1][:2], e), "have shapes (5,), (2,) and (4, 5); expected"),
        (
            lambda e: score_gradient(lambda z: z[:, :2], *Q, e),
            "log_p(z) has shape (4, 2) for z (4, 5); expected",
        ),
        (lambda e: path_gradient(log_target, *Q, e), "dlog_p(z) has shape (4,) for z (4, 5); expected the same"),
        (
            lambda e: VAE(6, 5, 2, estimator=black_box, n_samples=2).bound(rows(), np.zeros((1, 7, 2)), 7, True),
            "there is 1 draw; a control variate takes 2 or more",
        ),
        (
            lambda e: VAE(6, 5, 2, estimator=black_box),
            "estimator is 'black-box', which needs 2 draws or more, and n_samples is 1: take n_samples=8 or so",
        ),
        (
            lambda e: VAE(6, 5, 2, estimator=partial(black_box, rao_blackwell=False)),
            "estimator partial black_box(rao_blackwell=False) failed on 7 rows with gradient=True (ValueError: there",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError) as error:
        call(np.zeros((4, J)))
    assert message in str(error.value) and "\n" not in str(error.value)


# A VAE's φ


def estimator(rao_blackwell, control_variate):
    return partial(black_box, rao_blackwell=rao_blackwell, control_variate=control_variate)


def gradient_of(model, x, eps, n_data):
    model.params.grad[...] = np.nan  # whatever stays NaN was never written
    bound = model.bound(x, eps, n_data, gradient=True)
    return bound, host(model.params.grad.copy())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
def test_value_and_thetas_gradient_are_those_of_l_a_draw_by_draw(likelihood, mean, kind):
    ours, theirs = (small(likelihood, mean, e, 3) for e in (estimator(*kind), "A"))
    eps = ours.noise(np.random.default_rng(0), 7)
    (bound, gradient), (expected, expected_gradient) = (gradient_of(m, rows(), eps, 40) for m in (ours, theirs))
    assert_allclose(bound, expected, rtol=1e-13)
    assert ours.bound(rows(), eps, 40) == bound
    assert_array_equal(gradient[ours.theta], expected_gradient[ours.theta])
    assert np.isfinite(gradient).all() and relative(gradient[ours.phi], expected_gradient[ours.phi]) > 0.01


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", KINDS)
def test_phis_gradient_is_each_draws_score_times_its_f(kind):
    """Written out sample by sample, with the coefficients of the other half."""
    model, x, n_data = small(estimator=estimator(*kind), n_samples=5), rows(), 40
    eps = model.noise(np.random.default_rng(0), 7)
    _, gradient = gradient_of(model, x, eps, n_data)
    mu, log_var = model.encode(x)
    sigma = np.exp(log_var / 2)
    z, h = mu + sigma * eps, np.stack([eps / sigma, (eps**2 - 1) / 2])
    log_px = np.stack([host(model.decoder.log_prob(*device((x, one[None])), gradient=False))[0] for one in z])
    own = -0.5 * z**2 + 0.5 * (log_var + eps**2)  # log p(z_mj) - log q(z_mj|x_m)
    f = log_px[..., None] + own if kind[0] else ((log_px + own.sum(-1)).sum(-1))[:, None, None] + 0 * z
    partials = np.zeros((2, 7, 2))
    for s in range(5):
        others = slice(2, None) if s < 2 else slice(None, 2)
        a = (h[:, others] ** 2 * f[others]).sum(1) / (h[:, others] ** 2).sum(1) if kind[1] else 0
        partials += h[:, s] * (f[s] - a) / 5
    model.encoder.forward(device(x))
    model.encoder.network.backward(*device(tuple(n_data / 7 * partials)))
    assert relative(gradient[model.phi], model.params.grad[model.phi]) < 1e-12


def phis(estimator, draws, seed=0, l=4):  # noqa: E741  the paper's L
    """So many draws of φ's gradient of one small VAE, one minibatch."""
    model = small(estimator=estimator, n_samples=l, n_hidden=3)
    x, generator, found = rows(3), np.random.default_rng([3, seed]), []
    for _ in range(draws):
        model.bound(x, model.noise(generator, 3), 3, gradient=True)
        found.append(model.params.grad[model.phi].copy())
    return np.array(found)


def test_phis_gradient_has_the_mean_of_the_pathwise_one_component_by_component_and_less_variance_by_each(monkeypatch):
    draws = 2000
    path, total = phis("A", draws, 1), {}
    for kind in KINDS:
        found = phis(estimator(*kind), draws)
        off = found.mean(axis=0) - path.mean(axis=0)
        z = np.abs(off) / np.sqrt((found.var(axis=0) + path.var(axis=0)) / draws)
        assert (z < Z_LIMIT).all(), kind
        total[kind] = found.var(axis=0).sum()
    naive, blackwell, control, both = total.values()
    assert both < 0.8 * min(blackwell, control) and max(blackwell, control) < 0.8 * naive  # ratios are known to ~ 5 %
    assert path.var(axis=0).sum() < 0.8 * both

    def same(f, score):
        return f - control_coefficient(f, score)

    module = importlib.import_module("scratchvae.inference.objectives.black_box")
    monkeypatch.setattr(module, "centred", same)  # control: the coefficient of the same samples
    found = phis(black_box, draws)
    off = found.mean(axis=0) - path.mean(axis=0)
    assert (np.abs(off) / np.sqrt((found.var(axis=0) + path.var(axis=0)) / draws)).max() > Z_LIMIT


@pytest.mark.usefixtures("backend")
def test_float32_stays_float32_and_agrees_with_float64_e22():
    single, double = (
        vae(64, 20, 5, estimator=black_box, n_samples=8, init=0.1, dtype=kind) for kind in ("float32", "float64")
    )
    double.params.value[...] = single.params.value
    x, eps = rows(20, 64).astype(np.float32), single.noise(np.random.default_rng(0), 20)
    ours, theirs = gradient_of(single, x, eps, 20), gradient_of(double, x.astype(float), eps.astype(float), 20)
    assert ours[0].dtype == np.float32 and abs(ours[0] - theirs[0]) / abs(theirs[0]) < 1e-5
    assert relative(ours[1], theirs[1]) < 1e-4  # f - a loses what f has in common: some digits of float32


def test_a_vae_trains_by_black_box_through_fit():
    data = load_data("digits")
    model = VAE(64, 20, 3, init="glorot", estimator=black_box, n_samples=8)
    history = fit(model, data.train, data.valid, optimizer=Adam(0.01), samples=10_000, progress=False)
    assert history["valid_bound"][-1] > -28.5  # seeds 0 to 2: -27.3 to -27.5, as by L^B; the start is at -45


def test_the_study_runs_on_a_small_scale(run_example, tmp_path):
    run_example("black_box", "--scale", "0.001", "--seeds", "1", "--jobs", "1", "--runs", "runs", "--results", ".")
    _, *table = (tmp_path / "black_box.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 2 * 5 and "nan" not in "".join(table)
    assert is_drawn(tmp_path / "black_box.png")


def test_black_box_takes_both_of_its_means_unless_told_otherwise():
    import inspect

    defaults = {name: p.default for name, p in inspect.signature(black_box).parameters.items()}
    assert defaults["gradient"] is defaults["rao_blackwell"] is defaults["control_variate"] is True
    model = vae(6, 5, 2, estimator=black_box, n_samples=8, init=0.5, dtype="float64")
    x, eps = rows(), model.noise(np.random.default_rng(0), 7)
    found = {None: gradient_of(model, x, eps, 7)[1].copy()}
    for pair in [(True, True), (True, False), (False, True), (False, False)]:
        model.estimator = partial(black_box, rao_blackwell=pair[0], control_variate=pair[1])
        found[pair] = gradient_of(model, x, eps, 7)[1].copy()
    np.testing.assert_array_equal(found[None], found[True, True])
    for pair in [(True, False), (False, True), (False, False)]:
        assert relative(found[None], found[pair]) > 1e-3
