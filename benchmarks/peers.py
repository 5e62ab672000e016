"""One training step of the paper's model, ours against other ways to have it: python benchmarks/peers.py.

784-500-20-500-784, M = 100, or other sizes (--visible, --hidden, --latent, --batch-size); L = 1, L^B, tanh, MAP,
float32, Adagrad 0.01. A step goes from a minibatch of uint8 pixels to updated parameters and a bound that has been
read: noise, bound, gradient, update. Everybody is given the same initial values, minibatches and noise, and whoever's
first ten bounds are not ours is left out, with the reason.

Each runs in a process of its own, so that nobody's waiting threads slow another. They take turns, a round of steps
each, since a machine has fast and slow spells. Compared are the lower quartiles, what each does in the fast ones;
median and upper quartile show the others. The two PyTorch rows with a fused optimiser are its own option, fused=True.

    python benchmarks/peers.py --threads 1                        # everybody on one thread
    python benchmarks/peers.py --hidden 1000 --batch-size 500     # another size
    python benchmarks/peers.py --device cuda                      # everybody on the GPU, ours through CuPy

With --threads each is told by its own means, and what it then uses is read back where it can be read: PyTorch tells
it, threadpoolctl tells that of NumPy's BLAS, and the threads of XLA's pool are counted. XLA has no setting for its
pool; the variable NPROC and, for one thread, --xla_cpu_multi_thread_eigen=false limit it. `cores busy` is processor
time over the time of the steps, for everybody, threads that wait in a loop included.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import output
from child import Child

from scratchvae import VAE, bench
from scratchvae.backend import cores, fusing, keep_freed_memory, move
from scratchvae.bench.peaks import waiting
from scratchvae.cli.output import tolerant
from scratchvae.noise import standard_normal
from scratchvae.training.loop import STEP, progress_bar, stream

N = 50_000
AGREE = 1e-4  # relative, of the first ten bounds in float32
FEWEST = 0.9  # cores that a peer on the CPU keeps busy, unless other programs take them
LONGEST = 300  # seconds for an answer: the first may have to compile
SPREAD = 0.15  # of the quartiles over the median, above which other programs were at work
OURS, RANKS, PRODUCTS = "scratchvae", "scratchvae, two ranks", "its matrix products alone"
FUSED = "scratchvae, fused"  # on a device alone: see backend.fused
PREFIX = {RANKS: [output.mpiexec(), "-n", "2"]}  # the words before the command that starts a peer, by its name


@dataclass(frozen=True)
class Setting:
    """What a peer is measured with: the sizes D, H, J and M, its threads (None: as many as it takes), its device."""

    n_visible: int = bench.Workload.n_visible
    n_hidden: int = bench.Workload.n_hidden
    n_latent: int = bench.Workload.n_latent
    batch_size: int = bench.Workload.batch_size
    threads: int | None = None
    device: str = "cpu"

    def workload(self):
        """Our own step of these sizes."""
        backend = "numpy" if self.device == "cpu" else "cupy"
        return bench.Workload(backend, "float32", self.n_visible, self.n_hidden, self.n_latent, self.batch_size)

    def words(self):
        """The options that say the same on the command line."""
        sizes = [("visible", self.n_visible), ("hidden", self.n_hidden), ("latent", self.n_latent)]
        given = [*sizes, ("batch-size", self.batch_size), ("threads", self.threads), ("device", self.device)]
        return [word for name, value in given if value is not None for word in (f"--{name}", str(value))]


def minibatches(setting):
    """Ten minibatches of uint8 pixels in host memory, (10, M, D)."""
    return bench.minibatches(setting.workload(), 10)


def initial(setting):
    """{name: array} of our model at its start; its arrays are the peers' too."""
    flat = VAE(setting.n_visible, setting.n_hidden, setting.n_latent).params
    return {name: window.copy() for name, window in flat.named(flat.value).items()}


def noise(setting, t):
    """ε of step t, (M, J)."""
    return standard_normal(stream(0, STEP, t), (1, setting.batch_size, setting.n_latent), np.float32)[0]


# Each is a function of the setting that prepares and returns step(t), which makes step t and returns the bound


def scratchvae(setting):
    """This library."""
    limit_blas(setting)
    work = setting.workload()
    step, x = bench.training_step(work, N), [move(batch, work.backend) for batch in minibatches(setting)]
    return lambda t: float(step(t, x[t % 10]))


