"""The ranks of MPI: processes that share the rows of a minibatch or of a data set, and meet to say how they stand.

Ranks can only wait for each other if each knows that the others will come. Therefore they meet in one way, `meet`,
before they exchange anything. There each says that it goes on, that it was asked to stop, or that it has failed. What
one of them says there, all know: they stop at the same step, and an error on one rank ends all. Whatever may fail is
done before a meeting, and between it and the exchange there is nothing.

Where there are no ranks, `Alone` stands in their place, so that the code that uses them reads the same. mpi4py is
imported by whoever has a communicator, and by nobody else.
"""

import dataclasses
import hashlib
import json
import math
import mmap
import os
import platform
import shutil
import tempfile
import warnings

import numpy as np

from scratchvae.backend import move
from scratchvae.shares import Share, part_of, whole_of
from scratchvae.signals import interruptible, raise_stop

SHARED = "/dev/shm"  # where Linux keeps shared memory
STARTED = (  # how a program that starts ranks tells each of them its number, and how many they are
    ("PMI_RANK", "PMI_SIZE"),  # mpiexec of MPICH, Intel MPI and their kin, and srun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # mpiexec of Open MPI
)
WORDS = 4  # what a rank says at a meeting: a value, a signal, whether it has failed, and whether a checkpoint is due


class RankError(RuntimeError):
    """Is raised where another rank has failed; the message names it and has its error."""


