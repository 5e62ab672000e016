"""The command line: train, evaluate, plot, gradcheck, bench. Matplotlib and autograd wait until they are needed."""

import argparse
import json
import math
import os
import sys
import warnings
from pathlib import Path

from scratchvae import __version__, data
from scratchvae.backend import BACKENDS
from scratchvae.models.flow_vae import FlowVAE
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import ESTIMATORS, LIKELIHOODS, VAE
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.training import loop
from scratchvae.training.optim import OPTIMIZERS
from scratchvae.training.run import load_model, read_history

DEFAULTS = {
    "data": "digits",
    "data_dir": None,
    "n_train": None,
    "split": None,
    "binarization": "grey",
    "likelihood": "bernoulli",
    "mean": "sigmoid",
    "latent": 20,
    "hidden": [500],
    "architecture": "mlp",
    "channels": [],
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
    "optimizer": "adagrad",
    "lr": None,
    "warmup": 0,
    "decay": None,
    "batch_size": 100,
    "schedule": "joint",
    "samples": None,
    "epochs": None,
    "log_every": None,
    "seed": 0,
}
OF_DATA = {  # what the defaults become for these data sets: section 5 for Frey Face, a quick clear demo for digits
    "frey": {"hidden": [200], "likelihood": "gaussian"},
    "digits": {"hidden": [200], "optimizer": "adam", "init": "glorot"},
}
OF_THETA = ("theta_noise", "alpha", "learn_hyperprior", "log_sigma")  # what a FullVB takes and a VAE does not
NEWER = ("backend", "full_vb", "warm_start", "architecture", "channels", "flow", "decay", *OF_THETA)
SINCE = {key: DEFAULTS[key] for key in NEWER}  # runs of 0.1.0 have none of these
OF_CONV = {"hidden": [128], "channels": [16, 32], "activation": "relu", "init": "glorot"}  # what --architecture conv is
FREE_ON_RESUME = ("samples", "epochs", "data_dir", "backend")  # everything else is what the checkpoint was trained with


