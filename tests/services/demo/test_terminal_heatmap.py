"""The heat map in the terminal, with colour and without."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.panel import Panel
from rich.segment import Segment

from parvis_services.demo.heatmap import COLOURS, MARK, UNKNOWN, colour
from parvis_services.demo.terminal_heatmap import terminal_heatmap
from parvis_services.xray.grid import Grid

System = Literal["truecolor", "256"] | None


def printed(heatmap: Any, *, colours: System = None, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """The lines a terminal gets."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=out, color_system=colours, force_terminal=True, width=width, legacy_windows=False).print(
        heatmap
    )
    out.flush()
    return raw.getvalue().decode(encoding).splitlines()


def escape(kind: int, rgb: tuple[int, int, int]) -> str:
    return f"{kind};2;{rgb[0]};{rgb[1]};{rgb[2]}"


def test_shades_lie_where_the_counts_are():
    lines = printed(terminal_heatmap(Grid(3, 2), [0, 50, 100, 0, 0, 100]))
    assert lines[0].split() == ["0", "1", "2", "3"]
    assert lines[1] == "   0 ······▓▓▓▓▓▓██████"
    assert lines[2] == lines[3] == "     ······▓▓▓▓▓▓██████"
    assert lines[4] == "   1 ············██████"
    assert lines[-1].split()[0] == "0"
    assert lines[-1].endswith("100 spots")


def test_few_spots_do_not_look_like_none():
    lines = printed(terminal_heatmap(Grid(3, 2), [0, 1, 100, 0, 0, 100]))
    assert lines[1] == "   0 ······░░░░░░██████"


def test_the_centre_is_marked_in_its_box():
    lines = printed(terminal_heatmap(Grid(3, 2), [1] * 6, centre=(2.5, 1.5)))
    assert [(row, line.index("╋")) for row, line in enumerate(lines[:-1]) if "╋" in line] == [(5, 5 + 15)]
    assert "╋ centre (2.50, 1.50)" in lines[-1]


def test_images_nobody_has_seen_are_blank_and_said_to_be():
    lines = printed(terminal_heatmap(Grid(2, 1), [1, np.nan]))
    assert lines[1] == "   0 ██████      "
    assert lines[-1].endswith("blank: not seen")


def test_a_terminal_without_unicode_gets_ascii():
    lines = printed(terminal_heatmap(Grid(2, 2), [0, 1, 2, np.nan], centre=(1.0, 1.0)), encoding="ascii")
    assert any("+" in line for line in lines[:-1])
    assert "\x1b" not in "".join(lines)


def test_colours_are_those_of_the_picture():
    heatmap = terminal_heatmap(Grid(2, 3), [0, 10, 5, 5, np.nan, 0], centre=(0.5, 0.5))
    text = "\n".join(printed(heatmap, colours="truecolor")[:-1])
    for rgb in (COLOURS[0], COLOURS[-1], colour(0.5), UNKNOWN):
        assert escape(38, rgb) in text
    assert escape(38, MARK) in text


def test_half_blocks_show_two_rows_of_boxes_in_a_line():
    counts = np.zeros((48, 60))
    counts[1, 0] = 1
    lines = printed(terminal_heatmap(Grid(60, 48), counts.ravel()), colours="truecolor")
    assert len(lines) == 1 + 24 + 2
    assert f"{escape(38, COLOURS[0])};{escape(48, COLOURS[-1])}m▀" in lines[1]


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([None, "256", "truecolor"]),
    st.sampled_from([30, 80, 200]),
)
def test_it_always_fits(columns, rows, colours: System, width):
    heatmap = terminal_heatmap(Grid(columns, rows), np.arange(columns * rows), centre=(columns, rows))
    # Wider than it is told to be, so that nothing that is too long is cut off before it is seen.
    console = Console(file=io.StringIO(), color_system=colours, force_terminal=True, width=1000)
    parts = console.render(heatmap, console.options.update(width=width))
    lines = list(Segment.split_lines(parts))
    assert len(lines) <= 1 + 24 + 4
    assert all(sum(len(part.text) for part in line) <= min(80, width) for line in lines)
    assert sum("╋" in part.text for line in lines for part in line) == 2


@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_it_goes_into_a_panel(colours: System):
    lines = printed(Panel.fit(terminal_heatmap(Grid(4, 2), range(8))), colours=colours)
    assert lines[0].startswith("╭")
    assert lines[-1].startswith("╰")


def test_a_large_grid_keeps_its_single_peak():
    counts = np.zeros((300, 400))
    counts[150, 200] = 7
    lines = printed(terminal_heatmap(Grid(400, 300), counts.ravel()))
    assert "".join(lines[1:-1]).count("█") == 2
    assert lines[-1].endswith("7 spots")


def test_one_count_for_each_box():
    with pytest.raises(ValueError, match="6 boxes"):
        terminal_heatmap(Grid(3, 2), [1, 2])
