"""Layers, each of which has y = f(x) and, under it, ∂bound/∂x from ∂bound/∂y.

Arrays hold one datapoint per row: x is (M, n_in) and y is (M, n_out).

`forward` keeps on `self` what `backward` needs, and each forward is followed by at most one backward. `backward`
overwrites the gradient windows of the layer and returns the gradient of its input. A layer therefore serves one thread
at a time. A part of it that is `fused` can become one kernel on the device (see `backend.fused`).

A layer does not make its parameters. It says in `shapes` which arrays it needs, for instance {"W": (784, 500), "b":
(500,)}. `nets.params.Params` lays all arrays of a model in one flat vector and then assigns `W` and `b`, windows on the
values, and `dW` and `db`, the same windows on the gradients.
"""

import numpy as np

from scratchvae.backend import fused, writable


class Layer:
    """What a layer has unless it says otherwise: no parameters, and gradients that are not frozen.

    While `frozen` is set, `backward` leaves the gradients of the parameters as they are and returns that of the input.
    """

    shapes = {}  # noqa: RUF012  a constant: a layer with parameters assigns its own
    frozen = False

    def __setstate__(self, state):
        """Take over a copied or unpickled state; arrays that a memory map made read-only are copied."""
        self.__dict__.update({name: writable(value) for name, value in state.items()})


class Linear(Layer):
    """y = x W + b, an affine map of appendix C of Kingma & Welling, "Auto-Encoding Variational Bayes".

    Our rows are datapoints, so W is the transpose of the paper's. name is the name under which the parameters are
    known. With reads_data=True, which is not the default, x is the data, whose gradient nobody needs, and `backward`
    returns None.
    """

    def __init__(self, name, n_in, n_out, reads_data=False):
        self.name = name
        self.shapes = {"W": (n_in, n_out), "b": (n_out,)}
        self.reads_data = reads_data

    def forward(self, x):
        self.x = x
        y = x @ self.W
        y += self.b
        return y

    def backward(self, dy):
        if not self.frozen:
            np.matmul(self.x.T, dy, out=self.dW)  # y_mo = Σ_i x_mi W_io + b_o:   ∂y_mo/∂W_io = x_mi
            np.sum(dy, axis=0, out=self.db)  # ∂y_mo/∂b_o = 1 in each of the M rows
        return None if self.reads_data else dy @ self.W.T  # ∂y_mo/∂x_mi = W_io


class LocalLinear(Layer):
    """An affine map whose weights are drawn anew for every row, W ~ N(μ_W, σ_W²) and b ~ N(μ_b, σ_b²).

        y = x μ_W + μ_b + √v ⊙ ζ,   v = x² σ_W² + σ_b²

    (Kingma, Salimans & Welling 2015, "Variational Dropout and the Local Reparameterization Trick", section 2.3). Only
    the sum is drawn, by ζ, since the variance of a sum of independent terms is the sum of their variances.

    mean and log_sigma are the `Linear` layers whose windows are μ and log σ; this layer has no parameters of its own.
    zeta (M, n_out) is set before `forward`.
    """

    def __init__(self, mean, log_sigma):
        self.name = mean.name
        self.mean = mean
        self.log_sigma = log_sigma
        self.n_out = mean.shapes["b"][0]

    def forward(self, x):
        self.var_W = np.exp(2 * self.log_sigma.W)
        self.var_b = np.exp(2 * self.log_sigma.b)
        self.x2 = x * x
        self.sd = np.sqrt(self.x2 @ self.var_W + self.var_b)
        return self.mean.forward(x) + self.sd * self.zeta

    def backward(self, dy):
        dv = dy * self.zeta / (2 * self.sd)  # ∂y/∂v = ζ / 2√v
        self.log_sigma.dW[...] = 2 * self.var_W * (self.x2.T @ dv)  # ∂v/∂σ_W² = x²     dσ²/dlog σ = 2σ²
        self.log_sigma.db[...] = 2 * self.var_b * dv.sum(axis=0)  # ∂v/∂σ_b² = 1
        dx = self.mean.backward(dy)
        if dx is None:  # x is the data
            return None
        return dx + 2 * self.mean.x * (dv @ self.var_W.T)  # through the mean, and through v: ∂v/∂x = 2 x σ_W²


class Constant(Layer):
    """y = b for every x: n numbers that depend on nothing and are learned like any bias."""

    def __init__(self, name, n):
        self.name = name
        self.shapes = {"b": (n,)}

    def forward(self, x):
        return self.b

    def backward(self, dy):
        if not self.frozen:
            self.db[...] = dy.sum() if len(self.b) == 1 else dy.sum(axis=0)  # every row, and every pixel, reads b
        return None  # ∂y/∂x = 0


class Tanh(Layer):
    """y = tanh x."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return Tanh.dx(dy, self.y)

    @staticmethod
    @fused
    def dx(dy, y):
        return dy * (1 - y * y)  # tanh' = 1 - tanh²


class ReLU(Layer):
    """y = max(x, 0)."""

    def forward(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy):
        return ReLU.dx(dy, self.y)

    @staticmethod
    @fused
    def dx(dy, y):
        return dy * (y > 0)  # relu' = 1 where x > 0, and 0 below; at the kink it is taken as 0


class Sigmoid(Layer):
    """y = 1 / (1 + e⁻ˣ)."""

    def forward(self, x):
        self.y = sigmoid(x)
        return self.y

    def backward(self, dy):
        return Sigmoid.dx(dy, self.y)

    @staticmethod
    @fused
    def dx(dy, y):
        return dy * y * (1 - y)  # σ' = σ (1 - σ)


class Softplus(Layer):
    """y = log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|)."""

    temporaries = 6  # arrays as wide as x that a pass holds at once; those of the others are 3

    def forward(self, x):
        self.x = x
        return Softplus.f(x)

    def backward(self, dy):
        return Softplus.dx(dy, self.x)

    @staticmethod
    @fused
    def f(x):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    @staticmethod
    @fused
    def dx(dy, x):
        return dy * sigmoid(x)  # d log(1 + eˣ)/dx = σ(x)


class Chain:
    """f_n ∘ … ∘ f_1: any number of layers, one after another. A chain without layers is the identity."""

    def __init__(self, layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):  # the chain rule
            dy = layer.backward(dy)
        return dy


class JoinedChain(Chain):
    """g(f(x), y): the last columns of a row, y, pass the layers of f by and come in beside what they have made of x.

    They are for numbers beside an image, such as its label, which convolutions cannot read. before and after list the
    layers of f and g, and n_beside is how many columns y has.
    """

    def __init__(self, before, after, n_beside):
        super().__init__([*before, *after])
        self.before = Chain(before)
        self.after = Chain(after)
        self.n_beside = n_beside

    def forward(self, x):
        h = self.before.forward(x[:, : -self.n_beside])
        return self.after.forward(np.concatenate([h, x[:, -self.n_beside :]], axis=1))

    def backward(self, dy):
        dh = self.after.backward(dy)
        return self.before.backward(dh[:, : -self.n_beside])  # y is data, whose gradient nobody needs


@fused
def sigmoid(x):
    """Return 1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^-|x|): no exponent is positive, so nothing overflows at any x."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
