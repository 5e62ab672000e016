"""Mean field by coordinate ascent: q(z) = Π_i q_i(z_i), in which one factor at a time is set to its best.

All equations are those of C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), chapter 10. The bound is

    L = E_q[ln p(x, z)] + H(q) = ln p(x) - KL(q ‖ p(z|x)),

and with the other factors held it is largest at ln q_i = E_{j≠i}[ln p(x, z)] + const (10.9). There

    L = Σ_{j≠i} H(q_j) + ln ∫ exp(E_{j≠i}[ln p(x, z)]) dz_i,

so the normaliser of the factor that was updated last is nearly all of the bound. No update can lower the bound, and
none needs a gradient or a draw.

Data are rows x (N, D), one datapoint per row, in host memory. They are taken as the numbers they are, uint8 too, and
everything is computed in float64. Each of the models takes `tol` and `max_iter`. A sweep updates every factor once; the
ascent ends when a sweep raises L by less than `tol` nats, or after `max_iter` sweeps, with a warning. A fall of L by
more than rounding is no convergence, and raises a FloatingPointError. `fit` returns the model itself, and leaves L
after every sweep in `bound_`, in nats, summed over the datapoints.
"""

import math
import warnings

import numpy as np
from scipy.special import digamma, entr, gammaln, logsumexp, multigammaln, softmax

from scratchvae.arguments import finite_array, fitted, flag, positive, positive_definite, whole
from scratchvae.backend import plain
from scratchvae.inference.distributions import LOG_2PI
from scratchvae.models.moments import FLOOR, LARGEST, TINY, centred

ROUNDING = 1e-9  # of the bound, or nats where the bound is below 1: a fall that is larger is none of rounding


class _Ascent:
    """What the models share: when the ascent of the bound ends, and the ascent itself.

    After `fit`, converged_ says whether it has ended by itself.
    """

    convergence_warning = UserWarning  # the class of the warning of an ascent that has not

    def __init__(self, tol=1e-9, max_iter=10_000):
        self.tol = positive("tol", tol)
        self.max_iter = whole("max_iter", max_iter)

    def _ascend(self, sweep, before=-math.inf):
        """Call `sweep` until the bound that it returns rises by less than tol, and keep all of these bounds.

        before is the bound at the start, where it is known. Where it is not, the first sweep cannot end the ascent.
        """
        bounds = []
        for _ in range(self.max_iter):
            bounds.append(float(sweep()))
            if not math.isfinite(bounds[-1]):
                raise FloatingPointError(f"the bound is {bounds[-1]} after sweep {len(bounds)}: check the prior")
            if before - bounds[-1] > ROUNDING * max(1, abs(before)):
                raise FloatingPointError(
                    f"the bound fell by {before - bounds[-1]:.2g} nats in sweep {len(bounds)}, which is no "
                    "convergence: scale the data and the prior so that their numbers are of like size"
                )
            if bounds[-1] - before < self.tol:
                self.converged_ = True
                break
            before = bounds[-1]
        else:
            self.converged_ = False
            text = f"mean field has not converged to tol = {self.tol:g} in {self.max_iter:,} sweeps: raise max_iter"
            warnings.warn(text, self.convergence_warning, stacklevel=3)
        self.bound_ = np.array(bounds)


