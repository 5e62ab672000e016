"""A user's own likelihood, posterior and objective are trained, resumed and checked like ours, or refused by name.

The likelihood is that of examples/own_likelihood.py; posterior and objective stand below.
"""

import functools
import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from autograd import numpy as anp
from autograd.scipy.special import gammaln
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import poisson

from scratchvae import VAE, Adam, evaluate, fit, load_model, oracle
from scratchvae.doors import own_name
from scratchvae.gradcheck import check_density, check_model
from scratchvae.inference.distributions import LOG_2PI
from scratchvae.inference.likelihoods.gaussian import Isotropic
from scratchvae.inference.marginal import importance
from scratchvae.inference.objectives.sgvb import sgvb_a, sgvb_b
from scratchvae.inference.posteriors.full import FullGaussian
from scratchvae.inference.posteriors.gaussian import Gaussian
from scratchvae.models.full_vb import FullVB
from scratchvae.nets.layers import Sigmoid
from scratchvae.training.checkpoint import CheckpointError

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
Poisson = importlib.import_module("own_likelihood").Poisson
sys.path.remove(str(EXAMPLES))


class Round:
    """q(z|x) = N(μ, s² I) with one log s for all latents of a datapoint."""

    name = "round"

    def outputs(self, n_latent):
        return {"mu": n_latent, "log_s": 1}

    def draw(self, eps, mu, log_s):
        self.eps = eps
        self.mu = mu
        self.s = np.exp(log_s)
        return mu + self.s * eps, -(0.5 * (LOG_2PI + eps * eps) + log_s).sum(axis=-1)

    def backward(self, dz, dlog_q, dneg_kl):
        L, M, J = dz.shape
        dmu = dz.sum(axis=0)  # via z: ∂z/∂μ = 1
        dlog_s = (dz * self.s * self.eps).sum(axis=(0, 2))  # via z: ∂z/∂log s = s ε
        dlog_s = dlog_s - J * np.broadcast_to(dlog_q, (L, M)).sum(axis=0).astype(dz.dtype)  # via log q: -J
        if dneg_kl:
            dmu = dmu - dneg_kl * self.mu  # via -KL
            dlog_s = dlog_s + dneg_kl * J * (1 - self.s[:, 0] ** 2)
        return dmu, dlog_s[:, None]

    def neg_kl(self):
        return 0.5 * (1 + 2 * np.log(self.s) - self.mu**2 - self.s**2).sum(axis=-1)

    def grad_z(self):
        return -self.eps / self.s

    def noise_of(self, z, mu, log_s):
        return (z - mu) * np.exp(-log_s)

    def moments(self, mu, log_s):
        return mu, np.repeat(2 * log_s, mu.shape[1], axis=1)


class Least:
    """`Round` with no more than a posterior must have."""

    outputs = Round.outputs
    draw = Round.draw
    backward = Round.backward


BETA = 4.0


def beta_vae(q, p, x, eps, scale, gradient=True):
    """-β KL(q(z|x) ‖ p(z)) + log p(x|z) of Higgins et al. 2017, "beta-VAE"."""
    z, _ = q.draw(x, eps)
    log_px = p.log_prob(x, z, gradient)
    neg_kl = q.neg_kl()
    if gradient:
        q.backward(p.backward(scale / len(eps)), dneg_kl=BETA * scale)
    return scale * (BETA * neg_kl + log_px.mean(axis=0)).sum()


beta_vae.needs = ("neg_kl",)
OWN = {"likelihood": Poisson(), "posterior": Round(), "estimator": beta_vae}


def counts(n, d=6, seed=0):
    """n rows of counts, as floats."""
    generator = np.random.default_rng(seed)
    return generator.poisson(np.exp(generator.standard_normal((n, 1)) + np.linspace(-1, 1, d))).astype(float)


def oracle_of_all_three(arrays, x, eps, n_data):
    """The bound of `OWN` in autograd's NumPy, for one draw."""
    h = oracle.hidden(arrays, "encoder", x, "tanh")
    mu = oracle.linear(arrays, "encoder.mu", h)
    log_s = oracle.linear(arrays, "encoder.log_s", h)
    z = mu + anp.exp(log_s) * eps[0]
    log_rate = oracle.linear(arrays, "decoder.log_rate", oracle.hidden(arrays, "decoder", z, "tanh"))
    log_px = oracle_of_poisson(x, log_rate)
    return n_data / len(x) * anp.sum(log_px - BETA * oracle.kl(mu, 2 * log_s + 0 * mu))


