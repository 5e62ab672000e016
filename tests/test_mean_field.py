"""inference/mean_field.py: coordinate ascent (E21), bounds against exact evidence, q against the prior (E17)."""

from itertools import product

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.scipy.special import digamma, gammaln
from conftest import is_drawn
from numpy.testing import assert_allclose
from scipy import stats

from scratchvae import load_data, plots
from scratchvae.inference.mean_field import CorrelatedGaussian, MixtureOfGaussians, UnivariateGaussian

PRIOR = {"mean": [0.5, -1], "mean_precision": 0.7, "degrees": 3.5, "scatter": [[2, 0.5], [0.5, 1]]}


def never_falls(bounds):
    return np.diff(bounds).min() >= -1e-12 * abs(bounds[-1])


def clusters(n=60, separation=8.0, seed=0):
    """n rows of three round clusters in two dimensions."""
    centres = separation * np.array([[0, 0], [1, 0], [0, 1]])
    return centres[np.arange(n) % 3] + np.random.default_rng(seed).standard_normal((n, 2))


# The correlated Gaussian


def test_correlated_gaussian_has_the_variances_gap_and_contraction_in_closed_form_e21():
    rho, start, m = 0.9, np.array([2.0, -1.0]), np.array([1.0, 3.0])
    Lambda = np.linalg.inv([[1, rho], [rho, 1]])
    q = CorrelatedGaussian(tol=1e-12).fit(m, Lambda, m + start)
    assert_allclose(q.var_, 0.19, rtol=1e-12)
    assert_allclose(q.mean_, m, atol=1e-5)
    assert_allclose(q.bound_[-1], -0.8304, atol=5e-5)
    t = np.arange(1, len(q.bound_) + 1)
    d = start[1] * np.array([rho ** (2 * t - 1), rho ** (2 * t)])  # μ - m after sweep t: each update multiplies by ρ
    assert_allclose(q.bound_, 0.5 * np.log(0.19) - 0.5 * (d * (Lambda @ d)).sum(axis=0), rtol=1e-12)
    assert never_falls(q.bound_)


def test_correlated_gaussian_of_any_dimension_is_the_best_of_all_factorised_ones():
    generator = np.random.default_rng(0)
    A, m = generator.standard_normal((5, 8)), generator.standard_normal(5)
    Lambda = A @ A.T
    q = CorrelatedGaussian(tol=1e-14).fit(m, Lambda)

    def neg_kl(parameters):  # between two Gaussians, written out
        mu, log_var = parameters
        square = anp.trace(Lambda @ anp.diag(anp.exp(log_var))) + (mu - m) @ Lambda @ (mu - m)
        return -0.5 * (square - 5 - anp.linalg.slogdet(Lambda)[1] - anp.sum(log_var))

    at = np.array([q.mean_, np.log(q.var_)])
    assert_allclose(q.bound_[-1], neg_kl(at), rtol=1e-12)
    assert np.abs(grad(neg_kl)(at)).max() < 1e-5 and never_falls(q.bound_)
    assert_allclose(q.bound_[-1], 0.5 * (np.linalg.slogdet(Lambda)[1] - np.log(np.diag(Lambda)).sum()), rtol=1e-10)


def test_correlated_gaussian_of_one_dimension_is_the_target_itself_with_no_gap():
    q = CorrelatedGaussian().fit([3.0], [[4.0]], [-1.0])
    assert (q.mean_, q.var_) == (3.0, 0.25) and q.bound_[-1] == 0
    assert q.mean_.shape == q.var_.shape == (1,)


# Unknown mean and precision


