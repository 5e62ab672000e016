"""The run folder: checkpoint.npz, from which a run resumes to the bit, metrics.csv and config.json."""

import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scratchvae.arguments import is_real
from scratchvae.backend import kind, move
from scratchvae.files import told
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.training.checkpoint import (
    CheckpointError,
    DamagedError,
    is_there,
    load,
    previous_of,
    save,
    sweep,
    write_atomically,
)
from scratchvae.training.claim import Claim
from scratchvae.training.optim import require_finite
from scratchvae.training.patience import best_in

HISTORY = np.dtype(
    [
        ("step", "i8"),
        ("samples", "i8"),
        ("epoch", "f8"),
        ("train_bound", "f8"),
        ("valid_bound", "f8"),
        ("seconds", "f8"),
    ]
)
CARRIED = (
    "rate",
    "distortion",
    "active",
    "mutual_information",
    "marginal_kl",
)  # what the latents carry, in later columns


def with_latents(n_latent):
    """Return the columns of a history that says what the latents carry: those of HISTORY, CARRIED, and kl (J,)."""
    return np.dtype([*HISTORY.descr, *((name, "f8") for name in CARRIED), ("kl", "f8", (n_latent,))])


@dataclass
class Progress:
    """Where a run stands, apart from its parameters and its optimiser's state."""

    step: int = 0
    samples: int = 0  # evaluations of the bound, with gradient, on a training datapoint, repetitions counted
    total: float = 0.0  # of the bound per datapoint over the `seen` samples since the last row of the history
    seen: int = 0
    seconds: float = 0.0
    rows: list = field(default_factory=list)  # of the history, on the run's own grid
    columns: np.dtype = HISTORY

    def row(self, epoch, valid_bound, *carried):
        """Return a row of the history as of now. `carried` has what goes into the columns behind those of HISTORY."""
        return self.step, self.samples, epoch, self.total / self.seen, valid_bound, self.seconds, *carried

    def add(self, row):
        """Put `row` into the history and begin the next average."""
        self.rows.append(row)
        self.total = 0.0
        self.seen = 0

    def history(self, *ending):
        """Return the rows, and one more where the run ends off its grid, as a structured array."""
        return np.array([*self.rows, *ending], self.columns)


PROGRESS = ("step", "samples", "total", "seen", "seconds")  # what a checkpoint keeps of it as facts
FILES = ("config.json", "checkpoint.npz", "checkpoint.previous.npz", "metrics.csv")
ROWS = 1000  # of the history that all have a checkpoint
LONGEST_WITHOUT_CHECKPOINT = 30  # seconds
SHARE = 0.05  # of the time that other checkpoints may take
BEAT = 60  # seconds between two heartbeats of the claim


