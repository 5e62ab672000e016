"""check_model: the gradients of a whole model, with any posterior, likelihood and objective."""

import copy
import functools

import numpy as np

from scratchvae.backend import move
from scratchvae.gradcheck.check import RTOL_ORACLE, check_gradients
from scratchvae.gradcheck.report import Report, Row
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS, can


def check_model(model, x, n_data=None, seed=0, oracle=None, **settings):
    """Check the gradient of (8) + log p(θ) with respect to every parameter array of a model, and return a `Report`.

    The equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes". For a `FullVB` the bound is (22),
    and its gradient is taken with respect to φ, μ and log σ.

    It is a copy of the model that is checked, at values of order one that are drawn here: at the paper's initial values
    some gradients are smaller than what central differences can resolve. The noise is drawn once, so that ours,
    the oracle and the differences see the same. If the gradient of an objective is not the derivative of its value at
    fixed noise, as with sticking the landing, its surrogate is differentiated instead.

    x         holds the rows (M, D), as the model takes them. They are moved to its backend.
    n_data    is N, 3 M unless given.
    oracle    is a function (arrays, x, noise, n_data) in autograd.numpy that returns the bound in nats, without log
              p(θ), from a dict of the model's arrays. Our own oracle, which is taken unless one is given, knows
              everything that has a name. A model with a posterior, a likelihood or an objective of your own is
              otherwise compared with differences alone.
    settings  are those of `check_gradients`: rtol, atol, entries, points.

    A float32 model is checked with wider tolerances, which its report tells. A ValueError is raised if a surrogate
    needs a method that the posterior of the model does not have.
    """
    _is_ours(model)
    model = copy.deepcopy(model)
    x = model.pixels(move(x, model.backend))
    n_data = 3 * len(x) if n_data is None else n_data
    generator = np.random.default_rng(seed)
    noise = model.noise(generator, len(x))
    params = model.params
    params.initialise("glorot", generator)
    for array in params.named(params.value).values():
        if array.ndim == 1:
            array[...] = move(0.5 * generator.standard_normal(array.shape), model.backend)
    if "theta_noise" in model.config:
        model.posterior.log_sigma -= 1  # so that θ stays of order one too
    objective = model.estimator
    surrogate = _surrogate(model, x, noise, n_data)

    def gradients():
        nonlocal surrogate
        model.bound(x, noise, n_data, gradient=True)
        model.add_log_prior_gradient()
        surrogate = _surrogate(model, x, noise, n_data)  # of encoder and decoder as they are at this point
        return params.named(params.grad)

    def loss():
        if surrogate is not None:
            model.estimator = surrogate()
        try:
            return float(model.bound(x, noise, n_data) + model.log_prior())
        finally:
            model.estimator = objective

    witness = _witness(model, x, noise, n_data, oracle)
    sizes = {"M": len(x), "N": n_data, "L": model.n_samples}
    settings = {"sizes": sizes, **settings}
    report = check_gradients(loss, params.named(params.value), gradients, oracle=witness, seed=seed, **settings)
    return _value(model, x, noise, n_data) + report if surrogate is not None else report


def _is_ours(model):
    """Raise a ValueError that says which check is the right one, unless it is a model of this library."""
    if all(hasattr(model, name) for name in ("params", "bound", "noise", "add_log_prior_gradient", "config")):
        return
    what = type(model).__name__
    if hasattr(model, "forward") and hasattr(model, "backward"):
        other = f"check_layer({what.lower()}, x)"
    elif callable(model):
        other = "check_density(f, x, …) for a density, or check_gradients(loss, params, grads)"
    else:
        other = "check_gradients(loss, params, grads), with three of your own functions or arrays"
    raise ValueError(f"check_model takes a model of this library, such as VAE; {what} is none: use {other}")


def _surrogate(model, x, noise, n_data):
    """Return a function that makes the surrogate of the model's objective, or None if it has none.

    What it makes is called like an objective. Encoder and decoder are held as they are now. They are copied at each
    call of the objective within a step, since a `FullVB` calls it at one θ after another. If the posterior has no
    `noise_of`, a ValueError is raised.
    """
    objective = model.estimator
    formula = trait(objective, "surrogate")
    if formula is None:
        return None
    if not can(model.encoder.posterior, "noise_of"):
        raise ValueError(
            f"the gradient of {model.config['estimator']} is checked by a surrogate, which needs log q(z|x) at a "
            "given z: give the posterior a method noise_of"
        )
    formula = functools.partial(formula, **getattr(objective, "keywords", {}))
    held = []

    def record(q, p, x, noise, scale, gradient):
        held.append(copy.deepcopy((q, p)))
        return 0.0

    def surrogate():
        pairs = iter(held)

        def call(q, p, x, noise, scale, gradient):
            return formula(q, p, x, noise, scale, *next(pairs))

        call.noise = record.noise
        call.at_the_draws = trait(objective, "at_the_draws", False)
        return call

    record.noise = trait(objective, "noise", ("eps",))
    model.estimator = record
    try:
        model.bound(x, noise, n_data)
    finally:
        model.estimator = objective
    return surrogate


