"""The plain autoencoder: the networks of a VAE without noise and without the KL, what section 5 compares a VAE with."""


def autoencoder(encoder, decoder, x, eps, n_data, gradient=True):
    """log p(x|z) at the code z = μ(x), in nats, N/M times each datapoint: cross entropy or squared error, no bound.

    Arguments and windows as of `sgvb_b`; eps has no part in it, and log σ² of the encoder is not learned.
    """
    scale = n_data / len(x)
    z, log_var = encoder.forward(x)
    log_px = decoder.log_prob(x, z[None], gradient)[0]
    if gradient:
        dz = decoder.log_prob_backward(scale)[0]
        encoder.backward(dz, 0 * log_var)
    return scale * log_px.sum()
