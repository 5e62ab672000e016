"""bench/ and benchmarks/: what is measured is what it says, on both backends, and nothing is left to chance."""

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import standin
import threadpoolctl
from conftest import shared
from numpy.testing import assert_allclose

from scratchvae import VAE, Adagrad, FullVB, arguments, backend, bench, plots
from scratchvae.bench import Workload, profiling, server
from scratchvae.bench.measuring import plain
from scratchvae.cli import main
from scratchvae.training.loop import STEP, stream

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = [
    "bench",
    *["--batch-size", "5,10", "--hidden", "8,16,32", "--latent", "2", "--visible", "9", "--repeats", "2"],
]


@pytest.fixture(autouse=True)
def a_small_peak(monkeypatch):
    """No test needs the machine's true peak, or as many steps as a measurement has."""
    monkeypatch.setattr(bench.peaks, "LARGE", {"numpy": 200, "cupy": 200})
    monkeypatch.setattr(bench.profiling, "IN_MEMORY", 3 << 12)
    monkeypatch.setattr(bench.measuring, "ROUND", 0.004)


@pytest.fixture
def peers(monkeypatch):
    """benchmarks/peers.py as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import peers

    return peers


@pytest.fixture
def run(monkeypatch):
    """benchmarks/run.py as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import run

    return run


def test_flops_are_those_of_the_matrix_products_of_a_step(monkeypatch):
    work = Workload(n_visible=30, n_hidden=7, n_latent=3, batch_size=5)
    counted, real = [], np.matmul

    def counting(a, b, out):
        counted.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
        return real(a, b, out=out)

    monkeypatch.setattr(np, "matmul", counting)
    bench.matrix_products(work)(0)
    assert len(counted) == 14 and sum(counted) == work.flops()
    assert Workload().flops() == 2 * 100 * (5 * 784 * 500 + 9 * 500 * 20)


def test_a_step_that_is_timed_is_the_step_that_trains():
    work = Workload(n_visible=30, n_hidden=7, n_latent=3, batch_size=5)
    step, x = bench.training_step(work, 1000), bench.minibatches(work)
    model, optimizer = VAE(30, 7, 3), Adagrad(0.01)
    optimizer.start(model.params)
    for t in range(4):
        bound = model.bound(x[t], model.noise(stream(0, STEP, t), 5), 1000, gradient=True)
        model.add_log_prior_gradient()
        optimizer.ascend(model.params, t + 1)
        assert step(t, x[t]) == bound
    assert x.dtype == np.uint8 and 0.15 < (x > 0).mean() < 0.25


def sizes(*values):
    return dict(zip(("batch_size", "n_hidden", "n_latent", "n_visible"), values, strict=True))


def test_the_sweep_is_the_papers_sizes_and_one_size_at_a_time():
    works = bench.sweep(["numpy"], ["float32", "float64"], sizes([20, 100], [100, 500], [2, 20], [196, 784]))
    assert len(works) == len(set(works)) == 10
    for work in works:
        theirs = (work.batch_size, work.n_hidden, work.n_latent, work.n_visible)
        assert sum(a != b for a, b in zip(theirs, (100, 500, 20, 784), strict=True)) <= 1
    assert bench.sweep(["numpy"], ["float32"], sizes([10], [5], [2], [16])) == [
        Workload("numpy", "float32", 16, 5, 2, 10)
    ]


def test_other_models_stand_beside_the_first_at_the_sizes_it_starts_from():
    works = bench.sweep(["numpy"], ["float32"], sizes([20, 100], [500], [20], [784]), ["vae", "full-vb"])
    assert [(work.model, work.batch_size) for work in works] == [("vae", 20), ("vae", 100), ("full-vb", 100)]


@pytest.mark.parametrize("model", bench.MODELS)
def test_a_step_of_every_model_moves_it_and_counts_its_products(model):
    work = Workload(n_visible=30, n_hidden=7, n_latent=3, batch_size=5, model=model)
    x = bench.minibatches(work, 1)[0]
    assert np.isfinite(bench.training_step(work)(0, x))
    variances = 3 * (3 * 7 + 7 * 30) if model == "full-vb-local" else 0
    assert work.flops() == 2 * 5 * (2 * 30 * 7 + 3 * (7 * 3 + 7 * 3 + 3 * 7 + 7 * 30) + variances)


def test_a_row_has_the_lower_quartile_median_and_upper_quartile_over_its_rounds():
    rounds = [{"ms": ms, "products_ms": 1.0} for ms in (2.0, 4.0, 3.0, 5.0, 100.0)]
    row = bench.summary(Workload(), 7, rounds)
    assert [row[key] for key in ("ms", "ms_median", "ms_upper_quartile", "over_products")] == [3, 4, 5, 3]
    assert row["batch_size"] == 100 and row["steps_in_a_round"] == 7
    assert_allclose(row["gflops"], Workload().flops() / 3e6, rtol=5e-4)  # kept to four figures


def test_the_models_are_what_their_names_say():
    made = {name: make(6, 5, 2) for name, make in bench.MODELS.items()}
    noise = {name: model.config["theta_noise"] for name, model in made.items() if name != "vae"}
    assert type(made["vae"]) is VAE and all(type(made[name]) is FullVB for name in noise)
    assert noise == {"full-vb": "minibatch", "full-vb-local": "local"}


