"""Linear models as estimators: codes of least squared error, and Gaussian models whose likelihood is known exactly.

Their mathematics is that of `models.autoencoder` and `models.factor_analysis`, and so is what is kept of it.
"""

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from scratchvae.arguments import flag
from scratchvae.models import autoencoder, factor_analysis
from scratchvae.sklearn.tables import Codes, Scored, all_or_nothing, called, drawn


class Linear(Scored, Codes):
    """What the four share: a fitted `model_` of this package with the methods that are asked for here."""

    @property
    def _n_features_out(self):
        return len(self.components_)

    def _most(self, X):
        """Return n_components, of which there are no more than rows, nor than columns."""
        return self._components(1, min(X.shape), f"min(N, D) = {min(X.shape)}")

    def transform(self, X):
        """Return the codes (N, J) of rows X (N, D); for a model with a density, they are E[z|x]."""
        X = self._of_use(X)
        return self.model_.transform(X).astype(X.dtype, copy=False)

    def inverse_transform(self, X):
        """Return the rows x̂ (N, D) that belong to codes X (N, J)."""
        X = self._codes(X)
        return self.model_.inverse_transform(X).astype(X.dtype, copy=False)

    def score_samples(self, X, y=None):
        """Return a score for each of the rows X (N, D), (N,). y is ignored.

        For PPCA and FactorAnalysis it is log p(x) in nats. PCA and LinearAutoencoder have no density, and it is
        -½ ‖x - x̂‖².
        """
        X = self._of_use(X)
        return self.model_.score_samples(X).astype(X.dtype, copy=False)


class PCA(Linear):
    """Principal components: the J directions with the least squared error ½ E‖x - x̂‖².

    Parameters
    ----------
    n_components : int or None
        J, the number of directions; min(N, D) unless given.

    Attributes
    ----------
    components_ : array (J, D)
        The directions, orthonormal, the one with the largest variance first. The largest entry of each is positive.
    explained_variance_ : array (J,)
        The variance of the data in each direction, with N - 1 in the denominator.
    explained_variance_ratio_ : array (J,)
        The same as a share of the variance of all columns.
    singular_values_ : array (J,)
        The singular values of the rows about their mean.
    n_components_ : int
        J.
    mean_ : array (D,)
        The mean of the rows.
    model_ : scratchvae.models.autoencoder.PCA
        The fitted model.

    `score` is -½ ‖x - x̂‖² and no log-likelihood, since this model has no density: `PPCA` has one.
    """

    def __init__(self, n_components=None):
        self.n_components = n_components

    @all_or_nothing
    def fit(self, X, y=None):
        """Fit the directions to rows X (N, D) and return the estimator. y is ignored."""
        X = self._of_fit(X)
        with called():
            model = autoencoder.PCA(self._most(X), allow_singular=True).fit(X)
        self.model_ = model
        self.mean_ = model.mean_
        self.components_ = model.decoder_
        self.n_components_ = model.n_latent
        unbiased = len(X) / (len(X) - 1)
        total = X.var(axis=0, dtype=float).sum() * unbiased
        self.explained_variance_ = np.diag(model.code_var_) * unbiased
        self.explained_variance_ratio_ = self.explained_variance_ / (total or 1)
        self.singular_values_ = np.sqrt(self.explained_variance_ * (len(X) - 1))
        return self


class LinearAutoencoder(Linear):
    """An autoencoder without hidden layers, x → z = (x - m) A → x̂ = z B + m, by gradient ascent.

    It reaches the error of `PCA`, with codes that are known up to an invertible map.

    Parameters
    ----------
    n_components : int or None
        J, how many numbers a code has; min(N, D) unless given.
    tied : bool
        Whether the decoder has the encoder's weights, B = Aᵀ; False unless given.
    tol : float
        The ascent ends where the norm of the gradient is below tol times the largest variance; 1e-6 unless given.
    max_iter : int
        It ends after so many steps with a ConvergenceWarning; 100,000 unless given.
    random_state : int, RandomState or None
        Selects the start. With None, the default, each fit has another.

    Attributes
    ----------
    components_ : array (J, D)
        B, the decoder.
    encoder_ : array (D, J)
        A, the encoder.
    mean_ : array (D,)
        m, the mean of the rows.
    n_iter_ : int
        The number of steps.
    model_ : scratchvae.models.autoencoder.LinearAutoencoder
        The fitted model.
    """

    def __init__(self, n_components=None, *, tied=False, tol=1e-6, max_iter=100_000, random_state=None):
        self.n_components = n_components
        self.tied = tied
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X, y=None):
        """Fit A and B to rows X (N, D) and return the estimator. y is ignored."""
        X = self._of_fit(X)
        tied = flag("tied", self.tied)
        J = self._most(X)
        with called():
            model = autoencoder.LinearAutoencoder(J, tied, self.tol, self.max_iter, allow_singular=True)
            model.convergence_warning = ConvergenceWarning
            model.fit(X, seed=drawn(self.random_state))
        self.model_ = model
        self.mean_ = model.mean_
        self.encoder_ = model.encoder_
        self.components_ = model.decoder_
        self.n_iter_ = len(model.score_)
        return self


