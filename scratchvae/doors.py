"""Turns what comes through the three doors of a VAE, a posterior, a likelihood and an objective, into objects.

Each door takes a name or an object of the user's own. The functions here return the object and the name under which a
run keeps it. A user's object is tried on a few rows when the model is made. A method that is missing, that fails or
that returns a wrong shape is then named at once, and not in the middle of a step. What each door asks for is described
in inference/posteriors, inference/likelihoods and inference/objectives.
"""

import functools
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

OBJECTIVE = "f(q, p, x, eps, scale, gradient=True)"
ABILITIES = {  # the methods that an objective may need of a posterior, and what they give
    "neg_kl": "KL(q(z|x) ‖ p(z)) in closed form",
    "grad_z": "∇_z log q(z|x)",
    "noise_of": "the noise that leads to a given z",
}
# A user's object is tried on L draws for each of M rows. No other size is likely to be one of these numbers.
L = 3
M = 7
NOISES = ("eps", "z", "u")


def opened(given):
    """Return (posterior, likelihood, objective, config) for `given`, the arguments of a VAE by name.

    config is a dict that JSON can hold, with all arguments but the backend, and with names in place of objects. It
    leaves out posterior, flow and channels where they have their defaults, since older runs do not have them. The first
    argument that does not fit raises a ValueError.
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
    """Return the arguments but estimator and backend, checked and as JSON holds them.

    posterior and likelihood are left as they were given. Arguments that do not fit raise a ValueError.
    """
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
        raise ValueError(f"estimator is {name!r}, whose bound is not (22): take 'A', 'B' or a function")
    if trait(objective, "noise", ("eps",)) != ("eps",):
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


def posterior_of(posterior, flow, n_latent):
    """Return the posterior, with its flow, and the name of the posterior under the flow.

    posterior   is a name in POSTERIORS or an object.
    flow        is the number of planar maps that a draw goes through; 0 is none.
    n_latent    is J, the number of latents with which a user's object is tried.

    What is no posterior raises a ValueError.
    """
    ours = _named("posterior", posterior, POSTERIORS)
    if type(posterior) in POSTERIORS.values():  # it is an object of one of our classes
        name = posterior.name
    elif ours is None:
        name = own_name(posterior, POSTERIORS)
        _has("posterior", posterior, ("outputs", "draw", "backward"), (*ABILITIES, "moments", "factors", "start"))
        _try_posterior(posterior, n_latent)
    else:
        posterior = ours()
        name = ours.name
    return (Flow(posterior, flow) if flow else posterior), name


def likelihood_of(likelihood, mean, n_visible):
    """Return the likelihood and its name.

    likelihood   is a name in LIKELIHOODS or an object of the user's.
    mean         is "sigmoid", or "free" for those of our likelihoods that have it. It stays at "sigmoid" for a user's
                 object.
    n_visible    is D, the number of pixels with which a user's object is tried.

    What is no likelihood, and a mean that it does not have, raise a ValueError.
    """
    ours = _named("likelihood", likelihood, LIKELIHOODS)
    if ours is None:
        _has("likelihood", likelihood, ("log_prob", "mean", "noise", "draw"), ("check",), ("outputs",))
        _try_likelihood(likelihood, n_visible)
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
        if not _is_names(listed) or not set(least) <= set(listed) or (least and not set(listed) <= set(NOISES)):
            raise ValueError(f"{attribute} of estimator {name} is {listed!r}; expected a tuple such as {example}")
    for ability in trait(function, "needs", ()):
        if not can(posterior, ability):
            able = [key for key, cls in POSTERIORS.items() if hasattr(cls, ability)]
            others = f", or a posterior such as {' or '.join(able)}" if able else ""
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


def can(posterior, ability):
    """Say whether a posterior has the method called `ability`. With a flow, the posterior under it must have it too."""
    return hasattr(posterior, ability) and (not isinstance(posterior, Flow) or can(posterior.base, ability))


def try_objective(objective, name, model, noise):
    """Run a user's objective on a few rows, and raise a ValueError that says what is wrong with it.

    name is what messages call it. The M rows are drawn from the model. noise is a function (generator, n) that returns
    the noise of the objective for n rows. The objective is called without the gradient and with it, and the gradient is
    then set to 0.
    """
    generator = np.random.default_rng(0)
    x = model.draw(move(generator.standard_normal((M, model.n_latent)), model.backend))
    noise = noise(generator, M)
    for gradient in (False, True):
        model.params.grad[...] = np.nan  # so that an array that is not written is found
        try:
            value = objective(model.encoder, model.decoder, x, noise, 1.0, gradient)
            left = model.params.non_finite() if gradient else None
        except Exception as error:
            raise ValueError(
                f"estimator {name} failed on {M} rows with gradient={gradient} ({type(error).__name__}: {error}); "
                f"expected a function {OBJECTIVE}, as scratchvae.inference.objectives describes it"
            ) from error
        finally:
            model.params.grad[...] = 0
        if left is not None:
            raise ValueError(
                f"estimator {name} does not write {left}, which would stay that of the step before; expected the "
                "gradient of every array, 0 where it has none"
            )
        if np.shape(value) != () or not _is_number(value):
            came = f"an array of shape {np.shape(value)}" if np.shape(value) else repr(value)
            raise ValueError(
                f"estimator {name} returned {came} with gradient={gradient}; expected one number in nats, the bound of "
                "all rows together, times scale"
            )


def own_name(value, taken):
    """Return the name under which a run keeps a user's object or function.

    It is the attribute `name`, or else the name of the function or class. If it is among `taken`, the names that are
    ours, "own" or "function" is put before it. The name of a `functools.partial` includes its settings. A name that is
    no text raises a ValueError.
    """
    if isinstance(value, functools.partial):
        settings = [repr(setting) for setting in value.args] + [f"{k}={v!r}" for k, v in value.keywords.items()]
        return f"partial {own_name(value.func, ())}({', '.join(settings)})"
    name = getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)
    if not isinstance(name, str):
        raise ValueError(f"name of {type(value).__name__} is {name!r}; expected a short text")
    return f"{'function' if hasattr(value, '__name__') else 'own'} {name}" if name in taken else name


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


def _has(door, value, methods, optional, attributes=()):
    """Raise a ValueError unless `value` has all `methods` and `attributes`, and its methods can be called.

    The methods in `optional` may be missing. door is what messages call the argument.
    """
    where = f"{door} {type(value).__name__}"
    needed = [*attributes, *methods]
    missing = [name for name in needed if not hasattr(value, name)]
    if missing:
        raise ValueError(
            f"{where} has no {', '.join(missing)}; expected an object with {', '.join(needed)}, as "
            f"scratchvae.inference.{door}s describes them"
        )
    for name in (*methods, *optional):
        if not callable(getattr(value, name, len)):
            raise ValueError(f"{name} of {where} is {getattr(value, name)!r}; expected a method, def {name}(self, …)")


def _is_names(value):
    """Say whether `value` is a tuple or a list of names that are all different."""
    names = isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)
    return names and len(set(value)) == len(value)


def _ask(where, call, expected, meaning, ask):
    """Return what a method returns, as a tuple; a ValueError names the method if it fails or returns other shapes.

    where      names the object in messages.
    call       says in messages how the method is called.
    expected   lists the shapes of what it returns. An entry None stands for a result that is not looked at.
    meaning    says in messages what it should return.
    ask        is a function without arguments that calls it.
    """
    try:
        results = ask()
    except Exception as error:
        raise ValueError(
            f"{where}: {call} failed ({type(error).__name__}: {error}); expected shapes {_text(expected)}: {meaning}"
        ) from error
    results = results if isinstance(results, tuple | list) else (results,)
    came = [None if result is None else np.shape(result) for result in results]
    if len(came) != len(expected) or any(e is not None and c != e for c, e in zip(came, expected, strict=True)):
        raise ValueError(f"{where}: {call} returned shapes {_text(came)}; expected {_text(expected)}: {meaning}")
    return results


def _text(shapes):
    """Return shapes as text for a message."""
    return ", ".join(map(str, shapes)) or "nothing"


def _try_likelihood(likelihood, D):
    """Try every method of a user's likelihood on M rows of D pixels, and log_prob on L draws for each of them.

    The first attribute or method that does not keep the protocol raises a ValueError.
    """
    where = f"likelihood {type(likelihood).__name__}"
    names = likelihood.outputs
    if not _is_names(names) or not names:
        raise ValueError(f"outputs of {where} is {names!r}; expected a tuple of names, such as ('mu', 'log_var')")
    shared = getattr(likelihood, "shared", {})
    if not isinstance(shared, dict) or any(n not in (1, D) or name in names for name, n in shared.items()):
        raise ValueError(
            f"shared of {where} is {shared!r}; expected other names than those of outputs, each with 1 or {D} numbers, "
            "such as {'log_var': 1}"
        )
    links = getattr(likelihood, "links", {})
    if not isinstance(links, dict) or any(name not in names or not _is_layer(link) for name, link in links.items()):
        raise ValueError(
            f"links of {where} is {links!r}; expected layer classes by name of output, such as {{'mu': Sigmoid}}"
        )
    low_high = getattr(likelihood, "support", (-np.inf, np.inf))
    if np.shape(low_high) != (2,) or not low_high[0] < low_high[1]:
        raise ValueError(f"support of {where} is {low_high!r}; expected (lowest, highest), such as (0, np.inf)")

    generator = np.random.default_rng(0)
    rows = [0.1 * generator.standard_normal((M, D)) for _ in names]
    rows = [links[name]().forward(y) if name in links else y for name, y in zip(names, rows, strict=True)]
    rows += [0.1 * generator.standard_normal(n) for n in shared.values()]
    read = ", ".join([*names, *shared])
    call = "noise(generator, shape, dtype)"
    meaning = "random numbers of this shape"
    (u,) = _ask(where, call, [(M, D)], meaning, lambda: likelihood.noise(generator, (M, D), np.float64))
    meaning = f"x ~ p(x|z), {D} pixels for each of {M} rows"
    (x,) = _ask(where, f"draw(noise, {read})", [(M, D)], meaning, lambda: likelihood.draw(u, *rows))
    meaning = f"E[x|z], {D} pixels for each of {M} rows"
    _ask(where, f"mean({read})", [(M, D)], meaning, lambda: likelihood.mean(*rows))
    outputs = [np.stack([y] * L) if y.ndim == 2 else y for y in rows]
    for gradient in (True, False):
        call = f"log_prob(x, {read}, gradient={gradient})"
        partials = [(L, M, D) if gradient else None for _ in outputs]
        meaning = f"log p(x|z) of {L} draws for {M} rows, summed over the {D} pixels, and "
        meaning += f"its partial with respect to each of {read}, not summed" if gradient else f"None for each of {read}"
        ask = functools.partial(likelihood.log_prob, x, *outputs, gradient=gradient)
        _ask(where, call, [(L, M), *partials], meaning, ask)


def _is_layer(link):
    """Say whether `link` is a class of layers."""
    return isinstance(link, type) and all(hasattr(link, name) for name in ("forward", "backward", "shapes"))


def _try_posterior(posterior, J):
    """Try every method of a user's posterior on L draws of J latents for each of M rows.

    The first method that does not keep the protocol raises a ValueError.
    """
    where = f"posterior {type(posterior).__name__}"
    (widths,) = _ask(where, "outputs(n_latent)", [None], "a dict of widths", lambda: (posterior.outputs(J),))
    well = isinstance(widths, dict) and _is_names(list(widths)) and all(map(_is_width, widths.values()))
    if not well or not widths:
        raise ValueError(
            f"{where}: outputs({J}) returned {widths!r}; expected a dict of names and whole numbers, such as "
            f"{{'mu': {J}, 'log_var': {J}}}"
        )
    generator = np.random.default_rng(0)
    outputs = [0.1 * generator.standard_normal((M, n)) for n in widths.values()]
    read = ", ".join(widths)
    eps = generator.standard_normal((L, M, J))
    meaning = f"{L} draws of z for {M} rows, and log q(z|x), summed over the {J} latents"
    z, _ = _ask(where, f"draw(eps, {read})", [(L, M, J), (L, M)], meaning, lambda: posterior.draw(eps, *outputs))
    scores = [(L, M, J)] * (1 + len(outputs))
    abilities = {  # for each method its call in words, its arguments, the shapes that it returns, and their meaning
        "neg_kl": ("()", (), [(M,)], f"-KL(q(z|x) ‖ p(z)) of each of {M} rows"),
        "grad_z": ("()", (), [(L, M, J)], "∇_z log q(z|x) at each draw"),
        "noise_of": (f"(z, {read})", (z, *outputs), [(L, M, J)], "the eps that leads to each z"),
        "moments": (f"({read})", outputs, [(M, J), (M, J)], "mean and log variance of each latent"),
        "factors": ("()", (), scores, f"log q of each latent, and the list of its scores by {read}"),
    }
    for ability, (call, arguments, expected, meaning) in abilities.items():
        if can(posterior, ability):
            ask = functools.partial(getattr(posterior, ability), *arguments)
            ask = ask if ability != "factors" else functools.partial(_flat, ask)
            _ask(where, ability + call, expected, meaning, ask)
    expected = [output.shape for output in outputs]
    meaning = f"∂bound/∂ each of {read}, summed over the {L} draws"
    numbers = [("1.0", 1.0, 0.0), (f"an array {(L, M)}", np.full((L, M), 1.0), 0.0)]
    numbers += [("0.0", 0.0, 1.0)] if hasattr(posterior, "neg_kl") else []
    if not isinstance(posterior.backward(eps, 1.0, 0.0), tuple | list):
        raise ValueError(f"{where}: backward returned one array; expected a tuple, ∂bound/∂ each of {read}")
    for text, dlog_q, dneg_kl in numbers:
        call = f"backward(dz, dlog_q, dneg_kl), with {text} for dlog_q and {dneg_kl} for dneg_kl,"
        _ask(where, call, expected, meaning, functools.partial(posterior.backward, eps, dlog_q, dneg_kl))


def _is_number(value):
    """Say whether `value` is a real number or an array of them, in host memory or on the device."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return dtype.kind in "fiu"


def _is_width(n):
    """Say whether `n` is a whole number that an array can have as its width, which may be 0."""
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0


def _flat(ask):
    """Return what `factors` returns, log q and the list of scores, as one tuple."""
    log_q, scores = ask()
    return log_q, *scores
