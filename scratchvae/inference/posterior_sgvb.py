"""SGVB for a posterior q(θ) with parameters φ of its own, in models that have no latents and so no recognition network.

This is section 2 of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), with θ in the place of z:

    log p(D) = KL(q(θ) ‖ p(θ|D)) + L,   the first term ≥ 0                                                  as (1), (13)
           L = E_q[log p(D|θ) + log p(θ) - log q(θ)]         estimated as it stands: L^1                    as (2), (14)
             = E_q[log p(D|θ)] - KL(q(θ) ‖ p(θ))             the last term in closed form: L^2              as (3)

L^1 and L^2 are the estimators (4) and (6) of Tebbutt & Budzianowski's review of the paper. Both take these arguments:

    model      has log_likelihood(theta, gradient, rows), log_prior(theta, gradient), n_data, which is N, and
               n_parameters, which is P: see models/regression.py. Its N datapoints are D.
    q          is a law from `inference.reparameterise`, used for each of the P coordinates of θ independently.
    phi        holds the parameters of q, (K, P): a row for each of the K names in q.parameters.
    eps        is the noise behind L draws of θ, as q.noise(generator, (L, P)) draws it.
    rows       selects the minibatch, by an index array or a slice; all datapoints unless given. Each of its M
               datapoints stands for N/M of them (8), while the terms of θ count once.
    gradient   is True unless given; False saves the work of the gradient where only the bound is wanted.

They return the bound, one number in nats, summed over the N datapoints, and ∂bound/∂φ (K, P), which is None if gradient
is False. If rows selects no datapoint, a ValueError is raised.
"""

import numpy as np

from scratchvae.inference.full_vb import theta_neg_kl
from scratchvae.inference.reparameterise import gaussian


def sgvb_1(model, q, phi, eps, rows=slice(None), gradient=True):
    """Return L^1 and its gradient, with every term at the draws; the module's docstring names the arguments.

    L^1 = 1/L Σ_l N/M log p(D_M|θ_l) + log p(θ_l) - log q(θ_l),   θ_l = g(ε_l, φ)
    """
    scale = _scale(model, rows)
    theta, dtheta_dphi = q.draw(eps, phi)  # θ = g(ε, φ)   (4), section 2.4
    log_lik, dlog_lik = model.log_likelihood(theta, gradient, rows)
    log_prior, dlog_prior = model.log_prior(theta, gradient)
    log_q, dlog_q, dlog_q_dphi = q.log_density(theta, phi)
    bound = (scale * log_lik + log_prior - log_q.sum(axis=1)).mean()
    if not gradient:
        return bound, None
    dtheta = scale * dlog_lik + dlog_prior - dlog_q  # through the three terms at θ
    return bound, (dtheta * dtheta_dphi - dlog_q_dphi).mean(axis=1)  # through θ, and through -log q(θ; φ) with θ held


def sgvb_2(model, q, phi, eps, rows=slice(None), gradient=True):
    """Return L^2 and its gradient, with the KL in closed form; the module's docstring names the arguments.

    L^2 = 1/L Σ_l N/M log p(D_M|θ_l) - KL(q(θ) ‖ p(θ)),   θ_l = μ + σ ⊙ ε_l

    Its gradient usually varies less than that of L^1. It needs q = gaussian and a model whose prior is
    p(θ) = N(0, alpha² I) with its attribute `alpha`. Others raise a ValueError, since their KL is not implemented.
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
    # The first term goes through θ, the second through -KL.
    return bound, scale * (dlog_lik * dtheta_dphi).mean(axis=1) + np.stack([dmu, dlog_sigma])


def _scale(model, rows):
    """Return N/M (8), and raise a ValueError if there is no datapoint in the minibatch."""
    M = len(np.arange(model.n_data)[rows])
    if M == 0:
        raise ValueError(f"rows picks none of the {model.n_data} datapoints; expected a minibatch of one or more")
    return model.n_data / M
