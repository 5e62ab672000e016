"""Stochastic gradient variational Bayes: the estimators of the bound, each with its gradient in one scope.

The equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes", section 2.

    log p(x) = KL(q(z|x) ‖ p(z|x)) + L,   the first term ≥ 0, so that L is a lower bound                             (1)
           L = E_q[log p(x, z) - log q(z|x)]                estimated as it stands: L^A                         (2), (6)
             = -KL(q(z|x) ‖ p(z)) + E_q[log p(x|z)]         the first term in closed form: L^B                  (3), (7)

q depends on φ, so ∇_φ does not pass under E_q. With z = g(ε, x), ε ~ p(ε), the expectation is over ε, which knows
nothing of φ, and the gradient of one draw is a draw of the gradient: (4), (5).

L^A's gradient has a part that is 0 on average: log q(z|x) moves with φ also where z is held, and E_q ∇_φ log q = 0.
It is noise, and all that is left of the gradient where q is the posterior. "Sticking the landing" leaves it out
(Roeder, Wu & Duvenaud 2017): the value is L^A, and the gradient of φ goes through z alone.

The arguments are those of every objective (see `inference.objectives`): an encoder q, a decoder p, the minibatch x
(M, D), the noise eps (L, M, J) behind z, and scale, N/M. They return the estimate (8) in nats, summed over the whole
data set: divide by N for the figure per datapoint. With gradient=True they leave its gradient in the networks'
windows.
"""

from scratchvae.inference.distributions import log_standard_gaussian


def sgvb_a(q, p, x, eps, scale, gradient=True):
    """L^A = 1/L Σ_l log p(x, z⁽ˡ⁾) - log q(z⁽ˡ⁾|x)   (6), for N/M times each datapoint (8)."""
    z, log_qz = q.draw(x, eps)  # z = g(ε, x), log q(z|x)                                                       (4), (9)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)  # log p(z)
    if gradient:
        weight = scale / len(eps)  # ∂bound/∂log p(x, z⁽ˡ⁾) = N/(M L)
        dz = p.backward(weight) + weight * dlog_pz  # through log p(x|z) and log p(z)
        q.backward(dz, -weight)  # through z, and through -log q(z|x)
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


sgvb_a.at_the_draws = True


def sgvb_b(q, p, x, eps, scale, gradient=True):
    """L^B = -KL(q(z|x) ‖ p(z)) + 1/L Σ_l log p(x|z⁽ˡ⁾)   (7), (10), for N/M times each datapoint (8)."""
    z, _ = q.draw(x, eps)  # z = g(ε, x)                                                                       (4), (10)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    neg_kl = q.neg_kl()  # -KL(q(z|x) ‖ p(z))                                                                    App. B
    if gradient:
        dz = p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L)
        q.backward(dz, dneg_kl=scale)  # through z, and through -KL
    return scale * (neg_kl + log_px.mean(axis=0)).sum()


sgvb_b.needs = ("neg_kl",)


def stl(q, p, x, eps, scale, gradient=True):
    """L^A (6), with the gradient of φ through z alone: sticking the landing.

    Where q is the posterior that gradient is 0 in every draw.
    """
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)
    if gradient:
        weight = scale / len(eps)
        dz = p.backward(weight) + weight * (dlog_pz - q.grad_z())  # through log p(x, z) - log q(z|x), φ held in log q
        q.backward(dz)  # through z
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def stl_surrogate(q, p, x, eps, scale, held_q, held_p):
    """L^A with φ held in log q: the derivative of this is the gradient of `stl`."""
    z, _ = q.draw(x, eps)
    log_pz = log_standard_gaussian(z, gradient=False)[0]
    return scale * (p.log_prob(x, z, False) + log_pz - held_q.log_prob(x, z)).mean(axis=0).sum()


stl.needs = ("grad_z",)
stl.surrogate = stl_surrogate


def terms(q, p, x, eps, gradient=False):
    """The terms of (7) apart, -KL(q(z|x) ‖ p(z)) and 1/L Σ_l log p(x|z⁽ˡ⁾), nats per datapoint, (M,) each.

    The first is in closed form where the posterior has one, else estimated from the draws. With `gradient` p is ready
    for its backward pass.
    """
    z, log_qz = q.draw(x, eps)
    neg_kl = q.neg_kl()
    if neg_kl is None:
        neg_kl = (log_standard_gaussian(z, gradient=False)[0] - log_qz).mean(axis=0)
    return neg_kl, p.log_prob(x, z, gradient).mean(axis=0)
