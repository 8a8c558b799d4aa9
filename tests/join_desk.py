"""A join with a broker that tells it everything in order, and may kill it at the worst moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from parvis.config import Config
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.handling import Outcome, handle
from parvis.service.identity import IDENTITY, identified
from parvis.service.settling import RETRIES
from parvis.transport.base import Message, Send
from parvis_services.operate.join import Join

JOIN = 4
RECIPE: dict[str, Any] = {
    "1": {"queue": "first", "output": [2, 3]},
    "2": {"queue": "second", "output": JOIN},
    "3": {"queue": "third", "output": JOIN},
    "4": {
        "queue": "join",
        "parameters": {"wait-for": {"2": 1, "3": 2}, "timeout": 60},
        "output": {"complete": 5, "timeout": 6, "late": 7},
    },
    "5": {"queue": "complete"},
    "6": {"queue": "timeout"},
    "7": {"queue": "late"},
    "start": [[1, {}]],
}


def recipe(**changes: Any) -> dict[str, Any]:
    return {**RECIPE, "4": {**RECIPE["4"], **changes}}


def body(source: int, payload: Any, environment: dict[str, Any], content: dict[str, Any]) -> bytes:
    return dump_json(
        {
            "recipe": content,
            "recipe-pointer": JOIN,
            "recipe-path": [1, source] if source else [],
            "environment": environment,
            "payload": payload,
        }
    )


def arrival(
    identity: str,
    source: int,
    payload: Any = None,
    *,
    environment: dict[str, Any] | None = None,
    content: dict[str, Any] = RECIPE,
    message_id: str | None = None,
) -> Message:
    text = body(source, payload, {"ID": "r1"} if environment is None else environment, content)
    headers = {RECIPE_HEADER: "True", IDENTITY: identity}
    return Message("join", text, headers, message_id or f"broker:{identity}", 1)


@dataclass
class Desk:
    """A broker with one consumer, which may be killed: after it has handled, and before that is confirmed."""

    directory: Path
    queue: list[Message] = field(default_factory=list[Message])
    delayed: list[Message] = field(default_factory=list[Message])
    sent: list[Send] = field(default_factory=list[Send])
    rejected: list[tuple[Message, str]] = field(default_factory=list[tuple[Message, str]])
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def __post_init__(self) -> None:
        self.join = self.service()

    def service(self) -> Join:
        join = Join(Config(storage={"parvis.state_directory": str(self.directory)}))
        join.start()
        return join

    def take(self, *, killed: bool = False) -> Outcome:
        """Handle the first message of the queue; commit what comes of it, unless the process is killed."""
        message = self.queue.pop(0)
        outcome = handle(self.join, message)
        if killed:
            self.join.stop()
            self.join = self.service()
            self.queue.insert(0, replace(message, redelivered=True))
        elif outcome.result == "done":
            for send in identified(message, outcome.sends):
                self._send(send)
        elif outcome.result == "retry":
            retries = str(int(message.headers.get(RETRIES, "0")) + 1)
            self.queue.append(self._again(message, {RETRIES: retries}))
        else:
            assert outcome.result == "reject", outcome
            self.rejected.append((message, outcome.reason))
        return outcome

    def drain(self) -> None:
        while self.queue:
            self.take()

    def time_passes(self) -> None:
        self.queue += self.delayed
        self.delayed.clear()
        self.drain()

    def _again(self, message: Message, headers: dict[str, str]) -> Message:
        return replace(
            message,
            headers={**message.headers, **headers},
            message_id=f"again:{next(self.numbers)}",
            redelivered=False,
        )

    def _send(self, send: Send) -> None:
        if send.destination != "join":
            self.sent.append(send)
            return
        message = Message("join", send.body, send.headers, f"own:{next(self.numbers)}", 1)
        (self.delayed if send.delay else self.queue).append(message)

    def payloads(self, destination: str) -> list[Any]:
        return [orjson.loads(send.body)["payload"] for send in self.sent if send.destination == destination]