@pytest.mark.parametrize("n", [1, 2, 12])
def test_mean_and_precision_against_the_exact_normal_gamma_posterior_and_evidence(n):
    m0, kappa, a, b = 1.5, 0.3, 2.0, 0.8
    x = np.random.default_rng(n).normal(3, 2, n)
    q = UnivariateGaussian(m0, kappa, a, b, tol=1e-13).fit(x)
    # x is Student's t in N dimensions: the evidence; the posterior is Normal-Gamma(m0 …, κ + N, a + N/2, b_N)
    evidence = stats.multivariate_t(np.full(n, m0), b / a * (np.eye(n) + 1 / kappa), 2 * a).logpdf(x)
    mean, kappa_n, a_n = (kappa * m0 + x.sum()) / (kappa + n), kappa + n, a + n / 2
    b_n = b + 0.5 * ((x - x.mean()) ** 2).sum() + 0.5 * kappa * n / kappa_n * (x.mean() - m0) ** 2
    assert_allclose(q.mean_, mean)
    assert_allclose(q.a_ / q.b_, a_n / b_n, rtol=1e-6)  # E[τ] comes to be exact too
    assert_allclose(q.b_, b_n / (1 - 0.5 / q.a_), rtol=1e-6)

    # KL(q ‖ p) by quadrature over (μ, ln τ)
    mu = q.mean_ + np.linspace(-9, 9, 201)[:, None] / np.sqrt(q.precision_)
    log_tau = np.linspace(*np.log(stats.gamma(q.a_, scale=1 / q.b_).ppf([1e-15, 1 - 1e-13])), 801)
    tau = np.exp(log_tau)
    log_q = stats.norm(q.mean_, q.precision_**-0.5).logpdf(mu) + stats.gamma(q.a_, scale=1 / q.b_).logpdf(tau)
    log_p = stats.norm(mean, (kappa_n * tau) ** -0.5).logpdf(mu) + stats.gamma(a_n, scale=1 / b_n).logpdf(tau)
    cell = (mu[1, 0] - mu[0, 0]) * (log_tau[1] - log_tau[0])
    kl = (np.exp(log_q) * tau * (log_q - log_p)).sum() * cell
    assert kl > 0.01 and never_falls(q.bound_)
    assert_allclose(evidence - q.bound_[-1], kl, atol=1e-9)


# The mixture


def log_evidence(x, mean, mean_precision, degrees, scatter):
    """ln p(x) under one Gaussian, row after row: each is Student's t given those before it."""
    m, beta, nu, inverse_W, total = np.array(mean, float), mean_precision, degrees, np.array(scatter, float), 0.0
    for row in x:
        freedom = nu + 1 - len(m)
        total += stats.multivariate_t(m, (beta + 1) / (beta * freedom) * inverse_W, freedom).logpdf(row)
        inverse_W = inverse_W + beta / (beta + 1) * np.outer(row - m, row - m)
        m, beta, nu = (beta * m + row) / (beta + 1), beta + 1, nu + 1
    return total


def test_one_component_is_the_exact_posterior_and_its_bound_the_log_evidence():
    x = clusters(11)
    q = MixtureOfGaussians(1, **PRIOR).fit(x)
    assert_allclose(q.bound_, log_evidence(x, **PRIOR), rtol=1e-12)
    n, centre, m0, beta = 11, x.mean(axis=0), np.array(PRIOR["mean"]), 0.7
    S = np.cov(x.T, bias=True)
    assert_allclose(q.means_[0], (beta * m0 + n * centre) / (beta + n), rtol=1e-12)  # (10.61)
    scatter = PRIOR["scatter"] + n * S + beta * n / (beta + n) * np.outer(centre - m0, centre - m0)  # (10.62)
    assert_allclose(q.scatters_[0], scatter, rtol=1e-12)
    assert_allclose((q.mean_precision_, q.degrees_, q.weights_), [[0.7 + n], [3.5 + n], [1]])
    assert_allclose(q.covariances_[0], scatter / (3.5 + n), rtol=1e-12)


def joint(x, z, alpha, K, prior):
    """ln p(x, z), π and every Gaussian integrated out."""
    counts = np.bincount(z, minlength=K)
    log_pz = gammaln(K * alpha) - gammaln(K * alpha + len(x)) + (gammaln(alpha + counts) - gammaln(alpha)).sum()
    return log_pz + sum(log_evidence(x[z == k], **prior) for k in range(K))


