"""A grid scan larger than any window of unacknowledged messages, with the centring killed in the middle."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import orjson

from centring import QUEUE, come_to_centring, grid_info
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.analyse.xray_centring import XRayCentring
from running import Listener, connected, process_of, recipe_message
from waiting import wait_until

COLUMNS, ROWS = 80, 60
CENTRE = (50, 20)
GRID = grid_info(COLUMNS, ROWS)


def spots(number: int) -> int:
    row, column = divmod(number - 1, COLUMNS)
    return 100 if abs(column - CENTRE[0]) <= 2 and abs(row - CENTRE[1]) <= 2 else 1


def result_message(number: int, output: Path) -> Any:
    payload = {"file-number": number, "n_spots_total": spots(number)}
    parameters = {"dcid": 1, "output": str(output)}
    return recipe_message(QUEUE, payload, gridinfo=GRID, parameters=parameters)


def send_all(transport: StompTransport, numbers: list[int], output: Path) -> None:
    for start in range(0, len(numbers), 500):
        transport.send(*[result_message(number, output) for number in numbers[start : start + 500]])


def test_a_grid_larger_than_the_window_with_instances_killed(broker: BrokerThread, tmp_path: Path) -> None:
    chance = random.Random(7)
    numbers = list(range(1, COLUMNS * ROWS + 1))
    chance.shuffle(numbers)
    assert len(numbers) > 2 * XRayCentring.batch_size
    output = tmp_path / "centre.json"
    with connected(broker.port) as transport:
        results = Listener(transport, "results")
        send_all(transport, numbers[:3500], output)
        for _ in range(3):
            before = come_to_centring(broker)
            with process_of(XRayCentring, broker.port) as instance:
                wait_until(lambda: come_to_centring(broker) > before, 40, "a checkpoint")  # noqa: B023
                os.kill(instance.pid, signal.SIGKILL)
        with process_of(XRayCentring, broker.port):
            send_all(transport, numbers[3500:], output)
            (message,) = results.wait_for(1, timeout=60)
    (result,) = orjson.loads(message.body)["payload"]["results"]
    assert (result["centre_x_box"], result["centre_y_box"]) == (CENTRE[0] + 0.5, CENTRE[1] + 0.5)
    assert result["total_count"] == 25 * 100
    assert orjson.loads(output.read_bytes())["best_image"] == result["best_image"]
