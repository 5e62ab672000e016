"""What posteriors and marginal likelihoods cost: python benchmarks/inference.py, two minutes on two cores.

Hamiltonian Monte Carlo: transitions a minute of a batch of 1,000 MNIST posteriors, 784-500-3, 10 leapfrog steps.
Importance sampling: seconds for 1,000 test images with 5,000 draws each, 784-500-20, and the peak memory of the
process. The models are as they were initialised (Glorot): what a parameter is does not change what it costs.
"""

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import output

from scratchvae import VAE, bench, load_data
from scratchvae.cli.output import tolerant
from scratchvae.inference.hmc import log_joint, sample
from scratchvae.inference.marginal import importance


def hmc(x, transitions, rounds=5):
    """Transitions of the whole batch a minute, one number a round."""
    model = VAE(x.shape[1], 500, 3, init="glorot")
    target, z, found = log_joint(model.decoder, model.pixels(x)), model.encode_mean(x), []
    for k in range(rounds):
        since = time.perf_counter()
        sample(target, z, np.random.default_rng(k), transitions, burn_in=0, stepsize=0.1)
        found.append(60 * transitions / (time.perf_counter() - since))
    return found


def main():
    """Measure, print, and write inference.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the work, for a quick look (1)")
    parser.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    parser.add_argument("--results", type=Path, default=Path("runs/bench"), help="for inference.json (runs/bench)")
    settings = parser.parse_args()
    if settings.scale <= 0:
        parser.error(f"--scale is {settings.scale:g}; expected a fraction above 0")
    output.prepare(parser, settings.results)
    data = load_data(settings.data)
    x, draws = data.test[: max(2, int(1000 * settings.scale))], max(50, int(5000 * settings.scale))
    rates = hmc(x, max(1, int(50 * settings.scale)))
    model = VAE(x.shape[1], 500, 20, init="glorot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k_hat: an encoder that was not trained
        since = time.perf_counter()
        importance(model, x, draws)
        seconds = time.perf_counter() - since
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    result = {
        "machine": bench.machine(),
        "data": settings.data,
        "chains": len(x),
        "transitions_per_minute": {
            "lower quartile": np.quantile(rates, 0.25),
            "median": np.median(rates),
            "upper quartile": np.quantile(rates, 0.75),
        },
        "importance": {"images": len(x), "draws": draws, "seconds": seconds, "peak_memory_mib": peak},
    }
    print(bench.describe(result["machine"]))
    print(
        f"HMC: {np.median(rates):,.0f} transitions of {len(x):,} chains a minute "
        f"({min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} rounds), 784-500-3, 10 leapfrog steps\n"
        f"importance: {seconds:.1f} s for {len(x):,} images with {draws:,} draws each, 784-500-20; "
        f"peak memory {peak:.0f} MiB"
    )
    output.write(settings.results / "inference.json", result)


if __name__ == "__main__":
    with tolerant():
        main()
