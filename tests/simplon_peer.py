"""Detectors that others wrote, for tests: the SIMPLON interface and the streams of an EIGER, on this machine.

    def test_...(simplon: StartSimplon) -> None:
        detector = simplon(real_images([1, 2, 3]), format="cbor", rate=50)
        ... connect to detector.address ...
        detector.collect()

A PUSH socket keeps what nobody fetches: connect first, then `collect`.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pytest

from real.daemon import Starter, end, free_ports, wait_for_start
from real.packages import skipping_if_unavailable
from real_data import real_data
from simplon.environments import EIGERSIM, TICKIT, python_with

# All tests import this module, so what takes long to import is imported where it is used.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["legacy", "cbor"]
Maker = Literal["tickit-devices", "eiger-simulator"]

HC = 12398.419843320026  # eV Å
_PATIENCE = 120.0  # s for an answer: that to `trigger` comes when all images are sent
_ADAPTER = Path(__file__).parent / "simplon" / "tickit_images.py"
_API = {"tickit-devices": "1.8.0", "eiger-simulator": "1.6.0"}


@dataclass(frozen=True)
class PeerImages:
    """What a detector is to see.

    Attributes:
        packed: Counts of each image as bitshuffle-LZ4 chunks of HDF5 (filter 32008).
        shape: Pixels (rows, columns).
        dtype: `uint8`, `uint16` or `uint32`.
        beam_centre: (x, y) in pixels.
        pixel_size: m.
        distance: m.
        wavelength: Å.
        count_cutoff: The highest count that can be trusted.
        thickness: Of the sensor, m.
    """

    packed: Sequence[bytes]
    shape: tuple[int, int]
    dtype: str
    beam_centre: tuple[float, float] = (0.0, 0.0)
    pixel_size: float = 75e-6
    distance: float = 0.2
    wavelength: float = 1.0
    count_cutoff: int = 65534
    thickness: float = 450e-6

    def simplon(self) -> dict[str, Any]:
        """The detector's configuration, in the order in which it is to be set."""
        rows, columns = self.shape
        return {
            "description": "Simulated EIGER2",
            "bit_depth_image": int(self.dtype.removeprefix("uint")),
            "x_pixels_in_detector": columns,
            "y_pixels_in_detector": rows,
            "x_pixel_size": self.pixel_size,
            "y_pixel_size": self.pixel_size,
            "beam_center_x": self.beam_centre[0],
            "beam_center_y": self.beam_centre[1],
            "detector_distance": self.distance,
            "sensor_material": "Si",
            "sensor_thickness": self.thickness,
            "countrate_correction_count_cutoff": self.count_cutoff,
            # tickit-devices derives each of these from the other, with another h c than CODATA's: what is set
            # last is what was meant.
            "photon_energy": HC / self.wavelength,
            "wavelength": self.wavelength,
        }

    def start(self) -> dict[str, Any]:
        """What the start message of Stream V2 says of it."""
        rows, columns = self.shape
        return {
            "image_size_x": columns,
            "image_size_y": rows,
            "image_dtype": self.dtype,
            "pixel_size_x": self.pixel_size,
            "pixel_size_y": self.pixel_size,
            "beam_center_x": self.beam_centre[0],
            "beam_center_y": self.beam_centre[1],
            "detector_translation": [
                self.beam_centre[0] * self.pixel_size,
                self.beam_centre[1] * self.pixel_size,
                -self.distance,
            ],
            "incident_wavelength": self.wavelength,
            "incident_energy": HC / self.wavelength,
            "saturation_value": self.count_cutoff,
            "sensor_material": "Si",
            "sensor_thickness": self.thickness,
            "threshold_energy": {"threshold_1": HC / self.wavelength / 2},
        }


def real_images(
    numbers: Iterable[int] = range(1, 20), dtype: str = "uint32", plain: Path | None = None
) -> PeerImages:
    """Some of the 19 frames of the thaumatin line scan, with their geometry; skips where they are absent.

    Pixels that are negative in the files are the highest number of the type here, as an EIGER has it. Where
    they are decompressed already, `plain` is the directory: it takes half a second each.
    """
    import numpy as np

    from parvis_services.xray.images import open_image

    directory, ending = (plain, "cbf") if plain else (real_data("thaumatin_grid"), "cbf.bz2")
    images = [open_image(directory / f"thau_3_2_{number:04d}.{ending}") for number in numbers]
    (panel,) = images[0].detector.panels
    highest = np.iinfo(dtype).max
    return PeerImages(
        pack([as_eiger(image.data[0], dtype) for image in images]),
        panel.shape,
        dtype,
        beam_centre=(1261.61, 1306.96),
        pixel_size=172e-6,
        distance=0.351,
        wavelength=0.96859,
        count_cutoff=min(115897, highest - 1),
    )


