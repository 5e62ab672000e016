"""gradcheck: it passes what is right, rejects what is planted, and refuses what it cannot check."""

import inspect
import math
import re

import numpy as np
import pytest
from conftest import cells, one_in_eight, rows, small
from numpy.testing import assert_allclose

from scratchvae import VAE, FullVB, oracle
from scratchvae.cli import main
from scratchvae.gradcheck import (
    check_density,
    check_gradients,
    check_layer,
    check_matrix,
    check_model,
    check_parts,
    matrix,
    witnesses,
)
from scratchvae.gradcheck.check import Rule, _against, _not_compared
from scratchvae.gradcheck.differences import EPS, UNSEEN, Entry, Loss, Slope, _least_error, best_slope, noise_of, slope
from scratchvae.gradcheck.point import Measured, Point
from scratchvae.gradcheck.report import Row, table
from scratchvae.inference import distributions
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.nets.heads import Network
from scratchvae.nets.layers import Chain, Linear, Sigmoid, Tanh
from scratchvae.nets.mlp import mlp


def failures(checked):
    """The rows of the reports that have failed."""
    return [f"{title}: {row.name}" for title, report in checked for row in report if not row.passed]


def test_every_layer_and_density_passes():
    checked = list(check_parts())
    assert [title for title, _ in checked] == ["layers", "densities"]
    assert sum(len(checks) for _, checks in checked) == 33
    assert failures(checked) == []


