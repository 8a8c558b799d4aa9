"""What a writer knows of a series, and what is left of that when it is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvis.config import ConfigError
from parvis_services.acquire.journal import BadCursor, Journal, JournalDirectory
from parvis_services.acquire.series_record import BadJournal, Facts, SeriesRecord
from parvis_services.stores.store import ObjectInfo

FACTS = Facts(1, None, 5, 1.0, "standard", "images", "", has_mask=False)


def info(number: int) -> ObjectInfo:
    return ObjectInfo(str(number), 100, "etag", 2.0)


def record_in(directory: Path) -> SeriesRecord:
    return SeriesRecord.begin(Journal(directory / "17.1.journal"), FACTS, 1)


def again(record: SeriesRecord) -> SeriesRecord:
    """The record as the next process reads it."""
    return SeriesRecord(Journal(record.journal.path))


def test_an_image_that_a_killed_process_had_may_be_stored_lost_or_come_again(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    assert [record.receive(number, 1.5) for number in (1, 2, 3, 4, 4)] == [True, True, True, True, False]
    record.store(1, info(1))
    record = again(record)
    assert (record.unsure(), record.waiting) == ([2, 3, 4], 3)
    assert record.receive(2, 2.5)  # which is not the time to ask whether it is stored
    record.forget(2)
    record.store(3, info(3))
    record.forget(4)
    assert (record.unsure(), record.waiting) == ([], 1)
    record.store(2, info(2))
    record.store(2, info(2))
    record.drop(2)
    record.end("time-out")
    assert [entry[1] for entry, _ in record.journal.entries() if entry[0] == "stored"] == [1, 3, 2]
    for known in (record, again(record)):
        assert (known.missing(), known.dropped(), known.ended) == ([(4, 5)], [], "time-out")


def test_what_comes_while_the_manifest_is_stored_is_not_forgotten(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.end("time-out")
    seen = record.changes
    record.receive(1, 2.0)
    assert not record.close(seen)
    assert (record.is_closed, record.ended) == (False, None)
    record.store(1, info(1))
    record.end("end message")
    assert record.close(record.changes)
    assert again(record).is_closed


def test_a_journal_is_read_from_where_somebody_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "17.1.journal")
    for number in range(10_000):
        journal.add("stored", number)
    entries = list(journal.entries())
    assert [entry[1] for entry, _ in entries] == list(range(10_000))
    _, cursor = entries[6999]
    assert [entry[1] for entry, _ in journal.entries(cursor)] == list(range(7_000, 10_000))
    assert list(journal.entries(journal.size)) == []
    with pytest.raises(BadCursor):
        next(journal.entries(cursor + 1))
    with journal.path.open("ab") as file:
        file.write(b'["stored",')
    assert Journal(journal.path).size == journal.size


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "17.1.journal").write_bytes(b'["stored",1]\n')
    with pytest.raises(BadJournal):
        SeriesRecord(Journal(tmp_path / "17.1.journal"))


@pytest.mark.parametrize("name", ["../17.1", "/etc/passwd", "17.1/../17.1", "", "17", "x.1", "17.1.journal"])
def test_a_journal_is_found_by_its_name_alone(name: str, tmp_path: Path) -> None:
    journals = JournalDirectory(tmp_path / "journals")
    (tmp_path / "17.1.journal").write_bytes(b"")
    (tmp_path / "journals" / "17.1.journal").write_bytes(b"")
    assert journals.names() == ["17.1"]
    assert journals.open(name) is None
    journals.close()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"parvis\.state_directory"):
        JournalDirectory(tmp_path / "file" / "journals")
