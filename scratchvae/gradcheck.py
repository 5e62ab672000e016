"""Hand-derived gradients against the autograd oracle and against central differences, array by array, in float64.

    from scratchvae.gradcheck import check_layer, check_density, check_model, table
    print(table(check_model(VAE(6, 5, 2, dtype="float64"), x)))

A check takes a scalar of order one, never the plain sum of the outputs (its cotangent, all ones, hides errors that
cancel), and compares ‖ours - theirs‖ / ‖theirs‖ for each array by itself: a check on one random direction, or on all
arrays at once, lets a small wrong gradient pass beside a large right one.
"""

import copy
import functools
import inspect
from dataclasses import dataclass

import numpy as np

from scratchvae.backend import kind, move
from scratchvae.nets.params import Params

TOLERANCE_ORACLE = 1e-10
TOLERANCE_DIFFERENCES = 1e-6


@dataclass(frozen=True)
class Check:
    """Relative errors of one array's gradient, or of the value: against the oracle and against central differences.

    None where there is nothing to compare with: no oracle was given, or it is the value, which has no differences.
    """

    name: str
    size: int
    norm: float
    oracle: float | None
    differences: float | None

    @property
    def passed(self):
        """Within 1e-10 of the oracle and 1e-6 of central differences; a NaN is not."""
        errors = [(self.oracle, TOLERANCE_ORACLE), (self.differences, TOLERANCE_DIFFERENCES)]
        return all(error is None or error <= tolerance for error, tolerance in errors)


def compare(function, arrays, gradients, oracle=None, entries=200, seed=0):
    """Check `gradients` of the scalar `function()` with respect to `arrays`, which it reads, both dicts by name.

    oracle: the same scalar as a function of a dict like `arrays` that autograd can differentiate, or None. Its value is
    compared too, in the first row: a gradient can be right for the wrong function. Central differences are taken
    entry by entry, at `entries` random places of an array that has more. The arrays are put back as they were. They may
    lie on the device; the oracle is given copies in host memory.
    ValueError: arrays and gradients that do not match, or that are not float64.
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
    checks, witness = [], {}
    if oracle is not None:
        from autograd import value_and_grad

        value, witness = value_and_grad(oracle)(_host_copies(arrays))
        ours = np.float64(function())
        checks.append(Check("value", 1, float(abs(ours)), _relative_error(ours, value), None))
    generator = np.random.default_rng(seed)
    for name, array in arrays.items():
        ours = gradients[name]
        places = generator.permutation(array.size)[:entries]
        differences = np.array([_central_difference(function, array, place) for place in places])
        checks.append(
            Check(
                name,
                array.size,
                float(np.linalg.norm(ours)),
                _relative_error(ours, witness[name]) if witness else None,
                _relative_error(ours.reshape(-1)[places], differences),
            )
        )
    return checks


def check_layer(layer, *inputs, oracle=None, name=None, seed=0, backend="numpy"):
    """Check a layer with `forward` and `backward` on float64 inputs: every parameter array and every input.

    The scalar is Σ c ⊙ y with random c. It is a copy of the layer that is checked. If it has parameters, its `shapes`
    says which, as {"W": (3, 4)}; then W and dW are laid here, and W is drawn. `forward` may return one array or a
    tuple, and `backward` takes as many. ValueError if a gradient is missing: of an input, unless the layer says
    `reads_data`, or of an array that `shapes` does not name.
    oracle: function(arrays, *inputs) of the same outputs.
    """
    generator = np.random.default_rng(seed)
    layer = copy.deepcopy(layer)
    layers = getattr(layer, "layers", [layer])
    for part in layers:
        part.shapes, part.name = getattr(part, "shapes", {}), getattr(part, "name", type(part).__name__)
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
    """Check a pure function that returns (value, partial, partial, …), partials in the order of its arguments.

    skip: how many leading arguments have no partial (the x of log p(x|…)). The scalar is Σ c ⊙ value with random c.
    oracle: function(*arguments) of the same value. Arguments with partials must have the shape of their partials.
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


