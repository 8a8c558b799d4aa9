"""The records: what is found, how it is found, what is thrown away, and what happens to a bad file."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parvis.config import Config
from parvis.observe import log_table
from parvis.observe.log_record import LEVELS, LogQuery, LogRecord
from parvis.observe.records import FILE, Records, RecordsDamaged, RecordsError, RecordsMissing, RecordsWriter
from parvis.observe.records_place import find_records, mark_as_demonstration, open_writer, records_directory
from waiting import wait_until

NOW = time.time()
RECIPE = "8e2e8e3c-5f0a-4f4e-9d5c-0123456789ab"


def record(seconds: float = 0, message: str = "m", **more: object) -> LogRecord:
    values = {"level": 6, "facility": "parvis.service.Test", **more}
    return LogRecord(NOW + seconds, message=message, **values)  # type: ignore[arg-type]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RecordsWriter]:
    with RecordsWriter(tmp_path / "records") as opened:
        yield opened


def add(writer: RecordsWriter, *records: LogRecord) -> None:
    with writer.writing() as database:
        writer.add_logs(database, records)


def messages(records: Records, **query: object) -> list[str]:
    return [found.message for found in records.search(LogQuery(**query))]  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(writer: RecordsWriter) -> None:
    one = record(
        message="short",
        full="short\nTraceback",
        host="vm",
        service="PIA",
        recipe_id=RECIPE,
        fields={"file": "a.py", "line": 3, "x": 1.5},
    )
    add(writer, one)
    (found,) = writer.search(LogQuery())
    assert found.time == pytest.approx(one.time, abs=2e-6)
    assert dataclasses.replace(found, time=one.time) == dataclasses.replace(one, row=1)


def test_words_file_names_and_recipes_are_found(writer: RecordsWriter) -> None:
    add(
        writer,
        record(1, "handled /dls/i03/data/2026/cm1-1/xtal_0042.cbf in 0.3 s"),
        record(2, "handled /dls/i03/data/2026/cm1-1/xtal_0043.cbf in 0.3 s", recipe_id=RECIPE),
        record(3, "failed", full="failed\nTraceback\nZeroDivisionError: division by zero"),
        record(4, f"recipe {RECIPE} was started"),
        record(5, "Überlauf: größer als 3 Å"),
    )
    assert len(messages(writer, text="handled")) == 2
    assert messages(writer, text="xtal_0042.cbf")[0].startswith("handled")
    assert len(messages(writer, text="XTAL")) == 2
    assert len(messages(writer, text="xtal_004*")) == 2
    assert messages(writer, text="zerodivisionerror") == ["failed"]
    assert messages(writer, text="division by zero") == ["failed"]
    assert messages(writer, text="zero by division") == []
    assert len(messages(writer, text=RECIPE)) == 2
    assert len(messages(writer, recipe=RECIPE)) == len(messages(writer, recipe=RECIPE[:8])) == 1
    assert messages(writer, text="größer") == ["Überlauf: größer als 3 Å"]


@pytest.mark.parametrize(
    "text", ['a" OR "b', "(", "NEAR(a b)", "text:handled", "a AND", "^x", "\0a", "x\ud800y"]
)
def test_text_is_nothing_but_text(writer: RecordsWriter, text: str) -> None:
    add(writer, record(message="handled"))
    assert messages(writer, text=f"{text} 1") == []


def test_services_and_loggers_are_both_sources(writer: RecordsWriter) -> None:
    add(
        writer,
        record(1, "a", facility="dlstbx.services.xray", service="DLS X-ray"),
        record(2, "b", service="PIA"),
    )
    assert messages(writer, sources=("xray",)) == ["a"]
    assert messages(writer, sources=("x-ray", "pia")) == ["b", "a"]
    assert messages(writer, sources=("parvis.service",)) == ["b"]


def test_same_moment_over_and_over_costs_no_record(writer: RecordsWriter) -> None:
    add(writer, *[record(0, f"n {number}") for number in range(200)])
    add(writer, *[record(0, f"n {number}") for number in range(200, 400)])
    assert len(messages(writer)) == 400


def test_a_clock_that_is_wrong_does_not_hide_a_record(writer: RecordsWriter) -> None:
    add(writer, record(-40 * 365 * 86_400, "past"), record(86_400, "future"), record(0, "fine"))
    assert sorted(messages(writer, since=NOW - 5, until=time.time() + 5)) == ["fine", "future", "past"]


def test_what_arrives_late_is_followed(writer: RecordsWriter) -> None:
    add(writer, record(0, "one"), record(1, "two"))
    last = writer.last_row()
    assert messages(writer, after=last) == []
    add(writer, record(-100, "late"), record(2, "three"), record(3, "debug", level=7))
    assert messages(writer, after=last, level=6) == ["late", "three"]
    assert messages(writer, after=last, text="late") == ["late"]


ANY_RECORD = st.builds(
    LogRecord,
    time=st.floats(NOW - 100, NOW).map(lambda moment: round(moment, 3)),
    level=st.integers(0, 7),
    facility=st.sampled_from(["parvis.host", "parvis.service.PIA", "zocalo"]),
    message=st.lists(st.sampled_from(["image", "spots", "42"]), min_size=1).map(" ".join),
    service=st.sampled_from(["", "PIA"]),
    recipe_id=st.sampled_from(["", "aaaa-1", "bbbb-2"]),
)
ANY_QUERY = st.builds(
    LogQuery,
    recipe=st.sampled_from([None, "aaaa", "bbbb-2", "cc"]),
    sources=st.sampled_from([(), ("pia",), ("host", "zocalo"), ("nobody",)]),
    level=st.sampled_from([None, 0, 3, 6, 7]),
    since=st.sampled_from([None, NOW - 50]),
    until=st.sampled_from([None, NOW - 20]),
    text=st.sampled_from([None, "image", "image spots", "4*", "rare"]),
    limit=st.sampled_from([3, 1000]),
    order=st.sampled_from(["newest", "oldest"]),
    after=st.sampled_from([None, None, 0, 5]),
)


def expected(rows: Sequence[LogRecord], query: LogQuery) -> list[int]:
    """What a plain look at every record gives."""

    def is_wanted(one: LogRecord) -> bool:
        words, asked = one.message.split(), (query.text or "").rstrip("*").split()
        has_text = query.text is None or any(
            (words[at : at + len(asked) - 1] == asked[:-1])
            and (
                words[at + len(asked) - 1].startswith(asked[-1])
                if "*" in query.text
                else words[at : at + len(asked)] == asked
            )
            for at in range(len(words) - len(asked) + 1)
        )
        sources = f"{one.facility} {one.service}".lower().replace(".", " ").split()
        return (
            has_text
            and (query.recipe is None or one.recipe_id.startswith(query.recipe))
            and (not query.sources or any(source in sources for source in query.sources))
            and (query.level is None or one.level <= query.level)
            and (query.since is None or one.time >= query.since)
            and (query.until is None or one.time <= query.until)
            and (query.after is None or one.row > query.after)
        )

    found = [one for one in rows if is_wanted(one)]
    if query.after is not None:
        return [one.row for one in sorted(found, key=lambda one: one.row)][: query.limit]
    found.sort(key=lambda one: one.time, reverse=query.order == "newest")
    return [one.row for one in found][: query.limit]


@given(
    st.lists(ANY_RECORD, max_size=40, unique_by=lambda one: one.time),
    st.lists(ANY_QUERY, min_size=5, max_size=5),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_search_finds_what_looking_at_every_record_does(
    tmp_path_factory: pytest.TempPathFactory, records: list[LogRecord], queries: list[LogQuery]
) -> None:
    # So small that it takes several shelves
    with RecordsWriter(tmp_path_factory.mktemp("any"), megabytes=0.04) as writer:
        for start in range(0, len(records), 7):
            add(writer, *records[start : start + 7])
        rows = [dataclasses.replace(one, row=number) for number, one in enumerate(records, 1)]
        for query in queries:
            assert [one.row for one in writer.search(query)] == expected(rows, query), query


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    "asked",
    [
        {"text": "image"},
        {"text": "imag*", "level": 3},
        {"recipe": RECIPE},
        {"sources": ("PIA", "Dispatcher"), "since": NOW - 100},
        {
            "text": "image",
            "sources": ("PIA",),
            "level": 4,
            "recipe": "8e2e8e3c",
            "since": NOW - 9,
            "until": NOW,
        },
        {"level": 2},
        {"since": NOW - 10},
        {},
    ],
)
def test_no_query_looks_at_all_records_or_sorts_them(
    writer: RecordsWriter, asked: dict[str, object], order: str
) -> None:
    add(writer, record())
    statement, values = log_table.selection(1, LogQuery(**asked, order=order))  # type: ignore[arg-type]
    with writer.reading() as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert not [step for step in plan if "TEMP B-TREE" in step]
    assert plan[-1].startswith("SEARCH log USING INTEGER PRIMARY KEY")
    uses_words = bool(asked.keys() - {"since", "until"})
    assert any("VIRTUAL TABLE INDEX" in step for step in plan) == uses_words


def test_one_writes_and_others_read_meanwhile(writer: RecordsWriter) -> None:
    add(writer, record(message="first"))
    program = (
        "import sys, pathlib; from parvis.observe.records import *\n"
        "with Records(pathlib.Path(sys.argv[1])) as records:\n"
        "    print([one.message for one in records.search(LogQuery())], flush=True); input()\n"
        "    print([one.message for one in records.search(LogQuery())], flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(writer.path.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "['first']\n"
        with pytest.raises(AttributeError):
            add(writer, record(message="undone"), None)  # type: ignore[arg-type]
        add(writer, record(1, message="second"))
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "['second', 'first']\n"
    with pytest.raises(RecordsError, match=f"another process .{os.getpid()}. writes"):
        RecordsWriter(writer.path.parent)


def test_a_reader_sees_one_state_and_writes_nothing(writer: RecordsWriter) -> None:
    add(writer, record(message="first"))
    with Records(writer.path.parent) as reader, reader.reading() as database:
        assert log_table.last_arrival(database) == 1
        add(writer, record(1, message="second"))
        assert [one.message for one in log_table.search(database, LogQuery())] == ["first"]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("DELETE FROM shelf")


def test_size_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    with RecordsWriter(tmp_path, megabytes=2) as writer:
        for batch in range(60):
            add(writer, *[record(batch + n / 1000, f"batch {batch} {n} " + "word " * 60) for n in range(100)])
            while writer.trim():
                pass
        found = messages(writer, limit=10_000)
        assert found[0].startswith("batch 59 99")
        assert 500 < len(found) < 5_000
        assert messages(writer, text="batch 59 42")
        assert messages(writer, text="batch 0 42") == []
    assert (tmp_path / FILE).stat().st_size < 3_000_000


def test_age_is_bounded(tmp_path: Path) -> None:
    with RecordsWriter(tmp_path, days=0.5 / 86_400) as writer:
        with writer.writing() as database:
            writer.add_logs(database, [LogRecord(time.time(), 6, "a", "old")])
        assert messages(writer) == ["old"]

        def is_gone() -> bool:
            writer.trim()
            return not messages(writer)

        wait_until(is_gone, 20, "the record to be too old")


def test_there_are_no_records(tmp_path: Path) -> None:
    with pytest.raises(RecordsMissing, match=r"`parvis collect` or `parvis up` takes them"):
        Records(tmp_path)


@pytest.mark.parametrize("kind", [Records, RecordsWriter])
def test_a_file_that_is_none_of_ours_is_named_and_left_alone(tmp_path: Path, kind: type[Records]) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all " * 1000)
    with pytest.raises(RecordsDamaged, match=f"{FILE}.*move it away"):
        kind(tmp_path)
    (tmp_path / FILE).unlink()
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(RecordsDamaged, match="holds no records of Parvis"):
        kind(tmp_path)


@pytest.mark.parametrize("kind", [Records, RecordsWriter])
def test_records_of_another_version_are_left_alone(tmp_path: Path, kind: type[Records]) -> None:
    RecordsWriter(tmp_path).close()
    changed = sqlite3.connect(tmp_path / FILE)
    changed.execute(f"PRAGMA user_version = {changed.execute('PRAGMA user_version').fetchone()[0] + 1}")
    changed.close()
    with pytest.raises(RecordsError, match="another version of Parvis"):
        kind(tmp_path)


def test_nobody_else_may_read_them(writer: RecordsWriter) -> None:
    assert writer.path.parent.stat().st_mode & 0o777 == 0o700
    assert writer.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"text": "=>"}, "no letter or digit"),
        ({"recipe": "-"}, "no letter or digit"),
        ({"sources": ("a", "")}, "no letter or digit"),
        ({"level": 8}, LEVELS[7]),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_a_question_that_has_no_answer_is_refused(part: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LogQuery(**part)  # type: ignore[arg-type]


def test_each_place_has_its_own_directory(tmp_path: Path) -> None:
    state = {"PARVIS_STATE_DIRECTORY": str(tmp_path)}
    here, there, elsewhere = (
        records_directory(Config.load(overrides=state | more))
        for more in ({}, {"PARVIS_STOMP_PREFIX": "test"}, {"PARVIS_STOMP_HOST": "../../b,[::1]:3"})
    )
    assert len({here, there, elsewhere}) == 3
    assert {place.parent for place in (here, there, elsewhere)} == {tmp_path / "records"}
    named = Config.load(overrides=state | {"PARVIS_RECORDS_DIRECTORY": str(tmp_path / "x")})
    assert records_directory(named) == find_records(named) == tmp_path / "x"


def test_a_demonstration_is_found_where_nothing_is_configured(tmp_path: Path) -> None:
    config = Config.load(overrides={"PARVIS_STATE_DIRECTORY": str(tmp_path / "state")})
    assert find_records(config) == records_directory(config)
    for name in ("one", "two"):
        RecordsWriter(tmp_path / name / "records").close()
        mark_as_demonstration(config, tmp_path / name / "records")
    assert find_records(config).resolve() == tmp_path / "two" / "records"
    broker = {"PARVIS_STATE_DIRECTORY": str(tmp_path / "state"), "PARVIS_STOMP_HOST": "amq"}
    assert find_records(Config.load(overrides=broker)).name == "amq_61613_zocalo"
    open_writer(config).close()
    assert find_records(config) == records_directory(config)


@pytest.mark.parametrize("value", ["0", "-1", "much", "nan", "inf"])
def test_bounds_are_numbers(tmp_path: Path, value: str) -> None:
    from parvis.config import ConfigError

    with pytest.raises(ConfigError, match=r"parvis\.records\.days must be a number above 0"):
        open_writer(Config(storage={"parvis.records.days": value}), tmp_path)