def oracle_of_poisson(x, log_rate):
    return anp.sum(x * log_rate - anp.exp(log_rate) - gammaln(x + 1), axis=-1)


# The example


def test_the_example_of_an_own_likelihood_runs_and_its_gradients_pass(tmp_path):
    command = [sys.executable, str(EXAMPLES / "own_likelihood.py")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown.count("pass") == 11 and "FAIL" not in shown  # log p(x|z), and ten arrays of the model
    bounds = [float(line.split(": ")[1]) for line in shown.splitlines() if line.startswith(("bound", "with one rate"))]
    assert bounds[1] + 50 < bounds[0] < -35  # the factors are found; the entropy of such counts is no smaller
    assert not list(tmp_path.iterdir())


def test_the_poisson_of_the_example_is_scipys_with_the_oracles_gradient():
    x = counts(4)
    log_rate = np.random.default_rng(1).standard_normal((4, 6))
    log_p, _ = Poisson().log_prob(x, log_rate)
    assert_allclose(log_p, poisson.logpmf(x, np.exp(log_rate)).sum(axis=1), rtol=1e-12)
    (value, partial) = check_density(Poisson().log_prob, x, log_rate, oracle=oracle_of_poisson, skip=1)
    assert value.passed and partial.passed and partial.norm > 1


def test_a_partial_that_is_wrong_fails_the_check():
    class Wrong(Poisson):
        def log_prob(self, x, log_rate, gradient=True):
            log_p, partial = super().log_prob(x, log_rate, gradient)
            return log_p, 1.001 * partial if gradient else None

    checks = check_model(VAE(6, 5, 2, likelihood=Wrong(), dtype="float64"), counts(4))
    assert {check.name for check in checks if not check.passed} >= {"decoder.log_rate.W", "decoder.log_rate.b"}


def test_the_poissons_draws_have_its_mean_and_variance():
    model = VAE(6, 5, 2, likelihood=Poisson(), init=1.0, dtype="float64")
    z = np.repeat([[0.3, -0.5]], 20_000, axis=0)
    x = model.draw(z)
    rate = model.decode(z[:1])[0]
    assert_array_equal(x, np.round(x))
    assert (np.abs(x.mean(axis=0) - rate) < 5 * np.sqrt(rate / len(x))).all()
    assert_allclose(x.var(axis=0), rate, rtol=0.08)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (counts(4) + 0.5, "train cannot be scored by the likelihood poisson: a count is a whole number"),
        (counts(4).astype(np.uint8), "pass counts as floats, x.astype\\(float\\), and not as uint8"),
        (-1 - counts(4), "train has values from -\\d+ to -1; expected \\[0, inf\\] for a likelihood poisson"),
    ],
)
def test_data_that_are_no_counts_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        fit(VAE(6, 5, 2, likelihood=Poisson()), x, samples=10)


@pytest.mark.parametrize("width", [1, 6])
def test_an_own_likelihood_may_share_outputs_among_all_z_but_under_names_of_their_own(width):
    class Shared(Isotropic):
        shared = {"log_var": width}  # noqa: RUF012  a constant

    settings = {"dtype": "float64", "init": 0.5}
    model = VAE(6, 5, 2, likelihood=Shared("free"), **settings)
    x = counts(4)
    assert check_model(model, x)
    if width == 1:
        ours = VAE(6, 5, 2, likelihood="isotropic", mean="free", **settings)
        noise = ours.noise(np.random.default_rng(0), 4)
        assert model.bound(x, noise, 9) == ours.bound(x, noise, 9)
    Shared.shared = {"mu": width}
    with pytest.raises(ValueError, match=r"shared of likelihood Shared is \{'mu': .*other names than those of outputs"):
        VAE(6, 5, 2, likelihood=Shared("free"))


def test_the_check_of_an_own_likelihood_gets_uint8_as_pixels_and_floats_as_they_are():
    seen = []

    class Noting(Isotropic):
        def check(self, x):
            seen.append(x)

    x = np.arange(0, 256, 51, dtype=np.uint8)[None]
    for given, expected in [(x, x / 255), (x / 510, x / 510)]:
        seen.clear()
        evaluate(VAE(6, 5, 2, likelihood=Noting()), given)
        assert_array_equal(seen[0], expected)


