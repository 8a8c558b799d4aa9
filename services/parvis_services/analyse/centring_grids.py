"""The grid scans of which something is in a batch, and which of them belong together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from parvis.service.base import Reject, Step
from parvis_services.analyse.centring_parameters import CentringParameters, GridInfo
from parvis_services.analyse.centring_state import CentringPayload, GridScan
from parvis_services.xray.grid import Grid

Item: TypeAlias = tuple[CentringPayload, Step[CentringParameters]]
_Key: TypeAlias = tuple[str | None, int]


@dataclass
class OpenGrid:
    """One run of a grid scan: what is known of it, and the messages of the batch that told it.

    A data collection may be run several times, by recipes of their own, at the same time.

    Attributes:
        info: Its grid as the recipe has it.
        grid: The same for computing.
        scan: The counts that are known.
        messages: The messages.
        is_settled: It has been decided what becomes of its messages.
    """

    info: GridInfo
    grid: Grid
    scan: GridScan
    messages: list[Item] = field(default_factory=list[Item])
    is_settled: bool = False

    @property
    def step(self) -> Step[CentringParameters]:
        """The step of the last message: what leaves leaves there."""
        return self.messages[-1][1]

    @property
    def parameters(self) -> CentringParameters:
        return self.step.parameters

    @property
    def dcid(self) -> int:
        return self.parameters.dcid

    @property
    def waits(self) -> bool:
        """Whether, once complete, it is kept for the perpendicular scan.

        A scan that is dispatched before the other exists in the database cannot know it by name.
        """
        if self.scan.reported:
            return True
        return self.parameters.experiment_type == "Mesh3D" and len(self.parameters.group) <= 2

    def checkpoint(self, delay: float = 0) -> None:
        """Send all that is known as one message to be handled later, in place of the messages."""
        payload, step = self.messages[-1]
        own = (payload.model_extra or {}).get("parameters")
        step.checkpoint(self.scan.checkpoint() | ({"parameters": own} if own else {}), delay)

    def fail(self, error: Exception) -> None:
        """Have all messages end as if `error` had been raised for each."""
        for _, step in self.messages:
            step.fail(error)


class OpenGrids:
    """Puts together what the messages of a batch say of each grid scan, as the batch grows."""

    def __init__(self) -> None:
        self._grids: dict[_Key, OpenGrid] = {}
        self._first: Step[CentringParameters] | None = None
        self._count = 0

    def read(self, batch: Sequence[Item]) -> None:
        """Take in what is new in a batch; if it is another batch than before, begin anew.

        The steps of messages that have no grid, or none that can be, are failed.
        """
        if batch[0][1] is not self._first:
            self._grids, self._first, self._count = {}, batch[0][1], 0
        now = time.time()
        for item in batch[self._count :]:
            try:
                self._add(item, now)
            except Reject as error:
                item[1].fail(error)
        self._count = len(batch)

    def of(self, step: Step[CentringParameters]) -> OpenGrid | None:
        """The grid scan that a message tells of, if it has a grid."""
        return self._grids.get(_key(step))

    def newest_first(self) -> list[OpenGrid]:
        """All grid scans, the one that heard of an image last first."""
        return sorted(self._grids.values(), key=_last_arrival, reverse=True)

    def partner(self, grid: OpenGrid) -> OpenGrid | None:
        """The newest complete scan perpendicular to this one, if there is any."""
        complete = [
            other for other in self._partners(grid) if other.scan.is_complete and not other.is_settled
        ]
        return max(complete, key=_last_arrival, default=None)

    def is_idle(self, grid: OpenGrid, since: float) -> bool:
        """Whether no image of this scan, or of one that belongs to it, has arrived since then."""
        if _last_arrival(grid) >= since:
            return False
        return all(_last_arrival(other) < since for other in self._partners(grid))

    def _partners(self, grid: OpenGrid) -> list[OpenGrid]:
        return [other for other in self._grids.values() if _belong_together(grid, other)]

    def _add(self, item: Item, now: float) -> None:
        payload, step = item
        key = _key(step)
        if key not in self._grids:
            parameters = step.parameters
            if parameters.is_single_image:
                return
            if parameters.gridinfo is None:
                raise Reject(f"data collection {parameters.dcid} has no grid (gridinfo is empty)")
            grid = _grid(parameters.gridinfo)
            self._grids[key] = OpenGrid(parameters.gridinfo, grid, GridScan(grid.size))
        self._grids[key].messages.append(item)
        self._grids[key].scan.add(payload, now)


def _key(step: Step[CentringParameters]) -> _Key:
    return step.recipe_id, step.parameters.dcid


def _grid(info: GridInfo) -> Grid:
    try:
        return info.grid()
    except ValueError as error:
        raise Reject(f"gridinfo: {error}") from error


def _last_arrival(grid: OpenGrid) -> float:
    return grid.scan.last_arrival


def _belong_together(one: OpenGrid, other: OpenGrid) -> bool:
    """Whether two scans make three dimensions: at least one names the other, and neither names a third."""
    first, second = one.parameters.group, other.parameters.group
    if one.dcid == other.dcid or max(len(first), len(second)) > 2:
        return False
    return other.dcid in first or one.dcid in second
