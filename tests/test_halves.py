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
from scratchvae.training.halves import LONG, in_halves, second_core

MODEL = {"n_visible": 784, "n_hidden": 300, "n_latent": 10}  # its vectors are long enough


@pytest.fixture
def two_cores(monkeypatch):
    """A second core, whatever the machine has, and a list of what was asked of it."""
    asked, real = [], second_core() or ThreadPoolExecutor(1).submit

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


def test_numpys_error_state_holds_in_both_halves():
    optimizer, params = Adagrad(eps=0), VAE(**MODEL).params
    optimizer.start(params)
    params.grad[...] = 0
    with np.errstate(all="ignore"):  # 0/0, of which a warning would be an error here
        optimizer.ascend(params, 1)
    assert np.isnan(params.value).all()


@pytest.mark.skipif(sys.platform != "linux", reason="on this system a thread cannot choose its core")
def test_one_core_asked_for_or_one_there_is_one_core_used():
    code = "from scratchvae.training.halves import second_core; print(second_core())"
    one = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert one.stdout == "None\n"
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + code
    one = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert one.stdout == "None\n"


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
