"""Full variational Bayes against MAP: held-out bound against samples evaluated, few training images and many.

784-200-10-200-784, tanh, L^B, Adagrad 0.02, M = 100, log σ from -4 unless said, no early stopping, trained on the first
N images of MNIST. The bound is that of the first 2,000 test images at the posterior mean of θ, z sampled. MAP has the
prior p(θ) = N(0, I). "best" is read off the same test images, which favours what rises and falls. Runs are kept in
--runs and gone on with: --sizes 1000 --seeds 1 --samples 2e7 takes some of them further. As many run at a time as there
are cores, each on one thread of BLAS.
"""

import json

import numpy as np
from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import VAE, Adagrad, FullVB, load_data, load_model, plots
from scratchvae.training.run import read_history

METHODS = {
    "MAP": None,
    "Full VB, one θ per minibatch": {"theta_noise": "minibatch"},
    "Full VB, local reparameterisation": {"theta_noise": "local"},
    "Full VB, local, α learned": {"theta_noise": "local", "learn_hyperprior": True},
    "Full VB, one θ per minibatch, log σ from -5": {"theta_noise": "minibatch", "log_sigma": -5.0},
}
SIZES = {1_000: 4_800_000, 10_000: 1_800_000, 100: 1_200_000}  # training images: samples evaluated
ROWS = 20_000  # samples between two rows of a history
AT = [200_000, 600_000, 1_800_000, 4_800_000, 20_000_000]  # columns of the table


def folder_of(runs, data, method, n, seed, scale):
    """Where a run is kept."""
    return runs / f"full-vb-{data}-{scale:g}" / f"{n}-{list(METHODS).index(method)}-{seed}"


def run_of(settings, method, n, seed, samples):
    """The Run of one curve."""
    model = METHODS[method]
    return Run(
        folder_of(settings.runs, settings.data, method, n, seed, settings.scale),
        settings.data,
        200,
        10,
        samples,
        {} if model is None else model,
        kind=VAE if model is None else FullVB,
        optimizer=Adagrad(0.02),
        n_train=n,
        held_out="test",
        n_held_out=2000,
        log_every=max(1, int(settings.scale * ROWS)),
        seed=seed,
    )


def summary(folder, method, n, seed):
    """A row of the table, and the run's history."""
    history, options = (
        read_history(folder / "metrics.csv"),
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["options"],
    )
    model, bound, samples = load_model(folder), history["valid_bound"], history["samples"]
    best, theta_kl = bound.argmax(), model.theta_kl() / n if isinstance(model, FullVB) else None
    row = {"N": n, "method": method, "seed": seed}
    row |= {f"at {at:.1e}": round(float(bound[samples == at][0]), 2) if at in samples else None for at in AT}
    row |= {
        "best": round(float(bound[best]), 2),
        "best at": int(samples[best]),
        "last": round(float(bound[-1]), 2),
        "last at": int(samples[-1]),
        "bound (22) / N": None if theta_kl is None else round(float(history["train_bound"][-1]), 2),
        "theta KL / N": None if theta_kl is None else round(theta_kl, 2),
        "train seconds": round(float(history["seconds"][-1])),
        "commit": options["commit"],
    }
    return row, history


def draw(axes, curves):
    """The histories {(N, method): [history of a seed, …]}, an axis for each N: a line for a seed."""
    for ax, n in zip(axes, dict.fromkeys(n for n, _ in curves), strict=True):
        everything = []
        for k, method in enumerate(METHODS):
            for seed, history in enumerate(curves.get((n, method), [])):
                ax.plot(history["samples"], history["valid_bound"], f"C{k}", lw=1, label=method if seed == 0 else None)
                everything.append(history["valid_bound"][len(history) // 10 :])
        low, high = np.min(np.concatenate(everything)), np.max(np.concatenate(everything))
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        ax.set_xscale("log")
        ax.set_title(f"{n:,} training images")
        ax.set_xlabel("training samples evaluated")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("held-out bound (nats per datapoint)")
    axes[-1].legend(fontsize=7, loc="lower right")


def main():
    """Train what is not trained yet; write full_vb.csv, full_vb.png and full_vb_uncertainty.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--sizes", type=positive, nargs="+", default=list(SIZES), help="numbers of training images")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    p.add_argument(
        "--samples", type=positive, help="in place of 4.8e6 for 1,000 images, 1.8e6 for 10,000, 1.2e6 for 100"
    )
    settings = parse(p)

    runs = []
    for n in settings.sizes:
        samples = max(100, int(settings.scale * (settings.samples or SIZES.get(n, 1_800_000))))
        runs += [run_of(settings, method, n, seed, samples) for seed in range(settings.seeds) for method in METHODS]
    train_all(runs, settings.jobs)

    rows, curves = [], {}
    for n in sorted({*SIZES, *settings.sizes}):
        for method in METHODS:
            for seed in range(10):
                folder = folder_of(settings.runs, settings.data, method, n, seed, settings.scale)
                if (folder / "checkpoint.npz").exists():
                    row, history = summary(folder, method, n, seed)
                    rows.append(row)
                    curves.setdefault((n, method), []).append(history)
    write_table(settings.results / "full_vb.csv", rows)
    drawn = sorted({n for n, _ in curves})
    fig = plots.Figure(figsize=(4.5 * len(drawn), 4), dpi=150, layout="constrained")
    draw(fig.subplots(1, len(drawn), squeeze=False)[0], curves)
    fig.savefig(settings.results / "full_vb.png")

    data, local = load_data(settings.data), "Full VB, local reparameterisation"
    drawn = [n for n in drawn if (n, local) in curves]
    fig = plots.Figure(figsize=(10, 1.7 * len(drawn)), dpi=150, layout="constrained")
    for part, n in zip(fig.subfigures(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
        seed = next(row["seed"] for row in rows if (row["N"], row["method"]) == (n, local))
        folder = folder_of(settings.runs, settings.data, local, n, seed, settings.scale)
        part.suptitle(f"{n:,} training images", fontsize=8)
        plots.theta_uncertainty(part.subplots(1, 4), load_model(folder), data.test[:8], data.image_shape)
    fig.savefig(settings.results / "full_vb_uncertainty.png")
    print(f"wrote full_vb.png and full_vb_uncertainty.png in {settings.results}")


if __name__ == "__main__":
    command(main)
