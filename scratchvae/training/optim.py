"""Optimisers: SGD, Adagrad and Adam, which ascend on the flat vector of parameters.

The gradient g is that of what is maximised, so an update adds to θ: θ ← θ + step(g). `start` allocates the state for a
vector of parameters, and `ascend` makes update number `step` (1, 2, …) of one `part` of it. The step number comes from
outside, so the state is flat vectors alone, kept by name in `state`, and nothing else has to be saved.
"""

import contextlib
import math
import os
import threading

import numpy as np

from scratchvae.arguments import is_real, positive, whole
from scratchvae.backend import fused, kind, writable

BLOCK = 1 << 17  # how many numbers of each vector an update takes at a time: the cache holds what its lines share


_at_work = set()  # the id of each optimiser that a fit uses
_lock = threading.Lock()


def _forget():
    """Let every optimiser be free in a forked process, where the threads that use them do not live."""
    global _lock
    _lock = threading.Lock()
    _at_work.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def started(optimizer, params):
    """Start an optimiser for `params`; inside `with` it serves these alone, since its state is of these.

    An optimiser that another fit uses at this moment raises a ValueError.
    """
    with _lock:
        if id(optimizer) in _at_work:
            raise ValueError("this optimiser is at work in another fit: give each its own, for instance Adagrad(0.01)")
        _at_work.add(id(optimizer))
    try:
        optimizer.start(params)
        yield
    finally:
        _at_work.discard(id(optimizer))


def require_finite(params, optimizer, step):
    """Raise a FloatingPointError unless all parameters and the optimiser's state are finite after update `step`.

    A state that is infinite stops the ascent without a word: where g² is beyond the dtype, every later update divides
    by ∞, and the parameters stay where they are. On the device this waits for all work there.
    """
    for name, array in params.named(params.value).items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{name} is not finite after step {step}: try a smaller step size")
    for name, vector in optimizer.state.items():
        if not np.isfinite(vector).all():
            wider = "" if vector.dtype == np.float64 else ", or take dtype float64"
            raise FloatingPointError(
                f"{name}, the optimiser's state, is not finite after step {step}: bring the data nearer to 1{wider}"
            )


class Optimizer:
    """Ascend block by block. A subclass says in `update` what happens to the parameters and to its own state.

    update(step, value, g, s, *state) works in place. value is a block of the parameters and g the same block of their
    gradient; s is scratch of the same length, whose content means nothing before and after; state is this block of
    each vector in `names`. On the device one block is the whole vector.

    lr is the stepsize, a number > 0. decay makes it fall as lr / (1 + step/decay) (Robbins & Monro 1951, "A stochastic
    approximation method"): after `decay` updates it is half of lr. With None, the default, it stays at lr.

    A copy (copy.deepcopy, pickle, joblib) has its own state and goes on as the original would. Raises ValueError where
    lr or decay is not a number > 0.
    """

    names = ()  # of the vectors of the state, which start at zero

    def __init__(self, lr, decay=None):
        self.lr = positive("lr", lr)
        self.decay = None if decay is None else positive("decay", decay)

    def __setstate__(self, attributes):
        """Restore a copy. Vectors that a memory map holds and made read-only are copied to memory of their own."""
        self.__dict__.update(attributes)
        if "state" in attributes:  # that is, after `start`
            self.state = {name: writable(vector) for name, vector in self.state.items()}
            self.scratch = writable(self.scratch)

    def rate(self, step):
        """Return the stepsize of update number `step`."""
        return self.lr if self.decay is None else self.lr / (1 + step / self.decay)

    def start(self, params):
        """Allocate the state for `params`, all zeros, and the scratch of one block."""
        self.state = {name: np.zeros_like(params.value) for name in self.names}
        on_host = kind(params.value) == "numpy"
        self.scratch = np.empty_like(params.value[:BLOCK] if on_host else params.value)

    def ascend(self, params, step, part=slice(None)):
        """Make update number `step` of params.value[part] with the gradient params.grad[part]."""
        vectors = [vector[part] for vector in (params.value, params.grad, *self.state.values())]
        for i in range(0, len(vectors[0]), len(self.scratch)):
            value, g, *state = (vector[i : i + len(self.scratch)] for vector in vectors)
            self.update(step, value, g, self.scratch[: len(value)], *state)


