"""Reads data sets: the digits of scikit-learn, MNIST, Frey Face, or your own images.

Nothing else in the library reads data files. Images are rows (N, D), one datapoint per row, in host memory. Pixels keep
the type in which they are stored. The data sets that are known by name are uint8, which a model reads as x/255, a
minibatch at a time. MNIST is split by position. The others are split by a fixed random permutation, since their
neighbours resemble each other.

`named` reads the data sets that are known by name, `arrays` and `images` the user's own. No file is read further than
it says itself, and sizes and hashes are checked before a file is believed.
"""

import warnings
from os import PathLike
from pathlib import Path

import numpy as np

from scratchvae.data import arrays, images, named
from scratchvae.data.dataset import Data, DataError, Images
from scratchvae.data.images import COLORS
from scratchvae.data.named import MNIST_FILES
from scratchvae.data.pixels import binarise, thresholds, warn_if_dark, warn_if_on_another_scale

__all__ = [
    "BINARIZATIONS",
    "COLORS",
    "DATASETS",
    "MNIST_FILES",
    "Data",
    "DataError",
    "Images",
    "binarise",
    "load_data",
    "load_images",
    "thresholds",
]

DATASETS = ("digits", "mnist", "frey")
BINARIZATIONS = ("grey", "fixed", "dynamic")
SPLITS = {"digits": (1437, 180, 180), "frey": (1565, 200, 200)}  # MNIST's is by position: 50,000 / 10,000 / 10,000
SPLIT_SEED = 0  # this seed and the next belong to the data, whatever the seed of the run is
BINARIZATION_SEED = 1


def load_data(name, data_dir=None, n_train=None, split=None, binarization="grey", background=None, color="grey"):
    """Read the data set `name` and return it as `Data`.

    name           is "digits" (scikit-learn's 1,797 images of 8 x 8, which need no download), "mnist", "frey", or the
                   path of your own images. These may be a .npy file with (N, D), (N, height, width) or, with color
                   "rgb", (N, height, width, 3); a .npz file with train, valid and test, or with one array of images,
                   and labels if you have them; a folder with images of one size; or a folder of two class folders or
                   more, whose names in order become the labels 0, 1, … Pixels are uint8 from 0 to 255, or floats in [0,
                   1]; for a Gaussian decoder with a free mean, any floats.
    data_dir       is the folder in which MNIST and Frey Face are looked for first. Then come the folder that the
                   environment variable SCRATCHVAE_DATA names, the user's cache, and a download.
    n_train        keeps the first so many of the training rows; all of them unless given.
    split          gives the three sizes of train, valid and test. Unless given, a data set known by name, or a file
                   that comes in splits, keeps the sizes it has; other data are split 80 / 10 / 10 %.
    binarization   is "grey", "fixed" or "dynamic"; "grey" unless given, which leaves the pixels as they are. "fixed"
                   draws each pixel once from Bernoulli(x), the same whatever the seed of a run. "dynamic" leaves the
                   pixels as they are here; `fit` and `evaluate` draw them anew for each minibatch if they are called
                   with binarization=data.binarization.
    background     is what transparent pixels of a folder of images are laid on: "white", "black" or a grey level from 0
                   to 255. Images with such pixels are refused unless it is given, since a wrong one may hide the ink.
    color          is "grey" or "rgb"; "grey" unless given. With "rgb" image_shape is (height, width, 3), and a row has
                   the red, green and blue of each pixel side by side; grey files in a folder have three times the same.
                   With "grey" the images of a folder become grey, and arrays of colours are refused.

    Arguments that do not fit raise a ValueError. A file that is missing or broken raises a DataError, which says what
    to do. A warning is given where uint8 data of your own do not look like 0 to 255, where a split is on another scale
    than train, where pages of a file or arrays of a .npz are left out, where images of a folder lose their colours, and
    where rows have no square number of pixels.
    """
    parts, shape, classes, names = _source(name, data_dir, binarization, background, color)
    ends = np.cumsum([len(rows) for rows, _ in parts])
    places = np.split(np.arange(ends[-1]), ends[:-1])  # which rows of the source each split has
    if len(parts) == 1:  # these data come without splits
        places = _split(ends[-1], SPLITS.get(name) if split is None else split, shuffle=True)
        parts = _parts(*parts[0], places)
    elif split is not None:  # these come in splits, and other ones are asked for
        rows, labels = zip(*parts, strict=True)
        if len({part is None for part in labels}) > 1:
            raise ValueError(f"{name} has labels for some of its splits only: leave split out, or give all labels")
        labels = None if labels[0] is None else np.concatenate(labels)
        places = _split(ends[-1], split, shuffle=False)
        parts = _parts(np.concatenate(rows), labels, places)
    if name not in DATASETS:
        warn_if_dark(str(name), parts[0][0], stacklevel=2)
        for part, (rows, _) in zip(arrays.PARTS[1:], parts[1:], strict=True):
            warn_if_on_another_scale(f"{part} of {name}", rows, parts[0][0], stacklevel=2)
    if binarization == "fixed":
        generator = np.random.default_rng(BINARIZATION_SEED)
        parts = [(_binarised(name, x, generator), labels) for x, labels in parts]
    if n_train is not None:
        rows, labels = parts[0]
        if not _is_whole(n_train) or not 1 <= n_train <= len(rows):
            raise ValueError(f"n_train is {n_train}; expected 1 to {len(rows)}, the training rows of {name}")
        parts[0] = (rows[:n_train], None if labels is None else labels[:n_train])
        places[0] = places[0][:n_train]
    (train, a), (valid, b), (test, c) = parts
    return Data(Path(name).name, shape, binarization, train, valid, test, a, b, c, classes, *places, names)