@pytest.mark.parametrize("separation", [2.0, 60.0])
def test_the_bound_of_a_mixture_is_below_the_evidence_by_all_assignments_and_by_ln_2_at_least(separation):
    x, alpha, prior = clusters(7, separation)[[0, 1, 3, 4, 6]], 0.8, PRIOR | {"mean_precision": 1e-4}  # two clusters
    assignments = [np.array(z) for z in product(range(2), repeat=5)]
    log_joint = np.array([joint(x, z, alpha, 2, prior) for z in assignments])
    evidence = np.logaddexp.reduce(log_joint)
    for seed in range(4):
        q = MixtureOfGaussians(2, alpha, **prior, tol=1e-10).fit(x, seed=seed)
        assert q.bound_[-1] < evidence and never_falls(q.bound_)
        if separation > 10:  # q(Z) is certain: L = ln p(x, z) at its z, and another labelling is as good
            at = [np.array_equal(z, q.responsibilities_.argmax(axis=1)) for z in assignments].index(True)
            assert_allclose(q.bound_[-1], log_joint[at], rtol=1e-10)
            assert evidence - q.bound_[-1] > np.log(2)


def book(r, alpha, beta, m, nu, inverse_W, x, alpha0):
    """(10.70) as Bishop writes it, (10.71) to (10.77) one by one, for autograd."""
    D, K = x.shape[1], len(alpha)
    m0, beta0, nu0, W0 = np.array(PRIOR["mean"]), 0.7, 3.5, np.linalg.inv(PRIOR["scatter"])
    W, i = anp.linalg.inv(inverse_W), anp.arange(1, D + 1)

    def log_c(alpha):  # (B.23)
        return gammaln(anp.sum(alpha)) - anp.sum(gammaln(alpha))

    def log_b(W, nu):  # (B.79)
        log_gammas = anp.sum(gammaln((nu + 1 - i) / 2))
        return -nu / 2 * anp.linalg.slogdet(W)[1] - (
            nu * D / 2 * anp.log(2) + D * (D - 1) / 4 * anp.log(anp.pi) + log_gammas
        )

    log_pi = digamma(alpha) - digamma(anp.sum(alpha))
    log_det = anp.stack(
        [anp.sum(digamma((nu[k] + 1 - i) / 2)) + D * anp.log(2) + anp.linalg.slogdet(W[k])[1] for k in range(K)]
    )
    total = anp.sum(r * log_pi) - anp.sum(r * anp.log(r))  # (10.72) - (10.75)
    total = total + log_c(alpha0 * anp.ones(K)) + (alpha0 - 1) * anp.sum(log_pi)  # (10.73)
    total = total - anp.sum((alpha - 1) * log_pi) - log_c(alpha)  # (10.76)
    for k in range(K):
        d, d0 = x - m[k], m[k] - m0
        square = anp.sum((d @ W[k]) * d, axis=1)
        total = total + 0.5 * anp.sum(
            r[:, k] * (log_det[k] - D / beta[k] - nu[k] * square - D * anp.log(2 * anp.pi))
        )  # (10.71)
        total = total + 0.5 * (
            D * anp.log(beta0 / (2 * anp.pi)) + log_det[k] - D * beta0 / beta[k] - beta0 * nu[k] * (d0 @ W[k] @ d0)
        )  # (10.74), the mean
        total = total + log_b(W0, nu0) + (nu0 - D - 1) / 2 * log_det[k]
        total = total - 0.5 * nu[k] * anp.trace(np.linalg.inv(W0) @ W[k])  # (10.74), the precision
        entropy = -log_b(W[k], nu[k]) - (nu[k] - D - 1) / 2 * log_det[k] + nu[k] * D / 2
        total = total - (0.5 * log_det[k] + D / 2 * anp.log(beta[k] / (2 * anp.pi)) - D / 2 - entropy)  # (10.77)
    return total


def test_the_bound_is_the_books_term_by_term_and_each_factor_stands_at_its_maximum():
    x, alpha0 = clusters(30, separation=2.0), 0.6
    q = MixtureOfGaussians(3, alpha0, **PRIOR, max_iter=2)
    with pytest.warns(UserWarning, match="mean field has not converged to tol = 1e-06 in 2 sweeps"):
        q.fit(x)
    parameters = [q.concentration_, q.mean_precision_, q.means_, q.degrees_, q.scatters_]
    assert_allclose(q.bound_[-1], book(q.responsibilities_, *parameters, x, alpha0), rtol=1e-12)
    for index, value in enumerate(parameters, start=1):  # q(π, μ, Λ), given q(Z)
        slope = grad(book, index)(q.responsibilities_, *parameters, x, alpha0)
        assert np.abs(slope * value).max() < 1e-10, index
        assert np.abs(grad(book, index)(q.predict_proba(x), *parameters, x, alpha0) * value).max() > 1e-3  # control

    def of_logits(logits):
        e = anp.exp(logits)
        return book(e / anp.sum(e, axis=1, keepdims=True), *parameters, x, alpha0)

    assert np.abs(grad(of_logits)(np.log(q.predict_proba(x)))).max() < 1e-10  # q(Z), given q(π, μ, Λ)
    assert np.abs(grad(of_logits)(np.log(q.responsibilities_))).max() > 1e-3  # control: one step behind


