"""A random walk of 100 images in 20 latent dimensions: a draw of the prior, then moves N(0, 0.1²), after 50 epochs."""

from stages import options, row, stages, write_table
from study import command

from scratchvae import plots


def main():
    """Write random_walk.png, in reading order from the top left."""
    settings = options(__doc__)
    *_, (title, model, history, data) = stages(20, settings)
    write_table(settings.results / "random_walk.csv", [row("random_walk", title, 20, model, history, data)])
    fig, ax = plots.figure()
    plots.random_walk(ax, model, data.image_shape)
    fig.savefig(settings.results / "random_walk.png")
    print(f"wrote {settings.results / 'random_walk.png'}")


if __name__ == "__main__":
    command(main)
