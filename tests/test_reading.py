"""scratchvae read: every page is built from the source, leads somewhere, and says nothing that is no longer so."""

import contextlib
import inspect
import itertools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from scratchvae import cli
from scratchvae.exercises import EXERCISES, checking
from scratchvae.inference.posteriors.gaussian import Gaussian
from scratchvae.reading import ReadingError, build
from scratchvae.reading.build import STYLE
from scratchvae.reading.page import Page
from scratchvae.reading.programs import planted
from scratchvae.reading.source import PACKAGE, pull
from scratchvae.reading.symbols import Tie, code_html, mathml

ROOT = Path(__file__).parent.parent
PAGES = sorted((PACKAGE / "reading" / "pages").glob("*.md"))


@pytest.fixture(scope="module")
def built(reading):
    """The pages as they are built here, by name, and the seconds of processor time that it took."""
    seconds = float((reading.parent / "seconds.txt").read_text(encoding="utf-8"))
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(reading.glob("*.html"))}, seconds


class Links(HTMLParser):
    """Collects what a page defines and what it asks for."""

    def __init__(self, text):
        super().__init__()
        self.ids = []
        self.hrefs = []
        self.loaded = []
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.ids += [values[name] for name in ("id",) if name in values]
        self.loaded += [values[name] for name in ("src",) if name in values]
        if "href" in values:
            (self.hrefs if tag == "a" else self.loaded).append(values["href"])


def test_the_reading_is_built_in_twenty_seconds_of_two_cores_and_has_less_than_three_megabytes(built):
    pages, seconds = built
    assert len(pages) == len(PAGES)
    assert sum(len(text.encode()) for text in pages.values()) < 3_000_000
    assert seconds < 40  # of both cores together


def test_every_link_and_every_anchor_of_the_pages_leads_somewhere(built):
    pages = {name: Links(text) for name, text in built[0].items()}
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), name
        for href in page.hrefs:
            if href.startswith("https://"):
                continue
            target, _, anchor = href.partition("#")
            assert (target or name) in pages, f"{name} leads to {href}"
            assert not anchor or anchor in pages[target or name].ids, f"{name} leads to {href}"


