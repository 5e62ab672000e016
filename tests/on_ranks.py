"""What test_ranks.py runs under mpiexec: python on_ranks.py FOLDER [STEPS] writes there what rank 0 has found.

Without mpiexec it does the same in one process, so that the two can be compared. STEPS is how many steps each model is
trained for, 200 unless given.
"""

import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import standin

from scratchvae import VAE, FullVB, evaluate, fit, fit_mcem
from scratchvae.inference.hmc import log_joint, sample
from scratchvae.inference.information import information
from scratchvae.inference.marginal import annealed, appendix_d, importance, sandwich
from scratchvae.ranks import SHARED, Ranks, _text_of, ranks_of
from scratchvae.training.loop import evaluate_theta
from scratchvae.training.optim import SGD, Adagrad, Adam

SIZES = {"n_visible": 16, "n_hidden": 6, "n_latent": 3, "dtype": "float64", "init": 0.3}
MODELS = {
    "L^B": (VAE, {}),
    "L^A of two draws": (VAE, {"estimator": "A", "n_samples": 2}),
    "importance weighted": (VAE, {"estimator": "dreg", "n_samples": 3}),
    "wake-sleep": (VAE, {"estimator": "wake-sleep"}),
    "flow": (VAE, {"flow": 2}),
    "beta": (VAE, {"beta": 3.0}),
    "free bits": (VAE, {"free_bits": 0.02}),
    "full posterior": (VAE, {"posterior": "full"}),
    "gaussian": (VAE, {"likelihood": "gaussian", "n_hidden": (6, 5)}),
    "convolutional": (VAE, {"channels": (2,), "activation": "relu"}),
    "full VB": (FullVB, {}),
    "full VB antithetic": (FullVB, {"theta_noise": "antithetic", "estimator": "A"}),
    "full VB by the datapoint": (FullVB, {"theta_noise": "datapoint"}),
    "full VB local": (FullVB, {"theta_noise": "local", "learn_hyperprior": True}),
}
STEPS = 200
DATA = np.random.default_rng(0).random((53, 16))  # the last minibatch of an epoch has 3 rows
VALID = np.random.default_rng(1).random((11, 16))


