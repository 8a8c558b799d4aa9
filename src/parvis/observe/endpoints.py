"""Liveness and readiness of a running service, for Kubernetes and whoever else looks after processes.

Alive is a host whose loop turns, or that handles a message for no longer than it may; one that waits for a
broker that is away is alive, too, as a new start would not bring the broker back. Ready is one that is
connected, has subscribed, and was not told to stop. Nothing is looked at until somebody asks.
"""

from __future__ import annotations

import contextlib
import http.server
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from parvis.observe.ports import at_free_port, web_address
from parvis.service.handling import limit_of
from parvis.service.observer import Observer, Pulse
from parvis.service.time_limit import grace

if TYPE_CHECKING:
    from parvis.observe.liveness_settings import LivenessSettings
    from parvis.service.base import AnyService
    from parvis.transport.base import Message, Transport

_log = logging.getLogger("parvis.liveness")

_ALIVE: Final = ("/healthz", "/livez", "/")  # the last is what those ask who know the endpoint of `workflows`
_READY: Final = ("/readyz",)
_PATIENCE: Final = 5.0  # seconds for a request to come in whole


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether all is well, and in a few words what is the matter."""

    good: bool
    text: str


def start_endpoints(settings: LivenessSettings) -> Endpoints:
    """Serve the endpoints, and return what knows the answers.

    Raises:
        ConfigError: No port is free, or there is no such address.
    """
    endpoints = Endpoints(settings.timeout)
    endpoints.serve(settings.port, settings.address)
    return endpoints


class Endpoints(Observer):
    """Knows whether the host that it observes is alive and ready, and says so over HTTP.

    Args:
        timeout: Seconds after which a loop that does not turn is stuck, and so is the handling of a message
            for which neither its service nor its recipe node sets a limit.

    Attributes:
        port: Where it is served, or None.
    """

    def __init__(self, timeout: float) -> None:
        self.port: int | None = None
        self._timeout = timeout
        self._pulse: Pulse | None = None
        self._transport: Transport | None = None
        self._close: Callable[[], None] | None = None
        self._work: tuple[AnyService, Sequence[Message], float] | None = None
        self._handling = _Handling(self)

    def serve(self, port: int, address: str) -> None:
        """Serve at `port` or the next of a hundred that is free; at any free one if it is 0.

        Raises:
            ConfigError: None is free, or there is no such address here.
        """
        self.port, self._close = at_free_port(
            "liveness and readiness",
            address,
            port,
            lambda candidate: _serve(self._answer, candidate, address),
        )
        where = web_address(address, self.port)
        _log.info("liveness at %s%s, readiness at %s%s", where, _ALIVE[0], where, _READY[0])

    def alive(self) -> Answer:
        """Whether the host goes on. Any thread may ask."""
        pulse, work = self._pulse, self._work
        turned = pulse.last_turn() if pulse is not None else None
        if turned is None:
            return Answer(True, "starting")
        if work is not None:
            return self._at_work(*work)
        idle = time.monotonic() - turned
        if idle <= self._timeout:
            return Answer(True, "running")
        if self._transport is None or not self._transport.is_connected:
            return Answer(True, "waiting for the broker")
        return Answer(False, f"stuck: nothing has happened for {idle:.0f} s (limit {self._timeout:g} s)")

    def ready(self) -> Answer:
        """Whether the host takes messages. Any thread may ask."""
        pulse = self._pulse
        if pulse is None or pulse.last_turn() is None:
            return Answer(False, "starting")
        if pulse.is_stopping:
            return Answer(False, "stopping")
        if self._transport is None or not self._transport.is_connected:
            return Answer(False, "no connection to the broker")
        return Answer(True, "taking messages")

    def pulse(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:  # noqa: ARG002
        self._transport = transport

    def handling(
        self, service: AnyService, messages: Sequence[Message]
    ) -> contextlib.AbstractContextManager[None]:
        self._work = (service, messages, time.monotonic())
        return self._handling

    def at_rest(self) -> None:
        """No message is being handled any more."""
        self._work = None

    def stopped(self) -> None:
        if self._close is not None:
            self._close()

    def card(self) -> Mapping[str, Any]:
        return {"liveness": self.port}

    def _at_work(self, service: AnyService, messages: Sequence[Message], begun: float) -> Answer:
        seconds = time.monotonic() - begun
        if seconds <= self._timeout:
            return Answer(True, f"handling for {seconds:.1f} s")
        limits = [limit for message in messages if (limit := limit_of(service, message)) is not None]
        if len(limits) < len(messages):
            most = max([self._timeout, *limits])
        else:
            # What takes too long in a batch is handled again one by one.
            tries = 1 if len(messages) == 1 else 1 + len(messages)
            most = tries * max(limits) + grace(max(limits)) + self._timeout
        text = f"{service.name} is handling for {seconds:.0f} s (limit {most:g} s)"
        return Answer(True, text) if seconds <= most else Answer(False, f"stuck: {text}")

    def _answer(self, path: str) -> Answer | None:
        path = path.partition("?")[0]
        if path in _ALIVE:
            return self.alive()
        return self.ready() if path in _READY else None


class _Handling(contextlib.AbstractContextManager[None]):
    """Entered around each handling. One for all, as it keeps nothing of its own."""

    __slots__ = ("_endpoints",)

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def __exit__(self, *_: object) -> None:
        self._endpoints.at_rest()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """An HTTP server that knows nothing of names: looking ours up may take seconds where there is no DNS."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, port: int, answer: Callable[[str], Answer | None]) -> None:
        self.answer = answer
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.debug("a request from %s came to nothing", client_address, exc_info=True)


class _Request(http.server.BaseHTTPRequestHandler):
    """One request."""

    timeout = _PATIENCE
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        answer = self.server.answer(self.path)
        if answer is None:
            self._send(404, f"There are {_ALIVE[0]} and {_READY[0]}.")
        else:
            self._send(200 if answer.good else 503, answer.text)

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

    def version_string(self) -> str:
        return "parvis"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        _log.debug(format, *args)

    def _send(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _serve(answer: Callable[[str], Answer | None], port: int, address: str) -> tuple[int, Callable[[], None]]:
    """Serve at exactly this port, or at any if it is 0; return which, and what ends it."""
    server = _Server(address, port, answer)
    thread = threading.Thread(target=server.serve_forever, name="liveness", daemon=True, args=(0.1,))
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_address[1], close