def test_a_mixture_ends_where_scikit_learns_variational_mixture_does():
    from sklearn.mixture import BayesianGaussianMixture

    x = clusters(90, separation=3.5)
    ours = MixtureOfGaussians(3, 0.4, [1, 2], 0.5, 4, [[3, 1], [1, 2]], tol=1e-10).fit(x, seed=1)
    theirs = BayesianGaussianMixture(
        n_components=3,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=0.4,
        mean_prior=[1, 2],
        mean_precision_prior=0.5,
        degrees_of_freedom_prior=4,
        covariance_prior=[[3, 1], [1, 2]],
        reg_covar=0,
        tol=1e-13,
        max_iter=5000,
        random_state=0,
    ).fit(x)
    order, their_order = np.argsort(ours.means_ @ [1, 2]), np.argsort(theirs.means_ @ [1, 2])
    assert_allclose(ours.weights_[order], theirs.weights_[their_order], rtol=1e-5)
    assert_allclose(ours.means_[order], theirs.means_[their_order], rtol=1e-4)
    assert_allclose(ours.covariances_[order], theirs.covariances_[their_order], rtol=1e-4, atol=1e-6)
    assert_allclose(ours.predict_proba(x)[:, order], theirs.predict_proba(x)[:, their_order], atol=1e-5)


def test_components_that_no_data_need_empty_themselves_back_to_the_prior():
    x = clusters(90)
    q = MixtureOfGaussians(8).fit(x)
    n, m0 = q.responsibilities_.sum(axis=0), x.mean(axis=0)
    empty = n < 1e-3
    assert empty.sum() == 5
    assert_allclose(n[~empty], 30, atol=0.01)
    assert_allclose(q.means_[empty], np.tile(m0, (5, 1)), rtol=1e-3)
    assert_allclose(q.covariances_[empty], np.tile(np.cov(x.T, bias=True) / 2, (5, 1, 1)), rtol=1e-3)
    assert_allclose(q.weights_[empty], 1 / 8 / 91, rtol=1e-2)


def test_on_digits_the_bound_never_falls_and_responsibilities_sum_to_one():
    x = load_data("digits").train[:300, [20, 28, 36, 43]] / 16.0
    for seed in range(3):
        q = MixtureOfGaussians(6).fit(x, seed=seed)
        assert len(q.bound_) > 20 and never_falls(q.bound_)
        for r in (q.responsibilities_, q.predict_proba(x)):
            assert_allclose(r.sum(axis=1), 1, rtol=1e-12)
        assert_allclose(q.weights_.sum(), 1)
    again = MixtureOfGaussians(6).fit(x, seed=seed)
    assert np.array_equal(q.bound_, again.bound_) and np.array_equal(q.means_, again.means_)


def test_units_of_the_data_and_names_of_the_components_do_not_matter():
    x, A = clusters(60, separation=4.0), np.array([[100, 3.0], [0, 0.01]])
    one, other = MixtureOfGaussians(3).fit(x), MixtureOfGaussians(3).fit(x @ A + 5)
    assert_allclose(one.responsibilities_, other.responsibilities_, atol=1e-7)
    assert_allclose(one.bound_, other.bound_ + len(x) * np.linalg.slogdet(A)[1], rtol=1e-9)
    ends = [MixtureOfGaussians(3, tol=1e-10).fit(x, seed=seed) for seed in range(4)]
    assert len({tuple(q.responsibilities_[:3].argmax(axis=1)) for q in ends}) > 1  # other names
    assert_allclose([q.bound_[-1] for q in ends], ends[0].bound_[-1], rtol=1e-9)
    assert_allclose([np.sort(q.weights_) for q in ends], [np.sort(ends[0].weights_)] * 4, rtol=1e-5)


