"""--color rgb: images with red, green and blue from the file to the picture, and what becomes grey is said."""

import json
import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from scratchvae import VAE, load_data, load_model, plots
from scratchvae.cli import main
from scratchvae.data import DataError, load_images
from scratchvae.gradcheck import check_model

GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)  # oblong, so that no two axes can be exchanged
GREY = GENERATOR.integers(0, 256, (6, 5), dtype=np.uint8)
QUICK = ["--hidden", "7", "--latent", "2", "--samples", "1000", "--batch-size", "6", "--init", "glorot", "--quiet"]


def saved(folder, **images):
    """A folder with these images as PNG files, by their names."""
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(folder / f"{name}.png")
    return folder


def run(*words):
    return main([str(word) for word in words])


# What is read


def test_colours_that_become_grey_are_counted_and_what_has_none_is_not(tmp_path):
    stored = np.stack([GREY] * 3, axis=-1)  # grey, though stored as RGB
    hidden = np.dstack([RGB[2], np.zeros_like(GREY)])  # colours that nobody sees
    palette = Image.fromarray(RGB[3]).convert("P")
    folder = saved(tmp_path / "a", a=RGB[0], b=RGB[1], c=stored, d=GREY, e=hidden, f=palette)
    with pytest.warns(UserWarning) as said:
        data = load_images(folder, background="white")
    assert [str(warning.message) for warning in said] == [
        f"{folder}: 3 of 6 images are coloured, and turned to grey: train with color='rgb' to keep the colours "
        "(--color rgb)"
    ]
    assert said[0].filename == __file__
    assert data.image_shape == (6, 5)
    for row, image in zip(data.x, (Image.fromarray(RGB[0]), Image.fromarray(RGB[1])), strict=False):
        assert_array_equal(row, np.asarray(image.convert("L")).ravel())
    assert_array_equal(data.x[2:5], [GREY.ravel(), GREY.ravel(), np.full(30, 255)])
    (folder / "b.png").unlink()
    (folder / "f.png").unlink()
    with pytest.warns(UserWarning, match="1 of 4 images is coloured"):
        load_data(folder, background="white")


def test_a_folder_without_colours_is_read_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_images(saved(tmp_path / "a", a=GREY, b=np.stack([GREY] * 3, axis=-1)))
    assert_array_equal(data.x, [GREY.ravel()] * 2)


def test_with_rgb_a_row_has_the_colours_of_each_pixel_side_by_side_and_grey_files_three_times_the_same(tmp_path):
    data = load_images(saved(tmp_path / "a", a=RGB[0], b=GREY, c=RGB[1]), color="rgb")
    assert data.image_shape == (6, 5, 3)
    assert_array_equal(data.x, [RGB[0].ravel(), np.stack([GREY] * 3, axis=-1).ravel(), RGB[1].ravel()])
    assert_array_equal(data.x[0, :3], RGB[0, 0, 0])


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), (77, 77)])
def test_transparent_colours_are_laid_on_the_background_channel_by_channel(tmp_path, background, level):
    alpha = GENERATOR.integers(0, 256, (6, 5, 1), dtype=np.uint8)
    folder = saved(tmp_path / "a", a=np.concatenate([RGB[0], alpha], axis=2))
    with pytest.raises(DataError, match=r"a\.png has transparent pixels.*--background"):
        load_images(folder, color="rgb")
    read = load_images(folder, background=background, color="rgb").x.reshape(6, 5, 3)
    exact = (RGB[0] * (alpha / 255.0)) + level * (1 - alpha / 255.0)
    assert np.abs(read - exact).max() <= 0.5 + 1e-9


