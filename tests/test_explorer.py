"""scratchvae/explorer: what goes into the page of a model, what does not, and how large it may be."""

import base64
import itertools
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from scratchvae import VAE, cli, explorer
from scratchvae.data.dataset import Data
from scratchvae.explorer import page
from scratchvae.explorer.rounded import largest_change, rounded
from scratchvae.inference.information import Information, information
from scratchvae.inference.likelihoods.bernoulli import Bernoulli


def carried(path):
    """What the page at `path` carries, as its script reads it."""
    return json.loads(
        re.search(r'<script type="application/json" id="model">(.*?)</script>', path.read_text("utf-8"))[1]
    )


def unpacked(text, dtype):
    """The numbers in a text of a page."""
    return np.frombuffer(base64.b64decode(text), dtype)


def random_images(shape, n, seed=0):
    """A data set of n test images of random pixels, which nothing can compress."""
    x = np.random.default_rng(seed).integers(0, 256, (n, np.prod(shape)), dtype=np.uint8)
    return Data("random", shape, "grey", x[:2], x[:2], x)


@pytest.fixture
def model(digits):
    return VAE(64, 9, 3, init="glorot")


def unused(n):
    """What the latents of a model carry, for a test that does not ask."""
    return Information(1, n, 1.0, np.ones(n), np.ones(n))


def test_a_rounded_model_has_the_nearest_numbers_of_float16_and_the_model_keeps_its_own():
    model = VAE(6, 5, 2, init=1.0, seed=3)
    before = model.params.value.copy()
    half = rounded(model)
    assert_array_equal(model.params.value, before)
    assert_array_equal(half.params.value, before.astype(np.float16).astype(np.float32))
    assert half.params.value.dtype == np.float32 and (half.params.value != before).any()
    assert_array_equal(half.decoder.layers[0].W, half.params.window("decoder.hidden.W", half.params.value))
    z = np.random.default_rng(0).standard_normal((50, 2))
    assert largest_change(model, half) == np.abs(model.decode(z) - half.decode(z)).max() > 0


@pytest.mark.parametrize(("number", "words"), [(7e4, "up to 65504"), (np.nan, "is not finite"), (np.inf, "not finite")])
def test_a_parameter_that_float16_cannot_hold_is_refused_by_its_name(number, words, model, digits, tmp_path):
    model.decoder.layers[0].b[1] = number
    with pytest.raises(ValueError, match=rf"decoder\.hidden\.b.*{words}"):
        explorer.write(tmp_path / "page.html", model, digits)
    assert not [*tmp_path.iterdir()]


def test_the_page_has_the_first_test_images_their_classes_and_the_codes_of_the_rounded_model(model, digits, tmp_path):
    written = explorer.write(tmp_path / "page.html", model, digits, images=7)
    assert written == explorer.Written(
        tmp_path / "page.html", (tmp_path / "page.html").stat().st_size, 7, 180, largest_change(model, rounded(model))
    )
    found = carried(written.path)
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(found["images"])), np.uint8)
    assert_array_equal(pixels.reshape(7, 64), digits.test[:7])
    assert [found["classes"][label] for label in found["labels"]] == [str(y) for y in digits.test_labels[:7]]
    assert_array_equal(unpacked(found["codes"], "<f4").reshape(7, 3), rounded(model).encode_mean(digits.test[:7]))
    assert found["shape"] == [8, 8] and found["has_prior"] is True and found["change"] == written.change
    use = information(model, digits.test)
    assert_allclose(found["kl"], use.kl)
    assert found["active"] == use.is_active.tolist()
    weights = unpacked(found["weights"], "<f2")
    n_decoder = (3 + 1) * 9 + (9 + 1) * 64
    assert len(weights) == n_decoder + (64 + 1) * 9 + (9 + 1) * 6
    first = found["decoder"]["hidden"][0]
    W = weights[first["W"] : first["W"] + 27].reshape(3, 9)
    assert_array_equal(W, model.decoder.layers[0].W.astype(np.float16))


