"""What GDA hears by UDP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from parvis.service.testing import run
from parvis_services.deliver.notify_gda import NotifyGDA

RESULT = {
    "file": "/data/a.cbf",
    "file-number": 3,
    "n_spots_total": 1373,
    "n_spots_no_ice": 1219,
    "estimated_d_min": 1.65,
    "total_intensity": 1330934.0,
}


@pytest.fixture
def gda() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        yield listener


def notify(payload: dict[str, Any], listener: socket.socket, **parameters: Any) -> str:
    port = listener.getsockname()[1]
    outcome = run(
        NotifyGDA, payload, parameters={"dcid": 42, "host": "127.0.0.1", "port": port} | parameters
    ).outcome
    assert outcome.result == "done", outcome
    return listener.recv(1000).decode("latin-1")


def test_a_datagram_tells_of_one_image(gda: socket.socket) -> None:
    assert notify(RESULT, gda) == "PIA:42:3:1373:1219:1.65:1330934.0"


def test_the_number_in_the_file_name_counts_more_than_that_in_the_collection(gda: socket.socket) -> None:
    assert notify(RESULT | {"file-pattern-index": 17}, gda).split(":")[2] == "17"


def test_the_host_may_be_the_placeholder_for_nobody(gda: socket.socket) -> None:
    parameters = {"dcid": 42, "host": "mx-control", "port": gda.getsockname()[1]}
    assert run(NotifyGDA, RESULT, parameters=parameters).outcome.result == "done"


@pytest.mark.parametrize(
    ("payload", "parameters", "complaint"),
    [
        (RESULT, {"host": "{gda_host}"}, "placeholder"),
        (RESULT, {"port": "{gda_port}"}, "port '{gda_port}'"),
        (RESULT, {"port": 70000}, "port 70000"),
        ({"n_spots_total": 3}, {}, "file-number"),
        ({"file-number": 3}, {}, "n_spots_total"),
    ],
)
def test_bad_input_is_rejected_with_what_is_wrong(
    payload: dict[str, Any], parameters: dict[str, Any], complaint: str
) -> None:
    outcome = run(
        NotifyGDA, payload, parameters={"dcid": 42, "host": "127.0.0.1", "port": 9} | parameters
    ).outcome
    assert outcome.result == "reject"
    assert complaint in outcome.reason


def test_a_host_that_nobody_knows_is_tried_again_later() -> None:
    parameters = {"dcid": 42, "host": "no-such-host.invalid", "port": 9}
    outcome = run(NotifyGDA, RESULT, parameters=parameters).outcome
    assert outcome.result == "retry"
    assert "no-such-host.invalid" in outcome.reason
