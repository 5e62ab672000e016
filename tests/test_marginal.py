"""inference/marginal.py on models whose evidence is known: the linear VAE (E3), a quadrature, and appendix D (E13)."""

import warnings
from types import SimpleNamespace

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


@pytest.mark.filterwarnings("ignore:k_hat is above 0.5")  # of some of the seven
def test_every_estimate_of_the_linear_vae_is_within_a_fiftieth_of_a_nat_of_its_evidence_e3():
    model, x, truth, _ = evidence()
    estimates = [importance(model, x, 20_000), appendix_d(model, x, 1500, thin=2)]
    estimates.append(appendix_d(model, x, 3000, "kernel", thin=2))
    for estimate in estimates:
        assert np.abs(estimate.log_p - truth).max() < 0.02
        assert (np.abs(estimate.log_p - truth) < 4.89 * estimate.error).all()
        assert estimate.k_hat.max() < 0.7
    assert np.abs(quadrature(model, x) - truth).max() < 1e-9


@pytest.mark.filterwarnings("ignore:k_hat is above")  # some of 1,000 may be
@pytest.mark.parametrize("what", ["importance", "gaussian", "kernel", "slow chains"])
def test_the_error_covers_the_truth_as_often_as_it_says_over_1_000_repeats(what):
    model, x, truth, _ = evidence()
    repeats = np.repeat(x[:1], 1000, axis=0)  # the same datapoint 1,000 times, each with noise of its own
    if what == "importance":
        estimate = importance(model, repeats, 2000)
    elif what == "slow chains":  # every draw is almost the one before
        estimate = appendix_d(model, repeats, 1000, steps=1, thin=1)
    else:
        estimate = appendix_d(model, repeats, 500 if what == "gaussian" else 200, what)
    inside = int((np.abs(estimate.log_p - truth[0]) < 1.96 * estimate.error).sum())
    if what == "kernel":  # its intervals are too narrow, as its docstring says: 905 in three runs, here 880 to 930
        assert 880 <= inside <= 930, inside
        return
    assert 925 <= inside <= 975, inside  # 950 are expected: binomial, 3.6 standard deviations
    for factor in (0.75, 1.4):  # controls: too narrow, too wide
        wrong = int((np.abs(estimate.log_p - truth[0]) < 1.96 * factor * estimate.error).sum())
        assert not 925 <= wrong <= 975, wrong


def test_the_error_has_bessels_correction_and_one_draw_has_none():
    log_w = np.random.default_rng(0).standard_normal((3, 4))
    w = np.exp(log_w)
    _, error, ess = marginal.log_mean(log_w)
    assert_allclose(error, w.std(axis=0, ddof=1) / np.sqrt(3) / w.mean(axis=0))
    assert_allclose(ess, w.sum(axis=0) ** 2 / (w * w).sum(axis=0))
    model, x, _, _ = evidence()
    assert np.isnan(importance(model, x, 1).error).all()


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_the_bias_of_the_mean_is_told_to_first_order():
    model, x, truth, _ = evidence()
    estimate = importance(model, np.repeat(x[:1], 20_000, axis=0), 40)
    mean, error = estimate.mean()
    assert abs(mean + estimate.bias() - truth[0]) < 4.89 * error
    for factor in (0, 2):  # controls: without it, and twice
        assert abs(mean + factor * estimate.bias() - truth[0]) > 4.89 * error
    assert_allclose(error, estimate.log_p.std() / np.sqrt(20_000), rtol=0.2)  # for so few draws the error is too small


