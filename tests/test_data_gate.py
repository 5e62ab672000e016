"""The gates for data: image folders, uint8 that are no pixels, arrays of all kinds, files that promise too much."""

import contextlib
import errno
import gzip
import io
import json
import os
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from decimal import Decimal

import numpy as np
import pytest
from conftest import small
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import sparse
from scipy.io import savemat

from scratchvae import VAE, evaluate, fit, load_data, load_model
from scratchvae.backend import plain
from scratchvae.cli import main
from scratchvae.data import DataError, images
from scratchvae.data.arrays import own
from scratchvae.data.images import _webp_canvas, read_folder
from scratchvae.data.mat import read_uint8
from scratchvae.data.named import _read
from scratchvae.data.pixels import into_unit
from scratchvae.files import FileError, read_npy, read_npz
from scratchvae.inference.mean_field import MixtureOfGaussians
from scratchvae.models.autoencoder import PCA
from scratchvae.models.factor_analysis import PPCA
from scratchvae.models.regression import LinearRegression
from scratchvae.training.checkpoint import CheckpointError

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (4, 3), dtype=np.uint8)
GREY[0, 0] = 255
ALPHA = GENERATOR.integers(1, 255, (4, 3), dtype=np.uint8)
ALPHA[0] = [0, 128, 255]


