"""check_hessian: second derivatives, by differences of a gradient that has been checked already.

H v is the derivative of the gradient along v, so that a Hessian-vector product is compared with a difference of
gradients. A gradient whose Hessian is not symmetric is the gradient of no function. The Gauss-Newton matrix of a loss
f(z(θ)), with outputs z and J = ∂z/∂θ, is Jᵀ (∂²f/∂z²) J (Martens 2010, "Deep learning via Hessian-free optimization",
section 3); its product with two vectors is compared through J, by differences of the outputs.

Each direction moves one array alone. So the Hessian is seen in blocks, of one array by another, and each block is held
to its own size: a wrong one of a small array does not hide behind a large one. Each difference is tried with
steps from a tenth of the size of an array down to 4⁻¹¹ of that. The step is taken at which two neighbours agree best,
and their distance, with the rounding of the gradient, is its error.
"""

import functools
import itertools
import math

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import kind, move
from scratchvae.gradcheck.arrays import named, rebuilt
from scratchvae.gradcheck.check import RTOL, called_with, check_arrays, read_gradients
from scratchvae.gradcheck.differences import EPS, SAFETY
from scratchvae.gradcheck.point import sizes_of
from scratchvae.gradcheck.report import Report, Row

STEPS = 0.1 * 0.25 ** np.arange(12)  # relative to the size of the array that is moved


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
    hessian          is a function (v) that returns H v for a container v like `params`, or H as a matrix (n, n) of the
                     n numbers of all arrays, in their order; None leaves it out. A function is called where the arrays
                     are at that moment.
    gauss_newton     is the same for G; None leaves it out. It needs the next two.
    outputs          is a function that returns the outputs z of the network, called like `grads`.
    output_hessian   is a function (dz) that returns ∂²f/∂z² dz, for an array dz of the outputs' shape.
    rtol             is the relative error that passes beyond that of the differences; 1e-6 unless given.
    directions       is how many random directions are tried for each array, 2 at least; 4 unless given.
    seed             is that of the directions, 0 unless given.

    The rows are "symmetry", uᵀH v against vᵀH u by differences of `grads`; "hessian", ours against theirs; and
    "gauss_newton", the same for uᵀG v. Where there are several arrays each has its own row, such as "hessian W", with
    its worst block. "gauss_newton ≥ 0" is the least vᵀG v, if ∂²f/∂z² has none below 0. Gradients that are random or
    not finite are a row "grads" that fails.
    """
    arrays = named("params", params)
    check_arrays(arrays)
    for name, array in arrays.items():
        if array.dtype != np.float64:
            raise ValueError(f"{name} holds {array.dtype}; expected float64, since differences of a gradient need it")
    if not callable(grads):
        raise ValueError(f"grads is {type(grads).__name__}; expected a function, which is called at other points too")
    if gauss_newton is not None and (outputs is None or output_hessian is None):
        raise ValueError("gauss_newton is given without outputs and output_hessian; expected all three")
    whole("directions", directions, 2)
    tree = rebuilt(params, iter(arrays.values()))
    rtol = RTOL["float64"] if rtol is None else rtol
    before = {name: array.copy() for name, array in arrays.items()}
    generator = np.random.default_rng(seed)
    gradient = functools.partial(read_gradients, tree, grads, arrays)
    try:
        first = gradient()
        fault = _fault_of(first, gradient())
        if fault:
            return Report([Row("grads", False, notes=(fault,))])
        sizes = sizes_of(arrays, first)
        vectors = [(name, _only(name, arrays, sizes, generator)) for name in arrays for _ in range(directions)]
        blocks = Blocks(list(arrays), vectors)
        with np.errstate(all="ignore"):
            products = [_along(arrays, before, name, v[name], gradient) for name, v in vectors]
            theirs = np.array([[blocks.dot(u, p) for p, _ in products] for _, u in vectors])
            errors = np.array([[float(np.linalg.norm(u[a])) * e[a] for _, e in products] for a, u in vectors])
            rows = blocks.rows("symmetry", theirs, theirs.T, errors + errors.T, rtol)
            if hessian is not None:
                ours = _ours("hessian", hessian, blocks, tree, arrays)
                rows += blocks.rows("hessian", ours, theirs, errors, rtol)
            if gauss_newton is not None:
                ours = _ours("gauss_newton", gauss_newton, blocks, tree, arrays)
                z = called_with(tree, "outputs", outputs)[0]
                theirs, errors = _gauss_newton(arrays, before, vectors, z, output_hessian)
                rows += blocks.rows("gauss_newton", ours, theirs, errors, rtol)
                rows += _is_positive(ours, theirs, errors, rtol)
        return Report(rows, [f"float64; relative tolerance {rtol:.0e}; {directions} random directions for each array"])
    finally:
        for name, array in arrays.items():
            array[...] = before[name]


def _fault_of(first, second):
    """Return a sentence if gradients are not finite, or others at a second call; None if all is well."""
    for name, one in first.items():
        if not np.isfinite(one).all():
            return f"the gradient of {name} is not finite at this point, and has no derivative"
        if np.abs(one - second[name]).max() > 1000 * EPS * np.abs(one).max():
            return (
                f"the gradient of {name} is another one at a second call with the same arrays: accumulated, or random"
            )
    return None


def _only(name, arrays, sizes, generator):
    """Return a random direction that moves the array `name` alone, with 0 for the others."""
    v = {other: np.zeros(array.shape) for other, array in arrays.items()}
    v[name] = sizes[name] * generator.standard_normal(arrays[name].shape)
    return v


def _along(arrays, before, name, v, function):
    """Return the derivative of a dict of arrays along v, which moves the array `name`, and the error of each of them.

    (16 D(h/4) - D(h)) / 15 is Richardson's extrapolation of two central differences, and has an error of order h⁴.
    """
    central = []
    largest = {}
    for h in STEPS:
        ends = []
        for t in (h, -h):
            arrays[name][...] = before[name] + move(t * v, kind(arrays[name]))
            ends.append(function())
        arrays[name][...] = before[name]
        central.append({key: (above - ends[1][key]) / (2 * h) for key, above in ends[0].items()})
        largest = {key: float(np.linalg.norm(above)) for key, above in ends[0].items()}
    found = {}
    errors = {}
    for key in central[0]:
        ladder = [(16 * fine[key] - coarse[key]) / 15 for coarse, fine in itertools.pairwise(central)]
        rounding = [SAFETY * EPS * largest[key] / h for h in STEPS[1:]]
        apart = [float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(ladder)]
        apart = [a + r if math.isfinite(a) else math.inf for a, r in zip(apart, rounding, strict=False)]
        best = int(np.argmin(apart))
        found[key] = ladder[best]
        errors[key] = apart[best]
    return found, errors


def _ours(what, product, blocks, tree, arrays):
    """Return uᵀH v for all directions u and v, as a user's function gives it, or a matrix."""
    if not callable(product):
        matrix = np.asarray(product, np.float64)
        n = sum(array.size for array in arrays.values())
        if matrix.size != n * n:
            raise ValueError(f"{what} is {matrix.shape}; expected {(n, n)} for the {n} numbers, or a function of v")
        matrix = matrix.reshape(n, n)
        flat = np.array([np.concatenate([part.reshape(-1) for part in v.values()]) for _, v in blocks.vectors])
        return flat @ matrix @ flat.T
    products = [product(rebuilt(tree, iter([part.copy() for part in v.values()]))) for _, v in blocks.vectors]
    n = sum(array.size for array in arrays.values())
    if n > 1 and np.shape(products[0]) == (n, n):
        raise ValueError(
            f"{what} returns a matrix; expected H v for the v that it is given: hand over the matrix itself"
        )
    found = [read_gradients(tree, p, arrays, what) for p in products]
    return np.array([[blocks.dot(u, p) for p in found] for _, u in blocks.vectors])


