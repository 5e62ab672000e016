"""A conditional VAE, p(x|z, y) p(z) with q(z|x, y): its rows, its formulas, its gradients, and Bayes' rule."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from scratchvae import VAE, FullVB, data, fit, load_model, plots
from scratchvae.cli import main
from scratchvae.data import Data, binarise, thresholds
from scratchvae.gradcheck import check_model
from scratchvae.inference.classes import classes
from scratchvae.inference.marginal import importance, sandwich

rng = np.random.default_rng
X = rng(0).random((5, 6))
Y = np.array([0, 1, 2, 1, 0])


def conditional(**settings):
    """Return a small conditional VAE of three classes, with biases that are not zero."""
    return VAE(
        **{"n_visible": 6, "n_hidden": 4, "n_latent": 2, "n_classes": 3, "dtype": "float64", "init": 0.5} | settings
    )


def linear(seed=0):
    """Return the linear conditional VAE x = z W + y U + ε, ε ~ N(0, ½ I), whose q is the posterior, and its log p(x|y).

    The two rows of W are orthogonal, so that the posterior has a diagonal covariance.
    """
    W = np.linalg.qr(rng(seed).standard_normal((6, 2)))[0].T * [[1.5], [0.7]]
    U = rng(seed + 1).standard_normal((3, 6))
    var = 0.5
    model = VAE(6, (), 2, "isotropic", "free", n_classes=3, dtype="float64")
    model.params.value[...] = 0
    arrays = model.params.named(model.params.value)
    arrays["decoder.mu.W"][...] = np.concatenate([W, U])
    arrays["decoder.log_var.b"][...] = np.log(var)
    precision = np.eye(2) + W @ W.T / var
    to_mean = np.linalg.solve(precision, W / var).T  # E[z|x, y] = (x - y U) Wᵀ Λ⁻¹ / σ²
    arrays["encoder.mu.W"][...] = np.concatenate([to_mean, -U @ to_mean])
    arrays["encoder.log_var.b"][...] = -np.log(np.diag(precision))
    laws = [multivariate_normal(mean, W.T @ W + var * np.eye(6)) for mean in U]
    return model, laws


def test_a_row_has_its_label_behind_its_pixels_as_a_white_entry_among_black_ones():
    model = conditional()
    expected = np.concatenate([X, np.eye(3)[Y]], axis=1)
    assert_array_equal(model.labelled(X, Y), expected)
    pixels = (255 * X).astype(np.uint8)
    rows = model.labelled(pixels, Y)
    assert rows.dtype == np.uint8
    assert_array_equal(rows, np.concatenate([pixels, 255 * np.eye(3, dtype=np.uint8)[Y]], axis=1))
    assert_array_equal(model.labels(rows), Y)
    assert_array_equal(model.pixels(rows)[:, 6:], np.eye(3)[Y])  # read as x/255 like the pixels


def test_drawing_pixels_leaves_the_labels_as_they_are():
    for rows in (conditional().labelled((255 * X).astype(np.uint8), Y), conditional().labelled(X, Y)):
        for seed in range(20):
            drawn = binarise(rows, thresholds(rows.shape, rows.dtype, rng(seed)))
            assert_array_equal(drawn[:, 6:], rows[:, 6:])


def test_encoder_and_decoder_read_the_label_as_the_formulas_say():
    model = conditional()
    arrays = model.params.named(model.params.value)
    rows = model.labelled(X, Y)
    onehot = np.eye(3)[Y]
    h = np.tanh(rows @ arrays["encoder.hidden.W"] + arrays["encoder.hidden.b"])
    assert_allclose(model.encode(rows)[0], h @ arrays["encoder.mu.W"] + arrays["encoder.mu.b"], rtol=1e-12)
    z = rng(1).standard_normal((5, 2))
    W = arrays["decoder.hidden.W"]
    h = np.tanh(z @ W[:2] + onehot @ W[2:] + arrays["decoder.hidden.b"])
    logits = h @ arrays["decoder.logits.W"] + arrays["decoder.logits.b"]
    y = 1 / (1 + np.exp(-logits))
    assert_allclose(model.decode(z, Y), y, rtol=1e-12)
    log_px = (X * np.log(y) + (1 - X) * np.log(1 - y)).sum(axis=1)
    assert_allclose(model.decoder.log_prob(rows, np.stack([z, z]))[1], log_px, rtol=1e-12)
    u = rng(2).random((5, 6))
    assert_array_equal(model.decoder.draw(z, u, onehot), u < y)


def test_a_label_changes_what_is_decoded_and_the_classes_come_in_turn():
    model = conditional()
    z = np.zeros((3, 2))
    assert np.abs(np.diff(model.decode(z, [0, 1, 2]), axis=0)).max() > 0.01
    assert_array_equal(model.sample(7, seed=3), model.sample(7, seed=3, y=[0, 1, 2, 0, 1, 2, 0]))
    assert not np.array_equal(model.sample(7, seed=3), model.sample(7, seed=3, y=[1] * 7))
    rows = model.labelled(X, Y)
    assert_array_equal(model.reconstruct(rows), model.decode(model.encode_mean(rows), Y))
    draws = model.encode_samples(rows, 4, seed=1)
    assert_array_equal(model.reconstruct_samples(rows, 4, seed=1)[2], model.decode(draws[2], Y))
    z, made = model.simulate(4, seed=2)
    assert_array_equal(model.labels(made), [0, 1, 2, 0])
    assert_array_equal(made[:, :6], model.draw(z, 2, [0, 1, 2, 0]))


@pytest.mark.parametrize(
    "settings",
    [
        *({"estimator": name} for name in ("A", "B", "stl", "autoencoder")),
        *({"estimator": name, "n_samples": 3} for name in ("iwae", "dreg", "black-box")),
        *({"n_hidden": widths} for widths in ((), (4, 3))),
        *({"likelihood": name} for name in ("gaussian", "isotropic", "laplace", "continuous-bernoulli")),
        *({"posterior": "full"}, {"flow": 2}, {"beta": 3.0}, {"free_bits": 0.1}),
        *({"theta_noise": name} for name in ("minibatch", "antithetic", "datapoint", "local")),
    ],
    ids=str,
)
def test_every_gradient_of_a_conditional_model_is_that_of_the_oracle(settings):
    if "theta_noise" in settings:
        model = FullVB(6, 4, 2, n_classes=3, dtype="float64", **settings)
    else:
        model = conditional(**settings)
    report = check_model(model, model.labelled(X, Y)[:4], points=1)
    assert report, report
    assert max(row.oracle for row in report if row.oracle is not None) < 1e-10


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": (2,)},
        {"channels": (3, 2), "n_hidden": (), "posterior": "full"},
        {"channels": (2,), "image_channels": 3, "n_visible": 48, "likelihood": "gaussian", "estimator": "A"},
        {"channels": (2,), "theta_noise": "antithetic"},
    ],
    ids=str,
)
def test_convolutions_read_the_image_and_the_label_passes_them_by(settings):
    settings = {"n_visible": 16, "n_hidden": 4, "n_latent": 2, "n_classes": 3, "init": 0.5, **settings}
    model = (FullVB if "theta_noise" in settings else VAE)(**settings, activation="relu", dtype="float64", seed=1)
    model.params.value[...] += 0.1  # biases that are not zero
    x = rng(3).random((5, settings["n_visible"]))
    rows = model.labelled(x, Y)
    report = check_model(model, rows[:4], points=1)
    assert report, report
    assert max(row.oracle for row in report if row.oracle is not None) < 1e-10
    arrays = model.params.named(model.params.value)
    n = len(settings["channels"])
    h = x
    for layer in model.encoder.network.hidden.layers[: 2 * n]:
        h = layer.forward(h)
    h = np.concatenate([h, np.eye(3)[Y]], axis=1)
    if settings["n_hidden"]:
        h = np.maximum(h @ arrays["encoder.hidden.W"] + arrays["encoder.hidden.b"], 0)
    assert_allclose(model.encode(rows)[0], h @ arrays["encoder.mu.W"] + arrays["encoder.mu.b"], rtol=1e-12)
    z = rng(1).standard_normal((5, 2))
    first = next(layer for layer in model.decoder.layers if hasattr(layer, "W"))
    assert first.shapes["W"][0] == 5  # z and y
    assert np.abs(model.decode(z, Y) - model.decode(z, (Y + 1) % 3)).min(axis=1).max() > 0


def test_in_the_linear_model_log_p_of_an_image_given_its_class_is_exact():
    model, laws = linear()
    x = rng(2).standard_normal((5, 6))
    truth = np.array([laws[y].logpdf(row) for row, y in zip(x, Y, strict=True)])
    rows = model.labelled(x, Y)
    assert_allclose(importance(model, rows, 7).log_p, truth, rtol=1e-12)  # q is the posterior: any draw is exact
    neg_kl, log_px = model.terms(rows, rng(3).standard_normal((50_000, 5, 2)))
    assert_allclose(neg_kl + log_px, truth, atol=0.05)
    enclosed = sandwich(model, 30, 32, 60)
    assert abs(enclosed.gap()[0]) < 4 * enclosed.gap()[1] + 0.01


def test_classes_by_bayes_rule_are_those_of_the_exact_densities():
    model, laws = linear()
    x = np.concatenate([law.rvs(40, random_state=k) for k, law in enumerate(laws)])
    y = np.repeat([0, 1, 2], 40)
    prior = np.array([0.7, 0.25, 0.05])
    joint = np.stack([law.logpdf(x) for law in laws], axis=1) + np.log(prior)
    found = classes(model, x, 3, prior)
    assert_allclose(found.log_posterior(), joint - logsumexp(joint, axis=1)[:, None], rtol=1e-8, atol=1e-10)
    assert_allclose(found.log_px(), logsumexp(joint, axis=1), rtol=1e-10)
    assert_array_equal(found.predicted(), joint.argmax(axis=1))
    assert_allclose(found.accuracy(y), (joint.argmax(axis=1) == y).mean())
    assert not found.untrusted.any() and found.error.max() < 1e-6
    labelled = model.labelled(x, np.zeros(len(x), int))  # whatever their own labels are
    assert_array_equal(classes(model, labelled, 3, prior).log_px_y, found.log_px_y)
    uniform = classes(model, x, 3)
    assert_allclose(uniform.prior, 1 / 3)
    assert_allclose(uniform.log_posterior(), found.log_px_y - logsumexp(found.log_px_y, axis=1)[:, None])


def test_a_class_without_probability_is_never_predicted():
    model, _ = linear()
    found = classes(model, X, 3, [0.5, 0.5, 0.0])
    assert (found.log_posterior()[:, 2] == -np.inf).all() and found.predicted().max() < 2


def test_draws_arrive_at_the_estimate_of_each_class(monkeypatch):
    from scratchvae.inference import classes as module

    seen = []
    original = module.importance

    def noted(model, rows, n_samples, seed, progress, comm):
        seen.append((model.labels(rows).tolist(), n_samples, seed))
        return original(model, rows, n_samples, seed, progress, comm)

    monkeypatch.setattr(module, "importance", noted)
    done = []
    classes(conditional(), X, 4, seed=9, progress=done.append)
    assert seen == [([y] * 5, 4, 9) for y in range(3)] and sum(done) == 15


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: conditional(estimator="wake-sleep"), "n_classes is 3, and the estimator 'wake-sleep' has dreams"),
        (lambda: conditional(n_classes=1), "n_classes is 1; expected 2 or more"),
        (lambda: conditional(n_classes=-1), "n_classes is -1; expected a whole number ≥ 0"),
        (lambda: conditional().decode(np.zeros((2, 2))), "y is None; expected the labels of 2 rows"),
        (lambda: conditional().decode(np.zeros((2, 2)), [0]), r"y is int64 \(1,\); expected \(2,\)"),
        (lambda: conditional().decode(np.zeros((2, 2)), [0, 3]), "y has labels from 0 to 3; expected 0 to 2"),
        (lambda: conditional().decode(np.zeros((2, 2)), [0.0, 1.0]), r"y is float64 \(2,\); expected"),
        (lambda: VAE(6, 5, 2).decode(np.zeros((2, 2)), [0, 1]), "y holds labels, and the model has no classes"),
        (lambda: conditional().labelled(X, Y[:4]), r"y is int64 \(4,\); expected \(5,\)"),
        (lambda: fit(conditional(), X, samples=10), r"train has shape \(5, 6\).* 6 pixels and a label of 3"),
        (lambda: importance(conditional(), np.c_[X, X[:, :3]], 5), "has no label in the last 3 columns of 5 of 5 rows"),
        (lambda: importance(conditional(), np.c_[X, np.ones((5, 3))], 5), "has no label in the last 3 columns"),
        (lambda: classes(VAE(6, 5, 2), X), "the model has no classes"),
        (lambda: classes(conditional(), X, prior=[0.5, 0.5]), r"prior has shape \(2,\); expected \(3,\)"),
        (lambda: classes(conditional(), X, prior=[0.5, 0.5, 0.5]), "expected the probabilities of the classes"),
        (lambda: classes(conditional(), X, 0), "n_samples is 0"),
        (lambda: Data("mine", (2, 3), "grey", X, X, X).labelled(), "mine has no labels for train and valid and test"),
        (lambda: Data("mine", (2, 3), "grey", X, X, X, Y, Y, 0 * Y - 1).labelled(), "mine has labels from -1 to 2"),
        (lambda: Data("mine", (2, 3), "grey", X, X, X, *[0 * Y] * 3).labelled(), "mine has labels from 0 to 0"),
        (lambda: Data("mine", (2, 3), "grey", X, X, X, *[9999 * Y] * 3).labelled(), "mine has labels from 0 to 19998"),
    ],
)
def test_what_does_not_fit_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_data_with_labels_have_them_behind_the_pixels_of_every_part():
    plain = data.load_data("digits")
    images = plain.labelled()
    assert images.n_classes == 10
    for part in ("train", "valid", "test"):
        assert_array_equal(images.pixels(part), getattr(plain, part))
        assert_array_equal(getattr(images, part)[:, 64:].argmax(axis=1), getattr(plain, f"{part}_labels"))
    assert_array_equal(plain.pixels("test"), plain.test)
    named = Data("mine", (2, 3), "grey", X, X, X, Y, Y, Y, ("a", "b", "c", "d")).labelled()
    assert named.n_classes == 4  # a class without an image in it is a class


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional run on the digits."""
    folder = tmp_path_factory.mktemp("labels") / "run"
    words = "train --latent 3 --hidden 40 --labels --samples 20000 --quiet --out"
    assert main([*words.split(), str(folder)]) == 0
    return str(folder)