# E17


def misfit(ranks, draws):
    """χ² of ranks among so many draws against the uniform law, over its quantile at 1e-6: above 1 is a failure."""
    counts = np.bincount(ranks, minlength=draws + 1)
    expected = len(ranks) / (draws + 1)
    return ((counts - expected) ** 2).sum() / expected / stats.chi2.isf(1e-6, draws)


def draw(generator, m, beta, nu, inverse_W, n):
    """n draws of (μ (D,), Λ (D, D)) from N(μ; m, (β Λ)⁻¹) Wishart(Λ; W, ν), ν whole: a sum of ν outer products."""
    g = generator.standard_normal((n, nu, len(m))) @ np.linalg.cholesky(np.linalg.inv(inverse_W)).T
    Lambda = g.transpose(0, 2, 1) @ g
    root = np.linalg.cholesky(Lambda).transpose(0, 2, 1)  # Λ = R Rᵀ, and R⁻ᵀ ε has covariance Λ⁻¹
    return m + np.linalg.solve(root, generator.standard_normal((n, len(m), 1)))[..., 0] / np.sqrt(beta), Lambda


def test_simulation_based_calibration_of_one_component_whose_q_is_exact_e17():
    generator, draws, n = np.random.default_rng(0), 19, 6
    m0, beta, nu, scatter = np.array([0.5, -1]), 0.7, 4, np.array([[2, 0.5], [0.5, 1]])
    model = MixtureOfGaussians(1, mean=m0, mean_precision=beta, degrees=nu, scatter=scatter)
    ranks = []
    for _ in range(800):
        (mu,), (Lambda,) = draw(generator, m0, beta, nu, scatter, 1)
        root = np.linalg.cholesky(Lambda).T
        x = mu + np.linalg.solve(root, generator.standard_normal((2, n))).T
        q = model.fit(x)
        mus, Lambdas = draw(generator, q.means_[0], q.mean_precision_[0], round(q.degrees_[0]), q.scatters_[0], draws)
        halved = q.means_[0] + (mus - q.means_[0]) / np.sqrt(2)  # the control: half the variance
        scales = np.linalg.det(Lambdas) < np.linalg.det(Lambda)
        ranks.append([(mus[:, 0] < mu[0]).sum(), (mus[:, 1] < mu[1]).sum(), scales.sum(), (halved[:, 0] < mu[0]).sum()])
    *exact, control = (misfit(column, draws) for column in np.transpose(ranks))
    assert max(exact) < 1 < control, (exact, control)


def test_simulation_based_calibration_sees_that_mean_field_is_too_sure_e17():
    generator, draws, R = np.random.default_rng(0), 19, 800
    G, noise = np.array([[1.0, 0.9], [0.9, 1.0]]), 0.3  # x = G z + noise ε: z₁ and z₂ are correlated given x
    Lambda = np.eye(2) + G.T @ G / noise**2
    factors = []
    z, eps, posterior = (generator.standard_normal(shape) for shape in [(R, 2), (R, 2), (R, draws, 2)])
    means = np.linalg.solve(Lambda, G.T @ (z @ G.T + noise * eps).T / noise**2).T
    root = np.linalg.cholesky(np.linalg.inv(Lambda))
    for m in means:
        q = CorrelatedGaussian().fit(m, Lambda, m)
        factors.append((q.mean_, np.sqrt(q.var_)))
    mean, sd = np.moveaxis(factors, 1, 0)
    exact = (means[:, None] + posterior @ root.T < z[:, None]).sum(axis=1)
    ours = (mean[:, None] + sd[:, None] * posterior < z[:, None]).sum(axis=1)
    assert misfit(exact[:, 0], draws) < 1 < misfit(ours[:, 0], draws)


