"""A strict stand-in for CuPy: NumPy arrays in a wrapper that refuses what CuPy refuses, and counts waits and launches.

CuPy's own behaviour, as far as the library can meet it: no implicit conversion to NumPy, no host array in a ufunc, a
function or an assignment, 0-d arrays from reductions, views from slices, `out=` and in-place, and a wait for the device
at every read of a value. Only names that CuPy has are offered (test_cupy.py compares where CuPy is installed).
`install` puts it in CuPy's place for one test.

A launch is anything that a call puts in the device's queue: a kernel, a product by cuBLAS, a copy, a memory set. How
many a call makes is said by `launches_of`; test_cupy.py counts them in CuPy itself. `Calls.log` lists them where a test
asks for it.
"""

import contextlib
import functools
import operator
import os
import sys
import time
import types

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
UFUNCS = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "negative",
    "absolute",
    "sign",
    "sqrt",
    "square",
    "exp",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "cos",
    "sin",
    "maximum",
    "minimum",
    "matmul",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "isfinite",
    "power",
    "right_shift",
    "left_shift",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
]
REDUCED = {"axis", "dtype", "out", "keepdims"}
FUNCTIONS = {  # name: the keywords that CuPy's takes, as far as anybody here should want them
    "concatenate": {"axis", "out", "dtype", "casting"},
    "stack": {"axis", "out", "dtype", "casting"},
    "sum": REDUCED,
    "mean": REDUCED,
    "prod": REDUCED,
    "min": REDUCED - {"dtype"},
    "max": REDUCED - {"dtype"},
    "all": REDUCED - {"dtype"},
    "any": REDUCED - {"dtype"},
    "std": REDUCED | {"ddof"},
    "var": REDUCED | {"ddof"},
    "zeros_like": {"dtype", "order", "shape"},
    "empty_like": {"dtype", "order", "shape"},
    "full_like": {"dtype", "order", "shape"},
    "ones_like": {"dtype", "order", "shape"},
    "where": set(),
    "shape": set(),
    "unique": {"return_index", "return_inverse", "return_counts"},
}
METHODS = {name: FUNCTIONS[name] for name in ("sum", "mean", "prod", "min", "max", "all", "any", "std", "var")}
METHODS |= {"reshape": {"order"}, "ravel": {"order"}, "astype": {"order", "casting", "copy"}, "copy": {"order"}}
METHODS |= {"take": {"axis", "out"}, "swapaxes": set(), "argmax": {"axis"}}
WAITING = {"unique"}  # the size of their result must be read from the device
SCALARS = (bool, int, float, np.generic)
NO_LAUNCH = {"shape", "empty_like"}
SORT = 10  # launches of `unique`: a sort and more
TILE = 1 << 14  # bytes that CUB sums up in one kernel, at 4 or 8 bytes a number; for more it needs a second one
BLOCK = 128  # from so many numbers on CuPy's own kernels need a second one too, where one array is summed up as a whole


class Waits:
    """How often something waited for the device, and how much of its memory has been taken."""

    count = 0
    allowed = True  # see `allow_synchronize`
    free = 1 << 40  # bytes, before anything was made by `zeros`, `asarray` and the like
    taken = 0


class Call:
    """A call that put something in the device's queue, and `launches` times so.

    name       is NumPy's name of what was called.
    given      lists the arguments: (dtype, ndim, bytes) of an array, and the type of a number.
    settings   are the names of the keywords.
    made       is (dtype, ndim, bytes) of the result; a tuple of these where there are several.
    place      names the line of the package that called: (function, file, number).
    """

    def bytes(self):
        """How many bytes are read and written, each array once."""
        return sum(bytes_of(one) for one in (*self.given, self.made))

    def __init__(self, name, given, settings, made, launches):
        self.name = name
        self.given = tuple(told(value) for value in given)
        self.settings = tuple(sorted(settings))
        self.made = told(made)
        self.launches = launches
        self.place = place()


