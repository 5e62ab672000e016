"""The Gaussian with diagonal covariance, (9) of Kingma & Welling, "Auto-Encoding Variational Bayes"."""

import numpy as np

from scratchvae.backend import fused
from scratchvae.inference.distributions import LOG_2PI, gaussian_kl_of_each, gaussian_neg_kl, is_zero, sum_of_draws
from scratchvae.inference.score_function import factors


class Gaussian:
    """q(z|x) = N(μ, σ² I)   (9), where the encoder gives μ and log σ². A draw is z = μ + σ ⊙ ε   (10).

    What the methods take and return is said in inference/posteriors/__init__.py.
    """

    name = "gaussian"

    # The static methods are lines of the methods above them, which call them by this class: a posterior of your own may
    # take a method over, and to change a line it overrides the method.

    def outputs(self, n_latent):
        """Return the outputs μ and log σ² with J numbers each."""
        return {"mu": n_latent, "log_var": n_latent}

    def draw(self, eps, mu, log_var):
        """Return z = μ + σ ⊙ ε and log N(z; μ, σ² I), where z - μ = σ ⊙ ε."""
        self.eps = eps
        self.mu = mu
        self.log_var = log_var
        self.sigma = np.exp(0.5 * log_var)
        return Gaussian._z(mu, self.sigma, eps), Gaussian._log_q(log_var, eps)

    @staticmethod
    @fused
    def _z(mu, sigma, eps):
        """Return z = μ + σ ⊙ ε."""
        return mu + sigma * eps

    @staticmethod
    @fused
    def _log_q(log_var, eps):
        """Return log q at the draw, -½ Σ_j log 2π + log σ_j² + ε_j²."""
        return -0.5 * np.sum(LOG_2PI + log_var + eps * eps, axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        """Return ∂bound/∂μ and ∂bound/∂log σ². At given ε, log q depends on log σ² alone, since z - μ = σ ⊙ ε."""
        dmu = dz.sum(axis=0)  # through z: ∂z/∂μ = 1     through log q: 0
        dsigma = Gaussian._dsigma(dz, self.eps)
        dlog_var = Gaussian._dlog_var(dsigma, self.sigma, sum_of_draws(dlog_q, len(dz)))
        if is_zero(dneg_kl):
            return dmu, dlog_var
        return Gaussian._plus_kl(dmu, dlog_var, self.mu, self.log_var, dneg_kl)

    @staticmethod
    @fused
    def _dsigma(dz, eps):
        """Return ∂bound/∂σ through z, summed over the draws."""
        return np.sum(dz * eps, axis=0)  # ∂z/∂σ = ε

    @staticmethod
    @fused
    def _dlog_var(dsigma, sigma, dlog_q):
        """Return ∂bound/∂log σ² through z and through log q."""
        return 0.5 * (dsigma * sigma - dlog_q)  # through z: ½ σ ε     through log q: -½

    @staticmethod
    @fused
    def _plus_kl(dmu, dlog_var, mu, log_var, dneg_kl):
        """Return both with what comes through -KL: ∂/∂μ = -μ and ∂/∂log σ² = ½ (1 - σ²)."""
        return dmu - dneg_kl * mu, dlog_var + dneg_kl * (0.5 * (1 - np.exp(log_var)))

    def neg_kl(self):
        """Return -KL(q(z|x) ‖ N(0, I)) = ½ Σ_j 1 + log σ_j² - μ_j² - σ_j² (appendix B)."""
        return gaussian_neg_kl(self.mu, self.log_var, gradient=False)[0]

    def grad_z(self):
        """Return ∇_z log q = -(z - μ)/σ² = -ε/σ at the draw."""
        return -self.eps / self.sigma

    def noise_of(self, z, mu, log_var):
        """Return ε = (z - μ)/σ, which leads to z."""
        return (z - mu) * np.exp(-0.5 * log_var)

    def moments(self, mu, log_var):
        """Return μ and log σ², the mean and the log variance of each latent."""
        return mu, log_var

    def latent_kl(self):
        """Return KL(q(z_j|x) ‖ p(z_j)) of each latent. They add up to the KL, since the latents are independent."""
        return gaussian_kl_of_each(self.mu, self.log_var)

    def pairwise_log_q(self, z, mu, log_var):
        """Return log N(z_k; μ_m, σ_m² I) for all pairs, -½ Σ_j log 2π + log σ² + z²/σ² - 2 z μ/σ² + μ²/σ².

        The terms with z are products of matrices. They lose digits where |z| is more than some 1e5 σ.
        """
        precision = np.exp(-log_var)
        constant = (LOG_2PI + log_var + mu * mu * precision).sum(axis=-1)
        log_q = np.concatenate([-0.5 * z * z, z], axis=1) @ np.concatenate([precision, mu * precision], axis=1).T
        log_q -= 0.5 * constant
        return log_q

    def factors(self):
        """Return log q_j(z_j) at the draw, and a list of its scores ∂log q_j/∂μ_j and ∂log q_j/∂log σ_j².

        The scores are taken with z held.
        """
        _, log_q, *scores = factors(self.mu, self.log_var, self.eps)
        return log_q, scores
