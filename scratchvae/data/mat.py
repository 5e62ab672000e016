"""Reads one array of uint8 from a MATLAB file, as far as its size is known beforehand.

A MATLAB 5 file begins with 128 bytes, of which the last two say in which order the bytes of numbers stand. Then come
elements, each with its type, its length and its content. A variable is an element of type MATRIX, which consists of
elements in turn: flags, dimensions, name and numbers. It may be packed by zlib into an element of type COMPRESSED.
"""

import itertools
import math
import zlib

import numpy as np

from scratchvae.data.dataset import DataError

STORED = {1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "float32", 9: "float64"}
STORED |= {12: "int64", 13: "uint64"}  # the type of an element: how its numbers are stored
UINT8 = 2
MATRIX = 14
COMPRESSED = 15
ELEMENTS = 64  # how many a file may have


def read_uint8(path, name, shape):
    """Return the variable `name` of the MATLAB 5 file at `path`, an array of uint8 with this shape.

    At most 8 bytes are read for each number that `shape` has, and no variable is expanded beyond that. A DataError says
    what else the file is.
    """
    most = 4096 + 8 * math.prod(shape)
    came = f"no variable {name}"
    with open(path, "rb") as file:
        raw = file.read(most + 1)
    try:
        if len(raw) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        if raw[126:128] not in (b"IM", b"MI"):
            raise ValueError("it does not begin like a MATLAB 5 file")
        order = "<" if raw[126:128] == b"IM" else ">"
        for count, (kind, content) in enumerate(_elements(memoryview(raw)[128:], order)):
            if count == ELEMENTS:
                raise ValueError(f"it has more than {ELEMENTS} elements")
            if kind == COMPRESSED:
                content = zlib.decompressobj().decompress(content, most)
                kind, content = next(_elements(memoryview(content), order), (None, b""))
            if kind != MATRIX:
                continue
            parts = [*itertools.islice(_elements(content, order), 4)]
            if len(parts) < 4 or bytes(parts[2][1]) != name.encode():
                continue
            dimensions = tuple(np.frombuffer(parts[1][1], f"{order}i4").tolist())
            stored, numbers = parts[3]
            if stored == UINT8 and dimensions == shape and len(numbers) == math.prod(shape):
                return np.frombuffer(numbers, np.uint8).reshape(shape, order="F")
            came = f"{name} {STORED.get(stored, 'of no numbers')} {dimensions}"
    except (ValueError, zlib.error) as error:
        raise DataError(f"{path} is no .mat file that can be read here ({error}): fetch it again") from None
    raise DataError(f"{path} has {came}; expected {name} uint8 {shape}")


def _elements(content, order):
    """Give (type, content) of one element after the other; raise a ValueError where one is longer than what is left."""
    at = 0
    while len(content) - at >= 8:
        kind, size = np.frombuffer(content[at : at + 8], f"{order}u4").tolist()
        at += 8
        if kind >> 16:  # a small element: its length stands beside its type, and its content in place of its length
            size = kind >> 16
            kind &= 0xFFFF
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            yield kind, content[at - 4 : at - 4 + size]
            continue
        if size > len(content) - at:
            raise ValueError(f"it is cut short: an element of {size:,} bytes, and {len(content) - at:,} are left")
        yield kind, content[at : at + size]
        at += size if kind == COMPRESSED else -(-size // 8) * 8
