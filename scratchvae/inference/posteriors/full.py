"""The Gaussian with full covariance, q(z|x) = N(μ, L Lᵀ).

Footnote 2 of Kingma & Welling, "Auto-Encoding Variational Bayes", calls the diagonal covariance of (9) a choice and no
limitation of the method. The encoder gives the Cholesky factor L: log L_jj² beside μ, as the diagonal posterior does,
and the entries below the diagonal, which start at zero, so that training departs from the diagonal posterior.
"""

import numpy as np

from scratchvae.backend import kind, move
from scratchvae.inference.distributions import LOG_2PI, sum_of_draws


class FullGaussian:
    """q(z|x) = N(μ, L Lᵀ), z = μ + L ε, with μ, log L_jj² and the J (J - 1)/2 entries below the diagonal."""

    name = "full"

    def outputs(self, n_latent):
        """μ and log L_jj², J numbers each, and L_ij for i > j, row by row."""
        self.n_latent = n_latent
        self.places = {}  # where the entries stand, on each backend
        return {"mu": n_latent, "log_var": n_latent, "lower": n_latent * (n_latent - 1) // 2}

    def start(self, arrays):
        """Let L start as a diagonal matrix, whatever the initial values of the other arrays are."""
        for name in ("lower.W", "lower.b"):
            arrays[name][...] = 0

    def draw(self, eps, mu, log_var, lower):
        """z = μ + L ε, and log N(z; μ, L Lᵀ) = -½ Σ_j log 2π + log L_jj² + ε_j², since L⁻¹(z - μ) = ε."""
        self.eps = eps
        self.mu = mu
        self.log_var = log_var
        self.sigma = np.exp(0.5 * log_var)  # L_jj
        self.below = self._below_diagonal(lower)
        z = mu + self.sigma * eps + (self.below @ eps[..., None])[..., 0]
        return z, -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        """∂bound/∂μ, ∂bound/∂log L_jj² and ∂bound/∂L_ij. log q moves with log L_jj² alone."""
        dmu = dz.sum(axis=0)  # via z: ∂z/∂μ = 1
        dL = (dz[..., :, None] * self.eps[..., None, :]).sum(axis=0)  # via z: ∂z_i/∂L_ij = ε_j
        dlog_q = sum_of_draws(dlog_q, len(dz))
        # via z: ∂L_jj/∂log L_jj² = ½ L_jj     via log q: -½
        dlog_var = 0.5 * ((dz * self.eps).sum(axis=0) * self.sigma - dlog_q)
        if dneg_kl:
            dmu = dmu - dneg_kl * self.mu  # via -KL
            dlog_var = dlog_var + dneg_kl * 0.5 * (1 - self.sigma * self.sigma)
            dL = dL - dneg_kl * self.below
        return dmu, dlog_var, dL.reshape(len(dL), -1).take(self._places(dL)[1], axis=1)

    def neg_kl(self):
        """½ Σ_j 1 + log L_jj² - μ_j² - Σ_i L_ji²: appendix B's integrals, with tr L Lᵀ in the place of Σ σ_j²."""
        square = self.sigma * self.sigma + (self.below * self.below).sum(axis=-1)
        return 0.5 * (1 + self.log_var - self.mu * self.mu - square).sum(axis=-1)

    def grad_z(self):
        """∂log q/∂z = -(L Lᵀ)⁻¹ (z - μ) = -L⁻ᵀ ε, from the last latent to the first."""
        v = self.eps
        columns = [None] * self.n_latent
        for j in reversed(range(self.n_latent)):  # v_j = (ε_j - Σ_{i>j} L_ij v_i) / L_jj
            columns[j] = v[..., j] / self.sigma[:, j]
            v = v - self.below[:, j] * columns[j][..., None]
        return -np.stack(columns, axis=-1)

    def noise_of(self, z, mu, log_var, lower):
        """ε = L⁻¹ (z - μ), from the first latent to the last."""
        below = self._below_diagonal(lower)
        d = z - mu
        columns = []
        for j in range(self.n_latent):  # ε_j = (d_j - Σ_{i<j} L_ji ε_i) / L_jj
            columns.append(d[..., j] * np.exp(-0.5 * log_var[:, j]))
            d = d - below[:, :, j] * columns[-1][..., None]
        return np.stack(columns, axis=-1)

    def moments(self, mu, log_var, lower):
        """μ and log (L Lᵀ)_jj, the log variance of each latent by itself."""
        below = self._below_diagonal(lower)
        return mu, np.log(np.exp(log_var) + (below * below).sum(axis=-1))

    def _below_diagonal(self, lower):
        """L (M, J, J) with zeros on and above the diagonal."""
        padded = np.concatenate([lower, np.zeros_like(lower, shape=(len(lower), 1))], axis=1)
        return padded.take(self._places(lower)[0], axis=1).reshape(-1, self.n_latent, self.n_latent)

    def _places(self, like):
        """For each of J² entries its place among the lower ones, the zero behind them included; and the way back."""
        if kind(like) not in self.places:
            J = self.n_latent
            rows, columns = np.tril_indices(J, -1)
            there = np.full((J, J), len(rows))
            there[rows, columns] = np.arange(len(rows))
            self.places[kind(like)] = [move(index, kind(like)) for index in (there.reshape(-1), rows * J + columns)]
        return self.places[kind(like)]
