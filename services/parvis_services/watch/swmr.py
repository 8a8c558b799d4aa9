"""Which images of an HDF5 file are written already, while the detector goes on writing (SWMR)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py

_DATA = "/entry/data/data"

# What the HDF5 library says of a file whose writer has not come that far yet.
_NOT_YET = (
    "addr overflow",
    "address of object past end of allocation",
    "truncated file",
    "file is not already open for swmr writing",
    "bad object header version number",
    "unable to open file",
    "no such file or directory",
)


class NotYetReadable(OSError):
    """The file is not there, or its writer has not come far enough."""


def is_not_yet(error: Exception) -> bool:
    """Whether an error of the HDF5 library means no more than that the writer is not so far."""
    text = str(error).lower()
    return any(sign in text for sign in _NOT_YET)


class SwmrImages:
    """The images of a master file: where its virtual data set takes each from.

    Args:
        master: Path of the master file. Its `/entry/data/data` is a virtual data set over blocks of images in
            other files, or holds the images itself.

    Raises:
        NotYetReadable: It cannot be read yet.
        ValueError: It is no such file.
    """

    def __init__(self, master: str) -> None:
        self._open: dict[str, h5py.File] = {}
        self._master = master
        try:
            self._blocks = self._map(self._file(master))
        except OSError as error:
            self.close()
            if is_not_yet(error):
                raise NotYetReadable(str(error)) from error
            raise
        self.total = max((last for _, last, _, _ in self._blocks), default=0)

    def is_written(self, index: int) -> bool:
        """Whether image `index` (from 0) is in its file.

        Raises:
            OSError: The file is broken.
        """
        import h5py

        first, _, file, name = next(block for block in self._blocks if block[0] <= index < block[1])
        try:
            dataset: Any = self._file(file)[name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{file}: {name} is no data set")
            dataset.id.refresh()
            if index - first >= dataset.shape[0]:
                return False
            corner = (index - first,) + (0,) * (dataset.ndim - 1)
            return dataset.chunks is None or dataset.id.get_chunk_info_by_coord(corner).size > 0
        except KeyError:
            return False
        except OSError as error:
            self._forget(file)
            if is_not_yet(error):
                return False
            raise

    def close(self) -> None:
        """Close all files."""
        for name in list(self._open):
            self._forget(name)

    def _file(self, name: str) -> h5py.File:
        import h5py

        if name not in self._open:
            # The detector holds a lock on the file it writes; SWMR is made for reading it all the same.
            self._open[name] = h5py.File(name, "r", swmr=True, libver="latest", locking=False)
        return self._open[name]

    def _forget(self, name: str) -> None:
        file = self._open.pop(name, None)
        if file is not None:
            file.close()

    def _map(self, file: h5py.File) -> list[tuple[int, int, str, str]]:
        """Return first image, one past the last, file and data set name of each block."""
        import h5py

        dataset: Any = file.get(_DATA)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3:
            raise ValueError(f"{self._master}: has no stack of images at {_DATA}")
        if not dataset.is_virtual:
            return [(0, dataset.shape[0], self._master, _DATA)]
        return sorted(self._block(source) for source in dataset.virtual_sources())

    def _block(self, source: Any) -> tuple[int, int, str, str]:
        start, stride, count, block = (each[0] for each in source.vspace.get_regular_hyperslab())
        if stride != block and count != 1:
            raise ValueError(f"{self._master}: the images of {source.file_name} are not in one piece")
        if _first_image(source.src_space) != 0:
            raise ValueError(f"{self._master}: the images of {source.file_name} do not begin with its first")
        file = self._master if source.file_name == "." else str(Path(self._master).parent / source.file_name)
        return int(start), int(start + count * block), file, source.dset_name


def _first_image(space: Any) -> int:
    import h5py

    return 0 if space.get_select_type() == h5py.h5s.SEL_ALL else int(space.get_regular_hyperslab()[0][0])
