"""Sends log records to Graylog in GELF 1.1, the Graylog Extended Log Format.

The fields are those that a beamline's searches rely on: `_facility` (the logger), `_recipe_ID`,
`_workflows_service`, `_workflows_host` and whatever else a record carries, each with a `_` in front.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import socket
import sys
import threading
import time
import zlib
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from logging.handlers import DatagramHandler, SocketHandler
from typing import TYPE_CHECKING, Any

import orjson

from parvis.config import RECORDS_COLLECTOR, ConfigError
from parvis.config.settings import GraylogSettings
from parvis.observe.logs import extra_fields

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What fits one Ethernet frame; a message has at most 128 chunks, each with 12 bytes in front.
_CHUNK = 1420 - 12
_MOST_CHUNKS = 128
_LONGEST_TEXT = 60_000

_MOST_WAITING = 1000
_ANSWER = 5.0  # seconds for a server to answer
_PAUSE = 1.0  # seconds before a server that was away is asked again
_LAST_WORDS = 2.0  # seconds for what is left at the end

_plain = logging.Formatter()


def gelf_handler(settings: GraylogSettings) -> logging.Handler:
    """Return a handler that sends records to a Graylog server."""
    protocol = settings.protocol.upper()
    if protocol in ("HTTP", "HTTPS"):
        return GelfHttpHandler(host=settings.host, port=settings.port, encrypted=protocol == "HTTPS")
    handler = GelfUdpHandler if protocol == "UDP" else GelfTcpHandler
    return handler(host=settings.host, port=settings.port)


def collector_handler(address: str) -> logging.Handler:
    """Return a handler that sends records by UDP to a collector at `host:port`.

    Raises:
        ConfigError: That is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{RECORDS_COLLECTOR} must be host:port, it is {address[:40]!r}")
    return GelfUdpHandler(host=host.strip("[]"), port=int(port))


def gelf(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record as a GELF message."""
    message = record.getMessage()
    full = message
    if record.exc_info or record.exc_text:
        full = (
            f"{message}\n{record.exc_text or _plain.formatException(record.exc_info or (None, None, None))}"
        )
    content: dict[str, Any] = {
        "version": "1.1",
        "host": socket.gethostname(),
        "short_message": message.partition("\n")[0][:1000] or "-",
        "timestamp": record.created,
        "level": _syslog_level(record.levelno),
        "_level_name": record.levelname,
        "_facility": record.name,
        "_file": record.pathname,
        "_line": record.lineno,
        "_function": record.funcName,
        "_pid": record.process,
        "_thread_name": record.threadName,
        "_process_name": record.processName,
    }
    if full != content["short_message"]:
        content["full_message"] = full[:_LONGEST_TEXT]
    for name, value in extra_fields(record).items():
        key = "_" + re.sub(r"[^\w.\-]", "_", name)
        if key != "_id" and value is not None:  # `_id` is Graylog's own
            number = isinstance(value, int | float) and not isinstance(value, bool)
            content[key] = value if number else str(value)[:_LONGEST_TEXT]
    return content


def _syslog_level(level: int) -> int:
    """Return the syslog severity (7 debug to 1 alert) of a level of Python's."""
    bounds = [(20, 7), (25, 6), (30, 5), (40, 4), (50, 3), (60, 2)]
    return next((severity for bound, severity in bounds if level < bound), 1)


def _encode(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content, default=str)


class GelfUdpHandler(DatagramHandler):
    """Sends records by UDP, compressed, in chunks if need be. Never waits, never fails."""

    def __init__(self, *, host: str, port: int) -> None:
        super().__init__(_address(host), port)

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - the name is logging's
        content = gelf(record)
        packed = zlib.compress(_encode(content))
        if len(packed) > _CHUNK * _MOST_CHUNKS:
            content["full_message"] = "(left out: too long for GELF)"
            content = {key: value for key, value in content.items() if len(str(value)) < 1000}
            packed = zlib.compress(_encode(content))
        return packed

    def send(self, s: Buffer) -> None:
        for datagram in chunks(bytes(s)):
            super().send(datagram)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not isinstance(sys.exc_info()[1], OSError):  # a host that is not there costs records, not words
            super().handleError(record)


def chunks(packed: bytes) -> list[bytes]:
    """Return a packed message as the datagrams that carry it."""
    if len(packed) <= _CHUNK:
        return [packed]
    pieces = [packed[start : start + _CHUNK] for start in range(0, len(packed), _CHUNK)]
    head = b"\x1e\x0f" + os.urandom(8)
    return [head + bytes((number, len(pieces))) + piece for number, piece in enumerate(pieces)]


class GelfTcpHandler(SocketHandler):
    """Sends records by TCP, each ended by a zero byte. While the server is away they are dropped."""

    def __init__(self, *, host: str, port: int) -> None:
        super().__init__(_address(host), port)

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - the name is logging's
        return _encode(gelf(record)) + b"\0"


class GelfHttpHandler(logging.Handler):
    """Sends records by HTTP, from a thread of its own. Never waits; what there is no room for is dropped.

    Args:
        host: Name or address of the server.
        port: Port of its input.
        encrypted: Whether the server is to be asked by HTTPS.

    Attributes:
        dropped: How many records were lost, as the server was away or too slow.
    """

    def __init__(self, *, host: str, port: int, encrypted: bool = False) -> None:
        super().__init__()
        self.dropped = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._connect = partial(HTTPSConnection if encrypted else HTTPConnection, host, port, timeout=_ANSWER)
        self._thread = threading.Thread(target=self._send_all, name="gelf-http", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(_encode(gelf(record)))
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - as handlers do: a record must not hurt whoever made it
            self.handleError(record)

    def close(self) -> None:
        """Send what is waiting, for a moment, and stop."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_LAST_WORDS)
        super().close()

    def _send_all(self) -> None:
        connection = self._connect()
        while (body := self._waiting.get()) is not None:
            for attempt in range(2):  # a server may have closed a connection that was idle
                try:
                    connection.request("POST", "/gelf", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, HTTPException):
                    connection.close()
                    if attempt:
                        self.dropped += 1
                        self._await_better_times()
                else:
                    self.dropped += answer.status >= 400
                    break
        connection.close()

    def _await_better_times(self) -> None:
        """Do not ask a server that is away for each record; what waits is as good as new."""
        if not self._waiting.empty():
            time.sleep(_PAUSE)


def _address(host: str) -> str:
    """Look a host up once, rather than for every record."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host
