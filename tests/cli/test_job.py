"""What whoever waits makes of messages that no honest recipe sends."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parvis.cli.job import Job
from parvis.recipe.watch import DEAD_LETTER_KEY, SERVICE_LABEL
from parvis.transport.base import Message

EVENTS = ["started", "image", "missing", "finished", "timeout", "centred", "abort", "nonesuch"]

NAMES = ["every", "every-0", "finally", "result", "files-seen", "files-expected", "success", "results"]

scalars = (
    st.none() | st.booleans() | st.integers(-3, 5) | st.sampled_from(["", "1", "x", "every", "select-0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
nodes = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(
            ["filewatcher", "objectwatcher", "per_image_analysis", "reduce.xray_centering"]
        ),
        "service": st.just(SERVICE_LABEL) | values,
        "parameters": st.fixed_dictionaries({"event": st.sampled_from(EVENTS)}) | values,
        "output": st.dictionaries(
            st.sampled_from(["every", "every-0", "result", "finally", "missing"]), st.integers(1, 4)
        )
        | values,
    },
)
recipes = st.fixed_dictionaries(
    {"1": nodes, "2": nodes}, optional={"3": nodes | values, "4": nodes, "start": values}
)


def message(body: bytes, **headers: str) -> Message:
    return Message("transient.go", body, headers, "1", 1)


@given(
    recipe=recipes, pointer=st.integers(1, 4), path=st.lists(st.integers(0, 5), max_size=2), payload=values
)
def test_no_recipe_message_is_too_strange(recipe: Any, pointer: int, path: list[int], payload: Any):
    body = {"recipe": recipe, "recipe-pointer": pointer, "recipe-path": path, "payload": payload}
    job = Job()
    job.take(message(json.dumps(body).encode(), **{"workflows-recipe": "True"}))
    assert job.is_over in {True, False}
    assert job.failure is None or isinstance(job.failure, str)


@given(body=st.binary(max_size=20) | values.map(lambda value: json.dumps(value).encode()))
def test_no_other_message_is_too_strange(body: bytes):
    job = Job()
    assert job.take(message(body)) is None
    assert job.take(message(body, **{"workflows-recipe": "True"})) is None
    assert not job.is_over


def test_reason_of_the_dispatcher_is_heard():
    job = Job()
    event = job.take(message(b'{"parvis-error": "no such recipe"}'))
    assert event == {"event": "rejected", "reason": "no such recipe"}
    assert job.is_over
    assert job.failure == "The dispatcher started nothing: no such recipe"


GRID_SCAN = {
    "1": {
        "queue": "filewatcher",
        "parameters": {"pattern": "/a_%d", "pattern-start": 1, "pattern-end": 2},
        "output": {"every": 2, "finally": 4},
    },
    "2": {"queue": "per_image_analysis", "output": {"result": [3, 5]}},
    "3": {"queue": "jsonlines"},
    "4": {"service": SERVICE_LABEL, "topic": "t", "parameters": {"event": "finished"}},
    "5": {"service": SERVICE_LABEL, "topic": "t", "parameters": {"event": "image"}},
    "start": [[1, []]],
}


def from_node(sender: int, watcher: int, payload: Any) -> Message:
    body = {"recipe": GRID_SCAN, "recipe-pointer": watcher, "recipe-path": [sender], "payload": payload}
    return message(json.dumps(body).encode(), **{"workflows-recipe": "True"})


def dead_letter(node: int, service: str, reason: str) -> Message:
    notice = {"node": node, "service": service, "reason": reason}
    return message(json.dumps({DEAD_LETTER_KEY: notice}).encode())


def test_an_image_that_is_set_aside_ends_a_job_that_has_failed():
    job = Job()
    job.take(from_node(1, 4, {"files-expected": 2, "files-seen": 2, "success": True}))
    job.take(from_node(2, 5, {"file": "/a_1", "file-number": 1, "n_spots_total": 3}))
    assert not job.is_over
    event = job.take(dead_letter(2, "PerImageAnalysis", "/a_2: cut short"))
    assert event == {"event": "dead-letter", "service": "PerImageAnalysis", "reason": "/a_2: cut short"}
    assert job.is_over
    assert "PerImageAnalysis: /a_2: cut short" in str(job.failure)


def test_a_result_that_somebody_else_could_not_take_makes_the_job_fail():
    job = Job()
    job.take(from_node(1, 4, {"files-expected": 2, "files-seen": 2, "success": True}))
    for number in (1, 2):
        job.take(from_node(2, 5, {"file": f"/a_{number}", "file-number": number}))
    job.take(dead_letter(3, "JSONLines", "no path"))
    assert job.is_over
    assert "JSONLines: no path" in str(job.failure)


def test_a_watch_that_is_set_aside_is_the_end():
    job = Job()
    job.take(from_node(2, 5, {"file": "/a_1", "file-number": 1}))
    job.take(dead_letter(1, "FileWatcher", "no pattern"))
    assert job.is_over


def label(event: str) -> dict[str, Any]:
    return {"service": SERVICE_LABEL, "topic": "t", "parameters": {"event": event}}


STREAM = {
    "1": {"queue": "cephwriter", "output": {"every": 2, "finally": [3, 5]}},
    "2": {"queue": "per_image_analysis", "output": {"result": 6, "missing": 7}},
    "3": {
        "queue": "objectwatcher",
        "parameters": {"manifest": True},
        "output": {"every": 2, "missing": 4, "finally": 5},
    },
    "4": {"queue": "filewatcher", "parameters": {"hdf5": "/x"}, "output": {"every": 2, "finally": 5}},
    "5": label("finished"),
    "6": label("image"),
    "7": label("missing"),
    "start": [[1, {}]],
}


def streamed(job: Job, sender: int, watcher: int, payload: Any) -> None:
    body = {"recipe": STREAM, "recipe-pointer": watcher, "recipe-path": [sender], "payload": payload}
    job.take(message(json.dumps(body).encode(), **{"workflows-recipe": "True"}))


def images(job: Job, *numbers: int, event: int = 6) -> None:
    for number in numbers:
        streamed(job, 2, event, {"file": f"s3://a/b/1/1/{number:06d}", "file-number": number})


def ended(seen: int) -> dict[str, Any]:
    return {"images-expected": 3, "images-seen": seen, "success": seen == 3}


def test_a_watcher_that_is_only_for_what_is_missing_is_not_waited_for():
    job = Job()
    streamed(job, 1, 5, ended(3))
    images(job, 1, 2, 3)
    assert not job.is_over
    streamed(job, 3, 5, ended(3))
    assert (job.expected, job.is_over, job.failure) == (3, True, None)


def test_what_one_watcher_was_too_late_for_another_one_completes():
    job = Job()
    streamed(job, 1, 5, ended(1))
    images(job, 1)
    streamed(job, 3, 5, ended(2))
    images(job, 2)
    assert not job.is_over
    streamed(job, 4, 5, {"files-expected": 3, "files-seen": 3, "success": True})
    assert (job.expected, job.is_over) == (3, False)
    images(job, 3)
    assert (job.is_over, job.failure) == (True, None)


def test_what_nobody_has_seen_makes_the_job_fail():
    job = Job()
    streamed(job, 1, 5, ended(1))
    images(job, 1)
    streamed(job, 3, 5, ended(2))
    images(job, 2)
    streamed(job, 4, 5, {"files-expected": 3, "files-seen": 2, "success": False})
    assert job.is_over
    assert job.failure == "Only 2 of 3 images appeared before the watcher gave up."


def test_an_image_that_has_expired_is_not_waited_for():
    job = Job()
    streamed(job, 1, 5, ended(3))
    streamed(job, 3, 5, ended(3))
    images(job, 1, 2)
    assert not job.is_over
    images(job, 3, 3, event=7)
    assert job.is_over
    assert job.failure == "1 of the images are not in their store (any more)."
