"""Linear models with Gaussian noise: probabilistic PCA in closed form, and factor analysis by EM.

Both say that x = z W + m + ε with z ~ N(0, I) and noise ε ~ N(0, Ψ), so that

    p(x) = N(m, Wᵀ W + Ψ)          p(z|x) = N((x - m) Ψ⁻¹ Wᵀ G, G)          G = (I + W Ψ⁻¹ Wᵀ)⁻¹

In probabilistic PCA Ψ is σ² I (Tipping & Bishop 1999, "Probabilistic principal component analysis"), and in factor
analysis it is diagonal. G is the same for all x. Datapoints are rows here, so W has the shape (J, D) and is the
transpose of the W of the textbooks. Rows are taken as the numbers they are, uint8 too: divide pixels by 255 to have
them in [0, 1], as a VAE does by itself.
"""

import warnings

import numpy as np

from scratchvae.arguments import fitted, flag, float_rows, positive, whole
from scratchvae.models.moments import FLOOR, TINY, centred, listed, names_of, principal, signed

ENOUGH = 1e-6  # nats: what an iteration of EM must bring, since sweeps bring more
RELATED = 1e-12  # a correlation matrix with an eigenvalue below it has columns that depend on each other linearly


class LinearGaussian:
    """What the two models share once they are fitted: p(x) = N(m, Wᵀ W + Ψ), its posterior and its samples.

    n_latent         is J, a whole number ≥ 1 and below D.
    allow_singular   says whether data are taken for which the likelihood has no maximum, since it grows without bound
                     as a variance of the noise goes to 0. With False, unless given, they are refused. With True no
                     variance goes below `FLOOR` of a column's, or is `TINY` where a column never varies, and J may be
                     anything from 0 to D.

    `fit` sets mean_ (D,), which is m, W_ (J, D), and var_ (D,), the diagonal of Ψ. Every method raises ValueError
    before the fit, and for rows of another width.
    """

    def __init__(self, n_latent, *, allow_singular=False):
        self.allow_singular = flag("allow_singular", allow_singular)
        self.n_latent = whole("n_latent", n_latent, least=0 if allow_singular else 1)

    def posterior(self, x):
        """Return the mean (N, J) and the covariance G (J, J) of p(z|x) for rows x (N, D)."""
        _, G, to_latent = _inference(fitted(self).W_, self.var_)
        return self._centred(x) @ to_latent, G

    def transform(self, x):
        """Return E[z|x] (N, J) for rows x (N, D)."""
        return self.posterior(x)[0]

    def inverse_transform(self, z):
        """Return E[x|z] = z W + m (N, D) for rows z (N, J)."""
        return float_rows(z, len(fitted(self).W_)) @ self.W_ + self.mean_

    def score_samples(self, x):
        """Return log p(x) in nats (N,), for each of the rows x (N, D)."""
        d = self._centred(x)
        precision, _, to_latent = _inference(self.W_, self.var_)
        z = d @ to_latent
        rest = d - z @ self.W_
        square = (rest * rest / self.var_).sum(axis=1) + (z * z).sum(axis=1)
        return _log_density(self.var_, precision, square)

    def score(self, x):
        """Return the mean of log p(x) over rows x (N, D), in nats per datapoint."""
        return float(self.score_samples(x).mean())

    def sample(self, n, seed=0):
        """Return n draws x ~ p(x), (n, D), which are a function of the seed, a whole number ≥ 0."""
        generator = np.random.default_rng(whole("seed", seed, least=0))
        z = generator.standard_normal((whole("n", n), self.n_latent))
        eps = generator.standard_normal((n, len(fitted(self).mean_)))
        return z @ self.W_ + self.mean_ + np.sqrt(self.var_) * eps

    def _centred(self, x):
        """Return x - m for rows x (N, D)."""
        return float_rows(x, len(fitted(self).mean_)) - self.mean_

    def _moments(self, x):
        """Return mean (D,) of rows x, and x less its mean (N, D). ValueError where there are too few of either."""
        mean, d = centred(x)
        N, D = d.shape
        if self.n_latent >= D + self.allow_singular:
            most = "no more" if self.allow_singular else "fewer"
            raise ValueError(f"n_latent is {self.n_latent}; expected {most} than the {D} columns of x")
        if N < 2:
            raise ValueError(f"x has {N} row; expected two or more, whose covariance is to be explained")
        return mean, d

    def _check_rank(self, rank, rows):
        """Raise a ValueError where x varies in no more than J directions: noise of variance 0 explains it then."""
        if rank <= self.n_latent and not self.allow_singular:
            raise ValueError(
                f"x varies in no more than {self.n_latent} directions (it has {rows:,} rows and rank {rank}), and the "
                "likelihood has no maximum: take fewer latents or more rows, and columns of like size"
            )