# Own posterior, own objective


@pytest.mark.parametrize("estimator", ["A", "B", "stl", "iwae", "dreg", "wake-sleep", "black-box", beta_vae])
@pytest.mark.parametrize("settings", [{}, {"flow": 2}], ids=["", "flow"])
def test_an_own_posterior_has_the_gradient_of_every_objective(estimator, settings):
    if settings and estimator in ("B", beta_vae):
        with pytest.raises(
            ValueError, match=r"needs KL.* in closed form, and the posterior 'flow over round' has no neg_kl"
        ):
            VAE(6, 5, 2, posterior=Round(), estimator=estimator, **settings)
        return
    model = VAE(6, 5, 2, posterior=Round(), estimator=estimator, n_samples=2, dtype="float64", **settings)
    checks = check_model(model, np.random.default_rng(0).random((4, 6)), entries=30)
    assert checks
    assert min(check.norm for check in checks if "encoder" in check.name) > 1e-3


def test_all_three_together_have_the_gradient_of_an_oracle():
    model = VAE(6, 5, 2, dtype="float64", **OWN)
    checks = check_model(model, counts(4), oracle=oracle_of_all_three)
    assert len(checks) == 11 and all(check.passed and (check.oracle or 0) < 1e-10 for check in checks)


@pytest.mark.parametrize("theta_noise", ["minibatch", "local"])
def test_all_three_together_have_a_distribution_over_theta(theta_noise):
    model = FullVB(6, 5, 2, theta_noise=theta_noise, dtype="float64", **OWN)
    assert check_model(model, counts(4), entries=30)
    history = fit(model, counts(100), samples=3000, optimizer=Adam(0.01), progress=False)
    assert history["train_bound"][-1] > history["train_bound"][0] + 1


def test_a_posterior_with_the_least_methods_takes_the_objectives_that_need_no_more():
    model = VAE(6, 5, 2, posterior=Least(), dtype="float64")
    assert model.config["estimator"] == "A"
    assert check_model(model, np.random.default_rng(0).random((4, 6)))
    with pytest.raises(ValueError, match=r"needs ∇_z log q.*, and the posterior 'Least' has no grad_z: take another"):
        VAE(6, 5, 2, posterior=Least(), estimator="stl")
    with pytest.raises(ValueError, match="the posterior Least has no moments: take encode_mean or encode_samples"):
        model.encode(np.zeros((1, 6)))


def test_a_model_does_not_share_the_posterior_that_it_was_given():
    posterior = Round()
    one, other = (VAE(6, 5, 2, posterior=posterior) for _ in range(2))
    assert one.encoder.posterior is not other.encoder.posterior and not hasattr(posterior, "eps")


def test_a_model_does_not_share_the_likelihood_that_it_was_given():
    likelihood = Poisson()
    one, other = (VAE(6, 5, 2, likelihood=likelihood) for _ in range(2))
    assert len({id(likelihood), id(one.likelihood), id(other.likelihood)}) == 3


@pytest.mark.filterwarnings("ignore:k_hat")  # after 20 epochs some weights have a heavy tail
@pytest.mark.filterwarnings("ignore:x holds floats up to 0.42")  # in the first 50 rows of data up to 1
@pytest.mark.parametrize("doors", [["likelihood"], ["posterior"], ["estimator"], list(OWN)], ids=" ".join)
def test_own_objects_are_trained_kept_loaded_resumed_to_the_bit_and_evaluated(doors, tmp_path):
    own = {door: OWN[door] for door in doors}
    x = counts(300)
    x = x if "likelihood" in own else x / x.max()
    settings = {"optimizer": Adam(0.003), "progress": False}
    model = VAE(6, 10, 2, init="glorot", **own)
    history = fit(model, x, x[:50], samples=6000, out=tmp_path / "whole", **settings)
    assert history["valid_bound"][-1] > history["valid_bound"][0] + (0.3 if "likelihood" in own else 0.03)

    fit(VAE(6, 10, 2, init="glorot", **own), x, x[:50], samples=3100, out=tmp_path / "parts", **settings)
    resumed = VAE(6, 10, 2, init="glorot", **own)
    again = fit(resumed, x, x[:50], samples=6000, out=tmp_path / "parts", resume=True, **settings)
    assert_array_equal(resumed.params.value, model.params.value)
    columns = ["step", "samples", "epoch", "train_bound", "valid_bound"]
    assert_array_equal(again[columns], history[columns])

    loaded = load_model(tmp_path / "parts", **own)
    assert_array_equal(loaded.params.value, model.params.value)
    assert evaluate(loaded, x) == evaluate(model, x)
    assert_array_equal(loaded.sample(3), model.sample(3))
    loaded.n_samples = 100
    assert importance(loaded, x[:50], 1000).mean()[0] > evaluate(loaded, x[:50])["bound"]
    missing = doors[0]
    with pytest.raises(
        CheckpointError, match=f"was trained with {missing} '{loaded.config[missing]}': pass the .*{missing}=…"
    ):
        load_model(tmp_path / "parts", **{door: value for door, value in own.items() if door != missing})


