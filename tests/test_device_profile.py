"""The profile of a step on the device: nothing is lost or changed by watching, and the times are the device's own."""

import copy
import json
import operator
import sys
import time
import types

import numpy as np
import pytest
import standin
from conftest import host
from test_bench import PROFILED

from scratchvae import backend, bench
from scratchvae.backend import kind, move
from scratchvae.bench import Workload, device_clock, device_profile, peaks, profiling
from scratchvae.bench.device_clock import DeviceClock
from scratchvae.bench.device_profile import Call, DeviceRecorder, captured, extent, rehearsed
from scratchvae.cli import main
from scratchvae.inference.distributions import log_bernoulli
from scratchvae.inference.likelihoods import bernoulli

SMALL = {"n_visible": 9, "n_hidden": 8, "n_latent": 2, "batch_size": 5}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No test needs long blockers, true peaks, or as many steps and calls as a measurement has."""
    monkeypatch.setattr(device_clock, "WIDTH", 16)
    monkeypatch.setattr(device_clock, "LEAST_MS", 0.05)
    monkeypatch.setattr(device_profile, "CALLS_MS", 0.05)
    monkeypatch.setattr(peaks, "LARGE", {"numpy": 200, "cupy": 200})
    monkeypatch.setattr(peaks, "IN_DEVICE_MEMORY", 3 << 12)
    monkeypatch.setattr(bench.measuring, "ROUND", 0.004)


def works(given, **sizes):
    """The workload on the host and the one on the device."""
    return [Workload(where, **sizes | given) for where in ("numpy", "cupy")]


# What is watched


def counted(monkeypatch):
    """A list to which the stand-in adds the name of everything that it puts in the queue, whoever calls it."""
    queued = []
    array = standin.ndarray

    def noting(name, fresh):
        real = getattr(array, name)

        def method(self, *arguments, **settings):
            result = real(self, *arguments, **settings)
            if fresh(self, arguments, result):
                queued.append(name)
            return result

        monkeypatch.setattr(array, name, method)

    def is_copy(self, arguments, result):
        return not np.may_share_memory(self._host, result._host)

    noting("__array_ufunc__", lambda self, arguments, result: result is not NotImplemented)
    noting("__array_function__", lambda self, arguments, result: isinstance(result, array))
    noting("__setitem__", lambda self, arguments, result: True)
    for name in (*standin.METHODS, "__getitem__"):
        noting(name, is_copy)
    return queued


@pytest.mark.parametrize("given", PROFILED, ids=str)
def test_a_step_that_is_watched_has_the_same_bits_reads_nothing_and_loses_no_operation(waits, monkeypatch, given):
    _, work = works(given, **{"n_visible": 36, "n_hidden": 7, "n_latent": 3, "batch_size": 6})
    recorder = DeviceRecorder()
    step, watched = bench.training_step(work), profiling.watched_step(work, recorder)
    x = [move(batch, "cupy") for batch in bench.minibatches(work, 2)]
    queued = counted(monkeypatch)
    plain_noise = step.noise

    def noise(*arguments):  # which is one operation for the recorder, whatever it makes
        before = len(queued)
        result = plain_noise(*arguments)
        queued[before:] = ["noise"]
        return result

    step.noise = noise
    waits.count = 0
    for t in range(2):
        queued.clear()
        bound = step(t, x[t])
        expected = len(queued)
        with recorder.step():
            other = watched(t, recorder.watched(x[t]))
        assert waits.count == 0
        assert len(recorder.steps[t]) == expected > 50
        assert kind(other) == "cupy" and other.dtype == bound.dtype and other.shape == bound.shape == ()
        assert bytes(other.bare._host) == bytes(bound._host)
        for name in ("value", "grad"):
            ours, theirs = (getattr(one.model.params, name) for one in (step, watched))
            assert theirs.bare._host.tobytes() == ours._host.tobytes()
    assert recorder.now is None


def zero_dimensional(call):
    """The bytes of 0-d arrays that a call reads and writes, which NumPy has as numbers, and whether its result is one.

    The call is made once more.
    """
    result = call.function(*call.arguments, **call.settings)
    read = {id(array): array for array in profiling.arrays([call.arguments, call.settings]) if not array.ndim}
    written = [array for array in profiling.arrays(result) if not array.ndim]
    return sum(array.nbytes for array in [*read.values(), *written]), written


@pytest.mark.parametrize("given", PROFILED, ids=str)
def test_the_lines_and_their_bytes_and_flops_are_those_of_numpy(waits, given):
    """They differ for two reasons: a mean is one operation, and a number is a 0-d array on the device."""
    sizes = {"n_visible": 36, "n_latent": 3, "batch_size": 6, "n_hidden": 7}
    ours, theirs = works(given, **({} if not given else sizes))  # the first is the paper's model as it is
    recorder = profiling.Recorder()
    step = profiling.watched_step(ours, recorder)
    x = bench.minibatches(ours, 1)[0]
    with recorder.step():
        step(0, x)
    notes = recorder.steps[0]
    expected = {key: (note.bytes, note.flops) for key, note in notes.items()}
    found = {}
    for call in captured(theirs, move(x, "cupy")):
        n_bytes, flops = found.get(call.operation, (0, 0))
        of_numbers, written = zero_dimensional(call) if call.name != "noise" else (0, [])
        n_bytes += call.bytes - of_numbers
        flops += call.flops - (len(written) if call.name in ("add", "subtract", "multiply", "divide") else 0)
        if call.name == "mean":
            result = call.function(*call.arguments, **call.settings)
            n_bytes += 2 * result.nbytes  # NumPy divides its sum in place
            flops += result.size
        found[call.operation] = n_bytes, flops
    assert expected.keys() <= found.keys()
    assert found == expected | dict.fromkeys(found.keys() - expected.keys(), (0, 0))
    if not given:
        assert len(found) == len(expected) == 56


def test_the_operations_of_the_papers_model_have_the_names_of_numpys(waits):
    ours, theirs = works({})
    recorder = profiling.Recorder()
    step = profiling.watched_step(ours, recorder)
    x = bench.minibatches(ours, 1)[0]
    with recorder.step():
        step(0, x)
    calls = captured(theirs, move(x, "cupy"))
    assert len(calls) == 92
    for call in calls:
        call.times = [(0.001, 0.002, True)]
    notes = device_profile.notes_of(calls)
    bound = ("bound", "", "inference/objectives/sgvb.py")
    for key, note in recorder.steps[0].items():
        names = {"sum" if name == "add.reduce" else name: n for name, n in note.calls.items()}
        if key[0] == "update":  # NumPy takes the vectors in blocks
            names = dict.fromkeys(names, 1)
        if (*key[:2], profiling.place_of(key[2])) == bound:
            assert notes[key].calls == {"mean": 1, "add": 1, "sum": 1, "multiply": 1}
        else:
            assert notes[key].calls == names, key
    assert {key[0] for key in notes} == set(profiling.ORDER)


@pytest.fixture
def recorder(waits):
    return DeviceRecorder()


def on_device(recorder, *shapes):
    """Arrays that are watched, with numbers counted from 0."""
    return [recorder.watched(move(np.arange(np.prod(s), dtype=np.float32).reshape(s), "cupy")) for s in shapes]


@pytest.mark.parametrize(
    ("operation", "calls", "n_bytes", "flops"),
    [
        (lambda a, b, v: a @ b, ["matmul"], 4 * (6 + 12 + 8), 2 * 2 * 3 * 4),
        (lambda a, b, v: v @ v, ["matmul"], 4 * (3 + 1), 2 * 3),  # one array, read once; a number is an array here
        (lambda a, b, v: a + v, ["add"], 4 * (6 + 3 + 6), 6),
        (lambda a, b, v: 2 - a, ["subtract"], 4 * (6 + 6), 6),
        (lambda a, b, v: np.float32(2) * a, ["multiply"], 4 * (6 + 6), 6),
        (lambda a, b, v: v.bare + a, ["add"], 4 * (6 + 3 + 6), 6),  # an array that is not watched, with one that is
        (lambda a, b, v: a > 1, ["greater"], 4 * 6 + 6, 6),
        (lambda a, b, v: -a, ["negative"], 4 * (6 + 6), 6),
        (lambda a, b, v: operator.iadd(a, v), ["add"], 4 * (6 + 3 + 6), 6),
        (lambda a, b, v: np.multiply(a, 2, out=a), ["multiply"], 4 * (6 + 6), 6),
        (lambda a, b, v: a.sum(axis=0), ["sum"], 4 * (6 + 3), 6),
        (lambda a, b, v: np.sum(a, axis=0, out=v), ["sum"], 4 * (6 + 3), 6),
        (lambda a, b, v: np.sum(a, axis=0, out=a[0]), ["sum"], 4 * (6 + 3), 6),
        (lambda a, b, v: a.fill(2), ["fill"], 4 * 6, 0),
        (lambda a, b, v: a.recorder.one_call(lambda x: (x + b, x - b.bare), (b,), name="two"), ["two"], 4 * 36, 0),
        (lambda a, b, v: np.tanh(a[:, :1]), ["tanh"], 4 * (2 + 2), 2),
        (lambda a, b, v: np.concatenate([a, a]), ["concatenate"], 4 * (6 + 12), 0),
        (lambda a, b, v: a.astype(np.float64), ["astype"], 4 * 6 + 8 * 6, 0),
        (lambda a, b, v: a.T.reshape(-1), ["reshape"], 4 * (6 + 6), 0),
        (lambda a, b, v: a[v[:2].astype(np.int64)], ["astype", "take"], 4 * 2 + 8 * 2 + 4 * (6 + 6), 0),
        (lambda a, b, v: a.take(v[:1].astype(np.int64)), ["astype", "take"], 4 + 8 + 4 * (1 + 1), 0),
        (lambda a, b, v: operator.setitem(a, 0, v), ["copy"], 4 * (3 + 3), 0),
        (lambda a, b, v: operator.setitem(a, slice(None), 0), ["copy"], 4 * 6, 0),
        (lambda a, b, v: operator.setitem(a, ..., a[...]), ["copy"], 0, 0),  # as at the end of a[...] += 1
        (lambda a, b, v: np.zeros_like(a), ["zeros_like"], 4 * 6, 0),
        (lambda a, b, v: np.empty_like(a).shape, ["empty_like"], 0, 0),
        (
            lambda a, b, v: (a.T, a[1:], a[1], a.reshape(-1), a.swapaxes(0, 1), a.astype(np.float32, copy=False)),
            [],
            0,
            0,
        ),
        (lambda a, b, v: (np.shape(a), len(a), a.dtype, a.ndim), [], 0, 0),
    ],
)
def test_an_operation_has_the_bytes_and_flops_that_it_moves_and_makes(
    recorder, waits, monkeypatch, operation, calls, n_bytes, flops
):
    monkeypatch.setattr(standin.ndarray, "fill", lambda self, value: self._host.fill(value), raising=False)
    a, b, v = on_device(recorder, (2, 3), (3, 4), (3,))
    waits.count = 0
    with recorder.step():
        result = operation(a, b, v)
    assert waits.count == 0
    found = recorder.steps[0]
    assert [call.name for call in found] == calls
    assert (sum(call.bytes for call in found), sum(call.flops for call in found)) == (n_bytes, flops)
    for one in result if isinstance(result, tuple) else (result,):
        assert not isinstance(one, standin.ndarray)  # it would be lost from here on


def test_results_are_those_of_the_array_inside_and_what_works_in_place_keeps_its_array(recorder, monkeypatch):
    a, b = on_device(recorder, (2, 3), (2, 3))
    x, y = (host(array.bare) for array in (a, b))
    for name in device_profile.OPERATORS:
        if name not in ("matmul", "lshift", "rshift", "and", "or", "xor", "floordiv", "mod"):
            function = getattr(operator, name)
            for ours, theirs in (
                (function(a + 1, b + 1), function(x + 1, y + 1)),
                (function(2, b + 1), function(2, y + 1)),
            ):
                assert np.array_equal(host(ours.bare), theirs)
    for name in device_profile.COMPARISONS:
        assert np.array_equal(host(getattr(operator, name)(a, 2).bare), getattr(operator, name)(x, 2))
    inner, outer = a.bare, a
    a += b
    a *= 2
    assert a is outer and a.bare is inner and np.array_equal(host(inner), (x + y) * 2)
    c = np.add(a, b, out=b)
    assert c is b and np.array_equal(host(b.bare), (x + y) * 2 + y)
    assert float(a.sum()) == ((x + y) * 2).sum() and np.array_equal(a.get(), (x + y) * 2)
    monkeypatch.delattr(standin.ndarray, "__imatmul__")  # which CuPy has not: Python then makes a new array
    d, inner = a, a.bare
    d @= b.T
    assert d.shape == (2, 2) and d.bare is not inner and a.bare is inner
    other = copy.deepcopy(a)
    other += 1
    assert type(other) is type(a) and np.array_equal(host(a.bare), (x + y) * 2)


def test_what_cupy_refuses_is_refused_and_no_interface_lets_the_array_inside_out(recorder, monkeypatch):
    (a,) = on_device(recorder, (2, 3))
    for mix in (lambda: a + np.ones((2, 3)), lambda: np.asarray(a), lambda: operator.setitem(a, 0, np.ones(3))):
        with pytest.raises(TypeError):
            mix()
    monkeypatch.setattr(standin.ndarray, "__cuda_array_interface__", {}, raising=False)
    assert hasattr(a.bare, "__cuda_array_interface__") and not hasattr(a, "__cuda_array_interface__")
    assert kind(a) == "cupy"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_where_an_array_begins_and_ends_holds_for_views_that_go_backwards_and_for_empty_ones(recorder):
    (a,) = on_device(recorder, (4, 3))
    start, stop = extent(a.bare)
    assert stop - start == 4 * 12
    assert extent(a.bare[::-1]) == (start, stop) and extent(a.bare[1:3, :2]) == (start + 12, start + 12 + 4 * 5)
    assert extent(a.bare[:0]) == (start, start)


def test_a_call_that_is_noted_as_one_is_an_operation_of_the_line_that_makes_it(waits, monkeypatch):
    """As a fused function will be: one kernel, whatever the function calls."""

    names = {"log_bernoulli": log_bernoulli, "kinds": (kinds := [])}
    source = (
        "def fused(x, a, gradient):\n"
        "    kinds.append((type(x), type(a)))\n"
        "    return a.recorder.one_call(log_bernoulli, (x, a, gradient), flops=7)"
    )
    exec(compile(source, backend.__file__, "exec"), names)  # as if it stood in that file
    _, work = works({}, **SMALL)
    x = move(bench.minibatches(work, 1)[0], "cupy")
    before = captured(work, x)
    monkeypatch.setattr(bernoulli, "log_bernoulli", names["fused"])
    after = captured(work, x)
    assert {issubclass(one, device_profile.DeviceArray) for pair in kinds for one in pair} == {True}
    inside = {call.operation for call in before if call.operation[2].endswith("distributions.py")}
    gone = [call for call in before if call.operation in inside and call.operation[1] == "bernoulli"]
    (call,) = [call for call in after if call.name == "log_bernoulli"]
    assert len(after) == len(before) - len(gone) + 1 and len(gone) > 8
    phase, owner, path, number = call.operation
    assert (phase, owner, profiling.place_of(path)) == ("bound", "bernoulli", "inference/likelihoods/bernoulli.py")
    assert profiling.source_line(path, number) == "return log_bernoulli(x, logits, gradient)"
    assert call.flops == 7 and call.bytes == 4 * (5 * 9 * 2 + 5 + 5 * 9)  # x and logits, log p and its gradient
    assert all(type(one) is standin.ndarray for one in call.arguments[:2])  # a kernel takes no wrappers


# The clock


class Virtual:
    """A host and a device with clocks of their own, in nanoseconds: the device works through its queue in turn."""

    def __init__(self):
        self.host = 0
        self.free = 0  # when the device will have done all that is in its queue

    def launch(self, host_us, device_us):
        self.host += int(1e3 * host_us)
        self.free = max(self.free, self.host) + int(1e3 * device_us)

    def synchronize(self):
        self.host = max(self.host, self.free)

    def cuda(self):
        virtual = self

        class Event:
            def record(self):
                self.at = max(virtual.free, virtual.host)

            @property
            def done(self):
                return virtual.host >= self.at

        device = types.SimpleNamespace(synchronize=virtual.synchronize)

        def elapsed(start, stop):
            if not stop.done:
                raise standin.CUDARuntimeError("cudaErrorNotReady: device not ready")
            return (stop.at - start.at) / 1e6

        return types.SimpleNamespace(Event=Event, Device=lambda: device, get_elapsed_time=elapsed)


@pytest.fixture
def virtual(waits, monkeypatch):
    """A device in the stand-in's place whose products take 8 µs to queue and 340 µs to make."""
    device = Virtual()
    monkeypatch.setattr(sys.modules["cupy"], "cuda", device.cuda())
    monkeypatch.setattr(device_clock, "array_module", lambda backend: sys.modules["cupy"])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: device.host)
    monkeypatch.setattr(device_clock, "LEAST_MS", 1.0)

    def products(self, n):
        for _ in range(n):
            device.launch(8, 340)

    monkeypatch.setattr(DeviceClock, "block_with", products)
    return device


