"""Takes a training step apart into its operations, and sets each beside what the machine can do at most.

What follows is how it is done with NumPy. On the device the layers and the lines are the same, and device_profile.py
says how their operations are found and timed.

The vectors of parameters and gradients, the minibatch and the noise are given to the step as a subclass of
`np.ndarray`, so that every array that comes from them is of this class too. NumPy hands each operation on such arrays
to the class (NumPy Enhancement Proposals 13 and 18), which makes it on plain arrays, with a clock before and after it.
The layers are those of training, line by line, and the step has the same bits. What the class does besides, such as
finding out which line is at work, is outside of the clock.

An operation is here a line of the source, together with the layer that is at work: the calls that one such line makes
in a step are added up. Each has these numbers:

- its bytes: what its calls read and write, each array once a call. Caches, and lines of a cache that are loaded before
  they are written, are not counted;
- its flops: two for a multiplication and addition in a matrix product, and otherwise one for each number that comes out
  of a function or goes into a sum. So exp and tanh count as one, though a processor makes tens of operations of them;
- its intensity: flops per byte. The roofline (S. Williams, A. Waterman & D. Patterson 2009, "Roofline: an insightful
  visual performance model for multicore architectures") gives the rate that an operation of this intensity can have:
  intensity times bandwidth, and at most the rate of a large matrix product.

The noise is one operation, since no parameter goes into it. A call that only makes a view costs nothing and is left
out. NumPy can write the result of an operation on plain arrays into a temporary array that nobody needs any more; with
the subclass it does not, so that lines with long formulas may look somewhat slower than they are.
"""

import contextlib
import copy
import linecache
import math
import sys
import time
from pathlib import Path

import numpy as np

from scratchvae import backend
from scratchvae.arguments import whole
from scratchvae.backend import array_module, kind
from scratchvae.bench.machines import blas_limited, machine
from scratchvae.bench.measuring import plain, steps_in_a_round
from scratchvae.bench.peaks import IN_CACHE, IN_MEMORY, bandwidth, peak_gflops
from scratchvae.bench.report import aligned, model_name, size_name
from scratchvae.bench.workloads import TrainingStep, minibatches, model_of, training_step
from scratchvae.training.loop import progress_bar

PACKAGE = str(Path(__file__).parent.parent)
WATCHING = (  # the files whose lines are not those of a step: those that watch it, and what makes a call one operation
    __file__,
    str(Path(__file__).with_name("device_profile.py")),
    backend.__file__,
)
PHASES = {  # the part of a step that a function belongs to, by its name; a line in none of these is of the bound
    "noise": "noise",
    "backward": "gradient",
    "backward_given": "gradient",
    "draw_backward": "gradient",
    "add_log_prior_gradient": "prior",
    "ascend": "update",
}
ORDER = ("noise", "bound", "gradient", "prior", "update")
LEAST_SHARE = 0.003  # of the step: operations below it are printed together


