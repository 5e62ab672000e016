"""scratchvae train: train a VAE and leave a run folder."""

import argparse
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from scratchvae import data
from scratchvae.backend import BACKENDS, blas_threads, cores, take_device
from scratchvae.cli.shared import (
    DEFAULTS,
    add_command,
    background,
    bar_of_pictures,
    count,
    ignore_signals,
    images_of,
    images_of_run,
    looked_at,
    model_of,
    numbers,
    place,
    quoted,
    require_cores,
    resolved,
    run_folder,
    run_options,
    use_in_words,
    use_of,
)
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.ranks import fingerprint, ranks_of
from scratchvae.training import loop
from scratchvae.training.claim import Claim
from scratchvae.training.optim import OPTIMIZERS
from scratchvae.training.patience import KEPT, warmed_up
from scratchvae.training.run import NOTHING, best_of, checkpoint_of, facts_of_run, load_model, look, require_new

OF_DATA = {  # the defaults that these data sets change: to section 5 for Frey Face, to a quick clear demo for digits
    "frey": {"hidden": [200], "likelihood": "gaussian"},
    "digits": {"hidden": [200], "optimizer": "adam", "init": "glorot"},
}
OF_CONV = {"hidden": [128], "channels": [16, 32], "activation": "relu", "init": "glorot"}  # and --architecture conv
FELL = 0.02  # of the rise of the validation bound, which it has fallen by when it is said to have passed its best
FREE_ON_RESUME = ("samples", "epochs", "patience", "data_dir", "backend")  # all else is as in the checkpoint

EPILOG = """examples:
  scratchvae train
  scratchvae train --data mnist --latent 20 --lr 0.01 --samples 1000000 --out runs/mnist20
  scratchvae train --data frey --likelihood gaussian --latent 2 --hidden 200 --out runs/frey2
  scratchvae train --data my-images/ --latent 2 --optimizer adam --init glorot
  scratchvae train --data mnist --latent 20 --flow 10 --optimizer adam --init glorot
  scratchvae train --data mnist --latent 2 --architecture conv --optimizer adam
  scratchvae train --data mnist --latent 10 --labels --optimizer adam --init glorot
  scratchvae train --data mnist --n-train 1000 --latent 10 --hidden 200 --lr 0.02 --full-vb --local-reparameterization
  scratchvae train --resume runs/mnist20 --samples 2000000
  mpiexec -n 8 scratchvae train --data mnist   # the same run, shared by 8 processes (pip install "scratchvae[mpi]")"""


