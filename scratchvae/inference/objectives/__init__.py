"""The third door: the objective, which training ascends.

Equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes". An objective is a function

    objective(q, p, x, eps, scale, gradient=True)

It takes an encoder q and a decoder p (nets/heads.py), rows x (M, D), the noise eps (L, M, J) behind z, and scale, the
number of datapoints of the whole data set that each row stands for, which is N/M in (8). It returns the estimate of the
bound in nats, summed over the rows and times `scale`. With `gradient` it leaves the gradients of φ and θ in the windows
of q and p. It knows neither N nor M, so that a part of a minibatch is weighted like the whole. It uses

    z, log_qz = q.draw(x, eps)      z = g(ε, x), (L, M, J), and log q(z|x), (L, M)
    log_px = p.log_prob(x, z)       log p(x|z), (L, M)
    dz = p.backward(weight)         weight = ∂bound/∂log p(x|z): θ's gradient is left, and ∂bound/∂z comes back
    q.backward(dz, dlog_q)          φ's gradient is left, from ∂bound/∂z and ∂bound/∂log q

and, if its posterior has them (see `needs`),

    neg_kl = q.neg_kl()             -KL(q(z|x) ‖ p(z)) in closed form, (M,), of the last draw's x
    q.backward(dz, dneg_kl=weight)  the same for weight = ∂bound/∂(-KL), one number
    q.grad_z()                      ∇_z log q(z|x) at the last draw, with φ held, (L, M, J)

The function may have these attributes:

    needs           lists the methods that its posterior must have, such as ("neg_kl",).
    least_draws     is the least number of draws L that it can do with, if it is not 1.
    noise           lists the noise that it takes in the place of eps alone: a tuple of "eps", "z" and "u", where
                    z (M, J) is a draw of p(z) and u (M, D) the noise of a draw from p(x|z). `eps` is then a tuple of
                    these arrays. "eps" is always among them.
    surrogate       is a function (q, p, x, eps, scale, held_q, held_p) whose derivative is the gradient, for an
                    objective whose gradient is not the derivative of its value at fixed noise. held_q and held_p are
                    copies whose parameters stay as they are. `check_model` differentiates the surrogate.
    terms           is a function (q, p, x, eps) that returns the two terms of the bound, for an objective whose terms
                    are not those of `sgvb.terms`.
    weighted        is a function like a surrogate that takes `beta`, for an objective whose function takes `beta` too:
                    the KL counts `beta` times in the gradient, and in the value once. With `has_free_bits` = True both
                    take `free_bits` as well, and the objective `mean` (see `sgvb`).
    theta           is False if there is no bound over a posterior of θ (appendix F) with this objective.
    at_the_draws    is True if every term is taken at the draws, so that a distribution over θ is scored at its draw
                    too (21).
    bound           is False if its value is no bound on log p(x).
    together        is True if its value is a bound of all L draws together, under which (7) may fall while it rises.

`VAE(estimator=…)` takes a name from below, or a function of your own. To add an objective to the package, write a file
here, its formula in the oracle, and a line in `OBJECTIVES`.
"""

import functools

from scratchvae.inference.objectives.autoencoder import autoencoder
from scratchvae.inference.objectives.black_box import black_box
from scratchvae.inference.objectives.importance_weighted import dreg, importance_weighted
from scratchvae.inference.objectives.sgvb import sgvb_a, sgvb_b, stl
from scratchvae.inference.objectives.wake_sleep import wake_sleep

OBJECTIVES = {
    "A": sgvb_a,
    "B": sgvb_b,
    "stl": stl,
    "iwae": importance_weighted,
    "dreg": dreg,
    "wake-sleep": wake_sleep,
    "black-box": black_box,
    "autoencoder": autoencoder,
}


def with_weights(objective, beta=1.0, free_bits=0.0):
    """Return `objective` with the KL counting `beta` times in its gradient, and with free bits; see `sgvb`.

    Where there is nothing to change, the objective itself is returned. What is returned has as its surrogate the
    function that the gradient belongs to.
    """
    if beta == 1.0 and free_bits == 0.0:
        return objective
    settings = {"beta": beta} | ({"free_bits": free_bits} if free_bits else {})
    changed = functools.partial(objective, **settings)
    changed.surrogate = trait(objective, "weighted")
    return changed


def trait(objective, name, default=None):
    """Return an attribute of an objective, or of the function inside a `functools.partial`.

    name is the name of the attribute. If there is none, `default` is returned, which is None unless given.
    """
    return getattr(objective, name, getattr(getattr(objective, "func", None), name, default))
