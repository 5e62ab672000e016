"""What the studies share: many training runs, as many at a time as there are cores, each gone on with."""

import argparse
import contextlib
import inspect
import json
import sys
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from scratchvae import VAE, Adagrad, fit, load_data
from scratchvae.backend import cores
from scratchvae.bench import commit
from scratchvae.cli.output import silence, tolerant
from scratchvae.cli.ranks import ranks_of_command
from scratchvae.ranks import ALONE, RankError, started
from scratchvae.training.checkpoint import write_atomically
from scratchvae.training.claim import Claim
from scratchvae.training.loop import progress_bar
from scratchvae.training.run import read_history

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Run:
    """One call of `fit`, in a folder of its own: kind(pixels, hidden, latent, **settings) on n_train images."""

    folder: Path
    data: str
    hidden: int
    latent: int
    samples: int
    settings: dict = field(default_factory=dict)
    kind: type = VAE
    optimizer: object = field(default_factory=lambda: Adagrad(0.01))
    n_train: int | None = None
    held_out: str = "valid"
    n_held_out: int | None = None
    log_every: int | None = None
    batch_size: int = 100
    seed: int = 0

    def start_from(self, before):
        """Begin where the run in the folder `before` ended, unless there is a checkpoint already.

        Only the process that has claimed the folder writes into it; a ValueError names the one that has.
        """
        checkpoint = self.folder / "checkpoint.npz"
        if not checkpoint.exists():
            with claimed(self.folder):
                if not checkpoint.exists():  # another process may have been faster
                    write_atomically(checkpoint, (before / "checkpoint.npz").read_bytes())

    def train(self, version, ranks=ALONE):
        """Begin the run, or go on with it, until it has evaluated `samples`; config.json names every commit.

        `ranks` share each minibatch, where there are any; the first of them shows how far the run is.
        """
        if ranks.first_only(self.done):
            return
        data = load_data(self.data)
        train, held_out = data.train[: self.n_train], getattr(data, self.held_out)[: self.n_held_out]
        options = {"data": self.data, "n_train": len(train), "commit": version}
        if (self.folder / "config.json").exists():
            before = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["options"]["commit"]
            options["commit"] = before if before.split()[-1] == version else f"{before} {version}"
        self.fit(
            self.kind(train.shape[1], self.hidden, self.latent, seed=self.seed, **self.settings),
            train,
            held_out,
            optimizer=self.optimizer,
            samples=self.samples,
            batch_size=self.batch_size,
            seed=self.seed,
            log_every=self.log_every,
            out=self.folder,
            resume=(self.folder / "checkpoint.npz").exists(),
            options=options,
            progress=False if ranks.size == 1 else None,
            comm=ranks,
        )

    def fit(self, model, train, held_out, **settings):
        """How it is trained."""
        return fit(model, train, held_out, **settings)

    def done(self):
        """Whether it has evaluated as many samples as it was asked for."""
        metrics = self.folder / "metrics.csv"
        return metrics.exists() and len(h := read_history(metrics)) > 0 and h["samples"][-1] >= self.samples

    def history(self):
        """The history so far, as `fit` returns it."""
        return read_history(self.folder / "metrics.csv")

    def commit(self):
        """The commits that trained it."""
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["options"]["commit"]


@contextlib.contextmanager
def claimed(folder):
    """Hold the claim of a run folder, so that no other process writes to it; a ValueError names the one that does."""
    claim = Claim(folder)
    claim.acquire()
    try:
        yield
    finally:
        claim.release()


def in_parallel(calls, jobs, unit=" runs"):
    """function(*arguments) for each of calls, `jobs` at a time, each on one thread of BLAS; their results in order.

    A call begins when another has ended, so that after Ctrl-C, or a call that failed, no other begins: those that run
    save and end.
    """
    waiting, running, results = list(enumerate(calls))[::-1], {}, {}
    with ProcessPoolExecutor(jobs) as pool, progress_bar(len(calls), 0, None, unit=unit) as bar:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, call = waiting.pop()
                running[pool.submit(_on_one_thread, *call)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results[running.pop(future)] = future.result()
                bar.update(1)
    return [results[number] for number in range(len(calls))]


def train_all(runs, jobs, ranks=ALONE):
    """Train what is not trained yet: `jobs` runs at a time, or, on ranks, one after another by all of them."""
    version = commit()
    if ranks.size == 1:
        in_parallel([(run.train, version) for run in runs], jobs)
        return
    with threadpool_limits(max(1, cores() // ranks.on_machine), "blas"):
        for run in runs:
            run.train(version, ranks)


def parser(description):
    """The command line that the studies share."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", type=float, default=1.0, help="a fraction of the work, for a quick look (1)")
    p.add_argument("--jobs", type=positive, default=cores(), help="runs at a time; on ranks one (all cores)")
    add_folders(p)
    return p


def add_folders(p):
    """Add the options that say where runs and results go."""
    p.add_argument("--runs", type=Path, default=Path("runs/examples"), help="where runs are kept (runs/examples)")
    p.add_argument(
        "--results",
        type=Path,
        help="where tables and pictures go (examples/results; below --scale 1 a folder results-SCALE in --runs)",
    )


def positive(text):
    """A whole number ≥ 1, 1000 or 1e3, for argparse."""
    number = float(text)
    if number != int(number) or number < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected a whole number ≥ 1")
    return int(number)


def parse(p):
    """The arguments, checked, with the folder for results made."""
    settings = p.parse_args()
    if not 0 < settings.scale <= 1:
        p.error(f"--scale is {settings.scale:g}; expected a fraction above 0, at most 1")
    if settings.results is None:
        settings.results = RESULTS if settings.scale == 1 else settings.runs / f"results-{settings.scale:g}"
    settings.results.mkdir(parents=True, exist_ok=True)
    return settings


def command(main):
    """Run the `main` of a script: an error is one line, Ctrl-C says how to go on, and no terminal stops the output.

    Under mpiexec a `main` that takes `ranks` gets them, and the first of them alone prints; any other is refused.
    """
    first = started()[0] == 0
    on_ranks = "ranks" in inspect.signature(main).parameters
    code = 0
    try:
        with (
            tolerant(),
            contextlib.nullcontext() if first else silence(),
            ranks_of_command(Path(sys.argv[0]).name, on_ranks) as ranks,
        ):
            try:
                main(ranks) if on_ranks else main()
            except SystemExit as stop:  # of argparse, on all ranks alike: none has failed
                code = stop.code
        if code:
            sys.exit(code)
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was trained is kept: the same command goes on with it" if first else 1)
    except RankError:  # the rank that has failed says why
        sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _on_one_thread(function, *arguments):
    with threadpool_limits(1, "blas"):
        return function(*arguments)
