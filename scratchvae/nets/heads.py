"""A network with several outputs, and the two ways in which a VAE reads one: as q(z|x) and as p(x|z).

The pattern is C.2 of Kingma & Welling, "Auto-Encoding Variational Bayes": one h = tanh(W₃ z + b₃), and side by side
μ = W₄ h + b₄ and log σ² = W₅ h + b₅. A posterior (inference/posteriors) says what the outputs of the encoder mean, and
a likelihood (inference/likelihoods) those of the decoder.

Arrays hold one datapoint per row: x is (M, D); z is (L, M, J), with L draws for each datapoint. In a conditional model
a row of x has its label y behind the pixels, as C numbers of which one is 1: it is (M, D + C). The encoder reads all of
it, q(z|x, y), and the decoder reads y beside z and scores the pixels, p(x|z, y).
"""

import numpy as np

from scratchvae.inference.distributions import per_row


class Network:
    """Hidden layers h = f(x), a `Chain`, and heads that all read h.

    `forward` returns a list with one output for each head, in their order, and `backward` takes the gradients of these.
    """

    def __init__(self, hidden, heads):
        self.hidden = hidden
        self.heads = heads
        self.layers = [*hidden.layers, *(layer for head in heads for layer in head.layers)]

    def forward(self, x):
        h = self.hidden.forward(x)
        return [head.forward(h) for head in self.heads]

    def backward(self, *doutputs):
        dh = [head.backward(dy) for head, dy in zip(self.heads, doutputs, strict=True)]
        dh = [part for part in dh if part is not None]  # None if the head does not read h, or if h is the data
        return self.hidden.backward(sum(dh[1:], dh[0]) if dh else None)  # several heads read h: their gradients add up


class Encoder:
    """q(z|x): a network whose outputs are read by a posterior."""

    def __init__(self, posterior, network):
        self.posterior = posterior
        self.network = network
        self.layers = network.layers

    def forward(self, x):
        """Return the outputs for rows x (M, D), a list of arrays (M, n)."""
        return self.network.forward(x)

    def draw(self, x, eps):
        """Return z = g(ε, x) (4), (L, M, J), and log q(z|x) in nats, (L, M), for x (M, D) and noise eps (L, M, J)."""
        return self.posterior.draw(eps, *self.forward(x))

    def log_prob(self, x, z):
        """Return log q(z|x) in nats, (L, M), at a z (L, M, J) that is given.

        It is that of the draw whose noise leads to this z.
        """
        outputs = self.forward(x)
        return self.posterior.draw(self.posterior.noise_of(z, *outputs), *outputs)[1]

    def backward(self, dz, dlog_q=0.0, dneg_kl=0.0):
        """Leave the gradient of φ in its windows, from ∂bound/∂z, ∂bound/∂log q and ∂bound/∂(-KL) of the last draw.

        dz is (L, M, J). dlog_q is one number or an array (L, M), and counts log q(z|x) as a function of φ at given
        noise. dneg_kl is one number. The last two are 0 unless given.
        """
        self.network.backward(*self.posterior.backward(dz, dlog_q, dneg_kl))

    def backward_given(self, dlog_q):
        """Leave the gradient of log q(z|x) with z held, from ∂bound/∂log q, one number or an array (L, M).

        d log q(z(φ)|x)/dφ = ∂log q/∂φ + ∇_z log q · ∂z/∂φ, and what comes through z is subtracted again.
        """
        self.backward(-per_row(dlog_q) * self.grad_z(), dlog_q)

    def grad_z(self):
        """Return ∇_z log q(z|x) at the last draw, with φ held, (L, M, J)."""
        return self.posterior.grad_z()

    def neg_kl(self):
        """Return -KL(q(z|x) ‖ p(z)) in nats, (M,), for the x of the last draw, or None if it has no closed form."""
        return self.posterior.neg_kl() if hasattr(self.posterior, "neg_kl") else None

    def latent_kl(self):
        """Return KL(q(z_j|x) ‖ p(z_j)) of each latent by itself, (M, J), for the x of the last draw."""
        return self.posterior.latent_kl()

    def factors(self):
        """Return log q of each latent at the last draw, and a list of its scores.

        If the latents of the posterior are not independent, (None, None) is returned.
        """
        return self.posterior.factors() if hasattr(self.posterior, "factors") else (None, None)


class Decoder:
    """p(x|z), or p(x|z, y) of C classes: a network whose outputs are read by a likelihood.

    n_classes is C, 0 unless given. Then there is no y, and arrays with C columns are left out.
    """

    def __init__(self, likelihood, network, n_classes=0):
        self.likelihood = likelihood
        self.network = network
        self.n_classes = n_classes
        self.layers = network.layers

    def forward(self, z, y=None):
        """Return the outputs for rows z (M, J) and y (M, C).

        They are a list of arrays: (M, D), or (n,) if an output does not depend on z.
        """
        return self.network.forward(np.concatenate([z, y], axis=1) if self.n_classes else z)

    def mean(self, z, y=None):
        """Return E[x|z], (M, D), for rows z (M, J) and y (M, C)."""
        return self.likelihood.mean(*self.forward(z, y))

    def draw(self, z, noise, y=None):
        """Return x ~ p(x|z), (M, D), for rows z (M, J) and y (M, C).

        noise is (M, D), of the kind that the likelihood takes.
        """
        return self.likelihood.draw(noise, *self.forward(z, y))

    def log_prob(self, x, z, gradient=True):
        """Return log p(x|z) in nats, (L, M), for x (M, D), or (M, D + C), and z (L, M, J).

        With gradient=True, the default, the partials that `backward` needs are kept.
        """
        y = None
        if self.n_classes:
            y = np.concatenate([x[:, -self.n_classes :]] * len(z))  # each draw of z has the label of its datapoint
            x = x[:, : -self.n_classes]
        rows = self.forward(z.reshape(-1, z.shape[-1]), y)
        outputs = [y if y.ndim == 1 else y.reshape(len(z), *x.shape) for y in rows]
        log_px, *self.partials = self.likelihood.log_prob(x, *outputs, gradient=gradient)
        return log_px

    def backward(self, dlog_px):
        """Return ∂bound/∂z (L, M, J), and leave the gradient of θ in its windows.

        dlog_px is ∂bound/∂log p(x|z), one number or an array (L, M).
        """
        doutputs = [per_row(dlog_px) * partial for partial in self.partials]
        L, M = doutputs[0].shape[:2]
        dzy = self.network.backward(*(dy.reshape(L * M, -1) for dy in doutputs)).reshape(L, M, -1)
        return dzy[..., : dzy.shape[-1] - self.n_classes]  # the network reads (z, y): its first columns are z's
