"""training/patience.py: early stopping on the validation bound, and the parameters that are kept."""

import csv
import math

import numpy as np
import pytest
from conftest import is_drawn, rows, small
from numpy.testing import assert_array_equal
from test_loop import same_but_for_seconds

from scratchvae import VAE, Adagrad, Adam, FullVB, fit, load_model, plots
from scratchvae.cli import main
from scratchvae.cli.train import _passed_in_words, _with_defaults
from scratchvae.training.checkpoint import CheckpointError, load, save
from scratchvae.training.patience import Best, warmed_up
from scratchvae.training.run import HISTORY, best_of

PROTOTYPES = rows(3, seed=0) < 0.5
BEST = 720  # samples at the best validation bound of `trained`


def noisy(n, seed):
    """So many rows, each a prototype with a few pixels the other way: with twelve of them the noise is learned too."""
    generator = np.random.default_rng(seed)
    chosen = PROTOTYPES[generator.integers(3, size=n)]
    return (chosen ^ (generator.random(chosen.shape) < 0.15)).astype(float)


TRAIN, VALID = noisy(12, 1), noisy(12, 2)


def trained(out=None, model=None, samples=2000, **settings):
    """Train a model, and return it with its history. Its validation bound is at its best early."""
    model = model or VAE(6, 20, 2, seed=2, init="glorot")
    settings = {"optimizer": Adam(0.02), "batch_size": 12, "log_every": 60, "seed": 2, "out": out} | settings
    return model, fit(model, TRAIN, VALID, samples=samples, **settings)


def test_a_run_ends_when_so_many_rows_brought_no_better_bound_and_the_model_is_the_one_of_the_best():
    through = trained()[1]
    best = through["valid_bound"].argmax()
    assert through["samples"][best] == BEST and len(through) > best + 5
    for patience in (2, 3):
        model, history = trained(patience=patience)
        same_but_for_seconds(history, through[: best + 1 + patience])
        assert_array_equal(model.params.value, trained(samples=BEST)[0].params.value)


def test_a_shorter_rest_than_the_patience_is_gone_through():
    bounds = [-9.0, -8.0, -8.5, -8.5, -7.0, -7.0, -7.0]  # equal is no better
    best = Best(small().params, patience=2, since=0)
    ended = []
    for k, bound in enumerate(bounds):
        best.count([(k + 1, bound)])
        ended.append(best.is_over())
    assert ended == [False, False, False, True, False, False, True]


def test_the_run_folder_has_the_last_parameters_to_go_on_from_and_load_model_gives_the_best(tmp_path):
    model, history = trained(tmp_path, patience=3)
    assert_array_equal(load_model(tmp_path).params.value, model.params.value)
    assert best_of(tmp_path) == (BEST, history["valid_bound"].max())
    last = trained(samples=history["samples"][-1])[0]
    arrays = load(tmp_path / "checkpoint.npz")[0]
    for name, window in last.params.named(last.params.value).items():
        assert_array_equal(arrays[f"params/{name}"], window)
    trained(tmp_path / "without")
    assert best_of(tmp_path / "without") is None


@pytest.mark.parametrize("stop", [240, 840])  # before the best and after it
def test_a_run_that_was_gone_on_with_is_to_the_bit_the_one_that_never_stopped(stop, tmp_path):
    model, history = trained(tmp_path / "through", patience=4)
    trained(tmp_path / "resumed", samples=stop, patience=4)
    again, resumed = trained(tmp_path / "resumed", resume=True, patience=4)
    same_but_for_seconds(resumed, history)
    assert_array_equal(again.params.value, model.params.value)
    ours, theirs = (load(tmp_path / name / "checkpoint.npz")[0] for name in ("resumed", "through"))
    for name in ours.keys() - {"history"}:
        assert_array_equal(ours[name], theirs[name])


def test_the_end_of_a_run_off_the_grid_of_rows_counts_for_what_is_kept_and_not_for_when_it_ends(tmp_path):
    model, history = trained(tmp_path, samples=BEST - 12, patience=2)
    assert history["samples"][-1] == BEST - 12 and history["valid_bound"].argmax() == len(history) - 1
    assert best_of(tmp_path) == (BEST - 12, history["valid_bound"][-1])
    assert_array_equal(model.params.value, trained(samples=BEST - 12)[0].params.value)
    _, resumed = trained(tmp_path, resume=True, patience=2)
    same_but_for_seconds(resumed, trained(patience=2)[1])


