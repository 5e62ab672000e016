"""Says in plain dicts and lists which layers the networks of a model have, as vae.js and layers.js read it."""

import numpy as np

from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.nets.conv import Conv2d, ConvTranspose2d
from scratchvae.nets.layers import JoinedChain, Linear, ReLU, Sigmoid, Softplus, Tanh

PLAIN = {Tanh: "tanh", ReLU: "relu", Softplus: "softplus", Sigmoid: "sigmoid"}
MEANS = {  # how vae.js makes E[x|z] of the first output
    "bernoulli": "sigmoid",
    "gaussian": "itself",
    "isotropic": "itself",
    "continuous-bernoulli": "continuous Bernoulli",
    "laplace": "itself",
}


class Weights:
    """Arrays one after another in one flat vector of float16."""

    def __init__(self):
        self.parts = []
        self.size = 0

    def add(self, array):
        """Take in an array, row by row, and return at which number of the vector it begins."""
        start = self.size
        self.parts.append(np.ascontiguousarray(array, "<f2").ravel())
        self.size += array.size
        return start

    def tobytes(self):
        """Return the vector as bytes, the lower byte of each number first."""
        return b"".join(part.tobytes() for part in self.parts)


def encoder_of(model, weights):
    """Return the encoder of a model as a dict, or None if its posterior is one of the user's own.

    The arrays go into `weights`. They are expected to be numbers of float16, as `rounded` leaves them.
    """
    posterior = model.encoder.posterior
    base = posterior.base if isinstance(posterior, Flow) else posterior
    name = _name_among(POSTERIORS, base)
    if name is None:
        return None
    network = model.encoder.network
    return {
        "posterior": name,
        "maps": posterior.n_maps if isinstance(posterior, Flow) else 0,
        "hidden": _layers(network.hidden, weights),
        "heads": [_layers(head, weights) for head in network.heads],
    }


def decoder_of(model, weights):
    """Return the decoder of a model as a dict, without the outputs that E[x|z] does not read.

    For a `FullVB` it is the decoder at the mean of θ. The arrays go into `weights`, as in `encoder_of`. A likelihood of
    the user's own raises a ValueError.
    """
    name = _name_among(LIKELIHOODS, model.likelihood)
    if name is None:
        raise ValueError(
            f"the likelihood {model.config['likelihood']!r} is one of your own, whose mean E[x|z] a page cannot "
            "compute: scratchvae.plots.draw_run draws the pictures of such a model, as scratchvae plot does for a run"
        )
    network = model.decoder.network
    return {
        "hidden": _layers(network.hidden, weights),
        "head": _layers(network.heads[0], weights),  # logits or μ, the first output of each of our likelihoods
        "mean": MEANS[name],
    }


def _name_among(ours, thing):
    """Return the name of the class of `thing` among `ours`, or None: one that inherits from ours may differ from it."""
    return next((name for name, kind in ours.items() if type(thing) is kind), None)


def _layers(chain, weights):
    """Return the layers of a `Chain` as a list of dicts.

    In a `JoinedChain` one more says how many of the last numbers pass the layers before it by.
    """
    layers = [_layer(layer, weights) for layer in chain.layers]
    if isinstance(chain, JoinedChain):
        layers.insert(len(chain.before.layers), {"kind": "join", "n": chain.n_beside})
    return layers


def _layer(layer, weights):
    """Return a layer as a dict: what it is, its sizes, and where its arrays begin in `weights`."""
    if type(layer) in PLAIN:
        return {"kind": PLAIN[type(layer)]}
    arrays = {key: weights.add(getattr(layer, key)) for key in layer.shapes}
    if type(layer) is Linear:
        n_in, n_out = layer.shapes["W"]
        return {"kind": "linear", "n_in": n_in, "n_out": n_out, **arrays}
    kinds = {Conv2d: "convolution", ConvTranspose2d: "transposed convolution"}
    geometry = layer.geometry
    return {
        "kind": kinds[type(layer)],
        "shape": list(geometry.shape),
        "positions": list(geometry.positions),
        "size": geometry.patch[0],
        "stride": geometry.stride,
        "padding": geometry.padding,
        "channels": layer.shapes["W"][1],  # C', those of the other side
        **arrays,
    }
