"""Keeps all parameters of a model in one flat vector and their gradients in another, on which layers have windows."""

import math
from itertools import pairwise

import numpy as np

from scratchvae.backend import array_module, kind, move, require_memory, writable


class Params:
    """All parameters of a model in one flat vector `value`, and their gradients in another, `grad`.

    Each layer lists its arrays in `layer.shapes`, for instance {"W": (784, 500), "b": (500,)}. They are laid one after
    another in the order of `layers`. Then `layer.W` is a window on `value` and `layer.dW` the same window on `grad`,
    and both are known here as "<layer.name>.W". Whoever writes into a window writes into the flat vector.

    layers    lists the layers.
    dtype     is the type of both vectors, float32 unless given; take float64 to check gradients.
    backend   is "numpy", unless given, or "cupy": where the vectors lie, and with them everything that is computed from
              them.

    A copy or a pickle holds vectors of its own, and lays its windows anew on the layers that were copied with it. If
    two arrays have one name, a ValueError is raised. If there is no room for the vectors, a MemoryError says how much
    they take.
    """

    def __init__(self, layers, dtype=np.float32, backend="numpy"):
        self.windows = {}  # name -> (slice of the flat vector, shape)
        self.owners = []  # (layer, key, name) of each window
        size = 0
        for layer in layers:
            for key, shape in layer.shapes.items():
                stop = size + math.prod(shape)
                name = f"{layer.name}.{key}"
                if name in self.windows:
                    raise ValueError(f"two arrays are called {name}: give each layer its own name")
                self.windows[name] = slice(size, stop), shape
                self.owners.append((layer, key, name))
                size = stop
        largest = max(self.windows, key=lambda name: math.prod(self.windows[name][1]), default=None)
        what = f"{size:,} parameters, the largest array being {largest} {self.windows[largest][1]}," if largest else ""
        on_host = backend == "numpy" and largest
        drawn = 16 * math.prod(self.windows[largest][1]) if on_host else 0  # initial values are drawn in float64 there
        require_memory(2 * size * np.dtype(dtype).itemsize + drawn, backend, what)
        self.value = array_module(backend).zeros(size, dtype)
        self.grad = np.zeros_like(self.value)
        self._lay()

    def _lay(self):
        """Assign to each layer its windows."""
        for layer, key, name in self.owners:
            setattr(layer, key, self.window(name, self.value))
            setattr(layer, "d" + key, self.window(name, self.grad))

    def __setstate__(self, state):
        self.__dict__.update({name: writable(value) for name, value in state.items()})
        self._lay()

    def lay_on(self, value, grad):
        """Move the parameters and their gradients into these two flat vectors, and lay the windows anew on them."""
        value[...] = self.value
        grad[...] = self.grad
        self.value = value
        self.grad = grad
        self._lay()

    def window(self, name, vector):
        """Return the array called `name` as a view on any flat `vector` that is laid like `value`."""
        where, shape = self.windows[name]
        return vector[where].reshape(shape)

    def named(self, vector):
        """Return all windows on a flat `vector` that is laid like `value`, as a dict by name.

        The vector may hold the values, the gradients or an optimiser's state.
        """
        return {name: self.window(name, vector) for name in self.windows}

    def part(self, prefix):
        """Return the slice of the flat vector in which all arrays lie whose names begin with `prefix`.

        If there are none, or if other arrays lie between them, a ValueError is raised.
        """
        inside = [where for name, (where, _) in self.windows.items() if name.startswith(prefix)]
        if not inside or any(a.stop != b.start for a, b in pairwise(inside)):
            raise ValueError(f"no unbroken run of arrays begins with {prefix!r}; there are {', '.join(self.windows)}")
        return slice(inside[0].start, inside[-1].stop)

    def non_finite(self):
        """Return the name of the first array with a NaN or an infinity, or None.

        The name is a text like "encoder.mu.W" or "the gradient of encoder.mu.W".
        """
        for text, vector in [("{}", self.value), ("the gradient of {}", self.grad)]:
            for name, array in self.named(vector).items():
                if not np.isfinite(array).all():
                    return text.format(name)
        return None

    def initialise(self, init, generator, biases=False, without=()):
        """Draw every weight matrix from N(0, init²), or as `init` says.

        init        is the standard deviation, 0.01 in section 5 of Kingma & Welling, "Auto-Encoding Variational Bayes",
                    or "glorot", for U(-a, a) with a = √(6 / (n_in + n_out)) (Glorot & Bengio 2010, "Understanding the
                    difficulty of training deep feedforward neural networks", eq. 16).
        generator   is NumPy's. It draws on the host in float64, so that one seed gives one model in either precision
                    and on either backend.
        biases      says whether biases are drawn too, from N(0, init²). Unless given they start at zero.
        without     lists beginnings of names. The arrays that have them are passed over, as if the model did not have
                    them.

        An init that is neither, and biases with "glorot", raise a ValueError.
        """
        glorot = isinstance(init, str) and init == "glorot"
        number = isinstance(init, int | float | np.floating) and not isinstance(init, bool)
        if not glorot and not (number and 0 < init < np.inf):
            raise ValueError(f"init is {init!r}; expected a standard deviation > 0 such as 0.01, or 'glorot'")
        if glorot and biases:
            raise ValueError(
                "biases are drawn with a standard deviation; 'glorot' has none for them: leave them at zero"
            )
        for name, array in self.named(self.value).items():
            if name.startswith(tuple(without)):
                continue
            if array.ndim == 2 and glorot:
                limit = np.sqrt(6 / sum(array.shape))
                drawn = generator.uniform(-limit, limit, array.shape)
            elif array.ndim == 2 or biases:
                drawn = init * generator.standard_normal(array.shape)
            else:
                drawn = np.zeros(array.shape)
            array[...] = move(drawn.astype(array.dtype), kind(array))
