"""training/loop.py: Algorithm 1, its schedule, its history, and how it stops and resumes."""

import math
import os
import signal
import warnings

import numpy as np
import pytest
from conftest import rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, evaluate, fit, load_model
from scratchvae.data import binarise, thresholds
from scratchvae.models.regression import LinearRegression
from scratchvae.signals import interruptible
from scratchvae.training import em, loop, run
from scratchvae.training.checkpoint import CheckpointError, load, save
from scratchvae.training.claim import Claim
from scratchvae.training.em import fit_mcem
from scratchvae.training.loop import HELD_OUT, ORDER, STEP, due, evaluate_theta, stream
from scratchvae.training.posterior import fit_posterior
from scratchvae.training.run import RunFolder, read_history

TRAIN, VALID = rows(23), rows(9, seed=2)


def watched(model, look):
    """The model, calling look(x, eps, n_data) before each gradient."""
    bound = model.bound

    def looking(x, noise, n_data, gradient=False, share=None):
        if gradient:
            look(x, noise, n_data)
        return bound(x, noise, n_data, gradient, share)

    model.bound = looking
    return model


def same_but_for_seconds(history, other):
    for name in history.dtype.names:
        if name != "seconds":
            assert_array_equal(history[name], other[name])


def test_each_epoch_is_a_new_permutation_with_a_short_last_minibatch_of_its_own_scale_8():
    seen = []
    fit(watched(small(), lambda x, eps, n: seen.append((x, n))), TRAIN, epochs=4, batch_size=10)
    assert [len(x) for x, _ in seen] == [10, 10, 3] * 4
    assert {n for _, n in seen} == {23}  # n_data / len(x): the estimator scales by N/3 there, and E9 proves it
    epochs = [np.concatenate([x for x, _ in seen[k : k + 3]]) for k in range(0, 12, 3)]
    for epoch in epochs:
        assert_array_equal(np.sort(epoch, axis=0), np.sort(TRAIN, axis=0))
    assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_noise_of_a_step_is_a_function_of_seed_and_step_alone():
    seen = []
    fit(watched(small(), lambda x, eps, n: seen.append(eps)), TRAIN, epochs=1, batch_size=10, seed=7)
    for step, eps in enumerate(seen):
        assert_array_equal(eps, stream(7, STEP, step).standard_normal(eps.shape))


@pytest.mark.parametrize("make", [lambda: Adagrad(0.05), lambda: Adam(0.05)])
def test_fit_takes_the_steps_of_the_written_out_algorithm_1(make):
    model, by_hand, optimizer = small(), small(), make()
    order = stream(3, 0, 0).permutation(23)
    optimizer.start(by_hand.params)
    for step in range(3):
        x = TRAIN[order[10 * step : 10 * step + 10]]
        by_hand.bound(x, by_hand.noise(stream(3, STEP, step), len(x)), 23, gradient=True)
        by_hand.add_log_prior_gradient()
        optimizer.ascend(by_hand.params, step + 1)
    fit(model, TRAIN, optimizer=make(), epochs=1, batch_size=10, seed=3)
    assert_array_equal(model.params.value, by_hand.params.value)


def test_alternating_schedule_moves_phi_then_theta_on_one_minibatch_with_fresh_noise():
    model, moves, seen = small(), [], []
    before = model.params.value.copy()

    def look(x, eps, n):
        changed = model.params.value != before
        moves.append((changed[model.phi].any(), changed[model.theta].any()))
        seen.append((x, eps))
        before[...] = model.params.value

    history = fit(watched(model, look), TRAIN, epochs=1, batch_size=10, schedule="alternating")
    assert moves == [(False, False), (True, False), (False, True)] * 1 + [(True, False), (False, True), (True, False)]
    assert_array_equal(seen[0][0], seen[1][0])
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert history["samples"][-1] == 2 * 23 and history["epoch"][-1] == 1 and history["step"][-1] == 3


def test_length_in_samples_stops_at_the_first_step_that_reaches_them_and_in_epochs_at_their_end():
    assert fit(small(), TRAIN, samples=24, batch_size=10)["samples"][-1] == 33
    assert fit(small(), TRAIN, samples=23, batch_size=10)["samples"][-1] == 23
    assert fit(small(), TRAIN, epochs=3, batch_size=10)["epoch"][-1] == 3
    assert fit(small(), TRAIN, epochs=0.4, batch_size=10)["samples"][-1] == 10


