"""What a mini-CBF header says can be written and read back without loss."""

from __future__ import annotations

import bz2
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis_services.simulate.header import Header
from real_data import real_data

HEADER = Header(
    detector="PILATUS3 1M, S/N 00-0000",
    wavelength=0.9795,
    distance=0.1714,
    beam_xy=(497.37, 514.2),
    pixel_size=(172e-6, 172e-6),
    sensor_thickness=450e-6,
    count_cutoff=115897,
)
lengths = st.floats(1e-4, 10)
pixels = st.floats(-1e4, 1e4)


@given(lengths, lengths, st.tuples(pixels, pixels))
def test_geometry_survives_to_the_last_bit(wavelength, distance, beam_xy):
    header = replace(HEADER, wavelength=wavelength, distance=distance, beam_xy=beam_xy)
    assert Header.from_mini_cbf("\r\n".join(header.mini_cbf_lines())) == header


@pytest.mark.parametrize("size", [172e-6, 75e-6, 50e-6, 55.5e-6, 100e-6])
def test_pixel_sizes_survive(size):
    header = replace(HEADER, pixel_size=(size, size))
    assert Header.from_mini_cbf("\n".join(header.mini_cbf_lines())).pixel_size == pytest.approx(
        (size, size), rel=1e-14
    )


def test_a_real_header_is_read():
    packed = real_data("thaumatin_grid") / "thau_3_2_0003.cbf.bz2"
    text = bz2.decompress(packed.read_bytes())[:1400].decode()
    header = Header.from_mini_cbf(text)
    assert header == Header(
        detector="PILATUS3 6M, S/N 60-0119",
        wavelength=0.96859,
        distance=0.351,
        beam_xy=(1261.61, 1306.96),
        pixel_size=(172e-6, 172e-6),
        sensor_thickness=0.00045,
        count_cutoff=115897,
        exposure_time=0.019,
        exposure_period=0.02,
        transmission=0.2547,
        start_angle=89.9997,
        timestamp=datetime(2019, 9, 11, 13, 20, 29, 49000, tzinfo=UTC),
    )
    ours, theirs = header.mini_cbf_lines(), text.splitlines()
    assert {"# Pixel_size 172e-6 m x 172e-6 m", "# Silicon sensor, thickness 0.000450 m"} <= {*ours} & {
        *theirs
    }


def test_what_is_missing_is_named():
    lines = [line for line in HEADER.mini_cbf_lines() if "Wavelength" not in line and "Beam_xy" not in line]
    with pytest.raises(ValueError, match=r"does not give wavelength, beam_xy"):
        Header.from_mini_cbf("\n".join(lines))


def test_the_angle_goes_on_from_image_to_image():
    header = replace(HEADER, start_angle=10.0, angle_increment=0.1)
    assert Header.from_mini_cbf("\n".join(header.mini_cbf_lines(frame=5))).start_angle == 10.5
