"""Anomalies: one class of images is left out of training, and test images are scored by how likely they are.

For each class in turn every model is fitted to the first training images of the other classes. A good score is low for
test images of the class that was left out, and high for the others. AUROC is how often that is so: the probability that
an image of the class that was left out scores lower than an image of another class. 0.5 is chance, and below it the
model finds the class that it has never seen more likely than those that it has. The scores are

    bound              the bound (7) of `scratchvae.sklearn.VAE`, 784-200-20, Bernoulli, 20 passes
    log p(x)           of the same VAE, by importance with 100 draws of q(z|x)
    PPCA               log p(x) of `scratchvae.sklearn.PPCA` with 20 latents, exact
    IsolationForest    scikit-learn's, with its own settings
    ink                minus the sum of the pixels, which is learned from nothing: with it the brightest are anomalies

Each class is kept in --runs when it is done, and gone on with.
"""

import csv
import time
import warnings

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from stages import write_table
from study import command, in_parallel, parse, parser, positive

from scratchvae import load_data, plots
from scratchvae.bench import commit
from scratchvae.sklearn import PPCA, VAE

SEED = 0


def scores_of(train, test, hidden, passes, draws):
    """Yield (method, the score of each test row, the higher the more usual, and the seconds that it took)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound still rises after so few passes
        warnings.filterwarnings("ignore", "k_hat is above")  # the text of the example says so
        since = time.perf_counter()
        vae = VAE(n_components=20, likelihood="bernoulli", n_hidden=hidden, max_iter=passes, random_state=SEED)
        vae.fit(train)
        yield "bound", vae.score_samples(test), time.perf_counter() - since
        since = time.perf_counter()
        vae.set_params(n_importance=draws)
        yield "log p(x)", vae.score_samples(test), time.perf_counter() - since
    for name, model in {"PPCA": PPCA(n_components=20), "IsolationForest": IsolationForest(random_state=SEED)}.items():
        since = time.perf_counter()
        yield name, model.fit(train).score_samples(test), time.perf_counter() - since
    yield "ink", -test.sum(axis=1), 0.0


def leave_out(settings, left_out, version):
    """The rows of the table for one class, from the file that is kept if there is one."""
    sizes = f"{settings.train}-{settings.hidden}-{settings.passes}-{settings.draws}-{settings.scale:g}"
    path = settings.runs / f"anomalies-{settings.data}-{sizes}" / f"{left_out}.csv"
    if not path.exists():
        data = load_data(settings.data)
        train = (data.train[data.train_labels != left_out][: settings.train] / 255).astype("float32")
        test = (data.test / 255).astype("float32")
        is_anomaly = data.test_labels == left_out
        passes = max(1, int(settings.passes * settings.scale))
        draws = max(10, int(settings.draws * settings.scale))
        rows = []
        for method, score, seconds in scores_of(train, test, settings.hidden, passes, draws):
            row = {"data": data.name, "left_out": left_out, "method": method}
            row["auroc"] = round(float(roc_auc_score(is_anomaly, -score)), 4)
            row |= {"train_images": len(train), "test_images": len(test), "anomalies": int(is_anomaly.sum())}
            row |= {"passes": passes, "draws": draws, "seconds": round(seconds, 1), "seed": SEED, "commit": version}
            rows.append(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_of(rows):
    """{method: AUROC of each class, (C,)}."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {name: np.array([float(row["auroc"]) for row in rows if row["method"] == name]) for name in methods}


def draw(settings, rows, table):
    """anomalies.png: the AUROC of each class by each score, and their means."""
    classes = list(dict.fromkeys(row["left_out"] for row in rows))
    fig, ax = plots.figure(9, 4.2)
    for k, (name, auroc) in enumerate(table.items()):
        at = np.arange(len(classes) + 1) + 0.12 * (k - (len(table) - 1) / 2)
        values = [*auroc, auroc.mean()]
        ax.plot(at, values, plots.MARKERS[k], color=plots.COLOURS[k], label=name, ms=6)
        ax.vlines(at, 0.5, values, color=plots.COLOURS[k], lw=1, alpha=0.5)
    ax.axhline(0.5, color="0.4", lw=0.8)
    ax.axvline(len(classes) - 0.5, color="0.7", lw=0.8)
    ax.set_xticks(range(len(classes) + 1), [*classes, "mean"])
    ax.set_xlabel("class that was left out of training")
    ax.set_ylabel("AUROC (0.5 is chance)")
    ax.set_ylim(0, 1.18)
    title = f"how often a test image of {rows[0]['data']} of the class left out scores lower than another one"
    ax.set_title(title, loc="left", fontsize=9)
    ax.grid(alpha=0.3, axis="y")
    ax.legend(fontsize=8, ncols=len(table), loc="upper center")
    fig.savefig(settings.results / "anomalies.png")
    print(f"wrote {settings.results / 'anomalies.png'}")


def main():
    """Leave each class out in turn, print the table, and write anomalies.csv and anomalies.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default), or another data set of images with labels")
    p.add_argument("--train", type=positive, default=10_000, help="training images (10,000)")
    p.add_argument("--hidden", type=positive, default=200, help="hidden units of the VAE (200)")
    p.add_argument("--passes", type=positive, default=20, help="passes over them (20)")
    p.add_argument("--draws", type=positive, default=100, help="draws for each image in log p(x) (100)")
    settings = parse(p)
    labels = load_data(settings.data).train_labels
    if labels is None:
        raise ValueError(f"{settings.data} has no labels; expected a data set with classes, one of which is left out")
    version = commit()
    calls = [(leave_out, settings, int(left_out), version) for left_out in np.unique(labels)]
    rows = [row for found in in_parallel(calls, settings.jobs, " classes") for row in found]
    table = table_of(rows)
    print(
        "AUROC of the classes " + ", ".join(str(left_out) for left_out in np.unique(labels)) + ", each left out in turn"
    )
    for name, auroc in table.items():
        print(f"{name:>15}: " + " ".join(f"{value:.3f}" for value in auroc) + f"; mean {auroc.mean():.3f}")
    write_table(settings.results / "anomalies.csv", rows)
    draw(settings, rows, table)


if __name__ == "__main__":
    command(main)
