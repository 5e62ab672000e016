"""Algorithm 1 of Kingma & Welling, "Auto-Encoding Variational Bayes": training by minibatches, and evaluation.

Data are rows in host memory, (N, D), one datapoint per row; bounds are in nats.
"""

import math
import os
import time
import warnings

import numpy as np

from scratchvae.arguments import positive, rows_of, whole
from scratchvae.backend import free_memory, keep_freed_memory, kind, move, require_memory
from scratchvae.data import BINARIZATIONS, binarise, thresholds
from scratchvae.guard import guard_of
from scratchvae.inference.information import of_rows
from scratchvae.inference.objectives import trait
from scratchvae.output import progress_bar
from scratchvae.ranks import ALONE, fingerprint, ranks_of, warn_of_others
from scratchvae.signals import interruptible
from scratchvae.training.optim import Adagrad, started
from scratchvae.training.parallel import require_entrywise, require_sum_over_rows, update_by, warn_of_threads
from scratchvae.training.patience import Best, checked_keep, warmed_up
from scratchvae.training.run import RunFolder, with_latents
from scratchvae.training.warmup import checked_warmup, warming

ORDER, STEP, HELD_OUT = range(3)  # what a random stream is for
LOOKED_AT = 1000  # how many validation rows are looked at for what the latents carry, at each row of the history


def stream(seed, purpose, index):
    """Return the random generator of (seed, purpose, index): a run that stops has no state of it to save."""
    words = [seed, purpose, index]  # as an array they give the same stream, in half the time
    return np.random.default_rng(np.array(words, np.uint32) if max(words) < 1 << 32 else words)


