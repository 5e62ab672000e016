"""models/autoencoder.py, inference/objectives/autoencoder.py: PCA, the linear autoencoder and the plain one."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from conftest import LIKELIHOODS, relative, rows, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles

from scratchvae import VAE, Adam, evaluate, fit, load_data
from scratchvae.gradcheck import check_model
from scratchvae.models.autoencoder import PCA, LinearAutoencoder, _objective
from scratchvae.models.factor_analysis import PPCA


def data(n=300, d=6, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)) @ generator.standard_normal((d, d)) + 2


@pytest.fixture(scope="module")
def pixels():
    return load_data("digits").train / 255


def test_pca_is_scikit_learns(pixels):
    from sklearn import decomposition

    ours, theirs = PCA(10).fit(pixels), decomposition.PCA(10, svd_solver="full").fit(pixels)
    z, other = ours.transform(pixels), theirs.transform(pixels)
    assert_allclose(np.abs(z), np.abs(other), atol=1e-9)  # a direction is known up to its sign
    assert_allclose(ours.inverse_transform(z), theirs.inverse_transform(other), atol=1e-9)


def test_what_pca_leaves_is_half_the_discarded_eigenvalues_and_no_plane_leaves_less():
    x = data()
    model = PCA(2).fit(x)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    assert_allclose(model.score(x), -0.5 * values[:-2].sum(), rtol=1e-12)
    assert_allclose(model.encoder_.T @ model.encoder_, np.eye(2), atol=1e-12)
    for seed in range(20):
        U = np.linalg.qr(model.encoder_ + 0.1 * np.random.default_rng(seed).standard_normal((6, 2)))[0]
        assert -0.5 * (((x - x.mean(0)) @ (np.eye(6) - U @ U.T)) ** 2).sum(1).mean() < model.score(x)


@pytest.mark.parametrize(("model", "close"), [(PCA(2), 1e-12), (LinearAutoencoder(2), 1e-4)])  # the latter ascends
def test_data_in_as_many_directions_as_there_are_latents_are_fitted_and_one_latent_more_is_refused(model, close):
    x = data()
    plane = x[:, :2] @ np.random.default_rng(3).standard_normal((2, 6))
    model.fit(plane)
    assert relative(model.inverse_transform(model.transform(plane)), plane) < close
    with pytest.raises(ValueError, match="x varies in fewer than 3 directions"):
        type(model)(3).fit(plane)


@pytest.mark.parametrize("tied", [False, True])
def test_the_linear_autoencoders_gradient_equals_autograd(tied):
    x = data()
    d = x - x.mean(axis=0)
    S, W = d.T @ d / len(x), np.random.default_rng(1).standard_normal((1 if tied else 2, 6, 3))

    def error(W):
        return -0.5 * anp.mean(anp.sum((d - d @ W[0] @ W[-1].T) ** 2, axis=1))  # row by row, as it is defined

    value, gradient = _objective(S, W)
    assert_allclose(value, error(W), rtol=1e-12)
    assert relative(gradient, grad(error)(W)) < 1e-10


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_linear_autoencoder_finds_the_subspace_of_pca(pixels, tied, seed):
    ours, pca = LinearAutoencoder(10, tied).fit(pixels, seed=seed), PCA(10).fit(pixels)
    assert subspace_angles(ours.decoder_.T, pca.decoder_.T).max() < 1e-4
    assert 0 <= pca.score(pixels) - ours.score(pixels) < 1e-6
    assert_allclose(ours.score(pixels), ours.score_[-1], rtol=1e-9)
    assert np.diff(ours.score_).min() > -1e-2 and ours.score_[0] < ours.score_[-1] - 1
    shown = [model.inverse_transform(model.transform(pixels)) for model in (ours, pca)]
    assert np.abs(shown[0] - shown[1]).max() < 0.01
    if tied:
        assert_array_equal(ours.decoder_, ours.encoder_.T)
        assert_allclose(ours.encoder_.T @ ours.encoder_, np.eye(10), atol=1e-4)  # A Aᵀ is the projection
    else:
        assert np.abs(ours.encoder_.T @ ours.encoder_ - np.eye(10)).max() > 0.1  # A B is, A alone may be anything


def test_the_ascents_momentum_starts_anew_where_the_objective_falls():
    x = data()
    S = np.cov(x.T, bias=True)
    found = LinearAutoencoder(2).fit(x, seed=1).score_

    def ascent(anew):  # O'Donoghue & Candès 2015, written out: each value, and how often it fell
        W = np.random.default_rng(1).standard_normal((2, 6, 2)) / np.sqrt(6)
        ahead, k, values, falls = W, 1, [], 0
        for _ in range(len(found)):
            if values and _objective(S, ahead)[0] < values[-1]:
                ahead, k, falls = W, 1 if anew else k, falls + 1
            value, gradient = _objective(S, ahead)
            values.append(value)
            new = ahead + 0.25 / np.linalg.eigvalsh(S)[-1] * gradient
            ahead, W, k = new + (k - 1) / (k + 2) * (new - W), new, k + 1
        return np.array(values), falls

    values, falls = ascent(True)
    assert falls > 1
    assert_allclose(found, values, rtol=1e-6)
    assert np.abs(ascent(False)[0] - found).max() > 1e-3  # control: the momentum goes on as it was


def test_samples_lie_in_the_subspace_with_the_covariance_of_the_codes():
    x = data()
    for model in (PCA(2).fit(x), LinearAutoencoder(2).fit(x)):
        drawn, n = model.sample(100_000, seed=3), 100_000
        assert_allclose(model.inverse_transform(model.transform(drawn)), drawn, atol=1e-2)
        expected = model.decoder_.T @ model.code_var_ @ model.decoder_
        spread = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
        assert (np.abs(np.cov(drawn.T) - expected) < 4.89 * spread).all()


def test_whole_numbers_are_taken_as_the_numbers_they_are():
    x = load_data("digits").train
    for dtype in (np.uint8, np.int32):
        assert PCA(3).fit(x.astype(dtype)).score(x) == PCA(3).fit(x.astype(float)).score(x.astype(float))


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda: PCA(7), data(), "n_latent is 7; expected no more than the 6 columns of x"),
        (lambda: PCA(0), data(), "n_latent is 0; expected a whole number ≥ 1"),
        (lambda: PCA(2), data(1), "x varies in fewer than 2 directions"),
        (lambda: PCA(2), np.outer(np.arange(5.0), np.ones(6)), "x varies in fewer than 2 directions"),
        (lambda: PCA(1), np.full((10, 3), 0.1), "x varies in fewer than 1 directions"),
        (lambda: PCA(2), data()[0], "x has shape (6,); expected (N, D)"),
        (lambda: LinearAutoencoder(2), data() * np.inf, "x has values that are not finite"),
        (lambda: LinearAutoencoder(2, tol=0), data(), "tol is 0; expected a number > 0"),
    ],
)
def test_what_has_no_subspace_is_refused(make, x, message):
    with pytest.raises(ValueError) as error:
        make().fit(x)
    assert message in str(error.value)


def test_a_fit_that_is_refused_leaves_the_one_before(pixels):
    for model in (PCA(2), LinearAutoencoder(2, tied=True)):
        x = data()
        z = model.fit(x).transform(x)
        for bad, message in [
            (np.outer(np.arange(5.0), np.ones(6)), "x varies in fewer than 2 directions"),
            (x * np.nan, "x has values that are not finite"),
        ]:
            with pytest.raises(ValueError, match=message):
                model.fit(bad)
            assert_array_equal(model.transform(x), z)


def test_no_convergence_and_no_fit_are_told():
    with pytest.warns(UserWarning, match="the gradient is not below tol = 1e-06 after 3 steps"):
        LinearAutoencoder(2, max_iter=3).fit(data())
    with pytest.raises(ValueError, match="this PCA is not fitted yet"):
        PCA(2).transform(data())


# With hidden layers


@pytest.mark.parametrize(("likelihood", "mean"), [*LIKELIHOODS, ("isotropic", "free")])
def test_the_plain_autoencoder_equals_the_oracle_value_and_gradient(likelihood, mean):
    checks = check_model(VAE(6, 5, 2, likelihood, mean, "autoencoder", dtype="float64"), rows())
    assert checks


def test_a_linear_network_with_squared_error_is_the_linear_autoencoder(pixels):
    """log N(x; x̂, I) = -½ ‖x - x̂‖² - ½ D log 2π, so that score and objective are the same number."""
    linear = PCA(10).fit(pixels)
    model = VAE(64, (), 10, "isotropic", "free", "autoencoder", dtype="float64", prior=False)
    model.params.value[...] = 0
    arrays = model.params.named(model.params.value)
    arrays["encoder.mu.W"][...], arrays["encoder.mu.b"][...] = linear.encoder_, -linear.mean_ @ linear.encoder_
    arrays["decoder.mu.W"][...], arrays["decoder.mu.b"][...] = linear.decoder_, linear.mean_
    eps = model.noise(np.random.default_rng(0), len(pixels))
    bound = model.bound(pixels, eps, 1.0, gradient=True)
    assert_allclose(bound, linear.score(pixels) - 32 * np.log(2 * np.pi), rtol=1e-12)
    gradients = model.params.named(model.params.grad)
    assert max(np.abs(gradients[name]).max() for name in arrays if "mu" in name) < 1e-10  # stationary there


def test_it_trains_reconstructs_better_than_a_vae_and_says_that_it_has_no_kl(digits):
    models = {}
    for estimator in ("autoencoder", "B"):
        model = models[estimator] = VAE(64, 50, 5, estimator=estimator, init="glorot")
        fit(model, digits.train, optimizer=Adam(0.003), samples=20_000)
    error = {name: ((model.reconstruct(digits.test) - digits.test / 255) ** 2).sum() for name, model in models.items()}
    assert error["autoencoder"] < error["B"]
    result = evaluate(models["autoencoder"], digits.test)
    assert result["kl"] == 0 and result["bound"] == result["reconstruction"] > -30
    params = models["autoencoder"].params
    assert_array_equal(params.named(params.value)["encoder.log_var.b"], 0)  # not learned


def test_its_noise_has_no_part():
    model, x = small(estimator="autoencoder"), rows()
    one, other = (model.bound(x, model.noise(np.random.default_rng(k), 7), 7.0) for k in range(2))
    assert one == other


# The linear VAE (Lucas et al. 2019) and the isotropic likelihood


def exact_bound(model, x):
    """The bound of a linear VAE in closed form, per datapoint: E_q ‖x - z W - b‖² has a trace beside the square."""
    mu, log_var = (part.astype(float) for part in model.encode(x.astype(model.dtype)))
    arrays = {name: array.astype(float) for name, array in model.params.named(model.params.value).items()}
    W, b, s = arrays["decoder.mu.W"], arrays["decoder.mu.b"], arrays["decoder.log_var.b"][0]
    square = ((x - mu @ W - b) ** 2).sum(axis=1) + np.exp(log_var) @ (W**2).sum(axis=1)
    log_px = -0.5 * (x.shape[1] * (np.log(2 * np.pi) + s) + square * np.exp(-s))
    return float((log_px + 0.5 * (1 + log_var - mu**2 - np.exp(log_var)).sum(axis=1)).mean())


def linear_vae(n_latent, **settings):
    return VAE(64, (), n_latent, "isotropic", "free", prior=False, init="glorot", **settings)


def test_the_linear_vae_at_ppcas_optimum_has_its_evidence_as_bound_e3(pixels):
    """PPCA's W has orthogonal rows, so that the posterior is diagonal and q can be it: a bound without a gap."""
    ppca, model = PPCA(5).fit(pixels), linear_vae(5, dtype="float64")
    mean, G = ppca.posterior(pixels)
    model.params.value[...] = 0
    arrays = model.params.named(model.params.value)
    arrays["decoder.mu.W"][...], arrays["decoder.mu.b"][...] = ppca.W_, ppca.mean_
    arrays["decoder.log_var.b"][...] = np.log(ppca.var_[0])
    gain = np.linalg.lstsq(pixels - ppca.mean_, mean, rcond=None)[0]
    arrays["encoder.mu.W"][...], arrays["encoder.mu.b"][...] = gain, -ppca.mean_ @ gain
    arrays["encoder.log_var.b"][...] = np.log(np.diag(G))
    assert_allclose(exact_bound(model, pixels), ppca.score(pixels), rtol=1e-10)
    total = np.mean([model.bound(pixels, model.noise(np.random.default_rng(k), len(pixels)), 1.0) for k in range(20)])
    assert abs(total - ppca.score(pixels)) < 0.05  # the estimator's mean is that bound: its sd is 0.01


