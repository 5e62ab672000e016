"""What a mistake could pass by unseen: which pixels, noise, rows, bytes and split, and which threshold.

Each value is written out here from its source: the raw files, the formulas, or the checkpoint's own content.
"""

import functools
import gzip
import hashlib
import inspect
import itertools
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import rows, shared, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import SGD, VAE, Adagrad, Adam, FullVB, evaluate, fit, load_data
from scratchvae.cli import main
from scratchvae.cli.shared import DEFAULTS, run_options
from scratchvae.data import binarise, thresholds
from scratchvae.doors import own_name
from scratchvae.inference import hmc, marginal, reparameterise, score_function
from scratchvae.inference.mcem import e_step
from scratchvae.inference.mean_field import CorrelatedGaussian
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.models.regression import LinearRegression
from scratchvae.ranks import fingerprint
from scratchvae.training import checkpoint
from scratchvae.training.checkpoint import CheckpointError
from scratchvae.training.em import fit_mcem
from scratchvae.training.loop import HELD_OUT, ORDER, STEP, evaluate_theta, stream
from scratchvae.training.optim import started
from scratchvae.training.posterior import fit_posterior
from scratchvae.training.run import facts_of_run, load_model

# Data: pixels and labels of every split, from the raw files


def idx(name, header):
    """What follows the header of an IDX file, as bytes in a flat array."""
    raw = gzip.decompress(Path(os.environ["SCRATCHVAE_DATA"], "mnist", f"{name}.gz").read_bytes())
    return np.frombuffer(raw[header:], np.uint8)


def test_mnists_pixels_and_labels_are_those_of_the_raw_files_split_by_split(mnist):
    images = idx("train-images-idx3-ubyte", 16).reshape(60_000, 784)
    labels = idx("train-labels-idx1-ubyte", 8)
    for part, rows_of_file in [("train", slice(0, 50_000)), ("valid", slice(50_000, 60_000))]:
        assert_array_equal(getattr(mnist, part), images[rows_of_file])
        assert_array_equal(getattr(mnist, f"{part}_labels"), labels[rows_of_file])
    assert_array_equal(mnist.test, idx("t10k-images-idx3-ubyte", 16).reshape(10_000, 784))
    assert_array_equal(mnist.test_labels, idx("t10k-labels-idx1-ubyte", 8))


def assert_split(data, images, labels):
    """The splits are the rows of a permutation with seed 0, one after the other, and none is in two of them."""
    order = np.random.default_rng(0).permutation(len(images))
    begun = 0
    for part in ("train", "valid", "test"):
        chosen = order[begun : begun + len(getattr(data, part))]
        begun += len(chosen)
        assert_array_equal(getattr(data, part), images[chosen])
        if labels is None:
            assert getattr(data, f"{part}_labels") is None
        else:
            assert_array_equal(getattr(data, f"{part}_labels"), labels[chosen])
    return begun


