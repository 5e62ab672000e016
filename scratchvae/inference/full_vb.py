"""Appendix F: full variational Bayes, a bound over the parameters θ of the decoder as well as over the latents.

The equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes".

    log p_α(X) = KL(q(θ) ‖ p_α(θ|X)) + L,   the first term ≥ 0                                                      (13)
             L = E_q(θ)[log p_θ(X) + log p_α(θ) - log q(θ)]                                                         (14)
    log p_θ(X) = Σ_i log p_θ(x_i),   under the θ that was drawn bounded from below as in section 2            (15), (16)

Both expectations are taken over noise that does not depend on what is learned: z = g(ε, x) (17), (18) and θ = h(ζ)
(19), (20). With one ε and one ζ for a datapoint,

    f = N (log p_θ(x|z) + log p(z) - log q(z|x)) + log p_α(θ) - log q(θ)                                            (21)

is therefore a draw of the bound of all N datapoints, and its gradient is a draw of the gradient.

Here q(θ) = N(μ, σ²) and p_α(θ) = N(0, α²) elementwise, with α = 1 in (23). KL(q(θ) ‖ p_α(θ)) is taken in closed form
(24). It counts once for the whole data set, and neither N/M times nor L times. Let g = ∂bound/∂θ be the gradient of the
terms with N in (21), at the draw θ = μ + σ ⊙ ζ. Then

    ∂bound/∂μ = g - μ/α²          ∂bound/∂log σ = g ⊙ σ ⊙ ζ + 1 - σ²/α²

since ∂θ/∂μ = 1 and ∂θ/∂log σ = σ ζ. The backward pass of any objective leaves g for the decoder.

So a distribution over θ is no objective of its own: `over_theta` draws θ, calls an objective there, and adds the terms
of θ once. With L^A, and with every term at its draw, this is (21); with L^B, and with the Gaussian terms in closed
form, it is (24).
"""

import numpy as np

from scratchvae.backend import fused, kind
from scratchvae.shares import whole_of

THETA_NOISE = ("minibatch", "antithetic", "datapoint", "local")  # where ζ acts: see `models.full_vb.FullVB`
BLOCK = 1 << 15  # how many entries of θ the host takes at a time, so that what the lines below share stays in its cache