def test_more_patience_goes_on_with_a_run_that_has_ended_and_the_same_does_not(tmp_path):
    trained(tmp_path, patience=2)
    words = r"has ended: 2 rows have brought no validation bound better than -\d\.\d\d: ask for more patience to go on"
    with pytest.warns(UserWarning, match=words):
        model, history = trained(tmp_path, resume=True, patience=2)
    same_but_for_seconds(history, trained(patience=2)[1])
    assert_array_equal(model.params.value, trained(samples=BEST)[0].params.value)
    _, history = trained(tmp_path, resume=True, patience=3)
    same_but_for_seconds(history, trained(patience=3)[1])


def test_a_run_that_has_kept_no_best_parameters_cannot_begin_to_and_one_that_has_must_go_on(tmp_path):
    for before, after in ((None, 3), (3, None)):
        folder = tmp_path / str(before)
        trained(folder, samples=60, patience=before)
        with pytest.raises(CheckpointError, match=r"it has patience (None, this run asks for 'any'|'any'.* None)"):
            trained(folder, resume=True, patience=after)


def test_a_bound_that_is_not_finite_is_never_the_best():
    best = Best(small().params, patience=2, since=0)
    for k, bound in enumerate([math.nan, -math.inf], start=1):
        best.see(k, bound)
        best.count([(k, bound)])
    assert best.is_over() and best.at.tolist() == [0, -math.inf]
    before = best.params.value.copy()
    best.value[...] = 7
    best.put_back()
    assert_array_equal(best.params.value, before)


def test_rows_of_a_warm_up_are_not_counted():
    best = Best(small().params, patience=2, since=30)
    best.count([(10, -5.0), (20, -6.0), (30, -6.0), (40, -6.0)])
    assert not best.is_over()
    best.count([(50, -6.0)])
    assert best.is_over()
    assert warmed_up(Adam(), 100, None, 1) == warmed_up(Adagrad(), 100, None, 1) == 0
    assert warmed_up(Adagrad(warmup=7), 100, None, 1) == 700
    assert warmed_up(Adagrad(warmup=7), 100, 1000, 3) == 5000  # up, full, up, full, up
    history = trained(optimizer=Adagrad(0.01, warmup=40), patience=1, samples=960)[1]
    assert history["samples"][-1] > 480
    history = trained(optimizer=Adagrad(0.01, warmup=40), patience=1, samples=1920, schedule="alternating")[1]
    assert history["samples"][-1] > 960
    history = trained(kl_warmup=600, patience=1)[1]
    assert history["samples"][-1] > 600


@pytest.mark.parametrize(
    "model",
    [
        {"kind": FullVB, "theta_noise": "local"},
        {"estimator": "autoencoder"},
        {"flow": 2},
        {"likelihood": "gaussian", "posterior": "full"},
    ],
    ids=str,
)
def test_any_model_can_be_trained_with_patience_and_is_loaded_as_it_was_kept(model, tmp_path):
    model = dict(model)
    kind = model.pop("kind", VAE)
    kept, history = trained(tmp_path, kind(6, 20, 2, **model), patience=2, samples=1200)
    assert_array_equal(load_model(tmp_path).params.value, kept.params.value)
    assert best_of(tmp_path)[1] == np.nanmax(history["valid_bound"])


def test_both_schedules_keep_the_parameters_of_the_row():
    model, history = trained(schedule="alternating", patience=2)
    best = history["samples"][history["valid_bound"].argmax()]
    assert_array_equal(model.params.value, trained(schedule="alternating", samples=best)[0].params.value)


@pytest.mark.parametrize(
    ("patience", "words"),
    [(0, "patience is 0; expected a whole number ≥ 1"), (2.5, "patience is 2.5"), (True, "patience is True")],
)
def test_patience_that_is_none_is_refused(patience, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, patience=patience)
    assert list(tmp_path.iterdir()) == []


