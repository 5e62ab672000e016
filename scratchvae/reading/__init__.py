"""The reading: the paper beside the code, as pages that are built from the source that is installed.

`scratchvae read` writes them. The text lies in pages/*.md, as Markdown with mathematics between dollars. A heading of
the second or third level begins a row, `## The bound {eq-2 eq-3}`, and the names in braces are where links lead that
are written `[the bound](#eq-2)` on any page. These fenced blocks have a meaning of their own:

    ```code      source by its name, `scratchvae.nets.layers.Linear.backward` or `examples/one_page.py bound`; with the
                 lines `from TEXT` and `to TEXT` only what lies between the lines that hold these texts. It stands in
                 the right column, the text of the row in the left one.
    ```tie       a line for each symbol, `\\mu = mu: the mean of q, (M, J)`: both light up when one is pointed at
    ```test      tests that prove the row, `tests/test_exact.py::test_name`; their source is shown
    ```wrong     a usual mistake: what it is, `in NAME`, then lines `- right` and `+ wrong`, then `---` and a program.
                 A mistake in several functions has `in NAME` and such lines for each of them. It is planted in the
                 installed code, the program runs, and what it prints is shown.
    ```python    a program, shown with what it prints. All programs of a page share their names, and begin with three:
                 np, results(file) for a committed .csv or .json, and failed(report) for a short gradient check.
    ```setup     the same, folded away: what the other programs of the page need
    ```svg       a program that prints a drawing, which is shown in its place
    ```cases     a line for each exact case, `E1 what it proves`; the tests that are named after it are added
    ```contents  the list of pages, or of those that its lines name: `02-bound What it has.` A page that has such lists
                 names every other page in them once.
    ```equations the list of equations, each with its row and the code that the row shows

In the text, `= x:.3f` between backticks is the value of x, and any other word between backticks has to occur in the
source or in a program of the page. HTML is text like any other, and there are no pictures. A name that is gone, a mark
that is on no line or on two, a symbol that occurs in no equation, a number that is written by hand, a formula that is
none, and a mistake that changes nothing of what is printed: each ends the build with the page and the line.

source.py finds lines, symbols.py ties symbols, programs.py runs programs and plants mistakes, markdown.py renders a
text, page.py a page with its blocks, and build.py writes them all.
"""

from scratchvae.reading.build import build
from scratchvae.reading.source import ReadingError

__all__ = ["ReadingError", "build"]
