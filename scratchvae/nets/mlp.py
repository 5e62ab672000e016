"""The multi-layer perceptron of appendix C of Kingma & Welling, "Auto-Encoding Variational Bayes"."""

from scratchvae.nets.layers import Chain, Linear, ReLU, Sigmoid, Softplus, Tanh

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "softplus": Softplus, "sigmoid": Sigmoid}


def mlp(name, n_in, widths, activation, reads_data=False, linear=Linear):
    """Return (Chain, head): the hidden layers, and a function that makes a layer that reads their output h.

    The hidden layers are h = f(x W + b), one after another. head(key, n_out) makes the affine map "<name>.<key>" from h
    to n_out numbers.

    name         is the name of the network, with which the names of its arrays begin.
    n_in         is the width of x.
    widths       lists the width of each hidden layer. The paper has one layer; without any, h = x.
    activation   names f, a key of ACTIVATIONS. The paper has tanh.
    reads_data   says that x is the data, whose gradient nobody needs; False unless given.
    linear       makes an affine map and is called as `Linear` is, which it is unless given.
    """
    layers = []
    for k, width in enumerate(widths, start=1):
        suffix = "hidden" if len(widths) == 1 else f"hidden{k}"
        layers += [linear(f"{name}.{suffix}", n_in, width, reads_data and k == 1), ACTIVATIONS[activation]()]
        n_in = width
    reads_data = reads_data and not layers
    return Chain(layers), lambda key, n_out: linear(f"{name}.{key}", n_in, n_out, reads_data)