def test_an_own_object_that_has_one_of_our_names_is_told_apart():
    class Mine(Gaussian):
        pass

    def A(*arguments):  # noqa: N802  it is the name that is looked at
        return sgvb_a(*arguments)

    config = VAE(6, 5, 2, posterior=Mine(), estimator=A).config
    assert config["posterior"] == "own gaussian" and config["estimator"] == "function A"


# Refused: the message names the object, the method and the shapes


def changed(base, **attributes):
    """An object of a class Mine, which is `base` but for these attributes."""
    return type("Mine", (base,), attributes)()


def with_attribute(value, **attributes):
    """The object with these attributes of its own, not of its class."""
    vars(value).update(attributes)
    return value


def with_partial(x, log_rate, gradient, dtype=None):
    """Σ_i x_i log rate_i - rate_i and its partial, which is of this dtype."""
    value = score(x, log_rate).sum(axis=-1)
    return value, (x - np.exp(log_rate)).astype(dtype or x.dtype) if gradient else None


def score(x, log_rate):
    return x * log_rate - np.exp(log_rate)


LIKELIHOODS = {
    "a class": (Poisson, "likelihood is the class Poisson; expected an object of it: likelihood=Poisson(…)"),
    "nothing": (
        object(),
        "likelihood object has no outputs, log_prob, mean, noise, draw; expected an object with outputs, log_prob, "
        "mean, noise, draw, as scratchvae.inference.likelihoods describes them",
    ),
    "outputs in one word": (
        changed(Poisson, outputs="log_rate"),
        "outputs of likelihood Mine is 'log_rate'; expected a tuple of names, such as ('mu', 'log_var')",
    ),
    "a method that is none": (
        changed(Poisson, mean=0.5),
        "mean of likelihood Mine is 0.5; expected a method, def mean(self, …)",
    ),
    "log p not summed": (
        changed(Poisson, log_prob=lambda self, x, a, gradient: (score(x, a), x - np.exp(a))),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) returned shapes (3, 7, 8), (3, 7, 8); expected (3, 7), "
        "(3, 7, 8): log p(x|z) of 3 draws for 7 rows, summed over the 8 pixels, and its partial with respect to each "
        "of log_rate, not summed",
    ),
    "the partial forgotten": (
        changed(Poisson, log_prob=lambda self, x, a, gradient: (score(x, a).sum(axis=-1), None)),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) returned shapes (3, 7), None; expected (3, 7), (3, 7",
    ),
    "without gradient only the value": (
        changed(
            Poisson,
            log_prob=lambda self, x, a, gradient: (
                (score(x, a).sum(axis=-1), x - np.exp(a)) if gradient else score(x, a).sum(axis=-1)
            ),
        ),
        "likelihood Mine: log_prob(x, log_rate, gradient=False) returned shapes (3, 7); expected (3, 7), None: ",
    ),
    "without gradient": (
        changed(Poisson, log_prob=lambda self, x, a: (score(x, a).sum(axis=-1), x - np.exp(a))),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) failed (TypeError: ",
    ),
    "a mean of all pixels": (
        changed(Poisson, mean=lambda self, a: np.exp(a).mean(axis=-1)),
        "likelihood Mine: mean(log_rate) returned shapes (7,); expected (7, 8): E[x|z], 8 pixels for each of 7 rows",
    ),
    "noise of one number": (
        changed(Poisson, noise=lambda self, generator, shape, dtype: generator.random()),
        "likelihood Mine: noise(generator, shape, dtype) returned shapes (); expected (7, 8): random numbers",
    ),
    "a draw that fails": (
        changed(Poisson, draw=lambda self, u, a: u + {}["rate"]),
        "likelihood Mine: draw(noise, log_rate) failed (KeyError: 'rate'); expected shapes (7, 8): x ~ p(x|z), 8 ",
    ),
    "a link that is no layer": (
        changed(Poisson, links={"log_rate": np.tanh}),
        "links of likelihood Mine is {'log_rate': <ufunc 'tanh'>}; expected by name of output a class of layers "
        "without arguments and without parameters, such as {'mu': Sigmoid}",
    ),
    "a link with parameters": (
        changed(Poisson, links={"log_rate": type("Affine", (Sigmoid,), {"shapes": {"a": (1,)}})}),
        "links of likelihood Mine is {'log_rate': <class 'test_own_objects.Affine'>}; expected by name of output a ",
    ),
    "a link that takes arguments": (
        changed(Poisson, links={"log_rate": type("Scaled", (Sigmoid,), {"__init__": lambda self, by: None})}),
        "links of likelihood Mine is {'log_rate': <class 'test_own_objects.Scaled'>}; expected by name of output a ",
    ),
    "a shared output of a truth value": (
        changed(Poisson, shared={"log_var": True}),
        "shared of likelihood Mine is {'log_var': True}; expected other names than those of outputs, each with 1 or 8",
    ),
    "noise that ignores the generator": (
        changed(
            Poisson, noise=lambda self, generator, shape, dtype: np.random.default_rng().random(shape).astype(dtype)
        ),
        "likelihood Mine: noise(generator, shape, dtype) returned other numbers for the same generator; expected it "
        "to draw from it",
    ),
    "noise of another precision": (
        changed(Poisson, noise=lambda self, generator, shape, dtype: generator.random(shape)),
        "likelihood Mine: noise(generator, shape, dtype) returned float64 for float32 arrays; expected arrays of the "
        "dtype that comes in",
    ),
    "partials of another precision": (
        changed(Poisson, log_prob=lambda self, x, a, gradient=True: with_partial(x, a, gradient, np.float64)),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) returned float64 for float32 arrays",
    ),
    "a density that is NaN": (
        changed(Poisson, log_prob=lambda self, x, a, gradient=True: with_partial(np.nan * x, a, gradient)),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) returned values that are not finite; expected log ",
    ),
    "x changed in place": (
        changed(Poisson, log_prob=lambda self, x, a, gradient=True: with_partial(np.clip(x, 0, 9, out=x), a, gradient)),
        "likelihood Mine: log_prob(x, log_rate, gradient=True) failed (ValueError: output array is read-only); ",
    ),
    "a shared output of another width": (
        changed(Poisson, shared={"log_var": 2}),
        "shared of likelihood Mine is {'log_var': 2}; expected other names than those of outputs, each with 1 or 8",
    ),
    "half a support": (
        changed(Poisson, support=0),
        "support of likelihood Mine is 0; expected (lowest, highest), such as (0, np.inf)",
    ),
}
POSTERIORS = {
    "a class": (Round, "posterior is the class Round; expected an object of it: posterior=Round(…)"),
    "no backward": (
        type("Mine", (), {"outputs": Round.outputs, "draw": Round.draw})(),
        "posterior Mine has no backward; expected an object with outputs, draw, backward, as "
        "scratchvae.inference.posteriors describes them",
    ),
    "outputs that is no method": (
        changed(Round, outputs={"mu": 2}),
        "outputs of posterior Mine is {'mu': 2}; expected a method, def outputs(self, …)",
    ),
    "outputs without widths": (
        changed(Round, outputs=lambda self, J: ["mu", "log_s"]),
        "posterior Mine: outputs(2) returned ['mu', 'log_s']; expected a dict of names and whole numbers, such as "
        "{'mu': 2, 'log_var': 2}",
    ),
    "a width that is no number": (
        changed(Round, outputs=lambda self, J: {"mu": J, "log_s": "1"}),
        "posterior Mine: outputs(2) returned {'mu': 2, 'log_s': '1'}; expected a dict of names and whole numbers",
    ),
    "an output that draw does not read": (
        changed(Round, outputs=lambda self, J: {"mu": J, "log_s": 1, "skew": 1}),
        "posterior Mine: draw(eps, mu, log_s, skew) failed (TypeError: ",
    ),
    "z without log q": (
        changed(Round, draw=lambda self, eps, mu, log_s: mu + np.exp(log_s) * eps),
        "posterior Mine: draw(eps, mu, log_s) returned shapes (3, 7, 2); expected (3, 7, 2), (3, 7): 3 draws of z for "
        "7 rows, and log q(z|x), summed over the 2 latents",
    ),
    "log q not summed": (
        changed(Round, draw=lambda self, eps, mu, log_s: (mu + eps, -0.5 * eps * eps)),
        "posterior Mine: draw(eps, mu, log_s) returned shapes (3, 7, 2), (3, 7, 2); expected (3, 7, 2), (3, 7): ",
    ),
    "a gradient not summed over the draws": (
        changed(Round, backward=lambda self, dz, dlog_q, dneg_kl: (dz, dz[..., :1])),
        "posterior Mine: backward(dz, dlog_q, dneg_kl), with 1.0 for dlog_q and 0.0 for dneg_kl, returned shapes "
        "(3, 7, 2), (3, 7, 1); expected (7, 2), (7, 1): a tuple, ∂bound/∂ each of mu, log_s, summed over the 3 draws",
    ),
    "weights of one number alone": (
        changed(Round, backward=lambda self, dz, dlog_q, dneg_kl: Round.backward(self, dz, float(dlog_q), dneg_kl)),
        "posterior Mine: backward(dz, dlog_q, dneg_kl), with an array (3, 7) for dlog_q and 0.0 for dneg_kl, failed ",
    ),
    "a backward that fails": (
        changed(Round, backward=lambda self, dz, dlog_q: (dz, dz)),
        "posterior Mine: backward(dz, dlog_q, dneg_kl), with 1.0 for dlog_q and 0.0 for dneg_kl, failed (TypeError: ",
    ),
    "one gradient and no tuple": (
        changed(Round, backward=lambda self, dz, dlog_q, dneg_kl: dz.sum(axis=0)),
        "posterior Mine: backward(dz, dlog_q, dneg_kl), with 1.0 for dlog_q and 0.0 for dneg_kl, returned one ndarray; "
        "expected a tuple, ∂bound/∂ each of mu, log_s",
    ),
    "lists": (
        changed(Round, grad_z=lambda self: (-self.eps / self.s).tolist()),
        "posterior Mine: grad_z() returned shapes ",
    ),
    "eps changed in place": (
        changed(Round, draw=lambda self, eps, mu, log_s: Round.draw(self, np.multiply(eps, 2, out=eps), mu, log_s)),
        "posterior Mine: draw(eps, mu, log_s) failed (ValueError: output array is read-only); ",
    ),
    "what cannot be copied": (
        with_attribute(changed(Round), lock=threading.Lock()),
        "posterior Mine cannot be copied (TypeError: ",
    ),
    "no gradient of its KL": (
        changed(Round, backward=lambda self, dz, dlog_q, dneg_kl: Round.backward(self, dz, dlog_q, 0) * (not dneg_kl)),
        "posterior Mine: backward(dz, dlog_q, dneg_kl), with 0.0 for dlog_q and 1.0 for dneg_kl, returned shapes "
        "nothing; expected (7, 2), (7, 1)",
    ),
    "one KL for all rows": (
        changed(Round, neg_kl=lambda self: 0.0),
        "posterior Mine: neg_kl() returned shapes (); expected (7,): -KL(q(z|x) ‖ p(z)) of each of 7 rows",
    ),
    "a slope without draws": (
        changed(Round, grad_z=lambda self: -self.mu),
        "posterior Mine: grad_z() returned shapes (7, 2); expected (3, 7, 2): ∇_z log q(z|x) at each draw",
    ),
    "noise of no draw": (
        changed(Round, noise_of=lambda self, z, mu, log_s: mu),
        "posterior Mine: noise_of(z, mu, log_s) returned shapes (7, 2); expected (3, 7, 2): the eps that leads to",
    ),
    "one moment": (
        changed(Round, moments=lambda self, mu, log_s: mu),
        "posterior Mine: moments(mu, log_s) returned shapes (7, 2); expected (7, 2), (7, 2): mean and log variance",
    ),
    "scores of one output": (
        changed(Round, factors=lambda self: (self.eps, [self.eps])),
        "posterior Mine: factors() returned shapes (3, 7, 2), (3, 7, 2); expected (3, 7, 2), (3, 7, 2), (3, 7, 2): ",
    ),
}


