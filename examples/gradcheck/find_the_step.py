"""Find the step of a backward pass that is wrong, with arrays of zeros. python examples/gradcheck/find_the_step.py

In L = ½ Σ (h V - y)² with h = tanh(x W + b) the derivative of tanh is forgotten. The gradients of W and b are then
wrong in a way that has no name. An array of zeros that is added to what stands between two steps changes nothing, and
its gradient is that of what it is added to:

    a = x W + b + of_a        ∂L/∂of_a = ∂L/∂a
    h = tanh(a) + of_h        ∂L/∂of_h = ∂L/∂h

At the other points that are tried these arrays are moved as well, so that the derivative of tanh takes tanh(a), not h.
"""

import numpy as np

from scratchvae.gradcheck import check_gradients

generator = np.random.default_rng(0)
x = generator.standard_normal((7, 6))
y = generator.standard_normal((7, 3))
weights = {
    "W": 0.5 * generator.standard_normal((6, 5)),
    "b": np.zeros(5),
    "V": 0.5 * generator.standard_normal((5, 3)),
}
between = {"of_a": np.zeros((7, 5)), "of_h": np.zeros((7, 5))}


def forward(p):
    t = np.tanh(x @ p["W"] + p["b"] + p.get("of_a", 0.0))
    h = t + p.get("of_h", 0.0)
    return t, h, h @ p["V"]


def loss(p):
    return 0.5 * ((forward(p)[-1] - y) ** 2).sum()


def grads(p, forgotten=True):
    t, h, out = forward(p)
    d_out = out - y
    d_h = d_out @ p["V"].T
    d_a = d_h if forgotten else d_h * (1 - t * t)
    found = {"W": x.T @ d_a, "b": d_a.sum(axis=0), "V": h.T @ d_out, "of_a": d_a, "of_h": d_h}
    return {name: found[name] for name in p}


if __name__ == "__main__":
    print(check_gradients(loss, {**weights, **between}, lambda p: grads(p, forgotten=False)), "\n")
    print(check_gradients(loss, weights, grads), "\n")
    h = forward(weights)[1]
    print(check_gradients(loss, {**weights, **between}, grads, known={"h": h}))
