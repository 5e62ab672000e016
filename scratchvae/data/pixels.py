"""How numbers are read as pixels: uint8 as x/255, and drawn as Bernoulli(x) where a data set is binarised."""

import warnings

import numpy as np

WIDELY = 10  # two sets of rows whose values differ by more than this factor are suspected to be on two scales
DARK = 127  # uint8 data without a pixel brighter than this, half of white, are suspected not to be 0..255


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


def into_unit(lowest, highest):
    """Return in words how numbers from `lowest` to `highest`, which are not all in [0, 1], become pixels in [0, 1]."""
    nearly = 1e-5  # what rounding may add
    if -nearly <= lowest and highest <= 1 + nearly:
        return "round them into it, x.clip(0, 1)"
    if -1 - nearly <= lowest < 0 and highest <= 1 + nearly:
        return "if black is -1 and white is 1, take (x + 1) / 2"
    if lowest < 0:
        return "if they are standardised, undo that, and else take a gaussian or laplace likelihood with a free mean"
    if DARK < highest <= 255:
        return "divide by 255, or save as uint8"
    hint = "; a table with units of its own is for scratchvae.sklearn, in Python" if highest > 256 else ""
    return f"divide all data by their maximum, here {in_words(highest)}{hint}"


def warn_if_dark(name, x, stacklevel, floats=False):
    """Warn, calling the rows `name`, if x is uint8 and no number in it exceeds DARK.

    Masks of 0 and 1, grey levels from 0 to 16 and percentages are often stored as uint8, and x/255 then makes all of
    them nearly black. With `floats`, which is for pixels in [0, 1], floats that do not exceed DARK/255 are warned about
    too, as where such data were divided by 255, unless all are the same. Images that are dark in truth are warned about
    as well, and are used as they are. stacklevel is that of `warnings.warn`, counted from the caller.
    """
    if x.size == 0 or not (floats or x.dtype == np.uint8):
        return
    highest = x.max().item()
    white = 255 if x.dtype == np.uint8 else 1
    if not highest / white <= DARK / 255 or (white == 1 and not 0 <= x.min() < highest):  # NaN is refused elsewhere
        return
    came = f"uint8 up to {highest}, which is read as x/255, as pixels up to {highest / 255:.2g}"
    remedy = f"if white is {highest}, save or hand over x.astype('float32') / {highest}"
    if white == 1:
        came = f"floats up to {highest:.2g}, where white is 1"
        remedy = "if their maximum is to be white, divide all data by it"
    warnings.warn(
        f"{name} holds {came}: {remedy if highest else 'is that meant?'}; if the images are that dark, ignore this",
        stacklevel=stacklevel + 1,
    )


def warn_if_on_another_scale(name, x, train, stacklevel):
    """Warn, calling the rows `name`, if they do not seem to be on the scale of the rows `train`.

    They do not where x is uint8 and dark, as `warn_if_dark` has it, and train is not, and where both the largest size
    of a value and the mean size differ by more than a factor of WIDELY. Rows are compared as they are read, uint8 as
    x/255. stacklevel is that of `warnings.warn`, counted from the caller.
    """
    largest = _largest(x)
    of_train = _largest(train)
    if x.dtype == np.uint8 and largest <= DARK / 255 < of_train:
        warn_if_dark(name, x, stacklevel + 1)
    elif _differ(largest, of_train) and _differ(_mean_size(x), _mean_size(train)):
        warnings.warn(
            f"{name} has values of sizes up to {largest:.2g}, and train up to {of_train:.2g}: expected one scale for "
            "both; divide both by the same number",
            stacklevel=stacklevel + 1,
        )


def _differ(a, b):
    """Say whether two numbers ≥ 0 differ by more than a factor of WIDELY."""
    return max(a, b) > WIDELY * min(a, b)


def _largest(x):
    """Return the largest absolute value in x as it is read."""
    return max(abs(float(x.min())), abs(float(x.max()))) / (255 if x.dtype == np.uint8 else 1)


def _mean_size(x):
    """Return the mean absolute value in x as it is read."""
    return float(np.abs(x).mean(dtype=float)) / (255 if x.dtype == np.uint8 else 1)


def in_words(number):
    """Return a number in few digits, or in all of them where few would show another number."""
    short = f"{number:g}"
    return short if float(short) == number else str(number)
