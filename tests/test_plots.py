"""plots.py: each picture shows what it says, draws where it is told, and never opens a window."""

import numpy as np
import pytest
from conftest import small
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from scratchvae import VAE, fit, plots

HISTORY = fit(small(), np.zeros((10, 6)), np.zeros((5, 6)), samples=3000, batch_size=10)


@pytest.fixture
def ax():
    return plots.figure()[1]


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a plot called show")

    monkeypatch.setattr("matplotlib.pyplot.show", refuse)
    monkeypatch.setattr("matplotlib.figure.Figure.show", refuse)


def tile(image, height, width, row, column):
    return np.asarray(image.get_array())[1 + row * (height + 1) :, 1 + column * (width + 1) :][:height, :width]


def test_learning_curve_draws_both_bounds_against_samples_on_a_log_axis(ax):
    lines = plots.learning_curve(ax, HISTORY)
    assert ax.get_xscale() == "log" and [line.get_label() for line in lines] == ["train", "validation"]
    for line, column in zip(lines, ("train_bound", "valid_bound"), strict=True):
        assert_array_equal(line.get_xdata(), HISTORY["samples"])
        assert_array_equal(line.get_ydata(), HISTORY[column])
    assert "nats" in ax.get_ylabel()


def test_learning_curve_without_validation_draws_train_alone(ax):
    alone = fit(small(), np.zeros((10, 6)), samples=3000, batch_size=10)
    assert [line.get_label() for line in plots.learning_curve(ax, alone)] == ["train"]


