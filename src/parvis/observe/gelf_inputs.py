"""Takes log records in GELF by UDP, TCP and HTTP, as Graylog does.

All inputs run on one thread of their own. What comes may be hostile: whatever it is, it costs no more than
itself, and bounded time and memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from parvis.observe.gelf_chunks import Chunks
from parvis.observe.gelf_http import answer_requests
from parvis.observe.gelf_message import LARGEST, NotGelf, read_gelf
from parvis.observe.log_record import LogRecord

_log = logging.getLogger("parvis.collector")

_RECEIVE_BUFFER: Final = 8 * 1024 * 1024
_MOST_CONNECTIONS: Final = 500
_MOST_UNFINISHED: Final = 4 * LARGEST  # bytes of frames that have no end yet, of all connections
_LONGEST_FRAME: Final = 60.0  # seconds that a frame may take
_LAST_LOOK: Final = 1.0
_PAUSE_FOR_MORE: Final = 0.02
_TICK: Final = 0.2
_COMPLAINT_INTERVAL: Final = 60.0


class Sink(Protocol):
    """Where records go. Methods may be called from any thread and return at once."""

    @property
    def is_full(self) -> bool:
        """Whether it takes no more for now."""
        ...

    def put(self, records: Sequence[LogRecord], done: Callable[[bool], None] | None = None) -> bool:
        """Take records, all or none; return whether it did.

        `done` is called, on any thread, when they are safe (True) or lost (False).
        """
        ...


class Account:
    """Counts what was not taken, by kind of input, and says so now and then.

    Attributes:
        refused: Messages that are no log records.
        dropped: Records that there was no room for.
        arrivals: How often anything came.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.arrivals = 0
        self._said: dict[str, float] = {}

    def refuse(self, kind: str, sender: str, why: object) -> None:
        """Something that came by `kind` was no log record."""
        self.refused[kind] += 1
        self._say(kind, "%d messages by %s were refused; the last, from %s: %s", self.refused, sender, why)

    def drop(self, kind: str, sender: str) -> None:
        """A record was lost, as they come faster than they can be written."""
        self.dropped[kind] += 1
        self._say(
            f"{kind} dropped",
            "%d records by %s were dropped; the last, from %s: %s",
            self.dropped,
            sender,
            "they come faster than they can be written",
        )

    def _say(self, topic: str, text: str, counts: Counter[str], sender: str, why: object) -> None:
        kind, now = topic.partition(" ")[0], time.monotonic()
        if now - self._said.get(topic, -_COMPLAINT_INTERVAL) >= _COMPLAINT_INTERVAL:
            self._said[topic] = now
            _log.warning(text, counts[kind], kind, sender, str(why)[:200])


class GelfInputs:
    """The inputs, listening while the context lasts.

    Args:
        sink: Takes the records.
        host: Address to listen at; other machines reach all but the loopback one.
        udp, tcp, http: Ports, 0 for any free one, None for no such input.

    Attributes:
        ports: The ports that are listened at, by kind of input (`udp`, `tcp`, `http`).
        account: What was not taken.

    Raises:
        OSError: A port cannot be had.
    """

    def __init__(
        self,
        sink: Sink,
        host: str = "127.0.0.1",
        *,
        udp: int | None = 0,
        tcp: int | None = 0,
        http: int | None = 0,
    ) -> None:
        self.ports: dict[str, int] = {}
        self.account = Account()
        self._sink = sink
        self._sockets: dict[str, socket.socket] = {}
        try:
            for kind, port in (("udp", udp), ("tcp", tcp), ("http", http)):
                if port is not None:
                    self._sockets[kind] = _listen(kind, host, port)
                    self.ports[kind] = self._sockets[kind].getsockname()[1]
        except OSError:
            self._close_sockets()
            raise
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gelf-inputs", daemon=True)

    def __enter__(self) -> GelfInputs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())
        self._close_sockets()

    def _close_sockets(self) -> None:
        for listener in self._sockets.values():
            listener.close()

    async def _serve(self) -> None:
        connections: set[_TcpConnection] = set()
        chunks = Chunks()
        loop, sink, account = self._loop, self._sink, self.account
        closers: list[Callable[[], None]] = []
        if "udp" in self._sockets:
            made = await loop.create_datagram_endpoint(
                lambda: _Datagrams(sink, account, chunks), sock=self._sockets["udp"]
            )
            closers.append(made[0].close)
        if "tcp" in self._sockets:
            server = await loop.create_server(
                lambda: _TcpConnection(sink, account, connections), sock=self._sockets["tcp"]
            )
            closers.append(server.close)
        if "http" in self._sockets:
            server = await asyncio.start_server(answer_requests(sink, account), sock=self._sockets["http"])
            closers.append(server.close)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _TICK)
            chunks.forget_old()
            _look_after(connections, sink)
        await _take_what_is_there(account)
        for close in closers:
            close()
        for connection in list(connections):
            connection.finish()
        await _end_tasks()