def test_digits_splits_are_rows_of_the_source_and_no_row_is_in_two_of_them(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.round(source.images.reshape(1797, 64) * 255 / 16).astype(np.uint8)
    assert assert_split(digits, images, source.target) == 1797
    few = load_data("digits", split=(50, 30, 20), n_train=10)
    assert (len(few.train), len(few.valid), len(few.test)) == (10, 30, 20)
    assert_array_equal(few.train, digits.train[:10])
    assert_array_equal(few.train_labels, digits.train_labels[:10])
    assert_array_equal(few.valid, digits.train[50:80])
    assert_array_equal(few.test_labels, digits.train_labels[80:100])


def test_frey_faces_splits_are_columns_of_the_source_and_no_frame_is_in_two_of_them(frey):
    from scipy.io import loadmat

    shared("frey")
    frames = loadmat(os.environ["SCRATCHVAE_DATA"] + "/frey/frey_rawface.mat")["ff"].T
    assert assert_split(frey, frames, None) == 1965


def test_ones_own_images_keep_their_labels_whether_they_come_in_splits_or_not(tmp_path):
    images = np.column_stack([np.full((40, 8), 255, np.uint8), np.arange(40, dtype=np.uint8)])
    np.savez(tmp_path / "one.npz", images=images, labels=np.arange(40) + 100)
    assert assert_split(load_data(tmp_path / "one.npz"), images, np.arange(40) + 100) == 40
    parts = {"train": slice(0, 20), "valid": slice(20, 31), "test": slice(31, 40)}
    arrays = {part: images[cut] for part, cut in parts.items()}
    np.savez(tmp_path / "three.npz", **arrays, **{f"{part}_labels": np.arange(40)[cut] for part, cut in parts.items()})
    data = load_data(tmp_path / "three.npz")
    for part, cut in parts.items():
        assert_array_equal(getattr(data, part), images[cut])
        assert_array_equal(getattr(data, f"{part}_labels"), np.arange(40)[cut])
    again = load_data(tmp_path / "three.npz", split=(5, 15, 20))
    for part, cut in {"train": slice(0, 5), "valid": slice(5, 20), "test": slice(20, 40)}.items():
        assert_array_equal(getattr(again, part), images[cut])
        assert_array_equal(getattr(again, f"{part}_labels"), np.arange(40)[cut])


# Algorithm 1 and appendix E, written out


TRAIN = rows(23)


def sgd(lr, t, g, state):
    return lr * g


def adagrad(lr, t, g, state):
    state["h"] = state.get("h", 0) + g**2
    return (t > 4) * lr * g / (np.sqrt(state["h"]) + 1e-10)  # a warm-up of four updates


def adam(lr, t, g, state):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    return lr * state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


WRITTEN_OUT = {
    "SGD": (lambda: SGD(0.003, decay=5), sgd, 0.003),
    "Adagrad": (lambda: Adagrad(0.05, warmup=4, decay=5), adagrad, 0.05),
    "Adam": (lambda: Adam(0.02, decay=5), adam, 0.02),
}


@pytest.mark.parametrize("schedule", ["joint", "alternating"])
@pytest.mark.parametrize("name", WRITTEN_OUT)
@pytest.mark.parametrize("prior", [True, False])
def test_three_epochs_are_the_written_out_algorithm_1_with_its_noise_its_prior_and_the_optimisers_state(
    name, schedule, prior
):
    """Every minibatch is drawn as Bernoulli(x) with the run's seed, which is not 0."""
    make, step_of, lr = WRITTEN_OUT[name]
    model = small(prior=prior)
    settings = {"epochs": 3, "batch_size": 10, "seed": 5, "binarization": "dynamic", "schedule": schedule}
    fit(model, TRAIN, optimizer=make(), **settings)

    other = small(prior=prior)
    value = other.params.value
    halves = [slice(None)] if schedule == "joint" else [other.phi, other.theta]
    state = [{} for _ in halves]
    t = 0
    for epoch in range(3):
        order = np.random.default_rng([5, ORDER, epoch]).permutation(23)
        for batch in (order[:10], order[10:20], order[20:]):
            generator = np.random.default_rng([5, STEP, t])
            t += 1
            x = (generator.random((len(batch), 6)) < TRAIN[batch]).astype(float)
            for half, memory in zip(halves, state, strict=True):
                eps = generator.standard_normal((1, len(batch), 2))
                other.bound(x, eps, 23, gradient=True)
                g = other.params.grad.copy()
                if prior:
                    g[other.theta] -= value[other.theta]  # ∂log p(θ)/∂θ = -θ
                value[half] += step_of(lr / (1 + t / 5), t, g[half], memory)
    assert t == 9
    assert_allclose(model.params.value, value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seeds", [(2**24, 2**24 + 1), (2**32 - 1, 2**32 - 2), (2**32, 2**32 + 1), (2**40, 2**40 + 1)])
def test_no_bit_of_a_seed_or_an_index_is_lost_in_a_random_stream(seeds):
    for seed in (*seeds, seeds[0] % 2**24):
        for purpose, index in [(ORDER, 0), (STEP, 3), (STEP, 2**24), (HELD_OUT, 2**24 + 1)]:
            expected = np.random.default_rng([seed, purpose, index]).integers(0, 2**63, 4)
            assert_array_equal(stream(seed, purpose, index).integers(0, 2**63, 4), expected)
    words = itertools.product(seeds, (ORDER, STEP, HELD_OUT), (0, 1, 2**24, 2**24 + 1))
    assert len({int(stream(*word).integers(0, 2**63)) for word in words}) == 2 * 3 * 4


def test_seeds_that_differ_in_the_last_of_many_bits_train_differently():
    found = [small() for _ in range(2)]
    for model, seed in zip(found, (2**40, 2**40 + 1), strict=True):
        fit(model, TRAIN, epochs=1, batch_size=10, seed=seed)
    assert (found[0].params.value != found[1].params.value).any()


@pytest.mark.parametrize("jitter", [None, 0.0, 0.3])
def test_an_e_step_is_one_transition_with_the_stepsize_of_each_chain_jittered_by_itself(jitter):
    model, x = small(), rows()
    z = np.random.default_rng(1).standard_normal((7, 2))
    settings = {"steps": 4, "acceptance": 0.7} | ({} if jitter is None else {"jitter": jitter})
    found, log_stepsize, rate = e_step(model.decoder, x, z, np.random.default_rng(2), np.log(0.4), **settings)

    generator = np.random.default_rng(2)
    p = generator.standard_normal((7, 2))
    u, v = generator.random((2, 7))
    epsilon = 0.4 * (1 - (0.5 if jitter is None else jitter) * v[:, None])  # U(ε/2, ε) unless told otherwise
    target = hmc.log_joint(model.decoder, x)
    end, momentum = z, p
    for _ in range(4):
        momentum = momentum + 0.5 * epsilon * target(end)[1]
        end = end + epsilon * momentum
        momentum = momentum + 0.5 * epsilon * target(end)[1]
    gain = target(end)[0] - 0.5 * (momentum**2).sum(axis=1) - target(z)[0] + 0.5 * (p**2).sum(axis=1)
    probability = np.minimum(1, np.exp(gain))
    assert_allclose(found, np.where((u < probability)[:, None], end, z), rtol=1e-10)
    assert_allclose(rate, probability.mean(), rtol=1e-10)
    assert_allclose(log_stepsize, np.log(0.4) + 0.5 * (probability.mean() - 0.7), rtol=1e-10)


@pytest.mark.filterwarnings("ignore:the chains accept")
def test_monte_carlo_em_jitters_every_transition(monkeypatch):
    from scratchvae.inference import mcem

    stepsizes = []
    transition = mcem.transition

    def noting(target, state, p, u, stepsize, steps):
        stepsizes.append(np.ravel(stepsize))
        return transition(target, state, p, u, stepsize, steps)

    monkeypatch.setattr(mcem, "transition", noting)
    fit_mcem(small(), rows(40), samples=16 * 40 * 3, batch_size=40, seed=1)
    first = stepsizes[0]  # of the first E-step, whose ε is 0.1
    assert len(stepsizes) == 3 and first.shape == (40,) and len(set(first)) == 40
    assert 0.05 <= first.min() < 0.06 and 0.09 < first.max() <= 0.1


@pytest.mark.filterwarnings("ignore:.* a longer burn_in tunes")  # 15 transitions do not tune them
def test_after_the_burn_in_every_transition_has_the_stepsize_that_is_told(monkeypatch):
    stepsizes = []
    rates = []
    transition = hmc.transition

    def noting(target, state, p, u, stepsize, steps):
        stepsizes.append(np.array(stepsize))
        result = transition(target, state, p, u, stepsize, steps)
        rates.append(result[1][:, None])
        return result

    def normal(z):
        return -0.5 * (z * z).sum(axis=1) / 9, -z / 9

    monkeypatch.setattr(hmc, "transition", noting)
    z = np.random.default_rng(0).standard_normal((3, 2))
    found = hmc.sample(normal, z, np.random.default_rng(1), 6, 15, 4, acceptance=0.6, stepsize=0.3, jitter=0.0)
    assert len(stepsizes) == 21 and found.stepsize.shape == (3, 1)
    for stepsize in stepsizes[15:]:
        assert_array_equal(np.broadcast_to(stepsize, (3, 1)), found.stepsize)

    frozen = 0.3
    for half, gamma, lean in [(rates[:8], 0.05, 10), (rates[8:15], 0.5, 1)]:  # algorithm 5 of Hoffman & Gelman, twice
        mu = np.log(lean * frozen)
        too_low = log_average = 0
        for m, rate in enumerate(half, 1):
            too_low = too_low + (0.6 - rate - too_low) / (m + 10)
            log_stepsize = mu - np.sqrt(m) / gamma * too_low
            log_average = log_average + (log_stepsize - log_average) / m**0.75
        frozen = np.exp(log_average)
    assert_allclose(found.stepsize, frozen, rtol=1e-10)
    for other in (np.exp(log_stepsize), stepsizes[14], 0.3):  # control: the last ones of the tuning, and the first
        assert (np.abs(other / frozen - 1) > 0.01).all()


def test_black_box_takes_both_devices_unless_told_otherwise():
    settings = ("rao_blackwell", "control_variate")
    assert [inspect.signature(black_box).parameters[name].default for name in settings] == [True, True]
    assert [inspect.signature(black_box.surrogate).parameters[name].default for name in settings] == [True, True]
    assert inspect.signature(score_function.score_gradient).parameters["control_variate"].default is False
    assert inspect.signature(score_function.score_weighted).parameters["control_variate"].default is False

    def gradient(estimator):
        model = small(estimator=estimator, n_samples=4)
        model.bound(rows(), model.noise(np.random.default_rng(0), 7), 40, gradient=True)
        return model.params.grad.copy()

    plain = gradient("black-box")
    assert_array_equal(gradient(black_box), plain)
    for pair in itertools.product([True, False], repeat=2):
        told = gradient(functools.partial(black_box, **dict(zip(settings, pair, strict=True))))
        assert np.array_equal(told, plain) == (pair == (True, True)), pair


def test_a_partial_is_kept_under_a_name_with_all_its_settings_in_an_order_that_no_process_changes():
    """Keys come in the order of their texts, of whatever kinds they are; an array counts with every number in it."""

    def call(value, **settings):
        return own_name(functools.partial(black_box, value, **settings), ())

    for value, text in [
        (True, "True"),
        (0.5, "0.5"),
        (None, "None"),
        ("grey", "'grey'"),
        ([1, (2, "a")], "[1, (2, 'a')]"),
        (sgd, "sgd"),
        ({10: 1, 9: {"b": 2, 4: sgd}, "a": None, (1,): 0.5}, "{'a': None, (1,): 0.5, 10: 1, 9: {'b': 2, 4: sgd}}"),
    ]:
        assert call(value) == f"partial black_box({text})"
        assert call(1, b=value, a=2) == f"partial black_box(1, a=2, b={text})"
    x = np.arange(6.0).reshape(2, 3)
    digest = hashlib.sha256(x.tobytes()).hexdigest()[:16]
    assert call(x) == f"partial black_box(array float64 (2, 3) {digest})"
    assert call(x[:, ::2]) == call(x[:, ::2].copy())  # wherever its numbers lie
    other = x.copy()
    other[1, 2] += 1
    assert len({call(array) for array in (x, other, x.T, x.astype("f4"), x[::-1])}) == 5


# Resume and checkpoints


@pytest.mark.parametrize(
    ("plain", "other", "name"),
    [
        ({}, {"optimizer": Adagrad(decay=9)}, "optimizer.decay"),
        ({}, {"optimizer": Adagrad(warmup=2)}, "optimizer.warmup"),
        ({}, {"optimizer": Adagrad(eps=1e-8)}, "optimizer.eps"),
        ({}, {"optimizer": SGD(0.01)}, "optimizer.(name|eps)"),
        ({"optimizer": Adam()}, {"optimizer": Adam(decay=9)}, "optimizer.decay"),
        ({"optimizer": Adam()}, {"optimizer": Adam(beta2=0.99)}, "optimizer.beta2"),
        ({}, {"log_every": 50}, "log_every"),
        ({}, {"valid": rows(9, seed=2)}, "data.valid"),
        ({}, {"model": {"flow": 2, "estimator": "A"}}, "model.(estimator|flow)"),
        ({"model": {"estimator": "A"}}, {"model": {"estimator": "A", "flow": 2}}, "model.flow"),
        ({}, {"model": {"posterior": "full"}}, "model.posterior"),
        ({}, {"model": {"prior": False}}, "model.prior"),
    ],
)
def test_what_only_one_of_two_runs_has_is_no_run_to_go_on_with_in_either_direction(plain, other, name, tmp_path):
    def go(settings, samples, **more):
        settings = settings | more
        model = VAE(6, 5, 2, **settings.pop("model", {}))
        return fit(model, TRAIN, samples=samples, batch_size=10, out=tmp_path / "run", **settings)

    for first, second in [(plain, other), (other, plain)]:
        go(first, 50)
        with pytest.raises(CheckpointError, match=f"cannot be resumed: it has {name} "):
            go(second, 100, resume=True)
        assert go(first, 100, resume=True)["samples"][-1] >= 100  # control: with its own settings it goes on
        shutil.rmtree(tmp_path / "run")


def others(x):
    """Arrays that differ from x in a single place or in their order alone, by what differs."""
    last_row = x.copy()
    last_row[-1, 0] = 1 - last_row[-1, 0]
    last_entry = x.copy()
    last_entry[-1, -1] = 1 - last_entry[-1, -1]
    within = x.copy()
    within[len(x) // 2, 3] = 1 - within[len(x) // 2, 3]
    swapped = x.copy()
    swapped[[-1, -2]] = swapped[[-2, -1]]
    return {
        "last row": last_row,
        "last entry": last_entry,
        "an entry in the middle": within,
        "two rows exchanged": swapped,
        "columns exchanged": x[:, [1, 0, 2, 3, 4, 5]],
        "sorted columns": np.sort(x, axis=0),
        "sorted rows": np.sort(x, axis=1),
        "reversed": x[::-1],
        "a row less": x[:-1],
        "a row more": np.concatenate([x, x[:1]]),
    }


OTHER_ROWS = list(others(TRAIN))


@pytest.mark.parametrize("what", OTHER_ROWS)
def test_a_run_goes_on_with_no_rows_but_its_own(what, tmp_path):
    settings = {"samples": 50, "batch_size": 10, "out": tmp_path}
    fit(VAE(6, 5, 2), TRAIN, rows(9, seed=2), **settings)
    with pytest.raises(CheckpointError, match=r"data\.train"):
        fit(VAE(6, 5, 2), others(TRAIN)[what], rows(9, seed=2), resume=True, **settings)
    with pytest.raises(CheckpointError, match=r"data\.valid"):
        fit(VAE(6, 5, 2), TRAIN, others(rows(9, seed=2))[what], resume=True, **settings)


@pytest.mark.parametrize("what", OTHER_ROWS)
@pytest.mark.filterwarnings("ignore:the chains accept")
def test_monte_carlo_em_goes_on_with_no_rows_but_its_own(what, tmp_path):
    settings = {"samples": 100, "batch_size": 10, "out": tmp_path}
    fit_mcem(small(), TRAIN, **settings)
    with pytest.raises(CheckpointError, match="it has data "):
        fit_mcem(small(), others(TRAIN)[what], resume=True, **settings)


@pytest.mark.filterwarnings("ignore:the chains accept")
def test_monte_carlo_em_goes_on_with_no_settings_but_its_own(tmp_path):
    settings = {"samples": 100, "batch_size": 10, "out": tmp_path}
    fit_mcem(small(), TRAIN, **settings)
    for change, name in [
        ({"optimizer": Adagrad(decay=9)}, "optimizer.decay"),
        ({"updates": 4}, "mcem.updates"),
        ({"acceptance": 0.8}, "mcem.acceptance"),
        ({"seed": 1}, "seed"),
    ]:
        with pytest.raises(CheckpointError, match=f"it has {name} "):
            fit_mcem(small(), TRAIN, resume=True, **settings | change)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_a_fingerprint_sees_every_entry_and_the_order(dtype):
    x = np.arange(12, dtype=dtype).reshape(4, 3)
    seen = {fingerprint(x)}
    for place in np.ndindex(x.shape):
        other = x.copy()
        other[place] += 1
        seen.add(fingerprint(other))
    for order in itertools.islice(itertools.permutations(range(4)), 1, None):
        seen.add(fingerprint(np.ascontiguousarray(x[list(order)])))
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        seen.add(fingerprint(np.ascontiguousarray(x[:, list(order)])))
    seen.add(fingerprint(x[:-1]))
    seen |= {fingerprint(x.astype(other)) for other in ("u1", "f4", "f8") if other != dtype}
    assert len(seen) == 1 + 12 + 23 + 5 + 1 + 2
    assert fingerprint(x.copy()) == fingerprint(x) and fingerprint(None) is None


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The arrays and the facts of the checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("kept")
    fit(VAE(6, 5, 2), TRAIN, rows(9, seed=2), samples=200, batch_size=10, log_every=40, out=folder, optimizer=Adam())
    arrays, facts = checkpoint.load(folder / "checkpoint.npz")
    with np.load(folder / "checkpoint.npz") as file:
        manifest = json.loads(str(file["manifest"]))
    return arrays, facts, manifest


def refuses(path, arrays, manifest):
    """Whether a checkpoint of these arrays and this manifest is refused for its SHA-256."""
    np.savez(path, manifest=np.array(json.dumps(manifest)), **arrays)
    try:
        checkpoint.load(path)
    except CheckpointError as error:
        return "its SHA-256 does not match" in str(error)
    return False


def test_no_entry_of_any_array_of_a_run_can_change_unseen(kept, tmp_path):
    arrays, _, manifest = kept
    assert {"history", "optimizer/m", "optimizer/v", "params/encoder.hidden.W"} <= arrays.keys()
    assert not refuses(tmp_path / "c.npz", arrays, manifest)  # control: unchanged, it is taken
    for name, array in arrays.items():
        raw = array.tobytes()
        for place in {0, len(raw) // 2, len(raw) - 1}:
            changed = bytearray(raw)
            changed[place] ^= 1
            other = np.frombuffer(bytes(changed), array.dtype).reshape(array.shape)
            assert refuses(tmp_path / "c.npz", arrays | {name: other}, manifest), (name, place)


def leaves(facts, path=()):
    """The path of every value in nested dicts."""
    for key, value in facts.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]


def test_no_fact_of_a_run_can_change_unseen(kept, tmp_path):
    arrays, facts, manifest = kept
    paths = list(leaves(facts))
    assert {("progress", "step"), ("progress", "total"), ("run", "seed"), ("run", "data", "train")} <= set(paths)
    for path in paths:
        other = json.loads(json.dumps(manifest))
        inside = functools.reduce(lambda place, key: place[key], path[:-1], other["facts"])
        inside[path[-1]] = "another"
        assert refuses(tmp_path / "c.npz", arrays, other), path


@pytest.mark.parametrize("place", [0, 1 << 16, (1 << 20) - 1, 1 << 20, -1])
def test_a_long_array_is_hashed_to_its_end(place, tmp_path):
    path = tmp_path / "c.npz"
    long = np.zeros(3 << 19, np.uint8)  # a mebibyte and a half
    checkpoint.save(path, {"a": np.zeros(3), "long": long}, {})
    with np.load(path) as file:
        manifest = json.loads(str(file["manifest"]))
    long[place] = 1
    assert refuses(path, {"a": np.zeros(3), "long": long}, manifest)


def with_options(without=None, **changes):
    """The text of a config.json with the options of a run, without one of them or with changes."""
    options = {key: value for key, value in (DEFAULTS | changes).items() if key != without}
    return json.dumps({"options": options, "run": {}})


def damaged(reason):
    """What is said of a config.json that is none, before what can be done."""
    return f"is damaged ({reason}): put it back, or choose another folder"


def not_options(reason):
    """What is said of a config.json whose options are not those of a run."""
    return f"does not hold the options of a run of scratchvae train ({reason})"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", damaged("Expecting value: line 1 column 2 (char 1)")),
        ("{}", damaged('expected {"options": …, "run": {…}}')),
        ("[]", damaged('expected {"options": …, "run": {…}}')),
        ('{"options": {}, "run": 3}', damaged('expected {"options": …, "run": {…}}')),
        (with_options(another=1), not_options("this version knows no another: update scratchvae")),
        (with_options(without="latent"), not_options("there is no latent")),
        (with_options(latent="two"), not_options("latent is 'two'")),
    ],
)
def test_what_is_wrong_with_the_options_of_a_run_is_said_in_its_own_words(text, reason, tmp_path):
    """An error of ours is told as it is, and one of Python's with its kind, without which it says little."""
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        run_options(tmp_path)
    assert str(error.value).startswith(f"{path} {reason}")


def test_a_run_in_python_has_no_options_and_a_run_of_the_command_line_has_its_own(tmp_path):
    fit(VAE(6, 5, 2), rows(23), samples=20, batch_size=10, out=tmp_path / "python")
    with pytest.raises(ValueError, match="was trained in Python, not by scratchvae train"):
        run_options(tmp_path / "python")
    (tmp_path / "config.json").write_text(with_options(latent=7), encoding="utf-8")
    assert run_options(tmp_path) == DEFAULTS | {"latent": 7}


# Evaluation


def written_out(model, x, seed, dynamic):
    """The bound (7) per datapoint on drawn pixels, for no more rows than are taken at a time."""
    generator = np.random.default_rng([seed, HELD_OUT, 0])
    if dynamic:
        x = (generator.integers(0, 255, x.shape, dtype=np.uint8) < x).astype(np.uint8) * 255
    neg_kl, log_px = model.terms(x, model.eps(generator, len(x)))
    return float((neg_kl + log_px).astype(float).mean())


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_bound_over_theta_is_on_drawn_pixels_where_the_run_is_dynamic(dynamic, digits):
    model = FullVB(64, 5, 2, init="glorot", log_sigma=-1.0)
    x = digits.test[:50]
    kind = "dynamic" if dynamic else "grey"
    found = evaluate_theta(model, x, 3, seed=4, binarization=kind)
    expected = np.mean([written_out(model.theta_sample((4, k)), x, 4, dynamic) for k in range(3)])
    assert_allclose(found["bound_over_theta"], expected, rtol=1e-6)
    assert_allclose(found["bound_22"], expected - model.theta_kl() / 50, rtol=1e-6)
    other = np.mean([written_out(model.theta_sample((4, k)), x, 4, not dynamic) for k in range(3)])
    assert abs(other / expected - 1) > 1e-3  # control: the pixels matter
    assert_allclose(evaluate(model, x, 4, kind)["bound"], written_out(model, x, 4, dynamic), rtol=1e-6)


@pytest.fixture(scope="module")
def dynamic_run(tmp_path_factory):
    """The folder of a short run of a FullVB on digits that are drawn anew for every minibatch."""
    folder = tmp_path_factory.mktemp("dynamic") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scratchvae.plots.draw_run", lambda *arguments, **settings: [folder, folder])
        command = f"train --binarization dynamic --full-vb --hidden 9 --latent 2 --samples 4000 --quiet --out {folder}"
        assert main(command.split()) == 0
    return folder


@pytest.mark.filterwarnings("ignore:k_hat is above")
@pytest.mark.parametrize(("part", "seed"), [("test", 0), ("valid", 3)])
def test_the_log_likelihood_is_that_of_drawn_pixels_of_the_split_with_the_seed(part, seed, dynamic_run, digits, capsys):
    command = ["evaluate", dynamic_run, "--split", part, "--seed", seed, "--log-likelihood", 30, "--json"]
    assert main([*map(str, command), "--n-theta", "2", "--n-samples", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = load_model(dynamic_run)
    grey = getattr(digits, part)
    drawn = binarise(grey, thresholds(grey.shape, grey.dtype, np.random.default_rng([seed, HELD_OUT, 0])))
    assert (found["log_likelihood"], found["log_likelihood_error"]) == marginal.importance(
        model, drawn, 30, seed
    ).mean()
    assert found["log_likelihood"] != marginal.importance(model, grey, 30, seed).mean()[0]  # control
    model.n_samples = 3
    assert_allclose(found["bound"], evaluate(model, grey, seed, "dynamic")["bound"], rtol=1e-12)
    expected = evaluate_theta(model, grey, 2, seed, "dynamic")["bound_over_theta"]
    assert_allclose(found["bound_over_theta"], expected, rtol=1e-12)


def test_n_samples_is_the_number_of_draws_that_the_printed_bound_has(dynamic_run, digits, capsys):
    bounds = []
    for L in (1, 6):
        assert main(["evaluate", str(dynamic_run), "--n-samples", str(L), "--n-theta", "0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        model = load_model(dynamic_run)
        model.n_samples = L
        assert found["n_samples"] == L
        assert found["bound"] == evaluate(model, digits.test, 0, "dynamic")["bound"]
        bounds.append(found["bound"])
    assert bounds[0] != bounds[1]


def test_train_validates_on_the_validation_images(dynamic_run, digits):
    with np.load(dynamic_run / "checkpoint.npz") as file:
        last = file["history"][-1]
    model = load_model(dynamic_run)
    assert last["valid_bound"] == evaluate(model, digits.valid, 0, "dynamic")["bound"]
    assert last["valid_bound"] != evaluate(model, digits.test, 0, "dynamic")["bound"]


K_HAT = np.array([0.45, 0.55, 0.65, 0.75])


@pytest.mark.parametrize(("n", "trusted"), [(50, 0), (100, 1), (316, 2), (5000, 3)])  # thresholds 0.41, 0.5, 0.6, 0.7
def test_what_is_trusted_depends_on_the_number_of_terms(n, trusted, monkeypatch):
    estimate = marginal.Estimate(*np.zeros((3, 4)), K_HAT, n)
    assert_array_equal(estimate.untrusted(), np.arange(4) >= trusted)
    threshold = min(1 - 1 / np.log10(n), 0.7)
    assert_allclose(estimate.threshold(), threshold, rtol=1e-12)
    row_by_row = itertools.cycle(K_HAT)
    monkeypatch.setattr(marginal, "pareto_k", lambda log_w: np.array([next(row_by_row) for _ in log_w[0]]))
    model = small()
    with pytest.warns(UserWarning, match=f"k_hat is above {threshold:.2g} for {4 - trusted} of 4 datapoints"):
        marginal.importance(model, rows(4), n)


@pytest.mark.filterwarnings("ignore:.* a longer burn_in tunes")
def test_appendix_d_counts_what_it_does_not_trust_above_the_threshold_of_its_number_of_terms(monkeypatch):
    monkeypatch.setattr(marginal, "pareto_k", lambda log_w: np.resize(K_HAT, log_w.shape[1]))
    with pytest.warns(UserWarning, match=r"k_hat is above 0\.5 for 3 of 4 datapoints"):
        marginal.appendix_d(small(), rows(4), 100, burn_in=20)


# Arguments that were taken for others, or for none


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VAE(6, 5, 2, prior="no"), "prior is 'no'; expected True or False"),
        (lambda: VAE(6, 5, 2, prior=1), "prior is 1; expected True or False"),
        (lambda: VAE(6, 5, 2, init_biases="no"), "init_biases is 'no'; expected True or False"),
        (lambda: FullVB(6, 5, 2, learn_hyperprior="no"), "learn_hyperprior is 'no'; expected True or False"),
        (lambda: FullVB(6, 5, 2).warm_start("run"), "to start from is a str; expected a VAE or a FullVB"),
        (lambda: FullVB(6, 5, 2).warm_start(not_finite()), "to start from has values that are not finite"),
        (lambda: bound_of(VAE(6, 5, 2), n_data=math.nan), "n_data is nan; expected a number > 0"),
        (lambda: bound_of(VAE(6, 5, 2), n_data="7"), "n_data is '7'; expected a number > 0"),
        (lambda: bound_of(FullVB(6, 5, 2), n_data=0), "n_data is 0; expected a number > 0"),
        (lambda: bound_of(FullVB(6, 5, 2), zeta=math.nan), "zeta has values that are not finite"),
        (lambda: bound_of(FullVB(6, 5, 2, theta_noise="local"), zeta=math.inf), "zeta has values that are not finite"),
    ],
)
def test_what_a_model_cannot_mean_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def not_finite():
    model = VAE(6, 5, 2)
    model.params.value[-1] = np.nan
    return model


def bound_of(model, n_data=7, zeta=1.0):
    noise = model.noise(np.random.default_rng(0), 7)
    if isinstance(model, FullVB):
        noise[1].flat[-1] = zeta
    return model.bound(rows(), noise, n_data)


@pytest.mark.parametrize("acceptance", ["0.8", None, 0, 1, math.nan, 10**400, True])
def test_an_acceptance_that_is_no_rate_is_refused(acceptance):
    with pytest.raises(ValueError, match=r"acceptance is .*; expected a rate between 0 and 1"):
        fit_mcem(VAE(6, 5, 2), rows(), samples=16, batch_size=7, acceptance=acceptance)


@pytest.mark.filterwarnings("ignore:the chains accept")
def test_an_acceptance_of_numpy_is_that_number(tmp_path):
    fit_mcem(VAE(6, 5, 2), rows(), samples=16, batch_size=7, acceptance=np.float32(0.5), out=tmp_path)
    assert facts_of_run(tmp_path)["run"]["mcem"]["acceptance"] == 0.5


def test_a_random_stream_far_on_in_a_run_is_that_of_its_words():
    for words in [(0, 1, 1 << 40), (1 << 33, 1, 2), (3, 1, (1 << 32) - 1)]:
        assert stream(*words).random() == np.random.default_rng([*words]).random()


@pytest.mark.parametrize("name", ["n_hidden", "n_latent", "n_samples", "seed"])
def test_a_number_that_no_array_can_have_is_refused_by_its_name(name):
    for value in (1 << 63, 10**400):
        with pytest.raises(ValueError, match=f"{name} is a number of {len(str(value))} digits; expected .* below 2"):
            VAE(6, **({"n_hidden": 5, "n_latent": 2} | {name: value}))


# What must not depend on where it is computed, and thresholds from both sides


def test_a_plain_autoencoder_reads_of_its_noise_the_shape_alone():
    model = small(estimator="autoencoder")
    found = []
    for eps in (np.zeros((1, 7, 2)), np.ones((1, 7, 2)), model.eps(np.random.default_rng(0), 7)):
        found.append((model.bound(rows(), eps, 7, gradient=True), model.params.grad.copy(), *model.terms(rows(), eps)))
        assert np.isfinite(found[-1][0])
        for ours, first in zip(found[-1], found[0], strict=True):
            assert_array_equal(ours, first)


@pytest.mark.filterwarnings("ignore:.* a longer burn_in tunes", "ignore:k_hat")
def test_the_error_of_appendix_d_is_the_same_for_densities_of_any_size(monkeypatch):
    """A density that is e⁹⁰⁰ times as large everywhere is one in other units."""
    found = []
    density = marginal.log_p_xz
    for units in (0.0, 900.0, -900.0):
        monkeypatch.setattr(marginal, "log_p_xz", lambda *arguments, units=units: density(*arguments) + units)
        estimate = marginal.appendix_d(small(), rows(3), 50, burn_in=20)
        assert np.isfinite(estimate.error).all() and (estimate.error > 0).all()
        found.append((estimate.log_p - units, estimate.error, estimate.r_hat))
    for other in found[1:]:
        for ours, first in zip(other, found[0], strict=True):
            assert_allclose(ours, first, rtol=1e-6)


def test_one_row_at_least_is_evaluated_at_a_time_however_many_draws_it_has():
    model = small(n_samples=3000)
    assert model.rows_at_once() < 3000
    assert np.isfinite(evaluate(model, rows(2))["bound"])


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"log_sigma": -20}, True),
        ({"log_sigma": -20.001}, False),
        ({"log_sigma": 2}, True),
        ({"log_sigma": 2.001}, False),
        ({"log_sigma": True}, False),
        ({"alpha": 1.8e19}, True),  # whose square is below the largest float32, 3.4e38
        ({"alpha": 1.9e19}, False),
        ({"alpha": 2.7e-23}, True),  # whose square is above half of the smallest float32, 1.4e-45
        ({"alpha": 2.6e-23}, False),
        ({"alpha": 0.0}, False),
        ({"alpha": -1.0}, False),
        ({"alpha": 1.9e19, "dtype": "float64"}, True),
        ({"alpha": 1, "learn_hyperprior": True}, True),
        ({"alpha": 2, "learn_hyperprior": True}, False),
    ],
)
def test_a_prior_of_theta_is_taken_as_far_as_its_precision_goes(settings, taken):
    if taken:
        model = FullVB(6, 5, 2, **settings)
        assert all(model.config[name] == value for name, value in settings.items())
    else:
        with pytest.raises(ValueError, match=r"^(log_sigma|alpha) is "):
            FullVB(6, 5, 2, **settings)


