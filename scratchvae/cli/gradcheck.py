"""scratchvae gradcheck: check every hand-derived gradient of the library, or those in files."""

import contextlib
import sys
from pathlib import Path

from scratchvae.arguments import positive
from scratchvae.backend import BACKENDS
from scratchvae.cli.shared import add_command
from scratchvae.output import Output

EPILOG = """examples:
  scratchvae gradcheck                        every gradient of this library; about a minute
  scratchvae gradcheck my_layers.py           what is in a file of yours
  scratchvae gradcheck homework/ --json       all files of a folder, for a program

What it finds in a file:
  a class with forward(x) and backward(dy); its parameters are W, b and the like, their gradients dW, db
  a function called log_…, …_loss, …_density, nll, mse or the like that returns (value, partial, …)
  loss, params and grads: a function, a dict of arrays, a dict of gradients or a function that returns one

Arguments are tried. Where they do not fit, say which do, in the file:
  from scratchvae.gradcheck import example

  @example(np.ones((5, 4)))
  class Scale: ..."""


def gradcheck(files=(), seed=0, backend="numpy", json=False, seconds=60.0, memory=4.0):
    """Check hand-derived gradients: those of this library, or those in files of your own.

    Without FILE every gradient of the library is held against the oracle and against differences. First come the layers
    and the densities, array by array. Then comes a line for each model of the matrix objective x posterior x likelihood
    x network x θ: the largest error of its arrays, or the reason why it is refused. `seed` is that of inputs,
    parameters and noise, and `backend` the one whose arithmetic is checked. The exit code is 1 if a gradient fails; the
    arrays of a model that fails are all printed.

    In a FILE these are checked: classes with forward and backward; functions that return a value and its partials and
    are called log_…, …_loss, …_density, nll, mse or the like; and loss, params and grads, under these names or as
    loss_mlp, params_mlp and grads_mlp. They are called with arguments that are tried; where these do not fit,
    @scratchvae.gradcheck.example(x) before a layer, a density, or a function that makes a layer, says which do. What is
    wrong is said in words. Each file runs in a process of its own, for `seconds` and
    with `memory` GiB at most. Several files are a table of files by faults; a folder stands for all files *.py in it
    and in the folders below it. The exit code is 1 if a gradient is wrong, if a file did not finish, and if a file that
    was named holds nothing to check; a file of a folder may hold nothing, as a helper does.
    """
    if json and not files:
        raise ValueError("--json needs a FILE; expected a file or a folder whose checks are printed as JSON")
    if files:
        return _files(files, seed, json, seconds, memory)
    return _library(seed, backend)


def _files(files, seed, as_json, seconds, memory):
    """Check files, print what is found, and return the exit code."""
    import json

    from scratchvae.gradcheck.homework import as_text, faults, is_empty, is_uncalled, mark, passed

    seconds = positive("--seconds", seconds)
    memory = positive("--memory", memory)
    named = [Path(name) for name in files]
    paths = [path for one in named for path in _in(one)]
    several = len(paths) > 1
    width = max(len(str(path)) for path in paths)
    if several and not as_json:
        print(f"{'file':<{width}}  checked  failed  faults")
    results = []
    empty = 0
    for path in paths:
        with _clock(path, seconds) as show:
            marked = mark(path, seed, seconds, round(memory * 2**30), show)
        results.append(marked)
        empty += is_empty(marked) and path not in named
        if as_json:
            continue
        if not several:
            print(as_text(marked))
            continue
        failed = sum(not check["passed"] for check in marked["checks"])
        found = faults(marked) if not passed(marked) else []
        found += [f"not checked: {what}" for what in marked["not_checked"]]
        print(f"{path!s:<{width}}  {len(marked['checks']):7d}  {failed:6d}  {'; '.join(found)}", flush=True)
    good = sum(passed(marked) for marked in results)
    all_good = 0 < good == len(results) - empty
    if as_json:
        print(json.dumps({"passed": all_good, "files": results}, indent=1))
    elif several:
        uncalled = sum(map(is_uncalled, results))
        print(
            f"{good} of {len(results) - empty} files pass"
            + f"; {uncalled} could not be called and may be right: see what is said of them" * bool(uncalled)
            + f"; {empty} more with nothing to check" * bool(empty)
        )
    return 0 if all_good else 1


@contextlib.contextmanager
def _clock(path, seconds):
    """Yield a function that shows for how long a file has been running, from two seconds on; None off a terminal."""
    stream = sys.stderr
    if stream is None or getattr(stream, "closed", False) or not stream.isatty():
        yield None
        return
    terminal = Output(stream)

    def show(since):
        if since >= 2:
            terminal.write(f"\r{path}: {since:.0f} s, and may take {seconds:g} s")
            terminal.flush()

    yield show
    terminal.write("\r\x1b[K")
    terminal.flush()


def _in(path):
    """Return the files *.py that a path stands for: itself, or those in a folder and below, hidden ones left out."""
    if path.is_dir():
        inside = [one for one in sorted(path.rglob("*.py")) if not _is_hidden(one.relative_to(path))]
    else:
        inside = [path] if path.is_file() and path.suffix == ".py" else []
    if not inside:
        raise ValueError(f"{path} is no file *.py, and no folder with files *.py in it; expected one of these")
    return inside


def _is_hidden(path):
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _library(seed, backend):
    """Check the library's own gradients, print what is found, and return the exit code."""
    from scratchvae.gradcheck.check import RTOL, RTOL_ORACLE
    from scratchvae.gradcheck.matrix import check_matrix, check_parts, summary

    print(
        "relative errors ‖ours - theirs‖ / ‖theirs‖, float64; to pass: "
        f"oracle ≤ {RTOL_ORACLE['float64']:.0e}, and differences ≤ {RTOL['float64']:.0e} of the largest entry"
    )
    failed = 0
    total = 0
    allowed = 0
    refused = 0
    for title, report in check_parts(seed, backend):
        print(f"\n{title}\n{report}")
        failed += sum(not row.passed for row in report)
        total += len(report)
    print(f"\nobjective | posterior | likelihood | network | θ{'':<27}arrays   oracle  differences")
    for model, report in check_matrix(seed, backend):
        if isinstance(report, str):
            print(f"{model:<76} refused: {report}")
            refused += 1
            continue
        print(f"{model:<76} {summary(report)}", flush=True)
        if not report:
            print(report)
        failed += sum(not row.passed for row in report)
        total += len(report)
        allowed += 1
    print(f"\n{allowed} models checked, {refused} refused")
    print(f"{total - failed} of {total} pass" + (f", {failed} FAIL" if failed else ""))
    return 1 if failed else 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(
        commands, gradcheck, "check the gradients of the library, or of a file of your own", "[FILE ...]", epilog=EPILOG
    )
    p.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="a Python file, or a folder of them, whose layers, densities and losses are checked; without: the library",
    )
    p.add_argument("--seed", type=int, help="the seed of inputs, parameters and noise (0)")
    p.add_argument("--backend", choices=BACKENDS, help="the backend whose arithmetic to check, without FILE (numpy)")
    p.add_argument("--json", action="store_true", help="print what is found in the files as JSON")
    p.add_argument("--seconds", type=float, help="how long a file may take (60)")
    p.add_argument("--memory", type=float, metavar="GIB", help="how many GiB of memory a file may take (4)")
