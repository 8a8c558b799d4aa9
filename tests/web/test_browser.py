"""The web page in a real browser, while a grid scan is collected and analysed by real services."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from parvis_services.demo.plan import Plan
from parvis_services.demo.stage import RECORDS, Stage, stage
from parvis_services.xray.grid import Grid
from real.chromium import Chromium, chromium
from real.packages import Unavailable, unavailable
from waiting import wait_until
from web_page import WebPage, web_page

pytestmark = pytest.mark.real("chromium")

_GRID = Grid(8, 6, snaked=True)
_PLAN = Plan(
    grid=_GRID,
    template="grid_1_#####.cbf",
    prefix="grid",
    number=1,
    first=1,
    what="a simulated crystal",
    centre=None,
    detector=("grid", "{directory}", "--columns", "8", "--rows", "6", "--rate", "8", "--seed", "7"),
)
_PAGES = (
    "",
    "services",
    "queues",
    "recipes",
    "grid-scans",
    "grid-scans/1",
    "dead-letters",
    "logs?text=spots",
)

# How many boxes of the heat map are known, by what is written below it; what a node says.
_SEEN = "return Number((document.querySelector('.said').textContent.match(/[0-9]+/) || [0])[0])"
_DONE = """
const note = [...document.querySelectorAll('.graph .node')]
    .find((node) => node.textContent.includes('Per-image analysis'))?.querySelector('.note');
return Number((note?.textContent.match(/([0-9]+) done/) || [0, 0])[1]);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    try:
        with chromium() as running:
            yield running
    except Unavailable as error:
        unavailable(str(error))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage") / "place", _PLAN) as running:
        wait_until(lambda: running.are_ready, 60, "the services")
        yield running


@pytest.fixture(scope="module")
def page(ready: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebPage]:
    directory = tmp_path_factory.mktemp("web")
    variables = {
        **ready.environment,
        "PARVIS_STATE_DIRECTORY": str(directory / "state"),
        "PARVIS_RECORDS_DIRECTORY": str(ready.directory / RECORDS),
    }
    with web_page(directory, variables) as running:
        yield running


def test_a_scan_fills_in_and_counts_rise_while_one_looks(
    ready: Stage, page: WebPage, browser: Chromium
) -> None:
    browser.shape(1280, 860)
    browser.open(f"{page.address}services")
    browser.wait_for("return document.querySelectorAll('.card').length >= 7", 20, "seven cards")
    browser.open(f"{page.address}grid-scans/1")
    browser.run("window.neverLoadedAgain = true")
    job, detector = ready.start_job(120), ready.collect(_PLAN)
    some = browser.wait_for(_SEEN, 60, "the first boxes")
    more = browser.wait_for(
        f"const seen = (() => {{{_SEEN}}})(); return seen > {some} && seen", 60, "more boxes"
    )
    assert 0 < some < more <= _GRID.size
    assert browser.run("return window.neverLoadedAgain")
    browser.open(f"{page.address}recipes")
    browser.wait_for(
        "return document.querySelector('[data-parts=flying] a, [data-parts=over] a')", 20, "a recipe"
    )
    browser.click("[data-parts=flying] a, [data-parts=over] a")
    browser.run("window.neverLoadedAgain = true")
    some = browser.wait_for(_DONE, 30, "a count")
    browser.wait_for(f"return (() => {{{_DONE}}})() === {_GRID.size}", 60, "all counts")
    assert some <= _GRID.size
    browser.wait_for(
        "return document.querySelector('.headline').textContent.includes('finished')", 60, "the end"
    )
    assert browser.run("return window.neverLoadedAgain")
    assert browser.run("return document.querySelectorAll('.graph .along').length") >= 5
    job.communicate(timeout=60)
    assert (job.returncode, detector.wait(60)) == (0, 0)
    browser.click("a[href='/grid-scans/1']")
    browser.wait_for(
        f"return document.querySelector('.said').textContent.includes('All {_GRID.size}')", 20, "all"
    )
    assert "most spots" in browser.text("figcaption")


@pytest.mark.parametrize(("width", "height", "dark"), [(320, 640, True), (2560, 1440, False)])
def test_pages_fit_phones_and_walls_dark_and_light_and_can_be_read(
    page: WebPage, browser: Chromium, width: int, height: int, dark: bool
) -> None:
    browser.shape(width, height, dark=dark)
    recipe = re.findall(r"/(recipes/[0-9a-f-]{36})", _source(browser, f"{page.address}recipes"))
    for path in (*_PAGES, *recipe[:1]):
        browser.open(f"{page.address}{path}")
        across = browser.run("return document.documentElement.scrollWidth")
        assert across <= width, f"/{path} is {across} pixels wide"
        brightness = browser.run(f"{_COLOURS} return brightness(backdrop(document.body))")
        assert (brightness < 0.05) if dark else (brightness > 0.8)
        assert browser.run(f"{_COLOURS} {_FAINT}") == [], f"/{path}"
        assert browser.run(_NAMELESS) == [], f"/{path}"


def test_without_scripts_there_is_a_link_to_look_again(page: WebPage, browser: Chromium) -> None:
    browser.allow_scripts(allowed=False)
    try:
        browser.open(f"{page.address}services")
        assert "FileWatcher" in browser.text()
        assert "look again" in browser.text("footer")
        browser.click("footer a")
        assert "FileWatcher" in browser.text()
    finally:
        browser.allow_scripts(allowed=True)


def test_nobody_complained_and_nobody_else_was_asked(page: WebPage, browser: Chromium) -> None:
    """What the tests before have left behind in the browser."""
    assert browser.hosts() == {page.address.removeprefix("http://").rstrip("/")}
    assert browser.problems() == []


def _source(browser: Chromium, address: str) -> str:
    browser.open(address)
    return browser.driver.page_source


# Contrast as WCAG 2.2 has it (success criterion 1.4.3): 4.5 to 1, and 3 to 1 for large text.
_COLOURS = """
const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
const brightness = ([red, green, blue]) => [red, green, blue]
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const backdrop = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = channels(getComputedStyle(each).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) {
      return colour;
    }
  }
  return [255, 255, 255];
};
"""
_FAINT = """
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const isShown = element.checkVisibility({ checkOpacity: true }) && walker.currentNode.textContent.trim();
  if (!isShown || element.closest("svg, noscript, .skip")) {
    continue;
  }
  const style = getComputedStyle(element);
  const levels = [brightness(channels(style.color)), brightness(backdrop(element))].sort((a, b) => b - a);
  const contrast = (levels[0] + 0.05) / (levels[1] + 0.05);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if (contrast < (isLarge ? 3 : 4.5)) {
    faint.push(`${contrast.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
  }
}
return faint;
"""
_NAMELESS = """
const faults = [];
const named = (element) => element.getAttribute("aria-label") || element.labels?.length
    || element.textContent.trim() || element.title;
for (const element of document.querySelectorAll("a, button, summary, select, input:not([type=hidden])")) {
  if (!named(element)) {
    faults.push(element.outerHTML.slice(0, 80));
  }
}
for (const picture of document.querySelectorAll("img:not([alt]), svg:not([aria-hidden]):not([role=img])")) {
  faults.push(picture.outerHTML.slice(0, 80));
}
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
faults.push(...ids.filter((id, index) => ids.indexOf(id) !== index).map((id) => `twice: ${id}`));
if (!document.documentElement.lang || document.querySelectorAll("h1").length !== 1 || !document.title) {
  faults.push("no language, heading or title");
}
return faults;
"""
