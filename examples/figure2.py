"""The paper's Figure 2: the bound against samples evaluated, AEVB and wake-sleep, MNIST and Frey Face, every N_z.

MNIST: 500 tanh units, grey-level pixels as Bernoulli targets, 50,000 images to train and 10,000 to validate; Frey Face:
200 units, Gaussian decoder with sigmoid means, 1,565 and 200. Weights from N(0, 0.01²), M = 100, L = 1, MAP, Adagrad
0.01: of the paper's {0.01, 0.02, 0.1} the best training bound after 200,000 samples, for both methods. On Frey Face
wake-sleep also starts from Glorot's larger weights: from small ones z has no part in its dreams. Seed 0 is drawn as a
line, and three seeds up to 1e6 samples as a band between the least bound and the greatest.

Runs are kept in --runs and gone on with: --samples takes them further. All of them take some three hours on two cores.
Without mpiexec each run has a core, which is the fastest way to many runs. `mpiexec -n 2 python examples/figure2.py`
trains one after another with both cores, which is the fastest way to one.
--reference: a CSV of other curves to draw behind ours, with columns dataset, latent, samples_evaluated, train_bound,
validation_bound.
"""

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import plots

LATENTS = {"mnist": [3, 5, 10, 20, 200], "frey": [2, 5, 10, 20], "digits": [3, 20]}
TITLES = {"mnist": "MNIST", "frey": "Frey Face", "digits": "digits"}
METHODS = {
    "AEVB": {"estimator": "B"},
    "wake-sleep": {"estimator": "wake-sleep"},
    "wake-sleep, Glorot": {"estimator": "wake-sleep", "init": "glorot"},  # of Frey Face alone
}
COLUMNS = {  # of the table, and which of them hold numbers
    "data": False, "latent": True, "method": False, "samples": True, "train bound": True, "validation bound": True,
    "reference validation bound": False, "train seconds": True, "seed": True, "commit": False,
}  # fmt: skip
REFERENCE = {"dataset": False, "latent": True, "samples_evaluated": True, "train_bound": True, "validation_bound": True}
BAND = 1_000_000  # how many samples the seeds after the first are trained on


def run_of(settings, data, latent, method="AEVB", seed=0):
    """The Run of one curve, which figure5.py and marginal.py look at too."""
    name = f"{data}{latent}-{method}".replace(", ", "-") + (f"-seed{seed}" if seed else "")
    model = METHODS[method] | {"likelihood": "gaussian" if data == "frey" else "bernoulli"}
    samples = max(2000, int((min(settings.samples, BAND) if seed else settings.samples) * settings.scale))
    folder = settings.runs / f"figure2-{settings.scale:g}" / name
    return Run(folder, data, 200 if data == "frey" else 500, latent, samples, model, seed=seed)


def runs(settings):
    """{(data, latent, method, seed): Run} of what is asked for, all those of one seed before the next."""
    names = [
        (data, n, method, seed)
        for seed in range(settings.seeds)
        for data in settings.data
        for n in settings.latent or LATENTS[data]
        for method in METHODS
    ]
    return {name: run_of(settings, *name) for name in names if name[0] == "frey" or "Glorot" not in name[2]}


def rows_of(run, data, latent, method, seed):
    """The rows of the table for one run: its bounds and the seconds of its training, at each row of its history."""
    return [
        {"data": data, "latent": latent, "method": method, "samples": int(row["samples"])}
        | {"train bound": round(float(row["train_bound"]), 3)}
        | {"validation bound": round(float(row["valid_bound"]), 3)}
        | {"reference validation bound": None}
        | {"train seconds": round(float(row["seconds"]), 1), "seed": seed, "commit": run.commit()}
        for row in run.history()
    ]