@contextlib.contextmanager
def memory_below(limit):
    """What is done meanwhile takes less than so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def folder(tmp_path, **images):
    """A folder with these images, whose names end in their format: a_png=…"""
    for name, image in images.items():
        image.save(tmp_path / name.replace("_", "."))
    return tmp_path


def saved(write, *arguments, **settings):
    buffer = io.BytesIO()
    write(buffer, *arguments, **settings)
    return buffer.getvalue()


# Transparency


def over(background):
    return np.floor((GREY * (ALPHA / 255.0) + background * (1 - ALPHA / 255.0)) + 0.5)


@pytest.mark.parametrize("name", ["a_png", "a_webp", "a_tiff"])
@pytest.mark.parametrize(
    ("background", "level"), [("white", 255), ("black", 0), (77, 77), (np.uint8(200), 200), (0, 0), (255, 255)]
)
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_the_background(tmp_path, name, mode, background, level):
    ink = Image.merge(mode, [Image.fromarray(GREY)] * (len(mode) - 1) + [Image.fromarray(ALPHA)])
    if name == "a_webp":
        ink = ink.convert("RGBA")
        ink.save(tmp_path / "a.webp", lossless=True, exact=True)
    else:
        folder(tmp_path, **{name: ink})
    data = [load_data_of_three(tmp_path, background)]
    assert np.abs(data[0].reshape(4, 3) - over(level)).max() <= 0.5 + 1e-9


def load_data_of_three(path, background):
    (file,) = path.iterdir()
    for k in range(2):
        (path / f"b{k}{file.suffix}").write_bytes(file.read_bytes())
    data = load_data(path, background=background)
    assert_array_equal(data.train, data.test)
    return data.train


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_is_transparency_too(tmp_path, mode):
    ink = np.array([[0, 255], [255, 0]], np.uint8)
    image = Image.fromarray(ink)
    if mode == "P":
        image = Image.fromarray(ink // 255, "L").convert("P")
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png", transparency=(255, 255, 255) if mode == "RGB" else 255)
    with Image.open(tmp_path / "a.png") as read:
        assert "transparency" in read.info
    assert_array_equal(read_folder(tmp_path, 40)[0][0], [[0, 40], [40, 0]])


@pytest.mark.parametrize(("bits", "above"), [(1, 0), (2, 0), (4, 0), (8, 0), (2, 1), (4, 1), (8, 1)])
def test_a_transparent_grey_of_a_png_is_one_of_its_own_depth(tmp_path, bits, above):
    white = (1 << bits) - 1
    pixels = white << (8 - bits)  # in one byte: the first is white, and the others are black
    for level, read in [(white, [40, 0]), (0, [255, 40])]:
        key = struct.pack(">H", level + (above << bits))  # bits that the depth does not have mean nothing
        (tmp_path / "a.png").write_bytes(png(2, 1, bits, data=bytes([0, pixels, 0]), tRNS=key))
        assert_array_equal(read_folder(tmp_path, 40)[0][0], [read])
        with pytest.raises(DataError, match=r"a\.png has transparent pixels"):
            read_folder(tmp_path)


def test_a_transparent_gif_is_laid_on_the_background(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    image.putpalette([0, 0, 0, 250, 250, 250])
    image.save(tmp_path / "a.gif", transparency=0)
    assert_array_equal(read_folder(tmp_path, 255)[0][0], [[255, 250], [250, 255]])
    with pytest.raises(DataError, match=r"a\.gif has transparent pixels: say what lies behind them with background"):
        load_data(tmp_path)


def test_transparent_images_without_a_background_are_refused_and_opaque_ones_need_none(tmp_path):
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    folder(tmp_path, a_png=Image.fromarray(GREY), b_png=image)
    with pytest.raises(
        DataError, match=r"b\.png has transparent pixels.*'white', 'black' or a grey level.*--background"
    ):
        load_data(tmp_path)
    image.putalpha(255)
    folder(tmp_path, b_png=image)
    assert_array_equal(read_folder(tmp_path)[0], [GREY, GREY])


@pytest.mark.parametrize("bad", ["grey", "", 256, -1, 1.0, True, (0, 0, 0)])
def test_a_background_that_is_none_is_refused(tmp_path, bad):
    with pytest.raises(ValueError, match=r"background is .*; expected 'white', 'black' or a grey level from 0 to 255"):
        load_data(tmp_path, background=bad)


def test_a_background_for_what_is_no_folder_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((9, 4), 200, np.uint8))
    for name in ("digits", tmp_path / "a.npy"):
        with pytest.raises(ValueError, match="background is 'white'; it is for a folder of images"):
            load_data(name, background="white")


def test_the_command_line_takes_a_background_and_keeps_it_in_the_run(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for k in range(6):
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(images / f"{k}.png")
    words = ["train", "--data", str(images), "--latent", "2", "--hidden", "3", "--samples", "20", "--quiet"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*words, "--out", str(tmp_path / "no")]) == 2
        assert "--background" in capsys.readouterr().err
        assert main([*words, "--out", str(tmp_path / "run"), "--background", "12"]) == 0
        assert '"background": 12' in (tmp_path / "run" / "config.json").read_text(encoding="utf-8")
        assert main(["evaluate", str(tmp_path / "run")]) == 0
        assert main([*words, "--out", str(tmp_path / "no"), "--background", "pink"]) == 2
        assert "background is 'pink'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:overflow")
def test_json_of_a_bound_that_is_not_finite_is_json_and_its_words_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((9, 2, 2))
    np.savez("a.npz", train=x, valid=x, test=x * np.float64(1e30))
    monkeypatch.setattr("scratchvae.plots.draw_run", lambda *arguments: {})
    words = "--data a.npz --likelihood gaussian --mean free --latent 2 --hidden 3 --samples 9 --batch-size 9 --quiet"
    assert main(["train", *words.split(), "--out", "run"]) == 0
    capsys.readouterr()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    assert main(["evaluate", "run", "--log-likelihood", "30", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=refuse)
    assert found["bound"] is None and found["reconstruction"] is None and found["log_likelihood"] is None
    assert found["not_finite"] == found["untrusted"] == found["n"] == 9
    assert "warning: the bound of x is -inf, since that of 9 of 9 datapoints is not finite" in err
    assert "warning: log p(x) of 9 of 9 datapoints is not finite" in err
    assert main(["evaluate", "run", "--log-likelihood", "30"]) == 0
    out, _ = capsys.readouterr()
    assert "test bound -inf" in out and "log p(x) -inf" in out and "it is not finite for 9 of 9" in out


# Orientation, pages, classes


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff", "a.webp"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: a.T[:, ::-1]),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: a.T[::-1]),
    ],
)
def test_images_are_turned_upright(tmp_path, name, orientation, upright):
    stored = np.kron(np.array([[0, 90, 255], [200, 30, 120]], np.uint8), np.ones((16, 16), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"a.jpg": {"quality": 100}, "a.webp": {"lossless": True}}.get(name, {})
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **settings)
    (read,) = read_folder(tmp_path)[0]
    expected = upright(stored)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("name", "settings"), [("a.tiff", {}), ("a.gif", {}), ("a.png", {}), ("a.webp", {})])
def test_pages_that_are_left_out_are_counted(tmp_path, name, settings):
    pages = [Image.fromarray(np.full((4, 4), 20 * k + 160, np.uint8)) for k in range(4)]
    for k in range(3):
        pages[0].save(tmp_path / f"{k}{name}", save_all=True, append_images=pages[1:], **settings)
    with pytest.warns(UserWarning, match=r"0a\.\w+ and 2 more files hold several pages: .* and 9 are left out"):
        assert np.abs(load_data(tmp_path).train.astype(int) - 160).max() <= 2


def class_folders(path, names=("cat", "ant", "bee"), n=4):
    for k, name in enumerate(names):
        (path / name).mkdir()
        for i in range(n):
            Image.fromarray(np.full((2, 2), 150 + 10 * k + i, np.uint8)).save(path / name / f"{i}.png")
    return path


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path):
    data = load_data(class_folders(tmp_path))
    assert data.classes == ("ant", "bee", "cat")
    assert str(data).endswith("; 3 classes: ant, bee, cat")
    for part in ("train", "valid", "test"):
        drawn = getattr(data, part)[:, 0].astype(int) - 150
        assert_array_equal(getattr(data, f"{part}_labels"), np.array([2, 0, 1])[drawn // 10])
    assert (
        sorted(np.concatenate([data.train_labels, data.valid_labels, data.test_labels])) == [0] * 4 + [1] * 4 + [2] * 4
    )
    assert load_data("digits").classes is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: Image.new("L", (2, 2)).save(p / "a.png"), "holds both images and folders (ant, bee, cat)"),
        (lambda p: (p / "dog").mkdir(), "dog has no images in it"),
        (lambda p: (p / "ant" / "more").mkdir(), "ant holds folders (more); expected images"),
        (lambda p: (p / "ant" / "x.txt").write_text("x", encoding="utf-8"), "x.txt is no image"),
        (lambda p: os.mkfifo(p / "ant" / "x.png"), "x.png is no regular file"),
        (lambda p: os.symlink("nowhere", p / "ant" / "x.png"), "x.png is no regular file"),
        (lambda p: Image.new("L", (3, 2)).save(p / "bee" / "9.png"), "9.png is (2, 3), the images before it (2, 2)"),
    ],
)
def test_class_folders_that_are_none_are_refused(tmp_path, spoil, message):
    spoil(class_folders(tmp_path))
    with pytest.raises(DataError) as error:
        load_data(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["test", "train"], "test, train"),
        (["dev", "test", "train"], "dev, test, train"),
        (["test", "train", "unlabeled"], "test, train"),
        (["holdout", "train"], "train"),
        (["Test_images", "Train_images"], "Test_images, Train_images"),
        (["test_set", "train_set"], "test_set, train_set"),
        (["testSet", "trainingset", "VALSET"], "VALSET, testSet, trainingset"),
        (["train2017", "val2017"], "train2017, val2017"),
        (["Validation", "cat"], "Validation"),
    ],
)
def test_splits_are_not_mistaken_for_classes(tmp_path, names, splits):
    class_folders(tmp_path, names, 1)
    with pytest.raises(DataError, match=f"holds {splits}, which look like splits; expected classes: give one of the"):
        load_data(tmp_path)


def test_classes_may_begin_like_splits_and_hidden_entries_are_passed_over(tmp_path):
    names = ("Valentine", "developers", "devil", "testament", "trainers", "valley")
    class_folders(tmp_path, names, 1)
    (tmp_path / ".hidden").mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini"):
        (tmp_path / "devil" / name).write_text("x", encoding="utf-8")
    assert load_data(tmp_path).classes == names


def test_a_folder_that_holds_one_folder_is_not_one_class(tmp_path):
    class_folders(tmp_path, ["images"])
    with pytest.raises(DataError, match=r"holds the folder images alone; expected images, or two .*: give .*/images$"):
        load_data(tmp_path)
    assert load_data(tmp_path / "images").classes is None


def png(width, height, bits=8, colour=0, data=b"", **more):
    """A PNG with this header, and with more chunks by their names."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    between = b"".join(chunk(name.encode(), content) for name, content in more.items())
    ends = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + ends


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(20_000, 20_000), "a.png is no image in"),  # 400 million pixels: Pillow's own error
        (png(12_000, 12_000), "a.png has 12000 x 12000 pixels; expected 16,777,216 at most"),  # and its warning
        (png(5_000, 5_000), "a.png has 5000 x 5000 pixels"),
        (png(4, 4), "a.png is no image in"),
        (png(2, 1, 16, 2, bytes(13)), "a.png has pixels of mode RGB;16B; expected grey, RGB or RGBA with 8 bits a"),
        (saved(Image.new("CMYK", (2, 2)).save, format="JPEG"), "a.png has pixels of mode CMYK; expected grey, RGB or"),
        (b"DDS " + bytes(200), "a.png is no image in PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.png is no image in PNG, JPEG"),
        (b"", "a.png is no image in"),
    ],
)
def test_images_are_limited_in_format_and_size_before_they_are_decoded(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with memory_below(10_000_000), pytest.raises(DataError) as error:
        load_data(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_the_decoder_warns_of_names_the_file(tmp_path, monkeypatch):
    folder(tmp_path, a_png=Image.fromarray(GREY))
    opened = Image.open

    def open_with_a_warning(*arguments, **settings):
        warnings.warn("Corrupt EXIF data", stacklevel=1)
        return opened(*arguments, **settings)

    monkeypatch.setattr(Image, "open", open_with_a_warning)
    with pytest.warns(UserWarning, match=r"a\.png: Corrupt EXIF data"):
        read_folder(tmp_path)


def test_a_file_that_is_no_image_is_named_and_no_object_of_python_is(tmp_path):
    (tmp_path / "z.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"z\.png is no image in .* that can be read \(cannot identify image file\): "):
        load_data(tmp_path)


def test_a_memory_error_of_the_decoder_names_the_file(tmp_path, monkeypatch):
    folder(tmp_path, a_png=Image.fromarray(GREY))

    def fail(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"a\.png is no image .*\(MemoryError\)"):
        load_data(tmp_path)


# Numbers that are no pixels

UNIT = np.linspace(0, 1, 120).reshape(6, 20).T  # its first row has 0, its last one 1


@pytest.mark.parametrize("highest", [1, 16, 100, 127])
def test_uint8_that_do_not_reach_half_of_white_are_warned_about(tmp_path, highest):
    x = GENERATOR.integers(0, highest + 1, (20, 6), dtype=np.uint8)
    x[:, 0] = highest
    words = rf"holds uint8 up to {highest}, which is read as x/255.*x\.astype\('float32'\) / {highest};"
    np.save(tmp_path / "a.npy", x.reshape(20, 2, 3))
    with pytest.warns(UserWarning, match=rf"a\.npy {words}"):
        assert load_data(tmp_path / "a.npy").train.max() == highest  # and they stay as they are
    model = VAE(6, 5, 2)
    with pytest.warns(UserWarning, match=f"train {words}") as said:
        fit(model, x, x, samples=60, batch_size=10, progress=False)
    assert len(said) == 1  # and not once more for each row of the history
    for ask in (evaluate, *(DOORS[name] for name in DOORS if "code" in name or "reconstruct" in name)):
        with pytest.warns(UserWarning, match=f"^x {words}") as said:
            ask(model, x)
        assert len(said) == 1


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (UNIT * 16, r"from 0 to 16; expected \[0, 1\].*: divide all data by their maximum, here 16$"),
        (UNIT * 255, r"from 0 to 255; expected \[0, 1\].*: divide by 255, or save as uint8$"),
        (UNIT * 256, r"from 0 to 256; .*: divide all data by their maximum, here 256$"),
        (
            UNIT * 1680,
            r"from 0 to 1680; .*, here 1680; a table with units of its own is for scratchvae.sklearn, in Python$",
        ),
        (UNIT * 2 - 1, r"from -1 to 1; .*: if black is -1 and white is 1, take \(x \+ 1\) / 2$"),
        (UNIT * (1 + 1e-6), r"from 0 to 1\.000001; .*: round them into it, x\.clip\(0, 1\)$"),
        (UNIT * 6 - 3, "from -3 to 3; .*: if they are standardised, undo that, and else take a gaussian or laplace"),
    ],
)
def test_floats_out_of_range_are_told_how_they_come_into_it(tmp_path, x, words):
    with pytest.raises(ValueError, match=f"^train has values {words}"):
        fit(VAE(6, 5, 2), x, samples=20, batch_size=10, progress=False)
    np.save(tmp_path / "a.npy", x)
    with pytest.warns(UserWarning, match="drawn as 1 x"), pytest.raises(DataError, match=words):
        load_data(tmp_path / "a.npy", binarization="fixed", split=(18, 1, 1))


@pytest.mark.parametrize(
    ("lowest", "highest", "remedy"),
    [
        (-0.9e-5, 1 + 0.9e-5, "round them into it"),
        (0.0, 1 + 1.1e-5, "divide all data by their maximum, here 1.00001"),
        (-1 - 0.9e-5, 1 + 0.9e-5, "if black is -1 and white is 1"),
        (-1 - 1.1e-5, 1.0, "if they are standardised"),
        (-1.5, 1.0, "if they are standardised"),
        (-1.0, 1 + 1.1e-5, "if they are standardised"),
        (0.0, 127.0, "divide all data by their maximum, here 127"),
        (0.0, 128.0, "divide by 255, or save as uint8"),
        (0.0, 255.0, "divide by 255, or save as uint8"),
        (0.0, 255.5, "divide all data by their maximum, here 255.5"),
    ],
)
def test_how_floats_come_into_the_unit_interval_depends_on_where_they_end_on_both_sides(lowest, highest, remedy):
    assert into_unit(lowest, highest).startswith(remedy)


def test_floats_that_do_not_reach_half_of_white_are_warned_about_once():
    x = UNIT * 16 / 255
    words = "holds floats up to 0.063, where white is 1: if their maximum is to be white, divide all data by it"
    with pytest.warns(UserWarning, match=f"^train {words}") as said:
        fit(VAE(6, 5, 2), x, x, samples=60, batch_size=10, progress=False)
    assert len(said) == 1
    for ask in (evaluate, *(DOORS[name] for name in DOORS if "code" in name or "reconstruct" in name)):
        with pytest.warns(UserWarning, match=f"^x {words}") as said:
            ask(VAE(6, 5, 2), x)
        assert len(said) == 1
    for model, fine in [(gaussian_of_six(), x), (VAE(6, 5, 2), UNIT / 2), (VAE(6, 5, 2), 0 * x)]:
        fit(model, fine, samples=20, batch_size=10, progress=False)


def scales(dtype, train, valid):
    """Rows for training and to look at, of values up to these."""
    unit = np.concatenate([np.ones((1, 6)), np.random.default_rng(6).random((28, 6)), np.ones((1, 6))])
    return (train * unit[:20]).astype(dtype), (valid * unit[20:]).astype(dtype)


def gaussian_of_six():
    return VAE(6, 5, 2, likelihood="gaussian", mean="free")


@pytest.mark.parametrize(
    ("dtype", "train", "valid", "words"),
    [
        (np.uint8, 255, 15, r"valid holds uint8 up to 15, which is read as x/255"),
        (np.uint8, 255, 100, r"valid holds uint8 up to 100, which is read as x/255"),
        (float, 1.0, 255.0, r"valid has values of sizes up to 2\.6e\+02, and train up to 1: expected one scale"),
        (float, 255.0, -1.0, r"valid has values of sizes up to 1, and train up to 2\.6e\+02: expected one"),
        (float, 1.0, 0.0, "valid has values of sizes up to 0, and train up to 1: expected one scale for both; divide"),
    ],
)
def test_a_validation_set_on_another_scale_is_warned_about_once(tmp_path, dtype, train, valid, words):
    train, valid = scales(dtype, train, valid)
    settings = {"samples": 60, "batch_size": 10, "progress": False}
    with pytest.warns(UserWarning, match=f"^{words}") as said:
        fit(gaussian_of_six(), train, valid, log_every=10, **settings)
    assert len(said) == 1
    splits = {"train": train, "valid": valid, "test": train}
    np.savez(tmp_path / "a.npz", **{name: rows.reshape(-1, 2, 3) for name, rows in splits.items()})
    with pytest.warns(UserWarning, match=words.replace("valid", r"^valid of .*a\.npz", 1)) as said:
        load_data(tmp_path / "a.npz")
    assert len(said) == 1


def test_sets_on_one_scale_are_not_warned_about():
    heavy = np.abs(np.random.default_rng(6).standard_cauchy((200, 6)))
    pairs = [scales(np.uint8, 255, 128), scales(float, 1.0, 0.15), (heavy, np.minimum(heavy[:50], 5))]
    pairs += [(255 * np.ones((9, 6), np.uint8), np.ones((9, 6)))]  # pixels, stored in two ways
    assert pairs[2][0].max() > 50  # ten times as large, and the means are alike
    for train, valid in pairs:
        fit(gaussian_of_six(), train, valid, samples=18, batch_size=9, progress=False)


def test_a_folder_of_masks_is_warned_about(tmp_path):
    for k in range(4):
        Image.fromarray(np.eye(3, dtype=np.uint8)).save(tmp_path / f"{k}.png")
    with pytest.warns(UserWarning, match="holds uint8 up to 1, which is read as x/255, as pixels up to 0.0039"):
        load_data(tmp_path)


def test_pixels_that_are_white_somewhere_are_not_warned_about(tmp_path, digits):
    for name, x in {"edge": np.full((9, 4), 128, np.uint8), "binary": 255 * np.eye(9, dtype=np.uint8)}.items():
        np.save(tmp_path / f"{name}.npy", x)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings("ignore", "batch_size|.*drawn as 1 x")
            load_data(tmp_path / f"{name}.npy")
            fit(VAE(x.shape[1], 5, 2), x, samples=9, progress=False)
    fit(VAE(64, 5, 2), load_data("digits", binarization="fixed").train[:100], samples=100, progress=False)


@pytest.mark.parametrize("scale", [1, 16, 255])
def test_estimators_of_tables_take_whole_numbers_as_the_numbers_they_are(scale):
    x = GENERATOR.integers(0, scale + 1, (60, 5)).astype(np.uint8)
    for ask in (
        lambda x: PPCA(2).fit(x).score_samples(x),
        lambda x: PCA(2).fit(x).transform(x),
        lambda x: MixtureOfGaussians(2).fit(x).means_,
        lambda x: LinearRegression(x, x[:, 0]).posterior()[0],
    ):
        assert_array_equal(ask(x), ask(x.astype(float)))
        assert_array_equal(ask(x.astype(np.int32)), ask(x.astype(float)))


class Counts:
    """A likelihood of whole numbers, as far as the gate asks: a Gaussian of unit variance."""

    name = "counts"
    outputs = ("mu",)
    support = (0, np.inf)

    def log_prob(self, x, mu, gradient=True):
        return -0.5 * ((x - mu) ** 2).sum(axis=-1), x - mu if gradient else None

    def mean(self, mu):
        return mu

    def noise(self, generator, shape, dtype):
        return generator.standard_normal(shape, dtype)

    def draw(self, eps, mu):
        return mu + eps


def test_counts_of_uint8_are_refused_where_the_support_goes_beyond_1():
    x = np.full((10, 6), 200, np.uint8)
    model = VAE(6, 5, 2, likelihood=Counts())
    for ask in (lambda: fit(model, x, samples=10), lambda: evaluate(model, x), lambda: model.encode(x)):
        with pytest.raises(
            ValueError, match=r"holds uint8, which would be read as x/255, .*counts takes values up to inf"
        ):
            ask()
    fit(model, x.astype(np.float32), samples=10, batch_size=10, progress=False)
    fit(
        VAE(6, 5, 2, likelihood="gaussian", mean="free"), x, samples=10, batch_size=10, progress=False
    )  # its `pixels` says so
    Pixels = type("Pixels", (Counts,), {"pixels": True})
    fit(VAE(6, 5, 2, likelihood=Pixels()), x, samples=10, batch_size=10, progress=False)


def test_uint8_for_a_likelihood_without_a_support_is_warned_about():
    Unknown = type("Unknown", (), {key: value for key, value in vars(Counts).items() if key != "support"})
    with pytest.warns(
        UserWarning, match=r"train holds uint8, which is read as x/255; if the likelihood counts is one of"
    ):
        fit(
            VAE(6, 5, 2, likelihood=Unknown()),
            np.full((10, 6), 200, np.uint8),
            samples=10,
            batch_size=10,
            progress=False,
        )


# Arrays of every kind


class Table:
    """What pandas makes of columns that differ: `dtypes`, `to_numpy`, and objects for NumPy."""

    def __init__(self, *columns):
        self.columns = [np.asarray(column) for column in columns]
        self.dtypes = [column.dtype for column in self.columns]

    def __len__(self):
        return len(self.columns[0])

    def __array__(self, dtype=None, copy=None):
        return np.stack([column.astype(object) for column in self.columns], axis=1)

    def to_numpy(self, dtype):
        return np.stack([column.astype(dtype) for column in self.columns], axis=1)


X = np.random.default_rng(1).random((7, 6))
MASKED = np.ma.masked_less(X, 0.5)
WRONG = {
    "masked": (MASKED, "has masked entries"),
    "a list of masked rows": ([*MASKED], "has masked entries"),
    "sparse": (sparse.csr_matrix(X), "is a sparse csr_matrix; .*toarray"),
    "sparse array": (sparse.coo_array(X), "is a sparse coo_array"),
    "texts": (X.astype(str), "holds texts"),
    "bytes": (X.astype("S5"), "holds texts"),
    "dates": (np.zeros((7, 6), "M8[s]"), "holds dates"),
    "times": (np.zeros((7, 6), "m8[s]"), "holds times"),
    "complex": (X + 0j, "holds complex numbers"),
    "decimals": ([[Decimal("0.5")] * 6] * 7, "holds Python objects"),
    "objects": (X.astype(object), "holds Python objects"),
    "records": (np.zeros((7, 6), [("a", float)]), "holds records"),
    "None": (None, "holds Python objects"),
    "ragged": ([[0.1, 0.2], [0.3]], r"is no array \(list: its rows differ in length\); expected"),
    "a generator": (iter(X), "holds Python objects"),
    "a table of texts": (Table(["a"] * 7, np.ones(7)), "holds Python objects"),
    "a scalar": (np.float64(0.5), r"has shape \(\)"),
    "a vector": (X[0], r"has shape \(6,\)"),
    "three axes": (X[None], r"has shape \(1, 7, 6\)"),
    "another width": (X[:, :5], r"has shape \(7, 5\)"),
}
OF_VALUES = {
    "bools": (X > 0.5, r"holds bool; expected floats, 0 and 1 .*: (x|train)\.astype\('float32'\)$"),
    "whole numbers": (np.ones((7, 6), int), "holds int64; expected uint8"),
    "NaN": (np.where(X < 0.5, np.nan, X), "not finite"),
    "inf": (np.where(X < 0.5, np.inf, X), "not finite"),
    "-inf": (np.where(X < 0.5, -np.inf, X), "not finite"),
    "0..255": (X * 255, r"values from .*; expected \[0, 1\]"),
    "negative": (X - 0.5, r"values from -0\.\d+ to"),
    "just above 1": (np.where(X < 0.5, np.float32(1.0000001), X.astype("f4")), r"to 1\.0000001; expected \[0, 1\]"),
    "just above 1 in float64": (np.where(X < 0.5, 1 + 1e-15, X), r"to 1\.000000000000001; expected \[0, 1\]"),
}
NOISE = np.random.default_rng(2).standard_normal((1, 7, 2))
DOORS = {
    "fit": lambda model, x: fit(model, x, samples=10, batch_size=7, progress=False),
    "evaluate": evaluate,
    "encode": VAE.encode,
    "encode_mean": VAE.encode_mean,
    "encode_samples": VAE.encode_samples,
    "reconstruct": VAE.reconstruct,
    "reconstruct_samples": VAE.reconstruct_samples,
    "latents": lambda model, x: model.latents(x, NOISE),
    "terms": lambda model, x: model.terms(x, NOISE),
    "bound": lambda model, x: model.bound(x, NOISE, 7),
    "pixels": VAE.pixels,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("wrong", WRONG | OF_VALUES)
def test_every_door_of_a_model_refuses_what_is_no_data(door, wrong):
    x, message = (WRONG | OF_VALUES)[wrong]
    model = small()
    before = model.params.value.copy()
    with pytest.raises(ValueError, match=message) as error:
        DOORS[door](model, x)
    assert str(error.value).startswith(("x ", "train ")) and "\n" not in str(error.value)
    assert_array_equal(model.params.value, before)
    DOORS[door](model, X)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_one_number_needs_a_row_and_what_is_a_row_each_does_not(door):
    model = small()
    if door in ("fit", "evaluate", "terms", "bound"):
        with pytest.raises(ValueError, match=r"expected .*N ≥ 1|x has no rows; expected one datapoint or more"):
            DOORS[door](model, X[:0])
        return
    found = model.latents(X[:0], NOISE[:, :0]) if door == "latents" else DOORS[door](model, X[:0])
    some = DOORS[door](model, X)
    pairs = zip(found, some, strict=True) if isinstance(found, tuple) else [(found, some)]
    assert all(a.shape == tuple(0 if n == len(X) else n for n in b.shape) for a, b in pairs)


@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "another width"] + ["NaN", "inf"])
def test_every_estimator_of_tables_refuses_what_is_no_data(wrong):
    x, message = (WRONG | OF_VALUES)[wrong]
    for ask in (PPCA(2).fit, PCA(2).fit, MixtureOfGaussians(2).fit, PPCA(2).fit(X).transform):
        with pytest.raises(ValueError, match=message):
            ask(x)
    if wrong not in ("a scalar", "a vector", "three axes"):
        with pytest.raises(ValueError, match=message.replace("values that are ", "")):
            LinearRegression(x, np.ones(7))