class CorrelatedGaussian(_Ascent):
    """Approximates a Gaussian whose coordinates are correlated by one whose coordinates are not (section 10.1.2).

    The target is p(z) = N(m, Λ⁻¹) and the approximation q(z) = Π_i N(z_i; mean_i, var_i). After `fit`, mean_ (D,) has
    converged to m. var_ (D,) is 1/Λ_ii, the variance of z_i when all other coordinates are known, and so too small.
    """

    def fit(self, mean, precision, start=None):
        """Fit q to the target N(m, Λ⁻¹) and return the model.

        The target is normalised, so that ln p(x) = 0 and L = -KL(q ‖ p).

        mean        is m, (D,).
        precision   is Λ, (D, D), symmetric and positive definite.
        start       holds the means (D,) at which the ascent begins, zeros unless given.

        Other shapes, numbers that are not finite and a matrix that is no precision raise a ValueError.
        """
        m = finite_array("mean", mean, (max(np.size(mean), 1),))
        Lambda, root = positive_definite("precision", precision, len(m))
        apart = (
            0 if start is None else finite_array("start", start, m.shape)
        ) - m  # μ - m, which has no offset to lose
        gap = 0.5 * (np.log(np.diag(Lambda)).sum() - 2 * np.log(np.diag(root)).sum())  # ½ (Σ ln Λ_ii - ln|Λ|)

        def sweep():
            for i in range(len(m)):
                # μ_i = m_i - Λ_ii⁻¹ Σ_{j≠i} Λ_ij (μ_j - m_j)                                                    (10.13)
                apart[i] -= Lambda[i] @ apart / Lambda[i, i]
            return -gap - 0.5 * apart @ Lambda @ apart

        self._ascend(sweep)
        self.mean_ = m + apart
        self.var_ = 1 / np.diag(Lambda)  # the same after every sweep                                           (10.12)
        return self


class UnivariateGaussian(_Ascent):
    """Approximates the posterior of the mean and precision of a Gaussian by q(μ) q(τ) (section 10.1.3).

    It is no estimator of scikit-learn: `fit` takes x alone, without y.

    The model is x_n ~ N(μ, 1/τ) with the priors p(μ|τ) = N(mean, 1/(κ τ)) and p(τ) = Gamma(a, rate b). Its posterior
    is known exactly, for comparison: there, unlike in q, the spread of μ depends on τ.

    mean    is the prior mean of μ, 0 unless given.
    kappa   is κ, how many datapoints the prior mean counts for; 1 unless given.
    a, b    are the shape and the rate of the prior of τ, 1 each unless given.

    After `fit`, q(μ) = N(mean_, 1/precision_) and q(τ) = Gamma(a_, b_). Unless kappa, a and b are > 0, a ValueError is
    raised.
    """

    def __init__(self, mean=0.0, kappa=1.0, a=1.0, b=1.0, tol=1e-9, max_iter=10_000):
        super().__init__(tol, max_iter)
        self.mean = float(finite_array("mean", mean, ()))
        self.kappa = positive("kappa", kappa)
        self.a = positive("a", a)
        self.b = positive("b", b)

    def fit(self, x):
        """Fit q to numbers x (N,) and return the model; other shapes and values not finite raise a ValueError."""
        x = finite_array("x", x, (max(np.size(x), 1),))
        if np.abs(x).max() > LARGEST:
            raise ValueError(f"x has values up to {np.abs(x).max():g}, whose squares are not finite: divide it")
        N = len(x)
        kappa_n = self.kappa + N
        self.mean_ = (self.kappa * self.mean + x.sum()) / kappa_n  # (10.26)
        self.a_ = self.a + (N + 1) / 2  # (10.29), with another ½ since p(μ|τ) has a factor √τ too
        square = ((x - self.mean_) ** 2).sum() + self.kappa * (self.mean_ - self.mean) ** 2
        log_prior = 0.5 * (math.log(self.kappa) - (N + 1) * LOG_2PI) + self.a * math.log(self.b) - gammaln(self.a)
        self.b_ = self.a_ * self.b / self.a  # the ascent begins with E[τ] as in the prior

        def sweep():
            self.precision_ = kappa_n * self.a_ / self.b_  # λ = (κ0 + N) E[τ]                                   (10.27)
            self.b_ = self.b + 0.5 * (square + kappa_n / self.precision_)  # E[(μ - μ_N)²] = 1/λ                 (10.30)
            entropy = 0.5 * (1 + LOG_2PI - math.log(self.precision_))  # of q(μ)
            log_z = gammaln(self.a_) - self.a_ * math.log(self.b_)  # ∫ τ^(a-1) exp(-b τ) dτ = Γ(a)/bᵃ
            return entropy + log_prior + log_z

        self._ascend(sweep)
        return self


