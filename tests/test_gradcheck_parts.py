"""check_layer, check_density and check_hessian: which arrays they find, what they say, and what they let pass."""

import re

import numpy as np
import pytest
from conftest import check_model, rows, small

from scratchvae.gradcheck import check_density, check_gradients, check_hessian, check_layer
from scratchvae.gradcheck.arrays import without_prefix

# Layers and densities


def test_labels_stay_integers_and_have_no_gradient():
    class CrossEntropy:
        def forward(self, a, y):
            assert y.dtype.kind == "i"
            e = np.exp(a)
            self.p, self.y = e / e.sum(axis=1, keepdims=True), y
            return -np.log(self.p[np.arange(len(y)), y])

        def backward(self, dL):
            return dL[:, None] * (self.p - np.eye(5)[self.y])

    rng = np.random.default_rng(0)
    report = check_layer(CrossEntropy(), rng.standard_normal((4, 5)), rng.integers(0, 5, 4))
    assert report and [row.name for row in report] == ["CrossEntropy x"]


def test_backward_may_return_several_gradients_and_a_wrong_count_is_told():
    class Product:
        def forward(self, a, b):
            self.a, self.b = a, b
            return a * b

        def backward(self, dy):
            return dy * self.b, dy * self.a

    class One(Product):
        def backward(self, dy):
            return dy * self.b

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4))
    assert check_layer(Product(), a, b)
    with pytest.raises(ValueError, match=r"backward of One returned 1 gradients for 2 inputs \(x, x1\)"):
        check_layer(One(), a, b)


class Scale:
    """A layer that lays no windows: gamma, and dgamma assigned."""

    def __init__(self):
        self.gamma = np.arange(1.0, 5)
        self.dgamma = np.zeros(4)

    def forward(self, x):
        self.x = x
        return self.gamma * x

    def backward(self, dy):
        self.dgamma = (dy * self.x).sum(axis=0)
        return dy * self.gamma


def test_parameters_of_a_strangers_layer_are_found():
    x = np.random.default_rng(0).standard_normal((3, 4))
    report = check_layer(Scale(), x)
    assert report and [row.name for row in report] == ["Scale gamma", "Scale x"]

    class Late(Scale):  # dgamma comes with the first call of backward
        def __init__(self):
            self.gamma = np.arange(1.0, 5)

    assert [row.name for row in check_layer(Late(), x)] == ["Late gamma", "Late x"]

    class Dicts:
        def __init__(self):
            self.params = {"W": np.arange(1.0, 5)}
            self.grads = {}

        def forward(self, x):
            self.x = x
            return self.params["W"] * x

        def backward(self, dy):
            self.grads["W"] = (dy * self.x).mean(axis=0)
            return dy * self.params["W"]

    report = check_layer(Dicts(), x)
    assert report["Dicts W"].notes == (
        "a factor: it is 1/M times the right one (averaged over M where the loss is a sum)",
    )


def test_a_window_that_is_replaced_is_followed():
    class Assigned:
        shapes = {"W": (4,)}  # noqa: RUF012

        def forward(self, x):
            self.x = x
            return self.W * x

        def backward(self, dy):
            self.dW = (dy * self.x).sum(axis=0)  # a new array, not the window
            return dy * self.W

    assert check_layer(Assigned(), np.random.default_rng(0).standard_normal((3, 4)))


def test_a_forward_that_changes_its_input_and_a_backward_that_changes_its_gradient_are_told():
    class InPlace:
        def forward(self, x):
            x *= 2
            return x.copy()

        def backward(self, dy):
            dy *= 2
            return dy

    report = check_layer(InPlace(), np.ones((2, 3)))
    assert report[0].notes == (
        "forward or backward changes x, its input",
        "backward changes the gradient that is handed to it",
    )


