"""One training step of the paper's MNIST model, ours against other ways to have it: python benchmarks/peers.py.

784-500-20-500-784, M = 100, L = 1, L^B, tanh, MAP, float32, Adagrad 0.01. A step goes from a minibatch of uint8 pixels to
updated parameters and a bound that has been read: noise, bound, gradient, update. Everybody is given the same initial
values, minibatches and noise, and somebody whose first ten bounds are not ours is left out, with the reason.

Each runs in a process of its own, so that nobody's waiting threads slow another. They take turns, a round of steps each,
since a machine has fast and slow spells; a ratio is between neighbours in time.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from scratchvae import VAE, Adagrad
from scratchvae.noise import standard_normal
from scratchvae.training.halves import in_halves
from scratchvae.training.loop import STEP, stream

D, H, J, M, N = 784, 500, 20, 100, 50_000
RESULTS = Path(__file__).with_name("results")
AGREE = 1e-4  # relative, of the first ten bounds in float32


def minibatches():
    """A hundred minibatches of uint8 pixels, a fifth of them not black, as in MNIST."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (100, M, D), dtype=np.uint8)
    x[generator.random(x.shape) < 0.8] = 0
    return x


def initial():
    """{name: array} of our model at its start; its arrays are the peers' too."""
    params = VAE(D, H, J).params
    return {name: window.copy() for name, window in params.named(params.value).items()}


def noise(t):
    """ε of step t, (1, M, J)."""
    return standard_normal(stream(0, STEP, t), (1, M, J), np.float32)


# Each is a function that prepares and returns step(t), which makes step t and returns the bound


def scratchvae():
    """This library."""
    model, optimizer, x = VAE(D, H, J), Adagrad(0.01), minibatches()
    optimizer.start(model.params)

    def step(t):
        bound = model.bound(x[t % 100], model.noise(stream(0, STEP, t), M), N, gradient=True)
        model.add_log_prior_gradient()
        in_halves(optimizer.ascend, model.params, t + 1, slice(None))
        return float(bound)

    return step


def products():
    """The fourteen matrix products of that step alone, into arrays that are there already."""
    calls = []
    for n_in, n_out, input_gradient in [(D, H, False), (H, J, True), (H, J, True), (J, H, True), (H, D, True)]:
        x, W, dy = (
            np.random.default_rng(0).standard_normal(shape, np.float32)
            for shape in ((M, n_in), (n_in, n_out), (M, n_out))
        )
        calls.append((x, W, np.empty((M, n_out), np.float32)))
        calls.append((x.T, dy, np.empty((n_in, n_out), np.float32)))
        if input_gradient:
            calls.append((dy, W.T, np.empty((M, n_in), np.float32)))

    def step(t):
        for a, b, out in calls:
            np.matmul(a, b, out=out)
        return None

    return step


def torch_eager(compiled=False):
    """PyTorch, its own fused Adagrad."""
    import torch
    import torch.nn.functional as F  # noqa: N812  PyTorch's custom

    p = {name: torch.from_numpy(array).requires_grad_() for name, array in initial().items()}
    phi = [tensor for name, tensor in p.items() if name.startswith("encoder.")]
    theta = [tensor for name, tensor in p.items() if name.startswith("decoder.")]
    groups = [{"params": phi}, {"params": theta, "weight_decay": 1.0}]  # ∂ -log p(θ)/∂θ = θ
    adagrad = torch.optim.Adagrad(groups, lr=0.01, eps=1e-10, maximize=True, fused=True)
    adagrad_has_the_prior = {"weight_decay": -1.0}  # with `maximize` the decay is added after the sign is turned
    del adagrad_has_the_prior
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
        value = bound(x[t % 100], torch.from_numpy(noise(t)[0]))
        adagrad.zero_grad()
        value.backward()
        adagrad.step()
        return value.item()

    return step


def torch_compile():
    """PyTorch, bound and gradient through torch.compile, its own fused Adagrad."""
    return torch_eager(compiled=True)


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
        p, s, value = ascend(p, s, x[t % 100], noise(t)[0])
        return float(value)

    return step


def autograd():
    """HIPS autograd, and Adagrad in plain NumPy."""
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

    p, x, gradient = initial(), minibatches(), value_and_grad(bound)
    s = {name: np.zeros_like(array) for name, array in p.items()}

    def step(t):
        value, g = gradient(p, x[t % 100] / np.float32(255), noise(t)[0])
        for k in p:
            slope = g[k] - p[k] if k.startswith("decoder.") else g[k]
            s[k] += slope * slope
            p[k] += np.float32(0.01) * slope / (np.sqrt(s[k]) + np.float32(1e-10))
        return float(value)

    return step


PEERS = {
    "scratchvae": scratchvae,
    "its matrix products alone": products,
    "PyTorch, eager": torch_eager,
    "PyTorch, torch.compile": torch_compile,
    "JAX, jit, donated buffers": jax,
    "HIPS autograd": autograd,
}


def serve(name, steps):
    """Make `name`'s first ten steps, print their bounds and, for each line that comes in, a round of times in ms."""
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
        for k in range(5):
            step(t + k)
        t += 5
        for t in range(t, t + steps):  # noqa: B020  goes on where the last round ended
            begun = time.perf_counter()
            step(t)
            times.append(time.perf_counter() - begun)
        t += 1
        print(json.dumps(1e3 * float(np.median(times))), flush=True)


def measure(rounds, steps, names=tuple(PEERS)):
    """{name: median ms of a step in every round, or why it is left out}."""
    servers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--steps", str(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    first = {name: json.loads(server.stdout.readline() or "{}") for name, server in servers.items()}
    ours = np.array(first["scratchvae"]["bounds"])
    results = {}
    for name, answer in first.items():
        bounds = answer.get("bounds")
        if bounds is None:
            results[name] = answer.get("left_out", "it broke off; see above")
        elif bounds[0] is not None and np.abs(np.array(bounds) / ours - 1).max() > AGREE:
            results[name] = f"its first ten bounds differ from ours by {np.abs(np.array(bounds) / ours - 1).max():.1e}"
        else:
            results[name] = []
    for _ in range(rounds + 1):
        for name, times in results.items():
            if isinstance(times, list):
                time.sleep(0.05)
                servers[name].stdin.write("go\n")
                servers[name].stdin.flush()
                times.append(json.loads(servers[name].stdout.readline()))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return {name: times[1:] if isinstance(times, list) else times for name, times in results.items()}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20, help="in a round")
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.serve:
        return serve(settings.serve, settings.steps)
    results = measure(settings.rounds, settings.steps)
    kept = {k: np.array(v) for k, v in results.items() if isinstance(v, list)}
    fast = np.argsort(sum(kept.values()))[: settings.rounds // 2]
    for name, times in results.items():
        if name in kept:
            ratio = kept[name] / kept["scratchvae"]
            print(
                f"{name:30s} {np.median(kept[name][fast]):6.2f} {np.median(ratio[fast]):.3f} {np.quantile(ratio, [0.25, 0.5, 0.75]).round(3)}"
            )
        else:
            print(name, times)


if __name__ == "__main__":
    main()