class Posterior:
    """q(θ) = N(μ, σ²) with the prior p_α(θ) = N(0, α²)   (23), as flat windows on the values that are learned.

    params   holds the arrays "decoder.…", which are μ, and the arrays "log_sigma.…" in the same order. P is the number
             of entries of each.
    theta    is the Params of the decoder that reads a draw of θ, or None if θ is not drawn.
    alpha    is α, the same for all entries, 1 unless given. With None each array has an α of its own, which is learned.
    """

    def __init__(self, params, theta, alpha=1.0):
        self.params = params
        self.theta = theta
        self.alpha = alpha
        mu = params.part("decoder.")
        log_sigma = params.part("log_sigma.")
        self.mu = params.value[mu]
        self.dmu = params.grad[mu]
        self.log_sigma = params.value[log_sigma]
        self.dlog_sigma = params.grad[log_sigma]
        inside = [where for name, (where, _) in params.windows.items() if name.startswith("decoder.")]
        self.arrays = [slice(where.start - mu.start, where.stop - mu.start) for where in inside]
        size = BLOCK if kind(self.mu) == "numpy" else self.mu.size
        self.blocks = [  # pairs of a slice of θ, which fits the cache, and the number of the array that it lies in
            (slice(i, min(i + size, where.stop)), k)
            for k, where in enumerate(self.arrays)
            for i in range(where.start, where.stop, size)
        ]

    def __reduce__(self):
        """Make a copy anew from its arguments, so that its windows lie on the vectors that are copied with it."""
        return Posterior, (self.params, self.theta, self.alpha)

    def alpha2(self):
        """Return α² of each array, as a list.

        A learned α² is mean(μ² + σ²) over the array. There ∂/∂α² of -½ Σ_k log α² + (μ_k² + σ_k²)/α² is 0, so it
        maximises the bound (type-II maximum likelihood). It is computed anew at each step and is no state of its own.
        Since ∂bound/∂α² = 0, it adds nothing to the gradient of μ and σ.
        """
        if self.alpha is not None:
            return [self.mu.dtype.type(self.alpha**2)] * len(self.arrays)
        return [(self.mu[k] ** 2 + np.exp(2 * self.log_sigma[k])).mean() for k in self.arrays]

    def draw(self, zeta, theta):
        """Write θ = h(ζ) = μ + σ ⊙ ζ   (19), (23) into the vector theta (P,), for the noise zeta (P,)."""
        for b, _ in self.blocks:
            theta[b] = Posterior.theta_of(self.mu[b], self.log_sigma[b], zeta[b])

    @staticmethod
    @fused
    def theta_of(mu, log_sigma, zeta):
        """Return θ = μ + σ ⊙ ζ   (19), (23)."""
        return mu + np.exp(log_sigma) * zeta

    def draw_backward(self, zeta, g):
        """Write ∂bound/∂μ and ∂bound/∂log σ into their windows, from g = ∂bound/∂θ (P,) at the noise zeta (P,)."""
        for b, _ in self.blocks:
            self.dmu[b] = g[b]  # ∂θ/∂μ = 1
            self.dlog_sigma[b] = Posterior.dlog_sigma_of(g[b], self.log_sigma[b], zeta[b])

    @staticmethod
    @fused
    def dlog_sigma_of(g, log_sigma, zeta):
        """Return ∂bound/∂log σ through θ."""
        return g * np.exp(log_sigma) * zeta  # ∂θ/∂log σ = σ ζ

    def neg_kl(self, gradient=False, rank=0, size=1):
        """Return -KL(q(θ) ‖ p_α(θ)) in nats.

        With gradient=True, which is not the default, its gradient is added to what the windows hold. Where there are
        `size` ranks, each takes every size-th block of θ, from its number `rank` on, so that their sum is the whole.
        """
        alpha2 = self.alpha2()
        total = 0.0
        for b, k in self.blocks[rank::size]:
            neg_kl, dmu, dlog_sigma = theta_neg_kl(self.mu[b], self.log_sigma[b], alpha2[k], gradient)
            total = total + neg_kl
            if gradient:
                self.dmu[b] += dmu
                self.dlog_sigma[b] += dlog_sigma
        return total


def theta_neg_kl(mu, log_sigma, alpha2, gradient=True):
    """Return -KL(q(θ) ‖ p_α(θ)), the last sum of (24), in nats, with its partials ∂/∂μ and ∂/∂log σ.

    -KL = ½ Σ_k 1 + log σ_k²/α² - (μ_k² + σ_k²)/α². mu and log_sigma are vectors (P,), and alpha2 is one α² for all of
    their entries. With gradient=False the partials are None.
    """
    sigma = np.exp(log_sigma)
    neg_kl = 0.5 * ((1 - np.log(alpha2)) * len(mu) + 2 * log_sigma.sum() - (mu @ mu + sigma @ sigma) / alpha2)
    if not gradient:
        return neg_kl, None, None
    return neg_kl, mu / -alpha2, 1 - sigma * sigma / alpha2  # ∂/∂μ = -μ/α²    ∂/∂log σ = 1 - σ²/α²: dσ²/dlog σ = 2σ²


def theta_log_ratio(theta, zeta, log_sigma, alpha2, gradient=True):
    """Return log p_α(θ) - log q(θ) at θ = μ + σ ⊙ ζ, in nats, with its partials ∂/∂θ and ∂/∂log σ.

    The ratio is Σ_k log σ_k - ½ log α² + ½ ζ_k² - ½ θ_k²/α², the last two terms of (21). The log 2π of the two
    densities cancels, and (θ - μ)²/σ² = ζ² does not depend on μ or σ. theta, zeta and log_sigma are vectors (P,), and
    alpha2 is one α² for all of their entries. With gradient=False the partials are None.
    """
    ratio = log_sigma.sum() + 0.5 * (zeta @ zeta - len(theta) * np.log(alpha2) - theta @ theta / alpha2)
    return (ratio, theta / -alpha2, 1.0) if gradient else (ratio, None, None)


