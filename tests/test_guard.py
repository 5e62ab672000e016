"""guard.py: a model serves one thread at a time; a copy from another thread has all of a step or nothing of it."""

import copy
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from conftest import rows
from numpy.testing import assert_array_equal

from scratchvae import SGD, VAE, FullVB, evaluate, fit
from scratchvae.gradcheck import check_model
from scratchvae.guard import Guard
from scratchvae.inference.marginal import importance, quadrature
from scratchvae.inference.objectives.sgvb import sgvb_b
from scratchvae.models.full_vb import FullVB as Full

X = rows(40).astype(np.float32)
LONG = 60  # seconds, after which an event that never comes is a failure


class Gate:
    """L^B, which waits within the third step of the training thread until it is opened."""

    __name__ = "gate"

    def __init__(self):
        self.inside = threading.Event()
        self.open = threading.Event()
        self.steps = 0

    def __deepcopy__(self, memo):
        return self

    def __call__(self, q, p, x, eps, scale, gradient=True):
        bound = sgvb_b(q, p, x, eps, scale, gradient)
        if gradient and len(x) == 10:
            self.steps += 1
            if self.steps == 3:
                self.inside.set()
                assert self.open.wait(LONG)
        return bound


def training(gate, cls=VAE):
    model = cls(6, 5, 2, estimator=gate, init=0.5, seed=3)
    thread = threading.Thread(
        target=fit, args=(model, X), kwargs={"optimizer": SGD(1e-3), "samples": 60, "batch_size": 10}
    )
    thread.start()
    assert gate.inside.wait(LONG)
    return model, thread


def states():
    """The parameters after each of the six steps, trained in one thread."""
    model = VAE(6, 5, 2, estimator=sgvb_b, init=0.5, seed=3)
    found = []
    for samples in range(10, 70, 10):
        again = copy.deepcopy(model)
        fit(again, X, optimizer=SGD(1e-3), samples=samples, batch_size=10)
        found.append(again.params.value)
    return found


ASKED = {
    "encode": lambda m: m.encode(X),
    "encode_mean": lambda m: m.encode_mean(X),
    "decode": lambda m: m.decode(np.zeros((3, 2))),
    "draw": lambda m: m.draw(np.zeros((3, 2))),
    "sample": lambda m: m.sample(2),
    "reconstruct": lambda m: m.reconstruct(X),
    "bound": lambda m: m.bound(X, m.noise(np.random.default_rng(0), 40), 40),
    "terms": lambda m: m.terms(X, m.eps(np.random.default_rng(0), 40)),
    "evaluate": lambda m: evaluate(m, X),
    "fit": lambda m: fit(m, X, samples=10),
    "importance": lambda m: importance(m, X, 10),
    "quadrature": lambda m: quadrature(m, X, 5),
    "check_model": lambda m: check_model(m, X),
}


def test_a_second_thread_is_refused_while_fit_is_at_work_and_the_training_ends_with_the_same_bits():
    gate = Gate()
    model, thread = training(gate)
    for name, ask in ASKED.items():
        with pytest.raises(RuntimeError, match=r"at work in another thread.*copy\.deepcopy\(model\)"):
            pytest.fail(f"{name} was let in: {ask(model)}")
    gate.open.set()
    thread.join(LONG)
    assert_array_equal(model.params.value, states()[-1])
    assert len(model.sample(2)) == 2  # and afterwards everybody may


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_taken_in_a_second_thread_waits_for_the_end_of_the_step_and_is_whole(way, monkeypatch):
    gate = Gate()
    monkeypatch.setitem(globals(), "GATE", gate)
    monkeypatch.setattr(Gate, "__reduce__", lambda self: "GATE")
    model, thread = training(gate)
    copies = []
    copier = threading.Thread(target=lambda: copies.append(way(model)))
    copier.start()
    copier.join(0.2)
    assert copier.is_alive() and not copies  # the step is not over
    gate.open.set()
    copier.join(LONG)
    thread.join(LONG)
    assert any(np.array_equal(copies[0].params.value, state) for state in states()[2:])
    assert len(copies[0].sample(2)) == 2


def test_the_distribution_over_theta_of_a_full_vb_is_guarded_too():
    gate = Gate()
    model, thread = training(gate, Full)
    for ask in (lambda: model.theta_sample(), lambda: model.theta_kl(), lambda: model.warm_start(FullVB(6, 5, 2))):
        with pytest.raises(RuntimeError, match="at work in another thread"):
            ask()
    gate.open.set()
    thread.join(LONG)


def test_the_same_thread_may_take_the_guard_again_and_an_error_releases_it():
    model = VAE(6, 5, 2)
    with model.guard:
        model.sample(2)
    with pytest.raises(ValueError, match="z has shape"):
        model.decode(np.zeros((3, 5)))
    found = []
    thread = threading.Thread(target=lambda: found.append(model.sample(2)))
    thread.start()
    thread.join(LONG)
    assert len(found) == 1


def test_a_copy_and_a_pickle_have_guards_of_their_own():
    model = VAE(6, 5, 2)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with model.guard:
        thread = threading.Thread(target=lambda: [other.sample(2) for other in others])
        thread.start()
        thread.join(LONG)
    assert all(isinstance(other.guard, Guard) and other.guard is not model.guard for other in others)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_not_held_up_by_a_thread_that_does_not_live_there():
    model = VAE(6, 5, 2)
    held = threading.Event()
    done = threading.Event()

    def hold():
        with model.guard, model.guard.moment:
            held.set()
            assert done.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LONG)
    child = multiprocessing.get_context("fork").Process(target=model.sample, args=(2,))
    child.start()
    child.join(LONG)
    done.set()
    thread.join(LONG)
    assert child.exitcode == 0
