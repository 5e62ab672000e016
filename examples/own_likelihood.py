"""A decoder of your own: counts under a Poisson likelihood, in one small class, and what it can do then.

The class has what `scratchvae.inference.likelihoods` asks for: which outputs it reads from the network, log p(x|z) with
its partial, the mean, and a draw with the noise for it. `support` and `check` are what data are held to. A posterior or
an objective of your own comes in by the same way, as `VAE(posterior=…)` and `VAE(estimator=…)`.

The counts are made here, 20 a row, whose log rates are linear in two factors. The script compares the partial, and then
the gradients of a whole model, with central differences. It trains, saves, loads, and prints bounds in nats per row.
"""

import tempfile

import numpy as np
from scipy.special import gammaln
from scipy.stats import poisson

from scratchvae import VAE, Adam, evaluate, fit, load_model
from scratchvae.gradcheck import check_density, check_model


class Poisson:
    """p(x|z) = Π_i λ_i^x_i exp(-λ_i) / x_i!, with log λ_i from the decoder."""

    name = "poisson"
    outputs = ("log_rate",)  # as many numbers as x has
    support = (0, np.inf)

    def log_prob(self, x, log_rate, gradient=True):
        rate = np.exp(log_rate)
        log_p = (x * log_rate - rate - gammaln(x + 1)).sum(axis=-1)
        return log_p, x - rate if gradient else None  # ∂(x log λ - λ)/∂log λ = x - λ, since dλ/dlog λ = λ

    def mean(self, log_rate):
        return np.exp(log_rate)

    def noise(self, generator, shape, dtype):
        return generator.random(shape, dtype=dtype)

    def draw(self, u, log_rate):
        return np.maximum(poisson.ppf(u, np.exp(log_rate)), 0).astype(u.dtype)  # the least n with P(x ≤ n) ≥ u

    def check(self, x):
        if (x != np.round(x)).any():
            raise ValueError("a count is a whole number: pass counts as floats, x.astype(float), and not as uint8")


def main():
    """Check, train, save, load, evaluate, draw."""
    generator = np.random.default_rng(0)
    log_rates = 1 + generator.standard_normal((2500, 2)) @ generator.normal(0, 0.7, (2, 20))
    counts = generator.poisson(np.exp(log_rates)).astype(float)  # floats: uint8 would be read as pixels, x/255
    train, test = np.split(counts, [2000])
    print(check_density(Poisson().log_prob, train[:5], np.log1p(train[5:10]), skip=1, name="log p(x|z)"))
    print(check_model(VAE(20, 30, 2, likelihood=Poisson(), dtype="float64"), train[:5]))
    with tempfile.TemporaryDirectory() as folder:
        model = VAE(20, 30, 2, likelihood=Poisson(), init="glorot")
        fit(model, train, optimizer=Adam(0.003), samples=100_000, out=folder, progress=False)
        model = load_model(folder, likelihood=Poisson())  # the file knows only its name
    print(f"bound of new counts: {evaluate(model, test)['bound']:.2f}")
    print(f"with one rate for each column: {poisson.logpmf(test, train.mean(axis=0)).sum(axis=1).mean():.2f}")
    z = model.encode_mean(test[:1])
    print("counts, their means and a draw:", test[0], model.decode(z)[0].round(1), model.draw(z)[0], sep="\n")


if __name__ == "__main__":
    main()
