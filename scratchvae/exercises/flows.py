"""Exercises on planar flows: the map with its log-determinant, and the gradient of the latter."""

import numpy as np

from scratchvae.exercises.exercise import Exercise
from scratchvae.inference.posteriors.flow import Planar


def _arguments(generator):
    w = generator.standard_normal(3)
    u = generator.standard_normal(3)
    u = u + (1.3 - w @ u) * w / (w @ w)  # w·u = 1.3: the map has an inverse, and u need not be made to fit
    return {"z": generator.standard_normal((5, 3)), "u": u, "w": w, "b": generator.standard_normal(1)}


def _planar(z, u, w, b):
    layer = Planar(1, len(u))
    moved, log_det = layer.forward(z[None], np.concatenate([u, w, b])[None])
    return layer, moved[0], log_det[0]


def _jacobian(row, u, w, b):
    """Return the Jacobian of the map at a row, entry by entry."""
    slope = 1 / np.cosh(w @ row + b[0]) ** 2
    return np.array([[float(i == j) + u[i] * slope * w[j] for j in range(len(u))] for i in range(len(u))])


def _naive_log_det(z, u, w, b):
    return np.array([np.log(np.abs(np.linalg.det(_jacobian(row, u, w, b)))) for row in z])


# The map


def planar(z, u, w, b):
    """Return (moved, log_det): z + u tanh(w·z + b) (M, J), and log|det ∂moved/∂z| (M,) for each row.

    z   holds the draws, (M, J).
    u   and w are vectors, (J,), and b (1,) is an array with one number.
    """
    raise NotImplementedError


def _off(of_log_det):
    """Return a function of the arguments whose log-determinant is made of the terms t = tanh(w·z + b) and a = w·u."""

    def wrong(z, u, w, b):
        return None, of_log_det(np.tanh(z @ w + b), w @ u)

    return wrong


PLANAR = Exercise(
    planar,
    title="a planar map and its log-determinant",
    statement="""
        A planar map bends the space along one direction:

            f(z) = z + u tanh(w·z + b)

        A density that is carried along is divided by |det ∂f/∂z|. Return f(z) and the logarithm of this determinant
        for each row. The Jacobian is I plus an outer product, and the determinant of I + u vᵀ is 1 + u·v.
        """,
    results=("moved", "log_det"),
    arguments=_arguments,
    naive=lambda z, u, w, b: (
        np.array([row + u * np.tanh(np.sum(w * row) + b[0]) for row in z]),
        _naive_log_det(z, u, w, b),
    ),
    library=lambda z, u, w, b: _planar(z, u, w, b)[1:],
    exact_case="at w·z + b = 0 nothing is moved, and the log-determinant is log(1 + w·u): log 3 for w = u = (1, 1)",
    exact=lambda answer: (
        np.concatenate(
            [one.reshape(-1) for one in answer(z=np.ones((1, 2)), u=np.ones(2), w=np.ones(2), b=-2 * np.ones(1))]
        ),
        [1, 1, np.log(3)],
    ),
    hint="∂tanh(w·z + b)/∂z = (1 - tanh²) w. So v is (1 - tanh²) w, and u·v has one factor for each row.",
    reading="flows.html#planar",
    mistakes={
        "this is the determinant: its logarithm is asked for": _off(lambda t, a: 1 + (1 - t * t) * a),
        "the 1 is missing: the Jacobian is I plus an outer product": _off(lambda t, a: np.log(np.abs((1 - t * t) * a))),
        "tanh stands where its slope 1 - tanh² should": _off(lambda t, a: np.log(np.abs(1 + t * a))),
        "the slope 1 - tanh² is missing": _off(lambda t, a: np.log(np.abs(1 + a + 0 * t))),
        "the sign: the density is divided by the determinant, and the determinant itself is asked for": _off(
            lambda t, a: -np.log(1 + (1 - t * t) * a)
        ),
    },
    sizes={"J": 3},
)


# Its gradient


def planar_backward(z, u, w, b):
    """Return (log_det, du, dw, db): log|det| (M,), and the gradients of its sum over the rows (J,), (J,), (1,).

    z   holds the draws, (M, J).
    u   and w are vectors, (J,), and b (1,) is an array with one number.
    """
    raise NotImplementedError


def _library_backward(z, u, w, b):
    layer, _, log_det = _planar(z, u, w, b)
    gradient = layer.backward(np.zeros((1, *z.shape)), 1.0)[1][0]
    J = len(u)
    return log_det, gradient[:J], gradient[J : 2 * J], gradient[2 * J :]


def _parts(z, u, w, b):
    """Return t, the slope s, w·u, and 1/det, (M, 1) each."""
    t = np.tanh(z @ w + b)[:, None]
    s = 1 - t * t
    return t, s, w @ u, 1 / (1 + s * (w @ u))


def _without_bend(z, u, w, b):
    """Return the gradients with the slope 1 - tanh² held."""
    _, s, _, share = _parts(z, u, w, b)
    return None, None, (share * s * u).sum(axis=0), np.zeros(1)


def _without_outer(z, u, w, b):
    """Return the gradient of w through the slope alone."""
    t, s, a, share = _parts(z, u, w, b)
    return None, None, (share * -2 * t * s * a * z).sum(axis=0), None


PLANAR_BACKWARD = Exercise(
    planar_backward,
    title="the gradient of the planar log-determinant",
    statement="""
        With t = tanh(w·z + b) the log-determinant of a planar map is

            log|det| = log(1 + (1 - t²) w·u)

        Return it for each row, and the gradients of its sum over the rows with respect to u, w and b. Count the ways:
        w stands in two places, once beside u and once inside the tanh. Here 1 + (1 - t²) w·u is above 0.
        """,
    results=("log_det", "du", "dw", "db"),
    arguments=_arguments,
    naive=_naive_log_det,
    library=_library_backward,
    exact_case="at w·z + b = 0 with w = u = (1, 1), log|det| is log 3, du = dw = (⅓, ⅓) and db = 0",
    exact=lambda answer: (
        np.concatenate(
            [one.reshape(-1) for one in answer(z=np.ones((1, 2)), u=np.ones(2), w=np.ones(2), b=-2 * np.ones(1))]
        ),
        [np.log(3), *[1 / 3] * 4, 0],
    ),
    hint="Let s = 1 - t². ∂log det/∂s = w·u/det, ∂s/∂t = -2t, ∂t/∂(w·z + b) = s; and ∂log det/∂(w·u) = s/det.",
    reading="flows.html#planar",
    mistakes={
        "the way through tanh is missing: 1 - t² depends on w and b too": _without_bend,
        "the way beside u is missing: w·u depends on w": _without_outer,
        "1/det is missing: the logarithm has to be differentiated too": lambda z, u, w, b: (
            None,
            (_parts(z, u, w, b)[1] * w).sum(axis=0),
            None,
            None,
        ),
        "averaged over the M rows, where the sum is asked for": lambda z, u, w, b: (
            None,
            *[one / len(z) for one in _library_backward(z, u, w, b)[1:]],
        ),
        "the sign of the way through tanh: ∂(1 - t²)/∂t = -2t": lambda z, u, w, b: (
            None,
            None,
            2 * _without_bend(z, u, w, b)[2] - _library_backward(z, u, w, b)[2],
            -_library_backward(z, u, w, b)[3],
        ),
    },
    sizes={"M": 5, "J": 3},
)
