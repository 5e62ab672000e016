"""gradcheck: it passes what is right, rejects what is planted, and refuses what it cannot check."""

import re

import numpy as np
import pytest
from conftest import cells, one_in_eight, rows, small

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
)
from scratchvae.gradcheck.differences import EPS, UNSEEN, Loss, Slope, _least_error
from scratchvae.gradcheck.point import Point
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
        or (theta == "local" and (likelihood.startswith("isotropic") or network == "conv"))  # no affine map
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_model_of_the_matrix_passes_or_is_refused(objective, monkeypatch):
    """All of it, once: 4 posteriors x 5 θ, and 6 x 2 more with other likelihoods and 3 x 2 with other networks."""
    monkeypatch.setattr(matrix, "OBJECTIVES", {objective: OBJECTIVES[objective]})
    checked = dict(check_matrix())
    assert len(checked) == 4 * 5 + 6 * 2 + 3 * 2
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
    with_networks = [tuple(map(settings.get, names)) for objective, settings in seen if objective == "A"][-6:]
    assert with_networks == [
        ((6, 4), None, None, None, None, None, None),
        ((6, 4), None, "full", None, "gaussian", None, None),
        ((), None, None, None, None, None, None),
        ((), None, None, 2, "gaussian", "free", None),
        (5, (3, 2), None, None, None, None, None),
        (5, (3, 2), "full", 1, "isotropic", "free", None),
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
