"""What a run survives (tests/faults/soak.py, on a small scale), who may write to its folder, and what is printed."""

import errno
import io
import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tqdm import tqdm

from scratchvae import VAE, Adagrad, FullVB, cli, files, fit, load_model
from scratchvae.cli import main
from scratchvae.cli.shared import quoted, run_options, unused
from scratchvae.output import Bar, Output, progress_bar
from scratchvae.training import checkpoint, claim, loop
from scratchvae.training.checkpoint import CheckpointError, save
from scratchvae.training.claim import Claim
from scratchvae.training.em import fit_mcem
from scratchvae.training.run import (
    DAMAGED,
    FOREIGN,
    NOTHING,
    RUN,
    RunFolder,
    _differences,
    load,
    look,
    same_data,
)

sys.path.insert(0, str(Path(__file__).parent / "faults"))
soak = pytest.importorskip("soak")
sys.path.remove(str(Path(__file__).parent / "faults"))

X = soak.X
QUICK = ("--samples", "500", "--hidden", "4", "--latent", "2")
NEVER = float("inf")


@pytest.fixture(scope="module")
def expected():
    return soak.unbroken()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *QUICK, "--out", str(folder), "--quiet"]) == 0
    return folder


def error_of(capsys, *words):
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scratchvae: error: ") and error.count("\n") == 1
    return error


def test_after_a_write_that_fails_a_run_goes_on_or_begins_anew_and_ends_as_if_nothing_had_been(expected):
    def places(count):
        return sorted({1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 17, 22, count - 2, count - 1, count})

    tried, wrong = soak.writes(NEVER, expected, places)
    assert tried > 50 and wrong == []


def test_after_a_kill_nothing_is_left_behind_or_lost(expected):
    tried, wrong = soak.kills(NEVER, expected, count=25)
    assert tried == 25 and wrong == []


def test_two_signals_in_quick_succession_end_a_program_in_one_line():
    tried, wrong = soak.signals(NEVER, count=2)
    assert tried == 2 and wrong == []


@pytest.mark.drawn
@pytest.mark.parametrize("name", soak.PARTS)
def test_mutated_files_of_a_run_are_refused_by_typed_errors_in_bounded_memory(name):
    count = 30 if name.startswith("facts") else 100  # each of them is written anew
    tried, wrong = soak.files(NEVER, count=count, names=[name])
    assert tried == count and wrong == []


def test_facts_that_are_not_those_of_the_run_are_under_a_sha_256_that_fits(trained):
    content = (trained / "checkpoint.npz").read_bytes()
    arrays, facts = load(trained / "checkpoint.npz")
    others = set()
    for seed in range(5):
        (trained / "other.npz").write_bytes(soak.crafted(content, np.random.default_rng(seed)))
        found, other = soak.load(trained / "other.npz")  # raises an error for a SHA-256 that does not fit
        others.add(json.dumps(other))
        assert found.keys() == arrays.keys()
    (trained / "other.npz").unlink()
    assert len(others - {json.dumps(facts)}) >= 4


def test_mutated_data_are_refused_by_typed_errors_in_bounded_memory():
    tried, wrong = soak.data(NEVER, count=3)
    assert tried == 45 and wrong == []


TAKING = {  # controls: what takes too much memory, and what the soak says of it
    "an array that is never written to": (lambda: np.empty(32 << 20, np.uint8), r"takes 33,5\d\d,\d{3} bytes"),
    "bytes": (lambda: bytes(32 << 20), r"takes 33,5\d\d,\d{3} bytes"),
    "pages that a library in C takes": (lambda: np.frombuffer(mmap.mmap(-1, 32 << 20), "u1").fill(1), r"takes 3[2-4],"),
    "more than there is": (lambda: np.empty(8 << 30, np.uint8), r"asks for more than 1,073,741,824 bytes"),
    "little": (lambda: np.empty(1 << 20, np.uint8), "^$"),
}


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("what", TAKING)
def test_memory_that_a_reader_takes_is_seen_also_where_its_error_says_nothing_of_it(what, swallowed):
    take, expected = TAKING[what]

    def read():
        try:
            taken = take()  # noqa: F841  it is held until the reader ends
        except MemoryError:
            if not swallowed:
                raise
            raise ValueError("the file is broken") from None
        if swallowed:
            raise ValueError("the file is broken")

    with soak.memory_below(soak.WILD):
        assert re.search(expected, soak.fault_of(read, 1000))


def test_a_model_that_says_how_much_memory_it_needs_has_asked_for_none():
    def read():
        raise MemoryError("this job needs about 900 GiB")

    assert soak.fault_of(read, 1000) == ""


@pytest.mark.drawn
@pytest.mark.parametrize(("bytes_more", "count"), [(16 << 20, 2), (0, 0)])
def test_a_reader_of_checkpoints_that_takes_16_mib_too_much_is_found(monkeypatch, bytes_more, count):
    names_in = checkpoint.names_in

    def wasteful(path):
        np.empty(bytes_more, np.uint8)
        return names_in(path)

    monkeypatch.setattr(checkpoint, "names_in", wasteful)
    tried, wrong = soak.files(NEVER, count=2, names=["checkpoint.npz"])
    assert tried == 2 and len(wrong) == count and all("takes 16,7" in line for line in wrong)