class Calls:
    """`log` lists each `Call` while it is a list; None while nobody asks."""

    log = None

    @classmethod
    def note(cls, name, given, settings, made, launches=1):
        """Note a call that put something in the device's queue."""
        if cls.log is not None and launches and not (isinstance(made, ndarray) and made.size == 0):
            cls.log.append(Call(name, given, settings, made, launches))


@contextlib.contextmanager
def logged():
    """Give the list of what is called inside."""
    before = Calls.log
    Calls.log = []
    try:
        yield Calls.log
    finally:
        Calls.log = before


def told(value):
    """What is noted of an argument or a result."""
    if isinstance(value, ndarray):
        value = value._host
    if isinstance(value, list | tuple):
        return tuple(told(one) for one in value)
    return (value.dtype.name, value.ndim, value.nbytes) if isinstance(value, np.ndarray) else type(value).__name__


def bytes_of(one):
    """The bytes of what `told` has noted, in tuples too."""
    if not isinstance(one, tuple):
        return 0
    return one[2] if len(one) == 3 and isinstance(one[0], str) else sum(map(bytes_of, one))


def place():
    """The innermost line of the package that is at work, as (function, file, number)."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if f"{os.sep}scratchvae{os.sep}" in path and not path.startswith(HERE):
            return frame.f_code.co_name, path.rpartition(f"{os.sep}scratchvae{os.sep}")[2], frame.f_lineno
        frame = frame.f_back
    return "", "", 0


def same_memory(a, b):
    """Whether two arrays are one and the same part of the memory."""
    return a.__array_interface__ == b.__array_interface__


def wait(host):
    Waits.count += 1
    if not Waits.allowed:
        raise DeviceSynchronized("Attempted to synchronize")
    return host


def inner(value):
    """The NumPy array inside; scalars as they are. TypeError for a host array, as CuPy has it."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(inner(item) for item in value)
    if isinstance(value, dict):
        return {key: inner(item) for key, item in value.items()}
    return value


