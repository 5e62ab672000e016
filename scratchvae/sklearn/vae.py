"""The variational auto-encoder of Kingma & Welling, "Auto-Encoding Variational Bayes", as an estimator.

The model is `models.vae.VAE` or `models.full_vb.FullVB`, and it is trained by `training.loop.fit`, one pass over the
rows at a time.
"""

import contextlib
import copy
import math
import warnings

import numpy as np
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from scratchvae.arguments import flag, is_real, model_rows, share, takes_unit, whole
from scratchvae.data.pixels import in_words
from scratchvae.guard import one_of
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.marginal import importance
from scratchvae.inference.objectives import trait
from scratchvae.models import full_vb, vae
from scratchvae.models.moments import centred
from scratchvae.sklearn.tables import Codes, Scored, called, drawn
from scratchvae.training.loop import facts_of, fit, stream
from scratchvae.training.optim import OPTIMIZERS, Continued
from scratchvae.training.run import save_run

SCORED = 64  # how many draws of z the bound of a score takes
SCORING = 3  # sets the noise of scores apart from that of training
OF_MODEL = ("n_components", "likelihood", "n_hidden", "activation", "channels", "posterior", "flow", "objective")
OF_MODEL += ("n_draws", "beta", "free_bits")
SETTINGS = (*OF_MODEL, "mean", "standardize", "prior", "full_vb", "solver", "learning_rate")
NAMED = {"n_components": "n_latent", "objective": "estimator", "n_draws": "n_samples"}  # what the model calls them
NAMES = {name: ours for ours, name in NAMED.items()} | {"lr": "learning_rate"}


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
        The mean of a Gaussian or a Laplace p(x|z): "free", or "sigmoid" for numbers in [0, 1]. None, the default,
        stands for "free" where the likelihood has it.
    standardize : bool
        Whether columns are brought to mean 0 and variance 1 inside; True unless given. It does nothing where the mean
        is not free.
    n_hidden : int or tuple of ints
        The widths of the hidden layers of the encoder and, in the same order, of the decoder; 100 unless given. () is
        for none, with which the model is linear.
    activation : str
        That of the hidden layers: "tanh", the default, "relu", "softplus" or "sigmoid".
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
        L, the number of draws of z for each row in training; 1 unless given. "iwae" and "dreg" need more.
    beta : float
        β, how often the KL counts in what is ascended; 1 unless given. Scores are bounds with β = 1.
    free_bits : float
        The nats of a latent that cost nothing; 0 unless given.
    prior : bool
        Whether the decoder's weights have a standard normal prior; True unless given.
    full_vb : bool
        Whether the decoder's weights have a posterior of their own (appendix F); False unless given.
    solver : str
        "adam", the default, "adagrad", as in the paper, or "sgd".
    learning_rate : float
        The stepsize; 0.002 unless given.
    batch_size : int
        How many rows a step sees; 100 unless given, or all if there are fewer.
    max_iter : int
        How many passes over the rows `fit` makes at most; 200 unless given. A ConvergenceWarning says so where they
        were too few.
    tol : float
        In nats per row: a pass is no better if it raises the bound by no more than this; 1e-4 unless given.
    n_iter_no_change : int
        Training ends after so many passes in a row that were no better; 10 unless given.
    early_stopping : bool
        Whether a part of the rows is set aside, by whose bound passes are judged, and the best model is kept; False
        unless given, with which passes are judged by the bound of the rows that are trained on.
    validation_fraction : float
        The size of that part; 0.1 unless given.
    n_importance : int or None
        With a number, scores are log p(x), estimated from so many draws of q(z|x) by importance sampling. None, the
        default, scores by the bound (7), which lies below it.
    total_samples : int or None
        N, how many rows there are in all, for `partial_fit` alone: the prior of the decoder's weights then counts once
        for all of them. None, the default, is the number of rows in each call, beside which the prior counts for more.
    warm_start : bool
        Whether `fit` goes on from where the one before has ended; False unless given.
    verbose : bool
        Whether a line is printed after each pass; False unless given.
    random_state : int, RandomState or None
        Selects initial values, minibatches, all noise, and the draws of `sample`. With None, as unless given, each fit
        has others.

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

    All rows are scored with the same noise, a function of random_state, so that a score depends neither on the order of
    the rows nor on the rows beside it.
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
        batch_size=100,
        max_iter=200,
        tol=1e-4,
        n_iter_no_change=10,
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
        if flag("early_stopping", self.early_stopping):
            size = share("validation_fraction", self.validation_fraction)
            if trait(run.model.estimator, "together"):
                raise ValueError(
                    f"early_stopping is True, by the bound (7) of rows that are set aside, and the objective "
                    f"{self.objective!r} ascends another, under which (7) may fall: leave it out"
                )
            rows, valid = train_test_split(rows, test_size=size, random_state=run.seed)  # as in the fit before
        max_iter = whole("max_iter", self.max_iter)
        patience = whole("n_iter_no_change", self.n_iter_no_change)
        if not is_real(self.tol) or self.tol < 0:
            raise ValueError(f"tol is {self.tol!r}; expected a number ≥ 0")
        best = -math.inf
        waited = 0
        kept = None
        try:
            for _ in range(max_iter):
                value = self._pass(run, rows, valid)
                waited = 0 if value > best + self.tol else waited + 1
                if value > best:
                    best = value
                    kept = None if valid is None else run.model.params.value.copy()
                if waited >= patience:
                    break
            else:
                text = f"not converged after max_iter = {max_iter} passes: allow more, or raise learning_rate or tol"
                warnings.warn(text, ConvergenceWarning, stacklevel=2)
        except KeyboardInterrupt:
            if run.bounds:
                self._keep(run, kept)
            raise
        return self._keep(run, kept)

    def partial_fit(self, X, y=None):
        """Train the model by one pass over rows X (N, D), which are a part of the data, and return the estimator.

        The first call decides how the columns are standardised, for all later ones. `total_samples` says how many rows
        there are in all. y is ignored.
        """
        if flag("early_stopping", self.early_stopping):
            raise ValueError("early_stopping is True; expected False for partial_fit, which sees a part of the rows")
        go_on = hasattr(self, "model_")
        X = self._of_use(X) if go_on else self._of_fit(X)
        run = self._begun(X, go_on)
        run.n_rows += len(X)
        self._pass(run, run.scaled(X), None, self.total_samples)
        return self._keep(run)

    def _begun(self, X, go_on):
        """Return the `Run` that trains on rows X (N, D): a copy of the fit before, or a new one."""
        settings = self._settings()
        if not go_on:
            return Run(settings, X, drawn(self.random_state))
        was = self._fitted_with
        changed = [name for name in SETTINGS if was[name] is not settings[name] and was[name] != settings[name]]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed since the fit that this one goes on from: take a clone of the estimator"
            )
        return copy.deepcopy(self._run)

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

    def _pass(self, run, rows, valid, n_data=None):
        """Train by one pass over rows, of which there are n_data in all, and return the bound by which it is judged."""
        row = run.go_on(rows, valid, whole("batch_size", self.batch_size), n_data)
        if flag("verbose", self.verbose):
            held = "" if valid is None else f", of the rows set aside {run.validation_bounds[-1]:.3f}"
            print(f"pass {len(run.bounds)}: the bound of the training rows is {run.bounds[-1]:.3f} nats per row{held}")
        return row["train_bound" if valid is None else "valid_bound"]

    def _keep(self, run, best=None):
        """Keep what a run has learned, with the best parameters (P,) if there are any, and return the estimator."""
        if best is not None:
            run.model.params.value[...] = best
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

    def inverse_transform(self, Z):
        """Return E[x|z], (N, D), for codes Z (N, J)."""
        Z = self._codes(Z)
        with one_of(self.model_) as model:
            return self._run.unscaled(model.decode(Z)).astype(Z.dtype, copy=False)

    def reconstruct(self, X):
        """Return E[x|z] at the means of q(z|x), (N, D), for rows X (N, D)."""
        return self.inverse_transform(self.transform(X))

    def score_samples(self, X, y=None):
        """Return the bound (7) on log p(x), in nats, for each of the rows X (N, D), (N,). y is ignored.

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

    def sample(self, n_samples=1, random_state=None):
        """Return draws x ~ p(x), (n_samples, D): z from the prior, and x from p(x|z).

        random_state selects them; with None it is that of the estimator. `inverse_transform` of codes gives means,
        which have no noise of their own.
        """
        check_is_fitted(self)
        seed = drawn(self.random_state if random_state is None else random_state)
        with one_of(self.model_) as model:
            x = model.simulate(whole("n_samples", n_samples), seed)[1]
            return self._run.unscaled(x).astype(x.dtype, copy=False)

    def save(self, folder):
        """Write the model as a run folder, as `scratchvae.fit` does, which `scratchvae.load_model` reads.

        Its rows are the standardised ones, and the options in config.json have mean_ and scale_. A folder that holds
        something else raises ValueError.
        """
        check_is_fitted(self)
        self._run.save(folder)

    def _bounds(self, model, rows):
        """Return the bound (7) of each of the rows (N, D), (N,), all with the same draws ε."""
        eps = stream(self._run.seed, SCORING, 0).standard_normal((SCORED, 1, model.n_latent)).astype(model.dtype)
        parts = []
        for block in gen_batches(len(rows), max(1, model.rows_at_once() // SCORED)):
            x = rows[block]
            with np.errstate(all="ignore"):  # a row that is far from all others has a bound that is not finite
                neg_kl, log_px = model.terms(x, np.repeat(eps, len(x), axis=1))
            parts.append(neg_kl.astype(float) + log_px)
        return np.concatenate(parts)

    def _scaled(self, X, model):
        """Return rows X (N, D) as the model takes them; those that it cannot score raise a ValueError."""
        with called(**NAMES):
            return model_rows("X", self._run.scaled(X), model, least=1)


class Run:
    """A training that can go on: the model, its optimiser, how the columns are standardised, and what has been so far.

    settings are the arguments of the estimator by name, X (N, D) the rows of the beginning, and seed a whole number.
    """

    def __init__(self, settings, X, seed):
        self.seed = seed
        self.n_rows = 0
        self.bounds = []
        self.validation_bounds = []
        self.history = []
        D = X.shape[1]
        likelihood = settings["likelihood"]
        ours = LIKELIHOODS.get(likelihood) if isinstance(likelihood, str) else None
        mean = settings["mean"] or ("free" if ours is not None and "free" in ours.means else "sigmoid")
        self.mean = np.zeros(D)
        self.scale = np.ones(D)
        if settings["standardize"] and mean == "free":
            with called():
                self.mean, d = centred(X)
            sd = np.sqrt((d * d).mean(axis=0))
            self.scale[sd > 0] = sd[sd > 0]
        with called(**NAMES):
            passed = {NAMED.get(name, name): settings[name] for name in OF_MODEL}
            passed |= {"mean": mean, "init": "glorot", "dtype": X.dtype, "seed": self.seed}
            passed |= {} if settings["full_vb"] else {"prior": settings["prior"]}
            self.model = (full_vb.FullVB if settings["full_vb"] else vae.VAE)(D, **passed)
            self.optimizer = Continued(OPTIMIZERS[settings["solver"]](lr=settings["learning_rate"]))

    def scaled(self, X):
        """Return rows X (N, D) as the model takes them.

        Where it takes numbers in [0, 1], those that miss it by rounding are put there, as a scaler leaves them, and
        others raise a ValueError.
        """
        x = ((X - self.mean) / self.scale).astype(self.model.dtype)
        if not takes_unit(self.model.likelihood):
            return x
        rounding = 8 * np.finfo(X.dtype).eps
        lowest = x.min()
        highest = x.max()
        if lowest < -rounding or highest > 1 + rounding:
            raise ValueError(
                f"X has values from {in_words(lowest)} to {in_words(highest)}; expected [0, 1] for likelihood "
                f"{self.model.config['likelihood']!r}: put MinMaxScaler(clip=True) before it, or take 'isotropic'"
            )
        return np.minimum(np.maximum(x, 0), 1)

    def unscaled(self, x):
        """Return rows of the model (N, D) in the units of X."""
        return x * self.scale + self.mean

    def go_on(self, rows, valid, batch_size, n_data):
        """Train by one pass over rows (N, D) of the model, and return the row of the history; see `fit`."""
        looked_at = self.model.guard.looked_at() if self.bounds else contextlib.nullcontext()
        with called(**NAMES), looked_at:
            history = fit(
                self.model,
                rows,
                valid,
                optimizer=self.optimizer,
                epochs=1,
                batch_size=min(batch_size, len(rows)),
                seed=self.seed + len(self.bounds),
                log_every=len(rows),
                n_data=n_data,
                progress=False,
            )
        row = history[-1:].copy()
        log_scale = np.log(self.scale).sum()
        self.bounds.append(float(row["train_bound"][0] - log_scale))
        self.validation_bounds.append(float(row["valid_bound"][0] - log_scale))
        if self.history:
            for name in ("step", "samples", "epoch", "seconds"):
                row[name] += self.history[-1][name]
        self.history.append(row)
        return row[0]

    def save(self, folder):
        """Write the model as a run folder, see `VAE.save`."""
        facts = {"algorithm": "scratchvae.sklearn.VAE", "model": self.model.config, "seed": self.seed, "data": None}
        facts["optimizer"] = facts_of(self.optimizer.optimizer)
        options = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        save_run(folder, self.model, self.optimizer.optimizer, facts, options, np.concatenate(self.history))
