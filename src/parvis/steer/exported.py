"""Dead letters in files, in the form that tools for dead letters in the field write and read.

A file is a JSON object: `exported` says when; `header` has the headers; `message` is the body, as JSON where
it is an object or a list. Of other bodies, `exported.encoding` says what they are: `text`, or `base64`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import orjson

from parvis.observe.dead_letters import DeadLetter, of_content
from parvis.transport.base import own_headers

_LONGEST_NAME: Final = 100
_LARGEST: Final = 256 * 1024 * 1024
_MOST_TWINS: Final = 1000
_PASSING: Final = frozenset({"ack", "subscription", "redelivered", "JMSXDeliveryCount"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-]")


class ExportError(Exception):
    """A file cannot be read, or is not one of a dead letter; the text says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A dead letter in a file.

    Attributes:
        file: Where.
        letter: What it says of itself.
    """

    file: Path
    letter: DeadLetter


def write(headers: Mapping[str, str], body: bytes, message_id: str, directory: Path) -> Path:
    """Write a dead letter to a file; return its name once it is safe on the disk.

    It is `DIRECTORY/YYYY-MM-DD/msg-YYYYMMDD-HHMMSS-mmm-ID`, with the day of now, and the moment at which the
    broker got the letter. Where that file is there already, with the same letter, it is left as it is.

    Raises:
        OSError: It cannot be written.
    """
    content = _content(headers, body)
    folder = directory / time.strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    name = _name(headers, message_id)
    for twin in range(1, _MOST_TWINS):
        file = folder / (name if twin == 1 else f"{name}-{twin}")
        if _put(file, content):
            return file
    raise FileExistsError(17, "there are too many files of that name", str(folder / name))


def read(file: Path) -> Exported:
    """Read a dead letter from a file, whoever wrote it.

    Raises:
        ExportError: It cannot be read, or is something else.
    """
    headers, body = _parse(_bytes(file), file)
    return Exported(file, of_content(headers, body))


def _put(file: Path, content: dict[str, Any]) -> bool:
    """Write a file; return False if there is another of that name."""
    if file.exists():
        return _is_same(file, content)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as stream:
            stream.write(json.dumps(content, indent=2, sort_keys=True).encode())
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync(file.parent)
    sync(file.parent.parent)
    return True


def sync(directory: Path) -> None:
    """Have the disk remember which files are in a directory."""
    with contextlib.suppress(OSError):  # some network file systems have no directories to sync
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _is_same(file: Path, content: dict[str, Any]) -> bool:
    """Whether a file has that letter; one that was cut off by a power failure has not."""
    try:
        found: Any = json.loads(_bytes(file))
    except (ExportError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    there, wanted = cast("dict[str, Any]", found), content
    return there.get("message") == wanted["message"] and _lasting(there) == _lasting(wanted)


def _lasting(content: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without those of one delivery."""
    headers: Any = content.get("header")
    if not isinstance(headers, dict):
        return {}
    return own_headers(cast("dict[str, Any]", headers))


def _content(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    now = time.localtime()
    exported = {"date": time.strftime("%Y-%m-%d", now), "time": time.strftime("%H:%M:%S", now)}
    message: Any
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, (dict, list)):
        try:
            message, exported["encoding"] = body.decode(), "text"
        except UnicodeDecodeError:
            message, exported["encoding"] = base64.b64encode(body).decode(), "base64"
    return {"exported": exported, "header": _header(headers), "message": cast("Any", message)}


def _header(headers: Mapping[str, str]) -> dict[str, Any]:
    """Headers without those of this delivery, and as tools of the field expect them: on RabbitMQ, what the
    broker notes of deaths is a list.
    """
    found: dict[str, Any] = {name: value for name, value in headers.items() if name not in _PASSING}
    with contextlib.suppress(ValueError, RecursionError):
        deaths: Any = json.loads(headers.get("x-death", ""))
        if isinstance(deaths, list):
            found["x-death"] = deaths
    return found


def _name(headers: Mapping[str, str], message_id: str) -> str:
    stamp = headers.get("timestamp", "")
    moment = (
        int(stamp) if stamp.isascii() and stamp.isdecimal() and len(stamp) < 15 else time.time_ns() // 10**6
    )
    clock = time.strftime("%Y%m%d-%H%M%S", time.localtime(moment / 1000))
    name = _UNSAFE.sub("_", message_id)[-_LONGEST_NAME:] or "unnamed"
    return f"msg-{clock}-{moment % 1000:03d}-{name}"


def _bytes(file: Path) -> bytes:
    try:
        # What is no plain file could keep us waiting for ever.
        number = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as stream:
            if not file.is_file():
                raise ExportError(f"{file} is no file")
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ExportError(f"{file}: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise ExportError(f"{file} is larger than {_LARGEST >> 20} MB")
    return content


def _parse(content: bytes, file: Path) -> tuple[dict[str, str], bytes]:
    try:
        whole: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{file} is not JSON: {str(error)[:200]}") from None
    if not isinstance(whole, dict):
        raise ExportError(f"{file} is no dead letter: it is not an object")
    entries = cast("dict[str, Any]", whole)
    header, exported = entries.get("header"), entries.get("exported")
    if not isinstance(header, dict) or "message" not in entries:
        raise ExportError(f'{file} is no dead letter: it lacks "header" or "message"')
    headers = {str(name): _text(value) for name, value in cast("dict[str, Any]", header).items()}
    encoding: Any = cast("dict[str, Any]", exported).get("encoding") if isinstance(exported, dict) else None
    return headers, _body(entries["message"], encoding, file)


def _body(message: Any, encoding: Any, file: Path) -> bytes:
    if isinstance(message, str) and encoding == "text":
        return message.encode(errors="replace")
    if isinstance(message, str) and encoding == "base64":
        try:
            return base64.b64decode(message, validate=True)
        except (binascii.Error, ValueError):
            raise ExportError(f"{file}: its message is not base64") from None
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        return json.dumps(message).encode()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value)
