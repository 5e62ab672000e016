"""Plant random mutants into the package and say which share of them the test-suite catches.

`python tests/mutants.py` takes 200 places of the package at random, changes one thing at each (a sign, a comparison, a
number, an argument, a statement), and runs the tests that cover its line, in a copy of the checkout. What is left is
printed as a table by file, and the exit code is 1 if fewer than 95 % are caught. A mutant that survives is a blind spot
of the tests, or it changes nothing that can be observed: then tests/mutants_equivalent.md says why, and it does not
count. `--list` prints the mutants and runs nothing.

A change is a splice of the source's bytes, so comments and layout stay, and with them the tests that read them.
Texts, annotations, help, what a `raise` says, and code for a GPU or for Windows alone are not changed.
It needs `coverage` (`pip install -e ".[mutants]"`). Results are kept under runs/mutants, and a run that was broken off
goes on where it was.
"""

import argparse
import ast
import collections
import importlib.util
import io
import itertools
import json
import queue
import random
import re
import signal
import sys
import tempfile
import time
import tokenize
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mutants_covered import Covered, copied, file_of, run_tests

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60  # that a test may take
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.md")
SHARE = 0.95  # that must be caught

# What is exchanged for what

OPERATORS = {"+": ["-"], "-": ["+"], "*": ["/", "+"], "/": ["*"], "//": ["/"], "%": ["//"], "**": ["*"], "@": ["*"]}
OPERATORS |= {"&": ["|"], "|": ["&"], "^": ["|"], "<<": [">>"], ">>": ["<<"]}
OPERATORS |= {f"{sign}=": [*(f"{other}=" for other in others), "="] for sign, others in OPERATORS.items()}
OPERATORS |= {"<": ["<=", ">"], "<=": ["<", ">="], ">": [">=", "<"], ">=": [">", "<="], "==": ["!="], "!=": ["=="]}
OPERATORS |= {"is": ["is not"], "is not": ["is"], "in": ["not in"], "not in": ["in"], "and": ["or"], "or": ["and"]}
TEXTS = {"help", "description", "epilog", "metavar", "usage", "title"}  # arguments that are words for the user
NO_SWAP = {"isinstance", "issubclass", "getattr", "hasattr", "setattr"}  # exchanged arguments are a TypeError at once
ELSEWHERE = re.compile(r"cuda\.|fcntl is None|__name__ ==")  # conditions that do not hold on a CPU with POSIX


class Source:
    """The bytes of a file, its syntax tree, and where in the bytes the nodes and tokens stand."""

    def __init__(self, path, name):
        self.name = name
        self.raw = path.read_bytes()
        self.tree = ast.parse(self.raw)
        self.lines = self.raw.splitlines(keepends=True)
        self.begins = [0]
        for line in self.lines:
            self.begins.append(self.begins[-1] + len(line))
        self.tokens = []  # begin, end, text
        self.comments = []  # where each begins
        for token in tokenize.tokenize(io.BytesIO(self.raw).readline):
            row = token.start[0] - 1
            if token.type in (tokenize.OP, tokenize.NAME):
                begin = self.begins[row] + len(token.line[: token.start[1]].encode())
                self.tokens.append((begin, begin + len(token.string.encode()), token.string))
            elif token.type == tokenize.COMMENT:
                self.comments.append(self.begins[row] + len(token.line[: token.start[1]].encode()))

    def span(self, node):
        """Return the bytes (begin, end) of a node."""
        begin = self.begins[node.lineno - 1] + node.col_offset
        return begin, self.begins[node.end_lineno - 1] + node.end_col_offset

    def text(self, node):
        begin, end = self.span(node)
        return self.raw[begin:end].decode()

    def exchanges(self, left, right):
        """Return the changes of the operator between two nodes, which may be of two words, such as "not in"."""
        inside = range(self.span(left)[1], self.span(right)[0])
        found = [token for token in self.tokens if token[0] in inside and token[2] not in "()"]
        sign = " ".join(text for _, _, text in found)
        return [(found[0][0], found[-1][1], new) for new in OPERATORS[sign]]


