"""XRayCentring: finds the crystal in a grid scan from the number of spots on each image."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from parvis.service.base import BatchService, Reject, Retry, Step
from parvis.service.contract import Model, Outputs
from parvis_services.analyse.centring_files import link_beside, write_json, write_log
from parvis_services.analyse.centring_state import CentringPayload, GridScan
from parvis_services.paths import PathNotAllowed, allowed_path
from parvis_services.xray.centring import Wells, box_size_px, centre_2d, centre_3d, multipin
from parvis_services.xray.grid import Grid

_FORGET_AFTER = 15 * 60.0  # seconds without a new image after which a grid scan is given up
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
        return Grid(self.steps_x, self.steps_y, self.snaked, self.orientation)


class CentringParameters(Model):
    """What the recipe says.

    Attributes:
        dcid: The data collection.
        gridinfo: Its grid; the recipe gives it as a key of the node.
        comment: The comment of the data collection; it tells a scan of a single image, which has no grid.
        experiment_type: `Mesh3D` makes the scans of a group wait for each other.
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


class CentringResult(Model):
    """What was found: one result in two dimensions, one for each crystal in three."""

    results: list[dict[str, Any]]
    status: str
    type: Literal["2d", "3d"]


_Item = tuple[CentringPayload, Step[CentringParameters]]


@dataclass
class _OpenGrid:
    """A grid scan of which something arrived in this batch, and the step of the last message about it."""

    scan: GridScan
    grid: Grid
    info: GridInfo
    step: Step[CentringParameters]

    @property
    def parameters(self) -> CentringParameters:
        return self.step.parameters


