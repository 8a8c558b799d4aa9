"""Error nodes and joins on a real ActiveMQ."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from parvis.config import Config
from parvis.recipe.envelope import Envelope
from parvis.service.base import Service, Step
from parvis.service.contract import Anything, Outputs
from parvis.service.host import Host
from parvis.transport.stomp import StompTransport
from parvis_services.operate.join import Join
from real.activemq.server import ActiveMQ
from running import Listener, in_thread
from sample_services import Multiplier, Number

pytestmark = pytest.mark.real("activemq")


class Splitter(Service[Anything, Anything]):
    """Sends numbers, one by one."""

    name: ClassVar[str] = "Splitter"
    queue: ClassVar[str] = "split"
    outputs: ClassVar[Outputs] = {"each": Number}

    def process(self, payload: Any, step: Step[Anything]) -> None:
        for number in payload.model_dump()["numbers"]:
            step.send("each", {"number": number})


@pytest.fixture
def namespace() -> str:
    return f"recipes-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def transports(activemq: ActiveMQ, namespace: str) -> Iterator[list[StompTransport]]:
    address = [(activemq.host, activemq.port)]
    made = [StompTransport(address, activemq.username, activemq.password, namespace) for _ in range(2)]
    made[0].connect()
    yield made
    made[0].disconnect()


def test_a_fan_out_with_failures_is_joined(
    transports: list[StompTransport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    recipe: dict[str, Any] = {
        "1": {"queue": "split", "output": {"each": 2}, "priority": 9},
        "2": {"queue": "multiply", "output": 3, "error": [3, 4], "retries": 1, "retry-delay": 0.5},
        "3": {"queue": "join", "parameters": {"wait-for": {"2": 5}}, "output": 5},
        "4": {"queue": "failed"},
        "5": {"queue": "joined"},
        "6": {"queue": "join", "parameters": {"wait-for": {"2": 99}, "timeout": 1}, "output": {"timeout": 5}},
        "start": [[1, {"numbers": [1, 13, 15, 2, 3]}]],
    }
    late = {**recipe, "2": {**recipe["2"], "output": 6, "error": [4]}}
    out, inside = transports
    heard = Listener(out, "failed", "joined")
    host = Host(inside, [service(Config()) for service in (Splitter, Multiplier, Join)])
    with in_thread(host):
        for content, recipe_id in ((recipe, "whole"), (late, "late")):
            out.send(*Envelope(content, 0, None, environment={"ID": recipe_id}).start())
        heard.wait_for(6, timeout=30)
    by_recipe: dict[str, list[Any]] = {"whole": [], "late": []}
    for message in heard.messages:
        envelope = Envelope.parse(message.body)
        if message.destination == "joined":
            by_recipe[str(envelope.recipe_id)].append(envelope.payload)
    ((whole,), (late_one,)) = by_recipe["whole"], by_recipe["late"]
    results = whole["arrived"]["2"]
    assert sorted(entry["number"] for entry in results if "number" in entry) == [2, 4, 6]
    assert sorted(entry["error"]["tries"] for entry in results if "error" in entry) == [1, 2]
    assert (len(late_one["arrived"]["2"]), late_one["missing"]) == (3, {"2": 96})
