"""What waits to be written: log records from the inputs, and reports of hops from the broker."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parvis.observe import hops
from parvis.observe.log_record import LogRecord
from parvis.transport.base import Message, NotAdmitted, Transport, TransportError

if TYPE_CHECKING:
    from parvis.observe.records_queries import Answers

_log = logging.getLogger("parvis.collector")

_MANY_RECORDS: Final = 20_000
_MANY_BYTES: Final = 32_000_000
_ROW: Final = 1_000  # bytes of memory of a record beside its texts, more or less
_PREFETCH: Final = 1_000
_ATTEMPT: Final = 2.0  # seconds for a broker to answer
_PAUSE: Final = 1.0  # seconds between attempts to reach it
_PAUSE_WHEN_REFUSED: Final = 30.0

Done = Callable[[bool], None]


class Intake:
    """Log records that wait to be written. Methods may be called from any thread.

    From `_MANY_RECORDS` or `_MANY_BYTES` on it is full, and who can wait should; nobody who cannot is turned
    away before there are twice as many.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._records: deque[LogRecord] = deque()
        self._done: list[Done] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def is_full(self) -> bool:
        """Whether those who can wait should."""
        return len(self._records) >= _MANY_RECORDS or self._bytes >= _MANY_BYTES

    def put(self, records: Sequence[LogRecord], done: Done | None = None) -> bool:
        """Take records, all or none; return whether it did.

        `done` is called, on any thread, when they are safe (True) or lost (False).
        """
        size = sum(map(_size, records))
        with self._lock:
            if len(self._records) >= 2 * _MANY_RECORDS or self._bytes >= 2 * _MANY_BYTES:
                return False
            self._records += records
            self._bytes += size
            if done is not None:
                self._done.append(done)
        self._wake()
        return True

    def take(self) -> tuple[list[LogRecord], list[Done]]:
        """Return all that is there, and what is to be called when it is written."""
        with self._lock:
            records, done = list(self._records), self._done
            self._records.clear()
            self._done, self._bytes = [], 0
        return records, done


def _size(record: LogRecord) -> int:
    fields = sum(len(value) for value in record.fields.values() if isinstance(value, str))
    return _ROW + len(record.message) + len(record.full) + fields


class HopQueue:
    """Reports of hops from the broker, wherever that is just now, and questions about the records.

    Args:
        transport: Not yet connected.
        wake: Called when a report has come.
        directory: Where the records are that questions are answered from.

    Attributes:
        state: What became of the connection, in words.
    """

    def __init__(self, transport: Transport, wake: Callable[[], None], directory: Path) -> None:
        self.state = "not connected yet"
        self._transport = transport
        self._wake = wake
        self._directory = directory
        self._answers: Answers | None = None
        self._messages: deque[Message] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._connect, name="hop-queue", daemon=True)

    def start(self) -> None:
        """Begin to connect, for as long as it takes."""
        self._thread.start()

    def close(self) -> None:
        """Leave the broker; what was not acknowledged stays there."""
        self._stop.set()
        self._thread.join(_ATTEMPT + _PAUSE)
        if self._answers is not None:
            self._answers.close()
        self._transport.disconnect()

    def __len__(self) -> int:
        return len(self._messages)

    def take(self) -> list[Message]:
        """Return what has come and can still be acknowledged. What cannot comes again."""
        return self.still_ours([self._messages.popleft() for _ in range(len(self._messages))])

    def still_ours(self, messages: Sequence[Message]) -> list[Message]:
        """Return those of the messages that can still be acknowledged."""
        return [message for message in messages if message.connection == self._transport.connection]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that messages are safe. If it cannot be told, they come again."""
        try:
            self._transport.commit(messages, ())
        except TransportError as error:
            _log.info("%d reports of hops come again: %s", len(messages), error)

    def _connect(self) -> None:
        told = False
        while not self._stop.is_set():
            pause = _PAUSE
            try:
                self._transport.connect(_ATTEMPT)
                self._transport.subscribe(hops.QUEUE, self._come, prefetch=_PREFETCH)
                from parvis.observe.records_queries import Answers

                self._answers = Answers(self._directory, self._transport)
            except TransportError as error:
                self.state = str(error)
                pause = _PAUSE_WHEN_REFUSED if isinstance(error, NotAdmitted) else _PAUSE
                self._transport.disconnect()
            else:
                self.state = "connected"
                _log.info("taking reports of hops from the broker")
                return
            if not told:
                _log.warning("log records are taken, hops not yet: %s; trying on", self.state)
                told = True
            self._stop.wait(pause)

    def _come(self, message: Message) -> None:
        self._messages.append(message)
        self._wake()
