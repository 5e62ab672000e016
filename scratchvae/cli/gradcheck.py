"""scratchvae gradcheck: check every hand-derived gradient."""

from scratchvae.backend import BACKENDS
from scratchvae.cli.shared import add_command


def gradcheck(seed=0, backend="numpy"):
    """Hold every gradient against the oracle and against central differences, and print the relative errors.

    First come the layers and the densities, array by array. Then comes a line for each model of the matrix objective x
    posterior x likelihood x network x θ: the largest error of its arrays, or the reason why it is refused. `seed` is
    that of inputs, parameters and noise, and `backend` the one whose arithmetic is checked. The exit code is 1 if a
    gradient fails; the arrays of a model that fails are all printed.
    """
    from scratchvae.gradcheck import TOLERANCE_DIFFERENCES, TOLERANCE_ORACLE, check_matrix, check_parts, summary, table

    print(
        "relative errors ‖ours - theirs‖ / ‖theirs‖, float64; to pass: "
        f"oracle ≤ {TOLERANCE_ORACLE:.0e}, central differences ≤ {TOLERANCE_DIFFERENCES:.0e}"
    )
    failed = 0
    total = 0
    allowed = 0
    refused = 0
    for title, checks in check_parts(seed, backend):
        print(f"\n{title}\n{table(checks)}")
        failed += sum(not check.passed for check in checks)
        total += len(checks)
    print(f"\nobjective | posterior | likelihood | network | θ{'':<27}arrays   oracle  differences")
    for model, checks in check_matrix(seed, backend):
        if isinstance(checks, str):
            print(f"{model:<76} refused: {checks}")
            refused += 1
            continue
        print(f"{model:<76} {summary(checks)}", flush=True)
        if not all(check.passed for check in checks):
            print(table(checks))
        failed += sum(not check.passed for check in checks)
        total += len(checks)
        allowed += 1
    print(f"\n{allowed} models checked, {refused} refused")
    print(f"{total - failed} of {total} pass" + (f", {failed} FAIL" if failed else ""))
    return 1 if failed else 0


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, gradcheck, "check every hand-derived gradient against autograd and central differences")
    p.add_argument("--seed", type=int, help="the seed of inputs, parameters and noise (0)")
    p.add_argument("--backend", choices=BACKENDS, help="the backend whose arithmetic to check (numpy)")