class RunFolder:
    """Keeps checkpoint.npz, metrics.csv and config.json in a folder; with path None nothing is kept.

    facts are what a run must share with the checkpoint that it resumes, as JSON. options are the caller's own, for
    config.json and the checkpoint; what JSON cannot hold raises a ValueError. more holds arrays beside the parameters
    and the optimiser's state that the run goes on from, by name. take_over is that of `training.claim.Claim`. columns
    are those of the history, HISTORY unless given.
    """

    def __init__(self, path, model, optimizer, facts, options=None, more=None, take_over=False, columns=HISTORY):
        self.path = None if path is None else Path(path)
        self.model = model
        self.optimizer = optimizer
        self.facts = facts
        self.more = more or {}
        self.columns = columns
        self.options = _plain("options", options)
        self.config = json.dumps({"options": options, "run": facts}, indent=2) + "\n"
        self.kept_at = time.perf_counter()  # when the last checkpoint was whole, or the run began
        self.took = 0.0  # how many seconds it took
        self.beaten_at = self.kept_at  # when the claim's heart was last heard
        self.claim = None if path is None else Claim(path, take_over)

    @contextlib.contextmanager
    def open(self, resume):
        """Claim the folder, and give the Progress of a run that begins, or goes on with `resume`.

        No other process can write to the folder meanwhile; if one has claimed it, a ValueError says which. What a
        process that was killed has left half-written is removed.
        """
        if self.claim is None:
            yield self.begin()
            return
        require_folder(self.path)
        self.claim.acquire()
        try:
            sweep(self.path, FILES)
            sweep(self.path / "figures", ["*.png"])
            yield self.restore() if resume else self.begin()
        finally:
            self.claim.release()

    def begin(self):
        """Keep the initial state, before the first step, and return it.

        A folder in which no run can begin raises a ValueError, see `require_new`. If all checkpoints there are damaged,
        as after a first write that failed, the run begins; they are kept under another name, such as
        checkpoint.broken.npz, with a warning.
        """
        now = Progress(columns=self.columns)
        for path in [] if self.path is None else require_new(self.path):
            endings = itertools.chain(["broken"], (f"broken-{k}" for k in itertools.count(2)))
            aside = next(name for end in endings if not os.path.lexists(name := path.with_suffix(f".{end}.npz")))
            path.replace(aside)
            text = f"{path} is damaged, and the run begins anew: it is kept as {aside.name}"
            warnings.warn(text, stacklevel=7)
        self.keep(now)
        return now

    def wanted(self, n_rows, is_row):
        """Say whether a checkpoint is due after this step, with which the history has n_rows rows.

        is_row says whether the last of them is of this step.

        Each of the first thousand rows has one. Apart from these there is one at a later row, or 30 s after the last
        one, but only so many that all of these take no more than 5 % of the time: after a write of 40 s the next one
        waits for 800 s.
        """
        if is_row and n_rows <= ROWS:
            return True
        waited = time.perf_counter() - self.kept_at
        return (is_row or waited > LONGEST_WITHOUT_CHECKPOINT) and SHARE * waited >= self.took

    def beat(self):
        """Say once a minute that this process is alive, however long no checkpoint is due.

        A ValueError is raised if another process has taken the folder over.
        """
        if self.claim is not None and time.perf_counter() - self.beaten_at > BEAT:
            self.beaten_at = time.perf_counter()
            with contextlib.suppress(OSError):  # whether the folder is there is seen when it is written to
                self.claim.beat()

    def keep(self, now, *ending):
        """Write the checkpoint and metrics.csv as of `now`.

        A row that only marks the end of the run, `ending`, goes into metrics.csv but not into the checkpoint: had the
        run been asked for more samples, it would not have stopped there.

        Nothing is written, and a FloatingPointError is raised, if a parameter or the optimiser's state is not finite.
        On a device that is seen where there is a folder, since only then they are read.
        """
        begun = time.perf_counter()
        self._keep(now, ending)
        self.kept_at = time.perf_counter()
        self.took = self.kept_at - begun

    def _keep(self, now, ending):
        if self.path is None and self.model.backend != "numpy":  # nothing is read from a device for this alone
            return
        require_finite(self.model.params, self.optimizer, now.step)
        if self.path is None:
            return
        self.claim.beat()
        self.beaten_at = time.perf_counter()
        arrays = {name: move(array, "numpy") for name, array in (self._learned() | self.more).items()}
        if self.config is not None:  # once a run
            write_atomically(self.path / "config.json", self.config.encode())
            self.config = None
        where = {name: getattr(now, name) for name in PROGRESS}
        facts = {"run": self.facts, "progress": where, "options": self.options}
        save(self.path / "checkpoint.npz", {**arrays, "history": now.history()}, facts)
        write_history(self.path / "metrics.csv", now.history(*ending))

    def restore(self):
        """Fill the parameters and the optimiser's state from the checkpoint and return its Progress.

        A CheckpointError is raised if it is broken, or if model, optimiser, seed, minibatch or data are not those of
        this run.
        """
        path = self.path / "checkpoint.npz"
        arrays, stored = _load(path)
        for name, theirs, ours in _differences(stored["run"], self.facts):
            raise CheckpointError(f"{path} cannot be resumed: it has {name} {theirs!r}, this run asks for {ours!r}")
        history = arrays.pop("history")
        _fill(path, arrays, self._learned() | self.more)
        rows = [(*row, *self._unknown(row)) for row in history.tolist()]
        return Progress(**stored["progress"], rows=rows, columns=self.columns)

    def _unknown(self, row):
        """Return what stands in the columns that a row of an older run does not have."""
        return [np.full(self.columns[name].shape, np.nan) for name in self.columns.names[len(row) :]]

    def _learned(self):
        """Return the windows on parameters and on the optimiser's state, by name."""
        return _parameters(self.model) | {f"optimizer/{k}": v for k, v in self.optimizer.state.items()}


def save_run(folder, model, optimizer, facts, options, history):
    """Write a model that was trained elsewhere as a run folder, which `load_model` reads.

    facts and options are those of `RunFolder`, and history is an array as `fit` returns it. A folder in which no run
    can begin raises a ValueError.
    """
    run = RunFolder(folder, model, optimizer, facts, options, columns=history.dtype)
    with run.open(resume=False) as now:
        now.rows = history.tolist()
        now.step = int(history["step"][-1])
        now.samples = int(history["samples"][-1])
        now.seconds = float(history["seconds"][-1])
        run.keep(now)


