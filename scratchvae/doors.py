"""What comes through the three doors of a VAE: a posterior, a likelihood and an objective, ours by name or a user's
own.

Each function here takes what a user passed, a name or an object, and returns the object and the name that a run keeps
of it. An object of the user's is tried once on a few rows, so that a method that is missing, or that returns the
wrong shape, is named when the model is made and not in the middle of a step. What each door asks for stands in
inference/posteriors, inference/likelihoods and inference/objectives.
"""

import copy

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import move
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.inference.posteriors.flow import Flow

ABILITIES = {  # what an objective may need of a posterior
    "neg_kl": "KL(q(z|x) ‖ p(z)) in closed form",
    "grad_z": "∇_z log q(z|x)",
    "noise_of": "the noise that leads to a given z",
}
L, M = 2, 3  # draws and rows on which an object is tried


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
    n_maps = whole("flow", flow, least=0)
    return (Flow(posterior, n_maps) if n_maps else posterior), name


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
        if not hasattr(posterior, ability):
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


def try_objective(objective, name, model):
    """Run a user's objective once, on two rows that the model has drawn; ValueError says what is wrong with it."""
    generator = np.random.default_rng(0)
    x = model.draw(move(generator.standard_normal((2, model.n_latent)), model.backend))
    try:
        value = objective(model.encoder, model.decoder, x, model.noise(generator, 2), 1.0, True)
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
