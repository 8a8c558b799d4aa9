"""Take the pictures of the web page in `images/`, of a demonstration: `python docs/take_screenshots.py`.

It needs Chromium, as `tests/web/test_browser.py` does, and takes about a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from parvis.cli.go import go  # noqa: E402
from parvis_services.demo.plan import simulated_plan  # noqa: E402
from parvis_services.demo.stage import RECORDS, Stage, stage  # noqa: E402
from real.chromium import Chromium, chromium  # noqa: E402
from waiting import wait_until  # noqa: E402
from web_page import WebPage, web_page  # noqa: E402

IMAGES = Path(__file__).parent / "images"
SEED = 7


def main() -> None:
    """Take all pictures."""
    place = Path(tempfile.mkdtemp(prefix="parvis-screenshots-"))
    plan = simulated_plan(SEED)
    with stage(place / "stage", plan) as ready:
        wait_until(lambda: ready.are_ready, 60, "the services")
        variables = {
            **ready.environment,
            "PARVIS_STATE_DIRECTORY": str(place / "state"),
            "PARVIS_RECORDS_DIRECTORY": str(ready.directory / RECORDS),
        }
        with web_page(place, variables) as page, chromium() as browser:
            _ask_for_what_does_not_exist(ready)
            job, detector = ready.start_job(300), ready.collect(plan)
            _take(page, browser)
            job.communicate(timeout=120)  # what nobody reads would keep it from ending
            detector.wait()
    print(f"Pictures are in {IMAGES}")


def _ask_for_what_does_not_exist(ready: Stage) -> None:
    from click.testing import CliRunner

    asked = CliRunner(env=dict(ready.environment)).invoke(go, ["-r", "per-image-analysis-rotation", "4711"])
    assert asked.exit_code == 0, asked.output  # noqa: S101


def _take(page: WebPage, browser: Chromium) -> None:
    browser.shape(1280, 800, dark=True)
    browser.open(f"{page.address}grid-scans/1")
    some = "return Number(document.querySelector('.said').textContent.match(/[0-9]+/)?.[0]) > 80"
    browser.wait_for(some, 120, "images")
    browser.save(IMAGES / "web-grid-scan.png")
    browser.open(f"{page.address}recipes")
    browser.wait_for("return document.querySelector('[data-parts=flying] a')", 60, "the recipe")
    browser.run("document.querySelector('[data-parts=flying] a').click()")
    browser.wait_for("return document.querySelector('.graph .along')", 60, "its picture")
    browser.save(IMAGES / "web-recipe.png")
    browser.open(page.address)
    browser.wait_for("return document.querySelector('.trouble, .item.bad')", 60, "a dead letter")
    browser.save(IMAGES / "web-overview.png")
    browser.shape(390, 780, scale=2)
    browser.open(page.address)
    browser.wait_for("return document.querySelector('.link.ok')", 20, "the page")
    browser.save(IMAGES / "web-phone.png")
    browser.shape(1280, 800)
    browser.open(f"{page.address}dead-letters")
    browser.wait_for("return document.querySelector('details')", 20, "the dead letter")
    browser.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    browser.save(IMAGES / "web-dead-letters.png")


if __name__ == "__main__":
    main()
