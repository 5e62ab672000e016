"""Makes training steps of the scratchvae that is found on PYTHONPATH, for `against`, in a process of its own.

It is started as `python -P server.py` and takes only what every scratchvae since 0.2.0 has: `Workload`,
`training_step` and `minibatches` of scratchvae.bench, and `move` of scratchvae.backend. Each line that comes in is a
JSON object, and each is answered with one:

    {"prepare": {…}, "threads": T}   makes a workload of these fields, whose steps take T threads of BLAS, or with null
                                     those that the process has. {"file": …} says which scratchvae it is.
    {"time": k, "steps": n}          makes n steps of workload number k, after two that wake the threads, and answers
                                     {"ms": …}, the milliseconds of one.

What fails is answered with {"error": …}.
"""

import contextlib
import json
import sys
import time


def prepared(given, threads):
    """Return a function of a number of steps that makes so many and returns the milliseconds of one.

    given     holds fields of a Workload.
    threads   is the number of BLAS threads, or None for those that the process has.
    """
    from threadpoolctl import threadpool_limits

    from scratchvae.backend import move
    from scratchvae.bench import Workload, minibatches, training_step

    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    work = Workload(**given)
    step = training_step(work)
    x = [move(batch, work.backend) for batch in minibatches(work)]

    def make(steps):
        begun = time.perf_counter()
        for t in range(steps):
            bound = step(t, x[t % len(x)])
        float(bound)  # a device is waited for
        return 1e3 * (time.perf_counter() - begun) / steps

    def timed(steps):
        with contextlib.nullcontext() if threads is None else threadpool_limits(threads, "blas"):
            make(2)
            return make(steps)

    return timed


def serve(lines, answer):
    """Answer requests until there are no more; `lines` gives them as texts, and `answer` takes a dict."""
    works = []
    for line in lines:
        request = json.loads(line)
        try:
            if "prepare" in request:
                import scratchvae

                works.append(prepared(request["prepare"], request["threads"]))
                answer({"file": scratchvae.__file__})
            else:
                answer({"ms": works[request["time"]](request["steps"])})
        except Exception as error:  # whatever the other commit raises is told by the process that asked
            answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})


if __name__ == "__main__":
    serve(sys.stdin, lambda answered: print(json.dumps(answered), flush=True))
