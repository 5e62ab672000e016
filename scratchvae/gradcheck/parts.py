"""check_layer and check_density: the gradients of a layer, and the partials of a density."""

import copy
import inspect
from dataclasses import replace

import numpy as np

from scratchvae.backend import BACKENDS, kind, move
from scratchvae.gradcheck.check import check_gradients, needed_by
from scratchvae.gradcheck.places import held, is_layer, unclaimed
from scratchvae.gradcheck.report import Report, Row
from scratchvae.nets.params import Params

ACCUMULATED = "accumulated: each call of backward adds the same to it once more. Write dW[...] =, and not dW +="
STREAM = 1001  # the seed alone may well have drawn the inputs already, and a cotangent must not be one of these


def check_layer(layer, *inputs, oracle=None, constants=(), name=None, seed=0, backend="numpy", **settings):
    """Check a copy of a layer with `forward` and `backward`, and return a `Report`, with a row for each array.

    Checked are the gradients of every parameter array and of every input that holds floats. The loss is Σ c ⊙ y with a
    random c; it is never the plain sum of the outputs, whose cotangent is all ones and hides errors that cancel.

    layer      has forward(*inputs), which returns one array or several in a tuple, and backward, which takes the
               gradients of the outputs and returns those of the inputs, None for one that has none. If it has `shapes`,
               such as {"W": (3, 4)}, W and dW are laid as windows and W is drawn here, as a model does. Otherwise each
               array W of floats that it, or a layer in it, holds before the first forward is a parameter if backward
               leaves a gradient for it: dW, grad_W, W_grad, gW, grads["W"] or grads["dW"]. An array without one, with
               which the output changes, is a row that fails. A backward that needs no argument, as that of a loss has
               it, is called without one, and c is 1. If it has zero_grad, that is called before backward.
    inputs     are the arguments of `forward`. Floats are read as float64; integers, such as labels, stay integers and
               have no gradient.
    oracle     is a function (arrays, *inputs) that returns the same outputs, as in `check_gradients`, or None.
    constants  lists the names of arrays that forward reads and that have no gradient, as a mask; none unless given.
    name       is put before the names of the arrays; the name of the layer's class unless given.
    seed       is that of parameters and cotangents, 0 unless given.
    backend    is "numpy", unless given, or "cupy": where the arrays lie and the gradients are computed.
    settings   are those of `check_gradients`: sizes, known, rtol, atol, entries, points.

    An input for which backward returns None, as for a target, is not checked, and the report says so. A backward that
    returns another number of gradients than there are inputs, or None for the first one, raises a ValueError; so do
    gradients of other shapes than their arrays. A layer that has `reads_data` may return None for the first one too.
    """
    if isinstance(layer, type):
        raise ValueError(f"layer is the class {layer.__name__}; expected an object of it, such as {layer.__name__}()")
    title = type(layer).__name__
    if not is_layer(layer):
        raise ValueError(f"layer is {title}, without forward or backward; expected an object that has both")
    generator = np.random.default_rng([seed, STREAM])
    layer = copy.deepcopy(layer)
    of_no_name = "" if hasattr(layer, "name") or hasattr(layer, "layers") else f"{title}."
    laid = _lay(layer, generator, backend)
    inputs = {f"x{k}" if k else "x": _argument(x, backend) for k, x in enumerate(inputs)}
    floats = {key: x for key, x in inputs.items() if x.dtype.kind == "f"}
    before = {key: x.copy() for key, x in inputs.items()}
    places = _in_float64(held(layer))
    if unknown := [key for key in constants if key not in places and not hasattr(layer, key)]:
        raise ValueError(f"constants names {unknown[0]}, which {title} does not hold; it has {', '.join(places)}")
    fresh = copy.deepcopy(layer)
    outputs = _tuple(layer.forward(*inputs.values()))
    if strange := [y for y in outputs if kind(y) not in BACKENDS and not isinstance(y, float | int)]:
        raise ValueError(f"forward of {title} returned {type(strange[0]).__name__}; expected arrays of numbers alone")
    is_loss = not needed_by(layer.backward)
    draw = np.ones if is_loss else generator.standard_normal
    cotangents = [move(np.asarray(draw(np.shape(y))), backend) for y in outputs]
    passed_on = [c.copy() for c in cotangents]
    _zero(layer)
    returned = _backward(layer, passed_on, inputs, title)
    changed = [f"forward or backward changes {key}, its input" for key, x in inputs.items() if _differ(x, before[key])]
    changed += ["backward changes the gradient that is handed to it"] * any(map(_differ, passed_on, cotangents))
    if changed:
        return Report([Row(f"{name or title} forward", False, notes=tuple(changed))])
    read = {key: x for key, x in floats.items() if returned[key] is not None}
    without = [key for key in floats if key not in read]
    if "x" in without and not any(getattr(part, "reads_data", False) for part in _parts(layer)):
        raise ValueError(f"backward of {title} returned None for x; expected the gradient of that input")
    facts = [f"not checked: {key}, of which backward returns no gradient" for key in without]
    own, notes = _own_parameters(layer, fresh, places, inputs, outputs, constants)
    parameters = {**(laid.named(laid.value) if laid else {}), **own}
    unchecked = [Row(key, False, own[key].size if key in own else 1, notes=(note,)) for key, note in notes.items()]
    arrays = {**parameters, **read}
    if not arrays and not unchecked:
        raise ValueError(f"{title} has neither parameters nor inputs of floats; expected something to differentiate by")

    def loss():
        outputs = _tuple(layer.forward(*inputs.values()))
        terms = [(c * y).reshape(-1) for c, y in zip(cotangents, outputs, strict=True)]
        return terms[0] if len(terms) == 1 else np.concatenate(terms)

    def all_gradients():
        _zero(layer)
        layer.forward(*inputs.values())
        returned = _backward(layer, [c.copy() for c in cotangents], inputs, title)
        found = _laid_gradients(laid) if laid else {}
        found |= {key: _gradient(places[key.removeprefix("self.")], array.shape) for key, array in own.items()}
        return {**found, **{key: returned[key] for key in read}}

    accumulated = _accumulated(all_gradients)
    unchecked += [Row(key, False, arrays[key].size, notes=(ACCUMULATED,)) for key in accumulated]
    checked = {key: array for key, array in arrays.items() if key not in accumulated}

    def gradients():
        found = all_gradients()
        return {key: found[key] for key in checked}

    def witness(moved):
        values = {key: move(array, "numpy") for key, array in arrays.items()} | moved
        outputs = _tuple(oracle(values, *(values.get(key, move(x, "numpy")) for key, x in inputs.items())))
        return sum((move(c, "numpy") * y).sum() for c, y in zip(cotangents, outputs, strict=True))

    sizes = {"M": len(inputs["x"])} if "x" in inputs and inputs["x"].ndim > 1 else {}
    of_outputs = {f"y{k}" if k else "y": y for k, y in enumerate(outputs)}
    of_outputs |= {f"d{key}": c for key, c in zip(of_outputs, cotangents, strict=True)}
    settings = {"sizes": sizes, "known": {**of_outputs, **inputs}, **settings}
    report = Report()
    if checked:
        other = witness if oracle else None
        report = check_gradients(loss, checked, gradients, oracle=other, seed=seed, **settings)
    rows = [replace(row, name=row.name.removeprefix(of_no_name)) for row in (*unchecked, *report)]
    return named_after(title if name is None else name, Report(rows, facts + report.facts))


