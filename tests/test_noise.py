"""noise.py: Philox against its authors' vectors, Box-Muller against the normal law, one stream on both backends."""

import math

import numpy as np
import pytest
from conftest import Here, device, host
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from scratchvae.noise import BLOCK, MANY, box_muller, philox, standard_normal

ONES = (1 << 64) - 1


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that Salmon et al. publish with Random123
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (ONES, ONES, ONES, ONES),
            (ONES, ONES),
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(counter, key, words):
    assert [int(word[0]) for word in philox([np.array([c], np.uint64) for c in counter], key)] == list(words)


def test_philox_on_the_device_gives_the_words_of_numpys_own(backend):
    count = device(np.arange(1, 1001, dtype=np.uint64))
    zero, key = np.zeros_like(count), np.array([ONES, 3], np.uint64)
    words = np.stack([host(word) for word in philox((count, zero, zero, zero), key)], axis=-1)
    assert_array_equal(words.reshape(-1), np.random.Philox(key=key).random_raw(4000))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_numbers_follow_the_normal_law_and_are_of_one_precision(dtype):
    z = standard_normal(np.random.default_rng(0), (4 * MANY,), dtype)
    assert z.dtype == dtype and np.isfinite(z).all()
    assert stats.kstest(z.astype(float), "norm").pvalue > 1e-6
    assert stats.kstest(1.03 * z.astype(float), "norm").pvalue < 1e-6  # control: three percent too wide
    pairs = np.hstack(z.reshape(-1, 2, BLOCK))  # the two numbers of one word
    correlation = np.corrcoef(np.concatenate([pairs, pairs**2])) - np.eye(4)
    correlation[range(2), range(2, 4)] /= np.sqrt(5)  # of z with its own square: E z² (z² - 1)² = 10, by two
    correlation[range(2, 4), range(2)] /= np.sqrt(5)
    assert np.abs(correlation).max() * np.sqrt(2 * MANY) < 5.5
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) * np.sqrt(MANY) < 4.89


def test_box_muller_is_finite_at_the_first_and_the_last_word():
    for dtype in (np.float32, np.float64):
        z = box_muller(np.array([0, ONES, ONES >> 32, ONES << 32 & ONES], np.uint64), dtype)
        assert np.isfinite(z).all() and z.dtype == dtype and z.shape == (2, 4)


def test_two_draws_of_one_generator_have_nothing_in_common():
    generator = np.random.default_rng(0)
    a, b = (standard_normal(generator, (MANY,), np.float32) for _ in range(2))
    assert abs(np.corrcoef(a, b)[0, 1]) * np.sqrt(MANY) < 4.89


def test_different_keys_give_different_numbers_and_one_state_gives_one_array():
    a, b = (standard_normal(np.random.default_rng(seed), (2, MANY), np.float32) for seed in (0, 1))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * np.sqrt(2 * MANY) < 4.89
    assert_array_equal(a, standard_normal(np.random.default_rng(0), (2, MANY), np.float32))


@pytest.mark.parametrize("size", [10, MANY - 1, MANY, MANY + 3])
def test_noise_is_the_same_on_both_backends_few_numbers_or_many(backend, size):
    ours = host(standard_normal(np.random.default_rng(3), (1, size), np.float32, Here.backend))
    theirs = standard_normal(np.random.default_rng(3), (1, size), np.float32)
    assert ours.shape == (1, size)
    assert_allclose(ours, theirs, rtol=0, atol=0 if size < MANY else 3e-6)


def test_many_numbers_stand_in_the_order_in_which_they_have_always_stood():
    """Runs that were begun before are resumed with the same noise, so that the order is part of what a seed means."""
    size = MANY + 5
    drawn = standard_normal(np.random.default_rng(3), (size,), np.float64)
    key = np.random.default_rng(3).integers(1 << 64, size=2, dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(2 << 15)
    for k in (0, 1, (1 << 15) - 1, 1 << 15, (1 << 16) - 1, 1 << 16, size - 1):
        block, place = divmod(k, 1 << 16)  # of 2¹⁵ words: their cosines come first, and then their sines
        word = int(words[(block << 15) + place % (1 << 15)])
        r = math.sqrt(-2 * math.log(((word % (1 << 32)) + 0.5) / (1 << 32)))
        a = 2 * math.pi * ((word >> 32) + 0.5) / (1 << 32)
        assert drawn[k] == pytest.approx(r * (math.cos(a) if place < 1 << 15 else math.sin(a)), rel=1e-12)
