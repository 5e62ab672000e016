"""What benchmarks/device.py measures: its parts, each of which says its rows one by one.

A part is a function of a `Setting` and of `say`, which takes a row, a dict that JSON can hold. The "key" of a row tells
it from the others of its part. Rows whose keys are in `setting.done` were measured before a break and are left out.
Each part runs in a process of its own. So none can take another down, and environment variables that CuPy reads but
once, such as CUPY_TF32, hold for one part alone.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import output

from scratchvae import VAE, bench, evaluate, plots
from scratchvae.backend import array_module, blas_threads, fusing, move
from scratchvae.bench import device_clock, peaks
from scratchvae.cli import main as command_line
from scratchvae.inference.hmc import log_joint, sample
from scratchvae.inference.marginal import importance
from scratchvae.training.run import read_history

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
VARIANTS = {"NumPy": ("numpy", False), "CuPy": ("cupy", False), "CuPy, fused": ("cupy", True)}  # (backend, fused?)
WORDS = ("out of memory", "outofmemory", "memoryallocation", "allocfailed")  # of CUDA and its libraries, without _
NATS = 0.5  # by which the bounds of two backends may differ after training: float32 rounds differently in each step
FIRST = {"float32": 1e-6, "float64": 1e-10}  # by which their first bounds may differ, relative
SLOPE = {"float32": 1e-5, "float64": 1e-10}  # and the gradients of the first step, by the norm of the difference


@dataclass(frozen=True)
class Setting:
    """How much is measured, and on what.

    scale    is "full"; "quick", for a first answer; or "tiny", which only shows that the lines run.
    data     names the data set of the training job.
    commit   is that of this checkout.
    done     holds the rows that are there already, by their keys.
    """

    scale: str = "full"
    data: str = "mnist"
    commit: str = ""
    done: dict = field(default_factory=dict)

    def of(self, full, quick, tiny):
        """Return what belongs to the scale."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.scale]


class Rows:
    """Says the rows of a part one by one. One that fails is told at the end, and the others are made nevertheless.

    setting   is the `Setting`: rows that are there already are not made again.
    say       takes a row.
    """

    def __init__(self, setting, say):
        self.setting = setting
        self.say = say
        self.failed = []

    def make(self, key, function):
        """Say the row of function(), a dict, under a key."""
        if key in self.setting.done:
            return
        try:
            row = function()
        except Exception:  # the next time it is tried again
            traceback.print_exc()
            self.failed.append(key)
        else:
            self.say({"key": key} | row)

    def end(self):
        """Raise a RuntimeError if a row failed."""
        if self.failed:
            raise RuntimeError(f"{', '.join(self.failed)} failed: see above")


# (a) What the machine is


ATTRIBUTES = {  # of a device, by CUDA's numbers for them
    "multiprocessors": 16,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
    "compute_capability_major": 75,
    "compute_capability_minor": 76,
}
QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,temperature.gpu"


def machine(setting, say):
    """Say what the times depend on: processor, device, clocks, driver, CUDA, and the versions of the libraries."""
    if "machine" in setting.done:
        return
    cupy = array_module("cupy")
    row = {"key": "machine"} | bench.machine(["numpy", "cupy"]) | {"commit": setting.commit}
    row["gflops"] = asked(lambda: peaks.peak_gflops("cupy", "float32"))  # after which its clocks are those of work
    row["nvidia_smi"] = asked(lambda: smi(QUERY))
    for name, number in ATTRIBUTES.items():
        row[name] = asked(lambda number=number: cupy.cuda.runtime.deviceGetAttribute(number, 0))
    row["cublas"] = asked(lambda: cupy.cuda.cublas.getVersion(cupy.cuda.device.get_cublas_handle()))
    row["nvrtc"] = asked(lambda: list(cupy.cuda.nvrtc.getVersion()))
    row["cpu_max"] = asked(lambda: Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").strip())
    row["accelerators"] = os.environ.get("CUPY_ACCELERATORS", "those of CuPy by itself")
    row["memory_gib"] = asked(lambda: round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1))
    say(row)


