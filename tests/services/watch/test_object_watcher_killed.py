"""An object watcher that is killed in mid-watch: every image is told of, and none twice."""

from __future__ import annotations

import signal
from pathlib import Path

import yaml

from parvis.transport.embedded.thread import BrokerThread
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.watch.object_watcher import ObjectWatcher
from running import Listener, connected, process_of, recipe_message

PLACE = SeriesPlace("standard", "i04", "", 1, 1)
COUNT = 190


def store_site(directory: Path) -> tuple[DirectoryStore, dict[str, str]]:
    """A store in a directory, and variables that lead a process to it."""
    (directory / "store").mkdir()
    file = directory / "zocalo.yml"
    stores = {"plugin": "storage", "parvis.stores": {"ram": {"directory": str(directory / "store")}}}
    file.write_text(yaml.safe_dump({"version": 1, "stores": stores, "environments": {"default": ["stores"]}}))
    return DirectoryStore("ram", directory / "store"), {"ZOCALO_CONFIG": str(file)}


def test_every_image_is_told_of_once(broker: BrokerThread, tmp_path: Path) -> None:
    store, environment = store_site(tmp_path)
    store.make_bucket(PLACE.bucket)

    def put(*numbers: int) -> None:
        for number in numbers:
            store.put(PLACE.bucket, PLACE.frame(number), b"image")

    parameters = {"objects": "dir://ram/i04/1/1", "pattern-end": COUNT, "burst-limit": 4}
    with connected(broker.port) as transport:
        heard = Listener(transport, "results")
        put(*range(2, 121, 2))
        with process_of(ObjectWatcher, broker.port, environment) as watcher:
            transport.send(
                recipe_message(
                    "objectwatcher", None, {"every": 2, "last": 2, "finally": 2}, parameters=parameters
                )
            )
            heard.wait_for(20)
            watcher.send_signal(signal.SIGKILL)
            watcher.wait()
        put(*range(1, 120, 2), *range(121, COUNT + 1))
        with process_of(ObjectWatcher, broker.port, environment):
            heard.wait_for(COUNT + 2)
        *images, end = heard.payloads()
    assert sorted(image["file-number"] for image in images) == [*range(1, COUNT + 1), COUNT]
    assert end["success"] is True