def train(out=None, resume=None, quiet=False, take_over=False, ranks=None, **given):
    """Train a VAE, write the run folder, and draw its pictures.

    `out` is the new folder of the run; without it one is made in runs/. `resume` is the folder of a run to go on with.
    With `quiet` only warnings and errors are printed. `take_over` is that of `fit`. `ranks` are those that share the
    training; None is this process alone. `given` holds the options of the run that were given; the others have their
    defaults, or what the resumed run was trained with.
    """
    ranks = ranks_of(ranks)
    given = _with_architecture(resolved(given))
    if resume is None:
        options = _with_defaults(given)
        _check_threads(options)
        if out is not None and ranks.first:
            Claim(out, take_over).require_free()
            require_new(out)
        _require_apart(f"runs/{_name(options)}" if out is None else out, options["data"])
    else:
        options = _resumed(Path(resume), given, out)

    from threadpoolctl import threadpool_limits

    images = ranks.load(lambda: images_of(options) if resume is None else images_of_run(resume, options))
    options["test_images"] = fingerprint(images.test)
    options["image_shape"] = list(images.image_shape)
    options["classes"] = list(images.classes) if options["labels"] and images.classes else None
    if options["backend"] != "numpy" and ranks.size > 1:
        take_device(ranks.machine.Get_rank(), ranks.on_machine)
    model = model_of(options, images)
    if options["warm_start"] is not None and resume is None:
        model.warm_start(load_model(options["warm_start"]))
    if options["threads"] is None and resume is None:
        options["threads"] = _threads(model, options, len(images.train))
    threads = _of_a_rank(options["threads"], model, options, len(images.train), ranks)
    optimizer = _optimizer(options)
    if not quiet:
        print(images)
        print(_describe(model, options, threads, ranks.size))
    begun = 0 if resume is None else facts_of_run(resume)["progress"]["samples"]
    folder = None
    try:
        with (
            run_folder(ranks, resume or out, f"runs/{_name(options)}") as folder,
            threadpool_limits(threads, "blas"),
            looked_at(model, options, images),
        ):
            history = loop.fit(
                model,
                images.train,
                images.valid,
                optimizer=optimizer,
                samples=options["samples"],
                epochs=options["epochs"],
                batch_size=options["batch_size"],
                seed=options["seed"],
                schedule=options["schedule"],
                kl_warmup=options["kl_warmup"],
                kl_cycles=options["kl_cycles"],
                binarization=images.binarization,
                log_every=options["log_every"],
                keep=options["keep"],
                patience=options["patience"],
                out=folder,
                resume=resume is not None,
                options=options,
                progress=False if quiet else None,
                take_over=take_over,
                comm=ranks,
            )
    except (KeyboardInterrupt, SystemExit) as stop:
        if folder is None:
            raise
        ignore_signals()
        if ranks.first and checkpoint_of(folder).exists():
            mpiexec = f"mpiexec -n {ranks.size} " if ranks.size > 1 else ""
            print(f"\nstopped; go on with: {mpiexec}scratchvae train --resume {quoted(folder)}", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) else 130
    best = ranks.first_only(lambda: best_of(folder)) if options["keep"] == "best" else None
    if not quiet:
        last = history[-1]
        print(
            f"{last['samples']:,} samples, {last['epoch']:.1f} epochs, {last['seconds']:.1f} s: bound "
            f"{last['train_bound']:.2f} train{_kind_of_bound(model)}, "
            f"{last['valid_bound']:.2f} validation (nats per datapoint)"
        )
        n_parts = 2 if options["schedule"] == "alternating" else 1
        ended = last["samples"] < loop.target_of(options["samples"], options["epochs"], n_parts * len(images.train))
        if options["keep"] == "best":
            print(_best_in_words(best, model.beta, options["patience"] if ended else None), end="")
        else:
            per_step = n_parts * min(options["batch_size"], len(images.train))
            since = warmed_up(optimizer, per_step, options["kl_warmup"], options["kl_cycles"])
            print(_passed_in_words(history, model, since), end="")
    with model.guard.looked_at():
        use = use_of(model, images.valid, images.binarization, options["seed"], ranks, quiet)
    if not quiet:
        print(use_in_words(use, options))
    if not ranks.first:
        return 0
    with model.guard.looked_at():
        kept = None if best is None else best[0]
        pictures = _draw(folder, model, images, history, options["seed"], use, quiet, kept)
    if not quiet:
        names = ", ".join(path.stem for path in pictures)
        drawn = f" and, in figures/, {names}" if names else ", and no pictures"
        anew = " anew, though nothing was left to train" if last["samples"] == begun else ""
        print(f"wrote {folder}/{anew}: config.json, metrics.csv, checkpoint.npz{drawn}")
        print(f"{_worth_a_look(model, use, pictures)}next: scratchvae evaluate {quoted(folder)}")
    return 0


def _best_in_words(best, beta, patience):
    """Return a line that says which model a run has kept as its best; "" where there is none.

    best is that of `best_of`. patience is that of a run which has ended by it before its time, and None for another.
    """
    if best is None:
        return ""
    samples, value = best
    what = "validation bound" if beta == 1.0 else f"validation bound with β = {beta:g}"
    why = "" if patience is None else f", and {patience} rows were no better: the run has ended"
    return f"kept is the model of {samples:,} samples, with the best {what}, {value:.2f}{why}\n"


def _passed_in_words(history, model, since=0):
    """Return a line where the validation bound has fallen clearly since its best row while that of training rose.

    Clearly is by 2 % of its rise. The line is "" elsewhere, and for an objective with another bound. Rows up to `since`
    samples, those of a warm-up, do not count.
    """
    history = history[np.isfinite(history["valid_bound"]) & (history["samples"] > since)]
    if len(history) == 0 or trait(model.estimator, "together") or model.beta != 1.0:
        return ""
    bounds = history["valid_bound"]
    best = bounds.argmax()
    fell = bounds[best] - bounds[-1]
    rose = history["train_bound"][-1] - history["train_bound"][best]
    if not (rose > 0 and fell > FELL * (bounds[best] - bounds.min())):
        return ""
    return (
        f"the validation bound was best at {history['samples'][best]:,} samples, {bounds[best]:.2f}, and has fallen by "
        f"{fell:.2f} since, while that of training rose by {rose:.2f}: a new run with --keep best keeps the model of "
        "then\n"
    )


