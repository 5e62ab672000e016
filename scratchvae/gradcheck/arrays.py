"""Names for the arrays in a container: a dict, a list, a tuple, any nesting of these, or a single array.

The arrays of {"encoder": [{"W": W, "b": b}]} are called encoder[0].W and encoder[0].b. A number in a container is an
array without axes.
"""

import numbers

import numpy as np

from scratchvae.backend import BACKENDS, kind


def named(what, tree, name=""):
    """Return the arrays of a container as a dict by name, in the order of the container.

    what is what messages call the container. What is neither an array, nor a number, nor a container of these raises a
    ValueError. A number becomes an array.
    """
    if isinstance(tree, dict):
        parts = [(f"{name}.{key}" if name else str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        parts = [(f"{name}[{k}]", value) for k, value in enumerate(tree)]
    elif isinstance(tree, numbers.Number | np.generic) and not isinstance(tree, bool):
        return {name or what: np.array(tree)}
    elif kind(tree) in BACKENDS and hasattr(tree, "dtype") and not isinstance(tree, np.matrix | np.ma.MaskedArray):
        return {name or what: tree}
    else:
        where = f"{what} has {name}, which" if name else what
        expected = "expected an array, or a dict or a list of arrays"
        if isinstance(tree, np.matrix | np.ma.MaskedArray):
            expected += ": hand over np.asarray(...)"
        elif kind(tree) == "Tensor":
            expected += ": hand over .detach().numpy(), which shares its memory"
        elif tree is None:
            expected += ": is a return missing, or was there no backward pass yet?" if what == "grads" else ""
        raise ValueError(f"{where} is {type(tree).__name__}; {expected}")
    found = {}
    for key, value in parts:
        for inner, array in named(what, value, key).items():
            if inner in found:
                raise ValueError(f"{what} has two arrays called {inner}: give each a name of its own")
            found[inner] = array
    return found


def rebuilt(tree, arrays):
    """Return a container like `tree` with other arrays in it, which are taken from an iterator in the order of
    `named`."""
    if isinstance(tree, dict):
        return {key: rebuilt(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [rebuilt(value, arrays) for value in tree]
        return parts if isinstance(tree, list) else type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return next(arrays)


def without_prefix(found, names):
    """Return gradients under the names of their arrays where all have a d before these, as dW and db for W and b.

    found   is a dict by name, as `named` returns it; under other names it is returned as it is.
    names   are those of the arrays.
    """
    for before in ("d", "grad_"):
        renamed = {_prefixed(name, before): name for name in names}
        if found.keys() == renamed.keys() and found.keys() != set(names):
            return {renamed[key]: array for key, array in found.items()}
    return found


def _prefixed(name, before):
    """Return a name with letters before its last part: encoder.dW for encoder.W."""
    part, dot, last = name.rpartition(".")
    return f"{part}{dot}{before}{last}"
