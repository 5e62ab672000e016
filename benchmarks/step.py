"""One training step of the MNIST model against its own matrix products: python benchmarks/step.py [--rounds 60].

784-500-20-500-784, M = 100, L = 1, float32, Adagrad, MAP, bound evaluated. A step is everything that `fit` does for it:
gathering the minibatch, noise, bound, gradient, update. Steps and products alternate in short rounds, since a machine
has fast and slow spells; the ratio of a round is between neighbours in time.
"""

import argparse
import json
import time

import numpy as np
from threadpoolctl import threadpool_info

from scratchvae import VAE, Adagrad
from scratchvae.training.loop import STEP, stream

M, D, H, J = 100, 784, 500, 20


def training_step():
    """A function of t that makes step t, as the loop does."""
    model, optimizer = VAE(D, H, J), Adagrad(0.01)
    optimizer.start(model.params)
    train = np.random.default_rng(0).integers(0, 256, (10_000, D), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(len(train))

    def step(t):
        i = t % (len(train) // M)
        x = model.pixels(train[order[i * M : (i + 1) * M]])
        model.bound(x, model.noise(stream(0, STEP, t), M), 50_000, gradient=True)
        model.add_log_prior_gradient()
        optimizer.ascend(model.params, t + 1)

    return step


def matrix_products():
    """A function that makes the step's fourteen products, into arrays that are there already."""
    sizes = [(D, H, False), (H, J, True), (H, J, True), (J, H, True), (H, D, True)]  # in, out, input gradient asked for
    calls = []
    for n_in, n_out, input_gradient in sizes:
        x, W, dy = (
            np.random.default_rng(0).standard_normal(shape, np.float32)
            for shape in ((M, n_in), (n_in, n_out), (M, n_out))
        )
        calls.append((x, W, np.empty((M, n_out), np.float32)))
        calls.append((x.T, dy, np.empty((n_in, n_out), np.float32)))
        if input_gradient:
            calls.append((dy, W.T, np.empty((M, n_in), np.float32)))

    def products(t):
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return products


def milliseconds(function, start, steps):
    """The median time of a call over `steps` calls."""
    times = []
    for t in range(start, start + steps):
        begun = time.perf_counter()
        function(t)
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times))


def main():
    """Print one JSON object: medians of the fast half of the rounds, and their ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--steps", type=int, default=20, help="of each kind in a round")
    settings = arguments.parse_args()
    step, products = training_step(), matrix_products()
    milliseconds(step, 0, 20), milliseconds(products, 0, 20)  # warm up
    rounds = [
        (milliseconds(step, (k + 1) * settings.steps, settings.steps), milliseconds(products, 0, settings.steps))
        for k in range(settings.rounds)
    ]
    fast = sorted(rounds, key=sum)[: max(1, len(rounds) // 2)]
    ours, theirs = (float(np.median(column)) for column in zip(*fast, strict=True))
    ratios = [a / b for a, b in rounds]
    result = {
        "step_ms": round(ours, 3),
        "products_ms": round(theirs, 3),
        "ratio": round(float(np.median([a / b for a, b in fast])), 3),
        "ratio_quartiles_all_rounds": [round(q, 3) for q in np.quantile(ratios, [0.25, 0.5, 0.75])],
        "blas": [
            f"{pool['internal_api']} {pool.get('version')}, {pool['num_threads']} threads" for pool in threadpool_info()
        ],
        "numpy": np.__version__,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
