"""What a data set is once it is read, and the error for one that cannot be."""

from dataclasses import dataclass

import numpy as np


class DataError(ValueError):
    """Is raised for a data set that is missing, broken or not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Data:
    """A data set in three splits: `train`, `valid` and `test`, each of rows (N, D), with labels (N,) or None.

    image_shape is (height, width), as which a row is drawn; name and binarization are those given to `load_data`.
    classes holds the names of the classes that labels 0, 1, … stand for, or None where they have no names.
    """

    name: str
    image_shape: tuple
    binarization: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    valid_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    classes: tuple | None = None

    def __str__(self):
        kind = {
            "grey": "grey-level pixels",
            "fixed": "fixed binarisation (drawn once as Bernoulli(x))",
            "dynamic": "dynamic binarisation (drawn anew for each minibatch as Bernoulli(x))",
        }[self.binarization]
        sizes = " / ".join(f"{len(rows):,}" for rows in (self.train, self.valid, self.test))
        text = f"{self.name}: {sizes} to train / validate / test, {self.image_shape[0]} x {self.image_shape[1]}, {kind}"
        return text if self.classes is None else f"{text}; {len(self.classes)} classes: {', '.join(self.classes)}"
