"""What the latents of a VAE carry: the rate and its two parts, the KL of each latent, and how many are active.

The bound (7) of Kingma & Welling, "Auto-Encoding Variational Bayes", is -(R + D), where the rate R is what the code
costs and the distortion D is what the decoder loses:

    R = E_x KL(q(z|x) ‖ p(z)),   D = -E_x E_q log p(x|z)

The rate has two parts (Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence
lower bound"). With q(z) = 1/N Σ_n q(z|x_n), the mean of q(z|x) over the datapoints,

    R = I_q(x; z) + KL(q(z) ‖ p(z))

I is the mutual information, which is what z tells about x, and the rest is how far the codes together are from the
prior. Everything is in nats per datapoint.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from scratchvae.arguments import rows_of, whole
from scratchvae.backend import move
from scratchvae.guard import guard_of
from scratchvae.inference.distributions import log_standard_gaussian
from scratchvae.inference.objectives import trait
from scratchvae.inference.posteriors import can
from scratchvae.inference.posteriors.flow import Flow
from scratchvae.ranks import ranks_of

ACTIVE = 0.01  # the variance of E_q[z_j] over the datapoints above which latent j counts as active
HEIGHT = 1000  # of how many draws the densities are computed together, for so many datapoints: they fit the cache
WIDTH = 250
STREAM = 3  # which tells these random numbers from those of training and of evaluation (training/loop.py)
DRAWN_AT_ONCE = 1000  # how many datapoints have their noise from one random generator
BEHIND_MAPS = "behind a flow they have no closed form"
TOLERANCE = 1e-3  # nats by which a density may differ from that of its draw before its digits count as lost


@dataclass(frozen=True)
class Information:
    """What the latents of a model carry about N datapoints, in nats per datapoint. NaN and None are what is not known.

    n             is N, the number of datapoints.
    n_latent      is J, the number of latents.
    rate          is E_x KL(q(z|x) ‖ p(z)), in closed form, or from one draw for each datapoint where there is none.
    kl            is the mean KL of each latent by itself, (J,). They add up to the rate where the latents are
                  independent under q(z|x), and to less where they are not.
    variance      is the variance of E_q[z_j] over the datapoints, (J,).
    mutual_information
                  is the estimate of I_q(x; z), which cannot exceed ln N (see `saturated`).
    error         is its standard error, over the datapoints and their draws.
    most          is an estimate that is too high on average where `mutual_information` is too low, so that the two
                  enclose the mutual information of the distribution that the datapoints come from.
    missing       says what is not known and why, {name: reason}.
    """

    n: int
    n_latent: int
    rate: float
    kl: np.ndarray | None = None
    variance: np.ndarray | None = None
    mutual_information: float = math.nan
    error: float = math.nan
    most: float = math.nan
    missing: dict = field(default_factory=dict)

    @property
    def is_active(self):
        """Return which latents are active, (J,) of bool, or None: those whose E_q[z_j] has a variance above 0.01.

        The threshold is that of Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", section 5.
        """
        return None if self.variance is None else self.variance > ACTIVE

    @property
    def active(self):
        """Return how many latents are active, or None where it is not known."""
        return None if self.variance is None else int(self.is_active.sum())

    @property
    def marginal_kl(self):
        """Return KL(q(z) ‖ p(z)), which is the rate less the mutual information; it is too high where that is low."""
        return self.rate - self.mutual_information

    @property
    def log_n(self):
        """Return ln N, which `mutual_information` cannot exceed."""
        return math.log(self.n)

    @property
    def saturated(self):
        """Say whether `mutual_information` is within a nat of ln N, so that it may be far too low."""
        return self.mutual_information > self.log_n - 1


def information(model, x, seed=0, progress=None, comm=None):
    """Return the `Information` of a trained model about rows x (N, D).

        I ≃ 1/N Σ_n log q(z_n|x_n) - log 1/N Σ_m q(z_n|x_m),   z_n ~ q(z|x_n)

    Each term is at most ln N, since the sum has the datapoint's own density in it. Over data sets of N rows the mean of
    the estimate is at most the mutual information of the distribution that they come from. Without the datapoint's own
    density, and with N - 1 in the place of N, it is at least that: this is `most` (Poole, Ozair, van den Oord, Alemi &
    Tucker 2019, "On Variational Bounds of Mutual Information", section 2).

    model      is a `VAE` or one of its kin. With a distribution over θ nothing here depends on θ.
    x          holds the datapoints, (N, D), in host memory. The time grows with N²: 10,000 take a second.
    seed       selects the draws, one for each datapoint; 0 unless given.
    progress   is called with the number of datapoints whose densities were computed at all draws, once for each block
               of them; None for no calls.
    comm       is a communicator of mpi4py, whose ranks share the datapoints and all return the whole; None, the
               default, is this process alone.

    What a posterior cannot give is NaN or None, and `missing` says why: a flow has no closed forms, and its mutual
    information would take N² inversions; a plain autoencoder has no q(z|x). Rows that do not fit raise a ValueError.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        x = rows_of("x", x, model)
        seed = whole("seed", seed, least=0)
        ranks.require_same(model, x, seed=seed)
        return of_rows(model, x, seed, ranks, progress)


