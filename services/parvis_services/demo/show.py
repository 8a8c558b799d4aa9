"""What the demonstration shows: the grid filling in, and what came of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from parvis.recipe.problem import printable
from parvis_services.demo.flow import Flow
from parvis_services.demo.heatmap import draw_png
from parvis_services.demo.plan import BOX_UM, Plan
from parvis_services.demo.terminal_heatmap import MOST_LINES, terminal_heatmap
from parvis_services.stores.url import is_object_url

_MOST_ROWS = 40
_BEST_ROWS = 15
_MOST_NAMES = 5
# Above the boxes: what is done, services, a blank, the columns' numbers. Below them: a blank, three at most
# for the colours, the cursor. Of a stream there are two more above: its rates, and how long images take.
_LINES_AROUND = 9
_LINES_OF_FLOW = 2


@dataclass
class Findings:
    """What is known of the scan so far.

    Attributes:
        plan: What is collected.
        images: Result of each image, by its number in the scan, from 1.
        centre: What the centring found, once it has.
        recipe_id: The recipe ID, once the recipe runs.
        centring_ended: Whether the centring came to an end, with or without a crystal.
        dead_letters: Service and reason of each message that was set aside.
        failure: Why it failed, if it did.
        flow: How fast images go, and how long they take, if they are streamed.
    """

    plan: Plan
    images: dict[int, dict[str, Any]] = field(default_factory=dict[int, "dict[str, Any]"])
    centre: dict[str, Any] | None = None
    recipe_id: str | None = None
    centring_ended: bool = False
    dead_letters: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    failure: str | None = None
    flow: Flow | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Learn from an event of `parvis go --wait --json`."""
        result = event.get("result") or {}
        match event.get("event"):
            case "started":
                self.recipe_id = event.get("recipe_id")
            case "image":
                self.images[result["file-number"]] = result
                if self.flow is not None:
                    self.flow.take(result, time.time())
            case "dead-letter":
                self.dead_letters.append((str(event.get("service")), str(event.get("reason"))))
            case "centre":
                self.centring_ended = True
                self.centre = result["results"][0] if result.get("results") else None
            case "end":
                self.failure = event.get("reason")
            case _:
                pass

    @property
    def counts(self) -> list[float]:
        """Spots on each image in order of acquisition, NaN for those not analysed yet."""
        return [
            self.images[number]["n_spots_total"] if number in self.images else math.nan
            for number in range(1, self.plan.grid.size + 1)
        ]

    @property
    def missing(self) -> list[str]:
        """File names of the images that were not analysed."""
        plan = self.plan
        return [plan.file_name(n) for n in range(1, plan.grid.size + 1) if n not in self.images]

    @property
    def series(self) -> str | None:
        """The address of the series, if its images are in a store and any was analysed."""
        files = [image["file"] for image in self.images.values() if is_object_url(image["file"])]
        return files[0].rpartition("/")[0] if files else None

    @property
    def found_centre(self) -> tuple[float, float] | None:
        """The centre (x, y) in grid boxes, if one was found."""
        if self.centre is None or self.centre.get("centre_x_box") is None:
            return None
        return self.centre["centre_x_box"], self.centre["centre_y_box"]


@dataclass(frozen=True)
class LiveView:
    """What is shown while it runs, as high as the terminal at most.

    Attributes:
        findings: What is known so far.
        states: Name and state of each instance of a service.
        phase: What is being done.
    """

    findings: Findings
    states: Mapping[str, tuple[str, str]]
    phase: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = self.findings.plan.grid
        yield Text.assemble((f"{self.phase}  ", "bold"), progress_text(self.findings))
        yield _services(self.states)
        height = console.height - _LINES_AROUND
        if self.findings.flow is not None:
            yield from _flow(self.findings.flow)
            height -= _LINES_OF_FLOW
        yield Text()
        height = min(height, MOST_LINES)
        yield terminal_heatmap(grid, self.findings.counts, self.findings.found_centre, most_lines=height)


def progress_text(findings: Findings) -> str:
    """Say how far the analysis is."""
    return f"{len(findings.images)} of {findings.plan.grid.size} images analysed"


def _services(states: Mapping[str, tuple[str, str]]) -> Text:
    """One line, whatever its width: how many services there are, and which are at work."""
    busy = Counter(name for name, state in states.values() if state == "processing")
    names = [f"{name} x{count}" if count > 1 else name for name, count in sorted(busy.items())]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{len(states)} services; at work: ", style="dim")
    text.append(", ".join(names) or "none", style="green" if names else "dim")
    return text


