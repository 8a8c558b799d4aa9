"""The writer of a detector's images, killed and hindered: nothing twice, gaps named, no waiting detector."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from detector_writer import Detector, Sending, Site, attach, content, hear, queue_of
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.number_ranges import NumberRanges
from running import Listener, process_of
from waiting import wait_until

DCID = 17
KILLS = 20
MEGABYTE = 1 << 20
MEMORY = 16  # MB


@pytest.fixture
def told(transport: StompTransport) -> list[int]:
    """Numbers of the images that the recipe is told of."""
    return hear(transport, "recipe-1")


def resident(process: subprocess.Popen[bytes]) -> float:
    """Megabytes that a process has in memory."""
    fields = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize() / MEGABYTE


@pytest.mark.timeout(300)
def test_twenty_kills_in_a_series(
    broker: BrokerThread, transport: StompTransport, told: list[int], tmp_path: Path
) -> None:
    chance = random.Random(5)
    detector = Detector(gives_up=True)
    site = Site(tmp_path, broker.port, detector.address, series_timeout=60)
    environment = {"ZOCALO_CONFIG": str(site.file)}
    over = Listener(transport, queue_of("recipe-1", "finally"))
    sending = Sending(detector, DCID, 10**5, rate=200)
    transport.send(attach(DCID, ["every", "finally"], aloud=True))
    for kill in range(KILLS):
        with process_of(CephWriter, broker.port, environment) as writer:
            if not kill:
                sending.start()
            if kill % 4 or not kill:
                before = len(told)
                wait_until(lambda before=before: len(told) > before, 60, f"life {kill} to tell of an image")
            due = time.monotonic() + chance.uniform(0, 0.2 if kill % 4 else 0.6)
            wait_until(lambda due=due: time.monotonic() >= due, 5, "the moment")
            writer.send_signal(signal.SIGKILL)
    with process_of(CephWriter, broker.port, environment):
        before = len(told)
        wait_until(lambda: len(told) > before, 60, "the last life to tell of an image")
        sending.is_over.set()
        sending.join()
        detector.end()
        over.wait_for(1)
    place = site.place(DCID)
    stored = site.stored(place)
    assert stored == {number: content(number) for number in stored}
    twice = [number for number, times in Counter(told).items() if times > 1]
    assert (twice, sorted(told)) == ([], sorted(stored))
    manifest = site.manifest(place)
    assert NumberRanges(manifest.told).ranges() == NumberRanges((one, one) for one in stored).ranges()
    assert list(NumberRanges(manifest.told).gaps(1, 10**5)) == manifest.missing
    assert (manifest.stored, manifest.dropped, manifest.duplicates) == (len(stored), [], 0)
    assert over.payloads()[0]["images-seen"] == len(stored)
    assert len(stored) > 10 * KILLS
    detector.close()


def test_a_full_store_and_a_detector_that_does_not_wait(
    broker: BrokerThread, transport: StompTransport, told: list[int], tmp_path: Path
) -> None:
    detector = Detector()
    site = Site(tmp_path, broker.port, detector.address, memory=MEMORY)
    with process_of(CephWriter, broker.port, {"ZOCALO_CONFIG": str(site.file)}) as writer:
        transport.send(attach(DCID, ["every", "finally"], aloud=True))
        over = Listener(transport, queue_of("recipe-1", "finally"))
        sending = Sending(detector, DCID, 120, rate=60, size=MEGABYTE)
        sending.start()
        wait_until(lambda: len(told) > 5, 30, "images")
        before = resident(writer)
        _, most = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (MEGABYTE // 2, most))
        wait_until(lambda: sending.sent > 90, 30, "more images than fit into memory")
        during = resident(writer)
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (most, most))
        sending.join()
        detector.end()
        over.wait_for(1)
    assert detector.refused == 0
    assert during - before < 3 * MEMORY  # with what ZeroMQ holds, and what is not given back yet
    place = site.place(DCID)
    manifest, stored = site.manifest(place), site.stored(place)
    assert stored == {number: content(number, MEGABYTE) for number in stored}
    assert sorted(told) == sorted(stored)
    assert manifest.dropped
    assert manifest.dropped == manifest.missing == list(NumberRanges(manifest.told).gaps(1, 120))
    assert over.payloads()[0]["dropped"] == [list(one) for one in manifest.dropped]
    detector.close()


def test_a_writer_that_is_told_to_stop_stores_what_it_has(
    broker: BrokerThread, transport: StompTransport, told: list[int], tmp_path: Path
) -> None:
    detector = Detector()
    site = Site(tmp_path, broker.port, detector.address, drain=5)
    away = site.objects.with_name("away")
    environment = {"ZOCALO_CONFIG": str(site.file)}
    transport.send(attach(DCID, ["every", "finally"], aloud=True))
    over = Listener(transport, queue_of("recipe-1", "finally"))
    with process_of(CephWriter, broker.port, environment) as writer:
        detector.start(DCID, 20)
        detector.image(1)
        wait_until(lambda: told == [1], 30, "the first image")
        site.objects.rename(away)
        detector.images(range(2, 11))
        (journal,) = site.journals.glob("*.journal")
        wait_until(lambda: b'["received",10,' in journal.read_bytes(), 20, "all images")
        writer.terminate()
        away.rename(site.objects)
        assert writer.wait(20) == 0
    assert sorted(site.stored(site.place(DCID))) == list(range(1, 11))
    with process_of(CephWriter, broker.port, environment):
        detector.images(range(11, 21))
        detector.end()
        over.wait_for(1)
    assert sorted(told) == list(range(1, 21))
    assert site.manifest(site.place(DCID)).missing == []
    detector.close()
