"""Checkpoints: one npz file without pickle, which is replaced atomically and checked by a SHA-256 when it is read.

A checkpoint consists of a dict of arrays and a dict of facts about them, which are written as JSON. Beside the arrays
the file holds one text entry, `manifest`. It has the number of the format, the facts, and the name, shape and dtype of
every array; its last field is a SHA-256 over the rest of the manifest and the bytes of all arrays. A file that was cut
short, edited or exchanged is refused with a CheckpointError.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from scratchvae.files import FileError, each_of_npz, names_in, told

FORMAT = 1


class CheckpointError(ValueError):
    """Is raised for a checkpoint that cannot be used, or that does not belong to the run that asks for it."""


class DamagedError(CheckpointError):
    """Is raised for a file whose content is not that of a checkpoint that `save` has written, or no longer."""


def save(path, arrays, facts):
    """Write a checkpoint to `path`, and keep the one that was there before as <name>.previous.npz.

    The new file is written beside the old one, flushed to the disk, and renamed over it. So `path` is a whole
    checkpoint at every moment, and a write that fails changes nothing.

    path     is where the checkpoint goes, a name that ends in .npz.
    arrays   is a dict of NumPy arrays.
    facts    is a dict that can be written as JSON.
    """
    path = Path(path)
    manifest = {
        "format": FORMAT,
        "facts": facts,
        "arrays": {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()},
    }
    manifest["sha256"] = _digest(manifest, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, manifest=np.array(json.dumps(manifest)), **arrays)
    write_atomically(path, buffer.getbuffer(), previous=previous_of(path))


def load(path):
    """Return the arrays and the facts of the checkpoint at `path`.

    If it is not there, or another version of scratchvae wrote it, a CheckpointError says so, and what to do. If it was
    changed since `save`, a DamagedError is raised, and an OSError or MemoryError if it cannot be read at this moment.
    The manifest stands first in the file, and nothing is read behind an array that it does not list.
    """
    path = Path(path)
    if not is_there(path):
        raise CheckpointError(f"{path} is not there{_way_out(path, 'expected the checkpoint of a run')}")
    try:
        if (first := names_in(path)[:1]) != ["manifest"]:
            raise ValueError(f"it begins with {', '.join(first) or 'nothing'}")
        with contextlib.closing(each_of_npz(path, fields=True)) as stored:
            manifest = json.loads(str(next(stored)[1]))
            number = manifest["format"]
            if number != FORMAT:
                raise CheckpointError(
                    f"{path} has format {number}; this version of scratchvae reads {FORMAT}: update scratchvae"
                )
            facts = dict(manifest["facts"])
            listed = dict(manifest["arrays"])
            arrays, odd = _listed(stored, listed)
    except CheckpointError:
        raise
    except FileError as error:
        raise _damaged(path, f"is damaged or no checkpoint: it {str(error).removeprefix(f'{path} ')}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"is no checkpoint: it has no such manifest ({type(error).__name__}: {error})") from None
    if odd:
        raise _damaged(path, f"does not hold the arrays that its manifest lists: {', '.join(odd)}")
    if manifest.pop("sha256", None) != _digest(manifest, arrays):
        raise _damaged(path, "was changed after it was written (its SHA-256 does not match)")
    return arrays, facts


def _listed(stored, listed):
    """Return the arrays that `stored` gives by name, and the names of those that are not as the manifest lists them.

    The first such array ends the reading.
    """
    arrays = {}
    for name, array in stored:
        if listed.get(name) != [list(array.shape), str(array.dtype)]:
            return {}, [name]
        arrays[name] = array
    return arrays, sorted(listed.keys() - arrays.keys())


def is_there(path):
    """Say whether there is a file at `path`; where that cannot be seen, an OSError names it and says why."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise told(error, f"{path} cannot be looked at ({error.strerror})") from error
    return True


def previous_of(path):
    """Return the path at which `save` keeps the checkpoint that `path` held before."""
    return Path(path).with_suffix(".previous.npz")


def write_atomically(path, content, previous=None):
    """Write bytes to `path` so that a reader, or a crash, meets the old file or the new one and nothing in between.

    previous is the path at which to keep the old file; None, as unless given, does not keep it. If the file cannot be
    written, an OSError says how much was needed, how much the disk has left, and what is safe.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        raise _not_written(path, len(content), error) from error
    except BaseException:
        _remove(temporary)
        raise


def sweep(folder, names):
    """Remove what killed processes have left in `folder`: the temporary files of the files called `names`.

    The folder must be this process's alone (see `training.claim`), so that none of them is still being written.
    """
    for name in names:
        for temporary in Path(folder).glob(f"{name}.{'[0-9a-f]' * 16}.tmp"):
            _remove(temporary)


def _beside(path):
    """Return the path of a temporary file beside `path` that no other process and no other host comes by."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def _remove(temporary):
    """Remove a temporary file; where that fails, the next start removes it."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return


def _keep(path, previous):
    """Give the file at `path` a second name, `previous`, in place of what was there."""
    spare = _beside(previous)
    try:
        try:
            os.link(path, spare)
        except OSError:  # this file system has no hard links
            shutil.copyfile(path, spare)
        os.replace(spare, previous)
    finally:
        _remove(spare)  # it is still there if `previous` was another name of the same file: then nothing is renamed


def _not_written(path, size, error):
    """Return the OSError that says that `size` bytes could not be written to `path`, and what is safe."""
    reason = error.strerror or str(error)
    try:
        left = f" and {_in_units(shutil.disk_usage(path.parent).free)} are free"
    except OSError:
        left = ""
    if error.errno == errno.EFBIG:
        left = ", more than a file may have here (ulimit -f, or the file system)"
    try:
        safe = "the file that was there before is whole" if path.exists() else "nothing was there before"
    except OSError:
        safe = "what was there before was not touched"
    return told(error, f"{path} could not be written ({reason}): it takes {_in_units(size)}{left}; {safe}")


def _in_units(n):
    """Return a number of bytes as text."""
    return f"{n:,} bytes" if n < 10_000 else f"{n / 1024:,.0f} KiB" if n < 10 << 20 else f"{n / (1 << 20):,.0f} MiB"


def _digest(manifest, arrays):
    """Return the SHA-256 of a manifest that has none yet and of the bytes of all arrays, as text."""
    sha = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(arrays):
        sha.update(name.encode())
        sha.update(arrays[name].tobytes())
    return sha.hexdigest()


def _damaged(path, what):
    """Return the error that says what is wrong with `path`, and what to do."""
    anew = "the run must begin anew, as it can in the same folder (--out, out)"
    return DamagedError(f"{path} {what}{_way_out(path, f'there is none before it that is whole, and {anew}')}")


def _way_out(path, otherwise):
    """Return the end of a message on a checkpoint of no use: it names the one before it, or else says `otherwise`."""
    previous = previous_of(path)
    if not previous.exists():
        return f"; {otherwise}"
    try:
        load(previous)
    except DamagedError:
        return f"; {otherwise}"
    except (OSError, MemoryError):  # it may be whole
        pass
    return f"; the one before it is {previous.name}: rename it to go on from there"
