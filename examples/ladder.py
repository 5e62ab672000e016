"""The ladder on one data set: PCA, probabilistic PCA, factor analysis, linear VAEs, VAE, VAE with a planar flow.

Pixels x/255 that vary (standard deviation above 0.05), 10 latents, densities: nats of log p(x) per image. Every rung is
checked by the one below it. PCA has no density, but PPCA has its subspace. PPCA's evidence is known in closed form and
is what the linear VAE's bound must reach. The diagonal posterior can reach it only at a W whose latents are independent
given x, which training has to find. With the full covariance (`posterior="full"`) the posterior N(M⁻¹Wᵀ(x - m), σ²M⁻¹),
M = WᵀW + σ²I, is within reach at any W. That rung is trained by sticking the landing ("stl"), whose gradient of φ is 0
in every draw where q is the posterior: φ then comes to rest, where that of L^B keeps its noise.

Factor analysis has a noise variance for each pixel, all others one for all (`likelihood="isotropic"`). VAE and flow
have 100 tanh units, means that are free, and maximum likelihood. The networks start from Glorot's weights and take
Adam, 0.01 / (1 + step/1000) or, not linear, 0.003 / (1 + step/2000) and half of the samples. "bound" is (7), of the
flow all at the draws, over 100 of them, of the test images and of the first 500 that were trained on; "log_p" the
exact evidence, or its estimate by importance with 5,000 draws; "error" ‖x - x̂‖² at the mean of z (of the flow: of
z_0).
"""

import time
import warnings

import numpy as np
from stages import write_table
from study import command, in_parallel, parse, parser, positive

from scratchvae import VAE, Adam, evaluate, fit, load_data, plots
from scratchvae.bench import commit
from scratchvae.inference.marginal import importance
from scratchvae.models.autoencoder import PCA
from scratchvae.models.factor_analysis import PPCA, FactorAnalysis

ISOTROPIC = {"likelihood": "isotropic", "mean": "free", "prior": False, "init": "glorot"}
FULL = {"posterior": "full", "estimator": "stl"}
RUNGS = {  # the model for D pixels and J latents; for networks the optimiser, and a share of the samples
    "PCA": lambda D, J: PCA(J),
    "PPCA": lambda D, J: PPCA(J),
    "factor analysis": lambda D, J: FactorAnalysis(J),
    "linear VAE": lambda D, J: (VAE(D, (), J, **ISOTROPIC), Adam(0.01, decay=1000), 1.0),
    "linear VAE, full": lambda D, J: (VAE(D, (), J, **FULL, **ISOTROPIC), Adam(0.01, decay=1000), 1.0),
    "VAE": lambda D, J: (VAE(D, 100, J, **ISOTROPIC), Adam(0.003, decay=2000), 0.5),
    "VAE with a flow": lambda D, J: (VAE(D, 100, J, flow=10, **ISOTROPIC), Adam(0.003, decay=2000), 0.5),
}


def pixels(name):
    """Training and test rows of the pixels that vary, in [0, 1]."""
    data = load_data(name)
    train, test = data.train / 255, data.test / 255
    varies = train.std(axis=0) > 0.05
    return train[:, varies], test[:, varies]


def climb(name, data, latent, samples, draws, version):
    """One rung: a row of the table, and the model."""
    train, test = pixels(data)
    since, found, history = time.perf_counter(), RUNGS[name](train.shape[1], latent), None
    row = {"rung": name, "parameters": 0} | dict.fromkeys(
        ["train_bound", "test_bound", "train_log_p", "test_log_p"], ""
    )
    if isinstance(found, tuple):
        model, optimizer, share = found
        train, test = train.astype("float32"), test.astype("float32")
        history = fit(model, train, test, optimizer=optimizer, samples=max(1000, int(share * samples)), progress=False)
        seconds, shown = time.perf_counter() - since, model.reconstruct(test)
        row["parameters"], model.n_samples = model.params.value.size, 100
        for split, x in [("train", train[:500]), ("test", test)]:
            row[f"{split}_bound"] = round(evaluate(model, x)["bound"], 3)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "k_hat")
                row[f"{split}_log_p"] = round(importance(model, x, draws).mean()[0], 3)
    else:
        model = found.fit(train)
        seconds, shown = time.perf_counter() - since, model.inverse_transform(model.transform(test))
        row["parameters"] = sum(np.size(v) for k, v in vars(model).items() if k in ("mean_", "W_", "decoder_"))
        row["parameters"] += {"PCA": 0, "PPCA": 1}.get(name, train.shape[1])
        if name != "PCA":
            row |= {f"{split}_log_p": round(model.score(x), 3) for split, x in [("train", train[:500]), ("test", test)]}
    row["error"] = round(float(((shown - test) ** 2).sum(axis=1).mean()), 4)
    return row | {"seconds": round(seconds, 1), "seed": 0, "commit": version}, history


