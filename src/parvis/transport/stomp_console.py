"""Asking a STOMP broker about itself, and looking into its queues without taking anything."""

from __future__ import annotations

import itertools
import ssl
import threading
from collections.abc import Generator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

import orjson

from parvis.transport.base import BrokerRefused, Disconnected, NoConnection, NotAdmitted, whole_number
from parvis.transport.stomp_connection import Connection
from parvis.transport.stomp_frames import Frame, encode
from parvis.transport.stomp_login import Login
from parvis.transport.stomp_receipts import Receipt

Facts = Mapping[str, str | int | float | bool]

_ANSWERS: Final = "/temp-queue/answers"
_HEARTBEAT: Final = 10.0
_RECEIPT_TIMEOUT: Final = 10.0
_LEAVE_TIMEOUT: Final = 2.0


class NoAnswer(Disconnected):
    """The broker took the question and says nothing: it has nobody who would answer."""


class StompConsole:
    """A connection of its own to a STOMP broker, for questions. A lost one is made again by the next call.

    One call is made at a time, on any thread.

    Args:
        hosts: Host and port of each broker, tried in this order.
        username, password, tls: As of `StompTransport`.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        username: str,
        password: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._login = Login(username, password, _HEARTBEAT, tls)
        self._connection: Connection | None = None
        self._arrived: SimpleQueue[Frame | None] = SimpleQueue()
        self._numbers = itertools.count(1)

    @property
    def server(self) -> str:
        """What the broker calls itself, such as `ActiveMQ/5.17.2`. Raises as `ask`."""
        return self._connected().server

    def ask(self, questions: Sequence[str], timeout: float = 10) -> list[list[Facts]]:
        """Ask for statistics as of ActiveMQ's plug-in; return the answers to each question.

        Args:
            questions: Destinations, such as `/queue/ActiveMQ.Statistics.Destination.>`. The last must be one
                that has one answer: when that has come, there are no more.
            timeout: Seconds to wait for each answer.

        Raises:
            NoAnswer: No answer came.
            BrokerRefused: The broker refuses to answer, or answers in a form that cannot be read.
            NoConnection: There is no broker.
            NotAdmitted: It does not let us in.
            Disconnected: The connection was lost.
        """
        connection = self._connected()
        number = next(self._numbers)
        answers: dict[str, list[Facts]] = {f"{number}.{index}": [] for index in range(len(questions))}
        for key, question in zip(answers, questions, strict=True):
            asked = {"destination": question, "reply-to": _ANSWERS, "correlation-id": key}
            self._confirmed(connection, "SEND", asked)
        last = f"{number}.{len(questions) - 1}"
        for frame in self._frames(connection, timeout):
            key = frame.headers.get("correlation-id", "")
            if frame.headers.get("subscription") == _ANSWERS and key in answers:
                answers[key].append(_map_in(frame))
                if key == last:
                    return list(answers.values())
        raise NoAnswer(f"{connection.broker} does not answer questions for statistics")

    def browse(self, queue: str, most: int, timeout: float = 10) -> Generator[Frame]:
        """Look at the first messages of a queue, at most `most`; they stay there.

        Args:
            queue: The whole name of the queue.
            most: How many at most.
            timeout: Seconds to wait for each.

        Raises: as `ask`.
        """
        connection = self._connected()
        key = f"browse-{next(self._numbers)}"
        asked = {"destination": f"/queue/{queue}", "id": key, "ack": "client", "browser": "true"}
        self._confirmed(connection, "SUBSCRIBE", asked | {"activemq.prefetchSize": str(most)})
        try:
            seen = 0
            for frame in self._frames(connection, timeout):
                if frame.headers.get("subscription") != key:
                    continue
                if frame.headers.get("browser") == "end":
                    return
                seen += 1
                yield frame
                if seen >= most:
                    return
            raise NoAnswer(f"{connection.broker} does not show all that is in {queue}")
        finally:
            if not connection.reason:
                self._confirmed(connection, "UNSUBSCRIBE", {"id": key})

    def close(self) -> None:
        """Leave."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.reason:
            connection.leave(_LEAVE_TIMEOUT)
            connection.close("closed")

    def _frames(self, connection: Connection, timeout: float) -> Generator[Frame]:
        """Messages as they arrive, until none has come for a time."""
        while True:
            try:
                frame = self._arrived.get(timeout=timeout)
            except Empty:
                return
            if frame is None:
                raise Disconnected(connection.reason)
            yield frame

    def _confirmed(self, connection: Connection, command: str, headers: Mapping[str, str]) -> None:
        """Send a frame and wait until the broker has accepted it."""
        receipt = Receipt(connection.next_number())
        connection.ask(encode(Frame(command, {**headers, "receipt": receipt.number})), receipt)
        if not connection.wait_for(receipt, _RECEIPT_TIMEOUT):
            connection.close(f"{connection.broker} does not answer")
            raise Disconnected(connection.reason)
        if receipt.error is not None:
            raise receipt.error

    def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.reason:
            return self._connection
        connection = self._connect()
        arrived = self._arrived = SimpleQueue[Frame | None]()
        connection.on_message = arrived.put

        def read() -> None:
            connection.run()
            arrived.put(None)

        threading.Thread(target=read, name="stomp console", daemon=True).start()
        self._connection = connection
        if _can_answer(connection.server):
            # Maps come as text where the broker can write them so.
            listen = {"destination": _ANSWERS, "id": _ANSWERS, "ack": "auto"}
            self._confirmed(connection, "SUBSCRIBE", listen | {"transformation": "jms-map-json"})
        return connection

    def _connect(self) -> Connection:
        failures: list[str] = []
        for host, port in self._hosts:
            try:
                return self._login.connect(host, port)
            except Disconnected as error:
                failures.append(str(error))
            except BrokerRefused as error:
                raise NotAdmitted(str(error)) from None
        raise NoConnection(f"no connection to the broker: {'; '.join(failures)}")


def sent_at(frame: Frame) -> float | None:
    """When a message was sent, in s since 1970, by its `timestamp`; None if it has none."""
    milliseconds = whole_number(frame.headers.get("timestamp"))
    return None if milliseconds is None else milliseconds / 1000


def _can_answer(server: str) -> bool:
    return server.startswith(("ActiveMQ/", "parvis-embedded/"))


def _map_in(frame: Frame) -> Facts:
    """What a message with a map says, in the form that ActiveMQ gives it: see `embedded.statistics`."""
    try:
        content = orjson.loads(frame.body)
        entries: Any = content["map"]["entry"]
        return dict(map(_entry, cast("list[Any]", entries if isinstance(entries, list) else [entries])))
    except (ValueError, KeyError, TypeError):
        raise BrokerRefused(
            "the broker's answers cannot be read: its statistics plug-in needs the libraries jettison and "
            "xstream on the broker's class path"
        ) from None


def _entry(entry: Mapping[str, Any]) -> tuple[str, str | int | float | bool]:
    text = entry["string"]
    if isinstance(text, list):
        name, value = cast("list[Any]", text)
        return str(name), str(value)
    (value,) = (value for kind, value in entry.items() if kind != "string")
    return str(text), value
