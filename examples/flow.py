"""A planar flow against the plain VAE: the same network, initial values, minibatches, ε and number of samples.

784-500-20 on grey-level MNIST, tanh, Glorot, M = 100, L = 1; K = 10 maps whose parameters come from the encoder. Adam
with the falling stepsize 0.001 / (1 + step/5000), three seeds, and, seed 0 alone, with 0.001 throughout. "test_bound"
is of all test images with one draw each, (7) for the plain VAE; "log_p" is by importance, 500 draws from q(z|x) for
each of the first 1,000 test images, "largest_w" the median over them of the largest ‖w‖ of the maps. Runs are kept in
--runs.
"""

import warnings

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import Adam, evaluate, load_data, load_model, plots
from scratchvae.inference.marginal import importance


def run_of(settings, maps, seed, stepsize, samples):
    """The Run with so many maps, 0 for the plain VAE."""
    folder = settings.runs / f"flow-{settings.data}-{settings.scale:g}" / f"{maps}-{seed}-{stepsize}"
    optimizer = Adam(0.001, decay=5000 if stepsize == "falling" else None)
    model = {"flow": maps, "init": "glorot"}
    return Run(folder, settings.data, 500, 20, samples, model, optimizer=optimizer, n_held_out=2000, seed=seed)


def result(run, maps, stepsize, draws):
    """A row: what the trained run says of the test images."""
    data, model, history = load_data(run.data), load_model(run.folder), run.history()
    found = evaluate(model, data.test)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat")  # read "log_p" as what it is then: a better bound
        log_p, error = importance(model, data.test[: 2 * draws], draws).mean()
    norms = [np.nan]
    if maps:
        parameters = model.encoder.forward(model.pixels(data.test[:1000]))[2].reshape(-1, maps, 2 * model.n_latent + 1)
        norms = np.linalg.norm(parameters[..., model.n_latent : -1], axis=-1).max(axis=1)
    return {
        "maps": maps,
        "stepsize": stepsize,
        "seed": run.seed,
        "samples": int(history["samples"][-1]),
        "train_bound": round(float(history["train_bound"][-1]), 2),
        "test_bound": round(found["bound"], 2),
        "kl": round(found["kl"], 2),
        "reconstruction": round(found["reconstruction"], 2),
        "log_p": round(log_p, 2),
        "log_p_error": round(error, 3),
        "largest_w": round(float(np.median(norms)), 1) if maps else "",
        "train_seconds": round(float(history["seconds"][-1])),
        "commit": run.commit(),
    }


def draw(settings, runs):
    """flow.png: validation bounds against samples, and how far the flow is ahead of the plain VAE."""
    fig = plots.Figure(figsize=(11, 4), dpi=150, layout="constrained")
    left, right = fig.subplots(1, 2)
    for (maps, stepsize, seed), run in runs.items():
        history, style = run.history(), "--" if stepsize == "constant" else "-"
        label = f"{f'flow, K = {maps}' if maps else 'plain VAE'}, {stepsize} stepsize" if seed == 0 else None
        color = f"C{settings.maps.index(maps)}" if maps else "0.5"
        left.plot(history["samples"], history["valid_bound"], style, color=color, label=label, lw=1)
        if maps:
            plain = runs[0, stepsize, seed].history()
            n = min(len(history), len(plain))
            ahead = history["valid_bound"][:n] - plain["valid_bound"][:n]
            right.plot(history["samples"][:n], ahead, style, color=color, label=label, lw=1)
    later = np.concatenate([run.history()["valid_bound"][len(run.history()) // 3 :] for run in runs.values()])
    left.set_ylim(later.min() - 1, later.max() + 2)
    left.set_ylabel("validation bound (nats per datapoint)")
    right.axhline(0, color="0.5")
    right.set_ylim(-6, 4)
    right.set_ylabel("flow less plain (nats per datapoint)")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("training samples evaluated")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    fig.savefig(settings.results / "flow.png")
    print(f"wrote {settings.results / 'flow.png'}")


def main():
    """Train what is missing; write flow.csv and flow.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set")
    p.add_argument("--samples", type=positive, default=5_000_000, help="samples to evaluate (5,000,000)")
    p.add_argument("--maps", type=positive, nargs="+", default=[10], help="K, one or several (10)")
    p.add_argument("--seeds", type=positive, default=3, help="seeds 0, 1, … (3)")
    settings = parse(p)
    samples = max(1000, int(settings.samples * settings.scale))
    draws = max(20, int(500 * settings.scale))
    kinds = [("falling", seed) for seed in range(settings.seeds)] + [("constant", 0)]
    cells = [(maps, *kind) for kind in kinds for maps in (*settings.maps, 0)]
    runs = {(maps, step, seed): run_of(settings, maps, seed, step, samples) for maps, step, seed in cells}
    train_all(list(runs.values()), settings.jobs)
    rows = in_parallel(
        [(result, run, maps, step, draws) for (maps, step, _), run in runs.items()], settings.jobs, " results"
    )
    write_table(settings.results / "flow.csv", rows)
    draw(settings, runs)


if __name__ == "__main__":
    command(main)
