"""The update of the parameters by several processes, the ranks of MPI, which share each minibatch.

The bound (8) of Kingma & Welling, "Auto-Encoding Variational Bayes", is a sum over the rows of a minibatch. At step t
each rank takes its rows of the same minibatch and of the same noise, which are functions of (seed, t), and leaves the
gradient of their bound. The gradients are summed, and never averaged, since each row stands for N/M datapoints of the
whole data set, whoever takes it. Each rank owns a part of the flat vector of parameters:

    1.  rank r leaves g_r, the gradient of its rows
    2.  the owner of a part adds up g = Σ_r g_r there, its own first and then those of the others in their order
    3.  it adds the gradient of log p(θ), which counts once, and updates the part with the optimiser's state of the part
    4.  every rank has the new values of all parts

Since the order of the sum is fixed, P ranks give the same bits every time. They differ from those of another P by
rounding alone.

On one machine the vectors lie in memory that the ranks share: an owner reads the gradients of the others where they
are, and writes its values where all read them. Between machines the parts are sent, and the bits are the same. On
devices NCCL sums the gradients, in an order of its own, and every rank makes the whole update.
"""

import contextlib
import copy
import math
import warnings

import numpy as np

from scratchvae.backend import between_devices, cores, move
from scratchvae.shares import Share, part_of
from scratchvae.training.optim import BLOCK, Optimizer

PAGE = 4096  # bytes; each vector begins at a page of its own


class Update:
    """The update by one process: the gradient of log p(θ), and the optimiser."""

    def __init__(self, model, optimizer):
        self.model = model
        self.optimizer = optimizer

    def begin(self, now, more=()):
        """Return where the run stands. more lists other arrays, in host memory, that it goes on from."""
        return now

    def ascend(self, step, part):
        """Make update number `step` of a part of the parameters with the gradient that `bound` has left."""
        self.model.add_log_prior_gradient()  # g: plus the gradient of log p(θ)
        self.optimizer.ascend(self.model.params, step, part)  # θ, φ: update with g

    def collect(self):
        """Make the optimiser's state whole, which it always is."""


class DeviceUpdate(Update):
    """The update by several ranks, each on a device of its own: NCCL sums the gradients, and no rank waits for it."""

    def __init__(self, ranks, model, optimizer):
        super().__init__(model, optimizer)
        self.ranks = ranks
        self.devices = between_devices(ranks)

    def begin(self, now, more=()):
        """Give all ranks what the first has read, see `SharedUpdate`."""
        self.ranks.meet()
        now = self.ranks.comm.bcast(now)
        for vector in (self.model.params.value, *self.optimizer.state.values()):
            self.devices.broadcast(vector, 0)
        for array in more:
            self.ranks.comm.Bcast(array)
        return now

    def ascend(self, step, part):
        """Make update number `step` of a part of the parameters with the sum of the gradients of all ranks."""
        g = self.model.params.grad[part]
        self.devices.all_reduce(g, g)  # g = Σ_r g_r
        super().ascend(step, part)


