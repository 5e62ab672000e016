"""scratchvae evaluate: print the bound of a trained model."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from scratchvae.backend import BACKENDS, take_device
from scratchvae.cli.encode import scores as scores_of
from scratchvae.cli.images import add_background, all_images, shown
from scratchvae.cli.shared import (
    add_command,
    add_moved_data,
    count,
    images_of_run,
    looked_at,
    place,
    resolved,
    run_options,
    use_in_words,
    use_of,
)
from scratchvae.cli.writing import checked_file, write_table
from scratchvae.inference.objectives import trait
from scratchvae.ranks import ranks_of
from scratchvae.training import loop
from scratchvae.training.run import load_model

WALKS = 16  # of annealed importance sampling for an image, where no number is given
APART = 0.1  # nats, by which the estimates from below and from above may differ
SIMULATED = 100  # how many images of the model's own they are held against

EPILOG = """examples:
  scratchvae evaluate runs/mnist20
  scratchvae evaluate runs/mnist20 --split valid --json
  scratchvae evaluate runs/mnist20 --log-likelihood 5000
  scratchvae evaluate runs/mnist20 --data odd/ --all --scores scores.csv  # of any images, with a row for each of them
  scratchvae evaluate runs/mnist20 --log-likelihood 16 --annealed 1000 --first 100
  mpiexec -n 8 scratchvae evaluate runs/mnist20 --log-likelihood 5000     # 8 processes share the images"""


def evaluate(
    run,
    split="test",
    n_samples=None,
    n_theta=10,
    log_likelihood=None,
    annealed=None,
    first=None,
    classify=None,
    seed=0,
    as_json=False,
    backend="numpy",
    changed_data=False,
    everything=False,
    scores=None,
    background=None,
    ranks=None,
    **moved,
):
    """Print the bound of the run folder `run` with its two terms, on sampled z, in nats per datapoint.

    `split` names the images: "train", "valid" or "test". `n_samples` is the number of z per image; without it that of
    the training holds. For a FullVB the bound over θ ~ q(θ) is printed too, from `n_theta` draws, none for 0.
    `log_likelihood` asks for log p(x) as well, by importance with so many draws per image. With `annealed` it is had by
    so many walks per image of annealed importance sampling instead, or by 16, and `annealed` is the number of their
    temperatures. `first` takes so many of the images, the first ones, and not all. With `classify` a conditional model
    says which class each image belongs to, from so many draws per image and class. `seed` is that of the noise.
    With `as_json` one JSON object is printed in place of sentences, in which null stands for a number that is not
    finite, since JSON has none. `backend` says where it is computed. `moved` may hold data and data_dir, where the data
    are now. With `changed_data` the data may be others than in training. With `everything` all images of the data that
    are given are taken, whatever they are, or all three splits of the run's own; `background` is what transparent
    pixels of other data are laid on. `scores` is a .csv or .npz for the numbers of each image. `ranks` are those that
    share the rows; None is this process alone.
    """
    ranks = ranks_of(ranks)
    options = ranks.first_only(lambda: run_options(Path(run))) | resolved(moved)  # while it is trained it may change
    if backend != "numpy" and ranks.size > 1:
        take_device(ranks.machine.Get_rank(), ranks.on_machine)
    if scores is not None:
        scores = ranks.first_only(lambda: checked_file("--scores", scores, (".csv", ".npz"), options["data"]))
    model = ranks.first_only(lambda: load_model(run)).to(backend)
    estimate = _estimate_of(model, log_likelihood, annealed)
    rest = n_samples, n_theta, estimate, classify, seed, as_json, scores, ranks
    others = everything and "data" in moved
    if background is not None and not others:
        raise ValueError("--background is for images of your own choice, --data with --all: leave it out")
    if everything:
        images = ranks.load(
            lambda: (
                all_images(options, model, background) if others else images_of_run(run, options, changed_data).whole()
            )
        )
        with shown(model, options, images):
            return _evaluate(run, options, model, _first(images, first), "all", *rest)
    images = ranks.load(lambda: images_of_run(run, options, changed_data))
    with looked_at(model, options, images):
        return _evaluate(run, options, model, _first(images.part(split), first), split, *rest)


def _first(images, first):
    """Return the first of some `Images`, all of them for None; a ValueError is raised unless there are so many."""
    if first is None:
        return images
    n = len(images.x)
    if not 1 <= first <= n:
        raise ValueError(f"--first is {first}; expected a whole number from 1 to {n:,}, the images that there are")
    return images.first(first)


