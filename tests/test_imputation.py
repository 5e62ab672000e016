"""inference/imputation.py: exact where q is the posterior, a plain loop written out everywhere, and what it refuses."""

import numpy as np
import pytest
from conftest import rows, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import binom
from test_conditional import linear as conditional_linear
from test_exact import linear_vae

from scratchvae import VAE, FullVB, load_data
from scratchvae.inference.imputation import impute, impute_samples

CHAINS = 4000
MANY = {
    "n_samples": 1,
    "burn_in": 40,
}  # one draw of each chain; the chains below forget by a factor of 2 or more a step
HOLES = np.array([True, False, True, False, True, False])  # three of six entries are missing
SURE = 4.89  # standard errors: of a true statement two in a million are further off


@pytest.fixture
def exact(monkeypatch):
    """A function that gives the linear VAE with the best diagonal q and its p(x), whose chains forget fast.

    With the variance of 0.3 that other tests have, 0.98 of the way to the start is left after a transition.
    """
    monkeypatch.setattr("test_exact.VAR", 3.0)
    return lambda orthogonal=True: linear_vae("B", 1, orthogonal)[:2]


def conditional_of(law, x, missing):
    """The mean and the covariance of x_missing given x_known under a Gaussian, by the textbook's formula."""
    C, m = law.cov, law.mean
    gain = np.linalg.solve(C[np.ix_(~missing, ~missing)], C[np.ix_(~missing, missing)]).T
    mean = m[missing] + gain @ (x[~missing] - m[~missing])
    return mean, C[np.ix_(missing, missing)] - gain @ C[np.ix_(~missing, missing)]


def copies(x, missing, n=CHAINS):
    """One row n times, each with a chain of its own, and NaN where it is missing."""
    x = np.where(missing, np.nan, x)
    return np.repeat(x[None], n, axis=0), np.repeat(missing[None], n, axis=0)


def distance(draws, mean, covariance):
    """How far the moments of draws (n, d) are from these, in standard errors: the largest of the means and of the
    covariances. A covariance of Gaussian draws has the variance (C_ii C_jj + C_ij²)/n."""
    n = len(draws)
    variances = np.diag(covariance)
    of_mean = np.abs(draws.mean(axis=0) - mean) / np.sqrt(variances / n)
    of_covariance = np.abs(np.cov(draws.T) - covariance) / np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    return of_mean.max(), of_covariance.max()


@pytest.mark.parametrize("t", [1, 2, 6])
def test_after_t_transitions_the_mean_is_still_as_far_from_the_exact_one_as_the_linear_chain_says(t):
    model, law, _ = linear_vae("B", 1, orthogonal=True)
    arrays = model.params.named(model.params.value)
    forgets = arrays["encoder.mu.W"][~HOLES] @ arrays["decoder.mu.W"][:, ~HOLES]  # E[x'] - mean = (x - mean) forgets
    start = np.full(6, 20.0)
    x, missing = copies(rows()[0], ~HOLES)
    mean, _ = conditional_of(law, rows()[0], ~HOLES)
    expected = mean + (20.0 - mean) @ np.linalg.matrix_power(forgets, t)
    draws = impute_samples(model, x, missing, n_samples=1, burn_in=t - 1, thin=1, start=start)[0][:, ~HOLES]
    averages = impute(model, x, missing, burn_in=t - 1, steps=1, start=start)[:, ~HOLES]
    for found in (draws, averages):
        assert (np.abs(found.mean(axis=0) - expected) < SURE * found.std(axis=0) / np.sqrt(CHAINS)).all()
    assert np.abs(expected - mean).max() > 0.8  # it is a long way: see `burn_in`


