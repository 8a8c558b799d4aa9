"""What the recipe says to the X-ray centring."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from parvis.service.contract import Model
from parvis_services.xray.grid import Grid

_SINGLE_IMAGE = "Diffraction grid scan of 1 by 1 images"


class GridInfo(Model):
    """The grid, as the metadata database has it: box sizes in mm, offsets in pixels of the snapshot."""

    model_config = ConfigDict(extra="ignore")

    steps_x: int = Field(ge=1)
    steps_y: int = Field(ge=1)
    dx_mm: float
    dy_mm: float
    micronsPerPixelX: float = Field(gt=0)  # noqa: N815 - column names of the database
    micronsPerPixelY: float = Field(gt=0)  # noqa: N815
    snapshot_offsetXPixel: float  # noqa: N815
    snapshot_offsetYPixel: float  # noqa: N815
    snaked: bool = False
    orientation: Literal["horizontal", "vertical"] = "horizontal"

    @field_validator("orientation", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return "horizontal" if value is None else str(value).lower()

    @field_validator("snaked", mode="before")
    @classmethod
    def _not_snaked_if_unknown(cls, value: Any) -> Any:
        return bool(value)

    def grid(self) -> Grid:
        """The grid itself. Raises ValueError if it is larger than any can be."""
        return Grid(self.steps_x, self.steps_y, self.snaked, self.orientation)


class CentringParameters(Model):
    """What the recipe says.

    Attributes:
        dcid: The data collection.
        gridinfo: Its grid; the recipe gives it as a key of the node.
        comment: The comment of the data collection; it tells a scan of a single image, which has no grid.
        experiment_type: `Mesh3D` makes a scan wait for the perpendicular one of its group.
        dcg_dcids: The other data collections of the group, for finding the centre in three dimensions.
        output: Path of the JSON file to write.
        log: Path of the text file to write.
        results_symlink: Name of a link to the results directory, made beside it.
        latency_log_warning: Seconds from the last image to the result that deserve a warning.
        latency_log_error: Seconds that deserve an error.
        beamline: For the log.
        sample_id: The sample.
        loop_type: `multipin_<wells>x<pitch>+<offset>` if the pin holds several samples.
        msp_sample_ids: The sample in each well of such a pin.
        threshold: Fraction of the maximum, for three dimensions.
        threshold_absolute: Fewer spots than this count as none.
        threshold_msp: The same two for pins with several samples.
        threshold_absolute_msp: See there.
    """

    dcid: int
    gridinfo: GridInfo | None = None
    comment: str | None = None
    experiment_type: str | None = None
    dcg_dcids: list[int] = Field(default_factory=list)
    output: str | None = None
    log: str | None = None
    results_symlink: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$")
    latency_log_warning: float = 30
    latency_log_error: float = 300
    beamline: str | None = None
    sample_id: int | None = None
    loop_type: str | None = None
    msp_sample_ids: dict[int, int] = Field(default_factory=dict)
    threshold: float = Field(default=0.25, ge=0, le=1)
    threshold_absolute: float = Field(default=0, ge=0)
    threshold_msp: float = Field(default=0.25, ge=0, le=1)
    threshold_absolute_msp: float = Field(default=3, ge=0)

    @field_validator("gridinfo", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @field_validator("dcg_dcids", "msp_sample_ids", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any, info: Any) -> Any:
        return ([] if info.field_name == "dcg_dcids" else {}) if value is None else value

    @property
    def group(self) -> frozenset[int]:
        """The data collections of the group that are known, this one among them."""
        return frozenset((self.dcid, *self.dcg_dcids))

    @property
    def is_single_image(self) -> bool:
        """Whether it was a scan of one image, which has no grid."""
        return self.gridinfo is None and _SINGLE_IMAGE in (self.comment or "")
