"""Measures this checkout against another commit of it: each in a process of its own, which take turns round by round.

The other commit is unpacked by `git archive` into a temporary folder, so that neither the checkout nor the repository
is touched. `server` makes the steps of both.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from scratchvae.bench import server
from scratchvae.bench.comparing import LEAST_ROUNDS, compared
from scratchvae.bench.machines import commit, machine
from scratchvae.bench.measuring import ASLEEP, steps_in_a_round
from scratchvae.training.loop import progress_bar

HERE = Path(__file__).parent.parent.parent  # the folder in which this scratchvae lies


def against(workloads, revision, repeats=10, progress=None):
    """Measure workloads with this checkout and with another commit, in turns, and return a dict that JSON can hold.

    Its "rows" are those of `compared`, in which "old" is the other commit; "machine" is what `machine` returns, with
    this commit, and "against" names the other one.

    workloads   lists the workloads, as `sweep` returns them.
    revision    names the other commit as git takes it: a hash, a tag, a branch or HEAD~3. HEAD tells what the changes
                do that are not committed yet.
    repeats     is the number of rounds, 10 unless given; more make the intervals narrower. In each round every
                workload is measured with both, and who is first changes from round to round. Fewer than 6 raise a
                ValueError.
    progress    True shows a bar on stderr, False none, and None one on a terminal only.

    A ValueError is raised outside of a git checkout, for a revision that git does not know, and for a commit whose
    bench cannot make these steps.
    """
    if repeats < LEAST_ROUNDS:
        raise ValueError(f"--repeats is {repeats}; expected {LEAST_ROUNDS} or more with --against, for an interval")
    sha = resolved(revision)
    facts = machine(list(dict.fromkeys(work.backend for work in workloads)))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scratchvae-"))
        unpack(sha, folder)
        sides = [stack.enter_context(Server(HERE, "this checkout")), stack.enter_context(Server(folder, revision))]
        for work in workloads:
            for side in sides:
                side.prepare(work)
        counts = [steps_in_a_round(sides[0].ms(k, 3)) for k in range(len(workloads))]
        times = [([], []) for _ in workloads]
        with progress_bar(repeats * len(workloads), 0, progress, unit=" rounds") as bar:
            for r in range(repeats):
                for k, count in enumerate(counts):
                    for which in (0, 1) if r % 2 == 0 else (1, 0):
                        times[k][which].append(sides[which].ms(k, count))
                        time.sleep(ASLEEP)  # until the threads of this process have gone to sleep
                    bar.update(1)
    rows = [compared(work, *both, paired=True) for work, both in zip(workloads, times, strict=True)]
    return {"machine": facts, "against": sha[:7], "repeats": repeats, "steps_in_a_round": counts, "rows": rows}


def resolved(revision):
    """Return the whole hash of a commit that git knows by the name `revision`, or raise a ValueError."""
    if not commit():
        raise ValueError(f"{HERE} is no git checkout: --against needs one, with the commit to compare with in it")
    # a revision that begins with - would be an option
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise ValueError(f"git knows no commit {revision!r} (--against): git log --oneline lists those that it knows")
    return found.stdout.decode().strip()


def unpack(sha, folder):
    """Write the package as it was at a commit into `folder`; a commit without a bench raises a ValueError."""
    packed = git("archive", "--format=zip", sha, "scratchvae")
    if packed.returncode == 0:
        with zipfile.ZipFile(io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder)
    package = Path(folder, "scratchvae")
    if not (package / "bench.py").exists() and not (package / "bench").exists():
        raise ValueError(f"the commit {sha[:7]} has no scratchvae/bench (--against): take a later one")


def git(*words):
    """Run git in the folder of this checkout, and return what subprocess tells, with its output in bytes."""
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, check=False)


class Server:
    """A process that makes the steps of the scratchvae in a folder; `name` is what messages call it.

    Used as a context manager it ends with the block.
    """

    def __init__(self, folder, name):
        self.folder = Path(folder).resolve()
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  it is closed with the process
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-P", server.__file__],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        if self.process.wait() is not None:
            self.process.stdout.close()
        self.errors.close()

    def prepare(self, workload):
        """Make the model of a workload there; a bench that cannot raises a ValueError."""
        given = workload.as_row()
        threads = given.pop("threads", None)
        file = Path(self.ask({"prepare": given, "threads": threads})["file"]).resolve()
        if not file.is_relative_to(self.folder):
            raise ValueError(f"{self.name} was to be measured, and {file} was imported: see PYTHONPATH")

    def ms(self, k, steps):
        """Return the milliseconds of a step of workload number k, from so many steps."""
        return self.ask({"time": k, "steps": steps})["ms"]

    def ask(self, request):
        """Return the answer to a request; one that failed raises a ValueError."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            told = self.errors.read().decode(errors="replace").strip().splitlines()
            answer = {"error": told[-1] if told else "its process ended"}
        else:
            answer = json.loads(line)
        if "error" in answer:
            raise ValueError(f"the bench of {self.name} cannot make this step ({answer['error']})")
        return answer
