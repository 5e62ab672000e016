"""Section 2 without a recognition network: q(θ) of two Bayesian regressions by SGVB, L^1 against L^2, families of q.

Logistic regression of scikit-learn's breast cancer data (285 of 569 to train on, 30 columns and a constant, p(θ) =
N(0, I), minibatches of 100), and linear regression of its diabetes data (442, 10 columns, noise 0.7, p(θ) = N(0, I),
all rows), whose evidence and posterior are known. Columns are standardised. 20,000 steps with one draw of θ each, Adam
from 0.02 down to 0, the same noise for all Gaussians. At the end 20,000 estimates with all rows and one draw each give
the bound of the table, and what one of them varies by: the sd of its value, the variance of its gradient, summed.
"""

import time

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from stages import write_table
from study import command, in_parallel, parse, parser

from scratchvae import Adam, plots
from scratchvae.bench import commit
from scratchvae.inference.posterior_sgvb import sgvb_1, sgvb_2
from scratchvae.inference.reparameterise import gaussian, laplace, logistic, student_t
from scratchvae.models.regression import LinearRegression, LogisticRegression
from scratchvae.training.posterior import fit_posterior

ESTIMATORS = {"L^1": sgvb_1, "L^2": sgvb_2}
FAMILIES = {"Gaussian": gaussian, "Laplace": laplace, "logistic": logistic, "Student t (ν = 5)": student_t(5)}
FITS = {
    "logistic": [("Gaussian", "L^2"), *((name, "L^1") for name in FAMILIES)],
    "linear": [("Gaussian", "L^2"), ("Gaussian", "L^1"), ("Laplace", "L^1")],
}


def standardised(x, of=slice(None)):
    """Columns of mean 0 and variance 1 over the rows `of`."""
    return (x - x[of].mean(axis=0)) / x[of].std(axis=0)


