"""How much a service may send because of one message."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from parvis.recipe.envelope import Envelope
from parvis.service import base
from parvis.service.base import Reject, Service, Step, bounded
from parvis.service.contract import Anything, Model, Outputs
from parvis.service.testing import run
from parvis.transport.base import Send


class Wanted(Model):
    """How many messages of how many bytes to send, and how."""

    messages: int = 1
    size: int = 1
    way: str = "output"


class Talker(Service[Wanted, Anything]):
    """Sends as much as it is told to."""

    name: ClassVar[str] = "Talker"
    queue: ClassVar[str] = "talk"
    Payload: ClassVar[type[BaseModel]] = Wanted
    outputs: ClassVar[Outputs] = {"result": None}

    def process(self, payload: Wanted, step: Step[Anything]) -> None:
        said = "x" * payload.size
        for _ in range(payload.messages):
            match payload.way:
                case "output":
                    step.send("result", said)
                case "checkpoint":
                    step.checkpoint(said)
                case _:
                    step.send_to_queue(Send("elsewhere", said.encode()))


WAYS = pytest.mark.parametrize("way", ["output", "checkpoint", "queue"])


@WAYS
def test_a_message_that_is_too_large_costs_the_message_that_caused_it(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "LARGEST_MESSAGE", 10_000)
    assert run(Talker, {"size": 9_000, "way": way}).outcome.result == "done"
    outcome = run(Talker, {"size": 10_001, "way": way}).outcome
    assert outcome.result == "reject"
    assert "is too large: at most 10,000 bytes can be sent" in outcome.reason
    assert not outcome.sends


@WAYS
@pytest.mark.parametrize("wanted", [{"messages": 101}, {"messages": 11, "size": 10_000}])
def test_so_does_too_much_at_once(way: str, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_MESSAGES", 100)
    monkeypatch.setattr(base, "MOST_BYTES", 100_000)
    assert run(Talker, {"messages": 100, "way": way}).outcome.result == "done"
    outcome = run(Talker, wanted | {"way": way}).outcome
    assert outcome.result == "reject"
    assert (
        outcome.reason == "one message makes the service send more than 100 messages or 100,000 bytes at once"
    )
    assert not outcome.sends


def test_what_is_beyond_the_bounds_is_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of a megabyte can lead to ten thousand nodes, and goes along to each of them."""
    monkeypatch.setattr(base, "MOST_BYTES", 1_000_000)
    many = range(2, 2002)
    recipe = {"1": {"output": list(many)}} | {str(number): {"queue": "q"} for number in many}
    envelope = Envelope(recipe, 1, None)
    tracemalloc.start()
    try:
        with pytest.raises(Reject, match="1,000,000 bytes at once"):
            list(bounded(envelope.onward("result", "result", "x" * 50_000)))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_the_bounds_are_generous() -> None:
    assert run(Talker, {"messages": 20_000}).outcome.result == "done"
    assert run(Talker, {"size": 20_000_000}).outcome.result == "done"
