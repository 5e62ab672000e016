"""Reads a folder of images as grey levels or as colours, 8 bits each, or a folder of class folders with labels.

Images come from anywhere, so their format and their size are checked before they are decoded, and whatever goes wrong
in the decoder raises a DataError that names the file.
"""

import io
import re
import warnings
from pathlib import Path

import numpy as np

from scratchvae.backend import host_memory
from scratchvae.data.dataset import DataError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # PPM stands for PBM and PGM as well
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # of pixels with 8 bits a channel
GREYS = ("1", "L", "LA")  # those of them that have no colour
COLORS = ("grey", "rgb")  # as what pixels are read
MOST_PIXELS = 1 << 24  # of one image, 4096 x 4096
MOST_BYTES = 1 << 28  # of one file
# How names of splits begin, as train, Test_images, val2017, testSet and DEVSET do, and trainers and valley do not.
SPLIT = re.compile("(?i:train(?:ing)?|valid(?:ation)?|val|dev|test(?:ing)?)(?i:set)?(?![a-z])")
LEFT_BEHIND = ("thumbs.db", "desktop.ini")  # by Windows; what else systems leave in folders begins with a dot
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")  # an object as Python shows it
GREY = {"black": 0, "white": 255}


def grey_level(background):
    """Return the grey level of a background, 0 to 255, or None for None; anything else raises a ValueError."""
    if background is None:
        return None
    if isinstance(background, str) and background in GREY:
        return GREY[background]
    whole = isinstance(background, int | np.integer) and not isinstance(background, bool)
    if not whole or not 0 <= background <= 255:
        raise ValueError(f"background is {background!r}; expected 'white', 'black' or a grey level from 0 to 255")
    return int(background)


def read_folder(path, background=None, shape=None, color="grey"):
    """Return the images of a folder as uint8, their labels (N,), and the names of classes and of files.

    The images are (N, height, width), or with color "rgb" (N, height, width, 3).

    path         is a folder that holds images alone, or two class folders or more alone, which hold images. Then the
                 classes have the labels 0, 1, … in the order of their names. A folder of images has no labels: None and
                 None. Folders with the names of splits, such as train or test_images, raise a DataError.
    background   is the grey level, 0 to 255, on which transparent pixels are laid. If it is None, an image with such
                 pixels raises a DataError.
    shape        is the (height, width) that all images must have, with color "rgb" (height, width, 3). If it is None,
                 they must have that of the first.
    color        is "grey", unless given: coloured images become grey, and a warning counts them. With "rgb" all images
                 have red, green and blue, which are the same in those that are grey.

    The images are in the order of their names, that of the class first. Their names are a tuple of texts, relative to
    the folder, such as "1.png" or "cats/1.png". They are turned upright as their EXIF tag says.
    Files whose names begin with a dot are passed over, and so are Thumbs.db and desktop.ini. Of a file with several
    pages the first is read, and a warning counts the others.
    """
    classes = None
    try:
        files, folders = _content(path)
        labels = None
        if folders:
            classes = tuple(folder.name for folder in folders)
            if files:
                raise DataError(f"{path} holds both images and folders ({', '.join(classes)}); expected one of them")
            if splits := [name for name in classes if SPLIT.match(name)]:
                raise DataError(
                    f"{path} holds {', '.join(splits)}, which look like splits; expected classes: give one of the "
                    "folders, save an .npz with train, valid and test, or rename what is a class"
                )
            if len(classes) == 1:
                raise DataError(
                    f"{path} holds the folder {classes[0]} alone; expected images, or two classes or more: give "
                    f"{folders[0]}"
                )
            groups = [_images_of_class(folder) for folder in folders]
            files = [file for group in groups for file in group]
            labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    if not files:
        raise DataError(f"{path} has no images in it")
    names = tuple(file.relative_to(path).as_posix() for file in files)
    return _stacked(path, files, background, shape, color), labels, classes, names


def _content(path):
    """Return the files and the folders in a folder, sorted by name, without what systems leave there unseen."""
    entries = sorted(entry for entry in Path(path).iterdir() if not _is_left_behind(entry.name))
    for entry in entries:
        if not entry.is_file() and not entry.is_dir():
            raise DataError(f"{entry} is no regular file: leave only images in the folder")
    return [entry for entry in entries if entry.is_file()], [entry for entry in entries if entry.is_dir()]