@pytest.mark.parametrize(
    ("mutate", "content", "values", "too_large"),
    [
        (soak.mutated_json, b'{"a": 2, "b": [2, 3], "c": {"d": 4}}', soak.VALUES, ["1e30", "Infinity", "NaN"]),
        (soak.mutated_csv, b"step,samples\n1,100\n2,200\n", soak.CELLS, ["1e30", "inf", "nan"]),
    ],
)
def test_the_mutations_hold_every_value_that_parsers_stumble_over(mutate, content, values, too_large):
    generator = np.random.default_rng(0)
    made = {mutate(content, generator) for _ in range(1000)}
    assert content not in made
    for value in values:
        assert any(value.encode() in text for text in made), value[:80]
    assert {*too_large, str(10**400)} <= set(values)  # what float() or int() raise an OverflowError for
    assert mutate is soak.mutated_csv or any(value.startswith("[" * 10_000) for value in values)


def test_a_full_disk_is_told_with_the_file_what_it_takes_and_what_is_safe(tmp_path, monkeypatch, capsys):
    fsync = os.fsync
    calls = []

    def full(file):
        calls.append(file)
        if len(calls) > 1:  # config.json has room, the checkpoint has none
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    folder = tmp_path / "run"
    error = error_of(capsys, "train", *QUICK, "--out", folder)
    assert f"{folder}/checkpoint.npz could not be written (No space left on device): it takes " in error
    assert " are free; nothing was there before" in error
    monkeypatch.undo()
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert "begin it anew in the same folder" in error_of(capsys, "train", "--resume", folder)
    assert main(["train", *QUICK, "--out", str(folder), "--quiet"]) == 0
    calls.clear()
    monkeypatch.setattr(os, "fsync", full)
    error = error_of(capsys, "train", "--resume", folder, "--samples", 1000)
    assert "the file that was there before is whole" in error
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder), "--samples", "1000", "--quiet"]) == 0


def test_a_checkpoint_that_cannot_be_read_is_kept_aside_when_a_run_begins_in_its_folder(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"half a checkpoint")
    (tmp_path / "checkpoint.previous.npz").write_bytes(b"half of the one before")
    with pytest.warns(UserWarning, match=r"npz is damaged, and the run begins anew: it is kept as .*broken\.npz"):
        soak.train(tmp_path)
    assert (tmp_path / "checkpoint.broken.npz").read_bytes() == b"half a checkpoint"
    assert (tmp_path / "checkpoint.previous.broken.npz").read_bytes() == b"half of the one before"
    load_model(tmp_path)


def begun(folder, **settings):
    """Train in a folder, and return the error, or "" where there is none."""
    try:
        soak.train(folder, **settings)
    except (ValueError, OSError, MemoryError) as error:
        return str(error)
    return ""


@pytest.fixture
def kept(tmp_path):
    """The folder of a run with two checkpoints."""
    soak.train(tmp_path / "run", samples=40)
    return tmp_path / "run"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "error", [MemoryError("3 GiB"), *(OSError(n, os.strerror(n)) for n in (errno.EIO, errno.ESTALE, errno.EMFILE))]
)
@pytest.mark.parametrize("call", ["ZipFile", "_member"])
def test_a_checkpoint_that_cannot_be_read_at_this_moment_is_not_taken_for_a_broken_one(error, call, kept, monkeypatch):
    before = contents(kept)

    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr(files.zipfile if call == "ZipFile" else files, call, fail)
    for resume in (False, True):
        with pytest.raises(type(error), match=r"checkpoint\.npz cannot be read"):
            soak.train(kept, resume=resume)
    monkeypatch.undo()
    assert contents(kept) == before and look(kept)[0] == RUN


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(kept, monkeypatch):
    stat = os.stat

    def stale(path, *arguments, **settings):
        if str(path).endswith("checkpoint.npz"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(OSError, match="Stale"):
        look(kept)
    with pytest.raises(OSError, match=r"checkpoint\.npz cannot be read \(Stale"):
        files.require_file(kept / "checkpoint.npz")


def test_a_checkpoint_of_another_version_is_a_run_even_if_this_one_could_not_read_its_arrays(kept, monkeypatch):
    arrays, facts = load(kept / "checkpoint.npz")
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    save(kept / "checkpoint.npz", arrays, facts)
    (kept / "checkpoint.previous.npz").unlink()
    monkeypatch.undo()
    names = contents(kept).keys()
    assert "holds a run" in begun(kept) and "update scratchvae" in begun(kept, resume=True)
    np.savez(kept / "checkpoint.npz", manifest=np.array('{"format": 2}'), strange=np.array(["text"]))
    assert "holds a run" in begun(kept) and "update scratchvae" in begun(kept, resume=True)
    assert contents(kept).keys() == names


def test_a_second_broken_checkpoint_does_not_take_the_place_of_the_first(tmp_path):
    ends = ("broken", "broken-2", "broken-3")
    for end in ends:
        for name in ("checkpoint", "checkpoint.previous"):
            (tmp_path / f"{name}.npz").write_bytes(f"{name} {end}".encode())
        with pytest.warns(UserWarning, match="is damaged, and the run begins anew"):
            soak.train(tmp_path, samples=10)
    for end in ends:
        for name in ("checkpoint", "checkpoint.previous"):
            assert (tmp_path / f"{name}.{end}.npz").read_bytes() == f"{name} {end}".encode()


def test_what_is_in_a_folder_is_told_in_one_place(kept, tmp_path):
    for nowhere in (tmp_path / "nowhere", tmp_path / "nowhere" / "deeper"):
        assert look(nowhere) == (NOTHING, [])
    (kept / "notes.txt").write_text("mine", encoding="utf-8")
    assert look(kept) == (RUN, [kept / "checkpoint.npz"])
    (kept / "checkpoint.npz").unlink()
    assert look(kept) == (RUN, [kept / "checkpoint.previous.npz"])
    (kept / "checkpoint.previous.npz").write_bytes(b"half")
    assert look(kept) == (FOREIGN, [kept / "notes.txt"])
    (kept / "notes.txt").unlink()
    assert look(kept) == (DAMAGED, [kept / "checkpoint.previous.npz"])
    (kept / "checkpoint.previous.npz").unlink()
    for name in (".DS_Store", "claim.json", "checkpoint.broken-2.npz", f"metrics.csv.{16 * 'a'}.tmp"):
        (kept / name).write_text("", encoding="utf-8")
    assert look(kept) == (NOTHING, [])
    (kept / "metrics.csv.mine.tmp").write_text("", encoding="utf-8")
    assert look(kept) == (FOREIGN, [kept / "metrics.csv.mine.tmp"])


def test_a_checkpoint_that_is_of_no_run_is_no_dead_end(tmp_path):
    save(tmp_path / "checkpoint.npz", {"a": np.zeros(3)}, {"x": 1})
    before = contents(tmp_path)
    assert "holds checkpoint.npz: choose another folder" in begun(tmp_path)
    assert "not of a training run" in begun(tmp_path, resume=True)
    assert contents(tmp_path) == before


THEIRS = {
    "config.json": ['{"precious": 1}', "precious: 1", '["options"]'],
    "metrics.csv": ["step,loss\n1,2\n", "precious"],
    "notes.txt": ["precious"],
    "claim.json": ['{"claim": "precious"}', "[" * 100_000],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in THEIRS.items() for text in texts])
