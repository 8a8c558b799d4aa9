"""Log records as lines for people, from one line and the message to everything there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from parvis.observe.log_record import LogRecord
from parvis.observe.logs import terminal_line, terminal_text

_INDENT: Final = "  "
_NAME_WIDTH: Final = 23
_MOST_LINES: Final = 20
_LONGEST_TEXT: Final = 4_000
_MAKERS: Final = ("parvis", "zocalo", "dlstbx", "workflows")
_COLOURS: Final[dict[str, dict[str, Any]]] = {
    "debug": {"dim": True},
    "warning": {"fg": "yellow"},
    "error": {"fg": "red"},
    "critical": {"fg": "red", "bold": True},
    "alert": {"fg": "red", "bold": True},
    "emergency": {"fg": "red", "bold": True},
}


def lines_of(record: LogRecord, verbosity: int, *, colour: bool, note: str = "") -> str:
    """Return a record as text that does a terminal no harm.

    Args:
        record: The record.
        verbosity: 0: time, logger and message. 1: with host and service. 2: with the place in the program
            and the message in full. 3: with process, thread, state, versions and recipe ID. 4: all fields.
        colour: Whether the message has the colour of its level.
        note: What to say below the message.
    """
    paint = _painter(record.level_name if colour else "")
    if verbosity >= 4:
        return "\n".join([*_dump(record, paint), *([f"{_INDENT}{note}"] if note else []), ""])
    lines = [_head(record, verbosity)]
    if verbosity >= 3:
        lines += [f"{_INDENT}{line}" for line in _details(record)]
    body = record.full if verbosity >= 2 and record.full else record.message
    lines += [f"{_INDENT}{paint(line)}" for line in _body(body, cut=verbosity < 2)]
    if note:
        lines.append(f"{_INDENT}{note}")
    return "\n".join(lines)


def _head(record: LogRecord, verbosity: int) -> str:
    words = [_clock(record.time), record.facility or "-"]
    if verbosity >= 1:
        words += [record.host or "-", record.service or "-"]
    if verbosity >= 2:
        place = f"{_field(record, 'file') or '-'}:{_field(record, 'line') or '-'}"
        words.append(f"{place} ({_field(record, 'function') or '-'})")
    return " ".join([words[0], *(terminal_line(word)[:200] for word in words[1:])])


def _details(record: LogRecord) -> Iterator[str]:
    process = _field(record, "process_name") or _field(record, "pid") or "-"
    words = [f"{process}:{_field(record, 'thread_name') or '-'}"]
    state = _field(record, "workflows_statustext") or _field(record, "workflows_status")
    words += [state] if state else []
    versions = [(maker, _field(record, maker) or _field(record, f"workflows_{maker}")) for maker in _MAKERS]
    words += [f"{maker} {version}" for maker, version in versions if version]
    words += [f"recipe {record.recipe_id}"] if record.recipe_id else []
    yield ", ".join(terminal_line(word)[:200] for word in words)


def _body(text: str, *, cut: bool) -> Iterator[str]:
    shown = text[:_LONGEST_TEXT] if cut else text
    lines = terminal_text(shown.rstrip("\n")).split("\n")
    yield from lines[:_MOST_LINES] if cut else lines
    if len(shown) < len(text) or (cut and len(lines) > _MOST_LINES):
        yield f"… ({len(text):,} characters; -vv shows all)"


def _dump(record: LogRecord, paint: Callable[[str], str]) -> Iterator[str]:
    values: dict[str, Any] = {
        "timestamp": _clock(record.time),
        "level": f"{record.level} ({record.level_name})",
        "facility": record.facility,
        "source": record.host,
        "workflows_service": record.service,
        "recipe_ID": record.recipe_id,
        **dict(sorted(record.fields.items())),
        "message": record.message,
        "full_message": record.full,
    }
    for name, value in values.items():
        if value in ("", None):
            continue
        text = terminal_text(str(value)).replace("\n", f"\n{'':{_NAME_WIDTH}}  ")
        shown = paint(text) if name in ("message", "full_message") else text
        yield f"{terminal_line(name)[:80]:>{_NAME_WIDTH}}: {shown}"


def _field(record: LogRecord, name: str) -> str:
    value = record.fields.get(name)
    return "" if value is None else str(value)


def _clock(moment: float) -> str:
    try:
        whole, thousandths = divmod(round(moment * 1000), 1000)
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(whole))}.{thousandths:03d}"
    except (OverflowError, ValueError, OSError):
        return f"{moment!r:.23}"


def _painter(level: str) -> Callable[[str], str]:
    style = _COLOURS.get(level)
    return (lambda line: click.style(line, **style)) if style else (lambda line: line)
