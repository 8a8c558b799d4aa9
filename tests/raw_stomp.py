"""A STOMP client that is a socket: says exactly what a test wants said, and tells exactly what came."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp_frames import HEARTBEAT, Frame, Parser, encode


class RawClient:
    """A connection to a STOMP broker, logged in unless `connect` is false."""

    def __init__(self, port: int, version: str = "1.2", connect: bool = True, **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.version = version
        self.heartbeats = 0
        self._parser = Parser()
        self._frames: list[Frame] = []
        self._receipts = 0
        if connect:
            offered = {} if version == "1.0" else {"accept-version": version, "host": "localhost"}
            self.say("CONNECT", offered | {name.replace("_", "-"): value for name, value in headers.items()})
            self.connected = self.expect("CONNECTED")

    def say(self, command: str, headers: dict[str, str] | None = None, body: bytes | str = b"") -> None:
        """Send a frame."""
        body = body.encode() if isinstance(body, str) else body
        self.socket.sendall(encode(Frame(command, headers or {}, body), self.version))

    def confirm(self, command: str, headers: dict[str, str] | None = None, body: bytes | str = b"") -> None:
        """Send a frame and wait for its receipt. Other frames that come first are kept."""
        self._receipts += 1
        wanted = f"receipt-{self._receipts}"
        self.say(command, {**(headers or {}), "receipt": wanted}, body)
        kept: list[Frame] = []
        while (frame := self.receive()).headers.get("receipt-id") != wanted or frame.command != "RECEIPT":
            assert frame.command != "ERROR", frame
            kept.append(frame)
        self._frames = kept + self._frames

    def send(self, destination: str, body: bytes | str = b"", **headers: str) -> None:
        """Send a message and wait for the receipt."""
        self.confirm("SEND", {"destination": destination, **_dashed(headers)}, body)

    def subscribe(
        self, destination: str, ack: str = "auto", key: str = "1", more: dict[str, str] | None = None
    ) -> None:
        """Subscribe and wait for the receipt."""
        self.confirm("SUBSCRIBE", {"destination": destination, "ack": ack, "id": key, **(more or {})})

    def ack(self, message: Frame, command: str = "ACK", **headers: str) -> None:
        """Acknowledge, as the version wants it, and wait for the receipt."""
        said = message.headers
        if self.version == "1.2":
            self.confirm(command, {"id": said["ack"], **headers})
        else:
            self.confirm(
                command,
                {"message-id": said["message-id"], "subscription": said["subscription"], **headers},
            )

    def nack(self, message: Frame, **headers: str) -> None:
        """Refuse, and wait for the receipt."""
        self.ack(message, "NACK", **headers)

    def receive(self, timeout: float = 10) -> Frame:
        """The next frame. Raises TimeoutError, or ConnectionError at the end of the connection."""
        end = time.monotonic() + timeout
        while not self._frames:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("the broker has closed the connection")
            for item in self._parser.feed(data):
                if item is HEARTBEAT:
                    self.heartbeats += 1
                else:
                    self._frames.append(item)
        return self._frames.pop(0)

    def expect(self, command: str, timeout: float = 10) -> Frame:
        """The next frame, which must be this command."""
        frame = self.receive(timeout)
        assert frame.command == command, frame
        return frame

    def message(self, timeout: float = 10) -> Frame:
        """The next frame, which must be a message."""
        return self.expect("MESSAGE", timeout)

    def bodies(self, number: int) -> list[str]:
        """The bodies of that many messages."""
        return [self.message().body.decode() for _ in range(number)]

    def nothing(self) -> bool:
        """Whether no frame waits: everything that the broker had to say before a receipt is here by then."""
        self.confirm("BEGIN", {"transaction": "probe"})
        self.confirm("ABORT", {"transaction": "probe"})
        return not self._frames

    def rest(self) -> list[Frame]:
        """All frames until the broker closes the connection."""
        frames: list[Frame] = []
        with contextlib.suppress(ConnectionError):
            while True:
                frames.append(self.receive())
        return frames

    def error(self) -> str:
        """The text of the ERROR frame that comes next, behind which the broker closes the connection."""
        frames = self.rest()
        assert [frame.command for frame in frames] == ["ERROR"]
        return frames[0].headers["message"]

    def close(self) -> None:
        """End the connection without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: Makes clients of one broker, which are closed at the end of the test.
Connect: TypeAlias = Callable[..., RawClient]


def fill(client: RawClient, number: int, queue: str = "/queue/a", **headers: str) -> None:
    """Send messages, each of which holds its number."""
    for index in range(number):
        client.send(queue, str(index), **headers)


def sizes(broker: BrokerThread) -> dict[str, tuple[int, int]]:
    """Name without /queue/ to size and in flight."""
    return {s.name.removeprefix("/queue/"): (s.size, s.in_flight) for s in broker.statistics()}


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("__", "-"): value for name, value in headers.items()}
