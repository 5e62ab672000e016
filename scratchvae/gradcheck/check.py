"""check_gradients: the one front door for the gradients of any loss that is a function of NumPy arrays.

    report = check_gradients(lambda: loss(W, b, x), {"W": W, "b": b}, {"W": dW, "b": db})
    print(report)

A gradient passes if no derivative of the loss along any line that is tried differs from what the gradient predicts by
more than the tolerance and the error of the difference together. The lines are single entries, and random directions
that move all entries of an array at once, so that one wrong row among thousands shows.
"""

import functools
import inspect
import itertools
import numbers
import warnings
from dataclasses import dataclass

import numpy as np

from scratchvae.arguments import positive, whole
from scratchvae.backend import BACKENDS, kind, move
from scratchvae.gradcheck.arrays import named, rebuilt, without_prefix
from scratchvae.gradcheck.differences import EPS, SAFETY, Loss
from scratchvae.gradcheck.factors import factor_words
from scratchvae.gradcheck.faults import UNKNOWN, diagnosis
from scratchvae.gradcheck.point import Point
from scratchvae.gradcheck.report import Report, Row
from scratchvae.gradcheck.suspects import Evidence
from scratchvae.gradcheck.witnesses import testify

ALL = 2000  # if all arrays together hold no more entries, each is moved by itself
SOME = 20  # otherwise so many of each array are
RTOL = {"float64": 1e-6, "float32": 1e-3}  # of the largest entry of a gradient, against differences
TO_THE_STEP = (
    "to find the step that is wrong, add an array of zeros to what stands between two steps, h = f(x) + e, and check e "
    "too: its gradient is that of h"
)
RTOL_ORACLE = {"float64": 1e-10, "float32": 1e-4}  # of the norm of a gradient, against an oracle