# What is refused, and what is drawn


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MixtureOfGaussians(0), "n_components is 0; expected a whole number ≥ 1"),
        (lambda: MixtureOfGaussians(2, tol=0), "tol is 0; expected a number > 0"),
        (lambda: MixtureOfGaussians(2, concentration=-1), "concentration is -1; expected a number > 0"),
        (lambda: MixtureOfGaussians(2, max_iter=0), "max_iter is 0; expected a whole number ≥ 1"),
        (lambda: MixtureOfGaussians(4).fit(clusters(3)), "x has 3 rows; expected at least as many as n_components, 4"),
        (lambda: MixtureOfGaussians(2).fit(clusters()[:, 0]), "x has shape (60,); expected (N, D), one datapoint per"),
        (lambda: MixtureOfGaussians(2).fit(clusters() * np.nan), "x has values that are not finite; expected numbers"),
        (lambda: MixtureOfGaussians(2).fit(clusters() * [1, 0]), "1 of the 2 columns of x never vary"),
        (lambda: MixtureOfGaussians(2).fit(clusters()[:, [0, 0]]), "the columns of x are linearly dependent"),
        (lambda: MixtureOfGaussians(3).fit(np.eye(2)[[0, 1, 1]]), "the columns of x are linearly dependent"),
        (lambda: MixtureOfGaussians(3).fit([[0.0], [1], [1]]), "x has 2 different rows; expected at least as many"),
        (lambda: MixtureOfGaussians(2, degrees=1).fit(clusters()), "degrees is 1; expected more than D - 1 = 1"),
        (lambda: MixtureOfGaussians(2, mean=[1]).fit(clusters()), "mean has shape (1,); expected (2,)"),
        (lambda: MixtureOfGaussians(2, scatter=-np.eye(2)).fit(clusters()), "scatter is not symmetric and positive"),
        (
            lambda: MixtureOfGaussians(2).fit(clusters(), start=np.ones((60, 2))),
            "start has rows that are no probabiliti",
        ),
        (
            lambda: MixtureOfGaussians(2).fit(clusters(), start=[[2, -1]] * 60),
            "start has rows that are no probabilities",
        ),
        (lambda: MixtureOfGaussians(2).predict_proba(clusters()), "this MixtureOfGaussians is not fitted yet"),
        (lambda: MixtureOfGaussians(2).fit(clusters()).predict_proba(np.eye(3)), "x has shape (3, 3); expected (N, 2)"),
        (lambda: UnivariateGaussian(kappa=0), "kappa is 0; expected a number > 0"),
        (lambda: UnivariateGaussian().fit([[1.0]]), "x has shape (1, 1); expected (1,)"),
        (lambda: UnivariateGaussian().fit([]), "x has shape (0,); expected (1,)"),
        (lambda: UnivariateGaussian().fit([1, np.inf]), "x has values that are not finite"),
        (lambda: CorrelatedGaussian().fit([0, 0], [[1, 2], [2, 1]]), "precision is not symmetric and positive"),
        (lambda: CorrelatedGaussian().fit([0, 0], [[1, 0.5], [0, 1]]), "precision is not symmetric and positive"),
        (lambda: CorrelatedGaussian().fit([0, 0], np.eye(3)), "precision has shape (3, 3); expected (2, 2)"),
        (lambda: CorrelatedGaussian().fit([0, 0], np.eye(2), [0]), "start has shape (1,); expected (2,)"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_given_scatter_allows_what_the_data_cannot_say():
    q = MixtureOfGaussians(2, scatter=np.eye(2)).fit(clusters() * [1, 0])
    assert never_falls(q.bound_) and np.isfinite(q.covariances_).all()


def test_ellipses_are_the_points_at_so_many_standard_deviations():
    means, covariances = np.array([[1.0, 2], [0, 0]]), np.array([[[2, 0.5], [0.5, 1]], [[0.1, 0], [0, 3]]])
    ax = plots.figure()[1]
    lines = plots.ellipses(ax, means, covariances, sd=1.5, color="C3")
    assert len(lines) == len(ax.lines) == 2
    for line, m, S in zip(lines, means, covariances, strict=True):
        d = line.get_xydata() - m
        assert_allclose((d @ np.linalg.inv(S) * d).sum(axis=1), 1.5**2)
        assert_allclose(d.max(axis=0), 1.5 * np.sqrt(np.diag(S)), rtol=1e-3)
        assert line.get_color() == "C3"


def test_the_mean_field_example_runs_on_a_small_scale(run_example, tmp_path):
    run_example("mean_field", "--scale", "0.1", "--results", "results")
    table = (tmp_path / "results" / "mean_field.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 1 + 2 and "-0.8304" in table[1]
    assert is_drawn(tmp_path / "results" / "mean_field.png")


def test_a_fall_of_the_bound_is_an_error_and_no_convergence():
    from scratchvae.inference.mean_field import _Ascent

    ascent = _Ascent(tol=1e-6)
    for bounds in ([-100, -50, -51], [-1e6, -5e5, -5e5 - 0.01], [-1, 0, -1e-8]):
        with pytest.raises(FloatingPointError, match=r"the bound fell by .* nats in sweep 3, which is no convergence"):
            ascent._ascend(iter(bounds).__next__)
        assert not hasattr(ascent, "bound_")
    for bounds in ([-100, -50, -50 - 1e-9], [-1e6, -5e5, -5e5 - 1e-5]):  # rounding
        ascent._ascend(iter(bounds).__next__)
        assert len(ascent.bound_) == 3


@pytest.mark.parametrize("offset", [1e6, 1e9, 1e12])
@pytest.mark.parametrize("scale", [2.0**-30, 1, 2.0**30, 2.0**330])
def test_where_the_data_lie_and_how_large_they_are_does_not_matter(offset, scale):
    x = np.round(clusters(60, separation=4.0) * 2**8) / 2**8  # far from 0 no digit of these is lost
    moved = (x + offset) * scale
    one, other = MixtureOfGaussians(3).fit(x), MixtureOfGaussians(3).fit(moved)
    assert_allclose(one.responsibilities_, other.responsibilities_, atol=1e-4)
    assert_allclose(one.bound_[-1], other.bound_[-1] + x.size * np.log(scale), rtol=1e-5, atol=1e-3)
    assert_allclose(other.means_, (one.means_ + offset) * scale, rtol=1e-6)
    assert_allclose(other.predict_proba(moved), other.responsibilities_, atol=1e-3)


def test_a_target_far_from_0_keeps_its_digits():
    Lambda = np.array([[2e6, 1.9e6], [1.9e6, 2e6]])
    q = CorrelatedGaussian(tol=1e-12).fit([1e9, -1e9], Lambda, [1e9 + 1, -1e9])
    gap = 0.5 * (np.log(np.diag(Lambda)).sum() - np.linalg.slogdet(Lambda)[1])
    assert_allclose(q.bound_[-1], -gap, atol=1e-8)
    assert never_falls(q.bound_)


@pytest.mark.parametrize("seed", [-1, 1.5, None, "0", True, np.zeros(3)])
def test_a_seed_is_a_whole_number_and_what_follows_x_has_a_name(seed):
    with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
        MixtureOfGaussians(2).fit(clusters(), seed=seed)
    with pytest.raises(TypeError, match="positional"):
        MixtureOfGaussians(2).fit(clusters(), seed)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (clusters() * 1e200, "squares that are not finite"),
        (clusters() * 1e-200, "squares that are not finite, or that are all 0"),
        (np.column_stack([clusters(), np.where(np.arange(60) % 2, 0.3, 0.1 + 0.2)]), "1 of the 3 columns of x never"),
    ],
)
def test_numbers_that_float64_cannot_square_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfGaussians(2).fit(x)


