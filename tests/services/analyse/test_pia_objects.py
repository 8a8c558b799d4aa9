"""Per-image analysis of objects in a store: the numbers of files; what is missing, broken or forbidden."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest
import yaml
from click.testing import CliRunner
from numpy.typing import NDArray

from made_nxmx import counts
from parvis.config import Config
from parvis.service.host import Host
from parvis.service.testing import run
from parvis.transport.embedded import BrokerThread
from parvis_services.analyse.command import analyse as analyse_command
from parvis_services.analyse.frame_fetcher import FrameFetcher
from parvis_services.analyse.per_image_analysis import PerImageAnalysis
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.frame_metadata import metadata_of
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from parvis_services.stores.series_header import dump_header, dump_mask
from parvis_services.stores.store import ImageStore
from parvis_services.stream.events import Encoding, Frame, Header, SeriesStart
from parvis_services.xray.analysis import analyse
from parvis_services.xray.parameters import AnalysisParameters
from parvis_services.xray.statistics import ImageAnalysis
from parvis_services.xray.stored_frames import FetchedFrame, StoredFrames
from real.ceph import USERS, Ceph
from running import Listener, connected, in_thread, recipe_message, transport_to
from stored_frames import THAUMATIN, pack, thaumatin, thaumatin_file, thaumatin_mask
from waiting import wait_until

LIMIT = 30
SMALL = dataclasses.replace(
    THAUMATIN, shape=(24, 40), dtype="uint16", beam_centre=(11.0, 20.5), saturation=None
)
PLACE = SeriesPlace("standard", "i04", "mx", 4077358, 7)


class Site:
    """A store, and the configuration that names it."""

    def __init__(self, store: ImageStore, profile: Any) -> None:
        self.store = store
        self.config = Config(storage={"parvis.stores": {store.profile: profile}})

    def begin(
        self, header: Header, mask: NDArray[np.uint32] | None = None, place: SeriesPlace = PLACE
    ) -> None:
        """What a writer stores at the start of a series."""
        start = SeriesStart(place.series, header=header)
        self.store.put(place.bucket, place.header, dump_header(start, place.dcid, place.layout), replace=True)
        if mask is not None:
            self.store.put(place.bucket, place.mask, *dump_mask(mask))

    def put(
        self, number: int, image: NDArray[Any], encoding: Encoding = "bslz4", place: SeriesPlace = PLACE
    ) -> str:
        """Store a frame as a writer does, without metadata in the prototype's layout; return its address."""
        shape: Any = image.shape
        data = memoryview(pack(image, encoding))
        frame = Frame(place.series, number - 1, data, encoding, str(image.dtype), shape)
        told = {} if place.layout == "prototype" else metadata_of(frame, 1.5)
        self.store.put(place.bucket, place.frame(number), data, told)
        return self.url(number, place)

    def url(self, number: int, place: SeriesPlace = PLACE) -> str:
        return str(self.store.url(place.bucket, place.frame(number)))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def site(directory: Path) -> Site:
    """A store in a directory."""
    made = Site(DirectoryStore("ram", directory), {"directory": str(directory)})
    made.store.make_bucket(PLACE.bucket)
    return made


def seen(url: str, number: int = 1) -> dict[str, Any]:
    return {"file": url, "file-number": number, "file-seen-at": 12.5, "file-received-at": 12.0, "size": 3}


def test_an_object_gives_what_the_file_gives(site: Site) -> None:
    site.begin(THAUMATIN, thaumatin_mask())
    url = site.put(3, thaumatin(3))
    (result,) = run(PerImageAnalysis, seen(url, 3), config=site.config).sent("result")
    (of_file,) = run(PerImageAnalysis, seen(str(thaumatin_file(3)), 3), config=site.config).sent("result")
    assert result.pop("file") == url
    assert of_file.pop("file") != url
    assert result == of_file
    assert (result["n_spots_total"], result["file-received-at"]) == (1373, 12.0)


def test_a_frame_of_the_prototypes_layout(site: Site) -> None:
    place = SeriesPlace("prototype", "", "", 4077358, 0)
    site.store.make_bucket(place.bucket)
    site.begin(THAUMATIN, place=place)
    url = site.put(7, thaumatin(7), place=place)
    assert url == "dir://ram/4077358/000007"
    (result,) = run(PerImageAnalysis, seen(url, 7), config=site.config).sent("result")
    assert result["n_spots_total"] == analyse(thaumatin_file(7)).n_spots_total