class Blocks:
    """Compares matrices of uᵀH v for directions u and v block by block.

    names     lists the names of the arrays.
    vectors   lists (name, direction), as many for each array.
    """

    def __init__(self, names, vectors):
        self.names = names
        self.vectors = vectors

    @staticmethod
    def dot(u, v):
        """Return the scalar product of two dicts of arrays."""
        return float(sum((a * v[name]).sum() for name, a in u.items()))

    def rows(self, what, ours, theirs, errors, rtol):
        """Return a row for each array: it passes if all blocks in its rows of the matrix agree within their errors."""
        owners = np.array([name for name, _ in self.vectors])
        return [self._row(what, name, owners, ours, theirs, errors, rtol) for name in self.names]

    def _row(self, what, name, owners, ours, theirs, errors, rtol):
        worst = None
        for other in self.names:
            where = np.ix_(owners == name, owners == other)
            a = ours[where]
            b = theirs[where]
            norm = float(np.linalg.norm(b))
            distance = float(np.linalg.norm(a - b))
            error = float(np.linalg.norm(errors[where]))
            excess = distance - error - rtol * norm
            passed = math.isfinite(distance) and math.isfinite(error) and excess <= 0
            share = (excess + rtol * norm) / norm if norm else excess
            if worst is None or (passed, -share) < worst[0]:
                worst = (passed, -share), other, a, b, norm, distance, error
        (passed, _), other, a, b, norm, distance, error = worst
        notes = []
        if not passed:
            notes = [_sentence(what, a, b, norm, distance)]
            notes += [f"in the block of {name} by {other}"] if other != name else []
        elif error > 0.01 * norm > 0:
            notes = [f"differences resolve it to a relative {error / norm:.0e} only, in the block of {name} by {other}"]
        title = what if len(self.names) == 1 else f"{what} {name}"
        relative = distance / norm if norm else distance
        return Row(title, passed, a.size, 0, float(np.linalg.norm(a)), None, relative, error, tuple(notes))


