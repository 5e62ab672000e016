"""scratchvae gradcheck: check every hand-derived gradient."""

from scratchvae.backend import BACKENDS
from scratchvae.cli.shared import add_command


def gradcheck(seed=0, backend="numpy"):
    """Hold every gradient against the oracle and against central differences, and print the relative errors.

    `seed` is that of inputs, parameters and noise, `backend` the one whose arithmetic is checked. The exit code is 1 if
    a gradient fails.
    """
    from scratchvae.gradcheck import TOLERANCE_DIFFERENCES, TOLERANCE_ORACLE, check_everything, table

    print(
        "relative errors ‖ours - theirs‖ / ‖theirs‖, float64; to pass: "
        f"oracle ≤ {TOLERANCE_ORACLE:.0e}, central differences ≤ {TOLERANCE_DIFFERENCES:.0e}"
    )
    failed = 0
    total = 0
    for title, checks in check_everything(seed, backend):
        print(f"\n{title}\n{table(checks)}")
        failed += sum(not check.passed for check in checks)
        total += len(checks)
    print(f"\n{total - failed} of {total} pass" + (f", {failed} FAIL" if failed else ""))
    return 1 if failed else 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, gradcheck, "check every hand-derived gradient against autograd and central differences")
    p.add_argument("--seed", type=int, help="the seed of inputs, parameters and noise (0)")
    p.add_argument("--backend", choices=BACKENDS, help="the backend whose arithmetic to check (numpy)")
