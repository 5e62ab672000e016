"""What a run survives: failing writes, kills, signals, broken files. python tests/faults/soak.py --minutes 10

Each part counts what it tried and what went wrong, and the program prints a table and ends with exit code 1 if anything
did. The test-suite runs the same parts on a small scale (tests/test_faults.py).

    writes     every write, flush, sync, rename, link and removal in a run folder fails in turn, once and from then on
    kills      SIGKILL at random moments of a run
    signals    two signals, of one kind or of both, at random moments
    encodings  seven encodings of the terminal, five commands
    files      mutated checkpoints, facts in them, config.json and metrics.csv
    data       mutated .npy, .npz, files of MNIST and Frey Face, and images in eight formats

Processes are forked, so it runs where POSIX is.
"""

import argparse
import builtins
import contextlib
import errno
import importlib
import io
import json
import math
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from scratchvae import VAE, Adagrad, fit, load_data, load_model
from scratchvae.cli.shared import model_of, run_options
from scratchvae.data.images import MOST_PIXELS
from scratchvae.data.named import MNIST_FILES
from scratchvae.training import run as run_module
from scratchvae.training.checkpoint import load, save
from scratchvae.training.run import read_history

X = np.random.default_rng(0).random((40, 6))
SETTINGS = {"batch_size": 10, "log_every": 20, "optimizer": Adagrad(0.1), "options": {"data": "x"}}
SAMPLES = 200  # of a run: ten rows of the history, and so eleven checkpoints and the last
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR)
FLOOR = 4 << 20  # bytes that a read may take beside three times its input; of whole files they are 0.1 MiB
WILD = 1 << 30  # more bytes than any read may ask for: these it is not given
ENCODINGS = ("ascii", "latin-1", "cp437", "cp850", "cp932", "gbk", "koi8-r")


def train(folder, resume=False, samples=SAMPLES):
    """Train a small model in a run folder, and return it."""
    model = VAE(6, 5, 2, seed=3)
    fit(model, X, samples=samples, out=folder, resume=resume, **SETTINGS)
    return model


def unbroken():
    """Return the parameters at the end of a run that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        return train(folder).params.value


def recover(folder, expected):
    """Go on in a folder after a fault, as a user would, and return what is wrong: "" for nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a run is complete
            try:
                model = train(folder, resume=True)
            except ValueError as resumed:
                try:
                    model = train(folder)
                except ValueError as begun:
                    return f"dead end: {resumed}; {begun}"
    except Exception as error:
        return f"untyped: {error!r}"
    if not np.array_equal(model.params.value, expected):
        return "other parameters at the end than without a fault"
    left = [path.name for path in Path(folder).iterdir() if path.name.endswith(".tmp") or path.name == "claim.json"]
    return f"left behind: {', '.join(left)}" if left else ""


# Failing writes


class Faults:
    """Inside `with`, operation number `place` on files below `folder` fails with `number`, or all from there on."""

    def __init__(self, folder, place, number, for_good):
        self.folder = str(folder)
        self.place = place
        self.number = number
        self.for_good = for_good
        self.count = 0

    def _step(self, *names):
        if any(str(name).startswith(self.folder) for name in names):
            self.count += 1
            if self.count == self.place or (self.for_good and self.count > self.place):
                raise OSError(self.number, os.strerror(self.number))

    def __enter__(self):
        self.before = {name: getattr(os, name) for name in ("fsync", "replace", "link", "utime", "unlink", "mkdir")}

        def failing(name):
            def call(*arguments, **settings):
                self._step(*([f"{self.folder}/"] if name == "fsync" else arguments))
                return self.before[name](*arguments, **settings)

            return call

        for name in self.before:
            setattr(os, name, failing(name))
        self.opened = builtins.open
        faults = self

        class File:
            """A file whose writes may fail."""

            def __init__(self, file, name):
                self.file = file
                self.name = name

            def write(self, content):
                faults._step(self.name)
                return self.file.write(content)

            def flush(self):
                faults._step(self.name)
                return self.file.flush()

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def __getattr__(self, name):
                return getattr(self.file, name)

        def opening(path, mode="r", *arguments, **settings):
            if "r" in mode:
                return self.opened(path, mode, *arguments, **settings)
            self._step(path)
            return File(self.opened(path, mode, *arguments, **settings), str(path))

        builtins.open = opening
        return self

    def __exit__(self, *_):
        builtins.open = self.opened
        for name, call in self.before.items():
            setattr(os, name, call)