def fused(setting):
    """This library with kernels that are fused on the device."""
    if setting.device == "cpu":
        raise ImportError("on the CPU nothing is fused")
    with fusing():
        step = scratchvae(setting)

    def fused_step(t):
        with fusing():
            return step(t)

    return fused_step


def ranks(setting):
    """This library on the ranks that mpiexec has started, each with its share of the threads."""
    from mpi4py import MPI

    step, x = bench.training_step(setting.workload(), N, MPI.COMM_WORLD), minibatches(setting)
    return lambda t: float(step(t, x[t % 10]))


def products(setting):
    """The fourteen matrix products of that step alone, into arrays that are there already; they have no bound."""
    limit_blas(setting)
    make, finish = bench.matrix_products(setting.workload()), waiting(setting.workload().backend)

    def step(t):
        make(t)
        finish()

    return step


def torch_bound(p, M):
    """The bound as a function of M pixels x and eps, from the parameters p, a dict of PyTorch's tensors by name."""
    import torch
    import torch.nn.functional as F  # noqa: N812  PyTorch's custom

    def bound(x, eps):
        x = x / 255
        h = torch.tanh(torch.addmm(p["encoder.hidden.b"], x, p["encoder.hidden.W"]))
        mu = torch.addmm(p["encoder.mu.b"], h, p["encoder.mu.W"])
        log_var = torch.addmm(p["encoder.log_var.b"], h, p["encoder.log_var.W"])
        z = mu + torch.exp(0.5 * log_var) * eps
        h = torch.tanh(torch.addmm(p["decoder.hidden.b"], z, p["decoder.hidden.W"]))
        logits = torch.addmm(p["decoder.logits.b"], h, p["decoder.logits.W"])
        neg_kl = 0.5 * (1 + log_var - mu * mu - torch.exp(log_var)).sum()
        return (N / M) * (neg_kl - F.binary_cross_entropy_with_logits(logits, x, reduction="sum"))

    return bound


def torch(setting, compiled=False, fused=False):
    """PyTorch with its own Adagrad, the bound and its gradient eager or through torch.compile."""
    import torch

    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
        torch.set_num_interop_threads(setting.threads)
    device = torch.device(setting.device)
    p = {name: torch.from_numpy(array).to(device).requires_grad_() for name, array in initial(setting).items()}
    phi = [tensor for name, tensor in p.items() if name.startswith("encoder.")]
    theta = [tensor for name, tensor in p.items() if name.startswith("decoder.")]
    groups = [{"params": phi}, {"params": theta, "weight_decay": 1.0}]  # ∂ -log p(θ)/∂θ = θ
    adagrad = torch.optim.Adagrad(groups, lr=0.01, eps=1e-10, maximize=True, fused=fused)
    x = torch.from_numpy(minibatches(setting)).to(device)
    bound = torch_bound(p, setting.batch_size)
    bound = torch.compile(bound) if compiled else bound

    def step(t):
        value = bound(x[t % 10], torch.from_numpy(noise(setting, t)).to(device))
        adagrad.zero_grad()
        value.backward()
        adagrad.step()
        return value.item()

    return step


def torch_graph(setting):
    """PyTorch, the whole step in one CUDA graph that is replayed, with Adagrad written by hand into it."""
    import torch

    if setting.device == "cpu":
        raise ImportError("a CUDA graph needs a device")
    device = torch.device(setting.device)
    p = {name: torch.from_numpy(array).to(device).requires_grad_() for name, array in initial(setting).items()}
    h = {name: torch.zeros_like(tensor) for name, tensor in p.items()}
    all_x = torch.from_numpy(minibatches(setting)).to(device)
    x = torch.empty_like(all_x[0])
    eps = torch.empty((setting.batch_size, setting.n_latent), device=device)
    value = torch.zeros((), device=device)
    bound = torch_bound(p, setting.batch_size)

    def ascend():
        now = bound(x, eps)
        gradients = torch.autograd.grad(now, list(p.values()))
        with torch.no_grad():
            for (name, tensor), g in zip(p.items(), gradients, strict=True):
                slope = g - tensor if name.startswith("decoder.") else g
                h[name].addcmul_(slope, slope)
                tensor.addcdiv_(slope, h[name].sqrt().add_(1e-10), value=0.01)
            value.copy_(now)

    kept = {name: tensor.detach().clone() for name, tensor in p.items()}
    x.copy_(all_x[0])
    eps.zero_()
    stream_of_its_own = torch.cuda.Stream()
    stream_of_its_own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream_of_its_own):
        for _ in range(3):  # warms up, as a capture asks for
            ascend()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ascend()
    with torch.no_grad():
        for name, tensor in p.items():
            tensor.copy_(kept[name])
            h[name].zero_()

    def step(t):
        x.copy_(all_x[t % 10])
        eps.copy_(torch.from_numpy(noise(setting, t)))
        graph.replay()
        return value.item()

    return step


