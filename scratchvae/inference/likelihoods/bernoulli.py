"""The Bernoulli decoder, (11) in C.1 of Kingma & Welling, "Auto-Encoding Variational Bayes"."""

from scratchvae.inference.distributions import log_bernoulli
from scratchvae.nets.layers import sigmoid


class Bernoulli:
    """log p(x|z) = Σ_i x_i log y_i + (1 - x_i) log(1 - y_i) with y = σ(logits)   (11).

    The sigmoid is never applied on the way to the bound: the density takes the logits. Pixels may be grey, as in
    section 5 of the paper; then this is a cross entropy and no density.
    """

    name = "bernoulli"
    outputs = ("logits",)
    means = ("sigmoid",)
    support = (0, 1)
    binary = True

    def log_prob(self, x, logits, gradient=True):
        """(11), with ∂/∂logits."""
        return log_bernoulli(x, logits, gradient)

    def mean(self, logits):
        """y = σ(logits), the probability of a 1."""
        return sigmoid(logits)

    def noise(self, generator, shape, dtype):
        """Uniform numbers on [0, 1)."""
        return generator.random(shape, dtype=dtype)

    def draw(self, u, logits):
        """1 where u < y, so that P(x = 1) = y, and 0 elsewhere."""
        y = sigmoid(logits)
        return (u < y).astype(y.dtype)