def test_arrays_of_colours_are_read_as_images_in_splits_and_as_rows(tmp_path):
    np.save(tmp_path / "a.npy", RGB)
    data = load_data(tmp_path / "a.npy", color="rgb")
    assert data.image_shape == (6, 5, 3)
    assert_array_equal(data.whole().x, RGB.reshape(12, 90))
    assert "6 x 5 x 3, pixels of red, green and blue" in str(data)
    np.savez(tmp_path / "a.npz", train=RGB[:6] / 255, valid=RGB[6:8] / 255, test=RGB[8:] / 255)
    data = load_data(tmp_path / "a.npz", color="rgb")
    assert data.image_shape == (6, 5, 3)
    assert_array_equal(data.test, RGB[8:].reshape(4, 90) / 255)
    np.save(tmp_path / "square.npy", RGB[:, :5].reshape(12, 75))
    assert load_data(tmp_path / "square.npy", color="rgb").image_shape == (5, 5, 3)
    np.save(tmp_path / "rows.npy", RGB.reshape(12, 90))
    assert load_images(tmp_path / "rows.npy", image_shape=[6, 5, 3], color="rgb").image_shape == (6, 5, 3)
    with pytest.raises(DataError, match=r"rows of 90, which are no square images of three colours: save \(N, height,"):
        load_data(tmp_path / "rows.npy", color="rgb")


@pytest.mark.parametrize(
    ("images", "color", "message"),
    [
        (
            RGB,
            "grey",
            "expected (N, D) or (N, height, width): to train with the colours give color='rgb' (--color rgb)",
        ),
        (RGB[..., 0], "rgb", "expected (N, D) or (N, height, width, 3): these images are grey, as without color='rgb'"),
        (RGB.transpose(0, 3, 1, 2), "rgb", "put the colours last, np.moveaxis(images, 1, 3)"),
        (RGB.transpose(0, 3, 1, 2), "grey", "put the colours last, np.moveaxis(images, 1, 3), and give color='rgb'"),
        (RGB[..., :2], "rgb", "has shape (12, 6, 5, 2); expected (N, D) or (N, height, width, 3), none of them 0"),
        (RGB[:0], "rgb", "has shape (0, 6, 5, 3); expected (N, D) or (N, height, width, 3), none of them 0"),
    ],
)
def test_arrays_whose_colours_are_not_those_asked_for_are_refused_with_the_way_out(tmp_path, images, color, message):
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataError) as error:
        load_data(tmp_path / "a.npy", color=color)
    assert message in str(error.value) and str(tmp_path / "a.npy") in str(error.value)


def test_colours_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="color is 'rgb'; it is for images of your own, and those of digits are grey"):
        load_data("digits", color="rgb")
    with pytest.raises(ValueError, match="color is 'RGB'; expected one of grey, rgb"):
        load_data("digits", color="RGB")


# Convolutions


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": (2, 3), "n_hidden": 4},
        {"channels": (2,), "n_hidden": (), "likelihood": "gaussian", "estimator": "iwae", "n_samples": 2},
    ],
)
def test_the_gradients_of_convolutions_over_colours_equal_the_oracle(settings):
    x = np.random.default_rng(0).random((3, 5 * 5 * 3))
    report = check_model(VAE(75, n_latent=2, image_channels=3, dtype="float64", **settings), x, points=1)
    assert report, str(report)
    assert all(row.oracle is not None and row.oracle < 1e-10 for row in report)


