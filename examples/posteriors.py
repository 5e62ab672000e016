"""Three posteriors q(z|x) on MNIST with two latents: diagonal Gaussian, full covariance and planar flow.

784-500-2, tanh, Glorot, Adam 0.001, M = 100, L = 1, one million samples of grey-level pixels. All three are trained
with L^A (6), the estimator that a flow needs, and a seed gives all of them the same initial values of what they share,
the same minibatches and the same ε. The flow has 10 maps over the diagonal Gaussian.

"test_bound" is of all test images. log p(x) is estimated by importance, from 1,000 draws of q(z|x) for each of the
first 1,000 test images, and "bound" is theirs, from 100 draws. "gap" is log p(x) less this bound, the mean of
KL(q(z|x) ‖ p(z|x)): how far q is from the posterior of its own decoder. An estimate is "untrusted" where k̂ of its
weights says so. The pictures of z-space show, for three test images, p(z|x) in shades and the regions that hold 50 %
and 95 % of q(z|x). The three are those at which the gap of the diagonal Gaussian is at its median, its 90 % and its
99 % quantile. Runs are kept in --runs and gone on with.
"""

import warnings

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import Adam, evaluate, load_data, load_model, plots
from scratchvae.inference.marginal import importance, log_p_xz

POSTERIORS = {"diagonal": {}, "full covariance": {"posterior": "full"}, "planar flow": {"flow": 10}}
QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}
DRAWS_OF_THE_BOUND = 100  # for each image


def run_of(settings, name, seed):
    """The Run of one posterior and one seed."""
    folder = settings.runs / f"posteriors-{settings.data}-{settings.scale:g}" / f"{name.replace(' ', '-')}-A-{seed}"
    model = {"estimator": "A", "init": "glorot", **POSTERIORS[name]}
    samples = max(1000, int(settings.samples * settings.scale))
    return Run(folder, settings.data, 500, 2, samples, model, optimizer=Adam(0.001), n_held_out=2000, seed=seed)


def bound_of_each(model, x):
    """The bound of each row of x in nats, (N,), from many draws of z."""
    model.n_samples = DRAWS_OF_THE_BOUND
    generator = np.random.default_rng(0)
    parts = []
    for start in range(0, len(x), 50):
        rows = x[start : start + 50]
        neg_kl, log_px = model.terms(rows, model.eps(generator, len(rows)))
        parts.append(neg_kl + log_px)
    return np.concatenate(parts).astype(float)


def result(run, name, n_images, draws):
    """A row of the table, and the gap of each image."""
    data = load_data(run.data)
    model = load_model(run.folder)
    x = data.test[:n_images]
    whole_test = evaluate(model, data.test)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat is above")  # their share is a column of the table
        found = importance(model, x, draws)
    log_p, error = found.mean()
    bound = bound_of_each(model, x)
    gap = found.log_p - bound
    history = run.history()
    row = {
        "posterior": name,
        "seed": run.seed,
        "samples": int(history["samples"][-1]),
        "parameters": model.params.value.size,
        "train_bound": round(float(history["train_bound"][-1]), 2),
        "test_bound": round(whole_test["bound"], 2),
        "kl": round(whole_test["kl"], 2),
        "bound": round(float(bound.mean()), 3),
        "log_p": round(log_p, 3),
        "log_p_error": round(error, 3),
        "gap": round(float(gap.mean()), 3),
        "untrusted": round(float(found.untrusted().mean()), 3),
        "k_hat_above": round(found.threshold(), 2),
        "median_ess": round(float(np.median(found.ess))),
        "images": len(x),
        "draws": draws,
        "train_seconds": round(float(history["seconds"][-1])),
        "commit": run.commit(),
    }
    return row, gap


def square(centre, half, points=201):
    """The axes of a square around `centre`, and its points (points², 1, 2), row by row."""
    axes = [np.linspace(c - half, c + half, points) for c in centre]
    return axes, np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 1, 2)


def posterior_on(model, x, z):
    """p(z|x) at the points z of a grid, as shares that add up to 1."""
    log_joint = log_p_xz(model, model.pixels(x), z.astype(model.dtype))[:, 0].astype(float)
    p = np.exp(log_joint - log_joint.max())
    return p / p.sum()


def draw_posterior(ax, model, x):
    """p(z|x) of one image (1, D) in shades, and the regions that hold half and 95 % of q(z|x) as lines."""
    _, z = square((0, 0), 5)
    p = posterior_on(model, x, z)
    mean = p @ z[:, 0]
    sd = np.sqrt(p @ (z[:, 0] - mean) ** 2)
    eps = np.random.default_rng(0).standard_normal((4000, 1, 2)).astype(model.dtype)
    draws, log_q = model.latents(x, eps)
    edges = np.stack([mean - 4 * sd, mean + 4 * sd, *np.quantile(draws[:, 0], [0.005, 0.995], axis=0)])
    low = edges.min(axis=0)
    high = edges.max(axis=0)
    axes, z = square((low + high) / 2, max((high - low).max() / 2, 0.05))
    shape = len(axes[1]), len(axes[0])
    extent = [axes[0][0], axes[0][-1], axes[1][0], axes[1][-1]]
    ax.imshow(posterior_on(model, x, z).reshape(shape), extent=extent, origin="lower", cmap="Greys", aspect="equal")
    levels = np.quantile(log_q, [0.05, 0.5])  # 95 % of the draws have a log q above the first
    log_q = model.encoder.log_prob(model.pixels(x), z.astype(model.dtype)).reshape(shape)
    ax.contour(*axes, log_q, levels, colors="C3", linewidths=1, linestyles=["--", "-"])
    ax.tick_params(labelsize=6)


