"""NumPy against CuPy on a device, with the same noise (E22): float64 to 1e-12, float32 to 1e-6."""

import os

import numpy as np
import pytest
from conftest import LIKELIHOODS, host, relative, rows
from numpy.testing import assert_array_equal

from scratchvae import VAE, Adagrad, Adam, FullVB, evaluate, fit
from scratchvae.backend import fusing, move
from scratchvae.bench import Workload, minibatches, profile, profile_table, profiling, training_step
from scratchvae.bench.device_profile import DeviceRecorder
from scratchvae.gradcheck import check_matrix, check_parts
from scratchvae.inference.full_vb import THETA_NOISE

pytestmark = pytest.mark.gpu

TOLERANCES = [("float64", 1e-12), ("float32", 1e-6)]


@pytest.fixture(autouse=True, params=[False, True], ids=["plain", "fused"])
def fused_or_not(request):
    """Each test runs with kernels as they are, and with those of `backend.fused`."""
    with fusing(request.param):
        yield request.param


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(("likelihood", "mean"), LIKELIHOODS)
@pytest.mark.parametrize("estimator", ["A", "B"])
def test_bound_and_every_gradient_array_are_the_same_on_the_device_e22(estimator, likelihood, mean, dtype, tolerance):
    ours = VAE(64, (50, 40), 5, likelihood, mean, estimator, 2, init=0.1, dtype=dtype)
    theirs = ours.to("cupy")
    x, eps = rows(20, 64).astype(dtype), ours.noise(np.random.default_rng(0), 20)
    bounds = ours.bound(x, eps, 1000, True), float(theirs.bound(move(x, "cupy"), move(eps, "cupy"), 1000, True))
    assert abs(bounds[0] - bounds[1]) / abs(bounds[0]) < tolerance
    gradient = host(theirs.params.grad)
    assert gradient.dtype == np.dtype(dtype)
    for name, window in ours.params.named(ours.params.grad).items():
        assert relative(ours.params.window(name, gradient), window) < tolerance, name


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("theta_noise", THETA_NOISE)
def test_full_vb_is_the_same_on_the_device_e22(theta_noise, learned, dtype, tolerance):
    settings = {"theta_noise": theta_noise, "learn_hyperprior": learned, "log_sigma": -2.0}
    ours = FullVB(64, (50, 40), 5, init=0.1, n_samples=2, dtype=dtype, **settings)
    theirs = ours.to("cupy")
    x, noise = rows(20, 64).astype(dtype), ours.noise(np.random.default_rng(0), 20)
    on_device = tuple(move(part, "cupy") for part in noise)
    bounds = ours.bound(x, noise, 1000, True), float(theirs.bound(move(x, "cupy"), on_device, 1000, True))
    assert abs(bounds[0] - bounds[1]) / abs(bounds[0]) < tolerance
    gradient = host(theirs.params.grad)
    for name, window in ours.params.named(ours.params.grad).items():
        assert relative(ours.params.window(name, gradient), window) < tolerance, name


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(
    "settings",
    [
        {"flow": 4},
        {"posterior": "full"},
        {"channels": (4, 8), "activation": "relu"},
        {"likelihood": "isotropic", "channels": (4,)},
        {"likelihood": "continuous-bernoulli"},
        {"likelihood": "laplace"},
        {"estimator": "autoencoder"},
    ],
)
def test_flows_and_convolutions_are_the_same_on_the_device_e22(settings, dtype, tolerance):
    ours = VAE(64, 40, 5, init="glorot", n_samples=2, dtype=dtype, **settings)
    theirs = ours.to("cupy")
    x, eps = rows(20, 64).astype(dtype), ours.noise(np.random.default_rng(0), 20)
    bounds = ours.bound(x, eps, 1000, True), float(theirs.bound(move(x, "cupy"), move(eps, "cupy"), 1000, True))
    assert abs(bounds[0] - bounds[1]) / abs(bounds[0]) < tolerance
    assert relative(host(theirs.params.grad), ours.params.grad) < tolerance


