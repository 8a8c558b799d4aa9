"""Connecting to an AMQP 0-9-1 broker and logging in."""

from __future__ import annotations

import math
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pika import spec

from parvis.transport.amqp_connection import Connection
from parvis.transport.amqp_frames import PROTOCOL_HEADER, Item, Splitter, method
from parvis.transport.base import BrokerRefused, Disconnected
from parvis.transport.dial import TLS_ALERT, dialled, wants_tls
from parvis.transport.wire import ProtocolError

_LOGIN_TIMEOUT: Final = 10.0
_LARGEST_FRAME: Final = 131_072
_LARGEST_UNASKED: Final = 1_048_576  # of a frame before anything was agreed
_DENIED: Final = 403
_NO_VHOST: Final = 530

_CAPABILITIES: Final = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are and how we connect; as the arguments of `AmqpTransport`."""

    username: str
    password: str = field(repr=False)
    vhost: str
    heartbeat: float
    tls: ssl.SSLContext | None

    def connect(self, host: str, port: int) -> Connection:
        """Connect to a broker and log in.

        Raises:
            Disconnected: Nobody answers.
            BrokerRefused: There is no such host; or the broker does not let us in, cannot prove who it is, or
                is no AMQP 0-9-1 broker.
        """
        broker = f"{host}:{port}"
        with dialled(host, port, self.tls, _LOGIN_TIMEOUT) as sock:
            try:
                return self._shake_hands(_Dialogue(sock, broker, encrypted=self.tls is not None))
            except ProtocolError as error:
                raise BrokerRefused(f"{broker} does not speak AMQP 0-9-1: {error}") from None

    def _shake_hands(self, dialogue: _Dialogue) -> Connection:
        dialogue.sock.sendall(PROTOCOL_HEADER)
        start = dialogue.expect(spec.Connection.Start)
        dialogue.say(
            spec.Connection.StartOk(
                client_properties={
                    "product": "parvis",
                    "connection_name": f"parvis {socket.gethostname()}.{os.getpid()}",
                    "capabilities": _CAPABILITIES,
                },
                mechanism="PLAIN",
                response=f"\0{self.username}\0{self.password}",
                locale="en_US",
            )
        )
        tune = dialogue.expect(spec.Connection.Tune, self._refusal)
        frame_max = min(tune.frame_max or _LARGEST_FRAME, _LARGEST_FRAME)
        beat = math.ceil(min(self.heartbeat, tune.heartbeat or self.heartbeat))
        dialogue.say(spec.Connection.TuneOk(tune.channel_max, frame_max, beat))
        dialogue.say(spec.Connection.Open(self.vhost))
        dialogue.expect(spec.Connection.OpenOk, self._refusal)
        dialogue.sock.setblocking(False)
        properties: dict[str, Any] = start.server_properties or {}
        return Connection(
            dialogue.sock,
            broker=dialogue.broker,
            server=f"{properties.get('product', 'an AMQP broker')} {properties.get('version', '')}".strip(),
            frame_max=frame_max,
            channel_max=tune.channel_max or 65_535,
            send_every=beat / 2 if beat else math.inf,
            silent_after=2 * beat + 1 if beat else math.inf,
        )

    def _refusal(self, close: Any) -> str:
        """Why the broker closes the connection, for people."""
        if close.reply_code == _DENIED:
            return f"refused the log-in of {self.username!r}: wrong user name or password"
        if close.reply_code == _NO_VHOST:
            return f"does not let {self.username!r} into the virtual host {self.vhost!r}: {close.reply_text}"
        return f"refused the log-in: {close.reply_code} {close.reply_text}"


class _Dialogue:
    """Question and answer on a socket that blocks."""

    def __init__(self, sock: socket.socket, broker: str, *, encrypted: bool) -> None:
        self.sock = sock
        self.broker = broker
        self._encrypted = encrypted
        self._items = self._read()

    def say(self, one: Any) -> None:
        self.sock.sendall(method(0, one))

    def expect(self, kind: type[Any], refusal: Any = None) -> Any:
        """Return the next method, which must be of this kind, unless the broker says why it leaves."""
        for item in self._items:
            if isinstance(item, kind):
                return item
            if isinstance(item, spec.Connection.Close) and refusal:
                self.say(spec.Connection.CloseOk())
                raise BrokerRefused(f"{self.broker} {refusal(item)}")
            raise ProtocolError(f"{type(item).__name__} where {kind.__name__} should be")
        raise AssertionError("reading does not end")

    def _read(self) -> Iterator[Item]:
        splitter, heard = Splitter(_LARGEST_UNASKED), False
        deadline = time.monotonic() + _LOGIN_TIMEOUT
        while True:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.sock.recv(4096)
            if not data:
                hint = (
                    ""
                    if heard
                    else " (is it AMQP?)"
                    if self._encrypted
                    else " (is it AMQP? does it want TLS?)"
                )
                raise Disconnected(f"{self.broker} closed the connection during the log-in{hint}")
            if not heard and data.startswith(TLS_ALERT) and not self._encrypted:
                raise BrokerRefused(wants_tls(self.broker))
            if not heard and data.startswith(b"AMQP"):
                raise ProtocolError(f"it speaks another version, {data[4:8].hex(' ')}")
            heard = True
            for _channel, item in splitter.feed(data):
                yield item
