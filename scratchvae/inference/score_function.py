"""Black-box variational inference: a gradient of the bound that needs no gradient of log p.

The sections are those of Ranganath, Gerrish & Blei 2014, "Black Box Variational Inference". Since ∇q = q ∇log q and
E_q ∇log q = 0,

    ∇ E_q f = E_q[f ∇log q],   f = log p(x, z) - log q(z)                                                     section 2

∇ passes under E_q without z = g(ε, x), for any p that can be evaluated. The price is variance. Two devices lower it and
leave the mean as it is, since the score h = ∇log q has mean zero:

    Rao-Blackwell     For factor j of q(z) = Π_j q_j(z_j) only those terms of f are taken that contain z_j: the terms
                      of its Markov blanket in log p, and log q_j. Given the other factors, the remaining terms
                      multiply E h_j = 0.                                                                   section 3.1
    control variate   h f becomes h (f - a), with a* = Cov(h f, h) / Var h. The a of a sample is estimated from other
                      samples, since the mean changes if a and h are not independent.                        section 3.2

Here q_j = N(μ_j, σ_j²) has the parameters μ and log σ², and z = μ + σ ε with the noise ε as an argument. Values are in
nats.
"""

import numpy as np

from scratchvae.inference.distributions import log_gaussian


def factors(mu, log_var, eps):
    """Return z = μ + σ ε, log q_j(z_j), and the scores ∂log q_j/∂μ_j and ∂log q_j/∂log σ_j² at z held.

    mu and log_var broadcast against eps, and the four arrays have the shape of eps.
    """
    d = np.exp(0.5 * log_var) * eps  # z - μ
    parts = log_gaussian(d[..., None], 0, log_var[..., None])  # log N(z; μ, σ²) = log N(z - μ; 0, σ²), factor by factor
    return mu + d, parts[0], parts[1][..., 0], parts[2][..., 0]


def control_coefficient(f, score):
    """Return a* = Cov(h f, h) / Var h from samples of f and h = score along axis 0.

    Since E h = 0 it is E[h² f] / E[h²], a mean of f with the weights h². It therefore lies among the f, however few
    there are, and if a constant is added to them, it is added to a* too.
    """
    weight = score * score + np.finfo(score.dtype).tiny  # where every h is 0, it gives the plain mean and not 0/0
    return (weight * f).sum(axis=0) / weight.sum(axis=0)


def centred(f, score):
    """Return f - a for each of S samples along axis 0, where each half of the samples has the a* of the other half.

    From a few samples a* is rough, and where f is near 0 it costs more than it saves. f (S, …) broadcasts against score
    (S, …). If all scores are 1, a* is the mean. Fewer than two samples raise a ValueError.
    """
    S = len(score)
    if S < 2:
        raise ValueError(f"there is {S} draw; a control variate takes 2 or more, halves that correct each other")
    first = slice(None, S // 2)
    second = slice(S // 2, None)
    parts = [
        f[mine] - control_coefficient(f[other], score[other]) for mine, other in ((first, second), (second, first))
    ]
    return np.concatenate(parts)


def score_weighted(f, score, control_variate=False):
    """Return 1/S Σ_s h_s f_s, component by component: the gradient of E_q f that does not go through f itself.

    score (S, …) holds h, and f (S, …) broadcasts against it. With control_variate=True, which is not the default, f is
    `centred`; this needs two samples or more.
    """
    return (score * (centred(f, score) if control_variate else f)).mean(axis=0)


def score_gradient(log_p, mu, log_var, eps, control_variate=False):
    """Return ∂/∂μ and ∂/∂log σ², (J,) each, of the bound E_q[log p(x, z) - log q(z)], by scores.

    log_p             is a function of z (S, J). If it returns log p(x, z), (S,), the gradient is the naive one. If it
                      returns for each factor j the terms that contain z_j, (S, J), the gradient is Rao-Blackwellised.
    mu                is μ, (J,).
    log_var           is log σ², (J,).
    eps               is the noise ε of S draws, (S, J).
    control_variate   says whether f is `centred`; False unless given. It lowers the variance if there are more than a
                      few draws.

    Other shapes raise a ValueError.
    """
    _check(mu, log_var, eps)
    z, log_q, *scores = factors(mu, log_var, eps)
    log_p = log_p(z)
    if log_p.shape == z.shape:
        f = log_p - log_q  # for factor j the terms of its Markov blanket and its own log q_j                        3.1
    elif log_p.shape == z.shape[:1]:
        f = (log_p - log_q.sum(axis=-1))[:, None]  # the same for all factors
    else:
        raise ValueError(f"log_p(z) has shape {log_p.shape} for z {z.shape}; expected {z.shape[:1]} or {z.shape}")
    dmu, dlog_var = (score_weighted(f, score, control_variate) for score in scores)
    return dmu, dlog_var


def path_gradient(dlog_p, mu, log_var, eps):
    """Return the gradient of `score_gradient` by reparameterisation instead, for comparison.

    dlog_p is a function of z (S, J) that returns ∂log p(x, z)/∂z, (S, J). The other arguments are those of
    `score_gradient`. Other shapes raise a ValueError.
    """
    _check(mu, log_var, eps)
    sigma = np.exp(0.5 * log_var)
    z = mu + sigma * eps
    dz = dlog_p(z)
    if dz.shape != z.shape:
        raise ValueError(f"dlog_p(z) has shape {dz.shape} for z {z.shape}; expected the same")
    dmu = dz.mean(axis=0)  # through z: ∂z/∂μ = 1               through -log q: 0
    dlog_var = 0.5 * ((dz * eps).mean(axis=0) * sigma + 1)  # through z: ∂z/∂log σ² = ½ σ ε     through -log q: ½
    return dmu, dlog_var


def _check(mu, log_var, eps):
    """Raise a ValueError unless the shapes of μ, log σ² and ε fit each other."""
    if mu.ndim != 1 or log_var.shape != mu.shape or eps.ndim != 2 or eps.shape[1:] != mu.shape or len(eps) == 0:
        raise ValueError(
            f"mu, log_var and eps have shapes {mu.shape}, {log_var.shape} and {eps.shape}; "
            "expected (J,), (J,) and (S, J) with S ≥ 1"
        )
