"""scratchvae encode: write the code of each image, and its score."""

import warnings
from pathlib import Path

import numpy as np

from scratchvae.arguments import whole
from scratchvae.cli.images import add_images, images_to_show, in_parts, shown
from scratchvae.cli.shared import add_command, place, resolved, run_options
from scratchvae.cli.writing import checked_file, images_in_words, write_arrays, write_table
from scratchvae.inference.objectives import trait
from scratchvae.inference.posteriors import can
from scratchvae.training import loop
from scratchvae.training.run import load_model

EPILOG = """examples:
  scratchvae encode runs/digits20 --out codes.csv                 the run's own test images
  scratchvae encode runs/photos --data new/ --out codes.csv       all images of a folder, by file
  scratchvae encode runs/mnist20 --data mnist --out mnist.npz     np.load("mnist.npz")["z"] is (70000, 20)
  scratchvae encode runs/mnist20 --data mnist --out mnist.npy     the codes alone

what the columns of a .csv, and the arrays of an .npz, hold:
  name or row       the file, relative to the folder, or the number of the image in its file, from 0
  label             the class folder or the label, if there are labels; an .npz has numbers, and classes
  z_1 … z_J         the code: the mean of q(z|x), and with a flow the mean before the maps, sent through them
  sd_1 … sd_J       the standard deviations of q(z|x), where it is a Gaussian
  rate              the KL of q(z|x) from the prior, in nats
  distortion        -log p(x|z) on average over L draws of z, in nats
  bound             -rate - distortion, which is below log p(x). Its mean is what evaluate prints

An autoencoder has no rate and no bound: these columns of a .csv are empty, and an .npz has no such arrays.
A file of the same name is replaced."""
FORMATS = (".csv", ".npz", ".npy")


def encode(run, out, split=None, n_samples=None, seed=0, background=None, **moved):
    """Write the code, the rate, the distortion and the bound of each image into the file `out`.

    `split` names images of the run's own data: "train", "valid" or "test". `moved` may hold data and data_dir. Without
    a split all images of the data that are given are taken, or the test images of the run. `n_samples` is the number of
    z per image; without it that of the training holds. `seed` is that of the noise. `background` is what transparent
    pixels of other data are laid on.
    """
    run = Path(run)
    options = run_options(run) | resolved(moved)
    out = checked_file("--out", out, FORMATS, options["data"])
    seed = whole("--seed", seed, least=0)
    model = load_model(run)
    if n_samples is not None:
        model.n_samples = whole("--n-samples", n_samples)
    images = images_to_show(run, options, model, split, "data" in moved, background)
    with shown(model, options, images):
        x = loop.as_evaluated(model, images.x, seed, images.binarization)
        z = in_parts(model.encode_mean, x, model)
        if out.suffix.lower() == ".npy":
            write_arrays(out, z)
            print(f"wrote {out}: the codes of {images_in_words(len(z))}, {z.shape} {z.dtype}")
            return 0
        columns, missing = _spread(model, x)
        columns = {"z": z, **columns, **scores(model, images, seed)}
    write_table(out, images, columns)
    _warn_if_not_finite(options["data"], columns["bound"])
    print(f"wrote {out}: {images_in_words(len(z))} of {options['data']}, with {_shown_columns(columns)}")
    for reason in missing:
        print(reason)
    if columns["bound"] is None:
        print("there is no rate and no bound: an autoencoder learns no q(z|x)")
    return 0


def scores(model, images, seed, ranks=None):
    """Return rate, distortion and bound of each image, (N,) each in nats, by name; None for what there is not."""
    with loop.progress_bar(len(images.x), 0, ranks.shown(None) if ranks else None, unit=" images") as bar:
        rate, distortion = loop.evaluate_each(model, images.x, seed, images.binarization, ranks, bar.update)
    if not trait(model.estimator, "bound", True):
        return {"rate": None, "distortion": distortion, "bound": None}
    with np.errstate(invalid="ignore"):  # of a row that is far from all others
        return {"rate": rate, "distortion": distortion, "bound": -rate - distortion}


def _warn_if_not_finite(name, bound):
    """Warn with the number of images of which the bound is not finite, None standing for no bounds."""
    n_bad = 0 if bound is None else int((~np.isfinite(bound)).sum())
    if n_bad:
        warnings.warn(
            f"the bound of {n_bad:,} of {images_in_words(len(bound))} of {name} is not finite: see whether they are on "
            "the scale of the training rows",
            stacklevel=2,
        )


def _spread(model, x):
    """Return the standard deviations of each latent under q(z|x) as a column, and in words why there are none."""
    if not trait(model.estimator, "bound", True):
        return {}, []
    if "flow" in model.config:
        return {}, ["there are no standard deviations: with a flow q(z|x) is no Gaussian"]
    if not can(model.encoder.posterior, "moments"):
        return {}, ["there are no standard deviations: the posterior of this run has no moments"]
    log_var = in_parts(lambda rows: model.encode(rows)[1], x, model)
    return {"sd": np.exp(log_var / 2)}, []


def _shown_columns(columns):
    """Return the names of the columns that hold something, in words."""
    return ", ".join(name for name, column in columns.items() if column is not None)


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, encode, "write the code and the score of each image", "RUN --out FILE", epilog=EPILOG)
    p.add_argument("run", type=place, metavar="RUN", help="a run folder")
    p.add_argument(
        "--out", type=place, metavar="FILE", required=True, help="what to write, by its suffix: .csv, .npz or .npy"
    )
    add_images(p)
    p.add_argument("--n-samples", type=int, metavar="L", help="how many z to draw per image (as many as in training)")
    p.add_argument("--seed", type=int, help="the seed of the noise (0)")
