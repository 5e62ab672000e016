"""inference/hmc.py, diagnostics.py: leapfrog on the harmonic oscillator (E15), transitions of exact draws (E16)."""

import itertools
import math

import numpy as np
import pytest
from conftest import host, rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE
from scratchvae.backend import move
from scratchvae.diagnostics import effective_sample_size, split_r_hat
from scratchvae.inference.hmc import DualAveraging, leapfrog, log_joint, sample, transition

Z_LIMIT = 4.89


def oscillator(z):
    """log N(z; 0, I) up to a constant: H = ½ q² + ½ p², a harmonic oscillator."""
    return -0.5 * (z * z).sum(axis=-1), -z


def gaussian(scales):
    """log N(z; 0, diag(scales²)) up to a constant."""
    return lambda z: (-0.5 * ((z / scales) ** 2).sum(axis=-1), -z / scales**2)


def correlated(z, precision=np.array([[2.0, 1.2], [1.2, 1.5]])):  # noqa: B008
    """log N(z; m, Λ⁻¹) with m = (1, -2)."""
    d = z - [1.0, -2.0]
    return -0.5 * (d @ precision * d).sum(axis=-1), -d @ precision


def walk(stepsize, steps, z, p):
    return leapfrog(oscillator, z, p, oscillator(z)[1], stepsize, steps)


def test_leapfrog_conserves_the_shadow_energy_of_the_harmonic_oscillator_e15():
    z, p = np.array([[0.7]]), np.array([[-1.1]])
    for stepsize in (0.1, 0.5, 1.5):
        before = p**2 + z**2 * (1 - stepsize**2 / 4)
        end, momentum, *_ = walk(stepsize, 57, z, p)
        assert_allclose(momentum**2 + end**2 * (1 - stepsize**2 / 4), before, rtol=1e-13)


def test_leapfrogs_energy_error_is_of_second_order_e15():
    z, p, errors = np.array([[0.7]]), np.array([[-1.1]]), []
    stepsizes = np.array([0.02, 0.01, 0.005])
    for stepsize in stepsizes:
        end, momentum, *_ = walk(stepsize, round(1 / stepsize), z, p)
        errors.append(abs(0.5 * (end**2 + momentum**2 - z**2 - p**2)).item())
    assert_allclose(np.diff(np.log(errors)) / np.diff(np.log(stepsizes)), 2, atol=0.02)


def test_a_flipped_momentum_leads_back_e15():
    generator = np.random.default_rng(0)
    z, p = generator.standard_normal((2, 5, 3))
    end, momentum, *_ = walk(0.3, 20, z, p)
    back, flipped, *_ = walk(0.3, 20, end, -momentum)
    assert_allclose(back, z, atol=1e-12)
    assert_allclose(-flipped, p, atol=1e-12)


def one_transition(target, z, steps=4, stepsize=0.6):
    generator = np.random.default_rng(1)
    p, u = generator.standard_normal(z.shape), generator.random(len(z))
    return transition(target, (z, *target(z)), p, u, stepsize, steps)


def exact(n):
    return np.random.default_rng(0).multivariate_normal([1, -2], np.linalg.inv([[2, 1.2], [1.2, 1.5]]), n)


def test_a_transition_from_exact_draws_leaves_the_distribution_as_it_was_e16():
    n, scale = 100_000, np.linalg.cholesky([[2, 1.2], [1.2, 1.5]])

    def worst(z):
        """The largest z-score of the first two moments, whitened."""
        w = (z - [1, -2]) @ scale
        moments = np.stack([w[:, 0], w[:, 1], *(w**2 - 1).T / np.sqrt(2), w[:, 0] * w[:, 1]])
        return np.abs(moments.mean(axis=1)).max() * np.sqrt(n)

    (z, value, gradient), probability, error = one_transition(correlated, exact(n))
    assert worst(z) < Z_LIMIT and 0.5 < probability.mean() < 0.99
    assert_allclose(value, correlated(z)[0])
    assert_allclose(gradient, correlated(z)[1])
    weight = np.exp(-error)
    assert abs(weight.mean() - 1) < Z_LIMIT * weight.std() / np.sqrt(n)  # E exp(-ΔH) = 1

    end = leapfrog(
        correlated, exact(n), np.random.default_rng(1).standard_normal((n, 2)), correlated(exact(n))[1], 0.6, 4
    )
    assert worst(end[0]) > Z_LIMIT  # control: without the test of Metropolis
    moved = (z != exact(n)).any(axis=1)
    assert np.sqrt(moved.mean()) * worst(z[moved]) > Z_LIMIT  # control: rejected states not repeated


