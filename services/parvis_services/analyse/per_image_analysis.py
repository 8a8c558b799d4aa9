"""PerImageAnalysis: finds the spots on one image and says how well it diffracts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import BaseModel, Field, field_validator

from parvis.config import Config
from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Model, Outputs
from parvis.service.figures import Figure
from parvis_services.analyse.frame_fetcher import FrameFetcher
from parvis_services.messages import ImageMissing, ImageResult, ImageSeen
from parvis_services.paths import PathNotAllowed, PathRule
from parvis_services.stores.store import NoSuchObject, StoreError, StoreUnavailable
from parvis_services.stores.url import is_object_url
from parvis_services.xray.errors import (
    FrameRangeError,
    ImageError,
    MissingImageError,
    UnfinishedImageError,
)
from parvis_services.xray.parameters import Algorithm, AnalysisParameters, Engine, MaskParameters

if TYPE_CHECKING:
    from parvis_services.xray.statistics import ImageAnalysis

_STORE_IS_AWAY: Final = 3.0  # seconds until an image is tried again, doubled each time
_SCAN_RANGE = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


class PIAParameters(Model):
    """How to look at an image; a message may override each under `parameters`.

    Attributes:
        d_min: Spots at a higher resolution are left out, in Å.
        d_max: Spots at a lower resolution are left out, in Å.
        threshold_algorithm: How strong pixels are told from background.
        filter_ice: Tell spots on ice rings from others.
        ice_rings_width: Full width of an ice ring in 1/d² (Å⁻²).
        disable_parallax_correction: Ignore the depth of the sensor in the resolution of masked pixels.
        scan_range: `n,n`, the number of the image in a file of many, from 1.
        engine: `parvis`, or `dials` where DIALS is installed.
    """

    d_min: float | None = Field(default=None, gt=0)
    d_max: float | None = Field(default=40.0, gt=0)
    threshold_algorithm: Algorithm = "dispersion"
    filter_ice: bool = True
    ice_rings_width: float = Field(default=0.004, gt=0)
    disable_parallax_correction: bool = True
    scan_range: tuple[int, int] | None = None
    engine: Engine = "parvis"

    @field_validator("scan_range", mode="before")
    @classmethod
    def _read_scan_range(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        numbers = _SCAN_RANGE.fullmatch(value)
        if numbers is None:
            raise ValueError("must be two numbers of images, such as 7,7")
        return int(numbers[1]), int(numbers[2])

    @field_validator("scan_range")
    @classmethod
    def _one_image(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and (value[0] != value[1] or value[0] < 1):
            raise ValueError("must name one single image, from 1")
        return value

    @property
    def frame(self) -> int | None:
        """Number of the image in a file of many, from 0; None if it is not said."""
        return self.scan_range[0] - 1 if self.scan_range else None

    def analysis(self) -> AnalysisParameters:
        """Return the same as the analysis wants it. Raises ValueError if the values contradict each other."""
        return AnalysisParameters(
            algorithm=self.threshold_algorithm,
            d_min=self.d_min,
            d_max=self.d_max,
            filter_ice=self.filter_ice,
            ice_rings_width=self.ice_rings_width,
            masks=MaskParameters(parallax_correction=not self.disable_parallax_correction),
            engine=self.engine,
        )


class PerImageAnalysis(Service[ImageSeen, PIAParameters]):
    """Finds the spots on one image and says how well it diffracts.

    What the message says of the file travels on with the result. The image is a file, or an object in a
    store; the object that comes next is fetched while one is analysed. A file that is not complete is tried
    again a few times, as a file system may show the name of a file before its contents; so is an object of a
    store that does not answer. An object that is not there (any more) leaves at `missing`, and is no failure.
    """

    name: ClassVar[str] = "PerImageAnalysis"
    queue: ClassVar[str] = "per_image_analysis"
    Payload: ClassVar[type[BaseModel]] = ImageSeen
    Parameters: ClassVar[type[BaseModel]] = PIAParameters
    outputs: ClassVar[Outputs] = {"result": ImageResult, "missing": ImageMissing}
    default_output: ClassVar[str | None] = "result"
    prefetch: ClassVar[int] = 2  # the next image is at hand when one is done, and others get theirs
    max_retries: ClassVar[int] = 3

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._fetcher: FrameFetcher | None = None
        self._analysed = self._missing = self._broken = 0
        self._seconds = 0.0

    def start(self) -> None:
        """Load what analyses images: where it is missing, better say so now than of every image."""
        from parvis_services.xray import analysis  # noqa: F401
        from parvis_services.xray.stored_frames import StoredFrames

        self._fetcher = FrameFetcher(StoredFrames(self.config.storage))

    def stop(self) -> None:
        """Close what `start` opened."""
        if self._fetcher is not None:
            self._fetcher.close()

    def prepare(self, payload: ImageSeen, parameters: PIAParameters) -> None:  # noqa: ARG002 - as of `Service`
        """Begin to fetch the image, if it is in a store."""
        if self._fetcher is not None and is_object_url(payload.file):
            self._fetcher.announce(payload.file)

    def figures(self) -> Sequence[Figure]:
        """How many images there were, and how long fetching and computing took."""
        own = [
            Figure("images_analysed", "Images that were analysed", self._analysed, True),
            Figure("images_missing", "Images that were not in their store (any more)", self._missing, True),
            Figure("images_broken", "Images that could not be analysed", self._broken, True),
            Figure("compute_seconds", "Time spent analysing; of files, reading too", self._seconds, True),
        ]
        return own + (self._fetcher.figures() if self._fetcher is not None else [])

    def process(self, payload: ImageSeen, step: Step[PIAParameters]) -> None:
        """Analyse the image and send the result on."""
        about_file = {
            key: value
            for key, value in payload.model_dump(exclude_unset=True).items()
            if key.startswith("file")
        }
        try:
            parameters, frame = step.parameters.analysis(), step.parameters.frame
            if is_object_url(payload.file):
                result = self.analyse_object(payload.file, parameters, frame)
            else:
                result = self.analyse_file(payload.file, parameters, frame)
        except NoSuchObject as error:
            self._missing += 1
            step.send("missing", about_file | {"reason": str(error)})
            self.log.info("missing: %s", error)
            return
        except (MissingImageError, UnfinishedImageError) as error:
            raise Retry(str(error), after=1) from error
        except StoreUnavailable as error:
            raise Retry(str(error), after=_STORE_IS_AWAY) from error
        except (ImageError, StoreError, PathNotAllowed, ValueError, RuntimeError) as error:
            self._broken += 1
            raise Reject(str(error)) from error
        self._analysed += 1
        step.send("result", result.as_dict() | about_file)
        name = payload.file.rpartition("/")[2]
        which = name if frame is None else f"{name}, image {frame + 1}"
        self.log.info("%s: %d spots", which, result.n_spots_total)

    def analyse_file(self, name: str, parameters: AnalysisParameters, frame: int | None) -> ImageAnalysis:
        """Analyse an image in a file. Raises ImageError, PathNotAllowed, and as `analysis.analyse`."""
        from parvis_services.xray.analysis import analyse

        rule = PathRule(self.config.storage)
        path = rule.path(name)
        with self._computing():
            return analyse(path, parameters, frame=frame, allowed=rule.predicate)

    def analyse_object(self, name: str, parameters: AnalysisParameters, frame: int | None) -> ImageAnalysis:
        """Analyse an image in a store. Raises ImageError, StoreError, and ValueError for a bad address."""
        from parvis_services.xray.analysis import analyse_frame

        assert self._fetcher is not None  # noqa: S101 - `start` makes it
        if frame:
            raise FrameRangeError(name, f"there is no frame {frame}: an object holds one image, frame 0")
        fetched = self._fetcher.fetch(name)
        with self._computing():
            return analyse_frame(fetched, parameters)

    @contextlib.contextmanager
    def _computing(self) -> Generator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - begun