def _estimate_of(model, log_likelihood, annealed):
    """Return (K, T), how log p(x) is to be estimated: by importance if T is None, and not at all for None in place.

    ValueError is raised for numbers below 1, and for a model without p(z).
    """
    if log_likelihood is None and annealed is None:
        return None
    for name, number in [("--log-likelihood", log_likelihood), ("--annealed", annealed)]:
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; expected a whole number ≥ 1")
        if number is not None and not trait(model.estimator, "bound", True):
            raise ValueError(f"{name} asks for log p(x), which an autoencoder does not have: leave it out")
    return log_likelihood or WALKS, annealed


def _classified(model, images, K, seed, ranks):
    """Return how often the most probable class is the right one, by Bayes' rule, for the result of `evaluate`.

    All classes are taken to be equally probable.
    """
    from scratchvae.inference.classes import classes  # only now: it takes SciPy

    if not model.n_classes:
        raise ValueError("--classify is for a run that was told the classes (train --labels): leave it out")
    if K < 1:
        raise ValueError(f"--classify is {K}; expected a whole number ≥ 1")
    y = model.labels(images.x)
    x = loop.as_evaluated(model, images.x, seed, images.binarization)
    with loop.progress_bar(len(x) * model.n_classes, 0, ranks.shown(None), unit=" images") as bar:
        found = classes(model, x, K, None, seed, bar.update, ranks)
    own = np.arange(len(x)), found.predicted()
    return {
        "accuracy": found.accuracy(y),
        "classify_samples": K,
        "classes": model.n_classes,
        "log_posterior_of_label": float(found.log_posterior()[np.arange(len(x)), y].mean()),
        "classify_untrusted": int(found.untrusted[own].sum()),
    }


def _evaluate(run, options, model, images, split, n_samples, n_theta, estimate, classify, seed, as_json, scores, ranks):
    """Evaluate a model that is loaded, at `Images` that were looked at; the arguments are those of `evaluate`.

    estimate is that of `_estimate_of`.
    """
    if n_theta < 0:
        raise ValueError(f"--n-theta is {n_theta}; expected a whole number ≥ 0")
    if n_samples is not None:
        if n_samples < 1:
            raise ValueError(f"--n-samples is {n_samples}; expected a whole number ≥ 1")
        model.n_samples = n_samples
    x = images.x
    bounds = trait(model.estimator, "bound", True)
    note = getattr(model.likelihood, "note", None)
    result = {
        "run": str(run),
        "data": options["data"],
        "binarization": images.binarization,
        "split": split,
        **loop.evaluate(model, x, seed, images.binarization, ranks),
        "n_samples": model.n_samples,
        "seed": seed,
        **({"note": note} if note else {}),
    }
    use = use_of(model, x, images.binarization, seed, ranks)
    if bounds:
        use = replace(use, rate=result["kl"])  # that of all L draws, where it is by draws
    result |= _carried(use, result)
    over_theta = options["full_vb"] and n_theta > 0
    if over_theta:
        result |= _over_theta(model, x, split, n_theta, seed, images.binarization, ranks)
    if estimate is not None:
        found, how = _estimated(model, x, *estimate, seed, images.binarization, ranks)
        result |= _log_likelihood(found, estimate[0]) | how
    if classify is not None:
        result |= _classified(model, images, classify, seed, ranks)
    if not bounds:
        result |= {"bound": None, "kl": None, "rate": None}
    if scores is not None:
        result["scores"] = str(scores)
        terms = scores_of(model, images, seed, ranks)
        columns = {name: terms[name] for name in ("bound", "rate", "distortion")}
        if estimate is not None:
            columns |= {"log_likelihood": found.log_p, "log_likelihood_error": found.error, "k_hat": found.k_hat}
        ranks.first_only(lambda: write_table(scores, images, columns))
    if as_json:
        print(json.dumps(_finite(result), allow_nan=False))
        return 0
    print(_bound_in_words(result, options["color"]))
    if trait(model.estimator, "together"):
        print(
            f"that is the bound (7), each draw by itself; it was trained on that of {model.config['n_samples']} draws "
            "together: see --log-likelihood"
        )
    if note:
        print(note)
    print(use_in_words(use, options))
    if estimate is not None:
        print(_log_likelihood_in_words(result))
    if classify is not None:
        print(_classified_in_words(result))
    if over_theta:
        print(_over_theta_in_words(result))
        if model.config["learn_hyperprior"]:
            print("learned α: " + ", ".join(f"{name} {alpha:.3g}" for name, alpha in result["alpha"].items()))
    if scores is not None:
        known = ", ".join(name for name, column in columns.items() if column is not None)
        print(f"wrote {scores}: {known} of each image")
    return 0