def fit(
    model,
    train,
    valid=None,
    *,
    optimizer=None,
    samples=None,
    epochs=None,
    batch_size=100,
    seed=0,
    schedule="joint",
    kl_warmup=None,
    kl_cycles=1,
    binarization="grey",
    log_every=None,
    keep=None,
    patience=None,
    n_data=None,
    out=None,
    resume=False,
    options=None,
    progress=None,
    take_over=False,
    comm=None,
):
    """Algorithm 1: ascend the bound (8), plus log p(θ) where the model has that prior, by minibatches of `train`.

    train, valid   The rows of pixels to train on and to look at, uint8 or floats. For a model on the device the
                   training rows are moved there once, or by the minibatch if they do not fit.
    optimizer      `SGD`, `Adagrad` (the default, with stepsize 0.01) or `Adam`.
    samples        How long to train: until the bound has been evaluated, with its gradient, on so many training
                   datapoints, repetitions counted (the paper's x-axis). The default is 1,000,000.
    epochs         Passes over the data, in place of samples.
    batch_size     M, 100 by default. Each epoch is a random permutation, and its last minibatch, which may be short, is
                   scaled by its own size.
    schedule       With "joint" φ and θ move together. With "alternating" there is an E-step, φ only, and then an
                   M-step, θ only, on the same minibatch with fresh noise: two evaluations per datapoint.
    kl_warmup      Samples during which the weight of the KL rises from 0 to 1, or to the model's β: the latents are
                   then in use before they cost anything (training/warmup.py). None, the default, gives the KL its full
                   weight at once. The bound that is logged always has β = 1.
    kl_cycles      How often the weight rises so, 1 by default. After each rise it stays as long as the rise took (Fu et
                   al. 2019, "Cyclical Annealing Schedule"), and after the last one for good.
    binarization   What `load_data` did to the pixels. With "dynamic" each minibatch is drawn anew, pixel by pixel, as
                   Bernoulli(x); "grey" and "fixed" pixels are taken as they are.
    log_every      How many samples lie between two rows of the history. By default there are ten rows a decade from
                   1,000 on, evenly spaced on a log axis.
    keep           With "best" the run leaves the model of the row of the history with the best validation bound, and
                   `load_model` gives that one. With β the bound is taken with β too, and rows during a warm-up do not
                   count. "last", the default without a patience, leaves the model of the end. The estimators iwae and
                   dreg ascend another bound and have no best.
    patience       The run ends when so many rows of the history, one after the other, are no better than the best
                   before, which is kept. With the default rows, ten a decade, a patience of 10 ends it after ten times
                   as many samples as at the best. Where latents come to life late, a short patience ends a run before
                   they do. None, the default, never ends it.
    n_data         N, how many datapoints the bound is of, where `train` is a part of them: the prior of θ then counts
                   as one that all N share. Unless given, N is the number of rows.
    out            A folder for checkpoint.npz, metrics.csv and config.json, with nothing else in it yet. The checkpoint
                   is written at each of the first thousand rows and at the end, and between them at later rows and
                   every 30 s, or as often as takes 5 % of the time where it takes long. While the run is at work no
                   other process can write to the folder.
    resume         Go on from the checkpoint in out, to the bit as if the run had never stopped, on the same backend and
                   machine with the same number of BLAS threads.
    options        A dict of the caller's own, as JSON can hold it, to keep in config.json.
    progress       Whether to show a bar on stderr. None shows it on a terminal only, and on ranks a line now and then.
    take_over      Go on in a folder whose run on another host has died, after ten minutes in which it was not heard of.
    comm           A communicator of mpi4py, such as MPI.COMM_WORLD, whose ranks all call `fit` with the same arguments
                   and share each minibatch (training/parallel.py). The run is that of one process up to rounding, and
                   the first rank alone writes to out and shows how far it is. Until it ends the parameters lie in
                   memory that the ranks share, and a view that was taken before sees what was learned only then. None,
                   the default, is this process alone.

    Step t is a function of (seed, t) alone, and `fit` begins at t = 0: resume to go on, and change the seed to vary. On
    a device no step waits for it: the bounds of the steps are read together, when a row or a checkpoint is due. While
    `fit` is at work no other thread may use the model: copy.deepcopy(model) is one that it may.

    Returns the history: a structured array with columns step, samples, epoch, train_bound (nats per datapoint, the mean
    over the minibatches since the row before), valid_bound (nats per datapoint, (7) on sampled z) and seconds. For a
    `FullVB` train_bound is (22) / N, with the θ-KL, and valid_bound is (7) at the posterior mean of θ, without it.
    Further columns say what the latents carry (inference/information.py), in nats per datapoint and of the validation
    rows: rate and distortion, the two terms of valid_bound = -(rate + distortion); and of the first thousand rows
    active, the number of latents that vary with x, mutual_information and marginal_kl, the two parts of their rate, and
    kl (J,), the KL of each latent. What is not known, as all of it without validation rows, is NaN.
    Warnings tell of validation rows on another scale than the training rows, and of a valid_bound that is not finite.

    Ctrl-C, SIGTERM and SIGHUP let the step end, write the checkpoint, and then raise KeyboardInterrupt or SystemExit.
    ValueError is raised for arguments that do not fit, CheckpointError for a checkpoint that is broken or of another
    run, FloatingPointError for a bound that is not finite, with its step and array (the last finite checkpoint stays),
    MemoryError where the device has no room for the job, with how much it needs, and RuntimeError where another thread
    is using the model. An error on one rank ends all: on the others a `RankError` is raised, which is a RuntimeError.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        warn_of_others(comm)
        optimizer = checked_optimizer(optimizer)
        dynamic = _dynamic(binarization, model)
        train = rows_of("train", train, model)
        valid = rows_of("valid", valid, model, train)
        n = len(train)
        N = n if n_data is None else positive("n_data", n_data)
        m = checked_batch_size(batch_size, len(train))
        require_rows(ranks, m)
        if schedule not in ("joint", "alternating"):
            raise ValueError(f"schedule is {schedule!r}; expected 'joint' or 'alternating'")
        kl_warmup, kl_cycles = checked_warmup(model, kl_warmup, kl_cycles)
        parts = [slice(None)] if schedule == "joint" else [model.phi, model.theta]
        target = target_of(samples, epochs, per_epoch=n * len(parts))
        log_every, seed = checked_run(log_every, seed, out, resume)
        keep, patience = checked_keep(keep, patience, valid, model)

        work = max(
            model.working_memory(m), 0 if valid is None else model.working_memory(min(len(valid), _block(model)))
        )
        vectors = 1 + len(getattr(optimizer, "names", "mv"))  # its state, and scratch
        require_memory(work + vectors * model.params.value.nbytes, model.backend)
        keep_freed_memory()
        facts = {
            "model": model.config,
            "optimizer": facts_of(optimizer),
            "batch_size": m,
            "seed": seed,
            "schedule": schedule,
            **({} if kl_warmup is None else {"kl_warmup": kl_warmup, "kl_cycles": kl_cycles}),
            "binarization": binarization,
            "log_every": log_every,
            **({} if keep == "last" else {"keep": keep}),
            **({} if n_data is None else {"n_data": N}),
            "data": None if out is None else {"train": fingerprint(train), "valid": fingerprint(valid)},
        }
        if ranks.size > 1:
            agree(ranks, facts | {"patience": patience}, model, train, valid, target, resume, options)
            warn_of_threads(ranks, model)
            require_entrywise(optimizer)
            require_sum_over_rows(model, train)
        steps_per_epoch = math.ceil(n / m)
        spare = free_memory(model.backend)
        taken = work + vectors * model.params.value.nbytes
        held = move(train, model.backend) if spare is None or train.nbytes <= spare - taken else train
        order = None
        unread = []
        on_host = model.backend == "numpy"

        def read():
            """Take the bounds of the steps since the last reading into `now`: on a device this alone waits."""
            if unread:
                places, sizes, bounds = zip(*unread, strict=True)
                bounds = [float(bounds[0])] if len(bounds) == 1 else move(np.stack(bounds), "numpy").tolist()
                if not on_host:  # there each step has summed those of all ranks
                    bounds = ranks.total(bounds)
                for place, size, bound in zip(places, sizes, bounds, strict=True):
                    if not math.isfinite(bound):
                        raise _diverged(bound, *place, now, model)
                    now.total += bound / N * size
                    now.seen += size
                unread.clear()
                bar.set_postfix_str(f"bound {bound / N:.1f}", refresh=False)
            now.seconds = time.perf_counter() - begun

        told = False  # that the bound of the validation rows is not finite

        def row():
            nonlocal told
            found = dict.fromkeys(("bound", "kl", "reconstruction"), math.nan)
            if valid is not None:
                found, n_bad = _evaluated(model, valid, seed, dynamic, ranks)
                if n_bad and not told:
                    told = True
                    _warn_of_bound("valid", found, n_bad, stacklevel=4)
            carried = _carried(model, found, valid, seed, dynamic, ranks)
            return now.row(now.step / steps_per_epoch, found["bound"], *carried)

        columns = with_latents(model.n_latent)
        since = warmed_up(optimizer, m * len(parts), kl_warmup, kl_cycles)
        best = Best(model.params, keep, patience, getattr(model, "beta", 1.0), since)
        more = best.arrays()
        folder = RunFolder(
            out if ranks.first else None, model, optimizer, facts, options, more, take_over=take_over, columns=columns
        )
        with (
            interruptible() as signals,
            update_by(ranks, model, optimizer, parts) as update,
            started(optimizer, model.params),
            warming(model, kl_warmup, kl_cycles) as weigh,
            folder.open(resume and ranks.first) as now,
            progress_bar(target, now.samples, ranks.shown(progress)) as bar,
            np.errstate(all="ignore"),
        ):
            now = update.begin(now, more.values())
            stop = ranks.meet(signals=signals)[1]
            begun = time.perf_counter() - now.seconds
            warn_if_done(now, target, out)
            best.go_on(now.history())
            if best.is_over():
                _warn_that_it_is_over(best, out)
            while now.samples < target and not stop and not best.is_over():
                epoch, i = divmod(now.step, steps_per_epoch)
                if i == 0 or order is None:
                    order = move(stream(seed, ORDER, epoch).permutation(n), kind(held))
                generator = stream(seed, STEP, now.step)
                now.step += 1

                chosen = order[i * m : (i + 1) * m]
                share = ranks.share(len(chosen))
                x = move(held[chosen[share.rows]], model.backend)  # X^M: a random minibatch, or this rank's rows of it
                if dynamic:
                    u = thresholds((len(chosen), x.shape[1]), x.dtype, generator)
                    x = binarise(x, move(u[share.rows], model.backend))
                before = now.samples
                after = before + len(chosen) * len(parts)
                is_row = due(before, after, log_every)
                weigh(before)
                for part in parts:
                    eps = model.noise_of(model.noise(generator, len(chosen)), share)  # ε: random samples from p(ε)
                    with model.guard.moment:  # a copy that another thread takes has all of a step or nothing of it
                        bound = model.bound(x, eps, N, gradient=True, share=share)  # g: the gradient of (8)
                        if on_host and not math.isfinite(bound):
                            raise _diverged(bound, now.step, before, now, model)  # by the rank whose rows it comes of
                        total = ranks.meet(bound if on_host else 0.0, signals)[0]  # and all gradients are there
                        unread.append(((now.step, before), len(chosen), total if on_host else bound))
                        if on_host:
                            read()
                        update.ascend(now.step, part)  # θ, φ: update with g, and with the gradient of log p(θ)
                        is_due = folder.wanted(len(now.rows) + is_row, is_row)
                        _, stop, is_due = ranks.meet(0.0, signals, is_due)  # and all parameters are there

                now.samples = after
                bar.update(after - before)
                if is_row:
                    read()
                    now.add(row())
                    best.see(np.array(now.rows[-1], now.columns))
                if is_due:
                    read()
                    update.collect()
                    folder.keep(now)
                folder.beat()

            read()
            ending = [row()] if now.seen and not stop else []
            for last in ending:
                best.end(np.array(last, now.columns))
            update.collect()
            folder.keep(now, *ending)
            stop = ranks.meet(signals=signals)[1]
    ranks.stop(stop)
    best.put_back()
    return now.history(*ending)


def _carried(model, found, valid, seed, dynamic, ranks):
    """Return what a row of the history says of the latents, in the order of `CARRIED`, with the KL of each behind.

    Rate and distortion are the terms of `found`, what was evaluated at all validation rows. The others are those of the
    first thousand. What is not known is NaN.
    """
    bounds = trait(model.estimator, "bound", True)
    rate = found["kl"] if bounds else math.nan
    unknown = np.full(model.n_latent, np.nan)
    if valid is None or not bounds:
        return rate, -found["reconstruction"], math.nan, math.nan, math.nan, unknown
    use = of_rows(model, as_seen(valid[:LOOKED_AT], seed, dynamic), seed, ranks)
    active = math.nan if use.active is None else use.active
    kl = unknown if use.kl is None else use.kl
    return rate, -found["reconstruction"], active, use.mutual_information, use.marginal_kl, kl


def evaluate(model, x, seed=0, binarization="grey", comm=None):
    """Return the bound of rows x (N, D) by (7), in nats per datapoint: {"n", "bound", "kl", "reconstruction"}.

    The bound is reconstruction - kl. The reconstruction is E log p(x|z) on L = model.n_samples sampled z for each row.
    The KL is in closed form, or estimated at the same draws where the posterior has none, as with a flow. Two calls
    with the same seed see the same noise. Memory is bounded: 1,000 z are decoded at a time. A warning counts the rows
    whose bound is not finite, as where they are far from all that the model was trained on. With comm, a communicator
    of mpi4py, its ranks share the rows, and each of them returns the whole: see `fit`.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        seed = whole("seed", seed, least=0)
        dynamic = _dynamic(binarization, model)
        x = rows_of("x", x, model)
        ranks.require_same(model, x, seed=seed, dynamic=dynamic, n_samples=model.n_samples)
        found, n_bad = _evaluated(model, x, seed, dynamic, ranks)
    if n_bad:
        _warn_of_bound("x", found, n_bad, stacklevel=3)
    return found


