"""`parvis store submit`: has a stored series analysed by the services, and shows what comes of it."""

from __future__ import annotations

import contextlib
import queue
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import json_option, with_config
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import (
    SeriesType,
    manifest_of,
    opened,
    plural,
    series_url,
    written_ranges,
)
from parvis_services.stores.progress import Moved, progress_bar

if TYPE_CHECKING:
    from parvis.cli.job import Job
    from parvis.config import Config
    from parvis.transport.base import Message, Transport
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.store import ImageStore
    from parvis_services.stores.url import ObjectUrl

_PATIENCE: Final = 5.0  # seconds that the broker may take
_TICK: Final = 0.5
_LEASE: Final = 86_400.0  # seconds that the series is kept for us, should we not be there to release it
_QUEUE: Final = "processing_recipe"


@dataclass(slots=True)
class _Stored:
    """A series as it is in its store.

    Attributes:
        url: Its address.
        images: The numbers of its images.
        absent: Ranges of numbers that there should be, and are not.
    """

    url: ObjectUrl
    images: set[int]
    absent: list[tuple[int, int]]


@dataclass(slots=True)
class _Answers:
    """What has come back: results by number of the image, and images that were there no more."""

    results: dict[int, dict[str, Any]] = field(default_factory=dict[int, "dict[str, Any]"])
    expired: set[int] = field(default_factory=set[int])


@click.command(
    no_args_is_help=True,
    epilog="""\b
Examples:
  parvis store submit s3://ceph/i04/993677/1
  parvis store submit s3://ceph/i04/993677/1 --timeout 60 --json
  parvis store submit s3://ceph/3474639
""",
)
@click.argument("series", metavar="URL", type=SeriesType())
@click.option(
    "--timeout",
    type=FiniteRange(0, 86_400, min_open=True),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="Give up when nothing has come for so long.",
)
@json_option
@with_config()
def submit(series: ObjectUrl, timeout: float, as_json: bool, config: Config) -> None:
    """Have the images of a stored series analysed, and print each result as it comes.

    It takes a running Dispatcher, ObjectWatcher and PerImageAnalysis. The message names the store, and holds
    no login: those who run the services have that in their configuration. Where this machine may write to the
    store, the series is pinned meanwhile.

    Exit code: 0 all images of the series were analysed, 1 some are missing or failed, or nothing came, 2
    wrong usage.
    """
    stored = _look(series, config)
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with _pinned(series, config):
        transport = _start(stored.url, config, inbox)
        say = _Speaker(as_json)
        say.event("submitted", series=str(series), images=len(stored.images), not_stored=stored.absent)
        say.line(f"{plural(len(stored.images), 'image')} of {series}")
        with progress_bar("images analysed") as moved:
            answers, reason = _follow(transport, inbox, timeout, stored, say, moved)
    if not _conclude(stored, answers, reason, say):
        sys.exit(1)


def _look(series: ObjectUrl, config: Config) -> _Stored:
    """What is stored of a series, and what should be."""
    from parvis_services.number_ranges import NumberRanges
    from parvis_services.stores.layout import SeriesPlace

    place = SeriesPlace.of(series)
    store = opened(series, "read", config.storage)
    keys = (entry.key for entry in store.list_all(place.bucket, place.frames_prefix))
    images = {number for key in keys if (number := place.number_of(key)) is not None}
    if not images:
        raise click.ClickException(f"there are no images at {series}: not written yet, or expired")
    last = max(_expected(store, series, place) or 0, *images)
    there = NumberRanges((number, number) for number in images)
    return _Stored(series_url(series, place), images, list(there.gaps(1, last)))


@contextlib.contextmanager
def _pinned(series: ObjectUrl, config: Config) -> Iterator[None]:
    """Keep the series meanwhile, if this machine may write to its store."""
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.pins import release, set_pin
    from parvis_services.stores.profiles import StoreNotConfigured
    from parvis_services.stores.store import StoreError

    place, token = SeriesPlace.of(series), f"submit-{uuid.uuid4()}"
    try:
        store = opened(series, "write", config.storage)
        set_pin(store, place, token, time.time() + _LEASE)
    except (StoreNotConfigured, StoreError):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(StoreError):
            release(store, place, token)


def _expected(store: ImageStore, series: ObjectUrl, place: SeriesPlace) -> int | None:
    """How many images there should be: by the manifest, or before the series has ended by its header."""
    from parvis_services.stores.manifest import BadManifest
    from parvis_services.stores.series_header import BadHeader, load_header
    from parvis_services.stores.store import NoSuchObject

    try:
        manifest = manifest_of(store, place)
        if manifest is not None:
            return manifest.expected
        return load_header(store.get(place.bucket, place.header).data).images
    except NoSuchObject:
        return None
    except (BadManifest, BadHeader) as error:
        raise click.ClickException(f"{series}: {error}") from None


