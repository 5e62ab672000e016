"""The Gaussian with full covariance, q(z|x) = N(μ, L Lᵀ).

Footnote 2 of Kingma & Welling, "Auto-Encoding Variational Bayes", calls the diagonal covariance of (9) a choice and no
limitation of the method. The encoder gives the Cholesky factor L: log L_jj² beside μ, as the diagonal posterior does,
and the entries below the diagonal, which start at zero, so that training departs from the diagonal posterior.
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, sum_of_draws


class FullGaussian:
    """q(z|x) = N(μ, L Lᵀ), z = μ + L ε, with μ, log L_jj² and the J (J - 1)/2 entries below the diagonal."""

    name = "full"

    def outputs(self, n_latent):
        """μ and log L_jj², J numbers each, and L_ij for i > j, row by row."""
        self.n_latent = n_latent
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
        dlower = [dL[:, i, :i] for i in range(self.n_latent)]  # row by row, as they come; none in the first row
        return dmu, dlog_var, np.concatenate(dlower, axis=1)

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
        """L (M, J, J) with zeros on and above the diagonal; row i is the i numbers from i (i - 1)/2 on."""
        L = np.zeros_like(lower, shape=(len(lower), self.n_latent, self.n_latent))
        for i in range(1, self.n_latent):
            L[:, i, :i] = lower[:, i * (i - 1) // 2 : i * (i + 1) // 2]
        return L
