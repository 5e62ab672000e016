"""What is refused, and is tested nowhere else, is refused by a sentence that says what came and what to do."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import rows, small
from scipy.io import savemat

from scratchvae import VAE, Adagrad, FullVB, backend, bench, fit, load_model
from scratchvae.cli import evaluate as command
from scratchvae.cli import main
from scratchvae.cli.shared import _is
from scratchvae.data import DataError, images, mat, named
from scratchvae.doors import own_name
from scratchvae.files import FileError, _array, read_npy
from scratchvae.gradcheck import check_density, check_gradients, check_layer, check_model
from scratchvae.inference import hmc
from scratchvae.inference.likelihoods.laplace import Laplace
from scratchvae.inference.mean_field import UnivariateGaussian
from scratchvae.inference.objectives.sgvb import sgvb_a
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.inference.posteriors.gaussian import Gaussian
from scratchvae.models import autoencoder, factor_analysis
from scratchvae.models.factor_analysis import FactorAnalysis
from scratchvae.models.regression import LinearRegression, LogisticRegression
from scratchvae.nets.conv import conv_encoder
from scratchvae.nets.layers import Linear, LocalLinear
from scratchvae.nets.params import Params
from scratchvae.training import checkpoint, claim, em, optim
from scratchvae.training.checkpoint import CheckpointError
from scratchvae.training.claim import Claim, _runs
from scratchvae.training.em import fit_mcem
from scratchvae.training.optim import started

ONE = np.ones(1)
GENERATOR = np.random.default_rng(0)


class Mine(Gaussian):
    """A posterior of one's own, made by changing one thing of the Gaussian."""

    name = "mine"

    def __init__(self, **changes):
        vars(self).update(changes)


def fails(*arguments, **settings):
    raise KeyError("w")


def takes_more(q, p, x, noise, scale, gradient=True):
    return sgvb_a(q, p, x, noise[0], scale, gradient)


takes_more.noise = ("eps", "z")


def leaves_the_decoder(q, p, x, eps, scale, gradient=True):
    value = sgvb_a(q, p, x, eps, scale, gradient=False)
    if gradient:
        q.backward_given(np.ones(eps.shape[:2], eps.dtype))
    return value


def model_of(kind, **settings):
    return lambda: kind(6, 5, 2, **settings)


REFUSED = [
    (model_of(VAE, estimator="iwae-stl"), "estimator is 'iwae-stl', which is biased for more than one draw"),
    (model_of(FullVB, estimator=takes_more), "which takes more noise than ε: a distribution over θ has no place"),
    (model_of(VAE, posterior=Mine(start=fails)), "posterior mine: start(arrays) failed (KeyError: 'w'); the"),
    (model_of(VAE, posterior=Mine(outputs=fails)), "posterior Mine: outputs(2) failed (KeyError: 'w'); expected"),
    (model_of(VAE, estimator=leaves_the_decoder), "which would stay that of the step before; expected the gradient of"),
    (lambda: own_name(Mine(name=3), ()), "name of Mine is 3; expected a short text"),
    (lambda: Flow(Mine(outputs=lambda J: {"maps": J}), 2).outputs(2), "has an output called maps: that is"),
    (lambda: hmc.sample(None, [[0.0]], GENERATOR, 1), "z is list; expected an array of float32 or float64"),
    (
        lambda: hmc.sample(None, np.zeros((1, 1)), GENERATOR, 1, jitter=1.0),
        "jitter is 1.0; expected a share of the stepsize from 0 to below 1",
    ),
    (lambda: UnivariateGaussian().fit([1e200, 0]), "x has values up to 1e+200, whose squares are not finite"),
    (lambda: LinearRegression(np.ones((3, 2)), np.ones(2)), "x has shape (3, 2) and y (2,); expected (N, P) and (N,)"),
    (lambda: LogisticRegression(np.ones((2, 2)), [0, 2]), "y has other values than 0 and 1; expected labels 0 or 1"),
    (lambda: check_model(np.tanh, ONE), "ufunc is none: use check_density(f, x, …) for a density, or check_gradients"),
    (lambda: check_model(3, ONE), "int is none: use check_gradients(loss, params, grads), with three of your own"),
    (lambda: check_model(VAE(6, 5, 2).encoder, ONE), "check_model takes a model of this library, such as VAE; Encoder"),
    (lambda: check_gradients(sum, {"a": {"b": ONE}, "a.b": ONE + 1}, ONE), "params has two arrays called a.b"),
    (lambda: check_gradients(lambda: 0.0, ONE, ONE, atol=-1.0), "atol is -1.0; expected a number > 0"),
    (lambda: check_density(lambda x: x, ONE), "<lambda> returned ndarray; expected (value, partial, …)"),
    (lambda: check_density(lambda x: x, ["a"]), "an argument holds <U1; expected real numbers or integers"),
    (lambda: check_density(lambda x: x, [np.nan]), "an argument has NaN or infinite entries; expected finite numbers"),
    (lambda: _array(io.BytesIO(npy_of(9)[:-8]), len(npy_of(9))), "it is cut short: "),
    (lambda: _array(io.BytesIO(npy_of(9) + b"x"), len(npy_of(9))), "it goes on behind the 72 bytes that its header"),
]  # fmt: skip


