"""When all latents die: the study on a small scale, and what is said of such a run."""

import csv

from conftest import is_drawn

from scratchvae.cli import main


def test_the_study_runs_on_a_small_scale_and_shows_dead_and_active_latents(run_example, tmp_path, capsys):
    run_example("collapse", "--scale", "0.08", "--seeds", "1", "--results", "results", "--runs", "runs")
    with open(tmp_path / "results" / "collapse.csv", newline="", encoding="utf-8") as file:
        rows = {(row["case"], row["remedy"]): row for row in csv.DictReader(file)}
    assert len(rows) == 10
    assert rows["small weights", "none"]["active"] == rows["small weights", "KL warm-up"]["active"] == "0"
    assert int(rows["small weights", "Glorot's weights"]["active"]) > 0
    assert float(rows["small weights", "none"]["mutual information"]) < 0.05
    assert is_drawn(tmp_path / "results" / "collapse.png")
    assert "small weights, none: 0 latents active" in capsys.readouterr().out


def test_a_run_whose_latents_have_died_says_so_with_what_has_helped(tmp_path, capsys):
    words = "train --hidden 20,20,20 --init 0.01 --latent 3 --samples 2000 --optimizer adagrad --out"
    assert main([*words.split(), str(tmp_path / "run")]) == 0
    told = "none of the latents is active, and the decoder makes nothing of z: what has helped is weights from --init"
    assert told in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert told in capsys.readouterr().out
