"""Requests that were stored while the broker was away: found, put in order, sent, each once.

A file is claimed by renaming it, sent, and deleted when the broker has confirmed the message. Whoever dies in
between leaves a claim, which others take back. What cannot be sent is set aside in `broken/`, with the reason
in a file beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, cast

from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json
from parvis.recipe.problem import printable
from parvis.service.identity import IDENTITY
from parvis.steer.exported import sync
from parvis.transport.base import BrokerRefused, Send, Transport, own_headers

QUEUE: Final = "processing_recipe"
BROKEN: Final = "broken"

#: Seconds after which a file is thought to be whole, and seconds between two that are sent.
SETTLED_AFTER: Final = 60.0
PAUSE: Final = 2.0

_LARGEST: Final = 8 * 1024 * 1024
_CLAIM: Final = re.compile(r"\.(?P<name>.+)\.claim-(?P<host>[^-]*)-(?P<pid>\d{1,10})-(?P<at>\d{1,12})")
_CLAIM_LASTS: Final = 600.0
_LONGEST_NAME: Final = 150
_HOSTS: Final = ("zocalo.go.host", "dlstbx.go.host")
_MOST_TWINS: Final = 1000
_SEND_TIMEOUT: Final = 60.0

# What is worth less the longer one waits goes last, and what is run now goes first.
_NEWEST_OF_HOST: Final = 30
_WORTH: Final = (
    (re.compile("dozor"), -30),
    (re.compile("^xray-centering"), -10),
    (re.compile("^per-image-analysis-gridscan"), -10),
    (re.compile("^per-image-analysis-rotation"), -5),
    (re.compile("^archive-cbf"), 3),
)

_log = logging.getLogger("parvis.pickup")


class Unreadable(Exception):
    """A file is no request; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request in a file.

    Attributes:
        file: Where.
        stored: When it was written, in s since 1970.
        headers, message: As they were to be sent.
    """

    file: Path
    stored: float
    headers: Mapping[str, str]
    message: Mapping[str, Any]

    @property
    def host(self) -> str:
        """Where it was made; `unknown` if it does not say."""
        return next((self.headers[name] for name in _HOSTS if self.headers.get(name)), "unknown")

    @property
    def recipes(self) -> list[str]:
        """The recipes that it asks for by name."""
        named: Any = self.message.get("recipes")
        names = cast("list[Any]", named) if isinstance(named, list) else [named]
        return [name for name in names if isinstance(name, str)]


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is no request.

    Attributes:
        file: Where it was.
        place: Where it is now; None if it could not be moved.
        reason: What is wrong with it.
    """

    file: Path
    place: Path | None
    reason: str


def stored_files(directory: Path) -> list[Path]:
    """Return the files that wait to be sent, broken ones among them, the oldest first.

    Claims of those who died are taken back. Directories are no files, nor is what begins with a dot, which is
    how a file is called that is being written.

    Raises:
        OSError: The directory cannot be read. One that is not there has no files.
    """
    found: list[tuple[float, str, Path]] = []
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    for entry in entries:
        file = Path(entry.path)
        if entry.name.startswith("."):
            back = _taken_back(file)
            if back is None:
                continue
            file = back
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            if not stat.S_ISDIR(status.st_mode):
                found.append((status.st_mtime, file.name, file))
    return [file for _, _, file in sorted(found)]


def is_settled(file: Path, after: float, now: float) -> bool:
    """Whether nobody has written to a file for a time, in s; one of the future is as old as one of now."""
    return time_to_settle(file, after, now) <= 0


def time_to_settle(file: Path, after: float, now: float) -> float:
    """Seconds until `is_settled`."""
    try:
        return min(after, file.lstat().st_mtime + after - now)
    except FileNotFoundError:
        return 0.0


def read(file: Path) -> Request:
    """Read a request.

    Raises:
        Unreadable: It is none.
        FileNotFoundError: Somebody else has taken it.
        OSError: It cannot be read just now.
    """
    content, stored = _content(file)
    try:
        whole = parse_json(content)
    except (MalformedMessage, RecursionError) as error:
        text = str(error).removeprefix("the body")
        raise Unreadable(f"it is empty or cut off: {text}" if not content.strip() else f"it{text}") from None
    entries = cast("dict[str, Any]", whole) if isinstance(whole, dict) else {}
    headers, message = entries.get("headers"), entries.get("message")
    if not isinstance(headers, dict) or not isinstance(message, dict):
        raise Unreadable('it is no stored request: that has "headers" and "message", both objects')
    named = {str(name): str(value) for name, value in cast("dict[str, Any]", headers).items()}
    return Request(file, stored, own_headers(named), cast("dict[str, Any]", message))


def in_order(requests: Iterable[Request]) -> list[Request]:
    """Return requests in the order in which they are to be sent.

    That is by what they are worth now: the newest of each host, which is the present experiment, first; then
    archiving; analyses that somebody watched while images were taken last; and in between by age.
    """
    every = list(requests)
    newest: dict[str, float] = {}
    for one in every:
        newest[one.host] = max(one.stored, newest.get(one.host, 0.0))

    def place(one: Request) -> tuple[int, float, str]:
        current = _NEWEST_OF_HOST if one.stored >= newest[one.host] else 0
        return -(current + worth(one.recipes)), one.stored, one.file.name

    return sorted(every, key=place)


def worth(recipes: Sequence[str]) -> int:
    """Return how much a request is worth after the broker was away, by the recipes that it asks for."""
    return sum(weight for name in recipes for pattern, weight in _WORTH if pattern.search(name))