def _inference(W, var):
    """Return G⁻¹ and G (J, J), the posterior's precision and covariance, and Ψ⁻¹ Wᵀ G (D, J), which maps x to z.

    W is (J, D), and var (D,) is the diagonal of Ψ.
    """
    scaled = (W / var).T  # Ψ⁻¹ Wᵀ
    precision = np.eye(len(W)) + W @ scaled  # G⁻¹ = I + W Ψ⁻¹ Wᵀ
    G = np.linalg.inv(precision)
    return precision, G, scaled @ G


def _log_density(var, precision, square):
    """Return log N(x; m, C) = -½ (D ln 2π + ln|C| + square), where C = Wᵀ W + Ψ and square = (x - m) C⁻¹ (x - m)ᵀ.

    No D x D matrix is inverted, since ln|C| = ln|Ψ| + ln|G⁻¹|, and the square is the least that noise and latents can
    have together: (x - m - z W) Ψ⁻¹ (x - m - z W)ᵀ + z zᵀ at the posterior mean z = (x - m) Ψ⁻¹ Wᵀ G. In this form
    nothing cancels where a variance is small, and an error in z counts in its square alone.
    """
    log_det = np.log(var).sum() + np.linalg.slogdet(precision)[1]
    return -0.5 * (len(var) * np.log(2 * np.pi) + log_det + square)


class PPCA(LinearGaussian):
    """Probabilistic PCA: Ψ = σ² I, at the maximum of the likelihood (Tipping & Bishop 1999, eqs. 7 and 8).

    As an estimator of scikit-learn it is `scratchvae.sklearn.PPCA`.
    Here `fit` takes x alone, without y.

    With the eigenvalues λ and the eigenvectors U of the covariance of x, σ² is the mean of the λ that are left out, and
    W = (Λ - σ² I)^½ Uᵀ with the J largest. W is known up to a rotation of z; this one has the largest λ first, and the
    largest entry of each row is positive. n_latent and allow_singular are those of
    `LinearGaussian`. Where J = D, every σ² up to the smallest λ has the same likelihood, and the floor is taken if it
    is among them.
    """

    def fit(self, x):
        """Fit the model to rows x (N, D) and return it.

        Raises ValueError where x varies in no more than J directions: then σ² = 0, and p(x) has no bound.
        """
        mean, d = self._moments(x)
        values, vectors, rank = principal(mean, d)
        self._check_rank(rank, len(d))
        if self.n_latent > len(d):
            raise ValueError(f"n_latent is {self.n_latent}; expected no more than the {len(d)} rows of x")
        W, var = _ppca(values, vectors, self.n_latent, self._least(values, rank))
        self.mean_ = mean
        self.W_ = W
        self.var_ = np.full(len(mean), var)
        return self

    def _least(self, values, rank):
        """Return the σ² where the eigenvalues that are left out say none, and 0 where they do."""
        if rank > self.n_latent:
            return 0.0
        floor = FLOOR * values.mean() or TINY
        if rank == len(values):
            return min(floor, values[0])
        warnings.warn(
            f"the rank of x is {rank}, and {self.n_latent} latents explain it to the last: the noise has the least "
            f"variance allowed, {floor:.2g}; take fewer latents, or more rows",
            stacklevel=3,
        )
        return floor