def check_gradients(
    loss,
    params,
    grads,
    *,
    oracle=None,
    sizes=None,
    known=None,
    rtol=None,
    atol=0.0,
    step=None,
    entries=None,
    points=3,
    seed=0,
):
    """Check hand-derived gradients of a loss, and return a `Report` that says which are wrong, and how.

    loss      is a function that returns the loss: a number, or an array of terms whose sum is meant, which is compared
              more finely. It takes no argument and reads the arrays of `params`, or it takes `params` as its argument;
              then it is tried with complex numbers too, which give a derivative without an error by curvature.
    params    is an array, or a dict, list or tuple of arrays, nested as you like. They hold float64 or float32. Each is
              moved a little and put back as it was.
    grads     is a container like `params` with the gradients ∂loss/∂array. If it is a function, with `params` as its
              argument or with none, it is called for them, and the check is made at other points as well.
    oracle    is the same loss once more, as a function of a container like `params`: in autograd.numpy, JAX or torch,
              whose gradients are then compared, or in NumPy, whose value is compared. None unless given.
    sizes     is a dict of numbers with a meaning, such as {"M": 7, "N": 100}, so that a wrong factor gets its name.
    known     is a dict of arrays with a meaning, such as {"h": h, "y": y}, so that a factor or a term that is missing
              gets its name if it is made of one of them. Those of `params` need not be named, and those that hold
              anything but finite real numbers are left out.
    rtol      is the relative error that passes against differences, as a share of the largest entry of the array's
              gradient. Unless given it is 1e-6, or 1e-3 if an array holds float32.
    atol      is an absolute error that passes as well, 0 unless given.
    step      is the first step of the differences, relative to the size of an array's entries. Unless given it follows
              from the noise of the loss.
    entries   is how many entries of each array are moved one by one. Unless given these are all if all arrays together
              hold no more than 2,000, and 20 of each array otherwise.
    points    is at how many points the check is made if `grads` is a function; 3 unless given. At all but the first one
              the arrays are moved by a tenth of their size, and a random direction and one entry of each are tried.
    seed      is that of the entries, the directions and the points; 0 unless given.

    A loss that is random, or that changes its arrays, is a row of the report that fails. Arrays that cannot be checked,
    and gradients that do not fit them, raise a ValueError.
    """
    _are_numbers(rtol, atol, step, entries, points, seed)
    _are_named(sizes, known)
    arrays = named("params", params)
    check_arrays(arrays)
    tree = rebuilt(params, iter(arrays.values()))
    function, takes_params = called_with(tree, "loss", loss)
    if not takes_params:
        _is_seen(params)

    if oracle is not None:
        called_with(tree, "oracle", oracle)  # which says what to do where it takes other arguments
    moved = arrays  # what the differences move

    def gradients():
        for name, array in arrays.items():
            array[...] = moved[name]
            moved[name][...] = array  # as it is in the precision of the array
        function()  # a backward pass may use what the forward pass before it has kept
        return read_gradients(tree, grads, arrays)

    precision = "float32" if any(array.dtype == np.float32 for array in arrays.values()) else "float64"
    rule = Rule(precision, RTOL[precision] if rtol is None else rtol, atol, sizes or {}, _usable(known))
    if entries is None and sum(array.size for array in arrays.values()) > ALL:
        entries = SOME
    generator = np.random.default_rng(seed)
    terms = Loss(function)
    before = {name: array.copy() for name, array in arrays.items()}
    try:
        with np.errstate(all="ignore"):  # a step may lead to where the loss overflows, and is then not taken
            here = terms()
            fault = _changed("the loss", arrays, before) or _fault_of(here, terms(), rule.eps)
            ours = {} if fault else gradients()
            fault = fault or _changed("grads", arrays, before)
            if not fault and _differs(here, terms(), rule.eps):
                fault = "grads changes something that the loss reads: the loss is another one after it has been called"
            if fault:
                return Report([Row("loss", False, notes=(fault,))])
            eps = rule.eps
            if takes_params and precision == "float32":
                moved, terms, eps = _in_float64(loss, params, arrays, terms)
            point = Point(terms, moved, eps, generator, ours, step)
            testimony = testify(oracle, tree, arrays) if oracle is not None else None
            directions = 1 if testimony is not None and testimony.gradients else 2  # an oracle sees every entry
            found = {name: point.measure(name, ours[name], rule.rtol, atol, entries, directions) for name in arrays}
            notes = _at_this_point(point, ours, found, testimony, rule)
            if callable(grads):
                _called_again(gradients, ours, notes, rule)
                if not any(notes.values()):
                    _at_other_points(points, point, gradients, ours, notes, found, rule)
            moves = callable(grads) and points > 1
            rows = [] if testimony is None else [_value_row(point, testimony, rule)]
            rows += [_row(name, point, ours[name], found[name], testimony, notes[name], rule, moves) for name in arrays]
            facts = _facts(testimony, rule, points if callable(grads) else 1)
            if eps > EPS and not takes_params:
                facts.append("differences in float32 see little: let the loss take params, and they are in float64")
            facts += _groups(rows)
            if (wrong := [row for row in rows if row.notes and not row.passed]) and all(_is_open(row) for row in wrong):
                facts.append(TO_THE_STEP)
            if not any(len(one.kinked) for one in found.values()):  # at a kink both would be off
                facts.append(_taylor(point, ours))
                facts += _complex_step(point, tree, loss, ours) if takes_params else []
            return Report(rows, facts)
    finally:
        for name, array in arrays.items():
            array[...] = before[name]


@dataclass(frozen=True)
class Rule:
    """What passes: the coarsest precision of the arrays, the tolerances, and sizes and arrays that have a name."""

    precision: str
    rtol: float
    atol: float
    sizes: dict
    known: dict

    @property
    def eps(self):
        """The distance from 1 to the next number in this precision."""
        return float(np.finfo(self.precision).eps)

    @property
    def rtol_oracle(self):
        """The relative error of a gradient, against an oracle, that passes."""
        return RTOL_ORACLE[self.precision]


