"""Takes log records and hops, and keeps them: what `parvis collect` does, and `parvis up` on the side.

Nothing is acknowledged, to the broker or to a sender by HTTP, before it is written.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parvis.observe import hop_table
from parvis.observe.intake import Done, HopQueue, Intake
from parvis.observe.log_record import LogRecord
from parvis.observe.records import RecordsDamaged, RecordsError, RecordsWriter
from parvis.transport.base import Message, Transport

_log = logging.getLogger("parvis.collector")

_GATHER: Final = 0.1  # seconds in which what comes is written together
_TRIM_INTERVAL: Final = 5.0
_PAUSE_AFTER_FAILURE: Final = 1.0
_COMPLAINT_INTERVAL: Final = 60.0


class Collector:
    """Writes what comes into the records, on a thread of its own, while the context lasts.

    At the end it writes what is left.

    Args:
        open_records: Opens the records for writing; called again, should the file turn out to be damaged.
        transport: A connection to the broker that hops come from, not yet connected; None for no hops.

    Attributes:
        intake: Takes log records.
        written: How many log records and reports of hops were written.

    Raises:
        RecordsError: The records cannot be written.
    """

    def __init__(self, open_records: Callable[[], RecordsWriter], transport: Transport | None = None) -> None:
        self.written = 0
        self._open_records = open_records
        self._address = ""
        self._records = self._open()
        self._is_open = True
        self._something = threading.Event()
        self._stopping = threading.Event()
        self.intake = Intake(self._something.set)
        self._hops = (
            HopQueue(transport, self._something.set, self.directory) if transport is not None else None
        )
        self._logs: list[LogRecord] = []
        self._done: list[Done] = []
        self._messages: list[Message] = []
        self._trim_at = 0.0
        self._complain_at = 0.0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    @property
    def directory(self) -> Path:
        """Where the records are."""
        return self._records.path.parent

    def announce(self, address: str) -> None:
        """Have other programs find out where log records are taken by UDP."""
        self._address = address
        self._records.announce(address)

    def __enter__(self) -> Collector:
        self._thread.start()
        if self._hops is not None:
            self._hops.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._something.set()
        self._thread.join()
        if self._hops is not None:
            self._hops.close()
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(sqlite3.Error):
                self._records.close()

    def _open(self) -> RecordsWriter:
        try:
            return self._open_records()
        except RecordsDamaged as error:
            _set_aside(error.path)
            return self._open_records()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._something.wait(_TRIM_INTERVAL)
            self._stopping.wait(_GATHER)
            self._something.clear()
            if not self._write():
                self._stopping.wait(_PAUSE_AFTER_FAILURE)
                self._something.set()
        if not self._write():
            _log.error("%d log records are lost: they could not be written", len(self._logs))
        for done in self._done:
            done(False)

    def _write(self) -> bool:
        """Write what has come; return whether that was possible. What was not written is kept."""
        if not self._logs:
            self._logs, done = self.intake.take()
            self._done += done
        if self._hops is not None:
            self._messages = self._hops.still_ours(self._messages) or self._hops.take()
        try:
            self._begin_anew()
            self._write_all()
            self._trim()
        except (RecordsError, OSError) as error:
            self._complain(error)
            if isinstance(error, RecordsDamaged):
                self._close()
            return False
        except Exception:  # noqa: BLE001 - whatever it was, log records must go on
            _log.exception("%d reports of hops cannot be kept, and are dropped", len(self._messages))
            self._dismiss_reports()
            return False
        if self._failing:
            self._failing = False
            _log.info("records are written again")
        return True

    def _write_all(self) -> None:
        if self._logs or self._messages:
            with self._records.writing() as database:
                self._records.add_logs(database, self._logs)
                for message in self._messages:
                    hop_table.take(database, message.body)
            self.written += len(self._logs) + len(self._messages)
        for done in self._done:
            done(True)
        self._logs, self._done = [], []
        self._dismiss_reports()

    def _dismiss_reports(self) -> None:
        if self._hops is not None and self._messages:
            self._hops.acknowledge(self._messages)
        self._messages = []

    def _trim(self) -> None:
        if time.monotonic() >= self._trim_at and not self._records.trim():
            self._trim_at = time.monotonic() + _TRIM_INTERVAL

    def _complain(self, error: Exception) -> None:
        self._failing = True
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + _COMPLAINT_INTERVAL
            _log.error("%s; what comes is kept in memory as long as there is room", error)

    def _begin_anew(self) -> None:
        """Open the records if they had to be closed, without what was damaged."""
        if not self._is_open:
            self._records = self._open()
            self._is_open = True
            self._records.announce(self._address)


def _set_aside(path: Path) -> None:
    """Rename a damaged file, so that somebody can look at it, and what SQLite has beside it."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(f"{path.name}.damaged{suffix}"))
    _log.error("%s was damaged; it is now %s.damaged, and new records are begun", path, path.name)
