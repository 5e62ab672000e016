"""The signal-to-noise ratio of the gradient against the number of draws K: IWAE and DReG, L^A and sticking the landing.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better", figure 1: with more draws the
gradient of φ that the importance-weighted bound gives drowns in its noise, as K^-½, while that of θ stands out
more, as K^½. Doubly reparameterised (Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators for Monte
Carlo Objectives"), that of φ grows as K^½ too. L^A and sticking the landing average K independent gradients: both
grow as K^½, and the second starts higher.

64-100-2 on digits, tanh, Glorot, MAP, Adam 0.001, M = 100, 100,000 samples, by two objectives: by L^A with one
draw, and by the importance-weighted bound of 64 draws. At either model the gradients of one minibatch of 20
images are taken 2,000 times, with noise drawn anew. The ratio of a parameter is |mean|/sd of its gradient; shown
are the median over the parameters and the quartiles, without the parameters whose gradient never varies (those of
pixels that are always black). Even a gradient of mean 0 shows a ratio of about 0.67/√2000 = 0.015, the "floor".

The powers of K take for granted that the importance weights w have moments: IWAE's spread needs E w², DReG's mean
E w² and its spread E w⁴. The tail of w with shape k̂ has moments up to 1/k̂, so that DReG needs k̂ < ¼. Training
by L^A leaves q(z|x) too narrow and w heavy-tailed, and there DReG's ratio falls again from some K on. Training by
64 draws makes q wider. The table has the largest and the median k̂ over the 20 images, from 10,000 draws each.
Runs are kept in --runs and gone on with.
"""

import time
import warnings

import numpy as np
from stages import write_table
from study import Run, command, in_parallel, parse, parser, positive, train_all

from scratchvae import VAE, Adam, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.inference.marginal import importance

TRAINED_BY = {"IWAE": ("iwae", 64), "L^A": ("A", 1)}  # objective, draws
METHODS = {"IWAE": "iwae", "DReG": "dreg", "L^A": "A", "STL": "stl"}
KS = [1, 4, 16, 64]
M = 20  # images in the minibatch


def run_of(settings, name):
    """The Run that trains by one of TRAINED_BY."""
    estimator, draws = TRAINED_BY[name]
    folder = settings.runs / f"gradient-noise-{settings.data}-{settings.scale:g}" / f"{name.replace('L^', '-')}-0"
    model = {"estimator": estimator, "n_samples": draws, "init": "glorot"}
    return Run(folder, settings.data, 100, 2, max(1000, int(100_000 * settings.scale)), model, optimizer=Adam(0.001))


def ratios(mean, square, draws):
    """|mean|/sd of each parameter that varies, from the means of its gradient and of its square over so many draws."""
    variance = (square - mean * mean) * (draws / (draws - 1))
    varies = variance > 1e-12 * square
    return np.abs(mean[varies]) / np.sqrt(variance[varies])


def signal_to_noise(trained, method, K, x, draws):
    """{"φ": ratios, "θ": ratios} of the parameters of a trained model, of its gradient at rows x from K draws of z."""
    model = VAE(**trained.config | {"estimator": METHODS[method], "n_samples": K})
    model.params.value[...] = trained.params.value
    mean = np.zeros(model.params.value.size)
    square = np.zeros(model.params.value.size)
    for k in range(draws):
        model.bound(x, model.noise(np.random.default_rng([2, k]), len(x)), len(x), gradient=True)
        gradient = model.params.grad.astype(float)
        mean += gradient / draws
        square += gradient * gradient / draws
    return {key: ratios(mean[part], square[part], draws) for key, part in [("φ", model.phi), ("θ", model.theta)]}


def rows_of(run, name, method, K, draws, version):
    """Two rows of the table, for φ and for θ."""
    x = load_data(run.data).train[:M]
    since = time.perf_counter()
    found = signal_to_noise(load_model(run.folder), method, K, x, draws)
    seconds = time.perf_counter() - since
    rows = []
    for part, ratio in found.items():
        low, median, high = (f"{quartile:.4g}" for quartile in np.quantile(ratio, [0.25, 0.5, 0.75]))
        rows.append({"trained by": name, "method": method, "K": K, "gradient of": part})
        rows[-1] |= {"lower quartile": low, "median": median, "upper quartile": high}
        rows[-1] |= {"parameters": len(ratio), "draws": draws, "floor": f"{0.6745 / draws**0.5:.2g}"}
        rows[-1] |= {"seconds": round(seconds, 1), "seed": run.seed, "commit": version}
    return rows