DOORS = {"estimator": OBJECTIVES, "likelihood": LIKELIHOODS, "posterior": POSTERIORS}


def load_model(folder, estimator=None, backend="numpy", likelihood=None, posterior=None):
    """Return the model of a run, on either backend wherever it was trained.

    Of a run that keeps its best parameters it is the model of the best row so far, and else the one of its last
    checkpoint.

    folder    is the run folder, or the path of a checkpoint, which ends in .npz.
    backend   is "numpy" or "cupy"; "numpy" unless given.

    estimator, likelihood and posterior are your own objects, for a model that was trained with them. If the file is
    broken, or if an object is missing or not the one of the training, a CheckpointError is raised.
    """
    path = checkpoint_of(folder)
    arrays, stored = _load(path)
    config = stored["run"]["model"]
    own = {"estimator": estimator, "likelihood": likelihood, "posterior": posterior}
    own = {door: value for door, value in own.items() if value is not None}
    for door, ours in DOORS.items():
        if door in config and config[door] not in ours and door not in own:
            what = "the function" if door == "estimator" else "the object"
            raise CheckpointError(f"{path} was trained with {door} {config[door]!r}: pass {what}, {door}=…")
    cls = FullVB if "theta_noise" in config else VAE
    try:
        model = cls(**config | own | {"backend": backend})
    except (TypeError, ValueError, OverflowError) as error:
        if own or backend != "numpy":  # it may be these that do not fit
            raise
        raise CheckpointError(f"{path} describes no model that this version can build: {error}") from None
    for door in own:
        came = model.config.get(door, "gaussian")
        if came != config.get(door, "gaussian"):
            raise CheckpointError(f"{path} was trained with {door} {config.get(door, 'gaussian')!r}, not {came!r}")
    kept = "best/" if "best" in arrays and _best_in(path, arrays)[0] == "best" else "params/"
    learned = {f"params/{name.removeprefix(kept)}": arrays[name] for name in arrays if name.startswith(kept)}
    _fill(path, learned, _parameters(model))
    return model


def best_of(folder):
    """Return the samples and the value of the model that `load_model` gives of a run that keeps its best parameters.

    The value is the validation bound, with β where the model has one. None is returned of a run that keeps the last
    parameters, and of one that has no value yet.
    """
    path = checkpoint_of(folder)
    arrays = _load(path)[0]
    if "best" not in arrays:
        return None
    _, samples, value = _best_in(path, arrays)
    return (samples, value) if math.isfinite(value) else None


def _best_in(path, arrays):
    """Return what `best_in` does of the arrays of a checkpoint; others than it expects raise a CheckpointError."""
    at = arrays["best"]
    if at.shape != (2, 2) or at.dtype != np.float64 or not np.isfinite(at[:, 0]).all():
        raise CheckpointError(
            f"{path} has {at.dtype} {at.shape} for best; expected float64 (2, 2), with finite samples"
        )
    return best_in(at)


def checkpoint_of(folder):
    """Return the path of the checkpoint in a run folder; the path of a checkpoint is returned as it is."""
    path = Path(folder)
    return path if path.suffix == ".npz" and not path.is_dir() else path / "checkpoint.npz"


NOTHING = "nothing"  # what a folder is, see `look`
RUN = "a run"
DAMAGED = "damaged checkpoints"
FOREIGN = "foreign files"
OURS = re.compile(
    r"\..*|claim\.json|figures|explore\.html|checkpoint(\.previous)?(\.broken(-\d+)?)?\.npz|"
    r"(config\.json|metrics\.csv|explore\.html|checkpoint(\.previous)?\.npz)\.[0-9a-f]{16}\.tmp"
)
HEADS = {"config.json": b'{"options":', "metrics.csv": ",".join(HISTORY.names).encode()}  # how ours begin


def checkpoints_of(folder):
    """Return the paths at which a run folder has its last checkpoint and the one before it."""
    newest = Path(folder) / "checkpoint.npz"
    return newest, previous_of(newest)


