"""Where log records are looked for: the records of this place, or a Graylog server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final, Literal, Protocol

from parvis.config import GRAYLOG_URL, Config, ConfigError
from parvis.observe.graylog import Graylog, GraylogError
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import Records, RecordsError
from parvis.observe.records_place import find_records

Kind = Literal["records", "graylog"]

#: What a search may raise.
SourceError: Final = (RecordsError, GraylogError)

_LATE: Final = 15.0  # seconds that a Graylog server may take to find what it was sent


class LogSource(Protocol):
    """Something that can be searched."""

    def search(self, query: LogQuery) -> list[LogRecord]:
        """Return the records that answer to a query, in its order. Raises one of `SourceError`."""
        ...


class Follower(Protocol):
    """A search that goes on."""

    def new(self) -> list[LogRecord]:
        """Return what answers to the query, and from the second time on what has come since.

        Raises one of `SourceError`; what was not returned then comes the next time.
        """
        ...


def open_source(config: Config, kind: Kind | None = None) -> Records | Graylog:
    """Return what is to be searched: by default the Graylog server, if one is configured.

    Raises:
        ConfigError: It is not configured, or wrongly.
        RecordsError: The records cannot be read, or there are none.
    """
    server = None if kind == "records" else Graylog.configured(config)
    if server is not None:
        return server
    if kind == "graylog":
        raise ConfigError(f"no Graylog server is configured: set {GRAYLOG_URL}")
    return Records(find_records(config))


def follower(source: Records | Graylog, query: LogQuery) -> Follower:
    """Return what answers to a query, and goes on to do so."""
    return _GraylogFollower(source, query) if isinstance(source, Graylog) else _RecordsFollower(source, query)


class _RecordsFollower:
    """Goes by the order of arrival, and so misses nothing that comes late."""

    def __init__(self, records: Records, query: LogQuery) -> None:
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
