"""Exact cases, no oracle needed: the linear VAE is probabilistic PCA (E3, E4), and quadrature in one latent (E7)."""

import numpy as np
import pytest
from conftest import device, host, relative, rows, small, vae
from numpy.testing import assert_allclose
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian

pytestmark = pytest.mark.usefixtures("backend")

VAR = 0.3  # σ² of the decoder


def linear_vae(estimator, n_samples, orthogonal):
    """The VAE without hidden layers whose q(z|x) is the best diagonal Gaussian, its evidence, and Λ = I + WᵀW/σ².

    Our W is the transpose of PPCA's: x = z W + m + σ ε, M = W Wᵀ + σ² I, posterior mean (x - m) Wᵀ M⁻¹.
    """
    generator = np.random.default_rng(3)
    W, m = generator.standard_normal((2, 6)), generator.standard_normal(6)
    if orthogonal:
        W[1] -= W[0] * (W[0] @ W[1]) / (W[0] @ W[0])
    model = vae(6, (), 2, "gaussian", "free", estimator, n_samples, dtype="float64")
    model.params.value[...] = 0
    M = W @ W.T + VAR * np.eye(2)
    to_mean = cho_solve(cho_factor(M), W).T
    precision = M / VAR  # Λ, the posterior's
    windows = model.params.named(model.params.value)
    windows["encoder.mu.W"][...], windows["encoder.mu.b"][...] = device((to_mean, -m @ to_mean))
    windows["encoder.log_var.b"][...] = device(-np.log(np.diag(precision)))
    windows["decoder.mu.W"][...], windows["decoder.mu.b"][...] = device((W, m))
    windows["decoder.log_var.b"][...] = np.log(VAR)
    return model, multivariate_normal(m, W.T @ W + VAR * np.eye(6)), precision


def sigma_points(m):
    """ε = ±√2 e_j for each datapoint: their mean is exactly the expectation of any polynomial of degree 3, J = 2."""
    points = np.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
    return np.repeat(points[:, None], m, axis=1)


def test_bound_of_the_linear_vae_is_the_ppca_evidence_where_the_posterior_is_diagonal_e3():
    x = rows()
    for estimator in ("A", "B"):
        model, evidence, _ = linear_vae(estimator, 4, orthogonal=True)
        assert_allclose(model.bound(x, sigma_points(7), 7), evidence.logpdf(x).sum(), rtol=1e-12)


def test_bound_of_the_linear_vae_misses_the_evidence_by_the_stated_gap_otherwise_e3():
    x = rows()
    for estimator in ("A", "B"):
        model, evidence, precision = linear_vae(estimator, 4, orthogonal=False)
        gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
        assert gap > 0.01
        assert_allclose(model.bound(x, sigma_points(7), 7), (evidence.logpdf(x) - gap).sum(), rtol=1e-12)


def test_a_is_the_evidence_in_every_draw_where_q_is_the_posterior_and_b_is_not_e4():
    x = rows()
    (a, evidence, _), (b, _, _) = (linear_vae(estimator, 1, orthogonal=True) for estimator in ("A", "B"))
    draws = [
        (a.bound(x, eps, 7), b.bound(x, eps, 7)) for eps in (a.noise(np.random.default_rng(s), 7) for s in range(50))
    ]
    assert_allclose([bound for bound, _ in draws], evidence.logpdf(x).sum(), rtol=1e-12)
    assert np.std([bound for _, bound in draws]) > 0.1  # "B has less variance than A" is no theorem


@pytest.mark.parametrize("exact", [True, False])
def test_pathwise_gradient_is_zero_in_every_draw_where_q_is_the_posterior_e4(exact):
    model, _, _ = linear_vae("A", 1, orthogonal=True)
    if not exact:  # control: a wrong q
        model.params.named(model.params.value)["encoder.log_var.b"][...] += 0.1
    x = rows()
    mu, log_var = model.encode(x)
    z = mu + np.exp(0.5 * log_var) * model.noise(np.random.default_rng(0), 7)
    model.decoder.log_prob(*device((x, z)))
    dz = host(model.decoder.backward(1.0)) + log_standard_gaussian(z)[1]  # ∂ log p(x, z)/∂z
    _, dmu, _ = log_gaussian(z, mu, log_var)
    path = dz + dmu  # ∂ log q/∂z = -∂ log q/∂μ
    assert (np.abs(path).max() < 1e-10) == exact


@pytest.mark.parametrize("exact", [True, False])
def test_full_gradient_of_phi_averages_to_zero_where_q_is_the_posterior_e4(exact):
    for estimator in ("A", "B"):
        model, _, _ = linear_vae(estimator, 4, orthogonal=True)
        if not exact:
            model.params.named(model.params.value)["encoder.log_var.b"][...] += 0.1
        model.bound(rows(), sigma_points(7), 7, gradient=True)
        assert (np.abs(host(model.params.grad[model.phi])).max() < 1e-10) == exact


# Quadrature: one latent dimension, a nonlinear decoder

NODES = np.linspace(-10, 10, 401)
STEP = NODES[1] - NODES[0]


def log_joint(model, x):
    """log p(x, z) at every node, (401, M)."""
    z = np.repeat(NODES[:, None, None], len(x), axis=1)
    return host(model.decoder.log_prob(*device((x, z)))) + log_standard_gaussian(z)[0]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_log_evidence_minus_bound_is_the_kl_to_the_posterior_by_quadrature_1_e7(likelihood):
    x = rows(3)
    model = small(likelihood, n_latent=1, n_samples=1)
    joint = log_joint(model, x)
    log_px = logsumexp(joint, axis=0) + np.log(STEP)
    mu, log_var = model.encode(x)
    log_q = log_gaussian(NODES[:, None, None], mu, log_var)[0]
    kl = (np.exp(log_q) * (log_q - joint + log_px)).sum(axis=0) * STEP
    assert kl.min() > 1e-3
    # the bound as our estimators give it: E over ε of each draw, by the same rule
    weights = np.exp(log_standard_gaussian(NODES[:, None])[0]) * STEP
    for estimator in ("A", "B"):
        model.estimator = small(estimator=estimator).estimator
        bound = [
            sum(
                w * model.bound(x[i : i + 1], np.full((1, 1, 1), eps), 1) for eps, w in zip(NODES, weights, strict=True)
            )
            for i in range(3)
        ]
        assert_allclose(log_px - bound, kl, rtol=0, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_gradient_of_the_log_evidence_is_its_posterior_mean_fishers_identity_e7(likelihood):
    x = rows(3)
    model = small(likelihood, n_latent=1)
    joint = log_joint(model, x)
    posterior = np.exp(joint - logsumexp(joint, axis=0))  # of each node, (401, M)
    model.decoder.backward(device(posterior))
    ours = host(model.params.grad[model.theta].copy())
    theta, differences = model.params.value[model.theta], np.empty_like(ours)
    for k in range(len(theta)):
        before, values = float(theta[k]), []
        for h in (1e-5, -1e-5):
            theta[k] = before + h
            values.append(logsumexp(log_joint(model, x), axis=0).sum())
        theta[k] = before
        differences[k] = (values[0] - values[1]) / 2e-5
    assert relative(ours, differences) < 1e-8
