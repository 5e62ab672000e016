"""cli/: every option of every command arrives, by its value, where it acts, and nothing else changes with it.

Each command is run twice, without and with an option, while the functions that it calls note what they are given.
What differs between the two must be what the table says, no less and no more.
"""

import argparse
import contextlib
import inspect
import json
import re
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import standin
import threadpoolctl
from numpy.testing import assert_array_equal

from scratchvae import VAE, FullVB, bench, cli, data, fit, plots, ranks
from scratchvae.backend import move
from scratchvae.cli import main, shared, writing
from scratchvae.cli.shared import DEFAULTS
from scratchvae.gradcheck import homework, matrix
from scratchvae.inference import annealing, marginal
from scratchvae.inference import information as carried
from scratchvae.ranks import fingerprint
from scratchvae.training import loop, optim
from scratchvae.training.run import HISTORY

ABSENT = "absent"  # stands for what one of the two runs has not noted
LOAD_DATA = data.load_data
LOAD_IMAGES = data.load_images


# The functions that a command calls, and what they note


@pytest.fixture
def noted(monkeypatch, digits, tmp_path):
    """What the functions below the commands are given, as {"place.name": value}; none of them does its work."""
    return Notes(monkeypatch, digits, tmp_path)


def have_many_cores(patch):
    """Let the command line find 64 cores."""
    for module in ("shared", "train"):
        patch.setattr(f"scratchvae.cli.{module}.cores", lambda: 64)


class Notes(dict):
    """Notes what is passed on, and stands in for the work."""

    def __init__(self, monkeypatch, digits, folder):
        super().__init__()
        self.patch = monkeypatch
        self.images = digits
        self.folder = folder
        self.threads = None  # what BLAS is limited to at this moment
        monkeypatch.chdir(folder)
        have_many_cores(monkeypatch)
        monkeypatch.setattr(threadpoolctl, "threadpool_limits", self.limits)

    def put(self, place, **values):
        """Note values; what is noted twice must be the same."""
        for name, value in values.items():
            assert self.get(f"{place}.{name}", value) == value, f"{place}.{name} is passed on twice, differently"
            self[f"{place}.{name}"] = value

    def instead(self, original, stand_in):
        """Put a function in the place of `original` in every module of the package that has it."""
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "scratchvae":
                for attribute, value in list(vars(module).items()):
                    if value is original:
                        self.patch.setattr(module, attribute, stand_in)

    @contextlib.contextmanager
    def limits(self, limits=None, user_api=None):
        before = self.threads
        self.threads = (limits, user_api)
        try:
            yield
        finally:
            self.threads = before

    def load_data(self, *arguments, **settings):
        given = bound(LOAD_DATA, arguments, settings)
        self.put("load_data", **given)
        return replace(self.images, binarization=given["binarization"])

    def load_images(self, *arguments, **settings):
        given = bound(LOAD_IMAGES, arguments, settings)
        self.put("load_images", **given)
        return replace(self.images.whole(), binarization=given["binarization"])

    def part(self, x):
        """The name of the split that x is, or of the one whose first rows it is."""
        for part in ("train", "valid", "test"):
            rows = getattr(self.images, part)
            if x is rows:
                return part
            if len(x) < len(rows) and np.shares_memory(x, rows) and np.array_equal(x, rows[: len(x)]):
                return f"first {len(x)} of {part}"
        return "none of them"

    def model(self, place, model):
        optional = {"posterior": "gaussian", "flow": 0, "channels": []}
        self.put(place, **optional | model.config, is_a=type(model).__name__)
        self.put(place, backend=model.backend, draws=model.n_samples, prior_added=model.prior)


def bound(function, arguments, settings):
    """The arguments of a call by name, with the defaults."""
    call = inspect.signature(function).bind(*arguments, **settings)
    call.apply_defaults()
    return dict(call.arguments)


def changes(before, after):
    """What two notes differ in, as {key: the later value}."""
    keys = before.keys() | after.keys()
    return {key: after.get(key, ABSENT) for key in keys if before.get(key, ABSENT) != after.get(key, ABSENT)}


def words(text, folder):
    """The words of a command; {here} is the test's own folder."""
    return [word.replace("{here}", str(folder)) for word in text.split()]


def filled(expected, folder):
    """The same in the values of a row."""
    return {
        key: value.replace("{here}", str(folder)) if isinstance(value, str) else value
        for key, value in expected.items()
    }


# train


@pytest.fixture
def training(noted, capsys):
    """A function of words that trains with them, and returns what was noted."""
    trained = VAE(64, 9, 3, seed=77)  # where --warm-start begins

    def load_model(*arguments, **settings):
        noted.put("load_model", folder=str(arguments[0]))
        return trained

    def fit(model, train, valid=None, *, optimizer=None, options=None, out=None, **settings):
        noted.model("model", model)
        noted.put("fit", train=noted.part(train), valid=noted.part(valid), out=str(out), **settings)
        noted.put("optimizer", is_a=type(optimizer).__name__, **vars(optimizer))
        noted.put("options", **options)
        noted.put("blas", threads=noted.threads)
        value = move(model.params.value, "numpy")
        start = np.array_equal(value[: trained.params.value.size], trained.params.value)
        noted.put("model", begins_at_the_warm_start=start)
        noted.history = np.ones(1, HISTORY)
        noted.trained = model
        return noted.history

    def draw_run(folder, model, images, history, seed=0, use=None, progress=None, kept=None):
        assert history is noted.history and use.n == len(images.valid)
        assert_array_equal(noted.trained.to("numpy").params.value, model.params.value)
        noted.put("draw_run", folder=str(folder), seed=seed, backend=model.backend, test=noted.part(images.test))
        return [Path("learning_curve.png"), Path("reconstructions.png")]

    from scratchvae.training import run

    noted.instead(data.load_data, noted.load_data)
    noted.instead(run.load_model, load_model)
    noted.instead(run.best_of, lambda folder: None)
    noted.instead(loop.fit, fit)
    noted.instead(plots.draw_run, draw_run)

    def go(*arguments):
        noted.clear()
        capsys.readouterr()
        assert main(["train", *arguments]) == 0, capsys.readouterr().err
        noted.put("printed", anything=capsys.readouterr().out != "")
        return dict(noted)

    return go


OUT = "--out {here}/new"
PLAIN = f"{OUT} --hidden 9 --optimizer adagrad --init 0.01 --keep best"  # nothing is left for the data to imply
FULL = f"{OUT} --full-vb"


def row(more, base=OUT, options=None, **expected):
    """(words without the option, words of the option, what changes).

    Two underscores stand for the dot in a place. `options` are those of config.json that change.
    """
    expected = {key.replace("__", ".", 1): value for key, value in expected.items()}
    return base, more, expected | {f"options.{key}": value for key, value in (options or {}).items()}