def profile(workload, repeats=10, progress=None):
    """Take the training step of a workload apart and return a dict that JSON can hold.

    Its "operations" are dicts, the longest first, with `phase` (noise, bound, gradient, prior or update), `owner` (the
    layer at work, or what else has a name), `place` and `line` (of the source), `calls` (NumPy's operations, by name),
    `ms`, `share` (of the step), `bytes`, `flops`, `intensity`, `gb_s`, `gflops` and `of_roof`, the share of what the
    roofline allows for arrays in the cache. "step_ms" is what the step takes without being watched, and "between_ms"
    what its operations leave of it: the interpreter between them. "peaks" are those of this machine, and "machine" is
    what `machine` returns.

    All times are means over the fast quarter of the steps, so that they add up; rounds of steps that are watched and of
    steps that are not take turns.

    With backend "cupy" the result has the same form, and `device_profile.profile` says what its times are and which
    numbers are there beside these.

    workload   is the `Workload`, whose backend is "numpy" or "cupy". One that is not there raises a ValueError.
    repeats    is the number of rounds, 10 unless given.
    progress   True shows a bar on stderr, False none, and None one on a terminal only.
    """
    if workload.backend == "cupy":
        from scratchvae.bench import device_profile  # only now: it takes its parts from this file

        return device_profile.profile(workload, repeats, progress)
    repeats = whole("repeats", repeats)
    array_module(workload.backend)  # another name is refused
    recorder = Recorder()
    with blas_limited(workload.threads):
        peaks = {
            "gflops": peak_gflops("numpy", workload.dtype),
            "cache_gb_s": bandwidth(workload.dtype, IN_CACHE),
            "memory_gb_s": bandwidth(workload.dtype, IN_MEMORY),
        }
        step = training_step(workload)
        watched = watched_step(workload, recorder)
        x = minibatches(workload)
        times = []
        t = 0
        with progress_bar(repeats, 0, progress, unit=" rounds") as bar:
            for r in range(1 + repeats):  # the first warms up
                count = 3 if r == 0 else steps_in_a_round(1e3 * np.median(times))
                if r < 2:
                    times.clear()
                    recorder.steps.clear()
                for _ in range(count):
                    begun = time.perf_counter()
                    step(t, x[t % len(x)])
                    times.append(time.perf_counter() - begun)
                    t += 1
                for s in range(t - count, t):
                    with recorder.step():
                        watched(s, x[s % len(x)])
                bar.update(r > 0)
    result = {"machine": machine(), "workload": workload.as_row(), "repeats": repeats, "steps": len(times)}
    return result | summed(workload, 1e3 * np.array(times), recorder.steps, peaks)


def summed(workload, times, steps, peaks):
    """Return the numbers of a profile: "step_ms", "samples_per_s", "between_ms", "peaks" and "operations".

    times   are the milliseconds of the steps that were not watched.
    steps   lists, for each step that was, what `Recorder` noted.
    peaks   are those of the machine: "gflops", "cache_gb_s" and "memory_gb_s".
    """
    step_ms = float(np.sort(times)[: math.ceil(len(times) / 4)].mean())
    fast = sorted(steps, key=lambda notes: sum(note.ns for note in notes.values()))[: math.ceil(len(steps) / 4)]
    operations = []
    for key in dict.fromkeys(key for notes in fast for key in notes):
        notes = [step[key] for step in fast if key in step]
        phase, owner, path, number = key
        ms = sum(note.ns for note in notes) / len(fast) / 1e6
        n_bytes = sum(note.bytes for note in notes) / len(fast)
        flops = sum(note.flops for note in notes) / len(fast)
        roof_ms = max(flops / peaks["gflops"], n_bytes / peaks["cache_gb_s"]) / 1e6
        operation = {"phase": phase, "owner": owner, "place": f"{place_of(path)}:{number}"}
        operation |= {"line": source_line(path, number), "calls": notes[0].calls, "ms": ms, "share": ms / step_ms}
        if notes[0].launch_ns is not None:
            operation["launch_ms"] = sum(note.launch_ns for note in notes) / len(fast) / 1e6
        operation |= {"bytes": round(n_bytes), "flops": round(flops), "intensity": flops / max(n_bytes, 1)}
        operation |= {"gb_s": n_bytes / ms / 1e6, "gflops": flops / ms / 1e6, "of_roof": roof_ms / ms}
        operations.append(operation)
    operations.sort(key=lambda operation: -operation["ms"])
    between = step_ms - sum(operation["ms"] for operation in operations)
    found = {"step_ms": plain(step_ms), "samples_per_s": plain(1e3 * workload.batch_size / step_ms)}
    found |= {"between_ms": plain(between), "peaks": {name: plain(value) for name, value in peaks.items()}}
    return found | {"operations": [{key: plain(value) for key, value in one.items()} for one in operations]}


