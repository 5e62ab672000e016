"""The variance of full variational Bayes' gradient under each kind of noise for θ, array by array, against plain.

784-200-10-200-784, M = 100, N = 1,000 MNIST images, at the initial values and after training (one θ per minibatch,
Adagrad 0.02, 600,000 samples). Variances are of one gradient of (24), summed over the entries of an array; with "ζ
alone" minibatch and ε stay and only ζ is drawn anew. The means must agree: z is |difference| from plain over its
standard error, of the projection on a random direction, the largest over the arrays (of a few draws, as with a small
--scale, it says nothing).
"""

import time

import numpy as np
from stages import options, write_table
from study import command

from scratchvae import Adagrad, FullVB, fit, load_data
from scratchvae.bench import commit
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.training.loop import progress_bar

PLAIN = THETA_NOISE[0]
DRAWS = {"minibatch": 400, "antithetic": 400, "local": 400, "datapoint": 40}  # a θ for each datapoint takes its time


def gradients(model, images, draws, zeta_alone, bar):
    """({array: variance}, {array: projections}, milliseconds of noise and gradient) over so many draws."""
    n, generator, seconds = len(images), np.random.default_rng(1), 0.0
    names, size = model.params.windows, model.params.value.size
    direction = np.random.default_rng(0).standard_normal(size)
    total, squares, projections = np.zeros(size), np.zeros(size), {name: [] for name in names}
    x, eps = images[:100], model.eps(generator, min(n, 100))
    for _ in range(draws):
        if not zeta_alone:
            x, eps = images[generator.permutation(n)[:100]], model.eps(generator, min(n, 100))
        begun = time.perf_counter()
        zeta = model.noise(generator, len(x))[1]
        model.bound(x, (eps, zeta), n, gradient=True)
        seconds += time.perf_counter() - begun
        gradient = model.params.grad.astype(float)
        total += gradient
        squares += gradient**2
        for name, (where, _) in names.items():
            projections[name].append(gradient[where] @ direction[where])
        bar.update(1)
    variance = (squares - total**2 / draws) / (draws - 1)
    return {name: variance[where].sum() for name, (where, _) in names.items()}, projections, 1e3 * seconds / draws


def rows(state, trained, images, scale, bar):
    """The rows of the table for the parameters of `trained`."""
    for zeta_alone in (True, False):
        plain = None
        for kind in THETA_NOISE:
            model = FullVB(**trained.config | {"theta_noise": kind})
            model.params.value[...] = trained.params.value
            draws = max(4, int(scale * DRAWS[kind]))
            variance, projections, milliseconds = gradients(model, images, draws, zeta_alone, bar)
            plain = plain or (variance, projections)
            for name, value in variance.items():
                a, b = np.array(projections[name]), np.array(plain[1][name])
                error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
                yield {
                    "parameters": state,
                    "varied": "ζ alone" if zeta_alone else "ζ, ε and minibatch",
                    "noise for θ": kind,
                    "array": name,
                    "variance": f"{value:.4g}",
                    "times plain": f"{value / plain[0][name]:.3g}",
                    "z of the mean": f"{abs(a.mean() - b.mean()) / error:.2f}",
                    "draws": draws,
                    "ms per gradient": f"{milliseconds:.1f}",
                    "commit": commit(),
                }


def main():
    """Write full_vb_variance.csv and print its sums over φ, μ and log σ."""
    settings = options(__doc__)
    images = load_data(settings.data).train[:1000]
    model, table = FullVB(images.shape[1], 200, 10), []
    count = 4 * sum(max(4, int(settings.scale * draws)) for draws in DRAWS.values())
    with progress_bar(count, 0, None, unit=" gradients") as bar:
        table += rows("initial", model, images, settings.scale, bar)
        fit(model, images, optimizer=Adagrad(0.02), samples=max(100, int(settings.scale * 600_000)), progress=False)
        table += rows("trained", model, images, settings.scale, bar)
    write_table(settings.results / "full_vb_variance.csv", table)
    print("variance of the gradient, summed over arrays, times that of plain; the largest z of a mean")
    for key in dict.fromkeys((row["parameters"], row["varied"], row["noise for θ"]) for row in table):
        sums, z = [], []
        for prefix in ("encoder", "decoder", "log_sigma"):
            mine, plain = (
                sum(
                    float(row["variance"])
                    for row in table
                    if (row["parameters"], row["varied"], row["noise for θ"]) == (*key[:2], kind)
                    and row["array"].startswith(prefix)
                )
                for kind in (key[2], PLAIN)
            )
            sums.append(f"{mine / plain:8.3g}")
        chosen = [row for row in table if (row["parameters"], row["varied"], row["noise for θ"]) == key]
        z = max(float(row["z of the mean"]) for row in chosen if row["z of the mean"] != "nan")
        ms = chosen[0]["ms per gradient"]
        print(f"{key[0]:8} {key[1]:19} {key[2]:11} φ{sums[0]} μ{sums[1]} log σ{sums[2]}   z {z:4.1f} {ms:>7} ms")


if __name__ == "__main__":
    command(main)
