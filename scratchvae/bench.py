"""What a training step costs: NumPy and CuPy over minibatch, width, latent size, image size and precision.

A step is everything of Algorithm 1 from a minibatch of uint8 pixels on: noise, bound, gradient, update (Adagrad, MAP).
The model is the paper's, D-H-J-H-D with tanh and Bernoulli pixels, L = 1. Pixels are random, a fifth of them not black.
"""

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scratchvae import __version__
from scratchvae.arguments import whole
from scratchvae.backend import array_module, keep_freed_memory, move
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.training.loop import STEP, progress_bar, stream
from scratchvae.training.optim import Adagrad

PAPER_GFLOPS = 40  # "an effective 40 GFLOPS", Kingma & Welling, section 5
MINIBATCHES = 10
LARGE = {"numpy": 3000, "cupy": 8192}  # the width of the matrices whose product shows the peak


MODELS = {  # what a step trains
    "vae": VAE,
    "full-vb": FullVB,
    "full-vb-local": partial(FullVB, theta_noise="local"),
}


@dataclass(frozen=True)
class Workload:
    """One training step: D inputs, H hidden units each way, J latents, M datapoints; model is one of MODELS."""

    backend: str = "numpy"
    dtype: str = "float32"
    n_visible: int = 784
    n_hidden: int = 500
    n_latent: int = 20
    batch_size: int = 100
    model: str = "vae"

    def products(self):
        """(rows of W, columns of W, whether the gradient of the input is needed) of the five affine maps.

        With local reparameterisation the decoder's two have a variance besides, as large.
        """
        D, H, J = self.n_visible, self.n_hidden, self.n_latent
        decoder = [(J, H, True), (H, D, True)]
        return [(D, H, False), (H, J, True), (H, J, True), *decoder * (2 if self.model == "full-vb-local" else 1)]

    def flops(self):
        """Of the step's matrix products, 2 for a multiplication and an addition; the rest is not counted."""
        return sum(
            2 * self.batch_size * a * b * (3 if input_gradient else 2) for a, b, input_gradient in self.products()
        )


SIZES = {  # of the sweep, along each the others are the paper's
    "batch_size": [20, 50, 100, 200, 500, 1000, 2000],
    "n_hidden": [100, 200, 500, 1000, 2000],
    "n_latent": [2, 20, 200],
    "n_visible": [196, 784, 3136],
}
PAPER = {name: getattr(Workload, name) for name in SIZES}


def minibatches(workload, count=MINIBATCHES):
    """`count` minibatches of uint8 pixels in host memory, (count, M, D)."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 256, (count, workload.batch_size, workload.n_visible), dtype=np.uint8)
    return x * (generator.random(x.shape, np.float32) < 0.2)


def training_step(workload, n_data=50_000):
    """step(t, x): makes step t on the pixels x, which lie where the model does, and returns the bound, not yet read."""
    keep_freed_memory()  # as `fit` does
    sizes = workload.n_visible, workload.n_hidden, workload.n_latent
    model = MODELS[workload.model](*sizes, dtype=workload.dtype, backend=workload.backend)
    optimizer = Adagrad(0.01)
    optimizer.start(model.params)

    def step(t, x):
        bound = model.bound(x, model.noise(stream(0, STEP, t), len(x)), n_data, gradient=True)
        model.add_log_prior_gradient()
        optimizer.ascend(model.params, t + 1)
        return bound

    return step


def matrix_products(workload):
    """A function of t, unused, that makes the step's matrix products alone, into arrays that are there."""
    M, calls = workload.batch_size, []
    for n_in, n_out, input_gradient in workload.products():
        x, W, dy = (
            move(np.random.default_rng(0).standard_normal(shape).astype(workload.dtype), workload.backend)
            for shape in ((M, n_in), (n_in, n_out), (M, n_out))
        )
        calls += [(x, W, np.empty_like(dy)), (x.T, dy, np.empty_like(W))]
        calls += [(dy, W.T, np.empty_like(x))] if input_gradient else []

    def products(t):
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return products


# Measuring