def asked(question):
    """Return the answer to a question, or in words why there is none: a fact that is missing stops no benchmark."""
    try:
        return question()
    except Exception as error:  # every library and every system has its own
        return f"not told ({type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''})"


def smi(query):
    """Return what nvidia-smi answers for the first device, as a dict."""
    words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=5).stdout
    return dict(zip(query.split(","), (text.strip() for text in answer.split(",")), strict=True))


# (b) The tests, and (c) the gradient check


GRADIENTS = "tests/test_gpu.py::test_every_gradient_passes_on_the_device"


def tests(setting, say):
    """Say of each test that is marked `gpu` whether it passed: those of test_gpu.py, and in full those of all files.

    The test of all gradients is left out, since `gradcheck` makes it row by row.
    """
    import pytest

    class Told:
        """A plugin of pytest that says what came of each test."""

        def pytest_runtest_logreport(self, report):
            if report.when == "call" or report.outcome != "passed":
                why = "" if report.outcome == "passed" else str(report.longrepr)[-400:]
                say({"key": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3), "why": why})

    where = setting.of(TESTS, TESTS / "test_gpu.py", TESTS / "test_gpu.py")
    words = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "gpu", str(where), "--rootdir", str(TESTS.parent)]
    for key in (*setting.done, GRADIENTS):
        words += ["--deselect", key]
    code = pytest.main(words, plugins=[Told()])
    if code not in (0, 1, 5):  # passed, failed, and nothing left to do
        raise RuntimeError(f"pytest ended with {code!r}: see what it has printed above")


def gradcheck(setting, say):
    """Say of the layers, the densities and the models of the matrix whether their gradients pass on the device.

    They are checked as they are, and fused.
    """
    for head, on in (("", False), ("fused | ", True)):
        with fusing(on):
            gradients(setting, say, head)


def gradients(setting, say, head):
    """Say the rows of `gradcheck` whose keys begin with `head`; those that are there already are not made again."""
    from scratchvae.gradcheck import check_matrix, check_parts

    every = setting.of(1, 24, 80)

    def wanted(k, what):
        return k % every == 0 and head + what not in setting.done

    begun = time.perf_counter()
    for what, report in chain(check_parts(backend="cupy"), check_matrix(backend="cupy", keep=wanted)):
        if not isinstance(report, str) and head + what not in setting.done:
            errors = [error for one in report for error in (one.oracle, one.differences) if error is not None]
            row = {"key": head + what, "passed": bool(report), "largest_error": max(errors, default=0.0)}
            say(row | {"arrays": len(report), "seconds": round(time.perf_counter() - begun, 3)})
        begun = time.perf_counter()


# (d) The training job of the README


def job(setting, say):
    """Say what `scratchvae train` takes on both backends, and how far apart their bounds are."""
    plots.draw_run = lambda *_, **__: []  # in this process: pictures take longer than a short training
    rows = Rows(setting, say)
    bounds = {name: {int(n): bound for n, bound in row["bounds"].items()} for name, row in setting.done.items()}
    for name in VARIANTS:
        rows.make(name, lambda name=name: trained(name, setting, bounds))
    rows.end()


def trained(name, setting, bounds):
    """Return the row of a training as a variant; `bounds` has those of the variants before, and gets its own."""
    samples = setting.of(1_000_000, 100_000, 2_000)
    backend, on = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder, fusing(on):
        run = f"{folder}/run"
        words = ["train", "--data", setting.data, "--backend", backend, "--quiet"]
        command_line([*words, "--samples", "200", "--out", f"{folder}/first"])  # compiles the kernels
        begun = time.perf_counter()
        if command_line([*words, "--samples", str(samples), "--out", run]) != 0:
            raise RuntimeError(f"scratchvae train --backend {backend} failed: see what it has printed above")
        seconds = time.perf_counter() - begun
        history = read_history(f"{run}/metrics.csv")
    at = {int(n): float(bound) for n, bound in zip(history["samples"], history["valid_bound"], strict=True)}
    half = np.searchsorted(history["samples"], samples / 2)
    late = np.diff(history["seconds"][[half, -1]]) / np.diff(history["samples"][[half, -1]])
    row = {"samples": samples, "seconds": seconds, "bounds": at, "device_memory_mib": pool_mib(backend)}
    row["seconds_to_1e6"] = float(history["seconds"][half] + late[0] * (1e6 - history["samples"][half]))
    row["measured_to_1e6"] = samples >= 1_000_000
    bounds[name] = at
    if name != "NumPy" and "NumPy" in bounds:
        row["apart_nats"] = max(abs(at[n] - bounds["NumPy"][n]) for n in at if n in bounds["NumPy"])
        row["same"] = row["apart_nats"] <= NATS
    return row


