"""Missing entries of datapoints, filled in by a trained VAE: pseudo-Gibbs sampling.

The known entries of a row stay as they are, and its missing ones are drawn again and again:

    z ~ q(z|x)          x_missing ~ p(x_missing|z)

This is the Markov chain of Rezende, Mohamed & Wierstra 2014, "Stochastic Backpropagation and Approximate Inference in
Deep Generative Models", appendix F. If q(z|x) is the posterior p(z|x), it is Gibbs sampling, and the draws come to be
those of p(x_missing|x_known). If q only resembles the posterior, they come to be those of a distribution that resembles
p(x_missing|x_known), and no number of transitions closes that gap: hence "pseudo". The likelihood must draw the entries
of x independently given z, as all likelihoods of this package do.

`impute` returns the best guess in squared error, and `impute_samples` returns draws, whose spread is what the known
entries leave open.
"""

from itertools import islice

import numpy as np

from scratchvae.arguments import model_rows, rows_of, whole
from scratchvae.backend import move, plain
from scratchvae.guard import guard_of
from scratchvae.inference.objectives import trait


def impute(model, x, missing, steps=100, burn_in=100, start=None, seed=0, progress=None):
    """Return the rows x, (N, D), with an estimate of E[x_missing|x_known] in the place of each missing entry.

        E[x_missing|x_known] ≃ 1/T Σ_t E[x_missing|z_t]

    Here t counts the transitions of the chain after the burn-in. E[x_missing|z_t] varies less than the draw of
    x_missing itself, and has the same mean. Where the chain is exact, this is the guess with the least squared error.

    model      is a `VAE`, with any posterior, flow, likelihood and network. A `FullVB` has its θ at the mean.
    x          holds the datapoints, (N, D), in host memory. uint8 pixels are read as x/255, and the result then holds
               floats in [0, 1] in the model's precision. Rows of floats keep their own precision, and their known
               entries to the bit. What stands in a missing entry is not read, and may be NaN. Rows of a conditional
               model are (N, D + C), as `model.labelled` returns them: the label is known, and is no part of the result.
    missing    says which entries are missing, (N, D) of bool. A row may have all of its entries missing, or none.
    steps      is T, the number of transitions over which the average is taken; 100 unless given.
    burn_in    is the number of transitions before these, 100 unless given. More are needed where much is missing.
    start      is what the missing entries hold at first: a row (D,), such as the mean of the training rows, or rows
               (N, D). uint8 is read as x/255, and floats as they are. Unless given, each chain starts at a z ~ p(z) of
               its own. The chain forgets its start, but it may take long to leave a mode of p(x_missing|x_known).
               Where much is missing, the mean of several short chains, for which a row is repeated, can therefore be
               nearer than that of a long one: examples/README.md has figures.
    seed       selects the draws. Those for row i are a function of (seed, i) alone, so that they do not depend on how
               many rows are worked on at a time.
    progress   is called with the number of rows that were finished, once for each block of rows; None for no calls.

    As many rows are worked on at a time as `model.rows_at_once` says, which bounds the memory. Arguments that do not
    fit raise a ValueError, and so does a known entry that is NaN. A chain whose numbers are no longer finite raises a
    FloatingPointError.
    """
    steps = whole("steps", steps)
    burn_in = whole("burn_in", burn_in, least=0)
    with guard_of(model):
        x, missing, start, filled = _checked(model, x, missing, start)
        for block, chain in _chains(model, x, missing, start, whole("seed", seed, least=0)):
            total = np.zeros(missing[block].shape)
            for outputs, _ in islice(chain, burn_in, burn_in + steps):
                total += move(model.likelihood.mean(*outputs), "numpy")
            np.copyto(filled[block], total / steps, where=missing[block], casting="same_kind")
            _finished(filled[block], block, progress)
    return filled


def impute_samples(model, x, missing, n_samples=16, burn_in=100, thin=3, start=None, seed=0, progress=None):
    """Return draws of the rows x, (n_samples, N, D), in which the missing entries are drawn and the known ones stay.

    The draws of a row come from one chain, so that one is like the next. For draws from independent chains repeat the
    row: impute_samples(model, np.repeat(x[:1], 50, axis=0), np.repeat(missing[:1], 50, axis=0), n_samples=1).

    n_samples   is the number of draws of each row, 16 unless given.
    burn_in     is the number of transitions before the first of those that count, 100 unless given.
    thin        is the number of transitions from one draw to the next, 3 unless given; more make the draws less alike.

    model, x, missing, start, seed and progress are those of `impute`, and so is what is raised.
    """
    n_samples = whole("n_samples", n_samples)
    burn_in = whole("burn_in", burn_in, least=0)
    thin = whole("thin", thin)
    with guard_of(model):
        x, missing, start, filled = _checked(model, x, missing, start)
        draws = np.repeat(filled[None], n_samples, axis=0)
        for block, chain in _chains(model, x, missing, start, whole("seed", seed, least=0)):
            kept = islice(chain, burn_in + thin - 1, burn_in + n_samples * thin, thin)
            for draw, (_, pixels) in zip(draws[:, block], kept, strict=True):
                np.copyto(draw, move(pixels, "numpy"), where=missing[block], casting="same_kind")
            _finished(draws[:, block], block, progress)
    return draws


