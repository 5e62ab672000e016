"""NumPy or CuPy: where arrays live, how they get there, and nothing else. The only file that imports cupy.

The mathematics is written once, in `np.` calls: NumPy hands those on CuPy arrays to CuPy (NEP 13, NEP 18). So a model
is on the device because its parameters are, and only what makes an array out of nothing or moves one asks for a
backend. Nothing is moved silently: an array of the other kind is refused, and `move` is how one crosses over.
"""

import ctypes
import functools
import sys

import numpy as np

BACKENDS = ("numpy", "cupy")
ALL_THREADS_FROM = 20_000_000  # multiply-adds; provisional: python benchmarks/threads.py shows where threads gain


def array_module(backend):
    """The module `backend` ("numpy" or "cupy"). ValueError for another name, or if CuPy lacks a part: says which."""
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
    """Let the C library keep up to 1 GiB of what a training step frees for the next one; for the whole process, once.

    As glibc comes, it may give the end of the heap back to the system at the end of a step and ask for it again in the
    next, page by page. Whether it does depends on the order of allocations; what it then costs is a row of
    benchmarks/results/peers.json, "memory given back". Where the C library has no mallopt, nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: arrays up to 32 MiB, the largest it takes, come from the heap
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: and the heap keeps so much at its end


def blas_threads(largest):
    """Return how many threads BLAS should take in a training step whose largest matrix product has this size.

    `largest` counts multiply-adds: M times the largest n_in x n_out of the affine maps, for instance 100 x 784 x 500.
    Below ALL_THREADS_FROM the answer is one thread. More would gain little there, and where another program takes a
    core, OpenBLAS's threads wait for each other in every product, so that a step takes ten times as long and more. From
    there on the answer is as many threads as BLAS takes by itself, which OPENBLAS_NUM_THREADS and the like can limit.
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
    """ "cupy" for an array on the device, "numpy" for one in host memory, and the type's name for anything else."""
    module = type(array).__module__.partition(".")[0]
    return module if module in BACKENDS else type(array).__name__


def move(array, backend):
    """`array` as one of `backend`: itself if it is, else a copy. From the device this waits for all work there.

    ValueError for what is no array, and for a backend that is not there.
    """
    if kind(array) == backend:
        return array
    if kind(array) not in BACKENDS:
        raise ValueError(f"{kind(array)} is no array; expected one of {' or '.join(BACKENDS)}")
    return array.get() if backend == "numpy" else array_module(backend).asarray(array)


def own(name, array, backend):
    """`array` if it lies where `backend` works; lists become host arrays. Else a ValueError that names both kinds."""
    if backend == "numpy" and kind(array) != "cupy":
        return np.asarray(array)
    if kind(array) == backend:
        return array
    raise ValueError(
        f"{name} is a {kind(array)} array and the model's are {backend}: "
        f"nothing is moved silently; scratchvae.backend.move({name}, {backend!r}) does it"
    )


def free_memory(backend):
    """Bytes that a new array may take on the device, CuPy's own cache counted in; None for host memory."""
    if backend == "numpy":
        return None
    cupy = array_module(backend)
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def require_memory(n_bytes, backend):
    """MemoryError, saying how much is needed and how much is free, if the device has no room for n_bytes."""
    free = free_memory(backend)
    if free is not None and n_bytes > free:
        raise MemoryError(
            f"this job needs about {n_bytes / 2**20:,.0f} MiB of device memory and {free / 2**20:,.0f} MiB are free: "
            "take a smaller batch_size or model, or backend 'numpy'"
        )


@functools.cache
def _complete(cupy):
    """Nothing, once, where CuPy has a driver, a device and its libraries; else a ValueError names what is missing."""
    try:
        driver, devices = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        driver, devices, reason = cupy.cuda.runtime.driverGetVersion(), 0, str(error)
    else:
        reason = "none is visible"
    if driver == 0:
        raise _missing("the NVIDIA driver", "install it, and try nvidia-smi")
    if devices == 0:
        raise _missing(f"a CUDA device that the driver offers ({reason})", "try nvidia-smi; see CUDA_VISIBLE_DEVICES")
    try:
        one = cupy.ones((2, 2), np.float32)
        cupy.matmul(one + one, one)  # the sum needs NVRTC and its headers, the product (not of 1 x 1) cuBLAS
    except (MemoryError, cupy.cuda.runtime.CUDARuntimeError) as error:
        raise ValueError(f"the CUDA device cannot be used: {error}; see nvidia-smi, or take backend 'numpy'") from None
    except Exception as error:  # CuPy has a class of its own for each library that it does not find or cannot use
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise _missing(
            f"the CUDA toolkit's libraries ({first})", f'pip install "cupy-cuda{major}x[ctk]", or install the toolkit'
        ) from None


def _missing(part, remedy):
    return ValueError(f"backend 'cupy' is missing {part}: {remedy}; or take backend 'numpy'")