def test_what_is_data_in_another_coat_is_read_alike():
    model = small()
    expected = model.encode_mean(X)
    coats = [
        X.tolist(),
        [*X],
        Table(*X.T),
        np.ma.array(X),
        np.asfortranarray(X),
        X.astype(">f8"),
        X.astype(np.longdouble),
    ]
    coats += [X[::-1][::-1]]
    for coat in coats:
        assert_array_equal(model.encode_mean(coat), expected)
        assert evaluate(model, coat) == evaluate(model, X)
    assert_array_equal(PPCA(2).fit(Table(*X.T)).W_, PPCA(2).fit(X).W_)
    assert plain("x", X) is X


def test_codes_and_noise_that_are_not_finite_are_refused():
    model = small()
    for ask in (model.decode, model.draw):
        for bad, message in (
            (np.full((3, 2), np.nan), "z has values that are not finite"),
            (MASKED[:, :2], "z has mask"),
        ):
            with pytest.raises(ValueError, match=message):
                ask(bad)
    with pytest.raises(ValueError, match="noise has values that are not finite"):
        model.bound(X, NOISE * np.inf, 7)


def test_numbers_beyond_the_precision_of_the_model_are_refused():
    model = VAE(6, 5, 2, likelihood="gaussian", mean="free")
    with pytest.raises(ValueError, match=r"train has values from .* to 1e\+300, beyond float32"):
        fit(model, np.where(X < 0.5, 1e300, X), samples=10)