def _flow(flow: Flow) -> Iterator[Text]:
    """Two lines: images a second at each stage, and how long they take from the detector."""
    rates = Text("images a second", style="dim", no_wrap=True, overflow="ellipsis")
    for name, rate in flow.per_second(time.monotonic()).items():
        rates.append(f"   {name} ", style="dim").append(f"{rate:.1f}", style="bold cyan" if rate else "dim")
    yield rates
    latency = Text("detector to result", style="dim", no_wrap=True, overflow="ellipsis")
    spans = flow.latency("frame_to_result") or {}
    for name, seconds in spans.items():
        latency.append(f"   {name} ", style="dim").append(milliseconds(seconds), style="bold cyan")
    yield latency


def milliseconds(seconds: float) -> str:
    """A time for people, in ms."""
    return f"{seconds * 1000:.0f} ms"


def draw_picture(findings: Findings, path: Path) -> None:
    """Draw the heat map of the grid with the centre marked."""
    best = findings.centre.get("best_image") if findings.centre else None
    draw_png(
        path,
        findings.plan.grid,
        findings.counts,
        centre=findings.found_centre,
        best_image=best,
        box_um=(BOX_UM, BOX_UM),
        title="Grid scan: spots on each image",
    )


def print_results(console: Console, findings: Findings) -> None:
    """Print the table of images and the heat map."""
    console.print(_table(findings))
    console.print(terminal_heatmap(findings.plan.grid, findings.counts, findings.found_centre))


def _table(findings: Findings) -> Table:
    numbers = sorted(findings.images)
    caption = "x and y are the edges of the image's box, numbered from 0 as on the map"
    if len(numbers) > _MOST_ROWS:
        numbers = sorted(numbers, key=lambda number: -findings.images[number]["n_spots_total"])[:_BEST_ROWS]
        caption = f"the {_BEST_ROWS} of {len(findings.images)} images with the most spots; {caption}"
    table = Table(box=None, header_style="bold", caption=caption, caption_justify="left", pad_edge=False)
    for heading in ("image", "box x", "box y", "spots", "off ice", "resolution", "intensity"):
        table.add_column(heading, justify="right")
    for number in numbers:
        image = findings.images[number]
        column, row = findings.plan.grid.position(number)
        resolution = image["estimated_d_min"]
        table.add_row(
            str(number),
            f"{column} to {column + 1}",
            f"{row} to {row + 1}",
            str(image["n_spots_total"]),
            str(image["n_spots_no_ice"]),
            f"{resolution:.2f} Å" if resolution > 0 else "-",
            f"{image['total_intensity']:.0f}",
        )
    return table


def failure_lines(findings: Findings) -> list[str]:
    """Say what failed, if anything did: the images that are missing, and each reason once."""
    missing = findings.missing
    lines: list[str] = []
    if missing:
        shown = ", ".join(missing[:_MOST_NAMES]) + (", ..." if len(missing) > _MOST_NAMES else "")
        lines.append(f"Not analysed: {len(missing)} of {findings.plan.grid.size} images: {shown}")
    reasons = Counter(findings.dead_letters)
    for (service, reason), count in list(reasons.items())[:_MOST_NAMES]:
        times = f" ({count} times)" if count > 1 else ""
        lines.append(f"{printable(service)} set a message aside{times}: {printable(reason, 1000)}")
    if len(reasons) > _MOST_NAMES:
        lines.append(f"... and for {len(reasons) - _MOST_NAMES} more reasons, which --json prints.")
    if findings.failure and not reasons:
        lines.append(f"Failed: {printable(findings.failure, 1000)}")
    return lines


def centre_text(findings: Findings) -> str:
    """Say where the crystal is, and how far that is from the truth where it is known."""
    found = findings.found_centre
    if found is None and not findings.centring_ended:
        return "The centre was not determined: the centring needs every image."
    if found is None:
        return "No crystal was found."
    best = findings.centre.get("best_image") if findings.centre else None
    text = f"The crystal's centre is at box ({found[0]:.2f}, {found[1]:.2f}); best image {best}."
    if findings.plan.centre is not None:
        off = math.dist(found, findings.plan.centre) * BOX_UM
        x, y = findings.plan.centre
        text += f"\nIt was put at ({x:.2f}, {y:.2f}): {off:.0f} µm away, with boxes of {BOX_UM:.0f} µm."
    return text
