"""A convolutional VAE of MNIST with two latents, 50 epochs, beside the MLP's at equal latents.

Convolutions of 16 and 32 channels (kernel 4, stride 2), 128 units, ReLU, and the way back; the MLP is 784-500-2, tanh.
Both from Glorot's weights by Adam 0.001, M = 100, L = 1, grey-level pixels, seed 0. Runs are kept in --runs.
"""

from stages import row, write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adam, load_data, load_model, plots

MODELS = {
    "conv": (128, {"channels": [16, 32], "activation": "relu", "init": "glorot"}),
    "MLP": (500, {"init": "glorot"}),
}


def main():
    """Train what is missing; write conv.csv and conv.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set of square images")
    p.add_argument("--epochs", type=positive, default=50, help="passes over the training images (50)")
    settings = parse(p)
    data, folder = load_data(settings.data), settings.runs / f"conv-{settings.data}-{settings.scale:g}"
    n = len(data.train)
    samples = max(1000, int(settings.epochs * n * settings.scale))
    runs = {
        name: Run(
            folder / name, data.name, hidden, 2, samples, model, optimizer=Adam(0.001), n_held_out=2000, log_every=n
        )
        for name, (hidden, model) in MODELS.items()
    }
    train_all(list(runs.values()), settings.jobs)
    fig, rows = plots.Figure(figsize=(19, 6), dpi=110, layout="constrained"), []
    manifold, scatter, curve = fig.subplots(1, 3)
    for k, (name, run) in enumerate(runs.items()):
        model, history = load_model(run.folder), run.history()
        after = f"{history['epoch'][-1]:.3g} epochs"
        parameters = {"model": name, "parameters": model.params.value.size}
        rows.append(parameters | row("conv", after, 2, model, history, data) | {"commit": run.commit()})
        curve.plot(history["epoch"], -history["train_bound"], f"C{k}--", label=f"{name}, training")
        curve.plot(history["epoch"], -history["valid_bound"], f"C{k}-", label=f"{name}, validation")
        if name == "conv":
            plots.manifold(manifold, model, data.image_shape)
            manifold.set_title(f"E[x|z] in equal steps of probability, after {after}", loc="left")
            plots.latent_scatter(scatter, model.encode_mean(data.test), data.test_labels)
            scatter.set_title("means of q(z|x), test images", loc="left")
    write_table(settings.results / "conv.csv", rows)
    curve.set_title("loss: -bound, nats per image")
    curve.set_xlabel("epoch")
    lowest = min(-run.history()["train_bound"].max() for run in runs.values())
    curve.set_ylim(lowest - 2, -rows[1]["test_bound"] + 25)
    curve.grid(alpha=0.3)
    curve.legend()
    fig.savefig(settings.results / "conv.png")
    print(f"wrote {settings.results / 'conv.png'}")


if __name__ == "__main__":
    command(main)
