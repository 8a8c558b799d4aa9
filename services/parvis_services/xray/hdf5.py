"""Opening HDF5 files that may still be written, and following the links between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from parvis_services.paths import special_kind
from parvis_services.xray.errors import (
    BrokenImageError,
    ForbiddenImageError,
    ImageError,
    MissingImageError,
    UnfinishedImageError,
)

_LONGEST_CHAIN = 16


class Tree:
    """A master file and the files it links to, each opened once.

    A file is opened plainly if that is possible, and for single-writer-multiple-reader access (SWMR) if
    somebody is writing it in that mode. Not the other way round: HDF5 may take hours to notice that a file
    opened for SWMR was cut short. Files are not locked: to read one must never keep a detector from writing.

    Args:
        path: The master file.
        allowed: Whether a file may be opened; by default all may.
    """

    def __init__(self, path: Path, allowed: Callable[[Path], bool] | None = None) -> None:
        self.path = path
        self._allowed = allowed
        self._checked: set[tuple[str, str]] = set()
        self._files: dict[Path, h5py.File] = {}
        self.root = self.open(path)

    def open(self, path: Path) -> h5py.File:
        """The file, opened for reading. Raises ImageError if it cannot be."""
        if path not in self._files:
            linked = "" if path == self.path else f"{path.name}, to which it links, "
            if self._allowed is not None and not self._allowed(path):
                raise ForbiddenImageError(
                    self.path, f"{linked}lies outside the directories that the site allows"
                )
            try:
                kind = special_kind(path)
                if kind is not None:
                    raise BrokenImageError(self.path, f"{linked}is {kind}, not an image file")
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
            ForbiddenImageError: A file that is linked to, or that a dataset has its data in, is not allowed.
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
        if link is None:
            return None
        found: Any = group[name]
        if isinstance(found, h5py.Dataset):
            self._check_storage(found, depth)
        return found

    def _check_storage(self, dataset: h5py.Dataset, depth: int) -> None:
        """See to it that HDF5, asked for a dataset, opens no file that we would not."""
        where = (str(dataset.file.filename), str(dataset.name))
        if where in self._checked:
            return
        self._checked.add(where)
        properties = dataset.id.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL:
            if self._allowed is not None:
                for source in dataset.virtual_sources():
                    self._check_source(dataset, source.file_name, source.dset_name, depth)
        elif properties.get_external_count():
            raise ForbiddenImageError(
                self.path, f"{dataset.name} has its data in files that are not HDF5, which are not read here"
            )

    def _check_source(self, dataset: h5py.Dataset, file_name: str, dataset_name: str, depth: int) -> None:
        """Check a source of a virtual dataset, which may be virtual itself."""
        if "%" in file_name + dataset_name:
            raise ForbiddenImageError(
                self.path, f"{dataset.name} names its sources by a pattern, so that they cannot be checked"
            )
        first = source_path(dataset, file_name)
        for path in (first, *_other_source_paths(dataset, file_name)):
            if path != first and not os.path.lexists(path):
                continue
            try:
                self.find(self.open(path), dataset_name, depth + 1)
            except UnfinishedImageError:
                continue  # HDF5 looks in the next place, and gives zeros if there is none
            return

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


def source_path(dataset: h5py.Dataset, file_name: str) -> Path:
    """The file of a source of a virtual dataset, from what the dataset says of it."""
    file = Path(dataset.file.filename)
    return file if file_name == "." else file.parent / file_name


def _other_source_paths(dataset: h5py.Dataset, file_name: str) -> list[Path]:
    """Where HDF5 looks for that file if it cannot open it there."""
    if file_name == ".":
        return []
    file = Path(dataset.file.filename)
    name = Path(file_name).name if Path(file_name).is_absolute() else file_name
    return [file.parent / name, Path(name).absolute(), file.resolve().parent / name]


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