class SharedUpdate:
    """The update by several ranks, each of which updates the part of the parameters that it owns.

    ranks       are the `Ranks`.
    model       is the model, whose gradient is that of this rank's rows.
    optimizer   is the optimiser. On each rank its state is right in the part that the rank owns, and `collect` makes it
                whole on the first.
    parts       lists the slices of the flat vector that are updated by themselves. Each of them is divided among the
                ranks.
    grads       lists the gradients of all ranks, where they share their memory; None where they do not.
    """

    def __init__(self, ranks, model, optimizer, parts, grads=None):
        self.ranks = ranks
        self.model = model
        self.optimizer = optimizer
        self.grads = grads
        largest = max(own.stop - own.start for part in parts for own in self._owned(part))
        self.received = None if grads else np.empty((ranks.size, largest), model.params.grad.dtype)
        self.owned = {(part.start, part.stop): self._owned(part) for part in parts}

    def _owned(self, part):
        """Return for each rank the slice of the flat vector that it owns of a part."""
        start, stop, _ = part.indices(self.model.params.value.size)
        ends = (part_of(stop - start, rank, self.ranks.size) for rank in range(self.ranks.size))
        return [slice(start + first, start + last) for first, last in ends]

    def begin(self, now, more=()):
        """Give all ranks what the first has read: where the run stands, the parameters and the optimiser's state.

        more lists other arrays, in host memory, that the run goes on from; none unless given.
        """
        self.ranks.meet()
        now = self.ranks.comm.bcast(now)
        for array in (self.model.params.value, *self.optimizer.state.values(), *more):
            self.ranks.comm.Bcast(array)
        return now

    def ascend(self, step, part):
        """Make update number `step` of a part of the parameters with the sum of the gradients of all ranks.

        The ranks meet before it, when all have left their gradients, and after it, when all values are there.
        """
        params = self.model.params
        owned = self.owned[part.start, part.stop]
        own = owned[self.ranks.rank]
        theirs = self._received(params.grad, owned)
        del theirs[self.ranks.rank]
        for start in range(own.start, own.stop, BLOCK):
            block = slice(start, min(start + BLOCK, own.stop))
            g = params.grad[block]
            for vector in theirs:
                g += vector[start - own.start :][: len(g)]  # g = Σ_r g_r
            self.model.add_log_prior_gradient(block)  # g: plus the gradient of log p(θ), once
            self.optimizer.ascend(params, step, block)  # θ, φ: update with g
        if self.grads is not None:
            return
        sent = params.value[own].copy()
        self.ranks.meet()
        self.ranks.comm.Allgatherv(sent, [params.value, _places(owned)])

    def _received(self, grad, owned):
        """Return a list of what each rank has, in its gradient, of the part that this rank owns."""
        own = owned[self.ranks.rank]
        if self.grads is not None:
            return [vector[own] for vector in self.grads]
        width = own.stop - own.start
        received = self.received.reshape(-1)[: self.ranks.size * width].reshape(self.ranks.size, width)
        there = [width] * self.ranks.size, [width * rank for rank in range(self.ranks.size)]
        self.ranks.comm.Alltoallv([grad, _places(owned)], [received, there])
        return list(received)

    def collect(self):
        """Make the optimiser's state whole on the first rank, for a checkpoint."""
        rank = self.ranks.rank
        sent = [
            (vector[owned[rank]].copy(), [vector, _places(owned)] if self.ranks.first else None)
            for vector in self.optimizer.state.values()
            for owned in self.owned.values()
        ]
        self.ranks.meet()
        for own, whole in sent:
            self.ranks.comm.Gatherv(own, whole)


@contextlib.contextmanager
def update_by(ranks, model, optimizer, parts):
    """Give the `Update` of a model by these ranks, or by this process alone.

    Where all ranks are on one machine, the parameters of the model lie in shared memory inside `with`.

    optimizer   is started inside `with`, before the first update.
    parts       lists the slices of the flat vector that are updated by themselves.
    """
    if ranks.size == 1:
        yield Update(model, optimizer)
        return
    if model.backend != "numpy":
        yield DeviceUpdate(ranks, model, optimizer)
        return
    if ranks.on_machine < ranks.size:
        yield SharedUpdate(ranks, model, optimizer, parts)
        return
    before = model.params.value, model.params.grad
    value, grads = _shared(ranks, model.params.value)
    model.lay_on(value, grads[ranks.rank])
    try:
        ranks.meet()  # from here on nobody writes to the values of others
        yield SharedUpdate(ranks, model, optimizer, parts, grads)
        ranks.meet()  # nobody writes any more
    except GeneratorExit:  # the process has ended without leaving `with`, and nobody is there to be told
        raise
    except BaseException as error:
        ranks.tell(error)  # nor does anybody after this
        raise
    finally:
        model.lay_on(*before)


