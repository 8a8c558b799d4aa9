"""What can be wrong with an image, said so that a person knows what to do."""

from __future__ import annotations

from pathlib import Path


class ImageError(Exception):
    """An image cannot be read or analysed. `path` is the file, `reason` says what is wrong with it."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class MissingImageError(ImageError):
    """There is no such file, or it cannot be opened."""


class UnfinishedImageError(ImageError):
    """The file, or the frame in it, is not complete: still being written, or cut short."""


class ForbiddenImageError(ImageError):
    """The file, or one that it links to, may not be read for whoever asked."""


class UnknownFormatError(ImageError):
    """The file is not an image of a kind that can be read here."""


class FrameRangeError(ImageError):
    """The file has no frame of that number."""


class BrokenImageError(ImageError):
    """The file is an image, but what it says is damaged or contradicts itself."""


class TooManyStrongPixelsError(ImageError):
    """So much of the image is strong that its spots mean nothing."""
