"""Opening HDF5 files that may still be written, and following the links between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from parvis_services.xray.errors import BrokenImageError, ImageError, MissingImageError, UnfinishedImageError

_LONGEST_CHAIN = 16


class Tree:
    """A master file and the files it links to, each opened once.

    A file is opened plainly if that is possible, and for single-writer-multiple-reader access (SWMR) if
    somebody is writing it in that mode. Not the other way round: HDF5 may take hours to notice that a file
    opened for SWMR was cut short. Files are not locked: to read one must never keep a detector from writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, h5py.File] = {}
        self.root = self.open(path)

    def open(self, path: Path) -> h5py.File:
        """The file, opened for reading. Raises ImageError if it cannot be."""
        if path not in self._files:
            linked = "" if path == self.path else f"{path.name}, to which it links, "
            try:
                self._files[path] = _open(path)
            except FileNotFoundError:
                raise UnfinishedImageError(self.path, f"{linked or 'the file '}is not there (yet)") from None
            except OSError as error:
                raise _explain(self.path, linked, str(error)) from None
        return self._files[path]

    def find(self, node: h5py.Group, path: str, depth: int = 0) -> Any:
        """What is at `path` below `node`, or None. Links to other files are followed through `open`.

        Raises:
            UnfinishedImageError: A file that is linked to is not there.
            BrokenImageError: Links lead in a circle.
        """
        if depth > _LONGEST_CHAIN:
            raise BrokenImageError(self.path, f"the link {path} leads in a circle")
        current: Any = node.file if path.startswith("/") else node
        name: str
        for name in path.strip("/").split("/"):
            if not name:
                continue
            if not isinstance(current, h5py.Group):
                return None
            current = self._step(current, name, depth)
            if current is None:
                return None
        return current

    def _step(self, group: h5py.Group, name: str, depth: int) -> Any:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            other = self.open(Path(group.file.filename).parent / str(link.filename))
            return self.find(other, str(link.path), depth + 1)
        if isinstance(link, h5py.SoftLink):
            return self.find(group, str(link.path), depth + 1)
        return None if link is None else group[name]

    def children(self, group: h5py.Group, nexus_class: str, name: str) -> list[h5py.Group]:
        """The groups of a NeXus class below `group`, or those called `name` if none says its class."""
        groups = [
            member
            for key in map(str, group)
            if not isinstance(group.get(key, getlink=True), h5py.ExternalLink)
            and isinstance(member := self.find(group, key), h5py.Group)
        ]
        of_class = [member for member in groups if _nexus_class(member) == nexus_class]
        return of_class or [member for member in groups if str(member.name).split("/")[-1] == name]

    def child(self, group: h5py.Group, nexus_class: str, name: str) -> h5py.Group | None:
        """The one called `name` of `children`, or else the first."""
        found = self.children(group, nexus_class, name)
        named = [member for member in found if str(member.name).split("/")[-1] == name]
        return next(iter(named or found), None)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def refresh(dataset: h5py.Dataset) -> None:
    """See what was written to a dataset since its file was opened, if that is written for SWMR."""
    if dataset.file.swmr_mode:
        dataset.id.refresh()


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" in str(error):
            # This process has it open already, and that decides how it is locked.
            return h5py.File(path, "r")
        if "already open for write" not in str(error):
            raise
        return h5py.File(path, "r", libver="latest", swmr=True, locking=False)


def _explain(path: Path, linked: str, error: str) -> ImageError:
    """What HDF5's message means."""
    if "truncated file" in error or "unable to read superblock" in error:
        return UnfinishedImageError(
            path, f"{linked}is shorter than it should be: still being written, or cut short"
        )
    if "not already open for SWMR" in error:
        return UnfinishedImageError(path, f"{linked}is being written by another program, and not for SWMR")
    if "file signature not found" in error or "file read failed" in error:
        return BrokenImageError(path, f"{linked}cannot be read as HDF5")
    return MissingImageError(path, f"{linked}cannot be opened: {error}")


def _nexus_class(group: h5py.Group) -> str:
    value = group.attrs.get("NX_class", "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
