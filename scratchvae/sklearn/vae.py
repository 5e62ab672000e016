"""The variational auto-encoder of Kingma & Welling, "Auto-Encoding Variational Bayes", as an estimator.

The model is `models.vae.VAE` or `models.full_vb.FullVB`, and it is trained one pass over the rows at a time, see `run`.
"""

import math
import re
import warnings

import numpy as np
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import gen_batches
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from scratchvae.arguments import flag, is_real, model_rows, positive, share, whole
from scratchvae.guard import one_of
from scratchvae.inference.imputation import impute
from scratchvae.inference.marginal import importance
from scratchvae.inference.objectives import trait
from scratchvae.sklearn.run import NAMES, SETTINGS, Run
from scratchvae.sklearn.tables import FLOATS, Codes, Scored, all_or_nothing, called, drawn
from scratchvae.training.loop import stream
from scratchvae.training.optim import OPTIMIZERS

PAIRS = 32  # how many draws of z, and as many with the other sign, the bound of a score takes at least
SCORING = 3  # sets the noise of scores apart from that of training and of judging


class VAE(Scored, DensityMixin, Codes):
    """A variational auto-encoder: codes z ~ q(z|x), a density p(x) = ∫ p(x|z) p(z) dz, and draws of it.

    It ascends a lower bound on the log-likelihood of the rows by minibatches. Unless told otherwise it is for tables of
    real numbers: x given z is Gaussian with one variance for all columns, and the columns are standardised inside. All
    densities are of the rows as they came in.

    Parameters
    ----------
    n_components : int
        J, how many numbers a code has; 2 unless given.
    likelihood : str or object
        p(x|z): "isotropic", the default, "gaussian", whose variance depends on z and on the column, or "laplace", for
        real numbers; "bernoulli" or "continuous-bernoulli" for numbers in [0, 1]; or an object of your own, see
        `scratchvae.inference.likelihoods`.
    mean : str or None
        The mean of a Gaussian or a Laplace p(x|z): "free", or "sigmoid" for numbers in [0, 1]. None, the default, is
        "free" for these; the means of the others are in [0, 1] anyway.
    standardize : bool
        Whether columns are brought to mean 0 and variance 1 inside; True unless given. It does nothing where the mean
        is not free, nor for a likelihood of your own class, which gets the rows as they are.
    n_hidden : int or tuple of ints
        The widths of the hidden layers of the encoder and, in the same order, of the decoder; 100 unless given. () is
        for none, with which the model is linear.
    activation : str
        The activation of the hidden layers: "tanh", the default, "relu", "softplus" or "sigmoid".
    channels : tuple of ints
        The channels of convolutions around the hidden layers, for square images; () unless given, for none.
    posterior : str or object
        q(z|x): "gaussian", the default, "full", with a full covariance, or an object of your own, see
        `scratchvae.inference.posteriors`.
    flow : int
        The number of planar maps that a draw of the posterior goes through; 0 unless given.
    objective : str, function or None
        What is ascended: "A", "B", "stl", "iwae", "dreg", "wake-sleep", "black-box" or "autoencoder", or a function of
        your own, see `scratchvae.inference.objectives`. None, the default, is "B", or "A" with a flow.
    n_draws : int
        L, the number of draws of z for each row in training; 1 unless given. "iwae" and "dreg" are for more.
    beta : float
        β, the weight of KL(q(z|x) ‖ p(z)) in what is ascended; 1 unless given. Scores are bounds with β = 1.
    free_bits : float
        A latent whose KL is below so many nats costs nothing; 0 unless given.
    prior : bool
        Whether the decoder's weights have a standard normal prior; True unless given.
    full_vb : bool
        Whether the decoder's weights have a posterior of their own (appendix F); False unless given.
    solver : str
        "adam", the default, "adagrad", as in the paper, or "sgd", whose learning_rate has to be far smaller, 1e-5 or
        so.
    learning_rate : float
        The stepsize; 0.002 unless given.
    batch_size : int or "auto"
        How many rows a step sees, or all if there are fewer. "auto", the default, is a twentieth of the rows, but 20 at
        least and 100 at most.
    max_iter : int
        How many passes over the rows `fit` makes at most; 200 unless given. A ConvergenceWarning says so where they
        were too few.
    tol : float
        In nats per row: a pass is no better if it raises the bound by no more than this; 1e-4 unless given. The bound
        is that of the rows that are trained on, or of some of them, with the same noise after each pass.
    n_iter_no_change : int
        Training ends after so many passes in a row that were no better; 20 unless given.
    early_stopping : bool
        Whether a part of the rows is set aside, by whose bound passes are judged, and the best model is kept; False
        unless given.
    validation_fraction : float
        The size of that part; 0.1 unless given.
    n_importance : int or None
        With a number, scores are log p(x), estimated from so many draws of q(z|x) by importance sampling; it may be set
        after `fit`. A warning about k_hat says for how many rows the draws were too few, so that their scores are
        rather tighter bounds: raise it then. None, the default, scores by the bound (7) of the paper, whose expectation
        lies below log p(x).
    total_samples : int or None
        N, how many rows there are in all, for `partial_fit` alone: the prior of the decoder's weights then counts once
        for all of them. With None, the default, it counts once in each call, and so for too much.
    warm_start : bool
        Whether `fit` goes on from where the one before has ended; False unless given. The learning_rate may change.
    verbose : bool or int
        Whether a line is printed after each pass; False unless given.
    random_state : int, RandomState or None
        Selects initial values, minibatches, all noise, and the draws of `sample`. With None, the default, each fit has
        others.

    Attributes
    ----------
    model_ : scratchvae.VAE or scratchvae.FullVB
        The trained model. Its rows are (X - mean_) / scale_.
    mean_, scale_ : arrays (D,)
        By what the columns are standardised; 0 and 1 where they are not.
    bounds_ : array (n_iter_,)
        The bound of the training rows in each pass, in nats per row.
    validation_bounds_ : array (n_iter_,) or None
        With early_stopping, the bound of the rows that are set aside after each pass.
    n_iter_ : int
        The number of passes.
    n_samples_seen_ : int
        The number of rows that the model was trained on; rows that came twice in `partial_fit` count twice.

    All rows are scored with the same draws, a function of random_state, so that a score depends neither on the order of
    the rows nor on the rows beside it. There are 32 and their negatives, which have the mean and the covariance of the
    prior exactly. Other draws move a mean score of small tables by some hundredths of a nat.
    """

    def __init__(
        self,
        n_components=2,
        *,
        likelihood="isotropic",
        mean=None,
        standardize=True,
        n_hidden=100,
        activation="tanh",
        channels=(),
        posterior="gaussian",
        flow=0,
        objective=None,
        n_draws=1,
        beta=1.0,
        free_bits=0.0,
        prior=True,
        full_vb=False,
        solver="adam",
        learning_rate=0.002,
        batch_size="auto",
        max_iter=200,
        tol=1e-4,
        n_iter_no_change=20,
        early_stopping=False,
        validation_fraction=0.1,
        n_importance=None,
        total_samples=None,
        warm_start=False,
        verbose=False,
        random_state=None,
    ):
        self.n_components = n_components
        self.likelihood = likelihood
        self.mean = mean
        self.standardize = standardize
        self.n_hidden = n_hidden
        self.activation = activation
        self.channels = channels
        self.posterior = posterior
        self.flow = flow
        self.objective = objective
        self.n_draws = n_draws
        self.beta = beta
        self.free_bits = free_bits
        self.prior = prior
        self.full_vb = full_vb
        self.solver = solver
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_importance = n_importance
        self.total_samples = total_samples
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    # Training

    @all_or_nothing
    def fit(self, X, y=None):
        """Train the model on rows X (N, D) and return the estimator. y is ignored.

        Ctrl-C after the first pass keeps what was learned so far, and raises KeyboardInterrupt. A bound that is not
        finite raises FloatingPointError and leaves the fit before.
        """
        go_on = flag("warm_start", self.warm_start) and hasattr(self, "model_")
        X = self._of_use(X) if go_on else self._of_fit(X)
        run = self._begun(X, go_on)
        run.n_rows = len(X)
        rows = run.scaled(X)
        valid = None
        size = share("validation_fraction", self.validation_fraction)
        if flag("early_stopping", self.early_stopping):
            if trait(run.model.estimator, "together"):
                raise ValueError(
                    f"early_stopping is True, by the bound of one draw for rows that are set aside, and the objective "
                    f"{self.objective!r} ascends another, under which that one may fall: leave it out"
                )
            rows, valid = train_test_split(rows, test_size=size, random_state=run.seed)  # as in the fit before
        max_iter = whole("max_iter", self.max_iter)
        patience = whole("n_iter_no_change", self.n_iter_no_change)
        if not is_real(self.tol) or self.tol < 0:
            raise ValueError(f"tol is {self.tol!r}; expected a number ≥ 0")
        run.judge_by(rows if valid is None else valid)
        best = -math.inf
        first = None
        waited = 0
        kept = None
        if run.bounds and valid is not None:
            best = run.value_of(run.judged())
            kept = run.model.params.value.copy()
        try:
            for _ in range(max_iter):
                value = self._pass(run, rows, valid is not None)
                first = value if first is None else first
                waited = 0 if value > best + self.tol else waited + 1
                if value > best:
                    best = value
                    kept = None if valid is None else run.model.params.value.copy()
                if waited >= patience:
                    break
            else:
                text = f"not converged after max_iter = {max_iter} passes: allow more, or raise learning_rate or tol"
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
            if not math.isfinite(value):
                text = f"the bound by which passes are judged is {value}: see whether some rows are far from all others"
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
            elif valid is None and value < first - 1:  # a nat, and no jitter of a training that has settled
                text = f"the bound has fallen from {first:.4g} to {value:.4g} nats per row: lower learning_rate"
                warnings.warn(text, ConvergenceWarning, stacklevel=3)
        except KeyboardInterrupt:
            if run.bounds:
                self._keep(run, kept)
            raise
        return self._keep(run, kept)

    def _takes_parts(self):
        """Say that `partial_fit` is there, or raise the AttributeError that says why it is not."""
        if self.early_stopping:
            raise AttributeError("early_stopping is set; expected False for partial_fit, which sees a part of the rows")
        return True

    @available_if(_takes_parts)
    @all_or_nothing
    def partial_fit(self, X, y=None):
        """Train the model by one pass over rows X (N, D), which are a part of the data, and return the estimator.

        The first call decides how the columns are standardised, for all later ones. So its rows should be like the
        others, and many; or standardise the columns yourself, as with `StandardScaler`, and set standardize=False.
        `total_samples` says how many rows there are in all. y is ignored.
        """
        go_on = hasattr(self, "model_")
        X = self._of_use(X) if go_on else self._of_fit(X)
        run = self._begun(X, go_on)
        if self.total_samples is not None and self.total_samples < len(X):
            raise ValueError(
                f"total_samples is {self.total_samples}, and X has {len(X)} rows; expected no fewer than those"
            )
        run.warn_of_scale(X)
        run.n_rows += len(X)
        self._pass(run, run.scaled(X), False, self.total_samples)
        return self._keep(run)

    def _begun(self, X, go_on):
        """Return the `Run` that trains on rows X (N, D): a copy of the fit before, or a new one."""
        settings = self._settings()
        if not go_on:
            return Run(settings, X, drawn(self.random_state), self.learning_rate)
        was = self._fitted_with
        changed = [name for name in SETTINGS if was[name] is not settings[name] and was[name] != settings[name]]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed since the fit that this one goes on from: take a clone of the estimator"
            )
        return self._run.copied(positive("learning_rate", self.learning_rate))

    def _settings(self):
        """Return the arguments that a fit that goes on may not change, by name."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        whole("n_components", self.n_components)
        for name in ("standardize", "prior", "full_vb"):
            flag(name, settings[name])
        for name in ("n_importance", "total_samples"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        if not isinstance(self.solver, str) or self.solver not in OPTIMIZERS:
            raise ValueError(f"solver is {self.solver!r}; expected one of {', '.join(OPTIMIZERS)}")
        return settings

    def _pass(self, run, rows, held_out, n_data=None):
        """Train by one pass over rows, of which there are n_data in all, and return the value by which it is judged.

        held_out says whether it is judged by rows that were set aside.
        """
        size = self.batch_size
        if isinstance(size, str) and size == "auto":
            size = min(100, max(20, len(rows) // 20))
        verbose = self.verbose if isinstance(self.verbose, bool | np.bool_) else whole("verbose", self.verbose, least=0)
        value = run.go_on(rows, whole("batch_size", size), n_data, held_out)
        if verbose:
            held = f", of the rows set aside {run.validation_bounds[-1]:.3f}" if held_out else ""
            print(f"pass {len(run.bounds)}: the bound of the training rows is {run.bounds[-1]:.3f} nats per row{held}")
        return value

    def _keep(self, run, best=None):
        """Keep what a run has learned, with the best parameters (P,) if there are any, and return the estimator."""
        if best is not None:
            run.model.params.value[...] = best
        run.judge_by(None)  # a copy or a pickle of the estimator holds no rows
        self._run = run
        self._fitted_with = {name: getattr(self, name) for name in SETTINGS}
        self.model_ = run.model
        self.mean_ = run.mean
        self.scale_ = run.scale
        self.bounds_ = np.array(run.bounds)
        held = np.array(run.validation_bounds)
        self.validation_bounds_ = None if np.isnan(held).all() else held
        self.n_iter_ = len(run.bounds)
        self.n_samples_seen_ = run.n_rows
        return self

    # What one does with a trained model

    @property
    def _n_features_out(self):
        return self.model_.n_latent

    def transform(self, X):
        """Return the means of q(z|x), (N, J), for rows X (N, D)."""
        X = self._of_use(X)
        with one_of(self.model_) as model:
            return model.encode_mean(self._scaled(X, model)).astype(X.dtype, copy=False)

    def inverse_transform(self, X):
        """Return E[x|z], (N, D), for codes z, the rows of X (N, J)."""
        X = self._codes(X)
        with one_of(self.model_) as model:
            return self._run.unscaled(model.decode(X)).astype(X.dtype, copy=False)

    def reconstruct(self, X):
        """Return E[x|z] at the means of q(z|x), (N, D), for rows X (N, D)."""
        return self.inverse_transform(self.transform(X))

    def score_samples(self, X, y=None):
        """Return the bound (7) of the paper on log p(x), in nats, for each of the rows X (N, D), (N,). y is ignored.

        With n_importance it is log p(x), estimated by importance sampling. For the objective "autoencoder", which has
        no bound, it is log p(x|z) at the code.
        """
        X = self._of_use(X)
        with one_of(self.model_) as model:
            rows = self._scaled(X, model)
            if self.n_importance is None:
                found = self._bounds(model, rows)
            else:
                same = np.zeros(len(X), int)  # the number of each row, of which its noise is a function
                with called(n_samples="n_importance"):
                    found = importance(model, rows, self.n_importance, self._run.seed, numbers=same).log_p
        return (found - np.log(self.scale_).sum()).astype(X.dtype, copy=False)

    def impute(self, X, chains=10, steps=10, burn_in=10):
        """Return rows X (N, D) with an estimate of E[x_missing|x_known] in the place of each NaN.

        It is the mean over chains of pseudo-Gibbs sampling, z ~ q(z|x) and x_missing ~ p(x|z) in turns, see
        `scratchvae.inference.imputation`. Each chain begins at a draw of the prior, and makes burn_in transitions, and
        then as many as steps says, whose means are taken; 10 of each unless given. The draws are a function of
        random_state and of the place of the row. Rows of another width, and numbers that are not finite and no NaN,
        raise a ValueError.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False, ensure_all_finite="allow-nan")
        chains = whole("chains", chains)
        missing = np.isnan(X)
        known = np.where(missing, self.mean_, X).astype(X.dtype)  # what stands in a hole is not read
        with one_of(self.model_) as model:
            rows = np.repeat(self._scaled(known, model), chains, axis=0)
            holes = np.repeat(missing, chains, axis=0)
            found = impute(model, rows, holes, steps, burn_in, seed=self._run.seed)
        filled = self._run.unscaled(found.reshape(len(X), chains, -1).mean(axis=1)).astype(X.dtype)
        return np.where(missing, filled, X)

    def sample(self, n_samples=1, random_state=None):
        """Return draws x ~ p(x), (n_samples, D): z from the prior, and x from p(x|z).

        random_state selects them; with None it is that of the estimator. `inverse_transform` of codes gives means,
        which have no noise of their own: for "bernoulli", whose draws are 0 and 1, they are the grey pixels.
        """
        seed = self._seed_of(n_samples, random_state)
        with one_of(self.model_) as model:
            x = model.simulate(n_samples, seed)[1]
            return self._run.unscaled(x).astype(x.dtype, copy=False)

    def save(self, folder):
        """Write the model as a run folder, as `scratchvae.fit` does, which `scratchvae.load_model` reads.

        The rows of the model that is read are (X - mean_) / scale_; the options in config.json have these two. A folder
        that holds a run already, or anything else, raises ValueError. joblib and pickle keep the whole estimator.
        """
        check_is_fitted(self)
        try:
            self._run.save(folder)
        except ValueError as error:  # which speaks of options of the command line
            raise ValueError(re.sub(r" \([^()]*--[^()]*\)", "", str(error))) from None

    def _bounds(self, model, rows):
        """Return the bound (7) of each of the rows (N, D), (N,), all with the same draws ε."""
        eps = paired(stream(self._run.seed, SCORING, 0), model.n_latent).astype(model.dtype)
        parts = []
        for block in gen_batches(len(rows), max(1, model.rows_at_once() // len(eps))):
            x = rows[block]
            with np.errstate(all="ignore"):  # a row that is far from all others has a bound that is not finite
                neg_kl, log_px = model.terms(x, np.repeat(eps, len(x), axis=1))
            parts.append(neg_kl.astype(float) + log_px)
        return np.concatenate(parts)

    def _scaled(self, X, model):
        """Return rows X (N, D) as the model takes them; those that it cannot score raise a ValueError."""
        with called(**NAMES):
            return model_rows("X", self._run.scaled(X), model, least=1)


def paired(generator, J):
    """Return draws ε (L, 1, J) in pairs of either sign, whose mean is 0 and whose second moments are I exactly.

    They are orthogonal directions that all lengths share, Σ ε εᵀ = L I, and not independent. What is linear or
    quadratic in ε therefore has no error: nearly all of the noise of a bound.
    """
    half = max(PAIRS, J)
    q = np.linalg.qr(generator.standard_normal((half, J)))[0] * math.sqrt(half)
    return np.concatenate([q, -q])[:, None]
