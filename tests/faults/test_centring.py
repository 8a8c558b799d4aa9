"""X-ray centring on a broker: grids that cannot be reported, scans that wait, runs that meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from centring import QUEUE, come_to_centring, grid_info
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Message, Send
from parvis.transport.embedded.settings import Settings
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.analyse.xray_centring import XRayCentring
from running import Listener, connected, hosted, recipe_message

COUNTS = {7: [0, 8, 0, 0, 4, 0], 8: [0, 6, 0, 0, 0, 0]}
IMAGES = 6
GRID = grid_info(3, 2)


@pytest.fixture
def results(transport: StompTransport) -> Listener:
    return Listener(transport, "results")


@pytest.fixture
def letters(transport: StompTransport) -> Listener:
    return Listener(transport, f"DLQ.test.{QUEUE}")


def scan(
    dcid: int, counts: Sequence[int], recipe_id: str = "", grid: dict[str, Any] = GRID, **parameters: Any
) -> list[Send]:
    """The messages of a grid scan, run by a recipe of its own."""
    sends: list[Send] = []
    for number, spots in enumerate(counts, start=1):
        payload = {"file-number": number, "n_spots_total": spots}
        send = recipe_message(QUEUE, payload, gridinfo=grid, parameters={"dcid": dcid, **parameters})
        content = orjson.loads(send.body) | {"environment": {"ID": recipe_id or f"run of {dcid}"}}
        sends.append(Send(send.destination, dump_json(content), send.headers))
    return sends


def known_images(letter: Message) -> list[int]:
    return sorted(orjson.loads(letter.body)["payload"]["xray-centring-status"]["images"])


@pytest.mark.parametrize("output", ["{ispyb_results_directory}/centre.json", "relative/centre.json"])
def test_a_grid_that_cannot_be_reported_is_one_dead_letter_that_holds_it_all(
    broker: BrokerThread, transport: StompTransport, results: Listener, letters: Listener, output: str
) -> None:
    bad, good = scan(1, COUNTS[7], output=output), scan(2, COUNTS[8])
    with hosted(broker.port, XRayCentring):
        transport.send(*[send for pair in zip(bad, good, strict=True) for send in pair])
        (letter,) = letters.wait_for(1)
        results.wait_for(1)
        assert output in letter.headers["parvis-reason"]
        assert known_images(letter) == list(range(IMAGES))
        # Beside the images only what is put together, each time a batch closes: one message for each grid.
        assert come_to_centring(broker) <= 2 * IMAGES + 4
        transport.send(*scan(3, COUNTS[7]))
        assert len(results.wait_for(2)) == 2
    assert len(letters.messages) == 1


def test_a_dead_letter_put_back_after_its_recipe_is_corrected_gives_the_result(
    broker: BrokerThread, transport: StompTransport, results: Listener, letters: Listener, tmp_path: Path
) -> None:
    with hosted(broker.port, XRayCentring):
        transport.send(*scan(1, COUNTS[7], output="{unfilled}.json"))
        (letter,) = letters.wait_for(1)
        body = letter.body.replace(b"{unfilled}", str(tmp_path / "centre").encode())
        transport.send(Send(QUEUE, body, {"workflows-recipe": "True"}))
        results.wait_for(1)
    assert orjson.loads((tmp_path / "centre.json").read_bytes())["best_image"] == 2


def test_scans_that_do_not_fit_each_other_are_two_dead_letters(
    broker: BrokerThread, transport: StompTransport, letters: Listener
) -> None:
    wide = grid_info(6, 1)
    first = scan(7, COUNTS[7], experiment_type="Mesh3D", dcg_dcids=[8])
    second = scan(8, COUNTS[8], experiment_type="Mesh3D", dcg_dcids=[7], grid=wide)
    with hosted(broker.port, XRayCentring):
        transport.send(*first, *second)
        for letter in letters.wait_for(2):
            assert "same number of columns" in letter.headers["parvis-reason"]
            assert known_images(letter) == list(range(IMAGES))
        assert come_to_centring(broker) == 2 * IMAGES + 2


@pytest.mark.parametrize(("known_to_7", "known_to_8"), [([], [7]), ([8], []), ([8], [7])])
@pytest.mark.parametrize("order", [(7, 8), (8, 7)])
def test_two_scans_find_each_other_if_either_knows_the_other(
    broker: BrokerThread,
    transport: StompTransport,
    results: Listener,
    known_to_7: list[int],
    known_to_8: list[int],
    order: tuple[int, int],
) -> None:
    partners = {7: known_to_7, 8: known_to_8}
    with hosted(broker.port, XRayCentring):
        for dcid in order:
            transport.send(*scan(dcid, COUNTS[dcid], experiment_type="Mesh3D", dcg_dcids=partners[dcid]))
        results.wait_for(1)
    (result,) = results.payloads()
    assert result["type"] == "3d"
    assert result["results"][0]["max_voxel"] == [1, 0, 0]


def test_two_scans_that_are_both_reported_do_not_wait_for_the_end_of_a_batch(
    broker: BrokerThread, transport: StompTransport, results: Listener
) -> None:
    sends: list[Send] = []
    for dcid in (7, 8):
        status = {
            "images": list(range(IMAGES)),
            "counts": COUNTS[dcid],
            "last-arrival": 1e9,
            "reported": True,
        }
        parameters = {"dcid": dcid, "dcg_dcids": [15 - dcid]}
        payload = {"xray-centring-status": status}
        sends.append(recipe_message(QUEUE, payload, gridinfo=GRID, parameters=parameters))
    with hosted(broker.port, XRayCentring):
        transport.send(*sends)
        results.wait_for(1)  # much sooner than the 60 s for which a batch is open
    assert [result["type"] for result in results.payloads()] == ["3d"]


def test_a_scan_that_waits_goes_round_only_with_other_batches(
    broker: BrokerThread, transport: StompTransport, results: Listener
) -> None:
    with hosted(broker.port, XRayCentring):
        transport.send(*scan(7, COUNTS[7], experiment_type="Mesh3D"))
        for number in (1, 2):
            transport.send(*scan(100 + number, COUNTS[8]))
            results.wait_for(number)
        # Each of the other scans closes two batches: when it is complete, and when it is reported.
        assert come_to_centring(broker) <= 3 * IMAGES + 2 * 3


def test_two_runs_of_one_data_collection_do_not_mix(
    broker: BrokerThread, transport: StompTransport, results: Listener
) -> None:
    """The one run lacks what only the other has seen, and each counts otherwise."""
    first, second = scan(7, [1, 1, 9, 1, 1, 1], "a"), scan(7, [1, 1, 1, 1, 9, 1], "b")
    with hosted(broker.port, XRayCentring):
        transport.send(*first[:3], *second[3:])
        transport.send(*second[:3])
        assert [result["results"][0]["best_image"] for result in payloads(results, 1)] == [5]
        transport.send(*first[3:])
        assert [result["results"][0]["best_image"] for result in payloads(results, 2)] == [5, 3]


def payloads(listener: Listener, count: int) -> list[Any]:
    listener.wait_for(count)
    return listener.payloads()


def test_a_message_without_a_grid_does_not_spoil_the_grids_of_its_batch(
    broker: BrokerThread, transport: StompTransport, results: Listener, letters: Listener
) -> None:
    images = scan(1, COUNTS[7])
    with hosted(broker.port, XRayCentring):
        transport.send(*images[:5], *scan(2, [4], grid={}), images[5])
        (letter,) = letters.wait_for(1)
        results.wait_for(1)
    assert "data collection 2 has no grid" in letter.headers["parvis-reason"]
    assert come_to_centring(broker) == IMAGES + 2


def test_a_result_with_nowhere_to_go_is_one_dead_letter_that_holds_the_grid(
    broker: BrokerThread, transport: StompTransport, letters: Listener
) -> None:
    sends = [
        Send(send.destination, send.body.replace(b'"results"', b'"no\\nqueue"'), send.headers)
        for send in scan(1, COUNTS[7])
    ]
    with hosted(broker.port, XRayCentring):
        transport.send(*sends)
        (letter,) = letters.wait_for(1)
    assert "cannot name a queue" in letter.headers["parvis-reason"]
    assert known_images(letter) == list(range(IMAGES))


def test_a_result_that_the_broker_refuses_is_one_dead_letter_that_holds_the_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The region that is found has more characters than the counts of all images."""
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    boxes = 400
    sends = scan(1, [1] * boxes, grid=grid_info(20, 20))
    with (
        BrokerThread(port=0, settings=Settings(max_body=3500)) as broker,
        connected(broker.port) as transport,
    ):
        results, letters = Listener(transport, "results"), Listener(transport, f"DLQ.test.{QUEUE}")
        with hosted(broker.port, XRayCentring):
            transport.send(*sends)
            (letter,) = letters.wait_for(1)
            assert "the broker refused" in letter.headers["parvis-reason"]
            assert known_images(letter) == list(range(boxes))
            assert come_to_centring(broker) == boxes + 1
            transport.send(*scan(2, COUNTS[8]))
            results.wait_for(1)
