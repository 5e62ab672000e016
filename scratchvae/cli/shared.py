"""What several commands share: the options of a run, what is built from them, paths, and how options are read."""

import argparse
import contextlib
import itertools
import math
import os
import shlex
import signal
from pathlib import Path

import numpy as np

from scratchvae import data
from scratchvae.arguments import is_real, model_rows, takes_unit
from scratchvae.backend import BACKENDS, cores
from scratchvae.data.arrays import PARTS
from scratchvae.data.pixels import warn_if_dark
from scratchvae.files import told
from scratchvae.inference.full_vb import THETA_NOISE
from scratchvae.inference.information import information
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.ranks import fingerprint, ranks_of
from scratchvae.signals import STOPS
from scratchvae.training import loop
from scratchvae.training.optim import OPTIMIZERS
from scratchvae.training.patience import KEPT
from scratchvae.training.run import config_differs, config_of, facts_of_run, require_folder, same_data

# The options of a run. `scratchvae train` keeps them in config.json, and every other command reads them there.

DEFAULTS = {
    "data": "digits",
    "data_dir": None,
    "n_train": None,
    "split": None,
    "binarization": "grey",
    "background": None,
    "color": "grey",
    "labels": False,
    "likelihood": "bernoulli",
    "mean": "sigmoid",
    "latent": 20,
    "hidden": [500],
    "architecture": "mlp",
    "channels": [],
    "posterior": "gaussian",
    "flow": 0,
    "activation": "tanh",
    "init": 0.01,
    "init_biases": False,
    "prior": True,
    "full_vb": False,
    "theta_noise": "minibatch",
    "alpha": 1.0,
    "learn_hyperprior": False,
    "log_sigma": -4.0,
    "warm_start": None,
    "estimator": "B",
    "n_samples": 1,
    "dtype": "float32",
    "backend": "numpy",
    "threads": None,  # of BLAS; None keeps what the process has, as runs did before this option
    "optimizer": "adagrad",
    "lr": None,
    "warmup": 0,
    "decay": None,
    "beta": 1.0,
    "free_bits": 0.0,
    "kl_warmup": None,
    "kl_cycles": 1,
    "batch_size": 100,
    "schedule": "joint",
    "samples": None,
    "epochs": None,
    "log_every": None,
    "keep": "last",
    "patience": None,
    "seed": 0,
    "test_images": None,  # no option, but the SHA-256 of the test images, which the checkpoint does not know
    "image_shape": None,  # likewise
    "classes": None,  # likewise: the names of the classes that a conditional model was told
}
KINDS = {  # what an option in config.json may be beside None: a type, "list" for one of whole numbers, or names
    bool: ("labels", "init_biases", "prior", "full_vb", "learn_hyperprior"),
    int: (
        *("n_train", "latent", "flow", "n_samples", "threads", "warmup", "batch_size", "samples", "log_every", "seed"),
        *("kl_warmup", "kl_cycles", "patience"),
    ),
    float: ("alpha", "log_sigma", "epochs", "lr", "decay", "beta", "free_bits"),
    str: ("data", "data_dir", "warm_start", "test_images"),
    "list": ("hidden", "channels", "split", "image_shape"),
}
NAMES = {
    "binarization": data.BINARIZATIONS,
    "color": data.COLORS,
    "likelihood": LIKELIHOODS,
    "mean": ("sigmoid", "free"),
    "architecture": ("mlp", "conv"),
    "posterior": POSTERIORS,
    "activation": ACTIVATIONS,
    "theta_noise": THETA_NOISE,
    "estimator": OBJECTIVES,
    "dtype": ("float32", "float64"),
    "backend": BACKENDS,
    "optimizer": OPTIMIZERS,
    "schedule": ("joint", "alternating"),
    "keep": KEPT,
}
OF_THETA = ("theta_noise", "alpha", "learn_hyperprior", "log_sigma")  # arguments of a FullVB that a VAE does not take
NEWER = ("backend", "threads", "full_vb", "warm_start", "architecture", "channels", "flow", "decay")
NEWER += (
    "beta",
    "free_bits",
    "kl_warmup",
    "kl_cycles",
    "keep",
    "patience",
    "posterior",
    "background",
    "color",
    "labels",
    "test_images",
    "image_shape",
    "classes",
    *OF_THETA,
)
MAY_CHANGE = ("samples", "epochs", "patience", "data", "data_dir", "backend")  # as a run goes on, and what is no option
MAY_CHANGE += ("test_images", "image_shape", "classes")
UNKNOWN = {  # what an `Information` may not know, in words
    "kl": "the KL of each latent",
    "active": "how many latents are active",
    "mutual_information": "the mutual information",
}
SINCE = {key: DEFAULTS[key] for key in NEWER}  # the config.json of an older run may lack these: it had the defaults


