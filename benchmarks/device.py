"""NumPy against CuPy on this machine, proved, profiled and written up: python benchmarks/device.py --quick.

One command on a machine with an NVIDIA GPU gives the whole answer, in under nine minutes with --quick and in about an
hour without: what the machine is, the tests that wait for a device, the gradient check on it, the training job of the
README on both backends, a step over minibatches from 20 to 20,000 and widths from 100 to 4,000, with launches and the
device's time apart and with the minibatch from which the device is faster, TF32, other frameworks on the same device,
the step operation by operation beside what the machine allows, and evaluation, importance sampling, HMC and other
models.

    python benchmarks/device.py --quick                      # a first answer
    python benchmarks/device.py --out runs/device            # all of it; the same command goes on after a break
    python benchmarks/device.py --carried folder             # where nothing can be downloaded: see below
    python benchmarks/device.py --scale tiny --stand-in      # without a device: shows that every line runs, no times
    python benchmarks/device.py --out runs/device --compare older/device.json

device.json holds all rows, device.md is the page, and three pictures stand beside it. Each part runs in a process of
its own with a limit of time. What came before the limit is kept, and what failed says why; the rest goes on.
device.log has what the parts printed that did not come to their end.

Nothing is downloaded. What is missing is said beforehand. A folder given by --carried may bring it: wheels of pure
Python (*.whl: tqdm, pooch, platformdirs, autograd, threadpoolctl), a folder packages/ as pip install --target makes it,
and a folder data/ with the files of MNIST, as SCRATCHVAE_DATA has them.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = str(HERE.parent)  # the checkout that this file belongs to counts, whether it is installed or not
sys.path[:0] = [ROOT]

FORMAT = 1  # of device.json
TITLES = {  # the parts in the order in which they are made
    "machine": "what the machine is",
    "launches": "launches of a step, counted on the stand-in",
    "tests": "the tests that wait for a device",
    "gradcheck": "the gradient check on the device",
    "steps": "a step over minibatches and widths",
    "job": "the training job of the README",
    "profile": "the step operation by operation",
    "frameworks": "other frameworks on the device",
    "tf32": "the step with products in TF32",
    "others": "evaluation, sampling and other models",
}
LIMITS = {  # seconds for each part by scale; together those of "quick" are below nine minutes
    "full": dict.fromkeys(TITLES, 900) | {"machine": 60, "tests": 1500},
    "quick": {
        "machine": 20,
        "launches": 20,
        "tests": 90,
        "gradcheck": 50,
        "steps": 100,
        "job": 60,
        "profile": 40,
        "frameworks": 70,
        "tf32": 25,
        "others": 45,
    },
    "tiny": dict.fromkeys(TITLES, 120),
}
NEEDED = {  # what is looked for beforehand: (what for, whether nothing goes without it)
    "cupy": ("everything on the device", True),
    "tqdm": ("the package itself", True),
    "threadpoolctl": ("the package itself", True),
    "matplotlib": ("the pictures", False),
    "pytest": ("the tests", False),
    "autograd": ("the oracle in tests and the gradient check", False),
    "sklearn": ("the digits, where MNIST is not there", False),
    "pooch": ("downloads, of which there are none here", False),
    "torch": ("PyTorch beside us", False),
    "jax": ("JAX beside us", False),
}


def found(name):
    """Say whether a module can be imported; one of the stand-in counts."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def hand_on(paths):
    """Put these folders and wheels first on the path of all processes that this one starts."""
    old = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *old])


def carry(folder):
    """Put what a folder brings on the path of this process and of all that it starts."""
    if not folder.is_dir():
        raise ValueError(f"--carried {folder} is no folder; expected one with wheels, packages/ or data/")
    brought = [*sorted(folder.glob("*.whl")), *([folder / "packages"] if (folder / "packages").is_dir() else [])]
    paths = [str(path.resolve()) for path in brought]
    sys.path[1:1] = paths
    hand_on(paths)
    if (folder / "data").is_dir():
        os.environ["SCRATCHVAE_DATA"] = str((folder / "data").resolve())
    if not brought and not (folder / "data").is_dir():
        raise ValueError(f"--carried {folder} has no wheels, no packages/ and no data/")


