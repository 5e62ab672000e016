"""plots.py and bench/: what is drawn is read back from the artists, and what is counted from a clock of the test's.

Every function of plots.py is here with the arrays behind its artists, its grey scale, its limits, labels, legends and
titles, and so is every picture of a run, caught when it is about to be saved.
"""

import contextlib
import importlib
import inspect
import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DPI, small
from matplotlib.colors import to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.markers import MarkerStyle
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from scratchvae import VAE, FullVB, bench, plots
from scratchvae.inference.information import information
from scratchvae.training.run import HISTORY, with_latents

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHAPE = (2, 3)


@pytest.fixture
def ax():
    return plots.figure()[1]


CURVES = np.array([(k, 1000 * k, k / 2, 3 * k - 90, 2 * k - 100, k / 10) for k in range(1, 11)], HISTORY)


def tiles(image, shape, columns, count):
    """The first `count` images of a grid, (count, height, width), from the array behind its artist."""
    height, width = shape
    canvas = np.asarray(image.get_array())
    rows = -(-count // columns)
    found = []
    assert 0 < count <= rows * columns
    for k in range(count):
        top, left = 1 + k // columns * (height + 1), 1 + k % columns * (width + 1)
        found.append(canvas[top : top + height, left : left + width])
    assert canvas.shape[1] == columns * (width + 1) + 1 and canvas.shape[0] >= rows * (height + 1) + 1
    assert (canvas[:: height + 1] == 0.5).all() and (canvas[:, :: width + 1] == 0.5).all()  # grey lines between them
    return np.array(found)


def assert_grey(image):
    """Black is 0 and white is 1, whatever the array holds, pixel for pixel, from the top downwards."""
    assert image.get_clim() == (0, 1)
    assert_allclose(image.cmap([0.0, 0.5, 1.0]), [[0, 0, 0, 1], to_rgba("0.5"), [1, 1, 1, 1]], atol=0.003)
    assert image.get_interpolation() == "nearest" and image.origin == "upper"
    assert not image.axes.axison


def assert_title(ax, text):
    """A title stands at the left, and small: the words of the widest picture have room there."""
    assert ax.get_title(loc="left") == text and not ax.get_title()
    assert ax._left_title.get_fontsize() == 8


def assert_grid(axis, minor=False):
    """Light lines stand at the major ticks of an axis, and at the minor ones too where it says so."""
    major = [tick.gridline for tick in axis.get_major_ticks()]
    between = [tick.gridline for tick in axis.get_minor_ticks()]
    assert major and all(line.get_visible() for line in major)
    assert all(line.get_visible() == minor for line in between)
    assert {line.get_alpha() for line in major + between if line.get_visible()} == {0.3}


def place(artist):
    """Where an artist of an axis stands when it is drawn: (x0, y0, x1, y1), in units of the axis."""
    figure = artist.get_figure()
    figure.draw_without_rendering()
    return artist.get_window_extent().transformed(artist.axes.transAxes.inverted()).extents


def assert_images(image, expected, shape=SHAPE, columns=None, rtol=1e-6):
    """The pictures in a grid are `expected` (N, D), in [0, 1], and on the common grey scale."""
    assert_grey(image)
    found = tiles(image, shape, columns or len(expected), len(expected))
    assert_allclose(found, np.reshape(expected, (-1, *shape)), rtol=rtol, atol=1e-7)


def assert_fits(figure, width, height):
    """A figure has its size in inches, 150 dots in each of them, and makes room for what stands beside its axes."""
    assert_allclose(figure.get_size_inches(), [width, height])
    assert figure.get_dpi() == plots.DPI and DPI == 150  # what a user has; the tests have fewer
    assert isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)


# One function after the other


def test_learning_curve_draws_each_bound_in_its_own_style_with_its_own_name(ax):
    train, valid = plots.learning_curve(ax, CURVES, "one", "two")
    for line, column, label, style in [(train, "train_bound", "one", "--"), (valid, "valid_bound", "two", "-")]:
        assert_array_equal(line.get_xdata(), CURVES["samples"])
        assert_array_equal(line.get_ydata(), CURVES[column])
        assert (line.get_label(), line.get_linestyle()) == (label, style)
    assert ax.get_xlabel() == "training samples evaluated" and ax.get_ylabel() == "bound (nats per datapoint)"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    later = np.concatenate([CURVES["train_bound"][2:], CURVES["valid_bound"][2:]])  # without the first fifth
    room = 0.1 * np.ptp(later)
    assert_allclose(ax.get_ylim(), (later.min() - room, later.max() + room))
    marked = plots.figure()[1]
    plots.learning_curve(marked, CURVES, kept=int(CURVES["samples"][3]))
    assert_array_equal(marked.lines[-1].get_xdata(), CURVES["samples"][[3, 3]])
    assert marked.get_legend().get_texts()[-1].get_text() == f"kept, at {CURVES['samples'][3]:,} samples"
    defaults = plots.learning_curve(plots.figure()[1], CURVES)
    assert [line.get_label() for line in defaults] == ["train", "validation"]
    assert_title(ax, "The bound while the model was trained: higher is better")
    assert_grid(ax.xaxis)
    assert_grid(ax.yaxis)
    assert {to_rgba(line.get_color()) for line in (train, valid)} == {to_rgba("C0")}  # told apart by their styles
    x0, y0, x1, y1 = place(ax.get_legend())
    assert 0.5 < x0 < x1 < 1 and 0 < y0 < y1 < 0.5  # at the lower right
    small = CURVES.copy()
    for column in ("train_bound", "valid_bound"):
        small[column] = np.arange(10) / 100
    plots.learning_curve(ax, small)
    assert_allclose(ax.get_ylim(), (0.02 - 0.007, 0.09 + 0.007))  # however little it moves


@pytest.mark.filterwarnings("error")
def test_a_learning_curve_that_does_not_move_is_drawn_within_the_limits_that_matplotlib_takes(ax):
    still = CURVES.copy()
    still["train_bound"] = -3
    still["valid_bound"] = np.nan
    (line,) = plots.learning_curve(ax, still)
    assert_array_equal(line.get_ydata(), np.full(10, -3.0))
    low, high = ax.get_ylim()
    assert low < -3 < high


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, float])
def test_grids_have_one_grey_scale_whatever_the_pixels_are(ax, dtype):
    dark = np.array([[0, 10, 20, 30, 40, 51]] * 4)  # no pixel is near white, nor is the range its own
    x = dark.astype(dtype) if dtype == np.uint8 else (dark / 255).astype(dtype)
    image = plots.image_grid(ax, x, SHAPE, columns=3)
    assert_images(image, dark / 255, columns=3)
    assert np.asarray(image.get_array()).shape == (2 * 3 + 1, 3 * 4 + 1)
    assert np.asarray(image.get_array())[4:6, 5:].max() == 0.5  # where the last row ends
    assert image.axes is ax


def test_reconstructions_stand_below_their_originals_row_by_row(ax):
    x, other = np.random.default_rng(0).random((2, 5, 6))
    image = plots.reconstructions(ax, x, other, SHAPE, columns=3)
    grey = np.full((1, 6), 0.5)
    assert_images(image, np.concatenate([x[:3], other[:3], x[3:], grey, other[3:], grey]), columns=3)
    columns = inspect.signature(plots.reconstructions).parameters["columns"].default
    assert columns == 10
    assert_title(
        ax,
        "What the model keeps of images. Rows in turns: originals, and below each\n"
        "its reconstruction, E[x|z] at the code of the original",
    )


def test_samples_are_the_decoders_means_at_draws_of_the_prior_with_the_seed(ax):
    model = small()
    image = plots.samples(ax, model, SHAPE, n=6, columns=3, seed=4)
    z = np.random.default_rng(4).standard_normal((6, 2))
    assert_images(image, model.decode(z), columns=3)
    hundred = model.decode(np.random.default_rng(0).standard_normal((100, 2)))
    assert_images(plots.samples(ax, model, SHAPE), hundred, columns=10)
    plots.samples(ax, model, SHAPE, n=7)
    assert_title(ax, "What the model makes up: E[x|z] at 7 draws z ~ p(z)\n(rows and columns have no order)")


