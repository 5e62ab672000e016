"""Four estimates of log p(x) on the same images: quadrature, annealing, appendix D, importance, for two latents.

The model is one of Figure 2's kind: MNIST, N_z = 2, AEVB, Adagrad 0.01, 1e7 samples; a run of figure5.py is found
again, a missing one is trained. Quadrature, 401 x 401 points, is the truth here; importance takes 20,000 draws from
q(z|x); annealing takes 200 walks of 3,000 temperatures from the prior; appendix D fits a Gaussian, or a kernel density,
to 500 samples of the posterior and evaluates it at 500 more.
"""

import warnings

import numpy as np
from figure2 import run_of
from stages import write_table
from study import command, in_parallel, parse, parser, positive, train_all

from scratchvae import load_data, load_model, plots
from scratchvae.inference.marginal import annealed, appendix_d, importance, quadrature

ESTIMATES = {
    "quadrature": lambda model, x, n: quadrature(model, x, 401 if n > 100 else 201),
    "importance": lambda model, x, n: importance(model, x, 40 * n),
    "annealing": lambda model, x, n: annealed(model, x, 2 * n // 5, 6 * n),
    "appendix D, Gaussian": lambda model, x, n: appendix_d(model, x, n),
    "appendix D, kernel": lambda model, x, n: appendix_d(model, x, n, "kernel"),
}


def estimate(run, method, images, n):
    """What one method says about the first test images."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat is above")  # that is a column of the table
        return ESTIMATES[method](load_model(run.folder), load_data(run.data).test[:images], n)


def main():
    """Write marginal.csv, a row an image, and marginal.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=10_000_000, help="samples to train on (1e7)")
    p.add_argument("--images", type=positive, default=100, help="test images (100)")
    settings = parse(p)
    run, n = run_of(settings, settings.data, 2), max(100, int(500 * settings.scale))
    train_all([run], 1)
    calls = [(estimate, run, method, settings.images, n) for method in ESTIMATES]
    truth, *estimates = in_parallel(calls, settings.jobs, " estimates")
    names, rows = list(ESTIMATES)[1:], []
    for i, log_p in enumerate(truth):
        row = {"image": i, "quadrature": round(float(log_p), 4)}
        for name, found in zip(names, estimates, strict=True):
            row |= {f"{name} - quadrature": round(float(found.log_p[i] - log_p), 4)}
            row |= {
                f"{name}: error": round(float(found.error[i]), 4),
                f"{name}: k_hat": round(float(found.k_hat[i]), 3),
            }
        rows.append(row | {"seed": run.seed, "commit": run.commit()})
    write_table(settings.results / "marginal.csv", rows)
    fig = plots.Figure(figsize=(4 * len(names), 3.6), dpi=150, layout="constrained")
    for ax, name, found in zip(fig.subplots(1, len(names), sharey=True), names, estimates, strict=True):
        off = found.log_p - truth
        ax.errorbar(found.k_hat, off, 1.96 * found.error, fmt="o", ms=3, lw=0.8)
        ax.axhline(0, color="0.5", lw=0.8)
        ax.axvline(found.threshold(), color="0.5", lw=0.8, ls="--")
        if np.abs(off).max() > 0.2:
            ax.set_yscale("symlog", linthresh=0.1)
        ax.set_xlabel("$\\hat k$")
        sure = ~found.untrusted()
        worst = f"off by at most {np.abs(off[sure]).max():.3f}" if sure.any() else "none"
        text = (
            f"{name}\n{sure.sum()} of {len(off)} below {found.threshold():.2f}: {worst}; all: {np.abs(off).max():.2f}"
        )
        ax.set_title(text, fontsize=8)
        ax.grid(alpha=0.3)
        print(text.replace("\n", ": "))
    fig.axes[0].set_ylabel("log p(x) less quadrature (nats)")
    fig.savefig(settings.results / "marginal.png")
    print(f"wrote {settings.results / 'marginal.png'}")


if __name__ == "__main__":
    command(main)
