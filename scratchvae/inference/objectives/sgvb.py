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

The KL may count β times in what is ascended (Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a
Constrained Variational Framework"): E log p(x|z) - β KL(q(z|x) ‖ p(z)). β above 1 buys a lower rate with a higher
distortion, and β below 1 the other way round. And the mean KL of each latent may have a floor λ, below which it costs
nothing to use the latent: E log p(x|z) - Σ_j max(λ, E_x KL_j), "free bits" (Kingma, Salimans, Jozefowicz, Chen,
Sutskever & Welling 2016, "Improved Variational Inference with Inverse Autoregressive Flow", appendix C.8). Both change
the gradient alone. The value that is returned stays the bound, in which β = 1 and λ = 0, and the function whose
derivative is the gradient stands beside the estimator.

The arguments are those of every objective (see `inference.objectives`): an encoder q, a decoder p, the minibatch x (M,
D), the noise eps (L, M, J) behind z, and scale, which is N/M. Each function returns the estimate (8) in nats, summed
over the whole data set: divide it by N for the bound per datapoint. With gradient=True, the default, it leaves the
gradient in the windows of the networks.
"""

import numpy as np

from scratchvae.inference.distributions import log_standard_gaussian


def mean_of_rows(rows):
    """Return the mean of rows (M, J) over the minibatch, (J,), where they are all of it."""
    return rows.mean(axis=0)


def sgvb_a(q, p, x, eps, scale, gradient=True, beta=1.0):
    """Return L^A = 1/L Σ_l log p(x, z⁽ˡ⁾) - log q(z⁽ˡ⁾|x)   (6), each datapoint standing for N/M   (8).

    In the gradient log p(z) - log q(z|x) counts `beta` times, once unless given.
    """
    z, log_qz = q.draw(x, eps)  # z = g(ε, x), log q(z|x)                                                       (4), (9)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)  # log p(z)
    if gradient:
        weight = scale / len(eps)  # ∂bound/∂log p(x, z⁽ˡ⁾) = N/(M L)
        dz = p.backward(weight) + beta * weight * dlog_pz  # through log p(x|z) and β log p(z)
        q.backward(dz, -beta * weight)  # through z, and through -β log q(z|x)
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def weighted_a(q, p, x, eps, scale, held_q, held_p, beta):
    """Return 1/L Σ_l log p(x|z) + β (log p(z) - log q(z|x)), whose derivative is the gradient of `sgvb_a`."""
    z, log_qz = q.draw(x, eps)
    log_pz = log_standard_gaussian(z, gradient=False)[0]
    return scale * (p.log_prob(x, z, False) + beta * (log_pz - log_qz)).mean(axis=0).sum()


sgvb_a.at_the_draws = True
sgvb_a.weighted = weighted_a


def sgvb_b(q, p, x, eps, scale, gradient=True, beta=1.0, free_bits=0.0, mean=mean_of_rows):
    """Return L^B = -KL(q(z|x) ‖ p(z)) + 1/L Σ_l log p(x|z⁽ˡ⁾)   (7), (10), each datapoint standing for N/M   (8).

    In the gradient the KL counts `beta` times, once unless given. With `free_bits`, a number of nats that is 0 unless
    given, the KL of a latent counts only where its mean over the minibatch is above that number. `mean` takes the mean
    of rows (M, J) over the minibatch, also where x is a part of it.
    """
    z, _ = q.draw(x, eps)  # z = g(ε, x)                                                                       (4), (10)
    log_px = p.log_prob(x, z, gradient)  # log p(x|z)                                                         (11), (12)
    neg_kl = q.neg_kl()  # -KL(q(z|x) ‖ p(z))                                                                    App. B
    if gradient:
        dz = p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L)
        dneg_kl = beta * scale
        if free_bits:  # ∂max(λ, KL_j)/∂KL_j is 1 where the mean KL_j is above λ, and 0 where it is not
            kl = mean(q.latent_kl())
            dneg_kl = kl.dtype.type(dneg_kl) * (kl > free_bits)  # in its dtype: a float and bools make float64
        q.backward(dz, dneg_kl=dneg_kl)  # through z, and through -β KL
    return scale * (neg_kl + log_px.mean(axis=0)).sum()


def weighted_b(q, p, x, eps, scale, held_q, held_p, beta, free_bits=0.0):
    """Return 1/L Σ_l log p(x|z) - β Σ_j max(λ, 1/M Σ_m KL_j), whose derivative is the gradient of `sgvb_b`."""
    z, _ = q.draw(x, eps)
    kl = -q.neg_kl().sum()
    if free_bits:
        kl = len(x) * np.maximum(free_bits, mean_of_rows(q.latent_kl())).sum()
    return scale * (p.log_prob(x, z, False).mean(axis=0).sum() - beta * kl)


sgvb_b.needs = ("neg_kl",)
sgvb_b.weighted = weighted_b
sgvb_b.has_free_bits = True


def stl(q, p, x, eps, scale, gradient=True, beta=1.0):
    """Return L^A   (6), whose gradient with respect to φ goes through z alone: sticking the landing.

    Where q is the posterior, this gradient is 0 in every draw. In the gradient log p(z) - log q(z|x) counts `beta`
    times, once unless given.
    """
    z, log_qz = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    log_pz, dlog_pz = log_standard_gaussian(z, gradient)
    if gradient:
        weight = scale / len(eps)
        dz = p.backward(weight) + beta * weight * (dlog_pz - q.grad_z())  # φ held in log q(z|x)
        q.backward(dz)  # through z
    return scale * (log_px + log_pz - log_qz).mean(axis=0).sum()


def stl_surrogate(q, p, x, eps, scale, held_q, held_p, beta=1.0):
    """Return L^A with φ held in log q, and log p(z) - log q(z|x) `beta` times. Its derivative is that of `stl`."""
    z, _ = q.draw(x, eps)
    log_pz = log_standard_gaussian(z, gradient=False)[0]
    return scale * (p.log_prob(x, z, False) + beta * (log_pz - held_q.log_prob(x, z))).mean(axis=0).sum()


stl.needs = ("grad_z",)
stl.surrogate = stl_surrogate
stl.weighted = stl_surrogate


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
