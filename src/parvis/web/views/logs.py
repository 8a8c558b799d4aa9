"""The log: a question, and the records that answer to it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from parvis.observe.log_record import LEVELS, LogQuery, LogRecord

MOST: Final = 200
"""Records on a page."""
SINCE: Final = {
    "10m": ("10 minutes", 600.0),
    "1h": ("hour", 3600.0),
    "1d": ("day", 86_400.0),
    "7d": ("week", 604_800.0),
}
"""How far back one may look: name in the address, words, seconds."""

_TONES: Final = ("bad", "bad", "bad", "bad", "late", "idle", "idle", "off")
_MOST_SOURCES: Final = 10
_LONGEST: Final = 200
_SEPARATOR: Final = re.compile(r"[,\s]+")


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """A record as it is shown."""

    time: float
    level: str
    tone: str
    source: str
    host: str
    message: str
    full: str
    recipe_id: str


@dataclass(frozen=True, slots=True)
class LogAsked:
    """What somebody asks of the log, as the fields of the form have it."""

    text: str = ""
    recipe: str = ""
    service: str = ""
    level: str = ""
    since: str = "1d"

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> LogAsked:
        """Read what an address asks for; what is not known is as if it was not there."""
        values = {name: parameters.get(name, "").strip()[:_LONGEST] for name in cls.__slots__}
        if values["level"] not in LEVELS:
            values["level"] = ""
        if values["since"] not in SINCE:
            values["since"] = "7d" if values["recipe"] else "1d"
        return cls(**values)

    def query(self) -> LogQuery:
        """Return it as a query. Raises ValueError if there is nothing in a word to search for."""
        sources = tuple(filter(None, _SEPARATOR.split(self.service)))[:_MOST_SOURCES]
        return LogQuery(
            recipe=self.recipe or None,
            sources=sources,
            level=LEVELS.index(self.level) if self.level else None,
            since=time.time() - SINCE[self.since][1],
            text=self.text or None,
            limit=MOST,
        )

    @property
    def address(self) -> str:
        """The address of the page that answers to it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return f"/logs?{urlencode({name: value for name, value in fields.items() if value})}"


def shown_records(records: Sequence[LogRecord]) -> list[ShownRecord]:
    """Return records as they are shown, the newest first."""
    return [
        ShownRecord(
            time=record.time,
            level=record.level_name,
            tone=_TONES[record.level],
            source=record.service or record.facility,
            host=record.host,
            message=record.message,
            full=record.full if record.full != record.message else "",
            recipe_id=record.recipe_id,
        )
        for record in sorted(records, key=lambda record: -record.time)
    ]
