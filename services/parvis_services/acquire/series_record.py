"""What a writer knows of a series: which images came, which are stored, and how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from parvis_services.acquire.journal import Entry, Journal, dcid_of_journal
from parvis_services.number_ranges import NumberRanges
from parvis_services.stores.layout import Layout, SeriesPlace
from parvis_services.stores.manifest import Ended, Manifest
from parvis_services.stores.store import ImageStore, ObjectInfo

_NO_LINE: Final[tuple[Entry, int]] = (["nothing"], 0)


class BadJournal(ValueError):
    """A journal does not begin with what its series is."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is certain of a series from its first moment on.

    Attributes:
        series, unique_id: What the detector calls it.
        expected: How many images it is to have; None if the detector did not say.
        started: When it began, seconds since 1970.
        layout, bucket, prefix: Where its objects go.
        has_mask: Whether a pixel mask came with it.
        digest: Of the header.
        recipes: Recipes that are to be started for it.
    """

    series: int
    unique_id: str | None
    expected: int | None
    started: float
    layout: Layout
    bucket: str
    prefix: str
    has_mask: bool
    digest: str = ""
    recipes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that the store has confirmed.

    Attributes:
        number: Its number, from 1.
        size: Bytes.
        etag: What the store calls its content.
        received: When it came from the detector, seconds since 1970.
        at: When the store confirmed it, seconds since 1970.
    """

    number: int
    size: int
    etag: str
    received: float
    at: float

    @classmethod
    def of(cls, entry: Entry) -> StoredImage | None:
        """The image of a line of a journal; None for one that is about something else."""
        return cls(*entry[1:]) if entry[0] == "stored" else None


