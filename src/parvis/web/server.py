"""Serves the web page: a socket, perhaps TLS, and an end in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from parvis.config import Config, ConfigError
from parvis.web.app import make_app
from parvis.web.settings import WebSettings
from parvis.web.site import Site
from parvis.web.sources import Sources


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how to serve.

    Attributes:
        host: Address to listen at.
        port: Port; 0 for any free one.
        names: What else a browser may call this server.
        certificate, key: Files for TLS, or None for none.
        proxy: Address of a proxy that is believed who asks, and that speaks TLS with browsers; or None.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    names: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None


class CannotListen(Exception):
    """There is no listening at that address."""


class _Server(uvicorn.Server):
    """Ends at once when it is told to, though browsers watch."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._site.live.close)


def serve(config: Config, settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Serve the web page until SIGINT or SIGTERM.

    Args:
        config: Which broker, records and database.
        settings: Where.
        ready: Is told the address of the page.

    Raises:
        ConfigError: The configuration is no good.
        CannotListen: The address is none of this machine, or taken.
    """
    web = WebSettings.of(config)
    site = Site(Sources(config), web)
    secure = settings.certificate is not None or settings.proxy is not None
    with _listen(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        app = make_app(site, web, _names(settings, port), secure=secure)
        server = _Server(_uvicorn_config(app, settings), site)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn hands them on at the end
            signal.signal(number, _nothing)
        scheme = "https" if settings.certificate is not None else "http"
        ready(f"{scheme}://{_bracketed(settings.host)}:{port}/")
        server.run(sockets=[listener])


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What uvicorn has dealt with needs nothing more."""


def _uvicorn_config(app: object, settings: ServerSettings) -> uvicorn.Config:
    try:
        made = uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType] - the same protocol under another name
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.proxy is not None,
            forwarded_allow_ips=settings.proxy,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            timeout_graceful_shutdown=3,
            limit_concurrency=1000,
        )
        made.load()
    except OSError as error:
        raise ConfigError(f"the certificate or its key cannot be used: {error.strerror or error}") from None
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return made


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise CannotListen(f"cannot listen at {_bracketed(host)}:{port}: {error.strerror}") from None


def _names(settings: ServerSettings, port: int) -> list[str]:
    """What a browser may call this server; other names may be those that a hostile site gave its address."""
    own = socket.gethostname()
    names = {"localhost", "127.0.0.1", "[::1]", own, socket.getfqdn(own), _bracketed(settings.host)}
    names |= set(settings.names)
    names -= {"0.0.0.0", "[::]"}  # noqa: S104 - not listened at, but left out
    return sorted(names | {f"{name}:{port}" for name in names})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
