"""The main job without files on real servers, from a detector that others wrote; and what is said of logins.

A detector of `tickit-devices` streams the real frames; Ceph is the store, with a login for who writes and one
for who reads; ActiveMQ carries the messages, and the connections of all services to it pass through here.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from minio import Minio

from facility import Facility, Scan, facility, sqlite_database
from grid_scan import FRAMES, PLAIN, check_results, lines_of, plain_frames
from parvis.cli.own_collector import own_collector
from parvis.config import Config, StompSettings
from parvis.transport.stomp import StompTransport
from parvis_services.demo.stage import SERVICES
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from parvis_services.xray.analysis import analyse
from real.activemq.server import ActiveMQ
from real.ceph import USERS, Ceph
from running import Listener, recipe_message
from simplon_peer import Simplon, StartSimplon, real_images
from tcp_proxy import Direction, TcpProxy
from waiting import wait_until

NAMESPACE = "servers"
RECIPE = "per-image-analysis-stream"
LETTERS = ("cephwriter", "objectwatcher", "filewatcher", "per_image_analysis", "reduce.xray_centering")
RATE = 25  # images a second
DCID = 1  # of the one data collection in the database

pytestmark = pytest.mark.real("ceph")


class Wire:
    """All that services and broker say to each other."""

    def __init__(self, broker: int) -> None:
        self.proxy = TcpProxy(broker)
        self.proxy.watch = self._see
        self._said: dict[Direction, list[bytes]] = {"up": [], "down": []}

    def _see(self, direction: Direction, passing: bytes) -> bytes:
        self._said[direction].append(passing)
        return passing

    def said(self) -> bytes:
        """What was said so far."""
        return b"".join([*self._said["up"], *self._said["down"]])


class Beamline:
    """A facility on real servers, and the bucket of its detector."""

    def __init__(self, place: Facility, ceph: Ceph, bucket: str, transport: StompTransport) -> None:
        self.place = place
        self.ceph = ceph
        self.bucket = bucket
        self.transport = transport
        self.letters = Listener(transport, *(f"DLQ.{NAMESPACE}.{queue}" for queue in LETTERS))
        self.store = managed(ceph)

    def manifest(self) -> Manifest:
        """The manifest of the one series."""
        (header,) = [one.key for one in self.store.list_all(self.bucket) if one.key.endswith("/header")]
        series = SeriesPlace.of(self.store.url(self.bucket, header))
        wait_until(
            lambda: self.store.list_after(self.bucket, series.manifest), 20, f"the manifest {series.manifest}"
        )
        return Manifest.load(self.store.get(self.bucket, series.manifest).data)


def managed(ceph: Ceph) -> S3Store:
    """The store, for who manages it."""
    store = open_store("ceph", "manage", {"parvis.stores": {"ceph": ceph.profile()}})
    assert isinstance(store, S3Store)
    return store


def site_file(directory: Path, ceph: Ceph, bucket: str, detector: str) -> Path:
    """The configuration of the beamline: who writes has its secret in a file, and nobody manages anything."""
    logins, secret = ceph.profile(), directory / "secret-of-the-writer"
    secret.touch(mode=0o600)
    secret.write_text(ceph.keys["write"][1])
    writer = {"access_key": ceph.keys["write"][0], "secret_file": str(secret)}
    profile = {"endpoint": logins["endpoint"], "read": logins["read"], "write": writer}
    settings = {
        "plugin": "storage",
        "parvis.stores": {"ceph": profile},
        "parvis.detectors": {"eiger": {"stream": detector, "store": "ceph", "bucket": bucket}},
        "parvis.state_directory": str(directory / "state"),
    }
    file = directory / "site.yml"
    file.write_text(yaml.safe_dump({"version": 1, "site": settings, "environments": {"default": ["site"]}}))
    return file


@pytest.fixture
def wire(activemq: ActiveMQ) -> Iterator[Wire]:
    wire = Wire(activemq.port)
    yield wire
    wire.proxy.close()


@pytest.fixture
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return plain_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture
def detector(simplon: StartSimplon, frames: list[Path]) -> Simplon:
    return simplon(real_images(plain=frames[0].parent), rate=RATE, dcid=DCID)


@pytest.fixture
def beamline(
    tmp_path: Path, ceph: Ceph, activemq: ActiveMQ, wire: Wire, detector: Simplon
) -> Iterator[Beamline]:
    bucket = f"mx-{secrets.token_hex(4)}"
    store = managed(ceph)
    store.make_bucket(bucket)
    store.set_policy(bucket, bucket_policy(bucket, [USERS["read"]], [USERS["write"]]))
    login = (activemq.username, activemq.password, NAMESPACE)
    variables = ("HOST", "PORT", "USERNAME", "PASSWORD", "PREFIX")
    values = (activemq.host, str(wire.proxy.port), *login)
    environment = {
        **{f"PARVIS_STOMP_{name}": value for name, value in zip(variables, values, strict=True)},
        "ZOCALO_CONFIG": str(site_file(tmp_path, ceph, bucket, detector.address)),
        "PARVIS_VERBOSITY": "2",
        "PARVIS_RECORDS_DIRECTORY": str(tmp_path / "records"),
    }
    settings = StompSettings(activemq.host, wire.proxy.port, *login)
    services = {**SERVICES, "CephWriter": 1, "ObjectWatcher": 1}
    transport = StompTransport([(activemq.host, wire.proxy.port)], *login)
    transport.connect()
    with (
        contextlib.closing(store),
        own_collector(Config(stomp=settings), tmp_path / "records") as collector,
        facility(tmp_path, environment | dict(collector), sqlite_database(tmp_path), services) as place,
    ):
        yield Beamline(place, ceph, bucket, transport)
    transport.disconnect()


def test_streamed_frames_give_the_results_of_files_and_no_secret_is_told(
    beamline: Beamline, detector: Simplon, frames: list[Path], wire: Wire
) -> None:
    scan = beamline.place.new_grid(PLAIN, FRAMES)
    assert scan.dcid == DCID
    beamline.place.go(RECIPE, scan.dcid)
    detector.collect()
    check_results(scan, beamline.place.gda)
    check_against_files(scan, frames)
    manifest = beamline.manifest()
    assert (manifest.expected, manifest.stored, manifest.missing) == (FRAMES, FRAMES, [])
    assert (manifest.dropped, manifest.ended) == ([], "end message")
    assert beamline.letters.messages == []
    spoil(beamline)
    search(beamline, {"commands": commands(beamline).encode(), "messages": wire.said()})


def check_against_files(scan: Scan, frames: list[Path]) -> None:
    """Compare what was found with what is found on the files, to the last bit."""
    found = lines_of(scan)
    for number, frame in enumerate(frames, start=1):
        line = found[number]
        assert {name: line[name] for name in line if not name.startswith("file")} == analyse(frame).as_dict()
        assert line["file"].startswith("s3://ceph/mx-")


def spoil(beamline: Beamline) -> None:
    """Have images analysed that are not there, are damaged, or that a reader of the store may not have."""
    store, bucket, closed = beamline.store, beamline.bucket, f"{beamline.bucket}-closed"
    store.make_bucket(closed)
    series = f"{DCID}/9"
    header = store.get(bucket, beamline.manifest().header.partition(f"{bucket}/")[2]).data
    for where in (bucket, closed):
        store.put(where, f"{series}/header", header)
        store.put(where, f"{series}/000001", b"counts")
    key, secret = beamline.ceph.keys["manage"]
    peer = Minio(f"127.0.0.1:{beamline.ceph.port}", key, secret, secure=False)
    peer.put_object(bucket, f"{series}/000002", BytesIO(b"other"), 5, metadata={"sha256": "0" * 64})
    missing = Listener(beamline.transport, "results")
    images = {
        "no such bucket": f"s3://ceph/{bucket}-none/{series}/000001",
        "no such store": f"s3://other/{bucket}/{series}/000001",
        "not for readers": f"s3://ceph/{closed}/{series}/000001",
        "no image": f"s3://ceph/{bucket}/{series}/000001",
        "damaged": f"s3://ceph/{bucket}/{series}/000002",
    }
    output = {"result": 2, "missing": 2}
    for number, image in enumerate(images.values(), start=1):
        payload = {"file": image, "file-number": number, "file-seen-at": 1.0}
        beamline.transport.send(recipe_message("per_image_analysis", payload, output))
    missing.wait_for(1, 30)
    assert missing.payloads()[0]["file"] == images["no such bucket"]
    letters = beamline.letters.wait_for(len(images) - 1, 60)
    reasons = [letter.headers["parvis-reason"] for letter in letters]
    for words in ("SHA-256", "no store 'other'", "not hold", "does not allow it"):
        assert any(words in reason for reason in reasons), (words, reasons)


def commands(beamline: Beamline) -> str:
    """What commands print, those that fail among them."""
    bucket, place = beamline.bucket, beamline.place
    image = f"s3://ceph/{bucket}/{DCID}/9/000001"
    outcomes = {
        ("config", "show"): 0,
        ("store", "ls", f"s3://ceph/{bucket}", "--json"): 0,
        ("store", "link", image, "--seconds", "1"): 0,
        ("store", "ls", f"s3://ceph/{bucket}-closed"): 1,
        ("store", "cleanup", f"s3://ceph/{bucket}", "--yes"): 1,
        ("store", "digest", image): 1,
        ("logs", "--json"): 0,
    }
    done = {arguments: place.parvis(*arguments) for arguments in outcomes}
    assert {arguments: one.returncode for arguments, one in done.items()} == outcomes, done
    return "".join(one.stdout + one.stderr for one in done.values())


def search(beamline: Beamline, texts: Mapping[str, bytes]) -> None:
    """Look for the secrets of the store in texts, in all files that the services wrote, and in all processes.

    Where nothing of the kind could stand nothing is found either: each place must hold what belongs there.
    """
    directory = beamline.place.directory
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    own = {directory / "site.yml", directory / "secret-of-the-writer"}
    places = {str(path): content for path, content in files.items() if path not in own} | dict(texts)
    processes = processes_of_all()
    bucket = beamline.bucket.encode()
    for name, content in {
        "logs": bucket,
        "logbook": b"cephwriter",
        "state": bucket,
        "records": bucket,
    }.items():
        assert any(content in files[path] for path in files if directory / name in path.parents), name
    for name in texts:
        assert bucket in texts[name], name
    assert any(b"CephWriter" in content for content in processes.values())
    secret_words = [word for _, secret in beamline.ceph.keys.values() for word in ways_to_write(secret)]
    assert [path for path in own if any(word in files[path] for word in secret_words)] == [*own]
    found = [
        name for name, content in (places | processes).items() for word in secret_words if word in content
    ]
    assert found == []


def ways_to_write(secret: str) -> list[bytes]:
    """A secret as it is, and as it stands in other things."""
    quoted = urllib.parse.quote(secret).encode()
    return [secret.encode(), quoted, base64.b64encode(secret.encode()).rstrip(b"=")]


def processes_of_all() -> dict[str, bytes]:
    """What anybody may see of processes: their command lines, and their variables."""
    told: dict[str, bytes] = {}
    for file in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{file}"):
            with contextlib.suppress(OSError):
                told[str(path)] = path.read_bytes()
    return told