def outer(value):
    """What NumPy returned, on the device: scalars become 0-d arrays."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, list | tuple):
        return type(value)(outer(item) for item in value)
    return value


class ndarray:  # noqa: N801  CuPy's name
    """cupy.ndarray."""

    __module__ = "cupy"
    __hash__ = None

    def __init__(self, host):
        self._host = host

    # What CuPy refuses

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **settings):
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        for value in inputs:
            if not isinstance(value, (ndarray, np.ndarray, *SCALARS)):
                return NotImplemented
        if out is not None:
            (target,) = out
            if not isinstance(target, ndarray):
                raise TypeError(f"Output arguments type must be cupy.ndarray, not {type(target)}")
            ufunc(*inner(inputs), out=target._host, **settings)
            Calls.note(ufunc.__name__, inputs, {"out", *settings}, target, launches_of(ufunc.__name__, inputs))
            return target
        result = outer(ufunc(*inner(inputs), **settings))
        Calls.note(ufunc.__name__, inputs, settings, result, launches_of(ufunc.__name__, inputs))
        return result

    def __array_function__(self, function, kinds, arguments, settings):
        name = function.__name__
        if name not in FUNCTIONS or function.__module__ != "numpy":
            return NotImplemented
        if unknown := settings.keys() - FUNCTIONS[name]:
            raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")
        Waits.count += name in WAITING
        asked = tuple(settings)
        out = settings.pop("out", None)
        if name.endswith("_like"):
            result = made(function(*inner(arguments), **settings))
        elif out is not None:
            function(*inner(arguments), **inner(settings), out=inner(out))
            result = out
        else:
            result = outer(function(*inner(arguments), **inner(settings)))
        if name not in NO_LAUNCH:
            Calls.note(name, arguments, asked, result, launches_of(name, arguments, {**settings, "out": out}))
        return result

    # What waits for the device

    def get(self):
        Calls.note("get", [self], (), self)
        return wait(self._host.copy())

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __index__(self):
        return operator.index(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    __str__ = __repr__

    def __format__(self, text):
        return format(self.get(), text)

    # Elements

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def _key(self, key):
        key = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, np.ndarray | list) for part in key):
            raise TypeError("an index in host memory: CuPy would move it, silently")
        if any(isinstance(part, ndarray) and part.dtype == bool for part in key):
            Waits.count += 1  # how many there are must be read from the device
        key = tuple(inner(part) for part in key)
        return key if any(part is Ellipsis for part in key) else (*key, Ellipsis)  # so that a[0] is a view

    def __getitem__(self, key):
        host = self._host[self._key(key)]
        return self._copied("take", host, [outer(host)])  # as many entries are read as are written

    def __setitem__(self, key, value):
        if not isinstance(value, (ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(value)}")
        key = self._key(key)
        target = self._host[key]
        if isinstance(value, ndarray) and same_memory(value._host, target):
            return  # as after a[k] += b: CuPy sees that there is nothing to do
        self._host[key] = inner(value)
        Calls.note("copyto", [value], (), outer(target))

    def _copied(self, name, host, given, settings=()):
        """A result on the device; it took a launch unless it is a view."""
        result = outer(host)
        if not np.may_share_memory(host, self._host):
            Calls.note(name, given, settings, result, launches_of(name, given, settings))
        return result

    def __deepcopy__(self, memo):
        return ndarray(self._host.copy())


def launches_of(name, given, settings=None):
    """How many launches a function, a method or a ufunc makes on arguments that are not empty."""
    if name in ("concatenate", "stack"):
        settings = dict(settings or {})
        axis = settings.get("axis", given[1] if len(given) > 1 else 0)
        return launches_of_joining(given[0], None if name == "stack" else axis)
    if name == "matmul":
        return launches_of_product(*given[:2])
    if name in ("sum", "prod", "min", "max", "mean", "var", "std", "all", "any"):
        settings = dict(settings or {})
        axis = settings.get("axis", given[1] if len(given) > 1 else None)
        return launches_of_sum(name, given[0], axis, settings.get("out") is not None)
    return SORT if name == "unique" else 1


def launches_of_joining(arrays, axis):
    """A concatenation: up to eight arrays are copied one by one; of more it sends addresses, and sizes if they differ.

    It does so unless they are of 2 MiB and more. axis is the one along which they are joined, None for a new one.
    """
    large = sum(one.nbytes for one in arrays) >= (len(arrays) << 21)
    if len(arrays) <= 8 or large or len({one.dtype for one in arrays}) > 1:
        return sum(one.size > 0 for one in arrays)
    alike = axis is None or len({one.shape[axis] for one in arrays}) == 1
    return 2 if alike and all(one.flags.c_contiguous for one in arrays) else 4


def launches_of_product(a, b):
    """A product: cuBLAS makes it in one launch, and others come before where it does not find what it needs."""
    copies = int(a.dtype != b.dtype)
    if max(a.ndim, b.ndim) <= 2:
        number = a.size == a.shape[-1] and b.size == b.shape[0]
        if number:  # entries are multiplied and summed up, and the sum is copied
            return 3 + (a.nbytes > TILE)
        return 1 + copies
    copies += sum(not one.flags.c_contiguous for one in (a, b))
    several = len(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    again = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) != tuple(map(min, padded(a, several), padded(b, several)))
    return 1 + copies + 3 * several * again  # where a matrix is in several products, addresses of all are listed first


def padded(array, several):
    """The shape of a stack of matrices, with so many axes before the last two."""
    return (1,) * (several + 2 - array.ndim) + array.shape[:-2]


def axes_of(axis, ndim):
    """The set of the axes that `axis` names, counted from 0."""
    if axis is None:
        return set(range(ndim))
    return {k % ndim for k in (axis if isinstance(axis, tuple) else (axis,))}


def launches_of_sum(name, x, axis, into):
    """A sum and the like: CUB makes it where its numbers lie side by side, and else a kernel of CuPy.

    `into` says whether it is to be written into an array that is there, which CUB does by a copy.
    """
    axes = axes_of(axis, x.ndim)
    last = axes == set(range(x.ndim - len(axes), x.ndim)) and x.flags.c_contiguous
    first = axes == set(range(len(axes))) and x.flags.f_contiguous and not x.flags.c_contiguous
    by_cub = (first or last) and (x.dtype.kind == "f" or x.dtype.itemsize == 8)
    launches = 1 + (by_cub and into)
    if len(axes) == x.ndim and (first or last):
        launches += x.nbytes > TILE if by_cub else x.size >= BLOCK
    if name in ("mean", "var", "std"):
        launches += by_cub  # which only sums up; CuPy's own kernel divides too
    return launches + {"var": 2, "std": 3}.get(name, 0)  # the mean's copy, the squares and their sum, and a root


def _properties():
    for name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags"):
        setattr(ndarray, name, property(lambda self, name=name: getattr(self._host, name)))
    ndarray.T = property(lambda self: outer(self._host.T))
    ndarray.data = property(lambda self: types.SimpleNamespace(ptr=self._host.__array_interface__["data"][0]))


def _methods():
    for name in METHODS:

        def method(self, *arguments, _name=name, **settings):
            if unknown := settings.keys() - METHODS[_name]:
                raise TypeError(f"{_name}() got an unexpected keyword argument {min(unknown)!r}")
            host = getattr(self._host, _name)(*inner(arguments), **inner(settings))
            return self._copied(_name, np.asarray(host), [self, *arguments], settings)

        setattr(ndarray, name, method)


OPERATORS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "pow": np.power,
    "matmul": np.matmul,
    "rshift": np.right_shift,
    "lshift": np.left_shift,
    "or": np.bitwise_or,
    "and": np.bitwise_and,
    "xor": np.bitwise_xor,
}
COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _operators():
    for name, ufunc in OPERATORS.items():
        setattr(ndarray, f"__{name}__", lambda self, other, f=ufunc: f(self, other))
        setattr(ndarray, f"__r{name}__", lambda self, other, f=ufunc: f(other, self))
        setattr(ndarray, f"__i{name}__", lambda self, other, f=ufunc: f(self, other, out=self))
    for name, ufunc in COMPARISONS.items():
        setattr(ndarray, f"__{name}__", lambda self, other, f=ufunc: f(self, other))
    ndarray.__neg__ = lambda self: np.negative(self)
    ndarray.__abs__ = lambda self: np.absolute(self)


_properties(), _methods(), _operators()


# Fusing


class Traced:
    """What cupy.fuse hands to a function in place of an argument: it takes operators, and functions of cupy alone.

    `host` is the array or the number inside, and `reduced` says that it came out of the sum, product or extremum that
    may stand at the end of the function. `ended` says that there has been one: from then on only its result is there.
    `axis` is the axis of the last one.
    """

    ended = False
    axis = None

    __module__ = "cupy"
    __hash__ = None
    __array_ufunc__ = None  # NumPy's own functions refuse it, as they refuse those of CuPy

    def __init__(self, host, reduced=False):
        self.host = host
        self.reduced = reduced
        self.written = False
        self.dtype = np.asarray(host).dtype

    def __getattr__(self, name):
        raise AttributeError(f"what a function that is fused was given has no {name}")

    def __bool__(self):
        raise TypeError("Can't cast to bool")

    def astype(self, dtype):
        return Traced(self.host.astype(dtype), self.reduced)


def traced(ufunc, inputs, out=None):
    """Element by element, on what a function that is fused was given."""
    if ufunc.signature is not None:
        raise NotImplementedError(f"{ufunc.__name__} cannot be fused")
    those = [value for value in inputs if isinstance(value, Traced)]
    arrays = [value for value in those if isinstance(value.host, np.ndarray)]
    if not arrays:
        raise TypeError(f"{ufunc.__name__} of numbers alone: cupy.fuse would compute it in float16")
    if any(value.reduced != Traced.ended for value in those):
        raise NotImplementedError("Shape mismatch: what was not summed up is at work after the sum")
    hosts = [value.host if isinstance(value, Traced) else value for value in inputs]
    if out is None:
        return Traced(ufunc(*hosts), arrays[0].reduced)
    ufunc(*hosts, out=out.host)
    out.written = True
    return out


def reduced(name, value, axis=None, **settings):
    """The sum, product or extremum at the end of a function that is fused."""
    if Traced.ended or settings:
        raise NotImplementedError("a function that is fused has one reduction at most, with an axis and nothing else")
    Traced.ended = True
    Traced.axis = axis
    return Traced(np.asarray(getattr(np, name)(value.host, axis=axis)), True)


class Fused:
    """cupy.fuse: it refuses what CuPy refuses, and counts one launch."""

    def __init__(self, function):
        self.function = function
        self.__name__ = function.__name__

    def __call__(self, *arguments):
        if any(isinstance(value, Traced) for value in arguments):
            return self.function(*arguments)  # inside of another one
        if not all(isinstance(value, (ndarray, *SCALARS)) for value in arguments):
            raise TypeError(f"Invalid argument type for {self.__name__}")
        those = [Traced(inner(value)) for value in arguments]
        try:
            results = self.function(*those)
        finally:
            Traced.ended = False
        written = [outer(one.host) for one in those if one.written]
        several = results if isinstance(results, tuple) else () if results is None else (results,)
        shape = np.broadcast_shapes(*[value.shape for value in arguments if isinstance(value, ndarray)])
        ends = any(value.reduced for value in several)
        for value in several:
            if value.reduced != ends:
                raise NotImplementedError("Shape mismatch: what was summed up is returned beside what was not")
            expected = shape
            if ends:  # CuPy sums over an axis of all arguments broadcast together
                expected = tuple(n for k, n in enumerate(shape) if k not in axes_of(Traced.axis, len(shape)))
            if value.host.shape != expected:
                raise NotImplementedError(f"{self.__name__} returns {value.host.shape}; CuPy would return {expected}")
        made = [outer(value.host) for value in several]
        whole = ends and len(arguments) == 1 and made[0].ndim == 0 and arguments[0].flags.c_contiguous
        launches = 2 if whole and arguments[0].size >= BLOCK else 1
        Calls.note(f"fused {self.__name__}", arguments, (), written + made, launches)
        return tuple(made) if isinstance(results, tuple) else made[0] if made else None


def _traced_operators():
    for name, ufunc in OPERATORS.items():
        setattr(Traced, f"__{name}__", lambda self, other, f=ufunc: traced(f, (self, other)))
        setattr(Traced, f"__r{name}__", lambda self, other, f=ufunc: traced(f, (other, self)))
        setattr(Traced, f"__i{name}__", lambda self, other, f=ufunc: traced(f, (self, other), self))
    for name, ufunc in COMPARISONS.items():
        setattr(Traced, f"__{name}__", lambda self, other, f=ufunc: traced(f, (self, other)))
    Traced.__neg__ = lambda self: traced(np.negative, (self,))


def dispatching(name):
    """A function of the module: NumPy's, which dispatches, or while a function is fused one for `Traced`."""
    function = getattr(np, name)

    def called(*arguments, **settings):
        if not any(isinstance(value, Traced) for value in arguments):
            return function(*arguments, **settings)
        if name in UFUNCS:
            return traced(function, arguments, settings.pop("out", None), **settings)
        if name in ("sum", "prod", "min", "max", "all", "any"):
            return reduced(name, *arguments, **settings)
        raise NotImplementedError(f"{name} cannot be fused")

    called.__name__ = name
    return called


