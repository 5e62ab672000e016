"""How a step scales over ranks of MPI on this machine, and what a model says for more: python benchmarks/ranks.py.

A step of `bench.training_step` is timed in one process and on two ranks, each with one BLAS thread, over minibatches M
from 100 to 10,000 and two models, 784-500-20 and 784-2000-50. Beside each stand its matrix products alone, on as many
processes at the same time, each with its share of the rows. All of them take turns, a round each, since a machine has
fast and slow spells, and the lower quartiles are compared.

    python benchmarks/ranks.py --results benchmarks/results       # some twenty minutes on two quiet cores

Then come evaluation, importance sampling and Hamiltonian Monte Carlo, which share out a data set and not a minibatch,
and the memory that the last rank of a training takes for itself beyond what its imports take.

Strong scaling is the same minibatch on more ranks, and weak scaling is as many rows for each. What follows for more
ranks, on machines that a network connects, is said by a model of the cost with five numbers that are fitted to these
times:

    t(M, P) = a + b F/P + c n/P + (d n + e) [P > 1]

F is the number of floating-point operations of the products, n the number of parameters. a is what a step takes
whatever its size, 1/b is the rate of the products and of what goes with them, c the update of a parameter, d the sum of
a parameter's gradients over ranks in shared memory, and e what meeting takes. Between machines the last term is another
one: each rank sends and receives its gradients and its values once,

    2 · 4 bytes · n (P - 1)/P / bandwidth + latency (P - 1 + 2 log2 P)

with a latency of 50, 20 and 5 µs for networks of 1, 10 and 100 Gbit/s, which is assumed here and not measured.
"""

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import output

from scratchvae import VAE, bench, evaluate, fit, plots
from scratchvae.bench import Workload
from scratchvae.cli.output import tolerant
from scratchvae.inference.hmc import log_joint, sample
from scratchvae.inference.marginal import importance
from scratchvae.ranks import ALONE, Ranks, started
from scratchvae.training.loop import progress_bar

SIZES = ((784, 500, 20), (784, 2000, 50))
MINIBATCHES = (100, 200, 500, 1000, 2000, 5000, 10_000)
SECONDS = 0.1  # of a round, at least, or three steps
OVER_ROWS = {"evaluate": 10, "importance": 1, "hmc": 2}  # what shares out a data set, and how often a round does it
PRIVATE = Path("/proc/self/smaps_rollup")  # where Linux says what memory a process shares with others
MACHINES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NETWORKS = {1: 50e-6, 10: 20e-6, 100: 5e-6}  # Gbit/s, and the latency that is assumed for it, in seconds


def work_of(size, m):
    """The workload of a size D-H-J with a minibatch of m rows."""
    return Workload(n_visible=size[0], n_hidden=size[1], n_latent=size[2], batch_size=m)


def communicator():
    """All ranks that mpiexec has started, or None in a process by itself."""
    if started()[1] == 1:
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD


def over_rows(comm, scale):
    """{name in OVER_ROWS: function()} of what runs over the rows of a data set, at a fraction of its full size.

    The pixels are random and the models as they were initialised: what they hold does not change what they cost.
    """
    n, images, draws = (max(10, int(count * scale)) for count in (10_000, 1000, 5000))
    x = np.random.default_rng(0).integers(0, 256, (n, 784), np.uint8)
    model, narrow = (VAE(784, 500, n_latent, init="glorot") for n_latent in (20, 3))
    ranks = ALONE if comm is None else Ranks(comm)
    z = narrow.encode_mean(x[:images])
    target = log_joint(narrow.decoder, narrow.pixels(x[:images][ranks.share(images).rows]))
    return {
        "evaluate": lambda: evaluate(model, x, comm=ranks),
        "importance": lambda: importance(model, x[:images], draws, comm=ranks),
        "hmc": lambda: sample(target, z, np.random.default_rng(0), 20, burn_in=0, stepsize=0.1, comm=ranks),
    }


