"""Sending on one connection: what must exist is made, the broker's confirmations are told apart."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pika import spec

from parvis.transport.amqp_connection import (
    MISMATCH,
    NOT_FOUND,
    Answer,
    ChannelClosed,
    Connection,
)
from parvis.transport.amqp_messages import Declaration, Publication
from parvis.transport.base import BrokerRefused, Disconnected, TransportError

logger = logging.getLogger(__name__)

_Outcome: TypeAlias = Callable[[TransportError | None, dict[int, str]], None]
"""Told an error, or which of the publications the broker did not take, and why."""


@dataclass(slots=True, eq=False)
class _Group:
    """Publications of which somebody wants to know when all are confirmed."""

    missing: int
    then: _Outcome
    problems: dict[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True, slots=True)
class Encoded:
    """A publication as it is written, and the mark by which the broker's return of it is known."""

    publication: Publication
    mark: str
    data: bytes


class Publisher:
    """The channel on which a connection sends, with the broker's confirmations.

    A message that no queue takes is returned and confirmed all the same; it has a mark to be known by.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.open_channel()
        self._channel.on_other = self._heard
        self._channel.on_closed = self._closed
        self._channel.ask([spec.Confirm.Select()], lambda _error: None)
        self._lock = threading.Lock()
        self._last = 0
        self._marks = itertools.count(1)
        self._pending: dict[int, tuple[_Group, int, str]] = {}  # in the order in which they were sent
        self._returned: dict[str, str] = {}

    def encode(self, publication: Publication) -> Encoded:
        """Make ready what is to be sent. Raises ValueError as `amqp_frames.publication`."""
        mark = f"parvis-{next(self._marks)}"
        publication.properties.app_id = mark
        data = self._connection.publication(
            self._channel,
            publication.exchange,
            publication.routing_key,
            publication.properties,
            publication.body,
            mandatory=publication.mandatory,
        )
        return Encoded(publication, mark, data)

    def publish(self, messages: Sequence[Encoded], then: _Outcome) -> None:
        """Send in one piece; `then` is called once, with the outcome, on the thread that reads.

        Raises:
            Disconnected: The connection has ended; nothing was sent, and `then` is not called.
        """
        group = _Group(len(messages), then)
        with self._lock:  # numbers count what is written, in that order
            first = self._last + 1
            for index, message in enumerate(messages):
                self._pending[first + index] = group, index, message.mark
            try:
                self._connection.write(b"".join(message.data for message in messages))
            except Disconnected:
                for index in range(len(messages)):
                    self._pending.pop(first + index, None)
                raise
            self._last += len(messages)

    def ensure(self, declarations: Iterable[Declaration], then: Answer) -> None:
        """Make what is not there; `then` is called once it all is, or with what is in the way.

        Raises:
            Disconnected: The connection has ended; `then` is not called.
        """
        wanted = [one for one in declarations if one.key not in self._connection.known]
        if not wanted:
            then(None)
            return
        first, *rest = wanted

        def go_on(error: TransportError | None) -> None:
            if error is not None:
                then(error)
                return
            self._connection.known.add(first.key)
            try:
                self.ensure(rest, then)
            except Disconnected as lost:
                then(lost)

        self._look_for(first, go_on)

    def _look_for(self, wanted: Declaration, then: Answer) -> None:
        def looked(error: TransportError | None) -> None:
            if not isinstance(error, ChannelClosed) or error.code != NOT_FOUND:
                then(None if isinstance(error, ChannelClosed) else error)  # it is there, if not for our eyes
            elif not wanted.make:
                then(BrokerRefused(f"there is no {wanted.what}; `parvis rabbitmq configure` makes it"))
            else:
                with _told(then):
                    on_scratch_channel(self._connection, wanted.make, made)

        def made(error: TransportError | None) -> None:
            if isinstance(error, ChannelClosed) and error.code != MISMATCH:
                error = BrokerRefused(
                    f"there is no {wanted.what}, and it cannot be made: {error}; "
                    "`parvis rabbitmq configure` makes it for whom the broker allows it"
                )
            if error is None and wanted.settles:
                timer = threading.Timer(wanted.settles, then, args=(None,))
                timer.daemon = True
                timer.start()
            else:
                then(None if isinstance(error, ChannelClosed) else error)  # a mismatch: somebody just made it

        on_scratch_channel(self._connection, wanted.check, looked)

    def _heard(self, item: Any, properties: spec.BasicProperties | None) -> None:
        if isinstance(item, spec.Basic.Return):
            if properties is not None and properties.app_id:
                self._returned[properties.app_id] = "no queue takes it"
            return
        for group, index, mark in self._settled(item):
            problem = self._returned.pop(mark, "")
            if isinstance(item, spec.Basic.Nack):
                problem = "the broker could not take it"
            if problem:
                group.problems[index] = problem
            group.missing -= 1
            if group.missing == 0:
                group.then(None, group.problems)

    def _settled(self, item: Any) -> list[tuple[_Group, int, str]]:
        with self._lock:
            if not item.multiple:
                one = self._pending.pop(item.delivery_tag, None)
                return [one] if one is not None else []
            tags = list(itertools.takewhile(lambda tag: tag <= item.delivery_tag, self._pending))
            return [self._pending.pop(tag) for tag in tags]

    def _closed(self, error: TransportError) -> None:
        """Fail what is pending. Nobody knows which of it the broker took, so the connection ends as well."""
        self._connection.close(f"{self._connection.broker} refused a message: {error}")
        with self._lock:
            groups = {id(group): group for group, _, _ in self._pending.values()}
            self._pending.clear()
        for group in groups.values():
            group.then(Disconnected(str(error)), {})


def on_scratch_channel(connection: Connection, methods: Sequence[Any], then: Answer) -> None:
    """Ask something that may fail on a channel of its own, as a failure costs the channel.

    Raises:
        Disconnected: The connection has ended; `then` is not called.
    """
    channel = connection.open_channel()

    def answered(error: TransportError | None) -> None:
        if error is None:
            with contextlib.suppress(Disconnected):
                channel.ask([spec.Channel.Close(200, "done", 0, 0)], lambda _error: None)
        then(error)

    channel.ask(methods, answered)


@contextlib.contextmanager
def _told(then: Answer) -> Any:
    """Tell a loss of the connection to `then`, on a thread where nobody else would hear of it."""
    try:
        yield
    except Disconnected as error:
        then(error)