def run_options(run):
    """Read the options of the run folder `run`, a Path, from its config.json, as a dict with the keys of DEFAULTS.

    An option that is newer than the run has the value that the run was trained with, its default. ValueError is raised
    if `run` is no run folder, if config.json is broken, or if the run was made by `fit` in Python, without options.
    """
    options = config_of(run)["options"]
    if not _is_ours(options):
        if _is_ours(facts_of_run(run).get("options")):
            raise ValueError(f"{run}/config.json has not the options that the checkpoint has: put it back as it was")
        raise ValueError(
            f"{run} was trained in Python, not by scratchvae train: load_model({str(run)!r}) gives its model, "
            "scratchvae.evaluate its bound, and fit(…, out=…, resume=True) goes on with it"
        )
    try:
        return _checked(SINCE | options)
    except ValueError as error:
        raise ValueError(
            f"{run}/config.json does not hold the options of a run of scratchvae train ({error})"
        ) from None


def _is_ours(options):
    """Say whether these are options of `scratchvae train`, and not of a caller of `fit`."""
    return isinstance(options, dict) and {"data", "hidden"} <= options.keys()


def _checked(options):
    """Return the options in the order of DEFAULTS; a ValueError names one that is missing, unknown or of no use."""
    if unknown := options.keys() - DEFAULTS.keys():
        raise ValueError(f"this version knows no {', '.join(sorted(unknown))}: update scratchvae")
    if missing := DEFAULTS.keys() - options.keys():
        raise ValueError(f"there is no {', '.join(sorted(missing))}")
    kinds = {key: kind for kind, keys in KINDS.items() for key in keys} | NAMES
    kinds |= {"init": "init", "background": "background", "classes": "classes"}
    for key, value in options.items():
        if not _is(kinds[key], value) and not (value is None and DEFAULTS[key] is None):
            raise ValueError(f"{key} is {value!r}")
    return {key: options[key] for key in DEFAULTS}


def _is(kind, value):
    """Say whether `value` is what KINDS and NAMES call `kind`."""
    number = is_real(value)
    if kind == "init":
        return number or value == "glorot"
    if kind == "background":
        return value in ("white", "black") or (type(value) is int and 0 <= value <= 255)
    if kind == "classes":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if kind == "list":
        return isinstance(value, list) and all(type(n) is int for n in value)
    if kind is int:
        return type(value) is int and value >= 0
    if kind in (bool, str):
        return type(value) is kind
    return number if kind is float else isinstance(value, str) and value in kind


def images_of(options):
    """Load the images that a run with these options is trained on and evaluated at, with their labels where it asks."""
    keys = ("data_dir", "n_train", "split", "binarization", "background", "color")
    images = data.load_data(options["data"], **{key: options[key] for key in keys})
    return images.labelled() if options["labels"] else images