@pytest.mark.parametrize("missing", [HOLES, ~HOLES, np.ones(6, bool)], ids=["some", "the others", "all"])
@pytest.mark.parametrize("start", [None, np.full(6, 3.0)], ids=["from the prior", "from afar"])
def test_where_q_is_the_posterior_the_draws_have_the_mean_and_the_covariance_of_the_exact_conditional(
    exact, missing, start
):
    model, law = exact()
    x = rows()[0]
    mean, covariance = (law.mean, law.cov) if missing.all() else conditional_of(law, x, missing)
    draws = impute_samples(model, *copies(x, missing), **MANY, start=start)[0]
    assert_array_equal(draws[:, ~missing], np.repeat(x[None, ~missing], CHAINS, axis=0))
    assert max(distance(draws[:, missing], mean, covariance)) < SURE


def test_where_q_is_not_the_posterior_the_draws_are_those_of_the_chain_and_not_of_the_conditional():
    model, law, precision = linear_vae("B", 1, orthogonal=False)  # q has the posterior's mean and no covariances
    arrays = model.params.named(model.params.value)
    W = arrays["decoder.mu.W"][:, HOLES]
    keeps = arrays["encoder.mu.W"][HOLES] @ W
    noise = W.T / np.diag(precision) @ W + np.exp(arrays["decoder.log_var.b"][0]) * np.eye(3)
    stationary = solve_discrete_lyapunov(keeps.T, noise)  # S = keepsᵀ S keeps + noise
    mean, covariance = conditional_of(law, rows()[0], HOLES)
    draws = impute_samples(model, *copies(rows()[0], HOLES, 10_000), **MANY)[0][:, HOLES]
    assert max(distance(draws, mean, stationary)) < SURE
    assert distance(draws, mean, covariance)[1] > 1.5 * SURE


def test_with_full_covariance_the_draws_are_exact_at_any_weights():
    diagonal, law, precision = linear_vae("B", 1, orthogonal=False)
    model = VAE(6, (), 2, "gaussian", "free", posterior="full", dtype="float64")
    model.params.value[...] = 0
    arrays = model.params.named(model.params.value)
    for name, array in diagonal.params.named(diagonal.params.value).items():
        arrays[name][...] = array
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    arrays["encoder.log_var.b"][...] = 2 * np.log(np.diag(factor))
    (below,) = (array for name, array in arrays.items() if name.startswith("encoder.") and array.shape == (1,))
    below[...] = factor[1, 0]
    mean, covariance = conditional_of(law, rows()[0], HOLES)
    draws = impute_samples(model, *copies(rows()[0], HOLES), **MANY)[0][:, HOLES]
    assert max(distance(draws, mean, covariance)) < SURE


def test_a_conditional_model_is_exact_given_the_class_of_each_row():
    model, laws = conditional_linear()
    for y, law in enumerate(laws):
        mean, covariance = conditional_of(law, rows()[0], HOLES)
        x, missing = copies(rows()[0], HOLES)
        draws = impute_samples(model, model.labelled(x, np.full(CHAINS, y)), missing, **MANY)[0]
        assert draws.shape == x.shape and max(distance(draws[:, HOLES], mean, covariance)) < SURE


def test_the_average_is_the_exact_conditional_mean_and_varies_less_than_that_of_the_draws(exact):
    model, law = exact()
    x, missing = copies(rows()[0], HOLES, 2000)
    mean, _ = conditional_of(law, rows()[0], HOLES)
    found = impute(model, x, missing, steps=20)[:, HOLES]
    assert (np.abs(found.mean(axis=0) - mean) < SURE * found.std(axis=0) / np.sqrt(2000)).all()
    of_draws = impute_samples(model, x, missing, n_samples=20, thin=1)[..., HOLES].mean(axis=0)
    assert (np.abs(of_draws.mean(axis=0) - mean) < SURE * of_draws.std(axis=0) / np.sqrt(2000)).all()
    assert (found.std(axis=0) < 0.9 * of_draws.std(axis=0)).all()