def test_samples_keep_the_energy_errors_of_the_transitions_and_each_chain_its_own_jitter():
    z, n = exact(6), 3
    chains = sample(correlated, z, np.random.default_rng(7), n, burn_in=0, steps=4, stepsize=0.5, jitter=0.4)
    generator, state = np.random.default_rng(7), (z, *correlated(z))
    for t in range(n):
        p, (u, v) = generator.standard_normal((6, 2)), generator.random((2, 6))
        state, rate, error = transition(correlated, state, p, u, 0.5 * (1 - 0.4 * v[:, None]), 4)
        assert_array_equal(chains.energy_error[t], error)
        assert_array_equal(chains.z[t], state[0])
    assert np.ptp(chains.energy_error) > 0 and rate.max() <= 1


def test_diagnostics_are_those_of_the_written_out_formulas():
    draws = np.random.default_rng(8).standard_normal((21, 3)).cumsum(axis=0)[:, :, None] * 0.3
    draws = draws + np.random.default_rng(9).standard_normal((21, 3, 1))
    halves = [draws[:10, k, 0] for k in range(3)] + [draws[11:, k, 0] for k in range(3)]
    n, m = 10, 6
    within = np.mean([h.var(ddof=1) for h in halves])
    between = n * np.var([h.mean() for h in halves], ddof=1)
    total = (n - 1) / n * within + between / n
    assert_allclose(split_r_hat(draws), np.sqrt(total / within))
    rho = [1.0]
    for t in range(1, n):  # of Gelman et al. 2013, (11.7), the variogram replaced by autocovariances as Stan does
        covariance = [((h - h.mean())[: n - t] * (h - h.mean())[t:]).sum() / n for h in halves]
        rho.append(1 - (within - np.mean(covariance) * n / (n - 1)) / total)
    pairs, kept = [rho[2 * i] + rho[2 * i + 1] for i in range(n // 2)], []
    for pair in pairs:
        if pair <= 0:
            break
        kept.append(min([pair, *kept]))  # Geyer: positive, and never rising
    tau = max(2 * sum(kept) - 1, 1 / np.log10(n * m))
    rho_0 = 1 - (within - np.mean([h.var() for h in halves]) * n / (n - 1)) / total
    assert_allclose(rho_0, 1)
    assert_allclose(effective_sample_size(draws), n * m / tau)
    assert_array_equal(effective_sample_size(draws.tolist()), effective_sample_size(draws))
    assert_array_equal(split_r_hat(draws.astype(np.float32)), split_r_hat(draws.astype(np.float32).astype(float)))
    assert any(b > a for a, b in itertools.pairwise(pairs[: len(kept)])) or len(kept) < len(pairs)


def test_a_rejected_state_is_repeated():
    z = exact(50)
    state, probability, _ = transition(correlated, (z, *correlated(z)), np.ones((50, 2)), np.ones(50), 0.6, 4)
    rejected = probability < 1
    assert rejected.any()
    assert_array_equal(state[0][rejected], z[rejected])


@pytest.mark.parametrize("shared", [False, True])
def test_long_chains_have_the_moments_and_the_acceptance_that_were_asked_for(shared):
    generator = np.random.default_rng(3)
    chains = sample(correlated, np.zeros((40, 2)), generator, 1500, burn_in=300, steps=5, acceptance=0.8, shared=shared)
    z = chains.z
    assert abs(chains.acceptance.mean() - 0.8) < 0.05 and chains.divergences == 0
    assert chains.stepsize.shape == (40, 1) and (np.ptp(chains.stepsize) < 1e-12) == shared
    w = (z - [1, -2]) @ np.linalg.cholesky([[2, 1.2], [1.2, 1.5]])  # standard normal, if z follows its law
    moments = np.stack([w[..., 0], w[..., 1], w[..., 0] ** 2 - 1, w[..., 1] ** 2 - 1, w[..., 0] * w[..., 1]], axis=-1)
    sd = np.sqrt([1, 1, 2, 2, 1])
    assert (np.abs(moments.mean((0, 1))) < Z_LIMIT * sd / np.sqrt(effective_sample_size(moments))).all()
    assert (split_r_hat(z) < 1.01).all()


def test_jitter_keeps_trajectories_from_closing():
    start = np.random.default_rng(0).standard_normal((200, 2))

    def ess(jitter):
        chains = sample(oscillator, start, np.random.default_rng(1), 400, 0, steps=4, stepsize=0.78, jitter=jitter)
        return effective_sample_size((chains.z**2).sum(axis=-1))

    assert ess(0.5) > 20_000  # of 80,000 draws, of the energy
    assert ess(0.0) < 5_000  # control: 4 steps of 0.78 are half a turn, and come back to the same energy


def test_the_effective_sample_size_of_an_autoregression_is_the_known_one():
    generator, phi, s, k = np.random.default_rng(4), 0.6, 20_000, 4
    x = np.empty((s, k))
    x[0] = generator.standard_normal(k)
    for t in range(1, s):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * generator.standard_normal(k)
    assert_allclose(effective_sample_size(x), s * k * (1 - phi) / (1 + phi), rtol=0.05)  # 2.2 % over seeds
    independent = generator.standard_normal((5000, 4))
    assert_allclose(effective_sample_size(independent), 20_000, rtol=0.1)  # 1.9 % over seeds
    assert split_r_hat(independent) < 1.002
    assert split_r_hat(independent + np.array([0, 0, 0, 1])) > 1.05  # control: one chain elsewhere
    assert split_r_hat(independent + np.linspace(0, 1, 5000)[:, None]) > 1.02  # control: all of them drift


def test_the_gradient_of_the_log_joint_is_that_of_central_differences():
    for likelihood in ("bernoulli", "gaussian"):
        model = small(likelihood)
        generator = np.random.default_rng(5)
        target, z = log_joint(model.decoder, generator.random((7, 6))), generator.standard_normal((7, 2))
        model.params.grad[...] = 7
        _, gradient = target(z)
        assert (model.params.grad == 7).all()  # that of θ is left alone
        model.bound(generator.random((7, 6)), model.noise(generator, 7), 7, gradient=True)
        assert (model.params.grad != 7).all()  # and is there again for those who ask
        for j in range(2):
            h = 1e-5 * np.eye(2)[j]
            assert_allclose(gradient[:, j], (target(z + h)[0] - target(z - h)[0]) / 2e-5, rtol=1e-7, atol=1e-7)


# The tuning


class WrittenOut:
    """Hoffman & Gelman 2014, algorithm 5, as it is printed, for one chain."""

    def __init__(self, first, delta, gamma, mu):
        self.h, self.m, self.log_eps, self.log_mean = 0.0, 0, math.log(first), 0.0
        self.delta, self.gamma, self.mu = delta, gamma, mu

    def update(self, alpha):
        self.m += 1
        m, t0, kappa = self.m, 10, 0.75
        self.h = (1 - 1 / (m + t0)) * self.h + 1 / (m + t0) * (self.delta - alpha)
        self.log_eps = self.mu - math.sqrt(m) / self.gamma * self.h
        self.log_mean = m**-kappa * self.log_eps + (1 - m**-kappa) * self.log_mean


def test_dual_averaging_is_algorithm_5_written_out_for_each_chain():
    rates = np.random.default_rng(0).random((30, 4, 1))
    first = np.array([[0.01], [0.1], [1.0], [10.0]])
    tuner = DualAveraging(first, 0.8, gamma=0.05, lean=10)
    theirs = [WrittenOut(eps, 0.8, 0.05, math.log(10 * eps)) for eps in first[:, 0]]
    assert_array_equal(tuner.average, first)  # untuned, the stepsize is the one that was asked for
    for rate in rates:
        tuner.update(rate)
        for one, alpha in zip(theirs, rate[:, 0], strict=True):
            one.update(alpha)
        assert_allclose(np.log(tuner.stepsize[:, 0]), [one.log_eps for one in theirs], rtol=1e-12, atol=1e-12)
        assert_allclose(np.log(tuner.average[:, 0]), [one.log_mean for one in theirs], rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.* a longer burn_in tunes")  # 15 transitions do not tune them
@pytest.mark.parametrize("shared", [False, True])
def test_the_burn_in_tunes_in_two_halves_and_the_chains_go_on_with_the_average(shared):
    z, burn_in = exact(3), 15
    chains = sample(correlated, z, np.random.default_rng(2), 1, burn_in, 4, acceptance=0.6, stepsize=0.3, shared=shared)
    generator, state = np.random.default_rng(2), (z, *correlated(z))

    def advance(stepsize):
        p, (u, v) = generator.standard_normal((3, 2)), generator.random((2, 3))
        return transition(correlated, state, p, u, stepsize * (1 - 0.5 * v[:, None]), 4)

    first = np.full(3, 0.3)
    for half, gamma, lean in [(8, 0.05, 10), (7, 0.5, 1)]:
        tuners = [WrittenOut(eps, 0.6, gamma, math.log(lean * eps)) for eps in first]
        for _ in range(half):
            state, rate, _ = advance(np.exp([[tuner.log_eps] for tuner in tuners]))
            for tuner, alpha in zip(tuners, np.full(3, rate.mean()) if shared else rate, strict=True):
                tuner.update(alpha)
        first = np.exp([tuner.log_mean for tuner in tuners])
    assert_allclose(chains.stepsize[:, 0], first, rtol=1e-10)
    assert_allclose(chains.z[0], advance(first[:, None])[0][0], rtol=1e-9)
    last = np.exp([tuner.log_eps for tuner in tuners])
    assert (abs(last / first - 1) > 0.01).all()  # control: the last iterate is another stepsize


SCALES = {"equal": np.ones(10), "small": np.geomspace(0.01, 1, 10), "large": np.geomspace(1, 100, 10)}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("scales", "right"), [("equal", 0.84), ("small", 0.0152), ("large", 1.52)])
@pytest.mark.parametrize("stepsize", [0.01, 0.1, 1, 10])
def test_the_default_burn_in_finds_the_stepsize_from_a_start_that_is_wrong_by_orders_of_magnitude(
    stepsize, scales, right, shared
):
    """`right` is where exact draws accept 90 percent in the mean, found by bisection.

    Over six seeds the medians of the stepsizes were 0.86 to 1.01 of it where each chain is tuned by itself, since its
    rates are noisy, and 0.99 to 1.15 of it where one is shared, since for equal scales the rate is 0.9 up to 0.97. The
    mean rates were 0.888 to 0.929. No warning is given, for a warning would be an error here.
    """
    generator, scales = np.random.default_rng(0), SCALES[scales]
    start = generator.standard_normal((50, 10)) * scales
    chains = sample(gaussian(scales), start, generator, 100, stepsize=stepsize, shared=shared)
    assert 0.8 < np.median(chains.stepsize) / right < 1.2
    assert abs(chains.acceptance.mean() - 0.9) < 0.035
    assert chains.divergences == 0


def test_a_tuning_that_ends_too_low_or_too_high_is_told_with_its_rate():
    def tuned(stepsize, acceptance=0.9, burn_in=1):
        start = np.random.default_rng(0).standard_normal((20, 10))
        sample(oscillator, start, np.random.default_rng(1), 100, burn_in, acceptance=acceptance, stepsize=stepsize)

    with pytest.warns(UserWarning, match=r"accept 7[0-9]% of their transitions, 90% were asked for: a longer burn_in"):
        tuned(0.11)
    with pytest.warns(UserWarning, match=r"accept 100% of their transitions, 90% were asked for: a longer burn_in"):
        tuned(0.001)
    with pytest.warns(UserWarning, match=r"accept 7[0-9]% of their transitions, 50% were asked for: a longer burn_in"):
        tuned(0.06, acceptance=0.5)
    tuned(0.08)  # 90 %
    tuned(0.06)  # 94 %: nothing is said
    tuned(0.11, burn_in=0)  # nor where nothing was to be tuned


def test_divergent_trajectories_are_rejected_counted_and_told():
    z = np.ones((6, 2))
    stuck = pytest.warns(UserWarning, match="6 of 6 chains accept less than half of the 90% asked for")
    with stuck, pytest.warns(UserWarning, match="of 60 trajectories diverged"):
        chains = sample(oscillator, z, np.random.default_rng(0), 10, burn_in=0, steps=400, stepsize=3.0, jitter=0.1)
    assert chains.divergences == 60
    assert_array_equal(chains.z[-1], z)


@pytest.mark.parametrize(
    ("z", "settings", "message"),
    [
        (np.zeros((0, 2)), {}, r"z has shape \(0, 2\); expected \(C, J\)"),
        (np.zeros(2), {}, r"z has shape \(2,\)"),
        (np.zeros((1, 2)), {"n_samples": 0}, "n_samples is 0; expected a whole number ≥ 1"),
        (np.zeros((1, 2)), {"steps": 0}, "steps is 0"),
        (np.zeros((1, 2)), {"burn_in": -1}, "burn_in is -1; expected a whole number ≥ 0"),
        (np.zeros((1, 2)), {"acceptance": 1}, "acceptance is 1; expected a rate between 0 and 1"),
        (np.zeros((1, 2)), {"stepsize": 0}, "stepsize is 0; expected a number > 0"),
    ],
)
def test_bad_settings_are_refused(z, settings, message):
    with pytest.raises(ValueError, match=message):
        sample(oscillator, z, np.random.default_rng(0), **{"n_samples": 3} | settings)
    with pytest.raises(ValueError, match="S ≥ 4 draws of K chains"):
        split_r_hat(np.zeros((3, 2)))


@pytest.mark.parametrize("settings", [{"likelihood": "isotropic", "mean": "free"}, {"channels": (2,), "n_visible": 9}])
def test_the_gradient_of_the_target_is_that_of_log_p_and_theta_is_left_alone(settings):
    model = VAE(**{"n_visible": 6, "n_hidden": 5, "n_latent": 2, "init": 0.5, "dtype": "float64"} | settings)
    x, z = rows(4, model.n_visible), np.random.default_rng(0).standard_normal((4, 2))
    model.params.grad[...] = 7
    target = log_joint(model.decoder, x)
    gradient, step = target(z)[1], 1e-6
    for j in range(2):
        there, back = (target(z + sign * step * np.eye(2)[j])[0] for sign in (1, -1))
        assert_allclose(gradient[:, j], (there - back) / (2 * step), rtol=1e-6)
    assert (model.params.grad == 7).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["log density", "gradient"])
def test_a_start_without_a_finite_density_and_gradient_is_refused_by_its_number(bad, where):
    def target(z):
        value, gradient = oscillator(z)
        wrong = z[:, 1] > 5  # in the second dimension alone
        if where == "gradient":
            return value, np.where(wrong[:, None] & [False, True], bad, gradient)
        return np.where(wrong, bad, value), gradient

    def refused(numbers):
        z = np.zeros((9, 2))
        z[numbers, 1] = 6
        with pytest.raises(ValueError) as error:
            sample(target, z, np.random.default_rng(0), 3)
        return str(error.value)

    message = refused([3, 8])
    assert "z starts 2 of 9 chains where the log density or its gradient is not finite (numbers 3, 8, " in message
    message = refused(range(1, 8))
    assert "z starts 7 of 9 chains" in message and "(numbers 1, 2, 3, 4, 5, …, counted from 0)" in message
    sample(target, np.zeros((9, 2)), np.random.default_rng(0), 3, burn_in=0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            lambda value, gradient: (value[:, None], gradient),
            r"a log density of shape \(3, 1\) and a gradient of shape",
        ),
        (
            lambda value, gradient: (value, gradient[:, :1]),
            r"shape \(3,\) and a gradient of shape \(3, 1\) at z of shape",
        ),
        (
            lambda value, gradient: (value.sum(), gradient),
            r"a log density of shape \(\) and .* expected \(3,\), a number",
        ),
        (lambda value, gradient: (value, None), r"a gradient of shape \(\) at z of shape \(3, 2\); expected"),
    ],
)
def test_a_target_whose_shapes_would_be_broadcast_is_refused(shape, words):
    z = np.ones((3, 2))
    with pytest.raises(ValueError, match=f"^target returns .*{words}"):
        sample(lambda z: shape(*oscillator(z)), z, np.random.default_rng(0), 3)