def of_rows(model, x, seed, ranks, progress=None):
    """Return what `information` does, for arguments that were looked at."""
    N = len(x)
    if not trait(model.estimator, "bound", True):
        reason = "a plain autoencoder learns no q(z|x)"
        return Information(
            N, model.n_latent, math.nan, missing=dict.fromkeys(("rate", "kl", "active", "mutual_information"), reason)
        )
    posterior = model.encoder.posterior
    mine = ranks.share(N)
    outputs = _outputs(model, x[mine.rows])
    eps = _noise(seed, N, model.n_latent)[:, mine.rows]
    with np.errstate(all="ignore"):  # what is not finite is seen in what comes out
        z, log_qz = posterior.draw(eps, *outputs)
        if can(posterior, "neg_kl"):
            rates = -posterior.neg_kl()
        else:
            rates = log_qz[0] - log_standard_gaussian(z[0], gradient=False)[0]
        kl, kl_missing = _kl_of_latents(posterior)
        means, active_missing = _means(posterior, outputs)
        terms, terms_missing = _terms(posterior, z[0], log_qz[0], outputs, mine, ranks, progress)
    rates = ranks.gathered(rates, N)
    found = {}
    if kl is not None:
        found["kl"] = ranks.gathered(kl, N).mean(axis=0)
    if means is not None:
        found["variance"] = ranks.gathered(means, N).var(axis=0)
    if terms is not None:
        low, high = ranks.gathered(terms, N).T
        error = low.std(ddof=1) / math.sqrt(N) if N > 1 else math.nan
        found |= {"mutual_information": float(low.mean()), "error": float(error), "most": float(high.mean())}
    reasons = {"kl": kl_missing, "active": active_missing, "mutual_information": terms_missing}
    missing = {name: reason for name, reason in reasons.items() if reason}
    return Information(N, model.n_latent, float(rates.mean()), **found, missing=missing)


def _outputs(model, x):
    """Return what the encoder says of rows x (N, D), in double precision and in host memory: arrays (N, n)."""
    size = model.rows_at_once()
    parts = []
    for start in range(0, max(len(x), 1), size):
        rows = model.pixels(move(x[start : start + size], model.backend))
        parts.append([move(output, "numpy").astype(float) for output in model.encoder.forward(rows)])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _noise(seed, N, J):
    """Return ε for one draw of each of N datapoints, (1, N, J), which is a function of the seed and their place."""
    sizes = [min(DRAWN_AT_ONCE, N - start) for start in range(0, N, DRAWN_AT_ONCE)]
    draws = [np.random.default_rng([seed, STREAM, k]).standard_normal((n, J)) for k, n in enumerate(sizes)]
    return np.concatenate(draws)[None]


def _kl_of_latents(posterior):
    """Return KL(q(z_j|x) ‖ p(z_j)) at the last draw, (N, J), and None; or None and why it is not known."""
    if can(posterior, "latent_kl"):
        return posterior.latent_kl(), None
    return None, BEHIND_MAPS if isinstance(posterior, Flow) else f"{_name(posterior)} has no latent_kl"


def _means(posterior, outputs):
    """Return E_q[z], (N, J), and None; or None and the reason why it is not known."""
    if isinstance(posterior, Flow):
        return None, BEHIND_MAPS
    if can(posterior, "moments"):
        return posterior.moments(*outputs)[0], None
    return None, f"{_name(posterior)} has no moments"


def _terms(posterior, z, log_qz, outputs, mine, ranks, progress):
    """Return the terms of the two estimates of I for this rank's datapoints, (n, 2), and None; or None and why not.

    z (n, J) are their draws, and log_qz (n,) is log q(z_n|x_n).
    """
    if not can(posterior, "pairwise_log_q"):
        if isinstance(posterior, Flow):
            return None, "it would take N² inversions of the flow"
        return None, f"{_name(posterior)} has no pairwise_log_q"
    N = mine.of
    outputs = [ranks.gathered(output, N) for output in outputs]
    others = np.full(len(z), -np.inf)  # log Σ_m≠n q(z_n|x_m)
    lost = 0.0
    for first in range(0, N, WIDTH):
        some = [output[first : first + WIDTH] for output in outputs]
        for begun in range(0, len(z), HEIGHT):
            rows = np.arange(begun, min(begun + HEIGHT, len(z)))
            log_q = posterior.pairwise_log_q(z[rows], *some)
            columns = rows + mine.start - first  # where each datapoint meets itself
            own = rows[(columns >= 0) & (columns < log_q.shape[1])]
            itself = own - begun, own + mine.start - first
            lost = np.maximum(lost, np.abs(log_q[itself] - log_qz[own]).max(initial=0.0))
            log_q[itself] = -np.inf
            others[rows] = np.logaddexp(others[rows], _log_sum(log_q))
        if progress is not None:
            progress(min(WIDTH, N - first))
    lost = ranks.gathered(np.array([[lost]]), ranks.size).max()
    if not lost <= TOLERANCE:
        return None, f"the densities of all pairs have lost their digits: those of the draws differ by {lost:g}"
    low = log_qz - (np.logaddexp(others, log_qz) - math.log(N))
    high = log_qz - (others - math.log(N - 1)) if N > 1 else np.full(len(z), np.nan)
    return np.stack([low, high], axis=1), None


def _log_sum(log_q):
    """Return log Σ_m q for each row of log q (n, m), which is overwritten."""
    largest = np.maximum(log_q.max(axis=1), -1e300)  # where a row has nothing but -∞, its sum is log 0
    log_q -= largest[:, None]
    np.exp(log_q, out=log_q)
    return largest + np.log(log_q.sum(axis=1))


def _name(posterior):
    """Return what a message calls a posterior."""
    return getattr(posterior, "name", type(posterior).__name__)
