"""Monte Carlo EM by minibatches (appendix E), with the run folder, the exact resume and the Ctrl-C of `fit`."""

import math
import time
import warnings

import numpy as np

from scratchvae.arguments import rows_of, whole
from scratchvae.inference.mcem import complete_data, e_step
from scratchvae.training import loop
from scratchvae.training.run import RunFolder


class Chains:
    """A state z (N, J) for every datapoint, from the prior, and what is tuned."""

    def __init__(self, model, n, seed):
        self.z = loop.stream(seed, loop.HELD_OUT, 0).standard_normal((n, model.n_latent), model.dtype)
        self.log_stepsize = np.array(math.log(0.1))
        self.rate = np.array(math.nan)  # at which they accept, over the last E-steps

    def windows(self):
        """What a checkpoint keeps of them."""
        return {f"chains/{name}": array for name, array in vars(self).items()}


def fit_mcem(
    model,
    train,
    *,
    optimizer=None,
    samples=1_000_000,
    batch_size=100,
    seed=0,
    steps=10,
    updates=5,
    acceptance=0.9,
    log_every=None,
    out=None,
    resume=False,
    options=None,
    progress=None,
):
    """Train the decoder of a VAE by Monte Carlo EM: E-steps of `steps` leapfrog steps, M-steps of `updates` updates.

    The encoder stays as it is: `decode`, `sample` and `inference.marginal.appendix_d` read the model, the bound does
    not tell. The arguments are those of `fit`; model on the host. A datapoint in a minibatch counts for
    1 + steps + updates samples: so often is log p(x, z) evaluated on it with its gradient.

    Returns the history as `fit` does. Its train_bound is log p(x, z) per datapoint at the draws, which is no bound on
    log p(x) (log q is missing); its valid_bound is NaN. Warns where the last E-steps accepted a share that is off the
    aim by more than 0.1. Errors, checkpoints and Ctrl-C are those of `fit`.
    """
    optimizer = loop.checked_optimizer(optimizer)
    if train is None or hasattr(model, "posterior"):
        raise ValueError("Monte Carlo EM trains a VAE, a point θ, on rows `train`")
    train, counts = rows_of("train", train, model), {"steps": steps, "updates": updates, "samples": samples}
    steps, updates, samples = (whole(name, value) for name, value in counts.items())
    log_every, seed = loop.checked_run(log_every, seed, out, resume)
    if not 0 < acceptance < 1:
        raise ValueError(f"acceptance is {acceptance!r}; expected a rate between 0 and 1, such as 0.9")
    if model.backend != "numpy":
        raise ValueError(
            f"the model is on backend {model.backend!r}; Monte Carlo EM runs on 'numpy': model.to('numpy')"
        )
    n, m, cost = len(train), loop.checked_batch_size(batch_size, len(train)), 1 + steps + updates
    optimizer.start(model.params)
    chains = Chains(model, n, seed)
    facts = {
        "algorithm": "Monte Carlo EM",
        "model": model.config,
        "optimizer": loop.facts_of(optimizer),
        "mcem": {"steps": steps, "updates": updates, "acceptance": acceptance},
        "batch_size": m,
        "seed": seed,
        "log_every": log_every,
        "data": out and loop.fingerprint(train),
    }
    folder = RunFolder(out, model, optimizer, facts, options, chains.windows())
    now = folder.restore() if resume else folder.begin()
    loop.warn_if_done(now, samples, out)
    steps_per_epoch, since, order = math.ceil(n / m), time.perf_counter() - now.seconds, None
    with loop.interruptible() as signals, loop.progress_bar(samples, now.samples, progress) as bar:
        while now.samples < samples and not signals:
            epoch, i = divmod(now.step, steps_per_epoch)
            if i == 0 or order is None:
                order = loop.stream(seed, loop.ORDER, epoch).permutation(n)
            generator, rows = loop.stream(seed, loop.STEP, now.step), order[i * m : (i + 1) * m]
            x = model.pixels(train[rows])
            chains.z[rows], chains.log_stepsize[...], rate = e_step(
                model.decoder, x, chains.z[rows], generator, float(chains.log_stepsize), steps, acceptance
            )
            chains.rate[...] = rate if now.step == 0 else 0.95 * chains.rate + 0.05 * rate
            for update in range(updates):
                value = complete_data(model.decoder, x, chains.z[rows], n)
                model.add_log_prior_gradient()
                optimizer.ascend(model.params, now.step * updates + update + 1, model.theta)
            if not math.isfinite(value):
                raise FloatingPointError(f"log p(x, z) is {value} in E-step {now.step + 1}: try a smaller step size")
            now.step, before, now.samples = now.step + 1, now.samples, now.samples + cost * len(rows)
            now.total, now.seen = now.total + float(value) / n * len(rows), now.seen + len(rows)
            bar.update(now.samples - before)
            now.seconds = time.perf_counter() - since
            if loop.due(before, now.samples, log_every):
                now.add(now.row(now.step / steps_per_epoch, math.nan))
                folder.keep(now)
            elif now.seconds - folder.kept_at > loop.LONGEST_WITHOUT_CHECKPOINT:
                folder.keep(now)
        ending = [now.row(now.step / steps_per_epoch, math.nan)] if now.seen and not signals else []
        folder.keep(now, *ending)
    loop.raise_stop(signals)
    if abs(chains.rate - acceptance) > 0.1:
        warnings.warn(
            f"the chains accept {chains.rate:.0%} of their transitions, {acceptance:.0%} were asked for: "
            "the stepsize is still being tuned, or θ moves faster than they do",
            stacklevel=2,
        )
    return now.history(*ending)
