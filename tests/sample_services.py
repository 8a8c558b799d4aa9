"""Services with known habits, for tests of what runs services."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from parvis.config import Config
from parvis.service.base import BatchService, Reject, Retry, Service, Step
from parvis.service.contract import Anything, Model, Outputs
from parvis.transport.base import Send
from waiting import wait_until


class Number(Model):
    """A number."""

    number: int


class FactorParameters(Model):
    """What to multiply by."""

    factor: int = Field(default=2, alias="multiply-by")


class Multiplier(Service[Number, FactorParameters]):
    """Multiplies; has a habit for some numbers."""

    name: ClassVar[str] = "Multiplier"
    queue: ClassVar[str] = "multiply"
    Payload: ClassVar[type[BaseModel]] = Number
    Parameters: ClassVar[type[BaseModel]] = FactorParameters
    outputs: ClassVar[Outputs] = {"result": Number, "again": None}
    default_output: ClassVar[str | None] = "result"
    max_attempts: ClassVar[int] = 2
    max_retries: ClassVar[int] = 3
    prefetch: ClassVar[int] = 10

    def process(self, payload: Number, step: Step[FactorParameters]) -> None:
        match payload.number:
            case 13:
                raise Reject("13 is no good")
            case 14:
                raise Retry("14 is not ready", after=0.01)
            case 15:
                raise ZeroDivisionError("15 is a surprise")
            case 666:
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                step.environment["seen"] = payload.number
                step.send("result", {"number": payload.number * step.parameters.factor})


class Looker(Service[Number, FactorParameters]):
    """Does not finish with a number below `last` before it has been told of a greater one."""

    name: ClassVar[str] = "Looker"
    queue: ClassVar[str] = "look"
    Payload: ClassVar[type[BaseModel]] = Number
    Parameters: ClassVar[type[BaseModel]] = FactorParameters
    outputs: ClassVar[Outputs] = {"result": Number}
    default_output: ClassVar[str | None] = "result"
    prefetch: ClassVar[int] = 2
    max_attempts: ClassVar[int] = 1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.last = 0
        self.told: list[tuple[int, int]] = []
        self.begun: list[int] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def prepare(self, payload: Number, parameters: FactorParameters) -> None:
        self.told.append((payload.number, parameters.factor))
        if payload.number == 4:
            raise ZeroDivisionError("nobody prepares for 4")

    def process(self, payload: Number, step: Step[FactorParameters]) -> None:
        number = payload.number
        self.begun.append(number)
        if number < self.last:
            wait_until(lambda: any(told > number for told, _ in self.told), 20, f"what follows {number}")
        assert self.go_on.wait(20)
        step.send("result", {"number": number})


class Gatherer(BatchService[Number, Anything]):
    """Sends the numbers of a batch together."""

    name: ClassVar[str] = "Gatherer"
    queue: ClassVar[str] = "gather"
    Payload: ClassVar[type[BaseModel]] = Number
    outputs: ClassVar[Outputs] = {"result": None}
    default_output: ClassVar[str | None] = "result"
    batch_size: ClassVar[int] = 5
    batch_wait: ClassVar[float] = 0.2
    max_attempts: ClassVar[int] = 1

    def closes_batch(self, batch: Sequence[tuple[Number, Step[Anything]]]) -> bool:
        return batch[-1][0].number == 99

    def process_batch(self, batch: Sequence[tuple[Number, Step[Anything]]]) -> None:
        numbers = [payload.number for payload, _ in batch]
        if 15 in numbers:
            raise ZeroDivisionError("15 is a surprise")
        batch[-1][1].send("result", {"numbers": numbers})


class Sleeper(Service[Anything, Anything]):
    """Takes its time: waits for a file to appear, and says that it waits by making another."""

    name: ClassVar[str] = "Sleeper"
    queue: ClassVar[str] = "sleep"
    outputs: ClassVar[Outputs] = {"result": None}
    default_output: ClassVar[str | None] = "result"

    def process(self, payload: Any, step: Step[Anything]) -> None:
        extra = payload.model_dump()
        Path(extra["started"]).touch()
        deadline = time.monotonic() + 30
        while not Path(extra["go-on"]).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        step.send("result", {"slept": True})


class SlowStarter(Multiplier):
    """Is not ready before the file is there that the variable `SLOW_STARTER` names."""

    name: ClassVar[str] = "SlowStarter"

    def start(self) -> None:
        wait_until(Path(os.environ["SLOW_STARTER"]).exists, 20, "the file to start by")


class Whereabouts(Sleeper):
    """Takes its time, and says in which process it was."""

    name: ClassVar[str] = "Whereabouts"

    def process(self, payload: Any, step: Step[Anything]) -> None:
        super().process(payload, step)
        step.send("result", {"process": os.getpid()})


class Misspeaker(Multiplier):
    """Multiplies, and wants to send what no transport takes where the number is 17."""

    name: ClassVar[str] = "Misspeaker"

    def process(self, payload: Number, step: Step[FactorParameters]) -> None:
        if payload.number == 17:
            step.send_to_queue(Send("results", b"", {"receipt": "mine"}))
        super().process(payload, step)


class OneByOne(Multiplier):
    """Multiplies, and has each message committed before it begins the next."""

    name: ClassVar[str] = "OneByOne"
    commit_each: ClassVar[bool] = True


class Dawdler(Service[Anything, Anything]):
    """Takes too long, in the way that the payload says."""

    name: ClassVar[str] = "Dawdler"
    queue: ClassVar[str] = "dawdle"
    outputs: ClassVar[Outputs] = {"result": None}
    default_output: ClassVar[str | None] = "result"
    time_limit: ClassVar[float | None] = 0.2
    isolated_memory: ClassVar[int | None] = 400
    max_attempts: ClassVar[int] = 1

    def process(self, payload: Any, step: Step[Anything]) -> None:
        match payload.model_extra["how"]:
            case "asleep":
                time.sleep(60)
            case "deaf to exceptions":
                with contextlib.suppress(Exception):
                    time.sleep(60)
            case "in C":
                hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
            case "greedy":
                bytearray(2_000_000_000)
            case _:
                step.send("result", {"process": os.getpid()})


class DawdlingGatherer(Gatherer):
    """Sends the numbers of a batch together, and takes too long if there is a 17."""

    name: ClassVar[str] = "DawdlingGatherer"
    time_limit: ClassVar[float | None] = 0.2

    def process_batch(self, batch: Sequence[tuple[Number, Step[Anything]]]) -> None:
        if any(payload.number == 17 for payload, _ in batch):
            time.sleep(60)
        super().process_batch(batch)


class Rememberer(Multiplier):
    """Multiplies each message once, however often it comes."""

    name: ClassVar[str] = "Rememberer"
    remember: ClassVar[float] = 600


class RememberingGatherer(Gatherer):
    """Sends the numbers of a batch together, each message once."""

    name: ClassVar[str] = "RememberingGatherer"
    remember: ClassVar[float] = 600


class PatientGatherer(Gatherer):
    """Gathers for a minute, and notes what it has in a file."""

    name: ClassVar[str] = "PatientGatherer"
    batch_wait: ClassVar[float] = 60

    def closes_batch(self, batch: Sequence[tuple[Number, Step[Anything]]]) -> bool:
        Path(os.environ["PARVIS_TEST_NOTE"]).write_text("".join(str(payload.number) for payload, _ in batch))
        return False
