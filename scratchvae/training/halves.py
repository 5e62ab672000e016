"""A pass over a long vector in two halves at once, the second on another core.

BLAS uses every core for a matrix product, NumPy one for a pass such as Adagrad's; it lets go of Python's lock in each
operation, so a second thread can take half of the numbers. They are the same numbers, since a pass has no sums.

Between products OpenBLAS's threads do not sleep but ask for work again and again, so the system sees no idle core and
would run our second thread behind the first. It is told to stay off that core: without this it gains nothing. What it
gains is a row of benchmarks/results/peers.json, "update on one core".
"""

import contextvars
import ctypes
import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

LONG = 1 << 18  # numbers: a tenth of a millisecond and more; below, starting the second thread takes as long


def in_halves(ascend):
    """Decorates an optimiser's `ascend(self, params, step, part)`: its two halves run at once where that pays.

    It pays on a long vector in host memory if there is a second core to use. Only for updates that treat every number
    by itself: one that looks at a norm, say, must see its whole part.
    """

    @functools.wraps(ascend)
    def ascend_in_halves(self, params, step, part=slice(None)):
        start, stop, _ = part.indices(params.value.size)
        second = second_core() if stop - start >= LONG and params.backend == "numpy" else None
        if second is None:
            return ascend(self, params, step, part)
        middle = (start + stop) // 2 // 16 * 16  # no cache line belongs to both
        other = second(ascend, self, params, step, slice(middle, stop))
        try:
            ascend(self, params, step, slice(start, middle))
        finally:
            begun = not other.cancel()
            if begun:
                other.result()
        if not begun:  # the other core was busy with somebody else's work all the while
            ascend(self, params, step, slice(middle, stop))

    return ascend_in_halves


@functools.cache
def second_core():
    """A function that starts a call on another core and returns its future; None where there is no core to be had.

    There is none on one CPU, on systems that do not let a thread choose, and where OPENBLAS_NUM_THREADS or
    OMP_NUM_THREADS is 1, which says that one core is all that this process should take.
    """
    cpus = os.sched_getaffinity(0) if sys.platform == "linux" else ()
    if len(cpus) < 2 or "1" in (os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS")):
        return None
    pool = ThreadPoolExecutor(1, "second-core")
    thread, where = pool.submit(threading.get_native_id).result(), ctypes.CDLL(None).sched_getcpu
    avoided = None

    def start(function, *arguments):
        nonlocal avoided
        if (here := where()) != avoided:
            os.sched_setaffinity(thread, cpus - {here})
            avoided = here
        return pool.submit(contextvars.copy_context().run, function, *arguments)  # np.errstate is part of the context

    return start


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=second_core.cache_clear)  # threads do not survive a fork
