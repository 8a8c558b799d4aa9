"""Transports of a test, connected."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

from parvis.transport.base import Transport

P = ParamSpec("P")
T = TypeVar("T", bound=Transport)


@contextmanager
def connecting(make: Callable[P, T]) -> Generator[Callable[P, T]]:
    """Give what makes a transport and connects it; all are disconnected at the end."""
    with ExitStack() as stack:

        def connect(*args: P.args, **options: P.kwargs) -> T:
            transport = make(*args, **options)
            transport.connect(10)
            stack.callback(transport.disconnect)
            return transport

        yield connect
