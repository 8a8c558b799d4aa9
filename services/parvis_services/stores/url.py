"""Addresses of objects: `s3://PROFILE/BUCKET/KEY`, `dir://PROFILE/BUCKET/KEY`.

A profile is a name under `parvis.stores` of the site's configuration. Only there it says where the store is
and who may use it: an address holds no secret, and can be put into messages and logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

Scheme = Literal["s3", "dir"]

_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}", re.ASCII)
# A key becomes a path in a directory store: letters, digits and the few signs that keys in the field use.
_KEY: Final = re.compile(r"[A-Za-z0-9_.=+\-]+(?:/[A-Za-z0-9_.=+\-]+)*", re.ASCII)
_LONGEST_KEY: Final = 900


class BadUrl(ValueError):
    """Something is no address of an object."""


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The address of an object, or of all objects whose keys begin alike.

    Attributes:
        scheme: Kind of the store: `s3`, or `dir` for a directory.
        profile: Name of the store in the site's configuration.
        bucket: Name of the bucket.
        key: Key of the object, without a slash in front; may be empty for a whole bucket.
    """

    scheme: Scheme
    profile: str
    bucket: str
    key: str = ""

    def __post_init__(self) -> None:
        if not _PROFILE.fullmatch(self.profile):
            raise BadUrl(f"{self.profile[:80]!r} cannot be the name of a store")
        check_bucket(self.bucket)
        if self.key:
            check_key(self.key)

    @classmethod
    def parse(cls, text: str) -> ObjectUrl:
        """Read an address.

        Raises:
            BadUrl: It is none, or holds a login; the login is not part of the error's text.
        """
        scheme, mark, rest = text.partition("://")
        if not mark or scheme not in {"s3", "dir"}:
            raise BadUrl(f"{scheme[:40]!r} begins no address of an object: s3://STORE/BUCKET/KEY")
        profile, _, path = rest.partition("/")
        # Some secrets hold slashes: then the sign that ends a login stands behind what looks like a host.
        if "@" in rest or ":" in profile:
            raise BadUrl("an address of an object names a store of the configuration, and never a login")
        bucket, _, key = path.partition("/")
        return cls(cast("Scheme", scheme), profile, bucket, key.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.profile}/{self.bucket}" + (f"/{self.key}" if self.key else "")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def sibling(self, name: str) -> ObjectUrl:
        """The address of an object with the same key but for its last part, which is `name`."""
        directory, slash, _ = self.key.rpartition("/")
        return replace(self, key=f"{directory}{slash}{name}")


def is_object_url(text: str) -> bool:
    """Whether a text is meant to be the address of an object, not the path of a file."""
    return text.startswith(("s3://", "dir://"))


def check_bucket(name: str) -> str:
    """Return `name` if it can name a bucket. Raises BadUrl if not."""
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise BadUrl(f"{name[:80]!r} cannot name a bucket: small letters, digits, '.' and '-', at most 63")
    return name


def check_key(key: str) -> str:
    """Return `key` if it can be the key of an object. Raises BadUrl if not."""
    fits = len(key) <= _LONGEST_KEY and _KEY.fullmatch(key)
    if not fits or any(set(part) <= {"."} for part in key.split("/")):
        raise BadUrl(
            f"{key[:80]!r} cannot be the key of an object: letters, digits and '_.=+-' between single slashes"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys can begin with it. Raises BadUrl if not."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
