"""A store in a directory: buckets are directories in it, objects are files, keys are paths.

An object appears whole or not at all: it is written under another name in `.incoming` and then linked to its
own, which is one step that fails if the name is taken. Nothing is forced to the disk: what was stored
outlives every process, but a power cut may take what the kernel had not written yet. An object that a power
cut left damaged is told by its checksum. Images are wanted for hours, and to wait for a disk takes longer
than to analyse one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

from parvis_services.stores.directory_tree import (
    DIRECTORY,
    files_in_order,
    link,
    open_directory,
    remove,
    remove_empty,
    remove_left_behind,
)
from parvis_services.stores.object_file import (
    BadObjectFile,
    ObjectNotes,
    notes_of,
    read_content,
    read_notes,
    write_object,
)
from parvis_services.stores.profiles import Role
from parvis_services.stores.store import (
    CHECKSUM,
    LARGEST_OBJECT,
    AccessDenied,
    Bytes,
    DamagedObject,
    ImageStore,
    NoSuchObject,
    ObjectExists,
    ObjectInfo,
    StoredObject,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Usage,
    check_metadata,
)
from parvis_services.stores.url import ObjectUrl, Scheme, check_bucket, check_key, check_prefix

_INCOMING: Final = ".incoming"  # no bucket can have that name
_TRIES: Final = 5  # for a directory that is removed, being empty, while something is put into it
_LARGEST_PAGE: Final = 1000
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}", re.ASCII)

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK}
_DENIED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_DIRECTORY: Final = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR}


class DirectoryStore(ImageStore):
    """A store in a directory that is there, on a file system with hard links.

    What is not of the role is refused, as an S3 store would: so a service that asks for too much is found out
    on one machine. Whether another user may is a matter of the permissions of the directory.

    An object cannot have a key that another key continues after a slash.
    """

    scheme: ClassVar[Scheme] = "dir"

    def __init__(self, profile: str, directory: Path, role: Role = "manage") -> None:
        self.profile = profile
        self._root: Final = directory
        self._role: Final[Role] = role
        self._tidied = threading.Event()

    def put(
        self,
        bucket: str,
        key: str,
        data: Bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> ObjectInfo:
        """As of `ImageStore`. Also raises StoreError where the file system has no hard links."""
        url = self._checked(bucket, key, "write")
        kept = dict(metadata or {})
        check_metadata(kept)
        *parents, name = key.split("/")
        notes = notes_of(data, kept)
        with _told(url), self._bucket(bucket) as top, self._incoming(data, notes) as (incoming, temporary):
            return self._publish(url, top, parents, incoming, temporary, name, notes, replace)

    def _publish(
        self,
        url: ObjectUrl,
        top: int,
        parents: list[str],
        incoming: int,
        temporary: str,
        name: str,
        notes: ObjectNotes,
        replace: bool,
    ) -> ObjectInfo:
        for tries_left in reversed(range(_TRIES)):
            with open_directory(top, parents, create=True) as place:
                try:
                    if replace:
                        os.replace(temporary, name, src_dir_fd=incoming, dst_dir_fd=place)
                    else:
                        link(temporary, name, incoming, place)
                    found = os.stat(name, dir_fd=place, follow_symlinks=False)
                except FileExistsError:
                    raise _taken(url, name, place) from None
                except FileNotFoundError:
                    if not tries_left:
                        raise
                else:
                    return _info(url.key, notes, found.st_mtime)
        raise AssertionError("the last try returns or raises")

    def get(self, bucket: str, key: str) -> StoredObject:
        """As of `ImageStore`."""
        url = self._checked(bucket, key, "read")
        with _told(url), self._object(bucket, key) as descriptor:
            notes = read_notes(descriptor)
            if notes.size > LARGEST_OBJECT:
                raise StoreError(url, f"it has {notes.size} bytes; at most {LARGEST_OBJECT} are fetched")
            data = read_content(descriptor, 0, notes.size)
            if hashlib.sha256(data).hexdigest() != notes.sha256:
                raise DamagedObject(url, "its SHA-256 is not that of what was stored")
            return StoredObject(_info(key, notes, os.fstat(descriptor).st_mtime), data)

    def get_range(self, bucket: str, key: str, start: int, length: int) -> bytes:
        """As of `ImageStore`."""
        url = self._checked(bucket, key, "read")
        with _told(url), self._object(bucket, key) as descriptor:
            size = read_notes(descriptor).size
            first = min(max(0, start), size)
            return read_content(descriptor, first, min(max(0, length), size - first))

    def stat(self, bucket: str, key: str) -> ObjectInfo:
        """As of `ImageStore`. Raises DamagedObject for a file that was not written whole."""
        url = self._checked(bucket, key, "read")
        with _told(url), self._object(bucket, key) as descriptor:
            return _info(key, read_notes(descriptor), os.fstat(descriptor).st_mtime)

    def list_after(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[ObjectInfo]:
        """As of `ImageStore`; an object that is damaged is listed without an etag.

        The names of all objects in the same directory are read, but only the files that are listed are
        opened.
        """
        url = self._checked(bucket, "", "read")
        check_prefix(prefix)
        found: list[ObjectInfo] = []
        with _told(url), self._bucket(bucket) as top:
            for key, place, name in files_in_order(top, "", prefix, after):
                if len(found) >= min(limit, _LARGEST_PAGE):
                    break
                if (info := _listed(key, place, name)) is not None:
                    found.append(info)
        return found

    def delete(self, bucket: str, keys: list[str]) -> None:
        """As of `ImageStore`. Directories that become empty go too."""
        urls = [self._checked(bucket, key, "manage") for key in keys]
        with _told(self.url(bucket)), self._bucket(bucket) as top:
            for url in urls:
                with _told(url):
                    remove(top, url.key)

    def expire(self, bucket: str, days: int, prefix: str = "") -> None:  # noqa: ARG002 - as of the interface
        """Raise StoreError: a directory deletes nothing by itself."""
        raise StoreError(self.url(bucket), "a directory deletes nothing by itself: the StoreSweeper does")

    def presign(self, bucket: str, key: str, seconds: int) -> str:  # noqa: ARG002 - as of the interface
        """Raise StoreError: a directory has no links."""
        raise StoreError(self.url(bucket, key), "a store in a directory has no links: name the file instead")

    def buckets(self) -> list[str]:
        """As of `ImageStore`."""
        self._allow(f"{self.scheme}://{self.profile}", "read")
        with _told(f"{self.scheme}://{self.profile}"), self._top() as root, os.scandir(root) as entries:
            found = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
        return sorted(name for name in found if _BUCKET.fullmatch(name) and ".." not in name)

    def make_bucket(self, bucket: str) -> bool:
        """As of `ImageStore`."""
        url = self._checked(bucket, "", "write")
        with _told(url), self._top() as root:
            try:
                os.mkdir(bucket, dir_fd=root)
            except FileExistsError:
                os.close(os.open(bucket, DIRECTORY, dir_fd=root))
                return False
        return True

    def remove_bucket(self, bucket: str) -> None:
        """As of `ImageStore`."""
        url = self._checked(bucket, "", "manage")
        with _told(url), self._top() as root:
            with self._bucket(bucket) as top:
                remove_empty(top)
            try:
                os.rmdir(bucket, dir_fd=root)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                raise StoreError(url, "the bucket is not empty") from None

    def usage(self, bucket: str, prefix: str = "") -> Usage:
        """As of `ImageStore`. What is used includes some 300 bytes an object that say what it is."""
        url = self._checked(bucket, "", "read")
        check_prefix(prefix)
        used = objects = 0
        with _told(url), self._bucket(bucket) as top:
            for _, place, name in files_in_order(top, "", prefix, ""):
                with contextlib.suppress(FileNotFoundError):
                    used += os.stat(name, dir_fd=place, follow_symlinks=False).st_size
                    objects += 1
            room = os.fstatvfs(top)
        return Usage(used, objects, used + room.f_frsize * room.f_bavail)

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _allow(self, url: ObjectUrl | str, role: Role) -> None:
        if self._role not in {role, "manage"}:
            raise AccessDenied(
                url, f"the store was opened for the role {self._role!r}; this is one of {role!r}"
            )

    def _checked(self, bucket: str, key: str, role: Role) -> ObjectUrl:
        check_bucket(bucket)
        if key:
            check_key(key)
        url = self.url(bucket, key)
        self._allow(url, role)
        return url

    @contextlib.contextmanager
    def _top(self) -> Iterator[int]:
        try:
            # The site may name the directory by a link; nothing below it may be one.
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _DENIED:
                raise
            reason = f"the directory {self._root} cannot be opened: {error.strerror}; is it mounted?"
            raise StoreUnavailable(f"{self.scheme}://{self.profile}", reason) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _bucket(self, bucket: str) -> Iterator[int]:
        with self._top() as root:
            try:
                descriptor = os.open(bucket, DIRECTORY, dir_fd=root)
            except FileNotFoundError:
                raise NoSuchObject(self.url(bucket), "there is no such bucket") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _object(self, bucket: str, key: str) -> Iterator[int]:
        *parents, name = key.split("/")
        with self._bucket(bucket) as top, open_directory(top, parents) as place:
            descriptor = os.open(name, _READ, dir_fd=place)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NoSuchObject(self.url(bucket, key), "there is no such object")
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _incoming(self, data: Bytes, notes: ObjectNotes) -> Iterator[tuple[int, str]]:
        """Write an object under a name that nobody looks at; which is gone in the end."""
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        with self._top() as root, open_directory(root, [_INCOMING], create=True) as place:
            if not self._tidied.is_set():
                self._tidied.set()
                remove_left_behind(place)
            descriptor = os.open(name, _WRITE, 0o666, dir_fd=place)
            try:
                try:
                    write_object(descriptor, data, notes)
                finally:
                    os.close(descriptor)
                yield place, name
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place)


def _info(key: str, notes: ObjectNotes, modified: float) -> ObjectInfo:
    metadata = {**notes.metadata, CHECKSUM: notes.sha256}
    return ObjectInfo(key, notes.size, notes.sha256[:32], modified, metadata)


@contextlib.contextmanager
def _told(url: ObjectUrl | str) -> Iterator[None]:
    """Tell by the errors of a store what the system says."""
    try:
        yield
    except BadObjectFile as error:
        raise DamagedObject(url, str(error)) from None
    except OSError as error:
        raise _error_of(url, error) from None


def _error_of(url: ObjectUrl | str, error: OSError) -> StoreError:
    said = error.strerror or type(error).__name__
    if error.errno == errno.ENOENT:
        return NoSuchObject(url, "there is no such object")
    if error.errno in _FULL:
        return StoreFull(url, f"there is no room: {said}")
    if error.errno in _DENIED:
        return AccessDenied(url, f"the permissions of the directory do not allow it: {said}")
    if error.errno in _NO_DIRECTORY:
        return StoreError(
            url, "its path goes through a symbolic link, or an object, where a directory must be"
        )
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(url, "a part of its key is longer than the file system can take")
    return StoreUnavailable(url, f"the file system does not do it: {said}")


def _taken(url: ObjectUrl, name: str, place: int) -> StoreError:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            return StoreError(url, "there are objects whose keys go on after this one with a slash")
    return ObjectExists(url, "it is there already, and what is stored is not overwritten")


def _listed(key: str, place: int, name: str) -> ObjectInfo | None:
    try:
        descriptor = os.open(name, _READ, dir_fd=place)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        try:
            notes = read_notes(descriptor)
        except BadObjectFile:
            return ObjectInfo(key, found.st_size, "", found.st_mtime)
        return ObjectInfo(key, notes.size, notes.sha256[:32], found.st_mtime)
    finally:
        os.close(descriptor)
