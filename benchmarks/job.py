"""What the MNIST job takes besides its steps: memory, growth, and the loop's own time: python benchmarks/job.py.

The memory is the peak of a process that does nothing but `scratchvae train --data mnist`, pictures included. Growth is
what 10,000 further steps of a small model leave allocated. The loop's share is everything in `fit` that is not noise
(its generator counted in), bound, gradient or update, gathering the minibatch included.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import output

from scratchvae import VAE, Adagrad, bench, fit
from scratchvae.cli.output import tolerant
from scratchvae.training import loop


def peak_memory(data="mnist", samples=100_000):
    """MiB of resident memory that training and its pictures take at most, by the system's own account."""
    code = "import sys; from scratchvae.cli import main; sys.exit(main())"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["train", "--data", data, "--samples", str(samples), "--quiet", "--out", f"{folder}/run"]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def growth(steps=10_000):
    """KiB that so many steps leave allocated, after as many to settle."""
    model, train = VAE(64, 10, 2), np.random.default_rng(0).integers(0, 256, (500, 64), dtype=np.uint8)
    allocated, calls, bound = [], itertools.count(1), model.bound

    def look(*arguments, **settings):
        if next(calls) in (steps, 2 * steps):
            allocated.append(tracemalloc.get_traced_memory()[0])
        return bound(*arguments, **settings)

    model.bound = look
    tracemalloc.start()
    fit(model, train, batch_size=10, samples=20 * steps, log_every=10**9)
    tracemalloc.stop()
    return (allocated[1] - allocated[0]) / 1024


def shares(name="vae", steps=400, repeats=7):
    """{part: its share of the time of `fit`}, "loop" the rest, and ms a step, of the repeat with the median time."""
    work, runs, totals = bench.Workload(), [], []
    train = bench.minibatches(work, min(steps, 500)).reshape(-1, work.n_visible)
    for _ in range(repeats):
        model, optimizer = bench.MODELS[name](784), Adagrad(0.01)
        spent = {"noise": [], "bound and gradient": [], "prior": [], "update": []}
        model.noise = timed(model.noise, spent["noise"])
        model.bound = timed(model.bound, spent["bound and gradient"])
        model.add_log_prior_gradient = timed(model.add_log_prior_gradient, spent["prior"])
        optimizer.ascend = timed(optimizer.ascend, spent["update"])
        stream, loop.stream = loop.stream, timed(loop.stream, spent["noise"])
        begun = time.perf_counter()
        try:
            fit(model, train, optimizer=optimizer, samples=steps * work.batch_size, log_every=10**9)
        finally:
            loop.stream = stream
        total = time.perf_counter() - begun
        totals.append(1e3 * total / steps)
        runs.append([sum(times) / total for times in spent.values()])
    middle = sorted(range(repeats), key=totals.__getitem__)[repeats // 2]  # one repeat, so that its parts are its whole
    parts = dict(zip(spent, runs[middle], strict=True))
    parts["loop"] = 1 - sum(parts.values())
    return {part: round(share, 4) for part, share in parts.items()}, round(totals[middle], 2)


def timed(function, spent):
    """`function`, which notes the seconds of each call in `spent`."""

    def calling(*arguments, **settings):
        begun = time.perf_counter()
        result = function(*arguments, **settings)
        spent.append(time.perf_counter() - begun)
        return result

    return calling


def main():
    """Print the numbers and write job.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the work, for a quick look (1)")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="where job.json goes (runs/bench)")
    settings = parser.parse_args()
    output.prepare(parser, settings.results)
    steps, timed_steps = max(100, int(10_000 * settings.scale)), max(10, int(400 * settings.scale))
    result = {
        "machine": bench.machine(),
        "data": settings.data,
        "peak_memory_mib": round(peak_memory(settings.data, int(100_000 * settings.scale)), 1),
        "steps": steps,
        "growth_kib": round(growth(steps), 2),
    }
    parts = {name: shares(name, timed_steps) for name in bench.MODELS}  # after the memory: a child begins at ours
    result |= {
        "shares": {name: share for name, (share, _) in parts.items()},
        "ms": {name: ms for name, (_, ms) in parts.items()},
    }
    print(f"peak memory of the {settings.data} job: {result['peak_memory_mib']:.0f} MiB")
    print(f"left allocated by {steps:,} steps: {result['growth_kib']:.1f} KiB")
    for name, share in result["shares"].items():
        text = ", ".join(f"{part} {value:.1%}" for part, value in share.items())
        print(f"a training step of {name}: {result['ms'][name]:.2f} ms: {text}")
    output.write(settings.results / "job.json", result)


if __name__ == "__main__":
    with tolerant():
        main()
