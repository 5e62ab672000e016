"""gradcheck: what it sees, what it says, and what it lets pass; the studies of benchmarks/gradcheck.py on a small
scale."""

import itertools
import json
import re
import runpy
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scratchvae.gradcheck import (
    GradientError,
    assert_gradients,
    check_density,
    check_gradients,
    check_layer,
)
from scratchvae.gradcheck.check import TO_THE_STEP
from scratchvae.gradcheck.factors import factor_words
from scratchvae.gradcheck.faults import UNKNOWN, diagnosis
from scratchvae.gradcheck.suspects import Evidence

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import gradcheck as study

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_warnings_of_autograd():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_right_gradients_of_random_networks_raise_no_alarm():
    assert study.alarms(40) == []


def test_a_wrong_entry_of_a_random_network_is_seen_by_differences_alone_and_beside_an_oracle():
    assert study.misses(25) == ([], [])


def test_an_error_of_the_size_that_a_report_states_is_seen_in_a_larger_network():
    assert study.stated(3) == []


@pytest.mark.parametrize("case", study.FAULTS)
def test_every_known_fault_is_seen_and_called_by_its_name(case, monkeypatch):
    monkeypatch.setattr(study, "FAULTS", {case: study.FAULTS[case]})
    for _, words, said, seen in study.named(2):
        assert seen
        assert words in said


def test_all_mistakes_in_larger_systems_are_seen_and_the_right_gradients_pass():
    found = study.strangers([study.first.CASES, study.second.CASES])
    assert (found["right that fail"], found["wrong that pass"]) == (0, 0)
    assert found["named"] + found["named in part"] >= 75


def test_the_right_gradients_of_the_cases_pass():
    for make in study.CASES.values():
        params, loss, grads = make(0)
        assert check_gradients(loss, params, grads, sizes={"M": 7, "N": 100})


def test_an_array_that_the_loss_does_not_read_is_told():
    W, x = np.ones(3), np.ones(2)
    report = check_gradients(lambda: x * x, {"x": x, "W": W}, {"x": 2 * x, "W": np.ones(3)})
    assert report["W"].notes[0] == "the loss does not read W: all its differences are 0"


def test_two_readings_of_a_factor_are_both_told():
    W = np.arange(1.0, 5)
    report = check_gradients(lambda: W**2, W, 4 * W, sizes={"M": 2, "N": 3})
    assert "2, or M times" in report["params"].notes[0]


def test_roots_of_sizes_ranges_of_columns_and_another_decay_are_told():
    W = np.random.default_rng(0).standard_normal((6, 20))
    report = check_gradients(lambda: W**2, W, 2 * W * np.sqrt(7), sizes={"d": 7})
    assert "√d times the right one" in report["params"].notes[0]
    wrong = 2 * W
    wrong[:, [0, 1, 2, 3, 8, 9]] *= 3
    assert "wrong only in columns 0-3, 8-9; there" in check_gradients(lambda: W**2, W, wrong)["params"].notes[0]
    report = check_gradients(lambda: np.sin(W) - 0.05 * W**2, W, np.cos(W) + 0.1 * W)
    assert len(report["params"].notes) == 1 and "is missing, or has another factor" in report["params"].notes[0]
    report = check_gradients(lambda: W**2, W, 2.02 * W.astype(np.float32) * 2)
    assert "2.02 times the right one" in report["params"].notes[0]


def test_one_wrong_row_of_300_is_seen_whatever_the_seed():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((300, 20))
    x = rng.standard_normal((5, 300))

    def grad():
        return x.T @ (2 * (x @ W))

    def wrong():
        found = grad()
        found[217] *= 1.01
        return found

    for seed in range(5):
        assert check_gradients(lambda: (x @ W) ** 2, W, grad, seed=seed)
        report = check_gradients(lambda: (x @ W) ** 2, W, wrong, seed=seed)
        assert not report
        assert report["params"].notes[0].startswith("wrong only in row 217; there it is 1.01 times")
        assert report["params"].checked == 20


def test_a_gradient_that_is_right_here_and_wrong_elsewhere_is_seen():
    x = np.zeros(3)  # where the gradient of ½ x² is that of ½ x² + x³
    report = check_gradients(lambda: 0.5 * x * x + x**3, x, lambda: x.copy())
    assert report["params"].notes[0].startswith("right at the first point, wrong at point 2")
    assert_array_equal(x, np.zeros(3))


def test_gradients_that_are_not_computed_anew_are_told():
    x = np.array([1.0, 2.0])
    once = 2 * x
    report = check_gradients(lambda: x * x, x, lambda: once)
    assert report["params"].notes[0].endswith("the same numbers as at the first point: is it computed anew?")


def test_a_gradient_that_is_added_to_what_stands_there_is_told():
    x = np.array([1.0, 2.0])
    total = np.zeros(2)

    def grads():
        total[...] += 2 * x
        return total

    assert "accumulated: at a second call it is twice as large" in check_gradients(lambda: x * x, x, grads)[0].notes[0]


def test_a_loss_that_is_random_or_changes_its_arrays_is_told_and_the_arrays_are_put_back():
    x = np.array([1.0, 2.0])
    rng = np.random.default_rng(0)
    report = check_gradients(lambda: (x * x).sum() + 1e-6 * rng.standard_normal(), x, 2 * x)
    assert "the loss is random" in report["loss"].notes[0]

    def grows():
        x[0] += 1
        return (x * x).sum()

    report = check_gradients(grows, x, 2 * x)
    assert report["loss"].notes == ("the loss changes params, which it should only read",)
    assert_array_equal(x, [1.0, 2.0])

    data = np.array([3.0, 5.0])

    def centres():  # its data in place, so that the loss is another one afterwards
        data[...] -= data.mean()
        return 2 * (x - data)

    report = check_gradients(lambda: (x - data) ** 2, x, centres)
    assert report["loss"].notes[0].startswith("grads changes something that the loss reads")

    def doubles():
        x[...] *= 2
        return x

    assert check_gradients(lambda: x * x, x, doubles)["loss"].notes[0].startswith("grads changes params")
    assert_array_equal(x, [1.0, 2.0])


