"""Fitting q(θ): Algorithm 1 for the parameters of a model without latents."""

import copy
import math
from types import SimpleNamespace

import numpy as np

from scratchvae.arguments import whole
from scratchvae.inference.posterior_sgvb import sgvb_1
from scratchvae.inference.reparameterise import gaussian
from scratchvae.nets.params import Params
from scratchvae.training.loop import STEP, progress_bar, stream
from scratchvae.training.optim import Adam


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
    """Maximise `estimator`, L^1 or L^2, over φ: (phi (K, P), the bounds of the steps (steps,) in nats, at N/M).

    φ begins at start (K, P), zeros for None, which is the standard form of q; the stepsize of the optimiser, Adam(0.05)
    for None, falls in a line from its lr towards 0, so that the noise of the gradient averages out: look whether the
    bounds still rose before it was small, and go on from φ, or with more steps, if so. n_samples is L; batch_size is M,
    None all rows. Step t is a function of (seed, t) alone. ValueError: what does not fit. FloatingPointError: a bound
    or a gradient that is not finite, with its step.
    """
    if not hasattr(q, "log_density") or not hasattr(model, "log_likelihood"):
        raise ValueError(
            f"model is {type(model).__name__} and q {getattr(q, 'name', q)!r}; expected one such as LinearRegression, "
            "and a law of inference/reparameterise.py such as laplace or student_t(5)"
        )
    steps, n_samples, seed = whole("steps", steps), whole("n_samples", n_samples), whole("seed", seed, least=0)
    N, P = model.n_data, model.n_parameters
    M = N if batch_size is None else whole("batch_size", batch_size)
    if M > N:
        raise ValueError(f"batch_size is {M}; expected no more than the {N} datapoints")
    params = Params([SimpleNamespace(name="q", shapes=dict.fromkeys(q.parameters, (P,)))], np.float64)
    phi, dphi = params.value.reshape(-1, P), params.grad.reshape(-1, P)
    if start is not None:
        if np.shape(start) != phi.shape:
            raise ValueError(f"start has shape {np.shape(start)}; expected {phi.shape}, a row for each parameter of q")
        phi[...] = start
    optimizer, bounds = copy.copy(optimizer or Adam(0.05)), np.empty(steps)
    optimizer.start(params)
    lr = optimizer.lr
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
    return phi, bounds
