"""Stochastic gradient variational Bayes: the estimators of the bound, each with its gradient in one function.

The equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes", section 2.

    log p(x) = KL(q(z|x) ‖ p(z|x)) + L,   the first term ≥ 0, so that L is a lower bound                             (1)
           L = E_q[log p(x, z) - log q(z|x)]                estimated as it stands: L^A                         (2), (6)
             = -KL(q(z|x) ‖ p(z)) + E_q[log p(x|z)]         the first term in closed form: L^B                  (3), (7)

q depends on φ, so ∇_φ does not pass under E_q. With z = g(ε, x) and ε ~ p(ε), the expectation is over ε, which does not
depend on φ, and the gradient of one draw is a draw of the gradient: (4), (5).

The gradient of L^A has a part that is 0 on average: log q(z|x) depends on φ also where z is held, and E_q ∇_φ log q =
0. This part is noise, and it is all that is left of the gradient where q is the posterior. "Sticking the landing"
leaves it out (Roeder, Wu & Duvenaud 2017, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
Variational Inference"): the value is L^A, and the gradient with respect to φ goes through z alone.

The arguments are those of every objective (see `inference.objectives`): an encoder q, a decoder p, the minibatch x (M,
D), the noise eps (L, M, J) behind z, and scale, which is N/M. Each function returns the estimate (8) in nats, summed
over the whole data set: divide it by N for the bound per datapoint. With gradient=True, the default, it leaves the
gradient in the windows of the networks.
"""

from scratchvae.inference.distributions import log_standard_gaussian


def sgvb_a(q, p, x, eps, scale, gradient=True):
    """Return L^A = 1/L Σ_l log p(x, z⁽ˡ⁾) - log q(z⁽ˡ⁾|x)   (6), each datapoint standing for N/M   (8)."""
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
    """Return L^B = -KL(q(z|x) ‖ p(z)) + 1/L Σ_l log p(x|z⁽ˡ⁾)   (7), (10), each datapoint standing for N/M   (8)."""
    z, _ = q.draw(x, eps)  # z = g(ε, x)                                                                       (4), (10)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    neg_kl = q.neg_kl()  # -KL(q(z|x) ‖ p(z))                                                                    App. B
    if gradient:
        dz = p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L)
        q.backward(dz, dneg_kl=scale)  # through z, and through -KL
    return scale * (neg_kl + log_px.mean(axis=0)).sum()


sgvb_b.needs = ("neg_kl",)


def stl(q, p, x, eps, scale, gradient=True):
    """Return L^A   (6), whose gradient with respect to φ goes through z alone: sticking the landing.

    Where q is the posterior, this gradient is 0 in every draw.
    """
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)
    if gradient:
        weight = scale / len(eps)
        dz = p.backward(weight) + weight * (dlog_pz - q.grad_z())  # through log p(x, z) - log q(z|x) with φ held
        q.backward(dz)  # through z
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def stl_surrogate(q, p, x, eps, scale, held_q, held_p):
    """Return L^A with φ held in log q. Its derivative is the gradient of `stl`."""
    z, _ = q.draw(x, eps)
    log_pz = log_standard_gaussian(z, gradient=False)[0]
    return scale * (p.log_prob(x, z, False) + log_pz - held_q.log_prob(x, z)).mean(axis=0).sum()


stl.needs = ("grad_z",)
stl.surrogate = stl_surrogate


def terms(q, p, x, eps, gradient=False):
    """Return the two terms of (7), -KL(q(z|x) ‖ p(z)) and 1/L Σ_l log p(x|z⁽ˡ⁾), in nats per datapoint, (M,) each.

    The first is in closed form if the posterior has one, and is otherwise estimated from the draws. With gradient=True,
    which is not the default, p is ready for its backward pass.
    """
    z, log_qz = q.draw(x, eps)
    neg_kl = q.neg_kl()
    if neg_kl is None:
        neg_kl = (log_standard_gaussian(z, gradient=False)[0] - log_qz).mean(axis=0)
    return neg_kl, p.log_prob(x, z, gradient).mean(axis=0)