def test_the_first_latent_of_the_manifold_runs_downwards_and_the_second_to_the_right(ax):
    model = small()
    image = plots.manifold(ax, model, SHAPE, rows=3, columns=5)
    grid = [(norm.ppf(r / 4), norm.ppf(c / 6)) for r in range(1, 4) for c in range(1, 6)]
    assert_images(image, model.decode(np.array(grid)), columns=5)
    assert_title(
        ax,
        "What the decoder makes of each place in the plane of z: E[x|z], in steps of equal probability under p(z)\n"
        "Rows: $z_1$ from -0.67 at the top to 0.67. Columns: $z_2$ from -0.97 at the left to 0.97.",
    )
    whole = plots.manifold(ax, model, SHAPE)
    corner = np.array([[norm.ppf(1 / 21), norm.ppf(20 / 21)]])  # of 20 x 20, at the top to the right
    assert_allclose(tiles(whole, SHAPE, 20, 400)[19], model.decode(corner).reshape(SHAPE), rtol=1e-6)


def test_the_scatter_has_z_1_to_the_right_z_2_upwards_and_a_colour_for_each_label(ax):
    mu = np.random.default_rng(0).standard_normal((20, 2)) * [1, 5]
    labels = np.arange(20) % 4
    (points,) = plots.latent_scatter(ax, mu, labels)
    assert_array_equal(points.get_offsets(), mu)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert ax.get_aspect() == 1
    assert_array_equal(points.get_facecolors(), [to_rgba(plots.COLOURS[k]) for k in labels])
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2", "3"]
    for k, handle in enumerate(legend.legend_handles):
        assert to_rgba(handle.get_color()) == to_rgba(plots.COLOURS[k]) and handle.get_marker() == "o"
    assert not legend.get_frame_on() and ax.get_adjustable() == "datalim"
    assert_array_equal(points.get_sizes(), [4])
    x0, y0, _, y1 = place(legend)
    assert 1 < x0 < 1.2 and (y0 + y1) / 2 == pytest.approx(0.5)  # just beside the points, halfway up
    assert {text.get_text(): text.get_position() for text in ax.texts} == {
        str(k): tuple(np.median(mu[labels == k], axis=0)) for k in range(4)
    }
    (circle,) = ax.lines
    assert_allclose(np.hypot(*circle.get_data()), 2)
    assert_title(ax, "Where the codes of 20 images lie, a point for each; dashed: 2 standard deviations of p(z)")
    (plain,) = plots.latent_scatter(plots.figure()[1], mu, prior=False)
    assert plain.axes.get_legend() is None and not plain.axes.lines and not plain.axes.texts
    assert_array_equal(np.unique(plain.get_facecolors(), axis=0), [to_rgba(plots.COLOURS[0])])
    assert_title(plain.axes, "Where the codes of 20 images lie, a point for each")


def test_the_legend_names_the_classes_whose_colours_it_shows_also_where_some_have_no_image(ax):
    names = ("cat", "dog", "cow", "owl")
    mu = np.random.default_rng(0).standard_normal((9, 2))
    labels = np.array([3, 1, 3, 3, 1, 0, 0, 3, 1])  # no cow
    (points,) = plots.latent_scatter(ax, mu, labels, names)
    colour = {
        text.get_text(): to_rgba(handle.get_color())
        for text, handle in zip(ax.get_legend().get_texts(), ax.get_legend().legend_handles, strict=True)
    }
    assert list(colour) == ["cat", "dog", "owl"] and len(set(colour.values())) == 3
    assert_array_equal(points.get_facecolors(), [colour[names[k]] for k in labels])
    assert ax.get_legend().get_title().get_text() == "class"


def test_more_than_ten_classes_have_other_markers_and_no_two_the_same_colour_and_marker(ax):
    mu = np.random.default_rng(0).standard_normal((69, 2))
    labels = np.arange(69) % 23
    some = plots.latent_scatter(ax, mu, labels)
    legend = ax.get_legend()
    seen = [(to_rgba(handle.get_color()), handle.get_marker()) for handle in legend.legend_handles]
    assert len(seen) == len(set(seen)) == len(legend.get_texts()) == 23 and len(some) == 3
    for k, points in enumerate(some):
        own = labels // 10 == k
        assert_array_equal(points.get_offsets(), mu[own])
        assert_array_equal(points.get_facecolors(), [seen[label][0] for label in labels[own]])
        marker = MarkerStyle(seen[10 * k][1])
        assert_allclose(points.get_paths()[0].vertices, marker.get_path().transformed(marker.get_transform()).vertices)
    assert not ax.texts  # so many names hide the points


SEEN_BY = {  # linear RGB as it looks with full loss of a kind of cones: Machado, Oliveira & Fernandes 2009
    "all": np.eye(3),
    "protanopes": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopes": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopes": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def least_difference(colours, seen_by):
    """The smallest distance between two colours in CIELAB, as these people see them."""
    rgb = np.array([to_rgba(colour)[:3] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.array(SEEN_BY[seen_by]).T
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear, 0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1], 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_the_colours_of_ten_classes_are_told_apart_with_any_kind_of_colour_vision(seen_by):
    assert len(plots.COLOURS) == 10 and least_difference(plots.COLOURS, seen_by) > 17
    tab10 = [f"C{k}" for k in range(10)]
    assert least_difference(tab10, "protanopes") < 5  # control


def test_an_ellipse_is_where_the_mahalanobis_distance_is_sd(ax):
    means = np.array([[0.0, 1.0], [2.0, -1.0]])
    covariances = np.array([[[1.0, 0.6], [0.6, 2.0]], [[0.5, 0.0], [0.0, 0.1]]])
    for sd, arguments in [(2, {}), (3, {"sd": 3, "color": "C3"})]:
        lines = plots.ellipses(ax, means, covariances, **arguments)
        for line, mean, covariance in zip(lines, means, covariances, strict=True):
            d = line.get_xydata() - mean
            assert_allclose(np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d), sd**2, rtol=1e-9)
            assert_allclose(d[0], d[-1], atol=1e-9)  # closed
            assert np.ptp(np.unwrap(np.arctan2(d[:, 1], d[:, 0]))) > 6.2  # once around
            assert len(d) == 200  # so many that no corner is seen
    assert to_rgba(lines[0].get_color()) == to_rgba("C3")


def test_a_random_walk_is_the_cumulated_sum_of_its_moves(ax):
    model = small()
    image = plots.random_walk(ax, model, SHAPE, steps=6, sd=0.3, columns=3, seed=7)
    moves = np.random.default_rng(7).standard_normal((6, 2))
    z = np.array([moves[0] + 0.3 * moves[1 : k + 1].sum(axis=0) for k in range(6)])
    assert_images(image, model.decode(z), columns=3)
    defaults = {name: p.default for name, p in inspect.signature(plots.random_walk).parameters.items()}
    assert [defaults[name] for name in ("steps", "sd", "columns", "seed")] == [100, 0.1, 10, 0]
    assert_title(
        ax,
        "What the decoder makes of a random walk in z: E[x|z], in reading order\n"
        "(each step is a draw of N(0, sd² I) with sd 0.3)",
    )


def test_uncertainty_has_originals_means_and_spreads_in_this_order_each_with_its_title():
    draws = 0.2 + 0.3 * np.random.default_rng(0).random((16, 4, 6))
    x = np.random.default_rng(1).integers(0, 256, (4, 6), dtype=np.uint8)
    axes = plots.Figure().subplots(3)
    images = plots.uncertainty(axes, x, draws, SHAPE)
    spread = draws.std(axis=0)
    for image, one, expected in zip(images, axes, [x / 255, draws.mean(axis=0), spread / spread.max()], strict=True):
        assert_images(image, expected, columns=5)  # fewer images are no larger than five
        assert image.axes is one
    titles = [
        "originals",
        "the mean of 16 reconstructions, E[x|z] at draws z ~ q(z|x)",
        f"what q(z|x) leaves open: their standard deviation, black 0, white {spread.max():.2f} (white is 1 above)",
    ]
    for one, title in zip(axes, titles, strict=True):
        assert_title(one, title)


def full_vb(**settings):
    """A FullVB 6-5-2 of which z and θ leave different things open: the spread over θ is the larger one by far."""
    settings = {"init": 0.5, "init_biases": True, "dtype": "float64", "log_sigma": -0.5} | settings
    model = FullVB(6, 5, 2, **settings)
    model.params.named(model.params.value)["encoder.log_var.b"][...] = -4
    return model


def test_the_spread_over_z_is_at_the_mean_of_theta_and_that_over_theta_at_the_mean_of_z():
    model = full_vb()
    x = np.random.default_rng(1).random((4, 6))
    axes = plots.Figure().subplots(1, 4)
    images = plots.theta_uncertainty(axes, model, x, SHAPE, draws=8, seed=3)
    mu, log_var = model.encode(x)
    eps = np.random.default_rng(3).standard_normal((8, 4, 2))
    over_z = np.std([model.decode(mu + np.exp(0.5 * log_var) * e) for e in eps], axis=0)
    over_theta = np.std([model.theta_sample(3 + k).decode(mu) for k in range(8)], axis=0)
    assert over_theta.max() > 3 * over_z.max()  # control: they cannot be taken for each other
    expected = [x, model.decode(mu), over_z / over_z.max(), over_theta / over_theta.max()]
    for image, one, array in zip(images, axes, expected, strict=True):
        assert_images(image, array, columns=2)
        assert image.axes is one
    assert_title(axes[0], "originals")
    assert_title(axes[1], "E[x|z] at the means of z and θ")
    assert_title(axes[2], f"its sd over z ~ q(z|x); white: {over_z.max():.2f}")
    assert_title(axes[3], f"its sd over θ ~ q(θ); white: {over_theta.max():.2f}")
    defaults = inspect.signature(plots.theta_uncertainty).parameters
    assert defaults["draws"].default == 64 and defaults["seed"].default == 0


def test_step_costs_has_a_line_of_milliseconds_against_each_size_with_the_others_as_usual():
    names = ("batch_size", "n_hidden", "n_latent", "n_visible")
    sizes = {"batch_size": [20, 100, 500], "n_hidden": [300, 500], "n_latent": [2, 20], "n_visible": [196, 784]}
    works = bench.sweep(["numpy", "cupy"], ["float32", "float64"], sizes, ["vae", "full-vb"])

    def ms(work):
        slow = {"numpy": 2.0, "cupy": 1.0}[work.backend] * {"float32": 1.0, "float64": 1.7}[work.dtype]
        return slow * (1 + sum(getattr(work, name) / k for name, k in zip(names, (3, 7, 11, 13), strict=True)))

    rows = [{**vars(work), "ms": ms(work), "ms_median": 999.0} for work in works]
    axes = plots.Figure().subplots(1, 4)
    lines = plots.step_costs(axes, rows[::-1][::-1])
    assert lines == [line for ax in axes for line in ax.lines] and len(lines) == 16
    labels = ["minibatch M", "hidden H", "latent J", "pixels D"]
    for ax, name, label in zip(axes, names, labels, strict=True):
        assert ax.get_xlabel() == label and ax.get_xscale() == ax.get_yscale() == "log"
        assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(size) for size in sizes[name]]
        assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {30.0}
        assert len(ax.get_xticks(minor=True)) == 0  # only the sizes have marks
        assert_grid(ax.xaxis)
        assert_grid(ax.yaxis, minor=True)
        kinds = list(itertools.product(["numpy", "cupy"], ["float32", "float64"]))
        for line, (backend, dtype) in zip(ax.lines, kinds, strict=True):
            assert line.get_label() == f"vae {backend} {dtype}"
            assert line.get_linestyle() == ("-" if dtype == "float32" else "--") and line.get_marker() == "o"
            assert line.get_markersize() == 3
            assert_array_equal(line.get_xdata(), sizes[name])
            expected = [ms(bench.Workload(backend, dtype, **{name: size})) for size in sizes[name]]
            assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    assert axes[0].get_ylabel() == "ms per training step" and not any(ax.get_ylabel() for ax in axes[1:])
    legend = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert legend == [line.get_label() for line in axes[0].lines]


