"""The paper's Figure 2: the bound against samples evaluated, AEVB and wake-sleep, MNIST and Frey Face, every N_z.

MNIST: 500 tanh units, grey-level pixels as Bernoulli targets, 50,000 images to train and 10,000 to validate; Frey Face:
200 units, Gaussian decoder with sigmoid means, 1,565 and 200. Weights from N(0, 0.01²), M = 100, L = 1, MAP, Adagrad
0.01: of the paper's {0.01, 0.02, 0.1} the best training bound after 200,000 samples, for both methods. On Frey Face
wake-sleep also starts from Glorot's larger weights: from small ones z has no part in its dreams. Runs are kept in
--runs and gone on with: --samples takes them further. All of them to 1e7 take some three hours on two cores.
--reference: a CSV of other curves to draw behind ours, with columns dataset, latent, samples_evaluated, train_bound,
validation_bound.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import plots

LATENTS = {"mnist": [3, 5, 10, 20, 200], "frey": [2, 5, 10, 20], "digits": [3, 20]}
METHODS = {
    "AEVB": {"estimator": "B"},
    "wake-sleep": {"estimator": "wake-sleep"},
    "wake-sleep, Glorot": {"estimator": "wake-sleep", "init": "glorot"},  # of Frey Face alone
}


def run_of(settings, data, latent, method="AEVB"):
    """The Run of one curve, which figure5.py and marginal.py look at too."""
    folder = settings.runs / f"figure2-{settings.scale:g}" / f"{data}{latent}-{method}".replace(", ", "-")
    model = METHODS[method] | {"likelihood": "gaussian" if data == "frey" else "bernoulli"}
    samples = max(2000, int(settings.samples * settings.scale))
    return Run(folder, data, 200 if data == "frey" else 500, latent, samples, model)


def runs(settings):
    """{(data, latent, method): Run} of what is asked for."""
    names = [(data, n, m) for data in settings.data for n in settings.latent or LATENTS[data] for m in METHODS]
    return {name: run_of(settings, *name) for name in names if name[0] == "frey" or "Glorot" not in name[2]}


def reference_curves(path):
    """{(data, latent): (samples, train bound, validation bound)} of a CSV, or nothing."""
    curves = defaultdict(list)
    if path is not None:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if not {"dataset", "latent", "samples_evaluated", "train_bound", "validation_bound"} <= row.keys():
                    raise ValueError(f"{path} has columns {', '.join(map(str, row))}; see --help for those expected")
                numbers = [float(row[key]) for key in ("samples_evaluated", "train_bound", "validation_bound")]
                curves[row["dataset"], int(row["latent"])].append(numbers)
    return {key: np.array(rows).T for key, rows in curves.items()}


def draw(ax, data, latent, histories, reference):
    """One panel: held-out bound solid, training bound dashed, the reference behind."""
    if reference is not None:
        ax.plot(reference[0], reference[2], color="0.6", lw=2.5, label="reference, AEVB, validation")
        ax.plot(reference[0], reference[1], "--", color="0.6", lw=1.5, label="reference, AEVB, training")
    for k, (method, history) in enumerate(histories.items()):
        late = history[history["samples"] >= (1e4 if history["samples"][-1] > 1e5 else 0)]
        ax.plot(late["samples"], late["valid_bound"], f"C{k}", lw=1.2, label=f"{method}, validation")
        ax.plot(late["samples"], late["train_bound"], f"C{k}--", lw=1, label=f"{method}, training")
    ours = np.concatenate([h["valid_bound"][h["samples"] >= min(5e4, h["samples"][-1])] for h in histories.values()])
    margin = 0.08 * max(np.ptp(ours), 1)
    ax.set_ylim(ours.min() - margin, ours.max() + 2 * margin)
    ax.set_xscale("log")
    ax.set_xlim(1e4, None) if max(h["samples"][-1] for h in histories.values()) > 1e5 else None
    ax.set_title(f"{data}, $N_z$ = {latent}", fontsize=9)
    ax.grid(alpha=0.3, which="both")


def main():
    """Train what is not trained yet; write figure2.csv and figure2.png of every run that is kept."""
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", choices=LATENTS, default=["mnist", "frey"], help="data sets (mnist frey)")
    p.add_argument("--latent", type=positive, nargs="+", help="which N_z (those of the paper)")
    p.add_argument("--samples", type=positive, default=10_000_000, help="samples to evaluate (1e7)")
    p.add_argument("--reference", type=Path, help="a CSV of other curves to draw behind (none)")
    settings = parse(p)
    reference = reference_curves(settings.reference)
    wanted = runs(settings)
    train_all(list(wanted.values()), settings.jobs)

    settings.data, settings.latent = list(LATENTS), None  # all that are there are drawn
    found = sorted((runs(settings) | wanted).items(), key=lambda item: (list(LATENTS).index(item[0][0]), item[0][1]))
    kept = {key: run for key, run in found if (run.folder / "metrics.csv").exists()}
    rows, panels = [], defaultdict(lambda: defaultdict(dict))
    for (data, latent, method), run in kept.items():
        panels[data][latent][method] = run.history()
        theirs = reference.get((data, latent))
        for row in run.history():
            near = None if theirs is None else np.interp(np.log(row["samples"]), np.log(theirs[0]), theirs[2])
            rows.append(
                {"data": data, "latent": latent, "method": method, "samples": int(row["samples"])}
                | {"train bound": round(float(row["train_bound"]), 3)}
                | {"validation bound": round(float(row["valid_bound"]), 3)}
                | {"reference validation bound": None if near is None else round(float(near), 2)}
                | {"train seconds": round(float(row["seconds"]), 1), "seed": run.seed, "commit": run.commit()}
            )
    write_table(settings.results / "figure2.csv", rows)
    width = max(len(latents) for latents in panels.values())
    fig = plots.Figure(figsize=(3.2 * width, 3.2 * len(panels)), dpi=150, layout="constrained")
    axes = fig.subplots(len(panels), width, squeeze=False)
    for line, (data, latents) in zip(axes, panels.items(), strict=True):
        for ax in line[len(latents) :]:
            ax.set_axis_off()
        for ax, (latent, histories) in zip(line, latents.items(), strict=False):
            draw(ax, data, latent, histories, reference.get((data, latent)))
        line[0].set_ylabel("bound (nats per datapoint)")
    lines = {line.get_label(): line for ax in fig.axes for line in ax.lines if line.get_label()[0] != "_"}
    fig.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines) // 2 + 1, fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("training samples evaluated")
    fig.savefig(settings.results / "figure2.png")
    print(f"wrote {settings.results / 'figure2.png'}")


if __name__ == "__main__":
    command(main)
