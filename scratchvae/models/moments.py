"""What the linear models take of a table: its rows about their mean, their spread, and their principal directions.

Squares of numbers halve the digits that are left. The covariance of a column with a standard deviation of 1e5 beside
one of 1e-3 says nothing about the second in float64, while the rows themselves do. Where the covariance has too few
digits, the principal directions are therefore taken from the rows.
"""

import numpy as np

from scratchvae.arguments import float_rows

EPS = np.finfo(float).eps  # the distance from 1 to the next float, 2.2e-16
LARGEST = 1e150  # numbers above it, and those below its inverse, have squares that float64 cannot hold
FLOOR = 1e-6  # of the variance of a column: the least variance that a model leaves to its noise
TINY = 1e-12  # the least variance of the noise of a column that never varies, which has no scale of its own


def names_of(x):
    """Return what the columns of x are called: those of a data frame as strings, others by number from 0."""
    return [str(name) for name in getattr(x, "columns", range(np.shape(x)[-1] if np.ndim(x) else 0))]


def listed(names):
    """Return "column a", or "columns a, b, c", of a list of names, of which five are named at most."""
    return f"column{'s' * (len(names) > 1)} {', '.join(names[:5])}{', …' * (len(names) > 5)}"


def centred(x):
    """Return the mean (D,) of rows x (N, D) and x less the mean (N, D).

    A column whose entries differ by rounding alone, a few units in the last digit, counts as one that never varies: its
    differences are 0. Rows of another shape, and numbers that are not finite or whose squares are not, raise a
    ValueError.
    """
    x = float_rows(x)
    size = np.abs(x).max(axis=0)
    if size.max() > LARGEST:
        raise ValueError(f"x has values up to {size.max():g}, whose squares are not finite: divide the columns by it")
    d = x - x[0]  # about a row first: the sum of numbers that are far from 0 would lose digits
    spread = np.abs(d).max(axis=0)
    still = spread <= 8 * EPS * size
    d[:, still] = 0
    if (spread[~still] < 1 / LARGEST).any():
        raise ValueError(f"x has columns that vary by {spread[~still].min():g}, whose squares are 0: multiply them")
    middle = d.mean(axis=0)
    return x[0] + middle, d - middle


def signed(rows):
    """Return rows (J, D), each with the sign that makes its largest entry positive, since an eigenvector has none."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return rows * np.where(largest < 0, -1, 1)


def principal(mean, d):
    """Return the eigenvalues (D,), which rise, the eigenvectors (D, min(N, D)) of the covariance of x, and its rank.

    mean (D,) and d (N, D) are what `centred` returns. The rank counts the directions in which x varies by more than
    rounding. With fewer rows than columns the eigenvectors are those of the last N eigenvalues, and the others are 0:
    no matrix is D x D.
    """
    N, D = d.shape
    if N >= D:
        values, vectors = np.linalg.eigh(d.T @ d / N)
        if values[0] > 1e-8 * values[-1]:
            return values, vectors, D
    # The smallest have lost half of their digits or more: they are the squares of the rows' singular values.
    singular, right = np.linalg.svd(np.linalg.qr(d, mode="r") / np.sqrt(N), full_matrices=False)[1:]
    values = np.zeros(D)
    values[D - len(singular) :] = singular[::-1] ** 2
    rounding = EPS * max(max(N, D) * singular[0], 8 * np.abs(mean).max())
    return values, right[::-1].T, int((singular > rounding).sum())
