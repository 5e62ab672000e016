"""The third door: the objective, what training ascends.

An objective is a function

    objective(q, p, x, eps, scale, gradient=True)

of an encoder q and a decoder p (nets/heads.py), rows x (M, D), noise eps (L, M, J) behind z, and scale, how many
datapoints of the whole data set each row stands for: N/M in (8). It returns the estimate of the bound in nats, summed
over the rows and times `scale`; and with `gradient` it leaves the gradients of φ and θ in the windows of q and p. It
knows neither N nor M, so that a part of a minibatch is weighted as the whole.

    z, log_qz = q.draw(x, eps)      z = g(ε, x), (L, M, J), and log q(z|x), (L, M)
    log_px = p.log_prob(x, z)       log p(x|z), (L, M)
    dz = p.backward(weight)         weight = ∂bound/∂log p(x|z): θ's gradient is left, and ∂bound/∂z comes back
    q.backward(dz, dlog_q)          φ's gradient is left, from ∂bound/∂z and ∂bound/∂log q

The function may have attributes that say more:

    needs       names of methods that its posterior must have, such as ("neg_kl",)
    noise       which noise it takes, in the place of eps alone: a tuple of "eps", "z" and "u", where z (M, J) is a
                draw of p(z) and u (M, D) the noise of a draw from p(x|z). Then `eps` is a tuple of these arrays
    surrogate   a function (q, p, x, eps, scale, held_q, held_p) whose derivative is the gradient, where that is not the
                derivative of the value at fixed noise. held_q and held_p are copies whose parameters are not moved:
                `check_model` differentiates it by differences
    terms       the two terms of the bound as `sgvb.terms` gives them, for an objective that has others
    theta       False where there is no bound over a posterior of θ (appendix F) with it
    at_the_draws  True where every term is at the draws, so that a distribution over θ is scored at its draw too (21)
    bound       False where its value is no bound on log p(x)

`VAE(estimator=…)` takes a name from below, or a function of your own. Adding one to the package is a file here, its
formula in the oracle, and a line in `OBJECTIVES`.
"""

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


def trait(objective, name, default=None):
    """An attribute of an objective, or of the function inside a `functools.partial`; `default` where it has none."""
    return getattr(objective, name, getattr(getattr(objective, "func", None), name, default))
