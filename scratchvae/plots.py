"""Pictures of a model: each function draws on the axis it is given and returns what it drew; none calls `show`.

Images are rows (N, D) in [0, 1] or uint8, looked at as `image_shape` (height, width), light on dark.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri


def learning_curve(ax, history, train="train", validation="validation"):
    """The bound per datapoint against samples evaluated, on a log axis, train and validation: the axes of Figure 2.

    ValueError if the history has no row.
    """
    if len(history) == 0:
        raise ValueError("the history is empty: nothing was trained")
    lines = []
    for column, label, style in [("train_bound", train, "--"), ("valid_bound", validation, "-")]:
        if np.isfinite(history[column]).any():
            lines += ax.plot(history["samples"], history[column], style, color="C0", label=label)
    ax.set_xscale("log")
    ax.set_xlabel("training samples evaluated")
    ax.set_ylabel("bound (nats per datapoint)")
    ax.grid(alpha=0.3)
    later = np.concatenate([line.get_ydata()[len(history) // 5 :] for line in lines])  # not the fall of the first steps
    if np.ptp(later) > 0:
        ax.set_ylim(later.min() - 0.1 * np.ptp(later), later.max() + 0.1 * np.ptp(later))
    ax.legend(loc="lower right")
    return lines


def image_grid(ax, images, image_shape, columns):
    """All `images` in one picture, row by row, `columns` a row, a line of grey between them."""
    images = _unit(images)
    height, width = image_shape
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), 0.5)
    for k, image in enumerate(images):
        top, left = 1 + k // columns * (height + 1), 1 + k % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.reshape(image_shape)
    ax.set_axis_off()
    return ax.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def reconstructions(ax, x, reconstructed, image_shape, columns=10):
    """Each row of originals with the row of its reconstructions under it."""
    x, reconstructed = _unit(x), _unit(reconstructed)
    starts = range(0, len(x), columns)
    pairs = [block[i : i + columns] for i in starts for block in (x, reconstructed)]
    pad = columns - len(pairs[-1])  # a short last row ends in blanks, so that its reconstructions stay under it
    if pad:
        pairs[-2:] = [np.concatenate([row, np.full((pad, row.shape[1]), 0.5)]) for row in pairs[-2:]]
    return image_grid(ax, np.concatenate(pairs), image_shape, columns)


def samples(ax, model, image_shape, n=100, columns=10, seed=0):
    """E[x|z] for n latents from the prior: Figure 5."""
    return image_grid(ax, model.sample(n, seed), image_shape, columns)


def manifold(ax, model, image_shape, rows=20, columns=20):
    """E[x|z] at z = (Φ⁻¹(r/(R+1)), Φ⁻¹(c/(C+1))), row r = 1..R, column c = 1..C: Figure 4, equal steps of probability.

    ValueError unless the latent space has two dimensions.
    """
    if model.n_latent != 2:
        raise ValueError(f"the manifold is drawn for 2 latent dimensions; this model has {model.n_latent}")
    r, c = ndtri(np.arange(1, rows + 1) / (rows + 1)), ndtri(np.arange(1, columns + 1) / (columns + 1))
    z = np.stack(np.meshgrid(r, c, indexing="ij"), axis=-1).reshape(-1, 2)
    ax.set_title("$z_1$ downwards, $z_2$ to the right", fontsize=8, loc="left")
    return image_grid(ax, model.decode(z), image_shape, columns)


def latent_scatter(ax, mu, labels=None):
    """Posterior means (N, 2), coloured by label. ValueError unless there are two columns."""
    if mu.shape[1] != 2:
        raise ValueError(f"the scatter is drawn for 2 latent dimensions; these have {mu.shape[1]}")
    points = ax.scatter(*mu.T, c=labels, s=4, cmap="tab10" if labels is not None else None)
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    ax.set_aspect("equal", "datalim")
    if labels is not None:
        ax.legend(*points.legend_elements(num=None), loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return points


def ellipses(ax, means, covariances, sd=2, **style):
    """The points of each Gaussian at `sd` standard deviations from its mean: means (K, 2), covariances (K, 2, 2)."""
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = sd * np.stack([np.cos(turn), np.sin(turn)])
    roots = np.linalg.cholesky(covariances)  # Σ = R Rᵀ, so that x - m = R u has (x - m)ᵀ Σ⁻¹ (x - m) = uᵀu
    return [ax.plot(*(np.reshape(m, (2, 1)) + R @ circle), **style)[0] for m, R in zip(means, roots, strict=True)]


def random_walk(ax, model, image_shape, steps=100, sd=0.1, columns=10, seed=0):
    """E[x|z] along a walk in latent space, `steps` images in reading order: z₁ ~ N(0, I), then z ← z + N(0, sd² I)."""
    moves = np.random.default_rng(seed).standard_normal((steps, model.n_latent))
    moves[1:] *= sd
    return image_grid(ax, model.decode(np.cumsum(moves, axis=0)), image_shape, columns)


def uncertainty(axes, x, draws, image_shape):
    """On three axes: originals x (N, D), and mean and standard deviation of reconstructions from `draws` (S, N, D)."""
    spread = draws.std(axis=0)
    rows = [
        (x, "original"),
        (draws.mean(axis=0), "mean"),
        (spread / max(spread.max(), 1e-12), f"sd, to {spread.max():.2f}"),
    ]
    artists = []
    for ax, (images, title) in zip(axes, rows, strict=True):
        artists.append(image_grid(ax, images, image_shape, len(images)))
        ax.set_title(title, loc="left", fontsize=8)
    return artists


def theta_uncertainty(axes, model, x, image_shape, draws=64, seed=0):
    """On four axes, of a FullVB: originals x (N, D), E[x|z] at the means of z and θ, and its standard deviations.

    The third picture is the spread over z ~ q(z|x) at the mean of θ, the last that over θ ~ q(θ) at the mean of z.
    """
    z = model.encode_mean(x)
    over_z = model.reconstruct_samples(x, draws, seed).std(axis=0)
    over_theta = np.std([model.theta_sample(seed + k).decode(z) for k in range(draws)], axis=0)
    rows = [(x, "original"), (model.decode(z), "posterior mean")]
    for sd, name in [(over_z, "z"), (over_theta, "θ")]:
        rows.append((sd / max(sd.max(), 1e-12), f"sd over {name}, white is {sd.max():.2f}"))
    artists = []
    for ax, (images, title) in zip(axes, rows, strict=True):
        artists.append(image_grid(ax, images, image_shape, -(-len(images) // 2)))
        ax.set_title(title, loc="left", fontsize=8)
    return artists


def step_costs(axes, rows):
    """On four axes: milliseconds of a training step against M, H, J and D, log-log, a line a backend and precision.

    rows: those of `bench.run`, of the model that the first is of; along each axis the other sizes are those that most
    rows have.
    """
    rows = [row for row in rows if row["model"] == rows[0]["model"]]
    names = {"batch_size": "minibatch M", "n_hidden": "hidden H", "n_latent": "latent J", "n_visible": "pixels D"}
    usual = {name: Counter(row[name] for row in rows).most_common(1)[0][0] for name in names}
    for ax, (name, label) in zip(axes, names.items(), strict=True):
        chosen = [row for row in rows if all(row[key] == value for key, value in usual.items() if key != name)]
        for kind in dict.fromkeys((row["model"], row["backend"], row["dtype"]) for row in chosen):
            mine = [row for row in chosen if (row["model"], row["backend"], row["dtype"]) == kind]
            line = sorted((row[name], row["ms"]) for row in mine)
            style = "o-" if kind[2] == "float32" else "o--"
            ax.plot(*zip(*line, strict=True), style, markersize=3, label=" ".join(kind))
        sizes = sorted({row[name] for row in chosen})
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, [str(size) for size in sizes], rotation=30)
        ax.set_xticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}" if np.ptp(np.log10(ax.get_ylim())) < 1 else "")
        ax.set_xlabel(label)
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("ms per training step")
    if axes[0].lines:
        axes[0].legend()
    return [line for ax in axes for line in ax.lines]


def _unit(images):
    return np.divide(images, 255) if np.asarray(images).dtype == np.uint8 else np.asarray(images, float)


def figure(width=6.0, height=6.0):
    """A Matplotlib figure and its one axis, outside pyplot's global state."""
    fig = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return fig, fig.add_subplot()


