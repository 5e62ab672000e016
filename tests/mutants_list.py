"""The list of mutants for mutants.py: the places of the package that can be changed, and what can stand there instead.

A change is a splice of the source's bytes, so comments and layout stay, and with them the tests that read them. Texts,
annotations, help, what a `raise` says, and code for a GPU or for Windows alone are not changed.
"""

import ast
import io
import itertools
import random
import re
import tokenize
from typing import NamedTuple

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
                begin = self.begins[row] + len(self.lines[row].decode()[: token.start[1]].encode())
                self.tokens.append((begin, begin + len(token.string.encode()), token.string))
            elif token.type == tokenize.COMMENT:
                self.comments.append(self.begins[row] + len(self.lines[row].decode()[: token.start[1]].encode()))

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
