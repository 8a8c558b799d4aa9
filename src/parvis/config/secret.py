"""What of a configuration is secret, and how it is shown without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

MASK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"pass(word|wd|code|phrase)?$|secret(?!_file$)|token|credential|^parvis\.web\.users$", re.IGNORECASE
)
_LOGIN: Final = re.compile(r"(://[^/@\s:]*:)(\S+)(@)")
_DEFAULTS: Final = frozenset({"", "password", "guest", "admin"})  # known to everybody


def is_secret(name: str) -> bool:
    """Whether the value of a key of this name is secret."""
    return bool(_SECRET_NAME.search(name))


def holds_secret(name: str, value: Any) -> bool:
    """Whether a value, or anything in it, is a secret that not everybody knows."""
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        if is_secret(name):
            return bool(entries)
        return any(holds_secret(str(key), entry) for key, entry in entries.items())
    if isinstance(value, list):
        return any(holds_secret(name, entry) for entry in cast("list[Any]", value))
    if not isinstance(value, str) or (name == "user_token" and value.startswith(("/", "~"))):
        return False
    login = _LOGIN.search(value)
    return (is_secret(name) and value not in _DEFAULTS) or (login is not None and login[2] not in _DEFAULTS)


def secrets_in(name: str, value: Any, *, named: bool = False) -> Iterator[str]:
    """Yield the texts in a value that stand under a name of a secret."""
    named = named or is_secret(name)
    if isinstance(value, dict):
        for key, entry in cast("dict[Any, Any]", value).items():
            yield from secrets_in(str(key), entry, named=named)
    elif isinstance(value, list):
        for entry in cast("list[Any]", value):
            yield from secrets_in(name, entry, named=named)
    elif named and isinstance(value, str):
        yield value


def masked(name: str, value: Any) -> Any:
    """Return a value as it can be shown: what is secret in it becomes `***`."""
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        return {key: MASK if is_secret(name) else masked(str(key), entry) for key, entry in entries.items()}
    if isinstance(value, list):
        return [masked(name, entry) for entry in cast("list[Any]", value)]
    if value is not None and value != "" and is_secret(name):
        return MASK
    return _LOGIN.sub(rf"\1{MASK}\3", value) if isinstance(value, str) else value
