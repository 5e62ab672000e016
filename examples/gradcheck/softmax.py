"""Softmax cross entropy with labels, and the same averaged where it is summed. python examples/gradcheck/softmax.py

L = -(1/M) Σ_m log softmax(a_m)[y_m], whose gradient is ∂L/∂a = (softmax(a) - one_hot(y)) / M. The labels y are
integers: they are handed to `forward` as they are, and have no gradient.
"""

import numpy as np

from scratchvae.gradcheck import check_layer


class SoftmaxCrossEntropy:
    def forward(self, a, y):
        e = np.exp(a - a.max(axis=1, keepdims=True))
        self.p = e / e.sum(axis=1, keepdims=True)
        self.y = y
        return -np.log(self.p[np.arange(len(y)), y]).mean()

    def backward(self, dL):
        da = self.p.copy()
        da[np.arange(len(self.y)), self.y] -= 1
        return dL * da / len(da)


class Summed(SoftmaxCrossEntropy):
    def backward(self, dL):
        return super().backward(dL) * len(self.y)  # the gradient of the sum


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    a = generator.standard_normal((7, 5))
    y = generator.integers(0, 5, 7)
    print(check_layer(SoftmaxCrossEntropy(), a, y), "\n")
    print(check_layer(Summed(), a, y))
