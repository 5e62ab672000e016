"""What the package does on a device, in small: what it is on CuPy above no device and on its stand-in is compared.

`python tests/on_nodevice.py FILE` does all of `WORK` on CuPy itself, above `nodevice`, and writes what came into the
device's queue as JSON into FILE. test_cupy.py does the same on the stand-in.
"""

import json
import sys
import warnings
from functools import partial

import numpy as np
import standin

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, evaluate, fit
from scratchvae.backend import fusing, move
from scratchvae.bench import Workload, minibatches, training_step
from scratchvae.data.labels import one_hot
from scratchvae.inference.distributions import gaussian_neg_kl, log_standard_gaussian
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.imputation import impute, impute_samples
from scratchvae.inference.information import information
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.marginal import annealed, appendix_d, importance, sandwich
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.noise import MANY, standard_normal
from scratchvae.training.loop import evaluate_each, evaluate_theta

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
ROWS = np.random.default_rng(1).random((12, 16), dtype=np.float32)
LABELS = np.arange(12) % 3


def trained(make=VAE, optimizer=Adagrad, x=PIXELS, training=None, **settings):
    """A short training."""
    model = make(16, 5, 2, backend="cupy", **settings)
    fit(model, x, ROWS, optimizer=optimizer(), samples=20, batch_size=5, log_every=10, **training or {})


def used(**settings):
    """Each method of a model that a user calls."""
    model = VAE(16, 5, 2, backend="cupy", **settings)
    x = move(ROWS, "cupy")
    z = move(ROWS[:, :2], "cupy")
    model.encode(x)
    model.encode_mean(move(PIXELS, "cupy"))
    model.encode_samples(x, 2)
    model.decode(z)
    model.draw(z)
    model.reconstruct(x)
    model.reconstruct_samples(x, 2)
    model.sample(3)
    model.simulate(3)
    evaluate(model, ROWS)


def conditional():
    """A conditional VAE, trained and used."""
    model = VAE(16, 5, 2, n_classes=3, backend="cupy")
    rows = np.concatenate([ROWS, one_hot(LABELS, 3, ROWS.dtype)], axis=1)
    fit(model, rows, rows, samples=20, batch_size=5, log_every=10)
    x = model.labelled(move(ROWS, "cupy"), LABELS)
    model.encode(x)
    model.reconstruct(x)
    model.decode(move(ROWS[:, :2], "cupy"), LABELS)
    model.sample(3, y=LABELS[:3])
    model.simulate(3)


