"""tests/mutants.py: what it changes, what it leaves alone, and what it says of a mutant in a package of three lines."""

import ast
import io
import json
import tokenize
from pathlib import Path
from types import SimpleNamespace

import mutants
import mutants_covered
import mutants_list
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def few():
    return mutants_list.mutants(ROOT, 20, 3, only="inference/h")


def of(tmp_path, text):
    """All mutants of a file with this text, as the lines that they begin in."""
    path = tmp_path / "file.py"
    path.write_text(text, encoding="utf-8")
    every = mutants_list.places(mutants_list.Source(path, "file.py"))
    return [mutants_list.mutant(place, change) for place in every for change in place.options]


def test_the_same_seed_gives_the_same_mutants_and_another_seed_others(few):
    assert mutants_list.mutants(ROOT, 10, 3, only="inference/h") == few[:10]
    assert mutants_list.mutants(ROOT, 10, 4, only="inference/h") != few[:10]
    assert len({str(mutant) for mutant in few}) > 15


def comments(text):
    return [token.string for token in tokenize.tokenize(io.BytesIO(text).readline) if token.type == tokenize.COMMENT]


def test_a_mutant_parses_and_differs_in_one_statement_and_keeps_every_comment(few):
    for mutant in few:
        before = (ROOT / mutant.file).read_bytes()
        assert ast.dump(ast.parse(before)) != ast.dump(ast.parse(mutant.text)), str(mutant)
        assert comments(before) == comments(mutant.text) != []
        lines = before.splitlines()
        after = mutant.text.splitlines()
        above = mutant.lines[0] - 1
        below = len(lines) - mutant.lines[-1]
        assert lines[:above] == after[:above] and lines[len(lines) - below :] == after[len(after) - below :], str(
            mutant
        )


WHAT = {
    "y = a - b * σ": ["y = a + b * σ", "y = a - b / σ", "y = a - b + σ"],
    "y = -a": ["y = +a"],
    "y = 3": ["y = 4", "y = 2"],
    "y = 0.5": ["y = 1.0", "y = 0.25", "y = 1.5"],
    "y = a < b": ["y = a <= b", "y = a > b"],
    "y = a  is not (b)": ["y = a  is (b)"],
    "y = a and b": ["y = a or b"],
    "y = not (a)": ["y =  (a)"],
    "y = True": ["y = False"],
    "y = f(a, key=b)": ["y = f(a, )"],
    "y = f(key=b, other=c)": ["y = f( other=c)", "y = f(key=b, )"],
    "y = f(σ, b)": ["y = f(b, σ)"],
    "y = f(axis=0)": ["y = f()", "y = f(axis=-1)"],
    "y = f(axis=-1)": ["y = f()", "y = f(axis=0)"],
    "y = a if b else c": ["y = a if (not (b)) else c"],
    "y = [a for a in b if a]": ["y = [a for a in b if (not (a))]"],
    "f(a)": ["pass"],
    "a += b": ["pass", "a -= b", "a = b"],
    "a.b = c": ["pass"],
    "a = f(a)": ["pass"],
    "raise f(3, 4)": ["pass"],
}


@pytest.mark.parametrize("line", WHAT)
def test_what_is_changed(line, tmp_path):
    assert [mutant.becomes for mutant in of(tmp_path, f"{line}\n")] == WHAT[line]


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring with 3 - 2."""\n',
        'y = f"{a - 3}"\n',
        'y = warnings.warn("a" * 3, stacklevel=2)\n',
        "def f(a: 3) -> 4:\n    b: 5\n",
        'y = "grey"\n',
        "a.b = f(  # why\n)\n",
        'y = add("--k", help="a" * 3, metavar=names(1))\n',
        "if __name__ == 3:\n    f(a)\n",
    ],
)
def test_what_is_left_alone(text, tmp_path):
    assert of(tmp_path, text) == []


PACKAGE = '''"""Three lines."""


def twice(x):
    y = 2 * x  # a comment
    while y > 100:
        y -= 1
    return y


def never():
    return 1
'''
TESTS = """from scratchvae import twice


def test_small():
    assert twice(2) == 4


