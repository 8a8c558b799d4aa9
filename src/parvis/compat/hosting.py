"""Run services written for `workflows` as ours are: one process, one connection, nothing lost by a mistake.

Their own loop runs, on a transport that is ours; what their front end does, this host does: the status
broadcast, commands, logs, and the end in good order.
"""

# `workflows` says of little what type it has, and what a service may use of it has names with underscores.
# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from parvis.compat.stand_in import stand_in
from parvis.compat.transport import ParvisTransport
from parvis.config import Config, ConfigError
from parvis.observe.endpoints import start_endpoints
from parvis.observe.hop_recorder import reported
from parvis.observe.hops import reports_hops
from parvis.observe.liveness_settings import liveness_settings
from parvis.observe.logs import log_context, set_up_logging
from parvis.service import commands
from parvis.service.failure import REASON, TRACEBACK
from parvis.service.handling import Outcome
from parvis.service.host import Host
from parvis.service.identity import IDENTITY, identity_of
from parvis.service.observer import Handled, Observer
from parvis.service.observers import default_observers
from parvis.service.settling import CRASHES, count, settle
from parvis.service.status import Status
from parvis.service.supervisor import is_orphan
from parvis.transport.base import Message, Send, Transport, own_headers

if TYPE_CHECKING:
    from parvis.compat.foreign import ForeignService

_log = logging.getLogger("parvis.host")
_MOST_SUSPICIONS: Final = 4  # a redelivered message may be innocent, and here it is handled in this process
_MOST_REMEMBERED: Final = 10_000
_SHUTDOWN: Final = {"band": "command", "payload": "shutdown"}
_ARE_YOU_THERE: Final = {"band": "command", "payload": "liveness_check"}


class ForeignServiceFailed(Exception):
    """A foreign service has ended by a mistake of its own."""


class ForeignHost(Host):
    """Runs a service derived from `CommonService` in this process until told to stop.

    What its callbacks raise costs the message, not the process: it is tried again, then set aside with the
    traceback. A message that is redelivered, because a process may have died of it, is counted before it is
    handled, and set aside when that has happened again and again.

    Args:
        transport: Connection to the broker, not yet connected.
        service: The class.
        config: The configuration. `zocalo` activates its own plugins and those of others from the same file.
        tag: A word shown on the status card.
    """

    def __init__(
        self, transport: Transport, service: ForeignService, config: Config, *, tag: str | None = None
    ) -> None:
        self._foreign = service(environment={"config": foreign_configuration(config), "live": False})
        self._stand_in = stand_in(self._foreign.get_name(), service.__name__)
        self._pipe = _Pipe(self.stop)
        self._asked: float | None = None  # when the service was asked whether it is there, if it has not said
        super().__init__(transport, [self._stand_in], tag=tag, observers=_observers(config))
        self._reports_hops = reports_hops(config)
        self._begun: dict[str, float] = {}  # when the service was given each message that is not settled
        self._debug = config.verbosity > 0
        self._failed = False

    def last_turn(self) -> float | None:
        """As `Host.last_turn`: asks the service, which answers when its loop comes round."""
        asked = self._asked
        if asked is None:
            asked = self._asked = time.monotonic()
            self._pipe.put(_ARE_YOU_THERE)
        return None if self._turned is None else max(self._turned, asked)

    def stop(self) -> None:
        """As `Host.stop`."""
        super().stop()
        self._pipe.put(_SHUTDOWN)

    def _subscribe(self) -> None:
        self._transport.subscribe_broadcast(commands.TOPIC, self._on_command)

    def _loop(self) -> None:
        if self._stopping:
            return
        service, transport = self._foreign, ParvisTransport(transport=self._transport)
        transport.name = service.get_name()
        heard = _LastWarning()
        transport.reason = lambda: heard.text
        if self._reports_hops:
            transport.reported = self._reported
        transport.around = lambda message, call: self._watch(transport, heard, message, call)
        service.transport = transport
        service.initialize_logging = self._initialise_logging
        service.extend_log = _extend_log
        register_idle = service._register_idle

        def register_guarded(seconds: float, call: Callable[[], None]) -> None:
            register_idle(seconds, self._guarded(transport, call))

        service._register_idle = register_guarded
        service.connect(frontend=self, commands=self._pipe)
        self.last_turn()
        service.start()
        if self._failed:
            raise ForeignServiceFailed(f"{service.get_name()} has ended by an error of its own: see the log")

    def send(self, told: dict[str, Any]) -> None:
        """Take what the service tells its front end."""
        match told.get("band"):
            case "status_update":
                self._status.set(Status(told["statuscode"]))
                self._failed = self._failed or told["statuscode"] == Status.ERROR
            case "set_name":
                self._status.rename(str(told["name"]))
            case "liveness_check":
                self._turned, self._asked = time.monotonic(), None
            case "request_termination":
                self.stop()
            case _:
                _log.debug("the service says %s", told)

    def _initialise_logging(self) -> None:
        """Give the service its logger; where logs go is our set-up's concern, not the service's."""
        service = self._foreign
        service.log = logging.getLogger(service._logger_name)
        service.log.setLevel(logging.DEBUG if self._debug else service.log_verbosity)

    def _watch(
        self,
        transport: ParvisTransport,
        heard: _LastWarning,
        message: Message | None,
        call: Callable[[], None],
    ) -> None:
        """Have a message handled, and settle it if that goes wrong."""
        if message is None:
            self._guarded(transport, call)()
            return
        if message.redelivered:
            self._suspect(transport, message)
            return
        self._begun[message.message_id] = time.monotonic()
        while len(self._begun) > _MOST_REMEMBERED:
            del self._begun[next(iter(self._begun))]
        with heard:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever a service raises costs the message
                self._charge(transport, message, error)

    def _reported(self, messages: Sequence[Message], sends: Sequence[Send]) -> Sequence[Send]:
        """Report what the service has handled; what it sends because of several counts for the last."""
        handled: list[tuple[Handled, Sequence[Send]]] = []
        for message in messages:
            seconds = time.monotonic() - self._begun.pop(message.message_id, time.monotonic())
            own = sends if message is messages[-1] else ()
            handled.append((Handled(self._stand_in, message, _outcome_of(message, own), seconds), own))
        return reported(handled) if handled else sends

    def _suspect(self, transport: ParvisTransport, message: Message) -> None:
        so_far = count(message, CRASHES)
        if so_far >= _MOST_SUSPICIONS:
            reason = "the process that handled it died, or was stopped, again and again"
            transport.settle(
                message, settle(self._transport, self._stand_in, message, Outcome("crash", reason=reason))
            )
            return
        headers = own_headers(message.headers) | {CRASHES: str(so_far + 1)}
        again = Send(message.destination, message.body, headers)
        transport.settle(message, [again])

    def _charge(self, transport: ParvisTransport, message: Message, error: Exception) -> None:
        transport.abandon_transactions()
        if not transport.is_waiting(message):
            _log.error("%s failed after it had settled its message", transport.name, exc_info=error)
            return
        trace = "".join(traceback.format_exception(error))
        outcome = Outcome("fail", reason=f"{type(error).__name__}: {error}", trace=trace)
        with _recipe_of(error):
            transport.settle(message, settle(self._transport, self._stand_in, message, outcome))

    def _guarded(self, transport: ParvisTransport, call: Callable[[], None]) -> Callable[[], None]:
        """What a service does when it is idle, or with what needs no acknowledgement, must not end it."""

        def guarded() -> None:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever a service raises
                transport.abandon_transactions()
                _log.exception("%s failed", transport.name)

        return guarded


