"""inference/full_vb.py and models/full_vb.py: appendix F against the oracle, exact regressions (E10), and its face."""

from types import SimpleNamespace

import numpy as np
import pytest
from autograd import grad
from conftest import LIKELIHOODS, relative, rows
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from scratchvae import VAE, Adagrad, FullVB, evaluate, fit, load_model, oracle
from scratchvae.backend import move
from scratchvae.gradcheck import check_layer, check_model
from scratchvae.inference import full_vb as inference
from scratchvae.inference.full_vb import (
    THETA_NOISE,
    Posterior,
    over_theta,
    over_theta_of_rows,
    theta_log_ratio,
    theta_neg_kl,
)
from scratchvae.inference.objectives.sgvb import sgvb_b
from scratchvae.nets.layers import Linear, LocalLinear
from scratchvae.nets.params import Params
from scratchvae.training.loop import evaluate_theta

FORMS = [("A", name, False) for name in THETA_NOISE if name != "local"]
FORMS += [("B", name, learned) for name in THETA_NOISE for learned in (False, True)]


def small(theta_noise="minibatch", estimator="B", learned=False, **settings):
    """A float64 FullVB 6-5-2 whose μ is of order one and whose σ is about a third."""
    settings = {"n_hidden": 5, "init": 0.5, "init_biases": True, "dtype": "float64", "log_sigma": -1.0} | settings
    arguments = {"theta_noise": theta_noise, "estimator": estimator, "learn_hyperprior": learned}
    return FullVB(6, n_latent=2, **arguments, **settings)


# Against the oracle


@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize(("estimator", "theta_noise", "learned"), FORMS)
def test_bound_and_every_gradient_array_equal_the_oracle_21_22_24(
    estimator, theta_noise, learned, likelihood, mean, monkeypatch
):
    settings = {"likelihood": likelihood, "mean": mean} | ({} if learned else {"alpha": 0.7})
    monkeypatch.setattr(inference, "BLOCK", 7)  # several blocks to an array, and a short last one
    for more in ({}, {"n_samples": 2, "n_hidden": (5, 4), "activation": "softplus"}, {"n_hidden": ()}):
        model = small(theta_noise, estimator, learned, **settings | more)
        checks = check_model(model, rows(5), n_data=40, points=1)
        assert len(checks) == 1 + len(model.params.windows)
        assert checks, checks


def test_the_local_layer_equals_the_oracle_and_central_differences():
    generator = np.random.default_rng(0)
    mean, spread, zeta = (
        Linear("mean", 4, 3),
        SimpleNamespace(name="spread", shapes={"W": (4, 3), "b": (3,)}),
        rows(5, 3),
    )

    class Local:
        """Both halves as one layer, with the noise that LocalLinear is given."""

        layers = (mean, spread)

        def forward(self, x):
            self.local = LocalLinear(*self.layers)
            self.local.zeta = zeta
            return self.local.forward(x)

        def backward(self, dy):
            return self.local.backward(dy)

    def naive(p, x):
        from autograd import numpy as anp

        sd = [anp.sqrt(anp.dot(row**2, anp.exp(p["spread.W"]) ** 2) + anp.exp(p["spread.b"]) ** 2) for row in x]
        return anp.dot(x, p["mean.W"]) + p["mean.b"] + anp.stack(sd) * zeta

    assert check_layer(Local(), generator.standard_normal((5, 4)), oracle=naive)


# Exact cases


def test_theta_kl_at_known_values_24():
    for mu, sigma, alpha, kl in [
        (0, 1, 1, 0),
        (1, 1, 1, 0.5),
        (0, np.e, 1, (np.e**2 - 3) / 2),
        (0, 1, 2, np.log(2) - 3 / 8),
    ]:
        value, *_ = theta_neg_kl(np.full(4, float(mu)), np.full(4, np.log(sigma)), np.float64(alpha**2))
        assert_allclose(value, -4 * kl, rtol=1e-14, atol=1e-14)


def test_theta_log_ratio_is_the_difference_of_two_normal_densities_21():
    generator = np.random.default_rng(0)
    mu, log_sigma, zeta = generator.standard_normal((3, 7))
    theta = mu + np.exp(log_sigma) * zeta
    ratio, *_ = theta_log_ratio(theta, zeta, log_sigma, np.float64(0.49))
    expected = stats.norm(0, 0.7).logpdf(theta) - stats.norm(mu, np.exp(log_sigma)).logpdf(theta)
    assert_allclose(ratio, expected.sum(), rtol=1e-13)


