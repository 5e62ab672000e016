"""Takes a training step on the device apart into its operations, and times each of them by itself.

The parameters, the gradients, the minibatch and the noise are given to one step as `DeviceArray`, a wrapper around a
device array, and so is everything that comes from them. It hands each operation on to CuPy with the device arrays
inside, just as the line of the source would have done without the wrapper, and keeps a `Call` of it: the function and
its arguments, and which line, layer and phase it is of. The step has the same bits and reads nothing from the device. A
view is no operation, since it puts no work in the device's queue.

Then each call is made again many times, and `DeviceClock` tells what it takes: `ms` is the device's own time, taken
while the queue is kept full, and `launch_ms` the host's time to put it in the queue. Both hold for a call that is
repeated, so that what it reads lies in the L2 cache if it fits there; between two kernels the device needs a
microsecond or so, which is part of `ms`. A call that works in place works on its own results when it is repeated, and
these may overflow. That changes no time, and nobody reads them.

The operations, their bytes and flops are those of profiling.py. Where the profile of a device differs from NumPy's:

- a method such as a.sum() has its own name, where NumPy calls add.reduce;
- an operation of CuPy is one call, where NumPy has several for a.mean(), or takes a long vector in blocks;
- what only makes a view, or a tuple of a shape, is left out, whether it is a method or a function such as np.shape.

A captured step keeps all its arrays, and so takes several times the memory of a step.
"""

import contextlib
import copy
import functools
import operator
import time

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import array_module, move
from scratchvae.bench.device_clock import DeviceClock
from scratchvae.bench.machines import blas_limited, machine
from scratchvae.bench.measuring import plain, steps_in_a_round
from scratchvae.bench.peaks import device_bandwidth, device_sizes, peak_gflops
from scratchvae.bench.profiling import (
    Note,
    arrays,
    at_work,
    flops_of_function,
    flops_of_ufunc,
    n_bytes,
    place_of,
    read_by_function,
    summed,
    watched_step,
    where,
)
from scratchvae.bench.workloads import minibatches, training_step
from scratchvae.training.loop import progress_bar

CALLS_MS = 1.0  # about how long the calls that are timed in a row take, on the host or on the device
MOST_CALLS = 50  # in a row; the queue of a device has room for about a thousand kernels
LEAST_CALLS = 3
MOVING = ("astype", "copy", "reshape", "ravel", "flatten", "take")  # methods that only move as many numbers as result


def profile(workload, repeats=10, progress=None):
    """Take the training step of a workload on the device apart and return a dict that JSON can hold.

    It has the form of what `profiling.profile` returns, and these numbers mean something else or are there besides:

    operations   have as "ms" the device's own time, the lower quartile over the rounds, and as "launch_ms" what it
                 takes the host to put their calls in the device's queue.
    step_ms      is what a step takes where many are made in a row, with one wait at their end. It is the mean over the
                 fast quarter of the rounds.
    launch_ms    is what it takes the host to queue a whole step that nobody watches. It is more than the sum over the
                 operations, since the interpreter and the views are part of it.
    device_ms    is what the device works on a whole step that is in its queue already. Where launch_ms is the larger of
                 the two, launching limits the step, and otherwise the device does.
    share        is "ms" over "step_ms", as with NumPy. So the shares say how much of the step the device is at work.
    between_ms   is what the operations leave of step_ms: the time in which the device waits for the host to launch. If
                 the device limits the step it is about zero, and it may be below.
    peaks        has in "cache_gb_s" the bandwidth of arrays in the device's L2 cache, and in "memory_gb_s" that of
                 arrays in its memory.
    not_ahead    lists the places of operations for which the host was not ahead of the device (see `DeviceClock`), so
                 that their "ms" may be too long.

    workload   is the `Workload`, whose backend is "cupy". A CuPy that is not there raises a ValueError.
    repeats    is the number of rounds, 10 unless given. Each goes through all calls.
    progress   True shows a bar on stderr, False none, and None one on a terminal only.
    """
    repeats = whole("repeats", repeats)
    facts = machine(["numpy", "cupy"])
    with blas_limited(workload.threads):
        peaks = {"gflops": peak_gflops("cupy", workload.dtype)}
        clock = DeviceClock()
        for name, size in zip(("cache_gb_s", "memory_gb_s"), device_sizes(), strict=True):
            peaks[name] = device_bandwidth(workload.dtype, size, clock)
        x = [move(batch, "cupy") for batch in minibatches(workload)]
        step = training_step(workload)
        calls = captured(workload, x[0])
        t = 0

        def steps(count):
            """Make so many steps and return the milliseconds that one of them takes, with its share of the wait."""
            nonlocal t
            clock.finish()
            begun = time.perf_counter()
            for _ in range(count):
                step(t, x[t % len(x)])
                t += 1
            clock.finish()
            return 1e3 * (time.perf_counter() - begun) / count

        with progress_bar(repeats, 0, progress, unit=" rounds") as bar, np.errstate(all="ignore"):
            steps(3)
            count = steps_in_a_round(steps(3))
            rows = [rehearsed(call, clock) for call in calls]
            queueing_ms = clock.timed(lambda: step(t, x[0]), 1)[0]
            step_ms = []
            whole_step = []
            for _ in range(repeats):
                step_ms.append(steps(count))
                whole_step.append(clock.timed(lambda: step(t, x[0]), 1, queueing_ms))
                for call, row in zip(calls, rows, strict=True):
                    call.times.append(clock.timed(call, *row))
                bar.update(1)
    result = {"machine": facts, "workload": workload.as_row(), "repeats": repeats, "steps": repeats * count}
    result |= summed(workload, np.array(step_ms), [notes_of(calls)], peaks)
    launch_ms, device_ms = np.quantile([times[:2] for times in whole_step], 0.25, axis=0)
    late = [call for call in calls if not all(ahead for _, _, ahead in call.times)]
    places = dict.fromkeys(call.place() for call in late)
    return result | {"launch_ms": plain(launch_ms), "device_ms": plain(device_ms), "not_ahead": list(places)}


