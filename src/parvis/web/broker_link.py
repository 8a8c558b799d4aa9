"""The web page's own connection to the broker: status cards as they come, figures of queues now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from parvis.config import Config
from parvis.observe.cards import CardBoard
from parvis.observe.dead_letter_search import Listing, find
from parvis.observe.queue_figures import QueueHistory, QueueSource, QueueTraffic, open_queue_source
from parvis.service.status import TOPIC
from parvis.transport.base import Transport, TransportError

log = logging.getLogger("parvis.web")

_LOOK_EVERY = 5.0
_MOST_LETTERS = 200
_PATIENCE = 2.0
_TRY_AGAIN = 5.0


class NotConnected(TransportError):
    """There is no connection to the broker just now."""


class BrokerLink:
    """Hears who is there, and looks at the queues, on threads of its own; waits for a broker that is away.

    Attributes:
        board: The cards of those who are there.
    """

    def __init__(self, config: Config) -> None:
        self.board = CardBoard()
        self._config = config
        self._transport: Transport = config.transport()
        self._is_subscribed = False
        self._traffic: Sequence[QueueTraffic] | None = None
        self._problem: str | None = None
        self._source: QueueSource | None = None
        self._source_lock = threading.Lock()
        self._letters: Listing | None = None
        self._letters_until = 0.0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"web-{what}", daemon=True)
            for what, run in (("cards", self._connect), ("queues", self._look))
        ]

    @property
    def where(self) -> str:
        """Address of the broker and the namespace, for people."""
        return f"{self._config.broker_hosts} {self._transport.namespace}".strip()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._is_subscribed and self._transport.is_connected

    @property
    def transport(self) -> Transport:
        """The connection.

        Raises:
            NotConnected: There is none now.
        """
        if not self.is_connected:
            raise NotConnected(f"the broker at {self._config.broker_hosts} cannot be reached just now")
        return self._transport

    @property
    def traffic(self) -> Sequence[QueueTraffic] | None:
        """What goes on in the queues; None if that is not known (yet)."""
        return self._traffic

    @property
    def problem(self) -> str | None:
        """Why nothing is known of the queues, or nothing new."""
        return self._problem

    def dead_letters(self) -> Listing:
        """Return the dead letters as of a moment ago; they stay where they are.

        Raises:
            TransportError: The broker does not answer, or shows nobody what is in its queues.
        """
        with self._source_lock:
            began = time.monotonic()
            if self._letters is None or began >= self._letters_until:
                self._letters = find(self._source_of_figures(), most=_MOST_LETTERS)
                now = time.monotonic()
                # What takes the broker long is not asked for as often.
                self._letters_until = now + max(_LOOK_EVERY, 20 * (now - began))
            return self._letters

    def look_again(self) -> None:
        """Have the next look at dead letters be a fresh one."""
        with self._source_lock:
            self._letters_until = 0.0

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave the broker."""
        self._stopped.set()
        if self._is_subscribed:
            self._transport.disconnect()
        for thread in self._threads:
            thread.join(timeout=_PATIENCE)

    def _connect(self) -> None:
        while not self._stopped.is_set():
            try:
                self._transport.connect(timeout=_PATIENCE)
                self._transport.subscribe_broadcast(TOPIC, self.board.take)
            except TransportError as error:
                log.warning("no connection to the broker yet: %s", error)
                self._stopped.wait(_TRY_AGAIN)
            else:
                self._is_subscribed = True
                return

    def _look(self) -> None:
        history = QueueHistory()
        while not self._stopped.is_set():
            try:
                with self._source_lock:
                    figures = self._source_of_figures().figures()
                self._traffic = history.take(figures)
                self._problem = None
            except TransportError as error:
                if self._problem is None:
                    log.warning("no figures of queues: %s", error)
                self._problem = str(error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                if self._problem != problem:
                    log.exception("no figures of queues")
                self._problem = problem
            self._stopped.wait(_LOOK_EVERY)
        with self._source_lock:
            if self._source is not None:
                self._source.close()

    def _source_of_figures(self) -> QueueSource:
        if self._source is None:
            self._source = open_queue_source(self._config)
        return self._source
