"""What can go wrong between Parvis and ISPyB, each with a text for the person who reads it."""

from __future__ import annotations

from collections.abc import Sequence


class IspybError(Exception):
    """Anything that went wrong with ISPyB; the others derive from it."""


class BadDatabaseUrl(IspybError):
    """The database URL or the credentials cannot be used as they are."""


class DatabaseError(IspybError):
    """The database answered, and refused: wrong credentials, a missing table, a value it does not take."""


class DatabaseUnavailable(IspybError):
    """The database cannot be reached or is too busy just now: the same call may succeed later."""


class Deadlock(DatabaseUnavailable):
    """Two writers waited for each other and this one was undone: the same call may succeed at once."""


class BadParameter(IspybError):
    """A parameter of a look-up (a number, an identifier) is not what it must be."""


class UnknownDataCollection(IspybError):
    """No data collection has that number."""


class UnknownProcessingJob(IspybError):
    """No processing job has that number."""


class VisitUnreachable(IspybError):
    """The files of a visit could not be looked at in time: the file system may be stuck, try again later."""


class BadImageResult(IspybError):
    """A per-image result has no image number, no counts, or a value that is no number."""


class MissingDataCollections(IspybError):
    """Per-image results named data collections that do not exist; all other results were stored.

    Attributes:
        dcids: the missing data collections, ascending.
        stored: how many results were stored.
        left_out: how many results were not.
    """

    def __init__(self, dcids: Sequence[int], *, stored: int, left_out: int) -> None:
        self.dcids = tuple(sorted(dcids))
        self.stored = stored
        self.left_out = left_out
        named = ", ".join(str(dcid) for dcid in self.dcids[:10])
        more = f" and {len(self.dcids) - 10} more" if len(self.dcids) > 10 else ""
        noun = "data collection" if len(self.dcids) == 1 else "data collections"
        super().__init__(
            f"{left_out} per-image results name {noun} {named}{more}, which ISPyB does not have; "
            f"the other {stored} results were stored"
        )
