"""Random samples from the prior after 1,000 and 10,000 images, 1 and 50 epochs, at 20 and at 2 latents."""

from stages import options, row, stages, write_table

from scratchvae import plots


def main():
    """Write samples_<latents>.png and samples.csv."""
    settings = options(__doc__)
    rows = []
    for latent in (20, 2):
        fig = plots.Figure(figsize=(9, 9.5), dpi=150, layout="constrained")
        for ax, (title, model, history, data) in zip(fig.subplots(2, 2).flat, stages(latent, settings), strict=True):
            plots.samples(ax, model, data.image_shape, n=100)
            rows.append(row("samples", title, latent, model, history, data))
            ax.set_title(title)
        fig.suptitle(f"{latent} latents: E[x|z] at z ~ N(0, I)")
        fig.savefig(settings.results / f"samples_{latent}.png")
        print(f"wrote {settings.results / f'samples_{latent}.png'}")
    write_table(settings.results / "samples.csv", rows)


if __name__ == "__main__":
    main()