TRAIN = {
    "--data": row("--data own.npy", PLAIN, {"data": "{here}/own.npy"}, load_data__name="{here}/own.npy"),
    "--data-dir": row("--data-dir folder", options={"data_dir": "{here}/folder"}, load_data__data_dir="{here}/folder"),
    "--n-train": row("--n-train 3e2", options={"n_train": 300}, load_data__n_train=300),
    "--split": row("--split 30,20,10", options={"split": [30, 20, 10]}, load_data__split=[30, 20, 10]),
    "--binarization": row(
        "--binarization dynamic",
        options={"binarization": "dynamic"},
        load_data__binarization="dynamic",
        fit__binarization="dynamic",
    ),
    "--background": row("--background 7", options={"background": 7}, load_data__background=7),
    "--color": row("--color rgb", options={"color": "rgb"}, load_data__color="rgb"),
    "--labels": row(
        "--labels",
        options={"labels": True, "test_images": fingerprint(data.load_data("digits").labelled().test)},
        model__n_classes=10,
        **dict.fromkeys(("fit__train", "fit__valid", "draw_run__test"), "none of them"),  # they have more columns
    ),
    "--likelihood": row("--likelihood laplace", options={"likelihood": "laplace"}, model__likelihood="laplace"),
    "--mean": row("--mean free", f"{OUT} --likelihood gaussian", {"mean": "free"}, model__mean="free"),
    "--latent": row("--latent 7", options={"latent": 7}, model__n_latent=7),
    "--hidden": row("--hidden 9,8", options={"hidden": [9, 8]}, model__n_hidden=[9, 8]),
    "--architecture": row(
        "--architecture conv",
        options={"architecture": "conv", "hidden": [128], "channels": [16, 32], "activation": "relu"},
        model__n_hidden=[128],
        model__channels=[16, 32],
        model__activation="relu",
    ),
    "--channels": row(
        "--channels 3",
        f"{OUT} --architecture conv",
        {"channels": [3]},
        model__channels=[3],
    ),
    "--posterior": row("--posterior full", options={"posterior": "full"}, model__posterior="full"),
    "--flow": row(
        "--flow 3",
        f"{OUT} --estimator A",
        {"flow": 3},
        model__flow=3,
    ),
    "--activation": row("--activation softplus", options={"activation": "softplus"}, model__activation="softplus"),
    "--init": row("--init 0.25", options={"init": 0.25}, model__init=0.25),
    "--init-biases": row("--init-biases", PLAIN, {"init_biases": True}, model__init_biases=True),
    "--no-prior": row("--no-prior", options={"prior": False}, model__prior=False, model__prior_added=False),
    "--full-vb": row(
        "--full-vb",
        options={"full_vb": True},
        model__is_a="FullVB",
        model__prior=ABSENT,  # it is in the bound
        model__prior_added=False,
        model__theta_noise="minibatch",
        model__alpha=1.0,
        model__learn_hyperprior=False,
        model__log_sigma=-4.0,
    ),
    "--local-reparameterization": row(
        "--local-reparameterization", FULL, {"theta_noise": "local"}, model__theta_noise="local"
    ),
    "--antithetic": row("--antithetic", FULL, {"theta_noise": "antithetic"}, model__theta_noise="antithetic"),
    "--alpha": row("--alpha 0.7", FULL, {"alpha": 0.7}, model__alpha=0.7),
    "--learn-hyperprior": row("--learn-hyperprior", FULL, {"learn_hyperprior": True}, model__learn_hyperprior=True),
    "--log-sigma": row("--log-sigma -2.5", FULL, {"log_sigma": -2.5}, model__log_sigma=-2.5),
    "--warm-start": row(
        "--warm-start folder",
        f"{FULL} --hidden 9 --latent 3",
        {"warm_start": "{here}/folder"},
        load_model__folder="{here}/folder",
        model__begins_at_the_warm_start=True,
    ),
    "--estimator": row("--estimator stl", options={"estimator": "stl"}, model__estimator="stl"),
    "--n-samples": row("--n-samples 3", options={"n_samples": 3}, model__n_samples=3, model__draws=3),
    "--beta": row("--beta 2.5", options={"beta": 2.5}, model__beta=2.5),
    "--free-bits": row("--free-bits 0.25", options={"free_bits": 0.25}, model__free_bits=0.25),
    "--kl-warmup": row("--kl-warmup 3e3", options={"kl_warmup": 3000}, fit__kl_warmup=3000),
    "--kl-cycles": row("--kl-cycles 3", f"{OUT} --kl-warmup 3e3", {"kl_cycles": 3}, fit__kl_cycles=3),
    "--samples": row("--samples 12e3", options={"samples": 12_000}, fit__samples=12_000),
    "--epochs": row("--epochs 2.5", options={"epochs": 2.5}, fit__epochs=2.5),
    "--optimizer": row(
        "--optimizer sgd",
        f"{OUT} --optimizer adagrad",
        {"optimizer": "sgd"},
        optimizer__is_a="SGD",
        optimizer__lr=1e-6,
        optimizer__eps=ABSENT,
        optimizer__warmup=ABSENT,
    ),
    "--lr": row("--lr 0.37", options={"lr": 0.37}, optimizer__lr=0.37),
    "--decay": row("--decay 41", options={"decay": 41.0}, optimizer__decay=41.0),
    "--warmup": row("--warmup 6", f"{OUT} --optimizer adagrad", {"warmup": 6}, optimizer__warmup=6),
    "--batch-size": row("--batch-size 37", options={"batch_size": 37}, fit__batch_size=37),
    "--schedule": row("--schedule alternating", options={"schedule": "alternating"}, fit__schedule="alternating"),
    "--log-every": row("--log-every 5e2", options={"log_every": 500}, fit__log_every=500),
    "--keep": row("--keep best", options={"keep": "best"}, fit__keep="best"),
    "--patience": row("--patience 7", f"{OUT} --keep best", {"patience": 7}, fit__patience=7),
    "--dtype": row("--dtype float64", options={"dtype": "float64"}, model__dtype="float64"),
    "--backend": row(
        "--backend cupy",
        options={"backend": "cupy", "threads": None},
        model__backend="cupy",
        blas__threads=(None, "blas"),
    ),
    "--threads": row("--threads 5", options={"threads": 5}, blas__threads=(5, "blas")),
    "--seed": row("--seed 19", options={"seed": 19}, model__seed=19, fit__seed=19, draw_run__seed=19),
    "--out": row("--out {here}/other", fit__out="{here}/other", draw_run__folder="{here}/other/figures"),
    "--resume": row(
        "--resume {here}/begun",
        "--hidden 9 --latent 3",
        {"seed": 8, "lr": 0.5, "threads": 2, "samples": 100},  # those that the run was begun with
        fit__out="{here}/begun",
        fit__resume=True,
        fit__samples=100,
        fit__seed=8,
        draw_run__seed=8,
        draw_run__folder="{here}/begun/figures",
        model__seed=8,
        optimizer__lr=0.5,
        blas__threads=(2, "blas"),
    ),
    "--take-over": row("--take-over", fit__take_over=True),
    "--quiet": row("--quiet", fit__progress=False, printed__anything=False),
}


@pytest.mark.parametrize("option", TRAIN)
def test_an_option_of_train_arrives_where_it_acts_and_changes_nothing_else(option, training, noted, runs, monkeypatch):
    here = prepare(noted, runs)
    base, more, expected = TRAIN[option]
    assert option in more.split()
    if "cupy" in more:
        standin.install(monkeypatch)
    before = training(*words(base, here))
    after = training(*words(f"{base} {more}", here))
    assert changes(before, after) == filled(expected, here)


OPTIONS = {  # of a run that is trained without any option
    "data": "digits",
    "data_dir": None,
    "n_train": None,
    "split": None,
    "binarization": "grey",
    "likelihood": "bernoulli",
    "mean": "sigmoid",
    "latent": 20,
    "hidden": [200],
    "architecture": "mlp",
    "channels": [],
    "posterior": "gaussian",
    "flow": 0,
    "activation": "tanh",
    "init": "glorot",
    "init_biases": False,
    "prior": True,
    "full_vb": False,
    "theta_noise": "minibatch",
    "alpha": 1.0,
    "learn_hyperprior": False,
    "log_sigma": -4.0,
    "warm_start": None,
    "estimator": "B",
    "n_samples": 1,
    "dtype": "float32",
    "backend": "numpy",
    "threads": 1,
    "optimizer": "adam",
    "lr": None,
    "warmup": 0,
    "decay": None,
    "beta": 1.0,
    "free_bits": 0.0,
    "kl_warmup": None,
    "kl_cycles": 1,
    "batch_size": 100,
    "schedule": "joint",
    "samples": None,
    "epochs": None,
    "log_every": None,
    "keep": "last",
    "patience": None,
    "seed": 0,
}


