"""The backends NumPy and CuPy: where arrays lie and how they are moved. This is the only file that imports cupy.

The mathematics is written once, in `np.` calls. NumPy hands a call on CuPy arrays over to CuPy (NumPy Enhancement
Proposals 13 and 18). A model is therefore on the device because its parameters are, and only code that creates an array
or moves one asks for a backend. No array is moved silently: an array on the other backend is refused, and `move` brings
it over. `backend` is "numpy" or "cupy" everywhere.
"""

import contextlib
import ctypes
import functools
import math
import os
import sys
import types

import numpy as np

BACKENDS = ("numpy", "cupy")
ALL_THREADS_FROM = 20_000_000  # multiply-adds in the largest product of a step: benchmarks/results/threads.json


def array_module(backend):
    """Return the module numpy or cupy.

    Another name than "numpy" and "cupy" raises a ValueError. So does "cupy" where a part of it is missing; the message
    says which part, and how to install it. And so does a SCRATCHVAE_FUSE in the environment that is neither 0 nor 1.
    """
    if os.environ.get("SCRATCHVAE_FUSE", "") not in ("", "0", "1"):
        value = os.environ["SCRATCHVAE_FUSE"]
        raise ValueError(f"SCRATCHVAE_FUSE is {value!r}; expected 1, or 0 or nothing, which is the default")
    if backend == "numpy":
        return np
    if backend != "cupy":
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
    try:
        import cupy
    except ImportError as error:
        raise _missing(
            f"the package ({error})",
            'pip install -e ".[cuda13]", or ".[cuda12]": nvidia-smi prints the CUDA version of your driver',
        ) from None
    _complete(cupy)
    return cupy


@functools.cache
def keep_freed_memory():
    """Let the C library keep up to 1 GiB of what a training step frees for the next one, in the whole process.

    By default glibc may give the end of the heap back to the system at the end of a step, and ask for it again in the
    next, page by page. Whether it does depends on the order of allocations. What it then costs is the row "memory given
    back" in benchmarks/results/peers.json. Where the C library has no mallopt, nothing is done; nor is anything done in
    later calls.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: arrays up to 32 MiB, the largest value, come from the heap
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: the heap keeps up to 1 GiB at its end


def cores():
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def blas_threads(largest):
    """Return how many threads BLAS should take in a training step whose largest matrix product has this size.

    `largest` counts multiply-adds: M times the largest n_in x n_out of the affine maps, for instance 100 x 784 x 500.
    Below ALL_THREADS_FROM the answer is one thread. On two quiet cores a second thread saves nothing up to 4 million
    multiply-adds and at most 17 % of a step up to 20 million; where another program takes a core, OpenBLAS's threads
    wait for each other in every product, and a step takes up to ten times as long (`python benchmarks/threads.py`, also
    with --busy). From there on the answer is as many threads as BLAS takes by itself, which OPENBLAS_NUM_THREADS and
    the like can limit.
    None is returned where threadpoolctl finds no BLAS whose threads can be set.

    `scratchvae train` trains with this number. `fit` does not: whoever calls it keeps the setting of the process, and
    may write `with threadpoolctl.threadpool_limits(blas_threads(100 * 784 * 500), "blas"): fit(...)`. On the device
    BLAS has nothing to do.
    """
    from threadpoolctl import threadpool_info

    available = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    if not available:
        return None
    return 1 if largest < ALL_THREADS_FROM else max(available)


def kind(array):
    """Return "cupy" for an array on the device, "numpy" for one in host memory, and the type's name for all else."""
    module = type(array).__module__.partition(".")[0]
    return module if module in BACKENDS else type(array).__name__


def move(array, backend):
    """Return `array` on `backend`: the array itself if it lies there, and otherwise a copy.

    A copy from the device waits for all work there. What is no array, and a backend that is not there, raise a
    ValueError.
    """
    if kind(array) == backend:
        return array
    if kind(array) not in BACKENDS:
        raise ValueError(f"{kind(array)} is no array; expected one of {' or '.join(BACKENDS)}")
    return array.get() if backend == "numpy" else array_module(backend).asarray(array)


