"""Section 3 of Kingma & Welling, "Auto-Encoding Variational Bayes": the variational auto-encoder."""

import copy
import math
from functools import partial

import numpy as np

from scratchvae.arguments import finite, flag, labels_of, model_rows, positive, takes_unit, whole
from scratchvae.backend import fused, move, own, writable
from scratchvae.data.labels import one_hot
from scratchvae.data.pixels import warn_if_dark
from scratchvae.doors import opened
from scratchvae.guard import Guard, one_thread
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.objectives import OBJECTIVES, sgvb, trait, with_weights
from scratchvae.inference.posteriors import can
from scratchvae.nets.conv import conv_decoder, conv_encoder
from scratchvae.nets.heads import Decoder, Encoder, Network
from scratchvae.nets.layers import Chain, Constant, Linear
from scratchvae.nets.mlp import ACTIVATIONS, mlp
from scratchvae.nets.params import Params
from scratchvae.noise import standard_normal
from scratchvae.trials import copied, try_objective


class VAE:
    """A VAE: p(z) = N(0, I), a decoder p(x|z) and an encoder q(z|x), both of them networks, trained by an objective.

    Each of the three doors takes a name or an object of your own, of which the model keeps a copy:

    posterior    is q(z|x): "gaussian", which is the default, N(μ, σ² I) (9), or "full", a Gaussian with full
                 covariance. See `inference.posteriors`.
    likelihood   is p(x|z): "bernoulli" (C.1), which is the default, "gaussian" (C.2), "isotropic", a Gaussian with one
                 learned σ² for all pixels, "continuous-bernoulli", a density of grey pixels, or "laplace". See
                 `inference.likelihoods`.
    estimator    is the objective: "A" (6), "B" (7), "stl" (L^A, with a gradient by the path alone), "iwae" (the
                 importance-weighted bound of L draws), "dreg" (the same bound, with a doubly reparameterised gradient),
                 "wake-sleep", "black-box" (L^A, with a gradient by scores) or "autoencoder" (no noise and no KL). See
                 `inference.objectives`. The default is "B", or "A" if the posterior has no KL in closed form.

    These arguments describe the networks:

    n_visible    is D, the number of pixels.
    n_hidden     is the width of the hidden layer, 500 unless given; or it lists several widths, or is () for no hidden
                 layer. Encoder and decoder have the same (section 5).
    n_latent     is J, the number of latents, 20 unless given.
    activation   is that of the hidden layers: "tanh", which is the paper's and the default, "relu", "softplus" or
                 "sigmoid".
    channels     lists the channels of convolutions around the hidden layers, outermost first, for square images; ()
                 unless given, for none.
    image_channels  says how many numbers a pixel of these images has, side by side in a row: 1 unless given, and 3
                 for red, green and blue.
    flow         is the number of planar maps that a draw of the posterior goes through, 0 unless given.
    mean         is that of a Gaussian or Laplace decoder: "sigmoid", which is the default, for data in [0, 1] (section
                 5), or "free".

    And these are the others:

    n_samples     is L, the number of draws of z for each datapoint, 1 unless given.
    init          is the standard deviation of the initial weights, 0.01 unless given, as in the paper; or it is
                  "glorot".
    init_biases   says whether the initial biases are drawn too; unless given they are zero.
    beta          is β, how often the KL counts in what is ascended, once unless given (see `objectives.sgvb`). Above 1
                  the latents carry less, and below 1 more. The bound that is returned and logged stays that of β = 1.
    n_classes     is C, the number of classes of a conditional VAE, p(x|z, y) p(z) with an encoder q(z|x, y); 0 unless
                  given, for none. A row of its data then has its label behind the pixels: see `labelled`. It is for
                  objectives without dreams.
    free_bits     is a number of nats, 0 unless given: a latent whose mean KL over the minibatch is below it costs
                  nothing. It is for the estimator "B" and latents that are independent under q(z|x).
    prior         says whether θ has the prior p(θ) = N(0, I), so that training is MAP as in section 5, which is the
                  default. False stands for maximum likelihood.
    dtype         is float32, unless given, to train, or float64 to check gradients.
    seed          selects the initial values, 0 unless given.
    backend       is "numpy", unless given, or "cupy", with which the same lines run on the GPU.

    Data are rows of uint8 pixels, which are read as x/255, or of floats. They lie where the model does, and so does
    what it returns; `backend.move` takes arrays there and back. A model serves one thread at a time, since its layers
    keep what their backward pass needs. A second thread is refused with a RuntimeError, and can take
    copy.deepcopy(model). A copy and a pickle are working models of their own. An argument that does not fit raises a
    ValueError, which names it.
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
        beta=1.0,
        free_bits=0.0,
        n_classes=0,
        image_channels=1,
    ):
        posterior = copied("posterior", posterior)  # what a user's object keeps on itself is then this model's alone
        likelihood = copied("likelihood", likelihood)
        estimator = copied("estimator", estimator)
        init_biases = flag("init_biases", init_biases)
        prior = flag("prior", prior)
        given = {name: value for name, value in locals().items() if name != "self"}
        q, self.likelihood, objective, self.config = opened(given)
        # config has only the names of these.
        self.own = {"posterior": posterior, "likelihood": likelihood, "estimator": objective}
        self.beta = self.config.get("beta", 1.0)
        self.free_bits = self.config.get("free_bits", 0.0)
        self.weigh_kl(1.0)
        self.guard = Guard()
        self.n_visible = n_visible
        self.n_latent = n_latent
        self.n_classes = self.config.get("n_classes", 0)
        self.n_columns = n_visible + self.n_classes  # of a row: its pixels, and its label if there are classes
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
        if objective not in OBJECTIVES.values():
            objective = copied("estimator", self.estimator)  # a trial leaves no trace on the model's own
            try_objective(objective, self.config["estimator"], self, partial(VAE.noise, self))

    def __getstate__(self):
        """Return what a copy or a pickle takes: the state between two steps, even while another thread trains."""
        with self.guard.moment:
            return copy.deepcopy(self.__dict__)

    def __setstate__(self, state):
        """Take over a copied or unpickled state. Arrays of own objects that a memory map made read-only are copied."""
        self.__dict__.update(state)
        for value in self.own.values():
            if hasattr(value, "__dict__") and not callable(value):
                vars(value).update({name: writable(part) for name, part in vars(value).items()})

    def new_encoder(self, posterior):
        """Return the encoder of `config`, with the outputs of `posterior`. Its parameters are not laid yet."""
        widths = self.config["n_hidden"]
        activation = self.config["activation"]
        if self.channels:
            shape = self._image_shape()
            hidden, head = conv_encoder("encoder", shape, self.channels, widths, activation, self.n_classes)
        else:
            hidden, head = mlp("encoder", self.n_columns, widths, activation, reads_data=True)
        heads = [Chain([head(name, n)]) for name, n in posterior.outputs(self.n_latent).items()]
        return Encoder(posterior, Network(hidden, heads))

    def new_decoder(self, linear=Linear):
        """Return the decoder of `config`. Its parameters are not laid yet. `linear` makes its affine maps."""
        widths = self.config["n_hidden"]
        activation = self.config["activation"]
        n_in = self.n_latent + self.n_classes
        if self.channels:
            shape = self._image_shape()
            hidden, head = conv_decoder("decoder", n_in, shape, self.channels, widths, activation)
        else:
            hidden, head = mlp("decoder", n_in, widths, activation, linear=linear)
        links = getattr(self.likelihood, "links", {})
        heads = []
        for name in self.likelihood.outputs:
            heads.append(Chain([head(name, self.n_visible), *([links[name]()] if name in links else [])]))
        for name, n in getattr(self.likelihood, "shared", {}).items():
            heads.append(Chain([Constant(f"decoder.{name}", n)]))
        return Decoder(self.likelihood, Network(hidden, heads), self.n_classes)

    def _initialise(self, posterior):
        """Draw the initial values.

        One seed gives the same initial values whatever the posterior reads beside μ and log σ².
        """
        extra = [f"encoder.{name}." for name in posterior.outputs(self.n_latent) if name not in ("mu", "log_var")]
        for without in [(), extra] if extra else [()]:
            generator = np.random.default_rng(self.config["seed"])
            self.params.initialise(self.config["init"], generator, self.config["init_biases"], without)
        if hasattr(posterior, "start"):
            arrays = self.params.named(self.params.value)
            arrays = {name.removeprefix("encoder."): array for name, array in arrays.items()}
            try:
                posterior.start(arrays)
            except Exception as error:
                raise ValueError(
                    f"posterior {self.config.get('posterior', 'gaussian')}: start(arrays) failed "
                    f"({type(error).__name__}: {error}); the arrays are {', '.join(arrays)}"
                ) from error

    def _image_shape(self):
        """Return (height, width, channels) of the square images."""
        channels = self.config.get("image_channels", 1)
        side = math.isqrt(self.n_visible // channels)
        return side, side, channels

    # What training asks of a model

    def eps(self, generator, n):
        """Return the noise ε ~ N(0, I) behind the latents of n datapoints, (L, n, J), from NumPy's generator."""
        return standard_normal(generator, (self.n_samples, n, self.n_latent), self.dtype, self.backend)

    def noise(self, generator, n):
        """Return the noise that `bound` takes for n datapoints, from NumPy's generator.

        It is ε, or a tuple of the arrays that the objective names, such as (ε, z, u).
        """
        draws = {"eps": self.eps, "z": self._prior_draws, "u": self._pixel_noise}
        noise = tuple(draws[name](generator, n) for name in trait(self.estimator, "noise", ("eps",)))
        return noise if len(noise) > 1 else noise[0]

    def noise_of(self, noise, share):
        """Return the part of a minibatch's `noise` that belongs to a `Share` of its rows."""
        names = trait(self.estimator, "noise", ("eps",))
        parts = noise if len(names) > 1 else (noise,)
        parts = tuple(
            part[:, share.rows] if name == "eps" else part[share.rows]  # eps is (L, M, J), z (M, J) and u (M, D)
            for name, part in zip(names, parts, strict=True)
        )
        return parts if len(names) > 1 else parts[0]

    def weigh_kl(self, weight):
        """Let the KL count β times `weight` from now on in the gradient that `bound` leaves; a warm-up changes it."""
        self.estimator = with_weights(self.own["estimator"], self.beta * weight, self.free_bits)

    @one_thread
    def bound(self, x, noise, n_data, gradient=False, share=None):
        """Return the estimate (8) of the bound of n_data datapoints, in nats, summed over them.

        x          holds the minibatch, (M, D), whose rows stand for N/M datapoints each.
        noise      is what `noise` returns for M datapoints; its ε is (L, M, J).
        n_data     is N.
        gradient   says whether the gradient is left in params.grad; False unless given. With wake-sleep it holds the
                   gradients of the two phases.
        share      says that x and noise are a `Share` of a minibatch, whose M it knows; the bounds and the gradients of
                   all shares add up to those of the minibatch. None, the default, says that they are all of it.

        Shapes that do not fit each other and the model raise a ValueError, and so does an N that is no number > 0.
        """
        x = self.pixels(x)
        if share is not None and len(share) == 0:
            if self.free_bits and gradient:
                share.mean(self.params.grad[:0].reshape(0, self.n_latent))  # the other ranks wait for it
            self.params.grad[...] = 0
            return 0.0
        noise = self._checked_noise(noise, len(x))
        M = len(x) if share is None else share.of
        scale = positive("n_data", n_data) / M
        objective = self.estimator
        if self.free_bits and share is not None:
            objective = partial(objective, mean=share.mean)
        return objective(self.encoder, self.decoder, x, noise, scale, gradient)

    def log_prior(self):
        """Return log p(θ) = log N(θ; 0, I) in nats, or 0 with prior=False. Section 5 ascends (8) + log p(θ): MAP."""
        return log_standard_gaussian(self.params.value[self.theta], gradient=False)[0] if self.prior else 0.0

    def add_log_prior_gradient(self, part=slice(None)):
        """Add ∂log p(θ)/∂θ = -θ to the gradient that `bound` has left. With prior=False nothing is added.

        part is the slice of the flat vector to which it is added, all of it unless given.
        """
        if self.prior:
            theta = slice(max(self.theta.start, part.start or 0), part.stop)  # θ comes last
            gradient = self.params.grad[theta]
            gradient -= self.params.value[theta]

    @one_thread
    def lay_on(self, value, grad):
        """Move the parameters and their gradients into these two flat vectors, as into memory that ranks share."""
        self.params.lay_on(value, grad)

    @one_thread
    def terms(self, x, eps):
        """Return the two terms of (7), -KL(q(z|x) ‖ p(z)) and 1/L Σ_l log p(x|z⁽ˡ⁾), in nats per datapoint, (M,) each.

        x is (M, D), and eps (L, M, J). If the posterior has no KL in closed form, the first term is estimated from the
        L draws. An autoencoder returns 0 and log p(x|z) at its code, whose sum is no bound.
        """
        x = self.pixels(x)
        return trait(self.estimator, "terms", sgvb.terms)(self.encoder, self.decoder, x, self._eps(eps, len(x)))

    @one_thread
    def latents(self, x, eps):
        """Return z ~ q(z|x), (L, M, J), and log q(z|x) in nats, (L, M), for x (M, D) and eps (L, M, J)."""
        x = self.pixels(x)
        return self.encoder.draw(x, self._eps(eps, len(x), least=0))

    # What one does with a trained model

    @one_thread
    def encode(self, x):
        """Return the mean and the log variance of each latent under q(z|x) (9), (M, J) each, for x (M, D).

        With a flow they are those before the maps. A posterior of your own that has no `moments` raises a ValueError.
        """
        posterior = self.encoder.posterior
        if not can(posterior, "moments"):
            raise ValueError(
                f"the posterior {self.config['posterior']} has no moments: take encode_mean or encode_samples"
            )
        batches = _batches(self._images(x, stacklevel=4), self.rows_at_once())
        moments = [posterior.moments(*self.encoder.forward(self.pixels(rows))) for rows in batches]
        return tuple(np.concatenate(part) for part in zip(*moments, strict=True))

    def encode_mean(self, x):
        """Return the z of ε = 0, (M, J), which is the mean of q(z|x), for x (M, D).

        With a flow it is the mean before the maps, sent through them.
        """
        x = self._images(x, stacklevel=3)
        return self._encode_at(x, np.zeros_like(self.params.value, shape=(1, len(x), self.n_latent)))[0]

    def encode_samples(self, x, n_samples=1, seed=0):
        """Return draws z ~ q(z|x), (n_samples, M, J), for x (M, D).

        n_samples is the number of draws, 1 unless given. seed, a whole number ≥ 0, selects them; 0 unless given.
        """
        x = self._images(x, stacklevel=3)
        shape = whole("n_samples", n_samples), len(x), self.n_latent
        return self._encode_at(x, standard_normal(_seeded(seed), shape, self.dtype, self.backend))

    def labelled(self, x, y):
        """Return rows (M, D + C) of a conditional model: the pixels x (M, D), and behind them the label of each row.

        y holds the labels, whole numbers from 0 to C - 1, (M,) in host memory. A label is C numbers, of which the one
        that it names is white, 255 for uint8 and 1 for floats, and the others are 0. Without classes, and for labels
        that do not fit, a ValueError is raised.
        """
        x = self._shaped("x", x, self.n_visible)
        y = labels_of("y", y, len(x), self.n_classes)
        return np.concatenate([x, move(one_hot(y, self.n_classes, x.dtype), self.backend)], axis=1)

    @one_thread
    def decode(self, z, y=None):
        """Return E[x|z], (M, D), for z (M, J): a Bernoulli decoder's probabilities, or a Gaussian one's means.

        y, (M,) in host memory, holds the labels of a conditional model, which gives E[x|z, y]; None for another.
        """
        z = self._codes(z)
        batches = [_batches(rows, self.rows_at_once()) for rows in (z, self._classes(y, len(z)))]
        return np.concatenate([self.decoder.mean(rows, label) for rows, label in zip(*batches, strict=True)])

    @one_thread
    def draw(self, z, seed=0, y=None):
        """Return x ~ p(x|z), (M, D), for z (M, J); the pixels of a Bernoulli decoder are 0 or 1.

        seed, a whole number ≥ 0, selects the draws; 0 unless given. y is that of `decode`.
        """
        generator = _seeded(seed)
        parts = []
        z = self._codes(z)
        batches = [_batches(rows, self.rows_at_once()) for rows in (z, self._classes(y, len(z)))]
        for rows, label in zip(*batches, strict=True):
            noise = self._pixel_noise(generator, len(rows))
            parts.append(self.decoder.draw(rows, noise, label))
        return np.concatenate(parts)

    def simulate(self, n, seed=0):
        """Return n latents z ~ p(z), (n, J), and rows that the model makes of them, x ~ p(x|z), as it takes its data.

        A conditional model has the classes in turn. seed, a whole number ≥ 0, selects the draws; 0 unless given.
        """
        z = self._prior_draws(np.random.default_rng([whole("seed", seed, least=0), 1]), whole("n", n))
        if not self.n_classes:
            return z, self.draw(z, seed)
        y = np.arange(n) % self.n_classes
        return z, self.labelled(self.draw(z, seed, y), y)

    def reconstruct(self, x):
        """Return E[x|z] at `encode_mean`, (M, D), for x (M, D), or E[x|z, y] for rows of a conditional model."""
        return self.decode(self.encode_mean(x), self.labels(x))

    def labels(self, x):
        """Return the labels of rows x (M, D + C) of a conditional model, (M,) in host memory; None without classes."""
        return move(x[:, self.n_visible :].argmax(axis=1), "numpy") if self.n_classes else None

    def reconstruct_samples(self, x, n_samples=16, seed=0):
        """Return E[x|z⁽ˡ⁾] at draws z⁽ˡ⁾ ~ q(z|x), (n_samples, M, D), for x (M, D), or for rows of a conditional model.

        Their spread is what q leaves open about the image: `reconstruct_samples(x).mean(0)` and `.std(0)` are the
        reconstruction and its uncertainty, pixel by pixel. n_samples is the number of draws, 16 unless given. seed, a
        whole number ≥ 0, selects them; 0 unless given.
        """
        z = self.encode_samples(x, n_samples, seed)
        y = np.tile(self.labels(x), len(z)) if self.n_classes else None
        return self.decode(z.reshape(-1, self.n_latent), y).reshape(*z.shape[:2], self.n_visible)

    def sample(self, n, seed=0, y=None):
        """Return E[x|z], (n, D), for n latents from the prior z ~ N(0, I).

        seed, a whole number ≥ 0, selects them; 0 unless given. y (n,) holds the labels of a conditional model, which
        has the classes in turn, 0, 1, …, unless they are given.
        """
        z = self._prior_draws(_seeded(seed), whole("n", n))
        return self.decode(z, np.arange(n) % self.n_classes if y is None and self.n_classes else y)

    @one_thread
    def to(self, backend):
        """Return the same model with its parameters on another backend, or the model itself if it is there."""
        if backend == self.backend:
            return self
        model = type(self)(**self.config | self.own | {"backend": backend})
        model.n_samples = self.n_samples
        model.params.value[...] = move(self.params.value, backend)
        return model

    def working_memory(self, m):
        """Return about how many bytes a step on m datapoints takes beside parameters and data.

        They are what the layers keep, and what the widest of them needs while it is computed.
        """
        outputs = len(self.likelihood.outputs) + len(getattr(self.likelihood, "shared", {}))
        of_x = 2 + 4 * outputs + getattr(self.likelihood, "temporaries", 0)  # arrays as wide as x at once, for each z
        widths = self.config["n_hidden"]
        at_once = getattr(ACTIVATIONS[self.config["activation"]], "temporaries", 3)
        per_z = of_x * self.n_visible + 4 * sum(widths) + at_once * max(widths, default=0) + 2 * self.n_latent
        per_z += 6 * sum(self.encoder.posterior.outputs(self.n_latent).values())
        layers = self.encoder.layers + self.decoder.layers
        per_z += 2 * sum(layer.geometry.n_entries() for layer in layers if hasattr(layer, "geometry"))
        dreams = len(trait(self.estimator, "noise", ("eps",))) - 1  # if there are any, a second pass takes them
        return (self.n_samples * per_z + min(dreams, 1) * per_z + 2 * self.n_visible) * m * self.dtype.itemsize

    def rows_at_once(self):
        """Return how many datapoints are encoded or decoded at a time: 1,000, or as many as take some 256 MiB."""
        one = VAE.working_memory(self, 1) // max(self.n_samples, 1)
        return max(1, min(1000, (1 << 28) // one))

    def pixels(self, x):
        """Return rows x (M, D) in the model's dtype: uint8 pixels as x/255, and floats as they are.

        Other kinds and shapes raise a ValueError. So do values that are not finite or outside the support of the
        likelihood. `fit`, `evaluate` and the like have looked for these before they call the methods of the model, and
        no step looks again. On the device nothing is looked for, since that would wait for it.
        """
        x = own("x", x, self.backend)
        if self._looks():
            model_rows("x", x, self)
        if x.dtype == np.uint8:
            return _of_white(self._shaped("x", x, self.n_columns), dtype=self.dtype)
        if x.dtype.kind != "f":
            raise ValueError(f"x holds {x.dtype}; expected uint8 pixels, which are read as x/255, or floats")
        return self._rows(x, self.n_columns, "x")

    def _images(self, x, stacklevel):
        """Return rows x (M, D) as they are, with a warning where they are pixels that do not look like 0 to white."""
        x = self._shaped("x", x, self.n_columns)
        if self._looks():
            warn_if_dark("x", x[:, : self.n_visible], stacklevel, takes_unit(self.likelihood))
        return x

    def _classes(self, y, m):
        """Return the labels y of m codes as rows (m, C), which lie where the model does; without classes, (m, 0).

        Labels that do not fit, and any where the model has no classes, raise a ValueError.
        """
        if y is None and not self.n_classes:
            return np.zeros_like(self.params.value, shape=(m, 0))
        return move(one_hot(labels_of("y", y, m, self.n_classes), self.n_classes, self.dtype), self.backend)

    def _encode_at(self, x, eps):
        """Return the z of `latents`, which is called for some rows at a time."""
        size = self.rows_at_once()
        rows = _batches(x, size), _batches(eps.swapaxes(0, 1), size)
        return np.concatenate([self.latents(x, e.swapaxes(0, 1))[0] for x, e in zip(*rows, strict=True)], axis=1)

    def _checked_noise(self, noise, m):
        """Return `noise` as the objective takes it for m datapoints; shapes that do not fit raise a ValueError."""
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

    def _eps(self, noise, m, least=1):
        """Return ε in the model's dtype; a shape other than (L, m, J), and m below `least`, raise a ValueError."""
        if m < least:
            raise ValueError("x has no rows; expected one datapoint or more")
        noise = own("noise", noise, self.backend).astype(self.dtype, copy=False)
        if noise.ndim != 3 or noise.shape[1:] != (m, self.n_latent) or len(noise) == 0:
            raise ValueError(f"noise has shape {noise.shape}; expected (L, {m}, {self.n_latent}) with L ≥ 1")
        return finite("noise", noise) if self._looks() else noise

    def _looks(self):
        """Say whether the values of what is handed over are looked at.

        On the device they are not. Nor are they inside a function that holds the model, such as `fit`, which has looked
        at its rows before and is one level deeper than a method that is called from outside.
        """
        return self.backend == "numpy" and self.guard.depth < 2

    def _codes(self, z):
        """Return z (M, J) in the model's dtype; other shapes, and numbers that are not finite, raise a ValueError."""
        z = self._rows(z, self.n_latent, "z")
        return finite("z", z) if self._looks() else z

    def _prior_draws(self, generator, n):
        """Return n draws of p(z), (n, J)."""
        return standard_normal(generator, (n, self.n_latent), self.dtype, self.backend)

    def _pixel_noise(self, generator, n):
        """Return the noise that `decoder.draw` takes for n images, (n, D)."""
        return move(self.likelihood.noise(generator, (n, self.n_visible), self.dtype), self.backend)

    def _rows(self, rows, width, name):
        """Return rows in the model's dtype; a shape other than (M, width) raises a ValueError that names them."""
        return self._shaped(name, rows, width).astype(self.dtype, copy=False)

    def _shaped(self, name, rows, width):
        """Return rows as they are; a shape other than (M, width) raises a ValueError that names them."""
        rows = own(name, rows, self.backend)
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"{name} has shape {rows.shape}; expected (M, {width}), one datapoint per row")
        return rows


@fused
def _of_white(x, dtype):
    """Return uint8 pixels as x/255 in `dtype`."""
    return x.astype(dtype) / 255


def _batches(rows, size):
    """Return consecutive slices of at most `size` rows, so that memory does not grow with the number of datapoints."""
    return (rows[i : i + size] for i in range(0, max(len(rows), 1), size))


def _seeded(seed):
    """Return the generator of `seed`; unless that is a whole number ≥ 0, a ValueError is raised."""
    return np.random.default_rng(whole("seed", seed, least=0))
