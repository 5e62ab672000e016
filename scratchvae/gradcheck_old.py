"""Checks hand-derived gradients against the autograd oracle and against central differences, in float64.

    from scratchvae.gradcheck import check_layer, check_density, check_model, table
    print(table(check_model(VAE(6, 5, 2, dtype="float64"), x)))

A check takes a scalar of order one. It is never the plain sum of the outputs, whose cotangent is all ones and hides
errors that cancel. ‖ours - theirs‖ / ‖theirs‖ is compared for each array by itself: a check on one random direction, or
on all arrays at once, would let a small wrong gradient pass beside a large right one.

Every check returns a list of `Check`. Arguments of these names mean the same in all of them:

seed      selects the random numbers, 0 unless given.
backend   is "numpy", unless given, or "cupy": where the arrays lie and the gradients are computed.
name      is put before the names of the arrays; the name of the layer's class, or of the function, unless given.
"""

import copy
import functools
import inspect
from dataclasses import dataclass

import numpy as np

from scratchvae.backend import kind, move
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS, can
from scratchvae.inference.posteriors.flow import Planar
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.nets.params import Params

TOLERANCE_ORACLE = 1e-10
TOLERANCE_DIFFERENCES = 1e-6


@dataclass(frozen=True)
class Check:
    """The relative errors of the gradient of one array, or of the value.

    name          is the name of the array.
    size          is how many numbers it holds.
    norm          is ‖ours‖, the norm of the gradient, or the size of the value.
    oracle        is the relative error against the oracle, None if none was given.
    differences   is the relative error against central differences, None for a value, which has none.
    """

    name: str
    size: int
    norm: float
    oracle: float | None
    differences: float | None

    @property
    def passed(self):
        """Say whether the errors are within 1e-10 of the oracle and within 1e-6 of differences. A NaN is not."""
        errors = [(self.oracle, TOLERANCE_ORACLE), (self.differences, TOLERANCE_DIFFERENCES)]
        return all(error is None or error <= tolerance for error, tolerance in errors)


def compare(function, arrays, gradients, oracle=None, entries=200, seed=0):
    """Check the `gradients` of the scalar `function()` with respect to `arrays`, and return a list of `Check`.

    arrays      is a dict of contiguous float64 arrays by name, which `function` reads. They are put back as they were.
                They may lie on the device.
    gradients   is a dict of the gradients to check, with the same names and shapes.
    oracle      is a function of a dict like `arrays` that returns the same scalar and that autograd can differentiate,
                or None. It is given copies in host memory. The first row then compares its value, since a gradient can
                be right for the wrong function.
    entries     is how many entries of an array are moved for the central differences, at random places if the array has
                more; 200 unless given.
    seed        selects these places, 0 unless given.

    If arrays and gradients do not match, or an array is not float64 or not contiguous, a ValueError is raised.
    """
    if arrays.keys() != gradients.keys():
        raise ValueError(f"gradients are given for {', '.join(gradients)}; expected {', '.join(arrays)}")
    for name, array in arrays.items():
        if array.dtype != np.float64 or gradients[name].shape != array.shape:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, its gradient {gradients[name].shape}; "
                "expected float64, one shape: a model with dtype='float64'"
            )
    gradients = _host_copies(gradients)
    checks = []
    witness = {}
    if oracle is not None:
        from autograd import value_and_grad

        value, witness = value_and_grad(oracle)(_host_copies(arrays))
        ours = np.float64(function())
        checks.append(Check("value", 1, float(abs(ours)), _relative_error(ours, value), None))
    generator = np.random.default_rng(seed)
    here = function()
    for name, array in arrays.items():
        ours = gradients[name]
        places = generator.permutation(array.size)[:entries]
        differences = np.array([_difference(function, array, place, here) for place in places])
        checks.append(
            Check(
                name,
                array.size,
                float(np.linalg.norm(ours)),
                _relative_error(ours, witness[name]) if witness else None,
                _relative_error(ours.reshape(-1)[places], differences, _rounding(here, len(places))),
            )
        )
    return checks


