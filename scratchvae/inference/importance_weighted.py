"""The importance-weighted bound (Burda, Grosse & Salakhutdinov 2016): log p(x) from K draws at once, not one by one.

    L_K = E log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)              (their equation 8)

E w = p(x), so that by Jensen L_K ≤ log p(x); L_1 is the bound (2), and L_K ≤ L_K+1 (their theorem 1). Its gradient is
that of log w_k, each draw in proportion to its weight: ∇ log Σ w = Σ w̃_k ∇ log w_k with w̃ = w / Σ w (equation 14).
"""

import math

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, log_standard_gaussian


def importance_weighted(encoder, decoder, x, eps, n_data, gradient=True):
    """L_K for K = len(eps), in nats, summed over the n_data datapoints (8); arguments and windows as of `sgvb_a`."""
    K, M = len(eps), len(x)
    scale = n_data / M  # each datapoint stands for N/M of them                                                      (8)
    mu, log_var = encoder.forward(x)  # q(z|x) = N(μ, σ² I)                                                          (9)
    sigma = np.exp(0.5 * log_var)
    z = mu + sigma * eps
    log_px = decoder.log_prob(x, z, gradient)  # log p(x|z)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)  # log p(z)
    log_qz = -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)  # log q(z|x), where z - μ = σ ε
    log_w = log_px + log_pz - log_qz  # (K, M)
    largest = log_w.max(axis=0)
    w = np.exp(log_w - largest)  # none overflows, and one of them is 1
    total = w.sum(axis=0)
    if gradient:
        weight = (scale * w / total)[..., None]  # ∂/∂log w_k = N/M w̃_k
        dz = decoder.log_prob_backward(weight) + weight * dlog_pz
        dmu = dz.sum(axis=0)  # via z: ∂z/∂μ = 1          via log q: 0, since z - μ = σ ε does not move with μ
        dlog_var = 0.5 * ((dz * eps).sum(axis=0) * sigma + scale)  # via z: ½ σ ε     via -log q: ½, and Σ w̃ = 1
        encoder.backward(dmu, dlog_var)
    return scale * (largest + np.log(total) - math.log(K)).sum()
