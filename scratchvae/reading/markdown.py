"""How Markdown is rendered where it means more than usual: formulas, computed numbers, links between the pages.

What is rendered knows its page by env["page"]. A number that is written by hand, a word of the code that is gone, and a
link that leads nowhere raise a `ReadingError`.
"""

import functools
import html
import re

import markdown_it
from mdit_py_plugins.dollarmath import dollarmath_plugin

from scratchvae.reading.source import PACKAGE, ReadingError, repository
from scratchvae.reading.symbols import mathml

LEFT = re.compile(r"\$|\]\(|\]\[")  # what stays in a text if a formula or a link in it is none
WORDS = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\.\d+|(?<![\w.,-])\d{1,3},\d{3}")  # in a text: 0.19, 50,000
SECTION = re.compile(r"[Ss]ections? \d\.\d( (and|to) \d\.\d)?")  # which is no result


def _page(token, env):
    """Return the page that is rendered, which is told the line of a token."""
    page = env["page"]
    page.line = token.meta.get("line", page.line)
    return page


def _math(self, tokens, number, options, env):
    token = tokens[number]
    display = token.type != "math_inline"
    page = _page(token, env)
    out = mathml(token.content, page.ties, display)
    if not display:
        return out
    label = f'<span class="number">({html.escape(token.info)})</span>' if token.info else ""
    return f'<div class="eq">{out}{label}</div>'


def _inline_code(self, tokens, number, options, env):
    text = tokens[number].content
    page = _page(tokens[number], env)
    if text.startswith("="):
        try:
            return html.escape(eval('f"""{' + text[1:].strip() + '}"""', page.within))
        except Exception as error:
            raise ReadingError(f"`{text}` ends with {type(error).__name__}: {error}") from error
    if NUMBER.fullmatch(text):
        checked(text)
    for word in WORDS.findall(text):
        if word not in known_words() and word not in page.words:
            raise ReadingError(f"`{text}` names {word}, which occurs in no source file and in no program of the page")
    return f"<code>{html.escape(text)}</code>"


def _text(self, tokens, number, options, env):
    _page(tokens[number], env)
    return checked(tokens[number].content)


def checked(text):
    """Return a text as HTML; a number that is written by hand, and half of a formula or of a link, are refused."""
    found = LEFT.search(text)
    if found:
        raise ReadingError(f"{found[0]!r} is left over in {text!r}; a formula or a link is not closed there")
    found = NUMBER.search(SECTION.sub("", text))
    if found:
        raise ReadingError(f"{found[0]} is written by hand in {text!r}; a number is computed, `= x:.2f`")
    return html.escape(text)


def _link(self, tokens, number, options, env):
    token = tokens[number]
    target = token.attrs["href"]
    page = _page(token, env)
    if not target.startswith("https://"):
        token.attrs["href"] = page.site.href(target, page)
    return self.renderToken(tokens, number, options, env)


@functools.cache
def known_words():
    """Return every word of the installed package and of the examples, tests and benchmarks beside it."""
    folder = repository()
    words = set()
    beside = [path for name in ("examples", "tests", "benchmarks") for path in (folder / name).rglob("*.py")]
    for path in [*PACKAGE.rglob("*.py"), *beside]:
        words.update(WORDS.findall(path.read_text(encoding="utf-8")))
        words.update(path.relative_to(folder if folder in path.parents else PACKAGE.parent).with_suffix("").parts)
    return words | {"py", "md", "json", "csv"}


# Without HTML and pictures: both would go past what is checked here, and a page loads nothing.
MARKDOWN = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
MARKDOWN.use(dollarmath_plugin, allow_space=True, label_normalizer=str)
for _kind in ("math_inline", "math_inline_double", "math_block", "math_block_label"):
    MARKDOWN.add_render_rule(_kind, _math)
MARKDOWN.add_render_rule("code_inline", _inline_code)
MARKDOWN.add_render_rule("text", _text)
MARKDOWN.add_render_rule("link_open", _link)
