"""Identities: what is sent has one that is the same the second time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from parvis.config import Config
from parvis.service.base import Service, Step
from parvis.service.contract import Anything, Outputs
from parvis.service.handling import handle
from parvis.service.identity import IDENTITY, identified, identity_of
from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, recipe_message
from sample_services import Multiplier


class Speaker(Service[Anything, Anything]):
    """Sends in every way there is."""

    name: ClassVar[str] = "Speaker"
    queue: ClassVar[str] = "speak"
    outputs: ClassVar[Outputs] = {"result": None}
    default_output: ClassVar[str | None] = "result"

    def process(self, payload: Any, step: Step[Anything]) -> None:  # noqa: ARG002
        step.send("result", {"identity": step.identity})
        step.send("result", {"identity": step.identity})
        step.checkpoint({})
        step.start_recipe({"start": [[1, {}]], "1": {"queue": "elsewhere"}}, {})
        step.send_to_queue(Send("elsewhere", b"", step.header))


def message(identity: str | None = None, message_id: str = "ID:1", redelivered: bool = False) -> Message:
    send = recipe_message("speak", {})
    headers = {**send.headers, **({IDENTITY: identity} if identity else {})}
    return Message(send.destination, send.body, headers, message_id, 1, redelivered=redelivered)


def sent_by_handling(cause: Message) -> list[str]:
    outcome = handle(Speaker(Config()), cause)
    assert outcome.result == "done"
    return [send.headers[IDENTITY] for send in identified(cause, outcome.sends)]


def test_all_that_is_sent_has_an_identity_of_its_own() -> None:
    cause = message("the cause")
    identities = sent_by_handling(cause)
    assert len(set(identities)) == 5
    assert "the cause" not in identities


def test_handling_a_message_again_sends_the_same_identities() -> None:
    first = message("the cause", "ID:1")
    again = message("the cause", "ID:2", redelivered=True)
    assert sent_by_handling(first) == sent_by_handling(again)
    assert not set(sent_by_handling(first)) & set(sent_by_handling(message("another")))


def test_a_message_without_one_goes_by_the_brokers_identifier() -> None:
    assert identity_of(message(None, "ID:7")) == "ID:7"
    assert sent_by_handling(message(None, "ID:7")) == sent_by_handling(message("ID:7", "ID:8"))


def test_a_very_long_identity_is_shortened_and_stays_the_same() -> None:
    one, other = (identity_of(message(letter * 50_000)) for letter in "ab")
    assert len(one) < 100
    assert one != other
    assert identity_of(message(one)) == one


def test_a_dead_letter_after_retries_has_the_identity_of_the_message(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    send = recipe_message("multiply", {"number": 14})
    with hosted(broker.port, Multiplier):
        transport.send(replace(send, headers={**send.headers, IDENTITY: "mine"}))
        transport.send(send)
        with_one, without = letters.wait_for(2)
    assert with_one.headers[IDENTITY] == "mine"
    assert len(without.headers[IDENTITY]) > 8


def test_a_service_knows_the_identity_and_what_it_sends_is_derived_from_it(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results = Listener(transport, "results", "elsewhere")
    send = recipe_message("multiply", {"number": 4})
    with hosted(broker.port, Multiplier):
        for _ in range(2):
            transport.send(replace(send, headers={**send.headers, IDENTITY: "mine"}))
        first, second = results.wait_for(2)
    assert first.headers[IDENTITY] == second.headers[IDENTITY] != "mine"
