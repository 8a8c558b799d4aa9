"""Who may do more than look: passwords, and what a browser is known by once somebody has logged in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

LONGEST_PASSWORD: Final = 1024
SESSION_SECONDS: Final = 12 * 3600
"""After this time one has to log in again."""

# Each hash that is made takes 64 MB.
_AT_ONCE = threading.Semaphore(2)
_HASHER = PasswordHasher()
# Takes as long to refuse as the password of somebody who exists.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$P9l7zofCxBKojFGqLvYsCw$x0tLu2xToVl3YUPegOx+un1fD7b5TDyJQVuV/BZYf+U"


def hash_password(password: str) -> str:
    """Return the hash of a password (argon2id, RFC 9106) for the configuration."""
    with _AT_ONCE:
        return _HASHER.hash(password)


class Users:
    """Who may log in. Methods may be called from any thread."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def are_right(self, name: str, password: str) -> bool:
        """Whether this is the password of that user. Takes the same time whether there is such a user."""
        hashed = self._hashes.get(name)
        with _AT_ONCE:
            try:
                matches = _HASHER.verify(hashed or _NOBODY, password[:LONGEST_PASSWORD])
            except (VerifyMismatchError, VerificationError, InvalidHashError):
                return False
        return matches and hashed is not None

    def new_session(self, name: str) -> dict[str, Any]:
        """Return what a session cookie is to hold for somebody who has just logged in."""
        return {
            "user": name,
            "id": secrets.token_urlsafe(16),
            "since": int(time.time()),
            "password": _fingerprint(self._hashes[name]),
        }

    def user_of(self, session: Mapping[str, Any]) -> str | None:
        """Return who a session is of; None if of nobody, no longer, or not with the present password."""
        name, since, token = session.get("user"), session.get("since"), session.get("id")
        if not isinstance(name, str) or not isinstance(since, int) or not isinstance(token, str):
            return None
        hashed = self._hashes.get(name)
        if hashed is None or not 0 <= time.time() - since < SESSION_SECONDS:
            return None
        if not hmac.compare_digest(str(session.get("password")), _fingerprint(hashed)):
            return None
        with self._lock:
            return None if token in self._ended else name

    def end(self, session: Mapping[str, Any]) -> None:
        """Let nobody come with this session any more."""
        now = time.monotonic()
        with self._lock:
            self._ended = {token: end for token, end in self._ended.items() if end > now}
            token = session.get("id")
            if isinstance(token, str):
                self._ended[token] = now + SESSION_SECONDS


def _fingerprint(hashed: str) -> str:
    return hashlib.sha256(hashed.encode()).hexdigest()[:32]