def as_seen(x, seed, dynamic):
    """Return rows as a model is shown them that are not in a minibatch: with `dynamic`, drawn once as Bernoulli(x)."""
    return binarise(x, thresholds(x.shape, x.dtype, stream(seed, HELD_OUT, 0))) if dynamic else x


def _evaluated(model, x, seed, dynamic, ranks):
    """Return what `evaluate` does, and the number of rows whose bound is not finite."""
    n_bad = 0
    kl = reconstruction = 0.0
    for _, rows, eps in _blocks(model, x, seed, dynamic, ranks):
        if len(rows) == 0:
            continue
        rows = move(rows, model.backend)
        neg_kl, log_px = model.terms(rows, eps)
        kl -= float(neg_kl.sum(dtype=np.float64)) / len(x)
        reconstruction += float(log_px.sum(dtype=np.float64)) / len(x)
        n_bad += len(rows) - int(np.isfinite(neg_kl + log_px).sum())
    kl, reconstruction, n_bad = ranks.total((kl, reconstruction, n_bad))
    return {"n": len(x), "bound": reconstruction - kl, "kl": kl, "reconstruction": reconstruction}, int(n_bad)


def _blocks(model, x, seed, dynamic, ranks):
    """Give the blocks in which rows x are evaluated: (rows in the block, those of this rank as they are shown, ε)."""
    size = _block(model)
    for k, start in enumerate(range(0, len(x), size)):
        generator = stream(seed, HELD_OUT, k)
        rows = x[start : start + size]
        part = ranks.share(len(rows)).rows
        u = thresholds(rows.shape, rows.dtype, generator) if dynamic else None
        eps = model.eps(generator, len(rows))[:, part]
        yield len(rows), binarise(rows[part], u[part]) if dynamic else rows[part], eps


