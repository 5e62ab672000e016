"""Appendix C of Kingma & Welling, "Auto-Encoding Variational Bayes": the multi-layer perceptron between two ends."""

from scratchvae.nets.layers import Chain, Linear, ReLU, Sigmoid, Softplus, Tanh

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "softplus": Softplus, "sigmoid": Sigmoid}


def mlp(name, n_in, widths, activation, reads_data=False, linear=Linear):
    """The hidden layers h = f(x W + b), one per entry of `widths`, and what makes a layer that reads h: (Chain, head).

    The paper has one hidden layer of tanh units; without any, h = x. head(key, n_out) makes the affine map
    "<name>.<key>" from h to n_out numbers. `linear` is what makes an affine map, called as `Linear` is. reads_data says
    that x is the data, whose gradient nobody needs.
    """
    layers = []
    for k, width in enumerate(widths, start=1):
        suffix = "hidden" if len(widths) == 1 else f"hidden{k}"
        layers += [linear(f"{name}.{suffix}", n_in, width, reads_data and k == 1), ACTIVATIONS[activation]()]
        n_in = width
    reads_data = reads_data and not layers
    return Chain(layers), lambda key, n_out: linear(f"{name}.{key}", n_in, n_out, reads_data)
