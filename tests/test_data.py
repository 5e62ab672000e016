"""data/: the three data sets, the user's own images, and every way in which a file can be wrong."""

import dataclasses
import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import shared
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.io import loadmat, savemat

from scratchvae import load_data
from scratchvae.data import MNIST_FILES, DataError, binarise, named, thresholds

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 3), dtype=np.uint8)


def test_digits_are_embedded_and_split_once_and_for_all(digits):
    assert [len(rows) for rows in (digits.train, digits.valid, digits.test)] == [1437, 180, 180]
    assert digits.train.dtype == np.uint8 and digits.train.max() == 255 and digits.image_shape == (8, 8)
    assert_array_equal(load_data("digits").test, digits.test)
    everything = np.concatenate([digits.train, digits.valid, digits.test])
    from sklearn.datasets import load_digits

    source = load_digits().data
    order = np.lexsort(everything.T), np.lexsort(np.round(source * 255 / 16).T)
    assert np.abs(everything[order[0]] / 255 - source[order[1]] / 16).max() <= 0.5 / 255
    assert len(digits.train_labels) == 1437 and set(digits.test_labels) == set(range(10))


def test_mnist_splits_as_in_the_reference_curves_and_stays_uint8(mnist):
    assert [len(rows) for rows in (mnist.train, mnist.valid, mnist.test)] == [50000, 10000, 10000]
    assert mnist.train.dtype == np.uint8 and mnist.train.shape[1] == 784
    assert list(mnist.train_labels[:5]) == [5, 0, 4, 1, 9] and list(mnist.test_labels[:5]) == [7, 2, 1, 0, 4]
    assert "50,000 / 10,000 / 10,000" in str(mnist) and "grey-level" in str(mnist)


def test_frey_face_is_a_fixed_random_split_of_all_1965_frames(frey):
    assert [len(rows) for rows in (frey.train, frey.valid, frey.test)] == [1565, 200, 200]
    assert frey.image_shape == (28, 20)
    frames = loadmat(os.environ["SCRATCHVAE_DATA"] + "/frey/frey_rawface.mat")["ff"].T
    everything = np.concatenate([frey.train, frey.valid, frey.test])
    assert_array_equal(everything[np.lexsort(everything.T)], frames[np.lexsort(frames.T)])
    given = load_data("frey", split=(1500, 400, 65))
    assert [len(rows) for rows in (given.train, given.valid, given.test)] == [1500, 400, 65]


def test_mnist_split_otherwise_keeps_its_order(mnist):
    data = load_data("mnist", split=(60000, 1000, 9000))
    assert_array_equal(data.train[50000:], mnist.valid)
    assert_array_equal(data.valid_labels, mnist.test_labels[:1000])
    assert_array_equal(data.test, mnist.test[1000:])


def test_n_train_keeps_the_first_and_the_other_splits_whole(mnist):
    few = load_data("mnist", n_train=1000)
    assert_array_equal(few.train, mnist.train[:1000])
    assert len(few.train_labels) == 1000 and len(few.valid) == 10000
    for bad in (0, 50001):
        with pytest.raises(ValueError, match=f"n_train is {bad}; expected 1 to 50000"):
            load_data("mnist", n_train=bad)


def test_binarised_pixels_have_the_grey_level_as_their_mean():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 20_000, axis=1)
    drawn = binarise(grey, thresholds(grey.shape, grey.dtype, np.random.default_rng(0)))
    assert set(np.unique(drawn)) == {0, 255} and drawn.dtype == np.uint8
    p = np.arange(256) / 255
    assert (drawn[0] == 0).all() and (drawn[255] == 255).all()
    z = (drawn[1:255].mean(axis=1) / 255 - p[1:255]) / np.sqrt(p[1:255] * (1 - p[1:255]) / 20_000)
    assert np.abs(z).max() < 5.5  # 254 tests at 1e-6 / 25
    shifted = np.arange(1, 255) / 256  # control: P(255) = x/256
    assert np.abs((drawn[1:255].mean(axis=1) / 255 - shifted).sum()) > 5 * np.sqrt((p * (1 - p)).sum() / 20_000)
    light = grey[:, :100] / np.float32(255)
    floats = binarise(light, thresholds(light.shape, light.dtype, np.random.default_rng(0)))
    assert set(np.unique(floats)) == {0.0, 1.0} and floats.dtype == np.float32


