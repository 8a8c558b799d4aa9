"""Keeping a connection to one of several brokers: made again, with growing delays, when it is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from parvis.transport.base import BrokerRefused, Disconnected, NoConnection, NotAdmitted, TransportError
from parvis.transport.wire import Wire

logger = logging.getLogger(__name__)

_LEAVE_TIMEOUT: Final = 5.0
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 10.0
_WORTH_SAYING: Final = 10.0  # from this delay on, each failure is a warning
_STABLE_AFTER: Final = 10.0  # seconds after which a connection counts as good, as one that was of use does


C = TypeVar("C", bound=Wire)


class Keeper(Generic[C]):
    """Holds a connection, and a thread that reads from it and makes it again.

    Args:
        hosts: Host and port of each broker, tried in this order.
        connect: Makes a connection to one, or raises `TransportError`.
        encrypted: Whether connections use TLS, which a broker may not answer.
        reconnect: Whether to make a lost connection again.
        on_up: Called with each new connection before anybody else can use it, holding `changed`.
        on_down: Called when it is lost, holding `changed`.

    Attributes:
        lock: Guards all below.
        changed: Announces changes of all below, holding `lock`.
        connection: The connection, or None.
        number: Counts connections; the next one has its number from the moment the last is lost.
        failure: Why there is no connection, as far as is known.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        connect: Callable[[str, int], C],
        *,
        encrypted: bool,
        reconnect: bool,
        on_up: Callable[[C], None],
        on_down: Callable[[], None],
    ) -> None:
        self.lock = threading.RLock()  # to enter it is quicker than to enter the condition
        self.changed = threading.Condition(self.lock)
        self.connection: C | None = None
        self.number = 0
        self.failure: TransportError | None = None
        self._hosts = hosts
        self._connect = connect
        self._encrypted = encrypted
        self._reconnect = reconnect
        self._on_up = on_up
        self._on_down = on_down
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, timeout: float) -> None:
        """Connect.

        Raises:
            NoConnection: Nobody answers within `timeout` seconds.
            NotAdmitted: No broker lets us in.
        """
        with self.changed:
            if self._thread is not None:
                raise RuntimeError("connect was called before, and disconnect was not")
            self.number += 1
            self.failure = None
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._keep, args=(self._stop,), name="parvis-broker", daemon=True
            )
            self._thread.start()
            failure = self._await_first(timeout)
            if self.connection is not None:
                return
            self._stop.set()
            self._thread = None
        if isinstance(failure, BrokerRefused):
            raise NotAdmitted(str(failure))
        doubt = " (does it speak TLS?)" if self._encrypted else ""
        raise NoConnection(
            f"no connection within {timeout:g} s: {failure or f'silence at {self._brokers}{doubt}'}"
        )

    def _await_first(self, timeout: float) -> TransportError | None:
        self.changed.wait_for(lambda: self.connection or isinstance(self.failure, BrokerRefused), timeout)
        return self.failure

    def stop(self) -> None:
        """Say goodbye to the broker and end the thread."""
        with self.changed:
            connection, thread, self._thread = self.connection, self._thread, None
            self._stop.set()
            self.changed.notify_all()
        if connection is not None:
            connection.leave(_LEAVE_TIMEOUT)
            connection.close("we disconnected")
        if thread is not None:
            thread.join(_LEAVE_TIMEOUT)

    def wait(self, timeout: float) -> C:
        """Return the connection; where there is none, wait for it.

        Raises:
            Disconnected: There is none within `timeout` seconds, or none will come.
        """
        connection = self.connection
        if connection is not None:
            return connection
        with self.changed:
            self.changed.wait_for(lambda: self.connection or self.is_over, max(0.0, timeout))
            if self.connection is None:
                raise Disconnected(f"there is no connection to the broker: {self.why}")
            return self.connection

    @property
    def is_over(self) -> bool:
        """Whether no connection can be expected any more."""
        return self._thread is None or not (self._reconnect or self.failure is None)

    @property
    def why(self) -> str:
        """Why there is no connection, in words."""
        if self._thread is None:
            return "connect was not called"
        return str(self.failure or f"{self._brokers} did not answer in time")

    def forbid_callback(self) -> None:
        """Raise RuntimeError in a callback: the thread that reads would wait for itself."""
        connection = self.connection
        if connection is not None and connection.is_read_here:
            raise RuntimeError("a callback of a transport must not call the transport")

    @property
    def _brokers(self) -> str:
        return ", ".join(f"{host}:{port}" for host, port in self._hosts)

    def _keep(self, stop: threading.Event) -> None:
        attempts = 0
        lost_at: float | None = None
        while not stop.is_set():
            started = time.monotonic()
            delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempts, 16))
            attempts += 1
            connection = self._open(stop)
            if connection is not None:
                if lost_at is not None:
                    logger.info("connected to %s again, after %.1f s", connection.broker, started - lost_at)
                self._use(connection, stop)
                lost_at = time.monotonic()
                if not self._reconnect:
                    return
                if connection.useful or lost_at - started > _STABLE_AFTER:
                    attempts, delay = 0, _FIRST_DELAY
            elif lost_at is None and isinstance(self.failure, BrokerRefused):
                return
            elif lost_at is not None:
                level = logging.WARNING if delay >= _WORTH_SAYING else logging.DEBUG
                logger.log(level, "no connection for %.0f s: %s", started - lost_at, self.failure)
            stop.wait(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads clients, keeps no secret

    def _open(self, stop: threading.Event) -> C | None:
        """Return a connection to the first broker that lets us in."""
        failures: list[TransportError] = []
        for host, port in self._hosts:
            try:
                return self._connect(host, port)
            except TransportError as error:
                failures.append(error)
        refused = any(isinstance(error, BrokerRefused) for error in failures)
        text = "; ".join(map(str, failures))
        with self.changed:
            if not stop.is_set():
                self.failure = BrokerRefused(text) if refused else Disconnected(text)
                self.changed.notify_all()
        return None

    def _use(self, connection: C, stop: threading.Event) -> None:
        """Make `connection` the one in use, and read from it until it ends."""
        with self.changed:
            if stop.is_set():
                connection.close("nobody waits for it")
            else:
                self.connection = connection
                self.failure = None
                self._on_up(connection)
                self.changed.notify_all()
        connection.run()
        with self.changed:
            if self.connection is not connection:
                return
            self.connection = None
            self.number += 1
            self.failure = Disconnected(connection.reason)
            self._on_down()
            self.changed.notify_all()
        if not stop.is_set():
            again = "; connecting again" if self._reconnect else ""
            logger.warning("lost the connection to the broker: %s%s", connection.reason, again)
