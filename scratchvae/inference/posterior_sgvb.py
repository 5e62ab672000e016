"""SGVB for a posterior q(θ) with parameters φ of its own: section 2 without datapoints' latents or recognition network.

    log p(D) = KL(q(θ) ‖ p(θ|D)) + L,   the first term ≥ 0                                                  as (1), (13)
           L = E_q[log p(D|θ) + log p(θ) - log q(θ)]         estimated as it stands: L^1                    as (2), (14)
             = E_q[log p(D|θ)] - KL(q(θ) ‖ p(θ))             the last term in closed form: L^2              as (3)

L^1 and L^2 are (4) and (6) of Tebbutt & Budzianowski's review of the paper. Both take a model with
log_likelihood(theta, gradient, rows), log_prior(theta, gradient), n_data and n_parameters, as in models/regression.py;
q from `reparameterise`, a factor for every coordinate of θ; phi (K, P); and its noise eps for θ (L, P). rows is a
minibatch, an index array or a slice: each of its M datapoints stands for N/M (8), while θ is there once. They return
(bound, ∂bound/∂φ (K, P)), in nats, summed over the N datapoints; with gradient=False the partials are None.
"""

import numpy as np

from scratchvae.inference.full_vb import theta_neg_kl
from scratchvae.inference.reparameterise import gaussian


def sgvb_1(model, q, phi, eps, rows=slice(None), gradient=True):
    """L^1 = 1/L Σ_l N/M log p(D_M|θ_l) + log p(θ_l) - log q(θ_l),   θ_l = g(ε_l, φ)."""
    scale = _scale(model, rows)
    theta, dtheta_dphi = q.draw(eps, phi)  # θ = g(ε, φ)   (4), section 2.4
    log_lik, dlog_lik = model.log_likelihood(theta, gradient, rows)
    log_prior, dlog_prior = model.log_prior(theta, gradient)
    log_q, dlog_q, dlog_q_dphi = q.log_density(theta, phi)
    bound = (scale * log_lik + log_prior - log_q.sum(axis=1)).mean()
    if not gradient:
        return bound, None
    dtheta = scale * dlog_lik + dlog_prior - dlog_q
    return bound, (dtheta * dtheta_dphi - dlog_q_dphi).mean(axis=1)  # via θ     via -log q(θ; φ), θ held


def sgvb_2(model, q, phi, eps, rows=slice(None), gradient=True):
    """L^2 = 1/L Σ_l N/M log p(D_M|θ_l) - KL(q(θ) ‖ p(θ)): q = gaussian, and p(θ) = N(0, alpha² I) of the model.

    ValueError for others: no closed form of their KL is here.
    """
    if q != gaussian or not hasattr(model, "alpha"):
        raise ValueError(
            f"L^2 needs KL(q ‖ p(θ)) in closed form: a gaussian q and a model with alpha, p(θ) = N(0, alpha² I); these "
            f"are {q.name} and {type(model).__name__}: take L^1, sgvb_1"
        )
    scale = _scale(model, rows)
    theta, dtheta_dphi = q.draw(eps, phi)  # θ = μ + σ ⊙ ε   (4), (19)
    log_lik, dlog_lik = model.log_likelihood(theta, gradient, rows)
    neg_kl, dmu, dlog_sigma = theta_neg_kl(*phi, model.alpha**2, gradient)  # once for all N   (24)
    bound = scale * log_lik.mean() + neg_kl
    if not gradient:
        return bound, None
    return bound, scale * (dlog_lik * dtheta_dphi).mean(axis=1) + np.stack([dmu, dlog_sigma])  # via θ     via -KL


def _scale(model, rows):
    """N/M   (8)."""
    M = len(np.arange(model.n_data)[rows])
    if M == 0:
        raise ValueError(f"rows picks none of the {model.n_data} datapoints; expected a minibatch of one or more")
    return model.n_data / M
