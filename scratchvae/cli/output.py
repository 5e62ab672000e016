"""What the commands print goes through an `Output`, which stops nothing."""

import contextlib
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
