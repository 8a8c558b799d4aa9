"""A TCP proxy on loopback that loses connections, or data, or time, when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal

_SLOW_BLOCK = 2048  # bytes

Direction = Literal["up", "down"]
"""`up` is towards the server."""


class Cut(bytes):
    """The last that is passed on before the connection breaks."""


Watch = Callable[[Direction, bytes], bytes]
"""Takes what is under way, returns what is to be passed on."""


class TcpProxy:
    """Passes connections on to a server on loopback.

    Attributes:
        port: Where it listens.
        connections: How many it has accepted.
        watch: Sees all data; may be set at any time.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        self.watch: Watch | None = None
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled: set[socket.socket] = set()
        self._refusing = False
        self._swallowing = False
        self._rate: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all present connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _break(*pair)

    def stall(self) -> None:
        """Let nothing more through on the present connections, and leave them open."""
        with self._lock:
            self._stalled |= {one for pair in self._pairs for one in pair}

    def black_hole(self, swallowing: bool = True) -> None:
        """Let nothing through any more, on new connections either, and break none; or stop that.

        Connections that were there meanwhile stay silent for ever.
        """
        self._swallowing = swallowing
        if swallowing:
            self.stall()

    def slow(self, rate: float | None) -> None:
        """Let only so many bytes a second through in each direction of a connection; None for all."""
        self._rate = rate

    def refuse(self, refusing: bool = True) -> None:
        """Break connections as soon as they are made, or stop that."""
        self._refusing = refusing

    def close(self) -> None:
        """Break everything and listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.connections += 1
            with self._lock:
                self._pairs.append((client, server))
                if self._swallowing:
                    self._stalled |= {client, server}
            for direction, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._pump, args=(direction, source, sink), daemon=True).start()

    def _pump(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if self._rate is None else _SLOW_BLOCK):
                if self._rate is not None:
                    time.sleep(len(data) / self._rate)
                if source in self._stalled:
                    continue  # what comes is lost, and so is the end of it
                passed = self.watch(direction, data) if self.watch else data
                sink.sendall(passed)
                if isinstance(passed, Cut):
                    break
        if source not in self._stalled:
            _break(source, sink)


def _break(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            # What was not delivered is lost, as when a machine goes away.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.shutdown(socket.SHUT_RDWR)
        one.close()
