"""Same seeds, same numbers: what 50 steps of every configuration of before the three doors gave, in float64.

golden.json was written by the package before posteriors, likelihoods and objectives had files of their own: for
each configuration the sum of its training bounds, the last validation bound, and two projections of its parameters.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, fit

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
GREY = np.random.default_rng(7).random((150, 16)).astype(np.float32)
CONFIGURATIONS = {
    "bb": (VAE, {"n_hidden": 6, "estimator": "black-box", "n_samples": 8}, {}),
    "noprior": (VAE, {"n_hidden": 6, "prior": False, "init": "glorot"}, {"optimizer": Adam()}),
    "biases": (
        VAE,
        {"n_hidden": 6, "init": 0.3, "init_biases": True},
        {"optimizer": SGD(1e-5), "schedule": "alternating"},
    ),
    "conv": (VAE, {"n_hidden": 5, "channels": (3, 2), "activation": "relu", "init": "glorot"}, {}),
    "convg": (
        VAE,
        {"n_hidden": 5, "channels": (3,), "likelihood": "gaussian", "n_samples": 2, "estimator": "A"},
        {"optimizer": Adagrad(0.02, warmup=5, decay=30)},
    ),
    "flow": (VAE, {"n_hidden": 5, "flow": 3, "n_samples": 2}, {"optimizer": Adam()}),
    "flow1": (
        VAE,
        {"n_hidden": 5, "flow": 1, "likelihood": "isotropic", "channels": (2,), "init": "glorot"},
        {"optimizer": Adam()},
    ),
    "flow0h": (VAE, {"n_hidden": (), "flow": 2, "init": "glorot"}, {"optimizer": Adam()}),
}
for _estimator, (_likelihood, _mean), (_draws, _hidden, _activation) in itertools.product(
    ("A", "B", "iwae", "wake-sleep", "autoencoder"),
    [
        ("bernoulli", "sigmoid"),
        ("gaussian", "sigmoid"),
        ("gaussian", "free"),
        ("isotropic", "free"),
        ("isotropic", "sigmoid"),
    ],
    [(1, 6, "tanh"), (3, (6, 4), "softplus"), (2, (), "relu")],
):
    CONFIGURATIONS[f"{_estimator}-{_likelihood}-{_mean}-{_draws}-{_activation}"] = (
        VAE,
        {
            "n_hidden": _hidden,
            "likelihood": _likelihood,
            "mean": _mean,
            "estimator": _estimator,
            "n_samples": _draws,
            "activation": _activation,
        },
        {},
    )
for _k, (_noise, _settings) in enumerate(
    [
        ("minibatch", {"estimator": "A", "alpha": 0.7}),
        ("minibatch", {}),
        ("antithetic", {"likelihood": "gaussian"}),
        ("antithetic", {"estimator": "A"}),
        ("datapoint", {"n_samples": 2}),
        ("datapoint", {"estimator": "A"}),
        ("local", {"likelihood": "gaussian", "n_hidden": (6, 4)}),
        ("local", {"learn_hyperprior": True}),
        ("minibatch", {"learn_hyperprior": True, "likelihood": "isotropic"}),
        ("minibatch", {"channels": (2,), "n_samples": 2}),
        ("minibatch", {"estimator": "black-box", "n_samples": 4}),
        ("local", {"n_samples": 3, "estimator": "B"}),
    ]
):
    CONFIGURATIONS[f"vb{_k}"] = FullVB, {"n_hidden": 6, "theta_noise": _noise, **_settings}, {}


def test_every_configuration_of_before_is_here():
    assert CONFIGURATIONS.keys() == GOLDEN.keys()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_fifty_steps_give_the_numbers_of_before(name):
    kind, settings, training = CONFIGURATIONS[name]
    model = kind(16, n_latent=3, dtype="float64", seed=3, **settings)
    training = {"optimizer": Adagrad(0.05)} | training
    history = fit(model, GREY, GREY[:40], samples=1000, batch_size=20, log_every=20, seed=5, **training)
    theta = model.params.value
    found = [
        history["train_bound"].sum(),
        history["valid_bound"][-1],
        theta @ np.cos(np.arange(theta.size)),
        theta @ theta,
    ]
    assert_allclose(found, GOLDEN[name], rtol=1e-10)  # kernels of BLAS differ from machine to machine