def check_density(density, *arguments, oracle=None, skip=0, without=(), name=None, seed=0, backend="numpy", **settings):
    """Check a function that returns (value, partial, partial, …), and return a `Report` with a row for each partial.

    The loss is Σ c ⊙ value with a random c, or the value itself if it is a single number.

    density     is the function. Its value has one number for each row, or one for each element, as broadcasting gives
                it; a partial is the derivative of the value by its argument, element by element.
    arguments   are those of the function. Floats are read as float64; integers stay integers and have no partial.
    oracle      is a function (*arguments) that returns the same value, as in `check_gradients`, or None.
    skip        is how many of the first arguments have no partial, such as the x of log p(x|…); 0 unless given.
    without     lists the places of others that have none, counted from 0; none unless given.
    name        is put before the names of the partials; the name of the function unless given.
    seed        is that of the cotangent, 0 unless given.
    backend     is "numpy", unless given, or "cupy".
    settings    are those of `check_gradients`: sizes, known, rtol, atol, entries, points.

    Another number of partials than there are arguments for them, and partials of shapes that do not fit, raise a
    ValueError.
    """
    generator = np.random.default_rng([seed, STREAM])
    title = getattr(density, "__name__", type(density).__name__)
    arguments = [_argument(argument, backend) for argument in arguments]
    names = list(inspect.signature(density).parameters)[: len(arguments)]
    names += [f"argument {k}" for k in range(len(names), len(arguments))]
    differentiated = [k for k, a in enumerate(arguments) if k >= skip and k not in without and a.dtype.kind == "f"]
    arrays = {f"∂{names[k]}": arguments[k] for k in differentiated}

    def value_and_partials():
        result = density(*arguments)
        if not isinstance(result, tuple | list):
            raise ValueError(f"{title} returned {type(result).__name__}; expected (value, partial, …)")
        value, *partials = result
        if len(partials) == 1 < len(arrays) and isinstance(partials[0], tuple | list):  # (value, (partial, partial))
            partials = partials[0]
        partials = [p for p in partials if p is not None]
        if len(partials) != len(arrays) or any(isinstance(p, dict) for p in partials):
            integers = ", ".join(name for name, a in zip(names, arguments, strict=True) if a.dtype.kind != "f")
            raise ValueError(
                f"{title} returned {len(partials)} partials for {len(arrays)} arguments ({', '.join(arrays)}); "
                "expected (value, partial, …), one for each: skip= says how many of the first arguments have none"
                + (f"; {integers} is given in integers, and has none" if integers else "")
            )
        return np.asarray(value) if isinstance(value, float | int) else value, partials

    value, _ = value_and_partials()
    draw = generator.standard_normal if np.shape(value) else np.ones  # a single number is checked as it is
    cotangent = move(np.asarray(draw(np.shape(value))), backend)
    weight = cotangent
    largest = max((a for a in arguments if a.dtype.kind == "f"), key=lambda a: a.ndim, default=cotangent)
    if value.ndim < largest.ndim and _is_one_for_each_row(density, arguments, largest, value):
        weight = cotangent.reshape(cotangent.shape + (1,) * (largest.ndim - cotangent.ndim))

    def gradients():
        _, partials = value_and_partials()
        return {key: _weighted(title, key, weight, p, arrays[key]) for key, p in zip(arrays, partials, strict=True)}

    def witness(found):
        read = [move(argument, "numpy") for argument in arguments]
        for k, key in zip(differentiated, arrays, strict=True):
            read[k] = found[key]
        return (move(cotangent, "numpy") * oracle(*read)).sum()

    def loss():
        return cotangent * density(*arguments)[0]

    sizes = {"M": len(arguments[-1])} if arguments and arguments[-1].ndim > 1 else {}
    settings = {"sizes": sizes, "known": dict(zip(names, arguments, strict=True)), **settings}
    report = check_gradients(loss, arrays, gradients, oracle=witness if oracle else None, seed=seed, **settings)
    return named_after(title if name is None else name, report)


