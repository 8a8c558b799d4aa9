"""One client's socket: bytes in, bytes out, heart-beats, and waiting for who is slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Final, Protocol, cast

from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.session import Session
from parvis.transport.stomp_frames import Frame, Item, Parser, ProtocolError

_log = logging.getLogger(__name__)

READ_SIZE: Final = 65_536
_OUTPUT_HIGH: Final = 256 * 1024
"""Bytes waiting for a client beyond which nothing more is delivered to it."""
_OUTPUT_FULL: Final = 4 * 1024 * 1024
"""And beyond which nothing more is read from it: receipts for all that it sends must wait as well."""
_LARGE: Final = 1024 * 1024
"""Bytes of a frame that has not come whole beyond which it may be refused where memory is short."""
_CONNECT_TIMEOUT: Final = 30.0
_GOODBYE_TIMEOUT: Final = 2.0


_LARGEST_HEAD: Final = 48 * 1024
_MOST_HEADERS: Final = 400


class Hub(Protocol):
    """What a connection needs from the broker."""

    destinations: Destinations

    def joined(self, connection: Connection) -> None:
        """There is a new connection."""
        ...

    def left(self, connection: Connection) -> None:
        """It is gone."""
        ...

    def wake(self, connection: Connection | None = None) -> None:
        """Something has happened; the connection, if one is named, has output."""
        ...

    def sent(self, connection: Connection) -> None:
        """The connection has sent messages, which are not yet confirmed."""
        ...

    def hold(self, connection: Connection) -> None:
        """The connection has sent while memory was short: it was paused and waits for `resume`."""
        ...


class Connection(asyncio.BufferedProtocol):
    """A client's connection. asyncio calls its methods; so does the broker, in the same thread."""

    def __init__(self, hub: Hub) -> None:
        self.session = Session(hub.destinations, self.write)
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        # Below what clients take by default: a message goes out with more headers than it came in with.
        self._parser = Parser(
            max_head=_LARGEST_HEAD, max_headers=_MOST_HEADERS, max_body=hub.destinations.settings.max_body
        )
        self._memory = memoryview(bytearray(READ_SIZE))
        self._output: list[bytes] = []
        self._waiting = 0  # bytes of output that the transport does not have yet
        self._full = False  # the transport has more than enough
        self._held = False
        self._glutted = False  # nothing is read from it, as it reads nothing
        self._finished = False
        self._incoming = 0  # bytes of a frame that has not come whole
        self._written = self._drained = 0  # bytes given to the transport, and to the socket
        self._peer = "?"
        self._last_read = self._last_write = self._last_drained = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast("asyncio.Transport", transport)  # asyncio has set TCP_NODELAY on it
        self._transport.set_write_buffer_limits(high=_OUTPUT_HIGH)
        self._peer = str(transport.get_extra_info("peername"))
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timer = self._loop.call_later(_CONNECT_TIMEOUT, self._lose, "it did not CONNECT")
        self._hub.joined(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go."""
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self._last_read = self._loop.time()
        if self.session.closing:
            return
        items, error = self._parse(nbytes)
        was_connected = self.session.connected
        try:
            for item in items:
                if isinstance(item, Frame):
                    self.session.receive(item)
        except Exception:  # noqa: BLE001 - a mistake of ours costs one connection, never the broker
            _log.exception("Client %s: a frame could not be handled", self._peer)
            error = "internal error of the broker, which has logged it"
        if error and not self.session.closing:
            self.session.refuse(error)
        self._count_incoming()
        if self.session.unconfirmed:
            self.session.unconfirmed = False
            self._hub.sent(self)
        if self.session.connected and not was_connected:
            self._set_timer()
        if self.session.login_refused:
            _log.warning("Client %s: log-in refused: name or passcode is wrong", self._peer)
        if self.session.closing:
            self.finish()
        else:
            self._wait_if_necessary()
        self._hub.wake()

    def _count_incoming(self) -> None:
        memory = self._hub.destinations.memory
        memory.incoming += self._parser.incomplete - self._incoming
        self._incoming = self._parser.incomplete
        if self.session.closing:
            return
        if self._incoming > _LARGE and memory.used + memory.incoming > 2 * memory.limit:
            self.session.refuse("the broker is out of memory for a frame as large as this")

    def _wait_if_necessary(self) -> None:
        if self._hub.destinations.short and self.session.only_produces and self._incoming <= _LARGE:
            self._held = True
            self._transport.pause_reading()
            self._hub.hold(self)
        elif self._waiting + self._transport.get_write_buffer_size() > _OUTPUT_FULL:
            self._glutted = True
            self._transport.pause_reading()

    def _parse(self, size: int) -> tuple[list[Item], str | None]:
        try:
            return self._parser.feed(bytes(self._memory[:size])), None
        except ProtocolError as error:
            return error.before, str(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if exc is not None:
            _log.info("Client %s: connection lost: %s", self._peer, exc)
        if self._timer:
            self._timer.cancel()
        self._finished = True
        self._hub.destinations.memory.incoming -= self._incoming
        self._incoming = 0
        try:
            self.session.close()
        finally:  # else the broker would wait for its end for ever
            self._hub.left(self)

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._full = True
        self.session.block(True)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._unblock()

    # Output

    def write(self, data: bytes) -> None:
        """Keep output until the broker sends it, together with what comes in the same moment."""
        self._output.append(data)
        before, self._waiting = self._waiting, self._waiting + len(data)
        if before <= _OUTPUT_HIGH < self._waiting:
            self.session.block(True)
        self._hub.wake(self)

    def take_output(self) -> bytes:
        """What waits to be sent, all in one."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send what `take_output` gave."""
        self._waiting -= len(data)
        if self._transport.is_closing():
            return
        if data:
            self._last_write = self._loop.time()
            self._written += len(data)
            self._transport.write(data)
        if self.session.closing and not self._waiting:
            self._say_goodbye()
        else:
            self._unblock()

    def _unblock(self) -> None:
        if not self._full and self._waiting <= _OUTPUT_HIGH and not self.session.closing:
            self.session.block(False)
            if self._glutted:
                self._glutted = False
                self._read_on()

    def give_up(self, reason: str = "") -> None:
        """End with the ERROR frame, if there is a reason for one, without all that waited before it."""
        if self._finished:
            return
        if reason and not self.session.closing:
            self.session.refuse(reason)
        self.session.close()
        self._output.clear()
        self._waiting = len(self.session.refusal)
        self.send(self.session.refusal)

    def drop_if_stalled(self) -> None:
        """End the connection if the client has not taken a byte of what waits for it for too long."""
        now = self._loop.time()
        waiting = self._transport.get_write_buffer_size()
        drained = self._written - waiting
        if not waiting or drained > self._drained:
            self._last_drained = now
        elif now - self._last_drained > self._hub.destinations.settings.stall:
            self._lose(f"it has read nothing for {now - self._last_drained:.0f} s, and {waiting} bytes wait")
        self._drained = drained

    def resume(self) -> None:
        """Go on reading after `hold`."""
        self._held = False
        self._read_on()

    def _read_on(self) -> None:
        self._last_read = self._loop.time()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # The end

    def finish(self) -> None:
        """Nothing more is heard. What is to be said is said, then the connection ends."""
        self.session.close()
        self._hub.wake(self)

    def _say_goodbye(self) -> None:
        """Close our side only: closing all with input unread would destroy the ERROR frame on its way."""
        if not self._finished:
            self._finished = True
            if self._timer:
                self._timer.cancel()
            with contextlib.suppress(OSError):  # the client has gone already
                self._transport.write_eof()
            self._timer = self._loop.call_later(_GOODBYE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _lose(self, reason: str) -> None:
        _log.warning("Client %s is dropped: %s", self._peer, reason)
        self.abort()

    # Heart-beats

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        intervals = [interval for interval in self.session.heartbeats if interval]
        if intervals:
            self._timer = self._loop.call_later(min(intervals) / 2000, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        send, expect = (interval / 1000 for interval in self.session.heartbeats)
        silence = now - self._last_read
        if expect and not (self._held or self._glutted) and silence > 2 * expect + 0.5:
            self._lose(f"no sign of life for {silence:.1f} s, one every {expect:g} s was promised")
            return
        # More often than half the interval: a beat may be late, but not missing.
        if send and now - self._last_write >= 0.45 * send:
            self._last_write = now
            self._written += 1
            self._transport.write(b"\n")
        self._set_timer()