def test_image_channels_are_kept_where_they_are_not_1_and_need_images_that_have_them():
    model = VAE(75, 4, 2, channels=(2,), image_channels=3)
    assert model.config["image_channels"] == 3 and "image_channels" not in VAE(25, 4, 2, channels=(2,)).config
    shapes = {name: shape for name, (_, shape) in model.params.windows.items()}
    assert shapes["encoder.conv1.W"] == (48, 2) and shapes["decoder.logits.W"] == (48, 2)
    assert shapes["decoder.logits.b"] == (3,)
    for settings, message in [
        ({"n_visible": 76, "channels": (2,)}, "n_visible is 76; expected 3 times a square number for channels"),
        ({"n_visible": 25, "channels": (2,)}, "n_visible is 25; expected 3 times a square number for channels"),
        ({"n_visible": 75}, "image_channels is 3, which convolutions read: leave it out, or give channels"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            VAE(**settings, image_channels=3)
    with pytest.raises(ValueError, match="image_channels is 0; expected a whole number ≥ 1"):
        VAE(75, channels=(2,), image_channels=0)


# The command line


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of coloured images, 6 x 6, and runs on it: with an MLP, with convolutions, and in grey."""
    base = tmp_path_factory.mktemp("colour")
    images = {f"{k:02d}": np.random.default_rng(k).integers(0, 256, (6, 6, 3), dtype=np.uint8) for k in range(30)}
    saved(base / "images", **images)
    kinds = {"mlp": ["--color", "rgb"], "conv": ["--color", "rgb", "--channels", "2"], "grey": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_run", lambda *arguments, **settings: [])
        for name, words in kinds.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert run("train", "--data", base / "images", *words, *QUICK, "--out", base / name) == 0
    return base


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_run_in_colour_is_sampled_reconstructed_encoded_and_explored_in_colour(folders, kind, tmp_path, capsys):
    model = load_model(folders / kind)
    assert (model.n_visible, model.config.get("image_channels", 1)) == (108, 3 if kind == "conv" else 1)
    options = json.loads((folders / kind / "config.json").read_text(encoding="utf-8"))["options"]
    assert (options["color"], options["image_shape"]) == ("rgb", [6, 6, 3])
    assert run("sample", folders / kind, "--out", tmp_path / "new", "--n", 2) == 0
    z = np.random.default_rng(0).standard_normal((2, 2), dtype=np.float32)
    for k, image in enumerate(model.decode(z), start=1):
        with Image.open(tmp_path / "new" / f"sample_{k}.png") as written:
            assert written.mode == "RGB"
            assert_array_equal(np.asarray(written), np.round(255 * image.reshape(6, 6, 3)))
    given = load_images(folders / "images", color="rgb")
    words = ["reconstruct", folders / kind, "--data", folders / "images", "--out"]
    assert run(*words, tmp_path / "again") == 0
    with Image.open(tmp_path / "again" / "07.png") as written:
        expected = model.reconstruct(given.x)[7]
        assert_array_equal(np.asarray(written), np.round(255 * expected.reshape(6, 6, 3)))
    for command in (["sample", folders / kind, "--out"], [*words[:-1], "--n", 7, "--out"]):
        assert run(*command, tmp_path / "grid.png") == 0
        with Image.open(tmp_path / "grid.png") as grid:
            assert np.ptp(np.asarray(grid.convert("RGB"), int), axis=-1).max() > 15  # there are colours
    assert run("encode", folders / kind, "--data", folders / "images", "--out", tmp_path / "z.npy") == 0
    assert_array_equal(np.load(tmp_path / "z.npy"), model.encode_mean(given.x))
    assert run("explore", folders / kind, "--out", tmp_path / "page.html") == 0
    assert '"shape": [6, 6, 3]' in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert run("evaluate", folders / kind) == 0
    assert capsys.readouterr().err == ""  # nothing became grey on the way


@pytest.mark.drawn
def test_the_pictures_of_a_run_in_colour_are_drawn_and_it_resumes(folders, tmp_path, capsys):
    assert run("train", "--resume", folders / "mlp", "--samples", 1200, "--quiet") == 0
    with Image.open(folders / "mlp" / "figures" / "reconstructions.png") as picture:
        assert np.ptp(np.asarray(picture.convert("RGB"), int), axis=-1).max() > 30
    assert run("train", "--resume", folders / "mlp", "--color", "grey") == 2
    assert "was trained with color rgb, not grey" in capsys.readouterr().err


def test_a_run_in_grey_says_once_that_colour_is_lost_and_an_older_one_knows_no_colour(folders, tmp_path, capsys):
    path = folders / "grey" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["options"].pop("color") == "grey" and config["options"]["image_shape"] == [6, 6]
    path.write_text(json.dumps(config), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run("encode", folders / "grey", "--data", folders / "images", "--out", tmp_path / "z.npy") == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "30 of 30 images are coloured, and turned to grey" in err
