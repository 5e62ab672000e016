"""Real training on real data, short: the main job keeps working, and learns as fast as the reference curves say."""

import ast
import errno
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import is_drawn
from numpy.testing import assert_array_equal

from scratchvae import VAE, Adagrad, Adam, fit, load_data, load_model
from scratchvae.plots import Figure
from scratchvae.ranks import ALONE
from scratchvae.training.claim import Claim
from scratchvae.training.loop import stream

EXAMPLES = Path(__file__).parent.parent / "examples"
BENCHMARKS = EXAMPLES.parent / "benchmarks"


def test_mnist_reaches_the_reference_bound_at_30_000_samples(mnist):
    model = VAE(784, 500, 20, seed=0)
    history = fit(model, mnist.train, mnist.valid[:2000], optimizer=Adagrad(0.01), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > -195  # seeds 0 to 3: -179.8 to -190.0; the start is at -543


def test_mnist_with_adam_and_glorot_learns_faster_still(mnist):
    model = VAE(784, 500, 20, init="glorot", seed=0)
    history = fit(model, mnist.train, mnist.valid[:2000], optimizer=Adam(0.001), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > -145  # seeds 0 to 3: -138.8 to -140.6


def test_frey_face_learns_through_the_gaussian_decoder(frey):
    model = VAE(560, 200, 2, likelihood="gaussian", seed=0)
    history = fit(model, frey.train, frey.valid, optimizer=Adagrad(0.01), samples=30_000, seed=0)
    assert history["valid_bound"][-1] > 600  # seeds 0 to 2: 615.9 to 624.8; the mean face with its variances has 588.5


@pytest.mark.parametrize("script", ["reconstructions", "samples", "manifold", "random_walk", "loss_curve"])
def test_every_example_runs_on_a_small_scale(script, run_example, tmp_path):
    run_example(script, "--scale", "0.0002", "--data", "digits", "--runs", "runs", "--results", "results")
    assert list((tmp_path / "results").glob("*.png")) and list((tmp_path / "results").glob("*.csv"))


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("full_vb", ["--scale", "0.0005", "--sizes", "50", "100", "--seeds", "2", "--jobs", "2", "--runs", "runs"]),
        ("full_vb_variance", ["--scale", "0.01"]),
    ],
)
def test_the_studies_of_full_vb_run_on_a_small_scale_and_go_on_where_they_stopped(
    script, settings, run_example, tmp_path
):
    for _ in range(2 if script == "full_vb" else 1):
        run_example(script, *settings, "--data", "digits", "--results", "results")
    table = (tmp_path / "results" / f"{script}.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + {"full_vb": 2 * 2 * 5, "full_vb_variance": 4 * 4 * 14}[script]
    assert not [row for row in table if "nan" in row and ",minibatch," not in row]  # z of plain against itself
    if script == "full_vb":
        assert is_drawn(tmp_path / "results" / "full_vb.png")
        assert is_drawn(tmp_path / "results" / "full_vb_uncertainty.png")


STUDIES = {  # arguments beside --scale, and the rows of the tables
    "figure2": (["--data", "digits", "--latent", "3"], {"figure2": 2 * (6 + 2 * 4)}),
    "figure3": (["--data", "digits", "--sizes", "100", "--images", "10"], {"figure3": 3 * 3}),
    "figure4": (["--data", "digits"], {"figure4": 1}),
    "figure5": (["--data", "digits", "--latent", "2", "3"], {"figure5": 2}),
    "estimators": (
        ["--data", "digits", "--seeds", "1"],
        {"estimators": 2 * 8 + 3 + 4 + 2 * 4, "estimators_variance": 2 * 2 * 4 * 4 * 11},
    ),
    "marginal": (["--data", "digits", "--images", "5"], {"marginal": 5}),
    "iwae": (["--data", "digits", "--stages", "2", "--k", "1", "3", "--images", "20", "--draws", "50"], {"iwae": 3}),
    "ladder": ([], {"ladder": 7}),
    "em": (["--data", "digits", "--seeds", "1"], {"em": 4}),
    "flow": (["--data", "digits", "--seeds", "1", "--maps", "2"], {"flow": 4}),
    "conv": (["--data", "digits"], {"conv": 2}),
    "energies": (["--maps", "2", "3", "--seeds", "1"], {"energies": 8}),
}


@pytest.mark.parametrize("script", STUDIES)
def test_the_papers_figures_run_on_a_small_scale_and_go_on_where_they_stopped(script, run_example, tmp_path):
    arguments, tables = STUDIES[script]
    scale = {"figure3": "0.001", "estimators": "0.002", "iwae": "0.05", "conv": "0.02"}.get(script, "0.0003")
    written = []
    for _ in range(2 if script in ("figure2", "figure3") else 1):
        run_example(script, *arguments, "--scale", scale, "--results", "results")
        written.append({path: path.read_bytes() for path in tmp_path.glob("results/*.csv")})
    assert written[0] == written[-1]  # what was trained is not trained again: the same seconds
    for name, count in tables.items():
        table = (tmp_path / "results" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        assert len(table) == 1 + count, name
        assert name in ("estimators", "marginal", "ladder") or "nan" not in "".join(
            table
        )  # no bound of an autoencoder, no k_hat of 20
    assert is_drawn(tmp_path / "results" / f"{script}.png")
    for config in tmp_path.glob("runs/examples/*/*/config.json"):  # what a folder is called is what was trained in it
        run = json.loads(config.read_text(encoding="utf-8"))["run"]
        assert run["model"]["estimator"] == trained_by(config.parent.name), config
        assert run.get("schedule") == (
            "alternating" if "alternating" in config.parent.name else run.get("schedule") and "joint"
        )
        assert run["model"].get("flow", 0) == (
            int(config.parent.name[0]) if config.parent.parent.name.startswith("flow") else 0
        )
        assert ("mcem" in run) == ("MCEM" in config.parent.name)


def trained_by(name):
    """The estimator that a run of an example has, by the name of its folder."""
    for word, estimator in {
        "wake-sleep": "wake-sleep",
        "IWAE": "iwae",
        "VAE-": "A",
        "autoencoder": "autoencoder",
        "2-0-": "A",  # a flow of two maps
    }.items():
        if word in name:
            return estimator
    return "A" if "-A-" in name else "B"


def test_figure_2_keeps_of_an_older_table_what_goes_further_and_draws_a_band_of_the_seeds(
    example, tmp_path, monkeypatch
):
    figure2 = example("figure2")
    head = (
        "data,latent,method,samples,train bound,validation bound,reference validation bound,train seconds,seed,commit"
    )
    far = [f"digits,3,AEVB,{samples},-3.0,-2.0,,1.0,0,old" for samples in (1000, 9000)]
    near = ["digits,3,wake-sleep,1000,-5.0,-4.0,,1.0,0,old", "digits,20,AEVB,1000,-7.0,-6.0,-8.0,1.0,0,old"]
    (tmp_path / "old.csv").write_text("\n".join([head, *near, *far, ""]), encoding="utf-8")
    words = ["--data", "digits", "--latent", "3", "--scale", "0.0003", "--results", "results", "--table", "old.csv"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figure2.py", *words])
    bands = []
    monkeypatch.setattr("matplotlib.axes.Axes.fill_between", lambda _, *band, **__: bands.append(band))
    figure2.main(ALONE)
    found = figure2.rows_of_table(tmp_path / "results" / "figure2.csv")
    ends = {key: (rows[-1]["samples"], rows[-1]["commit"] == "old") for key, rows in found.items()}
    assert ends == {
        ("digits", 3, "AEVB", 0): ("9000", True),
        ("digits", 3, "AEVB", 1): ("2037", False),
        ("digits", 3, "AEVB", 2): ("2037", False),
        ("digits", 3, "wake-sleep", 0): ("3074", False),
        ("digits", 3, "wake-sleep", 1): ("2037", False),
        ("digits", 3, "wake-sleep", 2): ("2037", False),
        ("digits", 20, "AEVB", 0): ("1000", True),
    }
    assert found["digits", 20, "AEVB", 0][0]["reference validation bound"] == "-8.0"
    of_seeds = [found["digits", 3, "wake-sleep", seed] for seed in range(3)]
    columns = np.array([figure2.column(rows, "validation bound")[:4] for rows in of_seeds])
    across, least, greatest = bands[-1]
    assert_array_equal(across, figure2.column(of_seeds[0], "samples")[:4])
    assert_array_equal(least, columns.min(axis=0))
    assert_array_equal(greatest, columns.max(axis=0))
    assert (least < greatest).all()  # the seeds are three


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train bound,", "", "has the columns .*; expected data, latent"),
        ("digits", "cifar", "has a curve of cifar by AEVB"),
        ("AEVB", "magic", "has a curve of digits by magic"),
        ("-2.0", "nan", "line 2, has validation bound 'nan'"),
        ("-2.0", "", "line 2, has validation bound ''"),
        (",old", "", "line 2, has commit None"),
        (",old", ",old,new", "line 2, has data 'digits' in .*'new'"),
        ("3,AEVB", "three,AEVB", "line 2, has latent 'three'"),
        ("\ndigits,3,AEVB,1000,-3.0,-2.0,,1.0,0,old", "", "has no rows"),
    ],
)
def test_a_table_that_is_none_is_refused_before_anything_is_trained(old, new, message, example, tmp_path, monkeypatch):
    figure2 = example("figure2")
    table = ",".join(figure2.COLUMNS) + "\ndigits,3,AEVB,1000,-3.0,-2.0,,1.0,0,old\n"
    assert figure2.rows_of_table(None) == figure2.reference_curves(None) == {}
    (tmp_path / "old.csv").write_text(table, encoding="utf-8")
    assert len(figure2.rows_of_table(tmp_path / "old.csv")) == 1
    (tmp_path / "old.csv").write_text(table.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(figure2, "train_all", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["figure2.py", "--results", str(tmp_path), "--table", str(tmp_path / "old.csv")])
    with pytest.raises(ValueError, match=rf"old\.csv.*{message}"):
        figure2.main(ALONE)


def test_a_reference_that_has_no_place_on_the_axis_is_refused(example, tmp_path):
    columns = "dataset,latent,samples_evaluated,train_bound,validation_bound\n"
    (tmp_path / "a.csv").write_text(columns + "mnist,3,0,-3,-2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv has a bound after 0 samples"):
        example("figure2").reference_curves(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(columns + "mnist,3,100,-3,-2\nmnist,3,200,-2,-1\n", encoding="utf-8")
    assert_array_equal(
        example("figure2").reference_curves(tmp_path / "a.csv")["mnist", 3], [[100, 200], [-3, -2], [-2, -1]]
    )


def test_the_variances_of_the_estimators_study_are_those_of_its_gradients(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    estimators = importlib.import_module("estimators")
    run = estimators.run_of(SimpleNamespace(data="digits", scale=0.001, runs=tmp_path))
    run.train("none")
    rows = estimators.variances(run, "trained", "A", 2, 20, 6, "none")
    model, train = VAE(64, 200, 10, estimator="A", n_samples=2), load_data("digits").train
    model.params.value[...] = load_model(run.folder).params.value
    gradients = []
    for k in range(6):
        generator = stream(0, 1, k)
        x = model.pixels(train[generator.integers(len(train), size=20)])
        model.bound(x, model.noise(generator, 20), 1, gradient=True)
        gradients.append(model.params.grad.astype(float))
    assert rows[-1]["array"] == "all"
    assert float(rows[-1]["variance over ε and minibatch"]) == pytest.approx(
        np.var(gradients, axis=0, ddof=1).sum(), rel=1e-3
    )
    assert 0 < float(rows[-1]["variance over ε"]) < float(rows[-1]["variance over ε and minibatch"])
    parts = sum(float(row["variance over ε"]) for row in rows[:-1])
    assert parts == pytest.approx(float(rows[-1]["variance over ε"]), rel=1e-2)


# What is trained or measured is not lost, and not another process's


@pytest.fixture
def example(monkeypatch):
    """A function that imports a script of examples/ as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def stage_of(example, folder, samples):
    """A small run of the kind that the pictures share."""
    return example("stages").Stage(folder, "digits", 5, 2, samples, {"init": "glorot"}, optimizer=Adam(0.001))


def test_a_stage_that_another_process_trains_is_left_as_it_is(example, tmp_path):
    stage_of(example, tmp_path / "before", 100).train("none")
    for name, before in [("first", None), ("second", tmp_path / "before")]:
        stage = stage_of(example, tmp_path / name, 300)
        claim = Claim(stage.folder)
        claim.acquire()
        (stage.folder / "half").write_text("what the other process has written", encoding="utf-8")
        with pytest.raises(ValueError, match=f"{name} is in use: process {os.getpid()} on .*; wait for it"):
            stage.train("none") if before is None else stage.start_from(before)
        assert sorted(path.name for path in stage.folder.iterdir()) == ["claim.json", "half"]
        claim.release()


def test_a_stage_that_was_interrupted_goes_on_where_it_was(example, tmp_path):
    whole = stage_of(example, tmp_path / "whole", 2000)
    whole.train("none")
    steps = []

    class Interrupted(Adam):
        def ascend(self, params, step, part):
            steps.append(step)
            if len(steps) == 12:
                signal.raise_signal(signal.SIGINT)
            super().ascend(params, step, part)

    Interrupted.__name__ = "Adam"
    folder = tmp_path / "stage"
    stage = example("stages").Stage(folder, "digits", 5, 2, 2000, {"init": "glorot"}, optimizer=Interrupted(0.001))
    with pytest.raises(KeyboardInterrupt):
        stage.train("none")
    stage.train("none")
    stage.train("none")  # it is complete: nothing is trained
    assert steps == [*range(1, 13), *range(13, len(steps) + 1)] and len(steps) > 20
    assert_array_equal(load_model(folder).params.value, load_model(whole.folder).params.value)


def test_the_stages_one_after_the_other_are_one_training(example, tmp_path):
    settings = SimpleNamespace(data="digits", scale=0.001, runs=tmp_path)
    modules = [example("stages"), example("study")]
    small = {"first": 200_000, "second": 600_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules[0], "STAGES", small)
        found = [list(modules[0].stages(2, settings)) for _ in range(2)]
    assert [title for title, *_ in found[0]] == list(small)
    data = load_data("digits")
    model = VAE(64, 500, 2, init="glorot", seed=0)
    fit(model, data.train, data.valid, optimizer=Adam(0.001), samples=600)
    for _, last, history, _ in (found[0][1], found[1][1]):
        assert_array_equal(last.params.value, model.params.value)
        assert history["samples"][-1] == 600
    assert [h["seconds"][-1] for _, _, h, _ in found[0]] == [h["seconds"][-1] for _, _, h, _ in found[1]]


def test_a_table_that_cannot_be_written_leaves_the_one_before_whole(example, tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    example("stages").write_table(path, [{"a": 1, "b": "x, y"}, {"a": 2, "b": ""}])
    before = path.read_bytes()
    assert before == b'a,b\n1,"x, y"\n2,\n'

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the file that was there before is whole"):
        example("stages").write_table(path, [{"a": 3}])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_table_of_the_panels_is_there_when_a_picture_cannot_be_drawn(example, tmp_path, monkeypatch):
    history = np.array([(100, 1.0)], [("samples", "i8"), ("seconds", "f8")])
    model = VAE(64, 5, 2)
    monkeypatch.setattr(example("stages"), "stages", lambda latent, _: [("t", model, history, load_data("digits"))] * 4)
    monkeypatch.setattr(sys, "argv", ["samples", "--results", str(tmp_path)])
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        example("stages").panels("samples", lambda *_: None, (1, 1), "x")
    assert len((tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()) == 1 + 8


def calls(tree, *names):
    """The lines of a syntax tree in which one of these functions or methods is called."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node.lineno for node in nodes if getattr(node.func, "attr", getattr(node.func, "id", "")) in names]


def test_every_example_writes_its_tables_before_its_pictures():
    seen = 0
    for path in sorted(EXAMPLES.glob("*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            tables = calls(function, "write_table")
            pictures = calls(function, "savefig", "draw")
            if isinstance(function, ast.FunctionDef) and tables and pictures:
                assert max(tables) < min(pictures), path.name
                seen += 1
    assert seen > 15  # control: the calls are found


def test_nothing_in_examples_or_benchmarks_removes_a_folder_or_writes_a_file_that_a_full_disk_would_cut():
    for path in [*EXAMPLES.glob("*.py"), *BENCHMARKS.glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert calls(tree, "rmtree", "rename", "unlink", "copyfile", "copytree", "write_text", "write_bytes") == [], (
            path
        )


@pytest.mark.parametrize("module", ["stages", "study"])
def test_a_quick_look_leaves_the_results_of_the_whole_work_alone(example, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = example("study")

    def options(*words):
        monkeypatch.setattr(sys, "argv", ["script", *words])
        return example("stages").options("x") if module == "stages" else study.parse(study.parser("x"))

    assert options("--scale", "0.01").results == Path("runs/examples/results-0.01")
    assert options("--scale", "0.01", "--results", "here").results == Path("here")
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    assert options().results == tmp_path / "results"


def test_estimates_from_other_numbers_of_images_are_kept_and_found_again(example, tmp_path):
    figure3 = example("figure3")
    run = figure3.Run(tmp_path / "run", "digits", 5, 2, 0, {}, n_train=100, held_out="test", n_held_out=20)
    few = figure3.follow(run, "AEVB", 100, [500, 900], 3, "none")
    many = figure3.follow(run, "AEVB", 100, [500, 900], 4, "none")
    kept = (run.folder / "marginal.json").read_bytes()
    assert figure3.follow(run, "AEVB", 100, [500, 900], 3, "none") == few != many
    assert (run.folder / "marginal.json").read_bytes() == kept
    assert [(row["asked for"], row["images"]) for row in few + many] == [(500, 3), (900, 3), (500, 4), (900, 4)]


def test_a_run_that_another_process_took_further_is_not_kept_as_that_of_an_earlier_moment(example, tmp_path):
    run = stage_of(example, tmp_path / "run", 3000)
    run.train("none")
    with pytest.raises(ValueError, match="has gone beyond 1,000 samples: move it away"):
        example("figure3").keep_model(run, 1000, tmp_path / "kept.npz")
    example("figure3").keep_model(run, 3000, tmp_path / "kept.npz")
    assert (tmp_path / "kept.npz").read_bytes() == (run.folder / "checkpoint.npz").read_bytes()
    assert not (run.folder / "claim.json").exists()


@pytest.mark.parametrize("script", ["conv", "inference", "job", "peers", "threads"])
def test_a_benchmark_that_could_not_write_its_numbers_says_so_before_it_measures(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    name = f"benchmark_{script}"  # examples/ has a conv of its own
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    option = "--out" if script == "threads" else "--results"
    threads = ["--threads", "2"] if script == "threads" else []
    monkeypatch.setattr(sys, "argv", [script, *threads, option, str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        module.main()
    told = capsys.readouterr().err.splitlines()[-1]
    assert "nothing can be written to" in told and "choose another folder" in told
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_after_a_call_that_failed_no_other_begins(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    study = importlib.import_module("study")
    touched = [tmp_path / name for name in "ab"]
    with pytest.raises(ValueError, match="invalid literal"):
        study.in_parallel([(int, "x"), *((Path.touch, path) for path in touched)], 1)
    assert not any(path.exists() for path in touched)
    assert study.in_parallel([(int, "3"), (int, "4"), (int, "5")], 2) == [3, 4, 5]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("figure2", ["--latent", "0"], "argument --latent: 0; expected a whole number ≥ 1"),
        ("figure3", ["--data", "mnits", "--scale", "0.001"], "error: there is no data set 'mnits'"),
        ("figure4", ["--scale", "2"], "--scale is 2; expected a fraction above 0, at most 1"),
    ],
)
def test_what_the_examples_cannot_do_is_one_line(script, arguments, message, tmp_path):
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert message in done.stderr
