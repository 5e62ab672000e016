"""Plant random mutants into the package and say which share of them the test-suite catches.

`python tests/mutants.py` takes 200 places of the package at random, changes one thing at each (a sign, a comparison, a
number, an argument, a statement), and runs the tests that cover its line, in a copy of the checkout. What is left is
printed as a table by file, and the exit code is 1 if fewer than 95 % are caught. A mutant that survives is a blind spot
of the tests, or it changes nothing that can be observed: then tests/mutants_equivalent.md says why, and it does not
count. At the end the tests that caught something run once more without any mutant: what a test has caught that fails
there too is "flaky", and not caught. `--list` prints the mutants and runs nothing.

What can be changed is said in mutants_list.py, and how the tests of a line are found in mutants_covered.py.
It needs `coverage` (`pip install -e ".[mutants]"`). Results are kept under runs/mutants, and a run that was broken off
goes on where it was.
"""

import argparse
import collections
import importlib.util
import json
import queue
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants_covered import Covered, copied, file_of, is_imported, run_tests
from mutants_list import mutants

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60  # that a test may take
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.md")
SHARE = 0.95  # that must be caught
IMPORT = "the import"  # what sees a mutant that breaks the package before a test begins
AGAIN = ("error", "flaky")  # nothing is known of such a mutant: the next run plants it again


def outcome(copy, record, mutant, tests, seconds=SECONDS):
    """Plant a mutant in a copy, run the tests, take it out again; return what happened, and the test that saw it.

    It is caught where a test fails, where package or tests cannot be imported any more, and where the process dies. A
    test that takes too long is ended, and its own class: a loop without end is a fault, but no test has looked. Where
    pytest ends in another way, interrupted or at odds with itself, nothing is known of the mutant: that is an "error".
    """
    if not tests:
        return "not covered", ""
    path = copy / mutant.file
    before = path.read_bytes()
    try:
        _write(path, mutant.text)
        files = sorted({file_of(test) for test in tests})
        code, events = run_tests(copy, record, tests, "-x", *files, MUTANTS_SECONDS=seconds)
        seen = next((event["failed"] for event in events if "failed" in event), "")  # a test, or a file of tests
        if code == -signal.SIGALRM:
            return "timed out", died_in(code, events)
        if seen or died_in(code, events):
            return "caught", seen or died_in(code, events)
        if code in (0, 5):
            return "survived", ""
        return ("error", f"pytest ended with {code}") if is_imported(copy, mutant.file, seconds) else ("caught", IMPORT)
    finally:
        _write(path, before)


def died_in(code, events):
    """Return the test in which the process of pytest died, by a signal or an exit; "" if pytest came to its own end."""
    begun = [event["begun"] for event in events if "begun" in event]
    ended = {event["ended"] for event in events if "ended" in event}
    if begun and begun[-1] not in ended:
        return begun[-1]
    return "" if code in range(6) else (begun or [IMPORT])[-1]


def failing(copy, record, tests):
    """Return those of the tests that fail in a copy that has no mutant, or that end the process there."""
    failed = set()
    waiting = sorted(tests)
    while waiting:
        files = sorted({file_of(test) for test in waiting})
        code, events = run_tests(
            copy, record, waiting, "--continue-on-collection-errors", *files, MUTANTS_SECONDS=SECONDS
        )
        failed |= {event["failed"] for event in events if "failed" in event}
        died = died_in(code, events)
        if not died and code in (0, 1, 5):
            break
        if died not in waiting:
            raise RuntimeError(f"pytest ended with {code} in a copy of the checkout that has no mutant: run it and see")
        failed.add(died)
        begun = {event.get("begun") for event in events}
        waiting = [test for test in waiting if test not in begun]
    return failed & set(tests)


