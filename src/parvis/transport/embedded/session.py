"""One client's side of the protocol: what each frame means. No input or output here."""

from __future__ import annotations

import hmac
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from parvis import __version__
from parvis.transport.embedded import statistics
from parvis.transport.embedded.consumer import Acknowledge, Consumer, Delivery
from parvis.transport.embedded.destinations import DestinationError, Destinations, check
from parvis.transport.embedded.headers import Refusal, describe, heartbeats, number
from parvis.transport.embedded.message import RESERVED, Message
from parvis.transport.embedded.selector import Selector, SelectorError
from parvis.transport.embedded.transaction import Transaction, settle
from parvis.transport.stomp_frames import VERSIONS, Frame, ProtocolError, encode, encode_head, negotiate

_TEMPORARY: Final = ("/temp-queue/", "/temp-topic/")
_MOST: Final = 2
_MOST_IN_TRANSACTIONS: Final = 4
"""How often the memory's limit may be used before messages are refused."""
_MAX_TARGETS: Final = 1000
_MAX_TRANSACTIONS: Final = 1000


@dataclass(slots=True, eq=False)
class Subscription:
    """A SUBSCRIBE of this client.

    Attributes:
        line: the `subscription` header for its messages, encoded.
        transformed: it wants maps of the broker's own as ActiveMQ writes them.
        browsing: messages still to be shown to a browser, which has no consumer; None if that is over.
    """

    number: int
    destination: str
    line: bytes
    transformed: bool = False
    consumer: Consumer | None = None
    browsing: deque[Message] | None = None


