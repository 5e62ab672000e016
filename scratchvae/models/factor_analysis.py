"""The linear rungs: probabilistic PCA in closed form, factor analysis by EM. Both are x = z W + m + ε, z ~ N(0, I).

    p(x) = N(m, Wᵀ W + Ψ),   Ψ = σ² I in probabilistic PCA (Tipping & Bishop 1999), diagonal in factor analysis

Everything here takes the shape of W, (J, D), our rows being datapoints: the textbooks' W is its transpose. With
G = (I + W Ψ⁻¹ Wᵀ)⁻¹ the posterior is p(z|x) = N((x - m) Ψ⁻¹ Wᵀ G, G): the same G for all x.
"""

import math
import warnings

import numpy as np

from scratchvae.arguments import fitted, float_rows, positive, whole


class LinearGaussian:
    """p(x) = N(m, Wᵀ W + Ψ), fitted: mean_ (D,), W_ (J, D) and var_ (D,), the diagonal of Ψ."""

    def __init__(self, n_latent):
        self.n_latent = whole("n_latent", n_latent)

    def posterior(self, x):
        """p(z|x) = N(mean, G): (mean (N, J), G (J, J))."""
        x, (G, to_latent) = self._rows(x), self._inference()
        return (x - self.mean_) @ to_latent, G

    def transform(self, x):
        """E[z|x], (N, J)."""
        return self.posterior(x)[0]

    def inverse_transform(self, z):
        """E[x|z] = z W + m, (N, D)."""
        return float_rows(z, len(fitted(self).W_)) @ self.W_ + self.mean_

    def score_samples(self, x):
        """log p(x) in nats, (N,).

        ln|Wᵀ W + Ψ| = ln|Ψ| - ln|G|, and (Wᵀ W + Ψ)⁻¹ = Ψ⁻¹ - Ψ⁻¹ Wᵀ G W Ψ⁻¹ (Woodbury): only J x J is inverted.
        """
        d, (G, to_latent) = self._rows(x) - self.mean_, self._inference()
        z = d @ to_latent
        square = (d * d / self.var_).sum(axis=1) - (z @ np.linalg.inv(G) * z).sum(axis=1)
        log_det = np.log(self.var_).sum() - np.linalg.slogdet(G)[1]
        return -0.5 * (d.shape[1] * math.log(2 * math.pi) + log_det + square)

    def score(self, x):
        """The mean log p(x), nats per datapoint."""
        return float(self.score_samples(x).mean())

    def sample(self, n, seed=0):
        """x ~ p(x), (n, D)."""
        n, generator = whole("n", n), np.random.default_rng(seed)
        z = generator.standard_normal((n, self.n_latent))
        eps = generator.standard_normal((n, len(fitted(self).mean_)))
        return z @ self.W_ + self.mean_ + np.sqrt(self.var_) * eps

    def _inference(self):
        """G and Ψ⁻¹ Wᵀ G."""
        scaled = (self.W_ / self.var_).T  # Ψ⁻¹ Wᵀ
        G = np.linalg.inv(np.eye(self.n_latent) + self.W_ @ scaled)
        return G, scaled @ G

    def _rows(self, x):
        return float_rows(x, len(fitted(self).mean_))

    def _moments(self, x):
        """Mean (D,) and covariance (D, D) of rows x. ValueError where no likelihood has a maximum."""
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

    With eigenvalues λ and eigenvectors U of the covariance, σ² is the mean of the λ that are left out and
    W = (Λ - σ² I)^½ Uᵀ of the J largest, up to a rotation of z.
    """

    def fit(self, x):
        """Fit rows x (N, D); self. ValueError if x has no more than J directions: then σ² = 0, and p(x) no bound."""
        mean, S = self._moments(x)
        W, var = _ppca(S, self.n_latent)
        if var <= 1e-12 * np.trace(S):
            raise ValueError(
                f"x varies in no more than {self.n_latent} directions: the likelihood has no maximum; "
                "take fewer latents"
            )
        self.mean_, self.W_, self.var_ = mean, W, np.full(len(S), var)
        return self


def _ppca(S, J):
    """W (J, D) and σ² of probabilistic PCA for the covariance S."""
    values, vectors = np.linalg.eigh(S)
    var = values[:-J].mean()
    return np.sqrt(np.maximum(values[-J:] - var, 0))[:, None] * vectors[:, -J:].T, var


class FactorAnalysis(LinearGaussian):
    """Factor analysis by EM (Rubin & Thayer 1982): Ψ diagonal, a variance for every column.

    EM climbs to a maximum that need not be the highest. It starts at PPCA of the columns scaled to variance 1, so that
    the units of a column do not matter, as they do not to the likelihood.

    tol        EM ends when the log-likelihood per datapoint grows by less; it never falls
    max_iter   or after so many iterations, with a warning

    After `fit`, log_likelihood_ has a number for each iteration, nats per datapoint, before its M-step.
    """

    def __init__(self, n_latent, tol=1e-6, max_iter=10_000):
        super().__init__(n_latent)
        self.tol, self.max_iter = positive("tol", tol), whole("max_iter", max_iter)

    def fit(self, x):
        """Fit rows x (N, D); self. ValueError for columns that never vary."""
        mean, S = self._moments(x)
        variance = np.diag(S)
        if (still := int((variance <= 1e-12 * variance.max()).sum())) > 0:
            raise ValueError(
                f"{still} of the {len(S)} columns of x never vary: their noise would have no variance and the "
                "likelihood no maximum; leave them out, as in x[:, x.std(axis=0) > 0]"
            )
        sd, history = np.sqrt(variance), []
        W, noise = _ppca(S / np.outer(sd, sd), self.n_latent)
        self.mean_, self.W_, self.var_ = mean, W * sd, max(noise, 1e-3) * variance
        for _ in range(self.max_iter):
            # E: all that the M-step needs of p(z|x) are these averages over the datapoints
            G, to_latent = self._inference()
            xz = S @ to_latent  # 1/N Σ (x - m)ᵀ E z, (D, J)
            zz = G + to_latent.T @ xz  # 1/N Σ E zᵀz
            history.append(self._log_likelihood(S, G, to_latent, xz))
            if len(history) > 1 and history[-1] - history[-2] < self.tol:
                break
            # M: the regression of x on z, and what it leaves
            self.W_ = np.linalg.solve(zz, xz.T)
            self.var_ = np.maximum(variance - (self.W_ * xz.T).sum(axis=0), 1e-12 * variance)
        else:
            warnings.warn(
                f"EM has not converged to tol = {self.tol:g} in {self.max_iter:,} iterations: allow more (max_iter)",
                stacklevel=2,
            )
        self.log_likelihood_ = np.array(history)
        return self

    def _log_likelihood(self, S, G, to_latent, xz):
        """The mean log p(x) of data with covariance S, as in `score_samples`."""
        trace = (np.diag(S) / self.var_).sum() - (np.linalg.inv(G) * (to_latent.T @ xz)).sum()
        log_det = np.log(self.var_).sum() - np.linalg.slogdet(G)[1]
        return -0.5 * (len(S) * math.log(2 * math.pi) + log_det + trace)