@pytest.mark.parametrize("encoding", ["none", "lz4", "hdf5-lz4"])
def test_frames_in_other_encodings(site: Site, encoding: Encoding) -> None:
    image = counts(1, np.uint16)[0]
    image[3:9] = 0
    image[10:12, 5:7] = 500
    site.begin(SMALL)
    service, near_the_beam = PerImageAnalysis(site.config), {"d_max": 1e6}
    service.start()
    urls = site.put(1, image, encoding), site.put(2, image, "bslz4")
    one, other = (run(service, seen(url), parameters=near_the_beam).sent("result")[0] for url in urls)
    assert one["n_spots_total"] > 0
    assert one | {"file": ""} == other | {"file": ""}
    service.stop()


@pytest.mark.parametrize("gone", ["frame", "header", "series", "bucket"])
def test_what_is_not_there_any_more_leaves_as_missing(
    site: Site, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    match gone:
        case "frame":
            site.store.delete(PLACE.bucket, [PLACE.frame(1)])
        case "header":
            site.store.delete(PLACE.bucket, [PLACE.header])
        case _:
            site.store.delete(PLACE.bucket, [PLACE.header, PLACE.frame(1)])
            if gone == "bucket":
                site.store.remove_bucket(PLACE.bucket)
    service = PerImageAnalysis(site.config)
    service.start()
    with caplog.at_level("INFO"):
        done = run(service, seen(url))
    (missing,) = done.sent("missing")
    assert done.outcome.result == "done"
    assert done.sent("result") == []
    assert missing.pop("reason").startswith("dir://ram/i04")
    assert missing == {key: value for key, value in seen(url).items() if key != "size"}
    assert {figure.name: figure.value for figure in service.figures()}["images_missing"] == 1
    # A recipe that does nothing with it: the message is done, and only the log knows.
    with caplog.at_level("INFO"):
        done = run(service, seen(url), outputs=["result"])
    assert (done.outcome.result, list(done.outcome.sends)) == ("done", [])
    assert {record.levelname for record in caplog.records if "missing" in record.message} == {"INFO"}
    service.stop()


def test_a_store_that_is_away_is_asked_again_later(site: Site, directory: Path) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    service = PerImageAnalysis(site.config)
    service.start()
    directory.rename(directory.with_name("away"))
    outcome = run(service, seen(url)).outcome
    assert (outcome.result, outcome.after) == ("retry", 3)
    assert "is it mounted?" in outcome.reason
    directory.with_name("away").rename(directory)
    assert run(service, seen(url)).outcome.result == "done"
    service.stop()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("dir://ram/i04", "is the address of a bucket"),
        ("dir://other/i04/mx/4077358/7/000001", "no store 'other'"),
        ("s3://ram/i04/mx/4077358/7/000001", "begin with dir://"),
        ("dir://me:secret@ram/i04/x/000001", "never a login"),
        ("dir://ram/i04/../../etc/passwd", "cannot be the key"),
        ("dir://ram/I04/x", "cannot name a bucket"),
        ("s3://", "cannot be the name of a store"),
        ("dir://ram/i04/" + "x" * 5000, "cannot be the key"),
    ],
)
def test_an_address_that_cannot_be_is_rejected(site: Site, url: str, reason: str) -> None:
    outcome = run(PerImageAnalysis, seen(url), config=site.config).outcome
    assert outcome.result == "reject"
    assert reason in outcome.reason
    assert "secret" not in outcome.reason