def _worth_a_look(model, use, pictures):
    """Return in words which of the pictures to look at first, and for what; "" if there are none.

    Where no latent is active, they are those that show it; else those of the plane of two latents; else the images that
    the model gives back beside those that it makes up.
    """
    found = {path.stem: path for path in pictures}
    sights = []
    if use.active == 0:
        sights.append(("latents", "none carries anything, so that all samples are alike"))
    elif model.n_latent == 2:
        sights.append(("manifold", "what the decoder makes of each place in the plane of z"))
        sights.append(("latent_map", "where images have their place in the plane of z"))
    elif "reconstructions" in found and "samples" in found:
        sights.append(("reconstructions", "what it keeps of images; and at samples.png beside it: what it makes up"))
    sights.append(("reconstructions", "what it keeps of images"))
    for name, words in sights:
        if name in found:
            return f"look at {found[name]}: {words}; "
    return f"look at {pictures[0]}; " if pictures else ""


def _draw(folder, model, images, history, seed, use, quiet, kept):
    """Draw the pictures of a run and return their paths. A warning says which are missing, and how to draw them."""
    paths = []
    try:
        from scratchvae.plots import DrawingError, draw_run
    except Exception as error:  # Matplotlib, or a backend of it that a user has chosen, cannot be loaded
        reason = f"no pictures: Matplotlib cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
    else:
        try:
            bar = partial(bar_of_pictures, show=False if quiet else None)
            return draw_run(folder / "figures", model.to("numpy"), images, history, seed, use, bar, kept=kept)
        except DrawingError as error:
            paths = error.paths
            reason = str(error)
        except Exception as error:  # a full disk, or a device that fails when it gives the parameters back
            reason = f"no pictures ({type(error).__name__}: {' '.join(str(error).split())})"
    warnings.warn(
        f"{reason}; the run is whole, and they can be drawn later: scratchvae plot {quoted(folder)}", stacklevel=2
    )
    return paths


def _with_architecture(given):
    """Return the given options, with --architecture conv among them if --channels implies it."""
    if "channels" not in given:
        return given
    if given.get("architecture", "conv") != "conv":
        raise ValueError("--architecture mlp and --channels are both given; expected one of them")
    return given | {"architecture": "conv"}


def _with_defaults(given):
    """Return all options of a new run.

    An option has the value that is given, or else the one that the data, the architecture or a flow imply, or else that
    of DEFAULTS. Of your own images the best model is kept, where a run can be judged by its validation bound.
    """
    name = given.get("data", DEFAULTS["data"])
    implied = dict(OF_DATA.get(name, {}))
    if given.get("architecture") == "conv":
        implied |= OF_CONV
    if given.get("flow"):
        implied["estimator"] = "A"  # (7) needs the KL in closed form, which a flow does not have
    options = DEFAULTS | implied | given
    own = name not in data.DATASETS and not trait(OBJECTIVES[options["estimator"]], "together")
    if "keep" not in given and (own or options["patience"] is not None):
        options["keep"] = "best"
    return options


def _name(options):
    """Return the name of a run whose folder nobody has named."""
    return f"{Path(options['data']).stem}{options['latent']}"


def _require_apart(out, images):
    """Raise a ValueError if the run folder would lie in a folder of images, where it would be taken for a class."""
    of_files = images not in data.DATASETS and os.path.isdir(images)
    if of_files and Path(out).resolve().is_relative_to(Path(images).resolve()):
        raise ValueError(f"{out} lies inside the folder of images {images}: choose a folder outside of it (--out)")


def _check_threads(options):
    """Raise ValueError for a number of BLAS threads that cannot be had."""
    threads = options["threads"]
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads is {threads}; expected a whole number ≥ 1")
    require_cores(threads)
    if options["backend"] != "numpy":
        raise ValueError(
            f"--threads is for BLAS, which has nothing to do on backend {options['backend']}: leave it out"
        )
    if blas_threads(0) is None:
        raise ValueError("--threads needs a BLAS whose threads can be set, and threadpoolctl finds none: leave it out")


