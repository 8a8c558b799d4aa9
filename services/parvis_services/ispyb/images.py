"""What the columns of a data collection say of its images: names, numbers, kind of scan, detector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HASHES = re.compile(r"#+(?=[^#]*$)")
_PRINTF = re.compile(r"%0?([0-9]{0,2})d")
_DETECTOR_CLASSES = ("eiger", "pilatus")
_SIZE = re.compile(r"([0-9]+)\s*([MK])\b", re.IGNORECASE)


def image_pattern(template: str | None) -> str | None:
    """The file template with the image number as printf has it: `x_####.cbf` becomes `x_%04d.cbf`.

    A template without `#` names one file for all images and stays as it is.
    """
    if not template:
        return None
    run = _HASHES.search(template)
    if run is None:
        return template
    before, after = template[: run.start()], template[run.end() :]
    return f"{before.replace('%', '%%')}%0{len(run.group())}d{after.replace('%', '%%')}"


def image_path(directory: str | None, template: str | None, number: int | None) -> str | None:
    """The path of the file that holds an image.

    Args:
        directory: the image directory.
        template: with `####` or `%04d` for the number, or the name of one file for all images.
        number: of the image.

    Returns:
        The path; None if one of them is missing that is needed.
    """
    if not directory or not template:
        return None
    name = template
    run = _HASHES.search(template)
    printf = None if run else _PRINTF.search(template)
    place = run or printf
    if place is not None:
        if number is None:
            return None
        width = len(place.group()) if run else int(place.group(1) or 0)
        name = f"{template[: place.start()]}{str(number).zfill(width)}{template[place.end() :]}"
    return f"{directory.rstrip('/')}/{name.lstrip('/')}"


def first_and_last(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The numbers of the first and the last image of a DataCollection row; None where it does not say."""
    first, count = row["startImageNumber"], row["numberOfImages"]
    return first, None if first is None or count is None else first + count - 1


def image_range(row: Mapping[str, Any]) -> str | None:
    """`path:first:last` of a DataCollection row, as processing programs take it; None if incomplete."""
    first, last = first_and_last(row)
    path = image_path(row["imageDirectory"], row["fileTemplate"], first)
    return None if path is None or last is None else f"{path}:{first}:{last}"


def is_rotation(row: Mapping[str, Any]) -> bool | None:
    """Whether a DataCollection row is a continuous rotation; None if it does not say."""
    overlap, width = row["overlap"], row["axisRange"]
    return None if overlap is None or width is None else overlap == 0.0 and width > 0


def is_screening(row: Mapping[str, Any]) -> bool | None:
    """Whether a DataCollection row is a few images far apart (or just one); None if it does not say."""
    count = row["numberOfImages"]
    return None if count is None else count == 1 or (count > 1 and row["overlap"] != 0.0)


def scan_classes(
    row: Mapping[str, Any], grid: Mapping[str, Any], experiment: str | None
) -> dict[str, bool | None]:
    """What kind of scan a data collection is, as the rules that choose recipes ask for it.

    Args:
        row: its DataCollection row.
        grid: its GridInfo row, empty without one.
        experiment: the experiment type of its group.
    """
    serial_fixed, serial_jet = experiment == "Serial Fixed", experiment == "Serial Jet"
    screen = is_screening(row)
    return {
        "grid": bool(grid),
        "screen": screen and not (serial_fixed or serial_jet),
        "characterization": experiment == "Characterization",
        "rotation": is_rotation(row),
        "serial_fixed": serial_fixed,
        "serial_jet": serial_jet,
        "diamond_anvil_cell": experiment == "Diamond Anvil High Pressure",
    }


def detector_class(model: str | None, template: str | None) -> str | None:
    """`eiger` or `pilatus`: from the detector's model, else from what its files are called."""
    for name in _DETECTOR_CLASSES:
        if (model or "").lower().startswith(name):
            return name
    if (template or "").endswith("master.h5"):
        return "eiger"
    return "pilatus" if (template or "").endswith(".cbf") else None


def detector_name(model: str | None) -> str | None:
    """The short name of a detector model: `EIGER2 XE CdTe 9M` is an `Eiger9MCdTe`; None without a size."""
    kind, size = detector_class(model, None), _SIZE.search(model or "")
    if kind is None or size is None:
        return None
    sensor = "CdTe" if "cdte" in (model or "").lower() else ""
    return f"{kind.capitalize()}{size.group(1)}{size.group(2).upper()}{sensor}"