def over_theta(objective, q, p, theta, x, eps, zeta, scale, gradient=True, closed=True, share=None):
    """Return the bound (22): `objective` at draws θ ~ q(θ), plus the terms of θ, which count once.

    With gradient=True, the default, the gradients of φ, μ and log σ are left in their windows.

    objective   is the objective, called with q, p, its rows of x and of eps, and scale, as `inference.objectives` says.
    q           is the encoder.
    p           is a decoder that reads the draw of θ.
    theta       is the `Posterior` of θ.
    x           holds the minibatch, (M, D).
    eps         is the noise behind z, (L, M, J).
    zeta        is the noise behind θ, (S, P), a draw for each M/S rows of x. S = 1 is one θ for the minibatch. S = M is
                Algorithm 2 as printed, in which every datapoint has an ε and a ζ of its own. With zeta = [ζ, -ζ] the
                draws are antithetic: the two halves of the minibatch see θ on either side of μ, and what is linear in ζ
                cancels between them.
    scale       is N/M.
    closed      says what the terms of θ are: -KL(q(θ) ‖ p_α(θ)), as in (24), which is the default, or
                log p_α(θ) - log q(θ) at the draw, as in (21).
    share       is the `Share` of a minibatch that x and eps hold; then M is that of the whole minibatch, and zeta is
                whole. None, the default, says that they hold all of it.
    """
    share = whole_of(len(x)) if share is None else share
    M = share.of
    S = min(len(zeta), M)
    bound = 0.0
    total = 0.0
    draws = [(s, share.within(s * M // S, (s + 1) * M // S)) for s in range(S)]
    draws = [(s, rows) for s, rows in draws if rows.stop > rows.start]
    for s, rows in draws:
        theta.draw(zeta[s], theta.theta.value)  # θ = h(ζ)                                                    (19), (23)
        bound = bound + objective(q, p, x[rows], eps[:, rows], scale, gradient)  # N (…)                      (21), (24)
        if not closed:  # log p_α(θ) - log q(θ)                                                                     (21)
            bound = bound + _at_the_draw(theta, zeta[s], (rows.stop - rows.start) / M, gradient)
        elif gradient:
            theta.draw_backward(zeta[s], theta.theta.grad)  # through θ: g for μ, and g ⊙ σ ⊙ ζ for log σ
        if gradient and len(draws) > 1:
            total = total + theta.params.grad
    if gradient and len(draws) != 1:
        theta.params.grad[...] = total
    return bound + theta.neg_kl(gradient, share.rank, share.size) if closed else bound  # -KL once for all N        (24)


def _at_the_draw(q, zeta, share, gradient):
    """Return share (log p_α(θ) - log q(θ)) at the θ that was drawn, and write the gradient of the bound   (21).

    q is the `Posterior` of θ, and share is the part of the minibatch that sees this θ. With `gradient` the gradient of
    this term is added to the one that the objective has left, and both go on to μ and log σ.
    """
    g = q.theta.grad
    alpha2 = q.alpha2()
    total = 0.0
    for b, k in q.blocks:
        ratio, dtheta, _ = theta_log_ratio(q.theta.value[b], zeta[b], q.log_sigma[b], alpha2[k], gradient)
        total = total + ratio
        if gradient:
            g[b] += share * dtheta  # through log p_α(θ)
    if gradient:
        q.draw_backward(zeta, g)  # through θ
        q.dlog_sigma += share  # through -log q, which depends on log σ alone: ∂/∂log σ = 1
    return share * total


def over_theta_of_rows(objective, q, p, theta, x, eps, zeta, scale, gradient=True, share=None):
    """Return the bound (24), in which each row of x has a θ of its own that is never drawn as a whole.

    The decoder's affine maps are `LocalLinear` (Kingma, Salimans & Welling 2015, "Variational Dropout and the Local
    Reparameterization Trick"): they draw the sums of their pre-activations and not the weights. They write what comes
    to μ and log σ through θ into the windows of `theta` themselves. zeta (L M, units) has a column for each of their
    outputs. The other arguments, and the gradient, are those of `over_theta`.
    """
    share = whole_of(len(x)) if share is None else share
    start = 0
    for layer in p.local:
        layer.zeta = zeta[:, start : start + layer.n_out]
        start += layer.n_out
    if len(share) == 0:
        bound = 0.0
        theta.params.grad[...] = 0
    else:
        bound = objective(q, p, x, eps, scale, gradient)  # N (-KL(q(z|x) ‖ p(z)) + log p(x|z))                     (24)
    return bound + theta.neg_kl(gradient, share.rank, share.size)  # -KL(q(θ) ‖ p_α(θ)) once for all N              (24)