def load_images(name, data_dir=None, binarization="grey", background=None, image_shape=None, color="grey"):
    """Read all images of the data set `name`, one or more, and return them as `Images`, without any split.

    name, data_dir, background and color are those of `load_data`. The images are in the order of the source, and those
    of a file that comes in splits in the order train, valid and test. With the binarization "fixed" each pixel is drawn
    once from Bernoulli(x), in this order. image_shape is the (height, width) or (height, width, 3) that they must have,
    as those that a model was trained on; unless given, they may have any.

    What does not fit raises a ValueError, and a file that is missing or broken, or an image of another size, a
    DataError that names it. Warnings are those of `load_data`, and there is one where only some of the splits have
    labels, which are then left out.
    """
    parts, shape, classes, names = _source(name, data_dir, binarization, background, color, image_shape)
    if image_shape is not None and tuple(image_shape) != tuple(shape):
        raise DataError(f"{name} has images of {tuple(shape)}, those of the training {tuple(image_shape)}")
    rows, labels = zip(*parts, strict=True)
    x = rows[0] if len(rows) == 1 else np.concatenate(rows)
    if all(part is None for part in labels):
        labels = None
    elif any(part is None for part in labels):
        warnings.warn(f"{name} has labels for some of its splits only: all labels are left out", stacklevel=2)
        labels = None
    else:
        labels = np.concatenate(labels)
    if name not in DATASETS:
        warn_if_dark(str(name), x, stacklevel=2)
    if binarization == "fixed":
        x = _binarised(name, x, np.random.default_rng(BINARIZATION_SEED))
    return Images(Path(name).name, tuple(shape), binarization, x, np.arange(len(x)), labels, names, classes)


def _source(name, data_dir, binarization, background, color, image_shape=None):
    """Return a data set as it comes: a list of (rows, labels), the shape of an image, and the names behind both.

    The list has one entry for each split that the data set comes in. The names are those of the classes and of the
    files, or None. The arguments are those of `load_data`, and image_shape is that of `load_images`.
    """
    if not isinstance(name, str | PathLike):
        raise ValueError(f"name is a {type(name).__name__}; expected the name of a data set, or a path")
    if binarization not in BINARIZATIONS:
        raise ValueError(f"binarization is {binarization!r}; expected one of {', '.join(BINARIZATIONS)}")
    if color not in COLORS:
        raise ValueError(f"color is {color!r}; expected one of {', '.join(COLORS)}")
    if color == "rgb" and name in DATASETS:
        raise ValueError(f"color is 'rgb'; it is for images of your own, and those of {name} are grey: leave it out")
    level = images.grey_level(background)
    classes = None
    names = None
    if name == "digits":
        parts = named.digits()
        shape = (8, 8)
    elif name == "mnist":
        parts = named.mnist(data_dir)
        shape = (28, 28)
    elif name == "frey":
        parts = named.frey(data_dir)
        shape = (28, 20)
    elif _exists(name):
        parts, shape, classes, names = arrays.own(Path(name), level, image_shape, color)
    else:
        raise DataError(
            f"there is no data set {str(name)!r}; expected {', '.join(DATASETS)}, "
            "or the path of a .npy, .npz or folder (if yours has moved, its new place)"
        )
    if level is not None and (name in DATASETS or not Path(name).is_dir()):
        raise ValueError(
            f"background is {background!r}; it is for a folder of images, and {name} is none: leave it out"
        )
    return parts, shape, classes, names


def _binarised(name, x, generator):
    """Return rows x with each pixel drawn once from Bernoulli(x)."""
    return binarise(arrays.unit(name, x), thresholds(x.shape, x.dtype, generator))


def _exists(name):
    """Say whether there is a file or folder at a path; one that the system cannot look at raises a DataError."""
    try:
        return str(name) != "" and Path(name).exists()
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{str(name)!r} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _split(n, sizes, shuffle):
    """Return a list of the numbers of the rows of each split, of n rows in random order if `shuffle`.

    sizes are the three sizes, 80 / 10 / 10 % for None.
    """
    if n < 3:
        raise ValueError(f"there are {n} datapoints; expected at least 3, one each to train, validate and test")
    if sizes is None:
        tenth = max(1, n // 10)
        sizes = (n - 2 * tenth, tenth, tenth)
    three = isinstance(sizes, tuple | list) and len(sizes) == 3 and all(map(_is_whole, sizes))
    if not three or min(sizes) < 1 or sum(sizes) > n:
        shown = tuple(sizes) if isinstance(sizes, tuple | list) else repr(sizes)
        raise ValueError(f"split is {shown}; expected three sizes ≥ 1 whose sum is at most {n}, the datapoints")
    order = np.random.default_rng(SPLIT_SEED).permutation(n) if shuffle else np.arange(n)
    a, b, c = np.cumsum(sizes)
    return [order[:a], order[a:b], order[b:c]]


def _parts(rows, labels, places):
    """Return (rows, labels) of each split, whose rows have these numbers."""
    return [(rows[numbers], None if labels is None else labels[numbers]) for numbers in places]


def _is_whole(number):
    """Say whether an argument is a whole number. A bool is none."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
