"""Small data sets: when the validation bound is at its best, and what is lost by going on.

A VAE of 784-500-20 on the first 320, 1,000, 3,200 and 10,000 images of MNIST, L^B, M = 100, 1,000,000 samples, seed 0;
with Adagrad 0.01 and weights from N(0, 0.01²), as in the paper, and with Adam 0.001 and Glorot's weights. The
validation bound is that of 1,000 images of the validation split.

Runs are kept in --runs and gone on with.
"""

from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adagrad, Adam, load_data, plots

SIZES = (320, 1000, 3200, 10_000)
OPTIMIZERS = {"Adagrad 0.01": (Adagrad(0.01), 0.01), "Adam 0.001": (Adam(0.001), "glorot")}


def run_of(settings, size, name):
    """The Run of one size and one optimiser."""
    folder = settings.runs / f"small-{settings.data}-{settings.scale:g}" / f"{size}-{name.replace(' ', '-')}"
    optimizer, init = OPTIMIZERS[name]
    samples = max(2000, int(settings.samples * settings.scale))
    kept = {"n_train": size, "n_held_out": 1000}
    return Run(folder, settings.data, 500, 20, samples, {"init": init}, optimizer=optimizer, **kept)


def row_of(run, size, name):
    """A row of the table."""
    history = run.history()
    bounds = history["valid_bound"]
    best = bounds.argmax()
    return {
        "images": size,
        "optimizer": name,
        "best_bound": round(float(bounds[best]), 2),
        "best_at": int(history["samples"][best]),
        "passes": round(float(history["epoch"][best])),
        "last_bound": round(float(bounds[-1]), 2),
        "last_train_bound": round(float(history["train_bound"][-1]), 2),
        "samples": int(history["samples"][-1]),
        "train_seconds": round(float(history["seconds"][-1]), 1),
        "seed": run.seed,
        "commit": run.commit(),
    }


def draw(settings, runs, sizes):
    """small_sets.png: the validation bound of each run over the samples, and its best row."""
    fig = plots.Figure(figsize=(10, 3.8), dpi=150, layout="constrained")
    for ax, name in zip(fig.subplots(1, len(OPTIMIZERS), sharey=True), OPTIMIZERS, strict=True):
        for k, size in enumerate(sizes):
            history = runs[size, name].history()
            best = history["valid_bound"].argmax()
            ax.semilogx(history["samples"], history["valid_bound"], f"C{k}", lw=1, label=f"{size:,} images")
            ax.semilogx(history["samples"][best], history["valid_bound"][best], f"C{k}o", ms=5)
        ax.set_xlabel("training samples evaluated")
        ax.set_title(f"{name}: ● is the best row of each run", fontsize=9)
        ax.grid(alpha=0.3)
    fig.axes[0].set_ylabel("validation bound (nats per image)")
    fig.axes[0].legend(fontsize=8)
    fig.savefig(settings.results / "small_sets.png")


def main():
    """Train what is not trained yet, print the table, and write small_sets.csv and small_sets.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set of images")
    p.add_argument("--samples", type=positive, default=1_000_000, help="samples to evaluate (1e6)")
    settings = parse(p)
    there = len(load_data(settings.data).train)
    sizes = [size for size in SIZES if size <= there]
    runs = {(size, name): run_of(settings, size, name) for size in sizes for name in OPTIMIZERS}
    train_all(list(runs.values()), settings.jobs)
    rows = [row_of(run, *key) for key, run in runs.items()]
    for row in rows:
        print(
            f"{row['images']:6,} images, {row['optimizer']:12}: best {row['best_bound']:.1f} at {row['best_at']:,} "
            f"samples, {row['passes']:,} passes; last {row['last_bound']:.1f}"
        )
    write_table(settings.results / "small_sets.csv", rows)
    draw(settings, runs, sizes)
    print(f"wrote {settings.results / 'small_sets.png'}")


if __name__ == "__main__":
    command(main)
