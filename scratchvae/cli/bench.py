"""scratchvae bench: measure what a training step costs."""

import json
import os
import warnings

from scratchvae.backend import BACKENDS
from scratchvae.cli.shared import add_command, new_folder, numbers, place, require_cores
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.run import require_folder

BUSY = 0.7  # the load before anything is measured above which a core is taken to be at work
EPILOG = """Without sizes: the paper's model, 784-500-20 with M = 100, and from there one size at a time.
With sizes: those alone, each along its own list, the others the paper's or the first of their list.

examples:
  scratchvae bench                                       # NumPy, a minute
  scratchvae bench --backend numpy,cupy
  scratchvae bench --hidden 500 --threads 1              # the paper's model alone, on one core
  scratchvae bench --batch-size 20,100,500 --dtype float32
  scratchvae bench --hidden 500 --model vae,full-vb,full-vb-local"""


def bench(backend=("numpy",), dtype=("float32", "float64"), model=None, repeats=10, threads=None, out=None, **sizes):
    """Time training steps, print the table, and write bench.json and bench.png.

    `backend`, `dtype` and `model` are the names to measure, `sizes` the lists of batch_size, n_hidden, n_latent and
    n_visible that were given. `repeats` counts the timed rounds. `threads` pins the threads of BLAS; without it BLAS
    takes as many as it does by itself. `out` is the folder for the two files; without it they go into a new one.
    """
    from threadpoolctl import threadpool_limits

    from scratchvae import bench as benchmark

    model = model or (("vae",) if sizes else tuple(benchmark.MODELS))
    known = [
        ("backend", backend, BACKENDS),
        ("dtype", dtype, ("float32", "float64")),
        ("model", model, benchmark.MODELS),
    ]
    for option, given, names in known:
        if unknown := sorted(set(given) - set(names)):
            raise ValueError(f"--{option} has {', '.join(unknown)}; expected some of {', '.join(names)}")
    for option, values in [*sizes.items(), ("repeats", [repeats]), ("threads", [1 if threads is None else threads])]:
        if min(values) < 1:
            option = option.removeprefix("n_").replace("_", "-")
            raise ValueError(f"--{option} is {min(values)}; expected whole numbers ≥ 1")
    if threads is not None:
        require_cores(threads)
    if out is not None:
        require_folder(out)
    load = _load()
    with new_folder(out, "runs/bench") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        with threadpool_limits(threads, "blas"):
            result = benchmark.run(benchmark.sweep(backend, dtype, sizes or benchmark.SIZES, model), repeats)
        print(benchmark.describe(result["machine"]))
        print(benchmark.table(result))
        print("ms, median, upper: lower quartile, median and upper quartile over the rounds, in milliseconds a step")
        write_atomically(folder / "bench.json", (json.dumps(result, indent=1) + "\n").encode())
    if load > BUSY:
        print(
            f"the load of this machine was {load:.1f} before the first step, so these times say little: other programs"
        )
        print("were at work, and OpenBLAS's threads wait for each other then; stop them, or give --threads 1")
    files = "bench.json and bench.png" if _draw(folder / "bench.png", result["rows"]) else "bench.json"
    print(f"wrote {folder}/: {files}")
    return 0


def _load():
    """Return how many programs have been at work in the last minute, on average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _draw(path, rows):
    """Draw the picture of `bench` and say whether that went well; else a warning says why not."""
    try:
        from scratchvae import plots  # only now: SciPy's BLAS would stand in the list beside NumPy's

        with plots.own_settings():
            figure = plots.Figure(figsize=(11, 3.2), dpi=plots.DPI, layout="constrained")
            plots.step_costs(figure.subplots(1, 4), rows)
            figure.savefig(path)
        return True
    except Exception as error:  # Matplotlib, its backends and LaTeX raise many kinds
        reason = " ".join(str(error).split())
        warnings.warn(f"no picture ({type(error).__name__}: {reason}); the measurements are whole", stacklevel=2)
        return False


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(
        commands,
        bench,
        "time training steps on NumPy and CuPy over minibatch, width, latent and image size, in both precisions",
        epilog=EPILOG,
    )
    p.add_argument("--backend", type=_words, metavar="NAME[,NAME]", help="numpy (default), cupy, or both")
    p.add_argument("--dtype", type=_words, metavar="NAME[,NAME]", help="float32, float64, or both (default)")
    p.add_argument(
        "--model",
        type=_words,
        metavar="NAME[,NAME]",
        help="some of vae, full-vb, full-vb-local: the first at all sizes, the others where the first starts (all)",
    )
    p.add_argument("--batch-size", type=numbers, metavar="M[,M]", help="sizes of the minibatch")
    p.add_argument("--hidden", dest="n_hidden", type=numbers, metavar="H[,H]", help="numbers of hidden units")
    p.add_argument("--latent", dest="n_latent", type=numbers, metavar="J[,J]", help="numbers of latent dimensions")
    p.add_argument("--visible", dest="n_visible", type=numbers, metavar="D[,D]", help="numbers of pixels")
    p.add_argument(
        "--repeats", type=int, metavar="R", help="timed rounds, each as many steps as take 40 ms, three at least (10)"
    )
    p.add_argument(
        "--threads",
        type=int,
        metavar="T",
        help="give BLAS T threads (without it BLAS takes as many as it does by itself)",
    )
    p.add_argument(
        "--out", type=place, metavar="DIR", help="where bench.json and bench.png go (a new folder runs/bench)"
    )


def _words(text):
    """Read words with commas between them."""
    return tuple(text.split(","))
