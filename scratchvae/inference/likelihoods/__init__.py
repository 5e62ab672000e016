"""The second door: the likelihood p(x|z), what the decoder's outputs mean and how x is scored and drawn.

A likelihood is an object with

    name                          a short name, for configurations and messages
    outputs                       the names of what it reads from the decoder, each D numbers for a datapoint
    log_prob(x, *outputs, gradient=True)
                                  log p(x|z) in nats, summed over the pixels, (L, M), and its partial with respect to
                                  each output, (L, M, D) each, or None each with gradient=False; x is (M, D), and the
                                  outputs are (L, M, D)
    mean(*outputs)                E[x|z], (M, D), for outputs (M, D)
    noise(generator, shape, dtype) the random numbers of this shape that `draw` takes, from NumPy's generator
    draw(noise, *outputs)         x ~ p(x|z), (M, D), for noise and outputs (M, D)

and, where it needs them, with

    shared                        {name: how many numbers} of outputs that do not depend on z, one for all pixels or
                                  D; they come behind the others, as arrays (n,), and their partials are (L, M, D) too
    links                         {name of an output: a layer class such as Sigmoid} that its numbers go through
    support                       (lowest, highest) value of x, which data are held to
    check(x)                      ValueError where rows x cannot be scored for another reason
    binary                        True where pixels that are drawn as 0 or 1 make sense
    unbounded                     True where the density has no upper bound, so that pixels that never vary end in
                                  infinity
    note                          a sentence that `scratchvae evaluate` prints below its bounds

`VAE(likelihood=…)` takes a name from below, or an object of your own: examples/own_likelihood.py is a recipe. Adding
one to the package is a file here and a line in `LIKELIHOODS`.
"""

from scratchvae.inference.likelihoods.bernoulli import Bernoulli
from scratchvae.inference.likelihoods.continuous_bernoulli import ContinuousBernoulli
from scratchvae.inference.likelihoods.gaussian import Gaussian, Isotropic
from scratchvae.inference.likelihoods.laplace import Laplace

LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "isotropic": Isotropic,
    "continuous-bernoulli": ContinuousBernoulli,
    "laplace": Laplace,
}
