"""Scans for the file watcher, and a service that takes its time for each image and writes down when."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Anything, Model, Outputs
from parvis.transport.base import Send
from parvis_services.messages import ImageSeen

WORK = "work"
STORE = "store"
ENDED = "ended"


class Pace(Model):
    """How long an image takes, where to write it down, and which images are no good."""

    seconds: float
    record: str
    reject_every: int = 0
    retry_while: str = ""


class Worker(Service[ImageSeen, Pace]):
    """Takes its time for each image; asks for another try while a file is there."""

    name: ClassVar[str] = "Worker"
    queue: ClassVar[str] = WORK
    Payload: ClassVar[type[BaseModel]] = ImageSeen
    Parameters: ClassVar[type[BaseModel]] = Pace
    outputs: ClassVar[Outputs] = {"result": None}
    default_output: ClassVar[str | None] = "result"

    def process(self, payload: ImageSeen, step: Step[Pace]) -> None:
        time.sleep(step.parameters.seconds)
        extra = payload.model_dump()
        if step.parameters.retry_while and Path(step.parameters.retry_while).exists():
            raise Retry("not while that file is there", after=0.5)
        with open(step.parameters.record, "ab", buffering=0) as file:  # noqa: PTH123 - unbuffered: one write a line
            file.write(
                f"{step.recipe_id} {extra['file-number']} {extra['file-seen-at']} {time.time()}\n".encode()
            )
        if step.parameters.reject_every and extra["file-number"] % step.parameters.reject_every == 0:
            raise Reject("it is no good")
        step.send("result", {"number": extra["file-number"]})


class Where(Model):
    """What is there while nothing can be stored."""

    away: str = ""


class Store(Service[Anything, Where]):
    """Would store results, but asks for another try while a file is there."""

    name: ClassVar[str] = "Store"
    queue: ClassVar[str] = STORE
    Parameters: ClassVar[type[BaseModel]] = Where
    outputs: ClassVar[Outputs] = {}
    prefetch: ClassVar[int] = 10

    def process(self, payload: Anything, step: Step[Where]) -> None:  # noqa: ARG002
        if step.parameters.away and Path(step.parameters.away).exists():
            raise Retry("the store is away", after=0.5)


@dataclass(frozen=True, slots=True)
class Handled:
    """One image of a scan: when it was told of and when it was handled, in seconds since 1970."""

    scan: str
    number: int
    told: float
    handled: float


class Record:
    """What the workers wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def images(self, scan: str | None = None) -> list[Handled]:
        """The images of a scan, or of all, in the order in which they were handled."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        read = (Handled(name, int(number), float(told), float(done)) for name, number, told, done in lines)
        return sorted(
            (image for image in read if scan in (None, image.scan)), key=lambda image: image.handled
        )

    def count(self, scan: str) -> int:
        """How many different images of a scan were handled."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return len({number for name, number, *_ in lines if name == scan})


def most_in_flight(images: Sequence[Handled]) -> int:
    """Return how many images were told of and not handled yet, at most."""
    changes = sorted([(image.told, 1) for image in images] + [(image.handled, -1) for image in images])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


@contextlib.contextmanager
def quick_directory() -> Generator[Path]:
    """A directory for a while, in memory where the system has room for such: for many thousand files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def make_images(directory: Path, count: int) -> str:
    """Make empty image files and return their pattern."""
    pattern = str(directory / "image_%06d.cbf")
    for number in range(1, count + 1):
        os.close(os.open(pattern % number, os.O_CREAT | os.O_WRONLY))
    return pattern


def scan_message(
    scan: str,
    pattern: str,
    count: int,
    record: Record,
    *,
    seconds: float = 0.005,
    user: str = "",
    away: Path | None = None,
    **pace: Any,
) -> Send:
    """What starts a watch whose images all go to the worker, and on to the store if that may be `away`."""
    recipe = {
        "1": {
            "queue": "filewatcher",
            "parameters": {"pattern": pattern, "pattern-start": 1, "pattern-end": count},
            "output": {"every": 2, "finally": 3},
        },
        "2": {
            "queue": WORK,
            "parameters": {"seconds": seconds, "record": str(record.path), **pace},
            "output": 4 if away else None,
        },
        "3": {"queue": ENDED},
        **({"4": {"queue": STORE, "parameters": {"away": str(away)}}} if away else {}),
        "start": [[1, []]],
    }
    body = {
        "recipe": recipe,
        "recipe-pointer": 1,
        "recipe-path": [],
        "environment": {"ID": scan, **({"parvis_user": user} if user else {})},
        "payload": None,
    }
    return Send("filewatcher", dump_json(body), {RECIPE_HEADER: "True"})
