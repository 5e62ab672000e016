"""training/halves.py: the same numbers from two cores as from one."""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scratchvae import SGD, VAE, Adagrad, Adam
from scratchvae.training import halves
from scratchvae.training.halves import LONG, in_halves

MODEL = {"n_visible": 784, "n_hidden": 300, "n_latent": 10}  # its vectors are long enough


@pytest.fixture
def two_cores(monkeypatch):
    """A second core, whatever the machine has, and a list of what was asked of it."""
    asked, real = [], ThreadPoolExecutor(1).submit

    def start(function, *arguments):
        asked.append(arguments[-1])
        return real(function, *arguments)

    monkeypatch.setattr(halves, "second_core", lambda: start)
    return asked


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
@pytest.mark.parametrize("name", ["all", "phi", "theta"])
def test_an_update_in_halves_is_the_update_to_the_bit(two_cores, make, name):
    values = []
    for split in (True, False):
        model, optimizer = VAE(**MODEL), make()
        part = slice(None) if name == "all" else getattr(model, name)
        optimizer.start(model.params)
        for step in (1, 2):
            model.params.grad[...] = np.random.default_rng(step).standard_normal(model.params.grad.size, np.float32)
            (make.ascend if split else make.ascend.__wrapped__)(optimizer, model.params, step, part)
        values.append([model.params.value, *optimizer.state.values()])
    for ours, theirs in zip(*values, strict=True):
        assert_array_equal(ours, theirs)
    assert len(two_cores) == (2 if part.stop is None or part.stop - part.start >= LONG else 0)


def test_an_error_in_either_half_arrives_and_a_short_vector_is_not_split(two_cores):
    params = VAE(**MODEL).params
    for place in (0, params.value.size - 1):

        @in_halves
        def fail(self, params, step, part, place=place):
            if part.start <= place < part.stop:
                raise FloatingPointError(place)

        with pytest.raises(FloatingPointError, match=str(place)):
            fail(None, params, 1)
    two_cores.clear()
    in_halves(lambda self, params, step, part: None)(None, VAE(64, 50, 5).params, 1)
    assert two_cores == []


def test_a_half_that_never_begins_is_taken_over(monkeypatch):
    monkeypatch.setattr(halves, "second_core", lambda: lambda *call: Future())  # a core that is busy elsewhere
    values = []
    for ascend in (Adagrad.ascend, Adagrad.ascend.__wrapped__):
        optimizer, params = Adagrad(), VAE(**MODEL).params
        optimizer.start(params)
        params.grad[...] = 1
        ascend(optimizer, params, 1)
        values.append(params.value)
    assert_array_equal(*values)


@pytest.mark.parametrize("error", [PermissionError(1, "not permitted"), RuntimeError("interpreter shutdown")])
def test_a_second_core_that_cannot_be_had_is_done_without(monkeypatch, error):
    def refuse(*call):
        raise error

    monkeypatch.setattr(halves, "second_core", lambda: refuse)
    optimizer, params = SGD(1.0), VAE(**MODEL).params
    optimizer.start(params)
    before = params.value.copy()
    params.grad[...] = 1
    optimizer.ascend(params, 1)
    assert_array_equal(params.value, before + 1)


def test_training_in_a_thread_goes_on_when_the_main_thread_has_ended():
    code = """
import threading, numpy as np
from scratchvae import VAE, fit
def train():
    fit(VAE(784, 300, 10), np.zeros((500, 784), np.uint8), samples=5000)
    print("done", flush=True)
threading.Thread(target=train).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n" and done.stderr == ""


def test_numpys_error_state_holds_in_both_halves():
    optimizer, params = Adagrad(eps=0), VAE(**MODEL).params
    optimizer.start(params)
    params.grad[...] = 0
    with np.errstate(all="ignore"):  # 0/0, of which a warning would be an error here
        optimizer.ascend(params, 1)
    assert np.isnan(params.value).all()


@pytest.mark.skipif(sys.platform != "linux", reason="on this system a thread cannot choose its core")
def test_one_core_asked_for_or_one_there_is_one_core_used():
    code = """
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from scratchvae import VAE, Adagrad
submitted, submit = [], ThreadPoolExecutor.submit
def counting(self, function, *rest):
    submitted.append(rest[0] if rest else function)
    return submit(self, function, *rest)
ThreadPoolExecutor.submit = counting
optimizer, params = Adagrad(), VAE(784, 300, 10).params
optimizer.start(params)
optimizer.ascend(params, 1)
print(sum("ascend" in str(function) for function in submitted))
"""
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})" + code
    for environment, program, halves_submitted in [
        ({"OPENBLAS_NUM_THREADS": "1"}, code, 0),
        ({"OMP_NUM_THREADS": "1"}, code, 0),
        ({}, pinned, 0),
        ({}, code, 1 if len(os.sched_getaffinity(0)) > 1 else 0),  # control
    ]:
        free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        run = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", program]
        done = subprocess.run(run, env=free | environment, capture_output=True, text=True)
        assert done.stdout == f"{halves_submitted}\n", (environment, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_a_second_thread_of_its_own():
    code = """
import os, sys
from scratchvae import VAE, Adagrad
model, optimizer = VAE(784, 300, 10), Adagrad()
optimizer.start(model.params)
optimizer.ascend(model.params, 1)
child = os.fork()
optimizer.ascend(model.params, 2)
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "both\n", done.stderr
