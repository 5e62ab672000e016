"""Measures what a training step costs with NumPy and CuPy, over minibatch, width, latents, pixels and precision.

A step is all that Algorithm 1 of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), does with a minibatch of
uint8 pixels: noise, bound, gradient, and an update by Adagrad with the prior of θ. The model is the paper's, D-H-J-H-D
with tanh and Bernoulli pixels, and L = 1. The pixels are random, and a fifth of them is not black.

Times are in milliseconds per step, unless a name says otherwise.
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

PAPER_GFLOPS = 40  # section 5 of the paper: "an effective 40 GFLOPS"
MINIBATCHES = 10  # how many different minibatches the steps take in turn
LARGE = {"numpy": 3000, "cupy": 8192}  # the width of the matrices whose product shows the peak


MODELS = {  # the models that a step can train
    "vae": VAE,
    "full-vb": FullVB,
    "full-vb-local": partial(FullVB, theta_noise="local"),
}


@dataclass(frozen=True)
class Workload:
    """The sizes of one training step.

    backend is "numpy" or "cupy", and dtype "float32" or "float64". n_visible is D, n_hidden is H, the number of hidden
    units in the encoder and in the decoder, n_latent is J and batch_size is M. model is a name in MODELS.
    """

    backend: str = "numpy"
    dtype: str = "float32"
    n_visible: int = 784
    n_hidden: int = 500
    n_latent: int = 20
    batch_size: int = 100
    model: str = "vae"

    def products(self):
        """Return, for each affine map, the rows and columns of W and whether the gradient of its input is needed.

        There are five maps. With local reparameterisation the decoder's two occur twice, since their variances are
        products of the same sizes.
        """
        D = self.n_visible
        H = self.n_hidden
        J = self.n_latent
        decoder = [(J, H, True), (H, D, True)]
        return [(D, H, False), (H, J, True), (H, J, True), *decoder * (2 if self.model == "full-vb-local" else 1)]

    def flops(self):
        """Return how many floating-point operations the step's matrix products make; no others are counted."""
        return sum(
            2 * self.batch_size * a * b * (3 if input_gradient else 2) for a, b, input_gradient in self.products()
        )


SIZES = {  # the sizes of the sweep: while one of them varies, the others are the paper's
    "batch_size": [20, 50, 100, 200, 500, 1000, 2000],
    "n_hidden": [100, 200, 500, 1000, 2000],
    "n_latent": [2, 20, 200],
    "n_visible": [196, 784, 3136],
}
PAPER = {name: getattr(Workload, name) for name in SIZES}


def minibatches(workload, count=MINIBATCHES):
    """Return `count` minibatches of random uint8 pixels in host memory, (count, M, D)."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 256, (count, workload.batch_size, workload.n_visible), dtype=np.uint8)
    return x * (generator.random(x.shape, np.float32) < 0.2)


def training_step(workload, n_data=50_000):
    """Return a function step(t, x) that makes training step t and returns its bound, which is not read yet.

    x (M, D) holds pixels and lies where the model does. n_data is N, the number of datapoints for which the bound is
    scaled; it does not affect the cost.
    """
    keep_freed_memory()  # as `fit` does
    sizes = (workload.n_visible, workload.n_hidden, workload.n_latent)
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
    """Return a function of t, which it ignores, that makes only the step's matrix products, into existing arrays."""
    M = workload.batch_size
    calls = []
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
    """Return a function round(), which times one round of training steps, and the number of steps in a round.

    A round has as many steps as take 40 ms, and at least three. Before them it makes the matrix products alone as many
    times. On the device both end with one wait, and no bound is read. round() returns a dict of milliseconds per step:

    products_ms         is what the matrix products take alone.
    ms                  is what the whole step takes. The other three are measured on a device only.
    device_ms           is how long the device works on a step, by events around it.
    launch_ms           is how long the host takes to launch a step, from two calls just after a wait.
    with_transfers_ms   is what a step takes if its pixels are sent and its bound is read each time.
    """
    step = training_step(workload)
    products = matrix_products(workload)
    host = minibatches(workload)
    x = [move(batch, workload.backend) for batch in host]
    on_device = workload.backend == "cupy"
    finish = waiting(workload.backend)

    def timed(function, count):
        """Return the milliseconds of launching one call, and of one call with its share of the wait at the end."""
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

    timed(one, 3)  # this call and the next warm up
    timed(products, 3)
    count = max(3, int(40 / timed(one, 3)[1]))

    def round():
        times = {"products_ms": timed(products, count)[1], "ms": timed(one, count)[1]}
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
    """Return a function that waits for all work on the device; on the host it does nothing."""
    return (lambda: None) if backend == "numpy" else array_module(backend).cuda.Device().synchronize


