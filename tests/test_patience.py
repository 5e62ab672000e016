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
from scratchvae.training.run import HISTORY, best_of, with_latents

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


def history_of(bounds, train=None, latents=False):
    """A history with these validation bounds, a row every 10 samples, and training bounds that rise by 1 a row."""
    history = np.zeros(len(bounds), with_latents(2) if latents else HISTORY)
    history["samples"] = 10 * np.arange(1, len(bounds) + 1)
    history["valid_bound"] = bounds
    history["train_bound"] = np.arange(len(bounds)) if train is None else train
    return history


def looked(bounds, patience=2, since=0):
    """A Best that has seen rows with these bounds, and whether the run was over at each of them."""
    best = Best(small().params, "best", patience, 1.0, since)
    ended = []
    for row in history_of(bounds):
        best.see(row)
        ended.append(best.is_over())
    return best, ended


def test_a_shorter_rest_than_the_patience_is_gone_through():
    best, ended = looked([-9.0, -8.0, -8.5, -8.5, -7.0, -7.0, -7.0])  # equal is no better
    assert ended == [False, False, False, True, False, False, True]
    assert best.at[0].tolist() == [50, -7.0]
    assert not any(looked([-9.0, -10.0, -11.0, -12.0], patience=None)[1])


def test_the_run_folder_has_the_last_parameters_to_go_on_from_and_load_model_gives_the_best(tmp_path):
    model, history = trained(tmp_path, patience=3)
    assert_array_equal(load_model(tmp_path).params.value, model.params.value)
    assert best_of(tmp_path) == (BEST, history["valid_bound"].max())
    without_patience = trained(samples=1500, keep="best")[0]
    assert_array_equal(without_patience.params.value, model.params.value)
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
    for end in (BEST - 12, BEST + 12, BEST + 24, BEST + 40):
        folder = tmp_path / str(end)
        trained(folder, samples=end, patience=2)
        again, resumed = trained(folder, resume=True, patience=2)
        through, history = trained(patience=2)
        same_but_for_seconds(resumed, history)
        assert_array_equal(again.params.value, through.params.value)
        assert_array_equal(load_model(folder).params.value, through.params.value)
        assert best_of(folder) == (BEST, history["valid_bound"].max())


def test_more_patience_goes_on_with_a_run_that_has_ended_and_the_same_does_not(tmp_path):
    trained(tmp_path, patience=2)
    words = f"has ended: 2 rows have been no better than the one of {BEST} samples: ask for more patience to go on"
    with pytest.warns(UserWarning, match=words):
        model, history = trained(tmp_path, resume=True, patience=2)
    same_but_for_seconds(history, trained(patience=2)[1])
    assert_array_equal(model.params.value, trained(samples=BEST)[0].params.value)
    _, history = trained(tmp_path, resume=True, patience=3)
    same_but_for_seconds(history, trained(patience=3)[1])


def test_a_run_that_has_kept_no_best_parameters_cannot_begin_to_and_one_that_has_must_go_on(tmp_path):
    for before, after in (("last", "best"), ("best", "last")):
        folder = tmp_path / before
        trained(folder, samples=60, keep=before)
        with pytest.raises(CheckpointError, match=r"it has keep (None, this run asks for 'best'|'best'.* None)"):
            trained(folder, resume=True, keep=after)
    assert best_of(tmp_path / "last") is None


def test_a_run_that_keeps_its_best_may_get_a_patience_later(tmp_path):
    trained(tmp_path, samples=60, keep="best")
    _, history = trained(tmp_path, resume=True, patience=2)
    same_but_for_seconds(history, trained(patience=2)[1])


def test_a_checkpoint_from_before_the_first_row_gives_its_parameters(tmp_path):
    model, _ = trained(tmp_path, samples=36, patience=2, log_every=1000)
    path = tmp_path / "checkpoint.npz"
    arrays, facts = load(path)
    assert arrays["best"][0].tolist() == [0, -math.inf] and arrays["best"][1, 0] == 36
    arrays["best"][1] = 0, -math.inf  # as before the end
    arrays |= {name: np.zeros_like(array) for name, array in arrays.items() if name.startswith("best/")}
    save(path, arrays, facts)
    assert_array_equal(load_model(tmp_path).params.value, model.params.value)
    assert best_of(tmp_path) is None


