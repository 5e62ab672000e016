"""The loss at one point: the gradient of each array there, against differences along many lines."""

import collections
import math
from dataclasses import dataclass

import numpy as np

from scratchvae.backend import move
from scratchvae.gradcheck.differences import EPS, FACTOR, UNSEEN, Direction, Entry, best_slope, noise_of, slope

REFINED = 4  # of the entries of an array that disagree, so many are looked at with many steps
REFERENCE = 1000  # entries up to which the whole right gradient is found, to say what is wrong
MOST = 5000  # entries in which a gradient differs from an oracle's, and that are looked at for kinks
HALVINGS = 100  # how many groups of rows or columns are looked into where an array has more


@dataclass
class Measured:
    """How the gradient of one array compares with differences.

    wrong     says whether a line disagrees by more than the tolerance and the error of the difference.
    places    is an array with the flat indices of the entries that were moved one by one.
    theirs    is an array with the differences there.
    error     is the largest bound on the error of one of them.
    sees      is the smallest error of a single entry that would have been seen.
    kinked    is an array with the indices of the entries at which the loss has a kink, and the gradient is not wrong.
    outside   is at how many of these the gradient is no slope between the two sides.
    far       is at how many of these it is further from them than twice what they are in size.
    unseen    is at how many entries the loss is no number beside them.
    compared  says whether any line could be compared.
    step      is the step of the differences, relative to the size of the array's entries.
    """

    wrong: bool
    places: np.ndarray
    theirs: np.ndarray
    error: float
    sees: float
    kinked: np.ndarray
    outside: int
    far: int
    unseen: int
    compared: bool
    step: float


