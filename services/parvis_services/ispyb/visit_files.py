"""What users put into their visit for the processing to read, looked up within a time limit.

Everything read here was written by users, and everything is looked at as such: small regular files only, no
values that are not what they claim to be, nothing written outside the visit.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import queue
import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from parvis_services.ispyb.directories import Site, Visit
from parvis_services.ispyb.errors import VisitUnreachable

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MOST_BYTES = 256 * 1024
_MOST_ENTRIES = 1000
_SPACE_GROUP = re.compile(r"[PABCIFRH] ?(?:[-/ ]?[1-6mabcden])+(?: ?:[12HR])?")
# A look-up on a file system that hangs cannot be stopped; no more than these are left behind.
_places = threading.BoundedSemaphore(8)


@dataclass
class VisitFiles:
    """What was found in a visit.

    Attributes:
        space_group: as the user's settings for these images give it.
        unit_cell: likewise, a, b, c in Angstrom and three angles in degrees.
        reference_geometry: path of the user's refined detector geometry.
        sample_groups: names of directories that belong together with the one of these images.
        models: `{"code", "filepath", "source"}` of each model of the protein, from ISPyB and from the user.
    """

    space_group: str | None = None
    unit_cell: tuple[float, ...] | None = None
    reference_geometry: str | None = None
    sample_groups: list[list[str]] = field(default_factory=list)
    models: list[dict[str, str | None]] = field(default_factory=list)


def look_in_visit(
    visit: Visit, template: str | None, models: Sequence[Mapping[str, str | None]], site: Site
) -> VisitFiles:
    """Look up the files of a visit that concern one data collection.

    Args:
        visit: where its images are.
        template: its file template.
        models: the models of its protein that ISPyB holds (see `science.protein_models`).
        site: how the visit is laid out.

    Raises:
        VisitUnreachable: it took longer than the site allows; the look-up is left behind.
    """

    def look() -> VisitFiles:
        parts = [part for part in (*visit.rest.split("/"), template or "") if part]
        user = Path(visit.directory) / site.user_files
        found = VisitFiles()
        found.space_group, found.unit_cell = _crystal(user, parts)
        geometry = user / "reference_geometry.expt"
        found.reference_geometry = str(geometry) if geometry.is_file() else None
        found.sample_groups = _sample_groups(user / "sample_groups.yml", set(parts))
        found.models = [*_stored_models(visit, models, site), *_user_models(user / "pdb")]
        return found

    return within(site.file_timeout, f"the files of visit {visit.name} ({visit.directory})", look)


def within(seconds: float, what: str, look: Callable[[], T]) -> T:
    """Call a function that may hang, and wait for it no longer than a time.

    Args:
        seconds: how long to wait.
        what: what is looked at, for the error.
        look: the function; it runs in a thread of its own, which is left behind if it hangs.

    Raises:
        VisitUnreachable: it hangs, or too many before it still do.
    """
    if not _places.acquire(blocking=False):
        raise VisitUnreachable(f"{what} were not looked at: earlier look-ups still hang")
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((look(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            outcome.put((None, error))
        finally:
            _places.release()

    threading.Thread(target=run, name=f"look at {what}", daemon=True).start()
    try:
        found, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise VisitUnreachable(f"{what} could not be looked at within {seconds:g} s") from None
    if error is not None:
        raise error
    return found  # pyright: ignore[reportReturnType] - without an error it is what `look` returned


def _crystal(user: Path, parts: Sequence[str]) -> tuple[str | None, tuple[float, ...] | None]:
    """Space group and cell of the first settings file that is named like a directory of the images."""
    names = {part.lower() for part in parts}
    for path in _entries(user, (".yml", ".yaml")):
        if path.stem.lower() not in names:
            continue
        settings = _read_yaml(path)
        if isinstance(settings, dict):
            return _space_group(settings, path), _unit_cell(settings, path)
    return None, None


def _space_group(settings: Mapping[Any, Any], path: Path) -> str | None:
    given = settings.get("ispyb_space_group")
    if given is None:
        return None
    if isinstance(given, str) and len(given) <= 20 and _SPACE_GROUP.fullmatch(given.strip()):
        return given.strip()
    _log.warning("%s: ispyb_space_group is no space group and is ignored", path)
    return None


def _unit_cell(settings: Mapping[Any, Any], path: Path) -> tuple[float, ...] | None:
    given = settings.get("ispyb_unit_cell")
    if given is None:
        return None
    values = given.replace(",", " ").split() if isinstance(given, str) else given
    try:
        cell = tuple(float(value) for value in itertools.islice(values, 7))
    except (TypeError, ValueError):
        cell = ()
    if len(cell) == 6 and all(math.isfinite(each) and each > 0 for each in cell) and max(cell[3:]) < 180:
        return cell
    _log.warning("%s: ispyb_unit_cell is not six positive numbers and is ignored", path)
    return None


def _sample_groups(path: Path, parts: set[str]) -> list[list[str]]:
    """The groups (lists of names) that one of the directories of the images is in."""
    groups = _read_yaml(path)
    if groups is None:
        return []
    if not isinstance(groups, list):
        _log.warning("%s is not a list of lists of names and is ignored", path)
        return []
    named = (_names(group) for group in groups[:_MOST_ENTRIES])
    return [names for names in named if not parts.isdisjoint(names)]


def _names(group: object) -> list[str]:
    return [str(name) for name in group[:_MOST_ENTRIES]] if isinstance(group, list) else []


def _stored_models(
    visit: Visit, models: Iterable[Mapping[str, str | None]], site: Site
) -> Iterable[dict[str, str | None]]:
    for model in models:
        code, contents = (model["code"] or "").strip(), model["contents"]
        if len(code) == 4 and code.isascii() and code.isalnum():
            yield {"code": code, "filepath": None, "source": model["source"]}
        elif contents:
            path = _write_model(visit, site, model["name"] or "", contents)
            if path is not None:
                yield {"code": None, "filepath": path, "source": model["source"]}


def _user_models(directory: Path) -> Iterable[dict[str, str | None]]:
    for path in _entries(directory, (".pdb",)):
        yield {"code": None, "filepath": str(path), "source": None}


def _write_model(visit: Visit, site: Site, name: str, contents: str) -> str | None:
    """Write a model that ISPyB holds as a file, under the hash of its contents, unless it is there."""
    if not name or name.startswith(".") or not re.fullmatch(r"[^/\x00-\x1f]+", name):
        _log.warning("a model in ISPyB has the name %r, which is no file name; it is left out", name)
        return None
    digest = hashlib.sha1(contents.encode(), usedforsecurity=False).hexdigest()
    directory = Path(visit.directory) / site.pdb_files / digest
    target = directory / name
    try:
        if target.is_file():
            return str(target)
        inside = Path(visit.directory).resolve()
        if not directory.resolve().is_relative_to(inside):
            raise PermissionError(f"{directory} leads out of the visit")
        if not inside.is_dir():
            raise FileNotFoundError(f"there is no {visit.directory}")
        directory.mkdir(parents=True, exist_ok=True)
        _write_at_once(target, contents)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        _log.warning("the model %s could not be written and is left out: %s", target, error)
        return None
    return str(target)


def _write_at_once(target: Path, contents: str) -> None:
    # Under another name first: whoever sees the file sees all of it.
    part = target.with_name(f".{uuid.uuid4().hex}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(contents)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _entries(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The regular files of a directory with one of these endings, by name; none if it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            wanted = (entry for entry in entries if entry.name.endswith(suffixes) and entry.is_file())
            found = [Path(entry.path) for entry in itertools.islice(wanted, _MOST_ENTRIES)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _log.warning("%s cannot be read: %s", directory, error)
        return []
    return sorted(path for path in found if path.stem and not path.name.startswith("."))


def _read_yaml(path: Path) -> object:
    text = _small_file(path)
    if text is None:
        return None
    import yaml  # here, as few visits have such a file

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader, in C where it can be
    except yaml.YAMLError as error:
        # Its full text would quote the file.
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        _log.warning("%s%s is not valid YAML and is ignored", path, line)
    except (ValueError, RecursionError) as error:
        _log.warning("%s cannot be read: %s", path, type(error).__name__)
    return None


def _small_file(path: Path) -> bytes | None:
    """The contents of a regular file that is not large; None if there is none."""
    try:
        # A pipe must not keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode) and about.st_size <= _MOST_BYTES:
                return file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error)
        return None
    _log.warning("%s is no file of at most %d bytes and is ignored", path, _MOST_BYTES)
    return None
