"""backend.py: the same lines on CuPy, proved on a strict stand-in: equal to the bit, no step waits, nothing mixes."""

import builtins
import json
import re
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest
import standin
from conftest import cells, host, rows
from numpy.testing import assert_array_equal
from on_nodevice import WORK

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, evaluate, fit, load_model
from scratchvae.backend import array_module, kind, move, require_memory
from scratchvae.cli import main
from scratchvae.gradcheck import check_matrix, check_parts
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.marginal import annealed, appendix_d, importance
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.objectives.sgvb import sgvb_b
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.noise import MANY

TRAIN, VALID = rows(23), rows(9, seed=2)
PIXELS = np.random.default_rng(3).integers(0, 256, (23, 6), dtype=np.uint8)


def both(**settings):
    return [VAE(6, 5, 2, backend=backend, **settings) for backend in ("numpy", "cupy")]


def same(history, other):
    for name in history.dtype.names:
        if name != "seconds":
            assert_array_equal(history[name], other[name])


# The same numbers


@pytest.mark.parametrize("make", [lambda: SGD(1e-4), lambda: Adagrad(0.05, warmup=4), lambda: Adam(0.01)])
@pytest.mark.parametrize("schedule", ["joint", "alternating"])
@pytest.mark.parametrize("binarization", ["grey", "dynamic"])
def test_training_on_the_device_equals_training_on_the_host_to_the_bit(waits, make, schedule, binarization):
    settings = {"samples": 400, "batch_size": 10, "schedule": schedule, "binarization": binarization, "log_every": 70}
    for train in (TRAIN, PIXELS):
        ours, theirs = both()
        histories = [fit(model, train, VALID, optimizer=make(), **settings) for model in (ours, theirs)]
        same(*histories)
        assert kind(theirs.params.value) == "cupy" and kind(ours.params.value) == "numpy"
        assert_array_equal(host(theirs.params.value), ours.params.value)


@pytest.mark.parametrize("estimator", [name for name in OBJECTIVES if name not in ("A", "B")])
def test_the_other_objectives_train_alike_on_both_backends_too(waits, estimator):
    models = both(estimator=estimator, n_samples=3)
    same(*[fit(model, TRAIN, VALID, samples=300, batch_size=10, log_every=70) for model in models])
    assert_array_equal(host(models[1].params.value), models[0].params.value)


@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_the_marginal_likelihood_is_the_same_on_both_backends(waits):
    models = both(dtype="float64", init=0.3)
    for estimate in (
        lambda model: importance(model, TRAIN[:5], 200),
        lambda model: appendix_d(model, TRAIN[:5], 40, burn_in=20, steps=3, thin=1),
        lambda model: annealed(model, TRAIN[:5], 30, 10),
    ):
        ours, theirs = (estimate(model) for model in models)
        for name in vars(ours):
            assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_evaluate_is_the_same_on_both_backends(waits, likelihood):
    ours, theirs = both(likelihood=likelihood, n_samples=3)
    assert evaluate(ours, rows(700), seed=4) == evaluate(theirs, rows(700), seed=4)


def test_a_run_resumes_exactly_on_the_device_and_also_on_the_other_backend(waits, tmp_path):
    def go(name, backend, samples, resume=False):
        model = VAE(6, 5, 2, backend=backend)
        settings = {"batch_size": 10, "log_every": 50, "binarization": "dynamic", "out": tmp_path / name}
        history = fit(model, TRAIN, VALID, optimizer=Adam(0.01), samples=samples, resume=resume, **settings)
        return host(model.params.value), history

    value, history = go("unbroken", "cupy", 160)
    for stop, backend, on in [(30, "cupy", "cupy"), (77, "cupy", "cupy"), (77, "cupy", "numpy"), (90, "numpy", "cupy")]:
        name = f"{stop}{backend}{on}"
        go(name, backend, stop)
        resumed_value, resumed = go(name, on, 160, resume=True)
        assert_array_equal(resumed_value, value)
        same(resumed, history)
    for backend in ("numpy", "cupy"):
        model = load_model(tmp_path / "unbroken", backend=backend)
        assert kind(model.params.value) == backend
        assert_array_equal(host(model.params.value), value)


