"""Fits q(θ), the posterior of the parameters of a model without latents, by minibatches.

This is Algorithm 1 of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), with the estimators of
`inference.posterior_sgvb`.
"""

import copy
import math
from types import SimpleNamespace

import numpy as np

from scratchvae.arguments import finite_array, whole
from scratchvae.inference.posterior_sgvb import sgvb_1
from scratchvae.inference.reparameterise import gaussian
from scratchvae.nets.params import Params
from scratchvae.training.loop import STEP, checked_optimizer, progress_bar, stream
from scratchvae.training.optim import Adam, require_finite

LOOK_EVERY = 100  # steps: how often φ and the optimiser's state are looked at


def fit_posterior(
    model,
    q=gaussian,
    *,
    estimator=sgvb_1,
    optimizer=None,
    steps=10_000,
    n_samples=1,
    batch_size=None,
    seed=0,
    start=None,
    progress=None,
):
    """Maximise L^1 or L^2 over φ, the parameters of q(θ), and return φ (K, P) and the bounds of all steps (steps,).

    Each bound is the estimate of its step for all N datapoints, in nats.

    model        is a `LinearRegression`, a `LogisticRegression`, or has their methods; it has N datapoints and P
                 parameters.
    q            is a law of inference/reparameterise.py with K parameters, used for each coordinate of θ;
                 `gaussian` unless given.
    estimator    is `sgvb_1`, unless given, or `sgvb_2`, which needs a gaussian q and usually has less noise.
    optimizer    is an `SGD`, `Adagrad` or `Adam`, which is copied; Adam(0.05) unless given. Its stepsize falls linearly
                 from its lr towards 0, so that the noise of the gradient averages out. If the bounds still rose when
                 it became small, take more steps, or go on from the φ that was returned.
    steps        is the number of steps, 10,000 unless given.
    n_samples    is L, the number of draws of θ in a step, 1 unless given; more of them lower the noise.
    batch_size   is M, the number of datapoints in a step; all of them unless given.
    seed         selects the random numbers. Step t is a function of (seed, t) alone.
    start        is the φ (K, P) at which the ascent begins. Unless given it is zeros, the standard form of q.
    progress     True shows a bar on stderr, False none, and None one on a terminal only.

    Arguments that do not fit raise a ValueError. A bound or a gradient that is not finite raises a FloatingPointError,
    which names the step. So does a φ or an optimiser's state that is not finite at the end, or at a multiple of
    LOOK_EVERY steps before.
    """
    if not hasattr(q, "log_density") or not hasattr(model, "log_likelihood"):
        raise ValueError(
            f"model is {type(model).__name__} and q {getattr(q, 'name', q)!r}; expected one such as LinearRegression, "
            "and a law of inference/reparameterise.py such as laplace or student_t(5)"
        )
    steps = whole("steps", steps)
    n_samples = whole("n_samples", n_samples)
    seed = whole("seed", seed, least=0)
    N = model.n_data
    P = model.n_parameters
    M = N if batch_size is None else whole("batch_size", batch_size)
    if M > N:
        raise ValueError(f"batch_size is {M}; expected no more than the {N} datapoints")
    params = Params([SimpleNamespace(name="q", shapes=dict.fromkeys(q.parameters, (P,)))], np.float64)
    phi = params.value.reshape(-1, P)
    dphi = params.grad.reshape(-1, P)
    if start is not None:
        phi[...] = finite_array("start", start, phi.shape)
    optimizer = copy.copy(checked_optimizer(Adam(0.05) if optimizer is None else optimizer))
    optimizer.start(params)
    lr = optimizer.lr
    bounds = np.empty(steps)
    with progress_bar(steps, 0, progress, unit=" steps") as bar, np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            generator = stream(seed, STEP, step)
            rows = slice(None) if M == N else generator.permutation(N)[:M]
            eps = q.noise(generator, (n_samples, P))
            bound, dphi[...] = estimator(model, q, phi, eps, rows)
            if not (math.isfinite(bound) and np.isfinite(dphi).all()):
                where = f"; not finite is {name}" if (name := params.non_finite()) else ""
                raise FloatingPointError(f"the bound is {bound} at step {step}{where}: try a smaller stepsize")
            optimizer.lr = lr * (1 - (step - 1) / steps)
            optimizer.ascend(params, step)
            bounds[step - 1] = bound
            bar.update(1)
            if step % LOOK_EVERY == 0 or step == steps:
                require_finite(params, optimizer, step)
    return phi, bounds
