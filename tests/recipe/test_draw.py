"""Pictures of recipes."""

from __future__ import annotations

import re
import unicodedata
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from parvis.config import shipped_recipes
from parvis.recipe.draw import to_mermaid, to_svg, to_text
from parvis.recipe.draw_svg import NodeNote, Notes
from parvis.recipe.graph import Recipe
from parvis.recipe.layout import lay_out
from parvis.recipe.problem import RecipeError

SVG = "{http://www.w3.org/2000/svg}"
TWELVE: dict[str, Any] = {
    "1": {
        "service": "File watcher",
        "queue": "filewatcher",
        "output": {"first": [2, 4], "every": 3, "select-250": 7, "finally": 5},
    },
    "2": {"service": "Validation", "queue": "validation", "output": 9},
    "3": {
        "service": "Per-image analysis",
        "queue": "per_image_analysis",
        "output": {"result": [6, 8, 10, 11], "reflections": 12},
        "error": 9,
    },
    "4": {"service": "Images", "queue": "images"},
    "5": {
        "service": "Archiver",
        "queue": "archive.pattern",
        "transport-delay": 120,
        "output": {"missing": 9},
    },
    "6": {"service": "ISPyB", "queue": "ispyb_pia"},
    "7": {"service": "Per-image analysis", "queue": "per_image_analysis", "output": 8},
    "8": {"service": "JSON lines", "queue": "jsonlines"},
    "9": {"service": "Mail", "topic": "mail"},
    "10": {"service": "Notify GDA", "queue": "notify_gda"},
    "11": {"service": "X-ray centring", "queue": "reduce.xray_centering", "output": {"success": 6}},
    "12": {"queue": "index"},
    "start": [[1, []]],
}
HOSTILE = '<script>alert("x")</script>&\x1b[2J\x00\u202e]]>'


def twelve() -> Recipe:
    return Recipe.from_dict(TWELVE)