def marked(**traits):
    """An objective `mine` with these attributes."""

    def mine(q, p, x, eps, scale, gradient=True):
        return sgvb_a(q, p, x, eps, scale, gradient)

    vars(mine).update(traits)
    return mine


def returning(value):
    """An objective `mine` that returns this."""

    def mine(q, p, x, eps, scale, gradient=True):
        return value

    return mine


def without_gradient(q, p, x, eps, scale):
    return sgvb_a(q, p, x, eps, scale)


def without_draws(q, p, x, eps, scale, gradient=True):
    log_px = p.log_prob(x, q.draw(x, eps)[0], gradient)
    if gradient:
        q.backward(p.backward(scale).sum(axis=0))
    return scale * log_px.sum()


def without_scale(q, p, x, eps, scale, gradient=True):
    return sgvb_b(q, p, x, eps, 1.0, gradient)


def half_of_x(q, p, x, eps, scale, gradient=True):
    x *= 0.5
    return sgvb_b(q, p, x, eps, scale, gradient)


OBJECTIVES = {
    "the scale forgotten": (
        without_scale,
        "estimator without_scale does not grow with scale: ",
    ),
    "x changed in place": (
        half_of_x,
        "estimator half_of_x failed on 7 rows with gradient=False (ValueError: output array is read-only); expected",
    ),
    "a number": (3, "estimator is 3; expected one of A, B, stl, "),
    "a class": (Round, "or your own function f(q, p, x, eps, scale, gradient=True)"),
    "five arguments": (
        without_gradient,
        "estimator without_gradient failed on 7 rows with gradient=False (TypeError: ",
    ),
    "a gradient of another shape": (
        without_draws,
        "estimator without_draws failed on 7 rows with gradient=True (",
    ),
    "a value for each row": (
        returning(np.zeros(2)),
        "estimator mine returned an array of shape (2,) with gradient=False; expected one number in nats, the bound "
        "of all rows together, times scale",
    ),
    "nothing": (returning(None), "estimator mine returned None with gradient=False; expected one number in nats"),
    "text": (returning("-3"), "estimator mine returned '-3' with gradient=False; expected one number in nats"),
    "needs in one word": (
        marked(needs="neg_kl"),
        "needs of estimator mine is 'neg_kl'; expected a tuple such as ('neg_kl',)",
    ),
    "needs what nobody has": (
        marked(needs=("curvature",)),
        "estimator is 'mine', which needs a method curvature, and the posterior 'gaussian' has no curvature: take "
        "another estimator, such as 'A'",
    ),
    "noise that there is not": (
        marked(noise=("eps", "v")),
        "noise of estimator mine is ('eps', 'v'); expected a tuple such as ('eps', 'z', 'u')",
    ),
}
BROKEN = [
    (door, what, *pair)
    for door, cases in {"likelihood": LIKELIHOODS, "posterior": POSTERIORS, "estimator": OBJECTIVES}.items()
    for what, pair in cases.items()
]