def rows_of_csv(path, columns):
    """The rows of a CSV with these columns, {name: whether it holds numbers}; a ValueError names what is wrong."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not columns.keys() <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} has the columns {', '.join(reader.fieldnames or ['none'])}; expected {', '.join(columns)}"
            )
        rows = []
        for row in reader:
            for name, is_number in columns.items():
                if row[name] is None or None in row or (is_number and not finite(row[name])):
                    raise ValueError(f"{path}, line {reader.line_num}, has {name} {row[name]!r} in {row}")
            rows.append({name: row[name] for name in columns})
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def finite(text):
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def rows_of_table(path):
    """{(data, latent, method, seed): rows} of a table that this script has written, or nothing."""
    found = defaultdict(list)
    for row in [] if path is None else rows_of_csv(path, COLUMNS):
        if row["data"] not in LATENTS or row["method"] not in METHODS:
            raise ValueError(f"{path} has a curve of {row['data']} by {row['method']}, which this script does not draw")
        found[row["data"], int(float(row["latent"])), row["method"], int(float(row["seed"]))].append(row)
    return found


def reference_curves(path):
    """{(data, latent): (samples, train bound, validation bound)} of a CSV, or nothing."""
    curves = defaultdict(list)
    for row in [] if path is None else rows_of_csv(path, REFERENCE):
        numbers = [float(row[name]) for name in ("samples_evaluated", "train_bound", "validation_bound")]
        if numbers[0] <= 0:
            raise ValueError(f"{path} has a bound after {numbers[0]:g} samples; expected more than 0, for a log axis")
        curves[row["dataset"], int(float(row["latent"]))].append(numbers)
    return {key: np.array(rows).T for key, rows in curves.items()}


def draw(ax, data, latent, curves, reference):
    """One panel: held-out bound solid, training bound dashed, the band of the seeds, the reference behind."""
    if reference is not None:
        ax.plot(reference[0], reference[2], color="0.6", lw=2.5, label="reference, AEVB, validation")
        ax.plot(reference[0], reference[1], "--", color="0.6", lw=1.5, label="reference, AEVB, training")
    seen = []
    for k, (method, seeds) in enumerate(curves.items()):
        of_seeds = [[column(rows, name) for name in ("samples", "validation bound", "train bound")] for rows in seeds]
        samples, valid, train = of_seeds[0]
        late = samples >= (1e4 if samples[-1] > 1e5 else 0)
        ax.plot(samples[late], valid[late], f"C{k}", lw=1.2, label=f"{method}, validation")
        ax.plot(samples[late], train[late], f"C{k}--", lw=1, label=f"{method}, training")
        if len(seeds) > 1:
            shared = min(len(bounds) for _, bounds, _ in of_seeds)  # the rows that every seed has
            band = np.array([bounds[:shared] for _, bounds, _ in of_seeds])[:, late[:shared]]
            across = samples[:shared][late[:shared]]
            ax.fill_between(across, band.min(axis=0), band.max(axis=0), color=f"C{k}", alpha=0.25, lw=0)
        seen.append(valid[samples >= min(5e4, samples[-1])])
    seen = np.concatenate(seen)
    margin = 0.08 * max(np.ptp(seen), 1)
    ax.set_ylim(seen.min() - margin, seen.max() + 2 * margin)
    ax.set_xscale("log")
    ax.set_xlim(1e4, None) if max(column(seeds[0], "samples")[-1] for seeds in curves.values()) > 1e5 else None
    ax.set_title(f"{TITLES[data]}, $N_z$ = {latent}", fontsize=9)
    ax.grid(alpha=0.3, which="both")


def column(rows, name):
    """One column of the rows of a run, as numbers."""
    return np.array([float(row[name]) for row in rows])


def main(ranks):
    """Train what is not trained yet; write figure2.csv and figure2.png of every run that is kept."""
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", choices=LATENTS, default=["mnist", "frey"], help="data sets (mnist frey)")
    p.add_argument("--latent", type=positive, nargs="+", help="which N_z (those of the paper)")
    p.add_argument("--samples", type=positive, default=10_000_000, help="samples to evaluate (1e7)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds, all but the first of them to 1e6 samples (3)")
    p.add_argument("--reference", type=Path, help="a CSV of other curves to draw behind (none)")
    p.add_argument(
        "--table",
        type=Path,
        help="an older figure2.csv: its curves are kept where --runs has no run, or one that is not as far (none)",
    )
    settings = parse(p)
    reference = reference_curves(settings.reference)
    found = rows_of_table(settings.table)
    wanted = runs(settings)
    train_all(list(wanted.values()), settings.jobs, ranks)
    if not ranks.first:
        return

    settings.data, settings.latent = list(LATENTS), None  # all that are there are drawn
    settings.seeds = max(settings.seeds, 3)
    for key, run in (runs(settings) | wanted).items():
        if (run.folder / "metrics.csv").exists():
            rows = rows_of(run, *key)
            if rows and (key not in found or rows[-1]["samples"] >= float(found[key][-1]["samples"])):
                found[key] = rows
    order = {name: place for place, name in enumerate([*LATENTS, *METHODS])}
    panels = defaultdict(lambda: defaultdict(list))
    for data, latent, method, seed in sorted(found, key=lambda key: (order[key[0]], key[1], order[key[2]], key[3])):
        rows = found[data, latent, method, seed]
        panels[data, latent][method].append(rows)
        theirs = reference.get((data, latent))
        for row in rows if theirs is not None else []:
            near = np.interp(np.log(float(row["samples"])), np.log(theirs[0]), theirs[2])
            row["reference validation bound"] = round(float(near), 2)
    table = [row for methods in panels.values() for seeds in methods.values() for rows in seeds for row in rows]
    write_table(settings.results / "figure2.csv", table)

    lines = [[key for key in panels if key[0] == data] for data in LATENTS]
    lines = [keys for keys in lines if keys]
    width = max(map(len, lines))
    fig = plots.Figure(figsize=(3.2 * width, 3.2 * len(lines)), dpi=150, layout="constrained")
    axes = fig.subplots(len(lines), width, squeeze=False)
    for across, keys in zip(axes, lines, strict=True):
        for ax in across[len(keys) :]:
            ax.set_axis_off()
        for ax, key in zip(across, keys, strict=False):
            draw(ax, *key, panels[key], reference.get(key))
        across[0].set_ylabel("bound (nats per datapoint)")
    labels = {line.get_label(): line for ax in fig.axes for line in ax.lines if line.get_label()[0] != "_"}
    fig.suptitle("The bound while training: seed 0, and as a band three seeds of the validation bound", fontsize=10)
    fig.legend(labels.values(), labels, loc="outside lower center", ncols=min(5, int(1.4 * width)), fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("training samples evaluated")
    fig.savefig(settings.results / "figure2.png")
    print(f"wrote {settings.results / 'figure2.png'}")


if __name__ == "__main__":
    command(main)
