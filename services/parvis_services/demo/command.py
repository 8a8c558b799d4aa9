"""`parvis demo`: a whole grid scan on one machine, from the detector to the centre of the crystal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.options import json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from parvis_services.demo.plan import Plan
    from parvis_services.demo.show import Findings
    from parvis_services.demo.stage import Stage

_READY_LIMIT = 60.0
_JOB_LIMIT = 600.0
_TICK = 0.15
_LINE_INTERVAL = 3.0


@click.command(
    epilog="""\b
Examples:
  parvis demo
  parvis demo --images 'frames/*.cbf.bz2'
  parvis demo --json | python3 -m json.tool
"""
)
@click.option("--images", metavar="'DIR/*.cbf*'", help="Collect these frames instead of simulated ones.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put everything; must not exist. A new scratch directory by default.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Which crystal to simulate; any by default.")
@click.argument("more", nargs=-1, metavar="")
@json_option
def demo(
    images: str | None, more: tuple[str, ...], directory: Path | None, seed: int | None, as_json: bool
) -> None:
    """Watch a grid scan being analysed, from the detector to the centre of the crystal.

    Everything runs here: a message broker, an ISPyB database in a file, the services, a detector that writes
    frames one after another. No server is needed, nothing is downloaded, and all of it stops at the end.
    """
    # A shell puts the names of the frames where a pattern without quotes was: the first goes to the option.
    if more and images is None:
        raise click.UsageError(f"Got an unexpected argument ({more[0]}): frames come after --images.")
    try:
        from parvis_services.demo import ending
        from parvis_services.demo.plan import NoScan, existing_plan, simulated_plan
        from parvis_services.demo.show import Findings
    except ImportError as error:
        raise click.ClickException(
            f"The demonstration needs more: pip install 'parvis[demo]' ({error})"
        ) from None
    seed = time.time_ns() % 100_000 if seed is None else seed
    try:
        plan = existing_plan([images, *more]) if images else simulated_plan(seed)
    except NoScan as error:
        raise click.ClickException(str(error)) from None
    _end_on_signals()
    place = _new_directory(directory)
    findings = Findings(plan)
    summary = _perform(place, plan, findings, quiet=as_json)
    if as_json:
        ending.print_json(place, findings, summary)
    else:
        ending.print_end(place, findings, summary)
    if findings.failure or findings.found_centre is None:
        raise click.exceptions.Exit(1)


def _end_on_signals() -> None:
    """Have SIGTERM and SIGHUP stop everything, as Ctrl-C does, with the exit code that a shell would give."""
    import signal
    from types import FrameType

    def end(number: int, _frame: FrameType | None) -> None:
        for again in (signal.SIGTERM, signal.SIGHUP):  # once is enough: all is being stopped
            signal.signal(again, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        # A program that ignores it was told to, by nohup for one.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _new_directory(directory: Path | None) -> Path:
    import tempfile

    if directory is None:
        return Path(tempfile.mkdtemp(prefix="parvis-demo-"))
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be made: {error.strerror}") from None
    return directory.resolve()


def _perform(place: Path, plan: Plan, findings: Findings, *, quiet: bool) -> dict[str, Any]:
    """Run the scan and its analysis; return what is to be counted at the end."""
    from rich.console import Console
    from rich.live import Live

    from parvis_services.demo.show import LiveView, draw_picture, progress_text
    from parvis_services.demo.stage import stage

    console = Console(stderr=True, quiet=quiet)
    console.print(f"Collecting {plan.what}, in {place}", highlight=False, soft_wrap=True)
    console.print("Starting a database, a broker and eight instances of services ...")
    began = time.monotonic()
    with stage(place, plan) as ready:
        _wait_until_ready(ready)
        console.print(
            f"Ready after {time.monotonic() - began:.1f} s. The detector starts, and `parvis go` is called."
        )
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def draw(phase: str) -> None:
                live.update(LiveView(findings, ready.states, phase), refresh=True)

            lines = _LineNowAndThen(lambda phase: console.print(f"{phase}: {progress_text(findings)}"))
            drawable = console.is_terminal and not console.is_dumb_terminal
            _follow(ready, plan, findings, draw if drawable else lines)
        summary = {
            "rows": _count_rows(ready, findings),
            "datagrams": len(set(ready.listener.images(ready.dcid))),
        }
    draw_picture(findings, place / "heatmap.png")
    return summary | {"seconds": round(time.monotonic() - began, 1)}


def _wait_until_ready(ready: Stage) -> None:
    deadline = time.monotonic() + _READY_LIMIT
    while not ready.are_ready:
        if time.monotonic() > deadline:
            raise click.ClickException(
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


def _follow(ready: Stage, plan: Plan, findings: Findings, show: Callable[[str], None]) -> None:
    """Start detector and job, and take in what comes of them until the end."""
    import threading

    import orjson

    job = ready.start_job(_JOB_LIMIT)
    detector = ready.collect(plan)

    def read() -> None:
        assert job.stdout is not None  # noqa: S101 - it is a pipe
        for line in job.stdout:
            findings.take(orjson.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(_TICK)
            show("Collecting" if detector.poll() is None else "Analysing")
            if detector.poll() not in (None, 0):
                raise click.ClickException(
                    f"The detector failed; see {ready.directory / 'logs' / 'detector.log'}"
                )
        if job.wait() and findings.failure is None:
            findings.failure = "parvis go ended with an error"
    finally:
        for process in (job, detector):
            process.terminate()
            process.wait()


def _count_rows(ready: Stage, findings: Findings) -> int:
    """Rows of per-image results, once all are written: they and the results come by different ways."""
    deadline = time.monotonic() + 10
    while (rows := ready.stored_images()) < len(findings.images) and time.monotonic() < deadline:
        time.sleep(_TICK)
    return rows
