"""Another implementation of a loss as a witness: in autograd, JAX or torch with its gradient, in NumPy with its value.

None of these libraries is imported unless a witness needs it. Arrays are copied at the boundary, so that a witness
moves nothing of what is checked.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scratchvae.backend import move
from scratchvae.gradcheck.arrays import rebuilt
from scratchvae.gradcheck.differences import EPS, SAFETY


@dataclass(frozen=True)
class Testimony:
    """What a witness says.

    library     is the name of the library that it is written in.
    value       is its value of the loss.
    gradients   is a dict of its gradients by the names of the arrays, None where it has none to give.
    eps         is that of the precision in which it answers.
    beside      is a function that returns its gradients where all arrays are moved by their own rounding.
    """

    library: str
    value: float
    gradients: dict | None
    eps: float
    beside: Callable | None = None

    def relative(self, least):
        """Return the relative error that passes beside this witness: `least`, or 1,000 times its eps."""
        return max(least, 1000 * self.eps)

    def rounding(self, name):
        """Return how far rounding may move the gradient of an array: SAFETY times as far as it is moved beside.

        This tells a gradient that is 0 by cancellation from one that is wrong.
        """
        return SAFETY * float(np.linalg.norm(self.beside()[name] - self.gradients[name]))


def testify(oracle, tree, arrays):
    """Return the `Testimony` of an oracle at the values that the arrays have now.

    oracle   is a function of a container like `tree`, which returns the loss as a number, or as an array whose sum is
             meant. Which library it is written in shows when it is called.
    tree     is the container that holds the arrays.
    arrays   is a dict of the arrays by name.

    An error of the oracle itself is raised as it is.
    """
    copies = {name: np.array(move(array, "numpy"), np.float64) for name, array in arrays.items()}
    found = _called(oracle, tree, copies)

    @functools.cache
    def beside():
        generator = np.random.default_rng(0)
        moved = {name: a * (1 + found.eps * generator.choice([-1, 1], a.shape)) for name, a in copies.items()}
        return _called(oracle, tree, moved).gradients

    return replace(found, beside=beside)


def _called(oracle, tree, copies):
    def filled(values):
        return rebuilt(tree, iter(values))

    try:
        value = oracle(filled([copy.copy() for copy in copies.values()]))
    except Exception as error:  # a function in torch takes no NumPy arrays
        if "torch" not in sys.modules:
            raise
        try:
            return _torch(oracle, filled, copies)
        except Exception:
            raise error from None
    library = type(value).__module__.partition(".")[0]
    if library in ("jax", "jaxlib"):
        return _jax(oracle, filled, copies)
    if library == "torch":
        return _torch(oracle, filled, copies)
    return _autograd(oracle, filled, copies, value)


def _autograd(oracle, filled, copies, value):
    """Differentiate an oracle by autograd; if it is plain NumPy, autograd cannot follow it, and the value is left."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    values = list(copies.values())
    total = float(np.sum(value))
    eps = float(np.finfo(np.asarray(value).dtype).eps) if np.asarray(value).dtype.kind == "f" else EPS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autograd warns where the output does not depend on an input
            traced, gradients = value_and_grad(lambda values: anp.sum(oracle(filled(values))))(values)
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return Testimony("NumPy", total, None, eps)
    if any(np.shape(g) != v.shape for g, v in zip(gradients, values, strict=True)) or not np.isfinite(traced):
        return Testimony("NumPy", total, None, eps)
    return Testimony("autograd", total, dict(zip(copies, gradients, strict=True)), eps)


def _jax(oracle, filled, copies):
    import jax

    def total(values):
        return jax.numpy.sum(oracle(filled(values)))

    value, gradients = jax.value_and_grad(total)([jax.numpy.asarray(copy) for copy in copies.values()])
    found = {name: np.asarray(g, np.float64) for name, g in zip(copies, gradients, strict=True)}
    return Testimony("JAX", float(value), found, float(jax.numpy.finfo(value.dtype).eps))


def _torch(oracle, filled, copies):
    import torch

    leaves = [torch.tensor(copy, requires_grad=True) for copy in copies.values()]
    value = oracle(filled(leaves)).sum()
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    found = {
        name: np.zeros(copy.shape) if g is None else g.detach().cpu().numpy().astype(np.float64)
        for (name, copy), g in zip(copies.items(), gradients, strict=True)
    }
    return Testimony("torch", float(value.detach()), found, float(torch.finfo(value.dtype).eps))