def _threads(model, options, n_train, size=1):
    """Return the number of BLAS threads for a new run, by the size of its largest matrix product; None on the device.

    The product has M rows, or the share of them that one of `size` ranks has, for each of the L draws of z, and the
    largest matrix among the parameters is its other factor. A convolution's matrix meets more rows than that, one for
    every patch of an image; with the default channels its product is twice the size that is counted here.
    """
    if model.backend != "numpy":
        return None
    rows = min(options["batch_size"], n_train) * options["n_samples"] / size
    matrices = [array.size for array in model.params.named(model.params.value).values() if array.ndim == 2]
    return blas_threads(rows * max(matrices))


def _of_a_rank(threads, model, options, n_train, ranks):
    """Return how many threads BLAS has on each rank of a run that has `threads` in one process.

    They are no more than the rank's share of the cores. Where the number of the run is the one that `_threads` chooses,
    that of a rank is chosen in the same way, by the rows that it has.
    """
    if model.backend != "numpy":
        return None
    if threads is None or ranks.size == 1:
        return threads
    if threads == _threads(model, options, n_train):
        threads = _threads(model, options, n_train, ranks.size)
    return min(threads, max(1, cores() // ranks.on_machine))


def _resumed(run, given, out):
    """Return the options of `run`, with those of `given` that a resumed run may change; others raise a ValueError."""
    if out is not None:
        raise ValueError("--out and --resume are both given: a resumed run stays in its folder")
    if os.path.isdir(run) and look(run)[0] == NOTHING:
        raise ValueError(
            f"{run} holds no checkpoint, its run having ended before the first one: begin it anew in the same folder, "
            f"with the options that you gave it and --out {quoted(run)}"
        )
    options = run_options(run)
    free = FREE_ON_RESUME if options["data"] in data.DATASETS else (*FREE_ON_RESUME, "data")  # your own may have moved
    for key, value in given.items():
        if key == "patience" and options["keep"] == "last":
            raise ValueError(
                f"{run} was trained without --keep best, so that the parameters of its best row are not there for "
                "--patience: leave that option out, or start anew"
            )
        if key not in free and value != options[key]:
            theirs = "its default" if options[key] is None else options[key]
            raise ValueError(
                f"{run} was trained with {key} {theirs}, not {value}: leave that option out, or start anew"
            )
    if "samples" in given or "epochs" in given:
        options |= {"samples": None, "epochs": None}
    options |= given
    threads = options["threads"] or 1
    if options["backend"] == "numpy" and threads > cores():
        warnings.warn(
            f"{run} was trained with {threads} BLAS threads and goes on with them, to the bit, but slowly: "
            f"there are {cores()} cores for this process",
            stacklevel=2,
        )
    return options


def _optimizer(options):
    """Return the optimizer with the stepsize, decay and warm-up that are given, or with its own default stepsize."""
    settings = {key: options[key] for key in ("lr", "decay") if options[key] is not None}
    if options["warmup"]:
        if options["optimizer"] != "adagrad":
            raise ValueError(f"--warmup is for adagrad; the optimizer is {options['optimizer']}")
        settings["warmup"] = options["warmup"]
    return OPTIMIZERS[options["optimizer"]](**settings)


def _describe(model, options, threads, n_ranks):
    """Return a description of the model and its training, in two lines, with the BLAS threads of each rank."""
    config = model.config
    convolutions = [f"conv{n}" for n in model.channels]
    sizes = "-".join(map(str, [config["n_visible"], *convolutions, *config["n_hidden"], config["n_latent"]]))
    activation = config["activation"] if config["n_hidden"] or model.channels else "without hidden units"
    sizes += f", given one of {model.n_classes} classes" if model.n_classes else ""
    sizes += ", full covariance" if config.get("posterior") == "full" else ""
    sizes += f", flow of {config['flow']} maps" if "flow" in config else ""
    if options["full_vb"]:
        alpha = "learned" if config["learn_hyperprior"] else f"{config['alpha']:g}"
        prior = f"full VB: θ noise {config['theta_noise']}, α {alpha}, log σ from {config['log_sigma']:g}"
        prior += f", φ and μ from {options['warm_start']}" if options["warm_start"] else ""
    else:
        prior = "p(θ) = N(0, I)" if config["prior"] else "no prior on θ"
    place = model.backend if n_ranks == 1 else f"{model.backend}, on {n_ranks} ranks"
    if threads is not None:
        place += f" with {threads} BLAS thread{'s' if threads > 1 else ''}{' each' if n_ranks > 1 else ''}"
    likelihood = config["likelihood"]
    likelihood += f", {config['mean']} mean" if len(model.likelihood.means) > 1 else ""
    objective = f"L^{config['estimator']}" if config["estimator"] in ("A", "B") else config["estimator"]
    objective += f", β = {config['beta']:g}" if "beta" in config else ""
    objective += f", free bits {config['free_bits']:g} nats" if "free_bits" in config else ""
    if options["kl_warmup"]:
        objective += f", KL from 0 to its weight in {options['kl_warmup']:,} samples"
        objective += f", {options['kl_cycles']} times" if options["kl_cycles"] > 1 else ""
    optimizer = options["optimizer"] + ("" if options["lr"] is None else f" {options['lr']}")
    optimizer += "" if options["decay"] is None else f" / (1 + step/{options['decay']:g})"
    kept = ", the best is kept" if options["keep"] == "best" else ""
    kept += "" if options["patience"] is None else f", patience of {options['patience']} rows"
    return (
        f"{type(model).__name__} {sizes}, {activation}, "
        f"{likelihood}, {model.params.value.size:,} parameters in {config['dtype']} on {place}\n"
        f"{objective}, L = {config['n_samples']}, M = {options['batch_size']}, {prior}, {optimizer}, "
        f"{options['schedule']} updates, seed {options['seed']}{kept}"
    )


def _kind_of_bound(model):
    """Return what the bound of training is called, in brackets, if it is not the bound (7) of validation; else ""."""
    plain = " (with β = 1 and no free bits, as everywhere)"
    plain = plain if "beta" in model.config or "free_bits" in model.config else ""
    if hasattr(model, "posterior"):
        return f" with the θ-KL (22){plain}"
    if plain:
        return plain
    if not trait(model.estimator, "bound", True):
        return " (log p(x|z) at the code: no bound)"
    return f" (L_{model.n_samples}, importance-weighted)" if trait(model.estimator, "together") else ""


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(
        commands,
        train,
        "train a VAE and leave a run folder: config, metrics, checkpoint, pictures",
        epilog=EPILOG,
    )
    g = p.add_argument_group("data")
    g.add_argument(
        "--data",
        type=place,
        metavar="NAME|PATH",
        help="what to train on: digits (default), mnist, frey, or your own: a .npy with (N, D) or (N, height, width); "
        "a .npz with images, or with train, valid and test, and with labels if you like; or a folder of images, or of "
        "class folders (of a GIF or TIFF the first page is read). Pixels are uint8 from 0 to 255 "
        "or floats in [0, 1]; with --mean free any floats",
    )
    g.add_argument(
        "--data-dir",
        type=place,
        metavar="DIR",
        help="the folder with MNIST and Frey Face; without it SCRATCHVAE_DATA and the cache are tried, then a download",
    )
    g.add_argument("--n-train", type=count, metavar="N", help="keep the first N training images")
    g.add_argument(
        "--split", type=numbers, metavar="A,B,C", help="how many images to train on, to validate on and to test on"
    )
    g.add_argument(
        "--binarization",
        choices=data.BINARIZATIONS,
        help="pixels as they are (grey, default), or drawn as Bernoulli(x), once (fixed) or every time (dynamic)",
    )
    g.add_argument(
        "--background",
        type=background,
        metavar="white|black|0..255",
        help="what transparent pixels of a folder of images are laid on (without it such images are refused)",
    )
    g.add_argument(
        "--color",
        choices=data.COLORS,
        help="grey (default), which turns coloured images of a folder to grey and says of how many, or rgb: red, green "
        "and blue of each pixel, with arrays of (N, height, width, 3)",
    )
    g.add_argument(
        "--labels",
        action="store_true",
        help="tell encoder and decoder the class of each image: a conditional VAE, p(x|z, y), for data with labels",
    )
    g = p.add_argument_group("model (section 3, appendix C)")
    g.add_argument(
        "--likelihood",
        choices=LIKELIHOODS,
        help="p(x|z): bernoulli (default), gaussian (for frey), isotropic, a gaussian with one σ² for all pixels, "
        "continuous-bernoulli, a density of grey pixels, or laplace, with heavier tails than a gaussian",
    )
    g.add_argument(
        "--mean",
        choices=("sigmoid", "free"),
        help="the mean of a gaussian or laplace decoder: through a sigmoid, into (0, 1) (default), or free",
    )
    g.add_argument("--latent", type=int, metavar="J", help="how many latent dimensions z has (20)")
    g.add_argument(
        "--hidden",
        type=_widths,
        metavar="H[,H]|none",
        help="units of each hidden layer (500; digits, frey: 200; conv: 128), or none: with --mean free a linear model",
    )
    g.add_argument(
        "--architecture",
        choices=("mlp", "conv"),
        help="mlp (default), or conv: convolutions of 16 and 32 channels around a hidden layer, with relu and glorot",
    )
    g.add_argument(
        "--channels",
        type=numbers,
        metavar="C[,C]",
        help="channels of the convolutions, each of which halves the side of the image",
    )
    g.add_argument(
        "--posterior",
        choices=POSTERIORS,
        help="q(z|x): gaussian (default), with a variance for each latent, or full, a gaussian with full covariance",
    )
    g.add_argument(
        "--flow",
        type=int,
        metavar="K",
        help="a planar normalizing flow over that: z goes through K maps more, and q(z|x) is no gaussian any more (0)",
    )
    g.add_argument("--activation", choices=ACTIVATIONS, help="f in h = f(x W + b), for the hidden units (tanh)")
    g.add_argument(
        "--init",
        type=_init,
        metavar="SD|glorot",
        help="how weights begin: drawn from N(0, SD²), with SD 0.01 by default, or glorot (default for digits)",
    )
    g.add_argument("--init-biases", action="store_true", help="draw the biases too (they start at zero)")
    g.add_argument(
        "--no-prior", dest="prior", action="store_false", help="drop p(θ) = N(0, I): maximum likelihood, not MAP"
    )
    g = p.add_argument_group("full variational Bayes (appendix F)")
    g.add_argument(
        "--full-vb",
        action="store_true",
        help="learn a posterior q(θ) = N(μ, σ²) over the decoder's parameters θ, not one value for each",
    )
    where = g.add_mutually_exclusive_group()
    where.add_argument(
        "--local-reparameterization",
        dest="theta_noise",
        action="store_const",
        const="local",
        help="put the noise of θ on the pre-activations, drawn for every row (without it one θ is drawn a minibatch)",
    )
    where.add_argument(
        "--antithetic",
        dest="theta_noise",
        action="store_const",
        const="antithetic",
        help="draw θ = μ + σζ for one half of the minibatch and μ - σζ for the other",
    )
    g.add_argument("--alpha", type=float, metavar="A", help="standard deviation of the prior p(θ) = N(0, A²) (1)")
    g.add_argument(
        "--learn-hyperprior",
        action="store_true",
        help="in place of --alpha: A² = mean(μ² + σ²), for each array of parameters by itself",
    )
    g.add_argument("--log-sigma", type=float, metavar="S", help="log σ of every parameter at the start (-4)")
    g.add_argument(
        "--warm-start", type=place, metavar="RUN", help="begin at the parameters of this run, of a VAE or of a FullVB"
    )
    g = p.add_argument_group("estimator (section 2.3)")
    g.add_argument(
        "--estimator",
        choices=OBJECTIVES,
        help="what to ascend: A is L^A (6), B is L^B (7, default; A with a flow), stl is L^A with its gradient by the "
        "path alone, iwae the importance-weighted bound of L draws, dreg the same doubly reparameterised, wake-sleep, "
        "black-box is L^A by scores (L of 2 or more), autoencoder has no noise and no KL",
    )
    g.add_argument("--n-samples", type=int, metavar="L", help="how many noise samples to draw per datapoint (1)")
    g.add_argument(
        "--beta",
        type=float,
        metavar="β",
        help="how often the KL counts in what is ascended (1): above 1 the latents carry less, below 1 more; the bound "
        "that is logged stays the one with β = 1",
    )
    g.add_argument(
        "--free-bits",
        type=float,
        metavar="λ",
        help="nats below which the mean KL of a latent costs nothing, so that it is not given up early (0); for B",
    )
    g.add_argument(
        "--kl-warmup",
        type=count,
        metavar="N",
        help="let the weight of the KL rise from 0 to 1, or to β, during the first N samples (without it: at once)",
    )
    g.add_argument(
        "--kl-cycles",
        type=int,
        metavar="K",
        help="let it rise K times, with N samples at its full weight after each (1)",
    )
    g = p.add_argument_group("training (algorithm 1)")
    g.add_argument(
        "--samples",
        type=count,
        metavar="N",
        help="how long: training samples to evaluate, repetitions counted (1,000,000)",
    )
    g.add_argument("--epochs", type=float, metavar="E", help="passes over the training data, in place of --samples")
    g.add_argument("--optimizer", choices=OPTIMIZERS, help="adagrad (default), adam (digits) or sgd")
    g.add_argument(
        "--lr",
        type=float,
        help="the stepsize (adagrad 0.01, adam 0.001, sgd 1e-6, so small since the bound is a sum over the data)",
    )
    g.add_argument(
        "--decay",
        type=float,
        metavar="T",
        help="let the stepsize fall as lr / (1 + step/T), with T in steps (without it the stepsize stays)",
    )
    g.add_argument(
        "--warmup",
        type=int,
        metavar="T",
        help="for adagrad: only gather squared gradients during the first T minibatches (0)",
    )
    g.add_argument("--batch-size", type=int, metavar="M", help="how many datapoints a minibatch has (100)")
    g.add_argument(
        "--schedule",
        choices=("joint", "alternating"),
        help="move φ and θ together (default), or in turns, an E-step for φ and then an M-step for θ",
    )
    g.add_argument(
        "--log-every", type=count, metavar="N", help="samples between two rows of metrics.csv (ten rows a decade)"
    )
    g.add_argument(
        "--keep",
        choices=KEPT,
        help="which model the run leaves: that of its end, last, or that of the row of metrics.csv with the best "
        "validation bound, best (last; your own images, and with --patience: best)",
    )
    g.add_argument(
        "--patience",
        type=count,
        metavar="P",
        help="end when P rows of metrics.csv, one after the other, are no better than the best before, such as 10: "
        "with ten rows a decade that is after ten times as many samples (without it the run goes to its end)",
    )
    g.add_argument(
        "--dtype", choices=("float32", "float64"), help="the precision of all numbers: float32 (default) or float64"
    )
    g.add_argument(
        "--backend",
        choices=BACKENDS,
        help="numpy (default), or cupy, which does the same on the GPU; it may change on --resume",
    )
    g.add_argument(
        "--threads",
        type=int,
        metavar="T",
        help="BLAS threads of the training: one where the matrix products are too small for a second to gain, else as "
        "many as BLAS takes (default); kept in config.json and on --resume. Not for cupy, and fit in Python leaves it "
        "to its caller",
    )
    g.add_argument("--seed", type=int, help="the seed of initial values, minibatches and noise (0)")
    g = p.add_argument_group("the run")
    g.add_argument(
        "--out",
        type=place,
        metavar="DIR",
        help="the run folder: new or empty, or one whose run ended before its first checkpoint or has broken ones "
        "alone, which are kept aside (runs/digits20 for digits and 20 latents; runs/digits20-2 and so on if that is "
        "taken)",
    )
    g.add_argument(
        "--resume", type=place, metavar="DIR", help="go on with this run, to the bit as if it had never stopped"
    )
    g.add_argument(
        "--take-over",
        action="store_true",
        help="go on in a folder whose run on another host is dead, which this one cannot see: its claim.json, which a "
        "run keeps while it is at work, was not touched for ten minutes; on one host it is never needed",
    )
    g.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")


def _widths(text):
    """Read the widths of the hidden layers: whole numbers with commas between them, or none."""
    try:
        return [] if text == "none" else numbers(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; --hidden none for no layer") from None


def _init(text):
    """Read what weights are drawn from: a standard deviation, or glorot."""
    try:
        return text if text == "glorot" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a standard deviation such as 0.01, or glorot") from None
