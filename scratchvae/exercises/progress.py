"""Keeps a record of what was started and what is solved, in the folder that is open; nothing leaves the machine."""

import json
from pathlib import Path

from scratchvae.files import told
from scratchvae.training.checkpoint import write_atomically

PATH = Path("runs/exercises.json")
STATES = ("started", "solved")  # in this order: what is solved stays so
FORMAT = "scratchvae exercises"


def read(path=PATH):
    """Return a dict from the names of exercises to "started" or "solved"; it is empty if there is no file.

    A file that holds anything else raises a ValueError, which says what to do.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise told(error, f"{path}, the record of exercises, cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _foreign(path, " ".join(str(error).split())) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise _foreign(path, f"its format is not {FORMAT!r}")
    states = record.get("states")
    if not isinstance(states, dict) or not all(state in STATES for state in states.values()):
        raise _foreign(path, f"its states are not all {' or '.join(STATES)}")
    return states


def note(name, state, path=PATH):
    """Write into the file that an exercise is started or solved. What is solved stays so."""
    states = read(path)
    if states.get(name) in (state, "solved"):
        return
    record = {"format": FORMAT, "states": {**states, name: state}}
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, f"{path}, the record of exercises, cannot be written ({error.strerror})") from error
    write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _foreign(path, why):
    return ValueError(
        f"{path} is no record of exercises ({why[:200]}): put it back as it was, or move it away, and a "
        "new one is begun"
    )
