"""Appendix C: MLPs whose outputs parameterise a Bernoulli or a Gaussian, as decoder or encoder."""

import numpy as np

from scratchvae.inference.distributions import log_bernoulli, log_gaussian
from scratchvae.nets.layers import Chain, Constant, Linear, ReLU, Sigmoid, Softplus, Tanh, sigmoid

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "softplus": Softplus, "sigmoid": Sigmoid}


def mlp(name, n_in, widths, activation, reads_data=False, linear=Linear):
    """h = f(x W + b) once per entry of `widths`, and what reads h: (Chain, head). No widths: h = x.

    The paper has one hidden layer of tanh units. head(key, n_out) makes the affine map "<name>.<key>" from h to n_out
    numbers. linear: what makes an affine map, called as `Linear` is. reads_data: x is the data, whose gradient nobody
    needs.
    """
    layers = []
    for k, width in enumerate(widths, start=1):
        suffix = "hidden" if len(widths) == 1 else f"hidden{k}"
        layers += [linear(f"{name}.{suffix}", n_in, width, reads_data and k == 1), ACTIVATIONS[activation]()]
        n_in = width
    reads_data = reads_data and not layers
    return Chain(layers), lambda key, n_out: linear(f"{name}.{key}", n_in, n_out, reads_data)


class BernoulliMLP:
    """C.1: logits = W₂ tanh(W₁ z + b₁) + b₂, and log p(x|z) = Σ_i x_i log y_i + (1 - x_i) log(1 - y_i), y = σ(logits).

    The sigmoid is never applied on the way to the bound: the density takes the logits. hidden, head: as `mlp` or
    `nets.conv` makes them, the Chain from z to h and what makes a layer from h to n_out outputs; so in this whole file.
    """

    def __init__(self, hidden, head, n_out):
        self.hidden, self.logits = hidden, head("logits", n_out)
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
    """

    def __init__(self, hidden, head, n_out, sigmoid_mean=False):
        self.hidden = hidden
        self.mu = Chain([head("mu", n_out), *([Sigmoid()] if sigmoid_mean else [])])
        self.log_var = head("log_var", n_out)
        self.layers = [*self.hidden.layers, *self.mu.layers, self.log_var]

    def forward(self, z):
        h = self.hidden.forward(z)
        return self.mu.forward(h), self.log_var.forward(h)

    def backward(self, dmu, dlog_var):
        return self.hidden.backward(_sum(self.mu.backward(dmu), self.log_var.backward(dlog_var)))

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


class IsotropicMLP:
    """C.2 with one σ² for all pixels and all z: p(x|z) = N(μ(z), σ² I), as in probabilistic PCA; log σ² is learned.

    Without hidden layers it is a linear VAE's decoder (Lucas et al. 2019).
    """

    def __init__(self, name, hidden, head, n_out, sigmoid_mean=False):
        self.net = Chain([*hidden.layers, head("mu", n_out), *([Sigmoid()] if sigmoid_mean else [])])
        self.noise = Constant(f"{name}.log_var", 1)
        self.layers = [*self.net.layers, self.noise]

    def forward(self, z):
        return self.net.forward(z), self.noise.b

    def backward(self, dmu, dlog_var):
        self.noise.backward(dlog_var)
        return self.net.backward(dmu)

    def mean(self, z):
        """E[x|z] = μ, (M, D)."""
        return self.net.forward(z)

    def draw(self, z, eps):
        """x = μ + σ ε ~ p(x|z), (M, D)."""
        return self.net.forward(z) + np.exp(0.5 * self.noise.b) * eps

    def log_prob(self, x, z, gradient=True):
        """log p(x|z) (12) in nats, (L, M), for x (M, D) and z (L, M, J)."""
        mu = self.net.forward(z.reshape(-1, z.shape[-1])).reshape(len(z), *x.shape)
        log_px, self.dmu, self.dlog_var = log_gaussian(x, mu, self.noise.b, gradient)
        return log_px

    def log_prob_backward(self, dlog_px):
        """∂/∂z (L, M, J) from `dlog_px` = ∂bound/∂log p(x|z): one number, or an array (L, M, 1)."""
        dmu = dlog_px * self.dmu
        dz = self.backward(dmu.reshape(-1, dmu.shape[-1]), (dlog_px * self.dlog_var).sum())  # one log σ² for all
        return dz.reshape(*dmu.shape[:2], -1)


class FlowMLP(GaussianMLP):
    """An encoder q_0(z|x) = N(μ, σ² I) whose h also gives the parameters of `flow`, the maps for z."""

    def __init__(self, hidden, head, n_out, flow):
        super().__init__(hidden, head, n_out)
        self.flow, self.maps = flow, head("maps", flow.n_parameters)
        self.layers.append(self.maps)

    def forward(self, x):
        h = self.hidden.forward(x)
        return self.mu.forward(h), self.log_var.forward(h), self.maps.forward(h)

    def backward(self, dmu, dlog_var, dmaps):
        dh = _sum(self.mu.backward(dmu), self.log_var.backward(dlog_var), self.maps.backward(dmaps))
        return self.hidden.backward(dh)


def _sum(*gradients):
    """h feeds several: their gradients add. None where h is the data."""
    return None if gradients[0] is None else sum(gradients[1:], gradients[0])
