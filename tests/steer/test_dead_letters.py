"""Dead letters in trouble: processes killed, other programs, services that remember what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dead_letter_world import World, world_of
from parvis.observe.dead_letter_search import Wanted, find
from parvis.observe.dead_letters import of_content
from parvis.observe.queue_figures import open_queue_source
from parvis.service.remembered import Remembered, file_of
from parvis.steer.dead_letters import Done, Incomplete, export, reinject, renewed
from parvis.steer.exported import read, write
from parvis.steer.preview import preview
from parvis.steer.taking import find_by_taking
from parvis.transport.base import Message, Send
from running import Listener, recipe_message
from sample_services import Multiplier, Rememberer
from waiting import wait_until

ACTIVEMQ = pytest.param("activemq", marks=pytest.mark.real("activemq"))
RABBITMQ = pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq"))
MANY = 400


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    kind = getattr(request, "param", "embedded")
    with world_of(kind, request, tmp_path, monkeypatch) as made:
        yield made


def letter(world: World, number: int, **headers: str) -> Send:
    message = recipe_message("multiply", {"number": number})
    told = {**message.headers, "parvis-id": f"letter-{number}", "parvis-reason": "it was cold", **headers}
    told["original-destination"] = f"/queue/{world.whole('multiply')}"
    return Send(world.dead("multiply"), message.body, told, absolute=True)


def found(world: World) -> list[Any]:
    with closing(open_queue_source(world.config)) as source:
        return list(find(source, Wanted(world.transport.namespace)).letters)


def saved(world: World) -> list[str]:
    """Identities of the letters in files; those that are being written do not count."""
    files = (world.directory / "dead").rglob("msg-*")
    return [json.loads(file.read_text())["header"]["parvis-id"] for file in files]


def test_purge_that_is_killed_loses_nothing(world: World) -> None:
    world.transport.send(*(letter(world, number) for number in range(MANY)))
    everything = {f"letter-{number}" for number in range(MANY)}
    dead = world.directory / "dead"
    for share in (0.02, 0.3, 0.6):
        process = subprocess.Popen(
            [sys.executable, "-m", "parvis", "dlq", "purge", "--all", "--yes"], stdout=subprocess.DEVNULL
        )
        enough = share * MANY
        wait_until(lambda: len(list(dead.rglob("msg-*"))) >= enough, 20, "some files")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
        wait_until(lambda: len(found(world)) + len(saved(world)) >= MANY, 10, "what it held to come back")
        left = {one.identity for one in found(world)}
        assert left | set(saved(world)) == everything
        assert len(left & set(saved(world))) <= 1, "at worst the one that it had in hand is in both"
    run = world.parvis("dlq", "purge", "--all", "--yes")
    assert run.exit_code == 0, run.output
    assert sorted(saved(world)) == sorted(everything), "each once"


def test_reinjecting_that_is_killed_loses_and_doubles_nothing(world: World) -> None:
    world.transport.send(*(letter(world, number) for number in range(MANY)))
    listener = Listener(world.transport, "multiply")
    process = subprocess.Popen(
        [sys.executable, "-m", "parvis", "dlq", "reinject", "--all", "--yes"], stdout=subprocess.DEVNULL
    )
    wait_until(lambda: len(listener.messages) >= MANY // 4, 20, "some messages")
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    wait_until(lambda: len(found(world)) + len(listener.messages) >= MANY, 10, "what it held to come back")
    arrived = [message.headers["parvis-id"] for message in listener.messages]
    assert sorted([*arrived, *(one.identity for one in found(world))]) == sorted(
        f"letter-{number}" for number in range(MANY)
    )


def test_what_cannot_be_written_stays(world: World) -> None:
    world.transport.send(letter(world, 1))
    (world.directory / "dead").write_text("a file where the directory should be")
    run = world.parvis("dlq", "purge", "--all", "--yes")
    assert (run.exit_code, "dead" in run.stderr) == (1, True), run.output
    assert [one.identity for one in found(world)] == ["letter-1"]


def test_letters_that_are_gone_are_said(world: World) -> None:
    world.transport.send(letter(world, 1), letter(world, 2))
    letters = found(world)
    done: list[Done] = []
    assert reinject(world.transport, letters[:1], done.append, silence=0.3) == []
    assert reinject(world.transport, letters, done.append, silence=0.3) == letters[:1]
    assert [one.letter.identity for one in done] == ["letter-1", "letter-2"]


def test_what_is_sent_in_again_is_new_and_says_so(world: World) -> None:
    headers = {
        "parvis-traceback": "Traceback",
        "parvis-attempts": "3",
        "parvis-crashes": "1",
        "parvis-ready": "1",
        "parvis-flow": "a|b|c",
        "parvis-first-seen": "1234567890123",
        "x-death": "[]",
        "note": "kept",
        "priority": "7",
        "traceparent": "00-1-2-00",
    }
    message = letter(world, 1, **headers)
    sent = renewed(replace(of_content(message.headers, message.body), reinjected=2))
    assert sent.headers == {
        "workflows-recipe": "True",
        "note": "kept",
        "traceparent": "00-1-2-00",
        "parvis-id": "letter-1",
        "parvis-first-seen": "1234567890123",
        "dlq-reinjected": "True",
        "parvis-reinjections": "3",
    }
    assert (sent.destination, sent.absolute, sent.priority) == (world.whole("multiply"), True, 7)


def test_a_service_that_remembers_does_it_again_once(world: World) -> None:
    results = Listener(world.transport, "results")
    with world.hosting(Rememberer):
        request = recipe_message("multiply", {"number": 4})
        world.transport.send(replace(request, headers={**request.headers, "parvis-id": "letter-4"}))
        results.wait_for(1)
        file = write(letter(world, 4).headers, letter(world, 4).body, "m-4", world.directory / "kept")
        for _ in range(2):  # the same occasion: the second time it is done already
            assert world.parvis("dlq", "reinject", "--yes", str(file)).exit_code == 0
        results.wait_for(2)
        request = recipe_message("multiply", {"number": 5})
        world.transport.send(request)
        results.wait_for(3)
    assert [payload["number"] for payload in results.payloads()] == [8, 8, 10]


def test_what_would_be_taken_for_done_is_said(world: World) -> None:
    request = Send("processing_recipe", b'{"recipes": ["x"], "parameters": {}}')
    headers = {"original-destination": f"/queue/{world.whole('processing_recipe')}", "parvis-id": "request-1"}
    dead = of_content(headers, request.body)
    namespace = world.transport.namespace
    assert preview(dead, world.config, namespace).warnings == []
    with closing(Remembered(600, file_of(world.config, namespace, "processing_recipe"))) as memory:
        memory.record(["request-1 1"])
    (warning,) = preview(dead, world.config, namespace).warnings
    assert "has done just this before" in warning


@pytest.mark.parametrize("world", ["embedded", ACTIVEMQ], indirect=True)
def test_letters_are_found_where_nobody_may_look(world: World) -> None:
    world.transport.send(*(letter(world, number) for number in range(5)))
    wanted = Wanted(world.transport.namespace)
    for _ in range(2):
        listing = find_by_taking(world.transport, wanted, silence=0.5)
        assert [one.identity for one in listing.letters] == [f"letter-{number}" for number in range(5)]
        assert listing.held == {world.dead("multiply"): 5}
    named = find_by_taking(world.transport, replace(wanted, queues=("multiply",)), silence=0.5)
    assert len(named.letters) == 5
    done: list[Done] = []
    assert reinject(world.transport, named.letters[3:4], done.append, silence=1) == []
    assert [one.identity for one in found(world)] == ["letter-0", "letter-1", "letter-2", "letter-4"]


@pytest.mark.parametrize("world", ["embedded", ACTIVEMQ, RABBITMQ], indirect=True)
def test_letters_that_a_broker_made(world: World) -> None:
    """A client that has never heard of us refuses a message: there is no reason, and on RabbitMQ no name."""
    if world.kind == "rabbitmq":
        vhost = world.transport  # refused by the transport's own means, which sets no header at all
        arrived: list[Message] = []
        number = vhost.subscribe("multiply", arrived.append)
        vhost.send(Send("multiply", b"[1]", {"note": "kept"}))
        wait_until(lambda: arrived, 10, "the message")
        vhost.refuse(arrived[0])
        vhost.unsubscribe(number)
    else:
        listener = Listener(world.transport, "multiply")
        world.transport.send(Send("multiply", b"[1]", {"note": "kept"}))
        world.transport.refuse(listener.wait_for(1)[0])
        world.transport.unsubscribe(listener.messages[0].subscription)
    wait_until(lambda: len(found(world)) == 1, 10, "the dead letter")
    (dead,) = found(world)
    assert (dead.origin, dead.payload) == (world.whole("multiply"), [1])
    assert dead.reason
    with world.hosting(Multiplier):
        done: list[Done] = []
        assert reinject(world.transport, [dead], done.append) == []
        wait_until(lambda: [one.reinjected for one in found(world)] == [1], 10, "it to die once more")
    (again,) = found(world)
    assert again.headers["note"] == "kept"
    assert "takes recipe messages only" in again.reason


@pytest.mark.parametrize(
    "body", [b'{"a": [1, "\xc3\xbc"]}', b"[]", b'"text"', b"12", b"", b"NaN", b"\xff\x00", b"[NaN]", b"{"]
)
def test_files_give_back_what_was_written(body: bytes, tmp_path: Path) -> None:
    headers = {"destination": "/queue/DLQ.a.b", "message-id": "ID:host-1:2", "timestamp": "1700000000123"}
    file = write(headers, body, "ID:host-1:2", tmp_path)
    assert file.name.endswith("-123-ID_host-1_2")
    again = read(file).letter
    assert (
        json.loads(again.body) == json.loads(body)
        if body[:1] in b"{[" and len(body) > 5
        else again.body == body
    )
    assert again.origin == "a.b"
    assert write(headers, body, "ID:host-1:2", tmp_path) == file, "the same letter in the same file"
    other = write({**headers, "note": "another"}, body, "ID:host-1:2", tmp_path)
    assert (other.name, other != file) == (f"{file.name}-2", True)


def test_names_of_files_stay_in_their_directory(tmp_path: Path) -> None:
    file = write({}, b"{}", "../../../etc/passwd\n", tmp_path / "dead")
    assert file.parent.parent == tmp_path / "dead"


def test_what_is_known_in_part_is_not_exported(tmp_path: Path) -> None:
    part = replace(of_content({"destination": "DLQ.x"}, b"beginning"), size=10_000_000)
    with pytest.raises(Incomplete, match="purge it"):
        export([part], tmp_path, lambda _: None)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing at all
