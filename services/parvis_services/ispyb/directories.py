"""Where a site keeps a visit's files, and the directories that a recipe works in."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, field_validator

_STRANGE = re.compile(r"[\x00-\x1f]|(^|/)\.\.?(/|$)")


class Site(BaseModel):
    """The rules of a site that the fields of a data collection depend on.

    Directories are relative to the visit. The defaults are those of the facility the recipes come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    visit_pattern: str = Field(
        default=r"(?P<directory>/.*/(?P<visit>[a-z]{2}[0-9]+-[0-9]+))/",
        description="Regular expression that finds the visit in an image directory: groups `directory` and "
        "`visit`, and `beamline` where the path should name it when the session does not.",
    )
    working: str = Field(default="tmp/zocalo", description="Scratch space of recipes.")
    results: str = Field(default="processed", description="Results that users look at.")
    final: str = Field(default="processed/pipeline-final", description="Results that are kept.")
    user_files: str = Field(default="processing", description="What users write for the processing to read.")
    pdb_files: str = Field(
        default="tmp/pdb", description="Where models stored in ISPyB are written as files."
    )
    preferred_processing: str = Field(default="xia2/DIALS", description="Pipeline of samples that name none.")
    unrelated: tuple[str, ...] = Field(
        default=("/dls/mx",),
        description="Beginnings of image directories whose data collections are never processed together.",
    )
    file_timeout: float = Field(
        default=10.0, gt=0, description="Seconds for all look-ups of files in a visit."
    )

    @field_validator("visit_pattern")
    @classmethod
    def _has_groups(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if missing := {"directory", "visit"} - set(groups):
            raise ValueError(f"lacks the group {' and '.join(sorted(missing))}")
        return pattern

    @field_validator("working", "results", "final", "user_files", "pdb_files")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not path or path.startswith("/") or _STRANGE.search(path):
            raise ValueError("must be a plain path below the visit")
        return path.rstrip("/")


@dataclass(frozen=True)
class Visit:
    """A visit as an image directory names it.

    Attributes:
        name: such as `cm14451-1`.
        directory: absolute, without a slash at the end.
        rest: the image directory below the visit, without slashes at its ends.
        beamline: as the path names it; None where the site's pattern does not say.
    """

    name: str
    directory: str
    rest: str
    beamline: str | None


def find_visit(image_directory: str | None, site: Site) -> Visit | None:
    """The visit of an image directory; None if it is in none, or climbs with `..` (whoever wrote that)."""
    if not image_directory or _STRANGE.search(image_directory):
        return None
    slashed = f"{image_directory.rstrip('/')}/"
    found = re.match(site.visit_pattern, slashed)
    if found is None:
        return None
    groups = found.groupdict()
    directory, name = groups["directory"], groups["visit"]
    if not directory or not name or not directory.startswith("/"):
        return None
    rest = slashed[len(directory) :].strip("/")
    return Visit(name, directory.rstrip("/"), rest, groups.get("beamline"))


def job_directory(
    visit: Visit | None, below: str, prefix: str | None, number: int | None, guid: str
) -> str | None:
    """`<visit>/<below>/<rest>/<prefix>_<number>/<guid>`, the directory of one job of one data collection.

    Args:
        visit: where; without one there is no directory.
        below: the site's directory for this purpose, relative to the visit.
        prefix: the image prefix of the data collection.
        number: its number within the visit.
        guid: identifies the job.

    Returns:
        The path, or None if the parts would lead out of the visit.
    """
    if visit is None:
        return None
    collection = f"{prefix or ''}_{number or ''}" if prefix or number else ""
    path = "/".join(part for part in (visit.directory, below, visit.rest, collection, guid) if part)
    return None if _STRANGE.search(path) else posixpath.normpath(path)