def test_every_slope_between_the_sides_of_a_kink_passes_and_none_outside():
    x = np.zeros(1)
    for slope, passes in [
        (-1.0, True),
        (-0.3, True),
        (0.0, True),
        (1.0, True),
        (1.1, False),
        (-1.1, False),
        (7, False),
    ]:
        assert bool(check_gradients(lambda: np.abs(x), x, np.array([slope]))) == passes
    report = check_gradients(lambda: np.abs(x), x, np.array([0.3]))
    assert report["params"].notes == (
        "at a kink of the loss in 1 entry, where every slope between its two sides passes",
    )
    assert not any("Taylor" in fact or "complex" in fact for fact in report.facts)


def test_a_slope_far_outside_of_a_kinks_sides_is_wrong_beside_entries_that_are_right():
    x = np.array([0.0, 0.0, 1.0, -2.0])
    held = check_gradients(lambda: np.abs(x), x, np.array([0.5, 2.0, 1.0, -1.0]))["params"]
    assert held.passed and held.notes[1] == "not compared in 1 of these: there it is no slope between them"
    for slope in (7.0, -7.0, 1e6):
        row = check_gradients(lambda: np.abs(x), x, np.array([0.5, slope, 1.0, -1.0]))["params"]
        assert not row.passed and row.notes[0].startswith("wrong only in entry [1]")


def test_entries_outside_of_a_kinks_sides_are_counted_near_and_far():
    """Of a loss that is one number, 2 is outside of the slopes -1 to 1, and 6 and -7 are further off than twice
    |1 - (-1)|."""
    x = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    row = check_gradients(lambda: np.abs(x).sum(), x, np.array([0.5, 2.0, 6.0, -7.0, 1.0]))["params"]
    assert not row.passed
    assert row.notes[0].startswith("not compared in 2 entries: the loss has a kink there, and the gradient is far from")
    assert row.notes[1:] == (
        "at a kink of the loss in 4 entries, where every slope between its two sides passes",
        "not compared in 3 of these: there it is no slope between them",
    )


