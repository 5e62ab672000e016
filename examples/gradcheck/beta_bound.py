"""L^B with a weight β on its KL, and the same with β forgotten in the gradient. python examples/gradcheck/beta_bound.py

An objective of one's own (Higgins et al. 2017, "beta-VAE") is checked inside a model, against differences: no autograd
version of it has to be written.
"""

import numpy as np

from scratchvae import VAE
from scratchvae.gradcheck import check_model


def weighted(q, p, x, eps, scale, gradient=True, beta=4.0, in_gradient=4.0):
    """(N/M) Σ β (-KL) + log p(x|z), the second term averaged over the L draws of eps."""
    z, _ = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    neg_kl = q.neg_kl()
    if gradient:
        dz = p.backward(scale / len(eps))
        q.backward(dz, dneg_kl=in_gradient * scale)
    return scale * (beta * neg_kl + log_px.mean(axis=0)).sum()


def forgotten(q, p, x, eps, scale, gradient=True):
    return weighted(q, p, x, eps, scale, gradient, in_gradient=1.0)


weighted.needs = forgotten.needs = ("neg_kl",)

if __name__ == "__main__":
    x = np.random.default_rng(0).random((5, 8))
    for objective in (weighted, forgotten):
        model = VAE(8, 6, 2, estimator=objective, n_samples=3, dtype="float64")
        print(check_model(model, x), "\n")
