"""Mean field by coordinate ascent: what it gets wrong of a correlated Gaussian, and a mixture that empties itself.

Left, a Gaussian of correlation 0.9 and its q. Middle, a Bayesian mixture of ten Gaussians fitted to scikit-learn's
digits 0, 1 and 6 in the two latents of probabilistic PCA, the best of 20 seeds: the components that the data do not
need fall back to their prior. Right, the bound of every seed, sweep by sweep. Some seconds in all.
"""

import warnings

import numpy as np
from stages import write_table
from study import command, parse, parser, positive

from scratchvae import load_data, plots
from scratchvae.bench import commit
from scratchvae.inference.mean_field import CorrelatedGaussian, MixtureOfGaussians
from scratchvae.models.factor_analysis import PPCA

DIGITS = (0, 1, 6)
PALETTE = np.array([(31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (140, 86, 75)]) / 255


def gaussian(ax, rho=0.9, start=(2.2, -1.2)):
    """The target, q, and the way of its mean, one coordinate at a time; the row of the table."""
    covariance = np.array([[1, rho], [rho, 1]])
    precision = np.linalg.inv(covariance)
    q = CorrelatedGaussian().fit(np.zeros(2), precision, start)
    way = [start]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sweeps on the way have not converged
        for sweeps in range(1, 15):
            mean = CorrelatedGaussian(max_iter=sweeps).fit(np.zeros(2), precision, start).mean_
            way += [(mean[0], way[-1][1]), tuple(mean)]
    ax.plot(*zip(*way, strict=True), "-", color="0.5", lw=0.8, label="mean of q, by coordinates")
    ax.plot(*start, "o", color="0.5", ms=3)
    for sd in (1, 2):
        (p,) = plots.ellipses(ax, [np.zeros(2)], [covariance], sd, color="C0")
        (factors,) = plots.ellipses(ax, [q.mean_], [np.diag(q.var_)], sd, color="C3")
    p.set_label("p, 1 and 2 sd")
    factors.set_label(f"q, variances {q.var_[0]:.2f} for 1")
    ax.set(xlabel="$z_1$", ylabel="$z_2$", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
    ax.set_title(f"correlation {rho:g}: KL(q ‖ p) = {-q.bound_[-1]:.4f} nats", fontsize=9)
    ax.legend(fontsize=7, loc="upper left", frameon=False)
    return row(f"Gaussian, correlation {rho:g}", 2, "", q, 2)


def used(model):
    """Which components hold a datapoint or more."""
    return model.responsibilities_.sum(axis=0) >= 1


def row(name, components, seed, model, in_use):
    """A line of the table; bounds in nats, summed over the datapoints."""
    return {
        "model": name,
        "components": components,
        "seed": seed,
        "in use": in_use,
        "sweeps": len(model.bound_),
        "bound after one": round(float(model.bound_[0]), 4),
        "bound": round(float(model.bound_[-1]), 4),
        "commit": commit(),
    }


def main():
    """Write mean_field.csv, a row a fit, and mean_field.png."""
    p = parser(__doc__)
    p.add_argument("--components", type=positive, default=10, help="components to begin with (10)")
    p.add_argument("--seeds", type=positive, default=20, help="beginnings (20)")
    settings = parse(p)
    data, seeds, K = load_data("digits"), max(2, int(settings.seeds * settings.scale)), settings.components
    chosen = np.isin(data.train_labels, DIGITS)
    pixels = data.train[chosen] / 255
    z = PPCA(2).fit(pixels).transform(pixels)
    fig = plots.Figure(figsize=(13, 4.2), dpi=150, layout="constrained")
    left, middle, right = fig.subplots(1, 3)
    rows, fits = [gaussian(left)], []
    for seed in range(seeds):
        fits.append(MixtureOfGaussians(K).fit(z, seed=seed))
        rows.append(row("mixture of Gaussians", K, seed, fits[-1], int(used(fits[-1]).sum())))
    write_table(settings.results / "mean_field.csv", rows)
    best = max(fits, key=lambda model: model.bound_[-1])
    full = np.flatnonzero(used(best))
    full = full[np.argsort(-best.weights_[full])]

    palette = PALETTE[np.arange(K) % len(PALETTE)]
    shade = best.responsibilities_[:, full] @ palette[: len(full)]
    for digit in DIGITS:
        mine = data.train_labels[chosen] == digit
        middle.scatter(*z[mine].T, c=np.minimum(shade[mine], 1), s=24, marker=f"${digit}$", lw=0.2)
    for colour, k in zip(palette, full, strict=False):
        plots.ellipses(middle, best.means_[[k]], best.covariances_[[k]], color=colour, lw=1.5)
    empty = np.setdiff1d(np.arange(K), full)
    dashed = plots.ellipses(middle, best.means_[empty], best.covariances_[empty], color="0.6", ls="--", lw=0.8)
    if dashed:
        middle.legend(dashed[:1], [f"{len(dashed)} empty ones: the prior"], fontsize=7, loc="lower left", frameon=False)
    middle.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    middle.set_title(f"digits 0, 1, 6: {len(full)} of {K} components in use, 2 sd", fontsize=9)

    for model in fits:
        style = {"color": "C3", "lw": 1.8, "zorder": 3} if model is best else {"color": "0.6", "lw": 0.8}
        right.plot(np.arange(1, len(model.bound_) + 1), model.bound_ / len(z), **style)
    right.set(xscale="log", xlabel="sweeps", ylabel="bound (nats per datapoint)")
    right.set_title(f"{seeds} seeds; red: the one beside, {best.bound_[-1] / len(z):.3f}", fontsize=9)
    right.grid(alpha=0.3)
    fig.savefig(settings.results / "mean_field.png")
    print(f"wrote {settings.results / 'mean_field.png'}")


if __name__ == "__main__":
    command(main)
