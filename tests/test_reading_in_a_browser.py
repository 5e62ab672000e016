"""The reading in a real browser: nothing is loaded, nothing is cut off, and everything can be read and reached.

It takes Debian's chromium, or another one that is called chromium or google-chrome, and playwright.
"""

import pytest
from conftest import watched

from scratchvae.reading.source import PACKAGE

NAMES = [path.stem.partition("-")[2] for path in sorted((PACKAGE / "reading" / "pages").glob("*.md"))]

# The contrast of every text with what is behind it, by WCAG 2: the relative luminances with 0.05 added to each.
CONTRAST = """() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return null;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.getClientRects().length) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(walker.currentNode.textContent.trim().slice(0, 30) + " " + ratio.toFixed(2));
  }
  return found;
}"""
WITHOUT_A_BOX = """() => [...document.querySelectorAll("math")].filter(e => {
  const box = e.getBoundingClientRect();
  return e.getClientRects().length && (box.width < 1 || box.height < 1);
}).map(e => e.textContent)"""
CUT = """() => [...document.querySelectorAll(".eq, pre, table")].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 60) + " " + e.scrollWidth + " > " + e.clientWidth)"""
REACHABLE = """() => [...document.querySelectorAll("a[href], summary, [tabindex='0']")].length"""


@pytest.fixture(scope="module")
def page(browser):
    """One page for all tests of this file."""
    return watched(browser.new_page())


def opened(page, folder, name, width):
    """Show a page in a window of so many pixels."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((folder / f"{name}.html").as_uri())
    return page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_loads_nothing_says_nothing_fits_the_window_and_is_easy_to_read(page, reading, name):
    opened(page, reading, name, 1280)
    assert page.said == []
    assert all(address.startswith(("file:", "data:")) for address in page.asked)
    assert page.evaluate(WITHOUT_A_BOX) == []
    assert page.evaluate(CUT) == []
    for width in (1280, 768, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == []
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")  # so that both were looked at


def test_equation_and_code_stand_side_by_side_at_1200_pixels_and_one_above_the_other_on_a_telephone(page, reading):
    for width, beside in ((1200, True), (390, False)):
        opened(page, reading, "vae", width)
        left = page.locator("#eq-9 .left").bounding_box()
        right = page.locator("#eq-9 .right").bounding_box()
        assert (right["x"] > left["x"] + left["width"] / 2) == beside
        assert (right["y"] > left["y"] + left["height"] - 1) != beside


def test_a_symbol_that_is_pointed_at_or_reached_by_the_keyboard_lights_up_with_its_variable(page, reading):
    opened(page, reading, "vae", 1280)
    ground = "e => getComputedStyle(e).backgroundColor"
    variable = page.locator("#eq-9 pre .t3").first
    other = page.locator("#eq-9 pre .t1").first
    symbol = page.locator("#eq-9 math .t3").first
    before = variable.evaluate(ground)
    symbol.hover()
    assert variable.evaluate(ground) != before
    assert symbol.evaluate(ground) == variable.evaluate(ground)
    assert other.evaluate(ground) == before
    page.mouse.move(0, 0)
    assert variable.evaluate(ground) == before
    page.locator("#eq-9 .legend .t3").focus()
    assert variable.evaluate(ground) != before


def test_the_keyboard_reaches_every_link_every_test_and_every_symbol(page, reading):
    opened(page, reading, "vae", 1280)
    total = page.evaluate(REACHABLE)
    assert total > 20
    page.evaluate("window.reached = new Set(); addEventListener('focusin', e => reached.add(e.target))")
    for _ in range(total + 5):
        page.keyboard.press("Tab")
    assert page.evaluate("reached.size") >= total