def test_the_devices_own_time_of_a_short_kernel_is_found_though_queueing_it_takes_longer(virtual, monkeypatch):
    clock = DeviceClock()
    assert clock.product_ms == pytest.approx(0.34, rel=0.01)
    assert clock.timed(lambda: virtual.launch(12, 3), 50) == pytest.approx((0.012, 0.003, True))
    assert clock.timed(lambda: virtual.launch(5, 30), 50) == pytest.approx((0.005, 0.03, True))
    monkeypatch.setattr(DeviceClock, "block", lambda *_: None)  # control: without a blocker it is the host's time
    assert clock.timed(lambda: virtual.launch(12, 3), 50)[1:] == (pytest.approx(0.012, rel=0.05), False)


def test_a_blocker_that_was_too_short_is_followed_by_a_longer_one(virtual, monkeypatch):
    clock = DeviceClock()
    asked = []
    real = DeviceClock.block

    def block(self, ms):
        asked.append(ms)
        real(self, ms)

    monkeypatch.setattr(DeviceClock, "block", block)
    assert clock.timed(lambda: virtual.launch(5000, 3), 3) == pytest.approx((5, 0.003, True))
    assert asked == [1.0, 30.0]
    asked.clear()
    assert clock.timed(lambda: virtual.launch(5000, 3), 3, 15.0)[2] and asked == [30.0]  # a good guess
    asked.clear()
    clock.product_ms = 3.4  # and where the device is faster than it was
    assert clock.timed(lambda: virtual.launch(20, 3), 50)[2] and asked == [1.0, 2.0, 4.0, 8.0]


