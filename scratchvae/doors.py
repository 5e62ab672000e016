"""Turns what comes through the three doors of a VAE, a posterior, a likelihood and an objective, into objects.

Each door takes a name or an object of the user's own. The functions here return the object and the name under which a
run keeps it. What each door asks for is described in inference/posteriors, inference/likelihoods and
inference/objectives; `trials` sees whether a user's object keeps it.
"""

import functools
import hashlib
import math

import numpy as np

from scratchvae.arguments import is_real, whole
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS, can
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.trials import OBJECTIVE, has, is_names, try_likelihood, try_posterior

ABILITIES = {  # the methods that an objective may need of a posterior, and what they give
    "neg_kl": "KL(q(z|x) ‖ p(z)) in closed form",
    "grad_z": "∇_z log q(z|x)",
    "noise_of": "the noise that leads to a given z",
}
FOR_USE = ("moments", "latent_kl", "pairwise_log_q")  # what one does with a trained model takes these
NOISES = ("eps", "z", "u")


def opened(given):
    """Return (posterior, likelihood, objective, config) for `given`, the arguments of a VAE by name.

    config is a dict that JSON can hold, with all arguments but the backend, and with names in place of objects. It
    leaves out posterior, flow, channels, image_channels, beta, free_bits and n_classes where they have their defaults,
    since older runs do not have them. The first argument that does not fit raises a ValueError.
    """
    config = _networks(given)
    dtype = np.dtype(config["dtype"])
    q, config["posterior"] = posterior_of(given["posterior"], config["flow"], config["n_latent"], dtype)
    p, config["likelihood"] = likelihood_of(given["likelihood"], given["mean"], config["n_visible"], dtype)
    objective, config["estimator"] = objective_of(given["estimator"], q, config["n_samples"])
    config |= weights_of(objective, config["estimator"], q, given["beta"], given["free_bits"])
    _require_classes(config, objective)
    defaults = {"posterior": "gaussian", "flow": 0, "channels": [], "beta": 1.0, "free_bits": 0.0, "n_classes": 0}
    defaults["image_channels"] = 1
    for key, plain in defaults.items():
        if config[key] == plain:
            del config[key]
    return q, p, objective, config


def _networks(given):
    """Return the arguments but estimator and backend, checked and as JSON holds them.

    posterior and likelihood are left as they were given. Arguments that do not fit raise a ValueError.
    """
    config = {name: value for name, value in given.items() if name not in ("estimator", "backend")}
    for name in ("n_visible", "n_latent", "n_samples", "image_channels"):
        config[name] = whole(name, config[name])
    config["n_classes"] = whole("n_classes", config["n_classes"], least=0)
    for name in ("n_hidden", "channels"):
        widths = config[name] if isinstance(config[name], list | tuple) else [config[name]]
        config[name] = [whole(name, width) for width in widths]
    config["seed"] = whole("seed", config["seed"], least=0)
    config["flow"] = whole("flow", config["flow"], least=0)
    _require_square(config)
    if not isinstance(config["activation"], str) or config["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation is {config['activation']!r}; expected one of {', '.join(ACTIVATIONS)}")
    if config["dtype"] not in ("float32", "float64", np.float32, np.float64):
        raise ValueError(f"dtype is {config['dtype']!r}; expected float32 or float64")
    config["dtype"] = np.dtype(config["dtype"]).name
    if isinstance(config["init"], np.floating):
        config["init"] = float(config["init"])
    for name in ("init_biases", "prior"):
        config[name] = bool(config[name])
    return config


