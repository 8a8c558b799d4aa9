"""Messages as AMQP has them, and what must exist on the broker for them to go where they are to go."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from pika import spec

from parvis.transport.amqp_frames import Delivery
from parvis.transport.base import DISPOSABLE, Message, Send, own_headers
from parvis.transport.stomp_messages import clip

RECIPE_HEADER: Final = "workflows-recipe"
ID_HEADER: Final = "parvis-id"
ORIGIN: Final = "original-destination"
DEAD: Final = "dlq."
DISPOSABLE_ARGUMENTS: Final = {"x-queue-type": "quorum"}
DELAY: Final = "parvis.delay."
ONE_OFF_EXCHANGE: Final = "amq.direct"
DELIVERY_LIMIT: Final = 20
"""Times that the broker hands a message out again before it makes it a dead letter. High enough for our own
counts, which know the reason, to come first; RabbitMQ 4 has the same by default."""

# A topic of one listener's own, such as that of somebody who waits for results
_ONE_OFF: Final = re.compile(r"(.*\.)?transient\..+\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# RabbitMQ writes down within half a second which files belong to a new quorum queue; measured: killed before,
# it has forgotten what it confirmed.
_SETTLES: Final = 1.0
# What leaves a queue is gone from there only when the next queue has it.
_SAFELY: Final = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
_TEMPORARY_LASTS: Final = 60_000  # ms for which a temporary queue survives that nobody listens to it
_LONGEST_NAME: Final = 255  # bytes of a header's name
# What the broker notes on a message when it moves it; not to be sent again.
_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-opt-")
_OURS: Final = frozenset({"destination", "message-id", "delivery_mode", "redelivered", "routing_key"})


@dataclass(frozen=True, slots=True)
class Declaration:
    """Something that must exist on the broker.

    Attributes:
        key: Its kind and name, unique.
        what: What it is, for people.
        check: Methods that fail if it is not there.
        make: Methods that make it; empty if that is not for us to do.
        settles: Seconds until it, once made, survives the kill of the broker with what is in it.
    """

    key: str
    what: str
    check: Sequence[Any]
    make: Sequence[Any] = ()
    settles: float = 0.0


@dataclass(frozen=True, slots=True)
class Publication:
    """A message on its way out.

    Attributes:
        exchange, routing_key: Where it goes.
        properties: Its properties; the application identifier is the publisher's.
        body: Its body.
        mandatory: Whether a queue must take it.
        name: Queue or topic, for people.
        needs: What must exist first.
        fallback: What may be made if no queue takes it.
    """

    exchange: str
    routing_key: str
    properties: spec.BasicProperties
    body: bytes
    mandatory: bool
    name: str
    needs: tuple[Declaration, ...] = ()
    fallback: Declaration | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """What a subscription asks of the broker.

    Attributes:
        name: Queue or topic, whole, for people.
        kind: `queue`, `topic` or `temporary`.
        consume: Methods that end with the consumer.
        missing: What may be made if the broker says that something is not there.
        acknowledged: Whether whoever gets messages is to acknowledge them.
    """

    name: str
    kind: str
    consume: Sequence[Any]
    missing: Sequence[Declaration] = field(default=())
    acknowledged: bool = False


def full_name(namespace: str, name: str, *, absolute: bool = False) -> str:
    """The name that a queue or topic has on the broker."""
    return name if absolute or not namespace else f"{namespace}.{name}"


def listen_to_queue(name: str, prefetch: int, *, exclusive: bool) -> Listening:
    """Take messages from a queue; it is made, with its dead-letter queue, if it is missing.

    Args:
        name: Whole name.
        prefetch: Messages that may be unacknowledged at a time.
        exclusive: One consumer gets all, and the next one takes over.
    """
    missing = [dead_letter_queue(name)] if not name.startswith(DEAD) else []
    missing.append(work_queue(name, exclusive=exclusive))
    consume = spec.Basic.Consume(queue=name, consumer_tag="", exclusive=exclusive)
    return Listening(name, "queue", [spec.Basic.Qos(prefetch_count=prefetch), consume], missing, True)


def listen_to_topic(name: str) -> Listening:
    """Hear a broadcast, by a queue of our own that ends with the connection.

    A topic `transient.<hint>.<uuid>` goes through an exchange that every broker has, with its name as routing
    key, so that nothing of it stays, and nobody fails who sends to it when it is over. It has an exchange of
    its own beside, for senders that know topics as exchanges only; that ends with the queue.
    """
    declare = spec.Queue.Declare(queue="", exclusive=True, auto_delete=True)
    bind = spec.Queue.Bind(queue="", exchange=name, routing_key="")
    consume = spec.Basic.Consume(queue="", consumer_tag="", no_ack=True)
    if not _ONE_OFF.fullmatch(name):
        return Listening(name, "topic", [declare, bind, consume], [topic_exchange(name)])
    methods = [
        spec.Exchange.Declare(exchange=name, type="fanout", auto_delete=True),
        declare,
        bind,
        spec.Queue.Bind(queue="", exchange=ONE_OFF_EXCHANGE, routing_key=name),
        consume,
    ]
    return Listening(name, "topic", methods)


def listen_to_temporary(name: str) -> Listening:
    """Take messages from a queue that is made for it, and that outlives a short loss of the connection."""
    declare = spec.Queue.Declare(queue=name, durable=True, arguments={"x-expires": _TEMPORARY_LASTS})
    return Listening(name, "temporary", [declare, spec.Basic.Consume(queue=name, consumer_tag="")])


def queue_arguments(name: str, *, exclusive: bool = False) -> dict[str, Any]:
    """The arguments of a queue for work, or of a dead-letter queue."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if exclusive:
        arguments["x-single-active-consumer"] = True
    if not name.startswith(DEAD):
        arguments |= {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{DEAD}{name}",
            "x-delivery-limit": DELIVERY_LIMIT,
            **_SAFELY,
        }
    return arguments


