"""The page and the pictures of benchmarks/device.py, from what is in device.json, whole or not."""

from pathlib import Path

from device_result import TITLES

from scratchvae import bench, plots
from scratchvae.training.checkpoint import write_atomically

NAMES = ("NumPy", "CuPy", "CuPy, fused")
COLOURS = {"NumPy": "tab:blue", "CuPy": "tab:green", "CuPy, fused": "tab:olive", "CuPy, TF32": "tab:purple"}
LONGEST = 12  # operations of each profile that the page shows
BETTER = 0.95  # the share of CuPy's time at which fused kernels are said to pay


def rows(content, part):
    """Return the rows of a part, without those that are not there."""
    return content["parts"].get(part, {}).get("rows", [])


def by_key(content, part):
    """Return the rows of a part by their keys."""
    return {row["key"]: row for row in rows(content, part)}


def times(row, what="ms"):
    """Return {variant: milliseconds} of a row of steps; what failed is left out."""
    return {name: one[what] for name, one in row["variants"].items() if what in one}


def paper(content):
    """Return the row of the paper's size in float32, or None."""
    fitting = [row for row in rows(content, "steps") if "threads" not in row and row["dtype"] == "float32"]
    return next((row for row in fitting if (row["batch_size"], row["n_hidden"]) == (100, 500)), None)


def crossover(content, dtype="float32"):
    """Return (M from which CuPy is faster and stays so, all M that were measured), for the paper's other sizes."""
    at = {}
    for row in rows(content, "steps"):
        found = times(row)
        if row["dtype"] == dtype and row["n_hidden"] == 500 and {"NumPy", "CuPy"} <= found.keys():
            at[row["batch_size"]] = found["CuPy"] < found["NumPy"]
    behind = [m for m, ahead in at.items() if not ahead]
    ahead = [m for m in sorted(at) if m > max(behind, default=0)]
    return (ahead[0] if ahead else None), sorted(at)


def answer(content):
    """Return the answer in a few lines: what passed, where the device is faster, and whether fusing pays."""
    lines = []
    if content["stand_in"]:
        lines.append("ON THE STAND-IN: the times below are those of the host and say nothing of a device.")
    if tests := rows(content, "tests"):
        count = {name: sum(row["outcome"] == name for row in tests) for name in ("passed", "failed", "skipped")}
        lines.append(f"tests: {', '.join(f'{number} {name}' for name, number in count.items() if number)}")
    if checked := rows(content, "gradcheck"):
        lines.append(f"gradient check: {sum(row['passed'] for row in checked)} of {len(checked)} passed")
    for row in rows(content, "job"):
        if "apart_nats" in row:
            lines.append(f"training job, {row['key']}: at most {row['apart_nats']:.3g} nats from NumPy's bound")
    for part, words in (("steps", ""), ("tf32", "in TF32 ")):
        if found := of_device(content, part):
            bound, slope = (max(one[name] for one in found) for name in ("first_bound_apart", "gradient_apart"))
            told = f"by at most {bound:.0e} in the bound and {slope:.0e} in the gradient, relative"
            lines.append(f"{words}the first step differs from NumPy's {told}, in {len(found)} cases")
    lines += [f"FAILED: {text}" for text in failures(content)]
    first, measured = crossover(content)
    if measured:
        told = f"from M = {first:,}" if first else f"at none of M = {measured[0]:,} to {measured[-1]:,}"
        lines.append(f"CuPy is faster than NumPy {told} (784-500-20, float32)")
    if (row := paper(content)) and len(found := times(row)) == 3:
        share = found["CuPy, fused"] / found["CuPy"]
        verdict = "pays" if share < BETTER else "does not pay"
        lines.append(f"fused kernels take {share:.2f} of CuPy's time at the paper's size: fusing {verdict} here")
    for name, part in content["parts"].items():
        if part["state"] not in ("done", "new"):
            lines.append(f"{name}: {part['state']} ({part['why']})")
    return "\n".join(lines)


def of_device(content, part):
    """Return the rows of the variants whose first bound was compared with NumPy's."""
    found = [one for row in rows(content, part) for one in row["variants"].values()]
    return [one for one in found if "first_bound_apart" in one]