def send(transport: Transport, request: Request) -> bool:
    """Send a request, and delete its file when the broker has confirmed it.

    Return False if somebody else has the file.

    Raises:
        Unreadable: The message cannot be sent, whatever the broker; the file is where it was.
        TransportError: The broker did not confirm it; the file is where it was.
        OSError: The file cannot be renamed, or not be deleted.
    """
    try:
        message = Send(QUEUE, dump_json(request.message), _headers(request))
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"its message cannot be sent: {str(error)[:200]}") from None
    claim = _claim(request.file)
    if claim is None:
        return False
    try:
        transport.send(message, timeout=_SEND_TIMEOUT)
    except BaseException as error:
        with contextlib.suppress(OSError):
            claim.rename(request.file)
        if isinstance(error, ValueError):
            raise Unreadable(f"its message cannot be sent: {str(error)[:200]}") from None
        raise
    claim.unlink()
    sync(claim.parent)
    return True


def set_aside(file: Path, reason: str) -> Broken:
    """Move a file to `broken/` beside it, with the reason in a file of the same name and `.reason`."""
    directory = file.parent / BROKEN
    try:
        directory.mkdir(exist_ok=True)
        place = _free_name(directory, file.name)
        place.with_name(f"{place.name}.reason").write_text(f"{reason}\n", encoding="utf-8", errors="replace")
        file.rename(place)
    except OSError as error:
        return Broken(file, None, f"{reason}; it cannot be moved to {directory}: {error.strerror}")
    return Broken(file, place, reason)


def read_all(files: Iterable[Path], told: Callable[[Broken], None]) -> list[Request]:
    """Return the requests in files; set those aside that are none, and tell of them.

    A file that somebody else has taken meanwhile is left out, and one that cannot be read just now.
    """
    found: list[Request] = []
    for file in files:
        try:
            found.append(read(file))
        except Unreadable as error:
            told(set_aside(file, str(error)))
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.error("%s cannot be read now: %s", printable(str(file), 300), error.strerror)
    return found


def send_all(
    transport: Transport,
    requests: Sequence[Request],
    *,
    pause: float,
    begins: Callable[[Request], None],
    done: Callable[[Request], None],
    broken: Callable[[Broken], None],
    failed: Callable[[Request, str], None],
    ended: Callable[[float], bool],
) -> None:
    """Send requests, with pauses in between. One that is refused does not keep the others.

    Args:
        transport: Connected.
        requests: In the order in which they are sent.
        pause: Seconds between two.
        begins, done: Called with each before and after.
        broken: Called with each that cannot be sent by any broker, and is set aside.
        failed: Called with each that the broker refuses, which stays, and why.
        ended: Waits for some seconds; returns whether to stop.

    Raises:
        Disconnected: The broker is away; what is not sent stays.
    """
    for number, request in enumerate(requests):
        if number and ended(pause):
            return
        begins(request)
        try:
            if send(transport, request):
                done(request)
        except Unreadable as error:
            broken(set_aside(request.file, str(error)))
        except BrokerRefused as error:
            failed(request, str(error))
        except OSError as error:
            failed(request, error.strerror or str(error))


def _headers(request: Request) -> dict[str, str]:
    """Headers, with an identity that is the same whenever this file is sent."""
    if request.headers.get(IDENTITY):
        return dict(request.headers)
    identity = blake2b(f"drop file {request.file.name}".encode(errors="replace"), digest_size=12).hexdigest()
    return {**request.headers, IDENTITY: identity}


def _content(file: Path) -> tuple[bytes, float]:
    """The content of a file and when it was written, if it is a plain one."""
    try:
        # A link may lead anywhere, and a pipe would keep us waiting.
        number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        if file.is_symlink():
            raise Unreadable("it is a symbolic link") from None
        if file.is_socket() or file.is_fifo():
            raise Unreadable("it is no plain file") from None
        raise error from None
    with os.fdopen(number, "rb") as stream:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is no plain file")
        if status.st_size > _LARGEST:
            raise Unreadable(f"it is larger than {_LARGEST >> 20} MB")
        return stream.read(_LARGEST + 1), status.st_mtime


def _claim(file: Path) -> Path | None:
    """Make a file ours; None if somebody else was quicker."""
    claim = file.with_name(f".{file.name}.claim-{_here()}-{os.getpid()}-{int(time.time())}")
    if len(os.fsencode(file.name)) > _LONGEST_NAME:
        raise Unreadable("its name is too long")
    try:
        file.rename(claim)
    except FileNotFoundError:
        return None
    return claim


def _taken_back(file: Path) -> Path | None:
    """Take back a claim of somebody who died; None if it is none, or its owner may live."""
    found = _CLAIM.fullmatch(file.name)
    if found is None or not _is_left_behind(found):
        return None
    back = file.with_name(found["name"])
    try:
        file.rename(back)
    except OSError:
        return None
    return back


def _is_left_behind(claim: re.Match[str]) -> bool:
    if abs(time.time() - int(claim["at"])) > _CLAIM_LASTS:
        return True
    if claim["host"] != _here():
        return False
    try:
        os.kill(int(claim["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _here() -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())[:60]


def _free_name(directory: Path, name: str) -> Path:
    short = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    for twin in range(1, _MOST_TWINS):
        place = directory / (short if twin == 1 else f"{short}-{twin}")
        if not os.path.lexists(place):
            return place
    raise FileExistsError(17, f"there are too many files called {printable(short)}", str(directory))
