"""What the MNIST job takes besides its steps: memory, growth, and the loop's own time: python benchmarks/job.py.

The memory is the peak of a process that does nothing but `scratchvae train --data mnist`, pictures included. Growth is
what 10,000 further steps of a small model leave allocated. The loop's share is everything in `fit` that is not noise
(its generator counted in), bound, gradient or update, gathering the minibatch included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from scratchvae import VAE, Adagrad, bench, fit
from scratchvae.training import loop

RESULTS = Path(__file__).with_name("results")


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
    allocated = []

    def look(*arguments, bound=model.bound, **settings):
        seen.append(None)
        if len(seen) in (steps, 2 * steps):
            allocated.append(tracemalloc.get_traced_memory()[0])
        return bound(*arguments, **settings)

    class Count(list):
        """A list that only counts, so as not to grow."""

        n = 0

        def append(self, _):
            self.n += 1

        def __len__(self):
            return self.n

    seen, model.bound = Count(), look
    tracemalloc.start()
    fit(model, train, batch_size=10, samples=20 * steps, log_every=10**9)
    tracemalloc.stop()
    return (allocated[1] - allocated[0]) / 1024


def loop_share(steps=400, repeats=7):
    """The loop's share of the time of `fit`, on the paper's workload: the median of some runs."""
    work, shares = bench.Workload(), []
    train = bench.minibatches(work, 500).reshape(-1, work.n_visible)
    for _ in range(repeats):
        model, optimizer, spent = VAE(784), Adagrad(0.01), []
        parts = [(model, "noise"), (model, "bound"), (model, "add_log_prior_gradient"), (optimizer, "ascend")]
        for owner, name in parts:
            setattr(owner, name, timed(getattr(owner, name), spent))
        stream, loop.stream = loop.stream, timed(loop.stream, spent)
        begun = time.perf_counter()
        try:
            fit(model, train, optimizer=optimizer, samples=steps * work.batch_size, log_every=10**9)
        finally:
            loop.stream = stream
        shares.append(1 - sum(spent) / (time.perf_counter() - begun))
    return float(np.median(shares))


def timed(function, spent):
    """`function`, which notes the seconds of each call in `spent`."""

    def calling(*arguments, **settings):
        begun = time.perf_counter()
        result = function(*arguments, **settings)
        spent.append(time.perf_counter() - begun)
        return result

    return calling


def main():
    """Print the three numbers and write job.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the work, for a quick look (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where job.json goes (benchmarks/results)")
    settings = parser.parse_args()
    result = {
        "machine": bench.machine(),
        "data": settings.data,
        "peak_memory_mib": round(peak_memory(settings.data, int(100_000 * settings.scale)), 1),
        "growth_kib": round(growth(max(100, int(10_000 * settings.scale))), 2),
        "loop_share": round(loop_share(max(10, int(400 * settings.scale))), 4),
    }
    print(f"peak memory of the {settings.data} job: {result['peak_memory_mib']:.0f} MiB")
    print(f"left allocated by 10,000 steps: {result['growth_kib']:.1f} KiB")
    print(f"the loop's share of a training step: {result['loop_share']:.1%}")
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / "job.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