def test_large():
    assert twice(51) == 100
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkout with a package of one file and its two tests, and which of them cover what."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "scratchvae").mkdir()
    (root / "scratchvae" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    (root / "tests").mkdir()
    (root / "tests" / "test_tiny.py").write_text(TESTS, encoding="utf-8")
    (root / "tests" / "mutants_covered.py").write_bytes((ROOT / "tests" / "mutants_covered.py").read_bytes())
    return root


SMALL = "tests/test_tiny.py::test_small"
LARGE = "tests/test_tiny.py::test_large"


@pytest.mark.parametrize(
    ("line", "becomes", "tests", "expected"),
    [
        ("y = 2 * x  # a comment", "y = 2 / x  # a comment", [SMALL, LARGE], ("caught", SMALL)),
        ("while y > 100:", "while y > 99:", [SMALL], ("survived", "")),
        ("y -= 1", "y += 1", [SMALL, LARGE], ("timed out", LARGE)),
        ("return 1", "return 2", [], ("not covered", "")),
    ],
)
def test_a_planted_mutant_is_caught_or_survives_and_a_timeout_is_no_catch(tiny, line, becomes, tests, expected):
    source = mutants_list.Source(tiny / "scratchvae" / "__init__.py", "scratchvae/__init__.py")
    made = [mutants_list.mutant(place, change) for place in mutants_list.places(source) for change in place.options]
    (mutant,) = [mutant for mutant in made if (mutant.line, mutant.becomes) == (line, becomes)]
    before = source.raw
    assert mutants.outcome(tiny, tiny / "record", mutant, tests, seconds=1 if "+" in becomes else 30) == expected
    assert (tiny / mutant.file).read_bytes() == before


def test_the_reading_is_asked_about_itself_and_elsewhere_only_about_lines_that_no_other_test_covers():
    covered = object.__new__(mutants_covered.Covered)
    reading = "tests/test_reading.py::test_build"
    covered.seconds = {reading: 1.0, LARGE: 3.0, SMALL: 2.0}
    covered.failed = set()
    inside = ["scratchvae/reading/page.py", "scratchvae/cli/read.py"]
    outside = ["scratchvae/cli/reader.py", "scratchvae/readings.py"]
    covered.lines = {file: {5: {reading, LARGE, SMALL}, 6: {reading}} for file in inside + outside}

    def asked(file):
        at = [SimpleNamespace(file=file, function=range(4, 8), lines=range(line, line + 1)) for line in (5, 6, 7)]
        return [covered.tests_of(mutant) for mutant in at]

    for file in outside:
        assert asked(file) == [[SMALL, LARGE], [reading], []]
    for file in inside:
        assert asked(file) == [[reading, SMALL, LARGE], [reading], []]


def planted(tiny, before, after):
    """A mutant of the package of three lines, with other bytes in the place of some."""
    text = (tiny / "scratchvae" / "__init__.py").read_bytes()
    assert text.count(before) == 1
    return SimpleNamespace(file="scratchvae/__init__.py", text=text.replace(before, after))


@pytest.mark.parametrize(
    ("after", "test", "conftest", "expected"),
    [
        (b"return 1 / 0", SMALL, "", ("caught", SMALL)),
        (b"return y\n\n\n1 / 0", SMALL, "", ("caught", "tests/test_tiny.py")),
        (b"return y\n\n\n1 / 0", SMALL, "import scratchvae", ("caught", "the import")),
        (b"import os; os._exit(0)", SMALL, "", ("caught", SMALL)),
        (b"import os; os.kill(os.getpid(), 9)", SMALL, "", ("caught", SMALL)),
        (b"raise KeyboardInterrupt", SMALL, "", ("error", "pytest ended with 2")),
        (b"return y + 1", "tests/test_missing.py::test_small", "", ("error", "pytest ended with 4")),
    ],
)
def test_what_pytest_ends_with_is_no_catch_unless_a_test_the_import_or_the_process_has_failed(
    tiny, after, test, conftest, expected
):
    path = tiny / "tests" / "conftest.py"
    path.write_text(conftest, encoding="utf-8")
    try:
        assert mutants.outcome(tiny, tiny / "record", planted(tiny, b"return y", after), [test], 30) == expected
    finally:
        path.unlink()


FLAKY = """import os
from pathlib import Path

from scratchvae import twice


def test_flaky():
    path = Path({path!r})
    path.write_text(path.read_text() + ".")
    assert len(path.read_text()) < 2


def test_deadly():
    os._exit(0)


def test_right():
    assert twice(2) == 4
"""
RIGHT, FLAKES, DEADLY = (f"tests/test_flaky.py::test_{name}" for name in ("right", "flaky", "deadly"))


def test_a_mutant_whose_only_witness_fails_without_it_is_not_caught(tmp_path):
    root = tmp_path / "root"
    (root / "scratchvae").mkdir(parents=True)
    (root / "scratchvae" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    (root / "tests").mkdir()
    (tmp_path / "runs").write_text("", encoding="utf-8")
    (root / "tests" / "test_flaky.py").write_text(FLAKY.format(path=str(tmp_path / "runs")), encoding="utf-8")
    (root / "tests" / "mutants_covered.py").write_bytes((ROOT / "tests" / "mutants_covered.py").read_bytes())
    source = mutants_list.Source(root / "scratchvae" / "__init__.py", "scratchvae/__init__.py")
    made = [mutants_list.mutant(place, change) for place in mutants_list.places(source) for change in place.options]
    witness = {"y = 2 / x  # a comment": RIGHT, "return 2": FLAKES}
    chosen = [mutant for mutant in made if mutant.becomes in witness]
    covered = SimpleNamespace(
        seconds=dict.fromkeys(witness.values(), 0.1),
        failed=set(),
        now=mutants_covered.digests(root),
        all="now",
        tests_of=lambda mutant: [witness[mutant.becomes]],
    )
    outcomes = dict(
        zip([m.becomes for m in chosen], mutants.run(root, chosen, covered, tmp_path / "out", 1), strict=True)
    )
    assert outcomes == {"y = 2 / x  # a comment": "caught", "return 2": "flaky"}
    assert [result["test"] for result in mutants.known(tmp_path / "out", covered).values()] == [RIGHT]
    assert mutants.failing(root, tmp_path / "record", {RIGHT, DEADLY}) == {DEADLY}


def test_of_two_results_the_later_counts_and_what_was_caught_by_a_test_that_is_gone_does_not(tmp_path):
    covered = SimpleNamespace(now={"f.py": "a", "tests/test_f.py": "b"}, all="now", seconds={"t": 1.0})

    def result(number, outcome, test, digest="now", source="a"):
        return {
            "mutant": "`f.py`: x",
            "number": number,
            "outcome": outcome,
            "test": test,
            "source": source,
            "all": digest,
        }

    lines = [
        result(0, "caught", "t"),
        result(0, "flaky", "t"),
        result(1, "error", ""),
        result(1, "caught", "t", "before"),
        result(2, "caught", "gone", "before"),
        result(3, "survived", ""),
        result(4, "survived", "", "before"),
        result(5, "caught", "the import", "before"),
        result(6, "caught", "tests/test_f.py", "before"),
        result(7, "caught", "t", "now", "other"),
    ]
    (tmp_path / "out").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert [number for _, number in mutants.known(tmp_path / "out", covered)] == [1, 3, 5, 6]