def reason(row):
    """Return in one line why a test failed: what pytest marks with an E, or the last line."""
    lines = [line.strip() for line in row.get("why", "").splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked or lines or ["no reason given"])[-1][:200]


def failures(content):
    """Return what failed, as a list of texts: tests by their reasons, gradients, trainings and first bounds."""
    found = {}
    for row in rows(content, "tests"):
        if row["outcome"] == "failed":
            found.setdefault(reason(row), []).append(row["key"])
    texts = [f"{keys[0]}{others(keys)} failed: {why}" for why, keys in found.items()]
    texts += [f"a gradient failed: {row['key']}" for row in rows(content, "gradcheck") if not row["passed"]]
    for row in rows(content, "job"):
        if not row.get("same", True):
            texts.append(f"training, {row['key']}: another bound, by {row['apart_nats']:.3g} nats")
    for row in [*rows(content, "steps"), *rows(content, "others")]:
        for name, one in row.get("variants", {}).items():
            if not one.get("same", True):
                bound, slope = one["first_bound_apart"], one["gradient_apart"]
                told = f"its bound differs by {bound:.0e} and its gradient by {slope:.0e}, relative"
                texts.append(f"the first step of {row['key']}, {name}, is not NumPy's: {told}")
    return texts


def others(keys):
    """Return how many there are beside the first."""
    more = len(keys) - 1
    return f" and {more} other{'s' if more > 1 else ''}" if more else ""


def page(content):
    """Return the page in Markdown; rows that are not as this benchmark writes them raise a ValueError."""
    try:
        return _page(content)
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise ValueError(
            f"device.json has rows that this benchmark did not write ({type(error).__name__}: {error}): measure again"
        ) from None


def _page(content):
    """Return the page in Markdown."""
    text = ["# On a GPU", ""]
    machine = by_key(content, "machine").get("machine")
    if machine:
        text += [bench.describe(machine) + "."]
        smi = machine.get("nvidia_smi")
        told = "; ".join(f"{name} {value}" for name, value in smi.items()) if isinstance(smi, dict) else smi
        text += [f"nvidia-smi just after a large product: {told}.", ""]
    command = f"python benchmarks/device.py --scale {content['scale']}{' --stand-in' if content['stand_in'] else ''}"
    text += [f"`{command}`, commit `{content['commit']}`. Times of a step are lower quartiles, taken in turns.", ""]
    text += ["    " + line for line in answer(content).splitlines()] + [""]
    if lacking := [name for name in TITLES if not rows(content, name)]:
        text += [f"Not there: {', '.join(lacking)}.", ""]
    sections = (steps_of, job_of, launches_of, peers_of, profile_of, others_of)
    for section in sections:
        text += section(content)
    return "\n".join(text).rstrip() + "\n"


def table(heads, lines):
    """Return a table in Markdown, with an empty line behind it."""
    cells = [heads, ["---"] * len(heads), *lines]
    return [f"| {' | '.join(map(str, line))} |" for line in cells] + [""]


def ms(value):
    """Return milliseconds as text; a text, such as the reason of a failure, stays."""
    return value if isinstance(value, str) else f"{value:.3g}"


def cells_of(row, names=NAMES):
    """Return the cells with the times of the variants, or why they failed."""
    variants = row["variants"]
    return [
        ms(variants[name].get("ms", variants[name].get("failed", ""))) if name in variants else "" for name in names
    ]


def steps_of(content):
    """Return the table of steps over sizes, with launches, the device's time and TF32."""
    if not rows(content, "steps"):
        return []
    quick = by_key(content, "tf32")
    heads = ["model", "M", "dtype", *(f"{name}, ms" for name in NAMES), "CuPy in TF32, ms", "launch, ms", "device, ms"]
    lines = []
    for row in sorted(rows(content, "steps"), key=lambda row: (row["dtype"], str(row["n_hidden"]), row["batch_size"])):
        cupy = row["variants"].get("CuPy", {})
        fast = cells_of(quick[row["key"]], ["CuPy"]) if row["key"] in quick else [""]
        apart = [ms(cupy[name]) if name in cupy else "" for name in ("launch_ms", "device_ms")]
        apart[1] = f"≤ {apart[1]}" if cupy.get("late") else apart[1]
        lines.append([bench.size_name(row), f"{row['batch_size']:,}", row["dtype"], *cells_of(row), *fast, *apart])
    told = (
        "Launch is the host's time to put a step of CuPy in the queue, and device is the device's own time for it "
        "(≤ where the device had to wait for the host)."
    )
    picture = ["![milliseconds a step over the minibatch and the width](device_steps.png)", ""]
    return ["## A step over sizes", "", told, "", *picture, *table(heads, lines)]