def hostile() -> Recipe:
    return Recipe.from_dict(
        {
            "1": {"service": HOSTILE, "queue": "a", "output": {HOSTILE: 2}},
            "2": {"service": "x" * 5000, "queue": "b"},
            "start": [[1, {}]],
        }
    )


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each node."""
    found: list[tuple[float, float, float, float]] = []
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):  # noqa: S314 - our own picture
        if "box" in rect.get("class", ""):
            x, y, width, height = (float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


def test_a_picture_shows_every_node_output_and_the_start() -> None:
    svg = to_svg(twelve())
    assert len(boxes(svg)) == 12
    shown = texts(svg)
    for text in (
        "File watcher",
        "filewatcher",
        "first",
        "every",
        "select-250",
        "error",
        "topic mail",
        "▶ start",
    ):
        assert text in shown
    assert "archive.pattern · after 120 s" in shown
    edges = [path for path in ET.fromstring(svg).iter(f"{SVG}path") if path.get("class") == "edge"]  # noqa: S314
    assert len(edges) == 15


@pytest.mark.parametrize("name", ["twelve", *sorted(path.stem for path in shipped_recipes().glob("*.json"))])
def test_nodes_do_not_overlap_and_lie_inside(name: str) -> None:
    recipe = (
        twelve() if name == "twelve" else Recipe.from_json((shipped_recipes() / f"{name}.json").read_bytes())
    )
    svg = to_svg(recipe)
    root = ET.fromstring(svg)  # noqa: S314
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    found = boxes(svg)
    assert len(found) == len(recipe.nodes)
    assert all(x >= 0 and y >= 0 and right <= width and bottom <= height for x, y, right, bottom in found)
    for one, two in combinations(found, 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, (one, two)


def test_what_a_node_leads_to_stands_below_it() -> None:
    links = [(node.number, target) for node in twelve().nodes.values() for _, target in node.links()]
    layout = lay_out(dict.fromkeys(range(1, 13), 100.0), links, 30)
    assert all(layout.layers[source] < layout.layers[target] for source, target in links)
    assert min(layout.x.values()) >= 50
    assert max(layout.x.values()) <= layout.width - 50


def test_a_node_stands_above_the_middle_of_what_it_leads_to() -> None:
    layout = lay_out(dict.fromkeys(range(1, 5), 100.0), [(1, 2), (1, 3), (1, 4)], 30)
    assert layout.x[1] == pytest.approx(layout.x[3])
    assert layout.x[3] - layout.x[2] == pytest.approx(130)


def test_crossings_are_undone() -> None:
    links = [(1, 6), (2, 4), (2, 5), (3, 6)]
    x = lay_out(dict.fromkeys(range(1, 7), 100.0), links, 30).x
    crossing = [
        (one, two)
        for one, two in combinations(links, 2)
        if (x[one[0]] - x[two[0]]) * (x[one[1]] - x[two[1]]) < 0
    ]
    assert crossing == []


def test_hostile_text_is_escaped() -> None:
    svg = to_svg(hostile())
    root = ET.fromstring(svg)  # noqa: S314
    assert not list(root.iter(f"{SVG}script"))
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert len(svg) < 10_000
    mermaid = to_mermaid(hostile())
    assert "<script>" not in mermaid
    assert '"x"' not in mermaid
    for text in (mermaid, to_text(hostile())):
        assert all(line.isprintable() for line in text.splitlines())


def test_text_is_a_tree() -> None:
    recipe = Recipe.from_json((shipped_recipes() / "per-image-analysis-gridscan-swmr.json").read_bytes())
    assert to_text(recipe).splitlines() == [
        "● start → 1 File watcher (master file)  [filewatcher]",
        "  └─ any → 2 File watcher (images)  [filewatcher]",
        "     └─ every → 3 Per-image analysis  [per_image_analysis]",
        "        ├─ result → 4 ISPyB per-image results  [ispyb_pia]",
        "        ├─ result → 5 Notify GDA  [notify_gda]",
        "        ├─ result → 6 X-ray centring  [reduce.xray_centering]",
        "        └─ result → 7 JSON lines  [jsonlines]",
    ]


def test_text_draws_each_node_once() -> None:
    lines = to_text(twelve()).splitlines()
    drawn = [
        int(match[1]) for line in lines if "(above)" not in line and (match := re.search(r"→ (\d+) ", line))
    ]
    assert sorted(drawn) == list(range(1, 13))
    assert sum("(above)" in line for line in lines) == 4


@pytest.mark.parametrize("width", [40, 80])
def test_text_fits_however_deep_and_wide_the_recipe_is(width: int) -> None:
    chain: dict[str, Any] = {
        str(n): {"service": "長い名前 " * 20, "queue": "q" * 100, "output": {"out" * 30: [n + 1]}}
        for n in range(1, 60)
    }
    recipe = Recipe.from_dict({**chain, "60": {"queue": "end"}, "start": [[1, {}], [30, {}]]})
    lines = to_text(recipe, width).splitlines()
    columns = [sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in lines]
    assert max(columns) <= width


def test_what_is_too_deep_is_drawn_further_below() -> None:
    chain: dict[str, Any] = {
        str(n): {"service": f"step {n}", "queue": "q", "output": [n + 1]} for n in range(1, 30)
    }
    text = to_text(Recipe.from_dict({**chain, "30": {"queue": "end"}, "start": [[1, {}]]}))
    assert "→ 14 step 14 (below)" in text
    assert "\n… 14 step 14" in text
    assert "→ 30 end" in text


def test_so_is_what_only_failures_lead_to() -> None:
    chain: dict[str, Any] = {
        str(n): {"service": f"step {n}", "queue": "q", "error": [n + 1]} for n in range(1, 30)
    }
    text = to_text(Recipe.from_dict({**chain, "30": {"queue": "end"}, "start": [[1, {}]]}))
    assert "⇢ 14 step 14 (below)" in text
    assert "⇢ 30 end" in text


def test_a_web_of_links_is_not_drawn() -> None:
    web: dict[str, Any] = {str(n): {"queue": "q", "error": list(range(n + 1, 61))} for n in range(1, 61)}
    with pytest.raises(RecipeError, match="has 1770 links; a picture of more than 1000 shows nothing"):
        to_text(Recipe.from_dict({**web, "start": [[1, {}]]}))


def test_mermaid_names_nodes_and_outputs() -> None:
    lines = to_mermaid(twelve()).splitlines()
    assert lines[0] == "flowchart TD"
    assert '  n1["1 File watcher<br/><small>filewatcher</small>"]' in lines
    assert "  start --> n1" in lines
    assert '  n1 -->|"every"| n3' in lines
    assert "  n7 --> n8" in lines
    assert '  n3 -.->|"error"| n9' in lines


@pytest.mark.parametrize("draw", [to_svg, to_text, to_mermaid])
def test_what_is_not_valid_is_not_drawn(draw: Any) -> None:
    circle = Recipe.from_dict({"1": {"queue": "a", "output": 1}, "start": [[1, {}]]})
    with pytest.raises(RecipeError, match="a circle"):
        draw(circle)
    large: dict[str, Any] = {str(n): {"queue": "q"} for n in range(1, 400)}
    with pytest.raises(RecipeError, match="has 399 nodes"):
        draw(Recipe.from_dict({**large, "start": [[n, {}] for n in range(1, 400)]}))


FAILURES: dict[str, Any] = {
    "1": {"service": "Split", "queue": "split", "output": {"a": 2, "b": 3}, "priority": 7},
    "2": {"queue": "a", "output": 4, "error": 5, "retries": 1, "retry-delay": 2.5, "timeout": "{limit}"},
    "3": {"queue": "b", "output": 4},
    "4": {"queue": "join", "parameters": {"wait-for": {"2": 1, "3": 100}}, "output": {"complete": 6}},
    "5": {"service": "Failed", "queue": "failed"},
    "6": {"queue": "end"},
    "7": {"service": "All else", "queue": "else"},
    "start": [[1, {}]],
    "error": [7],
}


def test_a_picture_shows_error_edges_joins_and_what_nodes_say_of_the_handling() -> None:
    svg = to_svg(Recipe.from_dict(FAILURES))
    shown = texts(svg)
    for text in (
        "error",
        "✕ any failure",
        "priority 7",
        "≤ {limit} s · 1 retry · retry after 2.5 s",
        "waits for node 2, 100 of node 3",
    ):
        assert text in shown
    paths = list(ET.fromstring(svg).iter(f"{SVG}path"))  # noqa: S314 - our own picture
    (dashed,) = [path for path in paths if path.get("stroke-dasharray")]
    assert dashed.get("stroke") == "#c53030"
    assert len([path for path in paths if path.get("class") == "bar"]) == 1
    rows = sorted({bottom - top for _, top, _, bottom in boxes(svg)})
    assert len(rows) > 1, "a box with a third line is higher"


def test_a_picture_of_a_recipe_that_runs_shows_its_counts_in_the_colours_of_the_page() -> None:
    recipe = Recipe.from_dict(FAILURES)
    notes = Notes(
        nodes={2: NodeNote("99 done, 1 <failed>", "failed"), 4: NodeNote("3 waiting", "waiting")},
        edges={(1, 2): "100", (2, 4): "99", (3, 4): "7", (4, 4): "12"},
    )
    svg = to_svg(recipe, notes)
    shown = texts(svg)
    for text in ("99 done, 1 <failed>", "3 waiting", "100", "99", "7"):
        assert text in shown
    root = ET.fromstring(svg)  # noqa: S314 - our own picture
    states = [group.get("class") for group in root.iter(f"{SVG}g")]
    assert states.count("node failed") == states.count("node waiting") == 1
    assert not list(root.iter(f"{SVG}style")), "a strict page takes no style of a picture"
    counts = [text for text in root.iter(f"{SVG}text") if text.get("class") == "along"]
    assert len({(text.get("x"), text.get("y")) for text in counts}) == len(counts) == 3


def test_the_terminal_shows_them_within_its_width() -> None:
    expected = """\