def _ppca(values, vectors, J, least=0.0):
    """Return W (J, D) and σ² of probabilistic PCA from the eigenvalues and eigenvectors of the covariance.

    least is the σ² to take in place of the mean of the eigenvalues that are left out; 0, unless given, for that mean.
    """
    left = len(values) - J
    U = vectors[:, vectors.shape[1] - J :]
    var = least or values[:left].mean()
    W = np.sqrt(np.maximum(values[left:] - var, 0))[:, None] * U.T
    return signed(W[::-1]), var


class FactorAnalysis(LinearGaussian):
    """Factor analysis by EM (Rubin & Thayer 1982, "EM algorithms for ML factor analysis"): every column has a noise.

    As an estimator of scikit-learn it is `scratchvae.sklearn.FactorAnalysis`.
    Here `fit` takes x, without y, and seed by its name.

    EM climbs to a maximum that need not be the highest, so it starts `n_starts` times, and the highest is kept. All
    starts are at columns scaled to variance 1, so that the units of a column do not matter, as they do not matter to
    the likelihood. Where the noise of a column vanishes, EM takes ever smaller steps. The best run is therefore ended
    by sweeps of conditional maximisation, in which each variance goes straight to its maximum (Zhao, Yu & Jiang 2008,
    "ML estimation for factor analysis: EM or non-EM?"): see `_sweep`.

    n_latent and allow_singular are those of `LinearGaussian`.

    tol        ends the sweeps when the log-likelihood per datapoint has grown by less, in nats; 1e-6 unless given. EM
               ends there too, or at 1e-6 where tol is smaller, since the sweeps go on from there, and faster.
    max_iter   ends each of them with a warning after so many iterations; 10,000 unless given.
    n_starts   is the number of starts, 10 unless given, or 1 where J ≥ D - 1. The first is at the probabilistic PCA of
               the scaled columns, the others are random. More of them cost more time and may find a higher maximum.

    After `fit`, log_likelihood_ holds the log-likelihood at the start of the best run and after each of its iterations,
    in nats per datapoint, and starts_ (n_starts,) where EM has ended from each start. heywood_ lists the columns whose
    noise has the least variance that is allowed, `FLOOR` of the column's: the names of a data frame's columns, or else
    their numbers from 0. A warning names them, since the factors explain such a column to the last (Heywood 1931, "On
    finite sequences of real numbers").
    """

    convergence_warning = UserWarning  # the class of the warning of an EM that has not converged

    def __init__(self, n_latent, tol=1e-6, max_iter=10_000, n_starts=10, *, allow_singular=False):
        super().__init__(n_latent, allow_singular=allow_singular)
        self.tol = positive("tol", tol)
        self.max_iter = whole("max_iter", max_iter)
        self.n_starts = whole("n_starts", n_starts)

    def fit(self, x, *, seed=0, names=None):
        """Fit the model to rows x (N, D) and return it. seed, a whole number ≥ 0, selects the random starts.

        names lists what messages call the columns; unless given, it is what a data frame calls them, or their numbers.

        Raises ValueError where the likelihood has no maximum: columns never vary, J + 1 columns or fewer depend on each
        other linearly, as two equal ones do, or the rows vary in no more than J directions. Raises FloatingPointError
        where the log-likelihood falls by more than rounding, which is no convergence.
        """
        seed = whole("seed", seed, least=0)
        names = names_of(x) if names is None else list(names)
        mean, d = self._moments(x)
        sd = np.sqrt((d * d).mean(axis=0))
        varies = sd > 0
        if not varies.all() and not self.allow_singular:
            raise ValueError(
                f"{(~varies).sum()} of the {len(sd)} columns of x never vary: their noise would have no variance and "
                "the likelihood no maximum; leave them out, as in x[:, x.std(axis=0) > 0]"
            )
        d = d[:, varies] / sd[varies]
        R = d.T @ d / len(d)  # the correlations
        values, vectors = np.linalg.eigh(R)
        self._check_rank(int((values > RELATED * len(R)).sum()), len(d))
        if not self.allow_singular:
            _check_related(R, values, vectors, self.n_latent, names)
        starts = self._starts(values, vectors, seed)
        runs = [self._climb(_em, R, W, var, max(self.tol, ENOUGH)) for W, var in starts]
        W, var, history, settled = max(runs, key=lambda run: run[2][-1])
        if settled:
            W, var, after, settled = self._climb(_sweep, R, W, var, self.tol)
            history = history + after[1:]
            floor = np.flatnonzero(var <= FLOOR)
            related = np.linalg.eigvalsh(R[np.ix_(floor, floor)])[:1].sum() < RELATED * len(floor)
            if related and not self.allow_singular:
                raise ValueError(_related([names[i] for i in floor]))
        if not settled:
            limit = f"tol = {self.tol:g} in {self.max_iter:,} iterations"
            text = f"EM has not converged to {limit}: allow more (max_iter)"
            warnings.warn(text, self.convergence_warning, stacklevel=2)
        self.converged_ = settled
        self.mean_ = mean
        self.W_ = np.zeros((self.n_latent, len(sd)))
        self.W_[: len(W), varies] = W * sd[varies]
        self.var_ = np.full(len(sd), TINY)
        self.var_[varies] = var * sd[varies] ** 2
        still = (~varies).sum() * -0.5 * np.log(2 * np.pi * TINY)  # what the columns that never vary add to log p(x)
        units = still - np.log(sd[varies]).sum()  # and what the scale of the others does
        self.log_likelihood_ = np.array(history) + units
        self.starts_ = np.array([run[2][-1] for run in runs]) + units
        if not varies.all():
            names_still = listed([names[i] for i in np.flatnonzero(~varies)])
            warnings.warn(
                f"x never varies in {names_still}: a noise of variance {TINY:g} there adds {still:.1f} nats to each "
                "log p(x); leave out what never varies",
                stacklevel=2,
            )
        self.heywood_ = [names[i] for i in np.flatnonzero(varies)[var <= FLOOR]]
        if self.heywood_:
            warnings.warn(
                f"the noise of {listed(self.heywood_)} has the least variance allowed, {FLOOR:g} of the column's: "
                "the factors explain it to the last (a Heywood case); take fewer latents, more rows, or leave it out",
                stacklevel=2,
            )
        return self

    def _starts(self, values, vectors, seed):
        """Yield W (J, D) and the diagonal of Ψ (D,) at each start, for columns of variance 1.

        values and vectors are those of the correlations. At the random starts half of each column's variance is noise.
        With J ≥ D - 1 there is the first start alone, at which the model is the Gaussian of the data already.
        """
        J = min(self.n_latent, len(values))
        W, noise = _ppca(values, vectors, J, 0.0 if len(values) > J else 1e-3)
        yield W, np.full(len(values), max(noise, 1e-3))
        for k in range(1, self.n_starts if len(values) > J + 1 else 1):
            W = np.random.default_rng([seed, k]).standard_normal(W.shape)
            yield W / np.sqrt(2 * len(W)), np.full(len(values), 0.5)

    def _climb(self, step, R, W, var, tol):
        """Take steps until one raises the log-likelihood by less than tol.

        The result is (W, var, log-likelihoods, whether they have settled): all that were met, in a list, the last of
        them at W and var.
        """
        history = []
        for _ in range(self.max_iter + 1):
            value, rounding, latents = _evidence(R, W, var)
            if history and value < history[-1] - rounding:
                raise FloatingPointError(
                    f"the log-likelihood fell by {history[-1] - value:.2g} nats per datapoint in iteration "
                    f"{len(history)}, which is no convergence: leave out columns that nearly depend on each other"
                )
            history.append(value)
            if len(history) > 1 and history[-1] - history[-2] < tol:
                return W, var, history, True
            if len(history) <= self.max_iter:
                W, var = step(R, W, var, *latents)
        return W, var, history, False


