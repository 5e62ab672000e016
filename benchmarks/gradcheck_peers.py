"""The gradient checkers of torch, JAX and autograd beside this one. python benchmarks/gradcheck_peers.py

Each is given the losses and gradients of benchmarks/gradcheck.py, in NumPy and in float64, as a function with a
hand-written derivative: torch.autograd.Function, jax.custom_vjp, autograd's primitive. Counted is how many of the known
faults are found at the default settings, for how many the wrong array is named, for how many the fault is, how many
right gradients fail, and how long a check takes. A library that is not installed is left out: pip install torch jax.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from gradcheck import CASES, FAULTS
from output import prepare, write

from scratchvae.gradcheck import check_gradients


def with_us(loss, params, gradient, name):
    """Check with this library, and return (found, array named, what is said)."""
    report = check_gradients(loss, params, gradient(None), sizes={"M": 7, "N": 100})
    failed = [row for row in report if not row.passed]
    return bool(failed), [row.name for row in failed] == [name], failed[0].notes[0] if failed else ""


def with_torch(loss, params, gradient, name):
    """Check with torch.autograd.gradcheck."""
    import torch

    class Given(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arrays):
            return torch.tensor(np.sum(loss(dict(zip(params, (a.detach().numpy() for a in arrays), strict=True)))))

        @staticmethod
        def backward(ctx, d):
            return tuple(d * torch.tensor(gradient(None)[key]) for key in params)

    inputs = tuple(torch.tensor(array, requires_grad=True) for array in params.values())
    try:
        torch.autograd.gradcheck(Given.apply, inputs)
    except Exception as error:
        said = str(error)
        return True, f"input {list(params).index(name)}" in said, said
    return False, False, ""


def with_jax(loss, params, gradient, name):
    """Check with jax.test_util.check_grads, in reverse mode."""
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)

    def value(arrays):
        return np.asarray(np.sum(loss({key: np.asarray(array) for key, array in arrays.items()})), np.float64)

    @jax.custom_vjp
    def given(arrays):
        return jax.pure_callback(value, jax.ShapeDtypeStruct((), np.float64), arrays)

    given.defvjp(lambda arrays: (given(arrays), None), lambda _, d: ({k: d * g for k, g in gradient(None).items()},))
    try:
        check_grads(given, (params,), order=1, modes=("rev",))
    except Exception as error:
        return True, name in str(error), str(error)
    return False, False, ""


def with_autograd(loss, params, gradient, name):
    """Check with autograd.test_util.check_grads, in reverse mode."""
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    given = primitive(lambda *arrays: float(np.sum(loss(dict(zip(params, arrays, strict=True))))))
    defvjp(given, *[lambda ans, *arrays, key=key: lambda d: d * gradient(None)[key] for key in params])
    try:
        check_grads(given, modes=["rev"], order=1)(*params.values())
    except Exception as error:
        return True, name in str(error), str(error)
    return False, False, ""


CHECKERS = {
    "scratchvae": with_us,
    "torch.autograd.gradcheck": with_torch,
    "jax check_grads": with_jax,
    "autograd check_grads": with_autograd,
}


def available(checker):
    """Say whether the library of a checker is installed."""
    try:
        return CHECKERS[checker](*right("affine", 0), "W")[0] is False
    except ImportError:
        return False


def right(case, seed):
    """Return (loss, params, gradient) of a case, the gradient as a function of anything."""
    params, loss, grads = CASES[case](seed)
    found = grads(params)
    return loss, params, lambda _: found


def counted(checker, seeds):
    """Return the counts of a checker over all cases, faults and seeds."""
    check = CHECKERS[checker]
    counts = {"faults": 0, "found": 0, "array named": 0, "fault named": 0, "right": 0, "false alarms": 0}
    seconds = []
    for case, faults in FAULTS.items():
        for seed in range(seeds):
            loss, params, gradient = right(case, seed)
            counts["right"] += 1
            begun = time.perf_counter()
            counts["false alarms"] += check(loss, params, gradient, "")[0]
            seconds.append(time.perf_counter() - begun)
            for words, name, fault in faults:
                wrong = fault(gradient(None), params, CASES[case](seed)[2])
                found, array, said = check(loss, params, lambda _, wrong=wrong: wrong, name)
                counts["faults"] += 1
                counts["found"] += found
                counts["array named"] += array
                counts["fault named"] += words in said
    return counts | {"ms": float(f"{1e3 * np.median(seconds):.3g}")}


def main(arguments=None):
    """Count with every checker that is installed, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds of each case (5)")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    given = parser.parse_args(arguments)
    if given.out:
        prepare(parser, given.out.parent)
    warnings.simplefilter("ignore")
    results = {checker: counted(checker, given.seeds) for checker in CHECKERS if available(checker)}
    names = list(next(iter(results.values())))
    print(f"{'':<26}" + "".join(f"{name:>14}" for name in names))
    for checker, counts in results.items():
        print(f"{checker:<26}" + "".join(f"{counts[name]:>14}" for name in names))
    if given.out:
        write(given.out, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
