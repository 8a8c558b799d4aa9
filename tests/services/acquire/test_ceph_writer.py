"""What becomes of a detector's images in the store, whatever the detector does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from detector_writer import SHAPE, Detector, Recipe, Site, content
from parvis.config import ConfigError
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.series_header import load_header, load_mask
from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.events import Bytes, Event, Frame, Header, SeriesEnd, SeriesStart
from parvis_services.stream.ring_writer import RingWriter
from running import Listener
from waiting import wait_until

MEGABYTE = 1 << 20


@pytest.fixture
def detector() -> Iterator[Detector]:
    made = Detector()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, broker: BrokerThread, detector: Detector) -> Site:
    return Site(tmp_path, broker.port, detector.address)


def figure(writer: CephWriter, name: str) -> float:
    return next(one.value for one in writer.figures() if one.name == name)


def wait_for_figure(writer: CephWriter, name: str, value: float) -> None:
    wait_until(lambda: figure(writer, name) >= value, 20, f"{name} {value}")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_series_is_stored_as_it_was_sent(
    version: Literal["v1", "v2"], tmp_path: Path, broker: BrokerThread
) -> None:
    detector = Detector(version)
    site = Site(tmp_path, broker.port, detector.address)
    with site.writer():
        detector.start(17, 20, mask=True)
        detector.images(range(1, 21))
        detector.end()
        place = site.place(17)
        manifest = site.manifest(place)
    assert site.stored(place) == {number: content(number) for number in range(1, 21)}
    header = load_header(site.store.get(place.bucket, place.header).data)
    assert (header.shape, header.images) == ((8, 8), 20)
    mask = site.store.get(place.bucket, place.mask)
    assert np.array_equal(load_mask(mask.data, mask.info.metadata), np.eye(8))
    image = site.store.stat(place.bucket, place.frame(3)).metadata
    assert (image["shape"], image["dtype"], image["encoding"], image["frame"]) == (
        "8,8",
        "uint16",
        "none",
        "3",
    )
    assert (manifest.expected, manifest.received, manifest.stored, manifest.bytes) == (20, 20, 20, 20 * 128)
    assert (manifest.missing, manifest.dropped, manifest.duplicates) == ([], [], 0)
    assert (manifest.ended, manifest.told) == ("end message", [(1, 20)])
    assert manifest.first_seen is not None
    assert manifest.last_seen is not None
    assert manifest.first_seen <= manifest.last_seen
    detector.close()


def test_what_the_detector_does_wrong_stands_in_the_manifest(site: Site, detector: Detector) -> None:
    with site.writer() as writer:
        detector.start(17, 12)
        detector.images([1, 2, 2, 4, 4, 5])
        for nonsense in ([b"\xff\xfe"], [b"{"], [b""], [b"\x9f" * 5000], [b"x"] * 100):
            detector.send(nonsense)
        detector.images([7, 8, 9, 10])
        detector.end()
        detector.end()
        manifest = site.manifest(site.place(17))
        assert writer.doing() in {"idle", "receiving"}
    assert manifest.missing == [(3, 3), (6, 6), (11, 12)]
    assert (manifest.received, manifest.stored, manifest.duplicates, manifest.garbage) == (8, 8, 2, 5)
    assert manifest.dropped == []


def test_a_series_without_an_end_is_over_when_nothing_comes(
    tmp_path: Path, broker: BrokerThread, detector: Detector
) -> None:
    site = Site(tmp_path, broker.port, detector.address, series_timeout=0.6)
    with site.writer():
        detector.start(17, 5)
        detector.images([1, 2, 3])
        manifest = site.manifest(site.place(17))
        assert (manifest.ended, manifest.missing) == ("time-out", [(4, 5)])
        detector.images([4, 5])  # the detector had only waited
        wait_until(lambda: site.manifest(site.place(17)).stored == 5, 20, "a new manifest")
    assert site.manifest(site.place(17)).missing == []


def test_the_next_series_ends_the_one_before(site: Site, detector: Detector) -> None:
    with site.writer():
        detector.start(17, 5)
        detector.images([1, 2])
        detector.start(18, 1, series=2, unique_id="second")
        detector.image(1, series=2, unique_id="second")
        detector.end(series=2, unique_id="second")
        assert site.manifest(site.place(17)).ended == "next series"
        assert site.manifest(site.place(18, 2)).stored == 1


def test_a_detector_that_was_switched_off_and_counts_again(site: Site, detector: Detector) -> None:
    with site.writer():
        for unique_id in ("first", "second"):
            detector.start(17, 2, unique_id=unique_id)
            detector.images([1] if unique_id == "first" else [1, 2], unique_id=unique_id)
            detector.end(unique_id=unique_id)
            site.manifest(site.place(17, repeat=1 if unique_id == "first" else 2))
    assert sorted(site.stored(site.place(17))) == [1]
    assert sorted(site.stored(site.place(17, repeat=2))) == [1, 2]
    assert site.manifest(site.place(17, repeat=2)).unique_id == "second"


def test_what_somebody_else_has_stored_is_left_alone(site: Site, detector: Detector) -> None:
    place = site.place(17)
    with site.writer():
        detector.start(17, 1)
        detector.image(1)
        detector.end()
        site.manifest(place)
    before = site.store.get(place.bucket, place.header).info
    for journal in site.journals.iterdir():  # as on another machine
        journal.unlink()
    with site.writer():
        detector.start(17, 1, unique_id="second")
        detector.image(1, unique_id="second")
        detector.end(unique_id="second")
        assert site.manifest(site.place(17, repeat=2)).unique_id == "second"
    assert site.store.get(place.bucket, place.header).info == before


@pytest.mark.parametrize("dcid", [None, "cyclops", 0])
def test_a_series_of_no_data_collection_is_counted_and_not_stored(
    dcid: object, site: Site, detector: Detector
) -> None:
    with site.writer() as writer:
        detector.start(dcid, 2)
        detector.images([1, 2])
        detector.end()
        detector.start(17, 1, series=2, unique_id="second")
        detector.image(1, series=2, unique_id="second")
        detector.end(series=2, unique_id="second")
        site.manifest(site.place(17, 2))
        assert (figure(writer, "frames_unknown"), figure(writer, "frames_received")) == (2, 3)
    assert [path.name for path in (site.objects / "images").iterdir()] == ["17"]


def test_a_writer_that_comes_too_late_waits_for_the_next_series(site: Site, detector: Detector) -> None:
    with site.writer() as writer:
        detector.images([5, 6])
        detector.end()
        wait_for_figure(writer, "frames_unknown", 2)
        detector.start(17, 1, series=2, unique_id="second")
        detector.image(1, series=2, unique_id="second")
        detector.end(series=2, unique_id="second")
        assert site.manifest(site.place(17, 2)).stored == 1


def test_the_layout_of_the_prototype(tmp_path: Path, broker: BrokerThread, detector: Detector) -> None:
    site = Site(tmp_path, broker.port, detector.address, layout="prototype")
    with site.writer():
        for number, unique_id in enumerate(("first", "second"), 1):
            detector.start(17, 2, series=number, unique_id=unique_id)
            detector.images([1, 2], series=number, unique_id=unique_id)
            detector.end(series=number, unique_id=unique_id)
            site.manifest(SeriesPlace("prototype", "", "", 17, 0, number))
    assert sorted(site.stored(SeriesPlace("prototype", "", "", 17, 0))) == [1, 2]
    objects = ["000001", "000002", "header", "manifest", "mask"]
    assert [one.key for one in site.store.list_all("17")] == objects
    assert [one.key for one in site.store.list_all("17-2")] == objects


def test_a_store_that_is_away_costs_what_does_not_fit_into_memory_and_the_detector_no_time(
    site: Site, detector: Detector
) -> None:
    away = site.objects.with_name("away")
    with site.writer() as writer:
        detector.start(17, 40)
        detector.image(1, size=MEGABYTE)
        wait_for_figure(writer, "frames_stored", 1)
        site.objects.rename(away)
        detector.images(range(2, 41), size=MEGABYTE)
        detector.end()
        wait_for_figure(writer, "frames_received", 40)
        assert writer.doing() == "error"
        assert 15 * MEGABYTE <= figure(writer, "held_bytes") <= 16_000_000
        assert figure(writer, "oldest_frame_seconds") > 0
        away.rename(site.objects)
        manifest = site.manifest(site.place(17))
        assert figure(writer, "held_bytes") == 0
    assert detector.refused == 0
    assert (manifest.received, manifest.stored) == (40, 40 - count_in(manifest.dropped))
    assert manifest.missing == manifest.dropped
    assert manifest.dropped[-1][1] == 40
    assert sorted(site.stored(site.place(17)))[:15] == list(range(1, 16))


def count_in(ranges: list[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def test_a_writer_that_is_to_block_loses_nothing(
    tmp_path: Path, broker: BrokerThread, detector: Detector
) -> None:
    site = Site(tmp_path, broker.port, detector.address, when_slow="block")
    away = site.objects.with_name("away")
    with site.writer() as writer:
        detector.start(17, 40)
        detector.image(1, size=MEGABYTE)
        wait_for_figure(writer, "frames_stored", 1)
        site.objects.rename(away)
        detector.images(range(2, 41), size=MEGABYTE)
        detector.end()
        wait_until(lambda: figure(writer, "held_bytes") >= 15 * MEGABYTE, 20, "a full memory")
        away.rename(site.objects)
        manifest = site.manifest(site.place(17))
    assert (manifest.stored, manifest.missing, manifest.dropped) == (40, [], [])


def test_a_writer_goes_on_where_the_one_before_was_told_to_stop(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    recipe = Recipe(transport, 17)
    with site.writer():
        detector.start(17, 20, mask=True)
        detector.images(range(1, 11))
        recipe.wait_for(10)
    assert not list(site.store.list_all("images", site.place(17).manifest))
    with site.writer():
        detector.images(range(11, 21))
        detector.end()
        assert recipe.end()["success"] is True
    assert sorted(recipe.numbers()) == list(range(1, 21))
    assert site.manifest(site.place(17)).stored == 20


def test_what_was_stored_when_a_writer_was_killed_and_what_was_not(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer() as writer:
        detector.start(17, 5)
        detector.images([1, 2, 3])
        wait_for_figure(writer, "frames_stored", 3)
    (journal,) = site.journals.glob("*.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    # As if it had been killed before it could note that 2 is stored, with 4 in memory, in mid-line.
    kept = [line for line in lines if not line.startswith(b'["stored",2,')]
    journal.write_bytes(b"".join(kept) + b'["received",4,1.0]\n["recei')
    with site.writer():
        recipe = Recipe(transport, 17)
        detector.image(5)
        detector.end()
        over = recipe.end()
    assert sorted(recipe.numbers()) == [1, 2, 3, 5]
    assert (over["missing"], over["told"]) == ([[4, 4]], [[1, 3], [5, 5]])
    assert site.manifest(site.place(17)).missing == [(4, 4)]


def test_an_image_that_was_lost_may_come_again(site: Site, detector: Detector) -> None:
    with site.writer() as writer:
        detector.start(17, 2)
        detector.image(1)
        wait_for_figure(writer, "frames_stored", 1)
    (journal,) = site.journals.glob("*.journal")
    with journal.open("ab") as file:
        file.write(b'["received",2,1.0]\n')
    with site.writer() as writer:
        wait_until(lambda: b'["lost",2]' in journal.read_bytes(), 20, "the writer to miss it")
        detector.images([2, 2])
        detector.end()
        manifest = site.manifest(site.place(17))
        assert figure(writer, "frames_again") == 1
    assert (manifest.stored, manifest.missing, manifest.duplicates) == (2, [], 1)


@pytest.mark.parametrize("unique_id", [None, "first"])
def test_a_ring_gives_back_what_a_killed_writer_had_in_memory(
    unique_id: str | None, tmp_path: Path, broker: BrokerThread, transport: StompTransport
) -> None:
    name = f"test-{os.getpid()}"
    site = Site(tmp_path, broker.port, f"ring://{name}")
    ring = RingWriter(name, 64, 4096)

    def message(event: Event) -> list[Bytes]:
        return [stream_v2.encode(event)] if unique_id else stream_v1.encode(event)

    start = SeriesStart(1, unique_id, Header(SHAPE, "uint16", images=6), appendix={"dcid": 17})
    ring.write(message(start), keep=True)

    def write(*numbers: int) -> None:
        for number in numbers:
            data = memoryview(content(number))
            frame = Frame(1, number - 1, data, "none", "uint16", SHAPE, unique_id)
            ring.write(message(frame))

    with site.writer() as writer:
        write(1, 2, 3)
        wait_for_figure(writer, "frames_stored", 3)
    (journal,) = site.journals.glob("*.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(
        b"".join(line for line in lines if b'"stored",2' not in line and b'ed",3' not in line)
    )
    (site.objects / "images/17/1/000003").unlink()
    with site.writer():
        recipe = Recipe(transport, 17)
        write(4, 4, 5, 6)
        ring.write(message(SeriesEnd(1, unique_id)))
        assert recipe.end()["success"] is True
    with site.writer() as writer:  # shown all of it once more
        wait_for_figure(writer, "frames_received", 7)
    ring.close(remove=True)
    assert sorted(recipe.numbers()) == [1, 2, 3, 4, 5, 6]
    manifest = site.manifest(site.place(17))
    assert (manifest.stored, manifest.duplicates, manifest.missing) == (6, 1, [])
    assert sorted(path.name for path in (site.objects / "images" / "17").iterdir()) == ["1"]


def test_only_one_writer_of_a_detector(site: Site) -> None:
    with site.writer():
        second = CephWriter(site.config)
        with pytest.raises(ConfigError, match="only one can"):
            second.start()


def test_recipes_that_the_site_wants_are_asked_for_once(
    tmp_path: Path, broker: BrokerThread, detector: Detector, transport: StompTransport
) -> None:
    site = Site(tmp_path, broker.port, detector.address, recipes=["per-image-analysis-stream", "other"])
    requests = Listener(transport, "processing_recipe")
    with site.writer():
        detector.start(17, 1)
        detector.image(1)
        detector.end()
        requests.wait_for(2)
        site.manifest(site.place(17))
    with site.writer() as writer:
        detector.start(None, 1, series=2, unique_id="second")
        detector.image(1, series=2, unique_id="second")
        wait_for_figure(writer, "frames_received", 1)
    bodies = [message.body for message in requests.messages]
    assert bodies == [
        b'{"recipes":["per-image-analysis-stream"],"parameters":{"ispyb_dcid":17}}',
        b'{"recipes":["other"],"parameters":{"ispyb_dcid":17}}',
    ]