def two_modes():
    """x = |z| + noise of two pixels: p(z|x) has a mode on either side of 0, and q knows of one."""
    model = VAE(2, (2,), 1, "gaussian", "free", activation="relu", dtype="float64")
    model.params.value[...] = 0
    windows = model.params.named(model.params.value)
    windows["decoder.hidden.W"][...] = [[1, -1]]  # relu(z), relu(-z)
    windows["decoder.mu.W"][...] = 1
    windows["decoder.log_var.b"][...] = 2 * np.log(0.2)
    windows["encoder.mu.b"][...] = 1.5
    windows["encoder.log_var.b"][...] = 2 * np.log(0.15)
    return model, np.full((20, 2), 1.5)


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_appendix_d_sees_both_modes_where_q_knows_of_one(monkeypatch):
    model, x = two_modes()
    truth = quadrature(model, x)
    fair = appendix_d(model, x, 400, "kernel", chains=20)
    assert abs(fair.log_p.mean() - truth[0]) < 0.2  # one Gaussian width for two modes: a kernel too wide for either
    assert (fair.r_hat > 1.5).all()  # the chains stay where they began
    monkeypatch.setattr(marginal, "starts", lambda model, x, chains, _, ranks: np.full((chains, len(x), 1), 1.5))
    one_sided = appendix_d(model, x, 400, "kernel", chains=20)
    assert_allclose(one_sided.log_p - truth, -np.log(2), atol=0.1)  # control: half of the mass is missed
    assert (one_sided.error < 0.1).all() and (one_sided.r_hat < 1.1).all()  # and nothing tells


def test_starts_are_shared_out_in_proportion_to_the_mass_of_the_modes():
    model, x = two_modes()
    z = marginal.starts(model, x, 200, np.random.default_rng(0))
    assert z.shape == (200, 20, 1)
    assert abs((z > 0).mean() - 0.5) < 0.1  # 500 candidates of the prior: some 70 in either mode
    # In each mode p(z|x) is N(1.5/1.02, 0.02/1.02): the prior's precision is 1 and that of the two pixels 2/0.2² = 50.
    assert_allclose([np.abs(z).mean(), np.abs(z).std()], [1.4706, 0.14], atol=0.02)


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_thin_burn_in_and_steps_are_what_is_walked(monkeypatch):
    model, x, _, _ = evidence()
    calls, ordinary = [], marginal.sample

    def walk(target, z, generator, n_samples, burn_in, steps, comm):
        calls.append((len(z), n_samples, burn_in, steps))
        found = ordinary(target, z, generator, n_samples, burn_in, steps, comm=comm)
        walk.z = found.z
        return found

    seen = []
    monkeypatch.setattr(marginal, "sample", walk)
    monkeypatch.setattr(marginal, "split_r_hat", lambda draws: seen.append(draws) or np.ones(draws.shape[2:]))
    appendix_d(model, x, 40, burn_in=11, steps=3, thin=2, chains=4)
    assert calls == [(4 * 7, 2 * 10 * 2, 11, 3)]
    assert_allclose(seen[0], walk.z[1::2].reshape(20, 4, 7, 2))


def test_draws_that_are_all_alike_give_nan_and_a_warning(monkeypatch):
    def stuck(target, z, generator, n_samples, *_, comm):
        return SimpleNamespace(z=np.repeat(z[None], n_samples, axis=0))

    model, x, _, _ = evidence()
    monkeypatch.setattr(marginal, "sample", stuck)
    monkeypatch.setattr(marginal, "starts", lambda model, x, chains, _, ranks: np.zeros((chains, len(x), 2)))
    with pytest.warns(UserWarning, match="the draws of 7 of 7 datapoints are too much alike for a density"):
        assert np.isnan(appendix_d(model, x, 20).log_p).all()


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


@pytest.mark.filterwarnings("ignore:k_hat is above 0.5")  # those below 0.7 are what is looked at
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