_traced_operators()


# The module


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError."""


class Event:
    """cupy.cuda.Event: its times are those of the host, and it is done once somebody has waited for the device."""

    def record(self, stream=None):
        self.time = time.perf_counter()
        self.waits = Device.waits

    @property
    def done(self):
        return Device.waits > self.waits


class Device:
    """cupy.cuda.Device; `used` lists the numbers of those that were taken."""

    used = []  # noqa: RUF012
    waits = 0  # how often somebody has waited

    def __init__(self, number=0):
        self.number = number

    def use(self):
        self.used.append(self.number)

    def synchronize(self):
        Device.waits += 1
        wait(None)


class NCCLBackend:
    """cupyx.distributed.NCCLBackend over MPI: it sums and sends arrays of the stand-in between real processes."""

    def __init__(self, n_devices, rank, use_mpi=False):
        from mpi4py import MPI

        assert use_mpi and (n_devices, rank) == (MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank)
        self.comm = MPI.COMM_WORLD

    def all_reduce(self, in_array, out_array, op="sum"):
        assert op == "sum"
        total = np.zeros_like(in_array._host)
        self.comm.Allreduce(np.ascontiguousarray(in_array._host), total)
        out_array._host[...] = total

    def broadcast(self, in_out_array, root=0):
        sent = np.ascontiguousarray(in_out_array._host)
        self.comm.Bcast(sent, root)
        in_out_array._host[...] = sent


def asarray(value, dtype=None):
    """cupy.asarray: a device array itself, or a copy of host memory."""
    if isinstance(value, ndarray):
        return value if dtype is None else value.astype(dtype)
    result = made(np.array(value, dtype))
    Calls.note("asarray", (), (), result)
    return result


def made(host):
    """A new array on the device; its memory is not given back."""
    Waits.taken += host.nbytes
    return ndarray(host)


def created(name, *arguments, **settings):
    """A new array that is filled on the device."""
    result = made(getattr(np, name)(*arguments, **settings))
    Calls.note(name, arguments, settings, result, launches=0 if name == "empty" else 1)
    return result


def module():
    """A module that stands where `import cupy` looks."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "stand-in"
    cupy.ndarray, cupy.asarray = ndarray, asarray
    for name in ("zeros", "ones", "empty", "arange", "eye"):
        setattr(cupy, name, functools.partial(created, name))
    for name in (*UFUNCS, *FUNCTIONS):
        setattr(cupy, name, dispatching(name))
    cupy.abs = cupy.absolute
    cupy.fuse = lambda: Fused
    pool = types.SimpleNamespace(free_bytes=lambda: 0, total_bytes=lambda: Waits.taken, free_all_blocks=lambda: None)
    cupy.get_default_memory_pool = lambda: pool
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
            getDeviceCount=lambda: 1,
            memGetInfo=lambda: (Waits.free - Waits.taken, 1 << 40),
            getDeviceProperties=lambda device: {
                "name": b"stand-in",
                "totalGlobalMem": 1 << 40,
                "l2CacheSize": 3 << 13,
            },
        ),
        Event=Event,
        Device=Device,
        get_elapsed_time=lambda start, stop: 1e3 * (stop.time - start.time),
    )
    return cupy


