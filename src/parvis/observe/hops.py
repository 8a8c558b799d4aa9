"""Hops: what services report of the recipe messages that they have handled, and the form on the wire.

A report is a JSON object in the queue `parvis.hops`. It says where a message was and what became of it, never
what was in it. The dispatcher reports what it has started in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast, get_args

import orjson

from parvis.config import RECORDS_HOPS, Config, ConfigError
from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json
from parvis.transport.base import DISPOSABLE, Send

#: The queue that reports are sent to.
QUEUE: Final = "parvis.hops"
#: Key of the configuration's storage: see `stuck_after`.
STUCK_AFTER: Final = "parvis.records.stuck_after"
#: The node of what leads to a recipe, and is not yet part of it: a request to the dispatcher.
REQUEST: Final = 0

HopResult = Literal["done", "retry", "reject", "fail", "timeout", "crash", "duplicate"]
SentKind = Literal["message", "checkpoint", "reminder", "again", "error", "dead_letter", "broadcast"]

_STUCK_AFTER: Final = 300.0
_SWITCH: Final = {"true": True, "1": True, "false": False, "0": False}
_EXPIRATION: Final = 86_400.0  # seconds
_LONGEST_TEXT: Final = 1000
_LONGEST_TRACE: Final = 8000
_LONGEST_NAME: Final = 255
_LENIENT: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_MOST_BYTES: Final = 8_000_000
_MOST_HOPS: Final = 10_000
_MOST_SENT: Final = 10_000
_MOST_COUNT: Final = 10**9
_LATEST: Final = 10.0**11  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages that left because of another, all to the same place and in the same way.

    Attributes:
        node: Number of the recipe node that they are for; None for what is not part of the recipe.
        queue: Name of the queue or, of a broadcast, the topic.
        count: How many.
        kind: `message`, at an output; `checkpoint`, to the same node; `reminder`, a checkpoint that is of no
            matter once the node has sent something on; `again`, the message itself, to be tried once more;
            `error`, to an error node; `dead_letter`, the message itself, set aside; `broadcast`, to a topic,
            where nobody says whether it has been heard.
        delay: Seconds that the broker holds them back.
    """

    node: int | None
    queue: str
    count: int = 1
    kind: SentKind = "message"
    delay: float = 0


@dataclass(frozen=True, slots=True)
class Hop:
    """One handling of one message of a recipe.

    Attributes:
        recipe_id: The recipe ID.
        node: Number of the node that the message was for; `REQUEST` for a request to the dispatcher.
        queue: Name of the queue that it came by.
        identity: What tells the message from all others. It is the same when it is tried again, when it is
            a dead letter, and when that is sent in once more.
        result: What came of it. What is not done may be tried again: then `again` is among what was sent.
        service: Who handled it.
        host: In which process.
        sent_at: When it was sent or, if it was held back, when that was over; seconds since 1970.
        begun: When handling it began, in seconds since 1970.
        seconds: How long that took.
        tries: How often it has been tried, with this time.
        came_from: Number of the node that sent it; None if it came from none.
        sent: What left because of it.
        reason: Why it is not done.
        trace: The traceback, if there is one.
        reinjected: How often it was a dead letter before, and was sent in again.
    """

    recipe_id: str
    node: int
    queue: str
    identity: str
    result: HopResult
    service: str
    host: str
    sent_at: float
    begun: float
    seconds: float
    tries: int = 1
    came_from: int | None = None
    sent: tuple[Sent, ...] = ()
    reason: str = ""
    trace: str = ""
    reinjected: int = 0

    @property
    def ended(self) -> float:
        """When handling it ended, in seconds since 1970."""
        return self.begun + self.seconds

    @property
    def is_final(self) -> bool:
        """Whether the message is not to be tried once more."""
        return not any(sent.kind == "again" for sent in self.sent)


@dataclass(frozen=True, slots=True)
class Started:
    """A recipe that the dispatcher has started.

    Attributes:
        recipe_id: The recipe ID.
        identity: Identity of the request.
        at: When it was started, in seconds since 1970.
        user: On whose behalf, as far as that is known, or nothing.
        header: Headers of the request.
        message: Its body.
        parameters: The body with the parameters, once the filters had seen them.
        recipe: The recipe as it was started: filled in.
    """

    recipe_id: str
    identity: str
    at: float
    user: str = ""
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    message: Any = None
    parameters: Any = None
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Report:
    """What one message in the queue says."""

    hops: Sequence[Hop] = ()
    started: Sequence[Started] = ()


def reports_hops(config: Config) -> bool:
    """Whether services are to report hops.

    Raises:
        ConfigError: The configuration says neither yes nor no.
    """
    wanted = config.storage.get(RECORDS_HOPS, False)
    if str(wanted).lower() not in _SWITCH:
        raise ConfigError(f"{RECORDS_HOPS} must be true or false, it is {str(wanted)[:40]!r}")
    return _SWITCH[str(wanted).lower()]


def stuck_after(config: Config) -> float:
    """Seconds without a hop after which what is outstanding is stuck.

    Raises:
        ConfigError: What is configured is no number of seconds.
    """
    value = config.storage.get(STUCK_AFTER, _STUCK_AFTER)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < _LATEST:
        raise ConfigError(f"{STUCK_AFTER} must be a number of seconds above 0, it is {str(value)[:40]!r}")
    return seconds


def hops_body(hops: Iterable[Hop], started: Iterable[Started] = ()) -> bytes:
    """Write a report for the wire. What has no form in JSON, of what was started, becomes text."""
    starts = [orjson.Fragment(started_to_bytes(one)) for one in started]
    return dump_json({"hops": [hop_to_json(hop) for hop in hops], "started": starts})