def test_a_training_step_looks_at_no_value_a_second_time(monkeypatch):
    looked = []
    monkeypatch.setattr("scratchvae.models.vae.model_rows", lambda *arguments: looked.append(arguments))
    monkeypatch.setattr("scratchvae.models.vae.finite", lambda name, x: looked.append(name))
    model = VAE(6, 5, 2)
    fit(model, X, samples=70, batch_size=7, progress=False)
    evaluate(model, X)
    assert looked == []
    model.encode(X)
    assert len(looked) == 1  # control


def test_on_the_device_values_are_not_waited_for(waits):
    from scratchvae.backend import move

    model = VAE(6, 5, 2, backend="cupy")
    x = move(np.full((7, 6), np.nan, np.float32), "cupy")
    noise = model.noise(np.random.default_rng(0), 7)
    before = waits.count
    model.bound(x, noise, 7, gradient=True)
    model.encode(x)
    model.reconstruct(x)
    assert waits.count == before


# Files that promise too much


def npy(descr="'<f8'", shape="(2, 3)", content=bytes(48), order="False"):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header += " " * (117 - len(header)) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def npz(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name if "__" not in name else name.replace("__", "."), content)
    return path


BROKEN = {
    "a promise of 10^12": (
        npy(shape="(1000000, 1000000)"),
        "its header promises 8,000,000,000,000 bytes, and it holds 48",
    ),
    "a promise beyond 64 bits": (npy(shape="(10000000000, 10000000000)"), "promises 800,000,000,000,000,000,000 bytes"),
    "one too few": (npy(content=bytes(47)), "promises 48 bytes, and it holds 47"),
    "one too many": (npy(content=bytes(49)), "promises 48 bytes, and it holds 49"),
    "two arrays": (npy() + npy(), "promises 48 bytes, and it holds 224"),
    "a pickle": (npy("'|O'", "(1,)", b"cos\nsystem\n(S'true'\ntR."), "a pickle"),
    "a hidden pickle": (npy("[('a', '|O')]", "(1,)", bytes(8)), "a pickle"),
    "records": (npy("[('a', '<f8')]", "(6,)"), "expected plain numbers"),
    "nothing, often": (npy("'|V0'", "(1000000000000,)", b""), "expected plain numbers"),
    "a negative shape": (npy(shape="(-2, -3)"), "its shape is"),
    "a shape of truth": (npy(shape="(True, 6)"), "its shape is|no NumPy file|no plain array"),
    "a long header": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{", "EOF|too large|no plain"),
    "nested": (npy(shape="(" * 40 + ")" * 40), "no NumPy file|no plain"),
    "no magic": (b"\x92NUMPY" + bytes(200), "magic"),
    "version 9": (b"\x93NUMPY\x09\x00" + bytes(200), "version|we only support"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_array_that_is_not_what_its_header_promises_is_refused(tmp_path, broken):
    content, message = BROKEN[broken]
    (tmp_path / "a.npy").write_bytes(content)
    npz(tmp_path / "b.npz", a__npy=content, fine__npy=npy())
    npz(tmp_path / "c.npz", zipfile.ZIP_DEFLATED, a__npy=content, fine__npy=npy())
    with memory_below(3_000_000):
        for read, name in ((read_npy, "a.npy"), (read_npz, "b.npz"), (read_npz, "c.npz")):
            with pytest.raises(FileError, match=message) as error:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
            says = "holds a, fine; expected images" if read is read_npz else message
            with pytest.raises(DataError, match=says):
                load_data(tmp_path / name)
    assert list(read_npz(tmp_path / "b.npz", ["fine"])) == ["fine"]


def test_files_of_numpy_are_read_as_numpy_reads_them(tmp_path):
    arrays = {
        "rows": X,
        "columns": np.asfortranarray(X),
        "big": X.astype(">f4"),
        "text": np.array("{}"),
        "number": np.array(3),
        "empty": np.zeros((0, 4), np.uint8),
        "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        "truth": X > 0.5,
    }
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for name in ("a.npz", "b.npz"):
        read = read_npz(tmp_path / name)
        assert list(read) == list(arrays)
        for key, array in arrays.items():
            assert read[key].dtype == array.dtype and read[key].flags.f_contiguous == array.flags.f_contiguous
            assert_array_equal(read[key], array)
            assert read[key].flags.writeable
            np.save(tmp_path / "c.npy", array)
            assert_array_equal(read_npy(tmp_path / "c.npy"), array)


def test_two_members_of_one_name_and_members_that_are_no_arrays_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy())
        archive.writestr("a.npy", npy())
    with pytest.raises(FileError, match=r"a\.npz .*two of its members have one name"):
        read_npz(tmp_path / "a.npz")
    for name in ("b", "b.txt"):
        npz(tmp_path / "b.npz", **{name: b"text"})
        with pytest.raises(FileError, match=rf"b\.npz has no plain array '{name}' \(its name does not end in \.npy\)"):
            read_npz(tmp_path / "b.npz")
        with pytest.raises(DataError, match=rf"b\.npz has no plain array '{name}' \(its name does not end in \.npy\)"):
            load_data(tmp_path / "b.npz")
    npz(tmp_path / "c.npz", zipfile.ZIP_LZMA, a__npy=npy())
    with pytest.raises(FileError, match="compression 14; expected none or deflate"):
        read_npz(tmp_path / "c.npz")
    with pytest.raises(FileError, match="has no plain array 'nobody'"):
        read_npz(npz(tmp_path / "d.npz", a__npy=npy()), ["nobody"])


def test_what_nobody_asks_for_is_not_expanded_and_is_named(tmp_path):
    huge = npy("'|u1'", "(40000000,)", bytes(40_000_000))
    images = np.full((30, 16), 200, np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, images)
    npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, images__npy=buffer.getvalue(), extra__npy=huge)
    del huge
    with memory_below(5_000_000), pytest.warns(UserWarning, match=r"a\.npz: extra are left out; read are images"):
        assert load_data(tmp_path / "a.npz").train.shape == (24, 16)


def test_members_that_memory_holds_one_by_one_but_not_together_are_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setattr("scratchvae.files.host_memory", lambda: 5_000_000)
    part = npy("'|u1'", "(2000000,)", bytes(2_000_000))
    path = npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, **{f"{name}__npy": part for name in "abc"})
    words = r"a\.npz is no NumPy file .* \(its arrays have 6,000,384 bytes, and this machine has 5,000,000\)"
    with memory_below(1_000_000), pytest.raises(FileError, match=words):
        read_npz(path)
    assert list(read_npz(path, ["a", "c"])) == ["a", "c"]  # what is not asked for does not count


