"""A series of a detector's stream as NXmx files, to be read while they are written."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from parvis_services.acquire.data_files import DataFiles, UnfitFrame, data_files, take_stock
from parvis_services.acquire.hdf5_record import SavedSeries, Summary, fingerprint, from_one, save
from parvis_services.number_ranges import NumberRanges
from parvis_services.nxmx_files import LIBVER, Circumstances, Series, timestamp, write_master, write_meta
from parvis_services.stores.manifest import Ended
from parvis_services.stream.encoding import raw_size
from parvis_services.stream.events import Frame, MalformedStream, SeriesStart

_log = logging.getLogger(__name__)

MOST_IMAGES: Final = 10_000_000
"""Images that a series may have; who says more is not believed."""

_MOST_NAMES: Final = 1000
_LONGEST_APPENDIX: Final = 1_000_000


class SeriesFile:
    """Writes the images of a series. Use `begin` or `resume` to make one; one thread may use it.

    The master appears as soon as the shape and type of the images are known, each data file with its first
    image. What is not written has no chunk, and reads as the highest count of its type, for `no count`.

    Attributes:
        saved: What `resume` needs.
        summary: What became of the images; `finish` brings it up to date.
        written: Numbers of the images, from 0, that are in the files.
    """

    def __init__(self, saved: SavedSeries) -> None:
        self.saved = saved
        self.summary = saved.summary
        self.written = NumberRanges()
        self._failed = NumberRanges((first - 1, last - 1) for first, last in saved.summary.failed)
        self._files = DataFiles()
        self._series: Series | None = None

    @classmethod
    def begin(
        cls,
        start: SeriesStart,
        directory: Path,
        name: str,
        *,
        images_per_file: int = 1000,
        detector: str = "detector",
        dcid: int | None = None,
    ) -> SeriesFile:
        """Begin a series in new files. Where there are such, they are left alone, and ours are `<name>_2`.

        Args:
            start: What the detector says of it.
            directory: Where the files go; it is made if it is not there.
            name: What they are called, without ending.
            images_per_file: After so many a new data file begins.
            detector: Name of the detector.
            dcid: The data collection, if known.

        Raises:
            OSError: The files cannot be made.
        """
        directory.mkdir(parents=True, exist_ok=True)
        header, images = start.header, start.header.images
        if images is not None and not 0 < images <= MOST_IMAGES:
            _log.warning("series %d of %s is to have %d images: not believed", start.series, detector, images)
            images = None
        summary = Summary(
            detector=detector, dcid=dcid, series=start.series, unique_id=start.unique_id, expected=images
        )
        series = cls(
            SavedSeries(
                directory=directory,
                prefix=_reserve(directory, name, start),
                images_per_file=images_per_file,
                header=header,
                masked=start.mask is not None,
                start=_time_of(start),
                fingerprint=fingerprint(start),
                summary=summary,
            )
        )
        if header.shape is not None and header.dtype is not None:
            with suppress(MalformedStream):  # then the first image says better
                series._describe(header.shape, header.dtype)
        return series

    @classmethod
    def resume(cls, saved: SavedSeries) -> SeriesFile:
        """Go on with a series that was begun before, perhaps by a process that was killed."""
        series = cls(saved)
        series._take_stock()
        series.summary.ended = None
        series.summary.written = len(series.written)
        return series

    def append(self, frame: Frame) -> bool:
        """Write an image.

        Returns:
            Whether it was written; not if it is there already.

        Raises:
            UnfitFrame, MalformedStream: It cannot be one of this series.
            OSError: The disk does not take it.
        """
        summary = self.summary
        summary.last_seen = time.time()
        if summary.first_seen is None:
            summary.first_seen = summary.last_seen
        if frame.number in self.written:
            summary.duplicates += 1
            return False
        try:
            self._files.write(frame, self._fitting(frame))
        except (UnfitFrame, MalformedStream):
            summary.unfit += 1
            raise
        except OSError as error:
            self._failed.add(frame.number)
            raise OSError(f"image {frame.number + 1} cannot be written: {error}") from None
        self.written.add(frame.number)
        summary.bytes += frame.data.nbytes
        return True

    def flush(self) -> None:
        """Let readers see what is written. Raises OSError if the disk does not take it."""
        self._files.flush()

    def finish(self, ended: Ended, dropped: NumberRanges | None = None) -> Summary:
        """Close the files, and say in the master and beside it what became of the images.

        After a time-out or a stop, `resume` may go on with the series.

        Args:
            ended: How it ended.
            dropped: Numbers of images, from 0, that came and were not kept.

        Raises:
            OSError: The disk does not take it.
        """
        try:
            self._files.close()
            if self._failed:
                self._take_stock()  # as what was not taken at once may be there in the end
        finally:
            summary = self._summarise(ended, dropped or NumberRanges())
            if self.written:
                self._write_master()
            elif ended in {"end message", "next series"}:
                self._withdraw()
            save(self.saved.directory / f"{self.saved.prefix}_summary.json", summary)
        return summary

    def _take_stock(self) -> None:
        """See which images the files have."""
        saved, self.written = self.saved, NumberRanges()
        for number, path in data_files(saved.directory, saved.prefix):
            try:
                stock = take_stock(number, path, saved.images_per_file)
            except (OSError, ValueError, RuntimeError) as error:
                _log.error("what is in %s is lost: %s", path, error)
                continue
            for image in stock.numbers:
                self.written.add(image)
            self._series = self._files_of(stock.shape, stock.dtype)

    def _summarise(self, ended: Ended, dropped: NumberRanges) -> Summary:
        summary, written = self.summary, self.written
        summary.ended = ended
        summary.written = len(written)
        summary.missing = [(first + 1, last + 1) for first, last in written.gaps(0, self._length() - 1)]
        summary.dropped = from_one(_without(dropped, written))
        summary.failed = from_one(_without(self._failed, written))
        return summary

    def _withdraw(self) -> None:
        """Take away the files of a series that no image came of."""
        series = self._series or self._files_of((1, 1), "uint32")
        for path in (series.master, series.meta):
            path.unlink(missing_ok=True)
        self.summary.master = None

    def _fitting(self, frame: Frame) -> Series:
        """Where an image goes, if it is one of this series."""
        length = self.summary.expected or MOST_IMAGES
        if not 0 <= frame.number < length:
            raise UnfitFrame(f"image {frame.number + 1} is not one of {length}")
        series = self._series
        if series is not None and (series.shape, series.dtype) == (frame.shape, frame.dtype):
            return series
        if series is not None and self.written:
            raise UnfitFrame(
                f"image {frame.number + 1} has {frame.shape} pixels of {frame.dtype}, "
                f"those before it {series.shape} of {series.dtype}"
            )
        return self._describe(frame.shape, frame.dtype)

    def _describe(self, shape: tuple[int, int], dtype: str) -> Series:
        """Write the master, now that it is known what images there will be."""
        raw_size(shape, dtype)
        self._series = self._files_of(shape, dtype)
        if self.summary.expected is not None:
            self._write_master()
        return self._series

    def _files_of(self, shape: tuple[int, int], dtype: str) -> Series:
        saved, images = self.saved, self.summary.expected or MOST_IMAGES
        return Series(saved.directory, saved.prefix, images, shape, saved.images_per_file, dtype=dtype)

    def _length(self) -> int:
        """How many images the series has, as far as is known."""
        return self.summary.expected or (self.written.highest or 0) + 1

    def _write_master(self) -> None:
        saved, summary = self.saved, self.summary
        if self._series is None:
            return
        series = Series(**{**vars(self._series), "images": self._length()})
        sample = "unknown" if summary.dcid is None else f"data collection {summary.dcid}"
        circumstances = Circumstances(saved.start, instrument=summary.detector, sample=sample)
        # Its name appears only when it is complete: those who wait for the master read it at once.
        unfinished = series.master.with_name(f".{series.master.name}")
        try:
            write_master(unfinished, series, saved.header, circumstances, masked=saved.masked)
            if summary.ended is not None:
                _write_completeness(unfinished, summary)
            unfinished.replace(series.master)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(f"{series.master} cannot be written: {error}") from None
        summary.master = series.master


def _write_completeness(master: Path, summary: Summary) -> None:
    """Say in the master what became of the images; numbers count from 1."""
    with h5py.File(master, "r+", libver=LIBVER) as file:
        if summary.last_seen is not None:
            file["entry/end_time"] = timestamp(datetime.fromtimestamp(summary.last_seen, UTC))
        group = file.create_group("entry/completeness")
        group.attrs["NX_class"] = np.bytes_("NXcollection")
        group["ended"] = np.bytes_(str(summary.ended))
        group["images_written"] = np.int64(summary.written)
        if summary.expected is not None:
            group["images_expected"] = np.int64(summary.expected)
        for name in ("missing", "dropped", "failed"):
            ranges: list[tuple[int, int]] = getattr(summary, name)
            group[name] = np.array(ranges, dtype=np.int64).reshape(-1, 2)


def _reserve(directory: Path, name: str, start: SeriesStart) -> str:
    """Find a name that no series has, and make it ours by its meta file."""
    config = dict(start.config)
    if start.appendix is not None:
        config["appendix"] = _as_text(start.appendix)
    for number in range(1, _MOST_NAMES + 1):
        prefix = name if number == 1 else f"{name}_{number}"
        series = Series(directory, prefix, 1, (1, 1))
        taken = [series.master, series.meta, directory / f"{prefix}_summary.json"]
        if any(path.exists() for path in taken) or any(data_files(directory, prefix)):
            continue
        try:
            write_meta(series.meta, start.mask, config)
        except FileExistsError:
            continue
        except OSError:
            series.meta.unlink(missing_ok=True)
            raise
        return prefix
    raise FileExistsError(f"{directory} has {_MOST_NAMES} series called {name}: move some away")


def _as_text(appendix: Any) -> str:
    try:
        return json.dumps(appendix)[:_LONGEST_APPENDIX]
    except (TypeError, ValueError, RecursionError):
        return repr(type(appendix).__name__)


def _time_of(start: SeriesStart) -> datetime:
    """When a series began: when the detector was armed for it if it says so, else now."""
    armed = start.config.get("arm_date")
    with suppress(TypeError, ValueError):
        time_armed = datetime.fromisoformat(armed)  # pyright: ignore[reportArgumentType] - TypeError if it is no text
        return time_armed if time_armed.tzinfo else time_armed.astimezone()
    return datetime.now(UTC)


def _without(numbers: NumberRanges, others: NumberRanges) -> NumberRanges:
    """The numbers that are not among others."""
    return NumberRanges(gap for first, last in numbers.ranges() for gap in others.gaps(first, last))
