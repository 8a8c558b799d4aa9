"""Everything that the pages are made of."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Final

from parvis.config import Config
from parvis.observe import known_stories
from parvis.observe.graylog import Graylog
from parvis.observe.grid_scans import GridScanSource, GridScansUnavailable, grid_scan_source
from parvis.observe.hop_table import RecipeLine
from parvis.observe.hops import stuck_after
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import FILE, Records
from parvis.observe.records_place import find_records
from parvis.web.broker_link import BrokerLink

_LOOK_AGAIN: Final = 5.0
_LISTED: Final = 100
_FRESH: Final = 1.0


class Sources:
    """The broker, the records and the metadata database, as far as they are there.

    Attributes:
        config: The configuration.
        broker: The connection to the broker.
        stuck_after: Seconds without a hop after which a recipe is stuck.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.broker = BrokerLink(config)
        self._lock = threading.Lock()
        self._records: Records | None = None
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        self._grid_scans: GridScanSource | None = None
        self._recipes_lock = threading.Lock()
        self._recipes: Sequence[RecipeLine] = ()
        self._recipes_until = 0.0
        self.stuck_after = stuck_after(config)

    def start(self) -> None:
        """Begin to hear of what goes on."""
        self.broker.start()

    def stop(self) -> None:
        """Let go of the broker."""
        self.broker.stop()

    def records(self) -> Records:
        """Return the records of logs and hops, those of now if there are others than before.

        Raises:
            RecordsError: There are none, or none that can be read.
        """
        with self._lock:
            now = time.monotonic()
            if self._records is None or now >= self._look_at:
                directory = find_records(self.config)
                file: tuple[int, int] | None = None
                with contextlib.suppress(OSError):
                    found = (directory / FILE).stat()
                    file = (found.st_dev, found.st_ino)
                if self._records is None or file != self._file:
                    self._records = None
                    self._records = Records(directory)
                    self._file = file
                self._look_at = now + _LOOK_AGAIN
            return self._records

    def recipes(self) -> Sequence[RecipeLine]:
        """Return the recipes that were heard of last, as of a moment ago.

        Raises:
            RecordsError: There are no records, or none that can be read.
        """
        records = self.records()
        with self._recipes_lock:
            began = time.monotonic()
            if began >= self._recipes_until:
                with records.reading() as database:
                    self._recipes = known_stories.recipes(records, database, self.stuck_after, limit=_LISTED)
                now = time.monotonic()
                # What takes long to find out is not asked for as often.
                self._recipes_until = now + max(_FRESH, 20 * (now - began))
            return self._recipes

    def search_logs(self, query: LogQuery) -> list[LogRecord]:
        """Search the Graylog server, if one is configured, else the records.

        Raises:
            RecordsError, GraylogError: They cannot be searched.
            ConfigError: The configuration does not say how to log in to Graylog.
        """
        graylog = Graylog.configured(self.config)
        return self.records().search(query) if graylog is None else graylog.search(query)

    def grid_scans(self) -> GridScanSource:
        """Return where grid scans can be read.

        Raises:
            GridScansUnavailable: Nowhere.
        """
        with self._lock:
            if self._grid_scans is None:
                try:
                    self._grid_scans = grid_scan_source(self.config)
                except Exception as error:
                    raise GridScansUnavailable(
                        f"grid scans cannot be read: {type(error).__name__}: {error}"
                    ) from error
            if self._grid_scans is None:
                raise GridScansUnavailable(
                    "no metadata database is configured: set PARVIS_ISPYB_URL, or configure plugin ispyb"
                )
            return self._grid_scans
