"""What the times of a benchmark depend on beside the code: the machine, its libraries and their threads, the commit."""

import contextlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np

from scratchvae import __version__
from scratchvae.backend import array_module, cores


def machine(backends=("numpy",)):
    """Return what the times depend on, as a dict: processors, BLAS and threads, device, driver, versions, commit."""
    from threadpoolctl import threadpool_info

    facts = {
        "cpu": _cpu(),
        "cores": cores(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in sorted(threadpool_info(), key=lambda pool: str(pool.get("version")))
        ],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scratchvae": __version__,
        "commit": commit(),
        "load": load(),
    }
    if "cupy" in backends:
        cupy = array_module("cupy")
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        facts |= {
            "gpu": properties["name"].decode(),
            "gpu_memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "cuda": cupy.cuda.runtime.runtimeGetVersion(),
            "cupy": cupy.__version__,
            "tf32": os.environ.get("CUPY_TF32", "0") == "1",
        }
    return facts


def load():
    """Return how many programs have been at work in the last minute, on average; 0 where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def describe(machine):
    """Return what `machine` returned as one line of text."""
    text = f"{machine['cpu']}, {machine['cores']} cores"
    for pool in machine["blas"]:
        text += (
            f", {pool['internal_api']} {pool['version']} ({pool['architecture']}) with {pool['num_threads']} threads"
        )
    text += f", NumPy {machine['numpy']}, commit {machine['commit']}"
    if "gpu" in machine:
        text += (
            f"; {machine['gpu']}, {machine['gpu_memory_gib']} GiB, driver {machine['driver']}, CUDA {machine['cuda']}"
        )
        text += f", CuPy {machine['cupy']}, TF32 {'on' if machine['tf32'] else 'off'}"
    return text


def _cpu():
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """Return the commit of the checkout in which this file lies, with a + if its Python files were changed.

    Outside a checkout, and without git, that is an empty text.
    """
    if shutil.which("git") is None:
        return ""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


@contextlib.contextmanager
def blas_limited(threads):
    """Let BLAS take so many threads inside; with None it keeps those that it has."""
    from threadpoolctl import threadpool_limits

    with contextlib.nullcontext() if threads is None else threadpool_limits(threads, "blas"):
        yield
