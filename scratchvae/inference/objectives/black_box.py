"""Black-box variational inference as an objective: L^A, whose gradient with respect to φ is taken by scores.

The formulas, and the two ways to lower the variance, are in `inference.score_function`. Equations are those of Kingma &
Welling, "Auto-Encoding Variational Bayes".
"""

import numpy as np

from scratchvae.inference.distributions import LOG_2PI, log_standard_gaussian
from scratchvae.inference.score_function import centred


def black_box(q, p, x, eps, scale, gradient=True, rao_blackwell=True, control_variate=True, beta=1.0):
    """Return L^A   (6), (8), whose gradient with respect to φ is taken by scores.

    The value, the gradient with respect to θ and the first six arguments are those of `sgvb_a`.

    rao_blackwell     says what a score is weighted by. With False, every score is weighted by f, the sum of
                      log p(x_m, z_m) - log q(z_m|x_m) over the minibatch. With True, which is the default, the score of
                      a factor is weighted only by those terms of f that the factor is in. If the latents of the
                      posterior are independent, z_mj has log p(x_m|z_m) + log p(z_mj) - log q(z_mj|x_m); if not, z_m
                      has the term of its row.
    control_variate   says whether the weights are `centred`; True unless given. It takes two draws or more, and 8 or so
                      is a good number.

    beta              says how often log p(z) - log q(z|x) counts in the gradient, once unless given.

    Fewer than two draws with control_variate raise a ValueError.
    """
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    neg_kl = log_standard_gaussian(z, gradient=False)[0] - log_qz
    if gradient:
        p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L); the ∂bound/∂z that it returns is not used
        f = log_px + beta * neg_kl
        weights, scores = _weights(q, z, f, log_px, beta, rao_blackwell, control_variate)
        if scores is None:
            q.backward_given(scale / len(eps) * weights[0])  # 1/L Σ_l f ∂log q/∂φ with z held
        else:
            q.network.backward(*(scale * (w * score).mean(axis=0) for w, score in zip(weights, scores, strict=True)))
    return scale * (log_px + neg_kl).mean(axis=0).sum()


def surrogate(q, p, x, eps, scale, held_q, held_p, rao_blackwell=True, control_variate=True, beta=1.0):
    """Return a value whose derivative is the gradient of `black_box`.

    It is 1/L Σ_l f log q(z|x) + log p(x|z), with z and the weights f held. Each output of q has weights of its own.
    """
    z, log_qz = held_q.draw(x, eps)
    log_px = held_p.log_prob(x, z, False)
    f = log_px + beta * (log_standard_gaussian(z, gradient=False)[0] - log_qz)
    weights, scores = _weights(held_q, z, f, log_px, beta, rao_blackwell, control_variate)
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
black_box.weighted = surrogate
black_box.least_draws = 2


def _weights(q, z, f, log_px, beta, rao_blackwell, control_variate):
    """Return the weights of the scores as a list, and the scores of the independent factors, output by output.

    If the latents are not independent, the list has one entry, (L, M), and None is returned for the scores.
    """
    log_qz, scores = q.factors()
    if scores is None:
        f = f if rao_blackwell else f.sum(axis=1)[:, None] + 0 * f
        return [centred(f, np.ones_like(f)) if control_variate else f], None
    log_pz = -0.5 * (LOG_2PI + z * z)  # log p(z_mj), factor by factor
    f = log_px[..., None] + beta * (log_pz - log_qz) if rao_blackwell else f.sum(axis=1)[:, None, None]
    return [centred(f, score) if control_variate else f for score in scores], scores