def _require_square(config):
    """Raise a ValueError unless convolutions, if there are any, read square images of as many numbers a pixel."""
    n = config["n_visible"]
    C = config["image_channels"]
    if not config["channels"]:
        if C > 1:
            raise ValueError(f"image_channels is {C}, which convolutions read: leave it out, or give channels")
    elif C * math.isqrt(n // C) ** 2 != n:
        what = "a square number" if C == 1 else f"{C} times a square number"
        raise ValueError(f"n_visible is {n}; expected {what} for channels: they take square images")


def _require_classes(config, objective):
    """Raise a ValueError unless the classes, if there are any, go with the networks and with the objective."""
    C = config["n_classes"]
    if C == 0:
        return
    if C == 1:
        raise ValueError("n_classes is 1; expected 2 or more, or 0 for a model that is told no class")
    if tuple(trait(objective, "noise", ("eps",))) != ("eps",):
        raise ValueError(
            f"n_classes is {C}, and the estimator {config['estimator']!r} has dreams, which have no class: take "
            "another, such as 'B'"
        )


def weights_of(objective, name, posterior, beta=1.0, free_bits=0.0):
    """Return how often the KL counts, and the free bits, as a dict that JSON can hold.

    objective is called `name` in messages. beta and free_bits are described at `VAE`. If they do not go with the
    objective or the posterior, a ValueError is raised.
    """
    for key, value in (("beta", beta), ("free_bits", free_bits)):
        if not is_real(value) or value < 0:
            raise ValueError(f"{key} is {value!r}; expected a number ≥ 0")
    if beta != 1 or free_bits > 0:
        require_weights(objective, name, "beta" if beta != 1 else "free_bits")
    if free_bits > 0:
        if not trait(objective, "has_free_bits", False):
            raise ValueError(
                f"free_bits is {free_bits!r}, for the estimator 'B' with its KL in closed form; it is {name!r}"
            )
        if not all(can(posterior, ability) for ability in ("factors", "latent_kl")):
            raise ValueError(
                f"free_bits is {free_bits!r}, for latents that are independent under q(z|x), whose KLs add up; with "
                f"the posterior {own_name(posterior, ())!r} they do not: leave it out, or take posterior 'gaussian'"
            )
    return {"beta": float(beta), "free_bits": float(free_bits)}


def require_weights(objective, name, what):
    """Raise a ValueError unless the KL can count more or less than once in an objective. `what` asks for it."""
    if trait(objective, "weighted") is None:
        able = [key for key, ours in OBJECTIVES.items() if trait(ours, "weighted") is not None]
        raise ValueError(
            f"{what} is given, and the estimator {name!r} has no KL that could count more or less: take one of "
            f"{', '.join(able)}, or leave {what} out"
        )


def theta_of(objective, config, p, theta_noise, alpha, learn_hyperprior, log_sigma):
    """Return the arguments that a `FullVB` has beside those of a VAE as a dict that JSON can hold.

    objective and p are the objective and the likelihood of the VAE, and config is its config. theta_noise, alpha,
    learn_hyperprior and log_sigma are described at `FullVB`. If they do not go with each other or with the VAE, a
    ValueError is raised.
    """
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
        able = [key for key, ours in OBJECTIVES.items() if trait(ours, "theta", True) and key != "B"]
        raise ValueError(f"estimator is {name!r}, which has no bound over θ: take another, such as {', '.join(able)}")
    if config.get("free_bits"):
        raise ValueError("free_bits is for a VAE: the draws of θ divide the minibatch, over which it takes the mean KL")
    if tuple(trait(objective, "noise", ("eps",))) != ("eps",):
        raise ValueError(
            f"estimator is {name!r}, which takes more noise than ε: a distribution over θ has no place for it"
        )
    if trait(objective, "at_the_draws", False) and (theta_noise == "local" or learn_hyperprior):
        what = "theta_noise 'local' draws no θ" if theta_noise == "local" else "a learned α maximises (24)"
        other = "'stl'" if "flow" in config else "'B'"
        raise ValueError(f"estimator is {name!r}, which scores θ at its draw, but {what}: take {other}")
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
    """Say whether `value` is a real number. A bool is none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def posterior_of(posterior, flow, n_latent, dtype=np.float64):
    """Return the posterior, with its flow, and the name of the posterior under the flow.

    posterior   is a name in POSTERIORS or an object.
    flow        is the number of planar maps that a draw goes through; 0 is none.
    n_latent    is J, the number of latents with which a user's object is tried.
    dtype       is the precision in which it is tried, float64 unless given.

    What is no posterior raises a ValueError.
    """
    ours = _named("posterior", posterior, POSTERIORS)
    if type(posterior) in POSTERIORS.values():  # it is an object of one of our classes
        name = posterior.name
    elif ours is None:
        name = own_name(posterior, POSTERIORS)
        has("posterior", posterior, ("outputs", "draw", "backward"), (*ABILITIES, *FOR_USE, "factors", "start"))
        try_posterior(posterior, n_latent, dtype)
    else:
        posterior = ours()
        name = ours.name
    return (Flow(posterior, flow) if flow else posterior), name


def likelihood_of(likelihood, mean, n_visible, dtype=np.float64):
    """Return the likelihood and its name.

    likelihood   is a name in LIKELIHOODS or an object of the user's.
    mean         is "sigmoid", or "free" for those of our likelihoods that have it. It stays at "sigmoid" for a user's
                 object.
    n_visible    is D, the number of pixels with which a user's object is tried.
    dtype        is the precision in which it is tried, float64 unless given.

    What is no likelihood, and a mean that it does not have, raise a ValueError.
    """
    ours = _named("likelihood", likelihood, LIKELIHOODS)
    if ours is None:
        has("likelihood", likelihood, ("log_prob", "mean", "noise", "draw"), ("check",), ("outputs",))
        try_likelihood(likelihood, n_visible, dtype)
        if mean != "sigmoid":
            raise ValueError(
                f"mean is {mean!r}; it is an argument of our own likelihoods, and this one is yours: leave it out"
            )
        return likelihood, own_name(likelihood, LIKELIHOODS)
    if mean not in ours.means:
        free = ", ".join(name for name, other in LIKELIHOODS.items() if "free" in other.means)
        raise ValueError(f"mean is {mean!r}; expected 'sigmoid' or, for a likelihood among {free}, 'free'")
    return ours(mean) if len(ours.means) > 1 else ours(), ours.name


def objective_of(objective, posterior, n_samples):
    """Return the objective and its name.

    objective   is a name in OBJECTIVES or a function. None stands for L^B, or for L^A if the posterior has no KL in
                closed form.
    posterior   is the posterior object, which must have the methods that the objective needs.
    n_samples   is L, the number of draws of z for each datapoint. Some objectives need more than one.

    What is no objective, and an objective that needs more than the posterior or n_samples gives, raise a ValueError.
    """
    if objective is None:
        objective = "B" if hasattr(posterior, "neg_kl") else "A"
    if isinstance(objective, str) and objective in ("iwae-stl", "stl-iwae"):
        raise ValueError(
            f"estimator is {objective!r}, which is biased for more than one draw: take 'dreg', which is not, or 'stl'"
        )
    known = isinstance(objective, str) and objective in OBJECTIVES
    if not known and (not callable(objective) or isinstance(objective, type)):
        raise ValueError(
            f"estimator is {objective!r}; expected one of {', '.join(OBJECTIVES)}, or your own function {OBJECTIVE}"
        )
    function = OBJECTIVES[objective] if known else objective
    names = [key for key, ours in OBJECTIVES.items() if ours is function]
    name = names[0] if names else own_name(function, (*OBJECTIVES, "black_box"))  # older runs have "black_box" for ours
    for attribute, least, example in [("needs", (), "('neg_kl',)"), ("noise", ("eps",), "('eps', 'z', 'u')")]:
        listed = trait(function, attribute, least)
        if not is_names(listed) or not set(least) <= set(listed) or (least and not set(listed) <= set(NOISES)):
            raise ValueError(f"{attribute} of estimator {name} is {listed!r}; expected a tuple such as {example}")
    for ability in trait(function, "needs", ()):
        if not can(posterior, ability):
            base = posterior.base if isinstance(posterior, Flow) else posterior
            able = [key for key, cls in POSTERIORS.items() if hasattr(cls, ability)]
            others = f", or a posterior such as {' or '.join(able)}" if able else ""
            if base is not posterior and hasattr(base, ability):
                others = ", or leave flow out"
            what = ABILITIES.get(ability, f"a method {ability}")
            raise ValueError(
                f"estimator is {name!r}, which needs {what}, and the posterior {own_name(posterior, ())!r} has no "
                f"{ability}: take another estimator, such as 'A'{others}"
            )
    if n_samples < getattr(function, "least_draws", 1):
        raise ValueError(
            f"estimator is {name!r}, which needs {function.least_draws} draws or more, and n_samples is {n_samples}: "
            "take n_samples=8 or so"
        )
    return function, name


def own_name(value, taken):
    """Return the name under which a run keeps a user's object or function.

    It is the attribute `name`, or else the name of the function or class. If it is among `taken`, the names that are
    ours, "own" or "function" is put before it. The name of a `functools.partial` includes its settings. A name that is
    no text raises a ValueError.
    """
    if isinstance(value, functools.partial):
        settings = [_setting(setting) for setting in value.args]
        settings += [f"{key}={_setting(setting)}" for key, setting in sorted(value.keywords.items())]
        return f"partial {own_name(value.func, ())}({', '.join(settings)})"
    name = getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)
    if not isinstance(name, str):
        raise ValueError(f"name of {type(value).__name__} is {name!r}; expected a short text")
    return f"{'function' if hasattr(value, '__name__') else 'own'} {name}" if name in taken else name


def _setting(value):
    """Return a setting of a partial as text that is the same in every process."""
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value)).hexdigest()[:16]}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_setting(value[key])}" for key in sorted(value, key=repr)) + "}"
    plain = value is None or isinstance(value, bool | int | float | str | np.number | tuple | list)
    return repr(value) if plain and " at 0x" not in repr(value) else own_name(value, ())


def _named(door, value, ours):
    """Return the class of ours that `value` names, or None if it is an object of the user's.

    door is what a message calls the argument, and ours is a dict of classes by name. Any other name, None and a class
    raise a ValueError.
    """
    if isinstance(value, str) and value in ours:
        return ours[value]
    if isinstance(value, type):
        raise ValueError(f"{door} is the class {value.__name__}; expected an object of it: {door}={value.__name__}(…)")
    if isinstance(value, str | type(None)):
        raise ValueError(f"{door} is {value!r}; expected one of {', '.join(ours)}, or an object of your own")
    return None