def test_the_terms_of_an_image_are_exact_where_the_decoder_does_not_look_at_z(model, digits, tmp_path):
    model.decoder.layers[0].W[...] = 0
    found = carried(explorer.write(tmp_path / "page.html", model, digits).path)
    neg_kl, log_px = model.terms(digits.test, np.zeros((1, 180, 3)))
    assert_allclose(unpacked(found["terms"], "<f4").reshape(180, 2), -np.stack([neg_kl, log_px], axis=1), rtol=1e-5)


def test_the_distortion_is_that_of_evaluate_up_to_the_noise_of_its_draws(model, digits, tmp_path):
    from scratchvae import evaluate

    found = carried(explorer.write(tmp_path / "page.html", model, digits).path)
    rate, distortion = unpacked(found["terms"], "<f4").reshape(180, 2).mean(axis=0)
    result = evaluate(model, digits.test)
    assert rate == pytest.approx(result["kl"], rel=1e-4)
    assert distortion == pytest.approx(-result["reconstruction"], rel=0.01)


def test_names_of_classes_stand_for_their_labels_and_labels_without_names_for_themselves(model, digits, tmp_path):
    named = replace(digits, classes=tuple("abcdefghij"))
    found = carried(explorer.write(tmp_path / "page.html", model, named, images=3).path)
    assert found["classes"] == list("abcdefghij") and found["labels"] == digits.test_labels[:3].tolist()
    odd = replace(digits, test_labels=digits.test_labels.astype(int) * 10 + 5)
    found = carried(explorer.write(tmp_path / "page.html", model, odd, images=3).path)
    assert [found["classes"][label] for label in found["labels"]] == [str(y) for y in odd.test_labels[:3]]
    none = replace(digits, test_labels=None)
    assert carried(explorer.write(tmp_path / "page.html", model, none, images=3).path)["labels"] is None


def test_the_page_of_a_conditional_model_has_pixels_without_labels_and_all_classes_in_their_order(digits, tmp_path):
    model = VAE(64, 9, 3, init="glorot", n_classes=10)
    data = digits.labelled()
    without = data.test[data.test_labels != 4]  # a class that no test image has
    data = replace(data, test=without, test_labels=None)
    written = explorer.write(tmp_path / "page.html", model, data, images=50)
    found = carried(written.path)
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(found["images"])), np.uint8)
    assert_array_equal(pixels.reshape(50, 64), without[:50, :64])
    assert found["n_classes"] == 10 and found["classes"] == [str(y) for y in range(10)]
    assert found["labels"] == without[:50, 64:].argmax(axis=1).tolist() and 9 in found["labels"]
    assert_array_equal(unpacked(found["codes"], "<f4").reshape(50, 3), rounded(model).encode_mean(without[:50]))
    z = np.random.default_rng(0).standard_normal((50, 3))
    y = np.arange(50) % 10
    assert written.change == np.abs(model.decode(z, y) - rounded(model).decode(z, y)).max() > 0
    named = replace(data, classes=tuple("abcdefghij"))
    assert carried(explorer.write(written.path, model, named, images=1).path)["classes"] == list("abcdefghij")
    floats = replace(data, test=without / np.float32(510))  # white is not among the pixels, and labels are no pixels
    floats.test[:, 64:] *= 2
    assert carried(explorer.write(written.path, model, floats, images=1).path)["high"] == 1


def test_free_numbers_of_a_conditional_model_are_stretched_over_the_pixels_alone(tmp_path):
    x = np.random.default_rng(1).uniform(-3, -2, (20, 9))
    y = np.arange(20) % 2
    data = Data("numbers", (3, 3), "grey", x, x, x, y, y, y).labelled()
    model = VAE(9, 5, 2, "gaussian", "free", n_classes=2)
    found = carried(explorer.write(tmp_path / "page.html", model, data).path)
    assert found["low"] == x.min() and found["labels"] == y.tolist()


