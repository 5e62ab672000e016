"""Checks an answer against differences, the library's own lines and an exact case, and says in words what is wrong."""

import functools
import inspect
import traceback

import numpy as np

from scratchvae.exercises import exercise_of
from scratchvae.gradcheck.check import check_gradients
from scratchvae.gradcheck.faults import diagnosis
from scratchvae.gradcheck.report import Report, Row
from scratchvae.gradcheck.suspects import Evidence

RTOL = 1e-9  # of the largest entry, against the library's lines
SEED = 0  # of the arguments
CHECKS = "scratchvae.exercises.checking:checks_of"  # see `homework.mark`
EXACT = "exact case"
MISSING = "function"  # the name of the row of a file that has not the function
ZERO = "it is 0 everywhere"
OF_SIZE = ("a factor: ", "the sign is wrong: it is -1 times the right one")  # how a fault begins that is a factor alone
OF_VALUES = (*OF_SIZE, "wrong only in", "transposed", "it is off by")  # and those that make sense for a value too
ANOTHER = (
    "right gradient of another function: the gradients that are returned are the derivatives of the value that is "
    "returned, and this is not the one that is asked for"
)


class UnfitError(Exception):
    """The answer cannot be called, or returns what cannot be compared; the message says so in one line."""


def checks_of(module, seed, number):
    """Yield (name, check) for the exercise of this number in a module; check() returns the report of `check`."""
    exercise = exercise_of(int(number))
    function = getattr(module, exercise.name, None)
    if callable(function):
        yield exercise.name, functools.partial(check, exercise, function)
    else:
        note = f"has no function {exercise.name}{inspect.signature(exercise.blank)}, which exercise {number} asks for"
        yield exercise.name, lambda: Report([Row(MISSING, False, notes=(note,))])


@np.errstate(all="ignore")
def check(exercise, function):
    """Check a function that is meant to solve an exercise.

    It returns a `Report` with a row for each result, and one for the exact case. The notes of a row that failed say
    what is wrong, and those of a row that passed what was shown. A fact of the report is a sentence on all results.
    """
    arguments = exercise.arguments(np.random.default_rng(SEED))
    right = _named(exercise, exercise.library(**_copied(arguments)))
    try:
        found = _called(exercise, function, arguments)
        again = _called(exercise, function, arguments)
    except UnfitError as error:
        return Report([Row(exercise.name, False, notes=(str(error),))])
    notes = {name: _unfit(found[name], right[name]) for name in exercise.results}
    for name in exercise.results:
        if not notes[name] and not np.array_equal(found[name], again[name]):
            notes[name] = ["another call with the same arguments returns something else"]
    comparable = [name for name in exercise.results if not notes[name]]
    for name in comparable:
        if not exercise.is_gradient(name):
            notes[name] = _wrong_value(exercise, name, found[name], right[name], arguments)
    gradients = {name: found[name] for name in comparable if exercise.is_gradient(name)}
    for name, row in _differences(exercise, arguments, gradients).items():
        if not row.passed:
            notes[name] = list(row.notes) if np.any(found[name]) else [ZERO]
        elif not _agree(found[name], right[name]):
            notes[name] = [
                f"right by differences, but {_distance(found[name], right[name]):.1e} from the library's lines"
            ]
    _name_mistakes(exercise, arguments, found, notes)
    rows = [_row(exercise, name, found[name], notes[name]) for name in exercise.results]
    facts = [ANOTHER] if _is_of_another(exercise, function, arguments, found, notes) else []
    return Report([*rows, _exact(exercise, function)], facts)


# The call


def _copied(arguments):
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()}


def _named(exercise, results):
    return {name: np.asarray(one, float) for name, one in zip(exercise.results, results, strict=True)}