def test_fixed_binarisation_is_one_draw_for_all_time_and_named_in_the_log(digits):
    one, two = load_data("digits", binarization="fixed"), load_data("digits", binarization="fixed")
    assert_array_equal(one.train, two.train)
    assert set(np.unique(one.train)) == {0, 255} and "fixed binarisation" in str(one)
    assert_array_equal(load_data("digits", binarization="fixed", n_train=9).test, one.test)
    dynamic = load_data("digits", binarization="dynamic")
    assert_array_equal(dynamic.train, digits.train)  # drawn by the minibatch, in fit
    assert "dynamic binarisation" in str(dynamic)
    with pytest.raises(ValueError, match="binarization is 'no'; expected one of grey, fixed, dynamic"):
        load_data("digits", binarization="no")


SHA256 = {  # of the bytes of every split and of its labels
    ("digits", "train"): "7329f2affe127c91ed208a89efffad97576c80f217b960d5d7f3774e9384931b",
    ("digits", "valid"): "4a5440eea3fdba5fdde3f4bf8f0df04d9fbd98cd5a9f767cf2c75c0a97a77f7d",
    ("digits", "test"): "bbeffb93965cdc7862ea90b4fe95c9322708471e4f629ef5a159ca48be8cd324",
    ("digits", "train_labels"): "2b11282ac0c9af15c6e440ea3209a19e467e9c3f5787227001b1e8de89b6cafa",
    ("digits", "valid_labels"): "6f73d161e9aa6182a5cbf0def809a530a3eb69bbb431d237c970a6888acbde92",
    ("digits", "test_labels"): "3eea5490dbda43ba92cacebb3cfa7f64eb0937cf665896f7513a964ff3e85bc9",
    ("mnist", "train"): "c80ceb24eedca80f31cfca280b8fb911cbb41b9990f998bebd40e26b1ab6d0f8",
    ("mnist", "valid"): "2b079632b0defaf508a5ebf8c4ac1e18ce15c8b337da087e9c3e1c84c618d244",
    ("mnist", "test"): "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    ("mnist", "train_labels"): "6072d13d0c3b831e9e4dc3ba693426579504082fc45c186db0f74c0a3092638d",
    ("mnist", "valid_labels"): "f46875b7c22368a38a50c5c7639c3842341b81fe4d628c55fa1818e21e96ab3b",
    ("mnist", "test_labels"): "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ("frey", "train"): "401554fd6406795436e824faceaa0d4496e672df276dba61eda69f840fec2bbd",
    ("frey", "valid"): "64995ff30424d6c26b9d35e02a3f1c1754650cd94b636c69ae080b43202bb2e4",
    ("frey", "test"): "5fd5590e09aaca2696d5f0708a587ac7a489e3bf0a1047c312208d88d81ff49f",
}


@pytest.mark.parametrize("name", ["digits", "mnist", "frey"])
def test_pixels_labels_and_splits_are_the_same_for_all_time(request, name):
    data = request.getfixturevalue(name)
    for part in ("train", "valid", "test"):
        for key in (part, f"{part}_labels"):
            array = getattr(data, key)
            assert (array is None) == ((name, key) not in SHA256)
            assert array is None or hashlib.sha256(array.tobytes()).hexdigest() == SHA256[name, key], key
            assert array is None or array.dtype == np.uint8


# The user's own


def same_images(data):
    assert data.image_shape == (4, 3) and [len(rows) for rows in (data.train, data.valid, data.test)] == [24, 3, 3]
    everything = np.concatenate([data.train, data.valid, data.test])
    assert everything.dtype == np.uint8
    assert_array_equal(everything[np.lexsort(everything.T)], (flat := IMAGES.reshape(30, 12))[np.lexsort(flat.T)])


def test_own_npy_npz_and_folder_of_images_are_read_alike(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "a.npz", IMAGES)
    (tmp_path / "folder").mkdir()
    for k, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "folder" / f"{k:02}.png")
    for name in ("a.npy", "a.npz", "folder"):
        same_images(load_data(tmp_path / name))


