"""The first door: the posterior q(z|x), what the encoder's outputs mean and how z is drawn from them.

A posterior is an object with

    name                          a short name, for configurations and messages
    outputs(n_latent)             what it reads from the encoder, {name of the output: how many numbers}
    draw(eps, *outputs)           z = g(ε, x) (4), (L, M, J), and log q(z|x) in nats, (L, M), for ε ~ N(0, I), (L, M,
                                  J), and the outputs (M, n) of M datapoints. It keeps what the methods below need
    backward(dz, dlog_q, dneg_kl) the gradients of the outputs, (M, n) each, from ∂bound/∂z (L, M, J), ∂bound/∂log q,
                                  one number or (L, M), where log q counts as a function of the outputs at given ε,
                                  and ∂bound/∂(-KL), one number, 0 where `neg_kl` is not asked for

and, where it can, with

    neg_kl()                      -KL(q(z|x) ‖ N(0, I)) in closed form, (M,): what L^B (7) takes
    grad_z()                      ∇_z log q(z|x) at the draw, with the outputs held, (L, M, J): what sticking the
                                  landing, doubly reparameterised gradients, the score function and wake-sleep take
    noise_of(z, *outputs)         the ε (L, M, J) that leads to a given z (L, M, J): what wake-sleep takes
    moments(*outputs)             mean and log variance of each latent, (M, J) each: what `VAE.encode` gives
    factors()                     where the latents are independent, log q of each, (L, M, J), and its scores, (L, M, J)
                                  for each output: what black-box inference takes to tell one latent from the others
    start(arrays)                 which sets initial values that are not to be drawn like the others, in the arrays of
                                  the encoder's parameters, {"mu.W": array, "mu.b": array, …}

An objective that needs what a posterior has not is refused when the model is made. `VAE(posterior=…)` takes a name from
below, or an object of your own. Adding one to the package is a file here and a line in `POSTERIORS`.
"""

from scratchvae.inference.posteriors.full import FullGaussian
from scratchvae.inference.posteriors.gaussian import Gaussian

POSTERIORS = {"gaussian": Gaussian, "full": FullGaussian}
