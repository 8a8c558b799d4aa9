"""Starts the recipes that a site wants for every data collection of a detector, where nobody else does."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
from hashlib import blake2b
from typing import Final

from parvis.config import Config
from parvis.recipe.envelope import dump_json
from parvis.service.identity import FIRST_SEEN, IDENTITY
from parvis.transport.base import Send, Transport, TransportError
from parvis_services.acquire.series_record import SeriesRecord
from parvis_services.acquire.stream_to_store import StreamToStore

_QUEUE: Final = "processing_recipe"
_AGAIN: Final = 2.0
_STOP_TIMEOUT: Final = 5.0


class RecipeStarter:
    """A thread with a connection of its own that asks for recipes, as `parvis go` does.

    Each request has an identity that follows from series and recipe: a dispatcher that gets it twice, after
    this process was killed, starts it once.

    Args:
        config: Where the broker is.
        writer: Whose series they are started for.
        log: Where to say so.
    """

    def __init__(self, config: Config, writer: StreamToStore, log: logging.Logger) -> None:
        self._writer = writer
        self.log = log
        self._stopping = threading.Event()
        self._transport = config.transport()
        self._thread = threading.Thread(target=self._run, name="recipe-starter", daemon=True)

    def start(self) -> None:
        """Begin. Raises TransportError if there is no broker."""
        self._transport.connect()
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._writer.news.tell()
        self._thread.join(_STOP_TIMEOUT)
        self._transport.disconnect()

    def _run(self) -> None:
        news = self._writer.news
        while not self._stopping.is_set():
            seen = news.count
            try:
                for record in self._writer.shelf.in_memory():
                    self._start_for(self._transport, record)
            except (TransportError, OSError) as error:
                self.log.warning("recipes wait to be started: %s", error)
                self._stopping.wait(_AGAIN)
            else:
                news.wait(seen, _AGAIN)

    def _start_for(self, transport: Transport, record: SeriesRecord) -> None:
        for recipe in record.facts.recipes:
            if recipe not in record.started_recipes:
                transport.send(_request(record, recipe))
                record.start_recipe(recipe)
                self.log.info("asked for recipe %s for data collection %d", recipe, record.dcid)


def _request(record: SeriesRecord, recipe: str) -> Send:
    content = {"recipes": [recipe], "parameters": {"ispyb_dcid": record.dcid}}
    identity = blake2b(f"{record.name} {recipe}".encode(), digest_size=16).hexdigest()
    headers = {
        "zocalo.go.user": _user(),
        "zocalo.go.host": socket.gethostname(),
        IDENTITY: identity,
        FIRST_SEEN: str(time.time_ns() // 1_000_000),
    }
    return Send(_QUEUE, dump_json(content), headers)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run us as a number without a name
        return str(os.getuid())
