"""Where the HDF5 files of a series go."""

from __future__ import annotations

import string
from datetime import date
from pathlib import Path
from typing import Final

from parvis_services.paths import PathRule
from parvis_services.stream.detectors import DetectorSettings, file_name_of

FIELDS: Final = ("detector", "dcid", "series", "date")


class HDF5Place:
    """The directory and the name of each series, as the settings of a detector say.

    Nothing that comes with the stream can lead elsewhere: of a series there are only numbers in them.

    Args:
        detector: Its name.
        settings: Its settings.
        rule: Which paths the site allows.

    Raises:
        ValueError: The settings name no directory, or one with something in braces that cannot be filled in.
    """

    def __init__(self, detector: str, settings: DetectorSettings, rule: PathRule) -> None:
        if settings.directory is None:
            raise ValueError("directory: says where HDF5 files go, and is not set")
        self._detector = detector
        self._settings = settings
        self._rule = rule
        try:
            self._parts = list(string.Formatter().parse(str(settings.directory)))
        except ValueError as error:
            raise ValueError(f"directory: is no good: {error}") from None
        for _, field, form, conversion in self._parts:
            if field is not None and (field not in FIELDS or form or conversion):
                raise ValueError(f"directory: only {{{'}, {'.join(FIELDS)}}} can be filled in")

    def of(self, dcid: int | None, series: int, day: date) -> tuple[Path, str]:
        """Directory, and name without ending, of the files of a series.

        Raises:
            PathNotAllowed: The site does not allow it.
        """
        values = {
            "detector": self._detector,
            "dcid": "none" if dcid is None else str(dcid),
            "series": str(series),
            "date": day.isoformat(),
        }
        filled = "".join(text + (values[field] if field else "") for text, field, _, _ in self._parts)
        return self._rule.path(filled), file_name_of(self._detector, self._settings, dcid, series)
