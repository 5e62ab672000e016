"""Finds lines of source by the name of what they define, so that a page follows the code when lines move."""

import ast
import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path

import scratchvae

PACKAGE = Path(scratchvae.__file__).parent
BESIDE = PACKAGE / "reading" / "beside"  # where a wheel has the examples, tests and results of the repository
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class ReadingError(ValueError):
    """Is raised if a page cannot be built; the message names the page, the line, and what is missing."""


@dataclass(frozen=True)
class Lines:
    """Lines of a file, without the indentation that all of them share.

    file    is the path inside the repository, such as "scratchvae/nets/layers.py".
    first   is the number of the first line.
    text    is a list of the lines.
    """

    file: str
    first: int
    text: list

    @property
    def last(self):
        return self.first + len(self.text) - 1


def repository():
    """Return the folder with examples, tests and benchmarks: in the wheel beside the package, or the clone."""
    return BESIDE if BESIDE.exists() else PACKAGE.parent


def path_of(file):
    """Return where a file of the repository lies: in the installed package, in the wheel beside it, or in a clone."""
    of_package = file.startswith("scratchvae/")
    path = PACKAGE / file.removeprefix("scratchvae/") if of_package else repository() / file
    if not path.is_file():
        raise ReadingError(f"there is no file {file}")
    return path


def pull(name, start=None, stop=None):
    """Return the lines that a name stands for.

    `name` is dotted, as "scratchvae.nets.layers.Linear.backward", or a file and a name in it, as "examples/one_page.py
    bound" or "tests/test_exact.py::test_name"; a file alone stands for all of its lines. `start` and `stop` are texts
    that one line of them holds each: what lies between them is returned, both included.
    """
    file, inner = split(name)
    lines = _lines(file)
    first, last = 1, len(lines)
    if inner:
        node = _find(_tree(file), inner.split("."))
        if node is None:
            raise ReadingError(f"{file} has no {inner}")
        first = min([node.lineno, *[one.lineno for one in getattr(node, "decorator_list", [])]])
        last = node.end_lineno
    chosen = lines[first - 1 : last]
    begin = _where(chosen, start, name) if start else 0
    end = _where(chosen, stop, name) if stop else len(chosen) - 1
    if end < begin:
        raise ReadingError(f"in {name} the line with {stop!r} stands before that with {start!r}")
    chosen = textwrap.dedent("\n".join(chosen[begin : end + 1])).split("\n")
    return Lines(file, first + begin, chosen)


def split(name):
    """Return the file of a name, and the name inside the file, which is "" if the file as a whole is meant."""
    for mark in ("::", " "):
        if mark in name:
            file, inner = name.split(mark, 1)
            path_of(file)
            return file, inner.strip()
    if "/" in name:
        path_of(name)
        return name, ""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        for file in ("/".join(words[:length]) + ".py", "/".join(words[:length]) + "/__init__.py"):
            if words[0] == "scratchvae" and (PACKAGE.parent / file).is_file():
                return file, ".".join(words[length:])
    raise ReadingError(f"{name} is in no file of the package")


def _where(lines, text, name):
    """Return the number of the one line that holds a text."""
    found = [number for number, line in enumerate(lines) if text in line]
    if len(found) != 1:
        raise ReadingError(f"{text!r} is on {len(found)} lines of {name}; a mark has to be on one")
    return found[0]


def _find(node, names):
    """Return the definition, or the assignment, of a dotted name below a node of a syntax tree, or None."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assign) and any(ast.unparse(target) == ".".join(names) for target in child.targets):
            return child
        if isinstance(child, DEFINITIONS) and child.name == names[0]:
            found = child if len(names) == 1 else _find(child, names[1:])
            if found is not None:
                return found
    return None


@functools.cache
def _lines(file):
    return path_of(file).read_text(encoding="utf-8").split("\n")


@functools.cache
def _tree(file):
    return ast.parse("\n".join(_lines(file)))