def test_a_model_goes_to_the_other_backend_and_back_with_its_parameters(waits):
    model = VAE(6, (5, 4), 2, "gaussian", "free", estimator=sgvb_b)
    model.n_samples = 3  # as `evaluate --n-samples` does
    there = model.to("cupy")
    assert there.backend == "cupy" and there.to("cupy") is there and there.n_samples == 3
    assert_array_equal(there.to("numpy").params.value, model.params.value)
    assert_array_equal(host(there.encode_mean(move(PIXELS, "cupy"))), model.encode_mean(PIXELS))


def test_every_gradient_passes_on_the_device_and_the_rows_are_those_of_the_host(waits):
    found = []
    for backend in ("numpy", "cupy"):
        with cells(lambda k, *_: k % 32 == 5):  # of every objective one model or more
            found.append([*check_parts(backend=backend), *check_matrix(backend=backend)])
    ours, theirs = found
    assert ours == theirs
    checked = [report for _, report in theirs if not isinstance(report, str)]
    assert len(checked) > 7 and all(checked)


# No waiting


def test_a_checkpoint_between_rows_reads_the_bounds_first_and_the_run_resumes_exactly(waits, tmp_path, monkeypatch):
    monkeypatch.setattr("scratchvae.training.run.LONGEST_WITHOUT_CHECKPOINT", 0)  # one after each step
    monkeypatch.setattr("scratchvae.training.run.SHARE", float("inf"))

    def go(name, samples, backend="cupy", resume=False):
        model, settings = VAE(6, 5, 2, backend=backend), {"batch_size": 10, "log_every": 100, "out": tmp_path / name}
        return fit(model, TRAIN, optimizer=Adam(0.01), samples=samples, resume=resume, **settings)

    go("stopped", 150)
    same(go("stopped", 300, resume=True), go("unbroken", 300, backend="numpy"))


def count(waits, steps, **settings):
    """How often a run of so many steps waited for the device."""
    model = VAE(6, 5, 2, backend="cupy", **settings)
    waits.count = 0
    fit(model, PIXELS, optimizer=Adagrad(), samples=10 * steps, batch_size=10, log_every=10**6)
    return waits.count


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("estimator", ["A", "B"])
def test_a_training_step_never_waits_for_the_device(waits, likelihood, estimator):
    settings = {"likelihood": likelihood, "estimator": estimator, "n_samples": 2}
    assert count(waits, 5, **settings) == count(waits, 50, **settings) <= 3

    def reading(*arguments):  # control: an estimator that looks at its own bound
        bound = sgvb_b(*arguments)
        return bound * 1.0 if float(bound) else bound

    assert count(waits, 50, estimator=reading) >= 50


def test_many_noise_numbers_are_made_on_the_device_and_do_not_wait_either(waits):
    model = VAE(6, 5, 2, n_samples=MANY // 16, backend="cupy")
    noise = model.noise(np.random.default_rng(0), 8)
    assert kind(noise) == "cupy" and noise.size == MANY and waits.count == 0


def test_a_bound_that_is_not_finite_is_found_when_it_is_read_and_named_by_its_step(waits, tmp_path):
    model = VAE(6, 5, 2, backend="cupy")
    bound, calls = model.bound, []

    def poison(x, noise, n_data, gradient=False, share=None):
        calls.append(n_data)
        if len(calls) == 6:
            model.params.named(model.params.value)["decoder.logits.b"][...] = np.nan
        return bound(x, noise, n_data, gradient, share)

    model.bound = poison
    later = (
        r"bound is nan at step 6 \(43 samples\), read 1 steps later \(on backend 'numpy' the array is named\): try a"
    )
    with pytest.raises(FloatingPointError, match=later):
        fit(model, TRAIN, samples=1000, batch_size=10, log_every=53, out=tmp_path)
    assert np.isfinite(load_model(tmp_path).params.value).all()


DOUBLE = {  # what makes float64 on purpose
    "float64",
    "sums",
    "annealed",  # whose log weights are sums of many small terms
    "sandwich",  # likewise
}


@pytest.mark.parametrize("name", [name for name in WORK if name not in DOUBLE and not name.startswith("a step")])
@pytest.mark.filterwarnings("ignore:k_hat is above")
def test_a_float32_model_makes_no_float64_but_single_numbers_on_the_device(waits, name):
    with standin.logged() as log:
        WORK[name]()
    assert len(log) > 5
    for call in log:
        double = re.search("'float64', [1-9]", str(call.made))  # as `told` has it, with one axis or more
        assert not double or call.name == "asarray", (call.name, call.place)


# Nothing mixes, nothing overflows


@pytest.mark.parametrize("method", ["encode", "decode", "reconstruct", "draw", "pixels"])
def test_a_host_array_is_refused_by_a_device_model_and_both_kinds_are_named(waits, method):
    ours, theirs = both()
    x = rows(3) if method in ("encode", "reconstruct", "pixels") else np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"is a numpy array and the model's are cupy: .*backend\.move\("):
        getattr(theirs, method)(x)
    with pytest.raises(ValueError, match="is a cupy array and the model's are numpy"):
        getattr(ours, method)(move(x, "cupy"))
    with pytest.raises(ValueError, match="noise is a numpy array and the model's are cupy"):
        theirs.bound(move(rows(3), "cupy"), np.zeros((1, 3, 2)), 3)
    with pytest.raises(ValueError, match="train is on the device, a cupy array; expected rows in host memory"):
        fit(theirs, move(TRAIN, "cupy"))


