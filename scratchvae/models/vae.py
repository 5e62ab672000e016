"""Section 3: the variational auto-encoder."""

import math

import numpy as np

from scratchvae.arguments import whole
from scratchvae.backend import move, own
from scratchvae.inference.autoencoder import autoencoder
from scratchvae.inference.distributions import gaussian_neg_kl, log_gaussian, log_standard_gaussian
from scratchvae.inference.importance_weighted import importance_weighted
from scratchvae.inference.sgvb import sgvb_a, sgvb_b
from scratchvae.inference.wake_sleep import wake_sleep
from scratchvae.nets.conv import conv_decoder, conv_encoder
from scratchvae.nets.layers import Linear
from scratchvae.nets.mlp import ACTIVATIONS, BernoulliMLP, GaussianMLP, IsotropicMLP, mlp
from scratchvae.nets.params import Params
from scratchvae.noise import standard_normal

ESTIMATORS = {
    "A": sgvb_a,
    "B": sgvb_b,
    "iwae": importance_weighted,
    "wake-sleep": wake_sleep,
    "autoencoder": autoencoder,
}
LIKELIHOODS = ("bernoulli", "gaussian", "isotropic")


class VAE:
    """p(z) = N(0, I), p(x|z) a decoder MLP, q(z|x) = N(μ, σ² I) an encoder MLP (9), trained by SGVB.

    n_visible, n_latent   D and J; n_hidden is one width or several, the same for encoder and decoder (section 5), or ()
    channels              of convolutions around these layers, outermost first, for square images; (): none
    likelihood            "bernoulli" (C.1), "gaussian" (C.2), or "isotropic": Gaussian, one learned σ² for all pixels
    mean                  of a Gaussian decoder: "sigmoid" (section 5, data in [0, 1]) or "free"
    estimator             "A" (6), "B" (7), "iwae" (the importance-weighted bound of L draws), "wake-sleep",
                          "autoencoder" (no noise, no KL), or your own function with the signature of `sgvb_b`
    n_samples             L, the number of z per datapoint
    activation            of the hidden layers: "tanh" (the paper's), "relu", "softplus" or "sigmoid"
    init, init_biases     a standard deviation, 0.01 as in the paper, or "glorot"; biases start at zero unless asked
    prior                 p(θ) = N(0, I) over the decoder's parameters: MAP as in section 5, or maximum likelihood
    dtype, seed           float32 to train, float64 to check; the seed of the initial values
    backend               "numpy", or "cupy": on the GPU, where the same lines run

    Data are rows: uint8 pixels, read as x/255, or floats. They lie where the model does, and so does what it returns:
    `backend.move` takes arrays there and back. ValueError names the argument that does not fit.
    """

    def __init__(
        self,
        n_visible,
        n_hidden=500,
        n_latent=20,
        likelihood="bernoulli",
        mean="sigmoid",
        estimator="B",
        n_samples=1,
        activation="tanh",
        init=0.01,
        init_biases=False,
        prior=True,
        dtype=np.float32,
        seed=0,
        backend="numpy",
        channels=(),
    ):
        self.config = _validated(
            n_visible=n_visible,
            n_hidden=list(n_hidden) if isinstance(n_hidden, list | tuple) else [n_hidden],
            n_latent=n_latent,
            likelihood=likelihood,
            mean=mean,
            estimator=estimator,
            n_samples=n_samples,
            activation=activation,
            init=init,
            init_biases=init_biases,
            prior=prior,
            dtype=dtype,
            seed=seed,
            channels=list(channels) if isinstance(channels, list | tuple) else [channels],
        )
        self.estimator = estimator if callable(estimator) else ESTIMATORS[estimator]
        self.n_visible, self.n_latent, self.n_samples = n_visible, n_latent, n_samples
        self.prior, self.dtype, self.backend = prior, np.dtype(dtype), backend
        self.channels = self.config.get("channels", [])

        self.encoder = self.new_encoder()  # q(z|x)
        self.decoder = self.new_decoder()  # p(x|z)

        self.params = Params([*self.encoder.layers, *self.decoder.layers], dtype, backend)
        self.phi, self.theta = self.params.part("encoder."), self.params.part("decoder.")
        self.params.initialise(init, np.random.default_rng(seed), init_biases)

    def new_encoder(self):
        """The encoder that `config` describes, its parameters not laid yet."""
        return GaussianMLP(*self.encoder_net(), self.n_latent)

    def encoder_net(self):
        """What q(z|x) is read from: the Chain from x to h, and what makes a layer from h to so many numbers."""
        widths, activation = self.config["n_hidden"], self.config["activation"]
        if self.channels:
            return conv_encoder("encoder", self._image_shape(), self.channels, widths, activation)
        return mlp("encoder", self.n_visible, widths, activation, reads_data=True)

    def new_decoder(self, linear=Linear):
        """The decoder that `config` describes, its parameters not laid yet; linear: what its affine maps are."""
        widths, activation = self.config["n_hidden"], self.config["activation"]
        sigmoid_mean = self.config["mean"] == "sigmoid"
        if self.channels:
            shape = self._image_shape()
            hidden, head = conv_decoder("decoder", self.n_latent, shape, self.channels, widths, activation)
        else:
            hidden, head = mlp("decoder", self.n_latent, widths, activation, linear=linear)
        if self.config["likelihood"] == "bernoulli":
            return BernoulliMLP(hidden, head, self.n_visible)
        if self.config["likelihood"] == "isotropic":
            return IsotropicMLP("decoder", hidden, head, self.n_visible, sigmoid_mean)
        return GaussianMLP(hidden, head, self.n_visible, sigmoid_mean)

    def _image_shape(self):
        side = math.isqrt(self.n_visible)
        return side, side, 1

    # What training asks of a model

    def eps(self, generator, n):
        """ε ~ N(0, I) behind the latents of n datapoints, (L, n, J)."""
        return standard_normal(generator, (self.n_samples, n, self.n_latent), self.dtype, self.backend)

    def noise(self, generator, n):
        """The noise of `bound` for n datapoints: ε; for wake-sleep (ε, z, u), with z and u behind n dreams."""
        eps = self.eps(generator, n)
        if self.estimator is not wake_sleep:
            return eps
        z = standard_normal(generator, (n, self.n_latent), self.dtype, self.backend)
        return eps, z, self._pixel_noise(generator, n)

    def bound(self, x, noise, n_data, gradient=False):
        """The estimate (8) of the bound of n_data datapoints, in nats; with `gradient`, params.grad is its gradient.

        Of wake-sleep params.grad has the gradients of its two phases. x (M, D), noise as `noise` draws it, ε (L, M, J).
        ValueError if their shapes do not fit each other and the model.
        """
        x = self.pixels(x)
        noise = self._dreams(noise, len(x)) if self.estimator is wake_sleep else self._eps(noise, len(x))
        return self.estimator(self.encoder, self.decoder, x, noise, float(n_data), gradient)

    def log_prior(self):
        """log p(θ) = log N(θ; 0, I) in nats; 0 with prior=False. Section 5 ascends (8) + log p(θ): MAP."""
        return log_standard_gaussian(self.params.value[self.theta], gradient=False)[0] if self.prior else 0.0

    def add_log_prior_gradient(self):
        """Add ∂log p(θ)/∂θ = -θ to the gradient that `bound` has left; nothing with prior=False."""
        if self.prior:
            gradient = self.params.grad[self.theta]
            gradient -= self.params.value[self.theta]

    def terms(self, x, eps):
        """The two terms of (7) apart: -KL(q(z|x) ‖ p(z)) and 1/L Σ_l log p(x|z⁽ˡ⁾), nats per datapoint, (M,) each.

        Of an autoencoder 0 and log p(x|z) at its code: their sum bounds nothing.
        """
        x = self.pixels(x)
        mu, log_var = self.encoder.forward(x)
        if self.estimator is autoencoder:
            return 0 * mu[:, 0], self.decoder.log_prob(x, mu[None], gradient=False)[0]
        z = mu + np.exp(0.5 * log_var) * self._eps(eps, len(x))
        return gaussian_neg_kl(mu, log_var, gradient=False)[0], self.decoder.log_prob(x, z, gradient=False).mean(axis=0)

    def latents(self, x, eps):
        """z ~ q(z|x), (L, M, J), and log q(z|x) in nats, (L, M), for x (M, D) and eps (L, M, J)."""
        mu, log_var = self.encoder.forward(self.pixels(x))
        z = mu + np.exp(0.5 * log_var) * eps
        return z, log_gaussian(z, mu, log_var, gradient=False)[0]

    # What one does with a trained one

    def encode(self, x):
        """q(z|x) = N(μ, σ² I) (9): (mu, log_var), (M, J) each."""
        batches = _batches(own("x", x, self.backend))
        mu, log_var = zip(*(self.encoder.forward(self.pixels(rows))[:2] for rows in batches), strict=True)
        return np.concatenate(mu), np.concatenate(log_var)

    def encode_mean(self, x):
        """The mean of q(z|x), (M, J)."""
        return self.encode(x)[0]

    def encode_samples(self, x, n_samples=1, seed=0):
        """z ~ q(z|x): (n_samples, M, J)."""
        shape = n_samples, len(x), self.n_latent
        return self._encode_at(x, standard_normal(np.random.default_rng(seed), shape, self.dtype, self.backend))

    def decode(self, z):
        """E[x|z] for z (M, J): the Bernoulli's probabilities or the Gaussian's mean, (M, D)."""
        batches = _batches(own("z", z, self.backend))
        return np.concatenate([self.decoder.mean(self._rows(rows, self.n_latent, "z")) for rows in batches])

    def draw(self, z, seed=0):
        """x ~ p(x|z) for z (M, J): pixels that are 0 or 1, or Gaussian draws, (M, D)."""
        generator, parts = np.random.default_rng(seed), []
        for rows in _batches(own("z", z, self.backend)):
            noise = self._pixel_noise(generator, len(rows))
            parts.append(self.decoder.draw(self._rows(rows, self.n_latent, "z"), noise))
        return np.concatenate(parts)

    def reconstruct(self, x):
        """E[x|z] at the mean of q(z|x), (M, D)."""
        return self.decode(self.encode_mean(x))

    def reconstruct_samples(self, x, n_samples=16, seed=0):
        """E[x|z⁽ˡ⁾] for z⁽ˡ⁾ ~ q(z|x), (n_samples, M, D): their spread is what q leaves open about the image.

        `reconstruct_samples(x).mean(0)` and `.std(0)` are the reconstruction and its uncertainty, pixel by pixel.
        """
        z = self.encode_samples(x, n_samples, seed)
        return self.decode(z.reshape(-1, self.n_latent)).reshape(*z.shape[:2], -1)

    def sample(self, n, seed=0):
        """E[x|z] for n latents from the prior z ~ N(0, I), (n, D); the same n for the same seed."""
        return self.decode(standard_normal(np.random.default_rng(seed), (n, self.n_latent), self.dtype, self.backend))

    def to(self, backend):
        """The same model with its parameters on another backend; itself if it is there."""
        if backend == self.backend:
            return self
        model = type(self)(**self.config | {"estimator": self.estimator, "backend": backend})
        model.n_samples = self.n_samples
        model.params.value[...] = move(self.params.value, backend)
        return model

    def working_memory(self, m):
        """About how many bytes a step on m datapoints takes beside parameters and data: what the layers keep."""
        of_x = 6 if self.config["likelihood"] == "bernoulli" else 10  # arrays as wide as x that live at once, per z
        per_z = of_x * self.n_visible + 4 * sum(self.config["n_hidden"]) + 12 * self.n_latent
        layers = self.encoder.layers + self.decoder.layers
        per_z += 2 * sum(layer.geometry.n_entries() for layer in layers if hasattr(layer, "geometry"))
        dreams = per_z if self.estimator is wake_sleep else 0
        return (self.n_samples * per_z + dreams + 2 * self.n_visible) * m * self.dtype.itemsize

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

    def _eps(self, noise, m):
        if m == 0:
            raise ValueError("x has no rows; expected one datapoint or more")
        noise = own("noise", noise, self.backend).astype(self.dtype, copy=False)
        if noise.ndim != 3 or noise.shape[1:] != (m, self.n_latent) or len(noise) == 0:
            raise ValueError(f"noise has shape {noise.shape}; expected (L, {m}, {self.n_latent}) with L ≥ 1")
        return noise

    def _dreams(self, noise, m):
        if not isinstance(noise, tuple | list) or len(noise) != 3:
            raise ValueError(f"noise is {type(noise).__name__}; expected the three arrays (eps, z, u) of `noise`")
        eps, z, u = noise
        z, u = self._rows(z, self.n_latent, "z of the noise"), self._rows(u, self.n_visible, "u of the noise")
        if len(z) != len(u) or len(z) == 0:
            raise ValueError(
                f"z and u of the noise have {len(z)} and {len(u)} rows; expected as many of both, 1 or more"
            )
        return self._eps(eps, m), z, u

    def _pixel_noise(self, generator, n):
        """What `decoder.draw` takes for n images: uniform numbers for Bernoulli pixels, normal ones for Gaussian."""
        noise = generator.random if self.config["likelihood"] == "bernoulli" else generator.standard_normal
        return move(noise((n, self.n_visible), dtype=self.dtype), self.backend)

    def _rows(self, rows, width, name):
        rows = own(name, rows, self.backend).astype(self.dtype, copy=False)
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"{name} has shape {rows.shape}; expected (M, {width}), one datapoint per row")
        return rows