def _sentence(what, ours, theirs, norm, distance):
    """Say how a block is wrong."""
    if not math.isfinite(distance):
        return "not a number: differences, or ours, are NaN or infinite along a direction"
    if what == "symmetry":
        return "the Hessian is not symmetric: this is the gradient of no function"
    if not norm:
        return "it should be 0"
    k = float((ours * theirs).sum()) / norm**2
    if float(np.linalg.norm(ours - k * theirs)) < 1e-3 * distance:
        return f"a factor: it is {k:.6g} times the right one"
    both = norm * float(np.linalg.norm(ours))
    return f"cosine {float((ours * theirs).sum()) / both:.6f}" if both else "it is 0, and should not be"


def _gauss_newton(arrays, before, vectors, z, output_hessian):
    """Return (J u)ᵀ (∂²f/∂z²) (J v) for all directions, and the errors, by differences of the outputs."""
    moved = [
        _along(arrays, before, name, v[name], lambda: {"z": np.array(move(z(), "numpy"), np.float64)})
        for name, v in vectors
    ]
    curved = [np.asarray(output_hessian(dz["z"]), np.float64) for dz, _ in moved]
    theirs = np.array([[float((dz["z"] * c).sum()) for c in curved] for dz, _ in moved])
    sizes = np.array([float(np.linalg.norm(c)) for c in curved])
    off = np.array([error["z"] for _, error in moved])
    errors = off[:, None] * sizes[None, :]
    return theirs, errors + errors.T


def _is_positive(ours, theirs, errors, rtol):
    """Look whether a Gauss-Newton matrix that should have none has a direction below 0."""
    if not (np.diag(theirs) >= 0).all():
        return []
    least = float(np.diag(ours).min())
    passed = least >= -rtol * float(np.abs(theirs).max()) - float(np.diag(errors).max())
    notes = () if passed else (f"vᵀG v is {least:.3g} along a direction; a Gauss-Newton matrix has none below 0",)
    return [Row("gauss_newton ≥ 0", passed, len(ours), 0, abs(least), None, None, None, notes)]
