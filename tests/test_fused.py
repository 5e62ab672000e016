"""backend.fused: functions that become one kernel give the same bits, in fewer launches, by the rules of cupy.fuse."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import standin
from conftest import host, rows
from numpy.testing import assert_array_equal
from on_nodevice import STEPS

import scratchvae
from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, fit
from scratchvae.backend import Fusing, array_module, fused, fusing, move
from scratchvae.bench import Workload, minibatches, training_step
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.noise import MANY, standard_normal

X = rows(12, 16)
MODELS = [
    *({"estimator": name, "n_samples": 3} for name in OBJECTIVES),
    *({"likelihood": name} for name in ("gaussian", "isotropic", "laplace", "continuous-bernoulli")),
    *({"activation": name} for name in ("relu", "softplus", "sigmoid")),
    {"flow": 2},
    {"posterior": "full"},
    {"channels": (3,)},
    {"free_bits": 0.1},
    {"n_classes": 0, "beta": 0.5},
]


def names_of_fused():
    """The names of all functions of the package that are `fused`."""
    code = fused(lambda x: x).__code__
    found = set()
    for module in pkgutil.walk_packages(scratchvae.__path__, "scratchvae."):
        if module.name.endswith("__main__"):
            continue
        module = importlib.import_module(module.name)
        for holder in [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]:
            for value in vars(holder).values():
                function = value.__func__ if isinstance(value, staticmethod) else value
                if getattr(function, "__code__", None) is code:
                    found.add(function.__name__)
    return found


def data(settings):
    """Pixels, or for the likelihoods that are no cross entropy floats."""
    return X if "likelihood" in settings else np.round(255 * X).astype(np.uint8)


def trained(make, optimizer, on, x=X):
    """Parameters and bounds of a short training on the device, and the names of what was called there."""
    model = make()
    with fusing(on), standin.logged() as log:
        history = fit(model, x, x, optimizer=optimizer(), samples=60, batch_size=5, log_every=20)
    return host(model.params.value), history, {call.name for call in log}


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_training_with_fused_kernels_has_the_same_bits(waits, settings):
    x = data(settings)
    found = [trained(lambda: VAE(16, 5, 2, backend="cupy", **settings), Adagrad, on, x) for on in (False, True)]
    assert_array_equal(found[1][0], found[0][0])
    for name in set(found[0][1].dtype.names) - {"seconds"}:
        assert_array_equal(found[1][1][name], found[0][1][name])
    assert not any(name.startswith("fused") for name in found[0][2])
    assert any(name.startswith("fused") for name in found[1][2])


OPTIMIZERS = [SGD, Adam, lambda: Adagrad(warmup=4)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [VAE, FullVB])
def test_the_other_optimisers_and_a_posterior_over_theta_have_the_same_bits_too(waits, model, optimizer):
    found = [trained(lambda: model(16, 5, 2, backend="cupy"), optimizer, on) for on in (False, True)]
    assert_array_equal(found[1][0], found[0][0])


def test_the_noise_that_is_made_on_the_device_has_the_same_bits(waits):
    drawn = []
    for on in (False, True):
        with fusing(on), standin.logged() as log:
            drawn.append(standard_normal(np.random.default_rng(0), (MANY,), np.float32, "cupy"))
    assert_array_equal(host(drawn[0]), host(drawn[1]))
    assert len(log) < 10


def test_these_tests_are_of_every_fused_function_of_the_package(waits):
    seen = set()
    for settings in MODELS:
        seen |= trained(
            lambda settings=settings: VAE(16, 5, 2, backend="cupy", **settings), Adagrad, True, data(settings)
        )[2]
    for optimizer in OPTIMIZERS:
        seen |= trained(lambda: FullVB(16, 5, 2, backend="cupy"), optimizer, True)[2]
    with fusing(), standin.logged() as log:
        standard_normal(np.random.default_rng(0), (MANY,), np.float32, "cupy")
    seen |= {call.name for call in log}
    assert len(names_of_fused()) > 20
    assert {name.removeprefix("fused ") for name in seen if name.startswith("fused ")} == names_of_fused()


# How many launches


LAUNCHES = {  # of one step at the paper's sizes: as they are, and fused
    "L^B, Bernoulli": (92, 50),
    "L^A, Bernoulli": (86, 53),
    "L^B, Gaussian decoder": (107, 59),
    "L^B, 5 draws": (92, 50),
    "importance-weighted, 5 draws": (96, 63),
    "full covariance": (129, 107),
    "flow of 10 maps": (805, 772),
    "convolutions of 16 and 32": (254, 204),
    "full VB": (684, 172),
    "full VB, local": (697, 201),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_step_puts_no_more_into_the_devices_queue_than_it_did(waits, name):
    plain, fewer = LAUNCHES[name]
    work = Workload("cupy", **STEPS[name])
    step = training_step(work)
    x = [move(batch, "cupy") for batch in minibatches(work, 2)]
    for on, expected in [(False, plain), (True, fewer)]:
        with fusing(on):
            step(0, x[0])
            with standin.logged() as log:
                step(1, x[1])
        assert sum(call.launches for call in log) == expected


# The rules of cupy.fuse


BROKEN = {
    "a product": lambda x, y: x @ y,
    "a slice": lambda x, y: x[1:] + y[1:],
    "a shape": lambda x, y: x / x.shape[0],
    "a length": lambda x, y: x / len(y),
    "a question": lambda x, y: x if y else -x,
    "a method": lambda x, y: x.sum(axis=-1),
    "a function that is none of elements": lambda x, y: np.concatenate([x, y]),
    "two sums": lambda x, y: np.sum(x, axis=0) + np.sum(y, axis=0),
    "a sum of a sum": lambda x, y: np.sum(np.sum(x, axis=0), axis=0),
    "what was not summed, after a sum": lambda x, y: (np.sum(x, axis=0), y + y)[0],
    "a sum that meets what was not summed": lambda x, y: x - np.sum(y, axis=-1),
    "a sum beside what was not summed": lambda x, y: (np.sum(x, axis=0), y),
    "a sum that keeps its axis": lambda x, y: np.sum(x, axis=0, keepdims=True),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_stand_in_refuses_what_cupy_cannot_fuse(waits, what):
    x = move(np.ones((3, 3)), "cupy")
    function = fused(BROKEN[what])
    with fusing(), pytest.raises((AttributeError, NotImplementedError, TypeError, ValueError)):
        function(x, x)


def test_the_stand_in_refuses_numbers_among_themselves_and_results_of_another_shape(waits):
    x = move(np.ones((3, 3), np.float32), "cupy")
    row = move(np.ones(3, np.float32), "cupy")
    with fusing():
        with pytest.raises(TypeError, match=r"of numbers alone: .* would compute it in float16"):
            fused(lambda x, a, b: x * (a * b))(x, 2.0, 3.0)
        with pytest.raises(NotImplementedError, match=r"returns \(3,\); CuPy would return \(3, 3\)"):
            fused(lambda x, y: (x + y, y + 1))(x, row)
        with pytest.raises(NotImplementedError, match=r"returns \(\); CuPy would return \(3,\)"):
            fused(lambda x, y: np.sum(y * y, axis=-1))(x, row)  # CuPy sums over the last axis of x and y together
        with pytest.raises(TypeError, match="Invalid argument type"):
            fused(lambda x, y: x + y)(x, np.ones((3, 3)))
        with pytest.raises(TypeError):
            standin.Fused(lambda x: np.exp(x))(x)  # NumPy's exp, which CuPy's fuse cannot follow


def test_fusing_is_off_unless_it_is_asked_for(waits):
    x = move(np.ones(3), "cupy")
    double = fused(lambda x: x + x)
    for on, expected in [(None, ["add"]), (True, ["fused <lambda>"]), (False, ["add"])]:
        with fusing(Fusing.on if on is None else on), standin.logged() as log:
            y = double(x)
        assert_array_equal(host(y), 2)
        assert [call.name for call in log] == expected
    with fusing():
        assert double(3) == 6 and double(np.ones(2)).sum() == 4  # what is not on the device is as it was
    assert not Fusing.on


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_the_environment_says_for_a_process_whether_it_is_fused(value, on):
    code = "from scratchvae.backend import Fusing; print(Fusing.on)"
    done = subprocess.run([sys.executable, "-c", code], env={"SCRATCHVAE_FUSE": value}, capture_output=True, text=True)
    assert done.stdout.strip() == str(on), done.stderr


def test_another_value_in_the_environment_is_refused(waits, monkeypatch):
    monkeypatch.setenv("SCRATCHVAE_FUSE", "yes")
    for backend in ("numpy", "cupy"):
        with pytest.raises(ValueError, match="SCRATCHVAE_FUSE is 'yes'; expected 1, or 0 or nothing, which is the def"):
            array_module(backend)


def test_each_setting_makes_a_kernel_of_its_own(waits):
    @fused
    def scaled(x, dtype):
        return x.astype(dtype) / 2

    x = move(np.ones(3, np.uint8), "cupy")
    with fusing():
        for dtype in (np.float32, np.float64, np.float32):
            assert scaled(x, dtype=dtype).dtype == dtype


def test_a_function_that_would_lose_its_defaults_or_its_surroundings_is_refused():
    beta = 2.0
    for function in (lambda x, y=1.0: x * y, lambda x, *, y=1.0: x * y, lambda x: beta * x):
        with pytest.raises(TypeError, match=r"<lambda> has defaults or names of a function around it"):
            fused(function)


def test_fusing_ends_with_its_block_also_after_an_error():
    with pytest.raises(KeyError), fusing():
        raise KeyError
    assert not Fusing.on


def test_another_text_of_a_function_is_another_kernel(waits):
    x = move(np.ones(3), "cupy")
    called = fused(lambda x: x + x)
    with fusing():
        assert float(called(x)[0]) == 2
        called.__wrapped__.__code__ = (lambda x: x * 3).__code__  # as where a mistake is planted
        assert float(called(x)[0]) == 3