def test_no_guess_of_these_has_a_smaller_squared_error_than_the_average_where_the_chain_is_exact(exact):
    model, law = exact()
    x = law.rvs(1500, random_state=1)
    missing = np.random.default_rng(2).random(x.shape) < 0.5
    best = x.copy()
    for row, full, holes in zip(best, x, missing, strict=True):
        row[holes] = conditional_of(law, full, holes)[0] if holes.any() else []
    holey = np.where(missing, np.nan, x)
    guesses = {
        "average": impute(model, holey, missing, steps=400, burn_in=60),
        "draw": impute_samples(model, holey, missing, **MANY)[0],
        "mean": np.where(missing, law.mean, x),
        "exact": best,
    }
    errors = {name: ((guess - x)[missing] ** 2).mean() for name, guess in guesses.items()}
    assert errors["average"] == pytest.approx(errors["exact"], rel=0.03)
    assert errors["average"] < 0.9 * min(errors["draw"], errors["mean"])
    assert errors["draw"] == pytest.approx(2 * errors["exact"], rel=0.1)  # a draw has the variance once more


# The chain, written out


MODELS = {
    "bernoulli": {},
    "gaussian": {"likelihood": "gaussian"},
    "laplace": {"likelihood": "laplace", "mean": "free"},
    "continuous-bernoulli": {"likelihood": "continuous-bernoulli"},
    "full": {"posterior": "full"},
    "flow": {"flow": 2, "estimator": "A"},
    "labelled": {"n_classes": 3},
    "deep": {"n_hidden": (4, 3), "activation": "relu", "estimator": "iwae", "n_samples": 4},
}


def written_out(model, x, y, missing, transitions, seed, number, start):
    """E[x|z] and x after each transition of the chain of one row x (D,), in host memory, by the model's methods."""
    generator = np.random.default_rng([seed, number])
    x = np.where(missing, np.nan if start is None else start, x)
    history = []
    for t in range(transitions):
        eps = generator.standard_normal((1, 1, model.n_latent), model.dtype)
        row = x[None] if y is None else np.concatenate([x, np.eye(3)[y]])[None]
        z = eps[0] if t == 0 and start is None else model.latents(row, eps)[0][0]
        outputs = model.decoder.forward(z, None if y is None else np.eye(3)[[y]])
        noise = model.likelihood.noise(generator, (1, model.n_visible), model.dtype)
        x = np.where(missing, model.likelihood.draw(noise, *outputs)[0], x)
        history.append((model.decode(z, None if y is None else np.array([y]))[0], x))
    means, draws = zip(*history, strict=True)
    return np.array(means), np.array(draws)


@pytest.mark.parametrize("start", [None, np.linspace(0.1, 0.9, 6)], ids=["from the prior", "from a row"])
@pytest.mark.parametrize("name", MODELS)
def test_the_chain_is_the_one_that_is_written_out_row_by_row(name, start):
    model = VAE(
        6, **{"n_hidden": 5, "n_latent": 2, "init": 0.7, "init_biases": True, "dtype": "float64"} | MODELS[name]
    )
    x = rows()
    missing = np.random.default_rng(3).random(x.shape) < 0.5
    missing[1] = True
    missing[2] = False
    y = np.arange(7) % 3 if model.n_classes else None
    handed = x if y is None else model.labelled(x, y)
    means = impute(model, handed, missing, steps=4, burn_in=3, seed=5, start=start)
    draws = impute_samples(model, handed, missing, n_samples=3, burn_in=2, thin=4, seed=5, start=start)
    assert means.shape == (7, 6) and draws.shape == (3, 7, 6)
    for i in range(7):
        label = None if y is None else y[i]
        with model.guard.looked_at():  # what a Gaussian decoder draws may lie outside [0, 1]
            mean, drawn = written_out(model, x[i], label, missing[i], 14, 5, i, start)
        assert_allclose(means[i], np.where(missing[i], mean[3:7].mean(axis=0), x[i]), rtol=1e-10)
        assert_allclose(draws[:, i], drawn[[5, 9, 13]], rtol=1e-10)
    assert np.ptp(draws[:, 1], axis=0).max() > 0


