"""Where log records are looked for: the records of this place, or a Graylog server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol

from parvis.config import GRAYLOG_URL, RECORDS_DIRECTORY, Config, ConfigError
from parvis.observe.graylog import Graylog, GraylogError
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import FILE, Records, RecordsError, RecordsMissing
from parvis.observe.records_place import find_records, records_directory
from parvis.observe.records_queries import RecipesElsewhere, RecordsElsewhere
from parvis.transport.base import Transport, TransportError

Kind = Literal["records", "broker", "graylog"]
Source = Records | RecordsElsewhere | Graylog

#: What a search may raise.
SourceError: Final = (RecordsError, GraylogError)

_CONNECT: Final = 2.0  # seconds for a broker to answer
_LATE: Final = 15.0  # seconds that a Graylog server may take to find what it was sent


class Follower(Protocol):
    """A search that goes on."""

    def new(self) -> list[LogRecord]:
        """Return what answers to the query, and from the second time on what has come since.

        Raises one of `SourceError`; what was not returned then comes the next time.
        """
        ...


@contextlib.contextmanager
def opened_source(config: Config, kind: Kind | None = None) -> Generator[Source]:
    """Give what is to be searched.

    By default that is the Graylog server, if one is configured; else the records on this machine, if there
    are any; else those of the collector that answers at the broker.

    Raises:
        ConfigError: It is not configured, or wrongly.
        RecordsError: The records cannot be read, or there are none.
    """
    server = Graylog.configured(config) if kind in (None, "graylog") else None
    if server is not None:
        yield server
    elif kind == "graylog":
        raise ConfigError(f"no Graylog server is configured: set {GRAYLOG_URL}")
    elif kind == "broker" or (kind is None and _are_elsewhere(config)):
        with _elsewhere(config) as records:
            yield records
    else:
        with Records(find_records(config)) as records:
            yield records


def _are_elsewhere(config: Config) -> bool:
    return not config.storage.get(RECORDS_DIRECTORY) and not (find_records(config) / FILE).is_file()


@contextlib.contextmanager
def _elsewhere(config: Config) -> Generator[RecordsElsewhere]:
    with _connected(config) as transport:
        yield RecordsElsewhere(transport)


@contextlib.contextmanager
def opened_recipes(config: Config, prefixes: Sequence[str], kind: Kind | None = None) -> Generator[Records]:
    """Give the records on this machine or, if there are none or `kind` says so, what those elsewhere know of
    some recipes.

    Args:
        config: The configuration.
        prefixes: The first characters of the recipe IDs; none for all, for which records must be here.
        kind: `records` or `broker`, if it must be that.

    Raises:
        RecordsError: They cannot be read, or there are none.
    """
    if prefixes and (kind == "broker" or (kind is None and _are_elsewhere(config))):
        with _connected(config) as transport, RecipesElsewhere(transport, prefixes) as records:
            yield records
    else:
        with Records(find_records(config)) as records:
            yield records


@contextlib.contextmanager
def _connected(config: Config) -> Generator[Transport]:
    transport = config.transport()
    try:
        transport.connect(_CONNECT)
    except TransportError as error:
        raise RecordsMissing(
            f"there are no records in {records_directory(config)}, and nobody can be asked for them: {error}"
            " (`parvis collect` or `parvis up` takes them)"
        ) from None
    finally:
        if not transport.is_connected:
            transport.disconnect()
    try:
        yield transport
    finally:
        transport.disconnect()


def follower(source: Source, query: LogQuery) -> Follower:
    """Return what answers to a query, and goes on to do so."""
    return _GraylogFollower(source, query) if isinstance(source, Graylog) else _RecordsFollower(source, query)


class _RecordsFollower:
    """Goes by the order of arrival, and so misses nothing that comes late."""

    def __init__(self, records: Records | RecordsElsewhere, query: LogQuery) -> None:
        self._records = records
        self._query = query
        self._row: int | None = None

    def new(self) -> list[LogRecord]:
        if self._row is None:
            row = self._records.last_row()
            found = self._records.search(self._query)
        else:
            row = self._row
            found = self._records.search(replace(self._query, since=None, until=None, after=row))
        self._row = max([row, *(record.row for record in found)])
        return found


class _GraylogFollower:
    """Asks again for the last seconds, as a server finds records some time after they came."""

    def __init__(self, server: Graylog, query: LogQuery) -> None:
        self._server = server
        self._query = query
        self._seen: dict[object, float] = {}
        self._since: float | None = None

    def new(self) -> list[LogRecord]:
        asked = time.time()
        query = self._query
        if self._since is not None:
            query = replace(query, since=self._since, until=None, order="oldest")
        found = [record for record in self._server.search(query) if _identity(record) not in self._seen]
        self._since = asked - _LATE
        recent = {key: moment for key, moment in self._seen.items() if moment >= self._since}
        self._seen = recent | {_identity(record): record.time for record in found}
        return found


def _identity(record: LogRecord) -> object:
    return record.fields.get("_id") or (record.time, record.host, record.message)