def test_a_density_may_return_a_value_per_element_and_partials_of_what_was_broadcast():
    def log_normal(x, mu, sigma):
        r = (x - mu) / sigma
        return -np.log(sigma) - r * r / 2, -r / sigma, r / sigma, (r * r - 1) / sigma

    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3))
    report = check_density(log_normal, x, rng.standard_normal(3), np.array(1.5))
    assert report and [row.size for row in report] == [12, 3, 1]

    def two(x, mu):
        return -((x - mu) ** 2), 2 * (mu - x)

    with pytest.raises(ValueError, match=r"two returned 1 partials for 2 arguments \(∂x, ∂mu\).*skip="):
        check_density(two, x, x + 1)
    with pytest.raises(ValueError, match=r"partial ∂mu of <lambda> has the shape \(4, 3\); its argument has \(2, 3\)"):
        check_density(lambda x, mu: two(x, mu[:1]), x, rng.standard_normal((2, 3)), skip=1)


# What a layer holds


class Affine:
    """A layer whose gradients are kept under the names that a subclass gives; they are 3 times the right ones."""

    names = ("dW", "db")

    def __init__(self, n_in=4, n_out=4):
        self.W = np.random.default_rng(1).standard_normal((n_in, n_out))
        self.b = np.zeros(n_out)

    def forward(self, x):
        self.x = x
        self.y = x @ self.W + self.b
        return self.y

    def backward(self, dy):
        self.dy = dy
        setattr(self, self.names[0], 3 * self.x.T @ dy)
        setattr(self, self.names[1], dy.sum(axis=0))
        return dy @ self.W.T


def x_rows():
    return np.random.default_rng(0).standard_normal((3, 4))


def verdicts(report):
    return {row.name.split(" ", 1)[1]: row.passed for row in report}


@pytest.mark.parametrize("form", ["d{}", "grad_{}", "{}_grad", "g{}"])
def test_gradients_are_found_under_each_of_their_usual_names(form):
    layer = Affine()
    layer.names = (form.format("W"), form.format("b"))
    assert verdicts(check_layer(layer, x_rows())) == {"W": False, "b": True, "x": True}


def test_gradients_are_found_in_dicts_lists_and_slots():
    class Dicts:
        def __init__(self, key):
            self.params = {"W": np.eye(4)}
            self.grads = {}
            self.key = key

        def forward(self, x):
            self.x = x
            return x @ self.params["W"]

        def backward(self, dy):
            self.grads[self.key] = 3 * self.x.T @ dy
            return dy @ self.params["W"].T

    class Lists:
        def __init__(self):
            self.params = [np.eye(4)]
            self.grads = [np.zeros((4, 4))]

        def forward(self, x):
            self.x = x
            return x @ self.params[0]

        def backward(self, dy):
            self.grads[0][...] = 3 * self.x.T @ dy
            return dy @ self.params[0].T

    class Slots:
        __slots__ = ("W", "dW", "x")

        def __init__(self):
            self.W = np.eye(4)

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dy):
            self.dW = 3 * self.x.T @ dy
            return dy @ self.W.T

    for layer, name in [(Dicts("W"), "W"), (Dicts("dW"), "W"), (Lists(), "params[0]"), (Slots(), "W")]:
        assert verdicts(check_layer(layer, x_rows())) == {name: False, "x": True}


class Sequence:
    """Layers one after another, in a list or as attributes."""

    def __init__(self, *layers, as_list=True):
        if as_list:
            self.layers = list(layers)
        else:
            self.first, self.second = layers

    def forward(self, x):
        for layer in self.parts():
            x = layer.forward(x)
        return x

    def parts(self):
        return self.layers if hasattr(self, "layers") else (self.first, self.second)

    def backward(self, dy):
        for layer in reversed(self.parts()):
            dy = layer.backward(dy)
        return dy


@pytest.mark.parametrize(("as_list", "names"), [(True, ["layers[0]", "layers[1]"]), (False, ["first", "second"])])
def test_the_parameters_of_layers_in_a_layer_are_checked(as_list, names):
    report = check_layer(Sequence(Affine(4, 3), Affine(3, 2), as_list=as_list), x_rows())
    expected = {f"{name}.{key}": key == "b" for name in names for key in "Wb"}
    assert verdicts(report) == expected | {"x": True}


def test_an_array_that_forward_reads_and_that_has_no_gradient_fails():
    class Forgotten(Affine):
        def backward(self, dy):
            self.dW = self.x.T @ dy
            return dy @ self.W.T

    report = check_layer(Forgotten(), x_rows())
    assert verdicts(report) == {"b": False, "W": True, "x": True}
    assert (
        report[0]
        .notes[0]
        .startswith(
            "b is read by forward, and no gradient of it was found (looked for db, grad_b, b_grad, gb, b, and in grads)"
        )
    )
    assert check_layer(Forgotten(), x_rows(), constants=["b"])
    with pytest.raises(ValueError, match="constants names c, which Forgotten does not hold; it has W, b"):
        check_layer(Forgotten(), x_rows(), constants=["c"])


