"""The continuous Bernoulli decoder (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli"): a density on [0, 1].

Grey pixels have no density under a Bernoulli, since the right side of (11) in Kingma & Welling, "Auto-Encoding
Variational Bayes", does not integrate to 1 over [0, 1]. Here it is divided by its integral. With λ = σ(a), where a is
the logit,

    p(x) = C(λ) λˣ (1 - λ)¹⁻ˣ,   log C(λ) = log(2 artanh(1 - 2λ) / (1 - 2λ)) = log(a / tanh(a/2))

Since λˣ (1 - λ)¹⁻ˣ = eᵃˣ / (1 + eᵃ), this is log p(x) = a x - A(a) with A(a) = log((eᵃ - 1)/a). The forms below take r
= |a|, so that no exponential overflows; a = 0 is the limit r → 0.
"""

import numpy as np

TINY = 1e-30  # r is no less: expm1(-r)/r has its limit -1 to the last digit well above this
SERIES = 0.3  # up to this r the mean is taken from its series, since the two terms that begin with 1/r would cancel


class ContinuousBernoulli:
    """log p(x|z) = Σ_i a_i x_i - log((exp(a_i) - 1)/a_i) with logits a: the Bernoulli's terms and log C(λ).

    What the methods take and return is said in inference/likelihoods/__init__.py.
    """

    name = "continuous-bernoulli"
    outputs = ("logits",)
    means = ("sigmoid",)
    support = (0, 1)
    unbounded = True
    temporaries = 5  # r, its series and the two ends of the scale
    note = "these are log densities of grey pixels; they do not compare with a Bernoulli's, which are cross entropies"

    def log_prob(self, x, logits, gradient=True):
        """Return log p(x|z) in nats, with ∂/∂logits = x - A'(a) = x - E[x|z]."""
        r = _size(logits)
        far = np.where(logits < 0, x, 1 - x)  # from the likelier end: in a x - max(a, 0) = -r far nothing cancels
        log_p = -(np.abs(logits) * far + np.log(-np.expm1(-r) / r)).sum(axis=-1)  # A(a) = max(a, 0) + log((1 - e⁻ʳ)/r)
        if not gradient:
            return log_p, None
        low = _mean_at_minus(r)  # x - E[x|z] is far - low for a < 0, and its negative above
        return log_p, np.where(logits < 0, far - low, low - far)

    def mean(self, logits):
        """Return E[x|z] = A'(a) = 1/(1 - e⁻ᵃ) - 1/a.

        At a = -r it is 1/r - e⁻ʳ/(1 - e⁻ʳ), and at a = r it is 1 minus that.
        """
        low = _mean_at_minus(_size(logits))
        return np.where(logits < 0, low, 1 - low)

    def noise(self, generator, shape, dtype):
        """Return numbers that are uniform on [0, 1)."""
        return generator.random(shape, dtype=dtype)

    def draw(self, u, logits):
        """Return x = log(1 + u (eᵃ - 1))/a, the inverse of the distribution function.

        At a = r it is 1 minus the draw at a = -r and 1 - u.
        """
        r = _size(logits)
        v = np.where(logits < 0, u, 1 - u)
        smallest = np.finfo(u.dtype).epsneg - 1  # a v that was rounded to 1 stands for the last cell below it
        low = -np.log1p(np.maximum(v * np.expm1(-r), smallest)) / r
        low = np.minimum(low, 1)  # rounding may carry the end of the interval a little beyond 1
        return np.where(logits < 0, low, 1 - low)


def _mean_at_minus(r):
    """Return E[x] at the logit -r, which is 1/r - e⁻ʳ/(1 - e⁻ʳ), and near 0 its series ½ - Σ_n B_2n r²ⁿ⁻¹/(2n)!"""
    s = np.minimum(r, SERIES)
    s2 = s * s
    series = 0.5 - s * (1 / 12 - s2 * (1 / 720 - s2 * (1 / 30240 - s2 * (1 / 1209600 - s2 / 47900160))))
    return np.where(r < SERIES, series, 1 / r + np.exp(-r) / np.expm1(-r))


def _size(logits):
    """Return r = |a|, but no less than TINY."""
    return np.maximum(np.abs(logits), TINY)
