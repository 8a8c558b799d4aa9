"""Links to objects that need no login: where one leads, until when it is good, and fetching what is there.

Whoever has a link has the object: what is signed in it is repeated in no error.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from calendar import timegm
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from parvis_services.stores.profiles import S3Profile, is_this_machine, profiles
from parvis_services.stores.store import (
    CHECKSUM,
    LARGEST_OBJECT,
    AccessDenied,
    DamagedObject,
    NoSuchObject,
    StoreError,
)

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PIECE: Final = 1 << 20
_LONGEST: Final = 4096
_PORTS: Final = {"http": 80, "https": 443}
_MOST_DIGITS: Final = 11  # of seconds: what has more is no moment that a calendar has
_DATE: Final = "%Y%m%dT%H%M%SZ"


class BadLink(ValueError):
    """Something is no link to an object, or not one to follow."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to an object.

    Attributes:
        text: All of it.
        shown: What may be shown of it: without what is signed.
        ends: When it ends to be good, seconds since 1970; None if it does not say.
    """

    text: str = field(repr=False)
    shown: str
    ends: float | None

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read a link.

        Raises:
            BadLink: It is none; what is wrong is told without repeating it.
        """
        parts = _split(text)
        if parts is None:
            raise BadLink("this is no link to an object: https://HOST/BUCKET/KEY?...")
        if parts.username is not None or parts.password is not None:
            raise BadLink("a link to an object holds no login")
        return cls(text, f"{parts.scheme}://{parts.netloc}{parts.path}", _end_of(parts.query))

    @property
    def place(self) -> tuple[str, str, int]:
        """How to get there: scheme, host and port."""
        return _place(urlsplit(self.text))


def is_link(text: str) -> bool:
    """Whether a text is meant to be a link, not an address in a store of the configuration."""
    return text.lower().startswith(("http://", "https://"))


def fetch_link(
    link: Link, storage: Mapping[str, Any], moved: Callable[[int, int | None], None]
) -> tuple[bytes, bool]:
    """Fetch what a link leads to.

    Certificates are checked, for the endpoint of a store as the configuration says. Plain http is taken to
    this machine, and to an endpoint that the configuration wants it for. Nowhere else is gone to than where
    the link leads: what sends on is refused.

    Args:
        link: The link.
        storage: The `storage` of the configuration.
        moved: Called with how many bytes have come, and how many there will be, if that is known.

    Returns:
        The content, and whether there was a SHA-256 with it to compare.

    Raises:
        BadLink: It leads over plain http to another machine.
        AccessDenied: The link has expired, or is not one (any more) that the store takes.
        NoSuchObject: The object is not there (any more).
        DamagedObject: What came is not what was stored.
        StoreUnavailable: The store cannot be reached, or does not answer in time.
        StoreError: It is larger than `LARGEST_OBJECT`, or the store refused it for another reason.
        StoreNotConfigured: What the configuration says of a store cannot be.
    """
    from parvis_services.stores.s3_errors import told
    from parvis_services.stores.s3_http import connection_pool

    pool = connection_pool(_tls(link, storage))
    try:
        with told(link.shown):
            response = pool.urlopen(
                "GET", link.text, redirect=False, preload_content=False, decode_content=False
            )
            with closing(response):
                if response.status != 200:
                    raise _refused(link, response.status)
                data = _read(link, response, moved)
    finally:
        pool.clear()
    expected = response.headers.get(f"x-amz-meta-{CHECKSUM}")
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise DamagedObject(link.shown, "its SHA-256 is not that of what was stored")
    return data, bool(expected)


def _read(link: Link, response: BaseHTTPResponse, moved: Callable[[int, int | None], None]) -> bytes:
    told = response.headers.get("content-length", "")
    total = int(told) if told.isdecimal() else None
    data = bytearray()
    # The size is what a stranger says: what comes is counted, too.
    while (total or 0) <= LARGEST_OBJECT and len(data) <= LARGEST_OBJECT:
        moved(len(data), total)
        piece = response.read(_PIECE)
        if not piece:
            return bytes(data)
        data += piece
    raise StoreError(link.shown, f"it has more than {LARGEST_OBJECT} bytes")


def _refused(link: Link, status: int) -> StoreError:
    from parvis_services.stores.s3_errors import error_of

    if status == 403:
        if link.ends is not None and link.ends <= time.time():
            over = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(link.ends))
            return AccessDenied(link.shown, f"the link has expired, at {over} (403): ask for a new one")
        return AccessDenied(
            link.shown,
            "the store does not take the link (403): it is not whole, was made by somebody who may not fetch "
            "the object, or has expired by the clock of the store; ask for a new one",
        )
    if status == 404:
        return NoSuchObject(
            link.shown, "the object is gone (404): it has expired and was deleted, or never was"
        )
    if 300 <= status < 400:
        return StoreError(link.shown, f"it sends on to somewhere else ({status}), and that is not followed")
    return error_of(link.shown, status, "")


def _tls(link: Link, storage: Mapping[str, Any]) -> ssl.SSLContext | None:
    """What certificates to trust; None for plain http where that is allowed."""
    from parvis_services.stores.s3_http import tls_context

    scheme, host, _ = link.place
    for name, profile in profiles(storage).items():
        if isinstance(profile, S3Profile) and _place(urlsplit(profile.endpoint)) == link.place:
            return tls_context(name, profile) if scheme == "https" else None
    if scheme == "http":
        if not is_this_machine(host):
            raise BadLink(
                f"{link.shown}: to another machine it must be https: over plain http anybody on the way can "
                "read the link and change the image; if that is wanted, add the store to parvis.stores with "
                "insecure: true"
            )
        return None
    return ssl.create_default_context()


def _place(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _split(text: str) -> SplitResult | None:
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in _PORTS and parts.hostname and parts.path.strip("/") and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def _end_of(query: str) -> float | None:
    """When a link ends to be good, by what it says: `X-Amz-Date` and `X-Amz-Expires`, or `Expires`."""
    said = {name.lower(): values[0] for name, values in parse_qs(query).items()}
    try:
        if "x-amz-date" in said:
            begun = timegm(time.strptime(said["x-amz-date"], _DATE))
            return begun + _seconds(said["x-amz-expires"])
        return _seconds(said["expires"])
    except (KeyError, ValueError):
        return None


def _seconds(text: str) -> float:
    if len(text) > _MOST_DIGITS or not text.isdecimal():
        raise ValueError("no number of seconds")
    return float(text)
