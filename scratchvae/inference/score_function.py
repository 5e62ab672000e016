"""Black-box variational inference (Ranganath, Gerrish & Blei 2014): a gradient that needs no gradient of log p.

    ∇ E_q f = E_q[f ∇log q],   f = log p(x, z) - log q(z)            their section 2: ∇q = q ∇log q, and E_q ∇log q = 0

so that ∇ passes under E_q without z = g(ε, x), for any p that can be evaluated. The price is variance, and two ways to
lower it leave the mean as it is, since the score h = ∇log q has mean zero:

    Rao-Blackwell     for factor j of q(z) = Π_j q_j(z_j), of f only the terms with z_j in them: those of its Markov
                      blanket in log p, and log q_j. Given the other factors, the rest multiplies E h_j = 0          3.1
    control variate   h (f - a) for h f, with a* = Cov(h f, h) / Var h; from samples other than those it corrects,
                      else a and h are not independent, and the mean is another                                      3.2

q_j = N(μ_j, σ_j²) here, by μ and log σ², and z = μ + σ ε with the noise ε an argument; in nats.
"""

import numpy as np

from scratchvae.inference.distributions import log_gaussian


def factors(mu, log_var, eps):
    """z = μ + σ ε, log q_j(z_j) and the scores ∂log q_j/∂μ_j and ∂log q_j/∂log σ_j²: four arrays shaped like eps."""
    d = np.exp(0.5 * log_var) * eps  # z - μ
    parts = log_gaussian(d[..., None], 0, log_var[..., None])  # log N(z; μ, σ²) = log N(z - μ; 0, σ²), a row per factor
    return mu + d, parts[0], parts[1][..., 0], parts[2][..., 0]


def control_coefficient(f, score):
    """a* = Cov(h f, h) / Var h = E[h² f] / E[h²], since E h = 0; from the samples f and h = score, axis 0.

    A mean of f with weights h²: it lies among the f, however few there are, and moves with a constant in them.
    """
    weight = score * score + np.finfo(score.dtype).tiny  # the plain mean, not 0/0, where every h is 0
    return (weight * f).sum(axis=0) / weight.sum(axis=0)


def centred(f, score):
    """f - a for each of S samples, axis 0: each half of the samples with the a* of the other half.

    From a few samples a* is rough, and where f is near 0 it costs more than it saves. f (S, …) broadcasts against score
    (S, …); with scores of one, a* is the mean. ValueError: there are too few samples for two halves.
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
    """∇ E_q f with q's own gradient in f left aside: 1/S Σ_s h_s f_s, component by component, or with `centred` f.

    score (S, …) holds h, and f (S, …) broadcasts against it.
    """
    return (score * (centred(f, score) if control_variate else f)).mean(axis=0)


def score_gradient(log_p, mu, log_var, eps, control_variate=False):
    """(∂/∂μ, ∂/∂log σ²), (J,) each, of the bound E_q[log p(x, z) - log q(z)]: mu, log_var (J,), eps (S, J).

    log_p takes z (S, J) and gives log p(x, z), (S,): the naive gradient; or for each factor j the terms that have z_j
    in them, (S, J): the Rao-Blackwellised one. ValueError for other shapes.
    """
    _check(mu, log_var, eps)
    z, log_q, *scores = factors(mu, log_var, eps)
    log_p = log_p(z)
    if log_p.shape == z.shape:
        f = log_p - log_q  # of factor j: its Markov blanket's and its own                                           3.1
    elif log_p.shape == z.shape[:1]:
        f = (log_p - log_q.sum(axis=-1))[:, None]  # the same for all
    else:
        raise ValueError(f"log_p(z) has shape {log_p.shape} for z {z.shape}; expected {z.shape[:1]} or {z.shape}")
    dmu, dlog_var = (score_weighted(f, score, control_variate) for score in scores)
    return dmu, dlog_var


def path_gradient(dlog_p, mu, log_var, eps):
    """The same gradient by reparameterisation, from dlog_p(z) = ∂log p(x, z)/∂z, (S, J): the paper's, to compare."""
    _check(mu, log_var, eps)
    sigma = np.exp(0.5 * log_var)
    z = mu + sigma * eps
    dz = dlog_p(z)
    if dz.shape != z.shape:
        raise ValueError(f"dlog_p(z) has shape {dz.shape} for z {z.shape}; expected the same")
    dmu = dz.mean(axis=0)  # via z: ∂z/∂μ = 1               via -log q: 0
    dlog_var = 0.5 * ((dz * eps).mean(axis=0) * sigma + 1)  # via z: ∂z/∂log σ² = ½ σ ε     via -log q: ½
    return dmu, dlog_var


def _check(mu, log_var, eps):
    if mu.ndim != 1 or log_var.shape != mu.shape or eps.ndim != 2 or eps.shape[1:] != mu.shape or len(eps) == 0:
        raise ValueError(
            f"mu, log_var and eps have shapes {mu.shape}, {log_var.shape} and {eps.shape}; "
            "expected (J,), (J,) and (S, J) with S ≥ 1"
        )