def relu_net(seed, widths, rows):
    """The loss and gradient of a ReLU network with zero biases, so that a dead layer puts the next one at its kinks."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, widths[0])), rng.standard_normal((rows, widths[-1]))
    pairs = list(itertools.pairwise(widths))
    params = {f"W{k}": rng.standard_normal(pair) * np.sqrt(2 / pair[0]) for k, pair in enumerate(pairs)}
    params |= {f"b{k}": np.zeros(pair[1]) for k, pair in enumerate(pairs)}

    def forward(p):
        h = [x]
        for k in range(len(pairs)):
            a = h[-1] @ p[f"W{k}"] + p[f"b{k}"]
            h.append(np.maximum(a, 0) if k < len(pairs) - 1 else a)
        return h

    def grads(p):
        h = forward(p)
        found = {}
        d = h[-1] - y
        for k in reversed(range(len(pairs))):
            found |= {f"W{k}": h[k].T @ d, f"b{k}": d.sum(axis=0)}
            d = d @ p[f"W{k}"].T * (h[k] > 0)
        return found

    return params, lambda p: 0.5 * (forward(p)[-1] - y) ** 2, grads


def test_right_gradients_of_relu_networks_with_dead_rows_pass_and_one_without_its_mask_fails():
    for seed in range(8):
        params, loss, grads = relu_net(seed, (6, 3, 3, 2), 50)
        assert check_gradients(loss, params, grads, seed=seed)
        params["W0"][...] = -np.abs(params["W0"])
        wrong = grads(params)
        wrong["W1"] = wrong["W1"] + 0.1
        assert not check_gradients(loss, params, wrong, seed=seed)
    c = np.array([1.0, -2, 3, -1, 2, -3])  # kinks that bend up and down, all at the point
    for seed in range(8):
        assert check_gradients(lambda p: c * np.maximum(p, 0), np.zeros(6), lambda p: c * (p > 0), seed=seed)
        assert not check_gradients(lambda p: c * np.maximum(p, 0), np.zeros(6), lambda p: 0.7 * c * (p > 0), seed=seed)


def test_where_the_loss_is_no_number_beside_the_point_nothing_passes_unseen():
    w = np.array([1.0, 2.0, 3.0])
    report = check_gradients(lambda p: (p**2).sum() + 0 * np.sqrt(-abs(p[0] - 1)), w, np.array([77.0, 4.0, 6.0]))
    assert report["params"].notes[0].startswith("not compared in 1 entries: the loss is no number beside them")
    x = np.array([0.0, 1.0])  # defined on one side alone
    assert check_gradients(lambda p: (p**1.5).sum(), x, np.array([0.0, 1.5]))
    assert not check_gradients(lambda p: (p**1.5).sum(), x, np.array([9.0, 1.5]))
    held = w.copy()
    assert not check_gradients(lambda: (w**2).sum() + np.sqrt(-np.abs(w - held).sum()), w, 5 * w)


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-8, 1e-9])
def test_the_edge_of_what_a_loss_is_defined_on_makes_no_false_alarm_and_hides_no_fault(small):
    p = np.array([small, 1.0, 2.0, 0.5])
    assert check_gradients(np.log, p, 1 / p)
    wrong = 1 / p
    wrong[0] *= 1.01
    assert not check_gradients(np.log, p, wrong)

    def strict(q):
        if not (q > 0).all():
            raise ValueError("only positive numbers have a logarithm")
        return np.log(q)

    assert check_gradients(strict, p, 1 / p)


def test_a_saturated_softmax_makes_no_false_alarm():
    def softmax(a):
        e = np.exp(a - a.max())
        return e / e.sum()

    hot = np.array([1.0, 0.0, 0.0])
    for logits in ([30.0, 0.0, -30.0], [24.0, 0.0, -3.0]):  # the loss is 1e-13 and 4e-11, known to ε
        a = np.array(logits)
        assert check_gradients(lambda p: -np.log(softmax(p))[0], a, softmax(a) - hot)
        assert not check_gradients(lambda p: -np.log(softmax(p))[1], a, softmax(a) - hot)


def test_what_differences_do_not_resolve_does_not_pass_in_silence():
    w = np.array([1.0, 2.0, 3.0])
    report = check_gradients(lambda: 1e16 + (w**2).sum(), w, 5 * w)
    assert not report
    assert "differences of this loss resolve no error below" in report["params"].notes[0]
    assert check_gradients(lambda: np.append(w**2, 1e16), w, 2 * w)  # its terms resolve everything


def test_a_loss_may_return_the_array_itself_a_part_of_it_or_the_same_memory_at_each_call():
    W = np.array([1.0, 2.0, 3.0])
    memory = np.empty(3)
    for loss, right in [
        (lambda: W, [1, 1, 1]),
        (lambda W: W, [1, 1, 1]),
        (lambda: W[:2], [1, 1, 0]),
        (lambda: np.multiply(W, W, out=memory), 2 * W),
    ]:
        assert check_gradients(loss, W, np.array(right, float))
        assert not check_gradients(loss, W, np.array([1.0, 1.0, 2.0]))


def test_errors_that_cancel_in_a_sum_are_seen():
    rng = np.random.default_rng(0)
    W = rng.standard_normal(5000)
    gradient = 2 * W
    gradient[[17, 18]] = gradient[[18, 17]]
    for seed in range(12):
        assert not check_gradients(lambda: W**2, W, gradient, seed=seed)


def test_a_backward_pass_that_reads_what_the_forward_pass_has_kept_is_called_after_it():
    class Net:
        def __init__(self):
            rng = np.random.default_rng(0)
            self.W, self.x, self.y = (
                rng.standard_normal((5, 4)),
                rng.standard_normal((7, 5)),
                rng.standard_normal((7, 4)),
            )

        def loss(self):
            self.h = np.tanh(self.x @ self.W)
            self.d = self.h - self.y
            return 0.5 * (self.d**2).sum()

        def grads(self):
            return {"W": self.x.T @ (self.d * (1 - self.h**2))}

    net = Net()
    assert check_gradients(net.loss, {"W": net.W}, net.grads)


def test_another_convention_at_a_kink_is_no_fault_beside_an_oracle():
    import autograd.numpy as anp

    x = np.array([0.0, 1.0, -2.0])
    report = check_gradients(lambda: np.maximum(x, 0), x, (x > 0) * 1.0, oracle=lambda x: anp.sum(anp.maximum(x, 0)))
    assert report
    assert not check_gradients(lambda: np.maximum(x, 0), x, (x > -3) * 1.0, oracle=lambda x: anp.sum(anp.maximum(x, 0)))


def test_a_kink_near_the_point_makes_no_false_alarm_and_hides_no_fault():
    x = np.array([1e-6, -2e-7])
    assert check_gradients(lambda: np.abs(x), x, np.array([1.0, -1.0]))
    assert not check_gradients(lambda: np.abs(x), x, np.array([1.0, 1.0]))


def test_a_gradient_that_is_zero_passes_with_what_differences_resolve():
    x = np.array([1.0, 2.0])
    unread = np.ones(2)
    report = check_gradients(lambda: 1e3 * x * x, {"x": x, "unread": unread}, {"x": 2e3 * x, "unread": 0 * unread})
    assert report
    assert report["unread"].notes[0].startswith("0, below what differences resolve: ")
    tiny = {"x": 2e3 * x, "unread": np.full(2, 1e-14)}
    assert check_gradients(lambda: 1e3 * x * x, {"x": x, "unread": unread}, tiny)
    tiny["unread"] += 0.1
    assert not check_gradients(lambda: 1e3 * x * x, {"x": x, "unread": unread}, tiny)


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e5, 1e9])
def test_arrays_of_any_size_are_checked_at_their_own_scale(scale):
    x = scale * np.array([1.0, -2.0, 0.5])
    assert check_gradients(lambda: np.sin(x / scale), x, lambda: np.cos(x / scale) / scale)
    report = check_gradients(lambda: np.sin(x / scale), x, 1.001 * np.cos(x / scale) / scale)
    assert "1.001 times the right one" in report["params"].notes[0]


def test_float32_is_checked_with_the_tolerance_of_its_rounding_and_says_so():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((6, 4)).astype(np.float32)
    x = rng.standard_normal((9, 6)).astype(np.float32)

    def grads():
        h = np.tanh(x @ W)
        return x.T @ (2 * h * (1 - h * h))

    report = check_gradients(lambda: np.tanh(x @ W) ** 2, W, grads)
    assert report and report.facts[0].startswith("float32; relative tolerance 1e-03")
    assert not check_gradients(lambda: np.tanh(x @ W) ** 2, W, lambda: np.float32(1.01) * grads())


def test_a_float32_loss_that_takes_its_arrays_is_differenced_in_float64():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 6))
    params = {"W": rng.standard_normal((6, 4)).astype(np.float32), "b": np.zeros(4, np.float32)}

    def loss(p):
        return (np.maximum(x @ p["W"] + p["b"], 0) ** 2).sum()

    def grads(p, factor=1.0):
        h = np.maximum(x @ p["W"] + p["b"], 0)
        return {"W": (factor * x.T @ (2 * h)).astype(np.float32), "b": 2 * h.sum(axis=0)}

    report = check_gradients(loss, params, grads)
    assert report and report["W"].sees < 0.01 * report["W"].norm
    assert "1.01 times" in check_gradients(loss, params, lambda p: grads(p, 1.01))["W"].notes[0]
    assert params["W"].dtype == np.float32


def test_taylor_remainders_and_the_complex_step_are_told():
    x = np.array([0.3, -0.7])
    right = str(check_gradients(lambda p: np.sin(p).sum(), x, np.cos))
    assert "fall with slope 2.0" in right
    assert "complex step along a random direction: relative error" in right
    wrong = str(check_gradients(lambda p: np.sin(p).sum(), x, lambda p: 1.5 * np.cos(p)))
    assert "fall with slope 1.0" in wrong
    assert "relative error 5.0e-01" in wrong
    assert "complex" not in str(check_gradients(lambda p: np.abs(p).sum(), x, np.sign))  # |x| is not analytic


@pytest.mark.parametrize(
    ("error", "words"), [(0.0, ""), (1e-7, " (beyond rounding: a small error, or a loss that "), (0.01, "")]
)
def test_an_error_that_is_small_and_no_rounding_is_told_beside_the_complex_step(error, words):
    W = np.array([0.5, 1.0, 2.0])
    (said,) = [f for f in check_gradients(lambda W: np.sin(W), W, np.cos(W) * (1 + error)).facts if "complex" in f]
    assert said.partition(": relative error ")[2][7:].startswith(words)
    assert ("beyond" in said) == bool(words)


def test_containers_of_any_kind_are_named_by_their_keys():
    W = np.ones((2, 2))
    params = {"net": [{"W": W}, {"b": np.ones(2)}], "scale": (np.array(2.0),)}

    def loss(p):
        return p["scale"][0] * (p["net"][0]["W"].sum() + (p["net"][1]["b"] ** 2).sum())

    def grads(p):
        s = p["scale"][0]
        return {"net": [{"W": np.full((2, 2), s)}, {"b": 2 * s * p["net"][1]["b"]}], "scale": [np.array(loss(p) / s)]}

    report = check_gradients(loss, params, grads)
    assert report and [row.name for row in report] == ["net[0].W", "net[1].b", "scale[0]"]
    assert check_gradients(lambda w: w**3, 2.0, lambda w: 3 * w * w)  # a number
    assert check_gradients(lambda w: (w[0] * w[1]).sum(), (W, 2 * W), lambda w: (w[1], w[0]))  # a tuple


def test_an_array_that_is_not_contiguous_is_moved_where_it_lies():
    base = np.arange(1.0, 13).reshape(3, 4)
    for x in (base.T, base[:, ::2], base[::-1]):
        assert check_gradients(lambda x=x: (x**3).sum(), x, lambda x=x: 3 * x**2)
        assert not check_gradients(lambda x=x: (x**3).sum(), x, lambda x=x: 3 * x)


def test_assert_gradients_raises_the_report():
    x = np.array([1.0, 2.0])
    assert_gradients(lambda: x * x, x, lambda: 2 * x)
    with pytest.raises(GradientError, match="the sign is wrong") as caught:
        assert_gradients(lambda: x * x, x, lambda: -2 * x)
    assert isinstance(caught.value, AssertionError)
    assert "FAIL" in str(caught.value)


def test_a_report_is_a_table_a_dict_and_a_truth():
    x = np.array([1.0, np.inf])
    report = check_gradients(lambda: 0 * x[0], x[:1], np.array([np.nan]))
    assert not report and not report.passed
    assert report.as_dict()["rows"][0]["norm"] is None
    with pytest.raises(KeyError, match="'W' is no row of this report; it has params"):
        report["W"]
    assert not check_gradients(lambda: 0.0, np.ones(1), np.ones(1))


# Witnesses


def test_a_witness_in_plain_numpy_gives_its_value_alone():
    x = np.array([1.0, 2.0])
    report = check_gradients(
        lambda: np.exp(x), x, lambda: np.exp(x), oracle=lambda x: float(np.exp(np.asarray(x)).sum())
    )
    assert report and report["params"].oracle is None
    assert "oracle in NumPy: its value alone" in str(report)
    report = check_gradients(
        lambda: np.exp(x), x, lambda: np.exp(x), oracle=lambda x: 2 * float(np.exp(np.asarray(x)).sum())
    )
    assert [row.passed for row in report] == [False, True]
    assert report["value"].notes[1] == "a factor: it is ½ times the right one"


def test_an_oracle_sees_an_error_that_differences_do_not():
    x = np.array([1.0, 2.0])
    gradient = 2 * x * (1 + 1e-8)
    assert check_gradients(lambda: x * x, x, gradient)
    report = check_gradients(lambda: x * x, x, gradient, oracle=lambda x: (x * x).sum())
    assert report["value"].passed and not report["params"].passed


def test_a_gradient_that_is_zero_by_cancellation_passes_beside_an_oracle():
    a = np.array([0.3, -1.2, 0.7])

    def loss(p):  # a softmax does not change with a shift of all its inputs
        z = a + p["shift"]
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum() * [1.0, 2.0, 3.0]

    import autograd.numpy as anp

    def witness(p):
        z = a + p["shift"]
        return anp.sum(anp.exp(z) / anp.sum(anp.exp(z)) * anp.array([1.0, 2.0, 3.0]))

    assert check_gradients(loss, {"shift": np.array(0.1)}, {"shift": np.array(2e-17)}, oracle=witness)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_a_witness_in_another_library_gives_its_gradient(library):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    x = np.array([0.5, 2.0])
    witness = {"jax": lambda x: module.numpy.sum(module.numpy.sin(x)), "torch": lambda x: module.sin(x).sum()}[library]
    report = check_gradients(lambda: np.sin(x), x, lambda: np.cos(x), oracle=witness)
    assert report and report["params"].oracle is not None
    assert not check_gradients(lambda: np.sin(x), x, lambda: 1.001 * np.cos(x), oracle=witness)


class OfJax(float):
    """What an oracle in JAX returns, as far as a witness looks at it."""


OfJax.__module__ = "jaxlib.standin"


def test_a_witness_in_jax_answers_in_its_own_precision_and_the_remedy_is_told(monkeypatch):
    """JAX is not needed: what is called of it stands here, and computes in float32."""

    def value_and_grad(total):
        return lambda copies: (np.float32(total(copies)), [np.float32(2 * x) for x in copies])

    numpy = SimpleNamespace(sum=lambda value: value, asarray=np.asarray, finfo=np.finfo)
    jax = ModuleType("jax")
    vars(jax).update(numpy=numpy, value_and_grad=value_and_grad)
    monkeypatch.setitem(sys.modules, "jax", jax)
    x = np.array([0.1, 2.0])
    report = check_gradients(lambda: x**2, x, 2 * x, oracle=lambda x: OfJax((x**2).sum()))
    assert report and 0 < report["params"].oracle < 1e-7
    assert {"oracle in JAX: its value and gradients"} < set(report.facts)
    assert "the oracle answers in a precision of 1e-07: set jax_enable_x64" in report.facts
    assert not check_gradients(lambda: x**2, x, 2.001 * x, oracle=lambda x: OfJax((x**2).sum()))


def test_an_error_of_an_oracle_is_its_own_where_torch_cannot_follow_it_either(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(ZeroDivisionError):
        check_gradients(lambda: X**2, X, 2 * X, oracle=lambda x: 1 / 0)


def test_an_oracle_that_autograd_does_not_follow_to_a_number_is_a_witness_of_its_value_alone():
    def oracle(x):
        return (x**2).sum() if isinstance(x, np.ndarray) else np.nan * x.sum()

    report = check_gradients(lambda: X**2, X, 2 * X, oracle=oracle)
    assert report and report["params"].oracle is None
    assert "oracle in NumPy: its value alone: no library differentiates it" in report.facts


# The examples

EXAMPLES = ROOT / "examples"
SHOWN = re.findall(
    r"\(gradcheck/(\w+)\.py\)\), which prints\n\n```\n(.*?)```",
    (EXAMPLES / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


def told(text):
    """What a report tells apart from its figures: the names with their verdicts, and the sentences."""
    lines = [line.split() for line in text.splitlines()]
    rows = [(" ".join(words[:2]), words[-1]) for words in lines if words[-1:] in (["pass"], ["FAIL"])]
    return rows, [line.strip() for line in text.splitlines() if line.startswith(("    a", "    or", "    the", "all "))]


@pytest.mark.parametrize(("script", "block"), SHOWN, ids=[script for script, _ in SHOWN])
def test_an_example_prints_what_its_page_shows(script, block, capsys):
    runpy.run_path(str(EXAMPLES / "gradcheck" / f"{script}.py"), run_name="__main__")
    out = capsys.readouterr().out
    rows, sentences = told(block)
    assert rows and set(rows) <= set(told(out)[0])
    assert sentences and set(sentences) <= set(told(out)[1])
    first = out.split("\n\n")[0]
    assert "FAIL" not in first and "pass" in first  # the right gradient


def test_the_page_shows_every_example():
    scripts = {path.stem for path in (EXAMPLES / "gradcheck").glob("*.py")}
    assert {script for script, _ in SHOWN} | {"test_with_pytest"} == scripts


def test_the_example_with_pytest_passes(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        str(EXAMPLES / "gradcheck" / "test_with_pytest.py"),
    ]
    assert "2 passed" in subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout


def test_the_study_prints_its_table_and_ends_with_0(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(study, "speed", lambda repeats: (1.0, 1.0))
    monkeypatch.setattr(study.first, "CASES", study.first.CASES[:8])
    monkeypatch.setattr(study.second, "CASES", [])
    assert study.main(["--scale", "0.002", "--out", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["false alarms"] == found["named wrongly"] == 0 and found["faults"] == found["seen"] == found["named"]
    assert f"false alarms{'':<14} {0:>10}" in out


def test_the_peers_that_are_installed_are_counted(capsys):
    import gradcheck_peers as peers

    assert peers.main(["--seeds", "1"]) == 0
    lines = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    faults = sum(map(len, study.FAULTS.values()))
    assert lines["scratchvae"][:5] == [str(faults)] * 4 + [str(len(study.CASES))]
    assert lines["scratchvae"][5] == "0"
    assert int(lines["autograd check_grads"][1]) < faults and lines["autograd check_grads"][3] == "0"


# What each suspect makes of a right gradient


def evidence(ours, theirs, **settings):
    known = {"W": rows_like(theirs, 1), **settings.pop("known", {})}
    given = {"sizes": {}, "others": {}, **settings}
    return Evidence("W", ours, theirs, 1e-12, known=known, **given)


def rows_like(array, seed):
    return np.random.default_rng([seed, 41]).standard_normal(np.shape(array))


R = rows_like(np.ones((6, 5)), 0)  # a right gradient
A = rows_like(R, 2)
K = np.linspace(-1, 2, 6)[:, None]
V = rows_like(np.ones((5, 5)), 3)  # square, and one with fewer columns than rows
N = rows_like(np.ones((5, 2)), 4)
CUBE = rows_like(np.ones((3, 3, 6)), 5)
X = rows_like(R, 1)  # the array itself


@pytest.mark.parametrize(
    ("ours", "theirs", "known", "words"),
    [
        (R / np.exp(A), R, {"a": A}, "the factor exp(a) is missing, entry by entry"),
        (R / (1 - A * A), R, {"h": A}, "the factor 1 - h² is missing, entry by entry"),
        (-2 * R / A, R, {"a": A}, "the factor a is missing, entry by entry, and a factor: it is -2 times"),
        (R * A[0], R, {"s": A[0]}, "the factor s is there once too often, entry by entry"),
        (R * A[:, 0:1], R, {"s": A[:, 0]}, "the factor s is there once too often, entry by entry"),
        (R[0, :3] * np.exp(A[0, :3]), R[0, :3], {"s": A[0, :3]}, "the factor exp(s) is there once too often"),
        (R * (1 - A**2) / (1 - X**2), R, {"x": A}, "the factor (1 - x²) stands where (1 - W²) should"),
        (A, R, {"dy": A}, "it is dy itself: a derivative is missing"),
        (R - 3 * A, R, {"a": A}, "it is off by -3 times a: a multiple of a is missing, or has another factor"),
        (3 * R + 2 * X, R, {}, "a factor: it is 3 times the right one, except for a term -1 W, which is right"),
        (K * R, R, {}, "each row is the right one times a number of its own, from -1 to 2: what belongs to the row"),
        (R + K * X, R, {}, "each row is off by a multiple of its own of W: a term such as a penalty"),
        (R[::-1], R, {}, "in reversed order along axis 0"),
        (R[::-1, ::-1], R, {}, "in reversed order along axes 0, 1"),
        (np.roll(R, 1, axis=1), R, {}, "shifted by one along axis 1"),
        (CUBE.swapaxes(0, 1), CUBE, {}, "transposed: its axes are in the order (1, 0, 2)"),
        (np.where(np.arange(3)[:, None, None] < 2, 2.0, 1.0) * CUBE, CUBE, {}, "wrong only in slices 0-1 along axis 0"),
        (CUBE + CUBE.mean(axis=2, keepdims=True), CUBE, {}, "a term is missing or wrong that is the same for all "
            "entries of a slice along axis 2"),
        (R, R * (A > 0), {}, "wrong only in entries"),
        (R @ V, R @ V.T, {"V": V}, "the product is with V, and should be with its transpose"),
        (R @ V.T, R @ V, {"V": V}, "the product is with Vᵀ, and should be with V itself"),
        (R, R @ V.T, {"V": V}, "the product with Vᵀ is missing"),
        (R, R @ V, {"V": V}, "the product with V is missing"),
        (R + A[:, :2] @ N.T, R, {"N": N}, "the error is a product with Nᵀ: what flows back through N is"),
        (R + np.outer(A[:, 0], A[0]), R, {}, "the error is an outer product: of a sum of such, as over the rows"),
    ],
)  # fmt: skip
def test_a_suspect_is_named_first_where_it_explains_the_gradient(ours, theirs, known, words):
    said = diagnosis(evidence(ours, theirs, known=known))
    assert said[0].startswith(words)
    assert UNKNOWN not in " ".join(said)


@pytest.mark.parametrize(("name", "function"), [("summed", np.sum), ("averaged", np.mean)])
@pytest.mark.parametrize("theirs", [R[0, :2], R[0], N, R, CUBE], ids=["pair", "vector", "pairs", "matrix", "cube"])
def test_a_sum_or_an_average_over_an_axis_is_told_with_the_axis_and_one_over_all_without(name, function, theirs):
    for axis in [None, *range(theirs.ndim if theirs.ndim > 1 else 0)]:
        ours = np.broadcast_to(function(theirs, axis=axis, keepdims=True), theirs.shape)
        over = "all entries" if axis is None else f"axis {axis}"
        assert diagnosis(evidence(ours, theirs)) == [f"{name} over {over}, of which each has a gradient of its own"]


@pytest.mark.parametrize("tiny", [np.full(R.shape, 1e-200), np.where(A > 0, 1e-200, 0.0)], ids=["alike", "with zeros"])
def test_a_known_array_whose_squares_are_0_explains_nothing(tiny):
    """What is fitted of it is a quotient by 0: NaN where the gradient's sum is 0, and else infinite."""
    wrong = np.arange(30.0).reshape(R.shape) - 14.5
    with np.errstate(all="ignore"):
        assert UNKNOWN in diagnosis(evidence(wrong, R, known={"a": tiny}))[0]


