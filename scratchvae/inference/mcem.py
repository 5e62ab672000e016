"""Monte Carlo EM (appendix E): no encoder. z comes from p(z|x) by Hamiltonian Monte Carlo, θ ascends log p(x, z) there.

    E   z ← a transition of `steps` leapfrog steps, from where the chain of this datapoint stood when it was last seen
    M   `updates` times θ ← θ + step(∇_θ N/M Σ log p(x, z)), with the same z

EM's E-step would average over the whole posterior; one draw of it in its place leaves the gradient right on average,
by Fisher's identity ∇_θ log p(x) = E_p(z|x) ∇_θ log p(x, z), for the first of the updates, and nearly so for the
others, as long as the chains keep up with θ.
"""

import numpy as np

from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.hmc import log_joint, transition

GAIN = 0.5  # nats of log stepsize for an acceptance that is off by one


def e_step(decoder, x, z, generator, log_stepsize, steps=10, acceptance=0.9, jitter=0.5):
    """One transition of the chains z (M, J) of x (M, D): (z, log_stepsize, rate), rate the mean probability to accept.

    θ moves, and so the stepsize, one for all chains, is tuned as long as they run: log ε ← log ε + GAIN (rate - aim).
    jitter as in `hmc.sample`.
    """
    target = log_joint(decoder, x)
    p, (u, v) = generator.standard_normal(z.shape, z.dtype), generator.random((2, len(z)), z.dtype)
    stepsize = z.dtype.type(np.exp(log_stepsize)) * (1 - z.dtype.type(jitter) * v[:, None])
    (z, _, _), rate, _ = transition(target, (z, *target(z)), p, u, stepsize, steps)
    rate = float(rate.mean())
    return z, log_stepsize + GAIN * (rate - acceptance), rate


def complete_data(decoder, x, z, n_data, gradient=True):
    """N/M Σ log p(x, z) in nats at z (M, J), and its gradient with respect to θ: what an M-step ascends."""
    scale = n_data / len(x)  # each datapoint stands for N/M of them                                                 (8)
    log_px = decoder.log_prob(x, z[None], gradient)[0]
    if gradient:
        decoder.backward(scale)  # z is given: the gradient goes no further than to it
    return scale * (log_px + log_standard_gaussian(z, gradient=False)[0]).sum()