# Where a threshold is


def test_a_column_that_varies_by_eight_units_in_the_last_digit_never_varies_and_by_nine_it_does():
    other = np.random.default_rng(0).standard_normal(40)
    for units, message in [(8, "1 of the 2 columns of x never vary"), (9, None)]:
        x = np.column_stack([1 - units * np.finfo(float).eps * (np.arange(40) % 2), other])
        if message:
            with pytest.raises(ValueError, match=message):
                MixtureOfGaussians(1).fit(x)
        else:
            assert np.isfinite(MixtureOfGaussians(1).fit(x).bound_[-1])


def test_columns_depend_on_each_other_where_an_eigenvalue_of_their_correlations_is_below_1e_12(monkeypatch):
    a, b = np.random.default_rng(0).standard_normal((2, 500))
    for off, refused in [(2.0e-6, False), (5e-7, True)]:  # the lesser eigenvalue is about half of its square
        x = np.column_stack([a, a + off * b])
        if refused:
            with pytest.raises(ValueError, match="the columns of x are linearly dependent"):
                MixtureOfGaussians(1).fit(x)
        else:
            MixtureOfGaussians(1).fit(x)
    x = np.column_stack([a, b])
    for least, refused in [(1e-12, False), (np.nextafter(1e-12, 0), True)]:
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix, least=least: np.array([least, 1.0]))
        if refused:
            with pytest.raises(ValueError, match="the columns of x are linearly dependent"):
                MixtureOfGaussians(1).fit(x)
        else:
            MixtureOfGaussians(1).fit(x)


