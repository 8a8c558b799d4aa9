"""Addresses of streams: `tcp://HOST:PORT`, `ipc://PATH`, each perhaps with `sub+` in front, and `ring://NAME`."""

from __future__ import annotations

import re
from typing import Final

RING: Final = "ring://"
PUBLISHED: Final = "sub+"

_RING_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_TCP = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII)
_IPC = re.compile(r"ipc:///[^\0]{1,100}|ipc://@[^\0]{1,100}")


def check_address(address: str) -> str:
    """Return `address` if a stream can be taken from it.

    Raises:
        ValueError: It is none. The text says what one is like.
    """
    if address.startswith(RING):
        check_ring_name(address.removeprefix(RING))
        return address
    bare = address.removeprefix(PUBLISHED)
    if found := _TCP.fullmatch(bare):
        if not 0 < int(found["port"]) < 65536:
            raise ValueError(f"{address!r}: a port is a number from 1 to 65535")
        return address
    if _IPC.fullmatch(bare):
        return address
    raise ValueError(
        f"{address[:80]!r} is no address of a stream: tcp://HOST:PORT, ipc:///PATH, sub+tcp://HOST:PORT, "
        "or ring://NAME"
    )


def check_ring_name(name: str) -> str:
    """Return `name` if it can name a ring. Raises ValueError if not."""
    if not _RING_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} cannot name a ring: letters, digits and '_.-', at most 63")
    return name
