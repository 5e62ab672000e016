"""Mean field by coordinate ascent (Bishop 2006, chapter 10): q(z) = Π_i q_i(z_i), one factor at a time at its best.

    L = E_q[ln p(x, z)] + H(q) = ln p(x) - KL(q ‖ p(z|x)),   best in q_i at ln q_i = E_{j≠i}[ln p(x, z)] + const  (10.9)

There L = Σ_{j≠i} H(q_j) + ln ∫ exp(E_{j≠i}[ln p(x, z)]) dz_i, so that the normaliser of the factor that was updated
last is nearly all of the bound. No step can lower it, and none needs a gradient or a draw.

Each model takes tol and max_iter: sweeps over all factors end when one raises L by less than tol nats, or after so
many, with a warning. After `fit`, bound_ has L after every sweep, in nats, summed over the datapoints.
"""

import math
import warnings

import numpy as np
from scipy.special import digamma, entr, gammaln, multigammaln, softmax

from scratchvae.arguments import fitted, positive, whole
from scratchvae.inference.distributions import LOG_2PI


class CorrelatedGaussian:
    """q(z) = Π_i N(z_i; mean_i, var_i) for a target p(z) = N(m, Λ⁻¹) whose z_i are correlated (section 10.1.2).

    mean_ (D,) comes to be m, but var_ (D,) is 1/Λ_ii, the variance of z_i with all others known: too small.
    """

    def __init__(self, tol=1e-9, max_iter=10_000):
        self.tol, self.max_iter = positive("tol", tol), whole("max_iter", max_iter)

    def fit(self, mean, precision, start=None):
        """Fit to N(mean (D,), precision (D, D)⁻¹) from means at start (D,), zeros unless given; self.

        The target is normalised, ln p(x) = 0, and so L = -KL(q ‖ p). ValueError for shapes and no precision matrix.
        """
        m = _array("mean", mean, (max(np.size(mean), 1),))
        Lambda, root = _positive_definite("precision", precision, len(m))
        mu = np.zeros_like(m) if start is None else _array("start", start, m.shape)
        gap = 0.5 * (np.log(np.diag(Lambda)).sum() - 2 * np.log(np.diag(root)).sum())  # ½ (Σ ln Λ_ii - ln|Λ|)

        def sweep():
            for i in range(len(m)):
                # μ_i = m_i - Λ_ii⁻¹ Σ_{j≠i} Λ_ij (μ_j - m_j)                                                    (10.13)
                mu[i] -= Lambda[i] @ (mu - m) / Lambda[i, i]
            return -gap - 0.5 * (mu - m) @ Lambda @ (mu - m)

        self.bound_ = _ascend(sweep, self.tol, self.max_iter)
        self.mean_, self.var_ = mu, 1 / np.diag(Lambda)  # the same variances in every sweep                    (10.12)
        return self


class UnivariateGaussian:
    """q(μ) q(τ) for x_n ~ N(μ, 1/τ), p(μ|τ) = N(mean, 1/(κ τ)), p(τ) = Gamma(a, rate b) (section 10.1.3).

    After `fit`, q(μ) = N(mean_, 1/precision_) and q(τ) = Gamma(a_, b_). The exact posterior is known, for comparison;
    in it, unlike in q, the spread of μ depends on τ. ValueError unless kappa, a and b are > 0.
    """

    def __init__(self, mean=0.0, kappa=1.0, a=1.0, b=1.0, tol=1e-9, max_iter=10_000):
        self.mean = float(_array("mean", mean, ()))
        self.kappa, self.a, self.b = positive("kappa", kappa), positive("a", a), positive("b", b)
        self.tol, self.max_iter = positive("tol", tol), whole("max_iter", max_iter)

    def fit(self, x):
        """Fit x (N,); self. ValueError for other shapes and numbers that are not finite."""
        x = _array("x", x, (max(np.size(x), 1),))
        N, m0, kappa0, a0, b0 = len(x), self.mean, self.kappa, self.a, self.b
        self.mean_ = (kappa0 * m0 + x.sum()) / (kappa0 + N)  # (10.26)
        self.a_ = a0 + (N + 1) / 2  # (10.29), + ½ since p(μ|τ) has √τ too
        square = ((x - self.mean_) ** 2).sum() + kappa0 * (self.mean_ - m0) ** 2
        log_prior = 0.5 * (math.log(kappa0) - (N + 1) * LOG_2PI) + a0 * math.log(b0) - gammaln(a0)
        self.b_ = self.a_ * b0 / a0  # begin with E[τ] as in the prior

        def sweep():
            self.precision_ = (kappa0 + N) * self.a_ / self.b_  # λ = (κ0 + N) E[τ]                              (10.27)
            self.b_ = b0 + 0.5 * (square + (kappa0 + N) / self.precision_)  # E[(μ - μ_N)²] = 1/λ                (10.30)
            entropy = 0.5 * (1 + LOG_2PI - math.log(self.precision_))  # of q(μ)
            log_z = gammaln(self.a_) - self.a_ * math.log(self.b_)  # ∫ τ^(a-1) exp(-b τ) dτ = Γ(a)/bᵃ
            return entropy + log_prior + log_z

        self.bound_ = _ascend(sweep, self.tol, self.max_iter)
        return self


