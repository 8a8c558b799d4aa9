"""Messages that `workflows` delivers, and settling them on one of its transports."""

# `workflows` says of little what type it has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workflows.transport.common_transport import CommonTransport

from parvis.transport.base import Message, Send, own_headers
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
        if self._is_rabbitmq:
            return Send(
                f"dlq.{message.destination}", message.body, {**own_headers(message.headers), **headers}
            )
        return dead_letter(message, self.theirs.get_namespace(), headers)

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
        headers = dict(send.headers)
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