def assert_gradients(loss, params, grads, **settings):
    """Check gradients like `check_gradients`, with its arguments, and raise a `GradientError` if they are wrong.

    It is an AssertionError, and its message is the report, so that a test with pytest is one line.
    """
    check_gradients(loss, params, grads, **settings).raise_if_failed()


# What was given


def _are_numbers(rtol, atol, step, entries, points, seed):
    """Raise a ValueError unless the settings of a check are numbers that make sense."""
    for name, value in {"rtol": rtol, "step": step}.items():
        if value is not None:
            positive(name, value)
    if rtol is not None and rtol >= 1:
        raise ValueError(f"rtol is {rtol!r}; expected less than 1, which would pass anything")
    whole("seed", seed, least=0)
    if atol:
        positive("atol", atol)
    whole("points", points)
    if entries is not None:
        whole("entries", entries)


def _are_named(sizes, known):
    """Raise a ValueError unless `sizes` is a dict of numbers, and `known` is a dict."""
    for what, given, example in (("sizes", sizes, '{"M": 7}'), ("known", known, '{"h": h}')):
        if not isinstance(given, dict | None):
            raise ValueError(f"{what} is {type(given).__name__}; expected a dict, such as {example}")
    for name, value in (sizes or {}).items():
        positive(name, value)


def _usable(known):
    """Return those of the known arrays that hold finite real numbers, by name and in float64.

    A mask of -inf, as attention has it, is left out, since no factor and no term is made of it. What is no array raises
    a ValueError.
    """
    arrays = {name: move(array, "numpy") for name, array in named("known", known).items()} if known else {}
    arrays = {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind in "fiub"}
    return {name: array for name, array in arrays.items() if np.isfinite(array).all()}


def check_arrays(arrays):
    """Raise a ValueError unless there are arrays, and all hold numbers that can be moved."""
    if not arrays:
        raise ValueError("params holds no array; expected at least one")
    for name, array in arrays.items():
        _is_checkable(name, array)
    in_host = [(name, array) for name, array in arrays.items() if kind(array) == "numpy"]
    for (one, array), (other, second) in itertools.combinations(in_host, 2):
        if np.may_share_memory(array, second) and np.shares_memory(array, second):
            raise ValueError(
                f"{other} shares its memory with {one}; expected arrays that can be moved one by one: "
                "give one of them, with its whole gradient"
            )


def _is_checkable(name, array):
    if not array.size:
        raise ValueError(f"{name} is empty, {array.shape}; expected at least one number")
    if str(array.dtype) not in RTOL:
        raise ValueError(
            f"{name} holds {array.dtype}; expected float64 or float32: integers cannot be moved a little, and half "
            "precision resolves no difference"
        )
    if kind(array) == "numpy" and not array.flags.writeable:
        raise ValueError(f"{name} cannot be written to; expected an array that can be moved: hand over a copy")
    if not np.isfinite(move(array, "numpy")).all():
        raise ValueError(f"{name} has NaN or infinite entries; expected finite numbers")


