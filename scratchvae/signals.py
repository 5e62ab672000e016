"""The signals that ask a run to stop: they are noted, and acted on where nothing is lost."""

import contextlib
import signal
import threading
import time

STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))  # a closed terminal
TOGETHER = 1.0  # seconds after a signal within which another one is taken for the same


@contextlib.contextmanager
def interruptible():
    """Give a list to which the first Ctrl-C, SIGTERM or SIGHUP appends its number.

    Another one within a second of it, from an impatient hand or as a service manager sends them, changes nothing; a
    later one acts as it would outside.
    """
    arrived = []
    before = {}
    first = 0.0

    def note(number, frame):
        nonlocal first
        if not arrived:
            first = time.monotonic()
            arrived.append(number)
        elif time.monotonic() - first > TOGETHER:
            restore()
            signal.raise_signal(number)

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in STOPS}
        before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, note)
    try:
        yield arrived
    finally:
        restore()


def raise_stop(stop):
    """Raise KeyboardInterrupt or SystemExit for the signal with the number `stop`; 0 is none."""
    if stop:
        raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(128 + stop)