def named_after(name, report):
    """Return a report whose rows have `name` before their own."""
    prefix = f"{name} " if name else ""
    return Report([replace(row, name=prefix + row.name) for row in report], report.facts)


def _argument(value, backend):
    """Return an argument as an array on a backend: floats in float64, integers as they are."""
    array = np.array(move(value, "numpy") if kind(value) == "cupy" else value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"an argument holds {array.dtype}; expected real numbers or integers")
    if not np.isfinite(array).all():
        raise ValueError("an argument has NaN or infinite entries; expected finite numbers")
    return move(array.astype(np.float64) if array.dtype.kind == "f" else array, backend)


def _is_one_for_each_row(density, arguments, largest, value):
    """Say whether a value with fewer axes than the largest argument belongs to the first axes of this, not to the last.

    Where the shape allows both, as with a square array, its first row is moved: if the value changes in its first entry
    alone, there is one for each row.
    """
    shape = np.shape(value)
    if not shape or largest.shape[: len(shape)] != shape:
        return False
    if largest.shape[-len(shape) :] != shape:
        return True
    moved = largest.copy()
    moved[0] = np.where(moved[0] == 0, 1e-3, 1.001 * moved[0])
    moved = [moved if argument is largest else argument for argument in arguments]
    return not _differ(density(*moved)[0][1:], value[1:])