def test_image_grid_lays_images_row_by_row(ax):
    images = np.arange(5 * 6, dtype=np.uint8).reshape(5, 6)
    image = plots.image_grid(ax, images, (2, 3), columns=3)
    for k in range(5):
        assert_allclose(tile(image, 2, 3, k // 3, k % 3), images[k].reshape(2, 3) / 255)


def test_reconstructions_stand_under_their_originals_in_a_short_row_too(ax):
    x, r = np.random.default_rng(0).random((2, 5, 6))
    image = plots.reconstructions(ax, x, r, (2, 3), columns=3)
    for k in range(5):
        assert_allclose(tile(image, 2, 3, 2 * (k // 3), k % 3), x[k].reshape(2, 3))
        assert_allclose(tile(image, 2, 3, 2 * (k // 3) + 1, k % 3), r[k].reshape(2, 3))


def test_samples_shows_the_models_samples(ax):
    image = plots.samples(ax, small(), (2, 3), n=4, columns=2, seed=3)
    assert_allclose(tile(image, 2, 3, 1, 0), small().sample(4, 3)[2].reshape(2, 3))


def test_manifold_decodes_the_inverse_normal_cdf_of_r_over_r_plus_1(ax):
    model = small()
    image = plots.manifold(ax, model, (2, 3), rows=4, columns=7)
    for r in range(1, 5):
        for c in range(1, 8):
            z = np.array([[norm.ppf(r / 5), norm.ppf(c / 8)]])
            assert_allclose(tile(image, 2, 3, r - 1, c - 1), model.decode(z).reshape(2, 3), rtol=1e-12)
    with pytest.raises(ValueError, match="this model has 3"):
        plots.manifold(ax, small(n_latent=3), (2, 3))


def test_latent_scatter_places_and_colours_every_point(ax):
    mu, labels = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 4
    (points,) = plots.latent_scatter(ax, mu, labels)
    assert_array_equal(points.get_offsets(), mu)
    assert_array_equal(points.get_facecolors(), [to_rgba(plots.COLOURS[k]) for k in labels])
    assert len(ax.get_legend().get_texts()) == 4
    plots.latent_scatter(plots.figure()[1], mu)
    with pytest.raises(ValueError, match="these have 3"):
        plots.latent_scatter(ax, np.zeros((4, 3)))


def test_random_walk_starts_from_the_prior_and_moves_by_the_stated_deviation(ax, monkeypatch):
    walks = []
    for seed in range(40):
        model = small()
        monkeypatch.setattr(model, "decode", lambda z: walks.append(z) or np.zeros((len(z), 6)))
        plots.random_walk(ax, model, (2, 3), seed=seed)
    walks = np.array(walks)
    assert walks.shape == (40, 100, 2)
    start, moves = walks[:, 0], np.diff(walks, axis=1)
    assert abs(start.var() - 1) * np.sqrt(start.size / 2) < 4.89
    assert abs(moves.var() / 0.1**2 - 1) * np.sqrt(moves.size / 2) < 4.89
    assert abs(moves.var() / 0.1 - 1) * np.sqrt(moves.size / 2) > 4.89  # control: 0.1 read as the variance


def test_uncertainty_shows_mean_and_deviation_over_the_draws():
    draws = np.random.default_rng(0).random((16, 4, 6))
    fig = plots.Figure()
    images = plots.uncertainty(fig.subplots(3), draws[0], draws, (2, 3))
    assert_allclose(tile(images[1], 2, 3, 0, 2), draws.mean(0)[2].reshape(2, 3))
    assert_allclose(tile(images[2], 2, 3, 0, 2), (draws.std(0) / draws.std(0).max())[2].reshape(2, 3))


def test_uint8_reconstructions_are_scaled_like_the_originals(ax):
    x = np.arange(12, dtype=np.uint8).reshape(2, 6)
    image = plots.reconstructions(ax, x, x, (2, 3), columns=2)
    assert_allclose(tile(image, 2, 3, 1, 1), x[1].reshape(2, 3) / 255)


def test_an_empty_history_is_refused(ax):
    with pytest.raises(ValueError, match="the history is empty"):
        plots.learning_curve(ax, HISTORY[:0])


@pytest.mark.drawn
def test_a_runs_pictures_show_the_model_on_test_images_and_its_seed(tmp_path, digits, monkeypatch):
    shown, model = {}, VAE(64, 20, 2)
    for name in ("reconstructions", "samples", "random_walk", "latent_scatter"):
        monkeypatch.setattr(plots, name, lambda ax, *a, name=name, **k: shown.__setitem__(name, (a, k)))
    plots.draw_run(tmp_path, model, digits, HISTORY, seed=6)
    x, reconstructed, shape, columns = shown["reconstructions"][0]
    assert_array_equal(x, digits.test[:50])
    assert_array_equal(reconstructed, model.reconstruct(x))
    assert shape == (8, 8) and columns == 10 and shown["samples"][1]["seed"] == shown["random_walk"][1]["seed"] == 6
    assert_array_equal(shown["latent_scatter"][0][0], model.encode_mean(digits.test))
    assert_array_equal(shown["latent_scatter"][0][1], digits.test_labels)


@pytest.mark.drawn
@pytest.mark.parametrize("n_latent", [2, 3])
def test_a_run_gets_every_picture_that_fits_its_latent_space(tmp_path, digits, n_latent):
    paths = plots.draw_run(tmp_path / "figures", VAE(64, 20, n_latent), digits, HISTORY)
    names = ["learning_curve", "reconstructions", "traversals", "uncertainty", "samples", "nearest", "random_walk"]
    more = ["manifold", "interpolation", "latent", "latent_map"] if n_latent == 2 else ["interpolation"]
    assert [path.stem for path in paths] == names + more
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


X = np.zeros((4, 6))
TITLED = {
    "reconstructions": lambda ax: plots.reconstructions(ax, X, X, (2, 3)),
    "samples": lambda ax: plots.samples(ax, small(), (2, 3), n=4),
    "manifold": lambda ax: plots.manifold(ax, small(), (2, 3), rows=2, columns=2),
    "random_walk": lambda ax: plots.random_walk(ax, small(), (2, 3), steps=4),
    "traversals": lambda ax: plots.traversals(ax, small(), X[0], (2, 3)),
    "interpolation": lambda ax: plots.interpolation(ax, small(), X.reshape(2, 2, 6), (2, 3)),
    "nearest_training": lambda ax: plots.nearest_training([ax], small(), X, X, (2, 3)),
    "latent_scatter": lambda ax: plots.latent_scatter(ax, X[:, :2]),
    "latent_map": lambda ax: plots.latent_map(ax, X[:, :2], X, (2, 3)),
    "learning_curve": lambda ax: plots.learning_curve(ax, HISTORY),
    "uncertainty": lambda ax: plots.uncertainty([ax, *plots.Figure().subplots(2)], X, X[None], (2, 3)),
}


@pytest.mark.parametrize("name", TITLED)
def test_a_title_stands_at_the_left_in_letters_of_8_points(ax, name):
    TITLED[name](ax)
    title = ax.get_title(loc="left")
    assert title and [text.get_fontsize() for text in ax.findobj(Text) if text.get_text() == title] == [8]


def test_the_points_of_latents_are_small_and_their_legend_stands_beside_them_without_a_frame(ax):
    (points,) = plots.latent_scatter(ax, np.eye(2), np.arange(2))
    legend = ax.get_legend()
    assert_array_equal(points.get_sizes(), [4])
    assert not legend.get_frame_on() and ax.get_aspect() == 1
    assert_array_equal(ax.transAxes.inverted().transform(legend.get_bbox_to_anchor().p0), [1, 0.5])
