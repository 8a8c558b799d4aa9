"""`parvis go --wait`: shows a job while it runs, and its results at the end."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

from parvis.cli.job import Job
from parvis.cli.submit import leave
from parvis.recipe.problem import printable
from parvis.transport.base import Message, Transport

if TYPE_CHECKING:
    from rich.console import Console

    from parvis.cli.story_watch import StoryWatch
    from parvis.observe.story import Story

Report: TypeAlias = Callable[..., None]

_TICK = 0.5
_QUIET = 10.0  # seconds of silence after which a job seems over whose messages we may have missed
_REST = 1.0  # seconds of silence after which nothing more is on its way
_MOST_ROWS = 100
_BEST_ROWS = 20


def follow(
    transport: Transport,
    inbox: queue.SimpleQueue[Message],
    limit: float,
    report: Report | None,
    watch: StoryWatch,
) -> bool:
    """Follow a job to its end; return whether it succeeded.

    It has ended when what it sends back says so, or what the records tell of it. Standard output gets the
    results; the progress bar is on standard error, if that is a terminal.

    Args:
        transport: Brings messages into `inbox`.
        inbox: What the job sends back.
        limit: Seconds to wait.
        report: Called with each event, for programs; None prints for people.
        watch: What the records tell.
    """
    job = Job()
    started = time.monotonic()
    connection = transport.connection
    heard = time.monotonic()
    with _Progress(shown=report is None and sys.stderr.isatty()) as progress:
        while not _is_over(job, watch) and (left := started + limit - time.monotonic()) > 0:
            event = _next(job, inbox, min(left, _TICK))
            heard = time.monotonic() if event is not None else heard
            if transport.connection != connection and job.seems_over and time.monotonic() - heard > _QUIET:
                break
            if event is not None and report is not None:
                report(**event)
            progress.show(job)
        if _has_ended(watch.story(job.recipe_id)):
            _take_rest(job, inbox, report)
    gap = transport.connection != connection
    leave(transport)
    story = watch.story(job.recipe_id)
    reason = _reason(job, story, limit, gap)
    if report is not None:
        told = {} if story is None else {"state": story.state}
        report("end", success=reason is None, reason=reason, images=len(job.images), **told)
    else:
        _print(job, reason, story)
    return reason is None


def _is_over(job: Job, watch: StoryWatch) -> bool:
    story = watch.story(job.recipe_id)
    if job.is_over and not (job.watches_nothing and watch.may_tell):
        return True
    return _has_ended(story)


def _has_ended(story: Story | None) -> TypeGuard[Story]:
    return story is not None and story.is_over


def _take_rest(job: Job, inbox: queue.SimpleQueue[Message], report: Report | None) -> None:
    """Take what is on its way when the records know of the end already."""
    quiet = time.monotonic() + _REST
    while (not job.is_over or job.watches_nothing) and time.monotonic() < quiet:
        event = _next(job, inbox, _REST / 4)
        if event is not None:
            quiet = time.monotonic() + _REST
            if report is not None:
                report(**event)


def _reason(job: Job, story: Story | None, limit: float, gap: bool) -> str | None:
    """Why the job has failed, or cannot be said to have ended well; None if it has."""
    if story is not None and (job.watches_nothing or not job.is_over):
        if not story.is_over and not (gap and job.seems_over):
            return f"No end within {limit:g} s. {story.summary}"
        if story.is_over:
            return None if story.state == "finished" else job.failure or story.summary
    if job.is_over or (gap and job.seems_over):
        return job.failure
    return _out_of_time(job, limit, gap)


def _next(job: Job, inbox: queue.SimpleQueue[Message], timeout: float) -> dict[str, Any] | None:
    try:
        return job.take(inbox.get(timeout=timeout))
    except queue.Empty:
        return None


def _out_of_time(job: Job, limit: float, gap: bool) -> str:
    if job.recipe_id is None:
        return (
            f"Nothing was heard within {limit:g} s: is a dispatcher running (parvis service -s Dispatcher)?"
        )
    expected = "?" if job.expected is None else job.expected
    lost = " The connection was lost in between, and with it perhaps results." if gap else ""
    return f"No end within {limit:g} s: {len(job.images)} of {expected} images were analysed.{lost}"


class _Progress:
    """A bar on standard error: how many images were analysed."""

    def __init__(self, *, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("waiting for the dispatcher", total=None)

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: Job) -> None:
        if self._bar is not None and job.recipe_id is not None:
            self._bar.update(
                self._task, description="images analysed", completed=len(job.images), total=job.expected
            )


def _print(job: Job, reason: str | None, story: Story | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if job.images:
        _print_images(console, list(job.images.values()))
    for centre in job.centres.values():
        for line in _centre_lines(centre):
            console.print(line)
    if job.watches_nothing and reason is None and story is not None:
        console.print(f"{story.summary} Recipe ID {job.recipe_id}.")
    elif job.watches_nothing and reason is None:
        console.print(f"Started as {job.recipe_id}; nothing in this recipe reports back.")
    elif reason is None:
        console.print(f"Finished: {len(job.images)} images analysed, recipe ID {job.recipe_id}.")
        if job.expected is not None and len(job.images) < job.expected:
            missed = job.expected - len(job.images)
            console.print(f"The connection was lost in between: {missed} more results were not heard here.")
    else:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
            f"Failed: {printable(reason, 2000)}"
        )


def _print_images(console: Console, images: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    shown = sorted(images, key=_place)
    if len(images) > _MOST_ROWS:
        shown = sorted(images, key=lambda image: -_number(image, "n_spots_total"))[:_BEST_ROWS]
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("image", "spots", "no ice", "resolution / Å", "intensity", "file"):
        table.add_column(heading, justify="left" if heading == "file" else "right", no_wrap=True)
    for image in shown:
        table.add_row(
            str(_place(image)[0] or ""),
            _shown(image, "n_spots_total"),
            _shown(image, "n_spots_no_ice"),
            _shown(image, "estimated_d_min", ".2f"),
            _shown(image, "total_intensity", ".0f"),
            printable(str(image.get("file", "")).rpartition("/")[2]),
        )
    console.print(table)
    if len(images) > _MOST_ROWS:
        console.print(f"These are the {_BEST_ROWS} with the most spots of {len(images)}; --json gives all.")


def _place(image: dict[str, Any]) -> tuple[int, str]:
    for name in ("file-pattern-index", "file-number", "file-list-index"):
        if isinstance(image.get(name), int):
            return image[name], str(image.get("file", ""))
    return 0, str(image.get("file", ""))


def _number(image: dict[str, Any], name: str) -> float:
    value = image.get(name)
    return value if isinstance(value, int | float) else -1


def _shown(image: dict[str, Any], name: str, form: str = "") -> str:
    value = _number(image, name)
    return "-" if value < 0 else format(value, form)


def _centre_lines(centre: dict[str, Any]) -> list[str]:
    results = centre.get("results")
    found = cast("list[Any]", results) if isinstance(results, list) else []
    objects = [cast("dict[str, Any]", result) for result in found or [centre] if isinstance(result, dict)]
    return [_centre_line(result) for result in objects]


def _centre_line(result: dict[str, Any]) -> str:
    best = result.get("best_image")
    best = f"; best image {best}" if isinstance(best, int) else ""
    if isinstance(result.get("centre_x_box"), int | float):
        return f"Centre: box {_pair(result, '_box')}, pixel {_pair(result, '')}{best}"
    place: Any = result.get("centre_of_mass")
    if isinstance(place, list) and all(isinstance(value, int | float) for value in cast("list[Any]", place)):
        return "Centre: box " + ", ".join(f"{value:.2f}" for value in cast("list[float]", place)) + best
    return f"Centre: {printable(str(result.get('message') or 'no crystal was found'))}"


def _pair(result: dict[str, Any], what: str) -> str:
    return ", ".join(f"{_number(result, f'centre_{axis}{what}'):.2f}" for axis in "xy")
