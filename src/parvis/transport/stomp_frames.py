"""STOMP frames, versions 1.0 to 1.2: written as bytes, and read from bytes as they arrive.

Both ends use this: the client and the embedded broker. Nothing here does input or output.

Rules and escapes are those of the STOMP specifications (https://stomp.github.io). Where they leave a
choice, what is sent is strict and what is taken is tolerant: a line may end in CR LF in every version.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final

VERSIONS: Final = ("1.2", "1.1", "1.0")
"""The versions understood, best first."""

COMMANDS: Final = frozenset(
    {"CONNECT", "STOMP", "CONNECTED", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK"}
    | {"BEGIN", "COMMIT", "ABORT", "DISCONNECT", "MESSAGE", "RECEIPT", "ERROR"}
)


class ProtocolError(ValueError):
    """Bytes that are not STOMP, or a frame that cannot be said in STOMP.

    `before` holds what had been read in good order in the same `Parser.feed`.
    """

    def __init__(self, message: str, before: list[Item] | None = None) -> None:
        super().__init__(message)
        self.before: list[Item] = before or []


@dataclass(slots=True)
class Frame:
    """One STOMP frame. Headers are unescaped text, the body is bytes as sent."""

    command: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class _Heartbeat(enum.Enum):
    HEARTBEAT = "heartbeat"


HEARTBEAT: Final = _Heartbeat.HEARTBEAT
"""One or more line ends between frames: the other side is alive."""

Item = Frame | _Heartbeat


def negotiate(accept_version: str | None) -> str | None:
    """The best version both sides speak, or None.

    `accept_version` is the header of that name in CONNECT, which a 1.0 client does not send.
    """
    if accept_version is None:
        return "1.0"
    offered = {version.strip() for version in accept_version.split(",")}
    return next((version for version in VERSIONS if version in offered), None)


def encode(frame: Frame, version: str = "1.2") -> bytes:
    """The frame as bytes, with a true `content-length` wherever there is a body.

    What a header cannot say in an old version (a line end in 1.0, CR in 1.1) becomes a space.

    Raises:
        ProtocolError: a header holds NUL, or a line end in CONNECT or CONNECTED, which know no escapes.
    """
    return b"".join(pieces(frame, version))


def pieces(frame: Frame, version: str = "1.2") -> tuple[bytes, ...]:
    """What `encode` puts together, for who puts several frames together and copies large bodies once."""
    headers = frame.headers
    if frame.body or "content-length" in headers:
        headers = {**headers, "content-length": str(len(frame.body))}
    return encode_head(frame.command, headers, version), b"\n", frame.body, b"\0"


def encode_head(command: str, headers: dict[str, str], version: str = "1.2") -> bytes:
    """Command line and header lines, without the blank line that ends them. Raises as `encode` does."""
    # All lines are escaped at once: the signs that the format itself needs are marked by a NUL till then.
    text = "".join([f"{name}\0:{value}\0\n" for name, value in headers.items()])
    if text.count("\0") != 2 * len(headers):
        raise ProtocolError(f"a header of the {command} frame holds a NUL, which STOMP cannot carry")
    if version == "1.0" or command in _WITHOUT_ESCAPES:
        text = "".join([_header_line(command, name, value) for name, value in headers.items()])
    else:
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")
        text = text.replace("\r", " " if version == "1.1" else "\\r")
        text = text.replace("\0\\c", ":").replace("\0\\n", "\n")
    return f"{command}\n{text}".encode()


_WITHOUT_ESCAPES: Final = frozenset({"CONNECT", "STOMP", "CONNECTED"})
_UNESCAPES_12: Final = {"\\\\": "\\", "\\n": "\n", "\\c": ":", "\\r": "\r"}
_UNESCAPES_11: Final = {name: char for name, char in _UNESCAPES_12.items() if name != "\\r"}
_TO_10_NAME: Final = str.maketrans("\r\n:", "   ")
_TO_10_VALUE: Final = str.maketrans("\r\n", "  ")


def _header_line(command: str, name: str, value: str) -> str:
    if command in _WITHOUT_ESCAPES:
        if ":" in name or re.search(r"[\r\n]", name + value):
            raise ProtocolError(
                f"header {name!r} of the {command} frame holds a character STOMP cannot carry"
            )
        return f"{name}:{value}\n"
    return f"{name.translate(_TO_10_NAME)}:{value.translate(_TO_10_VALUE)}\n"


_LINE_ENDS: Final = re.compile(rb"[\r\n]+")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_ESCAPE: Final = re.compile(r"\\.?", re.DOTALL)


class Parser:
    """Reads frames from bytes in whatever pieces they arrive, in time linear in their number.

    `version` starts as 1.2 and follows the CONNECT or CONNECTED frame that passes through, so that
    frames sent right behind it are read by the right rules.

    Attributes:
        max_head: largest command and headers, in bytes.
        max_headers: most header lines in a frame.
        max_body: largest body, in bytes.
    """

    def __init__(
        self, *, max_head: int = 65_536, max_headers: int = 500, max_body: int = 100 * 1024 * 1024
    ) -> None:
        self.version = "1.2"
        self.max_head = max_head
        self.max_headers = max_headers
        self.max_body = max_body
        self._rest = bytearray()
        self._frame: Frame | None = None  # its head is read, its body is not complete
        self._length: int | None = None  # of that body, where the frame says so
        self._scanned = 0  # bytes of the rest known to hold no end of what is being looked for
        self._error: str | None = None

    @property
    def incomplete(self) -> int:
        """Bytes kept of a frame that has not come whole."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Item]:
        """Take bytes, return what they complete.

        Raises:
            ProtocolError: not STOMP, or over a limit. Nothing more can be read from this peer then:
                every later call raises the same.
        """
        items: list[Item] = []
        if self._error is not None:
            raise ProtocolError(self._error)
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        try:
            position = self._read(buffer, items)
        except ProtocolError as error:
            self._error = str(error)
            self._rest.clear()
            raise ProtocolError(self._error, items) from None
        if buffer is self._rest:
            del self._rest[:position]
        else:
            self._rest += memoryview(buffer)[position:]
        return items

    def _read(self, buffer: bytes | bytearray, items: list[Item]) -> int:
        """Append all complete items; return how many bytes are done with."""
        position, end = 0, len(buffer)
        while position < end:
            if self._frame is None:
                if buffer[position] in b"\r\n":
                    match = _LINE_ENDS.match(buffer, position)
                    position = match.end() if match else position
                    items.append(HEARTBEAT)
                    continue
                after = self._read_head(buffer, position)
            else:
                after = self._read_body(buffer, position, self._frame, items)
            if after is None:
                break
            position, self._scanned = after, 0
        return position

    def _read_head(self, buffer: bytes | bytearray, start: int) -> int | None:
        """Read a frame's head. Return the position behind it, or None if it is not complete."""
        # The limit also bounds the search, so that a head without end is found out as it arrives.
        match = _HEAD_END.search(buffer, start + self._scanned, start + self.max_head + 3)
        if match is None:
            if len(buffer) - start > self.max_head + 2:
                raise ProtocolError(f"command and headers are longer than {self.max_head} bytes")
            self._scanned = max(0, len(buffer) - start - 2)
            return None
        try:
            text = bytes(buffer[start : match.start()]).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"command and headers are not UTF-8: {error.reason}") from None
        lines = text.split("\n")
        if "\r" in text:
            lines = [line.removesuffix("\r") for line in lines]
        command = lines[0]
        if command not in COMMANDS:
            raise ProtocolError(f"unknown command {command[:40]!r}")
        self._frame = Frame(command, self._headers(command, lines, text))
        self._length = self._body_length(self._frame)
        return match.end()

    def _headers(self, command: str, lines: list[str], text: str) -> dict[str, str]:
        if len(lines) > self.max_headers + 1:
            raise ProtocolError(f"the {command} frame has more than {self.max_headers} headers")
        if "\0" in text:
            raise ProtocolError(f"the headers of the {command} frame hold a NUL or do not end")
        connecting = command in _WITHOUT_ESCAPES
        has_escapes = "\\" in text and not connecting and self.version != "1.0"
        headers: dict[str, str] = {}
        for line in lines[:0:-1]:  # backwards, as of headers that are there more than once the first counts
            name, colon, value = line.partition(":")
            if not (name and colon):
                raise ProtocolError(f"header line {line[:80]!r} of the {command} frame is not 'name:value'")
            if has_escapes and "\\" in line:
                name, value = self._plain(name), self._plain(value)
            headers[name] = value
        if connecting:
            self._follow(command, headers)
        if self.version == "1.0" or connecting:
            return {name.strip(): value.strip() for name, value in headers.items()}
        return headers

    def _follow(self, command: str, headers: dict[str, str]) -> None:
        if command == "CONNECTED":
            self.version = headers.get("version", "1.0").strip()
        else:
            self.version = negotiate(headers.get("accept-version")) or "1.2"

    def _plain(self, text: str) -> str:
        plain = text.replace("\\c", ":")
        if "\\" not in plain:  # nothing but the colons of an identifier, as nearly always
            return plain
        known = _UNESCAPES_11 if self.version == "1.1" else _UNESCAPES_12

        def character(match: re.Match[str]) -> str:
            escape = match.group()
            if escape not in known:
                raise ProtocolError(f"undefined escape {escape!r} in a header")
            return known[escape]

        return _ESCAPE.sub(character, text)

    def _body_length(self, frame: Frame) -> int | None:
        text = frame.headers.get("content-length")
        if text is None:
            return None
        text = text.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise ProtocolError(f"content-length {text[:40]!r} of the {frame.command} frame is not a number")
        self._check_size(int(text), frame)
        return int(text)

    def _check_size(self, size: int, frame: Frame) -> None:
        if size > self.max_body:
            raise ProtocolError(
                f"the body of the {frame.command} frame has {size} bytes or more, allowed are {self.max_body}"
            )

    def _read_body(
        self, buffer: bytes | bytearray, start: int, frame: Frame, items: list[Item]
    ) -> int | None:
        """Complete the frame. Return the position behind its NUL, or None if that is not there yet."""
        if self._length is None:
            end = buffer.find(b"\0", start + self._scanned)
            self._check_size((len(buffer) if end < 0 else end) - start, frame)
            if end < 0:
                self._scanned = len(buffer) - start
                return None
        else:
            end = start + self._length
            if end >= len(buffer):
                return None
            if buffer[end]:
                raise ProtocolError(
                    f"no NUL behind the {self._length} bytes of content-length of the {frame.command} frame"
                )
        frame.body = bytes(memoryview(buffer)[start:end])
        items.append(frame)
        self._frame = None
        return end + 1