def test_a_page_of_mnist_has_a_thousand_images_and_less_than_three_megabytes(mnist, tmp_path):
    model = VAE(784, 500, 20, init="glorot")
    written = explorer.write(tmp_path / "page.html", model, mnist, use=unused(20))
    assert written.n_bytes < 3e6 and written.n_images == 1020 and written.n_test == 10_000
    assert written.n_bytes == written.path.stat().st_size


def test_a_large_model_has_fewer_images_and_its_page_stays_below_the_limit(tmp_path):
    data = random_images((28, 28), 1100)
    model = VAE(784, 2600, 20, init="glorot")
    written = explorer.write(tmp_path / "page.html", model, data, use=unused(20))
    assert 100 < written.n_images < 1020
    assert 11.5e6 < written.n_bytes < page.MOST


def test_a_model_that_leaves_no_room_is_refused_with_its_size_and_what_to_do(tmp_path):
    model = VAE(784, 3000, 20)
    with pytest.raises(ValueError, match=r"would have 13\.0 MB, and has 12 MB at most: .*\(--hidden\).*plot"):
        explorer.write(tmp_path / "page.html", model, random_images((28, 28), 5))


class Mine(Bernoulli):
    """A likelihood of the user's, though it inherits nearly all of ours."""

    name = "mine"


def test_a_likelihood_of_ones_own_is_refused_with_what_shows_its_pictures(digits, tmp_path):
    with pytest.raises(ValueError, match=r"the likelihood 'mine' is one of your own.*scratchvae\.plots\.draw_run"):
        explorer.write(tmp_path / "page.html", VAE(64, 5, 2, likelihood=Mine()), digits)


