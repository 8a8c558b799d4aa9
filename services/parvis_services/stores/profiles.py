"""The stores of a site: the key `parvis.stores` of its configuration, and opening one by name and role."""

from __future__ import annotations

import ipaddress
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator, model_validator

if TYPE_CHECKING:
    from parvis_services.stores.store import ImageStore
    from parvis_services.stores.url import ObjectUrl, Scheme

KEY: Final = "parvis.stores"

Role = Literal["read", "write", "manage"]
"""What somebody needs to do: fetch and list; put, and make buckets; or all of it, deleting too."""

ROLES: Final[tuple[Role, ...]] = ("read", "write", "manage")

_LARGEST_SECRET: Final = 1024
_STRICT: Final = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StoreNotConfigured(ValueError):
    """The configuration has no such store, or no such role of it, or says something of it that cannot be."""


class Login(BaseModel):
    """Who to be for a role. The secret stands in the configuration or in a file of its own.

    Attributes:
        access_key: The name, which is no secret.
        secret_key: The secret.
        secret_file: A file with nothing but the secret in it, that not everybody may read.
    """

    model_config = _STRICT

    access_key: str
    secret_key: SecretStr | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.secret_key is None) == (self.secret_file is None):
            raise ValueError("give either secret_key or secret_file")
        return self

    def secret(self) -> str:
        """The secret, read now. Raises StoreNotConfigured if the file cannot be used."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value()
        return _read_secret(cast("Path", self.secret_file).expanduser())


class S3Profile(BaseModel):
    """A store that speaks S3.

    Attributes:
        endpoint: `https://HOST[:PORT]`; plain `http` to this machine alone, unless `insecure` is true.
        region: As the store calls it.
        ca_file: Certificates of the authorities to trust, if not those of the machine.
        insecure: Whether plain `http` to another machine is wanted: others can read and change images.
        read, write, manage: Who to be for each role.
    """

    model_config = _STRICT

    endpoint: str
    region: str = "us-east-1"
    ca_file: Path | None = None
    insecure: bool = False
    read: Login | None = None
    write: Login | None = None
    manage: Login | None = None

    @field_validator("endpoint")
    @classmethod
    def _plain_endpoint(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            good, parts = False, urlsplit("")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no login: that belongs under read, write or manage")
        if not good or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must be https://HOST:PORT")
        return f"{parts.scheme}://{parts.netloc}"

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "http" and not self.insecure and not is_this_machine(parts.hostname or ""):
            raise ValueError(
                "endpoint: to another machine it must be https, unless insecure is true: over plain http "
                "anybody on the way can read and change images"
            )
        if self.ca_file is not None and parts.scheme == "http":
            raise ValueError("ca_file: there are no certificates to check over plain http")
        return self


class DirectoryProfile(BaseModel):
    """A store in a directory, which must be there; who may do what there is a matter of its permissions."""

    model_config = _STRICT

    directory: Path

    @field_validator("directory")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.expanduser().is_absolute():
            raise ValueError("must be an absolute path")
        return value.expanduser()


Profile = S3Profile | DirectoryProfile


def names_of(storage: Mapping[str, Any]) -> list[str]:
    """The names of the stores of a configuration. Raises StoreNotConfigured if the key holds no mapping."""
    return list(_configured(storage))


def profiles(storage: Mapping[str, Any]) -> dict[str, Profile]:
    """All stores of a configuration, by name. Raises StoreNotConfigured if what it says of one cannot be."""
    return {name: profile_of(name, storage) for name in names_of(storage)}


def profile_of(name: str, storage: Mapping[str, Any]) -> Profile:
    """What a configuration says of a store. Raises StoreNotConfigured."""
    configured = _configured(storage)
    if name not in configured:
        known = ", ".join(configured) or "none"
        raise StoreNotConfigured(
            f"the configuration has no store {name[:80]!r} under {KEY}; there are: {known}"
        )
    return _profile(name, configured[name])


def open_store(name: str, role: Role, storage: Mapping[str, Any]) -> ImageStore:
    """Open a store. No connection is made before it is used.

    Args:
        name: Of the store.
        role: What it is needed for. What is not of this role raises AccessDenied, on a directory too.
        storage: The `storage` of the configuration.

    Raises:
        StoreNotConfigured: There is none of that name, or it has no login for the role, or the file with its
            secret cannot be used, or the package for it is not installed.
    """
    profile = profile_of(name, storage)
    if isinstance(profile, DirectoryProfile):
        from parvis_services.stores.directory import DirectoryStore

        return DirectoryStore(name, profile.directory, role)
    login: Login | None = getattr(profile, role)
    if login is None:
        there = ", ".join(one for one in ROLES if getattr(profile, one) is not None) or "none"
        raise StoreNotConfigured(
            f"{KEY}: store {name!r} has no login for the role {role!r} (there are: {there}): add "
            f"{role}: {{access_key: ..., secret_file: ...}} on the machines that need it"
        )
    try:
        from parvis_services.stores.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StoreNotConfigured(
            f"store {name!r} needs the package {error.name}: pip install 'parvis[s3]'"
        ) from None
    return S3Store(name, profile, login)


def store_of(url: ObjectUrl, role: Role, storage: Mapping[str, Any]) -> ImageStore:
    """Open the store that an address is of. Raises StoreNotConfigured, also if it is of another kind."""
    _check_scheme(url, storage)
    return open_store(url.profile, role, storage)


class Stores:
    """The stores that somebody needs in a role, each opened once and kept. May be used from any thread."""

    def __init__(self, role: Role, storage: Mapping[str, Any]) -> None:
        self._role: Final[Role] = role
        self._storage = storage
        self._lock = threading.Lock()
        self._open: dict[str, ImageStore] = {}

    def of(self, url: ObjectUrl) -> ImageStore:
        """The store that an address is of. Raises as `store_of`."""
        with self._lock:
            store = self._open.get(url.profile)
            if store is None or store.scheme != url.scheme:
                store = self._open[url.profile] = store_of(url, self._role, self._storage)
            return store

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            for store in self._open.values():
                store.close()
            self._open.clear()


def scheme_of(profile: Profile) -> Scheme:
    """How addresses of objects in such a store begin."""
    return "dir" if isinstance(profile, DirectoryProfile) else "s3"


def _check_scheme(url: ObjectUrl, storage: Mapping[str, Any]) -> None:
    scheme = scheme_of(profile_of(url.profile, storage))
    if scheme != url.scheme:
        raise StoreNotConfigured(f"{url}: the addresses of store {url.profile!r} begin with {scheme}://")


def _configured(storage: Mapping[str, Any]) -> dict[str, Any]:
    content = storage.get(KEY)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StoreNotConfigured(f"{KEY} must be a mapping from the names of stores to what they are")
    return {str(name): entry for name, entry in cast("dict[Any, Any]", content).items()}


def _profile(name: str, content: Any) -> Profile:
    from parvis_services.stores.url import BadUrl, ObjectUrl

    try:
        ObjectUrl("s3", name, "bucket")
    except BadUrl as error:
        raise StoreNotConfigured(f"{KEY}: {error}: letters, digits, '_' and '-'") from None
    if not isinstance(content, dict) or ("directory" in content) == ("endpoint" in content):
        raise StoreNotConfigured(f"{KEY}: store {name!r} must have either a directory or an endpoint")
    kind = DirectoryProfile if "directory" in content else S3Profile
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        # Neither the exception nor its text goes on: they know the input.
        problems = "; ".join(_problem(one) for one in error.errors(include_url=False, include_input=False))
    raise StoreNotConfigured(f"{KEY}: store {name!r}: {problems}")


def _problem(error: Any) -> str:
    place = ".".join(str(part)[:80] for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def is_this_machine(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_secret(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                raise StoreNotConfigured(f"{KEY}: everybody may read or write {file}: chmod o-rwx {file}")
            content = opened.read(_LARGEST_SECRET + 1)
    except OSError as error:
        raise StoreNotConfigured(f"{KEY}: secret_file {file} cannot be read: {error.strerror}") from None
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(content) > _LARGEST_SECRET or not secret.isprintable() or " " in secret:
        raise StoreNotConfigured(f"{KEY}: secret_file {file} must hold one secret and nothing else")
    return secret