def _is_left_behind(name):
    """Say whether a file manager has put a file of this name there, not the user."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _images_of_class(folder):
    """Return the files of a class folder; a DataError is raised for one without images, or with folders in it."""
    files, folders = _content(folder)
    if folders:
        raise DataError(f"{folder} holds folders ({', '.join(inner.name for inner in folders)}); expected images")
    if not files:
        raise DataError(f"{folder} has no images in it: leave out a class without images")
    return files


def _stacked(path, files, background, shape, color):
    """Return the images in the files of a folder as one array of uint8; all must have one size."""
    expected = "the images before it" if shape is None else "the images of the training"
    images = None
    further = 0  # pages that are left out
    several = []  # the files that have them
    coloured = 0  # images whose colour is lost
    for k, file in enumerate(files):
        image, pages, is_lost = _read(file, background, color)
        coloured += is_lost
        if images is None:
            if len(files) * image.size > host_memory():
                raise DataError(f"{file.parent} has {len(files):,} images of {image.shape}, more than memory holds")
            images = np.empty((len(files), *image.shape), np.uint8)
            shape = image.shape if shape is None else tuple(shape)
        if image.shape != shape:
            raise DataError(f"{file} is {image.shape}, {expected} {shape}; expected one size")
        images[k] = image
        if pages > 1:
            further += pages - 1
            several.append(file)
    if several:
        warnings.warn(
            f"{several[0]}{f' and {len(several) - 1} more files' if several[1:] else ''} hold several pages: the first "
            f"is read and {further:,} are left out; save them as files of their own to read them",
            stacklevel=6,
        )
    if coloured:
        warnings.warn(
            f"{path}: {coloured:,} of {len(files):,} images {'is' if coloured == 1 else 'are'} coloured, and turned to "
            "grey: train with color='rgb' to keep the colours (--color rgb)",
            stacklevel=6,
        )
    return images


def _read(file, background, color):
    """Return an image and whether it loses its colours, as `_pixels` does, with the number of pages between them."""
    from PIL import Image, ImageOps

    Image.init()
    said = []
    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"{file} has {file.stat().st_size:,} bytes; expected {MOST_BYTES:,} at most")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")  # what the decoder says is passed on below, with the name of the file
            formats = [name for name in FORMATS if name in Image.OPEN]
            # The decoder gets the content. From a file it takes as much memory as a broken chunk promises, and a path
            # it may map, which mixes up the rows of a TIFF that is to be turned.
            content = file.read_bytes()
            _require_few(file, *_webp_canvas(content))  # whose decoder takes a canvas before it tells its size
            with Image.open(io.BytesIO(content), formats=formats) as image:
                _require_few(file, *image.size)
                stored = [str(tile[3]) for tile in image.tile]
                deep = [mode for mode in stored if ";16" in mode]  # cut down to 8 bits unseen
                if image.mode not in MODES or deep:
                    mode = deep[0] if image.mode in MODES else image.mode
                    raise DataError(
                        f"{file} has pixels of mode {mode}; expected grey, RGB or RGBA with 8 bits a channel: "
                        "convert it"
                    )
                image.load()
                if "transparency" in image.info and stored[:1] in (["L;2"], ["L;4"]):  # a grey PNG of 2 or 4 bits
                    white = (1 << int(stored[0][-1])) - 1
                    image.info["transparency"] = (image.info["transparency"] & white) * 255 // white  # as its pixels
                pixels, is_lost = _pixels(file, ImageOps.exif_transpose(image), background, color)
                pages = getattr(image, "n_frames", 1)
    except DataError:
        raise
    except Exception as error:  # the decoders raise dozens of kinds for a broken file
        reason = " ".join(ADDRESS.sub("", str(error)).split()) or type(error).__name__
        raise DataError(
            f"{file} is no image in {', '.join(FORMATS)} that can be read ({reason}): leave only images in the folder"
        ) from None
    for warning in said:
        if not issubclass(warning.category, DeprecationWarning | Image.DecompressionBombWarning):
            warnings.warn(f"{file}: {warning.message}", stacklevel=7)
    return pixels, pages, is_lost


def _require_few(file, width, height):
    """Raise a DataError unless an image has between 1 and MOST_PIXELS pixels."""
    if not 0 < width * height <= MOST_PIXELS:
        raise DataError(f"{file} has {width} x {height} pixels; expected {MOST_PIXELS:,} at most")


def _webp_canvas(content):
    """Return (width, height) as the first chunk of a WebP states them, and (1, 1) for what is no WebP.

    The chunk is a lossy image, a lossless one or an extended header (WebP Container Specification; RFC 9649).
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return 1, 1
    if content[12:16] == b"VP8X":  # each less 1, in 24 bits
        return tuple(1 + int.from_bytes(content[k : k + 3], "little") for k in (24, 27))
    if content[12:16] == b"VP8L":  # each less 1, in 14 bits behind a byte
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return tuple(int.from_bytes(content[k : k + 2], "little") & 0x3FFF for k in (26, 28))  # each in 14 bits of 16


def _pixels(file, image, background, color):
    """Return the pixels of an image, and whether its colours are lost in them.

    They are grey levels (height, width), or with color "rgb" (height, width, 3). Transparent ones are laid on the
    background.
    """
    has_colours = image.mode not in GREYS
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    alpha = None
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info or palette.endswith("A"):
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("RGB")
        if alpha.min() < 255 and background is None:
            raise DataError(
                f"{file} has transparent pixels: say what lies behind them with background, 'white', 'black' or a grey "
                "level from 0 to 255 (--background on the command line)"
            )
    if color == "rgb":
        return _laid(image.convert("RGB"), alpha, background), False
    is_lost = False
    if has_colours:
        rgb = _laid(image.convert("RGB"), alpha, background)
        is_lost = bool((rgb != rgb[..., :1]).any())
    return _laid(image.convert("L"), alpha, background), is_lost


def _laid(image, alpha, background):
    """Return an image as an array, laid on the background where alpha (height, width), None for 255, is below 255."""
    ink = np.asarray(image)
    if alpha is None or alpha.min() == 255:
        return ink
    alpha = alpha.astype(np.uint32).reshape(*alpha.shape, *[1] * (ink.ndim - 2))
    return ((ink * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)
