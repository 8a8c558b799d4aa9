"""What carries on the count of a fan-out, and what is reported of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parvis.config import Config
from parvis.recipe.envelope import RECIPE_HEADER
from parvis.service.flow import FlowControl
from parvis.service.flow_limits import Limits
from parvis.service.flow_report import FLOW, TOPIC, Key, Report, Tally
from parvis.service.handling import Outcome
from parvis.service.observer import Handled
from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from running import connected, hosted, recipe_message
from sample_services import Multiplier
from waiting import wait_until

KEY = str(Key.of("3f2a91c0", "gda2@cm1234-5", "0badcafe"))
ONWARD = Send("results", b"{}", {RECIPE_HEADER: "True"})


def carried(send: Send, key: str | None = KEY) -> str | None:
    """The key that `send` carries on from a message with `key`."""
    message = Message("multiply", b"{}", {} if key is None else {FLOW: key}, "a", 1)
    handled = Handled(Multiplier(Config()), message, Outcome("done", sends=[send]), 0.0)
    (sent,) = FlowControl(Limits()).sending(handled, [send])
    return sent.headers.get(FLOW)


def test_what_is_sent_on_along_the_recipe_counts() -> None:
    assert carried(ONWARD) == KEY
    assert carried(replace(ONWARD, delay=5)) == KEY
    assert carried(ONWARD, key=None) is None


@pytest.mark.parametrize(
    "send",
    [
        replace(ONWARD, delay=60),  # keeps no consumer from its work
        replace(ONWARD, kind="topic"),
        replace(ONWARD, headers={}),
    ],
)
def test_what_nobody_handles_soon_does_not(send: Send) -> None:
    assert carried(send) is None


def test_what_fans_out_itself_keeps_its_own_key() -> None:
    own = str(Key.of("3f2a91c0", "", "1"))
    assert carried(replace(ONWARD, headers={**ONWARD.headers, FLOW: own})) == own


def test_a_message_that_is_tried_again_waits_until_it_ends() -> None:
    told: list[Tally] = []

    def hear(report: Message) -> None:
        told.extend(Report.parse(report.body).tallies.values())

    with BrokerThread(port=0) as broker, connected(broker.port) as transport:
        transport.subscribe_broadcast(TOPIC, hear)
        with hosted(broker.port, Multiplier, observers=[FlowControl(Limits())]):
            send = recipe_message("multiply", {"number": 14})  # which is tried four times
            transport.send(replace(send, headers={**send.headers, FLOW: KEY}))
            wait_until(lambda: any(tally.done for tally in told), 20, "the report of its end")
    assert (told[-1].done, told[-1].waiting) == (1, 0)
