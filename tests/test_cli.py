"""cli/: the README's commands as a person types them, and one clear line with exit code 2 for everything else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import rows, shared
from numpy.testing import assert_array_equal

from scratchvae import VAE, FullVB, cli, evaluate, fit, load_data, load_model, output, plots
from scratchvae.backend import BACKENDS
from scratchvae.cli import evaluate as evaluate_command
from scratchvae.cli import main
from scratchvae.cli import train as train_command
from scratchvae.cli.shared import DEFAULTS
from scratchvae.cli.train import _worth_a_look
from scratchvae.data import BINARIZATIONS
from scratchvae.inference.likelihoods import LIKELIHOODS
from scratchvae.inference.marginal import importance
from scratchvae.inference.objectives import OBJECTIVES
from scratchvae.inference.posteriors import POSTERIORS
from scratchvae.nets.mlp import ACTIVATIONS
from scratchvae.plots import draw_run
from scratchvae.training import loop
from scratchvae.training.loop import evaluate_theta
from scratchvae.training.optim import OPTIMIZERS
from scratchvae.training.run import read_history

QUICK = ["--samples", "3000", "--hidden", "20", "--latent", "2"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """The one line that the command prints on its way to exit code 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("scratchvae: error: ") and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run folder that is only read."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", *QUICK, "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture
def trained(tmp_path):
    assert run("train", *QUICK, "--out", tmp_path / "run", "--quiet") == 0
    return tmp_path / "run"


@pytest.mark.drawn
def test_train_leaves_a_run_folder_and_says_what_it_wrote_and_where(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", *QUICK) == 0
    out, err = capsys.readouterr()
    assert "runs/digits2/" in out and "grey-level" in out and "nats per datapoint" in out and err == ""
    folder = tmp_path / "runs" / "digits2"
    text = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert text == json.dumps(config, indent=2) + "\n"  # for people to read
    assert config["options"]["latent"] == 2 and config["run"]["model"]["n_visible"] == 64
    assert (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0] == (
        "step,samples,epoch,train_bound,valid_bound,seconds,"
        "rate,distortion,active,mutual_information,marginal_kl,kl_1,kl_2"
    )
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.png"
        for name in (
            *("learning_curve", "reconstructions", "latents", "traversals", "uncertainty", "samples", "nearest"),
            *("random_walk", "manifold", "interpolation", "latent", "latent_map"),
        )
    }
    assert run("train", *QUICK, "--quiet") == 0  # again: a new folder, nothing overwritten
    assert (tmp_path / "runs" / "digits2-2" / "checkpoint.npz").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("n_latent", "active", "drawn", "words"),
    [
        (2, 0, "latents samples manifold", "latents.png: none carries anything, so that all samples are alike; "),
        (2, 1, "latents samples manifold", "manifold.png: what the decoder makes of each place in the plane of z; "),
        (2, None, "reconstructions latent_map", "latent_map.png: where images have their place in the plane of z; "),
        (
            3,
            2,
            "latents reconstructions samples",
            "reconstructions.png: what it keeps of images; and at samples.png beside it: what it makes up; ",
        ),
        (3, None, "learning_curve reconstructions", "reconstructions.png: what it keeps of images; "),
        (3, 0, "learning_curve samples", "learning_curve.png; "),
    ],
)
def test_a_run_says_in_a_sentence_which_picture_is_worth_a_look(n_latent, active, drawn, words):
    pictures = [Path("a") / f"{name}.png" for name in drawn.split()]
    found = _worth_a_look(SimpleNamespace(n_latent=n_latent), SimpleNamespace(active=active), pictures)
    assert found == f"look at {Path('a') / words}"
    assert _worth_a_look(SimpleNamespace(n_latent=n_latent), SimpleNamespace(active=active), []) == ""


@pytest.mark.drawn
@pytest.mark.parametrize(("command", "quiet"), [("train", False), ("train", True), ("plot", False)])
def test_the_pictures_have_a_bar_after_two_seconds_unless_quiet(command, quiet, trained, monkeypatch):
    seen = []

    def progress_bar(total, done, show, unit=" samples", delay=0.0):
        seen.append((total, done, show, unit, delay))
        return output.NoBar()

    monkeypatch.setattr(loop, "progress_bar", progress_bar)
    run(*(("train", "--resume", trained) if command == "train" else ("plot", trained)), *["--quiet"] * quiet)
    assert seen[-1] == (12, 0, False if quiet else None, " pictures", 2.0)


