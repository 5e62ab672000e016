"""The first door: the posterior q(z|x), which says what the encoder's outputs mean and how z is drawn from them.

Equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes". M is the number of datapoints, L the number
of draws for each of them, and J the number of latents. A posterior is an object with the methods

    outputs(n_latent)               returns what is read from the encoder, {name of the output: how many numbers}.
    draw(eps, *outputs)             returns z = g(ε, x) (4), (L, M, J), and log q(z|x) in nats, (L, M), for noise
                                    ε ~ N(0, I) (L, M, J) and the outputs (M, n) of M datapoints. It keeps what the
                                    methods below need.
    backward(dz, dlog_q, dneg_kl)   returns the gradients of the outputs, (M, n) each. dz is ∂bound/∂z (L, M, J).
                                    dlog_q is ∂bound/∂log q, one number or (L, M), where log q counts as a function of
                                    the outputs at given ε. dneg_kl is ∂bound/∂(-KL), one number, which is 0 if
                                    `neg_kl` takes no part in the bound. If the posterior has `factors` and `latent_kl`,
                                    it may also be one number for each latent, (J,), as free bits give it.

It may also have an attribute `name`, a short text for configurations and messages, for which the name of its class is
taken unless it is given, and these methods, which some objectives need:

    neg_kl()                        returns -KL(q(z|x) ‖ N(0, I)) in closed form, (M,). L^B (7) takes it.
    grad_z()                        returns ∇_z log q(z|x) at the draw, with the outputs held, (L, M, J). Sticking the
                                    landing, doubly reparameterised gradients, the score function and wake-sleep take
                                    it.
    noise_of(z, *outputs)           returns the ε (L, M, J) that leads to a given z (L, M, J). Wake-sleep takes it.
    moments(*outputs)               returns the mean and the log variance of each latent, (M, J) each, which
                                    `VAE.encode` returns.
    latent_kl()                     returns KL(q(z_j|x) ‖ p(z_j)) of each latent by itself, (M, J), for the outputs of
                                    the last draw. `inference.information` reports it, and free bits take it.
    pairwise_log_q(z, *outputs)     returns log q(z_k|x_m) for each of K given z (K, J) and each of M datapoints,
                                    (K, M), from which `inference.information` estimates the mutual information.
    factors()                       returns log q of each latent, (L, M, J), and a list of its scores, (L, M, J) for
                                    each output, where the latents are independent. Black-box inference takes it, to
                                    tell one latent from the others.
    start(arrays)                   sets the initial values that are not to be drawn like the others. arrays holds the
                                    encoder's parameters, {"mu.W": array, "mu.b": array, …}.

If an objective needs a method that a posterior does not have, the model is refused when it is made. `VAE(posterior=…)`
takes a name from below, or an object of your own. To add a posterior to the package, write a file here and a line in
`POSTERIORS`.
"""

from scratchvae.inference.posteriors.flow import Flow
from scratchvae.inference.posteriors.full import FullGaussian
from scratchvae.inference.posteriors.gaussian import Gaussian

POSTERIORS = {"gaussian": Gaussian, "full": FullGaussian}


def can(posterior, ability):
    """Say whether a posterior has the method called `ability`. With a flow, the posterior under it must have it too."""
    return hasattr(posterior, ability) and (not isinstance(posterior, Flow) or can(posterior.base, ability))