def check_model(model, x, n_data=None, seed=0):
    """Check every parameter array of a float64 VAE: the gradient of (8) + log p(θ) on rows x (M, D), N = n_data.

    Of a FullVB, the gradient of (22) with respect to φ, μ and log σ.

    It is checked at parameters of order one, drawn here and put back afterwards: at the paper's initial values some
    gradients all but vanish, below what central differences can resolve. The noise is injected: ours, the oracle and
    the differences see the same. Wake-sleep's two phases are checked each by itself: θ against the bound, φ against
    log q(z|x) of the dreams. The oracle knows all estimators that have a name; a model with one of your own is compared
    with central differences alone.
    """
    from scratchvae import oracle
    from scratchvae.inference.wake_sleep import sleep
    from scratchvae.models.vae import ESTIMATORS

    x = model.pixels(move(x, model.backend))
    n_data = 3 * len(x) if n_data is None else n_data
    generator = np.random.default_rng(seed)
    noise = model.noise(generator, len(x))
    config, params = model.config, model.params

    def function():
        return float(model.bound(x, noise, n_data) + model.log_prior())

    def asleep():
        z, u = (move(part, model.backend) for part in noise[1:])
        return float(sleep(model.encoder, model.decoder, z, u, n_data, gradient=False))

    def witness_asleep(arrays):
        z, u = (move(part, model.backend) for part in noise[1:])
        dreams = move(model.decoder.draw(z, u), "numpy")
        return oracle.dreams(arrays, dreams, move(noise[1], "numpy"), n_data, config["activation"])

    def witness(arrays):
        settings = {key: config[key] for key in ("estimator", "likelihood", "mean", "activation")}
        if "flow" in config:
            settings["n_maps"] = config["flow"]
        if "theta_noise" not in config:
            eps = noise
            if config["estimator"] == "wake-sleep":
                settings["estimator"], eps, arrays = "B", noise[0], {**_host_copies(phi), **arrays}
            prior = oracle.log_prior(arrays) if config["prior"] else 0.0
            return oracle.bound(arrays, move(x, "numpy"), move(eps, "numpy"), n_data, **settings) + prior
        eps, zeta = (move(part, "numpy") for part in noise)
        settings["alpha"] = None if config["learn_hyperprior"] else config["alpha"]
        if config["theta_noise"] == "local":
            del settings["estimator"]  # always (24)
        return oracle.full_vb(arrays, move(x, "numpy"), eps, zeta, n_data, config["theta_noise"], **settings)

    known = config["estimator"] in ESTIMATORS
    before = params.value.copy()
    try:
        params.initialise("glorot", generator)
        for array in params.named(params.value).values():
            if array.ndim == 1:
                array[...] = move(0.5 * generator.standard_normal(array.shape), model.backend)
        model.bound(x, noise, n_data, gradient=True)
        model.add_log_prior_gradient()
        values, gradients = params.named(params.value), params.named(params.grad)
        if config["estimator"] != "wake-sleep":
            return compare(function, values, gradients, witness if known else None, seed=seed)
        theta, phi = (_beginning(part, values) for part in ("decoder.", "encoder."))
        checks = compare(function, theta, _beginning("decoder.", gradients), witness, seed=seed)
        return checks + compare(asleep, phi, _beginning("encoder.", gradients), witness_asleep, seed=seed)
    finally:
        params.value[...] = before


