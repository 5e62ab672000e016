"""The plain autoencoder: the networks of a VAE without noise and without the KL.

Section 5 of Kingma & Welling, "Auto-Encoding Variational Bayes", compares a VAE with it.
"""


def autoencoder(q, p, x, eps, scale, gradient=True):
    """Return log p(x|z) at the code, the z of ε = 0, in nats, summed over the rows and times `scale`.

    It is a cross entropy or a squared error, and no bound. Of eps only the shape matters, and the scales of the
    posterior are not learned. The arguments are those of every objective (see `inference.objectives`).
    """
    z, _ = q.draw(x, 0 * eps[:1])
    log_px = p.log_prob(x, z, gradient)
    if gradient:
        q.backward(p.backward(scale))  # through z
    return scale * log_px.sum()


def terms(q, p, x, eps):
    """Return 0, in the place of -KL, and log p(x|z) at the code, in nats per datapoint, (M,) each.

    Their sum is no bound.
    """
    log_px = p.log_prob(x, q.draw(x, 0 * eps[:1])[0], gradient=False)[0]
    return 0 * log_px, log_px


autoencoder.terms = terms
autoencoder.theta = False
autoencoder.bound = False
