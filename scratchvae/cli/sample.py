"""scratchvae sample: write images that a trained model makes up."""

import math
from pathlib import Path

import numpy as np

from scratchvae.arguments import whole
from scratchvae.cli.images import in_parts
from scratchvae.cli.shared import add_command, count, place, run_options
from scratchvae.cli.writing import (
    as_shown,
    checked_place,
    numbered,
    require_few,
    write_arrays,
    write_folder,
    write_grid,
)
from scratchvae.inference.objectives import trait
from scratchvae.noise import standard_normal
from scratchvae.training.run import load_model

EPILOG = """examples:
  scratchvae sample runs/mnist20 --out sample.png                    16 images as one picture
  scratchvae sample runs/mnist20 --out samples/ --n 100 --seed 1     100 PNG files, one an image
  scratchvae sample runs/mnist20 --out samples.npz --n 1e4 --draw    x ~ p(x|z) as rows, and the z behind them

A .npy holds rows (N, D), and an .npz has images (N, D) and z (N, J), all values as they are. In a picture 0 is black
and 1 is white. Where values lie outside, as they may with --mean free, all are moved into it by one straight line,
and a line says so. A file of the same name is replaced; a folder must be new or empty."""


def sample(run, out, n=16, seed=0, draw=False, label=None):
    """Write `n` images that the model of the run folder `run` makes of draws z ~ p(z), into the file or folder `out`.

    `seed` is that of the z, which are the same with and without `draw`. With it the images are draws x ~ p(x|z), and
    without it the means E[x|z]. A conditional model has the classes in turn, or all images of the class `label`, its
    name or its number.
    """
    run = Path(run)
    options = run_options(run)
    n = whole("--n", n)
    seed = whole("--seed", seed, least=0)
    path, suffix = checked_place(out, None)
    if suffix == ".png":
        require_few(n)
    model = load_model(run)
    if not trait(model.estimator, "bound", True):
        raise ValueError(f"{run} is an autoencoder, which learns no prior p(z) to draw from: it can reconstruct alone")
    z = standard_normal(np.random.default_rng(seed), (n, model.n_latent), model.dtype, model.backend)
    y, of_what = _labels_of(model, n, label, options["classes"])

    def decode(k):
        return model.decode(z[k], None if y is None else y[k])

    x = model.draw(z, _seed_of_pixels(seed), y) if draw else in_parts(decode, np.arange(n), model)
    shape = _shape_of(options, model)
    given = ", y" if model.n_classes else ""
    what = f"draws x ~ p(x|z{given})" if draw else f"means E[x|z{given}]"
    said = ""
    if suffix == ".npy":
        write_arrays(path, x)
    elif suffix == ".npz":
        write_arrays(path, images=x, z=z)
    else:
        (shown,), said = as_shown(x)
        if suffix == ".png":
            _write_grid(path, shown, shape, f"{what} at z ~ p(z){of_what}")
        else:
            write_folder(path, shown, shape, numbered("sample", range(1, n + 1)))
    print(f"wrote {path}: {n:,} {what} at z ~ p(z){of_what}")
    if said:
        print(said)
    return 0


def _labels_of(model, n, label, names):
    """Return the labels of n images of a conditional model, (n,), or None, and in words of which classes they are.

    label is the name of a class, if `names` lists them, or else its number as text. One that does not fit is refused.
    """
    if not model.n_classes:
        if label is not None:
            raise ValueError("--label is for a run that was told the classes (train --labels): leave it out")
        return None, ""
    if label is None:
        return np.arange(n) % model.n_classes, ", the classes in turn"
    numbers = list(map(str, range(model.n_classes)))
    names = names or numbers
    for known in (names, numbers):
        if label in known:
            place = known.index(label)
            return np.full(n, place), f", of class {names[place]}"
    also = "" if names == numbers else f", or a name among {', '.join(names)}"
    raise ValueError(f"--label is {label}; expected the number of a class, from 0 to {model.n_classes - 1}{also}")


def _shape_of(options, model):
    """Return the image_shape of a run, as `Data` has it. An older one does not say, and has square images if it can."""
    if options["image_shape"] is not None:
        return tuple(options["image_shape"])
    side = math.isqrt(model.n_visible)
    return (side, side) if side**2 == model.n_visible else (1, model.n_visible)


def _seed_of_pixels(seed):
    """Return a seed for the noise of pixels, which must not be the numbers that z is made of."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def _write_grid(path, shown, shape, what):
    """Write images as one picture, nearly as many rows as columns; `what` says above it what they are."""
    from scratchvae import plots

    columns = math.ceil(math.sqrt(len(shown)))

    def draw(ax):
        ax.set_title(what, fontsize=8, loc="left")
        plots.image_grid(ax, shown, shape, columns)

    write_grid(path, draw, len(shown), columns, shape)


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, sample, "write images that a model makes up", "RUN --out DIR|FILE", epilog=EPILOG)
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    p.add_argument(
        "--out",
        type=place,
        metavar="DIR|FILE",
        required=True,
        help="a folder for one PNG an image, or by its suffix one picture .png, or a .npy or .npz",
    )
    p.add_argument("--n", type=count, metavar="N", help="how many images (16)")
    p.add_argument("--seed", type=int, help="the seed of z, and of the draws (0)")
    p.add_argument(
        "--label", metavar="K", help="for a run with --labels: the class of all images, by number or name (all in turn)"
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--mean", dest="draw", action="store_false", help="write E[x|z], as without --draw")
    what.add_argument("--draw", dest="draw", action="store_true", help="write draws x ~ p(x|z), with the pixels' noise")
