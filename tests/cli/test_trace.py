"""`parvis trace`: what it says of recipes, from records, from logs, from the dispatcher's logbook."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.observe import hop_table
from parvis.observe.hops import REQUEST, Hop, HopResult, Report, Sent, Started
from parvis.observe.log_record import LogRecord
from parvis.observe.logbook import HEADINGS
from parvis.observe.records import RecordsWriter
from parvis_services.dispatch.logbook import write_entry
from waiting import wait_until

NOW = time.time()
HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b31m\u202e[red]<b>" + "y" * 5000
ID = "8e2e8e3c-5f0a-4f4e-9d5c-0123456789ab"
OTHER = "8e2e8e3c-ffff-4f4e-9d5c-0123456789ab"
RECIPE: dict[str, Any] = {
    "1": {"service": "Watcher", "queue": "watch", "output": {"every": 2}},
    "2": {"service": "Analysis", "queue": "analyse", "output": 3},
    "3": {"service": "Writer", "queue": "write"},
    "start": [[1, {}]],
}
QUEUES = {0: "processing_recipe", 1: "watch", 2: "analyse", 3: "write"}
STARTED = Started(
    ID,
    "request",
    NOW - 60,
    "gda2@cm1-1",
    {"zocalo.go.user": "gda2"},
    {"recipes": ["gridscan"], "parameters": {"ispyb_dcid": 993677}},
    {"recipes": ["gridscan"], "parameters": {"ispyb_dcid": 993677, "ispyb_visit": "cm1-1"}},
    RECIPE,
)
LETTER = Sent(2, "DLQ.analyse", 1, "dead_letter")


def hop(
    node: int, *sent: Sent, ago: float = 30, recipe_id: str = ID, result: HopResult = "done", **more: Any
) -> Hop:
    """A hop that began `ago` seconds ago and took a quarter of a second."""
    more.setdefault("identity", f"{node}-{ago}")
    return Hop(
        recipe_id=recipe_id,
        node=node,
        queue=QUEUES[node],
        result=result,
        service=f"service{node}",
        host="host.1",
        sent_at=NOW - ago - 0.5,
        begun=NOW - ago,
        seconds=0.25,
        sent=sent,
        **more,
    )


def to(node: int, count: int = 1, **more: Any) -> Sent:
    return Sent(node, QUEUES[node], count, **more)


FINISHED = (
    hop(REQUEST, to(1), ago=60),
    hop(1, to(1, kind="checkpoint", delay=5.0), ago=55),
    hop(1, to(2, 2), ago=50),
    hop(2, to(3), ago=45),
    hop(2, to(2, kind="again", delay=2.0), ago=44, result="fail", reason="a surprise", identity="x"),
    hop(2, to(3), ago=41, tries=2, identity="x"),
    hop(3, ago=40),
    hop(3, ago=39),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the records; nothing else is configured."""
    for name in [name for name in os.environ if name.startswith(("PARVIS_", "ZOCALO_"))]:
        if name != "PARVIS_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PARVIS_STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "records"


def add(place: Path, *hops: Hop, started: tuple[Started, ...] = (STARTED,)) -> None:
    """Put hops into the records."""
    with RecordsWriter(place) as writer, writer.writing() as database:
        hop_table.add(database, Report(hops, started))


def trace(place: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["trace", "--records", str(place), *arguments])


def test_the_life_of_a_recipe(place: Path):
    add(place, *FINISHED)
    result = trace(place, ID[:6])
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert f"Recipe {ID}" in text
    assert "Finished: 7 messages handled in 21.2 s." in text
    places = [text.index(heading) for heading in (*HEADINGS, "Time line:", "\nRecipe:")]
    assert places == sorted(places)
    assert '"ispyb_visit": "cm1-1"' in text
    times = text[text.index("Time line:") :]
    assert re.search(r"1 watch +500 ms +250 ms +done → checkpoint in 5.0 s", times)
    assert re.search(r"failed: a surprise → again in 2.0 s", times)
    assert re.search(r"try 2: done → to 3", times)
    assert "start → 1 Watcher  [watch]  (2 done)" in times
    assert "every (2) → 2 Analysis  [analyse]  (2 done)" in times


def test_for_programs(place: Path):
    add(place, *FINISHED)
    result = trace(place, ID, "--json")
    told = json.loads(result.stdout)
    assert (told["recipe_id"], told["state"], told["hops"]) == (ID, "finished", 8)
    assert told["started"]["message"] == STARTED.message
    assert told["started"]["recipe"] == RECIPE
    assert [hop["node"] for hop in told["timeline"]] == [0, 1, 1, 2, 2, 2, 3, 3]
    assert {"source": 1, "target": 2, "kind": "message", "count": 2} in told["edges"]


