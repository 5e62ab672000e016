"""The importance-weighted bound: log p(x) from K draws at once, not one by one, and two gradients of it.

    L_K = E log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)                                            (8)

is equation 8 of Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders". E w = p(x), so that by Jensen's
inequality L_K ≤ log p(x); L_1 is the bound (2) of Kingma & Welling, and L_K ≤ L_K+1 (their theorem 1). The gradient
is that of log w_k, each draw in proportion to its weight: ∇ log Σ w = Σ w̃_k ∇ log w_k with w̃ = w / Σ w (their
equation 14).

For φ that estimate drowns in noise as K grows, since its mean falls faster than its spread (Rainforth et al. 2018,
"Tighter Variational Bounds are Not Necessarily Better"). Part of it is the score ∇_φ log q at z held; reparameterised a
second time it becomes a path through z as well (Tucker, Lawson, Gu & Maddison 2019, "Doubly Reparameterized Gradient
Estimators for Monte Carlo Objectives"):

    ∇_φ L_K = E Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ,   φ held in log q                                     (their equation 8)

To leave the score out without this, as sticking the landing does for K = 1, would be biased for K > 1.
"""

import math

import numpy as np

from scratchvae.inference.distributions import log_standard_gaussian


def importance_weighted(q, p, x, eps, scale, gradient=True):
    """L_K for K = len(eps), in nats, times `scale`; arguments and windows as of every objective."""
    log_w, dlog_pz = _log_weights(q, p, x, eps, gradient)
    bound, w, total = _log_mean(log_w)
    if gradient:
        weight = scale * w / total  # ∂bound/∂log w_k = N/M w̃_k
        dz = p.backward(weight) + weight[..., None] * dlog_pz
        q.backward(dz, -weight)  # through z, and through -log q(z|x)
    return scale * bound.sum()


def dreg(q, p, x, eps, scale, gradient=True):
    """L_K, its gradient of φ doubly reparameterised; the gradient of θ is that of `importance_weighted`."""
    log_w, dlog_pz = _log_weights(q, p, x, eps, gradient)
    bound, w, total = _log_mean(log_w)
    if gradient:
        weight = scale * w / total
        dz = p.backward(weight) + weight[..., None] * (dlog_pz - q.grad_z())  # N/M w̃_k ∂log w_k/∂z_k, φ held in log q
        q.backward((w / total)[..., None] * dz)  # N/M w̃_k² ∂log w_k/∂z_k, through z
    return scale * bound.sum()


def dreg_surrogate(q, p, x, eps, scale, held_q, held_p):
    """Σ w̃_k log p_θ(x, z_k) with z held, and Σ w̃_k² log w_k with θ, and φ in log q, held; w̃ is held in both.

    The derivative of this is the gradient of `dreg`.
    """
    _, w, total = _log_mean(_log_weights(held_q, held_p, x, eps, False)[0])
    share = w / total
    held_z, _ = held_q.draw(x, eps)
    z, _ = q.draw(x, eps)
    log_w = held_p.log_prob(x, z, False) + log_standard_gaussian(z, gradient=False)[0] - held_q.log_prob(x, z)
    return scale * (share * p.log_prob(x, held_z, False) + share * share * log_w).sum()


dreg.needs = ("grad_z",)
dreg.surrogate = dreg_surrogate


def _log_weights(q, p, x, eps, gradient):
    """log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x), (K, M), and ∂log p(z_k)/∂z_k."""
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)
    return log_px + log_pz - log_qz, dlog_pz


def _log_mean(log_w):
    """log 1/K Σ_k w_k, (M,), and w and Σ w up to one factor for each row: none overflows, and one w is 1."""
    largest = log_w.max(axis=0)
    w = np.exp(log_w - largest)
    total = w.sum(axis=0)
    return largest + np.log(total) - math.log(len(log_w)), w, total
