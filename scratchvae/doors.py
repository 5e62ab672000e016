"""What comes through the three doors of a VAE: a posterior, a likelihood and an objective, ours by name or a user's
own.

Each function here takes what a user passed, a name or an object, and returns the object and the name that a run keeps
of it. An object of the user's is tried once on a few rows, so that a method that is missing, or that returns the
wrong shape, is named when the model is made and not in the middle of a step. What each door asks for stands in
inference/posteriors, inference/likelihoods and inference/objectives.
"""

import copy
import math

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import move
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.nets.mlp import ACTIVATIONS

ABILITIES = {  # what an objective may need of a posterior
    "neg_kl": "KL(q(z|x) ‖ p(z)) in closed form",
    "grad_z": "∇_z log q(z|x)",
    "noise_of": "the noise that leads to a given z",
}
L = 2  # draws for which an object is tried
M = 3  # and rows


def opened(given):
    """(posterior, likelihood, objective, config) from the arguments of a VAE; config is what a run keeps, as JSON.

    config names the objects, and leaves out what is at its default where older runs do not have it. ValueError for the
    first argument that does not fit.
    """
    config = _networks(given)
    q, config["posterior"] = posterior_of(given["posterior"], config["flow"], config["n_latent"])
    p, config["likelihood"] = likelihood_of(given["likelihood"], given["mean"], config["n_visible"])
    objective, config["estimator"] = objective_of(given["estimator"], q, config["n_samples"])
    for key, plain in {"posterior": "gaussian", "flow": 0, "channels": []}.items():
        if config[key] == plain:
            del config[key]
    return q, p, objective, config


def _networks(given):
    """All arguments but the doors and the backend, as JSON."""
    config = {name: value for name, value in given.items() if name not in ("estimator", "backend")}
    for name in ("n_visible", "n_latent", "n_samples"):
        config[name] = whole(name, config[name])
    for name in ("n_hidden", "channels"):
        widths = config[name] if isinstance(config[name], list | tuple) else [config[name]]
        config[name] = [whole(name, width) for width in widths]
    config["seed"] = whole("seed", config["seed"], least=0)
    config["flow"] = whole("flow", config["flow"], least=0)
    n = config["n_visible"]
    if config["channels"] and math.isqrt(n) ** 2 != n:
        raise ValueError(f"n_visible is {n}; expected a square number for channels: they take square images")
    if config["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation is {config['activation']!r}; expected one of {', '.join(ACTIVATIONS)}")
    if config["dtype"] not in ("float32", "float64", np.float32, np.float64):
        raise ValueError(f"dtype is {config['dtype']!r}; expected float32 or float64")
    config["dtype"] = np.dtype(config["dtype"]).name
    if isinstance(config["init"], np.floating):
        config["init"] = float(config["init"])
    for name in ("init_biases", "prior"):
        config[name] = bool(config[name])
    return config


def theta_of(objective, config, p, theta_noise, alpha, learn_hyperprior, log_sigma):
    """The arguments of a distribution over θ, as JSON; ValueError where they do not go with each other and the VAE."""
    if theta_noise not in THETA_NOISE:
        raise ValueError(f"theta_noise is {theta_noise!r}; expected one of {', '.join(THETA_NOISE)}")
    with np.errstate(over="ignore", under="ignore"):
        if not _number(alpha) or alpha < 0 or not 0 < np.dtype(config["dtype"]).type(alpha) ** 2 < np.inf:
            raise ValueError(
                f"alpha is {alpha!r}; expected a number > 0, the standard deviation of p_α(θ), with a finite square"
            )
    if not _number(log_sigma) or not -20 <= log_sigma <= 2:
        raise ValueError(f"log_sigma is {log_sigma!r}; expected a number from -20 to 2, such as -4")
    if learn_hyperprior and alpha != 1.0:
        raise ValueError(f"alpha is {alpha!r}, and learn_hyperprior learns it: leave one of them out")
    name = config["estimator"]
    if not trait(objective, "theta", True):
        raise ValueError(f"estimator is {name!r}, whose bound is not (22): take 'A', 'B' or a function")
    if name == "A" and (theta_noise == "local" or learn_hyperprior):
        what = "theta_noise 'local' draws no θ" if theta_noise == "local" else "a learned α maximises (24)"
        raise ValueError(f"estimator is 'A', which scores θ at its draw, but {what}: take 'B'")
    if theta_noise == "local" and ("channels" in config or getattr(p, "shared", {})):
        what = "channels" if "channels" in config else f"an {config['likelihood']} likelihood"
        raise ValueError(
            f"theta_noise is 'local', for affine maps alone, and there are others with {what}: take 'minibatch'"
        )
    return {
        "theta_noise": theta_noise,
        "alpha": float(alpha),
        "learn_hyperprior": bool(learn_hyperprior),
        "log_sigma": float(log_sigma),
    }