def test_what_a_layer_computes_anew_is_no_parameter():
    class Prepared(Affine):  # y and dy are there from the start
        names = ("dW", "db")

        def __init__(self):
            super().__init__()
            self.y = np.ones((3, 4))
            self.dy = np.ones((3, 4))
            self.mean = np.zeros(4)

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)  # which the output does not depend on
            return super().forward(x)

    assert verdicts(check_layer(Prepared(), x_rows())) == {"W": False, "b": True, "x": True}


def test_a_plain_number_with_a_gradient_is_a_parameter():
    class Leaky:
        def __init__(self):
            self.slope = 0.1
            self.momentum = 0.9

        def forward(self, x):
            self.x = x
            return np.where(x > 0, x, self.slope * x)

        def backward(self, dy):
            self.dslope = 2 * (dy * self.x)[self.x < 0].sum()
            return dy * np.where(self.x > 0, 1, self.slope)

    assert verdicts(check_layer(Leaky(), x_rows())) == {"slope": False, "x": True}


def test_an_array_that_two_layers_share_has_the_sum_of_their_gradients():
    class Right(Affine):
        def backward(self, dy):
            self.dW = self.x.T @ dy
            self.db = dy.sum(axis=0)
            return dy @ self.W.T

    one = Right()
    other = Right()
    other.W = one.W
    assert verdicts(check_layer(Sequence(one, other), x_rows())) == dict.fromkeys(
        ["layers[0].W", "layers[0].b", "layers[1].b", "x"], True
    )


class Adding(Affine):
    """A layer that adds its gradients up."""

    def __init__(self):
        super().__init__()
        self.dW = np.zeros((4, 4))
        self.db = np.zeros(4)

    def backward(self, dy):
        self.dW += self.x.T @ dy
        self.db[...] = dy.sum(axis=0)
        return dy @ self.W.T


def test_gradients_that_a_layer_adds_up_are_called_accumulated_and_nothing_else():
    report = check_layer(Adding(), x_rows(), oracle=lambda p, x: x @ p["W"] + p["b"])
    assert verdicts(report) == {"W": False, "value": True, "b": True, "x": True}
    assert report["Adding W"].notes == (
        "accumulated: each call of backward adds the same to it once more. Write dW[...] =, and not dW +=",
    )


def test_a_layer_that_has_zero_grad_may_add_its_gradients_up():
    class Zeroed(Adding):
        def zero_grad(self):
            self.dW[...] = 0

    assert check_layer(Zeroed(), x_rows())


def test_a_loss_whose_backward_needs_no_argument_is_checked():
    class CrossEntropy:
        k = 1.0

        def forward(self, a, y):
            self.p = np.exp(a) / np.exp(a).sum(axis=1, keepdims=True)
            self.y = y
            return -np.log(self.p[np.arange(len(y)), y]).mean()

        def backward(self, dL=1.0):
            return self.k * (self.p - np.eye(self.p.shape[1])[self.y]) / len(self.y)

    layer = CrossEntropy()
    assert check_layer(layer, x_rows(), np.array([1, 0, 3]))
    layer.k = 3.0
    assert not check_layer(layer, x_rows(), np.array([1, 0, 3]))


def test_a_backward_may_take_the_gradients_of_the_outputs_in_a_tuple():
    class Two:
        def forward(self, x):
            self.x = x
            return x**2, x**3

        def backward(self, gradients):
            return 2 * self.x * gradients[0] + 3 * self.x**2 * gradients[1]

    assert check_layer(Two(), x_rows())


@pytest.mark.parametrize(
    ("backward", "words"),
    [
        (
            lambda self, dy: (dy @ self.W.T, 0 * self.W),
            r"returned 2 gradients for 1 inputs \(x\); .* kept, as in self.dW",
        ),
        (lambda self, dy: {"W": 0 * self.W}, r"returned a dict with W; expected the gradients of the inputs \(x\)"),
        (lambda self, x, y: x, r"needs 2 arguments, x, y; expected one for each of the 1 outputs of forward"),
    ],
)
def test_a_backward_of_another_form_is_told_what_was_expected(backward, words):
    layer = type("Other", (Affine,), {"backward": backward})()
    with pytest.raises(ValueError, match=words):
        check_layer(layer, x_rows())


