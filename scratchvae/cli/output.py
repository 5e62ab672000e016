"""Output that stops nothing: what a terminal, a file or a closed pipe does not take is left out."""

import contextlib
import os
import sys


class Output:
    """A stream of text like `stream`, to which writing never fails.

    Characters that the encoding of the stream does not have are written as question marks. Where nothing can be written
    any more, as into a pipe whose reader has gone, the rest is dropped; `error` is then the OSError of the first write
    that failed, and None until then. Every line is written at once, so that whoever reads a pipe sees it.
    """

    def __init__(self, stream):
        self.stream = stream
        self.error = None

    def write(self, text):
        """Write text, and return how many characters it has."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding, getattr(self.stream, "errors", None) or "strict")
        except UnicodeEncodeError:
            text = text.encode(encoding, "replace").decode(encoding)
        self._try(self.stream.write, text)
        if text.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self):
        """Write what the stream still holds back."""
        self._try(self.stream.flush)

    def _try(self, write, *text):
        if self.error is None:
            try:
                write(*text)
            except OSError as error:
                self.error = error
                with contextlib.suppress(OSError, ValueError):  # so that nothing fails when the interpreter ends
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name):
        return getattr(self.stream, name)


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
