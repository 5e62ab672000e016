"""Missing pixels: test images with holes, filled by a VAE and by three other ways, and the squared error of each.

Of each image 30, 60 or 80 % of the pixels are taken away at random, or its left or its upper half. They are filled by

    mean            the mean of the training images, whatever is known
    PPCA            E[x_missing|x_known] of probabilistic PCA, a Gaussian, which is exact; the number of its latents is
                    the one of 20, 50, 100 and 200 that fills the same holes of validation images best
    iterative       scikit-learn's IterativeImputer: rounds of ridge regressions of each pixel on the pixels that are
                    most correlated with it, on the first training images and the known pixels of the test images
    pseudo-Gibbs    scratchvae's `impute`, 100 transitions of one chain after 100 of burn-in
    5 times as long     the same with 500 transitions after 500
    10 chains           the same with 10 transitions after 10, as the mean of ten chains: as many transitions in all

with a VAE of 784-500-20, Adam 0.001, Glorot's weights, M = 100, on grey pixels in [0, 1]. The error is the mean of
(x - x̂)² over the missing pixels. Runs are kept in --runs and gone on with.
"""

import time
import warnings
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from stages import write_table
from study import Run, command, parse, parser, positive, train_all

from scratchvae import Adam, load_data, load_model, plots
from scratchvae.bench import commit
from scratchvae.inference.imputation import impute
from scratchvae.models.factor_analysis import PPCA

LATENTS = (20, 50, 100, 200)  # of PPCA
CHAINS = 10
SHOWN = 8  # images in the picture