# The places where a change can be made


def changes(source, node, parent):
    """Yield the places that a node offers: each a list of changes (begin, end, new text), of which one is made."""
    begin, end = source.span(node)
    match node:
        case ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr()):
            return
        case ast.BinOp(left=left, right=right) if not is_text(right):
            yield source.exchanges(left, right)
        case ast.AugAssign(target=left, value=right):
            yield [(begin, end, "pass")]
            if not is_text(right):
                yield source.exchanges(left, right)
        case ast.Compare(left=left, comparators=others):
            yield from (source.exchanges(*pair) for pair in itertools.pairwise([left, *others]))
        case ast.BoolOp(values=values):
            yield from (source.exchanges(*pair) for pair in itertools.pairwise(values))
        case ast.UnaryOp(op=ast.USub()):
            yield [(begin, begin + 1, "+")]
        case ast.UnaryOp(op=ast.Not()):
            yield [(begin, begin + 3, "")]
        case ast.Constant(value=bool(value)):
            yield [(begin, end, str(not value))]
        case ast.Constant(value=int() | float()):
            yield [(begin, end, new) for new in other_numbers(node.value)]
        case ast.keyword(arg=str(name), value=value) if name not in TEXTS:
            after = next(token for token in source.tokens if token[0] >= end)
            yield [(begin, after[1] if after[2] == "," else end, "")]
            if name == "axis":
                yield [(*source.span(value), "-1" if source.text(value) == "0" else "0")]
        case ast.Call(func=function, args=[first, second, *_]) if source.text(function) not in NO_SWAP:
            a = source.text(first)
            b = source.text(second)
            if a != b and not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                middle = source.raw[source.span(first)[1] : source.span(second)[0]].decode()
                yield [(source.span(first)[0], source.span(second)[1], b + middle + a)]
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not elsewhere(source, test):
            yield [negated(source, test)]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            yield from ([negated(source, test)] for part in node.generators for test in part.ifs)
        case ast.Return(value=value) if value and source.text(value) != "None":
            yield [(*source.span(value), "None")]
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Break() | ast.Continue() | ast.Delete():
            yield [(begin, end, "pass")]
        case ast.Assign(targets=[target], value=value):  # without a first assignment the next line would fail anyway
            again = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)} & {getattr(target, "id", None)}
            if again or isinstance(target, ast.Attribute | ast.Subscript):
                yield [(begin, end, "pass")]


def elsewhere(source, test):
    return ELSEWHERE.search(source.text(test)) is not None


def is_text(node):
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def negated(source, test):
    return (*source.span(test), f"(not ({source.text(test)}))")


def other_numbers(value):
    """Return numbers one away from a number, and, where it is a float, its double and its half."""
    if isinstance(value, int):
        return [str(value + 1), str(value - 1) if value else "(-1)"]
    return [repr(2 * value), repr(value / 2), repr(value + 1.0)] if value else ["1.0", "(-1.0)"]


def parts(source, node):
    """Return the parts of a node that may be changed: no texts, annotations, imports, nor what runs elsewhere alone."""
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Raise() | ast.arg():
            return []
        case ast.Call(func=function) if source.text(function) in ("warnings.warn", "_missing"):
            return []
        case ast.keyword(arg=name) if name in TEXTS or name == "axis":
            return []
        case ast.If(test=test) if elsewhere(source, test):
            return node.orelse
        case ast.AnnAssign(value=value):
            return [value] if value else []
        case ast.FunctionDef(args=arguments, body=body):
            return [arguments, *body]
    return ast.iter_child_nodes(node)


class Place(NamedTuple):
    """Where a change can be made: the changes, the lines of the statement, and those of the function around it."""

    source: Source
    options: list
    lines: range
    function: range | None


