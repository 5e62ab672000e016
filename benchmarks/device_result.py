"""The file device.json, in which benchmarks/device.py keeps what it has measured, and goes on."""

import json
from pathlib import Path

FORMAT = 1  # of the file
TITLES = {  # the parts in the order in which they are made
    "machine": "what the machine is",
    "launches": "launches of a step, counted on the stand-in",
    "tests": "the tests that wait for a device",
    "gradcheck": "the gradient check on the device",
    "steps": "a step over minibatches and widths",
    "job": "the training job of the README",
    "profile": "the step operation by operation",
    "tf32": "the step with products in TF32",
    "others": "evaluation, sampling and other models",
    "frameworks": "other frameworks on the device",
}


class Result:
    """What is in device.json. It is written anew after each row, and goes on where it was left.

    path    is the file.
    facts   are those that must be the same for old rows to count: scale, stand_in, commit, data and device. Where they
            are not, a ValueError says which differ.
    """

    def __init__(self, path, facts):
        self.path = path
        self.content = {"format": FORMAT, **facts, "parts": {}}
        if path.exists():
            self.content = older(path)
            differ = {name for name in facts if self.content.get(name) != facts[name]}
            if differ:
                told = "; ".join(f"{name} {self.content.get(name)!r}, now {facts[name]!r}" for name in sorted(differ))
                raise ValueError(
                    f"{path} was begun with other facts ({told}): choose another folder with --out, or remove the file"
                )

    def part(self, name):
        """Return what is there of a part."""
        return self.content["parts"].setdefault(name, {"state": "new", "why": "", "seconds": 0.0, "rows": []})

    def forget_failed_tests(self):
        """Take out the tests that did not pass, so that the same command makes them again."""
        part = self.content["parts"].get("tests", {"rows": []})
        kept = [row for row in part["rows"] if row.get("outcome") != "failed"]
        if len(kept) < len(part["rows"]):
            part |= {"rows": kept, "state": "new"}

    def keep(self):
        """Write the file, whole or not at all."""
        from scratchvae.training.checkpoint import write_atomically

        write_atomically(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


def older(path):
    """Return the content of a device.json, or of the one in a folder.

    What is none, what was changed by hand so that it is none any more, and another format raise a ValueError.
    """
    path = Path(path)
    path = path / "device.json" if path.is_dir() else path
    none = f"{path} is no device.json of this benchmark"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = content["format"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a device.json") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{none} ({type(error).__name__}: {error})") from None
    if number != FORMAT:
        raise ValueError(f"{path} has format {number!r} and this benchmark reads {FORMAT}: measure again")
    if not isinstance(content.get("parts"), dict):
        raise ValueError(f"{none} (it has no parts)")
    for name, part in content["parts"].items():
        kinds = {"state": str, "why": str, "seconds": int | float, "rows": list}
        known = isinstance(part, dict) and all(isinstance(part.get(key), kind) for key, kind in kinds.items())
        if not known or not all(isinstance(row, dict) and isinstance(row.get("key"), str) for row in part["rows"]):
            raise ValueError(f"{none} (its part {name!r} is not as it was written)")
    return content
