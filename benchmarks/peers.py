"""One training step of the paper's MNIST model, ours against other ways to have it: python benchmarks/peers.py.

784-500-20-500-784, M = 100, L = 1, L^B, tanh, MAP, float32, Adagrad 0.01. A step goes from a minibatch of uint8 pixels
to updated parameters and a bound that has been read: noise, bound, gradient, update. Everybody is given the same
initial values, minibatches and noise, and whoever's first ten bounds are not ours is left out, with the reason.

Each runs in a process of its own, so that nobody's waiting threads slow another. They take turns, a round of steps
each, since a machine has fast and slow spells. Compared are the lower quartiles, what each does in the fast ones;
median and upper quartile show the others. The two PyTorch rows with a fused optimiser are its own option, fused=True.
"""

import argparse
import json
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import output

from scratchvae import VAE, bench
from scratchvae.backend import keep_freed_memory
from scratchvae.cli.output import tolerant
from scratchvae.noise import standard_normal
from scratchvae.training.loop import STEP, progress_bar, stream

WORK, N = bench.Workload(), 50_000
M, J = WORK.batch_size, WORK.n_latent
AGREE = 1e-4  # relative, of the first ten bounds in float32
OURS, PRODUCTS = "scratchvae", "its matrix products alone"


def minibatches():
    """Ten minibatches of uint8 pixels, (10, M, D)."""
    return bench.minibatches(WORK, 10)


def initial():
    """{name: array} of our model at its start; its arrays are the peers' too."""
    flat = VAE(WORK.n_visible, WORK.n_hidden, J).params
    return {name: window.copy() for name, window in flat.named(flat.value).items()}


def noise(t):
    """ε of step t, (M, J)."""
    return standard_normal(stream(0, STEP, t), (1, M, J), np.float32)[0]


# Each is a function that prepares and returns step(t), which makes step t and returns the bound


def scratchvae():
    """This library."""
    step, x = bench.training_step(WORK, N), minibatches()
    return lambda t: float(step(t, x[t % 10]))


def products():
    """The fourteen matrix products of that step alone, into arrays that are there already; they have no bound."""
    return bench.matrix_products(WORK)


def torch(compiled=False, fused=False):
    """PyTorch with its own Adagrad, the bound and its gradient eager or through torch.compile."""
    import torch
    import torch.nn.functional as F  # noqa: N812  PyTorch's custom

    p = {name: torch.from_numpy(array).requires_grad_() for name, array in initial().items()}
    phi = [tensor for name, tensor in p.items() if name.startswith("encoder.")]
    theta = [tensor for name, tensor in p.items() if name.startswith("decoder.")]
    groups = [{"params": phi}, {"params": theta, "weight_decay": 1.0}]  # ∂ -log p(θ)/∂θ = θ
    adagrad = torch.optim.Adagrad(groups, lr=0.01, eps=1e-10, maximize=True, fused=fused)
    x = torch.from_numpy(minibatches())

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

    bound = torch.compile(bound) if compiled else bound

    def step(t):
        value = bound(x[t % 10], torch.from_numpy(noise(t)))
        adagrad.zero_grad()
        value.backward()
        adagrad.step()
        return value.item()

    return step


def jax():
    """JAX, the whole step under jit, parameters and optimiser state donated."""
    import jax
    import jax.numpy as jnp

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

    ascend, x = jax.jit(ascend, donate_argnums=(0, 1)), minibatches()
    p = {name: jnp.asarray(array) for name, array in initial().items()}
    s = {name: jnp.zeros_like(array) for name, array in p.items()}

    def step(t):
        nonlocal p, s
        p, s, value = ascend(p, s, x[t % 10], noise(t))
        return float(value)

    return step


def autograd(kept=True):
    """HIPS autograd, and Adagrad in plain NumPy; its freed memory is kept like ours, or as glibc has it."""
    import autograd.numpy as anp
    from autograd import value_and_grad

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
    p, x, gradient = initial(), minibatches(), value_and_grad(bound)
    s = {name: np.zeros_like(array) for name, array in p.items()}

    def step(t):
        value, g = gradient(p, x[t % 10] / np.float32(255), noise(t))
        for k in p:
            slope = g[k] - p[k] if k.startswith("decoder.") else g[k]
            s[k] += slope * slope
            p[k] += np.float32(0.01) * slope / (np.sqrt(s[k]) + np.float32(1e-10))
        return float(value)

    return step


