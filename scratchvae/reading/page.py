"""One page of the reading, from Markdown to HTML. What its blocks mean is said in __init__.py."""

import contextlib
import html
import re

from markupsafe import Markup

from scratchvae import __version__
from scratchvae.exercises import EXERCISES
from scratchvae.reading import programs
from scratchvae.reading.markdown import MARKDOWN, WORDS, checked
from scratchvae.reading.source import ReadingError, pull, repository
from scratchvae.reading.symbols import Tie, code_html, mathml

MADE_BY = '<meta name="generator" content="scratchvae read">'  # stands at the head of every page
HEADING = re.compile(r"^(#{1,3}) (.*?)(?: \{([^}]*)\})?$")
MATHS = re.compile(r"\$[^$]*\$")
CASE = re.compile(r"_e(\d+)(?=_|$)")  # in the name of a test: the exact case that it holds
BREAK = re.compile(r"(?<=[._/:])(?=[^._/:])")  # where a long name may be broken


class Page:
    """One page: its rows, and what is known while it is rendered."""

    def __init__(self, path, site):
        self.path = path
        self.site = site
        self.name = path.stem.partition("-")[2] or path.stem  # "10-vae" is vae.html
        self.text = path.read_text(encoding="utf-8")
        self.line = 1
        self.sections = []
        for number, line in enumerate(_outside_fences(self.text), start=1):
            match = HEADING.match(line)
            if match:
                self.line = number
                with _at(self):
                    if len(match[1]) == 1 and self.sections:
                        raise ReadingError("a page has one title; expected '## …' or '### …' here")
                    if re.search(r"[{}]", MATHS.sub("", match[2])):
                        raise ReadingError(f"{line!r} does not end with its names, as in '## The bound {{eq-2 eq-3}}'")
                names = (match[3] or "").split()
                self.sections.append((number, len(match[1]), match[2], names))
        if not self.sections or self.sections[0][:2] != (1, 1):
            raise ReadingError(f"{path.name} does not begin with a title, '# …'")
        self.title = self.sections[0][2]
        self.plain = re.sub(r"[$`*]", "", self.title)  # where nothing is rendered
        self.words = set(WORDS.findall(_inside_fences(self.text)))
        self.anchors = [name for *_, names in self.sections for name in names]
        self.within = None
        self.right = {}  # what programs have printed without a mistake, since the names last changed
        self.ties = []
        self.listed = []  # the pages that its blocks of contents name

    def html(self):
        """Return the page as HTML."""
        self.within = programs.names()
        site = self.site.pages
        place = site.index(self)
        lines = self.text.split("\n")
        rows = []
        with _at(self), programs.modules_of_their_own():
            for (first, level, title, names), following in zip(
                self.sections, [*self.sections[1:], (len(lines) + 1,)], strict=True
            ):
                self.line = first
                rows.append(self.row(level, title, names, "\n".join(lines[first : following[0] - 1]), first))
            missing = [page.path.stem for page in site if page is not self and page.path.stem not in self.listed]
            if self.listed and missing:
                raise ReadingError(f"the contents leave out {', '.join(missing)}")
        return self.site.template.render(
            page=self,
            rows=rows,
            made_by=MADE_BY,
            version=__version__,
            pages=site,
            before=site[place - 1] if place else None,
            after=site[place + 1] if place + 1 < len(site) else None,
        )

    def row(self, level, title, names, text, first):
        """Return a row as a dict: what stands left, right, in the legend, and below."""
        tokens = MARKDOWN.parse(text)
        self.ties = _ties(tokens)
        _number(tokens, first + 1)
        row = {"level": level, "names": names, "left": [], "right": [], "below": []}
        row["title"] = Markup(MARKDOWN.renderInline(title, {"page": self}))
        group = []
        for token in tokens:
            if not token.level and token.nesting >= 0:  # a paragraph or a table begins: what was before is whole
                row["left"].append(self.render(group))
                group = []
                self.line = first + 1 + token.map[0]
            if token.type == "heading_open":
                raise ReadingError("this heading begins no row; expected '## …' or '### …'")
            if token.type != "fence" or token.level:
                group.append(token)
                continue
            kind = (token.info.split() or [""])[0]
            if kind not in BLOCKS:
                raise ReadingError(f"there is no block of the kind {kind!r}; the kinds are {', '.join(sorted(BLOCKS))}")
            side, block = BLOCKS[kind]
            if block:
                row[side].append(Markup(block(self, token.content)))
        row["left"].append(self.render(group))
        row["below"] += [Markup(_exercise(number, one)) for number, one in _exercises(self.name, names)]
        self.line = first
        row["legend"] = [(Markup(mathml(tie.latex)), tie, Markup(checked(tie.text))) for tie in self.ties]
        for tie in self.ties:
            for place in ("equation", "code"):
                if place not in tie.seen:
                    raise ReadingError(f"the symbol {tie.latex} = {tie.name} occurs nowhere in the {place} of its row")
        return row

    def render(self, tokens):
        return Markup(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {"page": self}))

    # The blocks.

    def code(self, content):
        lines = _pulled(content)
        text = "\n".join(lines.text)
        where = f"{lines.file}, line {lines.first}" + (f" to {lines.last}" if lines.last > lines.first else "")
        return (
            f'<figure class="source"><figcaption>{where}</figcaption><pre>{code_html(text, self.ties)}</pre></figure>'
        )

    def test(self, content):
        out = []
        for name in content.split():
            lines = pull(name)
            out.append(
                f'<details class="test"><summary>Proved by <code>{html.escape(name.partition("::")[2])}</code> '
                f'<span class="where">{lines.file}, line {lines.first}</span></summary>'
                f"<pre>{code_html(chr(10).join(lines.text))}</pre></details>"
            )
        return "\n".join(out)

    def wrong(self, content):
        head, mark, program = content.partition("\n---\n")
        said, *lines = [line for line in head.split("\n") if line.strip()]
        changes = _changes(lines) if mark else {}
        if not changes:
            raise ReadingError("a mistake is a sentence, 'in NAME', lines '- right' and '+ wrong', '---', a program")
        right = self.right.get(program)
        if right is None:
            right = self.right[program] = programs.run(program, dict(self.within))
        with contextlib.ExitStack() as stack:
            for name, pairs in changes.items():
                stack.enter_context(programs.planted(name, pairs))
            out = programs.run(program, dict(self.within), planted=True)
        if out == right:
            name, pairs = next(iter(changes.items()))
            raise ReadingError(f"{pairs[0][1]!r} in {name} changes nothing of what the program prints")
        rows = ""
        for name, pairs in changes.items():
            if len(changes) > 1:
                rows += f'<span class="l c">in {html.escape(name.rpartition(".")[2])}</span>'
            for old, new in pairs:
                rows += f'<span class="l minus">- {html.escape(old)}</span>'
                rows += f'<span class="l plus">+ {html.escape(new)}</span>'
        return (
            f'<div class="wrong"><p><b>What goes wrong.</b> {MARKDOWN.renderInline(said, {"page": self})}</p>'
            f'<pre class="diff">{rows}</pre><pre>{code_html(program.strip())}</pre>'
            f'<pre class="out">{html.escape(out)}</pre></div>'
        )

    def python(self, content):
        printed = programs.run(content, self.within)
        self.right = {}
        out = f'<pre class="program">{code_html(content.strip())}</pre>'
        return out + (f'<pre class="out">{html.escape(printed)}</pre>' if printed else "")

    def setup(self, content):
        summary = "The program that the others on this page begin with"
        return f'<details class="setup"><summary>{summary}</summary>{self.python(content)}</details>'

    def svg(self, content):
        drawing = programs.run(content, self.within)
        self.right = {}
        return f'<div class="drawing">{drawing}</div>'

    def contents(self, content):
        """Return a list of pages: of those that the lines name, each with what is said of it, or else of all others."""
        pages = {page.path.stem: page for page in self.site.pages if page is not self}
        rows = []
        for line in content.strip().split("\n") if content.strip() else pages:
            stem, _, said = line.partition(" ")
            if stem not in pages or stem in self.listed:
                raise ReadingError(f"{stem} is {'listed twice' if stem in self.listed else 'no other page'}")
            self.listed.append(stem)
            title, said = (MARKDOWN.renderInline(text, {"page": self}) for text in (pages[stem].title, said))
            rows.append(f'<li><a href="{pages[stem].name}.html">{title}</a>{said and f"<br>{said}"}</li>')
        return f'<ul class="contents">{"".join(rows)}</ul>'

    def equations(self, content):
        """Return the table of the paper's equations, algorithms and appendices: where each is read, and its code."""
        rows = []
        for name in sorted((one for one in self.site.where if PAPER.match(one)), key=_in_order):
            page = self.site.where[name]
            number, _, title, _ = next(section for section in page.sections if name in section[3])
            code = re.findall(r"^```code\n(\S+(?: \w+)?)$", _section(page, number), re.MULTILINE)
            shown = "<br>".join(_breakable(one.removeprefix("scratchvae.")) for one in dict.fromkeys(code))
            link = f'<a href="{self.site.href("#" + name, self)}">{MARKDOWN.renderInline(title, {"page": self})}</a>'
            rows.append(f"<tr><td>{_spoken(name)}</td><td>{link}</td><td>{shown}</td></tr>")
        return f"<table><tr><th>in the paper</th><th>read here</th><th>code</th></tr>{''.join(rows)}</table>"

    def cases(self, content):
        """Return the table of the exact cases, with the tests that are named after each."""
        tests = tests_of_cases()
        rows = []
        for line in content.strip().split("\n"):
            case, _, said = line.partition(" ")
            found = tests.get(case, [])
            names = "<br>".join(_breakable(test) for test in found) or "not tested yet"
            rows.append(
                f"<tr><td>{case}</td><td>{MARKDOWN.renderInline(said, {'page': self})}</td><td>{names}</td></tr>"
            )
        missing = set(tests) - {line.partition(" ")[0] for line in content.strip().split("\n")}
        if missing:
            raise ReadingError(f"tests are named after {', '.join(sorted(missing))}, of which the table says nothing")
        return f"<table><tr><th>case</th><th>what it proves</th><th>tests</th></tr>{''.join(rows)}</table>"


