"""Handle messages in a child process, so that a message that kills its process costs only that child.

The host does this with messages that were being handled when a process died. Parent and child exchange one
JSON object a line: messages one way, outcomes the other.
"""

from __future__ import annotations

import base64
import ctypes
import importlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import IO, Any

import orjson

from parvis.config import Config, ConfigError
from parvis.observe.logs import set_up_logging
from parvis.service.base import AnyService, BatchService
from parvis.service.handling import Batch, Outcome, handle, handle_batch, limit_of, read, too_long
from parvis.service.time_limit import grace
from parvis.transport.base import Message, Send

_READY = b"ready\n"
_IDLE = 30.0  # seconds without work after which the child is ended
_START_AGAIN = 5.0  # seconds until a message is tried again whose child could not start
_MEMORY_KEY = "parvis.isolated_memory"
_MEGABYTE = 1_000_000
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl


class IsolatedService:
    """A child process that holds a service of the same class and handles messages for it.

    It is started when the first message comes, and again after it died. Only a death while it handles
    something is charged to a message. Its memory is bounded, and for messages with a limit its time.

    Raises:
        ConfigError: `parvis.isolated_memory` is no number of megabytes.
    """

    def __init__(self, service: AnyService) -> None:
        self._service = service
        self._megabytes = _memory_of(service)
        self._took_too_long = False
        self._child: subprocess.Popen[bytes] | None = None
        self._used = 0.0

    def handle(self, messages: Sequence[Message]) -> list[Outcome]:
        """Handle messages, a batch if there are several; the outcome is `crash` if the child dies of them.

        If the child dies of a batch, each message is handled on its own to find the one at fault.
        """
        if not self._is_ready():
            reason = f"it could not be handled in a process of its own: {self._obituary()}"
            return [Outcome("retry", reason=reason, after=_START_AGAIN) for _ in messages]
        outcomes = self._ask(messages)
        self._used = time.monotonic()
        if outcomes is not None:
            return outcomes
        took_too_long, self._took_too_long = self._took_too_long, False
        reason = self._obituary()
        self._service.log.error("handling a redelivered message: %s", reason)
        if len(messages) == 1 and took_too_long:
            limit = limit_of(self._service, messages[0])
            return [Outcome("timeout", reason=f"{too_long(limit or 0)}, and could not be interrupted")]
        if len(messages) == 1:
            return [Outcome("crash", reason=reason)]
        return [self.handle([message])[0] for message in messages]

    def close_if_idle(self) -> None:
        """End the child if it has had nothing to do for a while."""
        if self._child is not None and time.monotonic() - self._used > _IDLE:
            self.close()

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is None:
            return
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _is_ready(self) -> bool:
        """Start a child if there is none that lives; return whether it is ready."""
        if self._child is not None and self._child.poll() is None:
            return True
        if self._child is not None:
            self.close()
        self._child = self._start()
        return self._pipes()[1].readline() == _READY

    def _start(self) -> subprocess.Popen[bytes]:
        service = type(self._service)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "parvis.service.isolated",
                f"{service.__module__}:{service.__qualname__}",
                str(self._megabytes),
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | self._service.config.to_environment(),
        )

    def _ask(self, messages: Sequence[Message]) -> list[Outcome] | None:
        stdin, stdout = self._pipes()
        try:
            stdin.write(orjson.dumps([_message_to_json(message) for message in messages]) + b"\n")
            stdin.flush()
            if not select.select([stdout], [], [], self._patience(messages))[0]:
                self._took_too_long = True
                self._kill()
            answer = stdout.readline()
        except BrokenPipeError:
            return None
        return [_outcome_from_json(outcome) for outcome in orjson.loads(answer)] if answer else None

    def _patience(self, messages: Sequence[Message]) -> float | None:
        """Seconds to wait for the child, which interrupts what takes too long, if that can be interrupted."""
        limits = [limit for message in messages if (limit := limit_of(self._service, message))]
        if not limits:
            return None
        # A batch that takes too long is handled again one by one.
        tries = 1 if len(messages) == 1 else 1 + len(messages)
        return tries * max(limits) + grace(max(limits))

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._child is not None  # noqa: S101 - it has been started
        assert self._child.stdin is not None  # noqa: S101 - it is a pipe
        assert self._child.stdout is not None  # noqa: S101
        return self._child.stdin, self._child.stdout

    def _obituary(self) -> str:
        child, self._child = self._child, None
        assert child is not None  # noqa: S101 - it was asked
        code = child.wait()
        if code >= 0:
            return f"the process for it ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"the process for it died of {name}"