def main(argv=None):
    """Run one command. Exit code 0; 1 if gradcheck fails; 2 for an error; 130 and 143 for Ctrl-C and SIGTERM."""
    arguments = vars(parser().parse_args(argv))
    command = arguments.pop("command")
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"scratchvae: warning: {message}", file=sys.stderr)
        try:
            return command(**arguments)
        except KeyboardInterrupt:
            print("\nscratchvae: interrupted", file=sys.stderr)
            return 130
        except (ValueError, OSError, FloatingPointError, MemoryError) as error:
            print(f"scratchvae: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2


# Commands


def train(out=None, resume=None, quiet=False, **given):
    """Train a VAE, write the run folder, and draw its pictures."""
    given = _resolved(given)
    if "channels" in given and given.setdefault("architecture", "conv") != "conv":
        raise ValueError("--architecture mlp and --channels are both given; expected one of them")
    implied = OF_DATA.get(given.get("data", DEFAULTS["data"]), {})
    implied = implied | (OF_CONV if given.get("architecture") == "conv" else {})
    implied = implied | ({"estimator": "A"} if given.get("flow") else {})
    options = {**DEFAULTS, **implied, **given}
    if resume is not None:
        options = _resumed(Path(resume), given, out)
        out = resume
    elif out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        go_on = f"go on with it (--resume {out}), or " if (Path(out) / "config.json").exists() else ""
        raise ValueError(f"{out} exists: {go_on}choose another folder (--out)")
    elif out is None:
        out = _unused(f"runs/{Path(options['data']).stem}{options['latent']}")

    from scratchvae.plots import draw_run

    images = _data(options)
    model = _model(options, images)
    if options["warm_start"] is not None and resume is None:
        model.warm_start(load_model(options["warm_start"]))
    if not quiet:
        print(images)
        print(_describe(model, options))
    try:
        history = loop.fit(
            model,
            images.train,
            images.valid,
            optimizer=_optimizer(options),
            samples=options["samples"],
            epochs=options["epochs"],
            batch_size=options["batch_size"],
            seed=options["seed"],
            schedule=options["schedule"],
            binarization=images.binarization,
            log_every=options["log_every"],
            out=out,
            resume=resume is not None,
            options=options,
            progress=False if quiet else None,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        if (Path(out) / "checkpoint.npz").exists():
            print(f"\nstopped; go on with: scratchvae train --resume {out}", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) else 130
    if not quiet:
        last = history[-1]
        print(
            f"{last['samples']:,} samples, {last['epoch']:.1f} epochs, {last['seconds']:.1f} s: bound "
            f"{last['train_bound']:.2f} train{_kind_of_bound(model)}, "
            f"{last['valid_bound']:.2f} validation (nats per datapoint)"
        )
    pictures = draw_run(Path(out) / "figures", model.to("numpy"), images, history, options["seed"])
    if not quiet:
        names = ", ".join(path.stem for path in pictures)
        print(f"wrote {out}/: config.json, metrics.csv, checkpoint.npz and, in figures/, {names}")
        print(f"look at {pictures[1]}; next: scratchvae evaluate {out}")
    return 0


def _kind_of_bound(model):
    """What the bound that is trained on is called beside that of validation, (7), where they are not the same."""
    if hasattr(model, "posterior"):
        return " with the θ-KL (22)"
    if model.config["estimator"] == "autoencoder":
        return " (log p(x|z) at the code: no bound)"
    return f" (L_{model.n_samples}, importance-weighted)" if model.config["estimator"] == "iwae" else ""


def evaluate(
    run,
    split="test",
    n_samples=None,
    n_theta=10,
    log_likelihood=None,
    seed=0,
    as_json=False,
    backend="numpy",
    **moved,
):
    """The bound of a split and its two terms, on sampled z, in nats per datapoint; of a FullVB over θ ~ q(θ) too."""
    options, model = _options(Path(run)) | _resolved(moved), load_model(run, backend=backend)
    images = _data(options)
    if n_theta < 0:
        raise ValueError(f"--n-theta is {n_theta}; expected a whole number ≥ 0")
    if n_samples is not None:
        if n_samples < 1:
            raise ValueError(f"--n-samples is {n_samples}; expected a whole number ≥ 1")
        model.n_samples = n_samples
    result = {
        "run": str(run),
        "data": options["data"],
        "binarization": images.binarization,
        "split": split,
        **loop.evaluate(model, getattr(images, split), seed, images.binarization),
        "n_samples": model.n_samples,
        "seed": seed,
    }
    if options["full_vb"] and n_theta:
        over_theta = loop.evaluate_theta(model, getattr(images, split), n_theta, seed, images.binarization)
        if split != "train":
            del over_theta["bound_22"]  # it belongs to the data that q(θ) was fitted to
        result |= over_theta | {"n_theta": n_theta, "alpha": model.alphas()}
    if log_likelihood is not None:
        if model.config["estimator"] == "autoencoder":
            raise ValueError("--log-likelihood draws from q(z|x), which an autoencoder does not learn: leave it out")
        result |= _log_likelihood(model, getattr(images, split), log_likelihood, seed, images.binarization)
    if model.config["estimator"] == "autoencoder":
        result |= {"bound": None, "kl": None}
    if as_json:
        print(json.dumps(result))
    elif result["bound"] is None:
        print(
            f"{split} log p(x|z) at the code {result['reconstruction']:.2f} nats per datapoint, n = {result['n']:,}, "
            f"{images.binarization} {options['data']}; an autoencoder has no bound"
        )
    else:
        print(
            f"{split} bound {result['bound']:.2f} = reconstruction {result['reconstruction']:.2f} "
            f"- KL {result['kl']:.2f} nats per datapoint, "
            f"n = {result['n']:,}, L = {model.n_samples}, {images.binarization} {options['data']}"
        )
    if log_likelihood is not None and not as_json:
        text = f"log p(x) {result['log_likelihood']:.2f}"
        if result["log_likelihood_error"] is not None:
            text += f" ± {result['log_likelihood_error']:.2f}"
        text += f" nats per datapoint, by importance with {log_likelihood:,} draws from q(z|x)"
        if result["log_likelihood_error"] is not None:
            text += f", too low on average by some {-result['log_likelihood_bias']:.2g}"
        known = result["k_hat"] is not None
        text += f"; k_hat up to {result['k_hat']:.2f}" if known else "; no k_hat for such weights, or so few"
        if result["untrusted"]:
            text += f", above {result['k_hat_threshold']:.2f} for {result['untrusted']:,} of {result['n']:,}"
        print(text)
    if options["full_vb"] and n_theta and not as_json:
        text = f"that is at the mean of θ; over {n_theta} θ ~ q(θ) {result['bound_over_theta']:.2f}, "
        text += f"KL(q(θ) ‖ p(θ)) {result['theta_kl']:,.0f} nats"
        if "bound_22" in result:
            text += f", or {result['theta_kl'] / result['n']:.2f} per datapoint: bound (22) {result['bound_22']:.2f}"
        print(text)
        if model.config["learn_hyperprior"]:
            print("learned α: " + ", ".join(f"{name} {alpha:.3g}" for name, alpha in result["alpha"].items()))
    return 0


def _log_likelihood(model, x, n_samples, seed, binarization):
    """log p(x) by importance, its mean over the datapoints, for the result of `evaluate`."""
    from scratchvae.inference.marginal import importance  # only now: it takes SciPy

    if n_samples < 1:
        raise ValueError(f"--log-likelihood is {n_samples}; expected a whole number ≥ 1")
    if binarization == "dynamic":
        x = data.binarise(x, data.thresholds(x.shape, x.dtype, loop.stream(seed, loop.HELD_OUT, 0)))
    with loop.progress_bar(len(x), 0, None, unit=" images") as bar:
        estimate = importance(model, x, n_samples, seed, bar.update)
    mean, error = estimate.mean()
    numbers = {"log_likelihood_error": error, "log_likelihood_bias": -estimate.bias()}
    numbers |= {"k_hat": float(estimate.k_hat.max()), "k_hat_threshold": estimate.threshold()}
    numbers = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    untrusted = int(estimate.untrusted().sum())
    return {"log_likelihood": mean, "log_likelihood_samples": n_samples, **numbers, "untrusted": untrusted}


def plot(run, seed=0, **moved):
    """Draw the pictures of a run again."""
    from scratchvae.plots import draw_run

    if seed < 0:
        raise ValueError(f"--seed is {seed}; expected a whole number ≥ 0")
    options, model = _options(Path(run)) | _resolved(moved), load_model(run)
    images = _data(options)
    for path in draw_run(Path(run) / "figures", model, images, read_history(Path(run) / "metrics.csv"), seed):
        print(path)
    return 0


def gradcheck(seed=0, backend="numpy"):
    """Every gradient against the oracle and central differences; exit code 1 if one fails."""
    from scratchvae.gradcheck import TOLERANCE_DIFFERENCES, TOLERANCE_ORACLE, check_everything, table

    print(
        "relative errors ‖ours - theirs‖ / ‖theirs‖, float64; to pass: "
        f"oracle ≤ {TOLERANCE_ORACLE:.0e}, central differences ≤ {TOLERANCE_DIFFERENCES:.0e}"
    )
    failed = total = 0
    for title, checks in check_everything(seed, backend):
        print(f"\n{title}\n{table(checks)}")
        failed += sum(not check.passed for check in checks)
        total += len(checks)
    print(f"\n{total - failed} of {total} pass" + (f", {failed} FAIL" if failed else ""))
    return 1 if failed else 0


def bench(backend=("numpy",), dtype=("float32", "float64"), model=None, repeats=10, threads=None, out=None, **sizes):
    """Time training steps, print the table, write bench.json and bench.png."""
    from threadpoolctl import threadpool_limits

    from scratchvae import bench as benchmark

    model = model or (("vae",) if sizes else tuple(benchmark.MODELS))
    known = [
        ("backend", backend, BACKENDS),
        ("dtype", dtype, ("float32", "float64")),
        ("model", model, benchmark.MODELS),
    ]
    for option, kinds, names in known:
        if unknown := sorted(set(kinds) - set(names)):
            raise ValueError(f"--{option} has {', '.join(unknown)}; expected some of {', '.join(names)}")
    for option, numbers in [*sizes.items(), ("repeats", [repeats]), ("threads", [1 if threads is None else threads])]:
        if min(numbers) < 1:
            option = option.removeprefix("n_").replace("_", "-")
            raise ValueError(f"--{option} is {min(numbers)}; expected whole numbers ≥ 1")
    if threads is not None and threads > os.cpu_count():
        raise ValueError(f"--threads is {threads}; this machine has {os.cpu_count()} cores")
    folder = Path(_unused("runs/bench") if out is None else out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose a folder (--out)")
    with threadpool_limits(threads, "blas"):
        folder.mkdir(parents=True, exist_ok=True)
        result = benchmark.run(benchmark.sweep(backend, dtype, sizes or benchmark.SIZES, model), repeats)

    from scratchvae.plots import Figure, step_costs  # only now: SciPy's own BLAS would stand in the list beside NumPy's

    print(benchmark.describe(result["machine"]))
    print(benchmark.table(result))
    (folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    figure = Figure(figsize=(11, 3.2), dpi=150, layout="constrained")
    step_costs(figure.subplots(1, 4), result["rows"])
    figure.savefig(folder / "bench.png")
    print(f"wrote {folder}/: bench.json and bench.png")
    return 0


# From options to objects


def _data(options):
    keys = ("data_dir", "n_train", "split", "binarization")
    return data.load_data(options["data"], **{key: options[key] for key in keys})


def _model(options, images):
    keys = (
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
        *(OF_THETA if options["full_vb"] else ["prior"]),
        *(["flow"] if options["flow"] else []),
    )
    if not options["full_vb"]:
        for key in (*OF_THETA, "warm_start"):
            if options[key] != DEFAULTS[key]:
                words = {"local": "--local-reparameterization", "antithetic": "--antithetic"}
                option = words.get(options[key], "--" + key.replace("_", "-"))
                raise ValueError(f"{option} belongs to full variational Bayes: add --full-vb")
    elif not options["prior"]:
        raise ValueError("--no-prior and --full-vb are both given; the prior of full variational Bayes is --alpha")
    if options["flow"] and options["full_vb"]:
        raise ValueError("--flow and --full-vb are both given; expected one of them")
    if options["flow"] < 0:
        raise ValueError(f"--flow is {options['flow']}; expected a whole number ≥ 1 of maps, or 0 for none")
    if options["channels"] and images.image_shape[0] != images.image_shape[1]:
        height, width = images.image_shape
        raise ValueError(f"the images are {height} x {width}; expected square ones for --architecture conv")
    kind = FullVB if options["full_vb"] else FlowVAE if options["flow"] else VAE
    return kind(images.train.shape[1], options["hidden"], options["latent"], **{key: options[key] for key in keys})


def _optimizer(options):
    settings = {key: options[key] for key in ("lr", "decay") if options[key] is not None}  # each has a default lr
    if options["warmup"]:
        if options["optimizer"] != "adagrad":
            raise ValueError(f"--warmup is for adagrad; the optimizer is {options['optimizer']}")
        settings["warmup"] = options["warmup"]
    return OPTIMIZERS[options["optimizer"]](**settings)


def _describe(model, options):
    config = model.config
    convolutions = [f"conv{n}" for n in model.channels]
    sizes = "-".join(map(str, [config["n_visible"], *convolutions, *config["n_hidden"], config["n_latent"]]))
    activation = config["activation"] if config["n_hidden"] or model.channels else "without hidden units"
    sizes += f", flow of {config['flow']} maps," if "flow" in config else ""
    if options["full_vb"]:
        alpha = "learned" if config["learn_hyperprior"] else f"{config['alpha']:g}"
        prior = f"full VB: θ noise {config['theta_noise']}, α {alpha}, log σ from {config['log_sigma']:g}"
        prior += f", φ and μ from {options['warm_start']}" if options["warm_start"] else ""
    else:
        prior = "p(θ) = N(0, I)" if config["prior"] else "no prior on θ"
    likelihood = config["likelihood"] + (f", {config['mean']} mean" if config["likelihood"] != "bernoulli" else "")
    objective = f"L^{config['estimator']}" if config["estimator"] in ("A", "B") else config["estimator"]
    optimizer = options["optimizer"] + ("" if options["lr"] is None else f" {options['lr']}")
    optimizer += "" if options["decay"] is None else f" / (1 + step/{options['decay']:g})"
    return (
        f"{type(model).__name__} {sizes} {activation}, "
        f"{likelihood}, {model.params.value.size:,} parameters in {config['dtype']} on {model.backend}\n"
        f"{objective}, L = {config['n_samples']}, M = {options['batch_size']}, {prior}, {optimizer}, "
        f"{options['schedule']} updates, seed {options['seed']}"
    )


def _options(run):
    """The options in a run folder's config.json."""
    path = run / "config.json"
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        if options is not None and {"data", "hidden"} <= options.keys():
            return {key: (SINCE | options)[key] for key in DEFAULTS}
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{run} is no run folder: it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold the options of a run of scratchvae train ({error!r})") from None
    raise ValueError(
        f"{run} was trained in Python, not by scratchvae train: load_model({str(run)!r}) gives its model, and "
        "scratchvae.evaluate its bound"
    )


def _resumed(run, given, out):
    """The options of `run`, with those of `given` that a resumed run may change; ValueError for any other."""
    if out is not None:
        raise ValueError("--out and --resume are both given: a resumed run stays in its folder")
    options = _options(run)
    free = FREE_ON_RESUME if options["data"] in data.DATASETS else (*FREE_ON_RESUME, "data")  # your own may have moved
    for key, value in given.items():
        if key not in free and value != options[key]:
            theirs = "its default" if options[key] is None else options[key]
            raise ValueError(
                f"{run} was trained with {key} {theirs}, not {value}: leave that option out, or start anew"
            )
    if "samples" in given or "epochs" in given:
        options |= {"samples": None, "epochs": None}
    return options | given


def _resolved(given):
    """The options with their paths made absolute, so that a run can be looked at from any folder."""
    keys = ("data", "data_dir", "warm_start")
    paths = {key: given[key] for key in keys if given.get(key) and given[key] not in data.DATASETS}
    return given | {key: str(Path(path).resolve()) for key, path in paths.items() if Path(path).exists()}


def _unused(name):
    """The first of name, name-2, name-3, … that does not exist."""
    candidates = (Path(f"{name}-{k}" if k > 1 else name) for k in range(1, sys.maxsize))
    return next(path for path in candidates if not path.exists())


# The parser


def parser():
    """The argparse parser; options that are not given stay away, so that a resumed run can tell."""
    root = argparse.ArgumentParser(
        prog="scratchvae",
        description="Auto-Encoding Variational Bayes from scratch: NumPy, hand-derived gradients, every one checked.",
        epilog="scratchvae train, with no options, trains on scikit-learn's digits in well under a minute.",
    )
    root.add_argument("--version", action="version", version=f"scratchvae {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    def add(function, text, **settings):
        command = commands.add_parser(
            function.__name__,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            usage=f"scratchvae {function.__name__} [options]"
            + ("" if function in (train, gradcheck, bench) else " RUN"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            **settings,
        )
        command.set_defaults(command=function)
        return command

    p = add(
        train,
        "train a VAE and leave a run folder: config, metrics, checkpoint, pictures",
        epilog="""examples:
  scratchvae train
  scratchvae train --data mnist --latent 20 --lr 0.01 --samples 1000000 --out runs/mnist20
  scratchvae train --data frey --likelihood gaussian --latent 2 --hidden 200 --out runs/frey2
  scratchvae train --data my-images/ --latent 2 --optimizer adam --init glorot
  scratchvae train --data mnist --latent 20 --flow 10 --optimizer adam --init glorot
  scratchvae train --data mnist --latent 2 --architecture conv --optimizer adam
  scratchvae train --data mnist --n-train 1000 --latent 10 --hidden 200 --lr 0.02 --full-vb --local-reparameterization
  scratchvae train --resume runs/mnist20 --samples 2000000""",
    )
    g = p.add_argument_group("data")
    g.add_argument(
        "--data", metavar="NAME|PATH", help="digits (default), mnist, frey, or your .npy, .npz or folder of images"
    )
    g.add_argument(
        "--data-dir", metavar="DIR", help="where MNIST and Frey Face are; else SCRATCHVAE_DATA, cache, download"
    )
    g.add_argument("--n-train", type=_count, metavar="N", help="keep the first N training images")
    g.add_argument("--split", type=_numbers, metavar="A,B,C", help="sizes of train, validation and test")
    g.add_argument(
        "--binarization",
        choices=data.BINARIZATIONS,
        help="pixels as they are (default), or drawn as Bernoulli(x)",
    )
    g = p.add_argument_group("model (section 3, appendix C)")
    g.add_argument(
        "--likelihood",
        choices=LIKELIHOODS,
        help="p(x|z): bernoulli (default), gaussian (frey), or isotropic: gaussian, one σ² for all pixels",
    )
    g.add_argument(
        "--mean", choices=("sigmoid", "free"), help="of the gaussian decoder: through a sigmoid (default) or free"
    )
    g.add_argument("--latent", type=int, metavar="J", help="latent dimensions (20)")
    g.add_argument(
        "--hidden",
        type=_widths,
        metavar="H[,H]|none",
        help="units of each hidden layer (500; digits, frey: 200; conv: 128), or none; with --mean free a linear model",
    )
    g.add_argument(
        "--architecture",
        choices=("mlp", "conv"),
        help="mlp (default), or conv: convolutions of 16 and 32 channels around a hidden layer, relu, glorot",
    )
    g.add_argument("--channels", type=_numbers, metavar="C[,C]", help="of the convolutions, each halving the side")
    g.add_argument("--flow", type=int, metavar="K", help="a planar normalizing flow: z goes through K maps more (0)")
    g.add_argument("--activation", choices=ACTIVATIONS, help="of the hidden units (tanh)")
    g.add_argument(
        "--init",
        type=_init,
        metavar="SD|glorot",
        help="initial weights: N(0, SD²), SD 0.01 (default), or glorot (digits)",
    )
    g.add_argument("--init-biases", action="store_true", help="draw the biases too (they start at zero)")
    g.add_argument(
        "--no-prior", dest="prior", action="store_false", help="drop p(θ) = N(0, I): maximum likelihood, not MAP"
    )
    g = p.add_argument_group("full variational Bayes (appendix F)")
    g.add_argument("--full-vb", action="store_true", help="a posterior q(θ) = N(μ, σ²) over the decoder's parameters θ")
    where = g.add_mutually_exclusive_group()
    where.add_argument(
        "--local-reparameterization",
        dest="theta_noise",
        action="store_const",
        const="local",
        help="its noise on the pre-activations, a draw for every row (else one θ per minibatch)",
    )
    where.add_argument(
        "--antithetic",
        dest="theta_noise",
        action="store_const",
        const="antithetic",
        help="μ + σζ and μ - σζ, half each",
    )
    g.add_argument("--alpha", type=float, metavar="A", help="standard deviation of the prior p(θ) = N(0, A²) (1)")
    g.add_argument("--learn-hyperprior", action="store_true", help="A² = mean(μ² + σ²), array by array")
    g.add_argument("--log-sigma", type=float, metavar="S", help="log σ of every parameter at the start (-4)")
    g.add_argument("--warm-start", metavar="RUN", help="begin at the parameters of this run, a VAE's or a FullVB's")
    g = p.add_argument_group("estimator (section 2.3)")
    g.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        help="L^A (6), L^B (7, default), iwae of L draws, wake-sleep, or autoencoder: no noise, no KL",
    )
    g.add_argument("--n-samples", type=int, metavar="L", help="noise samples per datapoint (1)")
    g = p.add_argument_group("training (algorithm 1)")
    g.add_argument("--samples", type=_count, metavar="N", help="training samples to evaluate (1,000,000)")
    g.add_argument("--epochs", type=float, metavar="E", help="passes over the training data, in place of --samples")
    g.add_argument("--optimizer", choices=OPTIMIZERS, help="adagrad (default), adam (digits) or sgd")
    g.add_argument(
        "--lr", type=float, help="stepsize (adagrad 0.01, adam 0.001, sgd 1e-6: the bound is a sum over the data)"
    )
    g.add_argument(
        "--decay", type=float, metavar="T", help="let the stepsize fall as lr / (1 + step/T), T in steps (it does not)"
    )
    g.add_argument(
        "--warmup", type=int, metavar="T", help="adagrad: gather squared gradients for T minibatches first (0)"
    )
    g.add_argument("--batch-size", type=int, metavar="M", help="minibatch size (100)")
    g.add_argument(
        "--schedule", choices=("joint", "alternating"), help="φ and θ together (default), or E-step then M-step"
    )
    g.add_argument(
        "--log-every", type=_count, metavar="N", help="samples between rows of metrics.csv (ten rows a decade)"
    )
    g.add_argument("--dtype", choices=("float32", "float64"), help="float32 (default) or float64")
    g.add_argument(
        "--backend", choices=BACKENDS, help="numpy (default), or cupy: the same on the GPU; may change on --resume"
    )
    g.add_argument("--seed", type=int, help="of initial values, minibatches and noise (0)")
    g = p.add_argument_group("the run")
    g.add_argument("--out", metavar="DIR", help="the run folder, which must be new (runs/DATA and the latent size)")
    g.add_argument("--resume", metavar="DIR", help="go on with this run, to the bit as if it had never stopped")
    g.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")

    p = add(evaluate, "print the bound of a trained model, its KL and its reconstruction term")
    p.add_argument("run", metavar="RUN", help="a run folder")
    p.add_argument("--split", choices=("train", "valid", "test"), help="which images (test)")
    p.add_argument("--n-samples", type=int, metavar="L", help="z per image (as in training)")
    p.add_argument(
        "--log-likelihood", type=_count, metavar="K", help="log p(x) too, by importance with K draws an image, say 5000"
    )
    p.add_argument(
        "--n-theta", type=int, metavar="S", help="full VB: draws of θ for the bound over θ (10; 0: leave it out)"
    )
    p.add_argument("--seed", type=int, help="of the noise (0)")
    p.add_argument("--data-dir", metavar="DIR", help="where MNIST and Frey Face are now")
    p.add_argument("--data", metavar="PATH", help="where your own data are now")
    p.add_argument("--json", dest="as_json", action="store_true", help="one JSON object")
    p.add_argument("--backend", choices=BACKENDS, help="where to compute it (numpy)")

    p = add(plot, "draw the pictures of a run again")
    p.add_argument("run", metavar="RUN", help="a run folder")
    p.add_argument("--seed", type=int, help="of samples and random walk (0)")
    p.add_argument("--data-dir", metavar="DIR", help="where MNIST and Frey Face are now")
    p.add_argument("--data", metavar="PATH", help="where your own data are now")

    p = add(gradcheck, "check every hand-derived gradient against autograd and central differences")
    p.add_argument("--seed", type=int, help="of inputs, parameters and noise (0)")
    p.add_argument("--backend", choices=BACKENDS, help="whose arithmetic to check (numpy)")

    p = add(
        bench,
        "time training steps on NumPy and CuPy over minibatch, width, latent and image size, in both precisions",
        epilog="""Without sizes: the paper's model, 784-500-20 with M = 100, and from there one size at a time.
With sizes: those alone, each along its own list, the others the paper's or the first of their list.

examples:
  scratchvae bench                                       # NumPy, a minute
  scratchvae bench --backend numpy,cupy
  scratchvae bench --hidden 500 --threads 1              # the paper's model alone, on one core
  scratchvae bench --batch-size 20,100,500 --dtype float32
  scratchvae bench --hidden 500 --model vae,full-vb,full-vb-local""",
    )
    p.add_argument("--backend", type=_words, metavar="NAME[,NAME]", help="numpy (default), cupy, or both")
    p.add_argument("--dtype", type=_words, metavar="NAME[,NAME]", help="float32, float64, or both (default)")
    p.add_argument(
        "--model",
        type=_words,
        metavar="NAME[,NAME]",
        help="vae, full-vb, full-vb-local: the first at all sizes, the others beside its first (all)",
    )
    p.add_argument("--batch-size", type=_numbers, metavar="M[,M]", help="minibatches")
    p.add_argument("--hidden", dest="n_hidden", type=_numbers, metavar="H[,H]", help="hidden units")
    p.add_argument("--latent", dest="n_latent", type=_numbers, metavar="J[,J]", help="latent dimensions")
    p.add_argument("--visible", dest="n_visible", type=_numbers, metavar="D[,D]", help="pixels")
    p.add_argument("--repeats", type=int, metavar="R", help="timed rounds, each of 40 ms or of three steps (10)")
    p.add_argument(
        "--threads", type=int, metavar="T", help="pin BLAS to so many threads (as many as it takes by itself)"
    )
    p.add_argument("--out", metavar="DIR", help="where bench.json and bench.png go (a new folder runs/bench)")
    return root


def _count(text):
    """A whole number, 1000000 or 1e6."""
    try:
        number = float(text)
        if number != int(number):
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number such as 1000000 or 1e6") from None


def _numbers(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r}; expected whole numbers with commas between them, or one; --hidden none for no layer"
        raise argparse.ArgumentTypeError(message) from None


def _widths(text):
    return [] if text == "none" else _numbers(text)


def _words(text):
    return tuple(text.split(","))


def _init(text):
    try:
        return text if text == "glorot" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a standard deviation such as 0.01, or glorot") from None
