"""What the benchmarks share: the folder for their numbers, how these get there, and how ranks of MPI take turns."""

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from scratchvae.training.checkpoint import write_atomically


def prepare(parser, folder):
    """Make the folder and try whether it takes a file; if not, `parser` says so in one line and ends the program."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"nothing can be written to {folder} ({error.strerror}): choose another folder")


def write(path, result):
    """Write what was measured as JSON, so that older numbers stay whole where the disk has no room."""
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")


@contextlib.contextmanager
def stand_in():
    """Let `import cupy` find the stand-in of the tests inside, and give that module: it runs, and is no device."""
    standin = of_tests("standin")
    with mock.patch.dict(sys.modules, standin.modules()):
        yield standin


def stand_in_if_asked():
    """Do the same for the whole process if SCRATCHVAE_STAND_IN is set, as device.py --stand-in sets it."""
    if os.environ.get("SCRATCHVAE_STAND_IN"):
        sys.modules.update(of_tests("standin").modules())


def of_tests(name):
    """A module in tests/ of this checkout, such as standin."""
    tests = str(Path(__file__).resolve().parent.parent / "tests")
    sys.path.insert(0, tests)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(tests)


def mpiexec():
    """The mpiexec of this Python's environment, or another one that is found, or None."""
    here = str(Path(sys.executable).parent)
    return shutil.which("mpiexec", path=os.pathsep.join([here, os.environ.get("PATH", "")]))


def turns(comm=None):
    """Give every line that comes in on stdin, on every rank of a communicator of mpi4py if there is one.

    A rank that waits for MPI keeps its core busy, and would slow whoever's turn it is. So the ranks sleep until the
    first of them, which alone has stdin, has a line for them.
    """
    if comm is None or comm.rank == 0:
        for line in sys.stdin:
            for rank in range(1, 1 if comm is None else comm.size):
                comm.send(line, rank)
            yield line
        for rank in range(1, 1 if comm is None else comm.size):
            comm.send("", rank)
        return
    while True:
        while not comm.iprobe(source=0):
            time.sleep(0.001)
        line = comm.recv(source=0)
        if not line:
            return
        yield line