def main(arguments: Sequence[str]) -> int:
    """Be the child: handle what comes on standard input until it ends.

    Args:
        arguments: The service as `module:class`, megabytes of memory to have, number of the parent process.
    """
    place, megabytes, parent = arguments
    _die_with(int(parent))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the service prints must not look like an answer
    for number in (signal.SIGINT, signal.SIGTERM):
        # What ends a whole group of processes is for the host, which tells us.
        signal.signal(number, signal.SIG_IGN)
    _limit_memory(int(megabytes) * _MEGABYTE)
    config = Config.load()
    set_up_logging(config)
    service = _load(place)(config)
    service.start()
    answers.write(_READY)
    for line in sys.stdin.buffer:
        messages = [_message_from_json(message) for message in orjson.loads(line)]
        outcomes = [_explained(outcome, int(megabytes)) for outcome in _handle(service, messages)]
        answers.write(orjson.dumps([_outcome_to_json(outcome) for outcome in outcomes]) + b"\n")
    service.stop()
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel kill us when our parent is gone, so that what hangs stays behind nowhere."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the host is gone")


def _limit_memory(size: int) -> None:
    """Let this process have `size` bytes of memory of its own; files that it maps do not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _memory_of(service: AnyService) -> int:
    """Megabytes that a child for a service may have."""
    configured = service.config.storage.get(_MEMORY_KEY)
    if configured is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEGABYTE
        return service.isolated_memory or machine // 2
    if isinstance(configured, bool) or not isinstance(configured, int) or configured < 1:
        raise ConfigError(f"{_MEMORY_KEY} must be a number of megabytes, it is {str(configured)[:40]!r}")
    return configured


def _explained(outcome: Outcome, megabytes: int) -> Outcome:
    if outcome.result != "fail" or not outcome.reason.startswith("MemoryError"):
        return outcome
    return replace(outcome, reason=f"{outcome.reason}: the process for it may have {megabytes} MB")


def _handle(service: AnyService, messages: Sequence[Message]) -> list[Outcome]:
    # Whoever takes too long and cannot be interrupted is killed by the parent.
    if len(messages) == 1 or not isinstance(service, BatchService):
        return [handle(service, message, hard=False) for message in messages]
    batch = Batch(list(messages), [read(service, message) for message in messages])
    return handle_batch(service, batch, hard=False)


def _load(place: str) -> type[AnyService]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _message_to_json(message: Message) -> dict[str, Any]:
    return asdict(message) | {
        "body": base64.b64encode(message.body).decode(),
        "headers": dict(message.headers),
    }


def _message_from_json(value: dict[str, Any]) -> Message:
    fields: dict[str, Any] = {**value, "body": base64.b64decode(value["body"])}
    return Message(**fields)


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    sends = [
        asdict(send) | {"body": base64.b64encode(send.body).decode(), "headers": dict(send.headers)}
        for send in outcome.sends
    ]
    return asdict(outcome) | {"sends": sends}


def _outcome_from_json(value: dict[str, Any]) -> Outcome:
    fields: dict[str, Any] = {**value, "sends": [_send_from_json(send) for send in value["sends"]]}
    return Outcome(**fields)


def _send_from_json(value: dict[str, Any]) -> Send:
    fields: dict[str, Any] = {**value, "body": base64.b64decode(value["body"])}
    return Send(**fields)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