def test_what_is_no_layer_is_told():
    with pytest.raises(ValueError, match=r"layer is the class Affine; expected an object of it, such as Affine\(\)"):
        check_layer(Affine, x_rows())
    with pytest.raises(ValueError, match="layer is int, without forward or backward"):
        check_layer(3, x_rows())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("at_zero", [False, True])
def test_a_density_summed_over_either_axis_of_a_square_array_passes(axis, at_zero):
    x = np.random.default_rng(0).standard_normal((4, 4)) * (not at_zero)
    assert check_density(lambda x: ((-0.5 * (x - 1) ** 2).sum(axis=axis), 1 - x), x)
    assert not check_density(lambda x: ((-0.5 * (x - 1) ** 2).sum(axis=axis), x - 1), x)


def test_gradients_called_dw_and_db_get_the_names_of_their_arrays():
    assert without_prefix({"dW": 1, "db": 2}, ["W", "b"]) == {"W": 1, "b": 2}
    assert without_prefix({"net.dW": 1}, ["net.W"]) == {"net.W": 1}
    assert without_prefix({"grad_W": 1, "grad_b": 2}, ["W", "b"]) == {"W": 1, "b": 2}
    for found in ({"W": 1, "b": 2}, {"dW": 1, "b": 2}, {"dW": 1}):
        assert without_prefix(found, ["W", "b"]) == found


# Second derivatives


def least_squares():
    """Arrays, the gradient of ½ ‖tanh(A w) - y‖², and its products with the Hessian and with the Gauss-Newton
    matrix."""
    rng = np.random.default_rng(0)
    A, y, w = rng.standard_normal((20, 4)), rng.standard_normal(20), {"w": rng.standard_normal(4)}

    def outputs(p):
        return np.tanh(A @ p["w"])

    def grad(p):
        z = outputs(p)
        return {"w": A.T @ ((z - y) * (1 - z * z))}

    def hessian(v, curvature=1.0):
        z = outputs(w)
        d = 1 - z * z
        return {"w": A.T @ ((d * d + curvature * (z - y) * (-2 * z * d)) * (A @ v["w"]))}

    return w, grad, hessian, outputs


def test_second_derivatives_are_checked_by_differences_of_a_gradient():
    w, grad, hessian, outputs = least_squares()

    def gauss_newton(v):
        return hessian(v, curvature=0.0)

    def check(hessian, gauss_newton):
        settings = {"gauss_newton": gauss_newton, "outputs": outputs, "output_hessian": lambda dz: dz}
        return {row.name: row.passed for row in check_hessian(grad, w, hessian=hessian, **settings)}

    assert all(check(hessian, gauss_newton).values())
    assert not check(gauss_newton, gauss_newton)["hessian"]
    assert not check(hessian, hessian)["gauss_newton"]
    negative = check(hessian, lambda v: {"w": -gauss_newton(v)["w"]})
    assert not negative["gauss_newton"] and not negative["gauss_newton ≥ 0"]


def test_a_field_that_is_the_gradient_of_no_function_is_told():
    turned = np.array([[1.0, 2.0], [0.0, 1.0]])
    report = check_hessian(lambda p: turned @ p, np.ones(2))
    assert report["symmetry"].notes == ("the Hessian is not symmetric: this is the gradient of no function",)
    with pytest.raises(ValueError, match="gauss_newton is given without outputs"):
        check_hessian(lambda p: p, np.ones(2), gauss_newton=lambda v: v)
    with pytest.raises(ValueError, match="expected float64"):
        check_hessian(lambda p: p, np.ones(2, np.float32))


