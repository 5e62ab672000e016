"""The weight of the KL during a training: from 0 to 1 in steps of one minibatch, once or in cycles.

Early in a training the decoder makes nothing of z, and then the KL alone decides: it is least where q(z|x) is the
prior, and a latent that has come there carries nothing, so that the decoder goes on without it. With a warm-up the
latents are in use before they cost anything (Bowman, Vilnis, Vinyals, Dai, Jozefowicz & Bengio 2016, "Generating
Sentences from a Continuous Space").
"""

import contextlib

from scratchvae.arguments import whole
from scratchvae.doors import require_weights


def kl_weight(samples, warmup, cycles=1):
    """Return the weight of the KL after so many samples, a number from 0 to 1.

    It rises in a straight line during `warmup` samples and then stays at 1 for as many. That happens `cycles` times,
    and then it stays at 1.
    """
    if samples >= 2 * warmup * cycles:
        return 1.0
    return min(1.0, samples % (2 * warmup) / warmup)


def checked_warmup(model, warmup, cycles):
    """Return (warmup, cycles); a ValueError is raised where they do not fit, or where the objective has no KL."""
    cycles = whole("kl_cycles", cycles)
    if warmup is None:
        if cycles > 1:
            raise ValueError(f"kl_cycles is {cycles}, which repeats a warm-up of the KL: give kl_warmup too")
        return None, cycles
    require_weights(model.own["estimator"], model.config["estimator"], "kl_warmup")
    return whole("kl_warmup", warmup), cycles


@contextlib.contextmanager
def warming(model, warmup, cycles):
    """Give a function that sets the weight of the KL after so many samples; at the end it is 1 again."""
    if warmup is None:
        yield lambda samples: None
        return
    try:
        yield lambda samples: model.weigh_kl(kl_weight(samples, warmup, cycles))
    finally:
        model.weigh_kl(1.0)
