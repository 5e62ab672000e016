"""inference/hmc.py: leapfrog on the harmonic oscillator (E15), transitions of exact draws (E16), diagnostics."""

import itertools

import numpy as np
import pytest
from conftest import rows, small
from numpy.testing import assert_allclose, assert_array_equal

from scratchvae import VAE
from scratchvae.inference.hmc import effective_sample_size, leapfrog, log_joint, sample, split_r_hat, transition

Z_LIMIT = 4.89


def oscillator(z):
    """log N(z; 0, I) up to a constant: H = ½ q² + ½ p², a harmonic oscillator."""
    return -0.5 * (z * z).sum(axis=-1), -z


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


def test_divergent_trajectories_are_rejected_counted_and_told():
    z = np.ones((6, 2))
    stuck = pytest.warns(UserWarning, match="6 of 6 chains accept less than half of the 90% asked for")
    with stuck, pytest.warns(UserWarning, match="of 60 trajectories diverged"):
        chains = sample(oscillator, z, np.random.default_rng(0), 10, burn_in=0, steps=400, stepsize=3.0, jitter=0.1)
    assert chains.divergences == 60
    assert_array_equal(chains.z[-1], z)


def test_a_tuning_that_does_not_arrive_is_told_with_its_rate():
    with pytest.warns(UserWarning, match=r"accept 100% of their transitions, 50% were asked for: a longer burn_in"):
        sample(oscillator, np.ones((6, 2)), np.random.default_rng(0), 10, burn_in=2, acceptance=0.5, stepsize=1e-3)


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