def test_the_densities_of_the_library_have_symmetric_second_derivatives():
    from scratchvae.inference.distributions import log_bernoulli, log_gaussian

    rng = np.random.default_rng(0)
    x, mu, log_var = rng.standard_normal((3, 4, 5))
    report = check_hessian(
        lambda p: dict(zip(p, log_gaussian(x, p["mu"], p["log_var"])[1:], strict=True)), {"mu": mu, "log_var": log_var}
    )
    assert report
    y = rng.random((4, 5))

    def fisher(v):  # -y (1 - y), for any data
        s = 1 / (1 + np.exp(-mu))
        return -s * (1 - s) * v

    assert check_hessian(lambda logits: log_bernoulli(y, logits)[1], mu, hessian=fisher)


W = np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_wrong_block_does_not_hide_behind_another_array(scale):
    params = {"a": np.array([1.0, 2.0]), "b": np.array([1.0, 2.0])}

    def grad(p):
        return {"a": scale * p["a"], "b": p["b"]}

    for k, passes in [(1.0, True), (-55.0, False)]:
        report = check_hessian(grad, params, hessian=lambda v, k=k: {"a": scale * v["a"], "b": k * v["b"]})
        assert {row.name: row.passed for row in report} == {
            "symmetry a": True,
            "symmetry b": True,
            "hessian a": True,
            "hessian b": passes,
        }
    assert report["hessian b"].notes == ("a factor: it is -55 times the right one",)


RIGHT = {
    "a large constant": (lambda p: 1e6 + 1e-3 * p, W, lambda v: 1e-3 * v),
    "a pole": (lambda p: 1 / p, np.array([1e-3, 1.0, 2.0]), lambda v: -v / np.array([1e-3, 1.0, 2.0]) ** 2),
    "fast": (lambda p: 1e3 * np.cos(1e3 * p), W, lambda v: -1e6 * np.sin(1e3 * W) * v),
    "a kink near": (lambda p: np.maximum(p, 0), np.array([1e-4, -1e-4, 2.0]), lambda v: np.array([1.0, 0, 1]) * v),
    "constant": (lambda p: np.ones(3), W, lambda v: 0 * v),
    "steep": (lambda p: 5 * np.exp(5 * p), W, lambda v: 25 * np.exp(5 * W) * v),
    "one number": (lambda p: p**2, np.array([2.0]), lambda v: 4 * v),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_hessian_raises_no_alarm_and_one_off_by_a_hundredth_is_seen(case):
    grad, point, hessian = RIGHT[case]
    for seed in range(3):
        assert check_hessian(grad, point, hessian=hessian, seed=seed)
    if case != "constant":
        assert not check_hessian(grad, point, hessian=lambda v: 1.01 * hessian(v))
    else:
        assert not check_hessian(grad, point, hessian=lambda v: 1e-5 * v)


def test_gradients_of_a_relu_network_have_a_symmetric_hessian():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 10)), rng.standard_normal((50, 3))

    def grad(p):
        a = x @ p["W"]
        h = np.maximum(a, 0)
        d = h @ p["V"] - y
        return {"W": x.T @ (d @ p["V"].T * (a > 0)), "V": h.T @ d}

    params = {"W": rng.standard_normal((10, 20)) / 3, "V": rng.standard_normal((20, 3)) / 4}
    assert check_hessian(grad, params)
    assert not check_hessian(lambda p: grad(p) | {"V": 1.01 * grad(p)["V"]}, params)


def test_gradients_that_are_random_or_not_finite_fail_by_their_name():
    rng = np.random.default_rng(0)
    report = check_hessian(lambda p: p + 1e-3 * rng.standard_normal(3), W)
    assert "is another one at a second call" in report["grads"].notes[0]
    assert "is not finite" in check_hessian(lambda p: np.nan * p, W)["grads"].notes[0]
    assert not check_hessian(lambda p: p, W, hessian=lambda v: np.nan * v)


def test_a_hessian_may_be_a_matrix():
    A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
    assert check_hessian(lambda p: A @ p, W, hessian=A)
    assert not check_hessian(lambda p: A @ p, W, hessian=A + 0.01)
    parts = {"a": W[:2].copy(), "b": W[2:].copy()}

    def grad(p):
        g = A @ np.concatenate([p["a"], p["b"]])
        return {"a": g[:2], "b": g[2:]}

    assert check_hessian(grad, parts, hessian=A)
    with pytest.raises(ValueError, match=r"hessian is \(3, 2\); expected \(3, 3\) for the 3 numbers"):
        check_hessian(lambda p: A @ p, W, hessian=A[:, :2])