def test_the_degrees_of_a_wishart_exceed_the_columns_less_one():
    x = clusters()
    with pytest.raises(ValueError, match="degrees is 1; expected more than D - 1 = 1"):
        MixtureOfGaussians(2, degrees=1).fit(x)
    MixtureOfGaussians(2, degrees=np.nextafter(1.0, 2) + 1e-6).fit(x)


@pytest.mark.parametrize(
    ("bounds", "ended", "error"),
    [
        ([1.0, 1.5, 1.75], 3, None),  # 0.25 is no less than tol
        ([1.0, 1.5, 1.7499], 3, None),
        ([1.0, 1.2], 2, None),
        ([1.0, 1.25, 1.375], 3, None),
        ([2.0, 2 - 2e-9], 2, None),  # rounding: 1e-9 of the bound
        ([2.0, 2 - 2.1e-9], 2, "fell by 2.1e-09 nats in sweep 2"),
        ([0.5, 0.5 - 9e-10], 2, None),  # and 1e-9 nats where the bound is below 1
        ([0.5, 0.5 - 1.1e-9], 2, "fell by 1.1e-09 nats in sweep 2"),
        ([-np.inf], 1, "the bound is -inf after sweep 1"),
    ],
)
def test_an_ascent_ends_where_the_rise_is_less_than_tol_and_breaks_off_where_it_falls(bounds, ended, error):
    values = iter([*bounds, bounds[-1]])
    model = UnivariateGaussian(tol=0.25)
    if error:
        with pytest.raises(FloatingPointError, match=error):
            model._ascend(lambda: next(values))
        return
    model._ascend(lambda: next(values))
    rises = np.diff(model.bound_)
    assert (rises[:-1] >= 0.25).all() and rises[-1] < 0.25
    assert len(model.bound_) == (ended if bounds[-1] - bounds[-2] < 0.25 else ended + 1)


def test_an_ascent_that_begins_at_a_maximum_ends_after_one_sweep_and_elsewhere_it_does_not():
    x = clusters(90, separation=3.5)
    q = MixtureOfGaussians(3, tol=1e-10).fit(x, seed=1)
    for rounded in (1 - 5e-6, 1, 1 + 5e-6):  # rows that sum to nearly 1 are taken as what they are about
        again = MixtureOfGaussians(3).fit(x, start=rounded * q.predict_proba(x))
        assert again.converged_ and len(again.bound_) == 1
        assert_allclose(again.bound_[-1], q.bound_[-1], rtol=1e-11)
    other = MixtureOfGaussians(3).fit(x, start=np.roll(q.predict_proba(x), 1, axis=0))  # those of other rows
    assert len(other.bound_) > 1
    q.max_iter = 1
    with pytest.warns(UserWarning, match="has not converged"):
        q.fit(x, seed=1)  # k-means++ begins at no maximum, and one sweep shows no rise


def test_each_sweep_of_a_correlated_gaussian_sets_its_means_one_after_the_other_10_13():
    m = np.array([1.0, -2.0, 0.5])
    L = np.array([[2.0, 0.6, 0.2], [0.6, 1.5, -0.4], [0.2, -0.4, 1.0]])
    mu = np.array([3.0, 0.0, -1.0])
    with pytest.warns(UserWarning, match="has not converged"):
        model = CorrelatedGaussian(max_iter=1).fit(m, L, start=mu)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        mu[i] = m[i] - sum(L[i, j] * (mu[j] - m[j]) for j in others) / L[i, i]
    assert_allclose(model.mean_, mu, rtol=1e-12)
