"""Planar normalizing flows (Rezende & Mohamed 2015): q(z|x) made richer by K invertible maps of a Gaussian's draw.

    z_k = z_k-1 + û_k tanh(w_k·z_k-1 + b_k)                                                                         (10)
    log q_K(z_K) = log q_0(z_0) - Σ_k log |1 + û_k·ψ_k(z_k-1)|,   ψ_k(z) = (1 - tanh²(w_k·z + b_k)) w_k        (9), (11)

(equations of Kong & Li, "Varying Variational Autoencoders"; those of Rezende & Mohamed are 10, 12 and 13). A map can be
inverted where w·û > -1. Any u is made to fit by û = u + (m(w·u) - w·u) w/‖w‖², for which w·û = m > -1: appendix A.1 of
Rezende & Mohamed, with ‖w‖² in the denominator. Their m(a) = log(1 + eᵃ) - 1 is not 0 at 0, so that û grows without
bound as w → 0, and u = 0 is not the identity. Here m(a) = a for a ≥ 0, where nothing needs correction, and a/(1 - a)
below: u = 0 is the identity, from which a flow begins, û → u as w → 0, and 1/det is at most 1 - a, where theirs is of
the order of e⁻ᵃ.
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, log_standard_gaussian

TINY = 1e-30  # ‖w‖² up to which w counts as 0: the map is then a translation by u tanh b


class Planar:
    """K maps of z in J dimensions, one after another: forward and backward as of a layer.

    Their parameters (M, K (2 J + 1)) are arguments: for each map u, w and b; a row for each datapoint, as an encoder
    gives them, or one row for all.
    """

    def __init__(self, n_maps, n_latent):
        self.n_maps, self.n_latent = n_maps, n_latent
        self.n_parameters = n_maps * (2 * n_latent + 1)

    def forward(self, z, parameters):
        """z_K (L, M, J) and Σ_k log |det ∂z_k/∂z_k-1| (L, M) from z_0 (L, M, J)."""
        if z.shape[-1] != self.n_latent or parameters.ndim != 2 or parameters.shape[1] != self.n_parameters:
            raise ValueError(
                f"z has shape {z.shape} and parameters {parameters.shape}; expected (L, M, {self.n_latent}) and "
                f"(M or 1, {self.n_parameters}): u, w and b of {self.n_maps} maps"
            )
        log_det, self.kept = 0.0, []
        for u, w, b in self._maps(parameters):
            a, n = (w * u).sum(axis=-1, keepdims=True), (w * w).sum(axis=-1, keepdims=True)
            n = np.where(n > TINY, n, np.inf)
            below = np.minimum(a, 0)
            r = 1 / (1 - below)  # m(a) = max(a, 0) + r min(a, 0), and 1 + m = max(a, 0) + r
            m, bend = np.maximum(a, 0) + r * below, r * below * below  # bend = m(a) - a
            u_hat = u + bend * w / n
            t = np.tanh((w * z).sum(axis=-1, keepdims=True) + b)
            s = 1 - t * t
            det = t * t + s * (np.maximum(a, 0) + r)  # 1 + û·ψ = 1 + s m = t² + s (1 + m): nothing cancels
            log_det = log_det + np.log(det)[..., 0]
            self.kept.append((z, u, w, r, n, m, bend, u_hat, t, s, det))
            z = z + u_hat * t
        return z, log_det

    def backward(self, dz, dlog_det):
        """∂bound/∂z_0 (L, M, J) and ∂/∂parameters (M, K (2 J + 1)), from those of z_K and of the log-determinants' sum.

        dlog_det: one number, or an array (L, M).
        """
        dlog_det, parts = dlog_det if isinstance(dlog_det, float | int) else dlog_det[..., None], []
        for z, u, w, r, n, m, bend, u_hat, t, s, det in reversed(self.kept):
            share = dlog_det / det  # log(1 + s m): ∂/∂s = m/(1 + s m)     ∂/∂m = s/(1 + s m)
            dm = (share * s).sum(axis=0)
            du_hat = (dz * t).sum(axis=0)  # z' = z + û t
            dt = (dz * u_hat).sum(axis=-1, keepdims=True) - 2 * t * share * m  # s = 1 - t²: ∂s/∂t = -2t
            dx = dt * s  # t = tanh x, x = w·z + b: tanh' = 1 - tanh²
            along = (du_hat * w).sum(axis=-1, keepdims=True) / n  # û = u + bend w/n: ∂/∂bend = w/n
            da = dm * r * r + along * (r * r - 1)  # m' = r²     bend' = m' - 1
            du = du_hat + da * w  # a = w·u
            dw = (dx * z).sum(axis=0) + da * u + bend * (du_hat - 2 * along * w) / n  # n = ‖w‖²: ∂(w/n) has -2 w wᵀ/n²
            parts.append(np.concatenate([du, dw, dx.sum(axis=0)], axis=-1))
            dz = dz + dx * w
        gradient = np.concatenate(parts[::-1], axis=-1)
        return dz, gradient if self.n_rows > 1 else gradient.sum(axis=0, keepdims=True)

    def u_of(self, parameters):
        """The u of all maps, a window (…, K, J) on parameters (…, K (2 J + 1))."""
        return parameters.reshape(*parameters.shape[:-1], self.n_maps, -1)[..., : self.n_latent]

    def _maps(self, parameters):
        """u (M, J), w (M, J) and b (M, 1) of each map."""
        J, self.n_rows = self.n_latent, len(parameters)
        for k in range(0, self.n_parameters, 2 * J + 1):
            one = parameters[:, k : k + 2 * J + 1]
            yield one[:, :J], one[:, J : 2 * J], one[:, 2 * J :]


def sgvb_flow(encoder, decoder, x, eps, n_data, gradient=True):
    """1/L Σ_l log p(x, z_K⁽ˡ⁾) - log q_K(z_K⁽ˡ⁾|x)   (9)-(11), for N/M times each datapoint: L^A with a flow.

    Arguments and windows as of `sgvb_a`; the encoder also gives the maps' parameters, and has them in `flow`.
    """
    L, M = len(eps), len(x)
    scale = n_data / M  # each datapoint stands for N/M of them
    mu, log_var, maps = encoder.forward(x)  # q_0(z|x) = N(μ, σ² I), and K maps
    sigma = np.exp(0.5 * log_var)
    z, log_det = encoder.flow.forward(mu + sigma * eps, maps)  # z_0 = g(ε, x), z_K                                 (10)
    log_px = decoder.log_prob(x, z, gradient)  # log p(x|z_K)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)  # log p(z_K)
    log_q0 = -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)  # log q_0(z_0|x), where z_0 - μ = σ ε
    log_qz = log_q0 - log_det  # log q_K(z_K|x)                                                                (9), (11)
    if gradient:
        weight = scale / L  # ∂bound/∂log p(x, z_K⁽ˡ⁾), and ∂bound/∂log det
        dz = decoder.log_prob_backward(weight) + weight * dlog_pz
        dz0, dmaps = encoder.flow.backward(dz, weight)  # via z_K and via log det
        dmu = dz0.sum(axis=0)  # via z_0: ∂z_0/∂μ = 1     via log q_0: 0, since z_0 - μ = σ ε does not move with μ
        dlog_var = 0.5 * ((dz0 * eps).sum(axis=0) * sigma + scale)  # via z_0: ½ σ ε     via -log q_0: ½
        encoder.backward(dmu, dlog_var, dmaps)
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()
