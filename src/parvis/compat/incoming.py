"""Messages that `workflows` delivers, and settling them on one of its transports."""

# `workflows` says of little what type it has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workflows.transport.common_transport import CommonTransport

from parvis.compat.transport import ParvisTransport
from parvis.transport.base import Message, Send
from parvis.transport.stomp_messages import dead_letter

# What the transport of `workflows` for RabbitMQ adds to the headers of a message
_DELIVERY = frozenset({"consumer_tag", "delivery_mode", "exchange", "routing_key"})


def incoming(queue: str, header: Mapping[str, Any], body: str | bytes) -> Message:
    """The message that a callback of `workflows` is given."""
    headers = {str(name): str(value) for name, value in header.items() if name not in _DELIVERY}
    return Message(
        destination=queue,
        body=body.encode() if isinstance(body, str) else body,
        headers=headers,
        message_id=headers.get("message-id", ""),
        subscription=int(headers.get("subscription", 0)),
        redelivered=headers.get("redelivered", "").lower() == "true",
    )


class SettlingTransport:
    """What settling needs of a transport, on one of `workflows`."""

    def __init__(self, theirs: CommonTransport) -> None:
        self.theirs: Any = theirs

    @property
    def _is_rabbitmq(self) -> bool:
        return type(self.theirs).__name__ == "PikaTransport"

    def dead_letter(self, message: Message, headers: Mapping[str, str]) -> Send:
        """As `Transport.dead_letter`."""
        if isinstance(self.theirs, ParvisTransport):
            return self.theirs.dead_letter(message, headers)
        if not self._is_rabbitmq:
            return dead_letter(message, self.theirs.get_namespace(), headers)
        from parvis.transport.amqp_messages import dead_letter as amqp_dead_letter

        return amqp_dead_letter(message, "", headers)

    def commit(self, headers: Sequence[Mapping[str, Any]], sends: Sequence[Send]) -> None:
        """Acknowledge messages and send, in one transaction."""
        transaction = self.theirs.transaction_begin(subscription_id=headers[0]["subscription"])
        try:
            for header in headers:
                self.theirs.ack(dict(header), transaction=transaction)
            for send in sends:
                self._send(send, transaction)
        except (TypeError, ValueError):
            self.theirs.transaction_abort(transaction)
            raise
        self.theirs.transaction_commit(transaction)

    def _send(self, send: Send, transaction: int) -> None:
        if isinstance(self.theirs, ParvisTransport):
            self.theirs.add(transaction, send)
            return
        headers: dict[str, Any] = dict(send.headers)
        if self._is_rabbitmq and "original-destination" in headers:
            from parvis.transport.amqp_messages import death

            headers["x-death"] = [death(headers["original-destination"])]
        if send.priority is not None:
            headers["priority"] = str(send.priority)
        if not send.persistent:
            headers["persistent"] = "false"
        options: dict[str, Any] = {"headers": headers, "transaction": transaction}
        if send.delay:
            options["delay"] = send.delay
        if send.expiration is not None:
            options["expiration"] = send.expiration
        if send.absolute:
            options["ignore_namespace"] = True
        call = self.theirs.raw_broadcast if send.kind == "topic" else self.theirs.raw_send
        call(send.destination, send.body.decode(errors="replace"), **options)
