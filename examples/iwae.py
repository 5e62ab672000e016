"""Importance-weighted autoencoders (Burda, Grosse & Salakhutdinov 2016): their model with one stochastic layer.

784-200-200-50-200-200-784, tanh, Glorot, no prior on θ, MNIST drawn anew for every minibatch as Bernoulli(grey level),
M = 20, Adam (0.9, 0.999, 1e-4). Their schedule: 3^i passes with stepsize 0.001 · 10^(-i/7), i = 0, …, 7, in all 3,280
passes over 50,000 images; --stages 4 is the first 40 of them, some minutes for each k. k = 1 is the VAE. log p(x) is
that of test images, binarised once, by importance with 5,000 draws each. Runs are kept in --runs and gone on with.
"""

import math
import warnings

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import Adam, evaluate, fit, load_data, load_model, plots
from scratchvae.data import binarise, thresholds
from scratchvae.inference.marginal import importance
from scratchvae.training.loop import HELD_OUT, stream

METHODS = {"VAE": "A", "IWAE": "iwae"}


class Staged(Adam):
    """Adam with the stepsize of their stages; n images, `passes` of the first stage.

    Their bound is a mean over datapoints and ours is a sum: a gradient N times theirs with N times their ε is the same.
    """

    def __init__(self, n, steps_per_pass):
        super().__init__(0.001, 0.9, 0.999, 1e-4 * n)
        self.steps_per_pass = steps_per_pass

    def ascend(self, params, step, part=slice(None)):
        passes = (step - 1) / self.steps_per_pass
        stage = int(math.log(2 * passes + 1, 3) + 1e-9)  # (3^i - 1) / 2 passes come before stage i
        self.lr = 0.001 * 10 ** (-stage / 7)
        super().ascend(params, step, part)


class DynamicRun(Run):
    """A Run whose minibatches are binarised as they are drawn."""

    def fit(self, model, train, held_out, **settings):
        return fit(model, train, held_out, binarization="dynamic", **settings)


def binarised(data, n):
    """The first n test images, each pixel drawn once as Bernoulli(grey level)."""
    x = data.test[:n]
    return binarise(x, thresholds(x.shape, x.dtype, stream(0, HELD_OUT, 0)))


def estimate(run, n_images, draws):
    """log p(x) of the test images, by importance, and what it says about itself."""
    model, x = load_model(run.folder), binarised(load_data(run.data), n_images)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat is above")  # their share is a column of the table
        found = importance(model, x, draws)
    model.n_samples = 1
    mean, error = found.mean()
    mu = model.encode_mean(x)
    return {
        "test log p(x)": round(mean, 3),
        "its error": round(error, 3),
        f"share with k_hat > {found.threshold():.2g}": round(float(found.untrusted().mean()), 3),
        "test bound (7)": round(evaluate(model, x)["bound"], 3),
        "active latents": int((mu.var(axis=0) > 0.01).sum()),  # their A_u = Cov_x E[u|x] > 0.01
        "images": len(x),
        "draws": draws,
    }


def main():
    """Train what is not trained yet; write iwae.csv and iwae.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--stages", type=int, default=8, help="of their eight stages, the first so many (8)")
    p.add_argument("--k", type=positive, nargs="+", default=[1, 5, 50], help="draws for each datapoint (1 5 50)")
    p.add_argument("--images", type=positive, help="test images (10,000, by --scale)")
    p.add_argument("--draws", type=positive, help="draws for log p(x) (5,000, by --scale)")
    settings = parse(p)
    settings.images = settings.images or max(20, int(10_000 * settings.scale))
    settings.draws = settings.draws or max(50, int(5000 * settings.scale))
    if not 1 <= settings.stages <= 8:
        p.error("--stages expects a whole number from 1 to 8")
    n = len(load_data(settings.data).train)
    passes, steps = (3**settings.stages - 1) // 2, -(-n // 20)
    samples, runs = max(100, int(passes * n * settings.scale)), {}
    for method, k in [(method, k) for k in settings.k for method in METHODS if k > 1 or method == "VAE"]:
        folder = settings.runs / f"iwae-{settings.data}-{settings.scale:g}" / f"{method}-{k}"
        model = {"estimator": METHODS[method], "n_samples": k, "init": "glorot", "prior": False}
        runs[method, k] = DynamicRun(
            folder,
            settings.data,
            (200, 200),
            50,
            samples,
            model,
            optimizer=Staged(n, max(1, int(steps * settings.scale))),
            n_held_out=1000,
            batch_size=20,
        )
    train_all(list(runs.values()), settings.jobs)
    calls = [(estimate, run, settings.images, settings.draws) for run in runs.values()]
    found = in_parallel(calls, settings.jobs, " estimates")
    rows = [
        {"method": method, "k": k, "stages": settings.stages, "passes": passes * settings.scale}
        | row
        | {"train seconds": round(float(run.history()["seconds"][-1])), "seed": run.seed, "commit": run.commit()}
        for ((method, k), run), row in zip(runs.items(), found, strict=True)
    ]
    write_table(settings.results / "iwae.csv", rows)
    fig, ax = plots.figure(7, 4.5)
    for (method, k), run in runs.items():
        history = run.history()
        ax.plot(history["samples"], history["train_bound"], "o-", ms=2, lw=1.2, label=f"{method}, k = {k}")
    late = np.concatenate([h["train_bound"][len(h) // 2 :] for h in (run.history() for run in runs.values())])
    ax.set_ylim(late.min() - 1, late.max() + 1)
    ax.set_xscale("log")
    ax.set_xlabel("training samples evaluated")
    ax.set_ylabel("the bound that is trained on (nats per datapoint)")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    fig.savefig(settings.results / "iwae.png")
    print(f"wrote {settings.results / 'iwae.png'}")


if __name__ == "__main__":
    command(main)
