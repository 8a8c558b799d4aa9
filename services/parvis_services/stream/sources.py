"""Where messages of a stream are taken from: a detector's ZeroMQ socket, or a ring in shared memory."""

from __future__ import annotations

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
    """A detector's socket. One connection; if it breaks, ZeroMQ makes it anew, for ever.

    `lost` is 0: over a socket that pushes nothing is lost that the detector did not lose itself, and a socket
    that publishes does not say.
    """

    def __init__(self, address: str) -> None:
        try:
            import zmq
        except ModuleNotFoundError:
            raise SourceError(f"{address} needs the package pyzmq: pip install 'parvis[daq]'") from None
        self._zmq = zmq
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
        self._socket.connect(address.removeprefix(PUBLISHED))

    def receive(self, timeout: float) -> list[Bytes] | None:
        """As `Source.receive`. The parts are views into what ZeroMQ received: nothing is copied."""
        try:
            if not self._socket.poll(max(0, round(timeout * 1000))):
                return None
            return self._taken()
        except self._zmq.ZMQError as error:
            raise SourceError(f"the stream's socket: {error.strerror}") from None

    def _taken(self) -> list[Bytes]:
        """The message that is there. ZeroMQ hands over whole messages only: no part is waited for."""
        parts: list[Bytes] = []
        while True:
            frame = self._socket.recv(self._zmq.NOBLOCK, copy=False)
            if len(parts) <= MOST_PARTS:  # one too many shows the decoder that there were too many
                parts.append(frame.buffer)
            if not frame.more:
                return parts

    @property
    def lost(self) -> int:
        """As `Source.lost`."""
        return 0

    def close(self) -> None:
        """As `Source.close`."""
        self._socket.close()
        self._context.term()