def test_what_would_show_nothing_is_refused():
    for few in (0, 1):
        with pytest.raises(ValueError, match="directions"):
            check_hessian(lambda p: p, W, directions=few)
    with pytest.raises(ValueError, match="grads is ndarray; expected a function"):
        check_hessian(np.ones(3), W)


# Parameters that no check could move


class Product:
    """x W with W where a subclass has it, and a gradient of the wrong sign."""

    def forward(self, x):
        self.x = x
        return x @ self.matrix()

    def backward(self, dy):
        self.dW = -self.x.T @ dy
        return dy @ self.matrix().T

    def matrix(self):
        return self.W


W0 = np.random.default_rng(8).standard_normal((4, 3))


class OfIntegers(Product):
    def __init__(self):
        self.W = np.arange(12).reshape(4, 3)


class OfTheClass(Product):
    W = W0.copy()


class MadeInForward(Product):
    def forward(self, x):
        self.W = getattr(self, "W", W0)
        return super().forward(x)


class OfTheModule(Product):
    def matrix(self):
        return W0


class Parameter:
    """An array beside its gradient, as many a library has it."""

    def __init__(self, value):
        self.data = value
        self.grad = np.zeros_like(value)


class InAParameter(Product):
    def __init__(self):
        self.W = Parameter(W0.copy())

    def matrix(self):
        return self.W.data

    def backward(self, dy):
        self.W.grad[...] = -self.x.T @ dy
        return dy @ self.W.data.T


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OfIntegers, "W holds int64, which cannot be moved a little: make it one of floats"),
        (OfTheClass, "W belongs to the class, and so to all its objects: set self.W in __init__"),
        (MadeInForward, "W is made in forward, and is not there before: make it in __init__"),
        (OfTheModule, "backward leaves dW, and the layer holds no W: set self.W in __init__"),
        (InAParameter, "the sign is wrong: it is -1 times the right one"),
    ],
)
def test_no_gradient_that_backward_leaves_goes_unchecked_in_silence(kind, words):
    report = check_layer(kind(), rows(5, 4))
    assert [(row.name, row.passed) for row in report] == [(f"{kind.__name__} W", False), (f"{kind.__name__} x", True)]
    assert report[0].notes[0] == words


def test_what_a_right_layer_keeps_under_such_names_is_no_parameter():
    class Keeps:
        def __init__(self):
            self.W = W0.copy()

        def forward(self, x):
            self.X, self.Wx = x, x @ self.W
            self.Y = np.log(self.Wx - self.Wx.min() + 1)
            return self.Y

        def backward(self, dy):
            self.dY = dy
            self.dWx = dy / np.exp(self.Y)
            self.dWx = self.dWx - (self.Wx == self.Wx.min()) * self.dWx.sum()
            self.dW, self.dX = self.X.T @ self.dWx, self.dWx @ self.W.T
            return self.dX

    assert [row.name for row in check_layer(Keeps(), rows(5, 4))] == ["Keeps W", "Keeps x"]
    assert check_layer(Keeps(), rows(5, 4))


def test_a_single_number_is_checked_as_it_is_so_that_its_terms_keep_their_size():
    def ridge(W, x, y):
        d = x @ W - y
        return 0.5 * (d * d).mean() + 0.05 * (W * W).sum(), x.T @ d / d.size

    x = rows(6, 4)
    report = check_density(ridge, W0, x, rows(6, 3), without=(1, 2))
    assert report[0].notes[0].startswith("it is off by -0.1 times W: a multiple of the array itself")


def test_the_partials_may_stand_in_a_tuple_and_whole_numbers_have_none():
    def log_normal(x, mu, sigma):
        d = (x - mu) / sigma
        return -0.5 * d * d - np.log(sigma), (-d / sigma, d / sigma, (d * d - 1) / sigma)

    assert check_density(log_normal, rows(4, 3), rows(4, 3) + 1, np.full((4, 3), 2.0))
    with pytest.raises(ValueError, match=r"3 partials for 2 arguments .*; sigma is given in integers, and has none"):
        check_density(log_normal, rows(4, 3), rows(4, 3) + 1, 2)


