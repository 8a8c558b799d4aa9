"""Figures of the queues of a RabbitMQ, from its management interface."""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from parvis.observe.harmless import harmless
from parvis.observe.queue_figures import (
    BODY_LIMIT,
    BrokerFacts,
    NoFigures,
    NoPeek,
    PeekedMessage,
    QueueFigures,
    check_peek,
    clip_headers,
    is_dead_letters,
    local_name,
)
from parvis.transport.amqp_management import Management, configured
from parvis.transport.amqp_messages import DELAY
from parvis.transport.base import BrokerRefused, NoConnection, NotAdmitted

if TYPE_CHECKING:
    from parvis.config import Config

_OWN: Final = "amq."
_DEFAULT_LIMIT_SINCE: Final = 4
_DEFAULT_LIMIT: Final = 20


class RabbitMQSource:
    """A `QueueSource` on RabbitMQ's management interface.

    Args:
        management: The interface, connected.
        vhost: The virtual host whose queues are meant.
        namespace: Prefix of all names; empty for none.
    """

    product = "RabbitMQ"
    origin = "management interface"
    peek_cost = "RabbitMQ marks each message that is looked at as redelivered"

    def __init__(self, management: Management, vhost: str, namespace: str = "") -> None:
        self._management = management
        self._vhost = quote(vhost, safe="")
        self._namespace = namespace

    @classmethod
    def of(cls, config: Config) -> RabbitMQSource:
        """The one that the configuration names. Raises as `queue_figures.open_queue_source`."""
        from parvis.config import PikaSettings

        management, broker = configured(config), config.broker
        try:
            management.connect()
        except (NoConnection, NotAdmitted) as error:
            raise NoFigures(
                f"{error}: enable the plug-in (rabbitmq-plugins enable rabbitmq_management), say where it is "
                "by plugin rabbitmqapi of the configuration, and give its user the tag monitoring"
            ) from None
        if isinstance(broker, PikaSettings):
            return cls(management, broker.vhost)
        return cls(management, config.rabbitmqapi.vhost if config.rabbitmqapi else "/", broker.prefix)

    def figures(self) -> list[QueueFigures]:
        queues = [
            self._queue(entry)
            for entry in self._list("queues")
            if not (str(entry.get("name", "")).startswith(_OWN) and not entry.get("messages"))
        ]
        bindings = Counter(str(entry.get("source", "")) for entry in self._list("bindings"))
        topics = [
            self._topic(entry, bindings)
            for entry in self._list("exchanges")
            if entry.get("type") in {"fanout", "topic"}
            and not str(entry.get("name", "")).startswith((_OWN, DELAY))
        ]
        return sorted([*queues, *topics], key=lambda one: (one.kind, one.name))

    def peek(
        self, queue: str, limit: int = 10, skip: int = 0, *, at_a_price: bool = False
    ) -> list[PeekedMessage]:
        check_peek(limit, skip)
        path = f"queues/{self._vhost}/{quote(queue, safe='')}"
        self._check(queue, self._management.ask("GET", path), at_a_price=at_a_price)
        asked = {
            "count": skip + limit,
            "ackmode": "ack_requeue_true",
            "encoding": "base64",
            "truncate": BODY_LIMIT,
        }
        found: Any = self._management.ask("POST", f"{path}/get", asked)
        messages = cast("list[dict[str, Any]]", found or [])[skip:]
        return [_peeked(queue, place, entry) for place, entry in enumerate(messages, skip + 1)]

    def oldest(self, queue: str) -> float | None:
        entry = self._management.ask("GET", f"queues/{self._vhost}/{quote(queue, safe='')}")
        return self._queue(entry).oldest

    def broker_facts(self) -> BrokerFacts:
        overview = self._management.ask("GET", "overview")
        totals, messages = _part(overview, "object_totals"), _part(overview, "queue_totals")
        nodes = self._nodes()
        memory = [
            100 * n["mem_used"] / n["mem_limit"] for n in nodes if n.get("mem_limit") and "mem_used" in n
        ]
        alarms = [
            f"{what} alarm on {node.get('name', 'a node')}"
            for node in nodes
            for what, key in (("memory", "mem_alarm"), ("disk space", "disk_free_alarm"))
            if node.get(key)
        ]
        alarms += [f"{node.get('name', 'a node')} is down" for node in nodes if node.get("running") is False]
        return BrokerFacts(
            product=self.product,
            version=str(overview.get("rabbitmq_version", "")) or None,
            connections=totals.get("connections"),
            channels=totals.get("channels"),
            queues=totals.get("queues"),
            messages=messages.get("messages"),
            in_flight=messages.get("messages_unacknowledged"),
            memory=max(memory, default=None),
            alarms=tuple(alarms),
        )

    def close(self) -> None:
        """There is nothing to let go of."""

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes of the cluster; none where we may not know."""
        try:
            return cast("list[dict[str, Any]]", self._management.ask("GET", "nodes"))
        except (BrokerRefused, NotAdmitted):
            return []

    def _list(self, what: str) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._management.ask("GET", f"{what}/{self._vhost}"))

    def _queue(self, entry: Mapping[str, Any]) -> QueueFigures:
        absolute, stats = str(entry["name"]), _part(entry, "message_stats")
        first = entry.get("head_message_timestamp")
        held = entry.get("messages")
        age = max(0.0, time.time() - first) if isinstance(first, int) and first > 0 else None
        return QueueFigures(
            name=local_name(absolute, self._namespace),
            kind="queue",
            absolute=absolute,
            enqueued=stats.get("publish", 0),
            dequeued=sum(stats.get(what, 0) for what in ("ack", "deliver_no_ack", "get_no_ack")),
            held=held,
            in_flight=entry.get("messages_unacknowledged"),
            clients=entry.get("consumers"),
            oldest=0.0 if held == 0 else age,
            size=entry.get("message_bytes"),
            dead_letters=is_dead_letters(absolute),
        )

    def _topic(self, entry: Mapping[str, Any], bindings: Mapping[str, int]) -> QueueFigures:
        absolute, stats = str(entry["name"]), _part(entry, "message_stats")
        return QueueFigures(
            name=local_name(absolute, self._namespace),
            kind="topic",
            absolute=absolute,
            enqueued=stats.get("publish_in", 0),
            dequeued=stats.get("publish_out", 0),
            clients=bindings.get(absolute, 0),
        )

    def _check(self, queue: str, entry: Mapping[str, Any], *, at_a_price: bool) -> None:
        """Raise NoPeek where looking is impossible, or brings messages nearer to their end."""
        kind, name = entry.get("type"), harmless(queue)
        if kind == "stream":
            raise NoPeek(f"{name} is a stream: the management interface cannot show its messages")
        if kind != "quorum" or at_a_price:
            return
        limit = self._delivery_limit(entry)
        if limit is not None:
            raise NoPeek(
                f"{name} is a quorum queue that gives a message up after {limit} returns, and RabbitMQ "
                "counts each look as one: it is not done unless you insist "
                f"(parvis queue peek {name} --at-a-price)"
            )

    def _delivery_limit(self, entry: Mapping[str, Any]) -> int | None:
        """How many returns a message survives; None for any number."""
        policy, arguments = _part(entry, "effective_policy_definition"), _part(entry, "arguments")
        stated = [arguments.get("x-delivery-limit"), policy.get("delivery-limit")]
        limits = [limit for limit in stated if isinstance(limit, int)]
        if limits:
            return min((limit for limit in limits if limit >= 0), default=None)
        version = str(self._management.ask("GET", "overview").get("rabbitmq_version", ""))
        major = version.partition(".")[0]
        has_default = major.isdecimal() and int(major) >= _DEFAULT_LIMIT_SINCE
        return _DEFAULT_LIMIT if has_default else None


def _peeked(queue: str, place: int, entry: Mapping[str, Any]) -> PeekedMessage:
    known = _part(entry, "properties")
    headers = {str(name).replace("_", "-"): str(value) for name, value in known.items() if name != "headers"}
    headers |= {str(name): str(value) for name, value in _part(known, "headers").items()}
    stamp = known.get("timestamp")
    return PeekedMessage(
        queue=queue,
        place=place,
        message_id=str(known.get("message_id", "")),
        headers=clip_headers(headers),
        body=_body(entry),
        size=int(entry.get("payload_bytes", 0)),
        sent=float(stamp) if isinstance(stamp, int) else None,
        redelivered=bool(entry.get("redelivered")),
    )


def _part(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping in an answer. An empty one comes as an empty list."""
    part: Any = entry.get(name)
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _body(entry: Mapping[str, Any]) -> bytes:
    text = str(entry.get("payload", ""))
    if entry.get("payload_encoding") != "base64":
        return text.encode()
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return text.encode()
