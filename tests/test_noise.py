"""noise.py: Philox against its authors' vectors, Box-Muller against the normal law, one stream on both backends."""

import numpy as np
import pytest
from conftest import Here, host
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from scratchvae.noise import BLOCK, MANY, box_muller, philox, standard_normal

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that Salmon et al. publish with Random123
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(counter, key, words):
    assert [int(word[0]) for word in philox([np.array([c], np.uint64) for c in counter], key)] == list(words)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_numbers_follow_the_normal_law_and_are_of_one_precision(dtype):
    z = standard_normal(np.random.default_rng(0), (MANY,), dtype)
    assert z.dtype == dtype and np.isfinite(z).all()
    assert stats.kstest(z.astype(float), "norm").pvalue > 1e-6
    assert stats.kstest(1.03 * z.astype(float), "norm").pvalue < 1e-6  # control: three percent too wide
    quarters = np.hstack(z.reshape(-1, 4, BLOCK))  # the four numbers of one counter
    correlation = np.corrcoef(np.concatenate([quarters, quarters**2])) - np.eye(8)
    correlation[range(4), range(4, 8)] /= np.sqrt(5)  # of z with its own square: E z² (z² - 1)² = 10, by two
    correlation[range(4, 8), range(4)] /= np.sqrt(5)
    assert np.abs(correlation).max() * np.sqrt(MANY / 4) < 5.5
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) * np.sqrt(MANY) < 4.89


def test_box_muller_is_finite_at_the_first_and_the_last_word():
    for dtype in (np.float32, np.float64):
        ends = np.array([0, ONES], np.uint64)
        z = box_muller(ends, ends[::-1], ends, ends, dtype)
        assert np.isfinite(z).all() and z.dtype == dtype and z.shape == (4, 2)


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