def recipe_for(url: ObjectUrl) -> dict[str, Any]:
    """The recipe that sends all images of a series to per-image analysis. Nothing in it is secret."""
    return {
        "1": {
            "service": "Object watcher",
            "queue": "objectwatcher",
            "parameters": {"objects": str(url), "list-all": True},
            "output": {"every": 2},
        },
        "2": {"service": "Per-image analysis", "queue": "per_image_analysis", "parameters": {}},
        "start": [[1, {}]],
    }


def _start(url: ObjectUrl, config: Config, inbox: queue.SimpleQueue[Message]) -> Transport:
    """Ask the dispatcher for it; what comes of it comes into `inbox`."""
    from parvis.cli.submit import submit as hand_over
    from parvis.recipe.envelope import dump_json
    from parvis.recipe.watch import WATCH_HINT, WATCH_PARAMETER
    from parvis.service.identity import FIRST_SEEN, IDENTITY
    from parvis.transport.base import Send

    topic = f"transient.{WATCH_HINT}.{uuid.uuid4()}"
    body = {"recipes": [], "custom_recipe": recipe_for(url), "parameters": {WATCH_PARAMETER: topic}}
    headers = {IDENTITY: str(uuid.uuid4()), FIRST_SEEN: str(time.time_ns() // 1_000_000)}
    send = Send(_QUEUE, dump_json(body), headers)
    return hand_over(config, send, _PATIENCE, (topic, inbox.put))


def _follow(
    transport: Transport,
    inbox: queue.SimpleQueue[Message],
    timeout: float,
    stored: _Stored,
    say: _Speaker,
    moved: Moved,
) -> tuple[_Answers, str | None]:
    """Wait for the end; return what has come, and why there is no more to wait for if it is not all."""
    from parvis.cli.job import Job
    from parvis.cli.submit import leave

    job, answers = Job(), _Answers()
    heard = time.monotonic()
    try:
        while not job.is_over and stored.images - answers.results.keys() - answers.expired:
            left = heard + timeout - time.monotonic()
            if left <= 0:
                return answers, _silence(job, timeout)
            try:
                message = inbox.get(timeout=min(left, _TICK))
            except queue.Empty:
                continue
            heard = time.monotonic()
            if (event := job.take(message)) is not None:
                _take(event, answers, say)
                moved(len(answers.results), len(stored.images))
    finally:
        leave(transport)
    return answers, job.failure if job.rejected or job.dead_letters else None


def _silence(job: Job, timeout: float) -> str:
    if job.recipe_id is None:
        return f"nothing was heard within {timeout:g} s: is a Dispatcher running?"
    if not job.images:
        return f"nothing came for {timeout:g} s: are ObjectWatcher and PerImageAnalysis running?"
    return f"nothing more came for {timeout:g} s"


def _take(event: dict[str, Any], answers: _Answers, say: _Speaker) -> None:
    say.event(**event)
    if event["event"] not in {"image", "missing"}:
        return
    result: dict[str, Any] = event["result"]
    number = result.get("file-number")
    if not isinstance(number, int):
        return
    if event["event"] == "missing":
        answers.expired.add(number)
        return
    answers.results[number] = result
    limit = result.get("estimated_d_min")
    resolution = f"  {limit:5.2f} Å" if isinstance(limit, int | float) and limit > 0 else ""
    say.line(f"image {number:6}  {_spots(result):>6} spots{resolution}")


def _spots(result: dict[str, Any]) -> str:
    spots = result.get("n_spots_total")
    return str(spots) if isinstance(spots, int) else "-"


def _conclude(stored: _Stored, answers: _Answers, reason: str | None, say: _Speaker) -> bool:
    """Say what came of it all; return whether nothing is missing."""
    from parvis.recipe.problem import printable
    from parvis_services.stores.manifest import ranges_of

    expired = ranges_of(answers.expired)
    without = ranges_of(stored.images - answers.results.keys() - answers.expired)
    success = reason is None and not (without or expired or stored.absent)
    say.event(
        "end",
        success=success,
        reason=reason,
        images=len(answers.results),
        not_stored=stored.absent,
        expired=expired,
        not_analysed=without,
    )
    say.line(f"{plural(len(answers.results), 'image')} analysed.")
    _say_gaps(stored.absent, "not stored", say)
    _say_gaps(expired, "deleted meanwhile", say)
    _say_gaps(without, "stored, and without a result", say)
    if reason is not None:
        click.echo(f"Error: {printable(reason, 1000)}", err=True)
    return success


def _say_gaps(ranges: Iterable[tuple[int, int]], what: str, say: _Speaker) -> None:
    if text := written_ranges(ranges):
        say.line(f"Gaps: {what}: {text}")


class _Speaker:
    """Says what happens: in lines for people, or as JSON objects."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def line(self, text: str) -> None:
        """Something for people."""
        if not self._as_json:
            click.echo(text)

    def event(self, event: str, **content: Any) -> None:
        """Something for programs."""
        if self._as_json:
            print_json({"event": event, **content})