def test_patience_without_validation_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="patience is 3, which waits for a better bound of validation rows"):
        fit(small(), TRAIN, batch_size=12, patience=3, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_best_is_of_another_kind_is_refused_with_its_name(tmp_path):
    trained(tmp_path, samples=120, patience=3)
    path = tmp_path / "checkpoint.npz"
    arrays, facts = load(path)
    save(path, arrays | {"best": np.zeros(3)}, facts)
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz has float64 \(3,\) for best; expected float64 \(2,\)"):
        load_model(tmp_path)


SHORT = ["train", "--split", "60,60,20", "--latent", "2", "--hidden", "30", "--lr", "0.01", "--log-every", "600"]
SHORT += ["--seed", "1"]


@pytest.fixture
def undrawn(monkeypatch, tmp_path):
    """Leave out the pictures of runs."""
    monkeypatch.setattr(plots, "draw_run", lambda *_, **__: [tmp_path])


def test_the_command_says_what_it_kept_and_goes_on_with_more_patience_alone(tmp_path, capsys, undrawn):
    run = str(tmp_path / "run")
    assert main([*SHORT, "--patience", "2", "--out", run]) == 0
    samples, bound = best_of(run)
    out = capsys.readouterr().out
    words = f"the best validation bound was {bound:.2f}, at {samples:,} samples"
    assert f"{words}, and 2 rows brought no better one: the run has ended; that model is kept\n" in out
    assert f"{samples + 1200:,} samples" in out  # that is where it ended
    assert main(["train", "--resume", run, "--patience", "3"]) == 0
    samples, bound = best_of(run)
    words = f"the best validation bound was {bound:.2f}, at {samples:,} samples"
    assert f"{words}, and 3 rows brought no better one" in capsys.readouterr().out
    whole = str(tmp_path / "whole")
    assert main([*SHORT, "--patience", "9", "--samples", str(samples - 60), "--out", whole]) == 0
    out = capsys.readouterr().out
    assert f"at {best_of(whole)[0]:,} samples; that model is kept\n" in out and "has ended" not in out


def test_the_command_refuses_patience_for_a_run_that_has_kept_nothing(tmp_path, capsys, undrawn):
    run = str(tmp_path / "run")
    assert main([*SHORT, "--samples", "600", "--out", run]) == 0
    assert "that model is kept" not in capsys.readouterr().out
    assert main(["train", "--resume", run, "--samples", "1200", "--patience", "3"]) == 2
    assert "was trained without --patience, and the parameters of its best validation bound are not kept" in (
        capsys.readouterr().err
    )


def history_of(bounds):
    history = np.zeros(len(bounds), HISTORY)
    history["samples"] = 1000 * np.arange(1, len(bounds) + 1)
    history["valid_bound"] = bounds
    return history


def test_a_run_without_patience_says_where_it_has_passed_its_best_bound_clearly():
    line = _passed_in_words(history_of([-200, -100, -102.1]))
    assert line.startswith("the validation bound was best at 2,000 samples, -100.00, and has fallen by 2.10 since: ")
    assert _passed_in_words(history_of([-200, -100, -101.9])) == ""  # by less than 2 % of the rise
    assert _passed_in_words(history_of([-200, -150, -100])) == ""
    assert _passed_in_words(history_of([math.nan, -200, -100, -103]))
    assert _passed_in_words(history_of([math.nan])) == _passed_in_words(history_of([])) == ""


def test_the_command_says_where_a_run_without_patience_has_passed_its_best(tmp_path, capsys, undrawn):
    words = "train --split 30,60,20 --latent 5 --hidden 100 --lr 0.01 --log-every 600 --seed 1 --samples 30000"
    assert main([*words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "the validation bound was best at 10,200 samples, -26.9" in capsys.readouterr().out


def test_own_images_have_a_patience_of_five_rows_unless_the_rows_are_given():
    def patience(**given):
        return _with_defaults(given)["patience"]

    assert patience(data="my/") == patience(data="my.npy", samples=10) == 5
    assert patience(data="my/", log_every=10) is patience(data="digits") is patience() is None
    assert patience(data="my/", patience=0) is None and patience(data="mnist", patience=7) == 7


def test_the_study_of_small_sets_runs_and_reads_histories_as_fit_does(run_example, tmp_path, capsys):
    names = run_example("small_sets", "--data", "digits", "--scale", "0.004", "--results", "results", "--runs", "runs")
    with open(tmp_path / "results" / "small_sets.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["images"] for row in table] == ["320", "320", "1000", "1000", "3200", "3200", "10000", "10000"]
    assert "with patience 5" in capsys.readouterr().out and is_drawn(tmp_path / "results" / "small_sets.png")
    bounds = np.random.default_rng(0).standard_normal((200, 40)).cumsum(axis=1)
    bounds[0] = np.arange(40)
    for row in bounds:
        best = Best(small().params, patience=5, since=0)
        end = 0
        while end < 39 and not best.is_over():
            best.count([(end + 1, row[end])])
            end += not best.is_over()
        assert names["ended"](history_of(row)) == end
