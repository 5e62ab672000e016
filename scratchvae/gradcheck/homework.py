"""Checks what a file has to check, in a process of its own, so that homework is marked with one command.

    scratchvae gradcheck solutions/

What is looked for in a file: classes with `forward` and `backward`; functions that return a value and its partials; and
loss, params and grads under these names, or under names that end alike, as loss_mlp, params_mlp and grads_mlp. A class
is made, and a function called, with arguments that are tried here. Where these do not fit, `example` says which do.
"""

import contextlib
import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from scratchvae.gradcheck.check import check_gradients
from scratchvae.gradcheck.parts import check_density, check_layer
from scratchvae.gradcheck.report import Report, Row, table

M = 4  # rows of the arrays that are tried
D = 5  # and columns
FILE_SIZE = 64 << 20  # bytes that the process of a file may write to a file, what it prints included
TRIPLE = ("loss", "params", "grads")


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


def checks_of(module, seed=0):
    """Yield (name, report) for all that a module has to check; where something cannot be checked, the report says
    why."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    for name, value in own.items():
        if getattr(value, "__module__", None) != module.__name__ or not callable(value):
            continue
        check = _found(value, seed)
        if check is not None:
            yield name, _tried(name, check)
    for ending in sorted({name.removeprefix("loss") for name in own if name.startswith("loss")}):
        if all(f"{part}{ending}" in own for part in TRIPLE):
            loss, params, grads = (own[f"{part}{ending}"] for part in TRIPLE)
            yield (
                f"loss{ending}",
                _tried(f"loss{ending}", functools.partial(check_gradients, loss, params, grads, seed=seed)),
            )


def _tried(name, check):
    """Return the report of a check, or, where it ends in an error, one that says so."""
    try:
        return check()
    except Exception as error:
        return Report([Row(name, False, notes=(f"{type(error).__name__}: {_line(error)}",))])


def _line(error):
    return " ".join(str(error).split())[:300]


def _found(value, seed):
    """Return the check of a layer or a density as a function without arguments, or None for all else."""
    arguments, settings = getattr(value, "gradcheck_example", (None, {}))
    if (
        inspect.isclass(value)
        and callable(getattr(value, "forward", None))
        and callable(getattr(value, "backward", None))
    ):
        return functools.partial(_check_class, value, arguments, settings, seed)
    if not inspect.isfunction(value):
        return None
    if arguments is not None and not _needed(value):
        return lambda: check_layer(value(), *arguments, seed=seed, **settings)
    if arguments is None:
        arguments, settings = _arguments_of_density(value, seed)
    if arguments is None:
        return None
    return lambda: check_density(value, *arguments, seed=seed, **settings)


def _needed(function):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.default is p.empty and p.kind in kinds]


def _check_class(kind, arguments, settings, seed):
    """Check a layer, made without arguments or with the sizes D, 3, 2, … for those that it needs."""
    sizes = [D, 3, 2, 2, 2, 2]
    needed = len(_needed(kind.__init__)) - 1 if "__init__" in vars(kind) else 0
    try:
        layer = kind(*sizes[:needed])
    except Exception as error:
        raise ValueError(
            f"{kind.__name__} cannot be made with the sizes {sizes[:needed]} ({_line(error)}); write a function "
            "without arguments that makes it, and mark it with @scratchvae.gradcheck.example(x)"
        ) from error
    if arguments is not None:
        return check_layer(layer, *arguments, seed=seed, **settings)
    errors = []
    for inputs in _inputs(len(_needed(kind.forward)) - 1, layer, seed):
        try:
            return check_layer(layer, *inputs, seed=seed)
        except Exception as error:
            errors.append(_line(error))
    raise ValueError(
        f"{kind.__name__} takes none of the inputs that were tried ({errors[0]}); say which with example(x)"
    )


def _inputs(count, layer, seed):
    """Yield inputs for a layer: rows of floats, and for a second one floats, labels, or one of D for each row."""
    generator = np.random.default_rng(seed)
    shapes = getattr(layer, "shapes", {})
    width = next((shape[0] for shape in shapes.values() if len(shape) == 2), D)
    x = generator.standard_normal((M, width))
    if count <= 1:
        yield (x,)
        return
    labels = generator.integers(0, width, M)
    for second in (generator.random((M, width)), labels, np.eye(width)[labels]):
        yield (x, second, *(generator.random((M, width)) for _ in range(count - 2)))


def _arguments_of_density(function, seed):
    """Return arguments for a function that returns (value, partial, …) on rows in (0, 1), or None for another
    function."""
    count = len(_needed(function))
    if not count:
        return None, {}
    generator = np.random.default_rng(seed)
    arguments = [0.2 + 0.6 * generator.random((M, D)) for _ in range(count)]
    try:
        found = function(*arguments)
    except Exception:  # it takes something else than rows of numbers
        return None, {}
    if not isinstance(found, tuple | list) or not 2 <= len(found) <= count + 1:
        return None, {}
    partials = [p for p in found[1:] if p is not None]
    if not partials or any(np.shape(p) not in ((M, D), np.shape(found[0])) for p in partials):
        return None, {}
    return arguments, {"skip": count - len(partials)}


def _run(path, out, seed, memory):
    """Check the file in this process, within so many bytes, and write what is found to `out`."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    found = [{"name": name, **report.as_dict()} for name, report in checks_of(module, seed)]
    Path(out).write_text(json.dumps(found))


# In the process that marks


def mark(path, seed=0, seconds=60.0, memory=4 << 30):
    """Check a file in a process of its own, and return a dict with "file", "checks" and "reason".

    path      is the file.
    seed      is that of all checks.
    seconds   is how long it may take, and memory how many bytes. A file that takes more, that ends the process or
              raises an error while it is imported did not finish, and "reason" says why; otherwise it is "".
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        log = Path(folder) / "log"
        words = [sys.executable, "-m", "scratchvae.gradcheck.homework", str(path), str(out), str(seed), str(memory)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        begun = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        checks = json.loads(out.read_text()) if out.exists() else []
        reason = "" if out.exists() else _reason(code, log.read_bytes()[-4000:], seconds, memory)
    return {"file": str(path), "reason": reason, "checks": checks, "seconds": round(time.monotonic() - begun, 2)}


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
    return f"did not finish: {lines[-1][:300]}"


def passed(marked):
    """Say whether a file had something to check, and all of it passed."""
    return bool(marked["checks"]) and all(check["passed"] for check in marked["checks"])


def faults(marked):
    """Return what is wrong in a file: "name: sentence" for each row that failed, with its first sentence."""
    if marked["reason"]:
        return [marked["reason"]]
    if not marked["checks"]:
        return ["nothing to check: no class with forward and backward, no density, no loss with params and grads"]
    rows = [row for check in marked["checks"] for row in check["rows"] if not row["passed"]]
    return [f"{row['name']}: {row['notes'][0] if row['notes'] else 'wrong'}" for row in rows]


def as_text(marked):
    """Return the reports of a file as text."""
    lines = [f"{marked['file']}"]
    for check in marked["checks"]:
        rows = [Row(**{**row, "notes": tuple(row["notes"])}) for row in check["rows"]]
        lines += ["", check["name"], table(rows, check["facts"])]
    return "\n".join(lines if marked["checks"] else [*lines, *faults(marked)])


if __name__ == "__main__":
    _run(*sys.argv[1:3], *map(int, sys.argv[3:]))
