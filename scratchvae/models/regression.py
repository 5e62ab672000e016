"""Bayesian linear and logistic regression: parameters θ and no latents, for a q(θ) without a recognition network.

    p(θ) = N(0, α² I),   p(y|θ) = Π_n N(y_n; x_n θ, σ²)   or   Π_n Bernoulli(y_n; σ(x_n θ))

Both take S draws theta (S, P) at once and give log p(y|θ) and log p(θ), (S,) each in nats, with ∂/∂θ (S, P) unless
gradient=False. With `rows`, an index array or a slice, the likelihood is the product over these n alone. Of the linear
one posterior and evidence are known (Bishop 2006, section 3.3): the exact case.
"""

import math

import numpy as np

from scratchvae.arguments import positive
from scratchvae.inference.distributions import LOG_2PI, log_bernoulli


class LinearRegression:
    """y = X θ + ε, ε ~ N(0, noise² I), θ ~ N(0, alpha² I); x (N, P), y (N,)."""

    def __init__(self, x, y, noise=1.0, alpha=1.0):
        self.x, self.y = _data(x, y)
        self.noise, self.alpha = positive("noise", noise), positive("alpha", alpha)
        self.n_data, self.n_parameters = self.x.shape

    def log_likelihood(self, theta, gradient=True, rows=slice(None)):
        """log N(y; X θ, noise² I), with ∂/∂θ = (y - X θ) X / noise²."""
        x, y = self.x[rows], self.y[rows]
        residual = y - theta @ x.T  # (S, N)
        log_p = -0.5 * (len(y) * (LOG_2PI + 2 * math.log(self.noise)) + (residual**2).sum(axis=1) / self.noise**2)
        return log_p, residual @ x / self.noise**2 if gradient else None

    def log_prior(self, theta, gradient=True):
        """log N(θ; 0, alpha² I), with ∂/∂θ = -θ/alpha²."""
        return _log_prior(theta, self.alpha, gradient)

    def posterior(self):
        """p(θ|y) = N(m, Λ⁻¹): (m (P,), Λ (P, P)), Λ = I/alpha² + XᵀX/noise²."""
        precision = np.eye(self.n_parameters) / self.alpha**2 + self.x.T @ self.x / self.noise**2
        return np.linalg.solve(precision, self.x.T @ self.y) / self.noise**2, precision

    def log_evidence(self):
        """log p(y) = log p(y|θ) + log p(θ) - log p(θ|y), the same at any θ: here at the posterior's mean, a number."""
        m, precision = self.posterior()
        log_posterior = 0.5 * (np.linalg.slogdet(precision)[1] - len(m) * LOG_2PI)
        log_joint = self.log_likelihood(m[None], gradient=False)[0] + self.log_prior(m[None], gradient=False)[0]
        return float(log_joint[0] - log_posterior)


class LogisticRegression:
    """y_n ~ Bernoulli(σ(x_n θ)), θ ~ N(0, alpha² I); x (N, P), y (N,) of 0 and 1."""

    def __init__(self, x, y, alpha=1.0):
        self.x, self.y = _data(x, y)
        if not np.isin(self.y, (0, 1)).all():
            raise ValueError("y has other values than 0 and 1; expected labels 0 or 1")
        self.alpha = positive("alpha", alpha)
        self.n_data, self.n_parameters = self.x.shape

    def log_likelihood(self, theta, gradient=True, rows=slice(None)):
        """Σ_n log Bernoulli(y_n; σ(x_n θ)), with ∂/∂θ = (y - σ(X θ)) X."""
        x, y = self.x[rows], self.y[rows]
        log_p, dlogits = log_bernoulli(y, theta @ x.T, gradient)
        return log_p, dlogits @ x if gradient else None

    def log_prior(self, theta, gradient=True):
        """log N(θ; 0, alpha² I), with ∂/∂θ = -θ/alpha²."""
        return _log_prior(theta, self.alpha, gradient)


def _log_prior(theta, alpha, gradient):
    log_p = -0.5 * (LOG_2PI + 2 * math.log(alpha) + (theta / alpha) ** 2).sum(axis=1)
    return log_p, -theta / alpha**2 if gradient else None


def _data(x, y):
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or x.size == 0:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; expected (N, P) and (N,)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x or y has values that are not finite; expected numbers")
    return x, y
