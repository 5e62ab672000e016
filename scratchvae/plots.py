"""Pictures of a model and of its training.

Each function draws on the Matplotlib axis, or axes, that it is given, and returns the artists that it drew; none calls
`show`. The figures named below are those of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014).

Images are rows (N, D), one datapoint per row, uint8 or numbers in [0, 1]. Each is drawn as `image_shape`, which is
(height, width), with 0 in black and 255 or 1 in white, or (height, width, 3) for red, green and blue; D numbers are in
C order of that shape. `model` is a trained `VAE` or one of its kin, and `seed`, 0 unless given, selects random numbers.
`columns` is the number of images in a row of the picture. Rows of a conditional model have their labels behind the
pixels where they are handed to a function together with the model.

Every picture has a title at the left that says what one sees, what its rows and columns are, and in which units.
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
    from matplotlib.colors import Normalize, to_rgba
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
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
COLOURS = (  # of classes, told apart with any kind of colour vision: Petroff 2021, "Accessible Color Sequences"
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MARKERS = "o^sDvP*X<>"  # of the first ten classes, the next ten, and so on
ROWS_AT_ONCE = 2000  # how many images are searched at a time for the nearest one


@contextlib.contextmanager
def own_settings():
    """Let Matplotlib's own defaults hold inside, so that a picture is the same whatever a user has set for theirs."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def learning_curve(ax, history, train="train", validation="validation", kept=None):
    """Draw the bound in nats per datapoint against the number of training samples evaluated, as in Figure 2.

    history      is what `fit` returns. One without rows raises a ValueError.
    train        labels the curve of the training bound.
    validation   labels the curve of the validation bound.
    kept         is after how many samples the model was as it is kept, which a vertical line marks; None for no line.
    """
    if len(history) == 0:
        raise ValueError("the history is empty: nothing was trained")
    lines = []
    for column, label, style in [("train_bound", train, "--"), ("valid_bound", validation, "-")]:
        if np.isfinite(history[column]).any():
            lines += ax.plot(history["samples"], history[column], style, color="C0", label=label)
    _title(ax, "The bound while the model was trained: higher is better")
    ax.set_xscale("log")
    ax.set_xlabel("training samples evaluated")
    ax.set_ylabel("bound (nats per datapoint)")
    ax.grid(alpha=0.3)
    later = np.concatenate([line.get_ydata()[len(history) // 5 :] for line in lines])  # without the first steps
    if np.ptp(later) > 0:
        ax.set_ylim(later.min() - 0.1 * np.ptp(later), later.max() + 0.1 * np.ptp(later))
    if kept is not None:
        ax.axvline(kept, color="0.4", lw=0.8, ls=":", label=f"kept, at {kept:,} samples")
    ax.legend(loc="lower right")
    return lines


def image_grid(ax, images, image_shape, columns):
    """Draw images (N, D) as one picture, row by row, with grey lines between them.

    Each row of pixels is drawn several times in an image that is four times as wide as high or more, so that it is seen
    at all, and likewise each column in one that is as high.
    """
    tiles = _tiles(images, image_shape)
    height, width, *channels = tiles.shape[1:]
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, *channels), 0.5)
    for k, tile in enumerate(tiles):
        top = 1 + k // columns * (height + 1)
        left = 1 + k % columns * (width + 1)
        canvas[top : top + height, left : left + width] = tile
    ax.set_axis_off()
    return ax.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def reconstructions(ax, x, reconstructed, image_shape, columns=10):
    """Draw originals x (N, D), row by row, each row with its reconstructions (N, D) in the row below."""
    blocks = (_unit(x), _unit(reconstructed))
    pairs = [block[i : i + columns] for i in range(0, len(x), columns) for block in blocks]
    pad = columns - len(pairs[-1])
    if pad:  # a short last row ends in grey, so that its reconstructions stay below it
        pairs[-2:] = [np.concatenate([row, np.full((pad, row.shape[1]), 0.5)]) for row in pairs[-2:]]
    _title(
        ax,
        "What the model keeps of images. Rows in turns: originals, and below each",
        "its reconstruction, E[x|z] at the code of the original",
    )
    return image_grid(ax, np.concatenate(pairs), image_shape, columns)


def samples(ax, model, image_shape, n=100, columns=10, seed=0):
    """Draw E[x|z] for n latents z from the prior, 100 unless given, as in Figure 5."""
    order = "(rows and columns have no order)"
    if model.n_classes:
        order = "Each column is a class" if columns == model.n_classes else "The classes come in turn, row by row"
    _title(ax, f"What the model makes up: {_mean_of(model)} at {n} draws z ~ p(z)", order)
    return image_grid(ax, model.sample(n, seed), image_shape, columns)


def styles(ax, model, image_shape, n=10, classes=None, seed=0):
    """Draw E[x|z, y] of a conditional model at n draws z ~ p(z), each of them in all classes y.

    n is the number of rows, 10 unless given. classes holds the names of the classes, None where they have none. A model
    without classes raises a ValueError.
    """
    C = model.n_classes
    if not C:
        raise ValueError("styles are drawn for a conditional model; this one has no classes")
    z = np.random.default_rng(seed).standard_normal((n, model.n_latent))
    images = model.decode(np.repeat(z, C, axis=0), np.tile(np.arange(C), n))
    image = image_grid(ax, images, image_shape, C)
    _label(ax, image_shape, [""] * n, [str(name) for name in classes or range(C)])
    ax.set_xlabel("class y", fontsize=8)
    _title(
        ax,
        "One style in all classes: E[x|z, y] at draws z ~ p(z)",
        "Rows: one z each, which does not know the class. Columns: the classes y.",
    )
    return image


def _mean_of(model):
    """Return the mean of a decoder in words."""
    return "E[x|z, y]" if model.n_classes else "E[x|z]"


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
    _title(
        ax,
        "What the decoder makes of each place in the plane of z: E[x|z], in steps of equal probability under p(z)",
        f"Rows: $z_1$ from {r[0]:.2f} at the top to {r[-1]:.2f}. Columns: $z_2$ from {c[0]:.2f} at the left "
        f"to {c[-1]:.2f}.",
    )
    return image_grid(ax, model.decode(z), image_shape, columns)


def traversals(ax, model, x, image_shape, use=None, most=10, values=13, reach=3.0):
    """Draw what each latent does by itself: E[x|z] as z_j goes from -reach to reach and the others stay.

    The others stay at the code of an image x (D,), its `encode_mean`, and so does the class of a conditional model.
    Each row is one latent, with its KL in nats at the left; below stand the values of z_j.

    use       is what `inference.information` returns. The rows are its active latents, the largest KL first, or, where
              the KL of each is not known, the largest variance of E_q[z_j] first. Without either, and for None, all
              latents are in their own order; and if no latent is active, all are there.
    most      is the largest number of rows, 10 unless given.
    values    is the number of values of z_j, 13 unless given.
    reach     is the largest of them, 3 unless given.
    """
    order, names, words = _ranked(model.n_latent, use, most)
    steps = np.linspace(-reach, reach, values)
    z = np.tile(model.encode_mean(x[None]), (len(order), values, 1))
    for row, j in zip(z, order, strict=True):
        row[:, j] = steps
    y = np.tile(model.labels(x[None]), len(order) * values) if model.n_classes else None
    image = image_grid(ax, model.decode(z.reshape(-1, model.n_latent), y), image_shape, values)
    _label(ax, image_shape, names, [f"{value:g}" for value in np.round(steps, 2)])
    ax.set_xlabel("the value of $z_j$", fontsize=8)
    _title(
        ax,
        f"What each latent does: {_mean_of(model)} as one $z_j$ moves, while the others stay at the code of the first "
        f"test image{' and y at its class' if model.n_classes else ''}",
        f"Rows: {words}. Columns: $z_j$ from {-reach:g} to {reach:g}.",
    )
    return image


def _ranked(n_latent, use, most):
    """Return which latents `traversals` draws, (R,), what stands at the left of each, and a title that says so."""
    kl = getattr(use, "kl", None)
    variance = getattr(use, "variance", None)
    size = kl if kl is not None else variance
    names = [f"$z_{{{j}}}$" for j in range(1, n_latent + 1)]
    if size is None:
        shown = min(n_latent, most)
        words = f"{shown} of {n_latent} latents in their order, since the KL of each is not known"
        return np.arange(shown), names[:shown], words
    order = np.argsort(-size, kind="stable")
    active = order if use.is_active is None else order[use.is_active[order]]
    kind = f"active latent{'s' if len(active) != 1 else ''} of {n_latent}"
    if len(active) == 0:
        active = order
        kind = "latents, none of which is active"
    order = active[:most]
    unit = "{:.2f} nats" if kl is not None else "var {:.2f}"
    names = [f"{names[j]}  {unit.format(size[j])}" for j in order]
    by = "KL(q($z_j$|x) ‖ p($z_j$))" if kl is not None else "variance of E[$z_j$|x], no KL being known,"
    shown = f"the {len(active)}" if len(order) == len(active) else f"{len(order)} of the {len(active)}"
    return order, names, f"{shown} {kind}, the largest {by} first"


def great_circle(a, b, t):
    """Return the points at t (T,) of the way from a (J,) to b (J,) around the origin, (T, J), for J of 2 or more.

    This is spherical linear interpolation, with the norms interpolated as well. With the directions â = a/|a| and
    b̂ = b/|b| and the angle ω between them,

        z(t) = ((1-t) |a| + t |b|) (sin((1-t) ω) â + sin(t ω) b̂) / sin ω

    Draws of N(0, I) in many dimensions lie near a sphere, which a straight line cuts across. Where a and b point the
    same way, or one is zero, the path is the straight line. Where they point opposite ways, it is one of the circles.
    """
    a = np.asarray(a, float)
    b = np.asarray(b, float)
    norm_a = np.linalg.norm(a)
    norm_b = np.linalg.norm(b)
    if norm_a == 0 or norm_b == 0:
        return a + np.multiply.outer(t, b - a)
    along = a / norm_a
    across = b / norm_b - (b / norm_b @ along) * along  # the part of b̂ that is perpendicular to â
    omega = math.atan2(np.linalg.norm(across), b / norm_b @ along)
    if np.linalg.norm(across) < 1e-12:  # any perpendicular direction does
        across = np.eye(len(a))[np.argmin(abs(along))]
        across -= (across @ along) * along
    across /= np.linalg.norm(across)
    turn = omega * np.asarray(t)
    direction = np.multiply.outer(np.cos(turn), along) + np.multiply.outer(np.sin(turn), across)
    return ((1 - t) * norm_a + t * norm_b)[:, None] * direction


def interpolation(ax, model, x, image_shape, stops=11, circle=True):
    """Draw E[x|z] on the way from the code of one image to that of another, for P pairs of images x (P, 2, D).

    Each pair has a row for the straight line and, with `circle`, one for the path of `great_circle`, which one latent
    does not have. The first and the last column are the two images themselves. stops is the number of points on the
    way, 11 unless given, with the codes of both images among them. The class of a conditional model is that of the
    first image of a pair all the way.
    """
    t = np.linspace(0, 1, stops)
    paths = {"straight": lambda a, b: a + np.multiply.outer(t, b - a)}
    if circle and model.n_latent > 1:
        paths["great circle"] = lambda a, b: great_circle(a, b, t)
    codes = model.encode_mean(x.reshape(-1, x.shape[-1])).reshape(len(x), 2, -1)
    rows = []
    for pair, (a, b) in zip(x, codes, strict=True):
        for path in paths.values():
            y = np.repeat(model.labels(pair[:1]), stops) if model.n_classes else None
            images = _unit(pair[:, : model.n_visible])
            rows += [images[:1], model.decode(path(a, b), y), images[1:]]
    image = image_grid(ax, np.concatenate(rows), image_shape, stops + 2)
    _label(ax, image_shape, [*paths] * len(x), ["image", *(f"{part:g}" for part in np.round(t, 2)), "image"])
    ax.set_xlabel("t, how much of the way from the image at the left to that at the right", fontsize=8)
    _title(
        ax,
        f"The way from one test image to another: {_mean_of(model)} at z between their codes",
        "Rows in turns: z on the straight line, and z on the great circle around the origin, for each pair of images"
        if len(paths) > 1
        else "Rows: z on the straight line between the codes, for each pair of images",
    )
    return image


def nearest(x, among):
    """Return the index (N,) of the row of `among` (M, D) nearest to each row of x (N, D), and the distances (N,).

    The distance is Euclidean, over pixels in [0, 1]. The nearest is found in single precision, 2,000 rows at a time.
    """
    x = _unit(x)
    centre = x.mean(axis=0).astype(np.float32)  # about which the numbers are small, so that few digits are lost
    near = np.float32(x) - centre
    least = np.full(len(x), np.inf, np.float32)
    index = np.zeros(len(x), int)
    for start in range(0, len(among), ROWS_AT_ONCE):
        rows = np.float32(_unit(among[start : start + ROWS_AT_ONCE])) - centre
        squares = np.einsum("md,md->m", rows, rows) - 2 * (near @ rows.T)  # |x - y|² less |x|²
        best = squares.argmin(axis=1)
        found = squares[np.arange(len(x)), best]
        index = np.where(found < least, start + best, index)
        least = np.minimum(found, least)
    return index, np.linalg.norm(x - _unit(among[index]), axis=1)


def nearest_training(axes, model, train, test, image_shape, n=250, columns=10, seed=0):
    """Draw samples, each with its nearest training image below it and the distance, a row of both on each axis.

    The samples are those of `samples`, E[x|z], and distances are those of `nearest`. The title has the median distance
    of n samples, 250 unless given, and as a yardstick that of as many test images. Since E[x|z] is smoother than an
    image, it lies closer to everything. So the title also says how often, among the test images and as many training
    images, the nearest to a sample is a training image: half of the time, unless the model has memorised these. It says
    "a sign of" memorising where that is three standard deviations above one half, with the names train and test
    exchanged at random between the images.

    train and test hold images as they are stored. Where pixels are drawn anew for each minibatch, they are the grey
    levels before that, as E[x|z] is.
    """
    made = model.sample(max(n, len(axes) * columns), seed)
    index, distance = nearest(np.concatenate([made, _unit(test[:n])]), train)
    for k, ax in enumerate(axes):
        some = slice(k * columns, (k + 1) * columns)
        image_grid(ax, np.concatenate([made[some], _unit(train[index[some]])]), image_shape, columns)
        _label(ax, image_shape, ["sample", "nearest"], [f"{d:.2f}" for d in distance[some]])
    ours = np.median(distance[: len(made)])
    yardstick = np.median(distance[len(made) :])
    share, deviation = _share_of_training(made, train, test, seed)
    sign = "a sign" if share > 0.5 + 3 * deviation else "no sign"
    _title(
        axes[0],
        "Do samples copy training images? Below each sample, E[x|z] at z ~ p(z), stands the nearest training image",
        "with the distance (Euclidean, over pixels in [0, 1]). The median distance is "
        f"{ours:.2f} from samples and {yardstick:.2f} from",
        f"test images: samples lie {'closer, as they are' if ours < yardstick else 'no closer, though'} smoother. "
        "Among as many test as training images,",
        f"a training image is the nearest to {share:.0%} of samples, and chance gives 50% ± {deviation:.0%}: "
        f"{sign} of memorising.",
    )
    return [ax.images[0] for ax in axes]


def _share_of_training(made, train, test, seed):
    """Return how many of the images `made` are nearest to a training image, among test images and as many of those.

    The share is followed by its standard deviation where names were given to the images at random. With c_i images of
    `made` nearest to image i, it is that of a sum over half of the 2n images, drawn without replacement, which has the
    variance n/2 times the sample variance of c.
    """
    n = min(len(train), len(test))
    generator = np.random.default_rng(seed)
    chosen = [images[generator.permutation(len(images))[:n]] for images in (train, test)]
    index, _ = nearest(made, np.concatenate(chosen))
    counts = np.bincount(index, minlength=2 * n)
    return counts[:n].sum() / len(made), math.sqrt(n / 2 * counts.var(ddof=1)) / len(made)


def latent_scatter(ax, mu, labels=None, classes=None, prior=True):
    """Draw posterior means mu (N, 2) as points, coloured by their labels (N,) where these are given.

    classes   holds the names of the labels 0, 1, … for the legend; for None it has the labels themselves.
    prior     says whether there is a prior N(0, I), of which a dashed circle shows two standard deviations.

    The name of each class stands at the median of its points too, unless there are more than twenty. After ten classes
    the colours begin again, with another marker. Unless mu has two columns, a ValueError is raised.
    """
    if mu.shape[1] != 2:
        raise ValueError(f"the scatter is drawn for 2 latent dimensions; these have {mu.shape[1]}")
    kinds, kind = np.unique(np.zeros(len(mu), int) if labels is None else labels, return_inverse=True)
    colours = np.array([to_rgba(COLOURS[k % len(COLOURS)]) for k in range(len(kinds))])
    points = []
    for k in range(-(-len(kinds) // len(COLOURS))):
        some = kind // len(COLOURS) == k
        marker = MARKERS[k % len(MARKERS)]
        points.append(ax.scatter(*mu[some].T, c=colours[kind[some]], s=4 if k == 0 else 9, marker=marker, linewidths=0))
    if prior:
        ellipses(ax, np.zeros((1, 2)), np.eye(2)[None], 2, color="0.4", ls="--", lw=0.8, zorder=3)
    more = "; dashed: 2 standard deviations of p(z)" if prior else ""
    _plane(ax, f"Where the codes of {len(mu):,} images lie, a point for each{more}")
    if labels is not None:
        names = [str(label) if classes is None else classes[label] for label in kinds]
        handles = [
            Line2D([], [], ls="", marker=MARKERS[k // len(COLOURS) % len(MARKERS)], color=colours[k], label=name)
            for k, name in enumerate(names)
        ]
        for k, name in enumerate(names if len(names) <= 2 * len(COLOURS) else []):
            middle = np.median(mu[kind == k], axis=0)
            text = ax.text(*middle, name, ha="center", va="center", weight="bold", color="black")
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        many = -(-len(handles) // 25)
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=many, title="class")
    return points


def latent_map(ax, codes, x, image_shape, across=30):
    """Draw images x (N, D) at their codes (N, 2) in the plane of z, as many as have room without overlapping.

    across   is how many images would have room beside each other over the width of all codes, 30 unless given.

    An image is left out where one before it has taken its room. It stands within half a pixel of its code.
    """
    thin = -(-max(image_shape[:2]) // 64)  # of a large image each second, third, … pixel, which is all that one sees
    tiles = _tiles(x, image_shape)[:, ::thin, ::thin]
    height, width = tiles.shape[1:3]
    low = codes.min(axis=0)
    span = np.ptp(codes, axis=0).max() or 1.0  # of one image alone
    size = span / (across * max(height, width))  # of a pixel, in units of z
    corners = np.rint((codes - low) / size).astype(int) * [1, -1]  # of each image: columns to the right, rows downwards
    corners -= corners.min(axis=0)
    chosen = _apart(corners, width, height)
    right, below = corners.max(axis=0) + np.array([width, height])
    canvas = np.ones((below, right, 4))
    canvas[..., 3] = 0  # clear where no image is
    for (left, top), tile in zip(corners[chosen], tiles[chosen], strict=True):
        canvas[top : top + height, left : left + width, :3] = tile if tile.ndim == 3 else tile[..., None]
        canvas[top : top + height, left : left + width, 3] = 1
    x0, y0 = low - np.array([width, height]) / 2 * size
    extent = (x0, x0 + right * size, y0, y0 + below * size)
    image = ax.imshow(canvas, extent=extent, interpolation="nearest")
    middle = (low + codes.max(axis=0)) / 2
    limits = np.array([-1, 1]) * (span / 2 + max(height, width) * size)
    _plane(ax, f"{len(chosen):,} of {len(x):,} images, each in the place of its own code: those that have room")
    ax.set_xlim(*middle[0] + limits)
    ax.set_ylim(*middle[1] + limits)
    ax.set_adjustable("box")
    return image


def _apart(corners, width, height):
    """Return the indices of images, from the first on, that do not touch: corners (N, 2) are (left, top) in pixels."""
    chosen = []
    taken = np.zeros((len(corners), 2), int)
    for k, corner in enumerate(corners):
        away = np.abs(taken[: len(chosen)] - corner) > [width, height]
        if away.any(axis=1).all():
            taken[len(chosen)] = corner
            chosen.append(k)
    return np.array(chosen)


def _plane(ax, title):
    """Give an axis the title, the labels and the scale of the plane of two latents."""
    _title(ax, title)
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    ax.set_aspect("equal", "datalim")


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
    _title(bars, "KL of each latent, the largest first")
    bars.set_xlabel("latents (grey: not active)")
    bars.set_ylabel("KL(q(z_j|x) ‖ p(z_j)), nats")
    _title(colours, "KL of each latent while it was trained")
    colours.set_xlabel("training samples evaluated")
    colours.set_ylabel("latents, in the same order")
    _title(parts, "what the rate is made of")
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
        later = np.nanmax(history["kl"][len(history) // 3 :], initial=1e-3)  # the first steps may have far larger ones
        style = {"cmap": "cividis", "vmin": 0, "vmax": later, "rasterized": True}
        mesh = colours.pcolormesh(edges, steps, history["kl"][:, order].T, **style)
        colours.figure.colorbar(mesh, ax=colours, label="nats", extend="max")
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
    _title(
        ax,
        "What the decoder makes of a random walk in z: E[x|z], in reading order",
        f"(each step is a draw of N(0, sd² I) with sd {sd:g})",
    )
    return image_grid(ax, model.decode(np.cumsum(moves, axis=0)), image_shape, columns)


def uncertainty(axes, x, draws, image_shape):
    """Draw on three axes the originals, and the mean and the standard deviation of their reconstructions.

    x (N, D) holds the originals, and draws (S, N, D) the reconstructions from S draws of z, as
    `model.reconstruct_samples` gives them. The largest standard deviation is drawn in white, and the title names it;
    for colour it is that of each of the three colours.
    """
    spread = draws.std(axis=0)
    rows = [
        (x, "originals"),
        (draws.mean(axis=0), f"the mean of {len(draws)} reconstructions, E[x|z] at draws z ~ q(z|x)"),
        (
            spread / max(spread.max(), 1e-12),
            f"what q(z|x) leaves open: their standard deviation, black 0, white {spread.max():.2f} (white is 1 above)",
        ),
    ]
    artists = []
    for ax, (images, title) in zip(axes, rows, strict=True):
        artists.append(image_grid(ax, images, image_shape, max(5, len(images))))
        _title(ax, title)
    return artists


def theta_uncertainty(axes, model, x, image_shape, draws=64, seed=0):
    """Draw on four axes what a `FullVB` leaves open about images x (N, D): through z, and through θ.

    The pictures show the originals; E[x|z] at the means of z and θ; its standard deviation over z ~ q(z|x) at the mean
    of θ; and its standard deviation over θ ~ q(θ) at the mean of z. `draws` is the number of draws of z and of θ, 64
    unless given.
    """
    z = model.encode_mean(x)
    over_z = model.reconstruct_samples(x, draws, seed).std(axis=0)
    y = model.labels(x)
    over_theta = np.std([model.theta_sample(seed + k).decode(z, y) for k in range(draws)], axis=0)
    rows = [(x[:, : model.n_visible], "originals"), (model.decode(z, y), f"{_mean_of(model)} at the means of z and θ")]
    for sd, name in [(over_z, "z ~ q(z|x)"), (over_theta, "θ ~ q(θ)")]:
        rows.append((sd / max(sd.max(), 1e-12), f"its sd over {name}; white: {sd.max():.2f}"))
    artists = []
    for ax, (images, title) in zip(axes, rows, strict=True):
        artists.append(image_grid(ax, images, image_shape, -(-len(images) // 2)))
        _title(ax, title)
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


def _tiles(images, image_shape):
    """Return images (N, D) as they are drawn: (N, height, width) or (N, height, width, 3), from 0 to 1."""
    tall, wide = _stretch(image_shape)
    tiles = np.asarray(Normalize(0, 1, clip=True)(_unit(images))).reshape(-1, *image_shape)
    return tiles.repeat(tall, axis=1).repeat(wide, axis=2)


def _stretch(image_shape):
    """Return how often each row and each column of pixels is drawn: more than once in very wide or high images."""
    height, width = image_shape[:2]
    return max(1, width // (2 * height)), max(1, height // (2 * width))


def _drawn_shape(image_shape):
    """Return the height and the width of the array as which an image is drawn."""
    return np.multiply(image_shape[:2], _stretch(image_shape))


def _title(ax, *lines):
    """Write the title of a picture: it stands at the left, and small, so that whole sentences have room."""
    ax.set_title("\n".join(lines), fontsize=8, loc="left")


def _label(ax, image_shape, left, below):
    """Write names beside the rows of an `image_grid` and below its columns."""
    height, width = _drawn_shape(image_shape)
    ax.set_axis_on()
    ax.set_frame_on(False)
    ax.tick_params(length=0, labelsize=7)
    ax.set_yticks((height + 1) * np.arange(len(left)) + (height + 1) / 2, left)
    ax.set_xticks((width + 1) * np.arange(len(below)) + (width + 1) / 2, below)


def figure(width=6.0, height=6.0):
    """Return a Matplotlib figure and its one axis, without pyplot's global state. The sizes are in inches."""
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return fig, fig.add_subplot()


class DrawingError(ValueError):
    """Is raised when pictures of a run could not be drawn; `paths` are those of the pictures that were."""

    def __init__(self, message, paths):
        super().__init__(message)
        self.paths = paths


def draw_run(folder, model, data, history, seed=0, use=None, progress=None, kept=None):
    """Write every picture that suits the model into `folder` as PNG files, and return their paths.

    model      is a trained model.
    data       is the `Data` that it was trained on; the images shown are those of its test split.
    history    is what `fit` returned. If it has rows, the first of the pictures is their learning curve.
    use        is what `inference.information` returned, for a picture of what the latents carry; None draws none.
    progress   is called with the number of pictures, and returns a bar whose `update(1)` is called after each; None,
               the default, for no bar.
    kept       is after how many samples the model was as it is, where it is not the one of the end; None unless given.

    If some pictures cannot be drawn, the others are, and then a DrawingError names those that are missing, and why.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DrawingError(f"{folder} cannot be made ({error.strerror})", []) from error
    pictures = _pictures(model, data, history, seed, use, kept)
    paths = []
    failures = {}
    with contextlib.nullcontext() if progress is None else progress(len(pictures)) as bar:
        for name, draw in pictures.items():
            path = folder / f"{name}.png"
            reason = _write(path, draw)
            if reason is None:
                paths.append(path)
            else:
                failures[name] = reason
            if bar is not None:
                bar.update(1)
    if failures:
        reasons = "; ".join(dict.fromkeys(failures.values()))
        raise DrawingError(f"{', '.join(failures)} could not be drawn ({reasons})", paths)
    return paths


def _write(path, draw):
    """Write the figure that `draw` returns to a PNG file, and return None, or else why it could not be drawn."""
    part = path.with_suffix(f".png.{secrets.token_hex(8)}.tmp")  # no half of a picture has its name, nor two one
    try:
        with own_settings():
            draw().savefig(part, format="png")
        part.replace(path)
    except Exception as error:  # Matplotlib, its backends and LaTeX raise many kinds
        with contextlib.suppress(OSError):  # what cannot be written cannot be removed
            part.unlink(missing_ok=True)
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        if isinstance(error, OSError) and error.filename == str(part):
            reason = f"{path.parent} cannot be written to, {error.strerror}"
        return f"{type(error).__name__}: {reason}"
    return None


def _pictures(model, data, history, seed, use, kept):
    """Return by name the functions that draw the pictures of a run, each of which returns a figure."""
    full_vb = hasattr(model, "theta_sample")
    objective = getattr(model.estimator, "func", model.estimator)
    code_alone = not getattr(objective, "bound", True)
    x = data.test[:50]
    pixels = data.pixels("test")
    shape = data.image_shape
    columns = min(max(5, len(x)), 10)
    pairs = _pairs(data.test_labels, len(data.test), 4, seed, alike=data.n_classes > 0)
    C = data.n_classes
    side = C if 0 < C <= 20 else 10  # so that each class has a column where there are few
    paths = 1 if code_alone or model.n_latent == 1 else 2  # straight, and on a great circle

    def curve():
        fig, ax = figure(6, 4)
        names = ["train, (22) with the θ-KL", "validation, at the mean of θ"] if full_vb else []
        if getattr(objective, "together", False):
            names = [f"train, of {model.n_samples} draws together", "validation, (7)"]
            if full_vb:
                names = [f"{names[0]}, with the θ-KL", f"{names[1]} at the mean of θ"]
        learning_curve(ax, history, *names, kept=kept)
        if code_alone:
            _title(ax, "What is ascended while the model is trained: higher is better")
            ax.set_ylabel("log p(x|z) at the code (nats per datapoint)")
        return fig

    def spread():
        fig = grids(1, columns, parts=3)
        uncertainty(fig.subplots(3), pixels[:10], model.reconstruct_samples(x[:10], 64, seed), shape)
        return fig

    def spread_of_theta():
        fig = grids(2, 16, 10)
        theta_uncertainty(fig.subplots(1, 4), model, x[:8], shape, seed=seed)
        return fig

    def what_latents_carry():
        fig = sized(12, 3.4)
        latent_use(fig.subplots(1, 3), use, history)
        return fig

    def nearest_images():
        fig = grids(2, 10, width=7, parts=3)
        nearest_training(fig.subplots(3), model, data.pixels("train"), pixels, shape, seed=seed)
        return fig

    def grids(rows, columns, width=6.0, parts=1):
        """Return a figure of this width for `parts` grids below each other, each with room for a title and labels."""
        high, wide = _drawn_shape(shape) + 1
        height = 0.6 + parts * (0.25 + width * rows * high / (columns * wide))
        return sized(width, max(height, 1.5))

    def sized(width, height):
        return Figure(figsize=(width, height), dpi=DPI, layout="constrained")

    def one(fig, draw, *arguments, **settings):
        draw(fig.add_subplot(), *arguments, **settings)
        return fig

    pictures = {}
    if len(history):
        pictures["learning_curve"] = curve
    pictures["reconstructions"] = lambda: one(
        grids(2 * -(-len(x) // columns), columns), reconstructions, pixels[:50], model.reconstruct(x), shape, columns
    )
    if not code_alone:  # a plain autoencoder learns neither a q(z|x) nor which z to expect
        if use is not None:
            pictures["latents"] = what_latents_carry
        pictures["traversals"] = lambda: one(
            grids(len(_ranked(model.n_latent, use, 10)[0]), 13, 8), traversals, model, data.test[0], shape, use
        )
        pictures["uncertainty"] = spread
        if full_vb:
            pictures["theta_uncertainty"] = spread_of_theta
        pictures["samples"] = lambda: one(grids(10, side), samples, model, shape, 10 * side, side, seed=seed)
        if C:
            pictures["styles"] = lambda: one(grids(10, C), styles, model, shape, 10, data.classes, seed=seed)
        pictures["nearest"] = nearest_images
        if not C:
            pictures["random_walk"] = lambda: one(grids(10, 10), random_walk, model, shape, seed=seed)
        if model.n_latent == 2 and not C:
            pictures["manifold"] = lambda: one(grids(20, 20, 8), manifold, model, shape)
    if len(pairs):
        pictures["interpolation"] = lambda: one(
            grids(len(pairs) * paths, 13, 8), interpolation, model, data.test[pairs], shape, circle=paths == 2
        )
    if model.n_latent == 2:
        codes = model.encode_mean(data.test)
        pictures["latent"] = lambda: one(
            sized(7, 6), latent_scatter, codes, data.test_labels, data.classes, prior=not code_alone
        )
        pictures["latent_map"] = lambda: one(sized(8, 8), latent_map, codes, pixels, shape)
    return pictures


def _pairs(labels, n, most, seed, alike=False):
    """Return at most so many pairs of n images, (P, 2), no image twice.

    Their labels differ while there are such, or they are the same with `alike`.
    """
    left = list(np.random.default_rng(seed).permutation(n))
    pairs = []
    while len(left) > 1 and len(pairs) < most:
        first = left.pop(0)
        others = (k for k in left if labels is None or (labels[k] == labels[first]) == alike)
        partner = next(others, left[0])
        left.remove(partner)
        pairs.append((first, partner))
    return np.array(pairs, int).reshape(-1, 2)