class XRayCentring(BatchService[CentringPayload, CentringParameters]):
    """Finds the crystal in a grid scan.

    The counts of a grid are gathered in a batch until the grid is complete. A batch that closes
    earlier, because it is full or old, sends what it knows of each grid to its own queue as a checkpoint,
    which becomes part of the next batch. So a grid may be of any size, and nothing is lost or counted twice
    when an instance dies.
    """

    name: ClassVar[str] = "XRayCentring"
    queue: ClassVar[str] = "reduce.xray_centering"
    Payload: ClassVar[type[BaseModel]] = CentringPayload
    Parameters: ClassVar[type[BaseModel]] = CentringParameters
    outputs: ClassVar[Outputs] = {"success": CentringResult, "abort": None}
    default_output: ClassVar[str | None] = "success"
    node_keys: ClassVar[tuple[str, ...]] = ("gridinfo",)
    exclusive: ClassVar[bool] = True
    batch_size: ClassVar[int] = 1000
    batch_wait: ClassVar[float] = 60.0

    def closes_batch(self, batch: Sequence[_Item]) -> bool:
        """A batch closes when the grid of the last message may be complete."""
        payload, step = batch[-1]
        info = step.parameters.gridinfo
        if info is None:
            return False
        dcid, known = step.parameters.dcid, 0
        for each, its_step in batch:
            if its_step.parameters.dcid == dcid:
                known += len(each.status.images) if each.status else 1
        if known < info.steps_x * info.steps_y:
            return False
        group = _group(step.parameters)
        grids = self._gather([item for item in batch if item[1].parameters.dcid in group])
        return any(open_grid.scan.is_complete for open_grid in grids.values()) and not self._is_waiting(
            payload, grids
        )

    def process_batch(self, batch: Sequence[_Item]) -> None:
        """Report the grids that are complete, give up those that are too old, keep the others for later."""
        grids = self._gather(batch)
        reported: set[int] = set()
        for dcid, open_grid in grids.items():
            if dcid not in reported and open_grid.scan.is_complete:
                reported |= self._report(open_grid, grids)
        for dcid, open_grid in grids.items():
            if dcid not in reported:
                self._keep_or_give_up(open_grid)

    def _gather(self, batch: Sequence[_Item]) -> dict[int, _OpenGrid]:
        """Put together what the messages say of each grid, by data collection."""
        now = time.time()
        grids: dict[int, _OpenGrid] = {}
        for payload, step in batch:
            info = step.parameters.gridinfo
            if info is None:
                self._no_grid(step.parameters)
                continue
            dcid = step.parameters.dcid
            if dcid not in grids:
                grid = _grid(info)
                grids[dcid] = _OpenGrid(GridScan(grid.size), grid, info, step)
            grids[dcid].step = step
            grids[dcid].scan.add(payload, now)
        return grids

    def _no_grid(self, parameters: CentringParameters) -> None:
        if _SINGLE_IMAGE not in (parameters.comment or ""):
            raise Reject(f"data collection {parameters.dcid} has no grid (gridinfo is empty)")

    def _is_waiting(self, payload: CentringPayload, grids: Mapping[int, _OpenGrid]) -> bool:
        """Whether all that is new is a checkpoint, and its group still waits for others."""
        if payload.status is None:
            return False
        return all(
            open_grid.scan.reported or not _partners_complete(open_grid, grids)
            for open_grid in grids.values()
        )

    def _report(self, last: _OpenGrid, grids: Mapping[int, _OpenGrid]) -> set[int]:
        """Report a complete grid, with its partners if they are complete; return those that are done with."""
        parameters = last.parameters
        group = _group(parameters)
        if len(group) > 1 and _partners_complete(last, grids):
            self._report_3d([grids[dcid] for dcid in sorted(group)], last)
            return group
        if len(group) > 1:
            if parameters.experiment_type != "Mesh3D" and not last.scan.reported:
                self._report_2d(last)
                last.scan.reported = True
            return set()
        self._report_2d(last)
        return {parameters.dcid}

    def _report_2d(self, open_grid: _OpenGrid) -> None:
        info, parameters = open_grid.info, open_grid.parameters
        result = centre_2d(
            open_grid.grid,
            open_grid.scan.sequence(),
            _box_size(info),
            (info.snapshot_offsetXPixel, info.snapshot_offsetYPixel),
            sample_id=parameters.sample_id,
            wells=_wells(parameters, info),
        )
        self._finish([open_grid], open_grid, "2d", [asdict(result)])

    def _report_3d(self, group: Sequence[_OpenGrid], last: _OpenGrid) -> None:
        parameters = last.parameters
        wells = _wells(parameters, last.info)
        try:
            results = centre_3d(
                group[0].grid.arrange(group[0].scan.sequence()),
                group[1].grid.arrange(group[1].scan.sequence()),
                threshold=parameters.threshold_msp if wells else parameters.threshold,
                threshold_absolute=(
                    parameters.threshold_absolute_msp if wells else parameters.threshold_absolute
                ),
                sample_id=parameters.sample_id,
                wells=wells,
            )
        except ValueError as error:
            raise Reject(f"data collections {sorted(_group(parameters))}: {error}") from error
        self._finish(group, last, "3d", [asdict(result) for result in results])

    def _finish(
        self,
        group: Sequence[_OpenGrid],
        last: _OpenGrid,
        kind: Literal["2d", "3d"],
        results: list[dict[str, Any]],
    ) -> None:
        """Write the files and send the result."""
        parameters = last.parameters
        # In three dimensions there may be several crystals, in two there is one result: the form GDA reads.
        content = results[0] if kind == "2d" else {"status": "success", "type": kind, "results": results}
        dcids = [open_grid.parameters.dcid for open_grid in group]
        try:
            if parameters.output:
                output = self._path(parameters.output)
                write_json(output, content)
                if parameters.results_symlink:
                    link_beside(output.parent, parameters.results_symlink)
            if parameters.log:
                write_log(self._path(parameters.log), dcids, kind, list(results))
        except OSError as error:
            raise Retry(f"cannot write {error.filename}: {error.strerror}") from error
        self._log_latency(group, parameters)
        last.step.send("success", CentringResult(results=results, status="success", type=kind))

    def _path(self, name: str) -> Path:
        if "{" in name:
            raise Reject(f"path {name!r} holds a placeholder that nobody filled")
        try:
            return allowed_path(name, self.config.storage)
        except PathNotAllowed as error:
            raise Reject(str(error)) from error

    def _log_latency(self, group: Sequence[_OpenGrid], parameters: CentringParameters) -> None:
        times = [open_grid.scan.newest_image for open_grid in group]
        newest = max((when for when in times if when is not None), default=None)
        if newest is None:
            return
        latency = time.time() - newest
        log = self.log.info
        if latency > parameters.latency_log_error:
            log = self.log.error
        elif latency > parameters.latency_log_warning:
            log = self.log.warning
        log(
            "centred data collection %d (%s) %.1f s after its last image",
            parameters.dcid,
            parameters.beamline or "beamline unknown",
            latency,
        )

    def _keep_or_give_up(self, open_grid: _OpenGrid) -> None:
        scan, parameters = open_grid.scan, open_grid.parameters
        if scan.last_arrival and time.time() - scan.last_arrival > _FORGET_AFTER:
            if not scan.reported:
                self.log.warning(
                    "data collection %d: gave up centring with %d of %d images, none new for %g minutes",
                    parameters.dcid,
                    len(scan.counts),
                    scan.size,
                    _FORGET_AFTER / 60,
                )
                open_grid.step.send("abort", {})
            return
        if scan.counts:
            open_grid.step.checkpoint(scan.checkpoint())


def _group(parameters: CentringParameters) -> set[int]:
    """The two perpendicular scans that make three dimensions, or the one scan if there is no such pair."""
    group = {parameters.dcid, *parameters.dcg_dcids}
    return group if len(group) == 2 else {parameters.dcid}


def _partners_complete(open_grid: _OpenGrid, grids: Mapping[int, _OpenGrid]) -> bool:
    return all(dcid in grids and grids[dcid].scan.is_complete for dcid in _group(open_grid.parameters))


def _grid(info: GridInfo) -> Grid:
    try:
        return info.grid()
    except ValueError as error:
        raise Reject(f"gridinfo: {error}") from error


def _box_size(info: GridInfo) -> tuple[float, float]:
    return box_size_px(info.dx_mm, info.dy_mm, info.micronsPerPixelX, info.micronsPerPixelY)


def _wells(parameters: CentringParameters, info: GridInfo) -> Wells | None:
    pin = multipin(parameters.loop_type)
    if pin is None or not parameters.msp_sample_ids:
        return None
    return Wells(pin.limits(1000 * info.dx_mm), parameters.msp_sample_ids)
