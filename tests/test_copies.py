"""Copies of models, their parts and optimisers: each works by itself, to the bit, and none moves another (E32)."""

import copy
import functools
import multiprocessing
import pickle

import joblib
import numpy as np
import pytest
from conftest import rows, vae
from numpy.testing import assert_array_equal

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, evaluate, fit, load_model
from scratchvae.backend import move
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.nets.layers import Linear
from scratchvae.nets.params import Params

X = rows(9, 16)
MODELS = {
    **{f"estimator {name}": (VAE, {"estimator": name, "n_samples": 2}) for name in OBJECTIVES},
    "a partial": (VAE, {"estimator": functools.partial(black_box, rao_blackwell=False), "n_samples": 2}),
    "full": (VAE, {"posterior": "full", "n_latent": 3}),
    "flow": (VAE, {"flow": 2, "n_samples": 2}),
    "full and flow": (VAE, {"posterior": "full", "flow": 2}),
    "gaussian": (VAE, {"likelihood": "gaussian", "mean": "free"}),
    "isotropic": (VAE, {"likelihood": "isotropic", "n_hidden": ()}),
    "continuous-bernoulli": (VAE, {"likelihood": "continuous-bernoulli", "n_hidden": (4, 3)}),
    "laplace": (VAE, {"likelihood": "laplace", "prior": False}),
    "conv": (VAE, {"channels": (3, 2), "activation": "relu", "init": "glorot", "init_biases": False}),
    "float32": (VAE, {"dtype": "float32"}),
    **{f"full VB {noise}": (FullVB, {"theta_noise": noise}) for noise in THETA_NOISE},
    "full VB A": (FullVB, {"estimator": "A", "theta_noise": "datapoint"}),
    "full VB learned alpha": (FullVB, {"learn_hyperprior": True, "likelihood": "isotropic"}),
    "full VB full flow conv": (
        FullVB,
        {"posterior": "full", "flow": 1, "channels": (2,), "init": "glorot", "init_biases": False},
    ),
}
OPTIMIZERS = {"sgd": lambda: SGD(1e-4), "adagrad": lambda: Adagrad(0.05, warmup=2), "adam": lambda: Adam(0.01, decay=9)}


def model_of(name):
    kind, settings = MODELS[name]
    shape = {"n_hidden": 5, "n_latent": 2, "init": 0.4, "init_biases": True, "dtype": "float64", "seed": 3}
    return kind(16, **shape | settings)


def by_joblib(mmap_mode, value, tmp_path):
    path = tmp_path / "copy.joblib"
    joblib.dump(value, path)
    return joblib.load(path, mmap_mode=mmap_mode)


WAYS = {
    "deepcopy": lambda value, _: copy.deepcopy(value),
    "pickle": lambda value, _: pickle.loads(pickle.dumps(value)),
    "joblib": functools.partial(by_joblib, None),
    "memory map": functools.partial(by_joblib, "r"),
    "a copy of a copy": lambda value, _: copy.deepcopy(pickle.loads(pickle.dumps(copy.deepcopy(value)))),
}


def steps(model, optimizer, first, n=10, x=X):
    """`n` steps as `fit` makes them; what they leave: parameters, gradient, optimiser's state and bounds."""
    bounds = []
    for step in range(first, first + n):
        noise = model.noise(np.random.default_rng(step), len(x))
        bounds.append(model.bound(x, noise, 3 * len(x), gradient=True))
        model.add_log_prior_gradient()
        optimizer.ascend(model.params, step)
    return [*numbers(model, optimizer), bounds]


def numbers(model, optimizer):
    return [vector.copy() for vector in (model.params.value, model.params.grad, *optimizer.state.values())]


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert_array_equal(np.asarray(a), np.asarray(b))


