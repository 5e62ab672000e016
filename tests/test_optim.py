"""training/optim.py: each update against its formula, written naively (E18), and ten steps of training (E24)."""

import numpy as np
import pytest
from autograd import grad
from conftest import rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import SGD, Adagrad, Adam, oracle
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
        (lambda: Adagrad(0.1, eps=-1), "expected both ≥ 0"),
        (lambda: Adagrad(0.1, eps=float("nan")), "expected both ≥ 0"),
        (lambda: Adam(0.1, beta1=1), "expected 0 ≤ β < 1"),
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
