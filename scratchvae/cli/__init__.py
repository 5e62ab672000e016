"""The command line: one file a command, each with its options beside its function.

This file holds the root of the parser and `main`. To add a command, write a file with its function and with
`add_to(commands)`, which adds the options to the parser, and name the file in COMMANDS. What several commands need is
in `shared.py`, how they choose images in `images.py`, and how they write tables and pictures in `writing.py`.
Matplotlib, SciPy, scikit-learn and autograd are imported where a command uses them, not at the top of a file, so that
`--help` and a mistyped option answer at once.
"""

import argparse
import contextlib
import inspect
import sys
import warnings

from scratchvae import __version__
from scratchvae.cli import (
    bench,
    encode,
    evaluate,
    exercise,
    explore,
    gradcheck,
    plot,
    read,
    reconstruct,
    sample,
    shared,
    train,
)
from scratchvae.cli.output import silence, tolerant
from scratchvae.cli.ranks import ranks_of_command
from scratchvae.cli.shared import ignore_signals
from scratchvae.output import give_up
from scratchvae.ranks import RankError, started

COMMANDS = (  # in the order in which --help lists them
    *(train, evaluate, plot, explore, encode, reconstruct, sample),
    *(gradcheck, exercise, read, bench),
)


def main(argv=None):
    """Run one command and return its exit code. `argv` holds its words; without it they come from the shell.

    Under mpiexec it runs on all ranks. The first of them alone prints what the command prints, and warnings; an error
    is printed by the rank on which it arose.

    The exit code is 0 for success, 1 if gradcheck finds a gradient that fails or an exercise is not solved, 2 for an
    error, which is printed in one line, 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP. Warnings are printed
    in one line each.
    """
    with tolerant() as out:
        try:
            code = _run(argv)
        except KeyboardInterrupt:
            if started()[0] == 0:
                _say_on_stderr("interrupted", begin="\n")
            return 130
        except SystemExit as stop:  # argparse has printed its help, or what is wrong
            if stop.code or _is_written(out):
                raise
            return 2
        return 2 if code == 0 and not _is_written(out) else code


def _is_written(out):
    """Say whether all output was written or nobody waits for it any more; else a line on stderr says why not."""
    if out is None:
        return True
    out.flush()
    if out.error is None or isinstance(out.error, BrokenPipeError):
        return True
    _say_on_stderr(f"error: the output could not be written ({out.error.strerror})")
    return False


def _run(argv):
    """Parse the words and run the command, with one line for each warning and for an error."""
    first = started()[0] == 0
    with contextlib.nullcontext() if first else silence():
        arguments = vars(parser().parse_args(argv))
    command = arguments.pop("command")
    on_ranks = "ranks" in inspect.signature(command).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: _say_on_stderr(f"warning: {message}") if first else None
        try:
            with ranks_of_command(f"scratchvae {command.__name__}", on_ranks) as ranks:
                ranks.agree({"command": command.__name__, "options": arguments})
                if on_ranks:
                    arguments["ranks"] = ranks
                with contextlib.nullcontext() if first else silence(stderr=False):
                    return command(**arguments)
        except RankError:  # the rank that has failed says why
            return 2
        except (ValueError, OSError, FloatingPointError, MemoryError) as error:
            _say_on_stderr(f"error: {' '.join(str(error).split()) or type(error).__name__}")
            return 2


def _say_on_stderr(text, begin=""):
    if sys.stderr is not None:  # print would write to sys.stdout instead
        print(f"{begin}scratchvae: {text}", file=sys.stderr)


def parser():
    """Build the argparse parser of all commands."""
    root = argparse.ArgumentParser(
        prog="scratchvae",
        description="Auto-Encoding Variational Bayes from scratch: NumPy, hand-derived gradients, every one checked.",
        epilog="scratchvae train, with no options, trains on scikit-learn's digits in well under a minute.",
    )
    root.add_argument("--version", action="version", version=f"scratchvae {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return root


def program():
    """Be the program `scratchvae`: run one command and leave with its exit code, even if a signal comes late."""
    shared.is_program = True
    code = 130
    try:
        code = main()
    finally:
        ignore_signals()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except (OSError, ValueError):  # said above
                give_up(stream)
    sys.exit(code)