def prepare(workload):
    """(round, steps): round() times one round of so many steps and returns a dict of milliseconds a step.

    A round is as many steps as take 40 ms, three at least, and before it as many of the matrix products alone, on the
    device with one wait at the end and no bound read. There, besides, events around each step time the device, two
    calls after a wait the launching, and the same steps are taken again with pixels sent and the bound read each time.
    """
    step, products, host = training_step(workload), matrix_products(workload), minibatches(workload)
    x = [move(batch, workload.backend) for batch in host]
    on_device, finish = workload.backend == "cupy", waiting(workload.backend)

    def timed(function, count):
        """Milliseconds of launching a call, and of the call with its share of one wait at the end."""
        begun = time.perf_counter()
        for t in range(count):
            function(t)
        launched = time.perf_counter()
        finish()
        return 1e3 * (launched - begun) / count, 1e3 * (time.perf_counter() - begun) / count

    def one(t):
        return step(t, x[t % MINIBATCHES])

    def sent(t):
        float(step(t, move(host[t % MINIBATCHES], "cupy")))

    timed(one, 3), timed(products, 3)  # warm up
    count = max(3, int(40 / timed(one, 3)[1]))

    def round():
        alone, ms = timed(products, count)[1], timed(one, count)[1]
        times = {"products_ms": alone, "ms": ms}
        if on_device:
            cuda = array_module("cupy").cuda
            events = [(cuda.Event(), cuda.Event()) for _ in range(count)]
            for t, (before, after) in enumerate(events):
                before.record()
                one(t)
                after.record()
            finish()
            device = np.median([cuda.get_elapsed_time(before, after) for before, after in events])
            launch = timed(one, 2)[0]
            times |= {"device_ms": device, "launch_ms": launch, "with_transfers_ms": timed(sent, count)[1]}
        return times

    return round, count


def waiting(backend):
    """A function that waits for all work on the device; on the host there is nothing to wait for."""
    return (lambda: None) if backend == "numpy" else array_module(backend).cuda.Device().synchronize


def cold_start(backend):
    """Seconds from the start of a new process to its first bound, read; None if it breaks off. The kernels that CuPy
    has compiled before are in its cache on disk.
    """
    work = f"Workload({backend!r})"
    code = (
        f"from scratchvae.bench import *; w = {work}; float(training_step(w)(0, move(minibatches(w)[0], {backend!r})))"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    return None if done.returncode else time.perf_counter() - begun


def summary(workload, steps, rounds):
    """The row of a workload: `ms` is the lower quartile over the rounds, what the machine does in its fast spells.

    `ms_median` and `ms_upper_quartile` show the slow ones; every other time is a lower quartile too.
    """
    row = asdict(workload) | {key: np.quantile([times[key] for times in rounds], 0.25) for key in rounds[0]}
    row["ms_median"], row["ms_upper_quartile"] = np.quantile([times["ms"] for times in rounds], [0.5, 0.75])
    row["over_products"] = row["ms"] / row["products_ms"]
    row["gflops"] = workload.flops() / row["ms"] / 1e6
    return {key: _plain(value) for key, value in (row | {"steps_in_a_round": steps}).items()}


def peak_gflops(backend, dtype):
    """Of the product of two large square matrices, the best of five: what the machine has to give."""
    n, finish, times = LARGE[backend], waiting(backend), []
    a = move(np.ones((n, n), dtype), backend)
    for _ in range(6):
        begun = time.perf_counter()
        np.matmul(a, a)
        finish()
        times.append(time.perf_counter() - begun)
    return 2 * n**3 / min(times[1:]) / 1e9


def sweep(backends, dtypes, sizes, models=("vae",)):
    """The workloads: one model, the paper's where `sizes` leaves it, and from there one size at a time.

    sizes: {"batch_size", "n_hidden", "n_latent", "n_visible": values}, as many of them as are to vary. models: the
    first goes through all of them, the others stand beside it at the sizes it starts from.
    """
    base = PAPER | {name: values[0] for name, values in sizes.items() if PAPER[name] not in values}
    works = [
        Workload(backend, dtype, **base | {name: value}, model=model)
        for backend in backends
        for dtype in dtypes
        for model in models
        for name, values in sizes.items()
        for value in (values if model == models[0] else [base[name]])
    ]
    return list(dict.fromkeys(works))  # the model that they share is in each list


# The machine


def machine(backends=("numpy",)):
    """What the numbers depend on: processors, BLAS and its threads, device, driver, TF32, versions and commit."""
    from threadpoolctl import threadpool_info

    facts = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in threadpool_info()
        ],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scratchvae": __version__,
        "commit": commit(),
    }
    if "cupy" in backends:
        cupy = array_module("cupy")
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        facts |= {
            "gpu": properties["name"].decode(),
            "gpu_memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "cuda": cupy.cuda.runtime.runtimeGetVersion(),
            "cupy": cupy.__version__,
            "tf32": os.environ.get("CUPY_TF32", "0") == "1",
        }
    return facts