def draw(settings, runs, rows, gaps):
    """posteriors.png: bounds, gaps and untrusted images on the left; p(z|x) and q(z|x) of three images on the right."""
    fig = plots.Figure(figsize=(14, 7.4), dpi=130, layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1, 1.45])
    (curves, bounds), (gap, untrusted) = left.subplots(2, 2)
    for (name, seed), run in runs.items():
        history = run.history()
        label = name if seed == 0 else None
        curves.plot(history["samples"], history["valid_bound"], f"C{list(POSTERIORS).index(name)}", lw=1, label=label)
    later = np.concatenate([run.history()["valid_bound"][len(run.history()) // 2 :] for run in runs.values()])
    curves.set_ylim(np.quantile(later, 0.05) - 1, later.max() + 1)  # a flow may leap out of it
    curves.set_xscale("log")
    curves.set_xlim(max(run.history()["samples"][-1] for run in runs.values()) / 100)
    curves.set_xlabel("training samples evaluated", fontsize=8)
    curves.set_title("validation bound\n(nats per datapoint)", fontsize=9)
    curves.legend(fontsize=7, loc="upper left")
    for ax, columns, title in [
        (bounds, ("bound", "log_p"), "bound (●) and log p(x) (▲), test\n(nats per datapoint)"),
        (gap, ("gap",), "gap: log p(x) less the bound\n(nats per datapoint)"),
        (
            untrusted,
            ("untrusted",),
            f"share of images with $\\hat k$ > {rows[0]['k_hat_above']:.2f}:\nlog p(x) untrusted",
        ),
    ]:
        for k, name in enumerate(POSTERIORS):
            mine = [row for row in rows if row["posterior"] == name]
            at = k + 0.12 * (np.arange(len(mine)) - (len(mine) - 1) / 2)
            for column, marker in zip(columns, "o^", strict=False):
                ax.plot(at, [row[column] for row in mine], f"C{k}{marker}", ms=5)
        ax.set_xticks(range(len(POSTERIORS)), [name.replace(" ", "\n") for name in POSTERIORS], fontsize=8)
        ax.set_xlim(-0.5, len(POSTERIORS) - 0.5)
        ax.set_title(title, fontsize=9)
    for ax in (gap, untrusted):
        ax.set_ylim(0, None)
    for ax in (curves, bounds, gap, untrusted):
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=8)
    x = load_data(settings.data).test
    panels = right.subplots(len(QUANTILES), len(POSTERIORS))
    order = np.argsort(gaps["diagonal"])
    for line, (words, quantile) in zip(panels, QUANTILES.items(), strict=True):
        image = order[round(quantile * (len(order) - 1))]
        for ax, name in zip(line, POSTERIORS, strict=True):
            draw_posterior(ax, load_model(runs[name, 0].folder), x[image : image + 1])
            ax.set_title(f"{name}: gap {gaps[name][image]:.2f}", fontsize=8)
        line[0].set_ylabel(f"test image {image} ({words}),\n$z_2$", fontsize=8)
    for ax in panels[-1]:
        ax.set_xlabel("$z_1$", fontsize=8)
    right.suptitle("p(z|x) in shades; red: the regions that hold 50 % and 95 % of q(z|x); seed 0", fontsize=9)
    fig.savefig(settings.results / "posteriors.png")
    print(f"wrote {settings.results / 'posteriors.png'}")


def main():
    """Train what is missing; print and write posteriors.csv, and posteriors.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=1_000_000, help="samples to evaluate (1,000,000)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    n_images = max(20, int(1000 * settings.scale))
    draws = max(50, int(1000 * settings.scale))
    runs = {(name, seed): run_of(settings, name, seed) for seed in range(settings.seeds) for name in POSTERIORS}
    train_all(list(runs.values()), settings.jobs)
    calls = [(result, run, name, n_images, draws) for (name, _), run in runs.items()]
    rows, gaps = zip(*in_parallel(calls, settings.jobs, " results"), strict=True)
    for row in rows:
        numbers = ", ".join(f"{key} {row[key]:.2f}" for key in ("test_bound", "bound", "log_p", "gap"))
        print(f"{row['posterior']:16} seed {row['seed']}: {numbers}, untrusted {row['untrusted']:.1%}")
    write_table(settings.results / "posteriors.csv", rows)
    of_seed_0 = {name: part for (name, seed), part in zip(runs, gaps, strict=True) if seed == 0}
    draw(settings, runs, rows, of_seed_0)


if __name__ == "__main__":
    command(main)