def trained(name, comm, optimizer=None, **settings):
    """Train a model, and return it with its history without the seconds."""
    kind, options = MODELS[name]
    model = kind(**SIZES | options)
    settings = {"samples": 53 * STEPS // 6, "batch_size": 10, "seed": 3} | settings
    history = fit(model, DATA, VALID, optimizer=optimizer or Adagrad(0.05), comm=comm, **settings)
    columns = [history[name].reshape(len(history), -1).T for name in history.dtype.names if name != "seconds"]
    columns = np.concatenate(columns)
    return model, columns[np.isfinite(columns).all(axis=1)]  # without those of what is not known


def models(comm):
    """The parameters and the history of every model."""
    found = {}
    for k, name in enumerate(MODELS):
        optimizer = (Adagrad(0.05), Adam(0.01), SGD(1e-4))[k % 3]
        schedule = "alternating" if k % 2 else "joint"
        model, history = trained(name, comm, optimizer, schedule=schedule)
        found[f"{name}: parameters"] = model.params.value
        found[f"{name}: history"] = history
    return found


def looks(comm):
    """What runs over datapoints without training."""
    found = {}
    model, _ = trained("L^B", None)
    bayesian, _ = trained("full VB", None)
    found["evaluate"] = np.array([*evaluate(model, DATA, 1, comm=comm).values()])
    found["evaluate dynamic"] = np.array([*evaluate(model, DATA, 1, "dynamic", comm=comm).values()])
    for posterior in ("gaussian", "full"):
        use = information(VAE(**SIZES, posterior=posterior), DATA, 1, comm=comm)
        names = ("rate", "kl", "variance", "mutual_information", "error", "most")
        found |= {f"information, {posterior}: {name}": np.array(getattr(use, name)) for name in names}
    alone = information(VAE(**SIZES), DATA[:1], 1, comm=comm)  # all ranks but one have no row
    found["information of one row"] = np.array([alone.rate, alone.mutual_information, *alone.kl])
    found["evaluate_theta"] = np.array([*evaluate_theta(bayesian, DATA, 2, 1, comm=comm).values()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k_hat, and of chains that were tuned too briefly
        finished = []
        for part, estimate in {
            "importance": importance(model, DATA, 50, 1, finished.append, comm=comm),
            "importance of one row": importance(model, DATA[:1], 50, 1, comm=comm),
            "annealed": annealed(model, DATA[:7], 25, 4, comm=comm),
            "annealed of one row": annealed(model, DATA[:1], 25, 4, comm=comm),
            "sandwich, upper": sandwich(model, 5, 25, 4, comm=comm).upper,
            "appendix_d": appendix_d(model, DATA[:7], 40, seed=1, burn_in=20, comm=comm),
            "appendix_d of one row": appendix_d(model, DATA[:1], 40, "kernel", seed=1, burn_in=20, comm=comm),
        }.items():
            known = {key: value for key, value in vars(estimate).items() if value is not None}
            known = {"log_p": known["log_p"]} if part == "sandwich, upper" else known  # of which nothing more is known
            found |= {f"{part}: {key}": value for key, value in known.items()}
        found["importance: progress"] = np.array(sum(finished))
        for shared in (False, True):
            with ranks_of(comm) as ranks:
                z = np.random.default_rng(2).standard_normal((9, 3))
                target = log_joint(model.decoder, DATA[:9][ranks.share(9).rows])
                walked = sample(target, z, np.random.default_rng(3), 5, 10, shared=shared, comm=ranks)
            found |= {f"hmc {shared}: {key}": np.array(value) for key, value in vars(walked).items()}
        point = VAE(**SIZES)
        history = fit_mcem(point, DATA, samples=20_000, batch_size=10, seed=3, comm=comm)
    found["mcem: parameters"] = point.params.value
    found["mcem: bound"] = history["train_bound"]
    return found


def resumed(comm, folder):
    """The parameters of a run that stopped after 100 steps, and was gone on with, and those of one that was not."""
    found = {}
    for name in ("L^B", "full VB local"):
        run = folder / name.replace(" ", "-").replace("^", "")
        trained(name, comm, samples=400, out=run)
        model, history = trained(name, comm, samples=900, out=run, resume=True)
        found[f"{name} resumed: parameters"] = model.params.value
        found[f"{name} resumed: history"] = history[:, -1]
    patient = {"out": folder / "patient", "optimizer": Adam(0.05), "patience": 3, "log_every": 60}
    trained("gaussian", comm, samples=300, **patient)
    model, history = trained("gaussian", comm, samples=60_000, resume=True, **patient)
    found["patient: parameters"] = model.params.value
    found["patient: samples"] = history[1]
    point = VAE(**SIZES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for samples in (5000, 9000):
            fit_mcem(point, DATA, samples=samples, batch_size=10, out=folder / "em", resume=samples > 5000, comm=comm)
    found["mcem resumed: parameters"] = point.params.value
    return found


def same_twice(comm):
    """Whether a second training has the same bits, and one between machines, whose parts are sent."""
    first, history = trained("full VB antithetic", comm, Adam(0.01))
    kept = Ranks(comm)  # those of a user serve any number of calls
    bounds = [evaluate(first, DATA, 1, comm=kept)["bound"] for _ in range(2)]
    with apart(comm) as ranks:
        sent, sent_history = trained("full VB antithetic", ranks, Adam(0.01))
    again, again_history = trained("full VB antithetic", comm, Adam(0.01))
    bits = [np.array_equal(first.params.value, other.params.value) for other in (sent, again)]
    bits += [np.array_equal(history, other) for other in (sent_history, again_history)]
    return {"to the bit": np.array([*bits, bounds[0] == bounds[1]])}


def on_devices(comm):
    """The parameters and the history of models on the stand-in for CuPy, each rank on a device of its own."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        for name in ("L^B", "full VB local"):
            kind, options = MODELS[name]
            model = kind(**SIZES | options, backend="cupy")
            settings = {"samples": 600, "batch_size": 10, "patience": 3, "log_every": 60}
            history = fit(model, DATA, VALID, optimizer=Adam(0.01), comm=comm, **settings)
            found[f"{name} on devices: parameters"] = model.params.value.get()
            found[f"{name} on devices: history"] = np.array([history["train_bound"], history["valid_bound"]])
    return found


class Failing(VAE):
    """A model that fails on one rank, or on all of them, in its fifth step."""

    def __init__(self, ranks, error):
        super().__init__(**SIZES)
        self.calls = 0
        self.fails = ranks
        self.error = error

    def bound(self, *arguments, **settings):
        self.calls += 1
        if self.calls == 5 and self.fails:
            raise self.error
        return super().bound(*arguments, **settings)


def apart(comm):
    """The ranks, as if each were on a machine of its own."""
    ranks = ranks_of(comm)
    ranks.on_machine = 1
    return ranks


def told(comm, function):
    """The class and text of the error that function() raises on each rank."""
    try:
        function()
        text = "nothing"
    except Exception as error:
        text = f"{type(error).__name__}: {_text_of(error)}"
    return comm.allgather(text)


class Clipping(SGD):
    """An optimiser that looks at the whole gradient."""

    def ascend(self, params, step, part=slice(None)):
        params.grad /= max(1, np.linalg.norm(params.grad))
        super().ascend(params, step, part)


class FailingOptimizer(SGD):
    """An optimiser that fails on one rank in its third step, in which the others may be slower by so many seconds."""

    def __init__(self, fails, pause=0.0):
        super().__init__(1e-4)
        self.fails = [fails]  # no number, which the ranks would compare
        self.pause = pause

    def update(self, step, *vectors):
        if step == 3 and self.fails[0]:
            raise OSError("the update has failed")
        if step == 3:
            time.sleep(self.pause)
        super().update(step, *vectors)


class Loud(VAE):
    """A model whose copy cannot be tried on one rank."""

    def __init__(self, fails):
        super().__init__(**SIZES)
        self.fails = [fails]  # no number, which the ranks would compare

    def noise(self, generator, n):
        if self.fails[0] and n == 2:
            raise OSError("no noise")
        return super().noise(generator, n)


def coupled(q, p, x, eps, scale, gradient=True):
    """L^A times the number of rows: the rows act on each other."""
    from scratchvae.inference.objectives.sgvb import sgvb_a

    return sgvb_a(q, p, x, eps, scale * len(x), gradient)


class SpeechlessError(Exception):
    """An error that cannot say what it is."""

    def __str__(self):
        return self.missing


class Annealed:
    """L^A times a number that grows with every call: an objective with a state."""

    __name__ = "annealed"

    def __init__(self):
        self.calls = 0

    def __call__(self, q, p, x, eps, scale, gradient=True):
        from scratchvae.inference.objectives.sgvb import sgvb_a

        self.calls += 1
        return sgvb_a(q, p, x, eps, scale * min(1.0, self.calls / 20), gradient)


class Keeping(SGD):
    """An optimiser that keeps a view of the parameters while they lie in the memory that the ranks share."""

    def update(self, step, value, *more):
        self.kept = [value]
        super().update(step, value, *more)


@dataclass
class Rows:
    """A data set, as `Ranks.load` takes it."""

    rows: np.ndarray


def elsewhere(function):
    """Call function() while another thread holds the model that it takes."""

    def held(model):
        begun, done = threading.Event(), threading.Event()

        def hold():
            with model.guard:
                begun.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        begun.wait()
        try:
            return function(model)
        finally:
            done.set()
            thread.join()

    return held


def after_faults(comm):
    """What has to hold after an error on one rank, as booleans: everything that was shared is given back."""
    last = comm.rank == comm.size - 1
    options = {"batch_size": 10, "samples": 500}
    found = {}
    model = VAE(**SIZES)
    told(comm, lambda: fit(model, DATA, optimizer=FailingOptimizer(last, 0.2), comm=comm, **options))
    found["the model is whole"] = evaluate(model, DATA, 1, comm=comm)["n"] == len(DATA)  # which compares the parameters
    with Ranks(comm) as outer:
        part = comm.Split(0 if comm.rank < 2 else 1)  # with three ranks one is by itself
        texts = told(comm, lambda: nested(outer, part, last))
    found["all hear of an error in a part of them"] = "nothing" not in texts
    for _ in range(1100):
        text = told(comm, lambda: fit(model, DATA, batch_size=0 if last else 10, comm=comm))
    found["any number of errors"] = "batch_size is 0" in text[0] and "batch_size is 0" in text[-1]
    for _ in range(300):
        with Ranks(comm, for_one_call=True) as ranks:
            loaded = ranks.load(lambda: Rows(DATA))
    found["any number of data sets"] = np.array_equal(loaded.rows, DATA) and not loaded.rows.flags.writeable
    optimizer = Keeping(1e-4)
    fit(model, DATA, optimizer=optimizer, comm=comm, **options)
    found["a view of shared memory can be read later"] = bool(np.isfinite(optimizer.kept[0]).all())
    alone = VAE(**SIZES, estimator=Annealed())
    fit(alone, DATA, **options)
    together = VAE(**SIZES, estimator=Annealed())
    fit(together, DATA, comm=comm, **options)
    found["an objective with a state"] = np.allclose(alone.params.value, together.params.value, rtol=1e-9, atol=1e-12)
    comm.Barrier()
    found["no file is left"] = not any(Path(SHARED).glob("scratchvae-*"))
    for wrong in (2, comm.Get_group(), type(comm)()):  # the last is MPI.COMM_NULL
        texts = told(comm, lambda wrong=wrong: fit(model, DATA, comm=wrong, **options))
        found[f"{type(wrong).__name__} is refused"] = all("expected a communicator" in text for text in texts)
    return {f"holds: {name}": np.array(bool(value)) for name, value in found.items()}


def nested(outer, part, fails):
    """A training by a part of the ranks, in which the last rank of all fails."""
    with outer:
        fit(Failing(fails, OSError("No space left on device")), DATA, batch_size=10, samples=500, comm=part)
        outer.meet()


def faults(comm, folder):
    """What each rank says of an error, as text."""
    mine = comm.rank
    last = comm.size - 1
    disk = OSError("No space left on device")
    there = folder / "not-a-folder"
    if mine == 0:
        there.write_text("a file", encoding="utf-8")
    comm.Barrier()
    options = {"batch_size": 10, "samples": 500, "comm": comm}
    kept = Ranks(comm)
    told(comm, lambda: fit(Failing(mine == last, disk), DATA, **options | {"comm": kept}))  # once before "again"
    cases = {
        "one": lambda: fit(Failing(mine == last, disk), DATA, **options),
        "all": lambda: fit(Failing(True, disk), DATA, **options),
        "memory": lambda: fit(Failing(mine == last, MemoryError("none left")), DATA, **options),
        "folder": lambda: fit(VAE(**SIZES), DATA, out=there, **options),
        "seed": lambda: fit(VAE(**SIZES), DATA, seed=mine, **options),
        "data": lambda: fit(VAE(**SIZES), DATA + (mine == last) * 1e-9, **options),
        "model": lambda: fit(VAE(**SIZES, seed=mine), DATA, **options),
        "samples": lambda: fit(VAE(**SIZES), DATA, batch_size=10, samples=500 + mine, comm=comm),
        "patience": lambda: fit(VAE(**SIZES), DATA, VALID, patience=1 + mine, **options),
        "argument": lambda: fit(VAE(**SIZES), DATA, batch_size=0 if mine == last else 10, samples=500, comm=comm),
        "rows": lambda: fit(VAE(**SIZES), DATA, batch_size=1, samples=500, comm=comm),
        "coupled": lambda: fit(VAE(**SIZES, estimator=coupled), DATA, **options),
        "diverged": lambda: fit(VAE(**SIZES), DATA, optimizer=SGD(1e300), **options),
        "clipping": lambda: fit(VAE(**SIZES), DATA, optimizer=Clipping(1e-4), **options),
        "update": lambda: fit(VAE(**SIZES), DATA, optimizer=FailingOptimizer(mine == last), **options),
        "sent": lambda: fit(
            VAE(**SIZES), DATA, optimizer=FailingOptimizer(mine == last), **options | {"comm": apart(comm)}
        ),
        "trial": lambda: fit(Loud(mine == last), DATA, **options),
        "look": lambda: evaluate(VAE(**SIZES), DATA * (1 - 0.1 * (mine == last)), 1, comm=comm),
        "memory of the machine": lambda: fit(VAE(**SIZES), DATA, **options),
        "importance": lambda: importance(VAE(**SIZES), DATA, 0 if mine == last else 5, comm=comm),
        "generator": lambda: sample(None, np.zeros((9, 2)), np.random.default_rng(mine), 5, comm=comm),
        "no model": lambda: evaluate(None if mine == last else VAE(**SIZES), DATA, comm=comm),
        "busy": lambda: (elsewhere if mine == last else lambda function: function)(
            lambda model: fit(model, DATA, **options)
        )(VAE(**SIZES)),
        "speechless": lambda: fit(Failing(mine == last, SpeechlessError()), DATA, **options),
        "again": lambda: fit(Failing(mine == last, disk), DATA, **options | {"comm": kept}),
        "chains": lambda: sample(None, np.zeros((1, 2)), np.random.default_rng(0), 5, comm=comm),
    }
    found = {}
    for name, case in cases.items():
        with pytest.MonkeyPatch.context() as patch:
            if name == "memory of the machine" and mine == 0:
                patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5))
            found[name] = np.array(told(comm, case))
    return found


def main(folder):
    """Run everything, and write what rank 0 has found."""
    folder = Path(folder)
    try:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None
    except ImportError:
        comm = None
    found = models(comm) | looks(comm) | on_devices(comm) | resumed(comm, folder)
    if comm is not None:
        found |= same_twice(comm) | faults(comm, folder) | after_faults(comm)
    if comm is None or comm.rank == 0:
        np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    main(sys.argv[1])