def tails(run, draws):
    """k̂ of the importance weights of the minibatch's images, the largest and the median."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "k_hat is above")
        k_hat = importance(load_model(run.folder), load_data(run.data).train[:M], draws).k_hat
    return {"largest k_hat": round(float(k_hat.max()), 2), "median k_hat": round(float(np.median(k_hat)), 2)}


def curve(rows, name, method, part):
    """Lower quartile, median and upper quartile of one line of the picture, over KS."""
    mine = [row for row in rows if (row["trained by"], row["method"], row["gradient of"]) == (name, method, part)]
    return np.array([[float(row[key]) for key in ("lower quartile", "median", "upper quartile")] for row in mine]).T


def slope(median):
    """The power of K by which a line goes: least squares on both logarithms."""
    return np.polyfit(np.log(KS), np.log(median), 1)[0]


def draw(settings, rows):
    """gradient_noise.png: a row for each way of training; φ of two pairs of estimators, and θ."""
    fig = plots.Figure(figsize=(13, 7.6), dpi=130, layout="constrained")
    of_theta = {"IWAE": "IWAE and DReG", "L^A": "$L^A$ and STL"}  # what each pair has in common
    parts = [("φ", ("IWAE", "DReG")), ("φ", ("L^A", "STL")), ("θ", tuple(of_theta))]
    for line, name in zip(fig.subplots(2, 3, sharey="row"), TRAINED_BY, strict=True):
        first = next(row for row in rows if row["trained by"] == name)
        for ax, (part, methods) in zip(line, parts, strict=True):
            for method in methods:
                low, median, high = curve(rows, name, method, part)
                words = of_theta[method] if part == "θ" else method.replace("L^A", "$L^A$")
                color = f"C{list(METHODS).index(method)}"
                ax.plot(KS, median, "o-", color=color, ms=4, label=f"{words}: $K^{{{slope(median):.2f}}}$")
                ax.fill_between(KS, low, high, color=color, alpha=0.12)
            start = np.sqrt(curve(rows, name, methods[0], part)[1, 0] * curve(rows, name, methods[1], part)[1, 0])
            for power, style in [(0.5, ":"), (-0.5, "-.")]:
                if power > 0 or (part == "φ" and "IWAE" in methods):
                    guide = start * np.array(KS, float) ** power
                    ax.plot(KS, guide, style, color="0.4", lw=1)
                    words = f"$K^{{{'½' if power > 0 else '-½'}}}$"
                    ax.text(1.05 * KS[-1], guide[-1], words, fontsize=8, color="0.4", va="center")
            floor = float(first["floor"])
            ax.axhline(floor, color="0.7", lw=0.8)
            ax.text(KS[0], 1.05 * floor, "a mean of 0 would show this", fontsize=7, color="0.4", va="bottom")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlim(0.85 * KS[0], 1.45 * KS[-1])
            ax.set_xticks(KS, KS)
            ax.set_xticks([], minor=True)
            ax.set_xlabel("K, draws of z")
            ax.grid(alpha=0.3, which="both")
            ax.legend(fontsize=8)
            trained = "$L^A$, 1 draw" if name == "L^A" else "IWAE, 64 draws"
            tail = f"median $\\hat k$ {first['median k_hat']}, largest {first['largest k_hat']}"
            ax.set_title(f"gradient of {part}, model trained by {trained}\n({tail})", fontsize=9)
        line[0].set_ylabel("|mean| / sd of the gradient\n(median and quartiles over parameters)", fontsize=9)
    fig.suptitle(f"{settings.data}: signal-to-noise ratio of the gradient against the number of draws")
    fig.savefig(settings.results / "gradient_noise.png")
    print(f"wrote {settings.results / 'gradient_noise.png'}")


def main():
    """Train what is missing; measure; print and write gradient_noise.csv, and gradient_noise.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="digits", help="digits (default) or another data set")
    p.add_argument("--draws", type=positive, help="gradients for each ratio (2,000, by --scale)")
    settings = parse(p)
    draws = settings.draws or max(10, int(2000 * settings.scale))
    version = commit()
    runs = {name: run_of(settings, name) for name in TRAINED_BY}
    train_all(list(runs.values()), settings.jobs)
    k_hat = {name: tails(run, max(100, int(10_000 * settings.scale))) for name, run in runs.items()}
    calls = [(rows_of, runs[name], name, method, K, draws, version) for name in runs for method in METHODS for K in KS]
    found = in_parallel(calls, settings.jobs, " ratios")
    rows = [row | k_hat[row["trained by"]] for pair in found for row in pair]
    write_table(settings.results / "gradient_noise.csv", rows)
    for name in TRAINED_BY:
        for part, method in [("φ", method) for method in METHODS] + [("θ", "IWAE"), ("θ", "L^A")]:
            median = curve(rows, name, method, part)[1]
            numbers = "  ".join(f"K={K}: {value:.3f}" for K, value in zip(KS, median, strict=True))
            print(f"trained by {name:5} {part} {method:5} {numbers}   as K^{slope(median):.2f}")
    draw(settings, rows)


if __name__ == "__main__":
    command(main)