class Alone:
    """A process without others, in the place of `Ranks`: it takes all rows, and waits for nobody."""

    rank = 0
    size = 1
    on_machine = 1
    first = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leave nothing behind."""

    def share(self, m):
        """Return the `Share` of m rows that is all of them."""
        return whole_of(m)

    def meet(self, value=0.0, signals=None, keep=False):
        """Return the value, the first of the signals or 0, and whether a checkpoint is due."""
        return value, signals[0] if signals else 0, keep

    def stop(self, number):
        """Raise KeyboardInterrupt or SystemExit for the signal `number`; 0 is none."""
        raise_stop(number)

    def require_same(self, model, x, /, **facts):
        """There is nobody who could have others."""

    def agree(self, facts):
        """There is nobody who could have others."""

    def shown(self, progress):
        """Return how the progress is shown: as the user wants it."""
        return progress

    def total(self, numbers):
        """Return these numbers, which are their own sums."""
        return numbers

    def gathered(self, rows, n):
        """Return these rows, which are all n of them."""
        return rows

    def first_only(self, function):
        """Return what function() returns."""
        return function()

    def load(self, make):
        """Return what make() makes."""
        return make()


ALONE = Alone()


class Ranks:
    """The ranks of an MPI communicator, each of them a process, as one of them sees them.

    comm           is a communicator of mpi4py, such as `MPI.COMM_WORLD`. It is duplicated, so that no message of the
                   caller's gets in between.
    for_one_call   says that the duplicate is given back at the end of the first `with`, also of one that an error ends;
                   False unless given.

    rank is the number of this one, from 0 on, size is how many there are, and on_machine how many of them are on this
    machine. Inside `with` an error on one rank is told to the others, where it raises a `RankError`. A Ctrl-C, SIGTERM
    or SIGHUP is raised at the next meeting, on all ranks together.
    """

    def __init__(self, comm, for_one_call=False):
        from mpi4py import MPI

        self.MPI = MPI
        self.comm = comm.Dup()
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self.first = self.rank == 0
        self.machine = self.comm.Split_type(MPI.COMM_TYPE_SHARED)  # the ranks on this machine
        self.on_machine = self.machine.Get_size()
        self.said = np.zeros(WORDS)
        self.heard = np.zeros((self.size, WORDS))
        self.for_one_call = for_one_call
        self.signals = []  # those that were noted outside of a training
        self.depth = 0
        self.known = None  # the error of this call that all ranks know of

    def __enter__(self):
        """Note the signals that ask to stop, so that none of them ends a rank between a meeting and its exchange."""
        if self.depth == 0:
            self.noting = interruptible()
            self.signals = self.noting.__enter__()
        self.depth += 1
        self.known = None
        return self

    def __exit__(self, kind, error, trace):
        """Meet a last time, or tell the others of an error that they do not know of."""
        self.depth -= 1
        try:
            if error is not None:
                self.tell(error)
            elif self.depth == 0:  # nobody has left before all are here
                self.meet()
        finally:
            if self.depth == 0:
                if self.for_one_call:
                    self.machine.Free()
                    self.comm.Free()
                self.noting.__exit__(None, None, None)

    def tell(self, error):
        """Tell all ranks of an error on this one, unless they know of it, or of the one that it has come from.

        When this returns, all ranks have left what they were doing. If several have failed, all of them alike where it
        is the user's mistake, the first of them speaks, and a `RankError` is raised on the others.
        """
        if self.known is not None and self.known in _chain(error):
            return
        text = f"{type(error).__name__}: {_text_of(error)}"
        self.known = error
        self._say(failed=True)
        first, text = self._failures(text)
        if first != self.rank:
            self.known = RankError(text)
            raise self.known from error

    def share(self, m):
        """Return the `Share` of this rank in m rows, as even as can be; where there are too few it may be empty."""
        return Share(*part_of(m, self.rank, self.size), m, self.rank, self.size, self.total)

    def meet(self, value=0.0, signals=None, keep=False):
        """Wait for all ranks, and return (sum, stop, keep), which are the same on all of them.

        value     is a number, such as the bound of this rank's rows; 0 unless given. The sum of all values is taken in
                  the order of the ranks.
        signals   lists the signals that have asked this rank to stop. stop is the highest of those of all ranks, and 0
                  if none was asked. Without a list it is for those that `signals` of this object lists, and a stop is
                  raised here, as a KeyboardInterrupt or SystemExit on all ranks.
        keep      says that a checkpoint is due, False unless given. What the first rank says counts.

        If a rank has failed, a `RankError` with its error is raised on the others.
        """
        noted = self.signals if signals is None else signals
        self._say(float(value), noted[0] if noted else 0, False, keep)
        values, stops, failed, keeps = self.heard.T.tolist()
        stop = int(max(stops))
        if any(failed):
            self.known = RankError(self._failures("")[1])
            raise self.known
        if signals is None:
            self.stop(stop)
        return sum(values), stop, bool(keeps[0])

    def stop(self, number):
        """Raise KeyboardInterrupt or SystemExit for the signal `number`, on which all ranks have agreed; 0 is none."""
        try:
            raise_stop(number)
        except BaseException as error:
            self.known = error
            raise

    def _say(self, value=0.0, signal=0, failed=False, keep=False):
        """Tell all ranks how this one stands, and hear how they do."""
        self.said[:] = value, signal, failed, keep
        self.comm.Allgather(self.said, self.heard)

    def _failures(self, text):
        """Return the number of the first rank that has failed, and its error; `text` is this rank's, "" for none."""
        texts = self.comm.allgather(text)
        first = next(rank for rank, text in enumerate(texts) if text)
        return first, f"rank {first} has failed: {texts[first]}"

    def shown(self, progress):
        """Return how the progress is shown: by the first rank, and in lines where mpiexec takes the terminal away."""
        if not self.first:
            return False
        return "lines" if progress is None else progress

    def total(self, numbers):
        """Return the sum over all ranks, in their order, of each of these numbers."""
        numbers = np.array(numbers, float)
        heard = np.zeros((self.size, len(numbers)))
        self.meet()
        self.comm.Allgather(numbers, heard)
        return [sum(of_ranks) for of_ranks in heard.T.tolist()]

    def gathered(self, rows, n):
        """Return all n rows, (n, …), on every rank, from the rows of each rank's `share` of them."""
        rows = np.ascontiguousarray(rows)
        every = np.empty((n, *rows.shape[1:]), rows.dtype)
        width = math.prod(rows.shape[1:])
        ends = [part_of(n, rank, self.size) for rank in range(self.size)]
        places = [width * (stop - start) for start, stop in ends], [width * start for start, _ in ends]
        self.meet()
        self.comm.Allgatherv(rows, [every, places])
        return every

    def first_only(self, function):
        """Call function() on the first rank alone, and return on every rank what it returns there."""
        made = function() if self.first else None
        self.meet()
        return self.comm.bcast(made)

    def load(self, make):
        """Call make() on one rank of each machine, and return on every rank the dataclass that it makes there.

        Its arrays lie once in the memory of the machine, where all its ranks read them and none can write to them.
        """
        leads = self.machine.Get_rank() == 0
        arrays = {}
        rest = None
        if leads:
            made = make()
            arrays = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
            arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
            kinds = {name: (array.shape, array.dtype) for name, array in arrays.items()}
            rest = dataclasses.replace(made, **dict.fromkeys(arrays)), kinds
        self.meet()
        made, kinds = self.machine.bcast(rest)
        shared = {}
        for name, (shape, dtype) in kinds.items():
            memory = self.memory(max(1, math.prod(shape)) * dtype.itemsize)
            array = np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
            if leads:
                array[...] = arrays[name]
            array.flags.writeable = False
            shared[name] = array
        self.meet()  # the arrays are filled
        return dataclasses.replace(made, **shared)

    def memory(self, n_bytes):
        """Return so many bytes, all of them 0, that the ranks of this machine share, as an mmap.

        What a rank has written before a meeting, the others read after it. Between two meetings only one rank writes to
        a place, and no other reads there.

        The file behind it has no name any more when this returns. So the memory lives for as long as an array lies in
        it, and nothing is left behind by ranks that are killed.
        """
        leads = self.machine.Get_rank() == 0
        file, path = _new_file(n_bytes) if leads else (None, None)
        try:
            self.meet()
            path = self.machine.bcast(path)
            if not leads:
                file = os.open(path, os.O_RDWR)
            memory = mmap.mmap(file, n_bytes)
            self.meet()  # all have opened it
        finally:
            if file is not None:
                os.close(file)
            if leads:
                os.unlink(path)
        return memory

    def require_same(self, model, x, /, **facts):
        """Raise a ValueError on all ranks unless they have the same model, the same rows x and the same facts."""
        digest = {"parameters": fingerprint(move(model.params.value, "numpy")), "rows": fingerprint(x)}
        self.agree({"model": model.config} | digest | facts)

    def agree(self, facts):
        """Raise a ValueError on all ranks unless they have the same facts, a dict that JSON can hold."""
        from scratchvae import __version__  # only now: it imports this file

        facts = {"scratchvae": __version__, "numpy": np.__version__, "python": platform.python_version()} | facts
        facts = {name: json.dumps(fact, default=_as_text) for name, fact in _entries(facts).items()}
        self.meet()
        every = self.comm.allgather(facts)
        for rank, theirs in enumerate(every):
            for name in every[0] | theirs:
                if theirs.get(name) != every[0].get(name):
                    raise ValueError(
                        f"rank {rank} has {name} {theirs.get(name)}, and rank 0 {every[0].get(name)}: "
                        "start all ranks with the same options, data and versions"
                    )


