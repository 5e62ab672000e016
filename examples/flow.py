"""A planar flow against the plain VAE: the same network, initial values, minibatches and number of samples.

784-500-20 on grey-level MNIST, tanh, Glorot, Adam 0.001, M = 100, L = 1, three seeds; K = 10 maps whose parameters
come from the encoder. "test_bound" is of all test images with one draw each, (7) for the plain VAE; "log_p" is by
importance, 500 draws from q(z|x) for each of the first 1,000 test images. Runs are kept in --runs.
"""

import warnings

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import VAE, Adam, FlowVAE, evaluate, load_data, load_model, plots
from scratchvae.inference.marginal import importance


def run_of(settings, maps, seed, samples):
    """The Run with so many maps, 0 for the plain VAE."""
    kind, model = (FlowVAE, {"flow": maps}) if maps else (VAE, {})
    folder = settings.runs / f"flow-{settings.data}-{settings.scale:g}" / f"{maps}-{seed}"
    model |= {"init": "glorot"}
    return Run(folder, settings.data, 500, 20, samples, model, kind, optimizer=Adam(0.001), n_held_out=2000, seed=seed)


def result(run, maps):
    """A row: what the trained run says of the test images."""
    data, model, history = load_data(run.data), load_model(run.folder), run.history()
    found = evaluate(model, data.test)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat")  # the tables tell of log_p what it is: a bound in all but name
        log_p, error = importance(model, data.test[:1000], 500).mean()
    return {
        "maps": maps,
        "seed": run.seed,
        "samples": int(history["samples"][-1]),
        "test_bound": round(found["bound"], 2),
        "kl": round(found["kl"], 2),
        "reconstruction": round(found["reconstruction"], 2),
        "log_p": round(log_p, 2),
        "log_p_error": round(error, 3),
        "train_seconds": round(float(history["seconds"][-1])),
        "commit": run.commit(),
    }


def main():
    """Train what is missing; write flow.csv and flow.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=5_000_000, help="samples to evaluate (5,000,000)")
    p.add_argument("--maps", type=positive, nargs="+", default=[10], help="K, one or several (10)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    samples = max(1000, int(settings.samples * settings.scale))
    runs = {(k, s): run_of(settings, k, s, samples) for s in range(settings.seeds) for k in (*settings.maps, 0)}
    train_all(list(runs.values()), settings.jobs)
    rows = in_parallel([(result, run, k) for (k, _), run in runs.items()], settings.jobs, " results")
    write_table(settings.results / "flow.csv", rows)

    fig = plots.Figure(figsize=(10, 4), dpi=150, layout="constrained")
    left, right = fig.subplots(1, 2)
    plain = {seed: run.history() for (k, seed), run in runs.items() if k == 0}
    for (k, seed), run in runs.items():
        history, style = run.history(), "-" if seed == 0 else ":"
        label = ("plain VAE" if k == 0 else f"K = {k}") if seed == 0 else None
        color = "0.5" if k == 0 else f"C{settings.maps.index(k)}"
        left.plot(history["samples"], history["valid_bound"], style, color=color, label=label)
        if k:
            n = min(len(history), len(plain[seed]))
            ahead = history["valid_bound"][:n] - plain[seed]["valid_bound"][:n]
            right.plot(history["samples"][:n], ahead, style, color=color, label=label)
    later = np.concatenate([run.history()["valid_bound"][len(run.history()) // 3 :] for run in runs.values()])
    left.set_ylim(later.min() - 1, later.max() + 2)
    left.set_ylabel("validation bound (nats per datapoint)")
    right.axhline(0, color="0.5")
    right.set_ylabel("flow less plain (nats per datapoint)")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("training samples evaluated")
        ax.grid(alpha=0.3)
        ax.legend()
    fig.savefig(settings.results / "flow.png")
    print(f"wrote {settings.results / 'flow.png'}")


if __name__ == "__main__":
    command(main)