def _evidence(R, W, var):
    """Return the log-likelihood per datapoint of columns with the correlations R (D, D), its rounding, and E z.

    The third are the averages over the datapoints that EM needs of p(z|x): G (J, J), 1/N Σ (x - m)ᵀ E z (D, J), and
    1/N Σ (E z)ᵀ E z (J, J).
    """
    precision, G, to_latent = _inference(W, var)
    xz = R @ to_latent
    spread = to_latent.T @ xz
    rest = 1 - 2 * (W * xz.T).sum(axis=0) + (W * (spread @ W)).sum(axis=0)  # the mean square of x - m - z W
    value = _log_density(var, precision, (rest / var).sum() + np.trace(spread))
    return value, 1e-13 * (np.abs(value) + (1 / var).sum()), (G, xz, spread)


def _em(R, W, var, G, xz, spread):
    """Return W and var after the M-step: the regression of x on z, and what it leaves; G + spread is 1/N Σ E zᵀz."""
    W = np.linalg.solve(G + spread, xz.T)
    return W, np.maximum(1 - (W * xz.T).sum(axis=0), FLOOR)


def _sweep(R, W, var, *_):
    """Return W and var after a sweep of conditional maximisation, each at its maximum with the others held.

    With the eigenvalues λ and the eigenvectors U of Ψ^-½ R Ψ^-½ the best W is (Λ - I)^½ Uᵀ Ψ^½ with the J largest λ
    above 1 (Lawley 1940, "The estimation of factor loadings by the method of maximum likelihood").

    A variance ψ_i that grows by δ adds δ e eᵀ to C, with e the i-th unit vector. With v = C⁻¹ e, a = v_i and b = v R vᵀ
    the log-likelihood changes by -½ (ln(1 + δ a) - δ b/(1 + δ a)), which has one maximum, at δ = (b - a)/a².
    """
    J = len(W)
    root = np.sqrt(var)
    values, vectors = np.linalg.eigh(R / np.outer(root, root))
    left = len(values) - J
    W = np.sqrt(np.maximum(values[left:] - 1, 0))[:, None] * vectors[:, left:].T * root
    var = var.copy()
    precision = np.eye(J) + (W / var) @ W.T
    for i, w in enumerate(W.T):
        v = -(np.linalg.solve(precision, w) @ W) / var / var[i]  # C⁻¹ = Ψ⁻¹ - Ψ⁻¹ Wᵀ G W Ψ⁻¹ (Woodbury)
        v[i] += 1 / var[i]
        a = v[i]
        b = v @ R @ v
        new = max(var[i] + (b - a) / a**2, FLOOR)
        precision += (1 / new - 1 / var[i]) * np.outer(w, w)
        var[i] = new
    return W, var


