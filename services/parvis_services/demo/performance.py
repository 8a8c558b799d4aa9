"""Running the demonstration: the stage, the detector and the job, and what is shown meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.live import Live

from parvis_services.demo.file_detector import Detector
from parvis_services.demo.show import Findings, LiveView, draw_picture, progress_text
from parvis_services.demo.stage import Cast, Stage, stage

_READY_LIMIT: Final = 60.0
_JOB_LIMIT: Final = 600.0
_ROWS_LIMIT: Final = 10.0
_TICK: Final = 0.15
_LINE_INTERVAL: Final = 3.0


class CannotPerform(Exception):
    """The demonstration cannot go on; says why."""


def perform(
    place: Path, findings: Findings, detector: Detector, cast: Cast, *, quiet: bool
) -> dict[str, Any]:
    """Run the scan and its analysis.

    Args:
        place: Where everything is to be.
        findings: Where what is found goes.
        detector: What collects.
        cast: Which recipe, and which services.
        quiet: Show nothing meanwhile.

    Returns:
        What is to be counted at the end.

    Raises:
        CannotPerform: The services did not start, or the detector failed.
    """
    console = Console(stderr=True, quiet=quiet)
    console.print(f"Collecting {findings.plan.what}, in {place}", highlight=False, soft_wrap=True)
    number = sum(cast.services.values())
    console.print(
        f"Starting a database, a broker and {_IN_WORDS.get(number, number)} instances of services ..."
    )
    began = time.monotonic()
    with stage(place, findings.plan, cast) as ready:
        _wait_until_ready(ready, detector)
        console.print(f"Ready after {time.monotonic() - began:.1f} s. {_beginning(findings)}")
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def draw(phase: str) -> None:
                live.update(LiveView(findings, ready.states, phase), refresh=True)

            lines = _LineNowAndThen(lambda phase: console.print(f"{phase}: {progress_text(findings)}"))
            drawable = console.is_terminal and not console.is_dumb_terminal
            _follow(ready, detector, findings, draw if drawable else lines)
        summary = {
            "rows": _count_rows(ready, findings),
            "datagrams": len(set(ready.listener.images(ready.dcid))),
        }
    draw_picture(findings, place / "heatmap.png")
    return summary | {"seconds": round(time.monotonic() - began, 1)}


_IN_WORDS: Final = {8: "eight", 10: "ten"}


def _beginning(findings: Findings) -> str:
    if findings.flow is None:
        return "The detector starts, and `parvis go` is called."
    return "`parvis go` is called, and the detector starts when the recipe runs."


def _wait_until_ready(ready: Stage, detector: Detector) -> None:
    deadline = time.monotonic() + _READY_LIMIT
    while not (ready.are_ready and detector.is_ready):
        if time.monotonic() > deadline:
            raise CannotPerform(
                f"The services did not start within {_READY_LIMIT:g} s; see {ready.directory / 'logs'}"
            )
        time.sleep(_TICK)


class _LineNowAndThen:
    """Shows a phase of the work where nothing can be drawn over."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._next = time.monotonic() + _LINE_INTERVAL

    def __call__(self, phase: str) -> None:
        if time.monotonic() >= self._next:
            self._show(phase)
            self._next += _LINE_INTERVAL


def _follow(ready: Stage, detector: Detector, findings: Findings, show: Callable[[str], None]) -> None:
    """Start detector and job, and take in what comes of them until the end."""
    job = ready.start_job(_JOB_LIMIT)

    def read() -> None:
        assert job.stdout is not None  # noqa: S101 - it is a pipe
        for line in job.stdout:
            findings.take(orjson.loads(line))

    is_started = False
    try:
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while reader.is_alive():
            # What is streamed before anybody waits for it would say nothing of how long images take.
            if not is_started and (findings.flow is None or findings.recipe_id is not None):
                detector.start(ready)
                is_started = True
            reader.join(_TICK)
            _measure(ready, detector, findings)
            show("Collecting" if detector.is_collecting else "Analysing")
            if detector.failure is not None:
                raise CannotPerform(f"The detector failed: {detector.failure}")
        if job.wait() and findings.failure is None:
            findings.failure = "parvis go ended with an error"
    finally:
        detector.stop()
        job.terminate()
        job.wait()


def _measure(ready: Stage, detector: Detector, findings: Findings) -> None:
    """Take note of how many images are where, if they are streamed."""
    if findings.flow is not None:
        # Services tell of their figures now and then: what has a result was stored and analysed before.
        results = len(findings.images)
        analysed = max(ready.total("images_analysed"), results)
        stored = max(ready.total("frames_stored"), analysed)
        counts = {"in": detector.sent, "stored": stored, "analysed": analysed, "results": results}
        findings.flow.update(time.monotonic(), **counts)


def _count_rows(ready: Stage, findings: Findings) -> int:
    """Rows of per-image results, once all are written: they and the results come by different ways."""
    deadline = time.monotonic() + _ROWS_LIMIT
    while (rows := ready.stored_images()) < len(findings.images) and time.monotonic() < deadline:
        time.sleep(_TICK)
    return rows
