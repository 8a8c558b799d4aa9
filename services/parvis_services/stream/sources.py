"""Where messages of a stream are taken from: a detector's ZeroMQ socket, or a ring in shared memory."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from typing import Any, Final

from parvis_services.stream.addresses import PUBLISHED, RING, check_address
from parvis_services.stream.decoder import MOST_PARTS
from parvis_services.stream.events import Bytes

LARGEST_PART: Final = 1 << 30
"""Bytes of a part of a message; who sends a larger one is cut off. The start of a series of a 16M
detector has 150 MB, an image with three channels that are not packed 220 MB."""

_WAITING_MESSAGES: Final = 32
"""Messages that ZeroMQ holds for us: a quarter of a second of a fast detector. More would only be memory that
the cap of whoever takes the stream knows nothing of. What does not fit waits in the detector."""

_RECEIVE_BUFFER: Final = 8 * 1024 * 1024
"""Bytes that the kernel holds for us: two frames, so that the network goes on while a thread of ours is not
scheduled. The kernel cuts it to `net.core.rmem_max`."""

_RECONNECT: Final = (100, 2000)  # ms: first and longest pause before connecting again
_GIVEN_UP: Final = 1.0  # s after which a connection that broke is not being made anew
_KEEPALIVE: Final = (5, 2, 3)  # s idle, s between probes, probes: a dead network shows after 11 s


class SourceError(Exception):
    """A stream cannot be taken; the text says why and what to do."""


class Source(ABC):
    """Messages, in the order they were sent in. To be used and closed by one thread."""

    @abstractmethod
    def receive(self, timeout: float) -> list[Bytes] | None:
        """Wait for the next message.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Its parts, which stay as they are for as long as they are kept; None if there was none.

        Raises:
            SourceError: The stream cannot be taken now. It may be tried again.
        """

    @property
    @abstractmethod
    def lost(self) -> int:
        """How many messages were there and did not reach us, as far as that can be known."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


def open_source(address: str) -> Source:
    """Take a stream. It need not be there yet, and may go away and come back.

    Args:
        address: `tcp://HOST:PORT` or `ipc:///PATH` of a detector that pushes its messages, which exactly one
            may take; with `sub+` in front if it publishes them; `ring://NAME` for a ring in shared memory.

    Raises:
        ValueError: It is no address.
        SourceError: What it takes is not installed or not possible on this machine.
    """
    check_address(address)
    if address.startswith(RING):
        from parvis_services.stream.ring import RingReader

        return RingReader(address.removeprefix(RING))
    return ZmqSource(address)


class ZmqSource(Source):
    """A detector's socket. One connection; if it breaks, it is made anew, for ever.

    `lost` is 0: over a socket that pushes nothing is lost that the detector did not lose itself, and a socket
    that publishes does not say.
    """

    def __init__(self, address: str) -> None:
        try:
            import zmq
        except ModuleNotFoundError:
            raise SourceError(f"{address} needs the package pyzmq: pip install 'parvis[daq]'") from None
        self._zmq = zmq
        self._address = address.removeprefix(PUBLISHED)
        self._context = zmq.Context(io_threads=1)
        kind = zmq.SUB if address.startswith(PUBLISHED) else zmq.PULL
        self._socket: zmq.Socket[Any] = self._context.socket(kind)
        if kind == zmq.SUB:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        idle, between, probes = _KEEPALIVE
        options = {
            zmq.RCVHWM: _WAITING_MESSAGES,
            zmq.RCVBUF: _RECEIVE_BUFFER,
            zmq.MAXMSGSIZE: LARGEST_PART,
            zmq.IPV6: 1,  # which takes IPv4, too
            zmq.LINGER: 0,
            zmq.RECONNECT_IVL: _RECONNECT[0],
            zmq.RECONNECT_IVL_MAX: _RECONNECT[1],
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: idle,
            zmq.TCP_KEEPALIVE_INTVL: between,
            zmq.TCP_KEEPALIVE_CNT: probes,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        self._events = self._socket.get_monitor_socket()
        self._broken: float | None = None  # since when, on the monotonic clock
        self._socket.connect(self._address)

    def receive(self, timeout: float) -> list[Bytes] | None:
        """As `Source.receive`. The parts are views into what ZeroMQ received: nothing is copied."""
        try:
            if self._socket.poll(max(0, round(timeout * 1000))):
                return self._taken()
            self._mend()
        except self._zmq.ZMQError as error:
            raise SourceError(f"the stream's socket: {error.strerror}") from None
        return None

    @property
    def lost(self) -> int:
        """As `Source.lost`."""
        return 0

    def close(self) -> None:
        """As `Source.close`."""
        self._socket.disable_monitor()
        self._events.close()
        self._socket.close()
        self._context.term()

    def _taken(self) -> list[Bytes]:
        """The message that is there. ZeroMQ hands over whole messages only: no part is waited for."""
        parts: list[Bytes] = []
        while True:
            frame = self._socket.recv(self._zmq.NOBLOCK, copy=False)
            if len(parts) <= MOST_PARTS:  # one too many shows the decoder that there were too many
                parts.append(frame.buffer)
            if not frame.more:
                return parts

    def _mend(self) -> None:
        """Connect again where ZeroMQ gave up, as it does for ever with a peer that it does not understand or
        that sends a part too large. Nothing is waiting to be received now, and so nothing is lost."""
        from zmq.utils.monitor import parse_monitor_message

        zmq = self._zmq
        failed = (
            zmq.EVENT_DISCONNECTED,
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        )
        while self._events.poll(0):
            event = parse_monitor_message(self._events.recv_multipart())["event"]
            if event in {zmq.EVENT_CONNECT_DELAYED, zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_CONNECTED}:
                self._broken = None
            elif event in failed:
                self._broken = time.monotonic()
        if self._broken is not None and time.monotonic() - self._broken > _GIVEN_UP:
            self._broken = None
            with contextlib.suppress(zmq.ZMQError):  # it may know nothing of the address any more
                self._socket.disconnect(self._address)
            self._socket.connect(self._address)