FOLDERS = {  # run folders, by what they were trained with
    "run": "--hidden 5 --latent 2 --n-samples 4",
    "full": "--hidden 5 --latent 2 --n-samples 4 --full-vb",
    "dynamic": "--hidden 5 --latent 2 --n-samples 4 --full-vb --binarization dynamic",
    "begun": "--hidden 9 --latent 3 --seed 8 --lr 0.5 --threads 2",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with these run folders."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        have_many_cores(patch)
        patch.setattr(plots, "draw_run", lambda *arguments, **settings: [folder, folder])
        for name, given in FOLDERS.items():
            command = f"train {given} --samples 100 --quiet --out {folder / name}"
            assert main(command.split()) == 0
    return folder


def prepare(noted, runs):
    """Put the data and the run folders that the rows name into the test's own folder, and return that."""
    np.save(noted.folder / "own.npy", noted.images.train)
    (noted.folder / "folder").mkdir()
    for name in FOLDERS:
        shutil.copytree(runs / name, noted.folder / name)
    return noted.folder


def test_without_options_train_takes_the_defaults_that_its_help_names(training, noted):
    found = training()
    told = {key.removeprefix("options."): value for key, value in found.items() if key.startswith("options.")}
    assert {key: told[key] for key in OPTIONS} == OPTIONS
    settings = {"train": "train", "valid": "valid", "samples": None, "epochs": None, "batch_size": 100, "seed": 0}
    settings |= {"schedule": "joint", "binarization": "grey", "log_every": None, "resume": False, "progress": None}
    settings |= {"out": "runs/digits20"}
    assert {f"fit.{key}": value for key, value in settings.items()}.items() <= found.items()
    model = {"n_visible": 64, "n_hidden": [200], "n_latent": 20, "likelihood": "bernoulli", "estimator": "B"}
    model |= {"n_samples": 1, "draws": 1, "activation": "tanh", "init": "glorot", "init_biases": False, "seed": 0}
    model |= {"prior": True, "prior_added": True, "dtype": "float32", "backend": "numpy", "is_a": "VAE"}
    assert {f"model.{key}": value for key, value in model.items()}.items() <= found.items()
    adam = {"is_a": "Adam", "lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": None}
    assert {f"optimizer.{key}": value for key, value in adam.items()}.items() <= found.items()
    assert found["blas.threads"] == (1, "blas")
    pictures = {"folder": "runs/digits20/figures", "seed": 0, "test": "test"}
    assert {f"draw_run.{key}": value for key, value in pictures.items()}.items() <= found.items()
    loaded = {"name": "digits", "data_dir": None, "n_train": None, "split": None, "binarization": "grey"}
    assert {f"load_data.{key}": value for key, value in loaded.items()}.items() <= found.items()


@pytest.mark.parametrize(
    ("name", "cls", "lr"), [("sgd", optim.SGD, 1e-6), ("adagrad", optim.Adagrad, 0.01), ("adam", optim.Adam, 0.001)]
)
def test_every_optimiser_gets_its_stepsize_and_decay_once(name, cls, lr, training):
    plain = training(*f"--out new --optimizer {name}".split())
    assert (plain["optimizer.is_a"], plain["optimizer.lr"], plain["optimizer.decay"]) == (cls.__name__, lr, None)
    given = training(*f"--out new --optimizer {name} --lr 0.3 --decay 7".split())
    assert changes(plain, given) == {
        "optimizer.lr": 0.3,
        "optimizer.decay": 7.0,
        "options.lr": 0.3,
        "options.decay": 7.0,
    }


# evaluate


@pytest.fixture
def evaluation(noted, capsys):
    """A function of words that evaluates a run with them, and returns what was noted and printed."""
    # n_samples = 4: that of the training is neither 1 nor what a row asks for
    models = {"run": VAE(64, 5, 2, n_samples=4), "full": FullVB(64, 5, 2, n_samples=4)}
    models["dynamic"] = models["full"]

    def load_model(folder, *arguments, **settings):
        assert not arguments and not settings  # it is read on the host, for all ranks
        noted.loaded = models[Path(folder).name]
        noted.loaded.to = lambda backend: noted.put("load_model", folder=str(folder), backend=backend) or noted.loaded
        noted.loaded.n_samples = 4
        return noted.loaded

    def images_of_run(run, options, changed_data=None):
        noted.put("images_of_run", run=str(run), changed_data=changed_data)
        return shared.images_of(options)

    def evaluate(*arguments, **settings):
        given = bound(functions[0], arguments, settings)
        model = given.pop("model")
        assert model is noted.loaded
        noted.put("evaluate", **given | {"x": noted.part(given["x"])}, draws=model.n_samples)
        return {"n": 180, "bound": -3.0, "kl": 1.0, "reconstruction": -2.0}

    def evaluate_theta(*arguments, **settings):
        given = bound(functions[1], arguments, settings)
        model = given.pop("model")
        assert model is noted.loaded
        noted.put("evaluate_theta", **given | {"x": noted.part(given["x"])}, draws=model.n_samples)
        return {"bound_over_theta": -4.0, "theta_kl": 90.0, "bound_22": -4.5}

    def importance(*arguments, **settings):
        given = bound(functions[2], arguments, settings)
        assert given.pop("model") is noted.loaded
        given.pop("progress")
        assert given.pop("comm") is ranks.ALONE
        assert given.pop("numbers") is None
        noted.put("importance", **given | {"x": noted.part(given["x"])})
        return marginal.Estimate(np.array([-3.5]), np.array([0.1]), np.array([9.0]), np.array([0.2]), 500)

    def evaluate_each(*arguments, **settings):
        given = bound(functions[4], arguments, settings)
        assert given.pop("model") is noted.loaded
        given.pop("progress")
        assert given.pop("comm") is ranks.ALONE
        noted.put("evaluate_each", **given | {"x": noted.part(given["x"])})
        return np.full(180, 1.0), np.full(180, 2.0)

    def write_table(path, images, columns):
        known = {name: float(column.mean()) for name, column in columns.items()}
        noted.put("write_table", path=str(path), x=noted.part(images.x), **known)

    def annealed(*arguments, **settings):
        given = bound(functions[5], arguments, settings)
        assert given.pop("model") is noted.loaded
        given.pop("progress")
        assert given.pop("comm") is ranks.ALONE
        noted.put("annealed", **given | {"x": noted.part(given["x"])})
        return marginal.Estimate(np.array([-3.25]), np.array([0.1]), np.array([9.0]), np.array([0.2]), 16)

    def sandwich(*arguments, **settings):
        given = bound(functions[6], arguments, settings)
        assert given.pop("model") is noted.loaded
        given.pop("progress")
        assert given.pop("comm") is ranks.ALONE
        noted.put("sandwich", **given)
        lower, upper = (marginal.Estimate(np.array(log_p), *np.ones((3, 2)), 16) for log_p in ([-5, -3], [-4, -3]))
        return annealing.Sandwich(lower, upper)

    def information(*arguments, **settings):
        given = bound(functions[3], arguments, settings)
        assert given.pop("model") is noted.loaded
        given.pop("progress")
        assert given.pop("comm") is ranks.ALONE
        noted.put("information", **given | {"x": noted.part(given["x"])})
        kl = np.array([0.75, 0.25])
        return carried.Information(180, 2, 1.0, kl, np.array([0.5, 0.001]), 0.5, 0.125, 0.625)

    from scratchvae.training import run

    original = run.load_model
    functions = loop.evaluate, loop.evaluate_theta, marginal.importance, carried.information, loop.evaluate_each
    functions += marginal.annealed, marginal.sandwich
    noted.instead(original, load_model)
    noted.instead(shared.images_of_run, images_of_run)
    noted.instead(data.load_data, noted.load_data)
    noted.instead(data.load_images, noted.load_images)
    noted.instead(writing.write_table, write_table)
    stand_ins = evaluate, evaluate_theta, importance, information, evaluate_each, annealed, sandwich
    for function, stand_in in zip(functions, stand_ins, strict=True):
        noted.instead(function, stand_in)

    def go(*arguments):
        noted.clear()
        capsys.readouterr()
        assert main(["evaluate", *arguments]) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        json_alone = printed.startswith("{")
        noted.put("printed", **{"json": json_alone} | (json.loads(printed) if json_alone else {}))
        return dict(noted)

    return go


JSON = "{here}/run --json"
CARRIED = {  # what --json says of the latents
    **{"rate": 1.0, "distortion": 2.0, "n_latent": 2, "active": 1, "kl_of_latents": [0.75, 0.25]},
    **{"mutual_information": 0.5, "mutual_information_error": 0.125, "mutual_information_most": 0.625},
    **{"log_n": pytest.approx(np.log(180)), "marginal_kl": 0.5, "unknown": {}},
}
EVALUATE = {
    "run": row(
        "{here}/full",
        "--json --n-theta 0",
        images_of_run__run="{here}/full",
        load_model__folder="{here}/full",
        printed__run="{here}/full",
    ),
    "--split": row("--split valid", JSON, evaluate__x="valid", information__x="valid", printed__split="valid"),
    "--all": row(
        "--all",
        f"{JSON} --data own.npy",
        **dict.fromkeys(("evaluate__x", "information__x"), "none of them"),
        **{f"load_images__{key}": value for key, value in {"name": "{here}/own.npy", "data_dir": None}.items()},
        **{f"load_images__{key}": value for key, value in {"background": None, "image_shape": [8, 8]}.items()},
        load_images__color="grey",
        **{f"{place}__{key}": ABSENT for place, key in [("images_of_run", "run"), ("images_of_run", "changed_data")]},
        **dict.fromkeys([f"load_data__{key}" for key in inspect.signature(LOAD_DATA).parameters], ABSENT),
        load_images__binarization="grey",
        printed__split="all",
    ),
    "--background": row("--background 7", f"{JSON} --all --data own.npy", load_images__background=7),
    "--scores": row(
        "--scores scores.csv",
        JSON,
        evaluate_each__x="test",
        evaluate_each__seed=0,
        evaluate_each__binarization="grey",
        write_table__path="scores.csv",
        write_table__x="test",
        **{f"write_table__{key}": value for key, value in {"bound": -3, "rate": 1, "distortion": 2}.items()},
        printed__scores="scores.csv",
    ),
    "--n-samples": row("--n-samples 6", JSON, evaluate__draws=6, printed__n_samples=6),
    "--log-likelihood": row(
        "--log-likelihood 5e2",
        JSON,
        importance__x="test",
        importance__n_samples=500,
        importance__seed=0,
        printed__log_likelihood=-3.5,
        printed__log_likelihood_by="importance",
        printed__log_likelihood_of="p(x)",
        printed__log_likelihood_samples=500,
        printed__log_likelihood_error=0.1,
        printed__log_likelihood_bias=pytest.approx(-0.005),
        printed__k_hat=0.2,
        printed__k_hat_threshold=pytest.approx(1 - 1 / np.log10(500)),
        printed__untrusted=0,
        printed__unsure=0,
        printed__not_finite=0,
    ),
    "--annealed": row(
        "--annealed 70",
        f"{JSON} --log-likelihood 16 --seed 3",
        **{f"importance__{name}": ABSENT for name in ("x", "n_samples", "seed")},
        **{f"annealed__{name}": value for name, value in {"x": "test", "seed": 3}.items()},
        **{f"{name}__n_samples": 16 for name in ("annealed", "sandwich")},
        **{f"{name}__temperatures": 70 for name in ("annealed", "sandwich")},
        **{f"{name}__steps": 2 for name in ("annealed", "sandwich")},
        printed__untrusted=1,
        sandwich__seed=3,
        sandwich__n=100,
        printed__log_likelihood=-3.25,
        printed__log_likelihood_by="annealing",
        printed__k_hat_threshold=pytest.approx(1 - 1 / np.log10(16)),
        printed__temperatures=70,
        printed__simulated=100,
        printed__simulated_lower=-4.0,
        printed__simulated_upper=-3.5,
        printed__simulated_gap=0.5,
        printed__simulated_gap_error=0.5,
    ),
    "--first": row(
        "--first 9",
        f"{JSON} --log-likelihood 500",
        **{f"{name}__x": "first 9 of test" for name in ("evaluate", "information", "importance")},
    ),
    "--n-theta": row("--n-theta 3", "{here}/full --json", evaluate_theta__n_theta=3, printed__n_theta=3),
    "--seed": row(
        "--seed 19",
        "{here}/full --json --log-likelihood 500",
        evaluate__seed=19,
        evaluate_theta__seed=19,
        importance__seed=19,
        information__seed=19,
        printed__seed=19,
    ),
    "--data-dir": row("--data-dir folder", JSON, load_data__data_dir="{here}/folder"),
    "--data": row("--data own.npy", JSON, load_data__name="{here}/own.npy", printed__data="{here}/own.npy"),
    "--changed-data": row("--changed-data", JSON, images_of_run__changed_data=True),
    "--json": row(
        "--json",
        "{here}/run",
        printed__json=True,
        **{f"printed__{key}": value for key, value in {"run": "{here}/run", "data": "digits", "split": "test"}.items()},
        **{f"printed__{key}": value for key, value in {"binarization": "grey", "n": 180, "bound": -3.0}.items()},
        **{f"printed__{key}": value for key, value in {"kl": 1.0, "reconstruction": -2.0, "n_samples": 4}.items()},
        printed__seed=0,
        **{f"printed__{key}": value for key, value in CARRIED.items()},
    ),
    "--backend": row("--backend cupy", JSON, load_model__backend="cupy"),
}


@pytest.mark.parametrize("option", EVALUATE)
def test_an_option_of_evaluate_arrives_where_it_acts_and_changes_nothing_else(option, evaluation, noted, runs):
    here = prepare(noted, runs)
    base, more, expected = EVALUATE[option]
    before = evaluation(*words(f"{base} {here}/run" if option == "run" else base, here))
    after = evaluation(*words(f"{base} {more}", here))
    assert changes(before, after) == filled(expected, here)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_everything_that_evaluate_prints_is_of_the_split_that_was_asked_for(part, evaluation, noted, runs):
    prepare(noted, runs)
    found = evaluation("full", "--json", "--split", part, "--log-likelihood", "500", "--n-samples", "2")
    assert {found[f"{place}.x"] for place in ("evaluate", "evaluate_theta", "importance")} == {part}
    assert found["evaluate.draws"] == found["evaluate_theta.draws"] == 2
    assert ("printed.bound_22" in found) == (part == "train")  # (22) belongs to the data of the training


def test_evaluate_reads_how_the_run_treats_its_pixels_and_tells_every_estimate(evaluation, noted, runs):
    prepare(noted, runs)
    found = evaluation("dynamic", "--json")
    assert found["load_data.binarization"] == found["printed.binarization"] == "dynamic"
    assert found["evaluate.binarization"] == found["evaluate_theta.binarization"] == "dynamic"


def test_estimates_that_cannot_be_trusted_are_counted_above_their_own_threshold(evaluation, noted, runs, capsys):
    prepare(noted, runs)
    k_hat = np.array([0.45, 0.55, 0.65, 0.75])
    few = marginal.Estimate(np.full(4, -3.0), np.full(4, 0.1), np.full(4, 9.0), k_hat, 100)  # its threshold is 0.5
    noted.instead(sys.modules["scratchvae.inference.marginal"].importance, lambda *arguments, **settings: few)
    found = evaluation("run", "--json", "--log-likelihood", "100")
    assert found["printed.untrusted"] == 3 and found["printed.k_hat_threshold"] == pytest.approx(0.5)
    assert main(["evaluate", "run", "--log-likelihood", "100"]) == 0
    assert "k_hat up to 0.75, above 0.50 for 3 of 180" in capsys.readouterr().out


# plot, explore, gradcheck and bench


@pytest.fixture
def plotting(noted, capsys):
    """A function of words that draws a run with them, and returns what was noted."""
    from scratchvae.training import run

    model = VAE(64, 5, 2)

    def load_model(folder, **settings):
        noted.put("load_model", folder=str(folder), **settings)
        return model

    def images_of_run(run, options, changed_data=None):
        noted.put("images_of_run", run=str(run), changed_data=changed_data)
        return shared.images_of(options)

    def draw_run(folder, given, images, history, seed=0, use=None, progress=None, kept=None):
        assert given is model and use.n == len(images.valid)
        noted.put("draw_run", folder=str(folder), seed=seed, test=noted.part(images.test), rows=history.tolist())
        return [Path("a.png")]

    noted.instead(run.load_model, load_model)
    noted.instead(data.load_data, noted.load_data)
    noted.instead(shared.images_of_run, images_of_run)
    noted.instead(plots.draw_run, draw_run)

    def go(*arguments):
        noted.clear()
        assert main(["plot", *arguments]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out == "a.png\n"
        return dict(noted)

    return go


PLOT = {
    "--changed-data": row("--changed-data", "{here}/run", images_of_run__changed_data=True),
    "run": row(
        "{here}/full",
        "",
        images_of_run__run="{here}/full",
        load_model__folder="{here}/full",
        draw_run__folder="{here}/full/figures",
        draw_run__rows=[(2, 2, 2.0, 2.0, 2.0, 2.0)],
    ),
    "--seed": row("--seed 19", "{here}/run", draw_run__seed=19),
    "--data-dir": row("--data-dir folder", "{here}/run", load_data__data_dir="{here}/folder"),
    "--data": row("--data own.npy", "{here}/run", load_data__name="{here}/own.npy"),
}


@pytest.mark.parametrize("option", PLOT)
def test_an_option_of_plot_arrives_where_it_acts_and_changes_nothing_else(option, plotting, noted, runs):
    from scratchvae.training.run import write_history

    here = prepare(noted, runs)
    for k, name in enumerate(["run", "full"], 1):
        write_history(here / name / "metrics.csv", np.full(1, k, HISTORY))
    base, more, expected = PLOT[option]
    before = plotting(*words(f"{base} {here}/run" if option == "run" else base, here))
    assert before["draw_run.test"] == "test" and before["draw_run.seed"] == 0
    after = plotting(*words(f"{base} {more}", here))
    assert changes(before, after) == filled(expected, here)


# encode, reconstruct and sample


@pytest.fixture
def using(noted, capsys):
    """A function of words that runs a command which uses a trained model, and returns what was noted."""
    from scratchvae.training import run

    model = VAE(64, 5, 2, n_samples=4)
    functions = loop.evaluate_each, loop.as_evaluated

    def load_model(folder):
        noted.put("load_model", folder=str(folder))
        model.n_samples = 4
        return model

    def images_of_run(run, options, changed_data=None):
        noted.put("images_of_run", run=str(run), changed_data=changed_data)
        return shared.images_of(options)

    def evaluate_each(*arguments, **settings):
        given = bound(functions[0], arguments, settings)
        assert given.pop("model") is model
        given.pop("progress")
        n = len(given["x"])
        noted.put("evaluate_each", **given | {"x": noted.part(given["x"])}, draws=model.n_samples)
        return np.full(n, 1.0), np.full(n, 2.0)

    def as_evaluated(*arguments, **settings):
        given = bound(functions[1], arguments, settings)
        assert given.pop("model") is model
        noted.put("as_evaluated", **given | {"x": noted.part(given["x"]), "n": len(given["x"])})
        return given["x"]

    def write_table(path, images, columns):
        shapes = {name: column.shape for name, column in columns.items()}
        noted.put("write_table", path=str(path), x=noted.part(images.x), n=len(images.x), **shapes)

    def write_arrays(path, *alone, **arrays):
        values = {name: array.tolist() for name, array in {"alone": alone[0]}.items()} if alone else {}
        noted.put("write_arrays", path=str(path), **values, **{name: a.tolist() for name, a in arrays.items()})

    noted.instead(run.load_model, load_model)
    noted.instead(data.load_data, noted.load_data)
    noted.instead(data.load_images, noted.load_images)
    noted.instead(shared.images_of_run, images_of_run)
    noted.instead(writing.write_table, write_table)
    noted.instead(writing.write_arrays, write_arrays)
    noted.instead(functions[0], evaluate_each)
    noted.instead(functions[1], as_evaluated)

    def go(*arguments):
        noted.clear()
        assert main([*arguments]) == 0, capsys.readouterr().err
        capsys.readouterr()
        return dict(noted)

    return go


def of_split(split, *places):
    """What the rows of a command note where it is shown another split."""
    n = {"train": 1437, "valid": 180, "test": 180}[split]
    return {f"{place}__x": split for place in places} | ({} if n == 180 else {f"{place}__n": n for place in places})


ENCODE = {
    "run": row("{here}/full", "--out c.csv", images_of_run__run="{here}/full", load_model__folder="{here}/full"),
    "--out": row("--out d.csv", "{here}/run --out c.csv", write_table__path="d.csv"),
    "--split": row(
        "--split valid",
        "{here}/run --out c.csv",
        **of_split("valid", "evaluate_each", "as_evaluated", "write_table"),
    ),
    "--data": row("--data own.npy", "{here}/run --out c.csv --split test", load_data__name="{here}/own.npy"),
    "--data-dir": row("--data-dir folder", "{here}/run --out c.csv", load_data__data_dir="{here}/folder"),
    "--background": row("--background 7", "{here}/run --out c.csv --data own.npy", load_images__background=7),
    "--n-samples": row("--n-samples 6", "{here}/run --out c.csv", evaluate_each__draws=6),
    "--seed": row("--seed 19", "{here}/run --out c.csv", evaluate_each__seed=19, as_evaluated__seed=19),
}
RECONSTRUCT = {
    "run": row("{here}/full", "--out c.npz", images_of_run__run="{here}/full", load_model__folder="{here}/full"),
    "--out": row("--out d.npz", "{here}/run --out c.npz", write_table__path="d.npz"),
    "--split": row("--split valid", "{here}/run --out c.npz", **of_split("valid", "as_evaluated", "write_table")),
    "--data": row("--data own.npy", "{here}/run --out c.npz --split test", load_data__name="{here}/own.npy"),
    "--data-dir": row("--data-dir folder", "{here}/run --out c.npz", load_data__data_dir="{here}/folder"),
    "--background": row("--background 7", "{here}/run --out c.npz --data own.npy", load_images__background=7),
    "--n": row(
        "--n 3",
        "{here}/run --out c.npz",
        **dict.fromkeys(("as_evaluated__x", "write_table__x"), "first 3 of test"),
        **dict.fromkeys(("as_evaluated__n", "write_table__n"), 3),
        **dict.fromkeys(("write_table__images", "write_table__reconstructions"), (3, 64)),
    ),
    "--seed": row("--seed 19", "{here}/run --out c.npz", as_evaluated__seed=19),
}


@pytest.mark.parametrize(
    ("command", "option"),
    [*(("encode", option) for option in ENCODE), *(("reconstruct", option) for option in RECONSTRUCT)],
)
def test_an_option_of_encode_or_reconstruct_arrives_where_it_acts_and_changes_nothing_else(
    command, option, using, noted, runs
):
    here = prepare(noted, runs)
    base, more, expected = {"encode": ENCODE, "reconstruct": RECONSTRUCT}[command][option]
    before = using(command, *words(f"{base} {here}/run" if option == "run" else base, here))
    assert option == "--background" or before["as_evaluated.x"] == "test"
    words_after = base.replace("--out c", "--out d") if option == "--out" else f"{base} {more}"
    after = using(command, *words(words_after, here))
    assert changes(before, after) == filled(expected, here)


@pytest.mark.parametrize("command", ["encode --out c.csv", "reconstruct --out c.npz"])
def test_data_without_a_split_are_all_images_of_a_path_which_must_have_the_size_of_the_training(
    command, using, noted, runs
):
    here = prepare(noted, runs)
    found = using(*words(f"{command} {here}/dynamic --data own.npy", here))
    given = {"name": str(here / "own.npy"), "data_dir": None, "binarization": "dynamic", "background": None}
    assert {key: found[f"load_images.{key}"] for key in given} == given
    assert found["load_images.image_shape"] == [8, 8] and found["write_table.n"] == 1797
    assert "images_of_run.run" not in found and found["as_evaluated.binarization"] == "dynamic"


def draws(seed, n=16):
    """The z that `sample` takes, and its images, of the model of `using`."""
    model = VAE(64, 5, 2, n_samples=4)
    z = np.random.default_rng(seed).standard_normal((n, 2), np.float32)
    return {"images": model.decode(z).tolist(), "z": z.tolist()}


SAMPLE = {
    "run": row("{here}/full", "--out c.npz", load_model__folder="{here}/full"),
    "--out": row("--out d.npz", "{here}/run --out c.npz", write_arrays__path="d.npz"),
    "--n": row("--n 3", "{here}/run --out c.npz", **{f"write_arrays__{k}": v for k, v in draws(0, 3).items()}),
    "--seed": row("--seed 19", "{here}/run --out c.npz", **{f"write_arrays__{k}": v for k, v in draws(19).items()}),
    "--mean": row("--mean", "{here}/run --out c.npz"),
    "--draw": row("--draw", "{here}/run --out c.npz", write_arrays__images="0 and 1"),
}


@pytest.mark.parametrize("option", SAMPLE)
def test_an_option_of_sample_arrives_where_it_acts_and_changes_nothing_else(option, using, noted, runs):
    here = prepare(noted, runs)
    base, more, expected = SAMPLE[option]
    before = using("sample", *words(f"{base} {here}/run" if option == "run" else base, here))
    assert {"images": before["write_arrays.images"], "z": before["write_arrays.z"]} == draws(0)
    words_after = base.replace("--out c", "--out d") if option == "--out" else f"{base} {more}"
    found = changes(before, using("sample", *words(words_after, here)))
    if option == "--draw":
        assert set(np.ravel(found["write_arrays.images"])) == {0, 1}
        found["write_arrays.images"] = "0 and 1"
    assert found == filled(expected, here)


@pytest.fixture
def exploring(noted, capsys):
    """A function of words that writes the page of a run with them, and returns what was noted."""
    import webbrowser

    from scratchvae import explorer
    from scratchvae.training import run

    model = VAE(64, 5, 2)

    def load_model(folder, **settings):
        noted.put("load_model", folder=str(folder), **settings)
        return model

    def images_of_run(run, options, changed_data=None):
        noted.put("images_of_run", run=str(run), changed_data=changed_data)
        return shared.images_of(options)

    def write(path, given, images, title="", use=None, most=None):
        assert given is model
        assert_array_equal(use.kl, carried.information(model, images.test).kl)
        noted.put("write", path=str(path), title=title, images=most)
        return explorer.Written(Path(path), 2_000_000, 7, 180, 0.001)

    noted.instead(run.load_model, load_model)
    noted.instead(data.load_data, noted.load_data)
    noted.instead(shared.images_of_run, images_of_run)
    noted.instead(explorer.write, write)
    noted.patch.setattr(webbrowser, "open", lambda address: noted.put("browser", address=address) or True)

    def go(*arguments):
        noted.clear()
        assert main(["explore", *arguments]) == 0, capsys.readouterr().err
        assert "2.0 MB, 7 of 180 test images; float16 changes" in capsys.readouterr().out
        return dict(noted)

    return go


EXPLORE = {
    "--changed-data": row("--changed-data", "{here}/run", images_of_run__changed_data=True),
    "run": row(
        "{here}/full",
        "",
        images_of_run__run="{here}/full",
        load_model__folder="{here}/full",
        write__path="{here}/full/explore.html",
        write__title="{here}/full",
    ),
    "--out": row("--out {here}/page.html", "{here}/run", write__path="{here}/page.html"),
    "--images": row("--images 19", "{here}/run", write__images=19),
    "--open": row("--open", "{here}/run", browser__address="file://{here}/run/explore.html"),
    "--data-dir": row("--data-dir folder", "{here}/run", load_data__data_dir="{here}/folder"),
    "--data": row("--data own.npy", "{here}/run", load_data__name="{here}/own.npy"),
}


@pytest.mark.parametrize("option", EXPLORE)
def test_an_option_of_explore_arrives_where_it_acts_and_changes_nothing_else(option, exploring, noted, runs):
    here = prepare(noted, runs)
    base, more, expected = EXPLORE[option]
    before = exploring(*words(f"{base} {here}/run" if option == "run" else base, here))
    assert before["write.path"] == f"{here}/run/explore.html" and before["write.images"] is None
    after = exploring(*words(f"{base} {more}", here))
    assert changes(before, after) == filled(expected, here)


@pytest.fixture
def checking(noted, capsys):
    """A function of words that runs gradcheck with them, and returns what was noted."""

    def noting(place, function):
        def call(*arguments, **settings):
            noted.put(place, **bound(function, arguments, settings))
            return []

        return call

    for place, function in [("check_parts", matrix.check_parts), ("check_matrix", matrix.check_matrix)]:
        noted.instead(function, noting(place, function))

    marks = homework.mark

    def mark(*arguments, **settings):
        noted.put("mark", **bound(marks, arguments, settings))
        checks = [{"name": "a", "passed": True, "rows": [], "facts": []}]
        return {"file": "a", "reason": "", "checks": checks, "not_checked": []}

    noted.patch.setattr(homework, "mark", mark)

    def go(*arguments):
        noted.clear()
        assert main(["gradcheck", *arguments]) == 0, capsys.readouterr().err
        noted.put("printed", json=capsys.readouterr().out.startswith("{"))
        return dict(noted)

    return go


FILE = "{here}/mine.py"
GRADCHECK = {
    "--seed": row("--seed 19", FILE, mark__seed=19),
    "--backend": row("--backend cupy", "", check_parts__backend="cupy", check_matrix__backend="cupy"),
    "--json": row("--json", FILE, printed__json=True),
    "--seconds": row("--seconds 7.5", FILE, mark__seconds=7.5),
    "--memory": row("--memory 0.5", FILE, mark__memory=1 << 29),
    "files": row("{here}/other.py", "", mark__path="{here}/other.py"),
}


@pytest.mark.parametrize("option", GRADCHECK)
def test_an_option_of_gradcheck_arrives_where_it_acts_and_changes_nothing_else(option, checking, noted):
    base, more, expected = GRADCHECK[option]
    for name in ("mine", "other"):
        (noted.folder / f"{name}.py").write_text("", encoding="utf-8")
    if option == "files":  # instead of the library
        assert filled(expected, noted.folder)["mark.path"] == str(checking(*words(more, noted.folder))["mark.path"])
        return
    before = checking(*words(base, noted.folder))
    assert changes(before, checking(*words(f"{base} {more}", noted.folder))) == expected


def test_the_seed_of_gradcheck_arrives_in_the_librarys_checks_too(checking):
    before = checking()
    assert (before["check_parts.seed"], before["check_matrix.backend"]) == (0, "numpy")
    assert changes(before, checking("--seed", "19")) == {"check_parts.seed": 19, "check_matrix.seed": 19}


@pytest.fixture
def exercising(noted, capsys):
    """A function of words that runs exercise with them, and returns what was noted, printed and written."""
    marks = homework.mark

    def mark(*arguments, **settings):
        given = bound(marks, arguments, settings)
        noted.put("mark", path=str(given["path"]), seconds=given["seconds"], number=given["checks"][1])
        checks = [{"name": "a", "passed": True, "rows": [], "facts": []}]
        return {"file": "a", "reason": "", "checks": checks, "not_checked": [], "printed": ""}

    noted.patch.setattr(homework, "mark", mark)

    def go(*arguments):
        noted.clear()
        assert main(["exercise", *arguments]) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        noted.put("printed", first=shown.splitlines()[0])
        noted.put("folder", files=sorted(path.name for path in noted.folder.glob("*.py")))
        return dict(noted)

    return go


LISTED = " 1  back through tanh                                    -"
SHOWN = "Exercise 5: two heads that read one h"
TWO = "The total derivative of h has a term for each head, and the terms add up."
STARTED = "exercise_05.py is written. Put lines in the place of NotImplementedError, and then"
MADE = ["exercise_05.py", "mine.py"]
EXERCISE = {
    "number": row("5", "", printed__first=SHOWN),
    "file": row("mine.py", "5", printed__first="", mark__path="mine.py", mark__seconds=20.0, mark__number="5"),
    "--start": row("--start", "5", printed__first=STARTED, folder__files=MADE),
    "--hint": row("--hint", "5", printed__first=TWO),
    "--seconds": row("--seconds 7.5", "5 mine.py", mark__seconds=7.5),
}


@pytest.mark.parametrize("option", EXERCISE)
def test_an_option_of_exercise_arrives_where_it_acts_and_changes_nothing_else(option, exercising, noted):
    (noted.folder / "mine.py").write_text("", encoding="utf-8")
    base, more, expected = EXERCISE[option]
    before = exercising(*words(base, noted.folder))
    assert option != "number" or before["printed.first"] == LISTED
    after = exercising(*words(f"{base} {more}", noted.folder))
    assert changes(before, after) == expected


@pytest.fixture
def reading(noted, capsys):
    """A function of words that runs read with them, and returns what was noted."""
    import webbrowser

    from scratchvae import reading

    noted.patch.setattr(reading, "build", lambda out: noted.put("build", out=str(out)) or [Path(out) / "index.html"])
    noted.patch.setattr(webbrowser, "open", lambda address: noted.put("browser", address=address) or True)

    def go(*arguments):
        noted.clear()
        assert main(["read", *arguments]) == 0, capsys.readouterr().err
        return dict(noted)

    return go


READ = {
    "--out": row("--out {here}/pages", "", build__out="{here}/pages"),
    "--open": row("--open", "--out {here}/pages", browser__address="file://{here}/pages/index.html"),
}


@pytest.mark.parametrize("option", READ)
def test_an_option_of_read_arrives_where_it_acts_and_changes_nothing_else(option, reading, noted):
    base, more, expected = READ[option]
    before = reading(*words(base, noted.folder))
    assert option != "--out" or before == {"build.out": "runs/reading"}
    after = reading(*words(f"{base} {more}", noted.folder))
    assert changes(before, after) == filled(expected, noted.folder)


@pytest.fixture
def benching(noted, capsys):
    """A function of words that runs bench with them, and returns what was noted."""
    times = [{"ms": 1.0, "products_ms": 0.5}] * 6
    machine = {"cpu": "a", "cores": 1, "blas": [], "numpy": "2", "commit": "c"}

    def note(workloads, repeats):
        for field in fields(bench.Workload):
            given = {getattr(work, field.name) for work in workloads}
            noted.put("run", **{field.name: sorted(given, key=str)})
        noted.put("run", repeats=repeats)
        noted.put("blas", threads=noted.threads)

    def profile(workload, repeats=10):
        note([workload], repeats)
        noted.put("done", profile=True)
        found = {"workload": workload.as_row(), "operations": [], "step_ms": 1.0, "between_ms": 1.0}
        return found | {"machine": machine, "samples_per_s": 1, "peaks": dict.fromkeys(PEAKS, 1.0)}

    def against(workloads, revision, repeats=10):
        note(workloads, repeats)
        noted.put("done", against=revision)
        return {"machine": machine, "against": "abc", "repeats": repeats, "rows": []}

    def older(path):
        noted.put("done", compare=str(path))
        work = bench.Workload(n_latent=3)
        return {"machine": machine, "rows": [bench.summary(work, 3, times)]}

    def run(workloads, repeats=10, progress=None):
        note(workloads, repeats)
        peaks = {f"{b} {d}": 10.0 for b in ("numpy", "cupy") for d in ("float32", "float64")}
        rows = [bench.summary(work, 3, times) for work in workloads]
        starts = {"numpy": 1.0}
        return {"machine": machine, "repeats": repeats, "cold_start_s": starts, "peak_gflops": peaks, "rows": rows}

    def savefig(figure, path, **settings):
        grids = [ax.get_subplotspec().get_geometry()[:2] for ax in figure.axes]
        noted.put("savefig", path=str(path), inches=tuple(figure.get_size_inches()), grids=grids)

    for original, stand_in in ((bench.run, run), (bench.profile, profile), (bench.against, against)):
        noted.instead(original, stand_in)
    noted.instead(bench.older, older)
    noted.patch.setattr(plots.Figure, "savefig", savefig)

    def go(*arguments):
        noted.clear()
        assert main(["bench", *arguments]) == 0, capsys.readouterr().err
        written = sorted(path.name for path in Path(noted.folder).glob("*/*.json"))
        noted.put("json", written=written)
        for path in Path(noted.folder).glob("*/*.json"):
            path.unlink()
        return dict(noted)

    return go


PAPER = {"run__batch_size": [100], "run__n_hidden": [500], "run__n_latent": [20], "run__n_visible": [784]}


def sizes(**given):
    """What the workloads have where sizes are given: the others are the paper's, and the model is the VAE alone."""
    return PAPER | {"run__model": ["vae"]} | {f"run__{name}": values for name, values in given.items()}


IN = "--out {here}/bench"
ALONE = PAPER | {"run__model": ["vae"], "run__dtype": ["float32"]}
PEAKS = ("gflops", "cache_gb_s", "memory_gb_s")
ROOF = {
    "savefig__path": "{here}/bench/profile.png",
    "savefig__inches": (10, 4.8),
    "savefig__grids": [(1, 1)],
}
NO_PICTURE = {"savefig__path": ABSENT, "savefig__inches": ABSENT, "savefig__grids": ABSENT}
BENCH = {
    "--profile": row("--profile", IN, **ALONE, done__profile=True, json__written=["profile.json"], **ROOF),
    "--against": row(
        "--against HEAD~1", IN, **ALONE, done__against="HEAD~1", json__written=["against.json"], **NO_PICTURE
    ),
    "--compare": row(
        "--compare old.json", IN, **ALONE | {"run__n_latent": [3], "run__batch_size": [100]}, done__compare="old.json"
    ),
    "--channels": row("--channels 2,3", IN, run__channels=[(2, 3)], run__model=["vae"]),
    "--posterior": row("--posterior full", IN, run__posterior=["full"], run__model=["vae"]),
    "--flow": row("--flow 2", IN, run__flow=[2], run__model=["vae"]),
    "--likelihood": row("--likelihood laplace", IN, run__likelihood=["laplace"], run__model=["vae"]),
    "--estimator": row("--estimator stl", IN, run__estimator=["stl"], run__model=["vae"]),
    "--n-samples": row("--n-samples 4", IN, run__n_samples=[4], run__model=["vae"]),
    "--backend": row("--backend cupy,numpy", IN, run__backend=["cupy", "numpy"]),
    "--dtype": row("--dtype float64", IN, run__dtype=["float64"]),
    "--model": row("--model vae,full-vb", IN, run__model=["full-vb", "vae"]),
    "--batch-size": row("--batch-size 5,7", IN, **sizes(batch_size=[5, 7])),
    "--hidden": row("--hidden 20,30x40", IN, **sizes(n_hidden=[(30, 40), 20])),
    "--latent": row("--latent 3,4", IN, **sizes(n_latent=[3, 4])),
    "--visible": row("--visible 50,60", IN, **sizes(n_visible=[50, 60])),
    "--repeats": row("--repeats 3", IN, run__repeats=3),
    "--threads": row("--threads 5", IN, blas__threads=(5, "blas")),
    "--out": row("--out {here}/other", IN, savefig__path="{here}/other/bench.png"),
}


@pytest.mark.parametrize("option", BENCH)
def test_an_option_of_bench_arrives_where_it_acts_and_changes_nothing_else(option, benching, noted):
    base, more, expected = BENCH[option]
    before = benching(*words(base, noted.folder))
    assert before["run.repeats"] == 10 and before["blas.threads"] is None
    assert before["json.written"] == ["bench.json"]
    assert before["run.batch_size"] == sorted(bench.SIZES["batch_size"], key=str)
    assert before["run.dtype"] == ["float32", "float64"]
    assert before["savefig.inches"] == (11, 3.2) and before["savefig.grids"] == [(1, 4)] * 4  # side by side
    after = benching(*words(f"{base} {more}", noted.folder))
    assert changes(before, after) == filled(expected, noted.folder)


# The tables are complete

TABLES = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "plot": PLOT,
    "encode": ENCODE,
    "reconstruct": RECONSTRUCT,
    "sample": SAMPLE,
    "explore": EXPLORE,
    "gradcheck": GRADCHECK,
    "exercise": EXERCISE,
    "read": READ,
    "bench": BENCH,
}


OF_CONDITIONAL = {"evaluate": {"--classify"}, "sample": {"--label"}}  # tests/test_conditional.py has these


def test_every_option_of_every_command_has_a_row():
    subparsers = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    commands = subparsers[0].choices
    assert commands.keys() == TABLES.keys()
    for name, parser in commands.items():
        actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        options = {action.option_strings[-1] if action.option_strings else action.dest for action in actions}
        options -= OF_CONDITIONAL.get(name, set())
        assert sorted(options) == sorted(TABLES[name]), name


# What holds where nothing is given


def commands():
    (subparsers,) = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return subparsers.choices


BRACKETS = r"(?:.*\()(-?[\w.]+)(?:; [^()]*)?\)$"  # at the end of the help of an option: its default


def test_the_defaults_that_stand_in_brackets_in_the_help_are_those_that_hold():
    seen = {}
    for name, parser in commands().items():
        signature = inspect.signature(parser.get_default("command")).parameters
        for action in parser._actions:
            if "default" not in (action.help or "") and (found := re.match(BRACKETS, action.help or "")):
                held = DEFAULTS if name == "train" else {key: one.default for key, one in signature.items()}
                value = held.get(action.dest, "no argument")
                if value is not None:
                    value = value[0] if isinstance(value, list) else value
                    assert f"{value:g}" == found[1] if isinstance(value, float) else str(value) == found[1], action.dest
                    seen.setdefault(name, set()).add(action.dest)
    assert seen["train"] >= {
        "latent",
        "flow",
        "activation",
        "alpha",
        "log_sigma",
        "n_samples",
        "warmup",
        "batch_size",
        "seed",
    }
    assert seen["evaluate"] == {"split", "n_theta", "seed", "backend"} and seen["plot"] == {"seed"}
    assert seen["encode"] == seen["reconstruct"] == {"seed"} and seen["sample"] == {"n", "seed"}
    assert seen["gradcheck"] == {"seed", "backend", "seconds", "memory"} and seen["bench"] == {"repeats"}


def test_the_default_among_the_names_of_an_option_is_the_one_that_holds():
    """Such as --optimizer adagrad (default), sgd or adam."""
    seen = set()
    for action in commands()["train"]._actions:
        found = re.search(r"([\w-]+) \(default\)", action.help or "")
        if found and found[1] in (action.choices or data.DATASETS):
            assert DEFAULTS[action.dest] == found[1], action.dest
            seen.add(action.dest)
    assert {"data", "likelihood", "architecture", "posterior", "optimizer", "dtype"} <= seen


def test_an_option_of_a_run_that_has_an_argument_of_a_model_or_of_fit_has_its_default():
    """So a run of the command line without options is one of `fit` and of `VAE` without arguments."""
    names = {"n_latent": "latent", "n_hidden": "hidden"}
    compared = set()
    for function in (VAE, FullVB, fit):
        for name, one in inspect.signature(function).parameters.items():
            key = names.get(name, name)
            if key in DEFAULTS and one.default is not one.empty and key not in ("optimizer", "init", "prior"):
                value = one.default.__name__ if isinstance(one.default, type) else one.default
                default = DEFAULTS[key][0] if key == "hidden" else DEFAULTS[key]
                default = tuple(default) if isinstance(default, list) else default
                if value is not None:
                    assert value == default, (function, name)
                    compared.add(key)
    assert compared >= {"latent", "hidden", "channels", "flow", "activation", "init_biases", "theta_noise", "alpha"}
    assert compared >= {"learn_hyperprior", "log_sigma", "n_samples", "batch_size", "seed", "schedule", "likelihood"}
    assert DEFAULTS["init"] == inspect.signature(VAE).parameters["init"].default == 0.01
    assert DEFAULTS["prior"] is inspect.signature(VAE).parameters["prior"].default is True
