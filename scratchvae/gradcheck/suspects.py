"""The usual suspects: faults that hand-derived gradients have, each as what it makes of the right gradient.

Every suspect predicts the wrong gradient from the right one, with at most a few numbers that are fitted. What it leaves
unexplained is ‖ours - predicted‖ as a share of ‖ours - theirs‖.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from scratchvae.gradcheck.factors import factor_words, number_words

CLEAR = 1e-3  # the unexplained share up to which a suspect is named
KNOWN = 10  # of so many known arrays factors and terms are tried
SHOWN = 4  # how many entries, rows or columns are listed


@dataclass(frozen=True)
class Evidence:
    """What is known of a gradient that is wrong.

    name     is the name of the array.
    ours     is the gradient to be judged, in float64.
    theirs   is the right one, of the same shape. It is NaN where it is not known.
    error    is how far an entry of theirs may be off.
    sizes    is a dict of numbers with a meaning, such as {"M": 7, "N": 100}.
    others   is a dict of the right gradients of the other arrays, by name.
    known    is a dict of arrays with a meaning, by name: those that are checked, this one included, and others that
             the caller has named, such as the inputs and outputs of a layer.
    """

    name: str
    ours: np.ndarray
    theirs: np.ndarray
    error: float
    sizes: dict
    others: dict
    known: dict


@dataclass(frozen=True)
class Suspect:
    """A fault that explains a gradient, in words, with the share of the error that it leaves unexplained."""

    words: str
    left: float


def suspects(evidence):
    """Yield the suspects, the simplest first, with what they leave unexplained.

    Of a gradient whose right value is not known well enough only the entries that are clearly wrong are told. A suspect
    with fitted numbers needs more entries that tell something than numbers: zeros in both gradients, and pairs that
    occur again, tell nothing.
    """
    seen = np.isfinite(evidence.theirs)
    g = evidence.ours[seen]
    r = evidence.theirs[seen]
    wrong = np.linalg.norm(g - r)
    spread = evidence.error * math.sqrt(r.size)
    if spread >= 0.01 * wrong:
        yield from _local(evidence, seen)
        return
    telling = _telling(g, r, evidence.error)

    def left(predicted):
        if predicted.shape == seen.shape:
            predicted = predicted[seen]
        return max(float(np.linalg.norm(g - predicted)) - 3 * spread, 0.0) / wrong

    yield from _factors(evidence, g, r, left)
    yield from _same_numbers(evidence, seen, left)
    yield from _local(evidence, seen)
    if seen.all():
        yield from _moved(evidence.theirs, evidence.ours, left)
    yield from _entry_by_entry(evidence, seen, telling, left)
    if seen.all():
        yield from _sums(evidence, left)
    yield from _added(evidence, seen, g, r, telling, left)
    if seen.all() and evidence.theirs.ndim > 1:
        yield from _slice_by_slice(evidence, telling, left)
        yield from _along_axes(evidence, telling, left)
        yield from _products(evidence, telling, left)


def _telling(g, r, error):
    """Return how many different pairs of ours and theirs there are that are not both 0."""
    pairs = np.stack([g, r], axis=-1)[(np.abs(g) > 10 * error) | (np.abs(r) > 10 * error)]
    return len(np.unique(np.round(pairs / np.abs(pairs).max(initial=1e-300), 9), axis=0))


def _factors(evidence, g, r, left):
    """A factor k: ours = k theirs."""
    k = float(g @ r / (r @ r))
    if (unexplained := left(k * r)) > CLEAR:
        return
    tolerance = min(1e-5 + 10 * evidence.error / np.abs(r).max(), 1e-3)
    words = factor_words(k, evidence.sizes, tolerance)
    if words or np.count_nonzero(np.abs(r) > 100 * evidence.error) > 1:
        number = f"a factor: it is {k:.6g} times the right one"
        yield Suspect(words or number + _as_a_length(k, evidence, tolerance), unexplained)


def _as_a_length(k, evidence, tolerance):
    """Return words for a factor that is the length of an array or one over it, ", as much as 1/len(x)", or ""."""
    for name, array in evidence.known.items():
        for axis, length in enumerate(np.shape(array)):
            for reading, size in (("{}", length), ("1/{}", 1 / length)):
                if length > 4 and abs(abs(k) / size - 1) <= tolerance:
                    of = f"len({_plain(name)})" if axis == 0 else f"{_plain(name)}.shape[{axis}]"
                    return f", as much as {reading.format(of)}"
    return ""


def _plain(name):
    """Return the name of an array: a partial is called ∂mu, and its array mu."""
    return name.removeprefix("∂")


def _same_numbers(evidence, seen, left):
    """The right numbers, or those of another array, at other places."""
    theirs = evidence.theirs
    shape = theirs.shape
    for name, other in evidence.others.items():
        if other.shape == shape and np.isfinite(other).all() and other.any():
            yield Suspect(f"exchanged: it is the gradient of {name}", left(other))
    if not seen.all() or theirs.size < 2:
        return
    for axes in itertools.permutations(range(theirs.ndim)) if theirs.ndim <= 4 else ():
        moved = theirs.transpose(axes)
        if axes == tuple(range(theirs.ndim)):
            continue
        words = "transposed" if theirs.ndim == 2 else f"transposed: its axes are in the order {axes}"
        if moved.shape == shape:
            yield Suspect(words, left(moved))
            yield Suspect(f"{words}, and the sign is wrong", left(-moved))
        elif theirs.ndim == 2:
            words = "transposed, and reshaped: the right numbers are in the order of the columns"
            yield Suspect(words, left(moved.reshape(shape)))
    yield Suspect("its sign is lost: it is the absolute value of the right one", left(np.abs(theirs)))


def _moved(theirs, ours, left):
    """The right numbers in reversed order, shifted by one, where what is shifted in may be anything, or anyhow."""
    axes_of = [k for k in range(theirs.ndim) if theirs.shape[k] > 1][:4]
    for count in range(1, len(axes_of) + 1):
        for axes in itertools.combinations(axes_of, count):
            yield Suspect(f"in reversed order along {_axes(axes)}", left(np.flip(theirs, axes)))
    for axis, step in itertools.product(axes_of, (1, -1)):
        shifted = np.roll(theirs, step, axis)
        edge = np.zeros(theirs.shape, bool)
        np.moveaxis(edge, axis, 0)[0 if step == 1 else -1] = True
        if theirs.shape[axis] > 2 and not np.allclose(shifted[~edge], theirs[~edge]):
            yield Suspect(f"shifted by one along axis {axis}", left(np.where(edge, ours, shifted)))
    order = np.argsort(theirs, axis=None)
    sorted_back = np.empty(theirs.size)
    sorted_back[np.argsort(ours, axis=None)] = theirs.reshape(-1)[order]
    if theirs.size > 2:
        yield Suspect("the right numbers in another order", left(sorted_back.reshape(theirs.shape)))


def _local(evidence, seen):
    """A fault in some entries only, the others being right; those that are 0 in both are no evidence."""
    theirs = evidence.theirs
    least = 10 * evidence.error
    seen = seen & ((np.abs(evidence.ours) > least) | (np.abs(theirs) > least))
    difference = np.where(seen, evidence.ours - theirs, 0.0)
    wrong = np.abs(difference) > np.maximum(least, 1e-6 * np.abs(difference).max())
    count = int(wrong.sum())
    if not 0 < count < seen.sum() or not np.abs(difference[wrong]).min() > 10 * least:
        return
    g = evidence.ours[wrong]
    r = theirs[wrong]
    masked = not (np.abs(r) > least).any()
    if count > 0.75 * seen.sum() and not masked and g.any():
        return
    words = f"wrong only in {places(wrong, seen)}"
    if not g.any():
        words += ", where it is 0: never written, or a term is missing there"
    elif masked:
        words += ", where the right one is 0: is a mask missing, as of a relu or of dropout?"
    else:
        k = float(g @ r / (r @ r))
        if np.linalg.norm(g - k * r) <= CLEAR * np.linalg.norm(g - r) + least * math.sqrt(count):
            about = factor_words(k, evidence.sizes)
            words += f"; there {about}" if about else f"; there it is {k:.4g} times the right one" if count > 1 else ""
    yield Suspect(words, 0.0)


def places(wrong, seen):
    """Return words for the entries that are True: rows, columns or slices where these are wrong as a whole."""
    for axis in range(wrong.ndim if wrong.ndim > 1 else 0):
        others = tuple(k for k in range(wrong.ndim) if k != axis)
        whole = wrong.any(axis=others) & (wrong | ~seen).all(axis=others)
        if whole.any() and not np.compress(~whole, wrong, axis).any():
            found = [int(k) for k in np.flatnonzero(whole)]
            if wrong.ndim == 2:
                return _listed(("row", "column")[axis], found)
            return f"{_listed('slice', found)} along axis {axis}"
    if wrong.ndim == 2:
        above = np.triu(np.ones(wrong.shape, bool), 1)
        for where, mask in (("the diagonal", np.eye(*wrong.shape)), ("above", above), ("below", above.T)):
            if wrong.shape[0] == wrong.shape[1] > 2 and np.array_equal(wrong | ~seen, (mask > 0) | ~seen):
                return where if where == "the diagonal" else f"entries {where} the diagonal"
        count = int(wrong[0].sum())
        if wrong.sum() > SHOWN and (wrong.sum(axis=1) == count).all():
            return "one entry of each row" if count == 1 else f"{count} entries of each row"
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


FORMS = {  # what stands in the chain rule of the usual functions, as a function of an array
    "{}": lambda a: a,
    "{}²": lambda a: a * a,
    "exp({})": np.exp,
    "exp(2 {})": lambda a: np.exp(2 * a),
    "exp({}/2)": lambda a: np.exp(a / 2),
    "(1 - {}²)": lambda a: 1 - a * a,  # of tanh
    "{} (1 - {})": lambda a: a * (1 - a),  # of the logistic function
    "(1 - {})": lambda a: 1 - a,
    "1/(1 + exp(-{}))": lambda a: 1 / (1 + np.exp(-a)),  # of softplus
}


def _terms(evidence, forms=FORMS):
    """Yield (form, name, values) for each form of each known array that has, or can be broadcast to, the right shape.

    An array with one number for each row of the gradient is read so too.
    """
    shape = evidence.theirs.shape
    own = {_plain(evidence.name): evidence.known[evidence.name]}
    arrays = {**own, **{_plain(name): array for name, array in evidence.known.items()}}
    found = 0
    for name, array in arrays.items():
        array = np.asarray(array, np.float64)
        for a in (array, array.reshape(array.shape + (1,) * (len(shape) - array.ndim))):
            try:
                if a.size < 2 or np.broadcast_shapes(a.shape, shape) != shape:
                    continue
            except ValueError:
                continue
            with np.errstate(all="ignore"):
                for form in forms:
                    yield form, name, np.broadcast_to(FORMS[form](a), shape)
            found += 1
            break
        if found == KNOWN:
            return


def _entry_by_entry(evidence, seen, telling, left):
    """A factor of the chain rule: ours = k t ⊙ theirs, or theirs = k t ⊙ ours, where t is a form of a known array."""
    if telling < 2:
        return
    g = evidence.ours[seen]
    r = evidence.theirs[seen]
    some = np.flatnonzero(np.abs(r) + np.abs(g) > 10 * evidence.error)[:20]  # a look at these rules most suspects out

    def fit(predicted, g):
        return float(g @ predicted / (predicted @ predicted)) if predicted.any() else 0.0

    def suspect(words, t):
        t = t[seen]
        few = t[some] * r[some]
        if not np.isfinite(few).all():
            return Suspect(words, math.inf)
        rest = g[some] - fit(few, g[some]) * few
        if np.linalg.norm(rest) > 0.1 * np.linalg.norm(g[some] - r[some]) + 10 * evidence.error * math.sqrt(len(some)):
            return Suspect(words, math.inf)
        predicted = t * r
        k = fit(predicted, g) if np.isfinite(predicted).all() else 0.0
        if not k or (telling < 4 and abs(k - 1) > 1e-4):  # so few numbers would be fitted by chance
            return Suspect(words, math.inf)
        unexplained = left(k * predicted)
        return Suspect(words + number_words(k, evidence.sizes) if unexplained <= CLEAR else words, unexplained)

    with np.errstate(all="ignore"):
        for form in FORMS:
            terms = [(name, t) for _, name, t in _terms(evidence, (form,)) if np.isfinite(t).all() and np.ptp(t) > 0]
            for name, t in terms:
                what = form.replace("{}", name)
                what = what.strip("()") if form.startswith("(") else what
                yield suspect(f"the factor {what} is missing, entry by entry", 1 / t)
                yield suspect(f"the factor {what} is there once too often, entry by entry", t)
            for (name, t), (other, u) in itertools.permutations(terms, 2):
                if 0 not in t.strides + u.strides:  # both are as large as the gradient
                    words = f"the factor {form.replace('{}', name)} stands where {form.replace('{}', other)} should"
                    yield suspect(words, t / u)
        for _, name, t in _terms(evidence, ("{}",)):
            k = fit(t[seen], g)
            if telling > 3 and k and (unexplained := left(k * t)) <= CLEAR:
                words = f"it is {name} itself{number_words(k, evidence.sizes)}: a derivative is missing"
                yield Suspect(words, unexplained)


def _sums(evidence, left):
    """A sum or an average over an axis too many, written to every entry of it."""
    theirs = evidence.theirs
    axes = [(None, "all entries")] if theirs.size > 1 else []
    axes += [(k, f"axis {k}") for k in range(theirs.ndim) if theirs.ndim > 1 and theirs.shape[k] > 1]
    for axis, over in axes:
        for name, function in (("summed", np.sum), ("averaged", np.mean)):
            predicted = np.broadcast_to(function(theirs, axis=axis, keepdims=True), theirs.shape)
            yield Suspect(f"{name} over {over}, of which each has a gradient of its own", left(predicted))


def _added(evidence, seen, g, r, telling, left):
    """A term too many or too few: a number, a multiple of a known array, or of another gradient."""
    if telling < 3:
        return
    difference = g - r
    yield Suspect(f"it is off by {difference.mean():.6g} in every entry", left(r + difference.mean()))
    own = _plain(evidence.name)
    for _, name, t in _terms(evidence, ("{}",)):
        t = t[seen]
        if t.any() and np.ptp(t) > 0:
            c = float(difference @ t / (t @ t))
            what = "the array itself, as of a prior or of weight decay," if name == own else name
            how = f"a multiple of {what} is missing, or has another factor"
            yield Suspect(f"it is off by {c:.6g} times {name}: {how}", left(r + c * t))
            if telling > 5:
                (k, c), *_ = np.linalg.lstsq(np.stack([r, t], axis=1), g)
                large = abs(c) * np.linalg.norm(t) > 1e-6 * np.linalg.norm(g)
                if large and abs(k) < 1e-9:  # ours = c t
                    words = f"it is {c:.6g} times {name}, a term of it that may be right: all else is missing"
                    yield Suspect(words, left(c * t))
                elif large and abs(k - 1) > 1e-3:  # ours = k (theirs - s t) + s t
                    about = factor_words(k, evidence.sizes, 1e-4).partition(" (")[0]
                    about = about or f"a factor: it is {k:.6g} times the right one"
                    words = f"{about}, except for a term {c / (1 - k):.6g} {name}, which is right"
                    yield Suspect(words, left(k * r + c * t))
    for name, other in evidence.others.items():
        if other.shape == seen.shape and np.isfinite(other).all() and other.any():
            c = float(difference @ other[seen] / (other[seen] @ other[seen]))
            yield Suspect(f"it is off by {c:.6g} times the gradient of {name}", left(r + c * other[seen]))


def _slice_by_slice(evidence, telling, left):
    """A number of its own for each row or each column: ours[i] = k[i] theirs[i], or theirs[i] + k[i] array[i]."""
    g = evidence.ours
    r = evidence.theirs
    for axis in range(r.ndim):
        others = tuple(k for k in range(r.ndim) if k != axis)
        slices = int((r != 0).any(axis=others).sum())
        if r.shape[axis] < 2 or telling < 2 * slices + 2:
            continue
        what = ("row", "column")[axis] if r.ndim == 2 else f"slice along axis {axis}"

        def fit(of, to, others=others):
            squares = (to * to).sum(axis=others, keepdims=True)
            return (of * to).sum(axis=others, keepdims=True) / np.where(squares == 0, 1.0, squares)

        k = fit(g, r)
        found = k[(r != 0).any(axis=others, keepdims=True)]
        yield Suspect(
            f"each {what} is the right one times a number of its own, from {found.min():.4g} to {found.max():.4g}: "
            f"what belongs to the {what}, as a weight, a norm or a standard deviation, is missing or wrong",
            left(k * r) if len(found) > 1 else math.inf,
        )
        value = np.asarray(evidence.known[evidence.name], np.float64)
        yield Suspect(
            f"each {what} is off by a multiple of its own of {_plain(evidence.name)}: a term such as a penalty has "
            f"another factor in each {what}",
            left(r + fit(g - r, value) * value),
        )


def _along_axes(evidence, telling, left):
    """A term that is the same for all entries along some axes, or linear in the array along them."""
    difference = evidence.ours - evidence.theirs
    x = np.asarray(evidence.known[evidence.name], np.float64)
    found = []
    for count in range(1, x.ndim):
        for axes in itertools.combinations(range(x.ndim), count):
            slices = x.size // math.prod(x.shape[k] for k in axes)
            if telling >= 2 * slices + 2:
                what = f"slice along {_axes(axes)}" if x.ndim > 2 else ("column", "row")[axes[0]]
                found.append((axes, what, difference.mean(axis=axes, keepdims=True)))
    found.sort(key=lambda one: -one[0][-1])  # what belongs to a row of the data comes first
    for _, what, mean in found:
        yield Suspect(
            f"a term is missing or wrong that is the same for all entries of a {what}, as one through a sum or an "
            f"average over the {what} is",
            left(evidence.theirs + mean),
        )
    for axes, what, mean in found:
        centred = x - x.mean(axis=axes, keepdims=True)
        squares = (centred * centred).sum(axis=axes, keepdims=True)
        if telling >= 3 * squares.size + 2 and squares.all():
            c = (difference * centred).sum(axis=axes, keepdims=True) / squares
            yield Suspect(
                f"a term is missing or wrong that is linear in each {what} of {_plain(evidence.name)}, as one through "
                f"the variance of the {what} is",
                left(evidence.theirs + mean + c * centred),
            )


def _axes(axes):
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def _products(evidence, telling, left):
    """A factor W or Wᵀ of a square W; an error that is a product with Wᵀ, W having fewer columns; an outer product."""
    r = evidence.theirs
    if r.ndim != 2 or min(r.shape) < 3:
        return
    error = evidence.ours - r
    for name, W in evidence.known.items():
        if np.ndim(W) == 2 and len(W) == r.shape[1] > np.shape(W)[1] and name != evidence.name:
            q = np.linalg.qr(np.asarray(W, np.float64))[0]
            yield Suspect(
                f"the error is a product with {_plain(name)}ᵀ: what flows back through {_plain(name)} is missing, "
                "wrong, or there twice",
                left(r + error @ q @ q.T) if np.linalg.norm(r @ q @ q.T - r) > CLEAR * np.linalg.norm(r) else math.inf,
            )
        if np.shape(W) != (r.shape[1],) * 2 or np.linalg.cond(W) > 1e6:
            continue
        name = _plain(name)
        before = np.linalg.solve(W, r.T).T  # r = before Wᵀ
        yield Suspect(f"the product with {name}ᵀ is missing", left(before))
        yield Suspect(f"the product is with {name}, and should be with its transpose", left(before @ W))
        before = np.linalg.solve(W.T, r.T).T  # r = before W
        yield Suspect(f"the product with {name} is missing", left(before))
        yield Suspect(f"the product is with {name}ᵀ, and should be with {name} itself", left(before @ W.T))
    u, s, vh = np.linalg.svd(error, full_matrices=False)
    if telling >= sum(r.shape) + 2 and np.linalg.matrix_rank(r, 1e-6 * np.linalg.norm(r)) > 1:
        yield Suspect(
            "the error is an outer product: of a sum of such, as over the rows of the data or over time, one is "
            "missing, wrong, or there twice",
            left(r + s[0] * np.outer(u[:, 0], vh[0])),
        )
