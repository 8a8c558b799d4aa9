"""`parvis go --wait`: what a job sends back through a real broker becomes a table and an exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from beamline import CENTRE, GRIDSCAN, WHOLE_JOB, Beamline, end, image
from parvis.cli import main
from parvis.config import StompSettings
from parvis.recipe.watch import failure_message
from parvis.transport.embedded.thread import BrokerThread


@pytest.fixture(autouse=True)
def broker(unconfigured: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BrokerThread]:
    monkeypatch.setenv("PARVIS_FALLBACK_LOCATION", str(tmp_path / "drop"))
    with BrokerThread() as broker:
        monkeypatch.setenv("PARVIS_STOMP_HOST", broker.host)
        monkeypatch.setenv("PARVIS_STOMP_PORT", str(broker.port))
        yield broker


@pytest.fixture
def beamline(broker: BrokerThread) -> Iterator[Beamline]:
    beamline = Beamline(StompSettings(broker.host, broker.port))
    yield beamline
    beamline.close()


def go(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["go", "-r", "a", *arguments])


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_job_is_followed_to_its_end(beamline: Beamline):
    beamline.answer(GRIDSCAN, WHOLE_JOB)
    result = go("12", "--wait=30")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert lines[:3] == [["Running", "recipes", "['a']"], ["for", "data", "collection", "12"], ["Submitted."]]
    rows = [line for line in lines if line[0] in {"1", "2", "3"}]
    assert rows == [
        ["1", "100", "90", "1.45", "9198", "x00001.cbf"],
        ["2", "286", "276", "1.45", "9198", "x00002.cbf"],
        ["3", "0", "-", "-", "-", "x00003.cbf"],
    ]
    assert "Centre: box 5.50, 0.50, pixel 420.00, 133.98; best image 2" in result.stdout
    assert "Finished: 3 images analysed, recipe ID 3f2a91c0." in result.stdout


def test_events_for_programs(beamline: Beamline):
    beamline.answer(GRIDSCAN, WHOLE_JOB)
    result = go("12", "--wait=30", "--json")
    assert result.exit_code == 0
    told = events(result)
    assert [event["event"] for event in told] == [
        "submitted", "started", "image", "image", "finished", "image", "centre", "end",
    ]  # fmt: skip
    assert told[1]["recipe_id"] == "3f2a91c0"
    assert told[2]["result"] == image(2, 286)
    assert told[6]["result"] == CENTRE
    assert told[7] == {"event": "end", "success": True, "reason": None, "images": 3}


def test_number_after_a_bare_wait_is_the_data_collection(beamline: Beamline):
    beamline.answer({"1": {"queue": "archive.pattern"}, "start": [[1, {}]]}, [])
    result = go("--wait", "12")
    assert result.exit_code == 0
    assert "for data collection 12" in result.stdout
    assert "Started as 3f2a91c0; nothing in this recipe reports back." in result.stdout


@pytest.mark.parametrize("limit", ["x", "0", "-1", "nan", "inf"])
def test_limit_must_be_a_number_of_seconds(limit: str):
    result = go("12", f"--wait={limit}")
    assert result.exit_code == 2
    assert "is not a number of seconds" in result.stderr


def test_dispatcher_says_why_it_starts_nothing(beamline: Beamline):
    beamline.reply(lambda topic: [failure_message(topic, "there is no data\n collection 12\x1b[31m")])
    result = go("12", "--wait=30")
    assert result.exit_code == 1
    assert "Failed: The dispatcher started nothing: there is no data collection 12\\x1b[31m" in result.stderr


def test_images_that_do_not_come_are_a_failure(beamline: Beamline):
    outputs = [
        (2, "result", image(1)),
        (1, "timeout", {"file": "/d/x00003.cbf", "success": False}),
        (1, "finally", end(2)),
        (2, "result", image(2)),
    ]
    beamline.answer(GRIDSCAN, outputs)
    result = go("12", "--wait=30", "--json")
    assert result.exit_code == 1
    assert events(result)[-1] == {
        "event": "end",
        "success": False,
        "reason": "Only 2 of 3 images appeared before the watcher gave up.",
        "images": 2,
    }


def test_aborted_centring_is_a_failure(beamline: Beamline):
    beamline.answer(GRIDSCAN, [(1, "finally", end(3)), (3, "abort", {})])
    result = go("12", "--wait=30")
    assert result.exit_code == 1
    assert "Failed: The centring gave up" in result.stderr


def test_no_crystal_is_a_result(beamline: Beamline):
    nothing = {"status": "fail", "type": "2d", "results": [{"message": "No good images found"}]}
    beamline.answer(GRIDSCAN, [*WHOLE_JOB[:-1], (3, "success", nothing)])
    result = go("12", "--wait=30")
    assert result.exit_code == 0
    assert "Centre: No good images found" in result.stdout


@pytest.mark.parametrize(
    ("centre", "says"),
    [
        ({"results": [{"centre_of_mass": [6.6242, 6.0, 8.66]}]}, "Centre: box 6.62, 6.00, 8.66\n"),
        ({"results": 7, "message": "odd"}, "Centre: odd\n"),
        ({"results": [{"centre_of_mass": ["x"]}, 3]}, "Centre: no crystal was found\n"),
    ],
)
def test_centres_of_other_forms(beamline: Beamline, centre: dict[str, Any], says: str):
    beamline.answer(GRIDSCAN, [*WHOLE_JOB[:-1], (3, "success", centre)])
    result = go("12", "--wait=30")
    assert result.exit_code == 0
    assert says in result.stdout


def test_image_delivered_twice_counts_once(beamline: Beamline):
    beamline.answer(GRIDSCAN, [(2, "result", image(1)), (2, "result", image(1)), *WHOLE_JOB])
    result = go("12", "--wait=30", "--json")
    assert result.exit_code == 0
    told = [event["event"] for event in events(result)]
    assert told.count("image") == 3


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (WHOLE_JOB[:2], "No end within 0.5 s: 2 of 3 images were analysed."),
        (WHOLE_JOB[:4], "No end within 0.5 s: 3 of 3 images were analysed."),
    ],
)
def test_time_runs_out(beamline: Beamline, outputs: list[tuple[int, str, Any]], says: str):
    beamline.answer(GRIDSCAN, outputs)
    result = go("12", "--wait=0.5")
    assert result.exit_code == 1
    assert f"Failed: {says}" in result.stderr


def test_nobody_answers():
    result = go("12", "--wait=0.2")
    assert result.exit_code == 1
    assert "Failed: Nothing was heard within 0.2 s: is a dispatcher running" in result.stderr


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"every": 2}, 200),
        ({"every-7": 2}, 29),
        ({"select-30": 2}, 30),
        ({"select-300": [2]}, 200),
        ({"first": 2, "last": 2}, 2),
        ({"20": 2, "201": 2}, 1),
        ({"any": 3, "every-100": 2}, 2),
    ],
)
def test_every_way_of_choosing_images_is_awaited(beamline: Beamline, outputs: dict[str, Any], expected: int):
    recipe: dict[str, Any] = {
        "1": {
            "queue": "filewatcher",
            "parameters": {"pattern": "x%d", "pattern-start": 0, "pattern-end": 199},
            "output": outputs,
        },
        "2": {"queue": "per_image_analysis"},
        "3": {"queue": "other"},
        "start": [[1, {}]],
    }
    results = [(2, "result", image(number)) for number in range(1, expected + 1)]
    beamline.answer(recipe, [(1, "finally", end(200, 200)), *results])
    result = go("12", "--wait=30", "--json")
    assert result.exit_code == 0
    assert events(result)[-1]["images"] == expected


def test_hdf5_images_are_counted_at_the_end(beamline: Beamline):
    recipe: dict[str, Any] = {
        "1": {"queue": "filewatcher", "parameters": {"hdf5": "/d/m.nxs"}, "output": {"every": 2}},
        "2": {"queue": "per_image_analysis"},
        "start": [[1, {}]],
    }
    master = {"file": "/d/m.nxs", "n_spots_total": 3}
    outputs = [
        (2, "result", {**master, "hdf5-index": 0}),
        (1, "finally", {"images-expected": 2, "images-seen": 2, "success": True}),
        (2, "result", {**master, "hdf5-index": 1}),
    ]
    beamline.answer(recipe, outputs)
    result = go("12", "--wait=30", "--json")
    assert result.exit_code == 0
    assert events(result)[-1]["images"] == 2


def test_of_many_images_the_best_are_shown(beamline: Beamline):
    recipe = GRIDSCAN | {"1": GRIDSCAN["1"] | {"parameters": {"list": [f"x{n}" for n in range(150)]}}}
    recipe["2"] = {"queue": "per_image_analysis"}
    del recipe["3"]
    results = [(2, "result", image(number, spots=number)) for number in range(1, 151)]
    beamline.answer(recipe, [*results, (1, "finally", end(150, 150))])
    result = go("12", "--wait=30")
    assert "These are the 20 with the most spots of 150; --json gives all." in result.stdout
    assert "x00150.cbf" in result.stdout
    assert "x00130.cbf" not in result.stdout


def test_stored_message_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARVIS_STOMP_HOST", "no.such.host.invalid")
    result = go("12", "--wait=30")
    assert result.exit_code == 1
    assert "Message successfully stored in" in result.stdout
    assert "There is nothing to wait for" in result.stderr


def test_interrupted_waiting_ends_at_once():
    with subprocess.Popen(
        [sys.executable, "-m", "parvis", "go", "-r", "a", "12", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        while child.stdout.readline() != "Submitted.\n":
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.stderr.read().strip() == "Interrupted."
    assert child.returncode == 130


def test_progress_is_shown_on_a_terminal(beamline: Beamline):
    """On a pseudo-terminal, the bar goes to standard error and leaves the results alone."""
    beamline.answer(GRIDSCAN, WHOLE_JOB)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "parvis", "go", "-r", "a", "12", "--wait=30"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ) as child:
        assert child.stdout is not None
        out = child.stdout.read().decode()
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert child.returncode == 0
    assert "waiting for the dispatcher" in shown
    assert "\x1b" not in out
    assert "Finished: 3 images analysed" in out
