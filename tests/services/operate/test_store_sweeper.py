"""The service that deletes series whose time in their store is over."""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config, ConfigError, StompSettings
from parvis.service.host import Host
from parvis.transport.embedded import BrokerThread
from parvis_services.operate.store_sweeper import SWEEP_EVERY, StoreSweeper
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.expiry import EXPIRY
from parvis_services.stores.profiles import KEY, StoreNotConfigured
from running import NAMESPACE, in_thread
from stored_series import age, directory_store, kept, keys, pinned, put_series
from waiting import wait_until

RULE: dict[str, Any] = {"store": "ram", "bucket": "i04"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return directory_store(root)


def config(root: Path, *rules: dict[str, Any], port: Any = 1, **more: Any) -> Config:
    storage = {KEY: {"ram": {"directory": str(root)}}, EXPIRY: list(rules or [RULE]), SWEEP_EVERY: 0.02}
    stomp = StompSettings("127.0.0.1", port, "", "", NAMESPACE)
    return replace(Config(stomp=stomp), storage=storage | more)


def figures(sweeper: StoreSweeper) -> dict[str, float]:
    return {figure.name: figure.value for figure in sweeper.figures()}


def test_it_sweeps_again_and_again_beside_another_one(
    broker: BrokerThread, store: DirectoryStore, root: Path
) -> None:
    settings = config(root, port=broker.port)
    place = put_series(store, 1)
    pinned(store, place, 10)
    with ExitStack() as stack:
        sweepers = [StoreSweeper(settings), StoreSweeper(settings)]
        for sweeper in sweepers:
            stack.enter_context(in_thread(Host(settings.transport(), [sweeper])))
        for dcid in (2, 3, 4):
            put_series(store, dcid, images=20)
            age(root, 60, "i04", str(dcid))
            wait_until(lambda: kept(store) == [1], 20, "the series to be deleted")
        wait_until(lambda: sum(figures(one)["store_deleted_series"] for one in sweepers) >= 3, 10, "figures")
        age(root, 60, "i04", "1", "1")
        pinned(store, place, 10)
        wait_until(lambda: all(figures(one)["store_pinned_series"] == 1 for one in sweepers), 10, "the pin")
        pinned(store, place, -1)
        wait_until(lambda: keys(store) == [], 10, "the last series to be deleted")


def test_a_store_that_is_too_full_is_told_of_once(
    broker: BrokerThread, store: DirectoryStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "parvis.service")
    put_series(store, 1)
    settings = config(root, {**RULE, "gigabytes": 1e-7}, port=broker.port)  # 100 bytes
    sweeper = StoreSweeper(settings)
    with in_thread(Host(settings.transport(), [sweeper])):
        wait_until(lambda: figures(sweeper)["store_alarms"] == 1, 20, "the alarm")
        first = figures(sweeper)["store_used_percent"]
        assert first > 80
        assert re.match(r"ram: i04 is \d+ % full", sweeper.doing())
        put_series(store, 2)
        wait_until(lambda: figures(sweeper)["store_used_percent"] > first, 20, "another look")
    assert len([one for one in caplog.records if "% full" in one.getMessage()]) == 1


def test_what_cannot_be_swept_now_is_told_of_once_and_swept_later(
    broker: BrokerThread, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "parvis.service")
    settings = config(root, port=broker.port)
    with in_thread(Host(settings.transport(), [StoreSweeper(settings)])):
        wait_until(lambda: "is it mounted?" in caplog.text, 20, "the complaint about the directory")
        store = directory_store(root)
        wait_until(lambda: "there is no such bucket" in caplog.text, 20, "the complaint about the bucket")
        store.make_bucket("i04")
        place = put_series(store, 1)
        store.put("i04", "other", b"")
        age(root, 60)
        wait_until(lambda: keys(store) == ["other"], 20, "the series to be deleted")
        assert place.header not in keys(store)
    assert caplog.text.count("is it mounted?") == 1


@pytest.mark.parametrize("interval", ["often", 0, -1, "nan", 1e6])
def test_an_interval_that_is_no_good(root: Path, interval: object) -> None:
    with pytest.raises(ConfigError, match=SWEEP_EVERY):
        StoreSweeper(config(root, **{SWEEP_EVERY: interval}))


def test_what_there_is_nothing_to_do_for_does_not_start(root: Path) -> None:
    with pytest.raises(ConfigError, match=f"{EXPIRY} of the configuration has no rules"):
        StoreSweeper(config(root, **{EXPIRY: []})).start()
    with pytest.raises(StoreNotConfigured, match="no store 'ceph'"):
        StoreSweeper(config(root, {"store": "ceph", "bucket": "i04"})).start()