def images_of_run(run, options, changed_data=None):
    """Load the images of the run folder `run` with these options.

    A ValueError is raised unless config.json says what the checkpoint does, and unless the images are those that the
    run was trained on. With changed_data they may be others; None is for a command that has no such option.
    """
    facts = facts_of_run(run)
    for name, theirs, ours in [*_edited(options, facts), *config_differs(config_of(run), facts)]:
        raise ValueError(
            f"{run}/config.json says {name} {theirs!r}, and the checkpoint {ours!r}: "
            "config.json was edited; put it back as it was"
        )
    images = images_of(options)
    if changed_data and options["labels"]:
        _require_the_classes(run, options, images)
    stored = facts["run"].get("data")
    if changed_data or not isinstance(stored, dict):
        return images
    stored = stored | {"test": options["test_images"]}
    here = {part: fingerprint(getattr(images, part, None)) for part in stored}
    changed = [part for part, theirs in stored.items() if theirs is not None and not same_data(theirs, here[part])]
    if options["image_shape"] not in (None, list(images.image_shape)):
        changed = list(stored)  # other images, though of the same pixels
    if changed:
        uses = " and ".join(changed).replace("valid", "validate")
        way_out = "" if changed_data is None else ", or take these all the same (--changed-data)"
        raise ValueError(
            f"the images of {options['data']} to {uses} with are not those that {run} "
            "was trained with: put back what was added, left out or changed, or say where they are now (--data, "
            f"--data-dir){way_out}"
        )
    return images


def _require_the_classes(run, options, images):
    """Raise a ValueError if images that are not those of the training have classes of other names, or in another order.

    Label 0 would then stand for another class than the model was told. Labels without names are taken as they are.
    """
    told = options["classes"] or [str(label) for label in range(images.n_classes)]
    if images.classes is not None and list(images.classes) != told:
        raise ValueError(
            f"{options['data']} has the classes {', '.join(images.classes)}; expected those that {run} was told, "
            f"{', '.join(told)}"
        )


@contextlib.contextmanager
def looked_at(model, options, images):
    """Look at the images as `fit` and `evaluate` look at rows, but by the name of the data, and no more inside."""
    for part in PARTS:
        rows = getattr(images, part)
        if rows is not None:
            name = options["data"] if part == "train" else f"{part} of {options['data']}"
            model_rows(name, rows, model)
    if images.train.dtype != np.uint8:  # `load_data` has looked at these
        warn_if_dark(options["data"], images.train[:, : model.n_visible], 3, floats=takes_unit(model.likelihood))
    with model.guard.looked_at():
        yield


def _edited(options, facts):
    """Return (name, option, in the checkpoint) for each option that is not the one the checkpoint was written with.

    Those that may change from one part of a run to the next are left out. The checkpoint of an older run has no options
    of its own, but some of them among its facts.
    """
    stated = facts.get("options")
    if not _is_ours(stated):
        model = facts["run"]["model"]
        stated = facts["run"] | model | {"latent": model.get("n_latent"), "hidden": model.get("n_hidden")}
        stated |= dict.fromkeys(("optimizer", "batch_size"))  # its numbers, and one that was cut down to the data
        stated = {key: value for key, value in stated.items() if value is not None}
    keys = [key for key in options if key in stated and key not in MAY_CHANGE]
    return [(key, options[key], stated[key]) for key in keys if options[key] != stated[key]]


def model_of(options, images):
    """Build the model that a run with these options begins with, for `images` as `images_of` loads them.

    ValueError is raised for options that do not go together. The model itself refuses numbers out of their range.
    """
    if not options["full_vb"]:
        _refuse_options_of_full_vb(options)
    elif not options["prior"]:
        raise ValueError("--no-prior and --full-vb are both given; the prior of full variational Bayes is --alpha")
    if options["flow"] < 0:
        raise ValueError(f"--flow is {options['flow']}; expected a whole number ≥ 1 of maps, or 0 for none")
    if options["channels"] and images.image_shape[0] != images.image_shape[1]:
        height, width = images.image_shape[:2]
        raise ValueError(f"the images are {height} x {width}; expected square ones for --architecture conv")
    keys = [
        "likelihood",
        "mean",
        "estimator",
        "n_samples",
        "activation",
        "init",
        "init_biases",
        "dtype",
        "seed",
        "backend",
        "channels",
        "posterior",
        "flow",
        "beta",
        "free_bits",
    ]
    keys += OF_THETA if options["full_vb"] else ["prior"]
    kind = FullVB if options["full_vb"] else VAE
    settings = {key: options[key] for key in keys} | {"n_classes": images.n_classes}
    if options["channels"] and options["color"] == "rgb":
        settings["image_channels"] = 3
    return kind(images.pixels("train").shape[1], options["hidden"], options["latent"], **settings)