def breast_cancer():
    """The regression, and held-out x and y."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    x = np.c_[standardised(x, slice(285)), np.ones(len(x))]  # by the rows that are fitted
    return LogisticRegression(x[:285], y[:285]), x[285:], y[285:]


def diabetes():
    """The regression."""
    x, y = load_diabetes(return_X_y=True)
    return LinearRegression(standardised(x), standardised(y), noise=0.7)


def fit(task, family, estimator, steps, draws):
    """A fit: φ, the bounds of its steps, and its row of the table."""
    model, *held_out = breast_cancer() if task == "logistic" else (diabetes(),)
    q, bound, begun = FAMILIES[family], ESTIMATORS[estimator], time.perf_counter()
    batch_size = 100 if task == "logistic" else None
    phi, bounds = fit_posterior(
        model, q, estimator=bound, optimizer=Adam(0.02), steps=steps, batch_size=batch_size, progress=False
    )
    seconds, generator = time.perf_counter() - begun, np.random.default_rng(1)
    noise = (q.noise(generator, (1, model.n_parameters)) for _ in range(draws))
    final, gradients = map(np.array, zip(*(bound(model, q, phi, eps) for eps in noise), strict=True))
    row = {"regression": task, "q": family, "estimator": estimator, "steps": steps}
    row |= {"bound": round(final.mean(), 3), "its error": round(final.std() / np.sqrt(draws), 3)}
    row |= {"sd of one draw": round(final.std(), 3), "gradient variance": f"{gradients.var(axis=0).sum():.4g}"}
    row |= dict.fromkeys(("held-out accuracy", "held-out log predictive"), "")
    row |= dict.fromkeys(("log evidence", "best diagonal bound", "largest |Δμ|/σ", "largest |Δ log σ|"), "")
    if task == "logistic":
        x, y = held_out
        p = (1 / (1 + np.exp(-q.draw(q.noise(generator, (draws, x.shape[1])), phi)[0] @ x.T))).mean(
            axis=0
        )  # E_q p(y|x)
        row["held-out accuracy"] = round(((p > 0.5) == y).mean(), 4)
        row["held-out log predictive"] = round(np.log(np.where(y, p, 1 - p)).mean(), 4)
    else:
        m, log_sigma, gap = best_diagonal(model)
        row["log evidence"] = round(model.log_evidence(), 3)
        row["best diagonal bound"] = round(model.log_evidence() - gap, 3)
        if family == "Gaussian":
            row["largest |Δμ|/σ"] = round(np.abs((phi[0] - m) / np.exp(log_sigma)).max(), 3)
            row["largest |Δ log σ|"] = round(np.abs(phi[1] - log_sigma).max(), 3)
    return phi, bounds, row | {"seconds": round(seconds, 1), "seed": 0, "commit": commit()}


def best_diagonal(model):
    """Mean and log σ of the best diagonal Gaussian, variances 1/Λ_ii, and ½ (Σ ln Λ_ii - ln|Λ|), its gap."""
    m, precision = model.posterior()
    log_diagonal = np.log(np.diag(precision))
    return m, -0.5 * log_diagonal, 0.5 * (log_diagonal.sum() - np.linalg.slogdet(precision)[1])


def draw_bounds(ax, found, title):
    """The bound against steps, the mean of those since the point before."""
    steps = len(found[0][1])
    edges = np.unique(np.geomspace(1, steps + 1, 60).astype(int)) - 1
    for _, bounds, row in found:
        means = np.add.reduceat(bounds, edges[:-1]) / np.diff(edges)
        label = f"{row['q']}, ${row['estimator']}$: {row['bound']:.2f}"
        ax.plot(edges[1:], means, "--" if row["estimator"] == "L^2" else "-", lw=1.2, label=label)
    top = max(row["bound"] for *_, row in found)
    ax.set_ylim(top - 30, top + 6)
    ax.set_xlim(steps / 300, 1.3 * steps)
    ax.set_xscale("log")
    ax.set_xlabel("steps")
    ax.set_title(title, fontsize=9)
    ax.grid(alpha=0.3)


def main():
    """Write regression.csv and regression.png."""
    settings = parse(parser(__doc__))
    steps, draws = max(100, int(20_000 * settings.scale)), max(100, int(20_000 * settings.scale))
    calls = [(fit, task, *which, steps, draws) for task, fits in FITS.items() for which in fits]
    found = in_parallel(calls, settings.jobs, " fits")
    write_table(settings.results / "regression.csv", [row for *_, row in found])
    n, fig = len(FITS["logistic"]), plots.Figure(figsize=(13, 4), dpi=150, layout="constrained")
    left, middle, right = fig.subplots(1, 3)
    draw_bounds(left, found[:n], "logistic regression, breast cancer")
    left.set_ylabel("bound (nats, of all the data)")
    left.legend(loc="lower right", fontsize=8)
    model = diabetes()
    _, log_sigma, gap = best_diagonal(model)
    draw_bounds(middle, found[n:], "linear regression, diabetes")
    evidence = model.log_evidence()
    middle.axhline(evidence, color="k", lw=0.8, label=f"log evidence: {evidence:.2f}")
    middle.axhline(evidence - gap, color="k", lw=0.8, ls=":", label=f"best diagonal q: {evidence - gap:.2f}")
    middle.legend(loc="lower right", fontsize=8)
    at = np.arange(model.n_parameters)
    exact = np.sqrt(np.diag(np.linalg.inv(model.posterior()[1])))
    right.bar(at, exact, color="0.85", label="posterior")
    right.bar(at, np.exp(log_sigma), color="0.6", label="best diagonal, $\\Lambda_{ii}^{-1/2}$")
    for (phi, _, row), marker in zip(found[n:-1], "x+", strict=True):
        right.plot(at, np.exp(phi[1]), marker, ms=7, label=f"q by ${row['estimator']}$")
    right.set_xticks(at, load_diabetes().feature_names)
    right.set_title("linear regression: sd of each θ", fontsize=9)
    right.legend(loc="upper left", fontsize=8)
    fig.savefig(settings.results / "regression.png")
    print(f"wrote {settings.results / 'regression.png'}")


if __name__ == "__main__":
    command(main)