def test_dead_letters_are_shown_and_once_sent_in_again_settled(place: Path):
    failed = hop(2, LETTER, result="reject", reason="a poison image", identity="x", ago=20)
    add(place, hop(REQUEST, to(1), ago=60), hop(1, to(2), ago=50), failed)
    text = trace(place, ID).stdout
    assert "Ended, and 1 of 3 messages were given up" in text
    assert "DEAD LETTER, rejected: a poison image" in text
    assert "(1 given up)" in text
    add(place, hop(2, identity="x", reinjected=1, ago=5))
    text = trace(place, ID).stdout
    assert "Finished" in text
    assert "sent in again: done" in text


def test_of_thousands_a_summary_is_shown(place: Path):
    many = [hop(2, ago=50 - number / 1000, identity=f"i{number}") for number in range(2000)]
    slow = replace(many[777], seconds=9.5)
    many[777] = slow
    many[888] = hop(2, LETTER, ago=49.1, result="reject", reason="the one", identity="i888")
    add(place, hop(REQUEST, to(1), ago=60), hop(1, to(2, 2000), ago=55), *many)
    result = trace(place, ID)
    lines = result.stdout.splitlines()
    assert len(lines) < 100
    assert any("2,000" in line and "9.5 s" in line for line in lines)
    assert any("rejected: the one" in line for line in lines)
    whole = trace(place, ID, "--all").stdout.splitlines()
    assert sum("2 analyse" in line for line in whole) >= 2000


def test_the_recipes_of_late(place: Path):
    add(place, *FINISHED)
    add(
        place,
        hop(REQUEST, to(1), ago=30, recipe_id=OTHER),
        started=(replace(STARTED, recipe_id=OTHER, at=NOW - 30, user="somebody"),),
    )
    old = "00000000-old"
    add(place, hop(3, ago=9000, recipe_id=old), started=())
    result = trace(place)
    assert result.exit_code == 0
    other, first = result.stdout.splitlines()[1], result.stdout
    assert other.startswith(OTHER[:10])
    assert "running" in other
    assert "gridscan of 993677 for gda2@cm1-1" in first
    assert old[:8] not in result.stdout
    assert old[:8] in trace(place, "--since", "3h").stdout
    told = [json.loads(line) for line in trace(place, "--json").stdout.splitlines()]
    assert [(one["recipe_id"], one["state"]) for one in told] == [(OTHER, "running"), (ID, "finished")]
    assert told[1]["dcid"] == "993677"


def test_no_recipes_of_late(place: Path):
    add(place, started=())
    result = trace(place)
    assert result.exit_code == 0
    assert "No recipe was heard of since " in result.stdout


def test_several_recipes_and_one_that_is_not_known(place: Path):
    add(place, *FINISHED)
    result = trace(place, ID, "nonsense")
    assert result.exit_code == 1
    assert "Finished" in result.stdout
    assert "Recipe nonsense not found" in result.stderr


def test_an_ambiguous_beginning_is_said_to_be(place: Path):
    add(place, *FINISHED, hop(1, recipe_id=OTHER))
    result = trace(place, "8e2e")
    assert result.exit_code == 1
    assert ID in result.stderr
    assert OTHER in result.stderr


def test_without_records(place: Path):
    result = trace(place, ID)
    assert result.exit_code == 1
    assert "no records in" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--follow",),
        ("--logbook",),
        ("--follow", ID, OTHER),
        ("--only-incoming", ID),
        ("--since", "never"),
        ("--from", "x"),
        ("--from", "broker"),
        ("--from", "graylog", ID),
        ("",),
        (ID, " "),
    ],
)
def test_what_is_called_wrongly(place: Path, arguments: tuple[str, ...]):
    add(place)
    result = trace(place, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_logs_tell_where_no_hops_do(place: Path):
    with RecordsWriter(place) as writer, writer.writing() as database:
        writer.add_logs(
            database, [LogRecord(NOW, 4, "parvis.service.A", "trying again", service="A", recipe_id=ID)]
        )
    result = trace(place, ID)
    assert result.exit_code == 0
    assert "No hops of it are known" in result.stdout
    assert "trying again" in result.stdout


def test_the_four_sections(place: Path):
    add(place, *FINISHED)
    result = trace(place, "--logbook", ID[:8])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert re.fullmatch(rf"Recipe {ID} \(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)", lines[0])
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)
    assert lines[lines.index(HEADINGS[0]) + 1 :][:3] == ["{", '  "zocalo.go.user": "gda2"', "}"]
    incoming = trace(place, "--logbook", ID, "--only-incoming").stdout.splitlines()
    assert [line for line in incoming if line in HEADINGS] == list(HEADINGS[:2])


