"""Draws the rooflines of one or two profiles, such as those of a processor and of a device, in one picture.

`plots.roofline` draws one profile with its phases; this is for comparing two.
"""

import math

from scratchvae.bench.profiling import LEAST_SHARE
from scratchvae.bench.report import model_name, size_name

LABELLED = 5  # operations of each profile, those that take longest


def rooflines(path, *profiles):
    """Draw the rate of each operation of training steps against its intensity, and write the picture.

    Both axes are logarithmic: flops per byte, and 10⁹ flops per second. Each profile has a colour. Its lines are what
    its machine can do: a sloping line is the bandwidth of arrays in the cache, a dashed one that of arrays in memory,
    and the level line is the rate of a large matrix product. A dot is an operation, and its area is the operation's
    share of the time in which any is at work. The five longest of each profile have their number in its printed table
    beside them, and their line in the legend. Operations without flops, which only move numbers, and those below 0.3 %
    are left out.

    path       is the file to write, such as rooflines.png.
    profiles   are one or two results of `profile`, with NumPy or CuPy. Another number raises a ValueError.
    """
    if len(profiles) not in (1, 2):
        raise ValueError(f"there are {len(profiles)} profiles; expected one or two")
    from scratchvae import plots  # only now: SciPy's BLAS would stand in the list of a measurement beside NumPy's

    with plots.own_settings():
        figure = plots.Figure(figsize=(10, 5), dpi=plots.DPI, layout="constrained")
        ax = figure.subplots()
        ax.set_xscale("log")
        ax.set_yscale("log")
        shown = [_shown(profile) for profile in profiles]
        intensities = [one["intensity"] for operations in shown for _, one, _ in operations]
        ridges = [profile["peaks"]["gflops"] / profile["peaks"]["memory_gb_s"] for profile in profiles]
        low = min(intensities, default=0.1) / 2
        high = 3 * max(intensities + ridges)
        for k, (profile, operations) in enumerate(zip(profiles, shown, strict=True)):
            _draw(ax, profile, operations, f"C{k}", low, high)
        ax.set_xlim(low, high)
        ax.set_xlabel("intensity (flops per byte)")
        ax.set_ylabel("rate (GFLOP/s)")
        ax.grid(alpha=0.3, which="major")
        row = profiles[0]["workload"]
        ax.set_title(f"one training step: {model_name(row)}, {size_name(row)}, M = {row['batch_size']}", fontsize=9)
        legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False, borderaxespad=0)
        for handle in legend.legend_handles:
            if hasattr(handle, "set_sizes"):
                handle.set_sizes([30])
        figure.savefig(path)


def _shown(profile):
    """Return the operations of a profile that have a dot: their number in its table, themselves, and their share."""
    work_ms = sum(one["ms"] for one in profile["operations"])
    numbered = [(k, one, one["ms"] / work_ms) for k, one in enumerate(profile["operations"], start=1)]
    return [(k, one, share) for k, one, share in numbered if one["flops"] and share >= LEAST_SHARE]


def _draw(ax, profile, operations, colour, low, high):
    """Draw the roofs and the dots of one profile from the intensity `low` to `high`."""
    row = profile["workload"]
    peaks = profile["peaks"]
    machine = profile["machine"].get("gpu") or profile["machine"]["cpu"]
    name = f"{row['backend']} {row['dtype']}, {profile['step_ms']:.3g} ms: {machine}"
    top = peaks["gflops"]
    ax.scatter(
        [one["intensity"] for _, one, _ in operations],
        [one["gflops"] for _, one, _ in operations],
        s=[_area(share) for _, _, share in operations],
        color=colour,
        alpha=0.5,
        edgecolors="none",
        label=name,
    )
    style = {"color": colour, "linewidth": 1}
    for key, cache, dashes in (("cache_gb_s", "in the cache", "-"), ("memory_gb_s", "in memory", "--")):
        ridge = top / peaks[key]
        ax.plot([low, ridge], [low * peaks[key], top], dashes, label=f"{_rate(peaks[key])} GB/s {cache}", **style)
    ridge = top / peaks["cache_gb_s"]
    ax.plot([ridge, high], [top, top], "-.", label=f"{_rate(top)} GFLOP/s in a large product", **style)
    labels = []  # (place, share of the dot there, numbers of the dots that lie together)
    for k, one, share in operations[:LABELLED]:
        place = one["intensity"], one["gflops"]
        near = [numbers for other, _, numbers in labels if _lie_together(place, other)]
        if near:
            near[0].append(str(k))
        else:
            labels.append((place, share, [str(k)]))
        text = " ".join(filter(None, [f"{k}  {share:.1%}", one["phase"], one["owner"], one["place"]]))
        ax.plot([], [], " ", label=text)
    for place, share, numbers in labels:
        right = 2 + math.sqrt(_area(share)) / 2, 0  # of the largest dot, in points
        text = " ".join(numbers)
        behind = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
        style = {"textcoords": "offset points", "va": "center", "fontsize": 7, "color": colour, "bbox": behind}
        ax.annotate(text, place, right, **style)


def _lie_together(place, other):
    """Return whether two places are within a quarter of a decade along both axes, so that labels would overlap."""
    return all(abs(math.log10(a / b)) < 0.25 for a, b in zip(place, other, strict=True))


def _area(share):
    """Return the area of the dot of an operation with this share, in square points."""
    return 10 + 1500 * share


def _rate(value):
    """Return a rate as text of three figures or more, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
