"""Wake-sleep (Hinton, Dayan, Frey & Neal 1995, "The wake-sleep algorithm"): θ learns from data, φ from dreams.

    wake    z ~ q(z|x) for a datapoint x, and θ ascends log p(x, z): the gradient of the bound (7) with respect to θ
    sleep   z ~ p(z) and x ~ p(x|z), a dream, and φ ascends log q(z|x)

Section 5 of Kingma & Welling compares AEVB with it: it needs nothing that AEVB does not have, and no gradient through a
sample. But the two phases do not ascend one function. Sleep lowers E_p(x) KL(p(z|x) ‖ q(z|x)), the divergence turned
round and over dreams, where the bound has E_data KL(q(z|x) ‖ p(z|x)). So there is nothing that must grow.
"""

from scratchvae.inference.objectives.sgvb import terms


def wake_sleep(q, p, x, noise, scale, gradient=True):
    """The bound by (7), in nats and times `scale`; with `gradient`, the gradients of both phases in the windows.

    noise is (eps, z, u): eps (L, M, J) for the wake phase, z (S, J) and u (S, D) behind S dreams. S is M, so that a
    dream stands for `scale` dreams as a datapoint does for datapoints.
    """
    eps, z, u = noise
    bound = wake(q, p, x, eps, scale, gradient)
    if gradient:
        sleep(q, p, z, u, scale * (len(x) / len(z)))
    return bound


def wake(q, p, x, eps, scale, gradient=True):
    """L^B (7), (8), and its gradient with respect to θ alone; that of φ is left as exactly 0."""
    neg_kl, log_px = terms(q, p, x, eps, gradient)  # log p(z) does not move with θ
    if gradient:
        p.backward(scale / len(eps))  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L), and no further than to z
        for layer in q.layers:
            for name in layer.shapes:
                getattr(layer, "d" + name)[...] = 0
    return scale * (neg_kl + log_px).sum()


def sleep(q, p, z, u, scale, gradient=True):
    """scale Σ_s log q(z_s|x_s) at the dreams x_s ~ p(x|z_s), and its gradient with respect to φ; θ's is left alone.

    z (S, J) ~ p(z); u (S, D) is the noise of `p.draw`. A dream of a Bernoulli decoder has pixels that are 0 or 1.
    """
    log_qz = q.log_prob(p.draw(z, u), z[None])  # the dream is given: nothing flows back into the decoder
    if gradient:
        q.backward_given(scale)  # ∂log q/∂φ at the z that is given
    return scale * log_qz.sum()


def surrogate(q, p, x, noise, scale, held_q, held_p):
    """The wake phase with φ held and the sleep phase with θ held: the gradients of the two are apart."""
    eps, z, u = noise
    return wake(held_q, p, x, eps, scale, False) + sleep(q, held_p, z, u, scale * (len(x) / len(z)), False)


wake_sleep.needs = ("noise_of", "grad_z")
wake_sleep.noise = ("eps", "z", "u")
wake_sleep.surrogate = surrogate
wake_sleep.theta = False
