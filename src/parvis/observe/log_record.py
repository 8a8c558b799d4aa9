"""A log record as it is kept and found again, and the question that finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

#: Names of the syslog severities, most urgent first; a severity is a place in it.
LEVELS: Final = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
DEBUG: Final = len(LEVELS) - 1

Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record.

    Attributes:
        time: When it was made, in seconds since 1970.
        level: Syslog severity, 0 (emergency) to 7 (debug).
        facility: Name of the logger.
        message: The message.
        full: The message with what follows it, such as a traceback; empty if that is no more than `message`.
        host: Name of the machine.
        service: Name of the service as people know it, or empty.
        recipe_id: The recipe it belongs to, or empty.
        fields: Everything else that it carries: `file`, `line`, `function`, `pid`, `workflows_host`, ...
        row: Its number in the order of arrival; 0 before it is kept.
    """

    time: float
    level: int
    facility: str
    message: str
    full: str = ""
    host: str = ""
    service: str = ""
    recipe_id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    row: int = 0

    @property
    def level_name(self) -> str:
        """The severity in words."""
        return LEVELS[min(max(self.level, 0), DEBUG)]

    def to_json(self) -> dict[str, Any]:
        """The record for programs."""
        names = ("time", "facility", "message", "full", "host", "service", "recipe_id", "row")
        return {name: getattr(self, name) for name in names} | {
            "level": self.level_name,
            "fields": dict(self.fields),
        }


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which records are wanted: those that answer to all that is asked.

    Attributes:
        recipe: Recipe ID, or the first characters of it.
        sources: Services or loggers, any of them; words of their names will do, in either case of letters.
        level: Severity, at least that urgent.
        since, until: Seconds since 1970, both included.
        text: Words that follow one another in the message, what is with it, or the recipe ID. A `*` at the
            end stands for the rest of the last word.
        limit: How many at most.
        order: Which are wanted first: the `newest`, or the `oldest`.
        after: Only what arrived after the record of this row, in the order of arrival (`order` is not
            looked at).

    Raises:
        ValueError: A part cannot be searched for.
    """

    recipe: str | None = None
    sources: tuple[str, ...] = ()
    level: int | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None
    limit: int = 1000
    order: Order = "newest"
    after: int | None = None

    def __post_init__(self) -> None:
        for what, words in (
            ("recipe", self.recipe),
            ("text", self.text),
            *(("source", s) for s in self.sources),
        ):
            if words is not None and not any(sign.isalnum() for sign in words):
                raise ValueError(f"{what}: {words[:40]!r} has no letter or digit to search for")
        if self.level is not None and not 0 <= self.level <= DEBUG:
            raise ValueError(
                f"a level is from 0 ({LEVELS[0]}) to {DEBUG} ({LEVELS[DEBUG]}), not {self.level}"
            )
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