def _carried(use, result):
    """Return what the latents carry, for the result of `evaluate`, whose two terms are rate and distortion."""
    return {
        "rate": result["kl"],
        "distortion": -result["reconstruction"],
        "n_latent": use.n_latent,
        "active": use.active,
        "kl_of_latents": None if use.kl is None else use.kl.tolist(),
        "mutual_information": use.mutual_information,
        "mutual_information_error": use.error,
        "mutual_information_most": use.most,
        "log_n": use.log_n,
        "marginal_kl": use.marginal_kl,
        "unknown": use.missing,
    }


def _over_theta(model, x, split, n_theta, seed, binarization, ranks):
    """Return the bound over `n_theta` draws θ ~ q(θ), KL(q(θ) ‖ p(θ)) and α, for the result of `evaluate`."""
    found = loop.evaluate_theta(model, x, n_theta, seed, binarization, ranks)
    if split != "train":
        del found["bound_22"]  # (22) belongs to the data that q(θ) was fitted to
    return found | {"n_theta": n_theta, "alpha": model.alphas()}


def _estimated(model, x, K, T, seed, binarization, ranks):
    """Return the `Estimate` of log p(x) of each datapoint, as the bound sees it, and how it was had.

    It is had by importance with K draws each if T is None. Otherwise it is had by K walks of T temperatures each, and
    held against data that the model has made itself: up to `SIMULATED` of them, and no more than there are in x. Of a
    conditional model it is log p(x|y), where y is the label of the datapoint.
    """
    from scratchvae.inference import marginal  # only now: it takes SciPy

    x = loop.as_evaluated(model, x, seed, binarization)
    if T is None:
        with loop.progress_bar(len(x), 0, ranks.shown(None), unit=" images") as bar:
            estimate = marginal.importance(model, x, K, seed, bar.update, ranks)
        how = {"log_likelihood_by": "importance"}
    else:
        n = min(len(x), SIMULATED)
        with loop.progress_bar((len(x) + 2 * n) * K * T, 0, ranks.shown(None), unit=" steps") as bar:
            walks = {"n_samples": K, "temperatures": T, "seed": seed, "progress": bar.update, "comm": ranks}
            estimate = marginal.annealed(model, x, **walks)
            simulated = marginal.sandwich(model, n, **walks)
        gap, gap_error = simulated.gap()
        how = {"log_likelihood_by": "annealing", "temperatures": T, "simulated": n}
        how |= {"simulated_lower": simulated.lower.mean()[0], "simulated_upper": simulated.upper.mean()[0]}
        how |= {"simulated_gap": gap, "simulated_gap_error": gap_error}
    return estimate, how | {"log_likelihood_of": "p(x|y)" if model.n_classes else "p(x)"}


def _log_likelihood(estimate, n_samples):
    """Return the mean of an `Estimate` of log p(x) and what is known of its error, for the result of `evaluate`."""
    mean, error = estimate.mean()
    known = {"log_likelihood_error": error, "log_likelihood_bias": -estimate.bias()}
    known |= {"k_hat": float(estimate.k_hat.max()), "k_hat_threshold": estimate.threshold()}
    known = {key: value if math.isfinite(value) else None for key, value in known.items()}
    untrusted = int(estimate.untrusted().sum())
    known["unsure"] = int(estimate.unsure().sum())
    known["not_finite"] = int((~np.isfinite(estimate.log_p)).sum())
    return {"log_likelihood": mean, "log_likelihood_samples": n_samples, **known, "untrusted": untrusted}


