"""What a data set is once it is read, in splits or as a whole, and the error for one that cannot be."""

from dataclasses import dataclass

import numpy as np


class DataError(ValueError):
    """Is raised for a data set that is missing, broken or not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """Images without a split: rows x (N, D), with labels (N,) or None, and for each of them where it comes from.

    rows (N,) says which image of the source each row of x is, counted from 0. names is a tuple of the names of their
    files, relative to the folder and with the class folder, or None where the images are in one file. image_shape,
    name, binarization and classes are those of `Data`.
    """

    name: str
    image_shape: tuple
    binarization: str
    x: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None
    names: tuple | None = None
    classes: tuple | None = None


@dataclass(frozen=True)
class Data:
    """A data set in three splits: `train`, `valid` and `test`, each of rows (N, D), with labels (N,) or None.

    image_shape is (height, width), as which a row is drawn; name and binarization are those given to `load_data`.
    classes holds the names of the classes that labels 0, 1, … stand for, or None where they have no names.
    train_rows, valid_rows and test_rows (N,) say which image of the source each row is, counted from 0; a source that
    comes in splits is counted through, first train, then valid and test. names holds the names of the files in the
    order of the source, relative to the folder and with the class folder, or is None where the images are in one file.
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
    train_rows: np.ndarray | None = None
    valid_rows: np.ndarray | None = None
    test_rows: np.ndarray | None = None
    names: tuple | None = None

    def part(self, split):
        """Return the split called "train", "valid" or "test" as `Images`."""
        return self._images(*(getattr(self, f"{split}{of}") for of in ("", "_labels", "_rows")))

    def whole(self):
        """Return all three splits as `Images`, in the order of the source."""
        rows = np.concatenate([self.train_rows, self.valid_rows, self.test_rows])
        order = np.argsort(rows)
        labels = (self.train_labels, self.valid_labels, self.test_labels)
        known = all(of is not None for of in labels)
        x = np.concatenate([self.train, self.valid, self.test])[order]
        return self._images(x, np.concatenate(labels)[order] if known else None, rows[order])

    def _images(self, x, labels, rows):
        """Return rows of this data set as `Images`."""
        names = None if self.names is None else tuple(self.names[row] for row in rows)
        return Images(self.name, self.image_shape, self.binarization, x, rows, labels, names, self.classes)

    def __str__(self):
        kind = {
            "grey": "grey-level pixels",
            "fixed": "fixed binarisation (drawn once as Bernoulli(x))",
            "dynamic": "dynamic binarisation (drawn anew for each minibatch as Bernoulli(x))",
        }[self.binarization]
        sizes = " / ".join(f"{len(rows):,}" for rows in (self.train, self.valid, self.test))
        text = f"{self.name}: {sizes} to train / validate / test, {self.image_shape[0]} x {self.image_shape[1]}, {kind}"
        return text if self.classes is None else f"{text}; {len(self.classes)} classes: {', '.join(self.classes)}"
