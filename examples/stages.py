"""The training runs behind the pictures: one per latent size, looked at after 1,000 and 10,000 images, 1 and 50 epochs.

500 tanh units, Adam 0.001, Glorot, M = 100, grey-level MNIST, seed 0. Each stage goes on from the checkpoint of the one
before, in a folder of its own under runs/examples, where the next script that needs it finds it. A stage that was
interrupted is gone on with, and one that another process trains at the moment is left to it.
"""

import argparse
import csv
import io

from study import Run, add_folders, parse

from scratchvae import Adam, evaluate, fit, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.training.checkpoint import write_atomically

STAGES = {"1,000 images": 1_000, "10,000 images": 10_000, "1 epoch": 50_000, "50 epochs": 2_500_000}


def options(description):
    """The command line that all the scripts share."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", type=float, default=1.0, help="a fraction of the training, for a quick look (1)")
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    add_folders(p)
    return parse(p)


class Stage(Run):
    """A Run that shows how far it is."""

    def fit(self, model, train, held_out, **settings):
        """As Run's, with a bar on a terminal."""
        return fit(model, train, held_out, **settings | {"progress": None})


def stages(latent, settings):
    """(title, model, history, data) after each stage, trained or found."""
    data = load_data(settings.data)
    home = settings.runs / f"{settings.data}{latent}-{settings.scale:g}"
    before = None
    for title, samples in STAGES.items():
        folder = home / title.replace(" ", "-").replace(",", "")
        samples = max(100, int(samples * settings.scale))
        stage = Stage(folder, settings.data, 500, latent, samples, {"init": "glorot"}, optimizer=Adam(0.001))
        if before is not None:
            stage.start_from(before)
        stage.train(commit())
        yield title, load_model(folder), stage.history(), data
        before = folder


def panels(name, draw, figsize, heading):
    """Write <name>.csv, and <name>_<latents>.png: four stages at 20 and 2 latents, each by draw(ax, model, data)."""
    settings = options(heading)
    found = {latent: list(stages(latent, settings)) for latent in (20, 2)}
    rows = {
        latent: [row(name, title, latent, model, history, data) for title, model, history, data in four]
        for latent, four in found.items()
    }
    write_table(settings.results / f"{name}.csv", [*rows[20], *rows[2]])
    for latent, four in found.items():
        fig = plots.Figure(figsize=figsize, dpi=150, layout="constrained")
        for ax, (title, model, _, data), numbers in zip(fig.subplots(2, 2).flat, four, rows[latent], strict=True):
            draw(ax, model, data)
            ax.set_title(f"{title}: test bound {numbers['test_bound']:.1f} nats", loc="left")
        fig.suptitle(f"{latent} latents: {heading}")
        fig.savefig(settings.results / f"{name}_{latent}.png")
        print(f"wrote {settings.results / f'{name}_{latent}.png'}")


def row(name, title, latent, model, history, data):
    """One line of the table: what was run, and what came out on the test images, in nats per datapoint."""
    result = evaluate(model, data.test)
    return {
        "figure": name,
        "data": data.name,
        "latent": latent,
        "after": title,
        "samples": int(history["samples"][-1]),
        "test_bound": round(result["bound"], 2),
        "kl": round(result["kl"], 2),
        "reconstruction": round(result["reconstruction"], 2),
        "seed": model.config["seed"],
        "train_seconds": round(float(history["seconds"][-1]), 1),
        "commit": commit(),
    }


def write_table(path, rows):
    """Write a CSV of dicts with the same keys, so that an older table stays whole where the disk has no room."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
    print(f"wrote {path}")