def as_eiger(counts: NDArray[np.int32], dtype: str) -> NDArray[Any]:
    """Counts as an EIGER has them: of a type without a sign, whose highest number stands for no pixel."""
    import numpy as np

    highest = np.iinfo(dtype).max
    return np.where((counts < 0) | (counts > highest), highest, counts).astype(dtype)


def pack(images: Sequence[NDArray[Any]]) -> list[bytes]:
    """Pack images by HDF5's own filter, which is not ours."""
    import h5py
    import hdf5plugin

    with h5py.File("packed", "w", driver="core", backing_store=False) as file:
        shape = images[0].shape
        dataset = file.create_dataset(
            "data", (len(images), *shape), images[0].dtype, chunks=(1, *shape), **hdf5plugin.Bitshuffle()
        )
        packed: list[bytes] = []
        for place, image in enumerate(images):
            dataset[place] = image
            file.flush()
            packed.append(dataset.id.read_direct_chunk((place, 0, 0))[1])
    return packed


@dataclass
class Simplon:
    """A simulated detector that runs.

    Attributes:
        maker: Who wrote it.
        address: Where its stream is: connect a PULL socket.
        host: Where its SIMPLON interface is: host and port.
        images: How many images a series has.
    """

    maker: Maker
    address: str
    host: str
    images: int
    _collecting: Future[None] = field(default_factory=Future[None])

    def put(self, place: str, value: object = None) -> Any:
        """Set a parameter, or give a command such as `detector/command/arm`; return the answer."""
        module, rest = place.split("/", 1)
        connection = HTTPConnection(self.host, timeout=_PATIENCE)
        body = None if value is None else json.dumps({"value": value})
        try:
            connection.request(
                "PUT",
                f"/{module}/api/{_API[self.maker]}/{rest}",
                body,
                {"Content-Type": "application/json"} if body else {},
            )
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.maker} answered {answer.status} to {place}: {content[:500]!r}")
        return json.loads(content) if content else None

    def configure(self, module: str, values: Mapping[str, object]) -> None:
        """Set parameters of `detector` or `stream`."""
        for name, value in values.items():
            self.put(f"{module}/config/{name}", value)

    def collect(self) -> None:
        """Arm and trigger; return when the start message is on its way, while images are still to come."""
        self.put("detector/command/arm")
        self._collecting = Future()

        def trigger() -> None:
            try:
                self.put("detector/command/trigger")
                self._collecting.set_result(None)
            except Exception as error:  # noqa: BLE001 - for who waits
                self._collecting.set_exception(error)

        threading.Thread(target=trigger, daemon=True).start()

    def wait(self, timeout: float = _PATIENCE) -> None:
        """Return when all images were exposed."""
        self._collecting.result(timeout)


class StartSimplon(Protocol):
    """Starts a simulated detector, which runs until the test is over; skips where it cannot be installed."""

    def __call__(
        self,
        images: PeerImages | None = None,
        *,
        format: Format = "cbor",  # noqa: A002 - SIMPLON's name for it
        rate: float = 10,
        number: int | None = None,
        header_detail: Literal["all", "basic", "none"] = "basic",
        dcid: int | None = None,
        maker: Maker = "tickit-devices",
    ) -> Simplon:
        """Start a detector.

        Args:
            images: What it sees, over and over; by default the real image of an EIGER2 16M that
                tickit-devices brings along.
            format: `legacy` for Stream V1, the only one that eiger-simulator has; `cbor` for Stream V2.
            rate: Images a second. eiger-simulator keeps it; tickit-devices counts from one image to the next,
                and falls behind: of 133 images of 6M pixels it sends 100 to 110.
            number: How many images a series has; by default as many as there are.
            header_detail: What the start of a series says.
            dcid: Number of the data collection, in the appendix or the user data; tickit-devices only.
            maker: Whose simulator. eiger-simulator says of all images that they are of 16 bits.
        """
        ...


