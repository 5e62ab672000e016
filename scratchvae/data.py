"""Data sets in: digits, MNIST, Frey Face or your own images. Nothing else in the library reads data files.

Pixels stay as they are stored, uint8 where they are, and become floats by the minibatch. Splits are by position for
MNIST and by a fixed random permutation for the others, whose neighbours resemble each other.
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
SPLIT_SEED, BINARIZATION_SEED = 0, 1  # of the data, whatever the seed of the run


class DataError(ValueError):
    """A data set that is missing, broken, or not what it should be."""


@dataclass(frozen=True)
class Data:
    """Three splits of rows (N, D), with labels (N,) or None; a row is looked at as `image_shape` (height, width)."""

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
    """The data set `name`, as `Data`.

    name           "digits" (scikit-learn's 1,797 of 8 x 8, no download), "mnist", "frey", or a path of your own:
                   .npy (N, D) or (N, height, width); .npz with train, valid and test, or with one array of images (and
                   labels); or a folder of images of one size. uint8, or floats in [0, 1] (any, for a Gaussian)
    data_dir       where MNIST and Frey Face are looked for first; then SCRATCHVAE_DATA, the user's cache, mirrors
    n_train        keep the first so many training rows
    split          sizes of train, valid and test; 80 / 10 / 10 % for your own data
    binarization   "grey": the pixels as they are. "fixed": one draw Bernoulli(x) for all time, the same whatever the
                   run's seed. "dynamic": left as they are here and drawn by the minibatch, by `fit` and `evaluate`
                   with binarization=data.binarization

    ValueError: arguments that do not fit. DataError: a file that is missing or broken, with what to do.
    """
    if binarization not in BINARIZATIONS:
        raise ValueError(f"binarization is {binarization!r}; expected one of {', '.join(BINARIZATIONS)}")
    if name == "digits":
        parts, shape = _digits(), (8, 8)
    elif name == "mnist":
        parts, shape = _mnist(data_dir), (28, 28)
    elif name == "frey":
        parts, shape = _frey(data_dir), (28, 20)
    elif str(name) and Path(name).exists():
        parts, shape = _own(Path(name))
    else:
        raise DataError(
            f"there is no data set {str(name)!r}; expected {', '.join(DATASETS)}, "
            "or the path of a .npy, .npz or folder (if yours has moved, its new place)"
        )
    if len(parts) == 1:  # not split yet
        parts = _split(*parts[0], split or SPLITS.get(name), shuffle=True)
    elif split is not None:  # split otherwise than it comes
        images, labels = zip(*parts, strict=True)
        if len({part is None for part in labels}) > 1:
            raise ValueError(f"{name} has labels for some of its splits only: it cannot be split otherwise")
        labels = None if labels[0] is None else np.concatenate(labels)
        parts = _split(np.concatenate(images), labels, split, shuffle=False)
    if binarization == "fixed":
        generator = np.random.default_rng(BINARIZATION_SEED)
        parts = [(binarise(_unit(name, x), thresholds(x.shape, x.dtype, generator)), labels) for x, labels in parts]
    if n_train is not None:
        images, labels = parts[0]
        if not isinstance(n_train, int | np.integer) or not 1 <= n_train <= len(images):
            raise ValueError(f"n_train is {n_train}; expected 1 to {len(images)}, the training rows of {name}")
        parts[0] = images[:n_train], None if labels is None else labels[:n_train]
    (train, a), (valid, b), (test, c) = parts
    return Data(Path(name).name, shape, binarization, train, valid, test, a, b, c)


def binarise(x, u):
    """x ~ Bernoulli(x) by u < x: uint8 gives 0 or 255, floats give 0 or 1. u are `thresholds` of the shape of x."""
    white = 255 if x.dtype == np.uint8 else 1
    return (u < x).astype(x.dtype) * white


def thresholds(shape, dtype, generator):
    """What decides in `binarise`: for uint8 one of 0..254, so that P(u < x) = x/255 to the last bit; else of [0, 1)."""
    return generator.integers(0, 255, shape, dtype=np.uint8) if dtype == np.uint8 else generator.random(shape)


# The three data sets that the library knows


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    return [(np.round(digits.data * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8))]


def _mnist(data_dir):
    images, labels, test, test_labels = (_mnist_file(name, data_dir) for name in MNIST_FILES)
    images, test = images.reshape(60000, 784), test.reshape(10000, 784)
    return [(images[:50000], labels[:50000]), (images[50000:], labels[50000:]), (test, test_labels)]


def _mnist_file(name, data_dir):
    shape, sha256 = MNIST_FILES[name]

    def read(path):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            try:
                raw = gzip.decompress(raw)
            except (EOFError, OSError, zlib.error) as error:
                raise DataError(f"{path} is a broken gzip file ({error}): fetch it again") from None
        magic = 2048 + len(shape)  # uint8, so many axes
        if len(raw) < 4 + 4 * len(shape):
            raise DataError(f"{path} is no IDX file: it has {len(raw)} bytes, less than its header")
        header = np.frombuffer(raw[: 4 + 4 * len(shape)], ">u4")
        if header[0] != magic:
            raise DataError(f"{path} is no IDX file: magic {header[0]}, expected {magic}")
        if tuple(header[1:]) != shape or len(raw) != 4 * len(header) + math.prod(shape):
            raise DataError(f"{path} has shape {tuple(header[1:].tolist())} in {len(raw)} bytes; MNIST's has {shape}")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise DataError(
                f"{path} is not MNIST's (its SHA-256 differs); for images of your own give their path as data"
            )
        return np.frombuffer(raw, np.uint8, offset=4 * len(header)).reshape(shape)

    return _find("mnist", [f"{name}.gz", name], data_dir, [mirror + name + ".gz" for mirror in MNIST_MIRRORS], read)


def _frey(data_dir):
    def read(path):
        from scipy.io import loadmat

        try:
            ff = loadmat(path, variable_names=["ff"]).get("ff")
        except Exception as error:  # scipy raises many kinds on a broken file
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
    """read(path) of the first file called one of `names` in data_dir, SCRATCHVAE_DATA or the cache, or downloaded."""
    import pooch

    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"data_dir {data_dir} is no folder")
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
        except Exception as error:  # no network, no such host, no permission: the next mirror may do
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
    if path.is_dir():
        images, labels = _folder(path), None
    elif path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path} is a {path.suffix or 'file'}; expected .npy, .npz or a folder of images")
    elif isinstance(arrays := _numpy(path), np.ndarray):
        images, labels = arrays, None
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
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile and the parser of npy headers raise a dozen kinds on a broken file
        raise DataError(f"{path} is no NumPy file of plain arrays ({error})") from None


def _folder(path):
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
    """(height, width) of an array of images; a row of D numbers is taken as a square if D is one."""
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
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"{path} has labels {labels.dtype} {labels.shape} for {len(images)} images; expected a whole number each"
        )
    return labels


def _unit(name, images):
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 1):
        raise DataError(f"{name} has values from {images.min():g} to {images.max():g}; expected [0, 1] to binarise")
    return images


def _split(images, labels, sizes, shuffle):
    n = len(images)
    if n < 3:
        raise ValueError(f"there are {n} datapoints; expected at least 3, one each to train, validate and test")
    if sizes is None:
        tenth = max(1, n // 10)
        sizes = (n - 2 * tenth, tenth, tenth)
    if len(sizes) != 3 or min(sizes) < 1 or sum(sizes) > n:
        raise ValueError(f"split is {tuple(sizes)}; expected three sizes ≥ 1 whose sum is at most {n}, the datapoints")
    order = np.random.default_rng(SPLIT_SEED).permutation(n) if shuffle else slice(None)
    images, labels = images[order], None if labels is None else labels[order]
    a, b, c = np.cumsum(sizes)
    cuts = [slice(0, a), slice(a, b), slice(b, c)]
    return [(images[cut], None if labels is None else labels[cut]) for cut in cuts]
