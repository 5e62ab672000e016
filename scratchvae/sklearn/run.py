"""A training of a VAE that can go on: the model, its optimiser, the scale of the columns, and what has been so far.

`training.loop.fit` trains the model, one pass over the rows at a time. The bound that it returns for a pass has the
noise of one draw for each row, other noise in each pass, and so says little about whether a pass has brought anything.
Passes are therefore judged by the bound of some rows with the same noise after each of them.
"""

import contextlib
import copy
import re
import warnings

import numpy as np

from scratchvae.arguments import takes_unit
from scratchvae.data.pixels import in_words
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import trait
from scratchvae.models import full_vb, vae
from scratchvae.models.moments import centred, listed
from scratchvae.sklearn.tables import called
from scratchvae.training.loop import evaluate, facts_of, fit, stream
from scratchvae.training.optim import OPTIMIZERS, Continued
from scratchvae.training.run import save_run

JUDGED = 1000  # how many rows a pass is judged by
JUDGING = 4  # sets their choice apart from the noise of training and of scores
FEW = 30  # rows are too few to standardise all later ones by
FAR = 10  # standard deviations, as a mean over the rows of a part, tell that the first part was not like this one
OF_MODEL = ("n_components", "likelihood", "n_hidden", "activation", "channels", "posterior", "flow", "objective")
OF_MODEL += ("n_draws", "beta", "free_bits")  # arguments of the estimator that are the model's
SETTINGS = (*OF_MODEL, "mean", "standardize", "prior", "full_vb", "solver")  # what stays as a training goes on
NAMED = {"n_components": "n_latent", "objective": "estimator", "n_draws": "n_samples"}  # what the model calls them
NAMES = {name: ours for ours, name in NAMED.items()} | {"lr": "learning_rate", "n_visible": "the number of columns"}


