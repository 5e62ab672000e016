"""Linear models with Gaussian noise: probabilistic PCA in closed form, and factor analysis by EM.

Both say that x = z W + m + ε with z ~ N(0, I) and noise ε ~ N(0, Ψ), so that

    p(x) = N(m, Wᵀ W + Ψ)          p(z|x) = N((x - m) Ψ⁻¹ Wᵀ G, G)          G = (I + W Ψ⁻¹ Wᵀ)⁻¹

In probabilistic PCA Ψ is σ² I (Tipping & Bishop 1999, "Probabilistic principal component analysis"), and in factor
analysis it is diagonal. G is the same for all x. Datapoints are rows here, so W has the shape (J, D) and is the
transpose of the W of the textbooks. Rows are taken as the numbers they are, uint8 too: divide pixels by 255 to have
them in [0, 1], as a VAE does by itself.
"""

import warnings

import numpy as np

from scratchvae.arguments import fitted, float_rows, positive, whole


class LinearGaussian:
    """What the two models share once they are fitted: p(x) = N(m, Wᵀ W + Ψ), its posterior and its samples.

    n_latent is J, a whole number ≥ 1. `fit` sets mean_ (D,), which is m, W_ (J, D), and var_ (D,), the diagonal of Ψ.
    Every method raises ValueError before the fit, and for rows of another width.
    """

    def __init__(self, n_latent):
        self.n_latent = whole("n_latent", n_latent)

    def posterior(self, x):
        """Return the mean (N, J) and the covariance G (J, J) of p(z|x) for rows x (N, D)."""
        _, G, to_latent = self._inference()
        return self._centred(x) @ to_latent, G

    def transform(self, x):
        """Return E[z|x] (N, J) for rows x (N, D)."""
        return self.posterior(x)[0]

    def inverse_transform(self, z):
        """Return E[x|z] = z W + m (N, D) for rows z (N, J)."""
        return float_rows(z, len(fitted(self).W_)) @ self.W_ + self.mean_

    def score_samples(self, x):
        """Return log p(x) in nats (N,), for each of the rows x (N, D)."""
        d = self._centred(x)
        precision, _, to_latent = self._inference()
        z = d @ to_latent
        return self._log_density(precision, (d * d / self.var_).sum(axis=1) - (z @ precision * z).sum(axis=1))

    def score(self, x):
        """Return the mean of log p(x) over rows x (N, D), in nats per datapoint."""
        return float(self.score_samples(x).mean())

    def sample(self, n, seed=0):
        """Return n draws x ~ p(x), (n, D), which are a function of the seed."""
        generator = np.random.default_rng(seed)
        z = generator.standard_normal((whole("n", n), self.n_latent))
        eps = generator.standard_normal((n, len(fitted(self).mean_)))
        return z @ self.W_ + self.mean_ + np.sqrt(self.var_) * eps

    def _inference(self):
        """Return G⁻¹ and G (J, J), the posterior's precision and covariance, and Ψ⁻¹ Wᵀ G (D, J), which maps x to z."""
        scaled = (fitted(self).W_ / self.var_).T  # Ψ⁻¹ Wᵀ
        precision = np.eye(self.n_latent) + self.W_ @ scaled  # G⁻¹ = I + W Ψ⁻¹ Wᵀ
        G = np.linalg.inv(precision)
        return precision, G, scaled @ G

    def _log_density(self, precision, square):
        """Return log N(x; m, C) = -½ (D ln 2π + ln|C| + square), where C = Wᵀ W + Ψ and square = (x - m) C⁻¹ (x - m)ᵀ.

        No D x D matrix is inverted, since C⁻¹ = Ψ⁻¹ - Ψ⁻¹ Wᵀ G W Ψ⁻¹ (Woodbury) and ln|C| = ln|Ψ| + ln|G⁻¹|. With the
        posterior mean z = (x - m) Ψ⁻¹ Wᵀ G the square is (x - m) Ψ⁻¹ (x - m)ᵀ - z G⁻¹ zᵀ.
        """
        log_det = np.log(self.var_).sum() + np.linalg.slogdet(precision)[1]
        return -0.5 * (len(self.var_) * np.log(2 * np.pi) + log_det + square)

    def _centred(self, x):
        """Return x - m for rows x (N, D)."""
        return float_rows(x, len(fitted(self).mean_)) - self.mean_

    def _moments(self, x):
        """Return mean (D,) and covariance (D, D) of rows x. ValueError where the likelihood has no maximum."""
        x = float_rows(x)
        N, D = x.shape
        if self.n_latent >= D:
            raise ValueError(f"n_latent is {self.n_latent}; expected fewer than the {D} columns of x")
        if N < 2:
            raise ValueError(f"x has {N} row; expected two or more, whose covariance is to be explained")
        d = x - x.mean(axis=0)
        return x.mean(axis=0), d.T @ d / N