class DeviceSynchronized(RuntimeError):  # noqa: N818  CuPy's name
    """cupyx.DeviceSynchronized."""


@contextlib.contextmanager
def allow_synchronize(allow):
    """cupyx.allow_synchronize: with False, whatever waits for the device raises inside."""
    before = Waits.allowed
    Waits.allowed = allow
    try:
        yield
    finally:
        Waits.allowed = before


def modules():
    """What stands where `import cupy`, `cupyx` and `cupyx.distributed` look, by name."""
    cupyx = types.ModuleType("cupyx")
    cupyx.DeviceSynchronized, cupyx.allow_synchronize = DeviceSynchronized, allow_synchronize
    cupyx.distributed = types.ModuleType("cupyx.distributed")
    cupyx.distributed.NCCLBackend = NCCLBackend
    return {"cupy": module(), "cupyx": cupyx, "cupyx.distributed": cupyx.distributed}


def install(monkeypatch):
    """Let `import cupy` find the stand-in for one test; returns `Waits`, its counters set back."""
    for name, there in modules().items():
        monkeypatch.setitem(sys.modules, name, there)
    monkeypatch.setattr("scratchvae.bench.device_clock.WIDTH", 64)  # to block the queue takes no long work here
    monkeypatch.setattr(Device, "used", [])
    monkeypatch.setattr(Waits, "count", 0)
    monkeypatch.setattr(Waits, "free", 1 << 40)
    monkeypatch.setattr(Waits, "taken", 0)
    return Waits
