"""A strict stand-in for CuPy: NumPy arrays in a wrapper that refuses what CuPy refuses and counts what waits.

CuPy's own behaviour, as far as the library can meet it: no implicit conversion to NumPy, no host array in a ufunc, a
function or an assignment, 0-d arrays from reductions, views from slices, `out=` and in-place, and a wait for the device
at every read of a value. Only names that CuPy has are offered (test_backend.py compares where CuPy is installed).
`install` puts it in CuPy's place for one test.
"""

import operator
import sys
import time
import types

import numpy as np

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
METHODS |= {"take": {"axis", "out"}, "swapaxes": set()}
WAITING = {"unique"}  # the size of their result must be read from the device
SCALARS = (bool, int, float, np.generic)


class Waits:
    """How often something waited for the device, and how much of its memory has been taken."""

    count = 0
    free = 1 << 40  # bytes, before anything was made by `zeros`, `asarray` and the like
    taken = 0


def wait(host):
    Waits.count += 1
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
            return target
        return outer(ufunc(*inner(inputs), **settings))

    def __array_function__(self, function, kinds, arguments, settings):
        name = function.__name__
        if name not in FUNCTIONS or function.__module__ != "numpy":
            return NotImplemented
        if unknown := settings.keys() - FUNCTIONS[name]:
            raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")
        Waits.count += name in WAITING
        out = settings.pop("out", None)
        if name.endswith("_like"):
            return made(function(*inner(arguments), **settings))
        if out is not None:
            function(*inner(arguments), **inner(settings), out=inner(out))
            return out
        return outer(function(*inner(arguments), **inner(settings)))

    # What waits for the device

    def get(self):
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
        return outer(self._host[self._key(key)])

    def __setitem__(self, key, value):
        if not isinstance(value, (ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(value)}")
        self._host[self._key(key)] = inner(value)

    def __deepcopy__(self, memo):
        return ndarray(self._host.copy())


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
            return outer(getattr(self._host, _name)(*inner(arguments), **inner(settings)))

        setattr(ndarray, name, method)


def _operators():
    for name, ufunc in {
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
    }.items():
        setattr(ndarray, f"__{name}__", lambda self, other, f=ufunc: f(self, other))
        setattr(ndarray, f"__r{name}__", lambda self, other, f=ufunc: f(other, self))
        setattr(ndarray, f"__i{name}__", lambda self, other, f=ufunc: f(self, other, out=self))
    for name, ufunc in {
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
    }.items():
        setattr(ndarray, f"__{name}__", lambda self, other, f=ufunc: f(self, other))
    ndarray.__neg__ = lambda self: np.negative(self)
    ndarray.__abs__ = lambda self: np.absolute(self)


_properties(), _methods(), _operators()


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
    return made(np.array(value, dtype))


def made(host):
    """A new array on the device; its memory is not given back."""
    Waits.taken += host.nbytes
    return ndarray(host)


def module():
    """A module that stands where `import cupy` looks."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "stand-in"
    cupy.ndarray, cupy.asarray = ndarray, asarray
    for name in ("zeros", "ones", "empty", "arange", "eye"):
        setattr(cupy, name, lambda *a, _name=name, **k: made(getattr(np, _name)(*a, **k)))
    for name in (*UFUNCS, *FUNCTIONS):
        setattr(cupy, name, getattr(np, name))  # they dispatch
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
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


def install(monkeypatch):
    """Let `import cupy` find the stand-in for one test; returns `Waits`, its counters set back."""
    monkeypatch.setitem(sys.modules, "cupy", module())
    monkeypatch.setitem(sys.modules, "cupyx", types.ModuleType("cupyx"))
    monkeypatch.setitem(sys.modules, "cupyx.distributed", types.ModuleType("cupyx.distributed"))
    sys.modules["cupyx.distributed"].NCCLBackend = NCCLBackend
    monkeypatch.setattr(Device, "used", [])
    monkeypatch.setattr(Waits, "count", 0)
    monkeypatch.setattr(Waits, "free", 1 << 40)
    monkeypatch.setattr(Waits, "taken", 0)
    return Waits
