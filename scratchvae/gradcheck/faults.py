"""Says in words what is wrong with a gradient, from the right one.

A suspect is named only if it leaves next to nothing unexplained. If several do, the simplest is named first, and the
next one with it; if none does, the ratio, the cosine and the worst entries are told, and no name.
"""

import math

import numpy as np

from scratchvae.gradcheck.suspects import CLEAR, suspects


def diagnosis(evidence):
    """Return sentences that say what is wrong with a gradient."""
    ours = evidence.ours
    theirs = evidence.theirs
    bad = ~np.isfinite(ours)
    if bad.any():
        return [f"not a number: {bad.sum():,} of {ours.size:,} entries are NaN or infinite, the first at {_first(bad)}"]
    seen = np.isfinite(theirs)
    r = theirs[seen]
    if not r.size:
        return ["the loss gives no number beside this point: nothing could be compared"]
    unread = not np.abs(r).max() > evidence.error
    if unread and not r.any():
        return [f"the loss does not read {evidence.name}: all its differences are 0"]
    if not ours.any():
        return ["not written: the gradient is 0 everywhere. Was it assigned, as dW = …, in place of dW[...] = …?"]
    fitting = iter(()) if unread else (suspect.words for suspect in suspects(evidence) if suspect.left <= CLEAR)
    if first := next(fitting, ""):
        second = next((words for words in fitting if not words.startswith(FIT_ANYWAY)), "")
        return [first, f"or: {second}"] if second else [first]
    return [_where(evidence, seen), _numbers(ours[seen], r)]


UNKNOWN = "no usual fault explains it"
FIT_ANYWAY = ("a term", "it is off", "each ", "the error is")  # with so many fitted numbers that they are no runner-up


def _where(evidence, seen):
    difference = np.where(seen, evidence.ours - evidence.theirs, 0.0)
    worst = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    place = f"[{', '.join(map(str, worst))}]" if worst else ""
    ours = f"{evidence.ours[worst]:.6g}"
    return f"worst at {evidence.name}{place}: ours {ours}, right {evidence.theirs[worst]:.6g}; {UNKNOWN}"


def _numbers(g, r):
    lengths = np.linalg.norm(g), np.linalg.norm(r)
    cosine = float(g @ r) / (lengths[0] * lengths[1]) if all(lengths) else math.nan
    return (
        f"cosine {cosine:.6f}, ratio of the norms {lengths[0] / lengths[1]:.6g}" if lengths[1] else f"cosine {cosine}"
    )


def _first(mask):
    return [int(k) for k in np.argwhere(mask)[0]]