● start → 1 Split  [split]  {priority 7}
  ├─ a → 2 a
  │  │   {≤ {limit} s · 1 retry · retry after 2.5 s}
  │  ├─ → 4 join  {waits for node 2, 100 of node 3}
  │  │  └─ complete → 6 end
  │  └╌ error ⇢ 5 Failed  [failed]
  └─ b → 3 b
     └─ → 4 join (above)
✕ any failure ⇢ 7 All else  [else]
"""
    assert to_text(Recipe.from_dict(FAILURES), 52) == expected


def test_a_flow_chart_shows_them() -> None:
    lines = to_mermaid(Recipe.from_dict(FAILURES)).splitlines()
    assert '  n2 -.->|"error"| n5' in lines
    assert "  failed -.-> n7" in lines
    join = "4 join<br/><small>join</small><br/><small>waits for node 2, 100 of node 3</small>"
    assert f'  n4[["{join}"]]' in lines


def test_the_text_says_what_is_known_of_a_recipe_that_runs() -> None:
    notes = Notes({2: NodeNote("99 done, 1 to do", "running")}, {(1, 2): "100"})
    recipe = Recipe.from_dict(FAILURES)
    lines = to_text(recipe, 60, notes).splitlines()
    assert "  ├─ a (100) → 2 a  (99 done, 1 to do)" in lines
    narrow = to_text(recipe, 30, notes).splitlines()
    assert "  │  │  (99 done, 1 to do)" in narrow
    assert all(len(line) <= 30 for line in narrow)