def _is_seen(tree, name="params"):
    """Raise a ValueError if a container holds a plain number, whose change a loss without arguments could not see."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if parts is None and (kind(tree) not in BACKENDS or isinstance(tree, np.generic)):
        raise ValueError(f"{name} is a number, which a loss without an argument cannot see changing: use loss(params)")
    for key, part in parts or ():
        _is_seen(part, f"{name}[{key!r}]")


def called_with(tree, what, function):
    """Return a function without arguments that calls `function`, and whether it hands the container over to it."""
    if not callable(function):
        raise ValueError(f"{what} is {type(function).__name__}; expected a function")
    try:
        names = needed_by(function)
    except (TypeError, ValueError):  # of some builtins nothing is known
        return functools.partial(function, tree), True
    if len(names) > 1 or (names and names[0].startswith("**")):
        stars = "**" if isinstance(tree, dict) else "*"
        names = [name.removeprefix("**") for name in names]
        together = "" if isinstance(tree, dict | list | tuple) else f"params=[{', '.join(names)}] and "
        raise ValueError(
            f"{what} takes {', '.join(names)}; expected params alone as its argument, or none: hand over {together}"
            f"lambda p: f({stars}p)"
        )
    return (functools.partial(function, tree), True) if names else (function, False)


def needed_by(function):
    """Return the names of the arguments that a function needs: **name of one that is needed as a keyword, and *args
    alone for a function that takes any number, and needs none.

    So autograd's grad(loss) has it.
    """
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [f"**{p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in needed]
    return names or [f"*{p.name}" for p in parameters if p.kind is p.VAR_POSITIONAL]


def read_gradients(tree, grads, arrays, what="grads"):
    """Return copies of the gradients by the names of the arrays, in host memory and in float64.

    `grads` is a container like `tree`, or a function that returns one; `what` is what messages call it.
    """
    if callable(grads):
        grads = called_with(tree, what, grads)[0]()
    if isinstance(grads, list) and grads and all(isinstance(one, numbers.Real) for one in grads):
        raise ValueError(f"{what} is a list of numbers; expected arrays: hand over np.array({what})")
    found = without_prefix(named(what, grads), arrays)
    if len(found) == len(arrays) == 1:  # a single array needs no name
        found = dict(zip(arrays, found.values(), strict=True))
    if found.keys() != arrays.keys():
        of = "gradient is" if len(found) == 1 else "gradients are"
        raise ValueError(
            f"{len(found)} {of} given, for {_some(found)}; expected {len(arrays)}, for {_some(arrays)}"
            + (": hand over a dict with these keys" if isinstance(tree, dict) and not isinstance(grads, dict) else "")
        )
    for name, array in arrays.items():
        if found[name].shape != array.shape:
            raise ValueError(f"{name} is {array.shape}, and its gradient {found[name].shape}; expected the same shape")
        if found[name].dtype.kind not in "fiu":
            raise ValueError(f"the gradient of {name} holds {found[name].dtype}; expected real numbers")
    return {name: np.array(move(found[name], "numpy"), np.float64) for name in arrays}


def _some(names):
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


# What can be wrong with the functions themselves


def _changed(what, arrays, before):
    """Return a sentence that says which array a function has changed, or None."""
    for name, array in arrays.items():
        if not np.array_equal(move(array, "numpy"), move(before[name], "numpy")):
            return f"{what} changes {name}, which it should only read"
    return None


def _differs(first, second, eps):
    """Say whether the terms of a loss are others at a second call, by more than rounding in another order can do."""
    return first.shape != second.shape or np.abs(first - second).max(initial=0) > 1000 * eps * np.linalg.norm(first)


def _fault_of(first, second, eps):
    """Return a sentence if the terms of the loss are not finite, or others at a second call; None if all is well."""
    if not np.isfinite(first).all():
        return f"the loss is {first.sum()} at this point, and has no gradient"
    if _differs(first, second, eps):
        one = f"{first.sum():.10g}, and {second.sum():.10g} at the next call"
        return f"the loss is random: it is {one}. Draw its noise once, outside of it"
    return None


def _in_float64(loss, params, arrays, terms):
    """Return (arrays, terms, eps) with which differences are taken, for a loss of float32 arrays that takes `params`.

    If the loss of float64 copies is computed in float64, these are moved, so that differences see as much as in
    float64.
    """
    copies = {name: array.astype(np.float64) for name, array in arrays.items()}
    function = functools.partial(loss, rebuilt(params, iter(copies.values())))
    if getattr(function(), "dtype", np.dtype(float)) != np.float64:
        return arrays, terms, float(np.finfo(np.float32).eps)
    return copies, Loss(function), EPS


def _called_again(gradients, ours, notes, rule):
    """Note which gradients are others at a second call, as those that are added to what stands in their place."""
    for name, second in gradients().items():
        first = ours[name]
        largest = np.abs(first).max()
        if not np.isfinite(largest) or np.abs(second - first).max() <= 1000 * rule.eps * largest:
            continue
        if np.abs(second - 2 * first).max() <= 1e-3 * largest:
            notes[name].insert(0, "accumulated: at a second call it is twice as large. Write dW[...] =, not dW +=")
        else:
            notes[name].insert(0, "it is another one at a second call with the same arrays: accumulated, or random")


# Where the gradients are compared


def _against(name, ours, testimony, rule):
    """Return ‖ours - theirs‖ / ‖theirs‖ for the witness's gradient, and whether it passes."""
    theirs = testimony.gradients[name]
    distance = float(np.linalg.norm(ours - theirs))
    norm = float(np.linalg.norm(theirs))
    tolerance = rule.atol + testimony.relative(rule.rtol_oracle) * norm
    passed = distance <= tolerance or distance <= tolerance + testimony.rounding(name)
    return (distance / norm if norm else distance), passed


