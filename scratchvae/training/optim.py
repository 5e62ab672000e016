"""SGD, Adagrad and Adam: ascent on the flat vector, θ ← θ + step(g), with g the gradient of what is maximised.

`start` allocates the state for a vector of parameters; `ascend` makes update number `step` (1, 2, …) of one `part` of
it. The state is flat vectors only (`state`, by name): the step number comes from outside, so nothing else is to save.
"""

import numpy as np

from scratchvae.arguments import positive
from scratchvae.backend import kind

BLOCK = 1 << 17  # numbers of each vector that an update takes at a time: what its passes share stays in the cache


class Optimizer:
    """Ascent block by block: a subclass says in `update` what happens to value, and to the vectors of its state.

    update(step, value, g, s, *state) works in place; s is scratch, and all are the same block of their vectors. On the
    device a block is everything. The stepsize falls as lr / (1 + step/decay) (Robbins & Monro 1951); None: it stays.
    """

    names = ()  # of the vectors of the state, which start at zero

    def __init__(self, lr, decay=None):
        self.lr, self.decay = positive("lr", lr), None if decay is None else positive("decay", decay)

    def rate(self, step):
        """The stepsize of update number `step`."""
        return self.lr if self.decay is None else self.lr / (1 + step / self.decay)

    def start(self, params):
        """Allocate the state, and the scratch of a block."""
        self.state = {name: np.zeros_like(params.value) for name in self.names}
        on_host = kind(params.value) == "numpy"
        self.scratch = np.empty_like(params.value[:BLOCK] if on_host else params.value)

    def ascend(self, params, step, part=slice(None)):
        """Update number `step` of params.value[part] with the gradient params.grad[part]."""
        vectors = [vector[part] for vector in (params.value, params.grad, *self.state.values())]
        for i in range(0, len(vectors[0]), len(self.scratch)):
            value, g, *state = (vector[i : i + len(self.scratch)] for vector in vectors)
            self.update(step, value, g, self.scratch[: len(value)], *state)


class SGD(Optimizer):
    """θ ← θ + lr g. The gradient of (8) is a sum over N datapoints: lr counts in nats of the whole data set."""

    def __init__(self, lr=1e-6, decay=None):
        super().__init__(lr, decay)

    def update(self, step, value, g, s):
        value += np.multiply(g, self.rate(step), out=s)


class Adagrad(Optimizer):
    """h ← h + g²,   θ ← θ + lr g / (√h + eps)   (Duchi et al. 2011; section 5, lr from {0.01, 0.02, 0.1}).

    eps stands outside the root; with eps = 0, a gradient that has always been zero gives 0/0. warmup: the first so many
    updates only gather g² and leave θ alone, 100 in the authors' own code, 0 in the paper.
    """

    names = ("h",)

    def __init__(self, lr=0.01, eps=1e-10, warmup=0, decay=None):
        super().__init__(lr, decay)
        if not (0 <= eps < float("inf") and warmup >= 0):
            raise ValueError(f"eps is {eps!r} and warmup is {warmup!r}; expected both ≥ 0")
        self.eps, self.warmup = float(eps), int(warmup)

    def update(self, step, value, g, s, h):
        h += np.multiply(g, g, out=s)
        if step > self.warmup:
            np.sqrt(h, out=s)
            s += self.eps
            np.divide(g, s, out=s)
            s *= self.rate(step)
            value += s


class Adam(Optimizer):
    """m ← β₁ m + (1-β₁) g, v ← β₂ v + (1-β₂) g², θ ← θ + lr m̂ / (√v̂ + eps), m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ).

    Kingma & Ba 2015, Algorithm 1, with ascent for descent.
    """

    names = ("m", "v")

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, decay=None):
        super().__init__(lr, decay)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and 0 <= eps < float("inf")):
            raise ValueError(f"beta1, beta2, eps are {beta1!r}, {beta2!r}, {eps!r}; expected 0 ≤ β < 1 and eps ≥ 0")
        self.beta1, self.beta2, self.eps = float(beta1), float(beta2), float(eps)

    def update(self, step, value, g, s, m, v):
        m *= self.beta1
        m += np.multiply(g, 1 - self.beta1, out=s)
        v *= self.beta2
        np.multiply(g, g, out=s)
        s *= 1 - self.beta2
        v += s
        np.sqrt(v, out=s)
        s *= (1 - self.beta2**step) ** -0.5  # √v̂
        s += self.eps
        np.divide(m, s, out=s)
        s *= self.rate(step) / (1 - self.beta1**step)
        value += s


OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "adam": Adam}