def writes(until, expected, places=None):
    """Let every operation of a run fail in turn. `places` limits which ones; None takes all."""
    tried = 0
    wrong = []
    with tempfile.TemporaryDirectory() as home:
        with Faults(home, 0, 0, False) as counted:
            train(Path(home) / "whole")
        for place in range(1, counted.count + 1) if places is None else places(counted.count):
            for number in ERRORS:
                for for_good in (False, True):
                    if time.monotonic() > until:
                        return tried, wrong
                    folder = Path(home) / "run"
                    shutil.rmtree(folder, ignore_errors=True)
                    tried += 1
                    try:
                        with Faults(folder, place, number, for_good):
                            train(folder)
                    except OSError as error:
                        if str(folder) not in str(error):
                            wrong.append(f"operation {place}: the error names no file: {error}")
                    except Exception as error:
                        wrong.append(f"operation {place}, {errno.errorcode[number]}: untyped {error!r}")
                    if fault := recover(folder, expected):
                        wrong.append(f"operation {place}, {errno.errorcode[number]}: {fault}")
    return tried, wrong


# Kills and signals


def child_of(folder, kept):
    """Fork a process that trains in `folder`, and notes in the shared `kept` the step of each whole checkpoint."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        save = run_module.save

        def noted(path, arrays, facts):
            save(path, arrays, facts)
            kept[:8] = struct.pack("q", facts["progress"]["step"])

        run_module.save = noted
        sys.stderr = io.StringIO()
        train(folder, samples=10**9)
        code = 0
    os._exit(code)


def kills(until, expected, count=1000, seed=0):
    """Kill runs at random moments, and go on with each."""
    generator = np.random.default_rng(seed)
    tried = 0
    wrong = []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(count):
            if time.monotonic() > until:
                break
            folder = Path(home) / "run"
            shutil.rmtree(folder, ignore_errors=True)
            kept = mmap.mmap(-1, 8)
            kept[:8] = struct.pack("q", -1)
            pid = child_of(folder, kept)
            time.sleep(generator.uniform(0, 0.06))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            tried += 1
            (last,) = struct.unpack("q", kept[:8])
            found = -1
            if (folder / "checkpoint.npz").exists():
                found = load(folder / "checkpoint.npz")[1]["progress"]["step"]
            if found < last:
                wrong.append(f"kill {tried}: a checkpoint of step {last} was written, and step {found} is there")
            if found * 10 <= SAMPLES:
                if fault := recover(folder, expected):
                    wrong.append(f"kill {tried}, at step {found}: {fault}")
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    train(folder, resume=True)  # it is complete: nothing but the folder is to be seen to
                if left := [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]:
                    wrong.append(f"kill {tried}: left behind {left}")
    return tried, wrong


TWICE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell begins without it
sys.path[:0] = {path!r}
from scratchvae.cli import program
print("ready", flush=True)
sys.argv = ["scratchvae", "train", "--samples", "1e9", "--hidden", "8", "--latent", "2", "--out", {out!r}, "--quiet"]
program()
"""