class MixtureOfGaussians(_Ascent):
    """Fits a mixture of K Gaussians whose parameters are all unknown, with q(Z) q(π, μ, Λ) (section 10.2).

    As an estimator of scikit-learn it is `scratchvae.sklearn.MixtureOfGaussians`.
    Here `fit` takes x, without y, and seed by its name.

        π ~ Dirichlet(α0),   Λ_k ~ Wishart(W0, ν0),   μ_k ~ N(m0, (β0 Λ_k)⁻¹),   z_n ~ π,   x_n ~ N(μ_{z_n}, Λ_{z_n}⁻¹)

    n_components     is K, the number of components, or an upper limit on it where `concentration` is small.
    concentration    is α0 of every component, 1/K unless given. Below 1 it leaves components empty that the data do
                     not need; above 1 it keeps the weights alike.
    mean             is m0, (D,), the mean of the data unless given.
    mean_precision   is β0, how many datapoints m0 counts for; 1 unless given.
    degrees          is ν0, D unless given. It must exceed D - 1, and the larger it is, the closer the covariances of
                     the components stay to their prior.
    scatter          is W0⁻¹, (D, D), the covariance of the data unless given; then the units of the data do not matter.
    allow_singular   says whether a scatter that is singular is taken, and fewer than K different rows with it; False
                     unless given. With True `FLOOR` of the variance of each column is added to such a scatter, or
                     `TINY` where a column never varies, with a warning.

    After `fit`, q(π) = Dirichlet(concentration_ (K,)), and weights_ (K,) is E[π]. q(μ_k, Λ_k) has means_ (K, D),
    mean_precision_ (K,), degrees_ (K,) and scatters_ (K, D, D) = W_k⁻¹; covariances_ (K, D, D) is E[Λ_k]⁻¹ = W_k⁻¹/ν_k.
    q(Z) is responsibilities_ (N, K). The bound has many maxima: fit with several seeds and keep the highest bound_[-1].
    """

    def __init__(
        self,
        n_components,
        concentration=None,
        mean=None,
        mean_precision=1.0,
        degrees=None,
        scatter=None,
        tol=1e-6,
        max_iter=10_000,
        *,
        allow_singular=False,
    ):
        super().__init__(tol, max_iter)
        self.allow_singular = flag("allow_singular", allow_singular)
        self.n_components = whole("n_components", n_components)
        self.concentration = positive("concentration", 1 / n_components if concentration is None else concentration)
        self.mean = mean
        self.mean_precision = positive("mean_precision", mean_precision)
        self.degrees = degrees
        self.scatter = scatter

    def fit(self, x, *, seed=0, start=None):
        """Fit q to rows x (N, D) and return the model.

        The ascent begins at the responsibilities `start` (N, K), such as another fit's `predict_proba(x)`. If they are
        at a maximum, it ends after one sweep. Unless they are given, k-means++ draws K rows with `seed`, a whole number
        ≥ 0, and the ascent begins with each row assigned to the nearest of them.

        Fewer than K different rows, numbers that are not finite, a start of numbers that are no probabilities, and
        priors that do not fit the columns of x raise a ValueError. If no scatter is given, so do columns that never
        vary or depend on each other linearly.
        """
        seed = whole("seed", seed, least=0)
        x = self._rows(x)
        D = x.shape[1]
        scatter = _covariance(x, self.allow_singular) if self.scatter is None else self.scatter
        origin = x[0].copy()  # x and the means are counted from here, since numbers that are far from 0 lose digits
        x = x - origin
        m0 = x.mean(axis=0) if self.mean is None else finite_array("mean", self.mean, (D,)) - origin
        nu0 = positive("degrees", D if self.degrees is None else self.degrees)
        if nu0 <= D - 1:
            raise ValueError(f"degrees is {nu0:g}; expected more than D - 1 = {D - 1}")
        scatter = _lifted(scatter) if self.allow_singular else scatter
        scatter0, root = positive_definite("scatter", scatter, D)
        prior = (self.concentration, m0, self.mean_precision, nu0, scatter0)
        goes_on = start is not None
        if not goes_on:
            white = np.linalg.solve(root, x.T).T  # x in units of the prior's scatter, in which distances are taken
            start = _nearest(white, self.n_components, np.random.default_rng(seed), self.allow_singular)
        self.responsibilities_ = _probabilities("start", start, (len(x), self.n_components))
        self._update(x, *prior)

        def sweep():
            self.responsibilities_ = softmax(self._log_rho(x), axis=1)  # (10.49)
            self._update(x, *prior)
            return self._bound(*prior)

        self._ascend(sweep, self._bound(*prior) if goes_on else -math.inf)
        self.means_ = self.means_ + origin
        self.weights_ = self.concentration_ / self.concentration_.sum()
        self.covariances_ = self.scatters_ / self.degrees_[:, None, None]
        return self

    def predict_proba(self, x):
        """Return q(z|x) of rows x (N, D) under the fitted q(π, μ, Λ): responsibilities (N, K), whose rows sum to 1.

        Before `fit`, and for rows of another width, a ValueError is raised.
        """
        return softmax(self._log_rho(self._fitting(x)), axis=1)

    def predict(self, x):
        """Return the number of the component to which each of the rows x (N, D) belongs most, (N,)."""
        return self.predict_proba(x).argmax(axis=1)

    def score_samples(self, x):
        """Return ln Σ_k exp E_q[ln π_k N(x; μ_k, Λ_k⁻¹)] of each of the rows x (N, D), in nats, (N,).

        It is what a row that is seen alone adds to the bound, as scikit-learn's own score is. It is below the log of
        the predictive density, see `log_predictive`, by Jensen's inequality.
        """
        x = self._fitting(x)
        return logsumexp(self._log_rho(x), axis=1) + 0.5 * x.shape[1] * (math.log(2) - LOG_2PI)

    def score(self, x):
        """Return the mean of `score_samples` over rows x (N, D), in nats per datapoint."""
        return float(self.score_samples(x).mean())

    def log_predictive(self, x):
        """Return log p(x|data) of each of the rows x (N, D) under q(π, μ, Λ), in nats, (N,): a density.

        p(x|data) = Σ_k E[π_k] St(x; m_k, L_k, ν_k + 1 - D), with L_k = (ν_k + 1 - D) β_k/(1 + β_k) W_k         (10.81)
        """
        x = self._fitting(x)
        D = x.shape[1]
        nu = self.degrees_ + 1 - D
        shape = self.scatters_ * ((1 + self.mean_precision_) / (self.mean_precision_ * nu))[:, None, None]  # L_k⁻¹
        root = np.linalg.cholesky(shape)
        d = np.linalg.solve(root, (x - self.means_[:, None]).transpose(0, 2, 1))
        square = (d * d).sum(axis=1).T  # (x - m_k)ᵀ L_k (x - m_k)
        log_norm = gammaln(0.5 * (nu + D)) - gammaln(0.5 * nu) - 0.5 * D * np.log(nu * math.pi)
        log_norm -= np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        log_student = log_norm - 0.5 * (nu + D) * np.log1p(square / nu)  # (B.68)
        return logsumexp(np.log(self.weights_) + log_student, axis=1)

    def sample(self, n, seed=0):
        """Return n rows (n, D) of the mixture at E[π], E[μ_k] and E[Λ_k]⁻¹, and the component of each, (n,).

        seed, a whole number ≥ 0, selects the draws.
        """
        generator = np.random.default_rng(whole("seed", seed, least=0))
        k = generator.choice(self.n_components, size=whole("n", n), p=fitted(self, "weights_").weights_)
        eps = generator.standard_normal((n, self.means_.shape[1]))
        return self.means_[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(self.covariances_)[k], eps), k

    def _fitting(self, x):
        """Return x as rows for a model that is fitted; else, and for rows of another width, raise a ValueError."""
        return self._rows(x, fitted(self, "weights_").means_.shape[1])

    def _update(self, x, alpha0, m0, beta0, nu0, scatter0):
        """Set q(π, μ, Λ) to its best for the present q(Z).

        The sums are taken about m_k, and not as the book's S_k about x̄_k, since N_k may be 0.
        """
        r = self.responsibilities_
        n = r.sum(axis=0)  # N_k                                                                                (10.51)
        self.concentration_ = alpha0 + n  # (10.58)
        self.mean_precision_ = beta0 + n  # (10.60)
        self.degrees_ = nu0 + n  # (10.63)
        self.means_ = (beta0 * m0 + r.T @ x) / self.mean_precision_[:, None]  # (10.61)
        d = x - self.means_[:, None]  # (K, N, D)
        d0 = m0 - self.means_  # (K, D)
        within = (d * r.T[:, :, None]).transpose(0, 2, 1) @ d  # Σ_n r_nk (x_n - m_k)(x_n - m_k)ᵀ
        self.scatters_ = scatter0 + within + beta0 * d0[:, :, None] * d0[:, None, :]  # (10.62)

    def _log_rho(self, x):
        """Return ln ρ_nk (10.46), (N, K), up to what all k share.

        ln ρ_nk = E[ln π_k] + ½ E[ln|Λ_k|] - ½ E[(x_n - μ_k)ᵀ Λ_k (x_n - μ_k)]
        """
        nu = self.degrees_
        D = x.shape[1]
        root = np.linalg.cholesky(self.scatters_)  # W⁻¹ = R Rᵀ, ln|W| = -2 Σ ln R_ii
        log_det = digamma((nu[:, None] - np.arange(D)) / 2).sum(axis=1)  # and D ln 2, which all k share         (10.65)
        log_det -= 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        log_pi = digamma(self.concentration_) - digamma(self.concentration_.sum())  # (10.66)
        d = np.linalg.solve(root, (x - self.means_[:, None]).transpose(0, 2, 1))  # dᵀd = (x - m)ᵀ W (x - m)
        square = D / self.mean_precision_ + nu * (d * d).sum(axis=1).T  # (10.64)
        return log_pi + 0.5 * (log_det - square)

    def _bound(self, alpha0, m0, beta0, nu0, scatter0):
        """Return L = H(q(Z)) + ln ∫ exp(E_Z[ln p(x, Z, π, μ, Λ)]): (10.70), just after an update of q(π, μ, Λ)."""
        N, K = self.responsibilities_.shape
        alpha = self.concentration_
        log_z = gammaln(alpha).sum() - gammaln(alpha.sum()) - K * gammaln(alpha0) + gammaln(K * alpha0)
        log_z += _log_normaliser(self.mean_precision_, self.degrees_, self.scatters_).sum()
        log_z -= K * _log_normaliser(beta0, nu0, scatter0)
        return entr(self.responsibilities_).sum() + log_z - 0.5 * N * len(m0) * LOG_2PI

    def _rows(self, x, width=None):
        """Return x as float64 rows; a ValueError is raised for other shapes, and for too few rows to fit."""
        x = plain("x", x)
        if x.ndim != 2 or x.size == 0 or x.shape[1] != (width or x.shape[1]):
            raise ValueError(f"x has shape {x.shape}; expected (N, {width or 'D'}), one datapoint per row")
        if width is None and len(x) < self.n_components:
            raise ValueError(f"x has {len(x)} rows; expected at least as many as n_components, {self.n_components}")
        x = finite_array("x", x, x.shape)
        if np.abs(x).max() > LARGEST or 0 < np.ptp(x, axis=0).max() < 1 / LARGEST:
            raise ValueError("x has squares that are not finite, or that are all 0: scale the columns")
        return x


