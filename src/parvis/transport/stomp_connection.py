"""One connection to a STOMP 1.2 broker, from the log-in to its end.

A socket that never blocks: whoever writes, writes at once what the socket takes, and the thread that reads
(`Connection.run`) writes the rest. So nobody waits behind another's large message, heart-beats go out
whatever the rest of the process does, and TLS sees one caller at a time.

A thread that waits for messages may read itself (`Connection.drive`), and meanwhile the reading thread rests:
to hand each message from thread to thread costs more than to handle a small one. When it has been away for a
moment, the reading thread reads again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from parvis.transport.base import Disconnected
from parvis.transport.stomp_frames import Frame, Item, Parser, ProtocolError
from parvis.transport.stomp_receipts import Receipt, Receipts

logger = logging.getLogger(__name__)

_CHUNK: Final = 262_144
_AWAY: Final = 0.05  # seconds without reading after which the reading thread takes over
_REST: Final = 0.5  # seconds between its looks at a thread that reads
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class Connection:
    """A socket on which the broker has let us in. Made by `stomp_login.open_connection`.

    Args:
        sock: The socket, non-blocking.
        parser: What has read the broker's answer to the log-in.
        broker: As the attribute.
        server: As the attribute.
        send_every: Seconds after which we must send something; infinite for never.
        silent_after: Seconds after which a silent broker is gone; infinite for never.

    Attributes:
        broker: `host:port`, for people.
        server: What the broker calls itself.
        reason: Why the connection ended, once it has.
        useful: Whether work was done on it; for who uses it to say.
    """

    def __init__(
        self,
        sock: socket.socket,
        parser: Parser,
        *,
        broker: str,
        server: str,
        send_every: float,
        silent_after: float,
    ) -> None:
        self.broker = broker
        self.server = server
        self.reason = ""
        self.useful = False
        self._sock = sock
        self._parser = parser
        self._send_every = send_every
        self._silent_after = silent_after
        self._lock = threading.Lock()  # the sending half of the socket and all below
        self._reading = self._lock if isinstance(sock, ssl.SSLSocket) else contextlib.nullcontext()
        self._out = bytearray()
        self._receipts = Receipts(broker)
        self._numbers = itertools.count(1)
        self._closed = False
        self._sent_at = self._received_at = time.monotonic()
        self._turn = threading.Lock()  # held by whoever reads
        self._selector: selectors.BaseSelector | None = None
        self._deliver: Callable[[Frame], None] = _ignore
        self._driver = 0  # the thread that last read in place of the reading thread
        self._driving = False
        self._left_at = -math.inf
        self._takeover = threading.Event()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)

    @property
    def backlog(self) -> int:
        """Bytes that were written here and that the socket has not taken yet."""
        return len(self._out)

    def next_number(self) -> str:
        """A name for a receipt or transaction, unique on this connection."""
        return str(next(self._numbers))

    def write(self, data: bytes, receipt: Receipt | None = None) -> None:
        """Send `data`, whole frames, without waiting; `receipt` is resolved when the broker answers.

        Raises:
            Disconnected: The connection has ended; nothing was sent.
        """
        with self._lock:
            if self._closed:
                raise Disconnected(self.reason)
            if receipt is not None:
                self._receipts.expect(receipt)
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
        self._receipts.fail(reason)
        self._takeover.set()
        self.wake()

    def run(self, deliver: Callable[[Frame], None]) -> None:
        """Read, deliver MESSAGE frames, send heart-beats; return when the connection has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            self._deliver, self._selector = deliver, selector
            while not self._closed:
                self._rest()
                with self._turn:
                    self._advance(selector, math.inf)
            with self._turn:
                self._selector = None
                for one in (self._sock, self._wake_receiver, self._wake_sender):
                    one.close()

    def drive(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Read on the calling thread, always the same, until something holds or for some seconds.

        Return whether that was possible.
        """
        self._driver, self._driving = threading.get_ident(), True
        if not self._turn.acquire(blocking=False):
            self.wake()
            self._turn.acquire()
        try:
            selector = self._selector
            if selector is None:
                return False
            deadline = time.monotonic() + seconds
            while not (self._closed or until()) and (left := deadline - time.monotonic()) > 0:
                self._advance(selector, left)
            return not self._closed
        finally:
            self._left_at, self._driving = time.monotonic(), False
            self._turn.release()

    def wait_for(self, receipt: Receipt, timeout: float) -> bool:
        """Wait for the answer to `receipt`; return whether it has come."""
        if threading.get_ident() == self._driver:
            end = time.monotonic() + timeout
            self.drive(timeout, lambda: receipt.is_resolved)
            timeout = end - time.monotonic()
        return receipt.wait(timeout)

    def wake(self) -> None:
        """Have whoever reads look around."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: there is nobody to wake
            self._wake_sender.send(b"\0")

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

    def _advance(self, selector: selectors.BaseSelector, limit: float) -> None:
        """Read what there is, at most after `limit` seconds; close the connection if that fails."""
        try:
            self._step(selector, limit)
        except Disconnected as error:
            self.close(str(error))
        except ProtocolError as error:
            self.close(f"{self.broker} sent what is not STOMP: {error}")
        except OSError as error:
            self.close(f"the connection to {self.broker} broke: {error}")
        except Exception as error:
            # A mistake of ours must not leave those who wait without an answer.
            logger.exception("reading from %s failed", self.broker)
            self.close(f"reading from {self.broker} failed: {error!r}")

    def _step(self, selector: selectors.BaseSelector, limit: float) -> None:
        for key, events in selector.select(self._time_to_wait(limit)):
            if key.fileobj is self._wake_receiver:
                self._wake_receiver.recv(4096)
            elif events & selectors.EVENT_READ:
                self._read(self._deliver)
        self._flush(selector)
        self._keep_time()

    def _read(self, deliver: Callable[[Frame], None]) -> None:
        try:
            with self._reading:
                data = self._sock.recv(_CHUNK)
                # What TLS has decrypted already, no selector announces.
                while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                    data += self._sock.recv(_CHUNK)
            if _QUICK_ACK is not None:
                # A broker that leaves Nagle's algorithm on holds the rest of a message back until we
                # acknowledge its beginning, which the kernel would put off for 40 ms.
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not data:
            raise Disconnected(f"{self.broker} closed the connection")
        self._received_at = time.monotonic()
        try:
            items = self._parser.feed(data)
        except ProtocolError as error:
            self._take(error.before, deliver)
            raise
        self._take(items, deliver)

    def _take(self, items: list[Item], deliver: Callable[[Frame], None]) -> None:
        for item in items:
            if not isinstance(item, Frame):
                continue
            if item.command == "MESSAGE":
                deliver(item)
            elif item.command == "RECEIPT":
                self._receipts.confirm(item.headers.get("receipt-id", ""))
            elif item.command == "ERROR":
                self._receipts.refuse(item.headers.get("receipt-id"), error_text(item))
            else:
                raise ProtocolError(f"a {item.command} frame, which brokers do not send")

    def _send(self, data: bytes) -> int:
        """Send what the socket takes. TLS wants no less the next time: so always the first `_CHUNK` bytes."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _flush(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            if self._closed:
                return
            if self._out:
                sent = self._send(bytes(memoryview(self._out)[:_CHUNK]))
                del self._out[:sent]
                self._sent_at = time.monotonic()
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if selector.get_key(self._sock).events != events:
            selector.modify(self._sock, events)

    def _time_to_wait(self, limit: float) -> float | None:
        silent_at = self._received_at + self._silent_after
        due = min(self._sent_at + self._send_every, silent_at, self._receipts.due)
        wait = min(limit, max(0.0, due - time.monotonic()))
        return None if wait == math.inf else wait

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._received_at + self._silent_after:
            raise Disconnected(f"{self.broker} has been silent for {now - self._received_at:.1f} s")
        if now >= self._receipts.due:
            self._receipts.keep_time()
        if now >= self._sent_at + self._send_every:
            with self._lock:
                if not self._out:
                    self._send(b"\n")
                self._sent_at = now


def _ignore(_frame: Frame) -> None:
    """Nobody waits for messages yet."""


def error_text(frame: Frame) -> str:
    """What an ERROR frame says, in one line."""
    message = frame.headers.get("message", "").strip()
    lines = frame.body.decode(errors="replace").strip().splitlines()
    detail = lines[0].strip() if lines else ""
    if message in detail:
        return detail[:500] or "no reason given"
    return (f"{message}: {detail}" if detail and detail not in message else message)[:500]