def evaluate_each(model, x, seed=0, binarization="grey", comm=None, progress=None):
    """Return rate and distortion of each of the rows x (N, D), (N,) each, in nats: -KL and log p(x|z) negated.

    Their means are those of `evaluate` with the same arguments, since the noise is the same, and bound = -rate -
    distortion. For an autoencoder the rate is 0, and there is no bound. progress is called with the number of rows that
    were finished; None, as unless given, for no calls.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        seed = whole("seed", seed, least=0)
        dynamic = _dynamic(binarization, model)
        x = rows_of("x", x, model)
        ranks.require_same(model, x, seed=seed, dynamic=dynamic, n_samples=model.n_samples)
        found = []
        for n, rows, eps in _blocks(model, x, seed, dynamic, ranks):
            terms = np.empty((len(rows), 2), model.dtype)
            if len(rows):
                with np.errstate(all="ignore"):  # a row that is far from all others has a bound that is not finite
                    neg_kl, log_px = model.terms(move(rows, model.backend), eps)
                terms[:, 0] = -move(neg_kl, "numpy")
                terms[:, 1] = -move(log_px, "numpy")
            found.append(ranks.gathered(terms, n))
            if progress is not None:
                progress(n)
    rate, distortion = np.concatenate(found).T.copy()
    return rate, distortion


def as_evaluated(model, x, seed=0, binarization="grey"):
    """Return rows x (N, D) as `evaluate` shows them to the model: as they are, or drawn once if they are "dynamic"."""
    if not _dynamic(binarization, model):
        return x
    return np.concatenate([rows for _, rows, _ in _blocks(model, x, seed, True, ALONE)])


def _warn_of_bound(name, found, n_bad, stacklevel):
    """Warn that the bound of n_bad of the rows called `name` is not finite; stacklevel counts from the caller."""
    warnings.warn(
        f"the bound of {name} is {found['bound']}, since that of {n_bad:,} of {found['n']:,} datapoints is not finite: "
        "see whether they are on the scale of the training rows, and whether all parameters are finite",
        stacklevel=stacklevel,
    )


def evaluate_theta(model, x, n_theta=10, seed=0, binarization="grey", comm=None):
    """Return the bound of rows x (N, D) over the posterior of θ that a `FullVB` has, in nats, as a dict of

    bound_over_theta   the mean of `evaluate` over n_theta draws θ ~ q(θ), per datapoint, all with the same noise for z
    theta_kl           KL(q(θ) ‖ p_α(θ)), in all
    bound_22           bound_over_theta - theta_kl / N: (22) per datapoint, were x the whole data set

    comm is that of `evaluate`.
    """
    with ranks_of(comm) as ranks, guard_of(model):
        if not hasattr(model, "theta_sample"):
            raise ValueError(f"model is a {type(model).__name__}; expected a FullVB, which has a posterior over θ")
        draws = range(whole("n_theta", n_theta))
        seed = whole("seed", seed, least=0)
        dynamic = _dynamic(binarization, model)
        x = rows_of("x", x, model)
        ranks.require_same(model, x, seed=seed, dynamic=dynamic, n_samples=model.n_samples, n_theta=n_theta)
        bounds = []
        worst = 0
        for k in draws:
            drawn = model.theta_sample((seed, k))
            with drawn.guard:  # the rows were looked at above
                found, n_bad = _evaluated(drawn, x, seed, dynamic, ranks)
            bounds.append(found["bound"])
            worst = max(worst, n_bad)
    over_theta = np.mean(bounds)
    if worst:
        _warn_of_bound("x", {"n": len(x), "bound": over_theta}, worst, stacklevel=3)
    kl = model.theta_kl()
    return {"bound_over_theta": float(over_theta), "theta_kl": kl, "bound_22": float(over_theta - kl / len(x))}


def _block(model):
    """How many rows `evaluate` takes at a time: 1,000 z."""
    return max(1, model.rows_at_once() // whole("n_samples", model.n_samples))


def due(before, after, log_every):
    """Say whether a row of the history falls into (before, after]: at each `log_every`, or at 10^(k/10) ≥ 1,000."""
    if log_every is not None:
        return before // log_every < after // log_every
    return after >= 1000 and math.floor(10 * math.log10(max(before, 1))) < math.floor(10 * math.log10(after))


def _dynamic(binarization, model):
    """Say whether minibatches are drawn as Bernoulli(x); a binarization that does not fit raises a ValueError."""
    if binarization not in BINARIZATIONS:
        raise ValueError(f"binarization is {binarization!r}; expected one of {', '.join(BINARIZATIONS)}")
    if binarization != "grey" and not getattr(model.likelihood, "binary", False):
        likelihood = model.config["likelihood"]
        raise ValueError(
            f"{binarization} binarization is for Bernoulli models; this one is {likelihood}: leave it grey"
        )
    return binarization == "dynamic"


def checked_optimizer(optimizer):
    """Return the optimiser, Adagrad for None; anything else that is none raises a ValueError."""
    optimizer = Adagrad() if optimizer is None else optimizer
    if isinstance(optimizer, type) or not hasattr(optimizer, "ascend"):
        raise ValueError(f"optimizer is {optimizer!r}; expected one such as Adagrad(0.01)")
    return optimizer


def facts_of(optimizer):
    """Return the name and the numbers of an optimiser, as JSON."""
    facts = {name: value for name, value in vars(optimizer).items() if np.isscalar(value)}
    facts = {name: value.item() if isinstance(value, np.generic) else value for name, value in facts.items()}
    plain = {name: value if isinstance(value, int | float | str) else repr(value) for name, value in facts.items()}
    return {"name": type(optimizer).__name__, **plain}


def checked_run(log_every, seed, out, resume):
    """Return (log_every, seed); where they do not fit, or `out` is no folder to write to, a ValueError is raised."""
    log_every = None if log_every is None else whole("log_every", log_every)
    if out is not None and (not isinstance(out, str | os.PathLike) or not str(out)):
        raise ValueError(f"out is {out!r}; expected the path of a folder, or None to keep nothing")
    if resume and out is None:
        raise ValueError("resume=True needs out, the folder of the run to go on with")
    return log_every, whole("seed", seed, least=0)


def warn_if_done(now, target, out):
    """Warn where a resumed run has nothing left to do."""
    if now.samples >= target:
        warnings.warn(f"{out} has evaluated {now.samples:,} samples already: ask for more to go on", stacklevel=3)


def _warn_that_it_is_over(best, out):
    """Warn where a resumed run has ended by its patience."""
    warnings.warn(
        f"{out} has ended: {best.waited} rows have been no better than the one of {int(best.at[0, 0]):,} samples: ask "
        "for more patience to go on",
        stacklevel=3,
    )


def checked_batch_size(batch_size, n):
    """Return M, which is no more than n: a larger one is cut down with a warning."""
    batch_size = whole("batch_size", batch_size)
    if batch_size > n:
        warnings.warn(f"batch_size {batch_size} is larger than the data: using all {n} datapoints", stacklevel=3)
    return min(batch_size, n)


def require_rows(ranks, m):
    """Raise a ValueError if there are more ranks than rows in a minibatch."""
    if ranks.size > m:
        raise ValueError(
            f"there are {ranks.size} ranks and {m} datapoints in a minibatch: start no more ranks than those "
            "(mpiexec -n)"
        )


def agree(ranks, facts, model, train, valid, target, resume, options):
    """Raise a ValueError on all ranks unless they train one model on the same data in the same way."""
    others = {"validation rows": fingerprint(valid), "samples": target, "resume": resume, "options": options}
    ranks.require_same(model, train, **facts | others)


def target_of(samples, epochs, per_epoch):
    """Return how many samples to evaluate."""
    if samples is not None and epochs is not None:
        raise ValueError("samples and epochs are both given; expected one of them")
    if epochs is None:
        return 1_000_000 if samples is None else whole("samples", samples)
    if not isinstance(epochs, int | float | np.number) or not 0 < epochs < math.inf:
        raise ValueError(f"epochs is {epochs!r}; expected a number > 0")
    return max(1, round(epochs * per_epoch))


def _diverged(bound, step, samples, now, model):
    """Return the FloatingPointError for a bound that is not finite, with its step and its array."""
    if step == now.step:
        where = model.params.non_finite() or "the bound itself, though all parameters and gradients are finite"
        where = f"; not finite is {where}"
    else:  # the parameters have gone on since, all of them to NaN
        where = f", read {now.step - step:,} steps later (on backend 'numpy' the array is named)"
    hint = "try a smaller step size, in a new folder"
    if getattr(model.likelihood, "unbounded", False):
        hint += (
            f", or leave out pixels that never vary: there a {model.config['likelihood']} density has no upper bound"
        )
    return FloatingPointError(f"the bound is {bound} at step {step} ({samples:,} samples){where}: {hint}")
