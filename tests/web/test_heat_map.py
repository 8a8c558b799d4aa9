"""The heat map of a grid scan as a picture of a page."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from parvis.observe.grid_scans import GridScan, GridScanSummary
from parvis.web.heat_map import LEVELS, heat_map, level

SVG = "{http://www.w3.org/2000/svg}"


def _scan(counts: list[float | None], columns: int, box_um: tuple[float, float] = (20.0, 10.0)) -> GridScan:
    summary = GridScanSummary(7, "x", "i03", None, columns, len(counts) // columns, 0)
    return GridScan(summary, box_um, counts, list(range(1, len(counts) + 1)))


def _drawn(scan: GridScan) -> ET.Element:
    svg = heat_map(scan, "A title").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ET.fromstring(svg)  # noqa: S314 - our own picture


@pytest.mark.parametrize(
    ("count", "expected"),
    [(None, None), (0, 0), (1, 1), (50, 5), (99, LEVELS - 1), (100, LEVELS - 1)],
)
def test_only_none_at_all_has_the_darkest_shade(count: float | None, expected: int | None) -> None:
    assert level(count, 100) == expected


def test_boxes_stand_where_they_are_and_say_their_counts() -> None:
    drawn = _drawn(_scan([0, 10, None, 0, 100, 100], 3))
    paths = {path.get("class"): path.get("d", "") for path in drawn.iter(f"{SVG}path")}
    assert set(paths) == {"l0", "l1", "l9", "lx", "lines"}
    assert paths["lx"] == "M74 22h20v10h-20z", "the third box of the first row, half as high as wide"
    assert paths["l9"] == "M54 32h40v10h-40z", "two beside each other are one piece"
    assert [text.text for text in drawn.iter(f"{SVG}text") if "count" in text.get("class", "")] == [
        "10",
        "100",
        "100",
    ]
    (best,) = [rect for rect in drawn.iter(f"{SVG}rect") if rect.get("class") == "best"]
    assert (best.get("x"), best.get("y")) == ("54", "32")


def test_a_large_grid_is_a_few_paths() -> None:
    counts: list[float | None] = [float(index % 3000 == 0) for index in range(100_000)]
    svg = heat_map(_scan(counts, 400), "A title")
    assert svg.count("<path") == 2
    assert len(svg) < 60_000


def test_a_grid_of_which_nothing_is_known_can_be_drawn() -> None:
    drawn = _drawn(_scan([None] * 4, 2, (0.0, 0.0)))
    assert [path.get("class") for path in drawn.iter(f"{SVG}path")] == ["lx", "lines"]
