"""The threads of BLAS: chosen by the size of the products, recorded, kept on resume, and really set in training."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standin
import threadpoolctl
from threadpoolctl import threadpool_limits

from scratchvae import bench
from scratchvae.backend import ALL_THREADS_FROM, blas_threads
from scratchvae.cli import main
from scratchvae.training import loop
from scratchvae.training.checkpoint import load, save

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--samples", "500", "--hidden", "20", "--latent", "2"]  # its largest product: 100 x 64 x 20
LARGE = ["--samples", "500", "--hidden", "1000", "--latent", "2", "--batch-size", "500"]  # 500 x 64 x 1000
MANY_DRAWS = ["--samples", "500", "--hidden", "200", "--latent", "2", "--n-samples", "25"]  # 25 x 100 x 64 x 200
OF_THE_PROCESS = 3


def now():
    """The numbers of threads that the BLAS libraries have at this moment."""
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


def have_cores(monkeypatch, count):
    """Let the command line find so many cores."""
    for module in ("shared", "train"):
        monkeypatch.setattr(f"scratchvae.cli.{module}.cores", lambda: count)


@pytest.fixture
def in_training(monkeypatch):
    """A process with three BLAS threads on a machine with four cores; the numbers of threads that steps have seen."""
    have_cores(monkeypatch, 4)
    seen = set()
    stream = loop.stream

    def noting(*words):
        seen.update(now())
        return stream(*words)

    monkeypatch.setattr(loop, "stream", noting)
    with threadpool_limits(OF_THE_PROCESS, "blas"):
        yield seen
        assert now() == {OF_THE_PROCESS}, "the training has left its number of threads to the process"


def train(*arguments):
    return main(["train", "--quiet", *map(str, arguments)])


def recorded(run):
    return json.loads((run / "config.json").read_text(encoding="utf-8"))["options"]["threads"]


def refusal(capsys, *arguments):
    """The one line of a command that ends with exit code 2."""
    capsys.readouterr()
    assert train(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_one_thread_below_the_threshold_and_from_there_on_all_that_blas_has():
    for available in (2, 3):
        with threadpool_limits(available, "blas"):
            assert blas_threads(0) == blas_threads(ALL_THREADS_FROM - 1) == 1
            assert blas_threads(ALL_THREADS_FROM) == blas_threads(math.inf) == available
    with threadpool_limits(1, "blas"):
        assert blas_threads(math.inf) == 1
    assert 100 * 64 * 200 < ALL_THREADS_FROM <= 100 * 784 * 500  # the digits on one thread, the paper's MNIST on all


def test_where_no_blas_is_found_the_number_is_unknown(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [{"user_api": "openmp", "num_threads": 2}])
    assert blas_threads(1) is None
    assert "threadpoolctl finds none" in refusal(capsys, *SMALL, "--threads", 1, "--out", tmp_path / "run")
    assert train(*SMALL, "--out", tmp_path / "run") == 0
    assert recorded(tmp_path / "run") is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SMALL, 1),
        (LARGE, OF_THE_PROCESS),
        (MANY_DRAWS, OF_THE_PROCESS),
        ([*SMALL, "--threads", 2], 2),
        ([*LARGE, "--threads", 2], 2),
        ([*LARGE, "--n-train", 100], 1),  # the minibatch is cut to the data
    ],
    ids=["small", "large", "many draws", "small, asked for", "large, asked for", "little data"],
)
def test_the_number_is_set_in_training_and_recorded(options, expected, in_training, tmp_path):
    assert train(*options, "--out", tmp_path / "run") == 0
    assert in_training == {expected}
    assert recorded(tmp_path / "run") == expected


def test_a_resumed_run_keeps_its_number_and_is_not_given_another(in_training, tmp_path, capsys):
    train(*SMALL, "--threads", 2, "--out", tmp_path / "run")
    in_training.clear()
    assert train("--resume", tmp_path / "run", "--samples", 1000) == 0
    assert train("--resume", tmp_path / "run", "--samples", 1500, "--threads", 2) == 0
    assert in_training == {2} and recorded(tmp_path / "run") == 2
    for other in (1, 3):
        error = refusal(capsys, "--resume", tmp_path / "run", "--samples", 2000, "--threads", other)
        assert f"was trained with threads 2, not {other}" in error


def test_a_run_of_before_has_no_number_and_goes_on_with_that_of_the_process(in_training, tmp_path, capsys):
    train(*SMALL, "--out", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["options"]["threads"]
    path.write_text(json.dumps(config), encoding="utf-8")
    arrays, facts = load(path.parent / "checkpoint.npz")
    del facts["options"]
    save(path.parent / "checkpoint.npz", arrays, facts)
    assert "was trained with threads its default, not 1" in refusal(capsys, "--resume", path.parent, "--threads", 1)
    for samples in (1000, 1500):
        in_training.clear()
        assert train("--resume", path.parent, "--samples", samples) == 0
        assert in_training == {OF_THE_PROCESS} and recorded(path.parent) is None


def test_a_run_from_a_machine_with_more_cores_goes_on_with_its_number_and_says_so(
    in_training, tmp_path, capsys, monkeypatch
):
    train(*SMALL, "--threads", 4, "--out", tmp_path / "run")
    have_cores(monkeypatch, 2)
    in_training.clear()
    assert train("--resume", tmp_path / "run", "--samples", 1000) == 0
    assert in_training == {4}
    error = capsys.readouterr().err
    assert "with 4 BLAS threads and goes on with them" in error and "there are 2 cores for this process" in error


def test_on_the_device_nothing_is_chosen_recorded_or_set(in_training, tmp_path, capsys, monkeypatch):
    train(*SMALL, "--out", tmp_path / "host")
    standin.install(monkeypatch)
    in_training.clear()
    assert train(*SMALL, "--backend", "cupy", "--out", tmp_path / "device") == 0
    assert train("--resume", tmp_path / "host", "--samples", 1000, "--backend", "cupy") == 0
    assert in_training == {OF_THE_PROCESS}
    assert recorded(tmp_path / "device") is None
    assert recorded(tmp_path / "host") == 1  # for when it comes back
    error = refusal(capsys, *SMALL, "--backend", "cupy", "--threads", 1, "--out", tmp_path / "new")
    assert "--threads is for BLAS" in error and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("threads", "message"),
    [
        ("0", "--threads is 0; expected a whole number ≥ 1"),
        ("-2", "--threads is -2; expected a whole number ≥ 1"),
        ("5", "--threads is 5; there are 4 cores for this process"),
    ],
)
def test_a_number_that_cannot_be_had_leaves_one_line_and_no_folder(threads, message, in_training, tmp_path, capsys):
    assert message in refusal(capsys, *SMALL, "--threads", threads, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_log_says_how_many_threads_there_are(in_training, tmp_path, capsys):
    main(["train", *SMALL, "--out", str(tmp_path / "one")])
    assert "float32 on numpy with 1 BLAS thread\n" in capsys.readouterr().out
    main(["train", *SMALL, "--threads", "2", "--out", str(tmp_path / "two")])
    assert "float32 on numpy with 2 BLAS threads\n" in capsys.readouterr().out


# benchmarks/threads.py


@pytest.fixture
def threads(monkeypatch):
    """benchmarks/threads.py as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import threads

    return threads