def test_a_call_that_waits_for_the_device_is_said_not_to_be_measured_well(virtual):
    def reading():
        virtual.launch(12, 3)
        virtual.synchronize()

    assert DeviceClock().timed(reading, 3)[2] is False


def test_a_call_is_repeated_as_often_as_fits_into_the_time_of_its_row(virtual, monkeypatch):
    monkeypatch.setattr(device_profile, "CALLS_MS", 1.0)
    clock = DeviceClock()
    for launch_us, device_us, count in [(12, 3, 50), (50, 3, 20), (5, 200, 5), (5000, 3, 3), (5, 9000, 3)]:
        call = Call("add", virtual.launch, (launch_us, device_us), {}, (), 0, 0)
        assert rehearsed(call, clock) == (count, pytest.approx(count * launch_us / 1e3))


# The profile


def test_the_profile_of_a_device_has_the_form_of_numpys_and_says_what_launching_takes(waits):
    ours, theirs = (bench.profile(work, repeats=1, progress=False) for work in works({}, **SMALL))
    assert theirs.keys() == ours.keys() | {"launch_ms", "device_ms", "not_ahead"}
    assert theirs["peaks"].keys() == ours["peaks"].keys() and min(theirs["peaks"].values()) > 0
    assert theirs["machine"]["gpu"] == "stand-in" and theirs["workload"]["backend"] == "cupy"
    assert {*theirs["operations"][0]} == {*ours["operations"][0], "launch_ms"}
    keys = [{(one["phase"], one["owner"], one["place"]) for one in result["operations"]} for result in (ours, theirs)]
    assert keys[0] == keys[1]
    ms = [one["ms"] for one in theirs["operations"]]
    assert ms == sorted(ms, reverse=True) and theirs["not_ahead"] == []
    assert sum(ms) + theirs["between_ms"] == pytest.approx(theirs["step_ms"], rel=5e-3)
    assert sum(one["share"] for one in theirs["operations"]) == pytest.approx(sum(ms) / theirs["step_ms"], rel=5e-3)
    assert json.loads(json.dumps(theirs)) == theirs