def jax(setting):
    """JAX, the whole step under jit, parameters and optimiser state donated."""
    import jax
    import jax.numpy as jnp

    M = setting.batch_size
    platform = {"cpu": "cpu", "cuda": "gpu"}[setting.device]
    jax.config.update("jax_platforms", "cpu" if platform == "cpu" else "cuda")
    if platform == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest")  # float32, as everybody here
    x = minibatches(setting)

    def bound(p, x, eps):
        h = jnp.tanh(x @ p["encoder.hidden.W"] + p["encoder.hidden.b"])
        mu, log_var = (h @ p[f"encoder.{k}.W"] + p[f"encoder.{k}.b"] for k in ("mu", "log_var"))
        z = mu + jnp.exp(0.5 * log_var) * eps
        h = jnp.tanh(z @ p["decoder.hidden.W"] + p["decoder.hidden.b"])
        a = h @ p["decoder.logits.W"] + p["decoder.logits.b"]
        log_px = (x * a - jnp.maximum(a, 0) - jnp.log1p(jnp.exp(-jnp.abs(a)))).sum()
        return (N / M) * (0.5 * (1 + log_var - mu * mu - jnp.exp(log_var)).sum() + log_px)

    def ascend(p, s, pixels, eps):
        value, g = jax.value_and_grad(bound)(p, pixels.astype(jnp.float32) / 255, eps)
        g = {k: g[k] - p[k] if k.startswith("decoder.") else g[k] for k in p}
        s = {k: s[k] + g[k] * g[k] for k in p}
        return {k: p[k] + 0.01 * g[k] / (jnp.sqrt(s[k]) + 1e-10) for k in p}, s, value

    ascend = jax.jit(ascend, donate_argnums=(0, 1))
    x = x if platform == "cpu" else [jax.device_put(batch) for batch in x]
    p = {name: jnp.asarray(array) for name, array in initial(setting).items()}
    s = {name: jnp.zeros_like(array) for name, array in p.items()}

    def step(t):
        nonlocal p, s
        p, s, value = ascend(p, s, x[t % 10], noise(setting, t))
        return float(value)

    return step


def autograd(setting, kept=True):
    """HIPS autograd, and Adagrad in plain NumPy; its freed memory is kept like ours, or as glibc has it."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    if setting.device != "cpu":
        raise ImportError("it works on the CPU alone")
    limit_blas(setting)
    M = setting.batch_size

    def bound(p, x, eps):
        h = anp.tanh(anp.dot(x, p["encoder.hidden.W"]) + p["encoder.hidden.b"])
        mu, log_var = (anp.dot(h, p[f"encoder.{k}.W"]) + p[f"encoder.{k}.b"] for k in ("mu", "log_var"))
        z = mu + anp.exp(0.5 * log_var) * eps
        h = anp.tanh(anp.dot(z, p["decoder.hidden.W"]) + p["decoder.hidden.b"])
        a = anp.dot(h, p["decoder.logits.W"]) + p["decoder.logits.b"]
        log_px = anp.sum(x * a - anp.maximum(a, 0) - anp.log1p(anp.exp(-anp.abs(a))))
        return (N / M) * (0.5 * anp.sum(1 + log_var - mu * mu - anp.exp(log_var)) + log_px)

    if kept:
        keep_freed_memory()
    p, x, gradient = initial(setting), minibatches(setting), value_and_grad(bound)
    s = {name: np.zeros_like(array) for name, array in p.items()}

    def step(t):
        value, g = gradient(p, x[t % 10] / np.float32(255), noise(setting, t))
        for k in p:
            slope = g[k] - p[k] if k.startswith("decoder.") else g[k]
            s[k] += slope * slope
            p[k] += np.float32(0.01) * slope / (np.sqrt(s[k]) + np.float32(1e-10))
        return float(value)

    return step


PEERS = {
    OURS: scratchvae,
    FUSED: fused,
    RANKS: ranks,
    PRODUCTS: products,
    "PyTorch eager": torch,
    "PyTorch eager, fused Adagrad": lambda setting: torch(setting, fused=True),
    "PyTorch torch.compile": lambda setting: torch(setting, compiled=True),
    "PyTorch torch.compile, fused Adagrad": lambda setting: torch(setting, compiled=True, fused=True),
    "PyTorch CUDA graph": torch_graph,
    "JAX jit, donated buffers": jax,
    "HIPS autograd": autograd,
    "HIPS autograd, memory given back": lambda setting: autograd(setting, kept=False),
}
ON_A_DEVICE = (FUSED, "PyTorch CUDA graph")  # alone
ON_A_CPU = tuple(name for name in PEERS if name not in ON_A_DEVICE)


# Threads: how they are set, and what is used


def limit_blas(setting):
    """Let NumPy's BLAS take the threads of the setting from now on."""
    from threadpoolctl import threadpool_limits

    if setting.threads is not None:
        threadpool_limits(setting.threads, "blas")