def _number(value):
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def posterior_of(posterior, flow, n_latent):
    """(the posterior, the name of the one under the flow); ValueError for none. A user's object is copied."""
    ours = _named("posterior", posterior, POSTERIORS)
    if ours is None:
        posterior = copy.deepcopy(posterior)
        name = own_name(posterior, POSTERIORS)
        _has("posterior", posterior, ("outputs", "draw", "backward"))
        _try_posterior(posterior, n_latent)
    else:
        posterior = ours()
        name = ours.name
    return (Flow(posterior, flow) if flow else posterior), name


def likelihood_of(likelihood, mean, n_visible):
    """(the likelihood, its name); ValueError for none, or a mean that it does not have."""
    ours = _named("likelihood", likelihood, LIKELIHOODS)
    if ours is None:
        _has("likelihood", likelihood, ("outputs", "log_prob", "mean", "noise", "draw"))
        _try_likelihood(likelihood, n_visible)
        return likelihood, own_name(likelihood, LIKELIHOODS)
    if mean not in ours.means:
        free = ", ".join(name for name, other in LIKELIHOODS.items() if "free" in other.means)
        raise ValueError(f"mean is {mean!r}; expected 'sigmoid' or, for a likelihood among {free}, 'free'")
    return ours(mean) if len(ours.means) > 1 else ours(), ours.name


def objective_of(objective, posterior, n_samples):
    """(the objective, its name), None being L^B, or L^A where the posterior has no KL in closed form.

    ValueError: it is none, or it needs what the posterior has not.
    """
    if objective is None:
        objective = "B" if hasattr(posterior, "neg_kl") else "A"
    if isinstance(objective, str) and objective in ("iwae-stl", "stl-iwae"):
        raise ValueError(
            f"estimator is {objective!r}, which is biased for more than one draw: take 'dreg', which is not, or 'stl'"
        )
    known = isinstance(objective, str) and objective in OBJECTIVES
    if not known and not callable(objective):
        raise ValueError(f"estimator is {objective!r}; expected one of {', '.join(OBJECTIVES)}, or a function")
    function = OBJECTIVES[objective] if known else objective
    names = {ours: key for key, ours in OBJECTIVES.items()}
    name = names.get(function) or own_name(function, OBJECTIVES)
    for ability in trait(function, "needs", ()):
        if not can(posterior, ability):
            able = [key for key, cls in POSTERIORS.items() if hasattr(cls, ability)]
            raise ValueError(
                f"estimator is {name!r}, which needs {ABILITIES.get(ability, ability)}, and the posterior "
                f"{own_name(posterior, ())!r} has no {ability}: take another estimator, such as 'A', or a posterior "
                f"such as {' or '.join(able)}"
            )
    if n_samples < getattr(function, "least_draws", 1):
        raise ValueError(
            f"estimator is {name!r}, which needs {function.least_draws} draws or more, and n_samples is {n_samples}: "
            "take n_samples=8 or so"
        )
    return function, name


def can(posterior, ability):
    """Whether a posterior, and under a flow its base, has a method."""
    return hasattr(posterior, ability) and (not hasattr(posterior, "base") or can(posterior.base, ability))


def try_objective(objective, name, model, noise):
    """Run a user's objective once, on two rows that the model has drawn; ValueError says what is wrong with it."""
    x = model.draw(move(np.random.default_rng(0).standard_normal((2, model.n_latent)), model.backend))
    try:
        value = objective(model.encoder, model.decoder, x, noise, 1.0, True)
    except Exception as error:
        raise ValueError(
            f"estimator {name} failed on two rows ({type(error).__name__}: {error}); expected an objective "
            "(q, p, x, eps, scale, gradient=True), as scratchvae.inference.objectives describes it"
        ) from error
    finally:
        model.params.grad[...] = 0
    if np.shape(value) != ():
        raise ValueError(f"estimator {name} returned an array of shape {np.shape(value)}; expected one number in nats")