def pool_mib(backend):
    """Return how much device memory CuPy's pool holds, in MiB, and give it back; None on the host."""
    if backend == "numpy":
        return None
    pool = array_module("cupy").get_default_memory_pool()
    held = pool.total_bytes() / 2**20
    pool.free_all_blocks()
    return held


# (e) Steps over sizes


def sizes(setting):
    """Return the workloads of the sweep, those first that say most."""
    ms = setting.of(
        [100, 20, 500, 2000, 20000, 50, 200, 1000, 5000, 10000], [100, 20, 500, 2000, 20000, 5000], [100, 20]
    )
    hs = setting.of([100, 4000, 1000, 200, 2000], [4000, 1000, 100], [50])
    base = bench.Workload() if setting.scale != "tiny" else bench.Workload(n_visible=64, n_hidden=20, n_latent=3)
    single = [replace(base, batch_size=m) for m in ms] + [replace(base, n_hidden=h) for h in hs]
    double = [replace(work, dtype="float64") for work in setting.of(single, single[:4:3], single[:1])]
    return list(dict.fromkeys([*single, *double]))


def steps(setting, say):
    """Say for each size what a step takes in each of the variants, its launches and the device's time apart."""
    rows = Rows(setting, say)
    for work in sizes(setting):
        rows.make(key_of(work), lambda work=work: of_size(work, tuple(VARIANTS), setting))
    rows.end()


def tf32(setting, say):
    """Say what steps take with CUPY_TF32=1, which lets float32 products be made of numbers of 10 bits behind the point.

    "gradient_apart" is by how much the gradient of the first step is off.
    """
    if os.environ.get("CUPY_TF32") != "1":
        raise RuntimeError("CUPY_TF32 is not 1 in this process")
    rows = Rows(setting, say)
    for work in sizes(setting):
        if work.dtype == "float32":
            rows.make(key_of(work), lambda work=work: of_size(work, ("CuPy", "CuPy, fused"), setting))
    rows.end()


def key_of(work):
    """Return the key of a workload's row."""
    return f"{bench.size_name(work.as_row())} M={work.batch_size} {work.dtype}"


def of_size(work, variants, setting):
    """Return the row of a workload."""
    return work.as_row() | measured(work, variants, setting.of(10, 5, 1))


def measured(work, variants, rounds):
    """Return a dict with the row of `bench.summary` of each variant, which take turns, or the reason why it failed.

    Those on the device have "first_bound_apart" and "gradient_apart", by how much the first step is off from NumPy's,
    and "same" if that is rounding. NumPy has as many BLAS threads as `scratchvae train` gives it. A size for which
    there is no memory fails for its variant alone. Every other round goes backwards, so that none always follows the
    same one.
    """
    prepared = {}
    found = {}
    first = {}
    times = {}
    if "NumPy" not in variants:  # to compare with
        first["NumPy"] = first_step(of_variant(work, "NumPy"))
    for name in variants:

        def prepare(name=name):
            first[name] = first_step(of_variant(work, name))
            prepared[name] = bench.prepare(of_variant(work, name))
            times[name] = []

        if why := without_memory(name, prepare):
            found[name] = {"failed": why}
    for r in range(rounds):
        for name in list(prepared) if r % 2 == 0 else list(prepared)[::-1]:

            def go(name=name):
                times[name].append(prepared[name][0]())

            if why := without_memory(name, go):
                found[name] = {"failed": why}
                del prepared[name]
    for name, (_, count) in prepared.items():
        found[name] = bench.summary(of_variant(work, name), count, times[name])
        if name != "NumPy" and "NumPy" in first:
            found[name] |= apart(first[name], first["NumPy"], work.dtype)
    prepared.clear()
    pool_mib("cupy")
    return {"variants": found}