def look(folder):
    """Return what a folder is to a run that would begin there, and the paths of the files that make it so.

    RUN       It holds a checkpoint, the last one or the one before it, that is whole or of another version.
    FOREIGN   It holds what no run has put there.
    DAMAGED   It holds checkpoints, and none of them is whole.
    NOTHING   There is nothing to lose, at most what a run has left that ended before its first checkpoint.

    A checkpoint that cannot be read at this moment says nothing: it raises its OSError or MemoryError.
    """
    foreign = []
    damaged = []
    for path in checkpoints_of(folder):
        if not is_there(path):
            continue
        try:
            content = load(path)
        except DamagedError:
            damaged.append(path)
            continue
        except CheckpointError:  # another version of scratchvae wrote it
            return RUN, [path]
        try:
            _of_run(path, *content)
            return RUN, [path]
        except CheckpointError:
            foreign.append(path)
    if is_there(folder):
        foreign += [path for path in sorted(Path(folder).iterdir()) if not _is_ours(path)]
    return (FOREIGN, foreign) if foreign else (DAMAGED, damaged) if damaged else (NOTHING, [])


def require_new(folder):
    """Raise a ValueError unless a run can begin in `folder`; return the paths of the damaged checkpoints in it."""
    require_folder(folder)
    state, paths = look(folder)
    if state == RUN:
        config_of(folder)
        raise ValueError(
            f"{folder} holds a run: go on with it (--resume, resume=True), or choose another folder (--out, out)"
        )
    if state == FOREIGN:
        names = ", ".join(path.name for path in paths[:3]) + (" and more" if paths[3:] else "")
        raise ValueError(f"{folder} exists, and holds {names}: choose another folder (--out, out)")
    return paths


def require_folder(path):
    """Raise a ValueError if there is something at `path` that is no folder, or if no folder can be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):  # the second is told by whoever makes the folder
        return
    except (OSError, ValueError) as error:  # a name that is too long, a folder above it that is closed
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path} cannot be a folder ({reason}): choose another one (--out, out)") from None
    if not os.path.isdir(path):
        what = "a file" if os.path.exists(path) else "a link that leads nowhere"
        raise ValueError(f"{path} is {what}: choose a folder (--out, out)")


def _is_ours(path):
    """Say whether a run may have put this there, whole or cut short, as far as its name and its beginning tell."""
    if path.name not in HEADS:
        return OURS.fullmatch(path.name) is not None
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        begun = b"".join(file.read(1000).split())
    head = HEADS[path.name]
    return head.startswith(begun[: len(head)])


def facts_of_run(folder):
    """Return the facts in the checkpoint of a run, a dict; one that is of no use raises a CheckpointError.

    "run" says how the run trains, "progress" how far it is, and "options", which older runs lack, has the caller's own.
    """
    return _load(checkpoint_of(folder))[1]


def config_of(folder):
    """Return what the config.json of a run holds: a dict of the "options" of its caller, or None, and the facts "run".

    One that is missing or damaged raises a ValueError, which says what can be done with the rest of the folder.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or "options" not in config or not isinstance(config.get("run"), dict):
            raise ValueError('expected {"options": …, "run": {…}}')
        return config
    except (FileNotFoundError, NotADirectoryError):
        if not any(map(is_there, checkpoints_of(folder))):
            raise ValueError(f"{folder} is no run folder: it has no config.json") from None
        what = "missing"
    except (ValueError, RecursionError) as error:
        what = f"damaged ({' '.join(str(error).split())[:200]})"
    except OSError as error:
        raise told(error, f"{path} cannot be read ({error.strerror})") from error
    raise ValueError(
        f"{path} is {what}: put it back, or choose another folder; load_model({str(folder)!r}) gives the model, and "
        "fit(…, resume=True) goes on with a run that was begun in Python"
    )


def config_differs(config, facts):
    """Return (name, in config.json, in the checkpoint) for each fact of a run in which the two differ."""
    return [*_differences(config["run"], facts["run"])]