def test_sgvb_brings_the_linear_vae_to_the_evidence_of_ppca_and_nearer_with_a_falling_stepsize(pixels):
    evidence, gaps = PPCA(5).fit(pixels).score(pixels), {}
    for decay in (None, 500):
        model = linear_vae(5)
        fit(model, pixels.astype("float32"), optimizer=Adam(0.02, decay=decay), samples=1_500_000, batch_size=500)
        gaps[decay] = evidence - exact_bound(model, pixels)
    assert 0 < gaps[500] < 0.05 and gaps[500] < 0.5 * gaps[None]  # nats per datapoint
    arrays = model.params.named(model.params.value)
    assert_allclose(np.exp(arrays["decoder.log_var.b"][0]), PPCA(5).fit(pixels).var_[0], rtol=0.01)
    assert subspace_angles(arrays["decoder.mu.W"].T, PPCA(5).fit(pixels).W_.T).max() < 0.1


def test_an_isotropic_decoder_scores_and_draws_the_same_density_e23():
    from scipy.stats import norm

    model = small("isotropic", "free")
    z, x = np.random.default_rng(0).standard_normal((1, 7, 2)), rows()
    mean, sd = model.decode(z[0]), np.exp(0.5 * model.params.named(model.params.value)["decoder.log_var.b"][0])
    assert_allclose(model.decoder.log_prob(x, z, gradient=False)[0], norm(mean, sd).logpdf(x).sum(axis=1), rtol=1e-12)
    n = 40_000
    drawn = model.draw(np.repeat(z[0, :1], n, axis=0), seed=1)
    assert (np.abs(drawn.mean(axis=0) - mean[0]) < 4.89 * sd / np.sqrt(n)).all()
    assert (np.abs(drawn.var(axis=0) - sd**2) < 4.89 * sd**2 * np.sqrt(2 / n)).all()