def test_a_file_that_is_no_page_is_not_overwritten_and_a_page_is_written_anew(model, digits, tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("<!DOCTYPE html><p>my own", encoding="utf-8")
    with pytest.raises(ValueError, match=r"notes\.html is no page of scratchvae explore, and is not overwritten"):
        explorer.write(notes, model, digits)
    assert notes.read_text(encoding="utf-8").endswith("my own")
    with pytest.raises(ValueError, match=r"is a folder; give the name of a file, such as .*explore\.html"):
        explorer.write(tmp_path, model, digits)
    out = tmp_path / "page.html"
    before = explorer.write(out, model, digits)
    after = explorer.write(out, model, digits, images=1)
    assert out.stat().st_size == after.n_bytes < before.n_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.html", "page.html"]


def test_the_number_of_images_is_a_whole_number_of_one_or_more(model, digits, tmp_path):
    with pytest.raises(ValueError, match="images is 0; expected a whole number ≥ 1"):
        explorer.write(tmp_path / "page.html", model, digits, images=0)


def test_the_files_of_the_page_have_lines_as_short_as_those_of_the_library():
    files = [path for path in page.HERE.iterdir() if path.suffix in (".js", ".css", ".html")]
    assert {path.stem for path in files if path.suffix == ".js"} == {*page.SCRIPTS}
    for path in files:
        assert max(len(line) for line in path.read_text(encoding="utf-8").splitlines()) <= 120, path


def test_dark_images_are_warned_of_once(tmp_path):
    data = random_images((3, 3), 20)
    dark = replace(data, train=data.train // 16, test=data.test // 16)
    with pytest.warns(UserWarning, match=r"data\.test holds uint8 up to 15") as warned:
        explorer.write(tmp_path / "page.html", VAE(9, 5, 2), dark)
    assert len(warned) == 1 and warned[0].filename == __file__


# The colours of the classes

# Simulations of vision without one kind of cone, on linear RGB (Machado, Oliveira & Fernandes 2009, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1).
VISION = {
    "all three": np.eye(3),
    "no long cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no short cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]


def linear(colours):
    """Colours like #12171e as linear RGB, by sRGB's formula."""
    v = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colours])
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Linear RGB as CIE L*a*b*, in which a difference of 2.3 is just seen."""
    xyz = np.maximum(rgb, 0) @ np.transpose(XYZ) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_the_colours_of_ten_classes_are_told_apart_by_every_kind_of_vision_and_stand_out_from_the_ground():
    text = (page.HERE / "plane.js").read_text(encoding="utf-8")
    colours = re.findall(r'"(#[0-9a-f]{6})"', re.search(r"CLASS_COLOURS = \[(.*?)\]", text, re.DOTALL)[1])
    (ground,) = linear(re.findall(r'NIGHT = "(#[0-9a-f]{6})"', text))
    assert len(colours) == 10
    for matrix in VISION.values():
        seen = lab(linear(colours) @ np.transpose(matrix))
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20
    assert ((linear(colours) @ XYZ[1] + 0.05) / (ground @ XYZ[1] + 0.05)).min() > 3  # WCAG's contrast of a drawing


# The command


@pytest.fixture
def run(tmp_path, digits):
    """A run folder."""
    folder = tmp_path / "run"
    words = "train --data digits --samples 100 --hidden 5 --latent 2 --quiet --out"
    assert cli.main([*words.split(), str(folder)]) == 0
    return folder


def test_the_command_writes_the_page_into_the_run_folder_and_says_so_in_a_sentence(run, capsys):
    capsys.readouterr()
    assert cli.main(["explore", str(run)]) == 0
    said = capsys.readouterr().out
    size = (run / "explore.html").stat().st_size
    change = carried(run / "explore.html")["change"]
    assert said == (
        f"wrote {run / 'explore.html'}: {size / 1e6:.1f} MB, 180 of 180 test images; float16 changes the images by up "
        f"to {change:.2g}\n"
    )
    assert cli.main(["explore", str(run), "--images", "0"]) == 2
    assert "--images is 0; expected a whole number ≥ 1" in capsys.readouterr().err
    assert (
        cli.main(["train", "--resume", str(run), "--samples", "200", "--quiet"]) == 0
    )  # the page does not stand in its way
    assert str(run) in (run / "explore.html").read_text(encoding="utf-8")


def test_the_command_writes_the_page_of_a_run_that_was_told_the_classes(tmp_path):
    words = "train --data digits --labels --samples 100 --hidden 5 --latent 2 --quiet --out"
    assert cli.main([*words.split(), str(tmp_path / "run")]) == 0
    assert cli.main(["explore", str(tmp_path / "run")]) == 0
    page_ = tmp_path / "run" / "explore.html"
    assert carried(page_)["n_classes"] == 10
    assert "8 x 8 pixels, 2 latents, given one of 10 classes; 180 of 180" in page_.read_text(encoding="utf-8")


def test_other_images_are_taken_for_a_run_that_was_told_the_classes_if_these_are_the_same(tmp_path, capsys):
    for folder, names in (("first", ("cat", "dog")), ("more", ("cat", "dog")), ("others", ("dog", "emu"))):
        for name, k in itertools.product(names, range(10)):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([k, *map(ord, folder + name)]).integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{k}.png")
    run = tmp_path / "run"
    words = "train --labels --samples 40 --hidden 3 --latent 2 --quiet"
    assert cli.main([*words.split(), "--data", str(tmp_path / "first"), "--out", str(run)]) == 0
    explore = ["explore", str(run), "--changed-data", "--data"]
    assert cli.main([*explore, str(tmp_path / "more")]) == 0
    assert carried(run / "explore.html")["classes"] == ["cat", "dog"]
    capsys.readouterr()
    assert cli.main([*explore, str(tmp_path / "others")]) == 2
    assert re.search(
        r"others has the classes dog, emu; expected those that .*run was told, cat, dog", capsys.readouterr().err
    )
