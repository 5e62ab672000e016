"""Three estimates of log p(x) on the same images: quadrature, appendix D, importance, for two latent dimensions.

The model is that of Figure 4: MNIST, N_z = 2, AEVB, 1e7 samples; a run of figure2.py or figure4.py is found again, a
missing one is trained. Quadrature, 401 x 401 points, is exact; importance takes 20,000 draws from q(z|x); appendix D
fits a Gaussian, or a kernel density, to 500 samples of the posterior and evaluates it at 500 more.
"""

import warnings

import numpy as np
from figure2 import run_of
from stages import write_table
from study import in_parallel, parse, parser, train_all

from scratchvae import load_data, load_model, plots
from scratchvae.inference.marginal import appendix_d, importance, quadrature

ESTIMATES = {
    "quadrature": lambda model, x, n: quadrature(model, x, 401 if n > 100 else 101),
    "importance": lambda model, x, n: importance(model, x, 40 * n),
    "appendix D, Gaussian": lambda model, x, n: appendix_d(model, x, n),
    "appendix D, kernel": lambda model, x, n: appendix_d(model, x, n, "kernel"),
}


def estimate(run, method, images, n):
    """What one method says about the first test images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k_hat is a column of the table
        return ESTIMATES[method](load_model(run.folder), load_data(run.data).test[:images], n)


def main():
    """Write marginal.csv, a row an image, and marginal.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=float, default=1e7, help="samples to train on (1e7)")
    p.add_argument("--images", type=int, default=100, help="test images (100)")
    settings = parse(p)
    run, n = run_of(settings, settings.data, 2), max(20, int(500 * settings.scale))
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
        ax.axvline(0.7, color="0.5", lw=0.8, ls="--")
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_xlabel("$\\hat k$")
        sure = found.k_hat < 0.7
        worst = np.abs(off[sure]).max() if sure.any() else np.nan
        ax.set_title(f"{name}: {sure.sum()} of {len(off)} below 0.7, off by ≤ {worst:.3f}", fontsize=8)
        ax.grid(alpha=0.3)
        print(ax.get_title())
    fig.axes[0].set_ylabel("log p(x) less quadrature (nats)")
    fig.savefig(settings.results / "marginal.png")
    print(f"wrote {settings.results / 'marginal.png'}")


if __name__ == "__main__":
    main()
