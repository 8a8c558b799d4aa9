"""Stories where nobody takes reports any more: they are told as of then, and say so."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from parvis.observe import hop_table, known_stories
from parvis.observe.hops import REQUEST, Hop, Report, Sent
from parvis.observe.records import FILE, Records, RecordsWriter
from parvis.observe.story import Story

PATIENCE = 300.0
AGO = 1000.0


def hops(begun: float, *, ended: bool) -> list[Hop]:
    """A request, and the two messages that came of it, one or both of them handled."""
    sent = (Sent(1, "analyse", 2),)
    request = Hop("r1", REQUEST, "in", "a", "done", "Dispatcher", "vm.1", begun, begun, 0.0, sent=sent)
    names = ("b", "c") if ended else ("b",)
    return [
        request,
        *(Hop("r1", 1, "analyse", name, "done", "PIA", "vm.2", begun, begun, 0.0) for name in names),
    ]


def write(writer: RecordsWriter, reported: Sequence[Hop]) -> None:
    with writer.writing() as database:
        hop_table.add(database, Report(reported))


def read(directory: Path) -> tuple[Story, Story]:
    """The story as such, and in the list."""
    with Records(directory) as records, records.reading() as database:
        (line,) = known_stories.recipes(records, database, PATIENCE, limit=10)
        return known_stories.story(records, database, "r1", PATIENCE), line.story


def set_back(directory: Path) -> float:
    """Make the records look as if nothing had been written for long; return since when."""
    moment = time.time() - AGO + 10
    for file in directory.glob(f"{FILE}*"):
        os.utime(file, (moment, moment))
    return moment


def test_it_is_stuck_only_if_somebody_would_have_been_told_how_it_goes_on(tmp_path: Path) -> None:
    with RecordsWriter(tmp_path) as writer:
        write(writer, hops(time.time() - AGO, ended=False))
        set_back(tmp_path)
        for story in read(tmp_path):
            assert (story.state, story.notes) == ("stuck", [])
    moment = set_back(tmp_path)
    for story in read(tmp_path):
        assert story.state == "running"
        (note,) = story.notes
        assert time.strftime("%H:%M:%S", time.localtime(moment)) in note
        assert "nobody takes reports" in note


def test_what_has_ended_has_ended(tmp_path: Path) -> None:
    with RecordsWriter(tmp_path) as writer:
        write(writer, hops(time.time() - AGO, ended=True))
    set_back(tmp_path)
    for story in read(tmp_path):
        assert (story.state, story.notes) == ("finished", [])
