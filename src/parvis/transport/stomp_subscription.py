"""A subscription at a STOMP broker, and what was delivered on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from parvis.transport.base import BrokerRefused, Callback, Message

INDIVIDUAL: Final = "client-individual"


@dataclass(slots=True, eq=False)
class Subscription:
    """What somebody listens to, on whichever connection there is.

    Attributes:
        number: As of `Message.subscription`.
        headers: Of the frame that asks for it.
        callback: Called with each message.
        outstanding: Tokens of what was delivered on this connection and not acknowledged, in that order.
        accepted: Whether the broker has accepted it once.
        refused: Why it has not.
        individual: Whether messages are acknowledged one by one, in whichever order.
    """

    number: int
    headers: dict[str, str]
    callback: Callback
    outstanding: deque[str] = field(default_factory=deque[str])
    accepted: bool = False
    refused: BrokerRefused | None = None
    individual: bool = field(init=False)

    def __post_init__(self) -> None:
        self.individual = self.headers["ack"] == INDIVIDUAL

    @property
    def name(self) -> str:
        """What it is to, for people."""
        return self.headers["destination"]

    def forget(self) -> None:
        """The connection is lost, and with it what was delivered."""
        self.outstanding.clear()

    def check(self, messages: Sequence[Message]) -> None:
        """Raise ValueError if messages are not the oldest, or were claimed before."""
        outstanding, where = self.outstanding, messages[0].destination
        if self.individual:
            if messages[0].token not in outstanding:
                raise ValueError(f"a message from {where} is acknowledged only once")
        elif [message.token for message in messages] != list(islice(outstanding, len(messages))):
            raise ValueError(f"messages from {where} can be acknowledged only once, in the order of delivery")

    def claim(self, messages: Sequence[Message]) -> None:
        """Take messages that were checked off those outstanding."""
        for message in messages:
            self.outstanding.remove(message.token)