def test_a_checkpoint_is_read_no_further_than_its_manifest_goes(tmp_path):
    long = npy("'|u1'", "(3000000,)", bytes(3_000_000))
    manifest = io.BytesIO()
    np.save(manifest, np.array(json.dumps({"format": 1, "facts": {}, "arrays": {"a": [[2, 3], "float64"]}})))
    entry = {"manifest__npy": manifest.getvalue()}
    for members, most, words in [
        ({"a__npy": long, **entry}, 500_000, "no such manifest .*it begins with a"),
        ({**entry, "b__npy": npy(), "a__npy": long}, 500_000, "does not hold the arrays that its manifest lists: b;"),
        ({**entry, "a__npy": npy(), "b__npy": npy(), "c__npy": long}, 500_000, "manifest lists: b;"),
        (entry, 500_000, "manifest lists: a;"),
    ]:
        path = npz(tmp_path / "checkpoint.npz", zipfile.ZIP_DEFLATED, **members)
        with memory_below(most), pytest.raises(CheckpointError, match=words):
            load_model(path)


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, a__npy=npy(shape="(1000, 1000)", content=bytes(8_000_000)))
    content = path.read_bytes()
    directory = content.rindex(b"PK\x01\x02")
    for size in (100, 127 + 1, 2_000_000_000):  # the promised size of the member, in the directory
        path.write_bytes(content[: directory + 24] + struct.pack("<I", size) + content[directory + 28 :])
        with memory_below(10_000_000), pytest.raises(FileError, match="has no plain array 'a'"):
            read_npz(path)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    os.mkfifo(tmp_path / "b.npz")
    os.symlink("/dev/zero", tmp_path / "c.npy")
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(DataError, match="a pipe, a socket or a device; expected a regular file"):
            load_data(tmp_path / name)
        for read in (read_npy, read_npz):
            with pytest.raises(FileError, match="expected a regular file"):
                read(tmp_path / name)
    for name in ("train-images-idx3-ubyte.gz", "frey_rawface.mat"):
        os.mkfifo(tmp_path / name)
    for name in ("mnist", "frey"):
        with pytest.raises(DataError, match="a pipe, a socket or a device; expected a regular file"):
            load_data(name, data_dir=tmp_path)
    with pytest.raises(FileError, match=r"nowhere\.npy cannot be read"):
        read_npy(tmp_path / "nowhere.npy")


