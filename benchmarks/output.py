"""What the benchmarks share: the folder for their numbers, tried before any measuring, and how they get there."""

import json
import tempfile

from scratchvae.training.checkpoint import write_atomically


def prepare(parser, folder):
    """Make the folder and try whether it takes a file; if not, `parser` says so in one line and ends the program."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"nothing can be written to {folder} ({error.strerror}): choose another folder")


def write(path, result):
    """Write what was measured as JSON, so that older numbers stay whole where the disk has no room."""
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")
