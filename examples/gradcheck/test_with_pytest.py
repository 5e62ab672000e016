"""A check as a test: pytest examples/gradcheck/test_with_pytest.py. The message of one that fails is the report."""

import numpy as np
import pytest

from scratchvae.gradcheck import GradientError, assert_gradients

generator = np.random.default_rng(0)
A = generator.standard_normal((20, 4))
b = generator.standard_normal(20)
x = generator.standard_normal(4)


def loss():
    """½ ‖A x - b‖², as its terms."""
    return 0.5 * (A @ x - b) ** 2


def test_the_gradient_of_least_squares():
    assert_gradients(loss, x, lambda: A.T @ (A @ x - b))


def test_a_gradient_without_the_transpose_of_its_error_is_found():
    with pytest.raises(GradientError, match="the sign is wrong"):
        assert_gradients(loss, x, lambda: A.T @ (b - A @ x))
