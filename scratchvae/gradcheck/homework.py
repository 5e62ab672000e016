"""Checks what a file has to check, in a process of its own, so that homework is marked with one command.

    scratchvae gradcheck solutions/

What is looked for in a file: classes with `forward` and `backward`; functions that return a value and its partials and
are called log_…, …_loss, …_density, nll, mse or the like; and loss, params and grads under these names, or under names
that end alike, as loss_mlp, params_mlp and grads_mlp. A class is made, and a function called, with arguments that
are tried here. Where these do not fit, `example` says which do; it marks functions of other names too. No other
function is called; those that look as if they returned a value with a partial are named as not checked.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import types
from pathlib import Path

import numpy as np

from scratchvae.gradcheck.check import check_gradients, needed_by
from scratchvae.gradcheck.parts import check_density, check_layer
from scratchvae.gradcheck.report import Report, Row, table

M = 4  # rows of the arrays that are tried
D = 5  # and columns
FILE_SIZE = 64 << 20  # bytes that the process of a file may write to a file, what it prints included
PACKAGE = "homework"  # to which the module of the file belongs
DENSITY = re.compile(r"^(log|nll|logpdf|logprob|logp|pdf)(_|$)|(^|_)(loss|density|nll|logpdf|pdf|prob|likelihood|mse)$")
TRIPLE = ("loss", "params", "grads")
MATRIX = re.compile(r"[WUV]\w*|w\d*|weights?\d*|kernel")  # an argument that is no size
ARRAY = re.compile(rf"{MATRIX.pattern}|b\d*|bias\d*|gamma|beta")
NOT_A_NAME = "it is not called log_…, …_loss, …_density, nll, mse or the like: mark it with example(…)"
UNCALLED = "could not be called: "  # and so nothing is known of its gradients
HOW_TO_MAKE = (
    "write a function without arguments that makes it, and mark that with @scratchvae.gradcheck.example(x), x being an "
    "input of forward"
)
RUN = """
import random, sys, numpy
random.seed(int(sys.argv[2]))  # what the file draws from the global states of its process is the same at each run
numpy.random.seed(int(sys.argv[2]) % 2**32)
from scratchvae.gradcheck import homework
homework._run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
"""
OF_HOMEWORK = ("scratchvae.gradcheck.homework:checks_of",)


def example(*arguments, **settings):
    """Return a decorator that says with which arguments a layer or a density is checked.

    arguments   are those of `forward`, or of the density.
    settings    are those of `check_layer` or `check_density`, such as oracle, skip, sizes.

    A layer whose constructor takes arguments is marked as a function without arguments that makes it.
    """

    def mark(target):
        target.gradcheck_example = arguments, settings
        return target

    return mark


# In the process of the file


class NotCheckedError(Exception):
    """Something that looks as if it were to be checked, and is not; the message says why."""


def checks_of(module, seed=0):
    """Yield (name, check) for all that a module has to check. check() returns a report; where something cannot be
    checked, the report says why. What is not checked, and need not be, raises `NotCheckedError`."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    endings = sorted({name.removeprefix("loss") for name in own if name.startswith("loss")})
    endings = [ending for ending in endings if all(f"{part}{ending}" in own for part in TRIPLE)]
    own_code = {name: value for name, value in own.items() if getattr(value, "__module__", None) == module.__name__}
    made = set()  # the types of layers that marked functions have made
    bases = {base for value in own_code.values() if inspect.isclass(value) for base in value.__mro__[1:]}
    for name, value in sorted(own_code.items(), key=lambda item: not hasattr(item[1], "gradcheck_example")):
        if name.removeprefix("loss") in endings or name in [f"{part}{end}" for part in TRIPLE for end in endings]:
            continue
        check = _found(name, value, seed, inspect.isclass(value) and value in bases, made)
        if check is not None:
            yield name, functools.partial(_tried, name, check)
        elif _looks_like_a_density(value):
            yield name, functools.partial(_refused, NOT_A_NAME)
    for ending in endings:
        name = f"loss{ending}"
        loss, params, grads = (own[f"{part}{ending}"] for part in TRIPLE)
        yield (
            name,
            functools.partial(_tried, name, lambda *three: check_gradients(*three, seed=seed), loss, params, grads),
        )