def job_of(content):
    """Return the table of the training job."""
    if not rows(content, "job"):
        return []
    lines = []
    for row in rows(content, "job"):
        to = f"{row['seconds_to_1e6']:.1f}" + ("" if row["measured_to_1e6"] else " (extrapolated)")
        memory = "" if row["device_memory_mib"] is None else f"{row['device_memory_mib']:.0f}"
        bound = list(row["bounds"].values())[-1]
        lines.append([row["key"], f"{row['samples']:,}", f"{bound:.3f}", ms(row.get("apart_nats", "")), to, memory])
    heads = ["`scratchvae train`", "samples", "valid bound", "nats from NumPy's", "s to 1e6 samples", "device MiB"]
    return ["## The training job of the README", "", f"On {content['data']}.", "", *table(heads, lines)]


def launches_of(content):
    """Return the table of launches, which were counted on the stand-in."""
    if not rows(content, "launches"):
        return []
    lines = []
    for row in rows(content, "launches"):
        plain, fewer = row["CuPy"], row["CuPy, fused"]
        moved = [f"{one['bytes'] / 1e6:.1f}" for one in (plain, fewer)]
        lines.append([row["key"], plain["launches"], fewer["launches"], *moved])
    told = "Counted on the stand-in, at the paper's sizes: everything that a step puts in the device's queue."
    heads = ["model", "launches", "launches, fused", "MB", "MB, fused"]
    return ["## Launches of a step", "", told, "", *table(heads, lines)]


def peers_of(content):
    """Return the table of other frameworks."""
    found = rows(content, "frameworks")
    if not found:
        return []
    lines = []
    for row in found:
        cells = [row["left_out"], "", ""] if "left_out" in row else [f"{row['ms']:.3f}", f"{row['ms_median']:.3f}", ""]
        cells[2] = "" if "left_out" in row else f"{row['times_ours']:.2f}"
        lines.append([row["name"], *cells])
    told = "One step each, from pixels on the device to a bound that has been read, with equal first bounds."
    picture = ["![what a step takes beside other frameworks](device_peers.png)", ""]
    return ["## Beside other frameworks", "", told, "", *picture, *table(["", "ms", "median", "times ours"], lines)]


def profile_of(content):
    """Return the profiles as the command prints them, down to the LONGEST operations."""
    text = []
    for row in rows(content, "profile"):
        lines = bench.profile_table(row["profile"]).splitlines()
        first = next(k for k, line in enumerate(lines) if line.split()[:1] == ["#"]) + 1
        last = next(k for k in range(first, len(lines)) if not lines[k].split()[0].isdigit())
        if last - first > LONGEST:
            lines[first + LONGEST : last] = [f"and {last - first - LONGEST} others in device.json"]
        text += [f"### {row['key']}", "", *("    " + line for line in lines), ""]
    if text:
        text = ["## Operation by operation", "", "![the roofline](device_roofline.png)", "", *text]
    return text


def others_of(content):
    """Return the table of what else runs on the device."""
    if not rows(content, "others"):
        return []
    lines = []
    for row in rows(content, "others"):
        if "seconds" in row:
            lines.append([row["key"], *(ms(row["seconds"].get(name, "")) for name in NAMES), "s"])
        else:
            lines.append([row["key"], *cells_of(row), "ms"])
    return ["## What else runs there", "", *table(["", *NAMES, "unit"], lines)]