@pytest.mark.parametrize(("ratio", "between"), [(5, True), (30, False)])  # less than a decade, and more
def test_step_costs_names_the_milliseconds_between_the_powers_of_ten_where_there_are_few_of_those(ratio, between):
    works = [bench.Workload(batch_size=M) for M in (10, 100)]
    rows = [{**vars(work), "ms": ms} for work, ms in zip(works, (2.0, 2.0 * ratio), strict=True)]
    axes = plots.Figure().subplots(1, 4)
    plots.step_costs(axes, rows)
    format_major, format_minor = axes[0].yaxis.get_major_formatter(), axes[0].yaxis.get_minor_formatter()
    assert format_major(10.0) == "10" and format_major(0.1) == "0.1"
    assert format_minor(3.0) == ("3" if between else "")


def test_step_costs_of_no_usual_size_have_no_legend():
    """Where no row has the sizes that most rows have, the first axis has no line, and no legend of nothing."""
    sizes = [(20, 300, 20, 784), (10, 500, 20, 196), (30, 500, 2, 196), (20, 300, 2, 196)]
    names = ("batch_size", "n_hidden", "n_latent", "n_visible")
    rows = [{**vars(bench.Workload(**dict(zip(names, size, strict=True)))), "ms": 1.0} for size in sizes]
    axes = plots.Figure().subplots(1, 4)
    lines = plots.step_costs(axes, rows)
    assert lines == [line for ax in axes for line in ax.lines] and len(lines) > 0
    assert len(axes[0].lines) == 0 and len(axes[3].lines) == 1 and axes[0].get_legend() is None


def test_the_roofline_has_its_ceilings_and_a_point_for_each_operation_with_flops():
    peaks = {"gflops": 100.0, "cache_gb_s": 50.0, "memory_gb_s": 10.0}
    shares = [0.5, 0.2, 0.1, 0.1, 0.002]
    numbers = [(40, 80.0), (0.1, 2.0), (0.0, 0.0), (0.101, 2.0), (0.1, 1.0)]  # the third has no flops
    operations = [
        {"phase": "bound" if k else "update", "owner": f"o{k}", "place": f"p:{k}", "share": share}
        | {"flops": intensity, "intensity": intensity, "gflops": rate}
        for k, (share, (intensity, rate)) in enumerate(zip(shares, numbers, strict=True))
    ]
    ax = plots.Figure().subplots()
    artists = plots.roofline(ax, {"peaks": peaks, "operations": operations})
    cache, memory, product = ax.lines
    for line, bandwidth in ((cache, 50), (memory, 10)):
        assert_allclose(line.get_ydata(), bandwidth * np.array(line.get_xdata()), rtol=1e-12)
        assert line.get_ydata()[1] == 100  # there the bandwidth is enough
    assert list(product.get_ydata()) == [100, 100] and product.get_xdata()[0] == cache.get_xdata()[1] == 2
    assert artists == [*ax.lines, *ax.collections] and len(ax.collections) == 3
    places = [tuple(points.get_offsets()[0]) for points in ax.collections]
    assert places == [(40, 80), (0.1, 2), (0.101, 2)]
    sizes = [points.get_sizes()[0] for points in ax.collections]
    assert_allclose(sizes, [10 + 2000 * share for share in (0.5, 0.2, 0.1)])
    assert [text.get_text() for text in ax.texts] == ["1", "2 4"]  # the numbers of the table; two lie together
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[:3] == ["50 GB/s, in the cache", "10 GB/s, in memory", "100 GFLOP/s, a large matrix product"]
    assert legend[3:] == ["1  50.0% update o0 p:0", "2  20.0% bound o1 p:1", "4  10.0% bound o3 p:3"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlabel() == "intensity (flops per byte)" and ax.get_ylabel() == "rate (GFLOP/s)"
    assert len(plots.roofline(plots.Figure().subplots(), {"peaks": peaks, "operations": operations}, 1)) == 6


def beside(ax):
    """What stands at the left of the rows of a grid and below its columns, with the places."""
    left = [(text.get_text(), place) for text, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)]
    below = [(text.get_text(), place) for text, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)]
    return left, below


def grid_of(image, shape, columns, count):
    """The images of a grid with names beside it, (count, height, width), on the common grey scale."""
    assert image.get_clim() == (0, 1) and image.get_interpolation() == "nearest" and image.cmap.name == "gray"
    return tiles(image, shape, columns, count)