NOISE = 0.4  # σ of the regression


def log_likelihood(q, p, data, eps, scale, gradient=True):
    """Σ log N(y; X W + b, σ²), in place of `sgvb_b`: a model without latents, its θ the only unknown."""
    x, y = data[:, :-1], data[:, -1:]
    error = y - p.forward(x)
    if gradient:
        p.backward(scale * error / NOISE**2)
    return scale * stats.norm(0, NOISE).logpdf(error).sum()


class Regression:
    """Bayesian linear regression: its data, the best diagonal q(θ) in place, its evidence and the gap to the bound."""

    def __init__(self, orthogonal=False, n=12, alpha=0.8):
        generator = np.random.default_rng(5)
        X = generator.standard_normal((n, 3))
        X -= X.mean(axis=0)
        if orthogonal:
            X = np.linalg.qr(X)[0] * [1.0, 2.0, 0.5]
        y = X @ [1.0, -2.0, 0.5] + 0.3 + NOISE * generator.standard_normal(n)
        self.data = np.column_stack([X, y])
        design = np.column_stack([X, np.ones(n)])
        precision = np.eye(4) / alpha**2 + design.T @ design / NOISE**2  # Λ = Λ₀ + XᵀX/σ²
        self.mean, self.sd = np.linalg.solve(precision, design.T @ y) / NOISE**2, np.diag(precision) ** -0.5
        self.evidence = stats.multivariate_normal(None, NOISE**2 * np.eye(n) + alpha**2 * design @ design.T).logpdf(y)
        self.gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])

        mean = Linear("decoder", 3, 1)
        spread = SimpleNamespace(name="log_sigma", shapes=mean.shapes)
        self.drawn, self.params = Linear("decoder", 3, 1), Params([mean, spread], np.float64)
        self.q = Posterior(self.params, Params([self.drawn], np.float64), alpha)
        self.q.mu[...], self.q.log_sigma[...] = self.mean, np.log(self.sd)
        self.local = LocalLinear(mean, spread)
        self.local.local = [self.local]

    def at(self, zeta, closed=True):
        """(bound, gradient) at the draws zeta (S, P), all rows in the minibatch."""
        eps = np.zeros((1, len(self.data), 1))
        bound = over_theta(log_likelihood, None, self.drawn, self.q, self.data, eps, zeta, 1.0, closed=closed)
        return bound, self.params.grad.copy()

    def each(self, closed, zetas):
        """(bound, gradient) at each ζ: (24) with closed=True, else (21)."""
        for zeta in zetas:
            yield self.at(zeta[None], closed)


def sigma_points(p):
    """ζ = ±√p e_j: their mean is exactly the expectation of any polynomial of degree 3."""
    return np.sqrt(p) * np.vstack([np.eye(p), -np.eye(p)])


@pytest.mark.parametrize("closed", [False, True])
def test_bound_of_a_regression_is_its_evidence_less_the_stated_gap_and_stationary_there_e10(closed):
    regression = Regression()
    bounds, gradients = zip(*regression.each(closed, sigma_points(4)), strict=True)
    assert regression.gap > 0.01
    assert_allclose(np.mean(bounds), regression.evidence - regression.gap, rtol=1e-12)
    assert np.abs(np.mean(gradients, axis=0)).max() < 1e-10 * np.abs(gradients).max()
    regression.q.log_sigma[...] += 0.1  # control: at another σ it is neither
    bounds, gradients = zip(*regression.each(closed, sigma_points(4)), strict=True)
    assert np.mean(bounds) < regression.evidence - regression.gap - 0.01
    assert np.abs(np.mean(gradients, axis=0)).max() > 0.1


def test_bound_of_a_regression_with_orthogonal_columns_is_its_evidence_at_every_draw_e10():
    regression = Regression(orthogonal=True)
    assert regression.gap < 1e-12
    for bound, _ in regression.each(False, np.random.default_rng(0).standard_normal((5, 4))):
        assert_allclose(bound, regression.evidence, rtol=1e-12)  # log p(y, θ) - log q(θ), q the posterior


