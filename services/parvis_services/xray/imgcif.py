"""Detector geometry from the axis tables of a full imgCIF header.

Source of the conventions: Bernstein & Hammersley, International Tables for Crystallography G, chapter 3.7.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from parvis_services.xray.geometry import Beam, Panel, Reals, Vector, as_vector

Table = list[dict[str, str]]

_TOKEN = re.compile(
    r"""^;(?P<text>.*?)^;(?=\s|\Z)   # lines between semicolons at the beginning of a line
      | (?P<comment>\#[^\n]*)
      | '(?P<single>[^\n]*?)'(?=\s|\Z)
      | "(?P<double>[^\n]*?)"(?=\s|\Z)
      | (?P<word>\S+)""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def parse_cif(header: str) -> dict[str, list[str]]:
    """Every data item of a CIF header, by name in lower case, with its values: one, or one a row of its loop.

    Raises:
        ValueError: A loop ends in the middle of a row.
    """
    items: dict[str, list[str]] = {}
    names: list[str] = []
    values: list[str] = []
    naming = looping = False
    for quoted, token in [*_tokens(header), (False, "loop_")]:
        lower = token.lower()
        if quoted or not lower.startswith(("_", "loop_", "data_")):
            naming = False
            values.append(token)
            continue
        if not (looping and naming and lower.startswith("_")):
            _store(items, names, values)
            names, values = [], []
        looping = lower == "loop_" or (looping and naming)
        naming = True
        if lower.startswith("_"):
            names.append(lower)
    return items


def _tokens(header: str) -> Iterator[tuple[bool, str]]:
    for match in _TOKEN.finditer(header):
        if match.lastgroup and match.lastgroup != "comment":
            yield match.lastgroup != "word", match[match.lastgroup]


def _store(items: dict[str, list[str]], names: list[str], values: list[str]) -> None:
    if not names:
        return
    if len(values) % len(names):
        raise ValueError(f"the imgCIF loop of {names[0]} ends in the middle of a row")
    for column, name in enumerate(names):
        items[name] = values[column :: len(names)]


class ImgCif:
    """What the axis tables of an imgCIF header say about one detector element.

    Raises:
        ValueError: The tables are missing, or contradict themselves.
    """

    def __init__(self, header: str) -> None:
        self._items = parse_cif(header)
        self._axes = {row["id"]: row for row in self._table("axis", "id", "type", "depends_on")}
        self._settings = self._read_settings()

    def beam(self) -> Beam:
        """The beam, from the wavelength and the axis of the source."""
        wavelength = _number(self._value("_diffrn_radiation_wavelength.wavelength"), "wavelength")
        source = [row for row in self._axes.values() if row.get("equipment", "").lower() == "source"]
        x, y, z = self._vector(source[0], "vector") if source else (0.0, 0.0, 1.0)
        return Beam(wavelength, (-x, -y, -z))

    def trusted(self) -> tuple[float, float] | None:
        """Lowest and highest trusted count, both included, or None if the header does not say."""
        overload = self._items.get("_array_intensities.overload", ["."])[0]
        undefined = self._items.get("_array_intensities.undefined_value", ["."])[0]
        if overload in ".?":
            return None
        lowest = 0.0 if undefined in ".?" else _number(undefined, "undefined value") + 1
        return lowest, _number(overload, "overload") - 1

    def panel(self, trusted: tuple[float, float], thickness: float, attenuation: float | None) -> Panel:
        """The panel the axes of the array describe."""
        fast, slow = sorted(
            self._table("array_structure_list", "precedence", "dimension", "axis_set_id"),
            key=lambda row: int(_number(row["precedence"], "precedence")),
        )[:2]
        origin = self._position(fast, slow, 0, 0)
        fast_step = self._position(fast, slow, 1, 0) - origin
        slow_step = self._position(fast, slow, 0, 1) - origin
        return Panel(
            shape=(_size(slow), _size(fast)),
            pixel_size=(self._step(slow), self._step(fast)),
            origin=as_vector(origin),
            slow_axis=as_vector(slow_step),
            fast_axis=as_vector(fast_step),
            trusted=trusted,
            thickness=thickness,
            attenuation=attenuation,
        )

    def _position(self, fast: dict[str, str], slow: dict[str, str], i_fast: int, i_slow: int) -> Reals:
        """Position in mm of a pixel, by its indices."""
        moved = dict(self._settings)
        innermost: list[str] = []
        for row, index in ((fast, i_fast), (slow, i_slow)):
            axis, displacement = self._array_axis(row, index)
            moved[axis] = displacement
            innermost.append(axis)
        chains = [self._chain(axis) for axis in innermost]
        chain = max(chains, key=len)
        if not set(innermost) <= set(chain):
            raise ValueError(f"the array axes {' and '.join(innermost)} do not depend on each other")
        point = np.zeros(3)
        for axis in chain:
            point = self._move(axis, moved.get(axis, 0.0), point)
        return point

    def _array_axis(self, row: dict[str, str], index: int) -> tuple[str, float]:
        table = self._table("array_structure_list_axis", "axis_id", "displacement_increment")
        for entry in table:
            if entry.get("axis_set_id", entry["axis_id"]) == row["axis_set_id"]:
                start = _number(entry.get("displacement", "."), "displacement", 0.0)
                step = _number(entry["displacement_increment"], "displacement increment")
                if row.get("direction", "increasing").lower() == "decreasing":
                    start, step = start + (_size(row) - 1) * step, -step
                return entry["axis_id"], start + index * step
        raise ValueError(f"no axis of the array is called {row['axis_set_id']}")

    def _step(self, row: dict[str, str]) -> float:
        """Distance between pixels along an axis of the array."""
        return abs(self._array_axis(row, 1)[1] - self._array_axis(row, 0)[1])

    def _chain(self, axis: str) -> list[str]:
        """The axis, what it depends on, and so on to the laboratory."""
        chain: list[str] = []
        while axis not in ".?":
            if axis in chain or axis not in self._axes:
                raise ValueError(f"axis {axis} of the imgCIF header depends on itself or is not described")
            chain.append(axis)
            axis = self._axes[axis]["depends_on"]
        return chain

    def _move(self, axis: str, setting: float, point: Reals) -> Reals:
        row = self._axes[axis]
        vector = np.array(self._vector(row, "vector"))
        offset = np.array(self._vector(row, "offset"))
        kind = row["type"].lower()
        if kind == "rotation":
            return offset + rotate(point, vector, setting)
        length = np.linalg.norm(vector)
        return offset + point + (setting / length * vector if kind == "translation" and length else 0.0)

    def _read_settings(self) -> dict[str, float]:
        """Degrees of each rotation and mm of each translation; where there are two, that of the frame."""
        settings: dict[str, float] = {}
        for category, angle, displacement in (
            ("diffrn_scan_axis", "angle_start", "displacement_start"),
            ("diffrn_scan_frame_axis", "angle", "displacement"),
        ):
            if f"_{category}.axis_id" not in self._items:
                continue
            for row in self._table(category, "axis_id"):
                rotation = self._axes.get(row["axis_id"], {}).get("type", "").lower() == "rotation"
                value = row.get(angle if rotation else displacement, ".")
                settings[row["axis_id"]] = _number(value, f"setting of {row['axis_id']}", 0.0)
        return settings

    def _vector(self, row: dict[str, str], what: str) -> Vector:
        x, y, z = (_number(row.get(f"{what}[{i}]", "."), what, 0.0) for i in (1, 2, 3))
        return x, y, z

    def _value(self, name: str) -> str:
        values = self._items.get(name)
        if not values:
            raise ValueError(f"the imgCIF header does not give {name}")
        return values[0]

    def _table(self, category: str, *required: str) -> Table:
        """The rows of a category, or an error that names what is missing."""
        prefix = f"_{category}."
        columns = {
            name.removeprefix(prefix): values
            for name, values in self._items.items()
            if name.startswith(prefix)
        }
        for name in required:
            self._value(prefix + name)
        rows = min(len(values) for values in columns.values())
        return [{name: values[row] for name, values in columns.items()} for row in range(rows)]


def rotate(point: Reals, axis: Reals, degrees: float) -> Reals:
    """Turn a point about an axis through the origin (Rodrigues)."""
    length = np.linalg.norm(axis)
    if length == 0:
        raise ValueError("a rotation axis has no direction")
    unit = axis / length
    angle = math.radians(degrees)
    along = unit * (unit @ point)
    return along + (point - along) * math.cos(angle) + np.cross(unit, point) * math.sin(angle)


def _size(row: dict[str, str]) -> int:
    return int(_number(row["dimension"], "dimension"))


def _number(text: str, what: str, default: float | None = None) -> float:
    if text in ".?" and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the {what} in the imgCIF header is not a number: {text[:40]!r}")
    return value