@pytest.mark.parametrize(("door", "what", "value", "message"), BROKEN, ids=[" ".join(row[:2]) for row in BROKEN])
def test_what_does_not_fit_its_door_is_refused_when_the_model_is_made(door, what, value, message):
    with pytest.raises(ValueError) as refusal:
        VAE(8, 5, 2, n_samples=2, **{door: value})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_objective_that_takes_a_kl_that_is_not_there_is_told_so():
    """`sgvb_b` without its `needs`."""

    def forgetful(q, p, x, eps, scale, gradient=True):
        return sgvb_b(q, p, x, eps, scale, gradient)

    with pytest.raises(ValueError, match=r"q\.neg_kl\(\) is None: this posterior has none"):
        VAE(8, 5, 2, flow=1, estimator=forgetful)


class WarmUp:
    """β-VAE whose β grows with each call that leaves a gradient: an objective with a state."""

    name = "warm-up"

    def __init__(self):
        self.calls = 0

    def __call__(self, q, p, x, eps, scale, gradient=True):
        self.calls += 1
        return min(self.calls / 10, 1) * sgvb_b(q, p, x, eps, scale, gradient)


@pytest.mark.parametrize("kind", [VAE, FullVB])
def test_an_objective_with_a_state_is_the_models_own_and_its_trial_leaves_no_trace(kind):
    given = WarmUp()
    model = kind(8, 5, 2, estimator=given)
    assert model.estimator is not given and model.estimator.calls == given.calls == 0
    other = kind(8, 5, 2, estimator=given)
    x = np.ones((4, 8), "float32")
    model.bound(x, model.noise(np.random.default_rng(0), 4), 4)
    assert (model.estimator.calls, other.estimator.calls) == (1, 0)


