"""The learned 2-D manifold: E[x|z] on a grid of equal steps of probability (the paper's Figure 4), after 50 epochs."""

from stages import options, row, stages, write_table
from study import command

from scratchvae import plots


def main():
    """Write manifold.png and, beside it, the test images in latent space, latent.png."""
    settings = options(__doc__)
    *_, (title, model, history, data) = stages(2, settings)
    write_table(settings.results / "manifold.csv", [row("manifold, latent", title, 2, model, history, data)])
    fig, ax = plots.figure(8, 8)
    plots.manifold(ax, model, data.image_shape)
    fig.savefig(settings.results / "manifold.png")
    fig, ax = plots.figure(7, 6)
    plots.latent_scatter(ax, model.encode_mean(data.test), data.test_labels)
    fig.savefig(settings.results / "latent.png")
    print(f"wrote {settings.results / 'manifold.png'} and latent.png")


if __name__ == "__main__":
    command(main)