class MixtureOfGaussians:
    """q(Z) q(π, μ, Λ) for a mixture of K Gaussians with all of its parameters unknown (section 10.2).

        π ~ Dirichlet(α0),   Λ_k ~ Wishart(W0, ν0),   μ_k ~ N(m0, (β0 Λ_k)⁻¹),   z_n ~ π,   x_n ~ N(μ_{z_n}, Λ_{z_n}⁻¹)

    concentration    α0, 1/K unless given: below one, components that the data do not need are left empty
    mean             m0 (D,), the mean of the data unless given
    mean_precision   β0
    degrees          ν0 > D - 1, D unless given
    scatter          W0⁻¹ (D, D), the covariance of the data unless given; their units do not matter then

    After `fit`, q(π) = Dirichlet(concentration_ (K,)) with weights_ (K,) = E[π]; q(μ_k, Λ_k) has means_ (K, D),
    mean_precision_ (K,), degrees_ (K,), scatters_ (K, D, D) = W_k⁻¹ and covariances_ (K, D, D) = E[Λ_k]⁻¹ = W_k⁻¹/ν_k;
    q(Z) is responsibilities_ (N, K). The bound has many maxima: take the best bound_[-1] of several seeds.
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
    ):
        self.n_components = whole("n_components", n_components)
        alpha = 1 / self.n_components if concentration is None else concentration
        self.concentration = positive("concentration", alpha)
        self.mean, self.mean_precision = mean, positive("mean_precision", mean_precision)
        self.degrees, self.scatter = degrees, scatter
        self.tol, self.max_iter = positive("tol", tol), whole("max_iter", max_iter)

    def fit(self, x, seed=0):
        """Fit rows x (N, D), beginning at the nearest of K rows that are drawn by k-means++ with this seed; self.

        ValueError: no K different rows, numbers that are not finite; without a scatter of yours, columns that never
        vary or depend on each other.
        """
        x = self._rows(x)
        prior, root = self._prior(x)
        white = np.linalg.solve(root, x.T).T  # distances in units of the prior's scatter
        self.responsibilities_ = _nearest(white, self.n_components, np.random.default_rng(seed))
        self._update(x, *prior)

        def sweep():
            self.responsibilities_ = softmax(self._log_rho(x), axis=1)  # (10.49)
            self._update(x, *prior)
            return self._bound(*prior)

        self.bound_ = _ascend(sweep, self.tol, self.max_iter)
        self.weights_ = self.concentration_ / self.concentration_.sum()
        self.covariances_ = self.scatters_ / self.degrees_[:, None, None]
        return self

    def predict_proba(self, x):
        """q(z|x) of rows x (N, D) with q(π, μ, Λ) as fitted: responsibilities (N, K), whose rows sum to 1."""
        x = self._rows(x, fitted(self, "weights_").means_.shape[1])
        return softmax(self._log_rho(x), axis=1)

    def _update(self, x, alpha0, m0, beta0, nu0, scatter0):
        """q(π, μ, Λ) at its best for q(Z). Sums about m_k instead of the book's S_k about x̄_k: N_k may be 0."""
        r = self.responsibilities_
        n = r.sum(axis=0)  # N_k                                                                                (10.51)
        self.concentration_ = alpha0 + n  # (10.58)
        self.mean_precision_ = beta0 + n  # (10.60)
        self.degrees_ = nu0 + n  # (10.63)
        self.means_ = (beta0 * m0 + r.T @ x) / self.mean_precision_[:, None]  # (10.61)
        d, d0 = x - self.means_[:, None], m0 - self.means_  # (K, N, D), (K, D)
        within = (d * r.T[:, :, None]).transpose(0, 2, 1) @ d  # Σ_n r_nk (x_n - m_k)(x_n - m_k)ᵀ
        self.scatters_ = scatter0 + within + beta0 * d0[:, :, None] * d0[:, None, :]  # (10.62)

    def _log_rho(self, x):
        """ln ρ_nk = E[ln π_k] + ½ E[ln|Λ_k|] - ½ E[(x_n - μ_k)ᵀ Λ_k (x_n - μ_k)] + what all k share (10.46), (N, K)."""
        D, nu = x.shape[1], self.degrees_
        root = np.linalg.cholesky(self.scatters_)  # W⁻¹ = R Rᵀ, ln|W| = -2 Σ ln R_ii
        log_det = digamma((nu[:, None] - np.arange(D)) / 2).sum(axis=1)  # and D ln 2, shared                    (10.65)
        log_det -= 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        log_pi = digamma(self.concentration_) - digamma(self.concentration_.sum())  # (10.66)
        d = np.linalg.solve(root, (x - self.means_[:, None]).transpose(0, 2, 1))  # dᵀd = (x - m)ᵀ W (x - m)
        square = D / self.mean_precision_ + nu * (d * d).sum(axis=1).T  # (10.64)
        return log_pi + 0.5 * (log_det - square)

    def _bound(self, alpha0, m0, beta0, nu0, scatter0):
        """H(q(Z)) + ln ∫ exp(E_Z[ln p(x, Z, π, μ, Λ)]): (10.70) where q(π, μ, Λ) has just been updated."""
        alpha, (N, K), D = self.concentration_, self.responsibilities_.shape, len(m0)
        log_z = gammaln(alpha).sum() - gammaln(alpha.sum()) - K * gammaln(alpha0) + gammaln(K * alpha0)
        log_z += _log_normaliser(self.mean_precision_, self.degrees_, self.scatters_).sum()
        log_z -= K * _log_normaliser(beta0, nu0, scatter0)
        return entr(self.responsibilities_).sum() + log_z - 0.5 * N * D * LOG_2PI

    def _prior(self, x):
        """(α0, m0, β0, ν0, W0⁻¹) for rows x, and the Cholesky factor of W0⁻¹."""
        D = x.shape[1]
        m0 = x.mean(axis=0) if self.mean is None else _array("mean", self.mean, (D,))
        nu0 = positive("degrees", D if self.degrees is None else self.degrees)
        if nu0 <= D - 1:
            raise ValueError(f"degrees is {nu0:g}; expected more than D - 1 = {D - 1}")
        if self.scatter is None:
            if (still := int((np.ptp(x, axis=0) == 0).sum())) > 0:
                raise ValueError(
                    f"{still} of the {D} columns of x never vary: leave them out, as in x[:, x.std(axis=0) > 0], "
                    "or say what scatter you expect"
                )
            if np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(x.T)))[0] < 1e-12:
                raise ValueError(
                    "the columns of x are linearly dependent: take more rows or fewer columns, or say what scatter "
                    "you expect"
                )
        scatter = np.atleast_2d(np.cov(x.T, bias=True)) if self.scatter is None else self.scatter
        scatter, root = _positive_definite("scatter", scatter, D)
        return (self.concentration, m0, self.mean_precision, nu0, scatter), root

    def _rows(self, x, width=None):
        """x as float64 rows; ValueError for other shapes, and for fewer rows than components to fit."""
        x = np.asarray(x, float)
        if x.ndim != 2 or x.size == 0 or x.shape[1] != (width or x.shape[1]):
            raise ValueError(f"x has shape {x.shape}; expected (N, {width or 'D'}), one datapoint per row")
        if width is None and len(x) < self.n_components:
            raise ValueError(f"x has {len(x)} rows; expected at least as many as n_components, {self.n_components}")
        return _array("x", x, x.shape)