def comparison(content, old):
    """Return how the steps of both results differ, size by size, and what that is worth."""
    machines = [by_key(one, "machine").get("machine", {}) for one in (content, old)]
    lines = []
    if differ := bench.differences(*machines):
        lines.append("The machines differ, so that the ratios below mean little:")
        lines += [f"  {text}" for text in differ]
    try:
        before = {key: times(row) for key, row in by_key(old, "steps").items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the older device.json has other rows ({type(error).__name__}: {error})") from None
    cells = [["size", "variant", "ms, old", "ms, new", "new / old"]]
    for row in rows(content, "steps"):
        for name, now in times(row).items():
            was = before.get(row["key"], {}).get(name)
            if was is not None:
                cells.append([row["key"], name, ms(was), ms(now), f"{now / was:.2f}"])
    if len(cells) == 1:
        return "\n".join([*lines, "there is no size that both have measured"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*lines, "They were not measured in turns: a ratio near 1 says nothing."])


# Pictures


def write(content, folder):
    """Write the page and return its name."""
    write_atomically(Path(folder) / "device.md", page(content).encode())
    return "device.md"


def draw(content, folder):
    """Draw the pictures for which there are rows, and return their names."""
    return [name for name, picture in PICTURES.items() if picture(content, Path(folder) / name)]


def draw_steps(content, path):
    """Draw milliseconds a step over the minibatch and over the width, in float32; say whether there was any row."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    singles = [row for row in rows(content, "steps") if row["dtype"] == "float32"]
    quick = [row for row in rows(content, "tf32") if row["dtype"] == "float32"]
    if not singles:
        return False
    base = paper(content) or singles[0]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    sides = [("batch_size", "n_hidden", "minibatch M"), ("n_hidden", "batch_size", "hidden units H")]
    for axes, (size, other, label) in zip(figure.subplots(1, 2, sharey=True), sides, strict=True):
        for name in NAMES:
            _line(axes, singles, base, size, other, name, name)
        _line(axes, quick, base, size, other, "CuPy", "CuPy, TF32")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="milliseconds a training step")
        axes.set_title(f"{label} with {'H' if other == 'n_hidden' else 'M'} = {base[other]}")
        axes.grid(alpha=0.3)
        axes.set_xticks(sorted({row[size] for row in singles if row[other] == base[other]}), minor=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", rotation=45)
    first, _ = crossover(content)
    axes = figure.axes[0]
    if first:
        axes.axvline(first, color="gray", linestyle=":")
        text = f" CuPy ahead\n from M = {first:,}"
        axes.annotate(text, (first, 0.98), xycoords=("data", "axes fraction"), va="top", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(_title(content, "What a training step takes, float32"))
    _save(figure, path)
    return True


def _line(axes, found, base, size, other, name, label):
    """Draw one variant over one size, with the other size that of the first row."""
    points = sorted((row[size], times(row)[name]) for row in found if row[other] == base[other] and name in times(row))
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[label], label=label, markersize=4)


def draw_peers(content, path):
    """Draw what a step takes in each framework as bars; say whether there was any row."""
    from matplotlib.figure import Figure

    found = [row for row in rows(content, "frameworks") if "left_out" not in row]
    if not found:
        return False
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    names = [row["name"] for row in found]
    colours = ["tab:green" if name.startswith("scratchvae") else "tab:gray" for name in names]
    bars = axes.barh(names, [row["ms"] for row in found], color=colours)
    axes.bar_label(bars, [f"{row['ms']:.3g}" for row in found], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="milliseconds a training step, the bound read", title=_title(content, "One step, one device"))
    _save(figure, path)
    return True


def draw_roofline(content, path):
    """Draw the rooflines of host and device with the operations of a step; say whether there was any profile."""
    found = [row["profile"] for row in rows(content, "profile") if row["key"] in ("NumPy", "CuPy")]
    if not found:
        return False
    with plots.own_settings():
        figure = plots.Figure(figsize=(10, 5 * len(found)), layout="constrained")
        for axes, one in zip(figure.subplots(len(found), squeeze=False)[:, 0], found, strict=True):
            plots.roofline(axes, one, labelled=5)
            row = one["workload"]
            name = one["machine"].get("gpu", one["machine"]["cpu"])
            axes.set_title(f"{row['backend']}, {row['dtype']}, {one['step_ms']:.3g} ms: {name}", fontsize=9)
        figure.suptitle(_title(content, "The operations of one training step, below what the machine can do"))
        _save(figure, path)
    return True


def _title(content, text):
    """Return a title, which says so where the numbers are none of a device."""
    return f"{text}: STAND-IN, no times of a device" if content["stand_in"] else text


def _save(figure, path):
    """Write a picture, whole or not at all."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


PICTURES = {"device_steps.png": draw_steps, "device_roofline.png": draw_roofline, "device_peers.png": draw_peers}