def test_masked_starts_are_refused_and_those_of_a_mask_without_an_entry_are_taken():
    z = np.ma.masked_greater(np.array([[0.0, 1.0], [2.0, 3.0]]), 2.5)
    with pytest.raises(ValueError, match="z has masked entries; expected an array of real numbers"):
        sample(oscillator, z, np.random.default_rng(0), 3)
    found = sample(oscillator, np.ma.array(z.data), np.random.default_rng(0), 3, burn_in=0)
    assert type(found.z) is np.ndarray and found.z.shape == (3, 2, 2)


def test_chains_on_the_device_are_those_on_the_host_and_wait_twice_for_each_state_that_is_kept(waits):
    start = np.random.default_rng(0).standard_normal((6, 3))

    def waited(backend, n_samples, burn_in):
        z = move(start, backend)
        waits.count = 0
        chains = sample(oscillator, z, np.random.default_rng(1), n_samples, burn_in, stepsize=0.5)
        return waits.count, chains

    count, theirs = waited("cupy", 10, 20)
    ours = waited("numpy", 10, 20)[1]
    for name in ("z", "acceptance", "energy_error", "stepsize"):
        assert_array_equal(host(getattr(theirs, name)), getattr(ours, name))
        assert type(getattr(theirs, name)) is np.ndarray
    assert waited("cupy", 10, 200)[0] == count == 2 * 10 + 2  # none in the burn-in; start and stepsize are read once


