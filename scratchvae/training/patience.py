"""The best parameters of a run, by the bound of its validation rows, and early stopping when no better ones come.

Where a model has more parameters than its images can tell, the bound of the training rows goes on rising while that of
the validation rows falls. The parameters to keep are those at the top, and a run need not go far beyond it.
"""

import math

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import kind, move
from scratchvae.inference.objectives import trait
from scratchvae.training.optim import Adagrad

KEPT = ("last", "best")


class Best:
    """Keeps the parameters of a model at the best row of its history, and counts the rows since.

    params     are those of the model; where the best ones are kept is host memory.
    keep       is "best", or "last", with which nothing is kept.
    patience   is how many rows in a row may be no better before the run ends; None for any number.
    beta       is β: a row is judged by -(distortion + β rate) of the validation rows, which at β = 1 is their bound.
    since      is a number of samples. Rows up to it do not count.

    `at` (2, 2) holds the samples and the value of the best row, and those of the end of the run where it lies off the
    grid of rows. A value is -inf where there is none. A run that is gone on with forgets its end, at which it would not
    have stopped had it been asked for more.
    """

    def __init__(self, params, keep, patience, beta, since):
        self.params = params
        self.keep = keep
        self.patience = patience
        self.beta = beta
        self.since = since
        self.at = np.array([[0.0, -math.inf], [0.0, -math.inf]])
        self.waited = 0  # rows since the best one
        self.value = np.array(move(params.value, "numpy")) if keep == "best" else None

    def arrays(self):
        """Return the arrays that a checkpoint keeps, by name: windows on what is kept here."""
        if self.keep == "last":
            return {}
        return {"best": self.at} | {f"best/{name}": window for name, window in self.params.named(self.value).items()}

    def go_on(self, history):
        """Go on from a history whose best parameters are here already, as from a checkpoint."""
        self.at[1] = 0.0, -math.inf
        self.waited = int((history["samples"] > max(self.at[0, 0], self.since)).sum())

    def see(self, row):
        """Look at a row of the history that was just added, and keep the parameters as they are if it is the best."""
        value = self._value(row)
        if self.keep == "last" or row["samples"] <= self.since:
            return
        if value > self.at[0, 1]:  # NaN is not
            self.at[0] = row["samples"], value
            self.value[...] = move(self.params.value, "numpy")
            self.waited = 0
        else:
            self.waited += 1

    def end(self, row):
        """Look at the row of the end of the run, which goes into the history but not into what it goes on from."""
        value = self._value(row)
        if math.isfinite(value):
            self.at[1] = row["samples"], value

    def _value(self, row):
        """Return by what a row is judged."""
        return row["valid_bound"] if self.beta == 1.0 else -(row["distortion"] + self.beta * row["rate"])

    def is_over(self):
        """Say whether so many rows have brought no better value that the run ends."""
        return self.patience is not None and self.waited >= self.patience

    def put_back(self):
        """Give the model the best parameters; those of the end stay where they are better, or no value was finite."""
        if self.keep == "best" and best_in(self.at)[0] == "best":
            self.params.value[...] = move(self.value, kind(self.params.value))


def best_in(at):
    """Return (which, samples, value) of the best of a run, from `Best.at`.

    which is "best", or "last" if the end is better or there is no value, which is then -inf.
    """
    k = 0 if at[0, 1] > -math.inf and at[0, 1] >= at[1, 1] else 1
    samples, value = at[k].tolist()
    return ("best", "last")[k], int(samples), value


def checked_keep(keep, patience, valid, model):
    """Return (keep, patience); a ValueError is raised where they do not fit each other, the model or the rows."""
    if patience is not None:
        patience = whole("patience", patience)
    if keep is None:
        keep = "last" if patience is None else "best"
    if keep not in KEPT:
        raise ValueError(f"keep is {keep!r}; expected one of {', '.join(KEPT)}")
    asks = "keep is 'best'" if patience is None else f"patience is {patience}"
    if keep == "last":
        if patience is not None:
            raise ValueError(f"patience is {patience} and keep is 'last', but it keeps the best: leave one of them out")
        return keep, patience
    if valid is None:
        raise ValueError(f"{asks}, by the bound of validation rows: give valid too")
    if trait(model.estimator, "together"):
        raise ValueError(
            f"{asks}, by the bound (7) of validation rows, and the estimator {model.config['estimator']!r} ascends "
            "another, under which (7) may fall: leave it out"
        )
    return keep, patience


def warmed_up(optimizer, per_step, kl_warmup, kl_cycles):
    """Return after how many samples Adagrad moves the parameters and the KL has its full weight for good.

    per_step is how many samples a step takes. kl_warmup and kl_cycles are those of `fit`.
    """
    of_optimizer = optimizer.warmup * per_step if isinstance(optimizer, Adagrad) else 0
    return max(of_optimizer, 0 if kl_warmup is None else (2 * kl_cycles - 1) * kl_warmup)
