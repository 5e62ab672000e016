"""The run folder: checkpoint.npz, from which a run resumes to the bit, metrics.csv and config.json."""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scratchvae.backend import kind, move
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.training.checkpoint import CheckpointError, load, previous_of, save, write_atomically

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


@dataclass
class Progress:
    """Where a run stands, apart from its parameters and its optimiser's state."""

    step: int = 0
    samples: int = 0  # evaluations of the bound, with gradient, on a training datapoint, repetitions counted
    total: float = 0.0  # of the bound per datapoint over the `seen` samples since the last row of the history
    seen: int = 0
    seconds: float = 0.0
    rows: list = field(default_factory=list)  # of the history, on the run's own grid

    def row(self, epoch, valid_bound):
        """Return a row of the history as of now."""
        return self.step, self.samples, epoch, self.total / self.seen, valid_bound, self.seconds

    def add(self, row):
        """Put `row` into the history and begin the next average."""
        self.rows.append(row)
        self.total = 0.0
        self.seen = 0

    def history(self, *ending):
        """Return the rows, and one more where the run ends off its grid, as a structured array."""
        return np.array([*self.rows, *ending], HISTORY)


class RunFolder:
    """Keeps checkpoint.npz, metrics.csv and config.json in a folder; with path None nothing is kept.

    facts are what a run must share with the checkpoint that it resumes, as JSON. options are the caller's own, for
    config.json. more holds arrays beside the parameters and the optimiser's state that the run goes on from, by name.
    """

    def __init__(self, path, model, optimizer, facts, options=None, more=None):
        self.path = None if path is None else Path(path)
        self.model = model
        self.optimizer = optimizer
        self.facts = facts
        self.more = more or {}
        self.config = json.dumps({"options": options, "run": facts}, indent=2, ensure_ascii=False) + "\n"
        self.kept_at = 0.0  # Progress.seconds of the last checkpoint

    def begin(self):
        """Keep the initial state, before the first step, and return it; a folder with a run raises a ValueError."""
        checkpoint = None if self.path is None else self.path / "checkpoint.npz"
        if checkpoint is not None and (checkpoint.exists() or previous_of(checkpoint).exists()):
            raise ValueError(f"{self.path} holds a run: go on with it (resume), or choose another folder (out)")
        now = Progress()
        self.keep(now)
        return now

    def keep(self, now, *ending):
        """Write the checkpoint and metrics.csv as of `now`.

        A row that only marks the end of the run, `ending`, goes into metrics.csv but not into the checkpoint: had the
        run been asked for more samples, it would not have stopped there.

        Nothing is written, and a FloatingPointError is raised, if a parameter is not finite.
        """
        self.kept_at = now.seconds
        if self.path is None:
            return
        if not np.isfinite(self.model.params.value).all():
            raise FloatingPointError(
                f"{self.model.params.non_finite()} is not finite after step {now.step}: "
                "try a smaller step size, in a new folder"
            )
        if self.config is not None:  # once a run
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / "config.json", self.config.encode())
            self.config = None
        where = {name: getattr(now, name) for name in ("step", "samples", "total", "seen", "seconds")}
        facts = {"run": self.facts, "progress": where}
        arrays = {name: move(window, "numpy") for name, window in self._windows().items()}
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
        _fill(path, arrays, self._windows())
        self.kept_at = stored["progress"]["seconds"]
        return Progress(**stored["progress"], rows=history.tolist())

    def _windows(self):
        """Return by name the arrays that a checkpoint keeps: parameters, the optimiser's state, and `more`."""
        state = {f"optimizer/{k}": v for k, v in self.optimizer.state.items()}
        return {**_parameters(self.model), **state, **self.more}


DOORS = {"estimator": OBJECTIVES, "likelihood": LIKELIHOODS, "posterior": POSTERIORS}


def load_model(folder, estimator=None, backend="numpy", likelihood=None, posterior=None):
    """Return the model of a run, on either backend wherever it was trained.

    folder    is the run folder, or the path of a checkpoint, which ends in .npz.
    backend   is "numpy" or "cupy"; "numpy" unless given.

    estimator, likelihood and posterior are your own objects, for a model that was trained with them. If the file is
    broken, or if an object is missing or not the one of the training, a CheckpointError is raised.
    """
    path = Path(folder)
    path = path / "checkpoint.npz" if path.suffix != ".npz" else path
    arrays, stored = _load(path)
    config = stored["run"]["model"]
    own = {"estimator": estimator, "likelihood": likelihood, "posterior": posterior}
    own = {door: value for door, value in own.items() if value is not None}
    for door, ours in DOORS.items():
        if door in config and config[door] not in ours and door not in own:
            what = "the function" if door == "estimator" else "the object"
            raise CheckpointError(f"{path} was trained with {door} {config[door]!r}: pass {what}, {door}=…")
    cls = FullVB if "theta_noise" in config else VAE
    model = cls(**config | own | {"backend": backend})
    for door in own:
        came = model.config.get(door, "gaussian")
        if came != config.get(door, "gaussian"):
            raise CheckpointError(f"{path} was trained with {door} {config.get(door, 'gaussian')!r}, not {came!r}")
    _fill(path, {name: array for name, array in arrays.items() if name.startswith("params/")}, _parameters(model))
    return model


def write_history(path, history):
    """Write metrics.csv, one column per field, with floats in full, so that reading gives back the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HISTORY.names)
    writer.writerows(history.tolist())
    write_atomically(path, text.getvalue().encode())


def read_history(path):
    """Return the history in a metrics.csv; another file raises a ValueError."""
    try:
        with open(path, newline="") as file:
            head, *rows = csv.reader(file)
        if tuple(head) != HISTORY.names:
            raise ValueError(f"its columns are {', '.join(head)}")
        return np.array([tuple(map(float, row)) for row in rows], HISTORY)
    except FileNotFoundError:
        raise ValueError(f"there is no {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a metrics.csv with columns {', '.join(HISTORY.names)}: {error}") from None


def _load(path):
    """Return the arrays and facts of the checkpoint of a run; another file raises a CheckpointError."""
    arrays, facts = load(path)
    if not {"run", "progress"} <= facts.keys() or "history" not in arrays:
        raise CheckpointError(f"{path} is a checkpoint, but not of a training run")
    model = facts["run"]["model"]
    if model["estimator"] == "black_box":  # what it was called when it had to be passed as a function
        model["estimator"] = "black-box"
    return arrays, facts


def _parameters(model):
    """Return the windows on the parameters of a model, by name."""
    return {f"params/{name}": window for name, window in model.params.named(model.params.value).items()}


def _fill(path, arrays, windows):
    """Copy arrays into the windows of the same names.

    One that is missing, that does not fit or that has no window raises a CheckpointError.
    """
    for name, window in windows.items():
        array = arrays.get(name)
        if array is None or array.shape != window.shape or array.dtype != window.dtype:
            came = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise CheckpointError(f"{path} has {came} for {name}; the model expects {window.dtype} {window.shape}")
    if left := arrays.keys() - windows.keys():
        raise CheckpointError(f"{path} has {', '.join(sorted(left))}, which this model does not have")
    for name, window in windows.items():
        window[...] = move(arrays[name], kind(window))


def _differences(theirs, ours, prefix=""):
    """Yield (name, theirs, ours) for every fact in which two dicts differ, those inside them included."""
    for name in sorted(ours.keys() | theirs.keys()):
        a = theirs.get(name)
        b = ours.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b