def first_step(work):
    """Return the bound of the first step of a workload, and the gradient with which it updates, in host memory."""
    step = bench.training_step(work)
    bound = float(step(0, move(bench.minibatches(work, 1)[0], work.backend)))
    return bound, move(step.model.params.grad, "numpy").copy()


def apart(theirs, ours, dtype):
    """Return how far a first step is from NumPy's: its bound, and the norm of its gradient's difference, relative.

    At the initial parameters the bound hardly depends on them, so that it is the gradient that tells.
    """
    bound = abs(theirs[0] / ours[0] - 1)
    gradient = float(np.linalg.norm(theirs[1] - ours[1]) / np.linalg.norm(ours[1]))
    same = bound <= FIRST[dtype] and gradient <= SLOPE[dtype]
    return {"first_bound_apart": bound, "gradient_apart": gradient, "same": bool(same)}


def of_variant(work, name):
    """Return a workload as a variant makes it."""
    backend = VARIANTS[name][0]
    widest = max((rows * a * b for rows, a, b, _ in work.products()), default=0)
    return replace(work, backend=backend, threads=blas_threads(widest) if backend == "numpy" else None)


def without_memory(name, function):
    """Call a function as a variant, and return why its memory did not suffice; None if it did.

    Libraries of CUDA have errors of their own for that.
    """
    try:
        with fusing(VARIANTS[name][1]):
            function()
        return None
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        known = isinstance(error, MemoryError) or any(word in text.lower().replace("_", "") for word in WORDS)
        if not known:
            raise
    if VARIANTS[name][0] == "cupy":
        pool_mib("cupy")
    return f"out of memory: {text}"


# (f) Others on the same device


def frameworks(setting, say):
    """Say what the same step takes in other frameworks on the device, each in a process of its own, in turns."""
    import peers as others

    small = {"n_visible": 64, "n_hidden": 20, "n_latent": 3} if setting.scale == "tiny" else {}
    given = others.Setting(device="cuda", **small)
    names = [name for name in others.PEERS if name not in others.PREFIX and "HIPS" not in name]
    names = setting.of(names, names, [name for name in names if "JAX" not in name and "PyTorch" not in name])
    slow = [name for name in names if "compile" in name]  # they compile for a minute, and so come last
    first = [name for name in names if name not in slow]
    for told in filter(None, (first, slow)):
        if set(told) <= setting.done.keys():
            continue
        turn = told if others.OURS in told else [others.OURS, *told]  # everybody is compared with ours of the same turn
        found = others.measure(
            setting.of(40, 12, 1), setting.of(20, 20, 2), turn, given, False, setting.of(300, 35, 60)
        )
        for row in others.summary(found):
            if row["name"] in told:
                say({"key": row["name"]} | row)


# (g) The profile by operation


def profile(setting, say):
    """Say what each operation of the paper's step takes, and how near it comes to what the machine allows."""
    base = bench.Workload() if setting.scale != "tiny" else bench.Workload(n_visible=64, n_hidden=20, n_latent=3)
    rows = Rows(setting, say)
    for name, (backend, on) in VARIANTS.items():

        def go(backend=backend, on=on):
            with fusing(on):
                return {"profile": bench.profile(replace(base, backend=backend), setting.of(10, 5, 1), progress=False)}

        rows.make(name, go)
    rows.end()


# (h) What else runs on the device