class Point:
    """The loss at the point at which its arrays are.

    loss        is a `Loss`.
    arrays      is a dict of its arrays by name.
    eps         is that of the coarsest of them.
    generator   is NumPy's, which draws directions and entries.
    gradients   is a dict of the gradients to check.
    step        is the first step of the differences, relative to the size of an array's entries; None derives it from
                the noise of the loss.
    noise       is the noise of the loss, which is measured unless it is given.
    """

    def __init__(self, loss, arrays, eps, generator, gradients, step=None, noise=None):
        self.loss = loss
        self.arrays = arrays
        self.eps = eps
        self.generator = generator
        self.here = loss()
        self.scales = sizes_of(arrays, gradients)
        rounded = eps / 2 * max(effects_of(arrays, gradients).values())  # what rounding its numbers does to the loss
        measured = self._noise(eps) if noise is None else noise
        self.noise = max(measured, rounded if math.isfinite(rounded) else 0.0)
        norm = np.linalg.norm(self.here)
        relative = self.noise / norm if norm else eps
        self.step = step or min(max(np.cbrt(4 * relative), np.cbrt(EPS)), 1e-2)

    def _noise(self, eps):
        """Return the noise of the loss; arrays that are 0 have no size to be moved by, and stay unless all are."""
        moving = [name for name in self.arrays if (self.arrays[name] != 0).any()] or list(self.arrays)
        line = self.line(moving)
        for name, direction in zip(moving, line.directions, strict=True):  # each number by a share of itself
            direction *= np.abs(move(self.arrays[name], "numpy")) / self.scales[name]
        found = noise_of(line, eps)
        least = eps / 4 * float(np.linalg.norm(self.here))
        return max(found, least) if math.isfinite(found) else 4 * least

    def line(self, names, where=None):
        """Return a line along which all entries of some arrays, or those `where` says, move by about their size."""
        directions = [
            self.scales[name]
            * self.generator.uniform(0.5, 1.5, self.arrays[name].shape)  # so that errors do not cancel each other
            * (2.0 * self.generator.integers(0, 2, self.arrays[name].shape, np.int8) - 1.0)
            for name in names
        ]
        if where is not None:
            directions = [direction * where for direction in directions]
        return Direction(self.loss, len(self.here), [self.arrays[name] for name in names], directions)

    def derivative(self, line, ours, h, tolerance):
        """Return the slope along a line as finely as it takes to judge what a gradient predicts for it.

        A step that agrees, and whose error is small, is enough: that two numbers which were found so differently agree
        is no accident. Otherwise the gradient is wrong, or there is curvature, a kink within reach, or noise, and many
        steps are tried.
        """
        for k in range(3):
            found = slope(line, self.here, h / FACTOR**k, self.noise)
            if found.error <= 1000 * tolerance and found.verdict(ours, tolerance) == "agrees":
                return found
        up = max(int(math.log(1 / self.step, FACTOR)), 0)  # no step is larger than what is moved
        return best_slope(line, self.here, h, self.noise, up, ours, tolerance)

    def measure(self, name, ours, rtol, atol=0.0, entries=None, directions=2):
        """Compare the gradient of the array `name` with differences, and return what is `Measured`.

        The tolerance is atol + rtol times the largest entry of `ours` along one entry, and rtol ‖ours‖ along a random
        direction. What is found along the directions tells also which step the entries take.
        """
        array = self.arrays[name]
        scale = self.scales[name]
        step = self.step
        wrong = False
        compared = False
        seen_along = math.inf
        for _ in range(directions if array.size > 1 else 0):
            line = self.line([name])
            predicted = line.along(ours)
            tolerance = scale * (atol + rtol * float(np.linalg.norm(ours)))
            found = self.derivative(line, predicted, self.step, tolerance)
            if found.kink or found is UNSEEN:  # a gradient at a kink is right entry by entry, if at all
                continue
            compared = True
            wrong |= found.verdict(predicted, tolerance) == "wrong"
            seen_along = min(seen_along, (tolerance + found.error) / (0.5 * scale))
            step = found.step
        tolerance = atol + rtol * float(np.abs(ours).max(initial=0.0))
        places = self.generator.permutation(array.size)[:entries]
        theirs = np.full(len(places), np.nan)
        counts = collections.Counter()
        kinked = []
        error = 0.0
        for k, place in enumerate(places):
            found, verdict = self._entry(array, scale, step, place, ours, tolerance, counts["wrong"] < REFINED)
            counts[verdict] += 1
            if found.kink and verdict != "wrong":
                kinked.append(place)
            elif found is not UNSEEN:
                theirs[k] = found.value
                error = max(error, found.error)
        compared |= counts["agrees"] + counts["wrong"] > 0
        sees = tolerance + error if len(places) == array.size else seen_along
        wrong |= counts["wrong"] > 0
        kinked = np.array(kinked, int)
        unseen = counts["unseen"]
        outside = counts["kink"] + counts["far"]
        return Measured(wrong, places, theirs, error, sees, kinked, outside, counts["far"], unseen, compared, step)

    def _entry(self, array, scale, step, place, ours, tolerance, refine):
        """Return the slope along one entry, and the verdict on the gradient there.

        The step is relative to the entry's size, or the array's if that is larger. If that does not agree, the entry's
        own size is tried as well, as the logarithm of a small one among large ones needs it.
        """
        line = Entry(self.loss, len(self.here), array, place)
        predicted = line.along(ours)
        own = abs(float(line.before))
        found = slope(line, self.here, step * max(own, scale), self.noise)
        verdict = found.verdict(predicted, tolerance)
        if verdict != "agrees" and (refine or found is UNSEEN):
            found = self.derivative(line, predicted, self.step * max(own, scale), tolerance)
            if 0 < own < 1e-3 * scale:
                finer = self.derivative(line, predicted, self.step * own, tolerance)
                found = min(found, finer, key=lambda one: one.error)
            verdict = found.verdict(predicted, tolerance)
        return found, self._at_kink(line, found, predicted) if verdict == "kink" else verdict

    def _at_kink(self, line, found, predicted):
        """Say of a gradient that is no slope between the two sides of a kink whether it is "wrong", "far" or "kink".

        Every term of the loss has slopes of its own on both sides, and what a convention chooses at a kink is of their
        size. If the gradient is further away than twice all these sizes, it is wrong. If the loss is a single number,
        the slopes of its terms may have cancelled, and it is only far.
        """
        above, up = line.at(found.step)
        below, down = line.at(-found.step)
        right = (above - self.here) / up
        left = (below - self.here) / down
        sizes = np.maximum(np.maximum(np.abs(left), np.abs(right)), np.abs(right - left))
        if not found.outside(predicted) > 2 * float(sizes.sum()):
            return "kink"
        return "wrong" if len(self.here) > 1 else "far"

    def kinks_among(self, name, ours, theirs, measured, rtol):
        """Return a mask over the entries of an array: those at a kink, where two conventions may both be right.

        Looked at are those that were moved before, and up to MOST of those in which `ours` and `theirs` differ; only
        the first 50 if none of these is at a kink.
        """
        array = self.arrays[name]
        at = np.zeros(array.size, bool)
        at[measured.kinked] = True
        tolerance = rtol * float(np.abs(ours).max(initial=0.0))
        differing = self.generator.permutation(np.flatnonzero((np.abs(ours - theirs).reshape(-1) > tolerance) & ~at))
        for k, place in enumerate(differing[:MOST]):
            if k == 50 and not at[differing].any():
                break
            found, verdict = self._entry(array, self.scales[name], self.step, place, ours, tolerance, True)
            at[place] = found.kink and verdict in ("agrees", "kink")
        return at.reshape(array.shape)

    def right(self, name, ours, measured, rtol):
        """Return the right gradient of an array as differences see it, NaN where it is not known, and its error.

        In an array of many entries wrong rows, and then wrong columns in them, are found by halving, and only what lies
        in them is looked at. What agrees along a direction is taken to be right, and what passes at a kink as well.
        """
        array = self.arrays[name]
        theirs = np.full(array.size, np.nan)
        theirs[measured.places] = measured.theirs
        theirs[measured.kinked] = ours.reshape(-1)[measured.kinked]
        missing = np.flatnonzero(np.isnan(theirs))
        if array.size > REFERENCE:
            suspects = self._suspects(name, ours, measured.step, rtol)
            theirs = np.where(np.isnan(theirs) & ~suspects, ours.reshape(-1), theirs)
            missing = self.generator.permutation(np.flatnonzero(np.isnan(theirs)))[: REFERENCE // 4]
        error = measured.error
        for place in missing:
            line = Entry(self.loss, len(self.here), array, place)
            h = measured.step * max(abs(float(line.before)), self.scales[name])
            found = slope(line, self.here, h, self.noise)
            theirs[place] = found.value if found is not UNSEEN else np.nan
            error = max(error, found.error) if found is not UNSEEN else error
        return theirs.reshape(array.shape), error

    def _suspects(self, name, ours, step, rtol):
        """Return a mask over the entries, flat: those in wrong rows, and there in wrong columns."""
        places = np.arange(ours.size).reshape((len(ours), -1) if ours.ndim > 1 else (-1, 1))
        tolerance = self.scales[name] * rtol * float(np.linalg.norm(ours))

        def is_wrong(group):
            where = np.zeros(ours.size)
            where[group.reshape(-1)] = 1.0
            for _ in range(2):  # errors may cancel along one direction
                line = self.line([name], where.reshape(ours.shape))
                if slope(line, self.here, step, self.noise).verdict(line.along(ours), tolerance) == "wrong":
                    return True
            return False

        rows = _halved(places, is_wrong)
        columns = _halved(places[rows].T, is_wrong)
        suspects = np.zeros(ours.size, bool)
        suspects[places[np.ix_(rows, columns)]] = True
        return suspects


def _halved(groups, is_wrong):
    """Return the indices of the wrong ones among groups of places, by halving those that are wrong together.

    If more groups are wrong than is worth looking into, all that may be are returned.
    """
    waiting = [np.arange(len(groups))]
    found = []
    for _ in range(HALVINGS):
        if not waiting:
            break
        some = waiting.pop(0)
        if is_wrong(groups[some]):
            half = len(some) // 2
            waiting += [some[:half], some[half:]] if half else []
            found += [] if half else [some]
    return np.sort(np.concatenate([*found, *waiting])) if found or waiting else np.arange(len(groups))


def sizes_of(arrays, gradients):
    """Return the size of the entries of each array, by its name: what a small step is small against.

    It is the root of the mean square of those that are not 0. An array that is 0 as a whole has the size that makes
    its effect on the loss, size times ‖gradient‖, as large as the largest of the others; if there is none, it is 1.
    """
    sizes = {}
    for name, array in arrays.items():
        values = np.abs(move(array, "numpy").astype(np.float64))
        largest = values.max()
        if largest:
            sizes[name] = float(largest * np.sqrt(np.mean((values[values > 0] / largest) ** 2)))
    unknown = arrays.keys() - sizes.keys()
    largest = max(effects_of(arrays, gradients).values()) if unknown else 0.0
    for name in unknown:
        norm = float(np.linalg.norm(gradients[name]))
        size = largest / norm if norm else 1.0
        most = 1e3 * max([1.0, *sizes.values()])  # a gradient of nothing but rounding says nothing of the size
        sizes[name] = min(size, most) if 0 < size < math.inf else 1.0
    return sizes


def effects_of(arrays, gradients):
    """Return ‖a ⊙ gradient‖ for each array a, by its name: how much the loss changes with a share of its numbers."""
    return {
        name: float(np.linalg.norm(move(array, "numpy").astype(np.float64) * gradients[name]))
        for name, array in arrays.items()
    }