def test_a_matrix_that_a_function_of_v_returns_is_told_apart_from_h_v():
    w = np.array([1.0, 2, 3])
    with pytest.raises(ValueError, match=r"hessian returns a matrix; expected H v .* hand over the matrix itself"):
        check_hessian(lambda p: p**3, w, hessian=lambda v: np.diag(3 * w**2))


def test_an_oracle_that_is_cut_off_or_is_another_loss_is_told_beside_differences_that_agree():
    from autograd.extend import defvjp, primitive

    detached = primitive(lambda a: 1.0 * a)
    defvjp(detached, lambda value, a: lambda g: 0 * g)
    w = np.array([1.0, 2, 3])
    report = check_gradients(lambda p: p**2, w, lambda p: 2 * p, oracle=lambda p: detached(p) ** 2)
    assert report["params"].notes[0].startswith("the oracle does not read params, and the loss does")
    report = check_gradients(lambda p: p**2, w, lambda p: 2 * p, oracle=lambda p: (p**2).mean())
    assert report["params"].notes[0].startswith("right by differences, and not beside the oracle: a factor: it is 3")


def test_a_forward_that_returns_a_cache_beside_its_output_is_refused_by_name():
    class Caches:
        def forward(self, x):
            return x, {"x": x}

        def backward(self, dy):
            return dy

    with pytest.raises(ValueError, match="forward of Caches returned dict; expected arrays of numbers alone"):
        check_layer(Caches(), rows(2, 3))


def test_an_oracle_of_several_arguments_is_told_what_to_be():
    with pytest.raises(
        ValueError, match=r"oracle takes W, b; expected params alone as its argument, or none: hand over"
    ):
        check_gradients(lambda p: p["W"] ** 2, {"W": np.ones(2)}, lambda p: p, oracle=lambda W, b: W)


def test_what_an_optimiser_keeps_beside_a_parameter_hides_it_not():
    class Adam(Parameter):
        def __init__(self, value):
            super().__init__(value)
            self.m, self.v = np.zeros_like(value), np.zeros_like(value)

    class Uses(InAParameter):
        def __init__(self):
            self.W = Adam(W0.copy())

    report = check_layer(Uses(), rows(5, 4))
    assert [(row.name, row.passed) for row in report] == [("Uses W", False), ("Uses x", True)]
    assert report[0].notes[0] == "the sign is wrong: it is -1 times the right one"


def test_arrays_that_only_look_like_gradients_are_no_fault():
    class Looks:
        t = np.linspace(0, 1, 4)

        def __init__(self):
            self.W = W0.copy()
            self.db = np.array([3.0, 6, 9])  # decibels
            self.dt = np.diff(self.t)

        def forward(self, k):
            self.w = self.W[k]
            self.y = k
            return self.w * 2.0

        def backward(self, dy):
            self.dw, self.dV, self.dy = dy, dy + 1, dy
            self.dW = np.zeros_like(self.W)
            np.add.at(self.dW, self.y, 2.0 * dy)

    report = check_layer(Looks(), np.array([0, 2, 2, 1]), constants=["db", "dt"])
    assert report and [row.name for row in report] == ["Looks W"]


def test_a_backward_that_forgets_what_flows_into_it_is_seen_where_the_output_is_one_number():
    class Energy:
        def forward(self, x):
            self.x = x
            return (x**2).sum()

        def backward(self, dy):
            return 2 * self.x

    assert not check_layer(Energy(), rows(5, 4))


def test_the_only_partial_may_be_a_list_and_the_value_a_plain_float():
    assert check_density(lambda w: (float((w**2).sum()), [2 * w[0], 2 * w[1]]), np.array([1.0, 3.0]))


def noisy(size, p):
    """What rounding does to a gradient, at will: it is another one at every point, and the same at one point."""
    return size * np.sin(1e9 * p)


def test_a_gradient_with_noise_has_a_hessian_as_far_as_its_noise_shows_it():
    """What noise leaves open of uᵀH v and of vᵀH u adds up, and no asymmetry is missed beyond it."""
    A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 1.0]])
    for seed in range(5):
        report = check_hessian(lambda p: A @ p + noisy(1e-4, p), W, hessian=A, seed=seed)
        assert report and report["hessian"].sees > 1e-5
        assert report["symmetry"].sees > np.sqrt(2) * report["hessian"].sees  # as ‖E + Eᵀ‖ of errors E > 0 is
        assert not check_hessian(lambda p: (A + np.eye(3, k=1)) @ p + noisy(1e-4, p), W, seed=seed)


