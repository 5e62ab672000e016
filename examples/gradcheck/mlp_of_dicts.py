"""A network of nothing but NumPy and dicts, that knows nothing of this library. python
examples/gradcheck/mlp_of_dicts.py

L = ½ (1/M) Σ ‖W2ᵀ tanh(W1ᵀ x + b1) + b2 - y‖².
"""

import numpy as np

from scratchvae.gradcheck import check_gradients

generator = np.random.default_rng(0)
M = 7
x = generator.standard_normal((M, 6))
y = generator.standard_normal((M, 3))
params = {
    "hidden": {"W": 0.5 * generator.standard_normal((6, 5)), "b": np.zeros(5)},
    "output": {"W": 0.5 * generator.standard_normal((5, 3)), "b": np.zeros(3)},
}


def forward(params):
    h = np.tanh(x @ params["hidden"]["W"] + params["hidden"]["b"])
    return h, h @ params["output"]["W"] + params["output"]["b"]


def loss(params):
    return 0.5 * ((forward(params)[1] - y) ** 2).sum() / M


def grads(params):
    h, out = forward(params)
    d_out = (out - y) / M
    d_hidden = d_out @ params["output"]["W"].T * (1 - h * h)  # tanh' = 1 - tanh²
    return {
        "hidden": {"W": x.T @ d_hidden, "b": d_hidden.sum(axis=0)},
        "output": {"W": h.T @ d_out, "b": d_out.sum(axis=0)},
    }


def averaged(params):
    found = grads(params)
    found["hidden"]["b"] /= M  # np.mean in place of np.sum
    return found


if __name__ == "__main__":
    print(check_gradients(loss, params, grads, sizes={"M": M}), "\n")
    print(check_gradients(loss, params, averaged, sizes={"M": M}))
