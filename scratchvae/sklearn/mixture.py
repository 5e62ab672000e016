"""A Bayesian mixture of Gaussians as an estimator; its mathematics is that of `inference.mean_field`."""

import numpy as np
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from scratchvae.arguments import flag, whole
from scratchvae.inference import mean_field
from scratchvae.models.moments import centred
from scratchvae.sklearn.tables import Scored, Table, all_or_nothing, called, drawn

PRIORS = {  # what an argument of the model is called here
    "concentration": "weight_concentration_prior",
    "mean": "mean_prior",
    "mean_precision": "mean_precision_prior",
    "degrees": "degrees_of_freedom_prior",
    "scatter": "covariance_prior",
}


class MixtureOfGaussians(Scored, DensityMixin, Table):
    """A mixture of Gaussians with full covariances and a Dirichlet prior, by variational mean field.

    It is the model of scikit-learn's `BayesianGaussianMixture` with weight_concentration_prior_type
    "dirichlet_distribution", covariance_type "full" and reg_covar 0, and its priors have the same names.

    Parameters
    ----------
    n_components : int
        K, the number of components, or an upper limit on it where the concentration is small; 1 unless given.
    weight_concentration_prior : float or None
        α0 of each component; 1/K unless given. Below 1 components that the data do not need stay empty.
    mean_prior : array (D,) or None
        m0; the mean of the rows unless given.
    mean_precision_prior : float or None
        β0, how many datapoints the prior mean counts for; 1 unless given.
    degrees_of_freedom_prior : float or None
        ν0, above D - 1; D unless given.
    covariance_prior : array (D, D) or None
        W0⁻¹; the covariance of the rows unless given, with N - 1 in the denominator.
    tol : float
        The ascent ends when a sweep raises the bound by less, in nats for all rows together; 1e-6 unless given.
    max_iter : int
        It ends after so many sweeps with a ConvergenceWarning; 10,000 unless given.
    n_init : int
        The number of starts by k-means++, of which the one with the highest bound is kept; 1 unless given.
    warm_start : bool
        Whether `fit` goes on from the fit before; False unless given.
    random_state : int, RandomState or None
        Selects the starts, and the draws of `sample`. With None, the default, each call has others.

    Attributes
    ----------
    weights_, means_, covariances_ : arrays (K,), (K, D) and (K, D, D)
        E[π], E[μ_k] and E[Λ_k]⁻¹; `precisions_` (K, D, D) are E[Λ_k].
    weight_concentration_, mean_precision_, degrees_of_freedom_ : arrays (K,)
        α_k, β_k and ν_k of the fitted q. With `_prior_` behind, they are what the priors were.
    lower_bound_ : float
        The bound on log p(X), in nats, summed over the rows; `lower_bounds_` has it after each sweep.
    converged_ : bool
        Whether the ascent has ended by itself.
    n_iter_ : int
        The number of sweeps.
    model_ : scratchvae.inference.mean_field.MixtureOfGaussians
        The fitted model.
    """

    def __init__(
        self,
        n_components=1,
        *,
        weight_concentration_prior=None,
        mean_prior=None,
        mean_precision_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        tol=1e-6,
        max_iter=10_000,
        n_init=1,
        warm_start=False,
        random_state=None,
    ):
        self.n_components = n_components
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.warm_start = warm_start
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X, y=None):
        """Fit the mixture to rows X (N, D) and return the estimator. y is ignored."""
        go_on = flag("warm_start", self.warm_start) and hasattr(self, "model_")
        X = self._of_use(X) if go_on else self._of_fit(X)
        K = whole("n_components", self.n_components)
        if len(X) < K:
            raise ValueError(f"n_components is {K}; expected no more than the {len(X)} rows of X")
        D = X.shape[1]
        with called():
            mean, d = centred(X)
        priors = {
            "concentration": 1 / K if self.weight_concentration_prior is None else self.weight_concentration_prior,
            "mean": mean if self.mean_prior is None else self.mean_prior,
            "mean_precision": 1.0 if self.mean_precision_prior is None else self.mean_precision_prior,
            "degrees": float(D) if self.degrees_of_freedom_prior is None else self.degrees_of_freedom_prior,
            "scatter": d.T @ d / (len(d) - 1) if self.covariance_prior is None else self.covariance_prior,
        }
        generator = check_random_state(self.random_state)
        n_init = whole("n_init", self.n_init)
        if go_on and self.model_.n_components != K:
            raise ValueError(
                f"n_components is {K}, and the fit that this one goes on from had {self.model_.n_components}: take a "
                "clone of the estimator"
            )
        start = self.model_.predict_proba(X) if go_on else None
        best = None
        for _ in range(n_init if start is None else 1):
            with called(**PRIORS):
                model = mean_field.MixtureOfGaussians(
                    K, **priors, tol=self.tol, max_iter=self.max_iter, allow_singular=True
                )
                model.convergence_warning = ConvergenceWarning
                model.fit(X, seed=drawn(generator), start=start)
            if best is None or model.bound_[-1] > best.bound_[-1]:
                best = model
        self.model_ = best
        self._dtype = X.dtype
        self.weight_concentration_prior_ = best.concentration
        self.mean_prior_ = np.asarray(priors["mean"])
        self.mean_precision_prior_ = best.mean_precision
        self.degrees_of_freedom_prior_ = priors["degrees"]
        self.covariance_prior_ = np.asarray(priors["scatter"])
        self.weights_ = best.weights_
        self.means_ = best.means_
        self.covariances_ = best.covariances_
        self.weight_concentration_ = best.concentration_
        self.mean_precision_ = best.mean_precision_
        self.degrees_of_freedom_ = best.degrees_
        self.lower_bounds_ = best.bound_
        self.lower_bound_ = float(best.bound_[-1])
        self.converged_ = best.converged_
        self.n_iter_ = len(best.bound_)
        return self

    @property
    def precisions_(self):
        """E[Λ_k], the inverses of the covariances, (K, D, D)."""
        return np.linalg.inv(self.covariances_)

    def fit_predict(self, X, y=None):
        """Fit the mixture to rows X (N, D) and return the component of each, (N,). y is ignored."""
        return self.fit(X).predict(X)

    def predict(self, X):
        """Return the number of the component to which each of the rows X (N, D) belongs most, (N,)."""
        X = self._of_use(X)
        return self.model_.predict(X)

    def predict_proba(self, X):
        """Return the probability of each component given each of the rows X (N, D), (N, K)."""
        X = self._of_use(X)
        return self.model_.predict_proba(X).astype(X.dtype, copy=False)

    def score_samples(self, X, y=None):
        """Return ln Σ_k exp E_q[ln π_k N(x; μ_k, Λ_k⁻¹)] for each of the rows X (N, D), in nats, (N,). y is ignored.

        This is what `BayesianGaussianMixture` returns. It lies below `log_predictive`, which is a density.
        """
        X = self._of_use(X)
        return self.model_.score_samples(X).astype(X.dtype, copy=False)

    def log_predictive(self, X):
        """Return log p(x|data), the predictive density, for each of the rows X (N, D), in nats, (N,)."""
        X = self._of_use(X)
        return self.model_.log_predictive(X).astype(X.dtype, copy=False)

    def sample(self, n_samples=1, random_state=None):
        """Return draws from the mixture, (n_samples, D), and the component of each, (n_samples,).

        random_state selects them; with None it is that of the estimator.
        """
        seed = self._seed_of(n_samples, random_state)
        X, k = self.model_.sample(n_samples, seed)
        return X.astype(self._dtype, copy=False), k