BLOCKS = {
    "code": ("right", Page.code),
    "tie": ("left", None),
    "test": ("below", Page.test),
    "wrong": ("below", Page.wrong),
    "python": ("left", Page.python),
    "setup": ("left", Page.setup),
    "svg": ("left", Page.svg),
    "contents": ("left", Page.contents),
    "equations": ("left", Page.equations),
    "cases": ("left", Page.cases),
    "text": ("left", lambda page, content: f"<pre>{html.escape(content)}</pre>"),
}
PAPER = re.compile(r"(eq-\d+|alg-\d|app-[b-f](\.\d)?|sec-\d(\.\d)?)$")  # names of rows that the paper has too


def _exercises(page, names):
    """Return the exercises whose derivation stands in a row of these names, with their numbers."""
    return [(k, one) for k, one in enumerate(EXERCISES, 1) if one.reading in [f"{page}.html#{name}" for name in names]]


def _exercise(number, one):
    return (
        f'<p class="exercise">Derive it yourself: exercise {number}, {html.escape(one.title)}. '
        f"<code>scratchvae exercise {number} --start</code></p>"
    )


def tests_of_cases():
    """Return the tests of each exact case, {"E1": ["tests/test_exact.py::test_…", …], …}."""
    found = {}
    for path in sorted((repository() / "tests").glob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            for number in CASE.findall(name):
                found.setdefault(f"E{number}", []).append(f"tests/{path.name}::{name}")
    return found


def _in_order(name):
    kind, _, rest = name.partition("-")
    letter, *numbers = rest.split(".") if kind == "app" else ["", *rest.split(".")]
    return ["sec", "eq", "alg", "app"].index(kind), letter, [int(number) for number in numbers]


def _spoken(name):
    """Return a name of a row as the paper has it: eq-3 is (3)."""
    kind, _, rest = name.partition("-")
    if kind == "eq":
        return f"({rest})"
    return {"alg": "Algorithm", "app": "appendix", "sec": "section"}[kind] + " " + rest.upper()


def _breakable(name):
    """Return a long name as code that may go on in the next line after a dot, a slash, a colon or an underscore."""
    return f"<code>{BREAK.sub('<wbr>', html.escape(name))}</code>"


def _section(page, number):
    """Return the Markdown of the row that begins on a line."""
    following = [first for first, *_ in page.sections if first > number]
    return "\n".join(page.text.split("\n")[number - 1 : following[0] - 1 if following else None])


def _pulled(content):
    """Return the lines that a block of source names."""
    name, *marks = content.strip().split("\n")
    said = dict(mark.partition(" ")[::2] for mark in marks)
    if set(said) - {"from", "to"}:
        raise ReadingError(f"a block of source has a name, 'from TEXT' and 'to TEXT'; {marks} came")
    return pull(name, said.get("from"), said.get("to"))


def _changes(lines):
    """Return what a mistake changes, {"NAME": [(right, wrong), …], …}; {} if the lines are not in their order."""
    changes = {}
    lines = iter(lines)
    for line in lines:
        if line.startswith("in "):
            pairs = changes.setdefault(line[3:], [])
            continue
        new = next(lines, None)
        if not changes or new is None:
            return {}
        if line[:2] != "- " or new[:2] != "+ ":
            raise ReadingError(f"{line!r} and {new!r} are no lines '- right' and '+ wrong'")
        pairs.append((line[2:], new[2:]))
    return changes if all(changes.values()) else {}


def _ties(tokens):
    """Return the ties that the blocks of a row name."""
    ties = []
    for token in tokens:
        if token.type == "fence" and token.info == "tie":
            for line in token.content.strip().split("\n"):
                match = re.fullmatch(r"(.+?) = (\w+): (.+)", line)
                if not match:
                    raise ReadingError(f"{line!r} is no line 'SYMBOL = variable: what it is'")
                ties.append(Tie(*match.groups(), number=len(ties) + 1))
    return ties


def _outside_fences(text):
    """Yield the lines of a text, "" for those in fenced blocks."""
    inside = False
    for line in text.split("\n"):
        fence = line.startswith("```")
        yield "" if inside or fence else line
        inside ^= fence


def _inside_fences(text):
    """Return the text of all fenced blocks."""
    lines = zip(text.split("\n"), _outside_fences(text), strict=True)
    return "\n".join(line for line, outside in lines if not outside)


def _number(tokens, first):
    """Note at each piece of text on which line of the page it stands; the tokens begin on line `first`."""
    for token in tokens:
        line = first + token.map[0] if token.map else first
        for child in token.children or []:
            child.meta["line"] = line
            line += child.type in ("softbreak", "hardbreak")


@contextlib.contextmanager
def _at(page):
    """Let a ReadingError name the page and the line."""
    try:
        yield
    except ReadingError as error:
        raise ReadingError(f"{page.path.name}, line {page.line}: {error}") from error