def test_with_beta_a_row_is_judged_by_the_bound_with_beta():
    history = history_of([-10.0, -11.0, -12.0], latents=True)
    history["rate"] = 5.0, 2.0, 1.9
    history["distortion"] = 5.0, 9.0, 10.1
    best = Best(small().params, "best", None, 4.0, 0)
    for row in history:
        best.see(row)
    assert best.at[0].tolist() == [20, -17.0]
    model, history = trained(model=VAE(6, 20, 2, seed=2, init="glorot", beta=4.0), keep="best")
    best = (history["distortion"] + 4 * history["rate"]).argmin()
    again = trained(model=VAE(6, 20, 2, seed=2, init="glorot", beta=4.0), samples=history["samples"][best])[0]
    assert_array_equal(model.params.value, again.params.value)


def test_a_bound_that_is_not_finite_is_never_the_best():
    best, ended = looked([math.nan, -math.inf])
    assert ended == [False, True] and best.at[0].tolist() == [0, -math.inf]
    best.end(history_of([math.nan])[0])
    before = best.params.value.copy()
    best.value[...] = 7
    best.put_back()
    assert_array_equal(best.params.value, before)


def test_rows_of_a_warm_up_are_neither_counted_nor_kept():
    best, ended = looked([-5.0, -6.0, -6.0, -6.0, -6.0, -6.0], since=30)
    assert ended == [False] * 5 + [True]
    assert best.at[0].tolist() == [40, -6.0]
    best.go_on(history_of([-5.0, -6.0, -6.0, -6.0, -6.0]))
    assert best.waited == 1
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
    ("settings", "words"),
    [
        ({"patience": 0}, "patience is 0; expected a whole number ≥ 1"),
        ({"patience": 2.5}, r"patience is 2\.5"),
        ({"patience": True}, "patience is True"),
        ({"keep": "first"}, "keep is 'first'; expected one of last, best"),
        ({"keep": "last", "patience": 3}, "patience is 3 and keep is 'last', but it keeps the best"),
        ({"model": VAE(6, 5, 2, estimator="iwae"), "keep": "best"}, "keep is 'best', by the bound .* estimator 'iwae'"),
        ({"model": VAE(6, 5, 2, estimator="dreg"), "patience": 2}, "patience is 2, by the bound .* estimator 'dreg'"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_best_without_validation_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="patience is 3, by the bound of validation rows: give valid too"):
        fit(small(), TRAIN, batch_size=12, patience=3, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_best_is_of_another_kind_is_refused_with_its_name(tmp_path):
    trained(tmp_path, samples=120, patience=3)
    path = tmp_path / "checkpoint.npz"
    arrays, facts = load(path)
    for odd in (np.zeros(3), np.zeros((2, 2), "f4"), np.full((2, 2), np.nan)):
        save(path, arrays | {"best": odd}, facts)
        with pytest.raises(CheckpointError, match=r"checkpoint\.npz has float\d\d \(.*\) for best; expected float64"):
            load_model(tmp_path)


SHORT = ["train", "--split", "60,60,20", "--latent", "2", "--hidden", "30", "--lr", "0.01", "--log-every", "600"]
SHORT += ["--seed", "1"]


def test_the_command_says_what_it_kept_and_goes_on_with_more_patience_alone(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main([*SHORT, "--patience", "2", "--out", run]) == 0
    samples, bound = best_of(run)
    out = capsys.readouterr().out
    words = f"kept is the model of {samples:,} samples, with the best validation bound, {bound:.2f}"
    assert f"{words}, and 2 rows were no better: the run has ended\n" in out
    assert f"{samples + 1200:,} samples" in out  # that is where it ended
    assert main(["train", "--resume", run, "--patience", "3"]) == 0
    samples, bound = best_of(run)
    words = f"kept is the model of {samples:,} samples, with the best validation bound, {bound:.2f}"
    assert f"{words}, and 3 rows were no better" in capsys.readouterr().out
    whole = str(tmp_path / "whole")
    assert main([*SHORT, "--patience", "9", "--samples", str(samples - 60), "--out", whole]) == 0
    out = capsys.readouterr().out
    assert f"kept is the model of {best_of(whole)[0]:,} samples" in out and "has ended" not in out
    alternating = [*SHORT, "--patience", "2", "--out", str(tmp_path / "alternating"), "--schedule", "alternating"]
    assert main([*alternating, "--epochs", "4"]) == 0
    assert "has ended" not in capsys.readouterr().out


def test_the_command_refuses_patience_for_a_run_that_has_kept_nothing(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main([*SHORT, "--samples", "600", "--out", run]) == 0
    assert "kept is the model" not in capsys.readouterr().out
    assert main(["train", "--resume", run, "--samples", "1200", "--patience", "3"]) == 2
    assert "was trained without --keep best, so that the parameters of its best row are not there" in (
        capsys.readouterr().err
    )


def test_a_run_that_keeps_its_last_says_where_it_has_passed_its_best_bound_clearly():
    def line(bounds, train=None, **settings):
        return _passed_in_words(history_of(bounds, train), VAE(6, 5, 2, **settings))

    words = (
        "the validation bound was best at 20 samples, -100.00, and has fallen by 2.10 since, while that of training "
    )
    assert line([-200, -100, -102.1]).startswith(words + "rose by 1.00: a new run with --keep best keeps the model")
    assert line([-200, -100, -101.9]) == ""  # by less than 2 % of the rise
    assert line([-200, -150, -100]) == ""
    assert line([-200, -100, -103], [0, 1, 0.9]) == ""  # a bound that falls in training too is no sign of it
    assert line([math.nan, -200, -100, -103])
    assert line([math.nan]) == line([]) == ""
    assert _passed_in_words(history_of([-200, -100, -103]), VAE(6, 5, 2), since=20) == ""
    assert line([-200, -100, -103], estimator="iwae") == line([-200, -100, -103], beta=2.0) == ""


def test_the_command_says_where_a_run_that_keeps_its_last_has_passed_its_best(tmp_path, capsys):
    words = "train --split 30,60,20 --latent 5 --hidden 100 --lr 0.01 --log-every 600 --seed 1 --samples 30000"
    assert main([*words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "the validation bound was best at 10,200 samples, -26.9" in capsys.readouterr().out
    assert main([*words.split(), "--kl-warmup", "30000", "--out", str(tmp_path / "warmed")]) == 0
    assert "the validation bound was best" not in capsys.readouterr().out


def test_of_own_images_the_best_model_is_kept_where_it_can_be_judged():
    def kept(**given):
        options = _with_defaults(given)
        return options["keep"], options["patience"]

    assert kept(data="my/") == kept(data="my.npy", samples=10) == ("best", None)
    assert kept() == kept(data="digits") == kept(data="my/", keep="last") == ("last", None)
    assert kept(data="my/", estimator="iwae") == ("last", None)
    assert kept(data="mnist", patience=7) == ("best", 7)


def test_the_study_of_small_sets_runs_on_a_small_scale(run_example, tmp_path, capsys):
    run_example("small_sets", "--data", "digits", "--scale", "0.004", "--results", "results", "--runs", "runs")
    with open(tmp_path / "results" / "small_sets.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["images"] for row in table] == ["320", "320", "1000", "1000"]  # the digits are no more than 1,437
    assert "1,000 images, Adam 0.001" in capsys.readouterr().out and is_drawn(tmp_path / "results" / "small_sets.png")


def test_the_learning_curve_marks_the_model_that_is_kept(tmp_path, monkeypatch):
    marked = []
    monkeypatch.setattr(plots, "draw_run", lambda *_, kept=None: marked.append(kept) or [tmp_path])
    for keep in ("best", "last"):
        run = str(tmp_path / keep)
        assert main([*SHORT, "--samples", "1800", "--keep", keep, "--quiet", "--out", run]) == 0
        assert main(["plot", run]) == 0
    assert marked == [best_of(tmp_path / "best")[0]] * 2 + [None] * 2
