"""What benchmarks/device.py needs on a machine, and how a folder brings it where nothing can be downloaded."""

import importlib.util
import os
import sys
import zipfile
from pathlib import Path

NEEDED = {  # what is looked for beforehand: (what for, whether nothing goes without it)
    "numpy": ("the package itself", True),
    "matplotlib": ("the package itself", True),
    "threadpoolctl": ("the package itself", True),
    "tqdm": ("the package itself", True),
    "pytest": ("the tests that wait for a device", False),
    "pooch": ("these tests", False),
    "platformdirs": ("pooch, and so these tests", False),
    "autograd": ("the oracle of the tests and of the gradient check", False),
    "sklearn": ("the digits, where MNIST is not there", False),
    "torch": ("PyTorch beside us (pip install torch)", False),
    "jax": ('JAX beside us (pip install "jax[cuda13]")', False),
}


def require_modules():
    """Print which modules are missing; raise a ValueError if nothing goes without them."""
    lacking = [(name, *why) for name, why in NEEDED.items() if not found(name)]
    for name, why, fatal in lacking:
        print(f"missing: {name}, for {why}{'' if fatal else '; the rest goes on without it'}")
    if names := [name for name, _, fatal in lacking if fatal]:
        raise ValueError(
            f"{' and '.join(names)} cannot be imported: install the package (see the README), or bring what is missing "
            "in a folder with --carried"
        )


def found(name):
    """Say whether a module can be imported."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def hand_on(paths):
    """Put these folders and wheels first on the path of all processes that this one starts."""
    old = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *old])


def carry(folder):
    """Put what a folder brings on the path of this process and of all that it starts.

    A folder without anything of the kind, a wheel that is damaged, and one with compiled code, which cannot be imported
    from the wheel itself, raise a ValueError.
    """
    if not folder.is_dir():
        raise ValueError(f"--carried {folder} is no folder; expected one with wheels, packages/ or data/")
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        if not wheel.name.endswith("-none-any.whl"):
            raise ValueError(
                f"{wheel} has compiled code; expected wheels of pure Python: unpack it by pip install --no-deps "
                f"--target {folder / 'packages'} {wheel}, and move it away"
            )
        if not zipfile.is_zipfile(wheel):
            raise ValueError(f"{wheel} is no wheel, or a damaged one: download it again")
    packages = [folder / "packages"] if (folder / "packages").is_dir() else []
    data = folder / "data"
    if not wheels and not packages and not data.is_dir():
        raise ValueError(f"--carried {folder} has no wheels, no packages/ and no data/")
    if packages and (packages[0] / "numpy").is_dir():
        raise ValueError(
            f"{packages[0]} has a numpy of its own, which hides this machine's: pip install --no-deps --target"
        )
    paths = [str(path.resolve()) for path in (*wheels, *packages)]
    sys.path[1:1] = paths
    hand_on(paths)
    if data.is_dir():
        os.environ["SCRATCHVAE_DATA"] = str(data.resolve())


def data_set(scale):
    """Return the data set of the training job: MNIST where it is, and otherwise, and at the tiny scale, the digits."""
    from scratchvae import load_data

    if scale == "tiny":
        return "digits"
    folder = os.environ.get("SCRATCHVAE_DATA")
    places = [Path(folder), Path(folder) / "mnist"] if folder else []
    there = any(list(place.glob("train-images-idx3-ubyte*")) for place in places if place.is_dir())
    if there and len(load_data("mnist").train):
        return "mnist"
    print("missing: MNIST (SCRATCHVAE_DATA, or data/ in --carried); the training job takes the digits")
    return "digits"
