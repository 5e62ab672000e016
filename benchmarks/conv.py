"""What a training step of the convolutional VAE costs, beside PyTorch's: python benchmarks/conv.py, half a minute.

784 pixels, convolutions of 16 and 32 channels, 128 units, 2 latents (`--architecture conv`), M = 100, float32, Adam:
from pixels to updated parameters and a bound that has been read. Both have the same initial values, minibatches and
noise, and take turns on as many threads each; times are those of the fast quarter of the rounds. PyTorch is left out,
and the result says so, where it is not installed or where one of its first bounds is another by more than 1e-4.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import output
from threadpoolctl import threadpool_limits

from scratchvae import VAE, Adam, bench
from scratchvae.cli.output import tolerant

MODEL = {"n_hidden": 128, "n_latent": 2, "channels": (16, 32), "activation": "relu", "init": "glorot", "prior": False}
M, N = 100, 50_000


def ours(model, x, noise):
    """A function that makes step t and returns the bound per datapoint."""
    optimizer = Adam(0.001)
    optimizer.start(model.params)

    def step(t):
        bound = model.bound(x[t % len(x)], noise[t % len(noise)], N, gradient=True)
        optimizer.ascend(model.params, t + 1)
        return float(bound) / N

    return step


def pytorch(model, x, noise):
    """The same in PyTorch, from the same arrays."""
    import torch
    import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it

    values = model.params.named(model.params.value)
    side = int(model.n_visible**0.5)
    p = {}
    for name, array in values.items():
        if name.endswith(".W") and (".conv" in name or ".logits" in name):  # (K K C, C') to (C', C, K, K)
            array = array.reshape(4, 4, -1, array.shape[1]).transpose(3, 2, 0, 1)
        p[name] = torch.from_numpy(np.array(array, order="C")).requires_grad_()
    optimizer = torch.optim.Adam(p.values(), 0.001)
    x, noise = torch.from_numpy(x), torch.from_numpy(noise)

    def layer(name, h):
        return h @ p[f"{name}.W"] + p[f"{name}.b"]

    def step(t):
        pixels, eps = x[t % len(x)], noise[t % len(noise)][0]
        optimizer.zero_grad()
        h = pixels.reshape(-1, 1, side, side)
        for k in (1, 2):
            h = F.relu(F.conv2d(h, p[f"encoder.conv{k}.W"], p[f"encoder.conv{k}.b"], 2, 1))
        h = F.relu(layer("encoder.hidden", h.permute(0, 2, 3, 1).reshape(len(h), -1)))
        mu, log_var = layer("encoder.mu", h), layer("encoder.log_var", h)
        h = F.relu(layer("decoder.hidden1", mu + torch.exp(0.5 * log_var) * eps))
        h = F.relu(layer("decoder.hidden2", h)).reshape(len(h), side // 4, side // 4, -1).permute(0, 3, 1, 2)
        h = F.relu(F.conv_transpose2d(h, p["decoder.conv2.W"], p["decoder.conv2.b"], 2, 1))
        logits = F.conv_transpose2d(h, p["decoder.logits.W"], p["decoder.logits.b"], 2, 1).reshape(len(h), -1)
        neg_kl = 0.5 * (1 + log_var - mu * mu - torch.exp(log_var)).sum()
        bound = N / M * (neg_kl - F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum"))
        (-bound).backward()
        optimizer.step()
        return bound.item() / N

    return step


def peer(model, x, noise, threads):
    """(step of PyTorch, what to say of it); None for the step where it is not compared."""
    try:
        import torch
    except ImportError:
        return None, "not installed"
    torch.set_num_threads(threads)
    mine, other = ours(model, x, noise), pytorch(model, x, noise)
    bounds = np.array([(mine(t), other(t)) for t in range(10)])
    apart = float(np.abs(bounds[:, 0] - bounds[:, 1]).max())
    return (other, f"torch {torch.__version__}") if apart < 1e-4 * abs(bounds[0, 0]) else (None, f"off by {apart:.2g}")


def main():
    """Measure, print, and write conv.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of ten steps (30)")
    parser.add_argument("--threads", type=int, default=1, help="of each (1)")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="for conv.json (runs/bench)")
    settings = parser.parse_args()
    if settings.rounds < 1 or settings.threads < 1:
        parser.error("--rounds and --threads are whole numbers ≥ 1")
    output.prepare(parser, settings.results)
    generator = np.random.default_rng(0)
    x = generator.random((10, M, 784), dtype=np.float32)
    noise = generator.standard_normal((10, 1, M, 2), dtype=np.float32)
    with threadpool_limits(settings.threads, "blas"):
        other, said = peer(VAE(784, **MODEL), x, noise, settings.threads)
        steps = {"scratchvae": ours(VAE(784, **MODEL), x, noise)} | ({"PyTorch eager": other} if other else {})
        times = {name: [] for name in steps}
        for _ in range(settings.rounds):
            for name, step in steps.items():
                since = time.perf_counter()
                for t in range(10):
                    step(t)
                times[name].append(100 * (time.perf_counter() - since))
    found = {
        name: dict(zip(("lower quartile", "median", "upper quartile"), np.quantile(ms, [0.25, 0.5, 0.75]), strict=True))
        for name, ms in times.items()
    }
    result = {"machine": bench.machine(), "threads": settings.threads, "PyTorch": said, "ms per step": found}
    print(bench.describe(result["machine"]))
    for name, row in found.items():
        ratio = row["lower quartile"] / found["scratchvae"]["lower quartile"]
        print(f"{name:>14} {row['lower quartile']:7.1f} ms a step (median {row['median']:.1f}), {ratio:.2f} times ours")
    print(f"       PyTorch {said}, {settings.threads} thread(s) each")
    output.write(settings.results / "conv.json", result)


if __name__ == "__main__":
    with tolerant():
        main()