def test_the_stand_in_is_as_strict_as_cupy(waits):
    a = move(np.ones((2, 3)), "cupy")
    for mix in (
        lambda: a + np.ones((2, 3)),
        lambda: np.ones((2, 3)) * a,
        lambda: np.add(a, a, out=np.ones((2, 3))),
        lambda: np.concatenate([a, np.ones((2, 3))]),
        lambda: a.__setitem__(0, np.ones(3)),
        lambda: np.asarray(a),
        lambda: np.add.reduce(a),
        lambda: np.linalg.norm(a),
    ):
        with pytest.raises(TypeError):
            mix()
    waits.count = 0  # an error that shows the array has read it
    assert a.sum().shape == () and kind(a.sum()) == "cupy" and waits.count == 0
    first = a[0]
    first += 1
    assert float(a.sum()) == 9 and waits.count == 1
    assert a[a > 1].shape == (3,) and waits.count == 2  # whose size must be read
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        np.sum(a, where=True)


@pytest.mark.parametrize("room", [True, False])
def test_data_that_do_not_fit_are_sent_by_the_minibatch_with_the_same_result(waits, room):
    train = np.random.default_rng(0).integers(0, 256, (5000, 6), dtype=np.uint8)
    ours, theirs = both()
    fit(ours, train, samples=200, batch_size=10)
    waits.taken = 0
    waits.free = 2 * theirs.params.value.nbytes + theirs.working_memory(10) + train.nbytes - (0 if room else 500)
    fit(theirs, train, samples=200, batch_size=10)
    assert (waits.taken > train.nbytes) == room
    assert_array_equal(host(theirs.params.value), ours.params.value)


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
def test_too_little_device_memory_is_refused_with_what_the_job_needs(waits, tmp_path, make):
    model, train = VAE(784, 500, 20, backend="cupy"), np.full((200, 784), 255, np.uint8)
    size = model.params.value.nbytes
    for valid, work in [(None, model.working_memory(100)), (np.ones((2000, 784)), model.working_memory(1000))]:
        needed = work + (1 + len(make.names)) * size
        waits.free = waits.taken + needed - 1
        with pytest.raises(MemoryError, match=rf"needs about {needed / 2**20:.0f} MiB of device memory and \d+ MiB"):
            fit(model, train, valid, optimizer=make(), samples=200, out=tmp_path / "run")
    with pytest.raises(MemoryError, match="needs about 6 MiB"):
        waits.free = waits.taken + 2 * size - 1
        VAE(784, 500, 20, backend="cupy")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
