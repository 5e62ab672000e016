"""Checks hand-derived gradients, and says in words what is wrong with one.

    from scratchvae.gradcheck import check_gradients
    print(check_gradients(lambda: loss(x, y), {"W": W, "b": b}, {"W": dW, "b": db}))

`check_gradients` takes any loss of NumPy arrays. `check_layer` takes a layer with forward and backward, `check_density`
a density with its partials, and `check_model` a model of this library; all three end in `check_gradients`. Each returns
a `Report`, which is false if something is wrong and prints as a table. `assert_gradients` is for tests. `check_hessian`
looks at second derivatives.
"""

from scratchvae.gradcheck.check import assert_gradients, check_gradients
from scratchvae.gradcheck.homework import example
from scratchvae.gradcheck.matrix import check_matrix, check_parts
from scratchvae.gradcheck.model import check_model
from scratchvae.gradcheck.parts import check_density, check_layer
from scratchvae.gradcheck.report import GradientError, Report, Row
from scratchvae.gradcheck.second_order import check_hessian

__all__ = [
    "GradientError",
    "Report",
    "Row",
    "assert_gradients",
    "check_density",
    "check_gradients",
    "check_hessian",
    "check_layer",
    "check_matrix",
    "check_model",
    "check_parts",
    "example",
]