def plain(name, value):
    """Return numbers that a user hands over as a plain NumPy array; this is the gate for all arrays in host memory.

    Lists, arrays of other libraries in host memory, and tables whose columns are numbers become arrays. A ValueError,
    which calls the value `name`, refuses what would lose something on the way: a masked array with masked entries, and
    sparse matrices, texts, dates, complex numbers, records and Python objects such as Decimal.
    """
    if type(value) is np.ndarray and value.dtype.kind in "fiub":
        return value
    expected = "expected an array of real numbers"
    if any(np.ma.is_masked(part) for part in (value if isinstance(value, list | tuple) else [value])):
        raise ValueError(f"{name} has masked entries; {expected}: leave those rows out, or fill them in with filled()")
    if hasattr(value, "toarray") or hasattr(value, "todense"):
        raise ValueError(f"{name} is a sparse {type(value).__name__}; {expected}: hand over {name}.toarray()")
    try:
        array = np.asarray(value)
        columns = getattr(value, "dtypes", [])  # of a table; where they differ NumPy makes objects of the numbers
        if array.dtype == object and len(columns) and all(getattr(c, "kind", "O") in "fiub" for c in columns):
            array = value.to_numpy(float)
    except Exception as error:  # every library has its own for what is no array
        reason = " ".join(str(error).split())[:200]
        if "inhomogeneous shape" in reason:
            reason = "its rows differ in length"
        raise ValueError(f"{name} is no array ({type(value).__name__}: {reason}); {expected}") from None
    if array.dtype.kind not in "fiub":
        kinds = {"O": "Python objects", "U": "texts", "S": "texts", "M": "dates", "m": "times", "c": "complex numbers"}
        what = kinds.get(array.dtype.kind, "records")
        raise ValueError(f"{name} holds {what} ({array.dtype}); {expected}, such as np.asarray(..., float) makes")
    return array


def own(name, array, backend):
    """Return `array` if it lies on `backend`, where the model is; in host memory it may be all that `plain` takes.

    An array that lies elsewhere raises a ValueError, which calls it `name` and says how to move it.
    """
    if backend == "numpy" and kind(array) != "cupy":
        return plain(name, array)
    if kind(array) == backend:
        return array
    raise ValueError(
        f"{name} is a {kind(array)} array and the model's are {backend}: "
        f"nothing is moved silently; scratchvae.backend.move({name}, {backend!r}) does it"
    )


def writable(value):
    """Return `value` itself, or a copy of an array in host memory that is read-only, as from a memory map."""
    return np.array(value) if kind(value) == "numpy" and not value.flags.writeable else value


class Fusing:
    """Whether functions that are `fused` become one kernel on the device: SCRATCHVAE_FUSE=1 says so for a process."""

    on = os.environ.get("SCRATCHVAE_FUSE") == "1"


@contextlib.contextmanager
def fusing(on=True):
    """Let functions that are `fused` become one kernel on the device inside `with`, or with on=False not."""
    before = Fusing.on
    Fusing.on = on
    try:
        yield
    finally:
        Fusing.on = before


def fused(function):
    """Let a function become one kernel on the device, by cupy.fuse, where `fusing` is on; elsewhere it is as it is.

    By default that is off. A step of the paper's size puts some ninety small kernels in the device's queue, and half of
    them go away by this. Whether that saves time on a device has not been measured yet; SCRATCHVAE_FUSE=1 in the
    environment, or `fusing`, which holds for the whole process and all its threads, lets one try it. Where a compiler
    contracts a product and a sum, the results differ from those of single operations by rounding.

    The function's text is the same for both. Its lines work element by element, with operators and functions of `np`,
    and the last one may sum over an axis. It knows no shapes, takes no slices and makes no products. All that it
    returns has the shape of its arguments broadcast together, or of their sum. Its arguments are arrays and numbers;
    keywords are settings, such as a dtype, and each value of them makes a kernel of its own. Numbers meet arrays in it
    and never one another, since cupy.fuse would compute that in float16.
    """
    if function.__defaults__ or function.__kwdefaults__ or function.__closure__:
        raise TypeError(f"{function.__name__} has defaults or names of a function around it: fused they would get lost")
    kernels = {}

    @functools.wraps(function)
    def called(*arguments, **settings):
        on_device = [value for value in arguments if kind(value) == "cupy"] if Fusing.on else []
        if not on_device:
            return function(*arguments, **settings)
        cupy = sys.modules["cupy"]  # it is there, since its arrays are
        key = cupy, function.__code__, tuple(settings.items())
        if key not in kernels:
            names = {**function.__globals__, "np": cupy}  # cupy.fuse follows the functions of cupy, and not NumPy's
            text = types.FunctionType(function.__code__, names, function.__name__)
            if settings:
                text = functools.update_wrapper(functools.partial(text, **settings), text)
            kernels[key] = cupy.fuse()(text)
        watching = getattr(on_device[0], "recorder", None)  # while a profile is made
        if watching is None:
            return kernels[key](*arguments)
        return watching.one_call(kernels[key], arguments, name=f"fused {function.__name__}")

    return called


