"""The training steps that are measured: their sizes and models, and what one of them does.

A step is all that Algorithm 1 of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), does with a minibatch of
uint8 pixels: noise, bound, gradient, and an update by Adagrad with the prior of θ. Unless a workload says otherwise the
model is the paper's, D-H-J-H-D with tanh and Bernoulli pixels, and L = 1. The pixels are random, and a fifth of them is
not black.
"""

import math
from dataclasses import asdict, dataclass, fields
from functools import partial

import numpy as np

from scratchvae.backend import keep_freed_memory, move
from scratchvae.doors import likelihood_of, posterior_of
from scratchvae.models.full_vb import FullVB
from scratchvae.models.vae import VAE
from scratchvae.nets.conv import KERNEL, Geometry
from scratchvae.ranks import ranks_of
from scratchvae.training.loop import STEP, stream
from scratchvae.training.optim import Adagrad
from scratchvae.training.parallel import update_by

MINIBATCHES = 10  # how many different minibatches the steps take in turn

MODELS = {  # the models that a step can train
    "vae": VAE,
    "full-vb": FullVB,
    "full-vb-local": partial(FullVB, theta_noise="local"),
}
OF_MODEL = ("channels", "posterior", "flow", "likelihood", "estimator", "n_samples")  # arguments of the model


@dataclass(frozen=True)
class Workload:
    """One training step: its sizes and its model.

    backend is "numpy" or "cupy", and dtype "float32" or "float64". n_visible is D. n_hidden is H, the number of hidden
    units in the encoder and in the decoder, or a tuple with the width of each hidden layer, which is () for no hidden
    layer. n_latent is J and batch_size is M. model is a name in MODELS. threads is the number of BLAS threads with
    which the step is made; None, the default, leaves those that the process has. channels, posterior, flow, likelihood,
    estimator and n_samples are those of `VAE`, and have its defaults.
    """

    backend: str = "numpy"
    dtype: str = "float32"
    n_visible: int = 784
    n_hidden: int | tuple = 500
    n_latent: int = 20
    batch_size: int = 100
    model: str = "vae"
    threads: int | None = None
    channels: tuple = ()
    posterior: str = "gaussian"
    flow: int = 0
    likelihood: str = "bernoulli"
    estimator: str | None = None
    n_samples: int = 1

    def as_row(self):
        """Return the fields as a dict that JSON can hold; from `threads` on, only those that are not the defaults.

        A file of results therefore looks as it did before there were these fields.
        """
        return {key: value for key, value in asdict(self).items() if key not in LATER or value != LATER[key]}

    def products(self):
        """Return the affine maps of one pass through encoder and decoder, a list of (rows, n_in, n_out, inner).

        `rows` is the number of rows that are mapped, n_in x n_out is the shape of W, and `inner` says whether the
        gradient of the input is needed. A convolution maps the rows of its patches. With local reparameterisation the
        decoder's maps occur twice, since their variances are products of the same sizes. Wake-sleep goes
        through its networks a second time, and the products of that are not listed.
        """
        maps, shapes = self._encoder()
        decoder = self._decoder(shapes)
        return maps + decoder * (2 if self.model == "full-vb-local" else 1)

    def _widths(self):
        """Return the widths of the hidden layers as a list."""
        return list(self.n_hidden) if isinstance(self.n_hidden, tuple | list) else [self.n_hidden]

    def _encoder(self):
        """Return the encoder's maps, and the shapes (H, W, C) of the images before and after each convolution."""
        side = math.isqrt(self.n_visible)
        shapes = [(side, side, 1)]
        maps = []
        for n_out in self.channels:
            kernel = Geometry(shapes[-1], **KERNEL)
            rows = self.batch_size * math.prod(kernel.positions)
            maps.append((rows, math.prod(kernel.patch), n_out, bool(maps)))
            shapes.append((*kernel.positions, n_out))
        width = math.prod(shapes[-1]) if self.channels else self.n_visible
        for n_out in self._widths():
            maps.append((self.batch_size, width, n_out, bool(maps)))
            width = n_out
        inner = bool(maps)  # without any layer before them the heads read the data
        outputs = posterior_of(self.posterior, self.flow, self.n_latent)[0].outputs(self.n_latent)
        return maps + [(self.batch_size, width, n_out, inner) for n_out in outputs.values()], shapes

    def _decoder(self, shapes):
        """Return the decoder's maps, whose transposed convolutions lead to images of `shapes`, from last to first."""
        rows = self.n_samples * self.batch_size
        widths = self._widths() + ([math.prod(shapes[-1])] if self.channels else [])
        n_in = [self.n_latent, *widths]
        maps = [(rows, a, b, True) for a, b in zip(n_in, widths, strict=False)]
        heads = len(likelihood_of(self.likelihood, "sigmoid", self.n_visible)[0].outputs)
        if not self.channels:
            return maps + [(rows, n_in[-1], self.n_visible, True)] * heads
        for k in reversed(range(len(self.channels))):
            kernel = Geometry(shapes[k], **KERNEL)
            one = (rows * math.prod(kernel.positions), self.channels[k], math.prod(kernel.patch), True)
            maps += [one] * (heads if k == 0 else 1)
        return maps

    def flops(self):
        """Return how many floating-point operations the products of `products` make; no others are counted."""
        return sum(2 * rows * a * b * (3 if inner else 2) for rows, a, b, inner in self.products())


