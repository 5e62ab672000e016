"""The Gaussian with diagonal covariance, q(z|x) = N(μ, σ² I): (9) of Kingma & Welling's paper."""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, gaussian_neg_kl, sum_of_draws
from scratchvae.inference.score_function import factors


class Gaussian:
    """q(z|x) = N(μ, σ² I) (9), with μ and log σ² from the encoder; z = μ + σ ⊙ ε (10)."""

    name = "gaussian"

    def outputs(self, n_latent):
        """μ and log σ², J numbers each."""
        return {"mu": n_latent, "log_var": n_latent}

    def draw(self, eps, mu, log_var):
        """z = μ + σ ⊙ ε, and log N(z; μ, σ² I), in which z - μ = σ ⊙ ε."""
        self.eps = eps
        self.mu = mu
        self.log_var = log_var
        self.sigma = np.exp(0.5 * log_var)
        return mu + self.sigma * eps, -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        """∂bound/∂μ and ∂bound/∂log σ². log q moves with log σ² alone: z - μ = σ ε does not move with μ."""
        dmu = dz.sum(axis=0)  # via z: ∂z/∂μ = 1                         via log q: 0
        dlog_q = sum_of_draws(dlog_q, len(dz))
        dlog_var = 0.5 * ((dz * self.eps).sum(axis=0) * self.sigma - dlog_q)  # via z: ½ σ ε     via log q: -½
        if dneg_kl:
            dmu = dmu - dneg_kl * self.mu  # via -KL: ∂/∂μ = -μ     ∂/∂log σ² = ½ (1 - σ²)
            dlog_var = dlog_var + dneg_kl * (0.5 * (1 - np.exp(self.log_var)))
        return dmu, dlog_var

    def neg_kl(self):
        """½ Σ_j 1 + log σ_j² - μ_j² - σ_j²: appendix B."""
        return gaussian_neg_kl(self.mu, self.log_var, gradient=False)[0]

    def grad_z(self):
        """∂log q/∂z = -(z - μ)/σ² = -ε/σ."""
        return -self.eps / self.sigma

    def noise_of(self, z, mu, log_var):
        """ε = (z - μ)/σ."""
        return (z - mu) * np.exp(-0.5 * log_var)

    def moments(self, mu, log_var):
        """μ and log σ²."""
        return mu, log_var

    def factors(self):
        """log q_j(z_j) at the draw, (L, M, J), and for each output its score ∂log q_j/∂output_j at the z held."""
        _, log_q, *scores = factors(self.mu, self.log_var, self.eps)
        return log_q, scores
