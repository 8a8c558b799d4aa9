"""JSONLines: appends what it is sent to a file, one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, field_validator

from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json
from parvis.recipe.template import is_open
from parvis.service.base import BatchService, Reject, Retry, Step
from parvis.service.contract import Anything, Model
from parvis_services.paths import PathNotAllowed, PathRule, special_kind

_TAIL = 16 * 1024 * 1024  # bytes at the end of a file in which a line that may be there already is looked for
_PIECE = 64 * 1024
_LONGEST_LINE = 1024 * 1024  # bytes of a line that is taken apart to see whether it is one of ours


class JSONLinesParameters(Model):
    """Where to write, and what of the payload.

    Attributes:
        output_filename: Path of the file; made, with its directory, if it is not there.
        include: Keys of the payload to write, by default all.
        exclude: Keys not to write.
    """

    output_filename: str = Field(min_length=1, examples=["/data/results.jsonl"])
    include: list[str] | None = None
    exclude: list[str] = Field(default_factory=list)

    @field_validator("output_filename")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not is_open(value):
            PathRule({}).path(value)
        return value


_Item = tuple[Anything, Step[JSONLinesParameters]]


class JSONLines(BatchService[Anything, JSONLinesParameters]):
    """Appends payloads to files, one JSON object a line, up to a hundred at once.

    A line is written at least once. A message that was handed out before is written only if the file does not
    hold the same line already.
    """

    name: ClassVar[str] = "JSONLines"
    queue: ClassVar[str] = "jsonlines"
    Payload: ClassVar[type[BaseModel]] = Anything
    Parameters: ClassVar[type[BaseModel]] = JSONLinesParameters
    exclusive: ClassVar[bool] = True
    batch_size: ClassVar[int] = 100
    batch_wait: ClassVar[float] = 1.0

    def process_batch(self, batch: Sequence[_Item]) -> None:
        """Append the lines of a batch, file by file."""
        files: dict[Path, list[_Item]] = {}
        rule = PathRule(self.config.storage)
        for item in batch:
            try:
                files.setdefault(_path(item[1].parameters, rule), []).append(item)
            except PathNotAllowed as error:
                item[1].fail(Reject(str(error)))
        for path, items in files.items():
            try:
                _append(path, items)
            except _NotJSONLines as error:
                _fail(items, Reject(str(error)))
            except OSError as error:
                _fail(items, Retry(f"cannot write {path}: {error.strerror}"))


class _NotJSONLines(Exception):
    """A file is something else, so that nothing may be appended to it."""


def _fail(items: Sequence[_Item], error: Exception) -> None:
    for _, step in items:
        step.fail(error)


def _path(parameters: JSONLinesParameters, rule: PathRule) -> Path:
    if "{" in parameters.output_filename:
        raise PathNotAllowed(
            f"output_filename {parameters.output_filename!r} holds a placeholder that nobody filled"
        )
    return rule.path(parameters.output_filename)


def _append(path: Path, items: Sequence[_Item]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = special_kind(path) if path.exists() else None
    if kind is not None:
        raise _NotJSONLines(f"{path} is {kind}, not a JSON lines file")
    with path.open("a+b", buffering=0) as file:
        if not _begins_as_json_lines(file):
            raise _NotJSONLines(f"{path} is not a JSON lines file: it does not begin with a JSON object")
        size = _cut_torn_line(file)
        ends_line = size == 0 or _read(file, size - 1, size) == b"\n"
        there = _lines(file) if any(step.redelivered for _, step in items) else frozenset[bytes]()
        lines = [(_line(payload, step.parameters), step.redelivered) for payload, step in items]
        new = b"".join(line + b"\n" for line, again in lines if not (again and line in there))
        try:
            _write(file, new if ends_line else b"\n" + new)
            os.fsync(file.fileno())
        except OSError:
            # What is tried again must not be there already.
            with suppress(OSError):
                file.truncate(size)
            raise


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _begins_as_json_lines(file: FileIO) -> bool:
    """Whether a file is empty, or its first line is one of ours, as far as that is there."""
    beginning = b""
    while b"\n" not in beginning and len(beginning) < _LONGEST_LINE:
        piece = _read(file, len(beginning), len(beginning) + _PIECE)
        if not piece:
            break
        beginning += piece
    first, newline, _ = beginning.partition(b"\n")
    return _is_object(first) if newline else not first or first.startswith(b"{")


def _cut_torn_line(file: FileIO) -> int:
    """Cut off what a killed writer left of a line, as its message comes again; return the size of the file.

    The last line is cut only if it must be the beginning of one of ours: anything else is left alone.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0 or _read(file, size - 1, size) == b"\n":
        return size
    tail = _read(file, max(0, size - 2 * _LONGEST_LINE - 2), size)
    before, newline, last = tail.rpartition(b"\n")
    if not last.startswith(b"{") or len(last) > _LONGEST_LINE or _is_object(last):
        return size
    if newline and not _is_object(before.rpartition(b"\n")[2]):
        return size
    return file.truncate(size - len(last))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except MalformedMessage:
        return False


def _read(file: FileIO, start: int, end: int) -> bytes:
    file.seek(start)
    parts: list[bytes] = []
    while start < end and (part := file.read(end - start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _lines(file: FileIO) -> frozenset[bytes]:
    size = file.seek(0, os.SEEK_END)
    return frozenset(_read(file, max(0, size - _TAIL), size).splitlines())


def _line(payload: Anything, parameters: JSONLinesParameters) -> bytes:
    values = payload.model_dump(mode="json")
    kept = {
        key: value
        for key, value in values.items()
        if (parameters.include is None or key in parameters.include) and key not in parameters.exclude
    }
    return dump_json(kept)
