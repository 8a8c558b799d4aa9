"""The writer of a detector's images on a real object store, with the right to put alone and a bad network."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from detector_writer import BUCKET, Detector, Sending, Site, attach, content, hear, queue_of
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.number_ranges import NumberRanges
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from real.ceph import USERS, Ceph
from running import Listener, process_of
from tcp_proxy import TcpProxy
from waiting import wait_until

SIZE = 64 * 1024
DCID = 17

pytestmark = pytest.mark.real("ceph")


def pause(seconds: float) -> None:
    due = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= due, seconds + 5, "the moment")


def test_a_network_that_is_cut_slow_and_away_and_a_writer_that_is_killed(
    ceph: Ceph, broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    manager = open_store("ceph", "manage", {"parvis.stores": {"ceph": ceph.profile()}})
    assert isinstance(manager, S3Store)
    manager.make_bucket(BUCKET)
    manager.set_policy(BUCKET, bucket_policy(BUCKET, [USERS["read"]], [USERS["write"]]))
    proxy, detector = TcpProxy(ceph.port), Detector(gives_up=True)
    login = {"access_key": ceph.keys["write"][0], "secret_key": ceph.keys["write"][1]}
    profile = {"endpoint": f"http://127.0.0.1:{proxy.port}", "write": login}
    site = Site(tmp_path, broker.port, detector.address, profile=profile, series_timeout=60, memory=256)
    environment = {"ZOCALO_CONFIG": str(site.file)}
    transport.send(attach(DCID, ["every", "finally"], aloud=True))
    over = Listener(transport, queue_of("recipe-1", "finally"))
    told = hear(transport, "recipe-1")
    sending = Sending(detector, DCID, 10_000, rate=60, size=SIZE)
    for life in ("killed", "stays"):
        with process_of(CephWriter, broker.port, environment) as writer:
            if life == "killed":
                sending.start()
            troubles = (proxy.cut, lambda: proxy.slow(400_000), proxy.refuse)
            for trouble in (*troubles, proxy.stall) if life == "stays" else troubles:
                before = len(told)
                wait_until(lambda before=before: len(told) > before + 10, 30, "images")
                trouble()
                pause(0.3)
                proxy.slow(None)
                proxy.refuse(False)
            if life == "killed":
                writer.send_signal(signal.SIGKILL)
                continue
            sending.is_over.set()
            sending.join()
            detector.end()
            over.wait_for(1, 60)
    place = site.place(DCID)
    keys = [one.key for one in manager.list_all(BUCKET, place.frames_prefix)]
    stored = {number for key in keys if (number := place.number_of(key)) is not None}
    ranges = NumberRanges((number, number) for number in told).ranges()
    (end,) = over.payloads()
    assert [number for number, times in Counter(told).items() if times > 1] == []
    assert [tuple(one) for one in end["told"]] == ranges
    # Of what was on its way when it was killed, a writer that may not look does not know whether it arrived.
    unknown = stored - set(told)
    assert set(told) <= stored
    assert len(unknown) <= 4
    assert end["dropped"] == []
    assert len(stored) > 80
    number = max(stored)
    assert manager.get(BUCKET, place.frame(number)).data == content(number, SIZE)
    detector.close()
    proxy.close()
    manager.close()
