"""What a machine and its device can do at most: the rate of a large matrix product, and the bandwidth of a pass."""

import time

import numpy as np

from scratchvae.backend import array_module, free_memory, move

LARGE = {"numpy": 3000, "cupy": 8192}  # the width of the matrices whose product shows the peak
IN_CACHE = 3 << 17  # bytes of the three arrays of a pass that the cache of one core holds
IN_MEMORY = 3 << 27  # bytes of three arrays that no cache holds
IN_DEVICE_MEMORY = 3 << 28  # and that no cache of a device holds, unless that is larger than a sixteenth of it


def waiting(backend):
    """Return a function that waits for all work on the device; on the host it does nothing."""
    return (lambda: None) if backend == "numpy" else array_module(backend).cuda.Device().synchronize


def peak_gflops(backend, dtype):
    """Return the rate of the product of two large square matrices, in 10⁹ operations per second, the best of five.

    Their numbers are random: a device may multiply numbers that are all alike faster, since that takes less power.
    """
    n = LARGE[backend]
    finish = waiting(backend)
    times = []
    a = move(np.random.default_rng(0).random((n, n), dtype), backend)
    for _ in range(6):
        begun = time.perf_counter()
        np.matmul(a, a)
        finish()
        times.append(time.perf_counter() - begun)
    return 2 * n**3 / min(times[1:]) / 1e9


def bandwidth(dtype, size):
    """Return the bandwidth of the pass c = a + b in 10⁹ bytes per second, two arrays read and one written.

    It is the best of some passes in NumPy, which takes one thread for them.

    dtype   is that of the arrays, "float32" or "float64".
    size    is the number of bytes of the three arrays together: IN_CACHE, or IN_MEMORY for arrays that no cache holds.
    """
    n = size // 3 // np.dtype(dtype).itemsize
    a = np.ones(n, dtype)
    b = np.ones(n, dtype)
    c = np.ones(n, dtype)
    times = []
    for _ in range(6 if size > 1 << 24 else 1000):
        begun = time.perf_counter()
        np.add(a, b, out=c)
        times.append(time.perf_counter() - begun)
    return 3 * a.nbytes / min(times) / 1e9


def device_bandwidth(dtype, size, clock):
    """Return the bandwidth of the pass c = a + b on the device in 10⁹ bytes per second, by the device's own time.

    Two arrays are read and one is written. It is the best of five times twenty passes, and includes what the device
    needs between two kernels.

    dtype   is that of the arrays, "float32" or "float64".
    size    is the number of bytes of the three arrays together: one of `device_sizes`.
    clock   is a `DeviceClock`.
    """
    cupy = array_module("cupy")
    n = size // 3 // np.dtype(dtype).itemsize
    a = cupy.ones(n, dtype)
    b = cupy.ones(n, dtype)
    c = cupy.ones(n, dtype)
    np.add(a, b, out=c)  # the first compiles the kernel
    times = [clock.timed(lambda: np.add(a, b, out=c), 20, 0.2)[1] for _ in range(5)]
    return 3 * a.nbytes / min(times) / 1e6


def device_sizes():
    """Return the bytes of three arrays that the device's L2 cache holds, half of it, and of three that it does not."""
    cache = array_module("cupy").cuda.runtime.getDeviceProperties(0)["l2CacheSize"]
    return cache // 2, min(max(IN_DEVICE_MEMORY, 16 * cache), free_memory("cupy") // 2)