def test_local_reparameterisation_of_a_regression_has_the_same_exact_mean_e10():
    regression, n = Regression(), 12
    arguments = log_likelihood, None, regression.local, regression.q, regression.data, None
    bounds, gradients = [], []
    for zeta in (np.ones((n, 1)), -np.ones((n, 1))):  # exact for a quadratic in every row's one ζ
        bounds.append(over_theta_of_rows(*arguments, zeta, 1.0))
        gradients.append(regression.params.grad.copy())
    assert_allclose(np.mean(bounds), regression.evidence - regression.gap, rtol=1e-12)
    assert np.abs(np.mean(gradients, axis=0)).max() < 1e-10 * np.abs(gradients).max()


def test_ascending_the_bound_of_a_regression_finds_its_posterior_e10():
    regression = Regression()
    regression.q.mu[...], regression.q.log_sigma[...] = 0, -2
    step = np.concatenate([0.3 * regression.sd**2, np.full(4, 0.25)])  # the curvatures: 1/sd² in μ, 2 in log σ
    for _ in range(200):
        gradients = [gradient for _, gradient in regression.each(True, sigma_points(4))]
        regression.params.value += step * np.mean(gradients, axis=0)
    assert_allclose(regression.q.mu, regression.mean, rtol=1e-6)
    assert_allclose(np.exp(regression.q.log_sigma), regression.sd, rtol=1e-6)


def test_antithetic_draws_cancel_what_is_linear_in_zeta():
    regression = Regression()
    regression.data = np.concatenate([regression.data, regression.data])  # both halves the same: nothing else differs
    zeta = np.random.default_rng(1).standard_normal(4)

    def dmu(draws):
        regression.at(draws)
        return regression.q.dmu.copy()

    assert_allclose(dmu(np.stack([zeta, -zeta])), dmu(np.zeros((1, 4))), rtol=1e-10, atol=1e-10)
    assert np.abs(dmu(zeta[None]) - dmu(np.zeros((1, 4)))).max() > 1  # control


@pytest.mark.parametrize(("estimator", "theta_noise"), [form[:2] for form in FORMS if not form[2]])
def test_a_vanishing_sigma_gives_back_the_map_gradient_e10(estimator, theta_noise):
    model = small(theta_noise, estimator)
    model.posterior.log_sigma[...] = -35
    vae = VAE(6, 5, 2, estimator=estimator, dtype="float64")
    vae.params.value[...] = model.params.value[: vae.params.value.size]
    eps, zeta = model.noise(np.random.default_rng(0), 7)
    model.bound(rows(), (eps, zeta), 40, gradient=True)
    vae.bound(rows(), eps, 40, gradient=True)
    vae.add_log_prior_gradient()
    for name, window in vae.params.named(vae.params.grad).items():
        assert relative(model.params.window(name, model.params.grad), window) < 1e-12, name


