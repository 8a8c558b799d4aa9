"""Pins of the series that recipes are with, on a real object store that a writer may only put into."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from detector_writer import BUCKET, Detector, Recipe, Site
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.series_pins import LEASE
from parvis_services.stores.expiry import EXPIRY, rules_of, sweep
from parvis_services.stores.pins import pins_of
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from real.ceph import USERS, Ceph
from stored_series import HOUR
from tcp_proxy import Direction, TcpProxy
from waiting import wait_until

DCID = 18

pytestmark = pytest.mark.real("ceph")


def test_a_store_that_hangs_over_a_pin_holds_up_nothing_else(
    ceph: Ceph, broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    manager = open_store("ceph", "manage", {"parvis.stores": {"ceph": ceph.profile()}})
    assert isinstance(manager, S3Store)
    manager.make_bucket(BUCKET)
    manager.set_policy(BUCKET, bucket_policy(BUCKET, [USERS["read"]], [USERS["write"]]))
    proxy, detector = TcpProxy(ceph.port), Detector()
    login = {"access_key": ceph.keys["write"][0], "secret_key": ceph.keys["write"][1]}
    profile = {"endpoint": f"http://127.0.0.1:{proxy.port}", "write": login}
    site = Site(tmp_path, broker.port, detector.address, profile=profile)
    place, hangs, goes_on = site.place(DCID), threading.Event(), threading.Event()

    def hang(direction: Direction, data: bytes) -> bytes:
        if direction == "up" and b"/pins/" in data:
            hangs.set()
            goes_on.wait(60)
        return data

    with site.writer():
        recipe = Recipe(transport, DCID, name="one")
        detector.start(DCID, 3)
        detector.image(1)
        wait_until(lambda: any(pins_of(manager, place)), 20, "the first pin")
        proxy.watch = hang
        others = [Recipe(transport, DCID, name=name) for name in ("two", "three")]
        assert hangs.wait(20)
        begun = time.monotonic()
        detector.images([2, 3])
        detector.end()
        for one in (recipe, *others):
            assert one.end()["success"] is True
            assert sorted(one.numbers()) == [1, 2, 3]
        assert time.monotonic() - begun < 9  # what hangs is given up after 10 s
    goes_on.set()
    rule = {"store": "ceph", "bucket": BUCKET, "prefix": str(DCID), "classes": {"default": 1}}
    (rule,) = rules_of({EXPIRY: [rule]})
    now = time.time()
    assert [one.place for one in sweep(manager, rule, [rule], now + 2 * HOUR).pinned] == [place]
    assert [one.place for one in sweep(manager, rule, [rule], now + LEASE + HOUR).deleted] == [place]
    detector.close()
    proxy.close()
    manager.close()