def _called(exercise, function, arguments):
    """Return what a function returns for copies of the arguments, by the names of the results."""
    given = _copied(arguments)
    try:
        inspect.signature(function).bind(**given)
    except TypeError:
        takes, expected = inspect.signature(function), inspect.signature(exercise.blank)
        raise UnfitError(f"it takes {takes}; expected {expected}") from None
    except ValueError:  # what it takes is not known of every callable
        pass
    try:
        returned = function(**given)
    except NotImplementedError:
        raise UnfitError("not done yet: it raises NotImplementedError where its lines should stand") from None
    except (Exception, SystemExit) as error:
        raise UnfitError(_raised(error, function)) from None
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and not (
            given[name].shape == value.shape and np.array_equal(given[name], value, equal_nan=True)
        ):
            raise UnfitError(f"it changes its argument {name}: work on a copy, as in {name} = {name} + …")
    names = exercise.results
    if returned is None:
        raise UnfitError(f"it returns None; expected {', '.join(names)}: is there a return?")
    if len(names) == 1 and not isinstance(returned, tuple | list):
        returned = (returned,)
    if not isinstance(returned, tuple | list) or len(returned) != len(names):
        count = f"{len(returned)} results" if isinstance(returned, tuple | list) else type(returned).__name__
        raise UnfitError(f"it returns {count}; expected {len(names)}: {', '.join(names)}")
    return {name: _own(one) for name, one in zip(names, returned, strict=True)}


