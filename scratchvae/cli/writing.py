"""How commands write what they have computed: tables of one row an image, arrays, and pictures.

A file appears under its name when it is whole, and so does a folder. One that was there before stays until then.
"""

import csv
import io
import math
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from scratchvae import data
from scratchvae.files import told
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.run import FILES

IN_A_GRID = 1000  # images at most, of which one can still make something out


def checked_file(option, out, suffixes, source):
    """Return the Path of a file that is to be written, `out` as it was given with `option`.

    A ValueError is raised unless it ends in one of the suffixes and can be written where it lies. A file of that name
    is replaced later on, unless it belongs to a run, or to the data that are read, which lie at `source`.
    """
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} is {out}; expected a name that ends in {_either(suffixes)}")
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"{option} is {out}, which is a folder or no regular file: choose another name")
    if not path.parent.is_dir():
        raise ValueError(f"{option} is {out}, and there is no folder {path.parent}: make it, or choose another one")
    if path.name in FILES:
        raise ValueError(f"{option} is {out}, which is the name of a file of a run: choose another name")
    _require_apart(option, path, source)
    return path


def checked_place(out, source):
    """Return the Path at which pictures or arrays are to be written, and its suffix, which is "" for a folder.

    A ValueError is raised for a file that `checked_file` refuses, and for a folder that is not new or empty.
    """
    path = Path(out)
    if path.suffix and not path.is_dir() and not str(out).endswith(("/", os.sep)):
        if path.suffix.lower() not in PICTURES:
            raise ValueError(f"--out is {out}; expected a folder, or a name that ends in {_either(PICTURES)}")
        return checked_file("--out", out, PICTURES, source), path.suffix.lower()
    if os.path.lexists(path) and not path.is_dir():
        raise ValueError(f"--out is {out}, which is a file; expected a folder, or a name in {_either(PICTURES)}")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"--out is {out}, which is not empty: choose a new folder")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"--out is {out}, and there is no folder {path.parent}: make it, or choose another one")
    _require_apart("--out", path, source)
    return path, ""


PICTURES = (".png", ".npy", ".npz")


def _either(suffixes):
    """Return suffixes as words."""
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


def _require_apart(option, path, source):
    """Raise a ValueError if a path is that of the data, or in a folder of images, which would then have another one."""
    if source not in (None, *data.DATASETS) and path.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"{option} is {path}, and the data lie at {source}: choose a place outside of them")


def images_in_words(n):
    """Return how many images there are, in words."""
    return "1 image" if n == 1 else f"{n:,} images"


# Tables


def write_table(path, images, columns):
    """Write one row an image into a .csv or .npz: its name, its label if it has one, and the columns.

    images    are the `Images`. Where they have no names of files, the column is called row and holds their numbers.
    columns   holds arrays (N,) or (N, J) by name; None stands for one that is not known. A .csv has z_1, z_2, … for an
              array z (N, J), and an empty column for what is not known, which an .npz has not at all. Numbers are
              written with as many digits as tell them from their neighbours.
    """
    names = images.names
    head = {"row": images.rows} if names is None else {"name": np.array(names)}
    if path.suffix.lower() == ".npz":
        classes = None if images.classes is None else np.array(images.classes)
        write_arrays(path, **head, label=images.labels, classes=classes, **columns)
        return
    if images.labels is not None:
        head["label"] = images.labels if images.classes is None else np.array(images.classes)[images.labels]
    titles = []
    cells = []
    for title, column in (head | columns).items():
        if column is None:
            titles.append(title)
            cells.append([""] * len(images.x))
        elif column.ndim == 1:
            titles.append(title)
            cells.append(column.astype(str).tolist())
        else:
            titles += [f"{title}_{j}" for j in range(1, column.shape[1] + 1)]
            cells += column.T.astype(str).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(zip(*cells, strict=True))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))  # names as the system has them


def write_arrays(path, *alone, **arrays):
    """Write one array into a .npy, or several into an .npz by name, without those that are None, and no pickle."""
    content = io.BytesIO()
    if alone:
        np.save(content, *alone, allow_pickle=False)
    else:
        np.savez(content, **{name: array for name, array in arrays.items() if array is not None})
    write_atomically(path, content.getvalue())


# Pictures


def as_shown(*blocks):
    """Return blocks of images as floats in [0, 1], and in words what was done where they were not: else "".

    Values that are not all in [0, 1] are moved there by one straight line for all blocks. It takes the lowest value
    that there is to 0, or 0 itself if none is below it, and the highest to 1 likewise.
    """
    blocks = [block / 255 if block.dtype == np.uint8 else block for block in blocks]
    low = min(float(block.min()) for block in blocks)
    high = max(float(block.max()) for block in blocks)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("there are values that are not finite, which no picture shows: write a .npy or .npz (--out)")
    if low >= 0 and high <= 1:
        return blocks, ""
    low = min(low, 0.0)
    high = max(high, 1.0)
    said = f"black is {low:.3g} and white is {high:.3g} in the pictures, since values lie outside [0, 1]"
    return [(block - low) / (high - low) for block in blocks], said


def write_grid(path, draw, n, columns, image_shape):
    """Write a picture of n images, which `draw(ax)` draws as a grid of so many columns, as a .png."""
    from scratchvae import plots

    height, width = image_shape[:2]
    across = columns * (width + 1)
    down = -(-n // columns) * (height + 1)
    inches = min(max(6.0, across / plots.DPI), 40.0)  # so that each pixel of an image has one of the picture or more
    content = io.BytesIO()
    with plots.own_settings():
        fig, ax = plots.figure(inches, inches * down / across + 0.4)  # and a title above
        draw(ax)
        fig.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def require_few(n):
    """Raise a ValueError if a grid would have so many images that one could not make them out."""
    if n > IN_A_GRID:
        raise ValueError(
            f"a grid has room for {IN_A_GRID:,} images, and there are {n:,}: take fewer (--n), or write a folder"
        )


def write_folder(folder, images, image_shape, names):
    """Write images (N, D) of floats in [0, 1] into a new folder as PNG files of 8 bits a level, one an image."""
    from PIL import Image

    part = folder.resolve().with_name(f"{folder.resolve().name}.{secrets.token_hex(8)}.tmp")
    try:
        part.mkdir()
        for name, image in zip(names, images, strict=True):
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            levels = np.round(255 * image.reshape(image_shape)).astype(np.uint8)
            Image.fromarray(levels).save(path, "PNG")
        if folder.is_dir():  # an empty one; a folder cannot take its place everywhere
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        text = f"{folder} could not be written ({error.strerror or error}); nothing of it is there"
        raise told(error, text) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def numbered(word, numbers):
    """Return the names of PNG files with numbers, which sort as the numbers do: sample_03.png."""
    width = len(str(max(numbers)))
    return [f"{word}_{number:0{width}}.png" for number in numbers]


def as_png(images):
    """Return the names of PNG files for `Images`: those of their files, or else their numbers.

    A name gets .png in place of its own suffix, or behind all of it where two files would have one name otherwise.
    """
    if images.names is None:
        return numbered("row", images.rows.tolist())
    names = [str(Path(name).with_suffix(".png")) for name in images.names]
    return names if len({name.casefold() for name in names}) == len(names) else [f"{name}.png" for name in images.names]
