"""Section 3 of Kingma & Welling, "Auto-Encoding Variational Bayes": the variational auto-encoder."""

import copy
import math
from functools import partial

import numpy as np

from scratchvae.backend import move, own
from scratchvae.doors import can, opened, try_objective
from scratchvae.guard import Guard, one_thread
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.objectives import OBJECTIVES, sgvb, trait
from scratchvae.nets.conv import conv_decoder, conv_encoder
from scratchvae.nets.heads import Decoder, Encoder, Network
from scratchvae.nets.layers import Chain, Constant, Linear
from scratchvae.nets.mlp import mlp
from scratchvae.nets.params import Params
from scratchvae.noise import standard_normal


class VAE:
    """p(z) = N(0, I), a decoder p(x|z) and an encoder q(z|x), both of them networks, trained by an objective.

    The three doors, each a name or an object of your own:

    posterior    q(z|x): "gaussian" (the default), N(μ, σ² I) (9), or "full", a Gaussian with full covariance. See
                 `inference.posteriors`. With flow=K a draw goes through K planar maps more
    likelihood   p(x|z): "bernoulli" (C.1, the default), "gaussian" (C.2), "isotropic", which is Gaussian with one
                 learned σ² for all pixels, "continuous-bernoulli", a density of grey pixels, or "laplace". See
                 `inference.likelihoods`
    estimator    the objective: "A" (6), "B" (7), "stl" (L^A, its gradient by the path alone), "iwae" (the
                 importance-weighted bound of L draws), "dreg" (the same, doubly reparameterised), "wake-sleep",
                 "black-box" (L^A by scores) or "autoencoder" (no noise, no KL). See `inference.objectives`. By
                 default it is "B", or "A" where the posterior has no KL in closed form

    The networks:

    n_visible    D, the number of pixels
    n_hidden     the width of the hidden layer (500), or several, or () for none; the same for encoder and decoder
                 (section 5)
    n_latent     J (20)
    channels     the channels of convolutions around these layers, outermost first, for square images; () is none
    activation   of the hidden layers: "tanh" (the paper's), "relu", "softplus" or "sigmoid"
    mean         of a Gaussian or Laplace decoder: "sigmoid" (section 5, for data in [0, 1]) or "free"

    And the rest:

    n_samples    L, the number of z for each datapoint (1)
    init         the standard deviation of the initial weights, 0.01 as in the paper, or "glorot"
    init_biases  draws the biases too; else they start at zero
    prior        p(θ) = N(0, I) over the decoder's parameters, MAP as in section 5 (the default); False: maximum
                 likelihood
    dtype        float32 to train, float64 to check
    seed         of the initial values
    backend      "numpy", or "cupy": on the GPU, where the same lines run

    Data are rows: uint8 pixels, read as x/255, or floats. They lie where the model does, and so does what it returns;
    `backend.move` takes arrays there and back. A model serves one thread at a time, since its layers keep what their
    backward pass needs; a second thread is refused with a RuntimeError, and takes copy.deepcopy(model). A copy and a
    pickle are working models of their own. ValueError names the argument that does not fit.
    """

    def __init__(
        self,
        n_visible,
        n_hidden=500,
        n_latent=20,
        likelihood="bernoulli",
        mean="sigmoid",
        estimator=None,
        n_samples=1,
        activation="tanh",
        init=0.01,
        init_biases=False,
        prior=True,
        dtype=np.float32,
        seed=0,
        backend="numpy",
        channels=(),
        posterior="gaussian",
        flow=0,
    ):
        posterior = copy.deepcopy(posterior)  # what a user's object keeps on itself is this model's alone
        likelihood = copy.deepcopy(likelihood)
        given = {name: value for name, value in locals().items() if name != "self"}
        q, self.likelihood, self.estimator, self.config = opened(given)
        self.own = {"posterior": posterior, "likelihood": likelihood, "estimator": self.estimator}  # config names them
        self.guard = Guard()
        self.n_visible = n_visible
        self.n_latent = n_latent
        self.n_samples = n_samples
        self.prior = prior
        self.dtype = np.dtype(dtype)
        self.backend = backend
        self.channels = self.config.get("channels", [])

        self.encoder = self.new_encoder(q)  # q(z|x)
        self.decoder = self.new_decoder()  # p(x|z)
        self.params = Params([*self.encoder.layers, *self.decoder.layers], dtype, backend)
        self.phi = self.params.part("encoder.")
        self.theta = self.params.part("decoder.")
        self._initialise(q)
        if self.estimator not in OBJECTIVES.values():
            try_objective(self.estimator, self.config["estimator"], self, partial(VAE.noise, self))

    def __getstate__(self):
        """What a copy or a pickle takes: the state between two steps, also while another thread trains the model."""
        with self.guard.moment:
            return copy.deepcopy(self.__dict__)

    def new_encoder(self, posterior):
        """The encoder that `config` describes with the outputs of `posterior`, its parameters not laid yet."""
        widths = self.config["n_hidden"]
        activation = self.config["activation"]
        if self.channels:
            hidden, head = conv_encoder("encoder", self._image_shape(), self.channels, widths, activation)
        else:
            hidden, head = mlp("encoder", self.n_visible, widths, activation, reads_data=True)
        heads = [Chain([head(name, n)]) for name, n in posterior.outputs(self.n_latent).items()]
        return Encoder(posterior, Network(hidden, heads))

    def new_decoder(self, linear=Linear):
        """The decoder that `config` describes, its parameters not laid yet; `linear` makes its affine maps."""
        widths = self.config["n_hidden"]
        activation = self.config["activation"]
        if self.channels:
            shape = self._image_shape()
            hidden, head = conv_decoder("decoder", self.n_latent, shape, self.channels, widths, activation)
        else:
            hidden, head = mlp("decoder", self.n_latent, widths, activation, linear=linear)
        links = getattr(self.likelihood, "links", {})
        heads = []
        for name in self.likelihood.outputs:
            heads.append(Chain([head(name, self.n_visible), *([links[name]()] if name in links else [])]))
        for name, n in getattr(self.likelihood, "shared", {}).items():
            heads.append(Chain([Constant(f"decoder.{name}", n)]))
        return Decoder(self.likelihood, Network(hidden, heads))

    def _initialise(self, posterior):
        """Draw the initial values. One seed gives one VAE, whatever a posterior reads beside μ and log σ²."""
        extra = [f"encoder.{name}." for name in posterior.outputs(self.n_latent) if name not in ("mu", "log_var")]
        for without in [(), extra] if extra else [()]:
            generator = np.random.default_rng(self.config["seed"])
            self.params.initialise(self.config["init"], generator, self.config["init_biases"], without)
        if hasattr(posterior, "start"):
            arrays = self.params.named(self.params.value)
            posterior.start({name.removeprefix("encoder."): array for name, array in arrays.items()})

    def _image_shape(self):
        side = math.isqrt(self.n_visible)
        return side, side, 1

    # What training asks of a model

    def eps(self, generator, n):
        """ε ~ N(0, I) behind the latents of n datapoints, (L, n, J)."""
        return standard_normal(generator, (self.n_samples, n, self.n_latent), self.dtype, self.backend)

    def noise(self, generator, n):
        """The noise of `bound` for n datapoints: ε, or the arrays that the objective names, such as (ε, z, u)."""
        draws = {"eps": self.eps, "z": self._prior_draws, "u": self._pixel_noise}
        noise = tuple(draws[name](generator, n) for name in trait(self.estimator, "noise", ("eps",)))
        return noise if len(noise) > 1 else noise[0]

    @one_thread
    def bound(self, x, noise, n_data, gradient=False):
        """The estimate (8) of the bound of n_data datapoints, in nats; with `gradient`, params.grad is its gradient.

        x is (M, D), and noise is as `noise` draws it, ε being (L, M, J). For wake-sleep params.grad has the gradients
        of its two phases. ValueError: their shapes do not fit each other and the model.
        """
        x = self.pixels(x)
        noise = self._checked_noise(noise, len(x))
        return self.estimator(self.encoder, self.decoder, x, noise, float(n_data) / len(x), gradient)

    def log_prior(self):
        """log p(θ) = log N(θ; 0, I) in nats; 0 with prior=False. Section 5 ascends (8) + log p(θ): MAP."""
        return log_standard_gaussian(self.params.value[self.theta], gradient=False)[0] if self.prior else 0.0

    def add_log_prior_gradient(self):
        """Add ∂log p(θ)/∂θ = -θ to the gradient that `bound` has left; nothing with prior=False."""
        if self.prior:
            gradient = self.params.grad[self.theta]
            gradient -= self.params.value[self.theta]

    @one_thread
    def terms(self, x, eps):
        """The two terms of (7) apart: -KL(q(z|x) ‖ p(z)) and 1/L Σ_l log p(x|z⁽ˡ⁾), nats per datapoint, (M,) each.

        The first is estimated from the L draws where the posterior has no KL in closed form. An autoencoder gives 0 and
        log p(x|z) at its code: their sum bounds nothing.
        """
        x = self.pixels(x)
        return trait(self.estimator, "terms", sgvb.terms)(self.encoder, self.decoder, x, self._eps(eps, len(x)))

    @one_thread
    def latents(self, x, eps):
        """z ~ q(z|x), (L, M, J), and log q(z|x) in nats, (L, M), for x (M, D) and eps (L, M, J)."""
        return self.encoder.draw(self.pixels(x), eps)

    # What one does with a trained one

    @one_thread
    def encode(self, x):
        """Return mean and log variance of each latent under q(z|x) (9), (M, J) each; with a flow, before the maps.

        ValueError: a posterior of your own does not tell them, having no `moments`.
        """
        posterior = self.encoder.posterior
        if not can(posterior, "moments"):
            raise ValueError(
                f"the posterior {self.config['posterior']} has no moments: take encode_mean or encode_samples"
            )
        batches = _batches(own("x", x, self.backend))
        moments = [posterior.moments(*self.encoder.forward(self.pixels(rows))) for rows in batches]
        return tuple(np.concatenate(part) for part in zip(*moments, strict=True))

    def encode_mean(self, x):
        """The z of ε = 0, (M, J): the mean of q(z|x); with a flow, the mean before the maps, sent through them."""
        return self._encode_at(x, np.zeros_like(self.params.value, shape=(1, len(x), self.n_latent)))[0]

    def encode_samples(self, x, n_samples=1, seed=0):
        """z ~ q(z|x): (n_samples, M, J)."""
        shape = n_samples, len(x), self.n_latent
        return self._encode_at(x, standard_normal(np.random.default_rng(seed), shape, self.dtype, self.backend))

    @one_thread
    def decode(self, z):
        """E[x|z] for z (M, J): the Bernoulli's probabilities or the Gaussian's mean, (M, D)."""
        batches = _batches(own("z", z, self.backend))
        return np.concatenate([self.decoder.mean(self._rows(rows, self.n_latent, "z")) for rows in batches])

    @one_thread
    def draw(self, z, seed=0):
        """x ~ p(x|z) for z (M, J), (M, D): for a Bernoulli decoder pixels that are 0 or 1."""
        generator = np.random.default_rng(seed)
        parts = []
        for rows in _batches(own("z", z, self.backend)):
            noise = self._pixel_noise(generator, len(rows))
            parts.append(self.decoder.draw(self._rows(rows, self.n_latent, "z"), noise))
        return np.concatenate(parts)

    def reconstruct(self, x):
        """E[x|z] at `encode_mean`, (M, D)."""
        return self.decode(self.encode_mean(x))

    def reconstruct_samples(self, x, n_samples=16, seed=0):
        """E[x|z⁽ˡ⁾] for z⁽ˡ⁾ ~ q(z|x), (n_samples, M, D): their spread is what q leaves open about the image.

        `reconstruct_samples(x).mean(0)` and `.std(0)` are the reconstruction and its uncertainty, pixel by pixel.
        """
        z = self.encode_samples(x, n_samples, seed)
        return self.decode(z.reshape(-1, self.n_latent)).reshape(*z.shape[:2], -1)

    def sample(self, n, seed=0):
        """E[x|z] for n latents from the prior z ~ N(0, I), (n, D); the same n for the same seed."""
        return self.decode(self._prior_draws(np.random.default_rng(seed), n))

    @one_thread
    def to(self, backend):
        """The same model with its parameters on another backend; itself if it is there."""
        if backend == self.backend:
            return self
        model = type(self)(**self.config | self.own | {"backend": backend})
        model.n_samples = self.n_samples
        model.params.value[...] = move(self.params.value, backend)
        return model

    def working_memory(self, m):
        """About how many bytes a step on m datapoints takes beside parameters and data: what the layers keep."""
        outputs = len(self.likelihood.outputs) + len(getattr(self.likelihood, "shared", {}))
        of_x = 2 + 4 * outputs  # arrays as wide as x that live at once, per z
        per_z = of_x * self.n_visible + 4 * sum(self.config["n_hidden"]) + 12 * self.n_latent
        per_z += 5 * sum(self.encoder.posterior.outputs(self.n_latent).values())
        layers = self.encoder.layers + self.decoder.layers
        per_z += 2 * sum(layer.geometry.n_entries() for layer in layers if hasattr(layer, "geometry"))
        dreams = len(trait(self.estimator, "noise", ("eps",))) - 1  # nothing, or a second pass and its noise
        return (self.n_samples * per_z + min(dreams, 1) * per_z + 2 * self.n_visible) * m * self.dtype.itemsize

    def pixels(self, x):
        """Rows of the model's dtype: uint8 read as x/255, floats as they are. ValueError for other kinds and shapes."""
        x = own("x", x, self.backend)
        if x.dtype == np.uint8:
            return self._rows(x, self.n_visible, "x") / 255
        if x.dtype.kind != "f":
            raise ValueError(f"x holds {x.dtype}; expected uint8 pixels, which are read as x/255, or floats")
        return self._rows(x, self.n_visible, "x")

    def _encode_at(self, x, eps):
        """z of `latents`, some rows at a time."""
        rows = _batches(own("x", x, self.backend)), _batches(eps.swapaxes(0, 1))
        return np.concatenate([self.latents(x, e.swapaxes(0, 1))[0] for x, e in zip(*rows, strict=True)], axis=1)

    def _checked_noise(self, noise, m):
        """`noise` as the objective takes it for m datapoints; ValueError for shapes that do not fit."""
        names = trait(self.estimator, "noise", ("eps",))
        if len(names) == 1:
            return self._eps(noise, m)
        if not isinstance(noise, tuple | list) or len(noise) != len(names):
            raise ValueError(
                f"noise is {type(noise).__name__}; expected the {len(names)} arrays ({', '.join(names)}) of `noise`"
            )
        widths = {"z": self.n_latent, "u": self.n_visible}
        parts = dict(zip(names, noise, strict=True))
        rows = {key: self._rows(parts[key], widths[key], f"{key} of the noise") for key in widths if key in parts}
        if len({len(part) for part in rows.values()} | {0}) != 2:
            sizes = " and ".join(f"{len(part)}" for part in rows.values())
            raise ValueError(f"z and u of the noise have {sizes} rows; expected as many of both, 1 or more")
        return tuple(rows[name] if name in rows else self._eps(parts[name], m) for name in names)

    def _eps(self, noise, m):
        if m == 0:
            raise ValueError("x has no rows; expected one datapoint or more")
        noise = own("noise", noise, self.backend).astype(self.dtype, copy=False)
        if noise.ndim != 3 or noise.shape[1:] != (m, self.n_latent) or len(noise) == 0:
            raise ValueError(f"noise has shape {noise.shape}; expected (L, {m}, {self.n_latent}) with L ≥ 1")
        return noise

    def _prior_draws(self, generator, n):
        """n draws of p(z), (n, J)."""
        return standard_normal(generator, (n, self.n_latent), self.dtype, self.backend)

    def _pixel_noise(self, generator, n):
        """What `decoder.draw` takes for n images, (n, D)."""
        return move(self.likelihood.noise(generator, (n, self.n_visible), self.dtype), self.backend)

    def _rows(self, rows, width, name):
        rows = own(name, rows, self.backend).astype(self.dtype, copy=False)
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"{name} has shape {rows.shape}; expected (M, {width}), one datapoint per row")
        return rows


def _batches(rows, size=1000):
    """Consecutive slices of at most `size` rows, so that memory does not grow with the number of datapoints."""
    return (rows[i : i + size] for i in range(0, max(len(rows), 1), size))
