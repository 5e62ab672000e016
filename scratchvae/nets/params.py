"""All parameters of a model in one flat vector, their gradients in another; layers hold named windows on both."""

import math
from itertools import pairwise

import numpy as np

from scratchvae.backend import array_module, kind, move, require_memory, writable


class Params:
    """All parameters of a model in one flat vector `value`, and their gradients in another, `grad`.

    Each layer lists its arrays in `layer.shapes`, for instance {"W": (784, 500), "b": (500,)}. They are laid one after
    another in the order of `layers`. Then `layer.W` is a window on `value` and `layer.dW` the same window on `grad`,
    and both are known here as "<layer.name>.W". Whoever writes into a window writes into the flat vector. The two
    vectors lie on `backend`, and with them everything that is computed from them.

    A copy or a pickle holds vectors of its own, and lays its windows anew on the layers that were copied with it.
    ValueError: two arrays have one name. MemoryError: there is no room for them, with how much they take.
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
        drawn = 16 * math.prod(self.windows[largest][1]) if on_host else 0  # initial values, in float64 on the host
        require_memory(2 * size * np.dtype(dtype).itemsize + drawn, backend, what)
        self.value = array_module(backend).zeros(size, dtype)
        self.grad = np.zeros_like(self.value)
        self._lay()

    def _lay(self):
        """Give each layer its windows."""
        for layer, key, name in self.owners:
            setattr(layer, key, self.window(name, self.value))
            setattr(layer, "d" + key, self.window(name, self.grad))

    def __setstate__(self, state):
        self.__dict__.update({name: writable(value) for name, value in state.items()})
        self._lay()

    def window(self, name, vector):
        """The array called `name`, as a view on any flat `vector` laid like `value`."""
        where, shape = self.windows[name]
        return vector[where].reshape(shape)

    def named(self, vector):
        """{name: window} on any flat `vector` laid like `value`: the values, the gradients, an optimiser's state."""
        return {name: self.window(name, vector) for name in self.windows}

    def part(self, prefix):
        """The slice of all arrays whose names begin with `prefix`; they are neighbours, or ValueError is raised."""
        inside = [where for name, (where, _) in self.windows.items() if name.startswith(prefix)]
        if not inside or any(a.stop != b.start for a, b in pairwise(inside)):
            raise ValueError(f"no unbroken run of arrays begins with {prefix!r}; there are {', '.join(self.windows)}")
        return slice(inside[0].start, inside[-1].stop)

    def non_finite(self):
        """The first array with a NaN or an infinity, "encoder.mu.W" or "the gradient of encoder.mu.W", or None."""
        for text, vector in [("{}", self.value), ("the gradient of {}", self.grad)]:
            for name, array in self.named(vector).items():
                if not np.isfinite(array).all():
                    return text.format(name)
        return None

    def initialise(self, init, generator, biases=False, without=()):
        """Draw every weight matrix; biases start at zero, or are drawn too with `biases=True`.

        init is the standard deviation of N(0, init²), 0.01 in section 5 of the paper, or "glorot":
        U(-a, a) with a = √(6 / (n_in + n_out))   (Glorot & Bengio 2010, eq. 16), which is for weights alone.
        The arrays whose names begin with one of `without` are passed over, as if the model did not have them. The
        numbers are drawn on the host in float64, so that one seed gives one model in either precision and on either
        backend. ValueError: an init that is neither, or biases under "glorot".
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
