"""What the demonstration says while it runs and at its end."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from parvis_services.demo.flow import Flow
from parvis_services.demo.plan import simulated_plan
from parvis_services.demo.show import Findings, LiveView, print_results

SERVICES = {str(number): ("PerImageAnalysis", "processing") for number in range(2)} | {
    "watcher": ("FileWatcher", "processing"),
    "dispatcher": ("Dispatcher", "idle"),
}


def findings_of(*spots: int) -> Findings:
    found = Findings(simulated_plan(3))
    for number, count in enumerate(spots, start=1):
        result = {"file-number": number, "n_spots_total": count, "n_spots_no_ice": count}
        found.take({"event": "image", "result": result | {"estimated_d_min": 2.0, "total_intensity": 5.0}})
    return found


@pytest.mark.parametrize("colours", [None, "truecolor"])
@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (100, 40)])
@pytest.mark.parametrize("streams", [False, True])
def test_the_live_view_fits_the_terminal(colours, width: int, height: int, streams: bool) -> None:
    found = findings_of(1, 900, 30)
    if streams:
        found.flow = Flow()
        found.flow.take({"file-received-at": 1.0, "file-seen-at": 1.1}, 1.25)
        for second, count in enumerate((0, 4, 8)):
            found.flow.update(time.monotonic() - 2 + second, **{"in": 2 * count, "results": count})
    centre = {"centre_x_box": 1.5, "centre_y_box": 0.5}
    found.take({"event": "centre", "result": {"results": [centre]}})
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=colours
    )
    lines = console.render_lines(LiveView(found, SERVICES, "Collecting"))
    text = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert len(text) <= height
    assert text[0] == "Collecting  3 of 140 images analysed"
    assert text[1].startswith("4 services; at work: FileWatcher, PerImageAnalysis x2")
    assert any("900 spots" in line for line in text)
    assert "centre (1.50, 0.50)" in text[-1]
    if not streams:
        assert {"2", "4", "6", "8"} <= {line[:4].strip() for line in text}
    else:
        assert text[2:4] == [
            "images a second   in 8.0   results 4.0",
            "detector to result   p50 250 ms   p99 250 ms",
        ]


def test_the_table_counts_boxes_as_the_map_does() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_results(console, findings_of(1, 900, 30))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[2].split()[:8] == ["2", "1", "to", "2", "0", "to", "1", "900"]