@pytest.mark.drawn
def test_full_vb_is_trained_resumed_evaluated_and_drawn(tmp_path, capsys):
    run("train", *QUICK, "--out", tmp_path / "vae", "--quiet")
    full = ["--full-vb", "--local-reparameterization", "--learn-hyperprior", "--log-sigma", "-3"]
    assert run("train", *QUICK, *full, "--warm-start", tmp_path / "vae", "--out", tmp_path / "run") == 0
    assert "full VB: θ noise local, α learned, log σ from -3" in capsys.readouterr().out
    assert (tmp_path / "run" / "figures" / "theta_uncertainty.png").exists()
    model = load_model(tmp_path / "run")
    assert type(model) is FullVB and model.config["learn_hyperprior"] and model.config["log_sigma"] == -3
    assert run("train", "--resume", tmp_path / "run", "--samples", "4000", "--quiet") == 0
    model, data = load_model(tmp_path / "run"), load_data("digits")
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run", "--split", "train", "--n-theta", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bound"] == evaluate(model, data.train)["bound"] and result["n_theta"] == 3
    assert {key: result[key] for key in ("theta_kl", "bound_22")}.items() <= evaluate_theta(
        model, data.train, 3
    ).items()
    assert run("evaluate", tmp_path / "run", "--split", "train") == 0
    out = capsys.readouterr().out
    assert "bound (22) " in out and "learned α: decoder.hidden.W 0." in out
    assert run("evaluate", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "over 10 θ ~ q(θ)" in out and "(22)" not in out


@pytest.mark.filterwarnings("ignore:k_hat is above")  # of a model that has hardly been trained
def test_evaluate_estimates_the_log_likelihood(trained, capsys):
    assert run("evaluate", trained, "--log-likelihood", "200", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    estimate = importance(load_model(trained), load_data("digits").test, 200)
    assert (result["log_likelihood"], result["log_likelihood_error"]) == estimate.mean()
    assert result["k_hat"] == estimate.k_hat.max() and result["log_likelihood"] > result["bound"]
    assert run("evaluate", trained, "--log-likelihood", "2e2") == 0
    told = capsys.readouterr().out
    assert "by importance with 200 draws from q(z|x), too low on average by some 0.0015; k_hat up to" in told
    assert "--log-likelihood is 0; expected a whole number ≥ 1" in refused(
        capsys, "evaluate", trained, "--log-likelihood", 0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--antithetic", "--antithetic belongs to full variational Bayes: add --full-vb"),
        ("--alpha 2", "--alpha belongs to full variational Bayes: add --full-vb"),
        ("--full-vb --no-prior", "--no-prior and --full-vb are both given"),
        ("--full-vb --alpha 0", "alpha is 0.0; expected a number > 0"),
        ("--full-vb --log-sigma inf", "log_sigma is inf"),
        ("--full-vb --estimator A --local-reparameterization", "take 'B'"),
        ("--full-vb --warm-start nowhere", "nowhere/checkpoint.npz is not there"),
    ],
)
def test_bad_settings_of_full_vb_leave_one_line_and_no_folder(options, message, tmp_path, capsys):
    assert message in refused(capsys, "train", *QUICK, *options.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_warm_start_from_another_shape_is_refused(trained, tmp_path, capsys):
    err = refused(capsys, "train", "--full-vb", "--warm-start", trained, "--out", tmp_path / "new")
    assert "to start from has (64, 20) for encoder.hidden.W, this one (64, 200): give both the same hidden" in err


def test_samples_may_be_written_as_in_the_paper(tmp_path):
    run("train", *QUICK, "--samples", "2e3", "--out", tmp_path / "run", "--quiet")
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["options"]["samples"] == 2000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--flow 3", "VAE 64-20-2, flow of 3 maps, tanh"),
        ("--architecture conv", "VAE 64-conv16-conv32-20-2, relu"),
        ("--channels 4 --activation sigmoid --flow 2", "VAE 64-conv4-20-2, flow of 2 maps, sigmoid"),
        (
            "--hidden none --likelihood isotropic --mean free --no-prior",
            "VAE 64-2, without hidden units, isotropic, free mean",
        ),
        ("--estimator autoencoder --decay 100", "adam / (1 + step/100)"),
        ("--full-vb --channels 4 --hidden 20,10", "FullVB 64-conv4-20-10-2"),
        ("--full-vb --flow 3", "FullVB 64-20-2, flow of 3 maps, tanh"),
    ],
)
def test_the_rest_of_the_family_is_trained_resumed_evaluated_and_drawn(options, said, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert run("train", "--samples", 1500, "--latent", 2, "--hidden", 20, *options.split(), "--out", out) == 0
    assert said in capsys.readouterr().out
    assert run("train", "--resume", out, "--samples", 2500, "--quiet") == 0
    unbroken = tmp_path / "unbroken"
    run("train", "--samples", 2500, "--latent", 2, "--hidden", 20, *options.split(), "--out", unbroken, "--quiet")
    assert_array_equal(load_model(out).params.value, load_model(unbroken).params.value)
    if "autoencoder" in options:
        assert "which an autoencoder does not have" in refused(capsys, "evaluate", out, "--log-likelihood", 20)
    else:
        assert run("evaluate", out, "--json", "--log-likelihood", 20, "--n-theta", 0) == 0
        assert json.loads(capsys.readouterr().out)["log_likelihood"] < 200
    monkeypatch.setattr(plots, "draw_run", draw_run)
    assert run("plot", out) == 0
    assert (out / "figures" / "samples.png").exists() == ("autoencoder" not in options)


def test_oblong_images_are_not_convolved_as_squares(tmp_path, capsys):
    np.save(tmp_path / "strips.npy", np.random.default_rng(0).integers(0, 256, (60, 16, 4), dtype=np.uint8))
    message = refused(
        capsys, "train", "--data", tmp_path / "strips.npy", "--architecture", "conv", "--out", tmp_path / "run"
    )
    assert "the images are 16 x 4; expected square ones" in message


def test_an_autoencoder_is_not_said_to_have_a_bound(tmp_path, capsys):
    run("train", *QUICK, "--estimator", "autoencoder", "--out", tmp_path / "run")
    assert "(log p(x|z) at the code: no bound)" in capsys.readouterr().out
    run("evaluate", tmp_path / "run")
    assert "an autoencoder has no bound" in capsys.readouterr().out
    run("evaluate", tmp_path / "run", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["bound"] is None and result["reconstruction"] < 0


def test_a_run_of_before_these_options_is_resumed_and_evaluated(tmp_path, capsys):
    run("train", *QUICK, "--out", tmp_path / "run", "--quiet")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert "channels" not in config["run"]["model"]  # as in its checkpoint
    assert "beta" not in config["run"]["model"] and "kl_warmup" not in config["run"]
    for key in (
        "architecture",
        "channels",
        "flow",
        "decay",
        "beta",
        "free_bits",
        "kl_warmup",
        "kl_cycles",
        "keep",
        "patience",
    ):
        del config["options"][key]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert run("train", "--resume", tmp_path / "run", "--samples", 4000, "--quiet") == 0
    assert run("evaluate", tmp_path / "run") == 0
    for option in (["--flow", 2], ["--architecture", "conv"], ["--decay", 9]):
        assert "was trained with" in refused(capsys, "train", "--resume", tmp_path / "run", *option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--flow 3 --estimator B",
            "estimator is 'B', which needs KL(q(z|x) ‖ p(z)) in closed form, and the posterior 'flow over gaussian' "
            "has no neg_kl: take another estimator, such as 'A'",
        ),
        ("--flow -1", "--flow is -1; expected a whole number ≥ 1 of maps"),
        ("--flow 3 --full-vb --local-reparameterization", "estimator is 'A', which scores θ at its draw"),
        ("--channels 4,4,4,4", "these images can be halved 3 times"),
        ("--architecture conv --full-vb --local-reparameterization", "for affine maps alone"),
        ("--decay 0", "decay is 0.0; expected a number > 0"),
        ("--architecture mlp --channels 4", "--architecture mlp and --channels are both given"),
    ],
)
def test_bad_settings_of_the_family_leave_one_line_and_no_folder(options, message, tmp_path, capsys):
    assert message in refused(capsys, "train", *QUICK, *options.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_is_one_function_of_its_options(tmp_path):
    for name in "ab":
        run("train", *QUICK, "--out", tmp_path / name, "--quiet")
    assert_array_equal(load_model(tmp_path / "a").params.value, load_model(tmp_path / "b").params.value)


def test_every_option_reaches_the_model_and_the_run(tmp_path):
    command = (
        "--data digits --n-train 200 --split 300,50,60 --likelihood gaussian --mean free "
        "--hidden 9,8 --latent 3 --activation relu --init 0.2 --init-biases --no-prior "
        "--estimator A --n-samples 2 --optimizer adagrad --lr 0.05 --warmup 3 --batch-size 20 "
        "--schedule alternating --log-every 100 --dtype float64 --seed 5 --epochs 1"
    )
    run("train", *command.split(), "--out", tmp_path / "run", "--quiet")
    facts = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["run"]
    layers = {"n_visible": 64, "n_hidden": [9, 8], "n_latent": 3, "activation": "relu"}
    density = {"likelihood": "gaussian", "mean": "free", "estimator": "A", "n_samples": 2, "prior": False}
    start = {"init": 0.2, "init_biases": True, "dtype": "float64", "seed": 5}
    assert facts["model"] == layers | density | start
    assert facts["optimizer"] == {"name": "Adagrad", "lr": 0.05, "eps": 1e-10, "warmup": 3}
    assert (facts["batch_size"], facts["schedule"], facts["log_every"], facts["seed"]) == (20, "alternating", 100, 5)
    history = read_history(tmp_path / "run" / "metrics.csv")
    assert history["epoch"][-1] == 1 and history["samples"][-1] == 400


@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
def test_binarised_training_is_named_in_the_log_and_evaluated_alike(tmp_path, capsys, kind):
    assert run("train", *QUICK, "--binarization", kind, "--out", tmp_path / "run") == 0
    assert f"{kind} binarisation" in capsys.readouterr().out
    assert run("evaluate", tmp_path / "run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    data = load_data("digits", binarization=kind)
    python = evaluate(load_model(tmp_path / "run"), data.test, binarization=kind)
    assert result["binarization"] == kind and {key: result[key] for key in python} == python


def test_resume_by_command_line_equals_the_unbroken_run(tmp_path):
    run("train", *QUICK, "--out", tmp_path / "whole", "--quiet", "--samples", "6000")
    run("train", *QUICK, "--out", tmp_path / "parts", "--quiet")
    assert run("train", "--resume", tmp_path / "parts", "--samples", "6000", "--quiet") == 0
    whole, parts = (np.load(tmp_path / name / "checkpoint.npz") for name in ("whole", "parts"))
    with whole, parts:
        for name in whole.files:
            if name not in ("manifest", "history"):
                assert_array_equal(parts[name], whole[name])
        for column in ("step", "samples", "epoch", "train_bound", "valid_bound"):
            assert_array_equal(parts["history"][column], whole["history"][column])
    assert json.loads((tmp_path / "parts" / "config.json").read_text(encoding="utf-8"))["options"]["samples"] == 6000


def test_evaluate_prints_one_json_object_that_equals_the_python_call(trained, capsys):
    assert run("evaluate", trained, "--split", "valid", "--json", "--seed", "3") == 0
    result = json.loads(capsys.readouterr().out)
    python = evaluate(load_model(trained), load_data("digits").valid, seed=3)
    assert result["split"] == "valid" and {key: result[key] for key in python} == python
    assert run("evaluate", trained, "--n-samples", "4") == 0
    assert "test bound -" in (out := capsys.readouterr().out) and "L = 4" in out


@pytest.mark.drawn
def test_plot_draws_the_pictures_again(trained, capsys):
    for path in (trained / "figures").iterdir():
        path.unlink()
    assert run("plot", trained) == 0
    printed = capsys.readouterr().out.split()
    assert len(printed) == 12 and all(os.path.exists(path) for path in printed)
    before = (trained / "figures" / "samples.png").read_bytes()
    assert run("plot", trained, "--seed", 1) == 0
    assert (trained / "figures" / "samples.png").read_bytes() != before


def test_own_data_may_move_and_are_found_again_but_not_exchanged(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    quick = ("--samples", 1000, "--latent", 2, "--hidden", 5, "--batch-size", 10, "--quiet")
    assert run("train", "--data", tmp_path / "a.npy", *quick, "--out", tmp_path / "run") == 0
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    assert "there is no data set" in refused(capsys, "evaluate", tmp_path / "run")
    for command in ("evaluate", "plot", "explore"):
        assert run(command, tmp_path / "run", "--data", tmp_path / "b.npy") == 0
    resume = ("train", "--resume", tmp_path / "run", "--samples", 2000, "--quiet", "--data")
    np.save(tmp_path / "c.npy", images[::-1])
    assert "c.npy to train and validate and test with are not those" in refused(capsys, *resume, tmp_path / "c.npy")
    assert run(*resume, tmp_path / "b.npy") == 0


def test_evaluate_finds_the_data_where_data_dir_says(tmp_path, monkeypatch, capsys):
    shared("frey")
    assert run("train", "--data", "frey", *QUICK, "--out", tmp_path / "run", "--quiet") == 0
    folder = os.environ["SCRATCHVAE_DATA"]
    monkeypatch.delenv("SCRATCHVAE_DATA")
    assert "frey_rawface.mat is in none of" in refused(capsys, "evaluate", tmp_path / "run")
    assert run("evaluate", tmp_path / "run", "--data-dir", folder) == 0


def test_ctrl_c_outside_training_is_one_line_too(monkeypatch, capsys, tmp_path):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("scratchvae.data.load_data", interrupt)
    assert run("train", *QUICK, "--out", tmp_path / "run") == 130
    assert capsys.readouterr().err == "\nscratchvae: interrupted\n"


@pytest.mark.drawn
def test_the_frey_command_uses_the_papers_gaussian_decoder(tmp_path, capsys):
    shared("frey")
    command = "--data frey --likelihood gaussian --latent 2 --hidden 200 --samples 3000"
    assert run("train", *command.split(), "--out", tmp_path / "frey2") == 0
    assert "gaussian, sigmoid mean" in capsys.readouterr().out
    assert (tmp_path / "frey2" / "figures" / "manifold.png").exists()


def command(*arguments):
    return [sys.executable, "-m", "scratchvae", *map(str, arguments)]


def test_every_command_is_one_file_and_in_the_help(capsys):
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    files -= {"__init__", "shared", "output", "ranks", "images", "writing"}
    assert files == {command.__name__.rpartition(".")[2] for command in cli.COMMANDS}
    for name in files:
        with pytest.raises(SystemExit):
            run(name, "--help")
        assert f"usage: scratchvae {name} [options]" in capsys.readouterr().out


def test_the_parser_loads_nothing_heavy():
    code = "import sys; from scratchvae import cli; cli.parser(); print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "scratchvae" in loaded
    assert not set(loaded) & {"matplotlib", "scipy", "autograd", "sklearn", "threadpoolctl", "PIL", "cupy"}


def test_help_answers_in_under_half_a_second_and_teaches():
    seconds = []
    for _ in range(3):
        before = os.times()
        shown = subprocess.run(command("train", "--help"), capture_output=True, text=True, check=True).stdout
        after = os.times()  # of its processor, so that a busy machine is not the command's fault
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.5, seconds
    for words in ("examples:", "--resume DIR", "samples to evaluate", "A is L^A (6), B is L^B (7, default"):
        assert words in shown
    for words in ("of class folders", "train, valid and test", "runs/digits20-2", "new or empty", "claim.json"):
        assert words in " ".join(shown.split())


def test_help_lists_what_an_option_can_be(capsys):
    with pytest.raises(SystemExit):
        run("train", "--help")
    shown = "".join(capsys.readouterr().out.split())
    for option, names in {
        "activation": ACTIVATIONS,
        "optimizer": OPTIMIZERS,
        "estimator": OBJECTIVES,
        "likelihood": LIKELIHOODS,
        "posterior": POSTERIORS,
        "binarization": BINARIZATIONS,
        "backend": BACKENDS,
    }.items():
        assert f"--{option}{{{','.join(names)}}}" in shown, option


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "",
            "VAE 64-200-2, tanh, bernoulli, 27,268 parameters in float32 on numpy with 1 BLAS thread\nL^B, L = 1",
        ),
        ("--posterior full --flow 2", "VAE 64-5-2, full covariance, flow of 2 maps, tanh, bernoulli, "),
        ("--likelihood gaussian --mean free --no-prior", "gaussian, free mean, "),
        ("--full-vb --learn-hyperprior", "full VB: θ noise minibatch, α learned, log σ from -4, "),
        (
            "--estimator iwae --n-samples 3 --decay 100 --lr 0.05",
            "iwae, L = 3, M = 20, p(θ) = N(0, I), adam 0.05 / (1 + ",
        ),
    ],
)
def test_what_is_trained_is_told_in_two_lines(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hidden = [] if not words else ["--hidden", "5"]
    settings = ["--data", "digits", "--latent", "2", *hidden, "--batch-size", "20", "--samples", "20", "--threads", "1"]
    assert run("train", *settings, *words.split()) == 0
    assert told in capsys.readouterr().out


def test_a_log_likelihood_is_told_with_what_is_known_of_its_error():
    result = {"n": 1000, "log_likelihood": -90.0, "log_likelihood_samples": 500, "k_hat": 0.61, "k_hat_threshold": 0.63}
    result |= {"log_likelihood_by": "importance", "log_likelihood_of": "p(x)"}
    result |= {"log_likelihood_error": 0.2, "log_likelihood_bias": -0.05, "untrusted": 0, "unsure": 0, "not_finite": 0}
    words = "log p(x) -90.00 ± 0.2 nats per datapoint, by importance with 500 draws from q(z|x), too low on average by "
    words += "some 0.05; k_hat up to 0.61"
    told = evaluate_command._log_likelihood_in_words
    assert told(result) == words
    assert told(result | {"unsure": 7}) == words + "; between 0.5 and that for 7, whose errors are too small"
    above = ", above 0.63 for 12 of 1,000, whose error is not known"
    assert told(result | {"untrusted": 12}) == words + above
    assert told(result | {"untrusted": 3, "not_finite": 3}) == words + "; it is not finite for 3 of 1,000"


def test_a_bound_is_told_with_its_terms_and_an_autoencoder_has_none():
    result = {"split": "test", "bound": -100.126, "reconstruction": -90.0, "kl": 10.126, "n": 1234, "n_samples": 3}
    result |= {"binarization": "fixed", "data": "mnist"}
    told = evaluate_command._bound_in_words
    assert told(result) == (
        "test bound -100.13 = reconstruction -90.00 - KL 10.13 nats per datapoint, n = 1,234, L = 3, fixed mnist"
    )
    assert told(result, "rgb").endswith("L = 3, fixed mnist")
    assert told(result | {"binarization": "grey", "data": "photos"}, "rgb").endswith("L = 3, rgb photos")
    assert told(result | {"bound": None, "kl": None}) == (
        "test log p(x|z) at the code -90.00 nats per datapoint, n = 1,234, fixed mnist; an autoencoder has no bound"
    )


def test_a_bound_over_theta_is_told_and_divided_among_the_data_where_it_is_theirs():
    result = {"n_theta": 7, "bound_over_theta": -101.5, "theta_kl": 2469.0, "n": 1234}
    words = "that is at the mean of θ; over 7 θ ~ q(θ) -101.50, KL(q(θ) ‖ p(θ)) 2,469 nats"
    assert evaluate_command._over_theta_in_words(result) == words
    result |= {"bound_22": -103.5}
    assert evaluate_command._over_theta_in_words(result) == words + ", or 2.00 per datapoint: bound (22) -103.50"


def test_a_log_likelihood_without_an_error_or_a_k_hat_is_told_without_them():
    result = {"n": 10, "log_likelihood": -9.0, "log_likelihood_samples": 5, "k_hat": None, "k_hat_threshold": 0.3}
    result |= {"log_likelihood_by": "importance", "log_likelihood_of": "p(x)"}
    result |= {"log_likelihood_error": None, "log_likelihood_bias": None, "untrusted": 0, "unsure": 0, "not_finite": 0}
    assert evaluate_command._log_likelihood_in_words(result) == (
        "log p(x) -9.00 nats per datapoint, by importance with 5 draws from q(z|x); no k_hat for such weights, or so "
        "few"
    )


def test_numbers_that_are_not_finite_are_null_at_any_depth_and_all_else_stays():
    found = evaluate_command._finite({"a": np.nan, "b": {"c": -np.inf, "d": 1.5}, "e": 3, "f": "nan", "g": None})
    assert found == {"a": None, "b": {"c": None, "d": 1.5}, "e": 3, "f": "nan", "g": None}


# Encoder 35 + 2 x 12, decoder 15 + 36 numbers; over θ a log σ beside each of its 51
PLAIN = (
    "VAE 6-5-2, tanh, bernoulli, 110 parameters in float32 on numpy\n"
    "L^B, L = 1, M = 100, p(θ) = N(0, I), adagrad, joint updates, seed 0"
)
FULL = (
    "FullVB 6-5-2, tanh, bernoulli, 161 parameters in float32 on numpy\n"
    "L^B, L = 1, M = 100, full VB: θ noise minibatch, α 1, log σ from -4, adagrad, joint updates, seed 0"
)


@pytest.mark.parametrize(
    ("kind", "settings", "options", "plain", "before", "after"),
    [
        (VAE, {}, {}, PLAIN, "", ""),
        (VAE, {"posterior": "full"}, {}, PLAIN, "tanh, bernoulli, 110", "full covariance, tanh, bernoulli, 116"),
        (VAE, {"flow": 3, "estimator": "A"}, {}, PLAIN.replace("^B", "^A"), "-2, tanh, bernoulli, 110",
            "-2, flow of 3 maps, tanh, bernoulli, 200"),
        (VAE, {"n_hidden": ()}, {}, PLAIN, "6-5-2, tanh, bernoulli, 110", "6-2, without hidden units, bernoulli, 46"),
        (VAE, {"prior": False}, {}, PLAIN, "p(θ) = N(0, I)", "no prior on θ"),
        (VAE, {}, {"threads": 1}, PLAIN, "numpy\n", "numpy with 1 BLAS thread\n"),
        (VAE, {}, {"threads": 2}, PLAIN, "numpy\n", "numpy with 2 BLAS threads\n"),
        (VAE, {"likelihood": "gaussian"}, {}, PLAIN, "bernoulli, 110", "gaussian, sigmoid mean, 146"),
        (VAE, {"likelihood": "gaussian", "mean": "free"}, {}, PLAIN, "bernoulli, 110", "gaussian, free mean, 146"),
        (VAE, {"estimator": "iwae", "n_samples": 3}, {}, PLAIN, "L^B, L = 1", "iwae, L = 3"),
        (VAE, {"dtype": "float64"}, {}, PLAIN, "float32", "float64"),
        (VAE, {}, {"optimizer": "sgd", "lr": 0.5}, PLAIN, "adagrad", "sgd 0.5"),
        (VAE, {}, {"lr": 0.02, "decay": 1e3}, PLAIN, "adagrad", "adagrad 0.02 / (1 + step/1000)"),
        (VAE, {}, {"decay": 5.0}, PLAIN, "adagrad", "adagrad / (1 + step/5)"),
        (VAE, {}, {"schedule": "alternating"}, PLAIN, "joint", "alternating"),
        (VAE, {}, {"seed": 4}, PLAIN, "seed 0", "seed 4"),
        (VAE, {}, {"batch_size": 7}, PLAIN, "M = 100", "M = 7"),
        (FullVB, {}, {"full_vb": True}, FULL, "", ""),
        (FullVB, {"alpha": 0.25}, {"full_vb": True}, FULL, "α 1,", "α 0.25,"),
        (FullVB, {"learn_hyperprior": True}, {"full_vb": True}, FULL, "α 1,", "α learned,"),
        (FullVB, {"theta_noise": "local"}, {"full_vb": True}, FULL, "minibatch", "local"),
        (FullVB, {"log_sigma": -2.5}, {"full_vb": True}, FULL, "-4", "-2.5"),
        (FullVB, {}, {"full_vb": True, "warm_start": "runs/a"}, FULL, "-4,", "-4, φ and μ from runs/a,"),
    ],
)  # fmt: skip
def test_a_run_begins_with_what_is_trained_and_how_in_two_lines(kind, settings, options, plain, before, after):
    model = kind(6, **{"n_hidden": 5, "n_latent": 2, **settings})
    assert before in plain
    options = DEFAULTS | options
    assert train_command._describe(model, options, options["threads"], 1) == plain.replace(before, after)


def test_the_training_bound_is_called_by_its_name_where_it_is_not_the_bound_of_validation():
    def name(kind=VAE, **settings):
        return train_command._kind_of_bound(kind(6, 5, 2, **settings))

    assert [name(), name(estimator="A"), name(estimator="black-box", n_samples=2)] == [""] * 3
    assert name(FullVB) == " with the θ-KL (22)"
    assert name(estimator="autoencoder") == " (log p(x|z) at the code: no bound)"
    for estimator in ("iwae", "dreg"):
        assert name(estimator=estimator, n_samples=3) == " (L_3, importance-weighted)"


def test_the_stepsize_the_decay_and_the_warm_up_arrive_at_the_optimiser_and_only_adagrad_has_a_warm_up():
    def settings(**options):
        rule = train_command._optimizer(DEFAULTS | options)
        return {name: getattr(rule, name) for name in ("lr", "decay", "warmup") if hasattr(rule, name)}

    plain = {"lr": 0.01, "decay": None, "warmup": 0}
    assert settings() == plain
    assert settings(lr=0.5, decay=7.0, warmup=3) == {"lr": 0.5, "decay": 7.0, "warmup": 3}
    assert settings(optimizer="sgd", lr=0.5)["lr"] == 0.5
    with pytest.raises(ValueError, match="--warmup is for adagrad; the optimizer is adam"):
        settings(optimizer="adam", warmup=3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_leave_a_run_that_resumes(tmp_path, number, code):
    process = subprocess.Popen(
        command("train", "--samples", 100_000_000, "--out", tmp_path / "run"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"--resume {tmp_path / 'run'}" in err.decode() and "Traceback" not in err.decode()
    done = load_model(tmp_path / "run")
    assert np.isfinite(done.params.value).all()
    assert (
        run("train", "--resume", tmp_path / "run", "--samples", 100, "--quiet") == 0
    )  # reached long ago: nothing lost
    assert_array_equal(load_model(tmp_path / "run").params.value, done.params.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data minst", "there is no data set 'minst'"),
        ("--latent 0", "n_latent is 0; expected a whole number ≥ 1"),
        ("--hidden 0", "n_hidden is 0"),
        ("--n-samples 0", "n_samples is 0"),
        ("--lr -1", "lr is -1.0; expected a number > 0"),
        ("--samples 0", "samples is 0; expected a whole number ≥ 1"),
        ("--samples 10 --epochs 1", "samples and epochs are both given"),
        ("--batch-size 0", "batch_size is 0"),
        ("--n-train 99999", "n_train is 99999; expected 1 to 1437"),
        ("--split 1,2", "expected three sizes"),
        ("--optimizer adam --warmup 5", "--warmup is for adagrad"),
        ("--likelihood gaussian --binarization dynamic", "for Bernoulli models"),
        ("--seed -1", "seed is -1"),
        ("--resume nowhere", "nowhere is no run folder"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    out = [] if "--resume" in arguments else ["--out", tmp_path / "run"]
    assert words in refused(capsys, "train", *arguments.split(), *out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    ["train --likelihood poisson", "train --hidden five", "train --init he", "train --samples 1.5", "", "fly"],
)
def test_argparse_refuses_with_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments.split())
    assert stop.value.code == 2


def test_values_outside_0_1_are_refused_for_bernoulli_and_taken_by_a_free_gaussian(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((100, 9)))
    assert "expected [0, 1] for a likelihood bernoulli" in refused(capsys, "train", "--data", tmp_path / "x.npy")
    free = ("--likelihood", "gaussian", "--mean", "free", "--out", tmp_path / "run", "--quiet")
    assert run("train", *QUICK, "--data", tmp_path / "x.npy", *free) == 0


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.eye(9, dtype=np.uint8), "holds uint8 up to 1, which is read as x/255"),
        (np.linspace(0, 0.06, 81).reshape(9, 9), "holds floats up to 0.06, where white is 1"),
    ],
)
def test_every_command_warns_of_data_once_and_by_their_name(tmp_path, x, words, capsys):
    np.save(tmp_path / "x.npy", np.tile(x, (5, 1)))
    small = ["--samples", 100, "--batch-size", 20, "--hidden", 4, "--latent", 3, "--estimator", "autoencoder"]
    train = ["train", "--data", tmp_path / "x.npy", *small, "--out", tmp_path / "run", "--quiet"]
    for command in (train, ["evaluate", tmp_path / "run"], ["plot", tmp_path / "run"], ["explore", tmp_path / "run"]):
        assert run(*command) == 0
        error = capsys.readouterr().err
        assert error.startswith(f"scratchvae: warning: {tmp_path / 'x.npy'} {words}") and error.count("\n") == 1


def test_data_that_the_likelihood_cannot_score_are_named_as_the_file_is(tmp_path, capsys):
    np.save(tmp_path / "x.npy", 255 * np.linspace(0, 1, 180).reshape(20, 9))
    error = refused(capsys, "train", "--data", tmp_path / "x.npy", "--out", tmp_path / "run")
    assert f"{tmp_path / 'x.npy'} has values from " in error and not (tmp_path / "run").exists()


def test_a_run_that_has_nothing_left_to_train_says_so(undrawn, trained, capsys):
    for samples, anew in [(3000, " anew, though nothing was left to train"), (3100, "")]:
        assert run("train", "--resume", trained, "--samples", samples) == 0
        said = f"wrote {trained}/{anew}: config.json, metrics.csv, checkpoint.npz, and no pictures\n"
        assert said in capsys.readouterr().out


def test_a_batch_larger_than_the_data_warns_and_goes_on(tmp_path, capsys):
    assert run("train", *QUICK, "--n-train", 50, "--out", tmp_path / "run") == 0
    assert "scratchvae: warning: batch_size 100 is larger than the data: using all 50" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_not_offered_for_resuming(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    there = {tmp_path: "exists, and holds file: choose another folder", tmp_path / "file": "is a file: choose a folder"}
    for out, message in there.items():
        assert refused(capsys, "train", *QUICK, "--out", out).endswith(f"{out} {message} (--out, out)\n")
    for command in ("evaluate", "plot", "explore"):
        assert "is no run folder" in refused(capsys, command, tmp_path / "file")


def test_an_existing_folder_is_neither_overwritten_nor_resumed_by_accident(trained, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert f"{trained} holds a run: go on with it (--resume, resume=True)" in refused(
        capsys, "train", *QUICK, "--out", trained
    )
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--latent 5", "was trained with latent 2, not 5"),
        ("--data mnist", "was trained with data digits, not mnist"),
        ("--lr 0.5", "was trained with lr its default, not 0.5"),
        ("--no-prior", "was trained with prior True, not False"),
        ("--out elsewhere", "--out and --resume are both given"),
    ],
)
def test_a_run_is_not_resumed_as_another(trained, capsys, arguments, words):
    assert words in refused(capsys, "train", "--resume", trained, "--samples", 9000, *arguments.split())


def test_an_edited_config_does_not_get_past_the_checkpoint(trained, capsys):
    path = trained / "config.json"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace('"latent": 2', '"latent": 3'), encoding="utf-8")
    for words in (["train", "--samples", 9000, "--resume"], ["evaluate"], ["plot"], ["explore"]):
        assert "says latent 3, and the checkpoint 2: config.json was edited" in refused(capsys, *words, trained)
    del (config := json.loads(whole))["run"]["optimizer"]["lr"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "says optimizer.lr None, and the checkpoint 0.001" in refused(capsys, "evaluate", trained)
    config = json.loads(whole)
    config["options"]["threads"] = -1
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "does not hold the options of a run of scratchvae train (threads is -1)" in refused(
        capsys, "train", "--resume", trained
    )


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"options": {}}', '{"options": {}, "run": {}}', None])
def test_a_checkpoint_without_a_sound_config_says_how_to_get_at_its_model(text, kept, tmp_path, capsys):
    (folder := tmp_path / "half").mkdir()
    (folder / "checkpoint.npz").write_bytes((kept / "checkpoint.npz").read_bytes())
    if text is not None:
        (folder / "config.json").write_text(text, encoding="utf-8")
    for words in (["train", "--out"], ["train", "--resume"], ["evaluate"], ["plot"], ["explore"]):
        error = refused(capsys, *words, folder)
        if "run" in (text or ""):
            assert "holds a run: go on" in error or "has not the options that the checkpoint has: put it back" in error
            continue
        assert f"config.json is {'missing' if text is None else 'damaged ('}" in error
        assert f"put it back, or choose another folder; load_model('{folder}') gives the model" in error
    assert_array_equal(load_model(folder).params.value, load_model(kept).params.value)


def test_a_truncated_checkpoint_stops_every_command_and_stays_as_it_is(trained, capsys):
    path = trained / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:1000])
    for arguments in (["evaluate"], ["plot"], ["explore"], ["train", "--samples", 9000, "--resume"]):
        assert "checkpoint.previous.npz: rename it" in refused(capsys, *arguments, trained)
    assert path.stat().st_size == 1000


