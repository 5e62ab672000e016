"""Layer normalisation, with its gradient, and the same with a term forgotten. python examples/gradcheck/layer_norm.py

y = γ ⊙ h + β with h = (x - m)/s, where m and s² are mean and variance of each row (Ba, Kiros & Hinton 2016, "Layer
normalization"). A change of one x moves m and s too, so that its gradient has three terms:

    ∂L/∂x = (d - mean(d) - h mean(d ⊙ h)) / s        with d = γ ⊙ ∂L/∂y, and means over the row
"""

import numpy as np

from scratchvae.gradcheck import check_layer


class LayerNorm:
    shapes = {"gamma": (6,), "beta": (6,)}  # noqa: RUF012

    def forward(self, x):
        self.s = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        self.h = (x - x.mean(axis=1, keepdims=True)) / self.s
        return self.gamma * self.h + self.beta

    def backward(self, dy):
        self.dgamma[...] = (dy * self.h).sum(axis=0)
        self.dbeta[...] = dy.sum(axis=0)
        d = self.gamma * dy
        mean = d.mean(axis=1, keepdims=True)  # through m
        spread = (d * self.h).mean(axis=1, keepdims=True)  # through s
        return (d - mean - self.h * spread) / self.s


class WithoutVariance(LayerNorm):
    def backward(self, dy):
        super().backward(dy)
        d = self.gamma * dy
        return (d - d.mean(axis=1, keepdims=True)) / self.s  # s is taken to be a constant


if __name__ == "__main__":
    x = np.random.default_rng(0).standard_normal((4, 6))
    print(check_layer(LayerNorm(), x), "\n")
    print(check_layer(WithoutVariance(), x))