def test_a_slow_operation_is_seen_in_its_own_line_on_the_device_and_in_launching(waits, monkeypatch):
    real = standin.ndarray.__array_ufunc__

    def slow(self, ufunc, method, *inputs, **settings):
        if ufunc is np.exp:
            time.sleep(0.005)
        return real(self, ufunc, method, *inputs, **settings)

    monkeypatch.setattr(standin.ndarray, "__array_ufunc__", slow)
    _, work = works({}, **SMALL)
    result = bench.profile(work, repeats=1, progress=False)
    slow_ones = [one for one in result["operations"] if "exp" in one["calls"]]
    others = [one for one in result["operations"] if "exp" not in one["calls"]]
    assert len(slow_ones) >= 3 and result["operations"][: len(slow_ones)] == slow_ones
    for one in slow_ones:
        assert 5 * one["calls"]["exp"] < min(one["ms"], one["launch_ms"])
    assert np.median([one["ms"] for one in others]) < 1
    exps = sum(one["calls"]["exp"] for one in slow_ones)
    assert 5 * exps < min(result["launch_ms"], result["device_ms"], result["step_ms"])
    assert 0.6 < result["step_ms"] / result["device_ms"] < 1.7


def test_times_are_lower_quartiles_and_those_of_a_lines_calls_are_added():
    operation = ("update", "", profiling.__file__, 1)
    calls = [Call(name, None, (), {}, operation, 4_000_000, 1_000_000) for name in ("add", "add", "exp")]
    for call in calls:
        call.times = [(0.5 * k, 0.25 * k, True) for k in (9, 4, 2, 1, 3)]  # whose lower quartile is that of 2
    (note,) = device_profile.notes_of(calls).values()
    assert (note.ns, note.launch_ns, note.bytes, note.flops) == (1.5e6, 3e6, 12_000_000, 3_000_000)
    assert note.calls == {"add": 2, "exp": 1}


