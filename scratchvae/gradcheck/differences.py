"""Derivatives of a loss by differences of its values, each with a bound on its own error.

A central difference (f(a + h) - f(a - h)) / 2h has two errors. Curvature adds about h² f'''/6, and rounding adds the
noise of f divided by h. The first is seen in the change from one step to another, and the second follows from the noise
of f, which is measured (Moré & Wild 2011, "Estimating Computational Noise"). So a gradient is called wrong only where
it is further from the difference than both errors together, and what is too small to be seen is said.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from scratchvae.backend import kind, move

SAFETY = 20  # an error by rounding is taken to be this many times the measured noise
FACTOR = 8  # between one step and the next
DOWN = 7  # how many steps are tried below the first one
ENOUGH = 1e-9  # a relative error that no other step has to better
EPS = 2.0**-52


class Loss:
    """A loss as the terms that it is the sum of, in float64.

    Differences are taken of each term before they are summed. What does not move then cancels exactly, and what is
    large and constant adds no rounding.

    function   takes no argument and returns a number, or an array whose sum is meant.
    raised     is the first error that the loss has raised beside the point, as text; "" while it has raised none.
    """

    def __init__(self, function):
        self.function = function
        self.raised = ""

    def beside(self, count):
        """Return the terms at a point beside the one that is checked: `count` NaN where the loss is not defined there.

        A step that leads there is not taken.
        """
        try:
            terms = self()
        except Exception as error:  # whatever a loss says of numbers that it was not made for
            self.raised = self.raised or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return np.full(count, np.nan)
        return terms if len(terms) == count else np.full(count, np.nan)

    def __call__(self):
        value = self.function()
        if not isinstance(value, np.ndarray | np.generic | float):
            value = _numbers(value)
        if np.iscomplexobj(value):
            raise LossError("the loss is complex; expected a real number, or an array of real terms")
        return np.array(value, np.float64).reshape(-1)  # of its own, since what is returned may change with the arrays


class LossError(ValueError):
    """A loss has returned something that is no number."""


def _numbers(value):
    """Return what a loss has returned as an array, or raise a `LossError` that says what it is and what to do."""
    if kind(value) == "cupy":
        return move(value, "numpy")
    if hasattr(value, "detach"):  # torch's, which may still be tied to its graph
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except ValueError:  # parts of several shapes
        array = np.empty(0, object)
    if array.dtype.kind in "fiubc" and not isinstance(value, list | tuple):
        return array
    remedy = {
        "NoneType": ": is a return missing?",
        "tuple": ": hand over lambda: f()[0] if the loss comes first",
        "list": ": hand over its sum, or an array",
    }
    raise LossError(
        f"the loss returned {type(value).__name__}; expected a number, or an array of terms whose sum is meant"
        + remedy.get(type(value).__name__, "")
    )


class Entry:
    """A line through the point at which an array is, along one of its entries.

    loss    is a `Loss`, and count the number of its terms.
    """

    def __init__(self, loss, count, array, place):
        self.loss = loss
        self.count = count
        self.array = array
        self.place = np.unravel_index(int(place), array.shape)
        self.before = array[self.place].copy() if kind(array) == "cupy" else array[self.place]

    def at(self, t):
        """Return the terms of the loss with the entry moved by about t, and by how much it was moved."""
        start = float(self.before)
        self.array[self.place] = start + t
        moved = float(self.array[self.place]) - start
        try:
            return self.loss.beside(self.count), moved
        finally:
            self.array[self.place] = self.before

    def along(self, gradient):
        """Return the derivative along the line that a gradient of the array predicts."""
        return float(gradient[self.place])


class Direction:
    """A line through the point at which arrays are, along a direction that moves all their entries.

    arrays       is a list of arrays.
    directions   is a list of arrays of their shapes in host memory, in float64.
    """

    def __init__(self, loss, count, arrays, directions):
        self.loss = loss
        self.count = count
        self.arrays = arrays
        self.directions = directions
        self.before = [array.copy() for array in arrays]

    def at(self, t):
        """Return the terms of the loss with the arrays moved by t times the direction, and t."""
        try:
            for array, before, direction in zip(self.arrays, self.before, self.directions, strict=True):
                array[...] = before + (t * direction if type(array) is np.ndarray else move(t * direction, kind(array)))
            return self.loss.beside(self.count), t
        finally:
            for array, before in zip(self.arrays, self.before, strict=True):
                array[...] = before

    def along(self, *gradients):
        """Return the derivative along the line that gradients of the arrays predict."""
        return float(sum((d * g).sum(dtype=np.float64) for d, g in zip(self.directions, gradients, strict=True)))


@dataclass(frozen=True)
class Slope:
    """A derivative along a line, as differences see it.

    value          is the central difference.
    error          is a bound on its error, by curvature and by rounding.
    left, right    are the one-sided differences.
    kink           says whether these two stay apart as the step shrinks: the loss has a kink at this point.
    step           is the step that was taken.
    """

    value: float
    error: float
    left: float
    right: float
    kink: bool
    step: float

    def verdict(self, ours, tolerance):
        """Say whether a derivative "agrees" with this one, is "wrong", or cannot be compared: "unseen", or at a "kink".

        It agrees within the tolerance and the error. What the derivative at a kink is, is a matter of convention: every
        slope between the one-sided differences agrees, and one outside may be right where several kinks meet.
        """
        if self is UNSEEN:
            return "unseen"
        if abs(self.value - ours) <= tolerance + self.error:
            return "agrees"
        if not self.kink:
            return "wrong"
        low, high = sorted((self.left, self.right))
        return "agrees" if low <= ours + tolerance + self.error and ours - tolerance - self.error <= high else "kink"

    def outside(self, ours):
        """Return how far a derivative is from the slopes between the one-sided differences."""
        low, high = sorted((self.left, self.right))
        return max(low - ours, ours - high, 0.0)


UNSEEN = Slope(0.0, math.inf, 0.0, 0.0, False, 0.0)  # where the loss gives no number, or no step moves the array


def noise_of(line, eps):
    """Return the noise of the loss: the standard deviation of the rounding errors in its value.

    Nine values at neighbouring points are differenced until a polynomial is gone, and rounding is left: the k-th
    differences of independent errors have (2k)! / (k!)² times their variance (Moré & Wild 2011, section 2). This is
    done at three distances, since at a small one a loss that is the difference of large numbers may not move at all.

    line   moves the arrays by about their own size.
    eps    is that of the coarsest array.
    """
    found = []
    for distance in (eps**0.87, eps**0.62, eps**0.42):
        values = np.array([line.at(k * distance)[0] for k in range(-4, 5)])
        for k in (3, 4, 5):
            differences = np.diff(values, k, axis=0).sum(axis=1)
            found.append(math.sqrt(np.mean(differences**2) / math.comb(2 * k, k)))
    return float(max(found))


def slope(line, here, h, noise):
    """Return the slope along a line by the step h, with the error that rounding alone makes. `here` are the terms at 0.

    Where the loss is defined on one side only, the one-sided difference is taken.
    """
    above, up = line.at(h)
    below, down = line.at(-h)
    if not up or not down:
        return UNSEEN
    value = float((above - below).sum() / (up - down))
    right = float((above - here).sum() / up)
    left = float((below - here).sum() / down)
    if not math.isfinite(value):
        value = right if math.isfinite(right) else left
    rounding = SAFETY * (noise / h + EPS * abs(value))  # of the loss here, and of what it has moved by
    return Slope(value, rounding, left, right, False, h) if math.isfinite(value) else UNSEEN


def best_slope(line, here, h, noise, up, ours, tolerance):
    """Return the slope along a line by that step, among many, whose errors are the least.

    There are seven below h and `up` above it, each 8 times the one before.

    What a step is off by, beyond its rounding, shows in how far it is from the next two finer ones, and from all finer
    ones beyond their rounding. Of steps that are good enough the nearest to h is taken. If the one-sided differences
    stay apart as the step shrinks, the point itself is a kink.

    A loss may be known only in steps of its own, as where a softmax is saturated: what it is seen to change by at least
    bounds the error of every change. If the finer steps do not change it at all, it is flat here, or too flat for these
    steps to show; then a slope by coarser steps is taken if it agrees with `ours`. The first of these is not: behind a
    kink it says nothing of this point.
    """
    ladder = [(k, slope(line, here, h * FACTOR**k, noise)) for k in range(-DOWN, up + 1)]
    ladder = [(k, one) for k, one in ladder if one is not UNSEEN]
    changes = [abs(side) * one.step for _, one in ladder for side in (one.left, one.right) if abs(side) > 0]
    least = min(changes, default=0.0)
    rough = [(k, replace(one, error=one.error + least / one.step) if one.value else one) for k, one in ladder]
    best = _least_error(rough)
    if best.value == 0 and best.left == best.right == 0:
        for _, one in [pair for pair in rough if pair[1].value][1:]:
            if one.verdict(ours, tolerance) == "agrees":
                return one
    return best


def _least_error(ladder):
    """Return the slope of least error among (k, slope) of ascending steps, with that error; UNSEEN if there are not
    two."""
    found = []
    for place, (k, one) in enumerate(ladder):
        finer = [other for _, other in ladder[:place]] or [other for _, other in ladder[1:2]]
        near_by = [1.25 * abs(one.value - other.value) for other in finer[-2:]]  # the finer one has an error too
        far = [abs(one.value - other.value) - other.error for other in finer]
        error = max([*near_by, *far], default=math.inf) + one.error
        near = [other for _, other in ladder[max(place - 1, 0) : place + 2]]
        kink = any(_stay_apart(*pair) for pair in itertools.pairwise(near))
        better = max(error, ENOUGH * abs(one.value)), abs(k)
        found.append((better, Slope(one.value, error, one.left, one.right, kink, one.step)))
    return min(found, key=lambda pair: pair[0])[1] if len(found) > 1 else UNSEEN


def _stay_apart(finer, coarser):
    """Say whether the one-sided differences do not come nearer to each other as the step shrinks."""
    bend = abs(finer.right - finer.left)
    return bend > abs(coarser.right - coarser.left) / 2 and bend > 4 * finer.error
