"""PerImageAnalysis: finds the spots on one image and says how well it diffracts."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Model, Outputs
from parvis_services.messages import ImageResult, ImageSeen
from parvis_services.paths import PathNotAllowed, PathRule
from parvis_services.xray.errors import ImageError, MissingImageError, UnfinishedImageError
from parvis_services.xray.parameters import Algorithm, AnalysisParameters, Engine, MaskParameters

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

    What the message says of the file travels on with the result. An image that is not complete is tried again
    a few times, as a file system may show the name of a file before its contents.
    """

    name: ClassVar[str] = "PerImageAnalysis"
    queue: ClassVar[str] = "per_image_analysis"
    Payload: ClassVar[type[BaseModel]] = ImageSeen
    Parameters: ClassVar[type[BaseModel]] = PIAParameters
    outputs: ClassVar[Outputs] = {"result": ImageResult}
    default_output: ClassVar[str | None] = "result"
    prefetch: ClassVar[int] = 2  # the next image is at hand when one is done, and others get theirs
    max_retries: ClassVar[int] = 3

    def start(self) -> None:
        """Load what analyses images: where it is missing, better say so now than of every image."""
        from parvis_services.xray import analysis  # noqa: F401

    def process(self, payload: ImageSeen, step: Step[PIAParameters]) -> None:
        """Analyse the image and send the result on."""
        from parvis_services.xray.analysis import analyse

        scan_range = step.parameters.scan_range
        rule = PathRule(self.config.storage)
        try:
            path = rule.path(payload.file)
            parameters = step.parameters.analysis()
            frame = scan_range[0] - 1 if scan_range else None
            result = analyse(path, parameters, frame=frame, allowed=rule.predicate)
        except (MissingImageError, UnfinishedImageError) as error:
            raise Retry(str(error), after=1) from error
        except (ImageError, PathNotAllowed, ValueError, RuntimeError) as error:
            raise Reject(str(error)) from error
        about_file = {
            key: value
            for key, value in payload.model_dump(exclude_unset=True).items()
            if key.startswith("file")
        }
        step.send("result", result.as_dict() | about_file)
        which = path.name if scan_range is None else f"{path.name}, image {scan_range[0]}"
        self.log.info("%s: %d spots", which, result.n_spots_total)