def holes_of(n, image_shape, seed):
    """{what is missing: (n, D) of bool} for n images."""
    height, width = image_shape
    u = np.random.default_rng(seed).random((n, height * width))
    row, column = np.divmod(np.arange(height * width), width)
    holes = {f"{100 * share:.0f} % at random": u < share for share in (0.3, 0.6, 0.8)}
    holes["left half"] = np.tile(column < width // 2, (n, 1))
    holes["upper half"] = np.tile(row < height // 2, (n, 1))
    return holes


def by_mean(train, x, missing):
    """x with the mean of the training rows in its holes."""
    return np.where(missing, train.mean(axis=0), x)


def by_ppca(ppca, x, missing):
    """x with E[x_missing|x_known] under p(x) = N(m, Wᵀ W + σ² I) in its holes.

    The known columns alone are a PPCA with the columns of W that belong to them. So E[z|x_known] is its posterior mean,
    and E[x_missing|x_known] is E[z|x_known] W + m in the others.
    """
    d = np.where(missing, 0, x - ppca.mean_)
    WW = np.array([ppca.W_[:, known] @ ppca.W_[:, known].T for known in ~missing])  # W Wᵀ of the known columns
    precision = np.eye(len(ppca.W_)) + WW / ppca.var_[0]
    z = np.linalg.solve(precision, (d @ ppca.W_.T / ppca.var_[0])[..., None])[..., 0]
    return np.where(missing, z @ ppca.W_ + ppca.mean_, x)


def best_ppca(models, valid, missing):
    """The model that fills these holes of the validation rows with the least error."""
    return min(models, key=lambda model: error_of(by_ppca(model, valid, missing), valid, missing)[0])


def by_regressions(train, columns, rounds, x, missing):
    """x with scikit-learn's IterativeImputer in its holes."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(max_iter=rounds, n_nearest_features=columns, min_value=0, max_value=1, random_state=0)
    rows = np.concatenate([train, np.where(missing, np.nan, x)])  # it learns a pixel where it is missing in some row
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the rounds are few, as the table says
        return imputer.fit_transform(rows)[len(train) :]


def by_chains(model, chains, steps, x, missing):
    """x with the mean of some chains for each row in its holes: steps transitions of each, after as many of burn-in."""
    x = np.repeat(x.astype("float32"), chains, axis=0)
    filled = impute(model, x, np.repeat(missing, chains, axis=0), steps, burn_in=steps)
    return filled.reshape(-1, chains, x.shape[1]).mean(axis=1)


def error_of(filled, x, missing):
    """The mean of (x - x̂)² over the missing pixels, and its standard error over the images."""
    square = np.where(missing, (filled - x) ** 2, 0).sum(axis=1)
    count = missing.sum(axis=1)
    error = square.sum() / count.sum()
    return error, (square - error * count).std(ddof=1) / np.sqrt(len(x)) / count.mean()


def methods_of(settings, model, ppca, train):
    """{name: a function that fills the holes `missing` (N, D) of rows x (N, D)}."""
    few = train[: max(20, int(settings.fitted * settings.scale))]
    rounds = max(1, int(settings.rounds * settings.scale))
    steps = max(CHAINS, int(100 * settings.scale))
    return {
        "mean": partial(by_mean, train),
        "PPCA": partial(by_ppca, ppca),
        "iterative": partial(by_regressions, few, settings.columns, rounds),
        "pseudo-Gibbs": partial(by_chains, model, 1, steps),
        "5 times as long": partial(by_chains, model, 1, 5 * steps),
        "10 chains": partial(by_chains, model, CHAINS, steps // CHAINS),
    }


def fill_all(settings, model, data):
    """The rows of the table, {(holes, method): the first images as they are filled}, and the holes."""
    train = data.train / 255
    x = data.test[: settings.images] / 255
    valid = data.valid[: settings.images] / 255
    ppcas = [PPCA(J, allow_singular=True).fit(train) for J in LATENTS if train.shape[1] > J]
    holes = holes_of(len(x), data.image_shape, 0)
    of_valid = holes_of(len(valid), data.image_shape, 1)
    rows = []
    shown = {}
    for what, missing in holes.items():
        ppca = best_ppca(ppcas, valid, of_valid[what])
        for name, fill in methods_of(settings, model, ppca, train).items():
            since = time.perf_counter()
            filled = fill(x, missing)
            seconds = time.perf_counter() - since
            error, standard_error = error_of(filled, x, missing)
            row = {"missing": what, "method": name, "latents": len(ppca.W_) if name == "PPCA" else "", "images": len(x)}
            row |= {"squared_error": f"{error:.5f}", "standard_error": f"{standard_error:.5f}"}
            rows.append(row | {"seconds": round(seconds, 1)})
            shown[what, name] = filled[:SHOWN]
            print(f"{what:>15}, {name:<16}: {error:.4f} ± {standard_error:.4f} in {seconds:.1f} s")
    return rows, shown, holes


def label_lines(ax, names, height):
    """Write a name at the left of each line of images, which are so many pixels high."""
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([height * (k + 0.5) for k in range(len(names))], names, fontsize=8)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def draw(settings, data, rows, shown, holes):
    """imputation.png: the errors, and images as they are, with holes, and as each method fills them."""
    fig = plots.Figure(figsize=(12, 13.5), dpi=110, layout="constrained")
    top, below = fig.subfigures(2, 1, height_ratios=[1, 3])
    names = list(dict.fromkeys(row["method"] for row in rows))
    ax = top.subplots()
    for k, name in enumerate(names):
        errors = [float(row["squared_error"]) for row in rows if row["method"] == name]
        at = np.arange(len(holes)) + (k - len(names) / 2 + 0.5) * 0.8 / len(names)
        ax.bar(at, errors, 0.75 / len(names), color=plots.COLOURS[k], label=name)
    ax.set_xticks(range(len(holes)), holes)
    ax.set_ylabel("squared error per missing pixel")
    ax.set_title(f"{rows[0]['images']} test images of {data.name}, pixels in [0, 1]: lower is better", loc="left")
    ax.grid(alpha=0.3, axis="y")
    ax.set_ylim(0, 1.25 * max(float(row["squared_error"]) for row in rows))
    ax.legend(fontsize=8, ncols=len(names), loc="upper center")
    x = data.test[:SHOWN] / 255
    for ax, what in zip(below.subplots(2, 2).flat, list(holes)[1:], strict=True):
        lines = [x, np.where(holes[what][: len(x)], 0.5, x)] + [shown[what, name] for name in names]
        plots.image_grid(ax, np.concatenate(lines), data.image_shape, len(x))
        ax.set_title(f"missing: {what}", loc="left", fontsize=9)
        label_lines(
            ax, ["original", "with holes", *(name.replace(" as", "\nas") for name in names)], data.image_shape[0] + 1
        )
    fig.savefig(settings.results / "imputation.png")
    print(f"wrote {settings.results / 'imputation.png'}")


def main():
    """Train what is not trained yet, fill the holes, print the errors, and write imputation.csv and imputation.png."""
    p = parser(__doc__)
    p.add_argument("--data", default="mnist", help="mnist (default) or another data set of images")
    p.add_argument("--samples", type=positive, default=1_000_000, help="samples to evaluate in training (1e6)")
    p.add_argument("--images", type=positive, default=500, help="test images (500)")
    p.add_argument("--fitted", type=positive, default=1000, help="training images of the iterative imputer (1000)")
    p.add_argument("--columns", type=positive, default=50, help="pixels in each of its regressions (50)")
    p.add_argument("--rounds", type=positive, default=5, help="rounds of its regressions (5)")
    settings = parse(p)
    version = commit()
    data = load_data(settings.data)
    folder = settings.runs / f"imputation-{settings.data}-{settings.scale:g}" / "VAE"
    samples = max(2000, int(settings.samples * settings.scale))
    run = Run(folder, settings.data, 500, 20, samples, {"init": "glorot"}, optimizer=Adam(0.001), n_held_out=2000)
    train_all([run], settings.jobs)
    rows, shown, holes = fill_all(settings, load_model(run.folder), data)
    facts = {"data": data.name, "samples": samples, "seed": run.seed}
    rows = [facts | row | {"trained_by": run.commit(), "commit": version} for row in rows]
    write_table(settings.results / "imputation.csv", rows)
    draw(settings, data, rows, shown, holes)


if __name__ == "__main__":
    command(main)
