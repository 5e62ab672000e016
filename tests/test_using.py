"""cli/encode.py, reconstruct.py, sample.py, and evaluate --all --scores: a trained model is used on any images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, load_data, load_model, plots
from scratchvae.cli import images, main, writing
from scratchvae.cli.shared import DEFAULTS
from scratchvae.data import Data, DataError, binarise, load_images, thresholds
from scratchvae.inference.marginal import importance
from scratchvae.inference.posteriors.gaussian import Gaussian
from scratchvae.training import loop
from scratchvae.training.run import FILES

QUICK = ["--samples", "1000", "--hidden", "9", "--latent", "3", "--init", "0.3", "--quiet"]
NAMES = ("a.png", 'b, "q".png', "c\nd.png", "é-дом.png")  # of one class


def run(*words):
    return main([str(word) for word in words])


def refused(capsys, *words):
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith("scratchvae: error: ") and err.count("\n") == 1
    return err


def table(path):
    """The columns of a .csv, as texts."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return dict(zip(head, zip(*rows, strict=True), strict=True))


def numbers(path, *names):
    """The columns of a .csv that are called so, as an array (N, number of names)."""
    columns = table(path)
    return np.array([columns[name] for name in names], float).T


def save(path, image):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def read(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, digits):
    """A folder of 2 classes with 12 images; image k of the source is row k of the digits' test split."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    names = [*(f"one/{k}.png" for k in range(8)), *(f"zwei/{name}" for name in NAMES)]
    for name, image in zip(names, digits.test, strict=False):
        save(folder / name, image.reshape(8, 8))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, photos):
    """Run folders, by what they were trained with."""
    base = tmp_path_factory.mktemp("runs")
    kinds = {
        "digits": [],
        "photos": ["--data", photos, "--batch-size", "5"],
        "dynamic": ["--binarization", "dynamic"],
        "fixed": ["--binarization", "fixed"],
        "autoencoder": ["--estimator", "autoencoder"],
        "flow": ["--flow", "2"],
        "free": ["--likelihood", "gaussian", "--mean", "free"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_run", lambda *arguments, **settings: [])
        for name, words in kinds.items():
            assert run("train", *QUICK, *words, "--out", base / name) == 0
    return base


# Which row is which image


@pytest.mark.parametrize("settings", [{}, {"split": (5, 3, 2)}, {"n_train": 4}])
def test_every_row_of_a_split_can_be_told_by_the_name_of_its_file(photos, settings):
    data = load_data(photos, **settings)
    for part in ("train", "valid", "test"):
        found = data.part(part)
        assert found.x is getattr(data, part) and len(found.names) == len(found.x)
        for name, row, label in zip(found.names, found.x, found.labels, strict=True):
            assert_array_equal(read(photos / name).ravel(), row)
            assert data.classes[label] == Path(name).parent.name
    assert data.names == tuple(sorted(data.names)) and f"zwei/{NAMES[2]}" in data.names


def test_the_rows_of_a_split_are_those_of_the_source_and_together_they_are_the_source(tmp_path, digits):
    source = np.arange(30 * 4, dtype=np.uint8).reshape(30, 4) + 100
    np.save(tmp_path / "a.npy", source)
    data = load_data(tmp_path / "a.npy")
    for part in ("train", "valid", "test"):
        assert_array_equal(source[getattr(data, f"{part}_rows")], getattr(data, part))
        assert data.part(part).names is None
    assert_array_equal(data.whole().x, source)
    assert_array_equal(data.whole().rows, np.arange(30))
    whole = digits.whole()
    assert_array_equal(whole.x[digits.test_rows], digits.test)
    assert_array_equal(whole.labels[digits.valid_rows], digits.valid_labels)


@pytest.mark.parametrize("split", [None, (4, 3, 2)])
def test_a_source_that_comes_in_splits_is_counted_through(tmp_path, split):
    x = np.random.default_rng(0).random((10, 4))
    np.savez(tmp_path / "a.npz", train=x[:5], valid=x[5:8], test=x[8:], train_labels=np.arange(5))
    if split is not None:  # other splits need all labels or none
        np.savez(tmp_path / "a.npz", train=x[:5], valid=x[5:8], test=x[8:])
    data = load_data(tmp_path / "a.npz", split=split)
    for part in ("train", "valid", "test"):
        assert_array_equal(x[getattr(data, f"{part}_rows")], getattr(data, part))
    assert len(data.test) == 2


def test_data_made_by_hand_need_not_know_their_rows():
    data = Data("a", (2, 2), "grey", *(np.zeros((n, 4)) for n in (3, 2, 1)))
    assert data.train_rows is None and data.names is None and data.part("test").rows is None


def test_all_images_are_read_without_a_split_down_to_a_single_one(tmp_path, photos, digits):
    found = load_images(photos)
    assert_array_equal(found.x, np.concatenate([digits.test[:8], digits.test[8:12]]))
    assert_array_equal(found.labels, [0] * 8 + [1] * 4)
    assert found.names[8:] == tuple(f"zwei/{name}" for name in NAMES) and found.classes == ("one", "zwei")
    save(tmp_path / "one" / "x.png", digits.test[0].reshape(8, 8))
    alone = load_images(tmp_path / "one")
    assert_array_equal(alone.x, digits.test[:1])
    assert (alone.names, alone.labels, alone.classes) == (("x.png",), None, None)
    with pytest.raises(ValueError, match="there are 1 datapoints; expected at least 3"):
        load_data(tmp_path / "one")
    assert_array_equal(load_images("digits").x, digits.whole().x)


def test_all_images_of_a_file_in_splits_are_read_in_their_order_and_labels_only_if_all_have_them(tmp_path):
    x = np.random.default_rng(0).random((6, 4))
    parts = {"train": x[:3], "valid": x[3:5], "test": x[5:]}
    labels = {"train_labels": np.arange(3), "valid_labels": np.arange(2), "test_labels": np.arange(1)}
    np.savez(tmp_path / "a.npz", **parts, **labels)
    found = load_images(tmp_path / "a.npz")
    assert_array_equal(found.x, x)
    assert_array_equal(found.labels, [0, 1, 2, 0, 1, 0])
    np.savez(tmp_path / "b.npz", **parts, train_labels=np.arange(3))
    with pytest.warns(UserWarning, match="has labels for some of its splits only: all labels are left out"):
        assert load_images(tmp_path / "b.npz").labels is None


def test_all_images_are_binarised_as_fixed_in_the_order_of_the_source(digits):
    x = digits.whole().x
    drawn = binarise(x, thresholds(x.shape, x.dtype, np.random.default_rng(1)))
    assert_array_equal(load_images("digits", binarization="fixed").x, drawn)


def test_an_image_of_another_size_is_refused_by_its_name_with_both_sizes(tmp_path, photos):
    for k, shape in enumerate([(9, 7), (8, 8), (8, 8)]):
        save(tmp_path / "odd" / f"{k}.png", np.full(shape, 200, np.uint8))
    with pytest.raises(DataError, match=r"odd/0\.png is \(9, 7\), the images of the training \(8, 8\)"):
        load_images(tmp_path / "odd", image_shape=[8, 8])
    np.save(tmp_path / "a.npy", np.full((2, 4, 16), 0.5))
    with pytest.raises(DataError, match=r"a\.npy has images of \(4, 16\), those of the training \(8, 8\)"):
        load_images(tmp_path / "a.npy", image_shape=[8, 8])
    np.save(tmp_path / "b.npy", np.full((2, 64), 0.5))
    assert load_images(tmp_path / "b.npy", image_shape=[4, 16]).image_shape == (4, 16)  # rows say nothing against it


# encode


def test_encode_writes_code_and_score_of_each_image_beside_the_name_of_its_file(folders, photos, tmp_path, capsys):
    out = tmp_path / "codes.csv"
    assert run("encode", folders / "digits", "--data", photos, "--out", out, "--n-samples", 2, "--seed", 3) == 0
    assert "12 images of" in capsys.readouterr().out
    columns = table(out)
    head = ["name", "label", *(f"z_{j}" for j in (1, 2, 3)), *(f"sd_{j}" for j in (1, 2, 3))]
    assert [*columns] == [*head, "rate", "distortion", "bound"]
    assert columns["name"] == load_images(photos).names and columns["label"] == ("one",) * 8 + ("zwei",) * 4
    model = load_model(folders / "digits")
    x = load_images(photos).x
    assert_array_equal(numbers(out, "z_1", "z_2", "z_3").astype(np.float32), model.encode_mean(x))
    assert_allclose(numbers(out, "sd_1", "sd_2", "sd_3"), np.exp(model.encode(x)[1] / 2), rtol=1e-6)
    eps = loop.stream(3, loop.HELD_OUT, 0).standard_normal((2, 12, 3), np.float32)
    neg_kl, log_px = model.terms(x, eps)
    assert_allclose(numbers(out, "rate", "distortion"), np.stack([-neg_kl, -log_px], axis=1), rtol=1e-6)
    assert_allclose(numbers(out, "bound")[:, 0], neg_kl + log_px, rtol=1e-6)


@pytest.mark.parametrize("name", ["digits", "dynamic", "fixed", "flow", "free"])
def test_the_mean_of_the_bounds_is_what_evaluate_prints_for_the_same_images_over_several_blocks(
    name, folders, tmp_path, capsys
):
    words = ["--data", "digits", "--seed", 5, "--n-samples", 3]  # blocks of 333 images
    assert run("encode", folders / name, *words, "--out", tmp_path / "codes.npz") == 0
    capsys.readouterr()
    assert run("evaluate", folders / name, *words, "--all", "--json", "--scores", tmp_path / "scores.csv") == 0
    told = json.loads(capsys.readouterr().out)
    found = np.load(tmp_path / "codes.npz")
    assert told["n"] == len(found["bound"]) == 1797 and told["split"] == "all"
    for key, sign, column in [("bound", 1, "bound"), ("rate", 1, "rate"), ("reconstruction", -1, "distortion")]:
        assert_allclose(sign * found[column].mean(dtype=float), told[key], rtol=1e-5)
        assert_array_equal(numbers(tmp_path / "scores.csv", column)[:, 0].astype(np.float32), found[column])


def test_a_code_and_its_score_are_of_the_same_binarised_image(folders, tmp_path):
    """Which differs from one block of rows to the next from that in which all rows are drawn at once."""
    assert run("encode", folders / "dynamic", "--data", "digits", "--n-samples", 3, "--out", tmp_path / "a.npz") == 0
    found = np.load(tmp_path / "a.npz")
    model = load_model(folders / "dynamic")
    second = load_images("digits").x[333:666]
    generator = loop.stream(0, loop.HELD_OUT, 1)
    x = binarise(second, thresholds(second.shape, second.dtype, generator))
    neg_kl, log_px = model.terms(x, generator.standard_normal((3, 333, 3), np.float32))
    assert_allclose(found["bound"][333:666], neg_kl + log_px, rtol=1e-6)
    assert_array_equal(found["z"][333:666], model.encode_mean(x))


def test_the_formats_hold_the_same_and_no_pickle(folders, photos, tmp_path):
    for suffix in ("csv", "npz", "npy"):
        assert run("encode", folders / "digits", "--data", photos, "--out", tmp_path / f"a.{suffix}") == 0
    arrays = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert set(arrays) == {"name", "label", "classes", "z", "sd", "rate", "distortion", "bound"}
    columns = table(tmp_path / "a.csv")
    assert tuple(arrays["name"]) == columns["name"] and arrays["name"].dtype.kind == "U"
    assert tuple(arrays["classes"][arrays["label"]]) == columns["label"]
    assert_array_equal(numbers(tmp_path / "a.csv", "z_1", "z_2", "z_3").astype(np.float32), arrays["z"])
    assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), arrays["z"])


def test_without_data_the_run_s_own_images_are_encoded_by_their_files_or_their_rows(folders, photos, tmp_path, digits):
    for words, part in [([], "test"), (["--split", "valid"], "valid"), (["--split", "train"], "train")]:
        assert run("encode", folders / "photos", *words, "--out", tmp_path / "a.csv") == 0
        assert table(tmp_path / "a.csv")["name"] == load_data(photos).part(part).names
    assert run("encode", folders / "digits", "--out", tmp_path / "a.csv") == 0  # over the old one
    assert_array_equal(numbers(tmp_path / "a.csv", "row", "label").T, [digits.test_rows, digits.test_labels])


def test_data_that_have_moved_are_still_the_run_s_own_with_a_split(folders, photos, tmp_path, capsys):
    moved = photos.rename(tmp_path / "moved")
    try:
        assert "there is no data set" in refused(capsys, "encode", folders / "photos", "--out", tmp_path / "a.csv")
        words = ["--data", moved, "--split", "valid", "--out", tmp_path / "a.csv"]
        assert run("encode", folders / "photos", *words) == 0
        assert table(tmp_path / "a.csv")["name"] == load_data(moved).part("valid").names
        (spare := moved / "one" / "0.png").rename(tmp_path / "kept.png")
        assert "are not those that" in refused(capsys, "encode", folders / "photos", *words)
        (tmp_path / "kept.png").rename(spare)
    finally:
        moved.rename(photos)


def test_an_autoencoder_has_codes_and_distortions_and_neither_bounds_nor_samples(folders, tmp_path, capsys):
    where = folders / "autoencoder"
    assert run("encode", where, "--out", tmp_path / "a.csv") == 0
    assert "an autoencoder learns no q(z|x)" in capsys.readouterr().out
    columns = table(tmp_path / "a.csv")
    assert [*columns] == ["row", "label", "z_1", "z_2", "z_3", "rate", "distortion", "bound"]
    assert set(columns["rate"]) == set(columns["bound"]) == {""} and min(map(float, columns["distortion"])) > 0
    assert run("encode", where, "--out", tmp_path / "a.npz") == 0
    assert set(np.load(tmp_path / "a.npz")) == {"row", "label", "z", "distortion"}
    assert "learns no prior p(z) to draw from" in refused(capsys, "sample", where, "--out", tmp_path / "s.png")
    assert run("reconstruct", where, "--n", 9, "--out", tmp_path / "r.npy") == 0


def test_standard_deviations_are_left_out_in_words_where_there_are_none(folders, tmp_path, capsys, monkeypatch):
    assert run("encode", folders / "flow", "--out", tmp_path / "a.csv") == 0
    assert "there are no standard deviations: with a flow" in capsys.readouterr().out
    assert "sd_1" not in table(tmp_path / "a.csv") and "" not in table(tmp_path / "a.csv")["bound"]
    monkeypatch.delattr(Gaussian, "moments")
    assert run("encode", folders / "digits", "--out", tmp_path / "b.csv") == 0
    assert "has no moments" in capsys.readouterr().out
    assert "sd_1" not in table(tmp_path / "b.csv") and "" not in table(tmp_path / "b.csv")["bound"]


def test_a_bound_that_is_not_finite_stands_in_its_row_and_is_warned_of(folders, tmp_path, capsys):
    x = np.random.default_rng(0).random((3, 64))
    x[1] = 1e30
    np.save(tmp_path / "far.npy", x)
    assert run("encode", folders / "free", "--data", tmp_path / "far.npy", "--out", tmp_path / "a.csv") == 0
    assert_array_equal(np.isfinite(numbers(tmp_path / "a.csv", "bound")[:, 0]), [True, False, True])
    assert "warning: the bound of 1 of 3 images of" in capsys.readouterr().err


# evaluate


def test_all_without_data_are_the_three_splits_of_the_run_s_own_in_the_order_of_the_source(
    folders, photos, tmp_path, capsys
):
    assert run("evaluate", folders / "photos", "--all", "--scores", tmp_path / "a.csv") == 0
    assert "all images: bound " in capsys.readouterr().out
    assert table(tmp_path / "a.csv")["name"] == load_images(photos).names
    assert run("evaluate", folders / "photos", "--split", "valid", "--scores", tmp_path / "b.csv") == 0
    assert table(tmp_path / "b.csv")["name"] == load_data(photos).part("valid").names
    assert run("encode", folders / "photos", "--data", photos, "--out", tmp_path / "c.csv") == 0
    assert table(tmp_path / "c.csv")["bound"] == table(tmp_path / "a.csv")["bound"]


@pytest.mark.filterwarnings("ignore:k_hat is above")  # of a model that has hardly been trained
def test_scores_hold_log_likelihood_error_and_k_hat_where_they_are_asked_for(folders, photos, tmp_path, capsys):
    words = [folders / "digits", "--all", "--data", photos, "--scores", tmp_path / "a.csv", "--json"]
    assert run("evaluate", *words) == 0
    assert [*table(tmp_path / "a.csv")] == ["name", "label", "bound", "rate", "distortion"]
    assert run("evaluate", *words, "--log-likelihood", 50) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["scores"] == str(tmp_path / "a.csv")
    estimate = importance(load_model(folders / "digits"), load_images(photos).x, 50)
    found = numbers(tmp_path / "a.csv", "log_likelihood", "log_likelihood_error", "k_hat")
    assert_allclose(found, np.stack([estimate.log_p, estimate.error, estimate.k_hat], axis=1), rtol=1e-12)
    assert_allclose(found[:, 0].mean(), told["log_likelihood"], rtol=1e-12)


def test_evaluate_of_an_autoencoder_writes_its_distortions_alone(folders, tmp_path):
    assert run("evaluate", folders / "autoencoder", "--scores", tmp_path / "a.csv") == 0
    columns = table(tmp_path / "a.csv")
    assert set(columns["bound"]) == set(columns["rate"]) == {""} and "" not in columns["distortion"]


# sample and reconstruct


def test_samples_are_means_or_draws_at_the_same_z_in_every_format(folders, tmp_path, capsys):
    model = load_model(folders / "digits")
    z = np.random.default_rng(4).standard_normal((6, 3), np.float32)
    words = ["sample", folders / "digits", "--n", 6, "--seed", 4, "--out"]
    assert run(*words, tmp_path / "a.npy") == 0
    means = np.load(tmp_path / "a.npy")
    assert_array_equal(means, model.decode(z))
    assert_array_equal(means, model.sample(6, 4))
    assert run(*words, tmp_path / "a.npz", "--draw") == 0
    drawn = np.load(tmp_path / "a.npz")
    assert_array_equal(drawn["z"], z)
    assert set(drawn["images"].ravel()) == {0, 1}
    assert "6 draws x ~ p(x|z)" in capsys.readouterr().out
    (tmp_path / "folder").mkdir()  # an empty one will do
    assert run(*words, tmp_path / "folder") == 0
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [f"sample_{k}.png" for k in range(1, 7)]
    assert_array_equal(read(tmp_path / "folder" / "sample_3.png"), np.round(255 * means[2].reshape(8, 8)))
    assert run(*words, tmp_path / "a.png", "--mean") == 0
    assert is_drawn(tmp_path / "a.png")


def test_draws_have_the_means_that_they_are_drawn_from(tmp_path, folders):
    words = ["sample", folders / "digits", "--n", 4000, "--out"]
    assert run(*words, tmp_path / "mean.npy") == 0
    assert run(*words, tmp_path / "draw.npy", "--draw") == 0
    means, drawn = (np.load(tmp_path / f"{name}.npy") for name in ("mean", "draw"))
    assert_allclose(drawn.mean(axis=0), means.mean(axis=0), atol=4.5 * 0.5 / np.sqrt(4000))


def test_the_noise_of_pixels_is_not_made_of_the_numbers_that_z_is_made_of(tmp_path, folders):
    assert run("sample", folders / "free", "--draw", "--n", 9, "--seed", 5, "--out", tmp_path / "a.npz") == 0
    found = np.load(tmp_path / "a.npz")
    model = load_model(folders / "free")
    noise = model.likelihood.noise(np.random.default_rng(5), (9, 64), np.float32)
    assert_array_equal(noise.ravel()[:27], found["z"].ravel())  # so that the same seed would do it
    assert np.abs(found["images"] - model.draw(found["z"], 5)).mean() > 0.1


def test_values_outside_0_and_1_are_kept_in_arrays_and_scaled_in_words_in_pictures(folders, tmp_path, capsys):
    words = ["sample", folders / "free", "--draw", "--n", 5, "--out"]
    assert run(*words, tmp_path / "a.npy") == 0
    x = np.load(tmp_path / "a.npy")
    assert x.min() < 0 and x.max() > 1 and "black is" not in capsys.readouterr().out
    assert run(*words, tmp_path / "b") == 0
    low, high = x.min(), x.max()
    assert f"black is {low:.3g} and white is {high:.3g} in the pictures" in capsys.readouterr().out
    levels = 255 * (x[4] - low) / (high - low)
    assert_allclose(read(tmp_path / "b" / "sample_5.png").ravel(), levels, atol=0.501)


def test_blocks_of_images_share_one_scale_and_what_is_in_0_and_1_stays():
    grey = np.array([[0, 51, 255]], np.uint8)
    (a, b), said = writing.as_shown(grey, np.array([[0.25, 0.5, 1.0]]))
    assert said == "" and a.tolist() == [[0, 0.2, 1]] and b.tolist() == [[0.25, 0.5, 1]]
    (a, b), said = writing.as_shown(grey, np.array([[-1.0, 0.5, 0.75]]))
    assert "black is -1 and white is 1 in" in said
    assert_allclose(a, [[0.5, 0.6, 1]])
    assert_allclose(b, [[0, 0.75, 0.875]])
    with pytest.raises(ValueError, match="values that are not finite"):
        writing.as_shown(np.array([[np.nan, 1.0]]))


def test_reconstructions_keep_the_names_of_files_and_stand_below_their_originals(folders, photos, tmp_path):
    model = load_model(folders / "digits")
    given = load_images(photos)
    again = model.reconstruct(given.x)
    words = ["reconstruct", folders / "digits", "--data", photos, "--out"]
    assert run(*words, tmp_path / "again") == 0
    found = sorted(path.relative_to(tmp_path / "again").as_posix() for path in (tmp_path / "again").rglob("*.png"))
    assert found == sorted(given.names)
    for name, image in zip(given.names, again, strict=True):
        assert_array_equal(read(tmp_path / "again" / name), np.round(255 * image.reshape(8, 8)))
    assert run(*words, tmp_path / "a.npz", "--n", 9) == 0
    arrays = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert set(arrays) == {"name", "label", "classes", "images", "reconstructions"}
    assert_array_equal(arrays["images"], given.x[:9])
    assert_array_equal(arrays["reconstructions"], again[:9])
    assert tuple(arrays["name"]) == given.names[:9] and len(arrays["label"]) == 9
    assert run(*words, tmp_path / "a.npy") == 0
    assert_array_equal(np.load(tmp_path / "a.npy"), again)
    assert run(*words, tmp_path / "a.png") == 0
    assert is_drawn(tmp_path / "a.png")


def test_the_grid_has_originals_above_their_reconstructions_whatever_their_number(monkeypatch, tmp_path, folders):
    seen = []

    def reconstructions(ax, x, again, shape, columns):
        seen.append((x, again, shape, columns))

    monkeypatch.setattr("scratchvae.plots.reconstructions", reconstructions)
    for n in (1, 7, 120):
        assert run("reconstruct", folders / "digits", "--n", n, "--out", tmp_path / "a.png") == 0
    assert [(len(x), len(again), columns) for x, again, _, columns in seen] == [(1, 1, 1), (7, 7, 7), (120, 120, 16)]
    x, again, shape, _ = seen[1]
    given = load_data("digits").test[:7]
    assert shape == (8, 8)
    assert_array_equal(x, given / 255)
    assert_array_equal(again, load_model(folders / "digits").reconstruct(given))


def test_two_files_that_differ_in_their_suffix_alone_get_two_names(tmp_path):
    def named(*names):
        n = len(names)
        return writing.as_png(images.data.Images("a", (1, 1), "grey", np.zeros((n, 1)), np.arange(n) + 8, None, names))

    assert named("a/b.jpg", "a/c.v2.tif") == ["a/b.png", "a/c.v2.png"]
    assert named("b.jpg", "b.png", "c.gif") == ["b.jpg.png", "b.png.png", "c.gif.png"]
    assert named("B.jpg", "b.gif") == ["B.jpg.png", "b.gif.png"]  # which are one name on some systems
    rows = images.data.Images("a", (1, 1), "grey", np.zeros((3, 1)), np.array([8, 9, 10]))
    assert writing.as_png(rows) == ["row_08.png", "row_09.png", "row_10.png"]


def test_an_older_run_that_does_not_know_its_shape_is_used_and_compares_the_number_of_pixels(
    folders, tmp_path, capsys, monkeypatch, photos
):
    from scratchvae.cli import encode, sample

    for command in (encode, sample):
        original = command.run_options
        monkeypatch.setattr(command, "run_options", lambda run, read=original: read(run) | {"image_shape": None})
    assert run("sample", folders / "digits", "--out", tmp_path / "s") == 0
    assert read(tmp_path / "s" / "sample_01.png").shape == (8, 8)
    assert run("encode", folders / "digits", "--data", photos, "--out", tmp_path / "a.csv") == 0
    save(tmp_path / "odd" / "x.png", np.full((9, 7), 200, np.uint8))
    said = refused(capsys, "encode", folders / "digits", "--data", tmp_path / "odd", "--out", tmp_path / "a.csv")
    assert "odd/x.png has 9 x 7 pixels, and the images of the training 64" in said


# What is refused, and what is left behind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encode", "--out", "a.txt"], "--out is a.txt; expected a name that ends in .csv, .npz or .npy"),
        (["encode", "--out", "nowhere/a.csv"], "there is no folder nowhere"),
        (["encode", "--out", "folder.csv"], "which is a folder or no regular file"),
        (["encode", "--out", "{run}/metrics.csv"], "which is the name of a file of a run"),
        (["encode", "--data", "{photos}", "--out", "{photos}/a.csv"], "choose a place outside of them"),
        (["encode", "--data", "own.npy", "--out", "own.npy"], "choose a place outside of them"),
        (["encode", "--out", "a.csv", "--n-samples", 0], "--n-samples is 0; expected a whole number ≥ 1"),
        (["encode", "--out", "a.csv", "--seed", -1], "--seed is -1; expected a whole number ≥ 0"),
        (["encode", "--out", "a.csv", "--background", "white"], "--background is for images of your own choice"),
        (["encode", "--out", "a.csv", "--data", "nowhere"], "there is no data set 'nowhere'"),
        (["encode", "--out", "a.csv", "--data", "empty"], "empty has no images in it"),
        (["encode", "--out", "a.csv", "--data", "broken"], "broken/b.png is no image in PNG"),
        (["encode", "--out", "a.csv", "--data", "wide.npy"], "those of the training (8, 8)"),
        (["encode", "--out", "a.csv", "--data", "beyond.npy"], "expected [0, 1] for a likelihood bernoulli"),
        (["evaluate", "--scores", "a.npy"], "--scores is a.npy; expected a name that ends in .csv or .npz"),
        (["evaluate", "--background", "white"], "--background is for images of your own choice"),
        (["evaluate", "--all", "--data", "wide.npy"], "those of the training (8, 8)"),
        (["sample", "--out", "a.jpg"], "expected a folder, or a name that ends in .png, .npy or .npz"),
        (["sample", "--out", "full"], "which is not empty: choose a new folder"),
        (["sample", "--out", "full/file"], "which is a file; expected a folder"),
        (["sample", "--out", "nowhere/folder"], "there is no folder nowhere"),
        (["sample", "--out", "a.png", "--n", 1001], "a grid has room for 1,000 images, and there are 1,001"),
        (["sample", "--out", "a.png", "--n", 0], "--n is 0; expected a whole number ≥ 1"),
        (["reconstruct", "--out", "{photos}/a", "--data", "{photos}"], "choose a place outside of them"),
        (["reconstruct", "--out", "a.png", "--data", "digits"], "a grid has room for 1,000 images"),
        (["reconstruct", "--out", "a.png", "--n", 181], "--n is 181; there are 180 images"),
    ],
)
def test_what_does_not_go_is_refused_in_one_line_and_leaves_nothing(
    words, said, folders, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("folder.csv", "empty", "full"):
        Path(name).mkdir()
    Path("full/file").touch()
    save(Path("broken/a.png"), np.full((8, 8), 200, np.uint8))
    Path("broken/b.png").write_bytes(Path("broken/a.png").read_bytes()[:50])
    np.save("own.npy", np.full((3, 64), 0.6))
    np.save("wide.npy", np.full((3, 81), 0.6))
    np.save("beyond.npy", np.full((3, 64), 1.5))
    before = sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))
    command, *rest = [str(word).format(run=folders / "digits", photos=photos) for word in words]
    assert said in refused(capsys, command, folders / "digits", *rest)
    assert (sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))) == before


def test_no_file_of_a_run_is_written_over(folders, tmp_path, capsys):
    for name in FILES:
        if Path(name).suffix in (".csv", ".npz"):
            assert "file of a run" in refused(capsys, "encode", folders / "digits", "--out", tmp_path / name)
            assert "file of a run" in refused(capsys, "evaluate", folders / "digits", "--scores", tmp_path / name)


def test_a_folder_that_cannot_be_written_whole_is_not_there_at_all(folders, tmp_path, capsys, monkeypatch):
    from PIL import Image

    original = Image.Image.save

    def fail(self, path, *arguments):
        if path.name == "sample_03.png":
            raise OSError(28, "No space left on device")
        original(self, path, *arguments)

    monkeypatch.setattr(Image.Image, "save", fail)
    said = refused(capsys, "sample", folders / "digits", "--out", tmp_path / "a")
    assert "a could not be written (No space left on device); nothing of it is there" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_same_name_is_replaced_only_when_the_new_one_is_whole(folders, tmp_path, capsys, monkeypatch):
    out = tmp_path / "a.csv"
    out.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        assert "No space left on device" in refused(capsys, "encode", folders / "digits", "--out", out)
    assert out.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [out]
    assert run("encode", folders / "digits", "--out", out) == 0
    assert len(table(out)["bound"]) == 180


def test_transparent_pixels_are_laid_on_the_background_that_is_given_or_that_of_the_training(folders, tmp_path, capsys):
    see_through = np.full((8, 8, 4), 200, np.uint8)
    see_through[..., 3] = 0
    save(tmp_path / "a" / "x.png", see_through)
    words = ["reconstruct", folders / "digits", "--data", tmp_path / "a", "--out", tmp_path / "a.npz"]
    assert "--background on the command line" in refused(capsys, *words)
    assert run(*words, "--background", 140) == 0
    assert_array_equal(np.load(tmp_path / "a.npz")["images"], np.full((1, 64), 140))
    options = DEFAULTS | {"data": str(tmp_path / "a"), "image_shape": [8, 8]}
    model = VAE(64, 3, 2)
    assert images.all_images(options | {"background": "white"}, model).x.min() == 255
    assert images.all_images(options | {"background": "white"}, model, 130).x.max() == 130
    np.save(tmp_path / "a.npy", np.full((2, 64), 0.7))
    assert len(images.all_images(options | {"background": 9, "data": str(tmp_path / "a.npy")}, model).x) == 2