@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_colour_images_are_drawn_pixel_by_pixel_in_their_three_colours(ax, dtype):
    x = np.random.default_rng(0).integers(0, 256, (5, 18), dtype=np.uint8)
    image = plots.image_grid(ax, x if dtype == np.uint8 else x / 255, (2, 3, 3), columns=3)
    canvas = np.asarray(image.get_array())
    assert canvas.shape == (2 * 3 + 1, 3 * 4 + 1, 3)
    for k in range(5):
        top, left = 1 + k // 3 * 3, 1 + k % 3 * 4
        assert_allclose(canvas[top : top + 2, left : left + 3], x[k].reshape(2, 3, 3) / 255)
    assert (canvas[::3] == 0.5).all() and (canvas[:, ::4] == 0.5).all()
    assert image.get_interpolation() == "nearest" and not ax.axison


def test_numbers_beyond_black_and_white_are_drawn_as_these_in_colour_too(ax):
    """Matplotlib would speak of them in the log."""
    image = plots.image_grid(ax, np.array([[-1.0, 0.2, 7.0]]), (1, 1, 3), columns=1)
    assert_array_equal(np.asarray(image.get_array())[1, 1], [0, 0.2, 1])


def test_each_row_of_pixels_of_a_very_wide_image_is_drawn_several_times_and_each_column_of_a_very_high_one(ax):
    x = np.random.default_rng(0).random((3, 12))
    wide = plots.image_grid(ax, x, (1, 12), columns=1)
    assert_allclose(tiles(wide, (6, 12), 1, 3), np.repeat(x[:, None], 6, axis=1))
    high = plots.image_grid(ax, x, (12, 1), columns=3)
    assert_allclose(tiles(high, (12, 6), 3, 3), np.repeat(x[:, :, None], 6, axis=2))


def test_column_k_of_a_traversal_is_the_decoder_at_the_z_it_claims_and_rows_are_active_latents_by_kl(ax):
    model = VAE(6, 5, 3, init=0.7, init_biases=True, dtype="float64")
    x = np.random.default_rng(1).random(6)
    image = plots.traversals(ax, model, x, SHAPE, Use, values=5, reach=2)
    code = model.encode_mean(x[None])[0]
    expected = []
    for j in (1, 0):  # KLs 2.0 and 0.2; the third latent is not active
        for value in (-2, -1, 0, 1, 2):
            z = code.copy()
            z[j] = value
            expected.append(model.decode(z[None])[0])
    found = grid_of(image, SHAPE, 5, 10)
    assert_allclose(found, np.reshape(expected, (10, *SHAPE)), rtol=1e-12)
    assert np.ptp(found[:5], axis=0).max() > 0.01  # control: something moves
    left, below = beside(ax)
    assert left == [("$z_{2}$  2.00 nats", 1.5), ("$z_{1}$  0.20 nats", 4.5)]  # pixels 1 and 2, 4 and 5
    assert below == [("-2", 2), ("-1", 6), ("0", 10), ("1", 14), ("2", 18)]
    assert_title(
        ax,
        "What each latent does: E[x|z] as one $z_j$ moves, while the others stay at the code of the first test image\n"
        "Rows: the 2 active latents of 3, the largest KL(q($z_j$|x) ‖ p($z_j$)) first. Columns: $z_j$ from -2 to 2.",
    )
    assert ax.get_xlabel() == "the value of $z_j$"
    defaults = {name: p.default for name, p in inspect.signature(plots.traversals).parameters.items()}
    assert [defaults[name] for name in ("use", "most", "values", "reach")] == [None, 10, 13, 3.0]


@pytest.mark.parametrize(
    ("changed", "most", "names", "words"),
    [
        (
            {"is_active": np.array([True, False, False])},
            10,
            ["$z_{1}$  0.20 nats"],
            "the 1 active latent of 3, the largest KL(q($z_j$|x) ‖ p($z_j$)) first",
        ),
        ({}, 1, ["$z_{2}$  2.00 nats"], "1 of the 2 active latents of 3, the largest KL(q($z_j$|x) ‖ p($z_j$)) first"),
        (
            {"is_active": np.zeros(3, bool)},
            10,
            ["$z_{2}$  2.00 nats", "$z_{1}$  0.20 nats", "$z_{3}$  0.00 nats"],
            "the 3 latents, none of which is active, the largest KL(q($z_j$|x) ‖ p($z_j$)) first",
        ),
        (
            {"kl": None},
            10,
            ["$z_{2}$  var 0.90", "$z_{1}$  var 0.30"],
            "the 2 active latents of 3, the largest variance of E[$z_j$|x], no KL being known, first",
        ),
        (
            {"kl": None, "variance": None, "is_active": None},
            2,
            ["$z_{1}$", "$z_{2}$"],
            "2 of 3 latents in their order, since the KL of each is not known",
        ),
        (
            None,
            10,
            ["$z_{1}$", "$z_{2}$", "$z_{3}$"],
            "3 of 3 latents in their order, since the KL of each is not known",
        ),
    ],
    ids=["one active", "more than have room", "none active", "no KL", "nothing known", "nothing given"],
)
def test_a_traversal_says_which_latents_it_shows_and_in_which_order(ax, changed, most, names, words):
    use = None if changed is None else type("Changed", (Use,), changed)
    plots.traversals(ax, VAE(6, 5, 3), np.zeros(6), SHAPE, use, most)
    assert [text for text, _ in beside(ax)[0]] == names
    assert f"\nRows: {words}. Columns: " in ax.get_title(loc="left")


def test_the_great_circle_goes_by_equal_angles_and_its_norms_by_equal_steps():
    a, b = np.array([2.0, 0, 0]), np.array([0, 4.0, 0])
    assert_allclose(plots.great_circle(a, b, np.array([0.5])), [[3 / np.sqrt(2), 3 / np.sqrt(2), 0]])
    a, b = np.random.default_rng(0).standard_normal((2, 7)) * [[1.0], [3.0]]
    t = np.linspace(0, 1, 9)
    found = plots.great_circle(a, b, t)
    assert_allclose(found[[0, -1]], [a, b])
    norms = np.linalg.norm(found, axis=1)
    assert_allclose(norms, (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b))
    unit = found / norms[:, None]
    omega = np.arccos(unit[0] @ unit[-1])
    assert_allclose(np.arccos((unit[:-1] * unit[1:]).sum(axis=1)), omega / 8)
    weights = np.sin([(1 - t) * omega, t * omega]) / np.sin(omega)  # the formula of the docstring
    assert_allclose(unit, weights.T @ unit[[0, -1]])


@pytest.mark.filterwarnings("error")
def test_the_great_circle_is_straight_where_there_is_no_angle_and_some_circle_where_the_ends_are_opposite():
    t = np.array([0, 0.25, 1])
    a = np.array([1.0, 2.0, -1.0])
    assert_allclose(plots.great_circle(a, 3 * a, t), [a, 1.5 * a, 3 * a])
    assert_allclose(plots.great_circle(0 * a, a, t), [0 * a, 0.25 * a, a])
    assert_allclose(plots.great_circle(a, 0 * a, t), [a, 0.75 * a, 0 * a])
    half = plots.great_circle(a, -a, np.array([0, 0.5, 1]))
    assert_allclose(half[[0, 2]], [a, -a], atol=1e-15)
    assert half[1] @ a == pytest.approx(0) and np.linalg.norm(half[1]) == pytest.approx(np.sqrt(6))


def test_an_interpolation_has_the_images_at_its_ends_and_a_straight_and_a_round_row_for_each_pair(ax):
    model = VAE(6, 5, 3, init=0.9, init_biases=True, dtype="float64")
    x = np.random.default_rng(1).integers(0, 256, (2, 2, 6), dtype=np.uint8)
    image = plots.interpolation(ax, model, x, SHAPE, stops=3)
    expected = []
    for first, last in x:
        a, b = model.encode_mean(np.stack([first, last]))
        middle = (np.linalg.norm(a) + np.linalg.norm(b)) / 2 * (u := a / np.linalg.norm(a) + b / np.linalg.norm(b))
        for between in ((a + b) / 2, middle / np.linalg.norm(u)):
            expected += [first / 255, *model.decode(np.stack([a, between, b])), last / 255]
    assert_allclose(grid_of(image, SHAPE, 5, 20), np.reshape(expected, (20, *SHAPE)), rtol=1e-12)
    left, below = beside(ax)
    assert [text for text, _ in left] == ["straight", "great circle"] * 2
    assert [text for text, _ in below] == ["image", "0", "0.5", "1", "image"]
    assert ax.get_xlabel() == "t, how much of the way from the image at the left to that at the right"
    assert_title(
        ax,
        "The way from one test image to another: E[x|z] at z between their codes\n"
        "Rows in turns: z on the straight line, and z on the great circle around the origin, for each pair of images",
    )
    defaults = {name: p.default for name, p in inspect.signature(plots.interpolation).parameters.items()}
    assert (defaults["stops"], defaults["circle"]) == (11, True)


