"""The paper's Figure 4: the learned manifolds of two latent dimensions, Frey Face and MNIST.

E[x|z] on a grid of equal steps of probability under p(z). AEVB with 200 units for Frey Face and 500 for MNIST, tanh,
M = 100, MAP. With the paper's N(0, 0.01²) and Adagrad the manifold of MNIST still shows three or four kinds of digit
after 3e6 samples, and so these models start from Glorot's weights and take Adam 0.001. Runs are kept in --runs.
"""

from stages import row, write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adam, load_data, load_model, plots


def main():
    """Write figure4.png and figure4.csv."""
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", default=["frey", "mnist"], help="data sets, a panel each (frey mnist)")
    p.add_argument("--samples", type=positive, default=2_500_000, help="samples to evaluate (2,500,000)")
    settings = parse(p)
    runs, samples = {}, max(2000, int(settings.samples * settings.scale))
    for name in settings.data:
        folder = settings.runs / f"figure4-{settings.scale:g}" / name
        model = {"likelihood": "gaussian" if name == "frey" else "bernoulli", "init": "glorot"}
        runs[name] = Run(folder, name, 200 if name == "frey" else 500, 2, samples, model, optimizer=Adam(0.001))
    train_all(list(runs.values()), settings.jobs)
    fig, rows = plots.Figure(figsize=(8 * len(runs), 8.6), dpi=120, layout="constrained"), []
    for ax, (name, run) in zip(fig.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        data, model, history = load_data(name), load_model(run.folder), run.history()
        after = f"{history['samples'][-1]:,} samples"
        rows.append(row("figure4", after, 2, model, history, data) | {"commit": run.commit()})
        height, width = data.image_shape
        plots.manifold(ax, model, data.image_shape, rows=round(20 * width / height), columns=20)
        ax.set_title("", loc="left")
        ax.set_title(f"{name}, after {after}: test bound {rows[-1]['test_bound']:.1f} nats", fontsize=12)
    write_table(settings.results / "figure4.csv", rows)
    fig.savefig(settings.results / "figure4.png")
    print(f"wrote {settings.results / 'figure4.png'}")


if __name__ == "__main__":
    command(main)
