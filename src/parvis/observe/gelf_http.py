"""GELF by HTTP: `POST /gelf` with one message, a list of them, or one on each line.

The answer comes when all are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from parvis.observe.gelf_message import LARGEST, NotGelf, read_many

if TYPE_CHECKING:
    from parvis.observe.gelf_inputs import Account, Sink

_LONGEST_HEAD: Final = 16_384
_SMALL: Final = 65_536
_MOST_LARGE: Final = (
    8  # requests at a time, as each holds its body in memory; small ones need not wait for these
)
_MOST_CONNECTIONS: Final = 200
_PATIENCE: Final = 30.0  # seconds for a request to come, and for its records to be kept
_REASONS: Final = {
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class _Refused(Exception):
    """A request is not done, and the connection ends with the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Request:
    """What stands before the body."""

    method: str
    path: str
    headers: dict[str, str]
    keeps_alive: bool


def answer_requests(
    sink: Sink, account: Account
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what answers the requests on a connection."""
    large_ones = asyncio.Semaphore(_MOST_LARGE)
    connections: dict[asyncio.StreamWriter, None] = {}  # those last that were of use last

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = ":".join(map(str, (writer.get_extra_info("peername") or ("?",))[:2]))
        connections[writer] = None
        if len(connections) > _MOST_CONNECTIONS:
            idlest = next(iter(connections))
            del connections[idlest]
            idlest.transport.abort()
        try:
            while await _answer_one(reader, writer, sink, large_ones):
                connections.pop(writer, None)
                connections[writer] = None
        except _Refused as refusal:
            account.refuse("http", sender, refusal)
            with contextlib.suppress(OSError):
                await _say(writer, refusal.status, str(refusal), keeps_alive=False)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever asked went away, or fell silent; or the collector ends
        finally:
            connections.pop(writer, None)
            writer.close()

    return answer


async def _answer_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sink: Sink, large_ones: asyncio.Semaphore
) -> bool:
    """Answer the next request of a connection; return whether there may be another."""
    request = await _read_head(reader)
    if request is None:
        return False
    _check(request)
    async with contextlib.nullcontext() if _is_small(request) else large_ones:
        async with asyncio.timeout(_PATIENCE):
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _read_body(reader, request.headers)
        try:
            records = read_many(body)
        except NotGelf as error:
            raise _Refused(400, str(error)) from None
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[bool] = loop.create_future()

        def done(is_safe: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: kept.done() or kept.set_result(is_safe))

        if not sink.put(records, done):
            raise _Refused(503, "too many records are waiting to be written")
        try:
            async with asyncio.timeout(_PATIENCE):
                is_safe = await kept
        except TimeoutError:
            is_safe = False
        if not is_safe:
            raise _Refused(503, "the records could not be written")
    await _say(writer, 202, "", keeps_alive=request.keeps_alive)
    return request.keeps_alive


async def _read_head(reader: asyncio.StreamReader) -> _Request | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _Refused(431, "the head of the request is too long") from None
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise _Refused(400, "the head of the request has no end") from None
        return None
    if len(head) > _LONGEST_HEAD:
        raise _Refused(431, "the head of the request is too long")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise _Refused(400, "this is not HTTP")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.lower() in headers:
            raise _Refused(400, "a malformed or repeated header")
        headers[name.lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    keeps_alive = connection != "close" if words[2] == "HTTP/1.1" else connection == "keep-alive"
    return _Request(words[0], words[1], headers, keeps_alive)


def _check(request: _Request) -> None:
    # A browser names the page that asks; no page has anything to log here.
    if "origin" in request.headers:
        raise _Refused(403, "this is not for browsers")
    if request.path.partition("?")[0] != "/gelf":
        raise _Refused(404, "there is only /gelf")
    if request.method != "POST":
        raise _Refused(405, "only POST")


def _is_small(request: _Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" not in request.headers and length.isdecimal() and int(length[:9]) <= _SMALL


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise _Refused(400, "of the transfer encodings only chunked is known")
        return await _read_chunks(reader)
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise _Refused(400, "Content-Length is no number")
    if len(length) > 9 or int(length) > LARGEST:
        raise _Refused(413, f"more than {LARGEST:,} bytes")
    return await reader.readexactly(int(length))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        try:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0].strip(), 16) if len(line) < 100 else -1
        except (ValueError, asyncio.LimitOverrunError):
            size = -1
        if size < 0:
            raise _Refused(400, "a malformed chunk")
        if len(body) + size > LARGEST:
            raise _Refused(413, f"more than {LARGEST:,} bytes")
        body += await reader.readexactly(size)
        if size:
            await reader.readexactly(2)
            continue
        for _ in range(20):  # trailers
            if await reader.readuntil(b"\r\n") == b"\r\n":
                return bytes(body)
        raise _Refused(400, "too many trailers")


async def _say(writer: asyncio.StreamWriter, status: int, text: str, *, keeps_alive: bool) -> None:
    body = f"{text}\n".encode() if text else b""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Length: {len(body)}",
        "Content-Type: text/plain; charset=utf-8",
        f"Connection: {'keep-alive' if keeps_alive else 'close'}",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    async with asyncio.timeout(_PATIENCE):
        await writer.drain()