PEERS = {
    OURS: scratchvae,
    PRODUCTS: products,
    "PyTorch eager": torch,
    "PyTorch eager, fused Adagrad": lambda: torch(fused=True),
    "PyTorch torch.compile": lambda: torch(compiled=True),
    "PyTorch torch.compile, fused Adagrad": lambda: torch(compiled=True, fused=True),
    "JAX jit, donated buffers": jax,
    "HIPS autograd": autograd,
    "HIPS autograd, memory given back": lambda: autograd(kept=False),
}


def serve(name, steps):
    """Make `name`'s first ten steps, print their bounds and, for each line that comes in, a round's median in ms."""
    try:
        step = PEERS[name]()
    except ImportError as error:
        print(json.dumps({"left_out": f"not installed ({error})"}), flush=True)
        return
    print(json.dumps({"bounds": [step(t) for t in range(10)]}), flush=True)
    for t in range(10, 30):
        step(t)  # warm up
    t = 30
    for _ in sys.stdin:
        times = []
        for _ in range(5 + steps):  # the first five wake the threads up
            begun = time.perf_counter()
            step(t)
            times.append(time.perf_counter() - begun)
            t += 1
        print(json.dumps(1e3 * float(np.median(times[5:]))), flush=True)


def measure(rounds, steps, names=tuple(PEERS), progress=None):
    """{name: milliseconds of a step in every round, or the reason why it is left out}."""
    if rounds < 1 or steps < 1:
        raise ValueError(f"rounds is {rounds} and steps is {steps}; expected whole numbers ≥ 1")
    command = [sys.executable, "-W", "ignore", __file__, "--steps", str(steps), "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    servers, results = {}, {}
    for name in names:
        servers[name] = server = subprocess.Popen([*command, name], **pipes)
        answer = json.loads(server.stdout.readline() or "{}")
        if name == OURS:
            ours = np.array(answer["bounds"])
        if "bounds" not in answer:
            results[name] = (
                answer.get("left_out") or (server.stderr.read().strip().splitlines() or ["it broke off"])[-1]
            )
        elif name == PRODUCTS or (off := np.abs(np.array(answer["bounds"]) / ours - 1).max()) <= AGREE:
            results[name] = []
        else:
            results[name] = f"its first ten bounds differ from ours by {off:.0e}"
    kept = [name for name, times in results.items() if isinstance(times, list)]
    with progress_bar(rounds * len(kept), 0, progress, unit=" rounds") as bar:
        for _ in range(rounds):
            for name in kept:
                time.sleep(0.05)  # until the threads of the one before have gone to sleep
                print("go", file=servers[name].stdin, flush=True)
                results[name].append(json.loads(servers[name].stdout.readline()))
                bar.update(1)
    for server in servers.values():
        server.communicate()
    return results


def summary(results):
    """A row each: lower quartile over the rounds, median and upper quartile in ms, and the first over ours."""
    ours, rows = np.quantile(results[OURS], 0.25), []
    for name, times in results.items():
        if isinstance(times, list):
            ms, median, upper = (round(float(q), 3) for q in np.quantile(times, [0.25, 0.5, 0.75]))
            row = {"ms": ms, "ms_median": median, "ms_upper_quartile": upper, "times_ours": round(float(ms / ours), 3)}
            rows.append({"name": name} | row)
        else:
            rows.append({"name": name, "left_out": times})
    return rows


def table(rows):
    """The rows as text."""
    lines = [f"{'ms per step':38}{'lower quartile':>15}{'median':>9}{'upper':>9}{'times ours':>12}"]
    for row in rows:
        if "left_out" in row:
            lines.append(f"{row['name']:38}  {row['left_out']}")
        else:
            lines.append(f"{row['name']:38}{row['ms']:15.2f}{row['ms_median']:9.2f}{row['ms_upper_quartile']:9.2f}")
            lines[-1] += f"{row['times_ours']:12.2f}"
    return "\n".join(lines)


def main():
    """Print the table and write peers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20, help="in a round")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="where peers.json goes (runs/bench)")
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.serve:
        return serve(settings.serve, settings.steps)
    if settings.rounds < 1 or settings.steps < 1:
        parser.error(f"--rounds is {settings.rounds}, --steps {settings.steps}; expected whole numbers ≥ 1")
    output.prepare(parser, settings.results)
    rows = summary(measure(settings.rounds, settings.steps))
    print(table(rows))
    versions = {name: metadata.version(name) for name in ("torch", "jax", "autograd") if find_spec(name)}
    facts = {
        "machine": bench.machine(),
        "peers": versions,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "rows": rows,
    }
    output.write(settings.results / "peers.json", facts)


if __name__ == "__main__":
    with tolerant():
        main()
