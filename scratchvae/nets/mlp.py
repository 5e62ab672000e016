"""Appendix C: MLPs whose outputs parameterise a Bernoulli or a Gaussian, as decoder or encoder."""

import numpy as np

from scratchvae.inference.distributions import log_bernoulli, log_gaussian
from scratchvae.nets.layers import Chain, Linear, ReLU, Sigmoid, Softplus, Tanh, sigmoid

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "softplus": Softplus, "sigmoid": Sigmoid}


def hidden_layers(name, n_in, widths, activation, reads_data=False, linear=Linear):
    """h = f(x W + b) once per entry of `widths`; the paper has one hidden layer of tanh units. No widths: h = x.

    linear: what makes an affine map, called as `Linear` is; so everywhere in this file.
    """
    layers = []
    for k, width in enumerate(widths, start=1):
        suffix = "hidden" if len(widths) == 1 else f"hidden{k}"
        layers += [linear(f"{name}.{suffix}", n_in, width, reads_data and k == 1), ACTIVATIONS[activation]()]
        n_in = width
    return Chain(layers), n_in


class BernoulliMLP:
    """C.1: logits = W₂ tanh(W₁ z + b₁) + b₂, and log p(x|z) = Σ_i x_i log y_i + (1 - x_i) log(1 - y_i), y = σ(logits).

    The sigmoid is never applied on the way to the bound: the density takes the logits.
    """

    def __init__(self, name, n_in, widths, n_out, activation="tanh", linear=Linear):
        self.hidden, width = hidden_layers(name, n_in, widths, activation, linear=linear)
        self.logits = linear(f"{name}.logits", width, n_out)
        self.layers = [*self.hidden.layers, self.logits]

    def forward(self, z):
        return self.logits.forward(self.hidden.forward(z))

    def backward(self, dlogits):
        return self.hidden.backward(self.logits.backward(dlogits))

    def mean(self, z):
        """E[x|z] = y = σ(logits), (M, D)."""
        return sigmoid(self.forward(z))

    def draw(self, z, u):
        """x ~ p(x|z): u < y with u uniform on [0, 1), so that P(x = 1) = y, (M, D)."""
        y = self.mean(z)
        return (u < y).astype(y.dtype)

    def log_prob(self, x, z, gradient=True):
        """log p(x|z) (11) in nats, (L, M), for x (M, D) and z (L, M, J)."""
        logits = self.forward(z.reshape(-1, z.shape[-1])).reshape(len(z), *x.shape)
        log_px, self.dlogits = log_bernoulli(x, logits, gradient)
        return log_px

    def log_prob_backward(self, dlog_px):
        """∂/∂z (L, M, J) from `dlog_px` = ∂bound/∂log p(x|z): one number, or an array (L, M, 1)."""
        dlogits = dlog_px * self.dlogits
        return self.backward(dlogits.reshape(-1, dlogits.shape[-1])).reshape(*dlogits.shape[:2], -1)


class GaussianMLP:
    """C.2: h = tanh(W₃ z + b₃), μ = W₄ h + b₄, log σ² = W₅ h + b₅. As the encoder, x and z change places.

    sigmoid_mean: μ = σ(W₄ h + b₄), section 5's decoder for Frey Face, whose pixels lie in [0, 1].
    reads_data: the input is the data: as encoder, the gradient of the input is not computed.
    """

    def __init__(
        self, name, n_in, widths, n_out, activation="tanh", sigmoid_mean=False, reads_data=False, linear=Linear
    ):
        self.hidden, width = hidden_layers(name, n_in, widths, activation, reads_data, linear)
        self.mu = Chain([linear(f"{name}.mu", width, n_out), *([Sigmoid()] if sigmoid_mean else [])])
        self.log_var = linear(f"{name}.log_var", width, n_out)
        self.layers = [*self.hidden.layers, *self.mu.layers, self.log_var]

    def forward(self, z):
        h = self.hidden.forward(z)
        return self.mu.forward(h), self.log_var.forward(h)

    def backward(self, dmu, dlog_var):
        dh = self.mu.backward(dmu) + self.log_var.backward(dlog_var)  # h feeds both: their gradients add
        return self.hidden.backward(dh)

    def mean(self, z):
        """E[x|z] = μ, (M, D)."""
        return self.forward(z)[0]

    def draw(self, z, eps):
        """x = μ + σ ε ~ p(x|z), (M, D)."""
        mu, log_var = self.forward(z)
        return mu + np.exp(0.5 * log_var) * eps

    def log_prob(self, x, z, gradient=True):
        """log p(x|z) (12) in nats, (L, M), for x (M, D) and z (L, M, J)."""
        mu, log_var = (y.reshape(len(z), *x.shape) for y in self.forward(z.reshape(-1, z.shape[-1])))
        log_px, self.dmu, self.dlog_var = log_gaussian(x, mu, log_var, gradient)
        return log_px

    def log_prob_backward(self, dlog_px):
        """∂/∂z (L, M, J) from `dlog_px` = ∂bound/∂log p(x|z): one number, or an array (L, M, 1)."""
        dmu, dlog_var = dlog_px * self.dmu, dlog_px * self.dlog_var
        dz = self.backward(dmu.reshape(-1, dmu.shape[-1]), dlog_var.reshape(-1, dmu.shape[-1]))
        return dz.reshape(*dmu.shape[:2], -1)