def _refuse_options_of_full_vb(options):
    """Raise ValueError if an option is given that has a meaning with --full-vb alone."""
    for key in (*OF_THETA, "warm_start"):
        if options[key] != DEFAULTS[key]:
            words = {"local": "--local-reparameterization", "antithetic": "--antithetic"}
            option = words.get(options[key], "--" + key.replace("_", "-"))
            raise ValueError(f"{option} belongs to full variational Bayes: add --full-vb")


# What is printed of the latents


def use_of(model, x, binarization, seed, ranks=None, quiet=False):
    """Return the `Information` about rows x as the model is shown them, with a bar unless `quiet`."""
    ranks = ranks_of(ranks)
    x = loop.as_seen(x, seed, binarization == "dynamic")
    with loop.progress_bar(len(x), 0, False if quiet else ranks.shown(None), unit=" images") as bar:
        return information(model, x, seed, bar.update, ranks)


def bar_of_pictures(total, show):
    """Return a bar that counts the pictures of a run, which is seen if they take longer than two seconds."""
    return loop.progress_bar(total, 0, show, unit=" pictures", delay=2.0)


FEW = 10  # images, of fewer than which the codes may be alike because they are


def _remedies(options):
    """Return in words what has helped against latents that are not active, without what the run has already."""
    found = "" if options["init"] == "glorot" else "weights from --init glorot, and "
    first = f"the KL counts {options['beta']:g} times, so try a smaller --beta; " if options["beta"] > 1 else ""
    return f"{first}what has helped is {found}a smaller --lr (examples/collapse.py)"


def use_in_words(use, options):
    """Return in a sentence or two what an `Information` says of the latents, and what is not known and why.

    options are those of the run.
    """
    if math.isnan(use.rate):
        reason = use.missing.get("rate", "the KL is not finite for all images")
        return f"what the latents carry is not known: {reason}"
    parts = []
    if use.n < FEW:
        are = "image is" if use.n == 1 else "images are"
        parts.append(f"{use.n} {are} too few to say which latents are active: take {FEW} or more")
    elif use.active == 0:
        parts.append(f"none of the latents is active, and the decoder makes nothing of z: {_remedies(options)}")
    elif use.active is not None:
        parts.append(f"{use.active} of {use.n_latent} latents {'is' if use.active == 1 else 'are'} active")
    if math.isfinite(use.mutual_information):
        if use.saturated:
            amount = f"at least {use.mutual_information:.2f} (of ln N = {use.log_n:.2f}, the most that can be seen)"
            rest = "at most "
        else:
            between = use.mutual_information, use.most
            low, high = (min(max(0.0, bound), use.rate) for bound in between)  # the draws may give less, or more
            amount = f"{low:.2f} to {high:.2f} (± {use.error:.2g})"
            rest = "up to "
        parts.append(
            f"of the rate of {use.rate:.2f} nats {amount} is mutual information I(x; z), and "
            f"{rest}{max(0.0, use.marginal_kl):.2f} is KL(q(z) ‖ p(z))"
        )
    else:
        parts.append(f"the rate is {use.rate:.2f} nats")
    if use.kl is not None and use.kl.sum() < (1 - 1e-3) * use.rate:
        parts.append(f"the KLs of the latents alone add up to {use.kl.sum():.2f}, since they are not independent")
    reasons = {}
    for name, reason in use.missing.items():
        reasons.setdefault(reason, []).append(UNKNOWN[name])
    if reasons:
        unknown = ", and ".join(f"{' and '.join(names)} ({reason})" for reason, names in reasons.items())
        parts.append(f"not known: {unknown}")
    return "; ".join(parts)


