"""The pickup: sends the requests that `parvis go` stored while the broker was away."""

from __future__ import annotations

import threading
import time
from typing import ClassVar, Final, NoReturn

from parvis.config import Config, ConfigError
from parvis.recipe.problem import printable
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Anything
from parvis.steer.drop_files import (
    PAUSE,
    SETTLED_AFTER,
    Broken,
    Request,
    in_order,
    is_settled,
    read_all,
    send_all,
    stored_files,
)
from parvis.transport.base import Transport, TransportError

SETTLE: Final = "parvis.pickup.settle"
LOOK_EVERY: Final = "parvis.pickup.interval"

_LOOK_EVERY: Final = 5.0
_STOP_TIMEOUT: Final = 30.0


class Pickup(Service[Anything, Anything]):
    """Sends the requests that were stored in drop files while the broker was away, the present experiment
    first.

    It looks into `zocalo.go.fallback_location` every `parvis.pickup.interval` (5 s) while there is a broker,
    and sends what nobody has written to for `parvis.pickup.settle` (60 s), with 2 s in between. Broken files
    are set aside in `broken/`. It has a connection of its own for that, and takes no messages.
    """

    name: ClassVar[str] = "Pickup"
    queue: ClassVar[str] = "pickup"
    plain_messages: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._directory = config.fallback_location
        self._settle = _seconds(config, SETTLE, SETTLED_AFTER)
        self._interval = _seconds(config, LOOK_EVERY, _LOOK_EVERY)
        self._stopping = threading.Event()
        self._transport: Transport | None = None
        self._thread: threading.Thread | None = None
        self._problem = ""

    def start(self) -> None:
        """Begin to look, with a connection of our own."""
        self._transport = self.config.transport()
        self._transport.connect()
        self._thread = threading.Thread(target=self._run, args=[self._transport], name="pickup", daemon=True)
        self._thread.start()
        self.log.info("sending what is stored in %s", self._directory)

    def stop(self) -> None:
        """Leave when the request in hand is sent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)
        if self._transport is not None:
            self._transport.disconnect()

    def process(self, payload: Anything, step: Step[Anything]) -> NoReturn:  # noqa: ARG002
        """Take no messages: requests come as files."""
        raise Reject("the pickup takes no messages; it sends what is stored in files")

    def _run(self, transport: Transport) -> None:
        while not self._stopping.wait(self._interval):
            if not transport.is_connected:
                continue
            try:
                self._look(transport)
            except TransportError as error:
                self.log.warning("what is stored stays for now: %s", error)
            except OSError as error:
                self._complain(f"{self._directory} cannot be used: {error.strerror}")
            except Exception:
                self.log.exception("what is stored stays for now")
            else:
                self._problem = ""

    def _look(self, transport: Transport) -> None:
        now = time.time()
        files = [file for file in stored_files(self._directory) if is_settled(file, self._settle, now)]
        requests = in_order(read_all(files, self._broken))
        send_all(
            transport,
            requests,
            pause=PAUSE,
            begins=lambda _: None,
            done=self._sent,
            broken=self._broken,
            failed=self._failed,
            ended=self._stopping.wait,
        )

    def _sent(self, request: Request) -> None:
        names = ", ".join(printable(name) for name in request.recipes[:5]) or "no recipe by name"
        self.log.info("sent %s from host %s with %s", request.file.name, printable(request.host), names)

    def _broken(self, broken: Broken) -> None:
        self.log.error("%s is set aside: %s", printable(str(broken.file), 300), printable(broken.reason, 300))

    def _failed(self, request: Request, reason: str) -> None:
        self._complain(f"{request.file} stays for now: {reason}")

    def _complain(self, problem: str) -> None:
        """Say what is wrong, once as long as it is the same."""
        if problem != self._problem:
            self._problem = problem
            self.log.error("%s", printable(problem, 500))


def _seconds(config: Config, key: str, default: float) -> float:
    value = config.storage.get(key, default)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise ConfigError(f"{key} must be a number of seconds, it is {str(value)[:20]!r}")
    return seconds