def serve(works, scale):
    """Prepare all that is timed, and time one of it for each line "what number count" on stdin.

    It prints the milliseconds of one step, of the products alone, or of what runs over a data set, on all ranks from
    the first to the last.
    """
    comm = communicator()
    size = 1 if comm is None else comm.size
    made = {(name, 0): function for name, function in over_rows(comm, scale).items()}
    batches = {}
    for k, work in enumerate(works):
        share = Workload(n_visible=work.n_visible, n_hidden=work.n_hidden, batch_size=work.batch_size // size)
        made["products", k] = bench.matrix_products(Workload(**vars(share) | {"n_latent": work.n_latent}))
        made["step", k] = bench.training_step(work, comm=comm)
        batches[k] = bench.minibatches(work, 2)
    warnings.simplefilter("ignore")  # of k_hat: an encoder that was not trained
    if comm is None or comm.rank == 0:
        print("ready", flush=True)
    for line in output.turns(comm):
        what, k, count = line.split()
        function = made[what, int(k)]
        x = batches[int(k)]
        calls = [{"step": (t, x[t % 2]), "products": (t,)}.get(what, ()) for t in range(int(count))]
        if what not in OVER_ROWS:
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


def own_memory():
    """The MiB that this process shares with no other, as Linux counts them."""
    lines = PRIVATE.read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1024


@dataclass
class Images:
    """What the ranks of a machine have once, as `Ranks.load` takes it."""

    train: np.ndarray


class Watched(VAE):
    """A VAE that looks at the memory of its process in every step."""

    most = 0.0

    def bound(self, *arguments, **settings):
        """The bound of VAE."""
        found = super().bound(*arguments, **settings)
        self.most = max(self.most, own_memory())
        return found


def print_memory():
    """Train on ranks for 30 steps, and print by how many MiB the last of them has grown since its imports."""
    with Ranks(communicator()) as ranks:
        idle = own_memory()
        images = ranks.load(lambda: Images(np.random.default_rng(0).integers(0, 256, (50_000, 784), np.uint8)))
        model = Watched(784, 500, 20)
        fit(model, images.train, samples=3000, progress=False, comm=ranks)
        if ranks.rank == ranks.size - 1:
            print(model.most - idle)


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


def memory_of_a_rank(size):
    """The MiB by which the last of so many ranks has grown in a training, as `print_memory` prints them."""
    command = [output.mpiexec(), "-n", str(size), sys.executable, __file__, "--memory"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return round(float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout), 1)


def measure(works, sizes, rounds, looks, words, progress=None):
    """Milliseconds {(what, number of the workload, ranks): [of every round]}, all of them in turns.

    What runs over a data set has the number 0, and fewer rounds: `looks`.
    """
    servers = {size: start(size, words) for size in sizes}

    def ask(what, k, size, count):
        print(what, k, count, file=servers[size].stdin, flush=True)
        return float(servers[size].stdout.readline())

    turns = [(what, k, size) for k in range(len(works)) for what in ("step", "products") for size in sizes]
    counts = {turn: max(3, math.ceil(1e3 * SECONDS / ask(*turn, 3))) for turn in turns}
    longer = [(what, 0, size) for what in OVER_ROWS for size in sizes]
    counts |= {turn: OVER_ROWS[turn[0]] for turn in longer}
    found = {turn: [] for turn in turns + longer}
    with progress_bar(rounds * len(turns) + looks * len(longer), 0, progress, unit=" rounds") as bar:
        for some, count in ((turns, rounds), (longer, looks)):
            for r in range(count):
                for turn in some if r % 2 == 0 else reversed(some):
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


def rows_over_data(sizes, found):
    """A row for each of OVER_ROWS and number of ranks: seconds, the median, and what one process takes over them."""
    rows = []
    for what in OVER_ROWS:
        seconds = {size: float(np.median(found[what, 0, size])) / 1e3 for size in sizes}
        rows += [
            {"what": what, "ranks": size, "seconds": round(taken, 4), "gain": round(seconds[1] / taken, 3)}
            for size, taken in seconds.items()
        ]
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


def table_over_data(rows):
    """The rows of what runs over a data set as text."""
    return "\n".join(
        f"{row['what']:>12} {row['ranks']:>6} ranks {row['seconds']:>9.3f} s, gain {row['gain']:.2f}" for row in rows
    )


def main():
    """Measure, fit, print, draw, and write ranks.json and ranks.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="in which everybody has a turn (20)")
    parser.add_argument("--batch-size", default=",".join(map(str, MINIBATCHES)), metavar="M[,M]", help="minibatches")
    parser.add_argument(
        "--ranks", default="1,2", metavar="P[,P]", help="numbers of ranks; 1 is always among them (1,2)"
    )
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="a folder (runs/bench)")
    parser.add_argument("--looks", type=int, default=3, help="rounds of what runs over a data set, 0 for none (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of that data set, for a quick look (1)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        minibatches = [int(m) for m in given.batch_size.split(",")]
        sizes = sorted({1, *(int(p) for p in given.ranks.split(","))})
    except ValueError:
        parser.error("--batch-size are such as 100,1000 and --ranks such as 1,2")
    if min(minibatches) < max(sizes) or sizes[0] < 1 or given.rounds < 1 or given.looks < 0:
        parser.error("expected one row for each rank at least, one rank at least and one round at least")
    if not 0 < given.scale <= 1:
        parser.error(f"--scale is {given.scale:g}; expected a fraction above 0, at most 1")
    works = [work_of(size, m) for size in SIZES for m in minibatches]
    if given.memory:
        return print_memory()
    if given.serve:
        return serve(works, given.scale)
    if started()[1] > 1:
        parser.error("mpiexec has started this, which starts ranks by itself: leave mpiexec out")
    if output.mpiexec() is None or importlib.util.find_spec("mpi4py") is None:
        parser.error('there is no mpiexec or no mpi4py: pip install -e ".[mpi]"')
    output.prepare(parser, given.results)
    words = ["--batch-size", given.batch_size, "--scale", str(given.scale)]
    found = measure(works, sizes, given.rounds, given.looks, words)
    rows = rows_of(works, sizes, found)
    over_data = rows_over_data(sizes, found) if given.looks else []
    memory = memory_of_a_rank(max(sizes)) if given.looks and max(sizes) > 1 and PRIVATE.exists() else None
    numbers, errors = fitted(works, rows)
    print(bench.describe(bench.machine()))
    print(table(rows))
    print(table_over_data(over_data))
    if memory is not None:
        print(f"the last of {max(sizes)} ranks of a training holds {memory:.0f} MiB of its own beyond its imports")
    off = f"off by {np.abs(errors).mean():.0%} on average, {np.abs(errors).max():.0%} at most"
    print(f"the model of the cost, five numbers fitted to {len(rows)} times, is {off}")
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
        "over_data": over_data,
        "own_memory_mib": memory,
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