def check_layer(layer, *inputs, oracle=None, name=None, seed=0, backend="numpy"):
    """Check a copy of a layer with `forward` and `backward`: the gradient of every parameter array and every input.

    The scalar is Σ c ⊙ y with a random c. If the layer has parameters, its `shapes` says which, as {"W": (3, 4)}; then
    W and dW are laid here, and W is drawn. `forward` may return one array, or several in a tuple or a list, and
    `backward` takes as many.

    inputs   are the arguments of `forward`, which are read as float64.
    oracle   is a function (arrays, *inputs) that returns the same outputs, or None.

    A ValueError is raised if the gradient of an input is missing and the layer does not say `reads_data`, or if the
    layer has a gradient for an array that `shapes` does not name.
    """
    generator = np.random.default_rng(seed)
    layer = copy.deepcopy(layer)
    layers = getattr(layer, "layers", [layer])
    for part in layers:
        part.shapes = getattr(part, "shapes", {})
        part.name = getattr(part, "name", type(part).__name__)
    params = Params(layers, np.float64, backend)
    params.value[...] = move(generator.standard_normal(params.value.size), backend)
    inputs = {f"x{k}" if k else "x": move(np.array(x, np.float64), backend) for k, x in enumerate(inputs)}
    outputs = _tuple(layer.forward(*inputs.values()))
    cotangents = [move(generator.standard_normal(np.shape(y)), backend) for y in outputs]
    gradients = dict(zip(inputs, _tuple(layer.backward(*cotangents)), strict=True))
    read = {key: x for key, x in inputs.items() if gradients[key] is not None}
    if len(read) < len(inputs) and not any(getattr(part, "reads_data", False) for part in layers):
        raise ValueError(f"backward of {type(layer).__name__} returned None; expected the gradient of its input")
    for part in layers:
        for key, array in vars(part).items():
            if key not in part.shapes and kind(array) == backend and hasattr(part, "d" + key):
                raise ValueError(f"{part.name} has {key} and d{key}, but its shapes does not name {key}: not checked")
    arrays = {**params.named(params.value), **read}
    gradients = {**params.named(params.grad), **{key: gradients[key] for key in read}}

    def function():
        return sum(
            float((c * y).sum()) for c, y in zip(cotangents, _tuple(layer.forward(*inputs.values())), strict=True)
        )

    def witness(arrays):
        outputs = _tuple(oracle(arrays, *(arrays.get(key, move(x, "numpy")) for key, x in inputs.items())))
        return sum((move(c, "numpy") * y).sum() for c, y in zip(cotangents, outputs, strict=True))

    checks = compare(function, arrays, gradients, witness if oracle else None, seed=seed)
    return _named(name or type(layer).__name__, checks)


def check_density(density, *arguments, oracle=None, skip=0, name=None, seed=0, backend="numpy"):
    """Check a function that returns (value, partial, partial, …), with the partials in the order of its arguments.

    The scalar is Σ c ⊙ value with a random c.

    arguments   are the arguments of the function, which are read as float64. Those with a partial must have its shape.
    oracle      is a function (*arguments) that returns the same value, or None.
    skip        is how many of the first arguments have no partial, such as the x of log p(x|…); 0 unless given.
    """
    generator = np.random.default_rng(seed)
    arguments = [move(np.array(argument, np.float64), backend) for argument in arguments]
    value, *partials = density(*arguments)
    cotangent = move(generator.standard_normal(np.shape(value)), backend)
    names = [f"∂{name}" for name in list(inspect.signature(density).parameters)[skip : len(arguments)]]
    arrays = dict(zip(names, arguments[skip:], strict=True))
    gradients = {key: cotangent[..., None] * partial for key, partial in zip(names, partials, strict=True)}

    def witness(arrays):
        read = [move(argument, "numpy") for argument in arguments[:skip]]
        return (move(cotangent, "numpy") * oracle(*read, *arrays.values())).sum()

    def function():
        return float((cotangent * density(*arguments)[0]).sum())

    checks = compare(function, arrays, gradients, witness if oracle else None, seed=seed)
    return _named(name or density.__name__, checks)