def place_of(path):
    """Return the path of a file of the package from its folder on, such as nets/layers.py."""
    return Path(path).relative_to(PACKAGE).as_posix() if path.startswith(PACKAGE) else Path(path).name


def source_line(path, number):
    """Return a line of the source without its indentation and its comment."""
    return linecache.getline(path, number).partition("  #")[0].strip()


def profile_table(result):
    """Return what `profile` returned as a table in text, the longest operations first and the phases below."""
    row = result["workload"]
    peaks = result["peaks"]
    heads = [
        "#",
        "ms",
        "share",
        "MB",
        "MFLOP",
        "flop/byte",
        "GB/s",
        "GFLOP/s",
        "of roof",
        "phase",
        "of",
        "place",
        "line",
    ]
    launches = [f"{1e3 * one['launch_ms']:.1f}" for one in result["operations"] if "launch_ms" in one]
    if launches:
        heads.insert(3, "launch µs")
    cells = [heads]
    small = [one for one in result["operations"] if one["share"] < LEAST_SHARE]
    for k, one in enumerate(result["operations"][: len(result["operations"]) - len(small)], start=1):
        cells.append([str(k), f"{one['ms']:.4f}", f"{one['share']:.1%}", *launches[k - 1 : k]])
        cells[-1] += [f"{one['bytes'] / 1e6:.3f}", f"{one['flops'] / 1e6:.3f}", f"{one['intensity']:.2f}"]
        cells[-1] += [f"{one['gb_s']:.1f}", f"{one['gflops']:.1f}", f"{one['of_roof']:.0%}"]
        cells[-1] += [one["phase"], one["owner"], one["place"], _short(one["line"])]
    of_a_pass, cache = ("of the device", "L2 cache") if launches else ("of one thread", "cache")
    lines = [
        f"{model_name(row)}, {size_name(row)}, M = {row['batch_size']}, {row['dtype']}{_where(row)}: "
        f"{result['step_ms']:.3f} ms a step, {result['samples_per_s']:,.0f} samples/s",
        *_of_the_device(result),
        f"peaks: {peaks['gflops']:,.0f} GFLOP/s in a large matrix product; a pass {of_a_pass} over arrays "
        f"{peaks['cache_gb_s']:.0f} GB/s in the {cache}, {peaks['memory_gb_s']:.0f} GB/s in memory",
        *aligned(cells, left=("phase", "of", "place", "line")),
    ]
    if small:
        ms = sum(one["ms"] for one in small)
        lines.append(f"and {len(small)} operations below {LEAST_SHARE:.1%} of the step each: {_part(ms, result)}")
    for phase in ORDER:
        of_phase = [one for one in result["operations"] if one["phase"] == phase]
        if of_phase:
            moved = sum(one["bytes"] for one in of_phase) / 1e6
            counted = sum(one["flops"] for one in of_phase) / 1e6
            text = _part(sum(one["ms"] for one in of_phase), result)
            lines.append(f"{PRINTED[phase]:>24}: {text}, {moved:.2f} MB, {counted:.2f} MFLOP")
    lines.append(f"{'between the operations':>24}: {_part(result['between_ms'], result)}")
    if result["between_ms"] < -0.05 * result["step_ms"] and "device_ms" not in result:
        lines.append("less than nothing between the operations: other programs were at work while these were measured")
    if any(name.startswith("fused ") for one in result["operations"] for name in one["calls"]):
        lines.append("the flops of fused kernels are not counted, nor what they write into their arguments")
    if any(one["of_roof"] > 1.1 and one["share"] >= LEAST_SHARE for one in result["operations"]):
        lines.append("some operations are faster than the peaks, as when other programs were at work while these were")
        lines[-1] += " measured"
    return "\n".join(lines)


def _where(row):
    """Return what the first line says of the backend of a workload: nothing of NumPy."""
    return "" if row["backend"] == "numpy" else f" on {row['backend']}"


