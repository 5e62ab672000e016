"""Exercises on layers: the chain rule for one function, for an affine map, and for two heads that read one array."""

import numpy as np

from scratchvae.exercises.exercise import Exercise, gaussians
from scratchvae.nets.heads import Network
from scratchvae.nets.layers import Chain, Linear, Sigmoid, Softplus, Tanh
from scratchvae.nets.params import Params


def back(layer, x, dy):
    """Return what a layer without parameters gives back for x and the gradient of its output."""
    layer.forward(x)
    return layer.backward(dy)


def linears(*weights):
    """Return a `Linear` layer for each of some matrices, with biases of 0."""
    layers = [Linear(str(k), *W.shape) for k, W in enumerate(weights)]
    Params(layers, np.float64)
    for layer, W in zip(layers, weights, strict=True):
        layer.W[...] = W
    return layers


def naive_sigmoid(a):
    """Return 1/(1 + e⁻ᵃ) as it is written."""
    return 1 / (1 + np.exp(-a))


# tanh


def tanh_backward(x, dy):
    """Return dx (M, n), the gradient of the bound with respect to x, where y = tanh x.

    x    is the input of the layer, (M, n).
    dy   is the gradient of the bound with respect to y, (M, n).
    """
    raise NotImplementedError


TANH = Exercise(
    tanh_backward,
    title="back through tanh",
    statement="""
        A layer computes y = tanh x, entry by entry. The layers after it have told how the bound changes with y: dy =
        ∂bound/∂y. Say how the bound changes with x.

            ∂bound/∂x = ∂bound/∂y · ∂y/∂x

        Compute y = tanh x once: ∂y/∂x is a function of y alone.
        """,
    results=("dx",),
    arguments=gaussians(x=(5, 3), dy=(5, 3)),
    naive=lambda x, dy: dy * (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    library=lambda x, dy: (back(Tanh(), x, dy),),
    exact_case="at x = ln 2, tanh x is 3/5 and its slope 16/25",
    exact=lambda answer: (answer(x=np.full((1, 1), np.log(2)), dy=np.ones((1, 1))), 16 / 25),
    hint="Differentiate y = sinh x / cosh x by the rule of the quotient. What is cosh² - sinh²?",
    reading="networks.html#tanh",
    mistakes={
        "dy is missing: this is the slope of tanh alone": lambda x, dy: (1 - np.tanh(x) ** 2,),
        "the slope is taken as 1 - x²: the square is that of y": lambda x, dy: (dy * (1 - x * x),),
        "the slope is taken as 1 - y: y has to be squared": lambda x, dy: (dy * (1 - np.tanh(x)),),
    },
)


# The logistic function


def sigmoid_backward(a, dy):
    """Return da (M, n), the gradient of the bound with respect to a, where y = 1/(1 + e⁻ᵃ).

    a    is the input of the layer, (M, n). It may be as large as 800, or as small as -800.
    dy   is the gradient of the bound with respect to y, (M, n).
    """
    raise NotImplementedError


SIGMOID = Exercise(
    sigmoid_backward,
    title="back through the logistic function",
    statement="""
        The means of the pixels are y = σ(a) = 1/(1 + e⁻ᵃ). Return the gradient with respect to a, from dy = ∂bound/∂y.
        Here σ is the logistic function, and no standard deviation.

        Your lines have to hold at any a: at -800 the number e⁸⁰⁰ is more than a float can hold.
        """,
    results=("da",),
    arguments=gaussians(a=(5, 3), dy=(5, 3)),
    naive=lambda a, dy: dy * naive_sigmoid(a),
    library=lambda a, dy: (back(Sigmoid(), a, dy),),
    exact_case="the slope at 0 is ¼, and at ±800 it is 0",
    exact=lambda answer: (answer(a=np.array([[0.0, 800, -800]]), dy=np.ones((1, 3))), np.array([[0.25, 0, 0]])),
    hint="The slope is y (1 - y). For a < 0, multiply above and below by eᵃ: then no exponent is positive.",
    reading="networks.html#eq-11",
    mistakes={
        "dy is missing: this is the slope of σ alone": lambda a, dy: (naive_sigmoid(a) * (1 - naive_sigmoid(a)),),
        "the slope is taken as a (1 - a): it is y (1 - y)": lambda a, dy: (dy * a * (1 - a),),
        "the slope is taken as 1 - y², which is that of tanh": lambda a, dy: (dy * (1 - naive_sigmoid(a) ** 2),),
    },
)


# log(1 + eᵃ)


def softplus(a):
    """Return (y, da): y = log(1 + eᵃ) (M, n), and its derivative by a (M, n), entry by entry.

    a   is (M, n). It may be as large as 800, or as small as -800.
    """
    raise NotImplementedError


def back_softplus(a):
    """Return log(1 + eᵃ) and its derivative by the library's layer."""
    layer = Softplus()
    return layer.forward(a), layer.backward(np.ones_like(a))


SOFTPLUS = Exercise(
    softplus,
    title="log(1 + eᵃ) that holds for any a",
    statement="""
        The function log(1 + eᵃ) stands in the density of a binary pixel (11). Return its value, and its derivative
        with respect to a.

        As it is written, it is infinite at a = 800, where the right number is 800, and it is 0 at a = -40, where the
        right number is e⁻⁴⁰. Write it so that it is exact at both.
        """,
    results=("y", "da"),
    arguments=gaussians(a=(5, 3)),
    naive=lambda a: np.log(1 + np.exp(a)),
    library=back_softplus,
    exact_case="at 0 it is ln 2 with the slope ½, at 800 it is 800 with the slope 1, at -40 both are e⁻⁴⁰",
    exact=lambda answer: (
        np.array([answer(a=np.array([[0.0, 800]])), np.exp(40) * np.array(answer(a=np.full((1, 2), -40.0)))]),
        np.array([[[[np.log(2), 800]], [[0.5, 1]]], [[[1.0, 1]], [[1.0, 1]]]]),
    ),
    hint="log(1 + eᵃ) = max(a, 0) + log(1 + e^-|a|), and np.log1p(x) is log(1 + x), exact for a small x.",
    reading="numerics.html#numerics",
    mistakes={
        "the derivative is that of eᵃ alone: the chain rule divides it by 1 + eᵃ": lambda a: (None, np.exp(a)),
        "the derivative is 1/(1 + eᵃ), which belongs to -log(1 + e⁻ᵃ) and falls with a": lambda a: (
            None,
            naive_sigmoid(-a),
        ),
        "this is log(1 + e⁻ᵃ): the sign of a": lambda a: (np.log(1 + np.exp(-a)), -naive_sigmoid(-a)),
    },
)


# An affine map


def affine_backward(x, W, b, dy):
    """Return (dx, dW, db), the gradients of the bound with respect to x, W and b, where y = x W + b.

    x    holds a datapoint in each row, (M, n).
    W    is the matrix, (n, n), and b (n,) is added to every row.
    dy   is the gradient of the bound with respect to y, (M, n).
    """
    raise NotImplementedError


def library_affine(x, W, b, dy):
    """Return the gradients by the layer `Linear`."""
    (layer,) = linears(W)
    layer.forward(x)
    return layer.backward(dy), layer.dW, layer.db


AFFINE = Exercise(
    affine_backward,
    title="back through an affine map",
    statement="""
        A layer computes y = x W + b for M datapoints at once, one in each row. Return the gradients of the bound with
        respect to all three, from dy = ∂bound/∂y. In components:

            y_mo = Σ_i x_mi W_io + b_o

        W is square here, so that the shapes do not tell which matrix is transposed.
        """,
    results=("dx", "dW", "db"),
    arguments=gaussians(x=(5, 3), W=(3, 3), b=(3,), dy=(5, 3)),
    naive=lambda x, W, b, dy: dy * ((x[:, :, None] * W).sum(axis=1) + b),
    library=library_affine,
    exact_case="with x = I, dW is dy itself, and with dy = I, dx is Wᵀ and db is 1",
    exact=lambda answer: (
        np.stack(
            [
                answer(x=np.eye(3), W=np.eye(3), b=np.zeros(3), dy=np.arange(9.0).reshape(3, 3))[1],
                answer(x=np.eye(3), W=np.arange(9.0).reshape(3, 3), b=np.zeros(3), dy=np.eye(3))[0],
            ]
        ),
        np.stack([np.arange(9.0).reshape(3, 3), np.arange(9.0).reshape(3, 3).T]),
    ),
    hint="Which y_mo does W_io move, and how much? Sum over all of them. Then do the same for x_mi and for b_o.",
    reading="networks.html#linear",
    mistakes={
        "averaged over the M rows, where the bound is their sum": lambda x, W, b, dy: (None, None, dy.mean(axis=0)),
    },
    sizes={"M": 5},
)


# Two heads


def heads_backward(h, W_mu, W_log_var, dmu, dlog_var):
    """Return (dh, dW_mu, dW_log_var), where μ = h W_mu and log σ² = h W_log_var.

    h            is what both heads read, (M, n).
    W_mu         is the matrix of the head that gives μ, (n, J), and W_log_var (n, J) that of the other one.
    dmu          is the gradient of the bound with respect to μ, (M, J).
    dlog_var     is the gradient of the bound with respect to log σ², (M, J).
    """
    raise NotImplementedError


def library_heads(h, W_mu, W_log_var, dmu, dlog_var):
    """Return the gradients by a `Network` with two heads."""
    layers = linears(np.eye(h.shape[1]), W_mu, W_log_var)
    network = Network(Chain(layers[:1]), [Chain([layer]) for layer in layers[1:]])
    network.forward(h)
    return network.backward(dmu, dlog_var), layers[1].dW, layers[2].dW


HEADS = Exercise(
    heads_backward,
    title="two heads that read one h",
    statement="""
        The encoder of appendix C.2 computes one h, and two affine maps read it: μ = h W_mu and log σ² = h W_log_var.
        The biases are left out here. Return the gradients with respect to h and to both matrices.

        A number that is read twice moves the bound in two ways.
        """,
    results=("dh", "dW_mu", "dW_log_var"),
    arguments=gaussians(h=(5, 4), W_mu=(4, 3), W_log_var=(4, 3), dmu=(5, 3), dlog_var=(5, 3)),
    naive=lambda h, W_mu, W_log_var, dmu, dlog_var: (
        dmu * (h[:, :, None] * W_mu).sum(axis=1) + dlog_var * (h[:, :, None] * W_log_var).sum(axis=1)
    ),
    library=library_heads,
    exact_case="where all of them are 1, dh is 2",
    exact=lambda answer: (
        answer(**dict.fromkeys(("h", "W_mu", "W_log_var", "dmu", "dlog_var"), np.ones((1, 1))))[0],
        2,
    ),
    hint="The total derivative of h has a term for each head, and the terms add up.",
    reading="networks.html#heads",
    mistakes={
        "what flows back through the head of log σ² is missing": lambda h, W_mu, W_log_var, dmu, dlog_var: (
            dmu @ W_mu.T,
            None,
            None,
        ),
        "what flows back through the head of μ is missing": lambda h, W_mu, W_log_var, dmu, dlog_var: (
            dlog_var @ W_log_var.T,
            None,
            None,
        ),
        "exchanged: each head has the gradient of the other one's output": lambda h, W_mu, W_log_var, dmu, dlog_var: (
            dmu @ W_log_var.T + dlog_var @ W_mu.T,
            h.T @ dlog_var,
            h.T @ dmu,
        ),
    },
    sizes={"M": 5},
)