def test_single_precision_is_kept_whatever_the_settings_are():
    seen = set()

    def target(z):
        seen.add(z.dtype)
        return oscillator(z)

    settings = {"acceptance": np.float64(0.9), "stepsize": np.float64(0.5), "jitter": np.float64(0.4)}
    chains = sample(target, np.ones((6, 3), np.float32), np.random.default_rng(0), 10, **settings)
    assert seen == {np.dtype(np.float32)} == {chains.z.dtype, chains.stepsize.dtype, chains.energy_error.dtype}


@pytest.mark.filterwarnings("ignore:.*a longer burn_in tunes")  # 6 transitions do not tune them
def test_the_stepsize_stays_as_the_burn_in_left_it():
    z, n = exact(4), 5
    chains = sample(correlated, z, np.random.default_rng(5), n, 6, 4, acceptance=0.6, stepsize=0.3)
    generator, state = np.random.default_rng(5), (z, *correlated(z))
    tuners = None
    for t in range(6 + n):
        if t in (0, 3):
            first = np.full(4, 0.3) if tuners is None else np.exp([tuner.log_mean for tuner in tuners])
            gamma, lean = (0.05, 10) if t == 0 else (0.5, 1)
            tuners = [WrittenOut(eps, 0.6, gamma, math.log(lean * eps)) for eps in first]
        frozen = t >= 6
        stepsize = np.exp([tuner.log_mean if frozen else tuner.log_eps for tuner in tuners])
        p, (u, v) = generator.standard_normal((4, 2)), generator.random((2, 4))
        state, rate, error = transition(correlated, state, p, u, stepsize[:, None] * (1 - 0.5 * v[:, None]), 4)
        if frozen:
            assert_allclose(chains.z[t - 6], state[0], rtol=1e-8)
            assert_allclose(chains.energy_error[t - 6], error, rtol=1e-6, atol=1e-10)
        else:
            for tuner, alpha in zip(tuners, rate, strict=True):
                tuner.update(alpha)
    assert_allclose(chains.stepsize[:, 0], stepsize, rtol=1e-10)
    assert (np.abs(stepsize / 0.3 - 1) > 0.05).all()  # control: not the one from before the burn-in


