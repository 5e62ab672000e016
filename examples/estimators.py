"""L^A (6) against L^B (7), all else equal; depth, activations, and the plain autoencoder.

784-200-10-200-784 on MNIST, tanh, Glorot, Adagrad 0.02, MAP, L = 1, M = 100, three seeds: one thing changes at a time,
and both estimators see the same initial values, minibatches and ε. All runs evaluate 500,000 samples, so that M = 20
makes ten times the updates of M = 200. "variance" is the variance of the gradient of the bound per datapoint, summed
over the entries of an array, at the initial and at trained parameters (L^B, seed 0), from 200 draws: over ε at one
minibatch, and over ε and the minibatch; its milliseconds are those of a busy machine. The plain autoencoder is the same
network, trained by the same loop with z = μ and no KL. Reconstructions are E[x|z] at z = μ of test images. Runs are
kept in --runs and gone on with.
"""

import time

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import VAE, Adagrad, evaluate, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.training.loop import stream

LS, MS, LATENTS = [1, 2, 4, 8], [20, 50, 100, 200], [2, 5, 10, 20]


def studies():
    """{(study, value, method): what differs from the run of the description}."""
    found = {}
    for method in ("A", "B"):
        for n in LS:
            found["L", n, method] = {"estimator": method, "n_samples": n}
        for m in MS:
            found["M", m, method] = {"estimator": method, "batch_size": m}
    for depth in (1, 2, 3):
        found["hidden layers", depth, "B"] = {"hidden": 200 if depth == 1 else (200,) * depth}
    for name in ("tanh", "relu", "softplus", "sigmoid"):
        found["activation", name, "B"] = {"activation": name}
    for latent in LATENTS:
        found["latent", latent, "B"] = {"latent": latent}
        found["latent", latent, "autoencoder"] = {"latent": latent, "estimator": "autoencoder"}
    return found


def run_of(settings, seed=0, hidden=200, latent=10, batch_size=100, **model):
    """The Run of one combination; the same combination is the same run whichever study asks for it."""
    model = {"estimator": "B", "n_samples": 1, "activation": "tanh", "init": "glorot"} | model
    words = [hidden, latent, batch_size, model["estimator"], model["n_samples"], model["activation"], seed]
    name = "-".join(str(word).replace(" ", "") for word in words)
    folder = settings.runs / f"estimators-{settings.data}-{settings.scale:g}" / name
    return Run(
        folder,
        settings.data,
        hidden,
        latent,
        max(500, int(500_000 * settings.scale)),
        model,
        optimizer=Adagrad(0.02),
        held_out="valid",
        n_held_out=2000,
        batch_size=batch_size,
        seed=seed,
    )


def result(run):
    """Held-out bound and reconstruction errors of a trained run, nats and squared grey levels per image."""
    data = load_data(run.data)
    model = load_model(run.folder)
    x, model.n_samples = model.pixels(data.test), 1
    mean = model.reconstruct(data.test)
    at_the_mean = [np.zeros((1, len(part), model.n_latent)) for part in np.array_split(x, 10)]  # ε = 0
    log_px = np.concatenate([model.terms(*pair)[1] for pair in zip(np.array_split(x, 10), at_the_mean, strict=True)])
    bound = np.nan if run.settings["estimator"] == "autoencoder" else evaluate(model, data.test)["bound"]
    return {
        "test bound": round(bound, 2),
        "-log p(x|z) at the mean": round(-float(log_px.mean(dtype=float)), 2),
        "squared error": round(float(((x - mean) ** 2).sum(axis=1).mean(dtype=float)), 3),
        "train seconds": round(float(run.history()["seconds"][-1]), 1),
        "commit": run.commit(),
    }


def variances(run, stage, estimator, n_samples, batch_size, draws, version):
    """Rows, an array each: the variance of the gradient over `draws` of ε, and of ε and the minibatch."""
    data, model = load_data(run.data), load_model(run.folder)
    if stage == "initial":
        model = VAE(**model.config)
    point = model.params.value
    model = VAE(**model.config | {"estimator": estimator, "n_samples": n_samples})
    model.params.value[...] = point
    n, sums, spent = len(data.train), {}, 0.0
    fixed = stream(run.seed, 0, 0).permutation(n)[:batch_size]
    for k in range(draws):
        generator = stream(run.seed, 1, k)
        fresh = generator.integers(n, size=batch_size)
        noise = model.noise(generator, batch_size)
        for kind, rows in [("ε", fixed), ("ε and minibatch", fresh)]:
            x = model.pixels(data.train[rows])
            since = time.perf_counter()
            model.bound(x, noise, 1.0, gradient=True)
            spent += time.perf_counter() - since
            g = model.params.grad.astype(float)
            first, second = sums.setdefault(kind, [np.zeros_like(g), np.zeros_like(g)])
            first += g
            second += g * g
    variance = {kind: (second - first**2 / draws) / (draws - 1) for kind, (first, second) in sums.items()}
    mean = sums["ε and minibatch"][0] / draws
    return [
        {"parameters": stage, "estimator": f"L^{estimator}", "L": n_samples, "M": batch_size, "array": name}
        | {f"variance over {kind}": f"{vector[where].sum():.4g}" for kind, vector in variance.items()}
        | {"squared norm of the mean": f"{(mean[where] ** 2).sum():.4g}"}
        | {"ms a gradient": round(500 * spent / draws, 2), "draws": draws, "seed": run.seed, "commit": version}
        for name, (where, _) in [*model.params.windows.items(), ("all", (slice(None), None))]
    ]