def estimated(estimate, *arguments, **settings):
    """What is computed from a model, on rows if it takes them."""
    model = VAE(16, 5, 2, backend="cupy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate(model, *arguments, **settings)


def over_theta(**settings):
    """The bound over a posterior of θ."""
    evaluate_theta(FullVB(16, 5, 2, backend="cupy", **settings), ROWS, n_theta=2)


def reduced():
    """Sums and the like, of short rows and of long ones, of all their numbers and along an axis."""
    for shape in [(60,), (200,), (9000,), (3, 60), (3, 200), (3, 9000)]:
        for dtype in ("float32", "float64", "bool", "int64"):
            x = move(np.zeros(shape, dtype), "cupy")
            for axis in (None, 0, -1):
                x.sum(axis=axis)
                x.max(axis=axis)
                x.T.sum(axis=axis)
                np.sum(x, axis=axis, out=x.sum(axis=axis))
                if dtype == "bool":
                    x.all(axis=axis)
                if dtype.startswith("float"):
                    x.mean(axis=axis)
                    x.var(axis=axis)
                    np.std(x, axis=axis, ddof=1)


def fused_sums():
    """Functions that become one kernel, their sums of short rows and of long ones, of all their numbers."""
    for shape in [(60,), (200,), (9000,), (3, 60), (3, 200), (3, 9000)]:
        x = move(np.zeros(shape, np.float32), "cupy")
        log_standard_gaussian(x)
        gaussian_neg_kl(x, x)


WORK = {
    **{f"objective {name}": partial(trained, estimator=name, n_samples=3) for name in OBJECTIVES},
    **{f"likelihood {name}": partial(trained, likelihood=name, x=ROWS) for name in LIKELIHOODS},
    **{f"activation {name}": partial(trained, activation=name) for name in ACTIVATIONS},
    **{f"optimiser {make.__name__}": partial(trained, optimizer=make) for make in (SGD, Adam)},
    "optimiser with a warmup": partial(trained, optimizer=partial(Adagrad, warmup=2)),
    **{f"theta {name}": partial(trained, FullVB, theta_noise=name) for name in THETA_NOISE},
    "theta with its hyperprior": partial(trained, FullVB, learn_hyperprior=True),
    "flow": partial(trained, flow=2),
    "full covariance": partial(trained, posterior="full", n_samples=3),
    "convolutions": partial(trained, channels=(3,)),
    "free bits": partial(trained, free_bits=0.1, n_samples=2),
    "beta": partial(trained, beta=0.5),
    "dynamic": partial(trained, training={"binarization": "dynamic", "schedule": "alternating"}),
    "a warm-up of the KL": partial(trained, training={"kl_warmup": 10}),
    "colours": partial(trained, channels=(3,), image_channels=4, x=np.tile(PIXELS[:, :4], 4)),
    "float64": partial(trained, dtype="float64"),
    "conditional": conditional,
    **{f"used, {name}": partial(used, likelihood=name) for name in LIKELIHOODS},
    **{f"used, objective {name}": partial(used, estimator=name, n_samples=2) for name in OBJECTIVES},
    "used, flow": partial(used, flow=2, n_samples=2),
    "used, full covariance": partial(used, posterior="full", n_samples=2),
    "used, convolutions": partial(used, channels=(3,)),
    **{f"theta over {name}": partial(over_theta, theta_noise=name) for name in THETA_NOISE},
    "importance": partial(estimated, importance, ROWS[:3], 20),
    "annealed": partial(estimated, annealed, ROWS[:3], 5, 4),
    "sandwich": partial(estimated, sandwich, 3, 2, 4),
    "appendix D": partial(estimated, appendix_d, ROWS[:3], 20, burn_in=3, steps=3, thin=1),
    "information": partial(estimated, information, ROWS),
    "imputation": partial(estimated, impute, ROWS, ROWS < 0.3, steps=2, burn_in=2),
    "imputation, samples": partial(estimated, impute_samples, ROWS, ROWS < 0.3, n_samples=2, burn_in=2, thin=1),
    "row by row": partial(estimated, evaluate_each, ROWS),
    "sums": reduced,
    "fused sums": fused_sums,
    "noise": partial(standard_normal, np.random.default_rng(0), (MANY,), np.float32, "cupy"),
}
STEPS = {  # of the paper's sizes
    "L^B, Bernoulli": {},
    "L^A, Bernoulli": {"estimator": "A"},
    "L^B, Gaussian decoder": {"likelihood": "gaussian"},
    "L^B, 5 draws": {"n_samples": 5},
    "importance-weighted, 5 draws": {"estimator": "iwae", "n_samples": 5},
    "full covariance": {"posterior": "full"},
    "flow of 10 maps": {"flow": 10},
    "convolutions of 16 and 32": {"channels": (16, 32), "n_hidden": 128},
    "full VB": {"model": "full-vb"},
    "full VB, local": {"model": "full-vb-local"},
}


def step(**settings):
    """A training step of the paper's sizes."""
    work = Workload("cupy", **settings)
    training_step(work)(0, move(minibatches(work, 1)[0], "cupy"))


WORK |= {f"a step, {name}": partial(step, **settings) for name, settings in STEPS.items()}


# Dtypes


ARRAYS = ("float32", "float64", "bool", "uint8", "int64", "uint64")
NUMBERS = {"2.5": 2.5, "2": 2, "True": True, "float32(2)": np.float32(2), "float64(2)": np.float64(2)}


def dtypes():
    """The dtype of the result of each ufunc and function of the stand-in, for all kinds of arguments."""
    arrays = {name: move(np.ones((1, 1), name), "cupy") for name in ARRAYS}
    numbers = NUMBERS | {f"0-d {name}": array.reshape(()) for name, array in arrays.items()}
    found = {}
    for name in standin.UFUNCS:
        ufunc = getattr(np, name)
        pairs = [
            (a, b) for a in arrays for b in ({} if ufunc.nin == 1 else arrays if name == "matmul" else arrays | numbers)
        ]
        for a, b in pairs or [(a, None) for a in arrays]:
            given = [arrays[a]] if b is None else [arrays[a], (arrays | numbers)[b]]
            found[f"{name} {a}" if b is None else f"{name} {a} {b}"] = outcome(ufunc, *given)
            if b in numbers:
                found[f"{name} {b} {a}"] = outcome(ufunc, *given[::-1])
    for name in ("sum", "mean", "prod", "min", "max", "all", "any", "std", "var"):
        found |= {f"{name} {a}": outcome(getattr(np, name), arrays[a]) for a in arrays}
    for a in arrays:
        for b in arrays:
            found[f"concatenate {a} {b}"] = outcome(np.concatenate, [arrays[a], arrays[b]])
            found[f"where {a} {b}"] = outcome(np.where, arrays["bool"], arrays[a], arrays[b])
            found[f"astype {a} {b}"] = outcome(arrays[a].astype, b)
        for b, number in numbers.items():
            found[f"where {a} {b}"] = outcome(np.where, arrays["bool"], arrays[a], number)
    return found


def outcome(function, *arguments):
    """The dtype of a result, or the class of the error that came instead."""
    try:
        return function(*arguments).dtype.name
    except Exception as error:
        return type(error).__name__


def main(path):
    """Do all of `WORK`, plainly and fused, and write down what came."""
    import nodevice

    cupy = nodevice.install()
    plain = cupy.fuse
    cupy.fuse = lambda: lambda function: nodevice.Fused(function, plain)
    found = {"queues": {}, "dtypes": dtypes()}
    warnings.simplefilter("ignore")  # a bound of zeros is none
    for on in (False, True):
        for name, work in WORK.items():
            nodevice.Queue.notes.clear()
            with fusing(on):
                work()
            found["queues"][f"{name}{', fused' * on}"] = list(nodevice.Queue.notes)
    found["kernels"] = nodevice.Fused.made
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