def _write(path, source):
    """Write a file of the package, and forget its bytecode, which Python would tell apart by size and second alone."""
    path.write_bytes(source)
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def equivalents(path):
    """Return the mutants, as text, that a file lists as items of the form "- `file`: `line` → `line`" with a proof."""
    found = re.findall(r"^- (`\S+`: `.*` → `.*`)\n((?:  .+\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {mutant for mutant, _ in found}


def known(path, covered):
    """Return the results in a file that still hold, by mutant; of two results of one the later counts.

    A mutant stays caught while the test that caught it is there, and the rest holds until any file has changed.
    """
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        result = json.loads(line)
        results[result["mutant"], result["number"]] = result

    def holds(result):
        same = result["source"] == covered.now[result["mutant"].split("`")[1]]
        there = result["test"] in {IMPORT, *covered.seconds, *covered.now}
        return same and ((result["outcome"] == "caught" and there) or result["all"] == covered.all)

    return {key: r for key, r in results.items() if r["outcome"] not in AGAIN and holds(r)}


def run(root, chosen, covered, out, workers):
    """Plant all mutants that have no result yet, and return the outcome of every one, in order."""
    results = known(out, covered)
    waiting = [m for m in chosen if (str(m), m.number) not in results]
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(workers) as pool,
        out.open("a", encoding="utf-8") as file,
    ):
        copies = queue.SimpleQueue()
        for k in range(workers):
            copies.put((copied(root, Path(folder) / str(k)), Path(folder) / f"record{k}"))

        copy, record = copies.get()  # what is caught must be a mutant's doing
        easy = sorted(covered.seconds.keys() - covered.failed, key=covered.seconds.get)[:20]
        if run_tests(copy, record, easy, *sorted({file_of(test) for test in easy}), MUTANTS_SECONDS=SECONDS)[0]:
            raise RuntimeError("tests fail in a copy of the checkout that has no mutant: run pytest and see")
        copies.put((copy, record))

        def keep(result):
            file.write(json.dumps(result) + "\n")
            file.flush()
            results[result["mutant"], result["number"]] = result

        def one(mutant):
            copy, record = copies.get()
            begun = time.monotonic()
            try:
                return *outcome(copy, record, mutant, covered.tests_of(mutant)), time.monotonic() - begun
            finally:
                copies.put((copy, record))

        for k, (mutant, (what, test, seconds)) in enumerate(zip(waiting, pool.map(one, waiting), strict=True), 1):
            print(f"{k:>4}/{len(waiting)} {what:<11} {seconds:>5.1f} s {mutant.number:>4} {mutant}", flush=True)
            result = {"mutant": str(mutant), "number": mutant.number, "outcome": what, "test": test}
            result |= {"seconds": round(seconds, 1), "source": covered.now[mutant.file], "all": covered.all}
            keep(result)

        found = [results[str(mutant), mutant.number] for mutant in chosen]
        caught = [result for result in found if result["outcome"] == "caught"]
        copy, record = copies.get()  # what caught a mutant must stay silent without it
        failed = failing(copy, record, {result["test"] for result in caught} - {IMPORT})
        for result in caught:
            if result["test"] in failed:
                print(f"flaky: {result['test']} fails without {result['mutant']}", flush=True)
                keep(result | {"outcome": "flaky"})
    return [results[str(mutant), mutant.number]["outcome"] for mutant in chosen]


OUTCOMES = ["caught", "survived", "timed out", "not covered", "equivalent", *AGAIN]


def table(chosen, outcomes, proven):
    """Print how many mutants of each file came to what, and return the share that is caught of those that count."""
    counts = collections.defaultdict(collections.Counter)
    for mutant, what in zip(chosen, outcomes, strict=True):
        what = "equivalent" if str(mutant) in proven and what != "caught" else what
        counts[mutant.file][what] += 1
        counts["all"][what] += 1
    print(f"{'file':<48} {'planted':>8} " + " ".join(f"{name:>11}" for name in OUTCOMES))
    for name in sorted(counts, key=lambda name: (name == "all", name)):
        columns = " ".join(f"{counts[name][what]:>11}" for what in OUTCOMES)
        print(f"{name:<48} {counts[name].total():>8} {columns}")
    count = counts["all"].total() - counts["all"]["equivalent"]
    share = counts["all"]["caught"] / max(count, 1)
    print(f"{counts['all']['caught']} of {count} are caught: {100 * share:.1f} %")
    return share


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many mutants (200)")
    parser.add_argument("--seed", type=int, default=0, help="the seed they are chosen with (0)")
    parser.add_argument("--only", metavar="FILE", help="only in files whose name has this in it")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--workers", type=int, default=1, help="how many run at a time (1)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutants", help="a folder (runs/mutants)")
    given = parser.parse_args(arguments)
    chosen = mutants(ROOT, given.count, given.seed, given.only)
    if given.list:
        for mutant in chosen:
            print(f"{mutant.number:>4} {mutant}")
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    covered = Covered(ROOT, given.out / "covered.json")
    print(f"{len(covered.seconds)} tests, without {sorted(covered.failed)}, which fail as it is")
    outcomes = run(ROOT, chosen, covered, given.out / "results.jsonl", given.workers)
    return 0 if table(chosen, outcomes, equivalents(EQUIVALENT)) >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
