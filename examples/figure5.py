"""The paper's Figure 5: random samples of models with 2, 5, 10 and 20 latent dimensions, MNIST.

E[x|z] at z ~ N(0, I). The models are those of Figure 2 (AEVB, Adagrad 0.01, 1e7 samples): runs of figure2.py are found
again, missing ones are trained.
"""

from figure2 import run_of
from stages import row, write_table
from study import command, parse, parser, positive, train_all

from scratchvae import load_data, load_model, plots


def main():
    """Write figure5.png and figure5.csv."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--latent", type=positive, nargs="+", default=[2, 5, 10, 20], help="N_z, a panel each (2 5 10 20)")
    p.add_argument("--samples", type=positive, default=10_000_000, help="samples to evaluate (1e7)")
    settings = parse(p)
    runs = {latent: run_of(settings, settings.data, latent) for latent in settings.latent}
    train_all(list(runs.values()), settings.jobs)
    data, rows = load_data(settings.data), []
    fig = plots.Figure(figsize=(4.5 * len(runs), 4.9), dpi=120, layout="constrained")
    for ax, (latent, run) in zip(fig.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        model, history = load_model(run.folder), run.history()
        after = f"{history['samples'][-1]:,} samples"
        rows.append(row("figure5", after, latent, model, history, data) | {"commit": run.commit()})
        plots.samples(ax, model, data.image_shape)
        title = f"$N_z$ = {latent}, after {after}: test bound {rows[-1]['test_bound']:.1f}"
        ax.set_title(title, fontsize=10, loc="left")
    fig.suptitle(f"{settings.data}: E[x|z] at z ~ N(0, I); test bound in nats")
    write_table(settings.results / "figure5.csv", rows)
    fig.savefig(settings.results / "figure5.png")
    print(f"wrote {settings.results / 'figure5.png'}")


if __name__ == "__main__":
    command(main)
