"""The library's own gradients: its layers and densities, and the models of all combinations that it allows."""

import functools
import itertools

import numpy as np

from scratchvae.data.labels import one_hot
from scratchvae.gradcheck.model import check_model
from scratchvae.gradcheck.parts import check_density, check_layer
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors.flow import Planar
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE


def check_parts(seed=0, backend="numpy"):
    """Yield (title, report), first for all layers and then for all densities.

    seed      selects the random numbers, 0 unless given.
    backend   is "numpy", unless given, or "cupy": where the arrays lie and the gradients are computed.
    """
    from scratchvae import oracle
    from scratchvae.inference import distributions
    from scratchvae.nets import conv, layers, mlp

    generator = np.random.default_rng(seed)
    x, a, b = (generator.standard_normal((4, 5)) for _ in range(3))
    grey = generator.random((4, 5))

    layer, density = (functools.partial(check, backend=backend) for check in (check_layer, check_density))
    checks = layer(layers.Linear("linear", 5, 3), x, oracle=lambda p, x: oracle.linear(p, "linear", x), name="")
    for key, activation in mlp.ACTIVATIONS.items():
        checks += layer(activation(), 2 * x, oracle=lambda p, x, f=oracle.ACTIVATIONS[key]: f(x), name=key)
    images = generator.standard_normal((2, 5 * 4 * 2))
    size = 3
    stride = 2
    padding = 1
    maps = generator.standard_normal((2, 3 * 2 * 3))  # a convolution makes these of 5 x 4 pixels, in 3 channels

    def convolved(p, x):
        return oracle.convolution(p, "conv", x.reshape(2, 5, 4, 2), size, stride, padding).reshape(2, -1)

    def transposed(p, x):
        y = oracle.transposed_convolution(p, "conv", x.reshape(2, 3, 2, 3), (5, 4, 2), size, stride, padding)
        return y.reshape(2, -1)

    checks += layer(conv.Conv2d("conv", (5, 4, 2), 3, size, stride, padding), images, oracle=convolved)
    checks += layer(conv.ConvTranspose2d("conv", 3, (5, 4, 2), size, stride, padding), maps, oracle=transposed)
    flow = Planar(3, 5)
    one = generator.standard_normal((4, 3 * 11))
    z = x[None]
    checks += layer(flow, z, one, oracle=lambda p, z, one: tuple(y[None] for y in oracle.flow(one, z[0], 3)))
    yield "layers", checks

    yield (
        "densities",
        density(distributions.log_bernoulli, grey, 3 * a, oracle=oracle.log_bernoulli, skip=1)
        + density(distributions.log_gaussian, x, a, b, oracle=oracle.log_normal, skip=1)
        + density(distributions.log_standard_gaussian, x, oracle=lambda z: oracle.log_normal(z, 0 * z, 0 * z))
        + density(distributions.gaussian_neg_kl, a, b, oracle=lambda mu, log_var: -oracle.kl(mu, log_var)),
    )


POSTERIOR_CELLS = ({}, {"posterior": "full"}, {"flow": 2}, {"posterior": "full", "flow": 1})
LIKELIHOOD_CELLS = (
    {},
    {"likelihood": "gaussian"},
    {"likelihood": "gaussian", "mean": "free"},
    {"likelihood": "isotropic", "mean": "free"},
    {"likelihood": "continuous-bernoulli"},
    {"likelihood": "laplace"},
    {"likelihood": "laplace", "mean": "free"},
)
NETWORK_CELLS = (
    {},
    {"n_hidden": (6, 4), "activation": "softplus"},
    {"n_hidden": ()},
    {"n_hidden": 5, "channels": (3, 2), "activation": "relu"},
    {"n_hidden": 4, "n_classes": 3},
    {"n_hidden": 4, "n_classes": 3, "channels": (2,), "activation": "relu"},
)
THETA_CELLS = ({}, *({"theta_noise": noise} for noise in ("minibatch", "antithetic", "datapoint", "local")))


def check_matrix(seed=0, backend="numpy", keep=None):
    """Yield (what, report) for the models of the matrix objective x posterior x likelihood x network x θ.

    Every objective is combined with every pair of posterior and θ. It is also combined with every likelihood and every
    network, while posterior and θ change from one to the next. Where a combination is refused, (what, reason) is
    yielded instead, and the reason is the message of the ValueError. seed and backend are those of `check_parts`.
    Of the models only those are checked for which keep(k, what) is true, with k counted from 0; all of them unless it
    is given.
    """
    number = itertools.count()
    x = np.random.default_rng(seed).random((4, 16))
    for objective in OBJECTIVES:
        cells = [(q, LIKELIHOOD_CELLS[0], NETWORK_CELLS[0], theta) for q in POSTERIOR_CELLS for theta in THETA_CELLS]
        for k, likelihood in enumerate(LIKELIHOOD_CELLS[1:]):
            cells.append((POSTERIOR_CELLS[k % 4], likelihood, NETWORK_CELLS[k % 4], THETA_CELLS[0]))
            cells.append((POSTERIOR_CELLS[(k + 1) % 2], likelihood, NETWORK_CELLS[k % 3], THETA_CELLS[1 + k % 4]))
        for k, network in enumerate(NETWORK_CELLS[1:]):
            cells.append((POSTERIOR_CELLS[0], LIKELIHOOD_CELLS[0], network, THETA_CELLS[0]))
            cells.append((POSTERIOR_CELLS[(1 + k) % 4], LIKELIHOOD_CELLS[1 + k], network, THETA_CELLS[0]))
        for q, likelihood, network, theta in cells:
            settings = {"n_hidden": 4, "n_samples": 3, **q, **likelihood, **network, **theta}
            if keep is not None and not keep(next(number), _cell(objective, settings)):
                continue
            try:
                yield _cell(objective, settings), check_cell(objective, settings, x, seed, backend)
            except ValueError as error:
                yield _cell(objective, settings), str(error)


def check_cell(objective, settings, x, seed=0, backend="numpy"):
    """Return the report of one model of the matrix; a combination that is refused raises a ValueError.

    objective is its name, settings are the arguments of the model, and x (M, D) holds the rows. seed and backend are
    those of `check_parts`.
    """
    kind = FullVB if "theta_noise" in settings else VAE
    model = kind(x.shape[1], n_latent=2, estimator=objective, dtype=np.float64, seed=seed, backend=backend, **settings)
    if model.n_classes:
        x = np.concatenate([x, one_hot(np.arange(len(x)) % model.n_classes, model.n_classes, x.dtype)], axis=1)
    return check_model(model, x, seed=seed, entries=2, points=1)


def _cell(objective, settings):
    """Return the description of a model of the matrix, in one line."""
    q = settings.get("posterior", "gaussian") + (f" + {settings['flow']} maps" if "flow" in settings else "")
    likelihood = settings.get("likelihood", "bernoulli") + (", free" if "mean" in settings else "")
    width = settings["n_hidden"]
    network = "conv" if "channels" in settings else "-".join(map(str, np.atleast_1d(width))) if width else "linear"
    network += ", given the class" if "n_classes" in settings else ""
    return " | ".join([objective, q, likelihood, network, f"θ: {settings.get('theta_noise', 'a point')}"])


def summary(report):
    """Return the report of a model as one line: how many arrays, the two largest relative errors, and the verdict."""
    oracle = [row.oracle for row in report if row.oracle is not None]
    differences = [row.differences for row in report if row.differences is not None]
    errors = "  ".join(f"{max(found):.1e}" if found else "      -" for found in (oracle, differences))
    return f"{len(differences):6d}  {errors:>20}  {'pass' if report else 'FAIL'}"