class SGD(Optimizer):
    """Stochastic gradient ascent: θ ← θ + lr g.

    lr is 1e-6 by default, small because the gradient of (8) is a sum over N datapoints: it counts in nats of the whole
    data set. decay is that of `Optimizer`.
    """

    def __init__(self, lr=1e-6, decay=None):
        super().__init__(lr, decay)

    def update(self, step, value, g, s):
        """Ascend one block in place, see `Optimizer`."""
        SGD.ascent(value, g, s, self.rate(step))

    @staticmethod
    @fused
    def ascent(value, g, s, rate):
        """Make the update, of which each line reads what the lines above have left."""
        np.multiply(g, rate, out=s)  # s = lr g
        value += s  # θ ← θ + lr g


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011, "Adaptive subgradient methods"): h ← h + g², then θ ← θ + lr g / (√h + eps).

    lr is 0.01 by default; section 5 of the paper takes it from {0.01, 0.02, 0.1}. eps, 1e-10, stands outside the root;
    with eps = 0 a gradient that has always been zero gives 0/0. warmup is a number of updates at the beginning that
    only gather g² and leave θ alone: none by default, as in the paper, and 100 in the authors' own code. decay is that
    of `Optimizer`. Raises ValueError unless eps is a number ≥ 0 and warmup a whole one.
    """

    names = ("h",)

    def __init__(self, lr=0.01, eps=1e-10, warmup=0, decay=None):
        super().__init__(lr, decay)
        self.eps = _not_below_zero("eps", eps)
        self.warmup = whole("warmup", warmup, least=0)

    def update(self, step, value, g, s, h):
        """Ascend one block in place, see `Optimizer`."""
        if step > self.warmup:
            Adagrad.ascent(value, g, s, h, self.rate(step), self.eps)
        else:
            Adagrad.gather(g, s, h)

    @staticmethod
    @fused
    def gather(g, s, h):
        """Make h ← h + g² alone."""
        np.multiply(g, g, out=s)  # s = g²
        h += s  # h ← h + g²

    @staticmethod
    @fused
    def ascent(value, g, s, h, rate, eps):
        """Make the update, of which each line reads what the lines above have left."""
        np.multiply(g, g, out=s)  # s = g²
        h += s  # h ← h + g²
        np.sqrt(h, out=s)  # s = √h
        s += eps  # s = √h + eps
        np.divide(g, s, out=s)  # s = g / (√h + eps)
        s *= rate  # s = lr g / (√h + eps)
        value += s  # θ ← θ + lr g / (√h + eps)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1), with ascent for descent.

        m ← β₁ m + (1-β₁) g          v ← β₂ v + (1-β₂) g²          θ ← θ + lr m̂ / (√v̂ + eps)

    with m̂ = m/(1-β₁ᵗ) and v̂ = v/(1-β₂ᵗ) at update number t, which make up for the zeros that m and v start from.

    lr is 0.001 by default. beta1 and beta2, 0.9 and 0.999, say how slowly the means of g and g² forget. eps, 1e-8,
    keeps the quotient finite where v̂ is 0. decay is that of `Optimizer`. Raises ValueError unless both β are at least 0
    and below 1 and eps is at least 0.
    """

    names = ("m", "v")

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, decay=None):
        super().__init__(lr, decay)
        self.beta1 = _not_below_zero("beta1", beta1, below=1)
        self.beta2 = _not_below_zero("beta2", beta2, below=1)
        self.eps = _not_below_zero("eps", eps)

    def update(self, step, value, g, s, m, v):
        """Ascend one block in place, see `Optimizer`."""
        beta1 = self.beta1
        beta2 = self.beta2
        root = (1 - beta2**step) ** -0.5  # 1/√(1-β₂ᵗ), since v̂ = v/(1-β₂ᵗ)
        rate = self.rate(step) / (1 - beta1**step)  # lr/(1-β₁ᵗ), since m̂ = m/(1-β₁ᵗ)
        Adam.ascent(value, g, s, m, v, beta1, 1 - beta1, beta2, 1 - beta2, root, rate, self.eps)

    @staticmethod
    @fused
    def ascent(value, g, s, m, v, beta1, new1, beta2, new2, root, rate, eps):
        """Make the update, of which each line reads what the lines above have left; new1 is 1-β₁ and new2 is 1-β₂."""
        np.multiply(g, new1, out=s)  # s = (1-β₁) g
        m *= beta1  # m = β₁ m, that of the update before
        m += s  # m ← β₁ m + (1-β₁) g
        np.multiply(g, g, out=s)  # s = g²
        s *= new2  # s = (1-β₂) g²
        v *= beta2  # v = β₂ v, likewise
        v += s  # v ← β₂ v + (1-β₂) g²
        np.sqrt(v, out=s)  # s = √v
        s *= root  # s = √v / √(1-β₂ᵗ) = √v̂
        s += eps  # s = √v̂ + eps
        np.divide(m, s, out=s)  # s = m / (√v̂ + eps)
        s *= rate  # s = lr m̂ / (√v̂ + eps)
        value += s  # θ ← θ + lr m̂ / (√v̂ + eps)


class Continued:
    """An optimiser that goes on from one `fit` to the next, for the same parameters.

    `fit` starts its optimiser and counts updates from 1. This one starts `optimizer` at the first `fit` alone, and
    counts the updates of all of them.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step = 0  # the number of updates so far
        self.last = 0  # the number of the last one in this `fit`, since the parts of one update share it

    @property
    def state(self):
        """The vectors of the optimiser's state, by name."""
        return self.optimizer.state

    @property
    def names(self):
        """The names of these vectors."""
        return self.optimizer.names

    def start(self, params):
        """Allocate the state, unless there is one."""
        self.last = 0
        if self.step == 0:
            self.optimizer.start(params)

    def ascend(self, params, step, part=slice(None)):
        """Make the next update of params.value[part]; step is its number in this `fit`."""
        self.step += step != self.last
        self.last = step
        self.optimizer.ascend(params, self.step, part)


def _not_below_zero(name, value, below=math.inf):
    """Return `value` as a float; unless it is a finite number ≥ 0 and < below, a ValueError is raised."""
    if not is_real(value) or not 0 <= value < below:
        raise ValueError(f"{name} is {value!r}; expected a number ≥ 0{f' and < {below}' if below < math.inf else ''}")
    return float(value)


OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "adam": Adam}