def _probabilities(name, rows, shape):
    """Return rows (N, K) of probabilities as float64, each divided by its sum, which may be off by what float32 rounds.

    A ValueError is raised for numbers below 0, and for rows that do not sum to 1.
    """
    rows = finite_array(name, rows, shape)
    sums = rows.sum(axis=1, keepdims=True)
    if (rows < 0).any() or (np.abs(sums - 1) > 1e-5).any():
        raise ValueError(f"{name} has rows that are no probabilities; expected numbers ≥ 0 that sum to 1 in each row")
    return rows / sums


def _covariance(x, allow_singular):
    """Return the covariance (D, D) of rows x (N, D); unless allow_singular, a ValueError is raised if it is singular.

    A column that varies by a few units in the last digit counts as one that never varies.
    """
    d = centred(x)[1]
    still = ~d.any(axis=0)
    if not allow_singular:
        if still.any():
            raise ValueError(
                f"{still.sum()} of the {x.shape[1]} columns of x never vary: leave them out, or give a scatter"
            )
        if np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(d.T)))[0] < 1e-12:
            raise ValueError(
                "the columns of x are linearly dependent: take more rows or fewer columns, or give a scatter"
            )
    return d.T @ d / len(d)


def _lifted(scatter):
    """Return a scatter (D, D) as it is, or with a little on its diagonal, and a warning, if it is singular."""
    scatter = np.array(plain("scatter", scatter), float)
    variances = np.diagonal(scatter)
    if scatter.ndim != 2 or scatter.shape[0] != scatter.shape[1] or not (variances >= 0).all():
        return scatter  # which is refused
    sd = np.sqrt(np.where(variances > 0, variances, 1))
    correlations = scatter / np.outer(sd, sd)
    if not np.isfinite(correlations).all() or np.linalg.eigvalsh(correlations)[0] > 1e-12:
        return scatter
    warnings.warn(
        f"the columns of x never vary or depend on each other linearly, and the prior of the covariances is singular: "
        f"{FLOOR:g} of each variance is added to it",
        stacklevel=3,
    )
    return scatter + np.diag(np.where(variances > 0, FLOOR * variances, TINY))


