"""Whether more BLAS threads pay in a training step: python benchmarks/threads.py, some four minutes on two cores.

A training step of the VAE, from pixels to updated parameters (`bench.training_step`), is timed with one BLAS thread
and with all of them, over model sizes D-H-J and minibatches M. Every round goes through all sizes and takes both
settings one after the other, in turns first, so that a slow spell of the machine falls on both. The table shows the
median time of each, the ratio all/one (below 1 the threads gain), its 95 % interval, and the size of the largest
matrix product, M D H multiply-adds, by which `scratchvae.backend.blas_threads` chooses for `scratchvae train`.

    python benchmarks/threads.py --out benchmarks/results            # on a machine that does nothing else
    python benchmarks/threads.py --busy --out benchmarks/results     # and beside processes that keep its cores busy

With --busy a process on every core computes something else all the while. OpenBLAS's threads wait for each other
within each product; when one of them has lost its core, the others wait until it has it back. That is the trap.
"""

import argparse
import contextlib
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import output
from threadpoolctl import threadpool_limits

from scratchvae import bench
from scratchvae.backend import blas_threads, cores
from scratchvae.cli.output import tolerant
from scratchvae.training.loop import progress_bar

SIZES = ("64-200-20", "256-300-20", "784-200-20", "784-500-20", "784-1000-50")
MINIBATCHES = "20,50,100,200,500"
SECONDS = 0.02  # of each setting in a round, at least; and three steps at least
ASLEEP = 0.05  # seconds after which OpenBLAS's threads have stopped looking for work, and no longer hold a core
LEAST_ROUNDS = 6  # the fewest whose smallest and largest ratio are a 95 % interval
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"


def workload(size, minibatch):
    """Read "784-500-20" as D-H-J of a workload with this minibatch."""
    D, H, J = (int(part) for part in size.split("-"))
    return bench.Workload(n_visible=D, n_hidden=H, n_latent=J, batch_size=minibatch)


def largest_product(work):
    """The multiply-adds of the step's largest matrix product."""
    return max(rows * n_in * n_out for rows, n_in, n_out, _ in work.products())


def prepare(work):
    """Return a function of a number of threads that gives the milliseconds of a step with so many."""
    step = bench.training_step(work)
    x = bench.minibatches(work)

    def timed(count):
        begun = time.perf_counter()
        for t in range(count):
            step(t, x[t % len(x)])
        return (time.perf_counter() - begun) / count

    timed(2)
    count = max(3, math.ceil(SECONDS / timed(3)))

    def milliseconds(threads):
        with threadpool_limits(threads, "blas"):
            timed(2)  # wakes the threads
            found = 1e3 * timed(count)
        if threads > 1:
            time.sleep(ASLEEP)
        return found

    return milliseconds


def measure(works, threads, rounds):
    """Milliseconds of a step with one thread and with `threads`, an array (rounds, 2) for each workload."""
    with progress_bar((1 + rounds) * len(works), 0, None, unit=" rounds") as bar:
        prepared = []
        for work in works:
            prepared.append(prepare(work))
            bar.update(1)
        found = np.empty((len(works), rounds, 2))
        for r in range(rounds):
            settings = [(0, 1), (1, threads)]
            for k, milliseconds in enumerate(prepared):
                for column, n in settings if r % 2 == 0 else reversed(settings):
                    found[k, r, column] = milliseconds(n)
                bar.update(1)
    return found


def median_interval(values):
    """Return the median of `values` and the bounds of its 95 % interval, which supposes nothing of their distribution.

    Each of n independent values lies below the true median with probability 1/2, so that the k-th smallest and the k-th
    largest enclose it with probability 1 - 2 P(B < k), B binomial (n, 1/2). The largest k that leaves 95 % is taken.
    """
    n = len(values)
    k = 0
    below = 0.0  # P(B < k)
    while 2 * (below + math.comb(n, k) / 2**n) <= 0.05:
        below += math.comb(n, k) / 2**n
        k += 1
    if k == 0:
        raise ValueError(f"{n} values have no 95 % interval; expected {LEAST_ROUNDS} or more")
    ordered = np.sort(values)
    return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k])


def summary(work, times):
    """The row of a workload, as JSON, from its times (rounds, 2)."""
    one, every = np.median(times, axis=0)
    ratio, low, high = median_interval(times[:, 1] / times[:, 0])
    return {
        "size": f"{work.n_visible}-{work.n_hidden}-{work.n_latent}",
        "batch_size": work.batch_size,
        "largest_product": largest_product(work),
        "one_ms": round(float(one), 4),
        "all_ms": round(float(every), 4),
        "ratio": round(ratio, 3),
        "interval": [round(low, 3), round(high, 3)],
    }


def table(rows, threads):
    """The rows as text, by the size of the largest product, with the number of threads that is chosen for each."""
    lines = [
        f"{'D-H-J':>11} {'M':>4} {'largest product':>16} {'1 thread':>9} {f'{threads} threads':>10} "
        f"{'ratio':>6} {'95 % interval':>15} {'chosen':>7}"
    ]
    for row in sorted(rows, key=lambda row: row["largest_product"]):
        low, high = row["interval"]
        lines.append(
            f"{row['size']:>11} {row['batch_size']:>4} {row['largest_product'] / 1e6:>14.2f} M "
            f"{row['one_ms']:>6.2f} ms {row['all_ms']:>7.2f} ms {row['ratio']:>6.2f} {f'{low:.2f} to {high:.2f}':>15} "
            f"{blas_threads(row['largest_product']):>7}"
        )
    return "\n".join(lines)


@contextlib.contextmanager
def busy_cores():
    """Keep every core busy with a process of its own, which ends with this one at the latest."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores())]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    """Measure, print the table, and write a JSON file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), metavar="D-H-J[,D-H-J]", help="models (five of them)")
    parser.add_argument("--batch-size", default=MINIBATCHES, metavar="M[,M]", help=f"minibatches ({MINIBATCHES})")
    parser.add_argument("--rounds", type=int, default=30, help="rounds, 6 at least for an interval (30)")
    parser.add_argument("--threads", type=int, help="how many threads stand against one (all that BLAS takes)")
    parser.add_argument("--busy", action="store_true", help="keep every core busy with another process")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write threads.json, or threads-busy.json, there")
    settings = parser.parse_args()
    try:
        works = [workload(size, int(m)) for size in settings.sizes.split(",") for m in settings.batch_size.split(",")]
    except ValueError:
        parser.error("--sizes are such as 784-500-20 and --batch-size such as 20,100")
    if settings.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds is {settings.rounds}; expected {LEAST_ROUNDS} or more, for an interval")
    threads = blas_threads(math.inf) if settings.threads is None else settings.threads
    if threads is None or threads < 2:
        parser.error("BLAS has one thread here, or none that can be set; expected two or more (--threads)")
    if settings.out is not None:
        output.prepare(parser, settings.out)
    with busy_cores() if settings.busy else contextlib.nullcontext():
        times = measure(works, threads, settings.rounds)
    result = {
        "machine": bench.machine(),
        "busy": settings.busy,
        "threads": threads,
        "rounds": settings.rounds,
        "rows": [summary(*one) for one in zip(works, times, strict=True)],
    }
    beside = f", beside {cores()} processes that keep its cores busy" if settings.busy else ""
    print(f"{bench.describe(result['machine'])}{beside}; {settings.rounds} rounds")
    print(table(result["rows"], threads))
    if settings.out is not None:
        output.write(settings.out / ("threads-busy.json" if settings.busy else "threads.json"), result)


if __name__ == "__main__":
    with tolerant():
        main()