def test_a_gradient_of_which_only_the_priors_term_is_there_is_told_without_a_factor_that_is_rounding():
    said = diagnosis(evidence(-X, 5 * R - X))
    assert "it is -1 times W, a term of it that may be right: all else is missing" in " ".join(said)
    assert "e-1" not in " ".join(said)


def test_a_mask_that_is_missing_is_told_wherever_it_lets_through():
    said = diagnosis(evidence(R, R * (np.abs(A) > 1)))  # three in four are let through
    assert said[0].endswith("where the right one is 0: is a mask missing, as of a relu or of dropout?")


def test_entries_that_are_zero_in_both_are_no_evidence_that_the_rest_is_a_local_fault():
    mask = A > -0.5
    said = diagnosis(evidence(rows_like(R, 9) * mask, R * mask))
    assert UNKNOWN in said[0]


@pytest.mark.parametrize("shape", [(3,), (4,), (6,), (6, 5), (3, 3, 6), (4, 4)])
def test_a_gradient_that_is_another_at_random_is_given_no_name(shape):
    for seed in range(30):
        ours, theirs, h, y = (rows_like(np.ones(shape), 100 * seed + k) for k in range(4))
        said = diagnosis(evidence(ours, theirs, known={"h": h, "y": y}, others={"V": y}, sizes={"M": 7, "N": 100}))
        assert UNKNOWN in said[0]


