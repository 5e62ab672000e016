"""The linear autoencoder, x → z = (x - m) A → x̂ = z B + m, and PCA, whose subspace it finds (Baldi & Hornik 1989).

Both make ½ E‖x - x̂‖² as small as it can be with J numbers for z. PCA has orthonormal directions in the order of their
variances; an autoencoder's A and B are only known up to an invertible map of z, their product A B is PCA's projection.
Rows are datapoints: A is (D, J), B is (J, D). The autoencoder with hidden layers is `VAE(estimator="autoencoder")`.
"""

import warnings

import numpy as np

from scratchvae.arguments import fitted, float_rows, positive, whole


class LinearCode:
    """x → z → x̂, fitted: mean_ (D,), encoder_ A (D, J), decoder_ B (J, D) and code_var_ (J, J), the covariance of z."""

    def __init__(self, n_latent):
        self.n_latent = whole("n_latent", n_latent)

    def transform(self, x):
        """z = (x - m) A, (N, J)."""
        return (float_rows(x, len(fitted(self).mean_)) - self.mean_) @ self.encoder_

    def inverse_transform(self, z):
        """x̂ = z B + m, (N, D)."""
        return float_rows(z, len(fitted(self).decoder_)) @ self.decoder_ + self.mean_

    def score_samples(self, x):
        """-½ ‖x - x̂‖², (N,): no log-likelihood, there is no density."""
        x = float_rows(x, len(fitted(self).mean_))
        return -0.5 * ((x - self.inverse_transform(self.transform(x))) ** 2).sum(axis=1)

    def score(self, x):
        """The mean of -½ ‖x - x̂‖²."""
        return float(self.score_samples(x).mean())

    def sample(self, n, seed=0):
        """x̂ at n codes z ~ N(0, their covariance in the data), (n, D): all of them in the subspace."""
        root, n = np.linalg.cholesky(fitted(self).code_var_), whole("n", n)
        return self.inverse_transform(np.random.default_rng(seed).standard_normal((n, self.n_latent)) @ root.T)

    def _moments(self, x):
        """Mean (D,) and covariance (D, D) of rows x. ValueError where J numbers are too many."""
        x = float_rows(x)
        if self.n_latent > x.shape[1]:
            raise ValueError(f"n_latent is {self.n_latent}; expected no more than the {x.shape[1]} columns of x")
        mean = x.mean(axis=0)
        S = (x - mean).T @ (x - mean) / len(x)
        rounding = 1e-28 * (x * x).mean()  # the variance of a column whose entries differ in their last digits
        if np.linalg.matrix_rank(S, tol=max(rounding, 1e-14 * np.trace(S)), hermitian=True) < self.n_latent:
            raise ValueError(f"x varies in fewer than {self.n_latent} directions: take fewer latents")
        return mean, S

    def _keep(self, mean, S, A, B):
        self.mean_, self.encoder_, self.decoder_, self.code_var_ = mean, A, B, A.T @ S @ A
        return self


class PCA(LinearCode):
    """Principal components: A = Bᵀ = U, the eigenvectors of the covariance with the J largest eigenvalues."""

    def fit(self, x):
        """Fit rows x (N, D); self. ValueError if x varies in fewer than J directions."""
        mean, S = self._moments(x)
        U = np.linalg.eigh(S)[1][:, : -self.n_latent - 1 : -1]
        return self._keep(mean, S, U, U.T)


class LinearAutoencoder(LinearCode):
    """A and B by gradient ascent of L = -½ E‖x - x̂‖² = -½ tr RᵀSR, R = I - A B, S the covariance of x.

    tied       B = Aᵀ: the decoder has the encoder's weights
    tol        ascent ends when ‖∂L/∂A, ∂L/∂B‖ is below tol times the largest eigenvalue of S
    max_iter   or after so many steps, with a warning

    Steps have Nesterov's momentum, which starts anew where L falls (O'Donoghue & Candès 2015). All stationary points
    but PCA's subspace are saddles, which a random start leaves.
    """

    def __init__(self, n_latent, tied=False, tol=1e-6, max_iter=100_000):
        super().__init__(n_latent)
        self.tied, self.tol, self.max_iter = bool(tied), positive("tol", tol), whole("max_iter", max_iter)

    def fit(self, x, seed=0):
        """Fit rows x (N, D) from A, B ~ N(0, 1/D) drawn with this seed; self. score_ has L of every step."""
        mean, S = self._moments(x)
        largest = np.linalg.eigvalsh(S)[-1]
        shape = (1 if self.tied else 2), len(S), self.n_latent  # A, and Bᵀ
        W = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(len(S))
        ahead, momentum, lr, history = W, 0, 0.25 / largest, []
        for _ in range(self.max_iter):
            value, gradient = _objective(S, ahead)
            if history and value < history[-1]:
                ahead, momentum = W, 0
                value, gradient = _objective(S, ahead)
            history.append(value)
            if np.linalg.norm(gradient) < self.tol * largest:
                break
            momentum += 1
            before, W = W, ahead + lr * gradient
            ahead = W + (momentum - 1) / (momentum + 2) * (W - before)
        else:
            warnings.warn(
                f"the gradient is not below tol = {self.tol:g} after {self.max_iter:,} steps: allow more (max_iter)",
                stacklevel=2,
            )
        self.score_ = np.array(history)
        return self._keep(mean, S, ahead[0], ahead[-1].T)


def _objective(S, W):
    """L = -½ tr RᵀSR at R = I - A B, and its gradient; W is (A, Bᵀ), or (A,) alone, and then B = Aᵀ."""
    A, B = W[0], W[-1].T
    R = np.eye(len(S)) - A @ B
    SR = S @ R
    value = -0.5 * (R * SR).sum()
    dA, dB = SR @ B.T, A.T @ SR  # dL = tr RᵀS d(A B): ∂L/∂A = S R Bᵀ     ∂L/∂B = Aᵀ S R
    return value, (dA + dB.T)[None] if len(W) == 1 else np.stack([dA, dB.T])  # tied: both are of A
