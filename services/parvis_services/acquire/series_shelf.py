"""The series that a writer knows: those in hand in memory, all others in their journals."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parvis_services.acquire.journal import BadCursor, JournalDirectory, begun_of_journal, dcid_of_journal
from parvis_services.acquire.series_record import BadJournal, Facts, SeriesRecord

_MOST_AT_REST: Final = 20  # series whose journals stay open after their end
_CLEAN_EVERY: Final = 3600.0


class SeriesShelf:
    """The series of a detector. Methods may be called from any thread.

    Args:
        directory: For the journals.
        log: Where to say what is wrong with one.

    Raises:
        ConfigError: The directory cannot be used, or another process uses it.

    Attributes:
        journals: The directory.
    """

    def __init__(self, directory: Path, log: logging.Logger) -> None:
        self.journals = JournalDirectory(directory)
        self.log = log
        self._lock = threading.RLock()
        self._records: OrderedDict[str, SeriesRecord] = OrderedDict()
        self._cleaned = time.monotonic()
        self.journals.clean()
        self._names = self.journals.names()
        unfinished = [name for name in self._names if not self.journals.is_at_rest(name, b"closed")]
        for name in {*unfinished, *self._names[-1:]}:  # of the last one more may come, too
            self._load(name)

    def begin(self, dcid: int, facts: Facts, prepare: Callable[[SeriesRecord], None]) -> SeriesRecord:
        """Begin a series.

        Args:
            dcid: ID of the data collection.
            facts: What is certain of it.
            prepare: Called before anybody can see it; may raise OSError, and then there is no such series.

        Raises:
            OSError: Its journal cannot be written.
        """
        with self._lock:
            self._tidy()
            journal = self.journals.create(dcid)
            try:
                record = SeriesRecord.begin(journal, facts, self._next_place(dcid, facts))
                prepare(record)
            except OSError:
                journal.path.unlink(missing_ok=True)
                raise
            self._names.append(record.name)
            self._records[record.name] = record
            return record

    def in_hand(self) -> list[SeriesRecord]:
        """The series that are not closed, in the order in which they began."""
        with self._lock:
            return [record for record in self._records.values() if not record.is_closed]

    def in_memory(self) -> list[SeriesRecord]:
        """The series that are not closed, and the last few that are, in the order in which they began."""
        with self._lock:
            return sorted(self._records.values(), key=_begun)

    def known_as(self, series: int, unique_id: str | None) -> SeriesRecord | None:
        """The last series that the detector calls so, of those in memory."""
        with self._lock:
            found = [record for record in self._records.values() if record.is_of(series, unique_id)]
            return max(found, key=_begun, default=None)

    def named(self, name: str) -> SeriesRecord | None:
        """The series whose journal has that name; None if it is not known any more."""
        with self._lock:
            return self._records.get(name) or (self._load(name) if name in self._names else None)

    def of(self, dcid: int) -> SeriesRecord | None:
        """The series that is meant by a data collection: the last of those that go on, else the last."""
        with self._lock:
            in_hand = [record for record in self.in_hand() if record.dcid == dcid]
            names = [name for name in self._names if dcid_of_journal(name) == dcid]
            if in_hand:
                return max(in_hand, key=_begun)
            return self.named(names[-1]) if names else None

    def close(self) -> None:
        """Close all journals, and let another process have them."""
        with self._lock:
            for record in self._records.values():
                record.journal.close()
            self._records.clear()
            self.journals.close()

    def _next_place(self, dcid: int, facts: Facts) -> int:
        """Which of the series with this number it is; the prototype's layout has one number for all."""
        for name in [name for name in reversed(self._names) if dcid_of_journal(name) == dcid]:
            if facts.layout != "prototype" and self._series_of(name) != facts.series:
                continue
            record = self.named(name)
            if record is not None:
                return record.place.repeat + 1
        return 1

    def _series_of(self, name: str) -> int | None:
        """The number of a series; its journal is not read whole for that, as images would wait meanwhile."""
        record = self._records.get(name)
        return self.journals.series_of(name) if record is None else record.facts.series

    def _load(self, name: str) -> SeriesRecord | None:
        """Read a journal."""
        try:
            journal = self.journals.open(name)
            record = None if journal is None else SeriesRecord(journal)
        except (OSError, BadJournal, BadCursor, ValueError, TypeError, LookupError) as error:
            self.log.error("the journal %s cannot be read, and is left alone: %s", name, error)
            record = None
        if record is None:
            self._names.remove(name)
            return None
        self._records[name] = record
        self._put_away()
        return record

    def _put_away(self) -> None:
        """Close the journals of series that are over, but for the last few."""
        at_rest = [name for name, record in self._records.items() if record.is_closed]
        for name in at_rest[:-_MOST_AT_REST]:
            del self._records[name]

    def _tidy(self) -> None:
        self._put_away()
        if time.monotonic() - self._cleaned > _CLEAN_EVERY:
            self._cleaned = time.monotonic()
            gone = set(self.journals.clean())  # among them those that could not be read
            self._names = [name for name in self._names if name not in gone]
            for name in gone:
                self._records.pop(name, None)


def _begun(record: SeriesRecord) -> int:
    return begun_of_journal(record.name)
