"""One connection to a STOMP 1.2 broker, from the log-in to its end: frames and their receipts."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable
from functools import partial

from parvis.transport.base import Disconnected
from parvis.transport.stomp_frames import HEARTBEAT, Frame, Item, Parser, ProtocolError, encode
from parvis.transport.stomp_receipts import Receipt, Receipts
from parvis.transport.wire import Wire

logger = logging.getLogger(__name__)


class Connection(Wire):
    """A socket on which the broker has let us in. Made by `stomp_login.Login.connect`.

    Args:
        sock: The socket, non-blocking.
        parser: What has read the broker's answer to the log-in.
        broker: As of `Wire`.
        server: As the attribute.
        send_every, silent_after: As of `Wire`.

    Attributes:
        server: What the broker calls itself.
        on_message: Called with each MESSAGE frame, on the thread that reads.
    """

    def __init__(
        self,
        sock: socket.socket,
        parser: Parser,
        *,
        broker: str,
        server: str,
        send_every: float,
        silent_after: float,
    ) -> None:
        self._receipts = Receipts(broker)
        super().__init__(
            sock,
            broker=broker,
            heartbeat=b"\n",
            send_every=send_every,
            silent_after=silent_after,
            timed=self._receipts,
        )
        self.server = server
        self.on_message: Callable[[Frame], None] | None = None
        self._parser = parser
        self._numbers = itertools.count(1)

    def next_number(self) -> str:
        """A name for a receipt or transaction, unique on this connection."""
        return str(next(self._numbers))

    def ask(self, data: bytes, receipt: Receipt) -> None:
        """As `write`; `receipt` is resolved when the broker answers."""
        self.write(data, partial(self._receipts.expect, receipt))

    def leave(self, timeout: float) -> None:
        receipt = Receipt(self.next_number())
        try:
            self.ask(encode(Frame("DISCONNECT", {"receipt": receipt.number})), receipt)
            self.wait_for(receipt, timeout)
        except Disconnected:
            logger.debug("the connection was lost before we could leave")

    def _received(self, data: bytes) -> None:
        try:
            items = self._parser.feed(data)
        except ProtocolError as error:
            self._take(error.before)
            raise self._not_stomp(str(error)) from None
        self._take(items)

    def _take(self, items: list[Item]) -> None:
        for item in items:
            if item is HEARTBEAT:
                continue
            if item.command == "MESSAGE":
                if self.on_message is not None:
                    self.on_message(item)
            elif item.command == "RECEIPT":
                self._receipts.confirm(item.headers.get("receipt-id", ""))
            elif item.command == "ERROR":
                self._receipts.refuse(item.headers.get("receipt-id"), error_text(item))
            else:
                raise self._not_stomp(f"a {item.command} frame, which brokers do not send")

    def _not_stomp(self, problem: str) -> Disconnected:
        return Disconnected(f"{self.broker} sent what is not STOMP: {problem}")

    def _ended(self, reason: str) -> None:
        self._receipts.fail(reason)


def error_text(frame: Frame) -> str:
    """What an ERROR frame says, in one line."""
    message = frame.headers.get("message", "").strip()
    lines = frame.body.decode(errors="replace").strip().splitlines()
    detail = lines[0].strip() if lines else ""
    if message in detail:
        return detail[:500] or "no reason given"
    return (f"{message}: {detail}" if detail and detail not in message else message)[:500]
