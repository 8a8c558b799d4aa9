"""Reports hops: what was handled, and what left because of it, in the same transaction."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from parvis.observe.hops import QUEUE, REQUEST, Hop, Sent, SentKind, clipped, report
from parvis.recipe.envelope import RECIPE_HEADER, Envelope, MalformedMessage, is_recipe_message, parse_json
from parvis.service.base import REMINDER
from parvis.service.identity import IDENTITY, first_seen_of, identity_of, reinjections
from parvis.service.observer import Handled, Observer
from parvis.service.settling import ATTEMPTS, CRASHES, RETRIES, count
from parvis.service.status import host_id
from parvis.transport.base import BrokerRefused, Disconnected, Message, Send, whole_number

if TYPE_CHECKING:
    from parvis.service.base import AnyService
    from parvis.transport.base import Transport

#: Header that says when a message can be handled: when it was sent and, if it is held back, that much later.
READY: Final = "parvis-ready"  # ms since 1970

_log = logging.getLogger("parvis.hops")

# How messages of ours begin and end; what does not is read as a whole, which takes longer.
_HEAD: Final = re.compile(rb'\{"environment":\{"ID":"([!#-\[\]-~]{1,200})"[,}]')
_PATH: Final = b'"recipe-path":['
_TAIL: Final = re.compile(rb'"recipe-path":\[(?:(?:\d{1,9},)*(\d{1,9}))?\],"recipe-pointer":(\d{1,9})\}')
_LONGEST_TAIL: Final = 1000
_PATIENCE: Final = 10.0


class Place(NamedTuple):
    """Where in which recipe a message is.

    Attributes:
        recipe_id: The recipe ID; None outside a dispatched recipe.
        node: Number of the node that it is for.
        came_from: Number of the node that sent it, or None.
    """

    recipe_id: str | None
    node: int
    came_from: int | None


class HopRecorder(Observer):
    """Adds a report to each transaction in which messages of recipes are handled."""

    def __init__(self) -> None:
        self._hops: dict[str, Sequence[Hop]] = {}
        self._is_refused = False

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:  # noqa: ARG002
        """Make sure that reports are taken: a refused one would cost the transaction that it is part of."""
        try:
            transport.send(report(()), timeout=_PATIENCE)
        except Disconnected:
            pass
        except BrokerRefused as error:
            self._is_refused = True
            _log.error("hops are not reported, as the broker refuses to take them: %s", error)

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        """Note what leaves; say on each message when it can be handled."""
        if self._is_refused:
            return sends
        now = time.time()
        hops = hops_of(handled, sends, now)
        if not hops:
            return sends
        self._hops[handled.message.message_id] = hops
        return [_timed(send, now) for send in sends]

    def closing(self, handled: Sequence[Handled]) -> Sequence[Send]:
        """Report what was handled."""
        if self._is_refused:
            return ()
        hops = [hop for one in handled for hop in self._hops_of(one)]
        return [report(hops)] if hops else ()

    def _hops_of(self, handled: Handled) -> Sequence[Hop]:
        hops = self._hops.get(handled.message.message_id)
        if hops is not None or handled.outcome.result in ("done", "duplicate"):
            return hops or ()
        # What leaves without `sending` is a dead letter with little but its body.
        bare = hops_of(handled, (), time.time())
        return [replace(hop, sent=(Sent(hop.node, hop.queue, 1, "dead_letter"),)) for hop in bare]

    def committed(self, handled: Sequence[Handled]) -> None:
        """Forget what was reported."""
        for one in handled:
            self._hops.pop(one.message.message_id, None)

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:  # noqa: ARG002
        """Forget what was not: it is handled again."""
        self.committed(handled)


def reported(handled: Sequence[tuple[Handled, Sequence[Send]]]) -> list[Send]:
    """Return what leaves because of messages that were just handled, with a report of that.

    For who handles messages outside a host of ours, where no observer adds one.

    Args:
        handled: The messages, each with what leaves because of it, with identities.
    """
    now = time.time()
    hops = [hop for one, sends in handled for hop in hops_of(one, sends, now)]
    sends = [_timed(send, now) for _, sends in handled for send in sends]
    return [*sends, report(hops)] if hops else sends


def hops_of(handled: Handled, sends: Sequence[Send], now: float) -> list[Hop]:
    """Return the hop of a message, and one for each recipe that it has started.

    Args:
        handled: The message.
        sends: What leaves because of it, with identities.
        now: When handling it ended, in seconds since 1970.
    """
    message, outcome = handled.message, handled.outcome
    sends = [send for send in sends if send.destination != QUEUE]
    place = _place_of(message, sends)
    sent: dict[str, Counter[_Way]] = {}
    if place.recipe_id is not None:
        sent[place.recipe_id] = Counter()
    for send in sends:
        recipe_id, way = _way(send, message, place, done=outcome.result == "done")
        if recipe_id is not None and way is not None:
            sent.setdefault(recipe_id, Counter())[way] += 1
    return [
        Hop(
            recipe_id=recipe_id,
            node=place.node if recipe_id == place.recipe_id else REQUEST,
            queue=message.destination,
            identity=identity_of(message),
            result=outcome.result,
            service=handled.service.name,
            host=host_id(),
            sent_at=_ready(message, now),
            begun=round(now - handled.seconds, 6),
            seconds=round(handled.seconds, 6),
            tries=1 + sum(count(message, header) for header in (ATTEMPTS, RETRIES, CRASHES)),
            came_from=place.came_from if recipe_id == place.recipe_id else None,
            sent=tuple(
                Sent(way.node, way.queue, number, way.kind, way.delay) for way, number in ways.items()
            ),
            reason=clipped(outcome.reason),
            trace=clipped(outcome.trace, trace=True),
            reinjected=reinjections(message.headers),
        )
        for recipe_id, ways in sent.items()
    ]


def place_of(body: bytes) -> Place:
    """Return where a recipe message is, without reading all of it if it is one of ours.

    Raises:
        MalformedMessage: It is no recipe message.
    """
    head = _HEAD.match(body)
    begin = body.rfind(_PATH, max(0, len(body) - _LONGEST_TAIL))
    tail = _TAIL.fullmatch(body, begin) if begin >= 0 else None
    if head is not None and tail is not None:
        return Place(head[1].decode("ascii"), int(tail[2]), int(tail[1]) if tail[1] else None)
    envelope = Envelope.parse(body)
    return Place(envelope.recipe_id, envelope.pointer, envelope.path[-1] if envelope.path else None)


class _Way(NamedTuple):
    node: int | None
    queue: str
    kind: SentKind
    delay: float


def _place_of(message: Message, sends: Sequence[Send]) -> Place:
    """Where a message is; a request to the dispatcher may name the recipe ID, and so may what comes of it."""
    try:
        if is_recipe_message(message.headers):
            return place_of(message.body)
        for body in (message.body, *(send.body for send in sends if send.destination == message.destination)):
            recipe_id = _requested(body)
            if recipe_id is not None:
                return Place(recipe_id, REQUEST, None)
    except (MalformedMessage, RecursionError):
        pass
    return Place(None, REQUEST, None)


def _requested(body: bytes) -> str | None:
    content = parse_json(body)
    parameters: Any = content.get("parameters") if isinstance(content, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    guid: Any = parameters.get("guid") if isinstance(parameters, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return guid if isinstance(guid, str) and guid else None


def _way(send: Send, message: Message, place: Place, *, done: bool) -> tuple[str | None, _Way | None]:
    """The recipe that a message belongs to, and how it goes."""
    queue = send.destination
    if send.headers.get(IDENTITY) == identity_of(message):
        again = queue == message.destination and not send.absolute
        kind: SentKind = "again" if again else "dead_letter"
        return place.recipe_id, _Way(place.node, queue, kind, send.delay)
    if RECIPE_HEADER in send.headers:
        target = place_of(send.body)
        same = target.recipe_id == place.recipe_id
        if send.kind == "topic":
            kind = "broadcast"
        elif not done:
            kind = "error"
        elif same and target.node == place.node:
            kind = "reminder" if REMINDER in send.headers else "checkpoint"
        else:
            kind = "message"
        return target.recipe_id, _Way(target.node, queue, kind, send.delay)
    if send.kind == "topic":
        return None, None
    if place.node == REQUEST and queue == message.destination:
        return place.recipe_id, _Way(REQUEST, queue, "checkpoint", send.delay)
    return place.recipe_id, _Way(None, queue, "message", send.delay)


def _ready(message: Message, now: float) -> float:
    """When a message could be handled, as far as can be told."""
    headers = message.headers
    told = [whole_number(headers.get(name)) or 0 for name in (READY, "timestamp")]
    # One that was sent in again may still say when it could be handled the first time.
    ready = max(told) if reinjections(headers) else told[0] or told[1]
    return min((ready or int(first_seen_of(message))) / 1000, now)


def _timed(send: Send, now: float) -> Send:
    if RECIPE_HEADER not in send.headers:
        return send
    return send.with_headers({READY: str(round((now + send.delay) * 1000))})
