"""The plain autoencoder: the networks of a VAE without noise and without the KL, what section 5 compares a VAE with."""


def autoencoder(q, p, x, eps, scale, gradient=True):
    """log p(x|z) at the code, the z of ε = 0, in nats and times `scale`: cross entropy or squared error, no bound.

    eps has no part in it but its shape, and the scales of the posterior are not learned.
    """
    z, _ = q.draw(x, 0 * eps[:1])
    log_px = p.log_prob(x, z, gradient)
    if gradient:
        q.backward(p.backward(scale))  # through z
    return scale * log_px.sum()


def terms(q, p, x, eps):
    """0 in the place of -KL, and log p(x|z) at the code, nats per datapoint, (M,) each: their sum bounds nothing."""
    log_px = p.log_prob(x, q.draw(x, 0 * eps[:1])[0], gradient=False)[0]
    return 0 * log_px, log_px


autoencoder.terms = terms
autoencoder.theta = False
autoencoder.bound = False