def _looks_like_a_density(value):
    """Say whether a function has arguments, and a line `return a, b` of its own."""
    if not inspect.isfunction(value) or hasattr(value, "gradcheck_example") or not _needed(value):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, SyntaxError):
        return False
    inner = {
        id(n)
        for one in ast.walk(tree.body[0])
        if one is not tree.body[0] and isinstance(one, DEFINITIONS)
        for n in ast.walk(one)
    }
    returned = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and id(n) not in inner]
    return any(isinstance(one, ast.Tuple) for one in returned)


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def _refused(why):
    raise NotCheckedError(why)


def _tried(name, check, *arguments):
    """Return the report of a check, or, where it ends in an error or wants to end the process, one that says so."""
    try:
        return check(*arguments)
    except NotCheckedError:
        raise
    except BaseException as error:
        return Report([Row(name, False, notes=(_line(error),))])


def _line(error):
    """Return an error in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]} …"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _found(name, value, seed, is_base, made):
    """Return the check of a layer or a density as a function without arguments, or None for all else.

    is_base   says whether another class of the file is derived from it: then it need not be finished.
    made      is a set to which the type of a layer is added that a marked function has made. A class of which nothing
              else could be made need not be called then.
    """
    arguments, settings = getattr(value, "gradcheck_example", (None, {}))
    if inspect.isclass(value):
        is_one = all(callable(getattr(value, what, None)) for what in ("forward", "backward"))
        return functools.partial(_check_class, value, arguments, settings, seed, is_base, made) if is_one else None
    if not inspect.isfunction(value):
        return None
    if arguments is not None and not _needed(value):
        return functools.partial(_check_made, value, arguments, settings, seed, made)
    if arguments is not None:
        return lambda: check_density(value, *arguments, seed=seed, **settings)
    if DENSITY.search(name) and _needed(value):
        return functools.partial(_check_density, value, seed)
    return None


def _needed(function):
    """Return the names of the arguments that a function, or a class that is called, cannot do without."""
    return [name for name in needed_by(function) if not name.startswith("*")]


def _check_made(maker, arguments, settings, seed, made):
    """Check the layer that a marked function makes, and note its type."""
    layer = maker()
    made.add(type(layer))
    return check_layer(layer, *arguments, seed=seed, **settings)


def _check_class(kind, arguments, settings, seed, is_base, made):
    """Check a layer, made with sizes D, 3, 2, … for the arguments that it needs, or with arrays for those called W and
    b."""
    if inspect.isabstract(kind):
        raise NotCheckedError("an abstract class")
    needed = _needed(kind)
    errors = []
    for given in _constructor_arguments(needed, seed):
        words = [f"{name} = {_shortly(one)}" for name, one in zip(needed, given, strict=True)]
        try:
            layer = kind(*given)
            break
        except BaseException as error:
            errors.append(f"{', '.join(words)} ({_line(error)})" if words else _line(error))
    else:
        told = f" with {', nor with '.join(errors)}" if needed else f" ({errors[0]})"
        raise _uncalled(kind, made, f"{kind.__name__} cannot be made{told}; {HOW_TO_MAKE}")
    if arguments is not None:
        return check_layer(layer, *arguments, seed=seed, **settings)
    errors = {}
    for what, inputs in _inputs(len(_needed(layer.forward)), layer, seed).items():
        try:
            return check_layer(layer, *inputs, seed=seed)
        except NotImplementedError:
            if is_base or _raises_everywhere(layer, inputs):
                raise NotCheckedError("its forward or backward raises NotImplementedError: a base class") from None
            raise ValueError("not finished: its forward or backward raises NotImplementedError") from None
        except BaseException as error:
            errors.setdefault(_line(error), what)
    for what, inputs in _inputs(len(_needed(layer.forward)), layer, seed).items():
        if raised := _raised_by_backward(layer, inputs):
            raise ValueError(f"{UNCALLED}its forward takes {what}, and its backward raises {raised}")
    told = "; ".join(f"{what}: {error}" for error, what in errors.items())
    how = f", made with {', '.join(words)}," if words else ""
    told = f"{kind.__name__}{how} takes none of the inputs that were tried ({told}); say which it takes with "
    told += "@scratchvae.gradcheck.example(x)" + (f", or {HOW_TO_MAKE}" if words else "")
    raise _uncalled(kind, made, told)


def _raised_by_backward(layer, inputs):
    """Return what the backward pass of a layer raises for inputs that its forward pass takes, or None."""
    try:
        y = layer.forward(*[np.copy(value) for value in inputs])
    except BaseException:
        return None
    try:
        layer.backward(np.ones_like(y))
    except BaseException as error:
        lines = traceback.extract_tb(error.__traceback__)[1:]
        return _line(error) + (f" in line {lines[-1].lineno} of {Path(lines[-1].filename).name}" if lines else "")
    return None


def _uncalled(kind, made, told):
    """Return the error that says why a class could not be called. It is no fault if a marked function makes one."""
    if kind in made:
        return NotCheckedError("a function that is marked makes one")
    return ValueError(f"{UNCALLED}{told}")


def _constructor_arguments(needed, seed):
    """Yield lists of arguments for a constructor: arrays for those called W, b or the like and sizes D, 3, 2, … for the
    others, and then sizes alone."""
    generator = np.random.default_rng(seed)
    n_out = 3 if any(map(MATRIX.fullmatch, needed)) else D  # of a layer that multiplies by a matrix
    sizes = iter([D, 3, *[2] * len(needed)])
    if any(map(ARRAY.fullmatch, needed)):
        yield [
            generator.standard_normal((D, n_out) if MATRIX.fullmatch(name) else n_out)
            if ARRAY.fullmatch(name)
            else next(sizes)
            for name in needed
        ]
    yield [D, 3, *[2] * len(needed)][: len(needed)]


def _shortly(value):
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else str(value)


def _raises_everywhere(layer, inputs):
    """Say whether forward raises NotImplementedError too, as that of a base class does."""
    try:
        layer.forward(*inputs)
    except NotImplementedError:
        return True
    except BaseException:
        return False
    return False


def _inputs(count, layer, seed):
    """Return inputs for a layer, by what they are: rows of floats, and for a second one floats, labels, or one of D for
    each row."""
    generator = np.random.default_rng(seed)
    shapes = getattr(layer, "shapes", None) or {}
    width = next((shape[0] for shape in shapes.values() if len(shape) == 2), D)
    x = generator.standard_normal((M, width))
    if count <= 1:
        return {"rows of numbers": (x,)}
    labels = generator.integers(0, width, M)
    seconds = {"rows of numbers": generator.random((M, width)), "labels": labels, "one of each": np.eye(width)[labels]}
    more = [generator.random((M, width)) for _ in range(count - 2)]
    return {what: (x, second, *more) for what, second in seconds.items()}


def _check_density(function, seed):
    """Check a function that returns (value, partial, …), called with rows in (0, 1), or with labels as its last one.

    Where it returns fewer partials than it has arguments, every choice of as many arguments is tried, in their order.
    The report is that of the first choice that passes, or else of the first one of all.
    """
    arguments = _arguments(function, seed)
    found = function(*arguments)
    if not isinstance(found, tuple | list) or len(found) < 2:
        raise NotCheckedError(f"it returns {type(found).__name__}, and not a value with its partials")
    count = sum(partial is not None for partial in found[1:])
    floats = [k for k, argument in enumerate(arguments) if argument.dtype.kind == "f"]
    if count > len(floats):
        raise ValueError(f"it returns {count} partials for {len(floats)} arguments of floats; expected one for each")
    names = list(inspect.signature(function).parameters)
    first = None
    for chosen in itertools.combinations(floats, count):
        without = [k for k in range(len(arguments)) if k not in chosen]
        report = check_density(function, *arguments, without=without, seed=seed)
        if count < len(floats):
            report.facts.append(f"its partials are taken to be those by {', '.join(names[k] for k in chosen)}")
        first = report if first is None else first
        if report:
            return report
    return first


def _arguments(function, seed):
    """Return arguments with which a density can be called."""
    generator = np.random.default_rng(seed)
    count = len(_needed(function))
    rows = [0.2 + 0.6 * generator.random((M, D)) for _ in range(count)]
    errors = []
    for arguments in (rows, [*rows[:-1], generator.integers(0, D, M)]):
        try:
            function(*[argument.copy() for argument in arguments])
            return arguments
        except BaseException as error:
            errors.append(_line(error))
    raise ValueError(
        f"{UNCALLED}it takes no rows of numbers ({errors[0]}), nor with labels as its last argument "
        f"({errors[1]}): say how with example(…)"
    )


def _run(path, seed, memory, find, *words):
    """Check the file in this process, within so many bytes, and print what is found, a line of JSON for each check.

    `find` names the function that finds the checks of a module, as "module:function", and `words` are its further
    arguments. What the file itself prints goes where errors go.
    """
    module, _, function = find.partition(":")
    find = getattr(importlib.import_module(module), function)
    found = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.platform != "win32":
        import resource

        if sys.platform != "darwin":  # macOS refuses this limit
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))

    def tell(**what):
        print(json.dumps(what), file=found, flush=True)

    for name, check in find(_imported(Path(path).resolve()), seed, *words):
        tell(begins=name)
        try:
            report = check()
            tell(check={"name": name, **report.as_dict()})
            for fact in report.facts:
                if fact.startswith("not checked: "):
                    tell(not_checked=f"{name}: {fact.removeprefix('not checked: ')}")
        except NotCheckedError as why:
            tell(not_checked=f"{name}: {why}")
    tell(ends=True)


def _imported(path):
    """Import a file as a module of a package, so that it finds what lies beside it in every way."""
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(path.parent)]
    sys.modules[PACKAGE] = package
    name = f"{PACKAGE}.{path.stem.replace('.', '_')}"  # a dot would begin the name of a module inside
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    setattr(package, path.stem, module)
    spec.loader.exec_module(module)
    return module


# In the process that marks


def mark(path, seed=0, seconds=60.0, memory=4 << 30, waiting=None, checks=OF_HOMEWORK):
    """Check a file in a process of its own, and return a dict with "file", "checks", "not_checked" and "reason".

    In "printed" there is the end of what the file has printed, if it did finish.

    path      is the file, whose name ends in .py. It runs in its own folder.
    seed      is that of all checks.
    seconds   is how long it may take, and memory how many bytes. A file that takes more, that ends the process or
              raises an error while it is imported did not finish, and "reason" says why; otherwise it is "". The checks
              that were finished before are kept. This keeps one file from harming another by accident. It is no guard
              against a file that wants to cheat.
    waiting   is a function that is called every half second, with the seconds that have gone by; None unless given.
    checks    says what is checked: the function that finds the checks of a module, as "module:function", and then words
              that it takes after the module and the seed. It is `checks_of` unless given.
    """
    words = [sys.executable, "-c", RUN, str(Path(path).resolve()), str(seed), str(memory), *checks]
    root = str(Path(__file__).parents[2])  # and not the folder that lies open, where a file may be called as ours are
    roots = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    output = {"PYTHONIOENCODING": "utf-8:backslashreplace"}  # so that a file may print anything on any system
    environment = {**os.environ, **threads, **output, "PYTHONPATH": roots, "PYTHONSAFEPATH": "1"}
    begun = time.monotonic()
    with tempfile.TemporaryFile() as found, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=found, stderr=log, env=environment, start_new_session=True
        )
        try:
            code = _code_of(process, begun, seconds, waiting)
        finally:
            _end(process)
        printed = log.seek(0, os.SEEK_END)
        log.seek(max(printed - 4000, 0))
        found.seek(0)
        lines, unread = _lines(found.read())
        said = log.read()
        reason = unread or ("" if "ends" in lines[-1] else _reason(code, said, seconds, memory))
        if printed >= FILE_SIZE:
            reason = f"did not finish: it prints more than {FILE_SIZE >> 20} MiB"
        if reason and "begins" in lines[-1]:
            reason += f", in the check of {lines[-1]['begins']}"
    return {
        "file": str(path),
        "reason": reason,
        "checks": [line["check"] for line in lines if "check" in line],
        "not_checked": [line["not_checked"] for line in lines if "not_checked" in line],
        "printed": "" if reason else "…" * (printed > len(said)) + said.decode(errors="replace"),
        "seconds": round(time.monotonic() - begun, 2),
    }


def _code_of(process, begun, seconds, waiting):
    """Wait for a process that may take so many seconds, and return its exit code, or None if it takes longer."""
    while (since := time.monotonic() - begun) < seconds:
        try:
            return process.wait(min(0.5, seconds - since))
        except subprocess.TimeoutExpired:
            if waiting is not None:
                waiting(time.monotonic() - begun)
    return process.poll()


def _lines(text):
    """Return the lines of JSON that a process has printed, with one at least, and what is wrong with them, or ""."""
    lines = [{}]
    for line in text.splitlines():
        try:
            one = json.loads(line)
            if "check" in one:
                as_text({"file": "", "reason": "", "checks": [one["check"]], "not_checked": []})
            lines.append({**one})
        except (ValueError, TypeError, LookupError, AttributeError):
            return lines, "did not finish: the file has written where the result of its checks is kept"
    return lines, ""


def _end(process):
    """Kill a process, and what it has begun."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
    process.wait()