def test_own_npz_with_labels_or_with_its_own_split(tmp_path):
    np.savez(tmp_path / "labelled.npz", images=IMAGES, labels=np.arange(30))
    data = load_data(str(tmp_path / "labelled.npz"))
    for part in ("train", "valid", "test"):
        assert_array_equal(getattr(data, part), IMAGES.reshape(30, 12)[getattr(data, f"{part}_labels")])
    np.savez(tmp_path / "split.npz", train=IMAGES[:20], valid=IMAGES[20:24], test=IMAGES[24:], test_labels=np.arange(6))
    data = load_data(tmp_path / "split.npz")
    assert_array_equal(data.valid, IMAGES[20:24].reshape(4, 12))
    assert data.train_labels is None and len(data.test_labels) == 6
    with pytest.raises(ValueError, match="labels for some of its splits only"):
        load_data(tmp_path / "split.npz", split=(10, 10, 10))
    np.savez(tmp_path / "split.npz", train=IMAGES[:20], valid=IMAGES[20:24], test=IMAGES[24:])
    data = load_data(tmp_path / "split.npz", split=(10, 5, 15))
    assert_array_equal(data.test, IMAGES[15:].reshape(15, 12))


def test_own_floats_bools_and_flat_rows(tmp_path):
    np.save(tmp_path / "float.npy", IMAGES / 255)
    assert load_data(tmp_path / "float.npy").train.max() <= 1
    np.save(tmp_path / "bool.npy", IMAGES > 100)
    assert set(np.unique(load_data(tmp_path / "bool.npy").train)) == {0, 255}
    np.save(tmp_path / "rows.npy", np.full((10, 16), 200, np.uint8))
    assert load_data(tmp_path / "rows.npy").image_shape == (4, 4)
    np.save(tmp_path / "rows.npy", np.full((10, 7), 200, np.uint8))
    with pytest.warns(UserWarning, match=r"rows of 7, drawn as 1 x 7: save \(N, height, width\) for pictures"):
        assert load_data(tmp_path / "rows.npy", split=(2, 2, 2)).image_shape == (1, 7)