def signals(until, count=40, seed=0):
    """Send two signals to a program in quick succession: it ends without a traceback, and the run resumes."""
    generator = np.random.default_rng(seed)
    tried = 0
    wrong = []
    with tempfile.TemporaryDirectory() as home:
        for k in range(count):
            if time.monotonic() > until:
                break
            folder = Path(home) / f"run{k}"
            code = TWICE.format(path=[entry for entry in sys.path if entry], out=str(folder))
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            process.stdout.readline()
            while not (folder / "checkpoint.npz").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.2))
            first, second = generator.choice([signal.SIGINT, signal.SIGTERM], 2)
            process.send_signal(first)
            time.sleep(generator.choice([0, 0.001, 0.01, 0.1]))
            if process.poll() is None:
                process.send_signal(second)
            text = process.communicate(timeout=60)[1].decode()
            tried += 1
            if "Traceback" in text or "Exception" in text:
                wrong.append(f"signals {first}, {second}: {text.splitlines()[-1]}")
            if process.returncode not in (130, 143, -signal.SIGTERM, -signal.SIGINT):
                wrong.append(f"signals {first}, {second}: exit code {process.returncode}")
            load_model(folder)
    return tried, wrong


# Broken files


def mutated(content, generator):
    """Return bytes with one to four random changes: bits, bytes, cuts, doublings, exchanged pieces."""
    content = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        n = len(content)
        at = int(generator.integers(n)) if n else 0
        size = int(min(generator.integers(1, 64), n - at)) if n else 0
        match generator.integers(6):
            case 0 if n:
                content[at] ^= 1 << int(generator.integers(8))
            case 1 if n:
                content[at : at + size] = generator.bytes(size)
            case 2:
                del content[at:]
            case 3:
                content[at:at] = content[at : at + size]
            case 4:
                content[at:at] = generator.bytes(size)
            case _:
                del content[at : at + size]
    return bytes(content)


