"""Our connection as a transport of `workflows`: `ParvisTransport` of the entry points `workflows.transport`.

Services and commands written for `workflows` gain by it a connection that is made again when it is lost, that
has heart-beats and TLS, and on which what the broker refuses is an exception.
"""

# `workflows` says of little what type it has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Final

import workflows
from workflows.transport.common_transport import CommonTransport, TemporarySubscription, json_serializer
from workflows.util import generate_unique_host_id

from parvis.compat.outgoing import outgoing, received_body
from parvis.compat.settings import configured_transport
from parvis.service.identity import identified
from parvis.transport.base import BrokerRefused, Disconnected, Kind, Message, Send, Transport, TransportError

_log = logging.getLogger("parvis.compat")
_CONNECT_TIMEOUT: Final = 5.0
_WIDEST: Final = 65_535  # messages in advance, where no bound is asked for

Around = Callable[[Message | None, Callable[[], None]], None]


@dataclass(slots=True)
class _Channel:
    """A subscription: what was delivered by it and is not settled, by message-id."""

    number: int = 0
    acknowledges: bool = False
    individual: bool = False
    automatic: bool = False
    waiting: dict[str, Message] = field(default_factory=dict[str, Message])


@dataclass(slots=True)
class _Open:
    """A transaction that is open here; the broker hears of it when it is committed."""

    settled: list[tuple[_Channel, str]] = field(default_factory=list[tuple[_Channel, str]])
    refused: set[str] = field(default_factory=set[str])
    sends: list[Send] = field(default_factory=list[Send])


