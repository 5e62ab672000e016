"""Appendix F: full variational Bayes, a bound over the parameters θ of the decoder as well as the latents.

The equations are those of Kingma & Welling, "Auto-Encoding Variational Bayes".

    log p_α(X) = KL(q(θ) ‖ p_α(θ|X)) + L,   the first term ≥ 0                                                      (13)
             L = E_q(θ)[log p_θ(X) + log p_α(θ) - log q(θ)]                                                         (14)
    log p_θ(X) = Σ_i log p_θ(x_i),   under the θ that was drawn bounded from below as in section 2            (15), (16)

Both expectations are over noise that knows nothing of what is learned: z = g(ε, x) (17), (18) and θ = h(ζ) (19), (20).
So with one ε and one ζ for a datapoint,

    f = N (log p_θ(x|z) + log p(z) - log q(z|x)) + log p_α(θ) - log q(θ)                                            (21)

is a draw of the bound of all N, and its gradient a draw of the gradient. Here q(θ) = N(μ, σ²) and p_α(θ) = N(0, α²)
elementwise, with α = 1 in (23). With g = ∂bound/∂θ at the draw θ = μ + σ ⊙ ζ, of the terms with N in (21), and the
closed KL(q(θ) ‖ p_α(θ)) of (24), which counts once for the whole data set, never N/M times and never L times,

    ∂bound/∂μ = g - μ/α²          ∂bound/∂log σ = g ⊙ σ ⊙ ζ + 1 - σ²/α²

since ∂θ/∂μ = 1 and ∂θ/∂log σ = σ ζ. g is what the backward pass of any objective leaves for the decoder.

So a distribution over θ is no objective of its own: `over_theta` draws θ, calls an objective there, and adds what
belongs to θ once. With L^A, and every term at its draw, that is (21); with L^B, and the Gaussian terms in closed
form, (24).
"""

import numpy as np

from scratchvae.backend import kind

THETA_NOISE = ("minibatch", "antithetic", "datapoint", "local")  # where ζ acts: see `models.full_vb.FullVB`
BLOCK = 1 << 15  # entries of θ that are taken at a time on the host: what the lines below share stays in the cache