def own_name(value, taken):
    """What a run calls a user's object or function: its name, told apart from ours."""
    name = getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)
    return f"function {name}" if name in taken else name


def _named(door, value, ours):
    """Our class that `value` names; None for an object of the user's; ValueError for another name."""
    if isinstance(value, str) and value in ours:
        return ours[value]
    if value is None or isinstance(value, str | type):
        expected = ", ".join(ours)
        raise ValueError(f"{door} is {value!r}; expected one of {expected}, or an object of your own")
    return None


def _has(door, value, names):
    """ValueError unless `value` has all these attributes and methods."""
    if missing := [name for name in names if not hasattr(value, name)]:
        raise ValueError(
            f"{door} {type(value).__name__} has no {', '.join(missing)}; expected {', '.join(names)}, as "
            f"scratchvae.inference.{door[:-1] + 'ies' if door.endswith('y') else door + 's'} describes them"
        )


def _shapes(where, expected, ask):
    """Ask a method, and raise a ValueError that names it where it fails or returns other shapes than those expected."""
    try:
        results = ask()
    except Exception as error:
        raise ValueError(f"{where} failed on a few rows ({type(error).__name__}: {error})") from error
    results = results if isinstance(results, tuple | list) else (results,)
    came = [np.shape(result) for result in results]
    if came != expected:
        raise ValueError(f"{where} returned shapes {came}; expected {expected}")
    return results


def _try_likelihood(likelihood, D):
    name = type(likelihood).__name__
    shared = getattr(likelihood, "shared", {})
    generator = np.random.default_rng(0)
    rows = [0.1 * generator.standard_normal((M, D)) for _ in likelihood.outputs]
    rows = [links(y) for y, links in zip(rows, _links(likelihood), strict=True)]
    rows += [0.1 * generator.standard_normal(n) for n in shared.values()]
    (u,) = _shapes(f"noise of {name}", [(M, D)], lambda: likelihood.noise(generator, (M, D), np.float64))
    (x,) = _shapes(f"draw of {name}", [(M, D)], lambda: likelihood.draw(u, *rows))
    _shapes(f"mean of {name}", [(M, D)], lambda: likelihood.mean(*rows))
    outputs = [np.stack([y] * L) if y.ndim == 2 else y for y in rows]
    expected = [(L, M)] + [(L, M, D)] * len(outputs)
    _shapes(f"log_prob of {name}", expected, lambda: likelihood.log_prob(x, *outputs, gradient=True))


def _links(likelihood):
    """The link of each output, the identity where it has none."""
    links = getattr(likelihood, "links", {})
    return [links[name]().forward if name in links else (lambda y: y) for name in likelihood.outputs]


def _try_posterior(posterior, J):
    name = type(posterior).__name__
    generator = np.random.default_rng(0)
    widths = posterior.outputs(J)
    if not isinstance(widths, dict):
        raise ValueError(f"outputs of {name} returned {widths!r}; expected a dict, such as {{'mu': {J}}}")
    outputs = [0.1 * generator.standard_normal((M, n)) for n in widths.values()]
    eps = generator.standard_normal((L, M, J))
    z, _ = _shapes(f"draw of {name}", [(L, M, J), (L, M)], lambda: posterior.draw(eps, *outputs))
    abilities = {
        "neg_kl": ([(M,)], ()),
        "grad_z": ([(L, M, J)], ()),
        "noise_of": ([(L, M, J)], (z, *outputs)),
        "moments": ([(M, J), (M, J)], outputs),
    }
    for ability, (expected, arguments) in abilities.items():
        if hasattr(posterior, ability):
            _shapes(f"{ability} of {name}", expected, lambda a=ability, b=arguments: getattr(posterior, a)(*b))
    expected = [output.shape for output in outputs]
    _shapes(f"backward of {name}", expected, lambda: posterior.backward(eps, 1.0, 0.0))
    _shapes(f"backward of {name}", expected, lambda: posterior.backward(eps, np.full((L, M), 1.0), 0.0))
