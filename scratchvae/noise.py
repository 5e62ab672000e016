"""The noise ε and ζ: standard normal numbers that are the same on both backends and a function of (seed, t) alone.

A few numbers are drawn by NumPy's generator on the host and moved to the backend. If many were, a device would wait for
the host. They are therefore computed where they are needed, in two steps that are pure arithmetic. Random words come
from Philox4x64-10 (J. Salmon, M. Moraes, R. Dror & D. Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), which
turns a counter into random bits: on the host NumPy has it, and for the device `philox` writes it out in array
operations. Normal numbers are made from these words by the transform of G. Box & M. Muller (1958, "A note on the
generation of random normal deviates").
"""

import math

import numpy as np

from scratchvae.backend import array_module, fused, move

MANY = 1 << 16  # from so many numbers on they are computed in place; to draw as many takes the host half a millisecond
LOW = np.uint64((1 << 32) - 1)  # selects the low half of 64 bits
HALF = np.uint64(32)
BLOCK = 1 << 15  # how many words the host turns into normals at a time, in its cache; another number is other noise


def standard_normal(generator, shape, dtype, backend="numpy"):
    """Return ε ~ N(0, I) of `shape` and `dtype` on `backend`, a function of the state of the generator alone.

    generator   is a NumPy `Generator`, for both backends. Its state moves on.
    shape       is any tuple of sizes.
    dtype       is float32 or float64.
    backend     is "numpy" or "cupy"; "numpy" unless given.

    Both backends give the same numbers: to the bit where there are fewer than `MANY` of them, and otherwise up to the
    rounding of log, cos and sin.
    """
    size = math.prod(shape)
    if size < MANY:
        return move(generator.standard_normal(shape, dtype=dtype), backend)
    key = generator.integers(1 << 64, size=2, dtype=np.uint64)
    blocks = -(-size // (2 * BLOCK))  # a word gives two normals
    if backend == "numpy":
        random = np.random.Philox(key=key).random_raw
        words = (random(BLOCK) for _ in range(blocks))
    else:
        count = array_module(backend).arange(1, 1 + blocks * BLOCK // 4, dtype=np.uint64)  # NumPy counts from 1 too
        zero = np.zeros_like(count)
        words = [np.stack(philox((count, zero, zero, zero), key), axis=-1).reshape(blocks, BLOCK)]
    return np.concatenate([box_muller(w, dtype).reshape(-1) for w in words])[:size].reshape(shape)


def philox(counter, key):
    """Return four arrays of 64 random bits each, by Philox4x64-10.

    counter   holds the four words of a counter, arrays of uint64 of one shape.
    key       holds two words, uint64, under which each counter gives other bits.
    """
    steps = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # the golden ratio and √3 - 1, as 64 bits of their fractions
    keys = [np.uint64((int(k) + r * step) % (1 << 64)) for r in range(10) for k, step in zip(key, steps, strict=True)]
    return ten_rounds(*counter, *keys)


@fused
def ten_rounds(c0, c1, c2, c3, *keys):
    """Return the four words after ten rounds, each with two of the keys."""
    for k0, k1 in zip(keys[::2], keys[1::2], strict=True):
        high0, low0 = product(c0, 0xD2E7470EE14C6C93)
        high1, low1 = product(c2, 0xCA5A826395121157)
        c0 = high1 ^ c1 ^ k0
        c2 = high0 ^ c3 ^ k1
        c1 = low1
        c3 = low0
    return c0, c1, c2, c3


def product(a, m):
    """Return the high and the low 64 bits of the product a m, computed from products of 32-bit halves.

    a is an array of uint64, and m an int below 2⁶⁴.
    """
    m0 = np.uint64(m % (1 << 32))
    m1 = np.uint64(m >> 32)
    a0 = a & LOW
    a1 = a >> HALF
    low = a0 * m0
    cross = a0 * m1
    other = a1 * m0
    middle = (low >> HALF) + (cross & LOW) + (other & LOW)  # what is added at bit 32; its carry goes to the high word
    return a1 * m1 + (cross >> HALF) + (other >> HALF) + (middle >> HALF), (middle << HALF) | (low & LOW)


def box_muller(words, dtype):
    """Return two standard normals for each word of 64 random bits: √(-2 ln u) (cos 2πv, sin 2πv), u and v in (0, 1].

    u is made from the low half of a word and v from its high half. words is (…, n), and the result is (…, 2, n), of
    `dtype`. No normal exceeds 6.8 in size, since u has only 32 bits.
    """
    return np.stack(both_normals(words, dtype=dtype), axis=-2)


@fused
def both_normals(words, dtype):
    """Return the two normals of each word as two arrays."""
    u, v = ((half.astype(dtype) + 0.5) * 2.0**-32 for half in (words & LOW, words >> HALF))
    r = np.sqrt(-2 * np.log(u))
    a = 2 * math.pi * v
    return r * np.cos(a), r * np.sin(a)
