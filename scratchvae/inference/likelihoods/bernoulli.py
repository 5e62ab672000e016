"""The Bernoulli decoder, (11) in C.1 of Kingma & Welling, "Auto-Encoding Variational Bayes"."""

from scratchvae.inference.distributions import log_bernoulli
from scratchvae.nets.layers import sigmoid


class Bernoulli:
    """log p(x|z) = Σ_i x_i log y_i + (1 - x_i) log(1 - y_i) with y = σ(logits)   (11).

    The sigmoid is never applied on the way to the bound, since the density takes the logits. Pixels may be grey, as in
    section 5 of the paper; then this is a cross entropy and no density. What the methods take and return is said in
    inference/likelihoods/__init__.py.
    """

    name = "bernoulli"
    outputs = ("logits",)
    means = ("sigmoid",)
    support = (0, 1)
    binary = True
    temporaries = -1  # of the 4 that are counted for an output three are there at once

    def log_prob(self, x, logits, gradient=True):
        """Return log p(x|z)   (11), with ∂/∂logits."""
        return log_bernoulli(x, logits, gradient)

    def mean(self, logits):
        """Return y = σ(logits), the probability that a pixel is 1."""
        return sigmoid(logits)

    def noise(self, generator, shape, dtype):
        """Return numbers that are uniform on [0, 1)."""
        return generator.random(shape, dtype=dtype)

    def draw(self, u, logits):
        """Return 1 where u < y and 0 elsewhere, so that P(x = 1) = y."""
        y = sigmoid(logits)
        return (u < y).astype(y.dtype)