def test_a_file_of_a_data_set_that_the_disk_does_not_give_is_named(tmp_path):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read \(.*Input/output error"):
        _read(tmp_path / "t10k-labels-idx1-ubyte.gz", fail)


@pytest.mark.parametrize("form", ["PCX", "TGA", "SGI", "DDS"])
def test_an_image_of_another_format_than_those_that_are_read_is_refused_under_any_name(tmp_path, form):
    image = Image.new("RGB", (8, 8))
    image.save(tmp_path / "one.png", format=form)
    with Image.open(tmp_path / "one.png") as read:
        assert read.format == form  # Pillow would read it
    with pytest.raises(DataError, match=r"one\.png"):
        read_folder(tmp_path)


def test_an_image_file_of_more_bytes_than_any_has_is_not_opened(tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    size = (tmp_path / "one.png").stat().st_size
    monkeypatch.setattr(images, "MOST_BYTES", size - 1)
    with pytest.raises(DataError, match=rf"one\.png has {size} bytes; expected {size - 1} at most"):
        read_folder(tmp_path)
    monkeypatch.setattr(images, "MOST_BYTES", size)
    assert len(read_folder(tmp_path)[0]) == 1


@pytest.mark.parametrize("bad", [None, 3, X, ["digits"], b"digits"])
def test_a_name_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match=r"name is a .*; expected the name of a data set, or a path"):
        load_data(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [("a" * 5000, "^'aaa.* cannot be read .*File name too long"), ("a\0b", r"^there is no data set|embedded null")],
)
def test_a_path_that_cannot_be_is_one_clear_error(bad, message):
    with pytest.raises(DataError, match=message):
        load_data(bad)


@pytest.mark.parametrize("bad", [5, "abc", (0.8, 0.1, 0.1), (True, True, True), (), [10, 10]])
def test_a_split_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="expected three sizes ≥ 1 whose sum is at most 1797"):
        load_data("digits", split=bad)