def _finite(value):
    """Return a result with None in place of each number in it that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bound_in_words(result, color="grey"):
    """Return the bound and its terms as a sentence, or the one term of an autoencoder, which has no bound.

    color is that of the run, and names images whose pixels are taken as they are.
    """
    pixels = color if result["binarization"] == "grey" else result["binarization"]
    which = "all images:" if result["split"] == "all" else result["split"]
    if result["bound"] is None:
        return (
            f"{which} log p(x|z) at the code {result['reconstruction']:.2f} nats per datapoint, "
            f"n = {result['n']:,}, {pixels} {result['data']}; an autoencoder has no bound"
        )
    return (
        f"{which} bound {result['bound']:.2f} = reconstruction {result['reconstruction']:.2f} "
        f"- KL {result['kl']:.2f} nats per datapoint, "
        f"n = {result['n']:,}, L = {result['n_samples']}, {pixels} {result['data']}"
    )


def _log_likelihood_in_words(result):
    """Return the estimate of log p(x) as a sentence, with its error, its bias and k_hat as far as they are known."""
    error_known = result["log_likelihood_error"] is not None
    text = f"log {result['log_likelihood_of']} {result['log_likelihood']:.2f}"
    if error_known:
        text += f" ± {result['log_likelihood_error']:.2g}"
    text += f" nats per datapoint, by {_how(result)}"
    if error_known:
        text += f", too low on average by some {-result['log_likelihood_bias']:.2g}"
    if result["k_hat"] is None:
        text += "; no k_hat for such weights, or so few"
    else:
        text += f"; k_hat up to {result['k_hat']:.2f}"
    if untrusted := result["untrusted"] - result["not_finite"]:
        text += f", above {result['k_hat_threshold']:.2f} for {untrusted:,} of {result['n']:,}"
        text += ", whose error is not known"
    if result["unsure"]:
        text += f"; between 0.5 and that for {result['unsure']:,}, whose errors are too small"
    if result["not_finite"]:
        text += f"; it is not finite for {result['not_finite']:,} of {result['n']:,}"
    if result["log_likelihood_by"] == "annealing":
        text += f". On {result['simulated']:,} images that the model made itself the same walks give "
        text += f"{result['simulated_lower']:.2f} from below and {result['simulated_upper']:.2f} from above"
        if math.isfinite(result["simulated_gap_error"]):
            gap, error = result["simulated_gap"], result["simulated_gap_error"]
            text += f", {gap:.2g} ± {error:.2g} apart"
            text += ": too far to be trusted, take more temperatures" if gap - 2 * error > APART else ""
    return text


def _how(result):
    """Return in words how log p(x) was estimated."""
    K = result["log_likelihood_samples"]
    if result["log_likelihood_by"] == "importance":
        q = "q(z|x)" if result["log_likelihood_of"] == "p(x)" else "q(z|x, y)"
        return f"importance with {K:,} draws from {q}"
    T = result["temperatures"]
    return f"{K:,} annealed walk{'s' if K > 1 else ''} of {T:,} temperature{'s' if T > 1 else ''}"


def _classified_in_words(result):
    """Return how good the classes are that Bayes' rule gives, as a sentence."""
    text = (
        f"the most probable of {result['classes']} classes, by Bayes' rule with {result['classify_samples']:,} draws "
        f"from q(z|x, y) for each, is the right one for {result['accuracy']:.2%} of {result['n']:,} images; log p(y|x) "
        f"of the right one is {result['log_posterior_of_label']:.3f} nats on average"
    )
    if result["classify_untrusted"]:
        text += f"; k_hat distrusts log p(x|y) of the class that was chosen for {result['classify_untrusted']:,}"
    return text


def _over_theta_in_words(result):
    """Return the bound over θ ~ q(θ) as a sentence."""
    text = f"that is at the mean of θ; over {result['n_theta']} θ ~ q(θ) {result['bound_over_theta']:.2f}, "
    text += f"KL(q(θ) ‖ p(θ)) {result['theta_kl']:,.0f} nats"
    if "bound_22" in result:
        text += f", or {result['theta_kl'] / result['n']:.2f} per datapoint: bound (22) {result['bound_22']:.2f}"
    return text


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(
        commands,
        evaluate,
        "print the bound of a trained model, its KL and its reconstruction term",
        "RUN",
        epilog=EPILOG,
    )
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--split", choices=("train", "valid", "test"), help="the images to evaluate (test)")
    which.add_argument(
        "--all",
        dest="everything",
        action="store_true",
        help="evaluate all images of --data, without a split; they need not be those of the training, but have their "
        "size. Without --data: all three splits of the run's own data",
    )
    p.add_argument(
        "--scores",
        type=place,
        metavar="FILE",
        help="write the numbers of each image too, beside the name of its file, into a .csv or .npz, which is replaced",
    )
    p.add_argument("--n-samples", type=int, metavar="L", help="how many z to draw per image (as many as in training)")
    p.add_argument(
        "--log-likelihood",
        type=count,
        metavar="K",
        help="estimate log p(x) too, by importance with K draws per image, say 5000",
    )
    p.add_argument(
        "--annealed",
        type=count,
        metavar="T",
        help="estimate it by annealed importance sampling, with K walks per image (16) of T temperatures, say 1000: "
        "slow, and right where q(z|x) misses a part of the posterior; and hold it against images of the model's own",
    )
    p.add_argument("--first", type=count, metavar="N", help="take the first N of the images only (all)")
    p.add_argument(
        "--classify",
        type=count,
        metavar="K",
        help="for a run with --labels: the class of each image by Bayes' rule, by K draws for each class, say 20",
    )
    p.add_argument(
        "--n-theta",
        type=int,
        metavar="S",
        help="for full VB: how many θ to draw for the bound over θ (10; 0 leaves it out)",
    )
    p.add_argument("--seed", type=int, help="the seed of the noise (0)")
    add_moved_data(p)
    add_background(p)
    p.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object and no sentences")
    p.add_argument("--backend", choices=BACKENDS, help="where to compute it (numpy)")