def test_a_run_with_labels_is_resumed_and_evaluated_and_tells_the_classes(run, capsys):
    model = load_model(run)
    assert model.n_classes == 10 and model.n_visible == 64
    assert main(["train", "--resume", run, "--samples", "20500", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--json", "--classify", "5", "--seed", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    images = data.load_data("digits").labelled()
    model = load_model(run)
    found = classes(model, images.test, 5, seed=2)
    y = data.load_data("digits").test_labels
    assert told["accuracy"] == found.accuracy(y) > 0.7
    assert_allclose(told["log_posterior_of_label"], found.log_posterior()[np.arange(len(y)), y].mean())
    assert told["classify_samples"] == 5 and told["classes"] == 10
    assert told["classify_untrusted"] == found.untrusted[np.arange(len(y)), found.predicted()].sum()
    assert main(["evaluate", run, "--classify", "5", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"is the right one for {found.accuracy(y):.2%} of 180 images", said), said


def class_folders(folder, names):
    """Write two images for each of the classes into class folders, white in another corner for each class."""
    from PIL import Image

    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for j in range(2):
            image = np.full((4, 4), 20 + 10 * j, np.uint8)
            image[k % 2 * 2 : k % 2 * 2 + 2, k // 2 * 2 : k // 2 * 2 + 2] = 255
            Image.fromarray(image).save(folder / name / f"{j}.png")


def test_new_images_have_their_classes_by_name_and_unknown_ones_are_refused(tmp_path, capsys):
    class_folders(tmp_path / "photos", ["ant", "bee", "cat"])
    run = str(tmp_path / "run")
    words = f"train --data {tmp_path / 'photos'} --labels --latent 2 --hidden 5 --samples 300 --quiet --out {run}"
    assert main(words.split()) == 0
    class_folders(tmp_path / "others", ["bee", "cat"])
    assert main(["encode", run, "--data", str(tmp_path / "others"), "--out", str(tmp_path / "others.npz")]) == 0
    loaded = data.load_images(str(tmp_path / "others")).labelled(3, ["ant", "bee", "cat"])
    assert_array_equal(loaded.x[:, 16:].argmax(axis=1), [1, 1, 2, 2])
    with np.load(tmp_path / "others.npz") as file:
        assert_allclose(file["z"], load_model(run).encode_mean(loaded.x), rtol=1e-5)
    capsys.readouterr()
    assert main(["sample", run, "--n", "3", "--out", str(tmp_path / "bees.npz"), "--label", "bee"]) == 0
    assert "bees.npz: 3 means E[x|z, y] at z ~ p(z), of class bee\n" in capsys.readouterr().out
    with np.load(tmp_path / "bees.npz") as file:
        assert_allclose(file["images"], load_model(run).decode(file["z"], [1, 1, 1]), rtol=1e-6)
    assert main(["sample", run, "--out", str(tmp_path / "owl.npz"), "--label", "owl"]) == 2
    assert "--label is owl; expected the number of a class, from 0 to 2, or a name among ant, bee, cat" in (
        capsys.readouterr().err
    )
    class_folders(tmp_path / "wasps", ["bee", "wasp"])
    assert main(["encode", run, "--data", str(tmp_path / "wasps"), "--out", str(tmp_path / "w.csv")]) == 2
    assert "wasps has the class wasp; expected classes of the training: ant, bee, cat" in capsys.readouterr().err
    np.save(tmp_path / "bare.npy", np.zeros((3, 4, 4), np.uint8) + 200)
    assert main(["encode", run, "--data", str(tmp_path / "bare.npy"), "--out", str(tmp_path / "w.csv")]) == 2
    assert "bare.npy has no labels, and the model was told the class of each image" in capsys.readouterr().err


def test_samples_on_the_command_line_are_of_the_classes_in_turn_or_of_the_one_that_is_named(run, tmp_path, capsys):
    model = load_model(run)
    for label, y in (("", np.arange(12) % 10), ("--label 3", np.full(12, 3))):
        out = tmp_path / f"samples{len(label)}.npz"
        assert main(["sample", run, "--n", "12", "--out", str(out), *label.split()]) == 0
        with np.load(out) as file:
            assert_allclose(file["images"], model.decode(file["z"], y), rtol=1e-6)
    told = capsys.readouterr().out
    assert "at z ~ p(z), the classes in turn\n" in told and "at z ~ p(z), of class 3\n" in told
    assert main(["sample", run, "--out", str(tmp_path / "x.npz"), "--label", "10"]) == 2
    assert "--label is 10; expected the number of a class, from 0 to 9" in capsys.readouterr().err


def test_a_reconstruction_is_written_beside_the_image_without_its_label(run, tmp_path):
    out = tmp_path / "again.npz"
    assert main(["reconstruct", run, "--n", "5", "--out", str(out)]) == 0
    images = data.load_data("digits").labelled()
    with np.load(out) as file:
        assert_array_equal(file["images"], images.pixels("test")[:5])
        assert_allclose(file["reconstructions"], load_model(run).reconstruct(images.test[:5]), rtol=1e-6)


def drawn(ax, columns, shape=(2, 3)):
    """The images of a grid on an axis, (N, D), without the lines between them."""
    canvas = np.asarray(ax.images[0].get_array())
    height, width = shape
    rows = len(canvas) // (height + 1)
    places = [(1 + r * (height + 1), 1 + c * (width + 1)) for r in range(rows) for c in range(columns)]
    return np.array([canvas[top : top + height, left : left + width].ravel() for top, left in places])


def test_one_style_is_drawn_in_all_classes_and_samples_have_a_column_for_each():
    model = conditional()
    _, ax = plots.figure()
    plots.styles(ax, model, (2, 3), 4, ["ant", "bee", "cat"], seed=5)
    z = rng(5).standard_normal((4, 2))
    images = drawn(ax, 3).reshape(4, 3, 6)
    for y in range(3):
        assert_allclose(images[:, y], model.decode(z, [y] * 4), atol=0.003)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ant", "bee", "cat"]
    _, ax = plots.figure()
    plots.samples(ax, model, (2, 3), 12, 3, seed=2)
    assert_allclose(drawn(ax, 3), model.sample(12, 2, [0, 1, 2] * 4), atol=0.003)
    assert "Each column is a class" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="styles are drawn for a conditional model"):
        plots.styles(ax, VAE(6, 5, 2), (2, 3))


def test_pictures_of_a_conditional_run_keep_the_class_of_their_images():
    model = conditional()
    rows = model.labelled(X, Y)
    _, ax = plots.figure()
    plots.traversals(ax, model, rows[2], (2, 3), values=5)
    z = np.tile(model.encode_mean(rows[2:3]), (5, 1))
    z[:, 0] = np.linspace(-3, 3, 5)
    assert_allclose(drawn(ax, 5)[:5], model.decode(z, [2] * 5), atol=0.003)
    _, ax = plots.figure()
    plots.interpolation(ax, model, rows[[[1, 3]]], (2, 3), stops=3)
    images = drawn(ax, 5)
    assert_allclose(images[[0, 4]], X[[1, 3]], atol=0.003)
    middle = model.encode_mean(rows[[1, 3]]).mean(axis=0)
    assert_allclose(images[2], model.decode(middle[None], [1])[0], atol=0.003)
    labels = np.array([0, 1, 0, 1, 2, 2])
    assert all(labels[a] == labels[b] for a, b in plots._pairs(labels, 6, 3, 0, alike=True))
    assert all(labels[a] != labels[b] for a, b in plots._pairs(labels, 6, 3, 0))


def test_a_conditional_run_draws_its_pictures(run):
    names = {path.stem for path in (Path(run) / "figures").iterdir()}
    assert {"styles", "samples", "traversals", "interpolation", "nearest", "reconstructions"} <= names
    assert not {"random_walk", "manifold"} & names  # these have no class


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --data frey --labels", "frey has no labels for train and valid and test"),
        ("evaluate {run} --classify 0", "--classify is 0; expected a whole number ≥ 1"),
    ],
)
def test_the_command_line_refuses_labels_that_do_not_fit(run, words, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    faces = Data("frey", (2, 3), "grey", X, X, X)
    if "frey" in words:
        monkeypatch.setattr(data, "load_data", lambda *_, **__: faces)
    assert main(words.format(run=run).split()) == 2
    assert told in capsys.readouterr().err