def test_two_rows_are_enough_for_a_reversed_order_and_too_few_for_a_shift_by_one():
    """Of two rows the one that is shifted in may be anything, so that one row alone would tell of a shift."""
    two = R[:2]
    assert diagnosis(evidence(two[::-1], two))[0] == "in reversed order along axis 0"
    assert "shifted" not in " ".join(diagnosis(evidence(np.stack([A[0], two[0]]), two)))
    three = diagnosis(evidence(np.stack([A[0], R[0], R[1]]), R[:3]))
    assert three[0] == "shifted by one along axis 0"
    back = diagnosis(evidence(np.stack([R[1], R[2], A[0]]), R[:3]))
    assert back[0] == "shifted by one along axis 0"


def test_two_numbers_are_enough_to_see_that_a_sign_is_lost():
    said = diagnosis(evidence(np.array([1.0, 2.5]), np.array([1.0, -2.5])))
    assert said[0] == "its sign is lost: it is the absolute value of the right one"


def test_a_row_that_is_zero_is_called_never_written_and_one_that_is_wrong_is_not():
    zero = R.copy()
    zero[2] = 0
    assert diagnosis(evidence(zero, R)) == [
        "wrong only in row 2, where it is 0: never written, or a term is missing there"
    ]
    wrong = R.copy()
    wrong[2] = A[2]
    assert diagnosis(evidence(wrong, R)) == ["wrong only in row 2"]


