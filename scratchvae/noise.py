"""ε and ζ: standard normal numbers for step t, the same on both backends and a function of (seed, t) alone.

A few are drawn by NumPy's generator on the host and moved. Many would keep the device waiting for the host, so they are
computed where they are needed, from a generator that is pure arithmetic on a counter: Philox4x64-10 (Salmon, Moraes,
Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), which NumPy has on the host and `philox` writes out in
array operations for the device; and from its words the normals of Box & Muller (1958).
"""

import math

import numpy as np

from scratchvae.backend import array_module, move

MANY = 1 << 16  # numbers: half a millisecond of the host's time
LOW = np.uint64((1 << 32) - 1)  # the low half of 64 bits
HALF = np.uint64(32)
BLOCK = 1 << 15  # words that the host turns into normals at a time, so that they stay in its cache


def standard_normal(generator, shape, dtype, backend="numpy"):
    """ε ~ N(0, I) of `shape` on `backend`, a function of the state of NumPy's `generator` alone.

    Both backends give the same numbers: to the bit below `MANY` of them, from there on to the rounding of log and cos.
    """
    size = math.prod(shape)
    if size < MANY:
        return move(generator.standard_normal(shape, dtype=dtype), backend)
    key, blocks = generator.integers(1 << 64, size=2, dtype=np.uint64), -(-size // (2 * BLOCK))
    if backend == "numpy":
        random = np.random.Philox(key=key).random_raw
        words = (random(BLOCK) for _ in range(blocks))
    else:
        count = array_module(backend).arange(1, 1 + blocks * BLOCK // 4, dtype=np.uint64)  # NumPy counts from 1
        zero = np.zeros_like(count)
        words = [np.stack(philox((count, zero, zero, zero), key), axis=-1).reshape(blocks, BLOCK)]
    return np.concatenate([box_muller(w, dtype).reshape(-1) for w in words])[:size].reshape(shape)


def philox(counter, key):
    """Philox4x64-10: four words of 64 random bits from four of a counter, under a key of two; arrays of uint64."""
    (c0, c1, c2, c3), (k0, k1) = counter, (int(k) for k in key)
    for _ in range(10):
        (high0, low0), (high1, low1) = product(c0, 0xD2E7470EE14C6C93), product(c2, 0xCA5A826395121157)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % (1 << 64), (k1 + 0xBB67AE8584CAA73B) % (1 << 64)  # golden ratio, √3 - 1
    return c0, c1, c2, c3


def product(a, m):
    """The high and the low 64 bits of a m, from products of halves; a an array of uint64, m an int."""
    m0, m1 = np.uint64(m % (1 << 32)), np.uint64(m >> 32)
    a0, a1 = a & LOW, a >> HALF
    low, cross, other = a0 * m0, a0 * m1, a1 * m0
    middle = (low >> HALF) + (cross & LOW) + (other & LOW)
    return a1 * m1 + (cross >> HALF) + (other >> HALF) + (middle >> HALF), (middle << HALF) | (low & LOW)


def box_muller(words, dtype):
    """Two standard normals from a word of 64 bits, √(-2 ln u) (cos 2πv, sin 2πv), u and v in (0, 1].

    (…, 2, n), none beyond 6.8: what 32 bits resolve.
    """
    u, v = ((half.astype(dtype) + 0.5) * 2.0**-32 for half in (words & LOW, words >> HALF))
    r, a = np.sqrt(-2 * np.log(u)), 2 * math.pi * v
    return np.stack([r * np.cos(a), r * np.sin(a)], axis=-2)