class SeriesRecord:
    """A series, in memory and in its journal. Methods may be called from any thread.

    Every change is in the journal before anybody can see it here.

    Args:
        journal: Its journal, which begins with what the series is, as `begin` writes it.

    Raises:
        BadJournal: It does not.

    Attributes:
        dcid: ID of the data collection.
        facts: What is certain of it.
        place: Where its objects are; certain once it `is_placed`.
        journal: Its journal.
        is_placed: The header is stored: images may follow.
        is_ready: Header and mask are stored: people may be told of images.
        ended: How it ended; None as long as it goes on.
        is_closed: The manifest is stored.
        started_recipes: Recipes that were asked for because of it.
        last_seen: When something of it came last, seconds since 1970.
        bytes: Size of the images that are stored.
        mask: Metadata of the pixel mask, once it is kept beside the journal.
        changes: How many lines its journal has: who has seen so many has seen all.
    """

    def __init__(self, journal: Journal) -> None:
        self._lock = threading.RLock()
        self.journal = journal
        self.dcid: Final = dcid_of_journal(journal.name)
        self._received = NumberRanges()
        self._stored = NumberRanges()
        self._dropped = NumberRanges()
        self._arrivals: dict[int, float] = {}  # when those came that are neither stored nor dropped yet
        self.is_ready = self.is_closed = self.is_placed = False
        self.ended: Ended | None = None
        self.started_recipes: set[str] = set()
        self.bytes = self._duplicates = self._garbage = 0
        self.first_seen: float | None = None
        self.last_seen = 0.0
        self._heard = time.monotonic()
        self._repeat_tries = 0
        self.mask: dict[str, str] = {}
        self.changes = 0
        lines = journal.entries()
        first, _ = next(lines, _NO_LINE)
        if first[0] != "series":
            raise BadJournal(f"the journal {journal.path} does not begin with a series")
        self.facts = Facts(**first[1])
        self.place = self._place(first[2])
        self.last_seen = self.facts.started
        for entry, _ in lines:
            self._apply(entry)
        self._unsure = set(self._arrivals)  # a process before this one had them in hand when it ended

    @classmethod
    def begin(cls, journal: Journal, facts: Facts, repeat: int) -> SeriesRecord:
        """Begin a series, at the `repeat`-th place for its number. Raises OSError."""
        journal.add("series", asdict(facts), repeat, lasting=True)
        return cls(journal)

    @property
    def name(self) -> str:
        """What its journal is called."""
        return self.journal.name

    @property
    def waiting(self) -> int:
        """How many images came and are neither stored nor dropped yet."""
        return len(self._arrivals)

    @property
    def highest(self) -> int:
        """The highest number of an image that is stored; 0 if there is none."""
        return self._stored.highest or 0

    @property
    def was_tried(self) -> bool:
        """Whether it was tried to store the header where the place is now."""
        return self._repeat_tries > 0

    @property
    def silence(self) -> float:
        """Seconds for which nothing of it came, whatever was done to the clock; at most since we began."""
        return time.monotonic() - self._heard

    def is_of(self, series: int, unique_id: str | None) -> bool:
        """Whether it is what the detector calls so."""
        return (self.facts.series, self.facts.unique_id) == (series, unique_id)

    def unsure(self) -> list[int]:
        """Numbers of images that a process before this one had in hand when it ended: stored, perhaps."""
        with self._lock:
            return sorted(self._unsure)

    def move(self) -> None:
        """Go to the next place: this one belongs to another series."""
        self._note("place", self.place.repeat + 1)

    def trying(self) -> None:
        """Note that the header is about to be stored at this place for the first time."""
        if not self.was_tried:
            self._note("place", self.place.repeat, lasting=True)

    def keep_mask(self, metadata: dict[str, str]) -> None:
        """Note that the pixel mask is kept beside the journal, and the metadata to store it with."""
        self._note("mask", metadata)

    def placed(self) -> None:
        """Note that the header is stored."""
        self._note("placed")

    def ready(self) -> None:
        """Note that header and mask are stored."""
        self._note("ready")

    def receive(self, number: int, at: float) -> bool:
        """Note that an image came; return False if it is stored already, or about to be."""
        with self._lock:
            if number in self._stored or (number in self._arrivals and number not in self._unsure):
                return False
            self._note("received", number, at)
            self._unsure.discard(number)
            return True

    def again(self) -> None:
        """Count an image that the detector has sent again."""
        self._note("again")

    def drop(self, number: int) -> None:
        """Note that an image that came is not kept."""
        with self._lock:
            if number not in self._stored:
                self._note("dropped", number)

    def store(self, number: int, info: ObjectInfo) -> None:
        """Note that the store has confirmed an image."""
        with self._lock:
            if number not in self._stored:
                now = time.time()
                self._note("stored", number, info.size, info.etag, self._arrivals.get(number, now), now)
                self._unsure.discard(number)

    def forget(self, number: int) -> None:
        """Note that an image was lost with the process that had it, if it has not come again meanwhile."""
        with self._lock:
            if number in self._unsure:
                self._note("lost", number)
                self._unsure.discard(number)

    def garbage(self) -> None:
        """Count a message that could not be read."""
        self._note("garbage")

    def end(self, how: Ended) -> None:
        """Note that no more is to come."""
        self._note("ended", how, lasting=True)

    def start_recipe(self, recipe: str) -> None:
        """Note that a recipe was asked for."""
        self._note("recipe", recipe)

    def close(self, changes: int) -> bool:
        """Note that the manifest is stored; return False if there were changes since it was made."""
        with self._lock:
            if self.changes == changes:
                self._note("closed", lasting=True)
            return self.is_closed

    def missing(self) -> list[tuple[int, int]]:
        """Ranges of the images that are not stored: of all that were to come, or up to the last that came."""
        with self._lock:
            last = max(self.facts.expected or 0, self._received.highest or 0)
            return list(self._stored.gaps(1, last))

    def dropped(self) -> list[tuple[int, int]]:
        """Ranges of the images that came, were not kept, and did not come again."""
        with self._lock:
            lost = NumberRanges()
            for first, last in self._dropped.ranges():
                for number in range(first, last + 1):
                    if number not in self._stored:
                        lost.add(number)
            return lost.ranges()

    def manifest(self, store: ImageStore) -> Manifest:
        """What became of it, to be stored. It must have ended."""
        with self._lock:
            assert self.ended is not None  # noqa: S101 - whoever asks has looked
            stored = self._stored.ranges()
            return Manifest(
                dcid=self.dcid,
                series=self.facts.series,
                unique_id=self.facts.unique_id,
                layout=self.facts.layout,
                expected=self.facts.expected,
                received=len(self._received),
                stored=len(self._stored),
                missing=self.missing(),
                dropped=self.dropped(),
                duplicates=self._duplicates,
                garbage=self._garbage,
                bytes=self.bytes,
                first_seen=self.first_seen,
                last_seen=self.last_seen if self.first_seen is not None else None,
                ended=self.ended,
                told=stored,
                header=str(store.url(self.place.bucket, self.place.header)),
                frames=str(store.url(self.place.bucket, self.place.frames_prefix.rstrip("/"))),
            )

    def _place(self, repeat: int) -> SeriesPlace:
        facts = self.facts
        return SeriesPlace(facts.layout, facts.bucket, facts.prefix, self.dcid, facts.series, repeat)

    def _note(self, *entry: Any, lasting: bool = False) -> None:
        with self._lock:
            self.journal.add(*entry, lasting=lasting)
            self._apply(list(entry))

    def _apply(self, entry: Entry) -> None:
        """Have a line of the journal take effect; one of a later version has none."""
        self.changes += 1
        change = _CHANGES.get(entry[0])
        if change is not None:
            change(self, *entry[1:])

    def _on_place(self, repeat: int) -> None:
        self._repeat_tries = self._repeat_tries + 1 if repeat == self.place.repeat else 0
        self.place = replace(self.place, repeat=repeat) if repeat != self.place.repeat else self.place

    def _on_placed(self) -> None:
        self.is_placed = True

    def _on_mask(self, metadata: dict[str, str]) -> None:
        self.mask = metadata

    def _on_ready(self) -> None:
        self.is_ready = True

    def _on_received(self, number: int, at: float) -> None:
        self._received.add(number)
        self._arrivals[number] = at
        self.first_seen = at if self.first_seen is None else self.first_seen
        self.last_seen = max(self.last_seen, at)
        self._heard = time.monotonic()
        # Should the series have seemed to be over, it goes on.
        self.ended, self.is_closed = None, False

    def _on_stored(self, number: int, size: int, _etag: str, _received: float, _at: float) -> None:
        self._received.add(number)
        self._stored.add(number)
        self._arrivals.pop(number, None)
        self.bytes += size

    def _on_dropped(self, number: int) -> None:
        self._dropped.add(number)
        self._on_lost(number)

    def _on_lost(self, number: int) -> None:
        self._arrivals.pop(number, None)

    def _on_again(self) -> None:
        self._duplicates += 1

    def _on_garbage(self) -> None:
        self._garbage += 1

    def _on_ended(self, how: Ended) -> None:
        self.ended = how

    def _on_recipe(self, recipe: str) -> None:
        self.started_recipes.add(recipe)

    def _on_closed(self) -> None:
        self.is_closed = True


_CHANGES: Final[dict[str, Callable[..., None]]] = {
    name.removeprefix("_on_"): change
    for name, change in vars(SeriesRecord).items()
    if name.startswith("_on_")
}