@pytest.mark.parametrize(("n_latent", "circle"), [(1, True), (3, False)], ids=["one latent", "no prior"])
def test_where_no_circle_makes_sense_an_interpolation_is_straight_alone(ax, n_latent, circle):
    x = np.random.default_rng(1).random((2, 2, 6))
    plots.interpolation(ax, VAE(6, 5, n_latent), x, SHAPE, circle=circle)
    assert [text for text, _ in beside(ax)[0]] == ["straight"] * 2
    assert ax.get_title(loc="left").endswith(
        "\nRows: z on the straight line between the codes, for each pair of images"
    )


def brute(x, among):
    """The nearest row of `among` for each row of x, and its distance, one by one."""
    distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in among] for a in np.asarray(x, float)])
    return distances.argmin(axis=1), distances.min(axis=1)


@pytest.mark.parametrize("block", [1, 7, 2000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_nearest_image_is_the_one_that_a_look_at_all_of_them_finds(block, dtype, monkeypatch):
    monkeypatch.setattr(plots, "ROWS_AT_ONCE", block)
    rng = np.random.default_rng(0)
    among = rng.integers(0, 256, (30, 6), dtype=np.uint8)
    among = among if dtype == np.uint8 else (among / 255).astype(dtype)
    x = rng.random((20, 6))
    index, distance = plots.nearest(x, among)
    expected = brute(x, among / 255 if dtype == np.uint8 else among)
    assert_array_equal(index, expected[0])
    assert_allclose(distance, expected[1], rtol=1e-12)
    index, distance = plots.nearest(among[[4, 29]], among)
    assert_array_equal(index, [4, 29])
    assert_array_equal(distance, [0, 0])


def test_the_nearest_image_is_found_though_all_numbers_are_large():
    rng = np.random.default_rng(0)
    among = 1000 + rng.random((50, 6))
    x = 1000 + rng.random((20, 6))
    assert_array_equal(plots.nearest(x, among)[0], brute(x, among)[0])


def test_each_sample_stands_above_its_nearest_training_image_with_the_distance_and_a_yardstick():
    model = VAE(6, 5, 2, init=1.0, init_biases=True, dtype="float64")
    rng = np.random.default_rng(2)
    train, test = rng.integers(0, 256, (40, 6), dtype=np.uint8), rng.integers(0, 256, (25, 6), dtype=np.uint8)
    axes = plots.Figure().subplots(2)
    images = plots.nearest_training(axes, model, train, test, SHAPE, n=30, columns=4, seed=3)
    made = model.sample(30, 3)
    index, distance = brute(made, train / 255)
    for k, (ax, image) in enumerate(zip(axes, images, strict=True)):
        some = slice(4 * k, 4 * k + 4)
        expected = np.concatenate([made[some], train[index[some]] / 255])
        assert_allclose(grid_of(image, SHAPE, 4, 8), expected.reshape(8, *SHAPE), rtol=1e-12)
        left, below = beside(ax)
        assert [text for text, _ in left] == ["sample", "nearest"]
        assert [text for text, _ in below] == [f"{d:.2f}" for d in distance[some]]
        assert image.axes is ax
    ours, yardstick = np.median(distance), np.median(brute(test / 255, train / 255)[1])
    words = axes[0].get_title(loc="left").replace("\n", " ")
    near = "samples lie closer, as they are smoother" if ours < yardstick else "samples lie no closer, though smoother"
    assert (
        f"median distance is {ours:.2f} from samples and {yardstick:.2f} from test images: {near}. Among as many"
        in words
    )
    assert axes[1].get_title(loc="left") == ""
    defaults = {name: p.default for name, p in inspect.signature(plots.nearest_training).parameters.items()}
    assert [defaults[name] for name in ("n", "columns", "seed")] == [250, 10, 0]


class Copies:
    """Stands for a model whose samples are these images."""

    def __init__(self, images):
        self.images = images

    def sample(self, n, seed):
        return self.images[np.random.default_rng(seed).integers(0, len(self.images), n)]


def test_a_model_that_copies_training_images_is_said_to_memorise_and_one_that_makes_new_ones_is_not():
    rng = np.random.default_rng(0)
    train, test, new = rng.random((3, 200, 6))

    def words(images):
        ax = plots.figure()[1]
        plots.nearest_training([ax], Copies(images), train, test, SHAPE)
        return ax.get_title(loc="left").replace("\n", " ")

    assert "median distance is 0.00 from samples" in words(train) and words(train).endswith(": a sign of memorising.")
    assert "training image is the nearest to 100% of samples" in words(train) and "samples lie closer" in words(train)
    assert words(new).endswith(": no sign of memorising.") and words(test).endswith(": no sign of memorising.")
    assert "training image is the nearest to 0% of samples" in words(test)
    far = words(new + 3)
    assert "samples lie no closer" in far


def test_the_deviation_of_the_share_is_that_of_names_given_at_random():
    rng = np.random.default_rng(0)
    train, test, made = rng.random((30, 6)), rng.random((20, 6)), rng.random((60, 6))
    share, deviation = plots._share_of_training(made, train, test, seed=5)
    generator = np.random.default_rng(5)
    both = np.concatenate([train[generator.permutation(30)[:20]], test])
    index = brute(made, both)[0]
    assert share == (index < 20).mean()
    shares = [(rng.permutation(40)[index] < 20).mean() for _ in range(4000)]
    assert deviation == pytest.approx(np.std(shares), rel=0.05)  # its own error is 1.1 %
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share, deviation = plots._share_of_training(made, train, test[:1], seed=5)
    assert abs(share - 0.5) == pytest.approx(deviation)  # two images say nothing, whatever the share


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (130, 2)], ids=["grey", "colour", "large"])
def test_images_of_the_map_stand_at_their_codes_do_not_overlap_and_leave_out_only_what_has_no_room(ax, shape):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((60, 2)) * [3, 1] + [5, -2]
    x = 0.3 + 0.4 * rng.random((60, int(np.prod(shape))))
    image = plots.latent_map(ax, codes, x, shape, across=8)
    canvas = np.asarray(image.get_array())
    assert image.origin == "upper" and image.get_interpolation() == "nearest"
    left, right, bottom, top = image.get_extent()
    size = (right - left) / canvas.shape[1]
    assert size == pytest.approx((top - bottom) / canvas.shape[0])  # pixels are square
    shown = plots._tiles(x, shape)
    step = -(-max(shape[:2]) // 64)
    shown = shown[:, ::step, ::step]
    height, width = shown.shape[1:3]
    assert size == pytest.approx(np.ptp(codes, axis=0).max() / (8 * max(height, width)))
    covered = np.zeros(canvas.shape[:2], int)
    drawn = []
    for k, (code, tile) in enumerate(zip(codes, shown, strict=True)):
        column = round((code[0] - left) / size - width / 2)
        row = round((top - code[1]) / size - height / 2)
        for i, j in itertools.product((row - 1, row, row + 1), (column - 1, column, column + 1)):  # within rounding
            part = canvas[max(i, 0) : i + height, max(j, 0) : j + width]
            same = part.shape[:2] == (height, width) and (part[..., 3] == 1).all()
            if same and np.allclose(part[..., :3], tile if tile.ndim == 3 else tile[..., None]):
                covered[i : i + height, j : j + width] += 1
                drawn.append(k)
                break
    assert covered.max() == 1  # none lies over another
    assert_array_equal(covered, canvas[..., 3])  # and there is nothing else
    assert drawn[0] == 0 and 5 < len(drawn) < 60
    near = [np.abs(codes[k] - codes[drawn]) / size < [width + 1.001, height + 1.001] for k in range(60)]
    assert all(pair.all(axis=1).any() for pair in near)  # who is left out would touch one that is there
    assert_title(ax, f"{len(drawn)} of 60 images, each in the place of its own code: those that have room")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("$z_1$", "$z_2$", 1)
    assert ax.get_xlim()[0] < left < right < ax.get_xlim()[1]
    assert ax.get_ylim()[0] < bottom < top < ax.get_ylim()[1]
    assert inspect.signature(plots.latent_map).parameters["across"].default == 30


def test_the_map_of_one_image_has_it_in_the_middle(ax):
    plots.latent_map(ax, np.array([[3.0, -1.0]]), np.zeros((1, 6)), SHAPE)
    assert np.mean(ax.get_xlim()) == pytest.approx(3) and np.mean(ax.get_ylim()) == pytest.approx(-1)
    assert np.ptp(ax.get_xlim()) > 1


def test_a_figure_is_as_wide_and_as_high_as_it_was_asked_for():
    fig, ax = plots.figure(7, 4)
    assert_array_equal(fig.get_size_inches(), [7, 4])
    assert fig.axes == [ax]
    assert_array_equal(plots.figure()[0].get_size_inches(), [6, 6])
    assert_fits(fig, 7, 4)


class Use:
    """What `latent_use` reads of an `Information`."""

    n = 120
    n_latent = 3
    kl = np.array([0.2, 2.0, 0.001])
    is_active = np.array([True, True, False])
    variance = np.array([0.3, 0.9, 0.001])
    mutual_information = 1.9


def carried(n_latent=3):
    """A history of ten rows with what the latents carry."""
    found = np.zeros(10, with_latents(n_latent))
    for name in HISTORY.names:
        found[name] = CURVES[name]
    found["rate"] = np.linspace(0.5, 2.2, 10)
    found["mutual_information"] = np.linspace(0.1, 1.9, 10)
    found["marginal_kl"] = found["rate"] - found["mutual_information"]
    found["kl"] = np.linspace(0, 1, 10)[:, None] * Use.kl
    return found


def test_what_the_latents_carry_is_drawn_from_the_largest_kl_down_with_its_parts_over_the_samples():
    axes = plots.Figure().subplots(1, 3)
    history = carried()
    plots.latent_use(axes, Use, history)
    bars, colours, parts = axes
    assert_allclose([bar.get_height() for bar in bars.patches], [2.0, 0.2, 0.001])
    assert [bar.get_facecolor() for bar in bars.patches] == [to_rgba("C0"), to_rgba("C0"), to_rgba("0.7")]
    assert bars.get_ylabel().endswith("nats") and "not active" in bars.get_xlabel()
    (mesh,) = colours.collections
    assert_allclose(np.asarray(mesh.get_array()), history["kl"][:, [1, 0, 2]].T)
    assert mesh.get_clim() == (0, 2.0) and mesh.colorbar.extend == "max"
    early = carried()
    early["kl"][2] = 50  # in the first third, and so beyond the colours
    _, again, _ = axes = plots.Figure().subplots(1, 3)
    plots.latent_use(axes, Use, early)
    assert again.collections[0].get_clim() == (0, 2.0)
    assert colours.get_xscale() == parts.get_xscale() == "log"
    for line, column in zip(parts.lines, ("rate", "mutual_information", "marginal_kl"), strict=False):
        assert_array_equal(line.get_xdata(), history["samples"])
        assert_array_equal(line.get_ydata(), history[column])
    assert_allclose(parts.lines[3].get_ydata(), np.log(120))
    labels = [text.get_text() for text in parts.get_legend().get_texts()]
    assert labels[0].startswith("rate") and labels[1].startswith("mutual") and "ln 120" in labels[3]


@pytest.mark.parametrize("history", [CURVES, carried()[:1], carried()[:0]], ids=["of an older run", "one row", "none"])
def test_what_is_not_known_of_the_latents_is_said_in_its_place(history):
    axes = plots.Figure().subplots(1, 3)
    use = type("Unknown", (Use,), {"kl": None, "is_active": None, "mutual_information": np.nan})
    plots.latent_use(axes, use, history)
    assert [ax.texts[0].get_text() for ax in axes] == ["not known for this posterior", "not known", "not known"]
    assert not any(ax.patches or ax.lines or ax.collections for ax in axes)


def test_every_function_that_draws_is_read_back_here():
    public = {name for name, value in vars(plots).items() if inspect.isfunction(value) and not name.startswith("_")}
    ours = {name for name in public if inspect.getmodule(getattr(plots, name)) is plots}
    text = Path(__file__).read_text(encoding="utf-8")
    ours.remove("own_settings")  # under which it is drawn
    assert not {name for name in ours if f"plots.{name}(" not in text}


def test_styles_are_one_draw_of_z_in_each_row_and_one_class_in_each_column():
    model = VAE(6, 4, 2, n_classes=3, init=0.5)
    _, ax = plots.figure()
    image = plots.styles(ax, model, (2, 3), 4, seed=5)
    z = np.random.default_rng(5).standard_normal((4, 2))
    canvas = np.asarray(image.get_array())
    for row in range(4):
        for y in range(3):
            shown = canvas[1 + 3 * row : 3 + 3 * row, 1 + 4 * y : 4 + 4 * y].ravel()
            assert_allclose(shown, model.decode(z[row : row + 1], [y])[0], atol=1e-6)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]