def test_the_pages_load_nothing_from_elsewhere_and_need_no_script(built):
    for text in built[0].values():
        page = Links(text)
        assert set(page.loaded) == {"style.css", "data:,"}
        assert "script" not in page.tags
    style = (PACKAGE / "reading" / "style.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_every_equation_algorithm_and_appendix_of_the_paper_has_a_row():
    rows = set(re.findall(r"(?:eq|alg|app)-[\w.]+", " ".join(headings())))
    assert {f"eq-{number}" for number in range(1, 25)} <= rows
    assert {"alg-1", "alg-2", "app-b", "app-c", "app-d", "app-e", "app-f"} <= rows


def test_every_equation_that_the_source_names_has_a_row():
    rows = {int(number) for number in re.findall(r"eq-(\d+)", " ".join(headings()))}
    named = set()
    for path in PACKAGE.rglob("*.py"):
        if "reading" not in path.parts:
            named |= {
                int(n) for n in re.findall(r"\((\d{1,2})\)(?:$|[,.; ])", path.read_text(encoding="utf-8"), re.MULTILINE)
            }
    assert {number for number in named if 1 <= number <= 24} <= rows


def headings():
    """Return all headings of all pages with what stands in their braces."""
    return [
        line
        for path in PAGES
        for line in path.read_text(encoding="utf-8").split("\n")
        if re.match(r"#{1,3} .*\{.*\}$", line)
    ]


def test_every_row_with_an_equation_shows_code_and_a_test(built):
    for path in PAGES:
        for row in re.split(r"^(?=#{1,3} )", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if re.match(r"#{1,3} .*\{.*\b(?:eq|alg)-", row):
                assert "```code" in row, f"{path.name}: {row[:60]!r} shows no code"
                assert "```test" in row, f"{path.name}: {row[:60]!r} names no test"


# What a page may not do: each mistake ends the build and names the page and the line.

GOOD = """# A title

## The posterior {good}

$\\sigma = \\exp(\\frac{1}{2}\\log\\sigma^2)$ is the deviation, and `= 1 / 3:.2f` is a third.

```code
scratchvae.inference.posteriors.gaussian.Gaussian.draw
from self.sigma =
```

```tie
\\sigma = sigma: the standard deviation
```

```python
import numpy as np

q = Gaussian()
z, log_q = q.draw(np.ones((1, 1, 1)), np.zeros((1, 1)), np.full((1, 1), 2.0))
print(f"{z[0, 0, 0]:.4f}")
```

```wrong
The half is forgotten.
in scratchvae.inference.posteriors.gaussian.Gaussian.draw
- np.exp(0.5 * log_var)
+ np.exp(log_var)
---
print(f"{Gaussian().draw(np.ones((1, 1, 1)), np.zeros((1, 1)), np.full((1, 1), 2.0))[0][0, 0, 0]:.4f}")
```
""".replace(
    "import numpy as np\n", "import numpy as np\n\nfrom scratchvae.inference.posteriors.gaussian import Gaussian\n"
)


def small(tmp_path, text, **others):
    """Build a site of one page, or of several, and return the first page."""
    folder = tmp_path / "pages"
    folder.mkdir(exist_ok=True)
    (folder / "00-index.md").write_text(text, encoding="utf-8")
    for name, other in others.items():
        (folder / f"01-{name}.md").write_text(other, encoding="utf-8")
    return build(tmp_path / "out", folder)[0].read_text(encoding="utf-8")


def test_a_page_shows_what_its_programs_print_and_what_they_print_with_the_mistake(tmp_path):
    page = small(tmp_path, GOOD)
    assert "is the deviation, and 0.33 is a third" in page
    assert '<pre class="out">2.7183</pre>' in page  # σ = e^(2/2)
    assert '<pre class="out">7.3891</pre>' in page  # σ = e^2, with the mistake
    assert page.count('class="t t1"') >= 3  # in the equation, in the code and in the legend


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("Gaussian.draw\nfrom", "Gaussian.drawn\nfrom", 7, "gaussian.py has no Gaussian.drawn"),
        ("posteriors.gaussian.Gaussian.draw\nfrom", "posterior.Gaussian.draw\nfrom", 7, "has no posterior"),
        ("from self.sigma =", "from self.", 7, "'self.' is on 5 lines"),
        ("from self.sigma =", "from self.rho", 7, "'self.rho' is on 0 lines"),
        ("from self.sigma =", "after self.sigma =", 7, "'from TEXT' and 'to TEXT'"),
        ("\\sigma = sigma", "\\rho = sigma", 3, "\\rho = sigma occurs nowhere in the equation"),
        ("\\sigma = sigma", "\\sigma = std", 3, "\\sigma = std occurs nowhere in the code"),
        ("\\sigma = sigma:", "sigma", 3, "is no line 'SYMBOL = variable: what it is'"),
        ("is a third", "is 0.33", 5, "0.33 is written by hand"),
        ("is a third", "is `" + "q" * 9 + "`", 5, "which occurs in no source file"),
        ("is a third", "is [a third](#nowhere)", 5, "no page has a row nowhere"),
        ("is a third", "is [a third](nowhere.html)", 5, "there is no page nowhere.html"),
        ("1 / 3:.2f", "1 / 0:.2f", 5, "ends with ZeroDivisionError"),
        ("```tie", "```ties", 12, "no block of the kind 'ties'"),
        ("print(f\"{z[", "print(f\"{y[", 16, "NameError: name 'y' is not defined (line 7 of the program)"),
        ("z, log_q =", "np.log(0)\nz, log_q =", 16, "RuntimeWarning"),
        ("+ np.exp(log_var)", "+ np.exp(log_var * 0.5)", 26, "changes nothing of what the program prints"),
        ("- np.exp(0.5 * log_var)", "- np.exp(0.5 * log)", 26, "is 0 times in"),
        ("- np.exp(0.5 * log_var)", "- self", 26, "what is replaced has to be there once"),
        ("- np.exp(0.5 * log_var)", "np.exp(0.5 * log_var)", 26, "no lines '- right' and '+ wrong'"),
        ("in scratchvae.inference.posteriors.gaussian.Gaussian.draw", "in scratchvae.VAE", 26, "is no function"),
        ("---", "- -", 26, "a mistake is a sentence"),
        ("---", "in scratchvae.nets.layers.sigmoid\n---", 26, "a mistake is a sentence"),
        ("---", "- mu\n---", 26, "a mistake is a sentence"),
        ("The half is forgotten.", "The half is forgotten.\n- mu\n+ sigma", 26, "a mistake is a sentence"),
        ("# A title", "A title", 1, "does not begin with a title"),
        ("## The posterior", "# The posterior", 3, "a page has one title"),
        ("is a third.", "is a third.\n\n#### Deeper", 7, "this heading begins no row"),
        ("{good}", "{good", 3, "does not end with its names"),
        ("is a third", "is\n`= 1 / 3:.1f` and\n0.33", 7, "0.33 is written by hand"),
        ("is a third", "is `0.33`", 5, "0.33 is written by hand"),
        ("is a third", "is <b>0.33</b>", 5, "0.33 is written by hand"),
        ("is a third.", "is a third:\n\n- one\n- 0.33", 8, "0.33 is written by hand"),
        ("is a third.", "is a third:\n\n| a |\n|---|\n| b |\n| 0.33 |", 10, "0.33 is written by hand"),
        ("the standard deviation", "0.33", 3, "0.33 is written by hand"),
        ("is a third", f"is `{8 * 'q'}` or `{8 * 'q'}(x)`", 5, "which occurs in no source file"),
        ("is a third", "is [a third][good]", 5, "'][' is left over"),
        ("is the deviation", "$is the deviation", 5, "'$' is left over"),
        ("is a third", "is $\\thrid$", 5, "has the command \\thrid, which is not known"),
        ("is a third", "is $\\frac{1}{3$", 5, "do not match"),
        ("is a third", "is $\\left(3$", 5, "is no mathematics"),
        ("print(f\"{z[", "raise SystemExit\nprint(f\"{z[", 16, "SystemExit"),
        ("+ np.exp(log_var)", "+ np.exp(log_var", 26, "is no Python any more with 'np.exp(log_var'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_page_ends_the_build_with_page_and_line(tmp_path, right, wrong, line, message):
    assert GOOD.count(right) >= 1
    with pytest.raises(ReadingError) as caught:
        small(tmp_path, GOOD.replace(right, wrong, 1))
    assert message in str(caught.value)
    assert str(caught.value).startswith("00-index.md")
    if "title" not in message:
        assert f"line {line}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_a_page_says_is_text_and_no_html(tmp_path):
    text = GOOD.replace("# A title", "# `p` < q & <i>").replace("the standard deviation", "sigma < 1 & <i>")
    text = text.replace("is a third", "is <i>a third</i>").replace('print(f"', 'print(f"<i>')
    page = small(tmp_path, text.replace("+ np.exp(log_var)", "+ np.exp(log_var * (1 <2))"), other="# A < B & <i>\n")
    assert page.count("&lt;i&gt;2.7183") == page.count("&lt;i&gt;7.3891") == 1 and "&lt;2" in page
    assert "<title>p &lt; q &amp; &lt;i&gt; - scratchvae</title>" in page
    assert "<code>p</code> &lt; q &amp; &lt;i&gt;</h1>" in page
    assert "sigma &lt; 1 &amp; &lt;i&gt;</li>" in page
    assert "A &lt; B &amp; &lt;i&gt; ›</a>" in page
    assert "<i>" not in page


def test_a_mistake_is_compared_with_what_the_program_prints_now_and_leaves_no_name_behind(tmp_path):
    wrong = "```wrong" + GOOD.partition("```wrong")[2].replace('print(f"{', 'k = 8\nprint(f"{2 if skip else ')
    text = GOOD.partition("```wrong")[0] + "```python\nskip, k = False, 5\n```\n\n" + wrong
    page = small(tmp_path, text + "\n```python\nprint(k)\n```\n")
    assert '<pre class="out">5</pre>' in page
    with pytest.raises(ReadingError, match="changes nothing of what the program prints"):
        small(tmp_path, text + "\n```python\nskip = True\n```\n\n" + wrong)


def test_a_mistake_in_two_functions_is_planted_in_both_and_shows_their_names(tmp_path):
    second = "in scratchvae.inference.posteriors.gaussian.Gaussian._z\n- sigma * eps\n+ sigma * (2 * eps)\n---"
    page = small(tmp_path, GOOD.replace("---", second) + "\n```python\n" + GOOD.split("---\n")[1])
    assert '<pre class="out">14.7781</pre>' in page  # z = 2 e^2, with the mistakes in both
    assert page.count('<pre class="out">2.7183</pre>') == 2  # before, and after they were taken out
    assert "in draw</span>" in page and "in _z</span>" in page


def test_the_programs_have_one_thread_of_blas_and_the_others_come_back(tmp_path):
    line = "print(max(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'))"
    with threadpool_limits(2, "blas"):
        page = small(tmp_path, f"# Threads\n\n```python\nfrom threadpoolctl import threadpool_info\n\n{line}\n```\n")
        assert max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas") == 2
    assert '<pre class="out">1</pre>' in page


def test_a_page_shows_no_picture_that_it_would_have_to_load(tmp_path):
    assert "<img" not in small(tmp_path, GOOD.replace("is a third", "is ![a third](https://example.org/a.png)"))


def test_every_symbol_that_is_tied_has_a_rule_in_the_style_sheet(built):
    style = (PACKAGE / "reading" / "style.css").read_text(encoding="utf-8")
    assert style.startswith(STYLE)
    used = set(re.findall(r'class="t (t\d+)"', " ".join(built[0].values())))
    assert used <= set(re.findall(r"\.row:has\(\.(t\d+):is", style))


def test_each_exercise_is_named_in_the_row_of_its_derivation_and_nowhere_else(built):
    for number, one in enumerate(EXERCISES, 1):
        name, _, row = one.reading.partition("#")
        said = f"<code>scratchvae exercise {number} --start</code></p>"
        assert [page for page, text in built[0].items() if said in text] == [name]
        before = built[0][name].partition(said)[0]
        section = before[before.rindex("<section") :]
        assert f'id="{row}"' in section


def test_the_table_of_equations_has_them_in_the_order_of_the_paper(built):
    (table,) = (page for page in built[0].values() if "<th>in the paper</th>" in page)
    numbers = [int(number) for number in re.findall(r"<tr><td>\((\d+)\)</td>", table)]
    assert numbers == sorted(numbers) and numbers[-1] == 24


def test_the_headings_of_a_page_go_down_one_level_at_a_time(built):
    for name, page in built[0].items():
        levels = [int(level) for level in re.findall(r"<h(\d)>", page)]
        assert levels[0] == 1, name
        assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), name


def test_a_build_leaves_no_example_behind_as_a_module(tmp_path):
    lines = 'spec = util.spec_from_file_location("one_page", path_of("examples/one_page.py"))\n'
    lines += 'sys.modules["one_page"] = util.module_from_spec(spec)\nspec.loader.exec_module(sys.modules["one_page"])\n'
    imports = "import sys\nfrom importlib import util\nfrom scratchvae.reading.source import path_of\n\n"
    small(tmp_path, f"# One page\n\n```python\n{imports}{lines}```\n")
    assert "one_page" not in sys.modules


def test_two_files_of_one_page_and_a_folder_without_pages_are_refused(tmp_path):
    with pytest.raises(ReadingError, match=r"02-other.md and 01-other.md are both the page other.html"):
        (tmp_path / "pages").mkdir()
        (tmp_path / "pages" / "02-other.md").write_text("# Other\n", encoding="utf-8")
        small(tmp_path, GOOD, other="# Other\n")
    with pytest.raises(ReadingError, match="there are no pages to build"):
        build(tmp_path / "out", tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_two_rows_of_one_name_are_refused(tmp_path):
    with pytest.raises(ReadingError, match=r"01-other.md and 00-index.md both have a row good"):
        small(tmp_path, GOOD, other="# Other\n\n## Again {good}\n")


def test_contents_in_several_lists_name_every_page_once_with_what_is_said_of_it(tmp_path):
    lists = "# Contents\n\n## First\n\n```contents\n01-b All of $b$.\n```\n\n## Then\n\n```contents\n{}\n```\n"
    others = {"a": "# About a\n", "b": "# About b\n"}
    page = small(tmp_path, lists.format("01-a"), **others)
    assert '<li><a href="b.html">About b</a><br>All of <math>' in page
    assert '<li><a href="a.html">About a</a></li>' in page
    for lines, message in [
        ("01-b", "line 11: 01-b is listed twice"),
        ("01-a\n01-c", "line 11: 01-c is no other page"),
        ("00-index", "line 11: 00-index is no other page"),
    ]:
        with pytest.raises(ReadingError, match=message):
            small(tmp_path, lists.format(lines), **others)
    with pytest.raises(ReadingError, match=r"00-index.md, line .*: the contents leave out 01-a$"):
        small(tmp_path, lists.partition("## Then")[0], **others)


def test_a_test_that_is_named_after_an_exact_case_has_to_be_in_the_table(tmp_path):
    with pytest.raises(ReadingError, match=r"named after E10, .*, of which the table says nothing"):
        small(tmp_path, "# Cases\n\n## All {all}\n\n```cases\nE1 zero weights\n```\n")


def test_a_planted_mistake_is_gone_afterwards_whatever_happens():
    before = Gaussian.draw.__code__
    name = "scratchvae.inference.posteriors.gaussian.Gaussian.draw"
    with contextlib.suppress(ZeroDivisionError), planted(name, [("0.5 * log_var", "log_var")]):
        assert Gaussian.draw.__code__ is not before
        raise ZeroDivisionError
    assert Gaussian.draw.__code__ is before


def test_a_mistake_arrives_wherever_the_function_was_imported():
    q = Gaussian()
    q.draw(np.zeros((1, 1, 1)), np.ones((1, 1)), np.zeros((1, 1)))
    assert q.neg_kl() == -0.5
    with planted("scratchvae.inference.distributions.gaussian_neg_kl", [("= _neg_kl_sum(", "= -_neg_kl_sum(")]):
        assert q.neg_kl() == 0.5  # through the name that posteriors/gaussian.py has imported
    assert q.neg_kl() == -0.5


def test_a_mistake_is_planted_in_a_function_that_is_decorated_too():
    inner = inspect.unwrap(checking.check)
    before = inner.__code__
    with planted("scratchvae.exercises.checking.check", [("default_rng(SEED)", "default_rng(SEED + 1)")]):
        assert inner.__code__ is not before
    assert inner.__code__ is before


def test_source_is_pulled_by_name_with_its_decorators_and_without_its_indentation():
    lines = pull("scratchvae.inference.full_vb.Posterior.draw")
    assert lines.text[0].startswith("def draw(")
    assert lines.file == "scratchvae/inference/full_vb.py"
    source = (PACKAGE / "inference" / "full_vb.py").read_text(encoding="utf-8").split("\n")
    assert source[lines.first - 1].strip() == lines.text[0]
    assert source[lines.last - 1].strip() == lines.text[-1].strip()
    assert pull("scratchvae.inference.objectives.sgvb.sgvb_b.needs").text == ['sgvb_b.needs = ("neg_kl",)']
    part = pull("scratchvae.inference.full_vb.Posterior.draw", "theta[b] =")
    assert source[part.first - 1].strip() == part.text[0] and part.first > lines.first
    assert pull("examples/one_page.py M").text[0].startswith("M = 100")
    assert pull("tests/test_reading.py::built").text[0] == '@pytest.fixture(scope="module")'
    with pytest.raises(ReadingError, match="stands before"):
        pull("scratchvae.inference.objectives.sgvb.sgvb_b", "return scale", "z, _ =")


def test_symbols_are_tied_by_their_tokens_and_not_by_their_letters():
    ties = [Tie(r"\sigma", "sigma", "", 1), Tie(r"\sigma^2", "var", "", 2), Tie("a", "a", "", 3)]
    out = mathml(r"\sigma^2 + \sigma_j + \text{a} + \tan a + \hat{a}", ties)
    assert out.count('class="t t2"') == 1  # σ² goes before σ
    assert out.count('class="t t1"') == 1
    assert out.count('class="t t3"') == 2  # not those of the text and of the tangent
    assert mathml(r"z^{( l )}", [Tie("z^{(l)}", "z", "", 1)]).count("t t1") == 1  # blanks do not count


def test_code_keeps_its_text_and_sets_the_comment_below():
    source = 'if a:  # first     second\n\n    b = "a"  # <a>'
    out = code_html(source, [Tie("a", "a", "", 1)])
    assert out.count('<span class="t t1">a</span>') == 1  # not that in the string
    assert '# first<span class="gap"></span>second' in out
    assert "&lt;a&gt;" in out
    assert "--i:4ch" in out
    assert out.count('class="blank"') == 1


# The command.


def test_the_command_writes_the_pages_and_says_where(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    monkeypatch.setattr("scratchvae.reading.build", lambda out: build(out, only(tmp_path)))
    assert cli.main(["read", "--out", str(tmp_path / "out"), "--open"]) == 0
    assert capsys.readouterr().out == f"1 pages; open {tmp_path / 'out' / 'index.html'}\n"
    assert opened == [(tmp_path / "out" / "index.html").as_uri()]


def only(tmp_path):
    """Make a folder with one page."""
    folder = tmp_path / "pages"
    folder.mkdir(exist_ok=True)
    (folder / "00-index.md").write_text(GOOD, encoding="utf-8")
    return folder


def test_a_reading_replaces_an_older_one_and_its_pages_that_are_gone(tmp_path):
    build(tmp_path / "out", only(tmp_path))
    (tmp_path / "pages" / "01-more.md").write_text("# More\n", encoding="utf-8")
    assert len(build(tmp_path / "out", tmp_path / "pages")) == 2
    (tmp_path / "pages" / "01-more.md").unlink()
    build(tmp_path / "out", tmp_path / "pages")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "style.css"}


def test_a_folder_with_other_things_and_a_file_are_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    assert cli.main(["read", "--out", str(tmp_path)]) == 2
    assert "holds other things than a reading; name a new folder, or an empty one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    assert cli.main(["read", "--out", str(tmp_path / "photo.jpg")]) == 2
    assert "is no folder; expected one for the pages" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["index.html", "style.css"])
def test_a_file_of_somebody_else_is_not_overwritten_even_beside_a_page_of_a_reading(name, tmp_path, capsys):
    build(tmp_path / "out", only(tmp_path))
    (tmp_path / "out" / "index.html").rename(tmp_path / "out" / "kept.html")
    (tmp_path / "out" / name).write_bytes(b"mine")
    assert cli.main(["read", "--out", str(tmp_path / "out")]) == 2
    assert f"{name} is no page of a reading, and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_bytes() == b"mine"
    assert (tmp_path / "out" / "kept.html").exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(Page, "html", lambda page: pytest.fail("a page was built"))
    pages = only(tmp_path)
    with pytest.raises(ReadingError, match="nothing can be written into"):
        build(tmp_path / "new" / "out", pages)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OSError, match=r"the folder .*out cannot be made \("):
        build(tmp_path / "file" / "out", only(tmp_path))


@pytest.mark.parametrize("missing", ["markdown_it", "mdit_py_plugins", "latex2mathml", "pygments", "jinja2"])
def test_a_library_that_is_missing_is_named_with_the_command_that_brings_it(missing, monkeypatch, capsys):
    for name in [one for one in sys.modules if one.split(".")[0] == missing or one.startswith("scratchvae.reading")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("scratchvae.reading")
    monkeypatch.setattr(sys, "meta_path", [Missing(missing), *sys.meta_path])
    assert cli.main(["read"]) == 2
    assert f"built with {missing}, which is not installed: pip install 'scratchvae[read]'" in capsys.readouterr().err


class Missing:
    """A finder that finds no package of one name."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.name)


def test_a_browser_that_cannot_be_started_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    monkeypatch.setattr("scratchvae.reading.build", lambda out: build(out, only(tmp_path)))
    assert cli.main(["read", "--out", str(tmp_path / "out"), "--open"]) == 2
    assert "no browser could be started; open" in capsys.readouterr().err
