"""plots.py and bench/: what is drawn is read back from the artists, and what is counted from a clock of the test's.

Every function of plots.py is here with the arrays behind its artists, its grey scale, its limits, labels, legends and
titles, and so is every picture of a run, caught when it is about to be saved.
"""

import importlib
import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DPI, small
from matplotlib.colors import to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from scratchvae import VAE, FullVB, bench, plots
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
    assert_array_equal(figure.get_size_inches(), [width, height])
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
    defaults = plots.learning_curve(plots.figure()[1], CURVES)
    assert [line.get_label() for line in defaults] == ["train", "validation"]
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
    assert_title(ax, "rows in turns: originals, and below them their reconstructions")


def test_samples_are_the_decoders_means_at_draws_of_the_prior_with_the_seed(ax):
    model = small()
    image = plots.samples(ax, model, SHAPE, n=6, columns=3, seed=4)
    z = np.random.default_rng(4).standard_normal((6, 2))
    assert_images(image, model.decode(z), columns=3)
    hundred = model.decode(np.random.default_rng(0).standard_normal((100, 2)))
    assert_images(plots.samples(ax, model, SHAPE), hundred, columns=10)
    assert_title(ax, "E[x|z] at draws z ~ p(z)")


def test_the_first_latent_of_the_manifold_runs_downwards_and_the_second_to_the_right(ax):
    model = small()
    image = plots.manifold(ax, model, SHAPE, rows=3, columns=5)
    grid = [(norm.ppf(r / 4), norm.ppf(c / 6)) for r in range(1, 4) for c in range(1, 6)]
    assert_images(image, model.decode(np.array(grid)), columns=5)
    assert_title(ax, "$z_1$ downwards, $z_2$ to the right")
    whole = plots.manifold(ax, model, SHAPE)
    corner = np.array([[norm.ppf(1 / 21), norm.ppf(20 / 21)]])  # of 20 x 20, at the top to the right
    assert_allclose(tiles(whole, SHAPE, 20, 400)[19], model.decode(corner).reshape(SHAPE), rtol=1e-6)


def test_the_scatter_has_z_1_to_the_right_z_2_upwards_and_a_colour_for_each_label(ax):
    mu = np.random.default_rng(0).standard_normal((20, 2)) * [1, 5]
    labels = np.arange(20) % 4
    points = plots.latent_scatter(ax, mu, labels)
    assert_array_equal(points.get_offsets(), mu)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert ax.get_aspect() == 1 and points.cmap.name == "tab10"
    assert_array_equal(points.get_array(), labels)
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"$\\mathdefault{{{k}}}$" for k in range(4)]
    for k, handle in enumerate(legend.legend_handles):
        assert_allclose(to_rgba(handle.get_color()), points.to_rgba(k))
    assert not legend.get_frame_on() and ax.get_adjustable() == "datalim"
    assert_array_equal(points.get_sizes(), [4])
    x0, y0, _, y1 = place(legend)
    assert 1 < x0 < 1.2 and (y0 + y1) / 2 == pytest.approx(0.5)  # just beside the points, halfway up
    many = plots.latent_scatter(plots.figure()[1], mu, np.arange(20)).axes.get_legend()
    assert len(many.get_texts()) == 20  # every label, however many there are
    plain = plots.latent_scatter(plots.figure()[1], mu)
    assert plain.get_array() is None and plain.axes.get_legend() is None


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
    assert_title(ax, "E[x|z] along a random walk in z, in reading order; each step has sd 0.3")


def test_uncertainty_has_originals_means_and_spreads_in_this_order_each_with_its_title():
    draws = 0.2 + 0.3 * np.random.default_rng(0).random((16, 4, 6))
    x = np.random.default_rng(1).integers(0, 256, (4, 6), dtype=np.uint8)
    axes = plots.Figure().subplots(3)
    images = plots.uncertainty(axes, x, draws, SHAPE)
    spread = draws.std(axis=0)
    for image, one, expected in zip(images, axes, [x / 255, draws.mean(axis=0), spread / spread.max()], strict=True):
        assert_images(image, expected)
        assert image.axes is one
    for one, title in zip(axes, ["original", "mean", f"sd, to {spread.max():.2f}"], strict=True):
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
    assert_title(axes[0], "original")
    assert_title(axes[1], "posterior mean")
    assert_title(axes[2], f"sd over z, white is {over_z.max():.2f}")
    assert_title(axes[3], f"sd over θ, white is {over_theta.max():.2f}")
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
    names = ["learning_curve", "reconstructions", "uncertainty", "samples", "random_walk", "manifold", "latent"]
    assert list(found) == names
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
    assert_array_equal(points.get_array(), digits.test_labels)


def test_every_picture_of_a_run_has_its_size_and_room_for_its_words(pictures):
    found = pictures(FullVB(64, 5, 2))
    sizes = {
        "learning_curve": (6, 4),
        "reconstructions": (6, 6),
        "uncertainty": (6, 2.6),
        "theta_uncertainty": (10, 1.9),
        "samples": (6, 6),
        "random_walk": (6, 6),
        "manifold": (8, 8),
        "latent": (7, 6),
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
    expected = ["learning_curve", "reconstructions", "uncertainty", "samples", "random_walk"]
    assert list(found) == (expected[:2] if settings.get("estimator") == "autoencoder" else expected)
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
    assert [ax.get_title(loc="left").partition(",")[0] for ax in axes[2:]] == ["sd over z", "sd over θ"]


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