class Session:
    """The protocol state of one connection.

    Args:
        destinations: of the broker.
        write: takes bytes for the client.

    Attributes:
        closing: an ERROR was sent or the client said goodbye; nothing more is heard or said.
        login_refused: the client gave a wrong name or passcode.
        refusal: the ERROR frame that was sent.
        unconfirmed: it has sent something since somebody last set this to False.
        heartbeats: ms between signs of life that we send, and that we expect; 0 for none.
    """

    def __init__(self, destinations: Destinations, write: Callable[[bytes], None]) -> None:
        self.version = "1.2"
        self.connected = False
        self.closing = False
        self.login_refused = False
        self.unconfirmed = False
        self.refusal = b""
        self.heartbeats = (0, 0)
        self._destinations = destinations
        self._write = write
        self._blocked = False
        self._subscriptions: dict[str, Subscription] = {}
        self._by_number: dict[int, Subscription] = {}
        self._numbers = itertools.count(1)
        self._transactions: dict[str, Transaction] = {}
        self._targets: dict[str, str] = {}
        self._temporary: dict[str, str] = {}
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "SEND": self._send,
            "ACK": partial(self._acknowledge, accepted=True),
            "NACK": partial(self._acknowledge, accepted=False),
            "BEGIN": self._begin,
            "COMMIT": self._commit,
            "ABORT": self._abort,
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "DISCONNECT": self._disconnect,
        }

    @property
    def only_produces(self) -> bool:
        """Whether it sends, and can be made to wait without keeping anybody from taking messages away."""
        return bool(self._targets) and not self._subscriptions and not self._transactions

    def receive(self, frame: Frame) -> None:
        """Do what the client says."""
        if self.closing:
            return
        try:
            if not self.connected:
                self._connect(frame)
                return
            handler = self._handlers.get(frame.command)
            if handler is None:
                raise Refusal(f"{frame.command} is nothing a client may say here")
            handler(frame)
        except Refusal as error:
            self.refuse(str(error), error.detail, frame)
        except (ProtocolError, DestinationError, SelectorError) as error:
            self.refuse(str(error), "", frame)
        else:
            receipt = frame.headers.get("receipt")
            if receipt is not None:
                self._write(encode(Frame("RECEIPT", {"receipt-id": receipt}), self.version))

    def refuse(self, message: str, detail: str = "", frame: Frame | None = None) -> None:
        """Send an ERROR frame. The connection is to be closed then."""
        headers = {"message": message[:500], "content-type": "text/plain", "version": ",".join(VERSIONS)}
        text = f"{message}\n{detail}"
        if frame is not None:
            text += f"\nThe frame was {frame.command}"
            if "destination" in frame.headers:
                text += f", destination {frame.headers['destination'][:200]!r}"
            if "receipt" in frame.headers:
                headers["receipt-id"] = frame.headers["receipt"]
        self.refusal = encode(Frame("ERROR", headers, f"{text}\n".encode()), self.version)
        self._write(self.refusal)
        self.closing = True

    def stop(self) -> None:
        """Get no more messages. Of sessions that end together all stop first."""
        self.closing = True
        for subscription in self._subscriptions.values():
            if subscription.consumer:
                subscription.consumer.stop()

    def close(self) -> None:
        """The connection has gone: undo what was not committed, give back what was not acknowledged."""
        self.stop()
        for transaction in self._transactions.values():
            transaction.abort()
        self._transactions.clear()
        consumers = [entry.consumer for entry in self._subscriptions.values() if entry.consumer]
        self._destinations.unsubscribe(consumers)
        self._subscriptions.clear()
        for name in self._temporary.values():
            self._destinations.remove(name)
        self._temporary.clear()
        self._forget_targets()

    def block(self, blocked: bool) -> None:
        """Say that the client's socket takes no more bytes for now, or that it does again."""
        self._blocked = blocked
        for subscription in list(self._subscriptions.values()):
            if self._blocked is not blocked:
                return  # what was delivered to the first ones has filled the socket again
            if subscription.consumer:
                subscription.consumer.block(blocked)
            elif not blocked:
                self._show(subscription)

    # Connecting

    def _connect(self, frame: Frame) -> None:
        if frame.command not in {"CONNECT", "STOMP"}:
            raise Refusal(f"{frame.command} before CONNECT")
        version = negotiate(frame.headers.get("accept-version"))
        if version is None:
            raise Refusal(f"no version in common: {', '.join(VERSIONS)} are spoken here")
        self.version = version
        self._log_in(frame.headers)
        self.heartbeats = heartbeats(frame.headers.get("heart-beat", "0,0"))
        headers = {
            "version": version,
            "server": f"parvis-embedded/{__version__}",
            "session": self._destinations.new_name(),
            "heart-beat": f"{self.heartbeats[0]},{self.heartbeats[1]}",
        }
        self.connected = True
        self._write(encode(Frame("CONNECTED", headers), version))

    def _log_in(self, headers: dict[str, str]) -> None:
        settings = self._destinations.settings
        if settings.login is None:
            return
        expected = f"{settings.login}\n{settings.passcode}".encode()
        given = f"{headers.get('login', '')}\n{headers.get('passcode', '')}".encode()
        if not hmac.compare_digest(expected, given):
            self.login_refused = True
            raise Refusal("login failed: name or password is wrong")

    def _disconnect(self, _frame: Frame) -> None:
        self.closing = True

    # Sending

    def _send(self, frame: Frame) -> None:
        headers = frame.headers
        destinations = self._destinations
        self._check_memory("transaction" in headers)
        stated = headers.get("destination", "")
        if statistics.is_request(stated):
            self._ask(check(stated, wildcards=True), headers)
            return
        destination = self._targets.get(stated) or self._target(stated)
        message = self._message(destination, frame)
        if not destinations.accepts(message):
            raise Refusal("the disk with the broker's journal is full: make room on it, or consume messages")
        self.unconfirmed = True
        if "transaction" in headers:
            self._transaction(headers).send(message)
        else:
            destinations.send(message)

    def _check_memory(self, in_transaction: bool) -> None:
        """Refuse a message where memory is short.

        Who takes messages and sends others in transactions has more: it is what makes memory free again.
        """
        memory = self._destinations.memory
        most = _MOST_IN_TRANSACTIONS if in_transaction and self._subscriptions else _MOST
        if memory.used > most * memory.limit:
            raise Refusal("the broker is out of memory for messages: consume some, or raise its limit")

    def _target(self, stated: str) -> str:
        """The full name of a destination to send to, checked the first time."""
        destination = self._full_name(stated)
        self._destinations.check_known(destination)
        if len(self._targets) >= _MAX_TARGETS:
            self._forget_targets()
        self._targets[stated] = destination
        self._destinations.producers[destination] += 1
        return destination

    def _forget_targets(self) -> None:
        for name in self._targets.values():
            self._destinations.producers[name] -= 1
            if not self._destinations.producers[name]:
                del self._destinations.producers[name]
        self._targets.clear()

    def _full_name(self, stated: str, wildcards: bool = False) -> str:
        """A destination as the broker knows it; the client's own temporary ones are made on first use."""
        if not stated.startswith(_TEMPORARY):
            return check(stated, wildcards)
        if stated not in self._temporary:
            kind = stated.split("/", 2)[1]
            name = check(f"/remote-{kind}/{self._destinations.new_name()}")
            self._destinations.check_known(name)
            if kind == "temp-queue":
                self._destinations.queue(name)
            else:
                self._destinations.topic(name)
            self._temporary[stated] = name
        return self._temporary[stated]

    def _message(self, destination: str, frame: Frame) -> Message:
        kept = {name: value for name, value in frame.headers.items() if name not in RESERVED}
        message = self._destinations.message(destination, kept, frame.body)
        if kept.get("reply-to", "").startswith(_TEMPORARY):
            kept["reply-to"] = self._full_name(kept["reply-to"])
        describe(message, frame.headers, self._destinations.clock)
        return message

    def _ask(self, destination: str, headers: dict[str, str]) -> None:
        if "reply-to" not in headers:
            raise Refusal("a request for statistics needs a reply-to header")
        reply_to = self._full_name(headers["reply-to"])
        self._destinations.check_known(reply_to)
        statistics.answer(self._destinations, destination, reply_to, headers.get("correlation-id"))

    # Subscribing

    def _subscribe(self, frame: Frame) -> None:
        headers = frame.headers
        stated = headers.get("destination", "")
        key = headers.get("id")
        if key is None and self.version != "1.0":
            raise Refusal("SUBSCRIBE without an id header")
        line = b"" if key is None else encode_head("", {"subscription": key}, self.version)[1:]
        key = stated if key is None else key
        if key in self._subscriptions:
            raise Refusal(f"there is a subscription {key[:80]!r} on this connection already")
        name = self._full_name(stated, wildcards=True)
        if name.startswith("/remote-temp-") and name not in self._temporary.values():
            raise Refusal(f"{name[:80]!r} belongs to another connection: only that may subscribe to it")
        self._destinations.check_known(name)
        selector = Selector(headers["selector"]) if headers.get("selector", "").strip() else None
        transformed = headers.get("transformation", "").lower() == "jms-map-json"
        subscription = Subscription(next(self._numbers), stated, line, transformed)
        if headers.get("browser") == "true":
            subscription.browsing = deque(self._destinations.browse(name, selector))
        else:
            subscription.consumer = self._consumer(headers, subscription, selector)
        self._subscriptions[key] = self._by_number[subscription.number] = subscription
        if subscription.consumer:
            subscription.consumer.block(self._blocked)
            retroactive = headers.get("activemq.retroactive") == "true"
            self._destinations.subscribe(subscription.consumer, name, retroactive)
        else:
            self._show(subscription)

    def _consumer(self, headers: dict[str, str], to: Subscription, selector: Selector | None) -> Consumer:
        try:
            acknowledge = Acknowledge(headers.get("ack", "auto"))
        except ValueError:
            raise Refusal(f"ack {headers['ack'][:40]!r} is none of auto, client, client-individual") from None
        prefetch = number(headers, "activemq.prefetchSize", self._destinations.settings.prefetch)
        if "activemq.prefetchSize" in headers and prefetch < 1:
            raise Refusal("activemq.prefetchSize is less than 1: nothing would ever be delivered")
        return Consumer(
            partial(self._deliver, to),
            acknowledge,
            prefetch=max(0, number(headers, "prefetch-count", prefetch)),
            priority=number(headers, "activemq.priority"),
            exclusive=headers.get("activemq.exclusive") == "true",
            selector=selector,
        )

    def _unsubscribe(self, frame: Frame) -> None:
        key = frame.headers.get("id", frame.headers.get("destination", ""))
        subscription = self._subscriptions.pop(key, None)
        if subscription is None:
            raise Refusal(f"there is no subscription {key[:80]!r} on this connection")
        del self._by_number[subscription.number]
        if subscription.consumer:
            self._destinations.unsubscribe([subscription.consumer])

    # Delivering

    def _deliver(self, subscription: Subscription, delivery: Delivery) -> None:
        message = delivery.message
        extra = subscription.line
        if delivery.consumer.acknowledge is not Acknowledge.AUTO and self.version == "1.2":
            extra += b"ack:%d.%b\n" % (subscription.number, message.id.encode())
        if message.redeliveries:
            extra += b"redelivered:true\nJMSXDeliveryCount:%d\n" % (message.redeliveries + 1)
        if message.entries is not None and subscription.transformed:
            message = statistics.as_jms_map(message, message.entries)
        self._write_message(message, extra)

    def _write_message(self, message: Message, extra: bytes) -> None:
        destination = message.destination
        if destination.startswith("/remote-temp-"):
            destination = next(
                (own for own, name in self._temporary.items() if name == destination), destination
            )
        head = message.head(self.version, destination)
        self._write(b"%b%b\n%b\0" % (head, extra, message.body))

    def _show(self, subscription: Subscription) -> None:
        """Show a browser what there is, as far as the socket takes it, and say when that was all."""
        while subscription.browsing and not self._blocked:
            message = subscription.browsing.popleft()
            if not self._destinations.load([message]):
                continue  # somebody has taken it
            line = b"ack:%d.%b\n" % (subscription.number, message.id.encode())
            self._write_message(message, subscription.line + line)
            self._destinations.memory.relieve(message)
        if subscription.browsing is not None and not subscription.browsing:
            subscription.browsing = None
            end = self._destinations.message(subscription.destination, {"browser": "end"}, b"")
            self._write_message(end, subscription.line)

    # Acknowledging

    def _acknowledge(self, frame: Frame, accepted: bool) -> None:
        headers = frame.headers
        consumer, message_id = self._acknowledged(headers)
        if consumer is None:
            return
        transaction = self._transaction(headers) if "transaction" in headers else None
        deliveries = consumer.take_back(message_id)
        if not deliveries:
            raise Refusal(
                f"{frame.command} of message {message_id[:100]!r}, which is not waiting for it",
                "It was acknowledged before, or was never delivered on this connection.",
            )
        if transaction:
            transaction.settle(deliveries, accepted)
        else:
            settle(deliveries, accepted)
        consumer.make_room()

    def _acknowledged(self, headers: dict[str, str]) -> tuple[Consumer | None, str]:
        """Which consumer's message is meant, and its id; no consumer where a browser acknowledges."""
        if "message-id" in headers:
            return self._by_message_id(headers["message-id"], headers.get("subscription"))
        ordinal, dot, message_id = headers.get("id", "").partition(".")
        plain = dot and ordinal.isascii() and ordinal.isdigit() and len(ordinal) < 18
        subscription = self._by_number.get(int(ordinal)) if plain else None
        if subscription is None:
            raise Refusal(f"acknowledgement of {headers.get('id', '')[:100]!r}, which is not known here")
        return subscription.consumer, message_id

    def _by_message_id(self, message_id: str, key: str | None) -> tuple[Consumer | None, str]:
        if key is not None:
            if key not in self._subscriptions:
                raise Refusal(f"acknowledgement for subscription {key[:80]!r}, which is not known here")
            return self._subscriptions[key].consumer, message_id
        consumers = [entry.consumer for entry in self._subscriptions.values() if entry.consumer]
        found = next((c for c in consumers if message_id in c.unacknowledged), None)
        if found is None:
            raise Refusal(f"acknowledgement of message {message_id[:100]!r}, which is not known here")
        return found, message_id

    # Transactions

    def _transaction(self, headers: dict[str, str]) -> Transaction:
        transaction = self._transactions.get(headers.get("transaction", ""))
        if transaction is None:
            raise Refusal(
                f"there is no transaction {headers.get('transaction', '')[:80]!r}: BEGIN comes first"
            )
        return transaction

    def _begin(self, frame: Frame) -> None:
        name = frame.headers.get("transaction", "")
        if not name:
            raise Refusal("BEGIN without a transaction header")
        if name in self._transactions:
            raise Refusal(f"there is a transaction {name[:80]!r} already")
        if len(self._transactions) >= _MAX_TRANSACTIONS:
            raise Refusal(f"more than {_MAX_TRANSACTIONS} transactions are open")
        self._transactions[name] = Transaction(self._destinations)

    def _commit(self, frame: Frame) -> None:
        self._transaction(frame.headers).commit()
        del self._transactions[frame.headers["transaction"]]

    def _abort(self, frame: Frame) -> None:
        self._transaction(frame.headers).abort()
        del self._transactions[frame.headers["transaction"]]
