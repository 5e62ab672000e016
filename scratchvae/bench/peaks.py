"""What a machine can do at most: the rate of a large matrix product, and the bandwidth of a pass over arrays."""

import time

import numpy as np

from scratchvae.backend import array_module, move

LARGE = {"numpy": 3000, "cupy": 8192}  # the width of the matrices whose product shows the peak
IN_CACHE = 3 << 17  # bytes of the three arrays of a pass that the cache of one core holds
IN_MEMORY = 3 << 27  # bytes of three arrays that no cache holds


def waiting(backend):
    """Return a function that waits for all work on the device; on the host it does nothing."""
    return (lambda: None) if backend == "numpy" else array_module(backend).cuda.Device().synchronize


def peak_gflops(backend, dtype):
    """Return the rate of the product of two large square matrices, in 10⁹ operations per second, the best of five."""
    n = LARGE[backend]
    finish = waiting(backend)
    times = []
    a = move(np.ones((n, n), dtype), backend)
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
