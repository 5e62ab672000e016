"""Reads the user's own images: a .npy, a .npz or a folder, and what is asked of the arrays in them."""

import math
import warnings

import numpy as np

from scratchvae.data.dataset import DataError
from scratchvae.data.images import read_folder
from scratchvae.data.pixels import in_words, into_unit
from scratchvae.files import FileError, is_archive, names_in, read_npy, read_npz

PARTS = ("train", "valid", "test")


def own(path, background=None, shape=None, color="grey"):
    """Return the user's data at `path`: a list of (rows, labels), one for each split, and more about them.

    The second is the shape of an image, the third the names of the classes, None without class folders, and the fourth
    the names of the files, None where there is one alone. background, shape and color are those of `read_folder`. A
    DataError says what is wrong with the file.
    """
    classes = None
    labels = None
    names = None
    if path.is_dir():
        images, labels, classes, names = read_folder(path, background, shape, color)
    elif path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path} is a {path.suffix or 'file'}; expected .npy, .npz or a folder of images")
    else:
        arrays = _arrays(path)
        if arrays.keys() >= set(PARTS):
            return _in_splits(path, arrays, color), _shape(path, arrays["train"], shape, color), None, None
        labels = arrays.pop("labels", None)
        (images,) = arrays.values()
    rows = _rows(path, images, color)
    return [(rows, _labels(path, images, labels))], _shape(path, images, shape, color), classes, names


def _arrays(path):
    """Return the arrays that are needed of a .npy or .npz file, by name: images, or train, valid and test, and labels.

    The file is read by its content, whatever its name ends in. A warning names the arrays that are left out.
    """
    try:
        if not is_archive(path):
            return {"images": read_npy(path)}
        return read_npz(path, _chosen(path, names_in(path)))
    except FileError as error:
        raise DataError(str(error)) from None


def _chosen(path, names):
    """Return those of the names of the arrays in a .npz file that are needed."""
    if set(names) >= set(PARTS):
        chosen = [name for part in PARTS for name in (part, f"{part}_labels") if name in names]
    else:
        images = [name for name in names if name != "labels"]
        if "images" in images:
            images = ["images"]
        if len(images) != 1:
            raise DataError(f"{path} holds {', '.join(images) or 'nothing'}; expected images, or train, valid and test")
        chosen = images + ["labels"] * ("labels" in names)
    if left := [name for name in names if name not in chosen]:
        warnings.warn(f"{path}: {', '.join(left)} are left out; read are {', '.join(chosen)}", stacklevel=6)
    return chosen


def _in_splits(path, arrays, color):
    """Return (rows, labels) of each split of a .npz file."""
    parts = [(arrays[part], arrays.get(f"{part}_labels")) for part in PARTS]
    kinds = {f"{images.dtype} {images.shape[1:]}" for images, _ in parts}
    if len(kinds) > 1:
        raise DataError(f"{path} has splits of different kinds: {', '.join(sorted(kinds))}")
    return [(_rows(path, images, color), _labels(path, images, labels)) for images, labels in parts]


def _shape(path, images, shape, color):
    """Return (height, width) of an array of images; a row of D numbers is a square image if D is a square number.

    With color "rgb" it is (height, width, 3), and D must be 3 times a square number. shape is the one that is expected,
    and a row of as many numbers has it; None if any will do.
    """
    if images.ndim > 2:
        return images.shape[1:]
    width = images.shape[1]
    if shape is not None and math.prod(shape) == width:
        return tuple(shape)
    if color == "rgb":
        if 3 * (side := math.isqrt(width // 3)) ** 2 != width:
            raise DataError(
                f"{path} has rows of {width}, which are no square images of three colours: save (N, height, width, 3)"
            )
        return side, side, 3
    if (side := math.isqrt(width)) ** 2 == width:
        return side, side
    warnings.warn(
        f"{path} has rows of {width}, drawn as 1 x {width}: save (N, height, width) for pictures", stacklevel=5
    )
    return 1, width


def _rows(path, images, color):
    """Return images as contiguous rows (N, D) of uint8 or floats; other kinds raise a DataError."""
    _require_axes(path, images, color)
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


def _require_axes(path, images, color):
    """Raise a DataError unless an array holds rows, or images that are grey or coloured as `color` says."""
    has_colours = images.ndim == 4 and images.shape[3] == 3
    if images.size and (images.ndim == 2 or (has_colours if color == "rgb" else images.ndim == 3)):
        return
    expected = "(N, D) or (N, height, width, 3)" if color == "rgb" else "(N, D) or (N, height, width)"
    hint = ", none of them 0"
    if images.size and has_colours:
        hint = ": to train with the colours give color='rgb' (--color rgb), or save the images as grey"
    elif images.size and images.ndim == 3:
        hint = ": these images are grey, as without color='rgb' (--color rgb)"
    elif images.ndim == 4 and images.shape[1] == 3:
        hint = ": put the colours last, np.moveaxis(images, 1, 3), and give color='rgb' (--color rgb)"
    raise DataError(f"{path} has shape {images.shape}; expected {expected}{hint}")


def _labels(path, images, labels):
    """Return the labels, or None; a DataError is raised unless there is one whole number for each image."""
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"{path} has labels {labels.dtype} {labels.shape} for {len(images)} images; expected a whole number each"
        )
    return labels


def unit(name, images):
    """Return the images; a DataError is raised for floats outside [0, 1], which are no probabilities."""
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 1):
        lowest = images.min()
        highest = images.max()
        came = f"values from {in_words(lowest)} to {in_words(highest)}"
        raise DataError(f"{name} has {came}; expected [0, 1] to binarise: {into_unit(lowest, highest)}")
    return images
