"""Wake-sleep (Hinton, Dayan, Frey & Neal 1995, "The wake-sleep algorithm"): θ learns from data, and φ from dreams.

    wake    z ~ q(z|x) for a datapoint x, and θ ascends log p(x, z): the gradient of the bound (7) with respect to θ
    sleep   z ~ p(z) and x ~ p(x|z), a dream, and φ ascends log q(z|x)

Section 5 of Kingma & Welling, "Auto-Encoding Variational Bayes", compares AEVB with it. It needs nothing that AEVB does
not have, and no gradient through a sample. But the two phases do not ascend one function. The bound has E_data
KL(q(z|x) ‖ p(z|x)), while sleep lowers E_p(x) KL(p(z|x) ‖ q(z|x)), the divergence in the other direction and over
dreams. So there is no value that must grow.
"""

from scratchvae.inference.objectives.sgvb import terms


def wake_sleep(q, p, x, noise, scale, gradient=True):
    """Return the bound (7), in nats and times `scale`.

    With gradient=True, the default, the gradients of both phases are left in the windows. noise is (eps, z, u): eps (L,
    M, J) is the noise of the wake phase, and z (S, J) and u (S, D) make S dreams. If S is not M, the dreams are
    weighted so that together they count as much as M. The other arguments are those of every objective (see
    `inference.objectives`).
    """
    eps, z, u = noise
    bound = wake(q, p, x, eps, scale, gradient)
    if gradient:
        sleep(q, p, z, u, scale * (len(x) / len(z)))
    return bound


def wake(q, p, x, eps, scale, gradient=True):
    """Return L^B   (7), (8), and leave its gradient with respect to θ alone; the gradient of φ is set to exactly 0."""
    neg_kl, log_px = terms(q, p, x, eps, gradient)  # log p(z) does not depend on θ
    if gradient:
        p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L); the gradient goes no further than to z
        for layer in q.layers:
            for name in layer.shapes:
                getattr(layer, "d" + name)[...] = 0
    return scale * (neg_kl + log_px).sum()


def sleep(q, p, z, u, scale, gradient=True):
    """Return scale Σ_s log q(z_s|x_s) at the dreams x_s ~ p(x|z_s), and leave its gradient with respect to φ.

    The gradient of θ stays as it is. z (S, J) are draws of p(z), and u (S, D) is the noise of `p.draw`. The dreams of a
    Bernoulli decoder have pixels that are 0 or 1.
    """
    log_qz = q.log_prob(p.draw(z, u), z[None])  # the dream is given: nothing flows back into the decoder
    if gradient:
        q.backward_given(scale)  # ∂log q/∂φ with z held
    return scale * log_qz.sum()


def surrogate(q, p, x, noise, scale, held_q, held_p):
    """Return the wake phase with φ held plus the sleep phase with θ held, whose derivative is the gradient of both."""
    eps, z, u = noise
    return wake(held_q, p, x, eps, scale, False) + sleep(q, held_p, z, u, scale * (len(x) / len(z)), False)


wake_sleep.needs = ("noise_of", "grad_z")
wake_sleep.noise = ("eps", "z", "u")
wake_sleep.surrogate = surrogate
wake_sleep.theta = False
