"""Where the tests find data and small models."""

import contextlib
import importlib.util
import itertools
import os
import runpy
import shutil
import signal
import sys
import time
import warnings

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker; before NumPy reads it
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell; what is begun here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent / "matplotlibrc")  # small pictures of scripts

import numpy as np
import pytest
import standin

from scratchvae import VAE, gradcheck, load_data, plots
from scratchvae.backend import array_module, move
from scratchvae.gradcheck import matrix

DPI = plots.DPI
plots.DPI = 30  # and of runs: most of the time of drawing one goes into its pixels

if os.environ.get("SCRATCHVAE_STAND_IN"):  # then the tests for a device run on the stand-in, as in device.py
    sys.modules |= standin.modules()

try:
    array_module("cupy")
    NO_DEVICE = ""
except ValueError as error:
    NO_DEVICE = str(error)


def pytest_report_header():
    if os.environ.get("SCRATCHVAE_STAND_IN"):
        return "backends: numpy, and cupy's stand-in wherever a device is asked for"
    return "backends: numpy, cupy's stand-in, " + (f"no cupy ({NO_DEVICE})" if NO_DEVICE else "cupy on a device")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and NO_DEVICE:
            item.add_marker(pytest.mark.skip(reason=NO_DEVICE))


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch):
    """A run of this process leaves its pictures out, which take longer than its training, unless a test is `drawn`."""
    if not request.node.get_closest_marker("drawn"):
        monkeypatch.setattr(plots, "draw_run", lambda folder, *_, **__: [folder / "learning_curve.png"])


ON_DEVICE = [] if NO_DEVICE else [pytest.param("cupy", marks=pytest.mark.gpu)]


@pytest.fixture(params=["numpy", "standin", *ON_DEVICE])
def backend(request, monkeypatch):
    """The test runs on NumPy, on the strict stand-in for CuPy, and on CuPy itself where a device is found."""
    if request.param == "standin":
        standin.install(monkeypatch)
    monkeypatch.setattr(Here, "backend", "numpy" if request.param == "numpy" else "cupy")
    return Here.backend


@pytest.fixture
def waits(monkeypatch):
    """The stand-in in CuPy's place, and its counters."""
    return standin.install(monkeypatch)


class Here:
    """Where the test at hand puts its models."""

    backend = "numpy"


def host(values):
    """Device arrays as host arrays, in any nest of tuples, lists and dicts."""
    if isinstance(values, tuple | list):
        return type(values)(host(value) for value in values)
    if isinstance(values, dict):
        return {key: host(value) for key, value in values.items()}
    return move(values, "numpy") if type(values).__module__.startswith("cupy") else values


def device(values):
    """Host arrays as arrays of the backend of the test at hand, likewise."""
    if isinstance(values, tuple | list):
        return type(values)(device(value) for value in values)
    return move(values, Here.backend) if isinstance(values, np.ndarray) else values


class Addressed(VAE):
    """A VAE on the backend of the test at hand, to be spoken to in host arrays: its arguments and results are moved."""

    inside = True  # while it is made

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.inside = False


def _addressed(name):
    plain = getattr(VAE, name)

    def method(self, *arguments, **settings):
        if self.inside:
            return plain(self, *arguments, **settings)
        self.inside = True
        try:
            return host(plain(self, *device(arguments), **settings))
        finally:
            self.inside = False

    setattr(Addressed, name, method)


for _name in [
    "bound",
    "terms",
    "noise",
    "eps",
    "pixels",
    "encode",
    "encode_mean",
    "encode_samples",
    "decode",
    "draw",
    "reconstruct",
    "reconstruct_samples",
    "sample",
    "log_prior",
]:
    _addressed(_name)


def check_model(model, *arguments, **settings):
    """`gradcheck.check_model` of an `Addressed` model, which is spoken to in its own arrays meanwhile."""
    model.inside = True
    try:
        return gradcheck.check_model(model, *arguments, **settings)
    finally:
        model.inside = False


