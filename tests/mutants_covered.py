"""Which tests cover which line of the package, for mutants.py: a run of the suite under coverage, and a plugin for it.

pytest loads this file as a plugin (`-p mutants_covered`), which gives each test a context of coverage, puts the tests
in order, and ends the process where a test takes too long.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

TESTED = ("scratchvae", "tests", "examples", "benchmarks")
READING = ("scratchvae/reading/", "scratchvae/cli/read.py")
SITE = "import coverage\n\ncoverage.process_startup()\n"  # what Python runs first, also in the processes of a test
RC = "[run]\nparallel = true\ndata_file = {data}\nsource = {source}\ncontext = ${{PYTEST_CURRENT_TEST-}}\n"


def digests(root):
    """Return the SHA-256 of every file that a test may depend on, by name; mutants.py and its parts are none."""
    paths = sorted(path for folder in TESTED for path in (root / folder).rglob("*.py"))
    paths = [path for path in paths if not path.name.startswith("mutants")]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def copied(root, folder):
    """Copy a checkout to `folder`, without what git ignores, as a repository of one commit, and return `folder`."""
    ignored = shutil.ignore_patterns(".git", "runs", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "build")
    shutil.copytree(root, folder, ignore=ignored)
    who = ["-c", "user.name=mutants", "-c", "user.email=mutants"]  # some tests ask for the commit
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "a copy"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def run_tests(copy, record, wanted, *arguments, **variables):
    """Run pytest in a copy of the checkout, with this file as its plugin; return the exit code, and what was noted."""
    record.unlink(missing_ok=True)
    environment = environment_of(copy) | {"MUTANTS_RECORD": str(record)}
    if wanted:
        record.with_suffix(".wanted").write_text(json.dumps(wanted), encoding="utf-8")
        environment["MUTANTS_WANTED"] = str(record.with_suffix(".wanted"))
    command = [sys.executable, "-m", "pytest", "-p", "mutants_covered", "-n", "0", "-q", "-p", "no:cacheprovider"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    environment |= {key: str(value) for key, value in variables.items()}
    process = subprocess.Popen([*command, *arguments], cwd=copy, env=environment, start_new_session=True, **quiet)
    try:
        process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a test has left behind
    noted = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return process.returncode, [json.loads(line) for line in noted]


def environment_of(copy):
    """Return the environment in which Python imports package and tests from a copy of the checkout."""
    paths = os.pathsep.join([str(copy), str(copy / "tests")])
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": paths}


def is_imported(copy, file, seconds):
    """Say whether a file of the package, and what all tests begin with, can be imported within so many seconds."""
    names = [file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")]
    names += ["conftest"] if (copy / "tests" / "conftest.py").exists() else []
    command = [sys.executable, "-c", f"import {', '.join(names)}"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        return not subprocess.run(command, cwd=copy, env=environment_of(copy), timeout=seconds, **quiet).returncode
    except subprocess.TimeoutExpired:
        return False


class Covered:
    """Which tests cover a line, how long each takes, and which fail without any mutant; kept in a file.

    Where files of tests have changed, those are run anew; where anything else has changed, all are.
    """

    def __init__(self, root, path):
        self.now = digests(root)
        self.all = hashlib.sha256(json.dumps(self.now).encode()).hexdigest()
        self.path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"digests": {}}
        names = self.now.keys() | kept["digests"].keys()
        stale = {name for name in names if self.now.get(name) != kept["digests"].get(name)}
        if not kept["digests"] or not all(Path(name).match("tests/test_*.py") for name in stale):
            kept = {"seconds": {}, "failed": [], "lines": {}}
            stale = {name for name in self.now if Path(name).match("tests/test_*.py")}
        self.seconds = {test: s for test, s in kept["seconds"].items() if file_of(test) not in stale}
        self.failed = {test for test in kept["failed"] if file_of(test) not in stale}
        self.lines = collections.defaultdict(lambda: collections.defaultdict(set))
        names = list(kept["seconds"])
        for name, lines in kept["lines"].items():
            for line, tests in lines.items():
                self.lines[name][int(line)] = {names[k] for k in tests} & self.seconds.keys()
        if stale:
            self._measure(root, sorted(stale & self.now.keys()))
            self._keep()

    def _measure(self, root, files):
        """Run files of tests under coverage, in a copy of the checkout."""
        with tempfile.TemporaryDirectory() as folder:
            copy = copied(root, Path(folder) / "copy")
            (copy / "sitecustomize.py").write_text(SITE, encoding="utf-8")
            rc = Path(folder) / "coverage.ini"
            rc.write_text(RC.format(data=Path(folder) / "data", source=copy / "scratchvae"), encoding="utf-8")
            record = Path(folder) / "record"
            _, events = run_tests(copy, record, None, *files, MUTANTS_SECONDS=600, COVERAGE_PROCESS_START=rc)
            takers = self._times(events)
            for part in Path(folder).glob("data.*"):
                self._take_lines(part, copy, takers)

    def _times(self, events):
        """Take over times and failures, and return which tests take a fixture that is made once for several."""
        takers = collections.defaultdict(set)
        for event in events:
            if "seconds" in event:
                self.seconds[event["ended"]] = event["seconds"]
            if "failed" in event:
                self.failed.add(event["failed"])
            for fixture in event.get("fixtures", ()):
                takers[fixture].add(event["begun"])
        return takers

    def _take_lines(self, path, copy, takers):
        """Take over which contexts cover which lines, from a file of coverage of one process."""
        from coverage import CoverageData

        data = CoverageData(path)
        data.read()
        for file in data.measured_files():
            lines = self.lines[Path(file).relative_to(copy).as_posix()]
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    test = re.sub(r" \((setup|call|teardown)\)$", "", context)  # in a process that a test has begun
                    lines[line] |= takers.get(context, {test} & self.seconds.keys())

    def _keep(self):
        number = {test: k for k, test in enumerate(self.seconds)}
        lines = {
            name: {line: [number[test] for test in tests] for line, tests in lines.items()}
            for name, lines in self.lines.items()
        }
        kept = {"digests": self.now, "seconds": self.seconds, "failed": sorted(self.failed), "lines": lines}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(kept), encoding="utf-8")

    def tests_of(self, mutant):
        """Return the tests that cover a mutant, the shortest first.

        What is executed when a file is imported is covered by all tests of the function whose head it is in, and
        outside of functions by all tests of the file. To build the reading runs nearly every line of the package, and
        takes long: its tests are asked about the reading itself, and elsewhere only about lines that no other test
        covers.
        """
        lines = self.lines[mutant.file]
        at = mutant.function or lines.keys()
        if mutant.function and mutant.lines.start in mutant.function:
            at = mutant.lines
        tests = set().union(*(lines[line] for line in at if line in lines)) - self.failed
        if not mutant.file.startswith(READING):
            tests = {test for test in tests if not file_of(test).startswith("tests/test_reading")} or tests
        return sorted(tests, key=lambda test: (self.seconds[test], test))


def file_of(test):
    return test.partition("::")[0]


# As a plugin of pytest: contexts of coverage, the order of the tests, and their time


def _note(**event):
    with open(os.environ["MUTANTS_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _context(name):
    if "COVERAGE_PROCESS_START" in os.environ:
        import coverage

        coverage.Coverage.current().switch_context(name)


def pytest_configure():
    """Begin the clock, for a mutant that is imported without end; to import all tests may take half a minute itself."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(30 + int(os.environ["MUTANTS_SECONDS"]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Leave the wanted tests alone, in the wanted order."""
    wanted = os.environ.get("MUTANTS_WANTED")
    if wanted:
        order = {name: k for k, name in enumerate(json.loads(Path(wanted).read_text(encoding="utf-8")))}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Run a test in a context of its own; the alarm ends the process, also inside a call of BLAS."""
    defined = [d for fixtures in item._fixtureinfo.name2fixturedefs.values() for d in fixtures]
    wide = sorted({f"fixture {d.baseid} {d.argname}" for d in defined if d.scope != "function"})
    _note(begun=item.nodeid, fixtures=wide)
    _context(item.nodeid)
    signal.alarm(int(os.environ["MUTANTS_SECONDS"]))
    begun = time.monotonic()
    try:
        return (yield)
    finally:
        pytest_configure()
        _note(ended=item.nodeid, seconds=round(time.monotonic() - begun, 4))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """What a fixture of a module or session covers, all tests that take it cover."""
    if fixturedef.scope != "function":
        _context(f"fixture {fixturedef.baseid} {fixturedef.argname}")
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _context(request._pyfuncitem.nodeid if hasattr(request, "_pyfuncitem") else "")


def pytest_collectreport(report):
    if report.failed:  # a file of tests that cannot be imported
        _note(failed=report.nodeid)


def pytest_runtest_logreport(report):
    if report.failed:
        _note(failed=report.nodeid)
