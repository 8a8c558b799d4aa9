"""Flow control: hosts count what they handle and tell it; those who send many messages hold back.

See `docs/explanation/flow-control.md`.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parvis.recipe.envelope import RECIPE_HEADER, MalformedMessage
from parvis.service.base import AnyService
from parvis.service.flow_account import Account
from parvis.service.flow_ledger import Ledger
from parvis.service.flow_limits import Limits
from parvis.service.flow_report import FLOW, TOPIC, Key, Report
from parvis.service.observer import Handled, Observer
from parvis.service.settling import ATTEMPTS, CRASHES, RETRIES
from parvis.service.status import host_id
from parvis.transport.base import Message, Send, Transport

_PAUSE = 0.25  # seconds between two reports at least
_PERIOD = 4.0  # seconds after which everything is told again, for those who missed it
_IDLE = 1.6  # seconds without work after which a host says so
_EXPIRATION = 15.0
_LONGEST_DELAY = 5.0  # seconds; what is to wait for longer is not what keeps consumers from their work
_TRIED = (ATTEMPTS, RETRIES, CRASHES)


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of a message when it is committed: it is tried again, or has made others."""

    again: bool = False
    onward: Mapping[str, int] = field(default_factory=dict[str, int])


class FlowControl(Observer):
    """Counts what a host handles, reports it, and keeps the ledger of services that fan out.

    Args:
        limits: How much may be in flight.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._account = Account()
        self._ledger: Ledger | None = None
        self._fates: dict[str, _Fate] = {}
        self._host = f"{host_id()}.{secrets.token_hex(4)}"
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        """Begin to report, and to listen if a service fans out."""
        self._transport = transport
        if any(service.fan_outs for service in services):
            self._ledger = Ledger(self._limits)
            transport.subscribe_broadcast(TOPIC, self._hear)
            for service in services:
                service.ledger = self._ledger if service.fan_outs else None
        self._thread = threading.Thread(target=self._run, name="flow", daemon=True)
        self._thread.start()

    def subscribed(self, service: AnyService, queue: str) -> None:  # noqa: ARG002
        """Count what comes from this queue."""
        self._account.serve(queue)
        self._news.set()

    def handling(self, service: AnyService, messages: Sequence[Message]) -> Account:  # noqa: ARG002
        """Take the time."""
        return self._account

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        """Have what is sent because of a message that is counted carry its key, and be counted, too."""
        message = handled.message
        key = message.headers.get(FLOW)
        if key is None:
            return sends
        if handled.outcome.result != "done":
            again = any(_is_again(send, message) for send in sends)
            self._fates[message.message_id] = _Fate(again=again)
            return sends
        carried = [send.with_headers({FLOW: key}) if _carries_on(send) else send for send in sends]
        onward: dict[str, int] = {}
        for send in carried:
            if send.headers.get(FLOW) == key:
                onward[send.destination] = onward.get(send.destination, 0) + 1
        self._fates[message.message_id] = _Fate(onward=onward)
        return carried

    def committed(self, handled: Sequence[Handled]) -> None:
        """Count what was handled, and what it sent."""
        # A transaction holds messages of one queue, but for rare cases in which the rate need not be exact.
        self._account.finish(handled[0].message.destination, len(handled))
        for one in handled:
            if FLOW in one.message.headers:
                self._count_handled(one.message)
                self._news.set()
            if one.service.fan_outs and one.outcome.result == "done":
                self._count_sent(one.outcome.sends)
                self._news.set()

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:  # noqa: ARG002
        """The messages come again: nothing is counted."""
        for one in handled:
            self._fates.pop(one.message.message_id, None)

    def card(self) -> dict[str, Any]:
        """For the status card of a service that fans out: see `Ledger.summary`."""
        return {} if self._ledger is None else {"parvis-flow": self._ledger.summary()}

    def stopped(self) -> None:
        """Say that the host ends."""
        self._stopped.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _count_handled(self, message: Message) -> None:
        fate = self._fates.pop(message.message_id, _Fate())
        key = Key.parse(message.headers[FLOW])
        if key is None:
            return
        came_back = any(name in message.headers for name in _TRIED)
        waiting = int(fate.again) - int(came_back)
        self._account.count(message.destination, key, done=int(not fate.again), waiting=waiting)
        for queue, messages in fate.onward.items():
            self._account.count(queue, key, sent=messages)

    def _count_sent(self, sends: Sequence[Send]) -> None:
        assert self._ledger is not None  # noqa: S101 - the host runs a service that fans out
        marked = [send for send in sends if FLOW in send.headers]
        delays = {(send.destination, send.headers[FLOW]): send.delay for send in marked}
        for name, messages in Counter((send.destination, send.headers[FLOW]) for send in marked).items():
            key = Key.parse(name[1])
            if key is not None:
                self._ledger.add(name[0], key, messages, delays[name])

    def _hear(self, message: Message) -> None:
        with contextlib.suppress(MalformedMessage):
            report = Report.parse(message.body)
            if self._ledger is not None:
                self._ledger.hear(report)

    def _run(self) -> None:
        due, said_idle = time.monotonic(), False
        while not self._stopped.is_set():
            until_idle = _PERIOD if said_idle else max(0.05, _IDLE - self._account.idle())
            news = self._news.wait(timeout=max(0.0, min(until_idle, due - time.monotonic())))
            self._news.clear()
            is_idle, everything = self._account.idle() >= _IDLE, time.monotonic() >= due
            if news or everything or (is_idle and not said_idle):
                self._report(everything=everything)
                said_idle = is_idle
                due = time.monotonic() + _PERIOD if everything else due
                self._stopped.wait(_PAUSE)
        self._report(everything=False, gone=True)

    def _report(self, *, everything: bool, gone: bool = False) -> None:
        assert self._transport is not None  # noqa: S101 - the thread starts when it is there
        report = Report(
            host=self._host,
            idle=self._account.idle(),
            gone=gone,
            queues=self._account.queues(),
            tallies=self._account.tell(everything=everything),
            sent=self._ledger.tell(everything=everything) if self._ledger else {},
        )
        body = report.to_bytes()
        self._transport.post(Send(TOPIC, body, kind="topic", expiration=_EXPIRATION, persistent=False))


def _is_again(send: Send, message: Message) -> bool:
    return send.destination == message.destination and send.body == message.body


def _carries_on(send: Send) -> bool:
    """Whether what is sent belongs to the recipe and can be handled soon."""
    return (
        send.kind == "queue"
        and RECIPE_HEADER in send.headers
        and FLOW not in send.headers
        and send.delay <= _LONGEST_DELAY
    )
