"""Geometry from the axis tables of imgCIF headers."""

from __future__ import annotations

import bz2
import math

import numpy as np
import pytest

from parvis_services.xray.geometry import Beam, Panel
from parvis_services.xray.imgcif import ImgCif, parse_cif, rotate
from real_data import real_data

HEADER = """
data_image
_diffrn_radiation_wavelength.wavelength 0.6889
loop_
_axis.id
_axis.type
_axis.equipment
_axis.depends_on
_axis.vector[1] _axis.vector[2] _axis.vector[3]
_axis.offset[1] _axis.offset[2] _axis.offset[3]
OMEGA   rotation    goniometer .       1 0 0 . . .
SOURCE  general     source     .       0 0 1 . . .
TWOTH   rotation    detector   .       0 -2 0 . . .
DET_Z   translation detector   TWOTH   0 0 -1 0 0 0
ELEM_X  translation detector   DET_Z   1 0 0 -10 20 0
ELEM_Y  translation detector   ELEM_X  0 -1 0 0 0 0
loop_
_diffrn_scan_axis.scan_id
_diffrn_scan_axis.axis_id
_diffrn_scan_axis.angle_start
_diffrn_scan_axis.displacement_start
SCAN1 TWOTH 90 0
SCAN1 DET_Z 0 150
loop_
_diffrn_scan_frame_axis.frame_id
_diffrn_scan_frame_axis.axis_id
_diffrn_scan_frame_axis.angle
_diffrn_scan_frame_axis.displacement
FRAME1 TWOTH 0 0
FRAME1 DET_Z 0 200
loop_
_array_structure_list.array_id
_array_structure_list.index
_array_structure_list.dimension
_array_structure_list.precedence
_array_structure_list.direction
_array_structure_list.axis_set_id
ARRAY1 1 300 1 increasing ELEM_X
ARRAY1 2 400 2 increasing ELEM_Y
loop_
_array_structure_list_axis.axis_set_id
_array_structure_list_axis.axis_id
_array_structure_list_axis.displacement
_array_structure_list_axis.displacement_increment
ELEM_X ELEM_X 0.0 0.1
ELEM_Y ELEM_Y 0.0 0.2
_array_intensities.overload 1000
_array_intensities.undefined_value -1
"""


def panel(header: str = HEADER) -> Panel:
    return ImgCif(header).panel((0, 1), 0.3, 4.0)


def read(header: str) -> tuple[Beam, Panel]:
    return ImgCif(header).beam(), panel(header)


def test_a_detector_across_the_beam():
    found = panel()
    assert found.shape == (400, 300)
    assert found.pixel_size == pytest.approx((0.2, 0.1), rel=1e-15)
    assert found.origin == pytest.approx((-10, 20, -200))  # the setting of the frame, not of the scan
    assert found.fast_axis == (1, 0, 0)
    assert found.slow_axis == (0, -1, 0)
    assert (found.thickness, found.attenuation) == (0.3, 4.0)


def test_two_theta_swings_the_whole_detector():
    found = panel(HEADER.replace("FRAME1 TWOTH 0 0", "FRAME1 TWOTH 30 0"))
    s, c = math.sin(math.radians(30)), math.cos(math.radians(30))
    # About -y: +x goes towards +z, -z towards +x.
    assert found.origin == pytest.approx((-10 * c + 200 * s, 20, -10 * s - 200 * c))
    assert found.fast_axis == pytest.approx((c, 0, s))
    assert found.slow_axis == (0, -1, 0)


def test_without_settings_of_the_frame_those_of_the_scan_count():
    header = HEADER.replace("_diffrn_scan_frame_axis", "_something_else")
    assert panel(header).origin == pytest.approx((150, 20, -10))


def test_an_offset_turns_with_what_carries_it():
    header = HEADER.replace(
        "DET_Z   translation detector   TWOTH   0 0 -1 0 0 0", "DET_Z translation detector TWOTH 0 0 -1 1 2 3"
    )
    header = header.replace("FRAME1 TWOTH 0 0", "FRAME1 TWOTH 90 0")
    # (1, 2, 3) is turned by 90 degrees about -y, like the distance along -z.
    assert panel(header).origin == pytest.approx((200 - 3, 22, -10 + 1))


