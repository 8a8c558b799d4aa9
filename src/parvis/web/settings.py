"""What the configuration says of the web page."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from parvis.config import Config, ConfigError
from parvis.recipe.problem import printable

USERS: Final = "parvis.web.users"
SECRET: Final = "parvis.web.secret"  # noqa: S105 - the name of a key
SECRET_FILE: Final = "web-secret"  # noqa: S105 - the name of a file

_SHORTEST_SECRET = 32
_LONGEST_NAME = 64
_HASH = "$argon2id$"


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What the web page needs to know.

    Attributes:
        users: Who may log in: name and hash of the password.
        secret: What session cookies and forms are protected with; kept from everybody.
    """

    users: Mapping[str, str] = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, config: Config) -> WebSettings:
        """Read the settings; a secret is made where none is configured.

        Raises:
            ConfigError: They are no good, or the file with the secret cannot be used.
        """
        return cls(_users(config.storage.get(USERS)), _secret(config))

    def key(self, purpose: bytes) -> bytes:
        """Return 32 bytes that are made of the secret, others for each purpose (of at most 16 bytes)."""
        return hashlib.blake2b(self.secret, digest_size=32, person=purpose).digest()


def _users(configured: Any) -> dict[str, str]:
    if configured is None:
        return {}
    if not isinstance(configured, dict):
        raise ConfigError(f"{USERS} must be a mapping of names to hashes of passwords")
    users: dict[str, str] = {}
    for name, hashed in cast("dict[Any, Any]", configured).items():
        shown = printable(str(name))
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"{USERS}: {shown!r} cannot name a user")
        if not isinstance(hashed, str) or not hashed.startswith(_HASH):
            raise ConfigError(
                f"{USERS}: {shown!r} needs the hash of a password: `parvis web password` makes one"
            )
        users[name] = hashed
    return users


def _secret(config: Config) -> bytes:
    configured = config.storage.get(SECRET)
    if configured is None:
        return secret_from_file(config.state_directory / SECRET_FILE)
    if not isinstance(configured, str) or len(configured) < _SHORTEST_SECRET:
        raise ConfigError(f"{SECRET} must be a text of at least {_SHORTEST_SECRET} characters")
    return configured.encode()


def secret_from_file(path: Path) -> bytes:
    """Return the secret that a file holds; it is made, with a secret, where there is none.

    Raises:
        ConfigError: It cannot be read or made, others may read it, or it holds no secret.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            _make_secret(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(4096).strip()
    except OSError as error:
        raise ConfigError(
            f"the secret of the web page, {path}, cannot be used: {error.strerror}; or set {SECRET}"
        ) from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds a secret, and others may read it: chmod 600 {path}")
    if len(content) < _SHORTEST_SECRET:
        raise ConfigError(f"{path} holds no secret: remove it, and another is made")
    return content


def _make_secret(path: Path) -> None:
    """Make the file whole or not at all, as another process may be looking for it."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(48)}\n")
        os.link(made, path)
    finally:
        made.unlink()
