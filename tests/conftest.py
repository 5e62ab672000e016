"""Where the tests find data and small models."""

import os
from pathlib import Path

import numpy as np
import pytest

from scratchvae import VAE, load_data


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """No test downloads, and none sees the user's cache: only SCRATCHVAE_DATA, if it is set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*arguments, **settings):
        raise OSError("tests do not download")

    monkeypatch.setattr("pooch.retrieve", refuse)


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
    return VAE(likelihood=likelihood, mean=mean, estimator=estimator, n_samples=n_samples, **settings)


def rows(m=7, d=6, seed=1):
    """m datapoints in (0, 1)."""
    return np.random.default_rng(seed).random((m, d))


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
