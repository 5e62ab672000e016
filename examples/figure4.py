"""The paper's Figure 4: the learned manifolds of two latent dimensions, Frey Face and MNIST.

E[x|z] on a grid of equal steps of probability under p(z). The models are those of Figure 2 with N_z = 2 (AEVB, Adagrad
0.01, 1e7 samples): runs of figure2.py are found again, missing ones are trained.
"""

from figure2 import run_of
from stages import row, write_table
from study import command, parse, parser, positive, train_all

from scratchvae import load_data, load_model, plots


def main():
    """Write figure4.png and figure4.csv."""
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", default=["frey", "mnist"], help="data sets, a panel each (frey mnist)")
    p.add_argument("--samples", type=positive, default=10_000_000, help="samples to evaluate (1e7)")
    settings = parse(p)
    runs = {name: run_of(settings, name, 2) for name in settings.data}
    train_all(list(runs.values()), settings.jobs)
    fig, rows = plots.Figure(figsize=(8 * len(runs), 8.6), dpi=120, layout="constrained"), []
    for ax, (name, run) in zip(fig.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        data, model = load_data(name), load_model(run.folder)
        history = run.history()
        after = f"{history['samples'][-1]:,} samples"
        rows.append(row("figure4", after, 2, model, history, data) | {"commit": run.commit()})
        height, width = data.image_shape
        plots.manifold(ax, model, data.image_shape, rows=round(20 * width / height), columns=20)
        ax.set_title(f"{name}, after {after}: test bound {rows[-1]['test_bound']:.1f} nats", fontsize=12)
    fig.savefig(settings.results / "figure4.png")
    write_table(settings.results / "figure4.csv", rows)
    print(f"wrote {settings.results / 'figure4.png'}")


if __name__ == "__main__":
    command(main)
