"""A callback that keeps what it was called with."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from parvis.transport.base import Message


class Inbox:
    """Messages in the order of delivery. Give it to a subscription as the callback."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._taken = 0
        self._changed = Condition()

    def __call__(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    @property
    def messages(self) -> list[Message]:
        """All messages so far."""
        with self._changed:
            return list(self._messages)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all messages so far."""
        return [message.body for message in self.messages]

    @property
    def is_all_taken(self) -> bool:
        """Whether there is no message that was not taken."""
        with self._changed:
            return self._taken == len(self._messages)

    def get(self, timeout: float = 10) -> Message:
        """Return the next message that was not taken before, or fail."""
        return self.take(1, timeout)[0]

    def take(self, count: int, timeout: float = 10) -> list[Message]:
        """Return the next messages that were not taken before, or fail."""
        with self._changed:
            self._wait(lambda: len(self._messages) >= self._taken + count, timeout, f"{count} more messages")
            taken = self._messages[self._taken : self._taken + count]
            self._taken += count
            return taken

    def wait(self, count: int, timeout: float = 10) -> list[Message]:
        """Return all messages as soon as there are `count`, or fail."""
        with self._changed:
            self._wait(lambda: len(self._messages) >= count, timeout, f"{count} messages")
            return list(self._messages)

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        if not self._changed.wait_for(condition, timeout):
            raise AssertionError(f"waited {timeout:g} s for {what}: there are {len(self._messages)}")