@contextlib.contextmanager
def cells(keep):
    """While this lasts, gradcheck's matrix is checked where keep(k, objective, settings) holds, k counted from 0.

    The other cells are left out, like those that are refused.
    """
    check_cell, number = matrix.check_cell, itertools.count()

    def some(objective, settings, *arguments):
        if not keep(next(number), objective, settings):
            raise ValueError("left out")
        return check_cell(objective, settings, *arguments)

    matrix.check_cell = some
    try:
        yield
    finally:
        matrix.check_cell = check_cell


def is_drawn(path):
    """Whether a picture shows something: more than a blank page, and more than the frame of empty axes."""
    from matplotlib.image import imread

    ink = imread(path)[..., :3].min(axis=-1) < 0.9
    return ink.mean() > 0.01


def one_in_eight(seed):
    """The share of the matrix that is checked with a seed: another one for each of eight seeds, together all of it."""
    return cells(lambda k, *_: k % 8 == seed % 8)


def vae(*arguments, **settings):
    return Addressed(*arguments, **{"backend": Here.backend} | settings)


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """No test downloads, and none sees the user's cache: only SCRATCHVAE_DATA, if it is set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*arguments, **settings):
        raise OSError("tests do not download")

    if importlib.util.find_spec("pooch"):
        monkeypatch.setattr("pooch.retrieve", refuse)


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """A function that runs a script of the examples in tmp_path, in this process: its imports are there already."""
    examples = Path(__file__).parent.parent / "examples"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(examples))

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [str(examples / f"{script}.py"), *words])
        with warnings.catch_warnings():  # of these two the scripts tell their user
            warnings.filterwarnings(
                "ignore", r"batch_size \d+ is larger than the data|.*has evaluated \d+ samples already"
            )
            runpy.run_path(sys.argv[0], run_name="__main__")  # an error ends it with SystemExit

    return run


def shared(name):
    """Skip, with the reason, where the data set is not at hand."""
    folder = os.environ.get("SCRATCHVAE_DATA")
    if not folder:
        pytest.skip(f"{name} is looked for in SCRATCHVAE_DATA, which is not set")
    if not (Path(folder) / name).is_dir():
        pytest.skip(f"SCRATCHVAE_DATA={folder} has no folder {name}")


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture(scope="session")
def mnist():
    shared("mnist")
    return load_data("mnist")


@pytest.fixture(scope="session")
def frey():
    shared("frey")
    return load_data("frey")


LIKELIHOODS = [("bernoulli", "sigmoid"), ("gaussian", "sigmoid"), ("gaussian", "free")]


def small(likelihood="bernoulli", mean="sigmoid", estimator="B", n_samples=1, **settings):
    """A float64 VAE 6-5-2 whose every parameter, biases too, is of order one."""
    settings = {
        "n_visible": 6,
        "n_hidden": 5,
        "n_latent": 2,
        "init": 0.5,
        "init_biases": True,
        "dtype": "float64",
    } | settings
    return vae(likelihood=likelihood, mean=mean, estimator=estimator, n_samples=n_samples, **settings)


def rows(m=7, d=6, seed=1):
    """m datapoints in (0, 1)."""
    return np.random.default_rng(seed).random((m, d))


def relative(ours, theirs):
    ours, theirs = host(ours), host(theirs)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="session")
def reading(tmp_path_factory):
    """The folder with the reading. The first worker that wants it builds it, and the others wait for its end.

    seconds.txt in its parent has the seconds of processor time that it took.
    """
    from scratchvae.reading import build

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, ended = shared / "reading", shared / "seconds.txt"
    try:
        (shared / "reading.claim").touch(exist_ok=False)
    except FileExistsError:
        while not ended.exists():
            time.sleep(0.1)
        return folder
    begin = time.process_time()
    try:
        build(folder)
    finally:  # after an error the others find no page
        whole = shared / "seconds.new"
        whole.write_text(str(time.process_time() - begin), encoding="utf-8")
        whole.rename(ended)
    return folder


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, or another one that is called chromium or google-chrome, started once for a file of tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def watched(page):
    """The page, with what it writes to its console in `said`, and with what it asks for in `asked`."""
    page.said = []
    page.asked = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    return page
