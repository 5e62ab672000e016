"""Output that stops nothing: what a terminal, a file or a closed pipe does not take is left out."""

import contextlib
import os
import sys
import threading
import time
import weakref

from tqdm import tqdm


class Output:
    """A stream of text like `stream`, to which writing never fails.

    Characters that the encoding of the stream does not have are written as question marks. Where nothing can be written
    any more, as into a pipe whose reader has gone, the rest is dropped; a terminal or a pipe that is only full at this
    moment loses no more than what it did not take. `error` is the OSError of the last write that failed, and None until
    one does. Every line is written at once, so that whoever reads a pipe sees it.
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
        if self.error is None or isinstance(self.error, BlockingIOError):
            try:
                write(*text)
            except OSError as error:
                self.error = error
                if isinstance(error, BrokenPipeError):
                    give_up(self.stream)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def give_up(stream):
    """Send what `stream` still holds back nowhere, so that nothing fails when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Bar(tqdm):
    """A progress bar of tqdm that can neither end a run nor stop another one.

    It writes through an `Output`. The lock of tqdm itself is shared with forked processes, of which one that is killed
    would keep it for ever. This one belongs to the process and is renewed in a fork, and an error in between gives it
    back. No thread watches over the bar.
    """

    monitor_interval = 0

    def refresh(self, nolock=False, lock_args=None):
        """Draw the bar anew."""
        with self.get_lock():
            return super().refresh(nolock=True)


def _renew():
    Bar.set_lock(threading.RLock())
    Bar._instances = weakref.WeakSet()  # which the lock guards


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class NoBar:
    """Stands for a bar where none is to be seen."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leave nothing behind."""

    def update(self, n=1):
        """Show nothing."""

    def set_postfix_str(self, text, refresh=True):
        """Show nothing."""


class Lines(NoBar):
    """Stands for a bar where no terminal could draw it anew: it prints a line now and then.

    The first line comes after FIRST seconds. The next one comes EVERY seconds later, and in a long run when a fiftieth
    more of the time has passed.
    """

    FIRST = 2.0
    EVERY = 10.0

    def __init__(self, total, done, unit, stream):
        self.shown = {"total": total, "initial": done, "unit": unit, "unit_scale": total >= 1000, "ncols": 0}
        self.n = done
        self.text = None
        self.stream = stream
        self.begun = time.monotonic()
        self.due = self.begun + self.FIRST

    def update(self, n=1):
        """Count n more, and print a line if it is time for one."""
        self.n += n
        now = time.monotonic()
        if now >= self.due:
            taken = now - self.begun
            self.due = now + max(self.EVERY, taken / 50)
            print(Bar.format_meter(self.n, elapsed=taken, postfix=self.text, **self.shown).strip(), file=self.stream)

    def set_postfix_str(self, text, refresh=True):
        """Take in what the next line ends with."""
        self.text = text


def progress_bar(total, done, show, unit=" samples", delay=0.0):
    """Return a bar on stderr with the samples evaluated per second.

    show says when it is seen: True is always, False is never, and None is on a terminal only. With "lines" a line is
    printed now and then where there is no terminal. delay is how many seconds pass before a bar is seen, 0 unless
    given.
    """
    stream = sys.stderr  # None in a program without a console
    if stream is None or getattr(stream, "closed", False):
        return NoBar()
    if show == "lines" and not stream.isatty():
        return Lines(total, done, unit, Output(stream))
    if not (stream.isatty() if show is None else show):
        return NoBar()
    return Bar(
        total=total, initial=done, file=Output(stream), miniters=1, unit=unit, unit_scale=total >= 1000, delay=delay
    )
