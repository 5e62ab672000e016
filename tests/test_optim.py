"""training/optim.py: each update against its formula, written naively (E18), and ten steps of training (E24)."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import standin
from autograd import grad
from conftest import host, rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import SGD, Adagrad, Adam, oracle
from scratchvae.backend import kind
from scratchvae.nets.layers import Linear
from scratchvae.nets.params import Params
from scratchvae.training import optim
from scratchvae.training.loop import facts_of


def started(optimizer, dtype=np.float64, size=4):
    params = Params([Linear("l", size, 1)], dtype)
    optimizer.start(params)
    return params


def test_adagrad_moves_by_a_sum_of_inverse_roots_under_a_constant_gradient_e18():
    for s in (3.0, -1e-4):
        optimizer = Adagrad(0.1, eps=0)
        params = started(optimizer)
        for step in range(1, 101):
            params.grad[...] = s
            optimizer.ascend(params, step)
        assert_allclose(params.value, np.sign(s) * 1.85896038247841, rtol=1e-14)


def test_adagrads_epsilon_stands_outside_the_root_e18():
    optimizer = Adagrad(0.1, eps=1e-10)
    params = started(optimizer)
    params.grad[...] = 1e-6
    optimizer.ascend(params, 1)
    assert_allclose(params.value, 0.1 * 1e-6 / (1e-6 + 1e-10), rtol=1e-14)  # 0.9999 lr; inside it would be 0.0995 lr


def test_adagrads_warmup_gathers_squares_and_moves_nothing():
    optimizer, params = Adagrad(0.1, warmup=3), None
    params = started(optimizer)
    for step in range(1, 5):
        params.grad[...] = 2.0
        optimizer.ascend(params, step)
        assert (params.value == 0).all() == (step <= 3)
    assert_allclose(params.value, 0.1 / 2, rtol=1e-9)  # 2 / √(4 · 2²)
    assert_allclose(optimizer.state["h"], 16)


def test_adam_equals_its_published_recursion():
    optimizer = Adam(0.01, 0.8, 0.95, 1e-3)
    params, m, v, value = started(optimizer), 0.0, 0.0, np.zeros(5)
    for t in range(1, 8):
        g = np.random.default_rng(t).standard_normal(5)
        params.grad[...] = g
        optimizer.ascend(params, t)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        value = value + 0.01 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
    assert_allclose(params.value, value, rtol=1e-13)


def test_sgd_moves_along_the_gradient():
    optimizer = SGD(0.5)
    params = started(optimizer)
    params.grad[...] = np.arange(5)
    optimizer.ascend(params, 1)
    assert_array_equal(params.value, 0.5 * np.arange(5))


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
def test_a_part_moves_alone_with_its_own_state_and_precision_is_kept(make):
    optimizer = make(0.1)
    params = started(optimizer, np.float32)
    params.grad[...] = 1
    optimizer.ascend(params, 1, slice(0, 2))
    assert (params.value[:2] > 0).all() and (params.value[2:] == 0).all()
    assert all((vector[2:] == 0).all() for vector in optimizer.state.values())
    assert all(vector.dtype == np.float32 for vector in (params.value, *optimizer.state.values()))


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
@pytest.mark.parametrize("part", [slice(None), slice(3, 12)])
def test_an_update_by_blocks_equals_the_update_as_a_whole(make, part, monkeypatch):
    results = []
    for block in (1000, 4):  # 15 numbers, and 9 of them: whole blocks, and a short last one
        monkeypatch.setattr(optim, "BLOCK", block)
        optimizer = make(0.1)
        params = started(optimizer, np.float32, size=14)
        for step in range(1, 4):
            params.grad[...] = np.random.default_rng(step).standard_normal(15)
            optimizer.ascend(params, step, part)
        results.append([params.value, *optimizer.state.values()])
    assert len(optimizer.scratch) == 4
    assert_array_equal(*results)


def naive_adam(w, g, state, t):
    """Algorithm 1 of Kingma & Ba 2015, at its default β and ε."""
    m, v = state if isinstance(state, tuple) else (0.0, 0.0)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return w + 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), (m, v)


@pytest.mark.parametrize(
    ("make", "update"),
    [
        (lambda: SGD(1e-3), lambda w, g, s, t: (w + 1e-3 * g, s)),
        (lambda: Adagrad(0.1), lambda w, g, s, t: (w + 0.1 * g / (np.sqrt(s + g**2) + 1e-10), s + g**2)),
        (lambda: Adam(0.01), lambda w, g, s, t: naive_adam(w, g, s, t)),
    ],
)
@pytest.mark.parametrize("estimator", ["A", "B"])
def test_ten_steps_equal_ten_steps_of_the_oracle_e24(make, update, estimator):
    model, optimizer = small(estimator=estimator), make()
    theirs = {name: window.copy() for name, window in model.params.named(model.params.value).items()}
    state = dict.fromkeys(theirs, 0.0)
    optimizer.start(model.params)

    def objective(arrays, eps):
        return oracle.bound(arrays, rows(), eps, 40, estimator) + oracle.log_prior(arrays)

    for t in range(1, 11):
        eps = model.noise(np.random.default_rng(t), 7)
        model.bound(rows(), eps, 40, gradient=True)
        model.add_log_prior_gradient()
        optimizer.ascend(model.params, t)
        g = grad(objective)(theirs, eps)
        for name in theirs:
            theirs[name], state[name] = update(theirs[name], g[name], state[name], t)
    for name, window in model.params.named(model.params.value).items():
        assert_allclose(window, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adagrad(0), "lr is 0; expected a number > 0"),
        (lambda: Adam(float("nan")), "lr is nan"),
        (lambda: SGD("fast"), "lr is 'fast'"),
        (lambda: SGD(10**400), "expected a number > 0"),
        (lambda: SGD(0.1, decay=10**400), "expected a number > 0"),
        (lambda: Adagrad(0.1, eps=-1), "eps is -1; expected a number ≥ 0"),
        (lambda: Adagrad(0.1, eps=float("nan")), "eps is nan; expected a number ≥ 0"),
        (lambda: Adagrad(eps="a"), "eps is 'a'; expected a number ≥ 0"),
        (lambda: Adagrad(warmup="3"), "warmup is '3'; expected a whole number ≥ 0"),
        (lambda: Adagrad(warmup=float("inf")), "warmup is inf; expected a whole number ≥ 0"),
        (lambda: Adagrad(warmup=2.7), r"warmup is 2\.7; expected a whole number ≥ 0"),
        (lambda: Adagrad(warmup=-1), "warmup is -1; expected a whole number ≥ 0"),
        (lambda: Adam(0.1, beta1=1), "beta1 is 1; expected a number ≥ 0 and < 1"),
        (lambda: Adam(0.1, beta2=-0.1), r"beta2 is -0\.1; expected a number ≥ 0 and < 1"),
        (lambda: Adam(beta1=None), "beta1 is None; expected a number ≥ 0 and < 1"),
        (lambda: Adam(eps=None), "eps is None; expected a number ≥ 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
def test_a_stepsize_that_falls_is_lr_over_one_plus_step_over_decay(make):
    """Update t with `decay` is update t, from the same state, with that lr and none."""
    falling, params = make(0.1, decay=4), None
    params = started(falling)
    for step in range(1, 8):
        steady = make(0.1 / (1 + step / 4))
        other = started(steady)
        other.value[...] = params.value
        for name, vector in falling.state.items():
            steady.state[name][...] = vector
        params.grad[...] = other.grad[...] = np.sin(step + np.arange(len(params.value)))
        falling.ascend(params, step)
        steady.ascend(other, step)
        assert_allclose(params.value, other.value, rtol=1e-14)
    assert "decay" in facts_of(falling) and "decay" not in facts_of(steady)  # runs of before are as they were
    with pytest.raises(ValueError, match="decay is 0; expected a number > 0"):
        make(0.1, decay=0)


def mapped(optimizer, folder):
    """A copy by way of a file whose arrays are mapped into memory, and cannot be written to."""
    joblib.dump(optimizer, folder / "optimizer")
    return joblib.load(folder / "optimizer", mmap_mode="r")


COPIES = {
    "deepcopy": lambda optimizer, folder: copy.deepcopy(optimizer),
    "pickle": lambda optimizer, folder: pickle.loads(pickle.dumps(optimizer)),
    "joblib": mapped,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", [SGD, Adagrad, Adam])
def test_a_copy_goes_on_like_the_original_to_the_bit_and_neither_moves_the_other(make, copied, tmp_path):
    def go(optimizer, params, steps):
        for step in steps:
            params.grad[...] = np.random.default_rng(step).standard_normal(params.grad.shape)
            optimizer.ascend(params, step)

    def vectors(optimizer, params):
        return {"value": params.value.copy()} | {name: vector.copy() for name, vector in optimizer.state.items()}

    def same(ours, theirs):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_array_equal(ours[name], theirs[name], err_msg=name)

    original = make(0.1, decay=9)
    params = started(original, size=200_000)  # 1.5 MiB a vector, and a scratch of 1 MiB
    go(original, params, range(1, 4))
    other, others_params = copied(original, tmp_path), copy.deepcopy(params)
    before = vectors(original, params)
    go(other, others_params, range(4, 7))
    same(vectors(original, params), before)  # the copy has not moved the original
    after = vectors(other, others_params)
    assert not any((after[name] == before[name]).all() for name in after)
    go(original, params, range(4, 7))
    same(vectors(original, params), after)  # the original comes to where the copy is
    go(original, params, range(7, 9))
    same(vectors(other, others_params), after)  # and has not moved it


def test_the_vectors_of_a_file_that_is_mapped_are_read_only_and_those_of_the_optimiser_in_memory(tmp_path):
    optimizer = Adam(0.1)
    started(optimizer, size=200_000)
    joblib.dump(optimizer.state, tmp_path / "state")
    assert not joblib.load(tmp_path / "state", mmap_mode="r")["m"].flags.writeable  # control: what a map alone gives
    other = mapped(optimizer, tmp_path)
    assert all(vector.flags.writeable for vector in (other.scratch, *other.state.values()))
    assert not any(isinstance(vector, np.memmap) for vector in (other.scratch, *other.state.values()))


def test_an_optimiser_that_has_not_started_can_be_copied_and_started():
    fresh = pickle.loads(pickle.dumps(Adagrad(0.2, decay=3)))
    assert vars(fresh) == vars(Adagrad(0.2, decay=3))
    params = started(fresh)
    params.grad[...] = 1
    fresh.ascend(params, 1)
    assert (params.value > 0).all()


def test_the_copy_of_an_optimiser_on_the_device_stays_there_and_goes_on_without_a_wait(waits, monkeypatch):
    monkeypatch.setattr(standin.ndarray, "flags", None)  # CuPy's do not say what can be written to
    optimizer = Adam(0.1)
    params = Params([Linear("l", 4, 1)], np.float64, "cupy")
    optimizer.start(params)
    params.grad[...] = 1.0
    other = copy.deepcopy(optimizer)
    others_params = Params([Linear("l", 4, 1)], np.float64, "cupy")
    others_params.grad[...] = 1.0
    waits.count = 0
    for one, moved in [(optimizer, params), (other, others_params)]:
        for step in (1, 2):
            one.ascend(moved, step)
    assert waits.count == 0
    assert_array_equal(host(others_params.value), host(params.value))
    assert (host(other.state["m"]) > 0).all() and kind(other.state["m"]) == "cupy"
