"""Says in words what is wrong with a gradient, from the right one: the usual suspects, each tried by itself.

Every suspect predicts the wrong gradient from the right one. What it leaves unexplained is ‖ours - predicted‖ as a
share of ‖ours - theirs‖. A suspect is named only if it leaves next to nothing. If several do, the simplest is named
first, and the next one with it; if none does, the ratio, the cosine and the worst entries are told, and no name.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

CLEAR = 1e-3  # the unexplained share up to which a suspect is named
SHOWN = 4  # how many entries, rows or columns are listed


@dataclass(frozen=True)
class Evidence:
    """What is known of a gradient that is wrong.

    name     is the name of the array.
    ours     is the gradient to be judged, in float64.
    theirs   is the right one, of the same shape. It is NaN where it is not known.
    value    is the array itself.
    error    is how far an entry of theirs may be off.
    sizes    is a dict of numbers with a meaning, such as {"M": 7, "N": 100}.
    others   is a dict of the right gradients of the other arrays, by name.
    """

    name: str
    ours: np.ndarray
    theirs: np.ndarray
    value: np.ndarray
    error: float
    sizes: dict
    others: dict


@dataclass(frozen=True)
class Suspect:
    """A fault that explains a gradient, in words, with the share of the error that it leaves unexplained."""

    words: str
    left: float


def diagnosis(evidence):
    """Return sentences that say what is wrong with a gradient."""
    ours = evidence.ours
    theirs = evidence.theirs
    bad = ~np.isfinite(ours)
    if bad.any():
        return [f"not a number: {bad.sum():,} of {ours.size:,} entries are NaN or infinite, the first at {_first(bad)}"]
    known = np.isfinite(theirs)
    g = ours[known]
    r = theirs[known]
    if not r.size:
        return ["the loss gives no number beside this point: nothing could be compared"]
    unread = not np.abs(r).max() > evidence.error
    if unread and not r.any():
        return [f"the loss does not read {evidence.name}: all its differences are 0"]
    if not ours.any():
        return ["not written: the gradient is 0 everywhere. Was it assigned, as dW = …, in place of dW[...] = …?"]
    suspects = [] if unread else [s for s in _suspects(evidence, known, g, r) if s.left <= CLEAR]
    if suspects:
        named = [suspects[0].words]
        others = [s.words for s in suspects[1:] if not s.words.startswith(("a term", "it is off"))]  # these fit anyway
        named += [f"or: {words}" for words in others[:1]]
        return named
    return [_where(evidence, known), _numbers(g, r)]


def _suspects(evidence, known, g, r):
    """Yield the suspects, the simplest first, with what they leave unexplained."""
    wrong = np.linalg.norm(g - r)
    spread = evidence.error * math.sqrt(r.size)

    def left(predicted):
        return (
            max(float(np.linalg.norm(g - predicted)) - 3 * spread, 0.0) / wrong if spread < 0.03 * wrong else math.inf
        )

    yield from _factors(evidence, g, r, left)
    yield from _same_numbers(evidence, known, left)
    yield from _local(evidence, known)
    yield from _sums(evidence, known, left)
    yield from _added(evidence, known, g, r, left)


def _factors(evidence, g, r, left):
    """A factor k: ours = k theirs."""
    k = float(g @ r / (r @ r))
    words = factor_words(k, evidence.sizes, tolerance=min(1e-5 + 10 * evidence.error / np.abs(r).max(), 1e-3))
    if words or np.count_nonzero(np.abs(r) > 100 * evidence.error) > 1:
        yield Suspect(words or f"a factor: it is {k:.6g} times the right one", left(k * r))


def factor_words(k, sizes, tolerance=1e-5):
    """Return words for a factor, or "" if it is no number that has a name.

    Where several readings are equally simple, all are told.
    """
    if abs(k + 1) <= tolerance:
        return "the sign is wrong: it is -1 times the right one"
    named = []
    for plain, text in [(1.0, ""), (2.0, "2"), (0.5, "½")]:
        for powers in itertools.product((0, 1, -1, 0.5, -0.5), repeat=len(sizes)):
            size = math.prod(float(n) ** p for n, p in zip(sizes.values(), powers, strict=True))
            if abs(abs(k) / (plain * size) - 1) > tolerance or plain * size == 1:
                continue
            above = [text] if text == "2" else []
            below = ["2"] if text == "½" else []
            above += [_power(name, p) for name, p in zip(sizes, powers, strict=True) if p > 0]
            below += [_power(name, -p) for name, p in zip(sizes, powers, strict=True) if p < 0]
            reading = " ".join(above) or "1"
            reading += f"/{' '.join(below)}" if len(below) == 1 else f"/({' '.join(below)})" if below else ""
            named.append((len(above) + len(below), reading.replace("1/2", "½")))
    if not named:
        return ""
    simplest = min(count for count, _ in named)
    readings = [reading for count, reading in named if count == simplest]
    sign = "-" if k < 0 else ""
    words = f"a factor: it is {sign}{f', or {sign}'.join(readings)} times the right one"
    if readings == ["2"]:
        words += " (a ½ is missing, or a term is counted twice)"
    elif len(simple := readings[0].split("/")) == 2 and simple[0] == "1" and simple[1] in sizes:
        words += f" (averaged over {simple[1]} where the loss is a sum)"
    elif readings[0] in sizes:
        words += f" (summed over {readings[0]} where the loss is an average)"
    return words


def _power(name, p):
    return f"√{name}" if p == 0.5 else name


def _same_numbers(evidence, known, left):
    """The right numbers, or those of another array, at other places."""
    theirs = evidence.theirs
    shape = theirs.shape
    for name, other in evidence.others.items():
        if other.shape == shape and np.isfinite(other).all() and other.any():
            yield Suspect(f"exchanged: it is the gradient of {name}", left(other[known]))
    if not known.all() or theirs.size < 2:
        return
    if theirs.ndim == 2 and min(shape) > 1:
        if shape[0] == shape[1]:
            yield Suspect("transposed", left(theirs.T[known]))
            yield Suspect("transposed, and the sign is wrong", left(-theirs.T[known]))
        else:
            yield Suspect(
                "transposed, and reshaped: the right numbers are in the order of the columns",
                left(theirs.T.reshape(shape)[known]),
            )
    yield Suspect("its sign is lost: it is the absolute value of the right one", left(np.abs(theirs[known])))
    order = np.argsort(theirs, axis=None)
    sorted_back = np.empty(theirs.size)
    sorted_back[np.argsort(evidence.ours, axis=None)] = theirs.reshape(-1)[order]
    if theirs.size > 2:
        yield Suspect("the right numbers in another order", left(sorted_back.reshape(shape)[known]))


def _local(evidence, known):
    """A fault in some entries only, the others being right."""
    theirs = evidence.theirs
    difference = np.where(known, evidence.ours - theirs, 0.0)
    wrong = np.abs(difference) > np.maximum(10 * evidence.error, 1e-6 * np.abs(difference).max())
    count = int(wrong.sum())
    if not 0 < count < known.sum() or count > 0.75 * known.sum():
        return
    words = f"wrong only in {places(wrong, known)}"
    g = evidence.ours[wrong]
    r = theirs[wrong]
    if not g.any():
        words += ", where it is 0: never written, or a term is missing there"
    elif r.any():
        k = float(g @ r / (r @ r))
        if np.linalg.norm(g - k * r) <= CLEAR * np.linalg.norm(g - r) + 10 * evidence.error * math.sqrt(count):
            about = factor_words(k, evidence.sizes)
            words += f"; there {about}" if about else f"; there it is {k:.4g} times the right one" if count > 1 else ""
    yield Suspect(words, 0.0)


def places(wrong, known):
    """Return words for the entries that are True: rows and columns where these are wrong as a whole."""
    if wrong.ndim == 2:
        rows = [k for k in range(wrong.shape[0]) if (wrong[k] | ~known[k]).all() and wrong[k].any()]
        columns = [k for k in range(wrong.shape[1]) if (wrong[:, k] | ~known[:, k]).all() and wrong[:, k].any()]
        if rows and not np.delete(wrong, rows, axis=0).any():
            return _listed("row", rows)
        if columns and not np.delete(wrong, columns, axis=1).any():
            return _listed("column", columns)
        above = np.triu(np.ones(wrong.shape, bool), 1)
        for where, mask in (("the diagonal", np.eye(*wrong.shape)), ("above", above), ("below", above.T)):
            if wrong.shape[0] == wrong.shape[1] > 2 and np.array_equal(wrong | ~known, (mask > 0) | ~known):
                return where if where == "the diagonal" else f"entries {where} the diagonal"
        if wrong.sum() > SHOWN and (wrong.sum(axis=1) == 1).all():
            return "one entry of each row"
    where = [tuple(int(k) for k in place) for place in np.argwhere(wrong)]
    return _listed("entry", [list(place) if len(place) != 1 else f"[{place[0]}]" for place in where], "entries")


def _listed(what, found, plural=None):
    if len(found) == 1:
        return f"{what} {found[0]}"
    if isinstance(found[0], int):
        found = _ranges(found)
    shown = ", ".join(map(str, found[:SHOWN]))
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return f"{plural or what + 's'} {shown}{more}"


def _ranges(numbers):
    """Return ascending whole numbers as texts, those that follow each other as one: 1, 2, 3, 7 as "1-3" and "7"."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