def bad(tmp_path, name, content):
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"not numpy", "no NumPy file of plain arrays"),
        ("a.npy", b"", "no NumPy file of plain arrays"),
        ("a.npz", b"PK\x03\x04 cut", "no NumPy file of plain arrays"),
        (
            "a.npy",
            lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True),
            "no NumPy file of plain arrays",
        ),
        ("a.npy", lambda p: np.save(p, np.zeros((0, 4), np.uint8)), r"has shape \(0, 4\)"),
        ("a.npy", lambda p: np.save(p, np.zeros(5, np.uint8)), r"has shape \(5,\); expected \(N, D\)"),
        ("a.npy", lambda p: np.save(p, np.zeros((5, 4, 4, 3), np.uint8)), r"has shape \(5, 4, 4, 3\)"),
        ("a.npy", lambda p: np.save(p, np.zeros((5, 4), int)), "holds int64; expected uint8 pixels or floats"),
        ("a.npy", lambda p: np.save(p, np.array([["a"]])), "expected uint8 pixels or floats"),
        ("a.npy", lambda p: np.save(p, np.full((5, 4), np.nan)), "not finite"),
        ("a.npz", lambda p: np.savez(p, a=IMAGES, b=IMAGES), "holds a, b; expected images"),
        ("a.npz", lambda p: np.savez(p), "holds nothing; expected images"),
        ("a.npz", lambda p: np.savez(p, images=IMAGES, labels=np.arange(3)), r"labels int64 \(3,\) for 30 images"),
        ("a.npz", lambda p: np.savez(p, images=IMAGES, labels=np.full(30, "a")), "expected a whole number each"),
        ("a.npz", lambda p: np.savez(p, train=IMAGES, valid=IMAGES, test=IMAGES[:, :2]), "splits of different kinds"),
        ("a.npz", lambda p: np.savez(p, train=IMAGES, valid=IMAGES / 255, test=IMAGES), "splits of different kinds"),
        ("a.txt", b"hello", "expected .npy, .npz or a folder of images"),
        ("empty", lambda p: p.mkdir(), "has no images in it"),
        ("text", lambda p: (p.mkdir(), (p / "a.png").write_text("no", encoding="utf-8")), "a.png is no image"),
        (
            "deep",
            lambda p: (p.mkdir(), Image.fromarray(np.arange(9, dtype=np.uint16).reshape(3, 3)).save(p / "a.png")),
            r"pixels of mode I;16; expected grey, RGB or RGBA with 8 bits a channel: convert it",
        ),
        (
            "sizes",
            lambda p: (p.mkdir(), Image.new("L", (3, 3)).save(p / "a.png"), Image.new("L", (3, 4)).save(p / "b.png")),
            r"b.png is \(4, 3\), the images before it \(3, 3\)",
        ),
    ],
)
def test_a_broken_file_of_ones_own_is_one_clear_error(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        load_data(bad(tmp_path, name, content))


def test_unknown_names_and_impossible_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no data set ''"):
        load_data("")
    with pytest.raises(DataError, match="there is no data set 'minst'; expected digits, mnist, frey, or"):
        load_data("minst")
    for split in [(1, 2), (0, 5, 5), (1000, 1000, 1000)]:
        with pytest.raises(ValueError, match="expected three sizes ≥ 1 whose sum is at most 1797"):
            load_data("digits", split=split)
    np.save(tmp_path / "a.npy", IMAGES[:2])
    with pytest.raises(ValueError, match="there are 2 datapoints; expected at least 3"):
        load_data(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", IMAGES / 100)
    with pytest.raises(DataError, match=r"values from 0.* expected \[0, 1\] to binarise"):
        load_data(tmp_path / "a.npy", binarization="fixed")


# MNIST and Frey Face that are missing or broken


def test_a_misnamed_numpy_file_is_read_by_its_content(tmp_path):
    np.savez(tmp_path / "a.npz", IMAGES)
    (tmp_path / "a.npz").rename(tmp_path / "b.npy")
    same_images(load_data(tmp_path / "b.npy"))


def test_a_data_dir_that_does_not_exist_is_no_silent_detour(tmp_path):
    with pytest.raises(DataError, match=r"data_dir .*typo is no folder"):
        load_data("mnist", data_dir=tmp_path / "typo")


def test_data_dir_comes_before_the_environment_and_files_may_be_unpacked(tmp_path, monkeypatch):
    shared("mnist")
    source = os.environ["SCRATCHVAE_DATA"] + "/mnist/"
    for name in MNIST_FILES:
        (tmp_path / name).write_bytes(gzip.decompress(Path(f"{source}{name}.gz").read_bytes()))
    monkeypatch.setenv("SCRATCHVAE_DATA", str(tmp_path / "nowhere"))
    assert len(load_data("mnist", data_dir=tmp_path).train) == 50000


def test_no_download_possible_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
    with pytest.raises(DataError) as error:
        load_data("mnist", data_dir=tmp_path)
    for words in ("train-images-idx3-ubyte.gz", str(tmp_path / "mnist"), "could not be downloaded", "SCRATCHVAE_DATA"):
        assert words in str(error.value)
    with pytest.raises(DataError, match=r"frey_rawface\.mat is in none of"):
        load_data("frey")


def test_a_download_that_is_gone_before_it_is_read_is_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"could not be downloaded .*gone cannot be read"):
        load_data("frey")


def test_a_download_is_verified_by_content_and_a_wrong_one_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
    fetched = []

    def retrieve(url, known_hash, fname, path, progressbar):
        fetched.append(url)
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(packed(idx((60000, 28, 28))))
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(DataError, match="SHA-256 differs"):
        load_data("mnist")
    assert len(fetched) == 2  # both mirrors
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_a_good_download_is_used_and_found_again_in_the_cache(tmp_path, monkeypatch):
    shared("frey")
    source = os.environ["SCRATCHVAE_DATA"] + "/frey/frey_rawface.mat"
    monkeypatch.delenv("SCRATCHVAE_DATA")
    fetched = []

    def retrieve(url, known_hash, fname, path, progressbar):
        fetched.append(url)
        path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path / fname)
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    for _ in range(2):
        assert len(load_data("frey").train) == 1565
    assert len(fetched) == 1


