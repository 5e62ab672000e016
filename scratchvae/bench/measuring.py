"""Times training steps in rounds, which go through all workloads, so that a slow spell falls on all of them alike.

Times are in milliseconds per step, unless a name says otherwise.
"""

import subprocess
import sys
import time

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import move
from scratchvae.bench.device_clock import DeviceClock
from scratchvae.bench.machines import blas_limited, machine
from scratchvae.bench.peaks import peak_gflops, waiting
from scratchvae.bench.workloads import MINIBATCHES, matrix_products, minibatches, training_step
from scratchvae.training.loop import progress_bar

ROUND = 0.04  # seconds that the steps of a round take
ALONE = 5  # steps of a round that are timed one by one on the device
LARGE = 5000  # rows of a minibatch
ASLEEP = 0.05  # seconds after which OpenBLAS's threads have stopped looking for work, and no longer hold a core


def prepare(workload):
    """Return a function round(), which times one round of training steps, and the number of steps in a round.

    A round has as many steps as take 40 ms, and at least three. Before them it makes the matrix products alone as many
    times. On the device both end with one wait, and no bound is read. If the workload names a number of BLAS threads,
    a round takes so many, wakes them with two steps, and waits at its end until they sleep. round() returns a dict of
    milliseconds per step:

    products_ms         is what the matrix products take alone.
    ms                  is what the whole step takes. The other three are measured on a device only.
    device_ms           is how long the device works on a step that is in its queue already (see `DeviceClock`).
    launch_ms           is how long the host takes to put a step in the queue.
    late                is above 0 where the device had to wait for the host all the same: device_ms is too long then.
    with_transfers_ms   is what a step takes if its pixels are sent and its bound is read each time.
    """
    step = training_step(workload)
    products = matrix_products(workload)
    host = minibatches(workload, MINIBATCHES if workload.batch_size < LARGE else 2)  # they take long to be drawn
    x = [move(batch, workload.backend) for batch in host]
    clock = DeviceClock() if workload.backend == "cupy" else None
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
        return step(t, x[t % len(x)])

    def sent(t):
        float(step(t, move(host[t % len(host)], "cupy")))

    with blas_limited(workload.threads):
        timed(one, 3)  # this call and the next warm up
        timed(products, 3)
        count = steps_in_a_round(timed(one, 3)[1])

    def times_of_a_round():
        times = {"products_ms": timed(products, count)[1], "ms": timed(one, count)[1]}
        if clock is not None:
            alone = [clock.timed(lambda t=t: one(t), 1, times["ms"]) for t in range(ALONE)]
            launch, device, ahead = np.median(alone, axis=0)
            times |= {"device_ms": device, "launch_ms": launch, "with_transfers_ms": timed(sent, count)[1]}
            times["late"] = 1.0 - ahead
        return times

    def round():
        if workload.threads is None:
            return times_of_a_round()
        with blas_limited(workload.threads):
            timed(one, 2)  # wakes the threads
            times = times_of_a_round()
        time.sleep(ASLEEP)
        return times

    return round, count


def steps_in_a_round(ms):
    """Return how many steps of so many milliseconds a round has: as many as take 40 ms, and at least three."""
    return max(3, int(1e3 * ROUND / ms))


def cold_start(backend):
    """Return the seconds from the start of a new process until its first bound has been read; None if it fails.

    Kernels that CuPy has compiled before are in its cache on disk, and are not compiled again.
    """
    code = (
        "from scratchvae.backend import move; from scratchvae.bench import Workload, minibatches, training_step; "
        f"w = Workload({backend!r}); float(training_step(w)(0, move(minibatches(w)[0], {backend!r})))"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    return None if done.returncode else time.perf_counter() - begun


def summary(workload, steps, rounds):
    """Return the row of a workload as a dict that JSON can hold, from the times that its rounds returned.

    `ms` and all other times are lower quartiles over the rounds, which tell what the machine does when nothing disturbs
    it. `ms_median` and `ms_upper_quartile` show how far it was disturbed. `samples_per_s` is how many datapoints a
    second they make at `ms`. `over_products` is `ms` over the time of the matrix products alone. `gflops` is the rate
    of their operations in 10⁹ per second. steps is the number of steps in a round, and `rounds_ms` are the times of a
    step in each round, from which `compare` takes its intervals.
    """
    row = workload.as_row() | {key: np.quantile([times[key] for times in rounds], 0.25) for key in rounds[0]}
    row["ms_median"], row["ms_upper_quartile"] = np.quantile([times["ms"] for times in rounds], [0.5, 0.75])
    row["samples_per_s"] = 1e3 * workload.batch_size / row["ms"]
    row["over_products"] = row["ms"] / row["products_ms"]
    row["gflops"] = workload.flops() / row["ms"] / 1e6
    row |= {"steps_in_a_round": steps, "rounds_ms": [times["ms"] for times in rounds]}
    return {key: plain(value) for key, value in row.items()}


def peak_name(row):
    """Return what the peak that a row stands beside is called, from its backend, its precision and its threads."""
    name = f"{row['backend']} {row['dtype']}"
    return name if row.get("threads") is None else f"{name} {told_threads(row['threads'])}"


def told_threads(threads):
    """Return a number of BLAS threads in words."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def run(workloads, repeats=10, progress=None):
    """Measure the workloads and return a dict that JSON can hold.

    Its "rows" are those of `summary`, one for each workload; "machine" is what `machine` returns; "peak_gflops" and
    "cold_start_s" are what `peak_gflops` and `cold_start` return for each backend.

    workloads   lists the workloads, as `sweep` returns them.
    repeats     is the number of rounds, 10 unless given. Each goes through all workloads, so that a disturbance of the
                machine falls on all of them alike, and every other one goes backwards, so that of two neighbours none
                is always the first. Other than whole numbers ≥ 1 raise a ValueError.
    progress    True shows a bar on stderr, False none, and None one on a terminal only.
    """
    repeats = whole("repeats", repeats)
    backends = list(dict.fromkeys(work.backend for work in workloads))
    result = {"machine": machine(backends), "repeats": repeats}
    with progress_bar((1 + repeats) * len(workloads), 0, progress, unit=" rounds") as bar:
        prepared = []
        for work in workloads:  # before anything is measured, so that a model that cannot be made is refused at once
            prepared.append(prepare(work))
            bar.update(1)
        result |= {"cold_start_s": {backend: plain(cold_start(backend)) for backend in backends}, "peak_gflops": {}}
        for backend, dtype, threads in dict.fromkeys((work.backend, work.dtype, work.threads) for work in workloads):
            name = peak_name({"backend": backend, "dtype": dtype, "threads": threads})
            with blas_limited(threads):
                result["peak_gflops"][name] = plain(peak_gflops(backend, dtype))
        rounds = [[] for _ in workloads]
        for r in range(repeats):
            turns = list(zip(prepared, rounds, strict=True))
            for (round, _), times in turns if r % 2 == 0 else reversed(turns):
                times.append(round())
                bar.update(1)
    everything = zip(workloads, prepared, rounds, strict=True)
    return result | {"rows": [summary(work, steps, times) for work, (_, steps), times in everything]}


def plain(value):
    """Return a value that JSON can hold, with numbers rounded to four figures."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value
