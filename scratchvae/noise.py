"""ε: standard normal numbers for step t, the same on both backends and a function of (seed, t) alone.

A few are drawn by NumPy's generator on the host and moved. Many would keep the device waiting for the host, so they are
computed where they are needed, by a generator that is pure arithmetic on a counter: Philox4x32-10 (Salmon, Moraes, Dror
& Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), and from its words the normals of Box & Muller (1958).
"""

import math

import numpy as np

from scratchvae.backend import array_module, move

MANY = 1 << 18  # numbers: 2 ms of the host's time
BLOCK = 1 << 14  # counters, whose words the host works out together so that they stay in its cache
LOW = (1 << 32) - 1  # the low word of 64 bits


def standard_normal(generator, shape, dtype, backend="numpy"):
    """ε ~ N(0, I) of `shape` on `backend`, a function of the state of NumPy's `generator` alone.

    Both backends give the same numbers: to the bit below `MANY` of them, from there on to the rounding of log and cos.
    """
    size = math.prod(shape)
    if size < MANY:
        return move(generator.standard_normal(shape, dtype=dtype), backend)
    key = generator.integers(1 << 32, size=2).tolist()
    blocks = -(-size // (4 * BLOCK))
    count = array_module(backend).arange(blocks * BLOCK, dtype=np.uint64).reshape(blocks, BLOCK)
    parts = []
    for c in count if backend == "numpy" else [count]:
        words = philox((c & LOW, c >> 32, np.zeros_like(c), np.zeros_like(c)), key)
        parts.append(box_muller(*words, dtype).reshape(-1))
    return np.concatenate(parts)[:size].reshape(shape)


def philox(counter, key):
    """Philox4x32-10: four words of 32 random bits from four of a counter, under a key of two; arrays of uint64."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # 32 x 32 → 64 bits
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW  # the golden ratio and √3 - 1
    return c0, c1, c2, c3


def box_muller(c0, c1, c2, c3, dtype):
    """Four standard normals from four 32-bit words, √(-2 ln u) (cos 2πv, sin 2πv), u and v in (0, 1]: (…, 4, n)."""
    u0, v0, u1, v1 = ((c.astype(dtype) + 0.5) * 2.0**-32 for c in (c0, c1, c2, c3))
    r0, r1 = np.sqrt(-2 * np.log(u0)), np.sqrt(-2 * np.log(u1))
    a0, a1 = 2 * math.pi * v0, 2 * math.pi * v1
    return np.stack([r0 * np.cos(a0), r0 * np.sin(a0), r1 * np.cos(a1), r1 * np.sin(a1)], axis=-2)