def test_one_number_has_a_factor_by_chance_and_two_have_it_by_a_fault():
    """One number is any other one times something, so that only a factor which has a name is told."""
    assert UNKNOWN in diagnosis(evidence(np.array([5.3]), np.array([1.0])))[0]
    assert UNKNOWN in diagnosis(evidence(np.array([5.3, 0.0]), np.array([1.0, 0.0])))[0]
    assert diagnosis(evidence(np.array([5.3, 10.6]), np.array([1.0, 2.0])))[0].startswith("a factor: it is 5.3 times")
    assert diagnosis(evidence(np.array([2.0]), np.array([1.0])))[0].startswith("a factor: it is 2 times")


def test_a_gradient_beside_which_the_loss_is_no_number_is_called_that():
    said = diagnosis(evidence(R, np.full(R.shape, np.nan)))
    assert said == ["the loss gives no number beside this point: nothing could be compared"]


def test_what_differences_hardly_see_is_no_array_that_the_loss_does_not_read():
    """Differences within their error are no proof that an array is not read, unless all of them are 0."""
    for theirs, unread in [(0 * R, True), (1e-13 * np.sign(R), False)]:
        said = diagnosis(evidence(R, theirs))
        assert (said == ["the loss does not read W: all its differences are 0"]) == unread
    assert UNKNOWN in said[0]


