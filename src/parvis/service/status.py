"""The status broadcast: who is there and what they are doing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any

from parvis import __version__
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send

TOPIC = "transient.status"
_EXPIRATION = 15.0
_PERIOD = 6.0
_IDLE_AFTER = 0.5

# The version of `workflows` whose protocol we speak: monitors and controllers at existing sites compare it.
_PROTOCOL_VERSION = "3.3"


class Status(IntEnum):
    """States of a service, with the numbers that `workflows` gives them."""

    TEARDOWN = -2
    NONE = -1
    NEW = 0
    STARTING = 1
    IDLE = 2
    TIMER = 3
    PROCESSING = 4
    SHUTDOWN = 5
    END = 6
    ERROR = 7


TEXTS = {
    Status.TEARDOWN: "shutdown",
    Status.NONE: "no service loaded",
    Status.NEW: "constructing",
    Status.STARTING: "starting",
    Status.IDLE: "idle",
    Status.TIMER: "timer event",
    Status.PROCESSING: "processing",
    Status.SHUTDOWN: "shutting down",
    Status.END: "shutdown",
    Status.ERROR: "error",
}


@cache
def _reversed_host() -> str:
    return ".".join(reversed(socket.gethostname().split(".")))


def host_id() -> str:
    """Name of this process among all: the host name, its parts reversed, and the process number."""
    return f"{_reversed_host()}.{os.getpid()}"


class Utilisation:
    """How much of the last period was spent in each state."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._since = time.monotonic()

    def spend(self, status: Status) -> float:
        """Book the time since the last call on `status`; return what time it is, on the monotonic clock."""
        now = time.monotonic()
        self._spent[status] = self._spent.get(status, 0.0) + now - self._since
        self._since = now
        return now

    def report(self) -> dict[str, float]:
        """Return the shares, which add up to 1, and begin a new period."""
        total = sum(self._spent.values())
        shares = {str(int(code)): seconds / total for code, seconds in self._spent.items() if total > 0}
        self._spent = {}
        return shares


class StatusBroadcast:
    """Broadcasts the status on every change and every six seconds, from a thread of its own.

    Being idle is told only after half a second, so that a card in a monitor does not flicker.
    """

    def __init__(
        self,
        post: Callable[[Send], None],
        description: dict[str, Any],
        more: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._post = post
        self._more = more
        self._description = description | _job()
        self._status = Status.NEW
        self._since = time.monotonic()
        self._shown: Status | None = None
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._utilisation = Utilisation()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def set(self, status: Status) -> None:
        """Say what the service is doing now. Costs little, as it is called for every message."""
        if status is self._status:
            return
        with self._lock:  # which is quicker than to enter the condition
            self._since = self._utilisation.spend(self._status)
            self._status = status
            # While another status is shown than that of an idle service, the thread looks for itself.
            if status is not Status.IDLE and status is not self._shown:
                self._changed.notify()

    def rename(self, service: str) -> None:
        """Call the service something else from now on."""
        with self._changed:
            self._description = self._description | {"service": service}
            self._shown = None
            self._changed.notify()

    def stop(self) -> None:
        """Say the last status and end."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._changed:
                self._await_news(due)
                stopped, text = self._stopped, self._card()
            self._post(Send(TOPIC, dump_json(text), kind="topic", expiration=_EXPIRATION, persistent=False))
            if stopped:
                return
            due = time.monotonic() + _PERIOD

    def _await_news(self, due: float) -> None:
        """Return when there is something to say, at the latest when it is `due`."""
        while not self._stopped and (now := time.monotonic()) < due:
            until = due
            if self._status is Status.IDLE and self._shown is not Status.IDLE:
                until = self._since + _IDLE_AFTER
                if now >= until:
                    return
            elif self._status is not self._shown:
                return
            elif self._status is not Status.IDLE:
                until = now + _IDLE_AFTER
            self._changed.wait(min(until, due) - now)

    def _card(self) -> dict[str, Any]:
        self._utilisation.spend(self._status)
        self._shown = self._status
        return self._description | {
            "host": host_id(),
            "status": int(self._status),
            "statustext": TEXTS[self._status],
            "utilization": self._utilisation.report(),
            "workflows": _PROTOCOL_VERSION,
            "parvis": __version__,
            "mem-uss": _resident_megabytes(),
            **self._more(),
        }


def _job() -> dict[str, str]:
    """The job of the cluster's scheduler that this process is part of, under the key that monitors know."""
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID")
    return {"cluster_JOB_ID": job} if job else {}


def _resident_megabytes() -> float:
    """Memory that this process holds and does not share, in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a line from the kernel, no file system
        _, resident, shared, *_ = (int(field) for field in file.read().split())
    return round((resident - shared) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
