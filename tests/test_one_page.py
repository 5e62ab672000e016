"""examples/one_page.py: the program on one page takes the library's steps, needs none of it, and runs by itself."""

import ast
import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import relative
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE, Adagrad, fit
from scratchvae.training.loop import ORDER, STEP, stream

SCRIPT = Path(__file__).parent.parent / "examples" / "one_page.py"
SPEC = importlib.util.spec_from_file_location("one_page", SCRIPT)
page = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(page)

THETA = ["decoder.hidden.W", "decoder.hidden.b", "decoder.logits.W", "decoder.logits.b"]  # W1, b1, W2, b2
PHI = ["encoder.hidden.W", "encoder.hidden.b"]  # W3, b3
PHI += ["encoder.mu.W", "encoder.mu.b", "encoder.log_var.W", "encoder.log_var.b"]  # W4, b4, W5, b5
PAPER = {"n_hidden": page.H, "n_latent": page.J}  # weights of 0.01, biases of 0
LARGE = {"n_hidden": 30, "n_latent": 4, "init": 0.3, "init_biases": True}  # bent tanhs, variances far from 1


def on_the_page(model, vector=None):
    """Copies of the model's parameters, or of another such vector, as the page has them: the lists theta and phi."""
    arrays = model.params.named(model.params.value if vector is None else vector)
    return [arrays[name].copy() for name in THETA], [arrays[name].copy() for name in PHI]


def assert_the_same(theta, phi, model, vector):
    """The page's θ and φ, or gradients, are the model's, array by array."""
    theirs_theta, theirs_phi = on_the_page(model, vector)
    for name, ours, theirs in zip(THETA + PHI, theta + phi, theirs_theta + theirs_phi, strict=True):
        assert np.isfinite(ours).all() and relative(ours, theirs) < 1e-12, name


def minibatches(model, train, steps, seed):
    """The minibatches x (M, D) that `fit` takes, pixels from 0 to 1, and the noise eps (M, J) that it draws."""
    for step in range(steps):
        epoch, i = divmod(step, math.ceil(len(train) / page.M))
        order = stream(seed, ORDER, epoch).permutation(len(train))
        x = train[order[i * page.M : (i + 1) * page.M]] / 255
        (eps,) = model.noise(stream(seed, STEP, step), len(x))  # L = 1
        yield x, eps


@pytest.mark.parametrize(
    ("data", "settings"), [("digits", PAPER), ("digits", LARGE), ("mnist", PAPER)], ids=["digits", "large", "mnist"]
)
def test_fifty_steps_are_those_of_fit(data, settings, request):
    train = request.getfixturevalue(data).train
    model = VAE(n_visible=train.shape[1], dtype="float64", seed=1, **settings)
    theta, phi = on_the_page(model)
    squares = [np.zeros_like(parameter) for parameter in theta + phi]
    batches = list(minibatches(model, train, steps=50, seed=2))
    assert data == "mnist" or {len(x) for x, _ in batches} == {100, 37}  # the last of an epoch is short: N/M is larger

    samples = sum(len(x) for x, _ in batches)
    rows = fit(model, train, optimizer=Adagrad(0.01), samples=samples, batch_size=page.M, seed=2, log_every=1)
    bounds = [page.step(theta, phi, squares, x, eps, len(train)) / len(train) for x, eps in batches]

    assert len(rows) == 50
    assert_allclose(bounds, rows["train_bound"], rtol=1e-12)
    assert_the_same(theta, phi, model, model.params.value)


@pytest.mark.parametrize("scale", [1, 1000], ids=["moderate logits", "logits of thousands"])
def test_the_bound_and_its_gradient_are_the_librarys_also_where_y_rounds_to_0_or_1(scale, digits):
    model = VAE(n_visible=64, dtype="float64", seed=1, **LARGE)
    model.params.named(model.params.value)["decoder.logits.W"][...] *= scale
    (x, eps), *_ = minibatches(model, digits.train, steps=1, seed=3)
    value, dtheta, dphi = page.bound(*on_the_page(model), x, eps, N=1437)
    assert value == pytest.approx(model.bound(x, eps[None], 1437, gradient=True), rel=1e-12)
    assert_the_same(dtheta, dphi, model, model.params.grad)


