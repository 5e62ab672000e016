"""Says whether one set of times differs from another beyond noise: a ratio, and its bootstrap interval.

The ratio is that of the lower quartiles over the rounds, new over old: below 1 the new code is faster. A bootstrap (B.
Efron 1979, "Bootstrap methods: another look at the jackknife") draws the rounds anew, with replacement, and takes the
ratio each time; 95 % of these ratios lie in the interval. Where both were measured in turns, a round is drawn with both
of its times, since a slow spell of the machine falls on both. In simulated rounds, a fifth of them slow ones, 92 to 98
of 100 such intervals held the true ratio, with 6 to 40 rounds.
"""

import json
from pathlib import Path

import numpy as np

from scratchvae.bench.measuring import plain
from scratchvae.bench.report import NAMES, aligned, named
from scratchvae.bench.workloads import of_row

RESAMPLES = 10_000  # how often the rounds are drawn anew
LEAST_ROUNDS = 6  # the fewest rounds of which an interval says anything
DEPENDS = ("cpu", "cores", "blas", "system", "python", "numpy", "gpu", "driver", "cuda", "cupy", "tf32")


def ratio_interval(new, old, paired, seed=0):
    """Return the ratio of the lower quartiles of two lists of times, new over old, and its 95 % interval (low, high).

    new      are the times of a step in each round, in one unit with `old`.
    old      are the times that they are compared with.
    paired   says whether new[r] and old[r] were measured one right after the other.
    seed     selects the draws of the bootstrap, 0 unless given.

    Fewer than six rounds, and paired lists of two lengths, raise a ValueError.
    """
    new = np.asarray(new, float)
    old = np.asarray(old, float)
    if min(len(new), len(old)) < LEAST_ROUNDS or (paired and len(new) != len(old)):
        raise ValueError(f"there are {len(new)} and {len(old)} rounds; expected {LEAST_ROUNDS} or more of both")
    generator = np.random.default_rng(seed)
    which = generator.integers(len(new), size=(RESAMPLES, len(new)))
    other = which if paired else generator.integers(len(old), size=(RESAMPLES, len(old)))
    ratios = _fast(new[which]) / _fast(old[other])
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(_fast(new) / _fast(old)), float(low), float(high)


def _fast(times):
    """Return the lower quartile along the last axis."""
    return np.quantile(times, 0.25, axis=-1)


def verdict(low, high):
    """Return in words what the interval of a ratio new over old says."""
    return "faster" if high < 1 else "slower" if low > 1 else "no change seen"


def compared(workload, new, old, paired):
    """Return the row of a workload that JSON can hold, from the times of a step in each round of both.

    `ms` and `old_ms` are the lower quartiles, `ratio` is new over old, and `interval` its 95 % interval. The arguments
    after the workload are those of `ratio_interval`.
    """
    ratio, low, high = ratio_interval(new, old, paired)
    ms = _fast(np.asarray(new, float))
    old_ms = _fast(np.asarray(old, float))
    row = workload.as_row() | {"ms": ms, "old_ms": old_ms, "ratio": ratio, "interval": [low, high]}
    row |= {"samples_per_s": 1e3 * workload.batch_size / ms, "old_samples_per_s": 1e3 * workload.batch_size / old_ms}
    row |= {"rounds_ms": list(new), "old_rounds_ms": list(old), "verdict": verdict(low, high)}
    return {key: plain(value) for key, value in row.items()}


def comparison_table(rows, new="new", old="old"):
    """Return rows of `compared` as a table in text; `new` and `old` are what its columns call the two."""
    cells = [[*NAMES, f"ms, {old}", f"ms, {new}", f"samples/s, {old}", f"samples/s, {new}"]]
    cells[0] += [f"{new} / {old}", "95 % interval", ""]
    for row in rows:
        cells.append([*named(row), f"{row['old_ms']:.3f}", f"{row['ms']:.3f}"])
        cells[-1] += [f"{row['old_samples_per_s']:,.0f}", f"{row['samples_per_s']:,.0f}"]
        cells[-1] += [f"{row['ratio']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]), row["verdict"]]
    return "\n".join(aligned(cells))


# An older bench.json


def older(path):
    """Return the older bench.json at `path` as a dict, whose rows keep the times of their rounds.

    A file that `scratchvae bench` has not written, or whose rows have too few rounds or none, raises a ValueError.
    """
    try:
        old = json.loads(Path(path).read_text(encoding="utf-8"))
        for row in old["rows"]:
            of_row(row)
            row["ms"] / 1
        old["machine"]["cpu"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a bench.json (--compare)") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise ValueError(f"{path} is no bench.json of scratchvae bench ({reason}); expected one (--compare)") from None
    rounds = [row.get("rounds_ms") for row in old["rows"]]
    again = f"measure its commit again with --against {str(old['machine'].get('commit', '')).rstrip('+') or 'COMMIT'}"
    if not rounds or not all(isinstance(times, list) and all(map(_is_time, times)) for times in rounds):
        raise ValueError(f"{path} keeps no times of its rounds, as older versions wrote it, so no interval: {again}")
    if min(map(len, rounds)) < LEAST_ROUNDS:
        fewest = min(map(len, rounds))
        raise ValueError(f"{path} has {fewest} rounds; expected {LEAST_ROUNDS} or more for an interval: {again}")
    return old


def _is_time(value):
    """Say whether a value of JSON is a number of milliseconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def workloads_of(old, **wanted):
    """Return the workloads of an older bench.json that have one of the wanted values.

    old      is what `older` returned.
    wanted   gives for fields of a Workload the values that are wanted; a field that is not given may have any.

    If none is left, a ValueError is raised.
    """
    works = [of_row(row) for row in old["rows"]]
    chosen = [work for work in works if all(getattr(work, name) in values for name, values in wanted.items())]
    if not chosen:
        raise ValueError(f"none of the {len(works)} workloads of the older file has these {', '.join(wanted)}")
    return list(dict.fromkeys(chosen))


def compare(result, old):
    """Return a row of `compared` for each workload that is in both: in what `run` returned, and in an older one.

    The two were not measured in turns. The interval knows how far the rounds of each session spread, and not what
    differs between the sessions, such as other programs, the clock rate or another room of memory.
    """
    rows = {of_row(row): row for row in result["rows"]}
    before = {of_row(row): row for row in old["rows"]}
    return [
        compared(work, rows[work]["rounds_ms"], before[work]["rounds_ms"], paired=False)
        for work in before
        if work in rows
    ]


def differences(new, old):
    """Return what differs between two machines that `machine` returned, as a list of texts "cpu: this, was that"."""
    return [
        f"{name}: {_told(new.get(name))}, was {_told(old.get(name))}"
        for name in DEPENDS
        if new.get(name) != old.get(name)
    ]


def _told(value):
    """Return a fact about a machine as text."""
    if isinstance(value, list):
        return "; ".join(" ".join(str(part) for part in pool.values()) for pool in value) or "none"
    return "none" if value is None else str(value)
