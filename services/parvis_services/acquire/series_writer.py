"""Writes the series of a detector to HDF5 files, one after the other, and goes on after a restart."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from parvis.recipe.problem import printable
from parvis_services.acquire.data_files import UnfitFrame
from parvis_services.acquire.event_queue import Dropped
from parvis_services.acquire.hdf5_place import HDF5Place
from parvis_services.acquire.hdf5_record import MAY_GO_ON, SavedSeries, Summary, fingerprint, load, save
from parvis_services.acquire.nxmx_file import SeriesFile
from parvis_services.number_ranges import NumberRanges
from parvis_services.stores.manifest import Ended, count_in
from parvis_services.stream.dcid import dcid_of
from parvis_services.stream.detectors import DetectorSettings
from parvis_services.stream.events import Event, Frame, MalformedStream, SeriesEnd, SeriesStart

_log = logging.getLogger(__name__)

_TRY_AGAIN: Final = 5.0
_SHOWN_RANGES: Final = 10
_DEMANDED: Final = {
    "wavelength": "wavelength",
    "distance": "distance of the detector",
    "beam_centre": "beam centre",
    "pixel_size": "pixel size",
    "thickness": "thickness of the sensor",
    "material": "material of the sensor",
}


class SeriesWriter:
    """Takes what a detector says. To be used by one thread; anybody may look at the attributes.

    A disk that does not take something costs the images in hand, never the series: it is tried on.

    Args:
        detector: Name of the detector.
        settings: Its settings.
        place: Where files go.
        memory: The file in which a writer that is restarted finds what it was writing.

    Attributes:
        summary: Of the series that is being written; None if none is.
        written, failed, missing: How many images were written so far, were not taken by the disk, and were
            found missing at the end of a series.
    """

    def __init__(self, detector: str, settings: DetectorSettings, place: HDF5Place, memory: Path) -> None:
        self.summary: Summary | None = None
        self.written = self.failed = self.missing = 0
        self._detector = detector
        self._settings = settings
        self._place = place
        self._memory = memory
        self._file: SeriesFile | None = None
        self._start: SeriesStart | None = None  # of the series that is on, while its files cannot be made
        self._try_at = 0.0
        self._dropped = NumberRanges()
        self._last_image: float | None = None
        self._problem = ""
        self._strays = 0
        self._saved: SavedSeries | None = None
        self._is_fresh = True  # nothing was announced to this process yet

    def resume(self) -> None:
        """Go on with what a writer that was killed was writing, if there is such a series."""
        try:
            self._saved = load(self._memory)
        except (OSError, ValueError) as error:
            _log.warning("nothing is known of what was written before: %s", error)
        if self._saved is not None and self._saved.summary.ended is None:
            self._go_on(self._saved)

    def handle(self, event: Event | Dropped) -> None:
        """Write what came, or note it."""
        match event:
            case SeriesStart():
                self._on_start(event)
            case Frame():
                self._on_frame(event)
            case Dropped():
                self._on_dropped(event)
            case SeriesEnd():
                self._on_end(event)

    def idle(self) -> None:
        """Nothing came for a moment: let readers see everything, and see whether the series is over."""
        if self._file is None:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._complain(str(error))
        limit = self._settings.series_timeout
        if self._last_image is not None and time.monotonic() - self._last_image > limit:
            self._finish("time-out")

    def stop(self) -> None:
        """Close the files; the next writer goes on with the series."""
        self._finish("stopped")

    def _on_start(self, start: SeriesStart) -> None:
        before = self._saved if self._was_announced(start) else None
        self._is_fresh = False
        if before is None:
            self._finish("next series")
            self._begin(start)
        elif self.summary is before.summary:
            _log.info("%s was announced again", self._name())
        else:
            self._finish("next series")
            if before.summary.ended in MAY_GO_ON:
                self._go_on(before)

    def _was_announced(self, start: SeriesStart) -> bool:
        """Whether it is the series that was begun last: a ring tells those who come again of it once more."""
        if self._saved is None:
            return False
        if start.unique_id is not None:
            return start.unique_id == self._saved.summary.unique_id
        return self._is_fresh and fingerprint(start) == self._saved.fingerprint

    def _on_frame(self, frame: Frame) -> None:
        if not self._is_on(frame):
            return
        self._last_image = time.monotonic()
        file = self._files()
        if file is None:
            self.failed += 1
            self._dropped.add(frame.number)
            return
        try:
            self.written += file.append(frame)
        except (UnfitFrame, MalformedStream) as error:
            self._complain(str(error))
        except OSError as error:
            self.failed += 1
            self._complain(str(error))
        else:
            self._problem = ""

    def _on_dropped(self, dropped: Dropped) -> None:
        if self._is_on(dropped):
            self._last_image = time.monotonic()
            for number in range(dropped.first, dropped.last + 1):
                self._dropped.add(number)

    def _on_end(self, end: SeriesEnd) -> None:
        if self.summary is not None and self.summary.is_of(end):
            self._finish("end message")

    def _is_on(self, image: Frame | Dropped) -> bool:
        """See to it that the series of an image is the one that is on; return False if it is over."""
        if self.summary is not None and self.summary.is_of(image):
            return True
        before = self._saved
        if before is None or not before.summary.is_of(image):
            self._finish("next series")
            _log.warning("series %d of %s was not announced to us", image.series, self._detector)
            self._begin(SeriesStart(image.series, image.unique_id))
            return True
        if before.summary.ended in MAY_GO_ON:
            self._finish("next series")
            self._go_on(before)
            return True
        self._strays += 1
        if self._strays == 1:
            _log.warning("images come of series %d, which is over: not written", image.series)
        return False

    def _go_on(self, saved: SavedSeries) -> None:
        self._file = SeriesFile.resume(saved)
        self._dropped = NumberRanges((first - 1, last - 1) for first, last in saved.summary.dropped)
        self.summary = saved.summary
        self._last_image = time.monotonic()
        self._strays = 0
        _log.info("%s goes on: %d images are there", self._name(), len(self._file.written))

    def _begin(self, start: SeriesStart) -> None:
        self._strays = 0
        self._dropped = NumberRanges()
        self._last_image = None
        header = self._settings.geometry.completed(start.header)
        self._start = replace(start, header=header)
        self.summary = Summary(detector=self._detector, series=start.series, unique_id=start.unique_id)
        self._try_at = 0.0
        lacking = [what for name, what in _DEMANDED.items() if getattr(header, name) is None]
        if lacking:
            _log.warning("nobody says the %s of %s: NXmx demands it", ", ".join(lacking), self._name())
        self._files()

    def _files(self) -> SeriesFile | None:
        """The files of the series; None, for the moment, if they cannot be made."""
        if self._file is None and self._start is not None and time.monotonic() >= self._try_at:
            self._make_files(self._start)
        return self._file

    def _make_files(self, start: SeriesStart) -> None:
        dcid = dcid_of(start, self._settings.dcid_keys)
        try:
            directory, name = self._place.of(dcid, start.series, datetime.now().astimezone().date())
            file = SeriesFile.begin(
                start,
                directory,
                name,
                images_per_file=self._settings.images_per_file,
                detector=self._detector,
                dcid=dcid,
            )
        except (OSError, ValueError) as error:
            self._try_at = time.monotonic() + _TRY_AGAIN
            self._complain(f"files of series {start.series} cannot be made: {error}")
            return
        self._file, self._start, self._saved = file, None, file.saved
        self.summary = file.summary
        self._save()
        _log.info("%s begins: %s", self._name(), directory / file.saved.prefix)

    def _finish(self, ended: Ended) -> None:
        file, summary = self._file, self.summary
        if summary is None:
            return
        if file is None:
            lost = len(self._dropped)
            _log.error("%s: its files could not be made; lost images: %d", self._name(), lost)
        else:
            try:
                file.finish(ended, self._dropped)
            except OSError as error:
                _log.error("%s cannot be closed: %s", self._name(), error)
            self._save()
            self._report(summary)
        self._file = self._start = self.summary = None

    def _report(self, summary: Summary) -> None:
        missing = count_in(summary.missing)
        self.missing += missing
        expected = "" if summary.expected is None else f" of {summary.expected}"
        _log.info("%s is over (%s): %d%s images", self._name(), summary.ended, summary.written, expected)
        if missing:
            shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in summary.missing[:_SHOWN_RANGES])
            more = "" if len(summary.missing) <= _SHOWN_RANGES else ", ..."
            _log.warning(
                "%s: missing images: %d (%s%s), of which %d were dropped, %d not taken by the disk",
                self._name(),
                missing,
                shown,
                more,
                count_in(summary.dropped),
                count_in(summary.failed),
            )

    def _save(self) -> None:
        """Note what a writer that comes after this one must know."""
        if self._file is None:
            return
        try:
            save(self._memory, self._file.saved)
        except OSError as error:
            self._complain(f"a writer that is restarted will not know what it was writing: {error}")

    def _name(self) -> str:
        summary = self.summary
        if summary is None:
            return self._detector
        of = "" if summary.dcid is None else f" of data collection {summary.dcid}"
        return f"series {summary.series}{of}"

    def _complain(self, problem: str) -> None:
        """Say what is wrong, once as long as it is of the same kind."""
        kind = re.sub(r"\d+", "", problem)
        if kind != self._problem:
            self._problem = kind
            _log.error("%s: %s", self._name(), printable(problem, 500))
