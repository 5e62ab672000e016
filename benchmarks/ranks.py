"""How a step scales over ranks of MPI on this machine, and what a model says for more: python benchmarks/ranks.py.

A step of `bench.training_step` is timed in one process and on two ranks, each with one BLAS thread, over minibatches M
from 100 to 10,000 and two models, 784-500-20 and 784-2000-50. Beside each stand its matrix products alone, on as many
processes at the same time, each with its share of the rows. All of them take turns, a round each, since a machine has
fast and slow spells, and the lower quartiles are compared.

    python benchmarks/ranks.py --results benchmarks/results       # some ten minutes on two quiet cores

Strong scaling is the same minibatch on more ranks, and weak scaling is as many rows for each. What follows for more
ranks, on machines that a network connects, is said by a model of the cost with four numbers that are fitted to these
times:

    t(M, P) = a + b F/P + c n/P + (d n + e) [P > 1]

F is the number of floating-point operations of the products, n the number of parameters. a is what a step takes
whatever its size, 1/b is the rate of the products and of what goes with them, c the update of a parameter, d the sum of
a parameter's gradients over ranks in shared memory, and e what meeting takes. Between machines the last term is another
one: each rank sends and receives its gradients and its values once,

    2 · 4 bytes · n (P - 1)/P / bandwidth + latency (P - 1 + 2 log2 P)

with a latency of 50, 20 and 5 µs for networks of 1, 10 and 100 Gbit/s, which is supposed here and not measured.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import output

from scratchvae import bench, plots
from scratchvae.bench import Workload
from scratchvae.cli.output import tolerant
from scratchvae.training.loop import progress_bar

SIZES = ((784, 500, 20), (784, 2000, 50))
MINIBATCHES = (100, 200, 500, 1000, 2000, 5000, 10_000)
SECONDS = 0.1  # of a round, at least, or three steps
MACHINES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NETWORKS = {1: 50e-6, 10: 20e-6, 100: 5e-6}  # Gbit/s, and the latency that is supposed for it, in seconds


def work_of(size, m):
    """The workload of a size D-H-J with a minibatch of m rows."""
    return Workload(n_visible=size[0], n_hidden=size[1], n_latent=size[2], batch_size=m)


def serve(works):
    """Prepare steps and products of all workloads, and time one of them for each line "what number count" on stdin.

    It prints the milliseconds of one step, or of the products alone, on all ranks from the first to the last.
    """
    comm = None
    if int(os.environ.get("PMI_SIZE", os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))) > 1:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    size = 1 if comm is None else comm.size
    made = {}
    batches = {}
    for k, work in enumerate(works):
        share = Workload(n_visible=work.n_visible, n_hidden=work.n_hidden, batch_size=work.batch_size // size)
        made["products", k] = bench.matrix_products(Workload(**vars(share) | {"n_latent": work.n_latent}))
        made["step", k] = bench.training_step(work, comm=comm)
        batches[k] = bench.minibatches(work, 2)
    if comm is None or comm.rank == 0:
        print("ready", flush=True)
    for line in output.turns(comm):
        what, k, count = line.split()
        function = made[what, int(k)]
        x = batches[int(k)]
        calls = [(t, x[t % 2]) if what == "step" else (t,) for t in range(int(count))]
        function(*calls[0])  # wakes everybody up
        if comm is not None:
            comm.Barrier()
        begun = time.perf_counter()
        for call in calls:
            function(*call)
        if comm is not None:
            comm.Barrier()
        if comm is None or comm.rank == 0:
            print(1e3 * (time.perf_counter() - begun) / len(calls), flush=True)


def start(size, words):
    """Start the server on so many ranks, each with one BLAS thread."""
    command = [sys.executable, __file__, "--serve", *words]
    if size > 1:
        command = [output.mpiexec(), "-n", str(size), *command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    process = subprocess.Popen(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, **pipes)
    if process.stdout.readline() != "ready\n":
        raise ValueError(f"the server of {size} ranks has not started")
    return process


def measure(works, sizes, rounds, words, progress=None):
    """Milliseconds {(what, number of the workload, ranks): [of every round]}, all of them in turns."""
    servers = {size: start(size, words) for size in sizes}

    def ask(what, k, size, count):
        print(what, k, count, file=servers[size].stdin, flush=True)
        return float(servers[size].stdout.readline())

    turns = [(what, k, size) for k in range(len(works)) for what in ("step", "products") for size in sizes]
    counts = {turn: max(3, math.ceil(1e3 * SECONDS / ask(*turn, 3))) for turn in turns}
    found = {turn: [] for turn in turns}
    with progress_bar(rounds * len(turns), 0, progress, unit=" rounds") as bar:
        for r in range(rounds):
            for turn in turns if r % 2 == 0 else reversed(turns):
                found[turn].append(ask(*turn, counts[turn]))
                bar.update(1)
    for server in servers.values():
        server.communicate()
    return found


def rows_of(works, sizes, found):
    """A row for each workload and number of ranks: the lower quartiles, and what one process takes over them."""
    rows = []
    for k, work in enumerate(works):
        alone = {what: float(np.quantile(found[what, k, 1], 0.25)) for what in ("step", "products")}
        for size in sizes:
            ms = {what: float(np.quantile(found[what, k, size], 0.25)) for what in ("step", "products")}
            rows.append(
                {
                    "size": f"{work.n_visible}-{work.n_hidden}-{work.n_latent}",
                    "batch_size": work.batch_size,
                    "ranks": size,
                    "ms": round(ms["step"], 4),
                    "ms_median": round(float(np.median(found["step", k, size])), 4),
                    "products_ms": round(ms["products"], 4),
                    "samples_per_s": round(1e3 * work.batch_size / ms["step"]),
                    "gain": round(alone["step"] / ms["step"], 3),
                    "products_gain": round(alone["products"] / ms["products"], 3),
                }
            )
    return rows


# The model of the cost


def parameters(size):
    """The number of parameters of a model D-H-J."""
    D, H, J = size
    return D * H + H + 2 * (H * J + J) + J * H + H + H * D + D


def terms(work, ranks):
    """What the five numbers of the model are multiplied by, in order."""
    n = parameters((work.n_visible, work.n_hidden, work.n_latent))
    return [1.0, work.flops() / ranks, n / ranks, n * (ranks > 1), float(ranks > 1)]


def fitted(works, rows):
    """The five numbers, in seconds, and the relative errors of the model at the rows: least squares of these errors."""
    from scipy.optimize import nnls

    by_size = {(f"{w.n_visible}-{w.n_hidden}-{w.n_latent}", w.batch_size): w for w in works}
    t = np.array([row["ms"] / 1e3 for row in rows])
    A = np.array([terms(by_size[row["size"], row["batch_size"]], row["ranks"]) for row in rows])
    scale = np.abs(A).max(axis=0)
    numbers = nnls(A / scale / t[:, None], np.ones(len(t)))[0] / scale
    return numbers, A @ numbers / t - 1


def predicted(numbers, work, machines, gbits):
    """Seconds of a step on so many machines with a rank each, and in how far the network is to blame for them."""
    a, b, c, _, _ = numbers
    n = parameters((work.n_visible, work.n_hidden, work.n_latent))
    alone = a + b * work.flops() / machines + c * n / machines
    if machines == 1:
        return alone, 0.0
    sent = 2 * 4 * n * (machines - 1) / machines / (gbits * 1e9 / 8)
    waited = NETWORKS[gbits] * (machines - 1 + 2 * math.log2(machines))
    return alone + sent + waited, sent + waited


def draw(path, numbers):
    """Draw how many times faster than one rank the model says that more of them are."""
    with plots.own_settings():
        figure = plots.Figure(figsize=(11, 6), dpi=plots.DPI, layout="constrained")
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for line, size in zip(panels, SIZES, strict=True):
            for axes, m in zip(line, (100, 1000, 10_000), strict=True):
                work = work_of(size, m)
                machines = [p for p in MACHINES if p <= m]
                axes.plot(machines, machines, color="0.8", label="as many times")
                alone = predicted(numbers, work, 1, 1)[0]
                for gbits in NETWORKS:
                    gain = [alone / predicted(numbers, work, p, gbits)[0] for p in machines]
                    axes.plot(machines, gain, marker=".", label=f"{gbits} Gbit/s")
                axes.set(xscale="log", yscale="log", ylim=(0.02, 1100))
                axes.axhline(1, color="0.6", linewidth=0.6)
                axes.set_title(f"{size[0]}-{size[1]}-{size[2]}, M = {m:,}")
        for axes in panels[-1]:
            axes.set_xlabel("ranks, one a machine")
        for axes in panels[:, 0]:
            axes.set_ylabel("times as fast as one rank")
        panels[0, 0].legend()
        figure.suptitle("Strong scaling, as a model of the cost says: where a network ends it")
        figure.savefig(path)


def table(rows):
    """The rows as text."""
    lines = [f"{'D-H-J':>12} {'M':>7} {'ranks':>6} {'ms':>9} {'samples/s':>11} {'gain':>6} {'of products':>12}"]
    for row in rows:
        lines.append(f"{row['size']:>12} {row['batch_size']:>7,} {row['ranks']:>6} {row['ms']:>9.3f} ")
        lines[-1] += f"{row['samples_per_s']:>11,} {row['gain']:>6.2f} {row['products_gain']:>12.2f}"
    return "\n".join(lines)


def main():
    """Measure, fit, print, draw, and write ranks.json and ranks.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="in which everybody has a turn (20)")
    parser.add_argument("--batch-size", default=",".join(map(str, MINIBATCHES)), metavar="M[,M]", help="minibatches")
    parser.add_argument("--ranks", default="1,2", metavar="P[,P]", help="numbers of ranks, 1 among them (1,2)")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="a folder (runs/bench)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        minibatches = [int(m) for m in given.batch_size.split(",")]
        sizes = sorted({1, *(int(p) for p in given.ranks.split(","))})
    except ValueError:
        parser.error("--batch-size are such as 100,1000 and --ranks such as 1,2")
    if min(minibatches) < max(sizes) or sizes[0] < 1 or given.rounds < 1:
        parser.error("expected one row for each rank at least, one rank at least and one round at least")
    works = [work_of(size, m) for size in SIZES for m in minibatches]
    if given.serve:
        return serve(works)
    if output.mpiexec() is None:
        parser.error('there is no mpiexec: pip install -e ".[mpi]"')
    output.prepare(parser, given.results)
    found = measure(works, sizes, given.rounds, ["--batch-size", given.batch_size])
    rows = rows_of(works, sizes, found)
    numbers, errors = fitted(works, rows)
    print(bench.describe(bench.machine()))
    print(table(rows))
    print(f"the model of the cost is off by {np.abs(errors).mean():.0%} on average, {np.abs(errors).max():.0%} at most")
    best = {}
    for work in works:
        for gbits in NETWORKS:
            times = {p: predicted(numbers, work, p, gbits)[0] for p in MACHINES if p <= work.batch_size}
            fastest = min(times, key=times.get)
            best[f"{work.n_hidden}, M = {work.batch_size}, {gbits} Gbit/s"] = [
                fastest,
                round(times[1] / times[fastest], 2),
            ]
    result = {
        "machine": bench.machine(),
        "rounds": given.rounds,
        "rows": rows,
        "model": dict(zip("abcde", map(float, numbers), strict=True)),
        "model_error": {"mean": float(np.abs(errors).mean()), "largest": float(np.abs(errors).max())},
        "fastest": best,
    }
    draw(given.results / "ranks.png", numbers)
    output.write(given.results / "ranks.json", result)
    print(f"wrote {given.results / 'ranks.png'}")


if __name__ == "__main__":
    with tolerant():
        main()
