"""What an image store can do for us, and the words for it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from parvis_services.stores.url import ObjectUrl, Scheme

Bytes = bytes | bytearray | memoryview

#: Name of the metadata in which a store keeps the SHA-256 of the content.
CHECKSUM: Final = "sha256"

#: Bytes of the largest object that is fetched whole, more than any image has.
LARGEST_OBJECT: Final = 1 << 28

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_TEXT: Final = re.compile(r"([!-~]([ -~]*[!-~])?)?", re.ASCII)
_MOST_METADATA: Final = 1500  # bytes; S3 takes 2 kB


class StoreError(Exception):
    """A store did not do what it was asked. `url` is what it was about, `reason` what was wrong."""

    def __init__(self, url: ObjectUrl | str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = str(url)
        self.reason = reason


class NoSuchObject(StoreError):
    """There is no object of that key, or no such bucket: not written yet, or expired."""


class ObjectExists(StoreError):
    """There is an object of that key, and what is stored is never overwritten."""


class AccessDenied(StoreError):
    """The credentials of this store do not allow it, or a link has expired (403)."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or cannot serve us now: to try again may help."""


class StoreFull(StoreError):
    """There is no more room, or the quota is used up."""


class DamagedObject(StoreError):
    """What was fetched is not what was stored: its checksum does not fit."""


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise ValueError unless every store can keep these with an object."""
    for name, text in metadata.items():
        if not _NAME.fullmatch(name) or name == CHECKSUM:
            raise ValueError(
                f"{name[:80]!r} cannot name metadata: small letters, digits, '-'; not {CHECKSUM!r}"
            )
        if not _TEXT.fullmatch(text):
            raise ValueError(f"the metadata {name!r} must be printable ASCII without spaces at its ends")
    if sum(len(name) + len(text) for name, text in metadata.items()) > _MOST_METADATA:
        raise ValueError(f"there is more than {_MOST_METADATA} bytes of metadata")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
        key: Its key.
        size: Bytes.
        etag: What the store calls this content: another content has another one.
        modified: When it was stored, seconds since 1970.
        metadata: What was stored with it, names in small letters, and the `sha256` of the content in
            hexadecimal digits, which the store adds; empty in a listing.
    """

    key: str
    size: int
    etag: str
    modified: float
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object and what the store says of it."""

    info: ObjectInfo
    data: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """How many bytes and objects are stored; `capacity`: the room there is in all, if the store says so."""

    used: int
    objects: int
    capacity: int | None = None


class ImageStore(ABC):
    """Objects by bucket and key. Methods may be called from any thread.

    Every method raises `AccessDenied` if the credentials do not allow what is asked, `StoreUnavailable` if
    the store does not answer in time, and `BadUrl` for what cannot be a bucket or a key.

    Attributes:
        profile: Name of the store in the configuration.
    """

    scheme: ClassVar[Scheme]
    profile: str

    def url(self, bucket: str, key: str = "") -> ObjectUrl:
        """The address of an object here."""
        return ObjectUrl(self.scheme, self.profile, bucket, key)

    @abstractmethod
    def put(
        self,
        bucket: str,
        key: str,
        data: Bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> ObjectInfo:
        """Store an object; when this returns it is there, whole, and the store has checked its SHA-256.

        Args:
            bucket, key: Where.
            data: The content.
            metadata: What to keep with it, as `check_metadata` wants it.
            replace: Whether to overwrite what is there.

        Raises:
            ObjectExists: There is one, and `replace` was not asked for. Check and writing are one step.
            NoSuchObject: There is no such bucket.
            StoreFull: There is no room.
        """

    @abstractmethod
    def get(self, bucket: str, key: str) -> StoredObject:
        """Fetch an object, and check its SHA-256. Raises NoSuchObject, DamagedObject.

        Raises StoreError, before there is memory for it, if it is larger than `LARGEST_OBJECT`.
        """

    @abstractmethod
    def get_range(self, bucket: str, key: str, start: int, length: int) -> bytes:
        """Fetch `length` bytes from `start` on, fewer if it ends before, unchecked. Raises NoSuchObject."""

    @abstractmethod
    def list_after(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[ObjectInfo]:
        """List objects in the order of their keys, at most 1000.

        Args:
            bucket: Which bucket.
            prefix: Only keys that begin with it.
            after: Only keys behind this one.
            limit: How many at most.

        Raises:
            NoSuchObject: There is no such bucket.
        """

    def list_all(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Yield what `list_after` gives, page after page."""
        while page := self.list_after(bucket, prefix, after):
            yield from page
            after = page[-1].key

    @abstractmethod
    def stat(self, bucket: str, key: str) -> ObjectInfo:
        """What the store says of an object. Raises NoSuchObject."""

    @abstractmethod
    def delete(self, bucket: str, keys: list[str]) -> None:
        """Delete objects, and do not mind if they are not there. Raises NoSuchObject if the bucket is not."""

    @abstractmethod
    def expire(self, bucket: str, days: int, prefix: str = "") -> None:
        """Have the store itself delete what is older than `days`, whoever else is alive (a lifecycle rule).

        Rules for other prefixes stay as they are.

        Raises:
            StoreError: This store deletes nothing by itself.
        """

    @abstractmethod
    def presign(self, bucket: str, key: str, seconds: int) -> str:
        """Return a link that fetches an object without credentials for so long; nothing secret is in it.

        Raises:
            StoreError: This store has no such links.
        """

    @abstractmethod
    def buckets(self) -> list[str]:
        """Names of the buckets that there are, in order."""

    @abstractmethod
    def make_bucket(self, bucket: str) -> bool:
        """Make a bucket; return False if it was there."""

    @abstractmethod
    def remove_bucket(self, bucket: str) -> None:
        """Remove a bucket. Raises NoSuchObject, and StoreError if it is not empty."""

    @abstractmethod
    def usage(self, bucket: str, prefix: str = "") -> Usage:
        """How much is stored there; may take a while where many objects are."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""
