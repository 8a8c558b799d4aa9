"""The series that a writer knows, whatever is the matter with their journals and with the clock."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from parvis_services.acquire import series_shelf
from parvis_services.acquire.series_record import Facts, SeriesRecord
from parvis_services.acquire.series_shelf import SeriesShelf

LOG = logging.getLogger("test")
LONG_AGO = time.time() - 30 * 86_400


def facts(series: int, started: float = 1.0) -> Facts:
    return Facts(series, None, 5, started, "standard", "images", "", has_mask=False)


def begin(shelf: SeriesShelf, dcid: int, series: int, started: float = 1.0) -> SeriesRecord:
    return shelf.begin(dcid, facts(series, started), lambda _: None)


def test_an_old_journal_that_cannot_be_read_goes_and_costs_no_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "17.1000.journal"
    damaged.write_text("damaged\n")
    shelf = SeriesShelf(tmp_path, LOG)
    os.utime(damaged, (LONG_AGO, LONG_AGO))
    monkeypatch.setattr(series_shelf, "_CLEAN_EVERY", 0.0)
    assert begin(shelf, 18, 1).dcid == 18
    assert not damaged.exists()
    shelf.close()


@pytest.mark.parametrize("line", ["[]", "{}", "5", '["series"]', '["series", {"series": 1}, 1]', '["x", 1]'])
def test_a_journal_with_anything_in_it_does_not_keep_a_writer_from_starting(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "17.1000.journal").write_text(f"{line}\n")
    shelf = SeriesShelf(tmp_path, LOG)
    assert shelf.of(17) is None
    assert begin(shelf, 17, 1).place.repeat == 1
    shelf.close()


def test_a_series_that_begins_after_the_clock_was_put_back_is_still_the_last(tmp_path: Path) -> None:
    ahead = int((time.time() + 3600) * 1000)
    shelf = SeriesShelf(tmp_path, LOG)
    first = begin(shelf, 17, 1, started=2.0)
    first.journal.path.rename(tmp_path / f"17.{ahead}.journal")
    shelf.close()
    shelf = SeriesShelf(tmp_path, LOG)
    second = begin(shelf, 17, 1, started=1.0)
    assert shelf.known_as(1, None) is second
    assert shelf.of(17) is second
    assert (second.place.repeat, shelf.in_memory()[-1]) == (2, second)
    shelf.close()


def test_which_place_is_next_is_known_without_reading_the_journals_of_other_series(tmp_path: Path) -> None:
    shelf = SeriesShelf(tmp_path, LOG)
    for series in (1, 2, 1, 3):
        record = begin(shelf, 17, series)
        record.end("end message")
        record.close(record.changes)
    shelf.close()
    shelf = SeriesShelf(tmp_path, LOG)
    places = [begin(shelf, 17, series).place.repeat for series in (4, 1, 2)]
    assert places == [1, 3, 2]
    # Of the two series 1 only the last one was read.
    assert [record.facts.series for record in shelf.in_memory()] == [2, 1, 3, 4, 1, 2]
    shelf.close()
