"""Simulated services that tell what they do, for what watches them."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Generator

from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send
from parvis.transport.stomp import StompTransport

NAMES = ("Dispatcher", "FileWatcher", "PerImageAnalysis", "XRayCentring", "ISPyBPIA", "NotifyGDA", "Mailer")
PERIOD = 6.0


@contextlib.contextmanager
def simulated(port: int, count: int) -> Generator[list[int]]:
    """Have services tell what they do; yields a list with the number of cards that were sent."""
    transport = StompTransport([("127.0.0.1", port)], "", "", "bench")
    transport.connect()
    stop, sent = threading.Event(), [0]
    rate = count / PERIOD + count / 3

    def tell() -> None:
        due, number = time.monotonic(), 0
        while not stop.is_set():
            for _ in range(max(1, round(rate / 10))):
                number = (number + 1) % count
                transport.post(_topic("transient.status", _card(number)))
                sent[0] += 1
            if random.random() < 0.5:
                transport.post(_topic("transient.log", _record(random.randrange(count))))
            due += max(1, round(rate / 10)) / rate
            stop.wait(max(0.0, due - time.monotonic()))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield sent
    finally:
        stop.set()
        teller.join()
        transport.disconnect()


def _topic(name: str, content: dict[str, object]) -> Send:
    return Send(name, dump_json(content), kind="topic", persistent=False)


def _host(number: int) -> str:
    return f"uk.site.vm{number % 23:02d}.{4000 + number}"


def _card(number: int) -> dict[str, object]:
    busy, now = random.random(), time.time()
    last = [
        [now - 3 * past, "0f1e2d3c-0000-1111-2222-333344445555", "3", "done", 0.043, ""] for past in range(5)
    ]
    return {
        "host": _host(number),
        "service": NAMES[number % len(NAMES)],
        "serviceclass": NAMES[number % len(NAMES)],
        "status": random.choice((2, 4)),
        "utilization": {"2": 1 - busy, "4": busy},
        "workflows": "3.3",
        "parvis": "0.1.0",
        "mem-uss": round(20 + 60 * random.random(), 1),
        "parvis-recipe": f"{random.getrandbits(32):08x}-1111-2222-3333-444455556666",
        "parvis-recent": {"handled": number * 100, "errors": {}, "last": last},
    }


def _record(number: int) -> dict[str, object]:
    return {
        "time": time.time(),
        "level": "INFO",
        "service": NAMES[number % len(NAMES)],
        "host": _host(number),
        "message": "found 17 spots in /data/x_00017.cbf",
    }
