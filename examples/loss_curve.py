"""The bound while training for 50 epochs at 2 and at 20 latents: train and validation against samples evaluated."""

from stages import options, row, stages, write_table
from study import command

from scratchvae import plots
from scratchvae.training.run import write_history


def main():
    """Write loss_curve.png, loss_curve.csv (the last row of each) and loss_curve_<latents>.csv (every row)."""
    settings = options(__doc__)
    fig = plots.Figure(figsize=(10, 4), dpi=150, layout="constrained")
    rows = []
    for ax, latent in zip(fig.subplots(1, 2), (2, 20), strict=True):
        *_, (title, model, history, data) = stages(latent, settings)
        plots.learning_curve(ax, history)
        ax.set_title(f"{latent} latents", loc="left")
        rows.append(row("loss_curve", title, latent, model, history, data))
        write_history(settings.results / f"loss_curve_{latent}.csv", history)
    write_table(settings.results / "loss_curve.csv", rows)
    fig.savefig(settings.results / "loss_curve.png")
    print(f"wrote {settings.results / 'loss_curve.png'}")


if __name__ == "__main__":
    command(main)
