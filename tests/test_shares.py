"""E31 of the exact cases: the bounds and gradients of the shares of a minibatch add up to those of the minibatch."""

from itertools import pairwise

import numpy as np
import pytest

from scratchvae import VAE, FullVB
from scratchvae.shares import Share, part_of

D = 9  # a square, for the convolutions
M = 7
N = 50
SIZES = {"n_visible": D, "n_hidden": 5, "n_latent": 3, "dtype": np.float64, "init": 0.5, "init_biases": True}
MODELS = {
    "A": (VAE, {"estimator": "A"}),
    "B with two draws": (VAE, {"estimator": "B", "n_samples": 2}),
    "stl": (VAE, {"estimator": "stl"}),
    "iwae": (VAE, {"estimator": "iwae", "n_samples": 3}),
    "dreg": (VAE, {"estimator": "dreg", "n_samples": 3}),
    "wake-sleep": (VAE, {"estimator": "wake-sleep"}),
    "black-box": (VAE, {"estimator": "black-box", "n_samples": 4}),
    "autoencoder": (VAE, {"estimator": "autoencoder"}),
    "flow": (VAE, {"flow": 2}),
    "full posterior": (VAE, {"posterior": "full", "estimator": "A"}),
    "isotropic": (VAE, {"likelihood": "isotropic"}),
    "deep": (VAE, {"n_hidden": (6, 5)}),
    "convolutional": (VAE, {"n_visible": 16, "channels": (2,), "activation": "softplus"}),
    "full VB": (FullVB, {"estimator": "B"}),
    "full VB at the draws": (FullVB, {"estimator": "A"}),
    "full VB antithetic": (FullVB, {"theta_noise": "antithetic"}),
    "full VB antithetic at the draws": (FullVB, {"theta_noise": "antithetic", "estimator": "A"}),
    "full VB by the datapoint": (FullVB, {"theta_noise": "datapoint"}),
    "full VB local": (FullVB, {"theta_noise": "local", "n_samples": 2}),
    "full VB, learned α": (FullVB, {"learn_hyperprior": True, "theta_noise": "antithetic"}),
}
DIVISIONS = [[7], [3, 4], [1, 6], [0, 7], [7, 0], [2, 0, 5], [1, 1, 1, 1, 1, 1, 1], [0, 0, 7, 0]]


def of(name):
    """A model, and a minibatch with its noise."""
    kind, settings = MODELS[name]
    model = kind(**SIZES | settings, seed=1)
    generator = np.random.default_rng(2)
    x = generator.random((M, model.n_visible))
    return model, x, model.noise(generator, M)


def shares(counts):
    ends = np.cumsum([0, *counts]).tolist()
    return [Share(ends[r], ends[r + 1], M, r, len(counts)) for r in range(len(counts))]


@pytest.mark.parametrize("name", MODELS)
def test_the_shares_of_a_minibatch_add_up_to_its_bound_and_gradient_e31(name):
    model, x, noise = of(name)
    whole = model.bound(x, noise, N, gradient=True)
    gradient = model.params.grad.copy()
    for counts in DIVISIONS:
        bounds = []
        total = 0.0
        for share in shares(counts):
            model.params.grad[...] = np.nan  # what a share leaves is all its own
            bounds.append(model.bound(x[share.rows], model.noise_of(noise, share), N, gradient=True, share=share))
            total = total + model.params.grad
        assert sum(bounds) == pytest.approx(whole, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(total, gradient, rtol=1e-12, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("name", ["B with two draws", "wake-sleep", "full VB antithetic", "full VB local"])
def test_a_share_of_everything_is_the_minibatch_to_the_bit(name):
    model, x, noise = of(name)
    whole = model.bound(x, noise, N, gradient=True)
    gradient = model.params.grad.copy()
    (share,) = shares([M])
    assert model.bound(x, model.noise_of(noise, share), N, gradient=True, share=share) == whole
    assert np.array_equal(model.params.grad, gradient)


def test_the_prior_of_all_parts_is_added_once_to_every_parameter():
    model, x, noise = of("A")
    model.bound(x, noise, N, gradient=True)
    before = model.params.grad.copy()
    for rank in range(3):
        model.add_log_prior_gradient(slice(*part_of(before.size, rank, 3)))
    after = model.params.grad.copy()
    model.params.grad[...] = before
    model.add_log_prior_gradient()
    assert np.array_equal(model.params.grad, after)
    assert np.array_equal(after[model.theta], before[model.theta] - model.params.value[model.theta])


@pytest.mark.parametrize(("n", "size"), [(100, 3), (7, 7), (2, 5), (0, 4), (1, 1)])
def test_parts_follow_one_another_and_differ_by_one_thing_at_most(n, size):
    parts = [part_of(n, rank, size) for rank in range(size)]
    assert parts[0][0] == 0
    assert parts[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 1
