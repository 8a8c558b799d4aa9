"""What a writer must not forget when it dies: a journal for each series, and the directory they are in.

A journal is a file of JSON lines to which lines are only added, so that a process may be killed at any time.
Who reads it begins where he stopped before: the offset of a line says all about how far somebody has come.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from parvis.config import ConfigError

_log = logging.getLogger("parvis.service.CephWriter")
_NAME: Final = re.compile(r"([1-9][0-9]{0,18})\.([0-9]{1,16})", re.ASCII)
_ENDING: Final = ".journal"
_LOCK: Final = "writer.lock"
_BLOCK: Final = 65_536
_LAST_LINES: Final = 256  # bytes
_KEEP: Final = 3 * 86_400.0  # seconds for which a series is known after its last image

Entry = list[Any]
"""A line: what it is about, and then what there is to say."""


class BadCursor(ValueError):
    """Somebody claims to have read up to a place where no line begins."""


class Journal:
    """The journal of one series. One process writes it, on any of its threads, one at a time.

    Args:
        path: The file; made if it is not there. A line that was not written to its end is cut off.

    Raises:
        OSError: It cannot be used.

    Attributes:
        name: What it is called: the DCID and when the series began, `8073971.1763660000000`.
        size: Bytes of whole lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(_ENDING)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        # Closed when nobody has it any more, as another thread may be reading just now.
        self._close = weakref.finalize(self, os.close, self._file)
        self.size = _whole_lines(self._file)
        os.ftruncate(self._file, self.size)

    def add(self, *entry: Any, lasting: bool = False) -> None:
        """Add a line: the kernel has it when this returns, and if `lasting` the disk.

        Raises:
            OSError: There is no room, and nothing was added.
        """
        line = orjson.dumps(entry) + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(line)
        if lasting:
            os.fsync(self._file)

    def entries(self, cursor: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield lines, and behind each the cursor to go on from.

        Args:
            cursor: Where to begin: 0, or what was yielded before. Behind the end there is nothing.

        Raises:
            BadCursor: No line begins there.
        """
        size = self.size
        if 0 < cursor < size and os.pread(self._file, 1, cursor - 1) != b"\n":
            raise BadCursor(f"no line of the journal {self.name} begins at {cursor}")
        rest = b""
        while cursor + len(rest) < size:
            block = os.pread(self._file, min(_BLOCK, size - cursor - len(rest)), cursor + len(rest))
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                cursor += len(line) + 1
                yield orjson.loads(line), cursor

    def close(self) -> None:
        """Close the file; nobody may use it any more."""
        self._close()


class JournalDirectory:
    """The journals of a detector, of which one process at a time may be the writer.

    Args:
        path: The directory; made if it is not there.

    Raises:
        ConfigError: It cannot be used, or another process is the writer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"parvis.state_directory: {path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise ConfigError(
                f"process {holder} stores the images of this detector, and only one can: "
                f"it holds {path / _LOCK}"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def create(self, dcid: int) -> Journal:
        """Begin the journal of a series. Raises OSError."""
        moment = time.time_ns() // 1_000_000
        # A clock that is put back must not make it older than those before it.
        for last in self.names()[-1:]:
            moment = max(moment, begun_of_journal(last) + 1)
        return Journal(self._path / f"{dcid}.{moment}{_ENDING}")

    def names(self) -> list[str]:
        """Names of all journals, in the order in which their series began."""
        stems = (path.name.removesuffix(_ENDING) for path in self._path.glob(f"*{_ENDING}"))
        return sorted(filter(_NAME.fullmatch, stems), key=begun_of_journal)

    def open(self, name: str) -> Journal | None:
        """Open a journal by its name; None if there is none. Raises OSError."""
        path = self._path / f"{name}{_ENDING}"
        return Journal(path) if _NAME.fullmatch(name) and path.is_file() else None

    def series_of(self, name: str) -> int | None:
        """The number that a journal begins with, of its series; None if it cannot be read."""
        try:
            with (self._path / f"{name}{_ENDING}").open("rb") as file:
                return int(orjson.loads(file.readline())[1]["series"])
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def is_at_rest(self, name: str, last: bytes) -> bool:
        """Whether the last line of a journal is about something."""
        try:
            with (self._path / f"{name}{_ENDING}").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_LINES))
                lines = file.read().splitlines()
        except OSError:
            return False
        return bool(lines) and lines[-1].startswith(b'["' + last + b'"')

    def keep(self, name: str, kind: str, content: bytes) -> None:
        """Keep something large beside a journal, until `discard`; it is on disk when this returns.

        Raises:
            OSError: It cannot be written.
        """
        path = self._path / f"{name}.{kind}"
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def kept(self, name: str, kind: str) -> bytes | None:
        """What was kept beside a journal; None if it is not there, or cannot be read."""
        try:
            return (self._path / f"{name}.{kind}").read_bytes()
        except OSError:
            return None

    def discard(self, name: str, kind: str) -> None:
        """Let go of what was kept beside a journal."""
        with contextlib.suppress(OSError):
            (self._path / f"{name}.{kind}").unlink(missing_ok=True)

    def clean(self) -> list[str]:
        """Delete what is old; return the names of the journals that are gone."""
        gone: list[str] = []
        for path in self._path.iterdir():
            with contextlib.suppress(OSError):
                if path.name != _LOCK and time.time() - path.stat().st_mtime > _KEEP:
                    path.unlink()
                    gone += [path.name.removesuffix(_ENDING)] if path.name.endswith(_ENDING) else []
        return gone

    def close(self) -> None:
        """Let another process be the writer."""
        os.close(self._lock)


def dcid_of_journal(name: str) -> int:
    """The DCID of a journal, by its name."""
    return int(name.partition(".")[0])


def begun_of_journal(name: str) -> int:
    """When the series of a journal began, by its name: ms since 1970."""
    return int(name.partition(".")[2])


def _whole_lines(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(file).st_size
    while size:
        start = max(0, size - _BLOCK)
        newline = os.pread(file, size - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        size = start
    return 0