def _of_the_device(result):
    """Return the lines of the table that a profile of a device has besides, as a list; without a device there are none.

    They say whether launching or the device limits the step, and which times may be too long.
    """
    if "launch_ms" not in result:
        return []
    launch_ms = result["launch_ms"]
    device_ms = result["device_ms"]
    limit = "launching" if launch_ms > device_ms else "the device"
    in_calls = sum(one["launch_ms"] for one in result["operations"])
    lines = [
        f"launching a step takes the host {launch_ms:.3f} ms, {in_calls:.3f} ms of it in the calls below, and the "
        f"device works on it for {device_ms:.3f} ms: {limit} limits the step"
    ]
    if late := result["not_ahead"]:
        lines.append(f"the host was not ahead of the device in {', '.join(late)}: their ms may be too long")
    return lines


PRINTED = {"update": "update by Adagrad"} | {phase: phase for phase in ORDER if phase != "update"}


def _part(ms, result):
    """Return milliseconds and their share of the step as text."""
    return f"{ms:.3f} ms, {ms / result['step_ms']:.1%}"


def _short(line, width=60):
    """Return a line of at most so many characters."""
    return line if len(line) <= width else line[: width - 1] + "…"


# What watches


class Note:
    """What the calls of one operation took in one step: ns nanoseconds, bytes, flops, and how many `calls` by name.

    launch_ns are the nanoseconds that the host takes to put them in the device's queue; without a device it is None.
    """

    def __init__(self):
        self.ns = 0
        self.launch_ns = None
        self.bytes = 0
        self.flops = 0
        self.calls = {}


class Recorder:
    """Notes operations. `steps` lists for each step that was watched a dict of `Note`, by operation."""

    def __init__(self):
        self.steps = []
        self.now = None  # the dict of the step that is being made; None between steps, when nothing is noted
        self.kind = type("Watched", (Watched,), {"recorder": self, "__module__": "numpy"})  # it passes for NumPy's own

    def watched(self, array):
        """Return an array as one that is watched."""
        return array.view(self.kind)

    @contextlib.contextmanager
    def step(self):
        """Note what is done inside as one step."""
        self.now = {}
        try:
            with _watched_at_the_gate(self.kind):
                yield
            self.steps.append(self.now)
        finally:
            self.now = None

    def call(self, name, function, arguments, settings, moved, flops):
        """Return function(*arguments, **settings), and note what it took.

        name    is what NumPy calls it.
        moved   is called with the result, and returns two lists of arrays: those that were read, and those that were
                written.
        flops   is called with the result, and returns a number of operations.
        """
        begun = time.perf_counter_ns()
        result = function(*arguments, **settings)
        ns = time.perf_counter_ns() - begun
        if self.now is not None:
            self.note(name, ns, moved(result), flops(result))
        return result

    def note(self, name, ns, moved, flops=0, phase=None):
        """Add what a call took to the operation that is at work; moved is what `call` says.

        phase is the phase of the operation, which is read from the functions at work unless given.
        """
        if self.now is not None:
            here, *place = at_work()
            note = self.now.setdefault((phase or here, *place), Note())
            note.ns += ns
            note.bytes += sum(map(n_bytes, moved))
            note.flops += flops
            note.calls[name] = note.calls.get(name, 0) + 1

    def one(self, name, function):
        """Return a function that does what `function` does and is noted as one operation, whatever it calls.

        name is what the operation and its phase are called.
        """

        def called(*arguments):
            now = self.now
            self.now = None
            begun = time.perf_counter_ns()
            result = function(*arguments)
            ns = time.perf_counter_ns() - begun
            self.now = now
            self.note(name, ns, ([], arrays(result)), phase=name)
            return result

        return called


