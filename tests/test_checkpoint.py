"""training/checkpoint.py: atomic, without pickle, and refused when anything about it is wrong."""

import errno
import json
import os
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scratchvae import VAE, Adagrad, fit, load_model
from scratchvae.training import checkpoint
from scratchvae.training.checkpoint import CheckpointError, load, save

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0), "c": np.array(3), "long": np.zeros(500)}


def rewrite(path, change):
    """Unpack the npz, let `change` edit the dict of arrays, and pack it again."""
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def edit_manifest(change):
    def apply(arrays):
        manifest = json.loads(str(arrays["manifest"]))
        change(manifest)
        arrays["manifest"] = np.array(json.dumps(manifest))

    return apply


def test_arrays_and_facts_come_back_as_they_were(tmp_path):
    save(tmp_path / "c.npz", ARRAYS, {"step": 3, "x": 0.1})
    arrays, facts = load(tmp_path / "c.npz")
    assert facts == {"step": 3, "x": 0.1} and arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        assert_array_equal(array, ARRAYS[name])


def test_the_previous_checkpoint_is_kept_and_nothing_else_is_left(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path / "c.npz", ARRAYS, {"step": step})
    assert load(tmp_path / "c.npz")[1]["step"] == 3
    assert load(tmp_path / "c.previous.npz")[1]["step"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "c.previous.npz"]


def test_the_previous_checkpoint_is_kept_without_hard_links_too(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        save(tmp_path / "c.npz", ARRAYS, {"step": step})
    assert load(tmp_path / "c.previous.npz")[1]["step"] == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_half_way_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, call):
    for step in (0, 1):
        save(tmp_path / "c.npz", ARRAYS, {"step": step})

    def fail(*arguments):
        if call == "fsync" or str(arguments[1]).endswith("c.npz"):
            raise OSError("disk full")
        return replace(*arguments)

    replace = os.replace
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "c.npz", ARRAYS, {"step": 2})
    assert load(tmp_path / "c.npz")[1]["step"] == 1
    assert call == "replace" or load(tmp_path / "c.previous.npz")[1]["step"] == 0
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("size", [3, 100_000])
def test_the_new_file_is_synced_whole_before_it_is_renamed(tmp_path, monkeypatch, size):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(("fsync", os.fstat(file).st_size)) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append(("replace", 0)) or replace(*paths))
    checkpoint.write_atomically(tmp_path / "c", bytes(size))
    assert calls == [("fsync", size), ("replace", 0)]


@pytest.mark.parametrize("kept", [0, 1, 50, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_the_previous_one_named(tmp_path, kept):
    path = tmp_path / "c.npz"
    save(path, ARRAYS, {"step": 1})
    save(path, ARRAYS, {"step": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert re.search(
        r"is damaged or no checkpoint: it .*; the one before it is c\.previous\.npz: rename", str(error.value)
    )
    assert str(error.value).count("c.npz") == 1
    previous = path.with_name("c.previous.npz")
    previous.write_bytes(previous.read_bytes()[:100])
    for broken in (path, previous):
        message = rf"^{broken} is damaged .*; there is none before it that is whole, and the run must begin anew, as it"
        with pytest.raises(CheckpointError, match=message):
            load(broken)


def test_a_limit_on_the_size_of_files_is_not_mistaken_for_a_full_disk(tmp_path, monkeypatch):
    def limited(descriptor):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "fsync", limited)
    with pytest.raises(
        OSError, match=r"it takes 5 bytes, more than a file may have here \(ulimit -f, .*\); nothing was"
    ):
        checkpoint.write_atomically(tmp_path / "c", bytes(5))


def test_no_single_flipped_bit_gives_other_arrays_or_another_error(tmp_path):
    path = tmp_path / "c.npz"
    save(path, ARRAYS, {"step": 1})
    whole, refused = path.read_bytes(), 0
    for offset in range(len(whole)):
        broken = bytearray(whole)
        broken[offset] ^= 1 << (offset * 5 % 8)
        path.write_bytes(broken)
        try:
            arrays, facts = load(path)
        except CheckpointError:
            refused += 1
        else:  # a date, say: the zip format has bytes that say nothing about the arrays
            assert facts == {"step": 1}
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert refused > 0.7 * len(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays["a"].__setitem__((0, 0), 7), "was changed after it was written"),
        (lambda arrays: arrays["long"].__setitem__(-1, 7), "was changed after it was written"),
        (lambda arrays: arrays.pop("a"), "does not hold the arrays that its manifest lists: a"),
        (lambda arrays: arrays.update(a=arrays["a"].astype(float)), "manifest lists: a"),
        (lambda arrays: arrays.update(d=np.zeros(1)), "manifest lists: d"),
        (lambda arrays: arrays.pop("manifest"), "no checkpoint"),
        (lambda arrays: arrays.update(manifest=np.array("{")), "no checkpoint"),
        (lambda arrays: arrays.update(manifest=np.array("[1]")), "no checkpoint"),
        (edit_manifest(lambda manifest: manifest["facts"].update(step=9)), "was changed after it was written"),
        (edit_manifest(lambda manifest: manifest.pop("sha256")), "was changed after it was written"),
        (edit_manifest(lambda manifest: manifest.update(format=2)), "has format 2; this version of scratchvae reads 1"),
    ],
)
def test_an_edited_checkpoint_is_refused(tmp_path, change, message):
    save(tmp_path / "c.npz", ARRAYS, {"step": 1})
    rewrite(tmp_path / "c.npz", change)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "c.npz")


def test_a_checkpoint_with_pickled_objects_is_refused_unread(tmp_path):
    np.savez(tmp_path / "c.npz", manifest=np.array({"format": 1}, dtype=object))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "c.npz")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"c\.npz is not there; expected the checkpoint of a run$"):
        load(tmp_path / "c.npz")


def test_a_checkpoint_of_another_shape_is_refused_by_array_name(tmp_path):
    fit(VAE(6, 5, 2), np.zeros((10, 6)), samples=20, batch_size=10, out=tmp_path)
    path = tmp_path / "checkpoint.npz"
    arrays, facts = load(path)
    arrays["params/encoder.mu.W"] = np.zeros((5, 3), np.float32)
    checkpoint.save(path, arrays, facts)
    message = r"has float32 \(5, 3\) for params/encoder\.mu\.W; the model expects float32 \(5, 2\)"
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fit(VAE(6, 5, 2), np.zeros((10, 6)), samples=40, batch_size=10, out=tmp_path, resume=True)
    del arrays["params/encoder.mu.W"]
    checkpoint.save(path, arrays, facts)
    with pytest.raises(CheckpointError, match=r"has nothing for params/encoder\.mu\.W"):
        load_model(tmp_path)


def test_parameters_stand_under_their_own_names_and_need_no_scratchvae_to_be_read(tmp_path):
    model = VAE(6, 5, 2)
    fit(model, np.zeros((10, 6)), samples=20, batch_size=10, out=tmp_path, optimizer=Adagrad())
    with np.load(tmp_path / "checkpoint.npz", allow_pickle=False) as file:
        assert_array_equal(file["params/encoder.hidden.W"], model.encoder.layers[0].W)
        assert "optimizer/h" in file.files and "history" in file.files