def test_the_four_sections_from_the_files_of_the_dispatcher(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PARVIS_LOGBOOK_LOCATION", str(tmp_path / "logbook"))
    write_entry(tmp_path / "logbook", STARTED)
    from_files = trace(place, "--logbook", ID)
    assert from_files.exit_code == 0, from_files.output
    by_beginning = trace(place, "--logbook", ID[:9], "--json")
    add(place, *FINISHED)
    from_records = trace(place, "--logbook", ID)
    assert from_files.stdout.splitlines()[1:] == from_records.stdout.splitlines()[1:]
    told = json.loads(by_beginning.stdout)
    assert json.loads(told["sections"][HEADINGS[3]]) == RECIPE


def test_the_headings_are_bold_and_yellow_in_a_terminal_and_what_is_missing_red(place: Path):
    add(place, *FINISHED)
    shown = in_terminal(place, "--logbook", ID, "unknown")
    assert f"\x1b[33m\x1b[1m{HEADINGS[0]}\x1b[0m" in shown
    assert "\x1b[31mRecipe unknown not found\x1b[0m" in shown


def test_hostile_text_does_not_reach_the_terminal(place: Path):
    recipe = {"1": {"service": HOSTILE, "queue": "watch"}, "start": [[1, HOSTILE]]}
    started = replace(STARTED, user=HOSTILE, message={"recipes": [HOSTILE]}, recipe=recipe)
    bad = hop(1, LETTER, result="fail", reason=HOSTILE, trace=HOSTILE)
    add(place, hop(REQUEST, to(1), ago=60), replace(bad, service=HOSTILE, queue=HOSTILE), started=(started,))
    for arguments in ((ID,), (), ("--logbook", ID)):
        shown = trace(place, *arguments).stdout
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}, arguments


def test_following_prints_what_comes_until_the_end(place: Path):
    add(place, *FINISHED[:3])

    command = [sys.executable, "-m", "parvis", "trace", "--records", str(place), ID, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        add(place, *FINISHED[3:])
        lines = [first, *process.stdout.read().splitlines()]
        assert process.wait(20) == 0
    assert sum("done" in line or "failed" in line for line in lines) == len(FINISHED)
    assert any("Running" in line for line in lines)
    assert lines[-1].startswith("Finished")


def test_following_what_fails_is_a_failure(place: Path):
    failed = hop(2, LETTER, result="reject", reason="no good")
    add(place, hop(REQUEST, to(1)), hop(1, to(2)), failed)
    result = trace(place, ID, "--follow", "--json")
    assert result.exit_code == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["hop", "hop", "hop", "story"]
    assert events[-1]["state"] == "failed"


def test_following_in_a_terminal_leaves_it_as_it_was(place: Path):
    add(place, *FINISHED[:3])
    with Terminal(place, ID, "--follow") as terminal:
        terminal.wait_for("Running")
        assert "\x1b[?25l" in terminal.shown, "the cursor is hidden"
        terminal.process.send_signal(signal.SIGINT)
        terminal.end()
        assert terminal.process.returncode == 130
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")
    with Terminal(place, ID, "--follow") as terminal:
        terminal.wait_for("Running")
        add(place, *FINISHED[3:])
        terminal.end()
        assert terminal.process.returncode == 0
    assert "Time line:" in terminal.shown
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


class Terminal:
    """`parvis trace` in a terminal."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parvis", "trace", "--records", str(place), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def read(self) -> bool:
        """Read what is there; return whether there may be more."""
        try:
            if select.select([self._master], [], [], 0.05)[0]:
                self.shown += os.read(self._master, 65_536).decode(errors="replace")
        except OSError:
            return False
        return True

    def wait_for(self, text: str) -> None:
        wait_until(lambda: self.read() and text in self.shown, 20, f"{text!r} in the terminal")

    def end(self) -> None:
        wait_until(lambda: not self.read(), 20, "the end")
        self.process.wait(timeout=10)


def in_terminal(place: Path, *arguments: str) -> str:
    with Terminal(place, *arguments) as terminal:
        terminal.end()
        return terminal.shown