def places(source, node=None, parent=None, lines=None, function=None):
    """Yield every place of a file, in the order of its syntax tree. A change that would take a comment away is none."""
    node = node or source.tree
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)  # whose statements have lines of their own
        last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
        lines = range(node.lineno, last + 1)
    if hasattr(node, "lineno"):
        for options in changes(source, node, parent):
            if not any(begin <= comment < end for begin, end, _ in options for comment in source.comments):
                yield Place(source, options, lines, function)
    if isinstance(node, ast.FunctionDef):
        function = range(node.body[0].lineno, node.end_lineno + 1)
    for part in parts(source, node):
        yield from places(source, part, node, lines, function)


class Mutant(NamedTuple):
    """A change of a file. `line` and `becomes` are the line that it begins in, without the blanks around it."""

    file: str
    number: int
    line: str
    becomes: str
    text: bytes
    lines: range
    function: range | None

    def __str__(self):
        return f"`{self.file}`: `{self.line}` → `{self.becomes}`"


def mutant(place, change):
    """Return the mutant of a change at a place, or None where the change leaves the syntax tree as it is."""
    source = place.source
    begin, end, new = change
    text = source.raw[:begin] + new.encode() + source.raw[end:]
    if ast.dump(ast.parse(text)) == ast.dump(source.tree):
        return None
    number = source.raw.count(b"\n", 0, begin)
    line = source.lines[number].decode().strip()
    becomes = text.splitlines()[number].decode().strip()
    return Mutant(source.name, number + 1, line, becomes, text, place.lines, place.function)


def mutants(root, count, seed, only=None):
    """Return `count` mutants of the package below `root`, chosen uniformly over the places of all its files.

    A smaller count with the same seed is the beginning of a larger one.
    """
    files = sorted((root / "scratchvae").rglob("*.py"))
    names = [path.relative_to(root).as_posix() for path in files]
    chosen = [(path, name) for path, name in zip(files, names, strict=True) if only is None or only in name]
    every = [place for path, name in chosen for place in places(Source(path, name))]
    rng = random.Random(seed)
    rng.shuffle(every)
    drawn = (mutant(place, rng.choice(place.options)) for place in every)
    return list(itertools.islice(filter(None, drawn), count))


# The mutants are planted


def outcome(copy, record, mutant, tests, seconds=SECONDS):
    """Plant a mutant in a copy, run the tests, take it out again; return what happened, and the test that saw it.

    It is caught where a test fails, where the package cannot be imported any more, and where the process dies. A test
    that takes too long is ended, and its own class: a loop without end is a fault, but no test has looked.
    """
    if not tests:
        return "not covered", ""
    path = copy / mutant.file
    before = path.read_bytes()
    try:
        _write(path, mutant.text)
        files = sorted({file_of(test) for test in tests})
        code, events = run_tests(copy, record, tests, "-x", *files, MUTANTS_SECONDS=seconds)
    finally:
        _write(path, before)
    seen = next((event["failed"] for event in events if "failed" in event), "")
    last = next((event["begun"] for event in reversed(events) if "begun" in event), "the import")
    if code in (0, 5):
        return "survived", ""
    return ("timed out", last) if code == -signal.SIGALRM else ("caught", seen or last)


def _write(path, source):
    """Write a file of the package, and forget its bytecode, which Python would tell apart by size and second alone."""
    path.write_bytes(source)
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def equivalents(path):
    """Return the mutants, as text, that a file lists as items of the form "- `file`: `line` → `line`" with a proof."""
    found = re.findall(r"^- (`\S+`: `.*` → `.*`)\n((?:  .+\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {mutant for mutant, _ in found}


def known(path, covered):
    """Return the results in a file that still hold: a mutant stays caught, and the rest until any file has changed."""
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        result = json.loads(line)
        same = result["source"] == covered.now[result["mutant"].split("`")[1]]
        if same and (result["outcome"] == "caught" or result["all"] == covered.all):
            results[result["mutant"], result["number"]] = result["outcome"]
    return results


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
            file.write(json.dumps(result) + "\n")
            file.flush()
            results[str(mutant), mutant.number] = what
    return [results[str(mutant), mutant.number] for mutant in chosen]


OUTCOMES = ["caught", "survived", "timed out", "not covered", "equivalent"]


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
