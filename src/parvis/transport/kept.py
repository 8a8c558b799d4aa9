"""What transports have in common whose connection is kept: the connection and the subscriptions on it."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from parvis.transport.base import BrokerRefused, Disconnected, Message, Transport, check_destination
from parvis.transport.keeper import Keeper
from parvis.transport.wire import Wire

_SUBSCRIBE_TIMEOUT: Final = 30.0


class Subscribed(Protocol):
    """A subscription, on whichever connection there is."""

    accepted: bool
    refused: BrokerRefused | None

    @property
    def number(self) -> int:
        """As of `Message.subscription`."""
        ...

    @property
    def name(self) -> str:
        """What it is to, for people."""
        ...

    @property
    def individual(self) -> bool:
        """Whether messages are acknowledged one by one, in whichever order."""
        ...

    def forget(self) -> None:
        """The connection is lost, and with it what was delivered."""
        ...

    def check(self, messages: Sequence[Message]) -> None:
        """Raise unless messages of this subscription can be acknowledged now."""
        ...


C = TypeVar("C", bound=Wire)
S = TypeVar("S", bound=Subscribed)


class KeptTransport(Transport, Generic[C, S]):
    """A transport with a connection that is made again when it is lost, and the subscriptions with it.

    Args:
        hosts: Host and port of each broker, tried in this order.
        connect: Makes a connection to one, or raises `TransportError`.
        namespace: Prefix of all queues and topics, a dot follows it; empty for none.
        encrypted, reconnect: As of `Keeper`.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        connect: Callable[[str, int], C],
        namespace: str,
        *,
        encrypted: bool,
        reconnect: bool,
    ) -> None:
        self.namespace = check_destination(namespace).rstrip(".") if namespace else ""
        self._subscriptions: dict[int, S] = {}
        self._subscription_numbers = itertools.count(1)
        self._keeper: Keeper[C] = Keeper(
            hosts,
            connect,
            encrypted=encrypted,
            reconnect=reconnect,
            on_up=self._restore,
            on_down=self._forget_deliveries,
        )

    def connect(self, timeout: float = 30) -> None:
        self._keeper.start(timeout)

    def disconnect(self) -> None:
        self._keeper.forbid_callback()
        with self._keeper.changed:
            self._subscriptions.clear()
        self._keeper.stop()

    @property
    def is_connected(self) -> bool:
        return self._keeper.connection is not None

    @property
    def connection(self) -> int:
        return self._keeper.number

    def unsubscribe(self, subscription: int) -> None:
        self._keeper.forbid_callback()
        with self._keeper.changed:
            ended = self._subscriptions.pop(subscription, None)
        if ended is None:
            raise ValueError(f"there is no subscription {subscription}")
        self._end(ended)

    def drive(self, seconds: float, until: Callable[[], object]) -> bool:
        connection = self._keeper.connection
        return connection is not None and connection.drive(seconds, until)

    def hand_back(self) -> None:
        connection = self._keeper.connection
        if connection is not None:
            connection.hand_back()

    def wake(self) -> None:
        connection = self._keeper.connection
        if connection is not None:
            connection.wake()

    @abstractmethod
    def _request(self, subscription: S, connection: C) -> None:
        """Ask for a subscription on a connection that has not heard of it, holding `changed`."""

    @abstractmethod
    def _end(self, subscription: S) -> None:
        """Tell the broker that nobody listens any more."""

    def _restore(self, connection: C) -> None:
        """Make a new connection fit for use, holding `changed`."""
        for subscription in self._subscriptions.values():
            self._request(subscription, connection)

    def _forget_deliveries(self) -> None:
        """The connection is lost; holding `changed`."""
        for subscription in self._subscriptions.values():
            subscription.forget()

    def _subscribe(self, subscription: S) -> int:
        keeper, number = self._keeper, subscription.number
        keeper.forbid_callback()
        with keeper.changed:
            self._subscriptions[number] = subscription
            if keeper.connection is not None:
                self._request(subscription, keeper.connection)
            keeper.changed.wait_for(
                lambda: subscription.accepted or subscription.refused or keeper.is_over, _SUBSCRIBE_TIMEOUT
            )
            if subscription.accepted:
                return number
            self._subscriptions.pop(number, None)
            why = keeper.why
        if subscription.refused is not None:
            raise subscription.refused
        self._end(subscription)
        raise Disconnected(f"no answer to the subscription to {subscription.name}: {why}")

    def _by_subscription(self, acknowledge: Sequence[Message]) -> list[tuple[S, list[Message]]]:
        """Sort messages by their subscriptions, or raise because they cannot be acknowledged now."""
        try:
            return self._sorted(acknowledge)
        except Disconnected as error:
            number, connection = self._keeper.number, self._keeper.connection
            if len(acknowledge) > 1 and connection and any(one.connection == number for one in acknowledge):
                connection.close(str(error))  # those that are not gone are to come again as well
            raise

    def _sorted(self, acknowledge: Sequence[Message]) -> list[tuple[S, list[Message]]]:
        by_number: dict[int, list[Message]] = {}
        for message in acknowledge:
            by_number.setdefault(message.subscription, []).append(message)
        found: list[tuple[S, list[Message]]] = []
        for number, messages in by_number.items():
            subscription = self._subscriptions.get(number)
            if subscription is None or any(message.connection != self._keeper.number for message in messages):
                raise Disconnected("a message of a connection or subscription that is gone: it comes again")
            if subscription.individual and len(acknowledge) > 1:
                raise ValueError("a message of an individual subscription is acknowledged on its own")
            subscription.check(messages)
            found.append((subscription, messages))
        return found