def begun(name, optimizer="adagrad"):
    """A model that has made three steps, so that its layers hold what they keep, and its optimiser."""
    model = model_of(name)
    optimizer = OPTIMIZERS[optimizer]()
    optimizer.start(model.params)
    steps(model, optimizer, 1, 3)
    return model, optimizer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_of_a_copy_and_of_the_original_are_the_same_bits_and_none_moves_the_other_e32(name, way, tmp_path):
    model, optimizer = begun(name)
    before = numbers(model, optimizer)
    other, its_optimizer = WAYS[way]((model, optimizer), tmp_path)
    same(numbers(other, its_optimizer), before)
    theirs = steps(other, its_optimizer, 4)
    same(numbers(model, optimizer), before)
    ours = steps(model, optimizer, 4)
    same(ours, theirs)
    same(numbers(other, its_optimizer), theirs[:-1])  # nor does the original move the copy
    assert np.abs(ours[0] - before[0]).max() > 1e-4  # they did move
    z = np.random.default_rng(0).standard_normal((3, model.n_latent))
    for look in (lambda m: m.encode_mean(X), lambda m: m.decode(z), lambda m: m.sample(3), lambda m: m.draw(z)):
        assert_array_equal(look(other), look(model))
    assert other.config == model.config and type(other) is type(model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser_goes_on_from_a_copy_as_it_would_have_gone_on(name, tmp_path):
    for way in WAYS.values():
        model, optimizer = begun("full", name)
        other, its_optimizer = way((model, optimizer), tmp_path)
        apart = copy.deepcopy(model), way(optimizer, tmp_path)  # copied each by itself
        ours = steps(model, optimizer, 4)
        same(steps(other, its_optimizer, 4), ours)
        same(steps(*apart, 4), ours)
        assert its_optimizer.scratch is not optimizer.scratch


@pytest.mark.parametrize("name", ["full and flow", "conv", "full VB minibatch", "full VB local"])
def test_a_copy_has_all_its_windows_on_vectors_of_its_own(name, tmp_path):
    model, _ = begun(name)
    for way in WAYS.values():
        other = way(model, tmp_path)
        parts = [*other.encoder.layers, *other.decoder.layers]
        if name.startswith("full VB"):
            posterior = other.posterior
            for window in (posterior.mu, posterior.dmu, posterior.log_sigma, posterior.dlog_sigma):
                assert np.shares_memory(window, other.params.value) or np.shares_memory(window, other.params.grad)
            assert posterior.params is other.params
            if posterior.theta is not None:
                draw = posterior.theta
                assert not np.shares_memory(draw.value, model.posterior.theta.value)
                assert all(np.shares_memory(a.W, draw.value) for a in other.drawn.layers if hasattr(a, "W"))
        for layer in parts:
            for key in layer.shapes:
                assert np.shares_memory(getattr(layer, key), other.params.value)
                assert np.shares_memory(getattr(layer, "d" + key), other.params.grad)
        assert not np.shares_memory(other.params.value, model.params.value)
        assert other.params.value.flags.writeable and other.params.grad.flags.writeable


@pytest.mark.parametrize("kind", [VAE, FullVB])
def test_a_model_read_through_a_memory_map_trains_and_leaves_the_file_alone_e32(kind, tmp_path):
    x = rows(20, 400)
    model = kind(400, 200, 3, init=0.05, dtype="float64", posterior="full")
    assert model.params.window("encoder.hidden.W", model.params.value).nbytes < 2**20 < model.params.value.nbytes
    model.bound(x, model.noise(np.random.default_rng(0), 20), 20, gradient=True)
    path = tmp_path / "model.joblib"
    joblib.dump(model, path)
    before = path.read_bytes()
    other = joblib.load(path, mmap_mode="r")
    optimizers = [Adam(0.01), Adam(0.01)]
    for one, optimizer in zip((model, other), optimizers, strict=True):
        optimizer.start(one.params)
    same(steps(other, optimizers[1], 1, 10, x), steps(model, optimizers[0], 1, 10, x))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["full", "wake", "conv", "full VB antithetic"])
def test_fit_on_a_copy_writes_a_run_folder_whose_model_scores_the_same(name, tmp_path):
    model = model_of({"wake": "estimator wake-sleep"}.get(name, name))
    for k, way in enumerate(WAYS.values()):
        other = way(model, tmp_path)
        history = fit(other, X, X, samples=60, batch_size=4, out=tmp_path / f"{k}")
        again = load_model(tmp_path / f"{k}")
        assert_array_equal(again.params.value, other.params.value)
        assert evaluate(again, X) == evaluate(other, X)
        assert evaluate(again, X)["bound"] == history["valid_bound"][-1]
        fit(way(other, tmp_path), X, X, samples=120, batch_size=4, out=tmp_path / f"{k}", resume=True)  # by a copy too
    whole = model_of({"wake": "estimator wake-sleep"}.get(name, name))
    fit(whole, X, X, samples=120, batch_size=4)
    assert_array_equal(load_model(tmp_path / "0").params.value, whole.params.value)
    assert_array_equal(load_model(tmp_path / "4").params.value, whole.params.value)


# Parts of a model


@pytest.mark.parametrize("way", WAYS)
def test_parameters_by_themselves_are_copied_with_their_layers(way, tmp_path):
    layers = [Linear("a", 3, 4), Linear("b", 4, 2)]
    params = Params(layers, np.float64)
    params.initialise(0.5, np.random.default_rng(0), biases=True)
    other = WAYS[way](params, tmp_path)
    assert_array_equal(other.value, params.value)
    assert other.windows == params.windows
    other.value += 1
    assert_array_equal(other.value, params.value + 1)
    for (mine, key, name), (theirs, _, _) in zip(params.owners, other.owners, strict=True):
        assert mine is not theirs
        assert_array_equal(getattr(theirs, key), getattr(mine, key) + 1)
        assert np.shares_memory(getattr(theirs, key), other.value)
        assert_array_equal(other.named(other.value)[name], getattr(theirs, key))


