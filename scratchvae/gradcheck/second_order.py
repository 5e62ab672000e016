"""check_hessian: second derivatives, by differences of a gradient that has been checked already.

H v is the derivative of the gradient along v, so that a Hessian-vector product is compared with a difference of
gradients. A gradient whose Hessian is not symmetric is the gradient of no function. The Gauss-Newton matrix of a loss
f(z(θ)), with outputs z and J = ∂z/∂θ, is Jᵀ (∂²f/∂z²) J (Martens 2010, "Deep learning via Hessian-free optimization",
section 3); its product with two vectors is compared through J, by differences of the outputs.
"""

import math

import numpy as np

from scratchvae.backend import kind, move
from scratchvae.gradcheck.arrays import named, rebuilt
from scratchvae.gradcheck.check import RTOL, called_with, check_arrays, read_gradients
from scratchvae.gradcheck.point import sizes_of
from scratchvae.gradcheck.report import Report, Row


def check_hessian(
    grads,
    params,
    *,
    hessian=None,
    gauss_newton=None,
    outputs=None,
    output_hessian=None,
    rtol=None,
    directions=4,
    seed=0,
):
    """Check second derivatives along random directions, and return a `Report`.

    grads            is a function that returns the gradients of the loss, with `params` as its argument or with none,
                     as in `check_gradients`. Check it there first.
    params           is an array, or a dict, list or tuple of arrays in float64. They are put back as they were.
    hessian          is a function (v) that returns H v for a container v like `params`; None leaves it out. It is
                     called where the arrays are at that moment.
    gauss_newton     is a function (v) that returns G v; None leaves it out. It needs the next two.
    outputs          is a function that returns the outputs z of the network, called like `grads`.
    output_hessian   is a function (dz) that returns ∂²f/∂z² dz, for an array dz of the outputs' shape.
    rtol             is the relative error that passes; 1e-6 unless given.
    directions       is how many random directions are tried; 4 unless given.
    seed             is that of the directions, 0 unless given.

    The rows are "symmetry", uᵀH v against vᵀH u by differences of `grads`; "hessian", ‖ours - theirs‖ / ‖theirs‖ over
    the products; "gauss_newton", the same for uᵀG v, and "gauss_newton ≥ 0", the least vᵀG v, if ∂²f/∂z² has none below
    0.
    """
    arrays = named("params", params)
    check_arrays(arrays)
    for name, array in arrays.items():
        if array.dtype != np.float64:
            raise ValueError(f"{name} holds {array.dtype}; expected float64, since differences of a gradient need it")
    if gauss_newton is not None and (outputs is None or output_hessian is None):
        raise ValueError("gauss_newton is given without outputs and output_hessian; expected all three")
    tree = rebuilt(params, iter(arrays.values()))
    rtol = RTOL["float64"] if rtol is None else rtol
    before = {name: array.copy() for name, array in arrays.items()}
    generator = np.random.default_rng(seed)

    def gradient():
        return read_gradients(tree, grads, arrays)

    try:
        sizes = sizes_of(arrays, gradient())
        vectors = [
            {name: sizes[name] * generator.standard_normal(a.shape) for name, a in arrays.items()}
            for _ in range(directions)
        ]
        with np.errstate(all="ignore"):
            products = [_along(arrays, before, v, gradient) for v in vectors]
            rows = [_symmetry(vectors, products, rtol)]
            if hessian is not None:
                ours = [_product("hessian", hessian, v, tree, arrays) for v in vectors]
                rows.append(_products(ours, products, rtol))
            if gauss_newton is not None:
                ours = [_product("gauss_newton", gauss_newton, v, tree, arrays) for v in vectors]
                z = called_with(tree, "outputs", outputs)[0]
                moved = [
                    _along(arrays, before, v, lambda: {"z": np.array(move(z(), "numpy"), np.float64)}) for v in vectors
                ]
                rows += _gauss_newton(vectors, ours, moved, output_hessian, rtol)
        return Report(rows, [f"float64; relative tolerance {rtol:.0e}; {directions} random directions"])
    finally:
        for name, array in arrays.items():
            array[...] = before[name]