def _witness(model, x, noise, n_data, oracle):
    """Return the oracle's bound plus log p(θ), or its surrogate, as a function of a dict of arrays.

    None is returned if no oracle knows the model.
    """
    from scratchvae import oracle as paper

    config = model.config
    dreams = None
    if trait(model.estimator, "noise") == ("eps", "z", "u"):
        _, z, u = noise
        dreams = move(model.decoder.draw(z, u), "numpy"), move(z, "numpy")
    x = move(x, "numpy")
    noise = _host(noise)
    held = _host_copies(model.params.named(model.params.value))

    def prior(arrays):
        return paper.log_prior(arrays) if config.get("prior") else 0.0

    if oracle is not None:
        return lambda arrays: oracle(arrays, x, noise, n_data) + prior(arrays)
    if not _is_known(config):
        return None
    settings = {key: config[key] for key in ("estimator", "likelihood", "mean", "activation")}
    settings |= {"n_maps": config.get("flow", 0), "posterior": config.get("posterior", "gaussian")}
    has_surrogate = trait(model.estimator, "surrogate") is not None
    if has_surrogate:
        settings |= {key: config[key] for key in ("beta", "free_bits") if key in config}
    if "theta_noise" in config:
        alpha = None if config["learn_hyperprior"] else config["alpha"]
        settings |= {"theta_noise": config["theta_noise"], "alpha": alpha, "held": held if has_surrogate else None}
        return lambda arrays: paper.full_vb(arrays, x, *noise, n_data, **settings)
    if has_surrogate:
        eps = noise[0] if dreams else noise
        settings["dreams"] = dreams
        return lambda arrays: paper.surrogate(arrays, held, x, eps, n_data, **settings) + prior(arrays)
    return lambda arrays: paper.bound(arrays, x, noise, n_data, **settings) + prior(arrays)


def _value(model, x, noise, n_data):
    """Return a report with a row for the value of an objective that has a surrogate.

    `check_gradients` looks at the value of the surrogate only. The report is empty if the oracle does not know the
    model.
    """
    from scratchvae import oracle as paper

    config = model.config
    if not _is_known(config):
        return Report()
    value = model.bound(x, noise, n_data)
    names = {"B": "B", "dreg": "iwae", "wake-sleep": "A" if "flow" in config else "B"}  # whose value they have
    settings = {key: config[key] for key in ("likelihood", "mean", "activation")}
    settings |= {"n_maps": config.get("flow", 0), "posterior": config.get("posterior", "gaussian")}
    settings["estimator"] = names.get(config["estimator"], "A")  # the others have the value of L^A
    arrays = _host_copies(model.params.named(model.params.value))
    x = move(x, "numpy")
    noise = _host(noise)
    if "theta_noise" in config:
        alpha = None if config["learn_hyperprior"] else config["alpha"]
        closed = not trait(model.estimator, "at_the_draws", False)
        theirs = paper.full_vb(arrays, x, *noise, n_data, config["theta_noise"], alpha=alpha, closed=closed, **settings)
    else:
        theirs = paper.bound(arrays, x, noise[0] if isinstance(noise, tuple) else noise, n_data, **settings)
    error = abs(float(value) - theirs) / abs(theirs)
    passed = bool(error <= RTOL_ORACLE[str(model.params.value.dtype)])
    notes = () if passed else (f"another value: it is {float(value):.10g}, and {theirs:.10g} according to the oracle",)
    return Report([Row("bound", passed, norm=float(abs(value)), oracle=error, notes=notes)])


def _is_known(config):
    """Say whether everything in the model has a name that the oracle knows."""
    names = {"estimator": OBJECTIVES, "likelihood": LIKELIHOODS, "posterior": POSTERIORS}
    return all(config.get(door, "gaussian") in ours for door, ours in names.items())


def _host(noise):
    """Return the noise of a step, one array or a tuple of them, in host memory."""
    return tuple(move(part, "numpy") for part in noise) if isinstance(noise, tuple) else move(noise, "numpy")


def _host_copies(arrays):
    return {name: np.array(move(array, "numpy")) for name, array in arrays.items()}