# The pictures of a run


@pytest.fixture
def pictures(monkeypatch, tmp_path, digits):
    """A function of a model that returns the figures of its run by name, as they would be saved."""

    def draw(model, rows=CURVES, **settings):
        saved = {}

        def savefig(figure, path, **settings):
            saved[Path(path).name.partition(".")[0]] = figure
            Path(path).touch()

        monkeypatch.setattr(plots.Figure, "savefig", savefig)
        paths = plots.draw_run(tmp_path / "figures", model, digits, rows, **settings)
        assert paths == [tmp_path / "figures" / f"{name}.png" for name in saved]
        return saved

    return draw


def image_of(figure):
    """The one picture on the one axis of a figure."""
    (ax,) = figure.axes
    (image,) = ax.images
    return image


def test_a_runs_pictures_are_those_of_its_test_images_its_model_and_its_seed(pictures, digits):
    model = VAE(64, 9, 2, init=0.3, init_biases=True)
    found = pictures(model, seed=6)
    names = ["learning_curve", "reconstructions", "traversals", "uncertainty", "samples", "nearest", "random_walk"]
    assert list(found) == [*names, "manifold", "interpolation", "latent", "latent_map"]
    assert len({digits.train[:50].tobytes(), digits.valid[:50].tobytes(), digits.test[:50].tobytes()}) == 3  # control
    x = digits.test[:50] / 255
    again = model.reconstruct(digits.test[:50])
    pairs = [part[k : k + 10] for k in range(0, 50, 10) for part in (x, again)]
    assert_images(image_of(found["reconstructions"]), np.concatenate(pairs), (8, 8), 10)

    draws = model.reconstruct_samples(digits.test[:10], 64, 6)
    spread = draws.std(axis=0)
    for ax, expected in zip(
        found["uncertainty"].axes, [x[:10], draws.mean(axis=0), spread / spread.max()], strict=True
    ):
        assert_images(ax.images[0], expected, (8, 8), 10, rtol=1e-5)

    generator = np.random.default_rng(6)
    z = generator.standard_normal((100, 2), np.float32)
    assert_images(image_of(found["samples"]), model.decode(z), (8, 8), 10, rtol=1e-5)
    moves = np.random.default_rng(6).standard_normal((100, 2))
    moves[1:] *= 0.1
    assert_images(image_of(found["random_walk"]), model.decode(np.cumsum(moves, axis=0)), (8, 8), 10, rtol=1e-5)
    grid = norm.ppf(np.arange(1, 21) / 21)
    z = np.array([(a, b) for a in grid for b in grid])
    assert_images(image_of(found["manifold"]), model.decode(z), (8, 8), 20, rtol=1e-5)

    (ax,) = found["latent"].axes
    (points,) = ax.collections
    assert_allclose(points.get_offsets(), model.encode_mean(digits.test), rtol=1e-6)
    assert_array_equal(points.get_facecolors(), [to_rgba(plots.COLOURS[k]) for k in digits.test_labels])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [str(k) for k in range(10)]
    assert len(ax.lines) == 1  # the circle of the prior

    z = np.tile(model.encode_mean(digits.test[:1]), (2, 13, 1))
    z[0, :, 0] = z[1, :, 1] = np.linspace(-3, 3, 13)
    drawn = grid_of(image_of(found["traversals"]), (8, 8), 13, 26)
    assert_allclose(drawn, model.decode(z.reshape(-1, 2)).reshape(26, 8, 8), rtol=1e-5)

    made = model.sample(250, 6)
    below, _ = brute(made, digits.train / 255)
    axes = found["nearest"].axes
    assert len(axes) == 3
    for k, ax in enumerate(axes):
        some = slice(10 * k, 10 * k + 10)
        pair = np.concatenate([made[some], digits.train[below[some]] / 255])
        assert_allclose(grid_of(ax.images[0], (8, 8), 10, 20), pair.reshape(20, 8, 8), rtol=1e-5)

    ends = [grid_of(image_of(found["interpolation"]), (8, 8), 13, 104)[k::13] for k in (0, 12)]
    indices = [[int(np.abs(digits.test / 255 - end.ravel()).sum(axis=1).argmin()) for end in side] for side in ends]
    assert indices[0][::2] == indices[0][1::2] and indices[1][::2] == indices[1][1::2]  # a pair has two rows
    assert len({*indices[0], *indices[1]}) == 8
    assert (digits.test_labels[indices[0]] != digits.test_labels[indices[1]]).all()
    assert image_of(found["latent_map"]).get_array().shape[-1] == 4