def cold_start(backend):
    """Return the seconds from the start of a new process until its first bound has been read; None if it fails.

    Kernels that CuPy has compiled before are in its cache on disk, and are not compiled again.
    """
    work = f"Workload({backend!r})"
    code = (
        f"from scratchvae.bench import *; w = {work}; float(training_step(w)(0, move(minibatches(w)[0], {backend!r})))"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    return None if done.returncode else time.perf_counter() - begun


def summary(workload, steps, rounds):
    """Return the row of a workload as a dict that JSON can hold, from the times that its rounds returned.

    `ms` and all other times are lower quartiles over the rounds, which tell what the machine does when nothing disturbs
    it. `ms_median` and `ms_upper_quartile` show how far it was disturbed. `over_products` is `ms` over the time of the
    matrix products alone. `gflops` is the rate of their operations in 10⁹ per second. steps is the number of steps in a
    round.
    """
    row = asdict(workload) | {key: np.quantile([times[key] for times in rounds], 0.25) for key in rounds[0]}
    row["ms_median"], row["ms_upper_quartile"] = np.quantile([times["ms"] for times in rounds], [0.5, 0.75])
    row["over_products"] = row["ms"] / row["products_ms"]
    row["gflops"] = workload.flops() / row["ms"] / 1e6
    return {key: _plain(value) for key, value in (row | {"steps_in_a_round": steps}).items()}


def peak_gflops(backend, dtype):
    """Return the rate of the product of two large square matrices, in 10⁹ operations per second, the best of five."""
    n = LARGE[backend]
    finish = waiting(backend)
    times = []
    a = move(np.ones((n, n), dtype), backend)
    for _ in range(6):
        begun = time.perf_counter()
        np.matmul(a, a)
        finish()
        times.append(time.perf_counter() - begun)
    return 2 * n**3 / min(times[1:]) / 1e9


def sweep(backends, dtypes, sizes, models=("vae",)):
    """Return the workloads of a sweep, in which one size varies at a time and the others are those of the start.

    backends   lists backends, and dtypes precisions; every combination is swept.
    sizes      gives the values of the sizes that vary: a dict with some of the keys "batch_size", "n_hidden",
               "n_latent" and "n_visible". A size starts from the paper's value, or from the first of its values if the
               paper's is not among them.
    models     lists names in MODELS. The first is swept over all sizes, and the others only measured at the start.
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
    return list(dict.fromkeys(works))  # the start is among the values of every size


# The machine


def machine(backends=("numpy",)):
    """Return what the times depend on, as a dict: processors, BLAS and threads, device, driver, versions, commit."""
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
    """Return what `machine` returned as one line of text."""
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
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """Return the commit of the checkout in which this file lies, with a + if its Python files were changed.

    Outside a checkout that is an empty text.
    """

    def git(*words):
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


# The report


def run(workloads, repeats=10, progress=None):
    """Measure the workloads and return a dict that JSON can hold.

    Its "rows" are those of `summary`, one for each workload; "machine" is what `machine` returns; "peak_gflops" and
    "cold_start_s" are what `peak_gflops` and `cold_start` return for each backend.

    workloads   lists the workloads, as `sweep` returns them.
    repeats     is the number of rounds, 10 unless given. Each goes through all workloads, so that a disturbance of the
                machine falls on all of them alike. Other than whole numbers ≥ 1 raise a ValueError.
    progress    True shows a bar on stderr, False none, and None one on a terminal only.
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
    """Return what `run` returned as a table in text, with a line for each workload and what follows from them below."""
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
    """Return how a step's time grows with M, H and D, as a dict of texts "a + b M ms, within c% from … to …".

    Each is the line of least relative squares through NumPy's float32 rows at the paper's other sizes; a letter with
    fewer than three of these rows is left out.
    """
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
    """Return a list of one text that says from which minibatch on the device is faster than the host.

    The rows compared are those of float32 at the paper's other sizes. If there are none, the list is empty.
    """
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
    """Return a value that JSON can hold, with numbers rounded to four figures."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value
