"""Tries what a user brings through the three doors on a few rows, so that a mistake is named when the model is made.

What each door asks for is described in inference/posteriors, inference/likelihoods and inference/objectives. A method
that is missing, that fails, that returns other shapes or another precision, NaN or an infinity, or that changes what it
was given raises a ValueError. Whether a gradient is right is another question: `gradcheck.check_model` answers it.
"""

import copy
import functools

import numpy as np

from scratchvae.backend import kind
from scratchvae.inference.posteriors import can

OBJECTIVE = "f(q, p, x, eps, scale, gradient=True)"
# An object is tried on L draws for each of M rows. No other size is likely to be one of these numbers.
L = 3
M = 7


def has(door, value, methods, optional, attributes=()):
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


def is_names(value):
    """Say whether `value` is a tuple or a list of names that are all different."""
    names = isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)
    return names and len(set(value)) == len(value)


def copied(door, value):
    """Return a copy of a user's object, which a model keeps for itself; a ValueError says why it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ValueError(
            f"{door} {type(value).__name__} cannot be copied ({type(error).__name__}: {error}); a model keeps a copy "
            "of it: keep locks, files and the like elsewhere"
        ) from error


def try_likelihood(likelihood, D, dtype):
    """Try every method of a user's likelihood on M rows of D pixels, and log_prob on L draws for each of them.

    dtype is that of the model. The first attribute or method that does not keep the protocol raises a ValueError.
    """
    where = f"likelihood {type(likelihood).__name__}"
    names = likelihood.outputs
    if not is_names(names) or not names:
        raise ValueError(f"outputs of {where} is {names!r}; expected a tuple of names, such as ('mu', 'log_var')")
    shared = getattr(likelihood, "shared", {})
    if not isinstance(shared, dict) or any(
        isinstance(n, bool) or n not in (1, D) or name in names for name, n in shared.items()
    ):
        raise ValueError(
            f"shared of {where} is {shared!r}; expected other names than those of outputs, each with 1 or {D} numbers, "
            "such as {'log_var': 1}"
        )
    links = getattr(likelihood, "links", {})
    if not isinstance(links, dict) or any(name not in names or not _is_link(link) for name, link in links.items()):
        raise ValueError(
            f"links of {where} is {links!r}; expected by name of output a class of layers without arguments and "
            "without parameters, such as {'mu': Sigmoid}"
        )
    low_high = getattr(likelihood, "support", (-np.inf, np.inf))
    if np.shape(low_high) != (2,) or not low_high[0] < low_high[1]:
        raise ValueError(f"support of {where} is {low_high!r}; expected (lowest, highest), such as (0, np.inf)")

    generator = np.random.default_rng(0)
    rows = [_numbers(generator, (M, D), dtype) for _ in names]
    rows = [links[name]().forward(y) if name in links else y for name, y in zip(names, rows, strict=True)]
    rows += [_numbers(generator, (n,), dtype) for n in shared.values()]
    read = ", ".join([*names, *shared])
    call = "noise(generator, shape, dtype)"
    meaning = "random numbers of this shape and dtype"
    u, again = (
        _ask(where, call, [(M, D)], meaning, dtype, likelihood.noise, np.random.default_rng(1), (M, D), dtype)[0]
        for _ in range(2)
    )
    if (u != again).any():
        raise ValueError(f"{where}: {call} returned other numbers for the same generator; expected it to draw from it")
    meaning = f"x ~ p(x|z), {D} pixels for each of {M} rows"
    (x,) = _ask(where, f"draw(noise, {read})", [(M, D)], meaning, dtype, likelihood.draw, u, *rows)
    meaning = f"E[x|z], {D} pixels for each of {M} rows"
    _ask(where, f"mean({read})", [(M, D)], meaning, dtype, likelihood.mean, *rows)
    x = _locked(x)
    outputs = [_locked(np.stack([y] * L)) if y.ndim == 2 else y for y in rows]
    for gradient in (True, False):
        call = f"log_prob(x, {read}, gradient={gradient})"
        partials = [(L, M, D) if gradient else None for _ in outputs]
        meaning = f"log p(x|z) of {L} draws for {M} rows, summed over the {D} pixels, and "
        meaning += f"its partial with respect to each of {read}, not summed" if gradient else f"None for each of {read}"
        ask = functools.partial(likelihood.log_prob, gradient=gradient)
        _ask(where, call, [(L, M), *partials], meaning, dtype, ask, x, *outputs)


def try_posterior(posterior, J, dtype):
    """Try every method of a user's posterior on L draws of J latents for each of M rows.

    dtype is that of the model. The first method that does not keep the protocol raises a ValueError.
    """
    where = f"posterior {type(posterior).__name__}"
    try:
        widths = posterior.outputs(J)
    except Exception as error:
        raise ValueError(
            f"{where}: outputs({J}) failed ({type(error).__name__}: {error}); expected a dict of widths"
        ) from error
    well = isinstance(widths, dict) and is_names(list(widths)) and all(map(_is_width, widths.values()))
    if not well or not widths:
        raise ValueError(
            f"{where}: outputs({J}) returned {widths!r}; expected a dict of names and whole numbers, such as "
            f"{{'mu': {J}, 'log_var': {J}}}"
        )
    generator = np.random.default_rng(0)
    outputs = [_numbers(generator, (M, n), dtype) for n in widths.values()]
    read = ", ".join(widths)
    eps = _numbers(generator, (L, M, J), dtype, size=1.0)
    meaning = f"{L} draws of z for {M} rows, and log q(z|x), summed over the {J} latents"
    shapes = [(L, M, J), (L, M)]
    z, _ = _ask(where, f"draw(eps, {read})", shapes, meaning, dtype, posterior.draw, eps, *outputs)
    z = _locked(z)
    scores = [(L, M, J)] * (1 + len(outputs))
    abilities = {  # for each method its call in words, its arguments, the shapes that it returns, and their meaning
        "neg_kl": ("()", (), [(M,)], f"-KL(q(z|x) ‖ p(z)) of each of {M} rows"),
        "grad_z": ("()", (), [(L, M, J)], "∇_z log q(z|x) at each draw"),
        "noise_of": (f"(z, {read})", (z, *outputs), [(L, M, J)], "the eps that leads to each z"),
        "moments": (f"({read})", outputs, [(M, J), (M, J)], "mean and log variance of each latent"),
        "latent_kl": ("()", (), [(M, J)], "KL(q(z_j|x) ‖ p(z_j)) of each latent"),
        "pairwise_log_q": (
            f"(z, {read})",
            (_locked(z[:, 0]), *outputs),
            [(L, M)],
            f"log q(z|x) of each of {L} z, ({L}, {J}), at each of {M} rows",
        ),
        "factors": ("()", (), scores, f"log q of each latent, and the list of its scores by {read}"),
    }
    for ability, (call, arguments, expected, meaning) in abilities.items():
        if can(posterior, ability):
            method = getattr(posterior, ability)
            method = functools.partial(_flat, method) if ability == "factors" else method
            _ask(where, ability + call, expected, meaning, dtype, method, *arguments)
    expected = [output.shape for output in outputs]
    meaning = f"a tuple, ∂bound/∂ each of {read}, summed over the {L} draws"
    numbers = [("1.0", 1.0, 0.0), (f"an array {(L, M)}", _locked(np.ones((L, M), dtype)), 0.0)]
    numbers += [("0.0", 0.0, 1.0)] if hasattr(posterior, "neg_kl") else []
    if all(hasattr(posterior, ability) for ability in ("neg_kl", "factors", "latent_kl")):
        numbers += [("0.0", 0.0, _locked(np.ones(J, dtype)))]
    for text, dlog_q, dneg_kl in numbers:
        weight = dneg_kl if np.isscalar(dneg_kl) else f"an array {(J,)}"
        call = f"backward(dz, dlog_q, dneg_kl), with {text} for dlog_q and {weight} for dneg_kl,"
        _ask(where, call, expected, meaning, dtype, posterior.backward, eps, dlog_q, dneg_kl, several=True)


def try_objective(objective, name, model, noise, scaled=True):
    """Run a user's objective on a few rows, and raise a ValueError that says what is wrong with it.

    name is what messages call it. The M rows are drawn from the model. noise
    is a function (generator, n) that returns the noise of the objective for n rows. The objective is called without the
    gradient, with it, and with another scale, with which it must grow if `scaled`, as it does unless given. params.grad
    is then set to 0.
    """
    generator = np.random.default_rng(0)
    x = _locked(model.simulate(M)[1])
    noise = noise(generator, M)
    noise = tuple(map(_locked, noise)) if isinstance(noise, tuple) else _locked(noise)

    def run(gradient, scale):
        model.params.grad[...] = np.nan  # so that an array that is not written is found
        try:
            value = objective(model.encoder, model.decoder, x, noise, scale, gradient)
            left = model.params.non_finite() if gradient else None
            return value, left, model.params.grad.copy()
        except Exception as error:
            without = "" if can(model.encoder.posterior, "neg_kl") else " (q.neg_kl() is None: this posterior has none)"
            raise ValueError(
                f"estimator {name} failed on {M} rows with gradient={gradient} ({type(error).__name__}: {error})"
                f"{without}; expected a function {OBJECTIVE}, as scratchvae.inference.objectives describes it"
            ) from error
        finally:
            model.params.grad[...] = 0

    found = [run(gradient, scale) for gradient, scale in ((False, 1.0), (True, 1.0), (True, 2.0))]
    for gradient, (value, left, _) in zip((False, True, True), found, strict=True):
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
    (once, _, _), (again, _, gradient), (twice, _, of_twice) = found
    if not scaled or once != again:  # it changes from call to call, as one does that warms up
        return
    close = float(np.sqrt(np.finfo(model.dtype).eps))
    if abs(twice - 2 * once) > close * abs(once) or _norm(of_twice - 2 * gradient) > close * _norm(gradient):
        raise ValueError(
            f"estimator {name} does not grow with scale: {float(once):g} nats for 1, {float(twice):g} for 2; expected "
            "the bound and its gradient times scale, N/M, for how many datapoints each row stands"
        )


def _ask(where, call, expected, meaning, dtype, method, *arguments, several=False):
    """Return what a method returns, as a tuple; a ValueError names the method if it is not what is expected.

    where       names the object in messages.
    call        says in messages how the method is called.
    expected    lists the shapes of what it returns. An entry None stands for a result that is not looked at.
    meaning     says in messages what it should return.
    dtype       is that of the arguments and of what it should return.
    several     says that it must return a tuple or a list, even of one.
    """
    try:
        results = method(*arguments)
    except Exception as error:
        raise ValueError(
            f"{where}: {call} failed ({type(error).__name__}: {error}); expected shapes {_text(expected)}: {meaning}"
        ) from error
    if several and not isinstance(results, tuple | list):
        raise ValueError(f"{where}: {call} returned one {type(results).__name__}; expected {meaning}")
    results = results if isinstance(results, tuple | list) else (results,)
    came = [None if result is None else np.shape(result) for result in results]
    if len(came) != len(expected) or any(e is not None and c != e for c, e in zip(came, expected, strict=True)):
        raise ValueError(f"{where}: {call} returned shapes {_text(came)}; expected {_text(expected)}: {meaning}")
    for result, shape in zip(results, expected, strict=True):
        if shape is None:
            continue
        if getattr(result, "dtype", None) != dtype:
            kind_of_it = getattr(result, "dtype", type(result).__name__)
            raise ValueError(
                f"{where}: {call} returned {kind_of_it} for {np.dtype(dtype)} arrays; expected arrays of the dtype "
                f"that comes in (np.zeros and np.full take it): {meaning}"
            )
        if not np.isfinite(result).all():
            raise ValueError(f"{where}: {call} returned values that are not finite; expected {meaning}")
    return results


def _numbers(generator, shape, dtype, size=0.1):
    """Return normal numbers of this size that cannot be changed in place."""
    return _locked((size * generator.standard_normal(shape)).astype(dtype))


def _locked(array):
    """Return a view that cannot be written to, so that who changes what it is given fails; on a device, the array."""
    if kind(array) != "numpy":
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _norm(vector):
    return float(np.sqrt((vector.astype(np.float64) ** 2).sum()))


def _text(shapes):
    """Return shapes as text for a message."""
    return ", ".join(map(str, shapes)) or "nothing"


def _is_link(link):
    """Say whether `link` is a class of layers that is made without arguments and has no parameters."""
    if not isinstance(link, type) or not all(hasattr(link, name) for name in ("forward", "backward", "shapes")):
        return False
    try:
        return not link().shapes
    except TypeError:
        return False


def _is_number(value):
    """Say whether `value` is a real number or an array of them, in host memory or on the device."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return dtype.kind in "fiu"


def _is_width(n):
    """Say whether `n` is a whole number that an array can have as its width, which may be 0."""
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0


def _flat(factors):
    """Return what `factors` returns, log q and the list of scores, as one tuple."""
    log_q, scores = factors()
    return log_q, *scores