async def _take_what_is_there(account: Account) -> None:
    """Read what has arrived already; who goes on sending is not waited for."""
    end, seen = time.monotonic() + _LAST_LOOK, -1
    while account.arrivals != seen and time.monotonic() < end:
        seen = account.arrivals
        await asyncio.sleep(_PAUSE_FOR_MORE)


async def _end_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _listen(kind: str, host: str, port: int) -> socket.socket:
    try:
        return _bound(kind, host, port)
    except OSError as error:
        where = f"{kind.upper()} port {port} of {host}"
        raise OSError(error.errno, f"cannot listen at {where}: {error.strerror}") from None


def _bound(kind: str, host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port)[0][0]
    listener = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    try:
        if kind == "udp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
        if kind != "udp":
            listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


class _Datagrams(asyncio.DatagramProtocol):
    """GELF by UDP: a message a datagram, or in chunks."""

    def __init__(self, sink: Sink, account: Account, chunks: Chunks) -> None:
        self._sink = sink
        self._account = account
        self._chunks = chunks

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._account.arrivals += 1
        sender = f"{addr[0]}:{addr[1]}"
        try:
            whole = self._chunks.take(sender, data)
            if whole is None:
                return
            record = read_gelf(whole)
        except NotGelf as error:
            self._account.refuse("udp", sender, error)
            return
        if not self._sink.put([record]):
            self._account.drop("udp", sender)


class _TcpConnection(asyncio.Protocol):
    """GELF by TCP: messages that each end with a zero byte or, on other connections, with a newline."""

    def __init__(self, sink: Sink, account: Account, all_: set[_TcpConnection]) -> None:
        self._sink = sink
        self._account = account
        self._all = all_
        self._seen = 0
        self._ends_with_newline: bool | None = None
        self._transport: asyncio.Transport | None = None
        self._sender = ""
        self.unfinished = bytearray()
        self.begun = self.active = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is a stream
        self._transport = transport
        self._sender = ":".join(map(str, (transport.get_extra_info("peername") or ("?",))[:2]))
        self.active = time.monotonic()
        self._all.add(self)
        if len(self._all) > _MOST_CONNECTIONS:
            idlest = min(self._all, key=lambda one: one.active)
            idlest.give_up(f"it was the idlest of more than {_MOST_CONNECTIONS} connections")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self._all.discard(self)
        self.finish()

    def data_received(self, data: bytes) -> None:
        self._account.arrivals += 1
        self.active = time.monotonic()
        if not self.unfinished:
            self.begun = self.active
        self.unfinished += data
        while (end := self._find_end()) >= 0:
            frame = bytes(self.unfinished[:end])
            del self.unfinished[: end + 1]
            self._seen, self.begun = 0, time.monotonic()
            self._take(frame)
        if len(self.unfinished) > LARGEST:
            self.give_up(f"a message is larger than {LARGEST:,} bytes")
        elif self._sink.is_full and self._transport is not None:
            self._transport.pause_reading()

    def finish(self) -> None:
        """Take what has come, with or without an end."""
        frame = bytes(self.unfinished)
        self.unfinished.clear()
        self._take(frame)

    def resume(self) -> None:
        """Go on reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def give_up(self, why: str) -> None:
        """Close the connection and forget what has not ended."""
        self._account.refuse("tcp", self._sender, why)
        self.unfinished.clear()
        self._all.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def _find_end(self) -> int:
        """Where the next message ends; -1 if that has not come yet."""
        zero = self.unfinished.find(0, self._seen)
        if zero >= 0 and not self._ends_with_newline:
            return zero
        newline = -1 if self._ends_with_newline is False else self.unfinished.find(b"\n", self._seen)
        if newline >= 0 and self._ends_with_newline is None:
            self._ends_with_newline = _is_whole(bytes(self.unfinished[:newline]))
            newline = newline if self._ends_with_newline else -1
        self._seen = len(self.unfinished) if newline < 0 else self._seen
        return newline

    def _take(self, frame: bytes) -> None:
        frame = frame.strip(b"\0\r\n\t ")
        if not frame:
            return
        try:
            records = [read_gelf(frame)]
        except NotGelf as error:
            self._account.refuse("tcp", self._sender, error)
            return
        if not self._sink.put(records):
            self._account.drop("tcp", self._sender)


def _is_whole(line: bytes) -> bool:
    try:
        read_gelf(line)
    except NotGelf:
        return False
    return True


def _look_after(connections: set[_TcpConnection], sink: Sink) -> None:
    """Give up what never ends; read on where reading had stopped."""
    now = time.monotonic()
    for connection in [one for one in connections if one.unfinished and now - one.begun > _LONGEST_FRAME]:
        connection.give_up(f"a message did not end within {_LONGEST_FRAME:g} s")
    while sum(len(one.unfinished) for one in connections) > _MOST_UNFINISHED:
        max(connections, key=lambda one: len(one.unfinished)).give_up("too much is waiting for its end")
    if not sink.is_full:
        for connection in connections:
            connection.resume()
