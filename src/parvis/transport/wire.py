"""A socket to a broker that never blocks, whatever is spoken on it.

Whoever writes, writes at once what the socket takes, and the thread that reads (`Wire.run`) writes the rest.
So nobody waits behind another's large message, heart-beats go out whatever the rest of the process does, and
TLS sees one caller at a time.

A thread that waits for messages may read itself (`Wire.drive`), and meanwhile the reading thread rests: to
hand each message from thread to thread costs more than to handle a small one. When it has been away for a
moment, the reading thread reads again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from parvis.transport.base import Disconnected
from parvis.transport.latch import Latch

logger = logging.getLogger(__name__)

_CHUNK: Final = 262_144
_LONGEST_WAIT: Final = 60.0  # seconds; what the system takes as a time has an end
_AWAY: Final = 0.05  # seconds without reading after which the reading thread takes over
_REST: Final = 0.5  # seconds between its looks at a thread that reads
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class ProtocolError(Exception):
    """The broker sent what the protocol does not allow."""


class Timed(Protocol):
    """Something that has its times.

    Attributes:
        due: When `keep_time` is to be called, on the monotonic clock; infinite for never.
    """

    due: float

    def keep_time(self) -> None:
        """Do what is due, and set `due` anew. May raise `Disconnected` to end the connection."""
        ...


class _Timeless:
    due = math.inf

    def keep_time(self) -> None:
        """Nothing is ever due."""


class Wire(ABC):
    """A socket on which the broker has let us in.

    Args:
        sock: The socket, non-blocking.
        broker: As the attribute.
        heartbeat: What is sent to be heard.
        send_every: Seconds after which we must send something; infinite for never.
        silent_after: Seconds after which a silent broker is gone; infinite for never.
        timed: What has times of its own to be kept, if anything.

    Attributes:
        broker: `host:port`, for people.
        reason: Why the connection ended, once it has.
        useful: Whether work was done on it; for who uses it to say.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        broker: str,
        heartbeat: bytes,
        send_every: float,
        silent_after: float,
        timed: Timed | None = None,
    ) -> None:
        self.broker = broker
        self.reason = ""
        self.useful = False
        self._sock = sock
        self._heartbeat = heartbeat
        self._send_every = send_every
        self._silent_after = silent_after
        self._timed: Timed = timed or _Timeless()
        self._lock = threading.Lock()  # the sending half of the socket and all below
        self._out = bytearray()
        self._memory = memoryview(bytearray(_CHUNK))
        self._closed = False
        self._sent_at = self._received_at = time.monotonic()
        self._turn = threading.Lock()  # held by whoever reads
        self._poll: select.poll | None = None
        self._awaits_room = False  # whether we are told when the socket takes more
        self._reader = 0  # the thread that reads now, if any
        self._driver = 0  # the thread that last read in place of the reading thread
        self._driving = False
        self._left_at = -math.inf
        self._takeover = threading.Event()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_descriptor = self._wake_receiver.fileno()
        self._wake_sender.setblocking(False)

    @property
    def backlog(self) -> int:
        """Bytes that were written here and that the socket has not taken yet."""
        return len(self._out)

    def write(self, data: bytes, note: Callable[[], None] | None = None) -> None:
        """Send `data`, whole frames, without waiting.

        `note` is called before it is sent: notes are in the order in which things are written.

        Raises:
            Disconnected: The connection has ended; nothing was sent, and `note` was not called.
        """
        with self._lock:
            if self._closed:
                raise Disconnected(self.reason)
            if note is not None:
                note()
            if self._out:
                self._out += data
                return
            try:
                sent = self._send(data[:_CHUNK])
            except OSError:
                sent = 0  # the reading thread meets the same error, and reads what came before it
            self._sent_at = time.monotonic()
            if sent == len(data):
                return
            self._out += memoryview(data)[sent:]
        self._takeover.set()
        self.wake()

    def close(self, reason: str) -> None:
        """End the connection: everything that was not confirmed fails."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.reason = reason
        self._ended(reason)
        self._takeover.set()
        self.wake()

    def run(self) -> None:
        """Read what the broker sends, send heart-beats; return when the connection has ended."""
        self._poll = poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_receiver, select.POLLIN)
        while not self._closed:
            self._rest()
            with self._turn:
                self._reader = threading.get_ident()
                self._advance(poll, _LONGEST_WAIT)
                self._reader = 0
        with self._turn:
            self._poll = None
            for one in (self._sock, self._wake_receiver, self._wake_sender):
                one.close()

    def drive(self, seconds: float, until: Callable[[], object]) -> bool:
        """Read on the calling thread, always the same, until something holds or for some seconds.

        Return whether that was possible.
        """
        self._driver, self._driving = threading.get_ident(), True
        if not self._turn.acquire(blocking=False):
            self.wake()
            self._turn.acquire()
        try:
            poll = self._poll
            if poll is None:
                return False
            self._reader = self._driver
            deadline = time.monotonic() + seconds
            while not (self._closed or until()) and (left := deadline - time.monotonic()) > 0:
                self._advance(poll, left)
            return not self._closed
        finally:
            self._left_at, self._driving, self._reader = time.monotonic(), False, 0
            self._turn.release()

    def hand_back(self) -> None:
        """Have the reading thread read at once: the calling thread, which drives, has other things to do."""
        self._left_at = -math.inf
        self._takeover.set()

    def wait_for(self, event: Latch | threading.Event, timeout: float) -> bool:
        """Wait at most `timeout` seconds for what reading brings; return whether it has come."""
        if event.is_set():
            return True
        if threading.get_ident() == self._driver:
            end = time.monotonic() + timeout
            self.drive(timeout, event.is_set)
            timeout = max(0.0, end - time.monotonic())
        return event.wait(timeout)

    @property
    def is_read_here(self) -> bool:
        """Whether it is the calling thread that reads, so that what it waited for would never come."""
        return self._reader == threading.get_ident()

    def wake(self) -> None:
        """Have whoever reads look around."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: there is nobody to wake
            self._wake_sender.send(b"\0")

    @abstractmethod
    def leave(self, timeout: float) -> None:
        """Say goodbye to the broker and wait for its answer, at most `timeout` seconds."""

    @abstractmethod
    def _received(self, data: bytes) -> None:
        """Take what was read. May raise `ProtocolError` or `Disconnected` to end the connection."""

    @abstractmethod
    def _ended(self, reason: str) -> None:
        """Tell those who wait that nothing will come any more. Called once, on any thread."""

    def _rest(self) -> None:
        """Return when nobody else reads."""
        while not self._closed:
            pause = _REST if self._driving else self._left_at + _AWAY - time.monotonic()
            if pause <= 0:
                return
            if self._takeover.wait(pause):
                self._takeover.clear()
                if not self._driving:
                    return

    def _advance(self, poll: select.poll, limit: float) -> None:
        """Read what there is, at most after `limit` seconds; close the connection if that fails."""
        try:
            self._step(poll, limit)
        except Disconnected as error:
            self.close(str(error))
        except ProtocolError as error:
            self.close(f"{self.broker} sent what it should not: {error}")
        except OSError as error:
            self.close(f"the connection to {self.broker} broke: {error}")
        except Exception as error:
            # A mistake of ours must not leave those who wait without an answer.
            logger.exception("reading from %s failed", self.broker)
            self.close(f"reading from {self.broker} failed: {error!r}")

    def _step(self, poll: select.poll, limit: float) -> None:
        if _QUICK_ACK is not None and self._received_at > self._sent_at:
            # A broker that leaves Nagle's algorithm on holds the rest of a message, or the next, back until
            # we acknowledge what came before, which the kernel would put off for 40 ms. What we send does it.
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        due = self._due()
        wait = max(0.0, due - time.monotonic())
        for descriptor, events in poll.poll(1000 * min(wait, limit, _LONGEST_WAIT)):
            if descriptor == self._wake_descriptor:
                self._wake_receiver.recv(4096)
            elif events != select.POLLOUT:  # an error is met, and said, by reading
                self._read()
        if self._out or self._awaits_room:
            self._flush(poll)
        if time.monotonic() >= due:
            self._keep_time()

    def _read(self) -> None:
        try:
            data = self._decrypted(self._sock) if isinstance(self._sock, ssl.SSLSocket) else self._copied()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not data:
            raise Disconnected(f"{self.broker} closed the connection")
        self._received_at = time.monotonic()
        self._received(data)

    def _copied(self) -> bytes:
        """Read into memory that we keep: new memory of this size costs more than what is read into it."""
        return bytes(self._memory[: self._sock.recv_into(self._memory)])

    def _decrypted(self, sock: ssl.SSLSocket) -> bytes:
        with self._lock:
            data = self._copied()
            while sock.pending():  # what is decrypted already, the system does not announce
                data += self._copied()
            return data

    def _send(self, data: bytes) -> int:
        """Send what the socket takes. TLS wants no less the next time: so always the first `_CHUNK` bytes."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _flush(self, poll: select.poll) -> None:
        with self._lock:
            if self._closed:
                return
            if self._out:
                sent = self._send(bytes(memoryview(self._out)[:_CHUNK]))
                del self._out[:sent]
                self._sent_at = time.monotonic()
            awaits_room = bool(self._out)
        if awaits_room != self._awaits_room:
            self._awaits_room = awaits_room
            poll.modify(self._sock, select.POLLIN | (select.POLLOUT if awaits_room else 0))

    def _due(self) -> float:
        """When something is to be done though nothing arrives."""
        silent_at = self._received_at + self._silent_after
        return min(self._sent_at + self._send_every, silent_at, self._timed.due)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._received_at + self._silent_after:
            raise Disconnected(f"{self.broker} has been silent for {now - self._received_at:.1f} s")
        if now >= self._timed.due:
            self._timed.keep_time()
        if now >= self._sent_at + self._send_every:
            with self._lock:
                if not self._out:
                    self._send(self._heartbeat)
                self._sent_at = now
