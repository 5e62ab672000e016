"""Checks that many public entries make of an argument; `name` is what a message calls the argument."""

import math

import numpy as np

from scratchvae.backend import kind


def whole(name, value, least=1):
    """Return `value` as an int; unless it is a whole number ≥ `least`, 1 by default, a ValueError is raised."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number ≥ {least}")
    return int(value)


def positive(name, value):
    """Return `value` as a float; unless it is a finite number > 0, a ValueError is raised."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a number > 0")
    return float(value)


def fitted(model, name="mean_"):
    """Return `model`; unless `fit` has left an attribute called `name` on it, a ValueError is raised."""
    if not hasattr(model, name):
        raise ValueError(f"this {type(model).__name__} is not fitted yet: call fit(x) first")
    return model


def float_rows(x, width=None):
    """Return x as float64 rows (N, width), with uint8 pixels as x/255.

    width is any number unless given. Other shapes, and numbers that are not finite, raise a ValueError.
    """
    x = np.asarray(x)
    x = x / 255 if x.dtype == np.uint8 else x.astype(float)
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != (width or x.shape[1]):
        raise ValueError(f"x has shape {x.shape}; expected (N, {width or 'D'}) with N ≥ 1, one datapoint per row")
    if not np.isfinite(x).all():
        raise ValueError("x has values that are not finite; expected numbers")
    return x


def rows_of(name, x, model):
    """Return x as contiguous rows in host memory, at which `model` can be trained or evaluated; None for None.

    The rows are uint8 or finite floats, in the support of the model's likelihood. Others raise a ValueError.
    """
    if x is None:
        return None
    if kind(x) == "cupy":
        raise ValueError(
            f"{name} is on the device, a cupy array; expected rows in host memory, which are moved from there"
        )
    x = np.ascontiguousarray(x)
    if x.ndim != 2 or x.shape[1] != model.n_visible or len(x) == 0:
        raise ValueError(
            f"{name} has shape {x.shape}; expected (N, {model.n_visible}) with N ≥ 1, one datapoint per row"
        )
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise ValueError(f"{name} holds {x.dtype}; expected uint8 pixels, which are read as x/255, or floats")
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        raise ValueError(f"{name} has values that are not finite; expected numbers")
    low, high = getattr(model.likelihood, "support", (-math.inf, math.inf))
    read = 255 if x.dtype == np.uint8 else 1  # since pixels are read as x/255
    lowest = x.min() / read
    highest = x.max() / read
    if lowest < low or highest > high:
        hint = f"for a likelihood {model.config['likelihood']}"
        if (low, high) == (0, 1):
            hint += ", whose pixels are in [0, 1]: divide by 255, or save as uint8"
        came = f"values from {lowest:g} to {highest:g}{', pixels being read as x/255' if read > 1 else ''}"
        raise ValueError(f"{name} has {came}; expected [{low:g}, {high:g}] {hint}")
    if hasattr(model.likelihood, "check"):
        try:
            model.likelihood.check(x / 255 if x.dtype == np.uint8 else x)
        except ValueError as error:
            raise ValueError(
                f"{name} cannot be scored by the likelihood {model.config['likelihood']}: {error}"
            ) from None
    return x


def finite_array(name, value, shape):
    """Return a float64 copy of `value`; a ValueError is raised for another shape or numbers that are not finite."""
    value = np.array(value, float)
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}; expected {shape or 'a number'}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are not finite; expected numbers")
    return value


def positive_definite(name, value, D):
    """Return a symmetric positive definite matrix (D, D) and its Cholesky factor; others raise a ValueError."""
    value = finite_array(name, value, (D, D))
    try:
        if np.abs(value - value.T).max() > 1e-8 * np.abs(value).max():
            raise np.linalg.LinAlgError
        return value, np.linalg.cholesky(value)
    except np.linalg.LinAlgError:
        raise ValueError(f"{name} is not symmetric and positive definite; expected a matrix that is") from None