# MNIST and Frey Face


def test_a_gzip_bomb_is_expanded_no_further_than_mnist_goes(tmp_path):
    header = np.array([2051, 60000, 28, 28], ">u4").tobytes()
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(20):
            file.write(bytes(10_000_000))
    words = r"has shape \(60000, 28, 28\) in more than 47,040,016 bytes"
    with memory_below(150_000_000), pytest.raises(DataError, match=words):
        load_data("mnist", data_dir=tmp_path)


FF = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)


def mat(path, compress=False, **arrays):
    savemat(path, arrays or {"ff": FF}, do_compression=compress)
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_the_matlab_reader_reads_what_scipy_writes(tmp_path, compress):
    path = mat(tmp_path / "a.mat", compress, other=np.arange(3.0), x=np.uint8([[7]]), ff=FF)
    assert_array_equal(read_uint8(path, "ff", (6, 5)), FF)
    assert_array_equal(read_uint8(path, "x", (1, 1)), [[7]])  # a small element
    for name, shape, message in [
        ("gg", (6, 5), "has no variable gg; expected gg uint8 (6, 5)"),
        ("ff", (5, 6), "has ff uint8 (6, 5); expected ff uint8 (5, 6)"),
        ("other", (1, 3), "has other float64 (1, 3); expected other uint8 (1, 3)"),
    ]:
        with pytest.raises(DataError) as error:
            read_uint8(path, name, shape)
        assert message in str(error.value)