def test_no_run_folder_and_no_metrics_are_clear_errors(trained, tmp_path, capsys):
    assert "is no run folder" in refused(capsys, "evaluate", tmp_path)
    for command in ("evaluate", "plot"):
        message = refused(capsys, command, trained, "--seed", -1)
        assert "seed is -1; expected a whole number ≥ 0" in message and "drawn" not in message  # nothing has begun
    (trained / "metrics.csv").write_text("a,b\n", encoding="utf-8")
    assert "is not a metrics.csv" in refused(capsys, "plot", trained)
    (trained / "metrics.csv").unlink()
    assert "there is no" in refused(capsys, "plot", trained)


def test_an_unwritable_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "Not a directory" in refused(capsys, "train", *QUICK, "--out", tmp_path / "file" / "run")


def test_a_diverging_run_stops_with_step_and_array_and_keeps_its_last_checkpoint(tmp_path, capsys):
    arguments = ["--optimizer", "sgd", "--lr", "1e6", "--likelihood", "gaussian"]
    error = refused(capsys, "train", *QUICK, *arguments, "--out", tmp_path / "run")
    assert "at step" in error and "try a smaller step size" in error
    assert np.isfinite(load_model(tmp_path / "run").params.value).all()


def test_missing_data_say_which_files_to_put_where(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
    error = refused(capsys, "train", "--data", "mnist", "--out", tmp_path / "run")
    assert "train-images-idx3-ubyte.gz" in error and "SCRATCHVAE_DATA" in error and not (tmp_path / "run").exists()


def test_the_importance_weighted_bound_is_told_from_that_of_validation(tmp_path, capsys):
    assert run("train", *QUICK, "--estimator", "iwae", "--n-samples", 3, "--out", tmp_path / "run") == 0
    assert " train (L_3, importance-weighted), " in capsys.readouterr().out


def test_a_run_made_in_python_is_told_from_a_broken_one(tmp_path, capsys):
    model = VAE(64, 5, 2)
    fit(model, rows(20, 64), samples=100, batch_size=10, out=tmp_path / "mine")
    for command in ("evaluate", "plot", "explore"):
        assert "was trained in Python, not by scratchvae train: load_model(" in refused(
            capsys, command, tmp_path / "mine"
        )


# Where runs are written, and what config.json says


@pytest.fixture
def own(tmp_path):
    """A file of images of one's own, and the words that train a small model on it."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8))
    return tmp_path / "x.npy"


SMALL = ("--samples", 200, "--latent", 2, "--hidden", 4, "--batch-size", 10, "--quiet")


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take time, and nobody looks at them here."""
    monkeypatch.setattr("scratchvae.cli.train._draw", lambda *_: [])


@pytest.mark.parametrize("command", [("train", *SMALL), ("bench", "--hidden", 4, "--repeats", 1)])
def test_a_folder_runs_that_leads_nowhere_is_named_and_not_waited_for(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to("/nonexistent/x")
    assert "runs is a link that leads nowhere: choose a folder" in refused(capsys, *command)


def test_a_run_folder_is_not_made_among_the_images_it_is_trained_on(own, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    images.mkdir()
    monkeypatch.chdir(images)
    for data in (".", images):
        for out in ([], ["--out", "new"], ["--out", images / "a" / "b"]):
            assert "lies inside the folder of images" in refused(capsys, "train", "--data", data, *SMALL, *out)
    assert list(images.iterdir()) == []


def test_a_path_of_any_bytes_is_trained_on_and_read_again(own, tmp_path, undrawn, capsys):
    folder = tmp_path / os.fsdecode(b"d\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    own.rename(folder / "x.npy")
    assert run("train", "--data", folder / "x.npy", *SMALL, "--out", tmp_path / "run") == 0
    assert run("evaluate", tmp_path / "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"] == str(folder / "x.npy")


def test_images_of_the_same_pixels_in_another_shape_are_others(own, tmp_path, undrawn, capsys):
    assert run("train", "--data", own, *SMALL, "--out", tmp_path / "run") == 0
    np.save(own, np.load(own).reshape(40, 2, 8))
    for words in (["evaluate", tmp_path / "run"], ["plot", tmp_path / "run"], ["train", "--resume", tmp_path / "run"]):
        assert "are not those that" in refused(capsys, *words)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["options"]["image_shape"]  # as in a run of before
    path.write_text(json.dumps(config), encoding="utf-8")
    assert run("evaluate", tmp_path / "run") == 0


def test_a_number_of_threads_that_was_edited_in_config_json_is_not_believed(own, tmp_path, undrawn, capsys):
    assert run("train", "--data", own, *SMALL, "--threads", 1, "--out", tmp_path / "run") == 0
    path = tmp_path / "run" / "config.json"
    for threads in ("2", "null"):
        path.write_text(
            path.read_text(encoding="utf-8").replace('"threads": 1', f'"threads": {threads}'), encoding="utf-8"
        )
        error = refused(capsys, "train", "--resume", tmp_path / "run", "--samples", 400)
        assert f"says threads {threads.replace('null', 'None')}, and the checkpoint 1: config.json was edited" in error
        path.write_text(
            path.read_text(encoding="utf-8").replace(f'"threads": {threads}', '"threads": 1'), encoding="utf-8"
        )
    assert run("train", "--resume", tmp_path / "run", "--samples", 400, "--quiet") == 0


@pytest.mark.parametrize("value", ["inf", "1e30", "1e400"])
def test_numbers_that_no_file_of_a_run_can_have_are_one_line(value, own, tmp_path, undrawn, capsys):
    assert run("train", "--data", own, *SMALL, "--lr", "0.01", "--out", tmp_path / "run") == 0
    path = tmp_path / "run" / "metrics.csv"
    head = path.read_text(encoding="utf-8").splitlines()[0]
    path.write_text("\n".join([head, f"{value},{value},1,1,1,1"]), encoding="utf-8")
    assert "is not a metrics.csv" in refused(capsys, "plot", tmp_path / "run")
    path.unlink()
    assert "to go on with the run writes it anew" in refused(capsys, "plot", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lr": 0.01', '"lr": 1' + 400 * "0", 1), encoding="utf-8")
    assert "config.json" in refused(capsys, "train", "--resume", tmp_path / "run")


def test_a_device_that_fails_after_the_training_costs_the_pictures_and_not_the_run(own, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(VAE, "to", fail)
    assert run("train", "--data", own, *SMALL, "--out", tmp_path / "run") == 0
    assert "no pictures (RuntimeError: cudaErrorIllegalAddress); the run is whole" in capsys.readouterr().err