def draw_run(folder, model, data, history, seed=0):
    """Write every picture that fits the model into `folder` and return the paths, learning curve first."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []

    def save(fig, name):
        paths.append(folder / f"{name}.png")
        fig.savefig(paths[-1])

    full_vb, code_alone = hasattr(model, "theta_sample"), model.config["estimator"] == "autoencoder"
    if len(history):
        fig, ax = figure(6, 4)
        names = ["train, (22) with the θ-KL", "validation, at the mean of θ"] if full_vb else []
        if model.config["estimator"] == "iwae":
            names = [f"train, of {model.n_samples} draws together", "validation, (7)"]
        learning_curve(ax, history, *names)
        if code_alone:
            ax.set_ylabel("log p(x|z) at the code (nats per datapoint)")
        save(fig, "learning_curve")

    x = data.test[:50]
    fig, ax = figure()
    reconstructions(ax, x, model.reconstruct(x), data.image_shape)
    save(fig, "reconstructions")

    if not code_alone:  # which learns neither q(z|x) nor what z to expect
        fig = Figure(figsize=(6, 2.6), dpi=150, layout="constrained")
        uncertainty(fig.subplots(3), x[:10], model.reconstruct_samples(x[:10], 64, seed), data.image_shape)
        save(fig, "uncertainty")

        if full_vb:
            fig = Figure(figsize=(10, 1.9), dpi=150, layout="constrained")
            theta_uncertainty(fig.subplots(1, 4), model, x[:8], data.image_shape, seed=seed)
            save(fig, "theta_uncertainty")

        fig, ax = figure()
        samples(ax, model, data.image_shape, seed=seed)
        save(fig, "samples")

        fig, ax = figure()
        random_walk(ax, model, data.image_shape, seed=seed)
        save(fig, "random_walk")

        if model.n_latent == 2:
            fig, ax = figure(8, 8)
            manifold(ax, model, data.image_shape)
            save(fig, "manifold")

    if model.n_latent == 2:
        fig, ax = figure(7, 6)
        latent_scatter(ax, model.encode_mean(data.test), data.test_labels)
        save(fig, "latent")
    return paths