def _weighted(title, key, weight, partial, argument):
    """Return the gradient of Σ c ⊙ value with respect to an argument, from the partial of the value.

    `weight` is c, with axes of length 1 for those over which the value has been summed. Where the argument was
    broadcast, the sum over what it was broadcast to is taken.
    """
    shape = np.shape(partial)
    try:
        product = weight * partial
        extra = product.ndim - argument.ndim
        axes = [k for k in range(product.ndim) if k < extra or (argument.shape[k - extra] == 1 < product.shape[k])]
        return product.sum(axis=tuple(axes)).reshape(argument.shape)
    except ValueError:
        raise ValueError(
            f"partial {key} of {title} has the shape {shape}; its argument has {argument.shape} and the value "
            f"{np.squeeze(weight).shape}: expected the shape of the argument, or that of the value"
        ) from None


# Layers


def _parts(layer):
    return getattr(layer, "layers", [layer])


def _lay(layer, generator, backend):
    """Lay the windows of a layer that names its parameters in `shapes`, and draw them; return the `Params`, or None."""
    parts = _parts(layer)
    if not any(getattr(part, "shapes", None) for part in parts):
        return None
    for part in parts:
        part.shapes = getattr(part, "shapes", {})
        part.name = getattr(part, "name", type(part).__name__)
    params = Params(parts, np.float64, backend)
    params.value[...] = move(generator.standard_normal(params.value.size), backend)
    for part in parts:
        for key, array in vars(part).items():
            if key not in part.shapes and kind(array) == backend and kind(getattr(part, "d" + key, None)) == backend:
                raise ValueError(f"{part.name} has {key} and d{key}, but its shapes does not name {key}: not checked")
    return params


def _in_float64(places):
    """Let all arrays that a layer holds be in float64; return where they lie, without those in a tuple."""
    for where in places.values():
        array = where[0].get()
        if getattr(array, "dtype", None) == np.float32 or getattr(array, "dtype", None) == np.float16:
            array = array.astype(np.float64)
            for place in where:
                place.put(array)
    return places


def _own_parameters(layer, fresh, places, inputs, outputs, constants):
    """Return the parameters that a layer without `shapes` holds, by name, and what is wrong with others, by name.

    A parameter is an array that was there before the first forward, and for which there is a gradient now. What the
    layer computes anew at each call, such as its output in self.y, is none.

    layer     has been through forward and backward.
    fresh     is the same layer before that.
    places    is where it holds its arrays.
    """
    gradients = {key: _gradient(where, np.shape(where[0].get())) for key, where in places.items()}
    taken = {id(gradient) for gradient in gradients.values()}
    parameters = {}
    notes = {}
    of_fresh = held(fresh)
    for key, where in places.items():
        array = where[0].get()
        before = of_fresh[key][0].get()
        name = f"self.{key}" if key in inputs else key
        if id(array) in taken or key in constants:
            continue
        same = np.shape(array) == np.shape(before) and not _differ(np.asarray(array), np.asarray(before))
        if same and gradients[key] is not None:
            if isinstance(array, float):
                array = np.array(array)
                where[0].put(array)
            parameters[name] = array
        elif not isinstance(array, float) and _reads(fresh, key, inputs, outputs):
            wanted = ", ".join(dict.fromkeys(str(place.path[-1]) for place in where[0].gradients()))
            notes[name] = (
                f"{key} is read by forward, and no gradient of it was found (looked for {wanted}, and in grads); "
                f"if it is none that has one, say constants=[{key!r}]"
                if same
                else f"forward or backward changes {key}, which forward reads"
            )
    known = {id(g) for where in places.values() for place in where if (g := place.gradient(())) is not None}

    def moved():
        other = copy.deepcopy(layer)
        try:
            with np.errstate(all="ignore"):
                other.forward(*(1.5 * x + 0.1 if x.dtype.kind == "f" else np.roll(x, 1) for x in inputs.values()))
        except Exception:  # whatever a layer says of numbers that it was not made for
            return fresh
        return other

    for key, sentence in unclaimed(layer, fresh, taken | known, moved).items():
        if not {key, f"d{key}", f"grad_{key}", f"{key}_grad"} & {*inputs, *constants, *parameters}:
            notes[key] = sentence
    return parameters, notes