def free_memory(backend):
    """Return how many bytes a new array may take on the device, CuPy's own cache included; None for host memory."""
    if backend == "numpy":
        return None
    cupy = array_module(backend)
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def require_memory(n_bytes, backend, what="this job"):
    """Raise a MemoryError, saying how much `what` needs and how much there is, if n_bytes have no room on `backend`.

    On the device it is the free memory that counts, on the host all that the machine has.
    """
    free = free_memory(backend)
    if free is not None and n_bytes > free:
        raise MemoryError(
            f"{what} needs about {n_bytes / 2**20:,.0f} MiB of device memory and {free / 2**20:,.0f} MiB are free: "
            "take a smaller batch_size or model, or backend 'numpy'"
        )
    if free is None and n_bytes > (there := host_memory()):
        raise MemoryError(
            f"{what} needs about {n_bytes / 2**20:,.0f} MiB of memory and this machine has {there / 2**20:,.0f} MiB: "
            "take a smaller model"
        )


def host_memory():
    """Return how many bytes of memory the machine has; infinity where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def take_device(number, n_processes):
    """Let this process work on device `number`, one of as many as there are processes on this machine.

    A ValueError says so where there are fewer devices than processes.
    """
    cupy = array_module("cupy")
    there = cupy.cuda.runtime.getDeviceCount()
    if there < n_processes:
        raise ValueError(
            f"{n_processes} ranks on this machine need a device each, and there {'is' if there == 1 else 'are'} "
            f"{there}: start {there} (mpiexec -n), or take backend 'numpy'"
        )
    cupy.cuda.Device(number).use()


def between_devices(ranks):
    """Return CuPy's communicator over the devices of all ranks, which sums and sends arrays by NCCL.

    ranks   are those that MPI has started, all of them. A ValueError is raised for others, and where NCCL is missing.
    """
    array_module("cupy")
    if ranks.size != ranks.MPI.COMM_WORLD.Get_size():
        raise ValueError(f"comm has {ranks.size} of the ranks; on backend 'cupy' all of them have to train together")
    try:
        from cupyx.distributed import NCCLBackend

        return NCCLBackend(ranks.size, ranks.rank, use_mpi=True)
    except (ImportError, AttributeError) as error:
        raise _missing(f"NCCL ({error})", "pip install nvidia-nccl-cu13, or nvidia-nccl-cu12") from None


@functools.cache
def _complete(cupy):
    """Raise a ValueError that names what is missing unless CuPy has a driver, a device and its libraries.

    Where nothing is missing, that is found out once in a process.
    """
    driver = cupy.cuda.runtime.driverGetVersion()
    reason = "none is visible"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        devices = 0
        reason = str(error)
    if driver == 0:
        raise _missing("the NVIDIA driver", "install it, and try nvidia-smi")
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    if driver // 1000 < major:
        raise _missing(
            f"a driver that is new enough: this one offers CUDA {driver // 1000}.{driver % 1000 // 10}, and this CuPy "
            f"is made for CUDA {major}",
            f"update the driver, or pip install cupy-cuda{driver // 1000}x in place of cupy-cuda{major}x",
        )
    if devices == 0:
        raise _missing(f"a CUDA device that the driver offers ({reason})", "try nvidia-smi; see CUDA_VISIBLE_DEVICES")
    try:
        one = cupy.ones((2, 2), np.float32)
        cupy.matmul(one + one, one)  # the sum needs NVRTC and its headers, and the product, if not 1 x 1, cuBLAS
    except (MemoryError, cupy.cuda.runtime.CUDARuntimeError) as error:
        raise ValueError(f"the CUDA device cannot be used: {error}; see nvidia-smi, or take backend 'numpy'") from None
    except Exception as error:  # CuPy raises a different class for each library that it does not find or cannot use
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _missing(
            f"the CUDA toolkit's libraries ({first})", f'pip install "cupy-cuda{major}x[ctk]", or install the toolkit'
        ) from None


def _missing(part, remedy):
    """Return the ValueError that says which part of CuPy is missing and how to install it."""
    return ValueError(f"backend 'cupy' is missing {part}: {remedy}; or take backend 'numpy'")
