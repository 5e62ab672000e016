"""When all latents die: two settings in which q(z|x) becomes the prior for every image, and what helps there.

Three hidden layers of 200 units on the digits, 20 latents, L^B, M = 100, 100,000 samples, seeds 0 to 2. In "small
weights" the weights begin at N(0, 0.01²), with Adagrad 0.01, as in the paper, whose model has one hidden layer: behind
three of them z hardly moves x. In "large steps" they begin at Glorot's, with Adam 0.01. Four remedies are tried in
each: Glorot's weights, a tenth of the stepsize, a KL whose weight rises during the first half of the training, and free
bits of 0.1 nats for each latent. A latent is active if the variance of E_q[z_j] over the validation images is above
0.01.

Runs are kept in --runs and gone on with.
"""

import textwrap
from dataclasses import dataclass

import numpy as np
from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adagrad, Adam, fit, load_data, load_model, plots
from scratchvae.inference.information import information

CASES = {"small weights": (0.01, Adagrad, 0.01), "large steps": ("glorot", Adam, 0.01)}
REMEDIES = ("none", "Glorot's weights", "a tenth of the stepsize", "KL warm-up", "free bits")


@dataclass(frozen=True)
class Warmed(Run):
    """A Run in which the weight of the KL rises at the beginning."""

    kl_warmup: int | None = None

    def fit(self, model, train, held_out, **settings):
        """As Run's, with the warm-up."""
        return fit(model, train, held_out, kl_warmup=self.kl_warmup, **settings)


def run_of(settings, case, remedy, seed):
    """The Run of one setting, one remedy and one seed."""
    folder = settings.runs / f"collapse-{settings.data}-{settings.scale:g}"
    name = f"{case} {remedy} {seed}".replace(" ", "-").replace("'", "")
    init, kind, lr = CASES[case]
    samples = max(1000, int(settings.samples * settings.scale))
    model = {"init": "glorot" if remedy == REMEDIES[1] else init}
    model |= {"free_bits": 0.1} if remedy == "free bits" else {}
    optimizer = kind(lr / 10 if remedy == REMEDIES[2] else lr)
    warmup = samples // 2 if remedy == "KL warm-up" else None
    hidden = (200, 200, 200)
    return Warmed(
        folder / name, settings.data, hidden, 20, samples, model, optimizer=optimizer, seed=seed, kl_warmup=warmup
    )


def result(run, case, remedy):
    """A row of the table."""
    use = information(load_model(run.folder), load_data(run.data).valid)
    last = run.history()[-1]
    return {
        "data": run.data,
        "case": case,
        "remedy": remedy,
        "seed": run.seed,
        "samples": int(last["samples"]),
        "active": use.active,
        "rate": round(float(last["rate"]), 3),
        "mutual information": round(use.mutual_information, 3),
        "bound": round(float(last["valid_bound"]), 2),
        "train_seconds": round(float(last["seconds"]), 1),
        "commit": run.commit(),
    }


def draw(settings, rows):
    """collapse.png: the validation bound of every run, by remedy, with the number of active latents, or a cross."""
    fig = plots.Figure(figsize=(10, 4), dpi=150, layout="constrained")
    for ax, case in zip(fig.subplots(1, len(CASES), sharey=True), CASES, strict=True):
        for place, remedy in enumerate(REMEDIES):
            mine = [row for row in rows if (row["case"], row["remedy"]) == (case, remedy)]
            for k, row in enumerate(mine):
                x = place + 0.2 * (k - (len(mine) - 1) / 2)
                ax.plot([x], [row["bound"]], "C0o" if row["active"] else "C3x", ms=5)
                if row["active"]:
                    ax.annotate(f"{row['active']}", (x, row["bound"]), (0, 5), textcoords="offset points", fontsize=7)
        ax.set_xticks(np.arange(len(REMEDIES)), [textwrap.fill(remedy, 12) for remedy in REMEDIES], fontsize=7)
        ax.set_title(f"{case}: × no latent is active, else how many are", fontsize=9)
        ax.grid(alpha=0.3)
    fig.axes[0].set_ylabel("validation bound (nats per image)")
    fig.savefig(settings.results / "collapse.png")


def main():
    """Train what is not trained yet, print the table, and write collapse.csv and collapse.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="digits", help="digits (default) or another data set of images")
    p.add_argument("--samples", type=positive, default=100_000, help="samples to evaluate (1e5)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds (3)")
    settings = parse(p)
    keys = [(case, remedy, seed) for case in CASES for remedy in REMEDIES for seed in range(settings.seeds)]
    runs = {key: run_of(settings, *key) for key in keys}
    train_all(list(runs.values()), settings.jobs)
    rows = [result(run, case, remedy) for (case, remedy, _), run in runs.items()]
    for case in CASES:
        for remedy in REMEDIES:
            mine = [row for row in rows if (row["case"], row["remedy"]) == (case, remedy)]
            active = ", ".join(str(row["active"]) for row in mine)
            bounds = ", ".join(f"{row['bound']:.2f}" for row in mine)
            print(f"{case}, {remedy}: {active} latents active, bound {bounds}")
    write_table(settings.results / "collapse.csv", rows)
    draw(settings, rows)
    print(f"wrote {settings.results / 'collapse.png'}")


if __name__ == "__main__":
    command(main)
