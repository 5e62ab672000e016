"""Black-box variational inference as an objective: L^A with its gradient of φ by scores.

The formulas, and the two ways to lower the variance, stand in `inference.score_function`.
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, log_standard_gaussian
from scratchvae.inference.score_function import centred


def black_box(q, p, x, eps, scale, gradient=True, rao_blackwell=True, control_variate=True):
    """L^A (6), (8), its gradient with respect to φ by scores; value and ∂/∂θ are those of `sgvb_a`.

    Naive, with rao_blackwell=False, every score is weighted by f = Σ_m log p(x_m, z_m) - log q(z_m|x_m), the sum over
    the minibatch. With it, the score of a factor is weighted by the terms of f that the factor is in: where the
    posterior's latents are independent z_mj has log p(x_m|z_m) + log p(z_mj) - log q(z_mj|x_m), else z_m has the term
    of its row. control_variate takes two draws or more: 8 or so is a good number. ValueError for fewer.
    """
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    f = log_px + log_standard_gaussian(z, gradient=False)[0] - log_qz
    if gradient:
        p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L); its ∂/∂z is what we do without
        weights, scores = _weights(q, z, f, log_px, rao_blackwell, control_variate)
        if scores is None:
            q.backward_given(scale / len(eps) * weights[0])  # 1/L Σ_l f ∂log q/∂φ, z held
        else:
            q.network.backward(*(scale * (w * score).mean(axis=0) for w, score in zip(weights, scores, strict=True)))
    return scale * f.mean(axis=0).sum()


def surrogate(q, p, x, eps, scale, held_q, held_p, rao_blackwell=True, control_variate=True):
    """1/L Σ_l f log q(z|x) + log p(x|z), with z and the weights f held; each output of q moves with its own weights."""
    z, log_qz = held_q.draw(x, eps)
    log_px = held_p.log_prob(x, z, False)
    f = log_px + log_standard_gaussian(z, gradient=False)[0] - log_qz
    weights, scores = _weights(held_q, z, f, log_px, rao_blackwell, control_variate)
    value = p.log_prob(x, z, False).mean(axis=0).sum()
    if scores is None:
        return scale * (value + (weights[0] * q.log_prob(x, z)).mean(axis=0).sum())
    for i, w in enumerate(weights):
        outputs = held_q.forward(x)
        outputs[i] = q.forward(x)[i]
        q.posterior.draw(q.posterior.noise_of(z, *outputs), *outputs)
        value = value + (w * q.posterior.factors()[0]).mean(axis=0).sum()
    return scale * value


black_box.needs = ("grad_z",)
black_box.surrogate = surrogate
black_box.least_draws = 2


def _weights(q, z, f, log_px, rao_blackwell, control_variate):
    """What the scores are weighted by, and the scores of independent factors, output by output; None for others."""
    log_qz, scores = q.factors()
    if scores is None:
        f = f if rao_blackwell else f.sum(axis=1)[:, None] + 0 * f
        return [centred(f, np.full_like(f, 1.0)) if control_variate else f], None
    log_pz = -0.5 * (LOG_2PI + z * z)  # log p(z_mj), factor by factor
    f = log_px[..., None] + log_pz - log_qz if rao_blackwell else f.sum(axis=1)[:, None, None]
    return [centred(f, score) if control_variate else f for score in scores], scores
