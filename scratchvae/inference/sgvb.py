"""Stochastic gradient variational Bayes: the two estimators of the bound, each with its gradient in one scope.

    log p(x) = KL(q(z|x) ‖ p(z|x)) + L,   the first term ≥ 0, so that L is a lower bound                             (1)
           L = E_q[log p(x, z) - log q(z|x)]                estimated as it stands: L^A                         (2), (6)
             = -KL(q(z|x) ‖ p(z)) + E_q[log p(x|z)]         the first term in closed form: L^B                  (3), (7)

q depends on φ, so ∇_φ does not pass under E_q. With z = g(ε, x), ε ~ p(ε), the expectation is over ε, which knows
nothing of φ, and the gradient of one draw is a draw of the gradient: (4), (5).

Both take an encoder q(z|x) = N(μ, σ² I) and a decoder p(x|z), the minibatch x (M, D), the noise eps (L, M, J) behind z,
and N = n_data. They return the estimate (8) of the bound of the whole data set, in nats, summed over its N datapoints:
divide by N for the figure per datapoint. With gradient=True they leave its gradient in the networks' windows.
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, gaussian_neg_kl, log_standard_gaussian


def sgvb_a(encoder, decoder, x, eps, n_data, gradient=True):
    """L^A = 1/L Σ_l log p(x, z⁽ˡ⁾) - log q(z⁽ˡ⁾|x)   (6), for N/M times each datapoint (8)."""
    L, M = len(eps), len(x)
    scale = n_data / M  # each datapoint stands for N/M of them                                                      (8)
    mu, log_var = encoder.forward(x)  # q(z|x) = N(μ, σ² I)                                                          (9)
    sigma = np.exp(0.5 * log_var)
    z = mu + sigma * eps  # z = g(ε, x)                                                                        (4), (10)
    log_px = decoder.log_prob(x, z, gradient)  # log p(x|z)                                                   (11), (12)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)  # log p(z)
    log_qz = -0.5 * (LOG_2PI + log_var + eps * eps).sum(axis=-1)  # log N(z; μ, σ² I), where z - μ = σ ε             (9)
    if gradient:
        weight = scale / L  # ∂bound/∂log p(x, z⁽ˡ⁾)
        dz = decoder.log_prob_backward(weight) + weight * dlog_pz
        dmu = dz.sum(axis=0)  # via z: ∂z/∂μ = 1          via log q: 0, since z - μ = σ ε does not move with μ
        dlog_var = 0.5 * ((dz * eps).sum(axis=0) * sigma + scale)  # via z: ∂z/∂log σ² = ½ σ ε     via -log q: ½
        encoder.backward(dmu, dlog_var)
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def sgvb_b(encoder, decoder, x, eps, n_data, gradient=True):
    """L^B = -KL(q(z|x) ‖ p(z)) + 1/L Σ_l log p(x|z⁽ˡ⁾)   (7), (10), for N/M times each datapoint (8)."""
    L, M = len(eps), len(x)
    scale = n_data / M  # each datapoint stands for N/M of them                                                      (8)
    mu, log_var = encoder.forward(x)  # q(z|x) = N(μ, σ² I)                                                          (9)
    sigma = np.exp(0.5 * log_var)
    z = mu + sigma * eps  # z = g(ε, x)                                                                        (4), (10)
    log_px = decoder.log_prob(x, z, gradient)  # log p(x|z)                                                   (11), (12)
    neg_kl, dmu_kl, dlog_var_kl = gaussian_neg_kl(mu, log_var, gradient)  # -KL(q(z|x) ‖ p(z))                    App. B
    if gradient:
        dz = decoder.log_prob_backward(scale / L)  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L)
        dmu = dz.sum(axis=0) + scale * dmu_kl  # via z: ∂z/∂μ = 1                                      via -KL
        dlog_var = 0.5 * (dz * eps).sum(axis=0) * sigma + scale * dlog_var_kl  # via z: ∂z/∂log σ² = ½ σ ε     via -KL
        encoder.backward(dmu, dlog_var)
    return scale * (neg_kl + log_px.mean(axis=0)).sum()