def check_model(model, x, n_data=None, seed=0, oracle=None, entries=200):
    """Check the gradient of (8) + log p(θ) with respect to every parameter array of a float64 model.

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
    entries   is that of `compare`.

    A ValueError is raised if the model is not float64, or if a surrogate needs a method that its posterior does not
    have.
    """
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
    model.bound(x, noise, n_data, gradient=True)
    model.add_log_prior_gradient()
    gradients = params.named(params.grad)
    surrogate = _surrogate(model, x, noise, n_data)
    objective = model.estimator

    def function():
        if surrogate is not None:
            model.estimator = surrogate()
        try:
            return float(model.bound(x, noise, n_data) + model.log_prior())
        finally:
            model.estimator = objective

    witness = _witness(model, x, noise, n_data, oracle)
    checks = compare(function, params.named(params.value), gradients, witness, entries, seed)
    return _value(model, x, noise, n_data) + checks if surrogate is not None else checks


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
    """Return a list with a check of the value of an objective that has a surrogate.

    `compare` looks at the value of the surrogate only. The list is empty if the oracle does not know the model.
    """
    from scratchvae import oracle as paper

    config = model.config
    if not _is_known(config):
        return []
    value = model.bound(x, noise, n_data)
    names = {"dreg": "iwae", "wake-sleep": "A" if "flow" in config else "B"}  # whose value they have
    settings = {key: config[key] for key in ("likelihood", "mean", "activation")}
    settings |= {"n_maps": config.get("flow", 0), "posterior": config.get("posterior", "gaussian")}
    settings["estimator"] = names.get(config["estimator"], "A")  # the others have the value of L^A
    arrays = _host_copies(model.params.named(model.params.value))
    x = move(x, "numpy")
    noise = _host(noise)
    if "theta_noise" in config:
        alpha = None if config["learn_hyperprior"] else config["alpha"]
        theirs = paper.full_vb(arrays, x, *noise, n_data, config["theta_noise"], alpha=alpha, closed=True, **settings)
    else:
        theirs = paper.bound(arrays, x, noise[0] if isinstance(noise, tuple) else noise, n_data, **settings)
    return [Check("bound", 1, float(abs(value)), _relative_error(np.float64(value), theirs), None)]


def _is_known(config):
    """Say whether everything in the model has a name that the oracle knows."""
    names = {"estimator": OBJECTIVES, "likelihood": LIKELIHOODS, "posterior": POSTERIORS}
    return all(config.get(door, "gaussian") in ours for door, ours in names.items())


