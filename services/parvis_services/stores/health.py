"""Check of the image stores: they answer, know our logins, and have room."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from parvis.observe.health import Finding
from parvis_services.stores.profiles import (
    KEY,
    ROLES,
    DirectoryProfile,
    Role,
    S3Profile,
    StoreNotConfigured,
    names_of,
    open_store,
    profile_of,
)
from parvis_services.stores.store import StoreError

if TYPE_CHECKING:
    from parvis.config import Config

_SLOW: Final = 1.0
_LEAST_FREE: Final = 0.05


def image_stores(config: Config) -> Iterable[Finding]:
    """The image stores answer, know our logins, and have room."""
    try:
        names = names_of(config.storage)
    except StoreNotConfigured as error:
        yield Finding("error", str(error), advice="Mend the configuration.")
        return
    if not names:
        yield Finding("skipped", f"{KEY} names none")
    for name in names:
        try:
            profile = profile_of(name, config.storage)
        except StoreNotConfigured as error:
            yield Finding("error", str(error), name, "Mend the configuration.")
            continue
        if isinstance(profile, DirectoryProfile):
            yield _directory(name, profile, config.storage)
        else:
            yield from _logins(name, profile, config.storage)


def _directory(name: str, profile: DirectoryProfile, storage: Mapping[str, Any]) -> Finding:
    try:
        open_store(name, "read", storage).buckets()
        room = os.statvfs(profile.directory)
    except (StoreError, OSError) as error:
        return Finding("error", str(error), name, "See whether it is mounted, and who may read there.")
    free = room.f_bavail / max(1, room.f_blocks)
    message = f"{profile.directory}: {100 * free:.0f} % are free"
    if free < _LEAST_FREE:
        advice = "Expire series sooner: what does not fit is not stored."
        return Finding("warning", message, name, advice)
    return Finding("ok", message, name)


def _logins(name: str, profile: S3Profile, storage: Mapping[str, Any]) -> Iterable[Finding]:
    """Ask in each role for the buckets of its user: whoever is known may, and nobody is changed by it."""
    roles: list[Role] = [role for role in ROLES if getattr(profile, role) is not None]
    if not roles:
        yield Finding("warning", f"{profile.endpoint}: there is no login", name, "Add one under read.")
    for role in roles:
        subject = f"{name} ({role})"
        try:
            store = open_store(name, role, storage)
        except StoreNotConfigured as error:
            advice = "It does not matter if nobody needs this role on this machine."
            yield Finding("warning", str(error), subject, advice)
            continue
        begun = time.monotonic()
        try:
            store.buckets()
        except StoreError as error:
            yield Finding("error", error.reason, subject, f"Look at {profile.endpoint}, and at the login.")
            continue
        finally:
            store.close()
        seconds = time.monotonic() - begun
        slow = seconds > _SLOW
        message = f"{profile.endpoint}: answered after {1000 * seconds:.0f} ms"
        yield Finding("warning" if slow else "ok", message, subject, "It is slow: look at its load." * slow)