def watched_step(workload, recorder):
    """Return the `TrainingStep` of a workload whose operations `recorder` notes.

    A copy of a model lays its windows anew. So a model whose vectors are of the class that is watched becomes, once it
    is copied, one whose windows are of this class, wherever they lie.
    """
    model = model_of(workload)
    for params in filter(None, [model.params, getattr(getattr(model, "posterior", None), "theta", None)]):
        params.value = recorder.watched(params.value)
        params.grad = recorder.watched(params.grad)
    step = TrainingStep(copy.deepcopy(model), 50_000)
    step.noise = recorder.one("noise", step.noise)
    return step


@contextlib.contextmanager
def _watched_at_the_gate(kind):
    """Let `plain`, the gate for all arrays that a model is given, hand them on as arrays of the class `kind`.

    By itself it takes the class off them.
    """
    gate = backend.plain
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "scratchvae"]
    through = [module for module in modules if getattr(module, "plain", None) is gate]

    def watched(name, value):
        return gate(name, value).view(kind)

    for module in through:
        module.plain = watched
    try:
        yield
    finally:
        for module in through:
            module.plain = gate


class Watched(np.ndarray):
    """An array whose operations `recorder` notes. Results are the same bits as those of plain arrays."""

    recorder = None

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **settings):
        given = [bare(value) for value in inputs]
        settings = {key: bare(value) for key, value in settings.items()}
        outs = () if out is None else tuple(bare(value) for value in out)
        if out is not None:
            settings["out"] = outs

        def moved(result):
            return arrays(given), arrays(outs) or arrays(result)

        def flops(result):
            return flops_of_ufunc(ufunc, method, given, result)

        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        result = self.recorder.call(name, getattr(ufunc, method), given, settings, moved, flops)
        if out is None or result is None:
            return self.dressed(result)
        if len(out) == 1:
            return self.dressed(result) if out[0] is None else out[0]
        return tuple(self.dressed(one) if kept is None else kept for one, kept in zip(result, out, strict=True))

    def __array_function__(self, function, types, arguments, settings):
        out = settings.get("out")
        given = bare(arguments)
        settings = bare(settings)

        def moved(result):
            if function is np.empty_like:
                return [], []
            return read_by_function(function.__name__, given, settings), arrays(result)

        def flops(result):
            return flops_of_function(function.__name__, given, result)

        result = self.recorder.call(function.__name__, function, given, settings, moved, flops)
        return out if isinstance(out, np.ndarray) else self.dressed(result)

    def __getitem__(self, key):
        return self.copied("take", np.ndarray.__getitem__, bare(key))

    def __setitem__(self, key, value):
        value = bare(value)
        own = bare(self)
        key = bare(key)
        target = own[key]
        same = isinstance(value, np.ndarray) and where(value) == where(target)  # as in a[...] += b

        def moved(_):
            return ([], []) if same else (arrays(value), arrays(target))

        self.recorder.call("copy", np.ndarray.__setitem__, (own, key, value), {}, moved, _none)

    def copied(self, name, method, *arguments, **settings):
        """Return what a method of arrays returns, and note it if that is a copy; a view costs nothing."""
        own = bare(self)
        begun = time.perf_counter_ns()
        result = method(own, *arguments, **settings)
        ns = time.perf_counter_ns() - begun
        if isinstance(result, np.ndarray) and not np.may_share_memory(result, own):
            read = own if result.size == own.size else own.ravel()[: result.size]  # as many as are taken
            self.recorder.note(name, ns, ([read], [result]))
        return self.dressed(result)

    def astype(self, *arguments, **settings):
        """Return a copy in another type; `ndarray.astype` is the same, and so it is for the methods below."""
        return self.copied("astype", np.ndarray.astype, *arguments, **settings)

    def copy(self, *arguments, **settings):
        """Return a copy."""
        return self.copied("copy", np.ndarray.copy, *arguments, **settings)

    def reshape(self, *arguments, **settings):
        """Return an array of another shape."""
        return self.copied("reshape", np.ndarray.reshape, *arguments, **settings)

    def ravel(self, *arguments, **settings):
        """Return an array of one axis."""
        return self.copied("ravel", np.ndarray.ravel, *arguments, **settings)

    def take(self, *arguments, **settings):
        """Return some of the entries."""
        return self.copied("take", np.ndarray.take, *map(bare, arguments), **bare(settings))

    def dressed(self, result):
        """Return arrays, in lists and tuples too, as arrays of this class, and everything else as it is."""
        if isinstance(result, tuple | list):
            return type(result)(self.dressed(one) for one in result)
        return result.view(type(self)) if type(result) is np.ndarray else result