def test_a_hessian_that_differences_hardly_show_says_so_and_in_which_block():
    def note(size):
        return check_hessian(lambda p: {"a": p["a"] + noisy(size, p["a"])}, {"a": np.array([1.0, 2.0])})[0].notes

    words = "differences resolve it to a relative [0-9.e+-]+ only, in the block of a by a"
    assert re.fullmatch(words, "".join(note(0.02)))
    assert note(1e-5) == ()


def test_an_output_hessian_below_zero_asks_for_no_gauss_newton_matrix_above_it():
    def rows_of(curvature):
        settings = {"outputs": lambda p: p**2, "output_hessian": lambda dz: curvature * dz}
        return check_hessian(lambda p: p, W, gauss_newton=lambda v: curvature * 4 * W**2 * v, **settings)

    assert [(row.name, row.passed) for row in rows_of(-1)] == [("symmetry", True), ("gauss_newton", True)]
    assert [row.name for row in rows_of(1)] == ["symmetry", "gauss_newton", "gauss_newton ≥ 0"]


def test_which_parts_are_wrong_is_told_where_others_are_right_as_a_whole():
    def facts(wrong):
        params = {name: np.array([1.0, 2.0]) for name in ("encoder.W", "encoder.b", "decoder.W", "decoder.b", "scale")}
        grads = {name: (3 if name in wrong else 2) * a for name, a in params.items()}
        report = check_gradients(lambda: sum((a**2).sum() for a in params.values()), params, grads)
        return [fact for fact in report.facts if fact.startswith("all arrays of ")]

    assert facts(["encoder.W", "encoder.b"]) == [
        "all arrays of encoder are wrong and all of decoder are right: look at what flows back into encoder"
    ]
    for wrong in ([], ["encoder.W"], ["scale"], ["encoder.W", "encoder.b", "decoder.W", "decoder.b"]):
        assert facts(wrong) == []


def test_of_a_dict_with_a_gradient_one_array_is_the_parameter_and_the_others_are_not_looked_at():
    """Beside it lies what an optimiser keeps, here under v, which could be a parameter's name as well."""

    class Dicts:
        def __init__(self):
            self.W = {"v": np.zeros((4, 4)), "value": np.eye(4), "grad": np.zeros((4, 4))}

        def forward(self, x):
            self.x = x
            return x @ self.W["value"]

        def backward(self, dy):
            self.W["grad"][...] = 3 * self.x.T @ dy
            return dy @ self.W["value"].T

    assert verdicts(check_layer(Dicts(), x_rows())) == {"W.value": False, "x": True}


def test_a_layer_that_takes_no_other_numbers_is_not_called_one_that_makes_its_parameter_anew():
    """With other numbers it is tried whether what forward makes stays the same; here nothing can be said of that."""

    class Picky:
        picky = True

        def forward(self, x):
            if self.picky and not np.array_equal(x, x_rows()):
                raise ArithmeticError("made for one input")
            self.W = np.full((4, 2), 0.5)
            self.x = x
            return x @ self.W

        def backward(self, dy):
            self.dW = self.x.T @ dy
            return dy @ self.W.T

    class Other(Picky):
        picky = False

    assert verdicts(check_layer(Other(), x_rows(), entries=1)) == {"W": False, "x": True}
    report = check_layer(Picky(), x_rows())
    assert [row.name for row in report] == ["Picky x"]


def test_a_surrogate_that_needs_the_noise_of_a_draw_is_refused_where_the_posterior_does_not_tell_it():
    from scratchvae.inference.posteriors.gaussian import Gaussian

    class Least:
        name = "least"
        outputs, draw, backward, grad_z = Gaussian.outputs, Gaussian.draw, Gaussian.backward, Gaussian.grad_z

    model = small(posterior=Least(), estimator="stl", n_samples=2)
    words = r"the gradient of stl is checked by a surrogate, which needs log q\(z\|x\) at a given z: give the posterior"
    with pytest.raises(ValueError, match=words):
        check_model(model, rows(7))
