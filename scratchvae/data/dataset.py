"""What a data set is once it is read, in splits or as a whole, and the error for one that cannot be."""

from dataclasses import dataclass, replace

import numpy as np

from scratchvae.data.labels import one_hot


class DataError(ValueError):
    """Is raised for a data set that is missing, broken or not what it should be; the message says what to do."""


MOST_CLASSES = 1000  # a row gets so many columns more, at most


@dataclass(frozen=True)
class Images:
    """Images without a split: rows x (N, D), with labels (N,) or None, and for each of them where it comes from.

    rows (N,) says which image of the source each row of x is, counted from 0. names is a tuple of the names of their
    files, relative to the folder and with the class folder, or None where the images are in one file. image_shape,
    name, binarization, classes and n_classes are those of `Data`.
    """

    name: str
    image_shape: tuple
    binarization: str
    x: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None
    names: tuple | None = None
    classes: tuple | None = None
    n_classes: int = 0

    def labelled(self, n_classes, classes=None):
        """Return the images for a model that was told the classes, with the label of each behind its pixels.

        n_classes is the number of its classes, and classes holds their names, in the order of their labels, or is None
        where they had none. Labels that have names here get the numbers of these names there. Images without labels,
        and classes that the model does not know, raise a ValueError.
        """
        if self.labels is None:
            raise ValueError(
                f"{self.name} has no labels, and the model was told the class of each image: give a folder of class "
                "folders, or an .npz with labels"
            )
        labels = self.labels
        if self.classes is not None:
            known = {name: k for k, name in enumerate(classes or map(str, range(n_classes)))}
            if unknown := [name for name in self.classes if name not in known]:
                raise ValueError(
                    f"{self.name} has the class {unknown[0]}; expected classes of the training: {', '.join(known)}"
                )
            labels = np.array([known[name] for name in self.classes])[labels]
        if not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(
                f"{self.name} has labels from {labels.min()} to {labels.max()}; expected those of the training, 0 to "
                f"{n_classes - 1}"
            )
        x = np.concatenate([self.x, one_hot(labels, n_classes, self.x.dtype)], axis=1)
        return replace(self, x=x, n_classes=n_classes)

    def first(self, n):
        """Return the first n of the images, of which there must be as many."""
        columns = {name: getattr(self, name) for name in ("x", "rows", "labels", "names")}
        return replace(self, **{name: None if column is None else column[:n] for name, column in columns.items()})

    def pixels(self):
        """Return the rows without their labels, (N, D)."""
        return self.x[:, : self.x.shape[1] - self.n_classes]


@dataclass(frozen=True)
class Data:
    """A data set in three splits: `train`, `valid` and `test`, each of rows (N, D), with labels (N,) or None.

    image_shape is (height, width), as which a row is drawn, or (height, width, 3) with colours; name and binarization
    are those given to `load_data`. classes holds the names of the classes that labels 0, 1, … stand for, or None where
    they have no names. train_rows, valid_rows and test_rows (N,) say which image of the source each row is, counted
    from 0; a source that comes in splits is counted through, first train, then valid and test. names holds the names of
    the files in the order of the source, relative to the folder and with the class folder, or is None where the images
    are in one file. n_classes is 0, or the number of classes where the rows have their labels behind the pixels: see
    `labelled`.
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
    n_classes: int = 0

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
        known = self.name, self.image_shape, self.binarization
        return Images(*known, x, rows, labels, names, self.classes, self.n_classes)

    def labelled(self):
        """Return the data for a conditional model, with the label of each row behind its pixels: rows (N, D + C).

        C is the number of classes, or one more than the largest label where these have no names. A ValueError is raised
        where there are no labels, or only one class.
        """
        parts = {part: (getattr(self, part), getattr(self, f"{part}_labels")) for part in ("train", "valid", "test")}
        if missing := [part for part, (_, labels) in parts.items() if labels is None]:
            raise ValueError(
                f"{self.name} has no labels for {' and '.join(missing)}, which a conditional model is told: give a "
                "folder of class folders or an .npz with labels, or leave the labels out (--labels)"
            )
        lowest = min(int(labels.min()) for _, labels in parts.values())
        highest = max(int(labels.max()) for _, labels in parts.values())
        C = len(self.classes or ()) or 1 + highest
        if lowest < 0 or not 2 <= C <= MOST_CLASSES:
            raise ValueError(
                f"{self.name} has labels from {lowest} to {highest}; expected whole numbers from 0 on, of two classes "
                f"or more and {MOST_CLASSES:,} at most: number the classes 0, 1, …"
            )
        joined = {part: np.concatenate([x, one_hot(labels, C, x.dtype)], axis=1) for part, (x, labels) in parts.items()}
        return replace(self, **joined, n_classes=C)

    def pixels(self, part):
        """Return the rows of a part, "train", "valid" or "test", without their labels, (N, D)."""
        rows = getattr(self, part)
        return rows[:, : rows.shape[1] - self.n_classes]

    def __str__(self):
        kind = {
            "grey": "grey-level pixels" if len(self.image_shape) == 2 else "pixels of red, green and blue",
            "fixed": "fixed binarisation (drawn once as Bernoulli(x))",
            "dynamic": "dynamic binarisation (drawn anew for each minibatch as Bernoulli(x))",
        }[self.binarization]
        sizes = " / ".join(f"{len(rows):,}" for rows in (self.train, self.valid, self.test))
        shape = " x ".join(map(str, self.image_shape))
        text = f"{self.name}: {sizes} to train / validate / test, {shape}, {kind}"
        return text if self.classes is None else f"{text}; {len(self.classes)} classes: {', '.join(self.classes)}"