LATER = {field.name: field.default for field in fields(Workload) if field.name in ("threads", *OF_MODEL)}

SIZES = {  # the sizes of the sweep: while one of them varies, the others are the paper's
    "batch_size": [20, 50, 100, 200, 500, 1000, 2000],
    "n_hidden": [100, 200, 500, 1000, 2000],
    "n_latent": [2, 20, 200],
    "n_visible": [196, 784, 3136],
}
PAPER = {name: getattr(Workload, name) for name in SIZES}


def of_row(row):
    """Return the Workload that a row of results was measured with; a row may be one that JSON gave back."""
    known = {field.name for field in fields(Workload)}
    return Workload(**{key: tuple(x) if isinstance(x, list) else x for key, x in row.items() if key in known})


def sweep(backends, dtypes, sizes, models=("vae",), threads=(None,), **same):
    """Return the workloads of a sweep, in which one size varies at a time and the others are those of the start.

    backends   lists backends, and dtypes precisions; every combination is swept.
    sizes      gives the values of the sizes that vary: a dict with some of the keys "batch_size", "n_hidden",
               "n_latent" and "n_visible". A size starts from the paper's value, or from the first of its values if the
               paper's is not among them.
    models     lists names in MODELS. The first is swept over all sizes, and the others only measured at the start.
    threads    lists numbers of BLAS threads, with each of which every workload is measured. (None,), the default,
               leaves those that the process has.
    same       are other fields of a Workload, such as flow, that all of them have.
    """
    base = PAPER | {name: values[0] for name, values in sizes.items() if PAPER[name] not in values}
    works = [
        Workload(backend, dtype, **base | {name: value}, model=model, threads=n, **same)
        for backend in backends
        for dtype in dtypes
        for model in models
        for name, values in sizes.items()
        for value in (values if model == models[0] else [base[name]])
        for n in threads
    ]
    return list(dict.fromkeys(works))  # the start is among the values of every size


def minibatches(workload, count=MINIBATCHES):
    """Return `count` minibatches of random uint8 pixels in host memory, (count, M, D)."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 256, (count, workload.batch_size, workload.n_visible), dtype=np.uint8)
    return x * (generator.random(x.shape, np.float32) < 0.2)


class TrainingStep:
    """Is called as step(t, x): it makes training step t and returns its bound, which is not read yet.

    x (M, D) holds pixels and lies where the model does. model is the model that is trained, and the step holds it as
    `fit` does. n_data is N, the number of datapoints for which the bound is scaled; it does not affect the cost. comm
    is a communicator of mpi4py, whose ranks share x and the update; None, the default, is this process alone. The step
    then stays on these ranks for as long as the process lives.
    """

    def __init__(self, model, n_data, comm=None):
        self.model = model
        self.n_data = n_data
        self.ranks = ranks_of(comm)
        self.optimizer = Adagrad(0.01)
        self.of_ranks = update_by(self.ranks, model, self.optimizer, [slice(None)])
        self.update = self.of_ranks.__enter__()
        self.optimizer.start(model.params)

    def noise(self, t, m):
        """Return the noise of step t for m datapoints."""
        return self.model.noise(stream(0, STEP, t), m)

    def __call__(self, t, x):
        share = self.ranks.share(len(x))
        noise = self.model.noise_of(self.noise(t, len(x)), share)
        with self.model.guard:  # as in `fit`, nobody looks at the pixels again
            bound = self.model.bound(x[share.rows], noise, self.n_data, gradient=True, share=share)
        bound = self.ranks.meet(bound)[0]
        self.update.ascend(t + 1, slice(None))
        self.ranks.meet()
        return bound


def training_step(workload, n_data=50_000, comm=None):
    """Return the `TrainingStep` of a workload, with a model at its initial values."""
    keep_freed_memory()  # as `fit` does
    return TrainingStep(model_of(workload), n_data, comm)


def model_of(workload):
    """Return the model of a workload at its initial values; what the model does not take raises a ValueError."""
    sizes = (workload.n_visible, workload.n_hidden, workload.n_latent)
    given = workload.as_row()
    settings = {name: given[name] for name in OF_MODEL if name in given}
    return MODELS[workload.model](*sizes, dtype=workload.dtype, backend=workload.backend, **settings)


def matrix_products(workload):
    """Return a function of t, which it ignores, that makes only the step's matrix products, into existing arrays."""
    calls = []
    for rows, n_in, n_out, inner in workload.products():
        x, W, dy = (
            move(np.random.default_rng(0).standard_normal(shape).astype(workload.dtype), workload.backend)
            for shape in ((rows, n_in), (n_in, n_out), (rows, n_out))
        )
        calls += [(x, W, np.empty_like(dy)), (x.T, dy, np.empty_like(W))]
        calls += [(dy, W.T, np.empty_like(x))] if inner else []

    def products(t):
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return products