class PPCA(LinearGaussian):
    """Probabilistic PCA: Ψ = σ² I, at the maximum of the likelihood (Tipping & Bishop 1999, eqs. 7 and 8).

    With the eigenvalues λ and the eigenvectors U of the covariance of x, σ² is the mean of the λ that are left out, and
    W = (Λ - σ² I)^½ Uᵀ with the J largest. W is known up to a rotation of z. n_latent is that of `LinearGaussian`.
    """

    def fit(self, x):
        """Fit the model to rows x (N, D) and return it.

        Raises ValueError where x varies in no more than J directions: then σ² = 0, and p(x) has no bound.
        """
        mean, S = self._moments(x)
        W, var = _ppca(S, self.n_latent)
        if var <= 1e-12 * np.trace(S):
            raise ValueError(f"x varies in no more than {self.n_latent} directions, and σ² is 0: take fewer latents")
        self.mean_ = mean
        self.W_ = W
        self.var_ = np.full(len(S), var)
        return self


def _ppca(S, J):
    """Return W (J, D) and σ² of probabilistic PCA for the covariance S (D, D)."""
    values, vectors = np.linalg.eigh(S)
    var = values[:-J].mean()
    return np.sqrt(np.maximum(values[-J:] - var, 0))[:, None] * vectors[:, -J:].T, var


class FactorAnalysis(LinearGaussian):
    """Factor analysis by EM (Rubin & Thayer 1982, "EM algorithms for ML factor analysis"): every column has a noise.

    EM climbs to a maximum that need not be the highest. It starts at the probabilistic PCA of the columns scaled to
    variance 1, so that the units of a column do not matter, as they do not matter to the likelihood.

    n_latent is that of `LinearGaussian`. tol, 1e-6 by default, ends EM when the log-likelihood per datapoint, which
    never falls, has grown by less, in nats. max_iter, 10,000, ends it with a warning.

    After `fit`, log_likelihood_ holds the log-likelihood of each iteration before its M-step, in nats per datapoint.
    """

    def __init__(self, n_latent, tol=1e-6, max_iter=10_000):
        super().__init__(n_latent)
        self.tol = positive("tol", tol)
        self.max_iter = whole("max_iter", max_iter)

    def fit(self, x):
        """Fit the model to rows x (N, D) and return it. Raises ValueError where columns never vary."""
        mean, S = self._moments(x)
        variance = np.diag(S)
        if (still := int((variance <= 1e-12 * variance.max()).sum())) > 0:
            raise ValueError(
                f"{still} of the {len(S)} columns of x never vary: their noise would have no variance and the "
                "likelihood no maximum; leave them out, as in x[:, x.std(axis=0) > 0]"
            )
        sd = np.sqrt(variance)
        W, noise = _ppca(S / np.outer(sd, sd), self.n_latent)
        self.mean_ = mean
        self.W_ = W * sd
        self.var_ = max(noise, 1e-3) * variance
        history = []
        for _ in range(self.max_iter):
            # E: all that the M-step needs of p(z|x) are these averages over the datapoints
            precision, G, to_latent = self._inference()
            xz = S @ to_latent  # 1/N Σ (x - m)ᵀ E z, (D, J)
            spread = to_latent.T @ xz  # 1/N Σ (E z)ᵀ E z, (J, J)
            square = (variance / self.var_).sum() - (precision * spread).sum()  # the mean of that in `_log_density`
            history.append(self._log_density(precision, square))
            if len(history) > 1 and history[-1] - history[-2] < self.tol:
                break
            # M: the regression of x on z, and what it leaves; G + spread is 1/N Σ E zᵀz
            self.W_ = np.linalg.solve(G + spread, xz.T)
            self.var_ = np.maximum(variance - (self.W_ * xz.T).sum(axis=0), 1e-12 * variance)
        else:
            limit = f"tol = {self.tol:g} in {self.max_iter:,} iterations"
            warnings.warn(f"EM has not converged to {limit}: allow more (max_iter)", stacklevel=2)
        self.log_likelihood_ = np.array(history)
        return self