def test_a_blocker_is_queued_before_each_timing(waits, monkeypatch):
    log = []
    real_block, real_record, real_call = DeviceClock.block, standin.Event.record, Call.__call__

    def block(self, ms):
        log.append("block")
        real_block(self, ms)

    def record(self):
        log.append("record")
        real_record(self)

    def call(self):
        log.append(self)
        real_call(self)

    clock = DeviceClock()
    for owner, name, function in ((DeviceClock, "block", block), (standin.Event, "record", record)):
        monkeypatch.setattr(owner, name, function)
    monkeypatch.setattr(Call, "__call__", call)
    _, work = works({}, **SMALL)
    monkeypatch.setattr(device_profile, "DeviceClock", lambda: clock)
    bench.profile(work, repeats=2, progress=False)
    timed = 0
    calls = set()
    for k, what in enumerate(log):
        if what == "block":
            assert log[k + 1] == "record"
            stop = log.index("record", k + 2)
            inside = set(log[k + 2 : stop])
            assert len(inside) <= 1  # one call, some times, or a whole step or a pass for a peak, which are no `Call`
            calls |= inside
            timed += bool(inside)
    assert timed == 3 * len(calls) == 3 * 92  # once before, and in both rounds
    assert log.count("record") == 2 * log.count("block")