def _shared(ranks, vector):
    """Return the parameters, and a list of the gradients of all ranks, in memory that the ranks share.

    All of them have the size and the type of `vector`.
    """
    n_bytes = -(-vector.nbytes // PAGE) * PAGE
    memory = ranks.memory((1 + ranks.size) * n_bytes)
    vectors = [np.frombuffer(memory, vector.dtype, vector.size, offset=k * n_bytes) for k in range(1 + ranks.size)]
    return vectors[0], vectors[1:]


def _places(slices):
    """Return how many numbers each of the slices has, and where it begins."""
    return [s.stop - s.start for s in slices], [s.start for s in slices]


def require_sum_over_rows(model, train):
    """Raise a ValueError unless the bound of two rows of `train`, and its gradient, are the sums of those of each.

    They are not if a layer, a posterior or an objective of the user's lets the rows of a minibatch act on each other.
    The shares of the ranks would then not add up to the minibatch. It is a copy of the model that is tried.
    """
    if len(train) < 2:
        return
    model = copy.deepcopy(model)
    model.free_bits = 0.0  # the mean under which they have a floor is taken by all ranks together
    model.weigh_kl(1.0)
    x = move(train[:2], model.backend)
    noise = copy.deepcopy(model).noise(np.random.default_rng(0), 2)
    with np.errstate(all="ignore"):
        bound, gradient = _of_two_rows(model, x, noise)
        size = float(np.linalg.norm(gradient))
        largest = abs(bound)
        for rank in range(2):
            part, its_gradient = _of_two_rows(model, x, noise, Share(rank, rank + 1, 2, rank, 2))
            bound -= part
            largest = max(largest, abs(part))
            gradient -= its_gradient
        off = float(np.linalg.norm(gradient))
    if not math.isfinite(size) or not math.isfinite(largest):  # the training says so
        return
    if not (off <= 1e-3 * size and abs(bound) <= 1e-3 * largest):
        raise ValueError(
            "the rows of a minibatch act on each other in this model, so that ranks cannot share them: the gradient of "
            f"two rows differs from the sum of theirs by {off:.2g}, of {size:.2g}, and the bound by {bound:.2g} nats; "
            "train it in one process"
        )


def _of_two_rows(model, x, noise, share=None):
    """Return the bound of two rows, or of a share of them, and its gradient, from a copy of the model.

    An objective that counts its calls is thus the same in each of them.
    """
    model = copy.deepcopy(model)
    if share is not None:
        x = x[share.rows]
        noise = model.noise_of(noise, share)
    bound = float(model.bound(x, noise, 2, gradient=True, share=share))
    return bound, np.array(move(model.params.grad, "numpy"))


def warn_of_threads(ranks, model):
    """Warn where the ranks of a machine have more threads of BLAS than it has cores, which then wait for each other."""
    from threadpoolctl import threadpool_info

    threads = max((library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"), default=1)
    if model.backend == "numpy" and ranks.first and threads > 1 and threads * ranks.on_machine > cores():
        warnings.warn(
            f"{ranks.on_machine} ranks with {threads} BLAS threads each share {cores()} cores, and will wait for each "
            "other: set OPENBLAS_NUM_THREADS=1 before mpiexec",
            stacklevel=3,
        )


def require_entrywise(optimizer):
    """Raise a ValueError unless an optimiser updates each part of the parameters by itself, as those of the package do.

    One with an `ascend` of its own may look at the whole gradient, as to clip its norm, and no rank has that.
    """
    if getattr(type(optimizer), "ascend", None) is not Optimizer.ascend:
        raise ValueError(
            f"the optimiser {type(optimizer).__name__} has an ascend of its own, and on ranks each updates a part "
            "of the parameters: write `update` of scratchvae.training.optim.Optimizer, or train in one process"
        )
