"""Test images and their reconstructions after 1,000 and 10,000 images, 1 and 50 epochs, at 20 and at 2 latents."""

from stages import options, row, stages, write_table

from scratchvae import plots


def main():
    """Write reconstructions_<latents>.png and reconstructions.csv."""
    settings = options(__doc__)
    rows = []
    for latent in (20, 2):
        fig = plots.Figure(figsize=(10, 6), dpi=150, layout="constrained")
        for ax, (title, model, history, data) in zip(fig.subplots(2, 2).flat, stages(latent, settings), strict=True):
            x = data.test[:30]
            plots.reconstructions(ax, x, model.reconstruct(x), data.image_shape)
            rows.append(row("reconstructions", title, latent, model, history, data))
            ax.set_title(f"{title}: test bound {rows[-1]['test_bound']:.1f} nats")
        fig.suptitle(f"{latent} latents: originals, and under them their reconstructions")
        fig.savefig(settings.results / f"reconstructions_{latent}.png")
        print(f"wrote {settings.results / f'reconstructions_{latent}.png'}")
    write_table(settings.results / "reconstructions.csv", rows)


if __name__ == "__main__":
    main()
