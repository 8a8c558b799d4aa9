"""Connecting to a STOMP 1.2 broker and logging in."""

from __future__ import annotations

import math
import socket
import ssl
from dataclasses import dataclass, field
from typing import Final

from parvis.transport.base import BrokerRefused, Disconnected
from parvis.transport.dial import TLS_ALERT, dialled, wants_tls
from parvis.transport.stomp_connection import Connection, error_text
from parvis.transport.stomp_frames import Frame, Parser, ProtocolError, encode

_LOGIN_TIMEOUT: Final = 10.0  # seconds for each step
_LARGEST_HEAD: Final = 16 * 1024 * 1024
_MOST_HEADERS: Final = 10_000
_PUBLIC: Final = "password"  # the default of brokers and of ours: no secret, and a word of their refusals


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are and how we connect; as the arguments of `StompTransport`."""

    username: str
    password: str = field(repr=False)
    heartbeat: float
    tls: ssl.SSLContext | None

    def connect(self, host: str, port: int) -> Connection:
        """Connect to a broker and log in.

        Raises:
            Disconnected: Nobody answers.
            BrokerRefused: There is no such host; or the broker does not let us in, cannot prove who it is, or
                is no STOMP 1.2 broker.
        """
        broker = f"{host}:{port}"
        with dialled(host, port, self.tls, _LOGIN_TIMEOUT) as sock:
            # Wide limits: a broker may pass on what another broker, with limits of its own, has accepted.
            parser = Parser(max_head=_LARGEST_HEAD, max_headers=_MOST_HEADERS)
            beat = round(self.heartbeat * 1000)
            headers = {"accept-version": "1.2", "host": host, "heart-beat": f"{beat},{beat}"}
            headers |= {"login": self.username, "passcode": self.password} if self.username else {}
            try:
                sock.sendall(encode(Frame("CONNECT", headers)))
                answer = _first_frame(sock, parser, broker, encrypted=self.tls is not None)
            except ProtocolError as error:
                raise BrokerRefused(f"{broker} does not speak STOMP as expected: {error}") from None
            self._check(answer, broker)
            send_every, silent_after = _rhythm(beat, answer.headers.get("heart-beat", "0,0"))
            sock.setblocking(False)
            return Connection(
                sock,
                parser,
                broker=broker,
                server=answer.headers.get("server", "a STOMP broker"),
                send_every=send_every,
                silent_after=silent_after,
            )

    def _check(self, answer: Frame, broker: str) -> None:
        """Raise BrokerRefused unless we are let in."""
        if answer.command != "CONNECTED":
            text = _without(self.password, error_text(answer))
            raise BrokerRefused(f"{broker} refused the log-in: {text}")
        version = answer.headers.get("version", "1.0")
        if version != "1.2":
            raise BrokerRefused(f"{broker} speaks STOMP {version}, needed is 1.2")


def _first_frame(sock: socket.socket, parser: Parser, broker: str, *, encrypted: bool) -> Frame:
    while True:
        data = sock.recv(4096)
        if not data:
            hint = "" if encrypted else " (does it want TLS?)"
            raise Disconnected(f"{broker} closed the connection during the log-in{hint}")
        if data.startswith(TLS_ALERT) and not encrypted:
            raise BrokerRefused(wants_tls(broker))
        for item in parser.feed(data):
            if isinstance(item, Frame):
                return item


def _rhythm(beat: int, answer: str) -> tuple[float, float]:
    """Seconds after which we must send, and after which a silent broker is gone; infinite for never.

    `beat` is what we offered and asked for, in ms; `answer` is the header with what the broker offers and
    wants. We send twice as often as agreed, and wait for more than two beats: networks and brokers dawdle.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in answer.split(",")]
    offers, wants = (*numbers, 0, 0)[:2]
    send_every = max(beat, wants) / 2000 if beat and wants else math.inf
    silent_after = max(beat, offers) / 1000 * 2 + 1 if beat and offers else math.inf
    return send_every, silent_after


def _without(password: str, text: str) -> str:
    return text.replace(password, "***") if password not in ("", _PUBLIC) else text