@pytest.mark.parametrize("make", [Adagrad, Adam])
def test_a_short_float64_training_is_the_same_on_the_device(make):
    ours = VAE(64, 50, 5, dtype="float64", init=0.1)
    theirs, train = ours.to("cupy"), rows(300, 64)
    histories = [fit(model, train, train, optimizer=make(), samples=1000, batch_size=50) for model in (ours, theirs)]
    assert relative(host(theirs.params.value), ours.params.value) < 1e-9  # 20 steps let rounding grow
    assert abs(histories[0]["valid_bound"][-1] / histories[1]["valid_bound"][-1] - 1) < 1e-9
    assert abs(evaluate(ours, train)["bound"] / evaluate(theirs, train)["bound"] - 1) < 1e-9


def test_a_run_resumes_on_the_device_to_the_bit(tmp_path):
    train = np.random.default_rng(0).integers(0, 256, (300, 64), dtype=np.uint8)

    def go(name, samples, resume=False):
        model = VAE(64, 50, 5, backend="cupy")
        fit(model, train, samples=samples, batch_size=50, out=tmp_path / name, resume=resume)
        return host(model.params.value)

    unbroken = go("unbroken", 1000)
    go("stopped", 400)
    assert_array_equal(go("stopped", 1000, resume=True), unbroken)


@pytest.mark.filterwarnings("ignore:cupyx.allow_synchronize:DeprecationWarning", "ignore:cupyx.allow_synchronize")
def test_a_training_step_reads_nothing_from_the_device():
    import cupyx

    step, x = training_step(Workload("cupy")), [move(x, "cupy") for x in minibatches(Workload("cupy"), 3)]
    step(0, x[0])
    with cupyx.allow_synchronize(False):
        for t in (1, 2):
            step(t, x[t])
        with pytest.raises(cupyx.DeviceSynchronized):  # control
            float(step(3, x[0]))


def test_every_gradient_passes_on_the_device():
    found = [*check_parts(backend="cupy"), *check_matrix(backend="cupy")]
    checked = [report for _, report in found if not isinstance(report, str)]
    assert len(checked) > 200
    assert all(checked)


@pytest.mark.parametrize("given", [{}, {"channels": (4, 8)}, {"flow": 2}, {"posterior": "full"}, {"model": "full-vb"}])
def test_a_step_that_is_watched_on_the_device_has_the_same_bits(given):
    work = Workload("cupy", n_visible=64, n_hidden=50, n_latent=5, batch_size=20, **given)
    recorder = DeviceRecorder()
    step, watched = training_step(work), profiling.watched_step(work, recorder)
    x = move(minibatches(work, 1)[0], "cupy")
    bound = step(0, x)
    with recorder.step():
        other = watched(0, recorder.watched(x))
    assert float(other) == float(bound) and len(recorder.steps[0]) > 40
    for name in ("value", "grad"):
        ours, theirs = (getattr(one.model.params, name) for one in (step, watched))
        assert_array_equal(host(theirs.bare), host(ours))


@pytest.mark.skipif("SCRATCHVAE_STAND_IN" in os.environ, reason="the stand-in has no clock of a device")
def test_the_device_times_of_the_operations_add_up_to_that_of_the_step():
    result = profile(Workload("cupy"), repeats=5, progress=False)
    print(profile_table(result))
    assert result["not_ahead"] == []
    total = sum(one["ms"] for one in result["operations"])
    assert 0.5 < total / result["device_ms"] < 1.5
    assert result["step_ms"] > 0.7 * max(result["launch_ms"], result["device_ms"])
    assert all(0 < one["launch_ms"] < 5 for one in result["operations"])
    assert all(one["of_roof"] < 3 for one in result["operations"])
    peaks = result["peaks"]
    assert peaks["gflops"] > 100 and peaks["cache_gb_s"] > 0.5 * peaks["memory_gb_s"] > 5