def _along(arrays, before, v, function):
    """Return the derivative of a dict of arrays along v, by Richardson's extrapolation of two central differences.

    (4 D(h/2) - D(h)) / 3 has an error of order h⁴. The step h is ⁵√ε, where that balances rounding.
    """
    h = np.finfo(np.float64).eps ** 0.2

    def difference(h):
        ends = []
        for t in (h, -h):
            for name, array in arrays.items():
                array[...] = before[name] + move(t * v[name], kind(array))
            ends.append(function())
        for name, array in arrays.items():
            array[...] = before[name]
        return {name: (above - ends[1][name]) / (2 * h) for name, above in ends[0].items()}

    coarse = difference(h)
    fine = difference(h / 2)
    return {name: (4 * fine[name] - coarse[name]) / 3 for name in fine}


def _product(what, function, v, tree, arrays):
    """Return what a user's product returns for v, by the names of the arrays."""
    product = function(rebuilt(tree, iter(v.values())))
    return read_gradients(tree, product, arrays, what)


def _dot(u, v):
    return float(sum((a * v[name]).sum() for name, a in u.items()))


def _symmetry(vectors, products, rtol):
    """Compare uᵀH v with vᵀH u for all pairs of directions."""
    n = len(vectors)
    matrix = np.array([[_dot(vectors[i], products[j]) for j in range(n)] for i in range(n)])
    error = float(np.linalg.norm(matrix - matrix.T) / max(np.linalg.norm(matrix), np.finfo(float).tiny))
    notes = () if error <= rtol else ("the Hessian is not symmetric: this is the gradient of no function",)
    return Row("symmetry", error <= rtol, n * (n - 1) // 2, 0, float(np.linalg.norm(matrix)), None, error, None, notes)


def _products(ours, theirs, rtol):
    """Compare the products of a user's Hessian with differences, all arrays and directions together."""
    flat = [np.concatenate([p[name].reshape(-1) for p in side for name in p]) for side in (ours, theirs)]
    return _compared("hessian", *flat, rtol)


def _compared(name, ours, theirs, rtol):
    norm = float(np.linalg.norm(theirs))
    error = float(np.linalg.norm(ours - theirs)) / norm if norm else float(np.linalg.norm(ours))
    passed = bool(error <= rtol)
    notes = []
    if not passed and norm:
        k = float(ours @ theirs) / norm**2
        left = float(np.linalg.norm(ours - k * theirs)) / norm
        notes.append(
            f"a factor: it is {k:.6g} times the right one"
            if left < 1e-3 * error
            else f"cosine {_cosine(ours, theirs):.6f}"
        )
    return Row(name, passed, len(ours), 0, float(np.linalg.norm(ours)), None, error, None, tuple(notes))


def _cosine(a, b):
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else math.nan


def _gauss_newton(vectors, ours, moved, output_hessian, rtol):
    """Compare uᵀG v with (J u)ᵀ (∂²f/∂z²) (J v), and look whether a G that should have none has a direction below 0."""
    n = len(vectors)
    curved = [np.asarray(output_hessian(m["z"]), np.float64) for m in moved]
    theirs = np.array([float((moved[i]["z"] * curved[j]).sum()) for i in range(n) for j in range(n)])
    products = np.array([_dot(vectors[i], ours[j]) for i in range(n) for j in range(n)])
    rows = [_compared("gauss_newton", products, theirs, rtol)]
    if (np.diag(theirs.reshape(n, n)) >= 0).all():
        least = float(np.diag(products.reshape(n, n)).min())
        passed = least >= -rtol * float(np.abs(theirs).max())
        notes = () if passed else (f"vᵀG v is {least:.3g} along a direction; a Gauss-Newton matrix has none below 0",)
        rows.append(Row("gauss_newton ≥ 0", passed, n, 0, abs(least), None, None, None, notes))
    return rows