def _reads(fresh, key, inputs, outputs):
    """Say whether the outputs of a layer change if the array `key` is moved a little before forward.

    Of a layer that is random nothing can be said, and nothing is.
    """
    moved = copy.deepcopy(fresh)
    array = held(moved)[key][0].get()
    size = float(np.abs(array).max(initial=0)) or 1.0
    array += 1e-3 * size * move(np.random.default_rng(0).standard_normal(array.shape), kind(array))
    with np.errstate(all="ignore"):
        again, other = (_tuple(one.forward(*inputs.values())) for one in (copy.deepcopy(fresh), moved))
    return not any(map(_differ, outputs, again)) and any(map(_differ, outputs, other))


def _gradient(places, shape):
    """Return the gradient of an array, or None: the sum of those in all parts that hold it."""
    parts = {id(place.part): place for place in reversed(places)}
    found = {id(g): g for g in (place.gradient(shape) for place in parts.values()) if g is not None}
    return sum(list(found.values())[1:], next(iter(found.values()))) if found else None


def _zero(layer):
    """Call zero_grad, which a layer that adds up its gradients by design has."""
    if callable(getattr(layer, "zero_grad", None)):
        layer.zero_grad()


def _accumulated(gradients):
    """Return the names of the gradients that grow by the same amount at each call with the same arrays."""
    first, second, third = ({key: _copied(g) for key, g in gradients().items()} for _ in range(3))
    found = []
    for key in first:
        if np.shape(first[key]) == np.shape(second[key]) == np.shape(third[key]):
            one = second[key] - first[key]
            other = third[key] - second[key]
            small = 1e-9 * np.abs(third[key]).max()
            if np.abs(one).max() > small and np.abs(one - other).max() <= small:
                found.append(key)
    return found


def _copied(gradient):
    return np.array(move(gradient, "numpy") if kind(gradient) in BACKENDS else gradient)


def _laid_gradients(laid):
    """Return the gradients of the parameters that were laid here, by name.

    A backward that assigns self.dW = … leaves the window that it should write into; what it assigned is taken.
    """
    return {name: getattr(part, "d" + key) for part, key, name in laid.owners}


def _backward(layer, cotangents, inputs, title):
    """Return what backward returns, by the names of the inputs.

    It is called with the gradients of all outputs, with a tuple of them if it needs one argument, and without one if it
    needs none.
    """
    needed = needed_by(layer.backward)
    if not needed:
        returned = layer.backward()
    elif len(needed) == len(cotangents) or needed[0].startswith("*"):
        returned = layer.backward(*cotangents)
    elif len(needed) == 1:
        returned = layer.backward(tuple(cotangents))
    else:
        raise ValueError(
            f"backward of {title} needs {len(needed)} arguments, {', '.join(needed)}; expected one for each of the "
            f"{len(cotangents)} outputs of forward: its gradient"
        )
    if isinstance(returned, dict):
        raise ValueError(
            f"backward of {title} returned a dict with {', '.join(map(str, returned))}; expected the gradients of the "
            f"inputs ({', '.join(inputs)}), those of the parameters being kept, as in self.dW"
        )
    returned = _tuple(returned)
    floats = [key for key, x in inputs.items() if x.dtype.kind == "f"]
    first = floats if needed else floats[:1]  # a loss has the gradient of what is predicted, and none of its target
    for keys in (list(inputs), floats, first):
        if len(returned) == len(keys):
            return dict.fromkeys(inputs) | dict(zip(keys, returned, strict=True))
    raise ValueError(
        f"backward of {title} returned {len(returned)} gradients for {len(inputs)} inputs ({', '.join(inputs)}); "
        "expected one for each, those of the parameters being kept, as in self.dW"
    )


def _differ(one, other):
    return not np.array_equal(move(one, "numpy"), move(other, "numpy"))


def _tuple(outputs):
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