def test_an_oracle_that_disagrees_where_differences_do_not_is_said_to():
    """An error of 1e-8 is below what differences are held to, 1e-6, and above the oracle's 1e-10."""
    report = check_gradients(lambda: X**2, X, 2 * X * (1 + 1e-8), oracle=lambda x: (x**2).sum())
    assert not report["params"].passed
    assert report["params"].notes[0].startswith("right by differences, and not beside the oracle: ")
    assert check_gradients(lambda: X**2, X, 2 * X * (1 + 1e-8))


F = R.reshape(-1)  # of as many numbers as are wanted
G = A.reshape(-1)
H = X.reshape(-1)


def linear(shape):
    """A right gradient of this shape, and one with a term that is linear in each row of the array."""
    r = R[: shape[0], : shape[1]]
    x = rows_like(r, 1)
    c = np.linspace(1, 2, shape[0])[:, None]
    return r + c**2 + c * (x - x.mean(axis=1, keepdims=True)), r


def with_zero(r):
    """The same gradient with 0 at its first entry."""
    return np.where(np.arange(r.size).reshape(r.shape) == 0, 0.0, r)


ROW = "each row is the right one times a number of its own"
SAME = "a term is missing or wrong that is the same for all entries of a row"
LINEAR = "a term is missing or wrong that is linear in each row of W"


@pytest.mark.parametrize(
    ("words", "enough", "too_few"),
    [
        ("the factor a is missing, entry by entry", (F[:2] / G[:2], F[:2], G[:2]), None),
        ("the factor a is missing, entry by entry, and a factor: it is 3", (3 * F[:4] / G[:4], F[:4], G[:4]),
            (3 * F[:3] / G[:3], F[:3], G[:3])),
        ("it is a itself, and a factor: it is 5", (5 * G[:4], F[:4], G[:4]), (5 * G[:3], F[:3], G[:3])),
        ("it is off by 0.7 in every entry", (F[:3] + 0.7, F[:3], None), (F[:2] + 0.7, F[:2], None)),
        ("it is off by 0.7 times a: a multiple of a", (F[:3] + 0.7 * G[:3], F[:3], G[:3]),
            (F[:2] + 0.7 * G[:2], F[:2], G[:2])),
        ("a factor: it is 3 times the right one, except for a term", (3 * F[:6] + 2 * H[:6], F[:6], None),
            (3 * F[:5] + 2 * H[:5], F[:5], None)),
        (ROW, (K[:2] * R[:2, :3], R[:2, :3], None), (K[:3] * R[:3, :2], R[:3, :2], None)),
        (ROW, (K[:2] * R[:2, :4], R[:2, :4], None), (K[:2] * with_zero(R[:2, :3]), with_zero(R[:2, :3]), None)),
        (SAME, (R[:2, :3] + K[:2], R[:2, :3], None), (R[:3, :2] + K[:3], R[:3, :2], None)),
        (LINEAR, (*linear((2, 4)), None), (*linear((3, 3)), None)),
        (LINEAR, (*linear((4, 4)), None), (*linear((4, 3)), None)),
        ("the error is an outer product", (R[:3, :3] + np.outer(A[0, :3], A[1, :3]), R[:3, :3], None),
            (R[:2, :5] + np.outer(A[0, :2], A[1]), R[:2, :5], None)),
    ],
)  # fmt: skip
def test_a_fault_with_fitted_numbers_has_a_name_from_so_many_numbers_on(words, enough, too_few):
    for given, is_named in [(enough, True), (too_few, False)]:
        if given is not None:
            ours, theirs, a = given
            known = {"W": rows_like(theirs, 1) if theirs.ndim > 1 else H[: theirs.size]} | (
                {} if a is None else {"a": a}
            )
            said = diagnosis(evidence(ours, theirs, known=known))
            assert said[0].startswith(words) == is_named, said
            assert is_named or UNKNOWN in said[0], said


def test_a_factor_that_is_the_length_of_an_array_is_told_beside_the_number():
    assert diagnosis(evidence(R / 6, R)) == ["a factor: it is 0.166667 times the right one, as much as 1/len(W)"]
    assert diagnosis(evidence(5 * R, R)) == ["a factor: it is 5 times the right one, as much as W.shape[1]"]


def test_many_sizes_make_readings_of_up_to_three_factors():
    sizes = dict(zip("ABCDEFGHI", (11, 13, 17, 19, 23, 29, 31, 37, 41), strict=True))
    assert factor_words(2 * 11 / 41, sizes) == "a factor: it is 2 A/I times the right one"
    assert factor_words(11 * 13 * 17 * 19, sizes) == ""


def test_a_layer_whose_derivative_is_forgotten_is_told_what_is_missing():
    class Tanh:
        def forward(self, x):
            self.y = np.tanh(x)
            return self.y

        def backward(self, dy):
            return dy.copy()

    assert "the factor 1 - y² is missing, entry by entry" in check_layer(Tanh(), R)[0].notes[0]


def test_a_density_divided_by_sigma_once_is_told_by_the_name_of_its_argument():
    def density(x, mu, log_sigma):
        d = (x - mu) * np.exp(-log_sigma)
        return -0.5 * d * d - log_sigma, d, d * d - 1

    report = check_density(density, R, A, 0.5 * X, skip=1)
    assert report[0].notes[0] == "the factor exp(log_sigma) is there once too often, entry by entry"


def test_how_to_find_the_step_is_told_where_nothing_has_a_name():
    wrong = rows_like(R, 7)
    report = check_gradients(lambda: 0.5 * X * X, X, wrong)
    assert TO_THE_STEP in report.facts
    assert TO_THE_STEP not in check_gradients(lambda: 0.5 * X * X, X, -X).facts
    assert TO_THE_STEP not in check_gradients(lambda: 0.5 * X * X, X, X.copy()).facts


