"""Everything measured again and written into benchmarks/README.md: python benchmarks/run.py, some five minutes.

Runs `scratchvae bench`, peers.py and job.py into benchmarks/results, and puts their tables between the marks of that
page, with those of ranks.py, which takes longer and is run by itself. With a GPU `device.py --out benchmarks/results`
comes first. --readme-only writes the page from the results that are there. The peers' results of another machine, kept
as results/peers-<machine>.json, become a column of their table.
"""

import argparse
import json
import subprocess
import sys
from math import nan
from pathlib import Path

from scratchvae import bench
from scratchvae.backend import array_module
from scratchvae.cli.output import tolerant
from scratchvae.training.checkpoint import write_atomically

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- benchmark -->\n", "<!-- end of benchmark -->\n"


def readme(results):
    """The section of benchmarks/README.md, from the JSON files in `results`."""
    peers, job, swept = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8")) for name in ("peers", "job", "bench")
    )
    single = swept | {"rows": [row for row in swept["rows"] if row["dtype"] == "float32"]}
    versions = ", ".join(f"{name} {version}" for name, version in peers["peers"].items())
    others = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("peers-*.json"))
    ]  # of other machines
    M = peers.get("setting", {}).get("batch_size", bench.Workload.batch_size)  # older files have the paper's sizes
    head = ["one training step", "lower quartile", "median", "upper quartile", "samples/s", "times ours"]
    head += [f"times ours, {other['machine']['cpu']}" for other in others]
    elsewhere = [{row["name"]: row.get("times_ours", nan) for row in other["rows"]} for other in others]
    lines = [
        f"{bench.describe(peers['machine'])}; {versions}. Milliseconds per step over {peers['rounds']} rounds of "
        f"{peers['steps']} steps, taken in turns:",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for row in peers["rows"]:
        if "left_out" in row:
            cells = [row["left_out"], "", "", "", ""]
        else:
            cells = [f"{row[key]:.2f}" for key in ("ms", "ms_median", "ms_upper_quartile")]
            cells += [f"{bench.samples_per_s(row | {'batch_size': M}):,.0f}", f"{row['times_ours']:.2f}"]
        cells += [f"{other[row['name']]:.2f}" if row["name"] in other else "" for other in elsewhere]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    shares = [
        f"| {name} | {job['ms'][name]:.2f} | " + " | ".join(f"{share:.1%}" for share in parts.values()) + " |"
        for name, parts in job["shares"].items()
    ]
    lines += [
        "",
        "Where the time of `fit` goes, gathering minibatches included in the loop; full-vb draws one θ per minibatch,",
        "full-vb-local reparameterises locally:",
        "",
        f"| `fit` of | ms per step | {' | '.join(job['shares']['vae'])} |",
        "|---" * 7 + "|",
        *shares,
        "",
        f"The {job['data'].upper()} job takes {job['peak_memory_mib']:.0f} MiB at its peak, pictures included; "
        f"{job['steps']:,} steps of a small model leave {job['growth_kib']:.1f} KiB allocated.",
        "",
        "![milliseconds per training step against minibatch, width, latents and pixels](results/bench.png)",
        "",
        "    " + "\n    ".join(bench.table(single).splitlines()),
        "",
        f"(`scratchvae bench`, commit {swept['machine']['commit']}: lower quartile, median, upper quartile over "
        f"{swept['repeats']} rounds; x products: times its own matrix products. The same in float64 is in "
        "[bench.json](results/bench.json).)",
    ]
    return "\n".join(lines) + "\n"


def of_ranks(results):
    """The tables of strong and weak scaling in benchmarks/README.md, from ranks.json in `results`."""
    found = json.loads((results / "ranks.json").read_text(encoding="utf-8"))
    rows = {(row["size"], row["batch_size"], row["ranks"]): row for row in found["rows"]}
    lines = [
        f"{bench.describe(found['machine'])}. Milliseconds per step, the lower quartile of {found['rounds']} rounds. "
        "Each process has one BLAS thread:",
        "",
        "| model | M | one process | two ranks | samples/s | times as fast | its products |",
        "|---|---|---|---|---|---|---|",
    ]
    for (size, m, ranks), row in rows.items():
        if ranks == 2:
            ms = f"{rows[size, m, 1]['ms']:,.2f} | {row['ms']:,.2f}"
            gains = f"{row['gain']:.2f} | {row['products_gain']:.2f}"
            lines.append(f"| {size} | {m:,} | {ms} | {row['samples_per_s']:,} | {gains} |")
    lines += [
        "",
        "With as many rows for each rank, which is weak scaling:",
        "",
        "| model | rows for each | one process | two ranks | efficiency |",
        "|---|---|---|---|---|",
    ]
    for (size, m, ranks), row in rows.items():
        if ranks == 1 and (size, 2 * m, 2) in rows:
            two = rows[size, 2 * m, 2]["ms"]
            lines.append(f"| {size} | {m:,} | {row['ms']:,.2f} | {two:,.2f} | {row['ms'] / two:.0%} |")
    if found.get("over_data"):  # not after ranks.py --looks 0
        lines += of_data_sets(found)
    model = found["model"]
    products = f"{1e-9 / model['b']:.0f} GFLOP/s" if model["b"] > 0 else "no time for the products, so short was it"
    lines += [
        "",
        f"The model of the cost is off by {found['model_error']['mean']:.0%} on average and by "
        f"{found['model_error']['largest']:.0%} at most. It says {products}, "
        f"{1e9 * model['c']:.2f} ns for the update of a parameter and {1e9 * model['d']:.2f} ns for its sum.",
    ]
    return "\n".join(lines) + "\n"


def of_data_sets(found):
    """The table of what runs over a data set on ranks, and the memory that a rank has for itself."""
    whole = {
        "evaluate": "the bound of 10,000 images",
        "importance": "log p(x) of 1,000 images, 5,000 draws each",
        "hmc": "20 transitions of Hamiltonian Monte Carlo, 1,000 chains",
    }
    lines = [
        "",
        "What runs over a data set, the median of the rounds, with 784-500-20, and 784-500-3 for the chains:",
        "",
        "| what | one process | two ranks | times as fast |",
        "|---|---|---|---|",
    ]
    seconds = {(row["what"], row["ranks"]): row for row in found["over_data"]}
    for (what, ranks), row in seconds.items():
        if ranks == 2:
            alone = seconds[what, 1]["seconds"]
            lines.append(f"| {whole[what]} | {alone:,.3g} s | {row['seconds']:,.3g} s | {row['gain']:.2f} |")
    if found["own_memory_mib"] is None:
        return lines
    return [
        *lines,
        "",
        f"The second rank of a training on 50,000 images holds {found['own_memory_mib']:.0f} MiB of its own beyond "
        "what its imports take: the images lie in memory that the two share.",
    ]


def of_device(results):
    """What device.py has found on a GPU, device.md in `results`; without it, that no GPU was at hand."""
    page = results / "device.md"
    if page.exists():
        content = json.loads((results / "device.json").read_text(encoding="utf-8"))
        if content["stand_in"] or content["scale"] == "tiny":
            raise ValueError(f"{page} has no times of a device: measure on one, or remove it")
    else:
        told = (
            "**No GPU was at hand when this was written.** There are no GPU numbers here, and the tests marked `gpu` "
        )
        return told + "have not run yet.\n"
    text = page.read_text(encoding="utf-8").partition("\n")[2].lstrip()  # without its title
    return text.replace("](device_", "](results/device_").replace("\n### ", "\n#### ").replace("\n## ", "\n### ")


SECTIONS = {
    (BEGIN, END): readme,
    ("<!-- ranks -->\n", "<!-- end of ranks -->\n"): of_ranks,
    ("<!-- device -->\n", "<!-- end of device -->\n"): of_device,
}


def write(results):
    """Put the sections between the marks of that page."""
    text = README.read_text(encoding="utf-8")
    for (begin, end), section in SECTIONS.items():
        before, rest = text.split(begin)
        text = before + begin + "\n" + section(results) + "\n" + end + rest.split(end)[1]
    write_atomically(README, text.encode())


def main():
    """Measure, unless told not to, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", help="numpy (default), or numpy,cupy")
    parser.add_argument("--readme-only", action="store_true", help="measure nothing")
    settings = parser.parse_args()
    results = HERE / "results"
    try:
        for backend in settings.backend.split(","):
            array_module(backend)  # now, not after all the measuring
    except ValueError as error:
        parser.error(str(error))
    if not settings.readme_only:
        for command in (
            [str(HERE / "peers.py"), "--results", str(results)],
            [str(HERE / "job.py"), "--results", str(results)],
            ["-m", "scratchvae", "bench", "--backend", settings.backend, "--out", str(results)],
        ):
            subprocess.run([sys.executable, *command], check=True)
    try:
        write(results)
    except ValueError as error:
        parser.error(str(error))
    print(f"wrote {results}/ and {README}")


if __name__ == "__main__":
    with tolerant():
        main()
