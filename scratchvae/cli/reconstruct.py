"""scratchvae reconstruct: write what a trained model makes of images."""

import math
from pathlib import Path

from scratchvae.arguments import whole
from scratchvae.cli.images import add_images, images_to_show, in_parts, shown
from scratchvae.cli.shared import add_command, count, place, resolved, run_options
from scratchvae.cli.writing import (
    as_png,
    as_shown,
    checked_place,
    images_in_words,
    require_few,
    write_arrays,
    write_folder,
    write_grid,
    write_table,
)
from scratchvae.training import loop
from scratchvae.training.run import load_model

EPILOG = """examples:
  scratchvae reconstruct runs/photos --data new/ --out pairs.png     originals, each with its reconstruction below
  scratchvae reconstruct runs/photos --data new/ --out again/        one PNG an image, by the name of its file
  scratchvae reconstruct runs/mnist20 --out test.npz --n 100         the first 100 test images of the run

A reconstruction is E[x|z] at the code z that scratchvae encode writes. A .npy holds them as rows (N, D), and an
.npz has reconstructions and images (N, D), name or row, and labels if there are any, all values as they are. In a
picture 0 is black and 1 is white. Where values lie outside, all are moved into it by one straight line, and a line
says so. A file of the same name is replaced; a folder must be new or empty."""


def reconstruct(run, out, split=None, n=None, seed=0, background=None, **moved):
    """Write the reconstruction of each image into the file or folder `out`.

    The images, and so `split`, `background` and `moved`, are those of `encode`; of these the first `n` are taken, all
    without it. `seed` is that with which a run that binarises its images anew each time draws them.
    """
    run = Path(run)
    options = run_options(run) | resolved(moved)
    path, suffix = checked_place(out, options["data"])
    seed = whole("--seed", seed, least=0)
    model = load_model(run)
    images = images_to_show(run, options, model, split, "data" in moved, background)
    if n is not None:
        images = _first(images, whole("--n", n))
    if suffix == ".png":
        require_few(len(images.x))
    with shown(model, options, images):
        x = loop.as_evaluated(model, images.x, seed, images.binarization)
        again = in_parts(model.reconstruct, x, model)
    x = x[:, : model.n_visible]
    said = ""
    if suffix == ".npy":
        write_arrays(path, again)
    elif suffix == ".npz":
        write_table(path, images, {"images": x, "reconstructions": again})
    elif suffix == ".png":
        (x, again), said = as_shown(x, again)
        _write_pairs(path, x, again, images.image_shape)
    else:
        (again,), said = as_shown(again)
        write_folder(path, again, images.image_shape, as_png(images))
    print(f"wrote {path}: what the model makes of {images_in_words(len(again))} of {options['data']}")
    if said:
        print(said)
    return 0


def _first(images, n):
    """Return the first n of `Images`; a ValueError is raised if they are fewer."""
    if n > len(images.x):
        raise ValueError(f"--n is {n:,}; there are {len(images.x):,} images")
    return images.first(n)


def _write_pairs(path, x, again, shape):
    """Write originals and their reconstructions as one picture, nearly as many rows as columns."""
    from scratchvae import plots

    n = len(x)
    columns = min(n, max(10, math.ceil(math.sqrt(2 * n))))
    rows = 2 * -(-n // columns)
    write_grid(path, lambda ax: plots.reconstructions(ax, x, again, shape, columns), rows * columns, columns, shape)


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, reconstruct, "write what a model makes of images", "RUN --out DIR|FILE", epilog=EPILOG)
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    p.add_argument(
        "--out",
        type=place,
        metavar="DIR|FILE",
        required=True,
        help="a folder for one PNG an image, or by its suffix one picture .png, or a .npy or .npz",
    )
    add_images(p)
    p.add_argument("--n", type=count, metavar="N", help="only the first N of the images (without it: all)")
    p.add_argument("--seed", type=int, help="the seed with which dynamic binarisation draws the images (0)")