def test_the_matlab_reader_reads_the_other_order_of_bytes(tmp_path):
    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    body = (
        element(6, struct.pack(">II", 9, 0))
        + element(5, struct.pack(">ii", 6, 5))
        + struct.pack(">HH2s2x", 2, 1, b"ff")
    )
    matrix = element(14, body + element(2, FF.tobytes("F")))
    (tmp_path / "a.mat").write_bytes(bytes(124) + b"\x01\x00MI" + matrix)
    assert_array_equal(read_uint8(tmp_path / "a.mat", "ff", (6, 5)), FF)


def test_a_matlab_bomb_is_not_expanded(tmp_path):
    packed = zlib.compress(bytes(100_000_000), 1)
    element = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "frey_rawface.mat").write_bytes(bytes(124) + b"\x00\x01IM" + element)
    with memory_below(50_000_000):
        with pytest.raises(DataError, match=r"frey_rawface\.mat (has no variable ff|is no \.mat file)"):
            load_data("frey", data_dir=tmp_path)
        with open(tmp_path / "frey_rawface.mat", "ab") as file:
            file.truncate(1 << 40)  # a sparse file, of a terabyte
        with pytest.raises(DataError, match="it has more than"):
            load_data("frey", data_dir=tmp_path)


# Bytes changed at random: typed errors that name the file, and no more memory than before


def changed(content, generator):
    """The bytes with some of them changed, cut out, or put in."""
    content = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        if not content:
            break
        at = (
            int(generator.integers(len(content)))
            if generator.random() < 0.5
            else int(generator.integers(min(200, len(content))))
        )
        kind = generator.integers(4)
        if kind == 0:
            content[at] = generator.integers(256)
        elif kind == 1:
            content[at : at + 4] = generator.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff"])
        elif kind == 2:
            del content[at : at + int(generator.integers(1, 30))]
        else:
            content[at:at] = generator.bytes(int(generator.integers(1, 9)))
    return bytes(content)


PICTURE = np.random.default_rng(5).integers(0, 256, (12, 10, 3), dtype=np.uint8)
WEBP = {  # how a WebP is saved, where its header states width and height, and as what
    "lossy": ({}, {26: (16000).to_bytes(2, "little"), 28: (15000).to_bytes(2, "little")}),
    "lossless": ({"lossless": True}, {21: (15999 | 14999 << 14).to_bytes(4, "little")}),
    "extended": (
        {"save_all": True, "append_images": [Image.new("RGB", (8, 6), "red")]},
        {24: (15999).to_bytes(3, "little"), 27: (14999).to_bytes(3, "little")},
    ),
}


@pytest.mark.parametrize("kind", WEBP)
def test_a_webp_that_promises_a_huge_canvas_is_refused_before_its_decoder_takes_one(kind, tmp_path):
    settings, header = WEBP[kind]
    content = bytearray(
        saved(Image.fromarray(np.arange(144, dtype=np.uint8).reshape(6, 8, 3)).save, format="WEBP", **settings)
    )
    assert _webp_canvas(bytes(content)) == (8, 6)
    for place, number in header.items():
        content[place : place + len(number)] = number
    for k in range(3):
        (tmp_path / f"{k}.webp").write_bytes(content)
    with memory_below(60_000_000), pytest.raises(DataError, match=r"0\.webp has 16000 x 15000 pixels; expected"):
        own(tmp_path)


SEEDS = {
    "a.npy": saved(np.save, np.arange(60, dtype=np.float32).reshape(10, 6)),
    "a.npz": saved(np.savez, images=np.arange(60.0).reshape(10, 6), labels=np.arange(10)),
    "b.npz": saved(np.savez_compressed, train=np.eye(9), valid=np.eye(9), test=np.eye(9)),
    "train-images-idx3-ubyte.gz": gzip.compress(np.array([2051, 60000, 28, 28], ">u4").tobytes() + bytes(900), mtime=0),
    "train-images-idx3-ubyte": np.array([2051, 60000, 28, 28], ">u4").tobytes() + bytes(900),
    "frey_rawface.mat": saved(savemat, {"ff": FF}),
    "packed/frey_rawface.mat": saved(savemat, {"ff": FF}, do_compression=True),
    **{
        f"images{suffix}/a{suffix}": saved(Image.fromarray(PICTURE).save, format=kind, **settings)
        for suffix, kind, settings in [
            (".png", "PNG", {}),
            (".jpg", "JPEG", {}),
            (".gif", "GIF", {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)]}),
            (".tiff", "TIFF", {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)]}),
            (".tif", "TIFF", {"compression": "tiff_lzw"}),
            (".bmp", "BMP", {}),
            (".webp", "WEBP", {}),
            (".ppm", "PPM", {}),
        ]
    },
}


def read_changed(path, name):
    """Read the file that was made from SEEDS[name], as `load_data` reads such a file."""
    if name.startswith("train"):
        load_data("mnist", data_dir=path.parent)
    elif name.endswith(".mat"):
        read_uint8(path, "ff", FF.shape)
    else:
        own(path.parent if name.startswith("images") else path)


@pytest.mark.parametrize("name", SEEDS)
def test_changed_bytes_are_a_typed_error_that_names_the_file(tmp_path, name):
    generator = np.random.default_rng(list(name.encode()))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    refused = 0
    with memory_below(60_000_000):
        for _ in range(100):
            path.write_bytes(changed(SEEDS[name], generator))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_changed(path, name)
                except DataError as error:
                    refused += 1
                    assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 10  # control: the changes are felt


def test_arrays_of_random_kinds_meet_typed_errors_at_the_gate():
    generator = np.random.default_rng(3)
    kinds = ["u1", "i8", "f2", "f4", ">f8", "g", "?", "c16", "U3", "S3", "M8[s]", "O", "V4", [("a", "f4")]]
    model = small()
    taken = 0
    for _ in range(300):
        shape = tuple(generator.integers(0, 8, generator.integers(0, 4))) if generator.random() < 0.4 else (7, 6)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = np.array(generator.random(shape) * generator.choice([1, 1, 300, np.nan, 1e300]))
            kind = kinds[generator.integers(len(kinds))]
            x = np.zeros(shape, kind) if isinstance(kind, list) or kind == "V4" else np.array(x, kind)
        x = [x, np.ma.masked_invalid(x) if x.dtype.kind == "f" else x, x.tolist()][generator.integers(3)]
        for door in ("encode", "evaluate", "bound"):
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*uint8")
                    found = DOORS[door](model, x)
            except ValueError as error:
                assert str(error).startswith("x "), error
            else:
                taken += 1
                assert np.isfinite(list(found.values()) if isinstance(found, dict) else found).all()
    assert 20 < taken < 600