class LinearGaussian(Linear):
    """What `PPCA` and `FactorAnalysis` share: the covariance of p(x) = N(m, Wᵀ W + Ψ), and draws."""

    def get_covariance(self):
        """Return the covariance Wᵀ W + Ψ of p(x), (D, D)."""
        return self.components_.T @ self.components_ + np.diag(self.model_.var_)

    def get_precision(self):
        """Return the inverse of the covariance, (D, D)."""
        return np.linalg.inv(self.get_covariance())

    def sample(self, n_samples=1, random_state=None):
        """Return draws x ~ p(x), (n_samples, D).

        random_state selects them; with None it is that of the estimator.
        """
        seed = self._seed_of(n_samples, random_state)
        X = self.model_.sample(n_samples, seed)
        return X.astype(self._dtype, copy=False)

    def _kept(self, model, dtype):
        """Keep a fitted model, and what scikit-learn's users look for on an estimator."""
        self.model_ = model
        self._dtype = dtype
        self.mean_ = model.mean_
        self.components_ = model.W_
        self.n_components_ = model.n_latent
        return self


class PPCA(LinearGaussian):
    """Probabilistic PCA, x = z W + m + ε with z ~ N(0, I) and ε ~ N(0, σ² I), at the maximum of its likelihood.

    Parameters
    ----------
    n_components : int or None
        J, the number of latents; min(N, D) unless given.
    random_state : int, RandomState or None
        Selects the draws of `sample`. The fit is in closed form and has none.

    Attributes
    ----------
    components_ : array (J, D)
        W. Each row is a principal direction, the longest first, as long as the standard deviation that z gives it.
    noise_variance_ : float
        σ². Where no variance is left over, it is 1e-6 of the mean variance of a column.
    mean_ : array (D,)
        m, the mean of the rows.
    model_ : scratchvae.models.factor_analysis.PPCA
        The fitted model, with `posterior(X)`.
    """

    def __init__(self, n_components=None, *, random_state=None):
        self.n_components = n_components
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X, y=None):
        """Fit the model to rows X (N, D) and return the estimator. y is ignored."""
        X = self._of_fit(X)
        check_random_state(self.random_state)
        with called():
            model = factor_analysis.PPCA(self._most(X), allow_singular=True).fit(X)
        self.noise_variance_ = float(model.var_[0])
        return self._kept(model, X.dtype)


class FactorAnalysis(LinearGaussian):
    """Factor analysis, x = z W + m + ε with z ~ N(0, I) and ε ~ N(0, Ψ), Ψ diagonal, by EM from several starts.

    Parameters
    ----------
    n_components : int or None
        J, the number of factors, 0 to D; D unless given.
    tol : float
        The sweeps of conditional maximisation that follow EM end when the log-likelihood per datapoint has grown by
        less, in nats; 1e-9 unless given.
    max_iter : int
        EM ends after so many iterations, and so do the sweeps, with a ConvergenceWarning; 10,000 unless given.
    n_init : int
        The number of starts, of which the one with the highest likelihood is kept; 10 unless given. Fits take as much
        longer. With D - 1 factors or more the first is enough, and the only one.
    random_state : int, RandomState or None
        Selects the starts after the first; 0 unless given.

    Attributes
    ----------
    components_ : array (J, D)
        W, known up to a rotation.
    noise_variance_ : array (D,)
        The diagonal of Ψ. No variance is below 1e-6 of the column's; a UserWarning names the columns whose noise has
        come down to that.
    loglike_ : array (n_iter_ + 1,)
        The log-likelihood of all rows at the start of the best run, and after each of its iterations.
    mean_ : array (D,)
        m, the mean of the rows.
    n_iter_ : int
        The number of iterations of the best run.
    model_ : scratchvae.models.factor_analysis.FactorAnalysis
        The fitted model, with `posterior(X)`, `starts_` and `heywood_`.
    """

    def __init__(self, n_components=None, *, tol=1e-9, max_iter=10_000, n_init=10, random_state=0):
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X, y=None):
        """Fit the model to rows X (N, D) and return the estimator. y is ignored."""
        X = self._of_fit(X)
        J = self._components(0, X.shape[1], f"the {X.shape[1]} columns of X")
        with called(n_starts="n_init"):
            model = factor_analysis.FactorAnalysis(J, self.tol, self.max_iter, self.n_init, allow_singular=True)
            model.convergence_warning = ConvergenceWarning
            model.fit(X, seed=drawn(self.random_state), names=getattr(self, "feature_names_in_", None))
        self.noise_variance_ = model.var_
        self.loglike_ = model.log_likelihood_ * len(X)
        self.n_iter_ = len(model.log_likelihood_) - 1
        return self._kept(model, X.dtype)
