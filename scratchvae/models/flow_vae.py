"""The VAE with a planar normalizing flow: q(z|x) is a Gaussian's draw sent through K maps (Rezende & Mohamed 2015)."""

import numpy as np

from scratchvae.arguments import whole
from scratchvae.inference.distributions import log_gaussian, log_standard_gaussian
from scratchvae.inference.flows import Planar, sgvb_flow
from scratchvae.models.vae import VAE
from scratchvae.nets.mlp import FlowMLP


class FlowVAE(VAE):
    """A VAE whose q(z|x) is the law of z_K = f_K ∘ … ∘ f_1(z_0), z_0 ~ N(μ, σ² I), all from the encoder.

    flow: K, how many planar maps. The other arguments are those of `VAE`, all but `estimator`: with no KL in closed
    form the bound is the one with all its terms at the draws, `sgvb_flow`. `encode` gives μ and log σ² of q_0, before
    the maps. ValueError for K < 1 and other estimators.
    """

    def __init__(self, n_visible, n_hidden=500, n_latent=20, *, flow=10, estimator="A", **settings):
        if estimator not in ("A", sgvb_flow):
            raise ValueError(
                f"estimator is {estimator!r}; expected 'A': log q of a flow is known at draws alone: L^A is its bound"
            )
        self.flow = Planar(whole("flow", flow), whole("n_latent", n_latent))
        super().__init__(n_visible, n_hidden, n_latent, estimator="A", **settings)
        self.estimator = sgvb_flow
        self.config["flow"] = self.flow.n_maps
        plain = VAE(n_visible, n_hidden, n_latent, **settings).params  # one seed gives one VAE, with a flow or without
        for name, window in plain.named(plain.value).items():
            self.params.window(name, self.params.value)[...] = window
        for maps in (self.encoder.maps.W, self.encoder.maps.b):  # every map begins as the identity, whatever `init` is
            self.flow.u_of(maps)[...] = 0

    def new_encoder(self):
        """The encoder that `config` describes, its parameters not laid yet."""
        return FlowMLP(*self.encoder_net(), self.n_latent, self.flow)

    def latents(self, x, eps):
        """z_K ~ q(z|x), (L, M, J), and log q_K(z_K|x) in nats (9)-(11), (L, M), for rows x and eps (L, M, J)."""
        mu, log_var, maps = self.encoder.forward(self.pixels(x))
        z0 = mu + np.exp(0.5 * log_var) * eps
        z, log_det = self.flow.forward(z0, maps)
        return z, log_gaussian(z0, mu, log_var, gradient=False)[0] - log_det

    def terms(self, x, eps):
        """Estimates of -KL(q_K(z|x) ‖ p(z)) and E log p(x|z_K) from the L draws, nats per datapoint, (M,) each."""
        x = self.pixels(x)
        z, log_qz = self.latents(x, self._eps(eps, len(x)))
        neg_kl = (log_standard_gaussian(z, gradient=False)[0] - log_qz).mean(axis=0)
        return neg_kl, self.decoder.log_prob(x, z, gradient=False).mean(axis=0)

    def encode_mean(self, x):
        """The mean of q_0(z|x) sent through the maps, (M, J)."""
        return self._encode_at(x, np.zeros_like(self.params.value, shape=(1, len(x), self.n_latent)))[0]

    def working_memory(self, m):
        """About how many bytes a step on m datapoints takes beside parameters and data."""
        maps = self.flow.n_maps * (10 * self.n_samples + 8) * self.n_latent
        return super().working_memory(m) + maps * m * self.dtype.itemsize
