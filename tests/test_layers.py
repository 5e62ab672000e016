"""nets/: layers, chains, flat vectors, initial values (appendix C)."""

import mpmath
import numpy as np
import pytest
from conftest import small
from numpy.testing import assert_array_equal

from scratchvae import VAE, oracle
from scratchvae.gradcheck import check_layer
from scratchvae.nets.layers import Chain, Linear, ReLU, Sigmoid, Softplus, Tanh, sigmoid
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.nets.params import Params

X = np.random.default_rng(0).standard_normal((4, 5)) * 2
EDGES = np.array([-800.0, -50.0, -1.0, 0.0, 1.0, 50.0, 800.0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_the_oracle_and_so_does_its_derivative(name):
    checks = check_layer(ACTIVATIONS[name](), X, oracle=lambda arrays, x: oracle.ACTIVATIONS[name](x))
    assert [check.name.split()[1] for check in checks] == ["value", "x"]
    assert checks


def test_linear_is_x_w_plus_b_and_all_three_gradients_equal_the_oracle():
    checks = check_layer(Linear("l", 5, 3), X, oracle=lambda arrays, x: oracle.linear(arrays, "l", x))
    assert [check.name.split()[1] for check in checks] == ["value", "l.W", "l.b", "x"]
    assert checks


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_chain_of_any_depth_follows_the_chain_rule(depth):
    layers = [f for k in range(depth) for f in (Linear(f"l{k}", 5, 5), Tanh())]

    def composed(arrays, x):
        for k in range(depth):
            x = oracle.ACTIVATIONS["tanh"](oracle.linear(arrays, f"l{k}", x))
        return x

    assert check_layer(Chain(layers), X, oracle=composed)


def decoder_network(likelihood, mean, widths, activation):
    """The network of a VAE's decoder, from 5 latents to 6 pixels."""
    model = VAE(6, widths, 5, likelihood=likelihood, mean=mean, activation=activation, dtype="float64")
    return model.decoder.network


@pytest.mark.parametrize("mean", ["free", "sigmoid"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gaussian_decoders_network_equals_c2_with_a_free_mean_and_through_a_sigmoid(activation, mean):
    def c2(arrays, z):
        h = oracle.hidden(arrays, "decoder", z, activation)
        mu = oracle.linear(arrays, "decoder.mu", h)
        return oracle.sigmoid(mu) if mean == "sigmoid" else mu, oracle.linear(arrays, "decoder.log_var", h)

    checks = check_layer(decoder_network("gaussian", mean, [4, 3], activation), X, oracle=c2)
    assert len(checks) == 1 + 2 * 4 + 1  # the value, two hidden layers and two heads, and z
    assert checks


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_bernoulli_decoders_network_equals_c1(activation):
    def c1(arrays, z):
        return oracle.linear(arrays, "decoder.logits", oracle.hidden(arrays, "decoder", z, activation))

    checks = check_layer(decoder_network("bernoulli", "sigmoid", [4], activation), X, oracle=c1)
    assert len(checks) == 1 + 2 * 2 + 1
    assert checks


@pytest.mark.parametrize("settings", [{}, {"n_hidden": (5, 4)}, {"n_hidden": ()}, {"channels": (3, 2)}])
@pytest.mark.parametrize("posterior", ["gaussian", "full"])
def test_no_gradient_with_respect_to_the_data_is_computed_and_every_other_one_is(settings, posterior, monkeypatch):
    model = VAE(**{"n_visible": 64, "n_hidden": 5, "n_latent": 2, "posterior": posterior} | settings)
    handed_on = []
    for layer in model.encoder.layers + model.decoder.layers:
        plain = layer.backward

        def noting(dy, layer=layer, plain=plain):
            handed_on.append((layer, plain(dy)))
            return handed_on[-1][1]

        monkeypatch.setattr(layer, "backward", noting)
    model.bound(np.full((3, 64), 255, np.uint8), model.noise(np.random.default_rng(0), 3), 3, gradient=True)
    reading = [layer for layer, dx in handed_on if dx is None]
    assert reading == (model.encoder.layers if settings.get("n_hidden") == () else model.encoder.layers[:1])
    assert len(handed_on) == len(model.encoder.layers) + len(model.decoder.layers)


def test_a_network_takes_one_gradient_for_each_of_its_heads():
    network = VAE(4, 3, 2, likelihood="gaussian", dtype="float64").decoder.network
    outputs = network.forward(np.ones((5, 2)))
    assert len(outputs) == 2
    with pytest.raises(ValueError, match="zip"):
        network.backward(outputs[0])


def test_linear_that_reads_the_data_gives_no_input_gradient_and_the_same_parameter_gradients():
    plain, reading = Linear("l", 5, 3), Linear("l", 5, 3, reads_data=True)
    gradients = []
    for layer in (plain, reading):
        params = Params([layer], np.float64)
        params.value[...] = np.arange(params.value.size)
        layer.forward(X)
        assert (layer.backward(np.ones((4, 3))) is None) == layer.reads_data
        gradients.append(params.grad)
    assert_array_equal(*gradients)


def test_backward_overwrites_what_stood_in_the_gradient():
    layer = Linear("l", 5, 3)
    params = Params([layer], np.float64)
    once = []
    for stale in (0.0, np.nan):
        params.grad[...] = stale
        layer.forward(X)
        layer.backward(np.ones((4, 3)))
        once.append(params.grad.copy())
    assert_array_equal(*once)


@pytest.mark.parametrize("layer", [Tanh(), ReLU(), Sigmoid(), Softplus()])
def test_activations_are_finite_at_the_edges_with_finite_derivatives_e8(layer):
    for dtype in (np.float64, np.float32):
        y = layer.forward(EDGES.astype(dtype)[None])
        dy = layer.backward(np.ones_like(y))
        assert np.isfinite(y).all() and np.isfinite(dy).all() and y.dtype == dy.dtype == dtype


def test_sigmoid_and_softplus_equal_mpmath_at_the_edges_e8():
    exact_sigmoid = [float(1 / (1 + mpmath.exp(-mpmath.mpf(x)))) for x in EDGES]
    with mpmath.workdps(400):
        exact_softplus = [float(mpmath.log1p(mpmath.exp(mpmath.mpf(x)))) for x in EDGES]
    np.testing.assert_allclose(sigmoid(EDGES), exact_sigmoid, rtol=1e-14, atol=0)
    np.testing.assert_allclose(Softplus().forward(EDGES), exact_softplus, rtol=1e-14, atol=0)


def test_windows_are_named_in_the_order_laid_and_share_the_flat_vectors_memory():
    model = small()
    assert list(model.params.windows) == [
        f"{network}.{layer}.{array}"
        for network, layers in [("encoder", ("hidden", "mu", "log_var")), ("decoder", ("hidden", "logits"))]
        for layer in layers
        for array in "Wb"
    ]
    model.params.value[...] = np.arange(model.params.value.size)
    first = model.encoder.layers[0]
    assert_array_equal(first.W, np.arange(30).reshape(6, 5))
    first.dW[...] = 7
    assert (model.params.grad[:30] == 7).all() and (model.params.grad[30:] == 0).all()
    assert model.phi.start == 0 and model.phi.stop == model.theta.start and model.theta.stop == model.params.value.size


def test_params_refuses_two_layers_of_one_name_and_an_unknown_part():
    with pytest.raises(ValueError, match=r"two arrays are called l\.W"):
        Params([Linear("l", 2, 2), Linear("l", 2, 2)])
    with pytest.raises(ValueError, match="no unbroken run"):
        Params([Linear("l", 2, 2)]).part("decoder.")


def test_initial_weights_are_normal_with_the_papers_deviation_and_biases_zero():
    model = small(n_visible=200, n_hidden=300, init=0.01, init_biases=False)
    for name, array in model.params.named(model.params.value).items():
        if name.endswith(".b"):
            assert (array == 0).all()
        elif array.size > 10_000:
            z = array.ravel() / 0.01  # the mean of n draws has sd 1/√n, their variance √(2/n)
            assert abs(z.mean()) * np.sqrt(z.size) < 4.89
            assert abs(z.var() - 1) * np.sqrt(z.size / 2) < 4.89
            assert abs(z.var() * 0.01 - 1) * np.sqrt(z.size / 2) > 4.89  # control: 0.01 read as the variance


def test_glorot_weights_are_uniform_up_to_the_root_of_six_over_fan_in_plus_fan_out():
    model = small(n_visible=200, n_hidden=300, init="glorot", init_biases=False)
    W = model.encoder.layers[0].W
    limit = np.sqrt(6 / 500)
    assert 0.99 * limit < np.abs(W).max() <= limit
    assert abs(W.var() / (limit**2 / 3) - 1) * np.sqrt(W.size / 0.8) < 4.89  # Var of u²: 4/45 a⁴ = 0.8 (a²/3)²


def test_biases_are_drawn_when_asked_and_one_seed_gives_one_model_in_both_precisions():
    model = small(init_biases=True)
    assert (model.encoder.layers[0].b != 0).all()
    assert_array_equal(small(dtype="float32").params.value, model.params.value.astype(np.float32))


@pytest.mark.parametrize("init", [0, -1.0, "xavier", float("nan"), None])
def test_bad_initialisation_is_refused(init):
    with pytest.raises(ValueError, match="init is"):
        small(init=init)
