"""Logs: on the terminal, to Graylog, and however the plugin `logging` of the configuration says.

While a message is handled, every record made carries the recipe ID as `recipe_ID`, so that everything that
happened to one recipe can be found in Graylog, whichever service logged it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TextIO

from parvis.config import RECORDS_COLLECTOR, Config

_OURS = ("parvis", "parvis_services", "parvis_wrappers")
_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default=MappingProxyType({}))
_installed: list[logging.Handler] = []


_process_fields: dict[str, Any] = {}


@contextmanager
def process_label(**fields: Any) -> Generator[None]:
    """Put `fields` on every log record made meanwhile, on whichever thread; `log_context` counts more."""
    before = dict(_process_fields)
    _process_fields.update(fields)
    try:
        yield
    finally:
        _process_fields.clear()
        _process_fields.update(before)


class log_context(AbstractContextManager[None]):  # noqa: N801 - called as a function
    """Put `fields` on every log record made inside, in this thread; contexts may stand in one another.

    A class, as it is entered for every message.
    """

    def __init__(self, **fields: Any) -> None:
        self._added = fields

    def __enter__(self) -> None:
        self._token = _fields.set({**_fields.get(), **self._added})

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


def recipe_context(recipe_id: str | None) -> AbstractContextManager[None]:
    """Put the recipe ID on every log record made inside, as `recipe_ID`; nothing if there is none."""
    return nullcontext() if recipe_id is None else log_context(recipe_ID=recipe_id)


def set_up_logging(config: Config, stream: TextIO | None = None) -> None:
    """Log as the configuration says, to `stream` (standard error by default) in any case.

    Replaces what an earlier call set up.

    Raises:
        ConfigError: Plugin `logging` asks for something that does not work.
    """
    root = logging.getLogger()
    while _installed:
        handler = _installed.pop()
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING)
    level = logging.DEBUG if config.verbosity else logging.INFO
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    if config.logging is not None:
        from parvis.observe.site_logging import apply_site_logging

        apply_site_logging(config.logging, config.verbosity)
    _installed.append(_console(config, stream or sys.stderr))
    if config.graylog is not None:
        from parvis.observe.gelf import gelf_handler

        _installed.append(gelf_handler(config.graylog))
    if config.storage.get(RECORDS_COLLECTOR):
        from parvis.observe.gelf import collector_handler

        _installed.append(collector_handler(str(config.storage[RECORDS_COLLECTOR])))
    for handler in _installed:
        root.addHandler(handler)
    complete_records(config)


def complete_records(config: Config) -> None:
    """Have the handlers that there are now give records the fields of their context, and no secrets."""
    complete = _Complete(config)
    for handler in _all_handlers():
        handler.filters = [known for known in handler.filters if not isinstance(known, _Complete)]
        handler.addFilter(complete)


def _all_handlers() -> Iterator[logging.Handler]:
    for logger in [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            yield from logger.handlers


class _Complete(logging.Filter):
    """Gives records the fields of their context and takes secrets out of them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        secrets = [re.escape(secret) for secret in config.secrets() if len(secret) > 3]
        self._secret = re.compile("|".join([*secrets, r"(?<=://)[^/\s:@]*:[^/\s]+(?=@)"]))

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in {**_process_fields, **_fields.get()}.items():
            if name not in record.__dict__:
                setattr(record, name, value)
        if record.exc_info and not record.exc_text:
            record.exc_text = _PLAIN.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secret.sub("***", record.exc_text)
        message = _message(record)
        clean = self._secret.sub("***", message)
        if clean != message:
            record.msg, record.args = clean, ()
        return True


_PLAIN = logging.Formatter()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return str(record.msg)  # arguments that do not fit: the handler reports that


def _console(config: Config, stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    if config.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(ConsoleFormatter(colour=wants_colour(stream)))
    return handler


def wants_colour(stream: TextIO) -> bool:
    """Whether what is written to `stream` should be coloured: it is a terminal and nobody said no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


# Everything that moves the cursor, changes colours or makes text look like other text: control characters,
# line and paragraph separators, and what turns the direction of writing. A message may come from anybody.
_UNSAFE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
} | {ord("\r"): "\\r"}
_UNSAFE_IN_LINE = _UNSAFE | {ord("\n"): "\\n", ord("\t"): "\\t"}
_CONTINUATION = "\n    | "


def terminal_text(text: str) -> str:
    """Return a text with what a terminal might obey written out; lines and tabs are left."""
    return text.translate(_UNSAFE)


def terminal_line(text: str) -> str:
    """Return a text in one line, with what a terminal might obey written out."""
    return text.translate(_UNSAFE_IN_LINE)


class ConsoleFormatter(logging.Formatter):
    """One line a record: time, level, service, first letters of the recipe ID, message.

    Further lines of a message or a traceback are marked, so that none passes for a record of its own, and
    control characters are written out.
    """

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        recipe = str(record.__dict__.get("recipe_ID", "-"))[:8].translate(_UNSAFE_IN_LINE)
        service = service_of(record).translate(_UNSAFE_IN_LINE)
        head = f"{clock}.{int(record.msecs):03d} {record.levelname:<8} {service:<16} {recipe:<8}"
        body = record.getMessage()
        if record.exc_info or record.exc_text:
            body = f"{body}\n{record.exc_text or self.formatException(record.exc_info or (None, None, None))}"
        body = body.rstrip("\n").translate(_UNSAFE).replace("\n", _CONTINUATION)
        if not self._colour:
            return f"{head} {body}"
        colour = _COLOURS.get(record.levelno, "")
        return f"\x1b[2m{head}\x1b[0m {f'{chr(27)}[{colour}m{body}{chr(27)}[0m' if colour else body}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        content |= extra_fields(record)
        if record.exc_info or record.exc_text:
            content["exception"] = record.exc_text or self.formatException(
                record.exc_info or (None, None, None)
            )
        return orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record carries beyond what every record does."""
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def service_of(record: logging.LogRecord) -> str:
    """Return the service that a record is from: its field `workflows_service`, else its logger's name."""
    service = record.__dict__.get("workflows_service")
    return str(service) if service else record.name.removeprefix("parvis.").removeprefix("service.")
