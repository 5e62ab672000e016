"""A random walk in 20 latent dimensions: 100 steps, each N(0, 0.1²), from a draw of the prior, after 50 epochs."""

from stages import options, row, stages, write_table

from scratchvae import plots


def main():
    """Write random_walk.png, in reading order from the top left."""
    settings = options(__doc__)
    *_, (title, model, history, data) = stages(20, settings)
    fig, ax = plots.figure()
    plots.random_walk(ax, model, data.image_shape)
    fig.savefig(settings.results / "random_walk.png")
    print(f"wrote {settings.results / 'random_walk.png'}")
    write_table(settings.results / "random_walk.csv", [row("random_walk", title, 20, model, history, data)])


if __name__ == "__main__":
    main()
