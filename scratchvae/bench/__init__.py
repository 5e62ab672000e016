"""Measures what a training step costs with NumPy and CuPy, over minibatch, width, latents, pixels and precision.

workloads.py has the steps and models that are measured, machines.py and peaks.py what their times depend on, and
measuring.py the rounds in which they are timed; report.py makes the table. profiling.py takes one step apart into its
operations, with device_profile.py and device_clock.py for those of a device. comparing.py says whether times differ
beyond noise, and commits.py measures two commits in turns.

`scratchvae bench` is its command, and the scripts in benchmarks/ measure with it what is committed there.
"""

from scratchvae.bench.commits import against
from scratchvae.bench.comparing import (
    LEAST_ROUNDS,
    compare,
    comparison_table,
    differences,
    older,
    ratio_interval,
    workloads_of,
)
from scratchvae.bench.machines import commit, describe, load, machine
from scratchvae.bench.measuring import cold_start, prepare, run, summary
from scratchvae.bench.peaks import bandwidth, peak_gflops
from scratchvae.bench.profiling import profile, profile_table
from scratchvae.bench.report import crossover, linearity, model_name, samples_per_s, size_name, table
from scratchvae.bench.workloads import (
    MODELS,
    PAPER,
    SIZES,
    TrainingStep,
    Workload,
    matrix_products,
    minibatches,
    model_of,
    of_row,
    sweep,
    training_step,
)

__all__ = [
    "LEAST_ROUNDS",
    "MODELS",
    "PAPER",
    "SIZES",
    "TrainingStep",
    "Workload",
    "against",
    "bandwidth",
    "cold_start",
    "commit",
    "compare",
    "comparison_table",
    "crossover",
    "describe",
    "differences",
    "linearity",
    "load",
    "machine",
    "matrix_products",
    "minibatches",
    "model_name",
    "model_of",
    "of_row",
    "older",
    "peak_gflops",
    "prepare",
    "profile",
    "profile_table",
    "ratio_interval",
    "run",
    "samples_per_s",
    "size_name",
    "summary",
    "sweep",
    "table",
    "training_step",
    "workloads_of",
]
