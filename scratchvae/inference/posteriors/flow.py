"""Planar normalizing flows: q(z|x) made richer by K invertible maps of another posterior's draw.

    z_k = z_k-1 + û_k tanh(w_k·z_k-1 + b_k)                                                                         (10)
    log q_K(z_K) = log q_0(z_0) - Σ_k log |1 + û_k·ψ_k(z_k-1)|,   ψ_k(z) = (1 - tanh²(w_k·z + b_k)) w_k        (9), (11)

The equations are those of Kong & Li, "Varying Variational Autoencoders"; in Rezende & Mohamed, "Variational Inference
with Normalizing Flows" (2015), they are 10, 12 and 13.

A map can be inverted if w·û > -1. Any u is made to fit by û = u + (m(w·u) - w·u) w/‖w‖², for which w·û = m > -1: this
is appendix A.1 of Rezende & Mohamed, with ‖w‖² in the denominator. Their m(a) = log(1 + eᵃ) - 1 is not 0 at 0, so that
û grows without bound as w → 0, and u = 0 is not the identity. Here m(a) = a for a ≥ 0, where nothing needs correction,
and m(a) = a/(1 - a) below. Then u = 0 is the identity, from which a flow starts, û → u as w → 0, and 1/det is at most 1
- a, where theirs is of the order of e⁻ᵃ.
"""

import numpy as np

from scratchvae.inference.distributions import per_row

NEWTON_STEPS = 30  # 20 are enough for |w·u| up to 1e6; with a fixed number nothing waits for the device


class Planar:
    """K planar maps of z in J dimensions, one after another, with a forward and a backward pass like a layer.

    The parameters (M, K (2 J + 1)) of the maps are arguments: u, w and b of each map, with a row for each datapoint, as
    an encoder gives them, or with one row for all. z is (L, M, J), L draws for each datapoint.
    """

    def __init__(self, n_maps, n_latent):
        self.n_maps = n_maps
        self.n_latent = n_latent
        self.n_parameters = n_maps * (2 * n_latent + 1)

    def forward(self, z, parameters):
        """Return z_K (L, M, J) and Σ_k log |det ∂z_k/∂z_k-1| (L, M) from z_0 (L, M, J).

        Other shapes raise a ValueError.
        """
        if z.shape[-1] != self.n_latent or parameters.ndim != 2 or parameters.shape[1] != self.n_parameters:
            raise ValueError(
                f"z has shape {z.shape} and parameters {parameters.shape}; expected (L, M, {self.n_latent}) and "
                f"(M or 1, {self.n_parameters}): u, w and b of {self.n_maps} maps"
            )
        self.kept = []
        log_det = 0.0
        for u, w, b, a, r, n, m, bend, u_hat in self._maps(parameters):
            t = np.tanh((w * z).sum(axis=-1, keepdims=True) + b)
            s = 1 - t * t
            det = t * t + s * (np.maximum(a, 0) + r)  # 1 + û·ψ = 1 + s m = t² + s (1 + m): nothing cancels
            log_det = log_det + np.log(det)[..., 0]
            self.kept.append((z, u, w, r, n, m, bend, u_hat, t, s, det))
            z = z + u_hat * t
        return z, log_det

    def backward(self, dz, dlog_det):
        """Return ∂bound/∂z_0 (L, M, J) and ∂bound/∂parameters (M, K (2 J + 1)).

        dz is ∂bound/∂z_K (L, M, J). dlog_det is the derivative of the bound with respect to the sum of the
        log-determinants, one number or an array (L, M).
        """
        dlog_det = per_row(dlog_det)
        parts = []
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

    def carry(self, grad):
        """Return ∇_z_K log q_K (L, M, J) from grad = ∇_z_0 log q_0 (L, M, J), along the maps of the last `forward`.

        ∇_z_k log q_k = J⁻ᵀ (∇_z_k-1 log q_k-1 - ∇_z_k-1 log det), where J = I + s û wᵀ is the Jacobian of the map, and
        J⁻ᵀ v = v - s w (û·v)/det by the formula of Sherman & Morrison.
        """
        for _, _, w, _, _, m, _, u_hat, t, s, det in self.kept:
            grad = grad + 2 * t * s * m / det * w  # log det = log(1 + s m): ∂s/∂z = -2 t s w
            grad = grad - s * w * (u_hat * grad).sum(axis=-1, keepdims=True) / det
        return grad

    def inverse(self, z, parameters):
        """Return the z_0 (L, M, J) from which the maps lead to z = z_K (L, M, J).

        x = w·z_k-1 + b is the root of x + m tanh x = w·z_k + b, and then z_k-1 = z_k - û tanh x.
        """
        for _, w, b, a, r, _, m, _, u_hat in reversed(list(self._maps(parameters))):
            x = root((w * z).sum(axis=-1, keepdims=True) + b, m, np.maximum(a, 0) + r)
            z = z - u_hat * np.tanh(x)
        return z

    def u_of(self, parameters):
        """Return the u of all maps as a window (…, K, J) on parameters (…, K (2 J + 1))."""
        return parameters.reshape(*parameters.shape[:-1], self.n_maps, -1)[..., : self.n_latent]

    def _maps(self, parameters):
        """Yield for each map u, w, b, a = w·u, r, n = ‖w‖², m(a), m(a) - a and û.

        u, w and û are (M, J), and the others are (M, 1). With r, m(a) = max(a, 0) + r min(a, 0). n is ∞ where w counts
        as 0.
        """
        J = self.n_latent
        self.n_rows = len(parameters)
        for k in range(0, self.n_parameters, 2 * J + 1):
            u = parameters[:, k : k + J]
            w = parameters[:, k + J : k + 2 * J]
            a = (w * u).sum(axis=-1, keepdims=True)
            n = (w * w).sum(axis=-1, keepdims=True)
            n = np.where(n < np.finfo(n.dtype).tiny, np.inf, n)  # w is 0: the map is a translation by u tanh b
            below = np.minimum(a, 0)
            r = 1 / (1 - below)  # m(a) = max(a, 0) + r min(a, 0), and 1 + m = max(a, 0) + r
            m = np.maximum(a, 0) + r * below
            bend = r * below * below  # m(a) - a
            yield u, w, parameters[:, k + 2 * J : k + 2 * J + 1], a, r, n, m, bend, u + bend * w / n