@pytest.fixture
def simplon() -> Iterator[StartSimplon]:
    """See `StartSimplon`."""
    with contextlib.ExitStack() as stack:

        def start(
            images: PeerImages | None = None,
            *,
            format: Format = "cbor",  # noqa: A002
            rate: float = 10,
            number: int | None = None,
            header_detail: str = "basic",
            dcid: int | None = None,
            maker: Maker = "tickit-devices",
        ) -> Simplon:
            number = number or (len(images.packed) if images else 1)
            with skipping_if_unavailable():
                running = (
                    _eigersim(images, dcid) if maker == "eiger-simulator" else _tickit(images, format, dcid)
                )
                detector = stack.enter_context(running)
            detector.images = number
            times = {"count_time": 0.95 / rate, "frame_time": 1 / rate}
            if maker == "eiger-simulator":
                if format != "legacy":
                    raise ValueError("eiger-simulator has Stream V1 only")
                times["count_time"] = 1 / rate  # it knows no other
            else:
                detector.configure("stream", {"format": format})
                detector.configure("detector", {"trigger_mode": "ints"})
            detector.configure("detector", {"nimages": number, "ntrigger": 1} | times)
            detector.configure("detector", images.simplon() if images else {})
            detector.configure("stream", {"mode": "enabled", "header_detail": header_detail})
            detector.put("detector/command/initialize")
            return detector

        yield start


_starter = Starter()


@contextlib.contextmanager
def _tickit(images: PeerImages | None, kind: Format, dcid: int | None) -> Iterator[Simplon]:
    python = python_with(*TICKIT)
    http, legacy, cbor = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="parvis-simplon-") as name:
        directory = Path(name)
        component = {
            "name": "eiger",
            "inputs": {},
            "host": "127.0.0.1",
            "port": http,
            "stream_host": "127.0.0.1",
        }
        ports = {"stream_legacy_port": legacy, "stream_cbor_port": cbor}
        configuration = [{"type": "tickit_devices.eiger.Eiger"} | component | ports]
        (directory / "eiger.yaml").write_text(json.dumps(configuration))  # YAML is a superset of JSON
        script = ["-m", "tickit"]
        if images is not None:
            _write_images(directory, images, dcid)
            script = [str(_ADAPTER), name]
        command = [str(python), *script, "all", str(directory / "eiger.yaml")]
        port = cbor if kind == "cbor" else legacy
        yield from _run("tickit-devices", command, directory, http, port)


def _write_images(directory: Path, images: PeerImages, dcid: int | None) -> None:
    told = {"dcid": dcid} if dcid is not None else {}
    content = {
        "images": len(images.packed),
        "shape": images.shape,
        "dtype": images.dtype,
        "start": images.start() | ({"user_data": told} if told else {}),
        "appendix": json.dumps(told) if told else "",
    }
    (directory / "images.json").write_text(json.dumps(content))
    for place, packed in enumerate(images.packed):
        (directory / f"{place}.bslz4").write_bytes(packed)


@contextlib.contextmanager
def _eigersim(images: PeerImages | None, dcid: int | None) -> Iterator[Simplon]:
    if images is None or images.dtype != "uint16" or dcid is not None:
        raise ValueError("eiger-simulator has no images of its own, says 16 bits of all, and has no appendix")
    python = python_with(*EIGERSIM)
    http, stream = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="parvis-simplon-") as name:
        directory = Path(name)
        # What it makes of an HDF5 file and keeps: read from there, images are streamed as they were packed.
        (directory / "images.bslz4.pickle").write_bytes(pickle.dumps(list(images.packed)))
        room = 2 * sum(map(len, images.packed))
        options = {"--host": "127.0.0.1", "--port": http, "--zmq": f"tcp://127.0.0.1:{stream}"}
        more = {"--dataset": name, "--max-memory": room}
        words = [str(word) for option in (options | more).items() for word in option]
        command = [str(python), "-m", "eigersim.server", *words]
        yield from _run("eiger-simulator", command, directory, http, stream)


def _run(maker: Maker, command: Sequence[str], directory: Path, http: int, stream: int) -> Iterator[Simplon]:
    log = directory / "log"
    process = _starter.start(command, log)
    detector = Simplon(maker, f"tcp://127.0.0.1:{stream}", f"127.0.0.1:{http}", 0)
    try:
        wait_for_start(maker, process, lambda: _answers(detector), log)
        yield detector
    finally:
        end(process, signal.SIGKILL)


def _answers(detector: Simplon) -> bool:
    connection = HTTPConnection(detector.host, timeout=5)
    try:
        connection.request("GET", f"/detector/api/{_API[detector.maker]}/status/state")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