def captured(workload, x):
    """Return the calls of one training step as a list of `Call`, in their order; x is a minibatch on the device."""
    recorder = DeviceRecorder()
    watched = watched_step(workload, recorder)
    with recorder.step():
        watched(0, recorder.watched(x))
    return recorder.steps[0]


def rehearsed(call, clock):
    """Make a call some times and return how often to make it in a row, and how many milliseconds queueing that takes.

    They take about CALLS_MS on the host or on the device, whichever is the slower.
    """
    call()
    launch_ms, device_ms, _ = clock.timed(call, LEAST_CALLS)
    fitting = int(CALLS_MS / max(launch_ms, device_ms, CALLS_MS / MOST_CALLS))
    count = max(LEAST_CALLS, fitting)
    return count, count * launch_ms


def notes_of(calls):
    """Return a dict of `Note` by operation, as a watched step has it, from calls that have been timed."""
    notes = {}
    for call in calls:
        note = notes.setdefault(call.operation, Note())
        launch_ms, device_ms = np.quantile([times[:2] for times in call.times], 0.25, axis=0)
        note.ns += max(1e6 * device_ms, 1.0)  # so that what puts nothing in the queue has a rate too
        note.launch_ns = (note.launch_ns or 0) + 1e6 * launch_ms
        note.bytes += call.bytes
        note.flops += call.flops
        note.calls[call.name] = note.calls.get(call.name, 0) + 1
    return notes


class Call:
    """One call of a step that puts work in the device's queue. To call it makes it again, and drops the result.

    name        is what NumPy calls the function, or the method's own name.
    function    is called with arguments and settings, all of them without wrappers.
    operation   is what `at_work` returned: (phase, owner, path, number of the line).
    bytes       is how many bytes it reads and writes, and flops how many operations it makes.
    times       lists what `DeviceClock.timed` returned for it.
    """

    def __init__(self, name, function, arguments, settings, operation, n_bytes, flops):
        self.name = name
        self.function = function
        self.arguments = arguments
        self.settings = settings
        self.operation = operation
        self.bytes = n_bytes
        self.flops = flops
        self.times = []

    def __call__(self):
        self.function(*self.arguments, **self.settings)

    def place(self):
        """Return the place in the source, such as nets/layers.py:50."""
        return f"{place_of(self.operation[2])}:{self.operation[3]}"