def _observers(config: Config) -> list[Observer]:
    """Those that need not be told of messages, of which this host does not tell."""
    liveness = liveness_settings(config)
    return default_observers(Config()) + ([start_endpoints(liveness)] if liveness is not None else [])


def _outcome_of(message: Message, sends: Sequence[Send]) -> Outcome:
    """What came of a message, by what is sent: itself once more, or as a dead letter, or anything else."""
    identity = identity_of(message)
    own = next((send for send in sends if send.headers.get(IDENTITY) == identity), None)
    if own is None:
        return Outcome("done")
    result = "crash" if CRASHES in own.headers else "fail"
    return Outcome(result, reason=own.headers.get(REASON, ""), trace=own.headers.get(TRACEBACK, ""))


class _Pipe:
    """The end of a pipe by which a service hears commands."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._commands: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._next: list[dict[str, Any]] = []

    def put(self, command: dict[str, Any]) -> None:
        """Give a command; a signal handler may do that."""
        self._commands.put(command)

    def poll(self, timeout: float) -> bool:
        """Whether there is a command within `timeout` seconds."""
        if is_orphan():
            self._stop()
        if not self._next:
            with contextlib.suppress(Empty):
                self._next.append(self._commands.get(timeout=timeout))
        return bool(self._next)

    def recv(self) -> dict[str, Any]:
        """The command."""
        return self._next.pop()


class _LastWarning(logging.Handler):
    """Within its context, keeps the last warning or error of this thread: mostly why a message is refused."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._thread = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.name.partition(".")[0] != "parvis":
            self.text = record.getMessage()

    def __enter__(self) -> None:
        self.text = ""
        self._thread = threading.get_ident()
        logging.getLogger().addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        self.text = ""


@contextlib.contextmanager
def _extend_log(field: str, value: Any) -> Generator[None]:
    """Put a field on log records, and on what is raised, as `CommonService.extend_log`."""
    try:
        with log_context(**{field: value}):
            yield
    except Exception as error:
        setattr(error, f"workflows_log_{field}", value)
        raise


def _recipe_of(error: Exception) -> contextlib.AbstractContextManager[None]:
    recipe_id = getattr(error, "workflows_log_recipe_ID", None)
    return log_context(recipe_ID=recipe_id) if recipe_id else contextlib.nullcontext()


def foreign_configuration(config: Config) -> Any:
    """Return the configuration object of `zocalo`, its plugins activated; None if zocalo is not installed.

    Plugins of zocalo that set logging up do it beside ours, so ours is set up once more.

    Raises:
        ConfigError: zocalo or one of its plugins does not accept the file.
    """
    try:
        import zocalo.configuration
    except ImportError:
        return None
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        read: Any = (
            zocalo.configuration.from_file(config.path)
            if config.path
            else zocalo.configuration.Configuration({})
        )
        read.activate(config.environments)
    except Exception as error:
        raise ConfigError(f"{config.path}: zocalo says {type(error).__name__}: {error}") from error
    if read.storage is not None:
        read.storage.update(config.storage)
    root.handlers = before
    set_up_logging(config)
    return read
