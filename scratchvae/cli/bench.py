"""scratchvae bench: measure what a training step costs, take it apart, and compare it with another commit's."""

import argparse
import json
import warnings

from scratchvae.backend import BACKENDS
from scratchvae.cli.shared import add_command, new_folder, numbers, place, require_cores
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.run import require_folder

BUSY = 0.7  # the load before anything is measured above which a core is taken to be at work
EPILOG = """Without sizes: the paper's model, 784-500-20 with M = 100, and from there one size at a time.
With sizes: those alone, each along its own list, the others the paper's or the first of their list.
With --profile or --against and without sizes: the paper's model alone, in float32.

examples:
  scratchvae bench                                       # NumPy, a minute
  scratchvae bench --backend numpy,cupy
  scratchvae bench --hidden 500 --threads 1              # the paper's model alone, on one core
  scratchvae bench --hidden 500 --threads 1,2            # and with one core and two, in turns
  scratchvae bench --batch-size 20,100,500 --dtype float32
  scratchvae bench --hidden 500,500x500,none             # one hidden layer, two, and none
  scratchvae bench --hidden 128 --channels 16,32         # convolutions around the hidden layer
  scratchvae bench --hidden 500 --model vae,full-vb,full-vb-local
  scratchvae bench --profile --threads 1                 # where the time of a step goes, line by line
  scratchvae bench --profile --backend cupy              # and on the device: its work, and launching it
  scratchvae bench --against HEAD~1 --repeats 40         # is this checkout faster than that commit?
  scratchvae bench --compare old/bench.json              # what has changed since that file was written?"""


def bench(
    backend=("numpy",),
    dtype=None,
    model=None,
    repeats=10,
    threads=None,
    out=None,
    profile=False,
    against=None,
    compare=None,
    **given,
):
    """Time training steps, print the table, and write it as JSON and as a picture.

    `backend`, `dtype` and `model` are the names to measure. `repeats` counts the timed rounds. `threads` lists numbers
    of threads of BLAS, which are measured in turns; one number holds for all that is measured, and without any BLAS
    takes as many as it does by itself. `out` is the folder for the files; without it they go into a new one. `profile`
    takes one step apart, `against` is a revision of git to measure in turns with this checkout, and `compare` is the
    path of an older bench.json, whose workloads are measured again. `given` are the lists of batch_size, n_hidden,
    n_latent and n_visible that were given, and fields of a `Workload` that all have, such as flow.
    """
    from scratchvae import bench as benchmark
    from scratchvae.bench.machines import blas_limited

    sizes = {name: values for name, values in given.items() if name in benchmark.SIZES}
    same = {name: value for name, value in given.items() if name not in benchmark.SIZES}
    alone = profile or against is not None
    floats = ("float32", "float64")
    _check_names(backend=(backend, BACKENDS), dtype=(dtype, floats), model=(model, benchmark.MODELS))
    _check_numbers(sizes | same | {"repeats": repeats, "threads": threads or [1]})
    for number in threads or ():
        require_cores(number)
    if out is not None:
        require_folder(out)
    pinned = threads[0] if threads and len(threads) == 1 and against is None else None
    if compare is None:
        dtypes = dtype or (("float32",) if alone else ("float32", "float64"))
        models = model or (("vae",) if given or alone else tuple(benchmark.MODELS))
        start = {"batch_size": [benchmark.PAPER["batch_size"]]} if alone else benchmark.SIZES
        each = (None,) if pinned else threads or (None,)
        works = benchmark.sweep(backend, dtypes, sizes or start, models, each, **same)
        old = None
    else:
        if repeats < benchmark.LEAST_ROUNDS:
            raise ValueError(
                f"--repeats is {repeats}; expected {benchmark.LEAST_ROUNDS} or more with --compare, for an interval"
            )
        old = benchmark.older(compare)
        wanted = {"backend": backend, "dtype": dtype, "model": model, "threads": None if pinned else threads} | sizes
        wanted |= {name: [value] for name, value in same.items()}
        works = benchmark.workloads_of(old, **{name: values for name, values in wanted.items() if values})
    if profile and len(works) > 1:
        raise ValueError(
            f"--profile takes one step apart, and {len(works)} are asked for: give one value of each option"
        )
    load = benchmark.load()
    with new_folder(out, "runs/bench") as folder, blas_limited(pinned):
        folder.mkdir(parents=True, exist_ok=True)
        if profile:
            files = _profiled(folder, benchmark.profile(works[0], repeats))
        elif against is not None:
            files = _measured_against(folder, benchmark.against(works, against, repeats))
        else:
            files = _swept(folder, benchmark.run(works, repeats), old, compare)
    if load > BUSY:
        print(
            f"the load of this machine was {load:.1f} before the first step, so these times say little: other programs"
        )
        print("were at work, and OpenBLAS's threads wait for each other then; stop them, or give --threads 1")
    print(f"wrote {folder}/: {' and '.join(files)}")
    return 0