# Tables of any size


@pytest.mark.parametrize("scale", [1e-9, 1, 1e9, 1e100])
def test_the_size_of_the_data_does_not_matter_to_the_subspace(scale):
    x = data()
    for make in (lambda: PCA(2), lambda: LinearAutoencoder(2)):
        one, other = make().fit(x), make().fit(x * scale)
        assert subspace_angles(one.decoder_.T, other.decoder_.T).max() < 1e-4
        assert_allclose(one.score(x), other.score(x * scale) / scale**2, rtol=1e-6)
        assert np.isfinite(other.sample(5)).all()


def test_pca_finds_directions_that_the_covariance_has_no_digits_for():
    x = np.random.default_rng(0).standard_normal((300, 3)) * [1e5, 1e-3, 1e-5]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    model = PCA(2).fit(x @ turn)
    d = x - x.mean(axis=0)
    assert_allclose(model.score(x @ turn), -0.5 * np.linalg.svd(d)[1][2] ** 2 / 300, rtol=1e-4)
    assert np.abs(turn[1] @ model.encoder_[:, 1]) > 0.9999
    assert_allclose(np.sqrt(np.diag(model.code_var_)), [1e5, 1e-3], rtol=0.2)


def test_an_ascent_that_cannot_see_a_direction_says_so():
    x = np.random.default_rng(0).standard_normal((300, 3)) * [1e5, 1, 1]
    with pytest.warns(UserWarning, match="the ascent may end before it has found the last; divide the columns"):
        LinearAutoencoder(2).fit(x)
    LinearAutoencoder(1).fit(x)  # the first is seen