class ParvisTransport(CommonTransport):
    """A transport of `workflows` over a transport of ours.

    How it differs from what `workflows` brings along:

    * A lost connection is made again. Acknowledgements of what was delivered before are void then, with
      everything in their transaction: those messages come again.
    * `prefetch_count` holds on every broker, and is 1 where nothing is said. With 1, acknowledgements and
      sends of a transaction happen together or not at all. With more, a message may be acknowledged out of
      turn, and what is sent is confirmed before the acknowledgements are: twice at worst, never lost.
    * `nack` makes a dead letter that says who refused it.
    * Callbacks, if not intercepted, run on a thread that may use the transport.

    Args:
        middleware: As of `CommonTransport`.
        transport: A connected transport, which stays its owner's; by default, one as configured.

    Attributes:
        around: Is given each message and what calls the callback with it; None in place of a message that is
            not to be acknowledged.
        name: Who takes the messages, for dead letters.
        reason: Why a message is refused, if somebody knows.
        reported: Is given the messages that a transaction acknowledges and what it sends; returns what is to
            leave.
    """

    def __init__(self, middleware: list[Any] | None = None, transport: Transport | None = None) -> None:
        super().__init__(middleware)
        # The base class keeps these tables for all transports of a process together, so that a second
        # transport would take the first one's messages.
        vars(self)["_CommonTransport__subscriptions"] = {}
        vars(self)["_CommonTransport__transactions"] = set()
        self.around: Around = lambda _message, call: call()
        self.name = "a workflows service"
        self.reason: Callable[[], str] = lambda: ""
        self.reported: Callable[[Sequence[Message], Sequence[Send]], Sequence[Send]] = lambda _, sends: sends
        self._given = transport
        self._transport: Transport | None = None
        self._channels: dict[int, _Channel] = {}
        self._open: dict[int, _Open] = {}
        self._inbox: SimpleQueue[tuple[int, Message] | None] = SimpleQueue()
        self._pump: threading.Thread | None = None

    def connect(self) -> bool:
        """Connect.

        Raises:
            workflows.Disconnected: There is no broker, or it does not let us in.
        """
        if self._pump is not None:
            return True
        transport = self._given or configured_transport()
        if self._given is None:
            try:
                transport.connect(_CONNECT_TIMEOUT)
            except TransportError as error:
                raise workflows.Disconnected(str(error)) from None
        self._transport = transport
        self._pump = threading.Thread(target=self._run_callbacks, name="parvis-workflows", daemon=True)
        self._pump.start()
        return True

    def is_connected(self) -> bool:
        """Whether we are connected, or connecting again."""
        return self._pump is not None

    def disconnect(self) -> None:
        """Leave. What is not acknowledged goes back to the broker."""
        pump, self._pump = self._pump, None
        if pump is None:
            return
        if self._given is None:
            self._ours.disconnect()
        self._inbox.put(None)
        if pump is not threading.current_thread():
            pump.join(timeout=5)

    def get_namespace(self) -> str:
        """The prefix of all names."""
        return self._ours.namespace

    def broadcast_status(self, status: dict[str, Any]) -> None:
        """Broadcast a status, worthless after 15 s."""
        body = json.dumps(status).encode()
        self._ours.post(Send("transient.status", body, kind="topic", expiration=15, persistent=False))

    def subscribe(  # pyright: ignore[reportIncompatibleVariableOverride] - a decorated method
        self, channel: str, callback: Callable[..., Any], **kwargs: Any
    ) -> int:
        """As in `CommonTransport`."""
        return super().subscribe(channel, self._watched(callback), **kwargs)

    def subscribe_broadcast(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, channel: str, callback: Callable[..., Any], **kwargs: Any
    ) -> int:
        """As in `CommonTransport`."""
        return super().subscribe_broadcast(channel, self._watched(callback), **kwargs)

    def subscribe_temporary(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, channel_hint: str | None, callback: Callable[..., Any], **kwargs: Any
    ) -> TemporarySubscription:
        """As in `CommonTransport`."""
        return super().subscribe_temporary(channel_hint, self._watched(callback), **kwargs)

    def is_waiting(self, message: Message) -> bool:
        """Whether nobody has settled this delivery yet."""
        return any(
            channel.waiting.get(message.message_id) is message
            for channel in list(self._channels.values())
            if channel.acknowledges
        )

    def settle(self, message: Message, sends: Sequence[Send]) -> None:
        """Acknowledge a message and send, together."""
        for channel in list(self._channels.values()):
            if channel.waiting.get(message.message_id) is message:
                self._commit(_Open([(channel, message.message_id)], sends=list(sends)))

    def dead_letter(self, message: Message, headers: Mapping[str, str]) -> Send:
        """As `Transport.dead_letter`."""
        return self._ours.dead_letter(message, headers)

    def add(self, transaction: int, send: Send) -> None:
        """Make a message of ours, as it is, part of an open transaction."""
        self._opened(transaction).sends.append(send)

    def abandon_transactions(self) -> None:
        """Forget what is open: its messages are unsettled again."""
        for transaction in list(self._open):
            self.transaction_abort(transaction)

    @property
    def _ours(self) -> Transport:
        if self._transport is None:
            raise workflows.Disconnected("connect was not called")
        return self._transport

    def _watched(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """What runs `callback` unless the delivery is void by now."""

        @functools.wraps(callback)
        def call(header: Mapping[str, Any], message: Any) -> None:
            channel = self._channel(header["subscription"])
            if not channel.acknowledges:
                self.around(None, lambda: callback(header, message))
                return
            delivery = channel.waiting.get(header["message-id"])
            if delivery is not None and delivery.connection == self._ours.connection:
                self.around(delivery, lambda: callback(header, message))

        return call

    def _run_callbacks(self) -> None:
        """Hand on what the broker delivers, on a thread of its own: callbacks may use the transport."""
        while (item := self._inbox.get()) is not None:
            try:
                self._hand_on(*item)
            except Exception:  # noqa: BLE001 - the next message has another callback
                _log.exception("a callback for messages failed")

    def _hand_on(self, subscription: int, message: Message) -> None:
        channel = self._channel(subscription)
        if channel.automatic:
            try:
                self._ours.commit([message], ())
            except Disconnected:
                return  # it comes again
        elif channel.acknowledges:
            # What came to us before and was not settled came again because the connection was lost; nobody
            # died of it.
            known = message.message_id in channel.waiting
            message = replace(message, redelivered=message.redelivered and not known)
            channel.waiting[message.message_id] = message
        header = {name: value for name, value in message.headers.items() if name != "ack"}
        header |= {"subscription": str(subscription), "message-id": message.message_id}
        self.subscription_callback(subscription)(header, received_body(message))

    def _channel(self, subscription: int | str) -> _Channel:
        try:
            return self._channels[int(subscription)]
        except (KeyError, ValueError):
            raise workflows.Error(f"there is no subscription {subscription!r}") from None

    def _subscribe(self, sub_id: int, channel: str, callback: object, **options: Any) -> None:  # noqa: ARG002
        acknowledges = bool(options.get("acknowledgement"))
        wanted = options.get("prefetch_count")
        window = min(int(wanted), _WIDEST) or _WIDEST if wanted is not None else 1
        made = _Channel(acknowledges=acknowledges, automatic=not acknowledges)
        made.individual = acknowledges and window > 1
        self._channels[sub_id] = made
        self._asking(
            sub_id,
            lambda: self._ours.subscribe(
                channel,
                lambda message: self._inbox.put((sub_id, message)),
                prefetch=window if acknowledges else 1,
                exclusive=bool(options.get("exclusive")),
                selector=options.get("selector"),
                absolute=bool(options.get("ignore_namespace")),
                individual=made.individual,
            ),
        )

    def _subscribe_broadcast(self, sub_id: int, channel: str, callback: object, **options: Any) -> None:  # noqa: ARG002
        self._channels[sub_id] = _Channel()
        self._asking(
            sub_id,
            lambda: self._ours.subscribe_broadcast(
                channel,
                lambda message: self._inbox.put((sub_id, message)),
                absolute=bool(options.get("ignore_namespace")),
            ),
        )

    def _subscribe_temporary(
        self,
        sub_id: int,
        channel_hint: str | None,
        callback: object,  # noqa: ARG002
        **_options: Any,
    ) -> str:
        hint = (channel_hint or generate_unique_host_id()).removeprefix("transient.")
        self._channels[sub_id] = _Channel()
        names: list[str] = []

        def ask() -> int:
            number, name = self._ours.subscribe_temporary(
                hint, lambda message: self._inbox.put((sub_id, message))
            )
            names.append(name)
            return number

        self._asking(sub_id, ask)
        return names[0]

    def _asking(self, sub_id: int, ask: Callable[[], int]) -> None:
        try:
            self._channels[sub_id].number = ask()
        except BrokerRefused as error:
            raise workflows.Error(str(error)) from None
        except Disconnected as error:
            raise workflows.Disconnected(str(error)) from None

    def _unsubscribe(self, sub_id: int, **_options: Any) -> None:
        self._ours.unsubscribe(self._channel(sub_id).number)
        self._channel(sub_id).waiting.clear()

    def _send(self, destination: str, message: Any, **options: Any) -> None:
        self._leave("queue", destination, message, options)

    def _broadcast(self, destination: str, message: Any, **options: Any) -> None:
        self._leave("topic", destination, message, options)

    def _leave(self, kind: Kind, destination: str, message: Any, options: dict[str, Any]) -> None:
        transaction = options.get("transaction")
        send = outgoing(kind, destination, message, options)
        if transaction:
            self._opened(transaction).sends.append(send)
        else:
            self._commit(_Open(sends=[send]))

    def _opened(self, transaction: int) -> _Open:
        try:
            return self._open[transaction]
        except KeyError:
            raise workflows.Error(f"there is no transaction {transaction!r}") from None

    def _ack(self, message_id: str, subscription_id: int | str, **options: Any) -> None:
        self._settle_later(message_id, subscription_id, options.get("transaction"), refused=False)

    def _nack(self, message_id: str, subscription_id: int | str, **options: Any) -> None:
        self._settle_later(message_id, subscription_id, options.get("transaction"), refused=True)

    def _settle_later(
        self, message_id: str, subscription: int | str, transaction: int | None, *, refused: bool
    ) -> None:
        channel = self._channel(subscription)
        if not channel.acknowledges:
            return
        if message_id not in channel.waiting:
            _log.warning("message %s is not waiting to be acknowledged; perhaps it was, before", message_id)
            return
        opened = self._opened(transaction) if transaction else _Open()
        opened.settled.append((channel, message_id))
        if refused:
            opened.refused.add(message_id)
        if not transaction:
            self._commit(opened)

    def _transaction_begin(self, transaction_id: int, **_options: Any) -> None:
        self._open[transaction_id] = _Open()

    def _transaction_abort(self, transaction_id: int, **_options: Any) -> None:
        self._open.pop(transaction_id, None)

    def _transaction_commit(self, transaction_id: int, **_options: Any) -> None:
        self._commit(self._open.pop(transaction_id))

    def _commit(self, opened: _Open) -> None:
        """Have the broker do it all.

        Raises:
            workflows.Disconnected: There is no connection, and nothing acknowledged that would come again.
            workflows.Error: The broker refuses.
        """
        taken = [(channel, channel.waiting[key]) for channel, key in opened.settled if key in channel.waiting]
        if any(message.connection != self._ours.connection for _, message in taken):
            _log.warning("the connection was lost meanwhile: what was handled comes again")
            return
        sends = list(opened.sends)
        for _, message in taken:
            if message.message_id in opened.refused:
                sends += self._refusal(message)
        if len(taken) == 1:
            sends = identified(taken[0][1], sends)
        sends = list(self.reported([message for _, message in taken], sends))
        for channel, message in taken:
            del channel.waiting[message.message_id]
        try:
            self._write(taken, sends)
        except Disconnected as error:
            if not taken:
                raise workflows.Disconnected(str(error)) from None
            _log.warning("what was handled could not be committed and comes again: %s", error)
            for channel, message in taken:
                channel.waiting.setdefault(message.message_id, message)  # so that it is known then
        except BrokerRefused as error:
            raise workflows.Error(f"the broker refused: {error}") from None

    def _write(self, taken: Sequence[tuple[_Channel, Message]], sends: Sequence[Send]) -> None:
        in_turn = [message for channel, message in taken if not channel.individual]
        self._ours.commit(in_turn, sends)
        for channel, message in taken:
            if channel.individual:
                self._ours.commit([message], ())

    def _refusal(self, message: Message) -> Sequence[Send]:
        # Here, as every command of zocalo loads this module.
        from parvis.compat.stand_in import stand_in
        from parvis.service.handling import Outcome
        from parvis.service.settling import settle

        reason = self.reason() or f"refused by {self.name}, which did not say why"
        return settle(self._ours, stand_in(self.name), message, Outcome("reject", reason=reason))

    @staticmethod
    def _mangle_for_sending(message: Any) -> str:
        return json.dumps(message, default=json_serializer)

    @staticmethod
    def _mangle_for_receiving(message: Any) -> Any:
        try:
            return json.loads(message)
        except (TypeError, ValueError, RecursionError):
            return message
