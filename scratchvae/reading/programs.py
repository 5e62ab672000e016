"""Runs the programs of a page, and plants the mistakes that it speaks of."""

import contextlib
import csv
import importlib
import inspect
import io
import json
import sys
import textwrap
import traceback
import types
import warnings

import numpy as np

from scratchvae.gradcheck.faults import UNKNOWN
from scratchvae.reading.source import ReadingError, path_of

PROGRAM = "<a program of the reading>"


def names():
    """Return the names that the programs of a page begin with."""
    return {"__name__": "page", "np": np, "results": results, "failed": failed}


def failed(report):
    """Return what a gradient check says, shortened: "pass", or the arrays that fail and what is said of each.

    The arrays of which it can only say that they are wrong share the last line.
    """
    lines = []
    others = []
    for row in report:
        error = row.differences if row.oracle is None else row.oracle
        if not row.passed and any(UNKNOWN in note for note in row.notes):
            others.append((row.name, error))
        elif not row.passed:
            lines.append(f"{row.name} FAIL" + (f", relative error {error:.2g}" if error is not None else ""))
            lines += [f"    {note}" for note in row.notes]
    if others:
        worst = max(error for _, error in others)
        lines.append(f"FAIL, relative error up to {worst:.2g}: " + ", ".join(name for name, _ in others))
    return "\n".join(lines) or "pass"


def results(file):
    """Return a committed result: the rows of a .csv file as dicts, or what a .json file holds."""
    text = path_of(file).read_text(encoding="utf-8")
    if file.endswith(".json"):
        return json.loads(text)
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def run(program, within, planted=False):
    """Run a program within a dict of names and return what it prints.

    A program of a page may not warn and has to end. Where a mistake is planted, it may do either: it then returns what
    it has printed and the error.
    """
    out = io.StringIO()
    bars = contextlib.redirect_stderr(io.StringIO())  # of a training are no part of a page
    with contextlib.redirect_stdout(out), bars, warnings.catch_warnings():
        warnings.simplefilter("ignore" if planted else "error")
        try:
            exec(compile(program, PROGRAM, "exec"), within)
        except (Exception, SystemExit) as error:
            if not planted:
                raise ReadingError(f"a program ends with {type(error).__name__}: {error}{_line(error)}") from error
            print(f"{type(error).__name__}: {error}")
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))


def _line(error):
    """Return the line of the program that led to an error, in words."""
    number = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == PROGRAM:
            number = frame.lineno
    return f" (line {number} of the program)" if number else ""


@contextlib.contextmanager
def modules_of_their_own():
    """Forget at the end the examples that were loaded as modules inside."""
    before = set(sys.modules)
    examples = str(path_of("examples/one_page.py").parent)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(examples):
                del sys.modules[name]


@contextlib.contextmanager
def planted(name, changes):
    """Run what stands inside with a changed function, and put the right one back.

    `changes` is a list of texts (right, wrong), and each right one is in the source of the function once. The function
    keeps its identity and gets other code, so that the change arrives wherever the function was imported.
    """
    function = _resolve(name)
    right = function.__code__
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise ReadingError(f"{old!r} is {source.count(old)} times in {name}; what is replaced has to be there once")
        source = source.replace(old, new)
    try:
        wrong = _code(compile(source, "<planted>", "exec"), right.co_name)
    except SyntaxError as error:
        raise ReadingError(f"{name} is no Python any more with {changes[0][1]!r}: {error.msg}") from error
    if wrong.co_freevars != right.co_freevars:
        raise ReadingError(f"{name} reads names of an outer function, so nothing can be planted in it")
    try:
        function.__code__ = wrong
        yield
    finally:
        function.__code__ = right


def _resolve(name):
    """Return the function of a dotted name."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            found = getattr(found, word, None)
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, types.FunctionType):
            return found
        break
    raise ReadingError(f"{name} is no function in which a mistake could be planted")


def _code(outer, name):
    """Return the code of the function `name`, which is a constant of the code that defines it."""
    return next(one for one in outer.co_consts if isinstance(one, types.CodeType) and one.co_name == name)
