"""Writes the reading: all pages into one folder, where only a reading is replaced."""

import os
from pathlib import Path

import jinja2
from threadpoolctl import threadpool_limits

from scratchvae.files import told
from scratchvae.output import progress_bar
from scratchvae.reading.page import MADE_BY, Page
from scratchvae.reading.source import ReadingError
from scratchvae.training.checkpoint import write_atomically

HERE = Path(__file__).parent
STYLE = "/* One style sheet for all pages of the reading."  # how the style sheet begins


def build(out, pages=HERE / "pages", progress=None):
    """Write the reading into the folder `out`, and return the paths of its pages, the contents first.

    The folder is made if it is not there; in a reading that is there, every page is replaced. `pages` is the folder of
    the Markdown. `progress` says whether a bar is shown; None, as unless given, shows one on a terminal. A page that
    cannot be built, and a folder that holds something else, raise a `ReadingError` before anything is written.
    """
    out = Path(out)
    site = Site(sorted(Path(pages).glob("*.md")))
    old = _old_pages(out, [*(f"{page.name}.html" for page in site.pages), "style.css"])
    made = {}
    # One thread: the programs of the pages are small, and BLAS's threads would only wait for each other.
    with progress_bar(len(site.pages), 0, progress, unit=" pages") as bar, threadpool_limits(1, "blas"):
        for page in site.pages:
            made[f"{page.name}.html"] = page.html()
            bar.update()
    made["style.css"] = (HERE / "style.css").read_text(encoding="utf-8")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, f"the folder {out} cannot be made ({error.strerror})") from error
    for name, text in made.items():
        write_atomically(out / name, text.encode())
    for path in old:
        if path.name not in made:
            path.unlink(missing_ok=True)  # another build may have been quicker
    return [out / name for name in made if name.endswith(".html")]


def _old_pages(out, names):
    """Return the pages of a reading that is in a folder already.

    A folder with another content is refused, and so is one with another file of one of the `names` that are written,
    or one in which nothing can be written.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ReadingError(f"{out} is no folder; expected one for the pages, or a name that is not taken")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        raise ReadingError(f"nothing can be written into {there}; name another folder")
    if there != out:
        return []
    found = [path for path in out.iterdir() if not path.name.endswith(".tmp")]
    pages = [path for path in found if path.suffix == ".html" and _begins(path, MADE_BY)]
    if found and not pages:
        raise ReadingError(f"{out} holds other things than a reading; name a new folder, or an empty one")
    for path in found:
        if path.name in names and path not in pages and not _begins(path, STYLE):
            raise ReadingError(
                f"{path} is no page of a reading, and is not overwritten; move it away, or name a folder"
            )
    return pages


def _begins(path, mark):
    """Say whether a mark stands in the first lines of a file; one that another build has just removed has none."""
    try:
        with open(path, "rb") as file:
            return mark.encode() in file.read(1000)
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # Windows refuses to open a folder
        return False


class Site:
    """All pages, and where each name in braces is."""

    def __init__(self, paths):
        self.pages = [Page(path, self) for path in paths]
        self.where = {}
        if not self.pages:
            raise ReadingError("there are no pages to build; scratchvae is not installed as a whole")
        by_name = {}
        for page in self.pages:
            other = by_name.setdefault(page.name, page)
            if other is not page:
                raise ReadingError(f"{page.path.name} and {other.path.name} are both the page {page.name}.html")
        for page in self.pages:
            for name in page.anchors:
                if name in self.where:
                    raise ReadingError(f"{page.path.name} and {self.where[name].path.name} both have a row {name}")
                self.where[name] = page
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE, encoding="utf-8"),
            undefined=jinja2.StrictUndefined,
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.template = environment.get_template("page.html.jinja")

    def href(self, name, page):
        """Return the address of a name in braces, seen from a page; without #, `name` is that of a page."""
        if name.startswith("#"):
            target = self.where.get(name[1:])
            if target is None:
                raise ReadingError(f"no page has a row {name[1:]}")
            return name if target is page else f"{target.name}.html{name}"
        if not any(one.name + ".html" == name for one in self.pages):
            raise ReadingError(f"there is no page {name}")
        return name
