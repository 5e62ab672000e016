"""The three data sets that are known by name: the digits of scikit-learn, MNIST, and Frey Face.

Each of the functions returns a list of (images, labels), one for each split that the data set comes in.
"""

import gzip
import hashlib
import io
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from scratchvae.data.dataset import DataError
from scratchvae.data.mat import read_uint8
from scratchvae.files import FileError, require_file

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
FREY_SHAPE = (560, 1965)  # a column for each face
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # of the 1965 x 560 uint8 array


def digits():
    """Return the digits, 1,797 images (64,) with the labels 0 to 9, as one split."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return [(np.round(found.data * (255 / 16)).astype(np.uint8), found.target.astype(np.uint8))]


def mnist(data_dir):
    """Return MNIST, images (784,) with the labels 0 to 9, as three splits of 50,000, 10,000 and 10,000."""
    images, labels, test, test_labels = (_mnist_file(name, data_dir) for name in MNIST_FILES)
    images = images.reshape(60000, 784)
    test = test.reshape(10000, 784)
    return [(images[:50000], labels[:50000]), (images[50000:], labels[50000:]), (test, test_labels)]


def frey(data_dir):
    """Return Frey Face, 1,965 images (560,) without labels, as one split."""

    def read(path):
        faces = np.ascontiguousarray(read_uint8(path, "ff", FREY_SHAPE).T)
        if hashlib.sha256(faces).hexdigest() != FREY_SHA256:
            raise DataError(f"{path} does not hold the Frey faces (the SHA-256 of ff differs): fetch it again")
        return faces

    return [(_find("frey", [FREY_FILE], data_dir, [mirror + FREY_FILE for mirror in FREY_MIRRORS], read), None)]


def _mnist_file(name, data_dir):
    """Return the array in the IDX file `name` of MNIST, whose size, header and SHA-256 are checked."""
    shape, sha256 = MNIST_FILES[name]
    size = 4 + 4 * len(shape) + math.prod(shape)

    def read(path):
        raw = _unpacked(path, size)
        magic = 2048 + len(shape)  # says that the file holds uint8, with so many axes
        if len(raw) < 4 + 4 * len(shape):
            raise DataError(f"{path} is no IDX file: it has {len(raw)} bytes, less than its header")
        header = np.frombuffer(raw[: 4 + 4 * len(shape)], ">u4")
        if header[0] != magic:
            raise DataError(f"{path} is no IDX file: magic {header[0]}, expected {magic}")
        if tuple(header[1:]) != shape or len(raw) != size:
            came = f"{len(raw)} bytes" if len(raw) <= size else f"more than {size:,} bytes"
            raise DataError(f"{path} has shape {tuple(header[1:].tolist())} in {came}; MNIST's has {shape}")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise DataError(
                f"{path} is not MNIST's (its SHA-256 differs): fetch it again, or give the path of your own images"
            )
        return np.frombuffer(raw, np.uint8, offset=4 * len(header)).reshape(shape)

    return _find("mnist", [f"{name}.gz", name], data_dir, [mirror + name + ".gz" for mirror in MNIST_MIRRORS], read)


def _unpacked(path, size):
    """Return the first size + 1 bytes of a file, decompressed if its name ends in .gz; no more of it is expanded.

    A .gz may have several members, whose contents follow each other.
    """
    most = size + size // 64 + 4096  # what is stored as it is has 5 bytes more in a block of, say, 16 KiB or 64 KiB
    with open(path, "rb") as file:
        raw = file.read(most + 1)
    if path.suffix != ".gz":
        return raw[: size + 1]
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(size + 1)  # where it ends, its checksum is compared
    except (OSError, EOFError, zlib.error) as error:
        if len(raw) > most:
            raise DataError(f"{path} has more than {most:,} bytes, and MNIST's has fewer: fetch it again") from None
        reason = "it is cut short" if isinstance(error, EOFError) else " ".join(str(error).split())
        raise DataError(f"{path} is a broken gzip file ({reason}): fetch it again") from None
    return content


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
            if path.exists() and not path.is_dir():
                return _read(path, read)
    failures = []
    for url in urls:
        try:
            bar = sys.stderr.isatty()
            path = Path(pooch.retrieve(url, known_hash=None, fname=names[0], path=cache / folder, progressbar=bar))
        except Exception as error:  # there is no network, host or permission; the next mirror may work
            failures.append(f"{url}: {type(error).__name__}")
            continue
        try:
            return _read(path, read)
        except DataError as error:
            path.unlink(missing_ok=True)
            failures.append(f"{url}: {error}")
    raise DataError(
        f"{names[0]} is in none of {', '.join(str(place / folder) for place in places)} and could not be downloaded "
        f"({'; '.join(failures)}): put it there, or name its folder with data_dir or SCRATCHVAE_DATA"
    )


def _read(path, read):
    """Return read(path); a path that is no regular file, or cannot be read, raises a DataError."""
    try:
        return read(require_file(path))
    except FileError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from None
