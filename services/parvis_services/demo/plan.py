"""What the demonstration collects: a simulated grid scan, or frames that are there already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

from parvis_services.xray.grid import Grid

COLUMNS, ROWS = 14, 10
BOX_UM = 20.0
_RATE = 14.0  # images a second
_COLLECTION = re.compile(r"(?P<prefix>.+)_(?P<number>[0-9]{1,4})_#+\..*")
_FRAME = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)(?P<suffix>\.cbf(?:\.gz|\.bz2)?)")


class NoScan(Exception):
    """The frames that were given cannot be collected as a grid scan."""


@dataclass(frozen=True)
class Plan:
    """A grid scan to be collected.

    Attributes:
        grid: Its boxes.
        template: Names of the images, with a `#` for each digit of the number.
        prefix: What the names begin with, without the number of the data collection.
        number: Number of the data collection, where the names have one.
        first: Number of the first image.
        what: What it is, for people.
        centre: Where the crystal really is (x, y), in grid boxes, if anybody knows.
        detector: Arguments of `python -m parvis_services.simulate`, in which `{directory}` stands for where
            the images go.
        files: The frames, if they are there already.
        seed: Which crystal to simulate, if they are not.
    """

    grid: Grid
    template: str
    prefix: str
    number: int
    first: int
    what: str
    centre: tuple[float, float] | None
    detector: tuple[str, ...]
    files: tuple[Path, ...] = ()
    seed: int = 0

    def detector_command(self, directory: Path) -> list[str]:
        """Return the module, and its arguments, that collects the images into a directory."""
        arguments = [str(directory) if word == "{directory}" else word for word in self.detector]
        return ["parvis_services.simulate", *arguments]

    def file_name(self, image: int) -> str:
        """Return the file name of an image, counted from 1, or what to call it where it has no file."""
        digits = self.template.count("#")
        if not digits:
            return f"image {image}"
        return self.template.replace("#" * digits, f"{self.first + image - 1:0{digits}d}")


def simulated_plan(seed: int) -> Plan:
    """Return the plan of a synthetic scan; the same seed gives the same crystal and the same frames."""
    from parvis_services.simulate.collect import GridScan

    grid = Grid(COLUMNS, ROWS, snaked=True)
    options = {"--columns": COLUMNS, "--rows": ROWS, "--rate": _RATE, "--seed": seed}
    detector = [word for name, value in options.items() for word in (name, str(value))]
    return Plan(
        grid=grid,
        template="grid_1_#####.cbf",
        prefix="grid",
        number=1,
        first=1,
        what=f"a simulated crystal in a grid of {COLUMNS} x {ROWS} images",
        centre=GridScan(grid, seed=seed).mounted.centre,
        detector=("grid", "{directory}", *detector),
        seed=seed,
    )


def existing_plan(patterns: Sequence[str], interval: float = 0.1) -> Plan:
    """Return the plan of a line scan of frames that are there already.

    Args:
        patterns: Their names, or names with `*` and `?` for many.
        interval: Seconds between frames.

    Raises:
        NoScan: There are none, or they are not numbered CBF files that can be read.
    """
    found = [name for pattern in patterns for name in _names(str(Path(pattern).expanduser()))]
    files = sorted({Path(name).resolve() for name in found})
    if not files:
        raise NoScan(f"there are no files {' '.join(patterns)}")
    first, template = _template(files)
    _try_to_read(files)
    collection = _COLLECTION.fullmatch(template)
    return Plan(
        grid=Grid(len(files), 1),
        template=template,
        prefix=collection["prefix"] if collection else template.partition("#")[0].rstrip("_-."),
        number=int(collection["number"]) if collection else 1,
        first=first,
        what=f"{len(files)} frames, {files[0].name} to {files[-1].name}",
        centre=None,
        detector=("copy", *map(str, files), "{directory}", "--interval", str(interval), "--jitter", "0.8"),
        files=tuple(files),
    )


def streamed(plan: Plan) -> Plan:
    """Return the same for a detector that streams: its images are not in files of their own."""
    return replace(plan, template=f"{plan.prefix}_{plan.number}_master.h5", first=1)


def _names(pattern: str) -> list[str]:
    return [pattern] if Path(pattern).exists() else glob(pattern)  # noqa: PTH207 - a pattern with a directory


def _try_to_read(files: Sequence[Path]) -> None:
    """Look at the beginning of each file, and read the first one whole: reading all would take too long."""
    from parvis_services.xray.errors import ImageError
    from parvis_services.xray.images import is_cbf, open_image

    try:
        for file in files:
            if not is_cbf(file):
                raise NoScan(f"{file.name} is not a CBF image, whatever its name is")
        open_image(files[0])
    except ImageError as error:
        raise NoScan(f"{Path(error.path).name} cannot be read: {error.reason}") from None


def _template(files: Sequence[Path]) -> tuple[int, str]:
    """First number and name template of consecutively numbered files."""
    parts = [_FRAME.fullmatch(file.name) for file in files]
    frames = [part for part in parts if part is not None]
    if len(frames) < len(files):
        other = files[parts.index(None)].name
        raise NoScan(f"{other} is not a numbered CBF file, such as grid_0001.cbf, .cbf.gz or .cbf.bz2")
    first = frames[0]
    for number, frame in enumerate(frames, start=int(first["number"])):
        same = (frame["prefix"], frame["suffix"]) == (first["prefix"], first["suffix"])
        if not same or int(frame["number"]) != number or len(frame["number"]) != len(first["number"]):
            raise NoScan(f"{frame.string} does not follow on the file before it: number them one by one")
    return int(first["number"]), f"{first['prefix']}{'#' * len(first['number'])}{first['suffix']}"
