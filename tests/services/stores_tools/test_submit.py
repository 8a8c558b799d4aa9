"""`parvis store submit`: a stored series is analysed by services, and whoever asked is told all of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parvis.config import Config
from parvis.service.host import Host
from parvis.transport.embedded import BrokerThread
from parvis_services.analyse.per_image_analysis import PerImageAnalysis
from parvis_services.dispatch.dispatcher import Dispatcher
from parvis_services.stores import submit
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.pins import pinned_until
from parvis_services.watch.object_watcher import ObjectWatcher
from running import broker_environment, in_thread
from store_commands import done, found_in, objects, run, without_file
from waiting import wait_until

PLACE = SeriesPlace("standard", "i04", "", 993677, 1)


class TestSubmit:
    URL = "dir://ram/i04/993677/1"
    SERVICES = (Dispatcher, ObjectWatcher, PerImageAnalysis)

    @pytest.fixture(autouse=True)
    def _stored(
        self,
        store: DirectoryStore,  # noqa: ARG002 - it must be configured before anything goes there
        master: Path,
        broker: BrokerThread,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name, value in broker_environment(broker.port).items():
            monkeypatch.setenv(name, value)
        done("ingest", master, 993677, "--bucket", "i04")

    @contextmanager
    def services(self) -> Iterator[None]:
        config = Config.load()
        host = Host(config.transport(), [service(config) for service in self.SERVICES])
        with in_thread(host):
            yield

    def test_each_result_is_that_of_the_file(self, master: Path) -> None:
        with self.services():
            events = objects("submit", self.URL, "--timeout", 60)
            text = done("submit", self.URL)
        assert [event["event"] for event in events if event["event"] != "image"] == [
            *("submitted", "started", "finished", "end")
        ]
        rows = [event["result"] for event in events if event["event"] == "image"]
        assert without_file(sorted(rows, key=lambda row: row["file-number"])) == found_in(master)
        assert events[-1] == {
            "event": "end",
            "success": True,
            "reason": None,
            "images": 4,
            "not_stored": [],
            "expired": [],
            "not_analysed": [],
        }
        spots = sorted(row["n_spots_total"] for row in rows)
        shown = [line.split() for line in text.splitlines() if line.startswith("image ")]
        assert sorted(int(words[2]) for words in shown) == spots

    @pytest.mark.parametrize("ended", [True, False])
    def test_gaps_are_told_of(self, ended: bool, store: DirectoryStore) -> None:
        gone = ["000002", "000004", *([] if ended else ["manifest"])]
        store.delete("i04", [f"993677/1/{name}" for name in gone])
        with self.services():
            result = run("submit", self.URL)
        assert result.exit_code == 1
        assert "2 images analysed." in result.stdout
        assert "Gaps: not stored: 2, 4" in result.stdout

    def test_what_nobody_answers_has_an_end(self) -> None:
        result = run("submit", self.URL, "--timeout", 0.3)
        assert result.exit_code == 1
        assert "is a Dispatcher running?" in result.stderr
        assert "Gaps: stored, and without a result: 1-4" in result.stdout

    def test_what_is_damaged_is_told_of(self, store: DirectoryStore) -> None:
        store.put("i04", "993677/1/000003", b"damaged", replace=True)
        with self.services():
            result = run("submit", self.URL, "--timeout", 60)
        assert result.exit_code == 1
        assert "Gaps: stored, and without a result: 3" in result.stdout
        assert "PerImageAnalysis" in result.stderr

    def test_there_must_be_a_series_and_a_broker(
        self, broker: BrokerThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = run("submit", "dir://ram/i04/5/1")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there are no images" in result.stderr
        broker.stop()
        monkeypatch.setattr(submit, "_PATIENCE", 0.3)
        result = run("submit", self.URL)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Traceback" not in result.stderr


def test_an_image_that_was_deleted_meanwhile_is_no_failure_of_the_services(
    master: Path, broker: BrokerThread, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in broker_environment(broker.port).items():
        monkeypatch.setenv(name, value)
    done("ingest", master, 993677, "--bucket", "i04")
    config = Config.load()
    command = [sys.executable, "-m", "parvis", "store", "submit", TestSubmit.URL, "--timeout", "60"]
    with (
        in_thread(Host(config.transport(), [Dispatcher(config), ObjectWatcher(config)])),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        wait_until(lambda: _announced(broker) == 4, 20, "four images to be announced")
        assert pinned_until(store, PLACE, time.time()) is not None
        store.delete("i04", ["993677/1/000002"])
        with in_thread(Host(config.transport(), [PerImageAnalysis(config)])):
            told, _ = process.communicate(timeout=60)
    assert pinned_until(store, PLACE, time.time()) is None
    assert process.returncode == 1
    assert "3 images analysed." in told
    assert "Gaps: deleted meanwhile: 2" in told


def _announced(broker: BrokerThread) -> int:
    held = [one.enqueued for one in broker.statistics() if one.name.endswith(".per_image_analysis")]
    return sum(held)