class DeviceRecorder:
    """Captures calls. `steps` lists, for each step that was watched, a list of `Call`, in their order.

    `kind` is its own class of arrays that are watched, and `array` is CuPy's class of arrays.
    """

    def __init__(self):
        self.steps = []
        self.now = None  # the list of the step that is being made; None between steps, when nothing is noted
        self.array = array_module("cupy").ndarray
        self.kind = type("Watched", (DeviceArray,), {"recorder": self, "__module__": "cupy"})  # it passes for CuPy's

    @contextlib.contextmanager
    def step(self):
        """Note what is done inside as one step."""
        self.now = []
        try:
            yield
            self.steps.append(self.now)
        finally:
            self.now = None

    def watched(self, value):
        """Return device arrays, in lists and tuples too, as arrays that are watched, and everything else as it is."""
        if type(value) in (list, tuple):
            return type(value)(self.watched(one) for one in value)
        return self.kind(value) if isinstance(value, self.array) else value

    def call(self, name, function, arguments, settings, moved, flops):
        """Return function(*arguments, **settings) as `watched` does, and note the call.

        name        is what the call is called.
        arguments   may hold arrays that are watched, and so may settings; the function is given those inside.
        moved       is called with (arguments, settings, result), all of them without wrappers, and returns two lists of
                    what was read and what was written, arrays or numbers of bytes; or None, where nothing was put in
                    the device's queue, as for a view.
        flops       is called with (arguments, result) likewise, and returns a number of operations.
        """
        arguments = inside(arguments)
        settings = inside(settings)
        result = function(*arguments, **settings)
        if self.now is not None:
            found = moved(arguments, settings, result)
            if found is not None:
                counted = sum(map(bytes_of, found)), flops(arguments, result)
                self.now.append(Call(name, function, arguments, settings, at_work(), *counted))
        return self.watched(result)

    def one_call(self, function, arguments, settings=None, name=None, phase=None, flops=0):
        """Return function(*arguments, **settings) as `watched` does, and note it as one call, whatever it calls.

        It is for a function that is one kernel on the device. Its bytes are those of the arrays that it is given and of
        those that it returns. As long as no step is watched, nothing is noted.

        function    is called with plain device arrays.
        arguments   is a tuple; arrays in it, and in settings, may be watched ones.
        settings    is a dict, None unless given.
        name        is what the call is called; None, the default, is the name of the function.
        phase       is the phase of the operation. None, the default, has it read from the functions at work.
        flops       is the number of operations that it makes, 0 unless given.
        """
        arguments = inside(tuple(arguments))
        settings = inside(settings or {})
        now = self.now
        self.now = None
        try:
            result = function(*arguments, **settings)
        finally:
            self.now = now
        if now is not None:
            operation = at_work()
            operation = (phase or operation[0], *operation[1:])
            counted = bytes_of(arrays([arguments, settings])) + bytes_of(arrays(result))
            name = name or getattr(function, "__name__", type(function).__name__)
            now.append(Call(name, function, arguments, settings, operation, counted, flops))
        return self.watched(result)

    def one(self, name, function):
        """Return a function that does what `function` does and is noted as one call, named `name` as its phase is."""

        def called(*arguments):
            return self.one_call(function, arguments, name=name, phase=name)

        return called


class DeviceArray:
    """A device array whose operations `recorder` notes. Results are those of CuPy, wrapped again.

    What CuPy's arrays have beside operations, their attributes and methods, is handed on to the array inside, and so
    is reading a value, which waits for the device as it does without the wrapper.
    """

    recorder = None
    __hash__ = None

    def __init__(self, array):
        self.bare = array

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **settings):
        def moved(given, settings, result):
            return arrays(given), arrays(settings.get("out")) or arrays(result)

        def flops(given, result):
            return flops_of_ufunc(ufunc, method, given, result)

        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if out is not None:
            settings["out"] = out
        result = self.recorder.call(name, getattr(ufunc, method), inputs, settings, moved, flops)
        return result if out is None else out[0] if len(out) == 1 else out

    def __array_function__(self, function, types, arguments, settings):
        def moved(given, settings, result):
            written = written_by(given, settings, result)
            if function is np.empty_like:
                return [], []
            given = given[1:] if result is None else given  # np.copyto does not read what it writes
            return None if written is None else (read_by_function(function.__name__, given, settings), written)

        def flops(given, result):
            return flops_of_function(function.__name__, given, result)

        result = self.recorder.call(function.__name__, function, arguments, settings, moved, flops)
        out = settings.get("out")
        return result if out is None else out

    def __getattr__(self, name):
        if name.startswith("__"):  # by its interfaces CuPy would take this for an array, and nobody would note it
            raise AttributeError(f"an array that is watched has no {name}")
        value = getattr(self.bare, name)
        if not callable(value) or isinstance(value, type(self.bare)):
            return self.recorder.watched(value)
        return functools.partial(self._method, name)

    def _method(self, name, *arguments, **settings):
        """Return what a method of CuPy's arrays returns."""

        def method(own, *arguments, **settings):
            return getattr(own, name)(*arguments, **settings)

        def moved(given, settings, result):
            written = written_by(given, settings, result)
            if written is None:
                return None
            if name in MOVING:
                return taken(given[0], result), written
            given = given[1:] if result is None else given  # nor does a.fill()
            return read_by_function(name, given, settings), written

        def flops(given, result):
            return flops_of_function(name, given, result)

        result = self.recorder.call(name, method, (self, *arguments), settings, moved, flops)
        out = settings.get("out")
        return result if out is None else out

    def __getitem__(self, key):
        def moved(given, settings, result):
            written = written_by(given[:1], settings, result)
            return None if written is None else (taken(given[0], result), written)

        return self.recorder.call("take", operator.getitem, (self, key), {}, moved, _none)

    def __setitem__(self, key, value):
        def moved(given, settings, result):
            own, key, value = given
            if arrays(key):  # how many entries they name is not read from the device
                return arrays(value), arrays(value) or [own]
            target = own[key]
            same = bool(arrays(value)) and where(value) == where(target)  # as in a[...] += b; CuPy skips it
            return ([], []) if same else (arrays(value), arrays(target))

        self.recorder.call("copy", operator.setitem, (self, key, value), {}, moved, _none)

    def __array__(self, *arguments, **settings):
        return self.bare.__array__(*arguments, **settings)  # a TypeError, as CuPy has it

    def __copy__(self):
        return type(self)(copy.copy(self.bare))

    def __deepcopy__(self, memo):
        return type(self)(copy.deepcopy(self.bare, memo))

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __len__(self):
        return len(self.bare)

    def __bool__(self):
        return bool(self.bare)

    def __float__(self):
        return float(self.bare)

    def __int__(self):
        return int(self.bare)

    def __index__(self):
        return operator.index(self.bare)

    def __repr__(self):
        return repr(self.bare)

    def __str__(self):
        return str(self.bare)

    def __format__(self, text):
        return format(self.bare, text)


