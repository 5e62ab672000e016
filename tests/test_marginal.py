"""inference/marginal.py on models whose evidence is known: the linear VAE (E3), a quadrature, and appendix D (E13)."""

import numpy as np
import pytest
from conftest import rows, small
from numpy.testing import assert_allclose
from scipy import stats
from test_exact import linear_vae

from scratchvae import VAE
from scratchvae.inference import marginal
from scratchvae.inference.marginal import appendix_d, harmonic, importance, log_p_xz, pareto_k, quadrature


def evidence(orthogonal=False):
    """The linear VAE whose q is the best diagonal Gaussian, seven rows, and their exact log p(x)."""
    model, law, precision = linear_vae("B", 1, orthogonal)
    return model, rows(), law.logpdf(rows()), precision


def test_importance_is_exact_where_q_is_the_posterior():
    model, x, truth, _ = evidence(orthogonal=True)
    estimate = importance(model, x, 50)
    assert_allclose(estimate.log_p, truth, rtol=1e-12)
    assert estimate.error.max() < 1e-6 and (estimate.k_hat == -np.inf).all()
    assert_allclose(estimate.ess, 50)


def test_every_estimate_of_the_linear_vae_is_within_a_fiftieth_of_a_nat_of_its_evidence_e3():
    model, x, truth, _ = evidence()
    estimates = [importance(model, x, 20_000), appendix_d(model, x, 1500, thin=2)]
    estimates.append(appendix_d(model, x, 3000, "kernel", thin=2))
    for estimate in estimates:
        assert np.abs(estimate.log_p - truth).max() < 0.02
        assert (np.abs(estimate.log_p - truth) < 4.89 * estimate.error).all()
        assert estimate.k_hat.max() < 0.7
    assert np.abs(quadrature(model, x) - truth).max() < 1e-9


@pytest.mark.filterwarnings("ignore:k_hat is above")  # one of 200 may be
@pytest.mark.parametrize("what", ["importance", "gaussian", "kernel", "slow chains"])
def test_the_error_covers_the_truth_as_often_as_it_says_over_200_repeats(what):
    model, x, truth, _ = evidence()
    repeats = np.repeat(x[:1], 200, axis=0)  # the same datapoint 200 times, each with noise of its own
    if what == "importance":
        estimate = importance(model, repeats, 2000)
    elif what == "slow chains":  # every draw is almost the one before
        estimate = appendix_d(model, repeats, 1000, steps=1, thin=1)
    else:
        estimate = appendix_d(model, repeats, 200, what)
    inside = int((np.abs(estimate.log_p - truth[0]) < 1.96 * estimate.error).sum())
    assert 178 <= inside <= 199, inside  # 190 are expected: binomial, false alarms 1e-3
    narrow = int((np.abs(estimate.log_p - truth[0]) < 0.98 * estimate.error).sum())
    assert narrow < 178  # control: half the error does not cover it


def test_appendix_d_at_the_exact_posterior_has_no_spread_e13():
    model, x, truth, precision = evidence()
    generator = np.random.default_rng(0)
    mu = model.encode_mean(x)
    law = [stats.multivariate_normal(m, np.linalg.inv(precision)) for m in mu]
    z = np.stack([p.rvs(30, generator) for p in law], axis=1)
    terms = np.stack([p.logpdf(z[:, i]) for i, p in enumerate(law)], axis=1) - log_p_xz(model, x, z)
    assert_allclose(terms, np.broadcast_to(-truth, terms.shape), rtol=1e-12)
    assert_allclose(harmonic(terms).log_p, truth, rtol=1e-12)
    wide = [stats.multivariate_normal(m, 2 * np.linalg.inv(precision)) for m in mu]  # control: another q has a spread
    terms = np.stack([p.logpdf(z[:, i]) for i, p in enumerate(wide)], axis=1) - log_p_xz(model, x, z)
    assert terms.std(axis=0).min() > 0.1


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_on_two_latents_quadrature_importance_and_appendix_d_agree_where_k_hat_allows(likelihood):
    model, x = small(likelihood, init=0.25), rows(30)
    truth = quadrature(model, x, 201)
    assert_allclose(truth, quadrature(model, x, 161), atol=1e-8)
    for estimate in (importance(model, x, 20_000), appendix_d(model, x, 1000)):
        sure = estimate.k_hat < 0.7
        assert sure.sum() >= 5
        assert np.abs(estimate.log_p - truth)[sure].max() < 0.1
        assert (np.abs(estimate.log_p - truth) < 4.89 * estimate.error + 0.01)[sure].all()


@pytest.mark.filterwarnings("ignore:k_hat is above")  # this q is no good proposal, which is not the point here
def test_importance_with_one_sample_is_the_bound_and_grows_with_more_e12():
    model, x = small(), rows(200)
    means = [importance(model, x, k, seed=1).log_p.mean() for k in (1, 5, 50, 500)]
    assert (np.diff(means) > 0).all()
    eps = np.stack([np.random.default_rng([1, i]).standard_normal((1, 2)) for i in range(200)], axis=1)
    model.estimator = VAE(6, estimator="A").estimator
    assert_allclose(means[0], model.bound(x, eps, 200) / 200, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:k_hat is above")  # as above
def test_memory_is_bounded_and_chunks_change_nothing(monkeypatch):
    model, x = small(), rows(9)
    whole = importance(model, x, 100).log_p
    calls, log_prob = [], model.decoder.log_prob

    def counted(x, z, gradient):
        calls.append(z.shape[0] * z.shape[1])
        return log_prob(x, z, gradient)

    monkeypatch.setattr(model.decoder, "log_prob", counted)
    monkeypatch.setattr(marginal, "AT_ONCE", 40)
    assert_allclose(importance(model, x, 100).log_p, whole, rtol=1e-13)
    assert max(calls) <= 40
    assert_allclose(importance(model, x[:3], 100).log_p, whole[:3], rtol=1e-13)


def test_the_pareto_shape_is_that_of_known_tails():
    generator = np.random.default_rng(0)
    u = generator.random((20_000, 40))
    for k in (0.3, 0.7, 1.2):
        estimate = pareto_k(-k * np.log(u))  # w = u^-k: a Pareto tail of shape k
        assert abs(estimate.mean() - k) < 0.05 and estimate.std() < 0.12
    assert pareto_k(np.log(u)).max() < 0.2  # a bounded law
    assert np.isnan(pareto_k(np.log(u[:20]))).all()


def test_weights_without_variance_are_seen_by_k_hat():
    model, x, _, _ = evidence()
    model.params.named(model.params.value)["encoder.log_var.b"][...] -= 3  # q far too narrow
    with pytest.warns(UserWarning, match="k_hat is above 0.7 for 7 of 7 datapoints: do not trust those"):
        assert importance(model, x, 5000).k_hat.min() > 0.7


def test_bad_settings_are_refused_and_many_latents_warned_of():
    model, x = small(), rows()
    with pytest.raises(ValueError, match="n_samples is 0; expected a whole number ≥ 1"):
        importance(model, x, 0)
    with pytest.raises(ValueError, match="fit is 'spline'; expected 'gaussian' or 'kernel'"):
        appendix_d(model, x, fit="spline")
    with pytest.raises(ValueError, match="n_samples is 5; expected 20 or more, a multiple of the 5 chains"):
        appendix_d(model, x, 5)
    with pytest.raises(ValueError, match="quadrature is for 1 or 2 latent dimensions; this model has 3"):
        quadrature(small(n_latent=3), x)
    with pytest.warns(UserWarning, match="fewer than 5 latent dimensions; here are 5"):
        appendix_d(small(n_latent=5), x, 20, burn_in=50)
