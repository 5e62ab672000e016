"""Appendix F of Kingma & Welling, "Auto-Encoding Variational Bayes", as a model: a VAE with a distribution over θ."""

import math
from types import SimpleNamespace

import numpy as np

from scratchvae.arguments import finite, flag, positive
from scratchvae.backend import move, own
from scratchvae.doors import theta_of
from scratchvae.guard import one_thread
from scratchvae.inference.full_vb import Posterior, over_theta, over_theta_of_rows
from scratchvae.inference.objectives import OBJECTIVES, trait
from scratchvae.models.vae import VAE
from scratchvae.nets.layers import LocalLinear
from scratchvae.nets.params import Params
from scratchvae.noise import standard_normal
from scratchvae.shares import whole_of
from scratchvae.trials import copied, try_objective

OF_THETA = 0x7E7A  # keeps ζ apart from the z of `sample` and its like under the same seed
OWN = ("theta_noise", "alpha", "learn_hyperprior", "log_sigma")  # arguments that a VAE does not have


class FullVB(VAE):
    """A VAE with q(θ) = N(μ, σ²) over the decoder's parameters and the prior p_α(θ) = N(0, α²)   (13)-(24).

    It takes the arguments of `VAE` except `prior`, which is in the bound, and these:

    theta_noise        says where ζ acts. With "minibatch", the default, there is one θ for a minibatch. With
                       "antithetic" there is θ = μ ± σ ζ, with each sign for half a minibatch. With "datapoint" there is
                       a θ for each datapoint, which is Algorithm 2 as printed, and slow. With "local" the noise acts on
                       the pre-activations, and each row has its own (Kingma, Salimans & Welling 2015, "Variational
                       Dropout and the Local Reparameterization Trick").
    alpha              is α, 1 unless given, as in the paper.
    learn_hyperprior   says whether α is learned in place of `alpha`, as α² = mean(μ² + σ²) for each array by itself;
                       False unless given.
    log_sigma          is the initial log σ of every parameter. The default, -4, gives a σ that is small beside a weight
                       of a trained decoder.

    With estimator "A" the bound is (21), with all its terms at the draws. With "B" it is (24), with the Gaussian terms
    in closed form. With another objective it is the objective at θ ~ q(θ), with the KL of θ in closed form. An
    objective that has no bound over θ is refused.

    In everything that a trained VAE does, such as decode, sample and evaluate, θ is the posterior mean μ.
    `theta_sample` returns the VAE at another θ ~ q(θ). φ is a point, as in the paper. An argument that does not fit
    raises a ValueError, which names it.
    """

    def __init__(
        self,
        n_visible,
        n_hidden=500,
        n_latent=20,
        *,
        theta_noise="minibatch",
        alpha=1.0,
        learn_hyperprior=False,
        log_sigma=-4.0,
        **settings,
    ):
        learn_hyperprior = flag("learn_hyperprior", learn_hyperprior)
        if settings.pop("prior", False):
            raise ValueError("prior is True; the bound (22) has p_α(θ) in it: leave prior out, choose alpha")
        super().__init__(n_visible, n_hidden, n_latent, prior=False, **settings)
        self.config |= theta_of(
            self.estimator, self.config, self.likelihood, theta_noise, alpha, learn_hyperprior, log_sigma
        )
        del self.config["prior"]

        arrays = [layer for layer in self.decoder.layers if layer.shapes]
        spread = [SimpleNamespace(name=f"log_sigma{a.name.removeprefix('decoder')}", shapes=a.shapes) for a in arrays]
        point = self.params.value
        self.params = Params([*self.encoder.layers, *self.decoder.layers, *spread], self.dtype, self.backend)
        self.params.value[: point.size] = point
        self.theta = slice(self.phi.stop, self.params.value.size)  # the slice of μ and log σ

        theta = None
        if theta_noise == "local":
            layers = {a.name: LocalLinear(a, s) for a, s in zip(arrays, spread, strict=True)}
            self.drawn = self.new_decoder(lambda name, *_: layers[name])
            self.drawn.local = list(layers.values())
        else:
            self.drawn = self.new_decoder()  # reads its parameters from a draw of θ, while `decoder` reads μ
            theta = Params(self.drawn.layers, self.dtype, self.backend)
        self.posterior = Posterior(self.params, theta, None if learn_hyperprior else float(alpha))
        self.posterior.log_sigma[...] = log_sigma
        if self.own["estimator"] not in OBJECTIVES.values():
            objective = self.estimator
            self.estimator = copied("estimator", objective)  # a trial leaves no trace on the model's own
            try_objective(self._bound_of_rows, self.config["estimator"], self, self.noise, scaled=False)
            self.estimator = objective

    def _bound_of_rows(self, q, p, x, noise, scale, gradient):
        """Return the bound of these rows alone.

        It is called like an objective, so that an objective of the user's is tried at θ ~ q(θ). `scale` is not read.
        """
        return self.bound(x, noise, len(x), gradient)

    # What training asks of a model

    def noise(self, generator, n):
        """Return the noise that `bound` takes for n datapoints, (ε, ζ), from NumPy's generator.

        ε (L, n, J) is behind the latents. ζ is behind θ. With theta_noise "local" it is (L n, units), and otherwise (S,
        P), where P is the number of the decoder's parameters, and S is n with "datapoint" and 1 with the others.
        """
        return self.eps(generator, n), standard_normal(generator, self._zeta_shape(n), self.dtype, self.backend)

    def noise_of(self, noise, share):
        """Return the part of a minibatch's `noise` (ε, ζ) that belongs to a `Share` of its rows.

        ε has rows of its own for each datapoint, and so has ζ with theta_noise "local". A ζ of θ itself stays whole.
        """
        eps, zeta = noise
        if self.config["theta_noise"] == "local":
            zeta = zeta.reshape(*eps.shape[:2], -1)[:, share.rows].reshape(-1, zeta.shape[1])
        return eps[:, share.rows], zeta

    @one_thread
    def bound(self, x, noise, n_data, gradient=False, share=None):
        """Return the estimate (22) of the bound of n_data datapoints, in nats, summed over them.

        The terms of θ count once.

        x          holds the minibatch, (M, D).
        noise      is (ε, ζ), as `noise` returns them for M datapoints.
        n_data     is N.
        gradient   says whether the gradient is left in params.grad; False unless given.
        share      says that x and noise are a `Share` of a minibatch, as `noise_of` gives it. The terms of θ are then
                   divided among the ranks, so that they count once in the sum of all shares. None, the default, says
                   that x is all of it.

        Shapes that do not fit each other and the model raise a ValueError, and so do noise that is not finite and an N
        that is no number > 0.
        """
        if not isinstance(noise, tuple | list) or len(noise) != 2:
            raise ValueError(f"noise is {type(noise).__name__}; expected the two arrays (eps, zeta) that `noise` draws")
        x = self.pixels(x)
        eps = self._eps(noise[0], len(x), least=1 if share is None else 0)
        zeta = own("zeta", noise[1], self.backend).astype(self.dtype, copy=False)
        share = whole_of(len(x)) if share is None else share
        local = self.config["theta_noise"] == "local"
        shape = self._zeta_shape(len(x) if local else share.of, len(eps))
        if zeta.shape != shape:
            raise ValueError(f"zeta has shape {zeta.shape}; expected {shape}")
        if self._looks():
            finite("zeta", zeta)
        arguments = self.estimator, self.encoder, self.drawn, self.posterior, x, eps
        scale = positive("n_data", n_data) / share.of
        if local:
            return over_theta_of_rows(*arguments, zeta, scale, gradient, share)
        if self.config["theta_noise"] == "antithetic":
            zeta = np.concatenate([zeta, -zeta])
        closed = not trait(self.estimator, "at_the_draws", False)
        return over_theta(*arguments, zeta, scale, gradient, closed, share)

    @one_thread
    def lay_on(self, value, grad):
        """Move the parameters and their gradients into these two flat vectors, as into memory that ranks share."""
        super().lay_on(value, grad)
        self.posterior = Posterior(self.params, self.posterior.theta, self.posterior.alpha)

    def working_memory(self, m):
        """Return about how many bytes a step on m datapoints takes beside parameters and data."""
        zeta = math.prod(self._zeta_shape(m))
        P = self.posterior.mu.size
        summed = 3 * self.params.value.size if self.config["theta_noise"] in ("antithetic", "datapoint") else 2 * P
        philox = 24 * zeta  # Philox works in 64 bits
        return super().working_memory(m) + (3 * P + summed) * self.dtype.itemsize + philox

    # What one does with a trained model

    @one_thread
    def theta_kl(self):
        """Return KL(q(θ) ‖ p_α(θ)) in nats, one number."""
        return -float(self.posterior.neg_kl())

    @one_thread
    def theta_sample(self, seed=0):
        """Return the VAE with this encoder and with a decoder drawn from the posterior, θ ~ q(θ).

        seed selects the draw. It is a whole number or several, 0 unless given; others raise a ValueError.
        """
        config = {key: value for key, value in self.config.items() if key not in OWN}
        vae = VAE(**config | self.own | {"prior": False, "backend": self.backend})
        vae.n_samples = self.n_samples
        numbers = np.atleast_1d(seed)
        if numbers.dtype.kind not in "iu" or numbers.min() < 0:
            raise ValueError(f"seed is {seed!r}; expected a whole number ≥ 0, or several")
        generator = np.random.default_rng([OF_THETA, *numbers])
        zeta = standard_normal(generator, self.posterior.mu.shape, self.dtype, self.backend)
        vae.params.value[vae.phi] = self.params.value[self.phi]
        self.posterior.draw(zeta, vae.params.value[vae.theta])
        return vae

    def alphas(self):
        """Return α of each of the decoder's arrays as a dict by name; they are all the same unless learned."""
        names = [name for name in self.params.windows if name.startswith("decoder.")]
        return dict(zip(names, [float(alpha2) ** 0.5 for alpha2 in self.posterior.alpha2()], strict=True))

    @one_thread
    def warm_start(self, model):
        """Start from a trained model, and return this one.

        φ and μ are taken from a `VAE`, while log σ stays as it is; from a `FullVB` all three are taken. A model whose
        shape, likelihood, mean, activation, posterior or flow differs raises a ValueError, and so does one with
        parameters that are not finite.
        """
        if not isinstance(model, VAE):
            raise ValueError(f"the model to start from is a {type(model).__name__}; expected a VAE or a FullVB")
        theirs = model.params.windows
        if not isinstance(model, FullVB):
            theirs = theirs | {name: w for name, w in self.params.windows.items() if name.startswith("log_sigma.")}
        for name in self.params.windows | theirs:
            came, expected = (
                windows.get(name, (None, "no such array"))[1] for windows in (theirs, self.params.windows)
            )
            if came != expected:
                raise ValueError(
                    f"the model to start from has {came} for {name}, this one {expected}: "
                    "give both the same hidden and latent sizes, posterior and likelihood"
                )
        for key in ("likelihood", "mean", "activation", "posterior", "flow"):
            came = model.config.get(key, "the default")
            expected = self.config.get(key, "the default")
            if came != expected:
                raise ValueError(
                    f"the model to start from has {key} {came!r}, this one {expected!r}: give both the same"
                )
        finite("the model to start from", model.params.value)
        self.params.value[: model.params.value.size] = move(model.params.value, self.backend)
        return self

    def _zeta_shape(self, n, n_samples=None):
        """Return the shape of ζ for n datapoints with n_samples draws of z for each, which are L unless given."""
        kind = self.config["theta_noise"]
        if kind == "local":
            return (n_samples or self.n_samples) * n, sum(layer.n_out for layer in self.drawn.local)
        return n if kind == "datapoint" else 1, self.posterior.mu.size
