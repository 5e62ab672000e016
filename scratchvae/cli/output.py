"""What the commands print goes through an `Output`, which stops nothing."""

import contextlib
import io
import sys

from scratchvae.output import Output


@contextlib.contextmanager
def tolerant():
    """Let everything that is printed inside go through an `Output`, and give the one that stands for sys.stdout.

    None is given if there is no sys.stdout, as in a program without a console.
    """
    with contextlib.ExitStack() as stack:
        if sys.stderr is not None:
            stack.enter_context(contextlib.redirect_stderr(Output(sys.stderr)))
        if sys.stdout is None:
            yield None
        else:
            yield stack.enter_context(contextlib.redirect_stdout(Output(sys.stdout)))


@contextlib.contextmanager
def silence(stderr=True):
    """Let nothing be printed inside, as on a rank that is not the first.

    stderr says whether errors are kept back too, True unless given.
    """
    quiet = contextlib.redirect_stderr(io.StringIO()) if stderr else contextlib.nullcontext()
    with contextlib.redirect_stdout(io.StringIO()), quiet:
        yield
