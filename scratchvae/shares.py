"""Which rows of a minibatch a rank takes, where several processes train one model (training/parallel.py).

The bound (8) of Kingma & Welling, "Auto-Encoding Variational Bayes", is a sum over the rows of a minibatch, each of
which stands for N/M datapoints. So the ranks divide the rows, and the sum of their bounds and of their gradients is
that of the whole minibatch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scratchvae.backend import kind, move


@dataclass(frozen=True)
class Share:
    """The rows [start, stop) of a minibatch that one rank takes. There may be none.

    start   is the first of the rows.
    stop    is the row after the last.
    of      is M, the number of rows of the whole minibatch.
    rank    is the number of the rank, from 0 on; 0 unless given. What counts once for a minibatch and not for a row,
            such as the KL of θ, is divided among the ranks by this number.
    size    is how many ranks there are, 1 unless given.
    total   is a function that returns the sums over all ranks of an array of numbers; None, unless given, where there
            are no others.
    """

    start: int
    stop: int
    of: int
    rank: int = 0
    size: int = 1
    total: Callable | None = None

    def __len__(self):
        return self.stop - self.start

    @property
    def rows(self):
        """Return the rows as a slice of the minibatch."""
        return slice(self.start, self.stop)

    def mean(self, rows):
        """Return the mean of rows over the whole minibatch, (J,), of which rows (n, J) are here. All ranks call it.

        Where there are several ranks on devices, each of them waits for its device here.
        """
        total = rows.sum(axis=0)
        if self.total is not None:
            total = move(np.array(self.total(move(total, "numpy")), total.dtype), kind(total))
        return total / self.of

    def within(self, start, stop):
        """Return those of the rows that are also in [start, stop), as a slice of the share's own rows."""
        first = min(max(start, self.start), self.stop)
        return slice(first - self.start, min(max(stop, first), self.stop) - self.start)


def part_of(n, rank, size):
    """Return (start, stop) of the part that rank number `rank` of `size` takes of n things, as even as can be."""
    return rank * n // size, (rank + 1) * n // size


def whole_of(m):
    """Return the share of a process that takes all m rows."""
    return Share(0, m, m)
