"""EM for the VAE: an E-step on φ and an M-step on θ in turn, against both at once.

EM maximises the bound over q with θ held, then over θ with q held. With q in an encoder neither maximum is at hand, and
either step becomes a step of the gradient: on each minibatch φ first, and then, with fresh noise and its gradient taken
anew, θ (`schedule="alternating"`). "joint" ascends both with the one gradient, which is Algorithm 1. 784-500-20 on
grey-level MNIST, L^B, MAP, M = 100, L = 1, three seeds: Adagrad 0.01 from N(0, 0.01²), as in the paper, and Adam 0.001
from Glorot's weights. An update of (φ, θ) takes two evaluations when alternating, one when joint: so the joint runs are
as long in evaluations, and twice as long in updates. Runs are kept in --runs.
"""

from dataclasses import dataclass

from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adagrad, Adam, evaluate, fit, load_data, load_model, plots

SETTINGS = {"Adagrad 0.01": (Adagrad(0.01), 0.01), "Adam 0.001": (Adam(0.001), "glorot")}


@dataclass(frozen=True)
class Scheduled(Run):
    """A Run with a schedule of updates."""

    schedule: str = "joint"

    def fit(self, model, train, held_out, **settings):
        """As Run's, by the schedule."""
        return fit(model, train, held_out, schedule=self.schedule, **settings)


def main():
    """Train what is missing; write em.csv and em.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=1_000_000, help="evaluations of the bound (1,000,000)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    samples = max(1000, int(settings.samples * settings.scale))
    folder = settings.runs / f"em-{settings.data}-{settings.scale:g}"
    runs = {}
    for name, (optimizer, init) in SETTINGS.items():
        for schedule in ("joint", "alternating"):
            for seed in range(settings.seeds):
                where = folder / f"{name.replace(' ', '-')}-{schedule}-{seed}"
                common = {"optimizer": optimizer, "n_held_out": 2000, "seed": seed, "schedule": schedule}
                runs[name, schedule, seed] = Scheduled(where, settings.data, 500, 20, samples, {"init": init}, **common)
    train_all(list(runs.values()), settings.jobs)

    fig, rows = plots.Figure(figsize=(11, 4), dpi=150, layout="constrained"), []
    axes = fig.subplots(1, 2, sharey=True)
    for (name, schedule, seed), run in runs.items():
        history, evaluations = run.history(), 2 if schedule == "alternating" else 1
        result = evaluate(load_model(run.folder), load_data(run.data).test)
        rows.append({"optimizer": name, "schedule": schedule, "seed": seed, "evaluations": int(history["samples"][-1])})
        rows[-1] |= {"updates": int(history["step"][-1]), "test_bound": round(result["bound"], 2)}
        half = abs(history["step"] - history["step"][-1] // (3 - evaluations)).argmin()
        rows[-1] |= {"valid_bound": round(float(history["valid_bound"][-1]), 2)}
        rows[-1] |= {"valid_bound_at_equal_updates": round(float(history["valid_bound"][half]), 2)}
        rows[-1] |= {"seconds": round(float(history["seconds"][-1])), "commit": run.commit()}
        style = "-" if schedule == "joint" else "--"
        label = f"{name}, {schedule}" if seed == 0 else None
        for ax, x in zip(axes, (history["samples"], history["step"]), strict=True):
            ax.plot(x, history["valid_bound"], style, color=f"C{list(SETTINGS).index(name)}", lw=1, label=label)
    for ax, text in zip(axes, ("evaluations of the bound", "updates of (φ, θ)"), strict=True):
        ax.set_xscale("log")
        ax.set_xlabel(text)
        ax.grid(alpha=0.3)
        ax.set_ylim(min(row["test_bound"] for row in rows) - 60, max(row["test_bound"] for row in rows) + 5)
    for ax, column in zip(axes, ("samples", "step"), strict=True):  # before that nothing is in sight
        ax.set_xlim(min(run.history()[column][-1] for run in runs.values()) / 300)
    axes[0].set_ylabel("validation bound (nats per datapoint)")
    axes[0].legend(fontsize=8, loc="upper left")
    write_table(settings.results / "em.csv", rows)
    fig.savefig(settings.results / "em.png")
    print(f"wrote {settings.results / 'em.png'}")


if __name__ == "__main__":
    command(main)
