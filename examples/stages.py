"""The training runs behind the pictures: one per latent size, looked at after 1,000 and 10,000 images, 1 and 50 epochs.

500 tanh units, Adam 0.001, Glorot, M = 100, grey-level MNIST, seed 0. Each stage resumes from a copy of the one before,
and is found again under runs/examples by the next script that needs it.
"""

import argparse
import csv
import shutil
from pathlib import Path

from scratchvae import VAE, Adam, evaluate, fit, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.training.run import read_history

RESULTS = Path(__file__).with_name("results")
STAGES = {"1,000 images": 1_000, "10,000 images": 10_000, "1 epoch": 50_000, "50 epochs": 2_500_000}


def options(description):
    """The command line that all the scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the training, for a quick look (1)")
    parser.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    parser.add_argument("--runs", type=Path, default=Path("runs/examples"), help="where runs are kept (runs/examples)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where pictures and tables go (examples/results)")
    settings = parser.parse_args()
    settings.results.mkdir(parents=True, exist_ok=True)
    return settings


def stages(latent, settings):
    """(title, model, history, data) after each stage, trained or found."""
    data = load_data(settings.data)
    before = None
    for title, samples in STAGES.items():
        folder = (
            settings.runs / f"{settings.data}{latent}-{settings.scale:g}" / title.replace(" ", "-").replace(",", "")
        )
        if not (folder / "metrics.csv").exists():
            begin(latent, data, max(100, int(samples * settings.scale)), folder, before)
        yield title, load_model(folder), read_history(folder / "metrics.csv"), data
        before = folder


def begin(latent, data, samples, folder, before):
    """Train up to `samples` in `folder`, from where `before` ended; the folder appears when it is done."""
    building = folder.with_name(folder.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, building)
    model = VAE(data.train.shape[1], 500, latent, init="glorot", seed=0)
    fit(model, data.train, data.valid, optimizer=Adam(0.001), samples=samples, out=building, resume=before is not None)
    building.rename(folder)


def panels(name, draw, figsize, heading):
    """Write <name>_<latents>.png, four stages at 20 and 2 latents, each by draw(ax, model, data), and <name>.csv."""
    settings, rows = options(heading), []
    for latent in (20, 2):
        fig = plots.Figure(figsize=figsize, dpi=150, layout="constrained")
        for ax, (title, model, history, data) in zip(fig.subplots(2, 2).flat, stages(latent, settings), strict=True):
            draw(ax, model, data)
            rows.append(row(name, title, latent, model, history, data))
            ax.set_title(f"{title}: test bound {rows[-1]['test_bound']:.1f} nats")
        fig.suptitle(f"{latent} latents: {heading}")
        fig.savefig(settings.results / f"{name}_{latent}.png")
        print(f"wrote {settings.results / f'{name}_{latent}.png'}")
    write_table(settings.results / f"{name}.csv", rows)


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
    """A CSV of dicts with the same keys."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")