def test_a_host_that_was_not_ahead_is_named_in_the_profile_and_in_the_table(waits, monkeypatch):
    _, work = works({}, **SMALL)
    monkeypatch.setattr(standin.Event, "done", True)
    result = bench.profile(work, repeats=1, progress=False)
    assert set(result["not_ahead"]) == {one["place"] for one in result["operations"]}
    assert "the host was not ahead of the device in " in bench.profile_table(result)


@pytest.mark.parametrize(("launch_ms", "limit"), [(3.0, "launching limits"), (1.0, "the device limits")])
def test_the_table_says_what_launching_takes_and_what_limits_the_step(launch_ms, limit):
    note = profiling.Note()
    note.ns, note.launch_ns, note.bytes, note.flops, note.calls = 5e5, 7.5e5, 4_000_000, 1_000_000, {"add": 1}
    peaks = {"gflops": 10.0, "cache_gb_s": 8.0, "memory_gb_s": 2.0}
    steps = [{("update", "", profiling.__file__, 1): note}]
    work = Workload("cupy", batch_size=70)
    result = profiling.summed(work, np.array([2.0, 3.5, 9.0, 9.0]), steps, peaks)
    assert (result["step_ms"], result["between_ms"]) == (2.0, 1.5)
    result |= {"workload": work.as_row(), "launch_ms": launch_ms, "device_ms": 2.0, "not_ahead": []}
    text = bench.profile_table(result)
    assert f"takes the host {launch_ms:.3f} ms, 0.750 ms of it in the calls below, and the device works" in text
    assert limit in text and "launch µs" in text and "8 GB/s in the L2 cache" in text
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("1 ")]
    assert row[:5] == ["1", "0.5000", "25.0%", "750.0", "4.000"]
    assert "one thread" not in text and "not ahead" not in text