def work_queue(name: str, *, exclusive: bool = False) -> Declaration:
    """A quorum queue whose messages go to its dead-letter queue in the end."""
    return Declaration(
        f"queue {name}",
        f"queue {name}",
        [spec.Queue.Declare(queue=name, passive=True)],
        [spec.Queue.Declare(queue=name, durable=True, arguments=queue_arguments(name, exclusive=exclusive))],
    )


def dead_letter_queue(name: str) -> Declaration:
    """The dead-letter queue of a queue."""
    return work_queue(f"{DEAD}{name}")


def disposable_queue(name: str) -> Declaration:
    """A queue whose messages are dropped when they are too late."""
    make = [spec.Queue.Declare(queue=name, durable=True, arguments=dict(DISPOSABLE_ARGUMENTS))]
    return replace(work_queue(name), make=make, settles=_SETTLES)


def topic_exchange(name: str) -> Declaration:
    """The exchange of a broadcast."""
    return Declaration(
        f"exchange {name}",
        f"exchange {name}",
        [spec.Exchange.Declare(exchange=name, passive=True)],
        [spec.Exchange.Declare(exchange=name, type="fanout", durable=True)],
    )


def delay_milliseconds(delay: float) -> int:
    """A delay in seconds as one of those that there are queues for: rounded up to two digits, in ms."""
    exact = max(1, math.ceil(round(delay * 1000, 6)))
    step = 10 ** max(0, len(str(exact)) - 2)
    return -(-exact // step) * step


def delay_name(milliseconds: int, topic: str = "") -> str:
    """The name that exchange and queue for a delay have."""
    return f"{DELAY}{milliseconds}" + (f".{topic}" if topic else "")


def delay_arguments(milliseconds: int, topic: str = "") -> dict[str, Any]:
    """The arguments of the queue in which messages wait, before they go on with the routing key they have."""
    arguments = {"x-queue-type": "quorum", "x-message-ttl": milliseconds, "x-dead-letter-exchange": topic}
    return arguments if topic else arguments | _SAFELY  # a broadcast that nobody hears is to be gone


def delay_queue(milliseconds: int, topic: str = "") -> Declaration:
    """Exchange and queue for one delay. It stays: nobody can tell whether a message still waits there."""
    name = delay_name(milliseconds, topic)
    return Declaration(
        f"delay {name}",
        f"delay queue {name}",
        [spec.Exchange.Declare(exchange=name, passive=True), spec.Queue.Declare(queue=name, passive=True)],
        [
            spec.Exchange.Declare(exchange=name, type="fanout", durable=True),
            spec.Queue.Declare(queue=name, durable=True, arguments=delay_arguments(milliseconds, topic)),
            spec.Queue.Bind(queue=name, exchange=name, routing_key=""),
        ],
        settles=_SETTLES,
    )


def _bound_again(delay: Declaration) -> Declaration:
    """What is made if a delay takes nothing: who made it was cut off before the last step, the binding.

    No question to the broker tells whether there is one, so it is asked for.
    """
    return replace(delay, check=delay.make[-1:])


def publication(send: Send, namespace: str) -> Publication:
    """The message as AMQP has it.

    Raises:
        ValueError: It has a header that only the transport may set, or one with too long a name.
    """
    forbidden = _OURS.intersection(send.headers)
    if forbidden:
        raise ValueError(f"header {min(forbidden)!r} of a message to {send.destination} is the transport's")
    name = full_name(namespace, send.destination, absolute=send.absolute)
    is_topic = send.kind == "topic"
    needs: list[Declaration] = []
    fallback: Declaration | None = None
    exchange, routing_key = "", name
    if is_topic and _ONE_OFF.fullmatch(name):
        exchange = ONE_OFF_EXCHANGE
    elif is_topic:
        exchange, routing_key = name, ""
        needs.append(topic_exchange(name))
    if send.delay > 0:
        milliseconds = delay_milliseconds(send.delay)
        topic = exchange
        needs += [] if is_topic else [Declaration(f"queue {name}", f"queue {name}", _passive(name))]
        needs.append(delay_queue(milliseconds, topic))
        fallback = _bound_again(needs[-1])
        exchange = delay_name(milliseconds, topic)
    elif not is_topic and name.startswith(DEAD):
        fallback = replace(work_queue(name), settles=_SETTLES)
    elif not is_topic and DISPOSABLE in send.headers:
        fallback = disposable_queue(name)
    return Publication(
        exchange,
        routing_key,
        _properties(send, name),
        send.body,
        mandatory=not is_topic or send.delay > 0,
        name=name,
        needs=tuple(needs),
        fallback=fallback,
    )


def _passive(name: str) -> list[Any]:
    return [spec.Queue.Declare(queue=name, passive=True)]


def _properties(send: Send, name: str) -> spec.BasicProperties:
    headers: dict[str, Any] = {}
    for key, value in send.headers.items():
        text = _sayable(key)
        if len(text.encode()) > _LONGEST_NAME:
            raise ValueError(f"the name of a header is too long: {text[:40]!r}...")
        if not text.startswith(_BROKERS_OWN):
            headers[text] = _sayable(value)
    if headers.get(RECIPE_HEADER) == "True":
        headers[RECIPE_HEADER] = True  # as services of `workflows` on RabbitMQ send it
    now = time.time()
    expiration = None
    if send.expiration is not None:
        headers["expires"] = str(round((now + send.expiration) * 1000))
        # In a delay queue it would go on early instead of ending: see `is_stale`.
        expiration = str(max(0, round(send.expiration * 1000))) if send.delay <= 0 else None
    if name.startswith(DEAD) and ORIGIN in headers:
        headers["x-death"] = [death(headers[ORIGIN])]
    return spec.BasicProperties(
        headers=headers,
        delivery_mode=2 if send.persistent else 1,
        priority=send.priority,
        expiration=expiration,
        message_id=_short(headers.get(ID_HEADER)) or uuid.uuid4().hex,
        timestamp=int(now),
    )


def death(queue: str) -> dict[str, Any]:
    """What the broker itself would note on a dead letter; tools for dead letters look for it."""
    return {
        "count": 1,
        "exchange": "",
        "queue": queue,
        "reason": "rejected",
        "routing-keys": [queue],
        "time": datetime.now(UTC),
    }


def received(
    delivery: Delivery,
    properties: spec.BasicProperties,
    body: bytes,
    *,
    namespace: str,
    is_topic: bool,
    subscription: int,
    connection: int,
    token: str,
) -> Message:
    """The message that was delivered; `token` as of `Message`."""
    own_exchange = is_topic and delivery.exchange != ONE_OFF_EXCHANGE
    name = delivery.exchange if own_exchange else delivery.routing_key
    table = cast("Mapping[Any, Any]", properties.headers or {})
    headers = {_text(key): _text(value) for key, value in table.items()}
    # RabbitMQ names no message: one whose sender does not either is a new one with each delivery.
    message_id = properties.message_id or headers.get(ID_HEADER) or uuid.uuid4().hex
    headers |= {"destination": name, "message-id": message_id}
    if delivery.redelivered:
        headers["redelivered"] = "true"
    if properties.priority is not None:
        headers["priority"] = str(properties.priority)
    if properties.delivery_mode == spec.PERSISTENT_DELIVERY_MODE:
        headers["persistent"] = "true"
    if properties.timestamp:
        headers["timestamp"] = str(properties.timestamp * 1000)
    if properties.content_type:
        headers["content-type"] = properties.content_type
    return Message(
        destination=name.removeprefix(f"{namespace}.") if namespace else name,
        body=body,
        headers=headers,
        message_id=message_id,
        subscription=subscription,
        redelivered=delivery.redelivered,
        connection=connection,
        token=token,
    )


def is_stale(properties: spec.BasicProperties) -> bool:
    """Whether a message comes from a delay queue and became worthless while it waited there."""
    table = cast("Mapping[str, Any]", properties.headers or {})
    deaths = table.get("x-death")
    expires = table.get("expires")
    if not isinstance(deaths, list) or not deaths or not isinstance(expires, str) or not expires.isdecimal():
        return False
    last: Any = cast("list[Any]", deaths)[0]
    came_from = str(cast("dict[str, Any]", last).get("queue", "")) if isinstance(last, dict) else ""
    return came_from.startswith(DELAY) and int(expires) / 1000 < time.time()


def dead_letter(message: Message, namespace: str, headers: Mapping[str, str]) -> Send:
    """What moves `message` to the dead-letter queue of its queue."""
    name = message.headers.get("destination") or full_name(namespace, message.destination)
    clipped = {key: clip(value) for key, value in headers.items()}
    origin = message.headers.get(ORIGIN, name) if name.startswith(DEAD) else name
    return Send(
        f"{DEAD}{name.removeprefix(DEAD)}",
        message.body,
        {**own_headers(message.headers), ORIGIN: origin, **clipped},
        absolute=True,
    )


def _text(value: Any) -> str:
    """A value of an AMQP table as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=_text)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _sayable(text: str) -> str:
    """Replace what other clients and brokers choke on: NUL and halves of surrogate pairs."""
    text = str(text)
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _short(value: str | None) -> str | None:
    """A value for a property, which has at most 255 bytes."""
    return value if value and len(value.encode()) <= _LONGEST_NAME else None
