"""From the stream to the result of each image: how long it takes, what it costs, whether it is the same."""

from __future__ import annotations

import itertools
import math
import secrets
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from children import Alone, Camera, Series, camera
from serving import Heard, Services, cpu_of, payload_of, recipe, services, wait_until

from parvis.transport.stomp import StompTransport
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from real import ceph

BUCKET: Final = "beamline"
STORES: Final = ("Ceph", "directory", "HDF5 file")
"""Ceph's gateway and a directory, both in memory; and the path without a store: HDF5Writer, FileWatcher."""

_CEPH: Final = ("ceph-osd", "radosgw", "ceph-mon")
_ROUNDED: Final = 1e-12
"""A file has the geometry in other units than the stream."""

_MEMORY: Final = 8 << 30
_dcids = itertools.count(1)


@dataclass(frozen=True)
class Run:
    """What came of a series.

    Attributes:
        images: How many there were.
        stored_to_result, frame_to_result: Seconds for each image, from when it was stored (or seen in its
            file) and from when it left the detector.
        same: How many results are those of spotfinding on the same frame alone, but for rounding.
        missing: How many images have no result.
        cpu: CPU seconds for an image, by who used them.
    """

    images: int
    stored_to_result: Sequence[float]
    frame_to_result: Sequence[float]
    same: int
    missing: int
    cpu: Mapping[str, float]


class Line:
    """A beamline: detector, services, and a listener.

    Args:
        camera: The detector.
        running: The services.
        transport: A connection to the broker.
        kind: One of `STORES`.
        directory: Where HDF5 files go.
    """

    def __init__(
        self, camera: Camera, running: Services, transport: StompTransport, kind: str, directory: Path
    ) -> None:
        self._camera = camera
        self._running = running
        self._transport = transport
        self._heard = Heard(transport)
        self._kind = kind
        self._directory = directory

    def run(self, files: Sequence[Path], size: str, rate: float, repeat: int, alone: Alone) -> Run:
        """Stream the frames `repeat` times at a rate, as one series, and wait for all results."""
        dcid, heard = next(_dcids), self._heard
        heard.results.clear()
        heard.missing.clear()
        heard.ends.clear()
        self._camera.prepare(files, size)
        before = self._cpu()
        self._transport.send(recipe(self._node(dcid), f"bench-{dcid}"))
        series = self._camera.send(files, size, rate, repeat, 1, dcid)
        number = series.sent.images
        wait_until(
            lambda: len(heard.results) + len(heard.missing) >= number and heard.ends,
            f"{number} results; {len(heard.results)} came",
        )
        cpu = {name: (used - before[name]) / number for name, used in self._cpu().items()}
        self._clean(dcid)
        return _run_of(series, heard, alone, cpu)

    def _node(self, dcid: int) -> Mapping[str, Any]:
        if self._kind == "HDF5 file":
            parameters: dict[str, Any] = {"hdf5": str(self._directory / f"{dcid}_1.nxs"), "burst-limit": 100}
            return {"queue": "filewatcher", "parameters": parameters}
        return {"queue": "cephwriter", "parameters": {"dcid": dcid}}

    def _cpu(self) -> dict[str, float]:
        others = [one for one in psutil.process_iter() if one.name() in _CEPH] if self._kind == "Ceph" else []
        return {**self._running.cpu(), "Ceph": sum(map(cpu_of, others)), "broker": cpu_of(psutil.Process())}

    def _clean(self, dcid: int) -> None:
        for file in self._directory.glob(f"{dcid}_*"):
            file.unlink()


def _run_of(series: Series, heard: Heard, alone: Alone, cpu: Mapping[str, float]) -> Run:
    stored: list[float] = []
    streamed: list[float] = []
    seen: set[int] = set()
    same = 0
    for came, message in heard.results:
        result = payload_of(message)
        number = result["file-number"]
        seen.add(number)
        stored.append(came - result["file-seen-at"])
        streamed.append(came - series.times[number - 1])
        expected = alone.results[(number - 1) % len(alone.results)]
        same += all(math.isclose(result[name], value, rel_tol=_ROUNDED) for name, value in expected.items())
    images = series.sent.images
    return Run(images, stored, streamed, same, images - len(seen), cpu)


@contextmanager
def line(kind: str, scratch: Path) -> Iterator[Line]:
    """A beamline whose services run, and have run for a while."""
    with ExitStack() as stack:
        detector = stack.enter_context(camera())
        directory = scratch / f"line-{secrets.token_hex(4)}"
        files = directory / "hdf5"
        settings: dict[str, Any] = {"stream": detector.address}
        stores: dict[str, Any] = {}
        names = {"PerImageAnalysis": 2}
        if kind == "HDF5 file":
            settings["directory"] = str(files)
            names |= {"HDF5Writer": 1, "FileWatcher": 1}
        else:
            settings |= {"store": "images", "bucket": BUCKET, "when_slow": "block"}
            names |= {"CephWriter": 1}
            stores["images"] = _ceph(stack, scratch) if kind == "Ceph" else _directory(scratch)
        storage = {
            "parvis.stores": stores,
            "parvis.detectors": {"eiger": settings},
            "parvis.state_directory": str(directory / "state"),
        }
        running, transport = stack.enter_context(services(directory, storage, names))
        yield Line(detector, running, transport, kind, files)


def _ceph(stack: ExitStack, scratch: Path) -> dict[str, Any]:
    """A Ceph with a bucket, for one who writes and one who reads."""
    place = scratch / f"ceph-{secrets.token_hex(4)}"
    place.mkdir()
    cluster = stack.enter_context(ceph.running(place, _MEMORY))
    profile = cluster.profile()
    store = open_store("images", "manage", {"parvis.stores": {"images": profile}})
    assert isinstance(store, S3Store)
    store.make_bucket(BUCKET)
    store.set_policy(BUCKET, bucket_policy(BUCKET, [ceph.USERS["read"]], [ceph.USERS["write"]]))
    store.close()
    return {name: profile[name] for name in ("endpoint", "read", "write")}


def _directory(scratch: Path) -> dict[str, Any]:
    place = scratch / f"store-{secrets.token_hex(4)}"
    (place / BUCKET).mkdir(parents=True)
    return {"directory": str(place)}


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99 %, in ms."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]