def _sums(evidence, known, left):
    """A sum or an average over an axis too many, written to every entry of it."""
    theirs = evidence.theirs
    if not known.all():
        return
    axes = [(None, "all entries")] if theirs.size > 1 else []
    axes += [(k, f"axis {k}") for k in range(theirs.ndim) if theirs.ndim > 1 and theirs.shape[k] > 1]
    for axis, over in axes:
        for name, function in (("summed", np.sum), ("averaged", np.mean)):
            predicted = np.broadcast_to(function(theirs, axis=axis, keepdims=True), theirs.shape)
            yield Suspect(f"{name} over {over}, of which each has a gradient of its own", left(predicted[known]))


def _added(evidence, known, g, r, left):
    """A term too many or too few: a multiple of the array, of another gradient, or of a sum over an axis."""
    value = evidence.value[known].astype(np.float64)
    difference = g - r
    constant = np.full_like(r, difference.mean())
    if r.size > 2:
        yield Suspect(f"it is off by {difference.mean():.6g} in every entry", left(r + constant))
        if value.any() and np.ptp(value) > 0:
            c = float(difference @ value / (value @ value))
            how = "a multiple of the array itself, as of a prior or of weight decay, is missing, or has another factor"
            yield Suspect(f"it is off by {c:.6g} times {evidence.name}: {how}", left(r + c * value))
        for name, other in evidence.others.items():
            if other.shape == known.shape and np.isfinite(other).all() and other.any():
                c = float(difference @ other[known] / (other[known] @ other[known]))
                yield Suspect(f"it is off by {c:.6g} times the gradient of {name}", left(r + c * other[known]))
    if not known.all() or evidence.theirs.ndim != 2 or min(known.shape) < 3:
        return
    full = evidence.ours - evidence.theirs
    for axis, what in ((1, "row"), (0, "column")):
        mean = np.broadcast_to(full.mean(axis=axis, keepdims=True), full.shape)
        yield Suspect(
            f"a term is missing or wrong that is the same for all entries of a {what}, as one through a sum or an "
            f"average over the {what} is",
            left((evidence.theirs + mean)[known]),
        )
    for axis, what in ((1, "row"), (0, "column")):
        if full.shape[axis] < 5:
            continue
        x = evidence.value.astype(np.float64)
        x = x - x.mean(axis=axis, keepdims=True)
        mean = full.mean(axis=axis, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            c = (full * x).sum(axis=axis, keepdims=True) / (x * x).sum(axis=axis, keepdims=True)
        if np.isfinite(c).all():
            yield Suspect(
                f"a term is missing or wrong that is linear in each {what} of {evidence.name}, as one through the "
                f"variance of the {what} is",
                left((evidence.theirs + mean + c * x)[known]),
            )


def _where(evidence, known):
    difference = np.where(known, evidence.ours - evidence.theirs, 0.0)
    worst = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    place = f"[{', '.join(map(str, worst))}]" if worst else ""
    ours = f"{evidence.ours[worst]:.6g}"
    return (
        f"worst at {evidence.name}{place}: ours {ours}, right {evidence.theirs[worst]:.6g}; no usual fault explains it"
    )


def _numbers(g, r):
    lengths = np.linalg.norm(g), np.linalg.norm(r)
    cosine = float(g @ r) / (lengths[0] * lengths[1]) if all(lengths) else math.nan
    return (
        f"cosine {cosine:.6f}, ratio of the norms {lengths[0] / lengths[1]:.6g}" if lengths[1] else f"cosine {cosine}"
    )


def _first(mask):
    return [int(k) for k in np.argwhere(mask)[0]]
