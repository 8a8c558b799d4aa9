"""The store as a writer sees it: it may put, and perhaps no more."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from parvis.config import ConfigError
from parvis_services.stores.profiles import Role, StoreNotConfigured, open_store
from parvis_services.stores.store import (
    CHECKSUM,
    AccessDenied,
    Bytes,
    ImageStore,
    NoSuchObject,
    ObjectExists,
    ObjectInfo,
    StoreUnavailable,
)


class WriterStore:
    """A store to put objects into. If this machine may do more there, that helps after a restart.

    Args:
        name: Of the store in the configuration.
        storage: The `storage` of the configuration.

    Raises:
        ConfigError: There is no such store, or it cannot be written to.

    Attributes:
        writer: The store, in the role of who writes.
    """

    def __init__(self, name: str, storage: Mapping[str, Any]) -> None:
        try:
            self.writer = open_store(name, "write", storage)
        except StoreNotConfigured as error:
            raise ConfigError(str(error)) from None
        self._reader = _open_if_allowed(name, "read", storage)
        self._manager = _open_if_allowed(name, "manage", storage)

    def put(
        self,
        bucket: str,
        key: str,
        data: Bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> ObjectInfo:
        """As `ImageStore.put`; a bucket that is not there is made, if this machine may do that."""
        try:
            return self.writer.put(bucket, key, data, metadata, replace=replace)
        except NoSuchObject:
            if self._manager is None:
                raise
            self._manager.make_bucket(bucket)
            return self.writer.put(bucket, key, data, metadata, replace=replace)

    def find(self, bucket: str, key: str) -> ObjectInfo | None:
        """What the store says of an object; None if there is none.

        Raises:
            AccessDenied: This machine may not look.
            StoreError: The store cannot say.
        """
        if self._reader is None:
            raise AccessDenied(
                self.writer.url(bucket, key), "no login for the role 'read' is configured here"
            )
        try:
            return self._reader.stat(bucket, key)
        except NoSuchObject:
            return None

    def confirm(self, bucket: str, key: str, data: Bytes) -> ObjectInfo:
        """What the store says of an object that is there, if it has just this content.

        Where this machine may not look, it is taken to be so: nobody else writes to the place of a series.

        Raises:
            ObjectExists: It has another content.
            StoreError: The store cannot say, or it is gone again.
        """
        try:
            found = self.find(bucket, key)
        except AccessDenied:
            return ObjectInfo(key, memoryview(data).nbytes, "", time.time())
        if found is None:
            raise StoreUnavailable(self.writer.url(bucket, key), "it was there, and is not any more")
        if found.metadata.get(CHECKSUM) != hashlib.sha256(data).hexdigest():
            raise ObjectExists(self.writer.url(bucket, key), "something else is stored there")
        return found

    def close(self) -> None:
        """Let go of connections."""
        for store in (self.writer, self._reader, self._manager):
            if store is not None:
                store.close()


def _open_if_allowed(name: str, role: Role, storage: Mapping[str, Any]) -> ImageStore | None:
    try:
        return open_store(name, role, storage)
    except StoreNotConfigured:
        return None