def pareto_k_of_one(log_w):
    """k̂ of one column, by the formulas of the two papers, written out."""
    w = np.sort(np.exp(log_w - log_w.max()))
    n = int(np.ceil(min(len(w) / 5, 3 * np.sqrt(len(w)))))
    x = w[-n:] - w[-n - 1]
    m = 30 + int(np.sqrt(n))
    theta = [1 / x[-1] + (1 - np.sqrt(m / (i - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1]) for i in range(1, m + 1)]
    k_of = [np.mean(np.log(1 - t * x)) for t in theta]
    profile = [n * (np.log(-t / k) - k - 1) for t, k in zip(theta, k_of, strict=True)]
    weight = [1 / sum(np.exp(other - one) for other in profile) for one in profile]
    k = np.mean(np.log(1 - np.dot(theta, weight) * x))
    return (n * k + 10 * 0.5) / (n + 10)


@pytest.mark.parametrize("n", [21, 23, 25, 26, 30, 51, 99, 100, 226, 2000, 5001])
def test_k_hat_is_that_of_the_written_out_formulas(n):
    log_w = np.random.default_rng(n).standard_normal((n, 5)) * np.array([0.1, 0.5, 1, 2, 4])
    assert_allclose(pareto_k(log_w), [pareto_k_of_one(column) for column in log_w.T], rtol=1e-9)


def test_a_tail_is_a_single_point_below_1e_12_and_all_but_the_largest_are_negligible_below_1e_300():
    """Of 25 weights the tail is the 5 largest, measured from the sixth, and their first quartile is the least."""

    def k_hat(tail, sixth):
        weights = np.array([sixth] * 20 + tail)
        with np.errstate(divide="ignore"):  # a weight may be 0
            return pareto_k(np.log(weights)[:, None])[0]

    assert k_hat([1.0] * 5, 1 - 0.9e-12) == -np.inf
    assert np.isfinite(k_hat([1 - 0.9e-12, 1 - 0.7e-12, 1 - 0.4e-12, 1 - 0.2e-12, 1.0], 1 - 1.1e-12))
    assert k_hat([0.9e-300, 1e-200, 1e-100, 1e-50, 1.0], 0.0) == np.inf
    assert np.isfinite(k_hat([1.1e-300, 1e-200, 1e-100, 1e-50, 1.0], 0.0))


def test_the_threshold_of_k_hat_falls_with_the_number_of_terms():
    def threshold(n):
        return marginal.Estimate(*np.zeros((4, 1)), n).threshold()

    assert_allclose([threshold(n) for n in (50, 500, 5000)], [0.4114, 0.6295, 0.7], atol=1e-4)
    assert [threshold(n) for n in (1, 2, 9, 10)] == [0, 0, 0, 0]
    assert_allclose(threshold(11), 1 - 1 / np.log10(11), rtol=1e-12)
    assert 0 < threshold(11) < 0.04

    def estimate(n, *k_hat):
        return marginal.Estimate(*np.zeros((3, len(k_hat))), np.array(k_hat), n)

    assert estimate(500, 0.45, 0.62, 0.64, 0.75).untrusted().tolist() == [False, False, True, True]
    assert estimate(50, 0.41, 0.42, 0.6).untrusted().tolist() == [False, True, True]
    assert estimate(5000, 0.69, 0.71).untrusted().tolist() == [False, True]
    assert estimate(500, 0.45, 0.62, 0.64).unsure().tolist() == [False, True, False]
    assert not estimate(50, 0.41, 0.42, 0.6).unsure().any()  # the threshold is below ½ already
    at, above = threshold(500), np.nextafter(threshold(500), 1)
    assert estimate(500, at, above).untrusted().tolist() == [False, True]  # trusted up to the threshold itself
    assert estimate(500, 0.5, np.nextafter(0.5, 1), at, above).unsure().tolist() == [False, True, True, False]
    assert estimate(21, np.nan, -np.inf).untrusted().tolist() == [True, False]  # terms that are not finite
    assert not estimate(20, np.nan).untrusted().any()  # too few for a k_hat
    for n in (20, 500):
        log_p = np.array([np.nan, -np.inf, np.inf, 0])
        beyond = marginal.Estimate(log_p, *np.zeros((3, 4)), n)
        assert beyond.untrusted().tolist() == [True, True, True, False]


@pytest.mark.parametrize("draws", [100, 500])
def test_the_warning_follows_the_threshold_of_so_many_draws(monkeypatch, draws):
    model, x, _, _ = evidence()
    threshold = 1 - 1 / np.log10(draws)
    below, above = threshold - 0.01, threshold + 0.01
    monkeypatch.setattr(
        marginal, "pareto_k", lambda log_w: np.array([below, *[above] * 3, *[0.3] * 3])[: log_w.shape[1]]
    )
    text = f"^k_hat is above {threshold:.2g} for 3 of 7 datapoints: do not trust those"
    text += "; it is above 0.5 for 1 of 7 more: no variance is left" if draws == 500 else "$"
    with pytest.warns(UserWarning, match=text):
        importance(model, x, draws)


@pytest.mark.filterwarnings("ignore:k_hat is above 0.[67]")  # of those that are left out here
def test_between_a_half_and_the_threshold_the_intervals_cover_less_than_they_say_and_that_is_told():
    model, x, truth, _ = evidence()
    model.params.named(model.params.value)["encoder.log_var.b"][...] -= 0.85  # k = 1 - e^-0.85 = 0.57
    with pytest.warns(UserWarning, match="it is above 0.5 for .* more: no variance is left to their terms"):
        estimate = importance(model, np.repeat(x[:1], 1000, axis=0), 2000, seed=12)
    inside = np.abs(estimate.log_p - truth[0]) < 1.96 * estimate.error
    unsure = estimate.unsure()
    assert unsure.sum() > 300
    share = 0.6636  # of the 5,881 unsure ones among 12,000, with the seeds 0 to 11
    low, high = stats.binom.interval(1 - 1e-6, unsure.sum(), share)  # the false alarm rate is 1e-6
    assert low <= inside[unsure].sum() <= high
    assert not low <= 0.95 * unsure.sum() <= high  # control: what the intervals say
    assert not (estimate.unsure() & estimate.untrusted()).any()


def test_weights_without_variance_are_seen_by_k_hat():
    model, x, _, _ = evidence()
    model.params.named(model.params.value)["encoder.log_var.b"][...] -= 3  # q far too narrow
    with pytest.warns(UserWarning, match=r"k_hat is above 0.7 for 7 of 7 datapoints: do not trust those"):
        assert importance(model, x, 5000).k_hat.min() > 0.7
    model.params.named(model.params.value)["decoder.log_var.b"][...] = np.log(1e-6)  # all weight on one draw
    with pytest.warns(UserWarning, match="for 7 of 7 datapoints"):
        assert (importance(model, x, 500).k_hat > 0.7).all()


def test_warnings_count_the_datapoints_that_they_are_about():
    with pytest.warns(UserWarning, match="^2 of 3 datapoints are odd$"):
        marginal.warn(np.array([True, False, True]), "{} datapoints are odd")
    marginal.warn(np.zeros(3, bool), "{} datapoints are odd")  # none: no warning, which would be an error here


def test_an_integral_that_the_grid_does_not_settle_is_told():
    model, x, truth, _ = evidence()
    with pytest.warns(UserWarning, match="7 of 7 integrals are not settled by 21 points: take more"):
        quadrature(model, x, 21)
    assert_allclose(quadrature(model, x, 401), truth, atol=1e-9)


@pytest.mark.filterwarnings("ignore:k_hat is above", "ignore:4 of 7 integrals")  # of the four that are finite
@pytest.mark.parametrize("n_samples", [10, 100])
def test_what_is_not_finite_is_told_and_never_trusted(n_samples):
    model, x = small("gaussian", "free"), rows(7)
    x[:3] = 1e200
    with np.errstate(over="ignore"):
        with pytest.warns(UserWarning, match=r"^log p\(x\) of 3 of 7 datapoints is not finite: see whether") as said:
            estimate = importance(model, x, n_samples)
        assert [str(one.message)[:5] for one in said if "k_hat" not in str(one.message)] == ["log p"]
        assert np.isfinite(estimate.log_p).tolist() == [False] * 3 + [True] * 4
        assert estimate.untrusted()[:3].all()
        with pytest.warns(UserWarning, match=r"^log p\(x\) of 3 of 7 datapoints is not finite") as said:
            quadrature(model, x, 81)
        assert not any(" 7 integrals" in str(one.message) for one in said)
    model.params.value[...] = np.nan
    with pytest.warns(UserWarning, match=r"^log p\(x\) of 7 of 7 datapoints is not finite") as said:
        assert importance(model, x, n_samples).untrusted().all()
    assert len(said) == 1
    with pytest.warns(UserWarning, match=r"^log p\(x\) of 7 of 7 datapoints is not finite") as said:
        assert np.isnan(quadrature(model, x, 11)).all()
    assert len(said) == 1


def test_an_integral_that_half_of_the_points_miss_altogether_is_told(monkeypatch):
    monkeypatch.setattr(marginal, "log_p_xz", lambda model, x, grid: np.where(np.arange(5) % 2, 0.0, -np.inf))
    with pytest.warns(UserWarning, match="1 of 1 integrals are not settled by 5 points: take more"):
        quadrature(small(n_latent=1), rows(1), 5)


def test_bad_settings_are_refused_and_many_latents_warned_of():
    model, x = small(), rows()
    with pytest.raises(ValueError, match="n_samples is 0; expected a whole number ≥ 1"):
        importance(model, x, 0)
    with pytest.raises(ValueError, match=r"x has shape \(0, 6\); expected \(N, 6\) with N ≥ 1"):
        importance(model, x[:0])
    with pytest.raises(ValueError, match="x has values that are not finite"):
        appendix_d(model, np.full((2, 6), np.nan))
    with pytest.raises(ValueError, match="thin is 0; expected a whole number ≥ 1"):
        appendix_d(model, x, thin=0)
    with pytest.raises(ValueError, match=r"n_samples is 50\.5"):
        appendix_d(model, x, 50.5)
    for call in (importance, appendix_d):
        for seed in (-1, 0.5, None, True):
            with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
                call(model, x, seed=seed)
    with pytest.raises(ValueError, match="points is 1; expected a whole number ≥ 3"):
        quadrature(model, x, 1)
    with pytest.raises(ValueError, match="limit is -1"):
        quadrature(model, x, limit=-1)
    with pytest.raises(ValueError, match="fit is 'spline'; expected 'gaussian' or 'kernel'"):
        appendix_d(model, x, fit="spline")
    with pytest.raises(ValueError, match="n_samples is 5; expected 20 or more, a multiple of the 5 chains"):
        appendix_d(model, x, 5)
    with pytest.raises(ValueError, match="quadrature is for 1 or 2 latent dimensions; this model has 3"):
        quadrature(small(n_latent=3), x)
    with pytest.warns(UserWarning, match="fewer than 5 latent dimensions; here are 5"):
        appendix_d(small(n_latent=5), x, 20, burn_in=50)


def test_appendix_d_has_an_error_where_the_density_is_far_below_all_floats():
    model = VAE(1500, 3, 1, seed=0, dtype="float64")  # log p(x) is some -1500 ln 2, and e^1040 is no float
    x = np.random.default_rng(0).integers(0, 2, (2, 1500)).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few draws are not to be trusted
        estimate = appendix_d(model, x, 50, burn_in=20, thin=1)
    assert (estimate.log_p < -1000).all()
    assert (estimate.error > 0).all() and np.isfinite(estimate.error).all() and (estimate.error < 1).all()


def test_rows_with_the_same_number_have_the_same_draws():
    model = VAE(9, 5, 2, dtype="float64", seed=1, init="glorot")
    x = np.repeat(np.random.default_rng(0).random((1, 9)), 3, axis=0)
    apart = marginal.importance(model, x, 20).log_p
    assert len(set(apart)) == 3
    together = marginal.importance(model, x, 20, numbers=[0, 4, 0]).log_p
    assert together[0] == together[2] == apart[0] and together[1] not in apart
    with pytest.raises(ValueError, match="numbers has 2 entries; expected 3, one for each row"):
        marginal.importance(model, x, 20, numbers=[0, 1])
    with pytest.raises(ValueError, match="numbers is -1; expected a whole number ≥ 0"):
        marginal.importance(model, x, 20, numbers=[0, 1, -1])