@pytest.mark.parametrize("terms", [True, False])
def test_any_convention_at_zero_weights_passes_where_many_kinks_meet(terms):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, c, b = (rng.standard_normal(shape) for shape in ((8, 4), (8, 3), 3))

        def loss(p, x=x, c=c):
            found = c * (np.abs(x @ p["W"]) + p["b"])
            return found if terms else found.sum()

        def grads(p, x=x, c=c):
            return {"W": x.T @ (c * np.where(x @ p["W"] > 0, 1.0, -1.0)), "b": c.sum(0)}

        params = {"W": np.zeros((4, 3)), "b": b}
        assert check_gradients(loss, params, grads, seed=seed)
        wrong = grads(params)
        wrong["W"] = wrong["W"] + 1e3
        assert not check_gradients(loss, params, wrong, seed=seed)


def test_a_relu_with_50_at_its_kink_is_wrong():
    class Relu:
        def forward(self, x):
            self.x = x
            return np.maximum(x, 0)

        def backward(self, dy):
            return dy * np.where(self.x == 0, 50.0, self.x > 0)

    x = np.array([[0.0, 1, -1], [2, 3, -1]])
    assert "entry [0, 0]" in check_layer(Relu(), x)[0].notes[0]


def sparse(size, nonzero, rng):
    array = np.zeros(size)
    array.reshape(-1)[rng.permutation(array.size)[:nonzero]] = rng.standard_normal(nonzero)
    return array


@pytest.mark.parametrize(("size", "nonzero"), [(10, 2), (200, 2), ((6, 5), 3), ((20, 10), 2)])
def test_a_gradient_of_mostly_zeros_is_given_no_name_by_chance(size, nonzero):
    for seed in range(30):
        theirs = sparse(size, nonzero, np.random.default_rng(seed))
        ours = np.where(theirs != 0, rows_like(theirs, seed), 0.0)
        known = {str(k): np.maximum(rows_like(theirs, 100 * seed + k), 0) for k in range(8)}
        assert UNKNOWN in diagnosis(evidence(ours, theirs, known=known))[0]


def test_one_wrong_column_of_equal_ones_is_called_that_and_no_shift():
    ours = np.outer(np.arange(1.0, 6), np.ones(4))
    theirs = ours.copy()
    ours[:, -1] /= 2
    assert diagnosis(evidence(ours, theirs))[0].startswith("wrong only in column 3; there a factor: it is ½ times")


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.03])
def test_a_gradient_that_differences_hardly_resolve_is_given_no_name(spread):
    named = 0
    for seed in range(50):
        ours, theirs = rows_like(np.ones(4), seed), rows_like(np.ones(4), 1000 + seed)
        found = evidence(ours, theirs, known={str(k): rows_like(ours, 50 * seed + k) for k in range(8)})
        error = spread * float(np.linalg.norm(ours - theirs)) / 2
        named += UNKNOWN not in diagnosis(replace(found, error=error))[0]
    assert named <= 5  # of 50: entries that agree within ten times the error are taken to be right


def test_what_is_known_may_hold_anything_and_costs_no_diagnosis():
    W, x = rows_like(np.ones((6, 5)), 1), rows_like(np.ones((4, 6)), 2)
    wrong = rows_like(W, 3)
    anything = {"m": np.where(W > 0, -np.inf, 0.0), "W": x, "c": {"h": x}, "n": 3.0, "s": np.array(["a"]), "z": W + 1j}
    anything |= {"o": W.astype(object), "f": W.astype(np.float16), "k": np.arange(5), "t": W > 0}
    assert not check_gradients(lambda: (x @ W) ** 2, W, wrong, known=anything)
    assert not check_gradients(lambda p: (x @ p["W"]) ** 2, {"W": W}, {"W": wrong}, known=anything)


def test_many_wrong_arrays_and_many_axes_cost_no_minutes():
    params = {f"a{k}": rows_like(np.ones(20), k) for k in range(30)}
    begun = time.process_time()
    check_gradients(
        lambda p: sum((a**2).sum() for a in p.values()), params, {k: a[::-1] ** 3 for k, a in params.items()}
    )
    x = rows_like(np.ones((2, 3) + (1,) * 9), 1)
    check_gradients(lambda p: p**2, x, x**3)
    assert time.process_time() - begun < 20  # 1 on a quiet machine


def test_an_array_that_cancels_and_that_the_oracle_leaves_out_passes():
    b, a = np.array([0.3]), np.array([1.0, 2.0, -1.0])

    def loss(p):
        shifted = p["a"] + p["b"]
        return np.log(np.exp(shifted).sum()) - shifted[0]

    def oracle(p):
        import autograd.numpy as anp

        return anp.log(anp.sum(anp.exp(p["a"]))) - p["a"][0]

    e = np.exp(a) / np.exp(a).sum()
    grads = {"a": e - np.eye(3)[0], "b": np.array([1e-16])}
    assert check_gradients(loss, {"a": a, "b": b}, grads, oracle=oracle)


def test_a_loss_that_is_complex_or_nothing_only_beside_the_point_is_checked_on_the_other_side():
    s = np.array([1e-6, 1.0])
    assert check_gradients(lambda: float(s[0]) ** 1.5 + float(s[1]) ** 1.5, s, 1.5 * np.sqrt(s))
    assert check_gradients(lambda: None if s[0] <= 0 else (s**1.5).sum(), s, 1.5 * np.sqrt(s))


@pytest.mark.parametrize("size", [30, 3000])
def test_another_convention_at_many_kinks_is_no_fault_beside_an_oracle_and_a_wrong_entry_is(size):
    w, c = np.zeros(size), rows_like(np.ones(size), 5)

    def oracle(p):
        import autograd.numpy as anp

        return anp.sum(c * anp.maximum(p, 0))  # autograd takes ½ at a tie

    def grads(p):
        return c * (p > 0)

    assert check_gradients(lambda p: c * np.maximum(p, 0), w, grads, oracle=oracle)
    away = np.where(np.arange(size) < size // 2, 0.0, 1.0)
    assert check_gradients(lambda p: c * np.maximum(p, 0), away.copy(), grads, oracle=oracle)
    wrong = grads(away)
    wrong[-1] *= 1.01
    assert not check_gradients(lambda p: c * np.maximum(p, 0), away.copy(), wrong, oracle=oracle)
