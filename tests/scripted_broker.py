"""A STOMP broker that answers as a script says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from parvis.transport.stomp import StompTransport
from parvis.transport.stomp_frames import Frame, Parser, encode

CONNECTED = encode(Frame("CONNECTED", {"version": "1.2", "heart-beat": "0,0"}))

Answer = Callable[[Frame], bytes | None]
"""What a broker answers to a frame; None ends the connection."""


class ScriptedBroker:
    """Accepts connections and answers each frame as its script says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def transport(self) -> StompTransport:
        return StompTransport([("127.0.0.1", self.port)], "user", "sesame", "test")

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        parser = Parser()
        with suppress(OSError), connection:
            while data := connection.recv(65536):
                for frame in parser.feed(data):
                    if not isinstance(frame, Frame):
                        continue
                    answer = self.answer(frame)
                    if answer is None:
                        return
                    connection.sendall(answer)


def receipt(frame: Frame) -> bytes:
    """What a broker that likes everything answers."""
    if frame.command == "CONNECT":
        return CONNECTED
    return (
        encode(Frame("RECEIPT", {"receipt-id": frame.headers["receipt"]}))
        if "receipt" in frame.headers
        else b""
    )
