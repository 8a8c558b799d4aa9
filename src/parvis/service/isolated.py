"""Handle messages in a child process, so that a message that kills its process costs only that child.

The host does this with messages that were being handled when a process died. Parent and child exchange one
JSON object a line: messages one way, outcomes the other.
"""

from __future__ import annotations

import base64
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

import orjson

from parvis.config import Config
from parvis.observe.logs import set_up_logging
from parvis.service.base import AnyService, BatchService
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.transport.base import Message, Send

_READY = b"ready\n"
_IDLE = 30.0  # seconds without work after which the child is ended
_START_AGAIN = 5.0  # seconds until a message is tried again whose child could not start


class IsolatedService:
    """A child process that holds a service of the same class and handles messages for it.

    It is started when the first message comes, and again after it died. Only a death while it handles
    something is charged to a message.
    """

    def __init__(self, service: AnyService) -> None:
        self._service = service
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
        reason = self._obituary()
        self._service.log.error("handling a redelivered message: %s", reason)
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
            answer = stdout.readline()
        except BrokenPipeError:
            return None
        return [_outcome_from_json(outcome) for outcome in orjson.loads(answer)] if answer else None

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
    """Be the child: handle what comes on standard input until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the service prints must not look like an answer
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # what ends a whole group of processes is for the host, which tells us
    config = Config.load()
    set_up_logging(config)
    service = _load(arguments[0])(config)
    service.start()
    answers.write(_READY)
    for line in sys.stdin.buffer:
        messages = [_message_from_json(message) for message in orjson.loads(line)]
        outcomes = _handle(service, messages)
        answers.write(orjson.dumps([_outcome_to_json(outcome) for outcome in outcomes]) + b"\n")
    service.stop()
    return 0


def _handle(service: AnyService, messages: Sequence[Message]) -> list[Outcome]:
    if len(messages) == 1 or not isinstance(service, BatchService):
        return [handle(service, message) for message in messages]
    return handle_batch(service, Batch(list(messages), [read(service, message) for message in messages]))


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
