"""Checks that many public entries make of an argument; `name` is what a message calls the argument."""

import math
import warnings

import numpy as np

from scratchvae.backend import kind, plain
from scratchvae.data.pixels import in_words, into_unit, warn_if_dark, warn_if_on_another_scale


def whole(name, value, least=1):
    """Return `value` as an int; unless it is a whole number ≥ `least`, 1 by default, a ValueError is raised.

    So it is for one of 64 bits or more, with which no array can be made, and whose quotients are no floats.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number ≥ {least}")
    if value >= 1 << 63:
        raise ValueError(f"{name} is a number of {len(str(value))} digits; expected a whole number below 2^63")
    return int(value)


def is_real(value):
    """Say whether `value` is a number that a float can hold; a bool, infinity and NaN are none."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    try:
        return number and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def positive(name, value):
    """Return `value` as a float; unless it is a finite number > 0, a ValueError is raised."""
    if not is_real(value) or not value > 0:
        raise ValueError(f"{name} is {value!r}; expected a number > 0")
    return float(value)


def share(name, value):
    """Return `value` as a float; unless it is a number between 0 and 1, a ValueError is raised."""
    if not is_real(value) or not 0 < value < 1:
        raise ValueError(f"{name} is {value!r}; expected a rate between 0 and 1, such as 0.9")
    return float(value)


def flag(name, value):
    """Return `value` as a bool; anything but True and False raises a ValueError."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def fitted(model, name="mean_"):
    """Return `model`; unless `fit` has left an attribute called `name` on it, a ValueError is raised."""
    if not hasattr(model, name):
        raise ValueError(f"this {type(model).__name__} is not fitted yet: call fit(x) first")
    return model


def float_rows(x, width=None):
    """Return x as float64 rows (N, width). Whole numbers, uint8 among them, are taken as the numbers they are.

    width is any number unless given. Other shapes, and what is no array of finite numbers, raise a ValueError.
    """
    x = plain("x", x)
    if x.ndim != 2 or x.size == 0 or x.shape[1] != (width or x.shape[1]):
        raise ValueError(f"x has shape {x.shape}; expected (N, {width or 'D'}) with N ≥ 1, one datapoint per row")
    return finite("x", x.astype(float))


def rows_of(name, x, model, train=None):
    """Return x as contiguous rows in host memory, at which `model` can be trained or evaluated.

    The rows are those of `model_rows`, one or more. A warning is given for uint8 that do not look like 0 to 255, for
    floats that do not look like 0 to 1 where the likelihood takes only these, and for uint8 where the likelihood does
    not say which values data may have. Inside `fit`, which has given it, it is not given again. train are the training
    rows, for the rows "valid" alone: these may be None, which is returned, and the warning is one of a scale that is
    not that of the training rows.
    """
    if x is None and train is not None:
        return None
    if kind(x) == "cupy":
        raise ValueError(
            f"{name} is on the device, a cupy array; expected rows in host memory, which are moved from there"
        )
    x = np.ascontiguousarray(model_rows(name, x, model, least=1))
    if model.guard.depth > 1:
        return x
    if train is not None:
        warn_if_on_another_scale(name, x[:, : model.n_visible], train[:, : model.n_visible], stacklevel=3)
    else:
        warn_if_dark(name, x[:, : model.n_visible], 3, floats=takes_unit(model.likelihood))
        if x.dtype == np.uint8 and not hasattr(model.likelihood, "support"):
            warnings.warn(
                f"{name} holds uint8, which is read as x/255; if the likelihood {model.config['likelihood']} is one of "
                f"whole numbers, hand over {name}.astype(np.float32), and else give it support = (0, 1)",
                stacklevel=3,
            )
    return x


def model_rows(name, x, model, least=0):
    """Return x, which lies in host memory, as rows (N, D) of uint8 or finite floats that `model` can score.

    They are in the support of the model's likelihood, which is asked with its own `check` too. least is the smallest N,
    0 unless given. Others raise a ValueError.
    """
    x = plain(name, x)
    if x.ndim != 2 or x.shape[1] != model.n_columns or len(x) < least:
        labelled = f": {model.n_visible} pixels and a label of {model.n_classes}, as model.labelled(x, y) returns them"
        raise ValueError(
            f"{name} has shape {x.shape}; expected ({'N' if least else 'M'}, {model.n_columns})"
            f"{' with N ≥ 1' if least else ''}, one datapoint per row{labelled if model.n_classes else ''}"
        )
    if x.dtype == bool:
        raise ValueError(f"{name} holds bool; expected floats, 0 and 1 for black and white: {name}.astype('float32')")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise ValueError(f"{name} holds {x.dtype}; expected uint8 pixels, which are read as x/255, or floats")
    if x.size == 0:
        return x
    pixels = x[:, : model.n_visible]
    _require_range(name, pixels, model)
    if model.n_classes:
        _require_one_hot(name, x[:, model.n_visible :], model.n_classes)
    if hasattr(model.likelihood, "check"):
        try:
            model.likelihood.check(pixels / 255 if x.dtype == np.uint8 else pixels)
        except ValueError as error:
            raise ValueError(
                f"{name} cannot be scored by the likelihood {model.config['likelihood']}: {error}"
            ) from None
    if x.dtype == np.uint8 and not _reads_pixels(model.likelihood):
        raise ValueError(
            f"{name} holds uint8, which would be read as x/255, and the likelihood {model.config['likelihood']} takes "
            f"values up to {model.likelihood.support[1]:g}: hand over floats, {name}.astype(np.float32) for the "
            f"numbers as they are or {name} / 255 for pixels"
        )
    return x


def _require_one_hot(name, rows, n_classes):
    """Raise a ValueError unless each row (M, C) has one white entry, 255 in uint8 and 1 in floats, and zeros."""
    white = 255 if rows.dtype == np.uint8 else 1
    bad = ((rows != 0) & (rows != white)).any(axis=1) | ((rows == white).sum(axis=1) != 1)
    if bad.any():
        raise ValueError(
            f"{name} has no label in the last {n_classes} columns of {bad.sum():,} of {len(rows):,} rows; expected one "
            f"entry of {white} in each, and 0 in the others, as model.labelled(x, y) returns them"
        )


def _reads_pixels(likelihood):
    """Say whether a likelihood takes uint8 as pixels: if its support is in [0, 1], or it says so by `pixels`."""
    low, high = getattr(likelihood, "support", (0, 1))
    return getattr(likelihood, "pixels", False) or (low >= 0 and high <= 1)


def takes_unit(likelihood):
    """Say whether the data of a likelihood are pixels in [0, 1] and nothing else."""
    return tuple(getattr(likelihood, "support", ())) == (0, 1)


def _require_range(name, x, model):
    """Raise a ValueError unless the entries of x are finite, in the model's precision too, and in its support."""
    low, high = getattr(model.likelihood, "support", (-math.inf, math.inf))
    read = 255 if x.dtype == np.uint8 else 1  # since pixels are read as x/255
    lowest = x.min() / read  # both are NaN if an entry of x is
    highest = x.max() / read
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError(f"{name} has values that are not finite; expected numbers")
    came = f"values from {in_words(lowest)} to {in_words(highest)}"
    if lowest < low or highest > high:
        hint = f"for a likelihood {model.config['likelihood']}"
        if takes_unit(model.likelihood):
            hint += f", whose pixels are in [0, 1]: {into_unit(lowest, highest)}"
        came += ", pixels being read as x/255" if read > 1 else ""
        raise ValueError(f"{name} has {came}; expected [{low:g}, {high:g}] {hint}")
    if max(-lowest, highest) > np.finfo(model.dtype).max:
        raise ValueError(f"{name} has {came}, beyond {model.dtype}, in which the model computes: rescale it")