def test_the_draws_of_a_row_depend_neither_on_the_rows_at_a_time_nor_on_the_rows_behind_it(monkeypatch):
    model = small("gaussian")
    x, missing = rows(), np.random.default_rng(3).random((7, 6)) < 0.5
    done = []
    whole = impute(model, x, missing, progress=done.append), impute_samples(model, x, missing)
    assert done == [7]
    assert_allclose(impute(model, x[:4], missing[:4]), whole[0][:4], rtol=1e-9)
    monkeypatch.setattr(VAE, "rows_at_once", lambda _: 3)
    assert_allclose(impute(model, x, missing, progress=done.append), whole[0], rtol=1e-9)
    assert_allclose(impute_samples(model, x, missing), whole[1], rtol=1e-9)
    assert done == [7, 3, 6, 7]
    assert np.abs(impute(model, x, missing, seed=1) - whole[0])[missing].max() > 1e-3  # control: another seed
    same = impute_samples(model, np.repeat(x[:1], 2, axis=0), np.ones((2, 6), bool))  # and another row
    assert np.abs(same[:, 0] - same[:, 1]).min() > 0


def test_the_rows_are_filled_alike_on_both_backends(waits):
    x, missing = rows(), np.random.default_rng(3).random((7, 6)) < 0.5
    found = []
    for backend in ("numpy", "cupy"):
        model = VAE(6, 5, 2, n_classes=3, init=0.5, dtype="float64", backend=backend)
        labelled = np.concatenate([x, np.eye(3)[np.arange(7) % 3]], axis=1)
        found.append((impute(model, labelled, missing), impute_samples(model, labelled, missing, start=x.mean(axis=0))))
    for ours, theirs in zip(*found, strict=True):
        assert type(theirs) is np.ndarray
        assert_array_equal(ours, theirs)


# What comes in and what comes out


def test_known_entries_stay_to_the_bit_in_the_precision_in_which_they_came_and_x_is_left_as_it_was():
    x = rows()
    missing = np.random.default_rng(3).random(x.shape) < 0.5
    for model_dtype in ("float32", "float64"):
        model = VAE(6, 5, 2, init=0.5, dtype=model_dtype)
        for dtype in ("float32", "float64"):
            handed = np.where(missing, np.nan, x).astype(dtype)
            before = handed.copy()
            filled = impute(model, handed, missing, steps=2, burn_in=2)
            draws = impute_samples(model, handed, missing, n_samples=2, burn_in=2)
            assert filled.dtype == draws.dtype == dtype and np.isfinite(filled).all() and np.isfinite(draws).all()
            assert_array_equal(filled[~missing], handed[~missing])
            assert_array_equal(draws[:, ~missing], np.repeat(handed[None, ~missing], 2, axis=0))
            assert set(draws[:, missing].ravel()) <= {0, 1}
            assert_array_equal(handed, before)


def test_pixels_are_read_as_x_over_255_and_what_stands_in_a_hole_is_not_read():
    pixels = load_data("digits").test[:20]
    missing = np.random.default_rng(3).random(pixels.shape) < 0.5
    model = VAE(64, 5, 2, init=0.5)
    other = np.where(missing, 255 - pixels, pixels)
    filled = impute(model, pixels, missing, steps=3, burn_in=3)
    assert filled.dtype == np.float32 and filled.max() <= 1
    assert_array_equal(filled[~missing], (pixels / np.float32(255))[~missing])
    assert_array_equal(filled, impute(model, other, missing, steps=3, burn_in=3))
    floats = np.where(missing, np.nan, pixels / np.float32(255))
    assert_array_equal(filled, impute(model, floats, missing, steps=3, burn_in=3))
    grey = np.full(64, 51, np.uint8)  # a start of pixels is read like rows of pixels
    settings = {"steps": 1, "burn_in": 0}
    assert_array_equal(
        impute(model, pixels, missing, start=grey, **settings),
        impute(model, floats, missing, start=np.full(64, 0.2, "float32"), **settings),
    )