def _related(names):
    """Return the message about columns that depend on each other, so that no noise is left to them."""
    return (
        f"{listed(names)} of x depend on each other linearly, as equal ones do: the factors explain them without "
        "noise, and the likelihood has no maximum; leave one of them out"
    )


def _check_related(R, values, vectors, J, names):
    """Raise a ValueError where J + 1 columns or fewer depend on each other linearly, as far as that is seen at once.

    J factors can then explain them without noise, and the likelihood grows without bound. More columns that depend on
    each other do no harm. `fit` looks once more at the columns that have lost their noise in the end.
    """
    equal = np.argwhere(np.triu(np.abs(R) > 1 - RELATED, 1))
    if len(equal):
        others = len(np.unique(equal[:, 1])) - 1
        more = f"; {others:,} other columns equal an earlier one up to a factor" if others else ""
        raise ValueError(_related([names[i] for i in equal[0]]) + more)
    null = vectors[:, values <= RELATED * len(R)].T.copy()  # each row holds the weights of a sum that is always 0
    for k in range(len(null)):  # Gauss and Jordan: each row leaves out what another can say
        i = np.abs(null[k]).argmax()
        null[k] /= null[k, i]
        others = np.arange(len(null)) != k
        null[others] -= null[others, i][:, None] * null[k]
    for row in null:
        involved = np.flatnonzero(np.abs(row) > 1e-6 * np.abs(row).max())
        if len(involved) <= J + 1:
            raise ValueError(_related([names[i] for i in involved]))