def tempered(q, p, x, eps, scale, gradient=True, base=sgvb_a, weights=None, by=1.0):
    return base(q, p, x, eps, by * scale, gradient)


NAMES = """
import functools, numpy as np
from test_own_objects import *
one = functools.partial(tempered, base=sgvb_b, weights=np.arange(5000) / 7, by=0.5)
print(VAE(8, 5, 2, estimator=one).config["estimator"])
"""


def test_the_name_of_a_partial_is_the_same_in_every_process_and_tells_its_settings_apart():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    named = [
        subprocess.run(
            [sys.executable, "-c", NAMES], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for _ in range(2)
    ]
    weights = np.arange(5000) / 7
    here = own_name(functools.partial(tempered, by=0.5, weights=weights, base=sgvb_b), ())
    assert named == [here + "\n"] * 2 and " at 0x" not in here
    weights[2500] += 1
    assert own_name(functools.partial(tempered, by=0.5, weights=weights, base=sgvb_b), ()) != here
    assert own_name(functools.partial(tempered, 0, by={"a": [1, sgvb_a]}), ()) == (
        "partial tempered(0, by={'a': " + own_name(functools.partial(tempered, [1, sgvb_a]), ())[17:-1] + "})"
    )


def test_arrays_of_a_run_that_the_model_has_no_place_for_are_not_dropped(tmp_path):
    class Wide(FullGaussian):
        name = "mine"

    class Narrow(Gaussian):
        name = "mine"

    x = np.random.default_rng(0).random((20, 8))
    fit(VAE(8, 5, 2, posterior=Wide()), x, samples=20, batch_size=10, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"params/encoder\.lower\.W, .*, which this model does not have"):
        load_model(tmp_path, posterior=Narrow())
    model = VAE(8, 5, 2, posterior=Narrow())
    with pytest.raises(CheckpointError, match="the model expects"):
        fit(model, x, samples=40, batch_size=10, out=tmp_path, resume=True)


def test_a_buffer_of_an_own_object_is_writable_in_what_joblib_maps_into_memory(tmp_path):
    joblib = pytest.importorskip("joblib")

    class Buffered(Round):
        def draw(self, eps, mu, log_s):
            self.buffer[:] = mu[0, 0]
            return Round.draw(self, eps, mu, log_s)

    globals()["Buffered"] = Buffered
    Buffered.__qualname__ = "Buffered"
    model = VAE(8, 5, 2, posterior=with_attribute(Buffered(), buffer=np.zeros(200_000)))
    joblib.dump(model, tmp_path / "model")
    copy = joblib.load(tmp_path / "model", mmap_mode="r")
    x = np.ones((3, 8), "float32")
    assert_array_equal(copy.encode_mean(x), model.encode_mean(x))
    assert copy.encoder.posterior is copy.own["posterior"]


def test_latents_takes_its_eps_as_the_bound_does():
    model = VAE(8, 5, 2)
    x = np.ones((4, 8), "float32")
    for shape in [(1, 4, 1), (1, 1, 2), (4, 2), (2,)]:
        with pytest.raises(ValueError, match=r"noise has shape .*; expected \(L, 4, 2\)"):
            model.latents(x, np.zeros(shape))
    assert model.latents(x, np.zeros((3, 4, 2)))[0].dtype == np.float32