def write_history(path, history):
    """Write metrics.csv, one column per field, with floats in full, so that reading gives back the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_names(history.dtype))
    for *row, last in history.tolist():
        writer.writerow([*row, *np.atleast_1d(last).tolist()])
    write_atomically(path, text.getvalue().encode())


def _names(columns):
    """Return the names of the columns of a metrics.csv, in which kl has a column for each latent, kl_1 and so on."""
    J = columns["kl"].shape[0] if "kl" in columns.names else 0
    return [*(name for name in columns.names if name != "kl"), *(f"kl_{j}" for j in range(1, J + 1))]


def read_history(path):
    """Return the history in a metrics.csv; one that is not there or is another file raises a ValueError.

    That of a run without latents, or of an older version, has the columns of HISTORY alone.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        J = len(head) - len(HISTORY.names) - len(CARRIED)
        columns = with_latents(J) if J > 0 else HISTORY
        if head != _names(columns):
            raise ValueError(f"its columns are {', '.join(head)}")
        first = len(columns.names) - (J > 0)  # of the columns that are read as one
        rows = [[float(number) for number in row] for row in rows]
        if any(len(row) != len(head) for row in rows):
            raise ValueError(f"not all of its rows have {len(head)} numbers")
        return np.array([(*row[:first], row[first:]) if J > 0 else tuple(row) for row in rows], columns)
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: to go on with the run writes it anew (--resume, resume=True)") from None
    except (ValueError, OverflowError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a metrics.csv with columns {', '.join(HISTORY.names)}: {reason}") from None


def _load(path):
    """Return the arrays and facts of the checkpoint of a run; another file raises a CheckpointError."""
    return _of_run(path, *load(path))


def _of_run(path, arrays, facts):
    """Return the arrays and facts of the checkpoint at `path`; those not of a run raise a CheckpointError."""
    if not {"run", "progress"} <= facts.keys() or "history" not in arrays:
        raise CheckpointError(f"{path} is a checkpoint, but not of a training run")
    run = facts["run"]
    progress = facts["progress"]
    model = run.get("model") if isinstance(run, dict) else None
    doors = [model.get(door, "") for door in DOORS] if isinstance(model, dict) else [None]
    if not all(isinstance(name, str) for name in doors) or "estimator" not in model:
        raise CheckpointError(f"{path} does not say which model it is of")
    if not isinstance(progress, dict) or set(progress) != set(PROGRESS) or not _is_progress(**progress):
        raise CheckpointError(f"{path} does not say how far its run is; expected the numbers {', '.join(PROGRESS)}")
    columns = arrays["history"].dtype
    known = [HISTORY]
    if "kl" in (columns.names or ()) and columns["kl"].ndim == 1:
        known.append(with_latents(columns["kl"].shape[0]))
    if columns not in known or arrays["history"].ndim != 1:
        raise CheckpointError(f"{path} has no history with the columns {', '.join(HISTORY.names)}")
    if model["estimator"] == "black_box":  # what it was called when it had to be passed as a function
        model["estimator"] = "black-box"
    return arrays, facts


def _is_progress(total, seconds, **counts):
    """Say whether these are numbers that a `Progress` can have."""
    floats = all(is_real(value) for value in (total, seconds))
    return floats and seconds >= 0 and all(type(count) is int and 0 <= count < 1 << 63 for count in counts.values())


def _plain(name, value):
    """Return `value`; what JSON cannot hold raises a ValueError."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} cannot be kept in config.json ({error}): give text, numbers, lists and dicts"
        ) from None
    return value


def _parameters(model):
    """Return the windows on the parameters of a model, by name."""
    return {f"params/{name}": window for name, window in model.params.named(model.params.value).items()}


def _fill(path, arrays, windows):
    """Copy arrays into the windows of the same names.

    One that is missing, that does not fit or that has no window raises a CheckpointError, and so do parameters and a
    state of the optimiser that are not finite.
    """
    for name, window in windows.items():
        array = arrays.get(name)
        if array is None or array.shape != window.shape or array.dtype != window.dtype:
            came = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise CheckpointError(f"{path} has {came} for {name}; the model expects {window.dtype} {window.shape}")
        if name.startswith(("params/", "optimizer/")) and not np.isfinite(array).all():
            raise CheckpointError(f"{path} has values for {name} that are not finite")
    if left := arrays.keys() - windows.keys():
        raise CheckpointError(f"{path} has {', '.join(sorted(left))}, which this model does not have")
    for name, window in windows.items():
        window[...] = move(arrays[name], kind(window))


def same_data(theirs, ours):
    """Say whether two fingerprints are of the same data; that of an older run is the SHA-256 alone."""
    older = isinstance(theirs, str) and isinstance(ours, str) and len(theirs) == 64
    return theirs == ours or (older and ours.startswith(f"{theirs} "))


def _differences(theirs, ours, prefix=""):
    """Yield (name, theirs, ours) for every fact in which two dicts differ, those inside them included."""
    for name in sorted(ours.keys() | theirs.keys()):
        a = theirs.get(name)
        b = ours.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b and (a == a or b == b) and not (f"{prefix}{name}".startswith("data") and same_data(a, b)):
            yield f"{prefix}{name}", a, b  # NaN is the only number that differs from itself
