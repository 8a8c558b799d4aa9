"""What hosts tell each other of messages in flight: the form on the wire.

A report is a small JSON object on the topic `transient.parvis.flow`. Counts are sums since the host started,
so that a report that gets lost is made good by the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json

TOPIC: Final = "transient.parvis.flow"
#: Header of a message that a regulated fan-out sent: whose it is, see `Key`.
FLOW: Final = "parvis-flow"

_MOST_BYTES = 1_000_000
_MOST_COUNT = 10**15
_KEY = re.compile(r"[A-Za-z0-9_.@:+/-]{1,64}\|[A-Za-z0-9_.@:+/-]{0,64}\|[0-9a-f]{1,32}")
_QUEUE = re.compile("[!-~]{1,255}")  # wildcards, too
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@:+/-]")


class Key(NamedTuple):
    """Whose a message is.

    Attributes:
        recipe: The recipe ID; for what is not part of a dispatched recipe, something of its own.
        user: Who started the recipe, as far as that is known, or nothing.
        watch: Which watch of that recipe, as one recipe may have several.
    """

    recipe: str
    user: str
    watch: str

    @classmethod
    def of(cls, recipe: str | None, user: str, watch: str) -> Key:
        """Make a key from names that may hold anything."""
        return cls(_safe(recipe or f"watch-{watch}"), _safe(user), watch)

    @staticmethod
    @lru_cache(maxsize=1000)
    def parse(text: str) -> Key | None:
        """Read a key, or return None if it is none."""
        return Key(*text.split("|")) if len(text) <= _LONGEST_KEY and _KEY.fullmatch(text) else None

    def __str__(self) -> str:
        return "|".join(self)


_LONGEST_KEY = 64 + 64 + 32 + 2


def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name)[:64]


@dataclass(frozen=True, slots=True)
class Served:
    """A queue that a host takes messages from.

    Attributes:
        handled: How many it has handled.
        rate: How many a second it handles when it is busy, or None if it does not know yet.
    """

    handled: int
    rate: float | None


class Tally(NamedTuple):
    """Messages of one key and one queue, as a host counts them that handles messages.

    Attributes:
        done: How many of that queue it has handled for good: done, or dead letters.
        done_new: How many of them since its last report.
        waiting: How many it has sent to be tried again, less those that came back to it.
        sent: How many it has sent on to that queue, because of others with that key.
        sent_new: How many of them since its last report.
    """

    done: int = 0
    done_new: int = 0
    waiting: int = 0
    sent: int = 0
    sent_new: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages of one key to one queue, as the host that sends them knows.

    Attributes:
        sent: How many were sent.
        done: How many of them were handled for good.
        held: Whether more would have been sent if there had been room.
    """

    sent: int
    done: int
    held: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What one host says.

    Attributes:
        host: Its name, and something that tells one run of it from the next.
        idle: Seconds for which it has had nothing to do.
        gone: Whether it ends.
        queues: The queues it takes messages from.
        tallies: What it has handled and sent on, by queue and key.
        sent: What its fan-outs have sent, by queue and key.
    """

    host: str
    idle: float = 0.0
    gone: bool = False
    queues: Mapping[str, Served] = field(default_factory=dict[str, Served])
    tallies: Mapping[tuple[str, Key], Tally] = field(default_factory=dict[tuple[str, Key], Tally])
    sent: Mapping[tuple[str, Key], Sent] = field(default_factory=dict[tuple[str, Key], Sent])

    def to_bytes(self) -> bytes:
        """Write it for the wire."""
        return dump_json(
            {
                "host": self.host,
                "idle": round(self.idle, 2),
                "gone": self.gone,
                "queues": {queue: [served.handled, served.rate] for queue, served in self.queues.items()},
                "tallies": [[queue, str(key), *tally] for (queue, key), tally in self.tallies.items()],
                "sent": [
                    [queue, str(key), one.sent, one.done, one.held] for (queue, key), one in self.sent.items()
                ],
            }
        )

    @classmethod
    def parse(cls, body: bytes) -> Report:
        """Read one from the wire.

        Raises:
            MalformedMessage: It is none.
        """
        if len(body) > _MOST_BYTES:
            raise MalformedMessage("a report of this size is none")
        content = parse_json(body)
        try:
            return cls(
                host=_text(content["host"])[:300],
                idle=_number(content["idle"]),
                gone=content["gone"] is True,
                queues={
                    _queue(queue): Served(_count(handled), _rate(rate))
                    for queue, (handled, rate) in content["queues"].items()
                },
                tallies={
                    (_queue(queue), _key(key)): Tally(
                        _count(done), _count(done_new), _level(waiting), _count(sent), _count(sent_new)
                    )
                    for queue, key, done, done_new, waiting, sent, sent_new in content["tallies"]
                },
                sent={
                    (_queue(queue), _key(key)): Sent(_count(sent), _count(done), held is True)
                    for queue, key, sent, done, held in content["sent"]
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise MalformedMessage(f"no report on messages in flight: {error}") from None


@dataclass(frozen=True, slots=True)
class State:
    """What the checkpoint of a fan-out carries, so that any instance can go on with it.

    Attributes:
        watch: See `Key`.
        counts: How many messages were sent to each queue, and how many of them were known to be handled.
    """

    watch: str
    counts: Mapping[str, tuple[int, int]]

    def to_header(self) -> str:
        """Write it into a header."""
        return dump_json([self.watch, {queue: list(pair) for queue, pair in self.counts.items()}]).decode()

    @classmethod
    def parse(cls, header: str | None) -> State | None:
        """Read it, or return None if there is none that can be read."""
        if header is None or len(header) > _LONGEST_STATE:
            return None
        try:
            watch, counts = cast("tuple[Any, Any]", parse_json(header.encode()))
            known = {str(queue): (_count(sent), _count(done)) for queue, (sent, done) in counts.items()}
        except (MalformedMessage, TypeError, ValueError, AttributeError):
            return None
        return cls(watch, known) if isinstance(watch, str) and re.fullmatch("[0-9a-f]{1,32}", watch) else None


_LONGEST_STATE = 10_000


def _key(text: Any) -> Key:
    key = Key.parse(_text(text))
    if key is None:
        raise ValueError("a key is wrong")
    return key


def _queue(name: Any) -> str:
    if not _QUEUE.fullmatch(name):
        raise ValueError("the name of a queue is wrong")
    return name


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a name is wrong")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise ValueError("a count is wrong")
    return value


def _level(value: Any) -> int:
    if type(value) is not int or abs(value) > _MOST_COUNT:
        raise ValueError("a count is wrong")
    return value


def _rate(value: Any) -> float | None:
    return None if value is None else min(max(_number(value), 0.0), 1e9)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a number is wrong")
    return float(value)
