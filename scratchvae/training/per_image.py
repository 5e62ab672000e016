"""The gap between log p(x) and the bound, taken apart (Cremer, Li & Duvenaud 2018, "Inference Suboptimality in VAEs").

    log p(x) - L[q]  =  ( log p(x) - L[q*] )  +  ( L[q*] - L[q] )
                         approximation            amortisation

q is what the encoder says, and q* is the best of its family for this one datapoint. So the approximation gap is the
family's fault: no Gaussian is a posterior that is none. The amortisation gap is the encoder's: one network for all
datapoints does not hit the best q of each.

q* is found by gradient ascent of the bound of each datapoint, with the decoder as it is. In the place of the encoder
stands a table with a row of outputs for each datapoint, which are learned like biases. Posterior, decoder, objective
and optimiser are those of the training.
"""

import copy
from dataclasses import dataclass

import numpy as np

from scratchvae.arguments import positive, rows_of, whole
from scratchvae.backend import move
from scratchvae.doors import posterior_of
from scratchvae.guard import guard_of
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.objectives import sgvb, trait
from scratchvae.nets.heads import Encoder, Network
from scratchvae.nets.layers import Chain, Layer
from scratchvae.nets.params import Params
from scratchvae.noise import standard_normal
from scratchvae.training.optim import Adam

AT_ONCE = 100  # how many datapoints are optimised together
SPREAD = 0.5  # the standard deviation with which the parameters of maps begin, whose u is then set to 0


class Table(Layer):
    """y = b, with a row of n numbers for each of M datapoints, whatever x is."""

    def __init__(self, name, m, n):
        self.name = name
        self.shapes = {"b": (m, n)}

    def forward(self, x):
        return self.b

    def backward(self, dy):
        self.db[...] = dy  # ∂y/∂b = 1, and each row is read once
        return None  # ∂y/∂x = 0


@dataclass(frozen=True)
class Gap:
    """The gap of N datapoints, taken apart. All arrays are (N,), in nats.

    log_p is log p(x), optimal is L[q*], and amortised is L[q] of the encoder. The last two are means over `draws` draws
    of z, and optimal_error and amortised_error their standard errors.
    """

    log_p: np.ndarray
    optimal: np.ndarray
    amortised: np.ndarray
    optimal_error: np.ndarray
    amortised_error: np.ndarray

    def approximation(self):
        """Return log p(x) - L[q*], (N,): what the family of q costs."""
        return self.log_p - self.optimal

    def amortisation(self):
        """Return L[q*] - L[q], (N,): what it costs that one encoder serves all datapoints."""
        return self.optimal - self.amortised


def gap(
    model, x, log_p, posterior=None, flow=None, steps=2000, n_samples=8, lr=0.02, draws=1000, seed=0, progress=None
):
    """Take the gap of rows x (N, D) apart, and return a `Gap`.

    model       is a `VAE`.
    x           holds the datapoints, (N, D), in host memory.
    log_p       is log p(x) of each, (N,) in nats: that of `marginal.quadrature`, or the log_p of `marginal.annealed`.
    posterior   is the family of q*: "gaussian" or "full", or an object; that of the model unless given.
    flow        is the number of planar maps in q*; that of the model unless given.
    steps       is the number of steps of the ascent, 2000 unless given. Too few leave q* short of the best, and a part
                of the approximation gap is then none.
    n_samples   is the number of draws of z for each datapoint in a step, 8 unless given.
    lr          is the stepsize of Adam at the beginning, 0.02 unless given. It falls as lr/(1 + 10 t/steps).
    draws       is the number of draws with which both bounds are taken in the end, 1000 unless given.
    seed        selects all draws.
    progress    is called with the number of steps times rows that were finished, N steps in all, or twice as many with
                maps; None for no calls.

    The ascent begins at what the encoder says. With maps it is made a second time, from the mean and the variances of
    the encoder's q under fresh maps: those of an encoder may have come to rest where no gradient moves them. Each
    datapoint has the better of the two. The gradient is that of sticking the landing, whose noise vanishes as q comes
    to the posterior. Arguments that do not fit raise a ValueError.
    """
    with guard_of(model):
        x = rows_of("x", x, model)
        log_p = np.asarray(log_p, float)
        if log_p.shape != (len(x),):
            raise ValueError(f"log_p has shape {log_p.shape}; expected ({len(x)},), a number for each row of x")
        if not trait(model.estimator, "bound", True):
            raise ValueError("an autoencoder has no bound, and no gap to log p(x)")
        whole("steps", steps)
        whole("n_samples", n_samples)
        whole("draws", draws, least=2)
        whole("seed", seed, least=0)
        positive("lr", lr)
        found = []
        with model.guard.looked_at():
            for begun in range(0, len(x), AT_ONCE):
                rows = model.pixels(move(x[begun : begun + AT_ONCE], model.backend))
                generator = np.random.default_rng([seed, begun])
                starts = [(posterior, flow)]
                if posterior is None and flow is None and "flow" in model.config:
                    starts.append((None, model.config["flow"]))
                reached = [_free(model, rows, *start, generator) for start in starts]
                for q in reached:
                    _ascend(model, q, rows, steps, n_samples, lr, generator, progress)
                optimal = _best_of(model, reached, rows, draws, [seed, begun])
                amortised = _bound(model, model.encoder, rows, draws, np.random.default_rng([seed, begun, 1]))
                found.append([*optimal, *amortised])
    optimal, optimal_error, amortised, amortised_error = (np.concatenate(part) for part in zip(*found, strict=True))
    return Gap(log_p, optimal, amortised, optimal_error, amortised_error)