def _entries(facts):
    """Return facts with the entries of a dict among them as facts of their own, so that the one that differs is told.

    The entries of "model" {"seed": 0, …} are then called "model seed" and so on.
    """
    entries = {}
    for name, fact in facts.items():
        one = {f"{name} {key}": value for key, value in fact.items()} if isinstance(fact, dict) else {name: fact}
        entries |= one
    return entries


def _as_text(value):
    """Return a path as text, and the class of anything else that JSON does not know: its repr may have an address."""
    return str(value) if isinstance(value, os.PathLike) else type(value).__name__


def _chain(error):
    """Return a list of an error and all that it has come from."""
    found = [error]
    for one in found:  # which grows meanwhile
        found += [other for other in (one.__cause__, one.__context__) if other is not None and other not in found]
    return found


def _text_of(error):
    """Return what an error says, where it can say it."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be made)"


def _new_file(n_bytes):
    """Make a file of so many bytes in memory, and return its number and its path."""
    require_shared_memory(n_bytes)
    file, path = tempfile.mkstemp(prefix="scratchvae-", dir=SHARED if os.path.isdir(SHARED) else None)
    try:
        if hasattr(os, "posix_fallocate"):  # what is not there is missed now, and not when it is written to
            os.posix_fallocate(file, 0, n_bytes)
        else:
            os.ftruncate(file, n_bytes)
    except BaseException:
        os.close(file)
        os.unlink(path)
        raise
    return file, path


def fingerprint(array):
    """Return a SHA-256 of an array with its dtype and shape, by which data are known again; None for None."""
    if array is None:
        return None
    return f"{hashlib.sha256(np.ascontiguousarray(array)).hexdigest()} {array.dtype} {array.shape}"


def require_shared_memory(n_bytes):
    """Raise a MemoryError if the system keeps shared memory in a folder that has no room for n_bytes."""
    if os.path.isdir(SHARED):
        free = shutil.disk_usage(SHARED).free
        if free < n_bytes:
            raise MemoryError(
                f"the ranks of this machine share {n_bytes / 2**20:,.0f} MiB, and {SHARED} has {free / 2**20:,.0f} MiB "
                "free: make it larger (docker run --shm-size), or remove what ended programs have left in it"
            )


def started():
    """Return the number of this rank and how many were started, by what mpiexec has left in the environment.

    A process that nobody has started so is rank 0 of 1.
    """
    for rank, size in STARTED:
        if os.environ.get(rank, "").isdecimal() and os.environ.get(size, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def warn_of_others(comm):
    """Warn where mpiexec has started several processes and this one is to train by itself, without a comm."""
    rank, size = started()
    if comm is None and rank == 0 and size > 1:
        warnings.warn(
            f"mpiexec has started {size} processes, and each of them makes this whole training by itself: pass "
            "comm=MPI.COMM_WORLD to share it, or comm=MPI.COMM_SELF if it is meant",
            stacklevel=3,
        )


def ranks_of(comm):
    """Return the ranks of a communicator of mpi4py. None is this process alone, and ranks stay what they are.

    Anything else raises a ValueError.
    """
    if comm is None:
        return ALONE
    if isinstance(comm, Alone | Ranks):
        return comm
    if hasattr(comm, "Split_type"):
        from mpi4py import MPI

        if isinstance(comm, MPI.Intracomm) and comm != MPI.COMM_NULL:
            return Ranks(comm, for_one_call=True)
    raise ValueError(f"comm is {comm!r}; expected a communicator of mpi4py, such as MPI.COMM_WORLD")