def test_the_straight_line_and_the_crossover_are_read_from_the_rows():
    def rows(backend, cost):
        return [{**vars(Workload(backend, batch_size=m)), "ms": cost(m)} for m in (20, 50, 100, 200, 500, 1000, 2000)]

    numpy = rows("numpy", lambda m: 1.5 + 0.03 * m)
    assert bench.linearity(numpy)["M"] == "1.50 + 0.0300 M ms, within 0% from 20 to 2000"
    assert "within 0%" not in bench.linearity(rows("numpy", lambda m: m**1.2))["M"]  # control
    assert set(bench.linearity(numpy[:3])) == {"M"} and bench.linearity(numpy[:2]) == {}  # two are on any line
    assert bench.crossover(numpy) == []
    assert bench.crossover(numpy + rows("cupy", lambda m: 4.0)) == ["CuPy overtakes NumPy at M = 100"]
    assert bench.crossover(numpy + rows("cupy", lambda m: 0.1)) == ["CuPy overtakes NumPy at M = 20"]
    assert bench.crossover(numpy + rows("cupy", lambda m: 99.0)) == ["CuPy is behind NumPy at M = 2000"]
    mixed = rows("cupy", lambda m: 1.0 if m in (20, 500, 1000, 2000) else 99.0)
    assert bench.crossover(numpy + mixed) == ["CuPy overtakes NumPy at M = 500"]