def broken(z):
    """The oscillator, whose density is NaN beyond 5 and 0 beyond 4, in the first dimension."""
    value, gradient = oscillator(z)
    return np.where(z[:, 0] > 5, np.nan, np.where(z[:, 0] > 4, -np.inf, value)), gradient


def test_a_chain_whose_energy_is_nan_diverges_and_one_of_density_0_may_leave():
    z = np.array([[0.5, 0], [6, 0], [4.5, 0], [0.5, 0]])
    p = np.array([[0.1, 0], [-3, 0], [-3, 0], [30.0, 0]])
    state, probability, error = transition(broken, (z, *broken(z)), p, np.full(4, 0.2), 0.5, 2)
    assert_array_equal(error[[1, 3]], np.inf)  # NaN before, NaN after
    assert_array_equal(probability[1:], [0, 1, 0])
    assert_array_equal(state[0][[1, 3]], z[[1, 3]])
    assert error[2] == -np.inf and state[0][2, 0] < 4
    alone = transition(broken, (z[:1], *broken(z[:1])), p[:1], np.full(1, 0.2), 0.5, 2)
    assert_array_equal(state[0][0], alone[0][0][0])  # no chain hears of another
    assert np.isfinite(probability).all()


@pytest.mark.filterwarnings("ignore:.*chains accept")
@pytest.mark.parametrize("shared", [False, True])
def test_trajectories_that_meet_nan_are_counted_and_freeze_no_other_chain(shared):
    z = np.zeros((8, 2))

    def target(z):  # NaN on half of the plane, for the first chain alone
        value, gradient = oscillator(z)
        return np.where((z[:, 0] > 0.2) & (np.arange(8) == 0), np.nan, value), gradient

    with pytest.warns(UserWarning, match="trajectories diverged"):
        chains = sample(target, z, np.random.default_rng(0), 200, 20, 5, shared=shared, stepsize=0.3)
    met = ~np.isfinite(chains.energy_error)
    assert met[:, 0].sum() > 20 and chains.divergences == met.sum() == met[:, 0].sum()
    assert np.isfinite(chains.acceptance).all() and np.isfinite(chains.stepsize).all()
    assert (np.ptp(chains.z[:, 1:, 0], axis=0) > 1).all()


@pytest.mark.parametrize("generator", [0, None, np.random])
def test_a_seed_in_place_of_the_generator_is_refused(generator):
    with pytest.raises(ValueError, match="expected NumPy's, such as np"):
        sample(oscillator, np.zeros((2, 2)), generator, 3)


@pytest.mark.filterwarnings("error")
def test_chains_that_stand_still_have_the_promised_answers_and_no_warning():
    apart = np.stack([np.zeros(8), np.ones(8)], axis=1)
    together = np.ones((8, 2))
    assert split_r_hat(apart) == np.inf
    assert np.isnan(split_r_hat(together)) and np.isnan(effective_sample_size(together))
    assert np.isfinite(effective_sample_size(apart))
    one_of_each = np.stack([apart, together, np.random.default_rng(0).standard_normal((8, 2))], axis=2)
    r_hat = split_r_hat(one_of_each)
    assert r_hat[0] == np.inf and np.isnan(r_hat[1]) and np.isfinite(r_hat[2])
