"""A pass over a long vector in two halves at once, the second on another core.

BLAS uses every core for a matrix product, NumPy one for a pass such as Adagrad's; it lets go of Python's lock in each
operation, so a second thread can take half of the numbers. Which are the same numbers: a pass has no sums.

Between products OpenBLAS's threads do not sleep but ask for work again and again, so the system sees no idle core and
would run our second thread behind the first. It is told to stay off that core: without this it gains nothing. What it
gains is a row of benchmarks/results/step.json.
"""

import ctypes
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

LONG = 1 << 18  # numbers: a tenth of a millisecond and more; below, starting the second thread takes as long


def in_halves(ascend, params, step, part):
    """ascend(params, step, part), its two halves at once where that pays: a long vector, and a second core to use."""
    start, stop, _ = part.indices(params.value.size)
    second = second_core() if stop - start >= LONG and type(params.value).__module__ == "numpy" else None
    if second is None:
        return ascend(params, step, part)
    middle = (start + stop) // 2 // 16 * 16  # a cache line is nobody's in part
    other = second(ascend, params, step, slice(middle, stop))
    try:
        ascend(params, step, slice(start, middle))
    finally:
        other.result()


@functools.cache
def second_core():
    """A function that starts a call on another core and returns its future; None where there is no core to be had.

    There is none on one CPU, on systems that do not let a thread choose, and where OPENBLAS_NUM_THREADS or
    OMP_NUM_THREADS is 1, which says that one core is all that this process should take.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
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
        return pool.submit(function, *arguments)

    return start


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=second_core.cache_clear)  # threads do not survive a fork
