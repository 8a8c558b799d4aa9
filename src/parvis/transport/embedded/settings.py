"""What can be set about the embedded broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the embedded broker.

    Attributes:
        host: address to listen at; other than a loopback address only with `allow_remote`.
        port: TCP port, 0 for any free one.
        allow_remote: let the broker listen where other machines can reach it.
        login: name that clients must give; None lets everybody in.
        passcode: and their password.
        journal: SQLite file that keeps persistent messages over a restart; None keeps all in memory only.
        sync: wait until the disk has what is confirmed; without, a power failure, but not the end of the
            broker, may cost messages.
        prefetch: unacknowledged messages a consumer may hold, where its subscription does not say.
        max_redeliveries: a message whose consumers vanished more often than this is dead-lettered;
            0 redelivers for ever, as ActiveMQ does.
        nack_redeliveries: how often a message comes back after NACK before it is dead-lettered.
        redelivery_delay: seconds until it comes back.
        memory_limit: bytes of messages in memory from which on producers are made to wait.
        max_body: largest message body, in bytes.
        stall: seconds after which a client is dropped that takes nothing of what waits for it.
    """

    host: str = "127.0.0.1"
    port: int = 61613
    allow_remote: bool = False
    login: str | None = None
    passcode: str = field(default="", repr=False)
    journal: Path | None = None
    sync: bool = True
    prefetch: int = 1000
    max_redeliveries: int = 0
    nack_redeliveries: int = 0
    redelivery_delay: float = 1.0
    memory_limit: int = 512 * MEBIBYTE
    max_body: int = 100 * MEBIBYTE
    stall: float = 120.0
