"""Records of another machine: a collector answers questions that come by the broker.

A question is a JSON object in the queue `parvis.records`, with the headers `question`, its number;
`reply-to`, a temporary queue; and `about`. If that is `logs`, the object is a `LogQuery`; if it is
`recipe`, it has the `prefix` of a recipe ID and `after`, how far the hops are known. The answer comes in
parts, each a JSON object with `question`, `part` and `parts`, and with what was asked for or an `error`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from parvis.observe import hop_table
from parvis.observe.hops import hops_body, read_hops
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import Records, RecordsError, RecordsWriter
from parvis.recipe.envelope import dump_json, parse_json
from parvis.transport.base import BrokerRefused, Message, Send, Transport, TransportError, check_destination

QUEUE: Final = "parvis.records"

_REPLY_TO: Final = "reply-to"
_NUMBER: Final = "question"
_ABOUT: Final = "about"
_LOGS: Final = "logs"
_RECIPE: Final = "recipe"
_TEMPORARY: Final = "transient."
_PREFETCH: Final = 10
_LARGEST_PART: Final = 1_000_000  # bytes, more or less
_MOST_HOPS: Final = 2_000  # in one answer
_MOST_RECORDS: Final = 10_000
_LONGEST_QUESTION: Final = 65_536
_PATIENCE: Final = 10.0  # seconds for an answer to begin, and for each further part

_log = logging.getLogger("parvis.collector")
_log_question = TypeAdapter(LogQuery)


class _Part(BaseModel):
    """A part of an answer."""

    question: str
    part: int
    parts: int
    row: int = 0
    records: list[LogRecord] = []
    found: list[str] = []
    report: dict[str, Any] = {}
    queues: list[str] = []
    is_all: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True)
class _RecipeQuestion:
    """A question about a recipe."""

    prefix: str
    after: int = 0


_recipe_question = TypeAdapter(_RecipeQuestion)


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
        parts = self._parts(question.headers.get(_ABOUT, _LOGS), question.body)
        return [
            Send(
                to,
                dump_json({**part, "question": number, "part": place, "parts": len(parts)}),
                expiration=_PATIENCE,
                persistent=False,
            )
            for place, part in enumerate(parts)
        ]

    def _parts(self, about: str, body: bytes) -> list[dict[str, Any]]:
        try:
            if len(body) > _LONGEST_QUESTION:
                raise ValueError("the question is too long")
            with Records(self._directory) as records:
                if about == _LOGS:
                    return _found_logs(records, _log_question.validate_json(body))
                if about == _RECIPE:
                    return [_found_hops(records, _recipe_question.validate_json(body))]
            raise ValueError(f"nothing is known about {about[:40]!r}")
        except (ValueError, OverflowError, RecordsError) as error:
            return [{"error": " ".join(str(error).split())[:500]}]
        except Exception:  # noqa: BLE001 - one question is at fault, the others are answered
            _log.exception("a question could not be answered")
            return [{"error": "the collector failed to answer; its log says why"}]


def _found_logs(records: Records, query: LogQuery) -> list[dict[str, Any]]:
    if query.limit > _MOST_RECORDS:
        raise ValueError(f"limit can be at most {_MOST_RECORDS:,} here")
    row = records.last_row()
    return [{"row": row, "records": portion} for portion in _portions(records.search(query))]


def _found_hops(records: Records, question: _RecipeQuestion) -> dict[str, Any]:
    with records.reading() as database:
        found = hop_table.find(database, question.prefix)
        if len(found) != 1:
            return {"found": found}
        hops, row = hop_table.arrived(database, found[0], question.after, _MOST_HOPS)
        started = [] if question.after else hop_table.started(database, found[0])
        queues = list(hop_table.queues(database))
    body = parse_json(hops_body(hops, started))
    return {"found": found, "row": row, "report": body, "queues": queues, "is_all": len(hops) < _MOST_HOPS}


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


class _Questioner:
    """Asks a collector by the broker."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        _, self._reply_to = transport.subscribe_temporary("records", self._answers.put)

    def ask(self, about: str, question: Any) -> list[_Part]:
        """Return the parts of the answer.

        Raises:
            RecordsError: Nobody answers, or not with what was asked for.
        """
        number = uuid.uuid4().hex
        headers = {_REPLY_TO: self._reply_to, _NUMBER: number, _ABOUT: about}
        send = Send(QUEUE, dump_json(question), headers, expiration=_PATIENCE, persistent=False)
        try:
            self._transport.send(send, timeout=_PATIENCE)
        except TransportError as error:
            raise RecordsError(f"the collector cannot be asked: {error}") from None
        parts: dict[int, _Part] = {}
        while not parts or len(parts) < next(iter(parts.values())).parts:
            part = self._next_part(number)
            parts[part.part] = part
        return [parts[place] for place in sorted(parts)]

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


class RecordsElsewhere:
    """The log records of a collector on another machine, asked for by the broker.

    Args:
        transport: A connection to that broker, connected.

    Raises:
        TransportError: The broker does not let us hear answers.
    """

    def __init__(self, transport: Transport) -> None:
        self._questioner = _Questioner(transport)

    def search(self, query: LogQuery) -> list[LogRecord]:
        """As `Records.search`; at most 10,000 records.

        Raises:
            RecordsError: Nobody answers, or not with records.
        """
        query = replace(query, limit=min(query.limit, _MOST_RECORDS))
        return [record for part in self._questioner.ask(_LOGS, query) for record in part.records]

    def last_row(self) -> int:
        """As `Records.last_row`. Raises as `search`."""
        return self._questioner.ask(_LOGS, LogQuery(limit=1))[0].row


class RecipesElsewhere(Records):
    """What a collector on another machine knows of some recipes: a copy, brought up to date when it is read.

    Args:
        transport: A connection to the broker, connected.
        prefixes: The first characters of the recipe IDs.

    Raises:
        TransportError: The broker does not let us hear answers.
        RecordsError: There is no room for a copy, or nobody answers.
    """

    def __init__(self, transport: Transport, prefixes: Sequence[str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="parvis-records-")
        self._questioner = _Questioner(transport)
        self._logs = RecordsElsewhere(transport)
        self._known = dict.fromkeys(prefixes, 0)
        directory = Path(self._place.name)
        self._copy = RecordsWriter(directory)
        super().__init__(directory)

    def close(self) -> None:
        super().close()
        self._copy.close()
        self._place.cleanup()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        for prefix in self._known:
            self._bring_up_to_date(prefix)
        with super().reading() as database:
            yield database

    def search(self, query: LogQuery) -> list[LogRecord]:
        return self._logs.search(query)

    def _bring_up_to_date(self, prefix: str) -> None:
        is_all = False
        while not is_all:
            (part,) = self._questioner.ask(_RECIPE, _RecipeQuestion(prefix, self._known[prefix]))
            is_all = part.is_all
            if len(part.found) > 1:
                raise RecordsError(
                    f"{prefix[:40]} is the beginning of several recipe IDs: {', '.join(part.found)}"
                )
            if part.found:
                with self._copy.writing() as database:
                    hop_table.add(database, read_hops(dump_json(part.report)))
                    hop_table.add_queues(database, part.queues)
                    self._known[prefix] = part.row