def environment(name, setting):
    """The variables with which a peer's process starts; libraries read some of them only then."""
    if name in PREFIX:
        threads = max(1, (setting.threads or cores()) // int(PREFIX[name][-1]))
        return os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if setting.device != "cpu":
        return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # JAX takes most of a device's memory otherwise
    if setting.threads is None:
        return dict(os.environ)
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NPROC")
    flags = [os.environ.get("XLA_FLAGS"), "--xla_cpu_multi_thread_eigen=false" if setting.threads == 1 else None]
    found = os.environ | dict.fromkeys(names, str(setting.threads))
    return found | {"XLA_FLAGS": " ".join(filter(None, flags))}


def used():
    """What this process uses, as far as it can be read after some steps: {"threads": a number, or None, "by": text}.

    A device is named where there is one.
    """
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        where = {"device": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}
        return {"threads": torch.get_num_threads(), "by": "torch.get_num_threads"} | where
    if "jax" in sys.modules:
        devices = sys.modules["jax"].devices()
        where = {} if devices[0].platform == "cpu" else {"device": devices[0].device_kind}
        return {"threads": pool_of_xla(), "by": "threads of the process called …XLAEigen"} | where
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    if "mpi4py.MPI" in sys.modules:
        size = sys.modules["mpi4py.MPI"].COMM_WORLD.size
        return {"threads": size * max(pools), "by": f"threadpoolctl, {size} ranks with {max(pools)} each"}
    where = {"device": bench.machine(["cupy"])["gpu"]} if "cupy" in sys.modules else {}
    return {"threads": max(pools, default=None), "by": "threadpoolctl"} | where


def pool_of_xla():
    """How many threads of this process belong to XLA's pool, by their names; None where the system does not tell."""
    try:
        names = [path.read_text(encoding="utf-8") for path in Path("/proc/self/task").glob("*/comm")]
    except OSError:
        return None
    return sum("XLAEigen" in name for name in names) or None


# Measuring


def serve(name, steps, setting=Setting()):
    """Make `name`'s first ten steps and print their bounds and what is used; then a round for each line that comes in.

    Of a round the median of its steps in ms is printed, and how many cores were busy.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")  # for the answers: whatever else is printed goes to stderr
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=channel, flush=True)

    try:
        step = PEERS[name](setting)
    except ImportError as error:
        return say({"left_out": f"not installed ({error})"})
    comm = sys.modules["mpi4py.MPI"].COMM_WORLD if "mpi4py.MPI" in sys.modules else None
    speaks = comm is None or comm.rank == 0
    bounds = [step(t) for t in range(10)]
    for t in range(10, 30):
        step(t)  # warm up
    if speaks:
        say({"bounds": bounds, "used": used()})
    t = 30
    for _ in output.turns(comm):
        times = []
        for k in range(5 + steps):  # the first five wake the threads up
            if k == 5:
                busy = time.process_time(), time.perf_counter()
            begun = time.perf_counter()
            step(t)
            times.append(time.perf_counter() - begun)
            t += 1
        busy = (time.process_time() - busy[0]) / (time.perf_counter() - busy[1])
        busy = busy if comm is None else comm.allreduce(busy)
        if speaks:
            say({"ms": 1e3 * float(np.median(times[5:])), "cores": busy})


def command(name, steps, setting):
    """The words that start a peer's server, PREFIX first."""
    own = [sys.executable, "-W", "ignore", __file__, "--steps", str(steps), *setting.words(), "--serve", name]
    return [*PREFIX.get(name, ()), *own]


class Server:
    """A peer in a process of its own: it gives an answer at its start, and one for each line that it is sent."""

    def __init__(self, name, steps, setting):
        self.name = name
        self.child = Child(command(name, steps, setting), environment(name, setting))

    def answer(self, seconds, line=None):
        """Send a line, if there is one, and return the answer, a dict; {"left_out": why} if none has come in time."""
        if line is not None:
            self.child.send(line)
        try:
            text = self.child.line(seconds)
            return json.loads(text) if text is not None else {"left_out": self.child.last_words()}
        except TimeoutError:
            return {"left_out": f"there was no answer in {seconds} s"}
        except ValueError:
            return {"left_out": f"it answered {text[:80]!r}"}

    def end(self):
        """End the process."""
        self.child.end()


def measure(rounds, steps, names=ON_A_CPU, setting=Setting(), progress=None, longest=LONGEST):
    """What was measured by name: a dict, or the reason why a peer is left out.

    The dict has "ms", of a step in every round, "cores", how many were busy in every round, and "used", see there. A
    peer whose answer takes longer than `longest` seconds is left out too.
    """
    if rounds < 1 or steps < 1:
        raise ValueError(f"rounds is {rounds} and steps is {steps}; expected whole numbers ≥ 1")
    with contextlib.ExitStack() as ending:
        return _measured(rounds, steps, names, setting, progress, longest, ending)


def _measured(rounds, steps, names, setting, progress, longest, ending):
    """Return what `measure` does; each process that is started is ended by the stack `ending`."""
    servers, results = {}, {}
    for name in names:
        if name in PREFIX and (reason := unable(PREFIX[name], setting)):
            results[name] = reason
        else:
            servers[name] = Server(name, steps, setting)  # all at once, since some compile for a long time
            ending.callback(servers[name].end)
    for name, server in servers.items():
        answer = server.answer(longest)
        if name == OURS:
            if "bounds" not in answer:
                raise ValueError(f"our own step cannot be made: {answer['left_out']}")
            ours = np.array(answer["bounds"])
        if "bounds" not in answer:
            results[name] = answer["left_out"]
        elif name == PRODUCTS or (off := np.abs(np.array(answer["bounds"]) / ours - 1).max()) <= AGREE:
            results[name] = {"ms": [], "cores": [], "used": answer["used"]}
        else:
            results[name] = f"its first ten bounds differ from ours by {off:.0e}"
    turns = [(name, r) for r in range(rounds) for name in names]
    with progress_bar(len(turns), 0, progress, unit=" rounds") as bar:
        for name, _ in turns:
            bar.update(1)
            if not isinstance(results[name], dict):
                continue
            time.sleep(0.05)  # until the threads of the one before have gone to sleep
            answer = servers[name].answer(longest, "go")
            if "ms" in answer:
                results[name]["ms"].append(answer["ms"])
                results[name]["cores"].append(answer["cores"])
            else:
                results[name] = f"it broke off in a round: {answer['left_out']}"
                if name == OURS:
                    raise ValueError(f"our own step: {results[name]}")
    return {name: results[name] for name in names}


def unable(prefix, setting):
    """Say why no ranks can be started with these words before the command; None if they can."""
    if prefix[0] is None:
        return 'no mpiexec: pip install -e ".[mpi]"'
    if setting.device != "cpu" or (setting.threads or cores()) < int(prefix[-1]):
        return f"{prefix[-1]} ranks take {prefix[-1]} threads on the CPU"
    return None


# The report


def summary(results, batch_size=bench.Workload.batch_size):
    """A row each: lower quartile over the rounds, median and upper quartile in ms, and the first over ours."""
    ours, rows = np.quantile(results[OURS]["ms"], 0.25), []
    for name, found in results.items():
        if isinstance(found, dict):
            ms, median, upper = (round(float(q), 3) for q in np.quantile(found["ms"], [0.25, 0.5, 0.75]))
            row = {"ms": ms, "ms_median": median, "ms_upper_quartile": upper}
            row |= {"samples_per_s": round(1e3 * batch_size / ms), "times_ours": round(float(ms / ours), 3)}
            row |= {"cores_busy": round(float(np.median(found["cores"])), 2), "used": found["used"]}
            rows.append({"name": name} | row | {"rounds_ms": [round(one, 4) for one in found["ms"]]})
        else:
            rows.append({"name": name, "left_out": found})
    return rows


def table(rows):
    """The rows as text."""
    lines = [f"{'ms per step':38}{'lower quartile':>15}{'median':>9}{'upper':>9}{'samples/s':>11}{'times ours':>12}"]
    lines[0] += f"{'threads':>9}{'cores busy':>12}"
    for row in rows:
        if "left_out" in row:
            lines.append(f"{row['name']:38}  {row['left_out']}")
        else:
            lines.append(f"{row['name']:38}{row['ms']:15.2f}{row['ms_median']:9.2f}{row['ms_upper_quartile']:9.2f}")
            threads = row["used"]["threads"]
            lines[-1] += f"{row['samples_per_s']:11,d}{row['times_ours']:12.2f}"
            lines[-1] += f"{'?' if threads is None else threads:>9}{row['cores_busy']:12.2f}"
    return "\n".join(lines)


def warnings_of(rows, setting):
    """A list of texts that say what speaks against the rows: a busy machine, or threads other than those asked for."""
    measured = [row for row in rows if "left_out" not in row]
    spread = {row["name"]: (row["ms_upper_quartile"] - row["ms"]) / row["ms_median"] for row in measured}
    texts = []
    if wide := [f"{name} {share:.0%}" for name, share in spread.items() if share > SPREAD]:
        texts.append(
            f"the quartiles are far apart, as on a busy machine ({', '.join(wide)} of the median): these times say "
            "little; stop other programs and measure again"
        )
    starved = [row["name"] for row in measured if row["cores_busy"] < FEWEST and setting.device == "cpu"]
    if starved:
        texts.append(f"less than a core was left to {', '.join(starved)}: other programs were at work")
    others = {row["name"]: row["used"]["threads"] for row in measured if setting.device == "cpu"}
    if setting.threads is not None:
        wrong = [f"{name} uses {n}" for name, n in others.items() if n not in (None, setting.threads)]
        texts += [f"not all use {setting.threads} threads: {', '.join(wrong)}"] if wrong else []
    return texts


def main():
    """Print the table and write peers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Setting()
    parser.add_argument("--visible", type=int, default=default.n_visible, metavar="D", help="pixels (784)")
    parser.add_argument("--hidden", type=int, default=default.n_hidden, metavar="H", help="hidden units (500)")
    parser.add_argument("--latent", type=int, default=default.n_latent, metavar="J", help="latent dimensions (20)")
    parser.add_argument("--batch-size", type=int, default=default.batch_size, metavar="M", help="minibatch (100)")
    parser.add_argument("--threads", type=int, metavar="T", help="of each peer (as many as it takes by itself)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu (default), or cuda: a GPU")
    parser.add_argument("--rounds", type=int, default=40, help="in which each has a turn (40)")
    parser.add_argument("--steps", type=int, default=20, help="in a round (20)")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="where peers.json goes (runs/bench)")
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.parse_args()
    output.stand_in_if_asked()
    sizes = {"visible": given.visible, "hidden": given.hidden, "latent": given.latent, "batch-size": given.batch_size}
    counts = {"rounds": given.rounds, "steps": given.steps, "threads": given.threads}
    for name, value in (sizes | counts).items():
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; expected a whole number ≥ 1")
    setting = Setting(*sizes.values(), given.threads, given.device)
    if given.serve:
        return serve(given.serve, given.steps, setting)
    output.prepare(parser, given.results)
    try:
        names = ON_A_CPU if given.device == "cpu" else tuple(PEERS)
        rows = summary(measure(given.rounds, given.steps, names, setting), setting.batch_size)
    except ValueError as error:
        parser.error(str(error))
    print(table(rows))
    told = warnings_of(rows, setting)
    for text in told:
        print(f"warning: {text}")
    versions = {name: metadata.version(name) for name in ("torch", "jax", "autograd") if find_spec(name)}
    facts = {
        "machine": bench.machine([setting.workload().backend]),
        "peers": versions,
        "setting": asdict(setting),
        "warnings": told,
        "rounds": given.rounds,
        "steps": given.steps,
        "rows": rows,
    }
    output.write(given.results / "peers.json", facts)


if __name__ == "__main__":
    with tolerant():
        main()
