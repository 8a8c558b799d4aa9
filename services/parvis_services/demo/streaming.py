"""A detector that streams, and the store that its images go to, for as long as the demonstration runs."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parvis.config import Config, ConfigError
from parvis.config.document import read_document
from parvis_services.demo.stage import CONFIGURATION, STORE
from parvis_services.simulate.collect import GridScan, Pace
from parvis_services.simulate.detector_stream import CannotSend, DetectorStream, Exposure, Sent
from parvis_services.simulate.stream_images import StreamImages, images_of_files, images_of_scan
from parvis_services.stores.profiles import KEY, Role, StoreNotConfigured, open_store
from parvis_services.stores.store import AccessDenied, ImageStore, NoSuchObject, StoreError
from parvis_services.stream.image_files import NoSeries
from parvis_services.xray.errors import ImageError

if TYPE_CHECKING:
    from parvis_services.demo.plan import Plan
    from parvis_services.demo.stage import Stage

RATE: Final = 20.0  # images a second

_OWN_STORE: Final = "demo"
_BUCKET: Final = "parvis-demo"
_ENVIRONMENT: Final = "default"
_PATIENCE: Final = 20.0  # s
_END: Final = 10.0  # s for the detector to let go


class NoStore(Exception):
    """Images cannot go to the store that was asked for; says why."""


class _Stopped(Exception):
    """The detector was told to stop."""


def prepare_store(directory: Path, stream: str, profile: str | None) -> dict[str, str]:
    """Make the configuration of the services, and a bucket.

    Args:
        directory: For the configuration and, if no other store is wanted, the images.
        stream: Where the detector's stream is.
        profile: A store of the user's own configuration, or None for one in the directory.

    Returns:
        Variables that lead services to both.

    Raises:
        NoStore: There is no such store, or it cannot be used.
    """
    # Other demonstrations may use the same bucket, and their data collection has the number 1 too.
    prefix = secrets.token_hex(4)
    name = profile or _OWN_STORE
    content: dict[str, Any] = {
        "plugin": "storage",
        "parvis.detectors": {"demo": {"stream": stream, "store": name, "bucket": _BUCKET, "prefix": prefix}},
    }
    document: dict[str, Any] = {"version": 1, "parvis-demo": content}
    activated = ["parvis-demo"]
    if profile is None:
        images = directory / STORE
        images.mkdir(parents=True)
        content[KEY] = {name: {"directory": str(images)}}
    else:
        # Nothing is copied from there: a secret stays where it is.
        path, section = _section_with_stores()
        document["include"] = str(path)
        activated.insert(0, section)
    document["environments"] = {_ENVIRONMENT: activated}
    file = directory / CONFIGURATION
    file.write_text(json.dumps(document, indent=2) + "\n")  # which YAML is a superset of
    _try_store(file, name, prefix)
    return {
        "ZOCALO_CONFIG": str(file),
        "PARVIS_ENVIRONMENT": _ENVIRONMENT,
        "PARVIS_STATE_DIRECTORY": str(directory / "state"),
    }


def _section_with_stores() -> tuple[Path, str]:
    """The user's configuration file, and the name of what in it says which stores there are."""
    try:
        config = Config.load()
        if config.path is None:
            raise NoStore("there is no configuration that names stores: ZOCALO_CONFIG says where it is")
        document = read_document(config.path)
        names = [name for environment in config.environments for name in document.names_in(environment)]
        found = [
            name
            for name in names
            if (content := document.plugins[name].read()).get("plugin") == "storage" and KEY in content
        ]
    except ConfigError as error:
        raise NoStore(str(error)) from None
    if not found:
        raise NoStore(f"{config.path} has no stores: name them under {KEY}")
    return config.path, found[-1]


def _try_store(file: Path, name: str, prefix: str) -> None:
    """Make the bucket if it is not there, and see that what is written can be read."""
    key = f"{prefix}/tried"
    try:
        storage = Config.load(file, (_ENVIRONMENT,)).storage
        with contextlib.ExitStack() as stack:

            def opened(role: Role) -> ImageStore:
                return stack.enter_context(contextlib.closing(open_store(name, role, storage)))

            writer, reader = opened("write"), opened("read")
            try:
                writer.put(_BUCKET, key, b"parvis demo")
            except NoSuchObject:
                opened("manage").make_bucket(_BUCKET)
                writer.put(_BUCKET, key, b"parvis demo")
            reader.get(_BUCKET, key)
            with contextlib.suppress(StoreNotConfigured):
                opened("manage").delete(_BUCKET, [key])
    except StoreNotConfigured as error:
        raise NoStore(f"images cannot go to the bucket {_BUCKET} of this store: {error}") from None
    except AccessDenied as error:
        raise NoStore(f"{error}; `parvis store policy` prints who has to be allowed what") from None
    except (ConfigError, StoreError) as error:
        raise NoStore(str(error)) from None


class StreamDetector:
    """A simulated detector that streams the images of a plan, prepared beforehand, when it is started.

    Attributes:
        address: Where its stream is.
        sent: How many images were sent so far.
        result: What was sent in all, once it was.
        failure: Why it failed, if it did.
    """

    def __init__(self, plan: Plan) -> None:
        self.sent = 0
        self.result: Sent | None = None
        self.failure: str | None = None
        self._plan = plan
        self._stream = DetectorStream("tcp://127.0.0.1:*", _PATIENCE)
        self.address = self._stream.address
        self._dcid = 0
        self._prepared, self._started = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether all images are prepared, or it has failed."""
        return self._prepared.is_set()

    @property
    def is_collecting(self) -> bool:
        """Whether images are still to come."""
        return self._thread.is_alive()

    def start(self, ready: Stage) -> None:
        """Let it send its images, as those of the data collection."""
        self._dcid = ready.dcid
        self._started.set()

    def stop(self) -> None:
        """Stop it, and return when it has let go of its socket."""
        self._stopping.set()
        self._started.set()
        self._thread.join(_END)

    def _run(self) -> None:
        try:
            images = self._prepare()
            self._prepared.set()
            self._started.wait()
            self._check(0)
            self._stream.wait_for_receiver()
            exposure = Exposure(pace=Pace(RATE), appendix={"dcid": self._dcid})
            self.result = self._stream.send(images, exposure, self._check)
        except _Stopped:
            pass
        except (CannotSend, ImageError, NoSeries) as error:
            self.failure = str(error)
        finally:
            self._prepared.set()
            self._stream.close(at_once=self.result is None)

    def _prepare(self) -> StreamImages:
        def prepared(_number: int) -> None:
            self._check(0)

        if self._plan.files:
            return images_of_files(self._plan.files, prepared)
        return images_of_scan(GridScan(self._plan.grid, seed=self._plan.seed), prepared)

    def _check(self, sent: int) -> None:
        self.sent = sent
        if self._stopping.is_set():
            raise _Stopped