@pytest.mark.parametrize(("estimator", "theta_noise", "learned"), FORMS)
def test_the_theta_terms_count_once_whatever_n_and_m_e10(estimator, theta_noise, learned):
    model = small(theta_noise, estimator, learned)
    for m in (1, 4, 7):
        noise = model.noise(np.random.default_rng(0), m)
        terms = 2 * model.bound(rows(m), noise, 40) - model.bound(rows(m), noise, 80)  # N (…) + terms, twice less once
        if estimator == "B":
            assert_allclose(terms, -model.theta_kl(), rtol=1e-11)
        else:
            q, zeta = model.posterior, noise[1]
            draws = np.concatenate([zeta, -zeta])[: min(m, 2)] if theta_noise == "antithetic" else zeta
            edges = [s * m // len(draws) for s in range(len(draws) + 1)]
            ratios = [theta_log_ratio(q.mu + np.exp(q.log_sigma) * z, z, q.log_sigma, 1.0)[0] for z in draws]
            assert_allclose(terms, np.dot(np.diff(edges), ratios) / m, rtol=1e-10)


@pytest.mark.parametrize("theta_noise", ["minibatch", "local"])
def test_minibatches_of_a_partition_average_to_the_whole_data_set_theta_kl_and_all_e9_e10(theta_noise):
    model, x, n = small(theta_noise), rows(10), 10
    eps, zeta = model.noise(np.random.default_rng(0), n)
    whole, total, gradient = model.bound(x, (eps, zeta), n, gradient=True), 0, 0
    expected = model.params.grad.copy()
    for start, stop in [(0, 4), (4, 8), (8, 10)]:
        part = zeta[start:stop] if theta_noise == "local" else zeta
        total += (stop - start) / n * model.bound(x[start:stop], (eps[:, start:stop], part), n, gradient=True)
        gradient = gradient + (stop - start) / n * model.params.grad
    assert_allclose(total, whole, rtol=1e-12)
    assert relative(gradient, expected) < 1e-12


def test_algorithm_2_as_printed_is_the_mean_over_datapoints_each_with_its_own_noise_22():
    for estimator in ("A", "B"):
        model, single = small("datapoint", estimator), small("minibatch", estimator)
        eps, zeta = model.noise(np.random.default_rng(0), 5)
        assert zeta.shape == (5, model.posterior.mu.size)
        x, gradient = rows(5), 0
        bound = model.bound(x, (eps, zeta), 40, gradient=True)
        each = []
        for i in range(5):
            each.append(single.bound(x[i : i + 1], (eps[:, i : i + 1], zeta[i : i + 1]), 40, gradient=True))
            gradient = gradient + single.params.grad / 5
        assert_allclose(bound, np.mean(each), rtol=1e-12)
        assert relative(model.params.grad, gradient) < 1e-12


def test_the_learned_alpha_maximises_the_bound_array_by_array():
    model = small(learned=True)
    q = model.posterior
    assert_allclose(np.square(list(model.alphas().values())), q.alpha2())
    assert list(model.alphas()) == [name for name in model.params.windows if name.startswith("decoder.")]
    for where, alpha2 in zip(q.arrays, q.alpha2(), strict=True):

        def neg_kl(factor, where=where, alpha2=alpha2):
            return theta_neg_kl(q.mu[where], q.log_sigma[where], factor * alpha2, False)[0]

        assert neg_kl(1.0) > max(neg_kl(0.99), neg_kl(1.01))
        assert abs(neg_kl(1 + 1e-4) - neg_kl(1 - 1e-4)) / 2e-4 < 1e-5  # flat there: ∂bound/∂α² = 0
        assert abs(neg_kl(1.1 + 1e-4) - neg_kl(1.1 - 1e-4)) / 2e-4 > 0.05  # control: and nowhere else


# Statistics


def test_all_forms_have_one_mean_and_the_local_one_less_variance_e10():
    x, draws = rows(8), 3000
    values, gradients = {}, {}
    models = {name: small(name, log_sigma=-1.5) for name in THETA_NOISE}
    models["A"] = small("minibatch", "A", log_sigma=-1.5)
    models["control"] = small("minibatch", log_sigma=-1.4)  # σ a tenth larger
    generator = np.random.default_rng(0)
    direction = generator.standard_normal(models["local"].params.value.size)
    for name, model in models.items():
        model.params.value[: model.theta.start] = models["local"].params.value[: model.theta.start]
        found = [
            (model.bound(x, model.noise(generator, 8), 8, gradient=True), model.params.grad.copy())
            for _ in range(draws)
        ]
        values[name], gradients[name] = np.array([v for v, _ in found]), np.array([g for _, g in found])

    def z(a, b):
        return np.abs(a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / draws)

    plain, local = models["minibatch"], gradients["local"]
    for name in ("antithetic", "local", "datapoint", "A"):
        assert z(values[name], values["minibatch"]) < 4.89
        assert z(gradients[name], gradients["minibatch"]).max() < 6  # of 100 entries
        assert z(gradients[name] @ direction, gradients["minibatch"] @ direction) < 4.89
    assert z(values["control"], values["minibatch"]) > 4.89
    for window in plain.params.named(np.arange(plain.params.value.size)).values():
        where = window.reshape(-1)
        assert local[:, where].var(0).sum() < gradients["minibatch"][:, where].var(0).sum()


def test_theta_samples_have_the_moments_of_q_e23():
    model = small()
    theta = np.array([s.params.value[s.theta] for s in map(model.theta_sample, range(2000))])
    q = model.posterior
    assert (np.abs(theta.mean(0) - q.mu) / np.exp(q.log_sigma) * np.sqrt(2000) < 5.5).all()
    assert (np.abs(theta.std(0) / np.exp(q.log_sigma) - 1) * np.sqrt(2 * 2000) < 5.5).all()
    assert_array_equal(model.theta_sample(3).params.value, model.theta_sample(3).params.value)
    zeta = (model.theta_sample().params.value[model.phi.stop :] - q.mu) / np.exp(q.log_sigma)
    assert not np.isclose(zeta[:4], np.random.default_rng(0).standard_normal(4)).any()  # nor the z of sample(seed=0)
    for seed in (-1, 1.5, "a"):
        with pytest.raises(ValueError, match="expected a whole number ≥ 0, or several"):
            model.theta_sample(seed)
    model.n_samples = 3
    assert model.theta_sample().n_samples == 3
    assert model.theta_sample().prior is False  # θ is drawn: to go on with its training is another model


def test_the_decoder_reads_theta_at_mu_plus_sigma_zeta_19_23(monkeypatch):
    monkeypatch.setattr(inference, "BLOCK", 7)
    model = small()
    q, noise = model.posterior, model.noise(np.random.default_rng(0), 7)
    model.bound(rows(), noise, 40)
    assert_allclose(q.theta.value, q.mu + np.exp(q.log_sigma) * noise[1][0], rtol=1e-15)


# Its face


@pytest.mark.parametrize(("estimator", "theta_noise", "learned"), FORMS)
def test_float32_stays_float32_and_every_gradient_is_written(estimator, theta_noise, learned):
    model = small(theta_noise, estimator, learned, dtype="float32", **({} if learned else {"alpha": 0.7}))
    model.params.grad[...] = np.nan
    noise = model.noise(np.random.default_rng(0), 7)
    bound = model.bound(rows().astype(np.float32), noise, np.int64(40), gradient=True)
    assert bound.dtype == np.float32 and noise[0].dtype == noise[1].dtype == np.float32
    assert np.isfinite(model.params.grad).all()
    twin = small(theta_noise, estimator, learned, **({} if learned else {"alpha": 0.7}))  # E22: in float64 the same
    twin.params.value[...] = model.params.value
    assert_allclose(bound, twin.bound(rows(), noise, 40, gradient=True), rtol=1e-5)
    for name, window in twin.params.named(twin.params.grad).items():
        assert relative(model.params.window(name, model.params.grad), window) < 1e-5, name
    model.params.grad[...] = 7
    assert model.bound(rows().astype(np.float32), noise, 40) == bound and (model.params.grad == 7).all()


@pytest.mark.parametrize(("theta_noise", "learned"), [("minibatch", False), ("antithetic", False), ("local", True)])
@pytest.mark.parametrize("schedule", ["joint", "alternating"])
def test_a_stopped_run_resumes_to_the_bit(theta_noise, learned, schedule, tmp_path):
    def go(name, samples, resume=False):
        model = small(theta_noise, learned=learned, dtype="float32")
        history = fit(
            model,
            rows(20),
            rows(9),
            samples=samples,
            batch_size=6,
            schedule=schedule,
            out=tmp_path / name,
            resume=resume,
        )
        return model, history

    unbroken, history = go("unbroken", 100)
    go("stopped", 37)
    resumed, again = go("stopped", 100, resume=True)
    assert_array_equal(resumed.params.value, unbroken.params.value)
    assert_array_equal(again["train_bound"], history["train_bound"])
    loaded = load_model(tmp_path / "stopped")
    assert type(loaded) is FullVB and loaded.config == unbroken.config
    assert_array_equal(loaded.params.value, unbroken.params.value)


def test_the_m_step_moves_mu_and_log_sigma_and_the_e_step_neither():
    model = small()
    before = model.params.value.copy()
    optimizer = Adagrad(0.1)
    optimizer.start(model.params)
    model.bound(rows(), model.noise(np.random.default_rng(0), 7), 40, gradient=True)
    optimizer.ascend(model.params, 1, model.theta)
    moved = {
        name: (window != model.params.window(name, before)).all()
        for name, window in model.params.named(model.params.value).items()
    }
    assert moved == {name: not name.startswith("encoder.") for name in moved}


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_ten_steps_equal_ten_steps_of_the_oracle_e24(estimator):
    model, optimizer = small(estimator=estimator), Adagrad(0.1)
    theirs = {name: window.copy() for name, window in model.params.named(model.params.value).items()}
    h = dict.fromkeys(theirs, 0.0)
    optimizer.start(model.params)
    for t in range(1, 11):
        noise = model.noise(np.random.default_rng(t), 7)
        model.bound(rows(), noise, 40, gradient=True)
        optimizer.ascend(model.params, t)
        g = grad(oracle.full_vb)(theirs, rows(), *noise, 40, "minibatch", estimator, likelihood="bernoulli")
        for name in theirs:
            h[name] = h[name] + g[name] ** 2
            theirs[name] = theirs[name] + 0.1 * g[name] / (np.sqrt(h[name]) + 1e-10)
    for name, window in model.params.named(model.params.value).items():
        assert_allclose(window, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("theta_noise", THETA_NOISE)
def test_an_estimator_of_ones_own_takes_the_place_of_l_b(theta_noise):
    def twice(*arguments):
        return 2 * sgvb_b(*arguments)

    twice.__name__ = "A"  # its name is no letter of the paper's
    ours, plain = small(theta_noise, twice), small(theta_noise)
    noise = ours.noise(np.random.default_rng(0), 7)
    a, b = ours.bound(rows(), noise, 40), plain.bound(rows(), noise, 40)
    assert_allclose(a + plain.theta_kl(), 2 * (b + plain.theta_kl()), rtol=1e-12)


@pytest.mark.parametrize("theta_noise", THETA_NOISE)
def test_the_number_of_z_is_that_of_the_noise(theta_noise):
    model, many = small(theta_noise), small(theta_noise, n_samples=3)
    noise = many.noise(np.random.default_rng(0), 7)
    assert model.bound(rows(), noise, 40) == many.bound(rows(), noise, 40)


@pytest.mark.parametrize(("estimator", "theta_noise", "learned"), FORMS)
def test_training_on_the_device_is_the_same_and_waits_for_nothing(estimator, theta_noise, learned, waits):
    ours, theirs = (small(theta_noise, estimator, learned, backend=backend) for backend in ("numpy", "cupy"))
    histories = [fit(model, rows(20), rows(9), samples=60, batch_size=6) for model in (ours, theirs)]
    assert_array_equal(move(theirs.params.value, "numpy"), ours.params.value)
    assert_array_equal(histories[0]["valid_bound"], histories[1]["valid_bound"])
    x = move(rows(6), "cupy")
    waits.count = 0
    for step in range(3):
        theirs.bound(x, theirs.noise(np.random.default_rng(step), 6), 20, gradient=True)
    assert waits.count == 0
    assert abs(theirs.theta_kl() / ours.theta_kl() - 1) < 1e-12
    assert_array_equal(
        move(theirs.theta_sample(1).decode(move(np.ones((2, 2)), "cupy")), "numpy"),
        ours.theta_sample(1).decode(np.ones((2, 2))),
    )
    assert_array_equal(theirs.to("numpy").params.value, ours.params.value)


def test_a_warm_start_takes_phi_and_mu_and_leaves_sigma():
    vae, model = VAE(6, 5, 2, seed=3), FullVB(6, 5, 2)
    fit(vae, rows(20), samples=100, batch_size=10)
    assert model.warm_start(vae) is model
    assert_array_equal(model.params.value[: vae.params.value.size], vae.params.value)
    assert (model.posterior.log_sigma == -4).all()
    x = rows(9).astype(np.float32)
    assert_array_equal(model.decode(model.encode_mean(x)), vae.reconstruct(x))
    other = FullVB(6, 5, 2, theta_noise="local", log_sigma=-2).warm_start(model)  # a FullVB brings its log σ
    assert_array_equal(other.params.value, model.params.value)
    before = evaluate(model, x)["bound"]
    history = fit(model, rows(20), samples=400, batch_size=10, optimizer=Adagrad(0.1))
    assert history["train_bound"][-1] > history["train_bound"][0] - 1 and evaluate(model, x)["bound"] != before


def test_evaluation_over_theta_is_the_bound_22_on_all_data():
    model = small()
    x = rows(30)
    result = evaluate_theta(model, x, n_theta=400, seed=1)
    each = [evaluate(model.theta_sample((1, k)), x, 1)["bound"] for k in range(400)]
    assert_allclose(result["bound_over_theta"], np.mean(each), rtol=1e-12)
    assert_allclose(result["bound_22"], result["bound_over_theta"] - model.theta_kl() / 30, rtol=1e-12)
    noise = [model.noise(np.random.default_rng(k), 30) for k in range(400)]
    training = [model.bound(x, n, 30) / 30 for n in noise]  # what is ascended has the same mean
    error = np.hypot(np.std(training), np.std(each)) / np.sqrt(400)
    assert abs(np.mean(training) - result["bound_22"]) < 4.89 * error
    assert result["theta_kl"] == model.theta_kl()
    other = evaluate_theta(model, x, n_theta=1, seed=2)["bound_over_theta"]
    assert other not in (each[0], each[1])  # another seed has other θ
    with pytest.raises(ValueError, match="model is a VAE; expected a FullVB"):
        evaluate_theta(VAE(6, 5, 2), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0}, "alpha is 0; expected a number > 0"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": True}, "alpha is True"),
        (
            {"alpha": 1e-23},
            "alpha is 1e-23; expected a number > 0, the standard deviation of p_α.θ., with a finite square",
        ),
        ({"alpha": 1e20}, "alpha is 1e.20"),
        ({"alpha": 0.5, "learn_hyperprior": True}, "alpha is 0.5, and learn_hyperprior learns it"),
        ({"log_sigma": float("inf")}, "log_sigma is inf; expected a number from -20 to 2"),
        ({"log_sigma": float("nan")}, "log_sigma is nan"),
        (
            {"log_sigma": float(np.nextafter(2.0, 3.0))},
            "log_sigma is 2.0000000000000004; expected a number from -20 to 2",
        ),
        ({"log_sigma": float(np.nextafter(-20.0, -21.0))}, "log_sigma is -20.0000"),
        ({"log_sigma": "small"}, "log_sigma is 'small'"),
        ({"theta_noise": "weights"}, "theta_noise is 'weights'; expected one of minibatch, antithetic"),
        ({"prior": True}, "prior is True; the bound .22. has"),
        ({"estimator": "A", "theta_noise": "local"}, "'local' draws no θ: take 'B'"),
        ({"estimator": "A", "learn_hyperprior": True}, "a learned α maximises .24.: take 'B'"),
        (
            {"estimator": "autoencoder"},
            "estimator is 'autoencoder', which has no bound over θ: take another, such as A",
        ),
        ({"theta_noise": "local", "likelihood": "isotropic"}, "for affine maps alone"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FullVB(6, 5, 2, **settings)


@pytest.mark.parametrize("log_sigma", [-20, 2])
def test_the_largest_and_the_smallest_log_sigma_are_taken(log_sigma):
    assert (FullVB(6, 5, 2, log_sigma=log_sigma).posterior.log_sigma == log_sigma).all()


def test_noise_and_warm_starts_of_another_shape_are_refused():
    model = FullVB(6, 5, 2)
    eps, zeta = model.noise(np.random.default_rng(0), 7)
    with pytest.raises(ValueError, match=r"zeta has shape \(1, 50\); expected \(1, 51\)"):
        model.bound(rows().astype(np.float32), (eps, zeta[:, :-1]), 40)
    for noise, name in [(eps, "ndarray"), ((eps,), "tuple"), ([eps, zeta, zeta], "list")]:
        with pytest.raises(ValueError, match=f"noise is {name}; expected the two arrays"):
            model.bound(rows().astype(np.float32), noise, 40)
    with pytest.raises(ValueError, match=r"start from has \(6, 4\) for encoder.hidden.W, this one \(6, 5\): give both"):
        model.warm_start(VAE(6, 4, 2))
    with pytest.raises(ValueError, match="start from has mean 'sigmoid', this one 'free'"):
        FullVB(6, (), 2, likelihood="gaussian", mean="free").warm_start(VAE(6, (), 2, likelihood="gaussian"))


def test_evaluation_over_theta_binarises_as_it_is_told():
    model, x = small(), rows(30)
    for binarization in ("grey", "dynamic"):
        each = [evaluate(model.theta_sample((1, k)), x, 1, binarization)["bound"] for k in range(3)]
        found = evaluate_theta(model, x, 3, 1, binarization)["bound_over_theta"]
        assert_allclose(found, np.mean(each), rtol=1e-12)
    assert abs(found - evaluate_theta(model, x, 3, 1)["bound_over_theta"]) > 1e-3  # grey by default