def others(setting, say):
    """Say what evaluation, importance sampling, HMC and the steps of other models take in each of the variants."""
    x = np.random.default_rng(0).integers(0, 256, (setting.of(10_000, 10_000, 40), 784), dtype=np.uint8)
    models = {
        "step: full VB": {"model": "full-vb"},
        "step: full VB, local": {"model": "full-vb-local"},
        "step: flow of 10 maps": {"flow": 10},
        "step: full covariance": {"posterior": "full"},
        "step: convolutions of 16 and 32": {"channels": (16, 32), "n_hidden": 128},
        "step: importance-weighted, 5 draws": {"estimator": "iwae", "n_samples": 5},
    }
    rows = Rows(setting, say)
    for what, settings in models.items():
        work = bench.Workload(**({"n_hidden": 20} if setting.scale == "tiny" else {}) | settings)
        rows.make(what, lambda work=work: work.as_row() | measured(work, tuple(VARIANTS), setting.of(8, 3, 1)))
    whole = {
        f"evaluate: {len(x):,} images": lambda model: evaluate(model, x),
        "importance: 100 images, 1,000 draws": lambda model: importance(model, x[:100], setting.of(1000, 1000, 30)),
        "HMC: 1,000 chains, 10 transitions": lambda model: chains(model, x[:1000], setting.of(10, 10, 1)),
    }
    for what, function in whole.items():
        rows.make(what, lambda function=function: {"seconds": seconds_by_variant(function)})
    rows.end()


def seconds_by_variant(function):
    """Return the seconds that function(model) takes in each of the variants, or why its memory did not suffice."""
    found = {}
    for name, (backend, _) in VARIANTS.items():

        def go(name=name, backend=backend):
            found[name] = seconds_of(function, VAE(784, 500, 20, init="glorot", backend=backend), backend)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of k_hat and the like: nothing here was trained
            why = without_memory(name, go)
        if why is not None:
            found[name] = why
    return found


def chains(model, x, transitions):
    """Run Hamiltonian Monte Carlo for the latents of rows x."""
    target = log_joint(model.decoder, model.pixels(move(x, model.backend)))
    start = model.encode_mean(move(x, model.backend))
    return sample(target, start, np.random.default_rng(0), transitions, burn_in=0, stepsize=0.1)


def seconds_of(function, model, backend):
    """Return the seconds of the second call; the first compiles kernels."""
    for _ in range(2):
        begun = time.perf_counter()
        function(model)
        peaks.waiting(backend)()
        seconds = time.perf_counter() - begun
    return seconds


# What can be known without a device


def launches(setting, say):
    """Say how often a step of each model puts something in the device's queue, and how many bytes that moves.

    They are counted on the stand-in, on any machine.
    """
    with output.stand_in() as standin:
        for what, settings in output.of_tests("on_nodevice").STEPS.items():  # at the paper's sizes
            if what in setting.done:
                continue
            work = bench.Workload("cupy", **settings)
            step = bench.training_step(work)
            x = [move(batch, "cupy") for batch in bench.minibatches(work, 2)]
            row = {"key": what} | work.as_row()
            for name in ("CuPy", "CuPy, fused"):
                with fusing(VARIANTS[name][1]):
                    step(0, x[0])
                    with standin.logged() as log:
                        step(1, x[1])
                row[name] = {"launches": sum(call.launches for call in log), "bytes": sum(c.bytes() for c in log)}
            say(row)


PARTS = {
    function.__name__: function
    for function in (machine, launches, tests, gradcheck, steps, job, profile, frameworks, tf32, others)
}


def small():
    """Let what the machine can do at most be measured with small arrays in this process, which takes no time."""
    peaks.LARGE.update(numpy=300, cupy=300)
    peaks.IN_MEMORY = peaks.IN_DEVICE_MEMORY = 3 << 20
    device_clock.WIDTH = 64


def serve(name, setting, channel):
    """Make one part in this process, and write its rows into the file `channel`, one JSON in a line."""

    def say(row):
        print(json.dumps(row), file=channel, flush=True)

    if setting.scale == "tiny":
        small()
    PARTS[name](setting, say)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    say({"end": True, "peak_memory_mib": round(peak, 1)})
