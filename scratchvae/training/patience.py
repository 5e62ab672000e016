"""Early stopping: the parameters with the best validation bound are kept, and the run ends when none better come.

Where a model has more parameters than its images can tell, the bound of the training rows goes on rising while that of
the validation rows falls. The parameters to keep are those at the top, and a run need not go far beyond it.
"""

import math

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import kind, move
from scratchvae.training.optim import Adagrad


class Best:
    """Keeps the parameters of a model as they were at its best validation bound, and counts the rows since.

    params     are those of the model; where the best ones are kept is host memory.
    patience   is how many rows of the history in a row may bring no better bound. With None nothing is kept or counted.
    since      is a number of samples. Rows up to it are not counted.

    `at` holds the samples and the validation bound of the best parameters. The bound is -inf before the first finite
    one.
    """

    def __init__(self, params, patience, since):
        self.params = params
        self.patience = patience
        self.since = since
        self.at = np.array([0.0, -math.inf])
        self.top = -math.inf  # the best bound of a row of the history, which the end of a run off their grid is not
        self.waited = 0  # rows since
        self.value = None if patience is None else np.array(move(params.value, "numpy"))

    def arrays(self):
        """Return the arrays that a checkpoint keeps, by name: windows on what is kept here."""
        if self.patience is None:
            return {}
        return {"best": self.at} | {f"best/{name}": window for name, window in self.params.named(self.value).items()}

    def see(self, samples, valid_bound):
        """Keep the parameters as they are now, if their validation bound is better than all before."""
        if self.patience is not None and valid_bound > self.at[1]:  # NaN is not
            self.at[:] = samples, valid_bound
            self.value[...] = move(self.params.value, "numpy")

    def count(self, rows):
        """Count rows of the history, each a pair of its samples and its validation bound."""
        for samples, valid_bound in rows:
            if valid_bound > self.top:
                self.top = valid_bound
                self.waited = 0
            elif samples > self.since:
                self.waited += 1

    def is_over(self):
        """Say whether so many rows have brought no better bound that the run ends."""
        return self.patience is not None and self.waited >= self.patience

    def put_back(self):
        """Give the model the best parameters; where no bound was finite it keeps those that it has."""
        if math.isfinite(self.at[1]):
            self.params.value[...] = move(self.value, kind(self.params.value))


def checked_patience(patience, valid):
    """Return the patience, None or a whole number ≥ 1; one without validation rows raises a ValueError."""
    if patience is not None and valid is None:
        raise ValueError(f"patience is {patience!r}, which waits for a better bound of validation rows: give valid too")
    return None if patience is None else whole("patience", patience)


def warmed_up(optimizer, per_step, kl_warmup, kl_cycles):
    """Return after how many samples Adagrad moves the parameters and the KL has its full weight for good.

    per_step is how many samples a step takes. kl_warmup and kl_cycles are those of `fit`.
    """
    of_optimizer = optimizer.warmup * per_step if isinstance(optimizer, Adagrad) else 0
    return max(of_optimizer, 0 if kl_warmup is None else (2 * kl_cycles - 1) * kl_warmup)
