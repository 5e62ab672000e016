"""Who may write into a run folder: one process at a time, by a file `claim.json` that it holds while it is at work."""

import contextlib
import json
import os
import secrets
import socket
import time
import weakref
from datetime import datetime
from pathlib import Path

from scratchvae.files import told

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

NAME = "claim.json"
SILENT = 600  # seconds without a heartbeat after which a process on another host may be thought dead
FAR = 1 << 30  # the byte that is locked on Windows, where nobody can read a byte that is locked

_held = weakref.WeakSet()


class Claim:
    """The right to write into a folder. `acquire` takes it or says who has it, and `release` gives it back.

    `claim.json` holds the host, the process, when it began, and a word of its own; the time at which the file was last
    touched is the heartbeat. While the process lives it also holds a lock of the operating system on the file. So on
    one host a claim whose lock is free belongs to a process that has died, and is taken over at once. A lock may not
    reach from one host to another. The claim of another host is therefore taken over only where its heartbeat is ten
    minutes old and take_over is True.

    folder      is the Path of the run folder, which is made if it is not there.
    take_over   says that the process on the other host is known to be dead; False unless given.
    """

    def __init__(self, folder, take_over=False):
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self.take_over = take_over
        self.file = None

    def require_free(self):
        """Raise the ValueError of `acquire` where another process has the claim; nothing is taken or written.

        What this process holds itself is refused too.
        """
        try:
            file = open(self.path, "r+b")  # noqa: SIM115  it is closed below
        except OSError:  # there is none, or `acquire` says why it cannot be had
            return
        with file:
            locked = _lock(file)
            holder = _holder(file)
            if locked is False or self._lives(holder, locked):
                raise ValueError(self._refusal(holder))

    def acquire(self):
        """Take the claim; a ValueError names the process that has it, and since when.

        If the folder cannot be written to, an OSError says why.
        """
        try:
            self._acquire()
        except OSError as error:
            raise told(error, f"{self.folder} cannot be written to ({error.strerror or error})") from error

    def _acquire(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(self.path, "a+b")  # noqa: SIM115  it is held until `release`
            try:
                locked = _lock(file)
                holder = _holder(file)
                if locked is False or self._lives(holder, locked):
                    raise ValueError(self._refusal(holder))
                if holder is None and not _may_be_ours(file):
                    raise ValueError(f"{self.path} was not put there by a run: choose another folder (out, --out)")
                if _is_at(file, self.path):  # else whoever had it has removed the file meanwhile: open the new one
                    break
            except BaseException:
                file.close()
                raise
            file.close()
        began = datetime.now().astimezone().isoformat(timespec="seconds")
        ours = {"host": socket.gethostname(), "process": os.getpid(), "since": began, "word": secrets.token_hex(8)}
        self.text = json.dumps(ours).encode()
        try:
            file.truncate(0)
            file.write(self.text)
            file.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # it flushes again
                file.close()
            raise
        self.file = file
        _held.add(self)

    def beat(self):
        """Say that this process is alive; a ValueError is raised if another one has taken the claim over meanwhile."""
        if not _is_at(self.file, self.path) or self.path.read_bytes() != self.text:
            with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
                if holder := _holder(file):
                    raise ValueError(f"{self.folder} is no longer this run's: {_who(holder)} has taken it over")
            raise ValueError(f"{self.folder} is no longer this run's: its claim.json was removed or changed")
        with contextlib.suppress(OSError):  # a heartbeat that is missed is no reason to stop
            os.utime(self.path)

    def release(self):
        """Give the claim back and remove the file."""
        if self.file is None:
            return
        if _is_at(self.file, self.path):
            if fcntl is None:
                self.file.close()  # Windows removes no file that is open
            with contextlib.suppress(OSError):  # a claim that nobody holds is in nobody's way
                self.path.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self):
        self.file.close()
        self.file = None
        _held.discard(self)

    def _lives(self, holder, locked):
        """Whether the process that `holder` tells of must be thought alive, although its lock is not seen."""
        if holder is None:
            return False
        if holder["host"] != socket.gethostname():
            return not (self.take_over and _silence(self.path) > SILENT)
        return locked is None and _runs(holder["process"])  # this file system has no locks

    def _refusal(self, holder):
        if holder is None:
            return f"{self.folder} is in use by a process that has just begun: wait for it, or choose another folder"
        text = f"{self.folder} is in use: {_who(holder)} has written to it since {holder['since']}"
        if holder["host"] == socket.gethostname():
            return f"{text}; wait for it, or choose another folder"
        silence = _silence(self.path)
        if silence <= SILENT:
            return f"{text}, and was last heard of {silence:.0f} s ago; wait for it, or choose another folder"
        return (
            f"{text}, and was last heard of {silence / 60:.0f} minutes ago: if it is dead, take the folder over "
            "(--take-over, take_over=True)"
        )


def _lock(file):
    """Lock the file without waiting: True if it is ours now, False if another has it, None where there are no locks."""
    try:
        if fcntl is None:
            file.seek(FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None


def _holder(file):
    """What a claim says of its holder, or None where it says nothing that can be read."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return holder if {"host", "process", "since"} <= holder.keys() else None
    except (ValueError, AttributeError, RecursionError):
        return None


def _may_be_ours(file):
    """Whether what cannot be read may be a claim all the same, one that was cut short; then it is of no use."""
    file.seek(0)
    text = file.read().strip(b"\0")
    return not text or text.startswith(b'{"host":')


def _who(holder):
    return f"process {holder['process']} on {holder['host']}"


def _silence(path):
    """How many seconds ago the heartbeat was."""
    return time.time() - path.stat().st_mtime


def _runs(process):
    """Whether a process with this number runs on this host, which is a POSIX one."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError, TypeError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _is_at(file, path):
    """Whether `path` is the name of this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _forget():
    """Leave the claims to the parent, in a forked process. Its file stays locked when the child closes it."""
    for claim in list(_held):
        claim._let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
