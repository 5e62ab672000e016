"""The parts of benchmarks/device.py on CuPy itself above `nodevice`: python device_on_nodevice.py OUT.json, no test.

All but those that need a kernel's results: tests, gradients and training.
"""

import json
import sys
from pathlib import Path

import nodevice
import numpy as np

PARTS = ("machine", "steps", "tf32", "profile", "others")


def main(path):
    """Make the parts and write down their rows."""
    sys.path[:0] = [str(Path(__file__).parent.parent / "benchmarks")]
    nodevice.install()
    import device_parts

    device_parts.small()
    rows = {name: [] for name in PARTS}
    with np.errstate(all="ignore"):  # a bound of zeros is none
        for name in PARTS:
            device_parts.PARTS[name](device_parts.Setting("tiny", "digits"), rows[name].append)
    Path(path).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