def test_what_is_broken_is_rejected_and_counted_apart(site: Site) -> None:
    image = counts(1, np.uint16)[0]
    data = pack(image)
    good = {"shape": "24,40", "dtype": "uint16", "encoding": "bslz4"}
    wrong: list[tuple[bytes, Mapping[str, str], str]] = [
        (data[:-5], good, "damaged"),
        (data, good | {"shape": "24,41"}, "says (24, 40)"),
        (data, good | {"shape": "16384,16384"}, "not possible"),
        (data + b"x", good, "follow"),
        (data, good | {"dtype": "uint8"}, "not of 960"),
        (data, good | {"dtype": "V9"}, "'dtype'"),
        (data, {"encoding": "gzip"}, "'shape'"),
        (b"", good, "0 bytes"),
    ]
    site.begin(SMALL)
    service = PerImageAnalysis(site.config)
    service.start()
    for number, (content, metadata, reason) in enumerate(wrong, start=1):
        site.store.put(PLACE.bucket, PLACE.frame(number), content, metadata)
        outcome = run(service, seen(site.url(number))).outcome
        assert outcome.result == "reject"
        assert reason in outcome.reason
    figures = {figure.name: figure.value for figure in service.figures()}
    assert (figures["images_broken"], figures["images_missing"]) == (len(wrong), 0)
    service.stop()


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{", b"{}" + b" " * 5_000_000, b"[" * 100_000, b'{"format": "x"}']
)
def test_a_header_that_is_none_is_rejected(site: Site, header: bytes) -> None:
    site.store.put(PLACE.bucket, PLACE.header, header)
    outcome = run(PerImageAnalysis, seen(site.put(1, counts(1, np.uint16)[0])), config=site.config).outcome
    assert outcome.result == "reject"
    assert "header" in outcome.reason


def test_a_damaged_object_is_fetched_twice_and_then_rejected(site: Site, directory: Path) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    (file,) = [path for path in directory.rglob("000001*") if path.is_file()]
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    outcome = run(PerImageAnalysis, seen(url), config=site.config).outcome
    assert outcome.result == "reject"
    assert "SHA-256" in outcome.reason


def test_another_image_of_an_object_and_another_engine_are_rejected(site: Site) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    for parameters, reason in (
        ({"scan_range": "2,2"}, "there is no frame 1"),
        ({"engine": "dials"}, "reads files alone"),
    ):
        outcome = run(PerImageAnalysis, seen(url), parameters=parameters, config=site.config).outcome
        assert outcome.result == "reject"
        assert reason in outcome.reason
    assert run(PerImageAnalysis, seen(url), parameters={"scan_range": "1,1"}, config=site.config).sent(
        "result"
    )


def test_a_series_that_took_the_place_of_another_has_its_own_header(site: Site) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    frames = StoredFrames(site.config.storage, look_again=0)
    first = frames.fetch(url)
    assert frames.fetch(url).decoder is first.decoder
    site.begin(dataclasses.replace(SMALL, distance=0.5))
    assert frames.fetch(url).decoder.header.distance == 0.5
    assert StoredFrames(site.config.storage).fetch(url).image().detector != first.image().detector


@pytest.mark.real("ceph")
def test_by_a_reader_of_ceph(ceph: Ceph) -> None:
    site = Site(open_store("ceph", "manage", {"parvis.stores": {"ceph": ceph.profile()}}), ceph.profile())
    closed = dataclasses.replace(PLACE, bucket="of-others")
    place = dataclasses.replace(PLACE, bucket="analysed")
    assert isinstance(site.store, S3Store)
    for where in (place, closed):
        site.store.make_bucket(where.bucket)
        site.begin(SMALL, place=where)
    site.store.set_policy(place.bucket, bucket_policy(place.bucket, readers=[USERS["read"]]))
    image = counts(1, np.uint16)[0]
    url, denied = site.put(1, image, place=place), site.put(1, image, place=closed)
    service = PerImageAnalysis(site.config)
    service.start()
    assert len(run(service, seen(url)).sent("result")) == 1
    for gone in (site.url(2, place), site.url(1, dataclasses.replace(PLACE, bucket="never-made"))):
        assert len(run(service, seen(gone)).sent("missing")) == 1
    outcome = run(service, seen(denied)).outcome
    assert outcome.result == "reject"
    assert "the login of the configuration does not allow it" in outcome.reason
    ceph.stop_gateway()
    outcome = run(service, seen(url)).outcome
    assert (outcome.result, outcome.after) == ("retry", 3)
    ceph.start_gateway()
    assert len(run(service, seen(url)).sent("result")) == 1
    service.stop()
    site.store.close()


@pytest.fixture
def configured(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "zocalo.yml"
    storage = {"plugin": "storage", **site.config.storage}
    file.write_text(yaml.safe_dump({"version": 1, "s": storage, "environments": {"default": ["s"]}}))
    monkeypatch.setenv("ZOCALO_CONFIG", str(file))


@pytest.mark.usefixtures("unconfigured", "configured")
def test_the_command_analyses_images_and_series(site: Site) -> None:
    site.begin(SMALL)
    urls = [site.put(number, counts(1, np.uint16)[0]) for number in (1, 2, 4)]
    series = "dir://ram/i04/mx/4077358/7"
    for arguments, images in (
        ([urls[2]], urls[2:]),
        ([series], urls),
        ([f"{series}/", "--frames", "1:"], urls[1:]),
    ):
        done = CliRunner().invoke(analyse_command, [*arguments, "--json"])
        assert (done.exit_code, done.stderr) == (0, "")
        assert [orjson.loads(line)["file"] for line in done.stdout.splitlines()] == images
    done = CliRunner().invoke(analyse_command, urls)
    assert "000004" in done.stdout


@pytest.mark.usefixtures("unconfigured", "configured")
def test_the_command_says_what_is_wrong(site: Site) -> None:
    site.begin(SMALL)
    url = site.put(1, counts(1, np.uint16)[0])
    for wrong, code, reason in (
        (site.url(2), 1, f"Error: {site.url(2)}: there is no such object"),
        ("dir://ram/i04/mx/1/1", 1, "there are no images"),
        ("dir://tape/i04/mx/1/1/000001", 2, "no store 'tape'"),
        ("s3://me:secret@ram/i04/x", 2, "never a login"),
    ):
        done = CliRunner().invoke(analyse_command, [url, wrong, "--json"])
        assert done.exit_code == code
        assert reason in done.stderr
        assert "secret" not in done.output
        assert url in done.stdout
    done = CliRunner().invoke(analyse_command, [url, "--engine", "dials"])
    assert done.exit_code == 2
    assert "reads files alone" in done.stderr


class Gates:
    """Steps that wait for each other, over two threads."""

    def __init__(self) -> None:
        self.computes_first, self.fetches_second = threading.Event(), threading.Event()
        self.log: list[str] = []


class GatedFrames(StoredFrames):
    """The second image arrives when the first is being computed, and not before."""

    def __init__(self, storage: Mapping[str, Any], gates: Gates) -> None:
        super().__init__(storage)
        self._gates = gates

    def fetch(self, address: str) -> Any:
        self._gates.log.append(f"fetch {address[-1]}")
        if address.endswith("2"):
            self._gates.fetches_second.set()
            assert self._gates.computes_first.wait(LIMIT)
        return super().fetch(address)


class GatedAnalysis(PerImageAnalysis):
    """The first image is computed when the second is being fetched, and not before."""

    gates: ClassVar[Gates]

    def start(self) -> None:
        super().start()
        self._fetcher = FrameFetcher(GatedFrames(self.config.storage, self.gates))

    def analyse_object(self, name: str, parameters: AnalysisParameters, frame: int | None) -> ImageAnalysis:
        self.gates.log.append(f"analyse {name[-1]}")
        if name.endswith("1"):
            self.gates.computes_first.set()
            assert self.gates.fetches_second.wait(LIMIT)
        return super().analyse_object(name, parameters, frame)


def test_the_next_image_is_fetched_while_one_is_analysed(broker: BrokerThread, site: Site) -> None:
    GatedAnalysis.gates = gates = Gates()
    site.begin(SMALL)
    urls = [site.put(number, counts(1, np.uint16)[0]) for number in range(1, 6)]
    with connected(broker.port) as client:
        results = Listener(client, "results")
        client.send(*(recipe_message("per_image_analysis", seen(url)) for url in urls))
        service = GatedAnalysis(site.config)
        with in_thread(Host(transport_to(broker.port), [service])):
            results.wait_for(5)
    assert [result["file"] for result in results.payloads()] == urls
    assert sorted(gates.log) == sorted(
        [f"fetch {number}" for number in range(1, 6)] + [f"analyse {number}" for number in range(1, 6)]
    )


class LoggedFrames(StoredFrames):
    """Notes what is fetched, and does not begin before it may."""

    def __init__(self, storage: Mapping[str, Any]) -> None:
        super().__init__(storage)
        self.log: list[str] = []
        self.may_go_on = threading.Event()

    def fetch(self, address: str) -> FetchedFrame:
        self.log.append(address)
        assert self.may_go_on.wait(LIMIT)
        return super().fetch(address)


@pytest.fixture
def frames(site: Site) -> LoggedFrames:
    site.begin(SMALL)
    return LoggedFrames(site.config.storage)


def test_no_more_than_two_images_are_kept_for_later(site: Site, frames: LoggedFrames) -> None:
    urls = [site.put(number, counts(1, np.uint16)[0]) for number in range(1, 6)]
    fetcher = FrameFetcher(frames)
    fetcher.announce(urls[0])
    wait_until(lambda: frames.log, LIMIT, "the first to be fetched")
    for url in urls[1:]:
        fetcher.announce(url)
    frames.may_go_on.set()
    for url in (urls[3], urls[4], urls[0]):
        assert fetcher.fetch(url).url == url
    assert frames.log == [urls[0], urls[3], urls[4], urls[0]]
    fetcher.close()


def test_what_was_not_there_too_early_may_be_there_in_time(site: Site, frames: LoggedFrames) -> None:
    frames.may_go_on.set()
    fetcher = FrameFetcher(frames)
    fetcher.announce(site.url(2))
    fetcher.announce(site.put(1, counts(1, np.uint16)[0]))
    wait_until(lambda: len(frames.log) == 2, LIMIT, "both to be looked for")
    fetcher.fetch(site.url(1))
    fetcher.fetch(site.put(2, counts(1, np.uint16)[0]))
    assert frames.log == [site.url(2), site.url(1), site.url(2)]
    fetcher.close()