def check_parts(seed=0, backend="numpy"):
    """Yield (title, checks), first for all layers and then for all densities.

    seed and backend are those of the module's docstring.
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
)
THETA_CELLS = ({}, *({"theta_noise": noise} for noise in ("minibatch", "antithetic", "datapoint", "local")))


def check_matrix(seed=0, backend="numpy"):
    """Yield (what, checks) for the models of the matrix objective x posterior x likelihood x network x θ.

    Every objective is combined with every pair of posterior and θ. It is also combined with every likelihood and every
    network, while posterior and θ change from one to the next. Where a combination is refused, (what, reason) is
    yielded instead, and the reason is the message of the ValueError. seed and backend are those of the module's
    docstring.
    """
    x = np.random.default_rng(seed).random((4, 16))
    for objective in OBJECTIVES:
        cells = [(q, LIKELIHOOD_CELLS[0], NETWORK_CELLS[0], theta) for q in POSTERIOR_CELLS for theta in THETA_CELLS]
        for k, likelihood in enumerate(LIKELIHOOD_CELLS[1:]):
            cells.append((POSTERIOR_CELLS[k % 4], likelihood, NETWORK_CELLS[k % 4], THETA_CELLS[0]))
            cells.append((POSTERIOR_CELLS[(k + 1) % 2], likelihood, NETWORK_CELLS[k % 3], THETA_CELLS[1 + k % 4]))
        for k, network in enumerate(NETWORK_CELLS[1:]):
            cells.append((POSTERIOR_CELLS[0], LIKELIHOOD_CELLS[0], network, THETA_CELLS[0]))
            cells.append((POSTERIOR_CELLS[1 + k], LIKELIHOOD_CELLS[1 + k], network, THETA_CELLS[0]))
        for q, likelihood, network, theta in cells:
            settings = {"n_hidden": 4, "n_samples": 3, **q, **likelihood, **network, **theta}
            try:
                yield _cell(objective, settings), check_cell(objective, settings, x, seed, backend)
            except ValueError as error:
                yield _cell(objective, settings), str(error)


def check_cell(objective, settings, x, seed=0, backend="numpy"):
    """Return the checks of one model of the matrix; a combination that is refused raises a ValueError.

    objective is its name, settings are the arguments of the model, and x (M, D) holds the rows. seed and backend are
    those of the module's docstring.
    """
    kind = FullVB if "theta_noise" in settings else VAE
    model = kind(x.shape[1], n_latent=2, estimator=objective, dtype=np.float64, seed=seed, backend=backend, **settings)
    return check_model(model, x, seed=seed, entries=6)


def _cell(objective, settings):
    """Return the description of a model of the matrix, in one line."""
    q = settings.get("posterior", "gaussian") + (f" + {settings['flow']} maps" if "flow" in settings else "")
    likelihood = settings.get("likelihood", "bernoulli") + (", free" if "mean" in settings else "")
    width = settings["n_hidden"]
    network = "conv" if "channels" in settings else "-".join(map(str, np.atleast_1d(width))) if width else "linear"
    return " | ".join([objective, q, likelihood, network, f"θ: {settings.get('theta_noise', 'a point')}"])


def summary(checks):
    """Return the checks of a model as one line: how many arrays, the two largest relative errors, and the verdict."""
    oracle = [check.oracle for check in checks if check.oracle is not None]
    differences = [check.differences for check in checks if check.differences is not None]
    errors = "  ".join(f"{max(found):.1e}" if found else "      -" for found in (oracle, differences))
    return f"{len(differences):6d}  {errors:>20}  {'pass' if all(check.passed for check in checks) else 'FAIL'}"


def table(checks):
    """Return the checks as text, with a line for each array: size, norm of the gradient, relative errors, verdict."""
    width = max(len(check.name) for check in checks)
    lines = [f"{'':<{width}}     size       norm   oracle  differences"]
    for check in checks:
        oracle, differences = ("-" if e is None else f"{e:.1e}" for e in (check.oracle, check.differences))
        verdict = "pass" if check.passed else "FAIL"
        lines.append(
            f"{check.name:<{width}}  {check.size:7d}  {check.norm:9.3e}  {oracle:>7}  {differences:>11}  {verdict}"
        )
    return "\n".join(lines)


def _difference(function, array, place, here):
    """Return the derivative of `function` at one entry of `array`, by central differences.

    place is the index of the entry in the flat array, and here is the value of the function where the array is.

    The step h = ∛ε, scaled by the entry, balances the errors of curvature and of rounding. If the two one-sided
    differences disagree, there is curvature, or a kink within reach, as of |x - μ| or a relu. A step of an eighth makes
    no difference to curvature and may leave a kink outside, so it is tried, twice at most. Rounding errors grow as a
    step shrinks: if the two steps disagree by no more than these, the larger step is kept.
    """
    eps = np.finfo(np.float64).eps
    h = np.cbrt(eps) * max(1.0, abs(float(array.reshape(-1)[int(place)])))
    difference, bend = _central_difference(function, array, place, h, here)
    for _ in range(2):
        if bend <= 1e-6 * abs(difference):
            break
        h /= 8
        finer, bend = _central_difference(function, array, place, h, here)
        if abs(finer - difference) <= 1e-5 * abs(finer) + 10 * eps * abs(here) / h:
            break
        difference = finer
    return difference


def _central_difference(function, array, place, h, here):
    """Return (f(a + h) - f(a - h)) / 2h at one entry, and how far the one-sided differences are from it.

    The entry is put back. An array that is not contiguous raises a ValueError.
    """
    if not array.flags.c_contiguous:
        raise ValueError(f"an array of strides {array.strides} is not contiguous; expected one that is")
    flat = array.reshape(-1)
    place = int(place)
    before = float(flat[place])
    try:
        flat[place] = before + h
        above = function()
        flat[place] = before - h
        below = function()
    finally:
        flat[place] = before
    return (above - below) / (2 * h), abs(above - 2 * here + below) / (2 * h)


def _rounding(here, n):
    """Return how far n differences of a function of the size of `here` may be off by rounding: ε |f| / h each."""
    eps = np.finfo(np.float64).eps
    return float(eps * abs(here) / np.cbrt(eps) * np.sqrt(n))


def _relative_error(ours, theirs, rounding=0.0):
    """Return ‖ours - theirs‖ / ‖theirs‖, or ‖ours - theirs‖ if theirs is 0, less what `rounding` explains."""
    distance = max(np.linalg.norm(ours - theirs) - rounding, 0.0)
    norm = np.linalg.norm(theirs)
    return float(distance / norm) if norm > 0 else float(distance)


def _host(noise):
    """Return the noise of a step, one array or a tuple of them, in host memory."""
    return tuple(move(part, "numpy") for part in noise) if isinstance(noise, tuple) else move(noise, "numpy")


def _host_copies(arrays):
    return {name: np.array(move(array, "numpy")) for name, array in arrays.items()}


def _tuple(outputs):
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def _named(name, checks):
    prefix = f"{name} " if name else ""
    return [Check(prefix + c.name, c.size, c.norm, c.oracle, c.differences) for c in checks]