def _free(model, rows, posterior, flow, generator):
    """Return an `Encoder` with outputs of its own for each of the rows, at what the model's encoder says.

    A family that the encoder does not have begins at the mean and the variances of the encoder's q, with maps that are
    the identity.
    """
    own = posterior is None and flow is None
    config = model.config
    family = copy.deepcopy(model.own["posterior"]) if posterior is None else posterior
    family, _ = posterior_of(family, config.get("flow", 0) if flow is None else flow, model.n_latent, model.dtype)
    sizes = family.outputs(model.n_latent)
    tables = [Table(name, len(rows), n) for name, n in sizes.items()]
    params = Params(tables, model.dtype, model.backend)
    outputs = model.encoder.forward(rows)
    if not own:
        moments = model.encoder.posterior.moments(*outputs)
        maps = SPREAD * standard_normal(generator, tables[-1].b.shape, model.dtype, model.backend)
        outputs = [*moments, *(0 * table.b for table in tables[2:])]
        if "maps" in sizes:
            outputs[-1] = maps
    for table, output in zip(tables, outputs, strict=True):
        table.b[...] = output
    if not own and hasattr(family, "start"):
        family.start({f"{table.name}.{key}": table.b for table in tables[2:] for key in ("W", "b")})
    q = Encoder(family, Network(Chain([]), [Chain([table]) for table in tables]))
    q.params = params
    return q


def _ascend(model, q, rows, steps, n_samples, lr, generator, progress):
    """Let q ascend the bound of each of the rows, with the decoder as it is."""
    optimizer = Adam(lr, decay=steps / 10)
    optimizer.start(q.params)
    shape = n_samples, len(rows), model.n_latent
    maps = [layer for layer in model.decoder.layers if layer.shapes]
    for layer in maps:
        layer.frozen = True  # the gradient of θ is not wanted
    try:
        for step in range(1, steps + 1):
            eps = standard_normal(generator, shape, model.dtype, model.backend)
            sgvb.stl(q, model.decoder, rows, eps, 1.0)
            optimizer.ascend(q.params, step)
            if progress is not None:
                progress(len(rows))
    finally:
        for layer in maps:
            layer.frozen = False


def _best_of(model, reached, rows, draws, seeds):
    """Return the bound of the best q of each row, (M,), and its standard error. It is chosen by draws of its own."""
    bounds = np.array([_bound(model, q, rows, draws, np.random.default_rng([*seeds, 1])) for q in reached])
    if len(reached) == 1:
        return bounds[0]
    chosen = [_bound(model, q, rows, draws, np.random.default_rng([*seeds, 2]))[0] for q in reached]
    best = np.argmax(chosen, axis=0)
    return bounds[best, :, np.arange(len(rows))].T


def _bound(model, q, rows, draws, generator):
    """Return the bound of each of the rows (M,), the mean over so many draws of L^A, and its standard error."""
    total = []
    size = max(1, 8000 // len(rows))
    for begun in range(0, draws, size):
        shape = min(size, draws - begun), len(rows), model.n_latent
        z, log_qz = q.draw(rows, standard_normal(generator, shape, model.dtype, model.backend))
        log_pz = log_standard_gaussian(z, gradient=False)[0]
        total.append(move(model.decoder.log_prob(rows, z, False) + log_pz - log_qz, "numpy").astype(float))
    terms = np.concatenate(total)
    return terms.mean(axis=0), terms.std(axis=0, ddof=1) / np.sqrt(draws)