def bare(value):
    """Return arrays of the class that is watched as plain ones, in lists, tuples and dicts too."""
    if isinstance(value, Watched):
        return value.view(np.ndarray)
    if type(value) in (list, tuple):
        return type(value)(bare(one) for one in value)
    return {key: bare(one) for key, one in value.items()} if type(value) is dict else value


def arrays(value):
    """Return all arrays in a value, on the device too, in lists, tuples and dicts too, as a list."""
    if isinstance(value, np.ndarray) or (kind(value) == "cupy" and hasattr(value, "strides")):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for one in value for array in arrays(one)] if isinstance(value, list | tuple) else []


def where(array):
    """Return what two arrays have in common that are the same entries of memory."""
    address = array.data.ptr if kind(array) == "cupy" else array.__array_interface__["data"][0]
    return address, array.shape, array.strides


def n_bytes(those):
    """Return how many bytes arrays hold: each counts once, and a number that is repeated along an axis once too."""
    different = {where(array): array for array in those}
    sizes = ((array, zip(array.shape, array.strides, strict=True)) for array in different.values())
    return sum(array.itemsize * math.prod(n if stride else min(n, 1) for n, stride in axes) for array, axes in sizes)


def _none(result):
    """Return 0, the flops of what only moves numbers."""
    return 0


def flops_of_ufunc(ufunc, method, given, result):
    """Return how many operations a ufunc makes: two for each multiply-add of a product, else one for each number."""
    if ufunc.signature is not None:  # matmul and its like: the sum runs over the last axis of the first array
        return 2 * size(result) * np.shape(given[0])[-1]
    return size(given[0]) if method in ("reduce", "accumulate") else size(result)


def read_by_function(name, given, settings):
    """Return the arrays that a function of NumPy reads that is no ufunc; zeros_like and its kind read only a shape."""
    read = {key: value for key, value in settings.items() if key != "out"}
    return [] if name.endswith("_like") else arrays([given, read])


SUMS = ("sum", "mean", "prod", "max", "min", "amax", "amin", "std", "var", "any", "all", "cumsum", "cumprod")


def flops_of_function(name, given, result):
    """Return how many operations a function of NumPy makes that is no ufunc, by its name; one that only moves has 0."""
    if name in SUMS:
        return size(given[0])
    return 2 * size(result) * np.shape(given[0])[-1] if name in ("dot", "inner") else 0


def size(value):
    """Return how many numbers an array has, on the device too; a number and a list are read as NumPy reads them."""
    return value.size if hasattr(value, "size") else np.size(value)


def at_work():
    """Return the operation that is at work: (phase, owner, path, number of the line).

    The line is the innermost one of this package, the files in WATCHING left out. The phase is that of the innermost
    function in PHASES. The owner is the name of the innermost object that has one, or else encoder or decoder, if the
    line is called by one.
    """
    frame = sys._getframe(1)
    line = None
    phase = None
    owner = None
    part = ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE) and code.co_filename not in WATCHING:
            line = line or (code.co_filename, frame.f_lineno)
            phase = phase or PHASES.get(code.co_name)
            own = frame.f_locals.get("self")
            named = getattr(own, "name", None)
            owner = owner or (named if isinstance(named, str) else None)
            part = part or {"Encoder": "encoder", "Decoder": "decoder"}.get(type(own).__name__, "")
        frame = frame.f_back
    path, number = line or ("", 0)
    return phase or "bound", owner or part, path, number
