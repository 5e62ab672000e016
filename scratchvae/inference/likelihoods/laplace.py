"""The Laplace decoder, whose tails are heavier than a Gaussian's, so that single pixels that are far off weigh less."""

import numpy as np

from scratchvae.backend import fused
from scratchvae.inference.likelihoods.gaussian import Gaussian
from scratchvae.inference.reparameterise import LOG_2, standard_laplace, uniform


class Laplace(Gaussian):
    """p(x|z) = Π_i exp(-|x_i - μ_i| / b_i) / 2 b_i, with μ and log b for each pixel.

    mean is that of `Gaussian`. What the methods take and return is said in inference/likelihoods/__init__.py.
    """

    name = "laplace"
    outputs = ("mu", "log_scale")

    def log_prob(self, x, mu, log_scale, gradient=True):
        """Return log p(x|z) = -Σ_i log 2 + log b_i + |x_i - μ_i|/b_i, with ∂/∂μ and ∂/∂log b."""
        dmu, ratio = Laplace.parts(x, mu, log_scale)
        log_p = Laplace.sum(log_scale, ratio)
        if not gradient:
            return log_p, None, None
        return log_p, dmu, ratio - 1  # ∂/∂log b = |x - μ|/b - 1, since d b⁻¹/dlog b = -b⁻¹

    @staticmethod
    @fused
    def parts(x, mu, log_scale):
        """Return ∂log p/∂μ and the ratio |x - μ|/b, for each pixel."""
        d = x - mu
        rate = np.exp(-log_scale)
        return np.sign(d) * rate, np.abs(d) * rate  # ∂|x - μ|/∂μ = -sign(x - μ), taken as 0 at the kink

    @staticmethod
    @fused
    def sum(log_scale, ratio):
        """Return log p(x|z) from log b and the ratio."""
        return -np.sum(LOG_2 + log_scale + ratio, axis=-1)

    def noise(self, generator, shape, dtype):
        """Return standard Laplace numbers.

        They are made by the inverse of the distribution function, as in section 2.4 of Kingma & Welling, "Auto-Encoding
        Variational Bayes".
        """
        return standard_laplace(uniform(generator, shape)).astype(dtype)

    def draw(self, s, mu, log_scale):
        """Return x = μ + b ⊙ s."""
        return mu + np.exp(log_scale) * s
