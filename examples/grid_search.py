"""A VAE in a pipeline of scikit-learn, searched over its latents and its likelihood, beside PCA.

Pixels of scikit-learn's digits are brought to [0, 1] and coded by `scratchvae.sklearn.VAE`, and logistic regression
tells the codes apart. `GridSearchCV` fits every setting three times, each time without a third of the images, and gives
the accuracy on the third that was left out.

With --scale below 1 the VAE trains for fewer passes, for a quick look.
"""

import argparse
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from stages import write_table
from study import add_folders, command, parse

from scratchvae.bench import commit
from scratchvae.sklearn import VAE

LATENTS = [2, 5, 10, 20]
LIKELIHOODS = ["isotropic", "bernoulli", "continuous-bernoulli"]


def searched(code, grid, X, y):
    """The fitted search over `grid` of a pipeline in which `code` makes the codes."""
    steps = [("scale", MinMaxScaler(clip=True)), ("code", code), ("classify", LogisticRegression(max_iter=1000))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 passes are the most that a setting gets
        return GridSearchCV(Pipeline(steps), grid, cv=3, error_score="raise").fit(X, y)


def rows_of(name, search, version):
    """The rows of the table for a search."""
    found = search.cv_results_
    for settings, accuracy, seconds in zip(
        found["params"], found["mean_test_score"], found["mean_fit_time"], strict=True
    ):
        yield {
            "code": name,
            "likelihood": settings.get("code__likelihood", "-"),
            "latents": settings["code__n_components"],
            "accuracy": round(float(accuracy), 4),
            "fit_seconds": round(float(seconds), 2),
            "seed": 0,
            "commit": version,
        }


def main():
    """Search, print the accuracies, and write grid_search.csv."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", type=float, default=1.0, help="a fraction of the passes, for a quick look (1)")
    add_folders(p)
    settings = parse(p)
    X, y = load_digits(return_X_y=True)
    passes = max(1, round(200 * settings.scale))
    print(f"{len(LATENTS) * len(LIKELIHOODS)} settings, with three fits each, of at most {passes} passes", flush=True)
    begun = time.perf_counter()
    vae = VAE(max_iter=passes, random_state=0)
    search = searched(vae, {"code__n_components": LATENTS, "code__likelihood": LIKELIHOODS}, X, y)
    took = time.perf_counter() - begun
    version = commit()
    rows = [
        *rows_of("VAE", search, version),
        *rows_of("PCA", searched(PCA(), {"code__n_components": LATENTS}, X, y), version),
    ]
    for row in rows:
        print(f"{row['code']} {row['likelihood']:20} {row['latents']:3} latents: {row['accuracy']:.1%} are told apart")
    print(f"the search of the VAE took {took:.0f} s; the best has {search.best_params_}")
    write_table(settings.results / "grid_search.csv", rows)


if __name__ == "__main__":
    command(main)
