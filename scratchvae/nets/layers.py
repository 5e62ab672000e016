"""Layers: y = f(x) and, under it, ∂bound/∂x from ∂bound/∂y.

`forward` keeps on `self` what `backward` needs; each forward is followed by at most one backward. `backward`
overwrites the layer's gradient windows and returns the gradient of its input. Rows are datapoints: x is (M, n_in),
y is (M, n_out).
"""

import numpy as np


class Linear:
    """y = x W + b: one affine map of appendix C. Our rows are datapoints, so W is the transpose of the paper's.

    reads_data: the input is the data, whose gradient nobody needs, and `backward` returns None.
    frozen: while it is set, `backward` leaves dW and db alone and returns the gradient of its input.
    """

    frozen = False

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
            np.sum(dy, axis=0, out=self.db)  # ∂y_mo/∂b_o = 1
        return None if self.reads_data else dy @ self.W.T  # ∂y_mo/∂x_mi = W_io


class LocalLinear:
    """y = x W + b with W ~ N(μ_W, σ_W²), b ~ N(μ_b, σ_b²) drawn anew for every row, and only the sum drawn, by zeta:

        y = x μ_W + μ_b + √v ⊙ ζ,   v = x² σ_W² + σ_b²         (Kingma, Salimans & Welling 2015, section 2.3)

    the variance of a sum of independent terms being the sum of theirs. mean, log_sigma: the `Linear`s whose windows are
    μ and log σ; it has no parameters of its own. zeta (M, n_out) is set before `forward`.
    """

    shapes = {}  # noqa: RUF012

    def __init__(self, mean, log_sigma):
        self.name, self.mean, self.log_sigma, self.n_out = mean.name, mean, log_sigma, mean.shapes["b"][0]

    def forward(self, x):
        self.var_W, self.var_b = np.exp(2 * self.log_sigma.W), np.exp(2 * self.log_sigma.b)
        self.x2 = x * x
        self.sd = np.sqrt(self.x2 @ self.var_W + self.var_b)
        return self.mean.forward(x) + self.sd * self.zeta

    def backward(self, dy):
        dv = dy * self.zeta / (2 * self.sd)  # ∂y/∂v = ζ / 2√v
        self.log_sigma.dW[...] = 2 * self.var_W * (self.x2.T @ dv)  # ∂v/∂σ_W² = x²     dσ²/dlog σ = 2σ²
        self.log_sigma.db[...] = 2 * self.var_b * dv.sum(axis=0)  # ∂v/∂σ_b² = 1
        dx_v = 2 * self.mean.x * (dv @ self.var_W.T)  # ∂v/∂x = 2 x σ_W²
        return self.mean.backward(dy) + dx_v  # x moves both mean and variance


class Constant:
    """n numbers b that depend on nothing, learned like any bias."""

    frozen = False

    def __init__(self, name, n):
        self.name, self.shapes = name, {"b": (n,)}

    def backward(self, db):
        if not self.frozen:
            self.db[...] = db


class Tanh:
    """y = tanh x."""

    shapes = {}  # noqa: RUF012  no parameters

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y * self.y)  # tanh' = 1 - tanh²


class ReLU:
    """y = max(x, 0)."""

    shapes = {}  # noqa: RUF012

    def forward(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy):
        return dy * (self.y > 0)  # 1 where x > 0; the derivative at the kink is taken as 0


class Sigmoid:
    """y = 1 / (1 + e⁻ˣ)."""

    shapes = {}  # noqa: RUF012

    def forward(self, x):
        self.y = sigmoid(x)
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)  # σ' = σ (1 - σ)


class Softplus:
    """y = log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|)."""

    shapes = {}  # noqa: RUF012

    def forward(self, x):
        self.x = x
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def backward(self, dy):
        return dy * sigmoid(self.x)  # d log(1 + eˣ)/dx = σ(x)


class Chain:
    """f_n ∘ … ∘ f_1: any number of layers, one after another; none at all is the identity."""

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


def sigmoid(x):
    """1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^-|x|): no exponent is positive, so nothing overflows at any x."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
