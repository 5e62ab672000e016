"""Reads arrays from .npy and .npz files, no further than their headers promise and no further than they hold.

A file may come from anywhere, so nothing in it is believed before it is checked. Its sizes are compared before memory
is taken for an array, pickles are refused before a byte of them is read, and a member of an archive that nobody asks
for is not expanded. Whatever is wrong with a file raises a `FileError`, which names the file and the reason. If a file
cannot be read at this moment, that says nothing about it: the OSError or MemoryError stays one, and names the file.
"""

import contextlib
import errno
import io
import math
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from scratchvae.backend import host_memory

HEADER = 10_000  # bytes: no header of an array of numbers is longer
CHUNK = 1 << 20  # bytes that are read at a time
RATIO = 1100  # deflate makes nothing smaller than 1/1032 of its size


class FileError(ValueError):
    """Is raised for a file that is not there, or is not what it should be; the message names it and says why."""


def told(error, text):
    """Return an OSError with the number of `error` and another text."""
    said = OSError(text)
    said.errno = error.errno
    return said


@contextlib.contextmanager
def _reading(path, refusal):
    """Let what goes wrong inside, while the file at `path` is read, name it.

    What its content does wrong raises a FileError, which begins with `refusal`. An OSError or a MemoryError says
    nothing about the content: it stays what it is.
    """
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{path} cannot be read: memory has no room for it ({_reason(error)})") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # zipfile looks where a broken directory sends it
            raise FileError(f"{refusal} ({_reason(error)})") from None
        raise told(error, f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # zipfile and the parser of headers raise a dozen kinds for a broken file
        raise FileError(f"{refusal} ({_reason(error)})") from None


def require_file(path):
    """Return `path` as a Path; unless it leads to a regular file, and not to a pipe or a device, raise a FileError."""
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({_reason(error)})") from None
    except OSError as error:
        raise told(error, f"{path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise FileError(f"{path} is {what}; expected a regular file")
    return path


def is_archive(path):
    """Say whether the file at `path` begins like a .npz, which is a zip archive, whatever its name ends in."""
    path = require_file(path)
    with _reading(path, f"{path} cannot be read"), open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def read_npy(path):
    """Return the array in the .npy file at `path`; a FileError says why there is none."""
    path = require_file(path)
    with _reading(path, f"{path} is no NumPy file of plain arrays"), open(path, "rb") as file:
        return _array(file, os.fstat(file.fileno()).st_size)


def names_in(path):
    """Return the list of the names of all members of the .npz file at `path`; a FileError says why there is none."""
    path = require_file(path)
    with _reading(path, f"{path} is no NumPy file of plain arrays"), zipfile.ZipFile(path) as archive:
        return [*_members(archive)]


def read_npz(path, names=None, fields=False):
    """Return a dict of the arrays in the .npz file at `path`, by name.

    path     is that of a .npz file, compressed or not.
    names    are the names of those that are read; all of them unless given. The other members are neither expanded nor
             checked.
    fields   says whether an array may have named fields, as a table of numbers has; False unless given.

    A FileError is raised for a file that is broken, for two members of one name, for a name that is not there, and for
    a member that is no plain array: a pickle, a text, or an array shorter or longer than its header promises. Nothing
    is expanded if memory cannot hold all that is read.
    """
    return dict(each_of_npz(path, names, fields))


def each_of_npz(path, names=None, fields=False):
    """Give (name, array) of the arrays that `read_npz` returns, one after the other, as they stand in the file.

    The next array is expanded when it is asked for, so that whoever stops in between does not pay for the rest.
    """
    path = require_file(path)
    with _reading(path, f"{path} is no NumPy file of plain arrays"):
        archive = zipfile.ZipFile(path)
    with archive:
        with _reading(path, f"{path} is no NumPy file of plain arrays"):
            members = _members(archive)
            wanted = list(members if names is None else names)
            together = sum(members[name].file_size for name in wanted if name in members)
            if together > host_memory():
                raise ValueError(f"its arrays have {together:,} bytes, and this machine has {host_memory():,.0f}")
        for name in wanted:
            with _reading(path, f"{path} has no plain array {name!r}"):
                array = _member(archive, members[name], path.stat().st_size, fields)
            yield name, array


def _members(archive):
    """Return what an archive says about its members, by their names without .npy; no two of them may be the same."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise ValueError("two of its members have one name")
    return members


def _member(archive, member, n_bytes, fields):
    """Return the array in one member of an archive, which is a file of n_bytes."""
    if not member.filename.endswith(".npy"):
        raise ValueError("its name does not end in .npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compression {member.compress_type}; expected none or deflate")
    most = n_bytes * (1 if member.compress_type == zipfile.ZIP_STORED else RATIO)
    if member.file_size > most:
        raise ValueError(f"it promises {member.file_size:,} bytes in an archive of {n_bytes:,}")
    with archive.open(member) as file:
        return _array(file, member.file_size, fields)


def _array(file, n_bytes, fields=False):
    """Return the array in an open .npy file of n_bytes; raise a ValueError unless it is one, whole and alone."""
    head = io.BytesIO(file.read(HEADER))  # from a file the parser takes as much memory as a broken header promises
    version = npy.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format; expected (1, 0) or (2, 0), for arrays without fields")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, columns_first, dtype = read_header(head, HEADER)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, that is, a pickle; expected numbers")
    if (dtype.names is not None and not fields) or dtype.subdtype is not None or dtype.itemsize == 0:
        raise ValueError(f"it holds {dtype}; expected plain numbers")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    promised = math.prod(shape) * dtype.itemsize
    held = n_bytes - head.tell()
    if promised != held:
        raise ValueError(f"its header promises {promised:,} bytes, and it holds {held:,}")
    if promised > host_memory():
        raise ValueError(f"it has {promised:,} bytes, and this machine has {host_memory():,.0f}")
    content = np.empty(promised, np.uint8)
    window = memoryview(content)
    begun = len(rest := head.read(promised))
    window[:begun] = rest
    while begun < promised:
        count = file.readinto(window[begun : begun + CHUNK])
        if not count:
            raise ValueError(f"it is cut short: {begun:,} of {promised:,} bytes")
        begun += count
    if head.read(1) or file.read(1):  # for a member of an archive this also compares its checksum
        raise ValueError(f"it goes on behind the {promised:,} bytes that its header promises")
    return np.ndarray(shape, dtype, content, order="F" if columns_first else "C")


def _reason(error):
    """Return what an exception says, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
