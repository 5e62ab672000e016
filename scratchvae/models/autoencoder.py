"""The linear autoencoder, x → z = (x - m) A → x̂ = z B + m, and PCA, whose subspace it finds.

Both minimise ½ E‖x - x̂‖² when z has J numbers. PCA takes orthonormal directions in the order of their variances. An
autoencoder reaches the same minimum (P. Baldi & K. Hornik 1989, "Neural networks and principal component analysis:
learning from examples without local minima"), but its A and B are known only up to an invertible map of z: their
product A B is PCA's projection.

Data are rows x (N, D) in host memory, one datapoint per row. They are taken as the numbers they are, uint8 too: divide
pixels by 255 to have them in [0, 1], as a VAE does by itself. So A is (D, J), B is (J, D), and results are in float64.
Rows of another shape, and values that are not finite, raise a ValueError everywhere; so does any use of a model before
`fit`. An autoencoder with hidden layers is `VAE(estimator="autoencoder")`.
"""

import warnings

import numpy as np

from scratchvae.arguments import fitted, flag, float_rows, positive, whole
from scratchvae.models.moments import centred, principal, signed


class LinearCode:
    """What PCA and the linear autoencoder share once they are fitted: the maps between x and its code z.

    n_latent         is J, how many numbers z has.
    allow_singular   says whether x may vary in fewer than J directions; False unless given, with which such x are
                     refused. With True the numbers of z that are left over tell nothing.

    After `fit`, mean_ (D,) is m, encoder_ (D, J) is A, decoder_ (J, D) is B, and code_var_ (J, J) is the covariance of
    z in the data.
    """

    convergence_warning = UserWarning  # the class of the warning of an ascent that has not converged

    def __init__(self, n_latent, *, allow_singular=False):
        self.n_latent = whole("n_latent", n_latent)
        self.allow_singular = flag("allow_singular", allow_singular)

    def transform(self, x):
        """Return the codes z = (x - m) A of rows x (N, D), (N, J)."""
        return (float_rows(x, len(fitted(self).mean_)) - self.mean_) @ self.encoder_

    def inverse_transform(self, z):
        """Return the reconstructions x̂ = z B + m at codes z (N, J), (N, D)."""
        return float_rows(z, len(fitted(self).decoder_)) @ self.decoder_ + self.mean_

    def score_samples(self, x):
        """Return -½ ‖x - x̂‖² for rows x (N, D), (N,). It is no log-likelihood, since the model has no density."""
        return -0.5 * ((float_rows(x) - self.inverse_transform(self.transform(x))) ** 2).sum(axis=1)

    def score(self, x):
        """Return the mean of -½ ‖x - x̂‖² over rows x (N, D), one number."""
        return float(self.score_samples(x).mean())

    def sample(self, n, seed=0):
        """Return x̂ at n codes z ~ N(0, code_var_), (n, D), all of them in the subspace.

        seed, a whole number ≥ 0, selects the draws.
        """
        generator = np.random.default_rng(whole("seed", seed, least=0))
        z = generator.standard_normal((whole("n", n), self.n_latent))
        return self.inverse_transform(z @ np.linalg.cholesky(fitted(self).code_var_).T)

    def _moments(self, x):
        """Return the mean (D,) of rows x, x less its mean (N, D), and what `principal` says of it.

        A ValueError is raised if J numbers are too many.
        """
        mean, d = centred(x)
        if self.n_latent > d.shape[1]:
            raise ValueError(f"n_latent is {self.n_latent}; expected no more than the {d.shape[1]} columns of x")
        if self.n_latent > len(d) and self.allow_singular:
            raise ValueError(f"n_latent is {self.n_latent}; expected no more than the {len(d)} rows of x")
        values, vectors, rank = principal(mean, d)
        if rank < self.n_latent and not self.allow_singular:
            raise ValueError(
                f"x varies in fewer than {self.n_latent} directions: take fewer latents, and columns of like size"
            )
        return mean, d, values, vectors, rank

    def _keep(self, mean, d, A, B):
        """Keep what was fitted to rows d (N, D) about their mean, all of it at once, and return the model."""
        z = d @ A
        vars(self).update(mean_=mean, encoder_=A, decoder_=B, code_var_=z.T @ z / len(z))
        return self


class PCA(LinearCode):
    """Principal components: A = Bᵀ = U, the eigenvectors of the covariance with the J largest eigenvalues.

    They are in the order of their eigenvalues, the largest first, and the largest entry of each is positive.

    As an estimator of scikit-learn it is `scratchvae.sklearn.PCA`.
    Here `fit` takes x alone, without y.
    """

    def fit(self, x):
        """Fit the model to rows x (N, D) and return it; if x varies in fewer than J directions, raise a ValueError."""
        mean, d, _, vectors, _ = self._moments(x)
        U = signed(vectors[:, : -self.n_latent - 1 : -1].T).T
        return self._keep(mean, d, U, U.T)


