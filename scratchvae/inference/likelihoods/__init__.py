"""The second door: the likelihood p(x|z), which says what the decoder's outputs mean and how x is scored and drawn.

M is the number of datapoints, L the number of draws of z for each of them, and D the number of pixels. A likelihood is
an object with

    outputs       which names what is read from the decoder, as a tuple; each output has D numbers for a datapoint.

    log_prob(x, *outputs, gradient=True)
                  which returns log p(x|z) in nats, summed over the pixels, (L, M), and its partial with respect to
                  each output, (L, M, D) each, or None for each with gradient=False. x is (M, D) and the outputs
                  (L, M, D).
    mean(*outputs)
                  which returns E[x|z], (M, D), for outputs (M, D).
    noise(generator, shape, dtype)
                  which returns random numbers of this shape, as `draw` takes them, from NumPy's generator.
    draw(noise, *outputs)
                  which returns x ~ p(x|z), (M, D), for noise and outputs (M, D).

It may also have

    name          a short text for configurations and messages; unless given, the name of its class is taken.
    shared        {name: how many numbers}, the outputs that do not depend on z, with one number for all pixels or
                  with D. They follow the others as arrays (n,), and their partials are (L, M, D) too.
    links         {name of an output: a layer class such as Sigmoid}, the layers that the numbers of an output go
                  through.
    support       (lowest, highest), the values of x that data may have.
    pixels        which is True if uint8 data are pixels, read as x/255, though the support goes beyond [0, 1].
    check(x)      which raises a ValueError if rows x cannot be scored for another reason.
    binary        which is True if pixels that are drawn as 0 or 1 make sense.
    unbounded     which is True if the density has no upper bound, so that pixels that never vary lead to infinity.
    temporaries   how many arrays as wide as x `log_prob` holds at once beyond 4 for each output, by which a model
                  foresees its memory; 0 unless given.
    note          a sentence that `scratchvae evaluate` prints below its bounds.

Pixels are read by their type. Rows of uint8 are pixels from 0 to 255, and `log_prob` and `check` get them as x/255,
from 0 to 1. Rows of floats are taken as the numbers they are. Counts and other whole numbers are therefore handed over
as floats, x.astype(np.float32). Since a likelihood whose `support` goes beyond [0, 1] is seldom one of pixels, uint8
rows are refused for it unless it has `pixels`. If it has no `support`, they are read as pixels, with a warning.

`VAE(likelihood=…)` takes a name from below, or an object of your own, for which examples/own_likelihood.py is a recipe.
To add a likelihood to the package, write a file here and a line in `LIKELIHOODS`.
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