def test_a_run_does_not_begin_over_the_files_of_others(name, text, tmp_path, capsys):
    (tmp_path / name).write_text(text, encoding="utf-8")
    error = begun(tmp_path)
    assert name in error and "choose another folder (" in error
    if name != "claim.json":
        assert f"holds {name}: choose another folder" in error_of(capsys, "train", *QUICK, "--out", tmp_path)
    assert contents(tmp_path) == {name: text.encode()}


def test_a_run_begins_over_what_a_run_has_left_that_ended_before_its_first_checkpoint(kept, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("config.json", "metrics.csv"):
        whole = (kept / name).read_bytes()
        for size in (0, 1, 5, 20, len(whole)):
            (folder / name).write_bytes(whole[:size])
            assert look(folder) == (NOTHING, [])
    (folder / "config.json").write_text(
        json.dumps(json.loads((kept / "config.json").read_text(encoding="utf-8"))), encoding="utf-8"
    )
    (folder / "claim.json").write_bytes(bytes(20))
    assert begun(folder, samples=10) == ""


def test_a_new_run_in_the_folder_of_one_that_is_at_work_is_told_so_at_once(trained, capsys):
    held = Claim(trained)
    held.acquire()
    try:
        assert f"{trained} is in use: process {os.getpid()} on " in error_of(capsys, "train", *QUICK, "--out", trained)
    finally:
        held.release()
    before = contents(trained)
    assert "holds a run: go on with it" in error_of(capsys, "train", *QUICK, "--out", trained)
    assert contents(trained) == before


@pytest.mark.parametrize("option", ["train --out", "train --resume", "train --data", "evaluate", "plot", "bench --out"])
def test_a_name_that_no_file_can_have_is_one_sentence(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = error_of(capsys, *option.split(), "a" * 300)
    assert re.search(r"'?a{300}(/config\.json)?'? cannot be (a folder|read) \(File name too long\)", error)
    with pytest.raises(SystemExit):
        main([*option.split(), ""])
    assert "''; expected a path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def denied(*arguments, **settings):
    raise PermissionError(errno.EACCES, "Permission denied", str(arguments[0]))


def test_a_run_without_a_name_says_how_to_name_one_where_none_can_be_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", denied)
    message = "runs/digits2 cannot be made (Permission denied): choose a folder that can be written to (--out)"
    assert message in error_of(capsys, "train", *QUICK)


@pytest.mark.drawn
def test_pictures_for_which_the_folder_is_closed_say_so_once(trained, monkeypatch, capsys):
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, path, **settings: denied(path))
    error = error_of(capsys, "plot", trained)
    assert f"could not be drawn (PermissionError: {trained}/figures cannot be written to, Permission denied)" in error
    monkeypatch.setattr(Path, "mkdir", denied)
    assert f"{trained}/figures cannot be made (Permission denied)" in error_of(capsys, "plot", trained)


def test_a_place_that_is_no_folder_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, what in {"file": "a file", "link": "a link that leads nowhere"}.items():
        message = f"{tmp_path / name} is {what}: choose a folder (--out, out)"
        assert begun(tmp_path / name) == message
        assert message in error_of(capsys, "train", *QUICK, "--out", tmp_path / name)
    for out in ("", 3, b"x"):
        assert f"out is {out!r}; expected the path of a folder" in begun(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("value", [float("nan"), np.float32(0.5), np.int64(3), "text", 1 + 2j, True])
@pytest.mark.parametrize("name", ["A" * 64, "Momentum"])
def test_an_own_optimiser_of_any_name_and_numbers_can_be_resumed(name, value, tmp_path):
    def settings(value):
        rule = type(name, (Adagrad,), {})(0.1)
        rule.setting = value
        rule.lr = np.float32(0.1)
        return soak.SETTINGS | {"optimizer": rule, "out": tmp_path}

    fit(VAE(6, 5, 2), X, samples=10, **settings(value))
    fit(VAE(6, 5, 2), X, samples=20, resume=True, **settings(value))
    with pytest.raises(CheckpointError, match=r"optimizer\.setting"):
        fit(VAE(6, 5, 2), X, samples=30, resume=True, **settings("another"))


def test_only_fingerprints_of_data_may_lack_their_shape_as_those_of_older_runs_do():
    digest = "a" * 64
    assert same_data(digest, f"{digest} uint8 (3, 4)") and same_data(digest, digest)
    assert not same_data(digest, f"{'b' * 64} uint8 (3, 4)")
    assert not same_data(f"{digest} uint8 (4, 3)", f"{digest} uint8 (3, 4)")
    assert not [*_differences({"data": {"train": digest}}, {"data": {"train": f"{digest} uint8 (3, 4)"}})]
    for theirs, ours in [(digest, f"{digest} x"), (0.5, 0.25), (float("nan"), 0.5), (0.5, float("nan"))]:
        assert [*_differences({"name": theirs}, {"name": ours})] == [("name", theirs, ours)]
    assert not [*_differences({"name": float("nan")}, {"name": float("nan")})]


@pytest.mark.parametrize("options", [{"a": Path("x")}, {"a": np.float32(1)}, {"a": {1, 2}}])
def test_options_that_json_does_not_hold_are_refused_in_one_line(options, tmp_path):
    for out in (None, tmp_path / "run"):
        with pytest.raises(ValueError, match=r"options cannot be kept in config\.json .*: give text, numbers"):
            fit(VAE(6, 5, 2), X, samples=20, batch_size=10, options=options, out=out)
    assert not (tmp_path / "run").exists()


def test_a_claim_of_another_kind_is_neither_believed_nor_an_error_of_another_kind(tmp_path):
    for text in ("[" * 100_000, '{"host": 3}', '{"host": ' + "[" * 100_000, "[]"):
        (tmp_path / "claim.json").write_text(text, encoding="utf-8")
        with open(tmp_path / "claim.json", "rb") as file:
            assert claim._holder(file) is None
    assert not any(claim._runs(process) for process in ([], {}, "x", 10**30))


# The claim


def test_a_folder_is_written_to_by_one_run_at_a_time_and_the_second_is_told_by_whom(tmp_path):
    with RunFolder(tmp_path, VAE(6, 5, 2), optimizer(), {}).open(resume=False):
        claim = json.loads((tmp_path / "claim.json").read_text(encoding="utf-8"))
        assert (claim["host"], claim["process"]) == (socket.gethostname(), os.getpid())
        for resume in (False, True):
            with pytest.raises(ValueError, match=f"is in use: process {os.getpid()} on .* has written to it since 2"):
                soak.train(tmp_path, resume=resume)
    assert not (tmp_path / "claim.json").exists()
    assert load(tmp_path / "checkpoint.npz")[1]["progress"]["step"] == 0


def optimizer():
    rule = Adagrad(0.1)
    rule.start(VAE(6, 5, 2).params)
    return rule


RACE = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
import soak
print("ready", flush=True)
sys.stdin.readline()
try:
    soak.train(sys.argv[1], samples=4000)
    print("trained", flush=True)
except ValueError as error:
    print(error, flush=True)
"""


def test_of_four_runs_that_start_together_in_one_folder_one_trains(tmp_path):
    code = RACE.format(path=[str(Path(soak.__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    told = sorted(run.communicate()[0] for run in runs)
    assert told.count("trained\n") == 1
    assert all("is in use" in text or "holds a run" in text for text in told if text != "trained\n")


def test_the_claim_of_a_process_that_died_is_taken_over_at_once(tmp_path):
    pid = os.fork()
    if pid == 0:
        Claim(tmp_path).acquire()
        os._exit(0)
    os.waitpid(pid, 0)
    assert json.loads((tmp_path / "claim.json").read_text(encoding="utf-8"))["process"] == pid
    soak.train(tmp_path)


@pytest.mark.parametrize(
    ("age", "take_over", "message"),
    [
        (60, False, r"last heard of 60 s ago; wait for it"),
        (60, True, r"last heard of 60 s ago; wait for it"),
        (700, False, r"last heard of 12 minutes ago: if it is dead, take the folder over \(--take-over"),
        (700, True, None),
    ],
)
def test_the_claim_of_another_host_is_taken_over_when_it_is_old_and_one_says_so(tmp_path, age, take_over, message):
    claim = tmp_path / "claim.json"
    holder = {"host": "elsewhere", "process": 7, "since": "2026-01-01T00:00:00+00:00", "word": "x"}
    claim.write_text(json.dumps(holder), encoding="utf-8")
    os.utime(claim, (time.time() - age,) * 2)
    settings = soak.SETTINGS | {"samples": 40, "out": tmp_path, "take_over": take_over}
    if message is None:
        fit(VAE(6, 5, 2), X, **settings)
        return
    with pytest.raises(ValueError, match=rf"is in use: process 7 on elsewhere has written to it since 2026.*{message}"):
        fit(VAE(6, 5, 2), X, **settings)
    assert json.loads(claim.read_text(encoding="utf-8")) == holder


def test_a_run_whose_folder_was_taken_over_stops_before_it_writes(tmp_path):
    folder = RunFolder(tmp_path, VAE(6, 5, 2), optimizer(), {})
    with folder.open(resume=False) as now:
        before = (tmp_path / "checkpoint.npz").read_bytes()
        (tmp_path / "claim.json").write_text(
            json.dumps({"host": "elsewhere", "process": 7, "since": "now"}), encoding="utf-8"
        )
        now.step = 5
        with pytest.raises(ValueError, match="is no longer this run's: process 7 on elsewhere has taken it over"):
            folder.keep(now)
        (tmp_path / "claim.json").unlink()
        with pytest.raises(ValueError, match=r"is no longer this run's: its claim\.json was removed or changed"):
            folder.keep(now)
        assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_a_forked_process_does_not_give_back_the_claim_of_its_parent(tmp_path):
    claim = Claim(tmp_path)
    claim.acquire()
    pid = os.fork()
    if pid == 0:
        claim.release()
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ValueError, match="is in use"):
        Claim(tmp_path).acquire()
    claim.release()
    again = Claim(tmp_path)
    again.acquire()
    again.release()


def test_no_two_processes_get_the_same_unnamed_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(unused("runs/digits2")) for _ in range(3)] == ["runs/digits2", "runs/digits2-2", "runs/digits2-3"]


def test_a_run_that_cannot_be_trained_leaves_no_folder_that_nobody_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "batch_size is 0" in error_of(capsys, "train", *QUICK, "--batch-size", 0)
    assert list((tmp_path / "runs").glob("*")) == []


# What a run folder says


def test_images_that_are_not_those_of_the_training_are_named_and_there_is_a_way_out(tmp_path, capsys):
    generator = np.random.default_rng(0)
    parts = {part: generator.integers(0, 256, (30, 3, 3), np.uint8) for part in ("train", "valid", "test")}
    np.savez(tmp_path / "x.npz", **parts)
    run = tmp_path / "run"
    small = (*QUICK, "--batch-size", "10", "--quiet")
    assert main(["train", "--data", str(tmp_path / "x.npz"), *small, "--out", str(run)]) == 0
    capsys.readouterr()
    for part, use in {"train": "train", "valid": "validate", "test": "test"}.items():
        changed = parts[part].copy()
        changed[-1, 2, 2] ^= 1
        np.savez(tmp_path / "x.npz", **parts | {part: changed})
        for command in ("evaluate", "plot"):
            message = f"the images of {tmp_path / 'x.npz'} to {use} with are not those that {run} was trained with: "
            error = error_of(capsys, command, run)
            assert message in error and "or take these all the same (--changed-data)" in error
        assert main(["evaluate", str(run), "--changed-data"]) == 0
        capsys.readouterr()
    np.savez(tmp_path / "x.npz", **parts)
    assert main(["evaluate", str(run)]) == 0


def test_a_binarization_that_was_edited_in_config_json_is_not_believed(trained, capsys):
    path = trained / "config.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('"binarization": "grey"', '"binarization": "fixed"', 1), encoding="utf-8")
    try:
        assert "config.json says binarization 'fixed', and the checkpoint 'grey'" in error_of(
            capsys, "evaluate", trained
        )
    finally:
        path.write_text(before, encoding="utf-8")


ODD = [None, True, -1, 1.5, "x", "", [], [1.5], ["a"], {}, float("nan"), float("inf")]


def test_every_option_of_another_kind_in_config_json_is_named(trained):
    path = trained / "config.json"
    before = path.read_text(encoding="utf-8")
    whole = json.loads(before)
    try:
        for key in whole["options"]:
            refused = 0
            for value in ODD:
                path.write_text(json.dumps(whole | {"options": whole["options"] | {key: value}}), encoding="utf-8")
                try:
                    run_options(trained)
                except ValueError as error:
                    assert str(error).startswith(f"{path} does not hold the options of a run") and key in str(error)
                    refused += 1
            assert refused >= 7, key
        path.write_text(json.dumps(whole | {"options": whole["options"] | {"colour": 1}}), encoding="utf-8")
        with pytest.raises(ValueError, match="this version knows no colour: update scratchvae"):
            run_options(trained)
    finally:
        path.write_text(before, encoding="utf-8")


CRAFTED = {
    "facts of another kind": lambda facts: [1],
    "no run": lambda facts: {"progress": facts["progress"]},
    "a run of another kind": lambda facts: facts | {"run": 3},
    "a model of another kind": lambda facts: facts | {"run": facts["run"] | {"model": [1]}},
    "an unknown setting of the model": lambda facts: with_model(facts, colour=1),
    "a width of another kind": lambda facts: with_model(facts, n_hidden="many"),
    "an estimator of another kind": lambda facts: with_model(facts, estimator=3),
    "a progress of another kind": lambda facts: facts | {"progress": 7},
    "steps of another kind": lambda facts: facts | {"progress": facts["progress"] | {"step": "2"}},
    "steps below none": lambda facts: facts | {"progress": facts["progress"] | {"step": -2}},
    "a likelihood of another kind": lambda facts: with_model(facts, likelihood=["gaussian"]),
    "a posterior of another kind": lambda facts: with_model(facts, posterior={}),
    "a number that no float holds": lambda facts: with_model(facts, init=10**400),
    "a total that no float holds": lambda facts: facts | {"progress": facts["progress"] | {"total": 10**400}},
    "seconds that no float holds": lambda facts: facts | {"progress": facts["progress"] | {"seconds": 10**400}},
    "steps that no history holds": lambda facts: facts | {"progress": facts["progress"] | {"step": 10**40}},
    "an unknown word on the progress": lambda facts: facts | {"progress": facts["progress"] | {"mood": 1}},
}


def with_model(facts, **settings):
    run = facts["run"]
    return facts | {"run": run | {"model": run["model"] | settings}}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_checkpoint_that_was_made_up_is_refused_by_a_typed_error(trained, tmp_path, what):
    arrays, facts = load(trained / "checkpoint.npz")
    save(tmp_path / "checkpoint.npz", arrays, CRAFTED[what](facts))
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["params/encoder.mu.W", "optimizer/m"])
def test_values_that_are_not_finite_are_refused_by_name(trained, tmp_path, name):
    arrays, facts = load(trained / "checkpoint.npz")
    arrays[name].flat[-1] = np.nan
    save(tmp_path / "checkpoint.npz", arrays, facts)
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=f"has values for {name} that are not finite"):
        if name.startswith("params"):
            load_model(tmp_path)
        else:
            raise CheckpointError(resumed(tmp_path))


def resumed(folder):
    """The error of going on with the run in this folder."""
    error = io.StringIO()
    sys.stderr, before = error, sys.stderr
    try:
        assert main(["train", "--resume", str(folder), "--samples", "1000", "--quiet"]) == 2
    finally:
        sys.stderr = before
    return error.getvalue()


def test_train_evaluate_plot_resume_and_load_model_read_a_folder_whose_name_ends_like_a_checkpoint_as_a_run_folder(
    tmp_path, capsys
):
    run = tmp_path / "a.npz"
    assert main(["train", *QUICK, "--out", str(run), "--quiet"]) == 0
    for words in (["evaluate", run], ["plot", run], ["train", "--resume", run, "--samples", "700", "--quiet"]):
        assert main([str(word) for word in words]) == 0
    step = load(run / "checkpoint.npz")[1]["progress"]["step"]
    assert step == 7 and not (run / "a.npz").exists()
    assert list(tmp_path.glob("a*")) == [run]  # nothing beside it
    by_folder = load_model(run).params.value
    assert_array_equal(by_folder, load_model(run / "checkpoint.npz").params.value)
    assert "holds a run: go on with it" in error_of(capsys, "train", *QUICK, "--out", run)


def test_an_optimisers_state_that_overflows_ends_the_run_with_its_name(tmp_path):
    """Adagrad's h of float32: free-mean Gaussian data of size 1e9 have squared gradients beyond it."""
    model = VAE(6, 5, 2, "gaussian", mean="free")
    with pytest.raises(FloatingPointError, match=r"h, the optimiser's state, is not finite after step .*float64"):
        fit(model, 1e9 * X, samples=2000, batch_size=10, optimizer=Adagrad(1e-9), log_every=10)


# Output


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp850", "cp932", "gbk", "koi8-r", "cp1252"])
def test_what_an_encoding_does_not_have_is_a_question_mark(encoding):
    raw = io.BytesIO()
    out = Output(io.TextIOWrapper(raw, encoding=encoding))
    print("θ ~ q(θ), σ² ≤ ‖x‖, ê, done", file=out)
    shown = raw.getvalue().decode(encoding)
    assert shown.endswith("done\n") and shown.startswith(("? ~ q(?)", "θ ~ q(θ)"))


@pytest.mark.drawn
def test_training_goes_on_when_the_reader_of_its_output_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", Closed())
    assert main(["train", *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "figures" / "reconstructions.png").exists()


def test_a_stream_whose_reader_has_gone_closes_without_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    output = Output(stream)
    output.write("a line\n")
    assert output.error.errno == errno.EPIPE
    assert os.path.samestat(os.fstat(writer), os.stat(os.devnull))
    stream.close()  # it writes what it holds back, as at the end of the interpreter


class Full(io.StringIO):
    """A file on a full disk, or a terminal that takes nothing at this moment."""

    number = errno.ENOSPC

    def write(self, text):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


def test_a_terminal_that_was_full_for_a_moment_gets_the_next_line_and_the_loss_is_known():
    stream = Full()
    stream.number = errno.EAGAIN
    output = Output(stream)
    output.write("lost\n")
    stream.number = 0
    output.write("shown\n")
    assert stream.getvalue() == "shown\n" and output.error.errno == errno.EAGAIN


def test_a_full_disk_does_not_cost_the_caller_his_stream_and_ends_no_program_with_a_traceback(monkeypatch):
    stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(stream)
    output.write("a line\n")
    assert output.error.errno == errno.ENOSPC
    assert os.path.samestat(os.fstat(stream.fileno()), os.stat("/dev/full"))
    monkeypatch.setattr(cli, "main", lambda: 2)
    monkeypatch.setattr(cli, "ignore_signals", lambda: None)
    monkeypatch.setattr(cli.shared, "is_program", False)
    with pytest.raises(SystemExit) as stop:
        cli.program()
    assert stop.value.code == 2 and os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    stream.close()


def test_the_program_ignores_signals_in_the_end_and_whoever_calls_main_keeps_his_own(monkeypatch):
    told = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: told.append((number, handler)))
    monkeypatch.setattr(cli.shared, "is_program", False)
    monkeypatch.setattr(cli, "main", lambda: 3)
    cli.ignore_signals()
    assert told == []
    with pytest.raises(SystemExit) as stop:
        cli.program()
    assert stop.value.code == 3
    assert told == [(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def is_free(lock):
    """Whether another thread can take a lock."""
    said = []

    def look():
        said.append(lock.acquire(blocking=False))
        if said[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return said[0]


@pytest.mark.parametrize("progress", [None, True])
def test_a_fit_never_waits_for_the_lock_of_tqdm_which_a_killed_process_may_keep(progress, capsys):
    settings = {"samples": 20, "batch_size": 10, "progress": progress}
    thread = threading.Thread(target=fit, args=(VAE(6, 5, 2), X), kwargs=settings)
    with tqdm.get_lock():
        thread.start()
        thread.join(10)
        waits = thread.is_alive()
    thread.join()
    assert not waits


def test_a_bar_whose_reader_has_gone_neither_ends_the_run_nor_keeps_its_lock(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Closed())
    assert len(fit(VAE(6, 5, 2), X, samples=20, batch_size=10, progress=True)) == 1
    assert is_free(Bar.get_lock())


def test_an_error_while_a_bar_is_drawn_gives_its_lock_back(monkeypatch, capsys):
    bar = progress_bar(10, 0, True)
    monkeypatch.setattr(Bar, "display", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bar.refresh()
    monkeypatch.undo()
    assert is_free(Bar.get_lock())
    bar.close()


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_bar_with_a_delay_is_not_seen_before_it_and_leaves_nothing_behind(delay, capsys):
    with progress_bar(3, 0, True, " pictures", delay) as bar:
        for _ in range(3):
            bar.update(1)
    assert ("3/3" in capsys.readouterr().err) == (delay == 0)


def test_a_forked_process_has_a_lock_of_its_own_for_its_bars():
    held, done = threading.Event(), threading.Event()

    def hold():
        with Bar.get_lock():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if Bar.get_lock().acquire(blocking=False) else 1)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    assert status == 0


def test_output_that_a_full_disk_does_not_take_is_an_error_after_the_work_is_done(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["evaluate", str(trained)]) == 2
    assert capsys.readouterr().err == ("scratchvae: error: the output could not be written (No space left on device)\n")


def test_help_that_cannot_be_written_is_an_error_as_all_output_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    for words in (["--help"], ["train", "--help"], ["--version"]):
        assert main(words) == 2
        assert (
            capsys.readouterr().err == "scratchvae: error: the output could not be written (No space left on device)\n"
        )


def test_without_a_console_training_is_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["train", *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert main(["train", *QUICK, "--out", str(tmp_path / "run")]) == 2
    assert len(fit(FullVB(6, 5, 2), X, samples=20, batch_size=10, progress=True)) == 1


@pytest.mark.drawn
def test_pictures_that_cannot_be_drawn_are_named_and_the_run_is_whole(tmp_path, monkeypatch, capsys):
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no room for a font")))
    assert main(["train", *QUICK, "--out", str(tmp_path / "a run"), "--quiet"]) == 0
    error = capsys.readouterr().err
    assert "scratchvae: warning: learning_curve, reconstructions, " in error
    assert "(RuntimeError: no room for a font); the run is whole, and they can be drawn later: " in error
    assert f"scratchvae plot '{tmp_path}/a run'" in error
    assert "could not be drawn" in error_of(capsys, "plot", tmp_path / "a run")
    monkeypatch.undo()
    assert main(["plot", str(tmp_path / "a run")]) == 0
    assert not list((tmp_path / "a run" / "figures").glob("*.tmp"))


@pytest.mark.drawn
def test_a_picture_is_the_same_whatever_a_user_has_set_for_their_own(tmp_path, digits):
    import matplotlib

    from scratchvae import plots

    drawn = []
    model = VAE(64, 5, 3, estimator="autoencoder")
    for settings in ({}, {"text.usetex": True, "savefig.dpi": 0, "axes.titlecolor": "red", "savefig.format": "pdf"}):
        with matplotlib.rc_context(settings):
            paths = plots.draw_run(tmp_path, model, digits, [])
            assert matplotlib.rcParams["text.usetex"] == ("text.usetex" in settings)  # theirs stay theirs
        drawn.append({path.name: path.read_bytes() for path in paths})
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2


def test_a_backend_that_matplotlib_does_not_have_stops_no_picture():
    code = "import os, scratchvae.plots; print(os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": "nosuch", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "nosuch\n"


def test_a_matplotlib_that_cannot_be_loaded_costs_the_pictures_and_not_the_run(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scratchvae.plots", None)
    assert main(["train", "--resume", str(trained), "--quiet"]) == 0
    assert "no pictures: Matplotlib cannot be loaded (ModuleNotFoundError: " in capsys.readouterr().err
    load_model(trained)


def test_a_path_with_a_space_is_quoted_in_the_command_that_goes_on(tmp_path, monkeypatch, capsys):
    def stopped(*arguments, out, **settings):
        fit(VAE(6, 5, 2), X, samples=20, batch_size=10, out=out)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", stopped)
    assert main(["train", *QUICK, "--out", str(tmp_path / "a run"), "--quiet"]) == 130
    assert f"scratchvae train --resume '{tmp_path}/a run'\n" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "typed"), [("-dash", "./-dash"), ("a b", "'a b'"), ("-a b", "'./-a b'"), ("a", "a")])
def test_a_path_in_a_command_to_type_is_no_option(path, typed):
    assert quoted(path) == typed


def test_two_fits_at_once_do_not_share_an_optimiser(monkeypatch):
    rule = Adagrad(0.1)
    inner = []
    noise = VAE.noise

    def nested(self, *arguments):
        if not inner:
            inner.append(1)
            with pytest.raises(ValueError, match="this optimiser is at work in another fit: give each its own"):
                fit(VAE(6, 5, 2), X, samples=20, batch_size=10, optimizer=rule)
        return noise(self, *arguments)

    monkeypatch.setattr(VAE, "noise", nested)
    history = fit(VAE(6, 5, 2), X, samples=20, batch_size=10, optimizer=rule)
    monkeypatch.undo()
    again = fit(VAE(6, 5, 2), X, samples=20, batch_size=10, optimizer=rule)  # afterwards it is free
    assert_array_equal(history["train_bound"], again["train_bound"])


@pytest.mark.parametrize("script", ["examples/full_vb_variance.py", "examples/em.py", "benchmarks/run.py"])
def test_the_help_of_scripts_can_be_read_on_any_terminal(script):
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, str(root / script), "--help"], capture_output=True, env=environment)
    assert done.returncode == 0 and done.stdout.startswith(b"usage: ")


@pytest.mark.parametrize("train", [fit, fit_mcem])
def test_no_algorithm_takes_over_the_old_claim_of_another_host_unless_it_is_told_to(train, tmp_path):
    held = tmp_path / "claim.json"
    held.write_text(json.dumps({"host": "elsewhere", "process": 7, "since": "2026", "word": "x"}), encoding="utf-8")
    os.utime(held, (time.time() - 700,) * 2)
    settings = {"samples": 32, "batch_size": 10, "out": tmp_path}
    with pytest.raises(ValueError, match=r"take the folder over \(--take-over, take_over=True\)"):
        train(VAE(6, 5, 2), X, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few steps tune no chain
        train(VAE(6, 5, 2), X, take_over=True, **settings)


@pytest.mark.parametrize(
    ("is_row", "rows", "waited", "took", "due"),
    [
        (True, 1000, 0.0, 9.0, True),  # the first thousand rows have a checkpoint each
        (True, 1001, 0.0, 9.0, False),
        (True, 1001, 179.9, 9.0, False),  # 5 % of 180 s are 9 s
        (True, 1001, 180.1, 9.0, True),
        (True, 1001, 0.0, 0.0, True),
        (False, 3, 29.9, 0.0, False),
        (False, 3, 30.1, 0.0, True),
        (False, 3, 30.1, 1.6, False),
        (False, 3, 32.1, 1.6, True),
    ],
)
def test_a_checkpoint_is_due_as_often_as_it_takes_little_of_the_time(is_row, rows, waited, took, due, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 50.0)
    folder = RunFolder(None, VAE(6, 5, 2), optimizer(), {})
    assert (folder.kept_at, folder.took) == (50.0, 0.0)
    folder.took = took
    monkeypatch.setattr(time, "perf_counter", lambda: 50.0 + waited)
    assert folder.wanted(rows, is_row) is due


def test_a_claim_is_renewed_once_a_minute(tmp_path, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    folder = RunFolder(tmp_path, VAE(6, 5, 2), optimizer(), {})
    beats = []
    monkeypatch.setattr(folder.claim, "beat", lambda: beats.append(now[0]))
    for now[0] in (50.0, 110.0, 110.5, 111.0, 170.5, 170.6):
        folder.beat()
    assert beats == [110.5, 170.6]
