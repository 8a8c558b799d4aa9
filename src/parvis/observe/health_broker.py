"""Checks of the broker: a message goes there and back, it has room, and somebody takes what it holds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Final

from parvis.observe import health_settings
from parvis.observe.health import Finding, Level
from parvis.observe.health_settings import LIMITS, QUEUES, Limits
from parvis.observe.queue_figures import NoFigures, QueueFigures, QueueSource, open_queue_source
from parvis.observe.wording import age_text, counted, duration_text
from parvis.transport.base import NoConnection, NotAdmitted, Send

if TYPE_CHECKING:
    from parvis.config import Config

_PATIENCE: Final = 5.0
_SLOW: Final = 1.0
_TEMPORARY: Final = "transient."
_HOPS: Final = "parvis.hops"

#: From where on figures of a broker are a warning and an error: counts, and for the last four percent in use.
_ACTIVEMQ: Final = {
    "connections": Limits(400, 600),
    "queues": Limits(200, 400),
    "memory": Limits(10, 30),
    "store": Limits(10, 30),
    "temp": Limits(10, 30),
    "heap": Limits(85, 95),
}
_RABBITMQ: Final = {
    "connections": Limits(4000, 6000),
    "channels": Limits(5000, 7000),
    "messages": Limits(15_000, 25_000),
    "in_flight": Limits(10_000, 20_000),
    "memory": Limits(70, 90),
}
_PERCENT: Final = frozenset({"memory", "store", "temp", "heap"})


def broker(config: Config) -> Iterable[Finding]:
    """The broker lets us in, and a message goes there and back."""
    where = config.broker_hosts
    transport = config.transport()
    begun = time.monotonic()
    try:
        transport.connect(timeout=_PATIENCE)
    except NoConnection as error:
        yield Finding("error", str(error), advice=f"Start the broker at {where}, or mend its address.")
        return
    except NotAdmitted as error:
        yield Finding("error", str(error), advice="Mend the host, the user name or the password.")
        return
    connected = time.monotonic()
    try:
        arrived = threading.Event()
        _, queue = transport.subscribe_temporary("health", lambda _: arrived.set())
        sent = time.monotonic()
        transport.send(Send(queue, b"{}", expiration=60, persistent=False), timeout=_PATIENCE)
        if not arrived.wait(_PATIENCE):
            yield Finding(
                "error",
                f"{where} took a message for a queue of ours and did not deliver it within {_PATIENCE:g} s",
                advice="See whether the broker is out of memory or disk: it may hold senders back.",
            )
            return
        there_and_back = time.monotonic() - sent
    finally:
        transport.disconnect()
    text = (
        f"{where}: log-in {duration_text(connected - begun)}, there and back {duration_text(there_and_back)}"
    )
    slow = max(connected - begun, there_and_back) > _SLOW
    advice = "It is slow: look at its load, its disk and the network." if slow else ""
    yield Finding("warning" if slow else "ok", text, advice=advice)


def broker_load(config: Config) -> Iterable[Finding]:
    """Connections, memory, disk and what else the broker tells of itself are within limits."""
    try:
        with _source(config) as source:
            facts = source.broker_facts()
    except NoFigures as error:
        yield Finding("skipped", str(error))
        return
    for alarm in facts.alarms:
        yield Finding("error", alarm, advice="Free what it lacks: meanwhile the broker holds senders back.")
    bounds = _RABBITMQ if facts.product == "RabbitMQ" else _ACTIVEMQ
    bounds = bounds | health_settings.limits(config, LIMITS, _ACTIVEMQ | _RABBITMQ)
    told: list[str] = []
    for name, bound in bounds.items():
        figure: float | None = getattr(facts, name)
        if figure is None:
            continue
        text = f"{name.replace('_', ' ')} {figure:.0f}{' %' if name in _PERCENT else ''}"
        told.append(text)
        level = _level(figure, bound)
        if level != "ok":
            limit = bound.error if level == "error" else bound.warning
            advice = f"Find out who needs so much, or raise {LIMITS}."
            yield Finding(level, f"{text}, the limit is {limit:g}", name.replace("_", "-"), advice)
    yield Finding("ok", f"{facts.product} {facts.version or ''}: {', '.join(told) or 'it tells no figures'}")


def queues(config: Config) -> Iterable[Finding]:
    """Somebody takes what is in the queues, and nothing has died."""
    bounds = health_settings.limits(config, QUEUES)
    namespace = str(getattr(config.broker, "prefix", ""))
    try:
        with _source(config) as source:
            figures = [one for one in source.figures() if one.kind == "queue" and _is_ours(one, namespace)]
    except NoFigures as error:
        yield Finding("skipped", str(error))
        return
    for one in figures:
        yield from _judge(one, bounds.get(one.name))
    held = sum(one.held or 0 for one in figures if not one.dead_letters)
    yield Finding("ok", f"{counted(len(figures), 'queue')} with {counted(held, 'message')}")


def _judge(queue: QueueFigures, bound: Limits | None) -> Iterable[Finding]:
    held = queue.held or 0
    if bound is not None and (level := _level(held, bound)) != "ok":
        limit = bound.error if level == "error" else bound.warning
        yield Finding(
            level, f"{counted(held, 'message')}, the limit is {limit:g}", queue.name, _consumers(queue)
        )
    if not held:
        return
    if queue.dead_letters:
        advice = f"parvis dlq list shows why; parvis queue peek {queue.name} what."
        yield Finding("warning", f"{counted(held, 'dead letter')}{_age(queue)}", queue.name, advice)
    elif queue.clients == 0:
        message = f"{counted(held, 'message')}{_age(queue)}, and nobody takes them"
        yield Finding("warning", message, queue.name, _consumers(queue))


def _consumers(queue: QueueFigures) -> str:
    if queue.name == _HOPS:
        return "Start parvis collect."
    return "Start the service that is to take them; parvis monitor shows which there are."


def _age(queue: QueueFigures) -> str:
    return f", the oldest {age_text(queue.oldest)} old" if queue.oldest else ""


def _is_ours(queue: QueueFigures, namespace: str) -> bool:
    name = queue.absolute
    if queue.name.startswith(_TEMPORARY):
        return False
    if not namespace or name.startswith(f"{namespace}."):
        return True
    # The dead letters of everybody, or of our queues.
    return queue.dead_letters and ("." not in name or name.partition(".")[2].startswith(f"{namespace}."))


def _level(figure: float, bound: Limits) -> Level:
    return "error" if figure >= bound.error else "warning" if figure >= bound.warning else "ok"


@contextlib.contextmanager
def _source(config: Config) -> Generator[QueueSource]:
    source = open_queue_source(config)
    try:
        yield source
    finally:
        source.close()
