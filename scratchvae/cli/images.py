"""The images that a command shows to a trained model: a split of the run's own, or all images of any path."""

import contextlib
import math
import os

import numpy as np

from scratchvae import data
from scratchvae.arguments import model_rows, takes_unit
from scratchvae.cli.shared import background, images_of_run, place
from scratchvae.data.pixels import warn_if_dark
from scratchvae.training import loop


def images_to_show(run, options, model, split, given, level):
    """Return the `Images` that `encode` and `reconstruct` show to the model of a run.

    options   are those of the run, with the data that are given on the command line in place of its own.
    split     is "train", "valid" or "test" for images of the run's own data, which must be those of the training; None
              is test, or where data are given all of these, whatever they are.
    given     says whether data are given.
    level     is the background that is given, None if none is.
    """
    if given and split is None:
        return all_images(options, model, level)
    if level is not None:
        raise ValueError("--background is for images of your own choice, --data without --split: leave it out")
    return images_of_run(run, options).part(split or "test")


def all_images(options, model, level=None):
    """Return all images of the data that the options name, without a split, as `Images`.

    They need not be those of the training, but must have their size, and are binarised as they were. level is the
    background that is given on the command line; None takes that of the training, for a folder.
    """
    if level is None and os.path.isdir(options["data"]):
        level = options["background"]
    images = data.load_images(
        options["data"], options["data_dir"], options["binarization"], level, options["image_shape"], options["color"]
    )
    if math.prod(images.image_shape) != model.n_visible:  # an older run does not know its shape
        first = options["data"] if images.names is None else os.path.join(options["data"], images.names[0])
        shape = " x ".join(map(str, images.image_shape))
        raise ValueError(f"{first} has {shape} pixels, and the images of the training {model.n_visible}")
    return images.labelled(model.n_classes, options["classes"]) if model.n_classes else images


@contextlib.contextmanager
def shown(model, options, images):
    """Look at `Images` as `fit` and `evaluate` look at rows, but by the name of the data, and no more inside."""
    model_rows(options["data"], images.x, model)
    if images.x.dtype != np.uint8:  # `load_images` has looked at these
        warn_if_dark(options["data"], images.pixels(), 3, floats=takes_unit(model.likelihood))
    with model.guard.looked_at():
        yield


def in_parts(function, rows, model, unit=" images"):
    """Return function(rows), (N, …), some rows at a time, with a bar."""
    size = model.rows_at_once()
    with loop.progress_bar(len(rows), 0, None, unit=unit) as bar:
        parts = []
        for start in range(0, len(rows), size):
            parts.append(function(rows[start : start + size]))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def add_images(parser):
    """Add the options that say which images are shown."""
    parser.add_argument(
        "--data",
        type=place,
        metavar="NAME|PATH",
        help="the images: all of a folder, .npy or .npz, or of digits, mnist or frey, without a split. They need not "
        "be those of the training, but have their size. Without --data they are the run's own",
    )
    parser.add_argument(
        "--split",
        choices=data.arrays.PARTS,
        help="only the images that the run has trained, validated or tested with (without --data: test); --data then "
        "says where the run's own data are now",
    )
    parser.add_argument("--data-dir", type=place, metavar="DIR", help="where MNIST and Frey Face are now")
    add_background(parser)


def add_background(parser):
    """Add the option for the background of images that are not the run's own."""
    parser.add_argument(
        "--background",
        type=background,
        metavar="white|black|0..255",
        help="what transparent pixels in the folder of --data are laid on (as in the training)",
    )
