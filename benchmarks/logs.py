"""How long a search among a million log records takes, and what keeping them costs.

    python benchmarks/logs.py [--records N] [--keep DIR]

The same questions are put to the records, to `grep` on the same records as JSON lines, and to a table that is
looked through with `LIKE`; then the records are asked every combination of what can be asked.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import Records, RecordsWriter

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine

SPAN = 10 * 86_400.0
BATCH = 2_000
REPEATS = 5
NEEDLE = "zugzwang"
SERVICES = {"PerImageAnalysis": 65, "FileWatcher": 12, "ISPyBPIA": 12, "NotifyGDA": 6, "XRayCentring": 5}
RAREST_SERVICE = "Mailer"
LEVELS = {7: 20, 6: 70, 4: 8, 3: 1.9, 2: 0.1}


def main() -> None:
    """Make the records, measure, print the tables."""
    parser = argparse.ArgumentParser(description="How long a search among log records takes.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="directory to leave the records in")
    arguments = parser.parse_args()
    print(f"{describe_machine('orjson')}, SQLite {sqlite3.sqlite_version}; {arguments.records:,} records\n")
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.keep or Path(scratch)
        first, last = fill(place, arguments.records)
        with Records(place / "records") as records:
            compare(records, place, first, last)
            ask_everything(records, arguments.records, first, last)
        trim(place)


def made_records(count: int) -> Iterator[LogRecord]:
    """Records such as services write, the same every time."""
    chance = random.Random(4)
    recipes = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(max(1, count // 100))]
    begin = time.time() - SPAN
    services = chance.choices(list(SERVICES), list(SERVICES.values()), k=count)
    levels = chance.choices(list(LEVELS), list(LEVELS.values()), k=count)
    for number, (service, level) in enumerate(zip(services, levels, strict=True)):
        name = RAREST_SERVICE if number % 100_000 == 777 else service
        image = f"/dls/i03/data/2026/cm{number % 40_000}-1/xtal_{number % 5_000:04d}.cbf"
        seconds, spots = chance.random(), chance.randrange(900)
        text = f"image {number % 3_600} of {image} handled in {seconds:.3f} s: {spots} spots"
        if number == count // 3:
            text += f" {NEEDLE}"
        trouble = level <= 3
        yield LogRecord(
            time=begin + SPAN * number / count,
            level=level,
            facility=f"parvis.service.{name}",
            message=text,
            full=f"{text}\nTraceback (most recent call last):\n  File a.py\nOSError: {image}"
            if trouble
            else "",
            host=f"node{number % 40}",
            service=name,
            recipe_id=recipes[number // 100 % len(recipes)],
            fields={"file": "/opt/parvis/service.py", "line": number % 300, "pid": 1_000 + number % 60},
        )


def fill(place: Path, count: int) -> tuple[LogRecord, LogRecord]:
    """Write all records in all three forms; return one from the middle, and the last."""
    spent = 0.0
    lines, table = (place / "records.jsonl").open("wb"), sqlite3.connect(place / "table.sqlite")
    table.execute(
        "CREATE TABLE log (time REAL, level INTEGER, recipe TEXT, service TEXT, message TEXT, full TEXT)"
    )
    middle = last = LogRecord(0, 0, "", "")
    with lines, RecordsWriter(place / "records") as writer:
        for number, batch in enumerate(batched(made_records(count), BATCH)):
            begun = time.perf_counter()
            with writer.writing() as database:
                writer.add_logs(database, batch)
            spent += time.perf_counter() - begun
            lines.writelines(orjson.dumps(one.to_json(), option=orjson.OPT_APPEND_NEWLINE) for one in batch)
            rows = [(one.time, one.level, one.recipe_id, one.service, one.message, one.full) for one in batch]
            table.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", rows)
            middle = batch[0] if number == count // BATCH // 2 else middle
            last = batch[-1]
    table.commit()
    table.close()
    size = sum(file.stat().st_size for file in (place / "records").iterdir()) / 1e6
    plain = (place / "records.jsonl").stat().st_size / 1e6
    print(f"written at {count / spent:,.0f} records/s in batches of {BATCH:,}, each safe before the next;")
    print(f"{size:,.0f} MB with all indexes, {plain:,.0f} MB as JSON lines\n")
    return middle, last


def batched(records: Iterator[LogRecord], size: int) -> Iterator[list[LogRecord]]:
    """Lists of `size` of them."""
    while batch := list(itertools.islice(records, size)):
        yield batch


def compare(records: Records, place: Path, some: LogRecord, last: LogRecord) -> None:
    """Put the same questions to all three."""
    lines, table = place / "records.jsonl", sqlite3.connect(place / "table.sqlite")
    questions: dict[str, tuple[LogQuery, list[str], str]] = {
        "the rarest word": (LogQuery(text=NEEDLE), [NEEDLE], f"message LIKE '%{NEEDLE}%'"),
        "the most frequent word": (LogQuery(text="image"), ["image"], "message LIKE '%image%'"),
        "a file name": (LogQuery(text="xtal_0042.cbf"), ["xtal_0042.cbf"], "message LIKE '%xtal_0042.cbf%'"),
        "one recipe": (LogQuery(recipe=some.recipe_id), [some.recipe_id], f"recipe = '{some.recipe_id}'"),
        "errors of a service": (
            LogQuery(sources=("XRayCentring",), level=3),
            ['"XRayCentring".*"level":"(error|critical)"'],
            "service = 'XRayCentring' AND level <= 3",
        ),
        "a frequent word, where it never is": (
            LogQuery(text="spots", level=1),
            ['spots.*"level":"(alert|emergency)"'],
            "message LIKE '%spots%' AND level <= 1",
        ),
        "the last ten minutes": (LogQuery(since=last.time - 600), [], f"time >= {last.time - 600}"),
    }
    print("| the newest 1,000 of | found | records: median, worst | `grep` | `LIKE` |")
    print("|---|---|---|---|---|")
    for name, (query, patterns, condition) in questions.items():
        found = records.search(query)
        times = [timed(lambda asked=query: records.search(asked)) for _ in range(REPEATS)]
        grep = f"{timed(lambda words=patterns: grep_for(words, lines)):,.0f} ms" if patterns else ""
        statement = f"SELECT * FROM log WHERE {condition} ORDER BY time DESC LIMIT 1000"  # noqa: S608 - ours
        like = timed(lambda asked=statement: table.execute(asked).fetchall())
        ours = f"{statistics.median(times):.1f} ms, {max(times):.1f} ms"
        print(f"| {name} | {len(found):,} | {ours} | {grep} | {like:,.0f} ms |", flush=True)
    table.close()


def grep_for(patterns: list[str], lines: Path) -> None:
    """As somebody would who has files only: find, and look at the end."""
    # Into a pipe: grep sees when nobody reads, and stops at once.
    with subprocess.Popen(["grep", "-E", patterns[0], str(lines)], stdout=subprocess.PIPE) as grep:
        subprocess.run(["tail", "-n", "1000"], stdin=grep.stdout, stdout=subprocess.PIPE, check=True)


def ask_everything(records: Records, count: int, some: LogRecord, last: LogRecord) -> None:
    """Ask every combination of what can be asked, and tell the slowest."""
    parts: dict[str, list[Any]] = {
        "text": [None, "image", NEEDLE, "handled in", "xtal_0042.cbf", "ima*", "1*", "nowhere"],
        "sources": [(), ("PerImageAnalysis",), (RAREST_SERVICE,), ("FileWatcher", "ISPyBPIA"), ("nobody",)],
        "level": [None, 6, 4, 2, 0],
        "recipe": [None, some.recipe_id, some.recipe_id[:8]],
        "since": [None, last.time - 86_400],
        "order": ["newest", "oldest"],
        "after": [None, max(0, count - 100_000)],
    }
    times: list[tuple[float, LogQuery]] = []
    for values in itertools.product(*parts.values()):
        query = LogQuery(**dict(zip(parts, values, strict=True)))
        times.append((timed(lambda asked=query: records.search(asked)), query))
    times.sort(key=lambda one: one[0])
    slowest, query = times[-1]
    shown = {name: getattr(query, name) for name in parts if getattr(query, name) not in (None, ())}
    half, most = times[len(times) // 2][0], times[int(len(times) * 0.99)][0]
    print(f"\n{len(times):,} combinations of all that can be asked: median {half:.1f} ms,")
    print(f"99 % within {most:.0f} ms, slowest {slowest:.0f} ms: {shown}")


def trim(place: Path) -> None:
    """Throw half of them away, part by part."""
    size = (place / "records" / "records.sqlite").stat().st_size / 1e6
    pauses: list[float] = []
    with RecordsWriter(place / "records", megabytes=size / 2) as writer:
        more = True
        while more:
            begun = time.perf_counter()
            more = writer.trim()
            pauses.append(1e3 * (time.perf_counter() - begun))
    print(f"\nhalf of them thrown away in {len(pauses) - 1} parts, the longest pause {max(pauses):.0f} ms")


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