def test_the_interval_of_a_median_is_that_of_the_order_statistics(threads):
    shuffled = np.random.default_rng(0).permutation
    # the ranks of the sign test at 95 %, as the tables of statistics books have them
    for n, low, high in [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (30, 10, 21)]:
        assert threads.median_interval(shuffled(np.arange(1, n + 1))) == ((n + 1) / 2, low, high)
    with pytest.raises(ValueError, match="5 values have no 95 % interval"):
        threads.median_interval(np.arange(5))


def test_the_ratio_is_that_of_all_threads_to_one_and_the_size_that_of_the_largest_product(threads):
    work = threads.workload("784-500-20", 100)
    assert work == bench.Workload() and threads.largest_product(work) == 100 * 784 * 500
    row = threads.summary(work, np.array([[2.0, 1.0]] * 4 + [[4.0, 1.0]] * 4))
    assert (row["one_ms"], row["all_ms"], row["ratio"], row["interval"]) == (3, 1, 0.375, [0.25, 0.5])


@pytest.mark.parametrize(("options", "file"), [([], "threads.json"), (["--busy"], "threads-busy.json")])
def test_one_thread_and_all_are_measured_over_the_sizes(options, file, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "threads.py"), "--sizes", "64-20-2,64-50-2", "--batch-size", "20"]
    command += ["--rounds", "6", "--threads", "2", "--out", str(tmp_path), *options]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads((tmp_path / file).read_text(encoding="utf-8"))
    assert result["busy"] == bool(options) and result["threads"] == 2 and "cpu" in result["machine"]
    assert [(row["size"], row["largest_product"]) for row in result["rows"]] == [
        ("64-20-2", 20 * 64 * 20),
        ("64-50-2", 20 * 64 * 50),
    ]
    for row in result["rows"]:
        assert row["one_ms"] > 0 and 0 < row["interval"][0] <= row["ratio"] <= row["interval"][1]
        assert f"{row['ratio']:.2f}" in shown


def test_every_core_is_kept_busy_while_it_is_measured_and_no_longer(threads):
    with threads.busy_cores() as processes:
        assert len(processes) == os.cpu_count() and all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)


def test_too_few_rounds_are_refused_before_anything_is_measured():
    command = [sys.executable, str(BENCHMARKS / "threads.py"), "--rounds", "5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--rounds is 5; expected 6 or more" in done.stderr
