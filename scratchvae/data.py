"""Reads data sets: the digits of scikit-learn, MNIST, Frey Face, or your own images.

Nothing else in the library reads data files. Images are rows (N, D), one datapoint per row, in host memory. Pixels keep
the type in which they are stored. The data sets that are known by name are uint8, which a model reads as x/255, a
minibatch at a time. MNIST is split by position. The others are split by a fixed random permutation, since their
neighbours resemble each other.
"""

import gzip
import hashlib
import math
import os
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_FILES = {  # name: (shape, SHA-256 of the decompressed file)
    "train-images-idx3-ubyte": (
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": ((60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": ((10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
FREY_MIRRORS = ("https://cs.nyu.edu/~roweis/data/",)
FREY_FILE = "frey_rawface.mat"
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # of the 1965 x 560 uint8 array

DATASETS = ("digits", "mnist", "frey")
BINARIZATIONS = ("grey", "fixed", "dynamic")
SPLITS = {"digits": (1437, 180, 180), "frey": (1565, 200, 200)}  # MNIST's is by position: 50,000 / 10,000 / 10,000
SPLIT_SEED = 0  # this seed and the next belong to the data, whatever the seed of the run is
BINARIZATION_SEED = 1


class DataError(ValueError):
    """Is raised for a data set that is missing, broken or not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Data:
    """A data set in three splits: `train`, `valid` and `test`, each of rows (N, D), with labels (N,) or None.

    image_shape is (height, width), as which a row is drawn; name and binarization are those given to `load_data`.
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

    def __str__(self):
        kind = {
            "grey": "grey-level pixels",
            "fixed": "fixed binarisation (drawn once as Bernoulli(x))",
            "dynamic": "dynamic binarisation (drawn anew for each minibatch as Bernoulli(x))",
        }[self.binarization]
        sizes = " / ".join(f"{len(rows):,}" for rows in (self.train, self.valid, self.test))
        return f"{self.name}: {sizes} to train / validate / test, {self.image_shape[0]} x {self.image_shape[1]}, {kind}"


def load_data(name, data_dir=None, n_train=None, split=None, binarization="grey"):
    """Read the data set `name` and return it as `Data`.

    name           is "digits" (scikit-learn's 1,797 images of 8 x 8, which need no download), "mnist", "frey", or the
                   path of your own images. These may be a .npy file with (N, D) or (N, height, width); a .npz file with
                   train, valid and test, or with one array of images, and labels if you have them; or a folder with
                   images of one size. Pixels are uint8, or floats in [0, 1]; for a Gaussian decoder with a free mean,
                   any floats.
    data_dir       is the folder in which MNIST and Frey Face are looked for first. Then come the folder that the
                   environment variable SCRATCHVAE_DATA names, the user's cache, and a download.
    n_train        keeps the first so many of the training rows; all of them unless given.
    split          gives the three sizes of train, valid and test. Unless given, a data set known by name, or a file
                   that comes in splits, keeps the sizes it has; other data are split 80 / 10 / 10 %.
    binarization   is "grey", "fixed" or "dynamic"; "grey" unless given, which leaves the pixels as they are. "fixed"
                   draws each pixel once from Bernoulli(x), the same whatever the seed of a run. "dynamic" leaves the
                   pixels as they are here; `fit` and `evaluate` draw them anew for each minibatch if they are called
                   with binarization=data.binarization.

    Arguments that do not fit raise a ValueError. A file that is missing or broken raises a DataError, which says what
    to do.
    """
    if binarization not in BINARIZATIONS:
        raise ValueError(f"binarization is {binarization!r}; expected one of {', '.join(BINARIZATIONS)}")
    if name == "digits":
        parts = _digits()
        shape = (8, 8)
    elif name == "mnist":
        parts = _mnist(data_dir)
        shape = (28, 28)
    elif name == "frey":
        parts = _frey(data_dir)
        shape = (28, 20)
    elif str(name) and Path(name).exists():
        parts, shape = _own(Path(name))
    else:
        raise DataError(
            f"there is no data set {str(name)!r}; expected {', '.join(DATASETS)}, "
            "or the path of a .npy, .npz or folder (if yours has moved, its new place)"
        )
    if len(parts) == 1:  # these data come without splits
        parts = _split(*parts[0], split or SPLITS.get(name), shuffle=True)
    elif split is not None:  # these come in splits, and other ones are asked for
        images, labels = zip(*parts, strict=True)
        if len({part is None for part in labels}) > 1:
            raise ValueError(f"{name} has labels for some of its splits only: leave split out, or give all labels")
        labels = None if labels[0] is None else np.concatenate(labels)
        parts = _split(np.concatenate(images), labels, split, shuffle=False)
    if binarization == "fixed":
        generator = np.random.default_rng(BINARIZATION_SEED)
        parts = [(binarise(_unit(name, x), thresholds(x.shape, x.dtype, generator)), labels) for x, labels in parts]
    if n_train is not None:
        images, labels = parts[0]
        if not isinstance(n_train, int | np.integer) or not 1 <= n_train <= len(images):
            raise ValueError(f"n_train is {n_train}; expected 1 to {len(images)}, the training rows of {name}")
        parts[0] = (images[:n_train], None if labels is None else labels[:n_train])
    (train, a), (valid, b), (test, c) = parts
    return Data(Path(name).name, shape, binarization, train, valid, test, a, b, c)


def binarise(x, u):
    """Return pixels drawn from Bernoulli(x): white where u < x, and else black.

    x is of any shape, uint8 or floats in [0, 1]. u has the same shape, from `thresholds`. The result has the type of x,
    with 0 and 255 for uint8 and with 0 and 1 for floats.
    """
    white = 255 if x.dtype == np.uint8 else 1
    return (u < x).astype(x.dtype) * white


def thresholds(shape, dtype, generator):
    """Draw the random numbers that `binarise` compares pixels of this shape and dtype with.

    For uint8 they are uniform on 0, …, 254, so that P(u < x) is exactly x/255, and else uniform on [0, 1). generator is
    NumPy's.
    """
    return generator.integers(0, 255, shape, dtype=np.uint8) if dtype == np.uint8 else generator.random(shape)


# The three data sets that are known by name. Each function returns a list of (images, labels), one for each split that
# the data set comes in.


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    return [(np.round(digits.data * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8))]


def _mnist(data_dir):
    images, labels, test, test_labels = (_mnist_file(name, data_dir) for name in MNIST_FILES)
    images = images.reshape(60000, 784)
    test = test.reshape(10000, 784)
    return [(images[:50000], labels[:50000]), (images[50000:], labels[50000:]), (test, test_labels)]


def _mnist_file(name, data_dir):
    """Return the array in the IDX file `name` of MNIST, whose header and SHA-256 are checked."""
    shape, sha256 = MNIST_FILES[name]

    def read(path):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            try:
                raw = gzip.decompress(raw)
            except (EOFError, OSError, zlib.error) as error:
                raise DataError(f"{path} is a broken gzip file ({error}): fetch it again") from None
        magic = 2048 + len(shape)  # says that the file holds uint8, with so many axes
        if len(raw) < 4 + 4 * len(shape):
            raise DataError(f"{path} is no IDX file: it has {len(raw)} bytes, less than its header")
        header = np.frombuffer(raw[: 4 + 4 * len(shape)], ">u4")
        if header[0] != magic:
            raise DataError(f"{path} is no IDX file: magic {header[0]}, expected {magic}")
        if tuple(header[1:]) != shape or len(raw) != 4 * len(header) + math.prod(shape):
            raise DataError(f"{path} has shape {tuple(header[1:].tolist())} in {len(raw)} bytes; MNIST's has {shape}")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise DataError(
                f"{path} is not MNIST's (its SHA-256 differs): fetch it again, or give the path of your own images"
            )
        return np.frombuffer(raw, np.uint8, offset=4 * len(header)).reshape(shape)

    return _find("mnist", [f"{name}.gz", name], data_dir, [mirror + name + ".gz" for mirror in MNIST_MIRRORS], read)


def _frey(data_dir):
    def read(path):
        from scipy.io import loadmat

        try:
            ff = loadmat(path, variable_names=["ff"]).get("ff")
        except Exception as error:  # scipy raises many kinds of exceptions for a broken file
            raise DataError(f"{path} is no .mat file ({error}): fetch it again") from None
        if ff is None or ff.dtype != np.uint8 or ff.shape != (560, 1965):
            came = "no variable ff" if ff is None else f"ff {ff.dtype} {ff.shape}"
            raise DataError(f"{path} has {came}; expected ff uint8 (560, 1965)")
        faces = np.ascontiguousarray(ff.T)
        if hashlib.sha256(faces).hexdigest() != FREY_SHA256:
            raise DataError(f"{path} does not hold the Frey faces (the SHA-256 of ff differs): fetch it again")
        return faces

    return [(_find("frey", [FREY_FILE], data_dir, [mirror + FREY_FILE for mirror in FREY_MIRRORS], read), None)]


def _find(folder, names, data_dir, urls, read):
    """Return read(path) for the first file that is found under one of `names`, or else is downloaded from `urls`.

    The places are data_dir, SCRATCHVAE_DATA and the user's cache, in this order, each with and without the subfolder
    `folder`. A download that `read` refuses is deleted, and the next of the urls is tried.
    """
    import pooch

    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"data_dir {data_dir} is no folder: give the folder that holds the data, or leave it out")
    cache = Path(pooch.os_cache("scratchvae"))
    places = [Path(place) for place in (data_dir, os.environ.get("SCRATCHVAE_DATA"), cache) if place]
    for place in places:
        for path in (place / sub / name for sub in (folder, "") for name in names):
            if path.is_file():
                return read(path)
    failures = []
    for url in urls:
        try:
            bar = sys.stderr.isatty()
            path = Path(pooch.retrieve(url, known_hash=None, fname=names[0], path=cache / folder, progressbar=bar))
        except Exception as error:  # there is no network, host or permission; the next mirror may work
            failures.append(f"{url}: {type(error).__name__}")
            continue
        try:
            return read(path)
        except DataError as error:
            path.unlink(missing_ok=True)
            failures.append(f"{url}: {error}")
    raise DataError(
        f"{names[0]} is in none of {', '.join(str(place / folder) for place in places)} and could not be downloaded "
        f"({'; '.join(failures)}): put it there, or name its folder with data_dir or SCRATCHVAE_DATA"
    )


# The user's own images


def _own(path):
    """Return a list of (rows, labels), one for each split, and the shape of an image, from the user's `path`."""
    labels = None
    if path.is_dir():
        images = _folder(path)
    elif path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path} is a {path.suffix or 'file'}; expected .npy, .npz or a folder of images")
    elif isinstance(arrays := _numpy(path), np.ndarray):
        images = arrays
    elif {"train", "valid", "test"} <= arrays.keys():
        parts = [(arrays[part], arrays.get(f"{part}_labels")) for part in ("train", "valid", "test")]
        kinds = {f"{images.dtype} {images.shape[1:]}" for images, _ in parts}
        if len(kinds) > 1:
            raise DataError(f"{path} has splits of different kinds: {', '.join(sorted(kinds))}")
        parts = [(_rows(path, images), _labels(path, images, labels)) for images, labels in parts]
        return parts, _shape(path, arrays["train"])
    else:
        labels = arrays.pop("labels", None)
        images = arrays["images"] if "images" in arrays else arrays.popitem()[1] if len(arrays) == 1 else None
        if images is None:
            raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; expected images, or train, valid and test")
    parts = [(_rows(path, images), _labels(path, images, labels))]
    return parts, _shape(path, images)


def _numpy(path):
    """Return the array in a .npy file, or a dict of the arrays in a .npz file."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile and the parser of npy headers raise a dozen kinds for a broken file
        raise DataError(f"{path} is no NumPy file of plain arrays ({error})") from None


def _folder(path):
    """Return the images of a folder in the order of their names, (N, height, width), as grey levels of 8 bits."""
    from PIL import Image, UnidentifiedImageError

    images = []
    for file in sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")):
        try:
            with Image.open(file) as image:
                if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                    raise DataError(f"{file} has pixels of mode {image.mode}; expected 8 bits a channel: convert it")
                images.append(np.asarray(image.convert("L")))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{file} is no image ({error}): leave only images in the folder") from None
        if images[-1].shape != images[0].shape:
            raise DataError(f"{file} is {images[-1].shape}, the images before it {images[0].shape}; expected one size")
    if not images:
        raise DataError(f"{path} has no images in it")
    return np.stack(images)


def _shape(path, images):
    """Return (height, width) of an array of images; a row of D numbers is a square image if D is a square number."""
    if images.ndim == 3:
        return images.shape[1:]
    width = images.shape[1]
    if (side := math.isqrt(width)) ** 2 == width:
        return side, side
    warnings.warn(
        f"{path} has rows of {width}, drawn as 1 x {width}: save (N, height, width) for pictures", stacklevel=4
    )
    return 1, width


def _rows(path, images):
    """Return images as contiguous rows (N, D) of uint8 or floats; other kinds raise a DataError."""
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataError(f"{path} has shape {images.shape}; expected (N, D) or (N, height, width), none of them 0")
    rows = np.ascontiguousarray(images.reshape(len(images), -1))
    if rows.dtype == np.uint8:
        return rows
    if rows.dtype == bool:
        return rows * np.uint8(255)
    if rows.dtype.kind != "f":
        raise DataError(f"{path} holds {rows.dtype}; expected uint8 pixels or floats")
    if not np.isfinite(rows).all():
        raise DataError(f"{path} has values that are not finite; expected numbers")
    return rows.astype(np.float32, copy=False) if rows.itemsize < 4 else rows


def _labels(path, images, labels):
    """Return the labels, or None; a DataError is raised unless there is one whole number for each image."""
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"{path} has labels {labels.dtype} {labels.shape} for {len(images)} images; expected a whole number each"
        )
    return labels


def _unit(name, images):
    """Return the images; a DataError is raised for floats outside [0, 1], which are no probabilities."""
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 1):
        raise DataError(f"{name} has values from {images.min():g} to {images.max():g}; expected [0, 1] to binarise")
    return images


def _split(images, labels, sizes, shuffle):
    """Return three pairs (images, labels) of these sizes, 80 / 10 / 10 % for None, in random order if `shuffle`."""
    n = len(images)
    if n < 3:
        raise ValueError(f"there are {n} datapoints; expected at least 3, one each to train, validate and test")
    if sizes is None:
        tenth = max(1, n // 10)
        sizes = (n - 2 * tenth, tenth, tenth)
    if len(sizes) != 3 or min(sizes) < 1 or sum(sizes) > n:
        raise ValueError(f"split is {tuple(sizes)}; expected three sizes ≥ 1 whose sum is at most {n}, the datapoints")
    order = np.random.default_rng(SPLIT_SEED).permutation(n) if shuffle else slice(None)
    images = images[order]
    labels = None if labels is None else labels[order]
    a, b, c = np.cumsum(sizes)
    cuts = [slice(0, a), slice(a, b), slice(b, c)]
    return [(images[cut], None if labels is None else labels[cut]) for cut in cuts]
