"""The paper's Figure 3: log p(x) against samples evaluated, AEVB, wake-sleep and Monte Carlo EM, few images and many.

784-100-3-100-784 on MNIST, tanh, weights from N(0, 0.01²), M = 100, MAP, Adagrad 0.02, trained on the first 1,000
images and on all 50,000. 0.02 has the best training bound of AEVB and wake-sleep, and log p(x, z) of Monte Carlo EM,
after 1e6 samples. log p(x) is that of the first 1,000 training and test images by appendix D: 50 samples of the
posterior in each of two sets, from five chains of HMC, 4 leapfrog steps, that start alike for all methods. Monte Carlo
EM (appendix E) counts each of its evaluations of log p(x, z) and gradient: 16 for a datapoint in a minibatch. Its
seconds have no validation in them, those of the others a pass over the test images for every row of the history. Runs
and estimates are kept in --runs and gone on with.
"""

import json
import warnings
from collections import defaultdict
from dataclasses import replace

import numpy as np
from stages import write_table
from study import Run, claimed, command, in_parallel, parse, parser, positive

from scratchvae import Adagrad, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.inference.marginal import appendix_d
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.em import fit_mcem

AT = [100_000, 316_228, 1_000_000, 3_162_278, 10_000_000]  # rows of the history


class RunMCEM(Run):
    """The same by Monte Carlo EM."""

    def fit(self, model, train, held_out, **settings):
        return fit_mcem(model, train, **settings)


METHODS = {"AEVB": (Run, "B"), "wake-sleep": (Run, "wake-sleep"), "MCEM": (RunMCEM, "B")}


def follow(run, method, n, points, images, version):
    """Train up to each of `points`, keep the model of that moment, and estimate log p(x); the rows of the table."""
    path = run.folder / "marginal.json"  # the estimates from any number of images
    data = load_data(run.data)
    for samples in points:
        if (samples, images) in [(row["asked for"], row["images"]) for row in estimates(path)]:
            continue
        stage, kept = replace(run, samples=samples), run.folder / f"at-{samples}.npz"
        if not kept.exists():
            stage.train(version)
            keep_model(run, samples, kept)
        model, history = load_model(kept), run.history()
        last = history[np.searchsorted(history["samples"], samples)]
        row = {"training images": n, "method": method, "asked for": samples}
        row |= {"samples": int(last["samples"]), "images": images}
        for split in ("train", "test"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "k_hat is above")  # that is a column of the table
                estimate = appendix_d(model, getattr(data, split)[:images], 50)
            row[f"{split} log p(x)"], row[f"{split} error"] = (round(value, 3) for value in estimate.mean())
            row[f"{split} bias, about"] = round(estimate.bias(), 4)
            row[f"{split} share with k_hat > {estimate.threshold():.2f}"] = round(estimate.untrusted().mean(), 3)
            row[f"{split} share with r_hat > 1.1"] = round(float((estimate.r_hat > 1.1).any(axis=1).mean()), 3)
        row |= {"train seconds": round(float(last["seconds"]), 1), "seed": run.seed}
        row |= {"commit": stage.commit()}
        write_atomically(path, json.dumps([*estimates(path), row], indent=1).encode())
    found = {row["asked for"]: row for row in estimates(path) if row["images"] == images}
    return [found[samples] for samples in points]


def estimates(path):
    """The rows that are kept in a file, as they are now: another process may have added some."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def keep_model(run, samples, kept):
    """Copy the checkpoint to `kept`; a ValueError is raised if the run has gone on beyond so many samples meanwhile."""
    with claimed(run.folder):
        if run.history()["samples"][-1] >= samples + 16 * run.batch_size:  # one minibatch may have gone beyond
            raise ValueError(f"{run.folder} has gone beyond {samples:,} samples: move it away, to train it anew")
        write_atomically(kept, (run.folder / "checkpoint.npz").read_bytes())


def main():
    """Train and estimate what is missing; write figure3.csv and figure3.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--sizes", type=positive, nargs="+", default=[1_000, 50_000], help="numbers of training images")
    p.add_argument("--images", type=positive, help="images of each split to estimate log p(x) of (1,000, by --scale)")
    settings = parse(p)
    settings.images = settings.images or max(20, int(1000 * min(1, 10 * settings.scale)))
    available = len(load_data(settings.data).train)
    settings.sizes = list(dict.fromkeys(min(n, available) for n in settings.sizes))
    points, version, calls = [max(2000, int(at * settings.scale)) for at in AT], commit(), []
    for n in settings.sizes:
        for method, (kind, estimator) in METHODS.items():
            folder = settings.runs / f"figure3-{settings.data}-{settings.scale:g}" / f"{n}-{method}"
            model = {"estimator": estimator}
            run = kind(
                folder, settings.data, 100, 3, 0, model, optimizer=Adagrad(0.02), n_train=n, held_out="test",
                n_held_out=settings.images,
            )  # fmt: skip
            calls.append((follow, run, method, n, sorted(set(points)), settings.images, version))
    rows = [row for rows in in_parallel(calls, settings.jobs) for row in rows]
    write_table(settings.results / "figure3.csv", rows)

    curves = defaultdict(lambda: defaultdict(list))
    for row in rows:
        curves[row["training images"]][row["method"]].append(row)
    fig = plots.Figure(figsize=(4.5 * len(curves), 4), dpi=150, layout="constrained")
    axes = fig.subplots(1, len(curves), squeeze=False)[0]
    for ax, (n, methods) in zip(axes, curves.items(), strict=True):
        for k, (method, line) in enumerate(methods.items()):
            x = [row["samples"] for row in line]
            for split, style in [("train", "--"), ("test", "-")]:
                y = [row[f"{split} log p(x)"] for row in line]
                ax.plot(x, y, f"C{k}o{style}", ms=3, lw=1.2, label=f"{method}, {split}")
        ax.set_xscale("log")
        ax.set_title(f"{n:,} training images", fontsize=10)
        ax.set_xlabel("training samples evaluated")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("log p(x) by appendix D (nats per datapoint)")
    axes[-1].legend(fontsize=7, loc="lower right")
    fig.savefig(settings.results / "figure3.png")
    print(f"wrote {settings.results / 'figure3.png'}")


if __name__ == "__main__":
    command(main)