def test_history_has_ten_rows_a_decade_or_one_every_log_every_samples():
    history = fit(small(), TRAIN, samples=20_000, batch_size=23)
    grid = 10 ** (np.arange(30, 44) / 10)
    assert_array_equal(history["samples"][:14], np.ceil(grid.round(6) / 23) * 23)
    assert len(history) == 15 and history["samples"][-1] >= 20_000
    assert_array_equal(
        fit(small(), TRAIN, samples=2300, batch_size=23, log_every=460)["samples"], 460 * np.arange(1, 6)
    )


def test_train_bound_is_the_mean_over_the_samples_since_the_row_before():
    seen = []
    model = small()
    bound = model.bound

    def record(x, noise, n_data, gradient=False, share=None):
        value = bound(x, noise, n_data, gradient, share)
        seen.append((value / n_data, len(x)))
        return value

    model.bound = record
    history = fit(model, TRAIN, epochs=4, batch_size=10, log_every=46)
    for row, start in zip(history, (0, 6), strict=True):
        values, sizes = zip(*seen[start : start + 6], strict=True)
        assert_allclose(row["train_bound"], np.average(values, weights=sizes), rtol=1e-12)
    assert np.isnan(history["valid_bound"]).all()


def test_valid_bound_is_evaluate_at_that_moment():
    model = small()
    history = fit(model, TRAIN, VALID, epochs=3, batch_size=10, seed=5)
    assert history["valid_bound"][-1] == evaluate(model, VALID, seed=5)["bound"]


FAR = np.where(np.arange(9)[:, None] < 2, 1e30, 0.5) * np.ones(6)  # two of nine rows, whose squares are not finite


@pytest.mark.filterwarnings("ignore:overflow", "ignore:valid has values of sizes")
def test_a_bound_that_is_not_finite_is_told_and_once_in_a_fit():
    words = r"the bound of {} is -inf, since that of 2 of 9 datapoints is not finite: see whether they are on the scale"
    model = VAE(6, 5, 2, likelihood="gaussian", mean="free")
    with pytest.warns(UserWarning, match=words.format("valid")) as said:
        history = fit(model, TRAIN, FAR, samples=200, batch_size=10, log_every=50)
    assert (history["valid_bound"] == -np.inf).sum() >= 4 and np.isfinite(history["train_bound"]).all()
    assert len([one for one in said if "bound" in str(one.message)]) == 1
    with pytest.warns(UserWarning, match=words.format("x")):
        assert evaluate(model, FAR)["bound"] == -np.inf
    full = FullVB(6, 5, 2, likelihood="gaussian", mean="free")
    with pytest.warns(UserWarning, match=words.format("x")) as said:
        assert evaluate_theta(full, FAR, 3)["bound_over_theta"] == -np.inf
    assert len([one for one in said if "bound" in str(one.message)]) == 1


def test_evaluate_gives_the_two_terms_per_datapoint_and_no_randomness_of_its_own_7():
    model, x = small(n_samples=2), rows(2500)
    result = evaluate(model, x, seed=1)
    assert result == evaluate(model, x, seed=1) != evaluate(model, x, seed=2)
    assert result["n"] == 2500 and result["bound"] == result["reconstruction"] - result["kl"]
    mu, log_var = model.encode(x)
    assert_allclose(result["kl"], 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum() / 2500, rtol=1e-12)


@pytest.mark.parametrize("binarization", ["grey", "dynamic"])
def test_evaluate_is_the_mean_over_blocks_of_their_own_noise_and_draws(binarization):
    model, x = small(n_samples=3), rows(700)
    kl = log_px = 0.0
    for k, start in enumerate(range(0, 700, 333)):  # 1,000 z at a time; the last block is short
        generator, block = stream(4, HELD_OUT, k), x[start : start + 333]
        if binarization == "dynamic":
            block = binarise(block, thresholds(block.shape, block.dtype, generator))
        terms = model.terms(block, model.noise(generator, len(block)))
        kl, log_px = kl - terms[0].sum(), log_px + terms[1].sum()
    result = evaluate(model, x, seed=4, binarization=binarization)
    assert_allclose([result["kl"], result["reconstruction"]], [kl / 700, log_px / 700], rtol=1e-12)
    history = fit(model, TRAIN, x, epochs=1, seed=4, batch_size=23, binarization=binarization)
    assert history["valid_bound"][-1] == evaluate(model, x, seed=4, binarization=binarization)["bound"]


