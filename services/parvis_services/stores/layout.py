"""Where the objects of a series of images are: their keys, made and taken apart again.

`standard`: `PREFIX/DCID/SERIES/` and then `header`, `mask`, `000001`..., `manifest`, `pins/TOKEN`, in a
bucket that holds many series; what has the same number as one before it, as a detector that is switched on
counts from 1 again, gets `SERIES-2`. `prototype`: a bucket a data collection, named after the DCID, with the
same names at its top: what the first object store tools for Zocalo wrote and read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from parvis_services.stores.url import BadUrl, ObjectUrl, check_bucket, check_key

Layout = Literal["standard", "prototype"]

#: The highest number of an image: keys have six digits, so that their order is that of the images.
LAST_NUMBER: Final = 999_999

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)  # of a data collection
_REPEAT: Final = r"(?:-([2-9]|[1-9][0-9]{1,5}))?"
_SERIES: Final = re.compile(r"(0|[1-9][0-9]{0,18})" + _REPEAT, re.ASCII)
_BUCKET: Final = re.compile(r"([1-9][0-9]{0,18})" + _REPEAT, re.ASCII)  # in the prototype's layout
_FRAME: Final = re.compile(r"[0-9]{6}", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.=+\-]{1,200}", re.ASCII)
_SINGLE: Final = frozenset({"header", "mask", "manifest"})
_PINS: Final = "pins"


@dataclass(frozen=True, slots=True)
class SeriesPlace:
    """The place of a series.

    Attributes:
        layout: How keys are made.
        bucket: Name of the bucket. In the prototype's layout it is the DCID, whatever is given, and where
            there are several series of it, `DCID-2`.
        prefix: What keys begin with, without a slash at its ends; may be empty. The prototype has none.
        dcid: ID of the data collection.
        series: Number of the series, as the detector counts. The prototype has one a bucket, and calls it 0.
        repeat: Which of several with the same number, from 1.

    Raises:
        BadUrl: Bucket or prefix cannot be such.
        ValueError: DCID or series is negative, or the DCID or `repeat` 0.
    """

    layout: Layout
    bucket: str
    prefix: str
    dcid: int
    series: int
    repeat: int = 1

    def __post_init__(self) -> None:
        if self.dcid < 1 or self.series < 0 or self.repeat < 1:
            raise ValueError(f"there is no series {self.series} of a data collection {self.dcid}")
        if self.layout == "prototype":
            bucket = f"{self.dcid}{self._again}"
            for name, value in (("bucket", bucket), ("prefix", ""), ("series", 0)):
                object.__setattr__(self, name, value)
        check_bucket(self.bucket)
        if self.prefix:
            check_key(self.prefix)

    @classmethod
    def of(cls, url: ObjectUrl) -> SeriesPlace:
        """The series that an address is in: that of any object of a series, or what all of them begin with.

        Raises:
            BadUrl: It is in no series.
        """
        parts = _without_last(url.key)
        if not parts and (match := _BUCKET.fullmatch(url.bucket)):
            return cls("prototype", url.bucket, "", int(match[1]), 0, int(match[2] or 1))
        if len(parts) >= 2 and _NUMBER.fullmatch(parts[-2]) and (match := _SERIES.fullmatch(parts[-1])):
            prefix = "/".join(parts[:-2])
            series, repeat = int(match[1]), int(match[2] or 1)
            return cls("standard", url.bucket, prefix, int(parts[-2]), series, repeat)
        raise BadUrl(
            f"{url} is in no series: the key must be PREFIX/DCID/SERIES/NAME, with NAME six digits, header, "
            "mask or manifest; or NAME alone, in a bucket named after the DCID"
        )

    @property
    def frames_prefix(self) -> str:
        """What all keys of the series begin with, a slash at its end; empty in the prototype's layout.

        Numbers come before letters: listed in order, the images come first.
        """
        if self.layout == "prototype":
            return ""
        return f"{self.prefix}/{self.dcid}/{self.series}{self._again}/".lstrip("/")

    @property
    def _again(self) -> str:
        return f"-{self.repeat}" if self.repeat > 1 else ""

    @property
    def header(self) -> str:
        """Key of the header."""
        return f"{self.frames_prefix}header"

    @property
    def mask(self) -> str:
        """Key of the pixel mask."""
        return f"{self.frames_prefix}mask"

    @property
    def manifest(self) -> str:
        """Key of the manifest."""
        return f"{self.frames_prefix}manifest"

    def frame(self, number: int) -> str:
        """Key of an image.

        Args:
            number: Of the image, from 1.

        Raises:
            ValueError: There can be no image of that number.
        """
        if not 1 <= number <= LAST_NUMBER:
            raise ValueError(f"there is no image {number}: images are numbered from 1 to {LAST_NUMBER}")
        return f"{self.frames_prefix}{number:06d}"

    def number_of(self, key: str) -> int | None:
        """The number of the image that has this key; None if it is no image of the series."""
        name = key.removeprefix(self.frames_prefix)
        found = key.startswith(self.frames_prefix) and _FRAME.fullmatch(name)
        return int(name) or None if found else None

    @property
    def pins_prefix(self) -> str:
        """What the keys of pins begin with: whoever needs the series leaves one there."""
        return f"{self.frames_prefix}{_PINS}/"

    def pin(self, token: str) -> str:
        """Key of a pin. Raises BadUrl if the token has other characters than a key may have, or slashes."""
        if not _TOKEN.fullmatch(token):
            raise BadUrl(f"{token[:80]!r} cannot name a pin: letters, digits and '_.=+-', at most 200")
        return check_key(f"{self.pins_prefix}{token}")


def is_prototype_bucket(name: str) -> bool:
    """Whether a bucket may hold a series in the prototype's layout."""
    return _BUCKET.fullmatch(name) is not None


def _without_last(key: str) -> list[str]:
    """The parts of a key without the name of the object in its series."""
    parts = key.split("/") if key else []
    if len(parts) >= 2 and parts[-2] == _PINS:
        return parts[:-2]
    if parts and (parts[-1] in _SINGLE or _FRAME.fullmatch(parts[-1])):
        # A DCID or a series may have six digits: what is left must end in two numbers, or be nothing.
        rest = parts[:-1]
        if not rest or (len(rest) >= 2 and _NUMBER.fullmatch(rest[-2]) and _SERIES.fullmatch(rest[-1])):
            return rest
    return parts