class Run:
    """A training that can go on.

    settings are the arguments of the estimator by name, X (N, D) the rows of the beginning, seed a whole number, and
    learning_rate the stepsize.
    """

    def __init__(self, settings, X, seed, learning_rate):
        self.seed = seed
        self.n_rows = 0
        self.bounds = []
        self.validation_bounds = []
        self.history = []
        self.judge_by(None)
        D = X.shape[1]
        likelihood = settings["likelihood"]
        named = LIKELIHOODS.get(likelihood) if isinstance(likelihood, str) else None
        mean = settings["mean"] or ("free" if named is not None and "free" in named.means else "sigmoid")
        free = mean == "free"
        if named is None:
            free = type(likelihood) in LIKELIHOODS.values() and not takes_unit(likelihood)
        self.mean = np.zeros(D)
        self.scale = np.ones(D)
        self.standardized = settings["standardize"] and free
        self.sigmoid = mean == "sigmoid" and named is not None and "free" in named.means
        if self.standardized:
            with called():
                self.mean, d = centred(X)
            sd = np.sqrt((d * d).mean(axis=0))
            self.scale[sd > 0] = sd[sd > 0]
        with called(**NAMES):
            passed = {NAMED.get(name, name): settings[name] for name in OF_MODEL}
            for name in ("n_hidden", "channels"):
                if isinstance(passed[name], np.ndarray):
                    passed[name] = passed[name].tolist()
            passed |= {"mean": mean, "init": "glorot", "dtype": X.dtype, "seed": self.seed}
            passed |= {} if settings["full_vb"] else {"prior": settings["prior"]}
            self.model = (full_vb.FullVB if settings["full_vb"] else vae.VAE)(D, **passed)
            self.optimizer = Continued(OPTIMIZERS[settings["solver"]](lr=learning_rate))

    def copied(self, learning_rate):
        """Return a copy that goes on, with this stepsize, while this one stays as it is."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.optimizer = copy.deepcopy(self.optimizer)
        other.optimizer.optimizer.lr = learning_rate
        for name in ("bounds", "validation_bounds", "history"):
            setattr(other, name, list(getattr(self, name)))
        return other

    def warn_of_scale(self, X):
        """Warn where rows X of a `partial_fit` are too few to standardise by, or far from those of the first call."""
        if not self.standardized:
            return
        if not self.bounds and len(X) < FEW:
            warnings.warn(
                f"X has {len(X)} rows, by which the columns are standardised from now on: begin with more, or bring "
                "the columns to like size yourself and set standardize=False",
                stacklevel=4,
            )
        far = np.flatnonzero((((X - self.mean) / self.scale) ** 2).mean(axis=0) > FAR**2)
        if self.bounds and len(far):
            warnings.warn(
                f"X has rows far from those of the first call, by which the columns are standardised, in "
                f"{listed([str(i) for i in far])}, counted from 0: shuffle the rows before they are parted, or bring "
                "the columns to like size yourself and set standardize=False",
                stacklevel=4,
            )

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
            name = repr(self.model.config["likelihood"]) + " with mean 'sigmoid'" * self.sigmoid
            other = "leave mean out" if self.sigmoid else "take 'isotropic'"
            raise ValueError(
                f"X has values from {in_words(lowest)} to {in_words(highest)}; expected [0, 1] for likelihood {name}: "
                f"put MinMaxScaler(clip=True) before it, or {other}"
            )
        return np.minimum(np.maximum(x, 0), 1)

    def unscaled(self, x):
        """Return rows of the model (N, D) in the units of X."""
        return x * self.scale + self.mean

    def judge_by(self, rows):
        """Judge passes from now on by the bound of rows (N, D), or of `JUDGED` of them; None is for no judging.

        Where there are fewer, each stands there several times, and each time sees other noise.
        """
        if rows is None:
            self.judging = None
            return
        chosen = stream(self.seed, JUDGING, 0).permutation(len(rows))[:JUDGED]
        self.judging = np.repeat(rows[chosen], max(1, JUDGED // len(chosen)), axis=0)

    def judged(self):
        """Return the terms of the bound by which a pass is judged: `evaluate` has the same noise after each pass."""
        with self.model.guard.looked_at():
            return evaluate(self.model, self.judging, seed=self.seed)

    def value_of(self, found):
        """Return the value by which a pass is judged: the bound, in which the KL counts β times, per row."""
        return found["reconstruction"] - self.model.beta * found["kl"]

    def go_on(self, rows, batch_size, n_data, held_out):
        """Train by one pass over rows (N, D) of the model, and return the value by which it is judged; see `fit`."""
        looked_at = self.model.guard.looked_at() if self.bounds else contextlib.nullcontext()
        try:
            with called(**NAMES), looked_at:
                history = fit(
                    self.model,
                    rows,
                    optimizer=self.optimizer,
                    epochs=1,
                    batch_size=min(batch_size, len(rows)),
                    seed=self.seed + len(self.bounds),
                    log_every=len(rows),
                    n_data=n_data,
                    progress=False,
                )
        except FloatingPointError as error:
            told = re.sub("try a smaller step size(, in a new folder)?", "try a smaller learning_rate", str(error))
            told = told.replace("bring the data nearer to 1", "try a smaller learning_rate")
            raise FloatingPointError(told) from None
        row = history[-1:].copy()
        value = float(row["train_bound"][0])
        log_scale = np.log(self.scale).sum()
        self.bounds.append(value - log_scale)
        if self.judging is not None and not trait(self.model.estimator, "together"):  # whose bound of one draw may fall
            found = self.judged()
            value = self.value_of(found)
            if held_out:
                row["rate"] = found["kl"]
                row["distortion"] = -found["reconstruction"]
                row["valid_bound"] = found["bound"]
        self.validation_bounds.append(float(row["valid_bound"][0] - log_scale))
        if self.history:
            for name in ("step", "samples", "epoch", "seconds"):
                row[name] += self.history[-1][name]
        self.history.append(row)
        return value

    def save(self, folder):
        """Write the model as a run folder, see `VAE.save`."""
        facts = {"algorithm": "scratchvae.sklearn.VAE", "model": self.model.config, "seed": self.seed, "data": None}
        facts["optimizer"] = facts_of(self.optimizer.optimizer)
        options = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        save_run(folder, self.model, self.optimizer.optimizer, facts, options, np.concatenate(self.history))