def test_the_pairs_of_a_run_are_those_of_its_seed_and_of_different_classes_while_there_are_such():
    labels = np.array([0] * 9 + [1] * 3)
    pairs = plots._pairs(labels, 12, 4, seed=1)
    assert_array_equal(pairs, plots._pairs(labels, 12, 4, seed=1))
    assert not np.array_equal(pairs, plots._pairs(labels, 12, 4, seed=2))
    assert len(np.unique(pairs)) == 8 and pairs.shape == (4, 2)
    assert (labels[pairs[:3, 0]] != labels[pairs[:3, 1]]).all() and (labels[pairs[3]] == 0).all()
    assert plots._pairs(None, 5, 4, seed=0).shape == (2, 2)
    assert plots._pairs(labels, 1, 4, seed=0).shape == (0, 2)


@pytest.mark.parametrize(
    ("shape", "n_test", "n_latent", "settings", "missing"),
    [
        ((8, 8), 1, 2, {}, {"interpolation"}),
        ((8, 8), 3, 1, {}, {"manifold", "latent", "latent_map"}),
        ((4, 16), 12, 2, {}, set()),
        ((1, 64), 12, 2, {}, set()),
        ((64, 1), 12, 2, {"flow": 2, "estimator": "A"}, set()),
        ((4, 4, 4), 12, 2, {}, None),
        (
            (8, 8),
            12,
            2,
            {"estimator": "autoencoder"},
            {"latents", "traversals", "uncertainty", "samples", "nearest", "random_walk", "manifold"},
        ),
    ],
    ids=["one test image", "one latent", "wide", "rows of numbers", "columns, with a flow", "no image", "autoencoder"],
)
@pytest.mark.filterwarnings("error")
def test_every_run_gets_all_pictures_that_apply_whatever_its_images_and_latents_are(
    shape, n_test, n_latent, settings, missing, tmp_path, digits
):
    model = VAE(64, 9, n_latent, init=0.3, **settings)
    data = replace(digits, image_shape=shape, test=digits.test[:n_test], test_labels=None)
    use = information(model, data.valid)
    if missing is None:  # four channels, which nobody can draw: an error that says so
        with pytest.raises(plots.DrawingError, match="could not be drawn"):
            plots.draw_run(tmp_path, model, data, CURVES, use=use)
        return
    found = {path.stem for path in plots.draw_run(tmp_path, model, data, CURVES, use=use)}
    everything = {"learning_curve", "reconstructions", "latents", "traversals", "uncertainty", "samples", "nearest"}
    everything |= {"random_walk", "manifold", "interpolation", "latent", "latent_map"}
    assert found == everything - missing


def test_a_plain_autoencoder_has_no_circle_of_a_prior_and_no_great_circles(pictures):
    found = pictures(VAE(64, 9, 2, init=0.3, estimator="autoencoder"))
    assert list(found) == ["learning_curve", "reconstructions", "interpolation", "latent", "latent_map"]
    assert not found["latent"].axes[0].lines
    assert [text for text, _ in beside(found["interpolation"].axes[0])[0]] == ["straight"] * 4


def test_a_run_names_the_classes_of_its_data(pictures, digits, monkeypatch):
    names = tuple("abcdefghij")
    monkeypatch.setitem(digits.__dict__, "classes", names)
    (ax,) = pictures(VAE(64, 9, 2, init=0.3))["latent"].axes
    assert tuple(text.get_text() for text in ax.get_legend().get_texts()) == names


def test_colour_images_make_every_picture_of_a_run(tmp_path, digits):
    rng = np.random.default_rng(0)
    parts = {part: rng.integers(0, 256, (20, 60), dtype=np.uint8) for part in ("train", "valid", "test")}
    data = replace(digits, image_shape=(4, 5, 3), test_labels=np.arange(20) % 2, classes=("cat", "dog"), **parts)
    model = VAE(60, 9, 2, init=0.3)
    assert len(plots.draw_run(tmp_path, model, data, CURVES, use=information(model, data.valid))) == 12


def test_a_bar_counts_the_pictures_of_a_run_also_those_that_fail(tmp_path, digits, monkeypatch):
    counted = []

    @contextlib.contextmanager
    def bar(total):
        counted.append(total)
        yield SimpleNamespace(update=counted.append)
        counted.append("closed")

    monkeypatch.setattr(plots.Figure, "savefig", lambda _, path, **__: Path(path).touch())
    model = VAE(64, 9, 2, init=0.3)
    plots.draw_run(tmp_path, model, digits, CURVES, progress=bar)
    assert counted == [11, *[1] * 11, "closed"]
    counted.clear()
    monkeypatch.setattr(plots, "samples", lambda *_, **__: 1 / 0)
    with pytest.raises(plots.DrawingError, match="samples could not be drawn"):
        plots.draw_run(tmp_path, model, digits, CURVES, progress=bar)
    assert counted == [11, *[1] * 11, "closed"]


def test_every_picture_of_a_run_has_its_size_and_room_for_its_words(pictures):
    found = pictures(FullVB(64, 5, 2))
    sizes = {  # of grids: the height of square images, a quarter of an inch for each part, and 0.6
        "learning_curve": (6, 4),
        "reconstructions": (6, 6.85),
        "traversals": (8, 0.85 + 8 * 2 / 13),
        "uncertainty": (6, 0.6 + 3 * (0.25 + 0.6)),
        "theta_uncertainty": (10, 0.85 + 10 * 2 / 16),
        "samples": (6, 6.85),
        "nearest": (7, 0.6 + 3 * (0.25 + 1.4)),
        "random_walk": (6, 6.85),
        "manifold": (8, 8.85),
        "interpolation": (8, 0.85 + 8 * 8 / 13),
        "latent": (7, 6),
        "latent_map": (8, 8),
    }
    assert list(found) == list(sizes)
    for name, size in sizes.items():
        assert_fits(found[name], *size)


def labels(figure):
    """The names in the legend of a figure, and what stands at its y axis."""
    (ax,) = figure.axes
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [line.get_label() for line in ax.lines]
    for line, column in zip(ax.lines, ("train_bound", "valid_bound"), strict=True):
        assert_array_equal(line.get_ydata(), CURVES[column])
    return texts, ax.get_ylabel()


NATS = "(nats per datapoint)"


