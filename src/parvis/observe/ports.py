"""The port that one of several processes on a machine serves something at."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeVar

from parvis.config import ConfigError

#: How many ports are tried, from the one asked for.
PORTS: Final = 100

T = TypeVar("T")


def at_free_port(what: str, address: str, port: int, serve: Callable[[int], T]) -> T:
    """Serve at `port` or the next of a hundred that is free; at any free one if it is 0.

    Args:
        what: What is served, in the plural, to name in errors.
        address: Where.
        port: The first port to try.
        serve: Serves at exactly the port that it is given, or raises `OSError`.

    Returns:
        What `serve` returned.

    Raises:
        ConfigError: None is free, or there is no such address here.
    """
    ports = range(port, min(port + PORTS, 65536)) if port else range(1)
    for candidate in ports:
        try:
            return serve(candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # another instance on this machine has it
                raise ConfigError(f"{what} cannot be served at {address}:{candidate}: {error}") from None
    raise ConfigError(f"{what} cannot be served: no port from {ports[0]} to {ports[-1]} is free")


def web_address(address: str, port: int) -> str:
    """The beginning of an address of the web, such as `http://127.0.0.1:8000`."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
