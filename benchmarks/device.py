"""NumPy against CuPy on this machine, proved, profiled and written up: python benchmarks/device.py --quick.

One command on a machine with an NVIDIA GPU gives the whole answer, in under nine minutes with --quick and in two and
a half hours at most without: what the machine is, the tests that wait for a device, the gradient check on it, the
training job of the README on both backends, a step over minibatches from 20 to 20,000 and widths from 100 to 4,000,
with launches and the device's time apart and with the minibatch from which the device is faster, TF32, other frameworks
on the same device, the step operation by operation beside what the machine allows, and evaluation, importance sampling,
HMC and other models.

    python benchmarks/device.py --quick                      # a first answer
    python benchmarks/device.py                              # all of it; the same command goes on after a break
    python benchmarks/device.py --carried folder             # where nothing can be downloaded: see below
    python benchmarks/device.py --scale tiny --stand-in      # without a device: makes all parts, and no times
    python benchmarks/device.py --compare older/device.json
    python benchmarks/device.py --out benchmarks/results     # and, for the project's own page,
    python benchmarks/run.py --readme-only                   # device.md goes into benchmarks/README.md

device.json holds all rows, device.md is the page, and three pictures stand beside it. Each part runs in a process of
its own with a limit of time. What came before the limit is kept, and what failed says why; the rest goes on.

Nothing is downloaded. What is missing is said beforehand. A folder given by --carried may bring it: wheels of pure
Python (pip download --no-deps -d DIR tqdm pooch platformdirs autograd), other packages in its folder packages/ (pip
install --no-deps --target DIR/packages ...), and in data/ the files of MNIST, as SCRATCHVAE_DATA has them.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from child import Child
from device_needs import carry, data_set, hand_on, require_modules
from device_result import TITLES, Result, older

ROOT = str(Path(__file__).resolve().parent.parent)  # this checkout counts, whether it is installed or not
sys.path[:0] = [ROOT]

LOG = 4000  # characters that are kept of what a part printed that was not done
LIMITS = {  # seconds for each part by scale; together those of "quick" are below nine minutes
    "full": dict.fromkeys(TITLES, 900) | {"machine": 60, "tests": 1500},
    "quick": {
        "machine": 25,
        "launches": 10,
        "tests": 95,
        "gradcheck": 40,
        "steps": 100,
        "job": 50,
        "profile": 30,
        "tf32": 35,
        "others": 45,
        "frameworks": 90,
    },
    "tiny": dict.fromkeys(TITLES, 120),
}


def make(name, result, settings, limit):
    """Make one part in a process of its own, and keep its rows as they come. Returns the part's state.

    The states are "done", "cut off" by the limit of seconds, and "failed". A part that was not done has the end of what
    it printed as "log".
    """
    part = result.part(name)
    words = [sys.executable, __file__, "--serve", name, "--scale", settings.scale, "--out", str(settings.out)]
    environment = os.environ | ({"CUPY_TF32": "1"} if name == "tf32" else {})
    environment |= {"SCRATCHVAE_STAND_IN": "1"} if settings.stand_in else {}
    begun = time.monotonic()
    child = Child(words, environment)
    try:
        state = followed(child, begun + limit, part, result)
        said = child.said()
        why = {"done": "", "cut off": f"its limit is {limit} s", "failed": child.last_words()}[state]
    finally:
        child.end()
    part |= {"state": state, "why": why, "seconds": round(part["seconds"] + time.monotonic() - begun, 1)}
    part["log"] = "" if state == "done" else said[-LOG:]
    result.keep()
    return state


def followed(child, until, part, result):
    """Keep the rows that a part's process says, and return the part's state; `until` is when its time is over."""
    try:
        while (line := child.line(until - time.monotonic())) is not None:
            row = json.loads(line)
            if row.get("end"):
                part["peak_memory_mib"] = row["peak_memory_mib"]
                return "done"
            part["rows"].append(row)
            result.keep()
    except TimeoutError:
        return "cut off"
    except ValueError:  # a line that was cut when the process was killed, as for want of memory
        return "failed"
    return "failed"


def serve(name, settings):
    """Be the process of one part: its rows go to what stdout was, and all that it prints goes to stderr."""
    import device_parts
    import output

    output.stand_in_if_asked()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    content = older(settings.out)
    rows = content["parts"].get(name, {}).get("rows", [])
    there = {row["key"]: row for row in rows}
    device_parts.serve(name, device_parts.Setting(settings.scale, content["data"], content["commit"], there), channel)


def options():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:12}{title}" for name, title in TITLES.items()),
    )
    parser.add_argument("--quick", action="store_true", help="a first answer in under nine minutes: --scale quick")
    parser.add_argument("--scale", choices=LIMITS, help="full (default), quick, or tiny, whose numbers say nothing")
    parser.add_argument("--out", type=Path, help="where the files go (runs/device, with the scale if it is not full)")
    parser.add_argument("--carried", type=Path, metavar="DIR", help="a folder that brings what cannot be downloaded")
    parser.add_argument("--parts", metavar="NAMES", help="some of the parts below, with commas between (all)")
    parser.add_argument("--stand-in", action="store_true", help="the stand-in of the tests: its times say nothing")
    parser.add_argument("--commit", help="the commit of this checkout, where git is not there to tell it")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="set the steps beside those of an older device.json"
    )
    parser.add_argument("--page-only", action="store_true", help="measure nothing, and write the page from device.json")
    parser.add_argument("--serve", choices=TITLES, help=argparse.SUPPRESS)
    return parser


def main():
    """Say what is missing, make the parts, write the page, and return the exit code."""
    parser = options()
    settings = parser.parse_args()
    if settings.quick and settings.scale not in (None, "quick"):
        parser.error(f"--quick is --scale quick, and --scale is {settings.scale}")
    settings.scale = "quick" if settings.quick else settings.scale or "full"
    if settings.out is None:
        words = ["device", *([settings.scale] if settings.scale != "full" else []), *(["stand-in"] * settings.stand_in)]
        settings.out = Path("runs") / "-".join(words)
    try:
        if settings.carried:
            carry(settings.carried)
        if settings.serve:
            return serve(settings.serve, settings)
        hand_on([ROOT])
        require_modules()
        from scratchvae.cli.output import tolerant  # only now: what it needs may have been carried here

        with tolerant():
            return measure(settings)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def measure(settings):
    """Make the parts that are asked for, and write the page.

    Returns 0, or 1 if a part, a test, a gradient or a bound failed, or 130 after Ctrl-C.
    """
    chosen = chosen_parts(settings.parts)
    compared = older(settings.compare) if settings.compare else None
    if settings.page_only:
        return finished(older(settings.out), settings, compared)
    if settings.stand_in:
        os.environ["SCRATCHVAE_STAND_IN"] = "1"
    import output

    from scratchvae import bench
    from scratchvae.training.claim import Claim

    require_device(settings.stand_in)
    told = bench.commit()
    if told and settings.commit:
        raise ValueError(f"--commit is {settings.commit}, and git says that this is {told}: leave it out")
    facts = {
        "scale": settings.scale,
        "stand_in": settings.stand_in,
        "commit": told or settings.commit or "not told",
        "data": data_set(settings.scale),
    }
    with output.stand_in() if settings.stand_in else contextlib.nullcontext():
        facts["device"] = bench.machine(["cupy"])["gpu"]
    claim = Claim(settings.out)
    claim.acquire()  # or one line that says which process is at work there
    try:
        result = Result(settings.out / "device.json", facts)
        result.forget_failed_tests()
        result.keep()
        if settings.stand_in:
            print("on the stand-in: this shows that the parts can be made; its times are none of a device")
        code = make_all(chosen, result, settings)
        return max(code, finished(result.content, settings, compared))
    finally:
        claim.release()


def finished(content, settings, compared):
    """Write the page and print the answer; return 1 if a part, a test, a gradient or a bound failed, or else 0."""
    import device_page

    files = ["device.json", device_page.write(content, settings.out)]
    print(device_page.answer(content))
    files += device_page.draw(content, settings.out)
    if compared is not None:
        print(device_page.comparison(content, compared))
    print(f"wrote {settings.out}/: {', '.join(files)}")
    states = {part["state"] for part in content["parts"].values()}
    return int(not states <= {"done"} or bool(device_page.failures(content)))


def make_all(chosen, result, settings):
    """Make the parts one after the other, unless they are done, and return the exit code."""
    code = 0
    for number, name in enumerate(chosen, start=1):
        limit = LIMITS[settings.scale][name]
        part = result.part(name)
        head = f"{number}/{len(chosen)} {TITLES[name]}"
        if part["state"] == "done":
            print(f"{head}: there already, rows: {len(part['rows'])}")
            continue
        try:
            print(f"{head}, at most {limit} s ...", flush=True)
            state = make(name, result, settings, limit)
        except KeyboardInterrupt:
            state = "interrupted"
            part |= {"state": state, "why": "by Ctrl-C or a signal"}
            result.keep()
        why = "" if state == "done" else f": {part['why']}; the same command goes on with it"
        print(f"    {state} after {part['seconds']:.0f} s, rows: {len(part['rows'])}{why}", flush=True)
        code = max(code, state != "done")
        if state == "interrupted":
            return 130
    return int(code)


def chosen_parts(text):
    """Return the names in the option --parts, each once; None stands for all of them."""
    names = list(TITLES) if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in TITLES]:
        raise ValueError(f"--parts has {', '.join(map(repr, unknown))}; expected some of {', '.join(TITLES)}")
    return names


def require_device(stand_in):
    """Raise a ValueError that says in one line what CuPy lacks: itself, the driver, a device or its libraries."""
    from scratchvae.backend import array_module

    try:
        if not stand_in:
            array_module("cupy")
    except ValueError as error:
        text = str(error).removesuffix("; or take backend 'numpy'")
        raise ValueError(f"{text}; --scale tiny --stand-in makes all parts without it") from None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