class LinearAutoencoder(LinearCode):
    """Finds A and B by gradient ascent of L = -½ E‖x - x̂‖² = -½ tr RᵀSR, with R = I - A B and S the covariance of x.

    As an estimator of scikit-learn it is `scratchvae.sklearn.LinearAutoencoder`.
    Here `fit` takes x, without y, and seed by its name.

    The steps have Nesterov's momentum, which starts anew where L falls (B. O'Donoghue & E. Candès 2015, "Adaptive
    restart for accelerated gradient schemes"). All stationary points but PCA's subspace are saddles, which a random
    start leaves.

    n_latent and allow_singular are those of `LinearCode`.

    tied       says that B = Aᵀ, so that the decoder has the encoder's weights; False unless given. Then A Aᵀ is the
               projection, and A is known up to a rotation.
    tol        ends the ascent when ‖∂L/∂A, ∂L/∂B‖ is below tol times the largest eigenvalue of S; 1e-6 unless given.
    max_iter   ends it after so many steps, with a warning; 100,000 unless given.
    """

    def __init__(self, n_latent, tied=False, tol=1e-6, max_iter=100_000, *, allow_singular=False):
        super().__init__(n_latent, allow_singular=allow_singular)
        self.tied = bool(tied)
        self.tol = positive("tol", tol)
        self.max_iter = whole("max_iter", max_iter)

    def fit(self, x, *, seed=0):
        """Fit the model to rows x (N, D) and return it; if x varies in fewer than J directions, raise a ValueError.

        The ascent begins at A, B ~ N(0, 1/D) drawn with `seed`, a whole number ≥ 0. score_ (steps,) keeps L at each of
        its steps. A warning says so where the smallest of the J variances is so small beside the largest that the
        ascent may end before it has found their directions.
        """
        seed = whole("seed", seed, least=0)
        mean, d, variances, _, rank = self._moments(x)
        largest = variances[-1]
        unit = 2.0 ** np.frexp(largest)[1]  # a power of 2, so that no digit is lost where squares of S would overflow
        S = d.T @ d / len(d) / unit
        if rank >= self.n_latent and variances[-self.n_latent] < 10 * self.tol * largest:
            warnings.warn(
                f"x varies {largest / variances[-self.n_latent]:.2g} times as much in the first direction as in the "
                f"last of {self.n_latent}: with tol = {self.tol:g} the ascent may end before it has found the last; "
                "divide the columns by their standard deviations, or lower tol",
                stacklevel=2,
            )
        largest = largest / unit
        shape = (1 if self.tied else 2, len(S), self.n_latent)  # A, and Bᵀ
        W = ahead = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(len(S))
        start = 0  # the step at which the momentum last started anew
        values = []
        for step in range(self.max_iter):
            value, gradient = _objective(S, ahead)
            if values and value < values[-1]:
                ahead = W
                start = step
                value, gradient = _objective(S, ahead)
            values.append(value)
            if np.linalg.norm(gradient) <= self.tol * largest:  # both are 0 where x never varies
                self.converged_ = True
                break
            before = W
            if not np.isfinite(value):
                raise FloatingPointError(f"the objective is {value} after {step:,} steps")
            W = ahead + 0.25 / largest * gradient
            ahead = W + (step - start) / (step - start + 3) * (W - before)  # W, carried on by the momentum
        else:
            self.converged_ = False
            text = f"the gradient is not below tol = {self.tol:g} after {self.max_iter:,} steps: allow more (max_iter)"
            warnings.warn(text, self.convergence_warning, stacklevel=2)
        self.score_ = np.array(values) * unit
        return self._keep(mean, d, ahead[0], ahead[-1].T)


def _objective(S, W):
    """Return L = -½ tr RᵀSR with R = I - A B, and its gradient. W is (A, Bᵀ), or (A,) alone where B = Aᵀ."""
    A, B_transposed = W[[0, -1]]
    R = np.eye(len(S)) - A @ B_transposed.T
    SR = S @ R
    gradient = np.stack([SR @ B_transposed, (A.T @ SR).T])  # dL = tr RᵀS d(A B): ∂L/∂A = S R Bᵀ     ∂L/∂B = Aᵀ S R
    # Where B = Aᵀ both parts are gradients of A.
    return -0.5 * (R * SR).sum(), gradient if len(W) == 2 else gradient.sum(axis=0, keepdims=True)