def _log_normaliser(beta, nu, scatter):
    """Return the log of the integral of N(μ; m, (βΛ)⁻¹) Wishart(Λ; W, ν) without its normaliser (10.40).

    It is ln ∫∫ |Λ|^½(ν-D) exp(-½ β (μ-m)ᵀΛ(μ-m) - ½ tr W⁻¹Λ) dμ dΛ, where scatter is W⁻¹.
    """
    D = scatter.shape[-1]
    log_det = np.linalg.slogdet(scatter)[1]  # ln|W⁻¹|
    return 0.5 * (D * (LOG_2PI - np.log(beta)) + nu * (D * math.log(2) - log_det)) + multigammaln(nu / 2, D)


def _nearest(x, K, generator, allow_singular):
    """Return the q(Z) (N, K) that assigns each row of x to the nearest of K rows drawn by k-means++.

    Each of the K is drawn with probabilities in proportion to the squared distance to the nearest of those before it.
    Fewer than K different rows raise a ValueError, or, if allow_singular, leave components empty.
    """
    distance = np.full((len(x), K), np.inf)
    weight = np.ones(len(x))
    for k in range(K):
        if not weight.any():
            if allow_singular:
                break
            raise ValueError(f"x has {k} different rows; expected at least as many as n_components, {K}")
        centre = x[generator.choice(len(x), p=weight / weight.sum())]
        distance[:, k] = ((x - centre) ** 2).sum(axis=1)
        weight = distance[:, : k + 1].min(axis=1)
    return np.eye(K)[distance.argmin(axis=1)]