def _log_normaliser(beta, nu, scatter):
    """ln ∫∫ |Λ|^½(ν-D) exp(-½ β (μ-m)ᵀΛ(μ-m) - ½ tr W⁻¹Λ) dμ dΛ, of N(μ; m, (βΛ)⁻¹) Wishart(Λ; W, ν)   (10.40)."""
    D = scatter.shape[-1]
    log_det = np.linalg.slogdet(scatter)[1]  # ln|W⁻¹|
    return 0.5 * (D * (LOG_2PI - np.log(beta)) + nu * (D * math.log(2) - log_det)) + multigammaln(nu / 2, D)


def _nearest(x, K, generator):
    """q(Z) (N, K) that gives each row to the nearest of K rows, drawn ∝ their squared distance to those before."""
    distance = np.empty((len(x), K))
    weight = np.ones(len(x))
    for k in range(K):
        if not weight.any():
            raise ValueError(f"x has {k} different rows; expected at least as many as n_components, {K}")
        centre = x[generator.choice(len(x), p=weight / weight.sum())]
        distance[:, k] = ((x - centre) ** 2).sum(axis=1)
        weight = distance[:, : k + 1].min(axis=1)
    return np.eye(K)[distance.argmin(axis=1)]


def _ascend(sweep, tol, max_iter):
    """The bounds that `sweep` returns, once and again until one is less than tol above the last."""
    bounds = []
    for _ in range(max_iter):
        bounds.append(float(sweep()))
        if not math.isfinite(bounds[-1]):
            raise FloatingPointError(
                f"the bound is {bounds[-1]} after sweep {len(bounds)}: look at the prior's numbers"
            )
        if len(bounds) > 1 and bounds[-1] - bounds[-2] < tol:
            break
    else:
        warnings.warn(
            f"mean field has not converged to tol = {tol:g} in {max_iter:,} sweeps: allow more (max_iter)",
            stacklevel=3,
        )
    return np.array(bounds)


def _array(name, value, shape):
    """A float64 copy of finite numbers in this shape; ValueError for others."""
    value = np.array(value, float)
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}; expected {shape or 'a number'}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite; expected numbers")
    return value


def _positive_definite(name, value, D):
    """A symmetric positive definite matrix (D, D) and its Cholesky factor; ValueError for others."""
    value = _array(name, value, (D, D))
    try:
        if np.abs(value - value.T).max() > 1e-8 * np.abs(value).max():
            raise np.linalg.LinAlgError
        return value, np.linalg.cholesky(value)
    except np.linalg.LinAlgError:
        raise ValueError(f"{name} is not symmetric and positive definite; expected a matrix that is") from None