def test_bench_prints_the_table_and_writes_json_and_picture(tmp_path, capsys):
    assert main([*SMALL, "--threads", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "9-8-2" in out and "the paper names an effective 40" in out and "with 1 threads" in out
    result = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {"cpu", "cores", "blas", "numpy", "python", "commit"} <= result["machine"].keys()
    assert len(result["rows"]) == 8 and result["repeats"] == 2
    assert all(row["ms"] > 0 and row["over_products"] > 0 for row in result["rows"])
    assert (tmp_path / "bench.png").stat().st_size > 5000


def test_bench_on_the_device_adds_its_clock_the_launching_the_transfers_and_the_cold_start(
    tmp_path, capsys, monkeypatch
):
    standin.install(monkeypatch)
    assert main([*SMALL, "--dtype", "float32", "--backend", "numpy,cupy", "--out", str(tmp_path)]) == 0
    assert "with transfers" in capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    device = [row for row in result["rows"] if row["backend"] == "cupy"]
    assert len(device) == len(result["rows"]) / 2
    for row in device:
        assert min(row[key] for key in ("device_ms", "launch_ms", "with_transfers_ms")) > 0
    assert {"gpu", "driver", "cuda", "cupy", "tf32"} <= result["machine"].keys()


def test_a_round_on_the_device_waits_where_it_says_and_nowhere_else(monkeypatch):
    waits = standin.install(monkeypatch)
    round, steps = bench.prepare(Workload("cupy", n_visible=9, n_hidden=8, n_latent=2, batch_size=5))
    waits.count, waits.taken = 0, 0
    round()
    # after the products, the steps and the steps with transfers, in each of which the bound is read; and before and
    # after each step that is timed alone
    assert waits.count == 3 + 2 * bench.measuring.ALONE + steps
    noise = 2 * 5 * 4  # bytes of ε, moved in every step
    assert waits.taken == noise * (2 * steps + bench.measuring.ALONE) + 45 * steps  # and in the last the pixels
    waits.count = 0
    bench.peak_gflops("cupy", "float32")
    assert waits.count == 6


def test_the_cold_start_is_that_of_a_new_process():
    assert 0.1 < bench.cold_start("numpy") < 60
    assert bench.cold_start("tpu") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats is 0; expected whole numbers ≥ 1"),
        (["--threads", "0"], "--threads is 0; expected whole numbers ≥ 1"),
        (["--threads", "9999"], "--threads is 9999; there are "),
        (["--backend", "numpy,tpu"], "--backend has tpu; expected some of numpy, cupy"),
        (["--dtype", "float16"], "--dtype has float16; expected some of float32, float64"),
        (["--batch-size", "0,5"], "--batch-size is 0; expected whole numbers ≥ 1"),
        (["--hidden", "5x0"], "--hidden is 0; expected whole numbers ≥ 1"),
        (["--n-samples", "0"], "--n-samples is 0; expected whole numbers ≥ 1"),
        (["--flow", "-1"], "--flow is -1; expected whole numbers ≥ 0"),
        (["--channels", "2,3", "--visible", "9", "--hidden", "3"], "these images can be halved 1 times"),
        (["--profile", "--backend", "numpy,cupy"], "--profile takes one step apart, and 2 are asked for"),
        (["--profile", "--hidden", "4,5"], "--profile takes one step apart, and 2 are asked for"),
        (["--against", "HEAD", "--repeats", "5"], "--repeats is 5; expected 6 or more with --against"),
        (["--compare", "none.json", "--repeats", "5"], "--repeats is 5; expected 6 or more with --compare"),
        (["--compare", "none.json"], "none.json cannot be read (No such file or directory)"),
    ],
)
def test_bad_options_of_bench_are_one_line_and_exit_code_2_before_anything_is_measured(
    tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr("scratchvae.bench.measuring.cold_start", lambda *_: pytest.fail("it is measured"))
    assert main(["bench", *arguments, "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_no_rounds_are_refused_in_python_too():
    with pytest.raises(ValueError, match="repeats is 0; expected a whole number ≥ 1"):
        bench.run([Workload()], repeats=0)


def test_the_picture_has_a_line_a_backend_and_precision_along_each_size():
    axes = plots.Figure().subplots(1, 4)
    works = bench.sweep(["numpy", "cupy"], ["float32", "float64"], sizes([50, 100], [200, 500], [20, 30], [784, 90]))
    rows = [{**vars(work), "ms": 1.0 + work.batch_size} for work in works]
    assert len(plots.step_costs(axes, rows)) == 16
    assert all(len(line.get_xdata()) == 2 for ax in axes for line in ax.lines)
    assert axes[0].get_xscale() == axes[3].get_yscale() == "log"


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_measurements(tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr("scratchvae.plots.step_costs", fail)
    monkeypatch.setattr(bench, "run", lambda *_: {"machine": {}, "rows": []})
    monkeypatch.setattr(bench, "describe", lambda machine: "the machine")
    monkeypatch.setattr(bench, "table", lambda result: "the table")
    assert main(["bench", "--out", str(tmp_path / "new" / "bench")]) == 0
    out, err = capsys.readouterr()
    assert "the table" in out and out.endswith("bench/: bench.json\n")
    assert "no picture (RuntimeError: latex could not be found); the measurements are whole" in err
    assert json.loads((tmp_path / "new" / "bench" / "bench.json").read_text(encoding="utf-8")) == {
        "machine": {},
        "rows": [],
    }


def test_a_bench_that_fails_leaves_no_folder_of_its_own(tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise ValueError("no device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "run", fail)
    (tmp_path / "mine").mkdir()
    for out in ([], ["--out", "new"], ["--out", "mine"]):
        assert main(["bench", *out]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert main([*SMALL, "--out", str(tmp_path / "file")]) == 2
    assert "is a file: choose a folder (--out, out)" in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# Models and threads


def test_hidden_layers_are_one_or_several_or_none(tmp_path, capsys):
    words = ["--hidden", "8,8x6,none", "--latent", "2", "--visible", "9", "--repeats", "1", "--dtype", "float32"]
    assert main(["bench", *words, "--out", str(tmp_path)]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[2:5]] == ["9-8-2", "9-8-6-2", "9-2"]
    rows = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert [row["n_hidden"] for row in rows] == [8, [8, 6], []]
    assert [bench.of_row(row).n_hidden for row in rows] == [8, (8, 6), ()]
    assert all(row["samples_per_s"] == pytest.approx(1e5 / row["ms"], rel=1e-3) for row in rows)
    assert all(len(row["rounds_ms"]) == 1 for row in rows)
    with pytest.raises(SystemExit):
        main(["bench", "--hidden", "8x"])
    assert "such as 500, 500x300 for two layers, or none" in capsys.readouterr().err


def test_a_row_says_what_is_not_the_default_and_looks_as_before_where_all_is():
    assert set(Workload().as_row()) == {
        *("backend", "dtype", "n_visible", "n_hidden", "n_latent", "batch_size", "model"),
    }
    work = Workload(n_hidden=(50, 40), channels=(2, 3), flow=2, posterior="full", estimator="A", n_samples=5, threads=2)
    row = json.loads(json.dumps(work.as_row()))
    assert bench.of_row(row) == work
    assert bench.model_name(row) == "vae, full posterior, flow of 2, L^A, L = 5"
    assert bench.size_name(row) == "784-conv2-conv3-50-40-20"


def test_numbers_of_threads_take_turns_in_every_round(monkeypatch):
    made = []

    def prepare(work):
        return lambda: made.append(work.threads) or {"ms": float(work.threads), "products_ms": 1.0}, 3

    monkeypatch.setattr(bench.measuring, "prepare", prepare)
    monkeypatch.setattr(bench.measuring, "cold_start", lambda backend: 1.0)
    works = bench.sweep(["numpy"], ["float32"], {"n_hidden": [5]}, threads=[1, 2])
    result = bench.run(works, repeats=3)
    assert made == [1, 2, 2, 1, 1, 2]
    assert [row["threads"] for row in result["rows"]] == [1, 2]
    assert list(result["peak_gflops"]) == ["numpy float32 1 thread", "numpy float32 2 threads"]
    head, first, second, *_ = bench.table(result).splitlines()
    assert head.split()[5] == "threads" and [first.split()[5], second.split()[5]] == ["1", "2"]
    axes = plots.Figure().subplots(1, 4)
    plots.step_costs(axes, result["rows"])
    assert [line.get_label() for line in axes[0].lines] == ["vae numpy float32 1 thread", "vae numpy float32 2 threads"]


def test_a_round_has_the_threads_of_its_workload(monkeypatch):
    seen = []
    step = bench.measuring.training_step

    def noting(work):
        made = step(work)

        def one(t, x):
            pools = threadpoolctl.threadpool_info()
            seen.append({pool["num_threads"] for pool in pools if pool["user_api"] == "blas"})
            return made(t, x)

        return one

    monkeypatch.setattr(bench.measuring, "training_step", noting)
    monkeypatch.setattr(bench.measuring, "ROUND", 0)
    with threadpoolctl.threadpool_limits(2, "blas"):
        round, _ = bench.prepare(Workload(n_visible=9, n_hidden=8, n_latent=2, batch_size=5, threads=1))
        round()
    assert len(seen) == 6 + 2 + 3 and all(pools == {1} for pools in seen)


# The profile

PROFILED = [
    {},
    {"dtype": "float64"},
    {"n_hidden": (7, 5)},
    {"n_hidden": ()},
    {"channels": (2, 3)},
    {"flow": 2},
    {"posterior": "full"},
    {"model": "full-vb", "flow": 1, "posterior": "full"},
    {"model": "full-vb-local"},
    {"likelihood": "laplace", "channels": (2,)},
    {"likelihood": "isotropic"},
    {"likelihood": "continuous-bernoulli", "estimator": "stl"},
    {"estimator": "iwae", "n_samples": 3},
    {"estimator": "dreg", "n_samples": 2},
    {"estimator": "wake-sleep"},
    {"estimator": "black-box", "n_samples": 2},
]


@pytest.mark.parametrize("given", PROFILED, ids=str)
def test_a_step_that_is_watched_has_the_same_bits_and_the_products_that_are_counted(given):
    work = Workload(n_visible=36, n_latent=3, batch_size=6, **{"n_hidden": 7} | given)
    recorder = profiling.Recorder()
    step, watched, x = bench.training_step(work), profiling.watched_step(work, recorder), bench.minibatches(work, 2)
    for t in range(2):
        bound = step(t, x[t])
        with recorder.step():
            other = watched(t, x[t])
        assert other == bound and type(other) is type(bound)
        for name in ("value", "grad"):
            ours, theirs = (getattr(one.model.params, name) for one in (step, watched))
            assert theirs.tobytes() == ours.tobytes()
    operations = recorder.steps[-1]
    assert {key[0] for key in operations} >= {"noise", "bound", "gradient", "update"}
    assert ("prior" in {key[0] for key in operations}) == (not work.model.startswith("full-vb"))
    of_layers = {key: note for key, note in operations.items() if key[1].startswith(("encoder.", "decoder."))}
    products = sum(note.flops for note in of_layers.values() if "matmul" in note.calls)
    biases = sum(note.flops for note in of_layers.values() if note.calls.keys() >= {"matmul", "add"})
    if given != {"estimator": "wake-sleep"} and not biases:
        assert products == pytest.approx(work.flops(), rel=0 if work.model == "vae" else 0.2)


def watched_array(recorder, value):
    return np.array(value, np.float32).view(recorder.kind)


@pytest.mark.parametrize(
    ("operation", "calls", "n_bytes", "flops"),
    [
        (lambda a, b, v: a @ b, {"matmul": 1}, 4 * (6 + 12 + 8), 2 * 2 * 3 * 4),
        (lambda a, b, v: v @ v, {"matmul": 1}, 4 * 3, 2 * 3),  # one array, read once; a number is no array
        (lambda a, b, v: a + v, {"add": 1}, 4 * (6 + 3 + 6), 6),  # a row that is added to every row is read once
        (lambda a, b, v: a * a, {"multiply": 1}, 4 * (6 + 6), 6),
        (lambda a, b, v: np.multiply(a, 2, out=a), {"multiply": 1}, 4 * (6 + 6), 6),
        (lambda a, b, v: a.sum(axis=0), {"add.reduce": 1}, 4 * (6 + 3), 6),
        (lambda a, b, v: np.sum(a, axis=0), {"sum": 1}, 4 * (6 + 3), 6),
        (lambda a, b, v: np.sum(a, axis=0, out=v), {"sum": 1}, 4 * (6 + 3), 6),
        (lambda a, b, v: np.tanh(a[:, :1]), {"tanh": 1}, 4 * (2 + 2), 2),
        (lambda a, b, v: np.concatenate([a, a]), {"concatenate": 1}, 4 * (6 + 12), 0),
        (lambda a, b, v: a.astype(np.float64), {"astype": 1}, 4 * 6 + 8 * 6, 0),
        (lambda a, b, v: a.T.reshape(-1), {"reshape": 1}, 4 * (6 + 6), 0),
        (lambda a, b, v: a[[0, 1, 1]], {"take": 1}, 4 * (6 + 9), 0),
        (lambda a, b, v: a.__setitem__(0, v), {"copy": 1}, 4 * (3 + 3), 0),
        (lambda a, b, v: a.__setitem__(slice(None), 0), {"copy": 1}, 4 * 6, 0),
        (lambda a, b, v: a.__setitem__(..., a[...]), {"copy": 1}, 0, 0),  # as at the end of a[...] += 1
        (lambda a, b, v: np.zeros_like(a), {"zeros_like": 1}, 4 * 6, 0),
        (lambda a, b, v: np.empty_like(a).shape, {"empty_like": 1}, 0, 0),
        (lambda a, b, v: (a.T, a[1:], a.reshape(-1), a.swapaxes(0, 1), a.astype(np.float32, copy=False)), {}, 0, 0),
    ],
)
def test_an_operation_has_the_bytes_and_flops_that_it_moves_and_makes(operation, calls, n_bytes, flops):
    recorder = profiling.Recorder()
    a, b, v = (watched_array(recorder, np.arange(n).reshape(shape)) for n, shape in ((6, (2, 3)), (12, (3, 4)), (3, 3)))
    plain = operation(*(np.array(one) for one in (a, b, v)))
    with recorder.step():
        result = operation(a, b, v)
    for ours, theirs in zip(*(one if isinstance(one, tuple) else (one,) for one in (result, plain)), strict=True):
        assert np.array_equal(ours, theirs) and getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
    (notes,) = recorder.steps
    total = {name: n for note in notes.values() for name, n in note.calls.items()}
    assert (total, sum(note.bytes for note in notes.values())) == (calls, n_bytes)
    assert sum(note.flops for note in notes.values()) == flops


def test_what_the_watching_itself_takes_is_no_operations_time(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(ticks))
    real = profiling.at_work
    monkeypatch.setattr(profiling, "at_work", lambda: [next(ticks) for _ in range(1000)] and real())
    work, recorder = Workload(n_visible=9, n_hidden=8, n_latent=2, batch_size=5), profiling.Recorder()
    step = profiling.watched_step(work, recorder)
    with recorder.step():
        step(0, bench.minibatches(work, 1)[0])
    notes = recorder.steps[0].values()
    assert sum(note.ns for note in notes) == sum(sum(note.calls.values()) for note in notes)  # a tick for each call
    assert not recorder.now


def test_an_operation_is_a_line_with_the_layer_that_is_at_work():
    result = bench.profile(Workload(n_visible=9, n_hidden=8, n_latent=2, batch_size=5), repeats=1, progress=False)
    found = {(one["phase"], one["owner"], one["line"]): one for one in result["operations"]}
    for key in [
        ("bound", "encoder.hidden", "y = x @ self.W"),
        ("bound", "decoder.logits", "y += self.b"),
        ("bound", "encoder", "self.y = np.tanh(x)"),
        ("gradient", "encoder.mu", "np.matmul(self.x.T, dy, out=self.dW)"),
        ("prior", "", "gradient -= self.params.value[theta]"),
        ("update", "", "h += s"),
        ("noise", "", "noise = self.model.noise_of(self.noise(t, len(x)), share)"),
        ("bound", "", "return x.astype(dtype) / 255"),  # of the data alone
    ]:
        assert key in found
    one = found["bound", "decoder.logits", "y = x @ self.W"]
    assert one["place"].startswith("nets/layers.py:") and one["calls"] == {"matmul": 1}
    assert (one["flops"], one["bytes"]) == (2 * 5 * 8 * 9, 4 * (5 * 8 + 8 * 9 + 5 * 9))
    assert one["intensity"] == pytest.approx(one["flops"] / one["bytes"], rel=1e-3)
    ms = [one["ms"] for one in result["operations"]]
    assert ms == sorted(ms, reverse=True)
    total = sum(ms) + result["between_ms"]
    assert total == pytest.approx(result["step_ms"], rel=5e-3)  # each is kept to four figures


def test_the_numbers_of_a_profile_are_means_of_the_fast_quarter_that_add_up():
    def notes(ns):
        note = profiling.Note()
        note.ns, note.bytes, note.flops, note.calls = ns, 4_000_000, 1_000_000, {"add": 1}
        return {("update", "", profiling.__file__, 1): note}

    peaks = {"gflops": 10.0, "cache_gb_s": 8.0, "memory_gb_s": 2.0}
    times = np.array([9.0, 3.0, 5.0, 4.0, 90.0, 80.0, 70.0, 60.0])
    steps = [notes(1_000_000 * ms) for ms in (7, 1, 3, 80, 90, 70, 60, 50)]
    found = profiling.summed(Workload(batch_size=70), times, steps, peaks)
    (one,) = found["operations"]
    assert (found["step_ms"], found["samples_per_s"], found["between_ms"]) == (3.5, 20_000, 1.5)
    assert (one["ms"], one["share"], one["gb_s"], one["gflops"]) == (2.0, plain(2 / 3.5), 2.0, 0.5)
    assert one["of_roof"] == 0.25  # its bytes alone would take 0.5 ms, and its flops 0.1
    text = bench.profile_table(found | {"workload": Workload(batch_size=70).as_row()})
    assert "3.500 ms a step, 20,000 samples/s" in text and "update by Adagrad: 2.000 ms, 57.1%" in text
    assert "between the operations: 1.500 ms, 42.9%" in text and "10 GFLOP/s" in text and "2 GB/s in memory" in text


def test_a_profile_is_printed_and_written_with_its_roofline(tmp_path, capsys):
    words = ["--hidden", "8x6", "--latent", "2", "--visible", "9", "--repeats", "1", "--model", "full-vb"]
    assert main(["bench", "--profile", *words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "full-vb, 9-8-6-2, M = 100, float32" in out and "flop/byte" in out and "between the operations" in out
    result = json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))
    assert result["peaks"].keys() == {"gflops", "cache_gb_s", "memory_gb_s"} and len(result["operations"]) > 30
    assert (tmp_path / "profile.png").stat().st_size > 5000
    assert out.endswith("profile.json and profile.png\n")


def test_the_gate_is_put_back_after_a_step_that_fails(monkeypatch):
    gate, recorder = backend.plain, profiling.Recorder()
    with pytest.raises(RuntimeError, match="in the middle"), recorder.step():
        assert backend.plain is not gate and arguments.plain is backend.plain
        raise RuntimeError("in the middle")
    assert backend.plain is gate and arguments.plain is gate and recorder.steps == [] and recorder.now is None


def test_the_bandwidth_counts_two_arrays_read_and_one_written(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))  # a pass takes one second
    assert bench.bandwidth("float32", 3 << 12) == bench.bandwidth("float64", 3 << 12) == (3 << 12) / 1e9


# Comparisons


def test_the_ratio_is_that_of_the_lower_quartiles_and_its_interval_is_a_bootstrap():
    generator = np.random.default_rng(0)
    spells = 1 + 5 * (generator.random(20) < 0.75)  # slow ones, which fall on both
    old, new = spells * generator.normal(2, 0.01, 20), spells * generator.normal(1, 0.01, 20)
    ratio, low, high = bench.ratio_interval(new, old, paired=True)
    assert ratio == np.quantile(new, 0.25) / np.quantile(old, 0.25) and low < ratio < high and low > 0.45
    assert (ratio, low, high) == bench.ratio_interval(new, old, paired=True)
    _, wide_low, wide_high = bench.ratio_interval(new, old, paired=False)
    assert wide_high - wide_low > high - low  # the spells of the one are not those of the other
    assert bench.ratio_interval(new, new, paired=True) == (1, 1, 1)
    for few in (new[:5], []):
        with pytest.raises(ValueError, match="rounds; expected 6 or more of both"):
            bench.ratio_interval(few, old, paired=False)
    with pytest.raises(ValueError, match="there are 20 and 19 rounds"):
        bench.ratio_interval(new, old[1:], paired=True)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.8, 0.99, "faster"), (1.01, 1.2, "slower"), (0.9, 1.0, "no change seen")]
)
def test_an_interval_with_one_in_it_is_no_change(low, high, said):
    assert bench.comparing.verdict(low, high) == said


def saved(path, **changes):
    """An older bench.json of two workloads."""
    works = [Workload(n_visible=9, n_hidden=h, n_latent=2, batch_size=5) for h in (8, (8, 6))]
    rows = [bench.summary(work, 3, [{"ms": 1e-6, "products_ms": 1.0}] * 6) for work in works]
    path.write_text(json.dumps({"machine": {"cpu": "another", "commit": "abc+"}, "rows": rows} | changes), "utf-8")
    return str(path)


@pytest.mark.filterwarnings("ignore:.*of another machine")
def test_an_older_file_is_measured_again_and_what_changed_is_said(tmp_path, capsys):
    old = saved(tmp_path / "old.json")
    assert main(["bench", "--compare", old, "--repeats", "6", "--out", str(tmp_path / "b")]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "old.json is of another machine" in err and "cpu: " in err and "was another" in err
    assert out.count("slower\n") == 2 and "9-8-6-2" in out and "new / old" in out
    result = json.loads((tmp_path / "b" / "bench.json").read_text(encoding="utf-8"))
    assert [row["verdict"] for row in result["compared"]] == ["slower"] * 2
    assert result["compared_with"] == {"file": old, "commit": "abc+"}
    assert bench.differences(result["machine"], result["machine"]) == []
    again = bench.older(tmp_path / "b" / "bench.json")
    assert bench.workloads_of(again, n_hidden=[(8, 6)]) == [bench.of_row(again["rows"][1])]
    with pytest.raises(ValueError, match="none of the 2 workloads of the older file has these n_latent"):
        bench.workloads_of(again, n_latent=[3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no bench.json of scratchvae bench (JSONDecodeError"),
        ("[]", "is no bench.json"),
        ('{"rows": [{"backend": "numpy"}], "machine": {}}', "is no bench.json"),
        ('{"rows": [], "machine": {"cpu": "a"}}', "keeps no times of its rounds"),
        ({"rounds_ms": [1.0] * 5}, "has 5 rounds; expected 6 or more for an interval: measure its commit again with"),
        ({"rounds_ms": None}, "keeps no times of its rounds, as older versions wrote it, so no interval: measure its"),
        ({"rounds_ms": [1.0] * 5 + ["1"]}, "keeps no times of its rounds"),
    ],
)
def test_a_file_that_cannot_be_compared_with_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "old.json"
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        row = json.loads(Path(saved(path)).read_text(encoding="utf-8"))["rows"][0]
        saved(path, rows=[row | content])
    assert main(["bench", "--compare", str(path), "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "b").exists()


def test_this_checkout_and_its_commit_are_measured_in_turns(tmp_path, capsys, monkeypatch):
    if not bench.commit():
        pytest.skip("this is no git checkout")
    monkeypatch.setattr(bench.measuring, "ROUND", 0)
    monkeypatch.setattr(bench.commits, "ASLEEP", 0)
    order = []
    asked = []
    ask = bench.commits.Server.ask
    monkeypatch.setattr(bench.commits.Server, "ask", lambda self, one: asked.append(one) or ask(self, one))
    ms = bench.commits.Server.ms
    monkeypatch.setattr(bench.commits.Server, "ms", lambda self, k, n: order.append(self.name) or ms(self, k, n))
    sizes = ["--hidden", "8", "--latent", "2", "--visible", "9", "--batch-size", "5", "--threads", "1"]
    assert main(["bench", "--against", "HEAD", *sizes, "--repeats", "6", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert order == ["this checkout", *["this checkout", "HEAD", "HEAD", "this checkout"] * 3]
    given = {"backend", "dtype", "n_visible", "n_hidden", "n_latent", "batch_size", "model"}  # what every commit knows
    assert [one["prepare"].keys() for one in asked if "prepare" in one] == [given] * 2 and asked[0]["threads"] == 1
    assert "here / " in out and "95 % interval" in out and "6 rounds, in turns" in out
    result = json.loads((tmp_path / "against.json").read_text(encoding="utf-8"))
    (row,) = result["rows"]
    assert row["threads"] == 1 and len(row["rounds_ms"]) == len(row["old_rounds_ms"]) == 6
    assert result["machine"]["commit"].startswith(result["against"]) and row["interval"][0] <= row["interval"][1]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository of two commits, the second with a bench of its own, in the place of this checkout."""
    folder = tmp_path / "repository"
    (folder / "scratchvae").mkdir(parents=True)

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a"]
        return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    def commit(text):
        git("add", "-A")
        git("commit", "-q", "-m", text)

    git("init", "-q")
    (folder / "scratchvae" / "__init__.py").write_text("", encoding="utf-8")
    commit("first")
    (folder / "scratchvae" / "bench.py").write_text("Workload = None", encoding="utf-8")
    (folder / "scratchvae" / "backend.py").write_text("", encoding="utf-8")
    commit("second")
    monkeypatch.setattr(bench.commits, "HERE", folder)
    monkeypatch.setattr(bench.commits, "commit", lambda: "abc")
    return folder


def test_a_commit_that_cannot_be_measured_is_one_line(repository, tmp_path, monkeypatch):
    work = Workload()
    for revision in ("nothing", "-x", ""):
        with pytest.raises(ValueError, match=f"git knows no commit '{revision}' \\(--against\\): git log"):
            bench.against([work], revision)
    with pytest.raises(ValueError, match=r"the commit \w{7} has no scratchvae/bench \(--against\)"):
        bench.against([work], "HEAD~1")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    bench.commits.unpack(bench.commits.resolved("HEAD"), folder)
    assert sorted(path.name for path in (folder / "scratchvae").iterdir()) == ["__init__.py", "backend.py", "bench.py"]
    with (
        bench.commits.Server(folder, "HEAD") as server,
        pytest.raises(ValueError, match=r"the bench of HEAD cannot make this step \(ImportError: cannot import name"),
    ):
        server.prepare(work)
    (tmp_path / "empty").mkdir()
    with (
        bench.commits.Server(tmp_path / "empty", "HEAD") as server,
        pytest.raises(ValueError, match=r"HEAD was to be measured, and .*__init__.py was imported: see PYTHONPATH"),
    ):
        server.prepare(Workload(n_visible=9, n_hidden=8, n_latent=2, batch_size=5))
    monkeypatch.setattr(bench.commits, "commit", lambda: "")
    with pytest.raises(ValueError, match="is no git checkout: --against needs one"):
        bench.against([work], "HEAD")


def test_the_process_of_a_commit_takes_its_sizes_and_tells_what_fails():
    given = {"n_visible": 9, "n_hidden": [8, 6], "n_latent": 2, "batch_size": 5}
    asked = [
        {"prepare": given, "threads": 1},
        {"time": 0, "steps": 2},
        {"prepare": {"wings": 2}, "threads": None},
        {"time": 7, "steps": 1},
    ]
    answers = []
    server.serve(map(json.dumps, asked), answers.append)
    assert Path(answers[0]["file"]).parent == Path(bench.__file__).parent.parent and answers[1]["ms"] > 0
    assert answers[2]["error"].startswith("TypeError") and "wings" in answers[2]["error"]
    assert answers[3]["error"].startswith("IndexError")


# The peers


def test_peers_that_are_not_installed_or_differ_are_left_out_with_the_reason(peers):
    def answer(patch, name):
        code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import peers; peers.{patch}; "
        code += f"peers.serve({name!r}, 1)"
        done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    missing = answer("sys.modules['jax'] = None", "JAX jit, donated buffers")
    assert missing["left_out"].startswith("not installed (")
    ours = answer("N", peers.OURS)["bounds"]
    theirs = answer("N", "HIPS autograd")["bounds"]
    assert len(ours) == 10 and np.abs(np.array(theirs) / ours - 1).max() < peers.AGREE
    wrong = answer("N = peers.N + 50", "HIPS autograd")["bounds"]  # control: another N
    assert np.abs(np.array(wrong) / ours - 1).max() > peers.AGREE


def test_the_peers_table_has_quartiles_ratios_and_reasons(peers):
    used = {"threads": 1, "by": "threadpoolctl"}
    results = {peers.OURS: [2.0, 2.0, 9.0], peers.PRODUCTS: [1.0, 1.0, 9.0]}
    results = {name: {"ms": ms, "cores": [1.0, 0.5, 0.9], "used": used} for name, ms in results.items()}
    rows = peers.summary(results | {"JAX": "not installed (no module)"}, 50)
    numbers = {"ms": 1.0, "ms_median": 1.0, "ms_upper_quartile": 5.0, "samples_per_s": 50_000, "times_ours": 0.5}
    more = {"cores_busy": 0.9, "used": used, "rounds_ms": [1.0, 1.0, 9.0]}
    assert rows[1] == {"name": peers.PRODUCTS, **numbers, **more}
    assert "not installed (no module)" in peers.table(rows) and "50,000" in peers.table(rows)
    with pytest.raises(ValueError, match="rounds is 0"):
        peers.measure(0, 5)


def test_two_rounds_of_two_run(peers):
    names = (peers.OURS, peers.PRODUCTS)
    results = peers.measure(2, 1, names, peers.Setting(30, 7, 3, 5, threads=1))
    for name in names:
        assert len(results[name]["ms"]) == len(results[name]["cores"]) == 2 and min(results[name]["ms"]) > 0
        assert results[name]["used"] == {"threads": 1, "by": "threadpoolctl"}


def test_a_peer_is_started_with_its_prefix_its_sizes_and_its_threads(peers, monkeypatch):
    setting = peers.Setting(196, 50, 2, 20, threads=1, device="cpu")
    monkeypatch.setitem(peers.PREFIX, peers.OURS, ["mpiexec", "-n", "2"])
    words = peers.command(peers.OURS, 7, setting)
    assert words[:4] == ["mpiexec", "-n", "2", sys.executable] and words[-2:] == ["--serve", peers.OURS]
    text = "--steps 7 --visible 196 --hidden 50 --latent 2 --batch-size 20 --threads 1 --device cpu"
    assert text in " ".join(words) and peers.command(peers.PRODUCTS, 7, setting)[0] == sys.executable
    found = peers.environment(peers.PRODUCTS, setting)
    assert found["NPROC"] == found["OPENBLAS_NUM_THREADS"] == "1" and "eigen=false" in found["XLA_FLAGS"]
    assert "eigen=false" not in peers.environment(peers.PRODUCTS, peers.Setting(threads=2))["XLA_FLAGS"]
    assert peers.Setting(device="cuda").workload() == Workload("cupy") and setting.workload() == Workload(
        n_visible=196, n_hidden=50, n_latent=2, batch_size=20
    )
    assert "--threads" not in peers.Setting().words()


def test_peers_on_a_busy_machine_or_with_other_threads_are_warned_of(peers):
    def row(upper=1.1, cores=1.0, threads=1):
        return {"name": "a", "ms": 1.0, "ms_median": 1.0, "ms_upper_quartile": upper, "cores_busy": cores} | {
            "used": {"threads": threads}
        }

    def told(*rows, threads=1):
        return peers.warnings_of([*rows, {"name": "b", "left_out": "why"}], peers.Setting(threads=threads))

    assert told(row()) == told(row(threads=None)) == told(row(threads=2), threads=None) == []
    assert "far apart, as on a busy machine (a 20% of the median)" in told(row(upper=1.2))[0]
    assert told(row(cores=0.8)) == ["less than a core was left to a: other programs were at work"]
    assert told(row(threads=2)) == ["not all use 1 threads: a uses 2"]


def test_peers_of_either_layout_become_a_table_with_samples_per_second(run, tmp_path):
    for name in ("bench", "job"):
        shutil.copy(BENCHMARKS / "results" / f"{name}.json", tmp_path)
    shutil.copy(BENCHMARKS / "results" / "peers-xeon.json", tmp_path / "peers.json")
    old = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert "setting" not in old and "samples_per_s" not in old["rows"][0]
    assert "| scratchvae | 3.49 | 3.50 | 3.54 | 28,653 | 1.00 |" in run.readme(tmp_path)
    rows = [old["rows"][0] | {"samples_per_s": 12_345}, {"name": "JAX", "left_out": "not installed"}]
    text = json.dumps(old | {"setting": {"batch_size": 200}, "rows": rows})
    (tmp_path / "peers.json").write_text(text, encoding="utf-8")
    shown = run.readme(tmp_path)
    assert "| 3.54 | 12,345 | 1.00 |" in shown and "| JAX | not installed | | | | |" in shown.replace("  ", " ")


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_job_stays_under_400_mib_and_allocates_nothing_that_it_keeps(tmp_path, data):
    if data == "mnist":
        shared("mnist")
    command = [sys.executable, str(BENCHMARKS / "job.py"), "--data", data, "--scale", "0.02"]
    subprocess.run([*command, "--results", str(tmp_path)], check=True, capture_output=True)
    job = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))
    assert 50 < job["peak_memory_mib"] < 400 and abs(job["growth_kib"]) < 50
    assert list(job["shares"]) == list(job["ms"]) == list(bench.MODELS) and min(job["ms"].values()) > 0
    for parts in job["shares"].values():  # how large each must be: test_what_is_drawn.py, by a clock of its own
        assert abs(sum(parts.values()) - 1) < 1e-3 and min(parts.values()) >= 0
        assert parts["bound and gradient"] > 0


def test_the_cost_of_posteriors_and_marginal_likelihoods_is_measured(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "inference.py"), "--data", "digits", "--scale", "0.01"]
    subprocess.run([*command, "--results", str(tmp_path)], check=True, capture_output=True)
    result = json.loads((tmp_path / "inference.json").read_text(encoding="utf-8"))
    rates = list(result["transitions_per_minute"].values())
    assert 0 < rates[0] <= rates[1] <= rates[2] and result["chains"] == 10
    assert result["importance"]["seconds"] > 0 and 50 < result["importance"]["peak_memory_mib"] < 1000


def test_a_backend_that_is_not_there_is_refused_before_anything_is_measured():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--backend", "tpu"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "backend is 'tpu'; expected one of numpy, cupy" in done.stderr


def test_the_readme_shows_the_committed_results(run):
    text = run.README.read_text(encoding="utf-8")
    for (begin, end), section in run.SECTIONS.items():
        shown = re.search(re.escape(begin) + r"\n(.*?)\n" + re.escape(end), text, re.DOTALL)[1]
        assert shown == section(BENCHMARKS / "results"), "python benchmarks/run.py --readme-only"


def test_the_cost_of_convolutions_is_measured_and_a_missing_pytorch_is_said(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "conv.py"), "--rounds", "1", "--results", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads((tmp_path / "conv.json").read_text(encoding="utf-8"))
    assert result["ms per step"]["scratchvae"]["median"] > 0
    assert ("PyTorch eager" in result["ms per step"]) == result["PyTorch"].startswith("torch")


@pytest.mark.parametrize(("tf32", "expected"), [(None, False), ("0", False), ("1", True)])
def test_the_device_that_is_named_is_the_first_with_its_memory_in_gibibytes(tf32, expected, monkeypatch):
    standin.install(monkeypatch)
    runtime = sys.modules["cupy"].cuda.runtime
    known = {0: {"name": b"the first", "totalGlobalMem": 85 * 10**9}, 1: {"name": b"another", "totalGlobalMem": 1}}
    monkeypatch.setattr(runtime, "getDeviceProperties", known.__getitem__)
    monkeypatch.setattr(runtime, "runtimeGetVersion", lambda: 12090)
    monkeypatch.setattr(runtime, "driverGetVersion", lambda: 13000)
    if tf32 is None:
        monkeypatch.delenv("CUPY_TF32", raising=False)
    else:
        monkeypatch.setenv("CUPY_TF32", tf32)
    facts = bench.machine(["numpy", "cupy"])
    told = {"gpu": "the first", "gpu_memory_gib": 79.2, "driver": 13000, "cuda": 12090, "tf32": expected}
    assert {key: facts[key] for key in told} == told
    assert not told.keys() & bench.machine(["numpy"]).keys()


@pytest.mark.parametrize(("load", "told"), [(0.2, False), (4.0, True)])
def test_times_of_a_busy_machine_are_told_to_say_little(load, told, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "load", lambda: load)
    assert main(["bench", "--batch-size", "2", "--hidden", "3", "--repeats", "1", "--out", str(tmp_path / "b")]) == 0
    assert ("the load of this machine was 4.0 before the first step" in capsys.readouterr().out) == told


def test_the_step_in_a_cuda_graph_has_our_bounds(peers, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Graph:
        def replay(self):
            self.function()

    @contextlib.contextmanager
    def recorded(graph):
        """On the CPU what is recorded is also what is made, so that it can be made again."""
        graph.function = sys._getframe(2).f_locals["ascend"]
        yield

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    for name, function in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "synchronize": lambda: None,
        "CUDAGraph": Graph,
        "graph": recorded,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    sizes = (30, 7, 3, 5)
    theirs = peers.torch_graph(peers.Setting(*sizes, device="cpu:0"))  # the CPU by a name that passes for a device's
    ours = peers.scratchvae(peers.Setting(*sizes, threads=1))
    bounds = [(ours(t), theirs(t)) for t in range(10)]
    np.testing.assert_allclose(*zip(*bounds, strict=True), rtol=1e-5)
    with pytest.raises(ImportError, match="a CUDA graph needs a device"):
        peers.torch_graph(peers.Setting(*sizes))


def test_a_peer_that_breaks_off_prints_nonsense_or_says_nothing_is_left_out_alone(peers, monkeypatch):
    code = {
        "dies": "raise RuntimeError('no such device')",
        "nonsense": "print('hello'); import time; time.sleep(60)",
        "talks": "import sys; sys.stderr.write('x' * 300_000); raise RuntimeError('at the end')",
        "silent": "import time; time.sleep(60)",
    }
    command = peers.command
    monkeypatch.setattr(
        peers,
        "command",
        lambda name, *rest: [sys.executable, "-c", code[name]] if name in code else command(name, *rest),
    )
    answer = peers.Server.answer
    monkeypatch.setattr(
        peers.Server,
        "answer",
        lambda self, seconds, line=None: answer(self, 1 if self.name == "silent" else seconds, line),
    )
    results = peers.measure(1, 1, (peers.OURS, *code), peers.Setting(30, 7, 3, 5, threads=1))
    assert len(results[peers.OURS]["ms"]) == 1
    assert results["dies"] == "RuntimeError: no such device" and results["talks"] == "RuntimeError: at the end"
    assert results["nonsense"] == "it answered 'hello\\n'" and results["silent"] == "there was no answer in 1 s"