VALUES = ["null", "true", "-1", "0", "1.5", "1e30", "1e308", "1e999", "NaN", "Infinity", "-Infinity", str(10**30)]
VALUES += [str(10**400), "9" * 5000, '""', '"x"', '"grey"', '"inf"', '"nan"', "[]", "[1]", '["a"]', "{}", '{"a": 1}']
VALUES += [f"[{10**400}]", '["inf"]', "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000]
HERE = "the value that is replaced"  # in JSON, by text that json.dumps may not be able to write


def mutated_json(content, generator):
    """Return JSON in which one value is replaced by one of VALUES, or a key by another, or mutated bytes."""
    if generator.random() < 0.3:
        return mutated(content, generator)
    node = tree = json.loads(content)
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[generator.integers(len(keys))]
        inside = node[key]
        if not (isinstance(inside, dict | list) and inside and generator.random() < 0.8):
            break
        node = inside
    if generator.random() < 0.2 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = HERE
    return json.dumps(tree).replace(json.dumps(HERE), VALUES[generator.integers(len(VALUES))]).encode()


def crafted(content, generator):
    """Return a checkpoint in which one of its facts is replaced by one of VALUES, under a SHA-256 that fits it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        path.write_bytes(content)
        arrays, facts = load(path)
        while True:
            try:
                other = json.loads(mutated_json(json.dumps(facts).encode(), generator))
                save(path, arrays, dict(other))
                return path.read_bytes()
            except (ValueError, TypeError, RecursionError):  # it is no JSON, or not of a dict: another one
                continue


CELLS = ["inf", "-inf", "Infinity", "nan", "1e30", "-1e30", "1e308", "1e999", "1e-400", str(10**30), str(10**400)]
CELLS += [
    "9" * 5000,
    "9" * 200_000,
    "",
    " ",
    "-1",
    "0",
    "1.5",
    "x",
    "True",
    "None",
    "0x1",
    "1_0",
    "٣",
    '"',
    "1,2",
    "\0",
]


def mutated_csv(content, generator):
    """Return a table in which one cell is replaced by one of CELLS, or a cell or line is lost or doubled, or bytes."""
    if generator.random() < 0.3:
        return mutated(content, generator)
    lines = [line.split(",") for line in content.decode().splitlines()]
    line = int(generator.integers(len(lines)))
    cell = int(generator.integers(len(lines[line])))
    match generator.integers(8):
        case 0:
            del lines[line]
        case 1:
            lines.insert(line, lines[line])
        case 2:
            del lines[line][cell]
        case 3:
            lines[line].insert(cell, lines[line][cell])
        case _:
            lines[line][cell] = CELLS[generator.integers(len(CELLS))]
    return "".join(",".join(line) + "\n" for line in lines).encode()


@contextlib.contextmanager
def memory_below(more):
    """Let this process take no more than so many bytes more than it has."""
    has = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Memory:
    """Measures, inside `with`, how many bytes are taken at most at a moment; `peak` says it afterwards.

    What Python and NumPy take counts when they ask for it (tracemalloc), and what libraries in C take when they use it,
    by the pages that become resident (VmHWM of Linux).
    """

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak of the pages begins anew
        self.before = resident("VmRSS")
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.peak = max(traced, resident("VmHWM") - self.before)


def resident(name):
    """Return the bytes of this process that are resident now (VmRSS), or were at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def fault_of(read, largest):
    """Read a mutated file and return what is wrong with how that went: "" where it is read, or refused as it should.

    `largest` is the number of bytes of the largest input that the reader may meet there.
    """
    begun = time.monotonic()
    error = None
    with warnings.catch_warnings(), Memory() as memory:
        warnings.simplefilter("ignore")
        try:
            read()
        except Exception as raised:
            error = raised
    seconds = time.monotonic() - begun
    if refused_memory(error):
        return f"asks for more than {WILD:,} bytes ({error})"
    if memory.peak > 3 * largest + FLOOR:
        return f"takes {memory.peak:,} bytes; expected 3 x {largest:,} of its input, and {FLOOR:,}, at most"
    if error is not None and not isinstance(error, ValueError | MemoryError):
        return f"untyped {error!r}"
    if "\n" in str(error):
        return f"an error of several lines: {error}"
    return f"takes {seconds:.1f} s" if seconds > 5 else ""


def refused_memory(error):
    """Say whether memory was asked for that there is not, also where another error was raised in its place.

    The MemoryError that says how much a model needs asks for none.
    """
    while error is not None:
        if isinstance(error, MemoryError) and "needs about" not in str(error):
            return True
        error = error.__context__ or error.__cause__
    return False


def set_up(folder, images):
    """Build the optimiser and the model that the config.json of a run describes, as `train --resume` does."""
    options = run_options(folder)
    importlib.import_module("scratchvae.cli.train")._optimizer(options)
    model_of(options, images)


PARTS = ("checkpoint.npz", "facts in checkpoint.npz", "config.json", "metrics.csv")


def files(until, count=50_000, seed=0, names=PARTS):
    """Read mutated files of a run: each is read, or refused by a typed error, in bounded memory and time."""
    from scratchvae.cli import main

    images = load_data("digits")
    generator = np.random.default_rng(seed)
    tried = 0
    wrong = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        main(["train", "--samples", "500", "--hidden", "4", "--latent", "2", "--out", str(folder), "--quiet"])
        shutil.rmtree(folder / "figures")
        every = {
            "checkpoint.npz": (lambda: load_model(folder), mutated),
            "facts in checkpoint.npz": (lambda: load_model(folder), crafted),
            "config.json": (lambda: set_up(folder, images), mutated_json),
            "metrics.csv": (lambda: read_history(folder / "metrics.csv"), mutated_csv),
        }
        parsers = {name: every[name] for name in names}
        paths = {name: folder / name.rpartition(" ")[2] for name in parsers}
        whole = {name: path.read_bytes() for name, path in paths.items()}
        for read, _ in parsers.values():
            read()  # what is imported for it is not the memory of a file
        for _ in range(count):
            for name, (read, mutate) in parsers.items():
                if time.monotonic() > until:
                    return tried, wrong
                content = mutate(whole[name], generator)
                paths[name].write_bytes(content)
                tried += 1
                with memory_below(WILD):
                    fault = fault_of(read, max(len(content), len(whole[name])))
                if fault:
                    wrong.append(f"{name}: {fault}")
                paths[name].write_bytes(whole[name])
    return tried, wrong


def data(until, count=50_000, seed=0):
    """Read mutated data: .npy, .npz, MNIST's and Frey Face's files, and images in eight formats."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from test_data_gate import SEEDS, changed, read_changed

    def largest(name, content):
        """Return the bytes of the largest input that may stand in a file of this name."""
        if name.startswith("train"):
            return math.prod(MNIST_FILES["train-images-idx3-ubyte"][0])
        return 4 * MOST_PIXELS if name.startswith("images") else len(content)  # four channels a pixel

    generator = np.random.default_rng(seed)
    tried = 0
    wrong = []
    with tempfile.TemporaryDirectory() as home:
        for name in SEEDS:
            (Path(home) / name).parent.mkdir(exist_ok=True)
            (Path(home) / name).write_bytes(SEEDS[name])
            with contextlib.suppress(ValueError), warnings.catch_warnings():  # MNIST's is cut short
                warnings.simplefilter("ignore")
                read_changed(Path(home) / name, name)  # what is imported for it is not the memory of a file
        for _ in range(count):
            for name, content in SEEDS.items():
                if time.monotonic() > until:
                    return tried, wrong
                path = Path(home) / name
                path.write_bytes(changed(content, generator))
                tried += 1
                read = partial(read_changed, path, name)
                with memory_below(WILD):  # beside what there is: decoders keep some KB of a broken JPEG or TIFF
                    fault = fault_of(read, largest(name, path.read_bytes()))
                if fault:
                    wrong.append(f"{name}: {fault}")
    return tried, wrong


def encodings(until, names=ENCODINGS):
    """Run five commands on terminals with other encodings."""
    tried = 0
    wrong = []
    small = ["--samples", "500", "--hidden", "4", "--latent", "2"]
    with tempfile.TemporaryDirectory() as home:
        for name in names:
            run = str(Path(home) / name)
            sizes = ["--hidden", "4", "--latent", "2", "--visible", "9", "--batch-size", "3", "--repeats", "1"]
            for words in (
                ["train", *small, "--out", run],
                ["evaluate", run],
                ["plot", run],
                ["train", "--help"],
                ["bench", *sizes, "--out", f"{run}-bench"],
            ):
                if time.monotonic() > until:
                    return tried, wrong
                environment = {**os.environ, "PYTHONIOENCODING": name, "PYTHONPATH": os.pathsep.join(sys.path)}
                done = subprocess.run(
                    [sys.executable, "-m", "scratchvae", *words], capture_output=True, env=environment
                )
                tried += 1
                if done.returncode:
                    wrong.append(f"{name}: {words[0]} ended with {done.returncode}: {done.stderr[-200:]}")
    return tried, wrong


def main():
    """Run all parts for so many minutes, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long in all (10)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of moments and mutations (0)")
    settings = parser.parse_args()
    expected = unbroken()
    end = time.monotonic() + 60 * settings.minutes
    parts = {  # what takes as long as it takes comes first, and the mutations share what is left
        "failing writes": lambda until: writes(until, expected),
        "SIGKILL": lambda until: kills(until, expected, 1000, settings.seed),
        "two signals": lambda until: signals(until, 40, settings.seed),
        "encodings": encodings,
        "files of a run": lambda until: files(until, 50_000, settings.seed),
        "files of data": lambda until: data(until, 50_000, settings.seed),
    }
    print(f"{'part':<16} {'tried':>8} {'wrong':>6} {'seconds':>8}")
    failed = False
    for k, (name, part) in enumerate(parts.items()):
        begun = time.monotonic()
        until = end if k < len(parts) - 2 else begun + (end - begun) / (len(parts) - k)
        tried, wrong = part(until)
        print(f"{name:<16} {tried:>8,} {len(wrong):>6} {time.monotonic() - begun:>8.0f}", flush=True)
        for line in wrong[:10]:
            print(f"    {line}")
        failed = failed or bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
