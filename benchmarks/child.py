"""Processes that the benchmarks start, one for each thing that is measured, so that none can take another down."""

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading


class Child:
    """A process in a session of its own that answers in lines; what it prints on stderr is kept for `last_words`.

    words         start it.
    environment   holds its variables.

    In a process that is one of these itself, which SCRATCHVAE_CHILD tells, it stays in that one's group and ends with
    it.
    """

    def __init__(self, words, environment):
        self.leads = "SCRATCHVAE_CHILD" not in os.environ
        environment = environment | {"SCRATCHVAE_CHILD": "1"}
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  `end` closes it
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(words, env=environment, encoding="utf-8", start_new_session=self.leads, **pipes)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, line):
        """Send it a line; one that has ended does not get it."""
        with contextlib.suppress(OSError):
            print(line, file=self.process.stdin, flush=True)

    def line(self, seconds):
        """Return its next line, or None if it has ended; a TimeoutError is raised if none comes in so many seconds."""
        try:
            return self.lines.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            raise TimeoutError(f"no line in {seconds} s") from None

    def said(self):
        """Return what it has printed on stderr."""
        self.log.seek(0)
        return self.log.read().strip()

    def last_words(self):
        """Return the last line of that, and the number of the signal that has ended it, if one did."""
        said = self.said().splitlines()[-1][:300] if self.said() else "it broke off and said nothing"
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.wait(timeout=1) < 0:
                said += f" (ended by signal {-self.process.returncode}, as where memory is out)"
        return said

    def end(self):
        """End it, and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            if self.leads and hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        self.reader.join()
        with contextlib.suppress(OSError):  # a line that it has not read
            self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()
