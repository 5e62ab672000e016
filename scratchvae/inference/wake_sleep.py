"""Wake-sleep (Hinton, Dayan, Frey & Neal 1995): θ learns from data, φ from dreams.

    wake    z ~ q(z|x) for a datapoint x, and θ ascends log p(x, z): the gradient of the bound (7) with respect to θ
    sleep   z ~ p(z) and x ~ p(x|z), a dream, and φ ascends log q(z|x)

Section 5 compares with it: it needs nothing that AEVB does not have, and no gradient through a sample. But the two
phases do not ascend one function: sleep lowers E_p(x) KL(p(z|x) ‖ q(z|x)), the divergence turned round and over dreams,
where the bound has E_data KL(q(z|x) ‖ p(z|x)). So there is nothing that must grow.
"""

import numpy as np

from scratchvae.inference.distributions import gaussian_neg_kl, log_gaussian


def wake_sleep(encoder, decoder, x, noise, n_data, gradient=True):
    """The bound by (7), in nats, summed over the n_data datapoints (8); with `gradient`, both phases' in the windows.

    x (M, D); noise is (eps, z, u): eps (L, M, J) for the wake phase, z (S, J) and u (S, D) behind the dreams.
    """
    eps, z, u = noise
    bound = wake(encoder, decoder, x, eps, n_data, gradient)
    if gradient:
        sleep(encoder, decoder, z, u, n_data)
    return bound


def wake(encoder, decoder, x, eps, n_data, gradient=True):
    """L^B (7), (8), and its gradient with respect to θ alone; that of φ is left as exactly 0."""
    L, M = len(eps), len(x)
    scale = n_data / M  # each datapoint stands for N/M of them                                                      (8)
    mu, log_var = encoder.forward(x)  # q(z|x) = N(μ, σ² I)                                                          (9)
    z = mu + np.exp(0.5 * log_var) * eps
    log_px = decoder.log_prob(x, z, gradient)  # log p(x|z); log p(z) does not move with θ
    if gradient:
        decoder.log_prob_backward(scale / L)  # ∂bound/∂log p(x|z⁽ˡ⁾) = N/(M L), and no further than to z
        for layer in encoder.layers:
            for name in layer.shapes:
                getattr(layer, "d" + name)[...] = 0
    return scale * (gaussian_neg_kl(mu, log_var, gradient=False)[0] + log_px.mean(axis=0)).sum()


def sleep(encoder, decoder, z, u, n_data, gradient=True):
    """N/S Σ_s log q(z_s|x_s) at the dreams x_s ~ p(x|z_s), and its gradient with respect to φ; θ's is left alone.

    z (S, J) ~ p(z); u (S, D) is the noise of `decoder.draw`. A dream of a Bernoulli decoder has pixels that are 0 or 1.
    """
    scale = n_data / len(z)
    mu, log_var = encoder.forward(decoder.draw(z, u))  # the dream is given: nothing flows back into the decoder
    log_qz, dmu, dlog_var = log_gaussian(z, mu, log_var, gradient)  # ∂log q/∂μ, ∂log q/∂log σ²
    if gradient:
        encoder.backward(scale * dmu, scale * dlog_var)
    return scale * log_qz.sum()
