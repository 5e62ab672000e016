"""The importance-weighted bound, which takes log p(x) from K draws at once and not one by one, with two gradients.

    L_K = E log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)                                            (8)

is equation 8 of Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders". E w = p(x), so that
L_K ≤ log p(x) by Jensen's inequality. L_1 is the bound (2) of Kingma & Welling, "Auto-Encoding Variational Bayes", and
L_K ≤ L_K+1 (theorem 1 of Burda et al.). The gradient is a sum of the gradients of log w_k, in which each draw counts in
proportion to its weight: ∇ log Σ w = Σ w̃_k ∇ log w_k with w̃ = w / Σ w (their equation 14).

For φ the mean of this estimate falls faster than its spread as K grows, so that noise drowns it (Rainforth et al. 2018,
"Tighter Variational Bounds are Not Necessarily Better"). A part of the noise is the score ∇_φ log q at z held. If it is
reparameterised a second time, it becomes a path through z as well (Tucker, Lawson, Gu & Maddison 2019, "Doubly
Reparameterized Gradient Estimators for Monte Carlo Objectives"):

    ∇_φ L_K = E Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ,   φ held in log q                                     (their equation 8)

For K = 1 the score may simply be left out, as in sticking the landing; for K > 1 that would be biased.
"""

import math

import numpy as np

from scratchvae.inference.distributions import log_standard_gaussian


def importance_weighted(q, p, x, eps, scale, gradient=True):
    """Return L_K for K = len(eps), in nats, summed over the rows and times `scale`.

    The arguments, and the windows in which the gradient is left, are those of every objective (see
    `inference.objectives`).
    """
    log_w, dlog_pz = _log_weights(q, p, x, eps, gradient)
    bound, w, total = _log_mean(log_w)
    if gradient:
        weight = scale * w / total  # ∂bound/∂log w_k = N/M w̃_k
        dz = p.backward(weight) + weight[..., None] * dlog_pz
        q.backward(dz, -weight)  # through z, and through -log q(z|x)
    return scale * bound.sum()


def dreg(q, p, x, eps, scale, gradient=True):
    """Return L_K, whose gradient with respect to φ is doubly reparameterised.

    The value, the gradient with respect to θ and the arguments are those of `importance_weighted`.
    """
    log_w, dlog_pz = _log_weights(q, p, x, eps, gradient)
    bound, w, total = _log_mean(log_w)
    if gradient:
        weight = scale * w / total
        dz = p.backward(weight) + weight[..., None] * (dlog_pz - q.grad_z())  # N/M w̃_k ∂log w_k/∂z_k with φ held
        q.backward((w / total)[..., None] * dz)  # through z: N/M w̃_k² ∂log w_k/∂z_k
    return scale * bound.sum()


def dreg_surrogate(q, p, x, eps, scale, held_q, held_p):
    """Return a value whose derivative is the gradient of `dreg`.

    It is Σ w̃_k log p_θ(x, z_k) with z held, plus Σ w̃_k² log w_k with θ held, and with φ held in log q. w̃ is held in
    both.
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
    """Return log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x), (K, M), and ∂log p(z_k)/∂z_k, (K, M, J)."""
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)
    return log_px + log_pz - log_qz, dlog_pz


def _log_mean(log_w):
    """Return log 1/K Σ_k w_k, (M,), and w (K, M) and Σ_k w_k (M,), divided by the largest w of the row.

    So none of them overflows, and at least one w of each row is 1.
    """
    largest = log_w.max(axis=0)
    w = np.exp(log_w - largest)
    total = w.sum(axis=0)
    return largest + np.log(total) - math.log(len(log_w)), w, total


importance_weighted.together = True
dreg.together = True