def describe(machine):
    """`machine` in a line of text."""
    text = f"{machine['cpu']}, {machine['cores']} cores"
    for pool in machine["blas"]:
        text += (
            f", {pool['internal_api']} {pool['version']} ({pool['architecture']}) with {pool['num_threads']} threads"
        )
    text += f", NumPy {machine['numpy']}, commit {machine['commit']}"
    if "gpu" in machine:
        text += (
            f"; {machine['gpu']}, {machine['gpu_memory_gib']} GiB, driver {machine['driver']}, CUDA {machine['cuda']}"
        )
        text += f", CuPy {machine['cupy']}, TF32 {'on' if machine['tf32'] else 'off'}"
    return text


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """The commit of the checkout that this file lies in, with a + if its Python files were changed; "" outside one."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


# The report


def run(workloads, repeats=10, progress=None):
    """{"machine", "peak_gflops", "rows"} of the workloads, as JSON; a bar on stderr, on a terminal or if asked.

    Each of the `repeats` rounds goes through all workloads, so that a machine's slow spell falls on all alike.
    ValueError unless repeats is a whole number ≥ 1.
    """
    repeats = whole("repeats", repeats)
    backends = list(dict.fromkeys(work.backend for work in workloads))
    result = {"machine": machine(backends), "repeats": repeats}
    result |= {"cold_start_s": {backend: _plain(cold_start(backend)) for backend in backends}, "peak_gflops": {}}
    for backend, dtype in dict.fromkeys((work.backend, work.dtype) for work in workloads):
        result["peak_gflops"][f"{backend} {dtype}"] = _plain(peak_gflops(backend, dtype))
    with progress_bar((1 + repeats) * len(workloads), 0, progress, unit=" rounds") as bar:
        prepared = []
        for work in workloads:
            prepared.append(prepare(work))
            bar.update(1)
        rounds = [[] for _ in workloads]
        for _ in range(repeats):
            for (round, _), times in zip(prepared, rounds, strict=True):
                times.append(round())
                bar.update(1)
    everything = zip(workloads, prepared, rounds, strict=True)
    return result | {"rows": [summary(work, steps, times) for work, (_, steps), times in everything]}


def table(result):
    """The rows as text: milliseconds, how many times the products alone, GFLOP/s beside the peak and the paper's."""
    columns = ["backend", "model", "D-H-J", "M", "dtype", "ms", "median", "upper", "x products", "GFLOP/s", "of peak"]
    device = any("device_ms" in row for row in result["rows"])
    columns += ["device", "launch", "with transfers"] if device else []
    cells = [columns]
    for row in result["rows"]:
        share = row["gflops"] / result["peak_gflops"][f"{row['backend']} {row['dtype']}"]
        size = f"{row['n_visible']}-{row['n_hidden']}-{row['n_latent']}"
        cells.append([row["backend"], row["model"], size, str(row["batch_size"]), row["dtype"]])
        cells[-1] += [f"{row[key]:.2f}" for key in ("ms", "ms_median", "ms_upper_quartile", "over_products")]
        cells[-1] += [f"{row['gflops']:.0f}", f"{share:.0%}"]
        if device:
            times = [row.get(key) for key in ("device_ms", "launch_ms", "with_transfers_ms")]
            cells[-1] += ["" if ms is None else f"{ms:.3f}" for ms in times]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    peaks = ", ".join(f"{kind} {value:,.0f}" for kind, value in result["peak_gflops"].items())
    lines.append(f"peak of a large matrix product, GFLOP/s: {peaks}; the paper names an effective {PAPER_GFLOPS}")
    starts = [f"{backend} {s} s" for backend, s in result["cold_start_s"].items()]
    lines.append(f"from the start of a new process to its first bound: {', '.join(starts)}")
    lines += [f"cost in {name}: {text}" for name, text in linearity(result["rows"]).items()]
    return "\n".join(lines + crossover(result["rows"]))


def linearity(rows):
    """{"M", "H", "D": "a + b × M ms, within c %"}: the line of least relative squares through NumPy's float32 rows."""
    fits = {}
    for letter, name in [("M", "batch_size"), ("H", "n_hidden"), ("D", "n_visible")]:
        fixed = {"backend": "numpy", "dtype": "float32", "model": "vae"} | {
            key: PAPER[key] for key in PAPER if key != name
        }
        points = [(row[name], row["ms"]) for row in rows if all(row[key] == value for key, value in fixed.items())]
        if len(points) < 3:
            continue
        size, ms = np.array(points, float).T
        (b, a), *_ = np.linalg.lstsq(np.stack([size / ms, 1 / ms], 1), np.ones(len(ms)))
        worst = np.abs((a + b * size) / ms - 1).max()
        fits[letter] = f"{a:.2f} + {b:.4f} {letter} ms, within {worst:.0%} from {size.min():.0f} to {size.max():.0f}"
    return fits


def crossover(rows):
    """[from which minibatch on the device is faster, at the paper's sizes in float32, in words]; [] if unknown."""
    sizes = {}
    for row in rows:
        if (row["dtype"], row["model"]) == ("float32", "vae") and all(
            row[key] == PAPER[key] for key in PAPER if key != "batch_size"
        ):
            sizes.setdefault(row["batch_size"], {})[row["backend"]] = row["ms"]
    both = {m: times for m, times in sorted(sizes.items()) if len(times) == 2}
    behind = [m for m, times in both.items() if times["cupy"] >= times["numpy"]]
    ahead = [m for m in both if m > max(behind, default=0)]
    if not both:
        return []
    return [f"CuPy overtakes NumPy at M = {ahead[0]}" if ahead else f"CuPy is behind NumPy at M = {max(both)}"]


def _plain(value):
    """As JSON has it, to four figures."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value