def test_an_array_may_run_backwards():
    found = panel(HEADER.replace("ARRAY1 1 300 1 increasing", "ARRAY1 1 300 1 decreasing"))
    assert found.fast_axis == (-1, 0, 0)
    assert found.origin == pytest.approx((-10 + 299 * 0.1, 20, -200))


def test_vectors_need_not_be_unit_vectors():
    found = panel(
        HEADER.replace(
            "DET_Z   translation detector   TWOTH   0 0 -1", "DET_Z translation detector TWOTH 0 0 -5"
        )
    )
    assert found.origin == pytest.approx((-10, 20, -200))


def test_beam_and_trusted_range():
    tables = ImgCif(HEADER)
    assert tables.beam().wavelength == 0.6889
    assert tables.beam().direction == (0, 0, -1)
    assert tables.trusted() == (0, 999)
    assert ImgCif(HEADER.replace("_array_intensities.overload 1000", "")).trusted() is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("_diffrn_radiation_wavelength.wavelength 0.6889", "", "wavelength"),
        ("0.6889", "unknown", "is not a number: 'unknown'"),
        ("0.6889", "nan", "is not a number"),
        ("SCAN1 DET_Z 0 150", "SCAN1 DET_Z 0", "ends in the middle of a row"),
        ("detector   TWOTH ", "detector   ELEM_Y ", "depends on itself"),
        ("detector   TWOTH ", "detector   NOWHERE ", "is not described"),
        ("detector   ELEM_X ", "detector   DET_Z ", "do not depend on each other"),
        ("increasing ELEM_X", "increasing ELEM_Q", "no axis of the array is called ELEM_Q"),
        ("_array_structure_list.dimension", "_array_structure_list.size", "dimension"),
        ("ELEM_X ELEM_X 0.0 0.1", "ELEM_X ELEM_X 0.0 0.0", "pixel size|no length"),
        ("0 -2 0", "0 0 0", "no direction"),
    ],
)
def test_headers_that_contradict_themselves(old, new, says):
    assert old in HEADER
    with pytest.raises(ValueError, match=says):
        read(HEADER.replace(old, new))


def test_what_a_cif_may_look_like():
    items = parse_cif(
        "data_x\n_a 1\n# _not 5\n_b 'two words' _c \"it's\"\n_d\n;several\nlines _e 7\n;\n"
        "loop_\n_f.x _f.y\n1 # one\n2\n'3' ;4\nloop_ _g 5 6\n_h last"
    )
    assert items == {
        "_a": ["1"],
        "_b": ["two words"],
        "_c": ["it's"],
        "_d": ["several\nlines _e 7\n"],
        "_f.x": ["1", "3"],
        "_f.y": ["2", ";4"],
        "_g": ["5", "6"],
        "_h": ["last"],
    }


def test_a_quoted_value_that_looks_like_a_name():
    assert parse_cif("_a '_b' _c 'loop_'") == {"_a": ["_b"], "_c": ["loop_"]}


def test_rotation_is_right_handed():
    turned = rotate(np.array([1.0, 0, 0]), np.array([0, 0, 3.0]), 90)
    assert turned == pytest.approx([0, 1, 0], abs=1e-15)


def test_a_real_header_with_the_detector_swung_out():
    """l-cysteine at I19: 2-theta 30 degrees about +x, 160 mm; at 2-theta 0 the beam met pixel 730, 865."""
    header = bz2.decompress(real_data("l_cysteine/l-cyst_01_00001.cbf.bz2").read_bytes())[:20000].decode(
        "latin-1"
    )
    tables = ImgCif(header.split("--CIF-BINARY")[0].replace("\r\n", "\n"))
    found = tables.panel((0, 1), 0.32, None)
    assert found.shape == (1679, 1475)
    assert tables.trusted() == (0, 388704)
    centre = found.lab(np.array([865.0]), np.array([730.0]))[0]
    assert centre == pytest.approx(
        [0, 160 * math.sin(math.radians(30)), -160 * math.cos(math.radians(30))], abs=0.1
    )