def _batches(rows, size=1000):
    """Consecutive slices of at most `size` rows, so that memory does not grow with the number of datapoints."""
    return (rows[i : i + size] for i in range(0, max(len(rows), 1), size))


def _validated(**config):
    """The arguments of a VAE as JSON, the estimator by its name; ValueError for the first that is bad."""

    def require(holds, name, value, expected):
        if not holds:
            raise ValueError(f"{name} is {value!r}; expected {expected}")

    for name in ("n_visible", "n_latent", "n_samples"):
        config[name] = whole(name, config[name])
    for name in ("n_hidden", "channels"):
        config[name] = [whole(name, width) for width in config[name]]
    config["seed"] = whole("seed", config["seed"], 0)

    likelihood, mean, activation, dtype = (config[key] for key in ("likelihood", "mean", "activation", "dtype"))
    require(likelihood in LIKELIHOODS, "likelihood", likelihood, "'bernoulli', 'gaussian' or 'isotropic'")
    means = ("sigmoid",) if likelihood == "bernoulli" else ("sigmoid", "free")
    require(mean in means, "mean", mean, "'sigmoid' or, for a gaussian or isotropic likelihood, 'free'")
    if config["channels"]:
        n = config["n_visible"]
        require(math.isqrt(n) ** 2 == n, "n_visible", n, "a square number for channels: they take square images")
    else:
        del config["channels"]  # as in the checkpoints of before there were any
    require(activation in ACTIVATIONS, "activation", activation, f"one of {', '.join(ACTIVATIONS)}")
    require(dtype in ("float32", "float64", np.float32, np.float64), "dtype", dtype, "float32 or float64")
    config["dtype"] = np.dtype(dtype).name

    estimator = config["estimator"]
    if callable(estimator):
        names = {function: letter for letter, function in ESTIMATORS.items()}
        own = getattr(estimator, "__name__", type(estimator).__name__)
        config["estimator"] = names.get(estimator, f"function {own}" if own in ESTIMATORS else own)
    else:
        known = isinstance(estimator, str) and estimator in ESTIMATORS
        require(known, "estimator", estimator, f"one of {', '.join(ESTIMATORS)}, or a function")

    if isinstance(config["init"], np.floating):
        config["init"] = float(config["init"])
    config["init_biases"], config["prior"] = bool(config["init_biases"]), bool(config["prior"])
    return config