def test_an_optimiser_that_is_at_work_is_free_in_a_forked_process():
    rule = Adagrad(0.1)
    with started(rule, small().params):
        process = os.fork()
        if process == 0:
            try:
                with started(rule, small().params):
                    os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_a_law_is_fitted_with_adam_of_stepsize_0_05_unless_told_otherwise():
    model = LinearRegression(np.eye(3), np.arange(3.0))
    plain, told, other = (
        fit_posterior(model, reparameterise.gaussian, steps=3, **settings)[0]
        for settings in ({}, {"optimizer": Adam(0.05)}, {"optimizer": Adam(0.1)})
    )
    assert_array_equal(plain, told)
    assert (plain != other).any()


def test_a_gaussian_mean_field_ascent_that_is_broken_off_stands_where_its_sweeps_have_led():
    """One sweep from (2, -1): each mean is set to its best with the other one held."""
    m, precision = np.array([1.0, 3.0]), np.array([[2.0, 1.0], [1.0, 4.0]])
    with pytest.warns(UserWarning, match="has not converged to tol = 1e-09 in 1 sweeps"):
        found = CorrelatedGaussian(max_iter=1).fit(m, precision, start=[2.0, -1.0])
    first = 1 - (1 / 2) * (-1 - 3)
    second = 3 - (1 / 4) * (first - 1)
    assert_allclose(found.mean_, [first, second], rtol=1e-14)
