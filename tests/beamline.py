"""What happens at the other end of `parvis go --wait`: a request is taken, and a job answers."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

from parvis.config import Config, StompSettings
from parvis.recipe.envelope import Envelope
from parvis.recipe.watch import WATCH_PARAMETER, add_watcher
from parvis.transport.base import Message, Send

GRIDSCAN: dict[str, Any] = {
    "1": {
        "queue": "filewatcher",
        "parameters": {"pattern": "/d/x%05d.cbf", "pattern-start": "1", "pattern-end": "3"},
        "output": {"every": 2},
    },
    "2": {"queue": "per_image_analysis", "output": {"result": 3}},
    "3": {"queue": "reduce.xray_centering"},
    "start": [[1, {}]],
}
CENTRE = {
    "status": "success",
    "type": "2d",
    "results": [
        {"centre_x": 420.0, "centre_y": 133.98, "centre_x_box": 5.5, "centre_y_box": 0.5, "best_image": 2}
    ],
}


def image(number: int, spots: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "file": f"/d/x{number:05d}.cbf",
        "file-number": number,
        "n_spots_total": spots,
        "n_spots_no_ice": spots - 10,
        "estimated_d_min": 1.4467,
        "total_intensity": 9198.47,
        **more,
    }


def end(seen: int, expected: int = 3) -> dict[str, Any]:
    return {"files-expected": expected, "files-seen": seen, "success": seen == expected}


WHOLE_JOB = [
    (2, "result", image(2, 286)),
    (2, "result", image(1)),
    (1, "finally", end(3)),
    (2, "result", image(3, 0, estimated_d_min=-1, total_intensity=None)),
    (3, "success", CENTRE),
]


class Beamline:
    """Takes the request as the dispatcher would, and answers in place of the services of the recipe."""

    def __init__(self, stomp: StompSettings) -> None:
        self._transport = Config(stomp=stomp).transport()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def answer(self, recipe: dict[str, Any], outputs: list[tuple[int, str, Any]]) -> None:
        """Start `recipe`, then have its nodes send: (number of the node, output, payload)."""

        def reply(topic: str) -> list[Send]:
            watched = add_watcher(recipe, topic)
            environment = {"ID": "3f2a91c0"}
            sends = list(Envelope(watched, 0, None, environment=environment).start())
            for number, output, payload in outputs:
                sends += Envelope(watched, number, None, [1], environment).onward(output, None, payload)
            return [send for send in sends if send.kind == "topic"]

        self.reply(reply)

    def reply(self, reply: Callable[[str], list[Send]]) -> None:
        """Answer the next request with what `reply` makes of the topic in it."""
        self._transport.connect(timeout=10)
        self._transport.subscribe("processing_recipe", self._inbox.put)

        def serve() -> None:
            request = json.loads(self._inbox.get(timeout=30).body)
            self._transport.send(*reply(request["parameters"][WATCH_PARAMETER]))

        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(30)
        self._transport.disconnect()