def draw(settings, rows, spreads):
    """estimators.png: bound and variance over L and M, then depth, activation and reconstruction."""
    fig = plots.Figure(figsize=(13, 7), dpi=150, layout="constrained")
    axes = fig.subplots(2, 4)

    def lines(ax, study, column, methods):
        for k, method in enumerate(methods):
            mine = [row for row in rows if (row["study"], row["method"]) == (study, method)]
            values = list(dict.fromkeys(row["value"] for row in mine))
            y = np.array([[row[column] for row in mine if row["value"] == value] for value in values])
            label = {"A": "$L^A$", "B": "$L^B$" if "autoencoder" not in methods else "VAE"}.get(method, method)
            ax.plot(range(len(values)), y.mean(axis=1), f"C{k}o-", ms=3, label=label)
            ax.fill_between(range(len(values)), y.min(axis=1), y.max(axis=1), color=f"C{k}", alpha=0.2)
            ax.set_xticks(range(len(values)), values)
        ax.set_xlabel("latent dimensions" if study == "latent" else study)
        ax.set_title(column + (", per image" if column == "squared error" else ", nats per image"), fontsize=9)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)

    lines(axes[0, 0], "L", "test bound", ["A", "B"])
    lines(axes[0, 1], "M", "test bound", ["A", "B"])
    for ax, name, sizes, other in [(axes[0, 2], "L", LS, "M"), (axes[0, 3], "M", MS, "L")]:
        for k, estimator in enumerate(("L^A", "L^B")):
            for stage, style in [("initial", "--"), ("trained", "-")]:
                y = [
                    float(row["variance over ε and minibatch" if name == "M" else "variance over ε"])
                    for value in sizes
                    for row in spreads
                    if (row["array"], row["estimator"], row["parameters"]) == ("all", estimator, stage)
                    and (row[name], row[other]) == (value, 100 if other == "M" else 1)
                ]
                ax.plot(sizes, y, f"C{k}o{style}", ms=3, label=f"${estimator}$, {stage}")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, sizes)
        ax.set_xticks([], minor=True)
        ax.set_xlabel(name)
        ax.set_title("variance of the gradient,\nover ε" + (" and minibatch" if name == "M" else ""), fontsize=9)
        ax.grid(alpha=0.3, which="both")
        ax.legend(fontsize=7)
    lines(axes[1, 0], "hidden layers", "test bound", ["B"])
    lines(axes[1, 1], "activation", "test bound", ["B"])
    lines(axes[1, 2], "latent", "-log p(x|z) at the mean", ["B", "autoencoder"])
    lines(axes[1, 3], "latent", "squared error", ["B", "autoencoder"])
    fig.savefig(settings.results / "estimators.png")
    print(f"wrote {settings.results / 'estimators.png'}")


def main():
    """Train and measure what is missing; write estimators.csv, estimators_variance.csv and estimators.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    runs = {(*k, s): run_of(settings, s, **v) for k, v in studies().items() for s in range(settings.seeds)}
    different = {run.folder: run for run in runs.values()}
    train_all(list(different.values()), settings.jobs)
    results = in_parallel([(result, run) for run in different.values()], settings.jobs, " results")
    found = dict(zip(different, results, strict=True))
    rows = [
        {"study": study, "value": value, "method": method, "seed": seed} | found[run.folder]
        for (study, value, method, seed), run in runs.items()
    ]
    write_table(settings.results / "estimators.csv", rows)

    version, draws, first = commit(), max(3, int(200 * settings.scale)), run_of(settings)
    cells = [(s, e, n, m) for s in ("initial", "trained") for e in ("A", "B") for n in LS for m in MS]
    calls = [(variances, first, *cell, draws, version) for cell in cells]
    spreads = [row for found in in_parallel(calls, settings.jobs, " gradients") for row in found]
    write_table(settings.results / "estimators_variance.csv", spreads)
    draw(settings, rows, spreads)


if __name__ == "__main__":
    command(main)