def labels_of(name, y, n, n_classes):
    """Return the labels y of n rows, (n,); unless they are whole numbers from 0 to n_classes - 1, raise a ValueError.

    n_classes is 0 for a model without classes, which takes no labels.
    """
    if not n_classes:
        raise ValueError(f"{name} holds labels, and the model has no classes: leave them out, or take n_classes")
    if y is None:
        raise ValueError(f"{name} is None; expected the labels of {n:,} rows, since the model has {n_classes} classes")
    y = plain(name, y)
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise ValueError(f"{name} is {y.dtype} {y.shape}; expected ({n},), a whole number for each row")
    if n and not 0 <= y.min() <= y.max() < n_classes:
        raise ValueError(
            f"{name} has labels from {y.min()} to {y.max()}; expected 0 to {n_classes - 1}, since the model has "
            f"{n_classes} classes"
        )
    return y


def finite(name, x):
    """Return the array x; a ValueError is raised if it has numbers that are not finite."""
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has values that are not finite; expected numbers")
    return x


def finite_array(name, value, shape):
    """Return a float64 copy of `value`; a ValueError is raised for another shape or numbers that are not finite."""
    value = np.array(plain(name, value), float)
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}; expected {shape or 'a number'}")
    return finite(name, value)


def positive_definite(name, value, D):
    """Return a symmetric positive definite matrix (D, D) and its Cholesky factor; others raise a ValueError."""
    value = finite_array(name, value, (D, D))
    try:
        if np.abs(value - value.T).max() > 1e-8 * np.abs(value).max():
            raise np.linalg.LinAlgError
        return value, np.linalg.cholesky(value)
    except np.linalg.LinAlgError:
        raise ValueError(f"{name} is not symmetric and positive definite; expected a matrix that is") from None
