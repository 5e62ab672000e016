"""Everything measured again and written into README.md: python benchmarks/run.py, ten minutes on a quiet machine.

Runs `scratchvae bench`, peers.py and job.py into benchmarks/results, and puts their tables between the README's marks.
With a GPU add --backend numpy,cupy. --readme-only writes the README from the results that are there.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scratchvae import bench

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmark -->\n", "<!-- end of benchmark -->\n"


def facts(machine):
    """The machine in a sentence."""
    (blas, *_) = machine["blas"]
    text = f"{machine['cpu']}, {machine['cores']} cores, OpenBLAS {blas['version']} ({blas['architecture']}) on "
    text += f"{blas['num_threads']} threads, NumPy {machine['numpy']}, commit `{machine['commit']}`"
    return text + (f", {machine['gpu']}, CuPy {machine['cupy']}" if "gpu" in machine else "")


def readme(results):
    """The README's section, from the JSON files in `results`."""
    peers, job, swept = (json.loads((results / f"{name}.json").read_text()) for name in ("peers", "job", "bench"))
    single = swept | {"rows": [row for row in swept["rows"] if row["dtype"] == "float32"]}
    versions = ", ".join(f"{name} {peers['machine'][name]}" for name in ("torch", "jax", "autograd"))
    lines = [
        f"Measured on {facts(peers['machine'])}; {versions}. Medians of the fast half of {peers['rounds']} rounds of "
        f"{peers['steps']} steps in turns; quartiles over all rounds.",
        "",
        "| one training step | ms | times ours | quartiles |",
        "|---|---|---|---|",
    ]
    for row in peers["rows"]:
        if "left_out" in row:
            lines.append(f"| {row['name']} | {row['left_out']} | | |")
        else:
            low, high = row["quartiles"]
            lines.append(f"| {row['name']} | {row['ms']:.2f} | {row['times_ours']:.2f} | {low:.2f} - {high:.2f} |")
    lines += [
        "",
        f"The {job['data'].upper()} job takes {job['peak_memory_mib']:.0f} MiB at its peak, pictures included; 10,000 "
        f"steps leave {job['growth_kib']:.1f} KiB allocated; {job['loop_share']:.1%} of the time of `fit` is the "
        "loop's own, gathering minibatches included.",
        "",
        "![milliseconds per training step against minibatch and width](benchmarks/results/bench.png)",
        "",
        "    " + "\n    ".join(bench.table(single).splitlines()),
        "",
        f"(`scratchvae bench`, commit `{swept['machine']['commit']}`; x products: times its own matrix products; the "
        "same in float64 is in [bench.json](benchmarks/results/bench.json).)",
    ]
    return "\n".join(lines) + "\n"


def write(results):
    """Put the section between the README's marks."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(before + BEGIN + "\n" + readme(results) + "\n" + END + rest.split(END)[1])


def main():
    """Measure, unless told not to, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", help="numpy (default), or numpy,cupy")
    parser.add_argument("--readme-only", action="store_true", help="measure nothing")
    settings = parser.parse_args()
    results = HERE / "results"
    if not settings.readme_only:
        for command in (
            [str(HERE / "peers.py"), "--results", str(results)],
            [str(HERE / "job.py"), "--results", str(results)],
            ["-m", "scratchvae", "bench", "--backend", settings.backend, "--out", str(results)],
        ):
            subprocess.run([sys.executable, *command], check=True)
    write(results)
    print(f"wrote {results}/ and {README}")


if __name__ == "__main__":
    main()
