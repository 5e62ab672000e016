"""Convolutions as matrix products over patch views, forward and hand-derived backward side by side.

Images are rows, as everywhere: x is (M, H W C), pixel by pixel, the C channels of a pixel side by side. A patch is the
K x K pixels under one position of the kernel; `patches` lays them out as rows of a matrix, and then a convolution is
an affine map of each:

    y = patches(x) W + b,   patches (M H' W', K K C),   W (K K C, C'),   H' = ⌊(H + 2 padding - K)/stride⌋ + 1

`patches` is linear in x. Its transpose, `patches_transposed`, adds every entry of a patch to the pixel that it came
from; it is what a gradient goes back through, and what a transposed convolution goes forward through.
"""

import math

import numpy as np

from scratchvae.nets.layers import Chain
from scratchvae.nets.mlp import ACTIVATIONS, mlp


class Geometry:
    """How a kernel of `size` with `stride` and `padding` lies on images of `shape` (H, W, C), and (H', W') it gives."""

    def __init__(self, shape, size, stride=1, padding=0):
        self.shape, self.size, self.stride, self.padding = shape, size, stride, padding
        self.positions = tuple((n + 2 * padding - size) // max(stride, 1) + 1 for n in shape[:2])
        if size < 1 or stride < 1 or padding < 0 or min(self.positions) < 1:
            raise ValueError(
                f"kernel {size}, stride {stride}, padding {padding} do not fit images of {shape[0]} x {shape[1]}: "
                "expected kernel and stride ≥ 1, padding ≥ 0, and at least one position"
            )

    def patches(self, x):
        """(M H' W', K K C) from x (M, H W C), zeros around it."""
        (H, W, C), (h, w), K, p = self.shape, self.positions, self.size, self.padding
        padded = np.zeros_like(x, shape=(len(x), H + 2 * p, W + 2 * p, C))
        padded[:, p : p + H, p : p + W] = x.reshape(-1, H, W, C)
        rows = np.empty_like(x, shape=(len(x), h, w, K, K, C))
        for i, j, view in self._views(padded):
            rows[:, :, :, i, j] = view
        return rows.reshape(-1, K * K * C)

    def patches_transposed(self, rows):
        """x (M, H W C) with every entry of rows (M H' W', K K C) added to the pixel that `patches` took it from."""
        (H, W, C), (h, w), K, p = self.shape, self.positions, self.size, self.padding
        rows = rows.reshape(-1, h, w, K, K, C)
        padded = np.zeros_like(rows, shape=(len(rows), H + 2 * p, W + 2 * p, C))
        for i, j, view in self._views(padded):
            view += rows[:, :, :, i, j]
        return padded[:, p : p + H, p : p + W].reshape(-1, H * W * C)

    def n_entries(self):
        """How many numbers the patches of one image are."""
        return math.prod(self.positions) * self.size**2 * self.shape[2]

    def _views(self, padded):
        """What the kernel's pixel (i, j) lies on, at every position: (i, j, view (M, H', W', C))."""
        (h, w), s = self.positions, self.stride
        for i in range(self.size):
            for j in range(self.size):
                yield i, j, padded[:, i : i + s * h : s, j : j + s * w : s]


class Conv2d:
    """y = patches(x) W + b: x (M, H W C) to y (M, H' W' C'). shape is (H, W, C); reads_data, frozen as of `Linear`."""

    frozen = False

    def __init__(self, name, shape, n_out, size, stride=1, padding=0, reads_data=False):
        self.name, self.reads_data = name, reads_data
        self.geometry = Geometry(shape, size, stride, padding)
        self.out_shape = (*self.geometry.positions, n_out)
        self.shapes = {"W": (size * size * shape[2], n_out), "b": (n_out,)}

    def forward(self, x):
        self.rows = self.geometry.patches(x)
        y = self.rows @ self.W
        y += self.b
        return y.reshape(len(x), -1)

    def backward(self, dy):
        dy = dy.reshape(len(self.rows), -1)
        if not self.frozen:
            np.matmul(self.rows.T, dy, out=self.dW)  # y_ro = Σ_i rows_ri W_io + b_o:   ∂y_ro/∂W_io = rows_ri
            np.sum(dy, axis=0, out=self.db)  # ∂y_ro/∂b_o = 1
        # ∂y_ro/∂rows_ri = W_io, and from the rows to x by the transpose
        return None if self.reads_data else self.geometry.patches_transposed(dy @ self.W.T)


class ConvTranspose2d:
    """y = patchesᵀ(x Wᵀ) + b: x (M, H' W' C') to y (M, H W C), the transpose of a `Conv2d` from `shape` (H, W, C).

    It is built from the shape of its output, which the other way leaves open: H = 6 and 7 both give H' = 3 under K = 4,
    stride 2, padding 1. in_channels is C'. Every output pixel of a channel has the same b.
    """

    frozen = False

    def __init__(self, name, in_channels, shape, size, stride=1, padding=0):
        self.name, self.out_shape = name, shape
        self.geometry = Geometry(shape, size, stride, padding)
        self.in_shape = (*self.geometry.positions, in_channels)
        self.shapes = {"W": (size * size * shape[2], in_channels), "b": (shape[2],)}

    def forward(self, x):
        self.x = x.reshape(-1, self.in_shape[2])
        y = self.geometry.patches_transposed(self.x @ self.W.T)
        y.reshape(-1, self.out_shape[2])[...] += self.b
        return y

    def backward(self, dy):
        rows = self.geometry.patches(dy)  # y = patchesᵀ(r): ∂/∂r = patches(dy)
        if not self.frozen:
            np.matmul(rows.T, self.x, out=self.dW)  # r_mi = Σ_o x_mo W_io:   ∂r_mi/∂W_io = x_mo
            np.sum(dy.reshape(-1, self.out_shape[2]), axis=0, out=self.db)
        return (rows @ self.W).reshape(len(dy), -1)  # ∂r_mi/∂x_mo = W_io


KERNEL = {"size": 4, "stride": 2, "padding": 1}  # halves an even side; all but the border lies under four patches


def conv_encoder(name, shape, channels, widths, activation):
    """Images (H, W, C) through a Conv2d for each of `channels`, each halving the side, then an MLP: as `mlp` does."""
    layers = []
    for k, n_out in enumerate(channels, start=1):
        if min(shape[:2]) < KERNEL["stride"]:
            raise ValueError(f"channels is {channels}; these images can be halved {k - 1} times: take fewer channels")
        layers += [Conv2d(f"{name}.conv{k}", shape, n_out, **KERNEL, reads_data=k == 1), ACTIVATIONS[activation]()]
        shape = layers[-2].out_shape
    dense, head = mlp(name, math.prod(shape), widths, activation)
    return Chain([*layers, *dense.layers]), head


def conv_decoder(name, n_in, shape, channels, widths, activation):
    """The way back: an MLP, then a ConvTranspose2d for each of `channels` to (H, W, C), the last as head: as `mlp`."""
    shapes = [shape]
    for n_out in channels:
        shapes.append((*Geometry(shapes[-1], **KERNEL).positions, n_out))
    layers = mlp(name, n_in, [*widths, math.prod(shapes[-1])], activation)[0].layers
    for k in range(len(channels), 1, -1):
        layers += [ConvTranspose2d(f"{name}.conv{k}", channels[k - 1], shapes[k - 1], **KERNEL)]
        layers += [ACTIVATIONS[activation]()]
    return Chain(layers), lambda key, n_out: ConvTranspose2d(f"{name}.{key}", channels[0], shape, **KERNEL)
