"""Monte Carlo EM trains a decoder without an encoder.

This is appendix E of Kingma & Welling, "Auto-Encoding Variational Bayes". The latents z come from p(z|x) by Hamiltonian
Monte Carlo, and θ ascends log p(x, z) at these z. The two steps are

    E   z ← one transition of `steps` leapfrog steps, from where the chain of this datapoint stood when last seen
    M   `updates` times θ ← θ + step(∇_θ N/M Σ log p(x, z)), with the same z each time

The E-step of EM would average over the whole posterior. One draw in its place leaves the gradient right on average, by
Fisher's identity ∇_θ log p(x) = E_p(z|x) ∇_θ log p(x, z). This holds for the first of the updates, and nearly so for
the others, as long as the chains keep up with θ.
"""

import numpy as np

from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.hmc import log_joint, transition
from scratchvae.ranks import ranks_of

GAIN = 0.5  # by how much log ε moves when the rate of acceptance is off by one


def e_step(decoder, x, z, generator, log_stepsize, steps=10, acceptance=0.9, jitter=0.5, comm=None):
    """Make one transition of the chains z (M, J) of the rows x (M, D), and return (z, log_stepsize, rate).

    log_stepsize is log ε, one number for all chains, and rate is their mean probability of acceptance. As θ moves, the
    right stepsize moves with it, so it is tuned for as long as the chains run: log ε ← log ε + GAIN (rate - aim), where
    acceptance is the aim, 0.9 as in the paper. generator is NumPy's; it gives the momentum and the uniform numbers.
    steps and jitter have the meaning and the defaults that they have in `hmc.sample`. comm is a communicator of mpi4py,
    whose ranks share the chains: each moves its own part of them, and all have the result. None, the default, is this
    process alone.

    Raises FloatingPointError where log p(x, z) or its gradient is not finite at the start of a chain, since the rate of
    such a chain would spoil the stepsize of all.
    """
    with ranks_of(comm) as ranks:
        M = len(x)
        mine = ranks.share(M).rows
        p = generator.standard_normal(z.shape, z.dtype)[mine]
        u, v = generator.random((2, M), z.dtype)[:, mine]
        stepsize = z.dtype.type(np.exp(log_stepsize)) * (1 - z.dtype.type(jitter) * v[:, None])
        z = z[mine]
        rate = np.zeros(0, z.dtype)
        if len(z):
            z, rate = _moved(log_joint(decoder, x[mine]), z, p, u, stepsize, steps)
        total = float(rate.mean()) if ranks.size == 1 else ranks.total([float(rate.sum())])[0] / M
        z = ranks.gathered(z, M)
    return z, log_stepsize + GAIN * (total - acceptance), total


def _moved(target, z, p, u, stepsize, steps):
    """Make a transition of chains z (M, J), and return where they are then and the rates of acceptance (M,)."""
    value, gradient = target(z)
    if bad := int((~(np.isfinite(value) & np.isfinite(gradient).all(axis=1))).sum()):
        raise FloatingPointError(
            f"log p(x, z) or its gradient is not finite for {bad:,} of {len(z):,} chains: try a smaller step size for θ"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # a trajectory that diverges is refused
        (z, _, _), rate, _ = transition(target, (z, value, gradient), p, u, stepsize, steps)
    return z, rate


def complete_data(decoder, x, z, n_data, gradient=True, rows=None):
    """Return N/M Σ log p(x, z) in nats, which an M-step ascends, for the rows x (M, D) at their latents z (M, J).

    n_data is N, the number of datapoints that the minibatch stands for. rows is M, the number of its rows, where x is a
    share of them; len(x) unless given. With gradient=True, the default, the gradient with respect to θ is left in the
    decoder's windows. z counts as given, so the gradient goes no further back than θ.
    """
    M = len(x) if rows is None else rows
    scale = n_data / M  # each datapoint stands for N/M of them                                                      (8)
    if len(x) == 0:  # of a rank for which the minibatch has no row
        for layer in decoder.layers:
            for name in layer.shapes:
                getattr(layer, "d" + name)[...] = 0
        return 0.0
    log_px = decoder.log_prob(x, z[None], gradient)[0]
    if gradient:
        decoder.backward(scale)  # ∂/∂θ N/M Σ log p(x|z); log p(z) does not depend on θ
    return scale * (log_px + log_standard_gaussian(z, gradient=False)[0]).sum()