def test_rows_without_holes_come_back_and_a_full_vb_is_filled_at_the_mean_of_theta():
    model = FullVB(6, n_hidden=5, n_latent=2, init=0.5)
    x = rows().astype("float32")
    assert_array_equal(impute(model, x, np.zeros(x.shape, bool)), x)
    missing = np.ones(x.shape, bool)
    assert_array_equal(impute(model, x, missing, burn_in=1, steps=2), impute(model, 0 * x, missing, burn_in=1, steps=2))


X, HOLE = rows(), np.zeros((7, 6), bool)
HOLE[0, :3] = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "VAE"}, "model is a str; expected a VAE"),
        ({"model": VAE(6, 5, 2, estimator="autoencoder")}, "model is a plain autoencoder"),
        ({"x": X[:, :5]}, r"x has shape \(7, 5\)"),
        ({"missing": HOLE[:, :5]}, r"missing is bool \(7, 5\); expected x \(N, 6\) and missing \(N, 6\) of bool"),
        ({"missing": HOLE.astype(int)}, r"missing is int64 \(7, 6\)"),
        ({"x": np.where(X > 0.5, np.nan, X)}, r"x has \d+ entries that are NaN and known; .* missing = np.isnan\(x\)"),
        ({"x": np.where(HOLE, 0.5, np.inf)}, "x has values that are not finite"),
        ({"x": X + 1}, r"x has values from 1.* expected \[0, 1\]"),
        ({"x": X.astype(int)}, "x holds int64; expected uint8 pixels"),
        ({"start": X[:3]}, r"start has shape \(3, 6\); expected \(6,\) or \(7, 6\)"),
        ({"start": np.full(6, 2.0)}, r"start has values from 2 to 2; expected \[0, 1\]"),
        ({"start": np.full(6, np.nan)}, "start has values that are not finite"),
        ({"steps": 0}, "steps is 0; expected a whole number ≥ 1"),
        ({"burn_in": -1}, "burn_in is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"thin": 0}, "thin is 0"),
    ],
)
def test_what_does_not_fit_is_one_line(change, message):
    arguments = {"model": VAE(6, 5, 2), "x": X, "missing": HOLE} | change
    function = impute_samples if set(change) & {"n_samples", "thin"} else impute
    with pytest.raises(ValueError, match=message) as error:
        function(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow
def test_a_chain_that_leaves_the_finite_numbers_is_an_error():
    model = small("gaussian", "free")
    model.params.named(model.params.value)["decoder.log_var.b"][...] = 2000
    for function in (impute, impute_samples):
        with pytest.raises(FloatingPointError, match="a chain of rows 0 to 6 has left the finite numbers"):
            function(model, X, HOLE)


def test_a_bernoulli_pixel_that_nothing_else_says_anything_about_is_drawn_with_its_probability():
    model = VAE(6, 5, 2, dtype="float64")
    model.params.value[...] = 0
    model.params.named(model.params.value)["decoder.logits.b"][...] = np.linspace(-2, 2, 6)
    draws = impute_samples(model, *copies(X[0].round(), HOLES, 4000), n_samples=1, burn_in=2)[0][:, HOLES]
    probability = 1 / (1 + np.exp(-np.linspace(-2, 2, 6)[HOLES]))
    low, high = binom.interval(1 - 1e-6, 4000, probability)
    assert ((low <= draws.sum(axis=0)) & (draws.sum(axis=0) <= high)).all()
    assert_allclose(impute(model, X, HOLE, steps=3)[HOLE], 1 / (1 + np.exp(-np.linspace(-2, 2, 6)[:3])), rtol=1e-9)