def refused(objective, posterior, likelihood, network, theta):
    """Whether a model of the matrix makes no sense."""
    return (
        (objective == "B" and "maps" in posterior)  # no KL in closed form
        or (objective == "A" and theta == "local")  # no θ to score
        or (objective in ("wake-sleep", "autoencoder") and theta != "a point")  # no bound
        or (objective == "wake-sleep" and "given the class" in network)  # dreams have no class
        or (theta == "local" and (likelihood.startswith("isotropic") or network == "conv"))  # no affine map
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_model_of_the_matrix_passes_or_is_refused(objective, monkeypatch):
    """All of it, once: 4 posteriors x 5 θ, and 6 x 2 more with other likelihoods and 5 x 2 with other networks."""
    monkeypatch.setattr(matrix, "OBJECTIVES", {objective: OBJECTIVES[objective]})
    checked = dict(check_matrix())
    assert len(checked) == 4 * 5 + 6 * 2 + 5 * 2
    assert all(model.startswith(f"{objective} | ") for model in checked)
    allowed = {model: checks for model, checks in checked.items() if not isinstance(checks, str)}
    assert checked.keys() - allowed.keys() == {
        model for model in checked if refused(*model.replace("θ: ", "").split(" | "))
    }
    for checks in allowed.values():
        own_value = (
            ["bound"] if objective in ("stl", "dreg", "black-box", "wake-sleep") else []
        )  # beside the surrogate's
        assert [row.name for row in checks[: len(own_value) + 1]] == [*own_value, "value"]
        assert len(checks) >= 1 + 2 * 3  # three affine maps, or more
        assert all(row.oracle is not None for row in checks)  # the oracle knows every one of them
    assert failures(allowed.items()) == []


@pytest.mark.parametrize("seed", [1, 5])
def test_the_matrix_passes_with_other_seeds(seed):
    with one_in_eight(seed):
        allowed = [(model, checks) for model, checks in check_matrix(seed) if not isinstance(checks, str)]
    assert len(allowed) > 20
    assert failures([*check_parts(seed), *allowed]) == []


def test_the_command_prints_the_table_and_exits_0(capsys):
    with one_in_eight(0):
        assert main(["gradcheck"]) == 0
    out = capsys.readouterr().out
    for words in (
        "Conv2d conv.W",
        "log_gaussian ∂log_var",
        "A | gaussian | bernoulli | 4 | θ: a point",
        "dreg | full + 1 maps | continuous-bernoulli | conv | θ: a point",
        "oracle",
        "pass",
        "refused: estimator is 'wake-sleep', which has no bound over θ",
        "to pass: oracle ≤ 1e-10, and differences ≤ 1e-06",
    ):
        assert words in out
    assert "FAIL" not in out


def linear_db(self, dy):  # the bias's gradient averaged, not summed
    np.matmul(self.x.T, dy, out=self.dW)
    np.mean(dy, axis=0, out=self.db)
    return None if self.reads_data else dy @ self.W.T


def half_missing(mu, log_var, gradient=True):
    neg_kl, dmu, dlog_var = TRUE["gaussian_neg_kl"](mu, log_var)
    return 2 * neg_kl, dmu, dlog_var


def wrong_sign(x, logits, gradient=True):
    log_p, dlogits = TRUE["log_bernoulli"](x, logits)
    return log_p, -dlogits


def log_var_as_sigma(x, mu, log_var, gradient=True):  # right gradient, wrong density: only the value betrays it
    return TRUE["log_gaussian"](x, mu, 2 * log_var)[0], *(
        k * d for k, d in zip((1, 2), TRUE["log_gaussian"](x, mu, 2 * log_var)[1:], strict=True)
    )


TRUE = {name: getattr(distributions, name) for name in ("gaussian_neg_kl", "log_bernoulli", "log_gaussian")}
PLANTED = [
    ("scratchvae.nets.layers.Tanh.backward", lambda self, dy: dy * (1 - self.y)),
    ("scratchvae.nets.layers.Sigmoid.backward", lambda self, dy: dy * self.y),
    ("scratchvae.nets.layers.Linear.backward", linear_db),
    ("scratchvae.inference.posteriors.gaussian.gaussian_neg_kl", half_missing),
    ("scratchvae.inference.likelihoods.bernoulli.log_bernoulli", wrong_sign),
    ("scratchvae.inference.likelihoods.gaussian.log_gaussian", log_var_as_sigma),
    ("scratchvae.models.vae.VAE.add_log_prior_gradient", lambda self: None),
    (
        "scratchvae.nets.heads.Network.backward",
        lambda self, dy, *_: self.hidden.backward(self.heads[0].backward(dy)),
    ),
    ("scratchvae.nets.heads.Encoder.backward_given", lambda self, dlog_q: self.backward(0 * self.grad_z(), dlog_q)),
    ("scratchvae.inference.posteriors.gaussian.Gaussian.grad_z", lambda self: -self.eps),
]


def plain_cells():
    """Of each objective two models of the matrix, with a Bernoulli and with a Gaussian decoder."""
    plain = {"n_hidden": 4, "n_samples": 3}
    return cells(lambda k, objective, settings: settings in (plain, plain | {"likelihood": "gaussian"}))


def test_without_a_planted_bug_the_command_exits_0(capsys):
    with plain_cells():
        assert main(["gradcheck"]) == 0
    assert "FAIL" not in capsys.readouterr().out


@pytest.mark.parametrize(("where", "bug"), PLANTED, ids=[where.split(".", 2)[2] for where, _ in PLANTED])
def test_a_planted_bug_is_rejected_and_the_command_exits_1(monkeypatch, capsys, where, bug):
    monkeypatch.setattr(where, bug)
    with plain_cells():
        assert main(["gradcheck"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_wrong_n_over_m_is_rejected():
    model = small()
    bound = model.bound
    model.bound = lambda x, eps, n_data, gradient=False: bound(x, eps, len(x), gradient)  # the scale forgotten
    report = check_model(model, rows(), n_data=70)
    assert not report["value"].passed
    assert "another loss" in report["value"].notes[0]


def test_a_right_gradient_of_the_wrong_function_is_rejected_by_its_value():
    class Shifted(Sigmoid):
        def forward(self, x):
            return super().forward(x) + 0.1

    report = check_layer(Shifted(), rows(), oracle=lambda arrays, x: oracle.sigmoid(x))
    assert [row.passed for row in report] == [False, True]
    assert "another loss: it is" in report["Shifted value"].notes[0]


def squares(**arrays):
    """Arrays, and their loss Σ a², as a function without arguments."""
    return arrays, lambda: float(sum((a**2).sum() for a in arrays.values()))


def test_a_wrong_small_array_is_not_hidden_by_a_right_large_one():
    arrays, loss = squares(large=np.full(3, 1e6), small=np.full(3, 1e-3))
    gradients = {"large": 2 * arrays["large"], "small": 2.001 * arrays["small"]}
    report = check_gradients(
        loss, arrays, gradients, oracle=lambda a: (a["large"] ** 2).sum() + (a["small"] ** 2).sum()
    )
    assert {row.name: row.passed for row in report} == {"value": True, "large": True, "small": False}


@pytest.mark.parametrize(("error", "passes"), [(1e-11, True), (1e-9, False)])
def test_the_oracle_is_held_to_1e_minus_10(error, passes):
    arrays, loss = squares(a=np.arange(1.0, 4))
    gradients = {"a": 2 * arrays["a"] * (1 + error)}
    report = check_gradients(loss, arrays, gradients, oracle=lambda a: (a["a"] ** 2).sum())
    assert report["a"].passed == passes


@pytest.mark.parametrize(("error", "passes"), [(1e-7, True), (1e-5, False)])
def test_differences_are_held_to_1e_minus_6(error, passes):
    arrays, loss = squares(a=np.arange(1.0, 4))
    assert bool(check_gradients(loss, arrays, {"a": 2 * arrays["a"] * (1 + error)})) == passes


def test_a_gradient_that_is_not_a_number_fails():
    arrays, _ = squares(a=np.ones(2))
    report = check_gradients(lambda: arrays["a"].sum(), arrays, {"a": np.array([1.0, np.nan])})
    assert not report
    assert report["a"].notes == ("not a number: 1 of 2 entries are NaN or infinite, the first at [1]",)


def test_a_layer_density_or_model_of_ones_own_needs_no_oracle():
    class Cube:
        def forward(self, x):
            self.x = x
            return x**3

        def backward(self, dy):
            return dy * 3 * self.x**2

    report = check_layer(Cube(), rows())
    assert report and report["Cube x"].oracle is None

    class Scale:  # a parameter, and no name
        shapes = {"W": (6,)}  # noqa: RUF012

        def forward(self, x):
            self.x = x
            return x * self.W

        def backward(self, dy):
            self.dW[...] = (dy * self.x).sum(axis=0)
            return dy * self.W

    assert [(row.name, row.passed) for row in check_layer(Scale(), rows())] == [
        ("Scale W", True),
        ("Scale x", True),
    ]

    def log_laplace(x, mu):
        return -(np.abs(x - mu) + np.log(2)).sum(axis=-1), np.sign(x - mu)

    assert check_density(log_laplace, rows(), rows(seed=2), skip=1)

    def mine(*arguments):
        return small().estimator(*arguments)

    report = check_model(small(estimator=mine), rows())
    assert report and all(row.oracle is None for row in report)


def test_a_float32_model_is_checked_with_the_tolerance_of_its_rounding_and_says_so():
    report = check_model(small(dtype="float32", n_samples=3), rows())
    assert report and report.facts[0].startswith("float32; relative tolerance 1e-03")
    assert all(row.oracle < 1e-4 for row in report)
    wrong = small(dtype="float32", n_samples=3)
    wrong.add_log_prior_gradient = lambda: None
    assert not check_model(wrong, rows())


def test_a_layer_whose_shapes_leave_an_array_out_is_refused():
    class Undeclared(Linear):
        def __init__(self):
            super().__init__("linear", 6, 2)
            self.g = np.ones(2)
            self.dg = np.zeros(2)

    with pytest.raises(ValueError, match="linear has g and dg, but its shapes does not name g: not checked"):
        check_layer(Undeclared(), rows())


def test_the_table_names_each_array_and_its_verdict():
    text = str(check_layer(Linear("l", 6, 2), rows()) + check_layer(Tanh(), rows()))
    lines = [line.split() for line in text.splitlines() if line.endswith(("pass", "FAIL"))]
    assert [line[-1] for line in lines] == ["pass"] * 4
    assert [" ".join(line[:3]) for line in lines] == ["Linear l.W 12", "Linear l.b 2", "Linear x 42", "Tanh x 42"]


def test_a_composite_layer_is_checked_array_by_array():
    hidden, head = mlp("net", 6, [4], "tanh")
    two = Network(hidden, [Chain([head("mu", 3), Sigmoid()]), Chain([head("log_var", 3)])])
    hidden, head = mlp("net", 6, [], "tanh")
    one = Network(hidden, [Chain([head("logits", 3)])])
    for network in (two, one):
        report = check_layer(network, rows())
        assert len(report) == sum(len(layer.shapes) for layer in network.layers) + 1
        assert report


def test_a_layer_of_a_living_model_is_checked_without_being_touched():
    model = small()
    before = model.reconstruct(rows())
    assert check_layer(model.encoder.network.hidden, rows())
    assert (model.reconstruct(rows()) == before).all()


def test_arrays_are_put_back_as_they_were():
    model = small()
    before = model.params.value.copy()
    check_model(model, rows())
    assert (model.params.value == before).all()


def test_a_model_at_the_papers_small_initial_values_passes_too():
    for settings in ({}, {"likelihood": "gaussian"}, {"estimator": lambda *a: small().estimator(*a)}):
        assert check_model(VAE(6, (50, 20), 2, dtype="float64", **settings), rows())


def test_a_check_that_breaks_off_puts_the_parameters_back():
    def broken(*arguments):
        raise RuntimeError("mine")

    model = small()
    model.estimator = broken
    before = model.params.value.copy()
    with pytest.raises(RuntimeError, match="mine"):
        check_model(model, rows())
    assert (model.params.value == before).all()
    assert model.estimator is broken


def test_a_gradient_that_is_missing_is_refused():
    class Forgetful(Tanh):
        def backward(self, dy):
            super().backward(dy)

    with pytest.raises(ValueError, match="backward of Forgetful returned None"):
        check_layer(Forgetful(), rows())


class Tensor:
    """What looks like a tensor of another library."""


def test_a_loss_in_torch_is_read_as_a_number():
    class Scalar:
        """What looks like a tensor that is tied to its graph."""

        def detach(self):
            self.tied = False
            return self

        def cpu(self):
            return 0.5 * (x @ x)

    x = rows()[0]
    assert check_gradients(Scalar, x, lambda: x.copy())


def test_a_number_of_numpy_is_checked_where_the_loss_takes_it():
    report = check_gradients(lambda p: p["a"] ** 2, {"a": np.float64(2)}, {"a": 4.0})
    assert report and report["a"].checked == 1


def test_what_cannot_be_checked_is_refused():
    one = np.ones(1)
    for params, grads, words in [
        ({"a": one}, {"b": one, "c": one}, "2 gradients are given, for b, c; expected 1, for a"),
        ({"a": one, "c": one.copy()}, {"b": one, "c": one}, "2 gradients are given, for b, c; expected 2, for a, c"),
        ({"a": np.ones(2)}, {"a": np.ones(3)}, "a is (2,), and its gradient (3,); expected the same shape"),
        ({"a": np.arange(3)}, {"a": np.ones(3)}, "a holds int64; expected float64 or float32"),
        ({"a": np.ones(2, complex)}, {"a": np.ones(2)}, "a holds complex128"),
        ({"a": np.ones(0)}, {"a": np.ones(0)}, "a is empty"),
        ({"a": np.array([1, np.nan])}, {"a": np.ones(2)}, "a has NaN or infinite entries"),
        ({"a": np.broadcast_to(one, 3)}, {"a": np.ones(3)}, "a cannot be written to"),
        ({"a": one}, {"a": np.ones(1, complex)}, "the gradient of a holds complex128"),
        ({"a": "text"}, {"a": one}, "params has a, which is str; expected an array"),
        ({}, {}, "params holds no array"),
        ({"a": 1.0}, {"a": 1.0}, "is a number, which a loss without an argument cannot see changing: use loss(params)"),
        ({"a": np.float64(1)}, {"a": 1.0}, "is a number, which a loss without an argument cannot see changing"),
        ({"a": (two := np.ones((2, 2))), "b": two[0]}, {"a": two, "b": two[0]}, "b shares its memory with a"),
        ({"a": np.ma.ones(2)}, {"a": one}, "params has a, which is MaskedArray; expected an array"),
        (
            {"a": one},
            {"a": None},
            "grads has a, which is NoneType; expected an array, or a dict or a list of arrays: is",
        ),
        ({"a": one, "c": np.ones(2)}, [one, one], "expected 2, for a, c: hand over a dict with these keys"),
        ({"a": one}, [1.0], "grads is a list of numbers; expected arrays: hand over np.array(grads)"),
        (
            {"a": one},
            {"a": Tensor()},
            "a, which is Tensor; expected an array, or a dict or a list of arrays: hand over",
        ),
        (
            list(np.ones((9, 1))),
            [one],
            "1 gradient is given, for [0]; expected 9, for [0], [1], [2], [3], [4], [5] and",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            check_gradients(lambda: 0.0, params, grads)
    for loss, params, words in [
        (
            lambda x, y: 0.0,
            [one],
            "loss takes x, y; expected params alone as its argument, or none: hand over lambda p: f(*p)",
        ),
        (lambda x, y: 0.0, one, "or none: hand over params=[x, y] and lambda p: f(*p)"),
        (
            lambda *, x: 0.0,
            {"x": one},
            "loss takes x; expected params alone as its argument, or none: hand over lambda p: f(**",
        ),
        (
            lambda: None,
            one,
            "the loss returned NoneType; expected a number, or an array of terms whose sum is meant: is a",
        ),
        (
            lambda: (0.0, one),
            one,
            "the loss returned tuple; expected a number, or an array of terms whose sum is meant: hand",
        ),
        (lambda: [0.0, one], one, "the loss returned list"),
        (lambda: "text", one, "the loss returned str; expected a number"),
        (lambda: 1j * one, one, "the loss is complex; expected a real number"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            check_gradients(loss, params, params)
    for settings, words in [
        ({"sizes": [7]}, "sizes is list; expected a dict"),
        ({"sizes": {"M": "7"}}, "M is '7'; expected a number > 0"),
        ({"known": one}, "known is ndarray; expected a dict"),
        ({"known": {"h": "text"}}, "known has h, which is str"),
        ({"rtol": 1}, "rtol is 1; expected less than 1"),
        ({"seed": "0"}, "seed is '0'; expected a whole number ≥ 0"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            check_gradients(lambda: one.sum(), one, one, **settings)
    with pytest.raises(ValueError, match="loss is float; expected a function"):
        check_gradients(1.0, one, one)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "sigmoid"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (VAE, {"n_hidden": (5, 4, 3)}),
        (VAE, {"n_hidden": (5, 4), "flow": 2}),
        (VAE, {"n_hidden": (5, 4), "channels": (2,), "likelihood": "isotropic"}),
        (FullVB, {"n_hidden": (5, 4), "theta_noise": "local"}),
        (FullVB, {"n_hidden": (5, 4), "channels": (2,)}),
    ],
)
def test_depth_and_activation_are_options_of_every_model(kind, settings, activation):
    model = kind(9, n_latent=2, activation=activation, dtype="float64", **settings)
    assert check_model(model, rows(4, 9))
    assert type(model.encoder.network.hidden.layers[-1]).__name__.lower() == activation


def test_the_matrix_has_each_of_the_four_posteriors_without_and_with_every_noise_of_theta():
    seen = set()
    names = ("posterior", "flow", "theta_noise")
    with cells(lambda k, objective, settings: seen.add((objective, *map(settings.get, names))) is not None):
        list(check_matrix())
    for objective in OBJECTIVES:
        for q in [(None, None), ("full", None), (None, 2), ("full", 1)]:
            for noise in (None, "minibatch", "antithetic", "datapoint", "local"):
                assert (objective, *q, noise) in seen
    assert {settings[1:3] for settings in seen} == {(None, None), ("full", None), (None, 2), ("full", 1)}


def test_the_matrix_has_each_other_network_plain_and_with_a_posterior_and_a_likelihood_of_its_own():
    seen = []
    with cells(lambda k, objective, settings: bool(seen.append((objective, settings)))):
        list(check_matrix())
    names = ("n_hidden", "channels", "posterior", "flow", "likelihood", "mean", "theta_noise")
    of_a = [settings for objective, settings in seen if objective == "A"]
    assert [settings.get("n_classes") for settings in of_a][-5:] == [None, 3, 3, 3, 3]
    with_networks = [tuple(map(settings.get, names)) for settings in of_a][-10:]
    assert with_networks == [
        ((6, 4), None, None, None, None, None, None),
        ((6, 4), None, "full", None, "gaussian", None, None),
        ((), None, None, None, None, None, None),
        ((), None, None, 2, "gaussian", "free", None),
        (5, (3, 2), None, None, None, None, None),
        (5, (3, 2), "full", 1, "isotropic", "free", None),
        (4, None, None, None, None, None, None),
        (4, None, None, None, "continuous-bernoulli", None, None),
        (4, (2,), None, None, None, None, None),
        (4, (2,), "full", None, "laplace", None, None),
    ]


@pytest.mark.parametrize("settings", [{"n_hidden": 4}, {"n_hidden": 4, "theta_noise": "minibatch"}])
def test_the_seed_of_the_matrix_is_that_of_its_models_and_of_their_checks(settings, monkeypatch):
    monkeypatch.setattr(matrix, "check_model", lambda model, x, **checks: (model, checks))
    model, checks = matrix.check_cell("A", settings, np.ones((2, 16)), seed=5)
    assert model.config["seed"] == checks["seed"] == 5


@pytest.mark.parametrize("n_samples", [2, 3, 4, 5])
def test_the_black_box_weighs_each_half_of_the_draws_by_the_other_whatever_their_number(n_samples):
    settings = {"n_hidden": 4, "n_samples": n_samples}
    matrix.check_cell("black-box", settings, np.random.default_rng(n_samples).random((4, 16))).raise_if_failed()


def test_a_random_line_moves_each_entry_by_half_to_one_and_a_half_of_its_arrays_size():
    array = np.full((40, 50), 3.0)
    point = Point(Loss(lambda: (array**2).sum()), {"a": array}, EPS, np.random.default_rng(0), {"a": 2 * array})
    (direction,) = point.line(["a"]).directions
    assert 1.5 <= np.abs(direction).min() < 1.51 and 4.49 < np.abs(direction).max() <= 4.5
    assert 0.4 < (direction > 0).mean() < 0.6


def test_the_rounding_of_differences_is_that_of_float64():
    assert np.finfo(np.float64).eps == EPS


def test_one_step_alone_shows_no_slope_since_nothing_tells_its_error():
    slopes = [(k, Slope(2.0, 1e-9, 2.0, 2.0, False, 8.0**k)) for k in (-1, 0)]
    assert _least_error(slopes[:1]) is UNSEEN
    assert _least_error(slopes).value == 2.0


def test_a_row_of_the_table_says_how_many_entries_were_moved_one_by_one():
    printed = table(
        [
            Row("value", True),
            Row("W", True, 300, 20, 1.5, None, 1e-9, 1e-6),
            Row("b", True, 3, 3),
            Row("oracle", True, 1200),
        ]
    )
    columns = [re.split(r" {2,}", line)[:3] for line in printed.splitlines()[1:]]
    assert columns == [["value", "-", "-"], ["W", "20 of 300", "1.500e+00"], ["b", "3", "-"], ["oracle", "1,200", "-"]]


# What is measured at a point, and when more steps are taken


def point_of(function, arrays, gradients):
    """A point at which float64 arrays are, with the loss `function`."""
    return Point(Loss(function), arrays, EPS, np.random.default_rng(0), gradients)


def refinements(monkeypatch):
    """A list of the first steps with which slopes are looked at with many steps from now on."""
    steps = []
    derivative = Point.derivative

    def noting(self, line, ours, h, tolerance):
        steps.append(h)
        return derivative(self, line, ours, h, tolerance)

    monkeypatch.setattr(Point, "derivative", noting)
    return steps


def test_the_noise_of_an_exact_loss_is_a_quarter_of_eps_and_of_one_without_numbers_beside_it_eps():
    a = np.ones(3)
    assert point_of(lambda: 8.0, {"a": a}, {"a": np.zeros(3)}).noise == EPS / 4 * 8
    nowhere = point_of(lambda: 8.0 if (a == 1).all() else np.nan, {"a": a}, {"a": np.zeros(3)})
    assert nowhere.noise == EPS * 8


def test_the_noise_is_measured_by_moving_what_is_not_zero():
    arrays = {"a": np.ones(3), "b": np.zeros(2)}

    def rounded():
        return np.round(arrays["a"].sum(), 9)  # the error is uniform within ± 5e-10

    noise = point_of(rounded, arrays, {"a": np.ones(3), "b": np.zeros(2)}).noise
    assert 1e-10 < noise < 1e-9


def test_the_own_size_of_an_entry_is_tried_as_well_below_a_thousandth_of_the_arrays(monkeypatch):
    steps = refinements(monkeypatch)
    for own, tried in [(0.9e-3, 2), (1.1e-3, 1), (0.5, 1), (0.0, 1)]:
        steps.clear()
        a = np.array([own])
        point = point_of(lambda a=a: a**2, {"a": a}, {"a": 2 * a})
        point._entry(a, 1.0, point.step, 0, 2 * a + 1, 1e-6, True)
        assert steps == [point.step, point.step * own][:tried], own


def test_four_of_the_entries_that_are_wrong_are_looked_at_with_many_steps(monkeypatch):
    steps = refinements(monkeypatch)
    a = np.arange(1.0, 9)
    found = point_of(lambda: a**2, {"a": a}, {"a": 2 * a}).measure("a", 3 * a, 1e-6, directions=0)
    assert found.wrong and len(steps) == 4
    steps.clear()
    assert not point_of(lambda: a**2, {"a": a}, {"a": 2 * a}).measure("a", 2 * a, 1e-6, directions=0).wrong
    assert steps == []


@pytest.mark.parametrize(("rows", "whole"), [(40, True), (41, False)])
def test_the_whole_right_gradient_is_found_of_up_to_a_thousand_entries_though_few_are_moved_at_first(rows, whole):
    W = np.random.default_rng(0).standard_normal((rows, 25))
    said = check_gradients(lambda: W**2, W, 2 * W[::-1], entries=20)["params"].notes[0]
    assert said.startswith("in reversed order along axis 0") == whole


def test_at_other_points_one_entry_and_one_direction_are_tried_and_two_directions_at_the_first(monkeypatch):
    tried = []
    measure = Point.measure

    def noting(self, name, ours, rtol, atol=0.0, entries=None, directions=2):
        tried.append((entries, directions))
        return measure(self, name, ours, rtol, atol, entries, directions)

    monkeypatch.setattr(Point, "measure", noting)
    a = np.arange(1.0, 4)
    assert check_gradients(lambda: a**2, a, lambda: 2 * a, points=3)
    assert tried == [(None, 2), (1, 1), (1, 1)]
    tried.clear()
    assert check_gradients(lambda: a**2, a, lambda: 2 * a, points=1, oracle=lambda a: (a**2).sum())
    assert tried == [(None, 1)]  # an oracle sees every entry


def test_the_error_of_a_difference_is_twenty_times_the_noise_and_the_rounding():
    a = np.array([2.0])
    found = slope(Entry(Loss(lambda: 3 * a), 1, a, 0), 3 * a, 0.5, 0.25)
    assert found == Slope(3.0, 20 * (0.25 / 0.5 + 2.0**-52 * 3), 3.0, 3.0, False, 0.5)


def test_seven_steps_below_the_first_one_are_tried_each_an_eighth_of_the_one_before():
    tried = []

    class Noting(Entry):
        def at(self, t):
            tried.append(t)
            return super().at(t)

    a = np.array([1.0])
    best_slope(Noting(Loss(lambda: a**2), 1, a, 0), a**2, 2.0**-6, 1e-16, 2, 2.0, 1e-9)
    assert sorted({t for t in tried if t > 0}) == [2.0**-6 * 8.0**k for k in range(-7, 3)]


@pytest.mark.parametrize(("error", "taken"), [(0.95e-9, 0), (1.05e-9, -1)])
def test_of_two_steps_that_are_good_to_1e_minus_9_the_nearer_one_is_taken(error, taken):
    """Of relative errors below 1e-9 none has to be better than another."""
    ladder = [(k, Slope(4.0, e, 4.0, 4.0, False, 8.0**k)) for k, e in [(-1, 1e-10), (0, 4 * error)]]
    assert _least_error(ladder).step == 8.0**taken


def test_what_is_as_far_from_the_oracle_as_its_rounding_passes_and_no_further():
    beside = witnesses.Testimony("autograd", 0.0, {"a": np.zeros(1)}, EPS, lambda: {"a": np.array([0.25])})
    rule = Rule("float64", 1e-6, 0.0, {}, {})
    assert _against("a", np.array([5.0]), beside, rule) == (5.0, True)  # 20 times 0.25
    assert _against("a", np.array([5.0 + 1e-12]), beside, rule)[1] is False


def test_which_error_would_not_be_seen_is_said_where_there_is_no_oracle():
    a = np.ones(3000)  # more than are moved one by one
    words = "an error of one entry below 11 % of the largest would not be seen"  # 2 rtol √3000
    assert check_gradients(lambda: a**2, a, 2 * a, rtol=1e-3)["params"].notes == (words,)
    assert check_gradients(lambda: a**2, a, 2 * a, rtol=1e-3, oracle=lambda a: (a**2).sum())["params"].notes == ()
    said = check_gradients(lambda: a**2, a, 2 * a, rtol=1.1e-4)["params"].notes
    assert said == ("an error of one entry below 1 % of the largest would not be seen",)
    assert check_gradients(lambda: a**2, a, 2 * a, rtol=5e-5)["params"].notes == ()  # 0.5 %


def test_a_builtin_of_which_nothing_is_known_is_given_the_arrays():
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(max)
    a = np.array([1.0, 3.0, 2.0])
    assert check_gradients(max, a, np.array([0.0, 1.0, 0.0]))
    assert not check_gradients(max, a, np.array([1.0, 0.0, 0.0]))
    in_float32 = check_gradients(max, a.astype(np.float32), np.array([0.0, 1.0, 0.0]))
    assert in_float32 and not any("let the loss take params" in fact for fact in in_float32.facts)


def test_a_model_is_checked_with_three_times_as_many_data_as_rows_unless_told(monkeypatch):
    scales = []
    model = small()
    bound = type(model).bound

    def noting(self, x, noise, n_data, gradient=False):
        scales.append(n_data)
        return bound(self, x, noise, n_data, gradient=gradient)

    monkeypatch.setattr(type(model), "bound", noting)
    for settings, n_data in [({}, 21), ({"n_data": 50}, 50)]:
        scales.clear()
        assert check_model(model, rows(), **settings)
        assert set(scales) == {n_data}


def test_the_noise_is_that_of_nine_values_at_each_of_three_distances():
    tried = []

    class Line:
        def at(self, t):
            tried.append(t)
            return np.array([t]), t

    noise_of(Line(), 2.0**-52)
    distances = [2.0 ** (-52 * power) for power in (0.87, 0.62, 0.42)]
    assert_allclose(tried, [k * distance for distance in distances for k in range(-4, 5)], rtol=1e-12)


def test_the_noise_is_the_largest_that_third_to_fifth_differences_show():
    """Of the k-th differences of independent errors of deviation s the mean square is s² (2k)! / (k!)²."""
    values = np.random.default_rng(0).standard_normal(27)
    found = iter(values)

    class Line:
        def at(self, t):
            return np.array([next(found)]), t

    expected = []
    for nine in values.reshape(3, 9):
        for k, factor in [(3, 20), (4, 70), (5, 252)]:
            nine_k = np.array(
                [sum((-1) ** j * math.comb(k, j) * nine[i + k - j] for j in range(k + 1)) for i in range(9 - k)]
            )
            expected.append(math.sqrt((nine_k**2).mean() / factor))
    assert_allclose(noise_of(Line(), 2.0**-52), max(expected), rtol=1e-12)


def measured(**changes):
    """What differences say of a gradient of one entry, all of it well."""
    none = np.array([], int)
    well = {"wrong": False, "places": np.array([0]), "theirs": np.ones(1), "error": 0.0, "sees": 0.0, "kinked": none}
    well |= {"outside": 0, "far": 0, "unseen": 0, "compared": True, "step": 1e-5}
    return Measured(**well | changes)


@pytest.mark.parametrize(("sees", "size", "passes"), [(0.99, 1.0, True), (1.0, 1.0, False), (1.0, 9e-15, True)])
def test_a_gradient_no_larger_than_what_differences_see_is_not_compared_where_it_has_an_effect(sees, size, passes):
    """The effect of the array on the loss, which is 4 here, counts where it is above 10 eps of the loss, 8.9e-15."""
    a = np.array([size])
    point = point_of(lambda: 4.0, {"a": a}, {"a": np.ones(1)})
    if size < 1:
        point.scales["a"] = 8.8e-15
    said = _not_compared("a", point, np.ones(1), measured(sees=sees), Rule("float64", 1e-6, 0.0, {}, {}), False)
    assert (said == []) == passes
    assert passes or "resolve no error below 1.0e+00, and the gradient is 1.0e+00 at most" in said[0]


def test_the_value_row_says_how_far_the_loss_is_from_the_oracles_as_a_share_of_it():
    a = np.array([1.0, 2.0])
    for oracle_of_a, error in [(lambda a: 4 * (a**2).sum(), 0.75), (lambda a: 0 * a.sum(), 5.0)]:
        row = check_gradients(lambda: (a**2).sum(), a, 2 * a, oracle=oracle_of_a)["value"]
        assert not row.passed and row.oracle == error


@pytest.mark.parametrize(
    ("error", "words"), [(0.9e-5, "the oracle seems to compute in float32"), (1.1e-5, "another loss")]
)
def test_an_oracle_that_is_off_by_rounding_in_float32_is_told_from_another_loss(error, words):
    a = np.array([1.0, 2.0])
    row = check_gradients(lambda: (a**2).sum(), a, 2 * a, oracle=lambda a: (1 + error) * (a**2).sum())["value"]
    assert not row.passed and row.notes[0].startswith(f"{words}: it is 5 here, and 5.0000")


def test_where_differences_see_little_the_remedy_is_told_and_nowhere_else():
    def is_told(a, loss):
        report = check_gradients(loss, a, 2 * a)
        return "differences in float32 see little: let the loss take params, and they are in float64" in report.facts

    a = np.array([1.0, 2.0])
    b = a.astype(np.float32)
    assert [is_told(a, lambda: a**2), is_told(a, lambda a: a**2), is_told(b, lambda b: b**2)] == [False] * 3
    assert is_told(b, lambda: b**2)


def test_where_rounding_lets_one_side_stand_still_no_slope_is_seen():
    """1 + 2⁻⁵³ is rounded to 1, and 1 - 2⁻⁵³ is a number of its own."""
    a = np.array([1.0])
    assert a + 2.0**-53 == a != a - 2.0**-53
    line = Entry(Loss(lambda: 1 * a), 1, a, 0)
    assert slope(line, np.ones(1), 2.0**-53, 1e-16) is UNSEEN
    assert slope(line, np.ones(1), 2.0**-52, 1e-16).value == 1


def test_a_gradient_that_is_zero_everywhere_is_told_without_a_share_of_its_largest_entry():
    W = np.random.default_rng(0).standard_normal((3, 2))
    said = str(check_gradients(lambda: np.sin(1e6 * W).sum(), {"W": W}, {"W": np.zeros_like(W)}))
    assert "not written: the gradient is 0 everywhere" in said
    assert "inf" not in said and "of the largest" not in said


def test_of_the_matrix_only_the_models_that_are_asked_for_are_checked():
    names = []

    def keep(k, what):
        names.append((k, what))
        return k == 2

    (found,) = check_matrix(keep=keep)
    assert found[0] == names[2][1] and [k for k, _ in names] == list(range(len(names)))