OPERATORS = {  # Python's names of operators of two arrays, with NumPy's functions
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
SIGNS = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}


def _operator(ufunc, function, reflected=False, in_place=False):
    """Return the method of an operator, which is noted as `ufunc` and made as Python's own `function`."""

    def moved(given, settings, result):
        return arrays(given), arrays(result)

    def flops(given, result):
        return flops_of_ufunc(ufunc, "__call__", given, result)

    def method(self, *other):
        given = (*other, self) if reflected else (self, *other)
        result = self.recorder.call(ufunc.__name__, function, given, {}, moved, flops)
        return self if in_place and result.bare is self.bare else result

    return method


for _name, _ufunc in OPERATORS.items():
    _function = getattr(operator, f"__{_name}__")
    setattr(DeviceArray, f"__{_name}__", _operator(_ufunc, _function))
    setattr(DeviceArray, f"__r{_name}__", _operator(_ufunc, _function, reflected=True))
    _function = getattr(operator, f"__i{_name}__")
    setattr(DeviceArray, f"__i{_name}__", _operator(_ufunc, _function, in_place=True))
for _name, _ufunc in (COMPARISONS | SIGNS).items():
    setattr(DeviceArray, f"__{_name}__", _operator(_ufunc, getattr(operator, f"__{_name}__")))


def inside(value):
    """Return arrays that are watched as the device arrays inside, in lists, tuples and dicts too."""
    if isinstance(value, DeviceArray):
        return value.bare
    if type(value) in (list, tuple):
        return type(value)(inside(one) for one in value)
    return {key: inside(one) for key, one in value.items()} if type(value) is dict else value


def bytes_of(those):
    """Return how many bytes there are in a list of arrays, or a number of bytes itself."""
    return those if isinstance(those, int) else n_bytes(those)


def taken(array, result):
    """Return what an operation reads that only moves numbers: the array, or of some of its entries the bytes."""
    return [array] if result.size == array.size else result.size * array.itemsize


def written_by(given, settings, result):
    """Return the arrays that a call has written, as a list; None where it has put nothing in the device's queue.

    Those are its out, or its result. A call that returns nothing, as np.copyto, writes its first argument. A result
    that lies in the memory of an argument is a view, or the argument itself.
    """
    if out := arrays(settings.get("out")):
        return out
    if result is None:
        return arrays(given)[:1]
    there = [extent(array) for array in arrays(given)]
    found = [extent(array) for array in arrays(result)]
    fresh = not any(low < end and start < high for start, end in found for low, high in there)
    return arrays(result) if found and fresh else None


def extent(array):
    """Return where the memory of an array begins and where it ends, which is where it begins if it is empty."""
    start = where(array)[0]
    if not array.size:
        return start, start
    spans = [stride * (n - 1) for n, stride in zip(array.shape, array.strides, strict=True)]
    return start + sum(min(span, 0) for span in spans), start + sum(max(span, 0) for span in spans) + array.itemsize


def _none(given, result):
    """Return 0, the flops of what only moves numbers."""
    return 0
