"""Trains a decoder by Monte Carlo EM, with minibatches, and with the run folder, exact resume and Ctrl-C of `fit`.

The algorithm is that of appendix E of Kingma & Welling, "Auto-Encoding Variational Bayes" (2014); one E-step and one
M-step are in inference/mcem.py.
"""

import math
import time
import warnings

import numpy as np

from scratchvae.arguments import rows_of, share, whole
from scratchvae.guard import guard_of
from scratchvae.inference.mcem import complete_data, e_step
from scratchvae.ranks import fingerprint, ranks_of, warn_of_others
from scratchvae.signals import interruptible
from scratchvae.training import loop
from scratchvae.training.optim import started
from scratchvae.training.parallel import require_entrywise, update_by, warn_of_threads
from scratchvae.training.run import RunFolder


class Chains:
    """The Markov chains of all datapoints, one each, and the stepsize that they share.

    z (N, J) holds the state of each chain, at first a draw from the prior. log_stepsize is a number, which the E-steps
    tune. rate is the share of transitions that were accepted of late, NaN before the first.
    """

    def __init__(self, model, n, seed):
        self.z = loop.stream(seed, loop.HELD_OUT, 0).standard_normal((n, model.n_latent), model.dtype)
        self.log_stepsize = np.array(math.log(0.1))
        self.rate = np.array(math.nan)  # a moving average over the last E-steps, some twenty of them

    def windows(self):
        """Return the arrays that a checkpoint keeps, by name."""
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
    take_over=False,
    comm=None,
):
    """Train the decoder of a VAE by Monte Carlo EM, and return the history as `fit` does.

    For each minibatch the E-step moves the z of its datapoints by one transition of Hamiltonian Monte Carlo, and the
    M-step ascends log p(x, z), plus log p(θ) where the model has that prior, with these z. The encoder stays as it is.
    The trained model can therefore be read by `decode`, `sample` and `inference.marginal.appendix_d`, while its bound
    says nothing.

    model        is a `VAE` on the backend "numpy".
    train        holds the datapoints, (N, D), in host memory.
    samples      ends the training once so many evaluations of log p(x, z) with its gradient were made, a million unless
                 given. A datapoint in a minibatch counts for 1 + steps + updates of them.
    steps        is the number of leapfrog steps in an E-step, 10 unless given.
    updates      is the number of updates of θ in an M-step, 5 unless given.
    acceptance   is the share of transitions that should be accepted, 0.9 unless given; the stepsize is tuned to it.

    optimizer, batch_size, seed, log_every, out, resume, options, progress, take_over and comm are those of `fit`.

    In the history train_bound is log p(x, z) in nats per datapoint at the draws. It is no bound on log p(x), since
    log q is missing. valid_bound is NaN. A warning says so where the last E-steps accepted a share that is off
    `acceptance` by more than 0.1. Errors, checkpoints and Ctrl-C are those of `fit`.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        warn_of_others(comm)
        optimizer = loop.checked_optimizer(optimizer)
        if train is None or hasattr(model, "posterior"):
            raise ValueError("Monte Carlo EM trains a VAE, a point θ, on rows `train`")
        train = rows_of("train", train, model)
        steps = whole("steps", steps)
        updates = whole("updates", updates)
        samples = whole("samples", samples)
        log_every, seed = loop.checked_run(log_every, seed, out, resume)
        acceptance = share("acceptance", acceptance)
        if model.backend != "numpy":
            raise ValueError(
                f"the model is on backend {model.backend!r}; Monte Carlo EM runs on 'numpy': model.to('numpy')"
            )
        n = len(train)
        m = loop.checked_batch_size(batch_size, n)
        loop.require_rows(ranks, m)
        cost = 1 + steps + updates  # samples that a datapoint in a minibatch counts for
        chains = Chains(model, n, seed)
        facts = {
            "algorithm": "Monte Carlo EM",
            "model": model.config,
            "optimizer": loop.facts_of(optimizer),
            "mcem": {"steps": steps, "updates": updates, "acceptance": acceptance},
            "batch_size": m,
            "seed": seed,
            "log_every": log_every,
            "data": None if out is None else fingerprint(train),
        }
        if ranks.size > 1:
            loop.agree(ranks, facts, model, train, None, samples, resume, options)
            warn_of_threads(ranks, model)
            require_entrywise(optimizer)
        folder = RunFolder(out if ranks.first else None, model, optimizer, facts, options, chains.windows(), take_over)
        steps_per_epoch = math.ceil(n / m)
        order = None
        with (
            interruptible() as signals,
            update_by(ranks, model, optimizer, [model.theta]) as ascent,
            started(optimizer, model.params),
            folder.open(resume and ranks.first) as now,
            loop.progress_bar(samples, now.samples, ranks.shown(progress)) as bar,
        ):
            now = ascent.begin(now, chains.windows().values())
            stop = ranks.meet(signals=signals)[1]
            since = time.perf_counter() - now.seconds
            loop.warn_if_done(now, samples, out)
            while now.samples < samples and not stop:
                epoch, i = divmod(now.step, steps_per_epoch)
                if i == 0 or order is None:
                    order = loop.stream(seed, loop.ORDER, epoch).permutation(n)
                generator = loop.stream(seed, loop.STEP, now.step)
                rows = order[i * m : (i + 1) * m]
                x = model.pixels(train[rows])
                chains.z[rows], chains.log_stepsize[...], rate = e_step(
                    model.decoder,
                    x,
                    chains.z[rows],
                    generator,
                    float(chains.log_stepsize),
                    steps,
                    acceptance,
                    comm=ranks,
                )
                chains.rate[...] = rate if now.step == 0 else 0.95 * chains.rate + 0.05 * rate
                mine = ranks.share(len(rows)).rows
                for update in range(updates):
                    value = complete_data(model.decoder, x[mine], chains.z[rows[mine]], n, rows=len(rows))
                    value = ranks.meet(value, signals)[0]  # and all gradients are there
                    ascent.ascend(now.step * updates + update + 1, model.theta)
                    ranks.meet(signals=signals)  # all parameters are there
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"log p(x, z) is {value} in E-step {now.step + 1}: try a smaller step size"
                    )
                before = now.samples
                now.step += 1
                now.samples += cost * len(rows)
                now.total += float(value) / n * len(rows)
                now.seen += len(rows)
                bar.update(now.samples - before)
                now.seconds = time.perf_counter() - since
                is_row = loop.due(before, now.samples, log_every)
                if is_row:
                    now.add(now.row(now.step / steps_per_epoch, math.nan))
                _, stop, keep = ranks.meet(0.0, signals, folder.wanted(len(now.rows), is_row))
                if keep:
                    ascent.collect()
                    folder.keep(now)
                folder.beat()
            ending = [now.row(now.step / steps_per_epoch, math.nan)] if now.seen and not stop else []
            ascent.collect()
            folder.keep(now, *ending)
            stop = ranks.meet(signals=signals)[1]
    ranks.stop(stop)
    if abs(chains.rate - acceptance) > 0.1:
        warnings.warn(
            f"the chains accept {chains.rate:.0%} of their transitions, {acceptance:.0%} were asked for: "
            "the stepsize is still being tuned, or θ moves faster than they do",
            stacklevel=2,
        )
    return now.history(*ending)