def npy_of(n):
    """The bytes of a .npy file of n numbers."""
    file = io.BytesIO()
    np.save(file, np.zeros(n))
    return file.getvalue()


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_makes_no_sense_is_refused_by_a_sentence(call, words):
    with pytest.raises(ValueError) as refused:
        call()
    assert words in str(refused.value)


# Files


def test_more_than_memory_holds_is_not_read(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(100))
    monkeypatch.setattr("scratchvae.files.host_memory", lambda: 500.0)
    with pytest.raises(FileError, match=r"a\.npy .*it has 800 bytes, and this machine has 500"):
        read_npy(tmp_path / "a.npy")


def test_more_images_than_memory_holds_are_not_read(tmp_path, monkeypatch):
    from PIL import Image

    for k in range(2):
        Image.new("L", (8, 8)).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(images, "host_memory", lambda: 127)
    with pytest.raises(DataError, match=r"has 2 images of \(8, 8\), more than memory holds"):
        images.read_folder(tmp_path)


def test_a_folder_that_the_disk_does_not_list_is_named(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(DataError, match=r"cannot be read \(.*Input/output error"):
        images.read_folder(tmp_path)


def test_a_mat_file_of_many_elements_is_not_read_to_its_end(tmp_path, monkeypatch):
    savemat(tmp_path / "a.mat", {"a": np.zeros(2), "b": np.zeros(2), "ff": np.zeros((2, 2), np.uint8)})
    monkeypatch.setattr(mat, "ELEMENTS", 1)
    with pytest.raises(ValueError, match="it has more than 1 elements"):
        mat.read_uint8(tmp_path / "a.mat", "ff", (2, 2))


# Runs


@pytest.fixture
def folder(tmp_path):
    """A run folder of a small VAE."""
    fit(small(), rows(20), samples=20, batch_size=10, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_write_that_is_broken_off_leaves_nothing_behind(folder, monkeypatch):
    before = (folder / "checkpoint.npz").read_bytes()

    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(folder / "checkpoint.npz", b"new")
    assert (folder / "checkpoint.npz").read_bytes() == before
    assert not list(folder.glob("*.tmp*"))


def test_a_write_that_fails_says_what_it_knows_where_the_disk_says_nothing_more(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    for name, path in (("fsync", os), ("disk_usage", shutil)):
        monkeypatch.setattr(path, name, fail)
    with pytest.raises(OSError, match=r"\(Input/output error\): it takes 3 bytes; the file that was there"):
        checkpoint.write_atomically(folder / "checkpoint.npz", b"new")
    monkeypatch.setattr(Path, "exists", fail)
    with pytest.raises(OSError, match=r"it takes 3 bytes; what was there before was not touched"):
        checkpoint.write_atomically(folder / "checkpoint.npz", b"new")


def test_an_object_that_is_another_one_than_that_of_the_run_is_refused(tmp_path):
    fit(small(posterior=Mine()), rows(20), samples=20, batch_size=10, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="was trained with posterior 'mine', not 'other'"):
        load_model(tmp_path / "run", posterior=Mine(name="other"))
    with pytest.raises(ValueError, match=r"outputs\(2\) failed"):
        load_model(tmp_path / "run", posterior=Mine(outputs=fails))


def test_monte_carlo_em_names_parameters_that_are_not_finite():
    model = small()
    model.params.named(model.params.value)["decoder.hidden.W"][...] = np.nan
    with pytest.raises(FloatingPointError, match=r"decoder\.hidden\.W is not finite after step 0"):
        fit_mcem(model, rows(20), samples=400, batch_size=10)


def test_evaluate_refuses_counts_of_nothing_and_says_what_an_importance_weighted_bound_is_not(tmp_path, capsys):
    words = "train --data digits --samples 100 --latent 2 --hidden 5 --estimator iwae --n-samples 3 --quiet --out"
    assert main([*words.split(), str(tmp_path / "r")]) == 0
    for settings, words in [
        ({"n_theta": -1}, "--n-theta is -1; expected a whole number ≥ 0"),
        ({"n_samples": 0}, "--n-samples is 0; expected a whole number ≥ 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            command.evaluate(tmp_path / "r", **settings)
    capsys.readouterr()
    command.evaluate(tmp_path / "r")
    assert "that is the bound (7), each draw by itself; it was trained on that of 3 draws" in capsys.readouterr().out


@pytest.mark.parametrize(("background", "taken"), [(0, True), (255, True), (256, False), (-1, False), (True, False)])
def test_a_background_in_the_options_of_a_run_is_a_grey_level_of_one_byte(background, taken):
    assert _is("background", background) is taken


def test_to_look_whether_a_process_runs_does_it_no_harm():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert _runs(other.pid) and _runs(os.getpid())
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    finally:
        other.kill()
        other.wait()
    assert not _runs(other.pid) and not _runs("none")


# Settings that are turned into what is kept


def test_a_number_of_numpy_is_kept_as_a_plain_one_and_one_of_our_objects_by_its_name():
    model = VAE(6, 5, 2, init=np.float32(0.5), posterior=Gaussian())
    assert type(model.config["init"]) is float and model.config["init"] == 0.5
    assert "posterior" not in model.config or model.config["posterior"] == "gaussian"


# The gradient checker


def test_a_loss_that_is_no_number_here_has_no_gradient():
    report = check_gradients(lambda p: p.sum() + np.nan, ONE.copy(), ONE)
    assert report["loss"].notes == ("the loss is nan at this point, and has no gradient",)


def test_a_gradient_that_is_another_one_at_a_second_call_is_told():
    generator = np.random.default_rng(0)
    x = np.ones(3)
    report = check_gradients(lambda: x**2, x, lambda: 2 * x * (1 + 0.1 * generator.standard_normal(3)))
    assert any("it is another one at a second call with the same arrays" in note for note in report["params"].notes)


def test_other_points_where_the_loss_is_not_defined_are_passed_over():
    p = np.array([1.0, 1e-3])  # which is moved by some 0.07 and more often than not below 0
    assert check_gradients(lambda p: p**1.5, p, lambda p: 1.5 * np.sqrt(p), points=6)


def test_a_loss_of_float32_arrays_that_stays_in_float32_is_checked_in_it():
    x = np.ones(3, np.float32)
    report = check_gradients(lambda p: (p.astype(np.float32) ** 2).sum(dtype=np.float32), x, lambda p: 2 * p)
    assert report and report.facts[0].startswith("float32; relative tolerance 1e-03")


def test_an_oracle_in_numpy_that_answers_in_float32_is_told():
    def single(p):
        return np.float32((np.array(p, np.float32) ** 2).sum())

    x = np.ones(3)
    report = check_gradients(lambda: x**2, x, lambda: 2 * x, oracle=single)
    assert "the oracle answers in a precision of 1e-07" in report.facts


def test_an_error_of_the_oracle_itself_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        check_gradients(lambda p: p**2, np.ones(2), lambda p: 2 * p, oracle=lambda p: 1 / 0)


def test_a_layer_in_float32_is_checked_in_float64_where_its_arrays_lie_deep():
    class Deep:
        def __init__(self):
            self.params = {"W": [np.full((4, 3), 0.5, np.float32)]}
            self.grads = {"W": [np.zeros((4, 3), np.float32)]}

        def forward(self, x):
            self.x = x
            return np.tanh(x @ self.params["W"][0])

        def backward(self, dy):
            d = dy * (1 - np.tanh(self.x @ self.params["W"][0]) ** 2)
            self.grads["W"][0] = self.x.T @ d
            return d @ self.params["W"][0].T

    report = check_layer(Deep(), rows(5, 4))
    assert report and [row.name for row in report] == ["Deep W[0]", "Deep x"]
    assert report.facts[0].startswith("float64")


def test_a_layer_of_integers_alone_has_nothing_to_differentiate_by():
    class Counts:
        def forward(self, k):
            return k * 1.0

        def backward(self, dy):
            return None

    with pytest.raises(
        ValueError, match="has neither parameters nor inputs of floats; expected something to different"
    ):
        check_layer(Counts(), np.arange(3))


# The claim on a run folder, on every kind of system


def claimed(tmp_path):
    held = Claim(tmp_path)
    held.acquire()
    return held


def test_a_claim_that_was_never_taken_is_given_back_without_a_word(tmp_path):
    (tmp_path / "claim.json").write_text("{}", encoding="utf-8")
    Claim(tmp_path).release()
    assert (tmp_path / "claim.json").read_text(encoding="utf-8") == "{}"


def test_a_claim_that_is_locked_and_still_empty_is_of_a_process_that_has_just_begun(tmp_path):
    with open(tmp_path / "claim.json", "w+b") as other:
        assert claim._lock(other)
        for ask in (Claim(tmp_path).acquire, Claim(tmp_path).require_free):
            with pytest.raises(ValueError, match="is in use by a process that has just begun: wait for it, or choose"):
                ask()


def test_a_claim_that_is_removed_at_the_moment_it_is_locked_is_taken_anew(tmp_path, monkeypatch):
    lock = claim._lock
    locked = []

    def removes(file):
        locked.append(lock(file))
        if len(locked) == 1:
            (tmp_path / "claim.json").unlink()  # as the one who had it does at its end
        return locked[-1]

    monkeypatch.setattr(claim, "_lock", removes)
    held = claimed(tmp_path)
    assert locked == [True, True]
    assert (tmp_path / "claim.json").read_bytes() == held.text
    held.release()
    assert not (tmp_path / "claim.json").exists()


def test_where_a_file_system_has_no_locks_a_claim_holds_as_long_as_its_process_lives(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claim.fcntl, "flock", fail)
    held = claimed(tmp_path)
    with pytest.raises(ValueError, match=rf"is in use: process {os.getpid()} on .*; wait for it, or choose another"):
        Claim(tmp_path).acquire()
    monkeypatch.setattr(claim, "_runs", lambda process: False)
    other = claimed(tmp_path)
    with pytest.raises(ValueError, match=r"is no longer this run's: process .* has taken it over"):
        held.beat()
    other.release()
    held.release()


def test_a_process_of_somebody_else_runs(monkeypatch):
    def not_mine(process, signal):
        assert (process, signal) == (4711, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_mine)
    assert _runs(4711)


def test_on_windows_one_byte_far_behind_the_claim_is_locked_and_the_file_is_closed_before_it_is_removed(
    tmp_path, monkeypatch
):
    locks = []

    def locking(descriptor, mode, count):
        locks.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
        if len(locks) > 1:
            raise PermissionError

    monkeypatch.setattr(claim, "fcntl", None)
    monkeypatch.setattr(claim, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking), raising=False)
    held = claimed(tmp_path)
    with pytest.raises(ValueError, match="is in use"):
        Claim(tmp_path).acquire()
    assert locks == [(1 << 30, 2, 1)] * 2
    file = held.file
    closed = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **settings: closed.append(file.closed) or unlink(path, **settings))
    held.release()
    assert closed == [True] and not (tmp_path / "claim.json").exists()


def test_a_forked_process_has_neither_its_parents_claims_nor_the_optimisers_at_work_there(tmp_path):
    """What runs in a child after a fork is called here, in this process."""
    held = claimed(tmp_path)
    rule = Adagrad(0.1)
    with started(rule, small().params):
        with pytest.raises(ValueError, match="at work in another fit"), started(rule, small().params):
            pass
        optim._forget()
        with started(rule, small().params):
            pass
    claim._forget()
    assert held.file is None and held not in claim._held
    held.release()
    assert (tmp_path / "claim.json").exists()  # it is the parent's


# What goes wrong in the middle


def test_a_configuration_that_is_a_folder_was_put_there_by_no_run(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ValueError, match=r"exists, and holds config\.json: choose another folder"):
        fit(small(), rows(20), samples=20, batch_size=10, out=tmp_path)


@pytest.mark.parametrize(("names", "told"), [("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and more")])
def test_what_a_folder_holds_that_is_no_run_is_named_up_to_three_files(names, told, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path} exists, and holds {told}: choose another folder"):
        fit(small(), rows(20), samples=20, batch_size=10, out=tmp_path)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (9_999, "9,999 bytes"),
        (10_000, "10 KiB"),
        ((10 << 20) - 1, "10,240 KiB"),
        (10 << 20, "10 MiB"),
        (3 << 30, "3,072 MiB"),
    ],
)
def test_how_much_a_checkpoint_takes_is_told_in_bytes_below_10_000_and_in_mebibytes_from_10_on(size, told, tmp_path):
    error = checkpoint._not_written(tmp_path / "checkpoint.npz", size, OSError(28, "No space left on device"))
    assert f"(No space left on device): it takes {told} and " in str(error)


@pytest.mark.parametrize("change", [lambda rows: rows["step"], lambda rows: rows[None]])
def test_a_history_with_other_columns_is_refused(folder, change):
    arrays, facts = checkpoint.load(folder / "checkpoint.npz")
    checkpoint.save(folder / "checkpoint.npz", arrays | {"history": change(arrays["history"])}, facts)
    words = r"has no history with the columns step, samples, epoch, train_bound, valid_bound, seconds"
    with pytest.raises(CheckpointError, match=words):
        fit(small(), rows(20), samples=40, batch_size=10, out=folder, resume=True)


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_a_checkpoint_that_cannot_be_read_at_this_moment_may_be_whole(folder, error, monkeypatch):
    path = folder / "checkpoint.npz"
    checkpoint.save(path, {"a": ONE}, {})
    (folder / "checkpoint.previous.npz").write_bytes(path.read_bytes())

    def fail(previous):
        raise error

    monkeypatch.setattr(checkpoint, "load", fail)
    assert checkpoint._way_out(path, "begin anew") == (
        "; the one before it is checkpoint.previous.npz: rename it to go on from there"
    )
    (folder / "checkpoint.previous.npz").unlink()
    assert checkpoint._way_out(path, "begin anew") == "; begin anew"


def test_monte_carlo_em_stops_where_the_log_density_is_not_finite(monkeypatch):
    monkeypatch.setattr(em, "complete_data", lambda *_, **__: np.inf)
    with pytest.raises(FloatingPointError, match=r"log p\(x, z\) is inf in E-step 1: try a smaller step size"):
        fit_mcem(small(), rows(20), samples=400, batch_size=10)


def test_monte_carlo_em_runs_on_the_host_alone(waits):
    with pytest.raises(ValueError, match=r"the model is on backend 'cupy'; Monte Carlo EM runs on 'numpy': mod"):
        fit_mcem(VAE(6, 5, 2, backend="cupy"), rows(20), samples=400, batch_size=10)


def test_a_linear_autoencoder_stops_where_its_objective_is_not_finite(monkeypatch):
    values = iter([-2.0, -1.0, np.nan])
    monkeypatch.setattr(autoencoder, "_objective", lambda S, W: (next(values), 1e-3 * np.ones_like(W)))
    with pytest.raises(FloatingPointError, match="the objective is nan after 2 steps"):
        autoencoder.LinearAutoencoder(1).fit(np.random.default_rng(0).standard_normal((9, 3)))


def test_columns_that_lose_their_noise_together_are_named_where_they_were_not_before(monkeypatch):
    """Two columns that are equal are refused at the beginning; here that is left to the end."""
    x = np.random.default_rng(0).standard_normal((50, 3))
    x = np.column_stack([x, x[:, 1]])
    words = "columns 1, 3 of x depend on each other linearly, as equal ones do"
    with pytest.raises(ValueError, match=words):
        FactorAnalysis(1).fit(x)
    monkeypatch.setattr(factor_analysis, "_check_related", lambda *_: None)
    with pytest.raises(ValueError, match=words):
        FactorAnalysis(1).fit(x)


def test_the_processor_is_named_where_the_system_keeps_no_list_of_it(monkeypatch):
    def fail(path, encoding):
        raise FileNotFoundError(path)

    monkeypatch.setattr(bench.machines.platform, "processor", lambda: "")
    monkeypatch.setattr(bench.machines.platform, "machine", lambda: "a machine")
    for read in (fail, lambda path, encoding: "flags : none\n"):
        monkeypatch.setattr(Path, "read_text", read)
        assert bench.machines._cpu() == "a machine"
    text = "flags : x\nmodel name\t: One: two \nmodel name : other"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: text)
    assert bench.machines._cpu() == "One: two"
    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(bench.machines.platform, "processor", lambda: "a processor")
    assert bench.machines._cpu() == "a processor"