def _own(value):
    """Return an array as a plain one, without the rules of a matrix or of a mask, that no later call can change."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def _raised(error, function):
    """Return in one line what an answer has raised, and in which of its lines."""
    text = " ".join(str(error).split())[:300]
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    where = f" in line {lines[-1]}" if lines else ""
    return f"it raises {type(error).__name__}{where}" + (f": {text}" if text else "")


def _unfit(value, right):
    """Return a list with a sentence that says why a result cannot be compared, or an empty one."""
    if not isinstance(value, np.ndarray | np.generic | float | int):
        return [f"it is {'None' if value is None else 'a ' + type(value).__name__}; expected {_array(right.shape)}"]
    shape = np.shape(value)
    if shape != right.shape:
        said = "one number" if shape == () else f"of the shape {shape}"
        about = ""
        if shape == right.shape[::-1]:
            about = ": it is transposed"
        elif right.ndim and shape[1:] == right.shape:
            about = ": it is not summed over its first axis"
        elif shape and right.shape[1:] == shape:
            about = ": it is summed over its first axis, and should not be"
        return [f"it is {said}; expected {_array(right.shape)}{about}"]
    if np.asarray(value).dtype != np.float64:
        return [f"it holds {np.asarray(value).dtype}; expected float64, as the arguments hold"]
    bad = ~np.isfinite(value)
    if np.any(bad):
        return [f"not a number: {np.sum(bad)} of {np.size(value)} entries are NaN or infinite"]
    return []


def _array(shape):
    return f"an array of the shape {shape}" if shape else "one number"


# The comparisons


def _agree(found, right, rtol=RTOL):
    """Say whether two arrays are the same, to a share of the largest entry."""
    return _distance(found, right) <= rtol


def _distance(found, right):
    """Return how far two arrays are apart, as a share of the largest entry; where all are 0, they are compared with
    the arguments, which are of the size of 1."""
    return float(np.abs(found - right).max() / (np.abs(right).max() or 1.0))


def _wrong_value(exercise, name, found, right, arguments):
    """Return a list with a sentence that says what is wrong with a value, or an empty one if it is right."""
    found = np.asarray(found)
    if _agree(found, right):
        return []
    if not found.any():
        return [ZERO]
    known = {name: right, **_arrays(arguments)}
    first = diagnosis(Evidence(name, found, right, 1e-14 * np.abs(right).max(), exercise.sizes, {}, known))[0]
    if first.startswith(OF_VALUES):
        return [first]
    place = np.unravel_index(np.abs(found - right).argmax(), right.shape)
    where = f"at {[int(k) for k in place]} " if place else ""
    return [f"another value: {where}expected {right[place]:.10g}, and {found[place]:.10g} came"]


def _arrays(arguments):
    return {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}


def _differences(exercise, arguments, gradients):
    """Return the rows of a gradient check by the names of the results."""
    if not gradients:
        return {}
    moved = _copied(arguments)
    held = {"held": _copied(arguments)} if "held" in inspect.signature(exercise.naive).parameters else {}
    params = {name[1:]: moved[name[1:]] for name in gradients}
    report = check_gradients(
        lambda: exercise.naive(**moved, **held),
        params,
        {name[1:]: gradient for name, gradient in gradients.items()},
        sizes=exercise.sizes,
        known=_arrays(arguments),
    )
    return {"d" + row.name: row for row in report}


def _name_mistakes(exercise, arguments, found, notes):
    """Put before the notes of a wrong result the words of the usual mistake that would give it.

    If several would, it is the one that explains the most results. Of the other notes only a factor is kept.
    """
    explained = {}
    for words, mistake in exercise.mistakes.items():
        given = zip(exercise.results, mistake(**_copied(arguments)), strict=True)
        explained[words] = [name for name, wrong in given if notes[name] and _is(found[name], wrong)]
    for words in sorted(explained, key=lambda words: len(explained[words])):  # the last one stays
        for name in explained[words]:
            notes[name] = [words, *(note for note in notes[name] if note.startswith(OF_SIZE) and "except" not in note)]


def _is(found, wrong):
    """Say whether a result is what a mistake gives."""
    if wrong is None or np.shape(found) != np.shape(wrong) or np.asarray(found).dtype.kind not in "fiu":
        return False
    return _agree(found, wrong, 1e-7)


def _is_of_another(exercise, function, arguments, found, notes):
    """Say whether a value and a gradient are wrong, and all gradients are right derivatives of this value."""
    wrong = [name for name in exercise.results if notes[name]]
    gradients = [name for name in exercise.results if exercise.is_gradient(name)]
    if len(exercise.values) != 1 or exercise.values[0] not in wrong or len(wrong) < 2:
        return False
    moved = _copied(arguments)
    place = exercise.results.index(exercise.values[0])
    try:
        return check_gradients(
            lambda: np.asarray(function(**moved)[place]),
            {name[1:]: moved[name[1:]] for name in gradients},
            {name[1:]: found[name] for name in gradients},
        ).passed
    except Exception:  # whatever an answer does at other arguments
        return False


def _row(exercise, name, found, notes):
    """Return the row of a result, from the notes on what is wrong with it."""
    if notes:
        return Row(name, False, np.size(found), notes=tuple(notes))
    shown = ("differences, and the library's lines" if exercise.is_gradient(name) else "the library's lines",)
    return Row(name, True, np.size(found), notes=shown)


def _exact(exercise, function):
    """Return the row of the exact case."""

    def answer(**arguments):
        right = _named(exercise, exercise.library(**_copied(arguments)))
        found = _called(exercise, function, arguments)
        for name in exercise.results:
            if wrong := _unfit(found[name], right[name]):
                raise UnfitError(f"{name}: {wrong[0]}")
        return found[exercise.results[0]] if len(found) == 1 else tuple(found.values())

    try:
        came, should = (np.atleast_1d(np.asarray(one, float)) for one in exercise.exact(answer))
    except UnfitError as error:
        return Row(EXACT, False, notes=(f"{exercise.exact_case}; {error}",))
    off = ~(np.abs(came - should) <= exercise.within * np.maximum(np.abs(should), 1))  # NaN is off too
    if off.any():
        k = int(off.argmax())
        came, should = (np.broadcast_to(one, off.shape).reshape(-1)[k] for one in (came, should))
        return Row(EXACT, False, notes=(f"{exercise.exact_case}; expected {should:.10g}, and {came:.10g} came",))
    return Row(EXACT, True, notes=(exercise.exact_case,))
