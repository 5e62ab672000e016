"""Bayesian linear and logistic regression: models with parameters θ and no latents, for a q(θ) of its own.

    p(θ) = N(0, α² I),   p(y|θ) = Π_n N(y_n; x_n θ, σ²)   or   Π_n Bernoulli(y_n; σ(x_n θ))

Data are x (N, P), one datapoint per row, and y (N,), in host memory; they are kept in float64. The methods take S draws
of θ at once, theta (S, P), and return log densities (S,) in nats with their gradients ∂/∂θ (S, P), or None in place of
the gradients where `gradient` is False; it is True unless given. `rows` selects the datapoints in the likelihood, by an
index array or a slice; all of them unless given. `inference.posterior_sgvb` fits q(θ) to these models.

The posterior and the evidence of the linear model are known exactly (C. M. Bishop, "Pattern Recognition and Machine
Learning", 2006, section 3.3), so that a q(θ) can be compared with them.
"""

import math

import numpy as np

from scratchvae.arguments import positive
from scratchvae.backend import plain
from scratchvae.inference.distributions import LOG_2PI, log_bernoulli


class Regression:
    """What both regressions share: the data x (N, P) and y (N,), and the prior p(θ) = N(0, alpha² I).

    n_data is N and n_parameters is P. Other shapes, and values that are not finite or whose squares are not, raise a
    ValueError.
    """

    def __init__(self, x, y, alpha):
        self.x = np.asarray(plain("x", x), float)
        self.y = np.asarray(plain("y", y), float)
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1] or self.x.size == 0:
            raise ValueError(f"x has shape {self.x.shape} and y {self.y.shape}; expected (N, P) and (N,)")
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError("x or y has values that are not finite; expected numbers")
        if max(np.abs(self.x).max(), np.abs(self.y).max()) > 1e150:
            raise ValueError("x or y has values whose squares are not finite: scale them")
        self.alpha = positive("alpha", alpha)
        self.n_data, self.n_parameters = self.x.shape

    def log_prior(self, theta, gradient=True):
        """Return log N(θ; 0, alpha² I), (S,), and ∂/∂θ = -θ/alpha²."""
        log_p = -0.5 * (LOG_2PI + 2 * math.log(self.alpha) + (theta / self.alpha) ** 2).sum(axis=1)
        return log_p, -theta / self.alpha**2 if gradient else None


class LinearRegression(Regression):
    """Linear regression: y = X θ + ε with ε ~ N(0, noise² I) and θ ~ N(0, alpha² I).

    x       holds the inputs, (N, P), in any units. There is no intercept: add a column of ones for one.
    y       holds the outputs, (N,).
    noise   is the standard deviation of ε, in the units of y; 1 unless given.
    alpha   is the prior standard deviation of each θ; 1 unless given.
    """

    def __init__(self, x, y, noise=1.0, alpha=1.0):
        super().__init__(x, y, alpha)
        self.noise = positive("noise", noise)

    def log_likelihood(self, theta, gradient=True, rows=slice(None)):
        """Return log N(y; X θ, noise² I), (S,), over the datapoints in `rows`, and ∂/∂θ = (y - X θ) X / noise²."""
        x = self.x[rows]
        residual = self.y[rows] - theta @ x.T  # (S, N)
        log_p = -0.5 * (len(x) * (LOG_2PI + 2 * math.log(self.noise)) + (residual**2).sum(axis=1) / self.noise**2)
        return log_p, residual @ x / self.noise**2 if gradient else None

    def posterior(self):
        """Return m (P,) and Λ (P, P) of the posterior p(θ|y) = N(m, Λ⁻¹), with Λ = I/alpha² + XᵀX/noise²."""
        precision = np.eye(self.n_parameters) / self.alpha**2 + self.x.T @ self.x / self.noise**2
        return self._mean_and_root()[0], precision

    def log_evidence(self):
        """Return log p(y) in nats, one number.

        log p(y) = log p(y|θ) + log p(θ) - log p(θ|y) is the same at any θ. It is taken at the posterior mean.
        """
        m, root = self._mean_and_root()
        log_posterior = np.log(np.abs(np.diag(root))).sum() - 0.5 * len(m) * LOG_2PI
        log_joint = self.log_likelihood(m[None], gradient=False)[0] + self.log_prior(m[None], gradient=False)[0]
        return float(log_joint[0] - log_posterior)

    def _mean_and_root(self):
        """Return m (P,) and R (P, P) with Λ = RᵀR, from the least squares ‖y - X θ‖²/noise² + ‖θ‖²/alpha².

        R comes from the rows, not from Λ: where columns of x are large and alike, I/alpha² is lost in Λ by rounding.
        """
        P = self.n_parameters
        rows = np.concatenate([self.x / self.noise, np.eye(P) / self.alpha])
        Q, root = np.linalg.qr(rows)
        return np.linalg.solve(root, Q[: self.n_data].T @ self.y / self.noise), root


class LogisticRegression(Regression):
    """Logistic regression: y_n ~ Bernoulli(σ(x_n θ)) with θ ~ N(0, alpha² I).

    x       holds the inputs, (N, P). There is no intercept: add a column of ones for one.
    y       holds the labels, (N,), each 0 or 1; others raise a ValueError.
    alpha   is the prior standard deviation of each θ; 1 unless given.
    """

    def __init__(self, x, y, alpha=1.0):
        super().__init__(x, y, alpha)
        if not np.isin(self.y, (0, 1)).all():
            raise ValueError("y has other values than 0 and 1; expected labels 0 or 1")

    def log_likelihood(self, theta, gradient=True, rows=slice(None)):
        """Return Σ_n log Bernoulli(y_n; σ(x_n θ)), (S,), over the datapoints in `rows`, and ∂/∂θ = (y - σ(X θ)) X."""
        x = self.x[rows]
        log_p, dlogits = log_bernoulli(self.y[rows], theta @ x.T, gradient)
        return log_p, dlogits @ x if gradient else None
