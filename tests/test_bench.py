"""bench.py and benchmarks/: what is measured is what it says, on both backends, and nothing is left to chance."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standin
from conftest import shared
from numpy.testing import assert_allclose

from scratchvae import VAE, Adagrad, FullVB, bench, plots
from scratchvae.bench import Workload
from scratchvae.cli import main
from scratchvae.training.loop import STEP, stream

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = [
    "bench",
    *["--batch-size", "5,10", "--hidden", "8,16,32", "--latent", "2", "--visible", "9", "--repeats", "2"],
]


@pytest.fixture(autouse=True)
def a_small_peak(monkeypatch):
    """No test needs the machine's true peak."""
    monkeypatch.setattr(bench, "LARGE", {"numpy": 200, "cupy": 200})


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
    # after the products, the steps, the steps between events, two launches and the steps with transfers; and in each
    # of those last the bound is read
    assert waits.count == 5 + steps
    noise = 2 * 5 * 4  # bytes of ε, moved in every step
    assert waits.taken == noise * (3 * steps + 2) + 45 * steps  # and in the last the pixels
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
        (["--threads", "9999"], "--threads is 9999; this machine has "),
        (["--backend", "numpy,tpu"], "--backend has tpu; expected some of numpy, cupy"),
        (["--dtype", "float16"], "--dtype has float16; expected some of float32, float64"),
        (["--batch-size", "0,5"], "--batch-size is 0; expected whole numbers ≥ 1"),
    ],
)
def test_bad_options_of_bench_are_one_line_and_exit_code_2_before_anything_is_measured(
    tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("it is measured"))
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
    results = {peers.OURS: [2.0, 2.0, 9.0], peers.PRODUCTS: [1.0, 1.0, 9.0], "JAX": "not installed (no module)"}
    rows = peers.summary(results)
    quartiles = {"ms": 1.0, "ms_median": 1.0, "ms_upper_quartile": 5.0}
    assert rows[1] == {"name": peers.PRODUCTS, **quartiles, "times_ours": 0.5}
    assert "not installed (no module)" in peers.table(rows)
    with pytest.raises(ValueError, match="rounds is 0"):
        peers.measure(0, 5)


def test_two_rounds_of_two_run(peers):
    names = (peers.OURS, peers.PRODUCTS)
    results = peers.measure(2, 1, names)
    assert all(len(results[name]) == 2 and min(results[name]) > 0 for name in names)


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
    shown = re.search(re.escape(run.BEGIN) + r"\n(.*?)\n" + re.escape(run.END), text, re.DOTALL)[1]
    assert shown == run.readme(BENCHMARKS / "results"), "python benchmarks/run.py --readme-only"


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
    monkeypatch.setattr("scratchvae.cli.bench._load", lambda: load)
    assert main(["bench", "--batch-size", "2", "--hidden", "3", "--repeats", "1", "--out", str(tmp_path / "b")]) == 0
    assert ("the load of this machine was 4.0 before the first step" in capsys.readouterr().out) == told
