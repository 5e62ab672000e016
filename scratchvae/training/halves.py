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
        middle = (start + stop) // 2 // 16 * 16  # no cache line belongs to both
        if stop - start < LONG or params.backend != "numpy":
            return ascend(self, params, step, part)
        try:
            other = second_core()(ascend, self, params, step, slice(middle, stop))
        except (OSError, RuntimeError):  # there is none, it may not be chosen, or the interpreter is about to end
            return ascend(self, params, step, part)
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
    """A function that starts a call on another core and returns its future, or raises OSError or RuntimeError.

    There is no other core on one CPU, on systems that do not let a thread choose, and where OPENBLAS_NUM_THREADS or
    OMP_NUM_THREADS is 1, which says that one core is all that this process should take.
    """
    if sys.platform != "linux" or "1" in (os.environ.get(f"{name}_NUM_THREADS") for name in ("OPENBLAS", "OMP")):
        return _none
    pool = ThreadPoolExecutor(1, "second-core")
    thread, where = pool.submit(threading.get_native_id).result(), ctypes.CDLL(None).sched_getcpu
    allowed = None

    def start(function, *arguments):
        nonlocal allowed
        others = os.sched_getaffinity(0) - {where()}
        if others != allowed:
            os.sched_setaffinity(thread, others)  # OSError if there are none left
            allowed = others
        return pool.submit(contextvars.copy_context().run, function, *arguments)  # np.errstate is part of the context

    return start


def _none(*call):
    raise OSError("there is no second core to use")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=second_core.cache_clear)  # threads do not survive a fork
