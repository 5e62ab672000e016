"""The table that is printed of what was measured, and what is read from it."""

import numpy as np

from scratchvae.bench.measuring import peak_name
from scratchvae.bench.workloads import LATER, PAPER, of_row

PAPER_GFLOPS = 40  # section 5 of the paper: "an effective 40 GFLOPS"


def table(result):
    """Return what `run` returned as a table in text, with a line for each workload and what follows from them below."""
    rows = result["rows"]
    device = any("device_ms" in row for row in rows)
    columns = [*NAMES, "ms", "median", "upper", "samples/s", "x products", "GFLOP/s", "of peak"]
    columns += ["device", "launch", "with transfers"] if device else []
    cells = [columns]
    for row in rows:
        share = row["gflops"] / result["peak_gflops"][peak_name(row)]
        cells.append([*named(row), *(f"{row[key]:.2f}" for key in ("ms", "ms_median", "ms_upper_quartile"))])
        cells[-1] += [f"{samples_per_s(row):,.0f}", f"{row['over_products']:.2f}", f"{row['gflops']:.0f}"]
        cells[-1] += [f"{share:.0%}"]
        if device:
            times = [row.get(key) for key in ("device_ms", "launch_ms", "with_transfers_ms")]
            cells[-1] += ["" if ms is None else f"{ms:.3f}" for ms in times]
    lines = aligned(cells)
    peaks = ", ".join(f"{kind} {value:,.0f}" for kind, value in result["peak_gflops"].items())
    lines.append(f"peak of a large matrix product, GFLOP/s: {peaks}; the paper names an effective {PAPER_GFLOPS}")
    starts = [f"{backend} {s} s" for backend, s in result["cold_start_s"].items()]
    lines.append(f"from the start of a new process to its first bound: {', '.join(starts)}")
    lines += [f"cost in {name}: {text}" for name, text in linearity(rows).items()]
    return "\n".join(lines + crossover(rows))


NAMES = ("backend", "model", "D-H-J", "M", "dtype", "threads")  # the columns that name a workload, see `named`


def named(row):
    """Return the cells of NAMES for a row of results; `threads` is empty where the process's own number holds."""
    threads = row.get("threads")
    cells = [row["backend"], model_name(row), size_name(row), str(row["batch_size"]), row["dtype"]]
    return [*cells, "" if threads is None else str(threads)]


def model_name(row):
    """Return the model of a row in words: its name, and what it has that is not the default."""
    work = of_row(row)
    words = [work.model]
    words += [f"{work.posterior} posterior"] if work.posterior != LATER["posterior"] else []
    words += [f"flow of {work.flow}"] if work.flow else []
    words += [work.likelihood] if work.likelihood != LATER["likelihood"] else []
    words += [f"L^{work.estimator}" if work.estimator in ("A", "B") else work.estimator] if work.estimator else []
    words += [f"L = {work.n_samples}"] if work.n_samples != 1 else []
    return ", ".join(words)


def size_name(row):
    """Return the sizes of a row from the pixels to the latents, such as 784-500-20 or 784-conv16-conv32-500-20."""
    hidden = row["n_hidden"] if isinstance(row["n_hidden"], list | tuple) else [row["n_hidden"]]
    convolutions = [f"conv{n}" for n in row.get("channels", ())]
    return "-".join(map(str, [row["n_visible"], *convolutions, *hidden, row["n_latent"]]))


def samples_per_s(row):
    """Return how many datapoints a second a row makes; that of an older file is reckoned from its milliseconds."""
    return row.get("samples_per_s", 1e3 * row["batch_size"] / row["ms"])


def aligned(cells, left=()):
    """Return rows of texts as lines with columns of one width; a column without any text below its head is left out.

    The first row has the heads. `left` lists those of the columns whose texts begin at the left; the others end at the
    right.
    """
    columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for k, (column, width) in enumerate(zip(columns, widths, strict=True)):
        fill = str.ljust if column[0] in left else str.rjust
        columns[k] = [fill(cell, width) for cell in column]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def is_papers(row, *free):
    """Say whether a row is the paper's model in float32, with the paper's sizes but for the names that are `free`."""
    fixed = {"dtype": "float32", "model": "vae"} | LATER | {key: PAPER[key] for key in PAPER if key not in free}
    return all(row.get(key, LATER.get(key)) == value for key, value in fixed.items() if key not in free)


def linearity(rows):
    """Return how a step's time grows with M, H and D, as a dict of texts "a + b M ms, within c% from … to …".

    Each is the line of least relative squares through NumPy's float32 rows at the paper's other sizes; a letter with
    fewer than three of these rows is left out.
    """
    fits = {}
    for letter, name in [("M", "batch_size"), ("H", "n_hidden"), ("D", "n_visible")]:
        mine = [row for row in rows if row["backend"] == "numpy" and is_papers(row, name)]
        points = [(row[name], row["ms"]) for row in mine if isinstance(row[name], int)]
        if len(points) < 3:
            continue
        size, ms = np.array(points, float).T
        (b, a), *_ = np.linalg.lstsq(np.stack([size / ms, 1 / ms], 1), np.ones(len(ms)))
        worst = np.abs((a + b * size) / ms - 1).max()
        fits[letter] = f"{a:.2f} + {b:.4f} {letter} ms, within {worst:.0%} from {size.min():.0f} to {size.max():.0f}"
    return fits


def crossover(rows):
    """Return a list of one text that says from which minibatch on the device is faster than the host.

    The rows compared are those of float32 at the paper's other sizes. If there are none, the list is empty.
    """
    sizes = {}
    for row in rows:
        if is_papers(row, "batch_size"):
            sizes.setdefault(row["batch_size"], {})[row["backend"]] = row["ms"]
    both = {m: times for m, times in sorted(sizes.items()) if len(times) == 2}
    behind = [m for m, times in both.items() if times["cupy"] >= times["numpy"]]
    ahead = [m for m in both if m > max(behind, default=0)]
    if not both:
        return []
    return [f"CuPy overtakes NumPy at M = {ahead[0]}" if ahead else f"CuPy is behind NumPy at M = {max(both)}"]