def test_numbers_of_a_bench_are_kept_to_four_figures_in_lists_too():
    assert bench.measuring.plain([1.23456, np.float32(2.5), [3], "x"]) == [1.235, 2.5, [3], "x"]


def test_the_memory_of_the_host_is_without_end_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.get)
    assert backend.host_memory() == 4_096_000

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert backend.host_memory() == np.inf


def test_a_layer_of_drawn_weights_that_reads_the_data_hands_no_gradient_on():
    x = rows(4, 3)
    found = {}
    for reads_data in (True, False):
        mean, log_sigma = Linear("mean", 3, 2, reads_data=reads_data), Linear("log_sigma", 3, 2)
        Params([mean, log_sigma], np.float64).initialise(0.5, np.random.default_rng(0))
        layer = LocalLinear(mean, log_sigma)
        layer.zeta = rows(4, 2)
        layer.forward(x)
        found[reads_data] = layer.backward(rows(4, 2)), log_sigma.dW.copy(), mean.db.copy()
    assert found[True][0] is None and found[False][0].shape == x.shape
    for ours, theirs in zip(found[True][1:], found[False][1:], strict=True):
        assert ours.any() and (ours == theirs).all()


def test_a_mean_is_an_argument_of_our_own_likelihoods_alone():
    likelihood = type("Own", (Laplace,), {"name": "own"})()
    with pytest.raises(ValueError, match="mean is 'free'; it is an argument of our own likelihoods, and this one is"):
        VAE(6, 5, 2, likelihood=likelihood, mean="free")


