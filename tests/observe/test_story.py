"""The story of a recipe, made of hops: as such, and from the tables of the records."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvis.observe import hop_table
from parvis.observe.hops import REQUEST, Hop, HopResult, Report, Sent, Started, hops_body
from parvis.observe.story import Story
from parvis.observe.storyteller import story_of

NOW = 1_800_000_000.0
PATIENCE = 300.0
RECIPE: dict[str, Any] = {
    "1": {"queue": "watch", "output": {"every": 2, "finally": 4}},
    "2": {"queue": "analyse", "output": 3, "error": [5]},
    "3": {"queue": "gather", "output": 4},
    "4": {"queue": "tell"},
    "5": {"queue": "mend"},
    "start": [[1, {}]],
}
QUEUES = {0: "processing_recipe", 1: "watch", 2: "analyse", 3: "gather", 4: "tell", 5: "mend"}
STARTED = Started("r1", "request", NOW - 100, recipe=RECIPE)

_identities = itertools.count()


def hop(
    node: int, *sent: Sent, ago: float = 50, result: HopResult = "done", identity: str = "", **more: Any
) -> Hop:
    """A hop that ended `ago` seconds ago."""
    return Hop(
        recipe_id="r1",
        node=node,
        queue=QUEUES[node],
        identity=identity or f"id-{next(_identities)}",
        result=result,
        service=f"service {node}",
        host="host.1",
        sent_at=NOW - ago - 2,
        begun=NOW - ago - 1,
        seconds=1.0,
        sent=sent,
        **more,
    )


def to(node: int, count: int = 1, **more: Any) -> Sent:
    """Messages to a node."""
    return Sent(node, QUEUES[node], count, **more)


START = hop(REQUEST, to(1), ago=99)


def told(*hops: Hop, started: Sequence[Started] = (STARTED,), now: float = NOW, **more: Any) -> Story:
    """The story, told both ways."""
    story = story_of(started, hops, now, PATIENCE, **more)
    if not more:
        assert from_records([Report(hops, started)], now) == story
    return story


def from_records(reports: Sequence[Report], now: float = NOW) -> Story:
    """The story as the records tell it."""
    database = sqlite3.connect(":memory:")
    for statement in hop_table.SCHEMA:
        database.execute(statement)
    for report in reports:
        hop_table.take(database, hops_body(report.hops, report.started))
    return hop_table.story(database, "r1", now, PATIENCE)


def test_of_nothing_nothing_is_known():
    story = from_records([])
    assert (story.state, story.hops, story.nodes) == ("unknown", 0, {})
    assert "reported anything" in story.summary


def test_finished_when_all_that_was_sent_is_handled():
    story = told(START, hop(1, to(2, 3), ago=40), *(hop(2, ago=ago) for ago in (30, 20, 10)))
    assert story.state == "finished"
    assert story.since == NOW - 10
    assert story.begun == STARTED.at
    assert story.notes == []
    assert {number: node.state for number, node in story.nodes.items()} == {
        0: "done",
        1: "done",
        2: "done",
        3: "idle",
        4: "idle",
        5: "idle",
    }
    assert [(edge.source, edge.target, edge.count) for edge in story.edges] == [(0, 1, 1), (1, 2, 3)]
    assert story.is_over


def test_running_as_long_as_something_is_outstanding():
    story = told(START, hop(1, to(2, 3)), hop(2))
    assert story.state == "running"
    assert story.nodes[2].outstanding == 2
    assert story.nodes[2].queue == "analyse"
    assert not story.is_over


def test_running_before_the_first_hop():
    story = told(now=STARTED.at + 1)
    assert story.state == "running"
    assert story.nodes[1].outstanding == 1


def test_stuck_when_nothing_happens_for_long():
    hops = [START, hop(1, to(2, 3), ago=40), hop(2, ago=30)]
    assert told(*hops, now=NOW + PATIENCE - 32).state == "running"
    story = told(*hops, now=NOW + PATIENCE)
    assert story.state == "stuck"
    assert story.since == NOW - 30
    assert story.nodes[2].state == "stuck"
    assert "2 at node 2 (analyse)" in story.summary
    assert story.is_over


def test_what_takes_long_by_nature_is_not_stuck_so_soon():
    hops = [START, hop(1, to(2, 2), ago=700), replace(hop(2, ago=600), seconds=500.0, begun=NOW - 1100)]
    assert told(*hops).state == "running"
    assert told(*hops, now=NOW + 300).state == "stuck"


def test_a_time_limit_of_the_node_counts_as_well():
    recipe = {**RECIPE, "2": {**RECIPE["2"], "timeout": 3600}}
    started = replace(STARTED, recipe=recipe)
    hops = [START, hop(1, to(2)), hop(2, Sent(2, "analyse", 1, "again"), result="fail")]
    assert told(*hops, started=[started], now=NOW + 3000).state == "running"
    assert told(*hops, started=[started], now=NOW + 4000).state == "stuck"


def test_a_queue_from_which_nobody_ever_reported_is_said_to_be_silent():
    hops = [START, hop(1, to(2), ago=40)]
    assert told(*hops, now=NOW - 15).notes == []
    assert "analyse" in told(*hops).notes[0]
    story = told(*hops, now=NOW + PATIENCE)
    assert story.state == "unknown"
    assert story.nodes[2].state == "silent"
    assert "analyse" in story.notes[0]
    story = told(*hops, now=NOW + PATIENCE, reporting=["analyse"])
    assert story.state == "stuck"


def test_the_records_know_who_reports_from_other_recipes():
    other = replace(hop(2), recipe_id="r2")
    reports = [Report([START, hop(1, to(2), ago=40), other], [STARTED])]
    assert from_records(reports, NOW + PATIENCE).state == "stuck"


def test_waiting_while_all_that_is_outstanding_is_held_back():
    checkpoint = to(1, kind="checkpoint", delay=60)
    story = told(START, hop(1, checkpoint, ago=20))
    assert story.state == "waiting"
    assert story.nodes[1].waiting == 1
    assert story.nodes[1].until == NOW + 40
    assert story.since == NOW - 20
    assert told(START, hop(1, checkpoint, ago=20), now=NOW + 41).state == "running"
    assert told(START, hop(1, checkpoint, ago=20), now=NOW + 41 + PATIENCE).state == "stuck"


def test_a_wait_longer_than_patience_is_no_reason_to_be_stuck():
    story = told(START, hop(1, to(1, kind="checkpoint", delay=3600)), now=NOW + 3000)
    assert story.state == "waiting"


def test_running_beats_waiting_and_what_is_stuck_beside_it_is_noted():
    hops = [START, hop(1, to(2), to(3), ago=40), hop(2, to(4), ago=-PATIENCE)]
    story = told(*hops, now=NOW + PATIENCE + 10, reporting=["gather", "tell"])
    assert story.state == "running"
    assert any("gather" in note for note in story.notes)


def test_stuck_beats_waiting():
    hops = [
        START,
        hop(1, to(2), to(1, kind="checkpoint", delay=9999), ago=40),
        hop(2, to(2, kind="checkpoint")),
    ]
    assert told(*hops, now=NOW + PATIENCE).state == "stuck"


def test_a_reminder_is_of_no_matter_once_the_node_has_sent_something_else():
    reminder = to(3, kind="reminder", delay=86_400)
    hops = [START, hop(1, to(3, 2)), hop(3, reminder, ago=30)]
    assert told(*hops).state == "running"
    assert told(*hops, hop(3, ago=25)).state == "waiting"
    story = told(*hops, hop(3, to(4), ago=20), hop(4, ago=10))
    assert story.state == "finished"


def test_retries_are_outstanding_until_one_is_the_last():
    again = to(2, kind="again", delay=5)
    hops = [START, hop(1, to(2)), hop(2, again, result="retry", identity="x", ago=3)]
    story = told(*hops)
    assert (story.state, story.nodes[2].waiting, story.nodes[2].again) == ("waiting", 1, 1)
    story = told(*hops, hop(2, identity="x", tries=2, ago=0))
    assert story.state == "finished"
    assert (story.nodes[2].handled, story.nodes[2].hops) == (1, 2)


def test_a_clock_that_is_late_does_not_put_a_try_before_the_one_before():
    again = to(2, kind="again")
    first = hop(2, again, result="retry", identity="x", ago=10)
    second = hop(2, identity="x", tries=2, ago=15)
    assert told(START, hop(1, to(2)), first, second).state == "finished"


LETTER = Sent(2, "DLQ.analyse", 1, "dead_letter")


def test_failed_when_something_was_given_up():
    failed = hop(2, LETTER, result="reject", reason="no good", identity="x")
    story = told(START, hop(1, to(2, 2)), failed, hop(2, ago=5))
    assert story.state == "failed"
    assert story.failures == [failed]
    assert (story.nodes[2].given_up, story.nodes[2].dead) == (1, 1)
    assert story.nodes[2].state == "failed"
    assert "no good" in story.summary


def test_running_with_dead_letters_says_so():
    story = told(START, hop(1, to(2, 2)), hop(2, LETTER, result="reject", reason="no good"))
    assert story.state == "running"
    assert "1 given up so far" in story.summary


def test_error_edges_count_as_given_up_though_they_are_handled():
    failed = hop(2, to(5, kind="error"), result="fail", reason="surprise", ago=20)
    story = told(START, hop(1, to(2)), failed, hop(5))
    assert (story.state, story.nodes[2].given_up, story.nodes[2].dead) == ("failed", 1, 0)
    assert [(edge.source, edge.target, edge.kind) for edge in story.edges][-1] == (2, 5, "error")


def test_a_dead_letter_that_was_sent_in_again_is_settled():
    failed = hop(2, LETTER, result="reject", identity="x", ago=40)
    anew = hop(2, to(4), identity="x", reinjected=1, ago=10)
    story = told(START, hop(1, to(2)), failed, anew, hop(4, ago=5))
    assert (story.state, story.failures, story.nodes[2].given_up) == ("finished", [], 0)
    worse = hop(2, LETTER, result="reject", identity="x", reinjected=2, ago=60)
    assert told(START, hop(1, to(2)), failed, anew, hop(4, ago=5), worse).state == "failed"


def test_a_request_that_starts_nothing_has_failed():
    letter = Sent(REQUEST, "DLQ.processing_recipe", 1, "dead_letter")
    story = told(hop(REQUEST, letter, result="reject", reason="no such recipe"), started=())
    assert story.state == "failed"
    assert "no such recipe" in story.summary


def test_a_request_that_waits_for_its_data_collection():
    come_back = Sent(REQUEST, "processing_recipe", 1, "checkpoint", 2.0)
    story = told(hop(REQUEST, come_back, ago=1), started=())
    assert story.state == "waiting"
    assert "the dispatcher" in story.summary
    assert (
        told(hop(REQUEST, come_back, ago=9), replace(START, begun=NOW - 7), hop(1, ago=2)).state == "finished"
    )


def test_a_message_that_was_handled_twice_counts_once():
    twice = [hop(1, to(2), identity="x", ago=30), hop(1, to(2), identity="x", ago=29)]
    story = told(START, *twice, hop(2, identity="y"), hop(2, identity="y", ago=20))
    assert story.state == "finished"
    assert story.nodes[2].sent == 1
    assert story.nodes[1].hops == 2


def test_a_copy_that_was_known_to_be_one_ends_nothing_else():
    failed = hop(2, LETTER, result="reject", identity="x", ago=40)
    copy = hop(2, identity="x", result="duplicate", ago=20)
    story = told(START, hop(1, to(2)), failed, copy)
    assert story.state == "failed"
    assert story.nodes[2].duplicates == 1


def test_discarded_outputs_end_a_recipe():
    assert told(START, hop(1)).state == "finished"


def test_hops_that_are_missing_are_missed():
    story = told(START, hop(1, to(2), identity="x"), hop(2), hop(4))
    assert story.state == "unknown"
    assert "node 4 (tell)" in story.notes[0]
    assert "not all was reported" in story.summary


def test_what_comes_from_somebody_who_does_not_report_is_not_missed():
    story = told(START, hop(1, to(2)), hop(3), now=NOW + PATIENCE)
    assert story.state == "unknown"
    assert story.nodes[3].unaccounted == 1
    assert [note for note in story.notes if "missing" in note] == []
    assert "analyse" in story.summary


def test_a_start_that_is_no_longer_kept_is_said_to_be():
    story = told(hop(2), started=())
    assert story.state == "unknown"
    assert "no longer kept" in story.notes[0]


def test_a_start_of_which_the_hop_is_missing_is_made_up_for():
    assert told(hop(1)).state == "finished"


def test_a_recipe_that_was_started_twice_says_so():
    second = replace(STARTED, identity="another", at=NOW - 60)
    hops = [START, hop(REQUEST, to(1), ago=60), hop(1), hop(1)]
    story = told(*hops, started=[STARTED, second])
    assert story.state == "finished"
    assert story.times_started == 2
    assert any("2 times" in note for note in story.notes)


def test_broadcasts_are_counted_and_nobody_waits_for_them():
    story = told(START, hop(1, Sent(4, "topic", 2, "broadcast")))
    assert story.state == "finished"
    assert [(edge.kind, edge.count) for edge in story.edges][-1] == ("broadcast", 2)


@pytest.mark.parametrize(
    "recipe",
    [
        {"start": 3},
        {"start": [[7, {}], "x", [], [None, 1]], "x": 1},
        {"1": [], "2": {"queue": 5, "output": {"a": "b"}, "timeout": "x"}, "start": [[1, {}]]},
    ],
)
def test_a_recipe_without_sense_makes_no_trouble(recipe: dict[str, Any]):
    assert told(START, hop(1, to(2)), started=[replace(STARTED, recipe=recipe)]).state == "running"


def test_a_story_in_json_holds_no_payload_and_can_be_written():
    story = told(START, hop(1, to(2)), hop(2, LETTER, result="reject", reason="no good"))
    content = story.to_json()
    assert content["state"] == "failed"
    assert content["nodes"][1]["queue"] == "watch"
    assert content["failures"][0]["reason"] == "no good"


kinds = st.sampled_from(["message", "checkpoint", "reminder", "again", "error", "dead_letter"])
sents = st.builds(
    Sent,
    node=st.integers(0, 4),
    queue=st.sampled_from(["a", "b"]),
    count=st.integers(1, 3),
    kind=kinds,
    delay=st.sampled_from([0.0, 0.5, 60.0, 400.0]),
)
hops_of_one_recipe = st.lists(
    st.builds(
        Hop,
        recipe_id=st.just("r1"),
        node=st.integers(0, 4),
        queue=st.sampled_from(["a", "b"]),
        identity=st.sampled_from(["x", "y", "z"]),
        result=st.sampled_from(["done", "retry", "reject", "fail", "duplicate"]),
        service=st.sampled_from(["A", "B"]),
        host=st.just("host.1"),
        sent_at=st.just(NOW - 900),
        begun=st.integers(-800, -10).map(lambda ago: NOW + ago),
        seconds=st.sampled_from([0.1, 1.25, 3.0]),
        tries=st.integers(1, 3),
        sent=st.lists(sents, max_size=3).map(tuple),
        reinjected=st.integers(0, 2),
    ),
    max_size=12,
    unique_by=lambda hop: (hop.node, hop.identity, hop.tries, hop.begun, hop.result),
)


@settings(max_examples=60, deadline=None)
@given(hops=hops_of_one_recipe, data=st.data())
def test_order_and_repetition_make_no_difference(hops: list[Hop], data: st.DataObject):
    expected = story_of([STARTED], hops, NOW, PATIENCE, {"a", "b"} & {hop.queue for hop in hops})
    repeated = data.draw(
        st.permutations([*hops, *data.draw(st.lists(st.sampled_from(hops)) if hops else st.just([]))])
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(repeated)), max_size=4)))
    batches = [repeated[low:high] for low, high in itertools.pairwise([0, *cuts, len(repeated)])]
    reports = data.draw(st.permutations([*(Report(batch) for batch in batches), Report([], [STARTED])]))
    assert from_records(reports) == expected