def check_everything(seed=0, backend="numpy"):
    """(title, checks) for every layer, every density, the VAEs with every estimator and likelihood, and FullVB."""
    from scratchvae import oracle
    from scratchvae.inference import distributions
    from scratchvae.inference.flows import Planar
    from scratchvae.models.flow_vae import FlowVAE
    from scratchvae.models.full_vb import FullVB
    from scratchvae.models.vae import ESTIMATORS, VAE
    from scratchvae.nets import conv, layers, mlp

    generator = np.random.default_rng(seed)
    x, a, b = (generator.standard_normal((4, 5)) for _ in range(3))
    grey = generator.random((4, 5))

    layer, density = (functools.partial(check, backend=backend) for check in (check_layer, check_density))
    checks = layer(layers.Linear("linear", 5, 3), x, oracle=lambda p, x: oracle.linear(p, "linear", x), name="")
    for key, activation in mlp.ACTIVATIONS.items():
        checks += layer(activation(), 2 * x, oracle=lambda p, x, f=oracle.ACTIVATIONS[key]: f(x), name=key)
    images, (size, stride, padding) = generator.standard_normal((2, 5 * 4 * 2)), (3, 2, 1)
    maps = generator.standard_normal((2, 3 * 2 * 3))  # what a convolution makes of 5 x 4 pixels, in 3 channels

    def convolved(p, x):
        return oracle.convolution(p, "conv", x.reshape(2, 5, 4, 2), size, stride, padding).reshape(2, -1)

    def transposed(p, x):
        y = oracle.transposed_convolution(p, "conv", x.reshape(2, 3, 2, 3), (5, 4, 2), size, stride, padding)
        return y.reshape(2, -1)

    checks += layer(conv.Conv2d("conv", (5, 4, 2), 3, size, stride, padding), images, oracle=convolved)
    checks += layer(conv.ConvTranspose2d("conv", 3, (5, 4, 2), size, stride, padding), maps, oracle=transposed)
    flow, one, z = Planar(3, 5), generator.standard_normal((4, 3 * 11)), x[None]
    checks += layer(flow, z, one, oracle=lambda p, z, one: tuple(y[None] for y in oracle.flow(one, z[0], 3)))
    yield "layers", checks

    yield (
        "densities",
        density(distributions.log_bernoulli, grey, 3 * a, oracle=oracle.log_bernoulli, skip=1)
        + density(distributions.log_gaussian, x, a, b, oracle=oracle.log_normal, skip=1)
        + density(distributions.log_standard_gaussian, x, oracle=lambda z: oracle.log_normal(z, 0 * z, 0 * z))
        + density(distributions.gaussian_neg_kl, a, b, oracle=lambda mu, log_var: -oracle.kl(mu, log_var)),
    )

    for estimator in ESTIMATORS:
        for likelihood, mean in [("bernoulli", "sigmoid"), ("gaussian", "sigmoid"), ("gaussian", "free")]:
            for n_samples, n_hidden, activation in [(1, 6, "tanh"), (3, (6, 4), "softplus")]:
                model = VAE(
                    5,
                    n_hidden,
                    2,
                    likelihood,
                    mean,
                    estimator,
                    n_samples,
                    activation,
                    dtype=np.float64,
                    seed=seed,
                    backend=backend,
                )
                decoder = likelihood if likelihood == "bernoulli" else f"{likelihood}, {mean} mean"
                objective = f"L^{estimator}" if estimator in ("A", "B") else estimator
                title = f"{objective}, {decoder}, L = {n_samples}, hidden {n_hidden} {activation}, MAP"
                yield title, check_model(model, grey, seed=seed)

    where = {"dtype": np.float64, "seed": seed, "backend": backend}
    square = generator.random((4, 16))
    for title, model in [
        ("isotropic, L = 2, no hidden layer", VAE(16, (), 2, "isotropic", "free", n_samples=2, **where)),
        ("bernoulli, convolutions", VAE(16, 5, 2, channels=(3, 2), activation="relu", **where)),
        ("gaussian, convolutions, L = 2", VAE(16, 5, 2, "gaussian", channels=(3,), n_samples=2, **where)),
        ("a flow of 3 maps, L = 2", FlowVAE(16, 5, 3, flow=3, n_samples=2, **where)),
        (
            "a flow of 1 map, isotropic, convolutions",
            FlowVAE(16, 5, 2, flow=1, likelihood="isotropic", channels=(2,), **where),
        ),
    ]:
        yield f"{title}, MAP", check_model(model, square, seed=seed)

    for theta_noise, settings in [
        ("minibatch", {"estimator": "A", "alpha": 0.7}),
        ("minibatch", {}),
        ("antithetic", {"likelihood": "gaussian"}),
        ("datapoint", {"n_samples": 2}),
        ("local", {"likelihood": "gaussian", "n_hidden": (6, 4)}),
        ("local", {"learn_hyperprior": True}),
    ]:
        sizes = {"n_visible": 5, "n_hidden": 6, "n_latent": 2}
        model = FullVB(**sizes | settings, theta_noise=theta_noise, **where)
        config = model.config
        alpha = "learned" if config["learn_hyperprior"] else config["alpha"]
        title = f"full VB, {'(24)' if config['estimator'] == 'B' else '(21)'}, θ noise {theta_noise}, α {alpha}, "
        title += f"{config['likelihood']}, L = {config['n_samples']}, hidden {config['n_hidden']}"
        yield title, check_model(model, grey, seed=seed)


def table(checks):
    """The checks as text, one line an array: its size, the norm of its gradient, the two relative errors."""
    width = max(len(check.name) for check in checks)
    lines = [f"{'':<{width}}     size       norm   oracle  differences"]
    for check in checks:
        oracle, differences = ("-" if e is None else f"{e:.1e}" for e in (check.oracle, check.differences))
        verdict = "pass" if check.passed else "FAIL"
        lines.append(
            f"{check.name:<{width}}  {check.size:7d}  {check.norm:9.3e}  {oracle:>7}  {differences:>11}  {verdict}"
        )
    return "\n".join(lines)


def _central_difference(function, array, place):
    """(f(a + h) - f(a - h)) / 2h at one entry, h = ∛ε scaled by the entry: the step that balances the two errors."""
    if not array.flags.c_contiguous:
        raise ValueError(f"an array of strides {array.strides} is not contiguous; expected one that is")
    flat, place = array.reshape(-1), int(place)
    before = float(flat[place])
    h = np.cbrt(np.finfo(np.float64).eps) * max(1.0, abs(before))
    try:
        flat[place] = before + h
        above = function()
        flat[place] = before - h
        below = function()
    finally:
        flat[place] = before
    return (above - below) / (2 * h)


def _relative_error(ours, theirs):
    """‖ours - theirs‖ / ‖theirs‖; 0 where both vanish."""
    distance, norm = np.linalg.norm(ours - theirs), np.linalg.norm(theirs)
    return float(distance / norm) if norm > 0 else float(distance)


def _host_copies(arrays):
    return {name: np.array(move(array, "numpy")) for name, array in arrays.items()}


def _beginning(prefix, arrays):
    return {name: array for name, array in arrays.items() if name.startswith(prefix)}


def _tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _named(name, checks):
    prefix = f"{name} " if name else ""
    return [Check(prefix + c.name, c.size, c.norm, c.oracle, c.differences) for c in checks]