def _checked(model, x, missing, start):
    """Return x, missing, start and a copy of x for the result, (N, D), or raise a ValueError where they do not fit.

    x is returned with a known number in each missing entry, as rows that the model takes, and so is start, or None.
    """
    if not trait(model.estimator, "bound", True):
        raise ValueError("model is a plain autoencoder, which learns no q(z|x); expected one trained by a bound")
    D = model.n_visible
    x = plain("x", x)
    missing = plain("missing", missing)
    if x.ndim != 2 or x.shape[1] != model.n_columns or missing.shape != (len(x), D) or missing.dtype != bool:
        raise ValueError(
            f"x has shape {x.shape}, and missing is {missing.dtype} {missing.shape}; expected x (N, {model.n_columns}) "
            f"and missing (N, {D}) of bool, True where an entry is missing"
        )
    known = x[:, :D][~missing]
    if np.isnan(known).any():
        raise ValueError(
            f"x has {np.isnan(known).sum():,} entries that are NaN and known; expected numbers: mark them as missing, "
            "as in missing = np.isnan(x)"
        )
    x = x.copy()
    np.copyto(x[:, :D], known[0] if len(known) else 0, where=missing)  # so that the known entries alone are looked at
    x = rows_of("x", x, model)
    if start is not None:
        start = plain("start", start)
        if start.shape not in ((D,), (len(x), D)):
            raise ValueError(f"start has shape {start.shape}; expected ({D},) or ({len(x)}, {D}), the shape of x")
        labels = np.zeros_like(start, shape=(len(x), model.n_classes))
        labels[x[:, D:] > 0] = 255 if start.dtype == np.uint8 else 1
        start = model_rows("start", np.concatenate([np.broadcast_to(start, (len(x), D)), labels], axis=1), model)
    filled = x[:, :D] / model.dtype.type(255) if x.dtype == np.uint8 else x[:, :D].copy()
    return x, missing, start, filled


def _chains(model, x, missing, start, seed):
    """Yield blocks of rows, each as a slice, with the chain of its rows as `_chain` yields it."""
    size = model.rows_at_once()
    for begun in range(0, len(x), size):
        block = slice(begun, min(begun + size, len(x)))
        rows = model.pixels(move(x[block], model.backend))
        holes = move(missing[block], model.backend)
        if start is not None:
            first = model.pixels(move(start[block], model.backend))[:, : model.n_visible]
            rows = _with_pixels(rows, np.where(holes, first, rows[:, : model.n_visible]))
        generators = [np.random.default_rng([seed, i]) for i in range(block.start, block.stop)]
        yield block, _chain(model, rows, holes, start is None, generators)


def _chain(model, rows, missing, from_prior, generators):
    """Yield the decoder's outputs at z and the pixels with the missing ones drawn, (M, D), after each transition.

    rows (M, D + C) and missing (M, D) lie where the model does. generators has NumPy's generator of each row.
    from_prior says whether the first z is drawn from p(z), and not from q(z|x).
    """
    D = model.n_visible
    while True:
        eps = [generator.standard_normal((1, model.n_latent), model.dtype) for generator in generators]
        eps = move(np.stack(eps, axis=1), model.backend)
        z = eps[0] if from_prior else model.latents(rows, eps)[0][0]
        from_prior = False
        outputs = model.decoder.forward(z, rows[:, D:])
        noise = [model.likelihood.noise(generator, (1, D), model.dtype) for generator in generators]
        drawn = model.likelihood.draw(move(np.concatenate(noise), model.backend), *outputs)
        pixels = np.where(missing, drawn, rows[:, :D])
        rows = _with_pixels(rows, pixels)
        yield outputs, pixels


def _with_pixels(rows, pixels):
    """Return rows (M, D + C) with other pixels (M, D) and the same labels."""
    return np.concatenate([pixels, rows[:, pixels.shape[1] :]], axis=1)


def _finished(found, block, progress):
    """Say that the rows of a block are finished; numbers that are not finite raise a FloatingPointError."""
    if not np.isfinite(found).all():
        raise FloatingPointError(
            f"a chain of rows {block.start} to {block.stop - 1} has left the finite numbers: see whether the rows are "
            "on the scale of the training rows, and whether all parameters are finite"
        )
    if progress is not None:
        progress(block.stop)
