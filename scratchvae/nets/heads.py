"""A network with several outputs, and the two ways in which a VAE reads one: as q(z|x) and as p(x|z).

C.2 of Kingma & Welling, "Auto-Encoding Variational Bayes", is the pattern: one h = tanh(W₃ z + b₃), and beside each
other μ = W₄ h + b₄ and log σ² = W₅ h + b₅. What the outputs mean is said elsewhere: by a posterior
(inference/posteriors) for the encoder, and by a likelihood (inference/likelihoods) for the decoder.

Arrays hold one datapoint per row: x is (M, D); z is (L, M, J), L draws for each datapoint.
"""

from scratchvae.inference.distributions import per_row


class Network:
    """Hidden layers h = f(x), a Chain, and heads that all read h: one output for each head, in their order."""

    def __init__(self, hidden, heads):
        self.hidden = hidden
        self.heads = heads
        self.layers = [*hidden.layers, *(layer for head in heads for layer in head.layers)]

    def forward(self, x):
        h = self.hidden.forward(x)
        return [head.forward(h) for head in self.heads]

    def backward(self, *doutputs):
        dh = [head.backward(dy) for head, dy in zip(self.heads, doutputs, strict=True)]
        dh = [part for part in dh if part is not None]  # None is a head that does not read h, or an h that is the data
        return self.hidden.backward(sum(dh[1:], dh[0]) if dh else None)  # h feeds several heads: their gradients add


class Encoder:
    """q(z|x): a network whose outputs a posterior reads."""

    def __init__(self, posterior, network):
        self.posterior = posterior
        self.network = network
        self.layers = network.layers

    def forward(self, x):
        """The outputs for rows x (M, D), a list of arrays (M, n)."""
        return self.network.forward(x)

    def draw(self, x, eps):
        """z = g(ε, x) (4), (L, M, J), and log q(z|x) in nats, (L, M), for the noise eps (L, M, J)."""
        return self.posterior.draw(eps, *self.forward(x))

    def log_prob(self, x, z):
        """log q(z|x) in nats, (L, M), at a z (L, M, J) that is given: the draw whose noise leads to this z."""
        outputs = self.forward(x)
        return self.posterior.draw(self.posterior.noise_of(z, *outputs), *outputs)[1]

    def backward(self, dz, dlog_q=0.0, dneg_kl=0.0):
        """Leave the gradient of φ in its windows, from ∂bound/∂z, ∂bound/∂log q and ∂bound/∂(-KL) of the last draw.

        dz is (L, M, J); dlog_q is one number or an array (L, M), and it counts log q(z|x) as a function of φ at given
        noise; dneg_kl is one number.
        """
        self.network.backward(*self.posterior.backward(dz, dlog_q, dneg_kl))

    def backward_given(self, dlog_q):
        """Leave the gradient of log q(z|x) with z held, from ∂bound/∂log q: one number or an array (L, M).

        d log q(z(φ)|x)/dφ = ∂log q/∂φ + ∇_z log q · ∂z/∂φ; what comes through z is taken off again.
        """
        self.backward(-per_row(dlog_q) * self.grad_z(), dlog_q)

    def grad_z(self):
        """∇_z log q(z|x) at the last draw, with φ held, (L, M, J)."""
        return self.posterior.grad_z()

    def neg_kl(self):
        """-KL(q(z|x) ‖ p(z)) in nats, (M,), in closed form for the last draw's x; None if the posterior has none."""
        return self.posterior.neg_kl() if hasattr(self.posterior, "neg_kl") else None

    def factors(self):
        """log q of each latent at the last draw, and its scores; (None, None) if the latents are not independent."""
        return self.posterior.factors() if hasattr(self.posterior, "factors") else (None, None)


class Decoder:
    """p(x|z): a network whose outputs a likelihood reads."""

    def __init__(self, likelihood, network):
        self.likelihood = likelihood
        self.network = network
        self.layers = network.layers

    def forward(self, z):
        """The outputs for rows z (M, J), a list of arrays (M, D), or (n,) where an output does not depend on z."""
        return self.network.forward(z)

    def mean(self, z):
        """E[x|z] for rows z (M, J), (M, D)."""
        return self.likelihood.mean(*self.forward(z))

    def draw(self, z, noise):
        """x ~ p(x|z) for rows z (M, J), (M, D), by noise (M, D) of the kind that the likelihood takes."""
        return self.likelihood.draw(noise, *self.forward(z))

    def log_prob(self, x, z, gradient=True):
        """log p(x|z) in nats, (L, M), for x (M, D) and z (L, M, J)."""
        rows = self.forward(z.reshape(-1, z.shape[-1]))
        outputs = [y if y.ndim == 1 else y.reshape(len(z), *x.shape) for y in rows]
        log_px, *self.partials = self.likelihood.log_prob(x, *outputs, gradient=gradient)
        return log_px

    def backward(self, dlog_px):
        """∂bound/∂z (L, M, J), θ's gradient left in its windows, from ∂bound/∂log p(x|z): one number or (L, M)."""
        doutputs = [per_row(dlog_px) * partial for partial in self.partials]
        L, M = doutputs[0].shape[:2]
        return self.network.backward(*(dy.reshape(L * M, -1) for dy in doutputs)).reshape(L, M, -1)