def _at_this_point(point, ours, found, testimony, rule):
    """Return a dict with sentences about each gradient that is wrong here: what is wrong with it."""
    right = {}
    by_oracle = []
    for name, gradient in ours.items():
        if found[name].wrong or not np.isfinite(gradient).all():
            right[name] = point.right(name, gradient, found[name], rule.rtol)
        elif testimony is not None and testimony.gradients and not _against(name, gradient, testimony, rule)[1]:
            at = point.kinks_among(name, gradient, testimony.gradients[name], found[name], rule.rtol)
            beside = np.where(at, testimony.gradients[name], gradient)
            unseen = not testimony.gradients[name].any() and np.abs(gradient).max() <= found[name].sees  # 0 by rounding
            # not at kinks alone, where two conventions may be right
            if not unseen and not _against(name, beside, testimony, rule)[1]:
                right[name] = testimony.gradients[name], 0.0
                by_oracle.append(name)
    notes = _diagnoses(point, ours, right, rule)
    for name in by_oracle:
        if found[name].compared and not right[name][0].any():
            notes[name] = [f"the oracle does not read {name}, and the loss does: is it cut off, as by .detach()?"]
        elif found[name].compared:
            notes[name][0] = f"right by differences, and not beside the oracle: {notes[name][0]}"
    return notes


def _diagnoses(point, ours, right, rule):
    """Return a list of sentences for each array; it is empty unless `right` has its right gradient, and the error."""
    notes = {name: [] for name in ours}
    known = {**rule.known, **{name: move(array, "numpy") for name, array in point.arrays.items()}} if right else {}
    for name, (theirs, error) in right.items():
        others = {n: right[n][0] if n in right else ours[n] for n in ours if n != name}
        notes[name] = diagnosis(Evidence(name, ours[name], theirs, error, rule.sizes, others, known))
    return notes


def _at_other_points(points, first, gradients, ours, notes, found, rule):
    """Compare again where the arrays are moved by a tenth of their size, along a random direction; note what is
    wrong."""
    arrays = first.arrays
    before = {name: array.copy() for name, array in arrays.items()}
    for number in range(2, points + 1):
        for name, array in arrays.items():
            moved = 0.1 * first.scales[name] * first.generator.standard_normal(array.shape)
            array[...] = before[name] + move(moved, kind(array)).astype(array.dtype)
        here = first.loss.beside(len(first.here))
        if not np.isfinite(here).all():
            continue  # outside of where the loss is defined
        there = gradients()
        larger = max(1.0, float(np.linalg.norm(here) / np.linalg.norm(first.here))) if first.here.any() else 1.0
        point = Point(first.loss, arrays, first.eps, first.generator, there, noise=first.noise * larger)
        measured = {name: point.measure(name, there[name], rule.rtol, rule.atol, 1, 1) for name in arrays}
        right = {n: point.right(n, there[n], measured[n], rule.rtol) for n in arrays if measured[n].wrong}
        for name, sentences in _diagnoses(point, there, right, rule).items():
            found[name].compared |= measured[name].compared
            if sentences and np.array_equal(there[name], ours[name]):
                sentences = ["grads returns the same numbers as at the first point: is it computed anew?"]
            if sentences and not notes[name]:
                notes[name] += [f"right at the first point, wrong at point {number}: {sentences[0]}", *sentences[1:]]
    for name, array in arrays.items():
        array[...] = before[name]


