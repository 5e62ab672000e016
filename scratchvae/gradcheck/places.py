"""Where a layer of anybody's holds its parameters, and where it leaves their gradients.

A layer is looked through before it is used: its attributes, the dicts, lists and tuples in them, and all objects in
these that have forward and backward themselves, or hold an array beside its gradient, as in .data and .grad. So the
array of self.fc.W is called fc.W, and that of self.layers[0].params["W"] is called layers[0].W.
"""

import re
from dataclasses import dataclass

import numpy as np

from scratchvae.backend import BACKENDS, kind

FORMS = ("d{}", "grad_{}", "{}_grad", "g{}")  # how the gradient of an array is called
HOLDERS = ("data", "value", "val", "v")  # how an array is called in an object or a dict that has its gradient in grad
PARAMETER = re.compile(r"W\w*|[bw]\d*|bias\d*|weights?\d*|gamma|beta|kernel")  # a name that speaks for itself


@dataclass(frozen=True)
class Place:
    """Where an array lies: `part` is the object that holds it, and `path` leads there, an attribute and then keys."""

    part: object
    path: tuple

    def get(self):
        """Return what lies there, or None if there is nothing."""
        try:
            value = getattr(self.part, self.path[0])
            for key in self.path[1:]:
                value = value[key]
        except (AttributeError, LookupError, TypeError):
            return None
        return value

    def put(self, value):
        """Let another array lie there."""
        if len(self.path) == 1:
            setattr(self.part, self.path[0], value)
        else:
            Place(self.part, self.path[:-1]).get()[self.path[-1]] = value

    def gradients(self):
        """Yield the places where the gradient may be: dW, grad_W, W_grad or gW in place of W, or in a dict or list
        `grads`."""
        names = [key for key in self.path if isinstance(key, str)]
        for form in FORMS:
            for k, key in enumerate(self.path):
                if isinstance(key, str):
                    yield Place(self.part, (*self.path[:k], form.format(key), *self.path[k + 1 :]))
            yield Place(self.part, (form.format(names[-1]),))
        beside = self.path[1:] if self.path[0] == "params" else self.path
        yield Place(self.part, ("grads", *beside))
        for form in FORMS:
            yield Place(self.part, ("grads", form.format(names[-1])))
        if self.path[-1] in HOLDERS:
            yield Place(self.part, (*self.path[:-1], "grad"))

    def gradient(self, shape):
        """Return the gradient that lies in one of these places, the first of this shape if there is one; or None."""
        found = [place.get() for place in self.gradients()]
        found = [value for value in found if _is_number(value)]
        return next((value for value in found if np.shape(value) == shape), found[0] if found else None)


def held(layer):
    """Return a dict of the float arrays that a layer holds, by name: the list of the places where each one lies.

    Parts that name their parameters in `shapes` are left out. A plain float such as self.slope is one of them.
    """
    places = {}
    for name, place in _walk(layer, "", set()):
        places.setdefault(_key(place), (name, []))[1].append(place)
    found = {}
    for name, where in places.values():
        short = name.replace("params.", "")
        found[name if short in found else short] = where
    return found


def _key(place):
    """Return what tells one array from another: the object itself, and for a plain float its place."""
    value = place.get()
    return (id(place.part), place.path) if isinstance(value, float) else id(value)


def _walk(part, name, seen):
    """Yield (name, place) for all arrays of an object and of the layers in it."""
    if id(part) in seen:
        return
    seen.add(id(part))
    for key, value in _attributes(part).items():
        if not getattr(part, "shapes", None) or kind(value) not in (*BACKENDS, "float"):
            yield from _inside(part, (key,), f"{name}.{key}" if name else key, value, seen)


def _attributes(part):
    """Return the attributes of an object by name, those in __slots__ too."""
    slots = [getattr(one, "__slots__", ()) for one in type(part).__mro__]
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    names += getattr(part, "__dict__", {})
    return {name: getattr(part, name) for name in names if not name.startswith("__") and hasattr(part, name)}


def _inside(part, path, name, value, seen):
    """Yield (name, place) for all arrays in an attribute."""
    if _is_number(value):
        yield name, Place(part, path)
    elif isinstance(value, dict):
        holder = next((key for key in HOLDERS if key in value), None) if "grad" in value else None
        for key, inner in value.items():
            if holder is not None and key in HOLDERS and key != holder:
                continue  # beside an array and its gradient, what an optimiser keeps of it
            yield from _inside(part, (*path, key), f"{name}.{key}", inner, seen)
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            yield from _inside(part, (*path, k), f"{name}[{k}]", inner, seen)
    elif is_layer(value):
        yield from _walk(value, name, seen)
    elif hasattr(value, "grad"):
        key = next((key for key in HOLDERS if _is_number(getattr(value, key, None))), None)
        if key is not None:
            yield name, Place(value, (key,))


def _is_number(value):
    """Say whether a value is an array of floats, or a float."""
    return isinstance(value, float) or (kind(value) in BACKENDS and hasattr(value, "dtype") and value.dtype.kind == "f")


def is_layer(value):
    """Say whether an object has forward and backward."""
    return all(callable(getattr(value, name, None)) for name in ("forward", "backward")) and not isinstance(value, type)


def unclaimed(layer, fresh, taken, moved):
    """Return {name: sentence} for gradients of parameters that backward has left, and whose array was not found.

    layer   has been through forward and backward.
    fresh   is the same layer before that.
    taken   is a set of the ids of the gradients whose arrays are known.
    moved   is a function that returns the layer after forward with other inputs: a parameter is the same there.
    """
    sentences = {}
    for k, (part, before) in enumerate(zip(*map(_layers_in, (layer, fresh)), strict=False)):
        now = _attributes(part) if not getattr(part, "shapes", None) else {}
        for name, value in now.items():
            of = next((m[1] for form in FORMS[:3] if (m := re.fullmatch(form.format(r"(\w+)"), name))), None)
            if of is None or not PARAMETER.fullmatch(of) or kind(value) not in BACKENDS or id(value) in taken:
                continue
            if hasattr(before, name) and not _changes(value, before, name):
                continue  # backward has not left it
            if kind(getattr(type(part), of, None)) in BACKENDS:
                sentences[of] = f"{of} belongs to the class, and so to all its objects: set self.{of} in __init__"
            elif of not in now:
                sentences[of] = f"backward leaves {name}, and the layer holds no {of}: set self.{of} in __init__"
            elif hasattr(before, of) and kind(now[of]) in BACKENDS and now[of].dtype.kind in "iub":
                sentences[of] = f"{of} holds {now[of].dtype}, which cannot be moved a little: make it one of floats"
            elif not hasattr(before, of) and not _changes(now[of], dict(enumerate(_layers_in(moved()))).get(k), of):
                sentences[of] = f"{of} is made in forward, and is not there before: make it in __init__"
    return sentences


def _changes(array, moved, name):
    """Say whether an array is another one in another state of its layer."""
    return not np.array_equal(array, getattr(moved, name, None))


def _layers_in(layer):
    """Return a layer and all layers in it, in the order in which they are found."""
    seen = {}
    for _, place in _walk(layer, "", set()):
        seen.setdefault(id(place.part), place.part)
    return list({id(layer): layer, **seen}.values())