@pytest.mark.parametrize(
    ("settings", "names", "at_the_axis"),
    [
        ({}, ["train", "validation"], f"bound {NATS}"),
        (
            {"estimator": "iwae", "n_samples": 3},
            ["train, of 3 draws together", "validation, (7)"],
            f"bound {NATS}",
        ),
        (
            {"estimator": "dreg", "n_samples": 4},
            ["train, of 4 draws together", "validation, (7)"],
            f"bound {NATS}",
        ),
        ({"estimator": "autoencoder"}, ["train", "validation"], f"log p(x|z) at the code {NATS}"),
    ],
)
def test_the_learning_curve_of_a_run_says_which_bounds_they_are(settings, names, at_the_axis, pictures):
    found = pictures(VAE(64, 5, 3, **settings))
    assert labels(found["learning_curve"]) == (names, at_the_axis)
    expected = ["learning_curve", "reconstructions", "traversals", "uncertainty", "samples", "nearest", "random_walk"]
    expected = expected[:2] if settings.get("estimator") == "autoencoder" else expected
    assert list(found) == [*expected, "interpolation"]
    (ax,) = found["learning_curve"].axes
    what = "What is ascended while the model is" if len(expected) == 2 else "The bound while the model was"
    assert_title(ax, f"{what} trained: higher is better")
    assert "learning_curve" not in pictures(VAE(64, 5, 3, **settings), CURVES[:0])


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_with_a_distribution_over_theta_several_draws_together_are_named_with_the_kl_of_theta(estimator, pictures):
    found = pictures(FullVB(64, 5, 3, estimator=estimator, n_samples=3))
    names = ["train, of 3 draws together, with the θ-KL", "validation, (7) at the mean of θ"]
    assert labels(found["learning_curve"]) == (names, f"bound {NATS}")


def test_a_run_with_a_distribution_over_theta_shows_what_theta_leaves_open_about_test_images(pictures, digits):
    model = FullVB(64, 9, 3, init=0.3, init_biases=True, log_sigma=-1.0)
    found = pictures(model, seed=2)
    names = ["train, (22) with the θ-KL", "validation, at the mean of θ"]
    assert labels(found["learning_curve"]) == (names, f"bound {NATS}")
    x = digits.test[:8]
    z = model.encode_mean(x)
    over_z = model.reconstruct_samples(x, 64, 2).std(axis=0)
    over_theta = np.std([model.theta_sample(2 + k).decode(z) for k in range(64)], axis=0)
    expected = [x / 255, model.decode(z), over_z / over_z.max(), over_theta / over_theta.max()]
    axes = found["theta_uncertainty"].axes
    for ax, array in zip(axes, expected, strict=True):
        assert_images(ax.images[0], array, (8, 8), 4, rtol=1e-4)
    assert [ax.get_title(loc="left").partition(" ~")[0] for ax in axes[2:]] == ["its sd over z", "its sd over θ"]


# What the benchmarks count, by a clock that the test turns


@pytest.fixture
def clock(monkeypatch):
    """time.perf_counter moves by one second at each call."""
    calls = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(calls)))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_counts_a_multiplication_and_an_addition_for_each_entry_of_the_product(dtype, monkeypatch):
    monkeypatch.setattr(bench.peaks, "LARGE", {"numpy": 50})
    multiplied = []
    matmul = np.matmul

    def noting(a, b, **settings):
        multiplied.append((a.shape, b.shape, str(a.dtype)))
        return matmul(a, b, **settings)

    monkeypatch.setattr(np, "matmul", noting)
    assert bench.peak_gflops("numpy", dtype) == pytest.approx(2 * 50**3 / 1e9, rel=1e-12)  # in one second
    assert set(multiplied) == {((50, 50), (50, 50), dtype)}


def test_the_peak_is_that_of_the_fastest_product_after_the_first(monkeypatch):
    seconds = [0.001, 5.0, 4.0, 2.0, 3.0, 6.0]  # the first warms up, however fast it is
    ticks = np.ravel([(10.0 * k, 10.0 * k + s) for k, s in enumerate(seconds)]).tolist()
    monkeypatch.setattr("time.perf_counter", lambda: ticks.pop(0))
    monkeypatch.setattr(bench.peaks, "LARGE", {"numpy": 50})
    assert bench.peak_gflops("numpy", "float32") == pytest.approx(2 * 50**3 / 2.0 / 1e9, rel=1e-12)


def test_the_peak_is_taken_from_products_that_are_wider_than_any_of_a_step():
    assert bench.peaks.LARGE == {"numpy": 3000, "cupy": 8192}
    work = bench.Workload()
    assert max(work.n_visible, work.n_hidden, work.n_latent, work.batch_size) < min(bench.peaks.LARGE.values())


def written_out_flops(D, H, J, M, local=False):
    """Two operations for each multiply-add of: forward, the gradient of W and, but for the first map, of the input."""
    maps = [(D, H, 2), (H, J, 3), (H, J, 3)] + [(J, H, 3), (H, D, 3)] * (2 if local else 1)
    return sum(2 * M * a * b * products for a, b, products in maps)


def test_operations_rates_and_the_share_of_the_peak_are_told_as_they_are():
    for model in bench.MODELS:
        work = bench.Workload(n_visible=30, n_hidden=7, n_latent=3, batch_size=5, model=model)
        assert work.flops() == written_out_flops(30, 7, 3, 5, model == "full-vb-local")
    row = bench.summary(bench.Workload(), 3, [{"ms": 2.0, "products_ms": 0.5}])
    assert row["gflops"] == pytest.approx(written_out_flops(784, 500, 20, 100) / 0.002 / 1e9, rel=5e-4)
    assert row["over_products"] == 4.0
    result = {"rows": [row], "peak_gflops": {"numpy float32": 5 * row["gflops"]}, "cold_start_s": {"numpy": 1.0}}
    head, line, *_ = bench.table(result).splitlines()
    cells = dict(zip(["backend", "model", "size", "M", "dtype"], line.split(), strict=False))
    assert list(cells.values()) == ["numpy", "vae", "784-500-20", "100", "float32"]
    assert line.split()[5:] == ["2.00", "2.00", "2.00", "50,000", "4.00", f"{row['gflops']:.0f}", "20%"]
    assert head.split()[-3:] == ["GFLOP/s", "of", "peak"]


@pytest.mark.usefixtures("clock")
def test_a_round_times_the_products_and_the_steps_each_by_itself():
    round, steps = bench.prepare(bench.Workload(n_visible=30, n_hidden=7, n_latent=3, batch_size=5))
    assert steps == 3  # as many as take 40 ms, and at least three
    assert round() == {"products_ms": pytest.approx(2000 / 3), "ms": pytest.approx(2000 / 3)}


def benchmark(name, monkeypatch):
    """A file of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def test_the_largest_product_is_counted_in_multiply_adds(monkeypatch):
    threads = benchmark("threads", monkeypatch)
    assert threads.largest_product(threads.workload("784-500-20", 100)) == 100 * 784 * 500
    assert threads.largest_product(threads.workload("20-30-700", 10)) == 10 * 30 * 700


@pytest.mark.usefixtures("clock")
def test_the_rates_of_hmc_are_transitions_of_the_whole_batch_a_minute(monkeypatch):
    inference = benchmark("inference", monkeypatch)
    noted = []
    target = SimpleNamespace(z=np.zeros((7, 3)))

    def sample(*arguments, **settings):
        noted.append((arguments[3], settings["burn_in"]))
        return target

    monkeypatch.setattr(inference, "sample", sample)
    rates = inference.hmc(np.full((7, 64), 255, np.uint8), 30, rounds=4)
    assert rates == [60 * 30.0] * 4 and noted == [(30, 0)] * 4  # each took one second by this clock


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", ["vae", "full-vb", "full-vb-local"])
def test_the_shares_of_the_job_are_those_of_its_parts_call_by_call(name, monkeypatch):
    """By this clock a call takes as long as the others, so that a share is a share of the calls, however busy it is."""
    job = benchmark("job", monkeypatch)
    make = bench.MODELS[name]
    monkeypatch.setitem(bench.MODELS, name, lambda D: make(D, 5, 2))
    shares, ms = job.shares(name, steps=4, repeats=1)
    assert list(shares) == ["noise", "bound and gradient", "prior", "update", "loop"]
    seconds = ms * 4 / 1000  # in all
    calls = {part: share * seconds for part, share in shares.items()}
    streams = 1 + 4  # the order of the one epoch, and every step's
    expected = {"noise": streams + 4, "bound and gradient": 4, "prior": 4, "update": 4}
    for part, count in expected.items():
        assert calls[part] == pytest.approx(count, abs=1e-4 * seconds)
    assert calls["loop"] > 0 and sum(shares.values()) == pytest.approx(1, abs=3e-4)