# The report


def _row(name, point, ours, measured, testimony, notes, rule, moves):
    """Return the row of an array: it passes if it could be compared, and nothing has been noted that is wrong.

    moves says whether it was compared at other points as well.
    """
    known = np.isfinite(measured.theirs)
    theirs = measured.theirs[known]
    norm = float(np.linalg.norm(theirs))
    distance = float(np.linalg.norm(ours.reshape(-1)[measured.places][known] - theirs))
    has_oracle = testimony is not None and bool(testimony.gradients)
    if not notes and not has_oracle:
        notes = _not_compared(name, point, ours, measured, rule, moves)
    passed = not notes
    return Row(
        name,
        passed,
        ours.size,
        len(measured.places),
        float(np.linalg.norm(ours)),
        _against(name, ours, testimony, rule)[0] if has_oracle else None,
        distance / norm if norm else distance,
        measured.sees,
        (*notes, *_said(ours, measured, has_oracle)),
    )


def _not_compared(name, point, ours, measured, rule, moves):
    """Return a list with a sentence if a gradient could not be compared with differences, so that it must not pass."""
    if measured.far and not moves:
        return [
            f"not compared in {measured.far:,} entries: the loss has a kink there, and the gradient is far from the "
            "slopes of its two sides. Hand over grads as a function, and other points are tried too"
        ]
    if measured.unseen:
        raised = f" (it raises {point.loss.raised})" if point.loss.raised else ""
        return [f"not compared in {measured.unseen:,} entries: the loss is no number beside them{raised}"]
    if not measured.compared:
        return [
            "not compared: the loss has a kink here in every entry. Hand over grads as a function, or move the point"
        ]
    largest = float(np.abs(ours).max())
    effect = largest * point.scales[name]  # on the loss, of a change of the array by its own size
    if measured.sees >= largest and effect > 10 * point.eps * float(np.linalg.norm(point.here)):
        return [
            f"not compared: differences of this loss resolve no error below {measured.sees:.1e}, and the gradient is "
            f"{largest:.1e} at most. Let the loss return its terms, or give an oracle"
        ]
    return []


def _said(ours, measured, has_oracle):
    """Return sentences about what the differences could not see of a gradient."""
    largest = float(np.abs(ours).max())
    said = []
    if largest <= measured.sees < np.inf and not has_oracle and not measured.wrong:
        what = "0" if largest == 0 else f"{largest:.1e} at most"
        said.append(f"{what}, below what differences resolve: {measured.sees:.1e}")
    elif measured.sees > 0.01 * largest > 0 and not has_oracle and np.isfinite(largest):
        said.append(
            f"an error of one entry below {100 * measured.sees / largest:.0f} % of the largest would not be seen"
        )
    if len(measured.kinked):
        entries = f"{len(measured.kinked):,} {'entry' if len(measured.kinked) == 1 else 'entries'}"
        said.append(f"at a kink of the loss in {entries}, where every slope between its two sides passes")
        if measured.outside:
            said.append(f"not compared in {measured.outside:,} of these: there it is no slope between them")
    return said


def _value_row(point, testimony, rule):
    """Return the row that compares the value of the loss with the witness's, since a gradient can be right for another
    loss."""
    ours = float(point.here.sum())
    distance = abs(ours - testimony.value)
    relative = testimony.relative(rule.rtol_oracle)
    passed = bool(distance <= relative * abs(testimony.value) + SAFETY * point.noise + rule.atol)
    notes = []
    if not passed:
        near = distance <= 1e-5 * abs(testimony.value)
        what = "the oracle seems to compute in float32" if near else "another loss"
        notes.append(f"{what}: it is {ours:.10g} here, and {testimony.value:.10g} according to the oracle")
        about = factor_words(ours / testimony.value, rule.sizes) if testimony.value else ""
        notes += [about] if about else []
    error = distance / abs(testimony.value) if testimony.value else distance
    return Row("value", passed, 1, 0, abs(ours), error, None, None, tuple(notes))