def test_noise_of_a_likelihood_that_does_not_come_from_the_generator_is_refused():
    drawn = np.random.default_rng(0)

    class Own(Laplace):
        name = "own"

        def noise(self, generator, shape, dtype):
            return drawn.standard_normal(shape, dtype)

    words = r"noise\(generator, shape, dtype\) returned other numbers for the same generator; expected it to draw from"
    with pytest.raises(ValueError, match=words):
        VAE(6, 5, 2, likelihood=Own())


# Images and data


def test_a_file_of_more_bytes_than_an_image_has_is_not_read(tmp_path, monkeypatch):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate((1 << 28) + 1)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(DataError, match=r"a\.png has 268,435,457 bytes; expected 268,435,456 at most"):
        images.read_folder(tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 3), (8, 1, 3), (2, 8, 1), (8, 2, 1)])
def test_an_image_of_one_row_or_one_column_cannot_be_halved_and_one_of_one_channel_can(shape):
    if min(shape[:2]) == 2:
        assert conv_encoder("encoder", shape, (4,), (5,), "tanh")
        return
    with pytest.raises(
        ValueError, match=r"channels is \(4,\); these images can be halved 0 times: take fewer channels"
    ):
        conv_encoder("encoder", shape, (4,), (5,), "tanh")


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"a cannot be read \(\[Errno 5\] Input/output error\)"):
        named._read(tmp_path / "a", fail)