def _reason(code, log, seconds, memory):
    """Return why a process ended without a result."""
    if code is None:
        return f"did not finish: it takes more than {seconds:g} s"
    lines = log.decode(errors="replace").strip().splitlines()
    if lines and lines[-1].startswith("MemoryError"):
        return f"did not finish: it takes more than {memory / 2**30:.3g} GiB"
    if code < 0:
        return f"did not finish: it was ended by signal {-code}"
    if code == 0 or not lines or "Error" not in lines[-1]:
        return f"did not finish: it ends the process, with exit code {code}"
    where = re.fullmatch(
        r'  File ".*[/\\](.*)", line (\d+).*', next((x for x in reversed(lines) if x.startswith("  File")), "")
    )
    return f"did not finish: {lines[-1][:300]}" + (f" ({where[1]}, line {where[2]})" if where else "")


def passed(marked):
    """Say whether a file had something to check, and all of it passed."""
    return bool(marked["checks"]) and not marked["reason"] and all(check["passed"] for check in marked["checks"])


def is_uncalled(marked):
    """Say whether nothing in a file is wrong, as far as it could be called, and something could not be."""
    rows = [row for check in marked["checks"] for row in check["rows"] if not row["passed"]]
    return (
        bool(rows)
        and not marked["reason"]
        and all(row["notes"][:1] and row["notes"][0].startswith(UNCALLED) for row in rows)
    )


def is_empty(marked):
    """Say whether a file that did finish had nothing to check."""
    return not marked["checks"] and not marked["reason"]


def faults(marked):
    """Return what is wrong in a file: why it did not finish, and "name: sentence" for each row that failed, with its
    first sentence."""
    if is_empty(marked):
        return ["nothing to check: no class with forward and backward, no density, no loss with params and grads"]
    rows = [row for check in marked["checks"] for row in check["rows"] if not row["passed"]]
    wrong = [f"{row['name']}: {row['notes'][0] if row['notes'] else 'wrong'}" for row in rows]
    return [marked["reason"]] * bool(marked["reason"]) + wrong


def as_text(marked):
    """Return the reports of a file as text."""
    lines = [f"{marked['file']}"]
    for check in marked["checks"]:
        rows = [Row(**{**row, "notes": tuple(row["notes"])}) for row in check["rows"]]
        lines += ["", check["name"], table(rows, check["facts"])]
    lines += faults(marked) if is_empty(marked) else [marked["reason"]] * bool(marked["reason"])
    return "\n".join([*lines, *(f"not checked: {line}" for line in marked["not_checked"])])
