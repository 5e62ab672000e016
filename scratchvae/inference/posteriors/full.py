"""The Gaussian with full covariance, q(z|x) = N(μ, L Lᵀ).

Footnote 2 of Kingma & Welling, "Auto-Encoding Variational Bayes", calls the diagonal covariance of (9) a choice and no
limitation of the method. The encoder gives the Cholesky factor L, that is log L_jj² beside μ, as for the diagonal
posterior, and the entries below the diagonal. These start at zero, so that training departs from the diagonal
posterior.
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, gaussian_kl_of_each, sum_of_draws


class FullGaussian:
    """q(z|x) = N(μ, L Lᵀ) with z = μ + L ε, where the encoder gives μ, log L_jj², and L_ij for i > j.

    What the methods take and return is said in inference/posteriors/__init__.py.
    """

    name = "full"

    def outputs(self, n_latent):
        """Return the outputs: μ and log L_jj² with J numbers each, and J (J - 1)/2 entries L_ij, i > j, row by row."""
        self.n_latent = n_latent
        return {"mu": n_latent, "log_var": n_latent, "lower": n_latent * (n_latent - 1) // 2}

    def start(self, arrays):
        """Set the parameters of L_ij to 0, so that L starts as a diagonal matrix."""
        for name in ("lower.W", "lower.b"):
            arrays[name][...] = 0

    def draw(self, eps, mu, log_var, lower):
        """Return z = μ + L ε and log N(z; μ, L Lᵀ) = -½ Σ_j log 2π + log L_jj² + ε_j², since L⁻¹(z - μ) = ε."""
        self.eps = eps
        self.mu = mu
        self.log_var = log_var
        self.sigma = np.exp(0.5 * log_var)  # L_jj
        self.below = self._below_diagonal(lower)
        z = mu + self.sigma * eps + (self.below @ eps[..., None])[..., 0]
        return z, -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        """Return ∂bound/∂μ, ∂bound/∂log L_jj² and ∂bound/∂L_ij. At given ε, log q depends on log L_jj² alone."""
        dmu = dz.sum(axis=0)  # through z: ∂z/∂μ = 1
        dL = dz.swapaxes(0, 1).swapaxes(1, 2) @ self.eps.swapaxes(0, 1)  # through z, a sum of draws: ∂z_i/∂L_ij = ε_j
        dlog_q = sum_of_draws(dlog_q, len(dz))
        # through z: ∂L_jj/∂log L_jj² = ½ L_jj     through log q: -½
        dlog_var = 0.5 * ((dz * self.eps).sum(axis=0) * self.sigma - dlog_q)
        if dneg_kl:
            dmu = dmu - dneg_kl * self.mu  # through -KL: ∂/∂μ = -μ
            dlog_var = dlog_var + dneg_kl * 0.5 * (1 - self.sigma * self.sigma)  # ∂/∂log L_jj² = ½ (1 - L_jj²)
            dL -= dneg_kl * self.below  # ∂/∂L_ij = -L_ij
        dlower = [dL[:, i, :i] for i in range(self.n_latent)]  # row by row, as they are read; the first row has none
        return dmu, dlog_var, np.concatenate(dlower, axis=1)

    def neg_kl(self):
        """Return -KL(q(z|x) ‖ N(0, I)) = ½ Σ_j 1 + log L_jj² - μ_j² - Σ_i L_ji².

        These are the integrals of appendix B, with tr L Lᵀ in the place of Σ σ_j².
        """
        square = self.sigma * self.sigma + (self.below * self.below).sum(axis=-1)
        return 0.5 * (1 + self.log_var - self.mu * self.mu - square).sum(axis=-1)

    def grad_z(self):
        """Return ∇_z log q = -(L Lᵀ)⁻¹ (z - μ) = -L⁻ᵀ ε at the draw, from the last latent to the first."""
        v = self.eps
        columns = [None] * self.n_latent
        for j in reversed(range(self.n_latent)):  # v_j = (ε_j - Σ_{i>j} L_ij v_i) / L_jj
            columns[j] = v[..., j] / self.sigma[:, j]
            v = v - self.below[:, j] * columns[j][..., None]
        return -np.stack(columns, axis=-1)

    def noise_of(self, z, mu, log_var, lower):
        """Return ε = L⁻¹ (z - μ), which leads to z, from the first latent to the last."""
        below = self._below_diagonal(lower)
        d = z - mu
        columns = []
        for j in range(self.n_latent):  # ε_j = (d_j - Σ_{i<j} L_ji ε_i) / L_jj
            columns.append(d[..., j] * np.exp(-0.5 * log_var[:, j]))
            d = d - below[:, :, j] * columns[-1][..., None]
        return np.stack(columns, axis=-1)

    def moments(self, mu, log_var, lower):
        """Return μ and log (L Lᵀ)_jj, the mean and the log variance of each latent by itself."""
        below = self._below_diagonal(lower)
        return mu, np.log(np.exp(log_var) + (below * below).sum(axis=-1))

    def latent_kl(self):
        """Return KL(q(z_j|x) ‖ p(z_j)) of each latent by itself.

        They add up to less than the KL, which also has what the latents tell about each other under q(z|x).
        """
        variance = self.sigma * self.sigma + (self.below * self.below).sum(axis=-1)  # (L Lᵀ)_jj
        return gaussian_kl_of_each(self.mu, np.log(variance))

    def pairwise_log_q(self, z, mu, log_var, lower):
        """Return log N(z_k; μ_m, L_m L_mᵀ) for all pairs, -½ (Σ_j log 2π + log L_jj² + zᵀPz - 2 zᵀPμ + μᵀPμ).

        P = (L Lᵀ)⁻¹ is symmetric: zᵀPz = Σ_i P_ii z_i² + 2 Σ_i>j P_ij z_i z_j, a product of matrices.
        """
        L = self._below_diagonal(lower)
        diagonal = np.arange(self.n_latent)
        L[:, diagonal, diagonal] = np.exp(0.5 * log_var)
        inverse = np.linalg.inv(L)
        P = inverse.swapaxes(1, 2) @ inverse
        P_mu = (P @ mu[..., None])[..., 0]
        constant = (LOG_2PI + log_var + mu * P_mu).sum(axis=-1)
        i, j = np.tril_indices(self.n_latent)
        half = np.where(i == j, -0.5, -1.0).astype(P.dtype)  # an entry beside the diagonal is there twice
        log_q = np.concatenate([z[:, i] * z[:, j], z], axis=1) @ np.concatenate([half * P[:, i, j], P_mu], axis=1).T
        log_q -= 0.5 * constant
        return log_q

    def _below_diagonal(self, lower):
        """Return the entries of L below its diagonal as matrices (M, J, J) with zeros elsewhere.

        lower (M, J (J - 1)/2) lists them row by row: row i has the i numbers from i (i - 1)/2 on.
        """
        L = np.zeros_like(lower, shape=(len(lower), self.n_latent, self.n_latent))
        for i in range(1, self.n_latent):
            L[:, i, :i] = lower[:, i * (i - 1) // 2 : i * (i + 1) // 2]
        return L
