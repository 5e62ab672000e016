"""How labels are written behind the pixels of a row, where a model is told the class of each image."""

import numpy as np


def one_hot(y, n_classes, dtype):
    """Return labels y (N,), whole numbers from 0 on, as rows (N, n_classes), each with one white entry and else 0.

    White is 255 for uint8 and 1 for floats, as in pixels. So they are read like pixels, and `binarise` leaves them as
    they are.
    """
    rows = np.zeros((len(y), n_classes), dtype)
    rows[np.arange(len(y)), y] = 255 if dtype == np.uint8 else 1
    return rows
