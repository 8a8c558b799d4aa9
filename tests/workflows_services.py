"""Services, a wrapper and a configuration plugin written for `workflows` and `zocalo` alone.

They know nothing of Parvis and do as their manuals show.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import workflows.recipe
from workflows.services.common_service import CommonService
from zocalo.wrapper import BaseWrapper

from waiting import wait_until


class Doubler(CommonService):
    """Doubles a number; refuses what is none."""

    _service_name = "The Doubler"
    _logger_name = "site.doubler"

    def initializing(self) -> None:
        workflows.recipe.wrap_subscribe(
            self._transport, "site.double", self.double, acknowledgement=True, log_extender=self.extend_log
        )

    def double(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
        transport: Any = self._transport
        if not isinstance(message, dict) or not isinstance(message.get("number"), int):
            self.log.error("what came is no number: %r", message)
            transport.nack(header)
            return
        transaction = transport.transaction_begin(subscription_id=header["subscription"])
        transport.ack(header, transaction=transaction)
        wrapper.environment["doubled"] = True
        wrapper.send({"number": 2 * message["number"]}, transaction=transaction)
        transport.transaction_commit(transaction)
        self.log.info("doubled %d", message["number"])


class Patient(CommonService):
    """Sends itself three checkpoints with a delay, then the number of them on."""

    _service_name = "Patient"

    def initializing(self) -> None:
        workflows.recipe.wrap_subscribe(self._transport, "site.patient", self.wait, acknowledgement=True)

    def wait(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
        transport: Any = self._transport
        looked = message.get("looked", 0)
        transaction = transport.transaction_begin(subscription_id=header["subscription"])
        transport.ack(header, transaction=transaction)
        if looked < 3:
            wrapper.checkpoint({**message, "looked": looked + 1}, delay=0.2, transaction=transaction)
        else:
            wrapper.set_default_channel("done")
            wrapper.send_to("done", message, transaction=transaction)
        transport.transaction_commit(transaction)


class Dawdler(CommonService):
    """Waits for a file in the middle of a message."""

    _service_name = "Dawdler"

    def initializing(self) -> None:
        workflows.recipe.wrap_subscribe(self._transport, "site.dawdle", self.wait, acknowledgement=True)

    def wait(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:  # noqa: ARG002
        transport: Any = self._transport
        Path(message["started"]).touch()
        wait_until(Path(message["go-on"]).exists, 30, "the file to go on by")
        transport.ack(header)


class Fragile(CommonService):
    """Sends, and then raises, dies or waits for a file, as the message asks."""

    _service_name = "Fragile"
    _logger_name = "site.fragile"

    def initializing(self) -> None:
        workflows.recipe.wrap_subscribe(
            self._transport, "site.fragile", self.handle, acknowledgement=True, log_extender=self.extend_log
        )
        transport: Any = self._transport
        transport.subscribe_broadcast("site.news", self.hear)
        transport.subscribe("site.plain", self.hear)

    def hear(self, header: dict[str, Any], message: Any) -> None:
        self.log.info("heard %s", header["subscription"])
        raise KeyError(message)

    def in_shutdown(self) -> None:
        self._set_name("Broken")
        self.log.info("the last words of %s", self.get_name())

    def handle(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
        transport: Any = self._transport
        transaction = transport.transaction_begin(subscription_id=header["subscription"])
        transport.ack(header, transaction=transaction)
        wrapper.send(message, transaction=transaction)
        if message.get("wait"):
            self.log.info("waiting for %s", message["wait"])
            wait_until(Path(message["wait"]).exists, 20, "the file")
        if message.get("raise"):
            raise ZeroDivisionError("as was asked for")
        if message.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        transport.transaction_commit(transaction)


class Collector(CommonService):
    """Keeps messages back and acknowledges them, the last one first, when five are there or nothing comes."""

    _service_name = "Collector"
    _logger_name = "site.collector"
    kept: ClassVar[list[Any]] = []

    def initializing(self) -> None:
        self.log.info("the configuration says %s", self.config.greeting)
        self._register_idle(0.5, self.flush)
        workflows.recipe.wrap_subscribe(
            self._transport, "site.collect", self.keep, acknowledgement=True, prefetch_count=50
        )

    def keep(self, wrapper: Any, header: dict[str, Any], message: Any) -> None:
        self.kept.append((wrapper, header, message))
        self.log.info("keeping %r", message)
        if len(self.kept) == 5:
            self.flush()

    def flush(self) -> None:
        transport: Any = self._transport
        while self.kept:
            wrapper, header, message = self.kept.pop()
            transaction = transport.transaction_begin(subscription_id=header["subscription"])
            transport.ack(header, transaction=transaction)
            wrapper.send(message, transaction=transaction)
            transport.transaction_commit(transaction)


class QuickWrapper(BaseWrapper):
    """A job that is done at once."""

    def run(self) -> bool:
        self.update("half")
        return not self.recwrap.payload.get("fail")


class Greeting:
    """A configuration plugin."""

    @staticmethod
    def activate(configuration: dict[str, Any]) -> str:
        return configuration["word"].upper()
