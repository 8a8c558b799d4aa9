"""How much memory the messages take, and which of them are in the journal only. No input or output here."""

from __future__ import annotations

from typing import Final

from parvis.transport.embedded.message import Message

_TEXTS: Final = 16
"""Texts of messages may take this part of the limit in memory before they are left to the journal."""


class Memory:
    """Bytes that all messages take in memory, roughly.

    Args:
        limit: bytes from which on producers are made to wait.

    Attributes:
        texts: bytes from which on texts are left to the journal.
        used: bytes of the messages held.
        incoming: bytes of frames that are not complete yet.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.texts = limit // _TEXTS
        self.used = 0
        self.incoming = 0

    def take(self, message: Message) -> None:
        """Count a message."""
        message.counted = True
        self.used += message.size if message.loaded else message.resident

    def leave(self, message: Message) -> None:
        """Count it no more."""
        message.counted = False
        self.used -= message.size if message.loaded else message.resident

    def relieve(self, message: Message) -> None:
        """Leave the text of a message to the journal, if it is there and memory is wanted."""
        if self.used > self.texts and message.stored and message.loaded:
            before = message.resident
            message.unload()
            if message.counted:
                self.used -= before - message.resident

    def loaded(self, message: Message, headers: dict[str, str], body: bytes) -> None:
        """The text of a message has come back."""
        before = message.resident
        message.headers, message.body, message.loaded = headers, body, True
        if message.counted:
            self.used += message.resident - before
