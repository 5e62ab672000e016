"""Convolutions as matrix products over patches, with each hand-derived backward beside its forward.

Images are rows, one datapoint per row, as everywhere: x is (M, H W C), pixel by pixel, with the C channels of a pixel
side by side. A patch consists of the K x K pixels under one position of the kernel. `patches` lays the patches out as
rows of a matrix, and a convolution is then an affine map of each row:

    y = patches(x) W + b,   patches (M H' W', K K C),   W (K K C, C'),   H' = ⌊(H + 2 padding - K)/stride⌋ + 1

`patches` is linear in x. Its transpose, `patches_transposed`, adds every entry of a patch to the pixel that it came
from. A gradient goes backward through it, and a transposed convolution goes forward through it.

The layers keep the protocol of nets/layers.py. `name` is the name under which the parameters are known. `shape` is
(H, W, C); `size` is K, the side of the kernel; `stride` is the step from one position of the kernel to the next, 1
unless given; and `padding` is the number of zero pixels around the image, 0 unless given.
"""

import math

import numpy as np

from scratchvae.nets.layers import Chain, JoinedChain, Layer
from scratchvae.nets.mlp import ACTIVATIONS, mlp


class Geometry:
    """The positions of a kernel on images of one shape, and the two maps between images and patches.

    shape, size, stride and padding are those of the module's docstring. positions is (H', W'), how many positions the
    kernel has. A kernel that has none, and other numbers that make no sense, raise a ValueError.
    """

    def __init__(self, shape, size, stride=1, padding=0):
        H, W, C = shape
        h, w = self.positions = tuple((n + 2 * padding - size) // max(stride, 1) + 1 for n in (H, W))
        if size < 1 or stride < 1 or padding < 0 or min(h, w) < 1:
            raise ValueError(
                f"kernel {size}, stride {stride}, padding {padding} do not fit images of {H} x {W}: "
                "expected kernel and stride ≥ 1, padding ≥ 0, and at least one position"
            )
        self.shape = shape
        self.stride = stride
        self.padding = padding
        self.patch = (size, size, C)
        self.padded = (H + 2 * padding, W + 2 * padding, C)
        self.inside = (slice(None), slice(padding, padding + H), slice(padding, padding + W))  # of the padded images
        self.rows = [slice(i, i + stride * h, stride) for i in range(size)]  # those under the kernel's row i
        self.columns = [slice(j, j + stride * w, stride) for j in range(size)]  # those under its column j

    def patches(self, x):
        """Return the patches of images x (M, H W C), (M H' W', K K C), with zeros around each image."""
        padded = np.zeros_like(x, shape=(len(x), *self.padded))
        padded[self.inside] = x.reshape(-1, *self.shape)
        patches = np.empty_like(x, shape=(len(x), *self.positions, *self.patch))
        for i, j in np.ndindex(self.patch[:2]):
            patches[:, :, :, i, j] = padded[:, self.rows[i], self.columns[j]]
        return patches.reshape(-1, math.prod(self.patch))

    def patches_transposed(self, patches):
        """Return images (M, H W C) to whose pixels the entries of patches (M H' W', K K C) are added.

        Each entry is added to the pixel that `patches` would take it from, so that this map is its transpose.
        """
        patches = patches.reshape(-1, *self.positions, *self.patch)
        padded = np.zeros_like(patches, shape=(len(patches), *self.padded))
        for i, j in np.ndindex(self.patch[:2]):
            pixels = padded[:, self.rows[i], self.columns[j]]
            pixels += patches[:, :, :, i, j]  # a view: this adds to `padded`
        return padded[self.inside].reshape(-1, math.prod(self.shape))

    def n_entries(self):
        """Return how many numbers the patches of one image hold, H' W' K K C."""
        return math.prod(self.positions + self.patch)


class Conv2d(Layer):
    """A convolution, y = patches(x) W + b, from x (M, H W C) to y (M, H' W' C').

    shape, size, stride and padding are those of the module's docstring. n_out is C', the number of channels of y.
    reads_data says that x is the data, whose gradient nobody needs, so that `backward` returns None. While `frozen` is
    set, `backward` leaves dW and db alone.
    """

    def __init__(self, name, shape, n_out, size, stride=1, padding=0, reads_data=False):
        self.name = name
        self.reads_data = reads_data
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
        # ∂y_ro/∂rows_ri = W_io, and rows = patches(x), so the gradient goes from rows to x through the transpose.
        return None if self.reads_data else self.geometry.patches_transposed(dy @ self.W.T)


class ConvTranspose2d(Layer):
    """A transposed convolution, y = patchesᵀ(x Wᵀ) + b, from x (M, H' W' C') to y (M, H W C).

    It is the transpose of a `Conv2d` from images of `shape` (H, W, C). It is built from the shape of its output, since
    the shape of its input leaves that open: H = 6 and 7 both give H' = 3 where K = 4, stride is 2 and padding is 1.
    in_channels is C'; size, stride and padding are those of the module's docstring. b has one number for each channel,
    which is added to all of its pixels. While `frozen` is set, `backward` leaves dW and db alone.
    """

    def __init__(self, name, in_channels, shape, size, stride=1, padding=0):
        self.name = name
        self.geometry = Geometry(shape, size, stride, padding)
        self.in_shape = (*self.geometry.positions, in_channels)
        self.shapes = {"W": (size * size * shape[2], in_channels), "b": (shape[2],)}

    def forward(self, x):
        self.x = x.reshape(-1, self.in_shape[2])
        y = self.geometry.patches_transposed(self.x @ self.W.T)
        y.reshape(-1, len(self.b))[...] += self.b
        return y

    def backward(self, dy):
        rows = self.geometry.patches(dy)  # y = patchesᵀ(r), r = x Wᵀ:   ∂bound/∂r = patches(∂bound/∂y)
        if not self.frozen:
            np.matmul(rows.T, self.x, out=self.dW)  # r_mi = Σ_o x_mo W_io:   ∂r_mi/∂W_io = x_mo
            np.sum(dy.reshape(-1, len(self.b)), axis=0, out=self.db)  # ∂y/∂b = 1 at every pixel of the channel
        return (rows @ self.W).reshape(len(dy), -1)  # ∂r_mi/∂x_mo = W_io


# A kernel that halves an even side. All pixels but those of the border lie under four patches.
KERNEL = {"size": 4, "stride": 2, "padding": 1}


def conv_encoder(name, shape, channels, widths, activation, n_beside=0):
    """Make a convolutional encoder net as (Chain, head), to be used like what `mlp` returns.

    Images of `shape` (H, W, C) go through one Conv2d for each entry of `channels`, each of which halves the sides and
    is followed by the activation, and then through the MLP of `widths`. A row has n_beside numbers behind its image, 0
    unless given, and these go to the MLP as they are. Images that cannot be halved so often raise a ValueError.
    """
    layers = []
    for k, n_out in enumerate(channels, start=1):
        if min(shape[:2]) < KERNEL["stride"]:
            raise ValueError(f"channels is {channels}; these images can be halved {k - 1} times: take fewer channels")
        layers += [Conv2d(f"{name}.conv{k}", shape, n_out, **KERNEL, reads_data=k == 1), ACTIVATIONS[activation]()]
        shape = layers[-2].out_shape
    dense, head = mlp(name, math.prod(shape) + n_beside, widths, activation)
    hidden = JoinedChain(layers, dense.layers, n_beside) if n_beside else Chain([*layers, *dense.layers])
    return hidden, head


def conv_decoder(name, n_in, shape, channels, widths, activation):
    """Make a convolutional decoder net as (Chain, head), to be used like what `mlp` returns.

    It goes the way of `conv_encoder` back: n_in latents go through the MLP of `widths`, and then through one
    ConvTranspose2d for each entry of `channels`, from the last to the first, to images of `shape` (H, W, C). The last
    ConvTranspose2d is the head.
    """
    shapes = [shape]
    for n_out in channels:
        shapes.append((*Geometry(shapes[-1], **KERNEL).positions, n_out))
    layers = mlp(name, n_in, [*widths, math.prod(shapes[-1])], activation)[0].layers
    for k in range(len(channels) - 1, 0, -1):
        layers += [ConvTranspose2d(f"{name}.conv{k + 1}", channels[k], shapes[k], **KERNEL), ACTIVATIONS[activation]()]
    return Chain(layers), lambda key, n_out: ConvTranspose2d(f"{name}.{key}", channels[0], shape, **KERNEL)
