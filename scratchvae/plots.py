"""Pictures of a model and of its training.

Each function draws on the Matplotlib axis, or axes, that it is given, and returns the artists that it drew; none calls
`show`. The figures named below are those of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014).

Images are rows (N, D), one datapoint per row, uint8 or numbers in [0, 1]. Each is drawn as `image_shape`, (height,
width), with 0 in black and 255 or 1 in white. `model` is a trained `VAE` or one of its kin, and `seed`, 0 unless given,
selects random numbers. `columns` is the number of images in a row of the picture.
"""

import contextlib
import math
import os
import secrets
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import ndtri

_backend = os.environ.pop("MPLBACKEND", None)  # one that Matplotlib does not have would stop its import
try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
if _backend:
    with contextlib.suppress(ValueError):  # nothing here needs it
        matplotlib.rcParams["backend"] = _backend

PARTS_OF_RATE = {  # the columns of a history that `latent_use` draws, with their labels
    "rate": "rate, E KL(q(z|x) ‖ p(z))",
    "mutual_information": "mutual information I(x; z)",
    "marginal_kl": "KL(q(z) ‖ p(z))",
}
DPI = 150  # pixels per inch of the pictures that this file writes


@contextlib.contextmanager
def own_settings():
    """Let Matplotlib's own defaults hold inside, so that a picture is the same whatever a user has set for theirs."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def learning_curve(ax, history, train="train", validation="validation"):
    """Draw the bound in nats per datapoint against the number of training samples evaluated, as in Figure 2.

    history      is what `fit` returns. One without rows raises a ValueError.
    train        labels the curve of the training bound.
    validation   labels the curve of the validation bound.
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
    later = np.concatenate([line.get_ydata()[len(history) // 5 :] for line in lines])  # without the first steps
    if np.ptp(later) > 0:
        ax.set_ylim(later.min() - 0.1 * np.ptp(later), later.max() + 0.1 * np.ptp(later))
    ax.legend(loc="lower right")
    return lines


def image_grid(ax, images, image_shape, columns):
    """Draw images (N, D) as one picture, row by row, with grey lines between them."""
    images = _unit(images)
    height, width = image_shape
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), 0.5)
    for k, image in enumerate(images):
        top = 1 + k // columns * (height + 1)
        left = 1 + k % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image.reshape(image_shape)
    ax.set_axis_off()
    return ax.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def reconstructions(ax, x, reconstructed, image_shape, columns=10):
    """Draw originals x (N, D), row by row, each row with its reconstructions (N, D) in the row below."""
    blocks = (_unit(x), _unit(reconstructed))
    pairs = [block[i : i + columns] for i in range(0, len(x), columns) for block in blocks]
    pad = columns - len(pairs[-1])
    if pad:  # a short last row ends in grey, so that its reconstructions stay below it
        pairs[-2:] = [np.concatenate([row, np.full((pad, row.shape[1]), 0.5)]) for row in pairs[-2:]]
    ax.set_title("rows in turns: originals, and below them their reconstructions", fontsize=8, loc="left")
    return image_grid(ax, np.concatenate(pairs), image_shape, columns)


def samples(ax, model, image_shape, n=100, columns=10, seed=0):
    """Draw E[x|z] for n latents z from the prior, 100 unless given, as in Figure 5."""
    ax.set_title("E[x|z] at draws z ~ p(z)", fontsize=8, loc="left")
    return image_grid(ax, model.sample(n, seed), image_shape, columns)


def manifold(ax, model, image_shape, rows=20, columns=20):
    """Draw E[x|z] on a grid of the latent space whose steps are equal in probability, as in Figure 4.

    The image in row r = 1..R and column c = 1..C shows z = (Φ⁻¹(r/(R+1)), Φ⁻¹(c/(C+1))). rows is R and columns is C, 20
    each unless given. Unless the model has two latents, a ValueError is raised.
    """
    if model.n_latent != 2:
        raise ValueError(f"the manifold is drawn for 2 latent dimensions; this model has {model.n_latent}")
    r = ndtri(np.arange(1, rows + 1) / (rows + 1))
    c = ndtri(np.arange(1, columns + 1) / (columns + 1))
    z = np.stack(np.meshgrid(r, c, indexing="ij"), axis=-1).reshape(-1, 2)
    ax.set_title("$z_1$ downwards, $z_2$ to the right", fontsize=8, loc="left")
    return image_grid(ax, model.decode(z), image_shape, columns)


def latent_scatter(ax, mu, labels=None):
    """Draw posterior means mu (N, 2) as points, coloured by their labels (N,) where these are given.

    Unless mu has two columns, a ValueError is raised.
    """
    if mu.shape[1] != 2:
        raise ValueError(f"the scatter is drawn for 2 latent dimensions; these have {mu.shape[1]}")
    points = ax.scatter(*mu.T, c=labels, s=4, cmap="tab10" if labels is not None else None)
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    ax.set_aspect("equal", "datalim")
    if labels is not None:
        ax.legend(*points.legend_elements(num=None), loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return points


def latent_use(axes, use, history):
    """Draw on three axes what the latents carry: the KL of each, how it came about, and what the rate is made of.

    use       is what `inference.information` returns. Its KLs are bars, largest first, and grey for latents that are
              not active.
    history   is what `fit` returns. The second axis has the KL of each latent after so many samples, in the order of
              the bars, and the third the rate with its two parts, and ln N, which the mutual information cannot exceed.

    What is not known leaves its axis empty but for a line that says so.
    """
    bars, colours, parts = axes
    kl = np.zeros(use.n_latent) if use.kl is None else use.kl
    order = np.argsort(-kl, kind="stable")
    samples = history["samples"]
    known = "kl" in history.dtype.names and len(history) > 1
    steps = np.arange(0.5, use.n_latent + 1)
    bars.set_title("KL of each latent, the largest first", fontsize=8, loc="left")
    bars.set_xlabel("latents (grey: not active)")
    bars.set_ylabel("KL(q(z_j|x) ‖ p(z_j)), nats")
    colours.set_title("KL of each latent while it was trained", fontsize=8, loc="left")
    colours.set_xlabel("training samples evaluated")
    colours.set_ylabel("latents, in the same order")
    parts.set_title("what the rate is made of", fontsize=8, loc="left")
    parts.set_xlabel("training samples evaluated")
    parts.set_ylabel("nats per datapoint")
    if use.kl is None:
        _say(bars, "not known for this posterior")
    else:
        is_active = np.ones(use.n_latent, bool) if use.is_active is None else use.is_active
        bars.bar(steps[:-1] + 0.5, kl[order], color=np.where(is_active[order], "C0", "0.7"))
        bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    found = known and np.isfinite(history["kl"]).any()
    if found:
        edges = np.concatenate([samples[:1] * 0.9, samples])
        mesh = colours.pcolormesh(edges, steps, history["kl"][:, order].T, cmap="cividis", vmin=0, rasterized=True)
        colours.figure.colorbar(mesh, ax=colours, label="nats")
        colours.invert_yaxis()
        colours.yaxis.set_major_locator(MaxNLocator(integer=True))
        colours.set_xscale("log")
    else:
        _say(colours, "not known")
    if known and np.isfinite(history["rate"]).any():
        for name, label in PARTS_OF_RATE.items():
            if np.isfinite(history[name]).any():
                parts.plot(samples, history[name], label=label)
        if math.isfinite(use.mutual_information):
            n = min(use.n, 1000)
            parts.axhline(math.log(n), color="0.5", ls=":", label=f"ln {n:,}, the most that can be seen of I")
        parts.set_xscale("log")
        parts.set_ylim(0, 1.35 * parts.get_ylim()[1])  # with room for the legend
        parts.legend(fontsize=7, loc="upper left")
    else:
        _say(parts, "not known")
    return [*bars.patches, *colours.collections, *parts.lines]


def _say(ax, text):
    """Write a line into the middle of an axis that has nothing else."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])


def ellipses(ax, means, covariances, sd=2, **style):
    """Draw an ellipse for each of K Gaussians: the points that are `sd` standard deviations from its mean.

    means (K, 2) and covariances (K, 2, 2) are those of the Gaussians. sd is 2 unless given. style is passed on to
    Matplotlib's `plot`.
    """
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = sd * np.stack([np.cos(turn), np.sin(turn)])
    roots = np.linalg.cholesky(covariances)  # Σ = R Rᵀ, so that x - m = R u has (x - m)ᵀ Σ⁻¹ (x - m) = uᵀu
    return [ax.plot(*(np.reshape(m, (2, 1)) + R @ circle), **style)[0] for m, R in zip(means, roots, strict=True)]


def random_walk(ax, model, image_shape, steps=100, sd=0.1, columns=10, seed=0):
    """Draw E[x|z] along a random walk in the latent space, in reading order.

    The walk begins at z ~ N(0, I), and each step adds N(0, sd² I) to z. steps is the number of images, 100 unless
    given. sd is 0.1 unless given; with a larger one, neighbouring images differ more.
    """
    moves = np.random.default_rng(seed).standard_normal((steps, model.n_latent))
    moves[1:] *= sd
    ax.set_title(f"E[x|z] along a random walk in z, in reading order; each step has sd {sd:g}", fontsize=8, loc="left")
    return image_grid(ax, model.decode(np.cumsum(moves, axis=0)), image_shape, columns)


def uncertainty(axes, x, draws, image_shape):
    """Draw on three axes the originals, and the mean and the standard deviation of their reconstructions.

    x (N, D) holds the originals, and draws (S, N, D) the reconstructions from S draws of z, as
    `model.reconstruct_samples` gives them. The largest standard deviation is drawn in white, and the title names it.
    """
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
    """Draw on four axes what a `FullVB` leaves open about images x (N, D): through z, and through θ.

    The pictures show the originals; E[x|z] at the means of z and θ; its standard deviation over z ~ q(z|x) at the mean
    of θ; and its standard deviation over θ ~ q(θ) at the mean of z. `draws` is the number of draws of z and of θ, 64
    unless given.
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
    """Draw on four axes the milliseconds of a training step against M, H, J and D, with log scales.

    rows are those that `bench.run` returns; only rows of the same model as the first are drawn. Each backend, precision
    and number of threads has a line of its own. On each axis one size varies, and the others are those that most rows
    have. Models with several hidden layers, or none, have no place on the axis of H.
    """
    rows = [row for row in rows if row["model"] == rows[0]["model"]]
    names = {"batch_size": "minibatch M", "n_hidden": "hidden H", "n_latent": "latent J", "n_visible": "pixels D"}
    usual = {name: Counter(row[name] for row in rows).most_common(1)[0][0] for name in names}
    for ax, (name, label) in zip(axes, names.items(), strict=True):
        chosen = [row for row in rows if all(row[key] == value for key, value in usual.items() if key != name)]
        chosen = [row for row in chosen if isinstance(row[name], int)]
        for kind in dict.fromkeys(map(_kind, chosen)):
            line = sorted((row[name], row["ms"]) for row in chosen if _kind(row) == kind)
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
        axes[0].legend(fontsize=7)
    return [line for ax in axes for line in ax.lines]


def _kind(row):
    """Return the words that tell the lines of `step_costs` from each other: model, backend, precision and threads."""
    threads = row.get("threads")
    words = (row["model"], row["backend"], row["dtype"])
    return words if threads is None else (*words, "1 thread" if threads == 1 else f"{threads} threads")


def roofline(ax, profile, labelled=12):
    """Draw the rate of each operation of a training step against its intensity, below what the machine can do.

    Both axes are logarithmic: flops per byte, and 10⁹ flops per second. A sloping line is the bandwidth of arrays that
    lie in the cache, another that of arrays that lie in memory, and the level line is the rate of a large matrix
    product. The area of a point is the operation's share of the step, and its colour is the phase. Operations without
    flops, which only move numbers, have no place here, and those below 0.3 % of the step are left out.

    profile    is what `bench.profile` returns.
    labelled   is how many points have their number in the printed table beside them, and their line in the legend, 12
               unless given: those that take longest. Points that lie together share a label.
    """
    peaks = profile["peaks"]
    points = [(k, one) for k, one in enumerate(profile["operations"], start=1) if one["flops"] and one["share"] > 0.003]
    low = min((one["intensity"] for _, one in points), default=0.1) / 3
    high = 3 * max([one["intensity"] for _, one in points] + [peaks["gflops"] / peaks["memory_gb_s"]])
    for name, label, style in [("cache_gb_s", "in the cache", "-"), ("memory_gb_s", "in memory", "--")]:
        ridge = peaks["gflops"] / peaks[name]
        label = f"{peaks[name]:.3g} GB/s, {label}"
        ax.plot([low, ridge], [low * peaks[name], peaks["gflops"]], style, color="black", linewidth=1, label=label)
    ridge = peaks["gflops"] / peaks["cache_gb_s"]
    label = f"{peaks['gflops']:.3g} GFLOP/s, a large matrix product"
    ax.plot([ridge, high], [peaks["gflops"]] * 2, "-.", color="black", linewidth=1, label=label)
    phases = list(dict.fromkeys(one["phase"] for _, one in points))
    beside = {}  # the numbers of points that lie together, by their place in cells of a tenth of a decade
    for n, (k, one) in enumerate(points):
        label = " ".join(filter(None, [f"{k}  {one['share']:.1%}", one["phase"], one["owner"], one["place"]]))
        style = {"color": f"C{phases.index(one['phase'])}", "alpha": 0.6, "edgecolors": "none"}
        label = label if n < labelled else None
        ax.scatter([one["intensity"]], [one["gflops"]], s=10 + 2000 * one["share"], label=label, **style)
        if n < labelled:
            cell = tuple(round(10 * math.log10(one[axis])) for axis in ("intensity", "gflops"))
            beside.setdefault(cell, [(one["intensity"], one["gflops"]), []])[1].append(str(k))
    for place, numbers in beside.values():
        ax.annotate(" ".join(numbers), place, (8, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_xlabel("intensity (flops per byte)")
    ax.set_ylabel("rate (GFLOP/s)")
    ax.grid(alpha=0.3, which="both")
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False, borderaxespad=0)
    legend.set_title("numbers as in the table; those without flops are not shown", {"size": 7})
    for handle in legend.legend_handles[3:]:
        handle.set_sizes([30])
    return [*ax.lines, *ax.collections]


def _unit(images):
    """Return images as floats in [0, 1]."""
    return np.divide(images, 255) if np.asarray(images).dtype == np.uint8 else np.asarray(images, float)


def figure(width=6.0, height=6.0):
    """Return a Matplotlib figure and its one axis, without pyplot's global state. The sizes are in inches."""
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return fig, fig.add_subplot()


class DrawingError(ValueError):
    """Is raised when pictures of a run could not be drawn; `paths` are those of the pictures that were."""

    def __init__(self, message, paths):
        super().__init__(message)
        self.paths = paths


def draw_run(folder, model, data, history, seed=0, use=None):
    """Write every picture that suits the model into `folder` as PNG files, and return their paths.

    model     is a trained model.
    data      is the `Data` that it was trained on; the images shown are those of its test split.
    history   is what `fit` returned. If it has rows, the first of the pictures is their learning curve.
    use       is what `inference.information` returned, for a picture of what the latents carry; None draws none.

    If some pictures cannot be drawn, the others are, and then a DrawingError names those that are missing, and why.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DrawingError(f"{folder} cannot be made ({error.strerror})", []) from error
    paths = []
    failures = {}
    for name, draw in _pictures(model, data, history, seed, use).items():
        path = folder / f"{name}.png"
        part = path.with_suffix(f".png.{secrets.token_hex(8)}.tmp")  # no half of a picture has its name, nor two one
        try:
            with own_settings():
                draw().savefig(part, format="png")
            part.replace(path)
            paths.append(path)
        except Exception as error:  # Matplotlib, its backends and LaTeX raise many kinds
            with contextlib.suppress(OSError):  # what cannot be written cannot be removed
                part.unlink(missing_ok=True)
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            if isinstance(error, OSError) and error.filename == str(part):
                reason = f"{folder} cannot be written to, {error.strerror}"
            failures[name] = f"{type(error).__name__}: {reason}"
    if failures:
        reasons = "; ".join(dict.fromkeys(failures.values()))
        raise DrawingError(f"{', '.join(failures)} could not be drawn ({reasons})", paths)
    return paths


def _pictures(model, data, history, seed, use):
    """Return by name the functions that draw the pictures of a run, each of which returns a figure."""
    full_vb = hasattr(model, "theta_sample")
    code_alone = not getattr(getattr(model.estimator, "func", model.estimator), "bound", True)
    x = data.test[:50]

    def curve():
        fig, ax = figure(6, 4)
        names = ["train, (22) with the θ-KL", "validation, at the mean of θ"] if full_vb else []
        if model.config["estimator"] in ("iwae", "dreg"):
            names = [f"train, of {model.n_samples} draws together", "validation, (7)"]
            if full_vb:
                names = [f"{names[0]}, with the θ-KL", f"{names[1]} at the mean of θ"]
        learning_curve(ax, history, *names)
        if code_alone:
            ax.set_ylabel("log p(x|z) at the code (nats per datapoint)")
        return fig

    def spread():
        fig = Figure(figsize=(6, 2.6), dpi=DPI, layout="constrained")
        uncertainty(fig.subplots(3), x[:10], model.reconstruct_samples(x[:10], 64, seed), data.image_shape)
        return fig

    def spread_of_theta():
        fig = Figure(figsize=(10, 1.9), dpi=DPI, layout="constrained")
        theta_uncertainty(fig.subplots(1, 4), model, x[:8], data.image_shape, seed=seed)
        return fig

    def what_latents_carry():
        fig = Figure(figsize=(12, 3.4), dpi=DPI, layout="constrained")
        latent_use(fig.subplots(1, 3), use, history)
        return fig

    def one(draw, *arguments, size=(6, 6), **settings):
        fig, ax = figure(*size)
        draw(ax, *arguments, **settings)
        return fig

    pictures = {}
    if len(history):
        pictures["learning_curve"] = curve
    pictures["reconstructions"] = lambda: one(reconstructions, x, model.reconstruct(x), data.image_shape)
    if not code_alone:  # a plain autoencoder learns neither a q(z|x) nor which z to expect
        if use is not None:
            pictures["latents"] = what_latents_carry
        pictures["uncertainty"] = spread
        if full_vb:
            pictures["theta_uncertainty"] = spread_of_theta
        pictures["samples"] = lambda: one(samples, model, data.image_shape, seed=seed)
        pictures["random_walk"] = lambda: one(random_walk, model, data.image_shape, seed=seed)
        if model.n_latent == 2:
            pictures["manifold"] = lambda: one(manifold, model, data.image_shape, size=(8, 8))
    if model.n_latent == 2:
        pictures["latent"] = lambda: one(latent_scatter, model.encode_mean(data.test), data.test_labels, size=(7, 6))
    return pictures
