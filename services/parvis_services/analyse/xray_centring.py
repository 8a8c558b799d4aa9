"""XRayCentring: finds the crystal in a grid scan from the number of spots on each image."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from parvis.config import Config
from parvis.observe.logs import recipe_context
from parvis.service.base import BatchService, Reject, Retry
from parvis.service.contract import Model, Outputs
from parvis_services.analyse.centring_files import link_beside, write_json, write_log
from parvis_services.analyse.centring_grids import Item, OpenGrid, OpenGrids
from parvis_services.analyse.centring_parameters import CentringParameters, GridInfo
from parvis_services.analyse.centring_state import CentringPayload
from parvis_services.paths import PathNotAllowed, allowed_path
from parvis_services.xray.centring import Wells, box_size_px, centre_2d, centre_3d, multipin

_FORGET_AFTER = 15 * 60.0  # seconds without a new image after which a grid scan is given up
_MOST_VOXELS = 5_000_000  # which takes about a gigabyte if all of them belong to one region


class CentringResult(Model):
    """What was found: one result in two dimensions, one for each crystal in three."""

    results: list[dict[str, Any]]
    status: str
    type: Literal["2d", "3d"]


class XRayCentring(BatchService[CentringPayload, CentringParameters]):
    """Finds the crystal in a grid scan.

    The counts of a grid are gathered in a batch until the grid is complete. A batch that closes
    earlier, because it is full or old, sends what it knows of each grid to its own queue as a checkpoint,
    which becomes part of the next batch. So a grid may be of any size, and nothing is lost or counted twice
    when an instance dies.

    A grid of which images are known to be missing, and no other is to come, is given up at once: a result
    with holes would look like one without a crystal there.

    A grid that is complete is put together in one message, too, and reported from it. So whatever goes wrong
    then goes wrong with one message, which is tried again or set aside: the dead letter holds the whole grid.
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

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._grids = OpenGrids()

    def closes_batch(self, batch: Sequence[Item]) -> bool:
        """A batch closes when there is something to report of the grid of the last message.

        It does not close because a grid has waited long enough: of two that are put back into the queue
        together, the first must not be gone when the second comes.
        """
        self._grids.read(batch)
        grid = self._grids.of(batch[-1][1])
        if grid is None or not grid.scan.is_complete:
            return grid is not None and grid.scan.is_hopeless
        return not grid.waits or self._grids.partner(grid) is not None

    def process_batch(self, batch: Sequence[Item]) -> None:
        """Report the grids that are complete, give up those that are too old, keep the others for later."""
        grids, self._grids = self._grids, OpenGrids()
        grids.read(batch)
        # More grids than fit in a batch would otherwise go round and round without a pause.
        full_of_old = len(batch) >= self.batch_size and all(payload.status for payload, _ in batch)
        pause = self.batch_wait if full_of_old else 0
        for grid in grids.newest_first():
            if grid.is_settled:
                continue
            partner = grids.partner(grid) if grid.scan.is_complete else None
            together = [grid, partner] if partner else [grid]
            for each in together:
                each.is_settled = True
            try:
                if partner and not self._put_together(together):
                    self._report_3d(*sorted(together, key=lambda each: each.dcid))
                elif not partner:
                    self._settle(grid, grids.is_idle(grid, time.time() - _FORGET_AFTER), pause)
            except Exception as error:  # noqa: BLE001 - one grid must not spoil the others
                for each in together:
                    each.fail(error)

    def _put_together(self, grids: Sequence[OpenGrid]) -> bool:
        """Have each grid that is to be reported be one message; return whether they were more."""
        if all(len(grid.messages) == 1 for grid in grids):
            return False
        for grid in grids:
            grid.checkpoint()
        return True

    def _settle(self, grid: OpenGrid, is_idle: bool, pause: float) -> None:
        """Decide what becomes of a grid scan that stands alone; if it is kept, it comes after a pause."""
        scan = grid.scan
        if scan.is_complete and not scan.reported and (is_idle or not grid.waits):
            if self._put_together([grid]):
                return
            self._report_2d(grid)
            if is_idle or len(grid.parameters.group) != 2:
                return
            scan.reported = True  # and kept for its partner
        if scan.is_hopeless:
            self._give_up(grid, "the others are missing")
        elif not is_idle:
            if scan.counts or scan.missing:
                grid.checkpoint(pause)
        elif scan.counts and not scan.reported:
            self._give_up(grid, f"none new for {_FORGET_AFTER / 60:g} minutes")

    def _give_up(self, grid: OpenGrid, why: str) -> None:
        with recipe_context(grid.step.recipe_id):
            self.log.warning(
                "data collection %d: gave up centring with %d of %d images, %s",
                grid.dcid,
                len(grid.scan.counts),
                grid.scan.size,
                why,
            )
        grid.step.send("abort", {})

    def _report_2d(self, grid: OpenGrid) -> None:
        info, parameters = grid.info, grid.parameters
        with _rejecting(f"data collection {grid.dcid}"):
            result = centre_2d(
                grid.grid,
                grid.scan.sequence(),
                box_size_px(info.dx_mm, info.dy_mm, info.micronsPerPixelX, info.micronsPerPixelY),
                (info.snapshot_offsetXPixel, info.snapshot_offsetYPixel),
                sample_id=parameters.sample_id,
                wells=_wells(parameters, info),
            )
        self._finish([grid], "2d", [asdict(result)])

    def _report_3d(self, first: OpenGrid, second: OpenGrid) -> None:
        """Report two perpendicular scans, in order of their data collections, by way of the second."""
        parameters = second.parameters
        what = f"data collections {first.dcid} and {second.dcid}"
        voxels = first.scan.size * second.grid.steps_y
        if voxels > _MOST_VOXELS:
            raise Reject(f"{what}: {voxels} voxels are more than {_MOST_VOXELS}")
        with _rejecting(what):
            wells = _wells(parameters, second.info)
            results = centre_3d(
                first.grid.arrange(first.scan.sequence()),
                second.grid.arrange(second.scan.sequence()),
                threshold=parameters.threshold_msp if wells else parameters.threshold,
                threshold_absolute=(
                    parameters.threshold_absolute_msp if wells else parameters.threshold_absolute
                ),
                sample_id=parameters.sample_id,
                wells=wells,
            )
        self._finish([first, second], "3d", [asdict(result) for result in results])

    def _finish(
        self, grids: Sequence[OpenGrid], kind: Literal["2d", "3d"], results: list[dict[str, Any]]
    ) -> None:
        """Write the files and send the result, by way of the last of the grids."""
        parameters = grids[-1].parameters
        # In three dimensions there may be several crystals, in two there is one result: the form GDA reads.
        content = results[0] if kind == "2d" else {"status": "success", "type": kind, "results": results}
        if parameters.output:
            output = self._path(parameters.output)
            try:
                write_json(output, content)
            except OSError as error:
                raise Retry(f"cannot write {output}: {error.strerror}") from error
            if parameters.results_symlink:
                with self._only_warning("link the results"):
                    # The link is made beside the directory of the results, where it may not be allowed.
                    self._path(str(output.parent.parent))
                    link_beside(output.parent, parameters.results_symlink)
        if parameters.log:
            with self._only_warning("write the results as text"):
                write_log(self._path(parameters.log), [grid.dcid for grid in grids], kind, list(results))
        self._log_latency(grids)
        grids[-1].step.send("success", CentringResult(results=results, status="success", type=kind))

    def _path(self, name: str) -> Path:
        if "{" in name:
            raise Reject(f"path {name!r} holds a placeholder that nobody filled")
        try:
            return allowed_path(name, self.config.storage)
        except PathNotAllowed as error:
            raise Reject(str(error)) from error

    @contextlib.contextmanager
    def _only_warning(self, what: str) -> Generator[None]:
        """What is only for convenience must not hold back the result."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.log.warning("cannot %s: %s", what, error)

    def _log_latency(self, grids: Sequence[OpenGrid]) -> None:
        parameters = grids[-1].parameters
        times = [grid.scan.newest_image for grid in grids]
        newest = max((when for when in times if when is not None), default=None)
        if newest is None:
            return
        latency = time.time() - newest
        log = self.log.info
        if latency > parameters.latency_log_error:
            log = self.log.error
        elif latency > parameters.latency_log_warning:
            log = self.log.warning
        with recipe_context(grids[-1].step.recipe_id):
            log(
                "centred data collection %d (%s) %.1f s after its last image",
                parameters.dcid,
                parameters.beamline or "beamline unknown",
                latency,
            )


@contextlib.contextmanager
def _rejecting(what: str) -> Generator[None]:
    """Numbers that make no sense are bad input."""
    try:
        yield
    except ValueError as error:
        raise Reject(f"{what}: {error}") from error


def _wells(parameters: CentringParameters, info: GridInfo) -> Wells | None:
    pin = multipin(parameters.loop_type)
    if pin is None or not parameters.msp_sample_ids:
        return None
    return Wells(pin.limits(1000 * info.dx_mm), parameters.msp_sample_ids)
