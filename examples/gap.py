"""The gap between log p(x) and the bound, taken apart: how much of it is the family of q, and how much the encoder.

Four models of MNIST with 20 latents, 784-500-20, tanh, Glorot, Adam 0.001, M = 100: a VAE, one whose q has full
covariance, one with a flow of ten planar maps, and one trained with the importance-weighted bound of 5 draws. For each
of the first test images q is optimised by itself, in the family of the model and in the two others, with the decoder as
it is. log p(x) is that of annealed importance sampling, 16 walks of 1,000 temperatures.

    approximation gap   log p(x) - L[q*]   what the family costs
    amortisation gap    L[q*] - L[q]       what it costs that one encoder serves all images

L[q] and L[q*] are the bound (7) of one draw, also for the importance-weighted model, with 1,000 draws for each image.
Runs are kept in --runs and gone on with.
"""

import warnings

from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import Adam, load_data, load_model, plots
from scratchvae.inference.marginal import annealed
from scratchvae.training.per_image import gap

MODELS = {
    "VAE": {},
    "full covariance": {"posterior": "full"},
    "flow": {"flow": 10},
    "IWAE": {"estimator": "iwae", "n_samples": 5},
}
FAMILIES = {  # of q*
    "diagonal": {"posterior": "gaussian", "flow": 0},
    "full covariance": {"posterior": "full", "flow": 0},
    "flow": {"posterior": "gaussian", "flow": 10},
}
OWN = {"VAE": "diagonal", "full covariance": "full covariance", "flow": "flow", "IWAE": "diagonal"}


def run_of(settings, name):
    """The Run of one model."""
    folder = settings.runs / f"gap-{settings.data}-{settings.scale:g}-{settings.latent}" / name.replace(" ", "-")
    model = {"init": "glorot", **MODELS[name]}
    samples = max(1000, int(settings.samples * settings.scale))
    return Run(folder, settings.data, 500, settings.latent, samples, model, optimizer=Adam(0.001), n_held_out=2000)


def evidence(run, images, temperatures):
    """log p(x) of the first test images by annealing, as an Estimate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat is above")
        return annealed(load_model(run.folder), load_data(run.data).test[:images], 16, temperatures)


def apart(run, images, log_p, own, family, steps):
    """The Gap of the first test images with q* of this family, which begins at the encoder's q where it is its own."""
    settings = {} if own else FAMILIES[family]
    return gap(load_model(run.folder), load_data(run.data).test[:images], log_p, steps=steps, **settings)


def draw(rows, path):
    """gap.png: a bar for each model and family, of its approximation gap and, where q is the model's own, the rest."""
    fig, ax = plots.figure(9, 4)
    width = 0.27
    for k, name in enumerate(MODELS):
        for j, family in enumerate(FAMILIES):
            row = next(row for row in rows if (row["model"], row["family of q*"]) == (name, family))
            at = k + (j - 1) * width
            label = f"approximation gap of the best {family} q" if k == 0 else None
            ax.bar(at, row["approximation gap"], width * 0.9, color=f"C{j}", label=label)
            if family == OWN[name]:
                label = "amortisation gap: the encoder's q" if k == 0 else None
                bottom = row["approximation gap"]
                ax.bar(at, row["amortisation gap"], width * 0.9, bottom=bottom, color="0.75", label=label, hatch="//")
                ax.annotate("own", (at, bottom + row["amortisation gap"]), ha="center", va="bottom", fontsize=7)
    ax.set_xticks(range(len(MODELS)), MODELS)
    ax.set_ylabel("log p(x) less the bound\n(nats per image)")
    ax.set_title(f"the gap, taken apart, on {rows[0]['images']} test images", loc="left", fontsize=9)
    ax.grid(alpha=0.3, axis="y")
    ax.legend(fontsize=7)
    fig.savefig(path)
    print(f"wrote {path}")


def main():
    """Train what is missing; print and write gap.csv, and gap.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=1_000_000, help="samples to evaluate (1,000,000)")
    p.add_argument("--latent", type=positive, default=20, help="latent dimensions (20)")
    p.add_argument("--images", type=positive, default=100, help="test images (100)")
    settings = parse(p)
    images = settings.images
    temperatures = max(20, int(1000 * settings.scale))
    steps = max(50, int(2000 * settings.scale))
    runs = {name: run_of(settings, name) for name in MODELS}
    train_all(list(runs.values()), settings.jobs)
    calls = [(evidence, run, images, temperatures) for run in runs.values()]
    found = dict(zip(runs, in_parallel(calls, settings.jobs, " estimates"), strict=True))
    pairs = [(name, family) for name in MODELS for family in FAMILIES]
    calls = [(apart, runs[n], images, found[n].log_p, OWN[n] == family, family, steps) for n, family in pairs]
    rows = []
    for (name, family), gaps in zip(pairs, in_parallel(calls, settings.jobs, " gaps"), strict=True):
        own = OWN[name] == family
        both = {"approximation gap": gaps.approximation(), "amortisation gap": gaps.amortisation()}
        row = {"model": name, "family of q*": family, "own": "yes" if own else "no"}
        row |= {"log_p": round(float(found[name].mean()[0]), 3), "log_p_error": round(found[name].mean()[1], 3)}
        row |= {"bound": round(float(gaps.amortised.mean()), 3), "bound of q*": round(float(gaps.optimal.mean()), 3)}
        for title, values in both.items():
            row |= {title: round(float(values.mean()), 3)}
            row |= {f"{title}: sd over images": round(float(values.std(ddof=1)), 3)}
        rows.append(row | {"images": images, "samples": runs[name].samples, "commit": runs[name].commit()})
        print(
            f"{name:16} q* {family:16} log p {row['log_p']:9.2f}, bound {row['bound']:9.2f}, approximation "
            f"{row['approximation gap']:6.2f}, amortisation {row['amortisation gap']:6.2f}{' (own)' if own else ''}"
        )
    write_table(settings.results / "gap.csv", rows)
    draw(rows, settings.results / "gap.png")


if __name__ == "__main__":
    command(main)
