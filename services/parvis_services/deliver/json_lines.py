"""JSONLines: appends what it is sent to a file, one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json
from parvis.service.base import BatchService, Reject, Retry, Step
from parvis.service.contract import Anything, Model
from parvis_services.paths import PathNotAllowed, allowed_path

_TAIL = 16 * 1024 * 1024  # bytes at the end of a file in which a line that may be there already is looked for


class JSONLinesParameters(Model):
    """Where to write, and what of the payload.

    Attributes:
        output_filename: Path of the file; made, with its directory, if it is not there.
        include: Keys of the payload to write, by default all.
        exclude: Keys not to write.
    """

    output_filename: str = Field(min_length=1)
    include: list[str] | None = None
    exclude: list[str] = Field(default_factory=list)


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
        for item in batch:
            files.setdefault(self._path(item[1].parameters), []).append(item)
        for path, items in files.items():
            try:
                _append(path, items)
            except OSError as error:
                raise Retry(f"cannot write {path}: {error.strerror}") from error

    def _path(self, parameters: JSONLinesParameters) -> Path:
        if "{" in parameters.output_filename:
            raise Reject(
                f"output_filename {parameters.output_filename!r} holds a placeholder that nobody filled"
            )
        try:
            return allowed_path(parameters.output_filename, self.config.storage)
        except PathNotAllowed as error:
            raise Reject(str(error)) from error


def _append(path: Path, items: Sequence[_Item]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _end_torn_line(file)
        there = _lines(file) if any(step.redelivered for _, step in items) else frozenset[bytes]()
        lines = [(_line(payload, step.parameters), step.redelivered) for payload, step in items]
        file.write(b"".join(line + b"\n" for line, again in lines if not (again and line in there)))
        file.flush()
        os.fsync(file.fileno())


def _end_torn_line(file: Any) -> None:
    """End the last line if a killed writer did not; cut off what is no JSON, as its message comes again."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read()
    if tail.endswith(b"\n"):
        return
    last_line = tail.rfind(b"\n") + 1
    try:
        parse_json(tail[last_line:])
    except MalformedMessage:
        file.truncate(start + last_line)
    else:
        file.write(b"\n")


def _lines(file: Any) -> frozenset[bytes]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return frozenset(file.read().splitlines())


def _line(payload: Anything, parameters: JSONLinesParameters) -> bytes:
    values = payload.model_dump(mode="json")
    kept = {
        key: value
        for key, value in values.items()
        if (parameters.include is None or key in parameters.include) and key not in parameters.exclude
    }
    return dump_json(kept)