def data_set(scale):
    """Return the data set of the training job: MNIST where it is, and otherwise, and at the tiny scale, the digits."""
    from scratchvae import load_data

    if scale == "tiny":
        return "digits"
    folder = os.environ.get("SCRATCHVAE_DATA")
    places = [Path(folder), Path(folder) / "mnist"] if folder else []
    there = any(list(place.glob("train-images-idx3-ubyte*")) for place in places if place.is_dir())
    return "mnist" if there and len(load_data("mnist").train) else "digits"


# One result, which grows


class Result:
    """What is in device.json. It is written anew after each row that matters, and goes on where it was left.

    path    is the file.
    facts   are those that must be the same for old rows to count: scale, stand_in, commit and so on.
    """

    def __init__(self, path, facts):
        self.path = path
        self.content = {"format": FORMAT, **facts, "parts": {}}
        if path.exists():
            self.content = older(path)
            differ = {name for name in facts if self.content.get(name) != facts[name]}
            if differ:
                told = "; ".join(f"{name} {self.content.get(name)!r}, now {facts[name]!r}" for name in sorted(differ))
                raise ValueError(f"{path} was begun with other facts ({told}): choose another folder with --out")

    def part(self, name):
        """Return what is there of a part."""
        return self.content["parts"].setdefault(name, {"state": "new", "seconds": 0.0, "rows": []})

    def keep(self):
        """Write the file, whole or not at all."""
        from scratchvae.training.checkpoint import write_atomically

        write_atomically(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


def older(path):
    """Return the content of a device.json; what is none, and another format, raise a ValueError."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        number = content["format"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a device.json") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is no device.json of this benchmark ({type(error).__name__}: {error})") from None
    if number != FORMAT:
        raise ValueError(f"{path} has format {number!r} and this benchmark reads {FORMAT}: measure again")
    if not isinstance(content.get("parts"), dict):
        raise ValueError(f"{path} is no device.json of this benchmark (it has no parts)")
    return content


def make(name, result, settings, limit):
    """Make one part in a process of its own, and keep its rows as they come. Returns the part's state.

    The states are "done", "cut off" by the limit of seconds, and "failed".
    """
    part = result.part(name)
    words = [sys.executable, __file__, "--serve", name, "--scale", settings.scale, "--out", str(settings.out)]
    environment = os.environ | ({"CUPY_TF32": "1"} if name == "tf32" else {})
    environment |= {"SCRATCHVAE_STAND_IN": "1"} if settings.stand_in else {}
    begun = time.monotonic()
    state = "failed"
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            with reading(words, environment, log) as lines:
                while (line := lines.get(timeout=max(begun + limit - time.monotonic(), 0.0))) is not None:
                    row = json.loads(line)
                    if row.get("end"):
                        state = "done"
                        part["peak_memory_mib"] = row["peak_memory_mib"]
                    else:
                        part["rows"].append(row)
                        result.keep()
        except queue.Empty:
            state = "cut off"
        log.seek(0)
        said = log.read().strip()
    why = {"done": "", "cut off": f"its limit is {limit} s", "failed": last_line(said)}[state]
    part |= {"state": state, "why": why, "seconds": round(part["seconds"] + time.monotonic() - begun, 1)}
    result.keep()
    if state != "done":
        with open(settings.out / "device.log", "a", encoding="utf-8") as file:
            file.write(f"== {name}: {state}\n{said}\n\n")
    return state


@contextlib.contextmanager
def reading(words, environment, log):
    """Start a process and give a queue of the lines that it writes, which None ends. It does not outlive this."""
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
    )
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has started ends with it
        process.wait()
        reader.join()
        process.stdout.close()


def last_line(text):
    """Return the last line of a text."""
    return text.splitlines()[-1][:300] if text else "it broke off and said nothing"


def serve(name, settings):
    """Be the process of one part: its rows go to what stdout was, and all that it prints goes to stderr."""
    import device_parts
    import output

    output.stand_in_if_asked()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    path = settings.out / "device.json"
    content = older(path) if path.exists() else {"parts": {}, "data": "digits"}
    rows = content["parts"].get(name, {}).get("rows", [])
    setting = device_parts.Setting(settings.scale, content["data"], frozenset(row["key"] for row in rows))
    device_parts.serve(name, setting, channel)


def main():
    """Say what is missing, make the parts, write the page, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a first answer in under nine minutes: --scale quick")
    parser.add_argument("--scale", choices=LIMITS, default=None, help="full (default), quick or tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/device"), help="where the files go (runs/device)")
    parser.add_argument("--carried", type=Path, metavar="DIR", help="a folder that brings what cannot be downloaded")
    parser.add_argument("--parts", metavar="NAMES", help=f"some of {','.join(TITLES)} (all)")
    parser.add_argument(
        "--stand-in", action="store_true", help="the tests' stand-in in CuPy's place: its times say nothing"
    )
    parser.add_argument("--commit", help="the commit of this checkout, where git is not there to tell it")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an older device.json to set beside this one")
    parser.add_argument("--serve", choices=TITLES, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.quick and settings.scale not in (None, "quick"):
        parser.error(f"--quick is --scale quick, and --scale is {settings.scale}")
    settings.scale = "quick" if settings.quick else settings.scale or "full"
    try:
        if settings.carried:
            carry(settings.carried)
        if settings.serve:
            return serve(settings.serve, settings)
        hand_on([ROOT])
        require_modules(settings.stand_in)
        from scratchvae.cli.output import tolerant  # only now: it may have been carried here

        with tolerant():
            return measure(settings)
    except ValueError as error:
        parser.error(str(error))


def require_modules(stand_in):
    """Print which modules are missing; raise a ValueError if nothing goes without them."""
    lacking = [(name, *why) for name, why in NEEDED.items() if not (found(name) or (name == "cupy" and stand_in))]
    for name, why, fatal in lacking:
        print(f"missing: {name}, for {why}{'' if fatal else '; the rest goes on without it'}")
    if names := [name for name, _, fatal in lacking if fatal]:
        raise ValueError(
            f"{' and '.join(names)} cannot be imported: install the package (see the README), or bring wheels in a "
            "folder with --carried"
        )


def measure(settings):
    """Make the parts that are asked for, and write the page. Returns 0, or 1 if a part failed, or 130 after Ctrl-C."""
    chosen = settings.parts.split(",") if settings.parts else list(TITLES)
    if unknown := [name for name in chosen if name not in TITLES]:
        raise ValueError(f"--parts has {', '.join(unknown)}; expected some of {', '.join(TITLES)}")
    compared = older(settings.compare) if settings.compare else None
    if settings.stand_in:
        os.environ["SCRATCHVAE_STAND_IN"] = "1"
    import device_page
    import output

    from scratchvae import bench
    from scratchvae.backend import array_module

    if not settings.stand_in:
        array_module("cupy")  # or one line that says what is missing: the driver, the device, the toolkit's libraries
    settings.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "scale": settings.scale,
        "stand_in": settings.stand_in,
        "commit": settings.commit or bench.commit(),
        "data": data_set(settings.scale),
    }
    with output.stand_in() if settings.stand_in else contextlib.nullcontext():
        facts["device"] = bench.machine(["cupy"])["gpu"]
    result = Result(settings.out / "device.json", facts)
    result.keep()
    if facts["data"] != "mnist" and settings.scale != "tiny":
        print("missing: MNIST (SCRATCHVAE_DATA, or data/ in --carried); the training job takes the digits")
    if settings.stand_in:
        print("on the stand-in: this shows that every line runs; its times are none of a device")
    code = 0
    for number, name in enumerate(chosen, start=1):
        limit = LIMITS[settings.scale][name]
        head = f"{number}/{len(chosen)} {TITLES[name]}"
        if result.part(name)["state"] == "done":
            print(f"{head}: there already, {len(result.part(name)['rows'])} rows")
            continue
        part = result.part(name)
        try:
            print(f"{head}, at most {limit} s ...", flush=True)
            state = make(name, result, settings, limit)
        except KeyboardInterrupt:
            state = part["state"] = "interrupted"
            part["why"] = "by Ctrl-C"
            result.keep()
        told = {"done": "", "interrupted": "; the same command goes on"}.get(state, f": {part['why']}")
        print(f"    {state} after {part['seconds']:.0f} s, {len(part['rows'])} rows{told}", flush=True)
        code = max(code, state == "failed")
        if state == "interrupted":
            code = 130
            break
    files = device_page.write(result.content, settings.out)
    print(device_page.answer(result.content))
    if compared is not None:
        print(device_page.comparison(result.content, compared))
    print(f"wrote {settings.out}/: {', '.join(files)}")
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