# Signals

is_program = False  # whether this process is the program `scratchvae`, and not one that calls `main`


def ignore_signals():
    """Ignore the signals that stop a run for the rest of the program, in which nothing is left to stop."""
    if is_program:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


# Paths


def resolved(given):
    """Make the paths among the options absolute, so that the run can be read from any folder later on."""
    keys = ("data", "data_dir", "warm_start")
    paths = {key: given[key] for key in keys if given.get(key) and given[key] not in data.DATASETS}
    return given | {key: str(Path(path).resolve()) for key, path in paths.items() if os.path.exists(path)}


def unused(name):
    """Make the first of the folders name, name-2, name-3, … that is not there yet, and return its Path.

    No other process gets the same one.
    """
    parent = Path(name).parent
    require_folder(parent)
    try:
        parent.mkdir(exist_ok=True)
        for k in itertools.count(1):
            path = Path(f"{name}-{k}" if k > 1 else name)
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        text = f"{name} cannot be made ({error.strerror}): choose a folder that can be written to (--out)"
        raise told(error, text) from error


@contextlib.contextmanager
def new_folder(path, name):
    """Give the Path of a folder: `path`, or where that is None a new one called like `name`, see `unused`.

    One that was not there before and is empty afterwards, as after an error, is removed.
    """
    is_new = path is None or not Path(path).exists()
    path = unused(name) if path is None else Path(path)
    try:
        yield path
    finally:
        if is_new and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


@contextlib.contextmanager
def run_folder(ranks, path, name):
    """Give the Path of a folder on all ranks, which the first of them makes: see `new_folder`."""
    with contextlib.ExitStack() as stack:
        yield ranks.first_only(lambda: stack.enter_context(new_folder(path, name)))


def quoted(path):
    """Return a path as one types it in a command: in quotes where it needs them, and never like an option."""
    text = f".{os.sep}{path}" if str(path).startswith("-") else str(path)
    return shlex.quote(text) if os.name == "posix" else f'"{text}"' if " " in text else text


# The parser


def add_command(commands, function, text, operands="", **settings):
    """Add a command to the parser and return its own parser, which the command then gives its options.

    The command has the name of `function`, which is called with the options that were given, by name. An option that
    was not given stays away: the function's own defaults then hold, and `train --resume` can tell what was asked for.
    `text` says in a line what the command does, `operands` names the arguments that stand without an option, and
    `settings` go to argparse.
    """
    parser = commands.add_parser(
        function.__name__,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Defaults stand in brackets.",
        usage=f"scratchvae {function.__name__} [options] {operands}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        **settings,
    )
    parser.set_defaults(command=function)
    return parser


def add_moved_data(parser):
    """Add the options that say where the data of a run are now, if they are no longer where it was trained."""
    parser.add_argument("--data-dir", type=place, metavar="DIR", help="where MNIST and Frey Face are now")
    parser.add_argument("--data", type=place, metavar="PATH", help="where your own data are now")
    parser.add_argument(
        "--changed-data", action="store_true", help="take the images although they are not those of the training"
    )


def place(text):
    """Read the path of a file or a folder, which has a name."""
    if not text:
        raise argparse.ArgumentTypeError("''; expected a path")
    return text


def count(text):
    """Read a whole number, which may be written 1000000 or 1e6."""
    try:
        number = float(text)
        if number != int(number):
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number such as 1000000 or 1e6") from None


def numbers(text):
    """Read whole numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r}; expected whole numbers with commas between them, or one"
        raise argparse.ArgumentTypeError(message) from None


def background(text):
    """Read a background: white, black, or a grey level; `load_data` refuses others."""
    return int(text) if text.isdecimal() else text


def require_cores(threads):
    """Raise ValueError if this process may run on fewer cores than `threads`."""
    if threads > cores():
        raise ValueError(f"--threads is {threads}; there are {cores()} cores for this process")
