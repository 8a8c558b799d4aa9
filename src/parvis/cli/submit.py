"""Hands a message to the broker within a time that is short whatever the broker does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from parvis.config import Config
from parvis.transport.base import Callback, Disconnected, Send, Transport

_HEAD_START = 0.15
_GOODBYE = 0.2
_GRACE = 0.2  # for the reason to reach us, from thread to thread on a busy machine, once all is given up

_Answers: TypeAlias = "queue.SimpleQueue[Transport | Exception]"


def submit(
    config: Config, send: Send, patience: float, watch: tuple[str, Callback] | None = None
) -> Transport:
    """Send a message, and return the transport when the broker has confirmed it.

    A name server, a broker or a network that answers nothing at all costs little more than `patience`. Where
    there are several brokers, each gets a head start before the next one is asked, too.

    Args:
        config: Says which broker.
        send: The message.
        patience: Seconds after which everything is given up.
        watch: A topic to subscribe to before the message is sent, and what to call with what comes there.

    Raises:
        Exception: The broker did not confirm the message, whatever the reason.
    """
    config.transport()  # loads what it takes, which is no time of the broker's
    deadline = time.monotonic() + patience

    def hand_over() -> Transport:
        transport = _connect(config, deadline)
        if watch is not None:
            transport.subscribe_broadcast(*watch)
        left = deadline - time.monotonic()
        if left <= 0:
            raise Disconnected(f"it took more than {patience:g} s to connect")
        transport.send(send, timeout=left)
        return transport

    answers: _Answers = queue.SimpleQueue()
    _start(hand_over, answers)
    try:
        answer = answers.get(timeout=patience + 2 * _GRACE)
    except queue.Empty:
        raise Disconnected(f"no answer from {config.broker_hosts} within {patience:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def leave(transport: Transport) -> None:
    """Say goodbye to the broker, if it listens; the message is safe in any case."""
    goodbye = threading.Thread(target=transport.disconnect, daemon=True)
    goodbye.start()
    goodbye.join(_GOODBYE)


def _connect(config: Config, deadline: float) -> Transport:
    """Return a transport to the first broker that lets us in."""
    answers: _Answers = queue.SimpleQueue()
    failures: list[str] = []
    hosts = config.broker.hosts
    for number, (host, port) in enumerate(hosts, 1):
        one = config.at(host, port)
        _start(lambda one=one: _connected(one, deadline), answers)
        last = number == len(hosts)
        until = deadline + _GRACE if last else min(deadline, time.monotonic() + _HEAD_START)
        while len(failures) < number:
            try:
                answer = answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(answer, Transport):
                return answer
            failures.append(str(answer))
    raise Disconnected("; ".join(failures) or f"no answer from {config.broker_hosts}")


def _connected(config: Config, deadline: float) -> Transport:
    transport = config.transport()
    transport.connect(timeout=round(max(0.0, deadline - time.monotonic()), 2))
    return transport


def _start(call: Callable[[], Transport], answers: _Answers) -> None:
    """Call in a thread that dies with the process; what comes of it goes to `answers`."""

    def run() -> None:
        try:
            answers.put(call())
        except Exception as error:  # noqa: BLE001 - it is raised again where the answer is read
            answers.put(error)

    threading.Thread(target=run, daemon=True).start()