def test_an_optimiser_allocates_as_many_vectors_as_it_says(waits, make):
    model = VAE(784, 500, 20, backend="cupy")
    waits.taken, size = 0, model.params.value.nbytes
    make().start(model.params)
    assert waits.taken == (1 + len(make.names)) * size


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("hidden", "n_samples", "m"), [(500, 1, 100), (200, 3, 50), (50, 1, 400)])
def test_the_memory_of_a_step_is_foreseen(likelihood, hidden, n_samples, m):
    model = VAE(784, hidden, 20, likelihood, n_samples=n_samples)
    x, eps = np.zeros((m, 784), np.uint8), model.noise(np.random.default_rng(0), m)
    tracemalloc.start()
    for _ in range(2):  # the second while the layers still keep what they need of the first
        model.bound(x, eps, 1000, gradient=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.6 * model.working_memory(m) < peak < model.working_memory(m)


@pytest.mark.parametrize(
    ("settings", "m"),
    [
        ({"likelihood": "isotropic"}, 100),
        ({"channels": (16, 32)}, 50),
        ({"channels": (8,), "likelihood": "gaussian", "n_samples": 2}, 100),
        ({"flow": 10}, 100),
        ({"flow": 4, "n_samples": 3, "channels": (8,)}, 50),
    ],
)
def test_the_memory_of_a_step_of_other_networks_is_foreseen(settings, m):
    model = VAE(784, 128, 20, **settings)
    x, eps = np.zeros((m, 784), np.uint8), model.noise(np.random.default_rng(0), m)
    tracemalloc.start()
    for _ in range(2):
        model.bound(x, eps, 1000, gradient=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * model.working_memory(m) < peak < model.working_memory(m)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        *(({"n_visible": 1000, "likelihood": name}, 0.7) for name in LIKELIHOODS),
        *(({"n_hidden": 1000, "activation": name}, 0.8) for name in ACTIVATIONS),
        ({"n_hidden": [500, 500, 500]}, 0.6),
        ({"n_latent": 300}, 0.6),
        ({"n_latent": 40, "posterior": "full"}, 0.8),
        ({"flow": 40}, 0.8),
        ({"n_visible": 1000, "n_samples": 4}, 0.8),
        ({"n_visible": 256, "channels": (4, 8)}, 0.5),
        ({"n_visible": 1000, "estimator": "wake-sleep"}, 0.45),
        ({"n_visible": 1000, "estimator": "black-box", "n_samples": 4}, 0.8),
    ],
)
def test_the_memory_is_foreseen_whatever_it_is_that_is_wide(settings, least):
    model = VAE(**{"n_visible": 9, "n_hidden": 5, "n_latent": 2} | settings)
    m = 100
    x = np.zeros((m, model.n_visible), np.uint8)
    noise = model.noise(np.random.default_rng(0), m)
    tracemalloc.start()
    for _ in range(2):  # the second while the layers still keep what they need of the first
        model.bound(x, noise, 1000, gradient=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert least * model.working_memory(m) < peak < model.working_memory(m)


@pytest.mark.parametrize(
    ("settings", "draws", "of_x", "of_hidden"),
    [  # how many arrays for each draw are as wide as x, and as the widest hidden layer
        ({}, 1, 5, 4 + 3),
        ({"n_samples": 3}, 3, 5, 4 + 3),
        ({"likelihood": "gaussian"}, 1, 8, 4 + 3),
        ({"likelihood": "isotropic"}, 1, 8, 4 + 3),
        ({"likelihood": "continuous-bernoulli"}, 1, 11, 4 + 3),
        ({"activation": "softplus"}, 1, 5, 4 + 6),
        ({"estimator": "wake-sleep", "n_samples": 3}, 4, 5, 4 + 3),  # once more for the dreams
        ({"posterior": "full"}, 1, 5, 4 + 3),
    ],
)
def test_the_memory_of_a_step_counts_so_many_arrays_of_each_width(settings, draws, of_x, of_hidden):
    model = VAE(70, 50, 3, **settings)
    outputs = 3 + 3 + (3 if "posterior" in settings else 0)  # mu and log_var, and what is below the diagonal
    each = of_x * 70 + of_hidden * 50 + 2 * 3 + 6 * outputs
    assert model.working_memory(11) == 4 * 11 * (draws * each + 2 * 70)
    assert VAE(70, 50, 3, dtype="float64", **settings).working_memory(11) == 2 * model.working_memory(11)
    two = VAE(70, (50, 20), 3, **settings)
    assert two.working_memory(11) - model.working_memory(11) == 4 * 11 * draws * 4 * 20
    none = VAE(70, (), 3, **settings)
    assert model.working_memory(11) - none.working_memory(11) == 4 * 11 * draws * of_hidden * 50


def test_the_memory_of_a_step_counts_the_patches_of_every_convolution_twice():
    one = VAE(64, 5, 2, channels=(3,))
    two = VAE(64, 5, 2, channels=(3, 7))
    none = VAE(64, 5, 2)
    first = 4 * 4 * (4 * 4 * 1)  # positions times the entries of a patch, of 8 x 8 images with one channel
    second = 2 * 2 * (4 * 4 * 3)  # and of 4 x 4 images with three
    patches = [2 * first, 2 * (first + second)]  # in the encoder, and turned around in the decoder
    for model, entries in zip([one, two], patches, strict=True):
        assert model.working_memory(11) - none.working_memory(11) == 4 * 11 * 2 * entries


def test_as_many_datapoints_are_taken_at_a_time_as_256_mebibytes_hold_and_at_most_a_thousand(monkeypatch):
    model = VAE(6, 5, 2, n_samples=3)
    room = 1 << 28
    for bytes_of_one, expected in [
        (room // 1001, 1000),
        (room // 1000, 1000),
        (room // 999, 999),
        (room // 2, 2),
        (room // 2 + 1, 1),
        (room, 1),
        (3 * room, 1),  # one at least
    ]:
        monkeypatch.setattr(VAE, "working_memory", lambda model, m, n=bytes_of_one: 3 * n)  # of three draws
        assert model.rows_at_once() == expected


def test_what_fills_the_memory_to_the_last_byte_is_let_through_and_a_byte_more_is_not(monkeypatch):
    monkeypatch.setattr("scratchvae.backend.host_memory", lambda: 5 << 20)
    require_memory(5 << 20, "numpy")
    with pytest.raises(MemoryError, match="this job needs about 5 MiB of memory and this machine has 5 MiB"):
        require_memory((5 << 20) + 1, "numpy")
    monkeypatch.setattr("scratchvae.backend.free_memory", lambda backend: 3 << 20)
    require_memory(3 << 20, "cupy")
    with pytest.raises(MemoryError, match="the model needs about 3 MiB of device memory and 3 MiB are free"):
        require_memory((3 << 20) + 1, "cupy", "the model")


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("theta_noise", THETA_NOISE)
@pytest.mark.parametrize(("hidden", "m"), [(200, 20), (50, 100)])
def test_the_memory_of_a_step_of_full_vb_its_noise_drawn_on_the_device_is_foreseen(
    waits, theta_noise, likelihood, hidden, m
):
    model = FullVB(784, hidden, 20, likelihood=likelihood, theta_noise=theta_noise, backend="cupy")
    x = move(np.zeros((m, 784), np.uint8), "cupy")
    tracemalloc.start()
    for _ in range(2):
        model.bound(x, model.noise(np.random.default_rng(0), m), 1000, gradient=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * model.working_memory(m) < peak < model.working_memory(m)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep what a step frees")
def test_a_training_step_asks_the_system_for_no_memory_that_it_has_just_given_back():
    code = """
import ctypes, resource, numpy as np
from scratchvae import bench
if {plain}:
    given_back = lambda: ctypes.CDLL(None).mallopt(-1, 1 << 17)  # control: give back all the time
    bench.workloads.keep_freed_memory = given_back
work = bench.Workload(batch_size=200)
step, x = bench.training_step(work), bench.minibatches(work, 2)
for t in range(10):
    step(t, x[t % 2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for t in range(20):
    step(t, x[t % 2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""
    kept, given_back = (
        float(subprocess.run([sys.executable, "-c", code.format(plain=plain)], capture_output=True, text=True).stdout)
        for plain in (False, True)
    )
    assert kept < 20 < 200 < given_back  # page faults per step


# What is missing


def broken(monkeypatch, **changes):
    """The stand-in with some of its runtime's functions replaced."""
    cupy = standin.module()
    for name, function in changes.items():
        setattr(cupy if hasattr(cupy, name) else cupy.cuda.runtime, name, function)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_an_unknown_backend_is_refused_by_name():
    with pytest.raises(ValueError, match="backend is 'jax'; expected one of numpy, cupy"):
        VAE(6, 5, 2, backend="jax")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    real = builtins.__import__

    def no_cupy(name, *rest):
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_cupy)
    with pytest.raises(ValueError, match=r"is missing the package \(No module named 'cupy'\): pip install .*cuda13"):
        VAE(6, 5, 2, backend="cupy")


def test_a_missing_driver_a_missing_device_and_missing_libraries_are_told_apart(monkeypatch):
    no_device = standin.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    broken(monkeypatch, driverGetVersion=lambda: 0, getDeviceCount=failing(no_device))
    with pytest.raises(ValueError, match="is missing the NVIDIA driver: install it"):
        array_module("cupy")
    broken(monkeypatch, driverGetVersion=lambda: 12040)
    with pytest.raises(
        ValueError, match=r"new enough: this one offers CUDA 12.4, .* for CUDA 13: update .*-cuda12x in"
    ):
        array_module("cupy")
    broken(monkeypatch, getDeviceCount=failing(no_device))
    with pytest.raises(ValueError, match=r"is missing a CUDA device that the driver offers .*cudaErrorNoDevice"):
        array_module("cupy")
    broken(monkeypatch, zeros=None, matmul=failing(standin.CUDARuntimeError("cudaErrorDevicesUnavailable: busy")))
    with pytest.raises(ValueError, match="the CUDA device cannot be used: cudaErrorDevicesUnavailable: busy; see"):
        array_module("cupy")
    broken(monkeypatch, getDeviceCount=lambda: 0)
    with pytest.raises(ValueError, match="none is visible"):
        array_module("cupy")
    broken(monkeypatch, matmul=failing(RuntimeError("Failure finding libcublas.so.13\nin a long tale")))
    with pytest.raises(ValueError, match=r"toolkit's libraries \(Failure finding libcublas.so.13\): pip install .*ctk"):
        array_module("cupy")
    no_library = {"matmul": failing(RuntimeError("none")), "runtimeGetVersion": lambda: 12090}
    broken(monkeypatch, **no_library)
    with pytest.raises(ValueError, match=r'pip install "cupy-cuda12x\[ctk\]", or install the toolkit'):
        array_module("cupy")


def test_lists_matrices_and_masked_arrays_are_read_as_plain_arrays():
    model, x = VAE(6, 5, 2, dtype="float64", init=0.5), rows(3)
    for other in (x.tolist(), x.view(np.matrix), np.ma.masked_array(x)):
        assert_array_equal(model.encode_mean(other), model.encode_mean(x))


def test_what_is_no_array_is_not_moved():
    for thing in ("abc", None, 5.0, [1.0]):
        with pytest.raises(ValueError, match=f"{type(thing).__name__} is no array; expected one of numpy or cupy"):
            move(thing, "numpy")


def test_the_names_of_kinds_are_those_of_the_packages(waits):
    assert kind(np.ones(1)) == "numpy" and kind(move(np.ones(1), "cupy")) == "cupy" and kind([1]) == "list"
    assert kind(types.SimpleNamespace()) == "SimpleNamespace"


# On the command line


def test_train_evaluate_and_plot_take_the_backend(waits, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "--backend", "cupy", "--samples", "3000", "--hidden", "20", "--out", run]) == 0
    assert "float32 on cupy" in capsys.readouterr().out
    results = []
    for backend in ("numpy", "cupy"):
        assert main(["evaluate", run, "--backend", backend, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    assert main(["train", "--resume", run, "--samples", "4000", "--backend", "numpy", "--quiet"]) == 0
    assert main(["plot", run]) == 0


def test_a_backend_that_is_not_there_is_one_line_and_exit_code_2(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    broken(monkeypatch, driverGetVersion=lambda: 0)
    assert main(["train", "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == (
        "scratchvae: error: backend 'cupy' is missing the NVIDIA driver: install it, and try nvidia-smi; "
        "or take backend 'numpy'\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("theta_noise", "all_parameters"), [("antithetic", True), ("datapoint", True), ("local", False)]
)
def test_a_step_of_full_vb_foresees_three_sums_of_all_gradients_or_two_of_those_of_theta(theta_noise, all_parameters):
    model = FullVB(60, 50, 5, theta_noise=theta_noise)
    zeta = model.noise(np.random.default_rng(0), 4)[1].size
    P = model.posterior.mu.size
    summed = 3 * model.params.value.size if all_parameters else 2 * P
    beside_the_vae = 4 * (3 * P + summed) + 24 * zeta  # float32; Philox's 24 bytes for each number of ζ
    assert model.working_memory(4) - super(FullVB, model).working_memory(4) == beside_the_vae