def packed(content):
    """Gzip, the same bytes at any time."""
    return gzip.compress(content, mtime=0)


def idx(shape, magic=None, size=None):
    header = np.array([2048 + len(shape) if magic is None else magic, *shape], ">u4").tobytes()
    return header + bytes(int(np.prod(shape)) if size is None else size)


RANDOM = np.random.default_rng(0).bytes(100_000)  # which no compression shortens


@pytest.mark.parametrize(
    "content",
    [
        packed(RANDOM),
        gzip.compress(RANDOM, 0),  # in stored blocks
        packed(RANDOM[:300]) + gzip.compress(RANDOM[300:], 0),
        gzip.compress(b"") + b"".join(packed(RANDOM[k : k + 10_000]) for k in range(0, 100_000, 10_000)) + bytes(20),
    ],
    ids=["one member", "stored", "two members", "eleven members and padding"],
)
def test_a_gzip_file_may_be_packed_in_any_way(tmp_path, content):
    (tmp_path / "a.gz").write_bytes(content)
    assert named._unpacked(tmp_path / "a.gz", 100_000) == RANDOM
    assert named._unpacked(tmp_path / "a.gz", 99_998) == RANDOM[:99_999]  # one more, so that too much is seen
    for broken, message in [
        (content[:-25], r"a\.gz is a broken gzip file \(it is cut short\): fetch it again"),
        (content + b"more", r"a\.gz is a broken gzip file \(Not a gzipped file"),
        (content[:50] + b"!" + content[51:], r"a\.gz is a broken gzip file \("),
    ]:
        (tmp_path / "a.gz").write_bytes(broken)
        with pytest.raises(DataError, match=message):
            named._unpacked(tmp_path / "a.gz", 100_000)
    (tmp_path / "a.gz").write_bytes(packed(b"") * 10_000)
    with pytest.raises(DataError, match=r"a\.gz has more than 105,658 bytes, and MNIST's has fewer: fetch it again"):
        named._unpacked(tmp_path / "a.gz", 100_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(idx((60000, 28, 28)))[:500], r"broken gzip file \(it is cut short\)"),
        (b"no gzip at all", r"broken gzip file \(Not a gzipped file"),
        (packed(b""), "no IDX file: it has 0 bytes"),
        (packed(b"12345"), "no IDX file: it has 5 bytes"),
        (packed(idx((60000, 28, 28))[:15]), "no IDX file: it has 15 bytes, less than its header"),
        (packed(idx((60000, 28, 28))[:16]), r"has shape \(60000, 28, 28\) in 16 bytes; MNIST's has"),
        (packed(idx((60000, 28, 28), magic=2049)), "no IDX file: magic 2049, expected 2051"),
        (packed(idx((60000, 28, 28), size=9)), r"has shape \(60000, 28, 28\) in 25 bytes; MNIST's has"),
        (packed(idx((600, 28, 28))), r"has shape \(600, 28, 28\)"),
        (packed(idx((60000, 28, 28))), "is not MNIST's"),
    ],
)
def test_a_broken_mnist_file_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no mat", "is no .mat file"),
        (lambda p: savemat(p, {"gg": np.zeros((560, 1965), np.uint8)}), "has no variable ff; expected ff uint8"),
        (lambda p: savemat(p, {"ff": np.zeros((1965, 560), np.uint8)}), r"has ff uint8 \(1965, 560\)"),
        (lambda p: savemat(p, {"ff": np.zeros((560, 1965))}), "has ff float64"),
        (lambda p: savemat(p, {"ff": np.zeros((560, 1965), np.uint8)}), "does not hold the Frey faces"),
    ],
)
def test_a_broken_frey_file_is_one_clear_error(tmp_path, content, message):
    bad(tmp_path, "frey_rawface.mat", content)
    with pytest.raises(DataError, match=message):
        load_data("frey", data_dir=tmp_path)


def test_the_parts_of_a_data_set_cannot_be_exchanged(digits):
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'test'"):
        digits.test = digits.train