def test_the_command_profiles_a_step_on_the_device(waits, tmp_path, capsys):
    words = ["--hidden", "8", "--latent", "2", "--visible", "9", "--repeats", "1", "--backend", "cupy"]
    assert main(["bench", "--profile", *words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "launch µs" in out and "limits the step" in out and "stand-in" in out
    result = json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))
    assert result["workload"]["backend"] == "cupy" and all("launch_ms" in one for one in result["operations"])
    assert (tmp_path / "profile.png").stat().st_size > 5000


def test_a_profile_without_cupy_is_one_line_and_exit_code_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["bench", "--profile", "--backend", "cupy", "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert "backend 'cupy' is missing the package" in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_the_bandwidth_of_a_device_counts_two_arrays_read_and_one_written(waits):
    clock = types.SimpleNamespace(timed=lambda function, count, queueing_ms: (9.0, 2.0, True))  # ms a pass
    for dtype in ("float32", "float64"):
        assert peaks.device_bandwidth(dtype, 3 << 12, clock) == (3 << 12) / 2 / 1e6


def test_the_arrays_of_the_two_bandwidths_fit_into_half_the_cache_and_lie_far_beyond_it(waits, monkeypatch):
    cache, memory = peaks.device_sizes()
    assert (cache, memory) == (3 << 12, 16 * 3 << 13)
    monkeypatch.setattr(peaks, "IN_DEVICE_MEMORY", 3 << 28)
    assert peaks.device_sizes()[1] == 3 << 28
    waits.free = waits.taken + (1 << 20)
    assert peaks.device_sizes()[1] == 1 << 19  # at most half of what is free