def report(hops: Iterable[Hop], started: Iterable[Started] = ()) -> Send:
    """Return what reports hops, and recipes that were started."""
    return Send(QUEUE, hops_body(hops, started), {DISPOSABLE: "True"}, expiration=_EXPIRATION)


def read_hops(body: bytes) -> Report:
    """Read a report from the wire.

    Raises:
        MalformedMessage: It is none.
    """
    content = parse_json(body)
    try:
        hops: list[Any] = content.get("hops") or []
        started: list[Any] = content.get("started") or []
        if len(hops) > _MOST_HOPS or len(started) > _MOST_HOPS:
            raise MalformedMessage(f"a report has at most {_MOST_HOPS:,} hops")
        return Report([hop_from_json(hop) for hop in hops], [started_from_json(one) for one in started])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"no report of hops: {type(error).__name__}: {str(error)[:200]}") from None


def hop_to_json(hop: Hop) -> dict[str, Any]:
    """Return the form of a hop in JSON."""
    return {
        "recipe_id": hop.recipe_id,
        "node": hop.node,
        "queue": hop.queue,
        "identity": hop.identity,
        "result": hop.result,
        "service": hop.service,
        "host": hop.host,
        "sent_at": hop.sent_at,
        "begun": hop.begun,
        "seconds": hop.seconds,
        "tries": hop.tries,
        "came_from": hop.came_from,
        "sent": sent_to_json(hop.sent),
        "reason": hop.reason,
        "trace": hop.trace,
        "reinjected": hop.reinjected,
    }


def hop_from_json(content: Mapping[str, Any]) -> Hop:
    """Read a hop.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    result = content["result"]
    if result not in get_args(HopResult):
        raise ValueError(f"no result of a hop: {str(result)[:40]!r}")
    came_from = content.get("came_from")
    return Hop(
        recipe_id=_text(content["recipe_id"], 200, required=True),
        node=_whole(content["node"]),
        queue=_text(content["queue"], _LONGEST_NAME),
        identity=_text(content["identity"], _LONGEST_NAME, required=True),
        result=result,
        service=_text(content["service"], _LONGEST_NAME),
        host=_text(content["host"], _LONGEST_NAME),
        sent_at=_seconds(content["sent_at"]),
        begun=_seconds(content["begun"]),
        seconds=_seconds(content["seconds"]),
        tries=_whole(content.get("tries", 1)),
        came_from=None if came_from is None else _whole(came_from),
        sent=sent_from_json(content.get("sent") or []),
        reason=_text(content.get("reason") or "", _LONGEST_TEXT),
        trace=_text(content.get("trace") or "", _LONGEST_TRACE),
        reinjected=_whole(content.get("reinjected", 0)),
    )


def sent_to_json(sent: Iterable[Sent]) -> list[list[Any]]:
    """Return the form of what was sent in JSON: a list for each."""
    return [[one.node, one.queue, one.count, one.kind, one.delay] for one in sent]


def sent_from_json(content: Any) -> tuple[Sent, ...]:
    """Read what was sent.

    Raises:
        TypeError, ValueError: It is not in that form.
    """
    if not isinstance(content, list) or len(cast("list[Any]", content)) > _MOST_SENT:
        raise ValueError("what was sent is a list, and not a long one")
    return tuple(_read_sent(*one) for one in cast("list[Any]", content))


def clipped(text: str, *, trace: bool = False) -> str:
    """Return a text as long as a hop may carry it: of a reason the beginning, of a traceback the end."""
    return text[-_LONGEST_TRACE:] if trace else text[:_LONGEST_TEXT]


def _read_sent(node: Any, queue: Any, count: Any, kind: Any, delay: Any) -> Sent:
    if kind not in get_args(SentKind):
        raise ValueError(f"no kind of what is sent: {str(kind)[:40]!r}")
    number = None if node is None else _whole(node)
    return Sent(number, _text(queue, _LONGEST_NAME), _whole(count), kind, _seconds(delay))


def started_to_bytes(started: Started) -> bytes:
    """Return the form of a recipe that was started in JSON. Of one that is very large, less is told."""
    content = asdict(started)
    for name in ("message", "parameters", "recipe"):
        written = orjson.dumps(content, default=str, option=_LENIENT)
        if len(written) <= _MOST_BYTES:
            return written
        content[name] = {}
    return orjson.dumps(content, default=str, option=_LENIENT)


def started_from_json(content: Mapping[str, Any]) -> Started:
    """Read a recipe that was started.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    header, recipe = content["header"], content["recipe"]
    if not isinstance(header, dict) or not isinstance(recipe, dict):
        raise TypeError("header and recipe are objects")
    return Started(
        recipe_id=_text(content["recipe_id"], 200, required=True),
        identity=_text(content["identity"], _LONGEST_NAME),
        at=_seconds(content["at"]),
        user=_text(content.get("user") or "", _LONGEST_NAME),
        header={str(name): str(value) for name, value in cast("dict[Any, Any]", header).items()},
        message=content.get("message"),
        parameters=content.get("parameters"),
        recipe=cast("dict[str, Any]", recipe),
    )


def _text(value: Any, longest: int, *, required: bool = False) -> str:
    if not isinstance(value, str) or (required and not value):
        raise TypeError(f"text is expected, not {str(value)[:40]!r}")
    return value[:longest]


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_COUNT:
        raise ValueError(f"a whole number is expected, not {str(value)[:40]!r}")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LATEST:
        raise ValueError(f"seconds are expected, not {str(value)[:40]!r}")
    return float(value)
