"""Flow control on real brokers: bounds hold, and nothing is left behind."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from parvis.config import Config
from parvis.service.host import Host
from parvis.transport.base import Transport
from parvis.transport.stomp import StompTransport
from parvis_services.watch.file_watcher import FileWatcher
from running import Listener
from scans import ENDED, STORE, Record, Worker, make_images, most_in_flight, quick_directory, scan_message
from waiting import wait_until

LIMIT = 50
IMAGES = 400
CONFIG = Config(storage={"parvis.flow.fan_out": LIMIT})


@pytest.fixture(
    params=[
        pytest.param("activemq", marks=pytest.mark.real("activemq")),
        pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
    ]
)
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """A transport to a broker where a watcher and two workers run."""
    with ExitStack() as stack:
        if request.param == "activemq":
            server = request.getfixturevalue("activemq")
            namespace = f"test-{uuid.uuid4().hex[:8]}"

            def make() -> Transport:
                return StompTransport(
                    [("127.0.0.1", server.port)], server.username, server.password, namespace
                )
        else:
            make = request.getfixturevalue("vhost").transport

        for service in (FileWatcher, Worker, Worker):
            host = Host(make(), [service(CONFIG)])
            thread = threading.Thread(target=host.run, daemon=True)
            thread.start()
            stack.callback(thread.join, timeout=30)
            stack.callback(host.stop)
        transport = make()
        transport.connect()
        stack.callback(transport.disconnect)
        yield transport


def test_bounds_hold_and_every_image_is_handled(transport: Transport) -> None:
    ended, stored = Listener(transport, ENDED), Listener(transport, STORE)
    with quick_directory() as directory:
        record = Record(directory / "record")
        message = scan_message(
            "a", make_images(directory, IMAGES), IMAGES, record, seconds=0.001, away=directory / "never"
        )
        transport.send(message)
        wait_until(lambda: record.count("a") == IMAGES, 60, "all images")
        ended.wait_for(1)
        stored.wait_for(IMAGES)
        assert most_in_flight(record.images("a")) <= LIMIT
    assert ended.payloads() == [{"files-expected": IMAGES, "files-seen": IMAGES, "success": True}]
    assert {"parvis-flow"} <= set(stored.messages[0].headers)