def root(c, m, slope_at_0):
    """Return the x with x + m tanh x = c, for arrays c and m > -1.

    slope_at_0 is 1 + m, which is passed apart since it all but cancels. The left side grows with x. For y = |x| it is
    concave if m > 0 and convex if m < 0, so Newton's steps from max(|c| - m, 0) come to the root from one side and
    cannot miss it.
    """
    y = np.maximum(np.abs(c) - m, 0)
    for _ in range(NEWTON_STEPS):
        t = np.tanh(y)
        slope = t * t + (1 - t * t) * slope_at_0  # 1 + m (1 - tanh²)
        y = y - (y + m * t - np.abs(c)) / slope
    return np.where(c < 0, -y, y)


class Flow:
    """q(z|x) as the law of z_K = f_K ∘ … ∘ f_1(z_0), where z_0 is drawn by another posterior, the base.

    base is that posterior, and n_maps is K. The encoder gives the parameters of the maps beside the outputs of the
    base. There is no KL in closed form. What the methods take and return is said in inference/posteriors/__init__.py.
    """

    def __init__(self, base, n_maps):
        self.base = base
        self.n_maps = n_maps
        self.name = f"flow over {getattr(base, 'name', type(base).__name__)}"

    def outputs(self, n_latent):
        """Return the outputs of the base, and "maps", which holds u, w and b of K maps.

        If the base has an output called "maps", a ValueError is raised.
        """
        self.planar = Planar(self.n_maps, n_latent)
        outputs = self.base.outputs(n_latent)
        if "maps" in outputs:
            raise ValueError(f"the base of {self.name} has an output called maps: that is the flow's own name")
        return {**outputs, "maps": self.planar.n_parameters}

    def start(self, arrays):
        """Set u to 0, so that every map starts as the identity."""
        for name in ("maps.W", "maps.b"):
            self.planar.u_of(arrays[name])[...] = 0
        if hasattr(self.base, "start"):
            self.base.start(arrays)

    def draw(self, eps, *outputs):
        """Return z_K   (10), and log q_K(z_K) = log q_0(z_0) - Σ_k log det   (9), (11)."""
        z0, log_q0 = self.base.draw(eps, *outputs[:-1])
        z, log_det = self.planar.forward(z0, outputs[-1])
        return z, log_q0 - log_det

    def backward(self, dz, dlog_q, dneg_kl):
        """Return the gradients of the base's outputs and of the maps' parameters.

        The gradient goes back through the maps, by z_K and by -log det, and then through the base.
        """
        dz0, dmaps = self.planar.backward(dz, -dlog_q)
        return (*self.base.backward(dz0, dlog_q, dneg_kl), dmaps)

    def grad_z(self):
        """Return ∇_z log q_K at the draw: that of the base, carried along the maps."""
        return self.planar.carry(self.base.grad_z())

    def noise_of(self, z, *outputs):
        """Return the noise with which the base draws the z_0 from which the maps lead to z."""
        return self.base.noise_of(self.planar.inverse(z, outputs[-1]), *outputs[:-1])

    def moments(self, *outputs):
        """Return the mean and the log variance of z_0, before the maps."""
        return self.base.moments(*outputs[:-1])