def test_the_page_starts_as_section_5_says_and_stays_in_float32():
    rng = np.random.default_rng(0)
    W, b = page.layer(784, 500, rng)
    assert W.shape == (784, 500) and abs(W.std() / 0.01 - 1) < 0.01 and abs(W.mean()) < 1e-4
    assert_array_equal(b, np.zeros(500))
    theta = page.layer(4, 30, rng) + page.layer(30, 64, rng)
    phi = page.layer(64, 30, rng) + page.layer(30, 4, rng) + page.layer(30, 4, rng)
    squares = [np.zeros_like(parameter) for parameter in theta + phi]
    x, eps = rng.random((5, 64), dtype=np.float32), rng.standard_normal((5, 4), dtype=np.float32)
    page.step(theta, phi, squares, x, eps, 20)
    assert {array.dtype for array in theta + phi + squares} == {np.dtype("float32")}


def test_the_page_has_at_most_120_lines_of_at_most_120_characters():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 120


def test_the_page_needs_numpy_and_the_standard_library_alone():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "sklearn"}
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "sklearn" not in ast.unparse(ast.Module(top, []))  # only where its digits are asked for
    code = "import sys, one_page; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCRIPT.parent)
    assert not set(done.stdout.split()) & {"scratchvae", "torch", "jax", "autograd", "scipy", "sklearn"}


def run(tmp_path, *arguments, data=None):
    """The page as a user starts it, in a folder of its own, with SCRATCHVAE_DATA set to `data` or not at all."""
    environment = {name: value for name, value in os.environ.items() if name not in ("SCRATCHVAE_DATA", "PYTHONPATH")}
    environment |= {"PYTHONIOENCODING": "utf-8"} | ({} if data is None else {"SCRATCHVAE_DATA": str(data)})
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path, env=environment)


def printed(done):
    """The rows (samples, bound) of a run, and the picture under them, each pixel one of ten shades 0 to 9."""
    assert done.returncode == 0, done.stderr
    found = [re.fullmatch(r" *([\d,]+) samples, bound (-\d+\.\d\d)", line) for line in done.stdout.splitlines()]
    rows = [(int(row[1].replace(",", "")), float(row[2])) for row in found if row]
    lines = done.stdout.splitlines()[1 + len(rows) :]
    assert all(line[0::2] == line[1::2] for line in lines)  # two characters for each pixel
    return rows, np.array([[" .:-=+*#%@".index(character) for character in line[::2]] for line in lines])


def test_without_mnist_a_user_sees_the_digits_learned_and_one_of_them_beside_its_reconstruction(tmp_path):
    done = run(tmp_path, "scikit-learn", 300)
    rows, picture = printed(done)
    assert done.stdout.startswith("1,797 images of 64 pixels from scikit-learn; nats per datapoint")
    assert rows[0][0] == 100 and rows[-1][0] == 30_000
    assert rows[0][1] == pytest.approx(-64 * math.log(2), abs=0.1)  # all y are ½ at first
    assert rows[-1][1] > -28  # one Bernoulli for each pixel alone has -30.6
    first = page.read_images("scikit-learn")[0].reshape(8, 8)
    assert_array_equal(picture[:, :8], (9.99 * first).astype(int))
    assert np.corrcoef(picture[:, 8:].ravel(), first.ravel())[0, 1] > 0.7


def test_what_is_learned_without_arguments(monkeypatch):
    asked = []
    monkeypatch.setattr(sys, "argv", ["one_page.py"])
    monkeypatch.setattr(page, "read_images", lambda source: asked.append(source) or sys.exit())
    for data in (None, "some/folder"):
        monkeypatch.delenv("SCRATCHVAE_DATA", raising=False)
        if data:
            monkeypatch.setenv("SCRATCHVAE_DATA", data)
        with pytest.raises(SystemExit):
            page.main()
    assert asked == ["scikit-learn", "some/folder"]


def test_a_folder_without_mnist_is_one_line(tmp_path):
    for done in (run(tmp_path, tmp_path / "nowhere"), run(tmp_path, data=tmp_path / "nowhere")):
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert str(tmp_path / "nowhere") in line and "train-images-idx3-ubyte.gz" in line and "scikit-learn" in line


def test_the_page_reads_mnist_from_either_folder(tmp_path, mnist):
    folder = Path(os.environ["SCRATCHVAE_DATA"])
    images = page.read_images(folder)
    assert images.dtype == np.float32 and images.shape == (60000, 784)
    assert_array_equal(np.round(images[:50000] * 255).astype(np.uint8), mnist.train)
    for done in (run(tmp_path, folder / "mnist", 2), run(tmp_path, folder, 2)):
        rows, picture = printed(done)
        assert "60,000 images of 784 pixels" in done.stdout
        assert rows[0][1] == pytest.approx(-784 * math.log(2), abs=1)  # all y are ½ at first
        assert_array_equal(picture[:, :28], (9.99 * images[0].reshape(28, 28)).astype(int))
