"""Ties a symbol of an equation to a variable of the code: both get one class, and the style sheet lights them up."""

import html
import re
from dataclasses import dataclass, field

import pygments
from latex2mathml.converter import convert
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from scratchvae.reading.source import ReadingError

# A command with its argument where the argument is a name and no mathematics, a command, blank space, or one letter.
TOKEN = re.compile(
    r"\\(?:begin|end|text|mathcal|mathbb|mathrm|operatorname)\*?\{[^}]*\}|\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL
)
KINDS = {Keyword: "k", Operator.Word: "k", String: "s", Number: "m", Comment: "c"}  # classes of the style sheet
# A function such as log before its argument, unless that is in brackets: MathML leaves no space between the two.
FUNCTION = re.compile(r"(<mi>(?:log|ln|exp|tanh|det|max|min|arctan)</mi>)(?!<mo|<mrow><mo|</)")
UNNEEDED = re.compile(r' (?:xmlns="[^"]*"|display="inline")')  # in HTML
COMMENT_GAP = re.compile(r" {3,}")


@dataclass
class Tie:
    """One symbol and the variable that holds it.

    latex      is the symbol, and `name` the variable.
    text       says in words what they are.
    number     is that of the class, t1, t2, …
    seen       has "equation" and "code" as each of them is found.
    """

    latex: str
    name: str
    text: str
    number: int
    seen: set = field(default_factory=set)


def mathml(latex, ties=(), display=False):
    """Return LaTeX as MathML, in which each symbol that is tied has its class."""
    tokens = TOKEN.findall(latex)
    targets = sorted(((_solid(TOKEN.findall(tie.latex)), tie) for tie in ties), key=lambda pair: -len(pair[0]))
    out = []
    place = 0
    while place < len(tokens):
        for wanted, tie in targets:
            end = _match(tokens, place, wanted)
            if end:
                tie.seen.add("equation")
                out.append(rf"{{\class{{t t{tie.number}}}{{{''.join(tokens[place:end])}}}}}")
                place = end
                break
        else:
            out.append(tokens[place])
            place += 1
    braces = re.sub(r"\\[{}\\]", "", latex)
    if braces.count("{") != braces.count("}"):
        raise ReadingError(f"the braces of {latex!r} do not match")
    try:
        text = convert("".join(out), display="block" if display else "inline")
    except Exception as error:  # the converter has a class of its own for each mistake, and no words
        raise ReadingError(f"{latex!r} is no mathematics: {type(error).__name__}") from error
    unknown = re.search(r"\\[a-zA-Z]+", text)
    if unknown:
        raise ReadingError(f"{latex!r} has the command {unknown[0]}, which is not known")
    return FUNCTION.sub(r'\1<mspace width="0.17em" />', UNNEEDED.sub("", text))


def _solid(tokens):
    return [token for token in tokens if not token.isspace()]


def _match(tokens, place, wanted):
    """Return where the wanted tokens end if they begin at a place, with any blanks between them, and else None."""
    if tokens[place].isspace():
        return None
    for token in wanted:
        while place < len(tokens) and tokens[place].isspace():
            place += 1
        if place == len(tokens) or tokens[place] != token:
            return None
        place += 1
    return place


def code_html(source, ties=()):
    """Return source as HTML: an element for each line, its comment below the code, the variables with their classes."""
    by_name = {}
    for tie in ties:
        by_name.setdefault(tie.name, []).append(tie)
    rows = [[]]
    for kind, text in pygments.lex(source, PythonLexer(stripnl=False, ensurenl=False)):
        for number, part in enumerate(text.split("\n")):
            if number:
                rows.append([])
            rows[-1].append((kind, part))
    return "".join(_line(row, by_name) for row in rows)


def _line(row, by_name):
    """Return one line as HTML from its tokens, (kind, text) each."""
    whole = "".join(text for _, text in row)
    if not whole.strip():
        return '<span class="blank"></span>'
    indent = len(whole) - len(whole.lstrip())
    out = []
    for kind, text in row:
        name = next((name for token, name in KINDS.items() if kind in token), None)
        if name == "c":
            parts = COMMENT_GAP.split(text.removeprefix("#").strip())
            text = "# " + '<span class="gap"></span>'.join(html.escape(part) for part in parts)
            name = "c note" if any(part.strip() for part in out) else "c"  # beside code, or a line of its own
        elif kind in Name and text in by_name:
            name = "t"
            for tie in by_name[text]:
                tie.seen.add("code")
                name += f" t{tie.number}"
            text = html.escape(text)
        else:
            text = html.escape(text)
        out.append(f'<span class="{name}">{text}</span>' if name and text.strip() else text)
    return f'<span class="l" style="--i:{indent}ch">{"".join(out).strip()}</span>'