def draw(settings, rows, histories):
    """ladder.png: evidence and bound of every rung, and how the networks come to theirs."""
    fig = plots.Figure(figsize=(12, 4.4), dpi=130, layout="constrained")
    bars, curves = fig.subplots(1, 2)
    rungs = [row for row in rows if row["test_log_p"] != ""]
    for k, (split, shade) in enumerate([("train", 0.5), ("test", 1.0)]):
        at = np.arange(len(rungs)) + 0.4 * k - 0.2
        bars.bar(
            at, [row[f"{split}_log_p"] for row in rungs], 0.38, color="C0", alpha=shade, label=f"log p(x), {split}"
        )
        bounds = [row[f"{split}_bound"] or np.nan for row in rungs]
        bars.plot(at, bounds, "k_", ms=16, label="bound" if k == 0 else None)
    bars.set_xticks(range(len(rungs)), [row["rung"].replace(" ", "\n", 1) for row in rungs])
    bars.set_ylabel("nats per image")
    bars.legend(loc="upper left", fontsize=8)
    for k, (name, history) in enumerate(histories.items()):
        curves.plot(history["samples"], history["train_bound"], f"C{k}--", lw=1)
        curves.plot(history["samples"], history["valid_bound"], f"C{k}", label=name)
    for row, style in zip(rungs[:2], ("-", ":"), strict=True):
        curves.axhline(row["test_log_p"], color="0.4", ls=style, label=f"{row['rung']}: log p(x)")
    curves.set_xscale("log")
    curves.set_ylim(rungs[0]["test_log_p"] - 10)
    curves.set_xlim(min(history["samples"][-1] for history in histories.values()) / 100)
    curves.set_xlabel("training samples evaluated")
    curves.set_ylabel("bound, test (dashed: training), nats per image")
    curves.grid(alpha=0.3)
    curves.legend(fontsize=8)
    fig.savefig(settings.results / "ladder.png")
    print(f"wrote {settings.results / 'ladder.png'}")


def main():
    """Climb; print and write ladder.csv, and ladder.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="digits", help="digits (default) or another data set")
    p.add_argument("--latent", type=positive, default=10, help="latent dimensions (10)")
    p.add_argument("--samples", type=positive, default=3_000_000, help="samples for the linear VAE (3,000,000)")
    settings = parse(p)
    samples, version = int(settings.samples * settings.scale), commit()
    draws = max(50, int(5000 * settings.scale))
    calls = [(climb, name, settings.data, settings.latent, samples, draws, version) for name in RUNGS]
    rows, histories = zip(*in_parallel(calls, settings.jobs, " rungs"), strict=True)
    heads = ("train bound", "test bound", "train log p", "test log p", "error")
    print("{:>16}  {:>11}  {:>10}  {:>11}  {:>10}  {:>5}".format("nats per image", *heads))
    for row in rows:
        cells = [row[key] for key in ("train_bound", "test_bound", "train_log_p", "test_log_p", "error")]
        text = [f"{cell:.2f}" if cell != "" else "-" for cell in cells]
        print("{:>16}  {:>11}  {:>10}  {:>11}  {:>10}  {:>5}".format(row["rung"], *text))
    write_table(settings.results / "ladder.csv", rows)
    draw(
        settings,
        rows,
        {row["rung"]: history for row, history in zip(rows, histories, strict=True) if history is not None},
    )


if __name__ == "__main__":
    command(main)