@pytest.mark.parametrize("model", [PCA(2), LinearAutoencoder(2)])
@pytest.mark.parametrize("seed", [-1, 1.5, None, "0", True, [1, 2]])
def test_a_seed_is_a_whole_number_and_what_follows_x_has_a_name(model, seed):
    x = data()
    model.fit(x)
    with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
        model.sample(3, seed)
    with pytest.raises(TypeError, match="positional"):
        model.fit(x, np.zeros(len(x), int))
    if isinstance(model, LinearAutoencoder):
        with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
            model.fit(x, seed=seed)
    vae = VAE(6, 5, 2)
    for call in (
        lambda: vae.sample(2, seed),
        lambda: vae.draw(np.zeros((1, 2)), seed),
        lambda: vae.encode_samples(x, 1, seed),
    ):
        with pytest.raises(ValueError, match=r"seed is .*; expected a whole number ≥ 0"):
            call()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (data() * 1e200, "whose squares are not finite"),
        (data() * 1e-200, "whose squares are 0"),
        (np.zeros((5, 3)), "x varies in fewer than 2 directions"),
        (data()[:1], "x varies in fewer than 2 directions"),
        (np.column_stack([data()[:, 0], np.where(np.arange(300) % 2, 0.3, 0.1 + 0.2)]), "x varies in fewer than 2"),
    ],
)
def test_tables_without_a_subspace_are_refused_in_one_line(x, message):
    for model in (PCA(2), LinearAutoencoder(2)):
        with pytest.raises(ValueError, match=message) as error:
            model.fit(x)
        assert "\n" not in str(error.value)