def inputs(network, x):
    """(layer, what it reads) for each layer of a network with parameters."""
    for chain in (network.hidden, *network.heads):
        h = x
        for layer in chain.layers:
            if layer.shapes:
                yield layer, h
            h = layer.forward(h)
        x = h if chain is network.hidden else x


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["full", "conv"])
def test_a_layer_by_itself_has_arrays_of_its_own_and_works(name, way, tmp_path):
    model, _ = begun(name)
    z = np.random.default_rng(0).standard_normal((9, model.n_latent))
    layers = [*inputs(model.encoder.network, X), *inputs(model.decoder.network, z)]
    assert len(layers) == len(model.params.windows) / 2
    for layer, x in layers:
        other = WAYS[way](layer, tmp_path)
        y = layer.forward(x)
        dx = layer.backward(y)
        gradient = layer.dW.copy()
        layer.dW[...] = 0
        assert_array_equal(other.forward(x), y)
        assert_array_equal(other.backward(y), dx)
        assert_array_equal(other.dW, gradient)
        assert (layer.dW == 0).all()  # it has not written there
        weights = layer.W.copy()
        other.W += 1
        assert_array_equal(layer.W, weights)
        assert not np.array_equal(other.forward(x), y)


@pytest.mark.parametrize("way", WAYS)
def test_the_posterior_of_theta_by_itself_draws_and_scores_as_before(way, tmp_path):
    model, _ = begun("full VB minibatch")
    posterior = model.posterior
    other = WAYS[way](posterior, tmp_path)
    zeta = np.random.default_rng(0).standard_normal(posterior.mu.size)
    thetas = [np.empty_like(zeta), np.empty_like(zeta)]
    posterior.draw(zeta, thetas[0])
    other.draw(zeta, thetas[1])
    assert_array_equal(*thetas)
    model.params.grad[...] = 0
    other.params.grad[...] = 0
    assert other.neg_kl(gradient=True) == posterior.neg_kl(gradient=True)
    assert_array_equal(other.params.grad, model.params.grad)
    assert np.shares_memory(other.dmu, other.params.grad)
    before = posterior.mu.copy()
    other.mu += 1
    assert_array_equal(posterior.mu, before)
    assert_array_equal(other.params.value[other.params.part("decoder.")], other.mu)


@pytest.mark.parametrize("name", ["full and flow", "gaussian"])
def test_an_encoder_or_a_decoder_by_itself_gives_what_it_gave(name, tmp_path):
    model, _ = begun(name)
    eps = model.noise(np.random.default_rng(0), 9)
    for way in WAYS.values():
        encoder, decoder = way(model.encoder, tmp_path), way(model.decoder, tmp_path)
        z, log_qz = model.encoder.draw(X, eps)
        for ours, theirs in zip((z, log_qz), encoder.draw(X, eps), strict=True):
            assert_array_equal(ours, theirs)
        assert_array_equal(model.decoder.log_prob(X, z), decoder.log_prob(X, z))
        assert_array_equal(model.decoder.backward(1.0), decoder.backward(1.0))


def test_a_deepcopy_on_either_backend_trains_to_the_same_bits(backend):
    model = vae(16, 5, 2, posterior="full", flow=1, init=0.4, dtype="float64")
    other = copy.deepcopy(model)
    for one in (model, other):
        fit(one, X, samples=60, batch_size=4)
    assert_array_equal(move(other.params.value, "numpy"), move(model.params.value, "numpy"))
    other.params.value[...] = 0.0
    assert (move(model.params.value, "numpy") != 0).any()
    assert (move(other.encoder.layers[0].W, "numpy") == 0).all()


# Another process


def trained(model):
    """What the other process does."""
    history = fit(model, X, X, samples=90, batch_size=4)
    return model, history["valid_bound"][-1]


def test_another_process_trains_a_model_and_sends_it_back():
    model = model_of("full VB minibatch")
    before = model.params.value.copy()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        other, bound = pool.apply(trained, (model,))
    assert_array_equal(model.params.value, before)
    ours, our_bound = trained(model)
    assert_array_equal(other.params.value, ours.params.value)
    assert bound == our_bound == evaluate(other, X)["bound"]
    fit(other, X, samples=20, batch_size=4)  # and it goes on