def test_random_streams_of_different_purpose_seed_or_index_differ():
    draws = {
        stream(*key).random() for key in [(0, ORDER, 0), (0, STEP, 0), (0, HELD_OUT, 0), (1, ORDER, 0), (0, ORDER, 1)]
    }
    assert len(draws) == 5


def test_dynamic_binarisation_draws_each_minibatch_anew():
    seen, constant = [], np.full((10, 6), 0.3)
    fit(watched(small(), lambda x, eps, n: seen.append(x)), constant, epochs=400, batch_size=10, binarization="dynamic")
    assert set(np.unique(seen)) == {0.0, 1.0}
    assert not np.array_equal(seen[0], seen[1])
    n = np.size(seen)
    assert abs(np.mean(seen) - 0.3) / math.sqrt(0.3 * 0.7 / n) < 4.89
    assert abs(np.mean(seen) - 0.25) / math.sqrt(0.3 * 0.7 / n) > 4.89  # control


def test_training_raises_the_bound_on_real_images(digits):
    model = VAE(64, 50, 5)
    before = evaluate(model, digits.valid)["bound"]
    history = fit(model, digits.train, digits.valid, optimizer=Adam(0.003), samples=30_000)
    assert before < -44 < -30 < history["valid_bound"][-1]


@pytest.mark.parametrize("make", [lambda: SGD(1e-4), lambda: Adagrad(0.05, warmup=4), lambda: Adam(0.01)])
@pytest.mark.parametrize("schedule", ["joint", "alternating"])
def test_a_run_stopped_at_any_step_and_resumed_equals_the_unbroken_run_to_the_bit(tmp_path, make, schedule):
    def go(name, samples, resume=False):
        model, optimizer = VAE(6, 5, 2, seed=1), make()
        settings = {"batch_size": 10, "schedule": schedule, "seed": 4, "log_every": 50, "binarization": "dynamic"}
        history = fit(
            model, TRAIN, VALID, optimizer=optimizer, samples=samples, out=tmp_path / name, resume=resume, **settings
        )
        return model.params.value, optimizer.state, history

    end = 160 * (2 if schedule == "alternating" else 1)
    value, state, history = go("unbroken", end)
    for stop in range(1, end, 10):
        go(f"stopped{stop}", stop)
        resumed_value, resumed_state, resumed_history = go(f"stopped{stop}", end, resume=True)
        assert_array_equal(resumed_value, value)
        for name in state:
            assert_array_equal(resumed_state[name], state[name])
        same_but_for_seconds(resumed_history, history)
        same_but_for_seconds(read_history(tmp_path / f"stopped{stop}" / "metrics.csv"), history)


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), *((number, SystemExit) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_ends_the_step_writes_a_checkpoint_and_the_run_resumes_exactly(tmp_path, number, error):
    steps = []

    def interrupt(x, eps, n):
        steps.append(len(x))
        if len(steps) == 4:
            os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # one that is ignored, as SIGHUP under nohup, would stay so
    try:
        with pytest.raises(error):
            fit(watched(VAE(6, 5, 2), interrupt), TRAIN, VALID, samples=100, batch_size=10, out=tmp_path)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert load(tmp_path / "checkpoint.npz")[1]["progress"]["step"] == 4 == len(steps)
    resumed, unbroken = VAE(6, 5, 2), VAE(6, 5, 2)
    same_but_for_seconds(
        fit(resumed, TRAIN, VALID, samples=100, batch_size=10, out=tmp_path, resume=True),
        fit(unbroken, TRAIN, VALID, samples=100, batch_size=10),
    )
    assert_array_equal(resumed.params.value, unbroken.params.value)


def test_a_non_finite_bound_stops_with_step_and_array_and_the_last_finite_checkpoint_stays(tmp_path):
    model = VAE(6, 5, 2)
    windows = model.params.named(model.params.value)
    calls = []

    def poison(x, eps, n):
        calls.append(n)
        if len(calls) == 6:
            windows["decoder.hidden.W"][0, 0] = np.nan

    with pytest.raises(FloatingPointError, match=r"bound is nan at step 6 .*decoder\.hidden\.W"):
        fit(watched(model, poison), TRAIN, samples=1000, batch_size=10, log_every=20, out=tmp_path)
    arrays, facts = load(tmp_path / "checkpoint.npz")
    assert facts["progress"]["step"] == 5
    assert all(np.isfinite(array).all() for name, array in arrays.items() if name.startswith(("params/", "optimizer/")))
    assert np.isfinite(load_model(tmp_path).params.value).all()


@pytest.mark.parametrize(("place", "name"), [(0, "encoder.hidden.W"), (-1, "decoder.logits.b")])
def test_a_parameter_that_is_not_finite_never_reaches_a_checkpoint(tmp_path, place, name):
    model = VAE(6, 5, 2)
    ascend = Adagrad.ascend

    class Blowing(Adagrad):
        def ascend(self, params, step, part=slice(None)):
            ascend(self, params, step, part)
            if step == 3:
                params.value[place] = np.inf

    with pytest.raises(FloatingPointError, match=f"{name} is not finite after step 3"):
        fit(model, TRAIN, samples=1000, batch_size=23, log_every=69, optimizer=Blowing(), out=tmp_path)
    assert np.isfinite(load_model(tmp_path).params.value).all()


def test_diverging_by_too_large_a_step_is_the_same_clear_error():
    with pytest.raises(FloatingPointError, match="try a smaller step size"):
        fit(VAE(6, 5, 2, "gaussian", "free"), TRAIN, optimizer=SGD(10.0), samples=100_000, batch_size=10)


def test_batch_larger_than_the_data_is_clamped_with_a_warning():
    with pytest.warns(UserWarning, match="batch_size 100 is larger than the data: using all 23 datapoints"):
        history = fit(small(), TRAIN, epochs=2)
    assert history["step"][-1] == 2


def test_the_bar_is_silent_off_a_terminal_and_shows_bound_and_rate_when_asked(capfd):
    fit(small(), TRAIN, epochs=2, batch_size=10)
    assert capfd.readouterr() == ("", "")
    fit(small(), TRAIN, epochs=2, batch_size=10, progress=True)
    assert "bound -" in (shown := capfd.readouterr().err) and "samples/s" in shown


@pytest.mark.parametrize(
    "work",
    [
        lambda: fit(small(), TRAIN, epochs=2, batch_size=10, progress=True),
        lambda: fit_mcem(small(), TRAIN, samples=2 * 16 * 23, batch_size=23, progress=True),  # 10 + 1 + 5
        lambda: fit_posterior(LinearRegression(np.ones((5, 2)), np.arange(5.0)), steps=20, progress=True),
    ],
    ids=["fit", "fit_mcem", "fit_posterior"],
)
def test_a_bar_ends_at_what_there_was_to_do(work, capfd):
    work()
    assert "100%" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("train", "settings", "message"),
    [
        (rows(0), {}, r"train has shape \(0, 6\); expected \(N, 6\) with N ≥ 1"),
        (rows(5, 4), {}, r"train has shape \(5, 4\); expected \(N, 6\)"),
        (rows() + 1, {}, r"train has values from 1\.\d+ to 1\.\d+; expected \[0, 1\] for a likelihood bernoulli"),
        (rows() * np.nan, {}, "train has values that are not finite"),
        (rows(), {"valid": rows() - 1}, r"valid has values from"),
        (rows(), {"samples": 0}, "samples is 0; expected a whole number ≥ 1"),
        (rows(), {"epochs": 0}, "epochs is 0; expected a number > 0"),
        (rows(), {"samples": 10, "epochs": 1}, "samples and epochs are both given"),
        (rows(), {"batch_size": 0}, "batch_size is 0; expected a whole number ≥ 1"),
        (rows(), {"schedule": "both"}, "schedule is 'both'; expected 'joint' or 'alternating'"),
        (rows(), {"seed": -3}, "seed is -3; expected a whole number ≥ 0"),
        (rows(), {"log_every": 0}, "log_every is 0"),
        (rows(), {"batch_size": 2.5}, "batch_size is 2.5; expected a whole number ≥ 1"),
        (rows(), {"epochs": "3"}, "epochs is '3'; expected a number > 0"),
        (rows(), {"optimizer": "adam"}, r"optimizer is 'adam'; expected one such as Adagrad\(0\.01\)"),
        (rows(), {"optimizer": Adagrad}, "expected one such as"),
        (np.ones((5, 6), int), {}, "train holds int64; expected uint8 pixels"),
        (rows(), {"resume": True}, "resume=True needs out"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, train, settings, message):
    folder = tmp_path / "run"
    settings = ({} if settings.get("resume") else {"out": folder}) | settings
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(small(), train, **settings)
    assert not folder.exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    fit(small(), TRAIN, epochs=1, batch_size=10, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="holds a run: go on with it"):
        fit(small(), TRAIN, epochs=1, batch_size=10, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_a_run_that_is_complete_says_so_and_changes_nothing(tmp_path):
    model = VAE(6, 5, 2)
    history = fit(model, TRAIN, samples=100, batch_size=10, out=tmp_path)
    again = VAE(6, 5, 2)
    with pytest.warns(UserWarning, match="has evaluated 102 samples already: ask for more"):
        same_but_for_seconds(fit(again, TRAIN, samples=100, batch_size=10, out=tmp_path, resume=True), history)
    assert_array_equal(again.params.value, model.params.value)


class Clock:
    """The time of a run: `step` seconds for an update, `write` seconds for a checkpoint, and nothing else takes any."""

    def __init__(self, monkeypatch, step, write):
        self.now = 0.0
        self.kept = []  # the step of each checkpoint
        self.beats = 0
        save = run.save
        beat = Claim.beat

        def slow_save(path, arrays, facts):
            save(path, arrays, facts)
            self.kept.append(facts["progress"]["step"])
            self.now += write

        def slow_ascend(*arguments):
            self.now += step

        def counted(claim):
            self.beats += 1
            beat(claim)

        monkeypatch.setattr(SGD, "ascend", slow_ascend)
        monkeypatch.setattr(run, "save", slow_save)
        monkeypatch.setattr(Claim, "beat", counted)
        for module in (run, loop, em):
            monkeypatch.setattr(module, "time", self)

    def perf_counter(self):
        return self.now


def trained(algorithm, steps, folder, log_every=None):
    """Train for so many steps of all datapoints; no row of the history falls into them by itself."""
    settings = {"optimizer": SGD(1e-4), "batch_size": 23, "log_every": log_every or 10**9, "out": folder}
    if algorithm == "fit":
        fit(VAE(6, 5, 2), TRAIN, samples=23 * steps, **settings)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the stepsize is still being tuned
            em.fit_mcem(VAE(6, 5, 2), TRAIN, samples=23 * 3 * steps, steps=1, updates=1, **settings)


@pytest.mark.parametrize("algorithm", ["fit", "fit_mcem"])
@pytest.mark.parametrize(
    ("step", "write", "expected"),
    [
        (29.5, 0, [0, 2, 4, 6, 6]),
        (30.5, 0, [0, 1, 2, 3, 4, 5, 6, 6]),
        (30.5, 1.5, [0, 1, 2, 3, 4, 5, 6, 6]),
        (30.5, 3, [0, 2, 4, 6, 6]),  # of 60 s they may take 3
        (30.5, 4.6, [0, 4, 6]),
    ],
)
def test_between_rows_a_checkpoint_is_due_after_30_seconds_or_twenty_times_what_it_takes(
    algorithm, step, write, expected, tmp_path, monkeypatch
):
    clock = Clock(monkeypatch, step, write)
    trained(algorithm, 6, tmp_path)
    assert clock.kept == expected


@pytest.mark.parametrize("algorithm", ["fit", "fit_mcem"])
@pytest.mark.parametrize(
    ("step", "write", "expected"), [(10, 1, [0, 1, 2, 4, 6, 6]), (10, 2, [0, 1, 2, 6, 6]), (1, 0, [*range(7), 6])]
)
def test_the_first_rows_have_a_checkpoint_each_and_those_of_later_ones_take_5_percent_of_the_time(
    algorithm, step, write, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "ROWS", 2)
    clock = Clock(monkeypatch, step, write)
    trained(algorithm, 6, tmp_path, log_every=23 if algorithm == "fit" else 69)
    assert clock.kept == expected
    assert run.SHARE == 0.05


@pytest.mark.parametrize("algorithm", ["fit", "fit_mcem"])
@pytest.mark.parametrize(("step", "beats"), [(61, 2 + 6), (31, 2 + 3), (1, 2 + 1)])  # the first write takes 1000 s
def test_a_run_is_heard_of_every_minute_however_long_no_checkpoint_is_due(
    algorithm, step, beats, tmp_path, monkeypatch
):
    clock = Clock(monkeypatch, step, write=1000)
    trained(algorithm, 6, tmp_path)
    assert clock.kept == [0, 6] and clock.beats == beats


def test_a_run_whose_folder_was_taken_over_ends_within_a_minute_and_a_folder_that_is_gone_for_a_while_ends_none(
    tmp_path, monkeypatch
):
    clock = Clock(monkeypatch, 61, write=1000)
    steps = []

    def look(x, eps, n):
        steps.append(1)
        if len(steps) == 3:
            (tmp_path / "claim.json").write_text("{}", encoding="utf-8")

    with pytest.raises(ValueError, match="is no longer this run's"):
        fit(watched(VAE(6, 5, 2), look), TRAIN, optimizer=SGD(1e-4), samples=230, batch_size=23, out=tmp_path)
    assert len(steps) == 3 and clock.kept == [0]
    monkeypatch.setattr(Claim, "beat", lambda claim: (_ for _ in ()).throw(OSError("stale")))
    folder = RunFolder(tmp_path, VAE(6, 5, 2), SGD(0.1), {})
    clock.now += 61
    folder.beat()


def test_seconds_go_on_where_the_stopped_run_left_them(tmp_path):
    first = fit(VAE(6, 5, 2), TRAIN, samples=2000, batch_size=10, out=tmp_path)["seconds"]
    second = fit(VAE(6, 5, 2), TRAIN, samples=3000, batch_size=10, out=tmp_path, resume=True)["seconds"]
    assert (np.diff(second) > 0).all() and second[-1] > first[-1] > 0


def test_a_second_ctrl_c_acts_at_once_but_for_a_hasty_one_and_an_ignored_signal_stays_ignored(monkeypatch):
    with interruptible() as arrived:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert arrived == [signal.SIGTERM]
    monkeypatch.setattr("scratchvae.signals.TOGETHER", -1.0)
    with pytest.raises(KeyboardInterrupt), interruptible() as arrived:
        os.kill(os.getpid(), signal.SIGINT)
        assert arrived == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible() as arrived:
            os.kill(os.getpid(), signal.SIGTERM)
        assert arrived == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_lost_checkpoint_is_not_overwritten_and_the_previous_one_is_named(tmp_path):
    settings = {"samples": 3000, "batch_size": 10, "out": tmp_path}
    fit(VAE(6, 5, 2), TRAIN, **settings)
    (tmp_path / "checkpoint.npz").unlink()
    before = (tmp_path / "checkpoint.previous.npz").read_bytes()
    with pytest.raises(ValueError, match="holds a run"):
        fit(VAE(6, 5, 2), TRAIN, **settings)
    with pytest.raises(CheckpointError, match=r"is not there; the one before it is checkpoint\.previous\.npz"):
        fit(VAE(6, 5, 2), TRAIN, **settings, resume=True)
    assert (tmp_path / "checkpoint.previous.npz").read_bytes() == before


def test_a_checkpoint_that_is_not_of_a_run_is_refused(tmp_path):
    save(tmp_path / "checkpoint.npz", {}, {})
    with pytest.raises(CheckpointError, match="not of a training run"):
        load_model(tmp_path)


def test_values_outside_0_1_are_refused_for_a_sigmoid_mean_and_taken_by_a_free_one():
    with pytest.raises(ValueError, match=r"expected \[0, 1\] for a likelihood gaussian, whose"):
        fit(small("gaussian"), TRAIN * 255)
    fit(small("gaussian", "free"), TRAIN * 2 - 1, epochs=1, batch_size=10)


def test_evaluate_refuses_a_bad_seed_and_binarization():
    with pytest.raises(ValueError, match="seed is -1; expected a whole number ≥ 0"):
        evaluate(small(), VALID, seed=-1)
    with pytest.raises(ValueError, match="binarization is 'no'"):
        evaluate(small(), VALID, binarization="no")


def test_binarising_is_refused_for_a_gaussian_model():
    for kind in ("fixed", "dynamic"):
        with pytest.raises(ValueError, match=f"{kind} binarization is for Bernoulli models"):
            fit(small("gaussian"), TRAIN, binarization=kind)
    with pytest.raises(ValueError, match="binarization is True; expected one of grey, fixed, dynamic"):
        fit(small(), TRAIN, binarization=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": rows(9, seed=8)}, "data.valid"),
        ({"schedule": "alternating"}, "schedule 'joint', this run asks for 'alternating'"),
        ({"binarization": "dynamic"}, "binarization 'grey', this run asks for 'dynamic'"),
        ({"log_every": 7}, "log_every None, this run asks for 7"),
        ({"model": {"n_latent": 3}}, "model.n_latent 2, this run asks for 3"),
        ({"model": {"likelihood": "gaussian"}}, "model.likelihood 'bernoulli', this run asks for 'gaussian'"),
        ({"batch_size": 5}, "batch_size 10, this run asks for 5"),
        ({"seed": 9}, "seed 0, this run asks for 9"),
        ({"optimizer": Adagrad(0.02)}, "optimizer.lr 0.01, this run asks for 0.02"),
        ({"train": rows(23, seed=8)}, "data.train"),
    ],
)
def test_a_run_is_not_resumed_with_anything_changed(tmp_path, change, message):
    settings = {"train": TRAIN, "valid": VALID, "samples": 100, "batch_size": 10, "seed": 0, "optimizer": Adagrad(0.01)}
    fit(VAE(6, 5, 2), out=tmp_path, **settings)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    changed = VAE(**{"n_visible": 6, "n_hidden": 5, "n_latent": 2} | change.pop("model", {}))
    with pytest.raises(CheckpointError, match=message):
        fit(changed, out=tmp_path, resume=True, **settings | change)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_load_model_gives_back_the_trained_model_and_asks_for_an_estimator_of_your_own(tmp_path):
    def mine(*arguments):
        return small().estimator(*arguments)

    model = VAE(6, (5, 4), 2, "gaussian", "free", seed=3)
    fit(model, TRAIN, samples=100, batch_size=10, out=tmp_path / "a")
    for path in (tmp_path / "a", tmp_path / "a" / "checkpoint.npz"):
        assert_array_equal(load_model(path).reconstruct(VALID), model.reconstruct(VALID))
    fit(VAE(6, 5, 2, estimator=mine), TRAIN, samples=100, batch_size=10, out=tmp_path / "b")
    with pytest.raises(CheckpointError, match="estimator 'mine': pass the function"):
        load_model(tmp_path / "b")
    assert load_model(tmp_path / "b", estimator=mine).estimator is mine


def test_a_row_is_due_where_a_multiple_of_log_every_or_a_tenth_of_a_decade_is_reached_or_passed():
    for before, after, log_every, expected in [
        (0, 9, 10, False),
        (0, 10, 10, True),
        (9, 10, 10, True),
        (10, 19, 10, False),  # the one at 10 has been
        (10, 20, 10, True),
        (15, 21, 10, True),
        (15, 19, 10, False),
        (0, 45, 10, True),
        (0, 999, None, False),
        (990, 1000, None, True),
        (1000, 1250, None, False),  # the next is at 1,258.9
        (1000, 1259, None, True),
        (1259, 1580, None, False),
        (1259, 1590, None, True),
        (0, 1000, None, True),
        (0, 5000, None, True),
    ]:
        assert due(before, after, log_every) == expected, (before, after, log_every)
