"""Log records of another machine: a collector answers questions that come by the broker.

A question is a `LogQuery` as a JSON object in the queue `parvis.records`, with its number as header
`question`, and with `reply-to`, the name of a temporary queue. The answer comes there in parts, each a JSON
object with `question`, `part`, `parts`, and either `records` and the last `row` or an `error`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import Records, RecordsError
from parvis.recipe.envelope import dump_json
from parvis.transport.base import BrokerRefused, Message, Send, Transport, TransportError, check_destination

QUEUE: Final = "parvis.records"

_REPLY_TO: Final = "reply-to"
_NUMBER: Final = "question"
_TEMPORARY: Final = "transient."
_PREFETCH: Final = 10
_LARGEST_PART: Final = 1_000_000  # bytes, more or less
_MOST_RECORDS: Final = 10_000
_LONGEST_QUESTION: Final = 65_536
_PATIENCE: Final = 10.0  # seconds for an answer to begin, and for each further part

_query = TypeAdapter(LogQuery)


class _Part(BaseModel):
    """A part of an answer."""

    question: str
    part: int
    parts: int
    row: int = 0
    records: list[LogRecord] = []
    error: str = ""


class Answers:
    """Answers questions about log records, on a thread of its own, until closed.

    Args:
        directory: Where the records are.
        transport: A connection to the broker, connected.

    Raises:
        TransportError: The broker does not let us take questions.
    """

    def __init__(self, directory: Path, transport: Transport) -> None:
        self._directory = directory
        self._transport = transport
        self._questions: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        transport.subscribe(QUEUE, self._questions.put, prefetch=_PREFETCH)
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._questions.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            if question.connection == self._transport.connection:  # else it comes again
                with contextlib.suppress(TransportError):
                    self._settle(question)

    def _settle(self, question: Message) -> None:
        try:
            self._transport.commit([question], self._answer(question))
        except BrokerRefused:  # whoever asked has gone
            self._transport.commit([question], ())

    def _answer(self, question: Message) -> list[Send]:
        to, number = question.headers.get(_REPLY_TO, ""), question.headers.get(_NUMBER, "")[:80]
        if not to.startswith(_TEMPORARY) or not _can_be_sent_to(to):
            return []
        parts = self._parts(question.body)
        return [
            Send(
                to,
                dump_json({**part, "question": number, "part": place, "parts": len(parts)}),
                expiration=_PATIENCE,
                persistent=False,
            )
            for place, part in enumerate(parts)
        ]

    def _parts(self, body: bytes) -> list[dict[str, Any]]:
        try:
            if len(body) > _LONGEST_QUESTION:
                raise ValueError("the question is too long")
            query = _query.validate_json(body)
            if query.limit > _MOST_RECORDS:
                raise ValueError(f"limit can be at most {_MOST_RECORDS:,} here")
            with Records(self._directory) as records:
                row = records.last_row()
                found = records.search(query)
        except (ValueError, OverflowError, RecordsError) as error:
            return [{"error": " ".join(str(error).split())[:500]}]
        return [{"row": row, "records": portion} for portion in _portions(found)]


def _can_be_sent_to(name: str) -> bool:
    try:
        check_destination(name)
    except ValueError:
        return False
    return True


def _portions(found: list[LogRecord]) -> list[list[LogRecord]]:
    """The records in portions that any broker takes."""
    portions: list[list[LogRecord]] = [[]]
    size = 0
    for record in found:
        size += len(dump_json(record))
        if portions[-1] and size > _LARGEST_PART:
            portions.append([])
            size = 0
        portions[-1].append(record)
    return portions


class RecordsElsewhere:
    """The log records of a collector on another machine, asked for by the broker.

    Args:
        transport: A connection to that broker, connected.

    Raises:
        TransportError: The broker does not let us hear answers.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        _, self._reply_to = transport.subscribe_temporary("records", self._answers.put)

    def search(self, query: LogQuery) -> list[LogRecord]:
        """As `Records.search`; at most 10,000 records.

        Raises:
            RecordsError: Nobody answers, or not with records.
        """
        return self._ask(replace(query, limit=min(query.limit, _MOST_RECORDS)))[0]

    def last_row(self) -> int:
        """As `Records.last_row`. Raises as `search`."""
        return self._ask(LogQuery(limit=1))[1]

    def _ask(self, query: LogQuery) -> tuple[list[LogRecord], int]:
        number = uuid.uuid4().hex
        headers = {_REPLY_TO: self._reply_to, _NUMBER: number}
        try:
            self._transport.send(
                Send(QUEUE, dump_json(query), headers, expiration=_PATIENCE, persistent=False),
                timeout=_PATIENCE,
            )
        except TransportError as error:
            raise RecordsError(f"the collector cannot be asked: {error}") from None
        parts: dict[int, _Part] = {}
        while not parts or len(parts) < next(iter(parts.values())).parts:
            part = self._next_part(number)
            parts[part.part] = part
        records = [record for place in sorted(parts) for record in parts[place].records]
        return records, parts[0].row if 0 in parts else 0

    def _next_part(self, number: str) -> _Part:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise RecordsError(
                    f"no collector answers at the broker within {_PATIENCE:g} s: `parvis collect` is one"
                ) from None
            try:
                part = _Part.model_validate_json(answer.body)
            except ValidationError:
                raise RecordsError(
                    "the collector's answer is not understood: is it another version?"
                ) from None
            if part.question == number:
                if part.error:
                    raise RecordsError(f"the collector says: {part.error}")
                return part