class Posterior:
    """q(θ) = N(μ, σ²) with prior p_α(θ) = N(0, α²)   (23): flat windows on the values that are learned.

    params holds arrays "decoder.…", which are μ, and "log_sigma.…" in the same order. theta is the Params of the
    decoder that reads a draw, None if none is drawn. alpha is α, the same for all, or None: each array has its own,
    learned.
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
        self.blocks = [  # (slice of θ, the number of the array that it lies in): what fits the cache
            (slice(i, min(i + size, where.stop)), k)
            for k, where in enumerate(self.arrays)
            for i in range(where.start, where.stop, size)
        ]

    def __reduce__(self):
        """A copy is made anew, with windows on the vectors that are copied with it."""
        return Posterior, (self.params, self.theta, self.alpha)

    def alpha2(self):
        """α² of each array. Learned it is mean(μ² + σ²) over the array, the maximum of the bound:

        ∂/∂α² of -½ Σ_k log α² + (μ_k² + σ_k²)/α² is 0 there (type-II maximum likelihood). It is worked out anew at each
        step, so it is no state of its own; and ∂bound/∂α² = 0, so it adds nothing to the gradient of μ and σ.
        """
        if self.alpha is not None:
            return [self.mu.dtype.type(self.alpha**2)] * len(self.arrays)
        return [(self.mu[k] ** 2 + np.exp(2 * self.log_sigma[k])).mean() for k in self.arrays]

    def draw(self, zeta, theta):
        """Write θ = h(ζ) = μ + σ ⊙ ζ   (19), (23) into the vector theta (P,), for noise zeta (P,)."""
        for b, _ in self.blocks:
            theta[b] = self.mu[b] + np.exp(self.log_sigma[b]) * zeta[b]

    def draw_backward(self, zeta, g):
        """Leave ∂bound/∂μ and ∂bound/∂log σ in their windows, from g = ∂bound/∂θ (P,)."""
        for b, _ in self.blocks:
            self.dmu[b] = g[b]  # ∂θ/∂μ = 1
            self.dlog_sigma[b] = g[b] * np.exp(self.log_sigma[b]) * zeta[b]  # ∂θ/∂log σ = σ ζ

    def neg_kl(self, gradient=False):
        """-KL(q(θ) ‖ p_α(θ)) in nats; with `gradient` its gradient is added to what is in the windows."""
        alpha2 = self.alpha2()
        total = 0.0
        for b, k in self.blocks:
            neg_kl, dmu, dlog_sigma = theta_neg_kl(self.mu[b], self.log_sigma[b], alpha2[k], gradient)
            total = total + neg_kl
            if gradient:
                self.dmu[b] += dmu
                self.dlog_sigma[b] += dlog_sigma
        return total


def theta_neg_kl(mu, log_sigma, alpha2, gradient=True):
    """-KL(q(θ) ‖ p_α(θ)) = ½ Σ_k 1 + log σ_k²/α² - (μ_k² + σ_k²)/α², the last sum of (24), with ∂/∂μ and ∂/∂log σ.

    mu and log_sigma are vectors (P,), alpha2 is one α² for all of them.
    """
    sigma = np.exp(log_sigma)
    neg_kl = 0.5 * ((1 - np.log(alpha2)) * len(mu) + 2 * log_sigma.sum() - (mu @ mu + sigma @ sigma) / alpha2)
    if not gradient:
        return neg_kl, None, None
    return neg_kl, mu / -alpha2, 1 - sigma * sigma / alpha2  # ∂/∂μ = -μ/α²    ∂/∂log σ = 1 - σ²/α²: dσ²/dlog σ = 2σ²


def theta_log_ratio(theta, zeta, log_sigma, alpha2, gradient=True):
    """log p_α(θ) - log q(θ) = Σ_k log σ_k - ½ log α² + ½ ζ_k² - ½ θ_k²/α² at θ = μ + σ ⊙ ζ, with ∂/∂θ and ∂/∂log σ.

    The last two terms of (21). The normal densities' log 2π cancels; (θ - μ)²/σ² = ζ² does not move with μ or σ.
    """
    ratio = log_sigma.sum() + 0.5 * (zeta @ zeta - len(theta) * np.log(alpha2) - theta @ theta / alpha2)
    return (ratio, theta / -alpha2, 1.0) if gradient else (ratio, None, None)


def over_theta(objective, q, p, theta, x, eps, zeta, scale, gradient=True, closed=True):
    """(22): `objective` at θ ~ q(θ), and the terms of θ once; the gradients of φ, μ and log σ in their windows.

    theta is q(θ), and p a decoder that reads its draw. Each of the S draws zeta (S, P) is for its M/S rows of x. S =
    1 is one θ for the minibatch. S = M is Algorithm 2 as printed: every datapoint has an ε and a ζ of its own. With
    zeta = [ζ, -ζ] the draws are antithetic: the two halves of the minibatch see θ on either side of μ, and what is
    linear in ζ cancels between them. With closed=True the terms of θ are -KL(q(θ) ‖ p_α(θ)), as in (24), else log
    p_α(θ) - log q(θ) at the draw, as in (21).
    """
    M = len(x)
    S = min(len(zeta), M)
    bound = 0.0
    total = 0.0
    for s in range(S):
        rows = slice(s * M // S, (s + 1) * M // S)
        theta.draw(zeta[s], theta.theta.value)  # θ = h(ζ)                                                    (19), (23)
        bound = bound + objective(q, p, x[rows], eps[:, rows], scale, gradient)  # N (…)                      (21), (24)
        if not closed:
            bound = bound + _at_the_draw(
                theta, zeta[s], (rows.stop - rows.start) / M, gradient
            )  # log p_α(θ) - log q(θ)
        elif gradient:
            theta.draw_backward(zeta[s], theta.theta.grad)  # via θ: g, and g ⊙ σ ⊙ ζ
        if gradient and S > 1:
            total = total + theta.params.grad
    if gradient and S > 1:
        theta.params.grad[...] = total
    return bound + theta.neg_kl(gradient) if closed else bound  # -KL once for all N                                (24)


def _at_the_draw(q, zeta, share, gradient):
    """share (log p_α(θ) - log q(θ)) at the θ that `q` has drawn, its gradient added to that of the objective   (21)."""
    g = q.theta.grad
    alpha2 = q.alpha2()
    total = 0.0
    for b, k in q.blocks:
        ratio, dtheta, _ = theta_log_ratio(q.theta.value[b], zeta[b], q.log_sigma[b], alpha2[k], gradient)
        total = total + ratio
        if gradient:
            g[b] += share * dtheta  # via log p_α(θ)
    if gradient:
        q.draw_backward(zeta, g)  # via θ
        q.dlog_sigma += share  # via -log q, which moves with log σ alone: 1
    return share * total


def over_theta_of_rows(objective, q, p, theta, x, eps, zeta, scale, gradient=True):
    """(24) with the θ of every row integrated into its pre-activations (Kingma, Salimans & Welling 2015).

    The decoder's affine maps are `LocalLinear`: they draw what they add up, not the weights, and leave what comes to dμ
    and d log σ through θ in the windows of theta themselves. zeta (L M, units) has a column for each of their outputs.
    """
    start = 0
    for layer in p.local:
        layer.zeta = zeta[:, start : start + layer.n_out]
        start += layer.n_out
    bound = objective(
        q, p, x, eps, scale, gradient
    )  # N (-KL(q(z|x) ‖ p(z)) + log p(x|z))                           (24)
    return bound + theta.neg_kl(gradient)  # once for all N                                                         (24)
