"""A message as the broker keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from parvis.transport.stomp_frames import encode_head

Entry = str | int | float | bool

RESERVED: Final = frozenset(
    # Said by the broker to the receiver ...
    {"destination", "message-id", "subscription", "ack", "redelivered", "JMSXDeliveryCount", "timestamp"}
    | {"priority", "expires", "persistent", "content-length", "browser"}
    # ... or by the sender to the broker.
    | {"transaction", "receipt", "login", "passcode", "AMQ_SCHEDULED_DELAY"}
)
"""Headers that are not passed on as the sender wrote them."""

_OVERHEAD: Final = 1000
"""Bytes that a message takes in memory besides its text, roughly."""
_SHELL: Final = 600
"""Bytes that a message takes whose text is only in the journal, roughly."""
_NO_HEADERS: Final[dict[str, str]] = {}


@dataclass(slots=True, eq=False)
class Message:
    """One message. Times are in milliseconds since 1970, as on the wire.

    Its text, the headers and the body, may be in the journal only: whoever needs it has it loaded first.

    Attributes:
        number: unique in this broker and its journal.
        id: the `message-id`, kept when the message is dead-lettered.
        destination: full name: `/queue/a.b`, `/topic/a`, `/remote-temp-queue/...`.
        headers: what the sender said, without the `RESERVED` ones.
        priority: 0 to 9.
        expires: when it does, as its sender said, 0 for never.
        deadline: the same by the broker's own clock.
        due: when a delayed message is to be delivered, 0 for at once.
        redeliveries: how often a consumer had it and did not acknowledge it.
        place: orders messages of the same priority in a queue.
        entries: what a map message of the broker's own says, which is written as the receiver wants it.
        size: bytes of memory that it takes with its text, roughly.
        loaded: the text is here.
        stored: the text is safe in the journal, too.
        counted: its size is part of the memory in use.
    """

    number: int
    id: str
    destination: str
    headers: dict[str, str]
    body: bytes
    timestamp: int
    priority: int = 4
    expires: int = 0
    persistent: bool = False
    due: int = 0
    redeliveries: int = 0
    deadline: int = 0
    place: int = 0
    entries: Mapping[str, Entry] | None = None
    loaded: bool = True
    stored: bool = False
    counted: bool = False
    size: int = field(init=False)
    _head: bytes = field(init=False, default=b"")
    _head_for: tuple[str, str] = field(init=False, default=("", ""))

    def __post_init__(self) -> None:
        text = sum(map(len, self.headers)) + sum(map(len, self.headers.values()))
        self.size = len(self.body) + text + _OVERHEAD
        self.place = self.place or self.number

    @property
    def resident(self) -> int:
        """Bytes of memory that it takes now, roughly."""
        return self.size if self.loaded else _SHELL

    def unload(self, size: int | None = None) -> None:
        """Forget the text, which is in the journal; `size` is that of the text, if it was never here."""
        self.headers, self.body, self.loaded = _NO_HEADERS, b"", False
        self._head, self._head_for = b"", ("", "")
        if size is not None:
            self.size = size + _OVERHEAD

    def head(self, version: str, destination: str) -> bytes:
        """Command and headers that are the same for every receiver who knows it by this destination."""
        if self._head_for != (version, destination):
            headers = {
                "destination": destination,
                "message-id": self.id,
                "content-length": str(len(self.body)),
                "priority": str(self.priority),
                "expires": str(self.expires),
                "timestamp": str(self.timestamp),
            }
            if self.persistent:
                headers["persistent"] = "true"
            headers.update(self.headers)
            self._head = encode_head("MESSAGE", headers, version)
            self._head_for = (version, destination)
        return self._head

    def property(self, name: str) -> str | int | bool | None:
        """What a selector sees under a name: a JMS field, a header, or None."""
        field_of_message = _JMS_FIELDS.get(name)
        return self.headers.get(name) if field_of_message is None else field_of_message(self)


_JMS_FIELDS: Final[dict[str, Callable[[Message], str | int | bool | None]]] = {
    "JMSXDeliveryCount": lambda message: message.redeliveries + 1,
    "JMSRedelivered": lambda message: message.redeliveries > 0,
    "JMSPriority": lambda message: message.priority,
    "JMSTimestamp": lambda message: message.timestamp,
    "JMSExpiration": lambda message: message.expires,
    "JMSMessageID": lambda message: message.id,
    "JMSDeliveryMode": lambda message: "PERSISTENT" if message.persistent else "NON_PERSISTENT",
    "JMSCorrelationID": lambda message: message.headers.get("correlation-id"),
    "JMSType": lambda message: message.headers.get("type"),
}