def _facts(testimony, rule, points):
    """Return sentences about the check as a whole."""
    facts = [
        f"{rule.precision}; relative tolerance {rule.rtol:.0e} against differences"
        + (f", {testimony.relative(rule.rtol_oracle):.0e} against the oracle" if testimony is not None else "")
        + f"; {points} point{'s' if points > 1 else ': hand over grads as a function, and others are tried too'}"
    ]
    if testimony is not None:
        what = "its value and gradients" if testimony.gradients else "its value alone: no library differentiates it"
        facts.append(f"oracle in {testimony.library}: {what}")
        if testimony.eps > EPS:
            facts.append(
                f"the oracle answers in a precision of {testimony.eps:.0e}"
                + (": set jax_enable_x64" if testimony.library == "JAX" else "")
            )
    return facts


def _groups(rows):
    """Return a list with a sentence if the arrays of some parts are all wrong and those of others all right.

    The part of an array is what stands before the first dot of its name.
    """
    verdicts = {}
    for row in rows:
        if "." in row.name:
            verdicts.setdefault(row.name.partition(".")[0], set()).add(row.passed)
    wrong = [part for part, found in verdicts.items() if found == {False}]
    right = [part for part, found in verdicts.items() if found == {True}]
    if not wrong or not right:
        return []
    names = ", ".join(wrong)
    return [
        f"all arrays of {names} are wrong and all of {', '.join(right)} are right: look at what flows back into {names}"
    ]


def _is_open(row):
    """Say whether no usual fault explains what is wrong in a row."""
    return any(UNKNOWN in note for note in row.notes)


def _taylor(point, ours):
    """Return a sentence about the remainders f(a + t d) - f(a) - t g·d along a random direction d.

    They fall like t² if g is the gradient, and like t if it is not. No step has to be chosen, so that it shows in any
    precision; a gradient that is wrong by little shows at small t only.
    """
    line = point.line(list(point.arrays))
    predicted = line.along(*ours.values())
    steps = 0.1 * 0.25 ** np.arange(7)
    remainders = np.array([abs(float((line.at(t)[0] - point.here).sum()) - t * predicted) for t in steps])
    clear = remainders > SAFETY * point.noise
    count = int(clear.argmin()) if not clear.all() else len(steps)
    if count < 3:
        return "Taylor remainders: the loss is linear along a random direction, as far as can be seen"
    slopes = -np.diff(np.log2(remainders[:count]))[-3:] / 2
    slope = f"{np.median(slopes):.2f}"
    return f"Taylor remainders along a random direction fall with slope {slope}: 2 if right, 1 if wrong or near a kink"


def _complex_step(point, tree, loss, ours):
    """Return a list with a sentence about the complex step, which is empty if the loss does not allow it.

    If f is analytic, Im f(a + i h d) / h is the derivative along d without an error by curvature or by cancellation
    (Squire & Trapp 1998, "Using complex variables to estimate derivatives of real functions").
    """
    line = point.line(list(point.arrays))
    h = 1e-100
    moved = [move(a, "numpy") + 1j * h * d for a, d in zip(point.arrays.values(), line.directions, strict=True)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as NumPy's where the imaginary part is dropped
            value = np.sum(loss(rebuilt(tree, iter(moved))))
    except Exception:  # whatever a loss does with numbers that it was not made for
        return []
    predicted = line.along(*ours.values())
    found = float(np.imag(value)) / h
    real = abs(float(np.real(value)) - float(point.here.sum())) <= SAFETY * point.noise
    tolerance = 1e-6 * abs(found)
    if not real or point.derivative(line, found, point.step, tolerance).verdict(found, tolerance) != "agrees":
        return []
    error = abs(predicted - found) / abs(found) if found else abs(predicted)
    beyond = " (beyond rounding: a small error, or a loss that takes absolute values)" if 1e-9 < error < 1e-3 else ""
    return [f"complex step along a random direction: relative error {error:.1e}{beyond}"]