def _check_names(**known):
    """Raise ValueError for an option with a name that is none of those that are known; each is (given, known)."""
    for option, (given, names) in known.items():
        if unknown := sorted(set(given or ()) - set(names)):
            raise ValueError(f"--{option} has {', '.join(unknown)}; expected some of {', '.join(names)}")


def _check_numbers(given):
    """Raise ValueError if a number among the given options is below 1; only the number of maps of a flow may be 0."""
    for option, value in given.items():
        flat = [number for one in _listed(value) for number in _listed(one)]
        least = 0 if option == "flow" else 1
        whole = [number for number in flat if isinstance(number, int)]
        if whole and min(whole) < least:
            option = option.removeprefix("n_").replace("_", "-") if option != "n_samples" else "n-samples"
            raise ValueError(f"--{option} is {min(whole)}; expected whole numbers ≥ {least}")


def _listed(value):
    """Return a list or a tuple as it is, and another value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _swept(folder, result, old, path):
    """Print the table and write bench.json and bench.png; return the names of the files that were written.

    `old` is an older bench.json, read from `path`, with which the new one is compared, or None.
    """
    from scratchvae import bench as benchmark

    print(benchmark.describe(result["machine"]))
    print(benchmark.table(result))
    print("ms, median, upper: lower quartile, median and upper quartile over the rounds, in milliseconds a step")
    if old is not None:
        result["compared_with"] = {"file": str(path), "commit": old["machine"].get("commit")}
        result["compared"] = benchmark.compare(result, old)
        if differ := benchmark.differences(result["machine"], old["machine"]):
            warnings.warn(
                f"{path} is of another machine, so a ratio says nothing about the code ({'; '.join(differ)}): measure "
                "the old commit here, with --against",
                stacklevel=2,
            )
        print(benchmark.comparison_table(result["compared"]))
        print(_what_the_columns_are("the rounds of each session drawn anew by themselves"))
        if old["machine"].get("load", 0) > BUSY:
            print(f"the load was {old['machine']['load']:.1f} when {path} was measured: its times say little")
        print("the two were measured at different times: what the machine did else is not in the interval, and one in")
        print("twenty of the intervals misses by chance; --against measures in turns")
    write_atomically(folder / "bench.json", _as_json(result))

    def draw(plots):
        rows = [row | {"model": benchmark.model_name(row)} for row in result["rows"]]
        figure = plots.Figure(figsize=(11, 3.2), dpi=plots.DPI, layout="constrained")
        plots.step_costs(figure.subplots(1, 4), rows)
        return figure

    return ["bench.json", *_drawn(folder / "bench.png", draw)]


def _profiled(folder, result):
    """Print the operations of a step and write profile.json and profile.png; return the names of the files."""
    from scratchvae import bench as benchmark

    print(benchmark.describe(result["machine"]))
    print(benchmark.profile_table(result))
    write_atomically(folder / "profile.json", _as_json(result))

    def draw(plots):
        row = result["workload"]
        figure = plots.Figure(figsize=(10, 4.8), dpi=plots.DPI, layout="constrained")
        ax = figure.subplots()
        plots.roofline(ax, result)
        title = f"one training step: {benchmark.model_name(row)}, {benchmark.size_name(row)}, M = {row['batch_size']}"
        title += f", {row['dtype']} on {row['backend']}"
        ax.set_title(f"{title}, {result['step_ms']:.3g} ms", fontsize=9)
        return figure

    return ["profile.json", *_drawn(folder / "profile.png", draw)]


def _measured_against(folder, result):
    """Print the comparison with another commit and write against.json; return the names of the files."""
    from scratchvae import bench as benchmark

    print(benchmark.describe(result["machine"]))
    here = result["machine"]["commit"]
    there = result["against"]
    print(benchmark.comparison_table(result["rows"], "here", there))
    print(_what_the_columns_are("rounds drawn anew, each with both of its times"))
    print(f"here: {here}, where + stands for changes that are not committed; {result['repeats']} rounds, in turns")
    write_atomically(folder / "against.json", _as_json(result))
    return ["against.json"]


def _what_the_columns_are(drawn):
    """Return the line that explains the table of a comparison."""
    return (
        "ms: lower quartile over the rounds, in milliseconds a step; the ratio is that of these, below 1 is faster; "
        f"its interval is a bootstrap, {drawn}"
    )


def _as_json(result):
    """Return a result as the bytes of a file."""
    return (json.dumps(result, indent=1) + "\n").encode()


def _drawn(path, draw):
    """Write the picture that draw(plots) makes, and return a list of its name; if it fails, a warning says why."""
    try:
        from scratchvae import plots  # only now: SciPy's BLAS would stand in the list beside NumPy's

        with plots.own_settings():
            draw(plots).savefig(path)
        return [path.name]
    except Exception as error:  # Matplotlib, its backends and LaTeX raise many kinds
        reason = " ".join(str(error).split())
        warnings.warn(f"no picture ({type(error).__name__}: {reason}); the measurements are whole", stacklevel=2)
        return []


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(
        commands,
        bench,
        "time training steps on NumPy and CuPy over minibatch, width, latent and image size, in both precisions",
        epilog=EPILOG,
    )
    g = p.add_argument_group("what is done")
    g = g.add_mutually_exclusive_group()
    g.add_argument(
        "--profile",
        action="store_true",
        help="take one step apart: time, bytes, flops and rates of each line of the source, beside the peaks of this "
        "machine, as a table and as a picture of the roofline; with cupy the times of the device and of launching",
    )
    g.add_argument(
        "--against",
        metavar="REV",
        help="measure another commit in turns with this checkout: the ratio of the two and its 95%% interval",
    )
    g.add_argument(
        "--compare",
        type=place,
        metavar="OLD.json",
        help="measure the workloads of an older bench.json again, as far as the other options leave them, and say what "
        "has changed beyond noise",
    )
    g = p.add_argument_group("sizes, each of which is varied by itself")
    g.add_argument("--batch-size", type=numbers, metavar="M[,M]", help="sizes of the minibatch")
    g.add_argument(
        "--hidden",
        dest="n_hidden",
        type=_hidden,
        metavar="H[,H]",
        help="hidden units: 500 for a layer, 500x300 for two in a row, none for no hidden layer",
    )
    g.add_argument("--latent", dest="n_latent", type=numbers, metavar="J[,J]", help="numbers of latent dimensions")
    g.add_argument("--visible", dest="n_visible", type=numbers, metavar="D[,D]", help="numbers of pixels")
    g = p.add_argument_group("the model of all sizes")
    g.add_argument(
        "--model",
        type=_words,
        metavar="NAME[,NAME]",
        help="some of vae, full-vb, full-vb-local: the first at all sizes, the others where the first starts (all; vae "
        "alone with sizes or with another option of the model)",
    )
    g.add_argument(
        "--channels",
        type=_channels,
        metavar="C[,C]",
        help="channels of convolutions around the hidden layers, all of them in one model",
    )
    g.add_argument("--posterior", choices=POSTERIORS, help="q(z|x): gaussian (default), or full, with full covariance")
    g.add_argument("--flow", type=int, metavar="K", help="a planar flow of K maps over the posterior")
    g.add_argument("--likelihood", choices=LIKELIHOODS, help="p(x|z): bernoulli (default) or another one")
    g.add_argument("--estimator", choices=OBJECTIVES, help="the objective: B (default; A with a flow)")
    g.add_argument("--n-samples", type=int, metavar="L", help="draws of z for each datapoint; without it there is one")
    g = p.add_argument_group("how it is measured")
    g.add_argument("--backend", type=_words, metavar="NAME[,NAME]", help="numpy (default), cupy, or both")
    g.add_argument(
        "--dtype",
        type=_words,
        metavar="NAME[,NAME]",
        help="float32, float64, or both (default; float32 with --profile or --against)",
    )
    g.add_argument(
        "--repeats",
        type=int,
        metavar="R",
        help="timed rounds, each as many steps as take 40 ms, three at least; more make intervals narrower (10)",
    )
    g.add_argument(
        "--threads",
        type=numbers,
        metavar="T[,T]",
        help="give BLAS T threads, or each of these numbers in turns (without it BLAS takes as many as it does by "
        "itself)",
    )
    p.add_argument("--out", type=place, metavar="DIR", help="where the files go (a new folder runs/bench)")


def _words(text):
    """Read words with commas between them."""
    return tuple(text.split(","))


def _hidden(text):
    """Read hidden layers with commas between them: a width, widths with x between them, or none."""
    try:
        return [_widths(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r}; expected widths with commas between them, such as 500, 500x300 for two layers, or none"
        raise argparse.ArgumentTypeError(message) from None


def _widths(text):
    """Read one of them, as a number or a tuple."""
    if text == "none":
        return ()
    widths = tuple(int(part) for part in text.split("x"))
    return widths if len(widths) > 1 else widths[0]


def _channels(text):
    """Read the channels of one model, as a tuple."""
    return tuple(numbers(text))
